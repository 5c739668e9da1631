//! What takes each step of a finished migration back, by what it kept when it ran.

use super::rule_back::{self, Way};
use super::{back_text, hand_back, versioning};
use crate::catalog::relation;
use crate::error::{Error, Result};
use crate::model::ident::{quote_ident, rename_column, QualifiedName};
use crate::model::rule::Rule;
use crate::pg::maintenance::Maintenance;
use crate::pg::parser::{self, Kind as Statement, Named};
use crate::recipe::{self, Planned};
use crate::store::step::{Kind, Ran, Step};
use crate::store::{artifact, migration, outside};

/// What takes one step back.
pub enum Piece {
    /// Statements as they were kept.
    Kept(String),
    /// Statements that copy a table, or prove its rows: the planner says how.
    Plain(String),
    /// A step that the engine knows.
    Step(Box<Planned>),
    /// A step that takes away a view of a version: of the release that came with the migration, before all that changes its table;
    /// or of the one before it, at the end.
    Version(Box<Planned>, bool),
    /// A rule that shows old columns again, before anything else; where it stands it ends.
    Rule(String, Box<Rule>),
}

impl Piece {
    fn step(planned: Planned) -> Piece {
        Piece::Step(Box::new(planned))
    }
}

/// The steps that a run of a migration has done, the last one first.
pub struct StepsBack<'a> {
    run: &'a str,
    ran: &'a [Ran],
    /// What takes each rule back, by the step that made it.
    ways: Vec<(&'a Step, Way)>,
    /// What nothing takes back.
    pub lost: Vec<String>,
}

