//! Arguments and metadata.

use transmute_tests::Database;

use super::{refusal, refused, register, tables};
use crate::migration::Migration;

#[test]
fn ids_and_arguments_are_checked() {
    let database = Database::shared();
    let mut session = tables(&database);
    let comment = "'COMMENT ON TABLE t IS NULL'";
    Migration::register(&database, "taken", "COMMENT ON TABLE t IS NULL", "{}");
    for (call, expected) in [
        (
            format!("register('taken', {comment})"),
            "42710: migration is already registered",
        ),
        (
            format!("migrate({comment}, id => 'taken')"),
            "42710: migration is already registered",
        ),
        (format!("register('', {comment})"), "22023: the id is empty"),
        (
            format!("register(E'a\\nb', {comment})"),
            "22023: the id holds a control character",
        ),
        (
            format!("register(E'a\\u0085b', {comment})"),
            "22023: the id holds a control character",
        ),
        (
            format!("register(repeat('x', 1 << 20), {comment})"),
            "22023: the id is too long",
        ),
        (
            format!("register(repeat('é', 128), {comment})"),
            "22023: the id is too long",
        ),
        (format!("register(NULL, {comment})"), "22023: id is NULL"),
        ("register('new', NULL)".into(), "22023: up is NULL"),
        (
            format!("register('new', {comment}, meta => NULL)"),
            "22023: meta is NULL",
        ),
        (
            format!("register('new', {comment}, down => ' -- nothing')"),
            "22023: the way back holds no statement",
        ),
        (
            format!("register('new', {comment}, down => 'COMMIT')"),
            "22023: the script controls transactions itself",
        ),
        ("down('taken', NULL)".into(), "22023: reason is NULL"),
        ("graph(NULL)".into(), "22023: format is NULL"),
        ("graph('svg')".into(), "22023: unknown format"),
        ("dependencies(NULL)".into(), "22023: id is NULL"),
        (
            "dependents('nobody')".into(),
            "42704: migration does not exist",
        ),
        ("export(NULL)".into(), "22023: id is NULL"),
        ("import(NULL)".into(), "22023: document is NULL"),
        (
            "down('taken', 'x', max_risk => 101)".into(),
            "22023: max_risk must be between 0 and 100",
        ),
        ("migrate(NULL)".into(), "22023: ddl is NULL"),
        (
            format!("migrate({comment}, meta => NULL)"),
            "22023: meta is NULL",
        ),
        ("explain(NULL)".into(), "22023: ddl is NULL"),
        ("plan(NULL)".into(), "22023: id is NULL"),
        ("rollback_plan(NULL)".into(), "22023: id is NULL"),
        ("audit_export('xml')".into(), "22023: unknown export format"),
        ("audit_export(NULL)".into(), "22023: unknown export format"),
        (
            "audit_verify(expected_head => 'x')".into(),
            "22023: the expected head is not one",
        ),
        (
            "approve('taken', 'x', ttl => '0')".into(),
            "22023: the time to live of an approval must be positive, and at most 100 years",
        ),
        (
            "approve('taken', 'x', ttl => '-1 day')".into(),
            "22023: the time to live of an approval must be positive, and at most 100 years",
        ),
        (
            "approve('taken', 'x', ttl => NULL)".into(),
            "22023: ttl is NULL",
        ),
    ] {
        assert_eq!(
            refused(&mut session, &format!("SELECT transmute.{call}")),
            expected,
            "{call}"
        );
    }
    let too_far = refusal(
        &mut session,
        "SELECT transmute.approve('taken', 'x', ttl => '300000 years')",
    );
    assert_eq!(too_far.sqlstate, "22023", "{too_far}");
    for verb in [
        "approve",
        "pause",
        "resume",
        "revoke_approval",
        "skip_soak",
        "rollback",
        "acknowledge",
        "down",
        "undo",
        "release_old",
        "tune",
    ] {
        for (arguments, expected) in [
            ("NULL, 'x'", "22023: id is NULL"),
            ("'taken', NULL", "22023: reason is NULL"),
            ("'taken', ''", "22023: a reason is needed"),
            ("'taken', E' \\t'", "22023: a reason is needed"),
            ("'nobody', 'x'", "42704: migration does not exist"),
        ] {
            let sql = format!("SELECT transmute.{verb}({arguments})");
            assert_eq!(refused(&mut session, &sql), expected, "{sql}");
        }
    }
    for call in [
        "SELECT transmute.apply('nobody')",
        "SELECT transmute.plan('nobody')",
        "SELECT transmute.rollback_plan('nobody')",
        "CALL transmute.wait('nobody')",
        "CALL transmute.run('nobody')",
    ] {
        assert_eq!(
            refused(&mut session, call),
            "42704: migration does not exist",
            "{call}"
        );
    }
    for (call, expected) in [
        ("wait(NULL)", "22023: id is NULL"),
        ("wait('taken', NULL)", "22023: unknown state"),
        ("wait('taken', 'finished')", "22023: unknown state"),
        (
            "wait('taken', timeout => NULL)",
            "22023: timeout must be zero or more",
        ),
        (
            "wait('taken', timeout => '-1 s')",
            "22023: timeout must be zero or more",
        ),
        (
            "run('taken', max_steps => 0)",
            "22023: max_steps must be positive",
        ),
    ] {
        assert_eq!(
            refused(&mut session, &format!("CALL transmute.{call}")),
            expected,
            "{call}"
        );
    }
    assert_eq!(
        session.lines("SELECT transmute.state(NULL), transmute.is_finished(NULL), transmute.progress_line('nobody')"),
        ["∅|f|∅"]
    );
    // The edge of what is allowed.
    session.exec(&format!(
        "SELECT transmute.register(repeat('é', 127) || 'x', {comment})"
    ));
    session.exec(&format!("SELECT transmute.register($$it's \"quoted\"; -- $$, {comment}); SELECT transmute.apply($$it's \"quoted\"; -- $$)"));
    session.exec("CALL transmute.wait($$it's \"quoted\"; -- $$)");
}

