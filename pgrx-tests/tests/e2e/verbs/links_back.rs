//! The way back of what scripts as written attach, detach and inherit: what has come with it goes, what was there stays.

use transmute_tests::{Database, Session};

use super::history::dump;
use super::{back_and_forth, direct, settle};

fn people(database: &Database<'_>) -> Session {
    let mut session = database.connect();
    session.exec(
        "CREATE TABLE kinds (id int PRIMARY KEY); INSERT INTO kinds VALUES (1), (2);
         CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END; $$;
         CREATE TABLE p (id int NOT NULL, k int NOT NULL, v text DEFAULT 'p', r int REFERENCES kinds, CONSTRAINT positive CHECK (id > 0), PRIMARY KEY (id, k)) PARTITION BY RANGE (k);
         CREATE INDEX p_v ON p (v); CREATE UNIQUE INDEX p_once ON p (k, v); CREATE TRIGGER touch BEFORE UPDATE ON p FOR EACH ROW EXECUTE FUNCTION touch();
         CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10); CREATE TABLE \"The rest\" PARTITION OF p DEFAULT;
         ALTER INDEX p1_v_idx RENAME TO \"named otherwise\"; ALTER TABLE p1 ADD CONSTRAINT own CHECK (v <> 'x'), ALTER v SET DEFAULT 'p1'; CREATE INDEX own_one ON p1 (r);
         CREATE TABLE seen (id int, k int, FOREIGN KEY (id, k) REFERENCES p);
         CREATE TABLE plain (v text, id int NOT NULL, r int, k int NOT NULL, CONSTRAINT positive CHECK (id > 0)); CREATE INDEX plain_r ON plain (r);
         CREATE TABLE ready (LIKE plain INCLUDING ALL, CONSTRAINT ready_key PRIMARY KEY (id, k), CONSTRAINT ready_kind FOREIGN KEY (r) REFERENCES kinds);
         CREATE INDEX ready_v ON ready (v); CREATE TRIGGER mine AFTER INSERT ON ready FOR EACH ROW EXECUTE FUNCTION touch();
         CREATE TABLE tree (LIKE plain INCLUDING ALL) PARTITION BY LIST (k); CREATE TABLE tree_1 PARTITION OF tree FOR VALUES IN (21); CREATE TABLE tree_2 PARTITION OF tree DEFAULT;
         CREATE TABLE mother (id int, CHECK (id > 0)); CREATE TABLE other (n int); CREATE TYPE shape AS (id int, n int);
         CREATE TABLE child (id int CHECK (id > 0), n int); ALTER TABLE child RENAME CONSTRAINT child_id_check TO mother_id_check;
         CREATE TABLE heir () INHERITS (mother); CREATE TABLE adopted (id int, n int); ALTER TABLE adopted INHERIT other;
         CREATE TABLE typed OF shape",
    );
    for table in ["p1", "ready"] {
        session.exec(&format!(
            "INSERT INTO {table} (id, k, v, r) SELECT i, 5 + i, 'v' || i, 1 FROM generate_series(1, 4) i"
        ));
    }
    session
}

#[test]
fn what_was_attached_detached_or_inherited_is_taken_back_to_the_letter() {
    let database = Database::shared();
    let mut session = people(&database);
    session.exec("UPDATE ready SET k = k + 100");
    let before = dump(&database);
    let rows = "SELECT (SELECT sum(id) FROM p1), (SELECT sum(id) FROM ready)";
    for (i, script) in [
        "ALTER TABLE p ATTACH PARTITION plain FOR VALUES FROM (10) TO (20)",
        "ALTER TABLE p ATTACH PARTITION ready FOR VALUES FROM (100) TO (200)",
        "ALTER TABLE p ATTACH PARTITION tree FOR VALUES FROM (20) TO (30)",
        "ALTER TABLE p DETACH PARTITION p1",
        "ALTER TABLE p DETACH PARTITION \"The rest\"",
        "ALTER TABLE p DETACH PARTITION p1; ALTER TABLE p ATTACH PARTITION p1 FOR VALUES FROM (-5) TO (12)",
        "ALTER TABLE plain RENAME TO strange; CREATE SCHEMA away; ALTER TABLE strange SET SCHEMA away; ALTER TABLE p ATTACH PARTITION away.strange FOR VALUES FROM (10) TO (20)",
        "CREATE TABLE top (LIKE p1) PARTITION BY RANGE (k); CREATE INDEX ON top (id); ALTER TABLE p DETACH PARTITION p1;
         ALTER TABLE top ATTACH PARTITION p1 FOR VALUES FROM (0) TO (10)",
        "ALTER TABLE child INHERIT mother; ALTER TABLE child INHERIT other",
        "ALTER TABLE adopted NO INHERIT other; ALTER TABLE adopted ADD COLUMN more int",
        "ALTER TABLE adopted OF shape; ALTER TABLE typed NOT OF",
    ]
    .into_iter()
    .enumerate()
    {
        // What inherits cannot have a type.
        if script.contains(" OF shape") {
            session.exec("ALTER TABLE adopted NO INHERIT other");
        }
        let before = match script.contains(" OF shape") {
            true => dump(&database),
            false => before.clone(),
        };
        let id = format!("m{i}");
        direct(&mut session, &id, script);
        session.exec(&format!(
            "SELECT transmute.apply('{id}', allow_out_of_order => true)"
        ));
        settle(&mut session);
        let after = dump(&database);
        assert_ne!(after, before, "{script}");
        back_and_forth(&database, &mut session, &id, &before, &after);
        assert_eq!(session.lines(rows), ["10|10"], "{script}");
    }
    assert_eq!(
        session.lines("SELECT count(*) FROM pg_index WHERE NOT indisvalid"),
        ["0"]
    );
    assert!(session.scalar::<bool>("SELECT ok FROM transmute.audit_verify()"));
}

#[test]
fn what_would_not_be_as_it_was_is_named() {
    let database = Database::shared();
    let mut session = people(&database);
    session.exec("ALTER TABLE p1 DISABLE TRIGGER touch; CREATE INDEX leaf_v ON tree_1 (v)");
    for (i, (script, why)) in [
        (
            "ALTER TABLE p DETACH PARTITION p1",
            "ALTER TABLE of line 1: nothing makes this again: partition of public.p",
        ),
        (
            "SELECT 1;\nALTER TABLE heir NO INHERIT mother",
            "ALTER TABLE of line 2: nothing makes this again: heir of public.mother",
        ),
        (
            "ALTER TABLE p ATTACH PARTITION tree FOR VALUES FROM (20) TO (30)",
            "ALTER TABLE of line 1: nothing makes this again: what partitions of the partition had before",
        ),
        (
            "ALTER TABLE child INHERIT mother, ADD COLUMN more int",
            "ALTER TABLE of line 1: what a table inherits is derived of a statement of its own",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let id = format!("m{i}");
        direct(&mut session, &id, script);
        session.exec(&format!("SELECT transmute.apply('{id}')"));
        settle(&mut session);
        let error = session.error(&format!("SELECT transmute.down('{id}', 'too early')"));
        assert_eq!(error.sqlstate, "55000", "{script}: {error}");
        assert!(
            error.detail.as_deref().unwrap_or_default().contains(why),
            "{script}: {error:?}"
        );
    }
}
