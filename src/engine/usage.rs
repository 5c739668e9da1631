//! Who still uses the old shape while a migration soaks: what is watched, and how long it has been unused.

use super::execute::owner_role;
use crate::catalog::column;
use crate::error::{Error, Result};
use crate::model::ident::{quote_ident, QualifiedName};
use crate::model::phase::Phase;
use crate::pg::parser::{self, Action, Kind, Named, NewPlace};
use crate::pg::relation as pg_relation;
use crate::pg::{identity, slots, usage};
use crate::recipe::Planned;
use crate::store::migration::Migration;
use crate::store::step;
use crate::store::usage::{self as store, Part};

/// A relation, or a column of it, as a statement names it.
type Name = (Named, Option<String>);

/// What goes with a statement that runs at the end.
fn going(sql: &str) -> Result<Vec<Name>> {
    let mut names = Vec::new();
    for statement in parser::parse(sql)? {
        match statement.kind {
            Kind::RenameColumn(rename) => names.push((rename.table, Some(rename.column))),
            // The old name, which a view keeps; a move to another schema leaves one too.
            Kind::RenameTable(rename) => match rename.to {
                NewPlace::Name(_) | NewPlace::Schema(_) => names.push((rename.table, None)),
            },
            Kind::DropTable(drop) => names.extend(drop.tables.into_iter().map(|t| (t, None))),
            Kind::AlterTable(alter) => {
                for command in alter.commands {
                    if command.action == Action::DropColumn {
                        let table = Named {
                            schema: alter.schema.clone(),
                            name: alter.name.clone(),
                        };
                        names.push((table, command.column));
                    }
                }
            }
            _ => {}
        }
    }
    Ok(names)
}

/// Refuses to wait for what cannot be seen.
pub fn check(steps: &[Planned]) -> Result<()> {
    let refuse = |detail: &str, hint: &str| {
        Err(Error::Unsupported {
            problem: "the use of the old shape cannot be counted".into(),
            detail: format!("meta.soak_until_unused is given, but {detail}."),
            hint: hint.into(),
        })
    };
    if !slots::preloaded() {
        return refuse(
            "shared_preload_libraries does not hold transmute",
            "Preload the library, or leave the key out.",
        );
    }
    for planned in steps.iter().filter(|p| p.step.phase == Phase::Contract) {
        if is_watched(&planned.step.kind) && !going(&planned.step.sql)?.is_empty() {
            return Ok(());
        }
    }
    refuse(
        "the script takes no name away from the old application: no rename, no dropped column or table",
        "Leave the key out: meta.pre_finalization_soak is a plain time.",
    )
}

/// Steps of a rewrite show the statements of its table, which are in the new shape before the end; those of a rule or a version
/// say in words what they do, and what a rule read is hidden by a step of its own.
fn is_watched(kind: &str) -> bool {
    !["rewrite", "rule_", "version_"]
        .iter()
        .any(|others| kind.starts_with(others))
}

/// Begins to count, when the soak begins.
pub fn begin(migration: &Migration) -> Result<()> {
    let role = owner_role(migration)?;
    let mut parts = Vec::new();
    for (_, step) in step::plan(&migration.id)? {
        if step.phase != Phase::Contract || !is_watched(&step.kind) {
            continue;
        }
        for (table, column_name) in going(&step.sql)? {
            let relation = identity::as_role(role, &migration.session, || {
                pg_relation::resolve(table.schema.as_deref(), &table.name)
            })?;
            let Some(relation) = relation else {
                continue; // gone, or made at the end: nobody uses it
            };
            let shown = match &table.schema {
                Some(schema) => QualifiedName::new(schema, &table.name).to_string(),
                None => quote_ident(&table.name),
            };
            let (object, attribute) = match column_name {
                None => (shown, 0),
                Some(name) => {
                    let columns = column::list(relation)?;
                    let found = columns.iter().find(|c| !c.dropped && c.name == name);
                    let Some(found) = found else { continue };
                    (format!("{shown}.{}", quote_ident(&name)), found.number)
                }
            };
            parts.push(Part {
                object,
                relation,
                attribute,
            });
        }
    }
    store::begin(&migration.id, &parts)
}

/// Says what is watched, and writes down what was counted since the last time. Nothing is written while nothing is used.
pub fn collect() -> Result<()> {
    if !slots::preloaded() {
        return Ok(());
    }
    if !usage::watch(&store::watched()?) {
        pgrx::log!("transmute: more is watched than there is room for: some uses of old shapes are not counted");
    }
    if usage::any_counted() {
        for counted in usage::take() {
            store::add(&counted)?;
        }
    }
    Ok(())
}

/// What holds the soak up: time left, microseconds, and what to say; `None`: nothing.
pub fn holding(migration: &Migration, now: i64, high_water: i64) -> Result<Option<(i64, String)>> {
    let Some(soak) = store::soak(&migration.id)? else {
        return Ok(None);
    };
    if !slots::preloaded() {
        let text = "the use of the old shape cannot be seen: shared_preload_libraries does not hold transmute; skip_soak ends the wait";
        return Ok(Some((i64::MAX, text.into())));
    }
    let left = crate::model::soak::remaining(soak.deadline_us, now, high_water);
    let last = match soak.last {
        Some(who) => format!("last used by {who}"),
        None => "not used since the soak began".into(),
    };
    let text = format!(
        "the old shape to be unused for {}; {last}; skip_soak ends it now",
        soak.interval
    );
    Ok((left > 0).then_some((left, text)))
}
