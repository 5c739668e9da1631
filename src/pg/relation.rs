//! Open relations and the locks on them.

use crate::error::{Error, Result};
use pgrx::pg_sys;

/// Lock modes of tables, weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LockMode {
    AccessShare,
    RowShare,
    RowExclusive,
    ShareUpdateExclusive,
    Share,
    ShareRowExclusive,
    Exclusive,
    AccessExclusive,
}

impl LockMode {
    /// The server's numbers, from 1.
    const ALL: [LockMode; 8] = [
        LockMode::AccessShare,
        LockMode::RowShare,
        LockMode::RowExclusive,
        LockMode::ShareUpdateExclusive,
        LockMode::Share,
        LockMode::ShareRowExclusive,
        LockMode::Exclusive,
        LockMode::AccessExclusive,
    ];

    fn number(self) -> i32 {
        self as i32 + 1
    }

    /// The mode with the server's number; `None` for NoLock.
    pub(super) fn of_number(number: i32) -> Option<LockMode> {
        let index = usize::try_from(number).ok()?.checked_sub(1)?;
        Self::ALL.get(index).copied()
    }

    /// As pg_locks.mode spells it.
    pub fn name(self) -> &'static str {
        match self {
            LockMode::AccessShare => "AccessShareLock",
            LockMode::RowShare => "RowShareLock",
            LockMode::RowExclusive => "RowExclusiveLock",
            LockMode::ShareUpdateExclusive => "ShareUpdateExclusiveLock",
            LockMode::Share => "ShareLock",
            LockMode::ShareRowExclusive => "ShareRowExclusiveLock",
            LockMode::Exclusive => "ExclusiveLock",
            LockMode::AccessExclusive => "AccessExclusiveLock",
        }
    }

    /// As SQL and the documentation spell it.
    pub fn words(self) -> &'static str {
        match self {
            LockMode::AccessShare => "ACCESS SHARE",
            LockMode::RowShare => "ROW SHARE",
            LockMode::RowExclusive => "ROW EXCLUSIVE",
            LockMode::ShareUpdateExclusive => "SHARE UPDATE EXCLUSIVE",
            LockMode::Share => "SHARE",
            LockMode::ShareRowExclusive => "SHARE ROW EXCLUSIVE",
            LockMode::Exclusive => "EXCLUSIVE",
            LockMode::AccessExclusive => "ACCESS EXCLUSIVE",
        }
    }

    /// Modes of others, as pg_locks spells them, that keep this one from being granted (lock.c, LockConflicts).
    pub fn conflicts(self) -> Vec<String> {
        use LockMode::*;
        let with: &[LockMode] = match self {
            AccessShare => &[AccessExclusive],
            RowShare => &[Exclusive, AccessExclusive],
            RowExclusive => &[Share, ShareRowExclusive, Exclusive, AccessExclusive],
            ShareUpdateExclusive => &Self::ALL[3..],
            Share => &[
                RowExclusive,
                ShareUpdateExclusive,
                ShareRowExclusive,
                Exclusive,
                AccessExclusive,
            ],
            ShareRowExclusive => &Self::ALL[2..],
            Exclusive => &Self::ALL[1..],
            AccessExclusive => &Self::ALL,
        };
        with.iter().map(|mode| mode.name().to_string()).collect()
    }
}

/// An open table; closed when dropped, its lock is kept until the transaction ends.
pub struct Table(pub(super) pg_sys::Relation);

impl Table {
    /// Opens and locks; an ERROR if it is gone or lock_timeout passes.
    pub fn open(oid: pg_sys::Oid, mode: LockMode) -> Table {
        // SAFETY: inside a transaction; the reference is given back in Drop.
        Table(unsafe { pg_sys::table_open(oid, mode.number()) })
    }

