//! A rule as this process evaluates it: compiled at its first row, and again when the table, or a function, type or
//! operator, has changed.

use crate::error::{Error, Result};
use crate::model::rule::{Argument, Assignment};
use crate::pg::expression::{canonical, Scope, NOT_OF_A_ROW};
use crate::pg::parser::to_c;
use crate::pg::relation::{LockMode, Table};
use crate::pg::ErrorReport;
use crate::pg::{direct, generated, identity};
use pgrx::pg_sys;
use std::cell::Cell;
use std::ffi::{c_int, CStr};

/// A column of the rule.
pub(super) struct Column {
    /// From 0.
    pub attribute: usize,
    pub name: String,
    pub by_value: bool,
    pub length: i32,
    /// What it gets where nobody gives it a value; `None`: NULL.
    default: Option<pg_sys::Datum>,
}

/// The expressions of one direction.
pub(super) struct Direction {
    pub columns: Vec<Column>,
    /// The same, as the server counts.
    numbers: Vec<c_int>,
    states: Vec<*mut pg_sys::ExprState>,
    econtext: *mut pg_sys::ExprContext,
    values: *mut pg_sys::Datum,
    nulls: *mut bool,
}

pub(super) struct Compiled {
    trigger: pg_sys::Oid,
    relation: pg_sys::Oid,
    valid: Cell<bool>,
    in_use: Cell<bool>,
    /// Everything of the server's that it is made of.
    memory: pg_sys::MemoryContext,
    next: Cell<*mut Compiled>,
    pub argument: Argument,
    pub two_way: bool,
    pub sets_aside: bool,
    pub follows: bool,
    /// The last attribute that is looked at, from 1.
    pub last_attribute: i32,
    sources: Vec<Column>,
    pub key: Vec<Column>,
    pub forth: Direction,
    pub back: Direction,
}

thread_local! {
    static FIRST: Cell<*mut Compiled> = const { Cell::new(std::ptr::null_mut()) };
    /// Counts what was changed under us: a rule that was compiled meanwhile is not to be kept.
    static CHANGES: Cell<u64> = const { Cell::new(0) };
    static WATCHING: Cell<bool> = const { Cell::new(false) };
}

/// A rule in use; it is free again when this goes, also by an ERROR.
pub(super) struct InUse(*const Compiled);

impl Drop for InUse {
    fn drop(&mut self) {
        // SAFETY: a rule in use is not freed.
        unsafe { (*self.0).in_use.set(false) }
    }
}

/// A rule of the list.
pub(super) struct Found(*const Compiled);

impl std::ops::Deref for Found {
    type Target = Compiled;
    fn deref(&self) -> &Compiled {
        // SAFETY: rules are freed by `find` only, and not while they are in use.
        unsafe { &*self.0 }
    }
}

impl Found {
    pub fn enter(&self) -> InUse {
        self.in_use.set(true);
        InUse(self.0)
    }
}

/// The rule of a trigger that nobody in this process is evaluating: an expression may write to its own table.
///
/// # Safety
/// `data` is what the trigger manager passes.
pub(super) unsafe fn find(data: &pg_sys::TriggerData) -> Found {
    // SAFETY: the list holds rules that `compile` made; those that are neither valid nor in use go here.
    unsafe {
        let trigger = (*data.tg_trigger).tgoid;
        let mut current = FIRST.get();
        let mut previous: *mut Compiled = std::ptr::null_mut();
        while !current.is_null() {
            let rule = &*current;
            let next = rule.next.get();
            if !rule.in_use.get() {
                if rule.valid.get() && rule.trigger == trigger {
                    return Found(current);
                }
                if !rule.valid.get() {
                    match previous.is_null() {
                        true => FIRST.set(next),
                        false => (*previous).next.set(next),
                    }
                    pg_sys::MemoryContextDelete(rule.memory);
                    drop(Box::from_raw(current));
                    current = next;
                    continue;
                }
            }
            previous = current;
            current = next;
        }
        match compile(data) {
            Ok(rule) => {
                rule.next.set(FIRST.get());
                let rule = Box::into_raw(rule);
                FIRST.set(rule);
                Found(rule)
            }
            Err(error) => {
                ErrorReport::from(error).report(pgrx::PgLogLevel::ERROR);
                unreachable!()
            }
        }
    }
}

unsafe extern "C-unwind" fn relation_changed(_: pg_sys::Datum, relation: pg_sys::Oid) {
    forget(|rule| relation == pg_sys::InvalidOid || rule.relation == relation);
}

unsafe extern "C-unwind" fn something_changed(_: pg_sys::Datum, _: c_int, _: u32) {
    forget(|_| true);
}

