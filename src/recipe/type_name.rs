//! Names of types and of their values. With CREATE TYPE and a change of the columns' type they make the script that takes a
//! value away from an enum, for which there is no statement.

use super::Planner;
use crate::catalog::relation;
use crate::error::Result;
use crate::model::ident::{quote_ident, quote_literal, QualifiedName};
use crate::model::reason::Reason;
use crate::model::risk::Facts;
use crate::pg::maintenance::Name;
use crate::pg::parser::Statement;
use crate::pg::utility;
use crate::pg::xact::{self, End};

/// dependent_objects_still_exist
const DEPENDENT_OBJECTS: &str = "2BP01";

impl Planner<'_> {
    pub(super) fn rename_enum_value(
        &mut self,
        number: i32,
        statement: &Statement,
        of: &Name,
        old: &str,
        new: &str,
    ) -> Result<()> {
        self.tried(statement)?;
        let revert = self.type_of(of)?.map(|name| {
            format!(
                "ALTER TYPE {name} RENAME VALUE {} TO {}",
                quote_literal(new),
                quote_literal(old)
            )
        });
        self.name_of_type(number, statement, of, revert);
        Ok(())
    }

    pub(super) fn rename_type(
        &mut self,
        number: i32,
        statement: &Statement,
        of: &Name,
        new: &str,
    ) -> Result<()> {
        let there = self.type_of(of)?;
        if there.is_some() || !self.builds_on_earlier(number) {
            self.tried(statement)?;
        }
        let revert = there.map(|old| {
            format!(
                "ALTER TYPE {} RENAME TO {}",
                QualifiedName::new(&old.schema, new),
                quote_ident(&old.name)
            )
        });
        self.name_of_type(number, statement, of, revert);
        Ok(())
    }

    /// A type that nothing uses is dropped and made again like anything else. One that is in use is dropped at the end: the
    /// script may change what uses it, and the server has the last word.
    pub(super) fn drop_type(&mut self, number: i32, statement: &Statement) -> Result<()> {
        match self.tried(statement) {
            Ok(()) => return self.as_it_stands(number, statement),
            Err(error) if error.sqlstate_text() == DEPENDENT_OBJECTS => {}
            Err(_) if self.builds_on_earlier(number) => {}
            Err(error) => return Err(error),
        }
        let target = match statement.effects.drops.first() {
            Some(object) => quote_ident(&object.name),
            None => statement.tag.clone(),
        };
        self.execute(number, statement, target, None, Facts::default(), vec![]);
        Ok(())
    }

    /// Runs it and undoes it: the server says whether it may be.
    fn tried(&self, statement: &Statement) -> Result<()> {
        xact::subtransaction(End::Undo, || {
            self.as_caller(|| utility::run(&statement.text))
        })
    }

    fn name_of_type(
        &mut self,
        number: i32,
        statement: &Statement,
        of: &Name,
        revert: Option<String>,
    ) {
        let reasons = vec![Reason::BreaksOldClients];
        let target = match &of.schema {
            Some(schema) => QualifiedName::new(schema, &of.name).to_string(),
            None => quote_ident(&of.name),
        };
        self.execute(number, statement, target, revert, Facts::default(), reasons);
    }

    /// The type of the catalog that a name means to the caller; `None`: there is none, the script may make it.
    fn type_of(&self, of: &Name) -> Result<Option<QualifiedName>> {
        let name = match &of.schema {
            Some(schema) => QualifiedName::new(schema, &of.name).to_string(),
            None => quote_ident(&of.name),
        };
        self.as_caller(|| relation::type_name(&name))
    }
}
