//! Running utility statements through the server, as written or on another relation.

use super::parser::to_c;
use crate::error::{Error, Result};
use crate::model::ident::QualifiedName;
use pgrx::pg_sys;

/// Runs one statement exactly as written, as if a client had sent it (event triggers fire).
/// The caller has set role and search_path.
pub fn run(text: &str) -> Result<()> {
    match is_query(text)? {
        true => super::spi::execute(text, &[]).map(|_| ()),
        false => process(text, None, &[]),
    }
}

/// Whether the executor runs the statement, not ProcessUtility.
fn is_query(text: &str) -> Result<bool> {
    use pg_sys::NodeTag::*;
    let source = to_c(text)?;
    // SAFETY: the tree is read in the current memory context; the list holds RawStmt nodes.
    unsafe {
        let list = pg_sys::raw_parser(source.as_ptr(), pg_sys::RawParseMode::RAW_PARSE_DEFAULT);
        if pg_sys::list_length(list) != 1 {
            return Ok(false);
        }
        let raw = pg_sys::list_nth(list, 0).cast::<pg_sys::RawStmt>();
        Ok(matches!(
            (*(*raw).stmt).type_,
            T_InsertStmt | T_UpdateStmt | T_DeleteStmt | T_MergeStmt | T_SelectStmt
        ))
    }
}

/// Runs an ALTER TABLE, CREATE INDEX or CREATE VIEW statement on `relation` instead of the one it names: the name
/// is replaced in the parse tree, so everything else stays as the DBA wrote it. Event triggers do not
/// fire: the relation is ours.
pub fn run_on(text: &str, relation: &QualifiedName) -> Result<()> {
    process(text, Some(relation), &[])
}

/// Runs the DBA's ALTER TABLE on a copy that has no triggers, rules, policies, foreign keys and privileges: the
/// subcommands that are about those are left out, the rest runs as written.
pub fn alter_copy(text: &str, copy: &QualifiedName, foreign_keys: &[String]) -> Result<()> {
    process(text, Some(copy), foreign_keys)
}

/// Whether a subcommand means nothing to a copy.
///
/// # Safety
/// `command` is an AlterTableCmd of the raw parser.
#[allow(
    non_upper_case_globals,
    reason = "the server's own names of subcommands"
)]
unsafe fn is_foreign(command: *mut pg_sys::AlterTableCmd, foreign_keys: &[String]) -> bool {
    use pg_sys::AlterTableType::*;
    // SAFETY: by the contract above; `name` is NULL or NUL-terminated.
    let (subtype, name) = unsafe { ((*command).subtype, (*command).name) };
    match subtype {
        AT_EnableTrig
        | AT_EnableAlwaysTrig
        | AT_EnableReplicaTrig
        | AT_DisableTrig
        | AT_EnableTrigAll
        | AT_DisableTrigAll
        | AT_EnableTrigUser
        | AT_DisableTrigUser
        | AT_EnableRule
        | AT_EnableAlwaysRule
        | AT_EnableReplicaRule
        | AT_DisableRule
        | AT_EnableRowSecurity
        | AT_DisableRowSecurity
        | AT_ForceRowSecurity
        | AT_NoForceRowSecurity
        | AT_ChangeOwner
        | AT_AlterConstraint => true,
        AT_DropConstraint | AT_ValidateConstraint if !name.is_null() => {
            // SAFETY: checked for NULL.
            let name = unsafe { std::ffi::CStr::from_ptr(name) }.to_string_lossy();
            foreign_keys.iter().any(|f| *f == name)
        }
        _ => false,
    }
}

fn process(text: &str, relation: Option<&QualifiedName>, foreign_keys: &[String]) -> Result<()> {
    let source = to_c(text)?;
    // SAFETY: the tree is parsed, changed and run in the current memory context of the caller's
    // transaction; the node tag is checked before each cast; a snapshot is active as in
    // PortalRunUtility.
    unsafe {
        let list = pg_sys::raw_parser(source.as_ptr(), pg_sys::RawParseMode::RAW_PARSE_DEFAULT);
        if pg_sys::list_length(list) != 1 {
            return Err(Error::Bug(format!("expected one statement: {text}")));
        }
        let raw = pg_sys::list_nth(list, 0).cast::<pg_sys::RawStmt>();
        if (*(*raw).stmt).type_ == pg_sys::NodeTag::T_IndexStmt {
            // What comes here runs in one transaction with its step: on a table that is empty, or nobody's yet.
            (*(*raw).stmt.cast::<pg_sys::IndexStmt>()).concurrent = false;
        }
        let mut context = pg_sys::ProcessUtilityContext::PROCESS_UTILITY_QUERY;
        if let Some(name) = relation {
            let target = match (*(*raw).stmt).type_ {
                pg_sys::NodeTag::T_AlterTableStmt => {
                    let alter = (*raw).stmt.cast::<pg_sys::AlterTableStmt>();
                    let mut kept = std::ptr::null_mut();
                    for i in 0..pg_sys::list_length((*alter).cmds) {
                        let command = pg_sys::list_nth((*alter).cmds, i);
                        if !is_foreign(command.cast(), foreign_keys) {
                            kept = pg_sys::lappend(kept, command);
                        }
                    }
                    if pg_sys::list_length(kept) == 0 {
                        return Ok(());
                    }
                    (*alter).cmds = kept;
                    (*alter).relation
                }
                pg_sys::NodeTag::T_IndexStmt => {
                    let index = (*raw).stmt.cast::<pg_sys::IndexStmt>();
                    (*index).concurrent = false; // nobody else sees the relation
                    (*index).relation
                }
                pg_sys::NodeTag::T_ViewStmt => (*(*raw).stmt.cast::<pg_sys::ViewStmt>()).view,
                _ => return Err(Error::Bug(format!("cannot retarget: {text}"))),
            };
            (*target).schemaname = pg_sys::pstrdup(to_c(&name.schema)?.as_ptr());
            (*target).relname = pg_sys::pstrdup(to_c(&name.name)?.as_ptr());
            (*target).catalogname = std::ptr::null_mut();
            context = pg_sys::ProcessUtilityContext::PROCESS_UTILITY_SUBCOMMAND;
        }
        let planned = pg_sys::palloc0(std::mem::size_of::<pg_sys::PlannedStmt>())
            .cast::<pg_sys::PlannedStmt>();
        (*planned).type_ = pg_sys::NodeTag::T_PlannedStmt;
        (*planned).commandType = pg_sys::CmdType::CMD_UTILITY;
        (*planned).canSetTag = true;
        (*planned).utilityStmt = (*raw).stmt;
        (*planned).stmt_location = (*raw).stmt_location;
        (*planned).stmt_len = (*raw).stmt_len;
        pg_sys::CommandCounterIncrement();
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
        pg_sys::ProcessUtility(
            planned,
            source.as_ptr(),
            false,
            context,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            pg_sys::CreateDestReceiver(pg_sys::CommandDest::DestNone),
            std::ptr::null_mut(),
        );
        pg_sys::PopActiveSnapshot();
        pg_sys::CommandCounterIncrement();
    }
    Ok(())
}
