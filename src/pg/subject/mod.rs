//! What a statement is and which relations it names, read off the raw parse tree: operations, and the locks the plain
//! statement takes on what it names. Modes that depend on subcommands are the server's own (AlterTableGetLockLevel).
//! What else is locked – partitions, owned sequences, dependents – is looked up by `catalog::lock`.

mod alter;
mod data;
mod drop;

use crate::model::lock::Mode;
use crate::model::operation::Operation;
use pgrx::pg_sys;
use std::ffi::CStr;

/// How far a lock reaches beyond the relation it is taken on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    Itself,
    /// And its partitions and inheriting tables.
    Tree,
    /// An index; its table gets the other mode.
    IndexOf(Mode),
    /// A table, in this mode; its indexes get the mention's mode.
    Indexes(Mode),
    /// And the sequences it owns.
    Owned,
    /// The sequence of its identity or serial column.
    SequenceOf(String),
    /// What goes with it when it, or its column, or its constraint is dropped.
    Dropped {
        column: Option<String>,
        constraint: Option<String>,
        cascade: bool,
    },
    /// The tables at the other end of foreign keys over this column, all of them with `None`.
    Partners(Option<String>),
    /// The table this constraint refers to.
    Referenced(String),
    /// And its default partition, in ACCESS EXCLUSIVE.
    DefaultPartition,
    /// TRUNCATE … CASCADE: tables that refer to it.
    Referencing,
    /// What a materialized view reads.
    Sources,
    /// Rows of it are written: foreign keys look at other tables, or write them. The verb, and the columns of an UPDATE.
    Rows(Written, Vec<String>),
    /// A partition that is attached: foreign keys of both tables are made one.
    Attached,
    /// The name of extended statistics, on whose table the lock is.
    Statistics,
}

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    Insert,
    Update,
    Delete,
    /// INSERT … ON CONFLICT DO UPDATE, MERGE: any of these.
    Any,
}

/// A relation that a statement names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mention {
    pub schema: Option<String>,
    pub name: String,
    pub lock: Mode,
    pub reach: Reach,
}

/// A foreign key that a statement adds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignKey {
    pub columns: Vec<String>,
    pub schema: Option<String>,
    pub table: String,
    /// Empty: the primary key.
    pub referenced: Vec<String>,
}

/// What is known of a statement without looking at any catalog.
#[derive(Debug, Clone, Default)]
pub struct Subject {
    /// In the order of the statement, each once.
    pub operations: Vec<Operation>,
    pub mentions: Vec<Mention>,
    pub cascade: bool,
    /// The server refuses it in a transaction block.
    pub outside_transaction: bool,
    /// It holds a query: which relations that reads is found out by planning it.
    pub query: bool,
    /// The server reads every row under the lock, unless it finds a way around it.
    pub scans: bool,
    /// Rows that exist may be refused.
    pub proves: bool,
    /// It makes a unique index.
    pub unique_index: bool,
    pub foreign_keys: Vec<ForeignKey>,
    /// Constraints it validates.
    pub validates: Vec<String>,
}

impl Subject {
    fn is(operation: Operation) -> Subject {
        Subject {
            operations: vec![operation],
            ..Subject::default()
        }
    }

    fn add(&mut self, operation: Operation) {
        if !self.operations.contains(&operation) {
            self.operations.push(operation);
        }
    }

    /// # Safety
    /// `relation` is NULL or a RangeVar of the raw parser.
    unsafe fn names(&mut self, relation: *const pg_sys::RangeVar, lock: Mode, reach: Reach) {
        if relation.is_null() {
            return;
        }
        // SAFETY: by the contract above.
        let (schema, name) = unsafe { (text((*relation).schemaname), text((*relation).relname)) };
        self.mentions.push(Mention {
            schema,
            name: name.unwrap_or_default(),
            lock,
            reach,
        });
    }

    fn with(mut self, mention: Option<Mention>) -> Subject {
        self.mentions.extend(mention);
        self
    }
}

/// # Safety
/// `pointer` is NULL or a NUL-terminated string.
pub(super) unsafe fn text(pointer: *const std::ffi::c_char) -> Option<String> {
    if pointer.is_null() {
        return None;
    }
    // SAFETY: by the contract above.
    let text = unsafe { CStr::from_ptr(pointer) };
    Some(text.to_string_lossy().into_owned())
}

