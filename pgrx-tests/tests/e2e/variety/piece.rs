//! What tables have: columns, indexes and constraints.

use super::part::{by_server, column, short_lived, Needs, Piece, NOTHING};

pub const COLUMNS: &[Piece] = &[
    Piece {
        name: "values out of line",
        columns: &[column(
            "doc",
            "text",
            "CASE WHEN g % 10 = 0 THEN repeat(md5(g::text), 200) ELSE 'short' END",
        )],
        before: &["ALTER TABLE {t} ALTER «doc» SET STORAGE EXTERNAL"],
        ..NOTHING
    },
    Piece {
        name: "values compressed, in line and out of line",
        columns: &[
            column("zip", "text COMPRESSION lz4", "repeat('abc' || g, 1000)"),
            column("body", "text COMPRESSION pglz", "(SELECT string_agg(md5(g::text || i), '') FROM generate_series(1, CASE WHEN g % 20 = 0 THEN 300 ELSE 3 END) AS i)"),
        ],
        before: &["ALTER TABLE {t} ALTER «zip» SET STORAGE MAIN"],
        ..NOTHING
    },
    Piece {
        name: "json, range, network and geometry",
        columns: &[
            column("json", "jsonb DEFAULT '{\"a\": 1}'", "jsonb_build_object('g', g, 'list', ARRAY[g, g % 7])"),
            column("json text", "json", "json_build_object('g', g)"),
            column("many", "int4multirange", "int4multirange(int4range(g, g + 5), int4range(g + 9, g + 10))"),
            column("net", "inet", "inet '10.0.0.0' + g"),
            column("bits", "bit varying(9)", "(g % 256)::bit(8)"),
            column("point", "point", "point(g, -g)"),
            column("words", "tsvector", "to_tsvector('simple', 'word' || g % 9 || ' all')"),
        ],
        after: &[
            "CREATE INDEX «json_gin» ON {t} USING gin («json» jsonb_path_ops) WITH (fastupdate = off)",
            "CREATE INDEX «words_gist» ON {t} USING gist («words» tsvector_ops (siglen = 100))",
            "CREATE INDEX «point_spgist» ON {t} USING spgist («point»)",
            "CREATE INDEX «net_gist» ON {t} USING gist («net» inet_ops, «many») WITH (fillfactor = 50)",
        ],
        queries: &[
            "SELECT count(*) FROM {t} WHERE «json» @> '{\"list\": [3]}'",
            "SELECT count(*) FROM {t} WHERE «words» @@ 'word3'",
            "SELECT count(*) FROM {t} WHERE «point» <@ box '(100,0),(0,-100)'",
            "SELECT count(*) FROM {t} WHERE «net» << '10.0.0.0/25'",
        ],
        ..NOTHING
    },
    Piece {
        name: "uuid, numeric and times",
        columns: &[
            column("u", "uuid DEFAULT gen_random_uuid()", "md5('x' || g)::uuid"),
            column("amount", "numeric(12,3)", "g / 7.0"),
            column("at", "timestamptz DEFAULT '2024-02-03 04:05:06+02'", "timestamptz '2024-01-01 00:00+00' + g * interval '1 hour'"),
            column("span", "interval DEFAULT '-1 day 02:03:04'", "g * interval '1 minute'"),
            column("infinite", "float8 DEFAULT 'NaN'", "CASE g % 3 WHEN 0 THEN 'Infinity'::float8 ELSE g / 3.0 END"),
        ],
        after: &["CREATE INDEX «at_brin» ON {t} USING brin («at» timestamptz_minmax_multi_ops, «amount») WITH (pages_per_range = 2, autosummarize = on)"],
        queries: &["SELECT count(*) FROM {t} WHERE «at» < '2024-01-03'"],
        ..NOTHING
    },
    Piece {
        name: "arrays, enum, domain, composite, bytes",
        first: &[
            "CREATE TYPE {s}.«colour» AS ENUM ('red', 'it''s green', 'back\\slash')",
            "CREATE DOMAIN {s}.«percent» AS numeric DEFAULT 50 CONSTRAINT «between» CHECK (VALUE BETWEEN 0 AND 100)",
            "CREATE TYPE {s}.«place» AS («street» text, «at» point, «codes» int[])",
        ],
        columns: &[
            column("tags", "text[] DEFAULT '{}'", "ARRAY['t' || g % 5, 'all', NULL]"),
            column("colour", "{s}.«colour» DEFAULT 'back\\slash'", "(ARRAY['red', 'it''s green'])[g % 2 + 1]::{s}.«colour»"),
            column("share", "{s}.«percent»", "g % 101"),
            column("place", "{s}.«place»", "ROW('street ' || g, point(g, 1), ARRAY[g])::{s}.«place»"),
            column("places", "{s}.«place»[]", "ARRAY[ROW('street ' || g, NULL, NULL)::{s}.«place»]"),
            column("bytes", "bytea DEFAULT '\\x00ff'", "decode(md5(g::text), 'hex')"),
            column("letter", "\"char\"", "chr(65 + g % 20)::\"char\""),
            column("flag", "boolean", "g % 4 = 0"),
        ],
        after: &[
            "CREATE INDEX «tags_gin» ON {t} USING gin («tags») WITH (gin_pending_list_limit = 64)",
            "CREATE INDEX «colour_hash» ON {t} USING hash («colour»)",
            "CREATE INDEX «flagged» ON {t} («letter», «share») WHERE «flag»",
        ],
        queries: &[
            "SELECT count(*) FROM {t} WHERE «tags» @> '{t3}'",
            "SELECT count(*) FROM {t} WHERE «colour» = 'red'",
        ],
        ..NOTHING
    },
    Piece {
        name: "defaults, serial and identity",
        first: &["CREATE SEQUENCE {s}.«shared» START 1000"],
        columns: &[
            by_server("d1", "int NOT NULL DEFAULT 42 + 1"),
            by_server("d2", "text DEFAULT E'it''s \\\\ \\n é'"),
            by_server("ser", "smallserial"),
            by_server("ident", "bigint GENERATED BY DEFAULT AS IDENTITY (START 7 INCREMENT 3 MINVALUE -5 CYCLE CACHE 5)"),
        ],
        before: &[
            "GRANT USAGE ON SEQUENCE {s}.«shared» TO variety_owner",
            "COMMENT ON COLUMN {t}.«ident» IS 'numbers'",
        ],
        excludes: &["identity"],
        ..NOTHING
    },
    Piece {
        name: "identity always, with a unique index",
        columns: &[by_server("always", "int GENERATED ALWAYS AS IDENTITY")],
        after: &["CREATE UNIQUE INDEX «always_uq» ON {t} («always») NULLS NOT DISTINCT"],
        excludes: &["identity"],
        ..NOTHING
    },
    Piece {
        name: "stored generated columns",
        columns: &[
            by_server("double", "bigint GENERATED ALWAYS AS («n» * 2::bigint) STORED"),
            by_server("loud", "text COLLATE \"C\" GENERATED ALWAYS AS (upper('n' || («n»)::text)) STORED"),
        ],
        after: &["CREATE INDEX «loud_ix» ON {t} («loud» text_pattern_ops, «double»)"],
        queries: &["SELECT count(*) FROM {t} WHERE «loud» LIKE 'N1%'"],
        ..NOTHING
    },
    Piece {
        name: "a virtual generated column",
        since: 18,
        columns: &[by_server("virtual", "int GENERATED ALWAYS AS («n» + 1) VIRTUAL")],
        ..NOTHING
    },
    Piece {
        name: "dropped columns",
        columns: &[
            short_lived("gone1", "smallint NOT NULL DEFAULT 3", "g % 100"),
            short_lived("gone2", "text", "repeat(md5(g::text), 100)"),
            short_lived("gone3", "char(7)", "'x'"),
            short_lived("gone4", "float8", "g"),
        ],
        before: &["ALTER TABLE {t} ALTER «gone2» SET STORAGE EXTERNAL"],
        after: &["ALTER TABLE {t} DROP COLUMN «gone1», DROP COLUMN «gone2», DROP COLUMN «gone3», DROP COLUMN «gone4»"],
        ..NOTHING
    },
    Piece {
        name: "a column dropped again before anything else",
        columns: &[short_lived("gone5", "int8", "g")],
        after: &["ALTER TABLE {t} DROP COLUMN «gone5»"],
        ..NOTHING
    },
    Piece {
        name: "columns added with a constant default",
        after: &[
            "ALTER TABLE {t} ADD «fast1» int DEFAULT 5, ADD «fast2» text NOT NULL DEFAULT 'it''s'",
            "ALTER TABLE {t} ADD «fast3» numeric[] DEFAULT '{1.50}', ADD «none» date",
            "ALTER TABLE {t} ALTER «fast1» SET DEFAULT 6, ALTER «fast3» DROP DEFAULT",
        ],
        ..NOTHING
    },
    Piece {
        name: "a column added with a constant default and dropped",
        after: &[
            "ALTER TABLE {t} ADD «fast4» text DEFAULT 'x', ADD «fast5» smallint DEFAULT 2",
            "ALTER TABLE {t} DROP «fast4»",
        ],
        ..NOTHING
    },
];

