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
    // SAFETY: each cast follows the node's own tag; `visit` gets the vector it expects, which outlives the walk.
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
                let query = (*node.cast::<pg_sys::CreateTableAsStmt>()).query;
                match (*query).type_ {
                    // What was prepared is not in this text, and the server's walker knows no EXECUTE.
                    pg_sys::NodeTag::T_ExecuteStmt => Vec::new(),
                    _ => vec![query],
                }
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
            visit(part, (&raw mut found).cast());
        }
    }
    found
}

/// For the server's walker; from Rust it is `visit`, as what a guard catches it throws to C.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn collect(node: *mut pg_sys::Node, context: *mut c_void) -> bool {
    // SAFETY: as `visit`.
    unsafe { visit(node, context) }
}

/// # Safety
/// `node` is NULL or a node of the raw parser, `context` the vector of `of`.
unsafe fn visit(node: *mut pg_sys::Node, context: *mut c_void) -> bool {
    // SAFETY: by the contract above.
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
