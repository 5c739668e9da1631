//! What the capture trigger costs the application, in instructions a row: next to no trigger at all, and to the smallest
//! PL/pgSQL trigger that logs keys.

use transmute_tests::pgbench::Pgbench;
use transmute_tests::report::grouped;
use transmute_tests::{Build, Cluster, Database, Session, StopMode};

use crate::callgrind::{self, Counter};
use crate::{at_most, migration, row, show, Aim};

const FEW: u32 = 1000;
const MANY: u32 = 3000;
/// Transactions of pgbench are statements of their own, and dearer.
const FEW_TRANSACTIONS: u32 = 100;
const MANY_TRANSACTIONS: u32 = 300;
/// Rows of the table; the statements touch some of them.
const ROWS: u32 = 10_000;

const WITHOUT: &str = "no trigger";
const OURS: &str = "transmute's capture";
const PLPGSQL: &str = "PL/pgSQL key log";

/// Eleven columns, as in the first measurements.
const TABLE: &str = "CREATE TABLE t (id bigint PRIMARY KEY, x integer NOT NULL, name text, email text, created timestamptz,
    updated timestamptz, state smallint, amount numeric(12,2), flag boolean, note text, other bigint)";

fn rows(from: &str, to: &str) -> String {
    format!(
        "SELECT g, g, 'name ' || g, 'user' || g || '@example.org', '2026-01-01'::timestamptz, '2026-01-01'::timestamptz, 1, 1.5, true,
           'note', g FROM generate_series({from}, {to}) g"
    )
}

type Statement = (&'static str, fn(u32) -> String);

const STATEMENTS: [Statement; 3] = [
    ("INSERT .. SELECT", |n| {
        format!("INSERT INTO t {}", rows("20001", &(20_000 + n).to_string()))
    }),
    ("UPDATE", |n| {
        format!("UPDATE t SET x = x + 1 WHERE id <= {n}")
    }),
    ("DELETE", |n| format!("DELETE FROM t WHERE id <= {n}")),
];

/// pgbench's standard transaction, its statements one by one as its client sends them.
fn transactions(count: u32) -> String {
    let one = |i: u32| {
        let (account, delta) = (1 + i * 37 % 100_000, i % 100);
        let (teller, branch) = (1 + i % 10, 1);
        [
            "BEGIN".to_string(),
            format!("UPDATE pgbench_accounts SET abalance = abalance + {delta} WHERE aid = {account}"),
            format!("SELECT abalance FROM pgbench_accounts WHERE aid = {account}"),
            format!("UPDATE pgbench_tellers SET tbalance = tbalance + {delta} WHERE tid = {teller}"),
            format!("UPDATE pgbench_branches SET bbalance = bbalance + {delta} WHERE bid = {branch}"),
            format!(
                "INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES ({teller}, {branch}, {account}, {delta}, CURRENT_TIMESTAMP)"
            ),
            "END".to_string(),
        ]
        .join(";\n\n")
    };
    (1..=count).map(one).collect::<Vec<_>>().join(";\n\n")
}

pub fn run() -> Vec<Aim> {
    if let Some(why) = callgrind::missing() {
        println!("\nInstructions a row: not measured, {why}.");
        return Vec::new();
    }
    let cluster = Cluster::builder()
        .build(Build::Shipped)
        .conf("wal_level = replica")
        .conf("autovacuum = off")
        .start();
    // A database each, all alike but for the triggers.
    let databases: Vec<(&str, Database<'_>)> = [WITHOUT, OURS, PLPGSQL]
        .map(|name| (name, Database::create(&cluster)))
        .into();
    for (name, database) in &databases {
        eprintln!("preparing: {name}");
        prepare(database);
        let mut session = database.connect();
        match *name {
            OURS => capture(&mut session),
            PLPGSQL => key_log(&mut session),
            _ => {}
        }
    }
    cluster.stop(StopMode::Fast);
    let counter = Counter::new(&cluster);

    let mut counts: Vec<(&str, Vec<f64>)> = Vec::new();
    for (name, database) in &databases {
        let mut of = Vec::new();
        for (statement, text) in STATEMENTS {
            eprintln!("counting: {name}, {statement}");
            of.push(counter.per_row(database.name(), text, FEW, MANY));
        }
        eprintln!("counting: {name}, pgbench");
        of.push(counter.per_row(
            database.name(),
            transactions,
            FEW_TRANSACTIONS,
            MANY_TRANSACTIONS,
        ));
        counts.push((name, of));
    }
    drop(counter);
    print(&counts);
    aims(&counts)
}

fn prepare(database: &Database<'_>) {
    Pgbench::initialize(database, 1);
    let mut session = database.connect();
    session.exec(TABLE);
    session.exec(&format!("INSERT INTO t {}", rows("1", &ROWS.to_string())));
    session.exec("VACUUM ANALYZE t");
}

/// Our triggers, as they are while a migration waits for its end.
fn capture(session: &mut Session) {
    let meta = r#"{"required_approvals": 1}"#;
    for (id, ddl) in [
        ("t", "ALTER TABLE t ALTER COLUMN x TYPE bigint"),
        (
            "accounts",
            "ALTER TABLE pgbench_accounts ALTER COLUMN abalance TYPE bigint",
        ),
    ] {
        migration::start(session, id, ddl, meta);
        migration::wait_for(session, id, "AWAITING_FINALIZATION");
    }
}

/// The least that a PL/pgSQL trigger must do for the same purpose.
fn key_log(session: &mut Session) {
    for (table, key, kind) in [
        ("t", "id", "bigint"),
        ("pgbench_accounts", "aid", "integer"),
    ] {
        session.exec(&format!(
            "CREATE TABLE {table}_keys (k {kind});
             CREATE FUNCTION {table}_capture() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN
               IF TG_OP = 'DELETE' THEN INSERT INTO {table}_keys VALUES (OLD.{key});
               ELSE INSERT INTO {table}_keys VALUES (NEW.{key});
               END IF;
               RETURN NULL;
             END $$;
             CREATE TRIGGER capture AFTER INSERT OR UPDATE OR DELETE ON {table} FOR EACH ROW EXECUTE FUNCTION {table}_capture()"
        ));
    }
}

fn of<'a>(counts: &'a [(&str, Vec<f64>)], name: &str) -> &'a [f64] {
    let found = counts.iter().find(|(n, _)| *n == name);
    found
        .map(|(_, counts)| counts.as_slice())
        .unwrap_or_default()
}

