//! New columns that a script adds and fills from the row itself: kept equal to the old ones until the end.
//!
//! `ALTER TABLE … ADD COLUMN …; UPDATE … SET column = expression over the row`, without WHERE, says what the new columns
//! are. Who reads the new shape needs them right for every row, also those that the old application writes meanwhile; so
//! it becomes a rule, a fill of the rows that are there, a check of every row, and an end.

use super::draft::Draft;
use super::{Planned, Planner};
use crate::catalog::column::Column;
use crate::catalog::relation::Relation;
use crate::catalog::{column, relation};
use crate::dualwrite::fill::expressions;
use crate::error::{Error, Result};
use crate::model::ident::quote_ident;
use crate::model::phase::Phase;
use crate::model::plan::Estimate;
use crate::model::reason::Reason;
use crate::model::rule::{Assignment, Mechanism, Rule};
use crate::pg::expression::{self, canonical, Assigned};
use crate::pg::generated::{self, Generation};
use crate::pg::parser::{Action, Kind, Statement};
use crate::pg::xact::{self, End};
use crate::pg::{identity, Oid};
use crate::rewrite::probe;
use crate::store::step::Kind as StepKind;

/// From here a fill is something to tell replicas of.
const LONG_ROWS: i64 = 100_000;

/// The rule of one table in the plan.
pub(super) struct Ruled {
    /// Its step, and that step as it stood before it was made the rule's; `None`: it was pushed for the rule.
    make: usize,
    stood: Option<Planned>,
    /// The UPDATE statements it is made of, by their places in the script.
    updates: Vec<usize>,
}

