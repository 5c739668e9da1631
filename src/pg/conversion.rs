//! The expressions that make a row of the new shape: what ATPrepAlterColumnType and ATExecAddColumn prepare
//! (tablecmds.c), from the DBA's statement and the shadow's own defaults.

use super::composed::Columns;
use super::expression::columns_read;
use super::parser::to_c;
use super::relation::Table;
use super::row::attribute;
use crate::error::{Error, Result};
use pgrx::pg_sys;
use std::ffi::CStr;

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
/// (ATPrepAlterColumnType), to the type that the shadow got: (attribute index, expression). What a later statement makes of a
/// column that an earlier one has converted is one expression over the row as it was.
pub(super) fn conversions(
    old: &Table,
    new: &Table,
    alter: &str,
) -> Result<Vec<(usize, *mut pg_sys::Node)>> {
    let source = to_c(alter)?;
    let mut result: Vec<(usize, *mut pg_sys::Node)> = Vec::new();
    let mut columns = Columns::default();
    // SAFETY: node types follow the statement's and subcommands' tags; everything is allocated in the
    // current (executor state's) context.
    unsafe {
        let statements = retyping_commands(&source);
        for (i, commands) in statements.iter().enumerate() {
            let mut made = Vec::new();
            for command in commands {
                let number = pg_sys::get_attnum((*old.0).rd_id, (**command).name);
                if number <= 0 {
                    continue; // added by an earlier statement: such statements are not done together
                }
                let made_of = attribute((*new.0).rd_att, (number - 1) as usize);
                if made_of.attisdropped {
                    continue;
                }
                let again = statements[i + 1..].iter().flatten().any(|later| {
                    CStr::from_ptr((**later).name) == CStr::from_ptr((**command).name)
                });
                let target = match again {
                    false => (made_of.atttypid, made_of.atttypmod, made_of.attcollation),
                    true => written_type((**command).def.cast()),
                };
                let value = conversion(old, &source, *command, number, &columns, target)?;
                made.push((number, value, target));
            }
            for (number, value, target) in made {
                let index = (number - 1) as usize;
                result.retain(|(i, _)| *i != index);
                result.push((index, value));
                columns.set(number, value, target);
            }
        }
    }
    Ok(result)
}

/// The ALTER COLUMN TYPE of each ALTER TABLE of a script, in order; its other statements build indexes.
///
/// # Safety
/// `source` outlives what is returned.
unsafe fn retyping_commands(source: &CStr) -> Vec<Vec<*mut pg_sys::AlterTableCmd>> {
    // SAFETY: node types follow the statements' tags.
    unsafe {
        let list = pg_sys::raw_parser(source.as_ptr(), pg_sys::RawParseMode::RAW_PARSE_DEFAULT);
        (0..pg_sys::list_length(list))
            .map(|i| (*pg_sys::list_nth(list, i).cast::<pg_sys::RawStmt>()).stmt)
            .filter(|node| (**node).type_ == pg_sys::NodeTag::T_AlterTableStmt)
            .map(|node| {
                let commands = (*node.cast::<pg_sys::AlterTableStmt>()).cmds;
                (0..pg_sys::list_length(commands))
                    .map(|i| pg_sys::list_nth(commands, i).cast::<pg_sys::AlterTableCmd>())
                    .filter(|c| (**c).subtype == pg_sys::AlterTableType::AT_AlterColumnType)
                    .collect()
            })
            .collect()
    }
}

/// The type that an ALTER COLUMN TYPE gives a column, by its name.
///
/// # Safety
/// `definition` is that of the subcommand.
unsafe fn written_type(definition: *mut pg_sys::ColumnDef) -> (pg_sys::Oid, i32, pg_sys::Oid) {
    let (mut type_oid, mut typmod) = (pg_sys::Oid::INVALID, -1);
    // SAFETY: by the contract above.
    unsafe {
        let state = pg_sys::make_parsestate(std::ptr::null_mut());
        let name = (*definition).typeName;
        pg_sys::typenameTypeIdAndMod(state, name, &mut type_oid, &mut typmod);
        let collation = pg_sys::GetColumnDefCollation(state, definition, type_oid);
        (type_oid, typmod, collation)
    }
}

/// What one ALTER COLUMN TYPE makes of column `number`, behind statements that have made `columns`.
///
/// # Safety
/// `command` is an ALTER COLUMN TYPE of `source`; the table is open.
unsafe fn conversion(
    old: &Table,
    source: &CStr,
    command: *mut pg_sys::AlterTableCmd,
    number: i16,
    columns: &Columns,
    (type_oid, typmod, _): (pg_sys::Oid, i32, pg_sys::Oid),
) -> Result<*mut pg_sys::Node> {
    // SAFETY: by the contract above; the namespace item is that of the table.
    unsafe {
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
        columns.show(item);
        pg_sys::addNSItemToQuery(state, item, false, true, true);
        let using = (*(*command).def.cast::<pg_sys::ColumnDef>()).raw_default;
        let expression: *mut pg_sys::Node = if using.is_null() {
            let now = *(*item).p_nscolumns.add((number - 1) as usize);
            let (typmod, collation) = (now.p_vartypmod, now.p_varcollid);
            pg_sys::makeVar(1, number, now.p_vartype, typmod, collation, 0).cast()
        } else {
            let kind = pg_sys::ParseExprKind::EXPR_KIND_ALTER_COL_TRANSFORM;
            pg_sys::transformExpr(state, using, kind)
        };
        let coerced = pg_sys::coerce_to_target_type(
            state,
            expression,
            pg_sys::exprType(expression),
            type_oid,
            typmod,
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
        if !columns.is_empty() {
            require_of_columns(old, coerced)?;
        }
        let expanded = super::compat::expand_generated_columns(coerced, old.0);
        Ok(columns.resolve(expanded))
    }
}

/// Of a row that statements have changed only plain columns are known: a generated one is computed anew by the server.
///
/// # Safety
/// `expression` is transformed, over the open table.
unsafe fn require_of_columns(table: &Table, expression: *mut pg_sys::Node) -> Result<()> {
    // SAFETY: by the contract above; numbers are within the descriptor.
    unsafe {
        let generated =
            |number: i16| attribute((*table.0).rd_att, (number - 1) as usize).attgenerated != 0;
        let read = columns_read(expression);
        if !read.iter().any(|number| *number < 1 || generated(*number)) {
            return Ok(());
        }
    }
    Err(Error::Unsupported {
        problem: "USING reads the whole row, a system column or a generated one behind a statement that converts a column".into(),
        detail: "What an earlier statement of the script makes of it is not known before it runs.".into(),
        hint: "Name the columns that it is computed from, or write one ALTER TABLE.".into(),
    })
}
