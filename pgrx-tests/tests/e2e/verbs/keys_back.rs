//! The way back of keys of partitioned tables that were dropped: built on each partition beside the application, then taken over.

use transmute_tests::wait::PATIENCE;
use transmute_tests::{Database, Session};

use super::history::dump;
use super::{settle, settle_well};

fn tree(database: &Database<'_>) -> Session {
    let mut session = database.connect();
    session.exec(
        "CREATE SCHEMA \"Odd one\"; CREATE TABLE p (id int, k int, v text, w int, CONSTRAINT p_key PRIMARY KEY (id, k), CONSTRAINT p_once UNIQUE (v, k) DEFERRABLE INITIALLY DEFERRED)
           PARTITION BY RANGE (k);
         CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10);
         CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20) PARTITION BY RANGE (k);
         CREATE TABLE \"Odd one\".\"a Leaf\" PARTITION OF p2 FOR VALUES FROM (10) TO (20);
         ALTER INDEX p1_pkey RENAME TO \"named otherwise\"; ALTER INDEX p2_v_k_key RENAME TO between_them; COMMENT ON INDEX p1_v_k_key IS 'of one partition';
         COMMENT ON CONSTRAINT p_once ON p IS 'it''s a key'; ALTER TABLE p1 CLUSTER ON \"named otherwise\";
         INSERT INTO p SELECT i, i % 20, 'v' || i, i FROM generate_series(1, 200) i",
    );
    session
}

fn migrate(session: &mut Session, id: &str, up: &str, meta: &str) {
    session.query(
        "SELECT transmute.migrate($1, $2, $3::text::jsonb)",
        &[&up, &id, &meta],
    );
    settle(session);
    session.notices();
}

#[test]
fn a_dropped_key_of_a_partitioned_table_comes_back_on_each_partition_under_its_names() {
    let database = Database::shared();
    let mut session = tree(&database);
    let before = dump(&database);
    for (i, (up, mode)) in [
        ("ALTER TABLE p DROP CONSTRAINT p_key", "online"),
        (
            "ALTER TABLE p DROP CONSTRAINT p_once, DROP CONSTRAINT p_key",
            "online",
        ),
        (
            "ALTER TABLE p DROP CONSTRAINT p_once; ALTER TABLE p ALTER COLUMN w SET DEFAULT 5",
            "direct",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let id = format!("m{i}");
        migrate(&mut session, &id, up, &format!("{{\"mode\": \"{mode}\"}}"));
        assert_ne!(dump(&database), before, "{up}");
        session.exec("INSERT INTO p VALUES (1000, 3, 'since'), (1001, 13, 'since')");
        session.exec(&format!("SELECT transmute.down('{id}', 'it is needed')"));
        settle_well(&mut session, up);
        assert_eq!(dump(&database), before, "{up}");
        assert_eq!(
            session.lines(&format!("SELECT kind FROM transmute.steps WHERE id = '{id}:down' AND kind LIKE 'leaf%' GROUP BY 1 ORDER BY 1")),
            ["leaf_attach", "leaf_indexes"]
        );
        assert_eq!(
            session.lines("SELECT count(*) FROM pg_index WHERE NOT indisvalid"),
            ["0"]
        );
        session.exec("DELETE FROM p WHERE id >= 1000");
    }
}

#[test]
fn a_dropped_key_of_a_partitioned_table_comes_back_with_its_storage_parameters() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec(
        "CREATE TABLE p (id int, k int, \" DEFERRABLE\" int NOT NULL, CONSTRAINT p_key PRIMARY KEY (id, k) WITH (fillfactor = 70, deduplicate_items = off),
           CONSTRAINT p_once UNIQUE (k, \" DEFERRABLE\") WITH (fillfactor = 80) DEFERRABLE INITIALLY DEFERRED, CONSTRAINT p_late UNIQUE (id, k) DEFERRABLE) PARTITION BY RANGE (k);
         CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10);
         CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20) PARTITION BY RANGE (k);
         CREATE TABLE p21 PARTITION OF p2 FOR VALUES FROM (10) TO (20);
         ALTER INDEX p1_pkey SET (fillfactor = 55); ALTER INDEX p1_pkey RESET (deduplicate_items); ALTER INDEX p21_id_k_key SET (fillfactor = 66);
         INSERT INTO p SELECT i, i % 20, i FROM generate_series(1, 200) i",
    );
    let before = dump(&database);
    let options = "SELECT relname, reloptions FROM pg_class WHERE relkind IN ('i', 'I') AND relname LIKE 'p%' AND relnamespace = 'public'::regnamespace ORDER BY 1";
    let had = session.lines(options);
    assert!(
        had.iter()
            .filter(|line| line.contains("fillfactor"))
            .count()
            > 6,
        "{had:?}"
    );
    for (i, (up, mode)) in [
        ("ALTER TABLE p DROP CONSTRAINT p_key", "online"),
        (
            "ALTER TABLE p DROP CONSTRAINT p_once; ALTER TABLE p DROP CONSTRAINT p_late",
            "online",
        ),
        (
            "ALTER TABLE p DROP CONSTRAINT p_key, DROP CONSTRAINT p_once, DROP CONSTRAINT p_late",
            "direct",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let id = format!("m{i}");
        migrate(&mut session, &id, up, &format!("{{\"mode\": \"{mode}\"}}"));
        assert_ne!(dump(&database), before, "{up}");
        session.exec(&format!("SELECT transmute.down('{id}', 'it is needed')"));
        settle_well(&mut session, up);
        assert_eq!(session.lines(options), had, "{up}");
        assert_eq!(dump(&database), before, "{up}");
    }
}

