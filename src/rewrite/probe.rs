//! Trying a DBA's ALTER TABLE on an empty copy, in a subtransaction that is undone: the server itself says whether
//! it is valid and whether it would rewrite the table.

use super::shadow;
use crate::catalog::relation::Relation;
use crate::catalog::{column, index, relation};
use crate::error::{Error, Result};
use crate::model::ident::{quote_ident, QualifiedName};
use crate::pg::xact::{self, End};
use crate::pg::{activity, identity, spi, utility};

/// What the server did with the statement.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// It gave the table a new file.
    pub rewrites: bool,
    /// Columns whose type, or stored value by USING, changes: attribute numbers.
    pub retyped: Vec<i16>,
    /// The index that will identify rows, if there is a usable one before and after.
    pub key: Option<index::Key>,
    /// A key column gets its value from columns outside the key.
    pub key_depends_on_others: bool,
}

/// Runs `alter` on an empty copy of `table` as its owner. Its errors are the server's own.
pub fn run(
    table: &Relation,
    alter: &str,
    commands: &[crate::pg::parser::Command],
    search_path: &str,
) -> Result<Outcome> {
    let schema = format!("_transmute_probe_{}", activity::pid());
    xact::subtransaction(End::Undo, || {
        spi::execute(
            &format!(
                "CREATE SCHEMA {} AUTHORIZATION {}",
                quote_ident(&schema),
                quote_ident(&table.owner_name)
            ),
            &[],
        )?;
        let copy = shadow::create_like(table, &schema)?;
        let name = QualifiedName::new(&schema, &table.name.name);
        let before = column::list(copy)?;
        let file_before = relation::relfilenode(copy)?;
        identity::as_role(table.owner, search_path, || utility::run_on(alter, &name))?;
        let after = column::list(copy)?;
        let rewrites = relation::relfilenode(copy)? != file_before;

        let converted: Vec<&str> = commands
            .iter()
            .filter(|c| c.action == crate::pg::parser::Action::AlterType)
            .filter_map(|c| c.column.as_deref())
            .collect();
        let retyped: Vec<i16> = before
            .iter()
            .zip(&after)
            .filter(|(b, a)| {
                !b.dropped
                    && (a.dropped
                        || (b.type_oid, b.typmod) != (a.type_oid, a.typmod)
                        || converted.contains(&b.name.as_str()))
            })
            .map(|(b, _)| b.number)
            .collect();
        let mut key = None;
        if rewrites {
            let kept = index::keys(copy, &[])?;
            key = index::keys(table.oid, &retyped)?.into_iter().find(|k| {
                kept.iter()
                    .any(|n| n.name == k.name && n.columns == k.columns)
            });
        }
        let key_depends_on_others = match &key {
            Some(key) if key.touched => {
                let shadow = copy;
                identity::as_role(table.owner, search_path, || {
                    reads_other_columns(table, shadow, alter, &key.columns)
                })?
            }
            _ => false,
        };
        Ok(Outcome {
            rewrites,
            retyped,
            key,
            key_depends_on_others,
        })
    })
}

/// Whether the conversion of a key column reads a column outside the key: then a logged key could not be converted.
fn reads_other_columns(
    table: &Relation,
    shadow: pgrx::pg_sys::Oid,
    alter: &str,
    key: &[i16],
) -> Result<bool> {
    let mapper = crate::pg::row::RowMapper::new(table.oid, shadow, alter, false)?;
    Ok(mapper.reads_outside(key))
}

/// Refuses by name what the rewrite strategy does not do.
pub fn require_supported(table: &Relation, outcome: &Outcome) -> Result<()> {
    let unsupported = |problem: String, hint: &str| {
        Err(Error::Unsupported {
            problem,
            detail: format!("The statement would rewrite {}.", table.name),
            hint: hint.to_string(),
        })
    };
    if table.has_inheritance || table.is_partition || table.kind == 'p' {
        return unsupported(
            "rewriting a partitioned or inherited table online is not supported".into(),
            "Leave the table as it is, or run the plain ALTER in a maintenance window.",
        );
    }
    if table.is_typed {
        return unsupported(
            "rewriting a table of a composite type online is not supported".into(),
            "ALTER TABLE … NOT OF makes it an ordinary table.",
        );
    }
    if outcome.key.is_none() {
        return unsupported(
            "rewriting a table without a key online is not supported".into(),
            "Give it a primary key, or a unique index over NOT NULL columns, that the statement keeps.",
        );
    }
    if outcome.key_depends_on_others {
        return unsupported(
            "the USING expression of a key column reads other columns".into(),
            "Write the expression with columns of the key alone.",
        );
    }
    Ok(())
}
