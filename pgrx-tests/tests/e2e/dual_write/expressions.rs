//! Generated expressions and types: both mechanisms, the fill and what is written meanwhile give what plain SQL gives.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use transmute_tests::Database;

use super::soaking;
use crate::migration::Migration;

/// Old columns, and values that they take.
const OLD: &str = "i int, big bigint, t text, v varchar(12), num numeric(12,3), ts timestamp, d date, j jsonb, arr int[], f float8, b bytea, u uuid, r int4range, ok bool";
const ROW: &str = "nullif(i % 7, 0), i * 1000000007::bigint, CASE WHEN i % 5 = 0 THEN NULL ELSE repeat('ä b' || i, i % 40) END, left('v' || i, 12), i / 7.0, \
    timestamp '2020-02-29 12:00' + i * interval '17 hours', date '2019-12-31' + i, jsonb_build_object('k', i, 'l', ARRAY[i]), ARRAY[i, NULL, i % 3], \
    CASE WHEN i % 9 = 0 THEN 'NaN' ELSE i / 3.0 END::float8, decode(md5(i::text), 'hex'), md5(i::text)::uuid, int4range(i, i + 5), i % 2 = 0";

/// Type of a new column, and its expression.
const RULES: [(&str, &str); 24] = [
    ("bigint", "i"),
    ("text", "i::text || '/' || big"),
    ("numeric(20,1)", "num * 2 + coalesce(i, 0)"),
    ("varchar(4)", "left(t, 4)"),
    ("char(6)", "substr(v, 1, 6)"),
    ("text[]", "string_to_array(t, ' ')"),
    ("date", "ts"),
    ("time", "ts::time"),
    ("timestamp(0)", "ts + interval '1.6 s'"),
    ("int", "extract(year FROM d)"),
    ("jsonb", "j -> 'l'"),
    ("json", "json_build_array(i, t)"),
    ("int[]", "arr || i"),
    ("int", "arr[1] + cardinality(arr)"),
    ("float4", "f"),
    ("bytea", "b || b"),
    ("text", "encode(b, 'base64')"),
    ("text", "upper(u::text)"),
    ("int4range", "r * int4range(3, NULL)"),
    ("point", "point(f, f)"),
    ("boolean", "ok IS DISTINCT FROM (i > 3)"),
    ("text", "CASE WHEN ok THEN t ELSE v END COLLATE \"C\""),
    ("bit(4)", "coalesce(i, 0)::bit(4)"),
    ("text", "format('%s-%s', i, v)"),
];

#[derive(Debug, Clone)]
struct Case {
    rules: Vec<usize>,
    mechanism: &'static str,
    fillfactor: i32,
    has_key: bool,
}

fn cases() -> impl Strategy<Value = Case> {
    (
        proptest::collection::btree_set(0..RULES.len(), 1..9),
        prop_oneof![Just("rule"), Just("trigger")],
        10..100i32,
        any::<bool>(),
    )
        .prop_map(|(rules, mechanism, fillfactor, has_key)| Case {
            rules: rules.into_iter().collect(),
            mechanism,
            fillfactor,
            has_key,
        })
}

fn check(case: &Case) {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec(&format!(
        "CREATE TABLE t (id int{}, {OLD}) WITH (fillfactor = {});
         INSERT INTO t SELECT i, {ROW} FROM generate_series(1, 700) AS i",
        if case.has_key { " PRIMARY KEY" } else { "" },
        case.fillfactor
    ));
    let mut rules: Vec<(String, &str, &str)> = Vec::new();
    for (n, i) in case.rules.iter().enumerate() {
        rules.push((format!("\"new {n}\""), RULES[*i].0, RULES[*i].1));
    }
    // format() and the like are stable: the server has no rule for them, the trigger has.
    let adds: Vec<String> = rules
        .iter()
        .map(|(name, kind, _)| format!("ADD COLUMN {name} {kind}"))
        .collect();
    let sets: Vec<String> = rules
        .iter()
        .map(|(name, _, text)| format!("{name} = {text}"))
        .collect();
    let script = format!(
        "ALTER TABLE t {}; UPDATE t SET {}",
        adds.join(", "),
        sets.join(", ")
    );
    let meta = |mechanism: &str| soaking(&format!(r#""dual_write": "{mechanism}""#));
    let planned = session.try_exec(&format!(
        "SELECT transmute.register('m', $d${script}$d$, meta => $m${}$m$)",
        meta(case.mechanism)
    ));
    let mut migration = match planned {
        Ok(()) => {
            session.exec("SELECT transmute.apply('m')");
            None
        }
        Err(error) => {
            assert_eq!(
                (error.sqlstate.as_str(), case.mechanism),
                ("0A000", "rule"),
                "{error}"
            );
            Some(Migration::start(&database, "m", &script, &meta("trigger")))
        }
    };
    if let Some(migration) = &mut migration {
        migration.wait("AWAITING_FINALIZATION");
    }
    session.exec("CALL transmute.wait('m', 'AWAITING_FINALIZATION', '60 s')");
    session.exec(&format!(
        "INSERT INTO t SELECT i, {ROW} FROM generate_series(701, 800) AS i;
         UPDATE t SET i = coalesce(i, 1) + 1, t = 'changed ' || id, ts = ts + interval '1 day', arr = arr || 5, j = '{{\"k\": 1}}' WHERE id % 3 = 0;
         UPDATE t SET ok = NOT ok, f = -f, num = -num, v = 'x', b = NULL, d = d - 400 WHERE id % 5 = 0"
    ));
    for (name, kind, text) in &rules {
        // What plain SQL stores for it.
        session.exec(&format!(
            "CREATE TEMP TABLE plain (id int, kept {kind}, wanted {kind});
             INSERT INTO plain SELECT id, {name}, {text} FROM t"
        ));
        let differences = session.lines(
            "SELECT id, kept::text, wanted::text FROM plain WHERE ROW(kept)::record *<> ROW(wanted)::record LIMIT 3",
        );
        assert!(differences.is_empty(), "{text} as {kind}: {differences:#?}");
        session.exec("DROP TABLE plain");
    }
}

#[test]
fn any_expression_over_any_type_is_what_plain_sql_makes_of_it() {
    let mut runner = TestRunner::new_with_rng(
        Config {
            cases: 12,
            failure_persistence: None,
            ..Config::default()
        },
        proptest::test_runner::TestRng::deterministic_rng(
            proptest::test_runner::RngAlgorithm::ChaCha,
        ),
    );
    runner
        .run(&cases(), |case| {
            check(&case);
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
}
