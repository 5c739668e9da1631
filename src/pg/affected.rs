//! What a statement that runs as it stands is about: the objects it changes, as the server finds them, and how it could be
//! taken back.

use super::parser::{text, to_c};
use super::relation::LockMode;
use super::spi;
use crate::error::{Error, Result};
use pgrx::pg_sys;
use pgrx::pg_sys::ObjectType::*;

/// The class of relations.
pub const RELATIONS: pg_sys::Oid = pg_sys::RelationRelationId;

/// An object, or a part (a column) of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    pub class: pg_sys::Oid,
    pub object: pg_sys::Oid,
    pub part: i32,
    /// The relation that is locked for it.
    pub relation: Option<pg_sys::Oid>,
}

/// How the statement can be taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// What it changes is compared with what was before.
    Facts,
    /// The name that the object has before.
    Rename(String),
    SetSchema,
    /// This statement.
    Statement(String),
    DefaultPrivileges,
    /// Without this value, which the enum has got.
    Value(String),
    /// Not at all.
    Never,
}

#[derive(Debug, Clone)]
pub struct Subject {
    /// Objects that are there and that it changes or drops.
    pub objects: Vec<Address>,
    pub way: Way,
    /// It makes something.
    pub creates: bool,
    pub drops: bool,
    /// The lock it takes on the relations of its objects.
    pub lock: Option<LockMode>,
}

impl Subject {
    fn new(objects: Vec<Address>) -> Subject {
        Subject {
            objects,
            way: Way::Facts,
            creates: false,
            drops: false,
            lock: Some(LockMode::AccessExclusive),
        }
    }

    fn creating(objects: Vec<Address>) -> Subject {
        Subject {
            creates: true,
            ..Subject::new(objects)
        }
    }

    fn never() -> Subject {
        Subject {
            way: Way::Never,
            ..Subject::new(vec![])
        }
    }

    fn way(self, way: Way) -> Subject {
        Subject { way, ..self }
    }

    fn lock(self, mode: LockMode) -> Subject {
        Subject {
            lock: Some(mode),
            ..self
        }
    }
}

/// What one statement is about, names resolved as in the session in force; an object that is not there is the server's
/// ERROR. `None`: nothing is known of such a statement.
pub fn of(sql: &str) -> Result<Option<Subject>> {
    let source = to_c(sql)?;
    // SAFETY: raw_parser returns RawStmt nodes in the current memory context; each cast below follows the node's tag.
    unsafe {
        let list = pg_sys::raw_parser(source.as_ptr(), pg_sys::RawParseMode::RAW_PARSE_DEFAULT);
        if pg_sys::list_length(list) != 1 {
            return Err(Error::Bug(format!("expected one statement: {sql}")));
        }
        let node = (*pg_sys::list_nth(list, 0).cast::<pg_sys::RawStmt>()).stmt;
        if let Some(subject) = creation(node)? {
            return Ok(Some(subject));
        }
        alteration(node, sql)
    }
}

/// # Safety
/// `node` is a statement node of the raw parser.
unsafe fn creation(node: *mut pg_sys::Node) -> Result<Option<Subject>> {
    use pg_sys::NodeTag::*;
    // SAFETY: each cast follows the node's own tag.
    unsafe {
        Ok(Some(match (*node).type_ {
            T_CreateFunctionStmt => {
                let stmt = node.cast::<pg_sys::CreateFunctionStmt>();
                Subject::creating(functions((*stmt).funcname)?)
            }
            T_DefineStmt => {
                let stmt = node.cast::<pg_sys::DefineStmt>();
                Subject::creating(match (*stmt).kind {
                    OBJECT_AGGREGATE => functions((*stmt).defnames)?,
                    _ => vec![],
                })
            }
            T_ViewStmt => {
                let stmt = node.cast::<pg_sys::ViewStmt>();
                Subject::creating(relation((*stmt).view, true)?)
            }
            T_CreatePolicyStmt => {
                let stmt = node.cast::<pg_sys::CreatePolicyStmt>();
                Subject::new(relation((*stmt).table, false)?)
            }
            T_CreateTrigStmt => {
                let stmt = node.cast::<pg_sys::CreateTrigStmt>();
                Subject::new(relation((*stmt).relation, false)?).lock(LockMode::ShareRowExclusive)
            }
            T_RuleStmt => {
                let stmt = node.cast::<pg_sys::RuleStmt>();
                Subject::new(relation((*stmt).relation, false)?)
            }
            T_SelectStmt if !(*node.cast::<pg_sys::SelectStmt>()).intoClause.is_null() => {
                Subject::creating(vec![])
            }
            T_CreateStmt
            | T_CreateTableAsStmt
            | T_CreateSeqStmt
            | T_IndexStmt
            | T_CreateSchemaStmt
            | T_CreateEnumStmt
            | T_CompositeTypeStmt
            | T_CreateRangeStmt
            | T_CreateDomainStmt
            | T_CreateCastStmt
            | T_CreateConversionStmt
            | T_CreateTransformStmt
            | T_CreateOpClassStmt
            | T_CreateOpFamilyStmt
            | T_CreateStatsStmt
            | T_CreateExtensionStmt
            | T_CreateFdwStmt
            | T_CreateForeignServerStmt
            | T_CreateForeignTableStmt
            | T_CreatePLangStmt
            | T_CreatePublicationStmt => Subject::creating(vec![]),
            T_SelectStmt | T_DoStmt | T_CallStmt => Subject::never(),
            _ => return Ok(None),
        }))
    }
}

