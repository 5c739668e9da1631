//! What is migrated: tables, a migration of them, and the plain statements that it must be equal to. Clients write `t (id, a)` all the
//! time, but for ids that are divisible by ten.

use super::shape::{Shape, Shapes, OLD, SAME};

/// A view of a version, which may have to convert.
const fn view(table: &'static str) -> Shape {
    Shape {
        table,
        refused: &["0A000", "42P10", "42809", "40001"],
        ..OLD
    }
}

pub struct Scenario {
    pub name: &'static str,
    /// `t` as its two applications know it.
    pub shapes: Shapes,
    /// Tables, and whatever else the migration needs.
    pub make: &'static str,
    /// Registers migration `m`.
    pub register: &'static str,
    /// Leads to the same catalog. Empty: the catalog at the end is another one by design (what is dropped is only hidden).
    pub plain: &'static str,
    /// I2: gives a row where a new value is not what it should be. Of the end, not of a migration that was taken back.
    pub derived: &'static str,
}

const REWRITE: &str = "ALTER TABLE t ALTER COLUMN a TYPE bigint, ADD COLUMN twice bigint GENERATED ALWAYS AS (a * 2) STORED";

/// A script by which a table becomes partitioned, with this copy of its rows.
macro_rules! becomes_partitioned {
    ($copy:literal) => {
        concat!(
            "CREATE TABLE t_new (LIKE t INCLUDING ALL) PARTITION BY RANGE (id);
             CREATE TABLE t_low PARTITION OF t_new FOR VALUES FROM (MINVALUE) TO (200);
             CREATE TABLE t_rest PARTITION OF t_new DEFAULT;",
            $copy,
            "CREATE INDEX t_a ON t_new (a);
             ALTER TABLE t RENAME TO t_old; ALTER TABLE t_new RENAME TO t"
        )
    };
}

/// The copy takes the place of its table.
const SUCCESSOR: Scenario = Scenario {
    name: "successor",
    shapes: SAME,
    make: "CREATE TABLE t (id int PRIMARY KEY, a int NOT NULL, note text) WITH (fillfactor = 10);
        INSERT INTO t SELECT i, i, repeat('x', 40) FROM generate_series(1, 600) AS i",
    register: concat!(
        "SELECT transmute.register('m', $$",
        becomes_partitioned!("INSERT INTO t_new SELECT * FROM t;"),
        "$$)"
    ),
    plain: becomes_partitioned!(""),
    derived:
        "SELECT id FROM t WHERE id <= 600 AND id % 10 = 0 AND note IS DISTINCT FROM repeat('x', 40)",
};

