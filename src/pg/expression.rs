//! Expressions over one row of a table: transformed as the server does for a generated column, and written down so that
//! they mean the same whatever the session.

use super::composed::Columns;
use super::conversion::is_injective;
use super::identity::{self, Session};
use super::parser::to_c;
use super::relation::{LockMode, Table};
use crate::error::{Error, Result};
use pgrx::pg_sys;
use std::ffi::{CStr, CString};

/// An expression as the server understands it, for one column.
#[derive(Debug, Clone)]
pub struct Expression {
    /// Every name is qualified.
    pub text: String,
    /// Columns that it reads.
    pub sources: Vec<i16>,
    /// The same row always gives the same value.
    pub immutable: bool,
    /// It may give another value each time.
    pub volatile: bool,
    /// It is this column, or a cast of it that keeps different values different.
    pub copies: Option<i16>,
}

/// What an expression has in it that only a query can give.
pub(super) const NOT_OF_A_ROW: &str = "an expression of it is more than an expression over the row";

const READS_A_ROW: &str = "an expression of it reads the row as a whole, or a system column";

/// Names and constants as they are written down: no search_path, no date style of a session's.
pub fn canonical() -> Session {
    let setting = |name: &str, value: &str| (name.to_string(), value.to_string());
    Session {
        search_path: "pg_catalog, pg_temp".into(),
        settings: vec![
            setting("DateStyle", "ISO, YMD"),
            setting("IntervalStyle", "postgres"),
            setting("TimeZone", "UTC"),
            setting("extra_float_digits", "1"),
            setting("bytea_output", "hex"),
            setting("xmloption", "content"),
            setting("standard_conforming_strings", "on"),
            setting("transform_null_equals", "off"),
        ],
    }
}

/// Understands `text` as the value of a column of the table, under the search_path in force. An ERROR where the server
/// finds it wrong.
pub fn understand(relation: pg_sys::Oid, column: i16, text: &str) -> Result<Expression> {
    let table = Table::open(relation, LockMode::AccessShare);
    // SAFETY: the table is open; the tree lives in the current memory context.
    unsafe {
        let source = to_c(text)?;
        let raw = super::generated::raw_expression(&source, text)?;
        let scope = Scope::of(&table, None, &source);
        scope
            .understand(raw, column)?
            .map_err(|why| Error::InvalidArgument {
                problem: why.into(),
                detail: text.to_string(),
                hint: "Write an expression over columns of the row.".into(),
            })
    }
}

/// Where the columns of one table are known by their names.
pub(super) struct Scope<'a> {
    table: &'a Table,
    state: *mut pg_sys::ParseState,
}

