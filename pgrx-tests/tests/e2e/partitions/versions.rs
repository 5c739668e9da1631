//! Versioned schemas of a partitioned table: the views are on the table, whatever its partitions look like, and change with the swap of all
//! of them.

use transmute_tests::wait::PATIENCE;
use transmute_tests::{Database, Session};

use super::{assert_all_sound, assert_same, fingerprints};
use crate::migration::Migration;
use crate::surface::refused;
use crate::versions::write_through_the_end;

const ALTER: &str =
    "ALTER TABLE t ALTER COLUMN a TYPE bigint, ADD COLUMN stamp text DEFAULT clock_timestamp()::text";
const BOTH: &str = r#"{"versioned_views_before": "v1", "versioned_views": "v2", "pre_finalization_soak": "1 hour"}"#;
const KEPT: &str = r#"{"versioned_views_before": "v1", "versioned_views": "v2", "pre_finalization_soak": "1 hour", "keep_old": "1 hour"}"#;
const OLD: &str = "a integer, id integer, note text, twice integer";
const NEW: &str = "a bigint, id integer, note text, twice integer, stamp text";

/// A table with a hole among its columns, and a partition that has them in another order, with a hole and a default of its own.
fn table(database: &Database<'_>) -> Session {
    let mut session = database.connect();
    session.exec(
        "CREATE TABLE t (hole int, a int CONSTRAINT t_a_not_null NOT NULL DEFAULT 7, id int PRIMARY KEY, note text, twice int GENERATED ALWAYS AS (char_length(note)) STORED)
           PARTITION BY RANGE (id);
         ALTER TABLE t DROP COLUMN hole;
         CREATE TABLE t_low PARTITION OF t FOR VALUES FROM (MINVALUE) TO (500);
         CREATE TABLE t_high (note text, hole int, id int NOT NULL, twice int GENERATED ALWAYS AS (char_length(note)) STORED, a int CONSTRAINT t_a_not_null NOT NULL DEFAULT 8);
         ALTER TABLE t_high DROP COLUMN hole;
         ALTER TABLE t ATTACH PARTITION t_high FOR VALUES FROM (500) TO (10000000);
         CREATE TABLE t_far PARTITION OF t FOR VALUES FROM (10000000) TO (MAXVALUE);
         CREATE VIEW many AS SELECT count(*) AS n, sum(a) AS a FROM t;
         INSERT INTO t (a, id, note) SELECT i, i, 'n' || i FROM generate_series(1, 1000) AS i",
    );
    session
}

fn shapes(session: &mut Session) -> Vec<String> {
    session.lines(
        "SELECT string_agg(attname || ' ' || atttypid::regtype, ', ' ORDER BY attnum) FROM pg_attribute
          WHERE attrelid IN ('v1.t'::regclass, 'v2.t'::regclass) AND attnum > 0 GROUP BY attrelid::regclass ORDER BY attrelid::regclass::text",
    )
}

fn versions(session: &mut Session) -> Vec<String> {
    session
        .lines("SELECT version, relation, view, converts FROM transmute.versions ORDER BY version")
}

/// What an application does, in either partition and from one to the other.
#[track_caller]
fn use_version(session: &mut Session, version: &str, type_name: &str) {
    for id in [-1, 4001] {
        assert_eq!(
            session.lines(&format!("INSERT INTO {version}.t (id, a, note) VALUES ({id}, 5, 'made') RETURNING pg_typeof(a), a, note, twice")),
            [format!("{type_name}|5|made|4")]
        );
        assert_eq!(
            session.lines(&format!(
                "UPDATE {version}.t SET a = a + 1, id = 3000 - id WHERE id = {id} RETURNING a, id"
            )),
            [format!("6|{}", 3000 - id)]
        );
        assert_eq!(
            session.lines(&format!(
                "DELETE FROM {version}.t WHERE id = {} RETURNING note",
                3000 - id
            )),
            ["made"]
        );
    }
    assert_eq!(
        session.lines(&format!("SELECT sum(a) FROM {version}.t WHERE id <= 1000")),
        ["500500"]
    );
}

