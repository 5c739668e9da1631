//! The server's own parser: a script as owned statements.

use super::effects;
use super::maintenance::{self, Maintenance};
use super::naming;
pub use super::naming::{DropTable, Named, NewPlace, RenameColumn, RenameTable};
use super::setting::{self, Setting};
use super::subject::{self, Subject};
use crate::error::Result;
use crate::model::effects::Effects;
use pgrx::pg_sys;
use std::ffi::{CStr, CString};

/// One statement of a script.
#[derive(Debug, Clone)]
pub struct Statement {
    /// Text as written, without the semicolon, trimmed.
    pub text: String,
    /// Line and column of its first character in the script, from 1.
    pub line: usize,
    pub column: usize,
    /// Command tag as the server reports it, e.g. `ALTER TABLE`.
    pub tag: String,
    pub kind: Kind,
    /// What it is and what it names, whatever the recipe.
    pub subject: Subject,
    /// Characters of the script before its first one.
    pub offset: usize,
    pub effects: Effects,
}

/// What the planner distinguishes.
#[derive(Debug, Clone)]
pub enum Kind {
    AlterTable(AlterTable),
    /// CREATE of something under a (possibly qualified) name.
    Create {
        object: &'static str,
        schema: Option<String>,
        name: String,
        if_not_exists: bool,
    },
    /// INSERT, UPDATE, DELETE, MERGE, TRUNCATE.
    Data(Data),
    /// Indexes, VACUUM, REFRESH.
    Maintenance(Maintenance),
    /// ALTER TABLE … RENAME TO, … SET SCHEMA.
    RenameTable(RenameTable),
    /// ALTER TABLE … RENAME COLUMN.
    RenameColumn(RenameColumn),
    DropTable(DropTable),
    /// SET, or set_config: for the statements after it.
    Set(Setting),
    /// BEGIN, COMMIT, SAVEPOINT …
    Transaction,
    Other,
}

/// A statement that changes rows.
#[derive(Debug, Clone)]
pub struct Data {
    pub verb: Verb,
    /// What it writes, schema and name: one table, except for TRUNCATE.
    pub targets: Vec<(Option<String>, String)>,
    /// Columns that an UPDATE assigns.
    pub columns: Vec<String>,
    /// INSERT … SELECT … FROM one relation: which.
    pub source: Option<(Option<String>, String)>,
    /// TRUNCATE … CASCADE.
    pub cascade: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    Insert,
    Update,
    Delete,
    Merge,
    Truncate,
}

#[derive(Debug, Clone)]
pub struct AlterTable {
    pub schema: Option<String>,
    pub name: String,
    pub commands: Vec<Command>,
}

/// One subcommand of ALTER TABLE.
#[derive(Debug, Clone)]
pub struct Command {
    pub action: Action,
    pub column: Option<String>,
    /// A USING, DEFAULT or generation expression is given.
    pub has_expression: bool,
    pub constraint: Option<ConstraintKind>,
    pub not_valid: bool,
    /// IF EXISTS or IF NOT EXISTS: it may find nothing to do.
    pub missing_ok: bool,
    /// ATTACH or DETACH PARTITION: always the only subcommand.
    pub part: Option<Part>,
}

