//! One cell in a database of its own: how its migration gets to where it is struck, and from there to its end.

use std::time::{Duration, Instant};

use transmute_tests::session::Background;
use transmute_tests::wait::{wait_until_seen, PATIENCE};
use transmute_tests::waitpoint::Waitpoints;
use transmute_tests::{invariants, Cluster, Database, Session};

use super::cell::{Cell, End};
use super::client::Client;
use super::fault::Fault;
use super::scenario::{self, Scenario};
use super::shape::{Shapes, SAME};

/// A small machine that runs many databases at once.
const SLOW: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(50);

/// What the catalog says of a scenario's tables before and after.
pub struct Pictures {
    pub before: Vec<String>,
    pub after: Vec<String>,
}

/// The database that is copied for each cell of a scenario.
pub fn base(scenario: &str) -> String {
    format!("base_{scenario}")
}

pub fn picture(session: &mut Session) -> Vec<String> {
    session.lines(
        "SELECT c.relname, _transmute.fingerprint(c.oid) FROM pg_class c
          WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'm') ORDER BY c.relname",
    )
}

pub struct Place<'c> {
    pub cell: Cell,
    /// It is made for this fault alone.
    pub only: Option<Fault>,
    pub scenario: &'static Scenario,
    pub database: Database<'c>,
    /// Sessions that drive or call, and their pids.
    callers: Vec<(i32, Background)>,
    /// Where the database is, if not where it was made.
    pub moved: Option<postgres::Config>,
    /// What whoever connects sets for itself.
    pub options: String,
    /// Who is struck there.
    pub victims: Vec<i32>,
    /// Calls of the way that were made.
    gone: usize,
    /// Registered and applied.
    is_on_its_way: bool,
    /// Nothing holds it any more.
    is_free: bool,
}

