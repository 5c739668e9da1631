//! A column that was added: whether rows that were there before are written again for it.

use super::relation::{LockMode, Table};
use pgrx::pg_sys;

/// Whether ADD COLUMN wrote, or would have written, every row (ATExecAddColumn, tablecmds.c): its value is computed for each, or
/// its domain has to be checked. The table is locked by this transaction.
pub fn is_computed(relation: pg_sys::Oid, column: i16) -> bool {
    let table = Table::open(relation, LockMode::AccessExclusive);
    // SAFETY: the relation is open and locked; attribute numbers of columns are from 1 and below natts by the caller's list.
    // build_column_default gives a node in the current memory context or NULL; the other two only read.
    unsafe {
        let descriptor = (*table.0).rd_att;
        if column < 1 || i32::from(column) > (*descriptor).natts {
            return true;
        }
        let attribute = super::compat::tuple_desc_attr(descriptor, column as usize - 1);
        if (*attribute).attgenerated != 0 || pg_sys::DomainHasConstraints((*attribute).atttypid) {
            return true;
        }
        let default = pg_sys::build_column_default(table.0, i32::from(column));
        !default.is_null() && pg_sys::contain_volatile_functions(default)
    }
}