#[test]
fn of_a_partitioned_table_both_applications_see_and_write_their_shape() {
    let database = Database::shared();
    let mut session = table(&database);
    let before = fingerprints(&mut session);
    let mut migration = Migration::start(&database, "m", ALTER, BOTH);
    migration.wait("AWAITING_FINALIZATION");
    migration.roll_back();
    assert_eq!(
        session.lines("SELECT count(*) FROM pg_namespace WHERE nspname IN ('v1', 'v2')"),
        ["0"]
    );
    assert_same("rolled back", &fingerprints(&mut session), &before);

    let mut migration = Migration::start(&database, "n", ALTER, KEPT);
    migration.wait("AWAITING_FINALIZATION");
    assert_eq!(shapes(&mut session), [OLD, NEW]);
    assert_eq!(versions(&mut session), ["v1|t|v1.t|f", "v2|t|v2.t|t"]);
    assert_eq!(
        session.lines("SELECT DISTINCT l FROM transmute.plan('n'), unnest(locks) l WHERE kind = 'rewrite_tree' AND l LIKE '%v_.t' ORDER BY 1"),
        ["ACCESS EXCLUSIVE on v1.t", "ACCESS EXCLUSIVE on v2.t"]
    );
    use_version(&mut session, "v1", "integer");
    use_version(&mut session, "v2", "bigint");
    assert_eq!(
        session.lines("SELECT DISTINCT object FROM transmute.usage WHERE id = 'n'"),
        ["v1.t"]
    );
    migration.call("skip_soak", "'enough'");
    migration.finish();
    assert_eq!(shapes(&mut session), [OLD, NEW]);
    assert_eq!(versions(&mut session), ["v1|t|v1.t|t", "v2|t|v2.t|f"]);
    use_version(&mut session, "v1", "integer");
    use_version(&mut session, "v2", "bigint");
    session.exec("INSERT INTO v1.t (id, a) VALUES (-5, 5), (5000, 5)");
    assert_eq!(
        session.lines("SELECT count(*) FROM v2.t WHERE id IN (-5, 5000) AND stamp IS NOT NULL"),
        ["2"]
    );
    session.exec("DELETE FROM t WHERE id IN (-5, 5000)");
    migration.call("undo", "'back'");
    migration.wait_for("outcome", "UNDONE");
    migration.wait_for("queued", "f");
    assert_eq!(versions(&mut session), ["v1|t|v1.t|f"]);
    use_version(&mut session, "v1", "integer");
    session.exec("SELECT transmute.release_version('v1', 'as before')");
    assert_same("undone", &fingerprints(&mut session), &before);
    assert_eq!(session.lines("SELECT n, a FROM many"), ["1000|500500"]);
    assert_all_sound(&mut session);
}

#[test]
fn both_applications_write_through_the_swap_of_all_partitions() {
    let database = Database::shared();
    let mut session = table(&database);
    let before = fingerprints(&mut session);
    let mut migration = Migration::start(&database, "m", ALTER, BOTH);
    migration.wait("AWAITING_FINALIZATION");
    let applications = [(1, "v1"), (2, "v2"), (700, "v1"), (800, "v2")]
        .into_iter()
        .map(|(id, version)| (id, version, database.connect()))
        .collect();
    let counts = write_through_the_end(&mut migration, applications);
    let sums = "SELECT id / 100000, count(*), coalesce(sum(a), 0) FROM t WHERE note = 'more' GROUP BY 1 ORDER BY 1";
    let expected: Vec<String> = counts
        .iter()
        .map(|(id, times)| format!("{id}|{times}|{}", times * times.saturating_sub(1) / 2))
        .collect();
    assert_eq!(session.lines(sums), expected);
    for (id, times) in &counts {
        assert_eq!(
            session.lines(&format!("SELECT a - id FROM t WHERE id = {id}")),
            [times.to_string()]
        );
    }
    assert_all_sound(&mut session);
    // The way back of what has finished takes both versions along.
    session.exec("SELECT transmute.down('m', 'the release is taken back')");
    session.exec("CALL transmute.wait('m:down', 'AWAITING_FINALIZATION', '60 s')");
    session.exec("SELECT transmute.skip_soak('m:down', 'enough')");
    session.wait_for("SELECT count(*) FROM transmute.versions", "0", PATIENCE);
    session.wait_for(
        "SELECT count(*) FROM transmute.status WHERE queued",
        "0",
        PATIENCE,
    );
    assert_same("taken back", &fingerprints(&mut session), &before);
    assert_eq!(session.lines(sums), expected);
}

