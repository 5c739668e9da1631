//! DROP INDEX: concurrently, at the end: until then it is there for whoever needs it, and nothing has to be taken back.

use super::draft::Draft;
use super::names::Target;
use super::Planner;
use crate::catalog::{index, relation};
use crate::error::{Error, Result};
use crate::model::ident::{quote_ident, QualifiedName};
use crate::model::phase::Phase;
use crate::model::reason::Reason;
use crate::model::risk::Facts;
use crate::pg::maintenance::{DropIndex, Name};
use crate::store::step::Kind as StepKind;

impl Planner<'_> {
    pub(super) fn drop_index(&mut self, number: i32, drop: &DropIndex) -> Result<()> {
        if drop.cascade {
            return Err(Error::Unsupported {
                problem: "DROP INDEX … CASCADE is not supported".into(),
                detail: "The server drops no index concurrently that something depends on.".into(),
                hint: "Drop what depends on the index first.".into(),
            });
        }
        for name in &drop.names {
            self.drop_one(number, drop, name)?;
        }
        Ok(())
    }

    fn drop_one(&mut self, number: i32, drop: &DropIndex, name: &Name) -> Result<()> {
        let written = match &name.schema {
            Some(schema) => QualifiedName::new(schema, &name.name).to_string(),
            None => quote_ident(&name.name),
        };
        let (target, facts) = match self.lookup(name.schema.as_deref(), &name.name)? {
            Target::Existing(oid) => self.droppable(oid, &written)?,
            _ if drop.if_exists => (written, Facts::default()),
            _ => {
                return Err(Error::UndefinedObject {
                    problem: "the index does not exist".into(),
                    detail: format!(
                        "There is no index {written}; search_path is {}.",
                        self.caller.session.search_path
                    ),
                    hint: "Check the spelling, write the schema in front, or IF EXISTS.".into(),
                })
            }
        };
        let if_exists = if drop.if_exists { "IF EXISTS " } else { "" };
        let sql = format!("DROP INDEX CONCURRENTLY {if_exists}{target}");
        let draft = Draft::new(StepKind::Outside, Phase::Contract, target, sql)
            .lock("SHARE UPDATE EXCLUSIVE")
            .outside()
            .reasons([Reason::NotTransactional, Reason::Irreversible])
            .naive("", &[Reason::Irreversible]);
        self.push(number, &facts, draft);
        Ok(())
    }

    /// Its full name, and what is known of its table.
    fn droppable(&self, oid: crate::pg::Oid, written: &str) -> Result<(String, Facts)> {
        let Some((table, kind, constraint)) = index::owner_of(oid)? else {
            return Err(Error::WrongObject {
                problem: "the relation is not an index".into(),
                detail: format!("DROP INDEX {written}."),
                hint: "Name an index.".into(),
            });
        };
        let (table, index) = (relation::get(table)?, relation::get(oid)?);
        self.require_owned(&table)?;
        if let Some(constraint) = constraint {
            return Err(Error::DependentObjects {
                problem: "a constraint stands on the index".into(),
                detail: format!("Constraint \"{constraint}\" of {} needs it.", table.name),
                hint: "ALTER TABLE … DROP CONSTRAINT takes both.".into(),
            });
        }
        if kind == 'I' || index.is_partition {
            return Err(Error::Unsupported {
                problem: "the index of a partitioned table cannot be dropped concurrently".into(),
                detail: format!("{} belongs to a partitioned index, or is one.", index.name),
                hint: "Run the plain DROP INDEX in a maintenance window.".into(),
            });
        }
        Ok((index.name.to_string(), table.facts()))
    }
}
