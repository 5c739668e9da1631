//! jsonb as an argument: what cannot be represented is an error to answer with, where pgrx's own type panics.

use crate::error::{Error, Result};
use pgrx::callconv::{Arg, ArgAbi};
use pgrx::nullable::Nullable;
use pgrx::pg_sys;
use pgrx::pgrx_sql_entity_graph::metadata::{
    ArgumentError, ReturnsError, ReturnsRef, SqlMappingRef, SqlTranslatable, TypeOrigin,
};
use pgrx::{direct_function_call, FromDatum};
use serde_json::Value;
use std::ffi::CStr;

/// A value of type jsonb, or why it cannot be read: the server knows deeper nesting and larger numbers.
pub struct Document(std::result::Result<Value, String>);

impl Document {
    /// As JSON; `argument` names it in the error, which is 22023.
    pub fn read(self, argument: &str) -> Result<Value> {
        self.0.map_err(|reason| Error::InvalidArgument {
            problem: format!("{argument} cannot be read"),
            detail: format!("{reason}."),
            hint: "Nest at most 127 levels deep, and give numbers that fit double precision."
                .into(),
        })
    }
}

impl FromDatum for Document {
    unsafe fn from_polymorphic_datum(
        datum: pg_sys::Datum,
        is_null: bool,
        _: pg_sys::Oid,
    ) -> Option<Document> {
        if is_null {
            return None;
        }
        // SAFETY: the caller's datum is a jsonb, as the function's signature says; jsonb_out detoasts by itself.
        let text = unsafe { direct_function_call::<&CStr>(pg_sys::jsonb_out, &[Some(datum)]) }?;
        let parsed = serde_json::from_slice(text.to_bytes());
        Some(Document(parsed.map_err(|error| error.to_string())))
    }
}

// SAFETY: as pgrx does it for its own jsonb.
unsafe impl<'fcx> ArgAbi<'fcx> for Document {
    unsafe fn unbox_arg_unchecked(arg: Arg<'_, 'fcx>) -> Self {
        // SAFETY: a datum of this type; NULL does not come here.
        let value: Option<Document> = unsafe { arg.unbox_arg_using_from_datum() };
        value.unwrap_or_else(|| Document(Err("The value is NULL".into())))
    }

    unsafe fn unbox_nullable_arg(arg: Arg<'_, 'fcx>) -> Nullable<Self> {
        // SAFETY: as above.
        let value: Option<Document> = unsafe { arg.unbox_arg_using_from_datum() };
        value.into()
    }
}

// SAFETY: an argument of SQL type jsonb is what `from_polymorphic_datum` reads; it is never returned.
unsafe impl SqlTranslatable for Document {
    const TYPE_IDENT: &'static str = pgrx::pgrx_resolved_type!(Document);
    const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
    const ARGUMENT_SQL: std::result::Result<SqlMappingRef, ArgumentError> =
        Ok(SqlMappingRef::literal("jsonb"));
    const RETURN_SQL: std::result::Result<ReturnsRef, ReturnsError> =
        Ok(ReturnsRef::One(SqlMappingRef::literal("jsonb")));
}
