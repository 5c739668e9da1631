//! Dependents that the new type does not admit are an error before anything is written.

use super::*;

#[test]
fn what_the_new_type_does_not_admit_is_the_servers_error_at_register() {
    let cases = [
        ("v", "42883", "CREATE VIEW v AS SELECT a + n AS s FROM t"),
        ("above", "42883", "CREATE VIEW v AS SELECT a AS x FROM t; CREATE VIEW above AS SELECT x * 2 AS y FROM v"),
        ("m", "42883", "CREATE MATERIALIZED VIEW m AS SELECT a + n AS s FROM t"),
        ("m", "42883", "CREATE MATERIALIZED VIEW m AS SELECT a AS x FROM t; CREATE INDEX ON m ((x + 1))"),
        ("few", "42883", "CREATE POLICY few ON t USING (a > n)"),
        ("elsewhere", "42883", "CREATE TABLE other (id int); CREATE POLICY elsewhere ON other USING (id IN (SELECT a FROM t))"),
        ("big", "42883", "CREATE TRIGGER big BEFORE UPDATE ON t FOR EACH ROW WHEN (NEW.a > NEW.n) EXECUTE FUNCTION pass()"),
        ("away", "42883", "CREATE RULE away AS ON UPDATE TO t WHERE NEW.a > NEW.n DO INSTEAD NOTHING"),
        ("also", "42883", "CREATE TABLE other (id int); CREATE RULE also AS ON DELETE TO other DO ALSO DELETE FROM t WHERE t.a = OLD.id"),
        ("filtered", "42883", "CREATE PUBLICATION filtered FOR TABLE t WHERE (a > 3)"),
        ("body", "42883", "CREATE FUNCTION body() RETURNS bigint BEGIN ATOMIC SELECT max(a + n) FROM t; END"),
        ("body", "42P13", "CREATE FUNCTION body() RETURNS int BEGIN ATOMIC SELECT max(a) FROM t; END"),
        ("outward", "42804", "CREATE TABLE target (id int PRIMARY KEY); INSERT INTO target SELECT generate_series(1, 500); ALTER TABLE t ADD CONSTRAINT outward FOREIGN KEY (a) REFERENCES target"),
    ];
    for (name, sqlstate, sql) in cases {
        let database = Database::shared();
        let mut session = open(&database, &[PASS, sql]);
        let before = facts(&mut session, "t");
        for call in [
            "SELECT * FROM transmute.explain('ALTER TABLE t ALTER a TYPE text')",
            "SELECT transmute.register('m', 'ALTER TABLE t ALTER a TYPE text')",
        ] {
            let error = session.error(call);
            assert_eq!(error.sqlstate, sqlstate, "{name}: {error}");
            let detail = error.detail.clone().unwrap_or_default();
            assert!(detail.contains(name), "{name}: {error}");
            assert!(
                !error.to_string().contains("_transmute_"),
                "{name}: {error}"
            );
        }
        assert_eq!(facts(&mut session, "t"), before);
        // The same objects and a type that they admit.
        if session.lines("SELECT count(*) FROM pg_constraint WHERE conname = 'outward'") == ["0"] {
            session.rows("SELECT * FROM transmute.explain('ALTER TABLE t ALTER a TYPE smallint')");
        }
        session.rows(&format!("SELECT * FROM transmute.explain('{TO_BIGINT}')"));
        assert_eq!(facts(&mut session, "t"), before);
    }
}

#[test]
fn a_foreign_key_whose_both_sides_change_is_carried() {
    let database = Database::shared();
    let mut session = open(
        &database,
        &[
            "ALTER TABLE t ADD UNIQUE (a)",
            "CREATE TABLE child (id int PRIMARY KEY, x int REFERENCES t (a))",
            "INSERT INTO child SELECT g, g FROM generate_series(1, 100) g",
        ],
    );
    let script = "ALTER TABLE child ALTER x TYPE text; ALTER TABLE t ALTER a TYPE text";
    session.exec(&format!("SELECT transmute.migrate('{script}', 'm')"));
    wait(&mut session, "FINISHED");
    assert_eq!(
        session.lines(
            "SELECT convalidated, pg_get_constraintdef(oid) FROM pg_constraint WHERE contype = 'f' AND conrelid = 'child'::regclass"
        ),
        ["t|FOREIGN KEY (x) REFERENCES t(a)"]
    );
    let orphan = session.error("INSERT INTO child VALUES (1000, 'none')");
    assert_eq!(orphan.sqlstate, "23503", "{orphan}");
}

#[test]
fn what_means_the_row_type_is_left_to_the_swap() {
    let database = Database::shared();
    let mut session = open(
        &database,
        &[
            "CREATE FUNCTION of_row(t) RETURNS bigint LANGUAGE sql AS 'SELECT $1.a::bigint'",
            "CREATE VIEW v AS SELECT a, of_row(t) AS r FROM t",
            "CREATE VIEW above AS SELECT a, r FROM v",
        ],
    );
    let columns = [A, "v column 0001 a", "above column 0001 a"];
    let mut changed = changed_facts(&mut session, "t", &[]);
    let mut expected = type_changes(&columns);
    changed.sort();
    expected.sort();
    assert_eq!(changed, expected);
    session.exec("CREATE MATERIALIZED VIEW m AS SELECT * FROM above");
    let error = session.error("SELECT transmute.explain('ALTER TABLE t ALTER a TYPE int')");
    assert_eq!(error.sqlstate, "0A000", "{error}");
    assert!(error.to_string().contains("public.m"), "{error}");
}
