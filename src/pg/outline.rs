//! What a data statement reads and writes, and what speaks against running it a part at a time.

use super::dml::{analyse, driver, parse, plan, query_desc, Parsed};
use crate::error::{Error, Result};
use pgrx::pg_sys;

/// What the server makes of a data statement.
#[derive(Debug, Clone)]
pub struct Outline {
    /// The table it writes, as named.
    pub target: pg_sys::Oid,
    /// The relation whose rows it goes through: the target of UPDATE and DELETE, the source of INSERT … SELECT.
    pub driver: Option<pg_sys::Oid>,
    /// Attribute numbers that an UPDATE assigns.
    pub assigned: Vec<i16>,
    /// ONLY was written of the driver.
    pub only: bool,
    /// Rows that it means, as the planner guesses.
    pub rows: i64,
    /// Why its rows cannot be taken a part at a time; `None`: nothing in the statement speaks against it.
    pub obstacle: Option<&'static str>,
}

/// The relation a statement writes.
///
/// # Safety
/// `raw` is a statement of the raw parser.
unsafe fn target(raw: *mut pg_sys::RawStmt) -> Option<*mut pg_sys::RangeVar> {
    // SAFETY: each cast follows the node's own tag.
    unsafe {
        let node = (*raw).stmt;
        Some(match (*node).type_ {
            pg_sys::NodeTag::T_UpdateStmt => (*node.cast::<pg_sys::UpdateStmt>()).relation,
            pg_sys::NodeTag::T_DeleteStmt => (*node.cast::<pg_sys::DeleteStmt>()).relation,
            pg_sys::NodeTag::T_InsertStmt => (*node.cast::<pg_sys::InsertStmt>()).relation,
            pg_sys::NodeTag::T_MergeStmt => (*node.cast::<pg_sys::MergeStmt>()).relation,
            _ => return None,
        })
    }
}

/// Analyses and plans a statement and asks the executor whether the current role may run it, without running it.
/// It locks what it names: call it in a subtransaction that is undone.
pub fn of(sql: &str) -> Result<Outline> {
    let parsed = parse(sql)?;
    // SAFETY: nodes of this memory context; names are resolved under the caller's search_path.
    unsafe {
        let named = target(parsed.raw).ok_or_else(|| Error::Bug(format!("no target: {sql}")))?;
        let found = driver(parsed.raw);
        if let Ok(driver) = &found {
            let condition = *driver.condition;
            if !condition.is_null() && (*condition).type_ == pg_sys::NodeTag::T_CurrentOfExpr {
                return Err(Error::Unsupported {
                    problem: "WHERE CURRENT OF needs a cursor of its own session".into(),
                    detail: "A migration has none.".into(),
                    hint: "Say by a condition which rows are meant.".into(),
                });
            }
        }
        let (driver_var, only, mut obstacle) = match &found {
            Ok(driver) => (driver.relation, !(*driver.relation).inh, None),
            Err(why) => (std::ptr::null_mut(), false, Some(*why)),
        };
        let resolve = |var: *mut pg_sys::RangeVar| {
            pg_sys::RangeVarGetRelidExtended(
                var,
                pg_sys::NoLock as i32,
                pg_sys::RVROption::RVR_MISSING_OK,
                None,
                std::ptr::null_mut(),
            )
        };
        let target = resolve(named);
        let driver_oid = (!driver_var.is_null()).then(|| resolve(driver_var));
        let queries = analyse(&parsed);
        if pg_sys::list_length(queries) != 1 {
            obstacle = obstacle.or(Some("rules of the table make other statements of it"));
        }
        let mut assigned = Vec::new();
        if pg_sys::list_length(queries) > 0 {
            let query = pg_sys::list_nth(queries, 0).cast::<pg_sys::Query>();
            obstacle = obstacle.or_else(|| obstacle_in(query));
            if (*query).commandType == pg_sys::CmdType::CMD_UPDATE {
                for i in 0..pg_sys::list_length((*query).targetList) {
                    let entry =
                        pg_sys::list_nth((*query).targetList, i).cast::<pg_sys::TargetEntry>();
                    if !(*entry).resjunk {
                        assigned.push((*entry).resno);
                    }
                }
            }
        }
        let plans = plan(queries, &parsed);
        let mut rows = 0.0;
        for i in 0..pg_sys::list_length(plans) {
            let planned = pg_sys::list_nth(plans, i).cast::<pg_sys::PlannedStmt>();
            if reads_what_it_writes(planned) {
                obstacle = obstacle.or(Some("it reads the table that it writes"));
            }
            let source = match (*planned).planTree.is_null() {
                true => std::ptr::null_mut(),
                false => (*(*planned).planTree).lefttree,
            };
            if (*planned).canSetTag && !source.is_null() {
                rows = (*source).plan_rows;
            }
            if (*planned).commandType != pg_sys::CmdType::CMD_UTILITY {
                may_run(planned, &parsed);
            }
        }
        Ok(Outline {
            target,
            driver: driver_oid.filter(|oid| *oid != pg_sys::InvalidOid),
            assigned,
            only,
            rows: rows as i64,
            obstacle,
        })
    }
}

