//! DROP INDEX: concurrently, at the end: until then it is there for whoever needs it, and nothing has to be taken back.

use super::draft::Draft;
use super::names::Target;
use super::Planner;
use crate::catalog::{index, partition, relation};
use crate::error::{Error, Result};
use crate::model::ident::{quote_ident, QualifiedName};
use crate::model::lock::Mode;
use crate::model::phase::Phase;
use crate::model::reason::Reason;
use crate::model::risk::Facts;
use crate::pg::maintenance::{DropIndex, Name};
use crate::store::step::Kind as StepKind;

/// An index that can be dropped.
struct Droppable {
    name: String,
    facts: Facts,
    /// The table, where the index is that of a partitioned one.
    parted: Option<crate::pg::Oid>,
}

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
        let found = match self.lookup(name.schema.as_deref(), &name.name)? {
            Target::Existing(oid) => self.droppable(oid, &written)?,
            _ if drop.if_exists => Droppable {
                name: written,
                facts: Facts::default(),
                parted: None,
            },
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
        let Droppable {
            name: target,
            facts,
            parted,
        } = found;
        let if_exists = if drop.if_exists { "IF EXISTS " } else { "" };
        if let Some(table) = parted {
            return self.drop_with_partitions(number, table, &target, &facts);
        }
        let sql = format!("DROP INDEX CONCURRENTLY {if_exists}{target}");
        let draft = Draft::new(StepKind::Outside, Phase::Contract, target, sql)
            .lock("SHARE UPDATE EXCLUSIVE")
            .outside()
            .reasons([Reason::NotTransactional, Reason::Irreversible])
            .naive("", &[Reason::Irreversible]);
        self.push(number, &facts, draft);
        Ok(())
    }

    /// The server drops the index of a partitioned table under a lock on the whole tree only: a moment, for no row is read.
    fn drop_with_partitions(
        &mut self,
        number: i32,
        table: crate::pg::Oid,
        target: &str,
        facts: &Facts,
    ) -> Result<()> {
        let mut draft = Draft::new(
            StepKind::Execute,
            Phase::Contract,
            target,
            format!("DROP INDEX {target}"),
        )
        .reasons([Reason::LockAccessExclusive, Reason::Irreversible])
        .naive("", &[Reason::LockAccessExclusive, Reason::Irreversible]);
        draft.lock_mode = "ACCESS EXCLUSIVE";
        for member in partition::tree(table)? {
            draft = draft.also(Mode::AccessExclusive, member.name);
        }
        self.push(number, facts, draft);
        Ok(())
    }

    /// Its full name, and what is known of its table.
    fn droppable(&self, oid: crate::pg::Oid, written: &str) -> Result<Droppable> {
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
        if index.is_partition {
            return Err(Error::DependentObjects {
                problem: "the index belongs to an index of the partitioned table".into(),
                detail: format!("{} of {}.", index.name, table.name),
                hint: "Drop the index of the partitioned table: that takes those of its partitions with it.".into(),
            });
        }
        if kind == 'I' {
            return Ok(Droppable {
                name: index.name.to_string(),
                facts: table.facts(),
                parted: Some(table.oid),
            });
        }
        Ok(Droppable {
            name: index.name.to_string(),
            facts: table.facts(),
            parted: None,
        })
    }
}
