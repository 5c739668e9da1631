//! The rewrite strategy as steps.

use super::draft::Draft;
use super::Planner;
use crate::catalog::column;
use crate::catalog::index::Key;
use crate::catalog::relation::{self, Relation};
use crate::error::{Error, Result};
use crate::model::ident::quote_ident;
use crate::model::lock::{Lock, Mode};
use crate::model::phase::Phase;
use crate::model::plan::Estimate;
use crate::model::reason::Reason;
use crate::pg::parser::{self, Action, Command, ConstraintKind};
use crate::pg::{pieces, spi, Oid};
use crate::rewrite::dependents::{self, Dependent};
use crate::rewrite::{adds_foreign_keys, sorted_by};
use crate::rewrite::{matview, probe};
use crate::store::step::Kind as StepKind;

const MAKE: &str =
    "make the shadow with the statement applied, the key log and the capture triggers";

const BY_ADDRESS: &str = "; without a key: rows are found by their address";

/// MaxHeapAttributeNumber: those that were dropped count.
const MAX_COLUMNS: usize = 1600;

/// What is done to the table that is copied.
pub(super) struct What<'a> {
    /// The statements that run on it.
    pub script: &'a str,
    pub commands: &'a [Command],
    /// The table whose key it follows, where the script does not name it.
    pub added_for: Option<&'a str>,
    /// Where the table is a partition of the one that the statements are about.
    pub part_of: Option<&'a PartOf>,
}

/// The partitioned table that a copied table is a partition of.
pub(super) struct PartOf {
    pub name: String,
    /// The statement of the script.
    pub index: usize,
    /// What leads it back to the old shape, and its partitions with it.
    pub back: Option<String>,
}

/// Locks on other tables than the one that is copied.
pub(super) struct Behind {
    /// In ACCESS EXCLUSIVE.
    pub swap: Vec<String>,
    pub validate: Vec<Lock>,
}

/// The table of a foreign key that is valid, and the one it points at where that is another.
fn ends(constraint: Oid) -> Result<Option<(String, Option<String>)>> {
    let ends: Option<(Oid, Oid)> = spi::first_kept(
        "SELECT conrelid, confrelid FROM pg_constraint WHERE oid = $1 AND convalidated",
        &[constraint.into()],
        |row| Ok((row.need(1)?, row.need(2)?)),
    )?;
    let Some((from, to)) = ends else {
        return Ok(None);
    };
    let other = match from == to {
        true => None,
        false => relation::names(&[to])?.pop(),
    };
    Ok(relation::names(&[from])?.pop().map(|from| (from, other)))
}

