//! The shadow once more, for a statement that was amended: the table keeps its triggers, the log goes on, and every row is
//! converted anew. So no row of the shadow is of the old conversion, however far the migration was.

use super::{expand, matview, probe, shadow, Work};
use crate::catalog::relation;
use crate::error::{Error, Result};
use crate::pg::identity::{self, Session};
use crate::pg::relation::{LockMode, Table};
use crate::pg::{spi, utility, Oid};
use crate::store::progress::{self, Of};
use crate::store::{dead_letter, mirror, rewrite};

/// Makes the shadow of `work` again with other statements, which must give it the same columns and indexes: what the plan
/// says of them holds on. In the caller's transaction; nobody else drives the migration.
pub fn run(work: &Work, alter: &str) -> Result<()> {
    let (table, old) = (&work.table, &work.rewrite);
    work.require_shadow()?;
    if relation::definition(table.oid)? != old.definition {
        return Err(Error::Prerequisite {
            problem: "the table was changed while it was being migrated".into(),
            detail: format!(
                "Columns, indexes or constraints of {} are not those the shadow was made from.",
                table.name
            ),
            hint: "Undo that change, or transmute.rollback(id, reason) and apply again.".into(),
        });
    }
    let outcome = probe::run(table, alter, &work.session)?;
    probe::require_supported(table)?;
    let same_key = outcome
        .key
        .as_ref()
        .is_some_and(|k| k.name == old.shadow_key && k.columns == old.key_columns);
    if !outcome.rewrites || !same_key {
        return Err(other_shape(
            "the rows are not rewritten, or get another key",
        ));
    }
    let before = columns(old.shadow)?;
    let name = old.shadow_name();
    // A process that copies a last batch into it is waited for, as long as lock_timeout allows.
    super::drop_schema(&matview::schema_of(old.id))?;
    mirror::delete_all(&work.migration_id)?;
    identity::as_role(table.owner, &Session::own(), || {
        utility::run(&format!("DROP TABLE {name}"))
    })?;
    let made = shadow::create_like(table, &old.new_schema)?;
    shadow::alter(table, alter, &name, &[], &work.session)?;
    let mut deferred = shadow::defer_indexes(table.owner, made, &name, &old.shadow_key)?;
    if old.is_by_address() {
        deferred.insert(0, shadow::add_address(table.owner, &name)?);
    }
    let after = columns(made)?;
    if let Some((was, _)) = before.iter().zip(&after).find(|(was, is)| was != is) {
        return Err(other_shape(&format!("it was: {was}")));
    }
    if before.len() != after.len() || deferred != old.deferred {
        return Err(other_shape("its columns or indexes are others"));
    }
    expand::hide_from_decoding(&[made], table.oid)?;
    dead_letter::resolve_all(old.id)?;
    let refused = old.refused_name();
    work.as_owner(|| spi::execute(&format!("DELETE FROM {refused}"), &[]))?;
    let blocks = Table::open(table.oid, LockMode::AccessShare).blocks();
    let file = relation::relfilenode(table.oid)?.unwrap_or(old.relfilenode);
    rewrite::set_shadow(old.id, made, &deferred, file, blocks)?;
    progress::delete(Of::Rewrite(old.id))?;
    expand::lanes(old.id, blocks)
}

fn other_shape(how: &str) -> Error {
    Error::Unsupported {
        problem: "amend changes how rows are converted, not what becomes of the table".into(),
        detail: format!("The amended statement gives the table another shape: {how}."),
        hint: "transmute.rollback(id, reason), and register the other statement.".into(),
    }
}

/// What a row of a table consists of, a line a column.
fn columns(table: Oid) -> Result<Vec<String>> {
    spi::query(
        "SELECT concat_ws(' ', attnum, quote_ident(attname), format_type(atttypid, atttypmod), attcollation::regcollation, \
           attnotnull, attgenerated, attidentity, attisdropped) \
         FROM pg_attribute WHERE attrelid = $1 AND attnum > 0 ORDER BY attnum",
        &[table.into()],
        |row| row.need(1),
    )
}
