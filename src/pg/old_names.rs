//! COPY and TRUNCATE of a table that has two names or hidden columns: what the server does not do by itself, where this
//! library is preloaded.
//!
//! - COPY and TRUNCATE of the view that keeps a table's old name go to the table.
//! - COPY without a column list leaves out columns that are there only while a migration runs, or are dropped but kept.
//!
//! The statement is changed before the server runs it, and the server checks privileges on what it then names.

use super::naming::HIDDEN;
use pgrx::pg_sys;
use pgrx::prelude::*;
use std::ffi::CStr;

static mut PREVIOUS: pg_sys::ProcessUtility_hook_type = None;

/// Puts the hook in front of those that are there.
pub fn install() {
    // SAFETY: called once, from _PG_init, before anything else runs in this process.
    unsafe {
        PREVIOUS = pg_sys::ProcessUtility_hook;
        pg_sys::ProcessUtility_hook = Some(hook);
    }
}

extern "C-unwind" {
    /// The server's own, without pgrx's guard: see `hook`.
    #[link_name = "standard_ProcessUtility"]
    fn unguarded_process_utility(
        statement: *mut pg_sys::PlannedStmt,
        text: *const std::ffi::c_char,
        read_only: bool,
        context: pg_sys::ProcessUtilityContext::Type,
        parameters: pg_sys::ParamListInfo,
        environment: *mut pg_sys::QueryEnvironment,
        destination: *mut pg_sys::DestReceiver,
        completion: *mut pg_sys::QueryCompletion,
    );
}

/// Every utility statement of every session comes by here. An ERROR of what runs below passes over this frame as the
/// server raised it: there is nothing here to clean up, and a guard would raise it anew.
///
/// # Safety
/// Called by the server as its ProcessUtility hook.
#[allow(clippy::too_many_arguments, reason = "the server's signature")]
unsafe extern "C-unwind" fn hook(
    statement: *mut pg_sys::PlannedStmt,
    text: *const std::ffi::c_char,
    read_only: bool,
    context: pg_sys::ProcessUtilityContext::Type,
    parameters: pg_sys::ParamListInfo,
    environment: *mut pg_sys::QueryEnvironment,
    destination: *mut pg_sys::DestReceiver,
    completion: *mut pg_sys::QueryCompletion,
) {
    // SAFETY: arguments are passed on as they came, the statement perhaps as a changed copy. PREVIOUS is set before the
    // hook is; no value with a destructor lives in this frame.
    unsafe {
        let mut statement = statement;
        if matches!(
            (*(*statement).utilityStmt).type_,
            pg_sys::NodeTag::T_CopyStmt | pg_sys::NodeTag::T_TruncateStmt
        ) {
            statement = changed_or_same(statement);
        }
        match PREVIOUS {
            Some(previous) => previous(
                statement,
                text,
                read_only,
                context,
                parameters,
                environment,
                destination,
                completion,
            ),
            None => unguarded_process_utility(
                statement,
                text,
                read_only,
                context,
                parameters,
                environment,
                destination,
                completion,
            ),
        }
    }
}

/// # Safety
/// As `changed`.
#[pg_guard]
unsafe extern "C-unwind" fn changed_or_same(
    planned: *mut pg_sys::PlannedStmt,
) -> *mut pg_sys::PlannedStmt {
    // SAFETY: by the contract above.
    unsafe { changed(planned).unwrap_or(planned) }
}

/// The statement with other relations or a column list; `None`: it stays as it is.
///
/// # Safety
/// `planned` is a statement that is about to run.
unsafe fn changed(planned: *mut pg_sys::PlannedStmt) -> Option<*mut pg_sys::PlannedStmt> {
    // SAFETY: casts follow the node's own tag; the tree that came may be cached, so a copy is changed.
    unsafe {
        match (*(*planned).utilityStmt).type_ {
            pg_sys::NodeTag::T_CopyStmt => {
                let copy = (*planned).utilityStmt.cast::<pg_sys::CopyStmt>();
                if (*copy).relation.is_null() {
                    return None;
                }
                let mode = match (*copy).is_from {
                    true => pg_sys::RowExclusiveLock,
                    false => pg_sys::AccessShareLock,
                } as i32;
                let named = resolve((*copy).relation, mode);
                let base = base_of(named);
                let relation = base.unwrap_or((*copy).relation);
                if !(*copy).is_from {
                    super::outdated::require_for_copy(resolve(relation, mode));
                }
                let columns = match pg_sys::list_length((*copy).attlist) {
                    0 => shown_columns(relation, mode),
                    _ if base.is_some() => Some(base_columns(named, (*copy).attlist)),
                    _ => None,
                };
                super::usage::note_command(
                    named,
                    &numbers(named, (*copy).attlist),
                    (*copy).is_from,
                );
                if base.is_none() && columns.is_none() {
                    return None;
                }
                let (planned, node) = copy_of(planned);
                let copy = node.cast::<pg_sys::CopyStmt>();
                (*copy).relation = relation;
                if let Some(columns) = columns {
                    (*copy).attlist = columns;
                }
                Some(planned)
            }
            pg_sys::NodeTag::T_TruncateStmt => {
                let truncate = (*planned).utilityStmt.cast::<pg_sys::TruncateStmt>();
                let mut relations = std::ptr::null_mut();
                let mut any = false;
                for i in 0..pg_sys::list_length((*truncate).relations) {
                    let relation = pg_sys::list_nth((*truncate).relations, i).cast();
                    let named = locked_for_truncate(relation);
                    let base = base_of(named);
                    super::usage::note_command(named, &[0], true);
                    any |= base.is_some();
                    relations = pg_sys::lappend(relations, base.unwrap_or(relation).cast());
                }
                if !any {
                    return None;
                }
                let (planned, node) = copy_of(planned);
                (*node.cast::<pg_sys::TruncateStmt>()).relations = relations;
                Some(planned)
            }
            _ => None,
        }
    }
}