/// The elements of a list.
///
/// # Safety
/// `list` is NULL or a List of nodes.
unsafe fn nodes(list: *mut pg_sys::List) -> Vec<*mut pg_sys::Node> {
    // SAFETY: by the contract above; list_length and list_nth accept NIL.
    unsafe {
        (0..pg_sys::list_length(list))
            .map(|i| pg_sys::list_nth(list, i).cast())
            .collect()
    }
}

/// The String nodes of a list, as texts.
///
/// # Safety
/// `list` is NULL or a List of nodes.
unsafe fn words(list: *mut pg_sys::List) -> Vec<String> {
    // SAFETY: each cast follows the node's tag.
    unsafe {
        nodes(list)
            .into_iter()
            .filter(|node| (**node).type_ == pg_sys::NodeTag::T_String)
            .filter_map(|node| text((*node.cast::<pg_sys::String>()).sval))
            .collect()
    }
}

/// A relation by its name of one, two or three parts; `skip` parts at the end belong to a column or constraint.
fn mention(parts: &[String], skip: usize, lock: Mode, reach: Reach) -> Option<Mention> {
    let parts = &parts[..parts.len().checked_sub(skip)?];
    let (name, before) = parts.split_last()?;
    Some(Mention {
        schema: before.last().cloned(),
        name: name.clone(),
        lock,
        reach,
    })
}

