//! Finding the rows that fail: halve the work until each failing piece stands alone.

use crate::error::{Error, Result};
use crate::model::retry::{classify, RetryClass};
use crate::pg::xact::{self, End};

/// Runs `work` on all of `items` in one subtransaction; where that fails for a reason that lies in the data, on
/// each half, and so on. `refuse` is told of each single item that fails, outside its subtransaction.
/// A passing error (deadlock, cancel, out of memory …) ends it: nothing is a dead letter for that.
pub fn run<T>(
    items: &[T],
    work: &mut dyn FnMut(&[T]) -> Result<()>,
    refuse: &mut dyn FnMut(&T, Error) -> Result<()>,
) -> Result<()> {
    if items.is_empty() {
        return Ok(());
    }
    match xact::subtransaction(End::Keep, || work(items)) {
        Ok(()) => Ok(()),
        Err(error) if !is_data_error(&error) => Err(error),
        Err(error) if items.len() == 1 => refuse(&items[0], error),
        Err(_) => {
            let (left, right) = items.split_at(items.len() / 2);
            run(left, work, refuse)?;
            run(right, work, refuse)
        }
    }
}

/// Whether an error says something about a row, not about the server's condition or our own code.
pub fn is_data_error(error: &Error) -> bool {
    match error {
        Error::Server(_) => classify(&error.sqlstate_text()) == RetryClass::Final,
        _ => false,
    }
}