fn forget(which: impl Fn(&Compiled) -> bool) {
    CHANGES.set(CHANGES.get().wrapping_add(1));
    let mut current = FIRST.get();
    while !current.is_null() {
        // SAFETY: as in `find`; this only sets a flag.
        let rule = unsafe { &*current };
        if which(rule) {
            rule.valid.set(false);
        }
        current = rule.next.get();
    }
}

fn watch() {
    if WATCHING.replace(true) {
        return;
    }
    let nothing = pg_sys::Datum::from(0);
    // SAFETY: once a process; both callbacks set flags only.
    unsafe {
        pg_sys::CacheRegisterRelcacheCallback(Some(relation_changed), nothing);
        for cache in [
            pg_sys::SysCacheIdentifier::PROCOID,
            pg_sys::SysCacheIdentifier::TYPEOID,
            pg_sys::SysCacheIdentifier::OPEROID,
        ] {
            pg_sys::CacheRegisterSyscacheCallback(cache as c_int, Some(something_changed), nothing);
        }
    }
}

/// # Safety
/// As `find`.
unsafe fn compile(data: &pg_sys::TriggerData) -> Result<Box<Compiled>> {
    watch();
    let changes = CHANGES.get();
    // SAFETY: the trigger and its relation are open; what is made lives in a context of its own, which stays only when
    // everything has worked.
    unsafe {
        let trigger = &*data.tg_trigger;
        if trigger.tgnargs != 1 {
            return Err(Error::Bug("the trigger needs one argument".into()));
        }
        let text = CStr::from_ptr(*trigger.tgargs).to_string_lossy();
        let argument: Argument = serde_json::from_str(&text)?;
        let relation = data.tg_relation;
        let oid = (*relation).rd_id;
        let memory = pg_sys::AllocSetContextCreateExtended(
            pg_sys::CurrentMemoryContext,
            c"transmute dual-write rule".as_ptr(),
            pg_sys::ALLOCSET_SMALL_MINSIZE as usize,
            pg_sys::ALLOCSET_SMALL_INITSIZE as usize,
            pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
        );
        let previous = pg_sys::MemoryContextSwitchTo(memory);
        let table = Table::open(oid, LockMode::AccessShare);
        let owner = (*(*relation).rd_rel).relowner;
        let compiled = identity::as_role(owner, &canonical(), || {
            let names = Names {
                argument: &argument,
                table: &table,
            };
            let estate = pg_sys::CreateExecutorState();
            let sources = names.columns(&argument.sources)?;
            let key = names.columns(&argument.key)?;
            let forth = names.direction(&argument.forth, estate)?;
            let back = names.direction(&argument.back, estate)?;
            let last = [&sources, &key, &forth.columns, &back.columns]
                .into_iter()
                .flatten()
                .map(|c| c.attribute as i32 + 1)
                .max()
                .unwrap_or(0);
            Ok(Box::new(Compiled {
                trigger: trigger.tgoid,
                relation: oid,
                valid: Cell::new(true),
                in_use: Cell::new(false),
                memory,
                next: Cell::new(std::ptr::null_mut()),
                two_way: !argument.back.is_empty(),
                sets_aside: argument.sets_aside,
                follows: argument.follows,
                last_attribute: last,
                sources,
                key,
                forth,
                back,
                argument: argument.clone(),
            }))
        });
        pg_sys::MemoryContextSwitchTo(previous);
        let compiled = compiled?;
        pg_sys::MemoryContextSetParent(memory, pg_sys::CacheMemoryContext);
        compiled.valid.set(CHANGES.get() == changes);
        Ok(compiled)
    }
}

/// What the names of a rule mean now.
struct Names<'a> {
    argument: &'a Argument,
    table: &'a Table,
}