#[test]
fn metadata_is_checked_with_its_place_and_the_nearest_key() {
    let database = Database::shared();
    let mut session = tables(&database);
    for (meta, detail, hint) in [
        ("[]", "meta: a list", "Give an object"),
        ("\"x\"", "meta: a text", "Give an object"),
        (
            r#"{"requird_approvals": 1}"#,
            "meta.requird_approvals: is not a known key",
            "Perhaps you meant \"required_approvals\".",
        ),
        (
            r#"{"preFinalizationSoak": "1 h"}"#,
            "meta.preFinalizationSoak: is not a known key",
            "Perhaps you meant \"pre_finalization_soak\".",
        ),
        (
            r#"{"invariants": [{"name": "x", "phase": "PRE_RUN", "sqll": "SELECT true"}]}"#,
            "meta.invariants[0].sqll: is not a known key",
            "Perhaps you meant \"sql\".",
        ),
        (
            r#"{"zzz": 1}"#,
            "meta.zzz: is not a known key",
            "Known keys: name, ",
        ),
        (
            r#"{"required_approvals": -1}"#,
            "meta.required_approvals: a number",
            "Give a whole number",
        ),
        (
            r#"{"required_approvals": 1.5}"#,
            "meta.required_approvals: a number with a fraction",
            "Give a whole number",
        ),
        (
            r#"{"required_approvals": "1"}"#,
            "meta.required_approvals: a text",
            "Give a whole number",
        ),
        (
            r#"{"required_approvals": 4000000000}"#,
            "meta.required_approvals: is more than 100.",
            "at most 100",
        ),
        (
            r#"{"source_version": "1.0"}"#,
            "meta.source_version: \"1.0\" is not a semantic version: unexpected end",
            "MAJOR.MINOR.PATCH",
        ),
        (
            r#"{"source_version": "1.1.0", "target_version": "1.1.0"}"#,
            "meta.target_version: 1.1.0 is not higher than meta.source_version",
            "leads to",
        ),
        (
            r#"{"depends_on": ["a", 7]}"#,
            "meta.depends_on[1]: a number",
            "Give a text",
        ),
        (
            r#"{"estimated_duration": "-2 h"}"#,
            "meta.estimated_duration is -2 h.",
            "Give an interval",
        ),
        (
            r#"{"keep_artifacts": 5}"#,
            "meta.keep_artifacts: a number",
            "Give an interval as a text",
        ),
        (
            r#"{"name": " "}"#,
            "meta.name: must not be empty",
            "Leave the key out",
        ),
        (
            r#"{"pre_finalization_soak": "-1 s"}"#,
            "meta.pre_finalization_soak is -1 s.",
            "Give an interval",
        ),
        (
            r#"{"pre_execution_soak": "soon"}"#,
            "meta.pre_execution_soak is \"soon\"",
            "Give an interval",
        ),
        (
            r#"{"keep_artifacts": "-7 days"}"#,
            "meta.keep_artifacts is -7 days.",
            "Give an interval",
        ),
    ] {
        let sql = format!(
            "SELECT transmute.register('new', 'COMMENT ON TABLE t IS NULL', meta => '{meta}')"
        );
        let error = refusal(&mut session, &sql);
        assert_eq!(error.sqlstate, "22023", "{meta}: {error}");
        let (said, hinted) = (
            error.detail.clone().unwrap_or_default(),
            error.hint.clone().unwrap_or_default(),
        );
        assert!(
            said.contains(detail) && hinted.contains(hint),
            "{meta}: {error}"
        );
    }
    // Settings are read when they are needed, and blamed by name.
    session.exec("SET transmute.pre_finalization_soak = 'nonsense'");
    let error = refusal(&mut session, &register("COMMENT ON TABLE t IS NULL"));
    assert!(
        error
            .detail
            .clone()
            .unwrap_or_default()
            .contains("pre_finalization_soak is \"nonsense\""),
        "{error}"
    );
}

