//! What is dropped is hidden first: old clients go on until the end, and the data is there until the artifact expires.

use transmute_tests::wait::PATIENCE;
use transmute_tests::workload::Workload;
use transmute_tests::{Database, Session};

use crate::load;
use crate::migration::{self, fingerprint, Migration};

const SOAK: &str = r#"{"pre_finalization_soak": "1 hour"}"#;

fn table(database: &Database<'_>) -> Session {
    let mut session = database.connect();
    session.exec(
        "CREATE TABLE other (id int PRIMARY KEY);
         INSERT INTO other VALUES (1), (2);
         CREATE TABLE t (id int PRIMARY KEY, must text COLLATE \"C\" NOT NULL, \"Odd name\" int REFERENCES other, tail text);
         CREATE INDEX ON t (must, id);
         CREATE UNIQUE INDEX ON t (id, \"Odd name\");
         ALTER TABLE t ADD CONSTRAINT filled CHECK (length(must) > 0 AND id > 0);
         CREATE STATISTICS t_stat ON must, tail FROM t;
         COMMENT ON COLUMN t.must IS 'needed';
         INSERT INTO t SELECT i, 'm' || i, 1 + i % 2, 'x' FROM generate_series(1, 1000) AS i",
    );
    session
}

/// The time of everything that is kept is over.
fn expire_all(session: &mut Session) {
    session.exec("UPDATE _transmute.artifacts SET expires_at = now()");
    session.exec("SELECT transmute.register('wakes', 'CREATE TABLE wakes (i int)'); SELECT transmute.apply('wakes')");
    session.wait_for(
        "SELECT count(*) FROM transmute.artifacts WHERE dropped_at IS NULL",
        "0",
        PATIENCE,
    );
}

#[track_caller]
fn assert_no_schema_of_ours(session: &mut Session) {
    let schemas =
        session.lines("SELECT nspname FROM pg_namespace WHERE nspname LIKE '\\_transmute\\_%'");
    assert!(schemas.is_empty(), "{schemas:?}");
}

#[test]
fn a_dropped_column_is_hidden_at_the_end_and_gone_when_it_expires() {
    let database = Database::shared();
    let mut session = table(&database);
    session.exec("CREATE TABLE plain (LIKE t INCLUDING ALL)");
    let before = fingerprint(&mut session, "t");
    let drop = r#"ALTER TABLE t DROP COLUMN must, DROP COLUMN "Odd name""#;
    let mut migration = Migration::start(&database, "m", drop, SOAK);
    migration.wait("AWAITING_FINALIZATION");

    // Both applications write.
    session.exec("INSERT INTO t VALUES (2001, 'old', 1, 'old')");
    session.exec("INSERT INTO t (id, tail) VALUES (2002, 'new')");
    assert_eq!(session.lines("SELECT must FROM t WHERE id = 2001"), ["old"]);

    // The new application's rows have no value: nobody can invent one.
    migration.call("rollback", "'the test says so'");
    migration.wait_for("last_error", "a column cannot be made NOT NULL again");
    session.exec("UPDATE t SET must = 'mended' WHERE must IS NULL");
    migration.call("resume", "'mended'");
    migration.wait("UNINITIALIZED");
    assert_eq!(fingerprint(&mut session, "t"), before);

    migration.apply();
    migration.wait("AWAITING_FINALIZATION");
    migration.call("skip_soak", "'enough'");
    migration.finish();
    let error = session.error("SELECT must FROM t");
    assert_eq!(error.sqlstate, "42703");
    session.exec("INSERT INTO t (id, tail) VALUES (2003, 'new')");
    session.exec("DELETE FROM other WHERE id = 3");
    let hidden = session.lines(
        "SELECT regexp_replace(physical, '_transmute_[0-9]+', '#') FROM transmute.artifacts WHERE kind = 'column' ORDER BY artifact",
    );
    assert_eq!(hidden, ["public.t.#_must", "public.t.\"#_Odd name\""]);
    let physical: String =
        session.scalar("SELECT physical FROM transmute.artifacts ORDER BY artifact LIMIT 1");
    assert_eq!(
        session.lines(&format!(
            "SELECT count({}) FROM t",
            physical.rsplit('.').next().expect("a name")
        )),
        ["1002"],
        "the values are still there"
    );
    // A COPY of the new shape.
    let mut writer = session.client().copy_in("COPY t FROM STDIN").expect("COPY");
    std::io::Write::write_all(&mut writer, b"2004\tcopied\n").expect("a row");
    assert_eq!(writer.finish().expect("the end of COPY"), 1);

    expire_all(&mut session);
    session.exec(r#"ALTER TABLE plain RENAME TO plain_t; ALTER TABLE plain_t DROP COLUMN must, DROP COLUMN "Odd name""#);
    let columns = |session: &mut Session, table: &str| {
        session.lines(&format!(
            "SELECT attnum, attname !~ 'dropped', attisdropped, attnotnull FROM pg_attribute
              WHERE attrelid = '{table}'::regclass AND attnum > 0 ORDER BY 1"
        ))
    };
    assert_eq!(columns(&mut session, "t"), columns(&mut session, "plain_t"));
    let parts = "SELECT count(*) FROM pg_depend WHERE refobjid = '{}'::regclass AND classid <> 'pg_type'::regclass";
    assert_eq!(
        session.lines(&parts.replace("{}", "t")),
        session.lines(&parts.replace("{}", "plain_t"))
    );
    migration::assert_no_traces(&mut session, "t");
}

#[test]
fn a_dropped_table_is_out_of_sight_with_its_rows_until_it_expires() {
    let database = Database::shared();
    let mut session = table(&database);
    session.exec(
        "CREATE TABLE second (i serial PRIMARY KEY); INSERT INTO second DEFAULT VALUES; GRANT SELECT ON t TO PUBLIC",
    );
    let before = fingerprint(&mut session, "t");
    let mut migration = Migration::start(
        &database,
        "m",
        "DROP TABLE IF EXISTS t, nowhere, second",
        SOAK,
    );
    migration.wait("AWAITING_FINALIZATION");
    session.exec("INSERT INTO t VALUES (2001, 'old', 1, 'old')");
    migration.roll_back();
    assert_eq!(fingerprint(&mut session, "t"), before);

    migration.apply();
    migration.wait("AWAITING_FINALIZATION");
    migration.call("skip_soak", "'enough'");
    migration.finish();
    assert_eq!(session.error("SELECT FROM t").sqlstate, "42P01");
    assert_eq!(session.error("SELECT FROM second").sqlstate, "42P01");
    // Its foreign key holds nothing any more.
    session.exec("DELETE FROM other");
    let rows = session.lines(
        "SELECT a.source, (xpath('//n/text()', query_to_xml('SELECT count(*) AS n FROM ' || a.physical, true, true, '')))[1]
           FROM transmute.artifacts a ORDER BY a.source",
    );
    assert_eq!(rows, ["public.second|1", "public.t|1001"]);

    expire_all(&mut session);
    assert_no_schema_of_ours(&mut session);
}

#[test]
fn drop_policy_drop_keeps_nothing() {
    let database = Database::shared();
    let mut session = table(&database);
    let now = r#"{"drop_policy": "drop"}"#;
    let mut migration = Migration::start(
        &database,
        "m",
        "ALTER TABLE t DROP COLUMN must; DROP TABLE t",
        now,
    );
    migration.finish();
    assert_eq!(session.error("SELECT FROM t").sqlstate, "42P01");
    assert!(session
        .lines("SELECT * FROM transmute.artifacts")
        .is_empty());
}

#[test]
fn what_plain_drop_refuses_is_refused_before_anything_is_written() {
    let database = Database::shared();
    let mut session = table(&database);
    session.exec(
        "CREATE VIEW v AS SELECT must FROM t; CREATE TABLE child (id int REFERENCES t);
         CREATE TABLE parted (i int, below int, seen int) PARTITION BY RANGE (i);
         CREATE TABLE parted_1 PARTITION OF parted DEFAULT PARTITION BY LIST (below);
         CREATE TABLE parted_11 PARTITION OF parted_1 DEFAULT; CREATE VIEW leaf AS SELECT seen FROM parted_11",
    );
    for (ddl, sqlstate, detail) in [
        (
            "ALTER TABLE t DROP COLUMN must",
            "2BP01",
            "On public.t: view public.v.",
        ),
        (
            "ALTER TABLE t DROP COLUMN must CASCADE",
            "2BP01",
            "On public.t: view public.v.",
        ),
        (
            "DROP TABLE t",
            "2BP01",
            "On public.t: table constraint child_id_fkey on public.child, view public.v.",
        ),
        (
            "DROP TABLE t CASCADE",
            "2BP01",
            "On public.t: table constraint child_id_fkey on public.child, view public.v.",
        ),
        (
            "DROP TABLE other",
            "2BP01",
            "On public.other: table constraint \"t_Odd name_fkey\" on public.t.",
        ),
        (
            "DROP TABLE nowhere",
            "42P01",
            "There is no table nowhere; search_path is \"$user\", public.",
        ),
        (
            "DROP TABLE v",
            "42809",
            "public.v is not an ordinary table.",
        ),
        (
            "DROP TABLE parted_1",
            "0A000",
            "public.parted_1 is part of a partition tree.",
        ),
        (
            "ALTER TABLE parted DROP COLUMN below",
            "2BP01",
            "The partition key of public.parted_1 has it.",
        ),
        (
            "ALTER TABLE parted DROP COLUMN seen",
            "2BP01",
            "On public.parted: view public.leaf.",
        ),
        (
            "DROP TABLE parted",
            "2BP01",
            "On public.parted: view public.leaf.",
        ),
        ("ALTER TABLE t DROP COLUMN nothing", "42703", ""),
    ] {
        let error = session.error(&format!("SELECT transmute.register('m', $q${ddl}$q$)"));
        assert_eq!(error.sqlstate, sqlstate, "{ddl}: {error}");
        if !detail.is_empty() {
            assert_eq!(error.detail.as_deref(), Some(detail), "{ddl}");
        }
    }
    assert!(session.lines("SELECT * FROM transmute.status").is_empty());
}

#[test]
fn writers_that_know_a_dropped_column_do_not_fail_until_the_end() {
    let database = Database::shared();
    let load = Workload::on("t").seed(77);
    let mut session = load::hot_table(&database, &load);
    let before = fingerprint(&mut session, "t");
    let writers = load.start(&database);
    let mut migration = Migration::start(&database, "m", "ALTER TABLE t DROP COLUMN note", SOAK);
    migration.wait("AWAITING_FINALIZATION");
    writers.wait_for_more(300, PATIENCE);
    migration.roll_back();
    writers.wait_for_more(300, PATIENCE);
    writers.stop().assert_no_failures();
    assert_eq!(fingerprint(&mut session, "t"), before);
    load::assert_equals_mirror(&mut session);
}

#[test]
fn partitioned_tables_and_partitions_are_dropped_at_the_end_where_the_policy_says_so() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec(
        "CREATE TABLE p (id int, k int, PRIMARY KEY (id, k)) PARTITION BY RANGE (k);
         CREATE TABLE p_1 PARTITION OF p FOR VALUES FROM (0) TO (10); CREATE TABLE p_2 PARTITION OF p FOR VALUES FROM (10) TO (20);
         CREATE TABLE q (id int, k int) PARTITION BY RANGE (k); CREATE TABLE q_1 PARTITION OF q DEFAULT;
         INSERT INTO p SELECT i, i FROM generate_series(1, 19) i",
    );
    let error = session.error("SELECT transmute.register('m', 'DROP TABLE p_1')");
    assert_eq!(error.sqlstate, "0A000");
    assert!(error.hint.unwrap_or_default().contains("drop_policy"));
    let before = fingerprint(&mut session, "p");
    let mut migration = Migration::start(
        &database,
        "m",
        "DROP TABLE p_1; DROP TABLE q",
        r#"{"drop_policy": "drop", "pre_finalization_soak": "1 hour"}"#,
    );
    migration.wait("AWAITING_FINALIZATION");
    session.exec("INSERT INTO p VALUES (500, 5)");
    session.exec("DELETE FROM p WHERE id = 500");
    migration.roll_back();
    assert_eq!(fingerprint(&mut session, "p"), before);
    migration.apply();
    migration.wait("AWAITING_FINALIZATION");
    migration.call("skip_soak", "'the test says so'");
    migration.finish();
    assert_eq!(
        session.lines("SELECT count(*), to_regclass('p_1') IS NULL, to_regclass('q') IS NULL, to_regclass('q_1') IS NULL FROM p"),
        ["10|t|t|t"]
    );
}

/// A tree of two levels: a leaf with other columns in another order, that has an index, a CHECK and a foreign key of its own.
fn tree(session: &mut Session) {
    session.exec(
        "CREATE TABLE other (id int PRIMARY KEY) PARTITION BY RANGE (id);
         CREATE TABLE other_1 PARTITION OF other DEFAULT; INSERT INTO other VALUES (1), (2);
         CREATE TABLE single (id int PRIMARY KEY); INSERT INTO single VALUES (1), (2);
         CREATE TABLE p (id int, k int, \"Must go\" int NOT NULL REFERENCES other, tail text, PRIMARY KEY (id, k)) PARTITION BY RANGE (k);
         CREATE TABLE p_1 PARTITION OF p FOR VALUES FROM (0) TO (500);
         CREATE TABLE p_2 PARTITION OF p FOR VALUES FROM (500) TO (1000) PARTITION BY LIST (id);
         CREATE TABLE p_21 (gone int, tail text, \"Must go\" int CONSTRAINT \"p_Must go_not_null\" NOT NULL, k int NOT NULL, id int NOT NULL);
         ALTER TABLE p_21 DROP COLUMN gone; CREATE INDEX ON p_21 (\"Must go\") WHERE k > 0;
         ALTER TABLE p_21 ADD CONSTRAINT own CHECK (\"Must go\" > 0 AND id >= 0), ADD FOREIGN KEY (\"Must go\") REFERENCES single;
         ALTER TABLE p_2 ATTACH PARTITION p_21 DEFAULT;
         CREATE INDEX by_it ON p (\"Must go\", tail); CREATE INDEX by_tail ON p (tail);
         ALTER TABLE p ADD CONSTRAINT small CHECK (\"Must go\" < 100);
         INSERT INTO p SELECT i, i, 1 + i % 2, 'x' FROM generate_series(0, 999) AS i",
    );
}

const TREE: [&str; 4] = ["p", "p_1", "p_2", "p_21"];

fn fingerprints(session: &mut Session) -> Vec<String> {
    TREE.map(|table| fingerprint(session, table)).to_vec()
}

/// What partitions lose of their own nothing puts back by itself.
#[track_caller]
fn assert_no_derived_way_back(session: &mut Session) {
    let error = session.error("SELECT transmute.down('m', 'the test says so')");
    assert_eq!(error.sqlstate, "55000", "{error}");
    let detail = error.detail.as_deref().unwrap_or_default();
    assert!(
        detail.contains("the way back is given, not derived"),
        "{detail}"
    );
}

#[test]
fn a_column_of_a_partitioned_table_is_hidden_in_all_partitions_and_gone_when_it_expires() {
    let database = Database::shared();
    let mut session = database.connect();
    tree(&mut session);
    let before = fingerprints(&mut session);
    let drop = r#"ALTER TABLE p DROP COLUMN "Must go""#;
    let mut migration = Migration::start(&database, "m", drop, SOAK);
    for round in 0..2 {
        migration.wait("AWAITING_FINALIZATION");
        // Both applications write, to every partition.
        for k in [1, 600] {
            session.exec(&format!(
                "INSERT INTO p VALUES ({k}000{round}, {k}, 2, 'old'); INSERT INTO p (id, k, tail) VALUES ({k}001{round}, {k}, 'new')"
            ));
        }
        if round == 0 {
            session.exec("UPDATE p SET \"Must go\" = 1 WHERE \"Must go\" IS NULL");
            migration.roll_back();
            assert_eq!(fingerprints(&mut session), before);
            migration.apply();
        }
    }
    migration.call("skip_soak", "'enough'");
    migration.finish();
    assert_eq!(
        session.error("SELECT \"Must go\" FROM p_21").sqlstate,
        "42703"
    );
    assert_no_derived_way_back(&mut session);
    // Nothing of it binds anybody, in no partition, and what it said is kept.
    session.exec("INSERT INTO p (id, k, tail) VALUES (70000, 1, 'new'), (70001, 700, 'new'); DELETE FROM other; DELETE FROM single");
    let hidden: String =
        session.scalar("SELECT physical FROM transmute.artifacts WHERE kind = 'column'");
    let column = hidden.trim_start_matches("public.p.");
    assert_eq!(
        session.lines(&format!(
            "SELECT count(*), count({column}), sum({column}) FROM p WHERE id < 1000"
        )),
        ["1000|1000|1500"]
    );
    session.exec("CREATE TABLE p_3 PARTITION OF p FOR VALUES FROM (1000) TO (2000); INSERT INTO p (id, k) VALUES (9, 1500)");
    session.exec("DROP TABLE p_3");

    expire_all(&mut session);
    let plain = Database::shared();
    let mut other = plain.connect();
    tree(&mut other);
    other.exec(drop);
    assert_eq!(fingerprints(&mut session), fingerprints(&mut other));
    for table in TREE {
        migration::assert_no_traces(&mut session, table);
    }
}

#[test]
fn a_partitioned_table_is_out_of_sight_with_its_partitions_until_it_expires() {
    let database = Database::shared();
    let mut session = database.connect();
    tree(&mut session);
    let before = fingerprints(&mut session);
    let mut migration = Migration::start(&database, "m", "DROP TABLE p", SOAK);
    migration.wait("AWAITING_FINALIZATION");
    session.exec("INSERT INTO p VALUES (5000, 700, 1, 'old')");
    migration.roll_back();
    assert_eq!(fingerprints(&mut session), before);
    migration.apply();
    migration.wait("AWAITING_FINALIZATION");
    migration.call("skip_soak", "'enough'");
    migration.finish();
    for table in TREE {
        assert_eq!(
            session.error(&format!("SELECT FROM {table}")).sqlstate,
            "42P01"
        );
    }
    assert_no_derived_way_back(&mut session);
    session.exec("DELETE FROM other; DELETE FROM single");
    let physical: String = session.scalar("SELECT physical FROM transmute.artifacts");
    assert_eq!(
        session.lines(&format!("SELECT count(*), max(id) FROM {physical}")),
        ["1001|5000"]
    );
    expire_all(&mut session);
    assert_no_schema_of_ours(&mut session);
}
