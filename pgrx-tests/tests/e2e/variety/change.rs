//! The changes that are tried: each rewrites the table.

use super::part::{by_server, column, Change, Fill, INTEGER};

/// A column whose old and new type have little in common.
const OTHER: Change = Change {
    is_integer: false,
    expr: "({c} IS NULL)",
    pred: "{c} IS NOT NULL",
    ..INTEGER
};

/// A change that is about something else than the column.
const BESIDE: Change = Change {
    is_integer: true,
    ..INTEGER
};

const DROPPED: super::part::Column = super::part::Column {
    name: "old",
    definition: "text DEFAULT 'old'",
    fill: Fill::FirstLoad("'old ' || g"),
};

pub const CHANGES: &[Change] = &[
    Change {
        name: "int to bigint",
        alter: "ALTER {c} TYPE bigint",
        ..INTEGER
    },
    Change {
        name: "int to bigint, computed, with its default",
        subject: "int DEFAULT 7",
        value_after: "g::bigint * 2",
        alter: "ALTER COLUMN {c} SET DATA TYPE bigint USING {c}::bigint * 2, ALTER {c} SET DEFAULT 5000000000",
        can_be_key: false,
        ..INTEGER
    },
    Change {
        name: "bigint to int",
        subject: "bigint",
        alter: "ALTER {c} TYPE int",
        ..INTEGER
    },
    Change {
        name: "smallint to int with serial-like default",
        first: &["CREATE SEQUENCE {s}.«numbers» START 20000 INCREMENT -1 MAXVALUE 20000 MINVALUE -32768"],
        subject: "smallint DEFAULT 3",
        value: "g::smallint",
        alter: "ALTER {c} TYPE int",
        ..INTEGER
    },
    Change {
        name: "int to text",
        alter: "ALTER {c} TYPE text USING {c}::text",
        value_after: "g::text",
        ..OTHER
    },
    Change {
        name: "int to text by assignment",
        alter: "ALTER {c} TYPE text COLLATE \"C\"",
        value_after: "g::text",
        ..OTHER
    },
    Change {
        name: "text to int",
        subject: "text",
        value: "' ' || g || ' '",
        value_after: "g",
        alter: "ALTER {c} TYPE int USING trim({c})::int",
        can_be_key: false,
        ..OTHER
    },
    Change {
        name: "text to a shorter varchar",
        subject: "text",
        value: "'value ' || g",
        value_after: "'value ' || g",
        expr: "lower({c}::text)",
        pred: "{c} <> 'value 3'",
        alter: "ALTER {c} TYPE varchar(40)",
        is_integer: false,
        ..INTEGER
    },
    Change {
        name: "varchar to char",
        subject: "varchar(20) COLLATE \"C\"",
        value: "'v' || g",
        value_after: "'v' || g",
        alter: "ALTER {c} TYPE char(20)",
        can_be_key: false,
        ..OTHER
    },
    Change {
        name: "numeric to a finer one",
        subject: "numeric(10,2)",
        value: "g + 0.25",
        value_after: "g + 0.2501",
        pred: "{c} > 3.5",
        expr: "round({c})",
        alter: "ALTER {c} TYPE numeric(20,4)",
        is_integer: false,
        ..INTEGER
    },
    Change {
        name: "numeric to double precision",
        subject: "numeric",
        value: "g / 8.0",
        value_after: "g / 8.0",
        pred: "{c} IS NOT NULL",
        expr: "abs({c})",
        alter: "ALTER {c} TYPE double precision",
        is_integer: false,
        can_be_key: false,
        ..INTEGER
    },
    Change {
        name: "timestamp to timestamptz at a zone",
        subject: "timestamp",
        value: "timestamp '2024-03-30 23:30' + g * interval '1 minute'",
        value_after: "timestamptz '2025-03-30 23:30+00' + g * interval '1 minute'",
        alter: "ALTER {c} TYPE timestamptz USING {c} AT TIME ZONE 'Europe/Berlin'",
        can_be_key: false,
        ..OTHER
    },
    Change {
        name: "timestamp to date",
        subject: "timestamp(3)",
        value: "timestamp '2024-01-01 12:00' + g * interval '1 day'",
        value_after: "date '2024-01-01' + g",
        alter: "ALTER {c} TYPE date USING {c}::date",
        can_be_key: false,
        ..OTHER
    },
    Change {
        name: "text to an enum",
        first: &["CREATE TYPE {s}.«mood» AS ENUM ('sad', 'it''s \\', 'ok')"],
        subject: "text",
        value: "(ARRAY['sad', 'it''s \\', 'ok'])[g % 3 + 1]",
        value_after: "'ok'",
        alter: "ALTER {c} TYPE {s}.«mood» USING {c}::{s}.«mood»",
        is_unique: false,
        ..OTHER
    },
    Change {
        name: "enum to text",
        first: &["CREATE TYPE {s}.«mood» AS ENUM ('sad', 'it''s \\', 'ok')"],
        subject: "{s}.«mood» DEFAULT 'it''s \\'",
        value: "(ARRAY['sad', 'it''s \\', 'ok'])[g % 3 + 1]::{s}.«mood»",
        value_after: "'more'",
        alter: "ALTER {c} DROP DEFAULT, ALTER {c} TYPE text, ALTER {c} SET DEFAULT 'it''s \\'",
        is_unique: false,
        ..OTHER
    },
    Change {
        name: "text to jsonb",
        subject: "text",
        value: "json_build_object('g', g, 'long', repeat(md5(g::text), g % 100))::text",
        value_after: "'{}'",
        alter: "ALTER {c} TYPE jsonb USING {c}::jsonb",
        // Not for btree: values are longer than a page's third.
        is_unique: false,
        ..OTHER
    },
    Change {
        name: "int array to bigint array",
        subject: "int[] DEFAULT '{1,2}'",
        value: "ARRAY[g, NULL, -g]",
        value_after: "ARRAY[5000000000 + g]",
        alter: "ALTER {c} TYPE bigint[] USING {c}::bigint[]",
        can_be_key: false,
        ..OTHER
    },
    Change {
        name: "uuid to bytea",
        subject: "uuid",
        value: "md5('u' || g)::uuid",
        value_after: "decode(md5('u' || g), 'hex')",
        alter: "ALTER {c} TYPE bytea USING decode(replace({c}::text, '-', ''), 'hex')",
        can_be_key: false,
        ..OTHER
    },
    Change {
        name: "boolean to int by CASE",
        subject: "boolean",
        value: "g % 2 = 0",
        value_after: "1",
        alter: "ALTER {c} TYPE smallint USING CASE WHEN {c} THEN 1 ELSE 0 END",
        is_unique: false,
        ..OTHER
    },
    Change {
        name: "int to a domain with a rule",
        first: &["CREATE DOMAIN {s}.«amount» AS bigint DEFAULT 11 NOT NULL CHECK (VALUE > -5)"],
        alter: "ALTER {c} TYPE {s}.«amount»",
        ..INTEGER
    },
    Change {
        name: "the value of other columns",
        columns: &[column("low", "int", "g % 100"), column("high", "int", "g / 100")],
        alter: "ALTER {c} TYPE bigint USING «high»::bigint * 100 + «low» + {c} * 0",
        value_after: "1000 + g",
        can_be_key: false,
        ..INTEGER
    },
    Change {
        name: "two columns that take each other's value",
        columns: &[column("pair", "int", "-g")],
        alter: "ALTER {c} TYPE bigint USING -«pair», ALTER «pair» TYPE bigint USING {c} + 1000",
        can_be_key: false,
        ..INTEGER
    },
    Change {
        name: "a volatile default",
        alter: "ADD COLUMN «token» uuid DEFAULT gen_random_uuid()",
        volatile: &["token"],
        distinct: &["token"],
        ..BESIDE
    },
    Change {
        name: "a volatile default, unique and not null",
        alter: "ADD COLUMN «token» text COLLATE \"C\" NOT NULL DEFAULT md5(random()::text) CONSTRAINT «tokens» UNIQUE CHECK («token» <> '')",
        volatile: &["token"],
        distinct: &["token"],
        ..BESIDE
    },
    Change {
        name: "a time of the statement",
        alter: "ADD COLUMN «made» timestamptz NOT NULL DEFAULT clock_timestamp()",
        volatile: &["made"],
        ..BESIDE
    },
    Change {
        name: "a stored generated column",
        alter: "ADD COLUMN «twice» bigint GENERATED ALWAYS AS («n» * 2) STORED, ADD CHECK («twice» >= «n» OR «n» < 0)",
        ..BESIDE
    },
    Change {
        name: "a serial column",
        alter: "ADD COLUMN «number» serial",
        volatile: &["number"],
        distinct: &["number"],
        ..BESIDE
    },
    Change {
        name: "an identity column",
        alter: "ADD COLUMN «number» bigint GENERATED BY DEFAULT AS IDENTITY (START 500 INCREMENT 5 CACHE 20)",
        volatile: &["number"],
        distinct: &["number"],
        ..BESIDE
    },
    Change {
        name: "an identity column that becomes unique",
        alter: "ADD «number» int GENERATED ALWAYS AS IDENTITY CONSTRAINT «numbered» UNIQUE, ALTER {c} TYPE bigint",
        volatile: &["number"],
        distinct: &["number"],
        ..BESIDE
    },
    Change {
        name: "a domain column with a rule",
        first: &["CREATE DOMAIN {s}.«short» AS text DEFAULT 'd' CHECK (length(VALUE) < 9)"],
        alter: "ADD «label» {s}.«short»",
        ..BESIDE
    },
    Change {
        name: "from logged to unlogged",
        alter: "SET UNLOGGED",
        keeps_logged: false,
        ..BESIDE
    },
    Change {
        name: "from unlogged to logged",
        before: &["ALTER TABLE {t} SET UNLOGGED"],
        alter: "SET LOGGED",
        keeps_logged: false,
        ..BESIDE
    },
    Change {
        name: "to a tablespace",
        alter: "SET TABLESPACE variety_target",
        ..BESIDE
    },
    Change {
        name: "to a tablespace and another type",
        alter: "ALTER {c} TYPE bigint, SET TABLESPACE variety_target",
        ..INTEGER
    },
    Change {
        name: "to a tablespace, unlogged",
        alter: "SET TABLESPACE variety_target, SET UNLOGGED, ADD CONSTRAINT «n_uq» UNIQUE («n»)",
        keeps_logged: false,
        ..BESIDE
    },
    Change {
        name: "many subcommands",
        columns: &[DROPPED, column("later", "int", "g % 50")],
        alter: "ALTER {c} TYPE bigint, ALTER {c} SET DEFAULT 9, ALTER {c} SET NOT NULL, \
          ALTER {c} SET STATISTICS 44, ALTER «later» SET NOT NULL, ADD CONSTRAINT «positive» CHECK ({c} > 0), \
          DROP CONSTRAINT IF EXISTS «nothing», DROP COLUMN «old», \
          ADD COLUMN «flag» boolean NOT NULL DEFAULT true, ADD COLUMN «old» varchar(5) DEFAULT 'new', \
          ADD CONSTRAINT «later_uq» UNIQUE («n», «later»), SET (fillfactor = 80), ALTER «later» SET STORAGE PLAIN",
        ..INTEGER
    },
    Change {
        name: "a NOT VALID check and a column less",
        columns: &[DROPPED],
        alter: "DROP COLUMN IF EXISTS «old», ALTER {c} TYPE bigint, ADD CONSTRAINT «unproven» CHECK («n» < 0 OR «n» > {rows} + 60) NOT VALID",
        ..INTEGER
    },
    Change {
        name: "row security and replica identity with it",
        alter: "ALTER {c} TYPE bigint, ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY, REPLICA IDENTITY FULL",
        ..INTEGER
    },
    Change {
        name: "the type of a stored generated column",
        columns: &[by_server("sum", "int GENERATED ALWAYS AS («n» + 1) STORED")],
        alter: "ALTER «sum» TYPE bigint",
        ..BESIDE
    },
    Change {
        name: "the expression of a stored generated column",
        since: 17,
        columns: &[by_server("sum", "int GENERATED ALWAYS AS («n» + 1) STORED")],
        alter: "ALTER «sum» SET EXPRESSION AS («n» + 2)",
        ..BESIDE
    },
    Change {
        name: "a generated column that becomes an ordinary one",
        columns: &[by_server("sum", "int GENERATED ALWAYS AS («n» + 1) STORED")],
        alter: "ALTER «sum» DROP EXPRESSION, ALTER {c} TYPE bigint",
        ..INTEGER
    },
    Change {
        name: "varchar to text, which moves nothing",
        subject: "varchar(30)",
        value: "'v' || g",
        value_after: "'v' || g || repeat('x', 40)",
        pred: "{c} <> 'v3'",
        alter: "ALTER {c} TYPE text",
        may_stay: true,
        ..OTHER
    },
    Change {
        name: "another collation, which moves the indexes",
        subject: "text",
        value: "'V' || g",
        value_after: "'w' || g",
        expr: "lower({c})",
        pred: "{c} <> 'v3'",
        alter: "ALTER {c} TYPE text COLLATE \"C.utf8\", ALTER {c} SET DEFAULT 'x'",
        may_stay: true,
        ..OTHER
    },
    Change {
        name: "an identity column to bigint",
        columns: &[by_server("num", "int GENERATED BY DEFAULT AS IDENTITY (START 40 CACHE 3)")],
        before: &["ALTER TABLE {t} ADD CONSTRAINT «nums» UNIQUE («num»)"],
        alter: "ALTER «num» TYPE bigint",
        distinct: &["num"],
        ..BESIDE
    },
    Change {
        name: "an identity column with other properties",
        columns: &[by_server("num", "int GENERATED BY DEFAULT AS IDENTITY")],
        alter: "ALTER «num» TYPE bigint, ALTER «num» SET GENERATED ALWAYS SET INCREMENT BY 7 RESTART WITH 50000, ALTER «num» SET STATISTICS 9",
        distinct: &["num"],
        ..BESIDE
    },
    Change {
        name: "an identity column that is one no more, and a new one",
        columns: &[by_server("num", "int GENERATED BY DEFAULT AS IDENTITY"), by_server("new", "int NOT NULL DEFAULT 3")],
        alter: "ALTER «num» DROP IDENTITY, ALTER «num» TYPE bigint, ALTER «num» SET DEFAULT -1, \
          ALTER «new» DROP DEFAULT, ALTER «new» ADD GENERATED ALWAYS AS IDENTITY (START 90)",
        ..BESIDE
    },
    Change {
        name: "a serial column to bigint",
        columns: &[by_server("num", "serial")],
        alter: "ALTER «num» TYPE bigint",
        distinct: &["num"],
        ..BESIDE
    },
    Change {
        name: "a default of a function that counts",
        first: &[
            "CREATE SEQUENCE {s}.«numbers» START 7000",
            "GRANT USAGE ON SEQUENCE {s}.«numbers» TO variety_owner",
            "CREATE FUNCTION {s}.«next»() RETURNS bigint LANGUAGE sql AS $$ SELECT nextval($q${s}.«numbers»$q$::regclass) $$",
        ],
        alter: "ADD COLUMN «counted» bigint DEFAULT {s}.«next»() + 0 CHECK («counted» > 0)",
        volatile: &["counted"],
        distinct: &["counted"],
        ..BESIDE
    },
    Change {
        name: "a conversion by a function of the schema",
        first: &["CREATE FUNCTION {s}.«convert»(x int, t text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN t || x; END'"],
        value_after: "'later' || g",
        alter: "ALTER {c} TYPE text USING {s}.«convert»({c}, 'n')",
        can_be_key: false,
        ..OTHER
    },
    Change {
        name: "a foreign key dropped with it",
        first: &["CREATE TABLE {s}.«goal» (id int PRIMARY KEY)", "INSERT INTO {s}.«goal» VALUES (1)"],
        columns: &[column("goal1", "int", "1"), column("goal2", "int", "NULL"), column("goal3", "int", "1")],
        before: &[
            "ALTER TABLE {t} ADD CONSTRAINT «gone» FOREIGN KEY («goal1») REFERENCES {s}.«goal»",
            "ALTER TABLE {t} ADD CONSTRAINT «softer» FOREIGN KEY («goal2») REFERENCES {s}.«goal»",
            "ALTER TABLE {t} ADD CONSTRAINT «proven» FOREIGN KEY («goal3») REFERENCES {s}.«goal» NOT VALID",
        ],
        alter: "DROP CONSTRAINT «gone», ALTER CONSTRAINT «softer» DEFERRABLE INITIALLY DEFERRED, VALIDATE CONSTRAINT «proven», ALTER {c} TYPE bigint",
        ..INTEGER
    },
    Change {
        name: "triggers and rules switched with it",
        first: &["CREATE FUNCTION {s}.«idle»() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'"],
        before: &[
            "CREATE TRIGGER «idle1» BEFORE UPDATE ON {t} FOR EACH ROW EXECUTE FUNCTION {s}.«idle»()",
            "CREATE TRIGGER «idle2» BEFORE UPDATE ON {t} FOR EACH ROW EXECUTE FUNCTION {s}.«idle»()",
            "CREATE RULE «idler» AS ON DELETE TO {t} WHERE OLD.«n» = -1 DO INSTEAD NOTHING",
        ],
        alter: "ALTER {c} TYPE bigint, DISABLE TRIGGER «idle1», ENABLE REPLICA TRIGGER «idle2», ENABLE ALWAYS RULE «idler»",
        ..INTEGER
    },
    Change {
        name: "constraints by index, and exclusion",
        before: &[
            "CREATE UNIQUE INDEX «prepared» ON {t} («n»)",
            "ALTER TABLE {t} ADD CONSTRAINT «doomed» CHECK («n» > 0), ADD CONSTRAINT «doomed2» UNIQUE («n», «m»)",
        ],
        alter: "ALTER {c} TYPE bigint, ADD CONSTRAINT «prepared2» UNIQUE USING INDEX «prepared» DEFERRABLE, \
          ADD EXCLUDE USING hash («n» WITH =) WHERE («n» > 50), DROP CONSTRAINT «doomed», DROP CONSTRAINT «doomed2», ADD UNIQUE NULLS NOT DISTINCT («m», «n»)",
        ..INTEGER
    },
    Change {
        name: "options of table and columns with it",
        before: &["ALTER TABLE {t} SET (fillfactor = 60, autovacuum_enabled = off)", "CREATE INDEX «clustered» ON {t} («m»)"],
        alter: "ALTER {c} TYPE bigint, SET (parallel_workers = 3, toast_tuple_target = 300), RESET (fillfactor), CLUSTER ON «clustered», \
          ALTER {c} SET (n_distinct = -1), REPLICA IDENTITY NOTHING, ALTER «n» DROP NOT NULL, ALTER «m» SET NOT NULL",
        ..INTEGER
    },
    Change {
        name: "columns of every kind of storage",
        since: 16,
        alter: "ALTER {c} TYPE bigint, ADD «far» text STORAGE EXTERNAL COMPRESSION pglz DEFAULT repeat('far ', 1000), \
          ADD «near» text COLLATE \"C\" STORAGE MAIN COMPRESSION lz4, ADD «plain» bytea STORAGE PLAIN DEFAULT '\\x00', \
          ADD CONSTRAINT «fars» CHECK (length(«far») > 5)",
        ..INTEGER
    },
    Change {
        name: "a virtual generated column with it",
        since: 18,
        alter: "ALTER {c} TYPE bigint, ADD «seen» bigint GENERATED ALWAYS AS («n» * 3) VIRTUAL, ADD CONSTRAINT «must» NOT NULL «m»",
        ..INTEGER
    },
];
