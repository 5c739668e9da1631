//! What the expressions of a conversion give for a whole page of the table, ahead of the comparison.

use super::direct;
use super::page::Page;
use super::row::{attribute, RowMapper};
use crate::model::stored::{self, Column, Layout, Source, Value};
use pgrx::pg_sys;

/// Values of one page's rows, 16 MB at most: small rows may become large ones.
const MAX_BYTES: usize = 16 << 20;

/// The values of the rows of one page that the check compares.
pub(super) struct Computed {
    pub(super) columns: Vec<Column>,
    /// Rows with fewer attributes have defaults that are not stored in them.
    least_attributes: usize,
    /// Their numbers among the mapper's.
    expressions: Vec<usize>,
    layouts: Vec<Layout>,
    /// A context of its own: what is looked up in between must not free these values.
    context: *mut pg_sys::ExprContext,
    /// Row by row, in the order of `expressions`; both point into the context's memory, which lives until the next page.
    results: Vec<(pg_sys::Datum, bool)>,
    values: Vec<Value<'static>>,
    /// Whether the row's values are there.
    known: Vec<bool>,
}

impl Computed {
    pub(super) fn new(mapper: &RowMapper) -> Computed {
        let expressions: Vec<usize> = (0..mapper.computed.len())
            .filter(|n| !mapper.computed[*n].volatile)
            .collect();
        // SAFETY: descriptors of open relations; the executor state owns the context.
        unsafe {
            let new = (*mapper.new.0).rd_att;
            let of = expressions.iter().map(|n| mapper.computed[*n].attribute);
            Computed {
                columns: columns(mapper, &expressions),
                layouts: of.map(|i| layout(new, i)).collect(),
                least_attributes: least_attributes((*mapper.old.0).rd_att),
                expressions,
                context: pg_sys::CreateExprContext(mapper.estate),
                results: Vec::new(),
                values: Vec::new(),
                known: Vec::new(),
            }
        }
    }

    /// Evaluates for the rows of a page: not for those with values out of line, which may be large.
    pub(super) fn evaluate(&mut self, mapper: &RowMapper, page: &Page) {
        let rows = page.rows();
        self.known.clear();
        self.known.extend((0..rows.len()).map(|n| {
            page.stored(n).is_some_and(|(row, is_out_of_line)| {
                !is_out_of_line && row.attributes >= self.least_attributes
            })
        }));
        if self.expressions.is_empty() {
            return;
        }
        let width = self.expressions.len();
        self.values.clear();
        self.results.clear();
        self.results
            .resize(rows.len() * width, (pg_sys::Datum::null(), true));
        let (known, results) = (&mut self.known[..], &mut self.results[..]);
        let (expressions, context) = (&self.expressions[..], self.context);
        // SAFETY: slots and expressions are the mapper's, made for these tables. Under the guard only references and
        // numbers are live; iterators over slices of equal length do not panic.
        unsafe {
            let memory = (*context).ecxt_per_tuple_memory;
            direct::guarded(|| {
                direct::MemoryContextReset(memory);
                let rows = known.iter_mut().zip(results.chunks_exact_mut(width));
                for (n, (known, results)) in rows.enumerate() {
                    if !*known {
                        continue;
                    }
                    if (*memory).mem_allocated > MAX_BYTES {
                        *known = false;
                        continue;
                    }
                    direct::check_for_interrupts();
                    page.store(n, mapper.old_slot);
                    if mapper.has_generated {
                        mapper.convert();
                    }
                    for (result, expression) in results.iter_mut().zip(expressions) {
                        let column = mapper.computed.get_unchecked(*expression);
                        (*context).ecxt_scantuple = match column.generated {
                            true => mapper.new_slot,
                            false => mapper.old_slot,
                        };
                        *result = direct::evaluate(column.state, context);
                    }
                    if mapper.has_generated {
                        direct::MemoryContextReset(mapper.row_context());
                    }
                }
            });
        }
        let address = self
            .expressions
            .iter()
            .position(|n| mapper.computed[*n].is_address);
        let rows = self.results.chunks_exact(width).zip(&self.known);
        for (n, (results, known)) in rows.enumerate() {
            let of_row = results.iter().zip(&self.layouts).enumerate();
            self.values
                .extend(of_row.map(|(i, ((datum, is_null), layout))| {
                    match (known, is_null) {
                        (false, _) => Value::Opaque,
                        // The slot that it points into has gone on.
                        // SAFETY: the values are read before the next page is.
                        (true, _) if Some(i) == address => Value::Bytes(unsafe { page.address(n) }),
                        (true, true) => Value::Null,
                        // SAFETY: just evaluated, of the column's type.
                        (true, false) => unsafe { value(*datum, *layout) },
                    }
                }));
        }
    }