impl Names<'_> {
    fn is_the_table(&self) -> bool {
        // SAFETY: the table is open.
        unsafe { (*self.table.0).rd_id.to_u32() == self.argument.table }
    }

    fn number(&self, name: &str) -> Result<i16> {
        if self.is_the_table() {
            let known = self.argument.columns.iter().find(|(_, n)| n == name);
            return known
                .map(|(number, _)| *number)
                .ok_or_else(|| Error::Bug(format!("a rule without a number for {name}")));
        }
        let text = to_c(name)?;
        // SAFETY: the table is open; the string is read only.
        let number = unsafe { pg_sys::get_attnum((*self.table.0).rd_id, text.as_ptr()) };
        match number > 0 {
            true => Ok(number),
            false => Err(Error::UndefinedColumn {
                table: self.argument.table.to_string(),
                column: name.into(),
            }),
        }
    }

    /// # Safety
    /// In the context that outlives the rule.
    unsafe fn columns(&self, names: &[String]) -> Result<Vec<Column>> {
        // SAFETY: by the contract above.
        names
            .iter()
            .map(|name| unsafe { self.column(name) })
            .collect()
    }

    /// # Safety
    /// As `columns`.
    unsafe fn column(&self, name: &str) -> Result<Column> {
        let number = self.number(name)?;
        // SAFETY: by the contract above; the number is within the descriptor, which is looked at first.
        unsafe {
            let desc = (*self.table.0).rd_att;
            if i32::from(number) > (*desc).natts {
                return Err(Error::Bug(format!("there is no column {number}")));
            }
            let attribute = crate::pg::row::attribute(desc, (number - 1) as usize);
            if attribute.attisdropped {
                return Err(Error::Prerequisite {
                    problem: "a column of an online schema change was dropped".into(),
                    detail: format!("Column \"{name}\"."),
                    hint: "transmute.rollback(id, reason) ends the migration.".into(),
                });
            }
            Ok(Column {
                attribute: (number - 1) as usize,
                name: name.to_string(),
                by_value: attribute.attbyval,
                length: i32::from(attribute.attlen),
                default: default_of(self.table, number, attribute),
            })
        }
    }

    /// # Safety
    /// As `columns`; the state lives as long as the rule.
    unsafe fn direction(
        &self,
        assignments: &[Assignment],
        estate: *mut pg_sys::EState,
    ) -> Result<Direction> {
        // SAFETY: by the contract above.
        unsafe {
            let mut columns = Vec::new();
            let mut states = Vec::new();
            for assignment in assignments {
                let column = self.column(&assignment.column)?;
                let node = self.expression(assignment)?;
                states.push(pg_sys::ExecPrepareExpr(node.cast(), estate));
                columns.push(column);
            }
            let count = assignments.len().max(1);
            Ok(Direction {
                numbers: columns.iter().map(|c| c.attribute as c_int + 1).collect(),
                columns,
                states,
                econtext: pg_sys::CreateExprContext(estate),
                values: pg_sys::palloc0(count * std::mem::size_of::<pg_sys::Datum>()).cast(),
                nulls: pg_sys::palloc0(count).cast(),
            })
        }
    }

    /// # Safety
    /// As `columns`.
    unsafe fn expression(&self, assignment: &Assignment) -> Result<*mut pg_sys::Node> {
        let number = self.number(&assignment.column)?;
        let source = to_c(&assignment.expression)?;
        // SAFETY: by the contract above; the tree does not point into the text.
        unsafe {
            let raw = generated::raw_expression(&source, &assignment.expression)?;
            let scope = Scope::of(self.table, self.alias()?, &source);
            scope
                .transform(raw, number)?
                .map_err(|why| Error::Bug(format!("{NOT_OF_A_ROW}: {why}")))
        }
    }

    /// The columns under the names they had when the rule was made.
    ///
    /// # Safety
    /// As `columns`.
    unsafe fn alias(&self) -> Result<Option<*mut pg_sys::Alias>> {
        if !self.is_the_table() {
            return Ok(None);
        }
        // SAFETY: by the contract above; each String node gets a copy.
        unsafe {
            let mut list = std::ptr::null_mut();
            for i in 0..(*(*self.table.0).rd_att).natts {
                // The server takes one name a column that is there.
                if crate::pg::row::attribute((*self.table.0).rd_att, i as usize).attisdropped {
                    continue;
                }
                let known = self
                    .argument
                    .columns
                    .iter()
                    .find(|(number, _)| i32::from(*number) == i + 1);
                let name = match known {
                    Some((_, name)) => name.clone(),
                    None => format!("?{i}?"),
                };
                let name = pg_sys::pstrdup(to_c(&name)?.as_ptr());
                list = pg_sys::lappend(list, pg_sys::makeString(name).cast());
            }
            Ok(Some(pg_sys::makeAlias(c"new".as_ptr(), list)))
        }
    }
}

/// The value of a constant default.
///
/// # Safety
/// The table is open, the column is one of it.
unsafe fn default_of(
    table: &Table,
    number: i16,
    attribute: &pg_sys::FormData_pg_attribute,
) -> Option<pg_sys::Datum> {
    // SAFETY: by the contract above.
    unsafe {
        if !attribute.atthasdef || attribute.attgenerated != 0 {
            return None;
        }
        let default = pg_sys::build_column_default(table.0, i32::from(number));
        if default.is_null() {
            return None;
        }
        let planned = pg_sys::expression_planner(default.cast()).cast::<pg_sys::Node>();
        if (*planned).type_ != pg_sys::NodeTag::T_Const {
            return None;
        }
        let constant = &*planned.cast::<pg_sys::Const>();
        (!constant.constisnull).then_some(constant.constvalue)
    }
}

impl Compiled {
    pub fn sources(&self) -> &[Column] {
        &self.sources
    }

    pub fn targets(&self) -> &[Column] {
        &self.forth.columns
    }

