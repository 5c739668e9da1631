//! What the swap takes away from a table and puts back: every fact of the catalog but the changed type is as before.

mod admitted;
mod attached;
mod functions;
mod generated;
mod late;
mod matviews;
mod refused;
mod views;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use transmute_tests::wait::{wait_until, PATIENCE};
use transmute_tests::{Database, Session};

/// Roles belong to the cluster, which other tests share.
const ROLES: &str = "DO $$ BEGIN
  FOR i IN 1..3 LOOP
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'dependents_' || i) THEN
      EXECUTE 'CREATE ROLE dependents_' || i;
    END IF;
  END LOOP;
EXCEPTION WHEN unique_violation OR duplicate_object THEN NULL; -- another test was quicker
END $$";

const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY, a int NOT NULL, n int);
  INSERT INTO t SELECT g, g, g % 10 FROM generate_series(1, 500) AS g";

const PASS: &str =
    "CREATE FUNCTION pass() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'";

const TO_BIGINT: &str = "ALTER TABLE t ALTER COLUMN a TYPE bigint";

fn open(database: &Database<'_>, setup: &[&str]) -> Session {
    let mut session = database.connect();
    session.exec(ROLES);
    session.exec(TABLE);
    session.batch(setup);
    session
}

/// What the catalogs say of `table` and of everything that hangs on it.
fn facts(session: &mut Session, table: &str) -> Vec<String> {
    session.lines(&format!(
        "SELECT regexp_split_to_table(_transmute.fingerprint('{table}'::regclass), E'\\n')"
    ))
}

fn start(session: &mut Session, alter: &str, meta: &str) {
    session.exec(&format!(
        "SELECT transmute.migrate('{alter}', 'm', '{meta}')"
    ));
}

fn wait(session: &mut Session, state: &str) {
    session.exec(&format!("CALL transmute.wait('m', '{state}', '60 s')"));
}

/// Makes `a` a bigint, with these writes while the migration waits for its approval; the facts that are other ones then,
/// old with a minus, new with a plus.
fn changed_facts(session: &mut Session, table: &str, writes: &[&str]) -> Vec<String> {
    let before = facts(session, table);
    // This column alone: what comes along with a key is tested elsewhere.
    let meta = "{\"required_approvals\": 1, \"include_referencing\": false}";
    start(session, TO_BIGINT, meta);
    wait(session, "AWAITING_FINALIZATION");
    session.batch(writes);
    session.exec("SELECT transmute.approve('m', 'as agreed')");
    wait(session, "FINISHED");
    let after = facts(session, table);
    let missing = before.iter().filter(|fact| !after.contains(fact));
    let added = after.iter().filter(|fact| !before.contains(fact));
    missing
        .map(|fact| format!("- {fact}"))
        .chain(added.map(|fact| format!("+ {fact}")))
        .collect()
}

/// Only these columns' type is another one.
fn type_changes(columns: &[&str]) -> Vec<String> {
    let lines = |sign: &str, name: &str| -> Vec<String> {
        columns
            .iter()
            .map(|column| format!("{sign} public.{column}: type = {name}"))
            .collect()
    };
    [lines("-", "integer"), lines("+", "bigint")].concat()
}

/// A failure must not leave the readers running, for whose end the scope waits.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

const A: &str = "t column 0002 a";

fn major(session: &mut Session) -> i32 {
    session.scalar::<i32>("SELECT current_setting('server_version_num')::int / 10000")
}

/// Two readers go on reading while `a` becomes a bigint, an int and a bigint again, so that several swaps meet them; how
/// often they read.
fn there_and_back(database: &Database<'_>, session: &mut Session, read: fn(&mut Session)) -> u32 {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let stopper = StopOnDrop(&stop);
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let mut reader = database.connect();
                let stop = &stop;
                scope.spawn(move || {
                    let mut reads = 0;
                    while !stop.load(Ordering::Relaxed) {
                        read(&mut reader);
                        reads += 1;
                    }
                    reads
                })
            })
            .collect();
        for (number, kind) in ["bigint", "int", "bigint"].iter().enumerate() {
            session.exec(&format!(
                "SELECT transmute.migrate('ALTER TABLE t ALTER a TYPE {kind}', 'm{number}')"
            ));
            wait_until("the migration", PATIENCE, || {
                session
                    .scalar::<bool>(&format!("SELECT transmute.is_finished('m{number}')"))
                    .then_some(())
            });
        }
        drop(stopper);
        readers
            .into_iter()
            .map(|reader| reader.join().expect("no read failed"))
            .sum::<u32>()
    })
}
