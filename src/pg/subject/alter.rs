//! ALTER TABLE and its relatives.

use super::{nodes, text, tree, words, ForeignKey, Reach, Subject};
use crate::model::lock::Mode;
use crate::model::operation::Operation as O;
use pgrx::pg_sys;

/// ALTER TABLE, INDEX, VIEW, SEQUENCE … with subcommands.
///
/// # Safety
/// `stmt` is an AlterTableStmt of the raw parser.
pub(super) unsafe fn table(stmt: *mut pg_sys::AlterTableStmt) -> Subject {
    use pg_sys::ObjectType::*;
    let mut subject = Subject::default();
    // SAFETY: the commands are AlterTableCmd nodes, which AlterTableGetLockLevel only reads.
    unsafe {
        let relation = (*stmt).relation;
        let commands = nodes((*stmt).cmds);
        let lock = Mode::of_number(pg_sys::AlterTableGetLockLevel((*stmt).cmds) as i32)
            .unwrap_or(Mode::AccessExclusive);
        let mut recurses = false;
        for node in commands {
            recurses |= command(&mut subject, relation, node.cast());
        }
        let reach = match recurses {
            true => tree(relation),
            false => Reach::Itself,
        };
        let whole = match (*stmt).objtype {
            OBJECT_INDEX => Some(O::AlterIndex),
            OBJECT_VIEW | OBJECT_MATVIEW => Some(O::AlterView),
            OBJECT_SEQUENCE => Some(O::AlterSequence),
            OBJECT_TYPE => Some(O::ChangeType),
            _ => None,
        };
        if let Some(operation) = whole {
            if !subject.operations.contains(&O::ChangeOwner)
                && !subject.operations.contains(&O::SetTablespace)
            {
                subject.operations = vec![operation];
            }
        }
        // A composite type's tables are looked up by the server; nobody can lock the type itself.
        if (*stmt).objtype != OBJECT_TYPE {
            subject.names(relation, lock, reach);
        }
    }
    subject
}

