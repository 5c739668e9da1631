//! Shared memory: which databases want a conductor. One lock, `SLOTS`, for every field; held for a few instructions.

use pgrx::prelude::*;
use pgrx::{pg_shmem_init, PGRXSharedMemory, PgLwLock};

/// Databases with work at the same time; the next one waits for a free place.
const MAX_DATABASES: usize = 64;

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Wish {
    #[default]
    None,
    /// Set by whoever queued work; cleared by the conductor when it begins to look.
    Asked,
    /// Set by the conductor at start; a stopped conductor that left it did not end by itself.
    Working,
}

#[derive(Clone, Copy, Default)]
struct Slot {
    /// 0: free.
    database: u32,
    wish: Wish,
    /// Written by the conductor; 0 when it has ended.
    conductor_pid: i32,
}

#[derive(Clone, Copy)]
pub struct Slots {
    /// Written by the launcher at its start.
    launcher_pid: i32,
    slots: [Slot; MAX_DATABASES],
}

impl Default for Slots {
    fn default() -> Self {
        Slots {
            launcher_pid: 0,
            slots: [Slot::default(); MAX_DATABASES],
        }
    }
}

#[allow(
    unsafe_code,
    reason = "plain data without pointers: fit for shared memory"
)]
// SAFETY: plain data without pointers: valid in every process.
unsafe impl PGRXSharedMemory for Slots {}

// SAFETY: the name is unique in this library.
static SLOTS: PgLwLock<Slots> = unsafe { PgLwLock::new(c"transmute_slots") };

static PRELOADED: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);

pub fn init() {
    pg_shmem_init!(SLOTS);
    PRELOADED.store(true, std::sync::atomic::Ordering::Relaxed);
}

/// Set in the postmaster, inherited by every process it forks.
pub fn preloaded() -> bool {
    PRELOADED.load(std::sync::atomic::Ordering::Relaxed)
}

fn slot_of(slots: &mut Slots, database: u32) -> Option<&mut Slot> {
    let found = slots
        .slots
        .iter()
        .position(|s| s.database == database)
        .or_else(|| slots.slots.iter().position(|s| s.database == 0))
        .or_else(|| {
            slots
                .slots
                .iter()
                .position(|s| s.wish == Wish::None && s.conductor_pid == 0)
        })?;
    let slot = &mut slots.slots[found];
    if slot.database != database {
        *slot = Slot {
            database,
            ..Slot::default()
        };
    }
    Some(slot)
}

/// Asks for a conductor; pids of the conductor, if one runs, and of the launcher.
pub fn request(database: u32) -> (i32, i32) {
    let mut slots = SLOTS.exclusive();
    let launcher = slots.launcher_pid;
    let conductor = slot_of(&mut slots, database).map_or(0, |slot| {
        slot.wish = Wish::Asked;
        slot.conductor_pid
    });
    (conductor, launcher)
}

pub fn set_launcher(pid: i32) {
    SLOTS.exclusive().launcher_pid = pid;
}

/// Databases that want a conductor and whose conductor, if any, is `gone`; true with those that had one that did not
/// end by itself.
pub fn wanted(gone: impl Fn(i32) -> bool) -> Vec<(u32, bool)> {
    SLOTS
        .share()
        .slots
        .iter()
        .filter(|s| s.database != 0 && s.wish != Wish::None && gone(s.conductor_pid))
        .map(|s| (s.database, s.conductor_pid != 0))
        .collect()
}

/// The conductor of `database` begins.
pub fn begin(database: u32, pid: i32) {
    if let Some(slot) = slot_of(&mut SLOTS.exclusive(), database) {
        slot.conductor_pid = pid;
        slot.wish = Wish::Working;
    }
}

/// The conductor found nothing to do; false when somebody asked meanwhile: it has to look again.
pub fn end(database: u32) -> bool {
    let mut slots = SLOTS.exclusive();
    match slot_of(&mut slots, database) {
        Some(slot) if slot.wish == Wish::Asked => {
            slot.wish = Wish::Working;
            false
        }
        Some(slot) => {
            slot.wish = Wish::None;
            slot.conductor_pid = 0;
            true
        }
        None => true,
    }
}

/// Nothing to do here (no such database, no extension): nobody is asked again.
pub fn forget(database: u32) {
    if let Some(slot) = slot_of(&mut SLOTS.exclusive(), database) {
        *slot = Slot::default();
    }
}
