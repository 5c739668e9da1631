//! The capture trigger: appends the key of each changed row to the key log, and nothing else. No SPI,
//! no expression, no index: one small heap insert.
//!
//! Arguments: oid and name of the key log, then the attribute numbers of the key; that of ctid where the table has none. The
//! name guards against an oid that means another table in a restored copy; a NULL row stands for TRUNCATE.

use super::key::key_value;
use crate::model::address;
use pgrx::pg_sys;
use pgrx::prelude::*;
use std::ffi::CStr;

const TRUNCATE: u32 = pg_sys::TRIGGER_EVENT_TRUNCATE;
const OPERATION: u32 = pg_sys::TRIGGER_EVENT_OPMASK;
/// INDEX_MAX_KEYS: a key has no more columns.
const MAX_COLUMNS: usize = pg_sys::INDEX_MAX_KEYS as usize;

/// V1 calling convention record that CREATE FUNCTION looks for.
#[no_mangle]
pub extern "C" fn pg_finfo_transmute_capture() -> &'static pg_sys::Pg_finfo_record {
    const RECORD: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
    &RECORD
}

/// `_transmute.capture()`.
///
/// # Safety
/// Called by the server as a trigger function.
#[no_mangle]
#[pg_guard]
pub unsafe extern "C-unwind" fn transmute_capture(
    fcinfo: pg_sys::FunctionCallInfo,
) -> pg_sys::Datum {
    // SAFETY: called by the trigger manager: context is a TriggerData, slots hold the rows, relations
    // are open and locked. Checked before use.
    unsafe {
        let context = (*fcinfo).context;
        if context.is_null() || (*context).type_ != pg_sys::NodeTag::T_TriggerData {
            ereport!(
                ERROR,
                PgSqlErrorCode::ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED,
                "_transmute.capture() is a trigger function"
            );
        }
        let data = &*context.cast::<pg_sys::TriggerData>();
        let trigger = &*data.tg_trigger;
        let arguments = std::slice::from_raw_parts(trigger.tgargs, trigger.tgnargs as usize);
        let Some(log) = open_log(arguments) else {
            return pg_sys::Datum::from(0);
        };
        let mut columns = [0i16; MAX_COLUMNS];
        let count = arguments.len() - 2;
        for (column, text) in columns.iter_mut().zip(&arguments[2..]) {
            *column = parse_number(*text);
        }
        let columns = &columns[..count];
        match data.tg_event & OPERATION {
            // The key, or the log, was changed by hand: say "everything", as for TRUNCATE; the migration cannot end
            // with such a table, but the application's statement must neither fail nor write nonsense.
            _ if !same_types(log, (*data.tg_relation).rd_att, columns) => {
                append(log, None, columns)
            }
            TRUNCATE => append(log, None, columns),
            pg_sys::TRIGGER_EVENT_UPDATE => {
                append(log, Some(data.tg_newslot), columns);
                if !same_key(
                    data.tg_trigslot,
                    data.tg_newslot,
                    columns,
                    (*data.tg_relation).rd_att,
                ) {
                    append(log, Some(data.tg_trigslot), columns);
                }
            }
            _ => append(log, Some(data.tg_trigslot), columns),
        }
        pg_sys::table_close(log, pg_sys::NoLock as i32);
        super::written::tell((*data.tg_relation).rd_id);
    }
    pg_sys::Datum::from(0)
}

/// An attribute number.
///
/// # Safety
/// `text` is NUL-terminated.
unsafe fn parse_number(text: *const std::ffi::c_char) -> i16 {
    // SAFETY: by the contract above; behind the sign the text goes on.
    unsafe {
        match *text as u8 {
            b'-' => -(parse(text.add(1)) as i16),
            _ => parse(text) as i16,
        }
    }
}

/// # Safety
/// `text` is NUL-terminated.
unsafe fn parse(text: *const std::ffi::c_char) -> u32 {
    // SAFETY: by the contract above.
    unsafe { CStr::from_ptr(text) }
        .to_bytes()
        .iter()
        .fold(0u32, |n, digit| {
            n.wrapping_mul(10)
                .wrapping_add(u32::from(digit.wrapping_sub(b'0')))
        })
}