/// A partition that is attached or detached.
#[derive(Debug, Clone)]
pub struct Part {
    pub schema: Option<String>,
    pub name: String,
    pub change: PartChange,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartChange {
    Attach,
    Detach,
    DetachConcurrently,
    /// The end of a DETACH … CONCURRENTLY that was interrupted.
    Finalize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    AddColumn,
    DropColumn,
    AlterType,
    SetNotNull,
    AddConstraint,
    ValidateConstraint,
    /// `column` is the constraint's name.
    DropConstraint,
    ChangeOwner,
    AddIndexConstraint,
    /// `column` is the index.
    ClusterOn,
    AttachOrInherit,
    /// SET DEFAULT, DROP DEFAULT, SET EXPRESSION, DROP EXPRESSION, ADD and SET IDENTITY: what a column gets by itself.
    ColumnValue,
    /// Anything that only changes the catalog, or whose rewrite the server itself shows.
    Other,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConstraintKind {
    Check,
    NotNull,
    Unique,
    Primary,
    Exclusion,
    Foreign,
}

/// Splits and classifies a script; a syntax error is the server's own ERROR.
pub fn parse(script: &str) -> Result<Vec<Statement>> {
    let text = to_c(script)?;
    let mut statements = Vec::new();
    let mut place = Place::default();
    // SAFETY: raw_parser reads a NUL-terminated string and returns RawStmt nodes in the current
    // memory context, which outlives this function; everything is copied out.
    unsafe {
        let list = pg_sys::raw_parser(text.as_ptr(), pg_sys::RawParseMode::RAW_PARSE_DEFAULT);
        for i in 0..pg_sys::list_length(list) {
            let raw = pg_sys::list_nth(list, i).cast::<pg_sys::RawStmt>();
            let start = usize::try_from((*raw).stmt_location).unwrap_or(0);
            let end = match usize::try_from((*raw).stmt_len) {
                Ok(n) if n > 0 => start + n,
                _ => script.len(),
            };
            let (body, skipped) = without_leading_blank(&script[start..end]);
            let tag = CStr::from_ptr(pg_sys::CreateCommandName((*raw).stmt))
                .to_string_lossy()
                .into_owned();
            place.advance(script, start + skipped);
            statements.push(Statement {
                text: body.to_string(),
                line: 1 + place.lines,
                column: 1 + place.characters - place.line_start,
                kind: match maintenance::classify((*raw).stmt, start + skipped) {
                    Some(maintenance) => Kind::Maintenance(maintenance),
                    None => classify((*raw).stmt),
                },
                subject: subject::of((*raw).stmt, &tag),
                offset: place.characters,
                tag,
                effects: effects::of((*raw).stmt, body),
            });
        }
    }
    Ok(statements)
}

/// How far a script has been read; goes forward only, so that a long script is counted once.
#[derive(Default)]
struct Place {
    bytes: usize,
    characters: usize,
    lines: usize,
    /// Characters before the line that it is in.
    line_start: usize,
}

impl Place {
    fn advance(&mut self, script: &str, to: usize) {
        let part = &script[self.bytes..to];
        for c in part.chars() {
            self.characters += 1;
            if c == '\n' {
                self.lines += 1;
                self.line_start = self.characters;
            }
        }
        self.bytes = to;
    }
}

pub(super) fn to_c(text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| crate::error::Error::InvalidArgument {
        problem: "the text holds a NUL character".into(),
        detail: "SQL text cannot hold the character U+0000.".into(),
        hint: "Remove it.".into(),
    })
}

/// The text without white space and comments in front, and how many bytes that was.
fn without_leading_blank(text: &str) -> (&str, usize) {
    let mut rest = text;
    loop {
        let trimmed = rest.trim_start();
        rest = if let Some(line) = trimmed.strip_prefix("--") {
            line.find('\n').map_or("", |end| &line[end..])
        } else if trimmed.starts_with("/*") {
            after_block_comment(trimmed)
        } else {
            return (trimmed.trim_end(), text.len() - trimmed.len());
        };
    }
}

/// Block comments nest in PostgreSQL.
fn after_block_comment(text: &str) -> &str {
    let bytes = text.as_bytes();
    let (mut depth, mut i) = (0usize, 0usize);
    while i + 1 < bytes.len() {
        match &bytes[i..i + 2] {
            b"/*" => {
                depth += 1;
                i += 2;
            }
            b"*/" => {
                depth -= 1;
                i += 2;
                if depth == 0 {
                    return &text[i..];
                }
            }
            _ => i += 1,
        }
    }
    ""
}

/// # Safety
/// `pointer` is NULL or a NUL-terminated string.
pub(super) unsafe fn text(pointer: *const std::ffi::c_char) -> Option<String> {
    if pointer.is_null() {
        return None;
    }
    // SAFETY: by the contract above.
    Some(
        unsafe { CStr::from_ptr(pointer) }
            .to_string_lossy()
            .into_owned(),
    )
}

/// # Safety
/// `node` is a statement node of the raw parser.
unsafe fn classify(node: *mut pg_sys::Node) -> Kind {
    use pg_sys::NodeTag::*;
    // SAFETY: each cast follows the node's own tag.
    unsafe {
        match (*node).type_ {
            T_AlterTableStmt => {
                let stmt = node.cast::<pg_sys::AlterTableStmt>();
                if (*stmt).objtype != pg_sys::ObjectType::OBJECT_TABLE {
                    return Kind::Other;
                }
                let commands = (0..pg_sys::list_length((*stmt).cmds))
                    .map(|i| command(pg_sys::list_nth((*stmt).cmds, i).cast()))
                    .collect();
                Kind::AlterTable(AlterTable {
                    schema: text((*(*stmt).relation).schemaname),
                    name: text((*(*stmt).relation).relname).unwrap_or_default(),
                    commands,
                })
            }
            T_TransactionStmt => Kind::Transaction,
            T_CreateTableAsStmt
                if (*node.cast::<pg_sys::CreateTableAsStmt>()).objtype
                    == pg_sys::ObjectType::OBJECT_MATVIEW =>
            {
                let stmt = node.cast::<pg_sys::CreateTableAsStmt>();
                create(
                    "MATERIALIZED VIEW",
                    (*(*stmt).into).rel,
                    (*stmt).if_not_exists,
                )
            }
            T_SelectStmt => setting::of_select(node.cast()).map_or(Kind::Other, Kind::Set),
            T_VariableSetStmt => setting::of_set(node.cast()).map_or(Kind::Other, Kind::Set),
            T_InsertStmt => {
                let stmt = node.cast::<pg_sys::InsertStmt>();
                let mut insert = data_of(Verb::Insert, (*stmt).relation);
                let select = (*stmt).selectStmt.cast::<pg_sys::SelectStmt>();
                if !select.is_null() && pg_sys::list_length((*select).fromClause) == 1 {
                    let item = pg_sys::list_nth((*select).fromClause, 0).cast::<pg_sys::Node>();
                    if (*item).type_ == T_RangeVar {
                        insert.source = Some(named(item.cast()));
                    }
                }
                Kind::Data(insert)
            }
            T_UpdateStmt => {
                let stmt = node.cast::<pg_sys::UpdateStmt>();
                let mut update = data_of(Verb::Update, (*stmt).relation);
                update.columns = (0..pg_sys::list_length((*stmt).targetList))
                    .filter_map(|i| {
                        let target =
                            pg_sys::list_nth((*stmt).targetList, i).cast::<pg_sys::ResTarget>();
                        text((*target).name)
                    })
                    .collect();
                Kind::Data(update)
            }
            T_DeleteStmt => data(Verb::Delete, (*node.cast::<pg_sys::DeleteStmt>()).relation),
            T_MergeStmt => data(Verb::Merge, (*node.cast::<pg_sys::MergeStmt>()).relation),
            T_TruncateStmt => {
                let stmt = node.cast::<pg_sys::TruncateStmt>();
                Kind::Data(Data {
                    verb: Verb::Truncate,
                    targets: (0..pg_sys::list_length((*stmt).relations))
                        .map(|i| named(pg_sys::list_nth((*stmt).relations, i).cast()))
                        .collect(),
                    columns: Vec::new(),
                    source: None,
                    cascade: (*stmt).behavior == pg_sys::DropBehavior::DROP_CASCADE,
                })
            }
            T_CreateStmt => {
                let stmt = node.cast::<pg_sys::CreateStmt>();
                create("TABLE", (*stmt).relation, (*stmt).if_not_exists)
            }
            T_ViewStmt if !(*node.cast::<pg_sys::ViewStmt>()).replace => {
                create("VIEW", (*node.cast::<pg_sys::ViewStmt>()).view, false)
            }
            T_CreateSeqStmt => {
                let stmt = node.cast::<pg_sys::CreateSeqStmt>();
                create("SEQUENCE", (*stmt).sequence, (*stmt).if_not_exists)
            }
            T_CompositeTypeStmt => create(
                "TYPE",
                (*node.cast::<pg_sys::CompositeTypeStmt>()).typevar,
                false,
            ),
            T_CreateEnumStmt => {
                create_named("TYPE", (*node.cast::<pg_sys::CreateEnumStmt>()).typeName)
            }
            T_CreateDomainStmt => create_named(
                "DOMAIN",
                (*node.cast::<pg_sys::CreateDomainStmt>()).domainname,
            ),
            T_CreateSchemaStmt => {
                let stmt = node.cast::<pg_sys::CreateSchemaStmt>();
                match text((*stmt).schemaname) {
                    Some(name) if pg_sys::list_length((*stmt).schemaElts) == 0 => Kind::Create {
                        object: "SCHEMA",
                        schema: None,
                        name,
                        if_not_exists: (*stmt).if_not_exists,
                    },
                    _ => Kind::Other,
                }
            }
            _ => naming::classify(node).unwrap_or(Kind::Other),
        }
    }
}

/// # Safety
/// `relation` is a RangeVar of the raw parser.
unsafe fn named(relation: *mut pg_sys::RangeVar) -> (Option<String>, String) {
    // SAFETY: by the contract above.
    unsafe {
        (
            text((*relation).schemaname),
            text((*relation).relname).unwrap_or_default(),
        )
    }
}

/// # Safety
/// `relation` is a RangeVar of the raw parser.
unsafe fn data_of(verb: Verb, relation: *mut pg_sys::RangeVar) -> Data {
    Data {
        verb,
        // SAFETY: by the contract above.
        targets: vec![unsafe { named(relation) }],
        columns: Vec::new(),
        source: None,
        cascade: false,
    }
}

/// # Safety
/// `relation` is a RangeVar of the raw parser.
unsafe fn data(verb: Verb, relation: *mut pg_sys::RangeVar) -> Kind {
    // SAFETY: by the contract above.
    Kind::Data(unsafe { data_of(verb, relation) })
}

/// # Safety
/// `relation` is a RangeVar of the raw parser.
unsafe fn create(
    object: &'static str,
    relation: *mut pg_sys::RangeVar,
    if_not_exists: bool,
) -> Kind {
    // SAFETY: by the contract above.
    unsafe {
        Kind::Create {
            object,
            schema: text((*relation).schemaname),
            name: text((*relation).relname).unwrap_or_default(),
            if_not_exists,
        }
    }
}

/// # Safety
/// `names` is a list of String nodes: name, or schema and name.
unsafe fn create_named(object: &'static str, names: *mut pg_sys::List) -> Kind {
    // SAFETY: by the contract above; makeRangeVarFromNameList only reads the list.
    unsafe { create(object, pg_sys::makeRangeVarFromNameList(names), false) }
}

/// # Safety
/// `cmd` is an AlterTableCmd of the raw parser.
#[allow(
    non_upper_case_globals,
    reason = "the server's own names of subcommands"
)]
unsafe fn command(cmd: *mut pg_sys::AlterTableCmd) -> Command {
    use pg_sys::AlterTableType::*;
    // SAFETY: `def` is read only under the subtypes for which the grammar sets that node type.
    unsafe {
        let mut result = Command {
            action: Action::Other,
            column: text((*cmd).name),
            has_expression: false,
            constraint: None,
            not_valid: false,
            missing_ok: (*cmd).missing_ok,
            part: None,
        };
        match (*cmd).subtype {
            AT_AddColumn => {
                let def = (*cmd).def.cast::<pg_sys::ColumnDef>();
                result.action = Action::AddColumn;
                result.column = text((*def).colname);
                for i in 0..pg_sys::list_length((*def).constraints) {
                    let constraint =
                        pg_sys::list_nth((*def).constraints, i).cast::<pg_sys::Constraint>();
                    if let Some(kind) = constraint_kind((*constraint).contype) {
                        if kind != ConstraintKind::NotNull {
                            result.constraint = Some(kind);
                        }
                    } else {
                        result.has_expression |= !(*constraint).raw_expr.is_null();
                    }
                }
            }
            AT_DropColumn => result.action = Action::DropColumn,
            AT_AlterColumnType => {
                let def = (*cmd).def.cast::<pg_sys::ColumnDef>();
                result.action = Action::AlterType;
                result.has_expression = !(*def).raw_default.is_null();
            }
            AT_SetNotNull => result.action = Action::SetNotNull,
            AT_AddConstraint => {
                let constraint = (*cmd).def.cast::<pg_sys::Constraint>();
                result.action = Action::AddConstraint;
                result.constraint = constraint_kind((*constraint).contype);
                result.not_valid = (*constraint).skip_validation;
                if !(*constraint).indexname.is_null() {
                    result.action = Action::AddIndexConstraint;
                }
            }
            AT_ColumnDefault | AT_DropExpression | AT_AddIdentity | AT_SetIdentity
            | AT_DropIdentity => result.action = Action::ColumnValue,
            subtype if super::compat::is_set_expression(subtype) => {
                result.action = Action::ColumnValue;
                result.has_expression = true;
            }
            AT_ValidateConstraint => result.action = Action::ValidateConstraint,
            AT_DropConstraint => result.action = Action::DropConstraint,
            AT_ChangeOwner => result.action = Action::ChangeOwner,
            AT_ClusterOn => result.action = Action::ClusterOn,
            AT_AddInherit
            | AT_DropInherit
            | AT_AttachPartition
            | AT_DetachPartition
            | AT_DetachPartitionFinalize
            | AT_AddOf
            | AT_DropOf => {
                result.action = Action::AttachOrInherit;
                result.part = part(cmd);
            }
            _ => {}
        }
        result
    }
}

