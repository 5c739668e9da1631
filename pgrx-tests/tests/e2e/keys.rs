//! A key that foreign keys point at becomes a bigint: whatever refers to it comes along, in one swap, under load.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use transmute_tests::tools::version_under_test;
use transmute_tests::wait::{wait_until, PATIENCE};
use transmute_tests::{Database, Session};

use crate::migration::{self, assert_no_traces, assert_sound, fingerprint, Migration};

const TABLES: [&str; 5] = ["parent", "child", "toy", "wide", "aside"];

/// A serial key that refers to itself, children by identity and by composite key, one that is wide already.
const SCHEMA: &str = "
  CREATE TABLE parent (id serial PRIMARY KEY, up int REFERENCES parent ON DELETE SET NULL, note text);
  CREATE TABLE child (id int GENERATED ALWAYS AS IDENTITY, parent int NOT NULL REFERENCES parent ON DELETE CASCADE,
    n int NOT NULL, PRIMARY KEY (parent, id));
  CREATE TABLE toy (id serial PRIMARY KEY, owner int, number int,
    FOREIGN KEY (owner, number) REFERENCES child ON DELETE CASCADE ON UPDATE CASCADE DEFERRABLE INITIALLY DEFERRED);
  CREATE TABLE wide (id int PRIMARY KEY, parent bigint REFERENCES parent ON DELETE CASCADE);
  CREATE TABLE aside (id int PRIMARY KEY, n int);
  COMMENT ON CONSTRAINT child_parent_fkey ON child IS 'whose';
  CREATE VIEW family AS SELECT p.id, c.id AS child, c.parent FROM parent p JOIN child c ON c.parent = p.id;";

const ROWS: &str = "
  INSERT INTO parent (note) SELECT 'n' || i FROM generate_series(1, 4000) AS i;
  INSERT INTO child (parent, n) SELECT i, j FROM generate_series(1, 4000) AS i, generate_series(1, 3) AS j;
  INSERT INTO toy (owner, number) SELECT parent, id FROM child;
  INSERT INTO wide SELECT i, i FROM generate_series(1, 4000) AS i;
  UPDATE parent SET up = id - 1 WHERE id > 1;
  ANALYZE";

/// What the application wrote, kept by triggers in its own transactions.
const MIRRORS: &str = "
  CREATE SCHEMA m;
  CREATE FUNCTION m.keep() RETURNS trigger LANGUAGE plpgsql AS $$
  BEGIN
    IF TG_OP <> 'INSERT' THEN
      EXECUTE format('DELETE FROM m.%I WHERE row ->> ''id'' = $1', TG_TABLE_NAME) USING to_jsonb(OLD) ->> 'id';
    END IF;
    IF TG_OP <> 'DELETE' THEN
      EXECUTE format('INSERT INTO m.%I VALUES ($1)', TG_TABLE_NAME) USING to_jsonb(NEW);
    END IF;
    RETURN NULL;
  END $$;
  DO $$
  DECLARE t text;
  BEGIN
    FOREACH t IN ARRAY ARRAY['parent', 'child', 'toy'] LOOP
      EXECUTE format('CREATE TABLE m.%1$I AS SELECT to_jsonb(x) AS row FROM %1$I AS x', t);
      EXECUTE format('CREATE INDEX ON m.%I ((row ->> ''id''))', t);
      EXECUTE format('CREATE TRIGGER keep AFTER INSERT OR UPDATE OR DELETE ON %I FOR EACH ROW EXECUTE FUNCTION m.keep()', t);
    END LOOP;
  END $$";

/// Statements of the application; each is a transaction. `$` is a number that grows.
const APPLICATION: [&str; 7] = [
    "INSERT INTO parent (up, note) SELECT id, 'new' FROM parent WHERE id = 1 + $ % 3000 FOR KEY SHARE",
    "INSERT INTO child (parent, n) SELECT id, 7 FROM parent WHERE id BETWEEN $ % 3500 AND $ % 3500 + 2 FOR KEY SHARE",
    "INSERT INTO toy (owner, number) SELECT parent, id FROM child WHERE parent = 1 + $ % 3700 FOR KEY SHARE",
    "DELETE FROM parent WHERE id = 1000 + $ % 3001",
    "UPDATE child SET n = n + 1 WHERE parent = 1 + $ % 4000",
    "DELETE FROM toy WHERE owner = 1 + $ % 4000",
    "SELECT count(*) FROM family WHERE id BETWEEN $ % 100 AND 100",
];

fn under_load(database: &Database<'_>, work: impl FnOnce(&AtomicU64)) {
    under_load_of(database, &APPLICATION, work);
}

