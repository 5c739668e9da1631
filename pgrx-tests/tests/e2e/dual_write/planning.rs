//! What becomes a rule, what does not, and what is refused by name.

use transmute_tests::Database;

fn plan(script: &str, meta: &str) -> Vec<String> {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec(
        "CREATE TABLE t (id int PRIMARY KEY, a int, b int, s text NOT NULL, g int GENERATED ALWAYS AS (a + 1) STORED);
         CREATE TABLE other (id int PRIMARY KEY, a int)",
    );
    let planned = session.try_rows(&format!(
        "SELECT transmute.register('m', $d${script}$d$, meta => $m${meta}$m$)"
    ));
    match planned {
        Err(error) => vec![format!("{} {}", error.sqlstate, error.message)],
        Ok(_) => {
            session.lines("SELECT phase || ' ' || kind FROM transmute.plan('m') ORDER BY step")
        }
    }
}

const RULE: [&str; 4] = [
    "expand rule_make",
    "backfill rule_fill",
    "validate rule_check",
    "contract rule_end",
];

#[test]
fn new_columns_over_the_same_row_are_one_rule_and_one_pass() {
    for script in [
        "ALTER TABLE t ADD c bigint; UPDATE t SET c = a + b",
        "ALTER TABLE t ADD c bigint, ADD d text; UPDATE t SET c = a, d = upper(s)",
        "ALTER TABLE t ADD c bigint, ADD d text; UPDATE t SET (c, d) = (a, upper(s))",
        "ALTER TABLE t ADD c bigint; UPDATE public.t AS x SET c = x.a * x.b",
    ] {
        assert_eq!(plan(script, "{}"), RULE, "{script}");
    }
    // Two UPDATEs of one table are one rule; the column of the first is added by itself.
    assert_eq!(
        plan(
            "ALTER TABLE t ADD c bigint; UPDATE t SET c = a; ALTER TABLE t ADD d text; UPDATE t SET d = upper(s)",
            "{}"
        ),
        [
            "expand execute",
            "expand rule_make",
            "backfill rule_fill",
            "validate rule_check",
            "contract rule_end"
        ]
    );
    // What an earlier UPDATE has set is known: one expression over the row before both.
    for script in [
        "ALTER TABLE t ADD c bigint, ADD d text; UPDATE t SET c = a; UPDATE t SET d = c || s, c = c + b",
        "ALTER TABLE t ADD c bigint, ADD d text; UPDATE t SET d = s, c = b; UPDATE t AS x SET c = a + length(x.d)",
    ] {
        assert_eq!(plan(script, "{}")[..1], RULE[..1], "{script}");
    }
    // What the expression needs is made before.
    assert_eq!(
        plan(
            "ALTER TABLE t ADD c bigint; CREATE FUNCTION f(int) RETURNS bigint IMMUTABLE LANGUAGE sql AS 'SELECT $1 * 2'; UPDATE t SET c = f(a)",
            "{}"
        ),
        [
            "expand execute",
            "expand change",
            "expand rule_make",
            "backfill rule_fill",
            "validate rule_check",
            "contract rule_end"
        ]
    );
    // An index and a constraint on the new columns come behind the fill, before the end.
    let mut phases: Vec<String> = plan(
        "ALTER TABLE t ADD c bigint; UPDATE t SET c = a + 1; CREATE INDEX by_c ON t (c); ALTER TABLE t ALTER c SET NOT NULL; ALTER TABLE t DROP COLUMN b",
        "{}",
    )
    .into_iter()
    .map(|step| step.replace(" execute", " constraint"))
    .collect();
    phases.dedup();
    assert_eq!(
        phases,
        [
            "expand rule_make",
            "backfill rule_fill",
            "validate rule_check",
            "validate outside",
            "validate constraint",
            "contract rule_end",
            "contract hide_column"
        ]
    );
}

