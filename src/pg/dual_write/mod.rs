//! The dual-write trigger: BEFORE each row, after the application's own triggers, it keeps the two shapes of the row equal.
//! No SPI and no PL: expressions that are compiled once a process and version of the table, on the row in memory.
//!
//! The direction follows from the columns that the statement changed (`model::rule::action`). What happens to most rows –
//! nothing, or the new columns follow – is done under one guard; the rest, which is rare, call by call.

mod compiled;
mod rare;

use super::direct;
use crate::model::rule::{action, Action, Argument, Change};
use compiled::{Column, Compiled};
use pgrx::pg_sys;
use pgrx::prelude::*;
use std::cell::Cell;
use std::ffi::CStr;

pub use compiled::depend;
pub use rare::when_refused;

const OPERATION: u32 = pg_sys::TRIGGER_EVENT_OPMASK;
const WHEN: u32 = pg_sys::TRIGGER_EVENT_TIMINGMASK;

thread_local! {
    /// This process fills rows that are there: what it writes is what the rule says.
    static FILLING: Cell<bool> = const { Cell::new(false) };
}

/// Runs `f`, whose writes the triggers of this process leave as they are.
pub fn filling<T>(f: impl FnOnce() -> T) -> T {
    struct Reset;
    impl Drop for Reset {
        fn drop(&mut self) {
            FILLING.set(false);
        }
    }
    let _reset = Reset;
    FILLING.set(true);
    f()
}

/// How the names of the triggers begin: behind every name that an application is likely to give, byte by byte, as the server
/// sorts them.
pub const NAME: &str = "~transmute_";

/// The columns, from 0, that rules of a table compute by a trigger.
///
/// # Safety
/// The relation is open.
pub(super) unsafe fn new_columns(relation: pg_sys::Relation) -> Vec<usize> {
    // SAFETY: by the contract above; names and arguments are NUL-terminated.
    unsafe {
        let triggers = (*relation).trigdesc;
        if triggers.is_null() {
            return Vec::new();
        }
        let all =
            std::slice::from_raw_parts((*triggers).triggers, (*triggers).numtriggers as usize);
        all.iter()
            .filter(|trigger| {
                trigger.tgnargs == 1
                    && CStr::from_ptr(trigger.tgname)
                        .to_bytes()
                        .starts_with(NAME.as_bytes())
            })
            .filter_map(|trigger| {
                let text = CStr::from_ptr(*trigger.tgargs).to_string_lossy();
                serde_json::from_str::<Argument>(&text).ok()
            })
            .filter(|argument| argument.table == (*relation).rd_id.to_u32())
            .flat_map(|argument| {
                let names: Vec<String> = argument.forth.into_iter().map(|a| a.column).collect();
                argument
                    .columns
                    .into_iter()
                    .filter(move |(_, name)| names.contains(name))
                    .map(|(number, _)| number as usize - 1)
            })
            .collect()
    }
}

/// V1 calling convention record that CREATE FUNCTION looks for.
#[no_mangle]
pub extern "C" fn pg_finfo_transmute_dual_write() -> &'static pg_sys::Pg_finfo_record {
    const RECORD: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
    &RECORD
}

