//! Seeds, squash and baseline.

use transmute_tests::Database;

use super::{direct, settle, statuses};

#[test]
fn a_seed_runs_once_and_again_when_its_text_has_changed() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec("CREATE TABLE t (id int PRIMARY KEY, n int)");
    let load = |text: &str| format!("SELECT transmute.seed_load('rows', $x${text}$x$)");
    assert_eq!(
        session.lines(&load("INSERT INTO t VALUES (1, 1)")),
        ["loaded"]
    );
    assert_eq!(
        session.lines(&load("INSERT INTO t VALUES (1, 1)")),
        ["unchanged"]
    );
    session.exec(
        "SELECT transmute.seed_load('more', 'UPDATE t SET n = n + 1; UPDATE t SET n = n + 1')",
    );
    assert_eq!(
        session.lines("SELECT transmute.seed()"),
        ["(rows,run)", "(more,run)"]
    );
    assert_eq!(
        session.lines("SELECT transmute.seed()"),
        ["(rows,unchanged)", "(more,unchanged)"]
    );
    session.exec(&load("INSERT INTO t VALUES (2, 1)"));
    assert_eq!(
        session.lines("SELECT name, status FROM transmute.seeds"),
        ["rows|changed", "more|run"]
    );
    assert_eq!(
        session.lines("SELECT transmute.seed('rows')"),
        ["(rows,run)"]
    );
    assert_eq!(
        session.lines("SELECT id, n FROM t ORDER BY id"),
        ["1|3", "2|1"]
    );
    // All or nothing, and the error says where.
    session.exec(&load(
        "INSERT INTO t VALUES (3, 1);\nINSERT INTO t VALUES (3, 1)",
    ));
    let error = session.error("SELECT transmute.seed()");
    assert_eq!(error.sqlstate, "23505");
    assert!(error.detail.expect("a DETAIL").contains("line 2"));
    assert_eq!(session.lines("SELECT count(*) FROM t"), ["2"]);
    for (call, state) in [
        ("seed_load('', 'SELECT 1')", "22023"),
        ("seed_load('x', '')", "22023"),
        ("seed_load('x', 'SELEC 1')", "42601"),
        ("seed_load('x', 'COMMIT')", "22023"),
        ("seed_load('x', 'VACUUM t')", "0A000"),
        ("seed_load(NULL, 'SELECT 1')", "22023"),
        ("seed('nobody')", "42704"),
    ] {
        let error = session.error(&format!("SELECT transmute.{call}"));
        assert_eq!(error.sqlstate, state, "{call}: {error}");
        assert!(
            state == "42601" || error.detail.is_some() && error.hint.is_some(),
            "{call}: {error}"
        );
    }
    assert_eq!(session.lines("SELECT count(*) FROM transmute.seeds"), ["2"]);
}

#[test]
fn an_error_of_a_seed_says_which_one_and_what_a_seed_can_be() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec("SELECT transmute.seed_load('first', 'SELECT 1'), transmute.seed_load('second', 'INSERT INTO nothing VALUES (1)')");
    let error = session.error("SELECT transmute.seed()");
    assert_eq!(
        (error.sqlstate.as_str(), error.detail.as_deref()),
        (
            "42P01",
            Some(
                "Seed \"second\": In the statement that begins in line 1, column 1 of the script."
            )
        )
    );
    // The one before it is undone with it.
    assert_eq!(
        session.lines("SELECT status FROM transmute.seeds"),
        ["pending", "pending"]
    );
    for (source, hint) in [
        ("VACUUM", "A seed is a part of its caller's transaction: leave it out, or make a migration of it."),
        ("COMMIT", "A seed is a part of its caller's transaction: leave it out, or make a migration of it."),
        ("-- nothing", "Give the statements that fill the tables."),
    ] {
        let error = session.error(&format!("SELECT transmute.seed_load('third', '{source}')"));
        assert_eq!(error.hint.as_deref(), Some(hint), "{error:?}");
        assert!(
            error.detail.as_deref().unwrap_or_default().starts_with("Seed \"third\": "),
            "{error:?}"
        );
    }
}

