//! What makes a plain ALTER of the changed column refuse, and what the migration carries all the same.

use super::part::{by_server, Needs, Piece, NOTHING};

pub const DEPENDENTS: &[Piece] = &[
    Piece {
        name: "materialized views on views",
        make: &[
            "CREATE VIEW {s}.«mw» AS SELECT {c} AS «first», «n», «m», {expr} AS «more» FROM {t} WHERE {c} IS NOT NULL",
            "CREATE MATERIALIZED VIEW {s}.«mv1» WITH (fillfactor = 60) AS WITH t AS (SELECT * FROM {s}.«mw») SELECT t.*, repeat('x', 3000) AS «long» FROM t",
            "CREATE UNIQUE INDEX «mv_n» ON {s}.«mv1» («n») INCLUDE («m»)",
            "CREATE INDEX «mv_x» ON {s}.«mv1» ((«m» + 1), «n» DESC NULLS LAST) WITH (fillfactor = 50) TABLESPACE variety_space WHERE «m» > 2",
            "ALTER INDEX {s}.«mv_x» ALTER COLUMN 1 SET STATISTICS 33",
            "COMMENT ON INDEX {s}.«mv_n» IS 'mv'",
            "ALTER MATERIALIZED VIEW {s}.«mv1» CLUSTER ON «mv_n»",
            "ALTER MATERIALIZED VIEW {s}.«mv1» ALTER «long» SET STORAGE MAIN, ALTER «n» SET STATISTICS 12, ALTER «m» SET (n_distinct = 9)",
            "COMMENT ON MATERIALIZED VIEW {s}.«mv1» IS 'it''s'",
            "COMMENT ON COLUMN {s}.«mv1».«n» IS 'en'",
            "CREATE STATISTICS {s}.«mv_st» (ndistinct) ON «n», «m» FROM {s}.«mv1»",
            "GRANT SELECT ON {s}.«mv1» TO variety_reader WITH GRANT OPTION",
            "SET ROLE variety_reader",
            "GRANT SELECT ON {s}.«mv1» TO variety_writer",
            "RESET ROLE",
            "CREATE MATERIALIZED VIEW {s}.«mv2» TABLESPACE variety_space AS SELECT «first», count(*) AS «many» FROM {s}.«mv1» GROUP BY 1",
            "CREATE MATERIALIZED VIEW {s}.«mv3» AS SELECT «first» FROM {s}.«mv2» WITH NO DATA",
            "CREATE VIEW {s}.«mv4» AS SELECT * FROM {s}.«mv2»",
        ],
        unmake: &[
            "DROP VIEW {s}.«mv4»",
            "DROP MATERIALIZED VIEW {s}.«mv3»",
            "DROP MATERIALIZED VIEW {s}.«mv2»",
            "DROP MATERIALIZED VIEW {s}.«mv1»",
            "DROP VIEW {s}.«mw»",
        ],
        queries: &[
            "SELECT v.msg FROM public.verify_heapam($q${s}.«mv1»$q$, check_toast => true) AS v",
            "SELECT public.bt_index_parent_check(x.indexrelid, true, true) FROM pg_index AS x WHERE x.indrelid = $q${s}.«mv1»$q$::regclass",
            "SELECT count(*) > 50 FROM {s}.«mv2»",
        ],
        ..NOTHING
    },
    Piece {
        name: "a materialized view of somebody else",
        excludes: &["row security"],
        after: &["GRANT SELECT («n», {c}) ON {t} TO variety_writer"],
        make: &[
            "CREATE MATERIALIZED VIEW {s}.«mo» AS SELECT «n», {c} FROM {t}",
            "ALTER MATERIALIZED VIEW {s}.«mo» OWNER TO variety_writer",
        ],
        unmake: &["DROP MATERIALIZED VIEW {s}.«mo»"],
        ..NOTHING
    },
    Piece {
        name: "a generated column",
        // With SET EXPRESSION the reference can get its own back.
        since: 17,
        needs: &[Needs::IntegerSubject],
        columns: &[by_server("gen", "bigint GENERATED ALWAYS AS ({expr}) STORED")],
        after: &[
            "CREATE INDEX «gen_ix» ON {t} («gen» DESC)",
            "COMMENT ON COLUMN {t}.«gen» IS 'generated'",
            "GRANT SELECT («gen») ON {t} TO variety_reader",
        ],
        make: &["DO $do$ BEGIN \
            IF EXISTS (SELECT FROM pg_attribute WHERE attrelid = $q${t}$q$::regclass AND '\"' || replace(attname, '\"', '\"\"') || '\"' = $q$«gen»$q$ AND attgenerated = '') THEN \
              ALTER TABLE {t} ALTER «gen» SET DEFAULT 0; \
              UPDATE pg_attribute SET attgenerated = 's' WHERE attrelid = $q${t}$q$::regclass AND '\"' || replace(attname, '\"', '\"\"') || '\"' = $q$«gen»$q$; \
              ALTER TABLE {t} ALTER «gen» SET EXPRESSION AS ({expr}); \
            END IF; END $do$"],
        unmake: &["ALTER TABLE {t} ALTER «gen» DROP EXPRESSION"],
        queries: &["SELECT «n», «gen» FROM {t} ORDER BY «gen» DESC"],
        ..NOTHING
    },
    Piece {
        name: "functions with bodies in SQL",
        make: &[
            "CREATE FUNCTION {s}.«f1»(«p» int DEFAULT 3, OUT «o» bigint, OUT «q» bigint) RETURNS record STABLE COST 7 SET work_mem = '1MB' \
               BEGIN ATOMIC SELECT count(*), max(«m») FROM {t} WHERE {c} IS NOT NULL AND «n» > «p»; END",
            "CREATE FUNCTION {s}.«f2»() RETURNS boolean SECURITY DEFINER RETURN (SELECT bool_or({pred}) FROM {t})",
            "ALTER FUNCTION {s}.«f2» OWNER TO variety_writer",
            "GRANT EXECUTE ON FUNCTION {s}.«f1» TO variety_reader",
            "COMMENT ON FUNCTION {s}.«f1» IS 'it''s'",
            "CREATE PROCEDURE {s}.«f3»(«p» int) BEGIN ATOMIC UPDATE {t} SET {c} = {c} WHERE «n» = «p»; DELETE FROM {t} AS x WHERE x.{c} IS NULL AND x.«n» = -«p»; END",
            "ALTER PROCEDURE {s}.«f3» DEPENDS ON EXTENSION btree_gist",
            "CREATE VIEW {s}.«fv» AS SELECT {c}, {s}.«f2»() AS «any» FROM {t}",
            "CREATE FUNCTION {s}.«f4»() RETURNS SETOF int BEGIN ATOMIC SELECT 1 FROM {s}.«fv»; END",
        ],
        unmake: &[
            "DROP FUNCTION {s}.«f4»",
            "DROP VIEW {s}.«fv»",
            "DROP PROCEDURE {s}.«f3»",
            "DROP FUNCTION {s}.«f2»",
            "DROP FUNCTION {s}.«f1»",
        ],
        queries: &[
            "SELECT pg_get_functiondef(p.oid), p.proacl::text, p.proowner::regrole, obj_description(p.oid, 'pg_proc') \
               FROM pg_proc AS p WHERE p.pronamespace = $q${s}$q$::regnamespace AND p.prosqlbody IS NOT NULL ORDER BY 1",
            "SELECT * FROM {s}.«f1»(5)",
        ],
        ..NOTHING
    },
];