pub const INDEXES: &[Piece] = &[
    Piece {
        name: "indexes on the changed column",
        after: &[
            "CREATE INDEX «sub» ON {t} ({c})",
            "CREATE INDEX «sub_down» ON {t} ({c} DESC NULLS LAST, «n») INCLUDE («m») WITH (fillfactor = 55, deduplicate_items = off)",
            "COMMENT ON INDEX {s}.«sub_down» IS 'down'",
        ],
        ..NOTHING
    },
    Piece {
        name: "a partial index and one on an expression of the changed column",
        after: &[
            "CREATE INDEX «sub_part» ON {t} («n») WHERE {pred}",
            "CREATE INDEX «sub_expr» ON {t} (({expr}), «m»)",
            "ALTER INDEX {s}.«sub_expr» ALTER COLUMN 1 SET STATISTICS 33",
        ],
        ..NOTHING
    },
    Piece {
        name: "a hash index on the changed column",
        after: &["CREATE INDEX «sub_hash» ON {t} USING hash ({c}) TABLESPACE variety_space"],
        ..NOTHING
    },
    Piece {
        name: "indexes on other columns",
        columns: &[column("label", "text", "'Läbel ' || g % 30")],
        after: &[
            "CREATE INDEX «like» ON {t} («label» text_pattern_ops) TABLESPACE variety_space",
            "CREATE INDEX «utf8» ON {t} («label» COLLATE \"C.utf8\" DESC) WITH (fillfactor = 20)",
            "CREATE INDEX «lower» ON {t} (lower(«label»), («n» % 10)) INCLUDE («label») WHERE «n» > 20 AND «label» <> 'it''s \\'",
            "CREATE INDEX «prefix» ON {t} USING spgist («label»)",
            "COMMENT ON INDEX {s}.«lower» IS E'two\\nlines'",
        ],
        queries: &[
            "SELECT count(*) FROM {t} WHERE «label» LIKE 'Läbel 1%'",
            "SELECT count(*) FROM {t} WHERE «label» ^@ 'Läbel 2'",
        ],
        ..NOTHING
    },
    Piece {
        name: "a table clustered on an index",
        after: &[
            "CREATE INDEX «clu» ON {t} («m», {c})",
            "ALTER TABLE {t} CLUSTER ON «clu»",
        ],
        ..NOTHING
    },
    Piece {
        name: "an index that goes with an extension",
        after: &[
            "CREATE INDEX «ext_ix» ON {t} («m»)",
            "ALTER INDEX {s}.«ext_ix» DEPENDS ON EXTENSION btree_gist",
        ],
        ..NOTHING
    },
];