#[test]
fn a_version_of_a_partitioned_table_that_could_not_be_kept_is_refused() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec(
        "CREATE TABLE t (id int, a int) PARTITION BY RANGE (id);
         CREATE TABLE t_low PARTITION OF t (PRIMARY KEY (id)) FOR VALUES FROM (MINVALUE) TO (500);
         CREATE TABLE u (id int PRIMARY KEY, a int) PARTITION BY RANGE (id);
         CREATE TABLE u_low PARTITION OF u FOR VALUES FROM (MINVALUE) TO (500)",
    );
    let register = |id: &str, ddl: &str| {
        format!("SELECT transmute.register('{id}', $${ddl}$$, meta => '{{\"versioned_views\": \"{id}\"}}')")
    };
    for (ddl, message) in [
        (
            "ALTER TABLE t ALTER a TYPE bigint",
            "a version of a table without a key cannot be written",
        ),
        (
            "ALTER TABLE u ALTER a TYPE bigint, ADD CONSTRAINT one UNIQUE (id, a)",
            "an index or a key is made by the statement that rewrites a partitioned table, whose old rows are kept, or shown in versions",
        ),
        (
            "ALTER TABLE u ALTER a TYPE text USING a || 'x'",
            "the way back of a statement cannot be derived",
        ),
    ] {
        assert_eq!(
            refused(&mut session, &register("x", ddl)),
            format!("0A000: {message}"),
            "{ddl}"
        );
    }
    // A release that knows a partition by its own name.
    session.exec(&register("own", "ALTER TABLE u_low ALTER a SET DEFAULT 3"));
    session.exec("SELECT transmute.apply('own')");
    session.exec("CALL transmute.wait('own', timeout => '60 s')");
    assert_eq!(
        refused(
            &mut session,
            "SELECT transmute.register('x', 'ALTER TABLE u ALTER a TYPE bigint')"
        ),
        "0A000: a partition of the table is shown in a version by itself"
    );
    session.exec("SELECT transmute.release_version('own', 'gone')");
    session.exec(&register("x", "ALTER TABLE u ALTER a TYPE bigint"));
    session.exec("SELECT transmute.apply('x')");
    session.exec("CALL transmute.wait('x', timeout => '60 s')");
    // An older version is behind already, of the whole table.
    session.exec(&register("y", "ALTER TABLE u ADD b int"));
    session.exec("SELECT transmute.apply('y')");
    session.exec("CALL transmute.wait('y', timeout => '60 s')");
    session.exec("SELECT transmute.register('z', 'ALTER TABLE u ALTER a TYPE int'); SELECT transmute.apply('z')");
    session.exec("CALL transmute.wait('z', timeout => '60 s')");
    assert_eq!(
        session.lines("SELECT version, converts FROM transmute.versions ORDER BY 1"),
        ["x|t", "y|t"]
    );
    assert_eq!(
        refused(
            &mut session,
            "SELECT transmute.register('q', 'ALTER TABLE u ALTER a TYPE smallint')"
        ),
        "0A000: a version of the table is behind already"
    );
}
