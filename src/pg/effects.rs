//! What a statement makes, drops and changes, read off its parse tree.

use super::parser::text;
use crate::model::effects::{Effects, Object, Space};
use crate::model::mentions::Mentions;
use pg_sys::NodeTag::*;
use pg_sys::ObjectType::*;
use pgrx::pg_sys;

/// The effects of one statement; `source` is its text.
///
/// # Safety
/// `node` is a statement node of the raw parser.
pub(super) unsafe fn of(node: *mut pg_sys::Node, source: &str) -> Effects {
    let mut effects = Effects {
        mentions: Mentions::of(source),
        // SAFETY: by the contract above.
        copies: unsafe { super::copied_from::of(node) },
        ..Effects::default()
    };
    // SAFETY: by the contract above.
    unsafe { read(node, &mut effects) };
    effects
}

/// # Safety
/// As `of`.
#[allow(
    non_upper_case_globals,
    reason = "the server's own names of object types"
)]
unsafe fn read(node: *mut pg_sys::Node, effects: &mut Effects) {
    /// The node as another struct.
    macro_rules! the {
        ($type:ident) => {
            &*node.cast::<pg_sys::$type>()
        };
    }
    // SAFETY: each cast follows the node's own tag; fields hold what the grammar puts there.
    unsafe {
        match (*node).type_ {
            T_CreateStmt | T_CreateForeignTableStmt => {
                let create = the!(CreateStmt);
                effects.makes.extend(relation(create.relation));
                effects.alters.extend(relations(create.inhRelations));
            }
            T_ViewStmt => effects.makes.extend(relation((the!(ViewStmt)).view)),
            T_CreateSeqStmt => effects
                .makes
                .extend(relation((the!(CreateSeqStmt)).sequence)),
            T_CreateTableAsStmt => {
                let into = (the!(CreateTableAsStmt)).into;
                effects.makes.extend(relation((*into).rel));
            }
            T_SelectStmt => match (the!(SelectStmt)).intoClause {
                into if into.is_null() => {
                    effects.unknown = super::setting::of_select(node.cast()).is_none();
                }
                into => effects.makes.extend(relation((*into).rel)),
            },
            T_CompositeTypeStmt => {
                let name = relation((the!(CompositeTypeStmt)).typevar);
                effects.makes.extend(name.map(|n| of_space(n, Space::Type)));
            }
            T_CreateEnumStmt => make(effects, Space::Type, (the!(CreateEnumStmt)).typeName),
            T_CreateRangeStmt => make(effects, Space::Type, (the!(CreateRangeStmt)).typeName),
            T_CreateDomainStmt => make(effects, Space::Type, (the!(CreateDomainStmt)).domainname),
            T_CreateFunctionStmt => {
                make(effects, Space::Other, (the!(CreateFunctionStmt)).funcname);
            }
            T_DefineStmt => {
                let define = the!(DefineStmt);
                let space = match define.kind {
                    OBJECT_TYPE => Space::Type,
                    _ => Space::Other,
                };
                make(effects, space, define.defnames);
            }
            T_CreateOpClassStmt => {
                make(effects, Space::Other, (the!(CreateOpClassStmt)).opclassname);
            }
            T_CreateOpFamilyStmt => {
                make(
                    effects,
                    Space::Other,
                    (the!(CreateOpFamilyStmt)).opfamilyname,
                );
            }
            T_CreateConversionStmt => {
                make(
                    effects,
                    Space::Other,
                    (the!(CreateConversionStmt)).conversion_name,
                );
            }
            T_CreatePLangStmt => {
                effects
                    .makes
                    .extend(named(Space::Other, (the!(CreatePLangStmt)).plname));
            }
            T_CreateCastStmt => {
                let cast = the!(CreateCastStmt);
                for name in [cast.sourcetype, cast.targettype] {
                    effects.alters.extend(object(Space::Type, name.cast()));
                }
            }
            T_CreateSchemaStmt => {
                let create = the!(CreateSchemaStmt);
                effects
                    .makes
                    .extend(named(Space::Schema, create.schemaname));
                // Nameless: it is called as its owner, whoever that is.
                effects.unknown |= create.schemaname.is_null();
                let outside = effects.makes.len();
                for element in items(create.schemaElts) {
                    read(element.cast(), effects);
                }
                let schema = text(create.schemaname);
                for made in effects.makes.iter_mut().skip(outside) {
                    made.schema = made.schema.take().or_else(|| schema.clone());
                }
            }
            T_IndexStmt => {
                let index = the!(IndexStmt);
                let on = relation(index.relation);
                effects.makes.extend(text(index.idxname).map(|name| Object {
                    space: Space::Relation,
                    schema: on.as_ref().and_then(|o| o.schema.clone()),
                    name,
                }));
                effects.alters.extend(on);
            }
            T_CreateStatsStmt => {
                let create = the!(CreateStatsStmt);
                make(effects, Space::Other, create.defnames);
                effects.alters.extend(relations(create.relations));
            }
            T_CreateTrigStmt => effects
                .alters
                .extend(relation((the!(CreateTrigStmt)).relation)),
            T_RuleStmt => effects.alters.extend(relation((the!(RuleStmt)).relation)),
            T_CreatePolicyStmt => effects
                .alters
                .extend(relation((the!(CreatePolicyStmt)).table)),
            T_AlterPolicyStmt => effects
                .alters
                .extend(relation((the!(AlterPolicyStmt)).table)),
            T_AlterTableStmt => effects
                .alters
                .extend(relation((the!(AlterTableStmt)).relation)),
            T_AlterSeqStmt => effects
                .alters
                .extend(relation((the!(AlterSeqStmt)).sequence)),
            T_AlterEnumStmt => alter(effects, Space::Type, (the!(AlterEnumStmt)).typeName),
            T_AlterTypeStmt => alter(effects, Space::Type, (the!(AlterTypeStmt)).typeName),
            T_AlterDomainStmt => alter(effects, Space::Type, (the!(AlterDomainStmt)).typeName),
            T_AlterStatsStmt => alter(effects, Space::Other, (the!(AlterStatsStmt)).defnames),
            T_AlterFunctionStmt => {
                let function = (the!(AlterFunctionStmt)).func;
                effects.alters.extend(object(Space::Other, function.cast()));
            }
            T_AlterOperatorStmt => {
                let operator = (the!(AlterOperatorStmt)).opername;
                effects.alters.extend(object(Space::Other, operator.cast()));
            }
            T_AlterOpFamilyStmt => {
                alter(
                    effects,
                    Space::Other,
                    (the!(AlterOpFamilyStmt)).opfamilyname,
                );
            }
            T_AlterCollationStmt => {
                alter(effects, Space::Other, (the!(AlterCollationStmt)).collname);
            }
            T_InsertStmt => effects.alters.extend(relation((the!(InsertStmt)).relation)),
            T_UpdateStmt => effects.alters.extend(relation((the!(UpdateStmt)).relation)),
            T_DeleteStmt => effects.alters.extend(relation((the!(DeleteStmt)).relation)),
            T_MergeStmt => effects.alters.extend(relation((the!(MergeStmt)).relation)),
            T_TruncateStmt => effects
                .alters
                .extend(relations((the!(TruncateStmt)).relations)),
            T_RefreshMatViewStmt => {
                effects
                    .alters
                    .extend(relation((the!(RefreshMatViewStmt)).relation));
            }
            T_ClusterStmt => match relation((the!(ClusterStmt)).relation) {
                Some(table) => effects.alters.push(table),
                None => effects.unknown = true,
            },
            T_VacuumStmt if pg_sys::list_length((the!(VacuumStmt)).rels) > 0 => {
                for item in items((the!(VacuumStmt)).rels) {
                    let item = &*item.cast::<pg_sys::VacuumRelation>();
                    effects.alters.extend(relation(item.relation));
                }
            }
            T_ReindexStmt => match relation((the!(ReindexStmt)).relation) {
                Some(name) => effects.alters.push(name),
                None => effects.unknown = true,
            },
            T_RenameStmt => rename(the!(RenameStmt), effects),
            T_AlterObjectSchemaStmt => move_to_schema(the!(AlterObjectSchemaStmt), effects),
            T_DropStmt => drop(the!(DropStmt), effects),
            T_CommentStmt => light(
                effects,
                (the!(CommentStmt)).objtype,
                (the!(CommentStmt)).object,
            ),
            T_SecLabelStmt => light(
                effects,
                (the!(SecLabelStmt)).objtype,
                (the!(SecLabelStmt)).object,
            ),
            T_AlterOwnerStmt => {
                let owner = the!(AlterOwnerStmt);
                let target = match owner.relation.is_null() {
                    true => owner.object,
                    false => owner.relation.cast(),
                };
                light(effects, owner.objectType, target);
            }
            T_GrantStmt => {
                let grant = the!(GrantStmt);
                effects.light = true;
                for target in items(grant.objects) {
                    light(effects, grant.objtype, target.cast());
                }
            }
            T_GrantRoleStmt => effects.light = true,
            // What sets something for the statements after it is theirs already.
            T_VariableSetStmt => {}
            _ => effects.unknown = true,
        }
    }
}

