//! Concurrent writers, seeded: everything an application does to a table, against a table of this shape:
//!
//! ```sql
//! CREATE TABLE t (id int PRIMARY KEY, a int, u int UNIQUE, note text)     -- any integer types
//! ```
//!
//! Failures that the writers cause each other are told from those that somebody else causes; the latter are what a test is after.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::session::DbError;
use crate::wait::wait_until;
use crate::{Database, Session};

mod writer;

use writer::Writer;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Insert,
    Update,
    UpdateUnique,
    Delete,
    KeyChange,
    Upsert,
    Copy,
    CopyColumns,
    Merge,
    SelectAll,
    Savepoint,
    Rollback,
    Transaction,
    RepeatableRead,
    Truncate,
}

#[derive(Clone, Debug)]
pub struct Workload {
    table: String,
    writers: u32,
    seed: u64,
    keys: i32,
    pause: Duration,
    truncate: bool,
    prepared: bool,
    reconnect: bool,
    merge: bool,
    column: String,
    more_columns: usize,
}

impl Workload {
    /// Four writers over ten thousand keys of `table`, by the simple protocol.
    pub fn on(table: &str) -> Workload {
        Workload {
            table: table.to_string(),
            writers: 4,
            seed: 1,
            keys: 10_000,
            pause: Duration::from_millis(1),
            truncate: false,
            prepared: false,
            reconnect: false,
            merge: true,
            column: "a".to_string(),
            more_columns: 0,
        }
    }

    pub fn writers(mut self, writers: u32) -> Self {
        self.writers = writers;
        self
    }

    /// The same seed draws the same statements; in what order they meet is the scheduler's.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Keys and unique values are drawn from 1 to this: the fewer, the more often writers meet.
    pub fn keys(mut self, keys: i32) -> Self {
        self.keys = keys;
        self
    }

    /// Between two statements of a writer; on few cores a load without any starves what is tested.
    pub fn pause(mut self, pause: Duration) -> Self {
        self.pause = pause;
        self
    }

    pub fn with_truncate(mut self) -> Self {
        self.truncate = true;
        self
    }

    /// Single statements are prepared once for each connection and then executed again and again.
    pub fn prepared(mut self) -> Self {
        self.prepared = true;
        self
    }

    /// A lost connection is opened again and counted as `connection` or by its SQLSTATE, for tests that stop the server.
    pub fn reconnecting(mut self) -> Self {
        self.reconnect = true;
        self
    }

    /// For tables that are a view meanwhile: MERGE into one came with 17.
    pub fn without_merge(mut self) -> Self {
        self.merge = false;
        self
    }

    /// The name by which these writers know column `a`.
    pub fn calling_a(mut self, name: &str) -> Self {
        self.column = name.to_string();
        self
    }

    /// `SELECT *` may show up to this many columns after the table's own.
    pub fn seeing_more_columns(mut self, columns: usize) -> Self {
        self.more_columns = columns;
        self
    }

    /// Makes the table and fills half of the keys.
    #[track_caller]
    pub fn create_table(&self, session: &mut Session) {
        let Workload { table, keys, .. } = self;
        session.exec(&format!(
            "CREATE TABLE {table} (id int PRIMARY KEY, a int, u int UNIQUE, note text);
             INSERT INTO {table} SELECT i, i % 1000, i, 'row ' || i FROM generate_series(1, {keys}, 2) AS i"
        ));
    }

    /// The same, partitioned: levels, a default partition, one with attribute numbers of its own. `u` is unique in some partitions only,
    /// and rows move between them when their key changes.
    #[track_caller]
    pub fn create_partitioned(&self, session: &mut Session) {
        let Workload { table, keys, .. } = self;
        let (third, half) = (keys / 3, keys / 2);
        session.exec(&format!(
            "CREATE TABLE {table} (id int PRIMARY KEY, a int, u int, note text) PARTITION BY RANGE (id);
             CREATE TABLE {table}_low PARTITION OF {table} FOR VALUES FROM (MINVALUE) TO ({third});
             CREATE TABLE {table}_middle PARTITION OF {table} FOR VALUES FROM ({third}) TO ({keys}) PARTITION BY RANGE (id);
             CREATE TABLE {table}_middle_1 PARTITION OF {table}_middle FOR VALUES FROM ({third}) TO ({half});
             CREATE TABLE {table}_middle_2 (gone int, note text, u int, also_gone text, a int, id int NOT NULL);
             ALTER TABLE {table}_middle_2 DROP gone, DROP also_gone;
             ALTER TABLE {table}_middle ATTACH PARTITION {table}_middle_2 FOR VALUES FROM ({half}) TO ({keys});
             CREATE TABLE {table}_rest PARTITION OF {table} DEFAULT;
             CREATE UNIQUE INDEX {table}_middle_2_u ON {table}_middle_2 (u);
             INSERT INTO {table} SELECT i, i % 1000, i, 'row ' || i FROM generate_series(1, {keys}, 2) AS i"
        ));
    }

