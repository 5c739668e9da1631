//! A column under two names as two columns, where `meta.dual_write` says so: for tools that a view does not serve.

use super::draft::Draft;
use super::dual_write::{words, Ruled};
use super::Planner;
use crate::catalog::column::Column;
use crate::catalog::relation::Relation;
use crate::error::{Error, Result};
use crate::model::ident::quote_ident;
use crate::model::phase::Phase;
use crate::model::reason::Reason;
use crate::model::rule::{Assignment, Mechanism, Rule};
use crate::store::step::Kind as StepKind;

impl Planner<'_> {
    /// A column under two names as two columns, where `meta.dual_write` says so.
    pub(super) fn rename_by_rule(
        &mut self,
        number: i32,
        table: &Relation,
        old: &Column,
        new_name: &str,
    ) -> Result<()> {
        let refuse = |detail: String| {
            Err(Error::Unsupported {
                problem: "the column cannot have two names as two columns".into(),
                detail,
                hint: "Leave meta.dual_write out: a view gives the table both names.".into(),
            })
        };
        if table.kind != 'r' || table.is_partition || table.has_inheritance {
            return refuse(format!(
                "{} is part of a partition or inheritance tree.",
                table.name
            ));
        }
        if !old.generated.is_empty() || !old.identity.is_empty() {
            return refuse(format!(
                "Column \"{}\" is computed by the server itself.",
                old.name
            ));
        }
        if let Some(why) = self.obstacle(number as usize - 1, table)? {
            return refuse(format!("On {}: {why}.", table.name));
        }
        if self.ruled.contains_key(&table.oid.to_u32()) {
            return refuse(format!(
                "{} has a rule in this script already: one migration a column.",
                table.name
            ));
        }
        let two_way = self.meta.dual_write.as_deref() == Some("trigger");
        let assignment = |column: &str, from: &str| Assignment {
            column: column.into(),
            expression: quote_ident(from),
        };
        let target = self.name_now(table);
        let collation = match old.collation.is_empty() {
            true => String::new(),
            false => format!(" COLLATE {}", old.collation),
        };
        let quoted = quote_ident(new_name);
        let rule = Rule {
            mechanism: match two_way {
                true => Mechanism::Trigger,
                false => Mechanism::Rule,
            },
            add: Some(format!(
                "ALTER TABLE {target} ADD COLUMN {quoted} {}{collation}",
                old.type_name
            )),
            forth: vec![assignment(new_name, &old.name)],
            back: match two_way {
                true => vec![assignment(&old.name, new_name)],
                false => Vec::new(),
            },
            sources: vec![old.name.clone()],
            exact: true,
            sets_aside: false,
            other_name: true,
            after: None,
            way_back: None,
        };
        let facts = table.facts();
        let mut reasons = vec![Reason::LockAccessExclusive];
        reasons.extend((!two_way).then_some(Reason::BreaksNewClients));
        let plain = [Reason::LockAccessExclusive, Reason::BreaksOldClients];
        let mut make = Draft::new(
            StepKind::RuleMake,
            Phase::Expand,
            target.to_string(),
            words(&rule),
        )
        .lock("ACCESS EXCLUSIVE")
        .naive("the old name is gone at once", &plain)
        .reasons(reasons)
        .revert(Some(format!("ALTER TABLE {target} DROP COLUMN {quoted}")));
        make.rule = Some(rule);
        self.push(number, &facts, make);
        self.ruled.insert(
            table.oid.to_u32(),
            Ruled {
                make: self.steps.len() - 1,
                stood: None,
                updates: Vec::new(),
            },
        );
        self.push_work(number, &target.to_string(), table);
        if let Some(end) = self.steps.last_mut() {
            end.step.sql = format!(
                "end the rule, drop the second column, give the first one its name: ALTER TABLE {target} RENAME COLUMN {} TO {quoted}",
                quote_ident(&old.name)
            );
            end.step.reasons = plain.to_vec();
        }
        Ok(())
    }
}