impl Planner<'_> {
    pub(super) fn rewrite(
        &mut self,
        index: usize,
        what: What<'_>,
        table: &Relation,
        outcome: &probe::Outcome,
        dependents: &[Dependent],
    ) -> Result<()> {
        if table.kind == 'p' {
            return self.rewrite_tree(index, what, table, outcome, dependents);
        }
        probe::require_supported(table)?;
        let number = index as i32 + 1;
        self.require_rewritable_commands(what.commands, table)?;
        dependents::require_supported(table, dependents)?;
        self.require_comparable(table, outcome)?;
        matview::require_supported(table, dependents)?;
        self.require_one_copy(index, table)?;
        if !table.invalid_indexes.is_empty() {
            return Err(Error::Prerequisite {
                problem: "the table has an invalid index".into(),
                detail: format!("On {}: {}.", table.name, table.invalid_indexes),
                hint: "REINDEX INDEX CONCURRENTLY it, or drop it.".into(),
            });
        }
        let name = self.name_now(table);
        let facts = table.facts();
        let estimate = Estimate {
            rows: facts.rows,
            bytes: facts.bytes,
            seconds: 0.0,
        };
        let dropping = what.commands.iter().any(|c| c.action == Action::DropColumn);
        let mut swap = vec![Reason::LockAccessExclusive];
        swap.extend((!dependents.is_empty()).then_some(Reason::DependentObjects));
        swap.extend(dropping.then_some(Reason::DataLoss));
        let back = match what.part_of {
            Some(part_of) => self.way_back_of_part(part_of, table, what.script)?,
            None => self.way_back(index, table, what.script)?,
        };
        let by_address = outcome.key.as_ref().is_some_and(Key::is_address);
        if by_address && column::list(table.oid)?.len() >= MAX_COLUMNS {
            return Err(Error::Unsupported {
                problem: "a table without a key has no room for the address of its rows".into(),
                detail: format!(
                    "{} has {MAX_COLUMNS} columns, dropped ones among them, and can have no more.",
                    table.name
                ),
                hint: "Give the table a primary key.".into(),
            });
        }
        if by_address && !outcome.types.is_empty() && self.has_versions(table)? {
            return Err(Error::Unsupported {
                problem: "a version of a table without a key cannot be written".into(),
                detail: format!("The statement converts columns of {}.", table.name),
                hint: "Give the table a primary key, or leave meta.versioned_views out.".into(),
            });
        }
        let mut without_key = vec![Reason::LockShareRowExclusive];
        without_key.extend(by_address.then_some(Reason::NoKey));
        let has_matviews = dependents.iter().any(|d| d.kind == "matview");
        let steps: [(StepKind, Phase, &str, String, Vec<Reason>); 7] = [
            (
                StepKind::RewriteExpand,
                Phase::Expand,
                "SHARE ROW EXCLUSIVE",
                match (what.added_for, what.part_of) {
                    (Some(key), None) => format!("{MAKE}; added because it refers to {key}"),
                    (Some(key), Some(root)) => format!(
                        "{MAKE}; a partition of {}, added because that refers to {key}",
                        root.name
                    ),
                    (None, Some(root)) => format!("{MAKE}; a partition of {}", root.name),
                    (None, None) => MAKE.into(),
                } + if by_address { BY_ADDRESS } else { "" },
                without_key,
            ),
            (
                StepKind::RewriteCopy,
                Phase::Backfill,
                "ACCESS SHARE",
                "copy the rows block by block into the shadow".into(),
                vec![Reason::DiskSpace, Reason::ReplicationImpact],
            ),
            (
                StepKind::RewriteIndex,
                Phase::Validate,
                "",
                match sorted_by(what.commands) {
                    Some(by) => format!("build the indexes of the shadow, order its rows by {}, bring it up to date", quote_ident(by)),
                    None => "build the indexes of the shadow, bring it up to date".into(),
                },
                vec![],
            ),
            (
                StepKind::RewriteCheck,
                Phase::Validate,
                "ACCESS SHARE",
                "compare every row with its row in the shadow".into(),
                vec![],
            ),
            (
                StepKind::RewriteViews,
                Phase::Validate,
                "",
                "make the new contents of materialized views from the shadow".into(),
                vec![Reason::DiskSpace],
            ),
            (
                StepKind::RewriteSwap,
                Phase::Contract,
                "ACCESS EXCLUSIVE",
                what.script.into(),
                swap,
            ),
            (
                StepKind::RewriteValidate,
                Phase::Contract,
                "",
                "validate foreign keys, drop the work tables, keep the old rows as an artifact"
                    .into(),
                vec![],
            ),
        ];
        let steps = steps
            .into_iter()
            .filter(|s| has_matviews || s.0 != StepKind::RewriteViews);
        let locks = self.locks_behind(table, what.script, dependents)?;
        for (kind, phase, lock_mode, sql, reasons) in steps {
            let mut draft = Draft::new(kind, phase, name.to_string(), sql)
                .lock(lock_mode)
                .reasons(reasons);
            if kind == StepKind::RewriteValidate {
                draft = draft.only_also(locks.validate.clone());
            }
            if kind == StepKind::RewriteSwap {
                draft = draft.also_all(Mode::AccessExclusive, locks.swap.clone());
                if back.is_some() {
                    draft = draft.revert(back.clone());
                }
                draft = draft.naive(
                    "rewrites the table under ACCESS EXCLUSIVE",
                    &[Reason::LockAccessExclusive, Reason::TableRewrite],
                );
            }
            if matches!(kind, StepKind::RewriteCopy | StepKind::RewriteCheck) {
                draft = draft.estimate(estimate);
            }
            self.push(number, &facts, draft);
        }
        self.widen_sequences(number, table, outcome)
    }

    /// What a swap, and the proof of foreign keys behind it, lock besides the table.
    pub(super) fn locks_behind(
        &mut self,
        table: &Relation,
        script: &str,
        dependents: &[Dependent],
    ) -> Result<Behind> {
        let others: Vec<Oid> = dependents
            .iter()
            .filter_map(|d| d.relation)
            .filter(|oid| *oid != table.oid)
            .collect();
        let mut behind = Behind {
            swap: relation::names(&others)?,
            validate: Vec::new(),
        };
        let mut keys: Vec<(String, Option<String>)> = Vec::new();
        for key in dependents.iter().filter(|d| d.kind == "foreign_key") {
            // The first table that is swapped has it proved.
            if self.proved.insert(key.object.to_u32()) {
                keys.extend(ends(key.object)?);
            }
        }
        for statement in parser::parse(script)? {
            if !adds_foreign_keys(&statement) {
                continue;
            }
            for piece in pieces::of(&statement.text)?.list {
                for (schema, name) in piece
                    .constraints
                    .iter()
                    .filter_map(|c| c.references.as_ref())
                {
                    let other = match self.existing(schema.as_deref(), name)? {
                        Some(oid) if oid != table.oid => relation::names(&[oid])?.pop(),
                        _ => None,
                    };
                    behind.swap.extend(other.clone());
                    keys.push((table.name.to_string(), other));
                }
            }
        }
        for (from, to) in keys {
            behind.validate.push(Lock {
                mode: Mode::ShareUpdateExclusive,
                relation: from,
            });
            behind.validate.extend(to.map(|relation| Lock {
                mode: Mode::RowShare,
                relation,
            }));
        }
        Ok(behind)
    }

    pub(super) fn require_one_copy(&mut self, index: usize, table: &Relation) -> Result<()> {
        if self.rewritten.insert(table.oid.to_u32()) {
            return Ok(());
        }
        Err(Error::Unsupported {
            problem: "two statements of the script rewrite the same table".into(),
            detail: format!(
                "{} is rewritten again in line {}.",
                table.name, self.statements[index].line
            ),
            hint: "Write one ALTER TABLE with all subcommands: it is one copy then.".into(),
        })
    }

    pub(super) fn require_rewritable_commands(
        &self,
        commands: &[Command],
        table: &Relation,
    ) -> Result<()> {
        let foreign = commands
            .iter()
            .any(|c| c.constraint == Some(ConstraintKind::Foreign));
        let tree = commands.iter().any(|c| c.action == Action::AttachOrInherit);
        // On the empty table it would call every foreign key valid.
        let validates = commands
            .iter()
            .any(|c| c.action == Action::ValidateConstraint);
        require_one_default(commands, table)?;
        if foreign || tree || validates {
            return Err(Error::Unsupported {
                problem: "a foreign key, VALIDATE CONSTRAINT or a change of inheritance cannot be part of a rewriting ALTER TABLE".into(),
                detail: format!("On {}.", table.name),
                hint: "Give it a statement of its own: a foreign key NOT VALID, validated afterwards.".into(),
            });
        }
        Ok(())
    }
}

/// Rows that are there get the default that ADD COLUMN gives; the copy would give them the later one.
fn require_one_default(commands: &[Command], table: &Relation) -> Result<()> {
    let added = |column: &Option<String>| {
        commands
            .iter()
            .any(|c| c.action == Action::AddColumn && c.column == *column)
    };
    let twice = commands
        .iter()
        .find(|c| c.action == Action::ColumnValue && added(&c.column));
    match twice.and_then(|c| c.column.as_ref()) {
        None => Ok(()),
        Some(column) => Err(Error::Unsupported {
            problem: "the default of a column that is added is changed in the same ALTER TABLE"
                .into(),
            detail: format!("Column \"{column}\" of {}.", table.name),
            hint: "Change it in an ALTER TABLE of its own, behind this one.".into(),
        }),
    }
}
