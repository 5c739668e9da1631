//! Running data statements, whole or over a part of their rows. The restriction goes into the parse tree, so the rest stays
//! as the DBA wrote it; analysed, planned and run as execute_sql_string (extension.c) does it.

use super::compat;
use super::heap::Snapshot;
use super::parser::{text, to_c};
use crate::error::{Error, Result};
use crate::model::ident::{quote_ident, QualifiedName};
use pgrx::pg_sys;
use std::ffi::CString;

/// The one statement of a text, parsed.
pub(super) struct Parsed {
    source: CString,
    pub(super) raw: *mut pg_sys::RawStmt,
}

pub(super) fn parse(sql: &str) -> Result<Parsed> {
    let source = to_c(sql)?;
    // SAFETY: raw_parser reads a NUL-terminated string; the nodes live in the current memory context.
    unsafe {
        let list = pg_sys::raw_parser(source.as_ptr(), pg_sys::RawParseMode::RAW_PARSE_DEFAULT);
        if pg_sys::list_length(list) != 1 {
            return Err(Error::Bug(format!("expected one statement: {sql}")));
        }
        let raw = pg_sys::list_nth(list, 0).cast();
        Ok(Parsed { source, raw })
    }
}

/// Where a statement names the rows it goes through.
pub(super) struct Driver {
    pub(super) relation: *mut pg_sys::RangeVar,
    pub(super) condition: *mut *mut pg_sys::Node,
    others: *mut pg_sys::List,
    with: *mut pg_sys::WithClause,
}

impl Driver {
    /// The name that the statement itself may use for it.
    ///
    /// # Safety
    /// `relation` is a RangeVar of the raw parser.
    unsafe fn name(&self) -> String {
        // SAFETY: by the contract above.
        unsafe {
            let relation = &*self.relation;
            if !relation.alias.is_null() {
                return quote_ident(&text((*relation.alias).aliasname).unwrap_or_default());
            }
            let name = text(relation.relname).unwrap_or_default();
            match text(relation.schemaname) {
                Some(schema) => QualifiedName::new(schema, name).to_string(),
                None => quote_ident(&name),
            }
        }
    }
}

/// The driver of a statement, or why it has none.
///
/// # Safety
/// `raw` is a statement of the raw parser.
pub(super) unsafe fn driver(
    raw: *mut pg_sys::RawStmt,
) -> std::result::Result<Driver, &'static str> {
    // SAFETY: each cast follows the node's own tag.
    unsafe {
        let node = (*raw).stmt;
        match (*node).type_ {
            pg_sys::NodeTag::T_UpdateStmt => {
                let stmt = node.cast::<pg_sys::UpdateStmt>();
                Ok(Driver {
                    relation: (*stmt).relation,
                    condition: &raw mut (*stmt).whereClause,
                    others: (*stmt).fromClause,
                    with: (*stmt).withClause,
                })
            }
            pg_sys::NodeTag::T_DeleteStmt => {
                let stmt = node.cast::<pg_sys::DeleteStmt>();
                Ok(Driver {
                    relation: (*stmt).relation,
                    condition: &raw mut (*stmt).whereClause,
                    others: (*stmt).usingClause,
                    with: (*stmt).withClause,
                })
            }
            pg_sys::NodeTag::T_InsertStmt => source(node.cast()),
            _ => Err("only UPDATE, DELETE and INSERT … SELECT go row by row"),
        }
    }
}

/// The one table that an INSERT … SELECT reads row by row.
///
/// # Safety
/// `stmt` is an InsertStmt of the raw parser.
unsafe fn source(stmt: *mut pg_sys::InsertStmt) -> std::result::Result<Driver, &'static str> {
    // SAFETY: by the contract above; casts follow the tags.
    unsafe {
        let select = (*stmt).selectStmt.cast::<pg_sys::SelectStmt>();
        if select.is_null() || !(*select).valuesLists.is_null() {
            return Err("it inserts values, not the rows of a table");
        }
        let s = &*select;
        let plain = s.op == pg_sys::SetOperation::SETOP_NONE
            && s.distinctClause.is_null()
            && s.groupClause.is_null()
            && s.havingClause.is_null()
            && s.sortClause.is_null()
            && s.limitOffset.is_null()
            && s.limitCount.is_null()
            && s.lockingClause.is_null();
        if !plain || pg_sys::list_length(s.fromClause) != 1 {
            return Err("its SELECT is more than rows of one table");
        }
        let item = pg_sys::list_nth(s.fromClause, 0).cast::<pg_sys::Node>();
        if (*item).type_ != pg_sys::NodeTag::T_RangeVar
            || !(*stmt).withClause.is_null()
            || !s.withClause.is_null()
        {
            return Err("its SELECT is more than rows of one table");
        }
        Ok(Driver {
            relation: item.cast(),
            condition: &raw mut (*select).whereClause,
            others: std::ptr::null_mut(),
            with: std::ptr::null_mut(),
        })
    }
}

