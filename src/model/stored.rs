//! Stored rows as bytes: whether a row of the shadow is what a row of the table becomes, without the server's functions.
//!
//! The layout is that of heap_fill_tuple (heaptuple.c). The copy forms its rows by that function and this file only reads
//! them, so neither can hide an error of the other. A row that is not plain bytes (values out of line or compressed where
//! they had to be computed, columns that were added later with a default) is never "equal" here: whoever asks then
//! compares by the server's functions.

/// How values of a column are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Bytes of each value, or -1: a header tells (varlena).
    pub length: i16,
    /// 1, 2, 4 or 8.
    pub alignment: usize,
    pub by_value: bool,
}

/// Where the value of a column of the shadow comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The same column of the table, unchanged.
    Same,
    /// The expression with this number.
    Computed(usize),
    /// A new column without a default.
    Null,
    /// Nothing to compare: dropped, or of a volatile expression.
    Unchecked,
}

/// A column of the shadow, and that of the same number in the table, if there is one.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    pub old: Option<Layout>,
    pub new: Layout,
    pub source: Source,
}

/// A stored row: what its header says, and the bytes behind the header.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    pub attributes: usize,
    /// A bit an attribute, 0 for NULL.
    pub nulls: Option<&'a [u8]>,
    pub data: &'a [u8],
}

/// What an expression gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    Null,
    /// Of a type by value: the lowest bytes count.
    Word(u64),
    /// Of a fixed length, or what follows a varlena's header.
    Bytes(&'a [u8]),
    /// Not in memory as plain bytes.
    Opaque,
}

/// Walks over the values of a row.
struct Reader<'a> {
    row: Row<'a>,
    offset: usize,
}

impl<'a> Reader<'a> {
    /// The bytes of attribute `i`, header included, or `Some(None)` for NULL. `None`: not plain, or beyond the row.
    #[inline(always)]
    fn next(&mut self, i: usize, layout: Layout) -> Option<Option<&'a [u8]>> {
        if i >= self.row.attributes {
            return Some(None);
        }
        if let Some(nulls) = self.row.nulls {
            if nulls.get(i / 8)? & (1 << (i % 8)) == 0 {
                return Some(None);
            }
        }
        let mut start = self.offset;
        let length = if layout.length > 0 {
            start = align(start, layout.alignment);
            usize::from(layout.length.unsigned_abs())
        } else if layout.length == -1 {
            // A byte of padding is 0, a short header is not.
            if *self.row.data.get(start)? == 0 {
                start = align(start, layout.alignment);
            }
            varlena_length(self.row.data.get(start..)?)?
        } else {
            return None;
        };
        let bytes = self.row.data.get(start..start.checked_add(length)?)?;
        self.offset = start + length;
        Some(Some(bytes))
    }
}

#[inline(always)]
fn align(offset: usize, alignment: usize) -> usize {
    (offset + alignment - 1) & !(alignment - 1)
}

/// Bytes of the varlena that begins here, header included; `None` for a pointer to a value out of line (varatt.h).
#[inline(always)]
fn varlena_length(bytes: &[u8]) -> Option<usize> {
    let first = *bytes.first()?;
    if first == 1 {
        return None;
    }
    if first & 1 == 1 {
        return Some(usize::from(first >> 1));
    }
    let header: [u8; 4] = bytes.get(..4)?.try_into().ok()?;
    Some((u32::from_le_bytes(header) >> 2) as usize)
}

/// What follows the header of a whole varlena; `None` where it is compressed or out of line.
pub fn payload(bytes: &[u8]) -> Option<&[u8]> {
    match *bytes.first()? {
        1 => None,
        first if first & 1 == 1 => bytes.get(1..),
        first if first & 3 == 0 => bytes.get(4..),
        _ => None,
    }
}

