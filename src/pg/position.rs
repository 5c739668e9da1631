//! Where in its text the server finds a statement wrong. pgrx drops the cursor position of an error; a callback of the
//! error context, the last one that is called, still sees it.

use pgrx::pg_sys;
use std::cell::Cell;
use std::ffi::{c_int, c_void};

/// Declared again: the binding is a Rust wrapper that sets a jump point, and this is called while an error is reported.
mod server {
    extern "C" {
        pub fn geterrposition() -> std::ffi::c_int;
    }
}

/// Notes the cursor position of what is being reported; a later report replaces that of an earlier one.
unsafe extern "C-unwind" fn note(position: *mut c_void) {
    // SAFETY: `position` is the cell of `watching`, which outlives the callback; called by errfinish, which is where
    // geterrposition may be.
    unsafe { (*position.cast::<Cell<c_int>>()).set(server::geterrposition()) }
}

/// Runs `f`, which lets no ERROR out, and gives the cursor position of the last report in it: characters from 1.
pub(super) fn watching<T>(f: impl FnOnce() -> T) -> (T, Option<usize>) {
    let position: Cell<c_int> = Cell::new(0);
    // SAFETY: the link stays in place until `f` is back, and is taken out again in any case: `f` does not unwind.
    unsafe {
        let mut link = pg_sys::ErrorContextCallback {
            previous: pg_sys::error_context_stack,
            callback: Some(note),
            arg: (&raw const position).cast_mut().cast(),
        };
        pg_sys::error_context_stack = &raw mut link;
        let result = f();
        pg_sys::error_context_stack = link.previous;
        let found = usize::try_from(position.get()).ok().filter(|p| *p > 0);
        (result, found)
    }
}
