//! Trying an ATTACH PARTITION on empty copies of both tables: the server says whether it is valid, and what the rows have to obey.

use super::shadow;
use crate::catalog::partition;
use crate::catalog::relation::Relation;
use crate::error::{Error, Result};
use crate::model::ident::{quote_ident, QualifiedName};
use crate::pg::identity::{self, Session};
use crate::pg::xact::{self, End};
use crate::pg::{activity, spi, utility};

/// The condition that each row of `child` has to meet to become a partition of `parent` by this statement; `None`: any row will
/// do. Errors are the server's own.
pub fn condition(
    parent: &Relation,
    child: &Relation,
    statement: &str,
    session: &Session,
) -> Result<Option<String>> {
    let tried = xact::subtransaction(End::Undo, || {
        let upper = make_schema("parts", parent)?;
        let lower = make_schema("probe", child)?;
        let table = shadow::create_empty_parent(parent, &upper)?;
        let copy = match child.kind {
            'p' => shadow::create_empty_parent(child, &lower)?,
            _ => {
                shadow::create_like(child, &lower)?;
                QualifiedName::new(&lower, &child.name.name)
            }
        };
        for schema in [&upper, &lower] {
            spi::execute(
                &format!("GRANT USAGE ON SCHEMA {} TO PUBLIC", quote_ident(schema)),
                &[],
            )?;
        }
        // Whoever owns the one may attach the other, which is looked at apart.
        utility::run(&format!(
            "ALTER TABLE {copy} OWNER TO {}",
            quote_ident(&parent.owner_name)
        ))?;
        identity::as_role(parent.owner, session, || {
            utility::attach(statement, &table, &copy)
        })?;
        let own = partition::constraint(shadow::oid_of(&copy)?)?;
        let copied = format!("'{}'::oid", shadow::oid_of(&table)?.to_u32());
        let real = format!("'{}'::oid", parent.oid.to_u32());
        Ok(own.map(|text| text.replace(&copied, &real)))
    })
    .map_err(|error| match error {
        Error::Server(e) => Error::Server(crate::pg::error::ServerError {
            position: None,
            ..e
        }),
        other => other,
    })?;
    let above = partition::constraint(parent.oid)?;
    Ok(match (tried, above) {
        (Some(own), Some(above)) => Some(format!("({own}) AND ({above})")),
        (own, above) => own.or(above),
    })
}

fn make_schema(what: &str, table: &Relation) -> Result<String> {
    let schema = format!("_transmute_{what}_{}", activity::pid());
    spi::execute(
        &format!(
            "CREATE SCHEMA {} AUTHORIZATION {}",
            quote_ident(&schema),
            quote_ident(&table.owner_name)
        ),
        &[],
    )?;
    Ok(schema)
}
