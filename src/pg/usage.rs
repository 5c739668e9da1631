//! Who still uses an old shape: an executor hook that counts, where the library is preloaded.
//!
//! What is watched stands in shared memory, under a generation that every statement compares with the one it knows: a load and a
//! comparison while nothing is watched here. A backend counts for itself and hands over at most once a second and at its end. Nothing
//! is written into the database by the statement, and nothing in here can make it fail.

use pgrx::prelude::*;
use pgrx::{pg_shmem_init, pg_sys, PGRXSharedMemory, PgAtomic, PgLwLock};
use std::cell::RefCell;
use std::ffi::CStr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Relations and columns that are watched at the same time in all databases.
const MAX_WATCHES: usize = 256;
/// Roles and applications by what they use, between two collections.
const MAX_USES: usize = 512;
/// Kept by a backend while the place above is full; beyond that they count as one.
const MAX_KEPT: usize = 64;
/// NAMEDATALEN: as long as application_name may be.
const NAME_BYTES: usize = 64;
/// How late a use may be known: behind the last known one of its session, in microseconds. Triggers tell as often.
pub const HAND_OVER_US: i64 = 1_000_000;

/// A relation, or one of its columns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watch {
    /// Whose: a row of `_transmute.watches`.
    pub id: i64,
    pub relation: u32,
    /// 0: any use of the relation.
    pub column: i16,
}

#[derive(Clone, Copy, Default)]
struct Watched {
    /// 0: free.
    database: u32,
    watch: Watch,
}

/// Statements of one role and application that used one watched thing.
#[derive(Clone, Copy)]
struct Use {
    /// 0: free.
    database: u32,
    watch: i64,
    role: u32,
    application: [u8; NAME_BYTES],
    reads: u64,
    writes: u64,
    last_us: i64,
}

impl Use {
    const NONE: Use = Use {
        database: 0,
        watch: 0,
        role: 0,
        application: [0; NAME_BYTES],
        reads: 0,
        writes: 0,
        last_us: 0,
    };

    fn is_of(&self, other: &Use) -> bool {
        self.database == other.database
            && self.watch == other.watch
            && self.role == other.role
            && self.application == other.application
    }

    fn add(&mut self, other: &Use) {
        self.reads += other.reads;
        self.writes += other.writes;
        self.last_us = self.last_us.max(other.last_us);
    }
}

#[derive(Clone, Copy)]
pub struct Shared {
    watched: [Watched; MAX_WATCHES],
    uses: [Use; MAX_USES],
}

impl Default for Shared {
    fn default() -> Self {
        Shared {
            watched: [Watched::default(); MAX_WATCHES],
            uses: [Use::NONE; MAX_USES],
        }
    }
}

// SAFETY: plain data without pointers: valid in every process.
unsafe impl PGRXSharedMemory for Shared {}

// SAFETY: the names are unique in this library.
static SHARED: PgLwLock<Shared> = unsafe { PgLwLock::new(c"transmute_usage") };
/// Changes with what is watched; 0: nothing ever was.
// SAFETY: as above.
static GENERATION: PgAtomic<AtomicU64> = unsafe { PgAtomic::new(c"transmute_usage_generation") };

/// Set in the processes that drive migrations: what they run is nobody's use.
static IGNORED: AtomicBool = AtomicBool::new(false);

static mut PREVIOUS: pg_sys::ExecutorStart_hook_type = None;

struct Own {
    generation: u64,
    watches: Vec<Watch>,
    kept: Vec<Use>,
    handed_over_us: i64,
    ends_well: bool,
}

thread_local! {
    static OWN: RefCell<Own> = const {
        RefCell::new(Own {
            generation: 0,
            watches: Vec::new(),
            kept: Vec::new(),
            handed_over_us: 0,
            ends_well: false,
        })
    };
}

/// Shared memory and the hook; only while shared_preload_libraries are loaded.
pub fn init() {
    pg_shmem_init!(SHARED);
    pg_shmem_init!(GENERATION);
    // SAFETY: called once, in the postmaster, before anything runs.
    unsafe {
        PREVIOUS = pg_sys::ExecutorStart_hook;
        pg_sys::ExecutorStart_hook = Some(hook);
    }
}

/// What this process runs is not counted from now on.
pub fn ignore_this_process() {
    IGNORED.store(true, Ordering::Relaxed);
}

extern "C-unwind" {
    /// The server's own, without pgrx's guard: see `hook`.
    #[link_name = "standard_ExecutorStart"]
    fn unguarded_executor_start(query: *mut pg_sys::QueryDesc, flags: std::ffi::c_int);
}

