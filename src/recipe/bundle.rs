//! Which statements of a script are one copy of a table: every ALTER TABLE and CREATE INDEX of one table that can be done
//! together, in their order, where one of them rewrites it.

use super::added_keys::{leaves_keys, not_valid, only_adds_keys};
use super::composable::{is_composable, is_part_of_a_copy};
use super::names::{Names, Target};
use super::why::{self, Seen};
use super::Planner;
use crate::catalog::relation::{self, Relation};
use crate::error::{Error, Result};
use crate::model::ident::quote_ident;
use crate::pg::parser::{Action, AlterTable, Kind};
use crate::pg::{identity, utility, Oid};
use crate::rewrite::{self, probe};

/// One copy of a table.
#[derive(Debug)]
pub(super) struct Bundle {
    pub table: Relation,
    /// Its statements, by their places in the script.
    pub members: Vec<usize>,
    /// What runs on the table, in order.
    pub script: String,
    pub outcome: probe::Outcome,
    /// The table whose key it follows, if the script does not name it at all.
    pub added_for: Option<String>,
}

impl Planner<'_> {
    /// Finds the bundles of the script before anything is planned.
    pub(super) fn find_bundles(&mut self) -> Result<()> {
        let tables = self.statements_by_table()?;
        for (oid, members) in &tables {
            let mut rest = &members[..];
            while let Some(first) = rest.first() {
                let (together, after) = self.together(rest);
                if together.len() > 1 || self.changes_a_referenced_key(*oid, *first)? {
                    self.try_bundle(*oid, together)?;
                }
                rest = after;
            }
        }
        self.follow_keys(&tables.into_iter().collect())
    }

    /// ALTER TABLE and CREATE INDEX statements on tables of the catalog that may be rewritten.
    fn statements_by_table(&mut self) -> Result<Vec<(Oid, Vec<usize>)>> {
        let mut tables: Vec<(Oid, Vec<usize>)> = Vec::new();
        for (i, statement) in self.statements.clone().iter().enumerate() {
            let is_one = matches!(statement.tag.as_str(), "ALTER TABLE" | "CREATE INDEX");
            let named = statement.effects.alters.first();
            let name = named
                .filter(|_| is_one)
                .map(|o| (o.schema.clone(), o.name.clone()));
            if let Some((schema, name)) = name {
                let found = self
                    .lookup(schema.as_deref(), &name)
                    .map_err(|e| self.placed(e, i))?;
                if let Target::Existing(oid) = found {
                    match tables.iter_mut().find(|(o, _)| *o == oid) {
                        Some((_, members)) => members.push(i),
                        None => tables.push((oid, vec![i])),
                    }
                }
            }
            self.note_names(&statement.effects)
                .map_err(|e| self.placed(e, i))?;
        }
        self.names = Names::default();
        self.by_table = tables.iter().cloned().collect();
        Ok(tables)
    }

    /// The statements of one table that can be done together with the first of them, and the others.
    fn together<'b>(&self, members: &'b [usize]) -> (Vec<usize>, &'b [usize]) {
        let Some((first, rest)) = members.split_first() else {
            return (Vec::new(), members);
        };
        let mut together = vec![*first];
        if !is_part_of_a_copy(&self.statements[*first]) {
            return (together, rest);
        }
        for (i, next) in rest.iter().enumerate() {
            if !self.can_join(&together, *next) {
                return (together, &rest[i..]);
            }
            together.push(*next);
        }
        (together, &[])
    }

    /// The first statements of a table that can be done with a copy of it.
    pub(super) fn together_with(&self, members: &[usize]) -> Vec<usize> {
        members
            .iter()
            .position(|i| is_part_of_a_copy(&self.statements[*i]))
            .map_or_else(Vec::new, |start| self.together(&members[start..]).0)
    }

    /// Whether a statement means the same when it runs right behind these.
    fn can_join(&self, together: &[usize], next: usize) -> bool {
        let statement = &self.statements[next];
        let first = together.first().copied().unwrap_or(next);
        let keys = only_adds_keys(statement);
        (keys || is_part_of_a_copy(statement))
            && is_composable(
                &together
                    .iter()
                    .map(|i| &*self.statements[*i])
                    .collect::<Vec<_>>(),
                statement,
            )
            && self.tied_to(next).range(first..next).all(|i| {
                together.contains(i)
                    || self.tie_of(next, *i).is_none()
                    || keys && leaves_keys(&self.statements[*i])
            })
    }

    /// Makes a bundle of these where the server rewrites the table for them.
    fn try_bundle(&mut self, oid: Oid, members: Vec<usize>) -> Result<()> {
        let Some(table) = self.may_be_copied(oid)? else {
            return Ok(());
        };
        let script = self.script_of(&members);
        let outcome = match self.probe(&table, &script, &members) {
            Ok(outcome) => outcome,
            Err(error) => return Err(self.blame(&table, &members, error)),
        };
        let versioned = !outcome.types.is_empty() && self.has_versions(&table)?;
        if outcome.rewrites || !outcome.dependents.is_empty() || versioned {
            self.bundles.push(Bundle {
                table,
                members,
                script,
                outcome,
                added_for: None,
            });
        }
        Ok(())
    }

    /// The table, if the caller may have it altered on a copy; what is wrong with it is said when its statement is planned.
    pub(super) fn may_be_copied(&self, oid: Oid) -> Result<Option<Relation>> {
        let table = relation::get(oid)?;
        let plain = table.kind == 'p' || table.is_partition || !table.has_inheritance;
        Ok((plain && self.require_alterable(&table).is_ok()).then_some(table))
    }

    pub(super) fn script_of(&self, members: &[usize]) -> String {
        let texts: Vec<String> = members
            .iter()
            .map(|i| &self.statements[*i])
            .map(|statement| match only_adds_keys(statement) {
                true => not_valid(statement).unwrap_or_else(|_| statement.text.clone()),
                false => statement.text.clone(),
            })
            .collect();
        texts.join(";\n")
    }

    /// Tries statements on an empty copy of the table, after what earlier statements make for them.
    pub(super) fn probe(
        &self,
        table: &Relation,
        script: &str,
        members: &[usize],
    ) -> Result<probe::Outcome> {
        let needed = self.made_for(members);
        let first = members.iter().copied().min().unwrap_or(0);
        let earlier = self.earlier(table.oid, first, members);
        let session = &self.caller.session;
        probe::with(self.ground, table, script, &earlier, session, || {
            for i in &needed {
                let statement = &self.statements[*i];
                identity::as_role(self.caller.role, &self.caller.session, || {
                    utility::run(&statement.text)
                })?;
            }
            Ok(())
        })
    }

    /// The error, at the first of these statements that has it.
    fn blame(&self, table: &Relation, members: &[usize], error: Error) -> Error {
        for end in 1..members.len() {
            let part = &members[..end];
            if let Err(error) = self.probe(table, &self.script_of(part), part) {
                return self.placed(error, members[end - 1]);
            }
        }
        self.placed(error, members.last().copied().unwrap_or(0))
    }

    /// The bundle that begins with this statement.
    pub(super) fn bundle_of(&self, index: usize) -> Option<usize> {
        self.bundles
            .iter()
            .position(|b| b.members.first() == Some(&index))
    }

    pub(super) fn is_bundled(&self, index: usize) -> bool {
        self.bundles.iter().any(|b| b.members.contains(&index))
    }

    /// Whether a statement is done with an earlier one.
    /// The statement whose steps do what this one says, too.
    pub(super) fn absorbed_by(&self, index: usize) -> Option<usize> {
        let bundle = self
            .bundles
            .iter()
            .find(|b| b.members.iter().skip(1).any(|m| *m == index));
        let first = bundle.and_then(|b| b.members.first().copied());
        self.succession_around(index).or(first)
    }

    /// Plans a bundle.
    pub(super) fn plan_bundle(&mut self, index: usize, bundle: usize) -> Result<()> {
        let Bundle {
            table,
            members,
            script,
            outcome,
            added_for,
        } = &self.bundles[bundle];
        let (table, members, script) = (table.clone(), members.clone(), script.clone());
        let (outcome, added_for) = (outcome.clone(), added_for.clone());
        self.require_free(&table)?;
        self.require_free_columns(&table, &outcome)?;
        let foreign = outcome.foreign_key_faults.iter().find(|f| {
            !self.by_table.contains_key(&f.partner)
                && !self.bundles.iter().any(|b| b.table.oid == f.partner)
        });
        if let Some(fault) = foreign {
            return Err(fault.error.clone());
        }
        let found = &outcome.dependents;
        for member in &members {
            if let Kind::AlterTable(alter) = &self.statements[*member].kind {
                let seen = seen(alter, &outcome, !found.is_empty());
                self.seen.insert(*member as i32 + 1, seen);
            }
        }
        self.try_added_keys(bundle)?;
        let commands = rewrite::commands(&script)?;
        let what = super::rewrite::What {
            script: &script,
            commands: &commands,
            added_for: added_for.as_deref(),
            part_of: None,
        };
        self.rewrite(index, what, &table, &outcome, found)
    }
}

/// What one of several statements does by itself.
fn seen(alter: &AlterTable, outcome: &probe::Outcome, has_dependents: bool) -> Seen {
    let writes = alter.commands.iter().any(|c| {
        c.action == Action::AlterType || c.action == Action::AddColumn && c.has_expression
    });
    if !writes {
        return Seen::default();
    }
    let mut own = outcome.clone();
    // Of a column that is converted twice each statement says its own.
    let is_own = |r: &probe::Retyping| {
        alter.commands.iter().any(|c| {
            let same = c.column.as_deref().map(quote_ident).as_deref() == Some(&r.column);
            same && c.action == Action::AlterType && c.has_expression == r.has_using
        })
    };
    own.retypings.retain(is_own);
    own.retypings.dedup_by(|a, b| a.column == b.column);
    why::seen(alter, &own, has_dependents)
}
