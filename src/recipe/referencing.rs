//! A key that changes its type, and the columns of other tables that refer to it: all of them are converted together.

use super::bundle::Bundle;
use super::{place, Planner};
use crate::catalog::relation::Relation;
use crate::error::{Error, Result};
use crate::model::ident::quote_ident;
use crate::pg::parser::{self, Action, Command, ConstraintKind, Kind};
use crate::pg::xact::{self, End};
use crate::pg::{spi, Oid};
use crate::rewrite::probe;
use std::collections::HashMap;
use std::rc::Rc;

/// A column that refers to a key by a foreign key.
#[derive(Debug)]
struct Reference {
    table: Oid,
    column: String,
    type_oid: Oid,
    constraint: String,
}

impl Planner<'_> {
    /// Whether a statement retypes a column that foreign keys point at.
    pub(super) fn changes_a_referenced_key(&self, table: Oid, index: usize) -> Result<bool> {
        if self.meta.include_referencing == Some(false) {
            return Ok(false);
        }
        let retyped: Vec<String> = self
            .commands_of(&[index])
            .into_iter()
            .filter(|c| c.action == Action::AlterType)
            .filter_map(|c| c.column)
            .collect();
        if retyped.is_empty() {
            return Ok(false);
        }
        Ok(spi::value_kept::<bool>(
            "SELECT EXISTS (SELECT FROM pg_constraint c JOIN pg_attribute a \
               ON a.attrelid = c.confrelid AND a.attnum = ANY (c.confkey) \
             WHERE c.contype = 'f' AND c.confrelid = $1 AND a.attname::text = ANY ($2))",
            &[table.into(), retyped.into()],
        )? == Some(true))
    }

    /// Adds to the bundles what refers to the keys that they retype, and so on.
    pub(super) fn follow_keys(&mut self, tables: &HashMap<Oid, Vec<usize>>) -> Result<()> {
        if self.meta.include_referencing == Some(false) {
            return Ok(());
        }
        let mut next = 0;
        while next < self.bundles.len() {
            let root = self.bundles[next].members.first().copied().unwrap_or(0);
            let found = self
                .follow(next, tables)
                .map_err(|e| self.placed(place::without_position(e), root))?;
            next = match found {
                // A table that was looked at already has more columns to convert now.
                Some(again) => again.min(next),
                None => next + 1,
            };
        }
        Ok(())
    }

    /// One bundle: the first one that changed because of it.
    fn follow(
        &mut self,
        parent: usize,
        tables: &HashMap<Oid, Vec<usize>>,
    ) -> Result<Option<usize>> {
        let bundle = &self.bundles[parent];
        let name = bundle.table.name.to_string();
        let mut wanted: Vec<(Oid, Vec<String>)> = Vec::new();
        for change in &bundle.outcome.types {
            if change.old_type == change.new_type {
                continue;
            }
            for reference in references(bundle.table.oid, change.number)? {
                let members = tables.get(&reference.table).map_or(&[][..], Vec::as_slice);
                if reference.type_oid != change.old_type || self.speaks_of(members, &reference) {
                    continue;
                }
                let own = self.bundles.iter().any(|b| {
                    b.table.oid == reference.table
                        && b.outcome.types.iter().any(|t| t.column == reference.column)
                });
                if own {
                    continue;
                }
                self.require_derivable(parent, &change.column, &reference)?;
                let command = format!(
                    "ALTER COLUMN {} TYPE {}",
                    quote_ident(&reference.column),
                    change.new_name
                );
                match wanted.iter_mut().find(|(t, _)| *t == reference.table) {
                    Some((_, commands)) if commands.contains(&command) => {}
                    Some((_, commands)) => commands.push(command),
                    None => wanted.push((reference.table, vec![command])),
                }
            }
        }
        let mut first = None;
        for (table, commands) in wanted {
            let members = tables.get(&table).map_or(&[][..], Vec::as_slice);
            let changed = self.convert(parent, &name, table, &commands, members)?;
            first = Some(first.map_or(changed, |f: usize| f.min(changed)));
        }
        Ok(first)
    }

    /// Whether the script itself says what becomes of a referring column or of its foreign key.
    fn speaks_of(&self, members: &[usize], reference: &Reference) -> bool {
        let commands = self.commands_of(members);
        let makes_anew = commands
            .iter()
            .any(|c| c.constraint == Some(ConstraintKind::Foreign));
        commands.iter().any(|c| {
            let name = c.column.as_deref();
            match c.action {
                Action::AlterType | Action::DropColumn => name == Some(&reference.column),
                Action::DropConstraint => !makes_anew && name == Some(&reference.constraint),
                _ => false,
            }
        })
    }

    /// A cast is the same for the column that refers; an expression is the DBA's to write.
    fn require_derivable(&self, parent: usize, column: &str, reference: &Reference) -> Result<()> {
        let using = crate::rewrite::commands(&self.bundles[parent].script)?
            .into_iter()
            .any(|c| {
                c.action == Action::AlterType
                    && c.has_expression
                    && c.column.as_deref() == Some(column)
            });
        if !using {
            return Ok(());
        }
        let child = crate::catalog::relation::get(reference.table)?;
        Err(Error::Unsupported {
            problem: "the conversion of a referenced column has USING, so that of the columns that refer to it is not known".into(),
            detail: format!(
                "Column \"{}\" of {} refers to it by {}.",
                reference.column,
                child.name,
                quote_ident(&reference.constraint)
            ),
            hint: "Add ALTER TABLE … ALTER COLUMN … TYPE … USING … of that table to the script.".into(),
        })
    }

    /// Lets a table follow its key: its bundle, made where there is none.
    fn convert(
        &mut self,
        parent: usize,
        parent_name: &str,
        oid: Oid,
        commands: &[String],
        members: &[usize],
    ) -> Result<usize> {
        let table = crate::catalog::relation::get(oid)?;
        self.require_followable(&table, parent_name)?;
        let added = format!("ALTER TABLE {} {}", table.name, commands.join(", "));
        if let Some(known) = self.bundles.iter().position(|b| b.table.oid == oid) {
            let script = format!("{};\n{added}", self.bundles[known].script);
            let members = self.bundles[known].members.clone();
            self.bundles[known].outcome = self.probe(&table, &script, &members)?;
            self.bundles[known].script = script;
            return Ok(known);
        }
        let mut together = self.together_with(members);
        let script = match together.is_empty() {
            true => added.clone(),
            false => format!("{};\n{added}", self.script_of(&together)),
        };
        let outcome = self.probe(&table, &script, &together)?;
        let mut added_for = None;
        if together.is_empty() {
            together.push(self.add_statement(&added, parent)?);
            added_for = Some(parent_name.to_string());
        }
        self.bundles.push(Bundle {
            table,
            members: together,
            script,
            outcome,
            added_for,
        });
        Ok(self.bundles.len() - 1)
    }

    fn require_followable(&self, table: &Relation, parent: &str) -> Result<()> {
        self.require_alterable(table)?;
        if table.kind == 'p' && !table.is_partition || !table.has_inheritance {
            return Ok(());
        }
        Err(Error::Unsupported {
            problem: "a partition by itself, or an inherited table, refers to a key that changes its type"
                .into(),
            detail: format!("{} refers to {parent}.", table.name),
            hint: "meta {\"include_referencing\": false} leaves referring tables as they are."
                .into(),
        })
    }

    /// Foreign keys of the table, from and to it, must be possible between the types that both sides will have; the server
    /// says so.
    pub(super) fn require_comparable(
        &self,
        table: &Relation,
        outcome: &probe::Outcome,
    ) -> Result<()> {
        let mut tried: Vec<(String, String)> = Vec::new();
        for pair in foreign_key_columns(table.oid)? {
            let own = |t: Oid| t == table.oid;
            let type_of = |table: Oid, number: i16, now: &str| {
                let planned = self.bundles.iter().find(|b| b.table.oid == table);
                let types = match own(table) {
                    true => Some(&outcome.types),
                    false => planned.map(|b| &b.outcome.types),
                };
                types
                    .and_then(|t| t.iter().find(|t| t.number == number))
                    .map_or(now.to_string(), |t| t.new_name.clone())
            };
            let types = (
                type_of(pair.referring.0, pair.referring.1, &pair.referring_type),
                type_of(pair.referred.0, pair.referred.1, &pair.referred_type),
            );
            // What another statement makes of the other side is judged when that is planned, or by the swap.
            let (other, column) = match own(pair.referring.0) {
                true => (pair.referred.0, &pair.referred_name),
                false => (pair.referring.0, &pair.referring_name),
            };
            if !own(other) && self.retypes_elsewhere(other, column) {
                continue;
            }
            let now = (pair.referring_type.clone(), pair.referred_type.clone());
            if types != now && !tried.contains(&types) {
                self.try_foreign_key(&types.0, &types.1)?;
                tried.push(types);
            }
        }
        Ok(())
    }

    /// Makes a foreign key between columns of these types, and takes it back.
    fn try_foreign_key(&self, referring: &str, referred: &str) -> Result<()> {
        let schema = self.ground.own()?;
        xact::subtransaction(End::Undo, || {
            for sql in [
                format!("CREATE TABLE {schema}.referred (key {referred} UNIQUE)"),
                format!("CREATE TABLE {schema}.referring (key {referring} REFERENCES {schema}.referred (key))"),
            ] {
                spi::execute(&sql, &[])?;
            }
            Ok(())
        })
    }

    /// Whether a statement that is in no bundle retypes a column.
    fn retypes_elsewhere(&self, table: Oid, column: &str) -> bool {
        let bundled = self.bundles.iter().any(|b| b.table.oid == table);
        let members = self.by_table.get(&table).map_or(&[][..], Vec::as_slice);
        !bundled
            && self
                .commands_of(members)
                .iter()
                .any(|c| c.action == Action::AlterType && c.column.as_deref() == Some(column))
    }

    /// A statement that the script does not have, planned right behind the one it belongs to.
    fn add_statement(&mut self, text: &str, parent: usize) -> Result<usize> {
        let root = self.bundles[parent].members.first().copied().unwrap_or(0);
        let root = self
            .followers
            .iter()
            .find(|a| a.0 == root)
            .map_or(root, |a| a.1);
        let mut statement = parser::parse(text)?
            .into_iter()
            .next()
            .ok_or_else(|| Error::Bug("an added statement that is none".into()))?;
        statement.line = self.statements[root].line;
        statement.column = self.statements[root].column;
        statement.offset = self.statements[root].offset;
        self.ties.push(&statement.effects);
        self.tied.borrow_mut().clear();
        let mut statements = self.statements.to_vec();
        statements.push(Rc::new(statement));
        self.statements = statements.into();
        let index = self.statements.len() - 1;
        self.followers.push((index, root));
        Ok(index)
    }

    pub(super) fn commands_of(&self, members: &[usize]) -> Vec<Command> {
        members
            .iter()
            .filter_map(|i| match &self.statements[*i].kind {
                Kind::AlterTable(alter) => Some(alter.commands.clone()),
                _ => None,
            })
            .flatten()
            .collect()
    }
}

