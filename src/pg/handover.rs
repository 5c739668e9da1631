//! Handing bytes to a process that is started later: a segment of dynamic shared memory that outlives this transaction.

use pgrx::pg_sys;

/// Length of the length in front of the bytes.
const HEADER: usize = std::mem::size_of::<u64>();

/// A segment with `bytes` in it, by its handle; `None`: the server has no segment left.
pub fn give(bytes: &[u8]) -> Option<u32> {
    // SAFETY: inside a transaction, which lets go of our mapping at its end; the segment is as long as what is written,
    // and pinned, so that it stays until `take` or `discard`.
    unsafe {
        let flags = pg_sys::DSM_CREATE_NULL_IF_MAXSEGMENTS as i32;
        let segment = pg_sys::dsm_create(HEADER + bytes.len(), flags);
        if segment.is_null() {
            return None;
        }
        let start = pg_sys::dsm_segment_address(segment).cast::<u8>();
        let length = (bytes.len() as u64).to_ne_bytes();
        std::ptr::copy_nonoverlapping(length.as_ptr(), start, HEADER);
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), start.add(HEADER), bytes.len());
        pg_sys::dsm_pin_segment(segment);
        Some(pg_sys::dsm_segment_handle(segment))
    }
}

/// What was given under this handle; the segment is gone afterwards.
pub fn take(handle: u32) -> Option<Vec<u8>> {
    // SAFETY: `give` wrote the length and as many bytes; they are copied before the segment goes.
    unsafe {
        let segment = pg_sys::dsm_attach(handle);
        if segment.is_null() {
            return None;
        }
        let start = pg_sys::dsm_segment_address(segment).cast::<u8>();
        let mut length = [0u8; HEADER];
        std::ptr::copy_nonoverlapping(start, length.as_mut_ptr(), HEADER);
        let length = u64::from_ne_bytes(length) as usize;
        let room = (pg_sys::dsm_segment_map_length(segment) as usize).saturating_sub(HEADER);
        let bytes = std::slice::from_raw_parts(start.add(HEADER), length.min(room)).to_vec();
        pg_sys::dsm_detach(segment);
        pg_sys::dsm_unpin_segment(handle);
        Some(bytes)
    }
}

/// Lets go of a segment that nobody will take.
pub fn discard(handle: u32) {
    // SAFETY: pinned by `give`.
    unsafe { pg_sys::dsm_unpin_segment(handle) }
}
