//! Scripts that copy a table's rows and then take the table away: what is written in between must not be lost.

use transmute_tests::wait::PATIENCE;
use transmute_tests::workload::Workload;
use transmute_tests::{Database, Session};

use crate::load;
use crate::migration::Migration;

fn orders(database: &Database<'_>) -> Session {
    let mut session = database.connect();
    session.exec(
        "CREATE TABLE orders (id int PRIMARY KEY, placed date NOT NULL);
         CREATE TABLE customers (id int PRIMARY KEY);
         CREATE TABLE other (LIKE orders INCLUDING ALL);
         INSERT INTO orders SELECT i, date '2025-01-01' + i FROM generate_series(1, 100) AS i",
    );
    session
}

#[test]
fn a_copy_that_takes_the_place_of_its_table_is_refused_by_name() {
    let database = Database::shared();
    let mut session = orders(&database);
    for (script, taker) in [
        (
            "CREATE TABLE orders_new AS SELECT * FROM orders;
             DROP TABLE orders;
             ALTER TABLE orders_new RENAME TO orders",
            "DROP TABLE in line 2 takes it away",
        ),
        (
            "INSERT INTO public.other (id, placed) SELECT id, placed FROM public.orders;
             ALTER TABLE orders RENAME TO orders_old;
             ALTER TABLE other RENAME TO orders",
            "ALTER TABLE in line 3 gives its name to the copy",
        ),
        (
            "CREATE TABLE orders_new (LIKE orders INCLUDING ALL);
             INSERT INTO orders_new SELECT * FROM orders WHERE id < 50;
             INSERT INTO orders_new SELECT * FROM orders WHERE id >= 50;
             ALTER TABLE orders RENAME TO orders_old;
             ALTER TABLE orders_new RENAME TO orders",
            "ALTER TABLE in line 5 gives its name to the copy",
        ),
        (
            "ALTER TABLE orders RENAME TO orders_old;
             CREATE TABLE orders (LIKE orders_old) PARTITION BY RANGE (placed);
             INSERT INTO orders SELECT * FROM orders_old",
            "INSERT in line 3 gives its name to the copy",
        ),
        (
            "CREATE TABLE orders_new AS SELECT o.* FROM orders AS o LEFT JOIN customers AS c USING (id);
             CREATE SCHEMA s; ALTER TABLE orders_new SET SCHEMA s;
             DROP TABLE other, orders",
            "DROP TABLE in line 3 takes it away",
        ),
        (
            "INSERT INTO other WITH w AS (SELECT * FROM orders) SELECT * FROM w;
             DROP TABLE IF EXISTS orders; ALTER TABLE other RENAME TO orders",
            "DROP TABLE in line 2 takes it away",
        ),
        (
            "MERGE INTO other USING orders ON other.id = orders.id WHEN NOT MATCHED THEN INSERT VALUES (orders.id, orders.placed);
             DROP TABLE orders",
            "DROP TABLE in line 2 takes it away",
        ),
        (
            "SELECT * INTO kept FROM orders;
             DROP TABLE orders",
            "DROP TABLE in line 2 takes it away",
        ),
    ] {
        for call in ["register('m', ", "explain("] {
            let error = session.error(&format!("SELECT * FROM transmute.{call}$s${script}$s$)"));
            assert_eq!(error.sqlstate, "0A000", "{error:?}");
            assert!(
                error.message.contains("copied, and then the table is taken away"),
                "{error:?}"
            );
            let detail = error.detail.as_deref().unwrap_or_default();
            assert!(detail.contains("copies rows of public.orders"), "{detail}");
            assert!(detail.contains(taker), "{detail}");
            let hint = error.hint.as_deref().unwrap_or_default();
            assert!(hint.contains("LOCK TABLE public.orders first"), "{hint}");
        }
    }
}

#[test]
fn copies_of_other_tables_and_copies_that_stay_beside_their_table_are_not() {
    let database = Database::shared();
    let mut session = orders(&database);
    for script in [
        "CREATE TABLE kept AS SELECT * FROM orders; DROP TABLE customers",
        "CREATE TABLE kept (LIKE orders); INSERT INTO kept SELECT * FROM orders; ALTER TABLE kept RENAME TO kept_for_long",
        "INSERT INTO other SELECT * FROM orders; ALTER TABLE orders RENAME TO orders_old",
        // The server's walker of raw trees does not know it.
        "CREATE TABLE kept AS EXECUTE prepared; DROP TABLE customers",
        "DROP TABLE orders; CREATE TABLE orders (id int)",
        "CREATE TABLE new (id int, orders date); INSERT INTO new SELECT id, placed AS orders FROM other; DROP TABLE orders",
        "CREATE TABLE a (x int); INSERT INTO a SELECT 1; CREATE TABLE b AS SELECT * FROM a; DROP TABLE a; ALTER TABLE b RENAME TO a",
    ] {
        let steps = session.lines(&format!("SELECT kind FROM transmute.explain($s${script}$s$)"));
        assert!(!steps.is_empty(), "{script}");
    }
}

#[test]
fn rows_that_move_to_an_archive_are_copied_where_they_are_deleted() {
    let database = Database::shared();
    let mut session = orders(&database);
    let mut migration = Migration::start(
        &database,
        "m",
        "CREATE TABLE archive (LIKE orders INCLUDING ALL);
         INSERT INTO archive SELECT * FROM orders WHERE placed < '2025-02-01';
         DELETE FROM orders WHERE placed < '2025-02-01'",
        r#"{"pre_finalization_soak": "1 hour"}"#,
    );
    migration.wait("AWAITING_FINALIZATION");
    session.exec("INSERT INTO orders VALUES (1000, '2025-01-15'); UPDATE orders SET placed = placed - 1 WHERE id = 20");
    migration.call("skip_soak", "'enough'");
    migration.finish();
    assert_eq!(
        session.lines("SELECT count(*), bool_or(id = 1000), (SELECT placed FROM archive WHERE id = 20) FROM archive"),
        ["31|t|2025-01-20"]
    );
    assert_eq!(
        session.lines("SELECT count(*), count(*) FILTER (WHERE placed < '2025-02-01') FROM orders"),
        ["70|0"]
    );
}

/// What the refusal says can be done instead.
#[test]
fn under_a_lock_a_script_as_written_loses_no_write() {
    let database = Database::shared();
    let load = Workload::on("t").seed(31);
    let mut session = load::hot_table(&database, &load);
    let writers = load.start(&database);
    let mut migration = Migration::start(
        &database,
        "m",
        "LOCK TABLE public.t;
         CREATE TABLE t_new (LIKE t INCLUDING DEFAULTS, PRIMARY KEY (id)) PARTITION BY HASH (id);
         CREATE TABLE t_0 PARTITION OF t_new FOR VALUES WITH (MODULUS 2, REMAINDER 0);
         CREATE TABLE t_1 PARTITION OF t_new FOR VALUES WITH (MODULUS 2, REMAINDER 1);
         INSERT INTO t_new SELECT * FROM t;
         CREATE TRIGGER mirror AFTER INSERT OR UPDATE OR DELETE ON t_new FOR EACH ROW EXECUTE FUNCTION mirror();
         DROP TABLE t;
         ALTER TABLE t_new RENAME TO t",
        r#"{"mode": "direct"}"#,
    );
    writers.wait_for_more(300, PATIENCE);
    migration.finish();
    writers.wait_for_more(300, PATIENCE);
    writers.stop();
    load::assert_equals_mirror(&mut session);
}
