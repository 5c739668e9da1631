//! What the demo prints: headings, one line that updates itself, a table.

use std::cell::{Cell, RefCell};
use std::io::{stdout, IsTerminal, Write};
use std::time::{Duration, Instant};

use transmute_tests::report;

/// Where the line cannot update itself, it is printed this often.
const PLAIN_INTERVAL: Duration = Duration::from_secs(2);

pub struct Screen {
    is_terminal: bool,
    /// The line that may still be written over, or that was held back.
    live: RefCell<String>,
    plain_at: Cell<Option<Instant>>,
}

impl Screen {
    pub fn new() -> Screen {
        Screen {
            is_terminal: stdout().is_terminal(),
            live: RefCell::default(),
            plain_at: Cell::default(),
        }
    }

    pub fn title(&self, text: &str) {
        self.keep();
        if self.is_terminal {
            println!("\n\x1b[1m{text}\x1b[0m");
        } else {
            println!("\n{text}");
        }
    }

    pub fn say(&self, text: &str) {
        self.keep();
        text.lines().for_each(|line| println!("  {line}"));
    }

    /// Writes over the last such line; where there is no terminal, prints one now and then.
    pub fn live(&self, text: &str) {
        if self.is_terminal {
            // Back to the start, and what is left of the line before is erased. Not wrapped: a wrapped line cannot be
            // written over.
            print!("\r\x1b[?7l  {text}\x1b[K\x1b[?7h");
            let _ = stdout().flush();
        } else if self
            .plain_at
            .get()
            .is_none_or(|at| at.elapsed() >= PLAIN_INTERVAL)
        {
            println!("  {text}");
            self.plain_at.set(Some(Instant::now()));
            self.live.take();
            return;
        }
        *self.live.borrow_mut() = text.to_string();
    }

    /// Leaves the last live line where it is, printed if it was held back.
    pub fn keep(&self) {
        match self.live.take() {
            line if line.is_empty() => {}
            _ if self.is_terminal => println!(),
            line => println!("  {line}"),
        }
        self.plain_at.set(None);
    }

    /// A table whose first row is its heading.
    pub fn table(&self, rows: &[Vec<String>]) {
        self.keep();
        for (number, line) in report::table(rows).iter().enumerate() {
            if number == 0 && self.is_terminal {
                println!("  \x1b[1m{line}\x1b[0m");
            } else {
                println!("  {line}");
            }
        }
    }
}