/// # Safety
/// As `creation`.
unsafe fn alteration(node: *mut pg_sys::Node, sql: &str) -> Result<Option<Subject>> {
    use pg_sys::NodeTag::*;
    // SAFETY: each cast follows the node's own tag.
    unsafe {
        Ok(Some(match (*node).type_ {
            T_CommentStmt => {
                let stmt = node.cast::<pg_sys::CommentStmt>();
                if is_shared((*stmt).objtype) {
                    return Ok(Some(Subject::never()));
                }
                Subject::new(address((*stmt).objtype, (*stmt).object, false)?)
                    .lock(LockMode::ShareUpdateExclusive)
            }
            T_DropStmt => {
                let stmt = node.cast::<pg_sys::DropStmt>();
                let mut objects = Vec::new();
                for i in 0..pg_sys::list_length((*stmt).objects) {
                    let object = pg_sys::list_nth((*stmt).objects, i).cast();
                    objects.extend(address((*stmt).removeType, object, (*stmt).missing_ok)?);
                }
                let cascade = (*stmt).behavior == pg_sys::DropBehavior::DROP_CASCADE;
                let mut subject = Subject::new(objects);
                subject.drops = true;
                match cascade {
                    true => subject.way(Way::Never),
                    false => subject,
                }
            }
            T_RenameStmt => renaming(node.cast())?,
            T_AlterObjectSchemaStmt => {
                let stmt = node.cast::<pg_sys::AlterObjectSchemaStmt>();
                let objects = match (*stmt).relation.is_null() {
                    false => relation((*stmt).relation, (*stmt).missing_ok)?,
                    true => named((*stmt).objectType, (*stmt).object)?,
                };
                Subject::new(objects).way(match (*stmt).objectType {
                    OBJECT_EXTENSION => Way::Never,
                    _ => Way::SetSchema,
                })
            }
            T_AlterOwnerStmt => {
                let stmt = node.cast::<pg_sys::AlterOwnerStmt>();
                if is_shared((*stmt).objectType) || (*stmt).objectType == OBJECT_LARGEOBJECT {
                    return Ok(Some(Subject::never()));
                }
                Subject::new(named((*stmt).objectType, (*stmt).object)?)
            }
            T_AlterObjectDependsStmt => {
                let stmt = node.cast::<pg_sys::AlterObjectDependsStmt>();
                let mut open: pg_sys::Relation = std::ptr::null_mut();
                let found = pg_sys::get_object_address_rv(
                    (*stmt).objectType,
                    (*stmt).relation,
                    (*stmt).object.cast(),
                    &mut open,
                    pg_sys::AccessShareLock as i32,
                    false,
                );
                Subject::new(vec![of_address(found, open)])
            }
            T_AlterFunctionStmt => {
                let stmt = node.cast::<pg_sys::AlterFunctionStmt>();
                Subject::new(address((*stmt).objtype, (*stmt).func.cast(), false)?)
            }
            T_AlterPolicyStmt => {
                let stmt = node.cast::<pg_sys::AlterPolicyStmt>();
                Subject::new(relation((*stmt).table, false)?)
            }
            T_AlterStatsStmt => {
                let stmt = node.cast::<pg_sys::AlterStatsStmt>();
                let names = (*stmt).defnames.cast();
                Subject::new(address(OBJECT_STATISTIC_EXT, names, (*stmt).missing_ok)?)
            }
            T_AlterTableStmt => {
                let stmt = node.cast::<pg_sys::AlterTableStmt>();
                // A column or attribute that is dropped does not come back.
                let drops = (*stmt).objtype != OBJECT_TABLE
                    && (0..pg_sys::list_length((*stmt).cmds)).any(|i| {
                        let command =
                            pg_sys::list_nth((*stmt).cmds, i).cast::<pg_sys::AlterTableCmd>();
                        (*command).subtype == pg_sys::AlterTableType::AT_DropColumn
                    });
                Subject {
                    lock: super::pieces::lock_of(sql)?,
                    way: if drops { Way::Never } else { Way::Facts },
                    ..Subject::new(relation((*stmt).relation, (*stmt).missing_ok)?)
                }
            }
            T_AlterSeqStmt => {
                let stmt = node.cast::<pg_sys::AlterSeqStmt>();
                let restarts = (0..pg_sys::list_length((*stmt).options)).any(|i| {
                    let option = pg_sys::list_nth((*stmt).options, i).cast::<pg_sys::DefElem>();
                    text((*option).defname).as_deref() == Some("restart")
                });
                Subject::new(relation((*stmt).sequence, (*stmt).missing_ok)?)
                    .lock(LockMode::ShareRowExclusive)
                    .way(if restarts { Way::Never } else { Way::Facts })
            }
            T_AlterDomainStmt => {
                let stmt = node.cast::<pg_sys::AlterDomainStmt>();
                let name = pg_sys::makeTypeNameFromNameList((*stmt).typeName);
                // SET NOT NULL and VALIDATE read whatever table has the domain.
                let way = match (*stmt).subtype as u8 {
                    b'O' | b'V' => Way::Never,
                    _ => Way::Facts,
                };
                Subject::new(address(OBJECT_DOMAIN, name.cast(), false)?).way(way)
            }
            T_AlterEnumStmt => {
                let stmt = node.cast::<pg_sys::AlterEnumStmt>();
                let name = pg_sys::makeTypeNameFromNameList((*stmt).typeName);
                let objects = address(OBJECT_TYPE, name.cast(), false)?;
                let way = match (text((*stmt).oldVal), text((*stmt).newVal), objects.first()) {
                    (Some(old), Some(new), Some(found)) => Way::Statement(format!(
                        "ALTER TYPE {} RENAME VALUE {} TO {}",
                        type_name(found.object)?,
                        crate::model::ident::quote_literal(&new),
                        crate::model::ident::quote_literal(&old)
                    )),
                    (None, Some(new), Some(_)) => Way::Value(new),
                    _ => Way::Never,
                };
                Subject::new(objects).way(way)
            }
            T_GrantStmt => granting(node.cast())?,
            T_AlterDefaultPrivilegesStmt => Subject::new(vec![]).way(Way::DefaultPrivileges),
            _ => return Ok(None),
        }))
    }
}

