//! The index, or key, of a partitioned table. The server builds none concurrently, but it takes over what the partitions have:
//! so each of them gets its own, outside of a transaction, and when all have one the statement itself runs and builds nothing.
//! Which partitions there are is asked anew each time.

use super::execute::owner_role;
use super::tick::Next;
use super::work::Worked;
use super::{outside, way_back};
use crate::catalog::partition::{self, Alike, Member};
use crate::catalog::{index, relation};
use crate::error::{Error, Result};
use crate::guc;
use crate::model::ident::{quote_ident, QualifiedName};
use crate::pg::maintenance::{CreateIndex, Maintenance};
use crate::pg::parser::{self, ConstraintKind, Kind as StatementKind};
use crate::pg::relation::{self as pg_relation, LockMode};
use crate::pg::{identity, spi, utility, waitpoint, xact, Oid};
use crate::rewrite::{ground, lock, probe, require_free};
use crate::store::leaf_index::{self, LeafIndex};
use crate::store::migration::Migration;
use crate::store::outside as outsides;
use crate::store::step::{self, Kind, Step};

/// What is built on every partition.
struct Wanted {
    table: relation::Relation,
    /// `[UNIQUE] INDEX`, and what stands behind the name of the table.
    unique: bool,
    definition: String,
    probed: probe::Indexed,
    /// pg_constraint.contype of the key that will stand on it; `None`: an index.
    key: Option<char>,
}

impl Wanted {
    /// From the step that builds, and the one that takes over.
    fn of(migration: &Migration, build: &Step, takes_over: &Step) -> Result<Wanted> {
        let create = create_index(build)?;
        let table = table_of(migration, &create)?;
        let (_, definition) = create.parts(&statement_text(build)?)?;
        let text = statement_text(build)?;
        Ok(Wanted {
            unique: create.unique,
            definition,
            probed: ground::with(|ground| {
                probe::index(ground, &table, &text, false, &migration.session)
            })?,
            key: key_kind(takes_over)?,
            table,
        })
    }

    /// Whether an index of a partition will do.
    fn is_met_by(&self, index: &Alike, ours: &[LeafIndex], leaf: &Member) -> bool {
        let own = ours
            .iter()
            .any(|o| o.leaf == leaf.name && o.name == index.name);
        let stands = match self.key {
            None => true,
            Some(kind) => own || index.constraint.as_deref() == Some(&kind.to_string()),
        };
        index.table == leaf.oid
            && index.valid
            && !index.attached
            && index.shape == self.probed.shape
            && stands
    }

    /// The first partition that has no such index.
    fn missing(&self, ours: &[LeafIndex]) -> Result<Option<Member>> {
        let leaves = partition::leaves(self.table.oid)?;
        let oids: Vec<Oid> = leaves.iter().map(|l| l.oid).collect();
        let found = partition::indexes(&oids)?;
        Ok(leaves.into_iter().find(|leaf| {
            leaf.kind == 'r'
                && !leaf.detaching
                && !found.iter().any(|i| self.is_met_by(i, ours, leaf))
        }))
    }
}

/// The next piece of the builds.
pub fn run(migration: &Migration, step: &Step) -> Result<Worked> {
    if let Some(worked) = go_on(migration, step)? {
        return Ok(worked);
    }
    let takes_over = partner(migration, step, Kind::LeafAttach)?;
    let wanted = Wanted::of(migration, step, &takes_over)?;
    begin_next(migration, step, &wanted)
}

/// Builds what is still missing, then runs the statement.
pub fn attach(migration: &Migration, step: &Step) -> Result<Worked> {
    if let Some(worked) = go_on(migration, step)? {
        return Ok(worked);
    }
    let builds = partner(migration, step, Kind::LeafIndexes)?;
    let wanted = Wanted::of(migration, &builds, step)?;
    match begin_next(migration, step, &wanted)? {
        Worked::Done => take_over(migration, step, &wanted).map(|()| Worked::Done),
        more => Ok(more),
    }
}

/// Sees to the build under way; `None`: there is none.
fn go_on(migration: &Migration, step: &Step) -> Result<Option<Worked>> {
    let ours = leaf_index::list(&migration.id, &step.target)?;
    let Some(open) = ours.iter().find(|o| !o.built) else {
        return Ok(None);
    };
    let idle = outsides::find(&migration.id, step.step)?.is_none_or(|row| row.under_way.is_none());
    if idle && relation::named(&open.leaf)?.is_none() {
        // The partition was dropped before its turn had come, or with what was built of it.
        leaf_index::delete(open.id)?;
        outsides::forget(&migration.id, step.step)?;
        return Ok(Some(Worked::More(Next::Again)));
    }
    match outside::run(migration, &as_step(step, open))? {
        Worked::Done => {
            leaf_index::set_built(open.id)?;
            outsides::forget(&migration.id, step.step)?;
            waitpoint::reach("leaf_built_before_commit")?;
            Ok(Some(Worked::More(Next::Again)))
        }
        more => Ok(Some(more)),
    }
}

