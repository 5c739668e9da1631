//! What it costs the application that new columns are kept equal to old ones, in instructions a row: by the server's rule,
//! by our trigger, and by what others do; and how fast the rows that are there are filled.

use std::time::Instant;

use transmute_tests::report::{grouped, median, megabytes};
use transmute_tests::{Build, Cluster, Database, Session, StopMode};

use crate::callgrind::{self, Counter};
use crate::{at_least, at_most, migration, processor, row, show, Aim};

const FEW: u32 = 1000;
const MANY: u32 = 3000;
/// Rows of the table; the statements touch some of them.
const ROWS: u32 = 10_000;
/// Rows that are filled.
const FILLED: u32 = 500_000;

const WITHOUT: &str = "no trigger";
const GENERATED: &str = "STORED generated column";
const RULE: &str = "server rule";
const TRIGGER: &str = "trigger, one way";
const TWO_WAY: &str = "trigger, two-way";
const MINIMAL: &str = "two lines of PL/pgSQL";
const PGROLL: &str = "PL/pgSQL as pgroll makes it";
const VARIANTS: [&str; 7] = [WITHOUT, GENERATED, RULE, TRIGGER, TWO_WAY, MINIMAL, PGROLL];

/// Eleven columns, as in the first measurements.
const TABLE: &str = "CREATE TABLE t (id bigint PRIMARY KEY, x integer NOT NULL, name text, email text, created timestamptz,
    updated timestamptz, state smallint, amount numeric(12,2), flag boolean, note text, other bigint)";
const COLUMNS: [&str; 11] = [
    "id", "x", "name", "email", "created", "updated", "state", "amount", "flag", "note", "other",
];
const SCRIPT: &str = "ALTER TABLE t ADD COLUMN c text; UPDATE t SET c = upper(name)";

fn rows(from: u32, to: u32) -> String {
    format!(
        "(id, x, name, email, created, updated, state, amount, flag, note, other)
         SELECT g, g, 'name ' || g, 'user' || g || '@example.org', '2026-01-01'::timestamptz, '2026-01-01'::timestamptz, 1, 1.5, true,
           'note', g FROM generate_series({from}, {to}) g"
    )
}

