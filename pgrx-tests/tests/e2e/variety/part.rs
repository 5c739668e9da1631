//! What tables and changes are made of: SQL with places to fill in.
//!
//! `{t}` is the table, `{s}` its schema, `{c}` the column that the change is about, `{pred}` and `{expr}` a condition and an
//! immutable expression over it that hold in both shapes, `{rows}` how many rows the first load has, and `«word»` a
//! name, which comes out plain, quoted, in other scripts or 63 bytes long ([`super::naming`]).

use std::fmt;

/// How a column gets its values; expressions are over `g`, the number of the row.
#[derive(Clone, Copy)]
pub enum Fill {
    /// By every INSERT.
    Always(&'static str),
    /// By the first load alone: the column is gone afterwards.
    FirstLoad(&'static str),
    /// By the server: a default, a sequence, a generation expression.
    Server,
}

#[derive(Clone, Copy)]
pub struct Column {
    pub name: &'static str,
    /// What follows the name in CREATE TABLE.
    pub definition: &'static str,
    pub fill: Fill,
}

pub const fn column(name: &'static str, definition: &'static str, value: &'static str) -> Column {
    Column {
        name,
        definition,
        fill: Fill::Always(value),
    }
}

pub const fn short_lived(
    name: &'static str,
    definition: &'static str,
    value: &'static str,
) -> Column {
    Column {
        name,
        definition,
        fill: Fill::FirstLoad(value),
    }
}

pub const fn by_server(name: &'static str, definition: &'static str) -> Column {
    Column {
        name,
        definition,
        fill: Fill::Server,
    }
}

/// What a piece asks of the table it is put on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// The table is permanent, before and after the change.
    Logged,
    /// The table is not: nothing that needs a permanent one is on it.
    Unlogged,
    /// The changed column is an integer, before and after, and its values are unique.
    IntegerSubject,
}

/// One thing that tables have.
#[derive(Clone, Copy)]
pub struct Piece {
    pub name: &'static str,
    /// Major version it came with.
    pub since: u32,
    pub needs: &'static [Needs],
    /// Pieces that cannot be on one table have a word in common here.
    pub excludes: &'static [&'static str],
    /// The table belongs to variety_owner.
    pub has_own_owner: bool,
    /// Before CREATE TABLE: types, other tables, functions.
    pub first: &'static [&'static str],
    pub columns: &'static [Column],
    /// On the empty table.
    pub before: &'static [&'static str],
    /// After the first load.
    pub after: &'static [&'static str],
    /// What a plain ALTER may refuse to work around: how to make it, after everything else …
    pub make: &'static [&'static str],
    /// … and how to take it away, in this order.
    pub unmake: &'static [&'static str],
    /// Queries that must give the same by index.
    pub queries: &'static [&'static str],
}

pub const NOTHING: Piece = Piece {
    name: "",
    since: 0,
    needs: &[],
    excludes: &[],
    has_own_owner: false,
    first: &[],
    columns: &[],
    before: &[],
    after: &[],
    make: &[],
    unmake: &[],
    queries: &[],
};

impl fmt::Debug for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// What identifies the rows.
#[derive(Clone, Copy)]
pub struct Key {
    pub name: &'static str,
    pub first: &'static [&'static str],
    pub columns: &'static [Column],
    /// A table constraint, or nothing.
    pub constraint: &'static str,
    pub before: &'static [&'static str],
    /// What an UPDATE sets to give a row another key; nothing: it is left alone.
    pub bump: &'static str,
    /// The changed column is (part of) the key.
    pub is_subject: bool,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// An ALTER TABLE that rewrites, with the column it is about.
#[derive(Clone, Copy)]
pub struct Change {
    pub name: &'static str,
    pub since: u32,
    pub first: &'static [&'static str],
    /// Type of `{c}` before, and what else stands in its definition.
    pub subject: &'static str,
    pub value: &'static str,
    /// The same for rows inserted after the change.
    pub value_after: &'static str,
    pub expr: &'static str,
    pub pred: &'static str,
    /// Other columns it is about.
    pub columns: &'static [Column],
    pub before: &'static [&'static str],
    /// What follows `ALTER TABLE {t}`.
    pub alter: &'static str,
    /// Columns whose values differ from one run to the next.
    pub volatile: &'static [&'static str],
    /// Columns that are there afterwards and must not repeat a value.
    pub distinct: &'static [&'static str],
    pub is_unique: bool,
    pub is_integer: bool,
    pub keeps_logged: bool,
    /// The plain ALTER rewrites nothing, and the migration does so only where something is in its way.
    pub may_stay: bool,
    /// The column can be (in) the key: the extension sees that no two keys become one.
    pub can_be_key: bool,
}

pub const INTEGER: Change = Change {
    name: "",
    since: 0,
    first: &[],
    subject: "int",
    value: "g",
    value_after: "g",
    expr: "({c} + 1)",
    pred: "{c} > 3",
    columns: &[],
    before: &[],
    alter: "",
    volatile: &[],
    distinct: &[],
    is_unique: true,
    is_integer: true,
    keeps_logged: true,
    may_stay: false,
    can_be_key: true,
};

impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}
