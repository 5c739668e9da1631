//! A whole history: forward, back and forward again, the catalog that of psql each time.

use std::time::Duration;

use transmute_tests::tools::output_of;
use transmute_tests::{Cluster, Database, Session};

use super::{direct, load, statuses};

/// How long all of them may take on a machine that does much else; one that fails is noticed at once.
const DEADLINE: Duration = Duration::from_secs(900);
/// Migrations of one history.
const MANY: usize = 200;

/// Until nothing is left to do, or a person is needed.
fn settle(session: &mut Session) {
    session.wait_for(
        "SELECT count(*) FILTER (WHERE queued) = 0 OR count(last_error) FILTER (WHERE outcome = 'FAILED') > 0 FROM transmute.status",
        "t",
        DEADLINE,
    );
    assert_eq!(
        session.lines("SELECT id, last_error FROM transmute.status WHERE outcome = 'FAILED'"),
        [""; 0]
    );
}

/// The schema as pg_dump writes it, without that of releases.
pub fn dump(database: &Database<'_>) -> String {
    dump_without(database, &["--exclude-schema=version_*"])
}

/// The schema as pg_dump writes it.
fn dump_with_versions(database: &Database<'_>) -> String {
    dump_without(database, &[])
}

fn dump_without(database: &Database<'_>, options: &[&str]) -> String {
    let mut command = database.command("pg_dump");
    command.args([
        "--schema-only",
        "--exclude-schema=transmute",
        "--exclude-schema=_transmute*",
    ]);
    command.args(options);
    let version_has_it = transmute_tests::tools::version_under_test() >= 17;
    if version_has_it {
        command.args(["--no-comments", "--exclude-extension=transmute"]);
    }
    output_of(&mut command)
        .lines()
        .filter(|line| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict"))
        .filter(|line| !line.contains("EXTENSION") && !line.starts_with("-- Dumped"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// The scripts of a project that has grown: tables, types, functions, triggers, partitions, views, rows.
fn scripts() -> Vec<String> {
    (1..=MANY).map(script).collect()
}

fn script(n: usize) -> String {
    // Each seventh makes a table that the six behind it change.
    let t = format!("t{}", (n - 1) / 14);
    match n % 14 {
        1 => format!(
            "CREATE TABLE {t} (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL, n int DEFAULT 1);
             CREATE INDEX {t}_name ON {t} (name); INSERT INTO {t} (name) SELECT 'x' || i FROM generate_series(1, 20) i;
             UPDATE {t} SET name = name || '!', n = id WHERE id % 2 = 0; DELETE FROM {t} WHERE id > 18"
        ),
        2 => format!(
            "CREATE TYPE {t}_kind AS ENUM ('a', 'b'); ALTER TABLE {t} ADD COLUMN kind {t}_kind DEFAULT 'a';
             COMMENT ON COLUMN {t}.kind IS 'what it is; or was'"
        ),
        3 => format!(
            "CREATE FUNCTION {t}_touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.n := NEW.n + 1; RETURN NEW; END; $$;
             CREATE TRIGGER touch BEFORE UPDATE ON {t} FOR EACH ROW EXECUTE FUNCTION {t}_touch()"
        ),
        4 => format!("ALTER TABLE {t} ADD CONSTRAINT {t}_n CHECK (n > 0), ALTER COLUMN n SET NOT NULL"),
        5 => format!("CREATE VIEW {t}_names AS SELECT id, name FROM {t} WHERE n > 0; GRANT SELECT ON {t}_names TO PUBLIC"),
        6 => format!(
            "CREATE TABLE {t}_log (at timestamptz NOT NULL, what text, PRIMARY KEY (at)) PARTITION BY RANGE (at);
             CREATE TABLE {t}_log_1 PARTITION OF {t}_log FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
             CREATE TABLE {t}_log_default PARTITION OF {t}_log DEFAULT; INSERT INTO {t}_log VALUES ('2020-05-05', 'x'), ('2030-01-01', 'y')"
        ),
        7 => format!("CREATE UNIQUE INDEX {t}_name_id ON {t} (name, id) INCLUDE (n) WHERE n > 0"),
        8 => format!("ALTER TABLE {t} RENAME COLUMN n TO amount; ALTER TABLE {t} ALTER COLUMN amount SET DEFAULT 7"),
        9 => format!(
            "CREATE SCHEMA {t}_s; CREATE TABLE {t}_s.child (id int PRIMARY KEY, parent bigint REFERENCES {t}, body jsonb DEFAULT '{{}}');
             CREATE SEQUENCE {t}_s.numbers INCREMENT 5; SET search_path = {t}_s, public; CREATE TABLE inside (x int)"
        ),
        10 => format!("CREATE OR REPLACE FUNCTION {t}_touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.amount := 1; RETURN NEW; END; $$"),
        11 => format!("ALTER TABLE {t}_log ALTER COLUMN what TYPE varchar(80); ALTER TABLE {t} ENABLE ROW LEVEL SECURITY; CREATE POLICY mine ON {t} USING (true)"),
        12 => format!("CREATE MATERIALIZED VIEW {t}_sums AS SELECT kind, sum(amount) AS total FROM {t} GROUP BY kind; CREATE UNIQUE INDEX ON {t}_sums (kind)"),
        13 => format!("CREATE DOMAIN {t}_code AS text CHECK (VALUE <> ''); CREATE STATISTICS {t}_stat ON name, amount FROM {t}"),
        _ => format!("ALTER TABLE {t} RENAME TO {t}_renamed; ALTER INDEX {t}_name RENAME TO {t}_by_name; CREATE RULE quiet AS ON DELETE TO {t}_names DO INSTEAD NOTHING"),
    }
}

#[test]
fn a_history_of_scripts_as_written_goes_forward_back_and_forward_with_the_catalog_of_psql() {
    let cluster = Cluster::shared();
    let plain = Database::create(cluster);
    let mut by_hand = plain.connect();
    for script in scripts() {
        by_hand.exec(&format!("RESET search_path; {script}"));
    }
    let wanted = dump(&plain);

    let database = Database::create(cluster);
    let mut session = database.connect();
    let before = dump(&database);
    for (i, script) in scripts().iter().enumerate() {
        direct(&mut session, &format!("m{:03}", i + 1), script);
    }
    let count = |session: &mut Session, status: &str| -> i64 {
        session.scalar(&format!(
            "SELECT count(*) FROM transmute.list WHERE status = '{status}'"
        ))
    };
    // Two at once: each is applied once.
    let other = database
        .connect()
        .in_background("SELECT count(*) FROM transmute.apply()");
    session.exec("SELECT count(*) FROM transmute.apply()");
    let (_, result) = other.join();
    result.unwrap();
    settle(&mut session);
    assert_eq!(
        count(&mut session, "applied"),
        MANY as i64,
        "{:?}",
        statuses(&mut session)
    );
    assert_eq!(
        session.lines(
            "SELECT count(*), count(DISTINCT id) FROM transmute.history() WHERE event = 'finished'"
        ),
        [format!("{MANY}|{MANY}")]
    );
    // One after the other, each through before the next began.
    assert_eq!(
        session.lines("SELECT count(*) FROM (SELECT started_at, lag(finished_at) OVER (ORDER BY id) AS before FROM transmute.status) s WHERE started_at < before"),
        ["0"]
    );
    assert_eq!(dump(&database), wanted);
    assert_eq!(
        session.scalar::<String>("SELECT transmute.head()"),
        format!("m{MANY:03}")
    );

    let name = database.name();
    assert_eq!(
        session.lines(&format!(
            "SELECT count(*) FROM transmute.rollback({MANY}, confirm => '{name}')"
        )),
        [MANY.to_string()]
    );
    settle(&mut session);
    assert_eq!(
        session.lines(
            "SELECT id, state, last_error FROM transmute.status WHERE last_error IS NOT NULL"
        ),
        Vec::<String>::new()
    );
    assert_eq!(count(&mut session, "taken back"), MANY as i64);
    assert_eq!(dump(&database), before);
    assert_eq!(
        session.scalar::<Option<String>>("SELECT transmute.head()"),
        None
    );

    session.exec("SELECT count(*) FROM transmute.apply()");
    settle(&mut session);
    assert_eq!(count(&mut session, "applied"), MANY as i64);
    assert_eq!(dump(&database), wanted);
    assert!(session.scalar::<bool>("SELECT ok FROM transmute.audit_verify()"));
}

/// A file a script, as one text.
fn text_of(scripts: &[String]) -> String {
    let files = scripts.iter().enumerate().map(|(i, script)| {
        let id = format!("m{:03}", i + 1);
        format!("-- migration: {id}\n-- id: {id}\n-- migrate: up\n{script};\n")
    });
    files.collect()
}

/// The schemas of the release that comes with a migration of the history, and of the one before it where it has none.
fn versions(n: usize) -> Option<(Option<String>, String)> {
    let t = (n - 1) / 14;
    match n % 14 {
        2 => Some((Some(format!("version_{t}_0")), format!("version_{t}_1"))),
        8 => Some((None, format!("version_{t}_2"))),
        0 => Some((None, format!("version_{t}_3"))),
        _ => None,
    }
}

/// Loads each as a text of its own, as a project that has grown did, some of them with a schema for the release.
fn load_one_by_one(session: &mut Session, scripts: &[String]) {
    for (i, script) in scripts.iter().enumerate() {
        let n = i + 1;
        let mut text = format!("-- migration: m{n:03}\n");
        if n > 1 {
            text += &format!("-- depends: m{i:03}\n");
        }
        let mut meta = "{}".to_string();
        if let Some((before, after)) = versions(n) {
            text += &format!("-- version: 1.{i}.0 -> 1.{n}.0\n");
            let before = before.map_or(String::new(), |name| {
                format!("\"versioned_views_before\": \"{name}\", ")
            });
            meta = format!("{{{before}\"versioned_views\": \"{after}\"}}");
        }
        text += &format!("-- migrate: up\n{script};\n");
        session.query(
            "SELECT * FROM transmute.load($1, $2::text::jsonb)",
            &[&text, &meta],
        );
    }
    session.notices();
}

#[test]
fn a_history_that_is_planned_goes_forward_back_and_forward_with_the_catalog_of_psql() {
    let cluster = Cluster::shared();
    let plain = Database::create(cluster);
    let mut by_hand = plain.connect();
    for script in scripts() {
        by_hand.exec(&format!("RESET search_path; {script}"));
    }
    let wanted = dump(&plain);
    let database = Database::create(cluster);
    let mut session = database.connect();
    let before = dump_with_versions(&database);
    load_one_by_one(&mut session, &scripts());
    let all_are = |session: &mut Session, status: &str| {
        settle(session);
        assert_eq!(
            session.lines("SELECT status, count(*) FROM transmute.list GROUP BY 1"),
            [format!("{status}|{MANY}")],
            "{:?}",
            session.lines("SELECT id, last_error, waiting_for FROM transmute.status WHERE state <> 'FINISHED' LIMIT 3")
        );
    };
    session.exec("SELECT count(*) FROM transmute.apply()");
    all_are(&mut session, "applied");
    assert_eq!(dump(&database), wanted);
    // Each release has its shape still.
    let shapes = "SELECT (SELECT count(n) FROM version_0_1.t0), (SELECT count(amount) FROM version_0_2.t0), (SELECT count(amount) FROM version_0_3.t0_renamed),
                    (SELECT count(DISTINCT version) FROM transmute.versions)";
    let names = (1..=MANY).filter_map(versions);
    let releases: usize = names.map(|(before, _)| 1 + before.iter().len()).sum();
    let shown = [format!("18|18|18|{releases}")];
    assert_eq!(session.lines(shapes), shown);
    let with_versions = dump_with_versions(&database);

    session.exec(&format!(
        "SELECT count(*) FROM transmute.rollback({MANY}, confirm => current_database())"
    ));
    all_are(&mut session, "taken back");
    assert_eq!(dump_with_versions(&database), before);

    session.exec("SELECT count(*) FROM transmute.apply()");
    all_are(&mut session, "applied");
    assert_eq!(dump(&database), wanted);
    assert_eq!(dump_with_versions(&database), with_versions);
    assert_eq!(session.lines(shapes), shown);
    assert!(session.scalar::<bool>("SELECT ok FROM transmute.audit_verify()"));
}

/// What changes tables that are there, beside the scripts of the history.
const CHANGES: [&str; 22] = [
    "CREATE TABLE base (id int PRIMARY KEY, a int, b text, c numeric, d date);
     INSERT INTO base SELECT i, i, 'b' || i, i, date '2020-01-01' + i FROM generate_series(1, 30) i; CREATE VIEW shown AS SELECT a, b FROM base;
     CREATE TABLE codes (id serial PRIMARY KEY); CREATE TABLE line (id int PRIMARY KEY, code int REFERENCES codes)",
    "ALTER TABLE base ALTER COLUMN a SET NOT NULL",
    "ALTER TABLE base ADD CONSTRAINT base_c CHECK (c > 0), ADD CONSTRAINT base_b UNIQUE (b)",
    "ALTER TABLE t0_log ADD COLUMN base int REFERENCES base",
    "ALTER TABLE base RENAME COLUMN d TO day; CREATE TABLE t0_log_2 PARTITION OF t0_log FOR VALUES FROM ('2021-01-01') TO ('2022-01-01')",
    "ALTER TABLE base ALTER COLUMN a DROP NOT NULL, ALTER COLUMN b SET DEFAULT 'x'; CREATE OR REPLACE VIEW shown AS SELECT a, b, 1 AS one FROM base",
    "DROP VIEW shown; ALTER TABLE base DROP CONSTRAINT base_c",
    // Copies, and what is built on them.
    "ALTER TABLE base ALTER COLUMN a TYPE bigint, ADD COLUMN dice int NOT NULL DEFAULT (random() * 5)::int, ADD CONSTRAINT base_a CHECK (a > 0);
     CREATE INDEX base_dice ON base (dice); CREATE VIEW wide AS SELECT a + 1 AS next FROM base; COMMENT ON TABLE base IS 'copied'",
    "ALTER TABLE base ALTER COLUMN day TYPE text USING to_char(day, 'YYYY-MM-DD')",
    // A key with what refers to it.
    "ALTER TABLE base ALTER COLUMN c TYPE text; ALTER TABLE codes ALTER COLUMN id TYPE bigint",
    "CREATE INDEX ON t0_log (base, what); CREATE INDEX by_what ON t0_log_1 (what DESC)",
    "ALTER INDEX t0_log_1_base_what_idx RENAME TO odd; COMMENT ON INDEX odd IS 'has a name of its own'",
    "DROP INDEX t0_log_base_what_idx; DROP INDEX base_dice; CREATE INDEX taken ON t0_log_2 (base)",
    "CREATE INDEX t0_log_base ON t0_log (base)",
    "ALTER TABLE t0_log ADD CONSTRAINT t0_log_once UNIQUE (at, what); ALTER TABLE t0_log ADD CONSTRAINT t0_log_other FOREIGN KEY (base) REFERENCES base (id) ON DELETE CASCADE",
    "ALTER TABLE t0_log ALTER COLUMN what TYPE varchar(70)",
    "ALTER INDEX t0_log_2_at_what_key RENAME TO by_another_name; ALTER TABLE t0_log DROP CONSTRAINT t0_log_other",
    "ALTER TABLE t0_log DROP CONSTRAINT t0_log_once",
    "CREATE STATISTICS base_s ON a, b FROM base; CREATE INDEX base_both ON base (b, a) WHERE a > 3; ALTER TABLE base ALTER COLUMN b SET NOT NULL",
    // Hidden, not gone.
    "ALTER TABLE base DROP COLUMN b, DROP COLUMN dice; CREATE TABLE tail (id int REFERENCES base, n int)",
    "DROP TABLE tail; ALTER TABLE t0_log DETACH PARTITION t0_log_2",
    "ALTER TABLE base RENAME TO bases; ALTER TYPE t0_kind RENAME TO t0_sort; ALTER DOMAIN t0_code ADD CHECK (VALUE <> 'x')",
];

#[test]
fn what_was_planned_goes_back_step_by_step_without_a_way_back_that_was_given() {
    let database = Database::shared();
    let mut session = database.connect();
    let scripts: Vec<String> = (1..=14)
        .map(script)
        .chain(CHANGES.map(str::to_string))
        .collect();
    load(&mut session, &text_of(&scripts));
    let mut pictures = vec![dump(&database)];
    for _ in &scripts {
        session.exec("SELECT transmute.up()");
        settle(&mut session);
        pictures.push(dump(&database));
    }
    assert_eq!(
        session.lines("SELECT status, count(*) FROM transmute.list GROUP BY 1"),
        [format!("applied|{}", scripts.len())]
    );
    for (i, before) in pictures.iter().enumerate().rev().skip(1) {
        let head: String = session.scalar("SELECT transmute.head()");
        assert_eq!(head, format!("m{:03}", i + 1));
        session.exec("SELECT transmute.down()");
        settle(&mut session);
        assert_eq!(
            session
                .lines("SELECT id, last_error FROM transmute.status WHERE last_error IS NOT NULL"),
            [""; 0]
        );
        assert_eq!(&dump(&database), before, "{}", scripts[i]);
    }
    assert_eq!(
        session.scalar::<Option<String>>("SELECT transmute.head()"),
        None
    );
    assert!(session.scalar::<bool>("SELECT ok FROM transmute.audit_verify()"));
}
