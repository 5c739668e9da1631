//! A table becomes partitioned, by the usual script: a new table, a copy of all rows, two renames.

use transmute_tests::wait::{wait_until, PATIENCE};
use transmute_tests::waitpoint::Waitpoints;
use transmute_tests::workload::Workload;
use transmute_tests::{Database, Session};

use crate::load;
use crate::migration::{self, assert_no_traces, fingerprint, Migration};

const HASHED: &str = "
    CREATE TABLE t_new (LIKE t INCLUDING DEFAULTS INCLUDING STORAGE, PRIMARY KEY (id)) PARTITION BY HASH (id);
    CREATE TABLE t_0 PARTITION OF t_new FOR VALUES WITH (MODULUS 2, REMAINDER 0);
    CREATE TABLE t_1 PARTITION OF t_new FOR VALUES WITH (MODULUS 2, REMAINDER 1);
    CREATE INDEX t_new_a ON t_new (a);
    CREATE TRIGGER mirror AFTER INSERT OR UPDATE OR DELETE ON t_new FOR EACH ROW EXECUTE FUNCTION mirror();
    CREATE TRIGGER mirror_truncate AFTER TRUNCATE ON t_new FOR EACH STATEMENT EXECUTE FUNCTION mirror();
    INSERT INTO t_new SELECT * FROM t;
    ALTER TABLE t RENAME TO t_old;
    ALTER TABLE t_new RENAME TO t";

#[test]
fn under_load_a_table_becomes_partitioned_and_no_row_is_lost() {
    let database = Database::shared();
    migration::set(
        &database,
        &[("batch_target_ms", "5"), ("backfill_duty", "20")],
    );
    let load = Workload::on("t").seed(41);
    let mut session = load::hot_table(&database, &load);
    let before = fingerprint(&mut session, "t");
    let writers = load.start(&database);
    let mut migration = Migration::start(
        &database,
        "m",
        HASHED,
        r#"{"pre_finalization_soak": "1 hour"}"#,
    );
    migration.wait_for(
        "state = 'RUNNING' AND rows_done BETWEEN 1 AND rows_total - 1",
        "t",
    );
    migration.roll_back();
    assert_eq!(fingerprint(&mut session, "t"), before, "in mid-copy");
    writers.wait_for_more(300, PATIENCE);

    migration.apply();
    migration.wait("AWAITING_FINALIZATION");
    writers.wait_for_more(300, PATIENCE);
    migration.roll_back();
    assert_eq!(fingerprint(&mut session, "t"), before, "during the soak");
    assert!(session.scalar::<bool>("SELECT to_regclass('t_new') IS NULL"));

    migration.apply();
    migration.wait("AWAITING_FINALIZATION");
    writers.wait_for_more(300, PATIENCE);
    migration.call("skip_soak", "'enough'");
    migration.finish();
    writers.wait_for_more(300, PATIENCE);
    writers.stop().assert_no_failures();
    load::assert_equals_mirror(&mut session);
    assert_eq!(
        session
            .lines("SELECT relkind FROM pg_class WHERE relname IN ('t', 't_old') ORDER BY relname"),
        ["p", "r"]
    );
    assert_no_traces(&mut session, "t");
    assert_no_traces(&mut session, "t_old");
}

/// Everything the catalogs say of the tables of the script, after it.
fn catalog(session: &mut Session) -> Vec<String> {
    session.lines(
        "SELECT line FROM pg_class c, regexp_split_to_table(_transmute.fingerprint(c.oid), E'\\n') AS line
          WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') ORDER BY line",
    )
}

