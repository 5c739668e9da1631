//! The server, behind small safe functions: the only unsafe code of the extension.
#![allow(
    unsafe_code,
    reason = "everything that calls the server's C API lives here; each block states its invariant"
)]

pub mod activity;
pub mod added_column;
pub mod affected;
pub mod capture;
pub mod compare;
mod compat;
mod composed;
mod computed;
pub mod constraint;
mod conversion;
mod copied_from;
mod direct;
pub mod disk;
pub mod dml;
pub mod dual_write;
pub mod effects;
pub mod error;
pub mod event;
pub mod expression;
pub mod extension;
pub mod files;
mod follower;
pub mod fragment;
pub mod generated;
pub mod handover;
pub mod heap;
pub mod horizon;
pub mod identity;
pub mod json;
pub mod key;
pub mod lexer;
pub mod maintenance;
pub mod naming;
pub mod neighbours;
pub mod old_names;
pub mod one_batch;
pub mod outdated;
pub mod outline;
mod page;
pub mod parser;
pub mod pieces;
pub mod plain_copy;
pub mod portal;
mod position;
pub mod procedure;
pub mod process;
pub mod relation;
pub mod renamed;
pub mod row;
pub mod same;
pub mod setting;
pub mod slots;
pub mod spi;
pub mod subject;
pub mod swap;
pub mod timeout;
pub mod ulid;
pub mod usage;
pub mod utility;
pub mod waitpoint;
mod written;
pub mod xact;

pub use pgrx::pg_sys::panic::ErrorReport;
pub use pgrx::pg_sys::{Datum, Oid};

/// Text of a `name` column.
pub(crate) fn name(data: &pgrx::pg_sys::NameData) -> String {
    let bytes: Vec<u8> = data
        .data
        .iter()
        .take_while(|c| **c != 0)
        .map(|c| *c as u8)
        .collect();
    String::from_utf8_lossy(&bytes).into_owned()
}