#[test]
fn migrations_that_differ_in_their_metadata_are_not_squashed_and_the_keys_are_named() {
    let database = Database::shared();
    let mut session = database.connect();
    for (id, meta) in [
        ("a", r#"{"name": "A", "mode": "direct"}"#),
        (
            "b",
            r#"{"mode": "direct", "pre_finalization_soak": "1 h", "owner_team": "us"}"#,
        ),
    ] {
        session.exec(&format!(
            "SELECT transmute.register('{id}', 'CREATE TABLE {id} ()', meta => '{meta}')"
        ));
    }
    let error = session.error("SELECT transmute.squash('x', '{a,b}')");
    assert_eq!(
        (error.sqlstate.as_str(), error.detail.as_deref()),
        ("55000", Some("\"a\" and \"b\" differ in meta.owner_team, meta.pre_finalization_soak; only name, description and depends_on may."))
    );
    assert!(error.hint.is_some());
}

#[test]
fn pending_migrations_become_one_that_does_the_same_and_are_kept() {
    let database = Database::shared();
    let mut session = database.connect();
    direct(&mut session, "a", "CREATE TABLE a (id int) -- the end");
    direct(&mut session, "b", "ALTER TABLE a ADD COLUMN b int;");
    direct(&mut session, "c", "CREATE INDEX a_b ON a (b)");
    direct(&mut session, "d", "CREATE TABLE d (id int)");
    let between = session.error("SELECT transmute.squash('x', ARRAY['a', 'c'])");
    assert!(between.detail.expect("a DETAIL").contains("\"b\""));
    // The order is theirs, not that of the list.
    let id: String = session.scalar("SELECT transmute.squash('first ones', ARRAY['c', 'a', 'b'])");
    assert_eq!(
        session.lines("SELECT name, status FROM transmute.list WHERE status <> 'squashed'"),
        ["first ones|pending", "d|pending"]
    );
    assert_eq!(
        session.lines(
            "SELECT id, squashed_into FROM transmute.list WHERE status = 'squashed' ORDER BY id"
        ),
        [format!("a|{id}"), format!("b|{id}"), format!("c|{id}")]
    );
    let error = session.error("SELECT transmute.apply('b')");
    assert!(error.hint.expect("a HINT").contains(&id));
    session.exec("SELECT transmute.apply()");
    settle(&mut session);
    assert_eq!(
        session.lines("SELECT to_regclass('a_b'), to_regclass('d')"),
        ["a_b|d"]
    );
    for (call, state) in [
        ("squash('', ARRAY['a', 'b'])", "22023"),
        ("squash('x', ARRAY['a'])", "22023"),
        ("squash('x', ARRAY['a', 'a'])", "22023"),
        ("squash('x', ARRAY['a', NULL])", "22023"),
        ("squash('x', ARRAY['a', 'b'])", "55000"),
        ("squash('x', ARRAY['d', 'nobody'])", "55000"),
        ("squash('x', NULL)", "22023"),
    ] {
        let error = session.error(&format!("SELECT transmute.{call}"));
        assert_eq!(error.sqlstate, state, "{call}: {error}");
        assert!(
            error.detail.is_some() && error.hint.is_some(),
            "{call}: {error}"
        );
    }
}

#[test]
fn a_database_that_was_there_before_its_migrations_begins_behind_them() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec("CREATE TABLE a (id int); CREATE TABLE b (id int)");
    for id in ["a", "b", "c"] {
        direct(&mut session, id, &format!("CREATE TABLE {id} (id int)"));
    }
    assert_eq!(
        session.lines("SELECT id, state, action FROM transmute.baseline('b', 'it is there')"),
        ["a|FINISHED|baseline", "b|FINISHED|baseline"]
    );
    assert_eq!(session.scalar::<String>("SELECT transmute.head()"), "b");
    session.exec("SELECT transmute.apply()");
    settle(&mut session);
    assert_eq!(
        statuses(&mut session),
        ["a|baseline", "b|baseline", "c|applied"]
    );
    assert_eq!(
        session
            .error("SELECT transmute.baseline('c', 'x')")
            .sqlstate,
        "55000"
    );
    assert_eq!(
        session.error("SELECT transmute.baseline('c', '')").message,
        "a reason is needed"
    );
    // What never ran has nothing from which a way back could be derived.
    session.exec("SELECT transmute.down('c', 'x')");
    settle(&mut session);
    assert_eq!(
        session.error("SELECT transmute.down()").message,
        "the migration has no way back"
    );
    assert!(session.scalar::<bool>("SELECT ok FROM transmute.audit_verify()"));
}
