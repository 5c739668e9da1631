//! The locks that `explain` says a plain statement takes are those it takes.

use transmute_tests::{Database, Session};

const WORLD: &str = r#"
    CREATE TABLE parent (id int PRIMARY KEY, name text UNIQUE, code int);
    CREATE TABLE child (id int PRIMARY KEY, parent_id int REFERENCES parent, a int, b text, c varchar(20), d date NOT NULL DEFAULT now(),
      CONSTRAINT child_a_check CHECK (a > 0));
    CREATE INDEX child_b ON child (b); CREATE UNIQUE INDEX child_a_b ON child (a, b); CREATE UNIQUE INDEX child_c ON child (c);
    ALTER TABLE child ALTER COLUMN c SET NOT NULL;
    CREATE TABLE other (id serial PRIMARY KEY, child_id int, x int, y int GENERATED ALWAYS AS IDENTITY);
    ALTER TABLE other ADD CONSTRAINT other_late FOREIGN KEY (child_id) REFERENCES child NOT VALID;
    ALTER TABLE other ADD CONSTRAINT other_x CHECK (x > 0) NOT VALID;
    CREATE TABLE lone (id int, t text);
    CREATE TABLE "Quoted ""name" ("a b" int);
    CREATE TABLE heir_of (id int PRIMARY KEY, h int); CREATE TABLE heir () INHERITS (heir_of);
    CREATE TABLE parts (id int, k int, v text, PRIMARY KEY (id, k)) PARTITION BY RANGE (k);
    CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
    CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (10) TO (20);
    CREATE TABLE parts_other PARTITION OF parts DEFAULT;
    CREATE INDEX parts_v ON parts (v);
    CREATE TABLE new_part (id int NOT NULL, k int NOT NULL, v text);
    CREATE VIEW v AS SELECT id, b FROM child; CREATE VIEW vv AS SELECT id FROM v;
    CREATE VIEW free AS SELECT 1 AS one;
    CREATE MATERIALIZED VIEW m AS SELECT c.id, p.name FROM child c JOIN parent p ON p.id = c.id; CREATE UNIQUE INDEX m_id ON m (id);
    CREATE SEQUENCE s; CREATE SEQUENCE s2 OWNED BY lone.id;
    CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
    CREATE FUNCTION g(int) RETURNS int LANGUAGE sql AS 'SELECT $1';
    CREATE TRIGGER tr BEFORE UPDATE ON child FOR EACH ROW EXECUTE FUNCTION f();
    CREATE POLICY po ON child USING (true); CREATE RULE ru AS ON DELETE TO lone DO INSTEAD NOTHING;
    CREATE STATISTICS st ON a, b FROM child;
    CREATE TABLE top (id int PRIMARY KEY, code int UNIQUE); CREATE TABLE below (id int PRIMARY KEY REFERENCES top ON DELETE CASCADE ON UPDATE CASCADE);
    CREATE TABLE last (id int REFERENCES below ON DELETE CASCADE ON UPDATE CASCADE, code int REFERENCES top (code) ON DELETE SET NULL);
    INSERT INTO top SELECT i, i FROM generate_series(1, 5) i; INSERT INTO below VALUES (1), (2); INSERT INTO last VALUES (1, 3);
    CREATE TABLE led (k int REFERENCES top) PARTITION BY RANGE (k); CREATE TABLE led_1 (k int NOT NULL);
    CREATE TABLE led_2 (k int NOT NULL REFERENCES top);
    CREATE TYPE e AS ENUM ('a', 'b'); CREATE TYPE pair AS (l int, r int); CREATE DOMAIN dom AS int;
    CREATE PUBLICATION pub FOR TABLE parent;
    CREATE SCHEMA elsewhere; CREATE ROLE locks_role;
    INSERT INTO parent SELECT i, 'p' || i, i FROM generate_series(1, 20) i;
    INSERT INTO child SELECT i, i, i, 'b' || i, 'c' || i FROM generate_series(1, 20) i;
    INSERT INTO parts SELECT i, i, 'v' FROM generate_series(1, 19) i;
"#;

