//! The subcommands of an ALTER TABLE as texts of their own. The text is cut at its commas, and the server's parser
//! proves each cut: a piece parsed by itself must give the very node that the whole statement has in its place.

use super::parser::{to_c, ConstraintKind};
use super::relation::LockMode;
use crate::error::{Error, Result};
use crate::model::token::{self, Kind};
use pgrx::pg_sys;
use std::ffi::CStr;

/// An ALTER TABLE in pieces, in the order of its subcommands.
#[derive(Debug, Clone)]
pub struct Pieces {
    /// ONLY is written: neither partitions nor children.
    pub only: bool,
    pub list: Vec<Piece>,
}

/// One subcommand.
#[derive(Debug, Clone)]
pub struct Piece {
    /// As written.
    pub text: String,
    /// The lock it takes on the table, by the server's own rule.
    pub lock: LockMode,
    /// It changes facts that can be made again, whatever they were.
    pub changes_facts: bool,
    /// What it adds: its own constraint, or those that stand behind the column of ADD COLUMN.
    pub constraints: Vec<Constraint>,
    /// ADD COLUMN without the CHECK, REFERENCES, UNIQUE and PRIMARY KEY behind it.
    pub bare_column: Option<String>,
    /// ADD COLUMN with a DEFAULT, or a value for rows that exist in another way.
    pub has_default: bool,
}

/// A constraint as it is written.
#[derive(Debug, Clone)]
pub struct Constraint {
    pub kind: ConstraintKind,
    pub name: Option<String>,
    /// Of a foreign key, or NOT NULL.
    pub columns: Vec<String>,
    /// The table that a foreign key points at: schema, where it is written, and name.
    pub references: Option<(Option<String>, String)>,
    /// From CHECK, FOREIGN KEY, REFERENCES, … on to its end, without CONSTRAINT and name.
    pub body: String,
    pub not_valid: bool,
    pub enforced: bool,
}

/// Cuts one ALTER TABLE statement.
pub fn of(text: &str) -> Result<Pieces> {
    let source = to_c(text)?;
    // SAFETY: the tree is built in the current memory context, which outlives this function; nodes are read under
    // their own tags, and everything is copied out.
    unsafe {
        let alter = single_alter(&source)
            .ok_or_else(|| Error::Bug(format!("expected one ALTER TABLE: {text}")))?;
        let only = !(*(*alter).relation).inh;
        let start = after_name(text, (*(*alter).relation).location);
        let count = pg_sys::list_length((*alter).cmds);
        let places = token::between_commas(text, start);
        if places.len() != count as usize {
            return Err(cannot_cut(text));
        }
        let mut list = Vec::with_capacity(places.len());
        for (i, (start, end)) in places.into_iter().enumerate() {
            let command = pg_sys::list_nth((*alter).cmds, i as i32).cast();
            list.push(piece(text, start, end, command)?);
        }
        Ok(Pieces { only, list })
    }
}

/// The lock that an ALTER TABLE takes on its table (AlterTableGetLockLevel); other statements: `None`.
pub fn lock_of(text: &str) -> Result<Option<LockMode>> {
    let source = to_c(text)?;
    // SAFETY: as in `of`; AlterTableGetLockLevel only reads the commands.
    unsafe {
        Ok(single_alter(&source)
            .and_then(|alter| LockMode::of_number(pg_sys::AlterTableGetLockLevel((*alter).cmds))))
    }
}

/// The one ALTER TABLE of a text; `None` when it is something else.
///
/// # Safety
/// The tree is not to be used after the current memory context is gone.
unsafe fn single_alter(source: &CStr) -> Option<*mut pg_sys::AlterTableStmt> {
    // SAFETY: raw_parser returns RawStmt nodes; the cast follows the tag.
    unsafe {
        let list = pg_sys::raw_parser(source.as_ptr(), pg_sys::RawParseMode::RAW_PARSE_DEFAULT);
        if pg_sys::list_length(list) != 1 {
            return None;
        }
        let node = (*pg_sys::list_nth(list, 0).cast::<pg_sys::RawStmt>()).stmt;
        ((*node).type_ == pg_sys::NodeTag::T_AlterTableStmt).then_some(node.cast())
    }
}

/// Where the subcommands begin: behind the name of the table, its `*` or its closing bracket.
fn after_name(text: &str, location: i32) -> usize {
    let start = usize::try_from(location).unwrap_or(0);
    let mut end = start;
    let mut dotted = true;
    for token in token::tokens(text).into_iter().filter(|t| t.start >= start) {
        match token.kind {
            Kind::Word if dotted => dotted = false,
            Kind::Sign(b'.') => dotted = true,
            Kind::Sign(b'*' | b')') => {}
            _ => break,
        }
        end = token.end;
    }
    end
}

