//! One table with one change, as SQL.

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use transmute_tests::tools::version_under_test;

use super::alteration::ALTERATIONS;
use super::conversion::CONVERSIONS;
use super::dependent::DEPENDENTS;
use super::key::KEYS;
use super::naming::{self, Naming, SUBJECT};
use super::neighbour::{NEIGHBOURS, SETTINGS};
use super::part::{Change, Column, Fill, Key, Needs, Piece};
use super::piece::{COLUMNS, CONSTRAINTS, INDEXES};

/// More on one table takes longer and says little more.
const MAX_PIECES: usize = 12;
/// Rows of the second load, after everything has been put on the table; it leaves a gap to what comes after the ALTER.
const SECOND_LOAD: u32 = 20;

pub const NAMINGS: &[Naming] = &[
    Naming::Plain,
    Naming::Quoted,
    Naming::Unicode,
    Naming::Long,
    Naming::LongUnicode,
];

/// When rows are inserted: not every column is there all the time.
#[derive(Clone, Copy, PartialEq)]
enum Moment {
    FirstLoad,
    BeforeTheChange,
    AfterTheChange,
}

#[derive(Clone, Debug)]
pub struct Case {
    pub change: &'static Change,
    pub key: &'static Key,
    pub naming: Naming,
    pub rows: u32,
    /// The owner of the table migrates it, where it has one of its own; else the superuser does.
    pub by_owner: bool,
    /// So many of the pieces' columns come before the key.
    pub columns_first: usize,
    pub pieces: Vec<&'static Piece>,
}

/// Changes that this server knows.
pub fn changes() -> impl Iterator<Item = &'static Change> {
    CONVERSIONS
        .iter()
        .chain(ALTERATIONS)
        .filter(|change| change.since <= version_under_test())
}

/// Tables for one change.
pub fn cases(change: &'static Change) -> impl Strategy<Value = Case> {
    let keys: Vec<&'static Key> = KEYS
        .iter()
        .filter(|key| !key.is_subject || change.is_unique && change.can_be_key)
        .collect();
    let pieces: Vec<&'static Piece> = [
        COLUMNS,
        INDEXES,
        CONSTRAINTS,
        SETTINGS,
        NEIGHBOURS,
        DEPENDENTS,
    ]
    .into_iter()
    .flatten()
    .filter(|piece| piece.since <= version_under_test() && fits(piece, change))
    .collect();
    (
        subsequence(pieces, 0..=MAX_PIECES).prop_shuffle(),
        select(keys),
        select(NAMINGS),
        60..300_u32,
        any::<bool>(),
        0..9_usize,
    )
        .prop_map(
            move |(pieces, key, naming, rows, by_owner, columns_first)| Case {
                change,
                key,
                naming,
                rows,
                by_owner,
                columns_first,
                pieces: compatible(pieces),
            },
        )
}

/// One table with all of these pieces that this server knows, for the first change.
pub fn with_all(pieces: &'static [Piece], naming: Naming) -> Case {
    let change = &CONVERSIONS[0];
    let pieces = pieces
        .iter()
        .filter(|piece| piece.since <= version_under_test() && fits(piece, change));
    Case {
        change,
        key: &KEYS[0],
        naming,
        rows: 100,
        by_owner: false,
        columns_first: 0,
        pieces: compatible(pieces.collect()),
    }
}

fn fits(piece: &Piece, change: &Change) -> bool {
    piece.needs.iter().all(|need| match need {
        Needs::Logged | Needs::Unlogged => change.keeps_logged,
        Needs::IntegerSubject => change.is_integer && change.is_unique,
    })
}

