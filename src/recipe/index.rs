//! CREATE INDEX: concurrently, outside of a transaction.

use super::draft::Draft;
use super::leaves::PartitionedIndex;
use super::names::Target;
use super::Planner;
use crate::catalog::relation::{self, Relation};
use crate::error::{Error, Result};
use crate::model::ident::{quote_ident, QualifiedName};
use crate::model::phase::Phase;
use crate::model::plan::Estimate;
use crate::model::reason::Reason;
use crate::pg::maintenance::{CreateIndex, Maintenance};
use crate::pg::parser::{Kind, Statement};
use crate::pg::relation as pg_relation;
use crate::rewrite::probe;
use crate::store::step::Kind as StepKind;

impl Planner<'_> {
    pub(super) fn create_index(
        &mut self,
        number: i32,
        statement: &Statement,
        create: &CreateIndex,
    ) -> Result<()> {
        let schema = create.table.schema.as_deref();
        let oid = match self.lookup(schema, &create.table.name)? {
            Target::Existing(oid) => oid,
            Target::New | Target::Nothing => return Err(self.undefined(schema, &create.table.name)),
        };
        let table = relation::get(oid)?;
        self.require_indexable(&table)?;
        let (written, definition) = create.parts(&statement.text)?;
        // A table that this script renames is known by its new name when its turn comes.
        let on = match table.name.name == create.table.name {
            true => table.name.to_string(),
            false => written,
        };
        let name = self.index_name(number, statement, create, &table)?;
        let target = QualifiedName::new(&table.name.schema, &name);
        if table.kind == 'p' {
            let new = PartitionedIndex {
                name,
                on,
                definition,
            };
            return self.index_of_partitions(number, create, &table, &new);
        }
        let sql = format!(
            "CREATE {}INDEX CONCURRENTLY {}{} ON {on}{definition}",
            if create.unique { "UNIQUE " } else { "" },
            if create.if_not_exists {
                "IF NOT EXISTS "
            } else {
                ""
            },
            quote_ident(&name),
        );
        let facts = table.facts();
        let mut reasons = vec![Reason::NotTransactional];
        reasons.extend(create.unique.then_some(Reason::ConstraintMayFail));
        let draft = Draft::new(StepKind::Outside, Phase::Validate, target.to_string(), sql)
            .lock("SHARE UPDATE EXCLUSIVE")
            .outside()
            .reasons(reasons)
            .estimate(Estimate {
                rows: facts.rows,
                bytes: facts.bytes,
                seconds: 0.0,
            })
            .revert(Some(format!("DROP INDEX CONCURRENTLY IF EXISTS {target}")));
        self.push(number, &facts, draft);
        Ok(())
    }

    /// The name as given, or the one the server would choose now.
    fn index_name(
        &self,
        number: i32,
        statement: &Statement,
        create: &CreateIndex,
        table: &Relation,
    ) -> Result<String> {
        // What this script changes of the table is not there yet: then the server says only when it runs what is wrong.
        let changed = self.statements[..(number - 1) as usize].iter().any(|s| {
            !matches!(s.kind, Kind::Maintenance(_))
                && s.effects.alters.iter().any(|o| o.name == create.table.name)
        });
        let unknown = || Error::Unsupported {
            problem: "the name of an index cannot be chosen before the script runs".into(),
            detail: format!("On {}, line {}.", table.name, statement.line),
            hint: "Give the index a name.".into(),
        };
        let columns = match changed || table.name.name != create.table.name {
            true => return create.name.clone().ok_or_else(unknown),
            false => probe::index(table, &statement.text, &self.caller.session)?.columns,
        };
        if let Some(name) = &create.name {
            return Ok(name.clone());
        }
        let name = pg_relation::choose_index_name(table.oid, &columns, "idx", false)?;
        let target = QualifiedName::new(&table.name.schema, &name).to_string();
        match self.steps.iter().any(|p| p.step.target == target) {
            true => Err(unknown()),
            false => Ok(name),
        }
    }

    fn require_indexable(&self, table: &Relation) -> Result<()> {
        if table.kind == 'm' {
            return self.require_owned(table);
        }
        self.require_alterable(table)
    }
}

/// A table of this script is empty, and its statements run in transactions.
pub(super) fn require_plain(statement: &Statement) -> Result<()> {
    match &statement.kind {
        Kind::Maintenance(Maintenance::CreateIndex(create)) if create.concurrent => {
            Err(Error::Unsupported {
                problem: "CONCURRENTLY on a table that the script makes".into(),
                detail: format!("Line {}.", statement.line),
                hint: "Leave CONCURRENTLY out: the table is empty.".into(),
            })
        }
        _ => Ok(()),
    }
}
