//! How an application knows the table: before the migration, or after it.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    pub table: &'static str,
    /// The column of the value, of which there are `factor` for each one in the ledger.
    pub value: &'static str,
    pub factor: i64,
    /// What the server refuses to views: ON CONFLICT, MERGE, COPY; and what it asks to be tried again (docs/routing.md).
    pub refused: &'static [&'static str],
}

/// What every scenario begins with.
pub const OLD: Shape = Shape {
    table: "t",
    value: "a",
    factor: 1,
    refused: &[],
};

/// Of the two applications.
#[derive(Clone, Copy, Debug)]
pub struct Shapes {
    pub old: Shape,
    pub new: Shape,
}

/// Of a table that keeps its names.
pub const SAME: Shapes = Shapes { old: OLD, new: OLD };

impl Shape {
    /// `value` of the ledger, as it is written.
    pub fn written(self, value: i64) -> i64 {
        value * self.factor
    }

    /// Keys and values as in the ledger, of these keys.
    pub fn query(self, keys: &str) -> String {
        format!(
            "SELECT id::bigint, ({} / {})::bigint FROM {} WHERE {keys}",
            self.value, self.factor, self.table
        )
    }

    pub fn update(self, id: i64, value: i64) -> String {
        format!(
            "UPDATE {} SET {} = {} WHERE id = {id}",
            self.table,
            self.value,
            self.written(value)
        )
    }

    pub fn insert(self, id: i64, value: i64) -> String {
        format!(
            "INSERT INTO {} (id, {}) VALUES ({id}, {})",
            self.table,
            self.value,
            self.written(value)
        )
    }

    pub fn upsert(self, id: i64, value: i64) -> String {
        format!(
            "{} ON CONFLICT (id) DO UPDATE SET {value} = excluded.{value}",
            self.insert(id, value),
            value = self.value
        )
    }

    pub fn merge(self, id: i64, value: i64) -> String {
        format!(
            "MERGE INTO {table} AS m USING (VALUES ({id}, {})) AS s (id, v) ON m.id = s.id
             WHEN MATCHED THEN UPDATE SET {value} = s.v WHEN NOT MATCHED THEN INSERT (id, {value}) VALUES (s.id, s.v)",
            self.written(value),
            table = self.table,
            value = self.value
        )
    }

    pub fn delete(self, id: i64) -> String {
        format!("DELETE FROM {} WHERE id = {id}", self.table)
    }

    /// One more for the row that all clients count in.
    pub fn count(self, id: i64) -> String {
        format!(
            "UPDATE {table} SET {value} = {value} + {} WHERE id = {id}",
            self.factor,
            table = self.table,
            value = self.value
        )
    }

    pub fn copy(self) -> String {
        format!("COPY {} (id, {}) FROM STDIN", self.table, self.value)
    }
}