/// Plain statements that run in a transaction on that world, one by one.
const STATEMENTS: &[&str] = &[
    // ALTER TABLE: columns
    "ALTER TABLE child ADD COLUMN n int",
    "ALTER TABLE child ADD COLUMN n int DEFAULT 7",
    "ALTER TABLE child ADD COLUMN n uuid DEFAULT gen_random_uuid()",
    "ALTER TABLE child ADD COLUMN n serial",
    "ALTER TABLE child ADD COLUMN n int GENERATED ALWAYS AS IDENTITY",
    "ALTER TABLE child ADD COLUMN n int GENERATED ALWAYS AS (a * 2) STORED",
    "ALTER TABLE child ADD COLUMN n int REFERENCES parent",
    "ALTER TABLE child ADD COLUMN n int UNIQUE",
    "ALTER TABLE child ADD COLUMN n int CHECK (n > 0)",
    "ALTER TABLE child ADD COLUMN IF NOT EXISTS a int",
    "ALTER TABLE child DROP COLUMN d",
    "ALTER TABLE child DROP COLUMN a",
    "ALTER TABLE child DROP COLUMN parent_id CASCADE",
    "ALTER TABLE child DROP COLUMN b CASCADE",
    "ALTER TABLE child DROP COLUMN IF EXISTS nothing",
    "ALTER TABLE parent DROP COLUMN id CASCADE",
    "ALTER TABLE other DROP COLUMN id",
    "ALTER TABLE other DROP COLUMN y",
    "ALTER TABLE lone DROP COLUMN id",
    "ALTER TABLE lone ALTER COLUMN id TYPE bigint",
    "ALTER TABLE child ALTER COLUMN a TYPE bigint",
    "ALTER TABLE child ALTER COLUMN c TYPE varchar(40)",
    "ALTER TABLE child ALTER COLUMN c TYPE varchar(10)",
    "ALTER TABLE child ALTER COLUMN c TYPE text",
    "ALTER TABLE child ALTER COLUMN parent_id TYPE bigint",
    "ALTER TABLE parent ALTER COLUMN code TYPE text USING code::text",
    "ALTER TABLE child ALTER COLUMN a SET DEFAULT 1",
    "ALTER TABLE child ALTER COLUMN d DROP DEFAULT",
    "ALTER TABLE child ALTER COLUMN a SET NOT NULL",
    "ALTER TABLE child ALTER COLUMN d DROP NOT NULL",
    "ALTER TABLE child ALTER COLUMN a SET STATISTICS 500",
    "ALTER TABLE child ALTER COLUMN b SET STORAGE EXTERNAL",
    "ALTER TABLE child ALTER COLUMN b SET COMPRESSION pglz",
    "ALTER TABLE child ALTER COLUMN a SET (n_distinct = 5)",
    "ALTER TABLE child ALTER COLUMN a RESET (n_distinct)",
    "ALTER TABLE child ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY",
    "ALTER TABLE other ALTER COLUMN y SET GENERATED BY DEFAULT",
    "ALTER TABLE other ALTER COLUMN y DROP IDENTITY",
    "ALTER TABLE child RENAME COLUMN a TO z",
    "ALTER TABLE child RENAME a TO z",
    "ALTER TABLE heir_of RENAME COLUMN h TO z",
    // ALTER TABLE: constraints
    "ALTER TABLE child ADD CHECK (a > 0)",
    "ALTER TABLE child ADD CONSTRAINT k CHECK (a > 0) NOT VALID",
    "ALTER TABLE other VALIDATE CONSTRAINT other_x",
    "ALTER TABLE other VALIDATE CONSTRAINT other_late",
    "ALTER TABLE child ADD UNIQUE (b)",
    "ALTER TABLE child ADD CONSTRAINT u UNIQUE USING INDEX child_c",
    "ALTER TABLE lone ADD PRIMARY KEY (id)",
    "ALTER TABLE lone ADD EXCLUDE USING btree (id WITH =)",
    "ALTER TABLE lone ADD FOREIGN KEY (id) REFERENCES parent",
    "ALTER TABLE lone ADD FOREIGN KEY (id) REFERENCES parent (id) NOT VALID",
    "ALTER TABLE parent ADD FOREIGN KEY (code) REFERENCES parent",
    "ALTER TABLE child ALTER CONSTRAINT child_parent_id_fkey DEFERRABLE",
    "ALTER TABLE child DROP CONSTRAINT child_a_check",
    "ALTER TABLE child DROP CONSTRAINT child_parent_id_fkey",
    "ALTER TABLE parent DROP CONSTRAINT parent_name_key",
    "ALTER TABLE parent DROP CONSTRAINT parent_pkey CASCADE",
    "ALTER TABLE child RENAME CONSTRAINT child_a_check TO k",
    // ALTER TABLE: the table
    "ALTER TABLE child SET (fillfactor = 70)",
    "ALTER TABLE child RESET (fillfactor)",
    "ALTER TABLE child SET (autovacuum_enabled = off)",
    "ALTER TABLE lone SET UNLOGGED",
    "ALTER TABLE lone SET WITHOUT CLUSTER",
    "ALTER TABLE child CLUSTER ON child_b",
    "ALTER TABLE child ENABLE ROW LEVEL SECURITY",
    "ALTER TABLE child FORCE ROW LEVEL SECURITY",
    "ALTER TABLE child REPLICA IDENTITY FULL",
    "ALTER TABLE child REPLICA IDENTITY USING INDEX child_c",
    "ALTER TABLE child DISABLE TRIGGER tr",
    "ALTER TABLE child ENABLE ALWAYS TRIGGER tr",
    "ALTER TABLE child DISABLE TRIGGER USER",
    "ALTER TABLE lone DISABLE RULE ru",
    "ALTER TABLE lone OWNER TO locks_role",
    "ALTER TABLE other OWNER TO locks_role",
    "ALTER TABLE lone SET SCHEMA elsewhere",
    "ALTER TABLE other SET SCHEMA elsewhere",
    "ALTER TABLE child RENAME TO kid",
    "ALTER TABLE \"Quoted \"\"name\" ADD COLUMN x int",
    "ALTER TABLE child ADD COLUMN n int, ALTER COLUMN a SET STATISTICS 5",
    "ALTER TABLE child SET (fillfactor = 70), ALTER COLUMN a SET STATISTICS 5",
    "ALTER TABLE child ADD CONSTRAINT k CHECK (a > 0) NOT VALID, ADD FOREIGN KEY (a) REFERENCES parent (id) NOT VALID",
    // Trees
    "ALTER TABLE heir_of ADD COLUMN n int",
    "ALTER TABLE ONLY heir_of ALTER COLUMN h SET DEFAULT 1",
    "ALTER TABLE heir_of ALTER COLUMN h TYPE bigint",
    "ALTER TABLE heir_of ALTER COLUMN h SET DEFAULT 1",
    "ALTER TABLE heir_of DROP COLUMN h",
    "ALTER TABLE heir NO INHERIT heir_of",
    "ALTER TABLE parts ADD COLUMN n int",
    "ALTER TABLE parts ALTER COLUMN v TYPE varchar(100)",
    "ALTER TABLE parts ALTER COLUMN v SET NOT NULL",
    "ALTER TABLE parts ADD CHECK (k >= 0)",
    "ALTER TABLE parts_1 SET (fillfactor = 70)",
    "ALTER TABLE parts DETACH PARTITION parts_2",
    "ALTER TABLE parts ATTACH PARTITION new_part FOR VALUES FROM (30) TO (40)",
    "CREATE TABLE parts_3 PARTITION OF parts FOR VALUES FROM (50) TO (60)",
    "CREATE INDEX ON parts (k)",
    "DROP TABLE parts_1",
    "DROP TABLE parts",
    "TRUNCATE parts",
    // Indexes
    "CREATE INDEX ON child (d)",
    "CREATE UNIQUE INDEX ON child (c, d)",
    "CREATE INDEX IF NOT EXISTS child_b ON child (b)",
    "CREATE INDEX ON child (lower(b)) WHERE a > 5",
    "DROP INDEX child_b",
    "DROP INDEX IF EXISTS nothing",
    "ALTER INDEX child_b RENAME TO child_z",
    "ALTER INDEX child_b SET (fillfactor = 50)",
    "REINDEX INDEX child_b",
    "REINDEX TABLE child",
    // Drops
    "DROP TABLE lone",
    "DROP TABLE other",
    "DROP TABLE \"Quoted \"\"name\"",
    "DROP TABLE child CASCADE",
    "DROP TABLE parent CASCADE",
    "DROP TABLE IF EXISTS nothing",
    "DROP TABLE lone, new_part",
    "DROP VIEW vv",
    "DROP VIEW v CASCADE",
    "DROP MATERIALIZED VIEW m",
    "DROP SEQUENCE s",
    "DROP SEQUENCE other_id_seq CASCADE",
    "DROP TRIGGER tr ON child",
    "DROP POLICY po ON child",
    "DROP RULE ru ON lone",
    "DROP FUNCTION g(int)",
    "DROP TYPE pair",
    "DROP DOMAIN dom",
    // Everything else
    "TRUNCATE lone",
    "TRUNCATE other RESTART IDENTITY",
    "TRUNCATE parent CASCADE",
    "CREATE TRIGGER t2 AFTER INSERT ON child FOR EACH ROW EXECUTE FUNCTION f()",
    "CREATE CONSTRAINT TRIGGER t3 AFTER INSERT ON child FROM parent FOR EACH ROW EXECUTE FUNCTION f()",
    "ALTER TRIGGER tr ON child RENAME TO t4",
    "CREATE POLICY p2 ON child USING (a > 0)",
    "ALTER POLICY po ON child USING (false)",
    "CREATE RULE r2 AS ON INSERT TO lone DO ALSO NOTHING",
    "CREATE STATISTICS s9 ON a, d FROM child",
    "COMMENT ON TABLE child IS 'x'",
    "COMMENT ON COLUMN child.a IS 'x'",
    "COMMENT ON CONSTRAINT child_a_check ON child IS 'x'",
    "COMMENT ON INDEX child_b IS 'x'",
    "COMMENT ON TRIGGER tr ON child IS 'x'",
    "COMMENT ON VIEW v IS 'x'",
    "COMMENT ON SCHEMA elsewhere IS 'x'",
    "COMMENT ON FUNCTION g(int) IS 'x'",
    "GRANT SELECT ON child TO locks_role",
    "GRANT UPDATE (a) ON child TO locks_role",
    "REVOKE ALL ON child FROM locks_role",
    "GRANT USAGE ON SCHEMA elsewhere TO locks_role",
    "CREATE TABLE fresh (id int PRIMARY KEY, p int REFERENCES parent)",
    "CREATE TABLE fresh (LIKE child INCLUDING ALL)",
    "CREATE TABLE fresh () INHERITS (heir_of)",
    "CREATE TABLE fresh AS SELECT * FROM child",
    "CREATE TABLE fresh AS SELECT id FROM vv",
    "CREATE VIEW fresh AS SELECT c.id FROM child c JOIN parent p ON p.id = c.parent_id",
    "CREATE OR REPLACE VIEW v AS SELECT id, b FROM child WHERE a > 0",
    "CREATE OR REPLACE VIEW free AS SELECT 1 AS one, 2 AS two",
    "ALTER VIEW v SET (security_barrier)",
    "ALTER VIEW v RENAME TO w",
    "ALTER VIEW v ALTER COLUMN b SET DEFAULT 'x'",
    "CREATE MATERIALIZED VIEW fresh AS SELECT id FROM v",
    "REFRESH MATERIALIZED VIEW m",
    "REFRESH MATERIALIZED VIEW CONCURRENTLY m",
    "REFRESH MATERIALIZED VIEW m WITH NO DATA",
    "ALTER MATERIALIZED VIEW m RENAME TO m2",
    "CREATE SEQUENCE fresh",
    "CREATE SEQUENCE fresh OWNED BY lone.id",
    "ALTER SEQUENCE s INCREMENT 5",
    "ALTER SEQUENCE s RENAME TO s3",
    "ALTER SEQUENCE s SET SCHEMA elsewhere",
    "ALTER TYPE e ADD VALUE 'c'",
    "ALTER TYPE e RENAME VALUE 'a' TO 'z'",
    "ALTER TYPE pair ADD ATTRIBUTE z int",
    "ALTER DOMAIN dom ADD CHECK (VALUE > 0)",
    "CREATE TYPE e2 AS ENUM ('x')",
    "CREATE FUNCTION h() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "ALTER FUNCTION g(int) STABLE",
    "CREATE SCHEMA fresh",
    "ALTER PUBLICATION pub ADD TABLE child",
    "CREATE PUBLICATION p3 FOR TABLE lone",
    "INSERT INTO lone VALUES (1, 'x')",
    "INSERT INTO lone SELECT id, b FROM child",
    "UPDATE child SET a = a + 1",
    "UPDATE child SET b = p.name FROM parent p WHERE p.id = child.parent_id",
    "UPDATE heir_of SET h = 1",
    "DELETE FROM other WHERE x IN (SELECT id FROM v)",
    "WITH w AS (SELECT id FROM parent) UPDATE other SET x = w.id FROM w",
    "MERGE INTO new_part USING parent ON new_part.id = parent.id WHEN MATCHED THEN UPDATE SET v = name WHEN NOT MATCHED THEN DO NOTHING",
    // Rows that foreign keys look at, or write
    "INSERT INTO child (id, parent_id, c) VALUES (99, 1, 'x')",
    "UPDATE child SET parent_id = 2 WHERE id = 1",
    "UPDATE child SET id = id + 1000",
    "DELETE FROM child",
    "DELETE FROM top WHERE id = 1",
    "UPDATE top SET id = id + 10 WHERE id = 1",
    "UPDATE top SET code = code + 10 WHERE id = 5",
    "DELETE FROM last",
    "ALTER TABLE led ATTACH PARTITION led_1 FOR VALUES FROM (1) TO (5)",
    "ALTER TABLE led ATTACH PARTITION led_2 FOR VALUES FROM (1) TO (5)",
    "DROP STATISTICS st",
    "SELECT * FROM child FOR UPDATE",
    "SELECT count(*) FROM parts",
    "LOCK TABLE child IN SHARE MODE",
    "LOCK TABLE parts IN EXCLUSIVE MODE",
    "LOCK TABLE child, lone",
    "CLUSTER child USING child_b",
    "ANALYZE child",
];

