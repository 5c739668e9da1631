//! ATTACH and DETACH PARTITION. A table is attached when nothing has to be read or built any more: a validated CHECK says that its rows
//! belong there, it has every index and foreign key of its table, and another CHECK says that the default partition has none of
//! its rows. A partition is detached concurrently, at the end.

use super::draft::Draft;
use super::names::Target;
use super::Planner;
use crate::catalog::partition::{self, ForeignKey};
use crate::catalog::relation::{self, Relation};
use crate::error::{Error, Result};
use crate::model::ident::{quote_ident, QualifiedName};
use crate::model::lock::Mode;
use crate::model::phase::Phase;
use crate::model::plan::Estimate;
use crate::model::reason::Reason;
use crate::model::risk::Facts;
use crate::pg::parser::{Part, PartChange, Statement};
use crate::pg::relation as pg_relation;
use crate::pg::Oid;
use crate::rewrite::attach;
use crate::store::step::Kind;

impl Planner<'_> {
    pub(super) fn change_partition(
        &mut self,
        number: i32,
        statement: &Statement,
        table: &Relation,
        part: &Part,
    ) -> Result<()> {
        self.require_free(table)?;
        if table.kind != 'p' {
            return Err(Error::WrongObject {
                problem: "the table is not partitioned".into(),
                detail: format!("{} has no partitions.", table.name),
                hint: "Name the partitioned table first, the partition behind PARTITION.".into(),
            });
        }
        let schema = part.schema.as_deref();
        let child = match self.lookup(schema, &part.name)? {
            Target::Existing(oid) => relation::get(oid)?,
            Target::New if part.change == PartChange::Attach => {
                self.attach_new(number, statement, table, part);
                return Ok(());
            }
            _ => return Err(self.undefined(schema, &part.name)),
        };
        self.require_alterable(&child)?;
        self.require_free(&child)?;
        match part.change {
            PartChange::Attach => self.attach(number, statement, table, &child),
            _ => self.detach(number, table, &child, part.change),
        }
    }

    /// What the script itself makes has no row yet, or those that the script writes.
    fn attach_new(&mut self, number: i32, statement: &Statement, table: &Relation, part: &Part) {
        let name = match &part.schema {
            Some(schema) => QualifiedName::new(schema, &part.name).to_string(),
            None => quote_ident(&part.name),
        };
        let draft = Draft::new(
            Kind::Execute,
            Phase::Expand,
            table.name.to_string(),
            &statement.text,
        )
        .lock("SHARE UPDATE EXCLUSIVE")
        .revert(Some(format!(
            "ALTER TABLE {} DETACH PARTITION {name}",
            table.name
        )));
        self.push(number, &table.facts(), draft);
    }

    fn attach(
        &mut self,
        number: i32,
        statement: &Statement,
        table: &Relation,
        child: &Relation,
    ) -> Result<()> {
        let condition = attach::condition(table, child, &statement.text, &self.caller.session)?;
        self.give_indexes(number, table, child)?;
        self.give_foreign_keys(number, table, child)?;
        let mut last = vec![statement.text.clone()];
        if let Some(condition) = &condition {
            let check = format!("CHECK ({condition})");
            last.push(self.prove(number, child, &check)?);
        }
        let default = partition::default_of(table.oid)?
            .map(relation::get)
            .transpose()?;
        if let (Some(default), Some(condition)) = (&default, &condition) {
            self.require_alterable(default)?;
            let check = format!("CHECK (NOT ({condition}))");
            last.push(self.prove(number, default, &check)?);
        }
        let referenced: Vec<Oid> = partition::foreign_keys(table.oid)?
            .into_iter()
            .map(|key| key.references)
            .collect();
        let mut draft = Draft::new(
            Kind::Execute,
            Phase::Validate,
            table.name.to_string(),
            last.join("; "),
        )
        .lock("SHARE UPDATE EXCLUSIVE")
        .also(Mode::AccessExclusive, child.name.to_string())
        // The partition's own foreign keys become those of the table, and their triggers go.
        .also_all(Mode::AccessExclusive, relation::names(&referenced)?)
        .reasons([Reason::LockAccessExclusive])
        .naive(
            "reads every row of the table, and of the default partition, under ACCESS EXCLUSIVE",
            &[
                Reason::LockAccessExclusive,
                Reason::FullScanUnderLock,
                Reason::ConstraintMayFail,
            ],
        )
        .revert(Some(format!(
            "ALTER TABLE {} DETACH PARTITION {}",
            table.name, child.name
        )));
        if let Some(default) = &default {
            draft = draft.also(Mode::AccessExclusive, default.name.to_string());
        }
        self.push(number, &child.facts(), draft);
        Ok(())
    }

    /// A CHECK that is NOT VALID, then proved; what takes it away again.
    fn prove(&mut self, number: i32, of: &Relation, check: &str) -> Result<String> {
        let name = self.constraint_name(of, None, None, "transmute_partition")?;
        let (quoted, table) = (quote_ident(&name), of.name.to_string());
        let facts = of.facts();
        let add = Draft::new(
            Kind::Execute,
            Phase::Validate,
            table.clone(),
            format!("ALTER TABLE {table} ADD CONSTRAINT {quoted} {check} NOT VALID"),
        )
        .lock("ACCESS EXCLUSIVE")
        .reasons([Reason::LockAccessExclusive])
        .revert(Some(format!(
            "ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {quoted}"
        )));
        self.push(number, &facts, add);
        self.push(number, &facts, validation(of, &name, &facts));
        Ok(format!("ALTER TABLE {table} DROP CONSTRAINT {quoted}"))
    }

    /// The indexes of the partitioned table that the new partition lacks, concurrently, and the keys on them.
    fn give_indexes(&mut self, number: i32, table: &Relation, child: &Relation) -> Result<()> {
        let wanted = partition::indexes(&[table.oid])?;
        let mut has = partition::indexes(&[child.oid])?;
        for template in partition::templates(table.oid)? {
            let Some(want) = wanted.iter().find(|w| w.name == template.name) else {
                continue;
            };
            let fits = |i: &partition::Alike| {
                i.valid
                    && !i.attached
                    && i.shape == want.shape
                    && (want.constraint.is_none() || i.constraint == want.constraint)
            };
            if let Some(found) = has.iter().position(fits) {
                has.remove(found);
                continue;
            }
            if child.kind == 'p' {
                return Err(Error::Unsupported {
                    problem:
                        "the partitioned table that is attached lacks an index of its new table"
                            .into(),
                    detail: format!(
                        "{} has none like {}.",
                        child.name,
                        quote_ident(&template.name)
                    ),
                    hint: "Make it in a migration before.".into(),
                });
            }
            let key = want.constraint.as_deref();
            let name = match key {
                Some("p") => pg_relation::choose_index_name(child.oid, &[], "pkey", true)?,
                Some(_) => {
                    pg_relation::choose_index_name(child.oid, &template.columns, "key", true)?
                }
                None => pg_relation::choose_index_name(child.oid, &template.columns, "idx", false)?,
            };
            self.give_index(number, child, &template, &name, key)?;
        }
        Ok(())
    }

    fn give_index(
        &mut self,
        number: i32,
        child: &Relation,
        template: &partition::Template,
        name: &str,
        key: Option<&str>,
    ) -> Result<()> {
        let command = pg_relation::index_command(template.index);
        let (head, definition) = command
            .split_once(" USING ")
            .ok_or_else(|| Error::Bug(format!("an index that reads {command}")))?;
        let unique = if head.starts_with("CREATE UNIQUE") {
            "UNIQUE "
        } else {
            ""
        };
        let target = QualifiedName::new(&child.name.schema, name).to_string();
        let (quoted, facts) = (quote_ident(name), child.facts());
        let mut reasons = vec![Reason::NotTransactional];
        reasons.extend((!unique.is_empty()).then_some(Reason::ConstraintMayFail));
        let build = Draft::new(
            Kind::Outside,
            Phase::Validate,
            target.clone(),
            format!(
                "CREATE {unique}INDEX CONCURRENTLY {quoted} ON {} USING {definition}",
                child.name
            ),
        )
        .lock("SHARE UPDATE EXCLUSIVE")
        .outside()
        .reasons(reasons)
        .estimate(Estimate {
            rows: facts.rows,
            bytes: facts.bytes,
            seconds: 0.0,
        })
        .revert(Some(format!("DROP INDEX CONCURRENTLY IF EXISTS {target}")));
        self.push(number, &facts, build);
        let Some(key) = key else {
            return Ok(());
        };
        let what = if key == "p" { "PRIMARY KEY" } else { "UNIQUE" };
        let add = Draft::new(
            Kind::Execute,
            Phase::Validate,
            child.name.to_string(),
            format!(
                "ALTER TABLE {} ADD CONSTRAINT {quoted} {what} USING INDEX {quoted}{}",
                child.name, template.timing
            ),
        )
        .lock("ACCESS EXCLUSIVE")
        .reasons([Reason::LockAccessExclusive])
        .revert(Some(format!(
            "ALTER TABLE {} DROP CONSTRAINT {quoted}",
            child.name
        )));
        self.push(number, &facts, add);
        Ok(())
    }

    /// The foreign keys of the partitioned table that the new partition lacks: what the server finds there is not looked up again.
    fn give_foreign_keys(&mut self, number: i32, table: &Relation, child: &Relation) -> Result<()> {
        let has = partition::foreign_keys(child.oid)?;
        let facts = child.facts();
        for ForeignKey {
            name,
            definition,
            valid,
            references,
        } in partition::foreign_keys(table.oid)?
        {
            if !valid || has.iter().any(|h| h.valid && h.definition == definition) {
                continue;
            }
            let name = match has.iter().any(|h| h.name == name) {
                true => self.constraint_name(child, None, None, "fkey")?,
                false => name,
            };
            let quoted = quote_ident(&name);
            let add = Draft::new(
                Kind::Execute,
                Phase::Validate,
                child.name.to_string(),
                format!(
                    "ALTER TABLE {} ADD CONSTRAINT {quoted} {definition} NOT VALID",
                    child.name
                ),
            )
            .lock("SHARE ROW EXCLUSIVE")
            .also_all(Mode::ShareRowExclusive, relation::names(&[references])?)
            .reasons([Reason::LockShareRowExclusive])
            .revert(Some(format!(
                "ALTER TABLE {} DROP CONSTRAINT {quoted}",
                child.name
            )));
            self.push(number, &facts, add);
            let proof = validation(child, &name, &facts)
                .also_all(Mode::RowShare, relation::names(&[references])?);
            self.push(number, &facts, proof);
        }
        Ok(())
    }

    fn detach(
        &mut self,
        number: i32,
        table: &Relation,
        child: &Relation,
        change: PartChange,
    ) -> Result<()> {
        let pending = match partition::link(child.oid, table.oid)? {
            Some(pending) => pending,
            None => {
                return Err(Error::WrongObject {
                    problem: "the relation is not a partition of the table".into(),
                    detail: format!("{} of {}.", child.name, table.name),
                    hint: "Name the table that it is a partition of.".into(),
                })
            }
        };
        if pending != (change == PartChange::Finalize) {
            return Err(Error::Prerequisite {
                problem: match pending {
                    true => "the partition is being detached already".into(),
                    false => "no DETACH … CONCURRENTLY of the partition has begun".into(),
                },
                detail: format!("{} of {}.", child.name, table.name),
                hint: "FINALIZE ends a DETACH … CONCURRENTLY that was interrupted.".into(),
            });
        }
        let head = format!("ALTER TABLE {} DETACH PARTITION {}", table.name, child.name);
        let default = partition::default_of(table.oid)?
            .map(relation::get)
            .transpose()?;
        let reasons = [Reason::LockAccessExclusive, Reason::Irreversible];
        let mut draft = match (&default, change) {
            // The server takes CONCURRENTLY only without a default partition. Either way no row is read.
            (None, PartChange::Detach | PartChange::DetachConcurrently) => Draft::new(
                Kind::Outside,
                Phase::Contract,
                table.name.to_string(),
                format!("{head} CONCURRENTLY"),
            )
            .lock("SHARE UPDATE EXCLUSIVE")
            .outside()
            .reasons([Reason::NotTransactional]),
            (_, PartChange::Finalize) => Draft::new(
                Kind::Execute,
                Phase::Contract,
                table.name.to_string(),
                format!("{head} FINALIZE"),
            )
            .lock("SHARE UPDATE EXCLUSIVE"),
            (Some(_), _) | (_, PartChange::Attach) => {
                Draft::new(Kind::Execute, Phase::Contract, table.name.to_string(), head)
                    .lock("ACCESS EXCLUSIVE")
            }
        }
        .also(Mode::AccessExclusive, child.name.to_string())
        .reasons(reasons)
        .naive("", &reasons);
        if let Some(default) = default.filter(|d| d.oid != child.oid) {
            draft = draft.also(Mode::AccessExclusive, default.name.to_string());
        }
        self.push(number, &child.facts(), draft);
        Ok(())
    }
}

fn validation(of: &Relation, name: &str, facts: &Facts) -> Draft {
    Draft::new(
        Kind::Execute,
        Phase::Validate,
        of.name.to_string(),
        format!(
            "ALTER TABLE {} VALIDATE CONSTRAINT {}",
            of.name,
            quote_ident(name)
        ),
    )
    .lock("SHARE UPDATE EXCLUSIVE")
    .reasons([Reason::ConstraintMayFail])
    .estimate(Estimate {
        rows: facts.rows,
        bytes: of.table_bytes,
        seconds: 0.0,
    })
}
