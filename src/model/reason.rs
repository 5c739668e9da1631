//! Stable codes that say why an operation is risky, with one sentence each.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A text that names no reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a risk reason")]
pub struct UnknownReason(pub String);

/// Declares the codes once: variant, code, sentence.
macro_rules! reasons {
    ($($variant:ident $code:literal $text:literal,)+) => {
        /// Why an operation has its risk. `Display`, `FromStr` and serde use the code, which never changes once released.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum Reason {
            $(#[doc = $text] #[serde(rename = $code)] $variant,)+
        }

        impl Reason {
            /// All reasons, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The stable code.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $code,)+
                }
            }

            /// One sentence for a person who sees the code for the first time.
            pub const fn text(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }
        }
    };
}

reasons! {
    LockAccessExclusive "LOCK_ACCESS_EXCLUSIVE"
        "Takes ACCESS EXCLUSIVE: while it is held nobody reads or writes the table.",
    LockShareRowExclusive "LOCK_SHARE_ROW_EXCLUSIVE"
        "Takes SHARE ROW EXCLUSIVE: while it is held nobody writes to the table.",
    LockShare "LOCK_SHARE"
        "Takes SHARE: while it is held nobody writes to the table.",
    TableRewrite "TABLE_REWRITE"
        "Rewrites the whole table and its indexes while the lock is held.",
    FullScanUnderLock "FULL_SCAN_UNDER_LOCK"
        "Reads the whole table while the lock is held.",
    LargeTable "LARGE_TABLE"
        "The table is large, so whatever touches every row takes long.",
    HotTable "HOT_TABLE"
        "The table is written to often, so a lock is felt at once.",
    DataLoss "DATA_LOSS"
        "Removes data that cannot be computed again.",
    Irreversible "IRREVERSIBLE"
        "Has no statement that would undo it.",
    NotTransactional "NOT_TRANSACTIONAL"
        "Cannot run in a transaction, so a failure can leave something half made.",
    BreaksOldClients "BREAKS_OLD_CLIENTS"
        "Statements of applications that know only the old shape will fail.",
    BreaksNewClients "BREAKS_NEW_CLIENTS"
        "Statements of applications that know only the new shape will fail until it is done.",
    DependentObjects "DEPENDENT_OBJECTS"
        "Other objects depend on it and have to be rebuilt.",
    NarrowingCast "NARROWING_CAST"
        "The new type holds fewer values than the old one, so rows can be refused or lose precision.",
    VolatileDefault "VOLATILE_DEFAULT"
        "The default is computed anew for every row that exists.",
    ConstraintMayFail "CONSTRAINT_MAY_FAIL"
        "Existing rows can violate the new constraint.",
    DuplicatesFound "DUPLICATES_FOUND"
        "Rows exist that are equal in the columns that are to be unique.",
    OrphansFound "ORPHANS_FOUND"
        "Rows exist whose reference points to no row.",
    NullsFound "NULLS_FOUND"
        "Rows exist that are NULL in a column that is to be NOT NULL.",
    Cascade "CASCADE"
        "Reaches other objects by CASCADE.",
    LongTransaction "LONG_TRANSACTION"
        "Is one long transaction, which holds back vacuum in the whole database.",
    ReplicationImpact "REPLICATION_IMPACT"
        "Writes much WAL or changes what a subscriber receives, so replicas can fall behind.",
    DiskSpace "DISK_SPACE"
        "Needs room for a second copy of the table or its indexes for a time.",
    PrivilegeChange "PRIVILEGE_CHANGE"
        "Changes who may do what.",
    UnknownStatement "UNKNOWN_STATEMENT"
        "The statement has no recipe, so what it does is not known beforehand.",
    NoKey "NO_KEY"
        "The table has no key by which a row can be found again.",
}

impl Reason {
    /// Whether it says what a look at the rows has found.
    pub const fn is_found(self) -> bool {
        matches!(
            self,
            Self::DuplicatesFound | Self::OrphansFound | Self::NullsFound
        )
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Reason {
    type Err = UnknownReason;

    fn from_str(s: &str) -> Result<Self, UnknownReason> {
        Self::ALL
            .iter()
            .copied()
            .find(|reason| reason.as_str() == s)
            .ok_or_else(|| UnknownReason(s.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn codes_are_unique_read_back_and_serde_agrees() {
        for reason in Reason::ALL {
            assert_eq!(reason.to_string().parse(), Ok(*reason));
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.to_string());
        }
        let codes: HashSet<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(codes.len(), Reason::ALL.len());
        assert!("LOCK".parse::<Reason>().is_err());
    }

    #[test]
    fn codes_are_the_variants_in_upper_snake_case() {
        for reason in Reason::ALL {
            let variant = format!("{reason:?}").to_uppercase();
            assert_eq!(reason.as_str().replace('_', ""), variant);
        }
    }

    #[test]
    fn texts_are_one_sentence() {
        for reason in Reason::ALL {
            let text = reason.text();
            assert!(
                text.ends_with('.') && text.matches(". ").count() == 0,
                "{reason}: {text}"
            );
        }
    }
}
