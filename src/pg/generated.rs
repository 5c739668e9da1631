//! The expression of a generated column, taken away and given again in the catalog alone: what ALTER COLUMN … DROP
//! EXPRESSION does (ATExecDropExpression, tablecmds.c), for virtual columns as well, and its reverse, which the server
//! does not have. Neither reads or writes a row: values that are stored stay what they are.

use super::compat::attribute_default;
use super::parser::to_c;
use super::relation::{LockMode, Table};
use crate::error::{Error, Result};
use pgrx::pg_sys;

/// pg_attribute.attgenerated of a column that is not a plain one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Generation {
    Stored,
    Virtual,
}

impl Generation {
    pub fn of_letter(letter: &str) -> Option<Generation> {
        match letter {
            "s" => Some(Generation::Stored),
            "v" => Some(Generation::Virtual),
            _ => None,
        }
    }

    fn letter(self) -> std::ffi::c_char {
        (match self {
            Generation::Stored => b's',
            Generation::Virtual => b'v',
        }) as std::ffi::c_char
    }
}

/// Makes a generated column a plain one.
pub fn clear(relation: pg_sys::Oid, column: i16) -> Result<()> {
    let _table = Table::open(relation, LockMode::AccessExclusive);
    set_letter(relation, column, 0)?;
    // SAFETY: the relation is open and locked. The expression's dependencies go first, above all the internal one on
    // its column, by which the deletion would be refused.
    unsafe {
        let default = attribute_default::oid(relation, column);
        if default == pg_sys::InvalidOid {
            return Err(Error::Bug(format!("column {column} has no expression")));
        }
        pg_sys::deleteDependencyRecordsFor(attribute_default::CATALOG, default, false);
        pg_sys::CommandCounterIncrement();
        attribute_default::remove(relation, column);
        pg_sys::CommandCounterIncrement();
    }
    Ok(())
}

/// Makes a plain column without default a generated one: the expression is checked and coerced as CREATE TABLE would,
/// under the search_path in force, and stored with its dependencies. Rows that are there keep the value they have.
pub fn set(
    relation: pg_sys::Oid,
    column: i16,
    generation: Generation,
    expression: &str,
) -> Result<()> {
    let table = Table::open(relation, LockMode::AccessExclusive);
    let source = to_c(expression)?;
    set_letter(relation, column, generation.letter())?;
    // SAFETY: the relation is open and locked; the parse tree and the list live in the current memory context, which
    // outlives the call.
    unsafe {
        pg_sys::CommandCounterIncrement();
        let raw = raw_expression(&source, expression)?;
        let definition = pg_sys::palloc0(std::mem::size_of::<pg_sys::RawColumnDefault>())
            .cast::<pg_sys::RawColumnDefault>();
        (*definition).attnum = column;
        (*definition).raw_default = raw;
        (*definition).generated = generation.letter();
        let list = pg_sys::lappend(std::ptr::null_mut(), definition.cast());
        pg_sys::AddRelationNewConstraints(
            table.0,
            list,
            std::ptr::null_mut(),
            false,
            true,
            false,
            source.as_ptr(),
        );
        pg_sys::CommandCounterIncrement();
    }
    Ok(())
}

/// The raw parse tree of one expression.
///
/// # Safety
/// `source` outlives the use of the tree.
pub(super) unsafe fn raw_expression(
    source: &std::ffi::CStr,
    text: &str,
) -> Result<*mut pg_sys::Node> {
    // SAFETY: RAW_PARSE_PLPGSQL_EXPR gives one RawStmt that holds a SelectStmt.
    unsafe {
        let list = pg_sys::raw_parser(
            source.as_ptr(),
            pg_sys::RawParseMode::RAW_PARSE_PLPGSQL_EXPR,
        );
        let raw = pg_sys::list_nth(list, 0).cast::<pg_sys::RawStmt>();
        let select = (*raw).stmt.cast::<pg_sys::SelectStmt>();
        if pg_sys::list_length((*select).targetList) != 1
            || !(*select).fromClause.is_null()
            || !(*select).whereClause.is_null()
        {
            return Err(Error::InvalidArgument {
                problem: "not one expression".into(),
                detail: text.to_string(),
                hint: "Write an expression over columns of the row.".into(),
            });
        }
        let target = pg_sys::list_nth((*select).targetList, 0).cast::<pg_sys::ResTarget>();
        Ok((*target).val)
    }
}

fn set_letter(relation: pg_sys::Oid, column: i16, letter: std::ffi::c_char) -> Result<()> {
    // SAFETY: the syscache copy is ours to change; the caller has the relation locked.
    unsafe {
        let catalog =
            pg_sys::table_open(pg_sys::AttributeRelationId, pg_sys::RowExclusiveLock as i32);
        let tuple = pg_sys::SearchSysCacheCopy(
            pg_sys::SysCacheIdentifier::ATTNUM as i32,
            pg_sys::Datum::from(relation),
            pg_sys::Datum::from(column),
            pg_sys::Datum::from(0),
            pg_sys::Datum::from(0),
        );
        if tuple.is_null() {
            return Err(Error::Bug(format!(
                "relation {} has no column {column}",
                relation.to_u32()
            )));
        }
        let attribute = &mut *pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_attribute>();
        let is_plain = attribute.attgenerated == 0 && !attribute.atthasdef;
        if (letter != 0) != is_plain || attribute.attisdropped || attribute.attidentity != 0 {
            return Err(Error::Bug(format!(
                "column {column} is not what its generation is to be changed of"
            )));
        }
        attribute.attgenerated = letter;
        pg_sys::CatalogTupleUpdate(catalog, &mut (*tuple).t_self, tuple);
        pg_sys::heap_freetuple(tuple);
        pg_sys::table_close(catalog, pg_sys::RowExclusiveLock as i32);
    }
    Ok(())
}
