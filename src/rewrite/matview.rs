//! Materialized views on what is retyped. Their new contents are made before the lock of the swap: the views are mirrored
//! over the shadow, refreshed and indexed in a work schema. In the lock each is made again without rows, and gets the files
//! of its mirror. What it shows then is what a REFRESH would have given when the mirror was made.

use super::dependents::{self, Dependent};
use super::mirror::Mirror;
use super::{drop_schema, probe, swap, Work};
use crate::catalog::column;
use crate::catalog::relation::{self, Relation};
use crate::error::{Error, Result};
use crate::guc;
use crate::model::digest;
use crate::model::ident::{quote_ident, QualifiedName};
use crate::pg::identity::{self, Session};
use crate::pg::{spi, utility, waitpoint, Oid};
use crate::store::mirror as store;
use std::time::Instant;

/// A view or materialized view that new contents are made of, or for.
struct Link {
    oid: Oid,
    is_matview: bool,
    populated: bool,
    relfilenode: Oid,
    owner: Oid,
    owner_name: String,
    writes: i64,
}

struct Chain {
    dependents: Vec<Dependent>,
    links: Vec<Link>,
    definition: String,
}

/// A materialized view of the swap and the mirror that its rows come from.
pub struct Ready {
    pub matview: Oid,
    pub mirror: Oid,
    name: QualifiedName,
    relfilenode: Oid,
}

/// Schema of the mirrors of a rewrite's migration: that of its first rewrite.
pub fn schema_of(rewrite_id: i64) -> String {
    format!("_transmute_{rewrite_id}_views")
}

/// What depends on all that the migration retypes, by the shadows that it has.
fn dependents_of(works: &[Work]) -> Result<Vec<Dependent>> {
    let mut lists = Vec::new();
    for work in works {
        let before = column::list(work.rewrite.relation)?;
        let after = column::list(work.rewrite.shadow)?;
        let (types, _) = probe::changes(&before, &after, &super::commands(&work.alter)?);
        let retyped: Vec<i16> = types.iter().map(|t| t.number).collect();
        lists.push(dependents::list(work.rewrite.relation, &retyped)?);
    }
    Ok(dependents::merged(lists))
}

impl Chain {
    fn of(dependents: Vec<Dependent>) -> Result<Chain> {
        let relations: Vec<Oid> = dependents
            .iter()
            .filter(|d| d.kind == "view" || d.kind == "matview")
            .map(|d| d.object)
            .collect();
        let links = spi::query(
            include_str!("../../sql/query/matview_chain.sql"),
            &[relations.into()],
            |row| {
                Ok(Link {
                    oid: row.need(1)?,
                    is_matview: row.need(2)?,
                    populated: row.need(3)?,
                    relfilenode: row.need(4)?,
                    owner: row.need(5)?,
                    owner_name: row.need(6)?,
                    writes: row.need(7)?,
                })
            },
        )?;
        let texts: Vec<&str> = dependents
            .iter()
            .filter(|d| links.iter().any(|l| l.oid == d.object))
            .flat_map(|d| &d.create_sql)
            .map(String::as_str)
            .collect();
        let definition = digest::sha256_hex(texts.join("\0").as_bytes());
        Ok(Chain {
            dependents,
            links,
            definition,
        })
    }

    /// Links with their dependents, those that others read first.
    fn in_order(&self) -> impl Iterator<Item = (&Link, &Dependent)> {
        self.dependents.iter().rev().filter_map(|d| {
            self.links
                .iter()
                .find(|l| l.oid == d.object)
                .map(|l| (l, d))
        })
    }

    fn filled(&self) -> impl Iterator<Item = &Link> {
        self.links.iter().filter(|l| l.is_matview)
    }

    /// Whether `known` is what this link's new contents are recorded as, and they are still right.
    fn is_current(&self, link: &Link, known: &store::Mirror, schema: &str) -> Result<bool> {
        Ok(known.matview == link.oid
            && known.relfilenode == link.relfilenode
            && known.writes == link.writes
            && known.definition == self.definition
            && spi::value::<bool>(
                "SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
                 WHERE c.oid = $1 AND n.nspname = $2 AND c.relispopulated)",
                &[known.mirror.into(), schema.into()],
            )? == Some(true))
    }
}

/// Refuses what new contents could not be made for.
pub fn require_supported(table: &Relation, dependents: &[Dependent]) -> Result<()> {
    let chain = Chain::of(dependents.to_vec())?;
    chain.require_populated()?;
    chain.require_readable()?;
    chain.require_no_row_security(table)
}

