//! The order of calls, what is refused, and what only reads.

use transmute_tests::Database;

use super::{direct, settle, statuses};

#[test]
fn out_of_order_stops_unless_it_is_allowed() {
    let database = Database::shared();
    let mut session = database.connect();
    for id in ["a", "b", "c"] {
        direct(&mut session, id, &format!("CREATE TABLE {id} (id int)"));
    }
    let error = session.error("SELECT transmute.apply('b')");
    assert_eq!(error.sqlstate, "55000");
    let detail = error.detail.expect("a DETAIL");
    assert!(
        detail.starts_with("OUT_OF_ORDER")
            && detail.contains("\"a\", which comes before it, is pending"),
        "{detail}"
    );
    session.exec("SELECT transmute.apply('b', allow_out_of_order => true)");
    settle(&mut session);
    let error = session.error("SELECT transmute.apply()");
    assert!(error
        .detail
        .expect("a DETAIL")
        .contains("\"b\", which comes behind it, was applied already"));
    assert_eq!(
        session.lines("SELECT id, action FROM transmute.up(allow_out_of_order => true)"),
        ["a|queued"]
    );
    session.exec("SELECT transmute.up()");
    settle(&mut session);
    assert_eq!(
        statuses(&mut session),
        ["a|applied", "b|applied", "c|applied"]
    );
    assert_eq!(
        session.lines("SELECT * FROM transmute.up()"),
        Vec::<String>::new()
    );
    assert_eq!(session.notices(), ["NOTICE: nothing is pending"]);
    // The way back is that of how it was, not of how it should have been.
    assert_eq!(
        session.lines("SELECT id FROM transmute.rollback(3, confirm => current_database())"),
        ["c:down", "a:down", "b:down"]
    );
    settle(&mut session);
    assert_eq!(
        statuses(&mut session),
        ["a|taken back", "b|taken back", "c|taken back"]
    );
}

#[test]
fn the_last_one_is_taken_back_whatever_the_others_say_they_depend_on() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec(
        "SELECT transmute.load(E'-- migration: one\\n-- migrate: up\\nCREATE TABLE t (id int PRIMARY KEY);');
         SELECT transmute.load(E'-- migration: two\\n-- depends: one\\n-- migrate: up\\nALTER TABLE t RENAME TO u;');
         SELECT transmute.load(E'-- migration: three\\n-- depends: two\\n-- migrate: up\\nALTER TABLE u ADD COLUMN n int;'); SELECT transmute.apply()",
    );
    settle(&mut session);
    assert_eq!(
        session.lines(
            "SELECT transmute.head(), count(*) FROM transmute.list WHERE status = 'applied'"
        ),
        ["three|3"]
    );
    assert_eq!(
        session.lines("SELECT id FROM transmute.down()"),
        ["three:down"]
    );
    settle(&mut session);
    session.exec("SELECT transmute.apply()");
    settle(&mut session);
    assert_eq!(
        session.lines("SELECT id FROM transmute.rollback(3, confirm => current_database())"),
        ["three:down2", "two:down", "one:down"]
    );
    settle(&mut session);
    assert_eq!(
        session.lines("SELECT id, last_error FROM transmute.status WHERE last_error IS NOT NULL"),
        [""; 0]
    );
    assert_eq!(
        session.lines("SELECT to_regclass('t'), to_regclass('u'), transmute.head()"),
        ["∅|∅|∅"]
    );
}

#[test]
fn the_last_one_is_taken_back_with_a_reason_and_what_has_no_way_back_only_so() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec("CREATE TABLE t (id int)");
    direct(
        &mut session,
        "a",
        "CREATE TABLE a (id int); INSERT INTO t VALUES (1)",
    );
    session.exec("SELECT transmute.apply()");
    settle(&mut session);
    for (call, state, message) in [
        (
            "down()",
            "55000",
            "not all of the migration can be taken back",
        ),
        (
            "down(reason => 'not so')",
            "55000",
            "not all of the migration can be taken back",
        ),
        (
            "down(allow_missing_down => true)",
            "22023",
            "a reason is needed",
        ),
        // A text is an id, and a NULL is a mistake.
        ("down('a')", "22023", "reason is NULL"),
        ("down('a', NULL)", "22023", "reason is NULL"),
        ("down(NULL)", "22023", "id is NULL"),
        ("down(NULL, 'why')", "22023", "id is NULL"),
        ("down(id => NULL, reason => 'why')", "22023", "id is NULL"),
    ] {
        let error = session.error(&format!("SELECT transmute.{call}"));
        assert_eq!(
            (error.sqlstate.as_str(), error.message.as_str()),
            (state, message),
            "{call}"
        );
    }
    session.exec("SELECT transmute.down(allow_missing_down => true, reason => 'the row may stay')");
    settle(&mut session);
    assert_eq!(
        session.lines("SELECT to_regclass('a'), count(*) FROM t"),
        ["∅|1"]
    );
    assert_eq!(
        session.lines("SELECT reason FROM transmute.history() WHERE event = 'taken back'"),
        ["the row may stay"]
    );
}