/// Whether the stored value is that of an expression.
#[inline(always)]
fn is_value(stored: Option<&[u8]>, layout: Layout, value: &Value) -> bool {
    let Some(bytes) = stored else {
        return *value == Value::Null;
    };
    match *value {
        Value::Word(word) if layout.by_value => {
            word.to_le_bytes().get(..bytes.len()) == Some(bytes)
        }
        Value::Bytes(wanted) if layout.length > 0 => bytes == wanted,
        Value::Bytes(wanted) => payload(bytes) == Some(wanted),
        _ => false,
    }
}

/// Whether `new`, a row of the shadow, is byte for byte what `old`, a row of the table, becomes with these computed
/// values. A `false` says nothing.
pub fn equal(columns: &[Column], old: Row, new: Row, computed: &[Value]) -> bool {
    if cfg!(target_endian = "big") || new.attributes != columns.len() {
        return false;
    }
    let mut old = Reader {
        row: old,
        offset: 0,
    };
    let mut new = Reader {
        row: new,
        offset: 0,
    };
    for (i, column) in columns.iter().enumerate() {
        let Some(stored) = new.next(i, column.new) else {
            return false;
        };
        let before = match column.old {
            None => None,
            Some(layout) => match old.next(i, layout) {
                Some(before) => before,
                None => return false,
            },
        };
        let is_equal = match column.source {
            Source::Same => stored == before,
            Source::Computed(n) => computed
                .get(n)
                .is_some_and(|value| is_value(stored, column.new, value)),
            Source::Null => stored.is_none(),
            Source::Unchecked => true,
        };
        if !is_equal {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CHAR: Layout = fixed(1, 1, true);
    const SHORT: Layout = fixed(2, 2, true);
    const INT: Layout = fixed(4, 4, true);
    const BIGINT: Layout = fixed(8, 8, true);
    const UUID: Layout = fixed(16, 1, false);
    const NAME: Layout = fixed(64, 1, false);
    const TEXT: Layout = Layout {
        length: -1,
        alignment: 4,
        by_value: false,
    };
    const ARRAY: Layout = Layout {
        alignment: 8,
        ..TEXT
    };
    const LAYOUTS: [Layout; 8] = [CHAR, SHORT, INT, BIGINT, UUID, NAME, TEXT, ARRAY];

    const fn fixed(length: i16, alignment: usize, by_value: bool) -> Layout {
        Layout {
            length,
            alignment,
            by_value,
        }
    }

    /// A row as heap_fill_tuple makes it, and the bytes of it that are no padding, with their columns.
    #[derive(Clone, Debug, Default)]
    struct Formed {
        attributes: usize,
        nulls: Option<Vec<u8>>,
        data: Vec<u8>,
        meaning: Vec<(usize, usize)>,
    }

    impl Formed {
        fn row(&self) -> Row<'_> {
            Row {
                attributes: self.attributes,
                nulls: self.nulls.as_deref(),
                data: &self.data,
            }
        }
    }

    /// `values` are payloads; `long` ones have a header of four bytes whatever their length.
    fn form(values: &[(Layout, Option<Vec<u8>>)], long: bool) -> Formed {
        let mut formed = Formed {
            attributes: values.len(),
            ..Formed::default()
        };
        let mut nulls = vec![0u8; values.len().div_ceil(8)];
        for (i, (layout, value)) in values.iter().enumerate() {
            let Some(value) = value else { continue };
            nulls[i / 8] |= 1 << (i % 8);
            let is_short = layout.length == -1 && value.len() < 127 && !long;
            while !is_short && !formed.data.len().is_multiple_of(layout.alignment) {
                formed.data.push(0);
            }
            let start = formed.data.len();
            if is_short {
                formed.data.push(((value.len() as u8 + 1) << 1) | 1);
            } else if layout.length == -1 {
                let header = (value.len() as u32 + 4) << 2;
                formed.data.extend(header.to_le_bytes());
            }
            formed.data.extend(value);
            formed
                .meaning
                .extend((start..formed.data.len()).map(|at| (at, i)));
        }
        if values.iter().any(|(_, value)| value.is_none()) {
            formed.nulls = Some(nulls);
        }
        formed
    }

    fn computed(layout: Layout, value: &Option<Vec<u8>>) -> Value<'_> {
        match value {
            None => Value::Null,
            Some(bytes) if layout.by_value => {
                // The server extends signs: what is above the type's length must not matter.
                let mut word = [0xFF; 8];
                word[..bytes.len()].copy_from_slice(bytes);
                Value::Word(u64::from_le_bytes(word))
            }
            Some(bytes) => Value::Bytes(bytes),
        }
    }

    /// A column: its layouts and values before and after, and where the value comes from.
    #[derive(Clone, Debug)]
    struct Case {
        column: Column,
        before: Option<Vec<u8>>,
        after: Option<Vec<u8>>,
    }

    fn any_value(layout: Layout) -> BoxedStrategy<Option<Vec<u8>>> {
        let bytes = match layout.length {
            -1 => prop_oneof![3 => 0usize..20, 1 => 100usize..300].boxed(),
            length => Just(length as usize).boxed(),
        };
        let value = bytes.prop_flat_map(|n| proptest::collection::vec(any::<u8>(), n));
        proptest::option::weighted(0.8, value).boxed()
    }

    fn any_layout() -> impl Strategy<Value = Layout> {
        (0..LAYOUTS.len()).prop_map(|i| LAYOUTS[i])
    }

    fn any_case() -> impl Strategy<Value = Case> {
        let values = (any_layout(), any_layout())
            .prop_flat_map(|(a, b)| (Just(a), Just(b), any_value(a), any_value(b)));
        (0..4, values).prop_map(|(source, (old, new, before, after))| {
            let (new, source, after) = match source {
                0 => (new, Source::Computed(0), after),
                1 => (new, Source::Null, None),
                2 => (new, Source::Unchecked, after),
                _ => (old, Source::Same, before.clone()),
            };
            Case {
                column: Column {
                    old: Some(old),
                    new,
                    source,
                },
                before,
                after,
            }
        })
    }

    type Stored = (Vec<Column>, Formed, Formed, Vec<(Layout, Option<Vec<u8>>)>);

    /// The columns, both rows, and what the expressions give.
    fn stored(cases: &[Case], long: bool) -> Stored {
        let mut given = Vec::new();
        let mut columns = Vec::new();
        for case in cases {
            let mut column = case.column;
            if column.source == Source::Computed(0) {
                column.source = Source::Computed(given.len());
                given.push((column.new, case.after.clone()));
            }
            columns.push(column);
        }
        let before: Vec<_> = cases
            .iter()
            .map(|case| (case.column.old.unwrap_or(CHAR), case.before.clone()))
            .collect();
        let after: Vec<_> = cases
            .iter()
            .map(|case| (case.column.new, case.after.clone()))
            .collect();
        (columns, form(&before, long), form(&after, long), given)
    }

    fn any_cases() -> impl Strategy<Value = Vec<Case>> {
        proptest::collection::vec(any_case(), 1..12)
    }

    #[test]
    fn int_to_bigint_shifts_what_is_behind() {
        let case = |old, new, source, before: &[u8], after: &[u8]| Case {
            column: Column {
                old: Some(old),
                new,
                source,
            },
            before: Some(before.to_vec()),
            after: Some(after.to_vec()),
        };
        let minus_two = (-2i64).to_le_bytes();
        let cases = [
            case(BIGINT, BIGINT, Source::Same, &[7; 8], &[7; 8]),
            case(
                INT,
                BIGINT,
                Source::Computed(0),
                &minus_two[..4],
                &minus_two,
            ),
            case(TEXT, TEXT, Source::Same, b"name 1", b"name 1"),
            case(BIGINT, BIGINT, Source::Same, &[9; 8], &[9; 8]),
        ];
        let (columns, old, new, _) = stored(&cases, false);
        let is = |value: i64| equal(&columns, old.row(), new.row(), &[Value::Word(value as u64)]);
        assert!(is(-2));
        assert!(!is(2));
        assert!(!equal(&columns, old.row(), new.row(), &[Value::Null]));
        assert!(!equal(&columns, old.row(), new.row(), &[Value::Opaque]));
        assert!(!equal(&columns, old.row(), new.row(), &[]));
    }

    #[test]
    fn columns_that_were_added_later_are_null() {
        let column = |source| Column {
            old: Some(INT),
            new: INT,
            source,
        };
        let columns = [column(Source::Same), column(Source::Same)];
        let one = (INT, Some(vec![1, 0, 0, 0]));
        let old = form(std::slice::from_ref(&one), false);
        let new = form(&[one.clone(), (INT, None)], false);
        assert!(equal(&columns, old.row(), new.row(), &[]));
        let filled = form(&[one.clone(), one.clone()], false);
        assert!(!equal(&columns, old.row(), filled.row(), &[]));
        let short = form(&[one], false);
        assert!(!equal(&columns, old.row(), short.row(), &[]));
    }

    #[test]
    fn values_out_of_line_and_compressed_ones_say_nothing() {
        assert_eq!(payload(&[1, 18, 0, 0]), None);
        assert_eq!(payload(&(24u32 << 2 | 2).to_le_bytes()), None);
        assert_eq!(payload(&[7, b'a', b'b']), Some(&b"ab"[..]));
        assert_eq!(payload(&[]), None);
        assert_eq!(varlena_length(&[1, 18]), None);
    }

    proptest! {
        #[test]
        fn a_converted_row_is_equal(cases in any_cases(), long in any::<bool>()) {
            let (columns, old, new, given) = stored(&cases, long);
            let values: Vec<Value> = given.iter().map(|(l, v)| computed(*l, v)).collect();
            prop_assert!(equal(&columns, old.row(), new.row(), &values));
        }

        #[test]
        fn one_flipped_bit_is_seen(cases in any_cases(), long in any::<bool>(), at in any::<prop::sample::Index>(), bit in 0..8u8) {
            let (columns, old, new, given) = stored(&cases, long);
            let values: Vec<Value> = given.iter().map(|(l, v)| computed(*l, v)).collect();
            let checked: Vec<usize> = new.meaning.iter()
                .filter(|(_, i)| columns[*i].source != Source::Unchecked)
                .map(|(at, _)| *at)
                .collect();
            prop_assume!(!checked.is_empty());
            let mut flipped = new.clone();
            flipped.data[*at.get(&checked)] ^= 1 << bit;
            prop_assert!(!equal(&columns, old.row(), flipped.row(), &values));
        }

        #[test]
        fn another_null_is_seen(cases in any_cases(), at in any::<prop::sample::Index>()) {
            let (columns, old, _, given) = stored(&cases, false);
            let values: Vec<Value> = given.iter().map(|(l, v)| computed(*l, v)).collect();
            let i = at.index(cases.len());
            prop_assume!(columns[i].source != Source::Unchecked);
            let mut after: Vec<_> = cases.iter().map(|c| (c.column.new, c.after.clone())).collect();
            after[i].1 = match after[i].1 {
                Some(_) => None,
                None => Some(vec![1; columns[i].new.length.max(1) as usize]),
            };
            prop_assert!(!equal(&columns, old.row(), form(&after, false).row(), &values));
        }

        #[test]
        fn whatever_the_bytes_nothing_panics(
            cases in any_cases(), attributes in 0usize..20,
            nulls in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..4)),
            data in proptest::collection::vec(any::<u8>(), 0..100),
        ) {
            let (columns, old, new, _) = stored(&cases, false);
            let wild = Row { attributes, nulls: nulls.as_deref(), data: &data };
            equal(&columns, wild, new.row(), &[]);
            equal(&columns, old.row(), Row { attributes: columns.len(), ..wild }, &[]);
        }
    }
}
