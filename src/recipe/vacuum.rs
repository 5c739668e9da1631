//! VACUUM and ANALYZE of a table, as they stand.

use super::draft::Draft;
use super::names::Target;
use super::Planner;
use crate::catalog::relation;
use crate::error::{Error, Result};
use crate::model::phase::Phase;
use crate::model::reason::Reason;
use crate::pg::maintenance::Vacuum;
use crate::pg::parser::Statement;
use crate::store::step::Kind as StepKind;

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
            return Err(Error::Unsupported {
                problem: "VACUUM FULL keeps everybody out while it writes the table anew".into(),
                detail: format!("The statement stands in line {}.", statement.line),
                hint: "Leave FULL out, or run it in a maintenance window.".into(),
            });
        }
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