/// # Safety
/// `stmt` is a RenameStmt of the raw parser.
unsafe fn renaming(stmt: *mut pg_sys::RenameStmt) -> Result<Subject> {
    // SAFETY: by the contract above; which fields are set follows the type of object (gram.y).
    unsafe {
        let kind = (*stmt).renameType;
        if is_shared(kind) {
            return Ok(Subject::never());
        }
        let old = text((*stmt).subname);
        let (objects, old) = match (kind, (*stmt).relation.is_null(), old) {
            (OBJECT_COLUMN | OBJECT_ATTRIBUTE, false, Some(column)) => {
                let mut found = relation((*stmt).relation, (*stmt).missing_ok)?;
                for address in &mut found {
                    let name = to_c(&column)?;
                    address.part = i32::from(pg_sys::get_attnum(address.object, name.as_ptr()));
                }
                (found, column)
            }
            (_, false, Some(part)) => {
                let table = (*stmt).relation;
                let mut names = std::ptr::null_mut();
                if !(*table).schemaname.is_null() {
                    names = pg_sys::lappend(names, pg_sys::makeString((*table).schemaname).cast());
                }
                names = pg_sys::lappend(names, pg_sys::makeString((*table).relname).cast());
                names = pg_sys::lappend(names, pg_sys::makeString((*stmt).subname).cast());
                (address(kind, names.cast(), (*stmt).missing_ok)?, part)
            }
            (_, false, None) => (
                relation((*stmt).relation, (*stmt).missing_ok)?,
                text((*(*stmt).relation).relname).unwrap_or_default(),
            ),
            (OBJECT_DOMCONSTRAINT, true, Some(part)) => {
                let name = pg_sys::makeTypeNameFromNameList((*stmt).object.cast());
                let mut pair = pg_sys::lappend(std::ptr::null_mut(), name.cast());
                pair = pg_sys::lappend(pair, pg_sys::makeString((*stmt).subname).cast());
                (address(kind, pair.cast(), false)?, part)
            }
            (_, true, Some(name)) => (
                address(kind, pg_sys::makeString((*stmt).subname).cast(), false)?,
                name,
            ),
            (_, true, None) => {
                let names = match (*(*stmt).object).type_ {
                    pg_sys::NodeTag::T_ObjectWithArgs => {
                        (*(*stmt).object.cast::<pg_sys::ObjectWithArgs>()).objname
                    }
                    _ => (*stmt).object.cast(),
                };
                let old = last_name(names);
                (named(kind, (*stmt).object)?, old)
            }
        };
        let lock = match kind {
            OBJECT_INDEX => LockMode::ShareUpdateExclusive,
            _ => LockMode::AccessExclusive,
        };
        Ok(Subject::new(objects).way(Way::Rename(old)).lock(lock))
    }
}