pub const SCENARIOS: [Scenario; 25] = [
    Scenario {
        name: "rewrite",
        shapes: SAME,
        make: "CREATE TABLE t (id int PRIMARY KEY, a int NOT NULL, note text) WITH (fillfactor = 10);
            CREATE INDEX t_a ON t (a);
            INSERT INTO t SELECT i, i, repeat('x', 40) FROM generate_series(1, 600) AS i;
            CREATE MATERIALIZED VIEW shown AS SELECT id, a FROM t WHERE id % 10 = 0;
            CREATE UNIQUE INDEX ON shown (id);
            CREATE TABLE called (event text);
            CREATE FUNCTION called(facts jsonb) RETURNS void LANGUAGE sql AS $$ INSERT INTO public.called VALUES (facts ->> 'event') $$;
            SELECT transmute.hook('pre_finalize', 'called(jsonb)')",
        register: "SELECT transmute.register('m', $$ALTER TABLE t ALTER COLUMN a TYPE bigint, ADD COLUMN twice bigint GENERATED ALWAYS AS (a * 2) STORED$$,
            meta => '{\"invariants\": [{\"name\": \"whole\", \"phase\": \"PRE_FINALIZATION\", \"sql\": \"SELECT count(*) > 100 FROM t\"}]}')",
        plain: "DROP MATERIALIZED VIEW shown;
            ALTER TABLE t ALTER COLUMN a TYPE bigint, ADD COLUMN twice bigint GENERATED ALWAYS AS (a * 2) STORED;
            CREATE MATERIALIZED VIEW shown AS SELECT id, a FROM t WHERE id % 10 = 0;
            CREATE UNIQUE INDEX ON shown (id)",
        derived: "SELECT id FROM t WHERE twice IS DISTINCT FROM a * 2 UNION ALL SELECT id FROM shown JOIN t USING (id) WHERE shown.a <> t.a
            UNION ALL SELECT 1 WHERE (SELECT count(*) FROM called) <> 1",
    },
    // Without a key: rows are found by their address, and come to lie in another order.
    Scenario {
        name: "anew",
        shapes: SAME,
        make: "CREATE TABLE t (id int UNIQUE, a int NOT NULL, note text);
            CREATE INDEX t_a ON t (a);
            INSERT INTO t SELECT i, i, 'n' FROM generate_series(1, 300) AS i",
        register: "SELECT transmute.register('m', 'CLUSTER t USING t_a')",
        plain: "CLUSTER t USING t_a",
        derived: "",
    },
    Scenario {
        name: "soaking",
        shapes: SAME,
        make: "CREATE TABLE t (id int PRIMARY KEY, a int NOT NULL, note text);
            INSERT INTO t SELECT i, i, 'n' FROM generate_series(1, 300) AS i",
        register: "SELECT transmute.register('m', $$ALTER TABLE t ALTER COLUMN a TYPE bigint, ADD COLUMN twice bigint GENERATED ALWAYS AS (a * 2) STORED$$,
            meta => '{\"pre_finalization_soak\": \"1 hour\", \"required_approvals\": 1}')",
        plain: REWRITE,
        derived: "SELECT id FROM t WHERE twice IS DISTINCT FROM a * 2",
    },
    Scenario {
        name: "late",
        shapes: SAME,
        make: "CREATE TABLE t (id int PRIMARY KEY, a int NOT NULL, note text);
            INSERT INTO t SELECT i, i, 'n' FROM generate_series(1, 300) AS i",
        register: "SELECT transmute.register('first', 'ALTER TABLE t ADD COLUMN b int'); SELECT transmute.register('m', $$ALTER TABLE t ALTER COLUMN b TYPE bigint$$,
            meta => '{\"depends_on\": [\"first\"], \"pre_execution_soak\": \"1 second\", \"requires_external_action\": true}')",
        plain: "ALTER TABLE t ADD COLUMN b int; ALTER TABLE t ALTER COLUMN b TYPE bigint",
        derived: "SELECT id FROM t WHERE b IS NOT NULL",
    },
    Scenario {
        name: "amended",
        shapes: SAME,
        make: "CREATE TABLE t (id int PRIMARY KEY, a int NOT NULL, v text DEFAULT '1');
            INSERT INTO t SELECT i, i, i::text FROM generate_series(1, 300) AS i; UPDATE t SET v = 'bad' WHERE id = 70",
        register: "SELECT transmute.register('m', $$ALTER TABLE t ALTER COLUMN v DROP DEFAULT, ALTER COLUMN v TYPE int USING v::int$$)",
        plain: "ALTER TABLE t ALTER COLUMN v DROP DEFAULT, ALTER COLUMN v TYPE int USING CASE WHEN v ~ '^[0-9]+$' THEN v::int END",
        derived: "SELECT id FROM t WHERE id <= 300 AND v IS DISTINCT FROM nullif(id, 70)",
    },
    Scenario {
        name: "poisoned",
        shapes: SAME,
        make: "CREATE TABLE t (id int PRIMARY KEY, a int NOT NULL, v text) WITH (fillfactor = 20);
            INSERT INTO t SELECT i, i, i::text FROM generate_series(1, 600) AS i; UPDATE t SET v = 'bad' WHERE id IN (70, 600)",
        register: "SELECT transmute.register('m', 'ALTER TABLE t ALTER COLUMN v TYPE int USING v::int', meta => '{\"required_approvals\": 1}')",
        plain: "UPDATE t SET v = 0 WHERE v = 'bad'; ALTER TABLE t ALTER COLUMN v TYPE int USING v::int",
        derived: "SELECT id FROM t WHERE id <= 600 AND id % 10 = 0 AND v IS DISTINCT FROM id",
    },
    Scenario {
        name: "all_poison",
        shapes: SAME,
        make: "CREATE TABLE t (id int PRIMARY KEY, a int NOT NULL, v text);
            INSERT INTO t SELECT i, i, 'bad' FROM generate_series(1, 300) AS i",
        register: "SELECT transmute.register('m', 'ALTER TABLE t ALTER COLUMN v TYPE int USING v::int', meta => '{\"max_dead_letters\": 100}')",
        plain: "UPDATE t SET v = 0 WHERE v = 'bad'; ALTER TABLE t ALTER COLUMN v TYPE int USING v::int",
        derived: "SELECT id FROM t WHERE id <= 300 AND id % 10 = 0 AND v IS DISTINCT FROM id",
    },
    Scenario {
        name: "rule_poison",
        shapes: SAME,
        make: "CREATE TABLE t (id int PRIMARY KEY, a int NOT NULL, v text) WITH (fillfactor = 20);
            INSERT INTO t SELECT i, i, i::text FROM generate_series(1, 600) AS i; UPDATE t SET v = 'bad' WHERE id IN (70, 600)",
        register: "SELECT transmute.register('m', $$ALTER TABLE t ADD COLUMN n int; UPDATE t SET n = v::int; ALTER TABLE t DROP COLUMN v$$)",
        plain: "",
        derived: "SELECT id FROM t WHERE id <= 600 AND id % 10 = 0 AND n IS DISTINCT FROM id",
    },
    Scenario {
        name: "data_poison",
        shapes: SAME,
        make: "CREATE TABLE t (id int PRIMARY KEY, a int NOT NULL, v text, n int);
            INSERT INTO t SELECT i, i, i::text FROM generate_series(1, 600) AS i; UPDATE t SET v = 'bad' WHERE id IN (70, 600)",
        register: "SELECT transmute.register('m', 'UPDATE t SET n = v::int')",
        plain: "SELECT 1",
        derived: "SELECT id FROM t WHERE id <= 600 AND id % 10 = 0 AND n IS DISTINCT FROM id",
    },
    Scenario {
        name: "keep_old",
        shapes: SAME,
        make: "CREATE TABLE t (id int PRIMARY KEY, a int NOT NULL, note text);
            CREATE TABLE child (id int PRIMARY KEY, t int REFERENCES t ON DELETE SET NULL);
            INSERT INTO t SELECT i, i, 'n' FROM generate_series(1, 300) AS i; INSERT INTO child SELECT i, i FROM generate_series(1, 100) AS i",
        register: "SELECT transmute.register('m', $$ALTER TABLE t ALTER COLUMN a TYPE bigint, ALTER COLUMN id TYPE bigint$$,
            meta => '{\"keep_old\": \"1 hour\"}')",
        plain: "ALTER TABLE t ALTER COLUMN a TYPE bigint, ALTER COLUMN id TYPE bigint; ALTER TABLE child ALTER COLUMN t TYPE bigint",
        derived: "SELECT child.id FROM child LEFT JOIN t ON t.id = child.t WHERE child.t IS NOT NULL AND t.id IS NULL",
    },
    Scenario {
        name: "versions",
        shapes: Shapes { old: view("v1.t"), new: view("v2.t") },
        make: "CREATE TABLE t (id int PRIMARY KEY, a int NOT NULL, note text);
            INSERT INTO t SELECT i, i, 'n' FROM generate_series(1, 300) AS i",
        register: "SELECT transmute.register('m', $$ALTER TABLE t ALTER COLUMN a TYPE bigint$$,
            meta => '{\"versioned_views_before\": \"v1\", \"versioned_views\": \"v2\"}')",
        plain: "",
        derived: "SELECT t.id FROM t FULL JOIN v1.t AS one ON one.id = t.id FULL JOIN v2.t AS two ON two.id = t.id
            WHERE one.a IS DISTINCT FROM t.a OR two.a IS DISTINCT FROM t.a",
    },
    Scenario {
        name: "rule",
        shapes: Shapes { new: Shape { value: "b", factor: 10, ..OLD }, ..SAME },
        make: "CREATE TABLE t (id int PRIMARY KEY, a int NOT NULL, name text NOT NULL DEFAULT 'A B') WITH (fillfactor = 20);
            INSERT INTO t SELECT i, i, 'A' || i || ' B' || i FROM generate_series(1, 600) AS i",
        register: "SELECT transmute.register('m', $$ALTER TABLE t ADD COLUMN first text, ADD COLUMN last text, ADD COLUMN b bigint;
            UPDATE t SET first = split_part(name, ' ', 1), last = split_part(name, ' ', 2), b = a * 10; ALTER TABLE t DROP COLUMN name, DROP COLUMN a$$,
            meta => '{\"reverse\": {\"name\": \"coalesce(first || '' '' || last, ''A B'')\", \"a\": \"(b / 10)::int\"}}')",
        plain: "",
        derived: "SELECT id FROM t WHERE id <= 600 AND (first, last) IS DISTINCT FROM ('A' || id, 'B' || id) AND id % 10 = 0 OR b IS NULL OR b % 10 <> 0",
    },
    Scenario {
        name: "kept_columns",
        shapes: SAME,
        make: "CREATE TABLE t (id int PRIMARY KEY, a int NOT NULL, name text DEFAULT 'A B', spare int);
            INSERT INTO t SELECT i, i, 'A' || i || ' B' || i FROM generate_series(1, 300) AS i",
        register: "SELECT transmute.register('m', $$ALTER TABLE t ADD COLUMN first text, ADD COLUMN last text;
            UPDATE t SET first = split_part(name, ' ', 1), last = split_part(name, ' ', 2);
            ALTER TABLE t DROP COLUMN name, DROP COLUMN spare$$,
            meta => '{\"keep_old\": \"1 hour\", \"reverse\": {\"name\": \"first || '' '' || last\"}}')",
        plain: "",
        derived: "SELECT id FROM t WHERE id <= 300 AND coalesce(to_jsonb(t) ->> 'name', (to_jsonb(t) ->> 'first') || ' ' || (to_jsonb(t) ->> 'last'))
            IS DISTINCT FROM 'A' || id || ' B' || id",
    },
    Scenario {
        name: "generated",
        shapes: SAME,
        make: "CREATE TABLE t (id int PRIMARY KEY, a int NOT NULL, name text NOT NULL DEFAULT 'A B') WITH (fillfactor = 20);
            INSERT INTO t SELECT i, i, 'A' || i || ' B' || i FROM generate_series(1, 600) AS i",
        register: "SELECT transmute.register('m', $$ALTER TABLE t ADD COLUMN first text, ADD COLUMN last text;
            UPDATE t SET first = split_part(name, ' ', 1), last = split_part(name, ' ', 2); ALTER TABLE t DROP COLUMN name$$,
            meta => '{\"pre_finalization_soak\": \"1 hour\"}')",
        plain: "",
        derived: "SELECT id FROM t WHERE id <= 600 AND (first, last) IS DISTINCT FROM ('A' || id, 'B' || id)",
    },
    Scenario {
        name: "names",
        shapes: Shapes { new: Shape { value: "amount", ..OLD }, ..SAME },
        make: "CREATE TABLE t (id int PRIMARY KEY, a int NOT NULL, note text, gone text DEFAULT 'g');
            CREATE TABLE other (id int PRIMARY KEY);
            INSERT INTO t SELECT i, i, 'n' FROM generate_series(1, 300) AS i",
        register: "SELECT transmute.register('m', $$ALTER TABLE t RENAME COLUMN a TO amount; ALTER TABLE other RENAME TO another;
            ALTER TABLE t DROP COLUMN gone$$)",
        plain: "",
        derived: "SELECT id FROM t WHERE id <= 300 AND note IS DISTINCT FROM 'n' UNION ALL SELECT id FROM another",
    },
    Scenario {
        name: "data",
        shapes: SAME,
        make: "CREATE TABLE t (id int PRIMARY KEY, a int NOT NULL, n int NOT NULL DEFAULT 0);
            CREATE TABLE empty (a int);
            INSERT INTO t SELECT i, i, 0 FROM generate_series(1, 600) AS i",
        register: "SELECT transmute.register('m', $$UPDATE t SET n = n + 1 WHERE id <= 600; DELETE FROM t WHERE id % 10 = 0; TRUNCATE empty$$)",
        plain: "SELECT 1",
        derived: "SELECT id FROM t WHERE id <= 600 AND n <> 1 OR id % 10 = 0",
    },
    Scenario {
        name: "by_hand",
        shapes: SAME,
        make: "CREATE TABLE t (id int PRIMARY KEY, a int NOT NULL, n int NOT NULL DEFAULT 0, done boolean);
            INSERT INTO t SELECT i, i, 0 FROM generate_series(1, 300) AS i",
        register: "SELECT transmute.register_phases('m', '', $$UPDATE t SET n = n + 1, done = true
            WHERE id IN (SELECT id FROM t WHERE done IS NULL AND id <= 300 ORDER BY id LIMIT $1)$$, '', meta => '{\"batch_size\": 50}')",
        plain: "SELECT 1",
        derived: "SELECT id FROM t WHERE id <= 300 AND n <> 1",
    },
    Scenario {
        name: "copy",
        shapes: SAME,
        make: "CREATE TABLE t (id int PRIMARY KEY, a int NOT NULL);
            CREATE TABLE old (id int PRIMARY KEY, a text); CREATE TABLE new (id int, a text);
            INSERT INTO t SELECT i, i FROM generate_series(1, 100) AS i;
            INSERT INTO old SELECT i, i::text FROM generate_series(1, 600) AS i",
        register: "SELECT transmute.register_copy('m', 'old', 'new', '{id}', meta => '{\"batch_size\": 200}')",
        plain: "SELECT 1",
        derived: "SELECT id FROM old FULL JOIN new USING (id) WHERE old.a IS DISTINCT FROM new.a UNION ALL SELECT id FROM new GROUP BY id HAVING count(*) > 1",
    },
    Scenario {
        name: "index",
        shapes: SAME,
        make: "CREATE TABLE t (id int PRIMARY KEY, a int NOT NULL, note text, u int UNIQUE);
            CREATE INDEX t_a ON t (a);
            INSERT INTO t SELECT i, i, 'n' || i, i FROM generate_series(1, 300) AS i",
        register: "SELECT transmute.register('m', $$CREATE INDEX by_note ON t (note); ALTER TABLE t ADD CONSTRAINT once UNIQUE (id, a)$$)",
        plain: "CREATE INDEX by_note ON t (note); ALTER TABLE t ADD CONSTRAINT once UNIQUE (id, a)",
        derived: "",
    },
    Scenario {
        name: "partitioned",
        shapes: SAME,
        make: "CREATE TABLE p (id int PRIMARY KEY); INSERT INTO p VALUES (1);
            CREATE TABLE t (id int PRIMARY KEY, a int NOT NULL, r int DEFAULT 1) PARTITION BY RANGE (id);
            CREATE TABLE t_low PARTITION OF t FOR VALUES FROM (MINVALUE) TO (200);
            CREATE TABLE t_middle PARTITION OF t FOR VALUES FROM (200) TO (1000000) PARTITION BY RANGE (id);
            CREATE TABLE t_middle_1 PARTITION OF t_middle FOR VALUES FROM (200) TO (1000000);
            CREATE TABLE t_rest PARTITION OF t DEFAULT;
            INSERT INTO t SELECT i, i FROM generate_series(1, 400) AS i",
        register: "SELECT transmute.register('m', $$CREATE INDEX i ON t (a, id); ALTER TABLE t ADD CONSTRAINT k FOREIGN KEY (r) REFERENCES p$$,
            meta => '{\"pre_finalization_soak\": \"1 hour\"}')",
        plain: "CREATE INDEX i ON t (a, id); ALTER TABLE t ADD CONSTRAINT k FOREIGN KEY (r) REFERENCES p",
        derived: "",
    },
    Scenario {
        name: "written",
        shapes: SAME,
        make: "CREATE TABLE t (id int PRIMARY KEY, a int NOT NULL, note text);
            INSERT INTO t SELECT i, i, 'n' FROM generate_series(1, 300) AS i",
        register: "SELECT transmute.load(E'-- migration: m\\n-- id: m\\n-- migrate: up\\nCREATE TABLE other (id int);\\nALTER TABLE t ADD COLUMN b int DEFAULT 7, DROP COLUMN note;\\n', '{\"mode\": \"direct\"}')",
        plain: "CREATE TABLE other (id int); ALTER TABLE t ADD COLUMN b int DEFAULT 7, DROP COLUMN note",
        derived: "SELECT id FROM t WHERE b IS DISTINCT FROM 7",
    },
    Scenario {
        name: "stands",
        shapes: SAME,
        make: "CREATE TABLE t (id int PRIMARY KEY, a int NOT NULL);
            INSERT INTO t SELECT i, i FROM generate_series(1, 300) AS i",
        register: "SELECT transmute.register('m', 'ALTER TABLE t ADD COLUMN b int DEFAULT 7')",
        plain: "ALTER TABLE t ADD COLUMN b int DEFAULT 7",
        derived: "SELECT id FROM t WHERE b IS DISTINCT FROM 7",
    },
    Scenario {
        name: "tree",
        shapes: SAME,
        make: "CREATE TABLE t (id int PRIMARY KEY, a int NOT NULL) PARTITION BY RANGE (id);
            CREATE TABLE t_low PARTITION OF t FOR VALUES FROM (MINVALUE) TO (200);
            CREATE TABLE t_rest PARTITION OF t DEFAULT;
            INSERT INTO t SELECT i, i FROM generate_series(1, 400) AS i",
        register: "SELECT transmute.register('m', $$ALTER TABLE t ALTER COLUMN a TYPE bigint$$)",
        plain: "ALTER TABLE t ALTER COLUMN a TYPE bigint",
        derived: "",
    },
    SUCCESSOR,
    Scenario {
        name: "successor_soaking",
        register: concat!(
            "SELECT transmute.register('m', $$",
            becomes_partitioned!("INSERT INTO t_new SELECT * FROM t;"),
            "$$, meta => '{\"pre_finalization_soak\": \"1 hour\"}')"
        ),
        ..SUCCESSOR
    },
];

impl Scenario {
    /// It waits for a time of the server's clock, which a jump brings near or takes away.
    pub fn has_deadline(&self) -> bool {
        ["soak", "approvals", "1 hour"]
            .iter()
            .any(|word| self.register.contains(word))
    }
}

/// The scenario of this name.
pub fn named(name: &str) -> &'static Scenario {
    SCENARIOS
        .iter()
        .find(|scenario| scenario.name == name)
        .unwrap_or_else(|| panic!("no scenario {name}"))
}
