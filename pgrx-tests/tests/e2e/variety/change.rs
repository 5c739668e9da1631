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
        pred: "{c} IN ('v1', 'v2', 'v30')",
        alter: "ALTER {c} TYPE char(20)",
        // Two keys may become one.
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
        pred: "{c} > 3",
        expr: "abs({c})",
        alter: "ALTER {c} TYPE double precision",
        is_integer: false,
        // Two keys may become one.
        can_be_key: false,
        ..INTEGER
    },
    Change {
        name: "timestamp to timestamptz at a zone",
        subject: "timestamp",
        value: "timestamp '2024-03-30 23:30' + g * interval '1 minute'",
        value_after: "timestamptz '2025-03-30 23:30+00' + g * interval '1 minute'",
        pred: "{c} > '2024-01-01'",
        alter: "ALTER {c} TYPE timestamptz USING {c} AT TIME ZONE 'Europe/Berlin'",
        ..OTHER
    },
    Change {
        name: "timestamp to date",
        subject: "timestamp(3)",
        value: "timestamp '2024-01-01 12:00' + g * interval '1 day'",
        value_after: "date '2024-01-01' + g",
        alter: "ALTER {c} TYPE date USING {c}::date",
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
        ..OTHER
    },
    Change {
        name: "uuid to bytea",
        subject: "uuid",
        value: "md5('u' || g)::uuid",
        value_after: "decode(md5('u' || g), 'hex')",
        alter: "ALTER {c} TYPE bytea USING decode(replace({c}::text, '-', ''), 'hex')",
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
        alter: "ALTER {c} TYPE bigint USING «high»::bigint * 1000 + «low» * 0 + {c}",
        value_after: "1000000 + g",
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
];