    /// Whether a new column has another value than the one it gets by itself.
    ///
    /// # Safety
    /// Inside `direct::guarded`; the slot's attributes are deformed.
    #[inline(always)]
    pub unsafe fn any_given(&self, slot: *mut pg_sys::TupleTableSlot) -> bool {
        self.forth.columns.iter().any(|column| {
            // SAFETY: by the contract above.
            unsafe {
                if *(*slot).tts_isnull.add(column.attribute) {
                    return false;
                }
                let value = *(*slot).tts_values.add(column.attribute);
                match column.default {
                    None => true,
                    Some(default) => {
                        !direct::datum_image_eq(value, default, column.by_value, column.length)
                    }
                }
            }
        })
    }
}

impl Direction {
    /// Evaluates all expressions on the row in the slot, into memory that lives as long as the row.
    ///
    /// # Safety
    /// Inside `direct::guarded`; the slot has the table's shape; the current memory context is that of the row.
    #[inline(always)]
    pub unsafe fn evaluate(&self, slot: *mut pg_sys::TupleTableSlot) {
        // SAFETY: by the contract above; there is room for a value each.
        unsafe {
            (*self.econtext).ecxt_scantuple = slot;
            (*self.econtext).ecxt_per_tuple_memory = pg_sys::CurrentMemoryContext;
            for (i, state) in self.states.iter().enumerate() {
                let (value, is_null) = direct::evaluate(*state, self.econtext);
                *self.values.add(i) = value;
                *self.nulls.add(i) = is_null;
            }
        }
    }

    /// The tuple with the values that the row in the slot gives.
    ///
    /// # Safety
    /// As `evaluate`; the tuple is the slot's, of the relation's shape.
    #[inline(always)]
    pub unsafe fn apply(
        &self,
        slot: *mut pg_sys::TupleTableSlot,
        tuple: pg_sys::HeapTuple,
        relation: pg_sys::Relation,
    ) -> pg_sys::HeapTuple {
        // SAFETY: by the contract above.
        unsafe {
            self.evaluate(slot);
            direct::heap_modify_tuple_by_cols(
                tuple,
                (*relation).rd_att,
                self.numbers.len() as c_int,
                self.numbers.as_ptr(),
                self.values,
                self.nulls,
            )
        }
    }

    /// Whether the row in the slot has the values that were evaluated last.
    ///
    /// # Safety
    /// Inside `direct::guarded`; the slot's attributes are deformed.
    pub unsafe fn agrees(&self, slot: *mut pg_sys::TupleTableSlot) -> bool {
        self.columns.iter().enumerate().all(|(i, column)| {
            // SAFETY: by the contract above.
            unsafe {
                let (a_null, b_null) = (
                    *(*slot).tts_isnull.add(column.attribute),
                    *self.nulls.add(i),
                );
                a_null == b_null
                    && (a_null
                        || direct::datum_image_eq(
                            *(*slot).tts_values.add(column.attribute),
                            *self.values.add(i),
                            column.by_value,
                            column.length,
                        ))
            }
        })
    }

    /// The tuple with those of the values evaluated last whose column `take` names.
    ///
    /// # Safety
    /// Inside `direct::guarded`; the tuple has the relation's shape; `numbers`, `values`, `nulls` have room for all.
    pub unsafe fn some(
        &self,
        tuple: pg_sys::HeapTuple,
        relation: pg_sys::Relation,
        take: impl Fn(&Column) -> bool,
    ) -> pg_sys::HeapTuple {
        // SAFETY: by the contract above.
        unsafe {
            let mut result = tuple;
            for (i, column) in self.columns.iter().enumerate() {
                if take(column) {
                    result = direct::heap_modify_tuple_by_cols(
                        result,
                        (*relation).rd_att,
                        1,
                        self.numbers.as_ptr().add(i),
                        self.values.add(i),
                        self.nulls.add(i),
                    );
                }
            }
            result
        }
    }
}

/// Makes the trigger depend on what its expressions use: neither a function nor a column can be dropped, or retyped, under
/// it.
pub fn depend(trigger: pg_sys::Oid, relation: pg_sys::Oid, argument: &Argument) -> Result<()> {
    let table = Table::open(relation, LockMode::AccessShare);
    let names = Names {
        argument,
        table: &table,
    };
    // SAFETY: inside a transaction that has just made the trigger; trees live in the current context.
    unsafe {
        for assignment in argument.forth.iter().chain(&argument.back) {
            let node = names.expression(assignment)?;
            let depender = pg_sys::ObjectAddress {
                classId: pg_sys::TriggerRelationId,
                objectId: trigger,
                objectSubId: 0,
            };
            pg_sys::recordDependencyOnSingleRelExpr(
                &depender,
                node,
                relation,
                pg_sys::DependencyType::DEPENDENCY_NORMAL,
                pg_sys::DependencyType::DEPENDENCY_NORMAL,
                false,
            );
        }
    }
    Ok(())
}
