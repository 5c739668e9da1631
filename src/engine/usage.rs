//! Who still uses the old shape while a migration soaks: what is watched, and how long it has been unused.

use super::execute::owner_role;
use crate::catalog::{column, relation};
use crate::error::{Error, Result};
use crate::model::ident::quote_ident;
use crate::model::phase::Phase;
use crate::model::plan::Step;
use crate::model::rule::Mechanism;
use crate::pg::parser::{self, Action, Kind, Named, NewPlace};
use crate::pg::relation::{self as pg_relation, LockMode};
use crate::pg::{identity, slots, usage, waitpoint, xact, Oid};
use crate::recipe::Planned;
use crate::store::migration::Migration;
use crate::store::step::{self, Kind as StepKind};
use crate::store::usage::{self as store, Part};
use crate::store::version;

/// A relation, or a column of it, as a statement names it.
type Name = (Named, Option<String>);

/// What goes with a step that runs at the end; of a copied table also columns that change their type.
fn going(kind: &str, sql: &str) -> Result<Vec<Name>> {
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
                    let goes = match command.action {
                        Action::DropColumn => true,
                        Action::AlterType => is_swap(kind),
                        _ => false,
                    };
                    if goes {
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
    let steps: Vec<&Step> = steps.iter().map(|p| &p.step).collect();
    match (seen(&steps)?, slots::preloaded()) {
        (Seen::Nothing, _) => refuse(
            "the script takes nothing away from the old application: no rename, no dropped column or table, no column that changes its type in a copy",
            "Leave the key out: meta.pre_finalization_soak is a plain time.",
        ),
        (Seen::ByHook, false) => refuse(
            "shared_preload_libraries does not hold transmute, and no trigger of the migration tells old from new",
            "Preload the library, or leave the key out.",
        ),
        _ => Ok(()),
    }
}

/// Who sees uses of what goes.
#[derive(Clone, Copy, PartialEq)]
enum Seen {
    /// Nothing goes.
    Nothing,
    /// The executor's hook alone.
    ByHook,
    /// The triggers of the migration too, if they write.
    ByTriggers,
}

fn seen(steps: &[&Step]) -> Result<Seen> {
    let mut seen = Seen::Nothing;
    for step in steps.iter().filter(|s| is_watched(s)) {
        for (_, column) in going(&step.kind, &step.sql)? {
            let rules = steps.iter().filter(|s| s.target == step.target);
            let told = match is_swap(&step.kind) {
                // What is written through a version is told as if it were the table's.
                true => !steps
                    .iter()
                    .any(|s| s.kind == StepKind::VersionBefore.name()),
                false => rules.filter_map(|s| s.rule.as_ref()).any(|rule| {
                    rule.mechanism == Mechanism::Trigger
                        && column.as_ref().is_some_and(|c| rule.sources.contains(c))
                }),
            };
            seen = match (seen, told) {
                (Seen::ByHook, _) | (_, false) => Seen::ByHook,
                _ => Seen::ByTriggers,
            };
        }
    }
    Ok(seen)
}

/// Steps of a rule or a version say in words what they do, and what a rule read is hidden by a step of its own.
fn is_watched(step: &Step) -> bool {
    let others = ["rewrite_validate", "rule_", "version_"];
    step.phase == Phase::Contract && !others.iter().any(|o| step.kind.starts_with(o))
}

/// Steps that show the statements of a copied table.
fn is_swap(kind: &str) -> bool {
    [StepKind::RewriteSwap, StepKind::RewriteTree]
        .iter()
        .any(|k| k.name() == kind)
}

/// Begins to count, when the soak begins.
pub fn begin(migration: &Migration) -> Result<()> {
    let role = owner_role(migration)?;
    let mut parts = Vec::new();
    for (_, step) in step::plan(&migration.id)? {
        if !is_watched(&step) {
            continue;
        }
        for (table, column_name) in going(&step.kind, &step.sql)? {
            let relation = identity::as_role(role, &migration.session, || {
                pg_relation::resolve(table.schema.as_deref(), &table.name)
            })?;
            let Some(relation) = relation else {
                continue; // gone, or made at the end: nobody uses it
            };
            if let (true, Some(part)) = (is_swap(&step.kind), older_version(migration, relation)?) {
                parts.push(part);
                continue;
            }
            let shown = relation::get(relation)?.name.to_string();
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

/// Where the older version has a view of a copied table, that view is its old shape.
fn older_version(migration: &Migration, relation: Oid) -> Result<Option<Part>> {
    let Some(before) = &migration.meta.versioned_views_before else {
        return Ok(None);
    };
    let views = version::made_by(&migration.id, before)?;
    let view = views.into_iter().find(|v| v.relation == relation);
    Ok(view.map(|view| Part {
        object: view.name().to_string(),
        relation: view.view,
        attribute: 0,
    }))
}

/// Says what is watched, and writes down what was counted since the last time. Nothing is written while nothing is used.
pub fn collect() -> Result<()> {
    if !slots::preloaded() {
        return store::add_written();
    }
    say_what_is_watched()?;
    if usage::any_counted() {
        for counted in usage::take() {
            store::add(&counted)?;
        }
    }
    Ok(())
}

/// Whoever begins a soak says so before it commits, and holds a lock on what is watched until then: nobody who does not see
/// it yet takes it back.
fn say_what_is_watched() -> Result<()> {
    let Some(watches) = pg_relation::resolve(Some("_transmute"), "watches")? else {
        return Err(Error::Bug("no table of what is watched".into()));
    };
    if !pg_relation::try_lock(watches, LockMode::Share)? {
        return Ok(()); // the next look does
    }
    waitpoint::reach("watches_locked")?;
    let watched = xact::with_latest_snapshot(|_| store::watched())?;
    if !usage::watch(&watched) {
        crate::log::message(
            "more is watched than there is room for: some uses of old shapes are not counted"
                .into(),
        );
    }
    pg_relation::unlock(watches, LockMode::Share);
    Ok(())
}

/// What holds the soak up: time left, microseconds, and what to say; `None`: nothing.
pub fn holding(migration: &Migration, now: i64, high_water: i64) -> Result<Option<(i64, String)>> {
    let Some(soak) = store::soak(&migration.id)? else {
        return Ok(None);
    };
    let steps = step::plan(&migration.id)?;
    let steps: Vec<&Step> = steps.iter().map(|(_, step)| step).collect();
    let half_blind = !slots::preloaded();
    if half_blind && seen(&steps)? != Seen::ByTriggers {
        let text = "the use of the old shape cannot be seen: shared_preload_libraries does not hold transmute; skip_soak ends the wait";
        return Ok(Some((i64::MAX, text.into())));
    }
    let left = crate::model::soak::remaining(soak.deadline_us, now, high_water);
    let last = match soak.last {
        Some(who) => format!("last used by {who}"),
        None => "not used since the soak began".into(),
    };
    let text = format!(
        "the old shape to be unused for {}; {last}{}; skip_soak ends it now",
        soak.interval,
        match half_blind {
            true => " (by the triggers: reads are not seen, shared_preload_libraries does not hold transmute)",
            false => "",
        }
    );
    Ok((left > 0).then_some((left, text)))
}
