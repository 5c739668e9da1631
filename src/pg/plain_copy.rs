//! INSERT … SELECT that copies rows as they are: columns of one table into columns of another, all rows, nothing computed.

use super::dml::parse;
use super::parser::text;
use crate::error::Result;
use pgrx::pg_sys;

/// What it names. Where it names no columns, all are meant, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlainCopy {
    pub into: (Option<String>, String),
    pub from: (Option<String>, String),
    /// Of the table that is written.
    pub columns: Option<Vec<String>>,
    pub selected: Vec<Selected>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selected {
    All,
    Column(String),
}

/// The copy that an INSERT is; `Err` says why it is more than that.
pub fn of(sql: &str) -> Result<std::result::Result<PlainCopy, &'static str>> {
    let parsed = parse(sql)?;
    // SAFETY: nodes of the raw parser in this memory context; each cast follows the node's own tag.
    unsafe {
        let node = (*parsed.raw).stmt;
        match (*node).type_ {
            pg_sys::NodeTag::T_InsertStmt => Ok(read(&*node.cast::<pg_sys::InsertStmt>())),
            _ => Ok(Err("it is no INSERT")),
        }
    }
}

/// # Safety
/// `insert` comes from the raw parser.
unsafe fn read(insert: &pg_sys::InsertStmt) -> std::result::Result<PlainCopy, &'static str> {
    // SAFETY: by the contract above; casts follow the tags.
    unsafe {
        let node = insert.selectStmt;
        if node.is_null() || (*node).type_ != pg_sys::NodeTag::T_SelectStmt {
            return Err("it inserts no rows of a table");
        }
        let select = &*node.cast::<pg_sys::SelectStmt>();
        if !insert.withClause.is_null()
            || !insert.onConflictClause.is_null()
            || super::compat::insert_returns(insert)
            || !select.withClause.is_null()
        {
            return Err("it has WITH, ON CONFLICT or RETURNING");
        }
        let plain = select.op == pg_sys::SetOperation::SETOP_NONE
            && select.valuesLists.is_null()
            && select.distinctClause.is_null()
            && select.groupClause.is_null()
            && select.havingClause.is_null()
            && select.windowClause.is_null()
            && select.limitOffset.is_null()
            && select.limitCount.is_null()
            && select.lockingClause.is_null()
            && select.intoClause.is_null();
        if !plain || pg_sys::list_length(select.fromClause) != 1 {
            return Err("its SELECT is more than the rows of one table");
        }
        if !select.whereClause.is_null() {
            return Err("its SELECT leaves rows out");
        }
        let source = pg_sys::list_nth(select.fromClause, 0).cast::<pg_sys::Node>();
        if (*source).type_ != pg_sys::NodeTag::T_RangeVar {
            return Err("its SELECT is more than the rows of one table");
        }
        let source = &*source.cast::<pg_sys::RangeVar>();
        let mut selected = Vec::new();
        for i in 0..pg_sys::list_length(select.targetList) {
            let target = &*pg_sys::list_nth(select.targetList, i).cast::<pg_sys::ResTarget>();
            selected.push(column(target.val).ok_or("it computes a column")?);
        }
        let columns = (0..pg_sys::list_length(insert.cols)).map(|i| {
            let target = &*pg_sys::list_nth(insert.cols, i).cast::<pg_sys::ResTarget>();
            match target.indirection.is_null() {
                true => text(target.name).ok_or("it names a part of a column"),
                false => Err("it names a part of a column"),
            }
        });
        let columns: Vec<String> = columns.collect::<std::result::Result<_, _>>()?;
        Ok(PlainCopy {
            into: named(&*insert.relation),
            from: named(source),
            columns: (!columns.is_empty()).then_some(columns),
            selected,
        })
    }
}

/// # Safety
/// `relation` comes from the raw parser.
unsafe fn named(relation: &pg_sys::RangeVar) -> (Option<String>, String) {
    // SAFETY: by the contract above.
    unsafe {
        (
            text(relation.schemaname),
            text(relation.relname).unwrap_or_default(),
        )
    }
}

/// The column, or all of them, that an expression is and nothing more.
///
/// # Safety
/// `node` comes from the raw parser.
unsafe fn column(node: *mut pg_sys::Node) -> Option<Selected> {
    // SAFETY: by the contract above; casts follow the tags.
    unsafe {
        if node.is_null() || (*node).type_ != pg_sys::NodeTag::T_ColumnRef {
            return None;
        }
        let fields = (*node.cast::<pg_sys::ColumnRef>()).fields;
        let last = pg_sys::list_length(fields) - 1;
        let field = pg_sys::list_nth(fields, last).cast::<pg_sys::Node>();
        match (*field).type_ {
            pg_sys::NodeTag::T_A_Star => Some(Selected::All),
            pg_sys::NodeTag::T_String => {
                text((*field.cast::<pg_sys::String>()).sval).map(Selected::Column)
            }
            _ => None,
        }
    }
}
