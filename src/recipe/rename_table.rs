//! A table gets another name or schema: the table is renamed at once, and a view keeps the old name until the end.

use super::draft::Draft;
use super::names::Target;
use super::Planner;
use crate::catalog::relation::{self, Relation};
use crate::dualwrite;
use crate::error::{Error, Result};
use crate::model::ident::{quote_ident, QualifiedName};
use crate::model::lock::{Lock, Mode};
use crate::model::phase::Phase;
use crate::model::reason::Reason;
use crate::pg::parser::{Named, NewPlace, RenameTable, Statement};
use crate::rewrite::require_free;
use crate::store::step::Kind as StepKind;

impl Planner<'_> {
    pub(super) fn rename_table(
        &mut self,
        number: i32,
        statement: &Statement,
        rename: &RenameTable,
    ) -> Result<()> {
        let Some(table) = self.table_named(&rename.table)? else {
            return self.missing_table(number, statement, &rename.table, rename.missing_ok);
        };
        self.require_alterable(&table)?;
        require_free(&table, "")?;
        let new = match &rename.to {
            NewPlace::Name(name) => QualifiedName::new(&table.name.schema, name),
            NewPlace::Schema(schema) => QualifiedName::new(
                self.creation_schema(Some(schema), &rename.table.name)?,
                &table.name.name,
            ),
        };
        let (forth, back) = statements(&table.name, &new, &rename.to);
        if self.lookup(Some(&new.schema), &new.name)? != Target::Nothing {
            return Err(Error::DuplicateTable {
                name: new.to_string(),
            });
        }
        let facts = table.facts();
        let plain = [Reason::LockAccessExclusive, Reason::BreaksOldClients];
        if self.meta.rename.as_deref() == Some("in_place") {
            let draft = Draft::new(
                StepKind::Execute,
                Phase::Expand,
                table.name.to_string(),
                forth,
            )
            .lock("ACCESS EXCLUSIVE")
            .naive("the old name is gone at once", &plain)
            .reasons(plain)
            .revert(Some(back));
            self.push(number, &facts, draft);
            return Ok(());
        }
        dualwrite::looks_as_invoker(&table)?;
        let published = self.is_published(&table)?;
        let draft = Draft::new(
            StepKind::AliasMake,
            Phase::Expand,
            table.name.to_string(),
            &forth,
        )
        .lock("ACCESS EXCLUSIVE")
        .naive("the old name is gone at once", &plain)
        .reasons([Reason::LockAccessExclusive])
        .reasons(published.then_some(Reason::ReplicationImpact))
        .revert(Some(back));
        self.push(number, &facts, draft);
        let draft = Draft::new(StepKind::AliasDrop, Phase::Contract, new.to_string(), forth)
            .only_also(vec![Lock {
                mode: Mode::AccessExclusive,
                relation: table.name.to_string(),
            }])
            .reasons(plain);
        self.push(number, &facts, draft);
        Ok(())
    }

    /// The relation a statement means to the caller.
    pub(super) fn table_named(&self, named: &Named) -> Result<Option<Relation>> {
        let schema = named.schema.as_deref();
        match self.lookup(schema, &named.name)? {
            Target::Existing(oid) => {
                let mut table = relation::get(oid)?;
                if let Some(name) = self.place_of(schema, &named.name)? {
                    table.name = name; // the script may have renamed it
                }
                Ok(Some(table))
            }
            Target::New => Err(Error::Unsupported {
                problem: "the statement is about a table that the script makes and about others"
                    .into(),
                detail: format!("{} is made by the script.", quote_ident(&named.name)),
                hint: "Write one statement for each.".into(),
            }),
            Target::Nothing => Ok(None),
        }
    }

    /// A table that is not there: with IF EXISTS the statement does nothing, and may say so itself.
    pub(super) fn missing_table(
        &mut self,
        number: i32,
        statement: &Statement,
        named: &Named,
        missing_ok: bool,
    ) -> Result<()> {
        let name = match &named.schema {
            Some(schema) => QualifiedName::new(schema, &named.name).to_string(),
            None => quote_ident(&named.name),
        };
        if !missing_ok {
            return Err(Error::UndefinedTable {
                name,
                search_path: self.caller.session.search_path.clone(),
            });
        }
        let draft = Draft::new(StepKind::Execute, Phase::Contract, name, &statement.text)
            .reasons([Reason::Irreversible]);
        self.push(number, &Default::default(), draft);
        Ok(())
    }

    /// A subscriber finds a table by its name.
    pub(super) fn is_published(&self, table: &Relation) -> Result<bool> {
        Ok(crate::pg::spi::value::<bool>(
            "SELECT EXISTS (SELECT FROM pg_publication_tables WHERE schemaname = $1::name AND tablename = $2::name)",
            &[
                table.name.schema.as_str().into(),
                table.name.name.as_str().into(),
            ],
        )? == Some(true))
    }
}

/// The statement with qualified names, and the one that takes it back.
fn statements(old: &QualifiedName, new: &QualifiedName, to: &NewPlace) -> (String, String) {
    let one = |from: &QualifiedName, to_name: &QualifiedName| match to {
        NewPlace::Name(_) => format!(
            "ALTER TABLE {from} RENAME TO {}",
            quote_ident(&to_name.name)
        ),
        NewPlace::Schema(_) => {
            format!(
                "ALTER TABLE {from} SET SCHEMA {}",
                quote_ident(&to_name.schema)
            )
        }
    };
    (one(old, new), one(new, old))
}
