//! Trying a DBA's ALTER TABLE on an empty copy, in a subtransaction that is undone: the server itself says whether
//! it is valid and whether it would rewrite the table.

use super::dependents::{self, Dependent};
use super::ground::{self, Ground};
use super::mirror::{self, ForeignKeyFault};
use super::shadow;
use crate::catalog::column::{self, Column};
use crate::catalog::constraint::{self, Constraint};
use crate::catalog::index;
use crate::catalog::partition;
use crate::catalog::relation::Relation;
use crate::error::{Error, Result};
use crate::model::ident::{quote_ident, QualifiedName};
use crate::pg::error::ServerError;
use crate::pg::identity::{self, Session};
use crate::pg::parser::{Action, Command};
use crate::pg::row::RowMapper;
use crate::pg::xact::{self, End};
use crate::pg::{activity, added_column, constraint as pg_constraint, relation, spi, utility, Oid};

/// What the server did with the statement.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// It gave the table or one of its indexes a new file, would read every row to prove a constraint again, or
    /// changes what a generated column is computed from.
    pub rewrites: bool,
    /// How the types of columns change, their collation, or the stored values by USING.
    pub types: Vec<TypeChange>,
    /// Columns that it drops.
    pub dropped: Vec<i16>,
    /// The index that will identify rows, if there is a usable one before and after, whose values stay different; their address
    /// where there is none. Of a partitioned table that is asked of each partition.
    pub key: Option<index::Key>,
    /// What depends on the retyped columns, outermost first.
    pub dependents: Vec<Dependent>,
    /// Foreign keys that the new types do not admit, unless their other side changes too.
    pub foreign_key_faults: Vec<ForeignKeyFault>,
    /// CHECK constraints that it adds, in their order.
    pub checks: Vec<Constraint>,
    /// UNIQUE and PRIMARY KEY constraints that it adds, in their order, with what stands behind ON table in CREATE INDEX.
    pub keys: Vec<(index::KeyConstraint, String)>,
    /// Columns that are NOT NULL already, or that constraints prove to be, before the statement.
    pub not_null: Vec<String>,
    /// What got a new file or has to be proven again: `table`, `index name`, `check name`.
    pub changed: Vec<String>,
    pub retypings: Vec<Retyping>,
    /// It makes a sequence: of a serial or identity column.
    pub makes_sequence: bool,
}

/// A change of type, as the server understood it.
#[derive(Debug, Clone)]
pub struct Retyping {
    pub column: String,
    pub from: String,
    pub to: String,
    /// `same` type, `binary`-coercible, `io` through text, or `function`.
    pub cast: String,
    pub has_using: bool,
    /// Not every value of the old type is one of the new type.
    pub narrows: bool,
}

/// A column that is retyped.
#[derive(Debug, Clone)]
pub struct TypeChange {
    pub number: i16,
    pub column: String,
    pub old_type: Oid,
    pub new_type: Oid,
    /// The new type as SQL.
    pub new_name: String,
}

/// What a script has done to a table before a statement is tried.
#[derive(Debug, Clone, Default)]
pub struct Earlier {
    pub statements: Vec<String>,
    /// Names of the foreign keys that they add, which a copy does not have.
    pub foreign_keys: Vec<String>,
}

/// Runs the statements that come earlier on a copy.
pub fn replay(
    table: &Relation,
    earlier: &Earlier,
    copy: &QualifiedName,
    session: &Session,
) -> Result<()> {
    for statement in &earlier.statements {
        shadow::alter(table, statement, copy, &earlier.foreign_keys, session)?;
    }
    Ok(())
}

/// Runs `alter` on an empty copy of `table` as its owner. Its errors are the server's own.
pub fn run(table: &Relation, alter: &str, session: &Session) -> Result<Outcome> {
    ground::with(|ground| {
        with(
            ground,
            table,
            alter,
            &Earlier::default(),
            session,
            || Ok(()),
        )
    })
}

