//! Stops a cluster whose test process went away without saying so.
//!
//! libtest ends the process without dropping statics, and a developer presses Ctrl-C; neither may leave a server behind. The
//! watchdog reads a pipe whose only writing end is in the test process: when that process ends, however it ends, the
//! kernel closes the pipe. (A death signal would follow the thread that forked, and libtest's threads end early.)

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// `$1` is the cluster's folder. A postmaster is recognised by its working directory, for its pid may have been
/// given to someone else after a kill -9.
const SCRIPT: &str = r#"
cat >/dev/null
[ -d "$1" ] || exit 0
pid=$(head -n 1 "$1/data/postmaster.pid" 2>/dev/null)
is_ours() { [ -n "$pid" ] && [ "$(readlink "/proc/$pid/cwd")" = "$1/data" ]; }
if is_ours "$1"; then
  kill -QUIT "$pid"
  tries=0
  while is_ours "$1" && [ $tries -lt 100 ]; do sleep 0.1; tries=$((tries + 1)); done
fi
[ -e "$1/keep" ] || rm -rf "$1"
"#;

#[derive(Debug)]
pub(crate) struct Watchdog(Child);

impl Watchdog {
    pub(crate) fn over(dir: &Path) -> Watchdog {
        let child = Command::new("sh")
            .args(["-c", SCRIPT, "watchdog"])
            .arg(dir)
            .stdin(Stdio::piped())
            // A caller that reads our output to its end must not wait for the watchdog.
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C goes to the whole group of the terminal; the watchdog is for what comes after it.
            .process_group(0)
            .spawn()
            .expect("sh");
        Watchdog(child)
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}
