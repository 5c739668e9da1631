//! The server's own conversion of a row: what ATPrepAlterColumnType and ATExecAddColumn prepare and
//! ATRewriteTable evaluates (tablecmds.c), between a table and the shadow that the ALTER was run on.

use super::compare::Compared;
use super::conversion::{conversions, is_injective, new_column, reads_any};
use super::direct;
use super::heap::Tid;
use super::relation::{LockMode, Table};
use super::spi::NamedValue;
use crate::error::{Error, Result};
use crate::model::address;
use pgrx::pg_sys;

pub(super) struct Computed {
    pub(super) attribute: usize,
    pub(super) state: *mut pg_sys::ExprState,
    /// Reads the new row (stored generated column), not the old one.
    pub(super) generated: bool,
    /// Two evaluations may differ, so the check leaves the column out: the expression is volatile, or it reads a column
    /// whose expression is.
    pub(super) volatile: bool,
    /// Different old values of this very column give different new values.
    injective: bool,
    /// The address of the old row: points into its slot.
    pub(super) is_address: bool,
}

/// Maps rows of `old` to rows of `new`. Attribute numbers agree (the shadow was made so), hence a
/// column without an expression is copied. Everything lives in the memory context current at `new`.
///
/// Build it inside the (sub)transaction that uses it: slots hold buffer pins of its resource owner.
pub struct RowMapper {
    pub(super) old: Table,
    pub(super) new: Table,
    pub(super) estate: *mut pg_sys::EState,
    pub(super) econtext: *mut pg_sys::ExprContext,
    pub(super) old_slot: *mut pg_sys::TupleTableSlot,
    pub(super) new_slot: *mut pg_sys::TupleTableSlot,
    /// A stored row of the shadow, for lookups.
    pub(super) shadow_slot: *mut pg_sys::TupleTableSlot,
    pub(super) result_info: *mut pg_sys::ResultRelInfo,
    /// Made at the first use: a logged key, and the same as a row of the table's shape.
    key_source: *mut pg_sys::TupleTableSlot,
    key_target: *mut pg_sys::TupleTableSlot,
    pub(super) computed: Vec<Computed>,
    /// Columns whose value the old row determines.
    pub(super) compared: Vec<Compared>,
    /// Columns of which nothing is stored.
    pub(super) dropped: Vec<usize>,
    not_null: Vec<usize>,
    has_checks: bool,
    pub(super) has_generated: bool,
    pub(super) old_width: usize,
    pub(super) new_width: usize,
    with_indexes: bool,
}

/// # Safety
/// `desc` is a valid descriptor and `i` within it.
pub(super) unsafe fn attribute<'a>(
    desc: pg_sys::TupleDesc,
    i: usize,
) -> &'a pg_sys::FormData_pg_attribute {
    // SAFETY: by the contract above.
    unsafe { &*super::compat::tuple_desc_attr(desc, i) }
}

/// Whether it is the column of the shadow that says where the row came from.
fn is_address(column: &pg_sys::FormData_pg_attribute) -> bool {
    column.atttypid == pg_sys::TIDOID && crate::pg::name(&column.attname) == address::COLUMN
}