/// The same, after `before`, which makes what the statements use, and behind the statements that come `earlier`.
pub fn with(
    ground: &Ground,
    table: &Relation,
    alter: &str,
    earlier: &Earlier,
    session: &Session,
    before: impl Fn() -> Result<()>,
) -> Result<Outcome> {
    let commands = super::commands(alter)?;
    let trial = Trial {
        ground,
        table,
        alter,
        commands: &commands,
        earlier,
        session,
        before: &before,
    };
    if table.kind == 'r' && earlier.statements.is_empty() && commands.iter().all(is_about_columns) {
        // Most statements of most scripts: rows, indexes and constraints have no part in them. Errors, and what writes rows, are
        // judged on the whole table.
        match trial.run(Copy::Outline) {
            Ok(outcome) if !outcome.rewrites => return Ok(outcome),
            Err(error) if error.is_interrupt() => return Err(error),
            _ => {}
        }
    }
    trial.run(Copy::Whole)
}

/// Whether a subcommand adds or drops a column, or changes its default, and nothing else.
pub fn is_about_columns(command: &Command) -> bool {
    match command.action {
        Action::AddColumn => command.constraint.is_none(),
        Action::ColumnValue => !command.has_expression,
        Action::DropColumn => true,
        _ => false,
    }
}

/// What a statement is tried on.
#[derive(Clone, Copy, PartialEq)]
enum Copy {
    Outline,
    Whole,
}

struct Trial<'a> {
    ground: &'a Ground,
    table: &'a Relation,
    alter: &'a str,
    commands: &'a [Command],
    earlier: &'a Earlier,
    session: &'a Session,
    before: &'a dyn Fn() -> Result<()>,
}

impl Trial<'_> {
    fn run(&self, on: Copy) -> Result<Outcome> {
        let Trial {
            ground,
            table,
            alter,
            commands,
            earlier,
            session,
            before,
        } = *self;
        let schema = ground.of(table)?;
        let result = xact::subtransaction(End::Undo, || {
            before()?;
            let copy = xact::subtransaction(End::Keep, || match on {
                Copy::Outline => {
                    let values = commands.iter().any(|c| c.action == Action::ColumnValue);
                    shadow::create_outline(table, &schema, values)
                }
                Copy::Whole => shadow::create_like(table, &schema),
            })
            .map_err(without_position)?;
            let name = QualifiedName::new(&schema, &table.name.name);
            replay(table, earlier, &name, session)?;
            let columns_before = column::list(copy)?;
            let files_before = files(copy)?;
            let constraints_before = constraint::list(copy)?;
            let keys_before = index::key_constraints(copy)?;
            let sequences_before = owned_sequences(copy)?;
            let not_null = not_null(copy, &columns_before, commands)?;
            // A copy has no partitions, and what a partitioned table is told is not always told to them.
            let partitions = match table.kind {
                'p' => Some(rewrites_partitions(table, alter, earlier, session)?),
                _ => None,
            };
            let generated = shadow::alter(table, alter, &name, &earlier.foreign_keys, session)?;
            let columns_after = column::list(copy)?;
            let files_after = files(copy)?;
            let changed: Vec<String> = files_before
                .iter()
                .filter(|(what, file)| files_after.iter().any(|(w, f)| w == what && f != file))
                .map(|(what, _)| what.clone())
                .collect();
            let computed = on == Copy::Outline
                && columns_after
                    .iter()
                    .skip(columns_before.len())
                    .any(|c| added_column::is_computed(copy, c.number));
            let rewrites =
                partitions.unwrap_or(computed || !generated.is_empty() || !changed.is_empty());
            let retypings = retypings(&columns_before, &columns_after, commands)?;
            let (types, dropped) = changes(&columns_before, &columns_after, commands);
            let retyped: Vec<i16> = types.iter().map(|t| t.number).collect();
            let touched: Vec<i16> = [&retyped[..], &dropped, &generated].concat();
            let kept = index::keys(copy, &[])?;
            let key = index::keys(table.oid, &touched)?.into_iter().find(|k| {
                kept.iter()
                    .any(|n| n.name == k.name && n.columns == k.columns)
            });
            let may_collide = match &key {
                Some(key) if key.touched && table.kind != 'p' => {
                    identity::as_role(table.owner, session, || {
                        key_may_collide(table, copy, alter, &key.columns)
                    })?
                }
                _ => false,
            };
            let key = match (key, may_collide) {
                (Some(key), false) => Some(key),
                _ => (table.kind == 'r').then(index::Key::address),
            };
            let converts = commands.iter().filter(|c| c.action == Action::AlterType);
            if rewrites
                && converts.count() > 1
                && table.kind == 'r'
                && earlier.statements.is_empty()
            {
                // What a later statement makes of a column that an earlier one converts is one expression, or there is none.
                identity::as_role(table.owner, session, || {
                    RowMapper::new(table.oid, copy, alter, false)
                })?;
            }
            let dependents = dependents::list(table.oid, &retyped)?;
            let foreign_key_faults = mirror::try_out(table, &name, &dependents)?;
            Ok(Outcome {
                rewrites,
                types,
                dropped,
                key,
                dependents,
                foreign_key_faults,
                keys: new_keys(copy, &name, &keys_before)?,
                checks: constraint::list(copy)?
                    .into_iter()
                    .filter(|c| {
                        c.kind == 'c' && !constraints_before.iter().any(|b| b.name == c.name)
                    })
                    .collect(),
                not_null,
                changed,
                retypings,
                makes_sequence: owned_sequences(copy)? > sequences_before,
            })
        });
        result.map_err(|error| explain_row_type(error, table, &schema))
    }
}

