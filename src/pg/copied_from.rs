//! Which relations' rows a statement puts into another table.

use super::compat::walk_raw_tree;
use super::parser::text;
use crate::model::effects::{Object, Space};
use pgrx::pg_sys;
use std::ffi::c_void;

/// The relations that an INSERT, MERGE, CREATE TABLE AS or SELECT INTO reads; none for other statements.
///
/// # Safety
/// `node` is a statement node of the raw parser.
pub(super) unsafe fn of(node: *mut pg_sys::Node) -> Vec<Object> {
    let mut found: Vec<Object> = Vec::new();
    // SAFETY: each cast follows the node's own tag; the walker gets the vector it expects, which outlives the walk.
    unsafe {
        let read = match (*node).type_ {
            pg_sys::NodeTag::T_InsertStmt => {
                let insert = &*node.cast::<pg_sys::InsertStmt>();
                vec![insert.selectStmt, insert.withClause.cast()]
            }
            pg_sys::NodeTag::T_MergeStmt => {
                let merge = &*node.cast::<pg_sys::MergeStmt>();
                vec![merge.sourceRelation, merge.withClause.cast()]
            }
            pg_sys::NodeTag::T_CreateTableAsStmt => {
                vec![(*node.cast::<pg_sys::CreateTableAsStmt>()).query]
            }
            pg_sys::NodeTag::T_SelectStmt
                if !(*node.cast::<pg_sys::SelectStmt>()).intoClause.is_null() =>
            {
                let select = &*node.cast::<pg_sys::SelectStmt>();
                vec![select.fromClause.cast(), select.withClause.cast()]
            }
            _ => Vec::new(),
        };
        for part in read {
            collect(part, (&raw mut found).cast());
        }
    }
    found
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn collect(node: *mut pg_sys::Node, context: *mut c_void) -> bool {
    // SAFETY: called with nodes of the raw parser and the vector of `of`.
    unsafe {
        if node.is_null() {
            return false;
        }
        if (*node).type_ == pg_sys::NodeTag::T_RangeVar {
            let relation = &*node.cast::<pg_sys::RangeVar>();
            let found = &mut *context.cast::<Vec<Object>>();
            found.push(Object {
                space: Space::Relation,
                schema: text(relation.schemaname),
                name: text(relation.relname).unwrap_or_default(),
            });
            return false;
        }
        walk_raw_tree(node, Some(collect), context)
    }
}