impl RowMapper {
    /// `alter` is the DBA's ALTER TABLE; role and search_path are those it is to be understood with.
    /// `with_indexes` opens the shadow's indexes for `heap::insert_mapped`.
    pub fn new(
        old: pg_sys::Oid,
        new: pg_sys::Oid,
        alter: &str,
        with_indexes: bool,
    ) -> Result<RowMapper> {
        let old = Table::open(old, LockMode::AccessShare);
        let new = Table::open(new, LockMode::RowExclusive);
        for table in [&old, &new] {
            table.require_heap()?;
        }
        // SAFETY: both relations are open and stay so as long as the mapper lives.
        unsafe {
            let old_desc = (*old.0).rd_att;
            let new_desc = (*new.0).rd_att;
            let estate = pg_sys::CreateExecutorState();
            let econtext = pg_sys::MakePerTupleExprContext(estate);
            let previous = pg_sys::MemoryContextSwitchTo((*estate).es_query_cxt);
            let result_info = pg_sys::palloc0(std::mem::size_of::<pg_sys::ResultRelInfo>())
                .cast::<pg_sys::ResultRelInfo>();
            (*result_info).type_ = pg_sys::NodeTag::T_ResultRelInfo;
            // Range table index 0: no permission check and no RTE is wanted (ExecGetInsertedCols allows it).
            pg_sys::InitResultRelInfo(result_info, new.0, 0, std::ptr::null_mut(), 0);
            if with_indexes {
                pg_sys::ExecOpenIndices(result_info, false);
            }
            let mut mapper = RowMapper {
                estate,
                econtext,
                old_slot: pg_sys::table_slot_create(old.0, std::ptr::null_mut()),
                new_slot: pg_sys::MakeSingleTupleTableSlot(new_desc, &pg_sys::TTSOpsVirtual),
                shadow_slot: pg_sys::table_slot_create(new.0, std::ptr::null_mut()),
                result_info,
                key_source: std::ptr::null_mut(),
                key_target: std::ptr::null_mut(),
                computed: Vec::new(),
                compared: Vec::new(),
                dropped: Vec::new(),
                not_null: Vec::new(),
                has_checks: false,
                has_generated: false,
                old_width: (*old_desc).natts as usize,
                new_width: (*new_desc).natts as usize,
                with_indexes,
                old,
                new,
            };
            mapper.compile(alter)?;
            pg_sys::MemoryContextSwitchTo(previous);
            Ok(mapper)
        }
    }

    fn compile(&mut self, alter: &str) -> Result<()> {
        let conversions = conversions(&self.old, &self.new, alter)?;
        let mut expressions = Vec::new();
        // SAFETY: descriptors of open relations; expressions are planned by ExecPrepareExpr into the
        // executor state's context, which is current.
        unsafe {
            let old_desc = (*self.old.0).rd_att;
            let new_desc = (*self.new.0).rd_att;
            let constraints = (*new_desc).constr;
            self.has_checks = !constraints.is_null() && super::compat::checks_values(constraints);
            for i in 0..self.new_width {
                let target = attribute(new_desc, i);
                if target.attisdropped {
                    self.dropped.push(i);
                    continue;
                }
                if target.attnotnull {
                    self.not_null.push(i);
                }
                let generated =
                    target.attgenerated == pg_sys::ATTRIBUTE_GENERATED_STORED as std::ffi::c_char;
                let expression = if generated {
                    pg_sys::build_column_default(self.new.0, i as i32 + 1)
                } else if target.attgenerated != 0 {
                    self.dropped.push(i); // virtual: nothing is stored
                    continue;
                } else if let Some((_, expression)) =
                    conversions.iter().find(|(attribute, _)| *attribute == i)
                {
                    *expression
                } else if i >= self.old_width && is_address(target) {
                    pg_sys::makeVar(
                        1,
                        address::NUMBER,
                        pg_sys::TIDOID,
                        -1,
                        pg_sys::InvalidOid,
                        0,
                    )
                    .cast()
                } else if i >= self.old_width || attribute(old_desc, i).attisdropped {
                    new_column(&self.new, i)
                } else if attribute(old_desc, i).atttypid == target.atttypid
                    && attribute(old_desc, i).atttypmod == target.atttypmod
                {
                    continue;
                } else {
                    return Err(Error::Bug(format!(
                        "column {} changed without a conversion",
                        i + 1
                    )));
                };
                if !expression.is_null() {
                    expressions.push((i, expression, generated));
                }
            }
            let volatile: Vec<i16> = expressions
                .iter()
                .filter(|(i, expression, _)| {
                    if *i < self.old_width {
                        return pg_sys::contain_volatile_functions(*expression);
                    }
                    // The time of a transaction, too, is not that of the check's.
                    pg_sys::contain_mutable_functions(*expression)
                })
                .map(|(i, ..)| *i as i16 + 1)
                .collect();
            for (i, expression, generated) in expressions {
                self.computed.push(Computed {
                    attribute: i,
                    volatile: volatile.contains(&(i as i16 + 1))
                        || (generated && reads_any(expression, &volatile)),
                    injective: is_injective(expression, i as i16 + 1),
                    is_address: i >= self.old_width && is_address(attribute(new_desc, i)),
                    state: pg_sys::ExecPrepareExpr(expression.cast(), self.estate),
                    generated,
                });
            }
        }
        self.has_generated = self.computed.iter().any(|c| c.generated);
        self.compared = self.compared_columns();
        Ok(())
    }

