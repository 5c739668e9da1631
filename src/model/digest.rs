//! SHA-256 and the canonical form of what is hashed.
//!
//! A hash over joined texts says nothing about where one ended and the next began. [`Canonical`] writes each field with a
//! tag and a length, so that different lists of fields always give different bytes:
//!
//! | field | bytes |
//! | --- | --- |
//! | NULL | `00` |
//! | text | `01`, length in bytes as 8 bytes big-endian, the UTF-8 bytes |
//! | integer | `02`, the value as 8 bytes big-endian two's complement |
//! | bytes | `03`, length as 8 bytes big-endian, the bytes |
//!
//! No field is normalised: texts that differ in a byte (NFC and NFD, `1.0` and `1.00`) are different.

use sha2::{Digest, Sha256};

const TAG_NULL: u8 = 0;
const TAG_TEXT: u8 = 1;
const TAG_INTEGER: u8 = 2;
const TAG_BYTES: u8 = 3;

/// SHA-256 of `bytes` as 64 lower-case hex digits.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(sha256(bytes))
}

/// SHA-256 of `bytes` (FIPS 180-4).
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Builds the canonical form of a list of fields. It begins with a domain: bytes that say what is hashed, so that a plan
/// can never have the hash of an audit record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Canonical {
    bytes: Vec<u8>,
}

impl Canonical {
    /// `domain` is written as it is and closed by a zero byte; it must not contain one itself.
    pub fn new(domain: &str) -> Self {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(domain.as_bytes());
        bytes.push(0);
        Self { bytes }
    }

    /// Bytes of a fixed length, without tag or length: what a format puts between its domain and its fields.
    #[must_use]
    pub fn raw<const N: usize>(mut self, value: &[u8; N]) -> Self {
        self.bytes.extend_from_slice(value);
        self
    }

    #[must_use]
    pub fn null(mut self) -> Self {
        self.bytes.push(TAG_NULL);
        self
    }

    #[must_use]
    pub fn text(self, value: &str) -> Self {
        self.counted(TAG_TEXT, value.as_bytes())
    }

    /// A text, or NULL, which is not the empty text.
    #[must_use]
    pub fn optional(self, value: Option<&str>) -> Self {
        match value {
            Some(text) => self.text(text),
            None => self.null(),
        }
    }

    #[must_use]
    pub fn integer(mut self, value: i64) -> Self {
        self.bytes.push(TAG_INTEGER);
        self.bytes.extend_from_slice(&value.to_be_bytes());
        self
    }

    #[must_use]
    pub fn bytes(self, value: &[u8]) -> Self {
        self.counted(TAG_BYTES, value)
    }

    fn counted(mut self, tag: u8, value: &[u8]) -> Self {
        self.bytes.push(tag);
        self.bytes
            .extend_from_slice(&(value.len() as u64).to_be_bytes());
        self.bytes.extend_from_slice(value);
        self
    }

    /// What has been written so far, domain included.
    pub fn encoded(&self) -> &[u8] {
        &self.bytes
    }

    /// SHA-256 of all that was written.
    pub fn finish(&self) -> [u8; 32] {
        sha256(&self.bytes)
    }

    /// [`Canonical::finish`] as 64 lower-case hex digits.
    pub fn finish_hex(&self) -> String {
        hex::encode(self.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug, PartialEq)]
    enum Field {
        Null,
        Text(String),
        Integer(i64),
        Bytes(Vec<u8>),
    }

    fn field() -> impl Strategy<Value = Field> {
        prop_oneof![
            Just(Field::Null),
            "[a-c\0\u{1}\u{2}]{0,3}".prop_map(Field::Text),
            (-2i64..3).prop_map(Field::Integer),
            proptest::collection::vec(0u8..4, 0..3).prop_map(Field::Bytes),
        ]
    }

    fn encode(fields: &[Field]) -> Canonical {
        fields
            .iter()
            .fold(Canonical::new("test"), |form, field| match field {
                Field::Null => form.null(),
                Field::Text(text) => form.text(text),
                Field::Integer(value) => form.integer(*value),
                Field::Bytes(bytes) => form.bytes(bytes),
            })
    }

    #[test]
    fn sha256_agrees_with_the_published_vector() {
        assert_eq!(
            sha256_hex(b"abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn the_bytes_are_those_of_the_table() {
        let form = Canonical::new("d")
            .null()
            .text("ab")
            .integer(-2)
            .bytes(&[7])
            .raw(&[9, 9]);
        assert_eq!(
            hex::encode(form.encoded()),
            "6400".to_owned()
                + "00"
                + "0100000000000000026162"
                + "02fffffffffffffffe"
                + "03000000000000000107"
                + "0909"
        );
        assert_eq!(form.finish_hex(), sha256_hex(form.encoded()));
    }

    #[test]
    fn what_looks_alike_stays_apart() {
        let new = || Canonical::new("test");
        assert_ne!(
            new().text("ab").text("c").finish(),
            new().text("a").text("bc").finish()
        );
        assert_ne!(
            new().optional(None).finish(),
            new().optional(Some("")).finish()
        );
        assert_ne!(new().text("1").finish(), new().integer(1).finish());
        assert_ne!(new().text("a").finish(), new().bytes(b"a").finish());
        assert_ne!(
            new().text("\u{e9}").finish(),
            new().text("e\u{301}").finish()
        );
        assert_ne!(
            new().text("a").finish(),
            Canonical::new("other").text("a").finish()
        );
    }

    proptest! {
        #[test]
        fn equal_bytes_mean_equal_fields(
            a in proptest::collection::vec(field(), 0..5),
            b in proptest::collection::vec(field(), 0..5),
        ) {
            prop_assert_eq!(encode(&a) == encode(&b), a == b);
        }
    }
}
