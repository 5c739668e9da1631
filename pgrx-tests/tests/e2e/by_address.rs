//! Tables without a key, or whose key does not survive the conversion: rows are found by their address.

use transmute_tests::Database;

use crate::keys::{assert_mirrored, some_more, under_load_of};
use crate::migration::{self, assert_no_traces, assert_sound, fingerprint, Migration};

/// A table with rows that are the same, which refers to a key, and a partitioned one without a key anywhere.
const SCHEMA: &str = "
  CREATE TABLE parent (id serial PRIMARY KEY);
  CREATE TABLE bag (parent int REFERENCES parent ON DELETE CASCADE, n int, note text);
  CREATE INDEX bag_n ON bag (n);
  CREATE TABLE parts (k int NOT NULL, n int, note text) PARTITION BY RANGE (k);
  CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (50);
  CREATE TABLE parts_2 (note text, gone int, n int, k int NOT NULL);
  ALTER TABLE parts_2 DROP COLUMN gone;
  ALTER TABLE parts ATTACH PARTITION parts_2 DEFAULT;
  INSERT INTO parent SELECT FROM generate_series(1, 200);
  INSERT INTO bag SELECT 1 + i % 200, i % 10, repeat('x', i % 3) FROM generate_series(1, 4000) i;
  INSERT INTO bag SELECT NULL, NULL, NULL FROM generate_series(1, 5);
  INSERT INTO parts SELECT i % 100, i % 10, repeat('y', i % 3) FROM generate_series(1, 4000) i;
  ANALYZE";

/// What the application wrote, kept by triggers in its own transactions, one of them at a time.
const MIRRORS: &str = "
  CREATE SCHEMA m;
  CREATE FUNCTION m.keep() RETURNS trigger LANGUAGE plpgsql AS $$
  BEGIN
    PERFORM pg_advisory_xact_lock(7);
    IF TG_OP <> 'INSERT' THEN
      EXECUTE format('DELETE FROM m.%1$I WHERE ctid = (SELECT ctid FROM m.%1$I WHERE row = $1 LIMIT 1)', TG_ARGV[0])
        USING to_jsonb(OLD);
    END IF;
    IF TG_OP <> 'DELETE' THEN
      EXECUTE format('INSERT INTO m.%I VALUES ($1)', TG_ARGV[0]) USING to_jsonb(NEW);
    END IF;
    RETURN NULL;
  END $$;
  DO $$
  DECLARE t text;
  BEGIN
    FOREACH t IN ARRAY ARRAY['bag', 'parts'] LOOP
      EXECUTE format('CREATE TABLE m.%1$I AS SELECT to_jsonb(x) AS row FROM %1$I AS x', t);
      EXECUTE format('CREATE INDEX ON m.%I USING hash (row)', t);
      EXECUTE format('CREATE TRIGGER keep AFTER INSERT OR UPDATE OR DELETE ON %1$I FOR EACH ROW EXECUTE FUNCTION m.keep(%1$L)', t);
    END LOOP;
  END $$";

/// Statements of the application; each is a transaction. `$` is a number that grows. One at a time moves rows between partitions: the
/// server refuses to lock a row that somebody has just moved (40001).
const APPLICATION: [&str; 7] = [
    "INSERT INTO bag SELECT id, $ % 10, 'new' FROM parent WHERE id = 1 + $ % 90 FOR KEY SHARE",
    "UPDATE bag SET n = n + 1 WHERE ctid = (SELECT ctid FROM bag WHERE n = $ % 10 LIMIT 1 FOR UPDATE SKIP LOCKED)",
    "DELETE FROM bag WHERE ctid = (SELECT ctid FROM bag WHERE n = $ % 10 LIMIT 1 FOR UPDATE SKIP LOCKED)",
    "DELETE FROM parent WHERE id = 100 + $ % 101",
    "INSERT INTO parts VALUES ($ % 100, $ % 10, 'new')",
    "SELECT pg_advisory_xact_lock(8); WITH one AS (SELECT tableoid AS t, ctid AS c FROM parts WHERE k = $ % 100 LIMIT 1 FOR UPDATE SKIP LOCKED)
     UPDATE parts SET k = (k + 37) % 100, n = n - 1 FROM one WHERE tableoid = t AND parts.ctid = c",
    "SELECT pg_advisory_xact_lock(8); WITH one AS (SELECT tableoid AS t, ctid AS c FROM parts WHERE k = $ % 100 LIMIT 1 FOR UPDATE SKIP LOCKED)
     DELETE FROM parts USING one WHERE tableoid = t AND parts.ctid = c",
];

const TABLES: [&str; 5] = ["parent", "bag", "parts", "parts_1", "parts_2"];

