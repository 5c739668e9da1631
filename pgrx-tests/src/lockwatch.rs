//! Watches for ACCESS EXCLUSIVE on a table: how long it is held, and how long somebody waits in front of everybody else.

use std::collections::BTreeMap;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::{Database, DbError, Session};

const INTERVAL: Duration = Duration::from_millis(5);
/// What a server with assertions may take, of what others may.
const ASSERTING: f64 = 4.0;

/// A request that was seen at least once.
#[derive(Clone, Debug)]
pub struct Episode {
    pub pid: i32,
    /// Between the first and the last sample that showed it: it lasted at least this long.
    pub at_least_ms: f64,
    /// Between the sample before and the sample after: it lasted no longer than this.
    pub at_most_ms: f64,
    /// What the holder was running.
    pub query: String,
}

#[derive(Clone, Debug, Default)]
pub struct Report {
    pub samples: u64,
    pub held: Vec<Episode>,
    pub waited: Vec<Episode>,
    /// The server checks its assertions, which takes several times as long as the work.
    asserts: bool,
    /// Why the watch ended before it was stopped.
    lost: Option<DbError>,
}

impl Report {
    /// The longest hold that is proved, in milliseconds: 0 when none was seen twice.
    pub fn longest_hold_ms(&self) -> f64 {
        longest(&self.held)
    }

    /// The longest ungranted request: everybody who came later stood behind it.
    pub fn longest_wait_ms(&self) -> f64 {
        longest(&self.waited)
    }

    #[track_caller]
    pub fn assert_held_less_than(&self, budget_ms: f64) {
        let budget_ms = budget_ms * if self.asserts { ASSERTING } else { 1.0 };
        let over: Vec<&Episode> = self
            .held
            .iter()
            .filter(|episode| episode.at_least_ms >= budget_ms)
            .collect();
        assert!(
            over.is_empty(),
            "ACCESS EXCLUSIVE held beyond {budget_ms} ms: {over:#?}"
        );
    }
}

fn longest(episodes: &[Episode]) -> f64 {
    episodes
        .iter()
        .map(|episode| episode.at_least_ms)
        .fold(0.0, f64::max)
}

pub struct Lockwatch {
    stop: Sender<()>,
    thread: JoinHandle<Report>,
}

impl Lockwatch {
    /// Starts watching `relation`; it has looked at least once when this returns.
    #[track_caller]
    pub fn start(database: &Database<'_>, relation: &str) -> Lockwatch {
        let mut session = database.connect();
        // The oid once: looking the name up in every sample would itself take a lock on the table.
        let oid: u32 = session
            .query_one("SELECT $1::text::regclass::oid", &[&relation])
            .get(0);
        let (stop, stopped) = mpsc::channel();
        let (ready, is_ready) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let mut sampler = Sampler::new(session, oid);
            loop {
                if let Err(error) = sampler.sample() {
                    return sampler.finish(Some(error));
                }
                let _ = ready.send(());
                if stopped.recv_timeout(INTERVAL) != Err(RecvTimeoutError::Timeout) {
                    let last = sampler.sample().err();
                    return sampler.finish(last);
                }
            }
        });
        is_ready.recv().expect("the first sample");
        Lockwatch { stop, thread }
    }

    /// Ends the watch. A watch that lost its server has seen nothing since: that is a failure of the test.
    #[track_caller]
    pub fn stop(self) -> Report {
        let _ = self.stop.send(());
        let report = self.thread.join().expect("the lock watcher");
        assert!(
            report.lost.is_none(),
            "the watch ended early: {:?}",
            report.lost
        );
        report
    }
}

struct Sampler {
    session: Session,
    statement: postgres::Statement,
    oid: u32,
    last_sample_ms: f64,
    /// By pid and whether granted; the clock is the server's, so our own delays widen the bounds and change nothing else.
    open: BTreeMap<(i32, bool), Open>,
    report: Report,
}

struct Open {
    before_ms: f64,
    first_ms: f64,
    last_ms: f64,
    query: String,
}

impl Sampler {
    fn new(mut session: Session, oid: u32) -> Sampler {
        let sql = "SELECT (extract(epoch FROM now.now) * 1000)::float8, l.pid, l.granted, left(a.query, 200)
                     FROM (SELECT clock_timestamp() AS now) AS now
                     LEFT JOIN pg_locks l ON l.locktype = 'relation' AND l.relation = $1 AND l.mode = 'AccessExclusiveLock'
                                         AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
                     LEFT JOIN pg_stat_activity a ON a.pid = l.pid";
        let asserts = session.lines("SHOW debug_assertions") == ["on"];
        let statement = session
            .client()
            .prepare(sql)
            .expect("the lock watcher's query");
        Sampler {
            session,
            statement,
            oid,
            last_sample_ms: f64::NAN,
            open: BTreeMap::new(),
            report: Report {
                asserts,
                ..Report::default()
            },
        }
    }

    fn sample(&mut self) -> Result<(), DbError> {
        let rows = self
            .session
            .client()
            .query(&self.statement, &[&self.oid])
            .map_err(|error| DbError::from(&error))?;
        let now_ms: f64 = rows[0].get(0);
        let before_ms = if self.last_sample_ms.is_nan() {
            now_ms
        } else {
            self.last_sample_ms
        };
        let mut seen = Vec::new();
        for row in &rows {
            let Some(pid) = row.get::<_, Option<i32>>(1) else {
                continue;
            };
            let key = (pid, row.get::<_, bool>(2));
            seen.push(key);
            let query = row.get::<_, Option<String>>(3).unwrap_or_default();
            let new = Open {
                before_ms,
                first_ms: now_ms,
                last_ms: now_ms,
                query,
            };
            self.open.entry(key).or_insert(new).last_ms = now_ms;
        }
        let ended: Vec<_> = self
            .open
            .keys()
            .filter(|key| !seen.contains(key))
            .copied()
            .collect();
        ended.into_iter().for_each(|key| self.close(key, now_ms));
        self.last_sample_ms = now_ms;
        self.report.samples += 1;
        Ok(())
    }

    fn close(&mut self, key: (i32, bool), now_ms: f64) {
        let Some(open) = self.open.remove(&key) else {
            return;
        };
        let episode = Episode {
            pid: key.0,
            at_least_ms: open.last_ms - open.first_ms,
            at_most_ms: now_ms - open.before_ms,
            query: open.query,
        };
        let (_, granted) = key;
        if granted {
            &mut self.report.held
        } else {
            &mut self.report.waited
        }
        .push(episode);
    }

    fn finish(mut self, lost: Option<DbError>) -> Report {
        let open: Vec<_> = self.open.keys().copied().collect();
        let now_ms = self.last_sample_ms;
        open.into_iter().for_each(|key| self.close(key, now_ms));
        self.report.lost = lost;
        self.report
    }
}
