//! What `make faults` reports at its end.

use std::io::Write;
use std::time::Duration;

#[derive(Default)]
pub struct Figures {
    /// A migration at a place, struck by one fault.
    pub cells: usize,
    pub failed: usize,
    /// Processes of ours, or of who called us, that died in the middle of their work.
    pub kills: usize,
    pub statements: u64,
    pub lost: usize,
    /// The longest statement of a client, while the server was there.
    pub stall: Duration,
    pub events: usize,
}

impl Figures {
    /// Says them, and leaves them for whoever adds up several runs.
    pub fn report(&self, what: &str) {
        let line = format!(
            "{what}: cells {} passed {} kills {} statements {} lost {} stall {} events {}\n",
            self.cells,
            self.cells - self.failed.min(self.cells),
            self.kills,
            self.statements,
            self.lost,
            self.stall.as_millis(),
            self.events
        );
        print!("{line}");
        if let Some(path) = std::env::var_os("FAULT_FIGURES") {
            let file = std::fs::OpenOptions::new()
                .create(true)
                .append(true)
                .open(path);
            file.and_then(|mut file| file.write_all(line.as_bytes()))
                .expect("the file of figures");
        }
    }
}
