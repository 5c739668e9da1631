//! The way back of a value that an enum has got: the server takes none away, so another type without it takes the place of
//! the enum, and the columns of tables change to that.

use crate::catalog::fact;
use crate::error::Result;
use crate::pg::affected::{Subject, Way};
use crate::pg::Oid;

/// A value that a statement adds.
pub(super) struct Added {
    enumeration: Oid,
    label: String,
    /// It was there before: IF NOT EXISTS.
    had: bool,
}

/// The value that a statement will add; `None`: it does something else.
pub(super) fn by(subject: &Subject) -> Result<Option<Added>> {
    let (Way::Value(label), Some(address)) = (&subject.way, subject.objects.first()) else {
        return Ok(None);
    };
    Ok(Some(Added {
        enumeration: address.object,
        label: label.clone(),
        had: fact::has_label(address.object, label)?,
    }))
}

impl Added {
    /// What takes it away again; the inner error says why nothing does.
    pub fn way_back(
        &self,
        owner: Oid,
        as_written: bool,
    ) -> Result<std::result::Result<Vec<String>, String>> {
        if self.had {
            return Ok(Ok(Vec::new()));
        }
        let back = fact::enum_without(self.enumeration, &self.label, owner, as_written)?;
        Ok(back.ok_or_else(|| {
            "more than plain columns of tables uses the enum, of which the server takes no value away"
                .into()
        }))
    }
}
