//! New columns that a script adds and fills from the row itself: kept equal to the old ones until the end.
//!
//! `ALTER TABLE … ADD COLUMN …; UPDATE … SET column = expression over the row`, without WHERE, says what the new columns
//! are. Who reads the new shape needs them right for every row, also those that the old application writes meanwhile; so
//! it becomes a rule, a fill of the rows that are there, a check of every row, and an end.

use super::draft::{planned, Draft};
use super::rule_reading::Reading;
use super::{Planned, Planner};
use crate::catalog::relation::{self, Relation};
use crate::dualwrite::fill::expressions;
use crate::error::{Error, Result};
use crate::model::phase::Phase;
use crate::model::plan::Estimate;
use crate::model::reason::Reason;
use crate::model::rule::{Mechanism, Rule};
use crate::pg::parser::Statement;
use crate::pg::{identity, spi, Oid};
use crate::store::step::Kind as StepKind;

/// From here a fill is something to tell replicas of.
const LONG_ROWS: i64 = 100_000;

/// The rule of one table in the plan.
pub(super) struct Ruled {
    /// Its step, and that step as it stood before it was made the rule's; `None`: it was pushed for the rule.
    pub make: usize,
    pub stood: Option<Planned>,
    /// The UPDATE statements it is made of, by their places in the script.
    pub updates: Vec<usize>,
}

impl Planner<'_> {
    /// Plans an UPDATE of new columns as a rule; false: it is filled once, as it stands.
    pub(super) fn rule(
        &mut self,
        number: i32,
        statement: &Statement,
        table: &Relation,
    ) -> Result<bool> {
        let forced = self.meta.dual_write.as_deref();
        if forced == Some("none") || self.meta.data.as_deref() == Some("single") {
            return Ok(false);
        }
        let index = number as usize - 1;
        let mut updates: Vec<usize> = self
            .ruled
            .get(&table.oid.to_u32())
            .map(|r| r.updates.clone())
            .unwrap_or_default();
        updates.push(index);
        let reading = match self.obstacle(index, table)? {
            Some(why) => Err(why),
            None => self.read(&updates, table)?,
        };
        let reading = match reading {
            Ok(reading) => reading,
            Err(why) if forced.is_some() || self.reverses(table) => {
                return Err(Error::Unsupported {
                    problem: "the new columns cannot be kept equal to the old ones".into(),
                    detail: format!("{} in line {}: {why}.", statement.tag, statement.line),
                    hint:
                        "Write UPDATE … SET column = expression over the same row, without WHERE; \
                           meta {\"dual_write\": \"none\"} fills the columns once."
                            .into(),
                });
            }
            Err(why) => {
                let seen = self.seen.entry(number).or_default();
                seen.notes
                    .push(format!("filled once, not kept equal: {why}"));
                return Ok(false);
            }
        };
        self.push_rule(number, table, reading, updates);
        Ok(true)
    }

    /// What of the table or of the script speaks against a rule.
    pub(super) fn obstacle(&self, index: usize, table: &Relation) -> Result<Option<String>> {
        if table.kind != 'r' || table.is_partition || table.has_inheritance {
            return Ok(Some(
                "the table is part of a partition or inheritance tree".into(),
            ));
        }
        if self.floor(index).phase != Phase::Expand {
            return Ok(Some(
                "an earlier statement that it builds on ends later".into(),
            ));
        }
        if !identity::has_privs_of(self.caller.role, table.owner) {
            return Ok(Some("only the table's owner can have that".into()));
        }
        let forced: Option<bool> = spi::value(
            "SELECT relforcerowsecurity FROM pg_class WHERE oid = $1",
            &[table.oid.into()],
        )?;
        if forced == Some(true) {
            return Ok(Some(
                "row security is forced on the owner, who could not fill every row".into(),
            ));
        }
        Ok(None)
    }

    /// Every entry of meta.reverse must have been used: a misspelt one would mean "one way".
    pub(super) fn require_reverses_used(&self) -> Result<()> {
        for name in self.meta.reverse.keys() {
            let mut used = false;
            for (oid, ruled) in &self.ruled {
                let table = relation::get(Oid::from(*oid))?;
                let rule = self.steps[ruled.make].step.rule.as_ref();
                used |= rule.is_some_and(|rule| {
                    let after = rule.after.iter().flat_map(|after| &after.forth);
                    rule.back.iter().chain(after).any(|b| {
                        *name == b.column || *name == format!("{}.{}", table.name.name, b.column)
                    })
                });
            }
            if !used {
                return Err(Error::InvalidArgument {
                    problem: "the metadata is not valid".into(),
                    detail: format!("meta.reverse.{name}: no rule of the script reads such a column."),
                    hint: "Name a column that an UPDATE of new columns is computed from, or table.column.".into(),
                });
            }
        }
        Ok(())
    }

    fn push_rule(&mut self, number: i32, table: &Relation, reading: Reading, updates: Vec<usize>) {
        let Reading {
            rule,
            notes,
            read_only,
        } = reading;
        let oid = table.oid.to_u32();
        let facts = table.facts();
        self.seen.entry(number).or_default().notes.extend(notes);
        let first = match self.ruled.remove(&oid) {
            None => true,
            Some(before) => {
                self.stand_again(before);
                false
            }
        };
        let mut reasons = vec![Reason::LockAccessExclusive];
        reasons.extend(read_only.then_some(Reason::BreaksNewClients));
        let target = self.name_now(table).to_string();
        let (make, stood) = match self.adding_step(&updates, table, &rule) {
            Some(make) => {
                let stood = self.steps[make].clone();
                let step = &mut self.steps[make].step;
                let rule = Rule {
                    add: Some(stood.step.sql.clone()),
                    ..rule
                };
                step.kind = StepKind::RuleMake.name().into();
                step.sql = words(&rule);
                step.target.clone_from(&target);
                step.rule = Some(rule);
                step.lock_mode = "ACCESS EXCLUSIVE".into();
                for reason in reasons {
                    if !step.reasons.contains(&reason) {
                        step.reasons.push(reason);
                    }
                }
                (make, Some(stood))
            }
            None => {
                let mut draft =
                    Draft::new(StepKind::RuleMake, Phase::Expand, &target, words(&rule))
                        .lock("ACCESS EXCLUSIVE")
                        .reasons(reasons);
                draft.rule = Some(rule);
                self.push(number, &facts, draft);
                (self.steps.len() - 1, None)
            }
        };
        self.ruled.insert(
            oid,
            Ruled {
                make,
                stood,
                updates,
            },
        );
        if first {
            self.push_work(number, &target, table);
        }
    }

    /// A step that became a rule's is itself again: a later statement makes one rule of both.
    fn stand_again(&mut self, before: Ruled) {
        match before.stood {
            Some(stood) => self.steps[before.make] = stood,
            None => self.steps[before.make].step.kind.clear(),
        }
    }

    pub(super) fn push_work(&mut self, number: i32, target: &str, table: &Relation) {
        let facts = table.facts();
        for draft in work(target, table) {
            self.push(number, &facts, draft);
        }
    }

    /// The step that adds the last of the new columns, if the rule can be made in its transaction: nothing stands between
    /// that the UPDATEs build on but each other.
    fn adding_step(&self, updates: &[usize], table: &Relation, rule: &Rule) -> Option<usize> {
        let make = rule
            .forth
            .iter()
            .filter_map(|a| self.added.get(&(table.oid.to_u32(), a.column.clone())))
            .max()
            .copied()?;
        let step = &self.steps[make];
        let statement = step.statement as usize - 1;
        let fits = step.step.kind == StepKind::Execute.name()
            && step.step.phase == Phase::Expand
            && step.step.settings.is_empty()
            && updates.iter().all(|update| {
                (statement + 1..*update)
                    .all(|i| updates.contains(&i) || self.tie_of(*update, i).is_none())
            });
        fits.then_some(make)
    }
}

