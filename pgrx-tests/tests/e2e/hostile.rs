//! As whom other people's code runs: a function of the table's owner never gets more than the owner has.

use transmute_tests::wait::PATIENCE;
use transmute_tests::{Cluster, Database, Session};

use crate::migration::{assert_no_traces, assert_sound, Migration};
use crate::privileges::world;

const LONG_SOAK: &str = r#"{"pre_finalization_soak": "1 hour"}"#;

/// A function that writes down as whom it runs and tries what it should not be able to do.
pub fn plant_spy(session: &mut Session, attacker: &str) {
    session.exec(&format!(
        "CREATE TABLE spied (what text, who text, UNIQUE (what, who));
         GRANT INSERT, SELECT ON spied TO PUBLIC;
         SET SESSION AUTHORIZATION {attacker};
         CREATE FUNCTION try(what text) RETURNS void LANGUAGE plpgsql AS $$
         BEGIN
           EXECUTE what;
           INSERT INTO public.spied VALUES ('managed to: ' || what, current_user) ON CONFLICT DO NOTHING;
         EXCEPTION WHEN OTHERS THEN NULL;
         END $$;
         CREATE FUNCTION spy(place text) RETURNS void LANGUAGE plpgsql AS $$
         BEGIN
           INSERT INTO public.spied VALUES (place, current_user) ON CONFLICT DO NOTHING;
           PERFORM public.try('ALTER ROLE {attacker} SUPERUSER');
           PERFORM public.try('SET ROLE postgres');
           PERFORM public.try('RESET ROLE');
           PERFORM public.try('SET SESSION AUTHORIZATION postgres');
           PERFORM public.try('SELECT set_config(''role'', ''none'', false)');
           PERFORM public.try('SELECT pg_read_file(''postgresql.conf'')');
           PERFORM public.try('CREATE TEMP TABLE pg_class (i int)');
           PERFORM public.try('LISTEN x');
           PERFORM public.try('DISCARD ALL');
           PERFORM public.try('COPY public.spied TO PROGRAM ''true''');
           PERFORM public.try('SELECT lo_import(''postgresql.conf'')');
           BEGIN EXECUTE 'DEALLOCATE ALL'; EXECUTE 'CLOSE ALL'; EXCEPTION WHEN OTHERS THEN NULL; END;
           PERFORM public.try('UPDATE _transmute.migrations SET required_approvals = 0');
           PERFORM set_config('search_path', 'nowhere', false), set_config('statement_timeout', '1h', false),
             set_config('lock_timeout', '1d', false), pg_advisory_unlock_all();
         END $$;
         CREATE FUNCTION same(n int, place text) RETURNS bigint IMMUTABLE LANGUAGE plpgsql AS
           $$ BEGIN PERFORM public.spy(place); RETURN n; END $$;
         RESET SESSION AUTHORIZATION"
    ));
}

#[track_caller]
pub fn assert_spied(session: &mut Session, attacker: &str, places: &[&str]) {
    assert_eq!(
        session.lines(&format!("SELECT what, who FROM spied WHERE who <> '{attacker}' OR what LIKE 'managed%' ORDER BY 1, 2")),
        [] as [&str; 0]
    );
    assert_eq!(
        session.lines("SELECT DISTINCT what FROM spied ORDER BY 1"),
        places
    );
    assert_eq!(
        session.lines(&format!(
            "SELECT rolsuper FROM pg_roles WHERE rolname = '{attacker}'"
        )),
        ["f"]
    );
}

#[test]
fn the_conversion_runs_as_the_owner_of_the_table_and_nobody_else() {
    let database = Database::shared();
    let mut session = world(&database, &["conv_eve"]);
    plant_spy(&mut session, "conv_eve");
    session.exec(
        "SET ROLE conv_eve;
         CREATE TABLE t (id int PRIMARY KEY, a int, b int, c text);
         INSERT INTO t SELECT i, i, i, i FROM generate_series(1, 100) AS i;
         INSERT INTO t VALUES (0, 0, 0, 'bad');
         RESET ROLE",
    );
    // The operator is a superuser; constants make the planner evaluate what claims to be immutable.
    let ddl = "ALTER TABLE t ALTER COLUMN a TYPE bigint USING public.same(a, 'using') + public.same(1, 'constant') - 1,
                 ALTER COLUMN c TYPE int USING c::int,
                 ADD COLUMN d bigint DEFAULT public.same((random() * 10)::int, 'default'),
                 ADD COLUMN e bigint GENERATED ALWAYS AS (public.same(b, 'generated')) STORED,
                 ADD CONSTRAINT checked CHECK (public.same(b, 'check') = b)";
    let mut migration = Migration::start(&database, "m", ddl, LONG_SOAK);
    migration.wait("AWAITING_FINALIZATION");
    session.exec("UPDATE t SET a = a + 1; INSERT INTO t VALUES (101, 101, 101, '101')");
    migration.wait_for("dead_letters", "1");
    session.exec("UPDATE t SET c = '0' WHERE c = 'bad'");
    migration.call("skip_soak", "'enough'");
    migration.finish();
    assert_spied(
        &mut session,
        "conv_eve",
        &["check", "constant", "default", "generated", "using"],
    );
    assert_eq!(
        session.lines("SELECT count(*), sum(a), sum(c), sum(e), count(d) FROM t"),
        ["102|5252|5151|5151|102"]
    );
    assert_sound(&mut session, "t");
}

