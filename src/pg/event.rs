//! What an event trigger is told of a statement, before the server runs it and afterwards.

use super::procedure::Call;
use crate::error::{Error, Result};
use pgrx::pg_sys;
use std::ffi::CStr;

/// When an event trigger fires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Before the statement does anything.
    Start,
    /// It has dropped what it drops.
    Dropped,
    /// It is through.
    End,
}

#[derive(Debug)]
pub struct Command {
    pub moment: Moment,
    /// `ALTER TABLE`
    pub tag: String,
    /// Relations that the statement names, as far as they are there; nothing is locked.
    pub relations: Vec<pg_sys::Oid>,
    /// DROP EXTENSION: which.
    pub extensions: Vec<String>,
}

/// The statement for which the server calls an event trigger; an error where it was called as something else.
pub fn command(call: Call) -> Result<Command> {
    // SAFETY: `call` is what the server called the function with; an EventTriggerData is told by its tag, and its
    // fields are valid during the call.
    unsafe {
        let context = (*call).context;
        if context.is_null() || (*context).type_ != pg_sys::NodeTag::T_EventTriggerData {
            return Err(Error::WrongObject {
                problem: "this is a function for event triggers".into(),
                detail: "It was called as a plain function.".into(),
                hint: "The server calls it.".into(),
            });
        }
        let data = &*context.cast::<pg_sys::EventTriggerData>();
        let moment = match CStr::from_ptr(data.event).to_bytes() {
            b"ddl_command_start" => Moment::Start,
            b"sql_drop" => Moment::Dropped,
            _ => Moment::End,
        };
        let mut command = Command {
            moment,
            tag: CStr::from_ptr(pg_sys::GetCommandTagName(data.tag))
                .to_string_lossy()
                .into_owned(),
            relations: Vec::new(),
            extensions: Vec::new(),
        };
        if moment == Moment::Start {
            read(data.parsetree, &mut command);
        }
        Ok(command)
    }
}

/// # Safety
/// `node` is the raw parse tree of a utility statement.
unsafe fn read(node: *mut pg_sys::Node, command: &mut Command) {
    // SAFETY: casts follow the node's own tag.
    unsafe {
        match (*node).type_ {
            pg_sys::NodeTag::T_AlterTableStmt => {
                let alter = &*node.cast::<pg_sys::AlterTableStmt>();
                add(alter.relation, command);
                for i in 0..pg_sys::list_length(alter.cmds) {
                    let cmd = &*pg_sys::list_nth(alter.cmds, i).cast::<pg_sys::AlterTableCmd>();
                    add_partner(cmd.def, command);
                }
            }
            pg_sys::NodeTag::T_RenameStmt => {
                add((*node.cast::<pg_sys::RenameStmt>()).relation, command)
            }
            pg_sys::NodeTag::T_AlterObjectSchemaStmt => {
                add(
                    (*node.cast::<pg_sys::AlterObjectSchemaStmt>()).relation,
                    command,
                );
            }
            pg_sys::NodeTag::T_IndexStmt => {
                add((*node.cast::<pg_sys::IndexStmt>()).relation, command)
            }
            pg_sys::NodeTag::T_CreateTrigStmt => {
                add((*node.cast::<pg_sys::CreateTrigStmt>()).relation, command);
            }
            pg_sys::NodeTag::T_RuleStmt => {
                add((*node.cast::<pg_sys::RuleStmt>()).relation, command)
            }
            pg_sys::NodeTag::T_CreatePolicyStmt => {
                add((*node.cast::<pg_sys::CreatePolicyStmt>()).table, command)
            }
            pg_sys::NodeTag::T_AlterPolicyStmt => {
                add((*node.cast::<pg_sys::AlterPolicyStmt>()).table, command)
            }
            pg_sys::NodeTag::T_DropStmt => dropped(&*node.cast::<pg_sys::DropStmt>(), command),
            _ => {}
        }
    }
}

/// The other table of ATTACH, DETACH, INHERIT and NO INHERIT.
///
/// # Safety
/// `definition` is the definition of a subcommand of ALTER TABLE, or null.
unsafe fn add_partner(definition: *mut pg_sys::Node, command: &mut Command) {
    // SAFETY: casts follow the node's own tag.
    unsafe {
        if definition.is_null() {
            return;
        }
        match (*definition).type_ {
            pg_sys::NodeTag::T_PartitionCmd => {
                add((*definition.cast::<pg_sys::PartitionCmd>()).name, command);
            }
            pg_sys::NodeTag::T_RangeVar => add(definition.cast(), command),
            _ => {}
        }
    }
}

/// # Safety
/// A statement as the parser made it.
unsafe fn dropped(drop: &pg_sys::DropStmt, command: &mut Command) {
    // SAFETY: the shape of the names follows the kind of object (gram.y, drop_type_any_name and drop_type_name).
    unsafe {
        for i in 0..pg_sys::list_length(drop.objects) {
            let name = pg_sys::list_nth(drop.objects, i);
            match drop.removeType {
                pg_sys::ObjectType::OBJECT_EXTENSION => {
                    let name = CStr::from_ptr((*name.cast::<pg_sys::String>()).sval);
                    command.extensions.push(name.to_string_lossy().into_owned());
                }
                pg_sys::ObjectType::OBJECT_TABLE
                | pg_sys::ObjectType::OBJECT_INDEX
                | pg_sys::ObjectType::OBJECT_VIEW
                | pg_sys::ObjectType::OBJECT_MATVIEW => {
                    add(pg_sys::makeRangeVarFromNameList(name.cast()), command);
                }
                _ => {}
            }
        }
    }
}

/// # Safety
/// `relation` is a RangeVar, or null.
unsafe fn add(relation: *mut pg_sys::RangeVar, command: &mut Command) {
    // SAFETY: by the contract above; a look-up without a lock. RVR_MISSING_OK is 1. A schema that is not there, or may not
    // be used, is for the statement itself to say: with RVR_MISSING_OK the first gives no oid.
    unsafe {
        if relation.is_null() {
            return;
        }
        let oid = pg_sys::RangeVarGetRelidExtended(
            relation,
            pg_sys::NoLock as i32,
            pg_sys::RVROption::RVR_MISSING_OK,
            None,
            std::ptr::null_mut(),
        );
        if oid != pg_sys::InvalidOid {
            command.relations.push(oid);
        }
    }
}
