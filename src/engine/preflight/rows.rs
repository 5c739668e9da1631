//! Questions about the rows: asked as the table's owner, with plain reads.

use super::{join, Check, Found, Subject};
use crate::catalog::relation::Relation;
use crate::error::{if_accepted, Error, Result};
use crate::model::amount;
use crate::model::ident::{quote_ident, QualifiedName};
use crate::model::reason::Reason;
use crate::pg::identity;
use crate::pg::parser::Kind;
use crate::pg::relation as pg_relation;
use crate::pg::spi;
use crate::pg::subject::ForeignKey;
use crate::pg::xact::{self, End};
use crate::rewrite::preview::{self, Demand, Sample};
use crate::store::migration::Migration;

/// Groups or rows that are named.
const EXAMPLES: i32 = 3;

#[derive(Default)]
struct Faults {
    duplicates: Vec<String>,
    orphans: Vec<String>,
    nulls: Vec<String>,
    checks: Vec<String>,
    casts: Vec<String>,
    /// What could not be looked at, and why.
    unknown: Vec<String>,
    /// How much was looked at.
    sampled: Vec<String>,
}

pub(super) fn checks(
    migration: &Migration,
    subjects: &[Subject],
    found: &mut Found,
) -> Result<Vec<Check>> {
    let mut faults = Faults::default();
    for subject in subjects {
        let Some(table) = subject.table.as_ref().filter(|t| t.kind == 'r') else {
            continue;
        };
        let mut reasons = Vec::new();
        statement(migration, subject, table, &mut faults, &mut reasons)?;
        if !reasons.is_empty() {
            found.entry(subject.number).or_default().extend(reasons);
        }
    }
    let verdict = |check, faults: &[String], fine: &str, hint| match faults.is_empty() {
        true => Check::passed(check, fine),
        false => Check::failed(check, format!("{}.", join(faults)), hint),
    };
    let casts = match faults.sampled.is_empty() {
        true => "No value is converted.".to_string(),
        false => format!(
            "Every row that was looked at converts: {}.",
            join(&faults.sampled)
        ),
    };
    let mut all = vec![
        verdict(
            "duplicates",
            &faults.duplicates,
            "No row stands in the way of a unique index.",
            "Merge or delete all but one of each group.",
        ),
        verdict(
            "orphans",
            &faults.orphans,
            "Every reference points to a row.",
            "Insert what they refer to, or delete or clear the references.",
        ),
        verdict(
            "nulls",
            &faults.nulls,
            "No NULL stands in the way of NOT NULL.",
            "UPDATE the rows, in batches, before or with a migration of their own.",
        ),
        verdict(
            "constraints",
            &faults.checks,
            "Every row satisfies the new CHECK constraints.",
            "Mend the rows, or the constraint.",
        ),
        verdict(
            "casts",
            &faults.casts,
            &casts,
            "Mend the rows, or write a USING that takes them; they become dead letters otherwise.",
        ),
    ];
    if !faults.unknown.is_empty() {
        all.push(Check::failed(
            "rows",
            format!("Could not be looked at: {}.", join(&faults.unknown)),
            "The migration's owner has to be able to read the table.",
        ));
    }
    Ok(all)
}

fn statement(
    migration: &Migration,
    subject: &Subject,
    table: &Relation,
    faults: &mut Faults,
    reasons: &mut Vec<Reason>,
) -> Result<()> {
    let of = &subject.statement.subject;
    for key in &of.foreign_keys {
        if let Some((parent, referenced)) = parent(migration, table, key)? {
            orphans(
                migration,
                table,
                &key.columns,
                &parent,
                &referenced,
                faults,
                reasons,
            )?;
        }
    }
    for constraint in &of.validates {
        if let Some((columns, parent, referenced)) = existing_key(table, constraint)? {
            orphans(
                migration,
                table,
                &columns,
                &parent,
                &referenced,
                faults,
                reasons,
            )?;
        }
    }
    let alter = match &subject.statement.kind {
        // Trying a foreign key on a copy would lock the table it refers to.
        Kind::AlterTable(alter) if of.foreign_keys.is_empty() && of.validates.is_empty() => {
            Some(alter)
        }
        _ if of.unique_index => None,
        _ => return Ok(()),
    };
    let text = &subject.statement.text;
    let preview = match preview::of(table, text, alter, &migration.session) {
        Ok(preview) => preview,
        Err(error) => {
            faults.unknown.push(format!("{}: {error}", table.name));
            return Ok(());
        }
    };
    for wanted in &preview.demands {
        demand(migration, table, wanted, faults, reasons)?;
    }
    if let Some(sample) = preview.sample {
        converted(table, &sample, faults);
    }
    Ok(())
}

