//! The locks that `explain` says a step takes are those that it holds when it has done its work, for every kind of step.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use transmute_tests::{Database, Session};

use crate::locks::HELD;

/// The kinds of steps, as the extension's source lists them.
const SOURCE: &str = include_str!("../../../src/store/step.rs");

/// Migrations one after the other, each with what it needs: `id`, what is made before, the call that registers it, and statements that
/// keep a transaction open: what runs outside of transactions waits for it.
struct Scene {
    id: &'static str,
    before: &'static str,
    register: &'static str,
    writers: &'static [&'static str],
}

const fn scene(id: &'static str, before: &'static str, register: &'static str) -> Scene {
    Scene {
        id,
        before,
        register,
        writers: &[],
    }
}

const SCENES: &[Scene] = &[
    scene(
        "retype",
        "CREATE TABLE acct (id int PRIMARY KEY, v int, n text);
         CREATE TABLE code (id int PRIMARY KEY); INSERT INTO code SELECT generate_series(1, 40);
         CREATE TABLE entry (id int PRIMARY KEY, acct int REFERENCES acct, x int);
         CREATE VIEW acct_v AS SELECT v FROM acct; CREATE VIEW acct_vv AS SELECT v FROM acct_v;
         CREATE MATERIALIZED VIEW acct_m AS SELECT id, v FROM acct; CREATE UNIQUE INDEX acct_m_id ON acct_m (id);
         INSERT INTO acct SELECT i, i FROM generate_series(1, 20) i; INSERT INTO entry SELECT i, i, i FROM generate_series(1, 20) i",
        "'ALTER TABLE acct ALTER COLUMN v TYPE bigint'",
    ),
    scene("referring", "", "'ALTER TABLE entry ALTER COLUMN acct TYPE bigint, ALTER COLUMN x TYPE bigint'"),
    scene(
        "key_added",
        "",
        "'ALTER TABLE acct ALTER COLUMN v TYPE int; ALTER TABLE acct ADD CONSTRAINT acct_code FOREIGN KEY (v) REFERENCES code'",
    ),
    scene(
        "key",
        "DROP MATERIALIZED VIEW acct_m; ALTER TABLE entry ADD UNIQUE (x)",
        "'ALTER TABLE acct ALTER COLUMN id TYPE bigint'",
    ),
    scene(
        "serial",
        "CREATE TABLE ser (id serial PRIMARY KEY, v int); INSERT INTO ser (v) SELECT i FROM generate_series(1, 20) i",
        "'ALTER TABLE ser ALTER COLUMN id TYPE bigint'",
    ),
    scene(
        "tree",
        "CREATE TABLE parts (id int, k int, v text, PRIMARY KEY (id, k)) PARTITION BY RANGE (k);
         CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
         CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (10) TO (20);
         CREATE TABLE parts_other PARTITION OF parts DEFAULT;
         INSERT INTO parts SELECT i, i, i FROM generate_series(1, 29) i",
        "'ALTER TABLE parts ALTER COLUMN v TYPE int USING v::int'",
    ),
    Scene {
        id: "tree_index",
        before: "",
        register: "'CREATE INDEX parts_v ON parts (v)'",
        writers: &[
            "DELETE FROM parts_1 WHERE id = 0",
            "DELETE FROM parts_2 WHERE id = 0",
            "DELETE FROM parts_other WHERE id = 0",
        ],
    },
    Scene {
        id: "tree_key",
        before: "",
        register: "'ALTER TABLE parts ADD UNIQUE (k, v)'",
        writers: &[
            "DELETE FROM parts_1 WHERE id = 0",
            "DELETE FROM parts_2 WHERE id = 0",
            "DELETE FROM parts_other WHERE id = 0",
        ],
    },
    scene(
        "tree_reference",
        "",
        "'ALTER TABLE parts ADD CONSTRAINT parts_code FOREIGN KEY (k) REFERENCES code'",
    ),
    scene(
        "attach",
        "CREATE TABLE parts_3 (id int NOT NULL, k int NOT NULL, v int); INSERT INTO parts_3 VALUES (31, 31, 31)",
        "'ALTER TABLE parts ATTACH PARTITION parts_3 FOR VALUES FROM (30) TO (40)'",
    ),
    Scene {
        id: "detach",
        before: "CREATE TABLE nums (id int, k int) PARTITION BY RANGE (k); CREATE TABLE nums_1 PARTITION OF nums FOR VALUES FROM (0) TO (10)",
        register: "'ALTER TABLE nums DETACH PARTITION nums_1'",
        writers: &["LOCK TABLE nums IN SHARE UPDATE EXCLUSIVE MODE", "SELECT * FROM nums_1"],
    },
    scene(
        "rename_table",
        "CREATE TABLE olden (id int PRIMARY KEY, v text, c int REFERENCES code, d date NOT NULL DEFAULT now(), w int NOT NULL); CREATE SEQUENCE olden_s OWNED BY olden.w",
        "'ALTER TABLE olden RENAME TO newer'",
    ),
    scene("rename_column", "", "'ALTER TABLE newer RENAME COLUMN v TO words'"),
    scene(
        "rename_in_place",
        "",
        "'ALTER TABLE newer RENAME COLUMN words TO v; ALTER TABLE newer RENAME TO newest', meta => '{\"rename\": \"in_place\"}'",
    ),
    scene("drop_column", "", "'ALTER TABLE newest DROP COLUMN w, DROP COLUMN d'"),
    scene("drop_column:down", "", "down('drop_column', 'scene', confirm => current_database())"),
    scene("drop_table", "", "'DROP TABLE newest'"),
    scene(
        "split",
        "CREATE TABLE people (id int PRIMARY KEY, name text NOT NULL, n int); INSERT INTO people SELECT i, 'A B', i FROM generate_series(1, 20) i",
        "'ALTER TABLE people ADD COLUMN first text; UPDATE people SET first = split_part(name, '' '', 1)', meta => '{\"dual_write\": \"rule\"}'",
    ),
    scene(
        "merge",
        "",
        "'ALTER TABLE people ADD COLUMN m int; UPDATE people SET m = n + 1; ALTER TABLE people DROP COLUMN n', meta => '{\"reverse\": {\"n\": \"m - 1\"}}'",
    ),
    scene(
        "rename_by_rule",
        "",
        "'ALTER TABLE people RENAME COLUMN m TO o', meta => '{\"dual_write\": \"trigger\"}'",
    ),
    scene(
        "versions",
        "CREATE TABLE item (id int PRIMARY KEY, v int)",
        "'ALTER TABLE item ADD COLUMN w int', meta => '{\"versioned_views_before\": \"v1\", \"versioned_views\": \"v2\"}'",
    ),
    scene(
        "version_swap",
        "",
        "'ALTER TABLE item ALTER COLUMN w TYPE bigint', meta => '{\"versioned_views_before\": \"v3\", \"versioned_views\": \"v4\"}'",
    ),
    scene("version_swap:down", "", "down('version_swap', 'the test says so')"),
    scene(
        "version_drop",
        "",
        "'ALTER TABLE item ADD COLUMN x int', meta => '{\"drop_versions\": [\"v1\"]}'",
    ),
    scene(
        "data",
        "CREATE TABLE big (id int PRIMARY KEY, p int REFERENCES code, v int); CREATE TABLE heap (v int); CREATE TABLE other (id int PRIMARY KEY, v int);
         INSERT INTO big SELECT i, i, i FROM generate_series(1, 20) i; INSERT INTO heap SELECT generate_series(1, 20)",
        "'UPDATE big SET v = v + 1; UPDATE big SET p = p + 1; DELETE FROM big WHERE id > 15; INSERT INTO other SELECT id, v FROM big; UPDATE heap SET v = 2;
          UPDATE big SET v = o.v FROM other o WHERE o.id = big.id; TRUNCATE heap'",
    ),
    scene(
        "whole",
        "",
        "'UPDATE big SET v = 7; INSERT INTO heap SELECT id FROM big', meta => '{\"data\": \"single\"}'",
    ),
    scene(
        "successor",
        "CREATE TABLE sold (id int PRIMARY KEY, p int REFERENCES code, v int); INSERT INTO sold SELECT i, i, i FROM generate_series(1, 20) i",
        "'CREATE TABLE sold_new (LIKE sold INCLUDING ALL); INSERT INTO sold_new SELECT * FROM sold; DROP TABLE sold; ALTER TABLE sold_new RENAME TO sold'",
    ),
    scene(
        "direct",
        "",
        "'ALTER TABLE big ALTER COLUMN v TYPE bigint; CREATE INDEX ON big (v)', meta => '{\"mode\": \"direct\"}'",
    ),
    scene(
        "one_by_one",
        "",
        "'ALTER TABLE big ALTER COLUMN v TYPE int; CREATE INDEX ON big (p)', meta => '{\"mode\": \"direct\", \"transaction\": \"none\"}'",
    ),
    scene(
        "constraints",
        "INSERT INTO code SELECT generate_series(41, 60); INSERT INTO other VALUES (100, 100)",
        "'ALTER TABLE big ADD CHECK (v > 0); ALTER TABLE big ALTER COLUMN v SET NOT NULL; ALTER TABLE other ADD COLUMN p int;
          ALTER TABLE other ADD FOREIGN KEY (p) REFERENCES code'",
    ),
    scene(
        "changes",
        "CREATE SCHEMA elsewhere; CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
        "'CREATE VIEW big_v AS SELECT b.v FROM big b JOIN other o USING (id); CREATE TRIGGER tr BEFORE UPDATE ON big FOR EACH ROW EXECUTE FUNCTION f();
          CREATE POLICY po ON big USING (true); COMMENT ON TABLE big IS ''x''; CREATE STATISTICS st ON v, p FROM big; ALTER TABLE big ALTER COLUMN v SET DEFAULT 1;
          ALTER TABLE big SET (fillfactor = 70); CREATE RULE ru AS ON DELETE TO heap DO INSTEAD NOTHING; CREATE MATERIALIZED VIEW big_m AS SELECT id FROM big'",
    ),
    scene(
        "drops",
        "CREATE UNIQUE INDEX big_m_id ON big_m (id)",
        "'DROP TRIGGER tr ON big; DROP POLICY po ON big; DROP RULE ru ON heap; DROP STATISTICS st; DROP VIEW big_v; ALTER TABLE big DROP CONSTRAINT big_v_check;
          REFRESH MATERIALIZED VIEW big_m; REFRESH MATERIALIZED VIEW CONCURRENTLY big_m; ALTER TABLE big DROP CONSTRAINT big_p_fkey; DROP SEQUENCE IF EXISTS nothing'",
    ),
    Scene {
        id: "index",
        before: "CREATE INDEX big_old ON big (v)",
        register: "'CREATE INDEX big_new ON big (v, p)'",
        writers: &["UPDATE big SET v = 3 WHERE id = 1"],
    },
    Scene {
        id: "reindex",
        before: "",
        register: "'REINDEX INDEX big_new'",
        writers: &["UPDATE big SET v = 3 WHERE id = 1"],
    },
    Scene {
        id: "drop_index",
        before: "",
        register: "'DROP INDEX big_new'",
        writers: &["UPDATE big SET v = 3 WHERE id = 1"],
    },
    Scene {
        id: "unique",
        before: "",
        register: "'ALTER TABLE other ADD UNIQUE (v)'",
        writers: &["UPDATE other SET p = 3 WHERE id = 1"],
    },
    Scene {
        id: "vacuum",
        before: "CREATE TYPE mood AS ENUM ('')",
        register: "'VACUUM heap; ALTER TYPE mood ADD VALUE ''well'''",
        writers: &["LOCK TABLE heap IN SHARE UPDATE EXCLUSIVE MODE"],
    },
    scene(
        "change_and_back",
        "",
        "'ALTER TABLE other ALTER COLUMN v SET DEFAULT 5; ALTER TABLE heap ADD COLUMN w int'",
    ),
    scene("change_and_back:down", "", "down('change_and_back', 'the test says so')"),
    scene(
        "phases",
        "CREATE TABLE fresh (id int PRIMARY KEY, v int)",
        "register_phases('phases', '', 'WITH n AS (SELECT id FROM other o WHERE NOT EXISTS (SELECT FROM fresh f WHERE f.id = o.id) ORDER BY id LIMIT $1)
           INSERT INTO fresh SELECT id FROM n', 'ALTER TABLE big SET (fillfactor = 90)', 'DELETE FROM fresh')",
    ),
    scene(
        "copy",
        "CREATE TABLE copied (id int PRIMARY KEY, v int)",
        "register_copy('copy', 'other', 'copied', '{id}', 'id, v')",
    ),
];

