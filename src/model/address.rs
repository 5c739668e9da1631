//! What identifies a row of a table without a key: its address, block and offset in the table's file. A row version has one for
//! as long as it lives, and a statement that gives a row another one is captured like any other.

/// The column of the shadow that holds the address of the row it was made of, and the index on it.
pub const COLUMN: &str = "_transmute_address";

/// The attribute number by which key columns name it: that of the system column ctid (SelfItemPointerAttributeNumber).
pub const NUMBER: i16 = -1;

/// Whether these key columns are the address.
pub fn is_key(columns: &[i16]) -> bool {
    columns == [NUMBER]
}
