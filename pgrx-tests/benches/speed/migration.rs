//! One migration driven by the workers, and what it says of itself.

use std::thread::sleep;
use std::time::{Duration, Instant};

use transmute_tests::pgbench::Running;
use transmute_tests::wait::wait_until_seen;
use transmute_tests::Session;

/// A table of any size that a benchmark is given.
const PATIENCE: Duration = Duration::from_secs(3600);
const LOOK: Duration = Duration::from_millis(100);

/// Seconds of one step, by its kind without `rewrite_`.
pub struct Step {
    pub name: String,
    pub started_s: f64,
    pub seconds: f64,
}

pub struct Finished {
    pub steps: Vec<Step>,
    /// From its start to the end of its last step, the soak between them taken out.
    pub working_s: f64,
    pub lock_held_ms: f64,
    pub rows_checked: i64,
}

impl Finished {
    pub fn seconds_of(&self, names: &[&str]) -> f64 {
        let chosen = self
            .steps
            .iter()
            .filter(|s| names.contains(&s.name.as_str()));
        chosen.map(|s| s.seconds).sum()
    }
}

/// Starts `ddl` as migration `id`.
pub fn start(session: &mut Session, id: &str, ddl: &str, meta: &str) {
    session.query_one(
        "SELECT transmute.register($1, $2, meta => $3::text::jsonb)",
        &[&id, &ddl, &meta],
    );
    session.query_one("SELECT * FROM transmute.apply($1)", &[&id]);
}

/// Asks seldom, and what costs least: who watches is not what is measured.
pub fn wait_for(session: &mut Session, id: &str, state: &str) {
    let begun = Instant::now();
    loop {
        let now: String = session
            .query_one("SELECT transmute.state($1)", &[&id])
            .get(0);
        if now == state {
            return;
        }
        if now == "AWAITING_ACTION" || begun.elapsed() > PATIENCE {
            let status = session.lines(&format!(
                "SELECT row_to_json(s) FROM transmute.status s WHERE id = '{id}'"
            ));
            panic!("{id} is not {state}: {status:?}");
        }
        sleep(LOOK);
    }
}

/// Runs `ddl` from register to FINISHED.
pub fn run(session: &mut Session, id: &str, ddl: &str) -> Finished {
    start(session, id, ddl, "{}");
    wait_for(session, id, "FINISHED");
    finished(session, id)
}

/// What a migration that is FINISHED says of itself.
pub fn finished(session: &mut Session, id: &str) -> Finished {
    let steps = session
        .query(
            "SELECT replace(kind, 'rewrite_', ''), extract(epoch FROM started_at)::float8,
               coalesce(extract(epoch FROM duration), 0)::float8
             FROM transmute.steps WHERE id = $1 ORDER BY step",
            &[&id],
        )
        .iter()
        .map(|row| Step {
            name: row.get(0),
            started_s: row.get::<_, Option<f64>>(1).unwrap_or(f64::NAN),
            seconds: row.get(2),
        })
        .collect();
    let row = session.query_one(
        "SELECT extract(epoch FROM s.duration)::float8 - greatest(extract(epoch FROM s.soak_until - p.checked_at), 0)::float8,
           p.lock_held_ms, p.rows_checked::bigint
         FROM transmute.status s JOIN transmute.progress p USING (id) WHERE s.id = $1",
        &[&id],
    );
    Finished {
        steps,
        working_s: row.get(0),
        lock_held_ms: row.get(1),
        rows_checked: row.get(2),
    }
}

/// Lets an application that runs go on until this much time has passed.
pub fn observe(running: &Running, duration: Duration) {
    let begun = std::time::Instant::now();
    wait_until_seen("the application to run", duration + PATIENCE, || {
        if begun.elapsed() >= duration {
            Ok(())
        } else {
            Err(running.progress())
        }
    });
}