/// # Safety
/// `stmt` is a GrantStmt of the raw parser.
unsafe fn granting(stmt: *mut pg_sys::GrantStmt) -> Result<Subject> {
    // SAFETY: by the contract above; the nodes of `objects` follow `objtype` (gram.y).
    unsafe {
        let mut objects = Vec::new();
        let kind = (*stmt).objtype;
        for i in 0..pg_sys::list_length((*stmt).objects) {
            let node = pg_sys::list_nth((*stmt).objects, i).cast::<pg_sys::Node>();
            if (*stmt).targtype == pg_sys::GrantTargetType::ACL_TARGET_ALL_IN_SCHEMA {
                let schema = text((*node.cast::<pg_sys::String>()).sval).unwrap_or_default();
                objects.extend(all_in(&schema, kind)?);
                continue;
            }
            objects.extend(match kind {
                OBJECT_TABLE | OBJECT_SEQUENCE => relation(node.cast(), false)?,
                OBJECT_TYPE | OBJECT_DOMAIN => named(kind, node)?,
                OBJECT_FUNCTION
                | OBJECT_PROCEDURE
                | OBJECT_ROUTINE
                | OBJECT_SCHEMA
                | OBJECT_LANGUAGE
                | OBJECT_FDW
                | OBJECT_FOREIGN_SERVER => address(kind, node, false)?,
                _ => return Ok(Subject::never()),
            });
        }
        let mut subject = Subject::new(objects);
        subject.lock = None;
        Ok(subject)
    }
}

/// What belongs to no database.
fn is_shared(kind: pg_sys::ObjectType::Type) -> bool {
    matches!(
        kind,
        OBJECT_ROLE
            | OBJECT_DATABASE
            | OBJECT_TABLESPACE
            | OBJECT_SUBSCRIPTION
            | OBJECT_PARAMETER_ACL
    )
}

/// # Safety
/// `names` is a list of String nodes.
unsafe fn last_name(names: *mut pg_sys::List) -> String {
    // SAFETY: by the contract above.
    unsafe {
        match pg_sys::list_length(names) {
            0 => String::new(),
            n => text((*pg_sys::list_nth(names, n - 1).cast::<pg_sys::String>()).sval)
                .unwrap_or_default(),
        }
    }
}

/// # Safety
/// `object` is a node that get_object_address takes for this type of object.
unsafe fn address(
    kind: pg_sys::ObjectType::Type,
    object: *mut pg_sys::Node,
    missing_ok: bool,
) -> Result<Vec<Address>> {
    // SAFETY: by the contract above; a relation that comes back open is closed in `of_address`, its lock is kept.
    unsafe {
        let mut open: pg_sys::Relation = std::ptr::null_mut();
        let found = pg_sys::get_object_address(
            kind,
            object,
            &mut open,
            pg_sys::AccessShareLock as i32,
            missing_ok,
        );
        let address = of_address(found, open);
        Ok(match address.object == pg_sys::InvalidOid {
            true => vec![],
            false => vec![address],
        })
    }
}

/// As `address`, for statements that name types by lists of names.
///
/// # Safety
/// `object` is the node of such a statement.
unsafe fn named(kind: pg_sys::ObjectType::Type, object: *mut pg_sys::Node) -> Result<Vec<Address>> {
    // SAFETY: by the contract above.
    unsafe {
        let object = match (kind, (*object).type_) {
            (OBJECT_TYPE | OBJECT_DOMAIN, pg_sys::NodeTag::T_List) => {
                pg_sys::makeTypeNameFromNameList(object.cast()).cast()
            }
            _ => object,
        };
        address(kind, object, false)
    }
}