impl<'c> Place<'c> {
    /// A new database; what the migration needs is in it.
    pub fn new(cluster: &'c Cluster, cell: &Cell, only: Option<Fault>) -> Place<'c> {
        let name = match only {
            None => cell.name(),
            Some(fault) => format!("{}_{}", cell.name(), fault.number()),
        };
        Place {
            cell: *cell,
            only,
            scenario: scenario::named(cell.scenario),
            database: Database::named_copy_of(cluster, &base(cell.scenario), &name),
            callers: Vec::new(),
            moved: None,
            options: String::new(),
            victims: Vec::new(),
            gone: 0,
            is_on_its_way: false,
            is_free: false,
        }
    }

    pub fn config(&self) -> postgres::Config {
        let mut config = self.moved.clone().unwrap_or(self.database.config());
        config.options(&self.options);
        config
    }

    /// What its table is to both applications: two things only where it stays so.
    pub fn shapes(&self) -> Shapes {
        match self.cell.end {
            End::Finished => self.scenario.shapes,
            _ => SAME,
        }
    }

    fn connect(&self) -> Session {
        wait_until_seen("a connection", PATIENCE, || {
            Session::try_open(self.config())
        })
    }

    /// The lock survives whatever happens to processes.
    fn hold(&self) {
        if !self.cell.point.is_empty() {
            self.connect().exec(&format!(
                "BEGIN; SELECT pg_advisory_xact_lock(74616, hashtext('{}')); PREPARE TRANSACTION '{}'",
                self.cell.point,
                self.database.name()
            ));
        }
    }

    /// A call in a session of its own, which may stand at the point.
    fn in_background(&mut self, sql: &str) {
        let mut session = self.connect();
        let pid = session.pid();
        self.callers.push((pid, session.in_background(sql)));
    }

    /// Without workers a session drives, and another one when it has come to its end.
    fn drive(&mut self, workers: bool) {
        if !workers && self.callers.iter().all(|(_, caller)| caller.is_finished()) {
            self.in_background("CALL transmute.run()");
        }
    }

    /// Whether the fault strikes somebody here.
    pub fn is_met_by(&self, fault: Fault) -> bool {
        self.only.is_none_or(|f| f == fault) && self.cell.is_met_by(fault)
    }

    /// Registers, and applies where that is not what stands at the point; once.
    pub fn set_out(&mut self, workers: bool) {
        if std::mem::replace(&mut self.is_on_its_way, true) {
            return;
        }
        let mut session = self.connect();
        self.call(&mut session, self.scenario.register);
        if self.cell.way.is_empty() {
            self.hold();
        }
        if !self.cell.way.iter().any(|(_, call)| call.contains("apply")) {
            self.call(&mut session, "SELECT transmute.apply()");
            self.drive(workers);
        }
    }

    /// Goes the way to the point, and stands there; again if it has been there before.
    pub fn arrive(&mut self, fault: Fault) {
        let workers = fault.has_workers();
        let mut session = self.connect();
        while let Some((condition, call)) = self.cell.way.get(self.gone) {
            self.wait(&mut session, condition, workers)
                .unwrap_or_else(|seen| panic!("{seen}"));
            let is_last = self.gone + 1 == self.cell.way.len();
            if is_last {
                self.hold();
            }
            if !(is_last && self.cell.is_call) {
                self.call(&mut session, call);
            }
            self.gone += 1;
        }
        let (condition, call) = self.cell.way.last().copied().unwrap_or_default();
        if self.cell.is_call {
            self.wait(&mut session, condition, workers)
                .unwrap_or_else(|seen| panic!("{seen}"));
            self.in_background(call);
        }
        if self.cell.point.is_empty() {
            self.wait(&mut session, condition, workers)
                .unwrap_or_else(|seen| panic!("{seen}"));
        } else {
            self.reach(&mut session, workers);
        }
        self.victims = if fault == Fault::Caller {
            self.callers
                .iter()
                .filter(|(_, caller)| !caller.is_finished())
                .map(|(pid, _)| *pid)
                .collect()
        } else if self.cell.point.is_empty() {
            session
                .query("SELECT pid FROM pg_stat_activity WHERE backend_type ~ '^transmute' AND datname = current_database()", &[])
                .iter()
                .map(|row| row.get(0))
                .collect()
        } else {
            Waitpoints::of(&self.database).waiting(self.cell.point)
        };
    }

    /// Until somebody stands at the point who did not before.
    fn reach(&mut self, session: &mut Session, workers: bool) {
        let condition = format!(
            "EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND objsubid = 2 AND classid = 74616
               AND objid::bigint = hashtext('{}')::bigint & 4294967295 AND pid <> ALL ('{{{}}}')
               AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))",
            self.cell.point,
            self.victims.iter().map(i32::to_string).collect::<Vec<_>>().join(",")
        );
        self.wait(session, &condition, workers)
            .unwrap_or_else(|seen| panic!("nobody at {}: {seen}", self.cell.point));
    }

    fn look(&self, session: &mut Session) -> Vec<String> {
        session.lines(
            "SELECT id, state, outcome, waiting_for, last_error, last_error_hint FROM transmute.status
             UNION ALL SELECT pid::text, backend_type, state, wait_event, left(query, 80), NULL FROM pg_stat_activity
               WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name <> 'transmute-tests'",
        )
    }

    /// The server was struck: nobody is there who was; a connection when there is one again.
    pub fn come_back(&mut self) -> Session {
        self.callers.clear();
        self.connect()
    }

    /// Lets go.
    pub fn go_on(&mut self, session: &mut Session) {
        if !self.cell.point.is_empty() && !self.is_free {
            session.exec(&format!("ROLLBACK PREPARED '{}'", self.database.name()));
        }
        self.is_free = true;
    }

    /// Until the condition is true, or what is there instead.
    fn wait(
        &mut self,
        session: &mut Session,
        condition: &str,
        workers: bool,
    ) -> Result<(), String> {
        let since = Instant::now();
        let look = format!("SELECT {condition}");
        // In bad weather even a look may fail.
        while !session
            .try_rows(&look)
            .is_ok_and(|rows| rows == [[Some("t".to_string())]])
        {
            if since.elapsed() > SLOW {
                return Err(format!(
                    "{}: no end, {condition} is not true: {:#?}",
                    self.database.name(),
                    self.look(session)
                ));
            }
            if session.client().is_closed() {
                *session = self.connect();
            }
            self.drive(workers);
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// A call of a person, who tries again what failed in passing, or was cut off.
    fn call(&self, session: &mut Session, sql: &str) {
        const AWAY: [&str; 2] = ["57P01", "connection"];
        const PASSING: [&str; 6] = ["40001", "40P01", "53100", "53200", "55P03", "57014"];
        // It was done, and nobody heard of it.
        const DONE: [&str; 2] = ["42710", "55000"];
        let mut was_cut_off = false;
        wait_until_seen(
            &format!("{}: {sql}", self.database.name()),
            PATIENCE,
            || match session.try_exec(sql) {
                Err(error) if AWAY.contains(&error.sqlstate.as_str()) => {
                    was_cut_off = true;
                    *session = self.connect();
                    Err(error)
                }
                Err(error) if PASSING.contains(&error.sqlstate.as_str()) => Err(error),
                Err(error) if was_cut_off && DONE.contains(&error.sqlstate.as_str()) => Ok(()),
                Err(error) => panic!("{}: {error}\n  in: {sql}", self.database.name()),
                Ok(()) => Ok(()),
            },
        );
    }

    /// Goes the whole way, held by nobody, to the end.
    pub fn travel(&mut self, workers: bool) -> Result<(), String> {
        let mut session = self.connect();
        for (condition, call) in self.cell.way {
            self.wait(&mut session, condition, workers)?;
            self.call(&mut session, call);
        }
        self.end(workers)
    }

    /// Makes the documented calls and waits for the end.
    pub fn end(&mut self, workers: bool) -> Result<(), String> {
        let mut session = self.connect();
        for (condition, call) in self.cell.after {
            self.wait(&mut session, condition, workers)?;
            call.split("; ")
                .for_each(|one| self.call(&mut session, one));
        }
        let end = match self.cell.end {
            End::Finished => "transmute.state('m') = 'FINISHED'",
            End::RolledBack => {
                "(SELECT outcome FROM transmute.status WHERE id = 'm') = 'ROLLED_BACK'"
            }
            End::Undone => {
                "(SELECT outcome = 'UNDONE' AND NOT queued FROM transmute.status WHERE id = 'm')"
            }
            End::LetGo => {
                "(SELECT NOT queued AND state = 'FINISHED' FROM transmute.status WHERE id = 'm')"
            }
        };
        self.wait(&mut session, end, workers)
    }

    /// All invariants, now that the migration has ended; and the trail.
    pub fn faults(&self, mut clients: Vec<Client>, pictures: &Pictures) -> (Vec<String>, String) {
        let mut session = self.connect();
        let mut found = invariants::faults(&mut session);
        for client in &mut clients {
            found.extend(client.failures.iter().take(3).map(|f| format!("I10, {f}")));
            found.extend(client.lost(&mut session));
        }
        found.extend(Client::miscounted(&clients, &mut session));
        let is_back = matches!(self.cell.end, End::RolledBack | End::Undone);
        if !is_back && !self.scenario.derived.is_empty() {
            // Where the way did not end the shape is another one; why is said by whoever waited.
            match session.try_rows(self.scenario.derived) {
                Ok(rows) => found.extend(rows.iter().map(|row| format!("I2, {row:?}"))),
                Err(error) => found.push(format!("I2, {error}")),
            }
        }
        let now = picture(&mut session);
        let wanted = if is_back {
            &pictures.before
        } else {
            &pictures.after
        };
        if (is_back || !self.scenario.plain.is_empty()) && now != *wanted {
            found.push(format!(
                "I7 and I12, the catalog is {now:#?}, not {wanted:#?}"
            ));
        }
        let trail = session.lines("SELECT transmute.audit_export()").join("\n");
        (found, trail)
    }
}