    /// Starts the writers; all are connected when this returns.
    #[track_caller]
    pub fn start(self, database: &Database<'_>) -> Running {
        let shared = Arc::new(Shared::default());
        let threads = (0..self.writers).map(|number| {
            let config = database.config();
            let session = Session::open(config.clone());
            let mut writer =
                Writer::new(self.clone(), number, session, config, Arc::clone(&shared));
            std::thread::spawn(move || {
                writer.run();
                writer.tally
            })
        });
        let threads = threads.collect();
        Running { shared, threads }
    }
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    statements: AtomicU64,
    /// The writers' backends, past ones too: who may be part of a deadlock that is the load's own.
    pids: Mutex<BTreeSet<i32>>,
}

pub struct Running {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Tally>>,
}

impl Running {
    pub fn statements(&self) -> u64 {
        self.shared.statements.load(Ordering::Relaxed)
    }

    /// Waits until so many more statements have been run.
    #[track_caller]
    pub fn wait_for_more(&self, statements: u64, deadline: Duration) {
        let target = self.statements() + statements;
        wait_until("the writers to make progress", deadline, || {
            (self.statements() >= target).then_some(())
        });
    }

    #[track_caller]
    pub fn stop(mut self) -> Tally {
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut tally = Tally::default();
        for thread in self.threads.drain(..) {
            tally.add(thread.join().expect("a writer"));
        }
        let pids = self
            .shared
            .pids
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        tally.sort_out_deadlocks(&pids);
        tally
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

#[derive(Clone, Debug)]
pub struct Failure {
    pub kind: Kind,
    pub sql: String,
    pub error: DbError,
}

#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// By kind, failed ones too.
    pub done: BTreeMap<Kind, u64>,
    /// Failures that writers cause each other, by SQLSTATE.
    pub expected: BTreeMap<String, u64>,
    pub unexpected: Vec<Failure>,
}

impl Tally {
    pub fn total(&self) -> u64 {
        self.done.values().sum()
    }

    /// Unexpected failures with this SQLSTATE.
    pub fn count(&self, sqlstate: &str) -> usize {
        self.unexpected
            .iter()
            .filter(|failure| failure.error.sqlstate == sqlstate)
            .count()
    }

    #[track_caller]
    pub fn assert_no_failures(&self) {
        let first: Vec<&Failure> = self.unexpected.iter().take(5).collect();
        let (failed, total) = (self.unexpected.len(), self.total());
        assert!(
            first.is_empty(),
            "{failed} of {total} statements failed; the first ones: {first:#?}"
        );
    }

    fn add(&mut self, other: Tally) {
        other
            .done
            .into_iter()
            .for_each(|(kind, count)| *self.done.entry(kind).or_default() += count);
        other
            .expected
            .into_iter()
            .for_each(|(state, count)| *self.expected.entry(state).or_default() += count);
        self.unexpected.extend(other.unexpected);
    }

    fn record(&mut self, kind: Kind, sql: &str, error: DbError) {
        let is_own = match error.sqlstate.as_str() {
            "23505" => true,
            // "canceling statement due to conflict with recovery" has this code too, and is nobody's own.
            "40001" => {
                error.message.starts_with("could not serialize access")
                    || error.message.contains("moved to another partition")
            }
            _ => false,
        };
        if is_own {
            *self.expected.entry(error.sqlstate).or_default() += 1;
        } else {
            self.unexpected.push(Failure {
                kind,
                sql: sql.to_string(),
                error,
            });
        }
    }

    /// A deadlock is the load's own when the server names nobody but writers.
    fn sort_out_deadlocks(&mut self, writers: &BTreeSet<i32>) {
        let (own, others): (Vec<_>, Vec<_>) = std::mem::take(&mut self.unexpected)
            .into_iter()
            .partition(|failure| {
                failure.error.sqlstate == "40P01"
                    && deadlock_pids(&failure.error).is_subset(writers)
            });
        if !own.is_empty() {
            *self.expected.entry("40P01".to_string()).or_default() += own.len() as u64;
        }
        self.unexpected = others;
    }
}

/// DETAIL: `Process 1 waits for ShareLock on transaction 2; blocked by process 3.`, a line for each.
fn deadlock_pids(error: &DbError) -> BTreeSet<i32> {
    let detail = error.detail.clone().unwrap_or_default().to_lowercase();
    let after = detail.split("process ").skip(1);
    after
        .filter_map(|text| {
            text.split(|c: char| !c.is_ascii_digit())
                .next()?
                .parse()
                .ok()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadlock_names_its_processes() {
        let detail = "Process 11 waits for ShareLock on transaction 5; blocked by process 12.\n\
                      Process 12 waits for AccessExclusiveLock on relation 1 of database 2; blocked by process 11.";
        let error = DbError {
            sqlstate: "40P01".into(),
            message: String::new(),
            detail: Some(detail.into()),
            hint: None,
            context: None,
        };
        assert_eq!(deadlock_pids(&error), BTreeSet::from([11, 12]));
    }
}
