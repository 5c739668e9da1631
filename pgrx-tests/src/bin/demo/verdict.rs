//! What held and what did not.

use std::time::SystemTime;

use transmute_tests::lockwatch;
use transmute_tests::pgbench::{Report, Stats};
use transmute_tests::report::{grouped, megabytes, ms};
use transmute_tests::Session;

use crate::screen::Screen;
use crate::{BACK, COLUMN, FORTH, TABLE};

/// The new table may be that much larger than the old one.
const MAX_GROWTH: f64 = 1.05;

/// The windows between two marks, in their order.
const WINDOWS: [&str; 4] = ["before", "during", "after", "2nd, called off"];

pub struct RolledBack {
    pub copied: f64,
    pub outcome: String,
    pub before: String,
    pub after: String,
}

pub struct Facts {
    windows: Vec<Stats>,
    failed: u64,
    errors: Vec<String>,
    locks: lockwatch::Report,
    lock_held_ms: f64,
    size: (i64, i64),
    column_type: String,
    rows: i64,
    rows_checked: i64,
    rows_repaired: i64,
    /// Sum over the accounts, and over the history of what was added to them: pgbench's own bookkeeping.
    balances: (i64, i64),
    audit: (bool, i64, String),
    rolled_back: RolledBack,
}

impl Facts {
    /// Asks the server; the application has stopped.
    pub fn gather(
        session: &mut Session,
        application: Report,
        marks: &[SystemTime],
        locks: lockwatch::Report,
        size: (i64, i64),
        rolled_back: RolledBack,
    ) -> Facts {
        let progress = session.query_one(
            "SELECT rows_checked::bigint, rows_repaired::bigint, coalesce(lock_held_ms, 'NaN') FROM transmute.progress WHERE id = $1",
            &[&FORTH],
        );
        let audit = session.query_one(
            "SELECT ok, events, detail FROM transmute.audit_verify()",
            &[],
        );
        Facts {
            windows: marks
                .windows(2)
                .map(|window| application.between(window[0], window[1]))
                .collect(),
            failed: application.failures(),
            errors: application.errors,
            locks,
            lock_held_ms: progress.get(2),
            size,
            column_type: session.scalar(&format!(
                "SELECT format_type(atttypid, atttypmod) FROM pg_attribute
                 WHERE attrelid = '{TABLE}'::regclass AND attname = '{COLUMN}'"
            )),
            rows: session.scalar(&format!("SELECT count(*) FROM {TABLE}")),
            rows_checked: progress.get(0),
            rows_repaired: progress.get(1),
            balances: (
                session.scalar(&format!(
                    "SELECT coalesce(sum({COLUMN}), 0)::bigint FROM {TABLE}"
                )),
                session.scalar("SELECT coalesce(sum(delta), 0)::bigint FROM pgbench_history"),
            ),
            audit: (audit.get(0), audit.get(1), audit.get(2)),
            rolled_back,
        }
    }

    /// Prints the tables and what did not hold; whether all did.
    pub fn show(&self, screen: &Screen) -> bool {
        screen.title("The application");
        screen.table(&self.latencies());
        screen.title("The migration");
        screen.say(&self.migration());
        let broken = self.broken();
        if broken.is_empty() {
            screen.title("Everything held.");
        } else {
            screen.title("NOT EVERYTHING HELD:");
            broken.iter().for_each(|what| screen.say(what));
            self.errors.iter().take(5).for_each(|line| screen.say(line));
        }
        broken.is_empty()
    }

    fn latencies(&self) -> Vec<Vec<String>> {
        type Cell = fn(&Stats) -> String;
        let lines: [(&str, Cell); 4] = [
            ("transactions a second", |s| format!("{:.0}", s.tps)),
            ("latency, median", |s| ms(s.p50_ms)),
            ("latency, 99 of 100", |s| ms(s.p99_ms)),
            ("latency, worst", |s| ms(s.max_ms)),
        ];
        let mut rows = vec![std::iter::once("")
            .chain(WINDOWS)
            .map(str::to_string)
            .collect::<Vec<_>>()];
        for (name, cell) in lines {
            let cells = self.windows.iter().map(cell);
            rows.push(std::iter::once(name.to_string()).chain(cells).collect());
        }
        rows.push(vec!["failed statements".into(), self.failed.to_string()]);
        rows
    }

