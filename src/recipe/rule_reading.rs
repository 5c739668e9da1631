//! What an UPDATE of new columns says, which way it can go, and by which mechanism: asked of the server, on an empty copy of
//! the table that has the new columns.

use super::Planner;
use crate::catalog::column::{self, Column};
use crate::catalog::relation::Relation;
use crate::error::{Error, Result};
use crate::model::ident::quote_ident;
use crate::model::rule::{Assignment, Mechanism, Rule};
use crate::pg::expression::{self, canonical, Assigned};
use crate::pg::generated::{self, Generation};
use crate::pg::parser::{Action, Kind};
use crate::pg::xact::{self, End};
use crate::pg::{identity, utility, Oid};
use crate::rewrite::probe;

/// What was understood of the statements of a rule.
pub(super) struct Reading {
    pub rule: Rule,
    /// Why a mechanism was chosen, or what it means.
    pub notes: Vec<String>,
    /// The script drops a column, and new applications cannot write the ones that replace it.
    pub read_only: bool,
}

/// What an old column is from the new ones.
struct Turned {
    assignment: Assignment,
    /// Columns that it reads.
    reads: Vec<i16>,
    immutable: bool,
}

impl Planner<'_> {
    /// Understands the UPDATEs of a rule on an empty copy of the table that has the new columns.
    pub(super) fn read(
        &self,
        updates: &[usize],
        table: &Relation,
    ) -> Result<std::result::Result<Reading, String>> {
        let last = updates.last().copied().unwrap_or(0);
        let earlier = self.earlier(table.oid, last, &[]);
        let session = self.caller.session.clone();
        let needed = self.made_for(updates);
        let made = || {
            needed
                .iter()
                .try_for_each(|i| self.as_caller(|| utility::run(&self.statements[*i].text)))
        };
        probe::on_copy(table, &earlier, &session, made, |copy| {
            let texts: Vec<&str> = updates
                .iter()
                .map(|i| self.statements[*i].text.as_str())
                .collect();
            let found = identity::as_role(table.owner, &session, || {
                expression::of_updates(&texts, copy)
            })?;
            let assigned = match found {
                Ok(assigned) => assigned,
                Err(why) => return Ok(Err(why)),
            };
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
        let back = self.turned_round(table, copy, assigned, &sources, &dropped)?;
        let after = self.after_the_end(table, &back, &sources, &dropped, columns)?;
        let keeps = after.is_some();
        let back: Vec<Assignment> = back.into_iter().map(|b| b.assignment).collect();
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
            ([_, ..], _) if forced != Some("rule") || self.reverses(table) && !keeps => {
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
                after: after.map(|rule| Box::new(Rule { sets_aside, ..rule })),
                way_back: None,
            },
            notes,
        })
    }

    /// With `meta.keep_old`: what keeps old columns that the script drops equal to the new ones when they are hidden.
    fn after_the_end(
        &self,
        table: &Relation,
        back: &[Turned],
        sources: &[&Column],
        dropped: &[String],
        columns: &[Column],
    ) -> Result<Option<Rule>> {
        if self.meta.keep_old.is_none() {
            return Ok(None);
        }
        let refuse = |detail: String, hint: &str| {
            Err(Error::Unsupported {
                problem: "old columns cannot be kept current after the end".into(),
                detail,
                hint: hint.into(),
            })
        };
        let name_of = |number: i16| columns.iter().find(|c| c.number == number).map(|c| &c.name);
        let is_dropped = |number: i16| name_of(number).is_some_and(|n| dropped.contains(n));
        for turned in back {
            let column = &turned.assignment.column;
            if !dropped.contains(column) {
                return refuse(
                    format!("meta.reverse says of {column} of {} what it is from the new columns, and the script does not drop it.", table.name),
                    "Drop it, or leave meta.keep_old out: nothing keeps it equal after the end.",
                );
            }
            if turned.reads.iter().any(|n| is_dropped(*n)) {
                return refuse(
                    format!("meta.reverse.{column} reads a column that the script drops."),
                    "Write an expression over columns that stay, or leave meta.keep_old out.",
                );
            }
        }
        let lacking = sources.iter().find(|s| {
            dropped.contains(&s.name) && !back.iter().any(|b| b.assignment.column == s.name)
        });
        if let Some(lacking) = lacking {
            return refuse(
                format!("Nothing says what {} of {} is from the new columns.", lacking.name, table.name),
                "Say it: meta => '{\"reverse\": {\"column\": \"expression over the new columns\"}, …}', or leave meta.keep_old out.",
            );
        }
        if back.is_empty() {
            return Ok(None);
        }
        let mut reads: Vec<String> = Vec::new();
        for name in back
            .iter()
            .flat_map(|b| &b.reads)
            .filter_map(|n| name_of(*n))
        {
            if !reads.contains(name) {
                reads.push(name.clone());
            }
        }
        Ok(Some(Rule {
            mechanism: Mechanism::Trigger,
            add: None,
            forth: back.iter().map(|b| b.assignment.clone()).collect(),
            back: Vec::new(),
            sources: reads,
            exact: back.iter().all(|b| b.immutable),
            sets_aside: false,
            other_name: false,
            after: None,
            way_back: None,
        }))
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
    fn turned_round(
        &self,
        table: &Relation,
        copy: Oid,
        assigned: &[Assigned],
        sources: &[&Column],
        dropped: &[String],
    ) -> Result<Vec<Turned>> {
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
                Some(expression) => back.push(Turned {
                    assignment: Assignment {
                        column: source.name.clone(),
                        expression: expression.text,
                    },
                    reads: expression.sources,
                    immutable: expression.immutable,
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
    pub(super) fn reverse_of(&self, table: &Relation, column: &str) -> Option<&str> {
        let reverse = &self.meta.reverse;
        reverse
            .get(&format!("{}.{column}", table.name.name))
            .or_else(|| reverse.get(column))
            .map(String::as_str)
    }

    /// Whether meta.reverse speaks of columns of this table.
    pub(super) fn reverses(&self, table: &Relation) -> bool {
        column::list(table.oid).is_ok_and(|columns| {
            columns
                .iter()
                .any(|c| !c.dropped && self.reverse_of(table, &c.name).is_some())
        })
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