/// # Safety
/// `planned` holds a utility statement.
unsafe fn copy_of(
    planned: *mut pg_sys::PlannedStmt,
) -> (*mut pg_sys::PlannedStmt, *mut pg_sys::Node) {
    // SAFETY: by the contract above; copyObject copies the whole tree.
    unsafe {
        let copy = pg_sys::copyObjectImpl(planned.cast()).cast::<pg_sys::PlannedStmt>();
        (copy, (*copy).utilityStmt)
    }
}

/// The numbers of columns that are named; those that there are not are 0.
///
/// # Safety
/// `names` is a list of String nodes.
unsafe fn numbers(relation: pg_sys::Oid, names: *mut pg_sys::List) -> Vec<i16> {
    // SAFETY: by the contract above; a look-up in the catalog.
    unsafe {
        (0..pg_sys::list_length(names))
            .map(|i| {
                let name = (*pg_sys::list_nth(names, i).cast::<pg_sys::String>()).sval;
                pg_sys::get_attnum(relation, name)
            })
            .collect()
    }
}

/// What a name means, locked as the statement will lock it: who waits for the end of a rename gets what the name means
/// after it.
///
/// # Safety
/// `relation` is a RangeVar.
unsafe fn resolve(relation: *mut pg_sys::RangeVar, mode: i32) -> pg_sys::Oid {
    // SAFETY: by the contract above; RVR_MISSING_OK is 1.
    unsafe {
        pg_sys::RangeVarGetRelidExtended(
            relation,
            mode,
            pg_sys::RVROption::RVR_MISSING_OK,
            None,
            std::ptr::null_mut(),
        )
    }
}

/// As `resolve`, but who may not truncate gets no lock.
///
/// # Safety
/// `relation` is a RangeVar.
unsafe fn locked_for_truncate(relation: *mut pg_sys::RangeVar) -> pg_sys::Oid {
    // SAFETY: by the contract above; a look-up of privileges.
    unsafe {
        let oid = resolve(relation, pg_sys::NoLock as i32);
        let may = oid != pg_sys::InvalidOid
            && pg_sys::pg_class_aclcheck(
                oid,
                pg_sys::GetUserId(),
                pg_sys::ACL_TRUNCATE as pg_sys::AclMode,
            ) == pg_sys::AclResult::ACLCHECK_OK;
        match may {
            true => resolve(relation, pg_sys::AccessExclusiveLock as i32),
            false => pg_sys::InvalidOid,
        }
    }
}

/// The table behind a view that keeps its old name. View and table must have one owner: nobody can lead others'
/// statements to a table that is not his.
///
/// # Safety
/// Inside a transaction; the view is locked.
unsafe fn base_of(view: pg_sys::Oid) -> Option<*mut pg_sys::RangeVar> {
    // SAFETY: look-ups inside a transaction; the comment is NUL-terminated.
    unsafe {
        if view == pg_sys::InvalidOid || pg_sys::get_rel_relkind(view) as u8 != pg_sys::RELKIND_VIEW
        {
            return None;
        }
        let comment = pg_sys::GetComment(view, pg_sys::RelationRelationId, 0);
        if comment.is_null() {
            return None;
        }
        let comment = CStr::from_ptr(comment).to_string_lossy();
        let name = comment.strip_prefix(super::naming::OLD_NAME_OF)?;
        let sql = super::parser::to_c(&format!("TRUNCATE {name}")).ok()?;
        let list = pg_sys::raw_parser(sql.as_ptr(), pg_sys::RawParseMode::RAW_PARSE_DEFAULT);
        if pg_sys::list_length(list) != 1 {
            return None;
        }
        let node = (*pg_sys::list_nth(list, 0).cast::<pg_sys::RawStmt>()).stmt;
        if (*node).type_ != pg_sys::NodeTag::T_TruncateStmt {
            return None;
        }
        let relations = (*node.cast::<pg_sys::TruncateStmt>()).relations;
        let base = pg_sys::list_nth(relations, 0).cast::<pg_sys::RangeVar>();
        let table = resolve(base, pg_sys::NoLock as i32);
        (table != pg_sys::InvalidOid && owner(table)? == owner(view)?).then_some(base)
    }
}