/// Runs `work` while three sessions write these statements; how many were written goes to it.
pub fn under_load_of(database: &Database<'_>, application: &[&str], work: impl FnOnce(&AtomicU64)) {
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
    let failed = thread::scope(|scope| {
        let writers: Vec<_> = (0..3u64)
            .map(|writer| {
                let (stop, done) = (&stop, &done);
                let mut session = database.connect();
                scope.spawn(move || {
                    let mut failed = Vec::new();
                    let mut i = writer * 1_000_003;
                    while !stop.load(Ordering::Relaxed) {
                        i += 7;
                        let text = application[(i % 7 + i / 49) as usize % application.len()];
                        let text = text.replace('$', &i.to_string());
                        if let Err(error) = session.try_exec(&text) {
                            failed.push(format!("{text}: {error}"));
                        }
                        done.fetch_add(1, Ordering::Relaxed);
                        thread::sleep(Duration::from_millis(1));
                    }
                    failed
                })
            })
            .collect();
        {
            let _stop = Stop(&stop);
            work(&done);
        }
        writers
            .into_iter()
            .flat_map(|w| w.join().expect("a writer"))
            .collect::<Vec<String>>()
    });
    assert!(failed.is_empty(), "{} failed: {failed:#?}", failed.len());
}

#[track_caller]
pub fn some_more(done: &AtomicU64) {
    let until = done.load(Ordering::Relaxed) + 150;
    wait_until("the application to write", PATIENCE, || {
        (done.load(Ordering::Relaxed) >= until).then_some(())
    });
}

/// Every row of these tables is what the application wrote, as often as it did: what triggers kept in schema m.
#[track_caller]
pub fn assert_mirrored(session: &mut Session, tables: &[&str]) {
    for table in tables {
        let differences = session.lines(&format!(
            "(SELECT '+', to_jsonb(x)::text FROM {table} AS x EXCEPT ALL SELECT '+', row::text FROM m.{table})
             UNION ALL (SELECT '-', row::text FROM m.{table} EXCEPT ALL SELECT '-', to_jsonb(x)::text FROM {table} AS x) LIMIT 5"
        ));
        assert!(differences.is_empty(), "{table}: {differences:#?}");
    }
}

/// And every reference leads somewhere.
#[track_caller]
fn assert_intact(session: &mut Session) {
    assert_mirrored(session, &["parent", "child", "toy"]);
    assert_eq!(
        session.lines(
            "SELECT (SELECT count(*) FROM child c WHERE NOT EXISTS (SELECT FROM parent p WHERE p.id = c.parent)),
               (SELECT count(*) FROM toy t WHERE owner IS NOT NULL
                  AND NOT EXISTS (SELECT FROM child c WHERE (c.parent, c.id) = (t.owner, t.number))),
               (SELECT count(*) FROM parent p WHERE up IS NOT NULL AND NOT EXISTS (SELECT FROM parent q WHERE q.id = p.up)),
               (SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND NOT convalidated)"
        ),
        ["0|0|0|0"]
    );
}

fn fingerprints(session: &mut Session) -> Vec<String> {
    TABLES.map(|t| fingerprint(session, t)).to_vec()
}

fn family(database: &Database<'_>) -> Session {
    let mut session = database.connect();
    session.exec(SCHEMA);
    session.exec(ROWS);
    session.exec(MIRRORS);
    session
}