/// # Safety
/// A node of the raw parser.
#[allow(
    non_upper_case_globals,
    reason = "the server's own names of object types"
)]
unsafe fn rename(stmt: &pg_sys::RenameStmt, effects: &mut Effects) {
    // SAFETY: by the contract above.
    unsafe {
        match stmt.renameType {
            OBJECT_TABLE | OBJECT_VIEW | OBJECT_MATVIEW | OBJECT_INDEX | OBJECT_SEQUENCE
            | OBJECT_FOREIGN_TABLE => {
                let Some(old) = relation(stmt.relation) else {
                    return;
                };
                let new = Object {
                    name: text(stmt.newname).unwrap_or_default(),
                    ..old.clone()
                };
                effects.drops.push(old.clone());
                effects.makes.push(new.clone());
                effects.renames = Some((old, new));
            }
            OBJECT_SCHEMA => {
                effects.drops.extend(named(Space::Schema, stmt.subname));
                effects.makes.extend(named(Space::Schema, stmt.newname));
            }
            // A column, constraint, trigger, …: its old and new names are mentioned, its table changes.
            _ if !stmt.relation.is_null() => {
                effects.alters.extend(relation(stmt.relation));
            }
            kind => {
                let space = space_of(kind);
                let Some(old) = object(space, stmt.object) else {
                    effects.unknown = true;
                    return;
                };
                if matches!(kind, OBJECT_DOMCONSTRAINT | OBJECT_ATTRIBUTE) {
                    effects.alters.push(old);
                    return;
                }
                effects.makes.push(Object {
                    name: text(stmt.newname).unwrap_or_default(),
                    ..old.clone()
                });
                effects.drops.push(old);
            }
        }
    }
}