/// Of pieces that cannot be together, the first one stays.
fn compatible(pieces: Vec<&'static Piece>) -> Vec<&'static Piece> {
    let mut kept: Vec<&'static Piece> = Vec::new();
    for piece in pieces {
        let clashes = |other: &&Piece| {
            let one_needs = |a: &Piece, b: &Piece| {
                a.needs.contains(&Needs::Unlogged) && b.needs.contains(&Needs::Logged)
            };
            piece
                .excludes
                .iter()
                .any(|word| other.excludes.contains(word))
                || one_needs(piece, other)
                || one_needs(other, piece)
        };
        if !kept.iter().any(clashes) {
            kept.push(piece);
        }
    }
    kept
}

/// The plain ALTER leaves the tables alone that refer to this one.
pub const META: &str = r#"{"required_approvals": 1, "include_referencing": false}"#;
/// A statement without a way back, so that every migration waits for its approval.
pub const AT_THE_END: &str = "; DO 'BEGIN END'";

impl Case {
    pub fn fill_in(&self, template: &str) -> String {
        self.naming.fill_in(template, self.change, self.rows)
    }

    pub fn table(&self) -> String {
        self.naming.table()
    }

    fn all(&self, part: impl Fn(&Piece) -> &'static [&'static str]) -> Vec<String> {
        self.pieces
            .iter()
            .flat_map(|piece| part(piece))
            .map(|template| self.fill_in(template))
            .collect()
    }

    /// In the order of CREATE TABLE.
    fn columns(&self) -> Vec<Column> {
        let extra: Vec<Column> = self
            .pieces
            .iter()
            .flat_map(|piece| piece.columns)
            .copied()
            .collect();
        let subject = Column {
            name: SUBJECT,
            definition: self.change.subject,
            fill: Fill::Always(self.change.value),
        };
        let (first, last) = extra.split_at(self.columns_first.min(extra.len()));
        let mut columns = first.to_vec();
        columns.extend_from_slice(self.key.columns);
        columns.push(super::part::column("n", "int", "g"));
        columns.push(super::part::column("m", "int", "g % 10"));
        columns.push(subject);
        columns.extend_from_slice(self.change.columns);
        columns.extend_from_slice(last);
        columns
    }

    /// Everything up to the table that the change finds.
    pub fn setup(&self) -> Vec<String> {
        let mut sql = vec![
            self.fill_in("CREATE SCHEMA {s}"),
            self.fill_in("GRANT USAGE, CREATE ON SCHEMA {s} TO variety_owner"),
            self.fill_in("GRANT USAGE ON SCHEMA {s} TO variety_reader, variety_writer"),
        ];
        let own = self.key.first.iter().chain(self.change.first);
        sql.extend(own.map(|template| self.fill_in(template)));
        sql.extend(self.all(|piece| piece.first));
        sql.push(self.create_table());
        let own = self.key.before.iter().chain(self.change.before);
        sql.extend(own.map(|template| self.fill_in(template)));
        sql.extend(self.all(|piece| piece.before));
        sql.push(self.insert(1, self.rows, Moment::FirstLoad));
        sql.extend(self.all(|piece| piece.after));
        sql.extend(self.make());
        sql.push(self.insert(
            self.rows + 1,
            self.rows + SECOND_LOAD,
            Moment::BeforeTheChange,
        ));
        sql
    }

    fn create_table(&self) -> String {
        let mut list: Vec<String> = self
            .columns()
            .iter()
            .map(|column| {
                format!(
                    "{} {}",
                    self.naming.quoted(column.name),
                    self.fill_in(column.definition)
                )
            })
            .collect();
        if !self.key.constraint.is_empty() {
            list.push(self.fill_in(self.key.constraint));
        }
        format!("CREATE TABLE {} ({})", self.table(), list.join(", "))
    }

    fn insert(&self, from: u32, to: u32, moment: Moment) -> String {
        let value = |column: &Column| match column.fill {
            Fill::Always(_) if column.name == SUBJECT && moment == Moment::AfterTheChange => {
                Some(self.change.value_after)
            }
            Fill::Always(value) => Some(value),
            Fill::FirstLoad(value) => match moment {
                Moment::FirstLoad => Some(value),
                // What the change itself drops is there until then.
                Moment::BeforeTheChange => self
                    .change
                    .columns
                    .iter()
                    .any(|own| own.name == column.name)
                    .then_some(value),
                Moment::AfterTheChange => None,
            },
            Fill::Server => None,
        };
        let (names, values): (Vec<String>, Vec<String>) = self
            .columns()
            .iter()
            .filter_map(|column| {
                let value = self.fill_in(value(column)?);
                Some((self.naming.quoted(column.name), value))
            })
            .unzip();
        format!(
            "INSERT INTO {} ({}) SELECT {} FROM generate_series({from}, {to}) AS g",
            self.table(),
            names.join(", "),
            values.join(", ")
        )
    }

    /// What the application does to the table while the migration waits.
    pub fn writes(&self) -> Vec<String> {
        let (from, to) = (self.rows + SECOND_LOAD + 1, self.rows + 2 * SECOND_LOAD);
        let mut sql = vec![self.insert(from, to, Moment::BeforeTheChange)];
        if !self.key.bump.is_empty() {
            sql.push(self.fill_in(&format!(
                "UPDATE {{t}} SET {} WHERE «n» % 17 = 0",
                self.key.bump
            )));
        }
        let rest = [
            "UPDATE {t} SET {c} = {c} WHERE «n» % 5 = 1",
            "DELETE FROM {t} WHERE «n» % 13 = 0",
            "UPDATE {t} SET «n» = «n» + 100000 WHERE «n» % 11 = 0",
            "BEGIN; DELETE FROM {t}; ROLLBACK",
        ];
        sql.extend(rest.iter().map(|template| self.fill_in(template)));
        sql
    }

    /// Rows of the new shape.
    pub fn later_rows(&self) -> String {
        let from = self.rows + 5 * SECOND_LOAD;
        self.insert(from, from + 10, Moment::AfterTheChange)
    }

    pub fn alter(&self) -> String {
        format!(
            "ALTER TABLE {} {}",
            self.table(),
            self.fill_in(self.change.alter)
        )
    }

    pub fn make(&self) -> Vec<String> {
        self.all(|piece| piece.make)
    }

    /// In the reverse order of making.
    pub fn unmake(&self) -> Vec<String> {
        self.pieces
            .iter()
            .rev()
            .flat_map(|piece| piece.unmake)
            .map(|template| self.fill_in(template))
            .collect()
    }

    /// Who migrates.
    pub fn actor(&self) -> &'static str {
        if self.by_owner && self.pieces.iter().any(|piece| piece.has_own_owner) {
            "variety_owner"
        } else {
            "postgres"
        }
    }

    /// Columns whose values two runs do not share.
    pub fn volatile(&self) -> Vec<String> {
        let words = self.change.volatile.iter();
        words.map(|word| self.naming.name(word)).collect()
    }

    pub fn queries(&self) -> Vec<String> {
        self.all(|piece| piece.queries)
    }

    /// For psql: what happens on the side that is migrated.
    pub fn script(&self) -> String {
        let mut lines = self.setup();
        lines.push(format!("SET SESSION AUTHORIZATION {}", self.actor()));
        lines.push(format!(
            "SELECT transmute.migrate({}, 'm', '{META}')",
            naming::literal(&format!("{}{AT_THE_END}", self.alter()))
        ));
        lines.push("RESET SESSION AUTHORIZATION".to_string());
        lines.push("CALL transmute.wait('m', 'AWAITING_FINALIZATION')".to_string());
        lines.extend(self.writes());
        lines.push("SELECT transmute.approve('m', 'go')".to_string());
        lines.push("CALL transmute.wait('m')".to_string());
        lines.push(self.later_rows());
        lines.iter().map(|sql| format!("{sql};\n")).collect()
    }
}
