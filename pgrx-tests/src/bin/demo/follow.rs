//! Follows a migration on one line: percent, rows a second, time left, lag, what it waits for – and the application.

use std::time::{Duration, Instant};

use postgres::Row;
use transmute_tests::pgbench::Running;
use transmute_tests::report::{grouped, ms};
use transmute_tests::wait::wait_until_seen;
use transmute_tests::Session;

use crate::screen::Screen;

/// A table of any size that a demo is given; a migration that does not get there in time has failed.
const PATIENCE: Duration = Duration::from_secs(3600);

const LOOK: &str = "SELECT s.state, s.step, s.outcome, coalesce(p.copied, 0) AS copied, s.rows_per_second::float8, s.eta::text,
    coalesce(s.lag, 0) AS lag, s.waiting_for, s.last_error, s.soak_until <= clock_timestamp() AS soaked,
    p.indexes_built, p.indexes_total, coalesce(p.rows_checked, 0) AS rows_checked, coalesce(p.rows_total, 0) AS rows_total,
    EXISTS (SELECT FROM transmute.steps x WHERE x.id = s.id AND x.kind = 'rewrite_copy' AND x.status = 'done') AS is_copied
  FROM transmute.status s LEFT JOIN transmute.progress p USING (id) WHERE s.id = $1";

/// What pgbench said last: its rate and latency.
pub fn application(running: &Running) -> String {
    let Some(line) = running.progress() else {
        return "application starting".into();
    };
    // progress: 3.0 s, 300.2 tps, lat 1.1 ms stddev 0.3, 0 failed, lag 0.2 ms
    let part = |unit: &str| {
        line.split(", ")
            .find(|part| part.contains(unit))
            .unwrap_or_default()
    };
    let latency = part("lat ").split(" stddev").next().unwrap_or_default();
    let number = |text: &str| -> f64 {
        let digits = text.split(' ').find_map(|word| word.parse().ok());
        digits.unwrap_or(0.0)
    };
    format!(
        "application {:.0} tps, {}",
        number(part(" tps")),
        ms(number(latency))
    )
}

/// Seldom enough that looking costs the application nothing.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Where the migration stands, in one line.
fn describe(row: &Row) -> String {
    let state: String = row.get("state");
    let percent = |done: f64| format!("{:3.0} %", (100.0 * done).clamp(0.0, 100.0));
    let total = row.get::<_, i64>("rows_total").max(1) as f64;
    let mut parts = Vec::new();
    match row.get::<_, Option<String>>("step").as_deref() {
        Some("rewrite_copy") if state == "RUNNING" => {
            parts.push(format!("copy {}", percent(row.get("copied"))));
            if let Some(rate) = row.get::<_, Option<f64>>("rows_per_second") {
                parts.push(format!("{} rows/s", grouped(rate)));
            }
            if let Some(eta) = row.get::<_, Option<String>>("eta") {
                let whole = eta.split('.').next().unwrap_or_default();
                parts.push(format!("{whole} left"));
            }
        }
        Some("rewrite_index") if state == "RUNNING" => parts.push(format!(
            "indexes: {} of {} built",
            row.get::<_, Option<i32>>("indexes_built").unwrap_or(0),
            row.get::<_, Option<i32>>("indexes_total").unwrap_or(0)
        )),
        Some("rewrite_check") if state == "RUNNING" => {
            let checked = row.get::<_, i64>("rows_checked") as f64;
            parts.push(format!("check {}", percent(checked / total)));
        }
        _ if state == "UNINITIALIZED" && row.get::<_, String>("outcome") == "ROLLED_BACK" => {
            parts.push("rolled back".into());
        }
        _ if state == "UNINITIALIZED" => parts.push("queued".into()),
        _ => parts.push(state.to_lowercase().replace('_', " ")),
    }
    if row.get::<_, bool>("is_copied") && state != "FINISHED" {
        parts.push(format!("{} keys behind", row.get::<_, i64>("lag")));
    }
    if let Some(waiting) = row.get::<_, Option<String>>("waiting_for") {
        parts.push(format!("waits: {waiting}"));
    }
    parts.join(", ")
}

/// Shows the migration until `enough` says so; what it said.
fn until_seen<T>(
    screen: &Screen,
    session: &mut Session,
    running: &Running,
    id: &str,
    mut enough: impl FnMut(&Row) -> Option<T>,
) -> T {
    let mut looked: Option<Instant> = None;
    let mut line = String::new();
    let seen = wait_until_seen(&format!("migration {id}"), PATIENCE, || {
        if looked.is_some_and(|at| at.elapsed() < LOOK_EVERY) {
            return Err(line.clone());
        }
        looked = Some(Instant::now());
        let row = session.query_one(LOOK, &[&id]);
        line = describe(&row);
        screen.live(&format!("{line}  |  {}", application(running)));
        if row.get::<_, String>("outcome") == "FAILED" {
            let error: Option<String> = row.get("last_error");
            panic!("migration {id} failed: {}", error.unwrap_or_default());
        }
        enough(&row).ok_or_else(|| line.clone())
    });
    screen.keep();
    seen
}

/// Until it is in `state` for good.
pub fn until(screen: &Screen, session: &mut Session, running: &Running, id: &str, state: &str) {
    until_seen(screen, session, running, id, |row| {
        // UNINITIALIZED is also where it came from.
        let settled = state != "UNINITIALIZED" || row.get::<_, String>("outcome") == "ROLLED_BACK";
        (row.get::<_, String>("state") == state && settled).then_some(())
    });
}

/// Until only an approval is missing.
pub fn until_soaked(screen: &Screen, session: &mut Session, running: &Running, id: &str) {
    until_seen(screen, session, running, id, |row| {
        let soaked = row.get::<_, Option<bool>>("soaked") == Some(true);
        (row.get::<_, String>("state") == "AWAITING_FINALIZATION" && soaked).then_some(())
    });
}

/// Until this share of the table is copied; the share. The copy must not be over by then.
pub fn until_copied(
    screen: &Screen,
    session: &mut Session,
    running: &Running,
    id: &str,
    share: f64,
) -> f64 {
    until_seen(screen, session, running, id, |row| {
        assert!(
            !row.get::<_, bool>("is_copied"),
            "the copy was over before it could be called off"
        );
        let copied: f64 = row.get("copied");
        (copied >= share).then_some(copied)
    })
}

/// How long each step took, on one line.
pub fn steps(session: &mut Session, id: &str) -> String {
    let rows = session.query(
        "SELECT replace(kind, 'rewrite_', ''), extract(epoch FROM duration)::float8 FROM transmute.steps WHERE id = $1
         AND duration >= interval '50 ms' ORDER BY step",
        &[&id],
    );
    let step = |row: &Row| format!("{} {:.1} s", row.get::<_, String>(0), row.get::<_, f64>(1));
    let steps: Vec<String> = rows.iter().map(step).collect();
    format!("time by step: {}", steps.join(", "))
}
