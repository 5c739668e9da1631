//! One client of a database: an application that is written for the old shape of the table, or for the new one as soon as that is there.

use std::time::{Duration, Instant};

use postgres::types::Type;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use transmute_tests::session::DbError;
use transmute_tests::Session;

use super::ledger::{rows_of, Effect, Ledger, Rows, SHARED};
use super::shape::{Shape, Shapes, OLD};
use super::statements::{copy, exactly, transaction, MISSED};

/// Of the server, when it stops or has just crashed.
const SERVER_IS_AWAY: [&str; 4] = ["57P01", "57P02", "57P03", "connection"];
/// A table or a column of this name is not there.
const NO_SUCH_SHAPE: [&str; 3] = ["42P01", "42703", "3F000"];

/// What an application puts up with.
#[derive(Clone, Copy, Debug)]
pub struct Manners {
    /// Milliseconds that it waits for a lock.
    pub lock_timeout: u32,
    /// What it may see besides, and then tries something else.
    pub errors: &'static [&'static str],
    /// How long a statement may take at the very most, while the server is there.
    pub bound: Duration,
}

/// The harness holds points that are inside of a strong lock: a client goes on then with its next statement.
pub const HURRIED: Manners = Manners {
    lock_timeout: 50,
    errors: &["55P03"],
    bound: Duration::from_secs(5),
};

pub struct Client {
    pub config: postgres::Config,
    manners: Manners,
    session: Option<Session>,
    random: StdRng,
    /// A condition for the keys that nobody else writes.
    keys: String,
    owns: Vec<i64>,
    shape: Shape,
    /// Its own, as soon as that is there.
    own: Shape,
    /// That of the new application, which replaces the old one when that is told to end.
    new: Shape,
    next_key: i64,
    next_value: i64,
    pub ledger: Ledger,
    pub statements: u64,
    /// The longest of them, while the server was there.
    pub stall: Duration,
    pub failures: Vec<String>,
    /// A transaction whose end was not heard of, and its number if that is known; whether the server has crashed, and may give the number
    /// away once more.
    open: Option<(Effect, Option<i64>, bool)>,
    /// What a cursor that is held open must give.
    cursor: Option<Rows>,
    prepared: Option<postgres::Statement>,
}

/// With a snapshot taken behind the lock: docs/operations.md says what an older one sees.
fn fresh(query: &str) -> String {
    format!("BEGIN ISOLATION LEVEL READ COMMITTED; {query}; COMMIT")
}

impl Client {
    /// Client `number` of `count`: each owns some of the last digits of the keys; nobody those of 0, all that of 5.
    pub fn new(
        config: postgres::Config,
        number: usize,
        count: usize,
        shapes: Shapes,
        manners: Manners,
    ) -> Client {
        let digits = (1..10).filter(|digit| *digit != SHARED % 10);
        let owns: Vec<i64> = digits.skip(number * 8 / count).take(8 / count).collect();
        let list: Vec<String> = owns.iter().map(i64::to_string).collect();
        let keys = format!("id % 10 IN ({})", list.join(", "));
        let rows = rows_of(
            &mut Session::open(config.clone()),
            &fresh(&OLD.query(&keys)),
        )
        .expect("table t");
        Client {
            config,
            manners,
            session: None,
            random: StdRng::seed_from_u64(number as u64 + 1),
            keys,
            owns,
            shape: OLD,
            own: if number.is_multiple_of(2) {
                shapes.old
            } else {
                shapes.new
            },
            new: shapes.new,
            next_key: 1001,
            next_value: 1_000_000,
            ledger: Ledger { rows, added: 0 },
            statements: 0,
            stall: Duration::ZERO,
            failures: Vec::new(),
            open: None,
            cursor: None,
            prepared: None,
        }
    }

    pub fn leave(&mut self) {
        self.session = None;
    }

