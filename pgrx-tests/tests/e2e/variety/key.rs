//! The keys that tables have.

use super::part::{by_server, column, Key};

const NONE: Key = Key {
    name: "",
    first: &[],
    columns: &[],
    constraint: "",
    before: &[],
    bump: "",
    is_subject: false,
};

pub const KEYS: &[Key] = &[
    Key {
        name: "int",
        columns: &[column("id", "int", "g")],
        constraint: "PRIMARY KEY («id»)",
        bump: "«id» = «id» + 1000000",
        ..NONE
    },
    Key {
        name: "the changed column",
        constraint: "PRIMARY KEY ({c})",
        is_subject: true,
        ..NONE
    },
    Key {
        name: "another column and the changed one",
        columns: &[column("id", "text", "(g % 7)::text")],
        constraint: "CONSTRAINT «both» UNIQUE («id», {c})",
        before: &["ALTER TABLE {t} ALTER {c} SET NOT NULL, ALTER «id» SET NOT NULL"],
        bump: "«id» = «id» || 'x'",
        is_subject: true,
        ..NONE
    },
    Key {
        name: "bigint identity",
        columns: &[by_server("id", "bigint GENERATED ALWAYS AS IDENTITY")],
        constraint: "PRIMARY KEY («id»)",
        ..NONE
    },
    Key {
        name: "serial",
        columns: &[by_server("id", "bigserial")],
        constraint: "CONSTRAINT «pk» PRIMARY KEY («id») WITH (fillfactor = 60)",
        bump: "«id» = «id» + 1000000",
        ..NONE
    },
    Key {
        name: "text and int",
        columns: &[
            column("id", "text COLLATE \"C\"", "'k' || g % 10"),
            column("id2", "int", "g"),
        ],
        constraint: "PRIMARY KEY («id2», «id») INCLUDE («n»)",
        bump: "«id» = upper(«id»)",
        ..NONE
    },
    Key {
        name: "text of a collation of its own",
        first: &["CREATE COLLATION {s}.«own» (provider = libc, locale = 'C.UTF-8')"],
        columns: &[column("id", "text COLLATE {s}.«own»", "'Kéy ' || g")],
        constraint: "PRIMARY KEY («id»)",
        bump: "«id» = upper(«id»)",
        ..NONE
    },
    Key {
        name: "uuid",
        columns: &[column("id", "uuid", "md5(g::text)::uuid")],
        constraint: "PRIMARY KEY («id»)",
        bump: "«id» = md5(«id»::text)::uuid",
        ..NONE
    },
    Key {
        name: "unique and not null",
        columns: &[column("id", "varchar(40) NOT NULL", "'v' || g")],
        constraint: "UNIQUE («id»)",
        bump: "«id» = «id» || 'x'",
        ..NONE
    },
    Key {
        name: "a unique index that sorts downwards",
        columns: &[
            column("id", "text NOT NULL", "'t' || g"),
            column("id2", "int NOT NULL", "g % 3"),
        ],
        before: &["CREATE UNIQUE INDEX «uix» ON {t} («id2» DESC NULLS FIRST, «id» text_pattern_ops DESC) INCLUDE («n»)"],
        bump: "«id2» = «id2» + 10",
        ..NONE
    },
    Key {
        name: "deferrable",
        columns: &[column("id", "int", "g")],
        constraint: "PRIMARY KEY («id») DEFERRABLE INITIALLY DEFERRED",
        // Only at the end of the statement are they different again.
        bump: "«id» = «id» + 17",
        ..NONE
    },
    Key {
        name: "numeric",
        columns: &[column("id", "numeric", "g / 10.0")],
        constraint: "PRIMARY KEY («id»)",
        // Equal to the old one, with more digits.
        bump: "«id» = «id» + 0.0000",
        ..NONE
    },
    Key {
        name: "time",
        columns: &[column(
            "id",
            "timestamptz(3)",
            "timestamptz '2024-01-01 00:00+00' + g * interval '1 minute'",
        )],
        constraint: "PRIMARY KEY («id») USING INDEX TABLESPACE variety_space",
        bump: "«id» = «id» + interval '10 years'",
        ..NONE
    },
    Key {
        name: "domain, enum and bytes",
        first: &[
            "CREATE DOMAIN {s}.«positive» AS int CHECK (VALUE > 0)",
            "CREATE TYPE {s}.«side» AS ENUM ('left', 'right')",
        ],
        columns: &[
            column("id", "{s}.«positive»", "g"),
            column("id2", "{s}.«side»", "(ARRAY['left', 'right'])[g % 2 + 1]::{s}.«side»"),
            column("id3", "bytea", "decode(md5(g::text), 'hex')"),
        ],
        constraint: "PRIMARY KEY («id2», «id3», «id»)",
        bump: "«id3» = «id3» || '\\x00'",
        ..NONE
    },
    Key {
        name: "blank-padded",
        columns: &[column("id", "char(12)", "g::text")],
        constraint: "PRIMARY KEY («id»)",
        bump: "«id» = 'x' || «id»",
        ..NONE
    },
];