#[test]
fn what_is_no_function_of_the_row_is_filled_once() {
    for script in [
        "ALTER TABLE t ADD c int; UPDATE t SET c = 0",
        "ALTER TABLE t ADD c int; UPDATE t SET c = a WHERE a > 0",
        "ALTER TABLE t ADD c int; UPDATE t SET c = o.a FROM other o WHERE o.id = t.id",
        "ALTER TABLE t ADD c int; UPDATE t SET c = (SELECT max(a) FROM other)",
        "ALTER TABLE t ADD c float8; UPDATE t SET c = a * random()",
        "ALTER TABLE t ADD c int; UPDATE t SET c = g",
        "ALTER TABLE t ADD c int, ADD d int; UPDATE t SET c = a, d = c",
    ] {
        assert_eq!(
            plan(script, "{}"),
            ["expand execute", "backfill batch"],
            "{script}"
        );
        let refused = plan(script, r#"{"dual_write": "trigger"}"#);
        assert_eq!(
            refused,
            ["0A000 the new columns cannot be kept equal to the old ones"],
            "{script}"
        );
    }
    let script = "ALTER TABLE t ADD c int; UPDATE t SET c = a";
    assert_eq!(
        plan(script, r#"{"dual_write": "none"}"#),
        ["expand execute", "backfill batch"]
    );
}

#[test]
fn metadata_that_no_rule_can_follow_is_refused() {
    let split = "ALTER TABLE t ADD c int, ADD d int; UPDATE t SET c = a / 10, d = a % 10 + b; ALTER TABLE t DROP COLUMN a, DROP COLUMN b CASCADE";
    let split = split.replace(" CASCADE", "");
    let split = split.replace("DROP COLUMN a, ", "");
    for (meta, error) in [
        (r#"{"reverse": {"x": "c"}}"#, "22023"),
        (r#"{"reverse": {"a": "c * 10"}}"#, "22023"),
        (r#"{"reverse": {"b": "nosuch"}}"#, "42703"),
        (r#"{"reverse": {"b": "s"}}"#, "22023"),
        (r#"{"reverse": {"b": "(SELECT 1)"}}"#, "22023"),
        (r#"{"reverse": {"b": "c, d"}}"#, "22023"),
        (r#"{"reverse": {"b": "random()::int"}}"#, "22023"),
        (r#"{"reverse": {"b": "c"}, "dual_write": "rule"}"#, "0A000"),
        (
            r#"{"on_write_error": "dead_letter", "dual_write": "rule"}"#,
            "0A000",
        ),
    ] {
        let found = plan(&split, meta);
        assert!(found[0].starts_with(error), "{meta}: {found:?}");
    }
    assert!(plan(&split, r#"{"reverse": {"b": "d - c"}}"#)[0].starts_with("expand rule_make"));
}

#[test]
fn a_default_or_a_mutable_expression_needs_the_trigger() {
    for (script, trigger) in [
        ("ALTER TABLE t ADD c int; UPDATE t SET c = a", false),
        (
            "ALTER TABLE t ADD c int DEFAULT 5; UPDATE t SET c = a",
            true,
        ),
        (
            "ALTER TABLE t ADD c text; UPDATE t SET c = to_char(now(), s)",
            true,
        ),
        (
            "ALTER TABLE t ADD c bigint; UPDATE t SET c = b; ALTER TABLE t DROP COLUMN b",
            true,
        ),
        (
            "ALTER TABLE t ADD c bigint; UPDATE t SET c = b * 2; ALTER TABLE t DROP COLUMN b",
            false,
        ),
    ] {
        let database = Database::shared();
        let mut session = database.connect();
        session.exec("CREATE TABLE t (id int PRIMARY KEY, a int, b int, s text)");
        let words: String = session.scalar(&format!(
            "SELECT string_agg(sql, ' ') FROM transmute.explain($d${script}$d$) WHERE kind = 'rule_make'"
        ));
        assert_eq!(
            words.contains("a trigger keeps"),
            trigger,
            "{script}: {words}"
        );
    }
}

#[test]
fn a_trigger_that_would_fire_later_is_named() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec(
        "CREATE TABLE t (id int PRIMARY KEY, a int);
         CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
         CREATE TRIGGER \"\u{e9}\" BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION f()",
    );
    session.exec("SELECT transmute.register('m', 'ALTER TABLE t ADD c int; UPDATE t SET c = a', meta => '{\"dual_write\": \"trigger\"}'); SELECT transmute.apply('m')");
    session.wait_for(
        "SELECT last_error_sqlstate FROM transmute.status",
        "0A000",
        transmute_tests::wait::PATIENCE,
    );
    assert_eq!(
        session.lines(
            "SELECT count(*) FROM pg_attribute WHERE attrelid = 't'::regclass AND attname = 'c'"
        ),
        ["0"]
    );
}