/// # Safety
/// `node` is a statement node of the raw parser.
pub unsafe fn of(node: *mut pg_sys::Node, tag: &str) -> Subject {
    use pg_sys::NodeTag::*;
    use Operation as O;
    // SAFETY: each cast follows the node's own tag.
    unsafe {
        match (*node).type_ {
            T_AlterTableStmt => alter::table(node.cast()),
            T_RenameStmt => alter::rename(node.cast()),
            T_AlterObjectSchemaStmt => alter::schema(node.cast(), tag),
            T_DropStmt => drop::of(node.cast(), tag),
            T_CreateStmt => create_table(node.cast()),
            T_IndexStmt => {
                let stmt = node.cast::<pg_sys::IndexStmt>();
                let mut subject = Subject::is(O::CreateIndex);
                let lock = match (*stmt).concurrent {
                    true => Mode::ShareUpdateExclusive,
                    false => Mode::Share,
                };
                subject.names((*stmt).relation, lock, Reach::Tree);
                subject.outside_transaction = (*stmt).concurrent;
                subject.scans = !(*stmt).concurrent;
                subject.proves = (*stmt).unique;
                subject.unique_index = (*stmt).unique;
                subject
            }
            T_ReindexStmt => {
                let stmt = node.cast::<pg_sys::ReindexStmt>();
                let mut subject = Subject::is(O::Reindex);
                let concurrent = nodes((*stmt).params).into_iter().any(|n| {
                    text((*n.cast::<pg_sys::DefElem>()).defname).as_deref() == Some("concurrently")
                });
                subject.outside_transaction = concurrent || (*stmt).relation.is_null();
                subject.scans = !concurrent;
                let (on_table, on_index) = match concurrent {
                    true => (Mode::ShareUpdateExclusive, Mode::ShareUpdateExclusive),
                    false => (Mode::Share, Mode::AccessExclusive),
                };
                let reach = match (*stmt).kind {
                    pg_sys::ReindexObjectType::REINDEX_OBJECT_INDEX => Reach::IndexOf(on_table),
                    _ => Reach::Indexes(on_table),
                };
                subject.names((*stmt).relation, on_index, reach);
                subject
            }
            T_TruncateStmt => {
                let stmt = node.cast::<pg_sys::TruncateStmt>();
                let mut subject = Subject::is(O::Truncate);
                subject.cascade = (*stmt).behavior == pg_sys::DropBehavior::DROP_CASCADE;
                for relation in nodes((*stmt).relations) {
                    let relation = relation.cast::<pg_sys::RangeVar>();
                    subject.names(relation, Mode::AccessExclusive, tree(relation));
                    if subject.cascade {
                        subject.names(relation, Mode::AccessExclusive, Reach::Referencing);
                    }
                    if (*stmt).restart_seqs {
                        subject.names(relation, Mode::AccessExclusive, Reach::Owned);
                    }
                }
                subject
            }
            T_LockStmt => {
                let stmt = node.cast::<pg_sys::LockStmt>();
                let mut subject = Subject::is(O::LockTable);
                let mode = Mode::of_number((*stmt).mode).unwrap_or(Mode::AccessExclusive);
                for relation in nodes((*stmt).relations) {
                    subject.names(relation.cast(), mode, tree(relation.cast()));
                }
                subject
            }
            T_CreateTrigStmt => {
                let stmt = node.cast::<pg_sys::CreateTrigStmt>();
                let mut subject = Subject::is(O::CreateTrigger);
                subject.names((*stmt).relation, Mode::ShareRowExclusive, Reach::Tree);
                subject.names((*stmt).constrrel, Mode::AccessShare, Reach::Itself);
                subject
            }
            T_RuleStmt => {
                let mut subject = Subject::is(O::CreateRule);
                let relation = (*node.cast::<pg_sys::RuleStmt>()).relation;
                subject.names(relation, Mode::AccessExclusive, Reach::Itself);
                subject
            }
            T_CreatePolicyStmt => {
                let mut subject = Subject::is(O::CreatePolicy);
                let table = (*node.cast::<pg_sys::CreatePolicyStmt>()).table;
                subject.names(table, Mode::AccessExclusive, Reach::Itself);
                subject
            }
            T_AlterPolicyStmt => {
                let mut subject = Subject::is(O::AlterPolicy);
                let table = (*node.cast::<pg_sys::AlterPolicyStmt>()).table;
                subject.names(table, Mode::AccessExclusive, Reach::Itself);
                subject
            }
            T_CreateStatsStmt => {
                let mut subject = Subject::is(O::CreateStatistics);
                for relation in nodes((*node.cast::<pg_sys::CreateStatsStmt>()).relations) {
                    if (*relation).type_ == T_RangeVar {
                        subject.names(relation.cast(), Mode::ShareUpdateExclusive, Reach::Itself);
                    }
                }
                subject
            }
            T_CommentStmt => {
                let stmt = node.cast::<pg_sys::CommentStmt>();
                comment((*stmt).objtype, (*stmt).object)
            }
            T_SecLabelStmt => {
                let stmt = node.cast::<pg_sys::SecLabelStmt>();
                comment((*stmt).objtype, (*stmt).object)
            }
            T_AlterSeqStmt => {
                let mut subject = Subject::is(O::AlterSequence);
                let stmt = node.cast::<pg_sys::AlterSeqStmt>();
                subject.names((*stmt).sequence, Mode::ShareRowExclusive, Reach::Itself);
                subject.mentions.extend(owned_by((*stmt).options));
                subject
            }
            T_CreateSeqStmt => {
                let mut subject = Subject::is(O::CreateSequence);
                let stmt = node.cast::<pg_sys::CreateSeqStmt>();
                subject.mentions.extend(owned_by((*stmt).options));
                subject
            }
            T_RefreshMatViewStmt => {
                let stmt = node.cast::<pg_sys::RefreshMatViewStmt>();
                let mut subject = Subject::is(O::RefreshMaterializedView);
                let lock = match (*stmt).concurrent {
                    true => Mode::Exclusive,
                    false => Mode::AccessExclusive,
                };
                let reach = match (*stmt).skipData {
                    true => Reach::Itself,
                    false => Reach::Sources,
                };
                subject.names((*stmt).relation, lock, reach);
                subject.scans = !(*stmt).skipData;
                subject
            }
            T_VacuumStmt => {
                let stmt = node.cast::<pg_sys::VacuumStmt>();
                let mut subject = Subject::is(O::Vacuum);
                let full = nodes((*stmt).options).into_iter().any(|n| {
                    text((*n.cast::<pg_sys::DefElem>()).defname).as_deref() == Some("full")
                });
                subject.outside_transaction = (*stmt).is_vacuumcmd;
                if full {
                    subject.operations = vec![O::Cluster];
                }
                for relation in nodes((*stmt).rels) {
                    let relation = (*relation.cast::<pg_sys::VacuumRelation>()).relation;
                    let lock = match full {
                        true => Mode::AccessExclusive,
                        false => Mode::ShareUpdateExclusive,
                    };
                    subject.names(relation, lock, Reach::Itself);
                }
                subject
            }
            T_ClusterStmt => {
                let mut subject = Subject::is(O::Cluster);
                let relation = (*node.cast::<pg_sys::ClusterStmt>()).relation;
                subject.outside_transaction = relation.is_null();
                subject.names(relation, Mode::AccessExclusive, Reach::Itself);
                subject
            }
            T_InsertStmt | T_UpdateStmt | T_DeleteStmt | T_MergeStmt => data::of(node),
            T_CopyStmt => {
                let stmt = node.cast::<pg_sys::CopyStmt>();
                let mut subject = Subject::is(O::Copy);
                let lock = match (*stmt).is_from {
                    true => Mode::RowExclusive,
                    false => Mode::AccessShare,
                };
                let reach = match (*stmt).is_from {
                    true => Reach::Rows(Written::Insert, Vec::new()),
                    false => Reach::Itself,
                };
                subject.names((*stmt).relation, lock, reach);
                subject
            }
            T_ViewStmt => {
                let stmt = node.cast::<pg_sys::ViewStmt>();
                let mut subject = Subject::is(O::CreateView);
                if (*stmt).replace {
                    subject.operations = vec![O::ReplaceView];
                    subject.names((*stmt).view, Mode::AccessExclusive, Reach::Itself);
                }
                subject.query = true;
                subject
            }
            T_CreateTableAsStmt => {
                let materialized = (*node.cast::<pg_sys::CreateTableAsStmt>()).objtype
                    == pg_sys::ObjectType::OBJECT_MATVIEW;
                let mut subject = Subject::is(match materialized {
                    true => O::CreateMaterializedView,
                    false => O::CreateTableAs,
                });
                subject.query = true;
                subject
            }
            T_SelectStmt => {
                let mut subject = Subject::is(O::Select);
                subject.query = true;
                subject
            }
            T_AlterEnumStmt => Subject::is(match (*node.cast::<pg_sys::AlterEnumStmt>()).oldVal {
                old if old.is_null() => O::AddEnumValue,
                _ => O::RenameEnumValue,
            }),
            T_CreatePublicationStmt | T_AlterPublicationStmt => publication(node),
            T_GrantStmt | T_GrantRoleStmt => {
                let grant = match (*node).type_ {
                    T_GrantStmt => (*node.cast::<pg_sys::GrantStmt>()).is_grant,
                    _ => (*node.cast::<pg_sys::GrantRoleStmt>()).is_grant,
                };
                let mut subject = Subject::is(match grant {
                    true => O::Grant,
                    false => O::Revoke,
                });
                if super::compat::GRANT_LOCKS && (*node).type_ == T_GrantStmt {
                    for object in nodes((*node.cast::<pg_sys::GrantStmt>()).objects) {
                        if (*object).type_ == T_RangeVar {
                            subject.names(object.cast(), Mode::AccessShare, Reach::Itself);
                        }
                    }
                }
                subject
            }
            T_TransactionStmt => Subject::is(O::Transaction),
            T_AlterDatabaseStmt => {
                let mut subject = Subject::is(Operation::of_tag(tag));
                let options = nodes((*node.cast::<pg_sys::AlterDatabaseStmt>()).options);
                subject.outside_transaction = options.into_iter().any(|n| {
                    text((*n.cast::<pg_sys::DefElem>()).defname).as_deref() == Some("tablespace")
                });
                subject
            }
            T_DiscardStmt => {
                let mut subject = Subject::is(Operation::of_tag(tag));
                subject.outside_transaction = (*node.cast::<pg_sys::DiscardStmt>()).target
                    == pg_sys::DiscardMode::DISCARD_ALL;
                subject
            }
            _ => Subject::is(Operation::of_tag(tag)),
        }
    }
}

