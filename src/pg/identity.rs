//! Who runs what: the caller, the extension, the owner of a table.

use crate::error::Result;
use pgrx::pg_sys;
use std::cell::Cell;
use std::ffi::{CStr, CString};

/// Settings besides search_path that decide what an expression's text means or gives; taken from the session that
/// registers and in force wherever the migration's statements run.
const MEANING: [&CStr; 8] = [
    c"TimeZone",
    c"DateStyle",
    c"IntervalStyle",
    c"lc_monetary",
    c"bytea_output",
    c"extra_float_digits",
    c"xmloption",
    c"standard_conforming_strings",
];

/// How names and literals are understood.
#[derive(Debug, Clone)]
pub struct Session {
    pub search_path: String,
    /// Name and value.
    pub settings: Vec<(String, String)>,
}

impl Session {
    /// What our own statements resolve names with: nothing of a user's.
    pub fn own() -> Session {
        Session {
            search_path: "pg_catalog, pg_temp".into(),
            // Queries of the catalogs are many and short, whatever the planner thinks they cost.
            settings: vec![("jit".into(), "off".into())],
        }
    }

    /// Another value for search_path or a setting.
    pub fn set(&mut self, name: &str, value: &str) {
        if name == "search_path" {
            self.search_path = value.into();
            return;
        }
        self.settings
            .retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        self.settings.push((name.into(), value.into()));
    }

    /// Settings that are kept besides search_path.
    pub fn settings_kept() -> Vec<String> {
        MEANING
            .iter()
            .map(|name| name.to_string_lossy().into_owned())
            .collect()
    }

    /// The calling session's.
    fn current() -> Session {
        Session {
            search_path: setting(c"search_path"),
            settings: MEANING
                .iter()
                .map(|name| (name.to_string_lossy().into_owned(), setting(name)))
                .collect(),
        }
    }
}

/// Who called, read before anything is switched.
#[derive(Debug, Clone)]
pub struct Caller {
    pub role: pg_sys::Oid,
    pub session: Session,
}

thread_local! {
    /// How many scopes of `as_extension` are open in this process.
    static OWN_WORK: Cell<u32> = const { Cell::new(0) };
}

/// Counts as long as it lives: unwinding, which an ERROR becomes on its way through Rust, ends it too.
struct OwnWork;

impl OwnWork {
    fn begin() -> OwnWork {
        OWN_WORK.set(OWN_WORK.get() + 1);
        OwnWork
    }
}

impl Drop for OwnWork {
    fn drop(&mut self) {
        OWN_WORK.set(OWN_WORK.get() - 1);
    }
}

/// Whether what runs now runs for the extension: a call of it, a step, or whatever these set off.
pub fn is_own_work() -> bool {
    OWN_WORK.get() > 0
}

struct Scope {
    role: pg_sys::Oid,
    security: i32,
    guc_level: i32,
}

impl Scope {
    /// Switches role and session settings; `restricted` forbids what a trapped function would try
    /// (SET ROLE, temporary objects, LISTEN).
    fn enter(role: pg_sys::Oid, restricted: bool, session: &Session) -> Result<Scope> {
        let mut values = vec![(c"search_path".to_owned(), to_c(&session.search_path)?)];
        for (name, value) in &session.settings {
            values.push((to_c(name)?, to_c(value)?));
        }
        let mut saved = pg_sys::InvalidOid;
        let mut security: i32 = 0;
        let mut flags = pg_sys::SECURITY_LOCAL_USERID_CHANGE as i32;
        if restricted {
            flags |= pg_sys::SECURITY_RESTRICTED_OPERATION as i32;
        }
        // SAFETY: plain backend state; restored by `leave`, or by the (sub)transaction abort that
        // follows an ERROR, exactly as the server's own maintenance commands rely on.
        unsafe {
            pg_sys::GetUserIdAndSecContext(&mut saved, &mut security);
            let guc_level = pg_sys::NewGUCNestLevel();
            for (name, value) in &values {
                set_local(name, value);
            }
            if restricted || role != saved {
                pg_sys::SetUserIdAndSecContext(role, security | flags);
            }
            Ok(Scope {
                role: saved,
                security,
                guc_level,
            })
        }
    }

    fn leave(self) {
        // SAFETY: undoes `enter`, in reverse order.
        unsafe {
            pg_sys::AtEOXact_GUC(false, self.guc_level);
            pg_sys::SetUserIdAndSecContext(self.role, self.security);
        }
    }
}

/// Sets a setting until the innermost GUC nest level (or the transaction) ends.
fn set_local(name: &CStr, value: &CStr) {
    set_option(name, value, pg_sys::GucAction::GUC_ACTION_SAVE);
}

/// Sets a setting: SAVE until the innermost GUC nest level ends, LOCAL until the transaction does, SET until the session does.
fn set_option(name: &CStr, value: &CStr, action: pg_sys::GucAction::Type) {
    // SAFETY: both strings are NUL-terminated; the server keeps copies, and undoes it as the action says.
    unsafe {
        pg_sys::set_config_option(
            name.as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_SUSET,
            pg_sys::GucSource::PGC_S_SESSION,
            action,
            true,
            0,
            false,
        );
    }
}

