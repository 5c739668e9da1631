//! The rewrite strategy as steps.

use super::draft::Draft;
use super::Planner;
use crate::catalog::relation::Relation;
use crate::error::{Error, Result};
use crate::model::phase::Phase;
use crate::model::plan::Estimate;
use crate::model::reason::Reason;
use crate::pg::parser::{Action, Command, ConstraintKind};
use crate::rewrite::dependents::{self, Dependent};
use crate::rewrite::{matview, probe};
use crate::store::step::Kind as StepKind;

const MAKE: &str =
    "make the shadow with the statement applied, the key log and the capture triggers";

/// What is done to the table that is copied.
pub(super) struct What<'a> {
    /// The statements that run on it.
    pub script: &'a str,
    pub commands: &'a [Command],
    /// The table whose key it follows, where the script does not name it.
    pub added_for: Option<&'a str>,
    /// The partitioned table that the statements are about, where the table is a partition of it.
    pub part_of: Option<&'a str>,
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
            self.require_no_way_back(table)?;
            return self.rewrite_tree(index, what, table, outcome, dependents);
        }
        probe::require_supported(table, outcome)?;
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
        let back = self.way_back(index, table, what.script)?;
        let has_matviews = dependents.iter().any(|d| d.kind == "matview");
        let steps: [(StepKind, Phase, &str, String, Vec<Reason>); 7] = [
            (
                StepKind::RewriteExpand,
                Phase::Expand,
                "SHARE ROW EXCLUSIVE",
                match (what.added_for, what.part_of) {
                    (Some(key), _) => format!("{MAKE}; added because it refers to {key}"),
                    (None, Some(root)) => format!("{MAKE}; a partition of {root}"),
                    (None, None) => MAKE.into(),
                },
                vec![Reason::LockShareRowExclusive],
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
                "build the indexes of the shadow, bring it up to date".into(),
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
                "SHARE UPDATE EXCLUSIVE",
                "validate foreign keys, drop the work tables, keep the old rows as an artifact"
                    .into(),
                vec![],
            ),
        ];
        let steps = steps
            .into_iter()
            .filter(|s| has_matviews || s.0 != StepKind::RewriteViews);
        for (kind, phase, lock_mode, sql, reasons) in steps {
            let mut draft = Draft::new(kind, phase, name.to_string(), sql)
                .lock(lock_mode)
                .reasons(reasons);
            if kind == StepKind::RewriteSwap {
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