/// # Safety
/// A node of the raw parser.
unsafe fn move_to_schema(stmt: &pg_sys::AlterObjectSchemaStmt, effects: &mut Effects) {
    // SAFETY: by the contract above.
    unsafe {
        let old = match stmt.relation.is_null() {
            true => object(space_of(stmt.objectType), stmt.object),
            false => relation(stmt.relation),
        };
        let Some(old) = old else {
            effects.unknown = true;
            return;
        };
        let new = Object {
            schema: text(stmt.newschema),
            ..old.clone()
        };
        effects.drops.push(old.clone());
        effects.makes.push(new.clone());
        if old.space == Space::Relation {
            effects.renames = Some((old, new));
        }
    }
}

/// # Safety
/// A node of the raw parser.
#[allow(
    non_upper_case_globals,
    reason = "the server's own names of object types"
)]
unsafe fn drop(stmt: &pg_sys::DropStmt, effects: &mut Effects) {
    // SAFETY: by the contract above.
    unsafe {
        for target in items(stmt.objects) {
            match stmt.removeType {
                OBJECT_TRIGGER | OBJECT_RULE | OBJECT_POLICY => {
                    effects.alters.extend(owner_of_part(target.cast()));
                }
                kind => match object(space_of(kind), target.cast()) {
                    Some(name) => effects.drops.push(name),
                    None => effects.unknown = true,
                },
            }
        }
    }
}

/// # Safety
/// `target` is what the grammar puts there for an object of this type.
#[allow(
    non_upper_case_globals,
    reason = "the server's own names of object types"
)]
unsafe fn light(effects: &mut Effects, kind: pg_sys::ObjectType::Type, target: *mut pg_sys::Node) {
    effects.light = true;
    // SAFETY: by the contract above.
    unsafe {
        effects.alters.extend(match kind {
            OBJECT_COLUMN | OBJECT_TABCONSTRAINT | OBJECT_TRIGGER | OBJECT_RULE | OBJECT_POLICY => {
                owner_of_part(target)
            }
            kind => object(space_of(kind), target),
        });
    }
}

#[allow(
    non_upper_case_globals,
    reason = "the server's own names of object types"
)]
fn space_of(kind: pg_sys::ObjectType::Type) -> Space {
    match kind {
        OBJECT_TABLE | OBJECT_VIEW | OBJECT_MATVIEW | OBJECT_INDEX | OBJECT_SEQUENCE
        | OBJECT_FOREIGN_TABLE => Space::Relation,
        OBJECT_TYPE | OBJECT_DOMAIN | OBJECT_ATTRIBUTE | OBJECT_DOMCONSTRAINT => Space::Type,
        OBJECT_SCHEMA => Space::Schema,
        _ => Space::Other,
    }
}

