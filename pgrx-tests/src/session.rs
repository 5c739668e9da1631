//! A client session that says what went wrong.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use postgres::types::{FromSqlOwned, ToSql};
use postgres::{Client, NoTls, Row, SimpleQueryMessage};

use crate::wait::wait_until_seen;

/// An error as a client sees it. `sqlstate` is `connection` when there is no server at the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DbError {
    pub sqlstate: String,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
    pub context: Option<String>,
}

impl From<&postgres::Error> for DbError {
    fn from(error: &postgres::Error) -> DbError {
        match error.as_db_error() {
            Some(db) => DbError {
                sqlstate: db.code().code().to_string(),
                message: db.message().to_string(),
                detail: db.detail().map(str::to_string),
                hint: db.hint().map(str::to_string),
                context: db.where_().map(str::to_string),
            },
            None => DbError {
                sqlstate: "connection".to_string(),
                message: format!("{error:?}"),
                detail: None,
                hint: None,
                context: None,
            },
        }
    }
}

impl fmt::Display for DbError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.sqlstate, self.message)?;
        let parts = [
            ("DETAIL", &self.detail),
            ("HINT", &self.hint),
            ("CONTEXT", &self.context),
        ];
        parts.iter().try_for_each(|(name, part)| match part {
            Some(text) => write!(f, "\n  {name}: {text}"),
            None => Ok(()),
        })
    }
}

pub struct Session {
    client: Client,
    notices: Arc<Mutex<Vec<String>>>,
}

impl Session {
    #[track_caller]
    pub fn open(config: postgres::Config) -> Session {
        Session::try_open(config).unwrap_or_else(|error| panic!("cannot connect: {error}"))
    }

    pub fn try_open(mut config: postgres::Config) -> Result<Session, DbError> {
        let notices = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&notices);
        config
            .application_name("transmute-tests")
            .notice_callback(move |notice| {
                let text = format!("{}: {}", notice.severity(), notice.message());
                sink.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(text);
            });
        let client = config
            .connect(NoTls)
            .map_err(|error| DbError::from(&error))?;
        Ok(Session { client, notices })
    }

    /// For what this wrapper does not offer: COPY, notifications, transactions.
    pub fn client(&mut self) -> &mut Client {
        &mut self.client
    }

    /// Runs statements by the simple protocol; several, separated by semicolons, are one implicit transaction.
    pub fn try_exec(&mut self, sql: &str) -> Result<(), DbError> {
        self.client
            .batch_execute(sql)
            .map_err(|error| DbError::from(&error))
    }

    #[track_caller]
    pub fn exec(&mut self, sql: &str) {
        self.try_exec(sql)
            .unwrap_or_else(|error| panic!("{error}\n  in: {sql}"));
    }

    /// Runs statements one by one, each a message and so a transaction of its own.
    #[track_caller]
    pub fn batch(&mut self, statements: &[&str]) {
        statements.iter().for_each(|sql| self.exec(sql));
    }

    /// Runs a statement that must fail; the error.
    #[track_caller]
    pub fn error(&mut self, sql: &str) -> DbError {
        match self.try_exec(sql) {
            Err(error) => error,
            Ok(()) => panic!("succeeded, and should have failed: {sql}"),
        }
    }

    /// The result as text, as psql would show it (simple protocol, nothing prepared).
    pub fn try_rows(&mut self, sql: &str) -> Result<Vec<Vec<Option<String>>>, DbError> {
        let messages = self
            .client
            .simple_query(sql)
            .map_err(|error| DbError::from(&error))?;
        let rows = messages.into_iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(
                (0..row.len())
                    .map(|i| row.get(i).map(str::to_string))
                    .collect(),
            ),
            _ => None,
        });
        Ok(rows.collect())
    }

    #[track_caller]
    pub fn rows(&mut self, sql: &str) -> Vec<Vec<Option<String>>> {
        self.try_rows(sql)
            .unwrap_or_else(|error| panic!("{error}\n  in: {sql}"))
    }

    /// One string a row, columns joined by `|`, NULL as `∅`: easy to compare and to read in a failure.
    #[track_caller]
    pub fn lines(&mut self, sql: &str) -> Vec<String> {
        let line = |row: &Vec<Option<String>>| {
            row.iter()
                .map(|value| value.as_deref().unwrap_or("∅"))
                .collect::<Vec<_>>()
                .join("|")
        };
        self.rows(sql).iter().map(line).collect()
    }

    /// The only column of the only row.
    #[track_caller]
    pub fn scalar<T: FromSqlOwned>(&mut self, sql: &str) -> T {
        self.query_one(sql, &[])
            .try_get(0)
            .unwrap_or_else(|error| panic!("{error}\n  in: {sql}"))
    }

    /// The only row, by the extended protocol.
    #[track_caller]
    pub fn query_one(&mut self, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> Row {
        let mut rows = self.query(sql, parameters);
        assert_eq!(rows.len(), 1, "rows of: {sql}");
        rows.remove(0)
    }

    #[track_caller]
    pub fn query(&mut self, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> Vec<Row> {
        match self.client.query(sql, parameters) {
            Ok(rows) => rows,
            Err(error) => panic!("{}\n  in: {sql}", DbError::from(&error)),
        }
    }

    /// Runs `sql`, which gives one text value, until it is `expected`.
    #[track_caller]
    pub fn wait_for(&mut self, sql: &str, expected: &str, deadline: Duration) {
        wait_until_seen(&format!("{expected} from {sql}"), deadline, || {
            let lines = self.lines(sql);
            match lines.as_slice() {
                [line] if line == expected => Ok(()),
                _ => Err(lines),
            }
        });
    }

    /// Does something as another role, as if that role had connected.
    pub fn as_role<T>(&mut self, role: &str, work: impl FnOnce(&mut Session) -> T) -> T {
        self.exec(&format!("SET SESSION AUTHORIZATION {role}"));
        let result = work(self);
        self.exec("RESET SESSION AUTHORIZATION");
        result
    }

    pub fn pid(&mut self) -> i32 {
        self.scalar("SELECT pg_backend_pid()")
    }

    /// What the server said since the last call, as `NOTICE: text`.
    pub fn notices(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notices.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Runs a statement that is expected to wait for somebody, in a thread of its own.
    pub fn in_background(mut self, sql: &str) -> Background {
        let sql = sql.to_string();
        Background(std::thread::spawn(move || {
            let result = self.try_exec(&sql);
            (self, result)
        }))
    }
}

/// A statement under way.
pub struct Background(JoinHandle<(Session, Result<(), DbError>)>);

impl Background {
    pub fn is_finished(&self) -> bool {
        self.0.is_finished()
    }

    pub fn join(self) -> (Session, Result<(), DbError>) {
        self.0.join().expect("a statement in the background")
    }
}
