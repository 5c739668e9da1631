//! Running a statement about other relations than it names: each mention is replaced in the parse tree, wherever it
//! stands. For statements that the server printed under our own search_path, where every name of a relation is qualified
//! and what is not is a name within the statement.

use super::compat::walk_raw_tree;
use super::parser::to_c;
use super::utility;
use crate::error::{Error, Result};
use crate::model::ident::QualifiedName;
use pgrx::pg_sys;
use std::ffi::{c_char, c_void, CStr, CString};

/// From the name in the statement to the name of the relation that is meant.
pub type Names = [(QualifiedName, QualifiedName)];

struct Replacement {
    from_schema: CString,
    from: CString,
    to_schema: CString,
    to: CString,
}

struct Replacements {
    list: Vec<Replacement>,
    /// Where functions are made instead.
    schema: CString,
}

/// Settings that the statements of `_transmute.dependents` make for their neighbours.
const SETTINGS: [&CStr; 2] = [c"default_tablespace", c"check_function_bodies"];

/// Runs one statement with these names replaced, functions in `schema`. False, and nothing is done, for a statement that
/// says nothing of columns and types: comments, privileges, and what names an index, as indexes get names of their own.
/// Event triggers do not fire: the relations are ours.
pub fn run(text: &str, names: &Names, schema: &str) -> Result<bool> {
    let source = to_c(text)?;
    let replacements = Replacements {
        list: names
            .iter()
            .map(|(from, to)| {
                Ok(Replacement {
                    from_schema: to_c(&from.schema)?,
                    from: to_c(&from.name)?,
                    to_schema: to_c(&to.schema)?,
                    to: to_c(&to.name)?,
                })
            })
            .collect::<Result<_>>()?,
        schema: to_c(schema)?,
    };
    // SAFETY: the tree is parsed, changed and run in the current memory context of the caller's transaction; strings
    // that are put into it live until the end of this function, after it was run.
    unsafe {
        let list = pg_sys::raw_parser(source.as_ptr(), pg_sys::RawParseMode::RAW_PARSE_DEFAULT);
        if pg_sys::list_length(list) != 1 {
            return Err(Error::Bug(format!("expected one statement: {text}")));
        }
        let raw = pg_sys::list_nth(list, 0).cast::<pg_sys::RawStmt>();
        if !retarget((*raw).stmt, &replacements, text)? {
            return Ok(false);
        }
        pg_sys::CommandCounterIncrement();
        // CREATE MATERIALIZED VIEW holds a query that the server wants analyzed; other statements come back as they are.
        let query = pg_sys::parse_analyze_fixedparams(
            raw,
            source.as_ptr(),
            std::ptr::null(),
            0,
            std::ptr::null_mut(),
        );
        (*raw).stmt = (*query).utilityStmt;
        utility::execute(
            raw,
            &source,
            pg_sys::ProcessUtilityContext::PROCESS_UTILITY_SUBCOMMAND,
        );
    }
    Ok(true)
}

/// Replaces what the statement is about, and every relation it mentions.
///
/// # Safety
/// `node` is a statement of the raw parser.
unsafe fn retarget(node: *mut pg_sys::Node, with: &Replacements, text: &str) -> Result<bool> {
    use pg_sys::NodeTag::*;
    // SAFETY: each cast follows the node's own tag.
    unsafe {
        let target = match (*node).type_ {
            T_ViewStmt => {
                let stmt = &mut *node.cast::<pg_sys::ViewStmt>();
                with.walk(stmt.query);
                stmt.view
            }
            T_CreateTableAsStmt => {
                let stmt = &mut *node.cast::<pg_sys::CreateTableAsStmt>();
                with.walk(stmt.query);
                (*stmt.into).rel
            }
            T_RefreshMatViewStmt => (*node.cast::<pg_sys::RefreshMatViewStmt>()).relation,
            T_IndexStmt => {
                let stmt = &mut *node.cast::<pg_sys::IndexStmt>();
                stmt.idxname = std::ptr::null_mut();
                stmt.relation
            }
            T_AlterTableStmt => {
                let stmt = &mut *node.cast::<pg_sys::AlterTableStmt>();
                if !with.prepare_alter(stmt) {
                    return Ok(false);
                }
                stmt.relation
            }
            T_CreateTrigStmt => {
                let stmt = &mut *node.cast::<pg_sys::CreateTrigStmt>();
                with.walk(stmt.whenClause);
                stmt.relation
            }
            T_RuleStmt => {
                let stmt = &mut *node.cast::<pg_sys::RuleStmt>();
                with.walk(stmt.whereClause);
                with.walk(stmt.actions.cast());
                stmt.relation
            }
            T_CreatePolicyStmt => {
                let stmt = &mut *node.cast::<pg_sys::CreatePolicyStmt>();
                with.walk(stmt.qual);
                with.walk(stmt.with_check);
                stmt.table
            }
            T_AlterPublicationStmt => {
                let stmt = &mut *node.cast::<pg_sys::AlterPublicationStmt>();
                let object =
                    pg_sys::list_nth(stmt.pubobjects, 0).cast::<pg_sys::PublicationObjSpec>();
                (*(*object).pubtable).relation
            }
            T_CreateFunctionStmt => {
                let stmt = &mut *node.cast::<pg_sys::CreateFunctionStmt>();
                with.walk(stmt.sql_body);
                let name = pg_sys::list_nth(stmt.funcname, pg_sys::list_length(stmt.funcname) - 1);
                let schema = pg_sys::makeString(with.schema.as_ptr().cast_mut());
                let list = pg_sys::lappend(std::ptr::null_mut(), schema.cast());
                stmt.funcname = pg_sys::lappend(list, name);
                return Ok(true);
            }
            T_VariableSetStmt => {
                let name = CStr::from_ptr((*node.cast::<pg_sys::VariableSetStmt>()).name);
                return Ok(SETTINGS.contains(&name));
            }
            _ => return Ok(false),
        };
        match with.rename(target) {
            true => Ok(true),
            false => Err(Error::Bug(format!("not about a known relation: {text}"))),
        }
    }
}

