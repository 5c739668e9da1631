//! Trying a foreign key on empty copies of both tables: the server says whether it is valid, and nobody's table is locked.

use super::ground::Ground;
use super::{expand, probe, shadow};
use crate::catalog::relation::Relation;
use crate::error::Result;
use crate::model::ident::{quote_ident, QualifiedName};
use crate::pg::identity::{self, Session};
use crate::pg::xact::{self, End};
use crate::pg::{activity, spi, utility};

/// Adds the foreign keys of `added` – statements with the table they point at and what the script did to that – to a copy of `table` behind
/// the statements that come `earlier`. Errors are the server's own.
pub fn probe(
    ground: &Ground,
    table: &Relation,
    earlier: &probe::Earlier,
    added: &[(String, Relation, probe::Earlier)],
    session: &Session,
) -> Result<()> {
    let schema = ground.of(table)?;
    xact::subtransaction(End::Undo, || {
        shadow::create_like(table, &schema)?;
        let copy = QualifiedName::new(&schema, &table.name.name);
        probe::replay(table, earlier, &copy, session)?;
        for (i, (statement, referenced, changed)) in added.iter().enumerate() {
            let target = if referenced.oid == table.oid {
                copy.clone()
            } else {
                let schema = make_schema(i + 1, referenced)?;
                shadow::create_like(referenced, &schema)?;
                let target = QualifiedName::new(&schema, &referenced.name.name);
                probe::replay(referenced, changed, &target, session)?;
                spi::execute(
                    &format!("GRANT USAGE ON SCHEMA {} TO PUBLIC", quote_ident(&schema)),
                    &[],
                )?;
                spi::execute(&format!("GRANT REFERENCES ON {target} TO PUBLIC"), &[])?;
                target
            };
            identity::as_role(table.owner, session, || {
                utility::add_foreign_key(statement, &copy, &target)
            })?;
        }
        Ok(())
    })
}

/// One of its own for a table that is referred to: it may have the name of the other one.
fn make_schema(number: usize, table: &Relation) -> Result<String> {
    let schema = format!("_transmute_probe_{}_to_{number}", activity::pid());
    expand::create_schema(&schema, &table.owner_name)?;
    Ok(schema)
}