/// Columns of foreign keys that refer to column `number` of `table`.
fn references(table: Oid, number: i16) -> Result<Vec<Reference>> {
    spi::query_kept(
        "SELECT c.conrelid, a.attname::text, a.atttypid, c.conname::text \
         FROM pg_constraint c CROSS JOIN LATERAL unnest(c.conkey, c.confkey) AS k (own, referred) \
         JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = k.own \
         WHERE c.contype = 'f' AND c.conparentid = 0 AND c.confrelid = $1 AND k.referred = $2 \
         ORDER BY c.conrelid, a.attnum",
        &[table.into(), number.into()],
        |row| {
            Ok(Reference {
                table: row.need(1)?,
                column: row.need(2)?,
                type_oid: row.need(3)?,
                constraint: row.need(4)?,
            })
        },
    )
}

/// Two columns of a foreign key: table and attribute number, and what type they have.
struct Pair {
    referring: (Oid, i16),
    referring_name: String,
    referring_type: String,
    referred: (Oid, i16),
    referred_name: String,
    referred_type: String,
}

fn foreign_key_columns(table: Oid) -> Result<Vec<Pair>> {
    spi::query_kept(
        "SELECT c.conrelid, a.attnum, format_type(a.atttypid, a.atttypmod), c.confrelid, b.attnum, \
           format_type(b.atttypid, b.atttypmod), a.attname::text, b.attname::text \
         FROM pg_constraint c CROSS JOIN LATERAL unnest(c.conkey, c.confkey) AS k (own, referred) \
         JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = k.own \
         JOIN pg_attribute b ON b.attrelid = c.confrelid AND b.attnum = k.referred \
         WHERE c.contype = 'f' AND c.conparentid = 0 AND $1 IN (c.conrelid, c.confrelid)",
        &[table.into()],
        |row| {
            Ok(Pair {
                referring: (row.need(1)?, row.need(2)?),
                referring_type: row.need(3)?,
                referred: (row.need(4)?, row.need(5)?),
                referred_type: row.need(6)?,
                referring_name: row.need(7)?,
                referred_name: row.need(8)?,
            })
        },
    )
}
