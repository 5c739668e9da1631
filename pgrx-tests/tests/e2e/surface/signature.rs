//! Every argument of every function, as the catalog knows them: whatever is given, the call works or says in our own words, or the
//! server's, what is wrong; it never fails inside of us, and leaves nothing behind when it is undone.

use std::collections::BTreeMap;

use transmute_tests::{Cluster, Database};

use super::EVERYTHING;

/// A call with one argument after the other made bad is only worth something when the others are good.
pub fn good(function: &str, argument: &str, of: &str) -> String {
    let registers = [
        "register",
        "register_phases",
        "register_copy",
        "migrate",
        "add_column",
        "add_table",
        "drop_column",
        "rename_column",
        "transform_column",
    ];
    match (function, argument) {
        (_, "id") if registers.contains(&function) => "'new'",
        ("wait" | "run", "id") => "'n'",
        (_, "id") => "'m'",
        (_, "up" | "ddl" | "schema_additions" | "schema_drops") => "'COMMENT ON TABLE t IS NULL'",
        (_, "down" | "rollback" | "transform" | "default_value" | "expression" | "max_risk") => {
            "NULL"
        }
        (_, "from_seq" | "expected_head" | "waive_dead_letters" | "ids") => "NULL",
        ("add_table", "relation") => "'made'",
        ("add_column", "name") => "'c'",
        (_, "relation" | "source") => "'t'",
        (_, "target") => "'u'",
        (_, "name") => "'a'",
        (_, "new_name") => "'z'",
        (_, "data_type") => "'bigint'",
        (_, "columns") => r#"'[{"name": "id", "type": "int"}]'"#,
        (_, "migrate_batch") => "'SELECT 0'",
        (_, "key") => "'{id}'",
        (_, "pipeline") => "'[]'",
        ("explain", "format") => "'text'",
        ("graph", "format") => "'mermaid'",
        ("audit_export", "format") => "'jsonl'",
        (_, "status") => "'resolved'",
        (_, "state") => "'FINISHED'",
        (_, "version") => "'1.0.0'",
        (_, "event") => "'pre_apply'",
        ("hook", "function") => "'hooked(jsonb)'",
        ("unhook", "function") => "'hooked(jsonb)'",
        (_, "confirm") => "current_database()",
        (_, "action") => "'applied'",
        _ => match of {
            "text" => "'x'",
            "jsonb" => "'{}'",
            "integer" | "bigint" => "1",
            "boolean" => "false",
            "interval" => "'0'",
            "timestamp with time zone" => "'epoch'",
            "text[]" => "'{x}'",
            "bigint[]" => "'{1}'",
            "bytea[]" => "'{x}'",
            other => panic!("say what is good for {function}({argument} {other})"),
        },
    }
    .to_string()
}

