//! ALTER TYPE … ADD VALUE, as it stands, at the end: the server takes no value away again.

use super::Planner;
use crate::error::Result;
use crate::model::risk::Facts;
use crate::pg::parser::Statement;
use crate::pg::utility;
use crate::pg::xact::{self, End};

impl Planner<'_> {
    pub(super) fn add_enum_value(&mut self, number: i32, statement: &Statement) -> Result<()> {
        // The server says whether it may be, and undoes it.
        xact::subtransaction(End::Undo, || {
            self.as_caller(|| utility::run(&statement.text))
        })?;
        let target = match statement.effects.alters.first() {
            Some(object) => object.name.clone(),
            None => statement.tag.clone(),
        };
        self.execute(number, statement, target, None, Facts::default(), vec![]);
        Ok(())
    }
}
