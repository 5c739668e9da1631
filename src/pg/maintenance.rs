//! Statements about indexes, as the planner and the engine need to know them.

use super::parser::text;
use crate::error::{Error, Result};
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
    /// ON ONLY: not on the partitions.
    pub only: bool,
    /// Byte offset of the table's name in the text of the statement.
    pub table_at: usize,
}

impl CreateIndex {
    /// The table's name as `text`, the statement, has it, and what stands behind it: method, columns, options, predicate.
    pub fn parts(&self, text: &str) -> Result<(String, String)> {
        let unread = || Error::Unsupported {
            problem: "the name of the table is written in a way that is not supported".into(),
            detail: format!("In: {text}"),
            hint: "Write it without comments, parentheses and U& escapes: schema.table.".into(),
        };
        let (before, from) = text.split_at_checked(self.table_at).ok_or_else(unread)?;
        if before.trim_end().ends_with('(') {
            return Err(unread());
        }
        let end = end_of_name(from).ok_or_else(unread)?;
        let rest = &from[end..];
        // The old way of saying "with partitions".
        let rest = rest.trim_start().strip_prefix('*').unwrap_or(rest);
        Ok((from[..end].to_string(), rest.to_string()))
    }
}

#[derive(Debug, Clone)]
pub struct DropIndex {
    pub names: Vec<Name>,
    pub concurrent: bool,
    pub if_exists: bool,
    pub cascade: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReindexTarget {
    Index,
    Table,
    Schema,
    /// SYSTEM or DATABASE.
    Database,
}

#[derive(Debug, Clone)]
pub struct Reindex {
    pub target: ReindexTarget,
    /// Of a schema: its name in `name`.
    pub name: Name,
    /// What stands in parentheses besides CONCURRENTLY, in lower case: options we do not know are refused.
    pub options: Vec<String>,
}

/// REFRESH MATERIALIZED VIEW.
#[derive(Debug, Clone)]
pub struct Refresh {
    pub name: Name,
    pub with_data: bool,
}

/// VACUUM or ANALYZE.
#[derive(Debug, Clone)]
pub struct Vacuum {
    /// Empty: the whole database.
    pub tables: Vec<Name>,
    /// FULL writes the table anew under ACCESS EXCLUSIVE.
    pub full: bool,
    /// The options as written, in lower case.
    pub options: Vec<String>,
}

#[derive(Debug, Clone)]
pub enum Maintenance {
    CreateIndex(CreateIndex),
    DropIndex(DropIndex),
    Reindex(Reindex),
    Refresh(Refresh),
    Vacuum(Vacuum),
    /// CLUSTER of a table, by an index that is named or known.
    Cluster {
        table: Name,
        index: Option<String>,
        options: Vec<String>,
    },
    /// ALTER TYPE … ADD VALUE.
    AddEnumValue,
    /// ALTER TYPE … RENAME VALUE.
    RenameEnumValue {
        of: Name,
        old: String,
        new: String,
    },
    /// ALTER TYPE … RENAME TO.
    RenameType {
        of: Name,
        new: String,
    },
    /// DROP TYPE, not CASCADE.
    DropType {
        names: Vec<Name>,
    },
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

/// Names and values of a list of options; without a value: true.
///
/// # Safety
/// `list` is a list of DefElem nodes of the raw parser.
unsafe fn options(list: *mut pg_sys::List) -> Vec<(String, bool)> {
    // SAFETY: by the contract above; defGetBoolean reads the node, and raises what the statement itself would raise.
    unsafe {
        (0..pg_sys::list_length(list))
            .filter_map(|i| {
                let option = pg_sys::list_nth(list, i).cast::<pg_sys::DefElem>();
                let name = text((*option).defname)?;
                let plain = matches!(
                    name.as_str(),
                    "concurrently" | "verbose" | "full" | "freeze" | "analyze"
                );
                Some((name, !plain || pg_sys::defGetBoolean(option)))
            })
            .collect()
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
                    only: !(*(*stmt).relation).inh,
                    table_at: usize::try_from((*(*stmt).relation).location)
                        .unwrap_or(start)
                        .saturating_sub(start),
                })
            }
            T_DropStmt => {
                let stmt = node.cast::<pg_sys::DropStmt>();
                let plain = (*stmt).behavior == pg_sys::DropBehavior::DROP_RESTRICT;
                if (*stmt).removeType == pg_sys::ObjectType::OBJECT_TYPE && plain {
                    let names = (0..pg_sys::list_length((*stmt).objects))
                        .map(|i| {
                            let name =
                                pg_sys::list_nth((*stmt).objects, i).cast::<pg_sys::TypeName>();
                            named(pg_sys::makeRangeVarFromNameList((*name).names))
                        })
                        .collect();
                    return Some(Maintenance::DropType { names });
                }
                if (*stmt).removeType != pg_sys::ObjectType::OBJECT_INDEX {
                    return None;
                }
                let names = (0..pg_sys::list_length((*stmt).objects))
                    .map(|i| {
                        let list = pg_sys::list_nth((*stmt).objects, i).cast();
                        named(pg_sys::makeRangeVarFromNameList(list))
                    })
                    .collect();
                Maintenance::DropIndex(DropIndex {
                    names,
                    concurrent: (*stmt).concurrent,
                    if_exists: (*stmt).missing_ok,
                    cascade: (*stmt).behavior == pg_sys::DropBehavior::DROP_CASCADE,
                })
            }
            T_ReindexStmt => {
                use pg_sys::ReindexObjectType::*;
                let stmt = node.cast::<pg_sys::ReindexStmt>();
                let schema = |name| Name { schema: None, name };
                let (target, name) = match (*stmt).kind {
                    REINDEX_OBJECT_INDEX => (ReindexTarget::Index, named((*stmt).relation)),
                    REINDEX_OBJECT_TABLE => (ReindexTarget::Table, named((*stmt).relation)),
                    REINDEX_OBJECT_SCHEMA => (
                        ReindexTarget::Schema,
                        schema(text((*stmt).name).unwrap_or_default()),
                    ),
                    _ => (
                        ReindexTarget::Database,
                        schema(text((*stmt).name).unwrap_or_default()),
                    ),
                };
                Maintenance::Reindex(Reindex {
                    target,
                    name,
                    options: options((*stmt).params)
                        .into_iter()
                        .filter(|(name, on)| *on && name != "concurrently" && name != "verbose")
                        .map(|(name, _)| name)
                        .collect(),
                })
            }
            T_RefreshMatViewStmt => {
                let stmt = node.cast::<pg_sys::RefreshMatViewStmt>();
                Maintenance::Refresh(Refresh {
                    name: named((*stmt).relation),
                    with_data: !(*stmt).skipData,
                })
            }
            T_VacuumStmt => {
                let stmt = node.cast::<pg_sys::VacuumStmt>();
                let tables = (0..pg_sys::list_length((*stmt).rels))
                    .map(|i| {
                        let item = pg_sys::list_nth((*stmt).rels, i);
                        named((*item.cast::<pg_sys::VacuumRelation>()).relation)
                    })
                    .collect();
                let options = options((*stmt).options);
                Maintenance::Vacuum(Vacuum {
                    tables,
                    full: options.iter().any(|(name, on)| name == "full" && *on),
                    options: options.into_iter().map(|(name, _)| name).collect(),
                })
            }
            T_ClusterStmt => {
                let stmt = node.cast::<pg_sys::ClusterStmt>();
                if (*stmt).relation.is_null() {
                    return None;
                }
                Maintenance::Cluster {
                    table: named((*stmt).relation),
                    index: text((*stmt).indexname),
                    options: options((*stmt).params)
                        .into_iter()
                        .map(|(name, _)| name)
                        .collect(),
                }
            }
            T_AlterEnumStmt if (*node.cast::<pg_sys::AlterEnumStmt>()).oldVal.is_null() => {
                Maintenance::AddEnumValue
            }
            T_AlterEnumStmt => {
                let stmt = node.cast::<pg_sys::AlterEnumStmt>();
                Maintenance::RenameEnumValue {
                    of: named(pg_sys::makeRangeVarFromNameList((*stmt).typeName)),
                    old: text((*stmt).oldVal)?,
                    new: text((*stmt).newVal)?,
                }
            }
            T_RenameStmt => {
                let stmt = node.cast::<pg_sys::RenameStmt>();
                if (*stmt).renameType != pg_sys::ObjectType::OBJECT_TYPE {
                    return None;
                }
                let names = (*stmt).object.cast::<pg_sys::List>();
                Maintenance::RenameType {
                    of: named(pg_sys::makeRangeVarFromNameList(names)),
                    new: text((*stmt).newname)?,
                }
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