/// # Safety
/// `relation` is a RangeVar of the raw parser.
unsafe fn tree(relation: *const pg_sys::RangeVar) -> Reach {
    // SAFETY: by the contract above.
    match unsafe { (*relation).inh } {
        true => Reach::Tree,
        false => Reach::Itself,
    }
}

/// # Safety
/// `stmt` is a CreateStmt of the raw parser.
unsafe fn create_table(stmt: *mut pg_sys::CreateStmt) -> Subject {
    let mut subject = Subject::is(Operation::CreateTable);
    // SAFETY: each cast follows the node's own tag; a partition has a bound, an heir a parent.
    unsafe {
        for parent in nodes((*stmt).inhRelations) {
            match (*stmt).partbound.is_null() {
                true => subject.names(parent.cast(), Mode::ShareUpdateExclusive, Reach::Itself),
                false => subject.names(
                    parent.cast(),
                    Mode::AccessExclusive,
                    Reach::DefaultPartition,
                ),
            }
        }
        let mut constraints = nodes((*stmt).constraints);
        for element in nodes((*stmt).tableElts) {
            match (*element).type_ {
                pg_sys::NodeTag::T_TableLikeClause => {
                    let like = (*element.cast::<pg_sys::TableLikeClause>()).relation;
                    subject.names(like, Mode::AccessShare, Reach::Itself);
                }
                pg_sys::NodeTag::T_ColumnDef => {
                    let column = element.cast::<pg_sys::ColumnDef>();
                    constraints.extend(nodes((*column).constraints));
                }
                pg_sys::NodeTag::T_Constraint => constraints.push(element),
                _ => {}
            }
        }
        for constraint in constraints {
            let constraint = constraint.cast::<pg_sys::Constraint>();
            subject.names(
                (*constraint).pktable,
                Mode::ShareRowExclusive,
                Reach::Itself,
            );
        }
    }
    subject
}