/// # Safety
/// `cmd` is an AlterTableCmd of the raw parser.
#[allow(
    non_upper_case_globals,
    reason = "the server's own names of subcommands"
)]
unsafe fn part(cmd: *mut pg_sys::AlterTableCmd) -> Option<Part> {
    use pg_sys::AlterTableType::*;
    // SAFETY: these three have a PartitionCmd with a name.
    unsafe {
        let node = (*cmd).def.cast::<pg_sys::PartitionCmd>();
        let change = match (*cmd).subtype {
            AT_AttachPartition => PartChange::Attach,
            AT_DetachPartition if (*node).concurrent => PartChange::DetachConcurrently,
            AT_DetachPartition => PartChange::Detach,
            AT_DetachPartitionFinalize => PartChange::Finalize,
            _ => return None,
        };
        Some(Part {
            schema: text((*(*node).name).schemaname),
            name: text((*(*node).name).relname).unwrap_or_default(),
            change,
        })
    }
}

pub(super) fn constraint_kind(kind: pg_sys::ConstrType::Type) -> Option<ConstraintKind> {
    use pg_sys::ConstrType::*;
    Some(match kind {
        CONSTR_CHECK => ConstraintKind::Check,
        CONSTR_NOTNULL => ConstraintKind::NotNull,
        CONSTR_UNIQUE => ConstraintKind::Unique,
        CONSTR_PRIMARY => ConstraintKind::Primary,
        CONSTR_EXCLUSION => ConstraintKind::Exclusion,
        CONSTR_FOREIGN => ConstraintKind::Foreign,
        _ => return None,
    })
}
