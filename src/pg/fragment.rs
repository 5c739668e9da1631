//! Whether a text is a type name or an expression and nothing else, as the server's parser reads it: what is put into a
//! statement that we write must not be able to end it, or to say more than it should.

use super::parser::to_c;
use super::xact::{self, End};
use crate::error::Result;
use pgrx::pg_sys;

/// Whether `text` is a type's name, with its modifier and brackets, and nothing behind it. A syntax error is an error.
pub fn is_type_name(text: &str) -> Result<bool> {
    let text = to_c(text)?;
    xact::subtransaction(End::Keep, || {
        // SAFETY: raw_parser reads a NUL-terminated string and returns nodes in the current memory context.
        unsafe {
            let list = pg_sys::raw_parser(text.as_ptr(), pg_sys::RawParseMode::RAW_PARSE_TYPE_NAME);
            if pg_sys::list_length(list) != 1 {
                return Ok(false);
            }
            let node = pg_sys::list_nth(list, 0).cast::<pg_sys::TypeName>();
            Ok((*node).type_ == pg_sys::NodeTag::T_TypeName && !(*node).setof && !(*node).pct_type)
        }
    })
}

/// Whether `text` is one expression: what `SELECT (text)` selects, and all that this selects. A syntax error is an error.
pub fn is_expression(text: &str) -> Result<bool> {
    let text = to_c(&format!("SELECT (\n{text}\n)"))?;
    xact::subtransaction(End::Keep, || {
        // SAFETY: as above; the list of RAW_PARSE_DEFAULT holds RawStmt nodes.
        unsafe {
            let list = pg_sys::raw_parser(text.as_ptr(), pg_sys::RawParseMode::RAW_PARSE_DEFAULT);
            if pg_sys::list_length(list) != 1 {
                return Ok(false);
            }
            let raw = pg_sys::list_nth(list, 0).cast::<pg_sys::RawStmt>();
            let select = (*raw).stmt.cast::<pg_sys::SelectStmt>();
            if (*select).type_ != pg_sys::NodeTag::T_SelectStmt {
                return Ok(false);
            }
            let select = &*select;
            let bare = select.op == pg_sys::SetOperation::SETOP_NONE
                && [
                    select.distinctClause,
                    select.fromClause,
                    select.groupClause,
                    select.windowClause,
                    select.valuesLists,
                    select.sortClause,
                    select.lockingClause,
                ]
                .iter()
                .all(|clause| clause.is_null())
                && [
                    select.whereClause,
                    select.havingClause,
                    select.limitOffset,
                    select.limitCount,
                ]
                .iter()
                .all(|clause| clause.is_null())
                && select.intoClause.is_null()
                && select.withClause.is_null();
            if !bare || pg_sys::list_length(select.targetList) != 1 {
                return Ok(false);
            }
            let target = pg_sys::list_nth(select.targetList, 0).cast::<pg_sys::ResTarget>();
            Ok((*target).name.is_null() && (*target).indirection.is_null())
        }
    })
}
