//! A column gets another name.

use super::draft::Draft;
use super::Planner;
use crate::catalog::column;
use crate::error::{Error, Result};
use crate::model::ident::quote_ident;
use crate::model::phase::Phase;
use crate::model::reason::Reason;
use crate::pg::parser::{RenameColumn, Statement};
use crate::rewrite::require_free;
use crate::store::step::Kind as StepKind;

impl Planner<'_> {
    pub(super) fn rename_column(
        &mut self,
        number: i32,
        statement: &Statement,
        rename: &RenameColumn,
    ) -> Result<()> {
        let Some(table) = self.table_named(&rename.table)? else {
            return self.missing_table(number, statement, &rename.table, rename.missing_ok);
        };
        self.require_alterable(&table)?;
        require_free(&table, "")?;
        let columns = column::list(table.oid)?;
        let named = |name: &str| columns.iter().any(|c| !c.dropped && c.name == name);
        if !named(&rename.column) {
            return Err(Error::UndefinedColumn {
                table: table.name.to_string(),
                column: rename.column.clone(),
            });
        }
        if named(&rename.new_name) {
            return Err(Error::DuplicateColumn {
                table: table.name.to_string(),
                column: rename.new_name.clone(),
            });
        }
        if self.meta.rename.as_deref() != Some("in_place") {
            return Err(Error::Unsupported {
                problem: "renaming a column with both names in use is not supported yet".into(),
                detail: format!("The statement stands in line {}.", statement.line),
                hint: "meta => '{\"rename\": \"in_place\"}' is the plain rename, with a way back."
                    .into(),
            });
        }
        let sql = |from: &str, to: &str| {
            format!(
                "ALTER TABLE {} RENAME COLUMN {} TO {}",
                table.name,
                quote_ident(from),
                quote_ident(to)
            )
        };
        let plain = [Reason::LockAccessExclusive, Reason::BreaksOldClients];
        let draft = Draft::new(
            StepKind::Execute,
            Phase::Expand,
            table.name.to_string(),
            sql(&rename.column, &rename.new_name),
        )
        .lock("ACCESS EXCLUSIVE")
        .naive("the old name is gone at once", &plain)
        .reasons(plain)
        .revert(Some(sql(&rename.new_name, &rename.column)));
        self.push(number, &table.facts(), draft);
        Ok(())
    }
}
