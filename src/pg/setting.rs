//! SET and set_config in a script.

use super::parser::text;
use pgrx::pg_sys;

/// A setting and its value, as SET would store it.
#[derive(Debug, Clone)]
pub struct Setting {
    pub name: String,
    pub value: String,
}

/// `SET name = value` for the session; `None` for LOCAL, RESET, DEFAULT and the like.
///
/// # Safety
/// `set` is a VariableSetStmt of the raw parser.
pub(super) unsafe fn of_set(set: *mut pg_sys::VariableSetStmt) -> Option<Setting> {
    // SAFETY: by the contract above; ExtractSetVariableArgs only reads the node.
    unsafe {
        let plain = (*set).kind == pg_sys::VariableSetKind::VAR_SET_VALUE && !(*set).is_local;
        Some(Setting {
            name: text((*set).name).filter(|_| plain)?,
            value: text(pg_sys::ExtractSetVariableArgs(set))?,
        })
    }
}

/// `SELECT set_config('name', 'value', false)` and nothing else.
///
/// # Safety
/// `select` is a SelectStmt of the raw parser.
pub(super) unsafe fn of_select(select: *mut pg_sys::SelectStmt) -> Option<Setting> {
    use pg_sys::NodeTag::*;
    // SAFETY: each cast follows the node's own tag.
    unsafe {
        let bare = (*select).fromClause.is_null() && (*select).whereClause.is_null();
        if !bare || pg_sys::list_length((*select).targetList) != 1 {
            return None;
        }
        let target = pg_sys::list_nth((*select).targetList, 0).cast::<pg_sys::ResTarget>();
        let call = (*target).val.cast::<pg_sys::FuncCall>();
        if call.is_null() || (*call).type_ != T_FuncCall || pg_sys::list_length((*call).args) != 3 {
            return None;
        }
        let names = (*call).funcname;
        let last = pg_sys::list_nth(names, pg_sys::list_length(names) - 1).cast::<pg_sys::String>();
        if text((*last).sval).as_deref() != Some("set_config") {
            return None;
        }
        let constant = |i: i32| {
            let node = pg_sys::list_nth((*call).args, i).cast::<pg_sys::A_Const>();
            ((*node).type_ == T_A_Const).then_some(node)
        };
        let string = |i: i32| {
            let node = constant(i)?;
            match (*node).val.node.type_ {
                T_String => text((*node).val.sval.sval),
                _ => None,
            }
        };
        let local = constant(2)?;
        if (*local).val.node.type_ != T_Boolean || (*local).val.boolval.boolval {
            return None;
        }
        Some(Setting {
            name: string(0)?,
            value: string(1)?,
        })
    }
}
