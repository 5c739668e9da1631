//! The way back of columns that a rule has kept equal, where the old ones were hidden at its end: they are shown again and follow the
//! new ones, both ways, until these go in the transaction in which the rule ends.

use super::naming::hidden_by;
use crate::catalog::column;
use crate::catalog::relation;
use crate::error::{Error, Result};
use crate::model::ident::quote_ident;
use crate::model::rule::{Assignment, Mechanism, Rule, WayBack};
use crate::pg::expression::{self, canonical};
use crate::pg::identity;
use crate::pg::parser::{self, Action, Kind as Parsed};
use crate::pg::xact::{self, End};
use crate::recipe::{self, Planned};
use crate::store::artifact;
use crate::store::step::{Kind, Ran, Step};

/// What takes the columns of a rule back.
pub enum Way {
    /// Nothing was hidden: the new columns go.
    Dropped,
    /// The old ones, of which something else says whether they come back.
    Hidden,
    Reopened(Box<Rule>),
    /// Why they do not.
    Lost(String),
}

/// Of the rule that the step `make` has made.
pub fn of(run: &str, make: &Step, ran: &[Ran]) -> Result<Way> {
    let rule = make
        .rule
        .as_ref()
        .ok_or_else(|| Error::Bug("a step without its rule".into()))?;
    let (mut shows, mut forth, mut reads) = (Vec::new(), Vec::new(), Vec::new());
    for hide in ran.iter().map(|r| &r.step) {
        if hide.kind != Kind::HideColumn || hide.target != make.target {
            continue;
        }
        let (table, name) = hidden_by(hide)?;
        if !rule.sources.contains(&name) {
            continue;
        }
        let source = format!("{table}.{}", quote_ident(&name));
        let hidden = artifact::hidden(run, &source)?;
        let Some((physical, called)) = hidden.and_then(|h| h.physical.zip(h.column)) else {
            return Ok(Way::Hidden);
        };
        if rule.after.is_some() {
            return Ok(Way::Hidden);
        }
        if physical != table {
            return Ok(Way::Lost(format!("{table} is called {physical} since")));
        }
        let Some(back) = rule.back.iter().find(|b| b.column == name) else {
            return Ok(Way::Lost(format!(
                "nothing says what {source} is from the new columns (meta.reverse)"
            )));
        };
        match understood(&physical.to_string(), &called, &back.expression)? {
            Ok(columns) => reads.extend(columns),
            Err(why) => return Ok(Way::Lost(format!("{source} = {}: {why}", back.expression))),
        }
        shows.push((called, name));
        forth.push(back.clone());
    }
    if shows.is_empty() {
        return Ok(Way::Dropped);
    }
    reads.sort_unstable();
    reads.dedup();
    Ok(Way::Reopened(Box::new(Rule {
        mechanism: Mechanism::Trigger,
        add: None,
        forth,
        back: rule.forth.clone(),
        sources: reads,
        exact: true,
        sets_aside: false,
        other_name: false,
        after: None,
        way_back: Some(WayBack {
            shows,
            unmakes: make.revert_sql.iter().cloned().collect(),
        }),
    })))
}

/// The columns that an expression for a hidden column reads, or why it is of no use any more.
fn understood(
    table: &str,
    hidden: &str,
    text: &str,
) -> Result<std::result::Result<Vec<String>, String>> {
    let oid = relation::named(table)?.ok_or_else(|| Error::Bug(format!("no {table}")))?;
    let table = relation::get(oid)?;
    let columns = column::list(oid)?;
    let Some(column) = columns.iter().find(|c| !c.dropped && c.name == hidden) else {
        return Ok(Err("the column is gone".into()));
    };
    let understand = |text: &str| {
        xact::subtransaction(End::Keep, || {
            identity::as_role(table.owner, &canonical(), || {
                expression::understand(oid, column.number, text)
            })
        })
    };
    // A value that is given because none is, is not what somebody has written, if the trigger can tell.
    if !column.expression.is_empty() {
        let constant = understand(&column.expression)
            .is_ok_and(|default| default.immutable && default.sources.is_empty());
        if !constant {
            return Ok(Err("the column has a default that is no constant".into()));
        }
    }
    match understand(text) {
        Ok(found) if !found.immutable => {
            Ok(Err("the expression may give another value each time".into()))
        }
        Ok(found) => Ok(Ok(found
            .sources
            .iter()
            .filter_map(|n| columns.iter().find(|c| c.number == *n))
            .map(|c| c.name.clone())
            .collect())),
        Err(Error::Server(error)) => Ok(Err(error.message)),
        Err(error) => Err(error),
    }
}

/// Whether it only drops columns: with the rule, not behind it, so that nothing is written that nobody keeps.
pub fn drops_columns(sql: &str) -> Result<bool> {
    let statements = parser::parse(sql)?;
    let all = statements.iter().all(|s| match &s.kind {
        Parsed::AlterTable(alter) => alter
            .commands
            .iter()
            .all(|c| c.action == Action::DropColumn),
        _ => false,
    });
    Ok(all && !statements.is_empty())
}

/// Its steps: those before the contract phase, and the last one.
pub fn steps(target: &str, rule: Rule) -> Result<(Vec<Planned>, Planned)> {
    let oid = relation::named(target)?.ok_or_else(|| Error::Bug(format!("no {target}")))?;
    let mut steps = recipe::rule_back(&relation::get(oid)?, rule);
    let end = steps.pop();
    let end = end.ok_or_else(|| Error::Bug("a rule without an end".into()))?;
    Ok((steps, end))
}

/// What goes with the rule, besides what its own step made.
pub fn unmake_too(make: &mut Planned, sql: String) {
    if let Some(back) = make.step.rule.as_mut().and_then(|r| r.way_back.as_mut()) {
        back.unmakes.push(sql);
    }
}

/// Whether a rule brings this column of a table back.
pub fn shows(rule: &Rule, column: &str) -> bool {
    let shows = rule.way_back.iter().flat_map(|back| &back.shows);
    shows.into_iter().any(|(_, name)| name == column)
}

/// What gives the only name of a column its old one back.
pub fn renamed(table: &str, rule: &Rule) -> Result<String> {
    match (rule.forth.first(), rule.sources.first()) {
        (Some(Assignment { column, .. }), Some(old)) => {
            Ok(crate::model::ident::rename_column(table, column, old))
        }
        _ => Err(Error::Bug("another name without a column".into())),
    }
}