#[test]
fn a_referenced_key_and_all_that_refers_to_it_become_wide_at_once() {
    let database = Database::shared();
    let mut session = family(&database);
    let before = fingerprints(&mut session);
    migration::set(
        &database,
        &[("batch_target_ms", "5"), ("backfill_duty", "10")],
    );
    under_load(&database, |done| {
        let mut m = Migration::start(
            &database,
            "m",
            "ALTER TABLE parent ALTER COLUMN id TYPE bigint",
            r#"{"required_approvals": 1}"#,
        );
        // Taken back in the middle of the copy, then when everything is ready.
        m.wait_for("state = 'RUNNING' AND progress > 0", "t");
        some_more(done);
        m.roll_back();
        m.apply();
        m.wait("AWAITING_FINALIZATION");
        some_more(done);
        m.roll_back();
        assert_eq!(fingerprints(&mut session), before);
        m.apply();
        m.wait("AWAITING_FINALIZATION");
        some_more(done);
        m.call("approve", "'good'");
        m.finish();
        some_more(done);
    });
    assert_intact(&mut session);
    for table in TABLES {
        assert_sound(&mut session, table);
    }
    assert_eq!(
        session.lines(
            "SELECT attrelid::regclass || '.' || attname, atttypid::regtype FROM pg_attribute
              WHERE attrelid IN ('parent'::regclass, 'child'::regclass, 'toy'::regclass, 'wide'::regclass)
                AND attnum > 0 AND attname <> 'note' ORDER BY attrelid::regclass::text COLLATE \"C\", attnum"
        ),
        [
            "child.id|integer",
            "child.parent|bigint",
            "child.n|integer",
            "parent.id|bigint",
            "parent.up|bigint",
            "toy.id|integer",
            "toy.owner|bigint",
            "toy.number|integer",
            "wide.id|integer",
            "wide.parent|bigint",
        ]
    );
    assert_eq!(
        session.lines("SELECT source FROM transmute.artifacts ORDER BY 1"),
        ["public.child", "public.parent", "public.toy"],
        "what is wide already is not copied"
    );

    // The same as the plain statements, on the same tables.
    let plain = Database::shared();
    let mut other = family(&plain);
    other.exec(
        "DROP VIEW family;
         ALTER TABLE parent ALTER id TYPE bigint, ALTER up TYPE bigint;
         ALTER SEQUENCE parent_id_seq AS bigint;
         ALTER TABLE child ALTER parent TYPE bigint;
         ALTER TABLE toy ALTER owner TYPE bigint;
         CREATE VIEW family AS SELECT p.id, c.id AS child, c.parent FROM parent p JOIN child c ON c.parent = p.id",
    );
    assert_eq!(fingerprints(&mut session), fingerprints(&mut other));
    let sequences = "SELECT sequencename, data_type, max_value FROM pg_sequences WHERE schemaname = 'public' ORDER BY 1";
    assert_eq!(session.lines(sequences), other.lines(sequences));
}

#[test]
fn the_script_may_speak_of_the_children_itself() {
    let database = Database::shared();
    let mut session = family(&database);
    let ddl = "ALTER TABLE child ALTER COLUMN n SET DEFAULT 3;
        ALTER TABLE toy ALTER COLUMN owner TYPE bigint;
        ALTER TABLE parent ALTER COLUMN id TYPE bigint;
        ALTER TABLE child ALTER COLUMN n TYPE bigint";
    let swaps = session.lines(&format!(
        "SELECT target, sql FROM transmute.explain($${ddl}$$) WHERE kind = 'rewrite_swap' ORDER BY step"
    ));
    assert_eq!(
        swaps,
        [
            "public.child|ALTER TABLE child ALTER COLUMN n SET DEFAULT 3;\nALTER TABLE child ALTER COLUMN n TYPE bigint;\n\
             ALTER TABLE public.child ALTER COLUMN parent TYPE bigint",
            "public.toy|ALTER TABLE toy ALTER COLUMN owner TYPE bigint",
            "public.parent|ALTER TABLE parent ALTER COLUMN id TYPE bigint;\nALTER TABLE public.parent ALTER COLUMN up TYPE bigint",
        ]
    );
    Migration::start(&database, "m", ddl, "{}").finish();
    assert_intact(&mut session);
    assert_eq!(
        session.lines("SELECT pg_typeof(parent), pg_typeof(n), pg_get_expr(adbin, adrelid) FROM child, pg_attrdef WHERE adrelid = 'child'::regclass LIMIT 1"),
        ["bigint|bigint|3"]
    );
    for table in TABLES {
        assert_no_traces(&mut session, table);
    }
}

#[test]
fn a_foreign_key_that_the_script_drops_is_not_put_back() {
    let database = Database::shared();
    let mut session = family(&database);
    Migration::start(
        &database,
        "m",
        "ALTER TABLE child DROP CONSTRAINT child_parent_fkey;
         ALTER TABLE parent ALTER COLUMN id TYPE bigint;
         ALTER TABLE child ALTER COLUMN parent TYPE bigint",
        "{}",
    )
    .finish();
    assert_intact(&mut session);
    assert_eq!(
        session.lines(
            "SELECT conname FROM pg_constraint WHERE conrelid = 'child'::regclass AND contype = 'f'"
        ),
        [""; 0]
    );
}