#[test]
fn a_script_that_fails_leaves_nothing_says_where_and_holds_back_the_others() {
    let database = Database::shared();
    let mut session = database.connect();
    direct(
        &mut session,
        "a",
        "CREATE TABLE a (id int);\nINSERT INTO a VALUES (1);\n\n  SELECT 1 / (SELECT 0)",
    );
    direct(&mut session, "b", "CREATE TABLE b (id int)");
    assert_eq!(
        session.lines("SELECT id, action, detail LIKE '%division by zero%line 4, column%' FROM transmute.apply(dry_run => true)"),
        ["a|would fail|t", "b|would run|f"]
    );
    session.exec("SELECT transmute.apply()");
    session.wait_for(
        "SELECT status FROM transmute.list WHERE id = 'a'",
        "failed",
        transmute_tests::wait::PATIENCE,
    );
    assert_eq!(
        session.lines("SELECT to_regclass('a'), to_regclass('b')"),
        ["∅|∅"]
    );
    assert_eq!(statuses(&mut session), ["a|failed", "b|queued"]);
    session.exec("SELECT transmute.rollback('a', 'mend it')");
    settle(&mut session);
    assert_eq!(statuses(&mut session), ["a|pending", "b|pending"]);
    session.exec("SELECT transmute.amend('a', 'CREATE TABLE a (id int)', 'without the slip')");
    session.exec("SELECT transmute.apply()");
    settle(&mut session);
    assert_eq!(statuses(&mut session), ["a|applied", "b|applied"]);
}

#[test]
fn what_was_taken_back_and_is_applied_once_more_is_listed_as_far_as_it_is() {
    let database = Database::shared();
    let mut session = database.connect();
    direct(&mut session, "a", "CREATE TABLE a (id int)");
    let listed = |session: &mut transmute_tests::Session| {
        session.lines("SELECT status, run, applied_at IS NOT NULL FROM transmute.list")
    };
    for call in ["apply()", "down()"] {
        session.exec(&format!("SELECT transmute.{call}"));
        settle(&mut session);
    }
    assert_eq!(listed(&mut session), ["taken back|a|f"]);
    // Something is in its way.
    session.exec("CREATE TABLE a (id int); SELECT transmute.apply()");
    session.wait_for(
        "SELECT status FROM transmute.list",
        "failed",
        transmute_tests::wait::PATIENCE,
    );
    assert_eq!(listed(&mut session), ["failed|a:up2|f"]);
    session.exec("DROP TABLE a; SELECT transmute.resume('a:up2', 'it is gone')");
    settle(&mut session);
    assert_eq!(listed(&mut session), ["applied|a:up2|t"]);
    session.exec("SELECT transmute.down()");
    settle(&mut session);
    assert_eq!(listed(&mut session), ["taken back|a:up2|f"]);
}

#[test]
fn what_only_reads_does_so_in_a_read_only_transaction_of_a_role_that_may_only_look() {
    let database = Database::shared();
    let mut session = database.connect();
    direct(&mut session, "a", "CREATE TABLE a (id int)");
    session.exec("SELECT transmute.apply()");
    settle(&mut session);
    let role = format!("{}_reader", database.name());
    session.exec(&format!("CREATE ROLE {role} LOGIN IN ROLE pg_monitor"));
    let before = session.lines("SELECT transmute.audit_head()");
    let mut reader = database.connect_as(&role);
    reader.exec("SET default_transaction_read_only = on");
    assert_eq!(
        reader.lines("SELECT id, state FROM transmute.status"),
        ["a|FINISHED"]
    );
    assert_eq!(
        reader.lines("SELECT id, status FROM transmute.list"),
        ["a|applied"]
    );
    assert_eq!(reader.lines("SELECT transmute.head()"), ["a"]);
    assert_eq!(
        reader.lines("SELECT id, event FROM transmute.history()"),
        ["a|registered", "a|applied", "a|finished"]
    );
    assert_eq!(
        reader.lines("SELECT count(*) FROM transmute.history('infinity', true)"),
        ["0"]
    );
    assert_eq!(
        reader.lines("SELECT count(*) > 3 FROM transmute.history(verbose => true)"),
        ["t"]
    );
    assert_eq!(
        reader.lines("SELECT id, result FROM transmute.verify_checksums('{\"a\": \"CREATE TABLE a (id int)\"}')"),
        ["a|ok"]
    );
    assert_eq!(
        reader.lines("SELECT id, result FROM transmute.verify_checksums('{\"a\": \"CREATE TABLE a (id int) \", \"z\": \"\"}')"),
        ["a|changed", "z|extra"]
    );
    assert_eq!(
        reader.lines("SELECT id, result FROM transmute.verify_checksums('{}')"),
        ["a|missing"]
    );
    for (call, message) in [
        ("verify_checksums('[]')", "sources is not an object"),
        ("verify_checksums(NULL)", "sources is NULL"),
        ("verify_checksums('{\"a\": 1}')", "a source is not a text"),
    ] {
        let error = reader.error(&format!("SELECT transmute.{call}"));
        assert_eq!(
            (error.sqlstate.as_str(), error.message.as_str()),
            ("22023", message)
        );
        assert!(error.detail.is_some() && error.hint.is_some());
    }
    assert_eq!(session.lines("SELECT transmute.audit_head()"), before);
    drop(reader);
    session.exec(&format!("DROP ROLE {role}"));
}