/// Every plan of every session comes by here. An ERROR of what runs below passes over this frame as the server raised it: there is
/// nothing here to clean up. What is refused there is not counted.
///
/// # Safety
/// Called by the server as its ExecutorStart hook.
unsafe extern "C-unwind" fn hook(query: *mut pg_sys::QueryDesc, flags: std::ffi::c_int) {
    // SAFETY: arguments are passed on as they came. PREVIOUS is set before the hook is; no value with a destructor lives in
    // this frame.
    unsafe {
        match PREVIOUS {
            Some(previous) => previous(query, flags),
            None => unguarded_executor_start(query, flags),
        }
        let generation = GENERATION.get().load(Ordering::Relaxed);
        if generation != 0
            && flags & pg_sys::EXEC_FLAG_EXPLAIN_ONLY as i32 == 0
            && pg_sys::ParallelWorkerNumber < 0
            && !IGNORED.load(Ordering::Relaxed)
        {
            note(query, generation);
        }
    }
}

/// # Safety
/// `query` has been started.
#[pg_guard]
unsafe extern "C-unwind" fn note(query: *mut pg_sys::QueryDesc, generation: u64) {
    OWN.with(|own| {
        // Borrowed already: by this very function, further up the stack; not counted.
        let Ok(mut own) = own.try_borrow_mut() else {
            return;
        };
        if own.generation != generation {
            own.learn(generation);
        }
        if own.watches.is_empty() {
            return;
        }
        let own = &mut *own;
        // SAFETY: by the contract above; sets of columns are those of the plan.
        unsafe {
            super::compat::for_each_permission((*query).plannedstmt, |p| {
                for i in 0..own.watches.len() {
                    let watch = own.watches[i];
                    if watch.relation != p.relation.to_u32() {
                        continue;
                    }
                    let writes = match watch.column {
                        0 => p.required & WRITES != 0,
                        column => has(p.inserted, column) || has(p.updated, column),
                    };
                    let reads = match watch.column {
                        0 => p.required & pg_sys::ACL_SELECT as pg_sys::AclMode != 0,
                        column => has(p.selected, column) || has(p.selected, 0),
                    };
                    if reads || writes {
                        own.count(watch.id, writes);
                    }
                }
            });
        }
    });
}

/// COPY and TRUNCATE, which are no plans: about a relation, these columns of it, or all of them (none given).
pub(super) fn note_command(relation: pg_sys::Oid, columns: &[i16], writes: bool) {
    if !super::slots::preloaded() || IGNORED.load(Ordering::Relaxed) {
        return;
    }
    let generation = GENERATION.get().load(Ordering::Relaxed);
    if generation == 0 {
        return;
    }
    OWN.with(|own| {
        let Ok(mut own) = own.try_borrow_mut() else {
            return;
        };
        if own.generation != generation {
            own.learn(generation);
        }
        for i in 0..own.watches.len() {
            let watch = own.watches[i];
            let meant = watch.column == 0 || columns.is_empty() || columns.contains(&watch.column);
            if watch.relation == relation.to_u32() && meant {
                own.count(watch.id, writes);
            }
        }
    });
}

const WRITES: pg_sys::AclMode =
    (pg_sys::ACL_INSERT | pg_sys::ACL_UPDATE | pg_sys::ACL_DELETE) as pg_sys::AclMode;

/// Whether a set of columns of a plan has this one; 0: the whole row.
///
/// # Safety
/// `set` is NULL or a set of the plan.
unsafe fn has(set: *const pg_sys::Bitmapset, column: i16) -> bool {
    // SAFETY: by the contract above.
    unsafe {
        let member = i32::from(column) - pg_sys::FirstLowInvalidHeapAttributeNumber;
        pg_sys::bms_is_member(member, set)
    }
}

impl Own {
    /// What is watched in this database now.
    fn learn(&mut self, generation: u64) {
        let database = super::activity::database().to_u32();
        let shared = SHARED.share();
        self.watches.clear();
        self.watches.extend(
            shared
                .watched
                .iter()
                .filter(|w| w.database == database)
                .map(|w| w.watch),
        );
        self.generation = generation;
    }