/// Runs `f` on an empty copy of `table`, after `before` and behind the statements that come `earlier`, and undoes it all.
pub fn on_copy<T>(
    table: &Relation,
    earlier: &Earlier,
    session: &Session,
    before: impl FnOnce() -> Result<()>,
    f: impl FnOnce(Oid) -> Result<T>,
) -> Result<T> {
    let schema = format!("_transmute_probe_{}", activity::pid());
    let result = xact::subtransaction(End::Undo, || {
        spi::execute(
            &format!(
                "CREATE SCHEMA {} AUTHORIZATION {}",
                quote_ident(&schema),
                quote_ident(&table.owner_name)
            ),
            &[],
        )?;
        before()?;
        let copy = shadow::create_like(table, &schema)?;
        let name = QualifiedName::new(&schema, &table.name.name);
        replay(table, earlier, &name, session)?;
        f(copy)
    });
    result.map_err(|error| explain_row_type(error, table, &schema))
}

/// An index as the server made it of a statement.
#[derive(Debug, Clone)]
pub struct Indexed {
    /// The names of its columns, of which the server makes the name of an index that has none.
    pub columns: Vec<String>,
    /// What `partition::indexes` tells it from others by.
    pub shape: String,
}

/// Runs a CREATE INDEX on an empty copy of `table` as its owner. Its errors are the server's own. `outline`: neither the rows nor
/// the other indexes of the table have a part in it.
pub fn index(
    ground: &Ground,
    table: &Relation,
    create: &str,
    outline: bool,
    session: &Session,
) -> Result<Indexed> {
    let schema = ground.of(table)?;
    let tried = |on: Copy| {
        xact::subtransaction(End::Undo, || {
            let copy = match on {
                Copy::Outline => shadow::create_outline(table, &schema, false)?,
                Copy::Whole => shadow::create_like(table, &schema)?,
            };
            let name = QualifiedName::new(&schema, &table.name.name);
            if table.kind == 'p' {
                rewrites_partitions(table, create, &Earlier::default(), session)?;
            }
            identity::as_role(table.owner, session, || utility::run_on(create, &name))?;
            let (made, columns) = spi::first_kept(
                "SELECT c.relname::text, ARRAY(SELECT attname::text FROM pg_attribute WHERE attnum > 0 AND attrelid = i.indexrelid \
                   ORDER BY attnum) \
                 FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE i.indrelid = $1 ORDER BY i.indexrelid DESC LIMIT 1",
                &[copy.into()],
                |row| Ok((row.need::<String>(1)?, row.need::<Vec<String>>(2)?)),
            )?
            .ok_or_else(|| Error::Bug("an index that was not made".into()))?;
            let shape = partition::indexes(&[copy])?
                .into_iter()
                .find(|i| i.name == made)
                .map(|i| i.shape)
                .unwrap_or_default();
            Ok(Indexed { columns, shape })
        })
    };
    // A unique index of a table that is divided is another matter, and a name may be taken by an index of the table.
    if outline {
        match tried(Copy::Outline) {
            Err(error) if !error.is_interrupt() => {}
            other => return other,
        }
    }
    tried(Copy::Whole).map_err(|error| explain_row_type(error, table, &schema))
}