fn cannot_cut(text: &str) -> Error {
    Error::Unsupported {
        problem: "the subcommands of this ALTER TABLE cannot be told apart".into(),
        detail: format!("In: {text}"),
        hint: "Write one statement for each of them.".into(),
    }
}

/// # Safety
/// `command` is the AlterTableCmd of the raw parser that `text[start..end]` was parsed to.
unsafe fn piece(
    text: &str,
    start: usize,
    end: usize,
    command: *mut pg_sys::AlterTableCmd,
) -> Result<Piece> {
    let own = &text[start..end];
    // SAFETY: `def` is read only under the subtypes for which the grammar sets that node type; the list of one
    // command is read by AlterTableGetLockLevel and by nobody after that.
    unsafe {
        prove(own, command).ok_or_else(|| cannot_cut(text))?;
        let one = pg_sys::lappend(std::ptr::null_mut(), command.cast());
        let mut piece = Piece {
            text: own.to_string(),
            lock: LockMode::of_number(pg_sys::AlterTableGetLockLevel(one))
                .unwrap_or(LockMode::AccessExclusive),
            changes_facts: changes_facts(command),
            constraints: Vec::new(),
            bare_column: None,
            has_default: false,
        };
        match (*command).subtype {
            pg_sys::AlterTableType::AT_AddConstraint => {
                let node = (*command).def.cast::<pg_sys::Constraint>();
                piece.constraints.extend(constraint(text, node, end));
            }
            pg_sys::AlterTableType::AT_AddColumn => {
                let column = (*command).def.cast::<pg_sys::ColumnDef>();
                inline(text, start, end, column, &mut piece);
                if let Some(bare) = &piece.bare_column {
                    reparse(bare).ok_or_else(|| cannot_cut(text))?;
                }
            }
            _ => {}
        }
        Ok(piece)
    }
}

/// Whether what a subcommand changes can be made again from what the catalog says of the table before it.
///
/// # Safety
/// `command` is an AlterTableCmd of the raw parser.
#[allow(
    non_upper_case_globals,
    reason = "the server's own names of subcommands"
)]
unsafe fn changes_facts(command: *mut pg_sys::AlterTableCmd) -> bool {
    use pg_sys::AlterTableType::*;
    // SAFETY: by the contract above; SET GENERATED has a list of DefElem.
    unsafe {
        if (*command).behavior == pg_sys::DropBehavior::DROP_CASCADE {
            return false;
        }
        if (*command).subtype == AT_SetIdentity {
            let options = (*command).def.cast::<pg_sys::List>();
            return (0..pg_sys::list_length(options)).all(|i| {
                let option = pg_sys::list_nth(options, i).cast::<pg_sys::DefElem>();
                parser_text((*option).defname).as_deref() == Some("generated")
            });
        }
        matches!(
            (*command).subtype,
            AT_AddColumn
                | AT_ColumnDefault
                | AT_DropNotNull
                | AT_SetStatistics
                | AT_SetOptions
                | AT_ResetOptions
                | AT_SetStorage
                | AT_SetCompression
                | AT_AddConstraint
                | AT_DropConstraint
                | AT_AlterConstraint
                | AT_SetRelOptions
                | AT_ResetRelOptions
                | AT_EnableTrig
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
                | AT_ClusterOn
                | AT_DropCluster
                | AT_ReplicaIdentity
                | AT_AddIdentity
        )
    }
}

/// The one subcommand of `piece` parsed by itself.
///
/// # Safety
/// As `single_alter`.
unsafe fn reparse(piece: &str) -> Option<*mut pg_sys::AlterTableCmd> {
    let source = to_c(&format!("ALTER TABLE x {piece}")).ok()?;
    // SAFETY: as in `of`. A piece that does not parse raises the server's ERROR, which refuses the statement.
    unsafe {
        let alter = single_alter(&source)?;
        (pg_sys::list_length((*alter).cmds) == 1).then(|| pg_sys::list_nth((*alter).cmds, 0).cast())
    }
}

/// `Some` if the piece means the command: node for node, but for the places in the text.
///
/// # Safety
/// `command` is a node of the raw parser.
unsafe fn prove(piece: &str, command: *mut pg_sys::AlterTableCmd) -> Option<()> {
    // SAFETY: equal() reads both trees.
    unsafe {
        let again = reparse(piece)?;
        pg_sys::equal(command.cast(), again.cast()).then_some(())
    }
}

