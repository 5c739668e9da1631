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
        false => process(text, None, Change::Nothing),
    }
}

/// Whether the statement has to be analyzed before it runs: not all of it is ProcessUtility's.
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
            T_InsertStmt
                | T_UpdateStmt
                | T_DeleteStmt
                | T_MergeStmt
                | T_SelectStmt
                // These hold a query that has to be analysed first.
                | T_CreateTableAsStmt
                | T_CallStmt
        ))
    }
}

/// Runs an ALTER TABLE, CREATE INDEX, DROP INDEX or CREATE VIEW statement on `relation` instead of the one it names: the name
/// is replaced in the parse tree, so everything else stays as the DBA wrote it. Event triggers do not
/// fire: the relation is ours.
pub fn run_on(text: &str, relation: &QualifiedName) -> Result<()> {
    process(text, Some((relation, Sent::ByUs)), Change::Nothing)
}

/// Runs a DBA's ALTER TABLE or CREATE INDEX on the table it means, whatever that is called now, as if a client had sent it.
/// Dropping one of these foreign keys is left out: they are gone already.
pub fn run_for(text: &str, table: &QualifiedName, gone: &[String]) -> Result<()> {
    process(
        text,
        Some((table, Sent::ByClient)),
        Change::LeaveOutDrops(gone),
    )
}

/// Runs an ALTER TABLE that adds a foreign key, on `relation` and pointing at `referenced`, whatever it names.
pub fn add_foreign_key(
    text: &str,
    relation: &QualifiedName,
    referenced: &QualifiedName,
) -> Result<()> {
    process(
        text,
        Some((relation, Sent::ByUs)),
        Change::PointAt(referenced),
    )
}

/// Runs an ATTACH PARTITION with both tables replaced.
pub fn attach(text: &str, parent: &QualifiedName, partition: &QualifiedName) -> Result<()> {
    process(text, Some((parent, Sent::ByUs)), Change::Attach(partition))
}

/// Runs the DBA's ALTER TABLE on a copy that has no triggers, rules, policies, foreign keys and privileges: the
/// subcommands that are about those are left out, the rest runs as written.
pub fn alter_copy(text: &str, copy: &QualifiedName, foreign_keys: &[String]) -> Result<()> {
    process(
        text,
        Some((copy, Sent::ByUs)),
        Change::LeaveOut(foreign_keys),
    )
}