const ORDERS: &str = "
    CREATE TABLE customers (id int PRIMARY KEY);
    INSERT INTO customers SELECT generate_series(1, 10);
    CREATE TABLE orders (id int GENERATED ALWAYS AS IDENTITY, placed date NOT NULL, \"the customer\" int REFERENCES customers,
      note text DEFAULT 'new', gone int, total numeric(10, 2) CHECK (total >= 0), PRIMARY KEY (id));
    ALTER TABLE orders DROP COLUMN gone;
    COMMENT ON TABLE orders IS 'what was ordered';
    GRANT SELECT ON orders TO pg_monitor;
    CREATE INDEX ON orders (placed);
    INSERT INTO orders (placed, \"the customer\", note, total)
      SELECT date '2025-01-01' + i, 1 + i % 10, repeat('x', i % 50), i / 7.0 FROM generate_series(0, 364) AS i";

const RANGED: &str = "
    CREATE TABLE orders_new (LIKE orders INCLUDING ALL EXCLUDING INDEXES, PRIMARY KEY (id, placed)) PARTITION BY RANGE (placed);
    CREATE TABLE orders_h1 PARTITION OF orders_new FOR VALUES FROM ('2025-01-01') TO ('2025-07-01');
    CREATE TABLE orders_h2 PARTITION OF orders_new FOR VALUES FROM ('2025-07-01') TO ('2026-01-01');
    CREATE INDEX ON orders_new (placed);
    INSERT INTO orders_new (total, id, placed, \"the customer\", note) OVERRIDING SYSTEM VALUE
      SELECT o.total, o.id, placed, \"the customer\", note FROM orders AS o;";

const ENDS: [&str; 4] = [
    "ALTER TABLE orders RENAME TO orders_old;
     ALTER TABLE orders_new RENAME TO orders;
     ALTER INDEX orders_pkey RENAME TO orders_old_pkey;
     ALTER INDEX orders_new_pkey RENAME TO orders_pkey;
     COMMENT ON TABLE orders IS 'by the half year';
     GRANT SELECT ON orders TO pg_monitor",
    "DROP TABLE orders; ALTER TABLE orders_new RENAME TO orders",
    "CREATE INDEX by_customer ON orders_new (\"the customer\") WHERE total > 3;
     ALTER TABLE orders_new ADD CONSTRAINT sound CHECK (id > 0), ADD UNIQUE (id, placed, note);
     CREATE UNIQUE INDEX ON orders_new (placed, id); ANALYZE orders_new;
     ALTER TABLE orders RENAME TO orders_old;
     ALTER TABLE orders_new RENAME TO orders",
    "ALTER TABLE orders RENAME TO orders_old; ALTER TABLE public.orders_new RENAME TO orders; DROP TABLE orders_old",
];

#[test]
fn the_catalog_is_that_of_the_plain_script() {
    for end in ENDS {
        let database = Database::shared();
        let mut session = database.connect();
        session.exec(ORDERS);
        let script = format!("{RANGED} {end}");
        let plain = Database::shared();
        let mut other = plain.connect();
        other.exec(ORDERS);
        other.exec(&script);

        let mut migration = Migration::start(&database, "m", &script, "{}");
        migration.finish();
        let (own, plain) = (catalog(&mut session), catalog(&mut other));
        let only = |these: &[String], those: &[String]| -> Vec<String> {
            (these.iter().filter(|line| !those.contains(line)).cloned()).collect()
        };
        assert_eq!(only(&own, &plain), only(&plain, &own), "{end}");
        let rows = "SELECT o::text, tableoid::regclass FROM orders o ORDER BY id";
        assert_eq!(session.lines(rows), other.lines(rows), "{end}");
        assert_eq!(session.lines(rows).len(), 365);
        // The plain script would begin at 1 again.
        session.exec("INSERT INTO orders (placed) VALUES ('2025-03-03')");
        assert_eq!(session.lines("SELECT max(id) FROM orders"), ["366"]);
        let kept = session.lines("SELECT physical_schema || '.' || physical_name FROM _transmute.artifacts WHERE dropped_at IS NULL");
        if end.contains("DROP") {
            assert_eq!(
                session.lines(&format!("SELECT count(*) FROM {}", kept[0])),
                ["365"]
            );
            // The old rows keep nobody from deleting what they pointed at.
            session.exec("DELETE FROM orders; DELETE FROM customers");
        } else {
            assert!(kept.is_empty(), "{kept:?}");
        }
    }
}

#[test]
fn a_table_that_is_dropped_leaves_the_sequence_that_its_successor_counts_with() {
    const MAKE: &str = "CREATE TABLE items (id serial PRIMARY KEY, a int); INSERT INTO items (a) SELECT generate_series(1, 100)";
    let script = |owned: &str| {
        format!(
            "CREATE TABLE items_new (LIKE items INCLUDING ALL) PARTITION BY HASH (id);
             CREATE TABLE items_0 PARTITION OF items_new FOR VALUES WITH (MODULUS 1, REMAINDER 0);
             INSERT INTO items_new TABLE items; {owned}
             DROP TABLE items; ALTER TABLE items_new RENAME TO items"
        )
    };
    let database = Database::shared();
    let mut session = database.connect();
    session.exec(MAKE);
    for kept in ["", "ALTER SEQUENCE items_id_seq OWNED BY items.id;"] {
        let refused = session.error(&format!(
            "SELECT transmute.register('m', $${}$$)",
            script(kept)
        ));
        assert_eq!(refused.sqlstate, "2BP01", "{refused:?}");
        let detail = refused.detail.unwrap_or_default();
        assert!(detail.contains("public.items_id_seq"), "{detail}");
    }
    let script = script("ALTER SEQUENCE items_id_seq OWNED BY items_new.id;");
    let plain = Database::shared();
    let mut other = plain.connect();
    other.exec(MAKE);
    other.exec(&script);
    Migration::start(&database, "m", &script, r#"{"keep_artifacts": "0"}"#).finish();
    assert_eq!(catalog(&mut session), catalog(&mut other));
    // The old rows go at last, and the sequence stays.
    wait_until("the artifact to be dropped", PATIENCE, || {
        let dropped =
            "SELECT count(*) = 1 AND bool_and(dropped_at IS NOT NULL) FROM _transmute.artifacts";
        session.scalar::<bool>(dropped).then_some(())
    });
    session.exec("INSERT INTO items (a) VALUES (0)");
    assert_eq!(session.lines("SELECT max(id) FROM items"), ["101"]);
    assert_eq!(
        session.lines("SELECT pg_get_serial_sequence('items', 'id')"),
        ["public.items_id_seq"]
    );
}

#[test]
fn a_row_without_a_partition_is_a_dead_letter_and_the_others_go_on() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec(ORDERS);
    session.exec("UPDATE orders SET placed = '2031-01-01' WHERE id = 7");
    let mut migration = Migration::start(
        &database,
        "m",
        &format!("{RANGED} {}", ENDS[1]),
        r#"{"pre_finalization_soak": "1 hour", "max_dead_letters": 10}"#,
    );
    migration.wait_for("dead_letters", "1");
    let letter =
        session.lines("SELECT key, sqlstate, left(expression, 22) FROM transmute.dead_letters");
    assert_eq!(letter, ["(id)=(7)|23514|INSERT INTO orders_new"]);
    migration.wait("AWAITING_FINALIZATION");
    session.exec("UPDATE orders SET placed = '2032-01-01' WHERE id = 8");
    migration.wait_for("dead_letters", "2");
    session.exec(
        "UPDATE orders SET placed = '2025-01-07' WHERE id = 7;
         CREATE TABLE orders_2032 PARTITION OF orders_new FOR VALUES FROM ('2032-01-01') TO ('2033-01-01')",
    );
    migration.wait_for("dead_letters", "0");
    let refused = session.error("ALTER TABLE orders_new ADD COLUMN more int");
    assert_eq!(refused.sqlstate, "55006", "{refused:?}");
    migration.call("skip_soak", "'mended'");
    migration.finish();
    assert_eq!(
        session.lines("SELECT count(*), (SELECT placed FROM orders WHERE id = 7), (SELECT count(*) FROM orders_2032) FROM orders"),
        ["365|2025-01-07|1"]
    );
}

#[test]
fn what_is_not_carried_is_refused_by_name() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec(ORDERS);
    let script = format!("{RANGED} {}", ENDS[1]);
    let cases = [
        (
            "CREATE TABLE items (o int REFERENCES orders)",
            "",
            "",
            "constraint items_o_fkey on table public.items",
        ),
        (
            "CREATE VIEW v AS SELECT * FROM orders",
            "",
            "",
            "view public.v",
        ),
        (
            "CREATE PUBLICATION p FOR TABLE orders",
            "",
            "",
            "publication p",
        ),
        (
            "ALTER TABLE orders DROP CONSTRAINT orders_pkey",
            "",
            "",
            "no primary key",
        ),
        (
            "ALTER TABLE orders FORCE ROW LEVEL SECURITY",
            "",
            "",
            "row security",
        ),
        (
            "",
            "PRIMARY KEY (id, placed)",
            "PRIMARY KEY (placed, id, note)",
            "no index that begins with (id)",
        ),
        (
            "",
            "PRIMARY KEY (id, placed)",
            "PRIMARY KEY (id, placed) DEFERRABLE",
            "deferrable",
        ),
        (
            "",
            "CREATE INDEX ON orders_new (placed)",
            "ALTER TABLE orders_new ADD FOREIGN KEY (\"the customer\") REFERENCES customers",
            "line",
        ),
        ("", "o.total,", "o.total * 2,", "it computes a column"),
        (
            "",
            "orders AS o;",
            "orders AS o WHERE id > 3;",
            "leaves rows out",
        ),
        (
            "",
            "DROP TABLE orders;",
            "UPDATE orders SET note = ''; DROP TABLE orders;",
            "UPDATE in line",
        ),
        (
            "",
            "DROP TABLE orders;",
            "ALTER TABLE orders_new ADD COLUMN x int; DROP TABLE orders;",
            "ALTER TABLE in line 7 follows",
        ),
        (
            "",
            "DROP TABLE orders;",
            "DO $d$BEGIN END$d$; DROP TABLE orders;",
            "DO in line 7 follows",
        ),
        (
            "",
            "RENAME TO orders",
            "RENAME TO orders; CREATE VIEW v AS SELECT * FROM orders",
            "CREATE VIEW in line 7 follows",
        ),
        (
            "",
            "CREATE INDEX ON orders_new (placed);",
            "ALTER TABLE orders ALTER note DROP DEFAULT;",
            "changes the table that is copied",
        ),
    ];
    for (before, from, to, says) in cases {
        session.exec(&format!("BEGIN; {before}"));
        let changed = match from {
            "" => script.clone(),
            _ => script.replacen(from, to, 1),
        };
        let error = session.error(&format!("SELECT * FROM transmute.explain($s${changed}$s$)"));
        assert_eq!(error.sqlstate, "0A000", "{says}: {error:?}");
        let detail = error.detail.clone().unwrap_or_default();
        assert!(detail.contains(says), "{says}: {error:?}");
        session.exec("ROLLBACK");
    }
}

#[test]
fn a_snapshot_that_would_miss_a_row_of_the_copy_is_refused_and_others_see_what_they_should() {
    const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1";
    const ROW: &str = "SELECT count(*), min(note) FILTER (WHERE id = 1) FROM orders";
    let database = Database::shared();
    let mut session = database.connect();
    session.exec(ORDERS);
    session.exec("UPDATE orders SET note = 'early' WHERE id = 1");
    let (mut early, mut late, mut newest) =
        (database.connect(), database.connect(), database.connect());
    let mut migration = Migration::start(
        &database,
        "m",
        &format!("{RANGED} {}", ENDS[0]),
        r#"{"required_approvals": 1}"#,
    );
    migration.wait("AWAITING_FINALIZATION");
    let mut waitpoints = Waitpoints::of(&database);
    waitpoints.hold("drain_before_commit");
    early.exec(BEGIN);
    session.exec("UPDATE orders SET note = 'late' WHERE id = 1");
    waitpoints.wait_reached("drain_before_commit", PATIENCE);
    late.exec(BEGIN);
    waitpoints.release("drain_before_commit");
    session.wait_for("SELECT note FROM orders_new WHERE id = 1", "late", PATIENCE);
    newest.exec(BEGIN);
    migration.call("approve", "'seen'");
    migration.finish();
    assert_eq!(early.lines(ROW), ["365|early"]);
    assert_eq!(newest.lines(ROW), ["365|late"]);
    let error = late.error(ROW);
    assert_eq!(error.sqlstate, "40001", "{error:?}");
}

/// VACUUM FULL gives the table another file, TRUNCATE takes its rows away: the copy begins again, and no trigger of the new table fires.
#[test]
fn another_file_and_truncate_are_followed() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec(ORDERS);
    session.exec(
        "CREATE TABLE fired (what text);
         CREATE FUNCTION fired() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO fired VALUES (TG_OP); RETURN NULL; END $$",
    );
    let script = RANGED.replace(
        "CREATE INDEX ON orders_new (placed);",
        "CREATE TRIGGER fired AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON orders_new FOR EACH STATEMENT EXECUTE FUNCTION fired();",
    );
    let mut waitpoints = Waitpoints::of(&database);
    waitpoints.hold("rewrite_copy_done_before_commit");
    let mut migration = Migration::start(
        &database,
        "m",
        &format!("{script} {}", ENDS[1]),
        r#"{"pre_finalization_soak": "1 hour"}"#,
    );
    waitpoints.wait_reached("rewrite_copy_done_before_commit", PATIENCE);
    session.exec("UPDATE orders SET id = DEFAULT WHERE id = 5");
    waitpoints.release("rewrite_copy_done_before_commit");
    migration.wait("AWAITING_FINALIZATION");
    session.exec("VACUUM FULL orders");
    session.exec("UPDATE orders SET note = 'moved' WHERE id = 9");
    session.wait_for(
        "SELECT note FROM orders_new WHERE id = 9",
        "moved",
        PATIENCE,
    );
    session
        .exec("BEGIN; TRUNCATE orders; INSERT INTO orders (placed) VALUES ('2025-05-05'); COMMIT");
    session.wait_for("SELECT count(*) FROM orders_new", "1", PATIENCE);
    migration.call("skip_soak", "'enough'");
    migration.finish();
    assert_eq!(
        session.lines("SELECT id, placed FROM orders"),
        ["367|2025-05-05"]
    );
    assert!(session.lines("SELECT * FROM fired").is_empty());
}

