//! The column strategy: old and new name side by side while old and new application run.

pub mod alias;
pub mod fill;
pub mod rule;
pub mod second_name;

use crate::catalog::relation::Relation;
use crate::error::{Error, Result};
use crate::model::ident::{quote_ident, quote_literal, QualifiedName};
use crate::pg::naming::OLD_NAME_OF;
use crate::pg::{dual_write, spi, utility};

/// The trigger tells us of the rows that it sets aside.
pub fn init() {
    dual_write::when_refused(|refused| {
        let argument = refused.argument;
        let migration: Option<String> = spi::first(
            "SELECT migration_id FROM _transmute.rules WHERE id = $1",
            &[argument.rule.into()],
            |row| row.need(1),
        )?;
        // In a restored copy there may be none: then the statement fails as it would without.
        let migration = migration.ok_or_else(|| refused.error.clone())?;
        fill::set_aside(
            &migration,
            argument.rule,
            &argument.key,
            &refused.key,
            None,
            (&fill::expressions(&argument.forth), refused.error),
        )
    });
}

/// Who a view in a table's place looks at the table as: whoever uses it (true), so that row security holds for him, or
/// the owner. As the owner the view's privileges, which are the table's, decide: privileges on single columns hold. Row
/// security together with SELECT on single columns is more than a view can do.
pub fn looks_as_invoker(table: &Relation) -> Result<bool> {
    let facts: Option<(bool, bool)> = spi::first(
        "SELECT c.relrowsecurity, EXISTS (SELECT FROM pg_attribute a, aclexplode(a.attacl) e \
           WHERE a.attrelid = c.oid AND NOT a.attisdropped AND e.privilege_type = 'SELECT') \
         FROM pg_class c WHERE c.oid = $1",
        &[table.oid.into()],
        |row| Ok((row.need(1)?, row.need(2)?)),
    )?;
    match facts {
        Some((true, true)) => Err(Error::Unsupported {
            problem: "a table with row security and SELECT on single columns cannot have two names"
                .into(),
            detail: format!(
                "The view in place of {} could not keep both up.",
                table.name
            ),
            hint: "meta => '{\"rename\": \"in_place\"}' is the plain rename, with a way back."
                .into(),
        }),
        Some((row_security, _)) => Ok(row_security),
        None => Err(Error::Bug("the table is gone".into())),
    }
}

/// Makes the view `name` of `columns` of the table, which is named `base` now, owned by the table's owner. By the
/// extension: the owner needs no CREATE on the schema for a name that was his already.
fn make_view(
    table: &Relation,
    name: &QualifiedName,
    base: &QualifiedName,
    columns: &[String],
) -> Result<()> {
    let invoker = looks_as_invoker(table)?;
    for sql in [
        format!(
            "CREATE VIEW {name} WITH (security_invoker = {invoker}) AS SELECT {} FROM {base}",
            columns.join(", ")
        ),
        format!(
            "ALTER VIEW {name} OWNER TO {}",
            quote_ident(&table.owner_name)
        ),
        format!(
            "COMMENT ON VIEW {name} IS {}",
            quote_literal(&format!("{OLD_NAME_OF}{base}"))
        ),
    ] {
        utility::run(&sql)?;
    }
    Ok(())
}
