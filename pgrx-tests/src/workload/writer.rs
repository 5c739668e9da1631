//! One writer: draws statements and runs them over one connection.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::{Kind, Shared, Tally, Workload};
use crate::session::DbError;
use crate::Session;

/// What a writer does, and how often in a thousand.
const KINDS: [(Kind, u32); 14] = [
    (Kind::Insert, 160),
    (Kind::Update, 220),
    (Kind::UpdateUnique, 60),
    (Kind::Delete, 90),
    (Kind::KeyChange, 60),
    (Kind::Upsert, 120),
    (Kind::Copy, 30),
    (Kind::CopyColumns, 30),
    (Kind::Merge, 60),
    (Kind::SelectAll, 60),
    (Kind::Savepoint, 40),
    (Kind::Rollback, 30),
    (Kind::Transaction, 25),
    (Kind::RepeatableRead, 15),
];

/// In a thousand, when asked for; instead of something else.
const TRUNCATE_SHARE: u32 = 1;

pub(super) struct Writer {
    load: Workload,
    session: Session,
    config: postgres::Config,
    random: StdRng,
    merge: bool,
    prepared: BTreeMap<String, postgres::Statement>,
    shared: Arc<Shared>,
    pub(super) tally: Tally,
}

impl Writer {
    pub(super) fn new(
        load: Workload,
        number: u32,
        session: Session,
        config: postgres::Config,
        shared: Arc<Shared>,
    ) -> Writer {
        let random = StdRng::seed_from_u64(
            load.seed
                .wrapping_mul(1_000)
                .wrapping_add(u64::from(number)),
        );
        let mut writer = Writer {
            load,
            session,
            config,
            random,
            merge: false,
            prepared: BTreeMap::new(),
            shared,
            tally: Tally::default(),
        };
        writer.greet();
        writer
    }

    fn greet(&mut self) {
        let pid = self.session.pid();
        self.shared
            .pids
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(pid);
        self.merge = self
            .session
            .scalar::<i32>("SELECT current_setting('server_version_num')::int")
            >= 150_000
            && self.load.merge;
        self.prepared.clear();
    }

    pub(super) fn run(&mut self) {
        while !self.shared.stop.load(Ordering::Relaxed) {
            let kind = self.draw_kind();
            self.act(kind);
            *self.tally.done.entry(kind).or_default() += 1;
            self.shared.statements.fetch_add(1, Ordering::Relaxed);
            if self.session.client().is_closed() {
                if !self.load.reconnect {
                    return;
                }
                self.reconnect();
            }
            std::thread::sleep(self.load.pause);
        }
    }

