//! `make demo`: a hot table of millions of rows changes a column's type while pgbench runs on it; then a second change is
//! taken back in mid-copy. Prints what a DBA would look at, and exits with 0 only if everything it promises held.
//!
//! `SCALE=` is pgbench's: 100,000 accounts each.

mod follow;
mod screen;
mod verdict;

use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use transmute_tests::lockwatch::Lockwatch;
use transmute_tests::pgbench::{Pgbench, Running};
use transmute_tests::report::grouped;
use transmute_tests::wait::{wait_until_seen, PATIENCE};
use transmute_tests::{Build, Cluster, Database, Session};

use screen::Screen;
use verdict::{Facts, RolledBack};

const TABLE: &str = "pgbench_accounts";
const COLUMN: &str = "abalance";
const DEFAULT_SCALE: u32 = 20;
/// The application: its clients and the pace it is held at, so that its latency means something.
const CLIENTS: u32 = 4;
const RATE_TPS: u32 = 300;
/// Long enough for a few thousand transactions, hence for a 99th percentile.
const QUIET: Duration = Duration::from_secs(8);
const SOAK: &str = "4 s";
/// The second migration copies gently, so that "in mid-copy" is a long time at every scale.
const GENTLE_DUTY_PERCENT: u32 = 20;
/// Share of the table that is copied when the second migration is called off.
const CALLED_OFF_AT: f64 = 0.3;

const FORTH: &str = "accounts-bigint";
const BACK: &str = "accounts-numeric";

