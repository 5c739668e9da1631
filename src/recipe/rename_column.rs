//! A column gets another name.

use super::draft::Draft;
use super::Planner;
use crate::catalog::column;
use crate::catalog::relation::Relation;
use crate::dualwrite;
use crate::error::{Error, Result};
use crate::model::ident;
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
        if table.is_partition || table.has_inheritance && table.kind != 'p' {
            return Err(Error::Unsupported {
                problem: "renaming a column of a partition or of an inherited table online is not supported".into(),
                detail: format!("{} is part of a partition or inheritance tree.", table.name),
                hint: "Of a partitioned table, rename it on the table itself.".into(),
            });
        }
        let columns = column::list(table.oid)?;
        let named = |name: &str| columns.iter().any(|c| !c.dropped && c.name == name);
        let added = (table.oid.to_u32(), rename.column.clone());
        let by = match named(&rename.column) {
            true => None,
            false => self.added.remove(&added),
        };
        if let Some(by) = by {
            // Nobody knows it yet.
            self.added
                .insert((table.oid.to_u32(), rename.new_name.clone()), by);
            self.note_rename(&table, statement);
            self.rename_in_place(number, &table, rename, &[Reason::LockAccessExclusive]);
            return Ok(());
        }
        if !named(&rename.column) {
            return Err(Error::UndefinedColumn {
                table: table.name.to_string(),
                column: rename.column.clone(),
            });
        }
        if named(&rename.new_name) || SYSTEM_COLUMNS.contains(&rename.new_name.as_str()) {
            return Err(Error::DuplicateColumn {
                table: table.name.to_string(),
                column: rename.new_name.clone(),
            });
        }
        // Later statements of the script know the new name.
        self.note_rename(&table, statement);
        if self.meta.rename.as_deref() == Some("in_place") {
            self.rename_in_place(number, &table, rename, &PLAIN);
            return Ok(());
        }
        if matches!(self.meta.dual_write.as_deref(), Some("rule" | "trigger")) {
            let old = columns
                .iter()
                .find(|c| !c.dropped && c.name == rename.column);
            let old = old.ok_or_else(|| Error::Bug("a column that was there".into()))?;
            return self.rename_by_rule(number, &table, old, &rename.new_name);
        }
        if self.is_published(&table)? {
            return Err(Error::Unsupported {
                problem: "a column of a published table cannot have two names".into(),
                detail: format!(
                    "Meanwhile subscribers would receive the changes of {} under another table's name.",
                    table.name
                ),
                hint: "meta => '{\"rename\": \"in_place\"}' is the plain rename, with a way back."
                    .into(),
            });
        }
        dualwrite::looks_as_invoker(&table)?;
        let forth = ident::rename_column(&table.name, &rename.column, &rename.new_name);
        let facts = table.facts();
        let both = Draft::new(
            StepKind::RenameBoth,
            Phase::Expand,
            table.name.to_string(),
            &forth,
        )
        .lock("ACCESS EXCLUSIVE")
        .naive("the old name is gone at once", &PLAIN)
        .reasons([Reason::LockAccessExclusive]);
        self.push(number, &facts, both);
        let finish = Draft::new(
            StepKind::RenameFinish,
            Phase::Contract,
            table.name.to_string(),
            forth,
        )
        .lock("ACCESS EXCLUSIVE")
        .reasons(PLAIN);
        self.push(number, &facts, finish);
        Ok(())
    }

    fn note_rename(&mut self, table: &Relation, statement: &Statement) {
        let altered = self.altered.entry(table.oid.to_u32()).or_default();
        altered.statements.push(statement.text.clone());
    }

    fn rename_in_place(
        &mut self,
        number: i32,
        table: &Relation,
        rename: &RenameColumn,
        reasons: &[Reason],
    ) {
        let draft = Draft::new(
            StepKind::Execute,
            Phase::Expand,
            table.name.to_string(),
            ident::rename_column(&table.name, &rename.column, &rename.new_name),
        )
        .lock("ACCESS EXCLUSIVE")
        .naive("the old name is gone at once", reasons)
        .reasons(reasons.iter().copied())
        .revert(Some(ident::rename_column(
            &table.name,
            &rename.new_name,
            &rename.column,
        )));
        self.push(number, &table.facts(), draft);
    }
}

/// Every table has them; their names are taken.
const SYSTEM_COLUMNS: [&str; 6] = ["ctid", "xmin", "cmin", "xmax", "cmax", "tableoid"];

/// What the plain rename means for the application.
const PLAIN: [Reason; 2] = [Reason::LockAccessExclusive, Reason::BreaksOldClients];