/// What processes hold, and what was planned.
struct Watch {
    session: Session,
    id: &'static str,
    /// Kind and locks of each step.
    planned: BTreeMap<i32, (String, BTreeSet<String>)>,
    /// Mode, as its place in the order, of each relation that a step has had locked.
    held: BTreeMap<i32, BTreeSet<String>>,
}

/// Steps that commit together.
const TOGETHER: [&str; 2] = ["rewrite_swap", "rewrite_tree"];

impl Watch {
    fn of(database: &Database<'_>, registered: &mut Session, id: &'static str) -> Watch {
        let rows = registered.rows(&format!(
            "SELECT step, kind, array_to_string(locks, ';') FROM transmute.plan('{id}') ORDER BY step"
        ));
        let planned = rows.into_iter().map(|row| {
            let [step, kind, locks] = <[_; 3]>::try_from(row)
                .expect("as many columns")
                .map(Option::unwrap_or_default);
            let locks = locks.split(';').filter(|l| !l.is_empty()).map(String::from);
            (step.parse().expect("a number"), (kind, locks.collect()))
        });
        Watch {
            planned: planned.collect(),
            session: database.connect(),
            id,
            held: BTreeMap::new(),
        }
    }

    fn hold(&mut self) {
        let last = self.planned.len();
        self.session.exec(&format!(
            "SELECT pg_advisory_lock(74616, hashtext('step_' || n || '_worked')) FROM generate_series(1, {last}) n"
        ));
    }