    /// What there is to compare row `n` of the page by; `None`: only the server's functions can.
    pub(super) fn values(&self, n: usize) -> Option<&[Value<'static>]> {
        let width = self.expressions.len();
        match self.known.get(n) {
            Some(true) => self.values.get(n * width..(n + 1) * width),
            _ => None,
        }
    }
}

/// The columns of the shadow, with the numbers of their expressions among the compared ones.
///
/// # Safety
/// Both relations are open.
unsafe fn columns(mapper: &RowMapper, expressions: &[usize]) -> Vec<Column> {
    let source = |i: usize| {
        if !mapper.compared.iter().any(|c| c.attribute == i) {
            return Source::Unchecked;
        }
        let mut of = expressions.iter().map(|n| mapper.computed[*n].attribute);
        if let Some(n) = of.position(|attribute| attribute == i) {
            return Source::Computed(n);
        }
        // SAFETY: by the contract above; `i` is within the descriptor where it is asked for.
        let is_there =
            i < mapper.old_width && !unsafe { attribute((*mapper.old.0).rd_att, i) }.attisdropped;
        match is_there {
            true => Source::Same,
            false => Source::Null,
        }
    };
    (0..mapper.new_width)
        .map(|i| Column {
            // SAFETY: as above.
            old: (i < mapper.old_width).then(|| unsafe { layout((*mapper.old.0).rd_att, i) }),
            // SAFETY: as above.
            new: unsafe { layout((*mapper.new.0).rd_att, i) },
            source: source(i),
        })
        .collect()
}

/// # Safety
/// `desc` is valid, `i` within it.
unsafe fn layout(desc: pg_sys::TupleDesc, i: usize) -> Layout {
    // SAFETY: by the contract above.
    let column = unsafe { attribute(desc, i) };
    Layout {
        length: column.attlen,
        alignment: match column.attalign as u8 {
            pg_sys::TYPALIGN_CHAR => 1,
            pg_sys::TYPALIGN_SHORT => 2,
            pg_sys::TYPALIGN_INT => 4,
            _ => 8,
        },
        by_value: column.attbyval,
    }
}

/// # Safety
/// `desc` is valid.
unsafe fn least_attributes(desc: pg_sys::TupleDesc) -> usize {
    // SAFETY: by the contract above.
    unsafe {
        let width = (*desc).natts as usize;
        let last = (0..width).rfind(|i| attribute(desc, *i).atthasmissing);
        last.map_or(0, |i| i + 1)
    }
}

/// A value that an expression gave.
///
/// # Safety
/// Not NULL, of a type of this layout; the result must not outlive the memory it is in.
unsafe fn value(datum: pg_sys::Datum, layout: Layout) -> Value<'static> {
    if layout.by_value {
        return Value::Word(datum.value() as u64);
    }
    let start = datum.cast_mut_ptr::<u8>().cast_const();
    // SAFETY: by the contract above. A varlena's length is in its first byte, or in its first four.
    let bytes = unsafe {
        let length = match (layout.length, *start) {
            (-1, 1) => return Value::Opaque,
            (-1, first) if first & 1 == 1 => usize::from(first >> 1),
            (-1, _) => (start.cast::<u32>().read_unaligned() >> 2) as usize,
            (length, _) if length > 0 => length as usize,
            _ => return Value::Opaque,
        };
        std::slice::from_raw_parts(start, length)
    };
    match layout.length {
        -1 => stored::payload(bytes).map_or(Value::Opaque, Value::Bytes),
        _ => Value::Bytes(bytes),
    }
}
