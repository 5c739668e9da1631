//! Undo after the end where no table was copied: hidden columns follow the new ones, and names come back.

use transmute_tests::wait::PATIENCE;
use transmute_tests::waitpoint::Waitpoints;
use transmute_tests::{Database, Session};

use crate::dual_write::clients::{create_table, Clients, Shape};
use crate::dual_write::SPLIT;
use crate::migration::{assert_sound, fingerprint, Migration};
use crate::privileges::world;
use crate::surface::{refusal, refused};

const REVERSE: &str = r#""reverse": {"name": "first || ' ' || last"}"#;

fn keep(more: &str) -> String {
    format!(r#"{{"keep_old": "1 hour"{more}}}"#)
}

fn undo(migration: &mut Migration) {
    migration.call("undo", "'the test says so'");
    undone(migration);
}

fn undone(migration: &mut Migration) {
    migration.wait_for("outcome", "UNDONE");
    migration.wait_for("queued", "f");
    assert_eq!(migration.status("undo_until IS NULL"), "true");
    assert_eq!(
        migration
            .session()
            .lines("SELECT ok FROM transmute.audit_verify()"),
        ["t"]
    );
}

/// What the old shape says of a row that the new application has written.
#[track_caller]
fn assert_follows(session: &mut Session, old: &str) {
    assert_eq!(
        session.lines(&format!(
            "SELECT count(*) FROM users WHERE {old} IS DISTINCT FROM first || ' ' || last AND first IS NOT NULL"
        )),
        ["0"]
    );
}

fn hidden(session: &mut Session) -> String {
    session.scalar(
        "SELECT attname::text FROM pg_attribute WHERE attrelid = 'users'::regclass AND attname ~ '^_transmute_[0-9]+_name$'",
    )
}

fn a_split_is_undone_under_load(mechanism: &str) {
    let database = Database::shared();
    let mut session = database.connect();
    create_table(&mut session);
    session.exec("CREATE INDEX users_name ON users (name); CREATE UNIQUE INDEX users_both ON users (id, name)");
    let before = fingerprint(&mut session, "users");
    let old_clients = Clients::start(&database, Shape::Old, 11);
    let meta = keep(&format!(
        r#", "pre_finalization_soak": "1 hour", {mechanism}"#
    ));
    let mut migration = Migration::start(&database, "m", SPLIT, &meta);
    migration.wait("AWAITING_FINALIZATION");
    old_clients.wait_for_more(50);
    old_clients.stop();
    migration.call("skip_soak", "'enough'");
    migration.finish();
    assert_eq!(migration.status("undo_left > '50 minutes'"), "true");
    assert_eq!(
        session.lines("SELECT read_from FROM transmute.routing"),
        ["new"]
    );
    let name = hidden(&mut session);
    let new_clients = Clients::start(&database, Shape::New, 12);
    for _ in 0..3 {
        new_clients.wait_for_more(100);
        assert_follows(&mut session, &name);
    }
    // The old shape comes first, beside the new one; then the new one goes. No statement of either fails meanwhile.
    let mut points = Waitpoints::of(&database);
    points.hold("rule_undo_before_lock");
    migration.call("undo", "'the test says so'");
    points.wait_reached("rule_undo_before_lock", PATIENCE);
    assert_eq!(
        session.lines("SELECT read_from FROM transmute.routing"),
        ["old"]
    );
    let old_clients = Clients::start(&database, Shape::Old, 13);
    for _ in 0..3 {
        new_clients.wait_for_more(50);
        old_clients.wait_for_more(50);
        assert_follows(&mut session, "name");
    }
    new_clients.stop();
    points.release("rule_undo_before_lock");
    undone(&mut migration);
    old_clients.wait_for_more(50);
    old_clients.stop();
    assert_eq!(
        session.lines(
            "SELECT detail::json ->> 'identical' FROM transmute.history WHERE event = 'rule undone'"
        ),
        ["true"]
    );
    assert_eq!(fingerprint(&mut session, "users"), before);
    assert_eq!(
        session.lines(
            "SELECT count(*) FROM transmute.artifacts WHERE dropped_at IS NULL
             UNION ALL SELECT count(*) FROM _transmute.rules"
        ),
        ["0", "0"]
    );
    assert_sound(&mut session, "users");
}

#[test]
fn a_split_by_the_servers_rule_is_undone_with_what_the_new_application_wrote() {
    a_split_is_undone_under_load(&format!(r#""dual_write": "rule", {REVERSE}"#));
}

#[test]
fn a_split_by_the_trigger_is_undone_with_what_the_new_application_wrote() {
    a_split_is_undone_under_load(REVERSE);
}

#[test]
fn names_and_a_column_that_nothing_replaces_come_back_together() {
    let database = Database::shared();
    let mut session = world(&database, &["keeper"]);
    session.exec(
        "CREATE TABLE t (id int PRIMARY KEY, a int, b text, note text DEFAULT 'none');
         CREATE INDEX t_note ON t (note); GRANT SELECT (a, note) ON t TO PUBLIC; COMMENT ON COLUMN t.note IS 'said';
         CREATE TABLE u (id int PRIMARY KEY, x int);
         INSERT INTO t SELECT i, i, i::text, 'n' || i FROM generate_series(1, 100) AS i",
    );
    create_table(&mut session);
    // Whoever owns the tables needs no more than that.
    session.exec("ALTER TABLE t OWNER TO keeper; ALTER TABLE u OWNER TO keeper; ALTER TABLE users OWNER TO keeper");
    let shapes = |session: &mut Session| ["t", "u", "users"].map(|t| fingerprint(session, t));
    let before = shapes(&mut session);
    for two_columns in [false, true] {
        let (id, meta, rename) = match two_columns {
            false => (
                "m",
                keep(""),
                "ALTER TABLE t RENAME COLUMN a TO amount; ALTER TABLE t RENAME COLUMN b TO label;",
            ),
            true => (
                "n",
                keep(r#", "dual_write": "trigger""#),
                "ALTER TABLE t RENAME COLUMN a TO amount;",
            ),
        };
        let mut migration = Migration::start(
            &database,
            id,
            &format!(
                "{rename} ALTER TABLE u RENAME TO v; CREATE INDEX users_n ON users (n); ALTER TABLE users DROP COLUMN updates"
            ),
            &meta,
        );
        session.exec("ALTER TABLE users DISABLE TRIGGER zz_noted");
        migration.finish();
        session.exec("INSERT INTO t (id, amount) VALUES (1000, 7); INSERT INTO v VALUES (1, 2); INSERT INTO users (id, name) VALUES (1000000, 'a b')");
        undo(&mut migration);
        session.exec("ALTER TABLE users ENABLE TRIGGER zz_noted");
        assert_eq!(shapes(&mut session), before);
        assert_eq!(
            session.lines("SELECT a, note FROM t WHERE id IN (5, 1000) UNION ALL SELECT x, '' FROM u UNION ALL SELECT updates, name FROM users WHERE id = 1000000"),
            ["5|n5", "7|none", "2|", "0|a b"]
        );
        session.exec(
            "DELETE FROM t WHERE id = 1000; DELETE FROM u; DELETE FROM users WHERE id = 1000000",
        );
        assert_sound(&mut session, "t");
    }
}

/// A partitioned table, one of whose partitions has its columns in another order, and indexes of its own.
fn partitioned(database: &Database<'_>) -> Session {
    let mut session = database.connect();
    session.exec(
        "CREATE TABLE t (id int PRIMARY KEY, a int, note text DEFAULT 'none' CONSTRAINT filled CHECK (note <> ''), plain text, given int) PARTITION BY RANGE (id);
         CREATE INDEX t_plain ON t (plain); COMMENT ON COLUMN t.plain IS 'said';
         CREATE TABLE t_low PARTITION OF t FOR VALUES FROM (MINVALUE) TO (500);
         CREATE TABLE t_high (given int, note text DEFAULT 'none' CONSTRAINT filled CHECK (note <> ''), hole int, plain text, a int, id int NOT NULL);
         ALTER TABLE t_high DROP COLUMN hole;
         ALTER TABLE t ATTACH PARTITION t_high FOR VALUES FROM (500) TO (MAXVALUE);
         CREATE INDEX t_high_own ON t_high (plain, a) WHERE a > 5;
         ALTER TABLE t_high ALTER given SET NOT NULL;
         INSERT INTO t SELECT i, i, 'n' || i, 'p' || i, i FROM generate_series(1, 1000) AS i",
    );
    session
}

#[test]
fn names_and_columns_of_a_partitioned_table_come_back_or_are_let_go_in_all_partitions() {
    let database = Database::shared();
    let mut session = partitioned(&database);
    let tables = ["t", "t_low", "t_high"];
    let shapes = |session: &mut Session| tables.map(|t| fingerprint(session, t));
    let before = shapes(&mut session);
    let script = "ALTER TABLE t RENAME COLUMN a TO amount; ALTER TABLE t DROP COLUMN plain";
    for (column, detail) in [
        ("note", "binds it"),
        ("given", "Column given of public.t_high: it is NOT NULL"),
    ] {
        let error = refusal(
            &mut session,
            &format!(
                "SELECT transmute.register('x', 'ALTER TABLE t DROP COLUMN {column}', meta => '{}')",
                keep("")
            ),
        );
        assert_eq!(
            error.message,
            "a dropped column could not come back after the end"
        );
        assert!(
            error.detail.clone().unwrap_or_default().contains(detail),
            "{error}"
        );
    }
    let mut migration = Migration::start(&database, "m", script, &keep(""));
    migration.finish();
    let columns = "SELECT DISTINCT string_agg(attname, ',' ORDER BY attname) FROM pg_attribute
        WHERE attrelid IN ('t'::regclass, 't_low'::regclass, 't_high'::regclass) AND attnum > 0 AND NOT attisdropped AND attname !~ '^_transmute'
        GROUP BY attrelid";
    assert_eq!(session.lines(columns), ["amount,given,id,note"]);
    session.exec("INSERT INTO t (id, amount, given) VALUES (-1, 7, 1), (5000, 8, 1); UPDATE t SET id = 6000 WHERE id = 5");
    undo(&mut migration);
    assert_eq!(shapes(&mut session), before);
    assert_eq!(
        session.lines("SELECT id, a, plain FROM t WHERE id IN (-1, 5000, 6000) ORDER BY id"),
        ["-1|7|∅", "5000|8|∅", "6000|5|p5"]
    );
    for table in &tables[1..] {
        assert_sound(&mut session, table);
    }
    // The same again, let go: nothing of the column is left in any partition.
    let mut migration = Migration::start(&database, "again", script, &keep(""));
    migration.finish();
    migration.call("release_old", "'enough'");
    session.wait_for(
        "SELECT count(*) FROM pg_attribute WHERE attrelid IN ('t'::regclass, 't_low'::regclass, 't_high'::regclass) AND attname ~ '^_transmute'",
        "0",
        PATIENCE,
    );
    assert_eq!(
        session.lines("SELECT to_regclass('t_high_own') IS NULL, to_regclass('t_plain') IS NULL"),
        ["t|t"]
    );
    assert_eq!(session.lines(columns), ["amount,given,id,note"]);
    for table in &tables[1..] {
        assert_sound(&mut session, table);
    }
}

#[test]
fn what_does_not_convert_back_holds_it_up_and_what_is_released_binds_nobody() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec(
        "CREATE TABLE t (id int PRIMARY KEY, cents int NOT NULL UNIQUE CHECK (cents >= 0)); INSERT INTO t SELECT i, i * 100 FROM generate_series(1, 50) AS i",
    );
    let before = fingerprint(&mut session, "t");
    let script = "ALTER TABLE t ADD COLUMN euros numeric; UPDATE t SET euros = cents::numeric / 100; ALTER TABLE t DROP COLUMN cents";
    let reverse = r#", "reverse": {"cents": "(euros * 100)::int"}"#;
    let aside = format!(r#"{reverse}, "on_write_error": "dead_letter""#);
    let mut migration = Migration::start(&database, "m", script, &keep(&aside));
    migration.finish();
    // The old shape's limits hold as long as it is kept, as they do while both are written.
    assert_eq!(
        session
            .error("UPDATE t SET euros = -1 WHERE id = 1")
            .sqlstate,
        "23514"
    );
    session.exec(
        "INSERT INTO t (id, euros) VALUES (51, 51.5); UPDATE t SET euros = 1e12 WHERE id = 2",
    );
    assert_eq!(
        refused(&mut session, "SELECT transmute.undo('m', 'now')"),
        "55000: rows were written that do not convert back"
    );
    assert_eq!(
        session.lines("SELECT key, sqlstate FROM transmute.dead_letters WHERE status = 'open'"),
        ["(id)=(2)|22003"]
    );
    assert_eq!(
        refused(
            &mut session,
            "SELECT transmute.register('other', 'ALTER TABLE t ALTER COLUMN euros TYPE numeric(20, 2)')"
        ),
        "55006: another migration is rewriting the table: it keeps the old rows current"
    );
    session.exec("UPDATE t SET euros = 2.5 WHERE id = 2");
    session.wait_for(
        "SELECT count(*) FROM transmute.dead_letters WHERE status = 'open'",
        "0",
        PATIENCE,
    );
    undo(&mut migration);
    assert_eq!(fingerprint(&mut session, "t"), before);
    assert_eq!(
        session.lines("SELECT * FROM t WHERE id IN (1, 2, 51) ORDER BY id"),
        ["1|100", "2|250", "51|5150"]
    );

    // The same again, let go: no trigger, no limit of the old shape, and the column is purged.
    let mut migration = Migration::start(&database, "again", script, &keep(reverse));
    migration.finish();
    assert_eq!(
        session
            .error("UPDATE t SET euros = 1e12 WHERE id = 2")
            .sqlstate,
        "22003"
    );
    migration.call("release_old", "'enough'");
    migration.wait_for("queued", "f");
    assert_eq!(migration.refused("undo", "'too late'").sqlstate, "55000");
    session.exec(
        "UPDATE t SET euros = 1e12 WHERE id IN (2, 3); UPDATE t SET euros = -1 WHERE id IN (4, 5)",
    );
    session.wait_for(
        "SELECT count(*) FROM pg_attribute WHERE attrelid = 't'::regclass AND attname ~ '^_transmute'",
        "0",
        PATIENCE,
    );
    assert_eq!(
        session.lines(
            "SELECT event FROM transmute.history WHERE id = 'again' AND event ~ 'old|artifact'"
        ),
        [
            "old rows released",
            "old columns let go",
            "artifact dropped"
        ]
    );
    assert_sound(&mut session, "t");
}

#[test]
fn columns_that_could_not_come_back_are_refused_at_register() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec(
        "CREATE TABLE t (id int PRIMARY KEY, a text NOT NULL, b text, c text UNIQUE, d int NOT NULL DEFAULT 1)",
    );
    let new = "ALTER TABLE t ADD COLUMN n text; UPDATE t SET n = upper(a)";
    for (up, more, expected) in [
        (
            format!("{new}; ALTER TABLE t DROP COLUMN a"),
            "",
            "0A000: old columns cannot be kept current after the end",
        ),
        (
            new.to_string(),
            r#", "reverse": {"a": "lower(n)"}"#,
            "0A000: old columns cannot be kept current after the end",
        ),
        (
            format!("{new}; ALTER TABLE t DROP COLUMN a, DROP COLUMN b"),
            r#", "reverse": {"a": "coalesce(b, n)"}"#,
            "0A000: old columns cannot be kept current after the end",
        ),
        (
            "ALTER TABLE t DROP COLUMN a".into(),
            "",
            "0A000: a dropped column could not come back after the end",
        ),
        (
            "ALTER TABLE t DROP COLUMN c".into(),
            "",
            "0A000: a dropped column could not come back after the end",
        ),
        (
            "ALTER TABLE t RENAME COLUMN b TO bb".into(),
            r#", "rename": "in_place""#,
            "0A000: nothing is kept: the script copies no table, and takes no column or name away",
        ),
        (
            "ALTER TABLE t DROP COLUMN b".into(),
            r#", "drop_policy": "drop""#,
            "0A000: a statement cannot be undone after the end",
        ),
        (
            "DROP TABLE t".into(),
            "",
            "0A000: a table that is dropped has no undo: nothing is in its place that writes could be followed from",
        ),
    ] {
        let sql = format!(
            "SELECT transmute.register('new', $up${up}$up$, meta => $meta${}$meta$)",
            keep(more)
        );
        assert_eq!(refused(&mut session, &sql), expected, "{up} {more}");
    }
    session.exec(&format!(
        "SELECT transmute.register('new', 'ALTER TABLE t DROP COLUMN d, DROP COLUMN b', meta => '{}')",
        keep("")
    ));
}
