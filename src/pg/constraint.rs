//! Constraints as the server sees them: the names it would choose, and what it takes for proved.

pub use super::compat::NOT_NULL_IS_A_CONSTRAINT;
use super::parser::to_c;
use super::relation::{LockMode, Table};
use crate::error::{Error, Result};
use pgrx::pg_sys;
use std::ffi::CStr;

/// A name made of these parts, shortened as the server does it (makeObjectName).
pub fn object_name(name: &str, addition: Option<&str>, label: &str) -> Result<String> {
    let (name, label) = (to_c(name)?, to_c(label)?);
    let addition = addition.map(to_c).transpose()?;
    // SAFETY: the strings outlive the call, which returns a palloc'd one.
    unsafe {
        let made = pg_sys::makeObjectName(
            name.as_ptr(),
            addition
                .as_ref()
                .map_or(std::ptr::null(), |text| text.as_ptr()),
            label.as_ptr(),
        );
        Ok(CStr::from_ptr(made).to_string_lossy().into_owned())
    }
}

/// Whether the constraints of a table prove that a column holds no NULL, so that SET NOT NULL reads no row: what
/// ATExecSetNotNull asks, by the same theorem prover.
pub fn proves_not_null(table: pg_sys::Oid, column: i16) -> Result<bool> {
    let open = Table::open(table, LockMode::AccessShare);
    let (mut type_oid, mut typmod, mut collation) = (pg_sys::InvalidOid, -1, pg_sys::InvalidOid);
    // SAFETY: the relation is open and locked; the nodes are made in the current memory context and only read.
    unsafe {
        pg_sys::get_atttypetypmodcoll(table, column, &mut type_oid, &mut typmod, &mut collation);
        let variable = pg_sys::makeVar(1, column, type_oid, typmod, collation, 0);
        let test =
            pg_sys::palloc0(std::mem::size_of::<pg_sys::NullTest>()).cast::<pg_sys::NullTest>();
        if test.is_null() {
            return Err(Error::Bug("palloc0 gave NULL".into()));
        }
        (*test).xpr.type_ = pg_sys::NodeTag::T_NullTest;
        (*test).arg = variable.cast();
        (*test).nulltesttype = pg_sys::NullTestType::IS_NOT_NULL;
        (*test).argisrow = false;
        (*test).location = -1;
        let list = pg_sys::lappend(std::ptr::null_mut(), test.cast());
        Ok(pg_sys::PartConstraintImpliedByRelConstraint(open.0, list))
    }
}
