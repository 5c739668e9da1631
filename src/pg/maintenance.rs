//! Statements about indexes, as the planner and the engine need to know them.

use super::parser::text;
use pgrx::pg_sys;

/// A possibly qualified name as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    pub schema: Option<String>,
    pub name: String,
}

#[derive(Debug, Clone)]
pub struct CreateIndex {
    pub table: Name,
    /// `None`: the server chooses one.
    pub name: Option<String>,
    pub unique: bool,
    pub concurrent: bool,
    pub if_not_exists: bool,
    /// Byte offset of the table's name in the text of the statement.
    pub table_at: usize,
}

#[derive(Debug, Clone)]
pub enum Maintenance {
    CreateIndex(CreateIndex),
}

/// # Safety
/// `relation` is a RangeVar of the raw parser.
unsafe fn named(relation: *const pg_sys::RangeVar) -> Name {
    // SAFETY: by the contract above.
    unsafe {
        Name {
            schema: text((*relation).schemaname),
            name: text((*relation).relname).unwrap_or_default(),
        }
    }
}

/// `None`: it is no such statement. `start` is the byte offset of the statement in its script.
///
/// # Safety
/// `node` is a statement node of the raw parser.
pub(super) unsafe fn classify(node: *mut pg_sys::Node, start: usize) -> Option<Maintenance> {
    use pg_sys::NodeTag::*;
    // SAFETY: each cast follows the node's own tag.
    unsafe {
        Some(match (*node).type_ {
            T_IndexStmt => {
                let stmt = node.cast::<pg_sys::IndexStmt>();
                Maintenance::CreateIndex(CreateIndex {
                    table: named((*stmt).relation),
                    name: text((*stmt).idxname),
                    unique: (*stmt).unique,
                    concurrent: (*stmt).concurrent,
                    if_not_exists: (*stmt).if_not_exists,
                    table_at: usize::try_from((*(*stmt).relation).location)
                        .unwrap_or(start)
                        .saturating_sub(start),
                })
            }
            _ => return None,
        })
    }
}

/// Where a possibly qualified name that begins at the start of `text` ends; `None` when it is written in a way this
/// does not read (with comments or U& in it).
pub fn end_of_name(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut at = 0;
    loop {
        if bytes.get(at) == Some(&b'"') {
            at += 1;
            loop {
                match (bytes.get(at)?, bytes.get(at + 1)) {
                    (b'"', Some(b'"')) => at += 2,
                    (b'"', _) => break at += 1,
                    _ => at += 1,
                }
            }
        } else {
            let rest = &bytes[at..];
            let length = rest
                .iter()
                .take_while(|b| {
                    b.is_ascii_alphanumeric() || **b == b'_' || **b == b'$' || **b > 127
                })
                .count();
            if length == 0 || rest.get(length) == Some(&b'&') {
                return None;
            }
            at += length;
        }
        let blank = |from: usize| {
            bytes[from..]
                .iter()
                .take_while(|b| b.is_ascii_whitespace())
                .count()
        };
        let dot = at + blank(at);
        if bytes.get(dot) != Some(&b'.') {
            return Some(at);
        }
        at = dot + 1;
        at += blank(at);
    }
}
