//! What a client has committed: the only writer of its keys knows at any time what the table must hold.

use std::collections::BTreeMap;

use transmute_tests::session::DbError;
use transmute_tests::Session;

/// A row in which all clients of a database count: what each has added must be there.
pub const SHARED: i64 = 5;

/// Key to value, as committed.
pub type Rows = BTreeMap<i64, i64>;

/// What a transaction does: keys that get a value, or go; and how many it adds to the shared row.
#[derive(Clone, Debug, Default)]
pub struct Effect {
    pub rows: Vec<(i64, Option<i64>)>,
    pub added: i64,
}

impl Effect {
    pub fn sets(id: i64, value: i64) -> Effect {
        Effect {
            rows: vec![(id, Some(value))],
            added: 0,
        }
    }

    pub fn removes(id: i64) -> Effect {
        Effect {
            rows: vec![(id, None)],
            added: 0,
        }
    }

    pub fn and(mut self, other: Effect) -> Effect {
        self.rows.extend(other.rows);
        self.added += other.added;
        self
    }
}

#[derive(Clone, Debug, Default)]
pub struct Ledger {
    pub rows: Rows,
    /// To the shared row.
    pub added: i64,
}

impl Ledger {
    pub fn enter(&mut self, effect: Effect) {
        for (id, value) in effect.rows {
            match value {
                Some(value) => self.rows.insert(id, value),
                None => self.rows.remove(&id),
            };
        }
        self.added += effect.added;
    }

    /// I1: what is lost, and what nobody has written.
    pub fn differences(&self, found: &Rows) -> Vec<String> {
        let keys = self.rows.keys().chain(found.keys());
        let differ = keys.filter(|id| self.rows.get(id) != found.get(id)).take(5);
        differ
            .map(|id| {
                let (committed, found) = (self.rows.get(id), found.get(id));
                format!("I1, key {id}: committed {committed:?}, found {found:?}")
            })
            .collect()
    }
}

/// Pairs of numbers.
pub fn rows_of(session: &mut Session, sql: &str) -> Result<Rows, DbError> {
    let number = |text: &Option<String>| text.as_ref().and_then(|t| t.parse().ok());
    let rows = session.try_rows(sql)?;
    Ok(rows
        .iter()
        .filter_map(|row| Some((number(&row[0])?, number(&row[1])?)))
        .collect())
}
