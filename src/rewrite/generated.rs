//! Generated columns whose expression uses a column that the ALTER retypes. The server refuses such an ALTER; on a table
//! without rows the expression can be taken away before it and given back after it, parsed anew on the new type. The
//! values are computed by the row mapper, as for any stored generated column of the shadow.

use crate::catalog::partition;
use crate::error::{Error, Result};
use crate::pg::error::ServerError;
use crate::pg::generated::{self, Generation};
use crate::pg::identity::{self, Session};
use crate::pg::parser::{Action, Command};
use crate::pg::xact::{self, End};
use crate::pg::{spi, Oid};

struct Expression {
    table: Oid,
    column: i16,
    name: String,
    generation: Generation,
    text: String,
}

/// Runs `alter`, which runs `commands` on an empty `table`, with the expressions that are in its way taken away. Returns
/// the columns, by attribute number, that had one.
pub fn around(
    table: Oid,
    owner: Oid,
    commands: &[Command],
    alter: impl FnOnce() -> Result<()>,
) -> Result<Vec<i16>> {
    let mut expressions = Vec::new();
    // What is done to a partitioned table is done to its partitions, whose expressions are their own.
    for member in partition::tree(table)? {
        expressions.extend(in_the_way(member.oid, commands)?);
    }
    require_kept(&expressions, commands)?;
    for expression in &expressions {
        generated::clear(expression.table, expression.column)?;
    }
    alter()?;
    for expression in &expressions {
        if !is_dropped(expression.table, expression.column)? {
            give_back(owner, expression)?;
        }
    }
    let own = expressions.into_iter().filter(|e| e.table == table);
    Ok(own.map(|e| e.column).collect())
}

/// In a subtransaction, so that an error can say which column it is about.
fn give_back(owner: Oid, expression: &Expression) -> Result<()> {
    let Expression {
        table,
        column,
        name,
        generation,
        text,
    } = expression;
    xact::subtransaction(End::Keep, || {
        identity::as_role(owner, &Session::own(), || {
            generated::set(*table, *column, *generation, text)
        })
    })
    .map_err(|error| match error {
        Error::Server(server) => Error::Server(ServerError {
            detail: Some(format!(
                "Column \"{name}\" is generated as {text}, which the new types do not admit."
            )),
            hint: Some(format!(
                "Drop column \"{name}\" before the migration, or choose a type that its expression admits."
            )),
            ..server
        }),
        other => other,
    })
}

fn in_the_way(table: Oid, commands: &[Command]) -> Result<Vec<Expression>> {
    let retyped: Vec<String> = commands
        .iter()
        .filter(|c| c.action == Action::AlterType)
        .filter_map(|c| c.column.clone())
        .collect();
    if retyped.is_empty() {
        return Ok(Vec::new());
    }
    spi::query(
        include_str!("../../sql/query/generated_from.sql"),
        &[table.into(), retyped.into()],
        |row| {
            let letter: String = row.need(3)?;
            Ok(Expression {
                table,
                column: row.need(1)?,
                name: row.need(2)?,
                generation: Generation::of_letter(&letter)
                    .ok_or_else(|| Error::Bug(format!("unknown attgenerated {letter}")))?,
                text: row.need(4)?,
            })
        },
    )
}

/// With the expression away, the statement cannot say something about it.
fn require_kept(expressions: &[Expression], commands: &[Command]) -> Result<()> {
    let changed = expressions.iter().find(|e| {
        commands
            .iter()
            .any(|c| c.action == Action::ColumnValue && c.column.as_ref() == Some(&e.name))
    });
    match changed {
        None => Ok(()),
        Some(expression) => Err(Error::Unsupported {
            problem: "a generated column cannot be changed together with a column that it uses"
                .into(),
            detail: format!(
                "Column \"{}\" is generated from a column that changes its type, and gets another value itself.",
                expression.name
            ),
            hint: "Change the types in one migration, the generated column in another.".into(),
        }),
    }
}

fn is_dropped(table: Oid, column: i16) -> Result<bool> {
    Ok(spi::value::<bool>(
        "SELECT attisdropped FROM pg_attribute WHERE attrelid = $1 AND attnum = $2",
        &[table.into(), column.into()],
    )? != Some(false))
}