    fn release(&mut self) {
        self.session.exec("SELECT pg_advisory_unlock_all()");
    }

    /// Lets whoever stands at a step's waitpoint pass, once its locks are noted.
    fn pass(&mut self) {
        let last = self.planned.len();
        let waiting = self.session.rows(&format!(
            "SELECT n, l.pid FROM generate_series(1, {last}) n JOIN pg_locks l ON l.locktype = 'advisory' AND NOT l.granted AND l.objsubid = 2
               AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
               AND l.classid::bigint = 74616 AND l.objid::bigint = hashtext('step_' || n || '_worked')::bigint & 4294967295"
        ));
        for row in waiting {
            let [step, pid] = <[_; 2]>::try_from(row)
                .expect("as many columns")
                .map(Option::unwrap_or_default);
            self.note(step.parse().expect("a number"), &pid);
            self.session.exec(&format!(
                "SELECT pg_advisory_unlock(74616, hashtext('step_{step}_worked')), pg_advisory_lock(74616, hashtext('step_{step}_worked'))"
            ));
        }
    }

    /// Whoever runs a statement outside of a transaction, and for whom it waits.
    fn runners(&mut self) -> Vec<String> {
        let rows = self.session.rows(&format!(
            "SELECT s.step, a.pid, b FROM pg_stat_activity a
               JOIN _transmute.steps s ON s.migration_id = '{}' AND s.status = 'running' AND s.kind IN ('outside', 'leaf_indexes', 'leaf_attach')
               LEFT JOIN LATERAL unnest(pg_blocking_pids(a.pid)) b ON true
              WHERE a.datname = current_database() AND a.backend_type = 'transmute runner'",
            self.id
        ));
        let mut blockers = Vec::new();
        for row in rows {
            let [step, pid, blocker] = <[_; 3]>::try_from(row).expect("as many columns");
            self.note(
                step.expect("a step").parse().expect("a number"),
                &pid.expect("a process"),
            );
            blockers.extend(blocker);
        }
        blockers
    }