type Statement = (&'static str, fn(u32) -> String);

const STATEMENTS: [Statement; 3] = [
    ("INSERT .. SELECT", |n| {
        format!("INSERT INTO t {}", rows(20_001, 20_000 + n))
    }),
    ("UPDATE of the source", |n| {
        format!("UPDATE t SET name = name || 'x' WHERE id <= {n}")
    }),
    ("UPDATE of another column", |n| {
        format!("UPDATE t SET x = x + 1 WHERE id <= {n}")
    }),
];

fn create(session: &mut Session, rows_of: u32) {
    session.exec(TABLE);
    session.exec(&format!("INSERT INTO t {}", rows(1, rows_of)));
    session.exec("VACUUM ANALYZE t");
}

fn minimal(session: &mut Session) {
    session.exec(
        "CREATE FUNCTION dual() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.c := upper(NEW.name); RETURN NEW; END $$;
         CREATE TRIGGER dual BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION dual()",
    );
}

/// Every column declared, the search_path read to find the direction, a second column written.
fn pgroll(session: &mut Session) {
    let declared: String = COLUMNS
        .iter()
        .map(|c| format!("{c} t.{c}%TYPE := NEW.{c}; "))
        .collect();
    session.exec(&format!(
        "ALTER TABLE t ADD COLUMN needs_backfill boolean DEFAULT true;
         CREATE FUNCTION dual() RETURNS trigger LANGUAGE plpgsql AS $$
         DECLARE {declared}
           latest_schema text; search_path text;
         BEGIN
           SELECT 'public_02_new' INTO latest_schema;
           SELECT current_setting INTO search_path FROM current_setting('search_path');
           IF search_path <> latest_schema THEN
             NEW.c = upper(name);
             NEW.needs_backfill = false;
           END IF;
           RETURN NEW;
         END $$;
         CREATE TRIGGER dual BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION dual()"
    ));
}

fn prepare(name: &str, session: &mut Session) {
    match name {
        WITHOUT => {
            create(session, ROWS);
            session.exec("ALTER TABLE t ADD COLUMN c text");
            session.exec("UPDATE t SET c = upper(name)");
        }
        GENERATED => {
            create(session, ROWS);
            session
                .exec("ALTER TABLE t ADD COLUMN c text GENERATED ALWAYS AS (upper(name)) STORED");
        }
        MINIMAL | PGROLL => {
            create(session, ROWS);
            session.exec("ALTER TABLE t ADD COLUMN c text");
            match name {
                MINIMAL => minimal(session),
                _ => pgroll(session),
            }
            session.exec("UPDATE t SET name = name");
        }
        _ => {
            create(session, ROWS);
            let meta = match name {
                RULE => r#"{"required_approvals": 1, "dual_write": "rule"}"#,
                TRIGGER => r#"{"required_approvals": 1, "dual_write": "trigger"}"#,
                _ => r#"{"required_approvals": 1, "reverse": {"name": "lower(c)"}}"#,
            };
            migration::start(session, "m", SCRIPT, meta);
            migration::wait_for(session, "m", "AWAITING_FINALIZATION");
        }
    }
    // All alike: no dead rows, every row as long as the others'.
    session.exec("VACUUM FULL t");
    session.exec("ANALYZE t");
}

pub fn instructions() -> Vec<Aim> {
    if let Some(why) = callgrind::missing() {
        println!("\nInstructions of dual writes: not measured, {why}.");
        return Vec::new();
    }
    let cluster = Cluster::builder()
        .build(Build::Shipped)
        .conf("wal_level = replica")
        .conf("autovacuum = off")
        .start();
    let databases: Vec<(&str, Database<'_>)> = VARIANTS
        .map(|name| (name, Database::create(&cluster)))
        .into();
    for (name, database) in &databases {
        eprintln!("preparing: {name}");
        prepare(name, &mut database.connect());
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
        counts.push((name, of));
    }
    drop(counter);
    let of = |name: &str| -> Vec<f64> {
        let found = counts.iter().find(|(n, _)| *n == name);
        found.map(|(_, counts)| counts.clone()).unwrap_or_default()
    };
    let without = of(WITHOUT);
    let mut heading = row([""]);
    heading.extend(STATEMENTS.map(|(name, _)| name.to_string()));
    let mut table = vec![heading];
    for (name, of) in &counts {
        let mut line = row([name]);
        for (count, without) in of.iter().zip(&without) {
            line.push(format!(
                "{} ({:+.0}, {:.2} x)",
                grouped(*count),
                count - without,
                count / without
            ));
        }
        table.push(line);
    }
    show("Dual writes in instructions a row, by callgrind", &table);
    let (generated, rule, trigger) = (of(GENERATED), of(RULE), of(TRIGGER));
    let (two_way, pgroll) = (of(TWO_WAY), of(PGROLL));
    let over = |counts: &[f64], i: usize| counts[i] - without[i];
    let mut aims = Vec::new();
    for (i, (statement, _)) in STATEMENTS.iter().enumerate() {
        aims.push(at_most(
            &format!("server rule, {statement}, of a generated column's"),
            rule[i] / generated[i],
            1.02,
            " x",
        ));
    }
    aims.push(at_most(
        "trigger, INSERT, of a generated column's",
        trigger[0] / generated[0],
        1.0,
        " x",
    ));
    aims.push(at_most(
        "trigger, UPDATE of the source, of no trigger",
        trigger[1] / without[1],
        1.35,
        " x",
    ));
    for (name, counts) in [(TRIGGER, &trigger), (TWO_WAY, &two_way)] {
        for (i, (statement, _)) in STATEMENTS.iter().enumerate() {
            aims.push(at_least(
                &format!("pgroll's overhead, {statement}, of the {name}'s"),
                over(&pgroll, i) / over(counts, i),
                3.0,
                " x",
            ));
        }
    }
    aims
}

/// Seconds and WAL of filling a column of every row, each way on a table of its own; the median of some.
pub fn filling() -> Vec<Aim> {
    let cluster = crate::quiet_cluster();
    const BATCHES: &str = "keyset batches of 1000, two-line trigger";
    const UPDATE: &str = "one big UPDATE";
    const TWO_HANDS: &str = "server rule, two hands";
    let ways = [UPDATE, BATCHES, RULE, TRIGGER, TWO_HANDS];
    let mut seconds: Vec<Vec<f64>> = vec![Vec::new(); ways.len()];
    let mut processors: Vec<Vec<f64>> = vec![Vec::new(); ways.len()];
    let mut wal: Vec<f64> = vec![0.0; ways.len()];
    for round in 0..crate::repeat() {
        for (i, way) in ways.iter().enumerate() {
            eprintln!("filling: {way}, {}", round + 1);
            let database = Database::create(&cluster);
            cluster.connect().exec(&format!(
                "ALTER DATABASE {} SET transmute.max_parallel_backfill = {}",
                database.name(),
                if *way == TWO_HANDS { 2 } else { 1 }
            ));
            let mut session = database.connect();
            create(&mut session, FILLED);
            session.exec("CREATE INDEX ON t (created)");
            session.exec("CHECKPOINT");
            let before: String = session.scalar("SELECT pg_current_wal_insert_lsn()::text");
            let used = processor::seconds_of(&cluster);
            let took = match *way {
                UPDATE => {
                    session.exec("ALTER TABLE t ADD COLUMN c text");
                    let begun = Instant::now();
                    session.exec("UPDATE t SET c = upper(name)");
                    begun.elapsed().as_secs_f64()
                }
                BATCHES => {
                    session.exec("ALTER TABLE t ADD COLUMN c text");
                    minimal(&mut session);
                    let begun = Instant::now();
                    let mut from = 0;
                    while from < FILLED {
                        session.exec(&format!(
                            "UPDATE t SET name = name WHERE id > {from} AND id <= {}",
                            from + 1000
                        ));
                        from += 1000;
                    }
                    begun.elapsed().as_secs_f64()
                }
                name => {
                    let meta = match name {
                        RULE | TWO_HANDS => r#"{"required_approvals": 1, "dual_write": "rule"}"#,
                        _ => r#"{"required_approvals": 1, "dual_write": "trigger"}"#,
                    };
                    migration::start(&mut session, "m", SCRIPT, meta);
                    migration::wait_for(&mut session, "m", "AWAITING_FINALIZATION");
                    session.scalar(
                        "SELECT sum(extract(epoch FROM duration))::float8 FROM transmute.steps WHERE kind IN ('rule_fill', 'rule_check')",
                    )
                }
            };
            seconds[i].push(took);
            processors[i].push(processor::seconds_of(&cluster) - used);
            wal[i] = session.scalar(&format!(
                "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '{before}')::float8"
            ));
            drop(session);
        }
    }
    let rate = |i: usize| f64::from(FILLED) / median(&seconds[i]);
    let mut table = vec![row(["", "seconds", "rows/s", "CPU s", "WAL MB"])];
    for (i, way) in ways.iter().enumerate() {
        table.push(row([
            way,
            &format!("{:.1}", median(&seconds[i])),
            &grouped(rate(i)),
            &format!("{:.1}", median(&processors[i])),
            &megabytes(wal[i]),
        ]));
    }
    show(
        "A column of every row filled; ours with the check of every row",
        &table,
    );
    let mut aims = Vec::new();
    for (i, name) in [(2, RULE), (3, TRIGGER), (4, TWO_HANDS)] {
        aims.push(at_least(
            &format!("filling by the {name}, rows/s of one big UPDATE's"),
            rate(i) / rate(0),
            1.0,
            " x",
        ));
        aims.push(at_least(
            &format!("filling by the {name}, rows/s of careful batches'"),
            rate(i) / rate(1),
            1.5,
            " x",
        ));
        for (to, of, aim) in [(0, "one big UPDATE's", 1.0), (1, "careful batches'", 0.67)] {
            aims.push(at_most(
                &format!("filling by the {name}, CPU seconds of {of}"),
                median(&processors[i]) / median(&processors[to]),
                aim,
                " x",
            ));
        }
    }
    aims
}
