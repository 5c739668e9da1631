//! The expressions that make a row of the new shape: what ATPrepAlterColumnType and ATExecAddColumn prepare
//! (tablecmds.c), from the DBA's statement and the shadow's own defaults.

use super::parser::to_c;
use super::relation::Table;
use super::row::attribute;
use crate::error::{Error, Result};
use pgrx::pg_sys;

/// Default of a new column, or, for a domain without one, NULL coerced so that its constraints are
/// checked (ATExecAddColumn).
///
/// # Safety
/// Called inside a transaction with `table` open and `i` a live column.
pub(super) unsafe fn new_column(table: &Table, i: usize) -> *mut pg_sys::Node {
    // SAFETY: by the contract above.
    unsafe {
        let default = pg_sys::build_column_default(table.0, i as i32 + 1);
        if !default.is_null() {
            return default;
        }
        let column = attribute((*table.0).rd_att, i);
        let base = pg_sys::getBaseType(column.atttypid);
        if base == column.atttypid {
            return std::ptr::null_mut();
        }
        let null = pg_sys::makeNullConst(base, -1, pg_sys::get_typcollation(base));
        pg_sys::coerce_to_target_type(
            std::ptr::null_mut(),
            null.cast(),
            base,
            column.atttypid,
            column.atttypmod,
            pg_sys::CoercionContext::COERCION_ASSIGNMENT,
            pg_sys::CoercionForm::COERCE_IMPLICIT_CAST,
            -1,
        )
    }
}

/// Whether an expression is nothing but casts of column `number` of range table entry 1, each of which keeps different
/// values different. Rows are found in the shadow by their converted key, so two keys must never become one.
///
/// # Safety
/// `expression` is a transformed expression.
pub(super) unsafe fn is_injective(expression: *mut pg_sys::Node, number: i16) -> bool {
    use pg_sys::NodeTag::*;
    // SAFETY: each cast follows the node's tag.
    unsafe {
        let (argument, lossless) = match (*expression).type_ {
            T_Var => {
                let variable = expression.cast::<pg_sys::Var>();
                return (*variable).varattno == number;
            }
            T_RelabelType => ((*expression.cast::<pg_sys::RelabelType>()).arg.cast(), true),
            T_CoerceToDomain => {
                let argument = (*expression.cast::<pg_sys::CoerceToDomain>()).arg;
                (argument.cast(), true)
            }
            T_CoerceViaIO => {
                let argument: *mut pg_sys::Node =
                    (*expression.cast::<pg_sys::CoerceViaIO>()).arg.cast();
                (argument, UNIQUE_TEXT.contains(&pg_sys::exprType(argument)))
            }
            T_FuncExpr => {
                let call = expression.cast::<pg_sys::FuncExpr>();
                if pg_sys::list_length((*call).args) != 1 {
                    return false;
                }
                let argument = pg_sys::list_nth((*call).args, 0).cast::<pg_sys::Node>();
                let types = (pg_sys::exprType(argument), (*call).funcresulttype);
                let is_cast = (*call).funcformat != pg_sys::CoercionForm::COERCE_EXPLICIT_CALL;
                (argument, is_cast && LOSSLESS.contains(&types))
            }
            _ => return false,
        };
        lossless && is_injective(argument, number)
    }
}

/// Whether an expression reads one of these columns (attribute numbers) of range table entry 1.
///
/// # Safety
/// `expression` is a transformed expression.
pub(super) unsafe fn reads_any(expression: *mut pg_sys::Node, columns: &[i16]) -> bool {
    // SAFETY: by the contract above; the set holds attribute numbers from the lowest of a system column on.
    unsafe {
        let mut read = std::ptr::null_mut();
        pg_sys::pull_varattnos(expression, 1, &mut read);
        columns.iter().any(|number| {
            let member = i32::from(*number) - pg_sys::FirstLowInvalidHeapAttributeNumber;
            pg_sys::bms_is_member(member, read)
        })
    }
}

/// Types whose equal values have one text.
const UNIQUE_TEXT: [pg_sys::Oid; 6] = [
    pg_sys::INT2OID,
    pg_sys::INT4OID,
    pg_sys::INT8OID,
    pg_sys::UUIDOID,
    pg_sys::OIDOID,
    pg_sys::BOOLOID,
];