/// What the server has locked for `pid`, by the rule of `plain_locks`: no TOAST, no composite type, no index under a lock on its table that is as
/// strong, nothing that the statement itself made.
pub const HELD: &str = "
    WITH held AS (
      SELECT l.relation AS oid, max(array_position(ARRAY['AccessShareLock', 'RowShareLock', 'RowExclusiveLock', 'ShareUpdateExclusiveLock',
        'ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock'], l.mode)) AS mode
      FROM pg_locks l WHERE l.pid = $1 AND l.locktype = 'relation' GROUP BY 1)
    SELECT (ARRAY['ACCESS SHARE', 'ROW SHARE', 'ROW EXCLUSIVE', 'SHARE UPDATE EXCLUSIVE', 'SHARE', 'SHARE ROW EXCLUSIVE', 'EXCLUSIVE',
        'ACCESS EXCLUSIVE'])[h.mode] || ' on ' || format('%I.%I', c.relnamespace::regnamespace::text, c.relname)
    FROM held h JOIN pg_class c ON c.oid = h.oid AND c.oid >= 16384 AND c.relkind NOT IN ('t', 'c') AND c.relnamespace::regnamespace::text NOT IN ('pg_toast', '_transmute')
    LEFT JOIN pg_index i ON i.indexrelid = c.oid LEFT JOIN held t ON t.oid = i.indrelid
    WHERE t.mode IS NULL OR t.mode < h.mode ORDER BY 1";