    /// Pages are read and written here as the server's own heap does it.
    pub(super) fn require_heap(&self) -> Result<()> {
        // SAFETY: the relation is open; both are the addresses of routines that live as long as the server.
        if unsafe { (*self.0).rd_tableam == pg_sys::GetHeapamTableAmRoutine() } {
            return Ok(());
        }
        Err(Error::Unsupported {
            problem: "only heap tables can be rewritten online".into(),
            detail: "The table is stored, or would be, by another table access method.".into(),
            hint: "Run it as it stands, or move the rows with a script of your own.".into(),
        })
    }

    /// Heap blocks now.
    pub fn blocks(&self) -> i64 {
        // SAFETY: the relation is open and locked.
        i64::from(unsafe {
            pg_sys::RelationGetNumberOfBlocksInFork(self.0, pg_sys::ForkNumber::MAIN_FORKNUM)
        })
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        // While an ERROR unwinds, the resource owner closes it: leave the server's state alone then.
        if !std::thread::panicking() {
            // SAFETY: opened by `open`; NoLock keeps the lock to the end of the transaction.
            unsafe { pg_sys::table_close(self.0, pg_sys::NoLock as i32) }
        }
    }
}

/// Locks a relation until the end of the transaction, under the lock_timeout in force.
pub fn lock(oid: pg_sys::Oid, mode: LockMode) -> Result<()> {
    // SAFETY: inside a transaction. LockRelationOid also takes in pending invalidations.
    unsafe { pg_sys::LockRelationOid(oid, mode.number()) };
    require_still_there(oid)
}

/// Locks a relation if nobody is in the way; whether it did.
pub fn try_lock(oid: pg_sys::Oid, mode: LockMode) -> Result<bool> {
    // SAFETY: inside a transaction. It takes in pending invalidations as LockRelationOid does.
    let got = unsafe { pg_sys::ConditionalLockRelationOid(oid, mode.number()) };
    if got {
        require_still_there(oid)?;
    }
    Ok(got)
}

/// Gives a lock back before the transaction ends, that `try_lock` has got.
pub fn unlock(oid: pg_sys::Oid, mode: LockMode) {
    // SAFETY: this transaction holds it; one that it does not hold is a WARNING.
    unsafe { pg_sys::UnlockRelationOid(oid, mode.number()) }
}

fn require_still_there(oid: pg_sys::Oid) -> Result<()> {
    // SAFETY: a syscache look-up.
    unsafe {
        let name = pg_sys::get_rel_name(oid);
        if name.is_null() {
            return Err(Error::UndefinedObject {
                problem: "the table is gone".into(),
                detail: format!(
                    "Relation {} was dropped while the migration worked on it.",
                    oid.to_u32()
                ),
                hint: "transmute.rollback(id, reason) clears the migration up.".into(),
            });
        }
    }
    Ok(())
}

/// Locks a relation against everybody until the end of the transaction, or gives up at once: for what is locked inside the
/// lock of its table, where nothing may wait.
pub(super) fn lock_at_once(oid: pg_sys::Oid) -> Result<()> {
    // SAFETY: inside a transaction.
    if unsafe { pg_sys::ConditionalLockRelationOid(oid, LockMode::AccessExclusive.number()) } {
        return Ok(());
    }
    // SAFETY: a palloc'd string, or NULL.
    let name = unsafe { pg_sys::get_rel_name(oid) };
    Err(Error::LockNotAvailable {
        relation: match name.is_null() {
            true => oid.to_u32().to_string(),
            false => owned(name),
        },
        detail: "Another session holds a lock on it, though not on its table.".into(),
    })
}

/// The relation a name means under the search_path in force; `None` if there is none.
pub fn resolve(schema: Option<&str>, name: &str) -> Result<Option<pg_sys::Oid>> {
    let name = super::parser::to_c(name)?;
    let schema = schema.map(super::parser::to_c).transpose()?;
    // SAFETY: the node copies neither string; both outlive the call. RVR_MISSING_OK is 1.
    unsafe {
        let range_var = pg_sys::makeRangeVar(
            schema
                .as_ref()
                .map_or(std::ptr::null_mut(), |s| s.as_ptr().cast_mut()),
            name.as_ptr().cast_mut(),
            -1,
        );
        let oid = pg_sys::RangeVarGetRelidExtended(
            range_var,
            pg_sys::NoLock as i32,
            pg_sys::RVROption::RVR_MISSING_OK,
            None,
            std::ptr::null_mut(),
        );
        Ok((oid != pg_sys::InvalidOid).then_some(oid))
    }
}

