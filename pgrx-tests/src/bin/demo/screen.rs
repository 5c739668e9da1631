//! What the demo prints: headings, one line that updates itself, a table.

use std::cell::{Cell, RefCell};
use std::io::{stdout, IsTerminal, Write};
use std::time::{Duration, Instant};

/// Where the line cannot update itself, it is printed this often.
const PLAIN_INTERVAL: Duration = Duration::from_secs(1);

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

    /// The first column to the left, the others to the right, the first row in bold.
    pub fn table(&self, rows: &[Vec<String>]) {
        self.keep();
        let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns)
            .map(|i| {
                let cells = rows.iter().filter_map(|row| row.get(i));
                cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
            })
            .collect();
        for (number, row) in rows.iter().enumerate() {
            let mut line = String::new();
            for (i, cell) in row.iter().enumerate() {
                let width = widths[i];
                line += &match i {
                    0 => format!("{cell:<width$}"),
                    _ => format!("   {cell:>width$}"),
                };
            }
            if number == 0 && self.is_terminal {
                line = format!("\x1b[1m{line}\x1b[0m");
            }
            println!("  {}", line.trim_end());
        }
    }
}

/// 1234567 as 1,234,567.
pub fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

pub fn bytes(n: f64) -> String {
    format!("{:.1} MB", n / 1_048_576.0)
}

/// Milliseconds with as many places as they deserve.
pub fn ms(n: f64) -> String {
    match n {
        n if n < 10.0 => format!("{n:.1} ms"),
        n => format!("{n:.0} ms"),
    }
}