/// Begins the build on the first partition that lacks it; done when all have it.
fn begin_next(migration: &Migration, step: &Step, wanted: &Wanted) -> Result<Worked> {
    let ours = leaf_index::list(&migration.id, &step.target)?;
    let Some(leaf) = wanted.missing(&ours)? else {
        return Ok(Worked::Done);
    };
    choose(migration, step, wanted, &leaf)?;
    match go_on(migration, step)? {
        Some(worked) => Ok(worked),
        None => Err(Error::Bug("an index that is to be built is gone".into())),
    }
}

/// Writes down what is built on a partition, under the name that the server would choose.
fn choose(migration: &Migration, step: &Step, wanted: &Wanted, leaf: &Member) -> Result<()> {
    let name = match wanted.key {
        Some('p') => pg_relation::choose_index_name(leaf.oid, &[], "pkey", true)?,
        Some(_) => pg_relation::choose_index_name(leaf.oid, &wanted.probed.columns, "key", true)?,
        None => pg_relation::choose_index_name(leaf.oid, &wanted.probed.columns, "idx", false)?,
    };
    let schema = relation::get(leaf.oid)?.name.schema;
    leaf_index::insert(leaf_index::New {
        migration_id: &migration.id,
        target: &step.target,
        leaf: &leaf.name,
        name: &name,
        sql: &format!(
            "CREATE {}INDEX CONCURRENTLY {} ON {}{}",
            if wanted.unique { "UNIQUE " } else { "" },
            quote_ident(&name),
            leaf.name,
            wanted.definition
        ),
        revert_sql: &format!(
            "DROP INDEX CONCURRENTLY IF EXISTS {}",
            QualifiedName::new(&schema, &name)
        ),
    })
}

/// The statement, under a lock on the whole tree that lasts for catalog work only: every partition has its index by now.
fn take_over(migration: &Migration, step: &Step, wanted: &Wanted) -> Result<()> {
    let table = &wanted.table;
    if !identity::has_privs_of(owner_role(migration)?, table.owner) {
        return Err(Error::Privilege {
            problem: "the migration's owner does not own the table any more".into(),
            detail: format!("{} belongs to \"{}\".", table.name, table.owner_name),
            hint: "Grant it membership, then transmute.resume(id, reason).".into(),
        });
    }
    require_free(table, &migration.id)?;
    identity::set_for_transaction("lock_timeout", &guc::lock_timeout_ms().to_string())?;
    let (mode, timing) = match wanted.key {
        None => (LockMode::Share, String::new()),
        Some(_) => {
            let tried = probe::run(table, &step.sql, &migration.session)?;
            let timing = tried.keys.first().map(|(key, _)| key.timing.clone());
            (LockMode::AccessExclusive, timing.unwrap_or_default())
        }
    };
    let members = |table: Oid| -> Result<Vec<Oid>> {
        Ok(partition::tree(table)?.into_iter().map(|m| m.oid).collect())
    };
    let locked = members(table.oid)?;
    let ours = leaf_index::list(&migration.id, &step.target)?;
    let names: Vec<String> = ours.iter().map(|o| o.name.clone()).collect();
    way_back::note(migration, step, &locked, &names)?;
    lock::acquire(&locked, mode, &table.name.to_string())?;
    if members(table.oid)? != locked || wanted.missing(&ours)?.is_some() {
        return Err(Error::LockNotAvailable {
            relation: table.name.to_string(),
            detail: "A partition came meanwhile; its index is built first.".into(),
        });
    }
    if let Some(kind) = wanted.key {
        for one in &ours {
            add_key_of_leaf(migration, one, kind, &timing)?;
        }
    }
    identity::as_role(table.owner, &migration.session, || utility::run(&step.sql))?;
    xact::command_counter_increment();
    let name = name_of(&step.target)?;
    if index::named(table.oid, &name)?.is_none_or(|n| !n.on_table || !n.valid) {
        return Err(Error::Prerequisite {
            problem: "the index of the partitioned table is not valid".into(),
            detail: format!(
                "{} has an invalid index on a partition, or is no index of {}.",
                step.target, table.name
            ),
            hint: "REINDEX or drop the invalid index, then transmute.resume(id, reason).".into(),
        });
    }
    for one in &ours {
        leaf_index::delete(one.id)?;
    }
    waitpoint::reach("leaf_attached_before_commit")
}

