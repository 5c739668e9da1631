//! One statement at top level, outside any transaction: what the server refuses in a transaction block or from a
//! function (CREATE INDEX CONCURRENTLY, VACUUM).

use super::error::catch;
use super::parser::to_c;
use crate::error::{Error, Result};
use pgrx::pg_sys;

/// Runs one statement as exec_simple_query (postgres.c) does: it may commit and begin transactions of its own.
///
/// Only in a worker, outside any transaction and without a security context (`identity::become_role` says as whom).
pub fn run(text: &str) -> Result<()> {
    let source = to_c(text)?;
    // SAFETY: child of TopMemoryContext: it lives through the commits of the statement; deleted below.
    let context = unsafe {
        pg_sys::AllocSetContextCreateInternal(
            pg_sys::TopMemoryContext,
            c"transmute statement".as_ptr(),
            pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
            pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
            pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
        )
    };
    // SAFETY: outside a transaction, by the contract above; the parse tree lives in `context`, the text in `source`;
    // both outlive the portal. An ERROR is caught and followed by an abort.
    let caught = catch(|| unsafe {
        pg_sys::debug_query_string = source.as_ptr();
        pg_sys::SetCurrentStatementStartTimestamp();
        pg_sys::StartTransactionCommand();
        let before = pg_sys::MemoryContextSwitchTo(context);
        let list = pg_sys::pg_parse_query(source.as_ptr());
        if pg_sys::list_length(list) != 1 {
            return Err(Error::Bug(format!("expected one statement: {text}")));
        }
        let raw = pg_sys::list_nth(list, 0).cast::<pg_sys::RawStmt>();
        let snapshot = pg_sys::analyze_requires_snapshot(raw);
        if snapshot {
            pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
        }
        let queries = pg_sys::pg_analyze_and_rewrite_fixedparams(
            raw,
            source.as_ptr(),
            std::ptr::null(),
            0,
            std::ptr::null_mut(),
        );
        let plans = pg_sys::pg_plan_queries(
            queries,
            source.as_ptr(),
            pg_sys::CURSOR_OPT_PARALLEL_OK as i32,
            std::ptr::null_mut(),
        );
        if snapshot {
            pg_sys::PopActiveSnapshot();
        }
        let portal = pg_sys::CreatePortal(c"".as_ptr(), true, true);
        (*portal).visible = false;
        pg_sys::PortalDefineQuery(
            portal,
            std::ptr::null(),
            source.as_ptr(),
            pg_sys::CreateCommandTag((*raw).stmt),
            plans,
            std::ptr::null_mut(),
        );
        pg_sys::PortalStart(
            portal,
            std::ptr::null_mut(),
            0,
            std::ptr::null_mut::<pg_sys::SnapshotData>(),
        );
        let receiver = pg_sys::CreateDestReceiver(pg_sys::CommandDest::DestNone);
        pg_sys::MemoryContextSwitchTo(before);
        super::compat::portal_run(portal, receiver);
        pg_sys::PortalDrop(portal, false);
        pg_sys::CommitTransactionCommand();
        Ok(())
    });
    // SAFETY: AbortCurrentTransaction does nothing when nothing is open; after it nothing points into `context`.
    unsafe {
        if !matches!(caught, Ok(Ok(()))) {
            pg_sys::AbortCurrentTransaction();
            pg_sys::FlushErrorState();
        }
        pg_sys::debug_query_string = std::ptr::null();
        pg_sys::MemoryContextSwitchTo(pg_sys::TopMemoryContext);
        pg_sys::MemoryContextDelete(context);
    }
    caught.unwrap_or_else(|error| Err(Error::Server(error)))
}
