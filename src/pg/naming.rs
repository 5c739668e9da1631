//! What the statements say that give a table or a column another name, or take a table away.

use super::parser::{text, Kind};
use pgrx::pg_sys;

/// How names of hidden columns begin.
pub const HIDDEN: &str = "_transmute_";
/// How the comment begins of a view that keeps the old name of a table.
pub const OLD_NAME_OF: &str = "transmute: the old name of ";

/// A table as a statement names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    pub schema: Option<String>,
    pub name: String,
}

/// `ALTER TABLE … RENAME TO …` or `ALTER TABLE … SET SCHEMA …`.
#[derive(Debug, Clone)]
pub struct RenameTable {
    pub table: Named,
    pub missing_ok: bool,
    pub to: NewPlace,
}

#[derive(Debug, Clone)]
pub enum NewPlace {
    Name(String),
    Schema(String),
}

/// `ALTER TABLE … RENAME COLUMN … TO …`.
#[derive(Debug, Clone)]
pub struct RenameColumn {
    pub table: Named,
    pub missing_ok: bool,
    pub column: String,
    pub new_name: String,
}

/// `DROP TABLE …`.
#[derive(Debug, Clone)]
pub struct DropTable {
    pub tables: Vec<Named>,
    pub missing_ok: bool,
}

/// What the statement is, if it is one of these.
///
/// # Safety
/// `node` is a statement node of the raw parser.
pub(super) unsafe fn classify(node: *mut pg_sys::Node) -> Option<Kind> {
    use pg_sys::NodeTag::*;
    // SAFETY: each cast follows the node's own tag.
    unsafe {
        match (*node).type_ {
            T_RenameStmt => rename(node.cast()),
            T_AlterObjectSchemaStmt => {
                let stmt = node.cast::<pg_sys::AlterObjectSchemaStmt>();
                if (*stmt).objectType != pg_sys::ObjectType::OBJECT_TABLE {
                    return None;
                }
                Some(Kind::RenameTable(RenameTable {
                    table: named((*stmt).relation),
                    missing_ok: (*stmt).missing_ok,
                    to: NewPlace::Schema(text((*stmt).newschema)?),
                }))
            }
            T_DropStmt => drop_table(node.cast()),
            _ => None,
        }
    }
}

/// # Safety
/// `stmt` is a RenameStmt of the raw parser.
unsafe fn rename(stmt: *mut pg_sys::RenameStmt) -> Option<Kind> {
    use pg_sys::ObjectType::*;
    // SAFETY: by the contract above; a table or column rename has a relation.
    unsafe {
        let new_name = text((*stmt).newname)?;
        let missing_ok = (*stmt).missing_ok;
        if (*stmt).renameType == OBJECT_TABLE {
            return Some(Kind::RenameTable(RenameTable {
                table: named((*stmt).relation),
                missing_ok,
                to: NewPlace::Name(new_name),
            }));
        }
        if (*stmt).renameType == OBJECT_COLUMN && (*stmt).relationType == OBJECT_TABLE {
            return Some(Kind::RenameColumn(RenameColumn {
                table: named((*stmt).relation),
                missing_ok,
                column: text((*stmt).subname)?,
                new_name,
            }));
        }
        None
    }
}

/// # Safety
/// `stmt` is a DropStmt of the raw parser.
unsafe fn drop_table(stmt: *mut pg_sys::DropStmt) -> Option<Kind> {
    // SAFETY: by the contract above; the objects of DROP TABLE are lists of String nodes, one to three names each.
    unsafe {
        if (*stmt).removeType != pg_sys::ObjectType::OBJECT_TABLE {
            return None;
        }
        let tables = (0..pg_sys::list_length((*stmt).objects))
            .map(|i| {
                let names = pg_sys::list_nth((*stmt).objects, i).cast();
                named(pg_sys::makeRangeVarFromNameList(names))
            })
            .collect();
        Some(Kind::DropTable(DropTable {
            tables,
            missing_ok: (*stmt).missing_ok,
        }))
    }
}

/// # Safety
/// `relation` is a RangeVar of the raw parser.
unsafe fn named(relation: *mut pg_sys::RangeVar) -> Named {
    // SAFETY: by the contract above.
    unsafe {
        Named {
            schema: text((*relation).schemaname),
            name: text((*relation).relname).unwrap_or_default(),
        }
    }
}