/// Runs `f` with a setting of another value. An ERROR undoes it with the transaction.
pub(super) fn with_setting<T>(name: &CStr, value: &CStr, f: impl FnOnce() -> T) -> T {
    // SAFETY: plain backend state, given back below, or by the (sub)transaction abort that follows an ERROR.
    let level = unsafe { pg_sys::NewGUCNestLevel() };
    set_local(name, value);
    let result = f();
    // SAFETY: undoes the level made above.
    unsafe { pg_sys::AtEOXact_GUC(false, level) };
    result
}

fn to_c(text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| bug("a setting"))
}

/// Sets a setting until the transaction (or the enclosing scope) ends.
pub fn set_for_transaction(name: &str, value: &str) -> Result<()> {
    let (name, value) = (to_c(name)?, to_c(value)?);
    set_option(&name, &value, pg_sys::GucAction::GUC_ACTION_LOCAL);
    Ok(())
}

fn bug(what: &str) -> crate::error::Error {
    crate::error::Error::Bug(format!("{what} holds a NUL"))
}

/// Reads a setting as text.
pub fn setting(name: &CStr) -> String {
    // SAFETY: the returned string is copied at once.
    unsafe {
        let value = pg_sys::GetConfigOption(name.as_ptr(), true, false);
        if value.is_null() {
            String::new()
        } else {
            CStr::from_ptr(value).to_string_lossy().into_owned()
        }
    }
}

/// The current role and settings.
pub fn caller() -> Caller {
    Caller {
        // SAFETY: plain read.
        role: unsafe { pg_sys::GetUserId() },
        session: Session::current(),
    }
}

/// Runs `f` as the extension: a superuser, with nothing of the caller's in the search_path.
/// Callers check the right of `caller()` before they touch anything for it.
pub fn as_extension<T>(f: impl FnOnce() -> Result<T>) -> Result<T> {
    // A superuser stays who it is, and may SET ROLE on the way (grants of others on views are given again so).
    // SAFETY: plain look-ups.
    let role = unsafe {
        match pg_sys::superuser() {
            true => pg_sys::GetUserId(),
            false => pg_sys::Oid::from(pg_sys::BOOTSTRAP_SUPERUSERID),
        }
    };
    let _own = OwnWork::begin();
    let scope = Scope::enter(role, false, &Session::own())?;
    let result = f();
    // On Err our own caller raises an ERROR (session) or aborts (worker); leaving is right in both.
    scope.leave();
    result
}

/// Runs `f` as `role` in a security-restricted context, with the given settings: everything that
/// evaluates a user's expression or statement.
pub fn as_role<T>(
    role: pg_sys::Oid,
    session: &Session,
    f: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let scope = Scope::enter(role, true, session)?;
    let result = f();
    scope.leave();
    result
}

/// Runs `f` as whoever it is now, with the given settings.
pub(super) fn with_settings<T>(session: &Session, f: impl FnOnce() -> Result<T>) -> Result<T> {
    // SAFETY: plain read.
    let scope = Scope::enter(unsafe { pg_sys::GetUserId() }, false, session)?;
    let result = f();
    scope.leave();
    result
}

/// Makes this worker a session of `role` for good, with these settings: what runs at top level runs as that role and
/// nobody else. The server takes no security context outside of a transaction; what evaluates a user's expression there
/// (index builds, VACUUM, REFRESH) switches to the owner in a restricted one by itself, in which SET ROLE and SET
/// SESSION AUTHORIZATION are refused.
///
/// Only in a worker, outside any transaction.
pub fn become_role(
    role: pg_sys::Oid,
    is_superuser: bool,
    session: &Session,
    more: &[(&str, String)],
) -> Result<()> {
    super::xact::run(|| {
        let mut values = vec![("search_path", session.search_path.as_str())];
        values.extend(
            session
                .settings
                .iter()
                .map(|(n, v)| (n.as_str(), v.as_str())),
        );
        values.extend(more.iter().map(|(n, v)| (*n, v.as_str())));
        values
            .into_iter()
            .try_for_each(|(n, v)| set_for_session(n, v))
    })?;
    std::mem::forget(OwnWork::begin()); // all that this process does from here on
                                        // SAFETY: outside a transaction, by the contract above: an abort goes back to this role, not to the one before.
    unsafe { pg_sys::SetSessionAuthorization(role, is_superuser) }
    Ok(())
}

/// Sets a setting until the session ends. Inside a transaction that commits.
fn set_for_session(name: &str, value: &str) -> Result<()> {
    let (name, value) = (to_c(name)?, to_c(value)?);
    set_option(&name, &value, pg_sys::GucAction::GUC_ACTION_SET);
    Ok(())
}

/// Whether a role is a superuser.
pub fn is_superuser(role: pg_sys::Oid) -> bool {
    // SAFETY: catalog lookup inside a transaction.
    unsafe { pg_sys::superuser_arg(role) }
}

/// Whether `role` owns what `owner` owns (is it, or is a member, or is a superuser).
pub fn has_privs_of(role: pg_sys::Oid, owner: pg_sys::Oid) -> bool {
    // SAFETY: catalog lookup inside a transaction.
    unsafe { pg_sys::has_privs_of_role(role, owner) }
}