/// The key of a partition, on the index that was built for it: without one the server would not take it over.
fn add_key_of_leaf(migration: &Migration, one: &LeafIndex, kind: char, timing: &str) -> Result<()> {
    let Some(leaf) = relation::named(&one.leaf)? else {
        return Ok(());
    };
    let free = partition::indexes(&[leaf])?
        .into_iter()
        .any(|i| i.name == one.name && i.constraint.is_none());
    if !free {
        return Ok(());
    }
    let owner = relation::get(leaf)?.owner;
    let name = quote_ident(&one.name);
    let what = if kind == 'p' { "PRIMARY KEY" } else { "UNIQUE" };
    let sql = format!(
        "ALTER TABLE ONLY {} ADD CONSTRAINT {name} {what} USING INDEX {name}{timing}",
        one.leaf
    );
    let inherited = partition::inherited_not_null(leaf)?;
    identity::as_role(owner, &migration.session, || utility::run(&sql))?;
    // The key says NOT NULL once more, as if it were the partition's own.
    spi::execute(
        "UPDATE pg_constraint SET conislocal = false WHERE oid = ANY ($1)",
        &[inherited.into()],
    )?;
    Ok(())
}

/// Drops what was built, one index a time, the last one first.
pub fn revert(migration: &Migration, step: &Step) -> Result<Worked> {
    let Some(last) = leaf_index::list(&migration.id, &step.target)?.pop() else {
        return Ok(Worked::Done);
    };
    outsides::begin(&migration.id, step.step)?;
    match outside::revert(migration, &as_step(step, &last))? {
        Worked::Done => {
            leaf_index::delete(last.id)?;
            outsides::forget(&migration.id, step.step)?;
            waitpoint::reach("leaf_dropped_before_commit")?;
            Ok(Worked::More(Next::Again))
        }
        more => Ok(more),
    }
}

/// The statement that a step hands over at the moment, as a step of its own; `None`: none.
pub fn statement(migration: &Migration, step: Step) -> Result<Option<Step>> {
    if step.kind == Kind::Outside {
        return Ok(Some(step));
    }
    let ours = leaf_index::list(&migration.id, &step.target)?;
    Ok(ours
        .iter()
        .find(|o| !o.built)
        .map(|open| as_step(&step, open)))
}

fn as_step(step: &Step, one: &LeafIndex) -> Step {
    Step {
        sql: one.sql.clone(),
        revert_sql: Some(one.revert_sql.clone()),
        ..step.clone()
    }
}

/// The other one of the two steps of an index.
fn partner(migration: &Migration, step: &Step, kind: Kind) -> Result<Step> {
    step::all(&migration.id)?
        .into_iter()
        .find(|s| s.kind == kind && s.target == step.target)
        .ok_or_else(|| Error::Bug(format!("no step {} of {}", kind.name(), step.target)))
}

fn parsed(step: &Step) -> Result<parser::Statement> {
    parser::parse(&step.sql)?
        .into_iter()
        .next()
        .ok_or_else(|| Error::Bug("a step without a statement".into()))
}

fn statement_text(step: &Step) -> Result<String> {
    Ok(parsed(step)?.text)
}

fn create_index(step: &Step) -> Result<CreateIndex> {
    match parsed(step)?.kind {
        StatementKind::Maintenance(Maintenance::CreateIndex(create)) => Ok(create),
        _ => Err(Error::Bug(format!("no CREATE INDEX: {}", step.sql))),
    }
}

/// What key the statement adds.
fn key_kind(step: &Step) -> Result<Option<char>> {
    Ok(match parsed(step)?.kind {
        StatementKind::AlterTable(alter) => {
            let primary = alter
                .commands
                .iter()
                .any(|c| c.constraint == Some(ConstraintKind::Primary));
            Some(if primary { 'p' } else { 'u' })
        }
        _ => None,
    })
}

fn table_of(migration: &Migration, create: &CreateIndex) -> Result<relation::Relation> {
    let found = identity::as_role(owner_role(migration)?, &migration.session, || {
        pg_relation::resolve(create.table.schema.as_deref(), &create.table.name)
    })?;
    match found {
        Some(oid) => relation::get(oid),
        None => Err(Error::UndefinedTable {
            name: create.table.name.clone(),
            search_path: migration.session.search_path.clone(),
        }),
    }
}

/// The last part of a qualified and quoted name.
fn name_of(target: &str) -> Result<String> {
    spi::value::<Vec<String>>("SELECT parse_ident($1)", &[target.into()])?
        .and_then(|mut parts| parts.pop())
        .ok_or_else(|| Error::Bug(format!("no name: {target}")))
}