/// Reads the constraints behind a column of ADD COLUMN, and what is left without those that get steps of their own.
///
/// # Safety
/// `column` is the ColumnDef that stands in `text[start..end]`.
unsafe fn inline(
    text: &str,
    start: usize,
    end: usize,
    column: *mut pg_sys::ColumnDef,
    piece: &mut Piece,
) {
    // SAFETY: constraints of a ColumnDef are Constraint nodes; locations are byte offsets in `text`.
    unsafe {
        let count = pg_sys::list_length((*column).constraints);
        let nodes: Vec<*mut pg_sys::Constraint> = (0..count)
            .map(|i| pg_sys::list_nth((*column).constraints, i).cast())
            .collect();
        // Each clause ends where the next one begins; DEFERRABLE and the like belong to the one before.
        let mut bounds: Vec<usize> = nodes
            .iter()
            .filter(|node| !is_attribute((***node).contype))
            .filter_map(|node| usize::try_from((**node).location).ok())
            .collect();
        if !(*column).collClause.is_null() {
            bounds.extend(usize::try_from((*(*column).collClause).location).ok());
        }
        bounds.push(end);
        bounds.sort_unstable();
        let mut bare = String::new();
        let mut at = start;
        for node in nodes {
            let kind = (*node).contype;
            piece.has_default |= matches!(
                kind,
                pg_sys::ConstrType::CONSTR_DEFAULT
                    | pg_sys::ConstrType::CONSTR_IDENTITY
                    | pg_sys::ConstrType::CONSTR_GENERATED
            );
            if let (Some(enforced), Some(last)) = (
                super::compat::enforcement(kind),
                piece.constraints.last_mut(),
            ) {
                last.enforced = enforced;
            }
            let Ok(from) = usize::try_from((*node).location) else {
                continue;
            };
            let to = bounds.iter().copied().find(|b| *b > from).unwrap_or(end);
            let Some(mut found) = constraint(text, node, to) else {
                continue;
            };
            if !matches!(found.kind, ConstraintKind::NotNull) {
                bare.push_str(&text[at..from]);
                at = to;
            }
            found.columns = parser_text((*column).colname).into_iter().collect();
            piece.constraints.push(found);
        }
        bare.push_str(&text[at..end]);
        piece.bare_column = Some(bare.trim_end().to_string());
    }
}

pub(super) fn is_attribute(kind: pg_sys::ConstrType::Type) -> bool {
    use pg_sys::ConstrType::*;
    if matches!(
        kind,
        CONSTR_ATTR_DEFERRABLE
            | CONSTR_ATTR_NOT_DEFERRABLE
            | CONSTR_ATTR_DEFERRED
            | CONSTR_ATTR_IMMEDIATE
    ) {
        return true;
    }
    super::compat::enforcement(kind).is_some()
}

/// # Safety
/// `pointer` is NULL or a NUL-terminated string.
unsafe fn parser_text(pointer: *const std::ffi::c_char) -> Option<String> {
    (!pointer.is_null()).then(|| {
        // SAFETY: by the contract above.
        unsafe { CStr::from_ptr(pointer) }
            .to_string_lossy()
            .into_owned()
    })
}

/// # Safety
/// `list` is a list of String nodes.
unsafe fn names(list: *mut pg_sys::List) -> Vec<String> {
    // SAFETY: by the contract above.
    unsafe {
        (0..pg_sys::list_length(list))
            .filter_map(|i| parser_text((*pg_sys::list_nth(list, i).cast::<pg_sys::String>()).sval))
            .collect()
    }
}

/// The constraint of a node that ends before byte `end` of `text`; `None`: DEFAULT, an attribute, and the like.
///
/// # Safety
/// `node` is a Constraint of the raw parser, which parsed `text`.
unsafe fn constraint(text: &str, node: *mut pg_sys::Constraint, end: usize) -> Option<Constraint> {
    // SAFETY: by the contract above; lists of names hold String nodes.
    unsafe {
        let kind = super::parser::constraint_kind((*node).contype)?;
        let start = usize::try_from((*node).location).ok()?;
        let name = parser_text((*node).conname);
        let mut body = start;
        if name.is_some() {
            // CONSTRAINT and the name itself.
            let tokens = token::tokens(&text[start..end]);
            body = start + tokens.get(2)?.start;
        }
        let references = (kind == ConstraintKind::Foreign).then(|| {
            let table = (*node).pktable;
            (
                parser_text((*table).schemaname),
                parser_text((*table).relname).unwrap_or_default(),
            )
        });
        let columns = match kind {
            ConstraintKind::Foreign => names((*node).fk_attrs),
            _ => names((*node).keys),
        };
        Some(Constraint {
            kind,
            name,
            columns,
            references,
            body: text[body..end].trim_end().to_string(),
            not_valid: (*node).skip_validation,
            enforced: super::compat::is_enforced(&*node),
        })
    }
}