impl Replacements {
    /// Whether an ALTER is about columns and types; a foreign key gets its other side replaced.
    ///
    /// # Safety
    /// `stmt` is of the raw parser.
    #[allow(
        non_upper_case_globals,
        reason = "the server's own names of subcommands"
    )]
    unsafe fn prepare_alter(&self, stmt: &mut pg_sys::AlterTableStmt) -> bool {
        use pg_sys::AlterTableType::*;
        // SAFETY: `def` is read only under the subtype for which the grammar sets that node type.
        unsafe {
            if stmt.objtype == pg_sys::ObjectType::OBJECT_INDEX {
                return false;
            }
            for i in 0..pg_sys::list_length(stmt.cmds) {
                let command = pg_sys::list_nth(stmt.cmds, i).cast::<pg_sys::AlterTableCmd>();
                if matches!((*command).subtype, AT_ClusterOn | AT_ReplicaIdentity) {
                    return false;
                }
                if (*command).subtype == AT_AddConstraint {
                    let constraint = (*command).def.cast::<pg_sys::Constraint>();
                    if !(*constraint).pktable.is_null() {
                        self.rename((*constraint).pktable);
                    }
                }
            }
        }
        true
    }

    /// # Safety
    /// `node` is NULL or a node of the raw parser.
    unsafe fn walk(&self, node: *mut pg_sys::Node) {
        let context = std::ptr::from_ref(self).cast_mut().cast();
        // SAFETY: by the contract above; the context outlives the walk.
        unsafe { visit(node, context) };
    }

    /// Whether the relation is one of those to be replaced; it is then.
    ///
    /// # Safety
    /// `relation` is a RangeVar of the raw parser.
    unsafe fn rename(&self, relation: *mut pg_sys::RangeVar) -> bool {
        // SAFETY: names of a RangeVar are NULL or NUL-terminated.
        unsafe {
            let is = |name: *const c_char, known: &CStr| {
                !name.is_null() && CStr::from_ptr(name) == known
            };
            let found = self.list.iter().find(|r| {
                is((*relation).schemaname, &r.from_schema) && is((*relation).relname, &r.from)
            });
            let Some(replacement) = found else {
                return false;
            };
            (*relation).schemaname = replacement.to_schema.as_ptr().cast_mut();
            (*relation).relname = replacement.to.as_ptr().cast_mut();
            true
        }
    }
}

/// For the server's walker; from Rust it is `visit`, as what a guard catches it throws to C.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn replace(node: *mut pg_sys::Node, context: *mut c_void) -> bool {
    // SAFETY: as `visit`.
    unsafe { visit(node, context) }
}

/// Walks a raw parse tree. A relation that is replaced keeps its old name as alias, by which its columns are mentioned.
///
/// # Safety
/// `node` is NULL or a node of the raw parser, `context` that of `walk`.
unsafe fn visit(node: *mut pg_sys::Node, context: *mut c_void) -> bool {
    // SAFETY: by the contract above.
    unsafe {
        if node.is_null() || (*node).type_ == pg_sys::NodeTag::T_NotifyStmt {
            return false;
        }
        if (*node).type_ == pg_sys::NodeTag::T_RangeVar {
            let relation = node.cast::<pg_sys::RangeVar>();
            let name = (*relation).relname;
            let with = &*context.cast::<Replacements>();
            if with.rename(relation) && (*relation).alias.is_null() {
                (*relation).alias = pg_sys::makeAlias(name, std::ptr::null_mut());
            }
            return false;
        }
        if (*node).type_ == pg_sys::NodeTag::T_ReturnStmt {
            // RETURN of a function's body; the server's walker knows what a query holds only.
            return visit((*node.cast::<pg_sys::ReturnStmt>()).returnval, context);
        }
        walk_raw_tree(node, Some(replace), context)
    }
}