    fn reconnect(&mut self) {
        while !self.shared.stop.load(Ordering::Relaxed) {
            match Session::try_open(self.config.clone()) {
                Ok(session) => {
                    self.session = session;
                    return self.greet();
                }
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    fn draw_kind(&mut self) -> Kind {
        if self.load.truncate && self.random.random_range(0..1_000) < TRUNCATE_SHARE {
            return Kind::Truncate;
        }
        let total: u32 = KINDS.iter().map(|(_, share)| share).sum();
        let mut drawn = self.random.random_range(0..total);
        for (kind, share) in KINDS {
            if drawn < share {
                return if kind == Kind::Merge && !self.merge {
                    Kind::Upsert
                } else {
                    kind
                };
            }
            drawn -= share;
        }
        unreachable!("a number below the sum of all shares")
    }

    fn key(&mut self) -> i32 {
        self.random.random_range(1..=self.load.keys)
    }

    fn act(&mut self, kind: Kind) {
        let (table, column) = (self.load.table.clone(), self.load.column.clone());
        let (id, other, a, u) = (
            self.key(),
            self.key(),
            self.random.random_range(0..1_000),
            self.key(),
        );
        let insert =
            format!("INSERT INTO {table} (id, {column}, u, note) VALUES ($1, $2, $3, 'new')");
        let update = format!("UPDATE {table} SET {column} = $2 WHERE id = $1");
        let delete = format!("DELETE FROM {table} WHERE id = $1");
        match kind {
            Kind::Insert => self.single(kind, &insert, &[id, a, u]),
            Kind::Update => self.single(kind, &update, &[id, a]),
            Kind::UpdateUnique => self.single(
                kind,
                &format!("UPDATE {table} SET u = $2 WHERE id = $1"),
                &[id, u],
            ),
            Kind::Delete => self.single(kind, &delete, &[id]),
            Kind::KeyChange => self.single(
                kind,
                &format!("UPDATE {table} SET id = $2 WHERE id = $1"),
                &[id, other],
            ),
            Kind::Upsert => {
                let sql = format!("{insert} ON CONFLICT (id) DO UPDATE SET {column} = EXCLUDED.{column}, note = {table}.note || '+'");
                self.single(kind, &sql, &[id, a, u]);
            }
            Kind::Merge => {
                let sql = format!(
                    "MERGE INTO {table} AS t USING (SELECT $1::int AS id, $2::int AS a, $3::int AS u) AS s ON t.id = s.id
                     WHEN MATCHED AND s.a < 100 THEN DELETE
                     WHEN MATCHED THEN UPDATE SET {column} = s.a
                     WHEN NOT MATCHED THEN INSERT (id, {column}, u) VALUES (s.id, s.a, s.u)"
                );
                self.single(kind, &sql, &[id, a, u]);
            }
            Kind::SelectAll => self.select_all(&table, id),
            Kind::Copy => self.copy(
                kind,
                &format!("COPY {table} FROM STDIN"),
                &format!("{id}\t{a}\t{u}\tcopied\n"),
            ),
            Kind::CopyColumns => {
                self.copy(
                    kind,
                    &format!("COPY {table} (u, id, {column}) FROM STDIN"),
                    &format!("{u}\t{id}\t{a}\n"),
                );
            }
            Kind::Savepoint => self.transaction(
                kind,
                "BEGIN",
                &[
                    &filled(&update, &[id, a]),
                    "SAVEPOINT s",
                    &filled(&delete, &[other]),
                    &filled(&update, &[other, a]),
                    "ROLLBACK TO SAVEPOINT s",
                    &filled(&update, &[other, a]),
                ],
                "COMMIT",
            ),
            Kind::Rollback => {
                self.transaction(
                    kind,
                    "BEGIN",
                    &[&filled(&update, &[id, a]), &filled(&delete, &[other])],
                    "ROLLBACK",
                );
            }
            Kind::Transaction => {
                let (delete, insert) = (filled(&delete, &[id]), filled(&insert, &[id, a, u]));
                self.transaction(
                    kind,
                    "BEGIN",
                    &[&delete, &insert, &filled(&update, &[other, a])],
                    "COMMIT",
                );
            }
            Kind::RepeatableRead => {
                let count = format!(
                    "SELECT count(*), sum({column}) FROM {table} WHERE id BETWEEN {id} AND {id} + 100"
                );
                let update = filled(&update, &[id, a]);
                self.transaction(
                    kind,
                    "BEGIN ISOLATION LEVEL REPEATABLE READ",
                    &[&count, &update, &count],
                    "COMMIT",
                );
            }
            Kind::Truncate => self.simple(kind, &format!("TRUNCATE {table}")),
        }
    }

    fn record(&mut self, kind: Kind, sql: &str, error: DbError) {
        self.tally.record(kind, sql, error);
    }

    fn simple(&mut self, kind: Kind, sql: &str) {
        if let Err(error) = self.session.try_exec(sql) {
            self.record(kind, sql, error);
        }
    }

    /// A statement with parameters: put in as text, or really prepared.
    fn single(&mut self, kind: Kind, sql: &str, values: &[i32]) {
        if !self.load.prepared {
            return self.simple(kind, &filled(sql, values));
        }
        if let Err(error) = self.execute_prepared(sql, values) {
            self.record(kind, sql, DbError::from(&error));
        }
    }

    fn execute_prepared(
        &mut self,
        sql: &str,
        values: &[i32],
    ) -> Result<Vec<postgres::Row>, postgres::Error> {
        let statement = match self.prepared.get(sql) {
            Some(statement) => statement.clone(),
            None => {
                // The parameters stay int whatever the columns become: the client's side does not change.
                let types = vec![postgres::types::Type::INT4; values.len()];
                let statement = self.session.client().prepare_typed(sql, &types)?;
                self.prepared.insert(sql.to_string(), statement.clone());
                statement
            }
        };
        let parameters: Vec<&(dyn postgres::types::ToSql + Sync)> = values
            .iter()
            .map(|value| value as &(dyn postgres::types::ToSql + Sync))
            .collect();
        self.session.client().query(&statement, &parameters)
    }

    /// An application's `SELECT *` must never see a column of ours.
    fn select_all(&mut self, table: &str, id: i32) {
        let sql = format!("SELECT * FROM {table} WHERE id >= $1 ORDER BY id LIMIT 20");
        let widths: Result<Vec<usize>, DbError> = if self.load.prepared {
            let rows = self.execute_prepared(&sql, &[id]);
            rows.map(|rows| rows.iter().map(|row| row.len()).collect())
                .map_err(|error| DbError::from(&error))
        } else {
            self.session
                .try_rows(&filled(&sql, &[id]))
                .map(|rows| rows.iter().map(Vec::len).collect())
        };
        match widths {
            Ok(widths)
                if widths
                    .iter()
                    .all(|w| (4..=4 + self.load.more_columns).contains(w)) => {}
            Ok(widths) => {
                let message = format!("SELECT * returned rows of {widths:?} columns");
                let error = DbError {
                    sqlstate: "wrong".into(),
                    message,
                    detail: None,
                    hint: None,
                    context: None,
                };
                self.record(Kind::SelectAll, &sql, error);
            }
            Err(error) => {
                // What PostgreSQL leaves of such a statement: the client has to prepare it again.
                self.prepared.remove(&sql);
                self.record(Kind::SelectAll, &sql, error);
            }
        }
    }

    fn copy(&mut self, kind: Kind, sql: &str, data: &str) {
        let result = self.session.client().copy_in(sql).and_then(|mut copy| {
            // What cannot be sent fails in finish(), where the server says why.
            let _ = copy.write_all(data.as_bytes());
            copy.finish()
        });
        if let Err(error) = result {
            self.record(kind, sql, DbError::from(&error));
        }
    }

    fn transaction(&mut self, kind: Kind, begin: &str, statements: &[&str], end: &str) {
        for sql in std::iter::once(&begin)
            .chain(statements)
            .chain(std::iter::once(&end))
        {
            if let Err(error) = self.session.try_exec(sql) {
                self.record(kind, sql, error);
                // As an application would; without a connection there is nothing to roll back.
                let _ = self.session.try_exec("ROLLBACK");
                return;
            }
        }
    }
}

fn filled(sql: &str, values: &[i32]) -> String {
    let numbered = values.iter().enumerate();
    numbered.fold(sql.to_string(), |sql, (i, value)| {
        sql.replace(&format!("${}", i + 1), &value.to_string())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_put_in_by_number() {
        assert_eq!(filled("a $1 b $2 c $1", &[7, 8]), "a 7 b 8 c 7");
    }
}