impl<'a> Scope<'a> {
    /// `alias`: the name the statement gives to the table, and to its columns.
    ///
    /// # Safety
    /// `alias` is NULL or an Alias node; `source` outlives the scope.
    pub(super) unsafe fn of(
        table: &'a Table,
        alias: Option<*mut pg_sys::Alias>,
        source: &CStr,
    ) -> Scope<'a> {
        // SAFETY: by the contract above.
        unsafe {
            let state = pg_sys::make_parsestate(std::ptr::null_mut());
            (*state).p_sourcetext = source.as_ptr();
            let item = pg_sys::addRangeTableEntryForRelation(
                state,
                table.0,
                pg_sys::AccessShareLock as i32,
                alias.unwrap_or(std::ptr::null_mut()),
                false,
                true,
            );
            pg_sys::addNSItemToQuery(state, item, false, true, true);
            Scope { table, state }
        }
    }

    /// The expression, coerced to the column's type as an assignment; or why it is none over the row alone.
    ///
    /// # Safety
    /// `raw` is an expression of the raw parser.
    pub(super) unsafe fn transform(
        &self,
        raw: *mut pg_sys::Node,
        column: i16,
    ) -> Result<std::result::Result<*mut pg_sys::Node, &'static str>> {
        // SAFETY: by the contract above; the attribute is within the descriptor, which is looked at first.
        unsafe {
            let desc = (*self.table.0).rd_att;
            if column < 1 || i32::from(column) > (*desc).natts {
                return Err(Error::Bug(format!("there is no column {column}")));
            }
            let target = super::row::attribute(desc, (column - 1) as usize);
            let state = self.state;
            let expression =
                pg_sys::transformExpr(state, raw, pg_sys::ParseExprKind::EXPR_KIND_UPDATE_SOURCE);
            let queries = (*state).p_hasSubLinks
                || (*state).p_hasAggs
                || (*state).p_hasWindowFuncs
                || (*state).p_hasTargetSRFs;
            if queries {
                return Ok(Err(NOT_OF_A_ROW));
            }
            let coerced = pg_sys::coerce_to_target_type(
                state,
                expression,
                pg_sys::exprType(expression),
                target.atttypid,
                target.atttypmod,
                pg_sys::CoercionContext::COERCION_ASSIGNMENT,
                pg_sys::CoercionForm::COERCE_IMPLICIT_CAST,
                -1,
            );
            if coerced.is_null() {
                return Err(Error::InvalidArgument {
                    problem: format!(
                        "column \"{}\" and its expression have different types",
                        super::name(&target.attname)
                    ),
                    detail: format!(
                        "The expression is of type {}, the column of type {}.",
                        type_name(pg_sys::exprType(expression)),
                        type_name(target.atttypid)
                    ),
                    hint: "Cast the expression.".into(),
                });
            }
            pg_sys::assign_expr_collations(state, coerced);
            Ok(Ok(coerced))
        }
    }

    /// # Safety
    /// As `transform`.
    pub(super) unsafe fn understand(
        &self,
        raw: *mut pg_sys::Node,
        column: i16,
    ) -> Result<std::result::Result<Expression, &'static str>> {
        // SAFETY: by the contract above.
        unsafe {
            match self.transform(raw, column)? {
                Ok(node) => self.describe(node),
                Err(why) => Ok(Err(why)),
            }
        }
    }

    /// # Safety
    /// `node` was transformed in this scope.
    unsafe fn describe(
        &self,
        node: *mut pg_sys::Node,
    ) -> Result<std::result::Result<Expression, &'static str>> {
        // SAFETY: by the contract above; what is pulled and printed is the transformed tree.
        unsafe {
            let sources = columns_read(node);
            if sources.iter().any(|number| *number < 1) {
                return Ok(Err(READS_A_ROW));
            }
            let copies = match sources.as_slice() {
                [only] if is_injective(node, *only) => Some(*only),
                _ => None,
            };
            let relation = self.table.0;
            let text = identity::with_settings(&canonical(), || {
                let name = pg_sys::get_rel_name((*relation).rd_id);
                let context = pg_sys::deparse_context_for(name, (*relation).rd_id);
                let text = pg_sys::deparse_expression(node, context, false, false);
                Ok(CStr::from_ptr(text).to_string_lossy().into_owned())
            })?;
            Ok(Ok(Expression {
                text,
                sources,
                immutable: !pg_sys::contain_mutable_functions(node),
                volatile: pg_sys::contain_volatile_functions(node),
                copies,
            }))
        }
    }
}

/// Attribute numbers that an expression reads of range table entry 1; 0: the row as a whole, less: system columns.
///
/// # Safety
/// `expression` is a transformed expression.
pub(super) unsafe fn columns_read(expression: *mut pg_sys::Node) -> Vec<i16> {
    let mut read = std::ptr::null_mut();
    let mut columns = Vec::new();
    let mut member = -1;
    // SAFETY: by the contract above; the set holds attribute numbers from the lowest of a system column on.
    unsafe {
        pg_sys::pull_varattnos(expression, 1, &mut read);
        loop {
            member = pg_sys::bms_next_member(read, member);
            if member < 0 {
                return columns;
            }
            columns.push((member + pg_sys::FirstLowInvalidHeapAttributeNumber) as i16);
        }
    }
}

fn type_name(oid: pg_sys::Oid) -> String {
    // SAFETY: a palloc'd string.
    unsafe {
        CStr::from_ptr(pg_sys::format_type_be(oid))
            .to_string_lossy()
            .into_owned()
    }
}

/// One SET of an UPDATE.
#[derive(Debug, Clone)]
pub struct Assigned {
    pub column: i16,
    pub name: String,
    pub expression: Expression,
}

/// What these `UPDATE table SET column = expression over the row, …`, one behind the other, make of the columns of a row, looked
/// up on `relation`, which may be a copy of the table they name; or why one is not just that. A column that an earlier one
/// has set is what that made of it: every expression is one over the row before the first.
pub fn of_updates(
    updates: &[&str],
    relation: pg_sys::Oid,
) -> Result<std::result::Result<Vec<Assigned>, String>> {
    let table = Table::open(relation, LockMode::AccessShare);
    let mut columns = Columns::default();
    let mut found: Vec<Assigned> = Vec::new();
    for sql in updates {
        // SAFETY: the table is open; trees live in the current memory context.
        let assigned = match unsafe { of_update(sql, &table, &columns)? } {
            Ok(assigned) => assigned,
            Err(why) => return Ok(Err(why)),
        };
        for (one, node) in assigned {
            found.retain(|f| f.column != one.column);
            // SAFETY: the column is one of the table's, its number was looked up there.
            let target =
                unsafe { super::row::attribute((*table.0).rd_att, (one.column - 1) as usize) };
            let shape = (target.atttypid, target.atttypmod, target.attcollation);
            columns.set(one.column, node, shape);
            found.push(one);
        }
    }
    Ok(Ok(found))
}