/// Whether new contents have to be made, or made again: there are none, the views were changed or refreshed since, or they
/// are older than `transmute.max_matview_age`.
pub fn is_stale(works: &[Work]) -> Result<bool> {
    let Some(first) = works.first() else {
        return Ok(false);
    };
    let chain = Chain::of(dependents_of(works)?)?;
    let known = store::list(&first.migration_id)?;
    if chain.filled().count() != known.len() {
        return Ok(true);
    }
    let schema = schema_of(first.rewrite.id);
    for link in chain.filled() {
        let mut current = false;
        for one in known.iter().filter(|k| k.matview == link.oid) {
            current = one.age_seconds <= guc::max_matview_age_seconds()
                && chain.is_current(link, one, &schema)?;
        }
        if !current {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Makes the new contents of every materialized view that holds rows, from the shadows as they are now.
pub fn build(works: &[Work]) -> Result<()> {
    let Some(first) = works.first() else {
        return Ok(());
    };
    let started = Instant::now();
    let schema = schema_of(first.rewrite.id);
    drop_schema(&schema)?;
    store::delete_all(&first.migration_id)?;
    let chain = Chain::of(dependents_of(works)?)?;
    if chain.links.is_empty() {
        return Ok(());
    }
    chain.require_populated()?;
    for work in works {
        chain.require_no_row_security(&work.table)?;
    }
    spi::execute(&format!("CREATE SCHEMA {}", quote_ident(&schema)), &[])?;
    let mut mirror = Mirror::new(&schema);
    let owners = chain.owners();
    for work in works {
        mirror.map(&work.table.name, work.rewrite.shadow_name());
        for owner in &owners {
            grant_select(work.rewrite.relation, &work.rewrite.shadow_name(), owner)?;
        }
    }
    for owner in &owners {
        spi::execute(
            &format!(
                "GRANT USAGE ON SCHEMA {} TO {}",
                quote_ident(&schema),
                quote_ident(owner)
            ),
            &[],
        )?;
    }
    let mut rows = Vec::new();
    for (link, dependent) in chain.in_order() {
        let name = mirror.add(link.oid)?;
        mirror.create(dependent)?;
        for owner in owners.iter().filter(|o| **o != link.owner_name) {
            grant_select(link.oid, &name, owner)?;
        }
        if link.is_matview {
            fill(first, &mirror, link, &name)?;
            rows.push(chain.row(link, super::shadow::oid_of(&name)?));
        }
    }
    // Nobody keeps a right that was needed here: the shadow is not protected as the table may be later.
    for work in works {
        for owner in owners.iter().filter(|o| **o != work.table.owner_name) {
            revoke(&work.rewrite.shadow_name(), owner)?;
        }
    }
    let milliseconds = started.elapsed().as_secs_f64() * 1000.0;
    for row in &rows {
        store::insert(&first.migration_id, row, milliseconds)?;
    }
    waitpoint::reach("views_before_commit")
}

/// REFRESH as the owner, with the settings of register; the server builds the indexes. Then statistics.
fn fill(work: &Work, mirror: &Mirror, link: &Link, name: &QualifiedName) -> Result<()> {
    let original = dependents::name_of(link.oid)?;
    identity::as_role(link.owner, &work.session, || {
        mirror.run(&format!("REFRESH MATERIALIZED VIEW {original}"))
    })?;
    identity::as_role(link.owner, &Session::own(), || {
        utility::run(&format!("ANALYZE {name}"))
    })
}

impl Chain {
    fn owners(&self) -> Vec<String> {
        let mut owners: Vec<String> = self.links.iter().map(|l| l.owner_name.clone()).collect();
        owners.sort();
        owners.dedup();
        owners
    }

    fn row(&self, link: &Link, mirror: Oid) -> store::Mirror {
        store::Mirror {
            matview: link.oid,
            mirror,
            relfilenode: link.relfilenode,
            writes: link.writes,
            definition: self.definition.clone(),
            age_seconds: 0.0,
        }
    }

    fn require_populated(&self) -> Result<()> {
        match self.links.iter().find(|l| l.is_matview && !l.populated) {
            None => Ok(()),
            Some(link) => Err(Error::Prerequisite {
                problem: "a materialized view reads another one that has not been populated".into(),
                detail: format!("{} holds no rows.", dependents::name_of(link.oid)?),
                hint: "REFRESH MATERIALIZED VIEW it first.".into(),
            }),
        }
    }

    /// What no REFRESH could read, their mirrors cannot.
    fn require_readable(&self) -> Result<()> {
        let links: Vec<Oid> = self.links.iter().map(|l| l.oid).collect();
        let unreadable = spi::first(
            include_str!("../../sql/query/unreadable.sql"),
            &[links.into()],
            |row| {
                Ok((
                    row.need::<String>(1)?,
                    row.need::<String>(2)?,
                    row.need::<String>(3)?,
                ))
            },
        )?;
        match unreadable {
            None => Ok(()),
            Some((view, owner, relation)) => Err(Error::Privilege {
                problem: "a materialized view could not be refreshed by its owner".into(),
                detail: format!("{view} belongs to \"{owner}\", who may not read {relation}."),
                hint: "Grant SELECT, or drop the materialized view before the migration.".into(),
            }),
        }
    }

    /// The shadow has no policies: an owner to whom those of the table apply would see more in it.
    fn require_no_row_security(&self, table: &Relation) -> Result<()> {
        let owners: Vec<Oid> = self.links.iter().map(|l| l.owner).collect();
        let subject: Vec<String> = spi::query(
            "SELECT r.rolname::text FROM pg_class t JOIN pg_roles r ON r.oid = ANY ($2) \
             WHERE t.oid = $1 AND t.relrowsecurity AND NOT r.rolsuper AND NOT r.rolbypassrls \
               AND (t.relforcerowsecurity OR NOT pg_has_role(r.oid, t.relowner, 'USAGE'))",
            &[table.oid.into(), owners.into()],
            |row| row.need(1),
        )?;
        if subject.is_empty() {
            return Ok(());
        }
        Err(Error::Unsupported {
            problem: "the owner of a materialized view is subject to row security of the table"
                .into(),
            detail: format!(
                "On {} policies apply to {}.",
                table.name,
                subject.join(", ")
            ),
            hint: "Drop the materialized view before the migration and make it again after it."
                .into(),
        })
    }
}

/// What the role may read of `original` it may read of its mirror, and no more.
fn grant_select(original: Oid, mirror: &QualifiedName, role: &str) -> Result<()> {
    let columns: Option<String> = spi::value(
        "SELECT CASE WHEN has_table_privilege($2::name, $1, 'SELECT') THEN '' ELSE ( \
           SELECT ' (' || string_agg(quote_ident(attname), ', ' ORDER BY attnum) || ')' FROM pg_attribute \
           WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped \
             AND has_column_privilege($2::name, $1, attnum, 'SELECT')) END",
        &[original.into(), role.into()],
    )?;
    if let Some(columns) = columns {
        spi::execute(
            &format!("GRANT SELECT{columns} ON {mirror} TO {}", quote_ident(role)),
            &[],
        )?;
    }
    Ok(())
}

fn revoke(relation: &QualifiedName, role: &str) -> Result<()> {
    spi::execute(
        &format!("REVOKE ALL ON {relation} FROM {}", quote_ident(role)),
        &[],
    )?;
    Ok(())
}

/// The mirrors that the swap of these dependents needs, all current but for their age; an error that is tried again else.
pub fn ready(works: &[Work], dependents: &[Dependent]) -> Result<Vec<Ready>> {
    let Some(first) = works.first() else {
        return Ok(Vec::new());
    };
    let chain = Chain::of(dependents.to_vec())?;
    let known = store::list(&first.migration_id)?;
    let schema = schema_of(first.rewrite.id);
    let mut result = Vec::new();
    for link in chain.filled() {
        let name = dependents::name_of(link.oid)?;
        match known.iter().find(|k| k.matview == link.oid) {
            Some(one) if chain.is_current(link, one, &schema)? => result.push(Ready {
                matview: link.oid,
                mirror: one.mirror,
                name,
                relfilenode: link.relfilenode,
            }),
            _ => return Err(refreshed(&name)),
        }
    }
    Ok(result)
}

/// Under the lock: nobody has refreshed one since its mirror was found current.
pub fn require_unchanged(ready: &[Ready]) -> Result<()> {
    for one in ready {
        let file = relation::relfilenode(one.matview)?;
        if file != Some(one.relfilenode) {
            return Err(refreshed(&one.name));
        }
    }
    Ok(())
}

fn refreshed(name: &QualifiedName) -> Error {
    Error::LockNotAvailable {
        relation: name.to_string(),
        detail: "It was refreshed or changed meanwhile: its new contents are made again first."
            .into(),
    }
}

/// Gives each materialized view, made again without rows, the files and statistics of its mirror.
pub fn take_over(ready: &[Ready]) -> Result<()> {
    for one in ready {
        let matview = super::shadow::oid_of(&one.name)?;
        swap::exchange(
            matview,
            one.mirror,
            &format!("the new contents of {}", one.name),
        )?;
        swap::take_over_statistics(matview, one.mirror)?;
        spi::execute(
            "UPDATE pg_class SET relispopulated = true WHERE oid = $1",
            &[matview.into()],
        )?;
    }
    Ok(())
}
