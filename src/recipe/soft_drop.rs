//! DROP TABLE and DROP COLUMN: hidden at the end, dropped when the artifact expires.

use super::draft::Draft;
use super::Planner;
use crate::catalog::column;
use crate::catalog::relation::Relation;
use crate::error::{Error, Result};
use crate::model::ident::quote_ident;
use crate::model::phase::Phase;
use crate::model::reason::Reason;
use crate::pg::parser::{DropTable, Statement};
use crate::pg::spi;
use crate::recover;
use crate::rewrite::require_free;
use crate::store::step::Kind as StepKind;

impl Planner<'_> {
    pub(super) fn drop_table(
        &mut self,
        number: i32,
        statement: &Statement,
        drop: &DropTable,
    ) -> Result<()> {
        let mut tables = Vec::new();
        let mut missing = None;
        for named in &drop.tables {
            match self.table_named(named)? {
                Some(table) => tables.push(table),
                None if drop.missing_ok => missing = Some(named),
                None => return self.missing_table(number, statement, named, false),
            }
        }
        if let (true, Some(named)) = (tables.is_empty(), missing) {
            return self.missing_table(number, statement, named, true);
        }
        for table in &tables {
            self.require_alterable(table)?;
            require_free(table, "")?;
            if table.kind == 'p' || table.is_partition || table.has_inheritance {
                return Err(Error::Unsupported {
                    problem: "dropping a partitioned or inherited table online is not supported yet".into(),
                    detail: format!("{} is part of a partition or inheritance tree.", table.name),
                    hint: "DETACH PARTITION CONCURRENTLY and drop it then, or drop it in a maintenance window.".into(),
                });
            }
        }
        let oids: Vec<_> = tables.iter().map(|t| t.oid).collect();
        let names: Vec<String> = tables.iter().map(|t| t.name.to_string()).collect();
        recover::require_unused(&oids, &[], &names.join(", "))?;
        let plain = [
            Reason::LockAccessExclusive,
            Reason::DataLoss,
            Reason::BreaksOldClients,
        ];
        for table in &tables {
            let sql = format!("DROP TABLE {}", table.name);
            let draft = match self.drops_at_once() {
                true => Draft::new(
                    StepKind::Execute,
                    Phase::Contract,
                    table.name.to_string(),
                    sql,
                )
                .reasons(plain)
                .reasons([Reason::Irreversible]),
                false => Draft::new(
                    StepKind::HideTable,
                    Phase::Contract,
                    table.name.to_string(),
                    sql,
                )
                .reasons([Reason::LockAccessExclusive, Reason::BreaksOldClients]),
            };
            let draft = draft
                .lock("ACCESS EXCLUSIVE")
                .naive("drops the table and its rows at once", &plain);
            self.push(number, &table.facts(), draft);
        }
        Ok(())
    }

    /// ALTER TABLE that drops columns and does nothing else.
    pub(super) fn drop_columns(
        &mut self,
        number: i32,
        table: &Relation,
        dropped: &[i16],
    ) -> Result<()> {
        require_free(table, "")?;
        recover::require_unused(&[table.oid], dropped, &table.name.to_string())?;
        let plain = [
            Reason::LockAccessExclusive,
            Reason::DataLoss,
            Reason::BreaksOldClients,
        ];
        let facts = table.facts();
        for column in column::list(table.oid)?
            .iter()
            .filter(|c| dropped.contains(&c.number))
        {
            let name = quote_ident(&column.name);
            let must_be_given = column.not_null
                && column.expression.is_empty()
                && column.identity.is_empty()
                && column.generated.is_empty();
            let mut reasons = vec![Reason::LockAccessExclusive, Reason::BreaksOldClients];
            if must_be_given {
                match self.not_null_again(table, column.number, &name)? {
                    Some(back) => self.push(
                        number,
                        &facts,
                        Draft::new(
                            StepKind::RelaxColumn,
                            Phase::Expand,
                            table.name.to_string(),
                            format!(
                                "ALTER TABLE {} ALTER COLUMN {name} DROP NOT NULL",
                                table.name
                            ),
                        )
                        .lock("ACCESS EXCLUSIVE")
                        .reasons([Reason::LockAccessExclusive])
                        .revert(Some(back)),
                    ),
                    // Part of the primary key: until it goes nobody writes rows without it.
                    None => reasons.push(Reason::BreaksNewClients),
                }
            }
            let draft = Draft::new(
                StepKind::HideColumn,
                Phase::Contract,
                table.name.to_string(),
                format!("ALTER TABLE {} DROP COLUMN {name}", table.name),
            )
            .lock("ACCESS EXCLUSIVE")
            .naive("drops the column and its values at once", &plain)
            .reasons(reasons);
            self.push(number, &facts, draft);
        }
        Ok(())
    }

    pub(super) fn drops_at_once(&self) -> bool {
        self.meta.drop_policy.as_deref() == Some("drop")
    }

    /// The statement that makes the column NOT NULL again, under the same constraint name where it has one; `None`: it
    /// cannot be anything else.
    fn not_null_again(&self, table: &Relation, number: i16, name: &str) -> Result<Option<String>> {
        let in_key: Option<bool> = spi::value(
            "SELECT EXISTS (SELECT FROM pg_index WHERE indrelid = $1 AND indisprimary AND $2 = ANY (indkey::int2[]))",
            &[table.oid.into(), number.into()],
        )?;
        if in_key == Some(true) {
            return Ok(None);
        }
        let constraint: Option<String> = spi::first(
            "SELECT conname::text FROM pg_constraint WHERE conrelid = $1 AND contype = 'n' AND conkey = ARRAY[$2::int2]",
            &[table.oid.into(), number.into()],
            |row| row.need(1),
        )?;
        Ok(Some(match constraint {
            Some(constraint) => format!(
                "ALTER TABLE {} ADD CONSTRAINT {} NOT NULL {name}",
                table.name,
                quote_ident(&constraint)
            ),
            None => format!(
                "ALTER TABLE {} ALTER COLUMN {name} SET NOT NULL",
                table.name
            ),
        }))
    }
}