pub const CONSTRAINTS: &[Piece] = &[
    Piece {
        name: "checks",
        after: &[
            "ALTER TABLE {t} ADD CONSTRAINT «range» CHECK («n» > 0 AND «m» IS NOT NULL)",
            "ALTER TABLE {t} ADD CHECK («n» + «m» > 0), ADD CHECK («n» <> -7) NO INHERIT",
            "COMMENT ON CONSTRAINT «range» ON {t} IS 'it''s \\'",
        ],
        ..NOTHING
    },
    Piece {
        name: "checks on the changed column",
        after: &["ALTER TABLE {t} ADD CONSTRAINT «sub_check» CHECK ({expr} IS NOT NULL OR {c} IS NULL), ADD CHECK (({pred}) OR «n» IS NOT NULL)"],
        ..NOTHING
    },
    Piece {
        name: "a check that was never proven, and does not hold",
        after: &["ALTER TABLE {t} ADD CONSTRAINT «hope» CHECK («n» NOT IN (2, 3)) NOT VALID"],
        ..NOTHING
    },
    Piece {
        name: "a check that is not enforced",
        since: 18,
        after: &["ALTER TABLE {t} ADD CONSTRAINT «wish» CHECK («n» < 0) NOT ENFORCED"],
        ..NOTHING
    },
    Piece {
        name: "a NOT NULL with a name, and one that does not hold",
        since: 18,
        columns: &[
            column("must", "int", "g"),
            column("should", "int", "CASE WHEN g NOT IN (2, 3) THEN g END"),
        ],
        after: &[
            "ALTER TABLE {t} ADD CONSTRAINT «there» NOT NULL «must» NO INHERIT",
            "ALTER TABLE {t} ADD CONSTRAINT «soon» NOT NULL «should» NOT VALID",
        ],
        ..NOTHING
    },
    Piece {
        name: "unique constraints",
        columns: &[column("maybe", "int", "CASE WHEN g <> 1 THEN g END")],
        after: &[
            "ALTER TABLE {t} ADD CONSTRAINT «two» UNIQUE («n», {c}) WITH (fillfactor = 40)",
            "ALTER TABLE {t} ADD UNIQUE NULLS NOT DISTINCT («maybe») INCLUDE («m») DEFERRABLE",
            "COMMENT ON CONSTRAINT «two» ON {t} IS 'both'",
        ],
        ..NOTHING
    },
    Piece {
        name: "exclusion constraints",
        columns: &[column("during", "int4range", "int4range(g * 10, g * 10 + 5)")],
        after: &[
            "ALTER TABLE {t} ADD CONSTRAINT «no_overlap» EXCLUDE USING gist («during» WITH &&) WHERE («n» <> 5)",
            "ALTER TABLE {t} ADD CONSTRAINT «one_each» EXCLUDE USING btree («n» WITH =) DEFERRABLE INITIALLY DEFERRED",
        ],
        queries: &["SELECT count(*) FROM {t} WHERE «n» <> 5 AND «during» && int4range(100, 500)"],
        ..NOTHING
    },
    Piece {
        name: "an exclusion constraint on the changed column",
        needs: &[Needs::IntegerSubject],
        after: &["ALTER TABLE {t} ADD CONSTRAINT «sub_excl» EXCLUDE USING hash ({c} WITH =)"],
        ..NOTHING
    },
    Piece {
        name: "a key without overlaps",
        since: 18,
        columns: &[column("period", "int4range", "int4range(g, g + 1)")],
        after: &["ALTER TABLE {t} ADD CONSTRAINT «temporal» UNIQUE («m», «period» WITHOUT OVERLAPS)"],
        ..NOTHING
    },
];
