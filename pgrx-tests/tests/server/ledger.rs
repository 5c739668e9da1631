//! Writers that know what they have committed. Each owns the keys of its number, so that nobody else decides what a row
//! of theirs holds: at the end the table must be equal to their ledgers, row for row.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use transmute_tests::wait::{wait_until, PATIENCE};
use transmute_tests::{Database, Session};

const WRITERS: i32 = 3;

/// Key to value, as committed.
type Rows = BTreeMap<i32, i64>;

pub struct Ledger {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Writer>>,
}

impl Ledger {
    /// Starts writers on table `t` of [`super::scene::create_table`].
    pub fn start(database: &Database<'_>) -> Ledger {
        Ledger::start_on(&database.config())
    }

    /// The same for a database of a server that was not always its own, such as a promoted standby.
    pub fn start_on(config: &postgres::Config) -> Ledger {
        let stop = Arc::new(AtomicBool::new(false));
        let written = Arc::new(AtomicU64::new(0));
        let all = rows_of(&mut Session::open(config.clone()));
        let threads = (0..WRITERS).map(|number| {
            let mine = all.iter().filter(|(id, _)| *id % WRITERS == number);
            let mut writer = Writer {
                number,
                config: config.clone(),
                session: Session::open(config.clone()),
                random: StdRng::seed_from_u64(number as u64),
                next_key: all.keys().max().copied().unwrap_or(0) + 1,
                next_value: 1_000_000,
                rows: mine.map(|(id, a)| (*id, *a)).collect(),
                failures: Vec::new(),
                lost: 0,
            };
            let (stop, written) = (Arc::clone(&stop), Arc::clone(&written));
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    writer.act();
                    written.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(2));
                }
                writer
            })
        });
        Ledger {
            threads: threads.collect(),
            stop,
            written,
        }
    }

    /// Waits until so many more transactions have been written.
    pub fn wait_for_more(&self, count: u64) {
        let target = self.written.load(Ordering::Relaxed) + count;
        wait_until("the writers to write", PATIENCE, || {
            (self.written.load(Ordering::Relaxed) >= target).then_some(())
        });
    }

    /// Transactions so far; each gives at most one row another place.
    pub fn written(&self) -> i64 {
        self.written.load(Ordering::Relaxed) as i64
    }

    /// Stops the writers and compares; how many transactions were cut off by a crash.
    pub fn stop_and_compare(mut self, session: &mut Session) -> u32 {
        self.stop.store(true, Ordering::Relaxed);
        let mut expected = Rows::new();
        let mut lost = 0;
        for thread in self.threads.drain(..) {
            let writer = thread.join().expect("a writer");
            assert!(
                writer.failures.is_empty(),
                "statements of the application failed: {:#?}",
                &writer.failures[..writer.failures.len().min(5)]
            );
            expected.extend(writer.rows);
            lost += writer.lost;
        }
        assert_same(&expected, &rows_of(session));
        lost
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// What table `t` holds.
pub fn rows_of(session: &mut Session) -> Rows {
    let rows = session.query("SELECT id, a::bigint FROM t", &[]);
    let result: Rows = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(result.len(), rows.len(), "a key is there twice");
    result
}

fn assert_same(expected: &Rows, found: &Rows) {
    let lost: Vec<_> = expected
        .iter()
        .filter(|(id, a)| found.get(id) != Some(a))
        .map(|(id, a)| (id, a, found.get(id)))
        .take(5)
        .collect();
    let risen: Vec<_> = found
        .iter()
        .filter(|(id, _)| !expected.contains_key(id))
        .take(5)
        .collect();
    assert!(
        lost.is_empty() && risen.is_empty(),
        "committed and not found (key, value, found): {lost:?}; found and not committed: {risen:?}"
    );
}

/// What a transaction does to the ledger: key to new value, or to nothing.
type Effect = Vec<(i32, Option<i64>)>;

struct Writer {
    number: i32,
    config: postgres::Config,
    session: Session,
    random: StdRng,
    next_key: i32,
    next_value: i64,
    rows: Rows,
    failures: Vec<String>,
    lost: u32,
}

impl Writer {
    fn some_key(&mut self) -> Option<i32> {
        let n = self.random.random_range(0..self.rows.len().max(1));
        self.rows.keys().nth(n).copied()
    }

    fn new_key(&mut self) -> i32 {
        while self.next_key % WRITERS != self.number {
            self.next_key += 1;
        }
        self.next_key += 1;
        self.next_key - 1
    }

    /// One transaction, and what it means if it commits.
    fn draw(&mut self) -> (String, Effect) {
        self.next_value += 1;
        let value = self.next_value;
        let new = self.new_key();
        let (Some(one), Some(other)) = (self.some_key(), self.some_key()) else {
            return insert(new, value);
        };
        match self.random.random_range(0..10) {
            0..=4 => (
                format!("UPDATE t SET a = {value} WHERE id = {one}"),
                vec![(one, Some(value))],
            ),
            5 => insert(new, value),
            6 => (format!("DELETE FROM t WHERE id = {one}"), vec![(one, None)]),
            7 => (
                format!("UPDATE t SET id = {new}, a = {value} WHERE id = {one}"),
                vec![(one, None), (new, Some(value))],
            ),
            8 => (
                format!(
                    "BEGIN; DELETE FROM t WHERE id = {one}; SAVEPOINT s; UPDATE t SET a = -1 WHERE id = {other};
                     ROLLBACK TO s; INSERT INTO t (id, a) VALUES ({one}, {value}); COMMIT"
                ),
                vec![(one, Some(value))],
            ),
            _ => (
                format!("BEGIN; UPDATE t SET a = -2 WHERE id = {other}; DELETE FROM t WHERE id = {one}; ROLLBACK"),
                vec![],
            ),
        }
    }

    fn act(&mut self) {
        let (sql, effect) = self.draw();
        match self.session.try_exec(&sql) {
            Ok(()) => self.enter(effect),
            Err(_) if self.session.client().is_closed() => {
                self.lost += 1;
                self.find_out(&effect);
            }
            Err(error) => {
                self.failures.push(format!("{error}\n  in: {sql}"));
                let _ = self.session.try_exec("ROLLBACK");
            }
        }
    }

    fn enter(&mut self, effect: Effect) {
        for (id, value) in effect {
            match value {
                Some(value) => self.rows.insert(id, value),
                None => self.rows.remove(&id),
            };
        }
    }

    /// The connection went away under a transaction: it has happened entirely, or not at all.
    fn find_out(&mut self, effect: &Effect) {
        let since = Instant::now();
        while since.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(20));
            let Ok(session) = Session::try_open(self.config.clone()) else {
                continue;
            };
            self.session = session;
            let Some(found) = self.look(effect) else {
                continue; // it went away again
            };
            let before: Effect = effect
                .iter()
                .map(|(id, _)| (*id, self.rows.get(id).copied()))
                .collect();
            if found == *effect {
                self.enter(found);
            } else if found != before {
                self.failures.push(format!(
                    "half a transaction: {found:?}, neither {before:?} nor {effect:?}"
                ));
            }
            return;
        }
        self.failures.push("the server did not come back".into());
    }

    /// What the table holds for the keys of `effect`.
    fn look(&mut self, effect: &Effect) -> Option<Effect> {
        let mut found = Effect::new();
        for (id, _) in effect {
            let rows = self
                .session
                .try_rows(&format!("SELECT a FROM t WHERE id = {id}"))
                .ok()?;
            let value = rows
                .first()
                .and_then(|row| row[0].as_ref())
                .map(|a| a.parse().expect("a number"));
            found.push((*id, value));
        }
        Some(found)
    }
}

fn insert(id: i32, value: i64) -> (String, Effect) {
    (
        format!("INSERT INTO t (id, a) VALUES ({id}, {value})"),
        vec![(id, Some(value))],
    )
}