#[test]
fn whatever_hangs_on_the_table_runs_as_its_owner() {
    let database = Database::shared();
    let mut session = world(&database, &["hang_eve"]);
    plant_spy(&mut session, "hang_eve");
    // The spy leaves traces in the settings of the session it is called from.
    let mut eve = database.connect_as("hang_eve");
    eve.exec(
        "CREATE TYPE mood AS ENUM ('sad');
         CREATE FUNCTION mood_number(mood) RETURNS int IMMUTABLE LANGUAGE sql AS $$ SELECT public.same(1, 'cast')::int $$;
         CREATE CAST (mood AS int) WITH FUNCTION mood_number(mood) AS IMPLICIT;
         CREATE DOMAIN small AS int CHECK (public.same(1, 'domain') = 1);
         CREATE TABLE parent (id int PRIMARY KEY);
         CREATE TABLE t (id int PRIMARY KEY, a int, b small, ref mood CONSTRAINT ref REFERENCES parent);
         CREATE INDEX by_expression ON t ((same(a, 'index')));
         CREATE INDEX by_predicate ON t (b) WHERE same(b, 'predicate') > 0;
         CREATE FUNCTION on_row() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM public.spy('trigger'); RETURN NEW; END $$;
         CREATE TRIGGER on_row BEFORE INSERT OR UPDATE ON t FOR EACH ROW WHEN (public.same(NEW.a, 'when') > 0) EXECUTE FUNCTION on_row();
         INSERT INTO parent VALUES (1);
         INSERT INTO t SELECT i, i, i, 'sad' FROM generate_series(1, 100) AS i",
    );
    session.exec("TRUNCATE spied");
    let ddl =
        "ALTER TABLE t ALTER COLUMN a TYPE int USING a + 1, ALTER COLUMN ref TYPE mood USING ref";
    let mut migration = Migration::start(&database, "m", ddl, LONG_SOAK);
    migration.wait("AWAITING_FINALIZATION");
    let before = session.lines("SELECT DISTINCT what FROM spied ORDER BY 1");
    assert!(
        !before.iter().any(|what| what == "trigger"),
        "the copy fired a trigger"
    );
    eve.exec("SET search_path = public; UPDATE t SET b = b + 1 WHERE id < 10");
    migration.wait_for("lag", "0");
    // What she may do in a session of her own is not what this is about.
    session.exec("DELETE FROM spied WHERE what LIKE 'managed%'");
    migration.call("skip_soak", "'enough'");
    migration.finish();
    assert_spied(
        &mut session,
        "hang_eve",
        &["cast", "domain", "index", "predicate", "trigger", "when"],
    );
    assert_eq!(
        session.lines("SELECT convalidated FROM pg_constraint WHERE conname = 'ref'"),
        ["t"]
    );
}