    /// One transaction, if the server is there.
    pub fn act(&mut self) {
        if self.session.is_none() {
            self.cursor = None;
            self.prepared = None;
            let settings = format!("SET lock_timeout = {}", self.manners.lock_timeout);
            self.session = Session::try_open(self.config.clone())
                .ok()
                .and_then(|mut session| session.try_exec(&settings).ok().map(|()| session));
        }
        let Some(mut session) = self.session.take() else {
            return;
        };
        if self.shape == OLD && self.own != OLD {
            // A value that is not filled yet is one that the new application has to do without.
            let there = format!(
                "SELECT count(*) FROM {} WHERE {} IS NULL",
                self.own.table, self.own.value
            );
            if session.try_rows(&there) == Ok(vec![vec![Some("0".to_string())]]) {
                self.change_to(self.own);
            }
        }
        let is_settled = self.open.is_none() || self.find_out(&mut session);
        let is_good = !is_settled || self.write(&mut session);
        if is_good && !session.client().is_closed() {
            self.session = Some(session);
        }
    }

    fn change_to(&mut self, shape: Shape) {
        self.shape = shape;
        self.prepared = None;
    }

    fn new_key(&mut self) -> i64 {
        loop {
            self.next_key += 1;
            if self.owns.contains(&(self.next_key % 10)) {
                return self.next_key;
            }
        }
    }

    /// One transaction; false where the session is of no use any more.
    fn write(&mut self, session: &mut Session) -> bool {
        self.next_value += 1;
        let (shape, new, value) = (self.shape, self.new_key(), self.next_value);
        let n = self.random.random_range(0..self.ledger.rows.len().max(1));
        let one = self.ledger.rows.keys().nth(n).copied().unwrap_or(new);
        let found = self.ledger.rows.contains_key(&one);
        let to_one = match found {
            true => Effect::sets(one, value),
            false => Effect::default(),
        };
        let any = if value % 2 == 0 { one } else { new };
        let update = shape.update(one, value);
        self.statements += 1;
        let since = Instant::now();
        let mut xid = None;
        let kind = self.random.random_range(0..18);
        let (effect, result) = match kind {
            0..=3 => (to_one, exactly(session, &update, found)),
            4 => (Effect::removes(one), session.try_exec(&shape.delete(one))),
            5 => (
                Effect::sets(new, value),
                session.try_exec(&shape.insert(new, value)),
            ),
            6 => (
                Effect::sets(any, value),
                session.try_exec(&shape.upsert(any, value)),
            ),
            7 => (
                Effect::sets(any, value),
                session.try_exec(&shape.merge(any, value)),
            ),
            8 => (Effect::sets(new, value), copy(session, shape, new, value)),
            9 => (to_one, self.prepared(session, one, value)),
            10 => {
                let mine = format!("DELETE FROM {} WHERE {}", shape.table, self.keys);
                let steps = [
                    "BEGIN",
                    "SAVEPOINT s",
                    &mine,
                    "ROLLBACK TO s",
                    &update,
                    "COMMIT",
                ];
                (to_one, transaction(session, &steps, found, &mut xid))
            }
            11 => {
                let look = format!("SELECT count(*) FROM {}", shape.table);
                let steps = [
                    "BEGIN ISOLATION LEVEL REPEATABLE READ",
                    &look,
                    &update,
                    "COMMIT",
                ];
                (to_one, transaction(session, &steps, found, &mut xid))
            }
            12 => {
                let other = shape.insert(new, value);
                let steps = [
                    "BEGIN ISOLATION LEVEL SERIALIZABLE",
                    &update,
                    &other,
                    "COMMIT",
                ];
                let effect = to_one.and(Effect::sets(new, value));
                (effect, transaction(session, &steps, found, &mut xid))
            }
            13 => {
                let mine = format!(
                    "UPDATE {} SET {} = -1 WHERE {}",
                    shape.table, shape.value, self.keys
                );
                let steps = ["BEGIN", &mine, "ROLLBACK"];
                (
                    Effect::default(),
                    transaction(session, &steps, false, &mut None),
                )
            }
            // The row of its own says whether it has happened.
            14 | 15 => {
                let (count, own) = (shape.count(SHARED), shape.insert(new, value));
                let steps = ["BEGIN", &count, &own, "COMMIT"];
                let mut effect = Effect::sets(new, value);
                effect.added = 1;
                (effect, transaction(session, &steps, true, &mut xid))
            }
            16 => (Effect::default(), self.held(session)),
            _ => {
                let look = fresh(&shape.query(&self.keys));
                (Effect::default(), self.compare(session, &look))
            }
        };
        // After a COPY that was refused the client library takes an answer for that to the next request.
        let mut is_good = result.is_ok() || kind != 8;
        match result {
            Ok(()) => self.ledger.enter(effect),
            Err(error) if SERVER_IS_AWAY.contains(&error.sqlstate.as_str()) => {
                self.open = Some((effect, xid, error.sqlstate != "57P01"));
                return false; // it waited for nobody of ours
            }
            Err(error) => {
                let _ = session.try_exec("ROLLBACK");
                let is_known = match error.sqlstate.as_str() {
                    // What these levels are for.
                    "40001" if matches!(kind, 11 | 12) => true,
                    // What an older snapshot sees, where nobody refuses it: docs/operations.md.
                    MISSED if matches!(kind, 11 | 12) => !self.is_preloaded(),
                    // Before 17, while the table is a view of two names.
                    "0A000" => kind == 7 && error.message.starts_with("cannot execute MERGE"),
                    // The same, where the library is not preloaded.
                    "42809" => kind == 8 && error.message.starts_with("cannot copy to view"),
                    other => self.manners.errors.contains(&other),
                } || shape.refused.contains(&error.sqlstate.as_str())
                    || self.is_told_to_change(&error);
                if !is_known {
                    self.failures.push(format!(
                        "{error}, as {} knows it, of {effect:?}",
                        shape.value
                    ));
                }
                is_good &= !session.client().is_closed();
            }
        }
        self.stall = self.stall.max(since.elapsed());
        is_good
    }