/// `role` instead of locks_role: roles are those of the whole cluster.
fn world(database: &Database<'_>, role: &str) -> Session {
    let mut session = database.connect();
    session.exec(&format!("DROP ROLE IF EXISTS {role}"));
    session.exec(&WORLD.replace("locks_role", role));
    session
}

#[test]
fn the_locks_of_plain_statements_are_those_that_the_server_takes() {
    assert!(STATEMENTS.len() >= 150, "{}", STATEMENTS.len());
    let database = Database::shared();
    let mut session = world(&database, "locks_role");
    let mut watcher = database.connect();
    let pid = session.lines("SELECT pg_backend_pid()").remove(0);
    let held = HELD.replace("$1", &pid);
    let mut wrong = Vec::new();
    for statement in STATEMENTS {
        let told = session.lines(&format!(
            "SELECT mode || ' on ' || relation FROM transmute.plain_locks($q${statement}$q$) WHERE mode IS NOT NULL ORDER BY 1"
        ));
        session.exec("BEGIN");
        let ran = session.try_exec(statement);
        let taken = watcher.lines(&held);
        session.exec("ROLLBACK");
        if let Err(error) = ran {
            wrong.push(format!("{statement}\n  {error}"));
            continue;
        }
        if told != taken {
            wrong.push(format!(
                "{statement}\n  told:  {told:?}\n  taken: {taken:?}"
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {}\n{}",
        wrong.len(),
        STATEMENTS.len(),
        wrong.join("\n")
    );
    session.exec("DROP OWNED BY locks_role; DROP ROLE locks_role");
}

#[test]
fn the_examples_of_the_documentation_are_what_it_says_they_are() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec("CREATE TABLE t (id int, a int, b int, r int4range, n int); CREATE TABLE u (id int); CREATE TABLE p (id int) PARTITION BY RANGE (id)");
    let text = include_str!("../../../docs/risk.md");
    let mut seen = 0;
    for line in text.lines() {
        let cells: Vec<&str> = line.split(" | ").collect();
        let [word, "adds" | "changes" | "removes", _, example] = cells[..] else {
            continue;
        };
        let word = word.trim_start_matches("| ").trim_matches('`');
        let example = example.trim_end_matches(" |").trim_matches('`');
        let said = match word {
            "unknown" | "transaction" => word.to_string(),
            _ => session
                .lines(&format!(
                    "SELECT DISTINCT operations[1] FROM transmute.plain_locks($q${example}$q$)"
                ))
                .join(","),
        };
        assert_eq!(said, word, "{example}");
        seen += 1;
    }
    assert!(seen >= 31, "{seen}");
}