#[test]
fn what_the_owner_does_to_the_work_tables_gives_him_no_power() {
    let database = Database::shared();
    let mut session = world(&database, &["work_eve"]);
    plant_spy(&mut session, "work_eve");
    session.exec(
        "SET ROLE work_eve;
         CREATE TABLE t (id int PRIMARY KEY, a text);
         INSERT INTO t SELECT i, i FROM generate_series(1, 100) AS i; INSERT INTO t VALUES (0, 'bad');
         CREATE FUNCTION on_row() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM public.spy('trigger'); RETURN NEW; END $$;
         RESET ROLE",
    );
    let mut migration = Migration::start(
        &database,
        "m",
        "ALTER TABLE t ALTER COLUMN a TYPE int USING a::int",
        LONG_SOAK,
    );
    migration.wait("AWAITING_FINALIZATION");
    let work_tables = session.lines(
        "SELECT format('%I.%I', relnamespace::regnamespace, relname) FROM pg_class
          WHERE relkind = 'r' AND relnamespace::regnamespace::text LIKE '%\\_new'",
    );
    assert!(work_tables.len() >= 2, "{work_tables:?}");
    let mut eve = database.connect_as("work_eve");
    for table in &work_tables {
        // Whether she may is one question, what comes of it another.
        let _ = eve.try_exec(&format!(
            "CREATE TRIGGER on_row BEFORE INSERT OR UPDATE OR DELETE ON {table} FOR EACH ROW EXECUTE FUNCTION public.on_row()"
        ));
        let _ = eve.try_exec(&format!(
            "CREATE RULE on_insert AS ON INSERT TO {table} DO ALSO SELECT public.spy('rule')"
        ));
    }
    // A refused row that nobody writes is tried again by itself: that is when rows are written to the work tables.
    session.wait_for(
        "SELECT attempts > 1 FROM transmute.dead_letters",
        "t",
        PATIENCE,
    );
    eve.exec("UPDATE t SET a = '0' WHERE id = 0");
    migration.call("skip_soak", "'enough'");
    migration.wait_for("state = 'FINISHED' OR outcome = 'FAILED'", "t");
    assert_eq!(
        session.lines("SELECT what, who FROM spied WHERE who <> 'work_eve' OR what LIKE 'managed%' ORDER BY 1, 2"),
        [] as [&str; 0]
    );
    assert_eq!(
        session.lines("SELECT rolsuper FROM pg_roles WHERE rolname = 'work_eve'"),
        ["f"]
    );
}

#[test]
fn look_alikes_of_the_servers_own_objects_are_not_called() {
    let database = Database::shared();
    let mut session = world(&database, &["like_eve"]);
    plant_spy(&mut session, "like_eve");
    // Whoever puts public in front asks for it in his own statements; ours must not care.
    database.cluster().connect().exec(&format!(
        "ALTER DATABASE {} SET search_path = public, pg_catalog",
        database.name()
    ));
    let mut eve = database.connect_as("like_eve");
    for (kind, left, right) in [
        ("texts", "text", "text"),
        ("oids", "oid", "oid"),
        ("numbers", "int4", "int4"),
        ("big", "int8", "int8"),
        ("names", "name", "name"),
        ("bools", "bool", "bool"),
        ("mixed", "int8", "int4"),
    ] {
        eve.exec(&format!(
            "CREATE FUNCTION public.equal({left}, {right}) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM public.spy('{kind}'); RETURN false; END $$;
             CREATE OPERATOR public.= (LEFTARG = {left}, RIGHTARG = {right}, FUNCTION = public.equal);
             CREATE OPERATOR public.> (LEFTARG = {left}, RIGHTARG = {right}, FUNCTION = public.equal)"
        ));
    }
    for signature in [
        "clock_timestamp()",
        "now()",
        "format(text, text)",
        "quote_ident(text)",
        "to_regclass(text)",
        "pg_backend_pid()",
        "current_database()",
        "count(int8)",
    ] {
        eve.exec(&format!(
            "CREATE FUNCTION public.{signature} RETURNS text LANGUAGE plpgsql AS $$ BEGIN PERFORM public.spy('function'); RETURN '1'; END $$"
        ));
    }
    eve.exec("CREATE TABLE public.pg_class (oid oid); CREATE TABLE public.pg_extension (extname text); CREATE TABLE public.migrations (id text)");
    drop(eve);

    let mut operator = database.connect();
    operator.exec(
        "SET search_path = pg_catalog, public;
         CREATE TABLE public.t (id int PRIMARY KEY, a int DEFAULT 5, b timestamptz DEFAULT now(), CHECK (a > 0));
         CREATE INDEX ON public.t (a) WHERE a = 7;
         INSERT INTO public.t SELECT i, i FROM generate_series(1, 500) AS i;
         RESET search_path;
         TRUNCATE public.spied",
    );
    let meta = r#"{"pre_finalization_soak": "1 hour", "required_approvals": 1}"#;
    operator.exec(&format!("SELECT transmute.register('m', 'ALTER TABLE t ALTER COLUMN a TYPE bigint', meta => '{meta}')"));
    operator.exec("SELECT transmute.apply('m'); SELECT transmute.approve('m', 'x')");
    operator.exec("SELECT * FROM transmute.status; SELECT * FROM transmute.plan('m'); SELECT * FROM transmute.audit_verify()");
    operator.exec("CALL transmute.wait('m', 'AWAITING_FINALIZATION')");
    operator.exec("SET search_path = pg_catalog; UPDATE public.t SET a = a + 1 WHERE id > 100; RESET search_path");
    operator.exec("SELECT transmute.pause('m', 'x'); SELECT transmute.resume('m', 'x'); SELECT transmute.skip_soak('m', 'x')");
    operator.exec("CALL transmute.wait('m')");
    let mut session = database.connect();
    session.exec("SET search_path = pg_catalog, public");
    assert_eq!(session.lines("SELECT * FROM spied"), [] as [&str; 0]);
    assert_eq!(
        session.lines("SELECT count(*), sum(a) FROM t"),
        ["500|125650"]
    );
    assert_eq!(
        session.lines("SELECT pg_get_expr(indpred, indrelid) FROM pg_index WHERE indpred IS NOT NULL AND indrelid = 't'::regclass"),
        ["(a = 7)"]
    );
}