/// Casts by function that lose nothing, or raise an ERROR where they would.
const LOSSLESS: [(pg_sys::Oid, pg_sys::Oid); 12] = [
    (pg_sys::INT4OID, pg_sys::INT2OID),
    (pg_sys::INT8OID, pg_sys::INT2OID),
    (pg_sys::INT8OID, pg_sys::INT4OID),
    (pg_sys::INT2OID, pg_sys::INT4OID),
    (pg_sys::INT2OID, pg_sys::INT8OID),
    (pg_sys::INT4OID, pg_sys::INT8OID),
    (pg_sys::INT2OID, pg_sys::NUMERICOID),
    (pg_sys::INT4OID, pg_sys::NUMERICOID),
    (pg_sys::INT8OID, pg_sys::NUMERICOID),
    (pg_sys::FLOAT4OID, pg_sys::FLOAT8OID),
    (pg_sys::DATEOID, pg_sys::TIMESTAMPOID),
    (pg_sys::BPCHAROID, pg_sys::TEXTOID),
];

/// The conversion of each column that the script of ALTERs retypes, transformed against the table
/// (ATPrepAlterColumnType), to the type that the shadow got: (attribute index, expression).
pub(super) fn conversions(
    old: &Table,
    new: &Table,
    alter: &str,
) -> Result<Vec<(usize, *mut pg_sys::Node)>> {
    let source = to_c(alter)?;
    let mut result = Vec::new();
    // SAFETY: node types follow the statement's and subcommands' tags; everything is allocated in the
    // current (executor state's) context.
    unsafe {
        let list = pg_sys::raw_parser(source.as_ptr(), pg_sys::RawParseMode::RAW_PARSE_DEFAULT);
        let mut commands = Vec::new();
        for i in 0..pg_sys::list_length(list) {
            let raw = pg_sys::list_nth(list, i).cast::<pg_sys::RawStmt>();
            // The other statements build indexes.
            if (*(*raw).stmt).type_ == pg_sys::NodeTag::T_AlterTableStmt {
                let list = (*(*raw).stmt.cast::<pg_sys::AlterTableStmt>()).cmds;
                commands.extend((0..pg_sys::list_length(list)).map(|i| pg_sys::list_nth(list, i)));
            }
        }
        for command in commands {
            let command = command.cast::<pg_sys::AlterTableCmd>();
            if (*command).subtype != pg_sys::AlterTableType::AT_AlterColumnType {
                continue;
            }
            let number = pg_sys::get_attnum((*old.0).rd_id, (*command).name);
            if number <= 0 {
                continue; // added by the same statement's earlier subcommand: not possible in PostgreSQL
            }
            let index = (number - 1) as usize;
            let target = attribute((*new.0).rd_att, index);
            let state = pg_sys::make_parsestate(std::ptr::null_mut());
            (*state).p_sourcetext = source.as_ptr();
            let item = pg_sys::addRangeTableEntryForRelation(
                state,
                old.0,
                pg_sys::AccessShareLock as i32,
                std::ptr::null_mut(),
                false,
                true,
            );
            pg_sys::addNSItemToQuery(state, item, false, true, true);
            let using = (*(*command).def.cast::<pg_sys::ColumnDef>()).raw_default;
            let source_attribute = attribute((*old.0).rd_att, index);
            let expression: *mut pg_sys::Node = if using.is_null() {
                pg_sys::makeVar(
                    1,
                    number,
                    source_attribute.atttypid,
                    source_attribute.atttypmod,
                    source_attribute.attcollation,
                    0,
                )
                .cast()
            } else {
                pg_sys::transformExpr(
                    state,
                    using,
                    pg_sys::ParseExprKind::EXPR_KIND_ALTER_COL_TRANSFORM,
                )
            };
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
                return Err(Error::Bug(
                    "the server accepted a conversion that cannot be made".into(),
                ));
            }
            pg_sys::assign_expr_collations(state, coerced);
            let expanded = super::compat::expand_generated_columns(coerced, old.0);
            result.push((index, expanded));
        }
    }
    Ok(result)
}