/// What is changed in the parse tree besides the name of the relation.
#[derive(Clone, Copy)]
enum Change<'a> {
    Nothing,
    /// Subcommands that mean nothing to a copy, whose table has foreign keys of these names.
    LeaveOut(&'a [String]),
    /// DROP CONSTRAINT of these.
    LeaveOutDrops(&'a [String]),
    /// The table that a foreign key points at.
    PointAt(&'a QualifiedName),
    /// The table that is attached.
    Attach(&'a QualifiedName),
}

/// Whether event triggers fire.
#[derive(Clone, Copy, PartialEq)]
enum Sent {
    ByClient,
    ByUs,
}

/// Whether a subcommand is of this type and names one of these.
///
/// # Safety
/// `command` is an AlterTableCmd of the raw parser.
unsafe fn names_one(
    command: *mut pg_sys::AlterTableCmd,
    subtype: pg_sys::AlterTableType::Type,
    names: &[String],
) -> bool {
    // SAFETY: by the contract above; `name` is NULL or NUL-terminated.
    unsafe {
        (*command).subtype == subtype
            && super::parser::text((*command).name).is_some_and(|name| names.contains(&name))
    }
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
        AT_AddConstraint => {
            // SAFETY: ADD CONSTRAINT has a Constraint node.
            let kind = unsafe { (*(*command).def.cast::<pg_sys::Constraint>()).contype };
            kind == pg_sys::ConstrType::CONSTR_FOREIGN
        }
        AT_DropConstraint | AT_ValidateConstraint if !name.is_null() => {
            // SAFETY: checked for NULL.
            let name = unsafe { std::ffi::CStr::from_ptr(name) }.to_string_lossy();
            foreign_keys.iter().any(|f| *f == name)
        }
        _ => false,
    }
}

/// Takes REFERENCES, and what belongs to it, from the column of an ADD COLUMN: the new column of a copy points nowhere.
///
/// # Safety
/// `command` is an AlterTableCmd of the raw parser.
unsafe fn without_references(command: *mut pg_sys::AlterTableCmd) {
    // SAFETY: by the contract above; the constraints of a ColumnDef are Constraint nodes.
    unsafe {
        if (*command).subtype != pg_sys::AlterTableType::AT_AddColumn {
            return;
        }
        let column = (*command).def.cast::<pg_sys::ColumnDef>();
        let mut kept = std::ptr::null_mut();
        let mut leaving = false;
        for i in 0..pg_sys::list_length((*column).constraints) {
            let constraint = pg_sys::list_nth((*column).constraints, i);
            let kind = (*constraint.cast::<pg_sys::Constraint>()).contype;
            // Attributes follow the constraint that they are of.
            if !super::pieces::is_attribute(kind) {
                leaving = kind == pg_sys::ConstrType::CONSTR_FOREIGN;
            }
            if !leaving {
                kept = pg_sys::lappend(kept, constraint);
            }
        }
        (*column).constraints = kept;
    }
}

/// Lets a DROP INDEX name indexes of this schema.
///
/// # Safety
/// `drop` is a DropStmt of the raw parser for indexes, in the current memory context.
unsafe fn drop_in(drop: *mut pg_sys::DropStmt, schema: &str) -> Result<()> {
    // SAFETY: by the contract above; each object is a list of names, of which the last is the index's.
    unsafe {
        (*drop).concurrent = false; // nobody else sees its rows
        let mut objects = std::ptr::null_mut();
        for i in 0..pg_sys::list_length((*drop).objects) {
            let names = pg_sys::list_nth((*drop).objects, i).cast::<pg_sys::List>();
            let last = pg_sys::list_nth(names, pg_sys::list_length(names) - 1);
            let place = pg_sys::makeString(pg_sys::pstrdup(to_c(schema)?.as_ptr()));
            let qualified = pg_sys::lappend(std::ptr::null_mut(), place.cast());
            objects = pg_sys::lappend(objects, pg_sys::lappend(qualified, last).cast());
        }
        (*drop).objects = objects;
        Ok(())
    }
}

/// Lets the foreign keys that an ALTER TABLE adds point at `referenced`.
///
/// # Safety
/// `command` is an AlterTableCmd of the raw parser.
unsafe fn point_at(command: *mut pg_sys::AlterTableCmd, referenced: &QualifiedName) -> Result<()> {
    // SAFETY: by the contract above; ADD CONSTRAINT has a Constraint node, whose pktable a foreign key has.
    unsafe {
        if (*command).subtype == pg_sys::AlterTableType::AT_AddConstraint {
            let constraint = (*command).def.cast::<pg_sys::Constraint>();
            if (*constraint).contype == pg_sys::ConstrType::CONSTR_FOREIGN {
                rename((*constraint).pktable, referenced)?;
            }
        }
        Ok(())
    }
}

/// # Safety
/// `relation` is a RangeVar in the current memory context.
unsafe fn rename(relation: *mut pg_sys::RangeVar, name: &QualifiedName) -> Result<()> {
    // SAFETY: by the contract above; the strings are copied.
    unsafe {
        (*relation).schemaname = pg_sys::pstrdup(to_c(&name.schema)?.as_ptr());
        (*relation).relname = pg_sys::pstrdup(to_c(&name.name)?.as_ptr());
        (*relation).catalogname = std::ptr::null_mut();
    }
    Ok(())
}

fn process(text: &str, relation: Option<(&QualifiedName, Sent)>, change: Change<'_>) -> Result<()> {
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
        if let Some((name, sent)) = relation {
            let target = match (*(*raw).stmt).type_ {
                pg_sys::NodeTag::T_AlterTableStmt => {
                    let alter = (*raw).stmt.cast::<pg_sys::AlterTableStmt>();
                    let mut kept = std::ptr::null_mut();
                    for i in 0..pg_sys::list_length((*alter).cmds) {
                        let command = pg_sys::list_nth((*alter).cmds, i);
                        match change {
                            Change::LeaveOut(foreign_keys)
                                if is_foreign(command.cast(), foreign_keys) =>
                            {
                                continue;
                            }
                            Change::LeaveOutDrops(gone)
                                if names_one(
                                    command.cast(),
                                    pg_sys::AlterTableType::AT_DropConstraint,
                                    gone,
                                ) =>
                            {
                                continue;
                            }
                            Change::LeaveOutDrops(_) => {}
                            Change::LeaveOut(_) => without_references(command.cast()),
                            Change::PointAt(referenced) => point_at(command.cast(), referenced)?,
                            Change::Attach(partition) => {
                                let attach = command.cast::<pg_sys::AlterTableCmd>();
                                if (*attach).subtype != pg_sys::AlterTableType::AT_AttachPartition {
                                    return Err(Error::Bug(format!("no ATTACH: {text}")));
                                }
                                let part = (*attach).def.cast::<pg_sys::PartitionCmd>();
                                rename((*part).name, partition)?;
                            }
                            Change::Nothing => {}
                        }
                        kept = pg_sys::lappend(kept, command);
                    }
                    if pg_sys::list_length(kept) == 0 {
                        return Ok(());
                    }
                    (*alter).cmds = kept;
                    (*alter).relation
                }
                pg_sys::NodeTag::T_IndexStmt => {
                    let index = (*raw).stmt.cast::<pg_sys::IndexStmt>();
                    (*index).concurrent = false; // nobody else sees its rows
                    (*index).relation
                }
                // RENAME COLUMN, RENAME CONSTRAINT.
                pg_sys::NodeTag::T_RenameStmt => {
                    (*(*raw).stmt.cast::<pg_sys::RenameStmt>()).relation
                }
                pg_sys::NodeTag::T_ViewStmt => (*(*raw).stmt.cast::<pg_sys::ViewStmt>()).view,
                pg_sys::NodeTag::T_DropStmt => {
                    let drop = (*raw).stmt.cast::<pg_sys::DropStmt>();
                    if (*drop).removeType != pg_sys::ObjectType::OBJECT_INDEX {
                        return Err(Error::Bug(format!("cannot retarget: {text}")));
                    }
                    drop_in(drop, &name.schema)?;
                    std::ptr::null_mut()
                }
                _ => return Err(Error::Bug(format!("cannot retarget: {text}"))),
            };
            if !target.is_null() {
                rename(target, name)?;
            }
            if sent == Sent::ByUs {
                context = pg_sys::ProcessUtilityContext::PROCESS_UTILITY_SUBCOMMAND;
            }
        }
        execute(raw, &source, context);
    }
    Ok(())
}

/// Runs one utility statement.
///
/// # Safety
/// Inside a transaction; `raw` holds a utility statement, analyzed where the server wants it so.
pub(super) unsafe fn execute(
    raw: *mut pg_sys::RawStmt,
    source: &std::ffi::CStr,
    context: pg_sys::ProcessUtilityContext::Type,
) {
    // SAFETY: by the contract above; a snapshot is active as in PortalRunUtility.
    unsafe {
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
}