/// What nobody should give.
fn bad(of: &str) -> Vec<String> {
    let values: &[&str] = match of {
        "text" => &[
            "''",
            "' '",
            r"E'a\nb'",
            r"E'\t'",
            "repeat('é', 40)",
            "repeat('x', 100000)",
            r"E'\u200b\u202e'",
            "'NULL'",
            r#"$$it's "q"; DROP TABLE t; --$$"#,
            "'../../x'",
            "'%s {0}'",
            "'1.0'",
            "'-1 day'",
            "'{}'",
            r"E'\\'",
            "'/*'",
            "'('",
        ],
        "jsonb" => &[
            "'null'",
            "'[]'",
            "'1'",
            "'\"x\"'",
            "'true'",
            r#"'{"zzz": 1}'"#,
            r#"'{"": ""}'"#,
            "'[[[]]]'",
            "'[null]'",
            "repeat('[', 200) || repeat(']', 200)",
            "'1e400'",
            "'[1e-5000]'",
            r#"'{"name": "\n\u200b"}'"#,
        ],
        "integer" => &["0", "-1", "2147483647", "-2147483648"],
        "bigint" => &["0", "-1", "9223372036854775807", "-9223372036854775808"],
        "boolean" => &["true"],
        "interval" => &["'0'", "'-1 s'", "'-178000000 years'", "'1 month -31 days'"],
        "timestamp with time zone" => &[
            "'infinity'",
            "'-infinity'",
            "'294276-12-31'",
            "'4713-01-01 BC'",
        ],
        "text[]" => &[
            "'{}'",
            "'{NULL}'",
            "'{\"\"}'",
            "'{{a,b},{c,d}}'",
            "'{id,id}'",
            "'[5:5]={id}'",
        ],
        "bigint[]" => &[
            "'{}'",
            "'{NULL}'",
            "'{0}'",
            "'{{1},{2}}'",
            "'{-9223372036854775808}'",
        ],
        "bytea[]" => &["'{}'", "'{NULL}'", "'{{a},{b}}'", r#"'{"\\xff00"}'"#],
        "regprocedure" => &["0", "'pg_catalog.now()'"],
        other => panic!("say what is bad for the type {other}"),
    };
    let nothing = std::iter::once("NULL".to_string());
    nothing
        .chain(values.iter().map(|v| v.to_string()))
        .map(|v| format!("({v})::{of}"))
        .collect()
}

#[test]
fn no_argument_makes_a_call_fail_inside() {
    // Nobody drives what a call starts here.
    let cluster = Cluster::builder().without_preload().start();
    let database = Database::create(&cluster);
    let mut session = database.connect();
    session.exec(
        "CREATE TABLE t (id int PRIMARY KEY, a int); CREATE TABLE u (id int, a int);
         CREATE FUNCTION hooked(jsonb) RETURNS void LANGUAGE sql AS 'SELECT';
         SELECT transmute.register('m', 'ALTER TABLE t ALTER COLUMN a TYPE bigint'), transmute.register('n', 'COMMENT ON TABLE u IS NULL');
         SET statement_timeout = '20 s'",
    );
    let mut functions: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    for line in session.lines(
        "SELECT p.proname, p.prokind, p.oid, a.n, p.proargnames[a.n], format_type(a.of, NULL)
           FROM pg_proc p LEFT JOIN LATERAL unnest(p.proargtypes) WITH ORDINALITY AS a(of, n) ON true
           WHERE p.pronamespace = 'transmute'::regnamespace AND p.prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype)
           ORDER BY p.proname, p.oid, a.n",
    ) {
        let parts: Vec<&str> = line.split('|').collect();
        let of = functions.entry(parts[..3].join("|")).or_default();
        if parts[3] != "∅" {
            of.push((parts[4].to_string(), parts[5].to_string()));
        }
    }
    assert!(functions.len() > 45, "{functions:?}");
    // What a gate refuses is told in the audit trail.
    let everything = EVERYTHING.replace("(SELECT count(*) FROM _transmute.audit_events)", "0");
    let (mut tried, mut faults) = (0, Vec::new());
    for (function, arguments) in &functions {
        let name = function.split('|').next().unwrap_or_default();
        let procedure = function.split('|').nth(1) == Some("p");
        let before = session.lines(&everything);
        for (place, (_, of)) in arguments.iter().enumerate() {
            for value in bad(of) {
                let values: Vec<String> = arguments
                    .iter()
                    .enumerate()
                    .map(|(i, (argument, of))| match i == place {
                        true => value.clone(),
                        false => format!("{}::{of}", good(name, argument, of)),
                    })
                    .collect();
                let verb = if procedure { "CALL" } else { "SELECT" };
                let call = format!("{verb} transmute.{name}({})", values.join(", "));
                tried += 1;
                let answer = match procedure {
                    true => session.try_exec(&call),
                    false => {
                        session.exec("BEGIN");
                        let answer = session.try_exec(&call);
                        session.exec("ROLLBACK");
                        answer
                    }
                };
                let Err(error) = answer else { continue };
                let ours = error.detail.is_some() && error.hint.is_some();
                // A script, name or time that the server itself cannot read, in its words.
                let of_the_server = [
                    "42601", "42704", "42P01", "42703", "42883", "22P02", "22003", "22008",
                ];
                let internal = error.sqlstate.starts_with("XX") || error.sqlstate == "57014";
                if internal || !(ours || of_the_server.contains(&error.sqlstate.as_str())) {
                    faults.push(format!("{call:.300}: {error}"));
                }
            }
        }
        if !procedure {
            assert_eq!(session.lines(&everything), before, "left behind by {name}");
        }
    }
    assert!(tried > 800, "{tried} calls");
    assert!(
        faults.is_empty(),
        "{} of {tried}: {faults:#?}",
        faults.len()
    );
}