#[test]
fn nothing_takes_it_back_when_it_has_finished_and_it_says_so() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec(ORDERS);
    let mut migration = Migration::start(&database, "m", &format!("{RANGED} {}", ENDS[0]), "{}");
    migration.finish();
    let error = migration.refused("down", "'the test', confirm => current_database()");
    assert_eq!(error.sqlstate, "55000", "{error:?}");
    assert!(
        error
            .message
            .contains("not all of the migration can be taken back"),
        "{error:?}"
    );
    assert_eq!(session.lines("SELECT count(*) FROM orders"), ["365"]);
}

#[test]
fn what_another_row_keeps_out_is_a_dead_letter_and_the_others_go_on() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec(
        "CREATE TABLE t (id int PRIMARY KEY, a int);
         INSERT INTO t SELECT g, CASE WHEN g % 1000 = 7 THEN g - 1 ELSE g END FROM generate_series(1, 3000) g",
    );
    let mut migration = Migration::start(
        &database,
        "m",
        "CREATE TABLE t_new (id int PRIMARY KEY, a int) PARTITION BY RANGE (id);
         CREATE TABLE t_1 PARTITION OF t_new FOR VALUES FROM (0) TO (2000);
         CREATE TABLE t_2 PARTITION OF t_new FOR VALUES FROM (2000) TO (4000);
         CREATE UNIQUE INDEX t_1_a ON t_1 (a);
         INSERT INTO t_new SELECT * FROM t;
         ALTER TABLE t RENAME TO t_old; ALTER TABLE t_new RENAME TO t",
        r#"{"max_dead_letters": 10}"#,
    );
    migration.wait_for("dead_letters", "2");
    assert_eq!(
        session.lines("SELECT key, sqlstate FROM transmute.dead_letters ORDER BY key"),
        ["(id)=(1007)|23505", "(id)=(7)|23505"]
    );
    session.exec("UPDATE t SET a = id WHERE id IN (7, 1007)");
    migration.finish();
    assert_eq!(
        session.lines("SELECT count(*), count(DISTINCT a), (SELECT count(*) FROM t_1) FROM t"),
        ["3000|2999|1999"]
    );
}

