//! CREATE INDEX: concurrently, outside of a transaction.

use super::draft::Draft;
use super::Planner;
use crate::catalog::relation::{self, Relation};
use crate::error::{Error, Result};
use crate::model::ident::{quote_ident, QualifiedName};
use crate::model::phase::Phase;
use crate::model::plan::Estimate;
use crate::model::reason::Reason;
use crate::model::risk::Facts;
use crate::pg::maintenance::{self, CreateIndex};
use crate::pg::parser::Statement;
use crate::pg::relation as pg_relation;
use crate::rewrite::probe;
use crate::store::step::Kind as StepKind;

/// Rows a second of an index build, for estimates: what this kind of machine did when measured (docs/benchmarks.md).
const ROWS_PER_SECOND: f64 = 1_000_000.0;

impl Planner<'_> {
    pub(super) fn create_index(
        &mut self,
        number: i32,
        statement: &Statement,
        create: &CreateIndex,
    ) -> Result<()> {
        let schema = create.table.schema.as_deref();
        let Some(oid) = self.as_caller(|| pg_relation::resolve(schema, &create.table.name))? else {
            return self.index_of_new_table(number, statement, create);
        };
        let table = relation::get(oid)?;
        self.require_indexable(&table)?;
        let definition = definition_of(statement, create)?;
        // A column that this script adds is not there yet: then the server says only when it runs what is wrong.
        let columns = match self.altered.contains(&table.oid.to_u32()) {
            true => Vec::new(),
            false => probe::index(&table, &statement.text, &self.caller.session)?,
        };
        let name = match &create.name {
            Some(name) => name.clone(),
            None if columns.is_empty() => {
                return Err(Error::Unsupported {
                    problem: "an index without a name on a table that the script changes before"
                        .into(),
                    detail: format!("On {}, line {}.", table.name, statement.line),
                    hint: "Give the index a name.".into(),
                })
            }
            None => pg_relation::choose_index_name(table.oid, &columns, "idx")?,
        };
        let target = QualifiedName::new(&table.name.schema, &name);
        let sql = format!(
            "CREATE {}INDEX CONCURRENTLY {}{} ON {}{definition}",
            if create.unique { "UNIQUE " } else { "" },
            if create.if_not_exists {
                "IF NOT EXISTS "
            } else {
                ""
            },
            quote_ident(&name),
            table.name,
        );
        let facts = table.facts();
        let mut reasons = vec![Reason::NotTransactional];
        reasons.extend(create.unique.then_some(Reason::ConstraintMayFail));
        // A table that is rewritten keeps its indexes until the swap.
        let rewritten = self.rewritten.contains(&oid.to_u32());
        let mut draft = Draft::new(
            StepKind::Outside,
            if rewritten {
                Phase::Contract
            } else {
                Phase::Validate
            },
            target.to_string(),
            sql,
        )
        .lock("SHARE UPDATE EXCLUSIVE")
        .outside()
        .reasons(reasons)
        .estimate(Estimate {
            rows: facts.rows,
            bytes: facts.bytes,
            seconds: facts.rows as f64 / ROWS_PER_SECOND,
        });
        if !rewritten {
            draft = draft.revert(Some(format!("DROP INDEX CONCURRENTLY IF EXISTS {target}")));
        }
        draft = match create.concurrent {
            true => draft.naive("builds the index concurrently", &[Reason::NotTransactional]),
            false => draft.naive(
                "builds the index under SHARE: nobody writes meanwhile",
                &[Reason::LockShare, Reason::FullScanUnderLock],
            ),
        };
        self.push(number, &facts, draft);
        Ok(())
    }

    /// The table is this script's, and empty: the index is made with it, and goes with it.
    fn index_of_new_table(
        &mut self,
        number: i32,
        statement: &Statement,
        create: &CreateIndex,
    ) -> Result<()> {
        let phase = self.made_here(create.table.schema.as_deref(), &create.table.name)?;
        if create.concurrent {
            return Err(Error::Unsupported {
                problem: "CONCURRENTLY on a table that the script makes".into(),
                detail: format!("Line {}.", statement.line),
                hint: "Leave CONCURRENTLY out: the table is empty.".into(),
            });
        }
        let target = create.table.name.clone();
        self.execute(number, statement, target, None, Facts::default(), vec![]);
        self.undone_with_table(phase);
        Ok(())
    }

    fn require_indexable(&self, table: &Relation) -> Result<()> {
        if table.kind == 'm' {
            return self.require_owned(table);
        }
        self.require_alterable(table)?;
        if table.kind == 'p' {
            return Err(Error::Unsupported {
                problem: "indexing a partitioned table online is not supported yet".into(),
                detail: format!("{} is partitioned.", table.name),
                hint: "Index its partitions one by one.".into(),
            });
        }
        Ok(())
    }
}

/// What stands behind the table's name, as written: method, columns, options, predicate.
fn definition_of(statement: &Statement, create: &CreateIndex) -> Result<String> {
    let unread = || Error::Unsupported {
        problem: "the name of the table is written in a way that is not supported".into(),
        detail: format!("CREATE INDEX in line {}.", statement.line),
        hint: "Write it without comments, parentheses and U& escapes: schema.table.".into(),
    };
    let (before, from) = statement
        .text
        .split_at_checked(create.table_at)
        .ok_or_else(unread)?;
    if before.trim_end().ends_with('(') {
        return Err(unread());
    }
    let end = maintenance::end_of_name(from).ok_or_else(unread)?;
    let rest = &from[end..];
    // The old way of saying "with partitions".
    Ok(match rest.trim_start().strip_prefix('*') {
        Some(rest) => rest.to_string(),
        None => rest.to_string(),
    })
}