impl<'a> StepsBack<'a> {
    pub fn of(run: &'a str, ran: &'a [Ran]) -> Result<StepsBack<'a>> {
        let made = ran.iter().filter(|r| r.step.kind == Kind::RuleMake);
        // The planner's steps come before those that are kept, and would change what the rule was about.
        let copied = |table: &str| {
            ran.iter().any(|r| {
                matches!(r.step.kind, Kind::RewriteSwap | Kind::RewriteTree)
                    && r.step.target == table
            })
        };
        let ways: Result<Vec<_>> = made
            .map(|one| {
                let way = match rule_back::of(run, &one.step, ran)? {
                    Way::Reopened(_) if copied(&one.step.target) => {
                        Way::Lost("the same migration has copied the table, too".into())
                    }
                    way => way,
                };
                Ok((&one.step, way))
            })
            .collect();
        Ok(StepsBack {
            run,
            ran,
            ways: ways?,
            lost: Vec::new(),
        })
    }

    /// What takes back the rule that a step has made, which is part of it.
    fn rule(&mut self, step: &Step) -> Result<Vec<Piece>> {
        let rule = step
            .rule
            .as_ref()
            .ok_or_else(|| Error::Bug("a step without its rule".into()))?;
        if rule.other_name {
            return Ok(vec![Piece::Kept(rule_back::renamed(&step.target, rule)?)]);
        }
        let way = self.ways.iter().find(|(make, _)| make.step == step.step);
        match way.map(|(_, way)| way) {
            Some(Way::Reopened(back)) => {
                let sql = back.way_back.iter().flat_map(|b| &b.unmakes);
                let sql: Vec<&str> = sql.map(String::as_str).collect();
                return Ok(vec![Piece::Rule(sql.join(";\n"), back.clone())]);
            }
            Some(Way::Lost(why)) => self.lost.push(format!(
                "step {}: what was written to the new columns of {} since: {why}",
                step.step, step.target
            )),
            _ => {}
        }
        let sql = step.revert_sql.clone().filter(|sql| !sql.is_empty());
        Ok(sql.map(Piece::Kept).into_iter().collect())
    }

    pub fn step(&mut self, ran: &Ran) -> Result<Vec<Piece>> {
        let step = &ran.step;
        let sql = step.revert_sql.clone().filter(|sql| !sql.trim().is_empty());
        self.lost.extend(ran.lost.iter().cloned());
        let behind = ran.phase == "contract";
        let kept = |sql: Option<String>| Ok(sql.map(Piece::Kept).into_iter().collect());
        let nothing_takes_it_back = || format!("step {}: {}", step.step, step.sql);
        match step.kind {
            Kind::Direct | Kind::Change => kept(sql),
            Kind::Execute | Kind::LeafAttach | Kind::LeafKeysAttach => {
                if step.revert_sql.is_none() && behind {
                    self.lost.push(nothing_takes_it_back());
                }
                match sql {
                    Some(sql)
                        if back_text::attaches(&sql)? || back_text::adds_value(&step.sql)? =>
                    {
                        Ok(vec![Piece::Plain(sql)])
                    }
                    sql => kept(sql),
                }
            }
            Kind::Data => {
                if behind {
                    self.lost
                        .push(format!("step {}: rows of {}", step.step, step.target));
                }
                Ok(Vec::new())
            }
            Kind::Outside => match sql {
                _ if outside::find(self.run, step.step)?.is_some_and(|row| row.found) => {
                    Ok(Vec::new())
                }
                Some(sql) if back_text::attaches(&sql)? => Ok(vec![Piece::Plain(sql)]),
                Some(sql) if back_text::makes_index(&sql)? => back_text::steps(&step.target, &sql)?
                    .into_iter()
                    .map(|planned| Ok(Piece::step(planned)))
                    .collect(),
                Some(sql) => Ok(vec![Piece::Kept(sql)]),
                None => {
                    if leaves_something(&step.sql)? {
                        self.lost.push(nothing_takes_it_back());
                    }
                    Ok(Vec::new())
                }
            },
            Kind::RewriteSwap | Kind::RewriteTree => {
                let of_tree = self
                    .ran
                    .iter()
                    .any(|r| r.step.kind == Kind::RewriteTree && r.step.sql == step.sql);
                match sql {
                    Some(_) if of_tree && step.kind == Kind::RewriteSwap => Ok(Vec::new()),
                    Some(sql) => Ok(vec![Piece::Plain(sql)]),
                    // A partition follows its table.
                    None if step.revert_sql.is_some() || of_tree || !ran.lost.is_empty() => {
                        Ok(Vec::new())
                    }
                    None => {
                        self.lost.push(nothing_takes_it_back());
                        Ok(Vec::new())
                    }
                }
            }
            Kind::HideColumn | Kind::HideTable => self.recovered(step, sql),
            Kind::RuleMake => self.rule(step),
            Kind::RelaxColumn => Ok(vec![Piece::step(tightened(step))]),
            // What these made went with the swap, or is taken back with what they made it for. Both names are there for the time
            // of a migration only; the way back is the plain statement.
            Kind::RewriteExpand
            | Kind::RewriteInto
            | Kind::RewriteCopy
            | Kind::RewriteIndex
            | Kind::RewriteCheck
            | Kind::RewriteViews
            | Kind::RewriteValidate
            | Kind::LeafIndexes
            | Kind::LeafKeys
            | Kind::RenameBoth
            | Kind::AliasDrop
            | Kind::RuleFill
            | Kind::RuleCheck
            | Kind::RuleEnd => Ok(Vec::new()),
            Kind::AliasMake => kept(sql),
            Kind::RenameFinish => kept(Some(renamed_back(&step.sql)?)),
            Kind::VersionBefore | Kind::VersionAfter => {
                let meta = &migration::get(self.run)?.meta;
                let back = versioning::way_back(self.run, meta, step)?;
                let first = step.kind == Kind::VersionAfter;
                Ok(back
                    .map(|planned| Piece::Version(Box::new(planned), first))
                    .into_iter()
                    .collect())
            }
            Kind::VersionDrop => {
                self.lost.push(format!(
                    "step {}: version {}, whose application was gone",
                    step.step, step.target
                ));
                Ok(Vec::new())
            }
            Kind::HandBatch | Kind::CopyRows => {
                Ok(match hand_back::of(self.run, step, self.ran)? {
                    hand_back::Way::Given(planned) => vec![Piece::Step(planned)],
                    hand_back::Way::Gone => Vec::new(),
                    hand_back::Way::Lost(what) => {
                        self.lost.push(what);
                        Vec::new()
                    }
                })
            }
            kind => {
                self.lost.push(format!(
                    "step {}, {} on {}: the way back of such a step is given, not derived",
                    step.step,
                    kind.name(),
                    step.target
                ));
                Ok(Vec::new())
            }
        }
    }

    /// What was hidden comes back from its artifact, and then what went with it.
    fn recovered(&mut self, step: &Step, parts: Option<String>) -> Result<Vec<Piece>> {
        let parsed = parser::parse(&step.sql)?.into_iter().next().map(|s| s.kind);
        let nothing = || Error::Bug(format!("nothing is hidden by: {}", step.sql));
        let (named, column) = match parsed {
            Some(Statement::AlterTable(alter)) => (
                Named {
                    schema: alter.schema.clone(),
                    name: alter.name.clone(),
                },
                alter.commands.first().and_then(|c| c.column.clone()),
            ),
            Some(Statement::DropTable(drop)) => {
                (drop.tables.first().cloned().ok_or_else(nothing)?, None)
            }
            _ => return Err(nothing()),
        };
        let table = name_of(&named);
        let keeps_old = migration::get(self.run)?.keeps_old;
        let source = match &column {
            Some(column) => format!("{table}.{}", quote_ident(column)),
            None => table.clone(),
        };
        if keeps_old {
            self.lost.push(format!(
                "step {}: {source} comes back by transmute.undo, for as long as meta.keep_old says",
                step.step
            ));
            return Ok(Vec::new());
        }
        let hidden = artifact::hidden(self.run, &source)?
            .ok_or_else(|| Error::Bug(format!("no artifact of {source}")))?;
        let Some(physical) = hidden.physical else {
            self.lost.push(format!(
                "step {}: {source} was kept until {} (meta.keep_artifacts), and is gone",
                step.step, hidden.until
            ));
            return Ok(Vec::new());
        };
        let parted = match relation::named(&physical.to_string())? {
            Some(oid) => relation::get(oid)?.kind == 'p',
            None => false,
        };
        if parted {
            self.lost.push(format!(
            "step {}: {source} is hidden with what its partitions had of their own: the way back is given, not derived",
            step.step
        ));
            return Ok(Vec::new());
        }
        let sql = match (&hidden.column, &column) {
            (Some(hidden), Some(column)) => rename_column(&physical, hidden, column),
            _ => format!(
                "ALTER TABLE {physical} SET SCHEMA {}",
                quote_ident(named.schema.as_deref().unwrap_or_default())
            ),
        };
        let by_rule = column.as_ref().is_some_and(|column| {
            self.ways.iter().any(|(make, way)| match way {
                Way::Reopened(rule) => make.target == step.target && rule_back::shows(rule, column),
                _ => false,
            })
        });
        let mut pieces = match by_rule {
            true => Vec::new(),
            false => vec![Piece::step(recipe::back(0, &source, &sql, Kind::Recover))],
        };
        if let Some(parts) = parts {
            let steps = match back_text::makes_index(&parts)? {
                true => back_text::steps(&table, &parts)?,
                false => vec![recipe::back(0, &table, &parts, Kind::Back)],
            };
            pieces.extend(steps.into_iter().map(Piece::step));
        }
        Ok(pieces)
    }
}

