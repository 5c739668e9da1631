//! What tables have: descriptions, privileges, storage, and other objects that use them.

use super::part::{column, Needs, Piece, NOTHING};

pub const SETTINGS: &[Piece] = &[
    Piece {
        name: "comments",
        after: &[
            "COMMENT ON TABLE {t} IS E'the table\\nit''s \\\\'",
            "COMMENT ON COLUMN {t}.{c} IS 'subject'",
            "COMMENT ON COLUMN {t}.«n» IS 'number'",
        ],
        ..NOTHING
    },
    Piece {
        name: "privileges on table and columns",
        after: &[
            "GRANT SELECT, INSERT ON {t} TO variety_reader WITH GRANT OPTION",
            "GRANT UPDATE ({c}), REFERENCES («n»), SELECT («m») ON {t} TO variety_writer",
            "GRANT SELECT ({c}) ON {t} TO PUBLIC",
            "SET ROLE variety_reader",
            "GRANT SELECT ON {t} TO variety_writer",
            "RESET ROLE",
        ],
        ..NOTHING
    },
    Piece {
        name: "an owner of its own",
        has_own_owner: true,
        before: &["ALTER TABLE {t} OWNER TO variety_owner"],
        ..NOTHING
    },
    Piece {
        name: "an owner without any right to it",
        // Foreign keys are checked as the owner.
        excludes: &["owner's rights"],
        after: &[
            "ALTER TABLE {t} OWNER TO variety_owner",
            "REVOKE ALL ON {t} FROM variety_owner",
        ],
        ..NOTHING
    },
    Piece {
        name: "row security, forced",
        excludes: &["row security"],
        after: &[
            "ALTER TABLE {t} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
            "CREATE POLICY «few» ON {t} AS RESTRICTIVE FOR SELECT TO variety_reader, variety_owner USING («n» < 5)",
            "COMMENT ON POLICY «few» ON {t} IS 'it''s'",
        ],
        ..NOTHING
    },
    Piece {
        name: "row security without a policy",
        excludes: &["row security"],
        after: &["ALTER TABLE {t} ENABLE ROW LEVEL SECURITY"],
        ..NOTHING
    },
    Piece {
        name: "statistics targets",
        after: &[
            "ALTER TABLE {t} ALTER {c} SET STATISTICS 77, ALTER «m» SET STATISTICS 0, ALTER «m» SET (n_distinct = -0.5, n_distinct_inherited = 5)",
            "ANALYZE {t}",
        ],
        ..NOTHING
    },
    Piece {
        name: "extended statistics",
        after: &[
            "CREATE STATISTICS {s}.«st1» (dependencies, ndistinct) ON {c}, «m» FROM {t}",
            "ALTER STATISTICS {s}.«st1» SET STATISTICS 5",
            "COMMENT ON STATISTICS {s}.«st1» IS 'st'",
            "CREATE STATISTICS {s}.«st2» (mcv) ON («n» + «m»), («n» / 2) FROM {t}",
            "CREATE STATISTICS {s}.«st3» ON {expr} FROM {t}",
            "ALTER STATISTICS {s}.«st3» OWNER TO variety_writer",
            "ANALYZE {t}",
        ],
        ..NOTHING
    },
    Piece {
        name: "storage parameters",
        columns: &[column("big", "text", "repeat(md5('b' || g), 120)")],
        before: &["ALTER TABLE {t} SET (fillfactor = 70, autovacuum_enabled = false, parallel_workers = 2, toast_tuple_target = 256, \
            toast.autovacuum_enabled = false, toast.autovacuum_vacuum_threshold = 99)"],
        ..NOTHING
    },
    Piece {
        name: "an unlogged table",
        needs: &[Needs::Unlogged],
        before: &["ALTER TABLE {t} SET UNLOGGED"],
        ..NOTHING
    },
    Piece {
        name: "a tablespace",
        columns: &[column("far", "text", "repeat(md5('f' || g), 120)")],
        before: &["ALTER TABLE {t} SET TABLESPACE variety_space"],
        ..NOTHING
    },
    Piece {
        name: "replica identity full",
        excludes: &["replica identity"],
        after: &["ALTER TABLE {t} REPLICA IDENTITY FULL"],
        ..NOTHING
    },
    Piece {
        name: "replica identity nothing",
        excludes: &["replica identity"],
        after: &["ALTER TABLE {t} REPLICA IDENTITY NOTHING"],
        ..NOTHING
    },
    Piece {
        name: "replica identity by an index",
        excludes: &["replica identity"],
        columns: &[column("ri", "int NOT NULL", "g")],
        after: &[
            "CREATE UNIQUE INDEX «ri_ix» ON {t} («ri»)",
            "ALTER TABLE {t} REPLICA IDENTITY USING INDEX «ri_ix»",
        ],
        ..NOTHING
    },
    Piece {
        name: "replica identity by an index on the changed column",
        needs: &[Needs::IntegerSubject],
        excludes: &["replica identity"],
        before: &["ALTER TABLE {t} ALTER {c} SET NOT NULL"],
        after: &[
            "CREATE UNIQUE INDEX «rs_ix» ON {t} ({c})",
            "ALTER TABLE {t} REPLICA IDENTITY USING INDEX «rs_ix»",
        ],
        ..NOTHING
    },
];