#[test]
fn a_bad_argument_is_refused_before_anything_is_written() {
    let database = Database::shared();
    let mut session = database.connect();
    direct(&mut session, "a", "CREATE TABLE a (id int)");
    let before = session.lines("SELECT transmute.audit_head()");
    for (call, state) in [
        ("create(NULL)", "22023"),
        ("create('  ')", "22023"),
        ("create(E'two\\nlines')", "22023"),
        ("apply(max_risk => 101)", "22023"),
        ("apply(allow_out_of_order => NULL)", "22023"),
        ("apply(dry_run => NULL)", "22023"),
        ("up(max_risk => -1)", "22023"),
        ("up(allow_out_of_order => NULL)", "22023"),
        ("down('a', NULL)", "22023"),
        ("down('a', '')", "22023"),
        ("down('a', 'not applied')", "55000"),
        ("down('nobody', 'x')", "42704"),
        ("down(allow_missing_down => NULL)", "22023"),
        ("down(reason => ' ')", "22023"),
        ("rollback(0)", "22023"),
        ("rollback(-1)", "22023"),
        ("rollback(NULL::int)", "22023"),
        ("rollback(1001)", "22023"),
        ("rollback(2)", "22023"),
        ("rollback(1)", "55000"),
        ("rollback(2, confirm => current_database())", "55000"),
        ("rollback(1, ' ')", "22023"),
        ("rollback('a', NULL)", "22023"),
        ("fix(NULL, 'applied', 'x')", "22023"),
        ("fix('a', NULL, 'x')", "22023"),
        ("fix('a', 'applied', NULL)", "22023"),
        ("fix('a', 'Applied', 'x')", "22023"),
        ("fix('a', 'applied', 'x')", "55000"),
        ("baseline(NULL, 'x')", "22023"),
        ("baseline('a', NULL)", "22023"),
        ("baseline('nobody', 'x')", "42704"),
        (
            "register('m', 'SELECT 1', NULL, '{\"mode\": \"straight\"}')",
            "22023",
        ),
        (
            "register('m', 'SELECT 1', NULL, '{\"transaction\": \"many\"}')",
            "22023",
        ),
        (
            "register('m', 'SELECT 1', NULL, '{\"mode\": \"direct\", \"keep_old\": \"1 day\"}')",
            "22023",
        ),
        (
            "register('m', 'SELECT 1', NULL, '{\"mode\": \"direct\", \"drop_policy\": \"drop\"}')",
            "22023",
        ),
    ] {
        let error = session.error(&format!("SELECT transmute.{call}"));
        assert_eq!(error.sqlstate, state, "{call}: {error}");
        assert!(
            error.detail.is_some() && error.hint.is_some(),
            "{call}: {error}"
        );
    }
    assert_eq!(session.lines("SELECT transmute.audit_head()"), before);
    let text: String = session.scalar("SELECT transmute.create('add orders')");
    assert!(
        text.starts_with("-- migration: add orders\n-- id: 0") && text.contains("-- migrate: up\n"),
        "{text}"
    );
    // Ids sort by their time.
    let ids = session.lines("SELECT substring(transmute.create('x') FROM '-- id: (.{26})') COLLATE \"C\" < substring(transmute.create('x') FROM '-- id: (.{26})') COLLATE \"C\" FROM pg_sleep(0.002)");
    assert_eq!(ids.len(), 1);
}
