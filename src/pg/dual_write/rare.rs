//! What happens to few rows: both shapes were written, the old one follows the new one, or a row is set aside.

use super::compiled::{Column, Compiled};
use super::{any_changed, Row};
use crate::error::{Error, Result};
use crate::model::retry::{classify, RetryClass};
use crate::model::rule::{Action, Argument};
use crate::pg::xact::{self, End};
use crate::pg::ErrorReport;
use crate::pg::{direct, identity};
use pgrx::pg_sys;
use pgrx::prelude::*;
use std::ffi::CStr;
use std::sync::OnceLock;

/// A row that the rule fails on.
pub struct Refused<'a> {
    pub argument: &'a Argument,
    /// Values of the key's columns; `None`: NULL.
    pub key: Vec<Option<String>>,
    pub error: &'a Error,
}

type SetAside = fn(&Refused<'_>) -> Result<()>;

static SET_ASIDE: OnceLock<SetAside> = OnceLock::new();

/// Tells the trigger who writes down what it refuses: the tables are not its business.
pub fn when_refused(f: SetAside) {
    let _ = SET_ASIDE.set(f);
}

#[derive(Clone, Copy)]
enum Settled {
    Tuple(pg_sys::HeapTuple),
    /// The rule goes one way, and the new columns were written.
    Computed,
}

/// # Safety
/// As `super::usual`, outside of the guard.
pub(super) unsafe fn run(rule: &Compiled, row: &Row, action: Action) -> pg_sys::HeapTuple {
    // SAFETY: by the contract above; what the subtransaction makes lives in the row's memory context.
    let settled = unsafe {
        if rule.sets_aside {
            let tried = xact::subtransaction(End::Keep, || Ok(settle(rule, row, action)));
            match tried {
                Ok(settled) => settled,
                Err(error) if classify(&error.sqlstate_text()) == RetryClass::Final => {
                    if let Err(error) = set_aside(rule, row, &error) {
                        raise(error);
                    }
                    Settled::Tuple(row.tuple)
                }
                Err(error) => raise(error),
            }
        } else {
            settle(rule, row, action)
        }
    };
    match settled {
        Settled::Tuple(tuple) => tuple,
        Settled::Computed => computed(rule),
    }
}

/// # Safety
/// As `run`.
unsafe fn settle(rule: &Compiled, row: &Row, action: Action) -> Settled {
    // SAFETY: by the contract above.
    unsafe {
        match action {
            Action::Nothing => Settled::Tuple(row.tuple),
            Action::Forth => Settled::Tuple(direct::guarded(|| {
                rule.forth.apply(row.new, row.tuple, row.relation)
            })),
            Action::Back => Settled::Tuple(back(rule, row)),
            Action::Compare => {
                let agrees = direct::guarded(|| {
                    rule.forth.evaluate(row.new);
                    rule.forth.agrees(row.new)
                });
                if agrees {
                    return Settled::Tuple(row.tuple);
                }
                match rule.two_way {
                    true => Settled::Tuple(back(rule, row)),
                    false => Settled::Computed,
                }
            }
        }
    }
}

/// The old columns follow the new ones. A row whose new columns were not filled yet has what the statement did not write
/// from its old columns first.
///
/// # Safety
/// As `run`.
unsafe fn back(rule: &Compiled, row: &Row) -> pg_sys::HeapTuple {
    // SAFETY: by the contract above; the slot of its own lives in the row's memory context and is not needed after it.
    unsafe {
        let unfilled = row
            .old
            .filter(|old| direct::guarded(|| !rule.any_given(*old)));
        let Some(old) = unfilled else {
            return direct::guarded(|| rule.back.apply(row.new, row.tuple, row.relation));
        };
        let whole = direct::guarded(|| {
            rule.forth.evaluate(old);
            rule.forth.some(row.tuple, row.relation, |column| {
                !any_changed(std::slice::from_ref(column), old, row.new)
            })
        });
        let slot =
            pg_sys::MakeSingleTupleTableSlot((*row.relation).rd_att, &pg_sys::TTSOpsHeapTuple);
        pg_sys::ExecStoreHeapTuple(whole, slot, false);
        direct::guarded(|| rule.back.apply(slot, whole, row.relation))
    }
}

fn computed(rule: &Compiled) -> ! {
    let names: Vec<&str> = rule.targets().iter().map(|c| c.name.as_str()).collect();
    ereport!(
        ERROR,
        PgSqlErrorCode::ERRCODE_GENERATED_ALWAYS,
        "a column is computed while an online schema change is under way",
        format!(
            "{} cannot be written, unless the value is the computed one: the rule has no way back.",
            names.join(", ")
        )
    );
}

fn raise(error: Error) -> ! {
    ErrorReport::from(error).report(pgrx::PgLogLevel::ERROR);
    unreachable!("an ERROR was raised")
}

/// # Safety
/// The row's slot has the table's shape.
unsafe fn set_aside(rule: &Compiled, row: &Row, error: &Error) -> Result<()> {
    // SAFETY: by the contract above.
    let key = rule
        .key
        .iter()
        .map(|column| unsafe { text_of(column, row) })
        .collect();
    let Some(write_down) = SET_ASIDE.get() else {
        return Err(error.clone());
    };
    let refused = Refused {
        argument: &rule.argument,
        key,
        error,
    };
    identity::as_extension(|| write_down(&refused))
}

/// # Safety
/// As `set_aside`.
unsafe fn text_of(column: &Column, row: &Row) -> Option<String> {
    // SAFETY: by the contract above; the output function is that of the attribute's type.
    unsafe {
        let mut is_null = false;
        let number = column.attribute as i32 + 1;
        let value = pg_sys::slot_getattr(row.new, number, &mut is_null);
        if is_null {
            return None;
        }
        let attribute = crate::pg::row::attribute((*row.relation).rd_att, column.attribute);
        let (mut output, mut varlena) = (pg_sys::InvalidOid, false);
        pg_sys::getTypeOutputInfo(attribute.atttypid, &mut output, &mut varlena);
        let text = pg_sys::OidOutputFunctionCall(output, value);
        Some(CStr::from_ptr(text).to_string_lossy().into_owned())
    }
}
