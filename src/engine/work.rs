//! What a step does, by its kind, and what takes it back: the one place that knows all kinds.

use super::tick::Next;
use super::{
    change, copying, data, direct, dual_writing, execute, hand, leaf_keys, leaves, naming, outside,
    rewriting, versioning, way_back,
};
use crate::error::Result;
use crate::model::state::State;
use crate::pg::waitpoint;
use crate::store::migration::{self, Migration};
use crate::store::rate;
use crate::store::step::{self, Kind, Step};

/// How far a piece of work got. What it did commits with the transaction either way.
#[derive(Debug, PartialEq)]
pub enum Worked {
    Done,
    /// There is more; when to come back.
    More(Next),
}

/// One piece of a step; its row says running, then done, in the transaction of the work.
pub fn run(migration: &Migration, step: &Step) -> Result<Worked> {
    step::set_running(&migration.id, step.step)?;
    if step.kind.is_outside() {
        // Before its work, which may end in the record of a failure.
        migration::set_current_step(&migration.id, step.step)?;
    }
    let migration = &migration.with_settings(&step.settings);
    let worked = match step.kind {
        Kind::Execute => {
            match step.revert_sql {
                None if behind(migration) => way_back::execute(migration, step)?,
                _ => execute::run(migration, &step.sql)?,
            }
            Worked::Done
        }
        Kind::Change => {
            change::run(migration, step)?;
            Worked::Done
        }
        Kind::Direct => {
            direct::run(migration, step)?;
            Worked::Done
        }
        Kind::Back => match change::take_back(migration, &step.sql)? {
            None => {
                waitpoint::reach("back_before_commit")?;
                Worked::Done
            }
            Some(rest) => {
                step::set_rest(&migration.id, step.step, &rest)?;
                Worked::More(Next::Again)
            }
        },
        Kind::Data => data::whole(migration, &step.sql)?,
        Kind::Batch => data::batched(migration, step)?,
        Kind::HandBatch => hand::run(migration, step)?,
        Kind::CopyRows => copying::run(migration, step)?,
        Kind::Outside => {
            way_back::before_outside(migration, step)?;
            outside::run(migration, step)?
        }
        Kind::LeafIndexes => leaves::run(migration, step)?,
        Kind::LeafAttach => leaves::attach(migration, step)?,
        Kind::LeafKeys => leaf_keys::run(migration, step)?,
        Kind::LeafKeysAttach => leaf_keys::attach(migration, step)?,
        Kind::RewriteExpand
        | Kind::RewriteInto
        | Kind::RewriteCopy
        | Kind::RewriteIndex
        | Kind::RewriteCheck
        | Kind::RewriteViews
        | Kind::RewriteSwap
        | Kind::RewriteTree
        | Kind::RewriteValidate => rewriting::run(migration, step)?,
        Kind::AliasMake
        | Kind::AliasDrop
        | Kind::RenameBoth
        | Kind::RenameFinish
        | Kind::RelaxColumn
        | Kind::HideColumn
        | Kind::HideTable
        | Kind::Recover => {
            naming::run(migration, step)?;
            Worked::Done
        }
        Kind::TightenColumn => naming::tighten(migration, step)?,
        Kind::VersionBefore | Kind::VersionAfter | Kind::VersionDrop | Kind::VersionBack => {
            versioning::run(migration, step)?;
            Worked::Done
        }
        Kind::RuleMake | Kind::RuleFill | Kind::RuleCheck | Kind::RuleEnd => {
            dual_writing::run(migration, step)?
        }
    };
    worked_on(step)?;
    // After its work: until the end of the transaction nobody else changes the migration's row; and whoever has it for
    // longer is not waited for.
    if !step.kind.is_outside() && migration::try_lock(&migration.id)?.is_some() {
        migration::set_current_step(&migration.id, step.step)?;
    }
    if worked == Worked::Done {
        step::set_done(&migration.id, step.step)?;
        rate::measure(&migration.id, step.step)?;
    }
    Ok(worked)
}

/// Whether nothing takes its steps back any more but a migration of its own.
fn behind(migration: &Migration) -> bool {
    matches!(
        migration.state,
        State::AwaitingFinalization | State::Finishing
    )
}

/// Where tests look which locks a piece of a step has taken.
pub fn worked_on(step: &Step) -> Result<()> {
    match cfg!(feature = "waitpoints") {
        true => waitpoint::reach(&format!("step_{}_worked", step.step)),
        false => Ok(()),
    }
}

/// Takes one step back, or a piece of it.
pub fn revert(migration: &Migration, step: &Step) -> Result<Worked> {
    let migration = &migration.with_settings(&step.settings);
    match step.kind {
        Kind::Execute => {
            if let Some(sql) = &step.revert_sql {
                execute::run(migration, sql)?;
            }
        }
        Kind::Change | Kind::Direct => return change::revert(migration, step),
        // Only what the steps before made was written, and goes with them; a step back runs behind the point of no return.
        Kind::Data | Kind::Back | Kind::Recover | Kind::TightenColumn => {}
        Kind::Batch => data::undo(migration, step)?,
        Kind::HandBatch | Kind::CopyRows => hand::undo(migration, step)?,
        Kind::Outside => return outside::revert(migration, step),
        Kind::LeafIndexes => return leaves::revert(migration, step),
        Kind::LeafKeys => return leaf_keys::revert(migration, step),
        Kind::RewriteExpand | Kind::RewriteInto => rewriting::undo(migration, step.statement)?,
        // What these made is in the work schemas, which go with the expand step.
        Kind::RewriteCopy
        | Kind::RewriteIndex
        | Kind::RewriteCheck
        | Kind::RewriteViews
        | Kind::RewriteSwap
        | Kind::RewriteTree
        | Kind::RewriteValidate
        | Kind::LeafAttach
        | Kind::LeafKeysAttach
        | Kind::AliasDrop
        | Kind::HideTable
        | Kind::VersionDrop
        | Kind::VersionBack
        // The values go with the columns.
        | Kind::RuleFill
        | Kind::RuleCheck => {}
        Kind::RenameFinish => naming::undo_finish(migration, step)?,
        Kind::HideColumn => naming::undo_hide(migration, step)?,
        Kind::RuleEnd => dual_writing::undo_end(migration, step)?,
        Kind::VersionBefore | Kind::VersionAfter => versioning::revert(migration, step)?,
        Kind::RuleMake => dual_writing::undo(migration, step)?,
        Kind::AliasMake => naming::undo_alias(step)?,
        Kind::RenameBoth => naming::undo_second_name(migration, step)?,
        Kind::RelaxColumn => return naming::tighten(migration, step),
    }
    Ok(Worked::Done)
}