/// `_transmute.dual_write()`.
///
/// # Safety
/// Called by the server as a trigger function.
#[no_mangle]
#[pg_guard]
pub unsafe extern "C-unwind" fn transmute_dual_write(
    fcinfo: pg_sys::FunctionCallInfo,
) -> pg_sys::Datum {
    // SAFETY: called by the trigger manager: context is a TriggerData, slots hold the rows, the relation is open and
    // locked. Checked before use.
    unsafe {
        let context = (*fcinfo).context;
        if context.is_null() || (*context).type_ != pg_sys::NodeTag::T_TriggerData {
            misused();
        }
        let data = &*context.cast::<pg_sys::TriggerData>();
        let row = pg_sys::TRIGGER_EVENT_BEFORE | pg_sys::TRIGGER_EVENT_ROW;
        if data.tg_event & (WHEN | pg_sys::TRIGGER_EVENT_ROW) != row {
            misused();
        }
        let updates = data.tg_event & OPERATION == pg_sys::TRIGGER_EVENT_UPDATE;
        let row = Row {
            old: updates.then_some(data.tg_trigslot),
            new: match updates {
                true => data.tg_newslot,
                false => data.tg_trigslot,
            },
            tuple: match updates {
                true => data.tg_newtuple,
                false => data.tg_trigtuple,
            },
            relation: data.tg_relation,
        };
        if FILLING.get() {
            return pg_sys::Datum::from(row.tuple);
        }
        let rule = compiled::find(data);
        let _in_use = rule.enter();
        let compiled: &Compiled = &rule;
        let (action, found) = direct::guarded(|| usual(compiled, &row));
        let tuple = match found {
            Some(tuple) => tuple,
            None => rare::run(compiled, &row, action),
        };
        // Old columns were written, and no new ones.
        if action == Action::Forth && !compiled.follows {
            super::written::tell((*data.tg_relation).rd_id);
        }
        pg_sys::Datum::from(tuple)
    }
}

fn misused() -> ! {
    ereport!(
        ERROR,
        PgSqlErrorCode::ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED,
        "_transmute.dual_write() is a trigger function, BEFORE INSERT OR UPDATE FOR EACH ROW"
    );
}

/// The row that is written.
#[derive(Clone, Copy)]
struct Row {
    /// The row before; `None`: INSERT.
    old: Option<*mut pg_sys::TupleTableSlot>,
    new: *mut pg_sys::TupleTableSlot,
    tuple: pg_sys::HeapTuple,
    relation: pg_sys::Relation,
}

/// What is to be done, and the row where it is done; `None`: it is left to `rare`.
///
/// # Safety
/// Inside `direct::guarded`; the row's slots have the shape that the rule was compiled for.
#[inline(always)]
unsafe fn usual(rule: &Compiled, row: &Row) -> (Action, Option<pg_sys::HeapTuple>) {
    // SAFETY: by the contract above.
    unsafe {
        direct::get_attributes(row.new, rule.last_attribute);
        let change = match row.old {
            None => Change::Insert {
                new: !rule.follows && rule.any_given(row.new),
            },
            Some(old) => {
                direct::get_attributes(old, rule.last_attribute);
                Change::Update {
                    old: any_changed(rule.sources(), old, row.new),
                    new: !rule.follows && any_changed(rule.targets(), old, row.new),
                }
            }
        };
        let action = action(change, rule.two_way);
        let done = match action {
            Action::Nothing => Some(row.tuple),
            Action::Forth if !rule.sets_aside => {
                Some(rule.forth.apply(row.new, row.tuple, row.relation))
            }
            _ => None,
        };
        (action, done)
    }
}

/// # Safety
/// Inside `direct::guarded`; both slots have these attributes deformed.
#[inline(always)]
unsafe fn any_changed(
    columns: &[Column],
    old: *mut pg_sys::TupleTableSlot,
    new: *mut pg_sys::TupleTableSlot,
) -> bool {
    columns.iter().any(|column| {
        // SAFETY: by the contract above. The same bytes are the same value; other bytes may be it too, with a shorter
        // header or in another toast value.
        unsafe {
            let i = column.attribute;
            let (a_null, b_null) = (*(*old).tts_isnull.add(i), *(*new).tts_isnull.add(i));
            let (a, b) = (*(*old).tts_values.add(i), *(*new).tts_values.add(i));
            a_null != b_null
                || (!a_null
                    && a.value() != b.value()
                    && !direct::datumIsEqual(a, b, column.by_value, column.length)
                    && (column.by_value
                        || !direct::datum_image_eq(a, b, column.by_value, column.length)))
        }
    })
}
