//! Room on disk.

use std::ffi::CString;

/// Bytes that may still be written below this folder; `None`: it cannot be looked at.
pub fn free_bytes(folder: &str) -> Option<i64> {
    let path = CString::new(folder).ok()?;
    // SAFETY: statvfs fills the structure, which is plain numbers, and reads a NUL-terminated path.
    unsafe {
        let mut found: libc::statvfs = std::mem::zeroed();
        if libc::statvfs(path.as_ptr(), &raw mut found) != 0 {
            return None;
        }
        #[allow(clippy::unnecessary_cast, reason = "other platforms have other widths")]
        let (blocks, size) = (found.f_bavail as u64, found.f_frsize as u64);
        i64::try_from(blocks.saturating_mul(size)).ok()
    }
}
