//! Named points at which tests can stop the code: a shared advisory lock, taken and given back. A test
//! that holds it exclusively stops us exactly there. Empty without the cargo feature `waitpoints`.

/// First key of the advisory lock; the second is hashtext(name).
#[cfg(feature = "waitpoints")]
const CLASS: i32 = 74_616;

/// Waits while a test holds `name`. Inside a transaction, which gets no number by it.
#[cfg(feature = "waitpoints")]
pub fn reach(name: &str) -> crate::error::Result<()> {
    super::spi::value::<String>(
        "SELECT pg_catalog.set_config('lock_timeout', '0', true), \
         pg_catalog.pg_advisory_lock_shared($1, pg_catalog.hashtext($2)), \
         pg_catalog.pg_advisory_unlock_shared($1, pg_catalog.hashtext($2))",
        &[CLASS.into(), name.into()],
    )?;
    Ok(())
}

/// Where a session has `SET transmute_test.fail = on`, each of our statements fails the first time that this process runs it: with an
/// error that is tried again, or with one that asks a person.
#[cfg(feature = "waitpoints")]
pub(super) fn may_fail(sql: &str) -> crate::error::Result<()> {
    use std::cell::RefCell;
    use std::collections::HashSet;
    thread_local! {
        static FAILED: RefCell<HashSet<String>> = RefCell::default();
    }
    // SAFETY: a look-up of a setting that need not be there.
    let setting =
        unsafe { pgrx::pg_sys::GetConfigOption(c"transmute_test.fail".as_ptr(), true, false) };
    // SAFETY: what is there is a string of the server's.
    if setting.is_null() || unsafe { std::ffi::CStr::from_ptr(setting) } != c"on" {
        return Ok(());
    }
    // Names of work tables have numbers, which the next try counts on.
    let text: String = sql.chars().filter(|c| !c.is_ascii_digit()).collect();
    let (count, is_new) = FAILED.with_borrow_mut(|failed| {
        let is_new = failed.insert(text);
        (failed.len(), is_new)
    });
    if is_new {
        let code = match count % 2 {
            0 => pgrx::PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY,
            _ => pgrx::PgSqlErrorCode::ERRCODE_DATA_EXCEPTION,
        };
        pgrx::ereport!(ERROR, code, format!("a test lets this fail: {sql}"));
    }
    Ok(())
}

#[cfg(not(feature = "waitpoints"))]
#[inline(always)]
pub(super) fn may_fail(_sql: &str) -> crate::error::Result<()> {
    Ok(())
}

#[cfg(not(feature = "waitpoints"))]
#[inline(always)]
pub fn reach(_name: &str) -> crate::error::Result<()> {
    Ok(())
}