/// # Safety
/// `names` is NULL or a list of String nodes.
unsafe fn make(effects: &mut Effects, space: Space, names: *mut pg_sys::List) {
    // SAFETY: by the contract above.
    effects.makes.extend(unsafe { of_list(space, names, 0) });
}

/// # Safety
/// As `make`.
unsafe fn alter(effects: &mut Effects, space: Space, names: *mut pg_sys::List) {
    // SAFETY: by the contract above.
    effects.alters.extend(unsafe { of_list(space, names, 0) });
}

/// # Safety
/// `range_var` is NULL or a RangeVar.
unsafe fn relation(range_var: *mut pg_sys::RangeVar) -> Option<Object> {
    if range_var.is_null() {
        return None;
    }
    // SAFETY: by the contract above.
    unsafe {
        Some(Object {
            space: Space::Relation,
            schema: text((*range_var).schemaname),
            name: text((*range_var).relname)?,
        })
    }
}

/// # Safety
/// `list` is NULL or a list of RangeVars; other nodes (an ONLY or a function in FROM) are left out.
unsafe fn relations(list: *mut pg_sys::List) -> Vec<Object> {
    // SAFETY: by the contract above.
    unsafe {
        items(list)
            .into_iter()
            .filter(|node| (*node.cast::<pg_sys::Node>()).type_ == T_RangeVar)
            .filter_map(|node| relation(node.cast()))
            .collect()
    }
}

/// The name in whatever node the grammar keeps the name of an object in.
///
/// # Safety
/// `node` is NULL or a node of the raw parser.
unsafe fn object(space: Space, node: *mut pg_sys::Node) -> Option<Object> {
    if node.is_null() {
        return None;
    }
    // SAFETY: each cast follows the node's own tag.
    unsafe {
        match (*node).type_ {
            T_RangeVar => relation(node.cast()).map(|name| of_space(name, space)),
            T_List => match pg_sys::list_length(node.cast()) {
                // DROP OPERATOR CLASS … USING: access method, then the name.
                0 => None,
                _ => match (*pg_sys::list_nth(node.cast(), 0).cast::<pg_sys::Node>()).type_ {
                    T_String => of_list(space, node.cast(), 0),
                    _ => object(space, pg_sys::list_nth(node.cast(), 0).cast()),
                },
            },
            T_TypeName => of_list(space, (*node.cast::<pg_sys::TypeName>()).names, 0),
            T_ObjectWithArgs => of_list(space, (*node.cast::<pg_sys::ObjectWithArgs>()).objname, 0),
            T_String => named(space, (*node.cast::<pg_sys::String>()).sval),
            _ => None,
        }
    }
}

/// The table of a column, constraint, trigger, rule or policy: schema, table, part.
///
/// # Safety
/// `node` is a list of String nodes.
unsafe fn owner_of_part(node: *mut pg_sys::Node) -> Option<Object> {
    // SAFETY: by the contract above.
    unsafe {
        match (*node).type_ {
            T_List => of_list(Space::Relation, node.cast(), 1),
            _ => None,
        }
    }
}

/// # Safety
/// `names` is NULL or a list of String nodes, the last `rest` of which are something else's.
unsafe fn of_list(space: Space, names: *mut pg_sys::List, rest: usize) -> Option<Object> {
    // SAFETY: by the contract above.
    unsafe {
        let mut parts: Vec<String> = items(names)
            .into_iter()
            .filter(|node| (*node.cast::<pg_sys::Node>()).type_ == T_String)
            .filter_map(|node| text((*node.cast::<pg_sys::String>()).sval))
            .collect();
        parts.truncate(parts.len().saturating_sub(rest));
        Some(Object {
            space,
            name: parts.pop()?,
            schema: parts.pop(),
        })
    }
}

/// # Safety
/// `name` is NULL or NUL-terminated.
unsafe fn named(space: Space, name: *const std::ffi::c_char) -> Option<Object> {
    // SAFETY: by the contract above.
    unsafe { text(name) }.map(|name| Object {
        space,
        schema: None,
        name,
    })
}

fn of_space(name: Object, space: Space) -> Object {
    Object { space, ..name }
}

/// # Safety
/// `list` is NULL or a list of pointers.
unsafe fn items(list: *mut pg_sys::List) -> Vec<*mut std::ffi::c_void> {
    // SAFETY: by the contract above.
    unsafe {
        (0..pg_sys::list_length(list))
            .map(|i| pg_sys::list_nth(list, i))
            .collect()
    }
}