/// What was understood of the statements of a rule.
struct Reading {
    rule: Rule,
    /// Why a mechanism was chosen, or what it means.
    notes: Vec<String>,
    /// The script drops a column, and new applications cannot write the ones that replace it.
    read_only: bool,
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
    fn obstacle(&self, index: usize, table: &Relation) -> Result<Option<String>> {
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
        let forced: Option<bool> = crate::pg::spi::value(
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

    /// Understands the UPDATEs of a rule on an empty copy of the table that has the new columns.
    fn read(
        &self,
        updates: &[usize],
        table: &Relation,
    ) -> Result<std::result::Result<Reading, String>> {
        let last = updates.last().copied().unwrap_or(0);
        let earlier = self.earlier(table.oid, last, &[]);
        let session = self.caller.session.clone();
        let needed = self.made_for(updates);
        let made = || {
            needed.iter().try_for_each(|i| {
                self.as_caller(|| crate::pg::utility::run(&self.statements[*i].text))
            })
        };
        probe::on_copy(table, &earlier, &session, made, |copy| {
            let mut assigned: Vec<Assigned> = Vec::new();
            for i in updates {
                let text = &self.statements[*i].text;
                let found =
                    identity::as_role(table.owner, &session, || expression::of_update(text, copy))?;
                match found {
                    Ok(found) => assigned.extend(found),
                    Err(why) => return Ok(Err(why.to_string())),
                }
            }
            let columns = column::list(copy)?;
            if let Some(why) = unfit(&assigned, &columns) {
                return Ok(Err(why));
            }
            self.choose(table, copy, last, &assigned, &columns).map(Ok)
        })
    }

    /// The rule that the assignments make: which way, by which mechanism.
    fn choose(
        &self,
        table: &Relation,
        copy: Oid,
        index: usize,
        assigned: &[Assigned],
        columns: &[Column],
    ) -> Result<Reading> {
        let named = |number: i16| columns.iter().find(|c| c.number == number);
        let mut sources: Vec<&Column> = Vec::new();
        for number in assigned.iter().flat_map(|a| &a.expression.sources) {
            if let Some(column) =
                named(*number).filter(|c| !sources.iter().any(|s| s.number == c.number))
            {
                sources.push(column);
            }
        }
        let dropped = self.dropped_later(table.oid, index);
        let back = self.way_back(table, copy, assigned, &sources, &dropped)?;
        let sets_aside = self.meta.on_write_error.as_deref() == Some("dead_letter");
        let forth: Vec<Assignment> = assigned
            .iter()
            .map(|a| Assignment {
                column: a.name.clone(),
                expression: a.expression.text.clone(),
            })
            .collect();
        let forced = self.meta.dual_write.as_deref();
        let by_server = match (&back[..], sets_aside) {
            (_, true) => Err("the server cannot set a row aside".to_string()),
            ([_, ..], _) if forced != Some("rule") || self.reverses(table) => {
                Err("the server computes one way only".to_string())
            }
            _ => match assigned.iter().find(|a| has_default(a, columns)) {
                Some(one) => Err(format!("{} has a default", one.name)),
                None => self.try_generated(table, copy, assigned)?,
            },
        };
        let mechanism = match (&by_server, forced) {
            (_, Some("trigger")) | (Err(_), None) => Mechanism::Trigger,
            (Ok(()), _) => Mechanism::Rule,
            (Err(why), _) => {
                return Err(Error::Unsupported {
                    problem: "the server cannot keep the new columns equal to the old ones".into(),
                    detail: format!("On {}: {why}.", table.name),
                    hint: "meta {\"dual_write\": \"trigger\"} does, or leave dual_write out."
                        .into(),
                });
            }
        };
        let back = match mechanism {
            Mechanism::Rule => Vec::new(),
            Mechanism::Trigger => back,
        };
        let mut notes = Vec::new();
        if let (Mechanism::Trigger, None, Err(why)) = (mechanism, forced, &by_server) {
            notes.push(format!("by a trigger: {why}"));
        }
        let read_only = back.is_empty();
        if read_only {
            notes.push(
                "the new columns follow the old ones and cannot be written until the end; meta.reverse says what an old \
                 column is from the new ones, then both can"
                    .into(),
            );
        }
        Ok(Reading {
            read_only: read_only && sources.iter().any(|s| dropped.contains(&s.name)),
            rule: Rule {
                mechanism,
                add: None,
                forth,
                back,
                sources: sources.iter().map(|c| c.name.clone()).collect(),
                exact: assigned.iter().all(|a| a.expression.immutable),
                sets_aside,
                other_name: false,
            },
            notes,
        })
    }

    /// Whether the server takes the expressions as generated columns: tried.
    fn try_generated(
        &self,
        table: &Relation,
        copy: Oid,
        assigned: &[Assigned],
    ) -> Result<std::result::Result<(), String>> {
        let tried = xact::subtransaction(End::Undo, || {
            identity::as_role(table.owner, &canonical(), || {
                assigned.iter().try_for_each(|a| {
                    generated::set(copy, a.column, Generation::Stored, &a.expression.text)
                })
            })
        });
        match tried {
            Ok(()) => Ok(Ok(())),
            Err(Error::Server(error)) => Ok(Err(error.message)),
            Err(error) => Err(error),
        }
    }

    /// What the old columns are from the new ones: as meta.reverse says, or turned round where the new column is the old one
    /// in a wider type; of columns that the script drops all, or none.
    fn way_back(
        &self,
        table: &Relation,
        copy: Oid,
        assigned: &[Assigned],
        sources: &[&Column],
        dropped: &[String],
    ) -> Result<Vec<Assignment>> {
        let mut back = Vec::new();
        let mut lacking = Vec::new();
        for source in sources {
            let given = self.reverse_of(table, &source.name);
            if given.is_none() && !dropped.contains(&source.name) {
                continue;
            }
            let understand = |text: &str| {
                identity::as_role(table.owner, &self.caller.session, || {
                    expression::understand(copy, source.number, text)
                })
            };
            let found = match given {
                Some(text) => {
                    Some(understand(text).map_err(|error| of_reverse(error, &source.name))?)
                }
                None => assigned
                    .iter()
                    .find(|a| a.expression.copies == Some(source.number))
                    .and_then(|a| {
                        let plain = quote_ident(&a.name);
                        let cast = format!("{plain}::{}", source.type_name);
                        [plain, cast].iter().find_map(|text| {
                            xact::subtransaction(End::Keep, || understand(text)).ok()
                        })
                    }),
            };
            match found {
                Some(expression) if expression.volatile => {
                    return Err(Error::InvalidArgument {
                        problem: "the metadata is not valid".into(),
                        detail: format!(
                            "meta.reverse.{}: gives another value each time.",
                            source.name
                        ),
                        hint: "Write an expression over the new columns.".into(),
                    });
                }
                Some(expression) => back.push(Assignment {
                    column: source.name.clone(),
                    expression: expression.text,
                }),
                None => lacking.push(source.name.clone()),
            }
        }
        if lacking.is_empty() {
            return Ok(back);
        }
        if self.reverses(table) {
            return Err(Error::InvalidArgument {
                problem: "the metadata is not valid".into(),
                detail: format!(
                    "meta.reverse: says nothing of {}, which the script drops as well.",
                    lacking.join(", ")
                ),
                hint: "Say of each old column what it is from the new ones.".into(),
            });
        }
        Ok(Vec::new())
    }

    /// What meta.reverse says of a column, by its name or with the table's in front.
    fn reverse_of(&self, table: &Relation, column: &str) -> Option<&str> {
        let reverse = &self.meta.reverse;
        reverse
            .get(&format!("{}.{column}", table.name.name))
            .or_else(|| reverse.get(column))
            .map(String::as_str)
    }

    /// Whether meta.reverse speaks of columns of this table.
    fn reverses(&self, table: &Relation) -> bool {
        column::list(table.oid).is_ok_and(|columns| {
            columns
                .iter()
                .any(|c| !c.dropped && self.reverse_of(table, &c.name).is_some())
        })
    }

    /// Every entry of meta.reverse must have been used: a misspelt one would mean "one way".
    pub(super) fn require_reverses_used(&self) -> Result<()> {
        for name in self.meta.reverse.keys() {
            let mut used = false;
            for (oid, ruled) in &self.ruled {
                let table = relation::get(Oid::from(*oid))?;
                let rule = self.steps[ruled.make].step.rule.as_ref();
                used |= rule.is_some_and(|rule| {
                    rule.back.iter().any(|b| {
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

    /// Columns of a table that later statements of the script drop.
    fn dropped_later(&self, table: Oid, index: usize) -> Vec<String> {
        self.by_table
            .get(&table)
            .into_iter()
            .flatten()
            .filter(|i| **i > index)
            .filter_map(|i| match &self.statements[*i].kind {
                Kind::AlterTable(alter) => Some(&alter.commands),
                _ => None,
            })
            .flatten()
            .filter(|c| c.action == Action::DropColumn)
            .filter_map(|c| c.column.clone())
            .collect()
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
        let (make, stood) = match self.adding_step(number as usize - 1, table, &rule) {
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

    fn push_work(&mut self, number: i32, target: &str, table: &Relation) {
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
        self.push(number, &facts, fill);
        let check = Draft::new(
            StepKind::RuleCheck,
            Phase::Validate,
            target,
            "compare every row with the rule, fill what differs, until nothing does",
        )
        .lock("ACCESS SHARE")
        .estimate(estimate);
        self.push(number, &facts, check);
        let end = Draft::new(
            StepKind::RuleEnd,
            Phase::Contract,
            target,
            "end the rule, and in the same transaction hide the old columns that it read and the script drops",
        )
        .lock("ACCESS EXCLUSIVE")
        .reasons([Reason::LockAccessExclusive]);
        self.push(number, &facts, end);
    }

    /// The step that adds the last of the new columns, if the rule can be made in its transaction: nothing stands between
    /// that the UPDATE builds on.
    fn adding_step(&self, update: usize, table: &Relation, rule: &Rule) -> Option<usize> {
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
            && (statement + 1..update).all(|i| self.tie_of(update, i).is_none());
        fits.then_some(make)
    }

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

fn has_default(assigned: &Assigned, columns: &[Column]) -> bool {
    columns
        .iter()
        .any(|c| c.number == assigned.column && !c.expression.is_empty())
}

/// What of the assignments themselves makes no rule.
fn unfit(assigned: &[Assigned], columns: &[Column]) -> Option<String> {
    for one in assigned {
        let Some(column) = columns.iter().find(|c| c.number == one.column) else {
            return Some(format!("there is no column {}", one.name));
        };
        if !column.generated.is_empty() || !column.identity.is_empty() {
            return Some(format!("{} is computed by the server itself", one.name));
        }
        if one.expression.volatile {
            return Some(format!("the value of {} is another each time", one.name));
        }
        if one.expression.sources.is_empty() {
            return Some(format!("{} does not depend on the row", one.name));
        }
        if assigned.iter().filter(|a| a.column == one.column).count() > 1 {
            return Some(format!("{} is set twice", one.name));
        }
        for number in &one.expression.sources {
            let Some(read) = columns.iter().find(|c| c.number == *number) else {
                return Some("it reads a column that is not there".into());
            };
            if !read.generated.is_empty() {
                return Some(format!("it reads {}, which is generated", read.name));
            }
            if assigned.iter().any(|a| a.column == *number) {
                return Some(format!("it reads {}, which it sets", read.name));
            }
        }
    }
    None
}

fn of_reverse(error: Error, column: &str) -> Error {
    Error::InvalidArgument {
        problem: "the metadata is not valid".into(),
        detail: format!(
            "meta.reverse.{column}: {}{}",
            error,
            error.detail().map_or(String::new(), |d| format!(". {d}"))
        ),
        hint: "Write an expression over the new columns, of the type of the old one.".into(),
    }
}

/// What a rule does, for people.
fn words(rule: &Rule) -> String {
    let add = rule
        .add
        .as_ref()
        .map_or(String::new(), |a| format!("{a}; "));
    let forth = expressions(&rule.forth);
    let aside = match rule.sets_aside {
        true => "; a row that it fails on is set aside",
        false => "",
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