/// # Safety
/// Inside a transaction.
pub(super) unsafe fn analyse(parsed: &Parsed) -> *mut pg_sys::List {
    // SAFETY: by the contract above; no parameters.
    unsafe {
        pg_sys::CommandCounterIncrement();
        pg_sys::pg_analyze_and_rewrite_fixedparams(
            parsed.raw,
            parsed.source.as_ptr(),
            std::ptr::null(),
            0,
            std::ptr::null_mut(),
        )
    }
}

/// # Safety
/// `queries` come from `analyse`; a snapshot is active.
pub(super) unsafe fn plan(queries: *mut pg_sys::List, parsed: &Parsed) -> *mut pg_sys::List {
    // SAFETY: by the contract above.
    unsafe { pg_sys::pg_plan_queries(queries, parsed.source.as_ptr(), 0, std::ptr::null_mut()) }
}

/// # Safety
/// `planned` is a plan; a snapshot is active.
pub(super) unsafe fn query_desc(
    planned: *mut pg_sys::PlannedStmt,
    parsed: &Parsed,
) -> *mut pg_sys::QueryDesc {
    // SAFETY: by the contract above.
    unsafe {
        pg_sys::CreateQueryDesc(
            planned,
            parsed.source.as_ptr(),
            pg_sys::GetActiveSnapshot(),
            std::ptr::null_mut(),
            pg_sys::CreateDestReceiver(pg_sys::CommandDest::DestNone),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            0,
        )
    }
}

/// The name under which a statement's own conditions may speak of its driver.
pub fn driver_name(sql: &str) -> Result<String> {
    let parsed = parse(sql)?;
    // SAFETY: nodes of this memory context.
    unsafe {
        driver(parsed.raw)
            .map(|d| d.name())
            .map_err(|why| Error::Bug(format!("no driver, {why}: {sql}")))
    }
}

/// Runs the statement as it stands; how many rows it touched.
pub fn run(sql: &str) -> Result<i64> {
    let parsed = parse(sql)?;
    // SAFETY: nodes of this memory context.
    unsafe { execute(&parsed, None, |_| true) }.map(|rows| rows.unwrap_or(0))
}

/// Runs the statement over the rows that `snapshot` sees.
pub fn run_as_of(sql: &str, snapshot: Snapshot) -> Result<i64> {
    let parsed = parse(sql)?;
    // SAFETY: nodes of this memory context.
    unsafe { execute(&parsed, Some(snapshot), |_| true) }.map(|rows| rows.unwrap_or(0))
}

/// Runs the statement over those of its rows for which `condition` holds too, as `snapshot` sees them.
pub fn run_where(sql: &str, condition: &str, snapshot: Snapshot) -> Result<i64> {
    let parsed = parse(sql)?;
    let extra = parse(&format!("SELECT WHERE {condition}"))?;
    // SAFETY: nodes of this memory context; the second text is a SELECT.
    unsafe {
        let driver =
            driver(parsed.raw).map_err(|why| Error::Bug(format!("no driver, {why}: {sql}")))?;
        let select = (*extra.raw).stmt.cast::<pg_sys::SelectStmt>();
        let own = *driver.condition;
        *driver.condition = if own.is_null() {
            (*select).whereClause
        } else {
            let both = pg_sys::lcons(
                own.cast(),
                pg_sys::lcons((*select).whereClause.cast(), std::ptr::null_mut()),
            );
            pg_sys::makeBoolExpr(pg_sys::BoolExprType::AND_EXPR, both, -1).cast()
        };
        execute(&parsed, Some(snapshot), |_| true).map(|rows| rows.unwrap_or(0))
    }
}

/// Writes place and the given columns of the rows that the statement goes through into `list`, in the order in which they
/// lie; how many.
pub fn list_rows(sql: &str, columns: &[String], list: &QualifiedName) -> Result<i64> {
    // Where the plan reads in that order anyway no sort is paid for.
    if let Some(rows) = insert_rows(sql, columns, list, "")? {
        return Ok(rows);
    }
    insert_rows(sql, columns, list, " ORDER BY 1")?
        .ok_or_else(|| Error::Bug("a sorted list is not sorted".into()))
}