/// Adds what one subcommand is; whether it reaches partitions and heirs.
///
/// # Safety
/// `relation` is a RangeVar and `cmd` an AlterTableCmd of the raw parser.
#[allow(
    non_upper_case_globals,
    reason = "the server's own names of subcommands"
)]
unsafe fn command(
    subject: &mut Subject,
    relation: *mut pg_sys::RangeVar,
    cmd: *mut pg_sys::AlterTableCmd,
) -> bool {
    use pg_sys::AlterTableType::*;
    // SAFETY: `def` is read only under the subtypes for which the grammar sets that node type.
    unsafe {
        let cascade = (*cmd).behavior == pg_sys::DropBehavior::DROP_CASCADE;
        let name = text((*cmd).name);
        let strong = Mode::AccessExclusive;
        let dropped = |column, constraint| Reach::Dropped {
            column,
            constraint,
            cascade,
        };
        let operation = match (*cmd).subtype {
            AT_AddColumn => {
                let def = (*cmd).def.cast::<pg_sys::ColumnDef>();
                for node in nodes((*def).constraints) {
                    constraint(subject, node.cast(), false);
                }
                // A new column is NULL everywhere, or has a default that nobody can look at yet.
                subject.foreign_keys.clear();
                O::AddColumn
            }
            AT_DropColumn => {
                subject.cascade |= cascade;
                subject.names(relation, strong, dropped(name, None));
                O::DropColumn
            }
            AT_AlterColumnType => {
                subject.names(relation, strong, Reach::Partners(name));
                O::AlterType
            }
            AT_ColumnDefault => O::SetDefault,
            AT_SetNotNull => {
                subject.scans = true;
                subject.proves = true;
                O::SetNotNull
            }
            AT_DropNotNull => O::DropNotNull,
            AT_SetIdentity | AT_DropIdentity => {
                let lock = match (*cmd).subtype == AT_SetIdentity {
                    true => Mode::ShareRowExclusive,
                    false => strong,
                };
                if let Some(name) = name {
                    subject.names(relation, lock, Reach::SequenceOf(name));
                }
                O::AlterIdentity
            }
            AT_AddIdentity | AT_DropExpression => O::AlterIdentity,
            AT_SetStatistics | AT_SetStorage | AT_SetCompression => O::AlterColumnOption,
            AT_SetOptions | AT_ResetOptions => {
                subject.add(O::AlterColumnOption);
                return false;
            }
            AT_AddConstraint | AT_AddIndexConstraint => {
                return constraint(subject, (*cmd).def.cast(), true);
            }
            AT_ValidateConstraint => {
                if let Some(name) = name {
                    subject.validates.push(name.clone());
                    subject.names(relation, Mode::RowShare, Reach::Referenced(name));
                }
                subject.scans = true;
                subject.proves = true;
                O::ValidateConstraint
            }
            AT_AlterConstraint => O::AlterConstraint,
            AT_DropConstraint => {
                subject.cascade |= cascade;
                subject.names(relation, strong, dropped(None, name));
                O::DropConstraint
            }
            AT_SetTableSpace => {
                subject.add(O::SetTablespace);
                return false;
            }
            AT_SetLogged | AT_SetUnLogged => {
                subject.names(relation, strong, Reach::Owned);
                subject.add(O::SetLogged);
                return false;
            }
            AT_SetAccessMethod => {
                subject.add(O::SetAccessMethod);
                return false;
            }
            AT_EnableRowSecurity
            | AT_DisableRowSecurity
            | AT_ForceRowSecurity
            | AT_NoForceRowSecurity => {
                subject.add(O::RowSecurity);
                return false;
            }
            AT_ReplicaIdentity => {
                subject.add(O::ReplicaIdentity);
                return false;
            }
            AT_EnableTrig | AT_EnableAlwaysTrig | AT_EnableReplicaTrig | AT_DisableTrig
            | AT_EnableTrigAll | AT_DisableTrigAll | AT_EnableTrigUser | AT_DisableTrigUser => {
                O::SwitchTrigger
            }
            AT_EnableRule | AT_EnableAlwaysRule | AT_EnableReplicaRule | AT_DisableRule => {
                subject.add(O::SwitchTrigger);
                return false;
            }
            AT_AttachPartition | AT_DetachPartition => {
                let part = (*cmd).def.cast::<pg_sys::PartitionCmd>();
                let attach = (*cmd).subtype == AT_AttachPartition;
                let (operation, lock) = match (attach, (*part).concurrent) {
                    (true, _) => (O::AttachPartition, Mode::AccessExclusive),
                    (false, true) => (O::DetachPartition, Mode::ShareUpdateExclusive),
                    (false, false) => (O::DetachPartition, Mode::AccessExclusive),
                };
                subject.scans |= attach;
                subject.proves |= attach;
                subject.outside_transaction = (*part).concurrent;
                let reach = match attach {
                    true => Reach::Attached,
                    false => Reach::Itself,
                };
                // CONCURRENTLY locks the partition for a moment at its end.
                subject.names((*part).name, Mode::AccessExclusive, reach);
                let parent = match attach {
                    true => Mode::ShareUpdateExclusive,
                    false => lock,
                };
                subject.names(relation, parent, Reach::DefaultPartition);
                subject.add(operation);
                return false;
            }
            AT_AddInherit | AT_DropInherit => {
                let parent = (*cmd).def.cast::<pg_sys::RangeVar>();
                let lock = match (*cmd).subtype == AT_AddInherit {
                    true => Mode::ShareUpdateExclusive,
                    false => Mode::AccessShare,
                };
                subject.names(parent, lock, Reach::Itself);
                subject.add(O::Inherit);
                return false;
            }
            AT_AddOf | AT_DropOf => {
                subject.add(O::Inherit);
                return false;
            }
            AT_ChangeOwner => {
                subject.names(relation, strong, Reach::Owned);
                subject.add(O::ChangeOwner);
                return false;
            }
            AT_ClusterOn | AT_DropCluster | AT_SetRelOptions | AT_ResetRelOptions => {
                subject.add(O::AlterTableOption);
                return false;
            }
            _ => match super::super::compat::sets_expression((*cmd).subtype) {
                true => O::AlterIdentity,
                false => {
                    subject.add(O::AlterTableOption);
                    return false;
                }
            },
        };
        subject.add(operation);
        true
    }
}

