//! Running utility statements through the server, as written or on another relation.

use super::parser::to_c;
use crate::error::{Error, Result};
use crate::model::ident::QualifiedName;
use pgrx::pg_sys;

/// Runs one statement exactly as written, as if a client had sent it (event triggers fire).
/// The caller has set role and search_path.
pub fn run(text: &str) -> Result<()> {
    process(text, None)
}

/// Runs an ALTER TABLE or CREATE INDEX statement on `relation` instead of the one it names: the name
/// is replaced in the parse tree, so everything else stays as the DBA wrote it. Event triggers do not
/// fire: the relation is ours.
pub fn run_on(text: &str, relation: &QualifiedName) -> Result<()> {
    process(text, Some(relation))
}

fn process(text: &str, relation: Option<&QualifiedName>) -> Result<()> {
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
        let mut context = pg_sys::ProcessUtilityContext::PROCESS_UTILITY_QUERY;
        if let Some(name) = relation {
            let target = match (*(*raw).stmt).type_ {
                pg_sys::NodeTag::T_AlterTableStmt => {
                    (*(*raw).stmt.cast::<pg_sys::AlterTableStmt>()).relation
                }
                pg_sys::NodeTag::T_IndexStmt => (*(*raw).stmt.cast::<pg_sys::IndexStmt>()).relation,
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
