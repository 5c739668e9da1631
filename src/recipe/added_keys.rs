//! Foreign keys that a script adds to a table it copies: made NOT VALID in the swap, so that no row can slip in between, and
//! validated behind it.

use super::Planner;
use crate::catalog::relation;
use crate::error::Result;
use crate::model::ident::quote_ident;
use crate::pg::parser::{Action, ConstraintKind, Kind, Statement};
use crate::pg::pieces;
use crate::rewrite::{probe, reference};

/// Whether a statement adds foreign keys with names, to be valid, and nothing else.
pub(super) fn only_adds_keys(statement: &Statement) -> bool {
    let Kind::AlterTable(alter) = &statement.kind else {
        return false;
    };
    let foreign = alter.commands.iter().all(|c| {
        c.action == Action::AddConstraint
            && c.constraint == Some(ConstraintKind::Foreign)
            && !c.not_valid
    });
    foreign
        && pieces::of(&statement.text).is_ok_and(|pieces| {
            let mut constraints = pieces.list.iter().flat_map(|p| &p.constraints);
            constraints.all(|c| c.name.is_some() && c.enforced)
        })
}

/// Whether an ALTER TABLE of another table leaves what a foreign key needs of that as it is, or to the same swap.
pub(super) fn leaves_keys(statement: &Statement) -> bool {
    let Kind::AlterTable(alter) = &statement.kind else {
        return false;
    };
    alter.commands.iter().all(|c| {
        matches!(
            c.action,
            Action::AlterType
                | Action::ColumnValue
                | Action::SetNotNull
                | Action::AddColumn
                | Action::DropConstraint
        )
    })
}

/// The statement with its foreign keys NOT VALID.
pub(super) fn not_valid(statement: &Statement) -> Result<String> {
    let Kind::AlterTable(alter) = &statement.kind else {
        return Ok(statement.text.clone());
    };
    let clauses: Vec<String> = pieces::of(&statement.text)?
        .list
        .iter()
        .flat_map(|p| &p.constraints)
        .map(|c| {
            let name = quote_ident(c.name.as_deref().unwrap_or_default());
            format!("ADD CONSTRAINT {name} {} NOT VALID", c.body)
        })
        .collect();
    let schema = alter.schema.as_deref().map(quote_ident);
    Ok(format!(
        "ALTER TABLE {}{} {}",
        schema.map(|s| s + ".").unwrap_or_default(),
        quote_ident(&alter.name),
        clauses.join(", ")
    ))
}

impl Planner<'_> {
    /// Tries the foreign keys that a bundle adds, on copies of both tables.
    pub(super) fn try_added_keys(&self, bundle: usize) -> Result<()> {
        let bundle = &self.bundles[bundle];
        let mut tried = Vec::new();
        for member in &bundle.members {
            let statement = &self.statements[*member];
            if !only_adds_keys(statement) {
                continue;
            }
            let text = not_valid(statement)?;
            for constraint in pieces::of(&text)?.list.iter().flat_map(|p| &p.constraints) {
                let Some((schema, name)) = &constraint.references else {
                    continue;
                };
                let Some(oid) = self.existing(schema.as_deref(), name)? else {
                    return Err(self.undefined(schema.as_deref(), name));
                };
                let other = relation::get(oid)?;
                let changed = self.earlier(oid, usize::MAX, &[]);
                let one = format!(
                    "ALTER TABLE {} ADD CONSTRAINT {} {}",
                    bundle.table.name,
                    quote_ident(constraint.name.as_deref().unwrap_or_default()),
                    constraint.body
                );
                tried.push((one, other, changed));
            }
        }
        if tried.is_empty() {
            return Ok(());
        }
        let own = probe::Earlier {
            statements: vec![bundle.script.clone()],
            foreign_keys: Vec::new(),
        };
        reference::probe(
            self.ground,
            &bundle.table,
            &own,
            &tried,
            &self.caller.session,
        )
    }
}