/// A constraint of ADD COLUMN or ADD CONSTRAINT; whether it reaches partitions and heirs.
///
/// # Safety
/// `node` is a Constraint of the raw parser.
unsafe fn constraint(subject: &mut Subject, node: *mut pg_sys::Constraint, alone: bool) -> bool {
    use pg_sys::ConstrType::*;
    // SAFETY: by the contract above.
    unsafe {
        let operation = match (*node).contype {
            CONSTR_CHECK => O::AddCheck,
            CONSTR_NOTNULL if alone => O::SetNotNull,
            CONSTR_FOREIGN => O::AddForeignKey,
            CONSTR_UNIQUE => O::AddUnique,
            CONSTR_PRIMARY => O::AddPrimaryKey,
            CONSTR_EXCLUSION => O::AddExclusion,
            _ => return false,
        };
        subject.add(operation);
        if operation == O::AddForeignKey {
            subject.names(
                (*node).pktable,
                Mode::ShareRowExclusive,
                tree((*node).pktable),
            );
            subject.foreign_keys.push(ForeignKey {
                columns: words((*node).fk_attrs),
                schema: text((*(*node).pktable).schemaname),
                table: text((*(*node).pktable).relname).unwrap_or_default(),
                referenced: words((*node).pk_attrs),
            });
        }
        if !(*node).indexname.is_null() {
            // Its index is renamed, in the mode of the table's lock.
            return false;
        }
        subject.scans |= alone && !(*node).skip_validation;
        subject.proves |= !(*node).skip_validation;
        !matches!(operation, O::AddForeignKey)
    }
}

/// ALTER … RENAME.
///
/// # Safety
/// `stmt` is a RenameStmt of the raw parser.
pub(super) unsafe fn rename(stmt: *mut pg_sys::RenameStmt) -> Subject {
    use pg_sys::ObjectType::*;
    // SAFETY: by the contract above.
    unsafe {
        let (operation, lock, reach) = match (*stmt).renameType {
            OBJECT_COLUMN | OBJECT_ATTRIBUTE => {
                (O::RenameColumn, Mode::AccessExclusive, Reach::Tree)
            }
            OBJECT_TABCONSTRAINT => (O::RenameConstraint, Mode::AccessExclusive, Reach::Tree),
            OBJECT_TABLE => (O::RenameTable, Mode::AccessExclusive, Reach::Itself),
            OBJECT_INDEX => (O::AlterIndex, Mode::ShareUpdateExclusive, Reach::Itself),
            OBJECT_VIEW | OBJECT_MATVIEW => (O::AlterView, Mode::AccessExclusive, Reach::Itself),
            OBJECT_SEQUENCE => (O::AlterSequence, Mode::AccessExclusive, Reach::Itself),
            OBJECT_TRIGGER | OBJECT_RULE => (O::AlterOther, Mode::AccessExclusive, Reach::Itself),
            OBJECT_POLICY => (O::AlterPolicy, Mode::AccessExclusive, Reach::Itself),
            OBJECT_FUNCTION | OBJECT_PROCEDURE => {
                return Subject::is(O::AlterFunction);
            }
            OBJECT_TYPE | OBJECT_DOMAIN => return Subject::is(O::ChangeType),
            _ => return Subject::is(O::AlterOther),
        };
        let mut subject = Subject::is(operation);
        let inherits = !(*stmt).relation.is_null() && (*(*stmt).relation).inh;
        let reach = match (reach, inherits) {
            (Reach::Tree, true) => Reach::Tree,
            _ => Reach::Itself,
        };
        subject.names((*stmt).relation, lock, reach);
        subject
    }
}

/// ALTER … SET SCHEMA.
///
/// # Safety
/// `stmt` is an AlterObjectSchemaStmt of the raw parser.
pub(super) unsafe fn schema(stmt: *mut pg_sys::AlterObjectSchemaStmt, tag: &str) -> Subject {
    // SAFETY: by the contract above.
    unsafe {
        let relation = (*stmt).relation;
        if relation.is_null() {
            return Subject::is(O::of_tag(tag));
        }
        let mut subject = Subject::is(O::SetSchema);
        subject.names(relation, Mode::AccessExclusive, Reach::Owned);
        subject
    }
}
