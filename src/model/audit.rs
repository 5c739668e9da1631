//! The audit trail: what a record holds, how it is hashed onto its predecessor, how it is exported.
//! `docs/audit-format.md` is the normative description; [`crate::model::verifier`] checks a trail.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::model::digest::Canonical;

pub use crate::model::verifier::Verifier;

/// The encoding that [`link`] writes; part of every record, so that later encodings leave old records verifiable.
pub const ENCODING_VERSION: i32 = 1;

/// Says what the hash is of. Closed by a zero byte.
pub const DOMAIN: &str = "transmute-audit-v1";

/// What the first record has in place of its predecessor's hash.
pub const GENESIS_PREV: [u8; 32] = [0; 32];

/// The event of the first record, whose detail names the database and the system it belongs to.
pub const GENESIS_EVENT: &str = "genesis";

/// One entry of the trail, without its place in the chain. The order of the fields is that of the table, of the hash and
/// of the export.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// From 1, without gaps.
    pub seq: i64,
    /// [`ENCODING_VERSION`] of the release that wrote the record.
    pub encoding_version: i32,
    /// `clock_timestamp()` in microseconds since the Unix epoch. May run backwards when the clock does.
    pub at_us: i64,
    /// `transaction_timestamp()`, in microseconds since the Unix epoch.
    pub transaction_at_us: i64,
    /// The 64-bit id of the transaction that appended it, in decimal.
    pub xid: String,
    pub session_user: String,
    pub current_user: String,
    pub application_name: String,
    /// `None` for a Unix socket and for background workers.
    pub client_addr: Option<String>,
    /// `None` for what concerns no migration.
    pub migration_id: Option<String>,
    pub event: String,
    pub from_state: Option<String>,
    pub to_state: Option<String>,
    /// A JSON text, hashed byte for byte as it is stored.
    pub detail: Option<String>,
}

/// The bytes that are hashed for a record.
fn canonical(prev: &[u8; 32], record: &Record) -> Canonical {
    Canonical::new(DOMAIN)
        .raw(prev)
        .integer(record.seq)
        .integer(i64::from(record.encoding_version))
        .integer(record.at_us)
        .integer(record.transaction_at_us)
        .text(&record.xid)
        .text(&record.session_user)
        .text(&record.current_user)
        .text(&record.application_name)
        .optional(record.client_addr.as_deref())
        .optional(record.migration_id.as_deref())
        .text(&record.event)
        .optional(record.from_state.as_deref())
        .optional(record.to_state.as_deref())
        .optional(record.detail.as_deref())
}

/// The hash of `record` as the successor of the record with hash `prev`: SHA-256 over the domain, `prev` and the canonical
/// form of all fields.
pub fn link(prev: &[u8; 32], record: &Record) -> [u8; 32] {
    canonical(prev, record).finish()
}

/// A place in the chain and the hash there: what is kept outside the database. Spelled `SEQ:HEX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Head {
    /// Number of the record; 0 for an empty trail.
    pub seq: i64,
    pub hash: [u8; 32],
}

impl Head {
    /// The head of a trail without records.
    pub const EMPTY: Self = Self {
        seq: 0,
        hash: GENESIS_PREV,
    };
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.seq, hex::encode(self.hash))
    }
}

/// A text that is not a head.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not an audit head (SEQ:HEX, a number and 64 hex digits)")]
pub struct NotAHead(pub String);

impl FromStr for Head {
    type Err = NotAHead;

    fn from_str(s: &str) -> Result<Self, NotAHead> {
        let read = || {
            let (seq, digits) = s.trim().split_once(':')?;
            let mut hash = [0; 32];
            hex::decode_to_slice(digits, &mut hash).ok()?;
            let seq = seq.parse().ok().filter(|seq| *seq >= 0)?;
            Some(Self { seq, hash })
        };
        read().ok_or_else(|| NotAHead(s.to_owned()))
    }
}

/// What is wrong with a trail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// A field of the record, its number or its own hash was changed.
    ContentChanged,
    /// The record does not follow its predecessor: one of the two was replaced, inserted or removed.
    LinkBroken,
    /// Records are missing before this one.
    SequenceGap,
    /// The record's number was there already: it was duplicated, inserted or moved.
    OutOfOrder,
    /// The record was written by a release whose encoding this one does not know.
    UnknownEncoding,
    /// The first record is not the one that began the trail.
    NotGenesis,
    /// The trail ends before the expected head: its tail was removed.
    TailMissing,
    /// The trail has another hash at the expected head: it was rewritten up to there or further back.
    HeadMismatch,
    /// The verification started after the expected head, so it can say nothing about it.
    HeadNotCovered,
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::ContentChanged => "content_changed",
            Self::LinkBroken => "link_broken",
            Self::SequenceGap => "sequence_gap",
            Self::OutOfOrder => "out_of_order",
            Self::UnknownEncoding => "unknown_encoding",
            Self::NotGenesis => "not_genesis",
            Self::TailMissing => "tail_missing",
            Self::HeadMismatch => "head_mismatch",
            Self::HeadNotCovered => "head_not_covered",
        })
    }
}

