//! What earlier statements made of columns, put in the place of these: one expression over the row as it was before all of them.

use super::compat;
use pgrx::pg_sys;

/// A column as the statements so far have it.
struct Made {
    number: i16,
    value: *mut pg_sys::Node,
    type_oid: pg_sys::Oid,
    typmod: i32,
    collation: pg_sys::Oid,
}

/// Columns that statements have made anew; the others are what they were.
#[derive(Default)]
pub(super) struct Columns(Vec<Made>);

impl Columns {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// From now on column `number` is `value`, of this type.
    pub(super) fn set(
        &mut self,
        number: i16,
        value: *mut pg_sys::Node,
        (type_oid, typmod, collation): (pg_sys::Oid, i32, pg_sys::Oid),
    ) {
        self.0.retain(|made| made.number != number);
        self.0.push(Made {
            number,
            value,
            type_oid,
            typmod,
            collation,
        });
    }

    /// Has names in an expression mean columns of the types that they have now.
    ///
    /// # Safety
    /// `item` is the namespace item of a table that has these columns, of no other parse state.
    pub(super) unsafe fn show(&self, item: *mut pg_sys::ParseNamespaceItem) {
        for made in &self.0 {
            // SAFETY: by the contract above the item has an entry for each attribute.
            unsafe {
                let column = &mut *(*item).p_nscolumns.add((made.number - 1) as usize);
                column.p_vartype = made.type_oid;
                column.p_vartypmod = made.typmod;
                column.p_varcollid = made.collation;
            }
        }
    }

    /// The expression over the row as it was.
    ///
    /// # Safety
    /// `expression` is a transformed expression over range table entry 1, without sublinks, that does not read the row as a whole.
    pub(super) unsafe fn resolve(&self, expression: *mut pg_sys::Node) -> *mut pg_sys::Node {
        if self.0.is_empty() {
            return expression;
        }
        // SAFETY: by the contract above; the values were transformed and live as long as the expression.
        unsafe {
            let mut list = std::ptr::null_mut();
            for made in &self.0 {
                let (value, nameless) = (made.value.cast(), std::ptr::null_mut());
                let entry = pg_sys::makeTargetEntry(value, made.number, nameless, false);
                list = pg_sys::lappend(list, entry.cast());
            }
            compat::replace_columns(expression, list)
        }
    }
}