fn main() -> ExitCode {
    // The harness names databases after the thread.
    let demo = std::thread::Builder::new().name("shop".into()).spawn(run);
    match demo.expect("a thread").join() {
        Ok(true) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

fn scale() -> u32 {
    let text = std::env::var("SCALE").unwrap_or_default();
    match text.trim() {
        "" => DEFAULT_SCALE,
        number => number.parse().expect("SCALE is a whole number, such as 20"),
    }
}

fn run() -> bool {
    let screen = Screen::new();
    let scale = scale();
    let begun = Instant::now();

    // A server that really writes, and otherwise as it comes but for what a machine with two million rows would have.
    let cluster = Cluster::builder()
        .build(Build::Shipped)
        .fsync()
        .conf("shared_buffers = 1GB")
        .conf("max_wal_size = 4GB")
        .conf("wal_level = replica")
        .start();
    let database = Database::create(&cluster);
    let mut session = database.connect();
    screen.title(&format!(
        "{}, a server of its own; transmute preloaded",
        cluster.tree().full_version()
    ));
    screen.say(&format!(
        "loading pgbench's tables, scale {scale}: {} accounts",
        grouped(f64::from(scale) * 100_000.0)
    ));
    Pgbench::initialize(&database, scale);
    // A table that has been there for long is not still on its way to the disk.
    session.exec("CHECKPOINT");

    screen.title(&format!(
        "The application: pgbench, {CLIENTS} clients at {RATE_TPS} transactions a second, until the end"
    ));
    let watch = Lockwatch::start(&database, TABLE);
    let mut application = Pgbench::new(&database)
        .clients(CLIENTS)
        .rate(RATE_TPS)
        .start();
    application.wait_running();
    let mut marks = vec![SystemTime::now()];
    quiet(&screen, &application, "before");
    marks.push(SystemTime::now());
    let size_before = size(&mut session);

    forth(&screen, &database, &mut session, &application);
    marks.push(SystemTime::now());
    let size_after = size(&mut session);

    screen.title("Afterwards");
    quiet(&screen, &application, "after");
    marks.push(SystemTime::now());

    let rolled_back = back(&screen, &mut session, &application);
    marks.push(SystemTime::now());

    let application = application.stop();
    let locks = watch.stop();
    let facts = Facts::gather(
        &mut session,
        application,
        &marks,
        locks,
        (size_before, size_after),
        rolled_back,
    );
    let holds = facts.show(&screen);
    screen.say(&format!("{:.0} s in all.", begun.elapsed().as_secs_f64()));
    holds
}

/// Lets the application run by itself for a while.
fn quiet(screen: &Screen, application: &Running, what: &str) {
    let begun = Instant::now();
    wait_until_seen("the application to run", PATIENCE, || {
        let left = QUIET.saturating_sub(begun.elapsed());
        screen.live(&format!(
            "{what}: {}, {:.0} s left",
            follow::application(application),
            left.as_secs_f64().ceil()
        ));
        if left.is_zero() {
            Ok(())
        } else {
            Err(left)
        }
    });
    screen.keep();
}

fn size(session: &mut Session) -> i64 {
    session.scalar(&format!("SELECT pg_total_relation_size('{TABLE}')"))
}

/// The migration that is finished.
fn forth(screen: &Screen, database: &Database<'_>, session: &mut Session, application: &Running) {
    let ddl = format!("ALTER TABLE {TABLE} ALTER COLUMN {COLUMN} TYPE bigint");
    screen.title(&format!("explain($${ddl}$$)"));
    explain(screen, session, &ddl);

    screen.title("register, apply");
    let meta = format!(r#"{{"pre_finalization_soak": "{SOAK}", "required_approvals": 1}}"#);
    register_and_apply(screen, session, FORTH, &ddl, &meta);
    follow::until_soaked(screen, session, application, FORTH);

    screen.title("Checked and current, waiting for a person");
    let approve =
        format!("SELECT transmute.approve('{FORTH}', 'row by row equal; latency as before')");
    screen.say(&format!("$ psql -c \"{approve}\""));
    let mut psql = database.command("psql");
    psql.args(["--no-psqlrc", "--quiet", "--tuples-only", "-c", &approve]);
    transmute_tests::tools::output_of(&mut psql);
    follow::until(screen, session, application, FORTH, "FINISHED");
    screen.say(&follow::steps(session, FORTH));
}

fn explain(screen: &Screen, session: &mut Session, ddl: &str) {
    let rows = session.query(
        "SELECT e.kind, e.phase, e.target, coalesce(nullif(e.lock_mode, ''), 'no lock'), e.risk_level || ' ' || e.risk_score,
           e.plain_statement, e.plain_risk_level || ' ' || e.plain_risk_score
         FROM transmute.explain($1) e ORDER BY e.step",
        &[&ddl],
    );
    for row in &rows {
        let cell = |i: usize| row.get::<_, String>(i);
        screen.say(&format!(
            "{:<17} {:<9} {:<25} {:<23} risk {}",
            cell(0),
            cell(1),
            cell(2),
            cell(3),
            cell(4)
        ));
    }
    let plain = |row: &&postgres::Row| !row.get::<_, String>(5).is_empty();
    if let Some(row) = rows.iter().find(plain) {
        screen.say(&format!(
            "instead of: {}, risk {}",
            row.get::<_, String>(5),
            row.get::<_, String>(6)
        ));
    }
}

fn register_and_apply(screen: &Screen, session: &mut Session, id: &str, ddl: &str, meta: &str) {
    screen.say(&format!(
        "=> SELECT transmute.register('{id}', $${ddl}$$,\n     meta => '{meta}');\n=> SELECT * FROM transmute.apply('{id}');"
    ));
    session.query_one(
        "SELECT transmute.register($1, $2, meta => $3::text::jsonb)",
        &[&id, &ddl, &meta],
    );
    session.query_one("SELECT * FROM transmute.apply($1)", &[&id]);
}

/// The migration that is taken back.
fn back(screen: &Screen, session: &mut Session, application: &Running) -> RolledBack {
    let ddl = format!("ALTER TABLE {TABLE} ALTER COLUMN {COLUMN} TYPE numeric");
    screen.title(&format!(
        "A second one, called off in mid-copy (transmute.backfill_duty = {GENTLE_DUTY_PERCENT} %)"
    ));
    session.exec(&format!(
        "ALTER SYSTEM SET transmute.backfill_duty = {GENTLE_DUTY_PERCENT}"
    ));
    session.exec("SELECT pg_reload_conf()");
    let before = catalog(session);
    register_and_apply(screen, session, BACK, &ddl, "{}");
    let copied = follow::until_copied(screen, session, application, BACK, CALLED_OFF_AT);
    screen.say(&format!(
        "=> SELECT transmute.rollback('{BACK}', 'we want bigint after all');"
    ));
    session.exec(&format!(
        "SELECT transmute.rollback('{BACK}', 'we want bigint after all')"
    ));
    follow::until(screen, session, application, BACK, "UNINITIALIZED");
    let outcome = session.scalar(&format!(
        "SELECT outcome FROM transmute.status WHERE id = '{BACK}'"
    ));
    RolledBack {
        copied,
        outcome,
        before,
        after: catalog(session),
    }
}

/// Everything that the catalogs say of the table, its file, and which schemas there are: a rollback leaves nothing.
fn catalog(session: &mut Session) -> String {
    session.scalar(&format!(
        "SELECT concat_ws(E'\\n', _transmute.fingerprint('{TABLE}'::regclass),
           (SELECT relfilenode FROM pg_class WHERE oid = '{TABLE}'::regclass),
           (SELECT string_agg(nspname, ' ' ORDER BY nspname) FROM pg_namespace))"
    ))
}