/// The first fault of a trail.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind} at {seq}: {text}")]
pub struct Fault {
    /// Number of the record at fault; of the first missing one where records are missing.
    pub seq: i64,
    pub kind: FaultKind,
    /// One sentence for a person.
    pub text: String,
}

impl Fault {
    pub(crate) fn new(seq: i64, kind: FaultKind, text: String) -> Self {
        Self { seq, kind, text }
    }
}

/// A record with its place in the chain, as one line of the export.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct ExportLine<'a> {
    #[serde(flatten)]
    record: &'a Record,
    prev_hash: String,
    hash: String,
}

/// One line of `transmute.audit_export()`: a JSON object, no line feed in it or after it.
///
/// # Errors
/// Never in practice: a record holds nothing that JSON cannot say. The error is passed on rather than hidden.
pub fn export_line(
    record: &Record,
    prev: &[u8; 32],
    hash: &[u8; 32],
) -> serde_json::Result<String> {
    serde_json::to_string(&ExportLine {
        record,
        prev_hash: hex::encode(prev),
        hash: hex::encode(hash),
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The document from which others write verifiers; its examples are checked against this code.
    const FORMAT: &str = include_str!("../../docs/audit-format.md");

    /// The fenced block that follows the line `<!-- NAME -->`.
    fn block(name: &str) -> &'static str {
        let marker = format!("<!-- {name} -->\n```");
        let after = FORMAT.split_once(&marker).expect(name).1;
        let body = after.split_once('\n').expect(name).1;
        body.split_once("\n```").expect(name).0
    }

    /// A line of the export, read back.
    #[derive(Deserialize)]
    struct Line {
        #[serde(flatten)]
        record: serde_json::Map<String, serde_json::Value>,
        prev_hash: String,
        hash: String,
    }

    pub(crate) fn read_line(line: &str) -> (Record, [u8; 32], [u8; 32]) {
        let line: Line = serde_json::from_str(line).unwrap();
        let hash = |digits: &str| <[u8; 32]>::try_from(hex::decode(digits).unwrap()).unwrap();
        let record = serde_json::from_value(line.record.into()).unwrap();
        (record, hash(&line.prev_hash), hash(&line.hash))
    }

    #[test]
    fn the_documented_example_is_what_this_code_computes() {
        let lines: Vec<&str> = block("example export").lines().collect();
        assert_eq!(lines.len(), 3);
        let mut prev = GENESIS_PREV;
        for line in &lines {
            let (record, stated_prev, hash) = read_line(line);
            assert_eq!(stated_prev, prev);
            assert_eq!(link(&prev, &record), hash);
            assert_eq!(export_line(&record, &prev, &hash).unwrap(), *line);
            prev = hash;
        }
        assert_eq!(
            block("example head"),
            Head { seq: 3, hash: prev }.to_string()
        );
    }

    #[test]
    fn the_documented_bytes_are_what_is_hashed() {
        let digits: String = block("example bytes")
            .lines()
            .flat_map(|line| {
                line.split_once('#')
                    .map_or(line, |(digits, _)| digits)
                    .chars()
            })
            .filter(|c| !c.is_whitespace())
            .collect();
        let (record, prev, _) = read_line(block("example export").lines().next().unwrap());
        assert_eq!(digits, hex::encode(canonical(&prev, &record).encoded()));
    }

    #[test]
    fn heads_read_back_and_nonsense_is_refused() {
        let head = Head {
            seq: 7,
            hash: [0xab; 32],
        };
        assert_eq!(head.to_string().parse(), Ok(head));
        assert_eq!(format!(" {head}\n").parse(), Ok(head));
        for text in ["", "7", "7:", "7:ab", "-1:00", "x:00"] {
            assert!(text.parse::<Head>().is_err(), "{text}");
        }
        assert!(format!("-1{}", &head.to_string()[1..])
            .parse::<Head>()
            .is_err());
    }

    fn text() -> impl Strategy<Value = String> {
        "[ab\n\"\\\\\u{e9}\u{2028}]{0,3}"
    }

    prop_compose! {
        fn any_record()(
            numbers in (0i64..3, 0i32..3, 0i64..3, 0i64..3),
            texts in (text(), text(), text(), text(), text()),
            options in proptest::array::uniform5(proptest::option::of(text())),
        ) -> Record {
            let [client_addr, migration_id, from_state, to_state, detail] = options;
            let (seq, encoding_version, at_us, transaction_at_us) = numbers;
            let (xid, session_user, current_user, application_name, event) = texts;
            Record {
                seq, encoding_version, at_us, transaction_at_us, xid, session_user, current_user, application_name,
                client_addr, migration_id, event, from_state, to_state, detail,
            }
        }
    }

    proptest! {
        #[test]
        fn equal_hashes_mean_equal_records(a in any_record(), b in any_record(), p in 0u8..2, q in 0u8..2) {
            prop_assert_eq!(link(&[p; 32], &a) == link(&[q; 32], &b), (p, &a) == (q, &b));
        }

        #[test]
        fn a_line_of_the_export_reads_back(record in any_record(), prev: [u8; 32], hash: [u8; 32]) {
            let line = export_line(&record, &prev, &hash).unwrap();
            prop_assert!(!line.contains('\n'));
            prop_assert_eq!(read_line(&line), (record, prev, hash));
        }
    }
}
