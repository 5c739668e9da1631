//! F17: what people do by hand to a table that is being migrated, at any moment of it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use transmute_tests::Session;

use super::storm::until;

/// Each may be refused with the name of the migration. Where nothing of the table is in flight it succeeds, and is taken back.
pub const DDL: [&str; 20] = [
    "ALTER TABLE t ADD COLUMN extra int",
    "ALTER TABLE t DROP COLUMN a CASCADE",
    "ALTER TABLE t RENAME COLUMN a TO elsewhere",
    "ALTER TABLE t ALTER COLUMN a TYPE numeric",
    "ALTER TABLE t ALTER COLUMN a DROP NOT NULL",
    "ALTER TABLE t DROP CONSTRAINT t_pkey CASCADE",
    "ALTER TABLE t ADD CHECK (a < 100000000)",
    "ALTER TABLE t ADD FOREIGN KEY (a) REFERENCES t",
    "ALTER TABLE t SET SCHEMA pg_catalog",
    "ALTER TABLE t RENAME TO elsewhere",
    "ALTER TABLE t OWNER TO pg_monitor",
    "ALTER TABLE t SET UNLOGGED",
    "ALTER TABLE t ENABLE ROW LEVEL SECURITY",
    "ALTER TABLE t DISABLE TRIGGER ALL",
    "ALTER TABLE t REPLICA IDENTITY FULL",
    "CREATE TRIGGER mine BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "CREATE RULE r AS ON DELETE TO t DO INSTEAD NOTHING",
    "CREATE INDEX extra ON t (a)",
    "DROP TABLE t CASCADE",
    "DROP SCHEMA public CASCADE",
];

/// A lock that a step holds for a moment; a view where a table was, or none of it; a column that has another name by now; what the server
/// refuses by itself.
const ELSE: [&str; 11] = [
    "23503", "40P01", "42P16", "55P03", "42809", "42P01", "42703", "0A000", "42704", "42501",
    "2BP01",
];

/// A person tries one after the other, as long as the migration lasts.
pub fn ddl(config: postgres::Config, stop: &AtomicBool) {
    let mut random = StdRng::seed_from_u64(17);
    let mut session = Session::open(config);
    session.exec("SET lock_timeout = '100ms'");
    // Whatever the script says there; nobody knows which table hand-written batches change, and a copy is of another one.
    let name: String = session.scalar("SELECT current_database()::text");
    let is_about_t = !name.starts_with("copy") && !name.starts_with("by_hand");
    let is_in_flight = |session: &mut Session| {
        let state = session.lines("SELECT transmute.state('m')").concat();
        is_about_t
            && matches!(
                state.as_str(),
                "RUNNING" | "AWAITING_ACTION" | "AWAITING_FINALIZATION"
            )
    };
    let mut refused = 0;
    while !stop.load(Ordering::Relaxed) {
        let sql = DDL[random.random_range(0..DDL.len())];
        let before = is_in_flight(&mut session);
        session.exec("BEGIN");
        match session.try_exec(sql) {
            Ok(()) => {
                session.exec("ROLLBACK");
                let after = is_in_flight(&mut session);
                assert!(!(before && after), "{sql} succeeded in mid-flight");
            }
            Err(error) if error.sqlstate == "55006" => {
                refused += 1;
                assert!(
                    error.message.contains("migration \"") || error.message.contains("in use"),
                    "{sql}: {error}"
                );
                session.exec("ROLLBACK");
            }
            Err(error) => {
                assert!(ELSE.contains(&error.sqlstate.as_str()), "{sql}: {error}");
                session.exec("ROLLBACK");
            }
        }
        until(Duration::from_millis(20), stop);
    }
    println!("f17: {refused} statements refused");
}
