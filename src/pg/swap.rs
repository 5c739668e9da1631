//! Exchanging the files of two relations: swap_relation_files of the server's cluster.c, as a true
//! exchange (both relations live on) and with TOAST tables swapped by link, because values carry the
//! oid of their TOAST table.

use super::compat::{self, files};
use super::relation::lock_at_once;
use crate::error::{Error, Result};
use pgrx::pg_sys;
use std::mem::swap;

const RELKIND_INDEX: std::ffi::c_char = b'i' as std::ffi::c_char;

/// Exchanges the files of `a` and `b`, two tables or two indexes of the same physical shape. The
/// caller holds ACCESS EXCLUSIVE on the tables, has proven the shapes equal, and renames TOAST tables after.
pub fn swap_files(a: pg_sys::Oid, b: pg_sys::Oid) -> Result<()> {
    // An index has a lock of its own, which ALTER INDEX takes without its table's.
    for relation in [a, b] {
        lock_at_once(relation)?;
    }
    // SAFETY: syscache copies are ours to change; both relations are locked. The relcache's
    // record of new files is kept true, which wal_level = minimal relies on.
    unsafe {
        let catalog =
            pg_sys::table_open(pg_sys::RelationRelationId, pg_sys::RowExclusiveLock as i32);
        let (tuple_a, tuple_b) = (class_tuple(a)?, class_tuple(b)?);
        let form_a = &mut *pg_sys::GETSTRUCT(tuple_a).cast::<pg_sys::FormData_pg_class>();
        let form_b = &mut *pg_sys::GETSTRUCT(tuple_b).cast::<pg_sys::FormData_pg_class>();
        if form_a.relfilenode == pg_sys::InvalidOid || form_a.relkind != form_b.relkind {
            return Err(Error::Bug(
                "files of these relations cannot be swapped".into(),
            ));
        }
        exchange_new_file_records(a, b);

        swap(&mut form_a.relfilenode, &mut form_b.relfilenode);
        swap(&mut form_a.reltablespace, &mut form_b.reltablespace);
        swap(&mut form_a.relpersistence, &mut form_b.relpersistence);
        swap(&mut form_a.reltoastrelid, &mut form_b.reltoastrelid);
        swap(&mut form_a.relpages, &mut form_b.relpages);
        swap(&mut form_a.reltuples, &mut form_b.reltuples);
        swap(&mut form_a.relallvisible, &mut form_b.relallvisible);
        compat::swap_all_frozen(form_a, form_b);
        let (am_a, am_b) = (form_a.relam, form_b.relam);
        if form_a.relkind != RELKIND_INDEX {
            swap(&mut form_a.relam, &mut form_b.relam);
            swap(&mut form_a.relfrozenxid, &mut form_b.relfrozenxid);
            swap(&mut form_a.relminmxid, &mut form_b.relminmxid);
        }
        pg_sys::CatalogTupleUpdate(catalog, &mut (*tuple_a).t_self, tuple_a);
        pg_sys::CatalogTupleUpdate(catalog, &mut (*tuple_b).t_self, tuple_b);

        if am_a != am_b && form_a.relkind != RELKIND_INDEX {
            access_method_dependency(a, am_a, am_b)?;
            access_method_dependency(b, am_b, am_a)?;
        }
        let (toast_a, toast_b) = (form_a.reltoastrelid, form_b.reltoastrelid);
        for toast in [toast_a, toast_b] {
            if toast != pg_sys::InvalidOid {
                let removed =
                    pg_sys::deleteDependencyRecordsFor(pg_sys::RelationRelationId, toast, false);
                if removed != 1 {
                    return Err(Error::Bug(format!(
                        "expected one dependency record for TOAST table, found {removed}"
                    )));
                }
            }
        }
        for (table, toast) in [(a, toast_a), (b, toast_b)] {
            if toast != pg_sys::InvalidOid {
                pg_sys::recordDependencyOn(
                    &address(toast),
                    &address(table),
                    pg_sys::DependencyType::DEPENDENCY_INTERNAL,
                );
            }
        }
        pg_sys::heap_freetuple(tuple_a);
        pg_sys::heap_freetuple(tuple_b);
        pg_sys::table_close(catalog, pg_sys::RowExclusiveLock as i32);
        pg_sys::CommandCounterIncrement();
    }
    Ok(())
}

/// # Safety
/// Inside a transaction.
unsafe fn class_tuple(oid: pg_sys::Oid) -> Result<pg_sys::HeapTuple> {
    // SAFETY: by the contract above.
    let tuple = unsafe {
        pg_sys::SearchSysCacheCopy(
            pg_sys::SysCacheIdentifier::RELOID as i32,
            pg_sys::Datum::from(oid),
            pg_sys::Datum::from(0),
            pg_sys::Datum::from(0),
            pg_sys::Datum::from(0),
        )
    };
    if tuple.is_null() {
        return Err(Error::Bug(format!(
            "no pg_class row for relation {}",
            oid.to_u32()
        )));
    }
    Ok(tuple)
}

/// # Safety
/// Both relations exist and are locked.
unsafe fn exchange_new_file_records(a: pg_sys::Oid, b: pg_sys::Oid) {
    // SAFETY: by the contract above.
    unsafe {
        let relation_a = pg_sys::relation_open(a, pg_sys::NoLock as i32);
        let relation_b = pg_sys::relation_open(b, pg_sys::NoLock as i32);
        let (new_a, new_b) = (files::is_new(relation_a), files::is_new(relation_b));
        for (relation, is_new) in [(relation_a, new_b), (relation_b, new_a)] {
            if is_new {
                files::assume_new(relation);
            } else {
                files::assume_old(relation);
            }
        }
        pg_sys::relation_close(relation_a, pg_sys::NoLock as i32);
        pg_sys::relation_close(relation_b, pg_sys::NoLock as i32);
    }
}

fn address(relation: pg_sys::Oid) -> pg_sys::ObjectAddress {
    pg_sys::ObjectAddress {
        classId: pg_sys::RelationRelationId,
        objectId: relation,
        objectSubId: 0,
    }
}

/// # Safety
/// Inside a transaction.
unsafe fn access_method_dependency(
    relation: pg_sys::Oid,
    from: pg_sys::Oid,
    to: pg_sys::Oid,
) -> Result<()> {
    // SAFETY: by the contract above. Built-in access methods are pinned: nothing is recorded for them.
    unsafe {
        pg_sys::changeDependencyFor(
            pg_sys::RelationRelationId,
            relation,
            pg_sys::AccessMethodRelationId,
            from,
            to,
        );
    }
    Ok(())
}

/// Renames a relation without touching anything that depends on it (TOAST tables and their indexes
/// after a swap by link).
pub fn rename(relation: pg_sys::Oid, name: &str, is_index: bool) -> Result<()> {
    let name = super::parser::to_c(name)?;
    // SAFETY: the relation exists; the function takes its own locks.
    unsafe {
        pg_sys::RenameRelationInternal(relation, name.as_ptr(), true, is_index);
        pg_sys::CommandCounterIncrement();
    }
    Ok(())
}