    fn migration(&self) -> String {
        let (before, after) = self.size;
        let sampled = self
            .locks
            .held
            .iter()
            .map(|episode| episode.at_most_ms)
            .fold(0.0, f64::max);
        let (verified, events, detail) = &self.audit;
        let lines = [
            (
                "ACCESS EXCLUSIVE, longest",
                format!(
                    "{} by the swap's own clock, at most {} as others saw it",
                    ms(self.lock_held_ms),
                    ms(sampled)
                ),
            ),
            (
                "type of the column",
                format!("{TABLE}.{COLUMN} is {}", self.column_type),
            ),
            (
                "size with indexes",
                format!(
                    "{} before, {} after: {:.2} of it",
                    megabytes(before as f64),
                    megabytes(after as f64),
                    self.growth()
                ),
            ),
            (
                "rows checked",
                format!(
                    "{} compared, byte for byte ({} in the table), {} repaired",
                    grouped(self.rows_checked as f64),
                    grouped(self.rows as f64),
                    self.rows_repaired
                ),
            ),
            (
                "writes",
                match self.balances {
                    (accounts, history) if accounts == history => {
                        "none lost: accounts and history add up to the same".into()
                    }
                    (accounts, history) => format!("accounts {accounts}, history {history}"),
                },
            ),
            (
                "called off",
                format!(
                    "at {:.0} % of the copy: {}; catalog, file and schemas {}",
                    100.0 * self.rolled_back.copied,
                    self.rolled_back.outcome.to_lowercase().replace('_', " "),
                    if self.rolled_back.before == self.rolled_back.after {
                        "as before"
                    } else {
                        "NOT as before"
                    }
                ),
            ),
            (
                "audit trail",
                match verified {
                    true => format!("{events} events, chain verified"),
                    false => format!("BROKEN: {detail}"),
                },
            ),
        ];
        lines
            .map(|(name, text)| format!("{name:<26}{text}"))
            .join("\n")
    }

    fn growth(&self) -> f64 {
        let (before, after) = self.size;
        after as f64 / before as f64
    }

    fn broken(&self) -> Vec<String> {
        let rolled_back = &self.rolled_back;
        let has_run = self.windows.iter().all(|window| window.count > 0);
        let demands = [
            (
                self.failed == 0,
                format!("{} statements of the application failed", self.failed),
            ),
            (has_run, "the application stood still".into()),
            (
                self.column_type == "bigint",
                format!("{COLUMN} is {}", self.column_type),
            ),
            (
                self.rows_checked >= self.rows,
                format!("{} of {} rows were checked", self.rows_checked, self.rows),
            ),
            (
                self.balances.0 == self.balances.1,
                "accounts and history do not add up to the same: a write was lost".into(),
            ),
            (
                self.audit.0,
                format!("the audit trail is broken: {}", self.audit.2),
            ),
            (
                rolled_back.outcome == "ROLLED_BACK",
                format!("{BACK} is {}", rolled_back.outcome),
            ),
            (
                rolled_back.before == rolled_back.after,
                format!(
                    "the catalog after {BACK} differs:\n{}",
                    difference(&rolled_back.before, &rolled_back.after)
                ),
            ),
            (
                self.growth() <= MAX_GROWTH,
                format!(
                    "the table grew to {:.2} of its size, more than {MAX_GROWTH}",
                    self.growth()
                ),
            ),
            (
                self.lock_held_ms.is_finite(),
                "the swap did not say how long it held its lock".into(),
            ),
        ];
        let broken = demands.into_iter().filter(|(holds, _)| !holds);
        broken.map(|(_, what)| what).collect()
    }
}

/// Lines that only one of two texts has.
fn difference(a: &str, b: &str) -> String {
    let only = |sign: char, from: &str, other: &str| -> Vec<String> {
        let missing = from
            .lines()
            .filter(|line| !other.lines().any(|l| l == *line));
        missing.map(|line| format!("  {sign} {line}")).collect()
    };
    let mut lines = only('-', a, b);
    lines.extend(only('+', b, a));
    lines.join("\n")
}