#[test]
fn the_table_is_read_part_by_part_whatever_looks_cheaper() {
    const ROWS: i64 = 120_000;
    let database = Database::shared();
    let mut session = database.connect();
    // A plan with workers can only read all of a table: cheap as it is made here, it must not be made of each part.
    for setting in [
        "min_parallel_table_scan_size",
        "parallel_setup_cost",
        "parallel_tuple_cost",
    ] {
        session.exec(&format!(
            "ALTER DATABASE {} SET {setting} = 0",
            database.name()
        ));
    }
    session.exec(&format!(
        "CREATE TABLE t (id int PRIMARY KEY, note text) WITH (autovacuum_enabled = off);
         INSERT INTO t SELECT g, repeat('x', 120) FROM generate_series(1, {ROWS}) g; ANALYZE t"
    ));
    let blocks: i64 = session.scalar("SELECT pg_relation_size('t') / 8192");
    assert!(blocks > 2000, "{blocks}");
    let mut migration = Migration::start(
        &database,
        "m",
        "CREATE TABLE t_new (LIKE t INCLUDING ALL) PARTITION BY HASH (id);
         CREATE TABLE t_0 PARTITION OF t_new FOR VALUES WITH (MODULUS 2, REMAINDER 0);
         CREATE TABLE t_1 PARTITION OF t_new FOR VALUES WITH (MODULUS 2, REMAINDER 1);
         INSERT INTO t_new SELECT * FROM t;
         ALTER TABLE t RENAME TO t_old; ALTER TABLE t_new RENAME TO t",
        "{}",
    );
    migration.finish();
    // What a process has read is counted for all to see when it ends.
    session.wait_for(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND backend_type ~ '^transmute'",
        "0",
        PATIENCE,
    );
    let read: i64 =
        session.scalar("SELECT seq_tup_read FROM pg_stat_user_tables WHERE relname = 't_old'");
    // Loaded, analyzed, copied, compared, counted.
    assert!((2 * ROWS..6 * ROWS).contains(&read), "{read}");
}