    fn note(&mut self, step: i32, pid: &str) {
        let held = HELD.replace("$1", pid);
        let mut held = self.session.lines(&held);
        held.retain(|lock| !lock.contains("_transmute_") && !lock.contains(" on transmute."));
        self.held.entry(step).or_default().extend(held);
    }

    /// What was held otherwise than planned. ACCESS SHARE is what any look takes: only what was planned of it is asked for. What runs
    /// outside of a transaction is seen only where somebody was in its way.
    fn wrong(&self, blocked: bool, seen: &mut BTreeSet<String>) -> Vec<String> {
        let together: BTreeSet<String> = self
            .planned
            .values()
            .filter(|(kind, _)| TOGETHER.contains(&kind.as_str()))
            .flat_map(|(_, locks)| locks.clone())
            .collect();
        let mut wrong = Vec::new();
        for (step, held) in &self.held {
            let (kind, planned) = &self.planned[step];
            if kind == "outside" && (!blocked || held.is_empty()) {
                continue;
            }
            seen.insert(kind.clone());
            let planned = strongest(match TOGETHER.contains(&kind.as_str()) {
                true => &together,
                false => planned,
            });
            let mut held = strongest(held);
            held.retain(|relation, mode| *mode > 0 || planned.contains_key(relation));
            if held != planned {
                let (planned, held) = (words(&planned), words(&held));
                wrong.push(format!(
                    "{} {step} {kind}\n  planned: {planned}\n  held:    {held}",
                    self.id
                ));
            }
        }
        wrong
    }
}

