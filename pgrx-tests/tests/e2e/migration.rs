//! A migration as the tests drive it, and what must be true of a table around it.

use std::time::Duration;

use transmute_tests::wait::PATIENCE;
use transmute_tests::{Database, DbError, Session};

pub struct Migration {
    session: Session,
    id: &'static str,
}

impl Migration {
    /// Registers `ddl`; `meta` is JSON.
    #[track_caller]
    pub fn register(database: &Database<'_>, id: &'static str, ddl: &str, meta: &str) -> Migration {
        let mut session = database.connect();
        session.exec(&format!(
            "SELECT transmute.register('{id}', $ddl${ddl}$ddl$, meta => $meta${meta}$meta$)"
        ));
        Migration { session, id }
    }

    /// One that is registered already.
    #[track_caller]
    pub fn attach(database: &Database<'_>, id: &'static str) -> Migration {
        Migration {
            session: database.connect(),
            id,
        }
    }

    /// Registers and applies.
    #[track_caller]
    pub fn start(database: &Database<'_>, id: &'static str, ddl: &str, meta: &str) -> Migration {
        let mut migration = Migration::register(database, id, ddl, meta);
        migration.apply();
        migration
    }

    #[track_caller]
    pub fn apply(&mut self) {
        self.call("apply", "confirm => current_database()");
    }

    /// `SELECT transmute.<function>(id, arguments)`.
    #[track_caller]
    pub fn call(&mut self, function: &str, arguments: &str) {
        let sql = self.sql(function, arguments);
        self.session.exec(&sql);
    }

    #[track_caller]
    pub fn refused(&mut self, function: &str, arguments: &str) -> DbError {
        let sql = self.sql(function, arguments);
        self.session.error(&sql)
    }

    fn sql(&self, function: &str, arguments: &str) -> String {
        let comma = if arguments.is_empty() { "" } else { ", " };
        format!(
            "SELECT transmute.{function}('{}'{comma}{arguments})",
            self.id
        )
    }

    /// Waits until it is in `state` or past it; an error of the migration fails the test.
    #[track_caller]
    pub fn wait(&mut self, state: &str) {
        let id = self.id;
        self.session
            .exec(&format!("CALL transmute.wait('{id}', '{state}', '60 s')"));
    }

    /// Waits for exactly this state.
    #[track_caller]
    pub fn wait_in(&mut self, state: &str) {
        self.wait_for("state", state);
    }

    /// Waits until an expression over its row of `transmute.status` has this value.
    #[track_caller]
    pub fn wait_for(&mut self, expression: &str, value: &str) {
        self.wait_at_most(expression, value, PATIENCE);
    }

    #[track_caller]
    pub fn wait_at_most(&mut self, expression: &str, value: &str, deadline: Duration) {
        let sql = format!(
            "SELECT {expression} FROM transmute.status WHERE id = '{}'",
            self.id
        );
        self.session.wait_for(&sql, value, deadline);
    }

    /// Waits until its process sleeps in pg_sleep, which something of the test's calls.
    #[track_caller]
    pub fn wait_asleep(&mut self) {
        self.session.wait_for(
            "SELECT count(*) FROM pg_stat_activity
               WHERE datname = current_database() AND backend_type LIKE 'transmute%' AND wait_event = 'PgSleep'",
            "1",
            PATIENCE,
        );
    }

    /// An expression over its row of `transmute.status`, as text.
    #[track_caller]
    pub fn status(&mut self, expression: &str) -> String {
        let sql = format!(
            "SELECT ({expression})::text FROM transmute.status WHERE id = '{}'",
            self.id
        );
        self.session.lines(&sql).remove(0)
    }

    /// Takes it back and waits for the end of that.
    #[track_caller]
    pub fn roll_back(&mut self) {
        self.call("rollback", "'the test says so'");
        self.wait("UNINITIALIZED");
    }

    /// Approves nothing, waits for nothing but the end.
    #[track_caller]
    pub fn finish(&mut self) {
        self.wait("FINISHED");
    }

    pub fn session(&mut self) -> &mut Session {
        &mut self.session
    }
}

/// The readable text of everything the catalogs say of a table.
#[track_caller]
pub fn fingerprint(session: &mut Session, table: &str) -> String {
    session.scalar(&format!(
        "SELECT _transmute.fingerprint('{table}'::regclass)"
    ))
}

/// Heap, TOAST and every B-tree of the table are in order, each index has every row, and nothing of ours is on it.
#[track_caller]
pub fn assert_sound(session: &mut Session, table: &str) {
    session.exec("CREATE EXTENSION IF NOT EXISTS amcheck");
    session.exec(&format!(
        "SELECT bt_index_check(i.indexrelid, true)
           FROM pg_class c
           JOIN pg_index i ON i.indrelid IN (c.oid, c.reltoastrelid)
           JOIN pg_class x ON x.oid = i.indexrelid
           JOIN pg_am a ON a.oid = x.relam AND a.amname = 'btree'
          WHERE c.oid = '{table}'::regclass"
    ));
    let damage = session.lines(&format!("SELECT * FROM verify_heapam('{table}')"));
    assert!(damage.is_empty(), "{damage:#?}");
    let unusable = session.lines(&format!(
        "SELECT indexrelid::regclass FROM pg_index
          WHERE indrelid = '{table}'::regclass AND NOT (indisvalid AND indisready)"
    ));
    assert!(unusable.is_empty(), "{unusable:#?}");
    assert_no_traces(session, table);
}

/// No trigger of ours on the table, no work schema but those that keep old rows.
#[track_caller]
pub fn assert_no_traces(session: &mut Session, table: &str) {
    let traces = session.lines(&format!(
        "SELECT tgname FROM pg_trigger WHERE tgrelid = '{table}'::regclass AND tgname LIKE '\\_transmute%'
         UNION ALL SELECT nspname FROM pg_namespace WHERE nspname LIKE '\\_transmute\\_%'
           AND nspname NOT IN (SELECT physical_schema FROM _transmute.artifacts WHERE dropped_at IS NULL)
         UNION ALL SELECT conname FROM pg_constraint WHERE conrelid = '{table}'::regclass AND NOT convalidated"
    ));
    assert!(traces.is_empty(), "{traces:#?}");
}

/// Settings that the workers of this database take, from their next start on.
#[track_caller]
pub fn set(database: &Database<'_>, settings: &[(&str, &str)]) {
    let mut session = database.cluster().connect();
    for (name, value) in settings {
        session.exec(&format!(
            "ALTER DATABASE {} SET transmute.{name} = '{value}'",
            database.name()
        ));
    }
}