#[test]
fn a_changed_key_or_key_log_never_crashes_the_server() {
    // A cluster of its own: what is tried here would take the others' along.
    let cluster = Cluster::builder().start();
    let database = Database::create(&cluster);
    let mut session = world(&database, &["crash_eve"]);
    // What stands in the way of such things otherwise.
    for moment in ["start", "drop", "end"] {
        session.exec(&format!(
            "ALTER EVENT TRIGGER transmute_ddl_{moment} DISABLE"
        ));
    }
    let postmaster = "SELECT pg_postmaster_start_time()";
    let since = session.lines(postmaster);
    for (number, attack, application) in [
        ("1", "ALTER TABLE t ALTER COLUMN id TYPE int USING id::int", "UPDATE t SET a = 0 WHERE id = 7"),
        ("2", "ALTER TABLE {log} ALTER COLUMN k1 TYPE int USING 1", "UPDATE t SET a = 0 WHERE id = '7'"),
        ("3", "DROP TABLE {log}; CREATE TABLE {log} (k1 int)", "DELETE FROM t WHERE id = '7'"),
        ("4", "ALTER TABLE {log} DROP COLUMN k1", "INSERT INTO t VALUES ('x', 1) ON CONFLICT (id) DO UPDATE SET a = 2"),
        ("5", "ALTER TABLE t DROP COLUMN id, ADD COLUMN id int PRIMARY KEY GENERATED ALWAYS AS IDENTITY", "UPDATE t SET a = 0 WHERE id = 7"),
    ] {
        session.exec(
            "SET ROLE crash_eve; DROP TABLE IF EXISTS t; CREATE TABLE t (id text PRIMARY KEY, a int);
             INSERT INTO t SELECT i, i FROM generate_series(1, 100) AS i; RESET ROLE",
        );
        let id = format!("m{number}");
        session.exec(&format!(
            "SELECT transmute.migrate('ALTER TABLE t ALTER COLUMN a TYPE bigint', id => '{id}', meta => '{LONG_SOAK}')"
        ));
        session.exec(&format!("CALL transmute.wait('{id}', 'AWAITING_FINALIZATION')"));
        let log: String = session.scalar(
            "SELECT format('%I._transmute_%s_keys', new_schema, id) FROM _transmute.rewrites WHERE swapped_at IS NULL",
        );
        let mut eve = database.connect_as("crash_eve");
        let allowed = eve.try_exec(&attack.replace("{log}", &log));
        if let Err(error) = &allowed {
            assert!(["42501", "55000", "55006"].contains(&error.sqlstate.as_str()), "{attack}: {error}");
            continue;
        }
        // It may be refused – what it changes could not be followed any more –, it may not end the session.
        for _ in 0..3 {
            if let Err(error) = eve.try_exec(application) {
                assert_eq!(error.sqlstate, "55000", "{attack}: {error}");
                assert!(error.hint.is_some(), "{attack}: {error}");
            }
        }
        session.exec(&format!("SELECT transmute.rollback('{id}', 'it was changed')"));
        session.exec(&format!("CALL transmute.wait('{id}', 'UNINITIALIZED')"));
        eve.exec(application);
        assert_no_traces(&mut session, "t");
    }
    assert_eq!(session.lines(postmaster), since);
    assert!(!cluster.log_contains("was terminated by signal"));
}