const MODES: [&str; 8] = [
    "ACCESS SHARE",
    "ROW SHARE",
    "ROW EXCLUSIVE",
    "SHARE UPDATE EXCLUSIVE",
    "SHARE",
    "SHARE ROW EXCLUSIVE",
    "EXCLUSIVE",
    "ACCESS EXCLUSIVE",
];

/// Each relation with the strongest mode, as its place in the order.
fn strongest(locks: &BTreeSet<String>) -> BTreeMap<String, usize> {
    let mut all = BTreeMap::new();
    for lock in locks {
        let (mode, relation) = lock.split_once(" on ").expect("a mode on a relation");
        let mode = MODES.iter().position(|m| *m == mode).expect("a lock mode");
        let known = all.entry(relation.to_string()).or_insert(mode);
        *known = mode.max(*known);
    }
    all
}

fn words(locks: &BTreeMap<String, usize>) -> String {
    let all: Vec<String> = locks
        .iter()
        .map(|(relation, mode)| format!("{} on {relation}", MODES[*mode]))
        .collect();
    all.join("; ")
}

/// Lets the migration go and watches it to its end.
fn run(database: &Database<'_>, scene: &Scene, session: &mut Session, watch: &mut Watch) {
    let mut writers: BTreeMap<String, Session> = BTreeMap::new();
    for sql in scene.writers {
        let mut writer = database.connect();
        // Asked first: the portal of a query of the extended protocol keeps its snapshot to the end of the transaction.
        let pid = writer.pid().to_string();
        writer.exec(&format!("BEGIN; {sql}"));
        writers.insert(pid, writer);
    }
    watch.hold();
    session.exec("COMMIT");
    let deadline = Instant::now() + Duration::from_secs(60);
    let status = format!(
        "SELECT state, last_error, waiting_for FROM transmute.status WHERE id = '{}'",
        scene.id
    );
    loop {
        watch.pass();
        for blocker in watch.runners() {
            if let Some(mut writer) = writers.remove(&blocker) {
                writer.exec("COMMIT");
            }
        }
        let status = session.rows(&status).remove(0);
        assert!(status[1].is_none(), "{}: {status:?}", scene.id);
        if status[0].as_deref() == Some("FINISHED") {
            break;
        }
        assert!(
            Instant::now() < deadline,
            "{}: {status:?}, still open: {:?}",
            scene.id,
            writers.keys()
        );
        std::thread::yield_now();
    }
    watch.release();
}

/// The names of the kinds, out of `Kind::name`.
fn kinds() -> BTreeSet<String> {
    let named = SOURCE.lines().filter_map(|line| {
        let (variant, name) = line.trim().split_once(" => ")?;
        variant.strip_prefix("Kind::")?;
        Some(name.trim_end_matches(',').trim_matches('"').to_string())
    });
    named.collect()
}

#[test]
fn every_kind_of_step_holds_the_locks_that_its_plan_shows() {
    let database = Database::shared();
    let mut session = database.connect();
    let mut seen = BTreeSet::new();
    let mut wrong = Vec::new();
    for scene in SCENES {
        session.exec(scene.before);
        session.exec("BEGIN");
        match scene.register.starts_with('\'') {
            true => session.exec(&format!(
                "SELECT transmute.register('{}', {})",
                scene.id, scene.register
            )),
            false => session.exec(&format!("SELECT transmute.{}", scene.register)),
        }
        if !scene.id.ends_with(":down") {
            session.exec(&format!(
                "SELECT transmute.apply('{}', confirm => current_database())",
                scene.id
            ));
        }
        let mut watch = Watch::of(&database, &mut session, scene.id);
        run(&database, scene, &mut session, &mut watch);
        wrong.extend(watch.wrong(!scene.writers.is_empty(), &mut seen));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let kinds = kinds();
    assert!(kinds.len() >= 35, "{kinds:?}");
    let unseen: Vec<&String> = kinds.difference(&seen).collect();
    assert!(
        unseen.is_empty(),
        "no step of these kinds was compared: {unseen:?}"
    );
}