/// # Safety
/// `object` names an object of this kind, as the raw parser has it in CommentStmt.
unsafe fn comment(kind: pg_sys::ObjectType::Type, object: *mut pg_sys::Node) -> Subject {
    use pg_sys::ObjectType::*;
    let subject = Subject::is(Operation::Comment);
    // SAFETY: the cast follows the tag.
    unsafe {
        if object.is_null() || (*object).type_ != pg_sys::NodeTag::T_List {
            return subject;
        }
        let parts = words(object.cast());
        let lock = Mode::ShareUpdateExclusive;
        match kind {
            OBJECT_TABLE | OBJECT_VIEW | OBJECT_MATVIEW | OBJECT_SEQUENCE | OBJECT_INDEX
            | OBJECT_FOREIGN_TABLE => subject.with(mention(&parts, 0, lock, Reach::Itself)),
            OBJECT_COLUMN => subject.with(mention(&parts, 1, lock, Reach::Itself)),
            OBJECT_TABCONSTRAINT | OBJECT_TRIGGER | OBJECT_RULE | OBJECT_POLICY => {
                subject.with(mention(&parts, 1, Mode::AccessShare, Reach::Itself))
            }
            _ => subject,
        }
    }
}

/// The table of OWNED BY.
///
/// # Safety
/// `options` is NULL or a list of DefElem nodes.
unsafe fn owned_by(options: *mut pg_sys::List) -> Option<Mention> {
    // SAFETY: by the contract above; OWNED BY holds a list of String nodes.
    unsafe {
        nodes(options)
            .into_iter()
            .map(|n| n.cast::<pg_sys::DefElem>())
            .find(|e| text((**e).defname).as_deref() == Some("owned_by"))
            .and_then(|e| {
                let parts = words((*e).arg.cast());
                mention(&parts, 1, Mode::AccessShare, Reach::Itself)
            })
    }
}

/// # Safety
/// `node` is a CREATE or ALTER PUBLICATION of the raw parser.
unsafe fn publication(node: *mut pg_sys::Node) -> Subject {
    let mut subject = Subject::is(Operation::Replication);
    // SAFETY: the cast follows the tag; objects are PublicationObjSpec nodes.
    unsafe {
        let objects = match (*node).type_ {
            pg_sys::NodeTag::T_CreatePublicationStmt => {
                (*node.cast::<pg_sys::CreatePublicationStmt>()).pubobjects
            }
            _ => (*node.cast::<pg_sys::AlterPublicationStmt>()).pubobjects,
        };
        for object in nodes(objects) {
            let table = (*object.cast::<pg_sys::PublicationObjSpec>()).pubtable;
            if !table.is_null() {
                subject.names(
                    (*table).relation,
                    Mode::ShareUpdateExclusive,
                    tree((*table).relation),
                );
            }
        }
    }
    subject
}