/// The table's names of columns of the view: a column of the table may have two names there.
///
/// # Safety
/// `names` is a list of String nodes; the view is a simple one and locked.
unsafe fn base_columns(view: pg_sys::Oid, names: *mut pg_sys::List) -> *mut pg_sys::List {
    // SAFETY: by the contract above; target entries and variables are cast by their tags.
    unsafe {
        let relation = pg_sys::relation_open(view, pg_sys::NoLock as i32);
        let query = pg_sys::get_view_query(relation);
        let mut columns = std::ptr::null_mut();
        for i in 0..pg_sys::list_length(names) {
            let node = pg_sys::list_nth(names, i);
            let name = CStr::from_ptr((*node.cast::<pg_sys::String>()).sval);
            let found = base_column(query, name);
            columns = pg_sys::lappend(columns, found.unwrap_or(node));
        }
        pg_sys::relation_close(relation, pg_sys::NoLock as i32);
        columns
    }
}

/// The table's name, as a String node, of a column that the view shows as `name`; `None`: there is none, which COPY says.
///
/// # Safety
/// `query` is that of a view that selects columns of one table.
unsafe fn base_column(query: *mut pg_sys::Query, name: &CStr) -> Option<*mut std::ffi::c_void> {
    // SAFETY: by the contract above.
    unsafe {
        for i in 0..pg_sys::list_length((*query).targetList) {
            let entry = pg_sys::list_nth((*query).targetList, i).cast::<pg_sys::TargetEntry>();
            if (*entry).resname.is_null()
                || CStr::from_ptr((*entry).resname) != name
                || (*(*entry).expr.cast::<pg_sys::Node>()).type_ != pg_sys::NodeTag::T_Var
            {
                continue;
            }
            let var = (*entry).expr.cast::<pg_sys::Var>();
            let tables = (*query).rtable;
            let table =
                pg_sys::list_nth(tables, (*var).varno as i32 - 1).cast::<pg_sys::RangeTblEntry>();
            let column = pg_sys::get_attname((*table).relid, (*var).varattno, false);
            return Some(pg_sys::makeString(column).cast());
        }
        None
    }
}

/// # Safety
/// Inside a transaction.
unsafe fn owner(relation: pg_sys::Oid) -> Option<pg_sys::Oid> {
    // SAFETY: the tuple is released after it is read.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(
            pg_sys::SysCacheIdentifier::RELOID as i32,
            pg_sys::Datum::from(relation),
        );
        if tuple.is_null() {
            return None;
        }
        let owner = (*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_class>()).relowner;
        pg_sys::ReleaseSysCache(tuple);
        Some(owner)
    }
}

/// The columns as the application knows them, where the table has others; `None`: all of them.
///
/// # Safety
/// `relation` is a RangeVar.
unsafe fn shown_columns(relation: *mut pg_sys::RangeVar, mode: i32) -> Option<*mut pg_sys::List> {
    // SAFETY: the relation is opened under the lock that COPY takes anyway, and kept locked.
    unsafe {
        let oid = resolve(relation, mode);
        if oid == pg_sys::InvalidOid {
            return None;
        }
        let table = pg_sys::try_relation_open(oid, mode);
        if table.is_null() {
            return None;
        }
        let desc = (*table).rd_att;
        let mut shown = std::ptr::null_mut();
        let mut any = false;
        // Those that a trigger of ours fills, too.
        let computed = super::dual_write::new_columns(table);
        for i in 0..(*desc).natts as usize {
            let column = &*super::compat::tuple_desc_attr(desc, i);
            // As CopyGetAttnums.
            if column.attisdropped || column.attgenerated != 0 {
                continue;
            }
            let name = CStr::from_ptr(column.attname.data.as_ptr());
            if is_hidden(name.to_bytes()) || computed.contains(&i) {
                any = true;
                continue;
            }
            let node = pg_sys::makeString(pg_sys::pstrdup(name.as_ptr()));
            shown = pg_sys::lappend(shown, node.cast());
        }
        pg_sys::relation_close(table, pg_sys::NoLock as i32);
        any.then_some(shown)
    }
}

/// `_transmute_12_name`: a dropped column that is kept.
fn is_hidden(name: &[u8]) -> bool {
    name.strip_prefix(HIDDEN.as_bytes())
        .and_then(|rest| rest.first())
        .is_some_and(u8::is_ascii_digit)
}
