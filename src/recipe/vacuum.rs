//! VACUUM and ANALYZE of a table, as they stand but for FULL.

use super::draft::Draft;
use super::names::Target;
use super::write_anew::Order;
use super::Planner;
use crate::catalog::relation;
use crate::error::{Error, Result};
use crate::model::phase::Phase;
use crate::model::reason::Reason;
use crate::pg::maintenance::Vacuum;
use crate::pg::parser::Statement;
use crate::pg::utility;
use crate::pg::xact::{self, End};
use crate::store::step::Kind as StepKind;

/// The server looks at the options of a VACUUM before it refuses to run one inside of a transaction (25001).
fn require_accepted(statement: &Statement) -> Result<()> {
    if statement.tag != "VACUUM" {
        return Ok(());
    }
    let error = match xact::subtransaction(End::Undo, || utility::run(&statement.text)) {
        Err(error) if error.sqlstate_text() == "25001" => return Ok(()),
        Err(error) => error,
        Ok(()) => Error::Bug("VACUUM ran inside of a transaction".into()),
    };
    Err(error
        .within(&format!("VACUUM stands in line {}", statement.line))
        .hinting("\\h VACUUM in psql lists what it takes."))
}

impl Planner<'_> {
    pub(super) fn vacuum(
        &mut self,
        number: i32,
        statement: &Statement,
        vacuum: &Vacuum,
    ) -> Result<()> {
        let [name] = vacuum.tables.as_slice() else {
            return Err(Error::Unsupported {
                problem: format!(
                    "{} of anything but one table is not supported",
                    statement.tag
                ),
                detail: format!("The statement stands in line {}.", statement.line),
                hint: "Write one statement for each table: each runs as the owner of its table."
                    .into(),
            });
        };
        if vacuum.full {
            let order = Order::AsTheyAre;
            self.write_anew(number, statement, name, &order, &vacuum.options)?;
            return require_accepted(statement);
        }
        require_accepted(statement)?;
        let schema = name.schema.as_deref();
        let oid = match self.lookup(schema, &name.name)? {
            Target::Existing(oid) => oid,
            Target::New | Target::Nothing => return Err(self.undefined(schema, &name.name)),
        };
        let table = relation::get(oid)?;
        match table.kind {
            'm' => self.require_owned(&table)?,
            _ => self.require_alterable(&table)?,
        }
        let target = table.name.to_string();
        let draft = Draft::new(StepKind::Outside, Phase::Validate, target, &statement.text)
            .lock("SHARE UPDATE EXCLUSIVE")
            .outside()
            .reasons([Reason::NotTransactional]);
        self.push(number, &table.facts(), draft);
        Ok(())
    }
}
