//! A disk of a server's own that is small enough to be filled.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::tools;

/// In memory, until it is dropped.
pub struct Disk(PathBuf);

impl Disk {
    /// `None` where nothing may be mounted.
    pub fn mount(megabytes: usize) -> Option<Disk> {
        let folder = tempfile::Builder::new()
            .prefix("transmute-disk-")
            .tempdir_in("/tmp")
            .expect("a folder");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={megabytes}m"), "tmpfs"])
            .arg(folder.path())
            .stderr(Stdio::null())
            .status();
        if !mounted.is_ok_and(|status| status.success()) {
            return None;
        }
        tools::give_to_server_user(folder.path());
        Some(Disk(folder.keep()))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Leaves no room; the file that takes it.
    pub fn fill(&self) -> PathBuf {
        let file = self.0.join("somebody-elses");
        let open = fs::File::create(&file).expect("a file");
        for at in 0.. {
            if open.write_all_at(&[1; 65536], at * 65536).is_err() {
                break;
            }
        }
        file
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
        let _ = fs::remove_dir(&self.0);
    }
}
