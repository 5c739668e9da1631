//! The way back of rows that a person's own batches, or a copy, have written: what was given for it, or the objects that the same
//! migration has made and takes away again, with all that is in them.

use super::execute::owner_role;
use crate::catalog::relation;
use crate::error::Result;
use crate::model::ident::QualifiedName;
use crate::model::token;
use crate::pg::parser::{self, Action, Data, Kind, Verb};
use crate::pg::relation as pg_relation;
use crate::pg::{identity, Oid};
use crate::recipe::{self, Planned};
use crate::store::migration;
use crate::store::step::{Kind as StepKind, Ran, Step};

/// What takes the rows back.
pub enum Way {
    Given(Box<Planned>),
    /// They go with what the migration has made.
    Gone,
    /// Nothing, and what that leaves.
    Lost(String),
}

/// Of the step that has written them, in a run of a migration.
pub fn of(run: &str, step: &Step, ran: &[Ran]) -> Result<Way> {
    if let Some(sql) = step.revert_sql.as_ref().filter(|s| !s.trim().is_empty()) {
        // With the names and settings of register, as on the way back before the end.
        let given = recipe::back(0, &step.target, sql, StepKind::Execute);
        return Ok(Way::Given(Box::new(given)));
    }
    Ok(match step.kind {
        StepKind::CopyRows => Way::Lost(format!(
            "step {}: rows that were copied to {}, for which no rollback was given",
            step.step, step.target
        )),
        _ if goes_with_it(run, &step.sql, ran)? => Way::Gone,
        _ => Way::Lost(format!(
            "step {}: rows that its batches have written, for which no rollback was given",
            step.step
        )),
    })
}

/// Whether all that a batch writes is in tables, or columns, that are dropped again.
fn goes_with_it(run: &str, batch: &str, ran: &[Ran]) -> Result<bool> {
    let statements = parser::parse(batch)?;
    let [one] = statements.as_slice() else {
        return Ok(false);
    };
    let Kind::Data(data) = &one.kind else {
        return Ok(false); // a function: only it knows
    };
    let [(schema, name)] = data.targets.as_slice() else {
        return Ok(false);
    };
    if writes_more(&one.text) {
        return Ok(false);
    }
    let migration = migration::get(run)?;
    let table: Option<Oid> =
        identity::as_role(owner_role(&migration)?, &migration.session, || {
            pg_relation::resolve(schema.as_deref(), name)
        })?;
    match table {
        Some(table) => drops(&relation::get(table)?.name, data, ran),
        None => Ok(false),
    }
}

/// Whether a statement writes somewhere else, too, in its WITH.
fn writes_more(text: &str) -> bool {
    let words: Vec<String> = token::tokens(text)
        .into_iter()
        .filter(|t| t.kind == token::Kind::Word)
        .map(|t| text[t.start..t.end].to_lowercase())
        .collect();
    let verbs = words.iter().enumerate().filter(|(i, word)| {
        let before = i.checked_sub(1).map(|i| words[i].as_str());
        // FOR UPDATE locks, and DO UPDATE is a part of INSERT.
        ["insert", "update", "delete", "merge"].contains(&word.as_str())
            && !matches!(before, Some("for" | "key" | "do"))
    });
    verbs.count() > 1
}

/// Whether the way back of the other steps drops the table, or all columns that an UPDATE sets.
fn drops(table: &QualifiedName, data: &Data, ran: &[Ran]) -> Result<bool> {
    let is_it = |schema: &Option<String>, name: &String| {
        schema.as_ref() == Some(&table.schema) && *name == table.name
    };
    let mut columns = Vec::new();
    for sql in ran.iter().filter_map(|r| r.step.revert_sql.as_ref()) {
        for statement in parser::parse(sql)? {
            match statement.kind {
                Kind::DropTable(drop) if drop.tables.iter().any(|t| is_it(&t.schema, &t.name)) => {
                    return Ok(true);
                }
                Kind::AlterTable(alter) if is_it(&alter.schema, &alter.name) => {
                    let dropped = alter.commands.into_iter();
                    columns.extend(
                        dropped
                            .filter(|c| c.action == Action::DropColumn)
                            .filter_map(|c| c.column),
                    );
                }
                _ => {}
            }
        }
    }
    Ok(data.verb == Verb::Update
        && !data.columns.is_empty()
        && data.columns.iter().all(|c| columns.contains(c)))
}

#[cfg(test)]
mod tests {
    use super::writes_more;

    #[test]
    fn what_a_statement_writes_besides_is_seen() {
        for (text, more) in [
            (
                "INSERT INTO a SELECT * FROM b FOR UPDATE SKIP LOCKED",
                false,
            ),
            (
                "INSERT INTO a SELECT 1 ON CONFLICT (id) DO UPDATE SET n = 1",
                false,
            ),
            ("UPDATE a SET x = 'delete' /* insert */", false),
            ("SELECT 1 FROM a FOR NO KEY UPDATE", false),
            (
                "WITH gone AS (DELETE FROM b RETURNING *) INSERT INTO a SELECT * FROM gone",
                true,
            ),
            (
                "MERGE INTO a USING b ON a.id = b.id WHEN MATCHED THEN DELETE",
                true,
            ),
        ] {
            assert_eq!(writes_more(text), more, "{text}");
        }
    }
}