    /// Maps the row in the old slot into the new slot and checks NOT NULL and CHECK constraints.
    pub fn map(&mut self) {
        // SAFETY: `map_unguarded` keeps to the rule; the old slot holds a row.
        unsafe { direct::guarded(|| self.map_unguarded()) }
    }

    /// # Safety
    /// Inside `direct::guarded`; the old slot holds a row of the table.
    #[inline(always)]
    pub(super) unsafe fn map_unguarded(&self) {
        // SAFETY: by the contract above.
        unsafe {
            self.convert();
            let nulls = (*self.new_slot).tts_isnull;
            if self.has_checks || self.not_null.iter().any(|i| *nulls.add(*i)) {
                direct::ExecConstraints(self.result_info, self.new_slot, self.estate);
            }
        }
    }

    /// # Safety
    /// As of `map_unguarded`.
    pub(super) unsafe fn convert(&self) {
        // SAFETY: by the contract above. The slots were made for these descriptors; values live until the per-row
        // context is reset or the old slot changes.
        unsafe {
            direct::get_all_attributes(self.old_slot);
            direct::clear(self.new_slot);
            let (from, to) = (self.old_slot, self.new_slot);
            let common = self.old_width.min(self.new_width);
            std::ptr::copy_nonoverlapping((*from).tts_values, (*to).tts_values, common);
            std::ptr::copy_nonoverlapping((*from).tts_isnull, (*to).tts_isnull, common);
            std::ptr::write_bytes((*to).tts_isnull.add(common), 1, self.new_width - common);
            for i in &self.dropped {
                *(*to).tts_isnull.add(*i) = true;
            }
            (*to).tts_tableOid = (*self.old.0).rd_id;
            (*self.econtext).ecxt_scantuple = from;
            self.evaluate(false);
            direct::store_virtual(to);
            if self.has_generated {
                (*self.econtext).ecxt_scantuple = to;
                self.evaluate(true);
            }
        }
    }

    /// # Safety
    /// As of `map_unguarded`, and the scan tuple of the context is set for the kind of expressions asked for.
    #[inline(always)]
    unsafe fn evaluate(&self, generated: bool) {
        for column in self.computed.iter().filter(|c| c.generated == generated) {
            // SAFETY: by the contract above; the attribute is within the new slot.
            unsafe {
                let (value, is_null) = direct::evaluate(column.state, self.econtext);
                *(*self.new_slot).tts_values.add(column.attribute) = value;
                *(*self.new_slot).tts_isnull.add(column.attribute) = is_null;
            }
        }
    }

    /// Whether different values of these columns (attribute numbers) stay different by their conversion.
    pub fn keeps_apart(&self, columns: &[i16]) -> bool {
        self.computed
            .iter()
            .filter(|c| columns.contains(&(c.attribute as i16 + 1)))
            .all(|c| c.injective)
    }

    /// Evaluates only the given (key) columns for the row in `slot`, which has the old shape and may
    /// hold nothing but these columns; the values are put into the new slot.
    pub(super) fn map_columns(&mut self, slot: *mut pg_sys::TupleTableSlot, columns: &[usize]) {
        // SAFETY: as in `map`; the planner made sure that expressions of key columns read key columns only.
        unsafe {
            pg_sys::slot_getallattrs(slot);
            pg_sys::ExecClearTuple(self.new_slot);
            for i in 0..self.new_width {
                *(*self.new_slot).tts_isnull.add(i) = true;
            }
            (*self.econtext).ecxt_scantuple = slot;
            for i in columns {
                let (value, is_null) = match self.computed.iter().find(|c| c.attribute == *i) {
                    Some(column) => {
                        let mut is_null = false;
                        let value = pg_sys::ExecEvalExprSwitchContext(
                            column.state,
                            self.econtext,
                            &mut is_null,
                        );
                        (value, is_null)
                    }
                    None => (*(*slot).tts_values.add(*i), *(*slot).tts_isnull.add(*i)),
                };
                *(*self.new_slot).tts_values.add(*i) = value;
                *(*self.new_slot).tts_isnull.add(*i) = is_null;
            }
            pg_sys::ExecStoreVirtualTuple(self.new_slot);
        }
    }

