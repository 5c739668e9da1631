//! Types whose values are equal only where their bytes are: the others have -0 and 0, 1.0 and 1.00, 24 hours and a day.

use super::Oid;
use pgrx::pg_sys;

/// How the values of such a type are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Same {
    /// By the type's own operator.
    Plainly,
    /// By that operator under the collation "C", which looks at nothing but the bytes.
    AsBytes,
}

/// `None`: equal values may be stored differently.
pub fn of_type(type_oid: Oid) -> Option<Same> {
    match type_oid {
        pg_sys::BOOLOID
        | pg_sys::INT2OID
        | pg_sys::INT4OID
        | pg_sys::INT8OID
        | pg_sys::OIDOID
        | pg_sys::DATEOID
        | pg_sys::TIMEOID
        | pg_sys::TIMESTAMPOID
        | pg_sys::TIMESTAMPTZOID
        | pg_sys::UUIDOID
        | pg_sys::BYTEAOID => Some(Same::Plainly),
        pg_sys::TEXTOID | pg_sys::VARCHAROID => Some(Same::AsBytes),
        _ => None,
    }
}