/// What a rule does once it is made.
fn work(target: &str, table: &Relation) -> [Draft; 3] {
    let facts = table.facts();
    let estimate = Estimate {
        rows: facts.rows,
        bytes: facts.bytes,
        seconds: 0.0,
    };
    let large = facts.rows >= LONG_ROWS;
    let long: &[Reason] = match large {
        true => &[Reason::LongTransaction],
        false => &[],
    };
    let fill = Draft::new(
        StepKind::RuleFill,
        Phase::Backfill,
        target,
        "fill the new columns of rows that are there, a range of blocks at a time",
    )
    .lock("ROW EXCLUSIVE")
    .reasons(large.then_some(Reason::ReplicationImpact))
    .estimate(estimate)
    .naive("changes all rows in one transaction", long);
    let check = Draft::new(
        StepKind::RuleCheck,
        Phase::Validate,
        target,
        "compare every row with the rule, fill what differs, until nothing does",
    )
    .lock("ACCESS SHARE")
    .estimate(estimate);
    let end = Draft::new(
            StepKind::RuleEnd,
            Phase::Contract,
            target,
            "end the rule, and in the same transaction hide the old columns that it read and the script drops",
        )
        .lock("ACCESS EXCLUSIVE")
        .reasons([Reason::LockAccessExclusive]);
    [fill, check, end]
}

/// The steps of a rule that takes another one back; the last one ends it.
pub fn rule_back(table: &Relation, rule: Rule) -> Vec<Planned> {
    let target = table.name.to_string();
    let mut make = Draft::new(StepKind::RuleMake, Phase::Expand, &target, words(&rule))
        .lock("ACCESS EXCLUSIVE")
        .reasons([Reason::LockAccessExclusive]);
    make.rule = Some(rule);
    let [fill, check, mut end] = work(&target, table);
    end.sql = "end the rule, and in the same transaction drop the columns that it made".into();
    end.reasons.push(Reason::BreaksOldClients);
    [make, fill, check, end]
        .into_iter()
        .map(|draft| planned(1, &table.facts(), draft))
        .collect()
}

/// What a rule does, for people.
pub(super) fn words(rule: &Rule) -> String {
    let add = rule
        .add
        .as_ref()
        .map_or(String::new(), |a| format!("{a}; "));
    let shows: Vec<&str> = rule
        .way_back
        .iter()
        .flat_map(|back| &back.shows)
        .map(|(_, name)| name.as_str())
        .collect();
    let add = match shows.is_empty() {
        true => add,
        false => format!("show {} again; ", shows.join(", ")),
    };
    let forth = expressions(&rule.forth);
    let aside = match rule.sets_aside {
        true => "; a row that it fails on is set aside",
        false => "",
    };
    let aside = match &rule.after {
        Some(after) => format!(
            "{aside}; after the end a trigger keeps {}",
            expressions(&after.forth)
        ),
        None => aside.to_string(),
    };
    match (rule.mechanism, rule.back.is_empty()) {
        (Mechanism::Rule, _) => format!("{add}the server keeps {forth}{aside}"),
        (Mechanism::Trigger, true) => format!("{add}a trigger keeps {forth}{aside}"),
        (Mechanism::Trigger, false) => format!(
            "{add}a trigger keeps {forth} and, where a statement writes these, {}{aside}",
            expressions(&rule.back)
        ),
    }
}