#[test]
fn partitions_that_came_since_get_the_key_and_rows_that_it_refuses_ask_a_person() {
    let database = Database::shared();
    let mut session = tree(&database);
    migrate(
        &mut session,
        "m",
        "ALTER TABLE p DROP CONSTRAINT p_key",
        "{}",
    );
    session.exec(
        "CREATE TABLE p3 PARTITION OF p FOR VALUES FROM (20) TO (30); INSERT INTO p VALUES (1, 25, 'one'), (1, 25, 'two')",
    );
    session.exec("SELECT transmute.down('m', 'it is needed')");
    session.wait_for(
        "SELECT last_error_sqlstate FROM transmute.status WHERE id = 'm:down'",
        "23505",
        PATIENCE,
    );
    session.exec(
        "DELETE FROM p WHERE v = 'two'; SELECT transmute.resume('m:down', 'one of them went')",
    );
    settle(&mut session);
    assert_eq!(
        session.lines("SELECT conrelid::regclass, conname FROM pg_constraint WHERE contype = 'p' AND conrelid IN (SELECT relid FROM pg_partition_tree('p')) ORDER BY 1"),
        ["p|p_key", "p1|named otherwise", "p2|p2_pkey", "\"Odd one\".\"a Leaf\"|a Leaf_pkey", "p3|p3_pkey"]
    );
    assert!(session.scalar::<bool>("SELECT ok FROM transmute.audit_verify()"));
}

#[test]
fn a_key_that_would_not_be_what_it_was_is_refused_by_name() {
    let database = Database::shared();
    let mut session = tree(&database);
    // The name that the server would choose is somebody else's.
    session.exec("CREATE TABLE p1_pkey ()");
    migrate(
        &mut session,
        "m",
        "ALTER TABLE p DROP CONSTRAINT p_key",
        "{}",
    );
    let error = session.error("SELECT transmute.down('m', 'it is needed')");
    assert_eq!(
        (error.sqlstate.as_str(), error.detail.as_deref()),
        (
            "55000",
            Some("Migration \"m\": step 1: ALTER TABLE p DROP CONSTRAINT p_key.")
        )
    );
}

#[test]
fn a_dropped_foreign_key_of_a_partitioned_table_comes_back_proved() {
    let database = Database::shared();
    let mut session = tree(&database);
    session.exec(
        "CREATE TABLE kinds (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE kinds_1 PARTITION OF kinds FOR VALUES FROM (0) TO (1000);
         INSERT INTO kinds SELECT generate_series(1, 200); ALTER TABLE p ADD CONSTRAINT p_kind FOREIGN KEY (w) REFERENCES kinds ON DELETE CASCADE;
         COMMENT ON CONSTRAINT p_kind ON p IS 'which kind'",
    );
    let before = dump(&database);
    migrate(
        &mut session,
        "m",
        "ALTER TABLE p DROP CONSTRAINT p_kind; ALTER TABLE p ADD COLUMN later int",
        "{}",
    );
    assert_ne!(dump(&database), before);
    // Whatever breaks it waits for a person.
    session.exec(
        "INSERT INTO p VALUES (2000, 3, 'x', 5000); SELECT transmute.down('m', 'it is needed')",
    );
    session.wait_for(
        "SELECT last_error_sqlstate FROM transmute.status WHERE id = 'm:down'",
        "23503",
        PATIENCE,
    );
    session.exec("DELETE FROM p WHERE id = 2000; SELECT transmute.resume('m:down', 'it went')");
    settle(&mut session);
    assert_eq!(dump(&database), before);
    assert_eq!(
        session
            .lines("SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND NOT convalidated"),
        ["0"]
    );
}