    /// A virtual row of the table's shape that holds just a key: the minimal tuple `words` of shape
    /// `desc`, column for column of `columns` (attribute numbers). Points into `words`.
    pub(super) fn key_slot(
        &mut self,
        desc: pg_sys::TupleDesc,
        words: &[u64],
        columns: &[i16],
    ) -> *mut pg_sys::TupleTableSlot {
        // SAFETY: `words` is a minimal tuple of `desc`, aligned to 8 bytes; it outlives the use of the
        // slot (callers hold the key). ExecStoreMinimalTuple does not take ownership.
        unsafe {
            if self.key_source.is_null() {
                let previous = pg_sys::MemoryContextSwitchTo((*self.estate).es_query_cxt);
                self.key_source =
                    pg_sys::MakeSingleTupleTableSlot(desc, &pg_sys::TTSOpsMinimalTuple);
                self.key_target =
                    pg_sys::MakeSingleTupleTableSlot((*self.old.0).rd_att, &pg_sys::TTSOpsVirtual);
                pg_sys::MemoryContextSwitchTo(previous);
            }
            let tuple = words.as_ptr().cast_mut().cast::<pg_sys::MinimalTupleData>();
            pg_sys::ExecStoreMinimalTuple(tuple, self.key_source, false);
            pg_sys::slot_getallattrs(self.key_source);
            pg_sys::ExecClearTuple(self.key_target);
            for i in 0..self.old_width {
                *(*self.key_target).tts_isnull.add(i) = true;
            }
            pg_sys::ExecStoreVirtualTuple(self.key_target);
            for (from, number) in columns.iter().enumerate() {
                let value = *(*self.key_source).tts_values.add(from);
                if *number == address::NUMBER {
                    (*self.key_target).tts_tid = *value.cast_mut_ptr::<pg_sys::ItemPointerData>();
                    continue;
                }
                let to = (*number - 1) as usize;
                *(*self.key_target).tts_values.add(to) = value;
                *(*self.key_target).tts_isnull.add(to) = *(*self.key_source).tts_isnull.add(from);
            }
            self.key_target
        }
    }

    pub(super) fn text_of(&self, slot: *mut pg_sys::TupleTableSlot, columns: &[i16]) -> String {
        // SAFETY: the slot has the table's shape.
        unsafe { slot_text(slot, (*self.old.0).rd_att, columns) }
    }

    /// The values of these columns, none of which is NULL, as text.
    pub(super) fn values_of(
        &self,
        slot: *mut pg_sys::TupleTableSlot,
        columns: &[i16],
    ) -> Vec<String> {
        let text = |number: &i16| {
            // SAFETY: the slot has the table's shape, with all values of these columns set.
            unsafe { value_text(slot, (*self.old.0).rd_att, (*number - 1) as usize) }
        };
        columns.iter().filter_map(text).collect()
    }

    /// Text of the key columns of the row in the table's slot: `(a, b)=(1, x)`.
    pub fn key_text(&self, columns: &[i16]) -> String {
        // SAFETY: the slot holds a row of the table.
        unsafe { slot_text(self.old_slot, (*self.old.0).rd_att, columns) }
    }

    /// Every column of the row in the table's slot, as text.
    pub fn row_values(&self) -> Vec<NamedValue> {
        // SAFETY: the slot holds a row of the table.
        unsafe { slot_values(self.old_slot, (*self.old.0).rd_att) }
    }

