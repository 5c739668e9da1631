//! The capture triggers on the user's table.

use crate::catalog::relation::Relation;
use crate::error::{Error, Result};
use crate::model::ident::{quote_ident, quote_literal};
use crate::pg::Oid;
use crate::pg::{spi, utility};
use crate::store::rewrite::Rewrite;

fn row_trigger(id: i64) -> String {
    format!("_transmute_{id}_capture")
}

fn truncate_trigger(id: i64) -> String {
    format!("_transmute_{id}_truncate")
}

/// Makes both triggers, firing in every session_replication_role. The caller holds SHARE ROW EXCLUSIVE, so every
/// earlier writer has ended and every later one sees them: nothing older has to be waited for.
pub fn on(id: i64, table: &Relation, log: Oid, log_name: &str, key: &[i16]) -> Result<()> {
    let mut arguments = vec![
        quote_literal(&log.to_u32().to_string()),
        quote_literal(log_name),
    ];
    arguments.extend(key.iter().map(|n| quote_literal(&n.to_string())));
    let arguments = arguments.join(", ");
    for (name, events, level) in [
        (row_trigger(id), "INSERT OR UPDATE OR DELETE", "ROW"),
        (truncate_trigger(id), "TRUNCATE", "STATEMENT"),
    ] {
        let name = quote_ident(&name);
        utility::run(&format!(
            "CREATE TRIGGER {name} AFTER {events} ON {} FOR EACH {level} \
             EXECUTE FUNCTION _transmute.capture({arguments})",
            table.name
        ))?;
        utility::run(&format!(
            "ALTER TABLE {} ENABLE ALWAYS TRIGGER {name}",
            table.name
        ))?;
    }
    Ok(())
}

/// The table that the triggers of a rewrite are on; `None`: nobody's any more.
pub fn captured(id: i64) -> Result<Option<Oid>> {
    let names = vec![row_trigger(id), truncate_trigger(id)];
    spi::value::<Oid>(
        "SELECT tgrelid FROM pg_trigger WHERE tgname::text = ANY ($1) AND NOT tgisinternal LIMIT 1",
        &[names.into()],
    )
}

/// Removes both, if they are there. Takes ACCESS EXCLUSIVE.
pub fn off(id: i64, table: &Relation) -> Result<()> {
    for name in [row_trigger(id), truncate_trigger(id)] {
        utility::run(&format!(
            "DROP TRIGGER IF EXISTS {} ON {}",
            quote_ident(&name),
            table.name
        ))?;
    }
    Ok(())
}

/// Who last wrote the catalog rows of both triggers: disabling one and enabling it again leaves another.
pub fn stamp(id: i64, relation: Oid) -> Result<String> {
    let names = vec![row_trigger(id), truncate_trigger(id)];
    Ok(spi::value::<String>(
        "SELECT string_agg(format('%s=%s', oid, xmin), ' ' ORDER BY oid) FROM pg_trigger \
         WHERE tgrelid = $1 AND tgname::text = ANY ($2)",
        &[relation.into(), names.into()],
    )?
    .unwrap_or_default())
}

/// Both must be there, fire always, and have done so all the time: somebody may have disabled or dropped them.
pub fn require(rewrite: &Rewrite, table: &Relation) -> Result<()> {
    let names = vec![row_trigger(rewrite.id), truncate_trigger(rewrite.id)];
    let firing = spi::value::<i64>(
        "SELECT count(*) FROM pg_trigger WHERE tgrelid = $1 AND tgname::text = ANY ($2) AND tgenabled = 'A'",
        &[rewrite.relation.into(), names.into()],
    )?;
    let same = match &rewrite.capture_stamp {
        Some(known) => *known == stamp(rewrite.id, rewrite.relation)?,
        None => true,
    };
    if firing != Some(2) || !same {
        return Err(Error::Prerequisite {
            problem: "the capture of changes was interrupted".into(),
            detail: format!(
                "A capture trigger of {} was dropped or disabled; changes may be missing.",
                table.name
            ),
            hint: "transmute.rollback(id, reason), then apply again.".into(),
        });
    }
    Ok(())
}