/// Tries statements on a copy that is partitioned as the table is, which refuses what only a partitioned table refuses; whether
/// they give its partition another file or have its rows proved again.
fn rewrites_partitions(
    table: &Relation,
    script: &str,
    earlier: &Earlier,
    session: &Session,
) -> Result<bool> {
    let schema = format!("_transmute_parts_{}", activity::pid());
    xact::subtransaction(End::Undo, || {
        spi::execute(
            &format!(
                "CREATE SCHEMA {} AUTHORIZATION {}",
                quote_ident(&schema),
                quote_ident(&table.owner_name)
            ),
            &[],
        )?;
        let leaf = xact::subtransaction(End::Keep, || {
            shadow::create_partitioned_like(table, &schema)
        })
        .map_err(without_position)?;
        let twin = QualifiedName::new(&schema, &table.name.name);
        replay(table, earlier, &twin, session)?;
        let before = files(leaf)?;
        let generated = shadow::alter(table, script, &twin, &earlier.foreign_keys, session)?;
        let after = files(leaf)?;
        let changed = before
            .iter()
            .any(|(what, file)| after.iter().any(|(w, f)| w == what && f != file));
        Ok(changed || !generated.is_empty())
    })
}

/// Keys that were added to a copy, with the definitions of their indexes.
fn new_keys(
    copy: Oid,
    name: &QualifiedName,
    before: &[index::KeyConstraint],
) -> Result<Vec<(index::KeyConstraint, String)>> {
    let mut keys = Vec::new();
    for key in index::key_constraints(copy)? {
        // One that stands on an index given by name changes the catalog only.
        if before.iter().any(|b| b.index == key.index) {
            continue;
        }
        let command = relation::index_command(key.index);
        let prefix = format!("CREATE UNIQUE INDEX {} ON {name} ", quote_ident(&key.name));
        let definition = command
            .strip_prefix(&prefix)
            .ok_or_else(|| Error::Bug(format!("an index that reads {command}")))?
            .to_string();
        keys.push((key, definition));
    }
    Ok(keys)
}

/// Files of the table and its indexes, and identities of its check constraints: what an ALTER that is more than
/// catalog work changes.
fn files(table: Oid) -> Result<Vec<(String, String)>> {
    spi::query_kept(
        "SELECT 'table', relfilenode::text FROM pg_class WHERE oid = $1 \
         UNION ALL SELECT 'index ' || c.relname, c.relfilenode::text FROM pg_index i \
           JOIN pg_class c ON c.oid = i.indexrelid WHERE i.indrelid = $1 \
         UNION ALL SELECT 'check ' || conname, oid::text FROM pg_constraint \
           WHERE conrelid = $1 AND contype = 'c' AND convalidated",
        &[table.into()],
        |row| Ok((row.need(1)?, row.need(2)?)),
    )
}

fn owned_sequences(table: Oid) -> Result<i64> {
    Ok(spi::value::<i64>(
        "SELECT count(*) FROM pg_depend d JOIN pg_class c ON c.oid = d.objid AND c.relkind = 'S' \
         WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = $1 \
           AND d.deptype IN ('a', 'i')",
        &[table.into()],
    )?
    .unwrap_or(0))
}

/// Columns of SET NOT NULL for which the server will read no row.
fn not_null(copy: Oid, columns: &[Column], commands: &[Command]) -> Result<Vec<String>> {
    let mut proved = Vec::new();
    for command in commands.iter().filter(|c| c.action == Action::SetNotNull) {
        let found = columns
            .iter()
            .find(|c| !c.dropped && Some(c.name.as_str()) == command.column.as_deref());
        if let Some(column) = found {
            if pg_constraint::proves_not_null(copy, column.number)? {
                proved.push(column.name.clone());
            }
        }
    }
    Ok(proved)
}