fn print(counts: &[(&str, Vec<f64>)]) {
    let without = of(counts, WITHOUT);
    let mut heading = row([""]);
    heading.extend(STATEMENTS.map(|(name, _)| name.to_string()));
    heading.push("pgbench transaction".into());
    let mut table = vec![heading];
    for (name, of) in counts {
        let mut line = row([name]);
        for (count, without) in of.iter().zip(without) {
            let over = match count - without {
                over if over.abs() < 0.5 => String::new(),
                over => format!(" (+{}, {:.2} x)", grouped(over), count / without),
            };
            line.push(format!("{}{over}", grouped(*count)));
        }
        table.push(line);
    }
    show(
        "Instructions a row, and a transaction, by callgrind",
        &table,
    );
}

fn aims(counts: &[(&str, Vec<f64>)]) -> Vec<Aim> {
    let (without, ours, plpgsql) = (of(counts, WITHOUT), of(counts, OURS), of(counts, PLPGSQL));
    let mut aims = Vec::new();
    for (i, (statement, _)) in STATEMENTS.iter().enumerate() {
        let ratio = (ours[i] - without[i]) / (plpgsql[i] - without[i]);
        aims.push(at_most(
            &format!("capture of an {statement}, of PL/pgSQL's (aim at half)"),
            ratio,
            1.0,
            " x",
        ));
    }
    let last = STATEMENTS.len();
    aims.push(at_most(
        "pgbench's transaction with capture, in instructions",
        ours[last] / without[last],
        1.05,
        " x",
    ));
    aims
}