    /// The old shape ends behind the point of no return, and not before; then the old application is replaced by the new one.
    fn is_told_to_change(&mut self, error: &DbError) -> bool {
        // In a session of its own: after a COPY that was refused this one gives the wrong answers.
        let ended = "SELECT transmute.state('m') IN ('FINISHING', 'FINISHED')";
        let has_ended = NO_SUCH_SHAPE.contains(&error.sqlstate.as_str())
            && self.shape != self.new
            && Session::try_open(self.config.clone()).and_then(|mut other| other.try_rows(ended))
                == Ok(vec![vec![Some("t".to_string())]]);
        if has_ended {
            self.own = self.new;
            self.change_to(self.new);
        }
        has_ended
    }

    fn is_preloaded(&self) -> bool {
        let query = "SELECT current_setting('shared_preload_libraries') ~ 'transmute'";
        Session::try_open(self.config.clone()).and_then(|mut other| other.try_rows(query))
            == Ok(vec![vec![Some("t".to_string())]])
    }

    fn prepared(&mut self, session: &mut Session, id: i64, value: i64) -> Result<(), DbError> {
        let statement = match &self.prepared {
            Some(statement) => statement.clone(),
            None => {
                let sql = format!(
                    "UPDATE {} SET {} = $1 WHERE id = $2",
                    self.shape.table, self.shape.value
                );
                session
                    .client()
                    .prepare_typed(&sql, &[Type::INT4, Type::INT4])
                    .map_err(|error| DbError::from(&error))?
            }
        };
        self.prepared = Some(statement.clone());
        let value = self.shape.written(value) as i32;
        let done = session
            .client()
            .execute(&statement, &[&value, &(id as i32)]);
        done.map(drop).map_err(|error| DbError::from(&error))
    }