/// What each ALTER COLUMN TYPE means.
fn retypings(before: &[Column], after: &[Column], commands: &[Command]) -> Result<Vec<Retyping>> {
    let mut found = Vec::new();
    for command in commands.iter().filter(|c| c.action == Action::AlterType) {
        let named = |columns: &[Column]| {
            columns
                .iter()
                .find(|c| !c.dropped && Some(&c.name) == command.column.as_ref())
                .cloned()
        };
        let (Some(old), Some(new)) = (named(before), named(after)) else {
            continue;
        };
        let (cast, narrows) = spi::first_kept(
            include_str!("../../sql/query/cast.sql"),
            &[
                old.type_oid.into(),
                old.typmod.into(),
                new.type_oid.into(),
                new.typmod.into(),
            ],
            |row| Ok((row.need::<String>(1)?, row.need::<bool>(2)?)),
        )?
        .unwrap_or_default();
        found.push(Retyping {
            column: quote_ident(&old.name),
            from: short(&old.type_name),
            to: short(&new.type_name),
            cast,
            has_using: command.has_expression,
            narrows,
        });
    }
    Ok(found)
}

/// A type as people write it: without pg_catalog, and the long names of SQL cut short.
fn short(type_name: &str) -> String {
    type_name
        .replace("pg_catalog.", "")
        .replace("character varying", "varchar")
}

/// Columns whose type, collation, or stored value by USING, changes, and columns that are dropped.
pub fn changes(
    before: &[Column],
    after: &[Column],
    commands: &[Command],
) -> (Vec<TypeChange>, Vec<i16>) {
    let converted: Vec<&str> = commands
        .iter()
        .filter(|c| c.action == Action::AlterType)
        .filter_map(|c| c.column.as_deref())
        .collect();
    let live = || before.iter().zip(after).filter(|(b, _)| !b.dropped);
    let retyped = live()
        .filter(|(b, a)| {
            !a.dropped
                && ((b.type_oid, b.typmod) != (a.type_oid, a.typmod)
                    || converted.contains(&b.name.as_str()))
        })
        .map(|(b, a)| TypeChange {
            number: b.number,
            column: b.name.clone(),
            old_type: b.type_oid,
            new_type: a.type_oid,
            new_name: a.type_name.clone(),
        })
        .collect();
    let dropped = live()
        .filter(|(_, a)| a.dropped)
        .map(|(b, _)| b.number)
        .collect();
    (retyped, dropped)
}

/// A position in a text of ours says nothing of the DBA's.
fn without_position(error: Error) -> Error {
    match error {
        Error::Server(e) => Error::Server(ServerError {
            position: None,
            ..e
        }),
        other => other,
    }
}

/// A CHECK or index on the whole row calls a function of the table's row type; a copy has a row type of its own.
fn explain_row_type(error: Error, table: &Relation, schema: &str) -> Error {
    match &error {
        Error::Server(e) if e.message.contains(schema) => Error::Unsupported {
            problem: "an expression of the table uses its row type".into(),
            detail: format!(
                "On a copy of {}: {}.",
                table.name,
                e.message.replace(&format!("{schema}."), "")
            ),
            hint: "Write the CHECK or index with columns instead of the whole row.".into(),
        },
        _ => error,
    }
}

/// Whether the conversion of the key may make two keys equal: then a row could not be found by its key.
fn key_may_collide(table: &Relation, shadow: Oid, alter: &str, key: &[i16]) -> Result<bool> {
    let mapper = RowMapper::new(table.oid, shadow, alter, false)?;
    Ok(!mapper.keeps_apart(key))
}

/// Refuses by name what the rewrite strategy does not do.
pub fn require_supported(table: &Relation) -> Result<()> {
    if table.has_inheritance && !table.is_partition {
        return Err(Error::Unsupported {
            problem: "rewriting a table with heirs online is not supported".into(),
            detail: format!("The statement would rewrite {}.", table.name),
            hint: "Leave the table as it is, or run the plain ALTER in a maintenance window."
                .into(),
        });
    }
    Ok(())
}