fn converted(table: &Relation, sample: &Sample, faults: &mut Faults) {
    let looked = match sample.blocks == sample.of_blocks {
        true => format!("{}, all {} blocks", table.name, sample.blocks),
        false => format!(
            "{}, {} of {} blocks",
            table.name, sample.blocks, sample.of_blocks
        ),
    };
    if sample.refused > 0 {
        faults.casts.push(format!(
            "{looked}: {}, for example {}",
            amount::count(sample.refused, "row"),
            sample.examples.join(", ")
        ));
    }
    faults.sampled.push(looked);
}

fn demand(
    migration: &Migration,
    table: &Relation,
    demand: &Demand,
    faults: &mut Faults,
    reasons: &mut Vec<Reason>,
) -> Result<()> {
    let keys = demand.expressions.join(", ");
    let name = &table.name;
    let partial = match demand.predicate.is_empty() {
        true => String::new(),
        false => format!(" AND ({})", demand.predicate),
    };
    let sql = match demand.kind.as_str() {
        "unique" => {
            let filled = match demand.nulls_equal {
                true => "true".to_string(),
                false => format!("num_nulls({keys}) = 0"),
            };
            format!(
                "SELECT count(*), (array_agg(k ORDER BY k))[1:{EXAMPLES}] FROM \
                 (SELECT concat_ws(', ', {keys}) AS k FROM ONLY {name} WHERE {filled}{partial} \
                  GROUP BY {keys} HAVING count(*) > 1) AS duplicates"
            )
        }
        "not_null" => format!(
            "SELECT count(*), (array_agg(k ORDER BY k))[1:{EXAMPLES}] FROM \
             (SELECT ctid::text AS k FROM ONLY {name} WHERE {keys} IS NULL) AS empty"
        ),
        _ => format!(
            "SELECT count(*), (array_agg(k ORDER BY k))[1:{EXAMPLES}] FROM \
             (SELECT ctid::text AS k FROM ONLY {name} WHERE NOT ({keys})) AS refused"
        ),
    };
    let Some((count, examples)) = ask(migration, table, &sql, faults)? else {
        return Ok(());
    };
    if count == 0 {
        return Ok(());
    }
    let examples = examples.join("), (");
    match demand.kind.as_str() {
        "unique" => {
            reasons.push(Reason::DuplicatesFound);
            faults.duplicates.push(format!(
                "{name} ({keys}): {count} values more than once, for example ({examples})"
            ));
        }
        "not_null" => {
            reasons.push(Reason::NullsFound);
            faults.nulls.push(format!(
                "{name}.{keys}: {}, for example at ({examples})",
                amount::count(count, "row")
            ));
        }
        _ => faults.checks.push(format!(
            "{name}, {}: {}, for example at ({examples})",
            demand.name,
            amount::count(count, "row")
        )),
    }
    Ok(())
}