/// A trigger's function that changes nothing.
const PASS: &str = "CREATE FUNCTION {s}.«pass»() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN coalesce(NEW, OLD); END'";

pub const NEIGHBOURS: &[Piece] = &[
    Piece {
        name: "a trigger that keeps a journal",
        first: &[
            "CREATE TABLE {s}.«journal» (what text, place text, num int)",
            "GRANT ALL ON {s}.«journal» TO variety_owner",
            "CREATE FUNCTION {s}.«note»() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
               INSERT INTO {s}.«journal» VALUES (TG_OP, TG_TABLE_SCHEMA, CASE WHEN TG_OP = 'DELETE' THEN OLD.«n» ELSE NEW.«n» END); \
               RETURN NULL; END $$",
        ],
        after: &[
            "CREATE TRIGGER «notes» AFTER INSERT OR UPDATE OR DELETE ON {t} FOR EACH ROW EXECUTE FUNCTION {s}.«note»()",
            "ALTER TABLE {t} ENABLE ALWAYS TRIGGER «notes»",
        ],
        queries: &["SELECT what, place, num FROM {s}.«journal» ORDER BY 1, 2, 3"],
        ..NOTHING
    },
    Piece {
        name: "triggers of all kinds",
        first: &["CREATE FUNCTION {s}.«count»() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN coalesce(NEW, OLD); END'"],
        after: &[
            "CREATE TRIGGER «before» BEFORE INSERT OR DELETE ON {t} FOR EACH ROW WHEN (pg_trigger_depth() < 9) EXECUTE FUNCTION {s}.«count»('a''b', 'c\\d')",
            "CREATE CONSTRAINT TRIGGER «late» AFTER INSERT ON {t} DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION {s}.«count»()",
            "CREATE TRIGGER «sets» AFTER UPDATE ON {t} REFERENCING OLD TABLE AS «was» NEW TABLE AS «is» FOR EACH STATEMENT EXECUTE FUNCTION {s}.«count»()",
            "CREATE TRIGGER «emptied» BEFORE TRUNCATE ON {t} EXECUTE FUNCTION {s}.«count»()",
            "ALTER TABLE {t} DISABLE TRIGGER «before», ENABLE REPLICA TRIGGER «sets»",
            "ALTER TRIGGER «sets» ON {t} DEPENDS ON EXTENSION btree_gist",
            "COMMENT ON TRIGGER «late» ON {t} IS 'later'",
        ],
        ..NOTHING
    },
    Piece {
        name: "triggers that mention the changed column",
        first: &[PASS],
        make: &[
            "CREATE TRIGGER «when» BEFORE UPDATE ON {t} FOR EACH ROW WHEN (OLD.{c} IS NULL AND NEW.{c} IS NOT NULL AND NEW.«n» <> 8) EXECUTE FUNCTION {s}.«pass»()",
            "CREATE TRIGGER «of» AFTER UPDATE OF «n», {c} ON {t} FOR EACH ROW EXECUTE FUNCTION {s}.«pass»('x')",
            "ALTER TABLE {t} DISABLE TRIGGER «of»",
            "COMMENT ON TRIGGER «when» ON {t} IS 'it''s'",
        ],
        unmake: &["DROP TRIGGER «of» ON {t}", "DROP TRIGGER «when» ON {t}"],
        ..NOTHING
    },
    Piece {
        name: "foreign keys to another table",
        columns: &[
            column("ref", "int", "g % 20 + 1"),
            column("ref2", "int DEFAULT 2", "CASE WHEN g IN (2, 3) THEN 999 ELSE 3 END"),
        ],
        first: &[
            "CREATE TABLE {s}.«other» (id int PRIMARY KEY)",
            "INSERT INTO {s}.«other» SELECT g FROM generate_series(1, 20) AS g",
            "GRANT REFERENCES, SELECT ON {s}.«other» TO variety_owner",
        ],
        after: &[
            "ALTER TABLE {t} ADD CONSTRAINT «to_other» FOREIGN KEY («ref») REFERENCES {s}.«other» ON DELETE SET NULL DEFERRABLE INITIALLY DEFERRED",
            "ALTER TABLE {t} ADD FOREIGN KEY («ref2») REFERENCES {s}.«other» ON UPDATE CASCADE ON DELETE SET DEFAULT NOT VALID",
            "COMMENT ON CONSTRAINT «to_other» ON {t} IS 'it''s'",
        ],
        ..NOTHING
    },
    Piece {
        name: "foreign keys from other tables and from itself",
        excludes: &["owner's rights"],
        needs: &[Needs::Logged],
        // Row 5 stays what it is; 11 gets another number and 13 goes away while the migration waits.
        columns: &[column(
            "parent",
            "int",
            "CASE WHEN g % 2 = 0 THEN 5 WHEN g BETWEEN 50 AND 60 THEN 11 WHEN g BETWEEN 40 AND 49 THEN 13 END",
        )],
        after: &[
            "ALTER TABLE {t} ADD CONSTRAINT «n_key» UNIQUE («n»)",
            "ALTER TABLE {t} ADD CONSTRAINT «self» FOREIGN KEY («parent») REFERENCES {t} («n») ON DELETE SET NULL ON UPDATE CASCADE DEFERRABLE",
            "CREATE TABLE {s}.«child» (x int PRIMARY KEY REFERENCES {t} («n») ON DELETE CASCADE ON UPDATE CASCADE)",
            "INSERT INTO {s}.«child» SELECT «n» FROM {t} WHERE «n» % 3 = 0",
        ],
        queries: &["SELECT x FROM {s}.«child» ORDER BY 1"],
        ..NOTHING
    },
    Piece {
        name: "foreign keys from and to the changed column",
        excludes: &["owner's rights"],
        needs: &[Needs::IntegerSubject, Needs::Logged],
        first: &[
            "CREATE TABLE {s}.«target» (id bigint PRIMARY KEY)",
            "INSERT INTO {s}.«target» SELECT g FROM generate_series(1, 3000) AS g",
            "GRANT REFERENCES, SELECT ON {s}.«target» TO variety_owner",
        ],
        after: &[
            "ALTER TABLE {t} ADD CONSTRAINT «c_key» UNIQUE ({c})",
            "ALTER TABLE {t} ADD CONSTRAINT «to_target» FOREIGN KEY ({c}) REFERENCES {s}.«target» MATCH FULL",
            "CREATE TABLE {s}.«user» (x int REFERENCES {t} ({c}) ON DELETE CASCADE, y int)",
            "ALTER TABLE {s}.«user» ADD CONSTRAINT «soon2» FOREIGN KEY (y) REFERENCES {t} ({c}) NOT VALID",
            "COMMENT ON CONSTRAINT «soon2» ON {s}.«user» IS 'later'",
            "GRANT SELECT ON {s}.«user» TO variety_owner",
        ],
        ..NOTHING
    },
    Piece {
        name: "policies that mention the changed column",
        first: &["CREATE TABLE {s}.«secret» (id int)"],
        make: &[
            "CREATE POLICY «some» ON {t} FOR UPDATE TO variety_reader USING ({pred} AND «n» <> 4) WITH CHECK ({c} IS NOT NULL)",
            "COMMENT ON POLICY «some» ON {t} IS 'some'",
            "CREATE POLICY «else» ON {s}.«secret» USING (EXISTS (SELECT FROM {t} AS i WHERE i.{c} IS NOT NULL AND i.«n» = «secret».id))",
        ],
        unmake: &["DROP POLICY «else» ON {s}.«secret»", "DROP POLICY «some» ON {t}"],
        ..NOTHING
    },
    Piece {
        name: "views on views",
        make: &[
            "CREATE VIEW {s}.«v1» WITH (security_barrier, security_invoker = true) AS SELECT {c} AS «first», «n» FROM {t} WHERE «n» > 1",
            "COMMENT ON VIEW {s}.«v1» IS 'one'",
            "CREATE VIEW {s}.«v2» AS SELECT a.«first», b.«m» FROM {s}.«v1» AS a JOIN {t} AS b USING («n») WHERE b.{c} IS NOT NULL",
            "ALTER VIEW {s}.«v2» OWNER TO variety_writer",
            "COMMENT ON COLUMN {s}.«v2».«m» IS 'em'",
            "GRANT SELECT ON {s}.«v2» TO variety_reader WITH GRANT OPTION",
            "SET ROLE variety_reader",
            "GRANT SELECT ON {s}.«v2» TO PUBLIC",
            "RESET ROLE",
            "CREATE VIEW {s}.«v3» AS SELECT x.*, x AS «whole» FROM {s}.«v2» AS x",
        ],
        unmake: &["DROP VIEW {s}.«v3»", "DROP VIEW {s}.«v2»", "DROP VIEW {s}.«v1»"],
        ..NOTHING
    },
    Piece {
        name: "a view that can be written to",
        first: &["CREATE FUNCTION {s}.«instead»() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'"],
        make: &[
            "CREATE VIEW {s}.«w1» (p, q, «r») AS SELECT {c}, «n», «m» FROM {t} WHERE «n» > 3 WITH LOCAL CHECK OPTION",
            "ALTER VIEW {s}.«w1» ALTER q SET DEFAULT 99",
            "GRANT UPDATE (q), SELECT (p) ON {s}.«w1» TO variety_reader",
            "CREATE TRIGGER «io» INSTEAD OF UPDATE ON {s}.«w1» FOR EACH ROW EXECUTE FUNCTION {s}.«instead»()",
            "COMMENT ON TRIGGER «io» ON {s}.«w1» IS 'instead'",
            "CREATE RULE «quiet» AS ON DELETE TO {s}.«w1» DO INSTEAD NOTHING",
            "COMMENT ON RULE «quiet» ON {s}.«w1» IS 'quiet'",
        ],
        unmake: &["DROP VIEW {s}.«w1»"],
        ..NOTHING
    },
    Piece {
        name: "a view that does not mention the changed column",
        first: &["CREATE FUNCTION {s}.«reads»() RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN RETURN (SELECT count(*) FROM {t}); END $$"],
        make: &["CREATE VIEW {s}.«aside» AS SELECT «n», «m» FROM {t}"],
        unmake: &["DROP VIEW {s}.«aside»"],
        queries: &["SELECT {s}.«reads»()"],
        ..NOTHING
    },
    Piece {
        name: "rules",
        first: &["CREATE TABLE {s}.«archive» (id int)"],
        make: &[
            "CREATE RULE «keep» AS ON UPDATE TO {t} WHERE NEW.{c} IS NULL AND OLD.«n» = 7 DO INSTEAD NOTHING",
            "ALTER TABLE {t} ENABLE ALWAYS RULE «keep»",
            "COMMENT ON RULE «keep» ON {t} IS 'it''s'",
            "CREATE RULE «away» AS ON DELETE TO {s}.«archive» DO ALSO UPDATE {t} SET {c} = {c} WHERE {c} IS NOT NULL AND «n» = OLD.id",
            "ALTER TABLE {s}.«archive» DISABLE RULE «away»",
        ],
        unmake: &["DROP RULE «away» ON {s}.«archive»", "DROP RULE «keep» ON {t}"],
        ..NOTHING
    },
    Piece {
        name: "publications of other columns",
        needs: &[Needs::Logged],
        after: &[
            "CREATE PUBLICATION «pub1» FOR TABLE {t} WHERE («n» > 3) WITH (publish = 'insert')",
            "CREATE PUBLICATION «pub3» FOR TABLES IN SCHEMA {s} WITH (publish = 'insert, truncate')",
        ],
        make: &["CREATE PUBLICATION «pub2» FOR TABLE {t} («n», «m») WITH (publish = 'insert')"],
        unmake: &["DROP PUBLICATION «pub2»"],
        ..NOTHING
    },
    Piece {
        name: "a publication of the changed column",
        needs: &[Needs::Logged],
        make: &["CREATE PUBLICATION «pub4» FOR TABLE {t} («n», {c}) WITH (publish = 'insert')"],
        unmake: &["DROP PUBLICATION «pub4»"],
        ..NOTHING
    },
    Piece {
        name: "a publication of some values of the changed column",
        needs: &[Needs::Logged, Needs::IntegerSubject],
        make: &["CREATE PUBLICATION «pub5» FOR TABLE {t} WHERE (({pred}) OR «n» = 5) WITH (publish = 'insert')"],
        unmake: &["DROP PUBLICATION «pub5»"],
        ..NOTHING
    },
    Piece {
        name: "a publication of all tables",
        needs: &[Needs::Logged],
        after: &["CREATE PUBLICATION «puball» FOR ALL TABLES WITH (publish = 'insert, truncate', publish_via_partition_root)"],
        ..NOTHING
    },
];