    pub(super) fn row_context(&self) -> pg_sys::MemoryContext {
        // SAFETY: the context lives as long as the executor state.
        unsafe { (*self.econtext).ecxt_per_tuple_memory }
    }

    /// Lets go of the page that the table's slot points into.
    pub(super) fn release(&mut self) {
        // SAFETY: the slot was made by this mapper.
        unsafe { pg_sys::ExecClearTuple(self.old_slot) };
    }

    /// Frees what the last row needed.
    pub fn reset(&mut self) {
        // SAFETY: nothing of the previous row is used after this.
        unsafe { pg_sys::MemoryContextReset(self.row_context()) }
    }
}

impl Drop for RowMapper {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return; // the abort that follows frees all of it
        }
        // SAFETY: made in `new`; slots go before the relations, which close after this.
        unsafe {
            pg_sys::ExecDropSingleTupleTableSlot(self.old_slot);
            pg_sys::ExecDropSingleTupleTableSlot(self.new_slot);
            pg_sys::ExecDropSingleTupleTableSlot(self.shadow_slot);
            if !self.key_source.is_null() {
                pg_sys::ExecDropSingleTupleTableSlot(self.key_source);
                pg_sys::ExecDropSingleTupleTableSlot(self.key_target);
            }
            if self.with_indexes {
                pg_sys::ExecCloseIndices(self.result_info);
            }
            pg_sys::FreeExecutorState(self.estate);
        }
    }
}

/// Names and values of all columns that are there, through the types' output functions.
///
/// # Safety
/// `slot` holds a row of shape `desc`.
unsafe fn slot_values(
    slot: *mut pg_sys::TupleTableSlot,
    desc: pg_sys::TupleDesc,
) -> Vec<NamedValue> {
    // SAFETY: by the contract above; attribute numbers are within the descriptor.
    unsafe {
        pg_sys::slot_getallattrs(slot);
        (0..(*desc).natts as usize)
            .filter(|i| !attribute(desc, *i).attisdropped)
            .map(|i| {
                let name = crate::pg::name(&attribute(desc, i).attname);
                (name, value_text(slot, desc, i))
            })
            .collect()
    }
}

/// # Safety
/// `slot` holds a row of shape `desc`, all its attributes taken apart; `i` is within it.
unsafe fn value_text(
    slot: *mut pg_sys::TupleTableSlot,
    desc: pg_sys::TupleDesc,
    i: usize,
) -> Option<String> {
    // SAFETY: by the contract above; output functions return NUL-terminated strings.
    unsafe {
        if *(*slot).tts_isnull.add(i) {
            return None;
        }
        let (mut function, mut varlena) = (pg_sys::InvalidOid, false);
        pg_sys::getTypeOutputInfo(attribute(desc, i).atttypid, &mut function, &mut varlena);
        let text = pg_sys::OidOutputFunctionCall(function, *(*slot).tts_values.add(i));
        let owned = std::ffi::CStr::from_ptr(text)
            .to_string_lossy()
            .into_owned();
        pg_sys::pfree(text.cast());
        Some(owned)
    }
}

/// `(columns)=(values)` for messages.
///
/// # Safety
/// `slot` holds a row of shape `desc`; attribute numbers are valid.
pub(super) unsafe fn slot_text(
    slot: *mut pg_sys::TupleTableSlot,
    desc: pg_sys::TupleDesc,
    columns: &[i16],
) -> String {
    let (mut names, mut values) = (Vec::new(), Vec::new());
    for number in columns {
        if *number == address::NUMBER {
            // SAFETY: by the contract above.
            let tid = unsafe { Tid::of_slot(slot) };
            names.push("ctid".into());
            values.push(format!("({},{})", tid.block, tid.offset));
            continue;
        }
        let i = (*number - 1) as usize;
        // SAFETY: by the contract above.
        unsafe {
            pg_sys::slot_getallattrs(slot);
            names.push(crate::pg::name(&attribute(desc, i).attname));
            values.push(value_text(slot, desc, i).unwrap_or_else(|| "null".into()));
        }
    }
    format!("({})=({})", names.join(", "), values.join(", "))
}