/// `None`: the plan does not give the rows in their order; nothing was written.
fn insert_rows(
    sql: &str,
    columns: &[String],
    list: &QualifiedName,
    order: &str,
) -> Result<Option<i64>> {
    let parsed = parse(sql)?;
    // SAFETY: nodes of this memory context; the INSERT has a SELECT without FROM, into which the statement's own parts go.
    unsafe {
        let driver =
            driver(parsed.raw).map_err(|why| Error::Bug(format!("no driver, {why}: {sql}")))?;
        let name = driver.name();
        let columns: Vec<String> = std::iter::once("ctid")
            .chain(columns.iter().map(String::as_str))
            .map(|c| format!("{name}.{c}"))
            .collect();
        // Another table may meet a row more than once.
        let distinct = match driver.others.is_null() {
            true => "",
            false => "DISTINCT ",
        };
        let insert = parse(&format!(
            "INSERT INTO {list} SELECT {distinct}{}{order}",
            columns.join(", ")
        ))?;
        let stmt = (*insert.raw).stmt.cast::<pg_sys::InsertStmt>();
        let select = (*stmt).selectStmt.cast::<pg_sys::SelectStmt>();
        (*select).fromClause = pg_sys::lcons(driver.relation.cast(), driver.others);
        (*select).whereClause = *driver.condition;
        (*select).withClause = driver.with;
        // Locations point into the statement's own text.
        let parsed = Parsed {
            source: parsed.source,
            raw: insert.raw,
        };
        execute(&parsed, None, |planned| {
            !order.is_empty() || reads_in_order(planned)
        })
    }
}

/// Whether an INSERT … SELECT gets its rows in the order of their places.
///
/// # Safety
/// `planned` comes from the planner.
unsafe fn reads_in_order(planned: *mut pg_sys::PlannedStmt) -> bool {
    // SAFETY: by the contract above.
    unsafe {
        let source = (*(*planned).planTree).lefttree;
        !source.is_null()
            && matches!(
                (*source).type_,
                pg_sys::NodeTag::T_SeqScan | pg_sys::NodeTag::T_BitmapHeapScan
            )
    }
}

/// Runs it if its plans are `acceptable`; `None` if not. Rows are those that `snapshot` sees; without one, a new one's.
///
/// # Safety
/// `parsed` is of the current memory context.
unsafe fn execute(
    parsed: &Parsed,
    snapshot: Option<Snapshot>,
    acceptable: impl Fn(*mut pg_sys::PlannedStmt) -> bool,
) -> Result<Option<i64>> {
    // SAFETY: by the contract above; the context holds everything made on the way and goes at the end, or with its parent
    // after an ERROR; the snapshot is pushed and popped in balance.
    unsafe {
        let outer = pg_sys::CurrentMemoryContext;
        let context = pg_sys::AllocSetContextCreateExtended(
            outer,
            c"transmute data statement".as_ptr(),
            pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
            pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
            pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
        );
        pg_sys::MemoryContextSwitchTo(context);
        pg_sys::CommandCounterIncrement();
        match snapshot {
            Some(snapshot) => pg_sys::PushCopiedSnapshot(snapshot.0),
            None => pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot()),
        }
        let plans = plan(analyse(parsed), parsed);
        let mut rows = Some(0);
        let mut utility = false;
        for i in 0..pg_sys::list_length(plans) {
            let planned = pg_sys::list_nth(plans, i).cast::<pg_sys::PlannedStmt>();
            if (*planned).commandType == pg_sys::CmdType::CMD_UTILITY {
                utility = true;
                break;
            }
            if !acceptable(planned) {
                rows = None;
                break;
            }
            pg_sys::CommandCounterIncrement();
            if snapshot.is_none() {
                pg_sys::UpdateActiveSnapshotCommandId();
            }
            let desc = query_desc(planned, parsed);
            pg_sys::ExecutorStart(desc, 0);
            compat::executor_run(desc);
            if (*planned).canSetTag {
                rows = rows.map(|n| n + (*(*desc).estate).es_processed as i64);
            }
            pg_sys::ExecutorFinish(desc);
            pg_sys::ExecutorEnd(desc);
            pg_sys::FreeQueryDesc(desc);
        }
        pg_sys::PopActiveSnapshot();
        pg_sys::CommandCounterIncrement();
        pg_sys::MemoryContextSwitchTo(outer);
        pg_sys::MemoryContextDelete(context);
        if utility {
            return Err(Error::Unsupported {
                problem: "a rule of the table runs a utility statement".into(),
                detail: "Such as NOTIFY, on a table that a data statement writes.".into(),
                hint: "Run the statement by itself outside of transmute.".into(),
            });
        }
        Ok(rows)
    }
}

/// The transaction, or subtransaction, that writes now.
pub fn current_xid() -> u32 {
    // SAFETY: inside a transaction; assigns the id if it has none yet.
    u32::from(unsafe { pg_sys::GetCurrentTransactionId() })
}

/// WAL that this process has written, bytes.
pub fn wal_written() -> u64 {
    // SAFETY: plain read of the process's own counter.
    unsafe { pg_sys::pgWalUsage.wal_bytes }
}