#[test]
fn arguments_about_dead_letters_are_checked() {
    let database = Database::shared();
    let mut session = tables(&database);
    session.exec("INSERT INTO t VALUES (2, 2, 'y')");
    let ddl = "ALTER TABLE t ALTER COLUMN b TYPE int USING b::int";
    let mut migration = Migration::start(&database, "m", ddl, r#"{"required_approvals": 1}"#);
    migration.wait_for("dead_letters", "2");
    migration.call("pause", "'so that nothing moves'");
    migration.wait_for("waiting_for", "resume: paused, so that nothing moves");
    Migration::register(&database, "other", "COMMENT ON TABLE t IS NULL", "{}");
    let some = "(SELECT array_agg(dead_letter) FROM transmute.dead_letters)";
    for (call, expected) in [
        ("replay_dead_letters(NULL)".into(), "22023: id is NULL"),
        (
            "replay_dead_letters('')".into(),
            "42704: migration does not exist",
        ),
        (
            "replay_dead_letters('nobody')".into(),
            "42704: migration does not exist",
        ),
        (
            "replay_dead_letters('m', '{}')".into(),
            "22023: no dead letter is named",
        ),
        (
            "replay_dead_letters('m', '{NULL}')".into(),
            "22023: ids holds a NULL",
        ),
        (
            "replay_dead_letters('m', '{0}')".into(),
            "42704: there is no such open dead letter",
        ),
        (
            "replay_dead_letters('m', '{-9223372036854775808}')".into(),
            "42704: there is no such open dead letter",
        ),
        (
            "replay_dead_letters('other')".into(),
            "55000: the state of the migration does not allow replay_dead_letters",
        ),
        (
            "discard_dead_letters(NULL, NULL, 'x')".into(),
            "22023: id is NULL",
        ),
        (
            "discard_dead_letters('m', NULL, NULL)".into(),
            "22023: reason is NULL",
        ),
        (
            "discard_dead_letters('m', NULL, ' ')".into(),
            "22023: a reason is needed",
        ),
        (
            "discard_dead_letters('m', '{}', 'x')".into(),
            "22023: no dead letter is named",
        ),
        (
            "discard_dead_letters('m', '{1,NULL}', 'x')".into(),
            "22023: ids holds a NULL",
        ),
        (
            "discard_dead_letters('m', '{1000000}', 'x')".into(),
            "42704: there is no such open dead letter",
        ),
        (
            "discard_dead_letters('nobody', NULL, 'x')".into(),
            "42704: migration does not exist",
        ),
        (
            format!("discard_dead_letters('other', {some}, 'x')"),
            "55000: the state of the migration does not allow discard_dead_letters",
        ),
        (
            "purge_dead_letters(NULL, 'resolved')".into(),
            "22023: id is NULL",
        ),
        (
            "purge_dead_letters('m', NULL)".into(),
            "22023: status is NULL",
        ),
        (
            "purge_dead_letters('m', '')".into(),
            "22023: unknown status of dead letters",
        ),
        (
            "purge_dead_letters('m', 'Resolved')".into(),
            "22023: unknown status of dead letters",
        ),
        (
            "purge_dead_letters('m', 'open')".into(),
            "22023: open dead letters are not purged",
        ),
        (
            "purge_dead_letters('m', 'discarded')".into(),
            "55000: the state of the migration does not allow purge_dead_letters",
        ),
        (
            "purge_dead_letters('nobody', 'resolved')".into(),
            "42704: migration does not exist",
        ),
        (
            "approve('m', 'x', waive_dead_letters => '{}')".into(),
            "22023: no dead letter is named",
        ),
        (
            "approve('m', 'x', waive_dead_letters => '{NULL}')".into(),
            "22023: waive_dead_letters holds a NULL",
        ),
        (
            "approve('m', 'x', waive_dead_letters => '{1000000}')".into(),
            "42704: there is no such open dead letter",
        ),
        (
            format!("approve('other', 'x', waive_dead_letters => {some})"),
            "42704: there is no such open dead letter",
        ),
        ("amend(NULL, 'x', 'x')".into(), "22023: id is NULL"),
        (
            "amend('nobody', 'x', 'x')".into(),
            "42704: migration does not exist",
        ),
        (
            "amend('other', '', 'x')".into(),
            "22023: the script holds no statement",
        ),
        (
            "amend('other', 'SELEKT', 'x')".into(),
            "42601: syntax error at or near \"SELEKT\"",
        ),
    ] {
        assert_eq!(
            refused(&mut session, &format!("SELECT transmute.{call}")),
            expected,
            "{call}"
        );
    }
    migration.roll_back();
}