#[test]
fn rows_without_a_key_are_converted_under_load_each_as_often_as_it_is_there() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec(SCHEMA);
    session.exec(MIRRORS);
    let before = TABLES.map(|t| fingerprint(&mut session, t));
    migration::set(
        &database,
        &[("batch_target_ms", "5"), ("backfill_duty", "10")],
    );
    let ddl = "ALTER TABLE parent ALTER COLUMN id TYPE bigint;
        ALTER TABLE parts ALTER COLUMN n TYPE bigint, ALTER COLUMN note TYPE text COLLATE \"C\"";
    assert_eq!(
        session.lines(&format!(
            "SELECT target, reasons && '{{NO_KEY}}' FROM transmute.explain($${ddl}$$) WHERE kind = 'rewrite_expand' ORDER BY step"
        )),
        [
            "public.parent|f",
            "public.bag|t",
            "public.parts_1|t",
            "public.parts_2|t"
        ]
    );
    under_load_of(&database, &APPLICATION, |done| {
        let mut m = Migration::start(&database, "m", ddl, r#"{"required_approvals": 1}"#);
        m.wait_for("state = 'RUNNING' AND progress > 0", "t");
        some_more(done);
        m.roll_back();
        m.apply();
        m.wait("AWAITING_FINALIZATION");
        some_more(done);
        m.roll_back();
        assert_eq!(TABLES.map(|t| fingerprint(&mut session, t)), before);
        m.apply();
        m.wait("AWAITING_FINALIZATION");
        some_more(done);
        m.call("approve", "'good'");
        m.finish();
        some_more(done);
    });
    assert_mirrored(&mut session, &["bag", "parts"]);
    for table in ["parent", "bag", "parts_1", "parts_2"] {
        assert_sound(&mut session, table);
        assert_no_traces(&mut session, table);
    }
    assert_eq!(
        session.lines(
            "SELECT attrelid::regclass || '.' || attname, atttypid::regtype FROM pg_attribute
              WHERE attrelid IN ('bag'::regclass, 'parts_1'::regclass, 'parts_2'::regclass)
                AND attnum > 0 AND NOT attisdropped AND attname IN ('parent', 'n') ORDER BY attrelid::regclass::text COLLATE \"C\", attnum"
        ),
        [
            "bag.parent|bigint",
            "bag.n|integer",
            "parts_1.n|bigint",
            "parts_2.n|bigint"
        ]
    );
    // The way back is one more of the same kind, over what the first has left in the rows.
    session.exec("SELECT transmute.down('m', 'test')");
    let mut down = Migration::attach(&database, "m:down");
    down.wait("AWAITING_FINALIZATION");
    down.call("approve", "'good'");
    down.finish();
    assert_mirrored(&mut session, &["bag", "parts"]);
    assert_eq!(TABLES.map(|t| fingerprint(&mut session, t)), before);
    for table in ["bag", "parts_1", "parts_2"] {
        assert_sound(&mut session, table);
    }
}

#[test]
fn another_file_gives_rows_without_a_key_other_addresses() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec(SCHEMA);
    session.exec(MIRRORS);
    let ddl = "ALTER TABLE bag ALTER COLUMN n TYPE bigint, ADD COLUMN at timestamptz DEFAULT clock_timestamp()";
    let mut m = Migration::start(&database, "m", ddl, r#"{"required_approvals": 1}"#);
    m.wait("AWAITING_FINALIZATION");
    session.exec("DELETE FROM bag WHERE n < 3");
    session.exec("VACUUM FULL bag");
    session.exec("UPDATE bag SET n = 77 WHERE n = 7");
    session.exec("TRUNCATE m.bag, bag");
    session.exec("INSERT INTO bag SELECT 1, i % 20 FROM generate_series(1, 1000) i");
    session.exec("DELETE FROM bag WHERE n > 15");
    session.exec("VACUUM FULL bag");
    session.exec("INSERT INTO bag VALUES (2, 2), (2, 2)");
    m.call("approve", "'good'");
    m.finish();
    session.exec("UPDATE m.bag SET row = row || jsonb_build_object('at', null)");
    session.exec("ALTER TABLE bag DISABLE TRIGGER keep; UPDATE bag SET at = NULL");
    assert_mirrored(&mut session, &["bag", "parts"]);
    assert_sound(&mut session, "bag");

    // What needs a key to find its way back says so before anything is written.
    for meta in [r#"{"keep_old": "1 hour"}"#, r#"{"versioned_views": "v2"}"#] {
        let ddl = "ALTER TABLE parts ALTER COLUMN n TYPE bigint";
        let error = session.error(&format!(
            "SELECT transmute.register('k', '{ddl}', meta => '{meta}')"
        ));
        assert_eq!(error.sqlstate, "0A000", "{meta}: {error}");
    }

    // More than one drain may read: the migration stops, and the table is as it was.
    session.exec("CREATE TABLE large (a int, filler text)");
    session.exec("ALTER TABLE large ALTER filler SET STORAGE plain");
    session.exec("INSERT INTO large SELECT i, repeat('x', 3500) FROM generate_series(1, 2100) i");
    let mut n = Migration::start(
        &database,
        "n",
        "ALTER TABLE large ALTER COLUMN a TYPE bigint",
        r#"{"required_approvals": 1}"#,
    );
    n.wait("AWAITING_FINALIZATION");
    let before = fingerprint(&mut session, "large");
    session.exec("VACUUM FULL large");
    session.exec("INSERT INTO large VALUES (0, 'late')");
    n.wait_for("last_error_sqlstate", "55000");
    n.roll_back();
    assert_ne!(before, "");
    assert_no_traces(&mut session, "large");
}

#[test]
fn keys_that_the_conversion_makes_equal_are_dead_letters() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec(
        "CREATE TABLE t (id int PRIMARY KEY, n int);
         INSERT INTO t SELECT i * 2, i FROM generate_series(1, 500) i;
         INSERT INTO t VALUES (7, 0)",
    );
    let mut m = Migration::start(
        &database,
        "m",
        "ALTER TABLE t ALTER COLUMN id TYPE bigint USING id / 2",
        "{}",
    );
    m.wait_for("dead_letters", "1");
    let letter = session.lines("SELECT key, sqlstate FROM transmute.dead_letters");
    assert_eq!(letter.len(), 1);
    assert!(
        letter[0].starts_with("(ctid)=((") && letter[0].ends_with(")|23505"),
        "{letter:?}"
    );
    session.exec("UPDATE t SET id = 2001 WHERE id IN (6, 7) AND n = 0");
    m.finish();
    assert_eq!(
        session.lines("SELECT count(*), min(id), max(id), sum(n) FROM t"),
        ["501|1|1000|125250"]
    );
    assert_sound(&mut session, "t");
}
