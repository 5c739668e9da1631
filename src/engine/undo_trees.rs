//! Undo of partitioned tables: the partitions go back together with their table, and are those whose old rows are kept.

use crate::catalog::partition::{self, Member};
use crate::catalog::relation;
use crate::error::{Error, Result};
use crate::pg::relation::LockMode;
use crate::pg::spi;
use crate::pg::Oid;
use crate::rewrite::swap::{self, Tree, LATE_BLOCKS};
use crate::store::migration::Migration;
use crate::store::rewrite::Rewrite;
use crate::store::step::{self, Kind, Step};

/// A partitioned table that was rewritten.
struct Rewritten {
    step: Step,
    oid: Oid,
    members: Vec<Member>,
    /// Its partitions whose old rows are kept.
    kept: Vec<Oid>,
}

/// The partitioned tables, with the statements that lead them back.
pub fn trees(migration: &Migration, kept: &[Rewrite]) -> Result<Vec<Tree>> {
    let mut trees = Vec::new();
    for one in rewritten(migration, kept)? {
        let back = one.step.revert_sql.clone();
        trees.push(Tree {
            table: relation::get(one.oid)?,
            alter: back.ok_or_else(|| Error::Bug("a tree without a way back".into()))?,
            other: Some(one.step.sql.clone()),
            session: migration.with_settings(&one.step.settings).session,
        });
    }
    Ok(trees)
}

/// Every table that was swapped is there with its old rows, but for partitions that were dropped since.
pub fn require_possible(migration: &Migration, kept: &[Rewrite]) -> Result<()> {
    let trees = rewritten(migration, kept)?;
    for swap in step::begun(&migration.id, Kind::RewriteSwap)? {
        let in_tree = trees.iter().any(|t| t.step.sql == swap.sql);
        if !in_tree && kept.iter().all(|k| k.statement != -swap.statement) {
            return Err(gone(&swap));
        }
    }
    for tree in &trees {
        let oids: Vec<Oid> = tree.members.iter().map(|m| m.oid).collect();
        if let Some(detached) = tree.kept.iter().find(|oid| !oids.contains(oid)) {
            return Err(Error::Prerequisite {
                problem: "a partition was detached since the migration ended".into(),
                detail: format!(
                    "{} is no partition of {} any more.",
                    relation::get(*detached)?.name,
                    tree.step.target
                ),
                hint: "Attach it again, or drop it. Then transmute.undo(id, reason) again.".into(),
            });
        }
        if let Some(late) = swap::late(&tree.members, &tree.kept, LockMode::AccessShare) {
            return Err(Error::Prerequisite {
                problem: "a partition was added since the migration ended".into(),
                detail: format!(
                    "{} of {} has more than {LATE_BLOCKS} blocks, which are not kept in the old shape.",
                    late.name, tree.step.target
                ),
                hint: "Detach it, then transmute.undo(id, reason) again; afterwards its rows can be inserted into the table."
                    .into(),
            });
        }
    }
    Ok(())
}

/// Whether a table whose old rows are kept was dropped.
pub fn is_gone(kept: &Rewrite) -> Result<bool> {
    Ok(relation::relfilenode(kept.relation)?.is_none())
}

fn rewritten(migration: &Migration, kept: &[Rewrite]) -> Result<Vec<Rewritten>> {
    let swaps = step::begun(&migration.id, Kind::RewriteSwap)?;
    let mut all = Vec::new();
    for step in step::begun(&migration.id, Kind::RewriteTree)? {
        let kept: Vec<Oid> = kept
            .iter()
            .filter(|k| {
                let own = |s: &&Step| s.statement == -k.statement;
                swaps.iter().find(own).is_some_and(|s| s.sql == step.sql)
            })
            .map(|k| k.relation)
            .collect();
        let Some(oid) = root(&step, &kept)? else {
            return Err(gone(&step));
        };
        let members = partition::tree(oid)?;
        all.push(Rewritten {
            step,
            oid,
            members,
            kept,
        });
    }
    Ok(all)
}

/// The partitioned table, which may have another name by now.
fn root(step: &Step, kept: &[Oid]) -> Result<Option<Oid>> {
    if let Some(oid) = relation::named(&step.target)? {
        if relation::get(oid)?.kind == 'p' {
            return Ok(Some(oid));
        }
    }
    spi::value(
        "SELECT min(pg_partition_root(oid)::oid) FROM unnest($1) AS kept (oid) WHERE pg_partition_root(oid) IS NOT NULL",
        &[kept.to_vec().into()],
    )
}

fn gone(step: &Step) -> Error {
    Error::Prerequisite {
        problem: "a table whose old rows were kept is gone".into(),
        detail: format!("{}.", step.target),
        hint: "transmute.release_old(id, reason) ends the possibility to undo.".into(),
    }
}
