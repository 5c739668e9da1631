//! REINDEX: concurrently. It changes nothing that would have to be taken back.

use super::draft::Draft;
use super::names::Target;
use super::Planner;
use crate::catalog::{index, relation};
use crate::error::{Error, Result};
use crate::model::ident::quote_ident;
use crate::model::phase::Phase;
use crate::model::plan::Estimate;
use crate::model::reason::Reason;
use crate::model::risk::Facts;
use crate::pg::maintenance::{Reindex, ReindexTarget};
use crate::pg::parser::Statement;
use crate::pg::spi;
use crate::store::step::Kind as StepKind;

impl Planner<'_> {
    pub(super) fn reindex(
        &mut self,
        number: i32,
        statement: &Statement,
        reindex: &Reindex,
    ) -> Result<()> {
        if !reindex.options.is_empty() || reindex.target == ReindexTarget::Database {
            return Err(Error::Unsupported {
                problem: "there is no online recipe for this form of REINDEX".into(),
                detail: format!(
                    "Line {}: REINDEX SYSTEM, DATABASE and TABLESPACE are left to a person.",
                    statement.line
                ),
                hint: "REINDEX INDEX, TABLE or SCHEMA.".into(),
            });
        }
        let (what, target, facts) = match reindex.target {
            ReindexTarget::Schema => {
                let name = &reindex.name.name;
                self.require_schema(name)?;
                ("SCHEMA", quote_ident(name), Facts::default())
            }
            _ => self.reindexed_relation(reindex)?,
        };
        let sql = format!("REINDEX {what} CONCURRENTLY {target}");
        let draft = Draft::new(StepKind::Outside, Phase::Validate, target, sql)
            .lock("SHARE UPDATE EXCLUSIVE")
            .outside()
            .reasons([Reason::NotTransactional, Reason::DiskSpace])
            .estimate(Estimate {
                rows: facts.rows,
                bytes: facts.bytes,
                seconds: 0.0,
            });
        self.push(number, &facts, draft);
        Ok(())
    }

    fn reindexed_relation(&self, reindex: &Reindex) -> Result<(&'static str, String, Facts)> {
        let (schema, name) = (reindex.name.schema.as_deref(), &reindex.name.name);
        let oid = match self.lookup(schema, name)? {
            Target::Existing(oid) => oid,
            Target::New | Target::Nothing => return Err(self.undefined(schema, name)),
        };
        let relation = relation::get(oid)?;
        let (what, table) = match (reindex.target, index::owner_of(oid)?) {
            (ReindexTarget::Index, Some((table, ..))) => ("INDEX", relation::get(table)?),
            (ReindexTarget::Table, None) => ("TABLE", relation.clone()),
            _ => {
                return Err(Error::WrongObject {
                    problem: "the relation is not what REINDEX names it".into(),
                    detail: format!("REINDEX of {}.", relation.name),
                    hint: "REINDEX INDEX an index, REINDEX TABLE a table.".into(),
                })
            }
        };
        match table.kind {
            'm' => self.require_owned(&table)?,
            _ => self.require_alterable(&table)?,
        }
        Ok((what, relation.name.to_string(), table.facts()))
    }

    /// The schema is there, and the caller's.
    fn require_schema(&self, name: &str) -> Result<()> {
        let owned: Option<bool> = spi::first(
            "SELECT pg_has_role($2, nspowner, 'USAGE') AND nspname !~ '^pg_' FROM pg_namespace WHERE nspname = $1::name",
            &[name.into(), self.caller.role.into()],
            |row| row.need(1),
        )?;
        match owned {
            Some(true) => Ok(()),
            Some(false) => Err(Error::Privilege {
                problem: "must be owner of the schema".into(),
                detail: format!("REINDEX SCHEMA {}.", quote_ident(name)),
                hint: "Register it as the owner of the schema.".into(),
            }),
            None => Err(Error::UndefinedObject {
                problem: "the schema does not exist".into(),
                detail: format!("There is no schema {}.", quote_ident(name)),
                hint: "Check the spelling.".into(),
            }),
        }
    }
}
