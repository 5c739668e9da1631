//! What a statement is tried behind: the earlier statements of its table, and those that make what it uses.

use super::composable::{commands, is_part_of_a_copy};
use super::Planner;
use crate::pg::parser::Kind;
use crate::pg::Oid;
use crate::rewrite::probe;
use std::collections::BTreeSet;

impl Planner<'_> {
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
        self.leave_out_others(members, &mut statements);
        probe::Earlier {
            statements: statements.into_iter().map(|(_, text)| text).collect(),
            foreign_keys: planned.map(|p| p.foreign_keys.clone()).unwrap_or_default(),
        }
    }

    /// Columns that come and go have no part in other ones that do: a long script about a few tables does not try each of its
    /// statements behind all that come before it.
    fn leave_out_others(&self, members: &[usize], earlier: &mut Vec<(usize, String)>) {
        let is_about_columns = |i: &usize| {
            let commands = commands(&self.statements[*i]);
            !commands.is_empty() && commands.iter().all(probe::is_about_columns)
        };
        if members.is_empty() || !members.iter().all(is_about_columns) {
            return;
        }
        let mut users: Vec<usize> = members.to_vec();
        let mut kept = Vec::new();
        for (i, text) in earlier.drain(..).rev() {
            let used = commands(&self.statements[i]).iter().any(|c| {
                let name = c.column.as_deref().unwrap_or_default();
                let mentions = |u: &usize| self.statements[*u].effects.mentions.has(None, name);
                users.iter().any(mentions)
            });
            if used || self.is_bundled(i) || !is_about_columns(&i) {
                users.push(i);
                kept.push((i, text));
            }
        }
        kept.reverse();
        *earlier = kept;
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
}