/// One of them: each column with its value.
///
/// # Safety
/// `columns` were made over the same table, in the current memory context.
unsafe fn of_update(
    sql: &str,
    table: &Table,
    columns: &Columns,
) -> Result<std::result::Result<Vec<(Assigned, *mut pg_sys::Node)>, String>> {
    let refuse = |why: &str| Ok(Err(why.to_string()));
    let parsed = super::dml::parse(sql)?;
    let source: CString = to_c(sql)?;
    // SAFETY: each cast follows the node's own tag; nodes live in the current memory context.
    unsafe {
        let node = (*parsed.raw).stmt;
        if (*node).type_ != pg_sys::NodeTag::T_UpdateStmt {
            return refuse("it is not an UPDATE");
        }
        let update = &*node.cast::<pg_sys::UpdateStmt>();
        if !update.whereClause.is_null() {
            return refuse("it has a WHERE");
        }
        if !update.fromClause.is_null() || !update.withClause.is_null() {
            return refuse(NOT_OF_A_ROW);
        }
        if !super::compat::returns_nothing(update) {
            return refuse("it has a RETURNING");
        }
        let named = update.relation;
        let alias = match (*named).alias.is_null() {
            false => (*named).alias,
            // A copy is known by the name of the table.
            true => pg_sys::makeAlias((*named).relname, std::ptr::null_mut()),
        };
        let scope = Scope::of(table, Some(alias), &source);
        let mut found: Vec<(Assigned, *mut pg_sys::Node)> = Vec::new();
        for i in 0..pg_sys::list_length(update.targetList) {
            let target = &*pg_sys::list_nth(update.targetList, i).cast::<pg_sys::ResTarget>();
            let Some(raw) = value_of(target) else {
                return refuse(NOT_OF_A_ROW);
            };
            let name = CStr::from_ptr(target.name).to_string_lossy().into_owned();
            let column = pg_sys::get_attnum((*table.0).rd_id, target.name);
            if column < 1 {
                return refuse("it sets a column that is not there");
            }
            if found.iter().any(|(f, _)| f.column == column) {
                return refuse(&format!("{name} is set twice"));
            }
            let node = match scope.transform(raw, column)? {
                Ok(node) => node,
                Err(why) => return refuse(why),
            };
            if columns_read(node).iter().any(|number| *number < 1) {
                return refuse(READS_A_ROW);
            }
            let node = columns.resolve(node);
            match scope.describe(node)? {
                Ok(expression) => found.push((
                    Assigned {
                        column,
                        name,
                        expression,
                    },
                    node,
                )),
                Err(why) => return refuse(why),
            }
        }
        Ok(Ok(found))
    }
}

/// The expression of one SET, also of `SET (a, b) = (x, y)`; `None`: it is something else.
///
/// # Safety
/// `target` is a ResTarget of an UPDATE of the raw parser.
unsafe fn value_of(target: &pg_sys::ResTarget) -> Option<*mut pg_sys::Node> {
    // SAFETY: each cast follows the node's own tag.
    unsafe {
        if !target.indirection.is_null() || target.val.is_null() || target.name.is_null() {
            return None;
        }
        match (*target.val).type_ {
            pg_sys::NodeTag::T_SetToDefault => None,
            pg_sys::NodeTag::T_MultiAssignRef => {
                let part = &*target.val.cast::<pg_sys::MultiAssignRef>();
                if part.source.is_null() || (*part.source).type_ != pg_sys::NodeTag::T_RowExpr {
                    return None;
                }
                let row = &*part.source.cast::<pg_sys::RowExpr>();
                if pg_sys::list_length(row.args) != part.ncolumns {
                    return None;
                }
                let value = pg_sys::list_nth(row.args, part.colno - 1).cast::<pg_sys::Node>();
                ((*value).type_ != pg_sys::NodeTag::T_SetToDefault).then_some(value)
            }
            _ => Some(target.val),
        }
    }
}