/// # Safety
/// `open` is NULL or an open relation.
unsafe fn of_address(found: pg_sys::ObjectAddress, open: pg_sys::Relation) -> Address {
    // SAFETY: by the contract above.
    let relation = unsafe {
        if open.is_null() {
            None
        } else {
            let oid = (*open).rd_id;
            pg_sys::relation_close(open, pg_sys::NoLock as i32);
            Some(oid)
        }
    };
    Address {
        class: found.classId,
        object: found.objectId,
        part: found.objectSubId,
        relation,
    }
}

/// # Safety
/// `range` is a RangeVar of the raw parser.
unsafe fn relation(range: *mut pg_sys::RangeVar, missing_ok: bool) -> Result<Vec<Address>> {
    // SAFETY: by the contract above; NoLock: whoever changes it locks it. RVR_MISSING_OK is 1.
    let oid = unsafe {
        pg_sys::RangeVarGetRelidExtended(
            range,
            pg_sys::NoLock as i32,
            u32::from(missing_ok),
            None,
            std::ptr::null_mut(),
        )
    };
    Ok(match oid == pg_sys::InvalidOid {
        true => vec![],
        false => vec![Address {
            class: pg_sys::RelationRelationId,
            object: oid,
            part: 0,
            relation: Some(oid),
        }],
    })
}

/// The functions of this name in the schema that a new one would be made in: CREATE OR REPLACE may replace any of them.
///
/// # Safety
/// `names` is a list of String nodes.
unsafe fn functions(names: *mut pg_sys::List) -> Result<Vec<Address>> {
    // SAFETY: by the contract above; the name is copied by `text`.
    let (namespace, name) = unsafe {
        let mut name = std::ptr::null_mut();
        let namespace = pg_sys::QualifiedNameGetCreationNamespace(names, &mut name);
        (namespace, text(name).unwrap_or_default())
    };
    addresses(
        pg_sys::ProcedureRelationId,
        "SELECT p.oid FROM pg_catalog.pg_proc p WHERE p.pronamespace OPERATOR(pg_catalog.=) $1 \
         AND p.proname OPERATOR(pg_catalog.=) $2::pg_catalog.name",
        &[namespace.into(), name.as_str().into()],
    )
}

/// GRANT … ON ALL … IN SCHEMA.
fn all_in(schema: &str, kind: pg_sys::ObjectType::Type) -> Result<Vec<Address>> {
    let (class, sql) = match kind {
        OBJECT_TABLE => (
            pg_sys::RelationRelationId,
            "SELECT c.oid FROM pg_catalog.pg_class c WHERE c.relkind OPERATOR(pg_catalog.=) ANY ('{r,p,v,m,f}'::pg_catalog.\"char\"[]) \
             AND c.relnamespace OPERATOR(pg_catalog.=) $1::pg_catalog.regnamespace::pg_catalog.oid",
        ),
        OBJECT_SEQUENCE => (
            pg_sys::RelationRelationId,
            "SELECT c.oid FROM pg_catalog.pg_class c WHERE c.relkind OPERATOR(pg_catalog.=) 'S'::pg_catalog.\"char\" \
             AND c.relnamespace OPERATOR(pg_catalog.=) $1::pg_catalog.regnamespace::pg_catalog.oid",
        ),
        _ => (
            pg_sys::ProcedureRelationId,
            "SELECT p.oid FROM pg_catalog.pg_proc p \
             WHERE p.pronamespace OPERATOR(pg_catalog.=) $1::pg_catalog.regnamespace::pg_catalog.oid",
        ),
    };
    let quoted = crate::model::ident::quote_ident(schema);
    addresses(class, sql, &[quoted.as_str().into()])
}

fn addresses(
    class: pg_sys::Oid,
    sql: &str,
    arguments: &[pgrx::datum::DatumWithOid<'_>],
) -> Result<Vec<Address>> {
    spi::query(sql, arguments, |row| {
        Ok(Address {
            class,
            object: row.need(1)?,
            part: 0,
            relation: None,
        })
    })
}

fn type_name(oid: pg_sys::Oid) -> Result<String> {
    // SAFETY: format_type_extended returns a palloc'd string.
    let name = unsafe {
        text(pg_sys::format_type_extended(
            oid,
            -1,
            pg_sys::FORMAT_TYPE_FORCE_QUALIFY as u16,
        ))
    };
    name.ok_or_else(|| Error::Bug("a type without a name".into()))
}