    /// A cursor that is held across whatever happens shows what was there when it was opened.
    fn held(&mut self, session: &mut Session) -> Result<(), DbError> {
        match self.cursor.take() {
            None => {
                session.try_exec(&fresh(&format!(
                    "DECLARE c CURSOR WITH HOLD FOR {}",
                    self.shape.query(&self.keys)
                )))?;
                self.cursor = Some(self.ledger.rows.clone());
            }
            Some(rows) => {
                let now = std::mem::replace(&mut self.ledger.rows, rows);
                let result = self.compare(session, "FETCH ALL FROM c");
                self.ledger.rows = now;
                result?;
                session.try_exec("CLOSE c")?;
            }
        }
        Ok(())
    }

    /// I1, in mid-flight: nothing lost, no phantom.
    fn compare(&mut self, session: &mut Session, sql: &str) -> Result<(), DbError> {
        let found = rows_of(session, sql)?;
        let lines = self.ledger.differences(&found);
        self.failures
            .extend(lines.iter().map(|line| format!("{line}, by {sql}")));
        Ok(())
    }

    /// The connection went away under a transaction: it has happened, or it has not, as the rows say and as the server says of its number.
    fn find_out(&mut self, session: &mut Session) -> bool {
        let Some((effect, xid, crashed)) = self.open.clone() else {
            return true;
        };
        let found = match rows_of(session, &fresh(&self.shape.query(&self.keys))) {
            Ok(found) => found,
            Err(error) => {
                let _ = session.try_exec("ROLLBACK");
                self.is_told_to_change(&error);
                return false;
            }
        };
        let mut happened = self.ledger.clone();
        happened.enter(effect.clone());
        let has = found == happened.rows && happened.rows != self.ledger.rows;
        if let Some(xid) = xid {
            let status = format!("SELECT pg_xact_status('{xid}'::xid8) = 'committed'");
            let said = match session.try_rows(&status) {
                Ok(rows) => rows == [[Some("t".to_string())]],
                // A number that the server does not remember: nothing of it was on disk.
                Err(error) if error.sqlstate == "22023" => false,
                Err(_) => return false,
            };
            if said != has && (has || !crashed) && !effect.rows.is_empty() {
                self.failures.push(format!(
                    "I1, of transaction {xid} the server says {said}, and its rows say {has}"
                ));
            }
        }
        if has {
            self.ledger = happened;
        } else {
            let lines = self.ledger.differences(&found);
            self.failures.extend(lines);
        }
        self.open = None;
        true
    }

    /// I1 and I10; call it when the writing has ended.
    pub fn lost(&mut self, session: &mut Session) -> Vec<String> {
        let mut found = Vec::new();
        for _ in 0..2 {
            if self.find_out(session) {
                break;
            }
        }
        if self.open.is_some() {
            found.push("I1, an end that nobody knows".to_string());
        }
        let mut result = rows_of(session, &fresh(&self.shape.query(&self.keys)));
        if let Err(error) = &result {
            let _ = session.try_exec("ROLLBACK");
            if self.is_told_to_change(&error.clone()) {
                result = rows_of(session, &fresh(&self.shape.query(&self.keys)));
            }
        }
        match result {
            Ok(rows) => found.extend(self.ledger.differences(&rows)),
            Err(error) => found.push(format!("I1, {error}")),
        }
        if self.stall > self.manners.bound {
            found.push(format!("I10, a statement took {:?}", self.stall));
        }
        found
    }

    /// What the shared row has got from these clients, against what it holds.
    pub fn miscounted(clients: &[Client], session: &mut Session) -> Option<String> {
        let shape = clients.first()?.shape;
        let added: i64 = clients.iter().map(|client| client.ledger.added).sum();
        let found = rows_of(session, &fresh(&shape.query(&format!("id = {SHARED}"))));
        match found {
            Ok(rows) if rows.get(&SHARED) == Some(&(SHARED + added)) => None,
            found => Some(format!(
                "I1, {added} were added to {SHARED} in the shared row, found {found:?}"
            )),
        }
    }
}