#[test]
fn children_can_be_left_alone_and_are_refused_where_they_cannot_follow() {
    let database = Database::shared();
    let mut session = family(&database);
    Migration::start(
        &database,
        "m",
        "ALTER TABLE parent ALTER COLUMN id TYPE bigint",
        r#"{"include_referencing": false}"#,
    )
    .finish();
    assert_intact(&mut session);
    assert_eq!(
        session.lines("SELECT pg_typeof(parent) FROM child LIMIT 1"),
        ["integer"]
    );
    session.exec(
        "CREATE TABLE other (id int PRIMARY KEY);
         CREATE TABLE uses (id int PRIMARY KEY, other int REFERENCES other);
         CREATE TABLE alone (id int PRIMARY KEY);
         CREATE TABLE parts (id int, other int) PARTITION BY RANGE (id);
         CREATE TABLE parts_1 PARTITION OF parts DEFAULT; ALTER TABLE parts_1 ADD PRIMARY KEY (id), ADD FOREIGN KEY (other) REFERENCES alone",
    );
    let part =
        session.error("SELECT transmute.register('n', 'ALTER TABLE alone ALTER id TYPE bigint')");
    assert_eq!(part.sqlstate, "0A000", "{part}");
    assert!(
        part.detail
            .as_deref()
            .unwrap_or_default()
            .contains("public.parts_1"),
        "{part}"
    );
    let using = session.error(
        "SELECT transmute.register('n', 'ALTER TABLE other ALTER id TYPE bigint USING id::bigint')",
    );
    assert_eq!(using.sqlstate, "0A000", "{using}");
    assert!(
        using
            .detail
            .as_deref()
            .unwrap_or_default()
            .contains("public.uses"),
        "{using}"
    );
    let incomparable =
        session.error("SELECT transmute.register('n', 'ALTER TABLE uses ALTER other TYPE text')");
    assert_eq!(incomparable.sqlstate, "42804", "{incomparable}");
    assert_eq!(session.lines("SELECT id FROM transmute.status"), ["m"]);
}

#[test]
fn foreign_keys_that_the_script_takes_away_and_gives_back_are_valid_at_the_end() {
    let database = Database::shared();
    let mut session = family(&database);
    under_load(&database, |done| {
        let mut m = Migration::start(
            &database,
            "m",
            "ALTER TABLE child DROP CONSTRAINT child_parent_fkey;
             ALTER TABLE parent ALTER COLUMN id TYPE bigint;
             ALTER TABLE child ALTER COLUMN parent TYPE bigint;
             ALTER TABLE child ADD CONSTRAINT child_parent_fkey FOREIGN KEY (parent) REFERENCES parent ON DELETE CASCADE",
            r#"{"pre_finalization_soak": "1 s"}"#,
        );
        m.finish();
        some_more(done);
    });
    assert_intact(&mut session);
    assert_eq!(
        session.lines("SELECT confdeltype, convalidated, confrelid::regclass FROM pg_constraint WHERE conname = 'child_parent_fkey'"),
        ["c|t|parent"]
    );
}

/// A key of a partitioned table that a table, and another partitioned one, refer to.
fn trees(session: &mut Session) {
    session.exec(
        "CREATE TABLE root (part int, id int, up int, PRIMARY KEY (part, id), FOREIGN KEY (part, up) REFERENCES root) PARTITION BY HASH (part);
         CREATE TABLE root_0 PARTITION OF root FOR VALUES WITH (MODULUS 2, REMAINDER 0);
         CREATE TABLE root_1 PARTITION OF root FOR VALUES WITH (MODULUS 2, REMAINDER 1);
         CREATE TABLE one (id int PRIMARY KEY, note text);
         CREATE TABLE leaf (id int, k int, part int, root int, one int NOT NULL REFERENCES one, PRIMARY KEY (k, id),
           FOREIGN KEY (part, root) REFERENCES root ON DELETE CASCADE) PARTITION BY RANGE (k);
         CREATE TABLE leaf_1 PARTITION OF leaf FOR VALUES FROM (0) TO (10);
         CREATE TABLE leaf_2 (one int NOT NULL, k int NOT NULL, gone int, id int NOT NULL, root int, part int); ALTER TABLE leaf_2 DROP gone;
         ALTER TABLE leaf ATTACH PARTITION leaf_2 FOR VALUES FROM (10) TO (20);
         CREATE TABLE plain (id int PRIMARY KEY, part int, root int, FOREIGN KEY (part, root) REFERENCES root ON DELETE CASCADE);
         INSERT INTO root SELECT i % 4, i, CASE WHEN i > 4 THEN i - 4 END FROM generate_series(1, 400) AS i; INSERT INTO one SELECT generate_series(1, 50);
         INSERT INTO leaf SELECT i, i % 20, i % 4, i, 1 + i % 50 FROM generate_series(1, 400) AS i; INSERT INTO plain SELECT i, i % 4, i FROM generate_series(1, 400) AS i",
    );
}

const TREES: [&str; 8] = [
    "root", "root_0", "root_1", "one", "leaf", "leaf_1", "leaf_2", "plain",
];

