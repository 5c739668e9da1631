//! Statements that write rows.

use super::{nodes, text, Reach, Subject, Written};
use crate::model::lock::Mode;
use crate::model::operation::Operation;
use pgrx::pg_sys;

/// # Safety
/// `node` is an INSERT, UPDATE, DELETE or MERGE of the raw parser.
pub(super) unsafe fn of(node: *mut pg_sys::Node) -> Subject {
    use pg_sys::NodeTag::*;
    use Operation as O;
    // SAFETY: each cast follows the node's own tag.
    unsafe {
        match (*node).type_ {
            T_InsertStmt => {
                let stmt = node.cast::<pg_sys::InsertStmt>();
                let conflict = (*stmt).onConflictClause;
                let rows = match !conflict.is_null()
                    && (*conflict).action == pg_sys::OnConflictAction::ONCONFLICT_UPDATE
                {
                    true => Written::Any,
                    false => Written::Insert,
                };
                writes(O::Insert, (*stmt).relation, Reach::Rows(rows, Vec::new()))
            }
            T_UpdateStmt => {
                let stmt = node.cast::<pg_sys::UpdateStmt>();
                let columns = assigned((*stmt).targetList);
                writes(
                    O::Update,
                    (*stmt).relation,
                    Reach::Rows(Written::Update, columns),
                )
            }
            T_DeleteStmt => writes(
                O::Delete,
                (*node.cast::<pg_sys::DeleteStmt>()).relation,
                Reach::Rows(Written::Delete, Vec::new()),
            ),
            _ => writes(
                O::Merge,
                (*node.cast::<pg_sys::MergeStmt>()).relation,
                Reach::Rows(Written::Any, Vec::new()),
            ),
        }
    }
}

/// # Safety
/// `relation` is a RangeVar of the raw parser.
unsafe fn writes(operation: Operation, relation: *mut pg_sys::RangeVar, reach: Reach) -> Subject {
    let mut subject = Subject::is(operation);
    // SAFETY: by the contract above.
    unsafe { subject.names(relation, Mode::RowExclusive, reach) };
    subject.query = true;
    subject
}

/// The columns that an UPDATE assigns.
///
/// # Safety
/// `targets` is NIL or a list of ResTarget.
unsafe fn assigned(targets: *mut pg_sys::List) -> Vec<String> {
    // SAFETY: by the contract above.
    unsafe {
        nodes(targets)
            .into_iter()
            .filter_map(|target| text((*target.cast::<pg_sys::ResTarget>()).name))
            .collect()
    }
}