/// What in an analysed statement speaks against evaluating it a part at a time.
///
/// # Safety
/// `query` is an analysed Query that the planner has not seen.
unsafe fn obstacle_in(query: *mut pg_sys::Query) -> Option<&'static str> {
    // SAFETY: by the contract above; contain_volatile_functions only reads.
    unsafe {
        let volatile = Some("a function that decides which rows are meant is volatile");
        if (*query).hasModifyingCTE {
            return Some("a WITH query of it writes");
        }
        if pg_sys::contain_volatile_functions((*query).jointree.cast()) {
            return volatile;
        }
        let inserts = (*query).commandType == pg_sys::CmdType::CMD_INSERT;
        for i in 0..pg_sys::list_length((*query).rtable) {
            let entry = pg_sys::list_nth((*query).rtable, i).cast::<pg_sys::RangeTblEntry>();
            match (*entry).rtekind {
                pg_sys::RTEKind::RTE_SUBQUERY if inserts => {
                    let select = (*entry).subquery;
                    if (*select).hasAggs || (*select).hasWindowFuncs {
                        return Some("its SELECT is more than rows of one table");
                    }
                    if let Some(why) = obstacle_in(select) {
                        return Some(why);
                    }
                }
                pg_sys::RTEKind::RTE_SUBQUERY
                    if pg_sys::contain_volatile_functions((*entry).subquery.cast()) =>
                {
                    return volatile
                }
                pg_sys::RTEKind::RTE_FUNCTION
                    if pg_sys::contain_volatile_functions((*entry).functions.cast()) =>
                {
                    return volatile
                }
                _ => {}
            }
        }
        for i in 0..pg_sys::list_length((*query).cteList) {
            let cte = pg_sys::list_nth((*query).cteList, i).cast::<pg_sys::CommonTableExpr>();
            if pg_sys::contain_volatile_functions((*cte).ctequery) {
                return volatile;
            }
        }
        None
    }
}

/// Whether a relation stands twice in the range table of a plan, views and partitions expanded: then what one batch wrote
/// would be read by the next.
///
/// # Safety
/// `planned` comes from the planner.
unsafe fn reads_what_it_writes(planned: *mut pg_sys::PlannedStmt) -> bool {
    // SAFETY: by the contract above.
    unsafe {
        let mut written = Vec::new();
        let mut all = Vec::new();
        for i in 0..pg_sys::list_length((*planned).rtable) {
            let entry = pg_sys::list_nth((*planned).rtable, i).cast::<pg_sys::RangeTblEntry>();
            // EXCLUDED of an ON CONFLICT has the target's oid, and is no table.
            if (*entry).rtekind != pg_sys::RTEKind::RTE_RELATION
                || (*entry).relkind == pg_sys::RELKIND_COMPOSITE_TYPE as std::ffi::c_char
            {
                continue;
            }
            // What is written is locked so; a view in between is no table.
            if (*entry).rellockmode == pg_sys::RowExclusiveLock as i32 {
                written.push((*entry).relid);
            }
            all.push((*entry).relid);
        }
        written
            .iter()
            .any(|oid| all.iter().filter(|other| *other == oid).count() > 1)
    }
}

/// An ERROR unless the current role may run the plan.
///
/// # Safety
/// As `query_desc`.
unsafe fn may_run(planned: *mut pg_sys::PlannedStmt, parsed: &Parsed) {
    // SAFETY: by the contract above; EXPLAIN_ONLY starts nothing.
    unsafe {
        let desc = query_desc(planned, parsed);
        pg_sys::ExecutorStart(desc, pg_sys::EXEC_FLAG_EXPLAIN_ONLY as i32);
        pg_sys::ExecutorEnd(desc);
        pg_sys::FreeQueryDesc(desc);
    }
}