/// The log; `None` where there is none: the table alone was restored somewhere else, and the application must not fail. A
/// migration cannot go on without its log, so that nothing is missing from one.
///
/// # Safety
/// `arguments` are those of the trigger.
unsafe fn open_log(arguments: &[*mut std::ffi::c_char]) -> Option<pg_sys::Relation> {
    // SAFETY: try_table_open locks before it looks; a relation of another name is not ours.
    unsafe {
        let name = CStr::from_ptr(arguments[1]);
        let oid = pg_sys::Oid::from(parse(arguments[0]));
        let relation = pg_sys::try_table_open(oid, pg_sys::RowExclusiveLock as i32);
        if !relation.is_null() {
            if CStr::from_ptr((*(*relation).rd_rel).relname.data.as_ptr()) == name {
                return Some(relation);
            }
            pg_sys::table_close(relation, pg_sys::RowExclusiveLock as i32);
        }
        // A restored copy: same names, other oids. `_transmute_N_keys` lives in `_transmute_N_new`.
        let schema = name.to_string_lossy().replace("_keys", "_new");
        let schema = std::ffi::CString::new(schema).unwrap_or_default();
        let namespace = pg_sys::get_namespace_oid(schema.as_ptr(), true);
        if namespace == pg_sys::InvalidOid {
            return None;
        }
        let oid = pg_sys::get_relname_relid(name.as_ptr(), namespace);
        let relation = pg_sys::try_table_open(oid, pg_sys::RowExclusiveLock as i32);
        (!relation.is_null()).then_some(relation)
    }
}

/// # Safety
/// Both slots hold rows of shape `desc`.
unsafe fn same_key(
    old: *mut pg_sys::TupleTableSlot,
    new: *mut pg_sys::TupleTableSlot,
    columns: &[i16],
    desc: pg_sys::TupleDesc,
) -> bool {
    columns.iter().all(|column| {
        if *column == address::NUMBER {
            return false; // an UPDATE writes the row somewhere else
        }
        // SAFETY: by the contract above. Values that look different though equal only cost a log row.
        unsafe {
            let (a, a_null) = key_value(old, *column);
            let (b, b_null) = key_value(new, *column);
            let form = &*super::compat::tuple_desc_attr(desc, (*column - 1) as usize);
            a_null == b_null
                && (a_null
                    || super::compat::datum_is_equal(a, b, form.attbyval, i32::from(form.attlen)))
        }
    })
}

/// # Safety
/// `log` is open for writing; the slot, if any, holds a row of the captured table.
unsafe fn append(
    log: pg_sys::Relation,
    slot: Option<*mut pg_sys::TupleTableSlot>,
    columns: &[i16],
) {
    // SAFETY: by the contract above; where a row is given, the log's columns are the key's types, in this order.
    unsafe {
        let width = (*(*log).rd_att).natts as usize;
        let mut inline = ([pg_sys::Datum::from(0); MAX_COLUMNS], [true; MAX_COLUMNS]);
        let mut spill;
        let (values, nulls) = if width <= MAX_COLUMNS {
            (&mut inline.0[..], &mut inline.1[..])
        } else {
            spill = (vec![pg_sys::Datum::from(0); width], vec![true; width]);
            (&mut spill.0[..], &mut spill.1[..])
        };
        if let Some(slot) = slot {
            for (i, column) in columns.iter().enumerate() {
                (values[i], nulls[i]) = key_value(slot, *column);
            }
        }
        let tuple = pg_sys::heap_form_tuple((*log).rd_att, values.as_mut_ptr(), nulls.as_mut_ptr());
        pg_sys::simple_heap_insert(log, tuple);
        pg_sys::heap_freetuple(tuple);
    }
}

/// Whether the log has exactly the types of the key's columns.
///
/// # Safety
/// `log` is open, `desc` is the captured table's.
unsafe fn same_types(log: pg_sys::Relation, desc: pg_sys::TupleDesc, columns: &[i16]) -> bool {
    // SAFETY: by the contract above; bounds are checked first.
    unsafe {
        let log_desc = (*log).rd_att;
        (*log_desc).natts as usize == columns.len()
            && columns.iter().enumerate().all(|(i, column)| {
                let logged = &*super::compat::tuple_desc_attr(log_desc, i);
                if *column == address::NUMBER {
                    return logged.atttypid == pg_sys::TIDOID && !logged.attisdropped;
                }
                if *column < 1 || i32::from(*column) > (*desc).natts {
                    return false;
                }
                let captured = &*super::compat::tuple_desc_attr(desc, (*column - 1) as usize);
                logged.atttypid == captured.atttypid
                    && !logged.attisdropped
                    && !captured.attisdropped
            })
    }
}