/// Count and examples; `None` where the question means nothing yet (a column that the statement itself adds) or may not be
/// asked.
fn ask(
    migration: &Migration,
    table: &Relation,
    sql: &str,
    faults: &mut Faults,
) -> Result<Option<(i64, Vec<String>)>> {
    let asked = xact::subtransaction(End::Undo, || {
        identity::as_role(table.owner, &migration.session, || {
            // Rows that a policy hides would not be found.
            identity::set_for_transaction("row_security", "off")?;
            spi::first(sql, &[], |row| {
                Ok((
                    row.need::<i64>(1)?,
                    row.get::<Vec<String>>(2)?.unwrap_or_default(),
                ))
            })
        })
    });
    match asked {
        Ok(answer) => Ok(answer),
        Err(Error::Server(e)) if e.code == pgrx::PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN => {
            Ok(None)
        }
        Err(error) if crate::rewrite::halving::is_data_error(&error) => {
            faults.unknown.push(format!("{}: {error}", table.name));
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn orphans(
    migration: &Migration,
    table: &Relation,
    columns: &[String],
    parent: &QualifiedName,
    referenced: &[String],
    faults: &mut Faults,
    reasons: &mut Vec<Reason>,
) -> Result<()> {
    let quoted: Vec<String> = columns.iter().map(|c| quote_ident(c)).collect();
    let pairs: Vec<String> = quoted
        .iter()
        .zip(referenced)
        .map(|(c, r)| format!("p.{} = c.{c}", quote_ident(r)))
        .collect();
    let keys: Vec<String> = quoted.iter().map(|c| format!("c.{c}")).collect();
    let sql = format!(
        "SELECT count(*), (array_agg(k ORDER BY k))[1:{EXAMPLES}] FROM \
         (SELECT concat_ws(', ', {keys}) AS k FROM ONLY {} c WHERE num_nulls({keys}) = 0 \
          AND NOT EXISTS (SELECT FROM {parent} p WHERE {})) AS orphans",
        table.name,
        pairs.join(" AND "),
        keys = keys.join(", ")
    );
    if let Some((count, examples)) = ask(migration, table, &sql, faults)? {
        if count > 0 {
            reasons.push(Reason::OrphansFound);
            faults.orphans.push(format!(
                "{} ({}): {} to no row of {parent}, for example ({})",
                table.name,
                quoted.join(", "),
                amount::count_that(count, "row", "refer"),
                examples.join("), (")
            ));
        }
    }
    Ok(())
}

/// The table a new foreign key refers to and the columns there.
fn parent(
    migration: &Migration,
    table: &Relation,
    key: &ForeignKey,
) -> Result<Option<(QualifiedName, Vec<String>)>> {
    let tried = xact::subtransaction(End::Keep, || {
        identity::as_role(table.owner, &migration.session, || {
            pg_relation::resolve(key.schema.as_deref(), &key.table)
        })
    });
    let oid = if_accepted(tried)?.flatten();
    let Some(oid) = oid else {
        return Ok(None);
    };
    let name = crate::catalog::relation::get(oid)?.name;
    let referenced = match key.referenced.is_empty() {
        false => key.referenced.clone(),
        true => spi::query(
            "SELECT a.attname::text FROM pg_index i CROSS JOIN unnest(i.indkey::int2[]) WITH ORDINALITY k(attnum, n) \
             JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum \
             WHERE i.indrelid = $1 AND i.indisprimary AND k.n <= i.indnkeyatts ORDER BY k.n",
            &[oid.into()],
            |row| row.need(1),
        )?,
    };
    Ok(
        (referenced.len() == key.columns.len() && !key.columns.is_empty())
            .then_some((name, referenced)),
    )
}

/// Columns, parent and columns there.
type Key = (Vec<String>, QualifiedName, Vec<String>);

fn existing_key(table: &Relation, constraint: &str) -> Result<Option<Key>> {
    spi::first(
        "SELECT ARRAY(SELECT a.attname::text FROM unnest(c.conkey) WITH ORDINALITY k(n, o) \
             JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = k.n ORDER BY k.o), \
           n.nspname::text, p.relname::text, \
           ARRAY(SELECT a.attname::text FROM unnest(c.confkey) WITH ORDINALITY k(n, o) \
             JOIN pg_attribute a ON a.attrelid = c.confrelid AND a.attnum = k.n ORDER BY k.o) \
         FROM pg_constraint c JOIN pg_class p ON p.oid = c.confrelid JOIN pg_namespace n ON n.oid = p.relnamespace \
         WHERE c.conrelid = $1 AND c.conname = $2::name AND c.contype = 'f'",
        &[table.oid.into(), constraint.into()],
        |row| {
            Ok((
                row.need(1)?,
                QualifiedName::new(row.need::<String>(2)?, row.need::<String>(3)?),
                row.need(4)?,
            ))
        },
    )
}
