//! Which statements of a script are one copy of a table: every ALTER TABLE and CREATE INDEX of one table that can be done
//! together, in their order, where one of them rewrites it.

use super::added_keys::{leaves_keys, not_valid, only_adds_keys};
use super::names::{Names, Target};
use super::why::{self, Seen};
use super::Planner;
use crate::catalog::relation::{self, Relation};
use crate::error::{Error, Result};
use crate::model::ident::quote_ident;
use crate::pg::parser::{Action, AlterTable, Command, ConstraintKind, Kind, Statement};
use crate::pg::{identity, utility, Oid};
use crate::rewrite::{self, probe};
use std::collections::{BTreeSet, HashMap};

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

    /// What the statements before place `end` do to a table, as far as it can be done to a copy of it; these `members` left
    /// out.
    pub(super) fn earlier(&self, table: Oid, end: usize, members: &[usize]) -> probe::Earlier {
        let planned = self.altered.get(&table.to_u32());
        let bundles = self.bundles.iter().filter(|b| {
            b.table.oid == table && b.members.iter().all(|m| *m < end && !members.contains(m))
        });
        let mut statements: Vec<(usize, String)> = Vec::new();
        let mut bundled = members.to_vec();
        for bundle in bundles {
            bundled.extend(&bundle.members);
            let first = bundle.members.first().copied().unwrap_or(0);
            statements.push((first, bundle.script.clone()));
        }
        for i in self.by_table.get(&table).map_or(&[][..], Vec::as_slice) {
            let statement = &self.statements[*i];
            let can_be_copied = match statement.kind {
                Kind::AlterTable(_) => {
                    is_part_of_a_copy(statement)
                        || planned.is_some_and(|p| p.statements.contains(&statement.text))
                }
                // RENAME COLUMN
                _ => statement.tag == "ALTER TABLE" && statement.effects.renames.is_none(),
            };
            if *i < end && !bundled.contains(i) && can_be_copied {
                statements.push((*i, statement.text.clone()));
            }
        }
        statements.sort_by_key(|(i, _)| *i);
        probe::Earlier {
            statements: statements.into_iter().map(|(_, text)| text).collect(),
            foreign_keys: planned.map(|p| p.foreign_keys.clone()).unwrap_or_default(),
        }
    }

    /// Earlier statements that make what these, or those, use.
    pub(super) fn made_for(&self, members: &[usize]) -> Vec<usize> {
        let mut users: Vec<usize> = members.to_vec();
        let mut needed = Vec::new();
        let last = members.iter().copied().max().unwrap_or(0);
        let mut makers: BTreeSet<usize> = BTreeSet::new();
        for member in members {
            makers.extend(self.tied_to(*member).range(..last));
        }
        while let Some(i) = makers.pop_last() {
            let maker = &self.statements[i];
            // A type that gets another name frees the old one for what comes behind it.
            let renames = maker.tag == "ALTER TYPE" && !maker.effects.drops.is_empty();
            let makes = renames || maker.tag.starts_with("CREATE ") && maker.tag != "CREATE INDEX";
            if makes && !members.contains(&i) {
                let used = users.iter().any(|u| {
                    let effects = &self.statements[*u].effects;
                    let freed = maker.effects.drops.iter().filter(|_| renames);
                    let mut made = maker.effects.makes.iter().chain(freed);
                    *u > i && made.any(|o| effects.mentions.has(o.schema.as_deref(), &o.name))
                });
                if used {
                    users.push(i);
                    needed.push(i);
                    makers.extend(self.tied_to(i).range(..i));
                }
            }
        }
        needed.reverse();
        needed
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
    pub(super) fn is_absorbed(&self, index: usize) -> bool {
        self.bundles
            .iter()
            .any(|b| b.members.iter().skip(1).any(|m| *m == index))
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
        if added_for.is_some() && outcome.key.is_none() {
            return Err(Error::Unsupported {
                problem: "a table without a key refers to a key that changes its type".into(),
                detail: format!(
                    "{} refers to {}.",
                    table.name,
                    added_for.as_deref().unwrap_or_default()
                ),
                hint: "Give it a primary key; meta {\"include_referencing\": false} leaves referring tables as they are."
                    .into(),
            });
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
    let names = |column: &str| {
        alter.commands.iter().any(|c| {
            c.column
                .as_deref()
                .is_some_and(|c| quote_ident(c) == column)
        })
    };
    let writes = alter.commands.iter().any(|c| {
        c.action == Action::AlterType || c.action == Action::AddColumn && c.has_expression
    });
    if !writes {
        return Seen::default();
    }
    let mut own = outcome.clone();
    own.retypings.retain(|r| names(&r.column));
    why::seen(alter, &own, has_dependents)
}

/// Whether a statement can be done on the shadow and on the empty table alike.
pub(super) fn is_part_of_a_copy(statement: &Statement) -> bool {
    match &statement.kind {
        _ if !matches!(statement.tag.as_str(), "ALTER TABLE" | "CREATE INDEX") => false,
        Kind::AlterTable(alter) => !alter.commands.iter().any(|c| {
            c.constraint == Some(ConstraintKind::Foreign)
                || matches!(
                    c.action,
                    Action::AttachOrInherit
                        | Action::ValidateConstraint
                        | Action::AddIndexConstraint
                )
        }),
        _ if statement.tag == "ALTER TABLE" => false,
        // An index that IF NOT EXISTS finds on the table is not on the shadow.
        _ => {
            let mentions = &statement.effects.mentions;
            !(mentions.has(None, "if") && mentions.has(None, "exists"))
        }
    }
}

/// Whether the conversion of a row is that of the first statements and then this one's. It is made once, from the old row:
/// nothing of it may depend on what an earlier statement made of a column.
fn is_composable(earlier: &[&Statement], next: &Statement) -> bool {
    let before: Vec<&Command> = earlier.iter().flat_map(|s| commands(s)).collect();
    let changed: HashMap<&str, Action> = before
        .iter()
        .filter(|c| matches!(c.action, Action::AddColumn | Action::AlterType))
        .filter_map(|c| Some((c.column.as_deref()?, c.action)))
        .collect();
    commands(next).iter().all(|command| {
        let column = command.column.as_deref().unwrap_or_default();
        match command.action {
            Action::AlterType => {
                let computed = command.has_expression
                    && changed.keys().any(|c| next.effects.mentions.has(None, c));
                !changed.contains_key(column) && !computed
            }
            // Rows that are there get the value of ADD COLUMN, not the later one.
            Action::ColumnValue => changed.get(column) != Some(&Action::AddColumn),
            Action::AddColumn => !changed.contains_key(column),
            _ => true,
        }
    })
}

fn commands(statement: &Statement) -> &[Command] {
    match &statement.kind {
        Kind::AlterTable(alter) => &alter.commands,
        _ => &[],
    }
}