#[test]
fn partitioned_tables_that_refer_to_a_key_come_along() {
    let database = Database::shared();
    let mut session = database.connect();
    trees(&mut session);
    let ddl =
        "ALTER TABLE one ALTER COLUMN id TYPE bigint; ALTER TABLE root ALTER COLUMN id TYPE bigint";
    if version_under_test() < 18 {
        // There the server has no NOT VALID for foreign keys of partitioned tables.
        let error = session.error(&format!("SELECT transmute.register('m', '{ddl}')"));
        assert_eq!(error.sqlstate, "0A000", "{error}");
        return;
    }
    let pictures = |session: &mut Session| TREES.map(|t| fingerprint(session, t));
    let before = pictures(&mut session);
    let soak = r#"{"pre_finalization_soak": "1 hour"}"#;
    let mut migration = Migration::start(&database, "m", ddl, soak);
    for round in 0..2 {
        migration.wait("AWAITING_FINALIZATION");
        session.exec(&format!(
            "INSERT INTO root VALUES (3, 1000 + {round}, 3); INSERT INTO one VALUES (1000 + {round});
             INSERT INTO leaf VALUES (1000, 15 + {round}, 3, 1000 + {round}, 1000 + {round}); INSERT INTO plain VALUES (1000 + {round}, 3, 1000 + {round});
             UPDATE leaf SET k = 19 - k WHERE id % 10 = 3 AND id < 401; UPDATE root SET up = NULL WHERE up = 40 + {round}; DELETE FROM root WHERE id = 40 + {round}"
        ));
        if round == 0 {
            migration.roll_back();
            assert_eq!(pictures(&mut session), before);
            migration.apply();
        }
    }
    migration.call("skip_soak", "'good'");
    migration.finish();
    assert_eq!(
        session.lines(
            "SELECT attrelid::regclass, string_agg(attname, ',' ORDER BY attname) FROM pg_attribute
             WHERE attrelid::regclass::text = ANY (ARRAY['root_0', 'one', 'leaf', 'leaf_2', 'plain']) AND atttypid = 'bigint'::regtype
             GROUP BY attrelid ORDER BY attrelid::regclass::text"
        ),
        [
            "leaf|one,root",
            "leaf_2|one,root",
            "one|id",
            "plain|root",
            "root_0|id,up"
        ]
    );
    assert_eq!(
        session
            .lines("SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND NOT convalidated"),
        ["0"]
    );
    // They hold, both ways.
    for wrong in [
        "INSERT INTO leaf VALUES (1, 5, 3, 77777, 1)",
        "INSERT INTO plain VALUES (7777, 3, 77777)",
        "DELETE FROM one WHERE id = 7",
    ] {
        assert_eq!(session.error(wrong).sqlstate, "23503", "{wrong}");
    }
    session.exec("UPDATE root SET up = NULL WHERE up = 8; DELETE FROM root WHERE id = 8");
    assert_eq!(
        session.lines("SELECT (SELECT count(*) FROM leaf WHERE root = 8), (SELECT count(*) FROM plain WHERE root = 8), (SELECT count(*) FROM leaf)"),
        ["0|0|399"]
    );

    let plain = Database::shared();
    let mut other = plain.connect();
    trees(&mut other);
    for statement in [
        "ALTER TABLE leaf DROP CONSTRAINT leaf_part_root_fkey, DROP CONSTRAINT leaf_one_fkey",
        "ALTER TABLE plain DROP CONSTRAINT plain_part_root_fkey",
        "ALTER TABLE root DROP CONSTRAINT root_part_up_fkey",
        "ALTER TABLE leaf ALTER root TYPE bigint, ALTER one TYPE bigint",
        "ALTER TABLE plain ALTER root TYPE bigint",
        "ALTER TABLE root ALTER id TYPE bigint, ALTER up TYPE bigint",
        "ALTER TABLE one ALTER id TYPE bigint",
        "ALTER TABLE root ADD FOREIGN KEY (part, up) REFERENCES root",
        "ALTER TABLE leaf ADD FOREIGN KEY (part, root) REFERENCES root ON DELETE CASCADE, ADD FOREIGN KEY (one) REFERENCES one",
        "ALTER TABLE plain ADD FOREIGN KEY (part, root) REFERENCES root ON DELETE CASCADE",
    ] {
        other.exec(statement);
    }
    assert_eq!(pictures(&mut session), pictures(&mut other));
    for table in ["root_0", "root_1", "one", "leaf_1", "leaf_2", "plain"] {
        assert_sound(&mut session, table);
        assert_no_traces(&mut session, table);
    }
}
