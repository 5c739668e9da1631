//! The dependents of a table once more, over a copy of it that has the new types: under names of their own in a work
//! schema, with every mention of the table replaced by the copy, of another dependent by its mirror.

use super::dependents::{self, Dependent};
use crate::catalog::relation::Relation;
use crate::error::{Error, Result};
use crate::model::ident::{quote_ident, QualifiedName};
use crate::pg::error::ServerError;
use crate::pg::xact::{self, End};
use crate::pg::{renamed, spi, utility, Oid};
use pgrx::PgSqlErrorCode;

pub struct Mirror {
    pub schema: String,
    names: Vec<(QualifiedName, QualifiedName)>,
}

impl Mirror {
    pub fn new(schema: &str) -> Mirror {
        Mirror {
            schema: schema.to_string(),
            names: Vec::new(),
        }
    }

    /// From now on statements about the one are about the other.
    pub fn map(&mut self, from: &QualifiedName, to: QualifiedName) {
        self.names.push((from.clone(), to));
    }

    /// The name of a relation's mirror, which is its own whatever schema it comes from.
    pub fn add(&mut self, relation: Oid) -> Result<QualifiedName> {
        let name = dependents::name_of(relation)?;
        let to = QualifiedName::new(&self.schema, format!("_transmute_{}", relation.to_u32()));
        self.map(&name, to.clone());
        Ok(to)
    }

    fn knows(&self, name: &QualifiedName) -> bool {
        self.names.iter().any(|(from, _)| from == name)
    }

    /// Makes the mirror of one dependent, as far as columns and types matter.
    pub fn create(&self, dependent: &Dependent) -> Result<()> {
        for sql in &dependent.create_sql {
            renamed::run(sql, &self.names, &self.schema)?;
        }
        Ok(())
    }

    pub fn run(&self, sql: &str) -> Result<()> {
        renamed::run(sql, &self.names, &self.schema).map(|_| ())
    }
}

/// A foreign key that cannot be made with the new types, unless the table at its other end changes its own.
#[derive(Debug, Clone)]
pub struct ForeignKeyFault {
    pub partner: Oid,
    pub error: Error,
}

/// Makes every dependent over the copy of `table`, without rows. What the new types do not admit is the server's own
/// error; foreign keys that do not fit are returned.
pub fn try_out(
    table: &Relation,
    copy: &QualifiedName,
    dependents: &[Dependent],
) -> Result<Vec<ForeignKeyFault>> {
    let mut mirror = Mirror::new(&copy.schema);
    mirror.map(&table.name, copy.clone());
    let mut faults = Vec::new();
    // What is on something that could not be judged cannot be judged either.
    let mut unjudged: Vec<Oid> = Vec::new();
    let mut deepest = i32::MAX;
    for dependent in dependents.iter().rev() {
        if dependent.depth > deepest {
            if dependent.kind == "matview" && uses(dependent.object, &unjudged)? {
                return Err(row_type(dependent));
            }
            continue;
        }
        let tried = xact::subtransaction(End::Keep, || try_one(&mut mirror, dependent));
        match (tried, dependent.relation) {
            (Ok(()), _) => {}
            (Err(error), Some(partner)) if is_mismatch(&error, dependent) => {
                faults.push(ForeignKeyFault {
                    partner,
                    error: explained(error, dependent),
                });
            }
            (Err(Error::Server(error)), _) if error.message.contains(&copy.schema) => {
                // It means the row type of the table or of a view: the copy has another one, the table keeps its own.
                if dependent.kind == "matview" {
                    return Err(row_type(dependent));
                }
                deepest = dependent.depth;
                unjudged.push(dependent.object);
            }
            (Err(error), _) => return Err(explained(error, dependent)),
        }
    }
    Ok(faults)
}

/// Whether a view reads one of these, directly or through other views.
fn uses(view: Oid, others: &[Oid]) -> Result<bool> {
    Ok(spi::value_kept::<bool>(
        include_str!("../../sql/query/view_uses.sql"),
        &[view.into(), others.to_vec().into()],
    )? == Some(true))
}

fn try_one(mirror: &mut Mirror, dependent: &Dependent) -> Result<()> {
    match dependent.kind.as_str() {
        "unsupported" => return Ok(()),
        "view" | "matview" => {
            mirror.add(dependent.object)?;
        }
        _ => {
            if let Some(relation) = dependent.relation {
                stand_in(mirror, dependent, relation)?;
            }
        }
    }
    mirror.create(dependent)
}

/// A table like another that a policy, rule or foreign key is on: the other is not locked strongly. Defaults, checks and
/// indexes are left out, so nothing is evaluated.
fn stand_in(mirror: &mut Mirror, dependent: &Dependent, relation: Oid) -> Result<()> {
    let other = dependents::name_of(relation)?;
    if mirror.knows(&other) {
        return Ok(());
    }
    // Under its own name, which expressions mention.
    let schema = format!("{}_{}", mirror.schema, relation.to_u32());
    spi::execute(&format!("CREATE SCHEMA {}", quote_ident(&schema)), &[])?;
    let name = QualifiedName::new(schema, &other.name);
    mirror.map(&other, name.clone());
    utility::run(&format!("CREATE TABLE {name} (LIKE {other})"))?;
    let referenced: Vec<String> = spi::query_kept(
        "SELECT quote_ident(a.attname) FROM pg_constraint k \
         CROSS JOIN unnest(k.confkey) WITH ORDINALITY u (attnum, place) \
         JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.attnum \
         WHERE k.oid = $1 AND k.contype = 'f' AND k.confrelid = $2 ORDER BY u.place",
        &[dependent.object.into(), relation.into()],
        |row| row.need(1),
    )?;
    if dependent.kind == "foreign_key" && !referenced.is_empty() {
        utility::run(&format!(
            "ALTER TABLE {name} ADD UNIQUE ({})",
            referenced.join(", ")
        ))?;
    }
    Ok(())
}

fn is_mismatch(error: &Error, dependent: &Dependent) -> bool {
    dependent.kind == "foreign_key"
        && matches!(error, Error::Server(e) if e.code == PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH)
}

fn explained(error: Error, dependent: &Dependent) -> Error {
    match error {
        Error::Server(server) => Error::Server(ServerError {
            detail: Some(format!(
                "On the new types {} cannot be made again{}",
                dependent.identity,
                server.detail.map_or(".".into(), |d| format!(": {d}"))
            )),
            hint: Some(
                "Change or drop it before the migration, or choose a type that it admits.".into(),
            ),
            ..server
        }),
        other => other,
    }
}

fn row_type(dependent: &Dependent) -> Error {
    Error::Unsupported {
        problem: "a materialized view uses the row type of a table or view that changes".into(),
        detail: format!(
            "Its new contents cannot be made beforehand: {}.",
            dependent.identity
        ),
        hint: "Drop it before the migration and make it again after it.".into(),
    }
}
