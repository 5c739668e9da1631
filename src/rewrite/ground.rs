//! Where statements are tried: schemas of our own, one for each owner of tables, made once and undone at the end. A schema that
//! comes or goes makes the server plan every kept query anew, so a long script does not make one for each statement.

use crate::catalog::relation::Relation;
use crate::error::Result;
use crate::model::ident::quote_ident;
use crate::pg::xact::{self, End};
use crate::pg::{activity, spi};
use std::cell::RefCell;
use std::collections::HashSet;

#[derive(Debug, Default)]
pub struct Ground {
    made: RefCell<HashSet<String>>,
}

/// Runs `f` with a ground to try things on; all that it does to the database is undone.
pub fn with<T>(f: impl FnOnce(&Ground) -> Result<T>) -> Result<T> {
    xact::subtransaction(End::Undo, || f(&Ground::default()))
}

impl Ground {
    /// The schema for copies of tables of this table's owner. Ask for it before the subtransaction that fills it.
    pub fn of(&self, table: &Relation) -> Result<String> {
        let schema = format!("{}_{}", prefix(), table.owner.to_u32());
        self.make(&schema, Some(&table.owner_name))?;
        Ok(schema)
    }

    /// A schema of the extension's own.
    pub fn own(&self) -> Result<String> {
        let schema = prefix();
        self.make(&schema, None)?;
        Ok(schema)
    }

    fn make(&self, schema: &str, owner: Option<&str>) -> Result<()> {
        if self.made.borrow().contains(schema) {
            return Ok(());
        }
        let owner = owner.map(|o| format!(" AUTHORIZATION {}", quote_ident(o)));
        spi::execute(
            &format!("CREATE SCHEMA {schema}{}", owner.unwrap_or_default()),
            &[],
        )?;
        self.made.borrow_mut().insert(schema.to_string());
        Ok(())
    }
}

fn prefix() -> String {
    format!("_transmute_try_{}", activity::pid())
}