/// NOT NULL again.
fn tightened(step: &Step) -> Planned {
    let mut planned = recipe::back(0, &step.target, &step.sql, Kind::TightenColumn);
    planned.step.revert_sql.clone_from(&step.revert_sql);
    planned
}

fn name_of(named: &Named) -> String {
    match &named.schema {
        Some(schema) => QualifiedName::new(schema, &named.name).to_string(),
        None => quote_ident(&named.name),
    }
}

/// What gives a column its old name.
fn renamed_back(sql: &str) -> Result<String> {
    let parsed = parser::parse(sql)?.into_iter().next().map(|s| s.kind);
    let Some(Statement::RenameColumn(rename)) = parsed else {
        return Err(Error::Bug(format!("not RENAME COLUMN: {sql}")));
    };
    let table = name_of(&rename.table);
    Ok(rename_column(table, &rename.new_name, &rename.column))
}

/// Whether a statement outside of a transaction changes what the catalog says.
fn leaves_something(sql: &str) -> Result<bool> {
    let parsed = parser::parse(sql)?.into_iter().next().map(|s| s.kind);
    Ok(!matches!(
        parsed,
        Some(Statement::Maintenance(
            Maintenance::Vacuum(_) | Maintenance::Reindex(_) | Maintenance::Refresh(_)
        ))
    ))
}
