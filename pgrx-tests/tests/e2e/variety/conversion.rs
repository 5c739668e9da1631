//! Changes of a column's type, by cast and by USING.

use super::part::{column, Change, INTEGER};

/// A column whose old and new type have little in common.
const OTHER: Change = Change {
    is_integer: false,
    expr: "({c} IS NULL)",
    pred: "{c} IS NOT NULL",
    ..INTEGER
};

pub const CONVERSIONS: &[Change] = &[
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
        name: "smallint to int",
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
        name: "a column converted three times, and another one by it",
        columns: &[column("later", "int", "g % 50")],
        alter: "ALTER {c} TYPE text USING 'n' || {c}, ALTER «later» TYPE text; \
          ALTER TABLE {t} ALTER «later» TYPE varchar(40) USING upper({c}) || '/' || «later»; \
          ALTER TABLE {t} ALTER {c} TYPE numeric USING substr({c}, 2)::numeric; \
          ALTER TABLE {t} ALTER {c} TYPE bigint, ALTER «later» TYPE text COLLATE \"C\" USING {c} + 1 || «later»",
        value_after: "g",
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
        can_be_key: false,
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
        name: "a conversion by a function of the schema",
        first: &["CREATE FUNCTION {s}.«convert»(x int, t text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN t || x; END'"],
        value_after: "'later' || g",
        alter: "ALTER {c} TYPE text USING {s}.«convert»({c}, 'n')",
        can_be_key: false,
        ..OTHER
    },
];