/// The schema a new relation of this name would be made in.
pub fn creation_schema(schema: Option<&str>, name: &str) -> Result<String> {
    let name = super::parser::to_c(name)?;
    let schema = schema.map(super::parser::to_c).transpose()?;
    // SAFETY: as in `resolve`; get_namespace_name returns a palloc'd string or NULL.
    unsafe {
        let range_var = pg_sys::makeRangeVar(
            schema
                .as_ref()
                .map_or(std::ptr::null_mut(), |s| s.as_ptr().cast_mut()),
            name.as_ptr().cast_mut(),
            -1,
        );
        let namespace = pg_sys::RangeVarGetCreationNamespace(range_var);
        let text = pg_sys::get_namespace_name(namespace);
        if text.is_null() {
            return Err(Error::Bug("a schema without a name".into()));
        }
        Ok(std::ffi::CStr::from_ptr(text)
            .to_string_lossy()
            .into_owned())
    }
}

/// The name the server would give a new index: table, columns and `idx` or `key`, numbered until it is free in the
/// table's schema (ChooseIndexName of indexcmds.c).
/// `constraint`: no constraint of the schema may have it either.
pub fn choose_index_name(
    table: pg_sys::Oid,
    columns: &[String],
    label: &str,
    constraint: bool,
) -> Result<String> {
    // ChooseIndexNameAddition stops when the name is full.
    let mut addition = String::new();
    for column in columns {
        if !addition.is_empty() {
            addition.push('_');
        }
        addition.push_str(column);
        if addition.len() >= pg_sys::NAMEDATALEN as usize {
            break;
        }
    }
    let (addition, label) = (super::parser::to_c(&addition)?, super::parser::to_c(label)?);
    // SAFETY: catalog lookups in a transaction; the result is palloc'd and copied.
    unsafe {
        let name = pg_sys::get_rel_name(table);
        if name.is_null() {
            return Err(Error::Bug("an index of a table that is gone".into()));
        }
        Ok(owned(pg_sys::ChooseRelationName(
            name,
            match columns.is_empty() {
                true => std::ptr::null(),
                false => addition.as_ptr(),
            },
            label.as_ptr(),
            pg_sys::get_rel_namespace(table),
            constraint,
        )))
    }
}

/// `ALTER TABLE … ADD CONSTRAINT …` of a constraint, complete with storage parameters and tablespace.
pub fn constraint_command(oid: pg_sys::Oid) -> String {
    // SAFETY: returns a palloc'd string; an ERROR if the constraint is gone.
    owned(unsafe { pg_sys::pg_get_constraintdef_command(oid) })
}

/// `CREATE INDEX …` of an index, complete with tablespace.
pub fn index_command(oid: pg_sys::Oid) -> String {
    // SAFETY: as above.
    owned(unsafe { pg_sys::pg_get_indexdef_string(oid) })
}

fn owned(text: *mut std::ffi::c_char) -> String {
    // SAFETY: the server's deparsers return NUL-terminated strings.
    unsafe { std::ffi::CStr::from_ptr(text) }
        .to_string_lossy()
        .into_owned()
}

/// The equality operator of a type's default btree or hash class.
pub fn equality_operator(type_oid: pg_sys::Oid) -> Result<pg_sys::Oid> {
    // SAFETY: the cache entry lives as long as the backend.
    let operator =
        unsafe { (*pg_sys::lookup_type_cache(type_oid, pg_sys::TYPECACHE_EQ_OPR as i32)).eq_opr };
    if operator == pg_sys::InvalidOid {
        return Err(Error::Bug(format!(
            "key type {} has no equality",
            type_oid.to_u32()
        )));
    }
    Ok(operator)
}