    fn count(&mut self, watch: i64, writes: bool) {
        // SAFETY: plain reads of this session; the name is NUL-terminated.
        let (role, application, now) = unsafe {
            (
                pg_sys::GetSessionUserId().to_u32(),
                bytes_of(pg_sys::application_name),
                pg_sys::GetCurrentTimestamp(),
            )
        };
        let one = Use {
            database: super::activity::database().to_u32(),
            watch,
            role,
            application,
            reads: u64::from(!writes),
            writes: u64::from(writes),
            last_us: now,
        };
        let full = self.kept.len() >= MAX_KEPT;
        // A session that is everybody in turn is counted under a name that it had before.
        let place = self
            .kept
            .iter()
            .position(|kept| kept.is_of(&one) || full && kept.watch == watch);
        match place {
            Some(place) => self.kept[place].add(&one),
            None if full => self.kept[0] = one,
            None => self.kept.push(one),
        }
        if !self.ends_well {
            self.ends_well = true;
            // SAFETY: once a process; the callback takes no argument.
            unsafe { pg_sys::before_shmem_exit(Some(at_exit), pg_sys::Datum::from(0usize)) };
        }
        if now - self.handed_over_us >= HAND_OVER_US {
            self.handed_over_us = now;
            self.hand_over();
        }
    }

    /// Hands over what was counted; what finds no place is kept until the next time.
    fn hand_over(&mut self) {
        if self.kept.is_empty() {
            return;
        }
        let mut shared = SHARED.exclusive();
        self.kept.retain(|kept| {
            let place = shared
                .uses
                .iter()
                .position(|u| u.is_of(kept))
                .or_else(|| shared.uses.iter().position(|u| u.database == 0));
            match place {
                Some(place) if shared.uses[place].database == 0 => shared.uses[place] = *kept,
                Some(place) => shared.uses[place].add(kept),
                None => return true,
            }
            false
        });
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn at_exit(_code: std::ffi::c_int, _arg: pg_sys::Datum) {
    OWN.with(|own| {
        if let Ok(mut own) = own.try_borrow_mut() {
            own.hand_over();
        }
    });
}

/// # Safety
/// `text` is NULL or NUL-terminated.
unsafe fn bytes_of(text: *const std::ffi::c_char) -> [u8; NAME_BYTES] {
    let mut bytes = [0; NAME_BYTES];
    if !text.is_null() {
        // SAFETY: by the contract above.
        let text = unsafe { CStr::from_ptr(text) }.to_bytes();
        let length = text.len().min(NAME_BYTES - 1);
        bytes[..length].copy_from_slice(&text[..length]);
    }
    bytes
}

/// Watches these, and nothing else, in this database; false: there is no room for all of them.
pub fn watch(watches: &[Watch]) -> bool {
    let database = super::activity::database().to_u32();
    let mut shared = SHARED.exclusive();
    let now: Vec<Watch> = shared
        .watched
        .iter()
        .filter(|w| w.database == database)
        .map(|w| w.watch)
        .collect();
    if now == watches {
        return true;
    }
    for watched in shared.watched.iter_mut().filter(|w| w.database == database) {
        *watched = Watched::default();
    }
    let mut free = shared.watched.iter_mut().filter(|w| w.database == 0);
    let mut all = true;
    for watch in watches {
        match free.next() {
            Some(place) => {
                *place = Watched {
                    database,
                    watch: *watch,
                }
            }
            None => all = false,
        }
    }
    GENERATION.get().fetch_add(1, Ordering::Relaxed);
    all
}

/// Who used what, as it was counted since the last time.
#[derive(Debug, Clone)]
pub struct Counted {
    pub watch: i64,
    pub role: pg_sys::Oid,
    pub application: String,
    pub reads: i64,
    pub writes: i64,
    /// Of the last one, microseconds since the Unix epoch.
    pub last_us: i64,
}

/// Microseconds between the Unix epoch and that of PostgreSQL's timestamps.
const EPOCH_US: i64 = 946_684_800_000_000;

/// Whether anything was counted in this database.
pub fn any_counted() -> bool {
    let database = super::activity::database().to_u32();
    SHARED.share().uses.iter().any(|u| u.database == database)
}

/// Takes what was counted in this database out of shared memory.
pub fn take() -> Vec<Counted> {
    let database = super::activity::database().to_u32();
    let mut shared = SHARED.exclusive();
    let mut taken = Vec::new();
    for one in shared.uses.iter_mut().filter(|u| u.database == database) {
        let name: Vec<u8> = one
            .application
            .iter()
            .copied()
            .take_while(|b| *b != 0)
            .collect();
        taken.push(Counted {
            watch: one.watch,
            role: pg_sys::Oid::from(one.role),
            application: String::from_utf8_lossy(&name).into_owned(),
            reads: one.reads as i64,
            writes: one.writes as i64,
            last_us: one.last_us + EPOCH_US,
        });
        *one = Use::NONE;
    }
    taken
}
