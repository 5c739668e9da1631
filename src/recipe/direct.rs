//! A script that runs as it is written (`meta.mode` direct): one step in one transaction, or, with `meta.transaction` none,
//! its statements one by one.

use super::as_it_stands::named;
use super::draft::{planned, Draft};
use super::elsewhere;
use super::plain::Plain;
use super::{observe, Script};
use crate::error::{Error, Result};
use crate::model::effects::Object;
use crate::model::ident::{quote_ident, QualifiedName};
use crate::model::lock::{self, Mode};
use crate::model::meta::Meta;
use crate::model::operation::{Effect, Operation};
use crate::model::phase::Phase;
use crate::model::reason::Reason;
use crate::model::risk::Facts;
use crate::pg::identity::Caller;
use crate::pg::maintenance::Maintenance;
use crate::pg::parser::{Kind, PartChange, Statement};
use crate::store::step::Kind as StepKind;
use std::collections::HashMap;
use std::rc::Rc;

/// Plans a script as written. `statements` are those of `script`.
pub(super) fn plan(
    script: &str,
    statements: &[Rc<Statement>],
    caller: &Caller,
    meta: &Meta,
) -> Result<Script> {
    require_meaning(meta)?;
    for statement in statements {
        require_possible(statement, meta.is_one_by_one())?;
    }
    let plain = observe(statements, &HashMap::new(), &mut [], caller)?;
    let mut steps = match meta.is_one_by_one() {
        true => one_by_one(statements, &plain)?,
        false => vec![in_one(script, statements, &plain)],
    };
    for (i, planned) in steps.iter_mut().enumerate() {
        planned.step.step = i as i32 + 1;
    }
    Ok(Script { plain, steps })
}

/// Metadata that asks for something which only the planner does.
fn require_meaning(meta: &Meta) -> Result<()> {
    let given = [
        ("keep_old", meta.keep_old.is_some()),
        ("versioned_views", meta.versioned_views.is_some()),
        (
            "versioned_views_before",
            meta.versioned_views_before.is_some(),
        ),
        ("drop_versions", !meta.drop_versions.is_empty()),
        ("soak_until_unused", meta.soak_until_unused.is_some()),
        ("rename", meta.rename.is_some()),
        ("drop_policy", meta.drop_policy.is_some()),
        ("data", meta.data.is_some()),
        ("exclude", meta.exclude.is_some()),
        ("dual_write", meta.dual_write.is_some()),
        ("reverse", !meta.reverse.is_empty()),
        ("on_write_error", meta.on_write_error.is_some()),
        ("include_referencing", meta.include_referencing.is_some()),
    ];
    match given.iter().find(|(_, given)| *given) {
        None => Ok(()),
        Some((key, _)) => Err(Error::InvalidArgument {
            problem: "the metadata is not valid".into(),
            detail: format!(
                "meta.{key}: says how a script is planned, and this one runs as it is written."
            ),
            hint: "Leave it out, or leave out meta.mode \"direct\" and meta.transaction \"none\"."
                .into(),
        }),
    }
}

fn require_possible(statement: &Statement, one_by_one: bool) -> Result<()> {
    let place = format!(
        "{} stands in line {}, column {}",
        statement.tag, statement.line, statement.column
    );
    if matches!(statement.kind, Kind::Transaction) {
        return Err(Error::InvalidArgument {
            problem: "the script controls transactions itself".into(),
            detail: format!("{place}."),
            hint: "Leave it out: the script is one transaction; meta.transaction \"none\" runs its statements one by one."
                .into(),
        });
    }
    elsewhere::refuse(statement)?;
    match (needs_top_level(statement), one_by_one) {
        (false, false) => Ok(()),
        (true, false) => Err(Error::Unsupported {
            problem: format!("the server does not run {} in a transaction", statement.tag),
            detail: format!("{place}, in a script that is one transaction."),
            hint: "Give meta.transaction \"none\", best with nothing else in the script.".into(),
        }),
        (true, true) => require_known(statement, &place),
        (false, true) => require_no_loss(statement, &place),
    }
}

/// Whether the server refuses it in a transaction.
fn needs_top_level(statement: &Statement) -> bool {
    statement.subject.outside_transaction
        || matches!(&statement.kind, Kind::AlterTable(alter)
            if alter.commands.iter().any(|c| c.part.as_ref().is_some_and(|p| p.change == PartChange::DetachConcurrently)))
}

/// After a crash the catalog has to say how far a statement outside of a transaction came.
fn require_known(statement: &Statement, place: &str) -> Result<()> {
    match &statement.kind {
        Kind::Maintenance(Maintenance::CreateIndex(create)) if create.name.is_none() => {
            Err(Error::Unsupported {
                problem: "the index has no name".into(),
                detail: format!("{place}: what a crash leaves behind is found by its name."),
                hint: "Name the index.".into(),
            })
        }
        Kind::Maintenance(
            Maintenance::CreateIndex(_)
            | Maintenance::DropIndex(_)
            | Maintenance::Reindex(_)
            | Maintenance::Vacuum(_),
        )
        | Kind::AlterTable(_) => Ok(()),
        _ => Err(Error::Unsupported {
            problem: format!("{} is not run outside of a transaction", statement.tag),
            detail: format!("{place}: nothing would tell after a crash whether it was done."),
            hint: "Run it by itself outside of transmute.".into(),
        }),
    }
}

/// Statements one by one run before anybody has approved: what loses something is for a transaction of its own.
fn require_no_loss(statement: &Statement, place: &str) -> Result<()> {
    let loses = statement
        .subject
        .operations
        .iter()
        .any(|o| o.effect() == Effect::Removes);
    match loses {
        false => Ok(()),
        true => Err(Error::Unsupported {
            problem: "a script whose statements run one by one takes something away".into(),
            detail: format!(
                "{place}: it could not be taken back with the others when a later one fails."
            ),
            hint: "Put it into a migration of its own, without meta.transaction \"none\".".into(),
        }),
    }
}

/// The whole script in one transaction: with the expand phase where everything it does can be derived backwards, else behind
/// the gates of finalization.
fn in_one(script: &str, statements: &[Rc<Statement>], plain: &[Plain]) -> super::Planned {
    let phase = match adds_only(statements) {
        true => Phase::Expand,
        false => Phase::Contract,
    };
    let mut reasons: Vec<Reason> = plain.iter().flat_map(|p| p.reasons.clone()).collect();
    if phase == Phase::Contract {
        reasons.push(Reason::Irreversible);
    }
    reasons.sort();
    reasons.dedup();
    let facts = plain
        .iter()
        .map(|p| p.facts)
        .max_by_key(|f| f.rows)
        .unwrap_or_default();
    // As written: what the catalog calls it may change until the script runs, and the plan must not.
    let mut targets: Vec<String> = statements.iter().map(|s| named(s)).collect();
    targets.dedup();
    let target = match targets.as_slice() {
        [one] => one.clone(),
        all => format!("{} and {} more", all[0], all.len() - 1),
    };
    let draft = Draft::new(StepKind::Direct, phase, target, script.trim()).reasons(reasons);
    let mut planned = planned(1, &facts, draft);
    let step = &mut planned.step;
    step.locks = lock::strongest(plain.iter().flat_map(|p| p.locks.clone()));
    step.lock_mode = step
        .locks
        .first()
        .map(|l| l.mode.to_string())
        .unwrap_or_default();
    for operation in plain.iter().flat_map(|p| &p.operations) {
        if !step.operations.contains(operation) {
            step.operations.push(*operation);
        }
    }
    step.rewrites = plain.iter().any(|p| p.rewrites);
    step.reversible = phase == Phase::Expand;
    for one in plain {
        step.estimate.rows += one.estimate.rows;
        step.estimate.bytes += one.estimate.bytes;
        step.estimate.seconds += one.estimate.seconds;
    }
    planned
}

/// Whether nothing is removed, no row of a table that is there is changed, and nothing runs that may do anything.
fn adds_only(statements: &[Rc<Statement>]) -> bool {
    let mut made: Vec<Object> = Vec::new();
    for statement in statements {
        let fine = match &statement.kind {
            Kind::Data(data) => data
                .targets
                .iter()
                .all(|(schema, name)| made.iter().any(|o| o.schema == *schema && o.name == *name)),
            Kind::Set(_) => true,
            Kind::AlterTable(alter) => {
                let parts = alter.commands.iter().all(|c| c.part.is_none());
                parts && are_kind(&statement.subject.operations)
            }
            _ => are_kind(&statement.subject.operations),
        };
        if !fine {
            return false;
        }
        made.extend(statement.effects.makes.iter().cloned());
    }
    true
}

fn are_kind(operations: &[Operation]) -> bool {
    use Operation as O;
    !operations.is_empty()
        && operations.iter().all(|o| {
            o.effect() != Effect::Removes
                && !matches!(
                    o,
                    O::AddEnumValue
                        | O::AlterType
                        | O::DropConstraint
                        | O::AttachPartition
                        | O::DetachPartition
                        | O::Inherit
                        | O::Insert
                        | O::Update
                        | O::Merge
                        | O::Copy
                        | O::Select
                        | O::Execute
                        | O::Replication
                        | O::ChangeType
                        | O::AlterOther
                        | O::Unknown
                )
        })
}

/// A step a statement, in the order of the script, with what the script has SET before it.
fn one_by_one(statements: &[Rc<Statement>], plain: &[Plain]) -> Result<Vec<super::Planned>> {
    let mut steps = Vec::new();
    let mut settings: Vec<(String, String)> = Vec::new();
    for (statement, plain) in statements.iter().zip(plain) {
        if let Kind::Set(setting) = &statement.kind {
            settings.retain(|(name, _)| !name.eq_ignore_ascii_case(&setting.name));
            settings.push((setting.name.clone(), setting.value.clone()));
            continue;
        }
        if ["SET", "RESET"].contains(&statement.tag.as_str()) {
            return Err(Error::Unsupported {
                problem: "only SET name = value reaches the statements behind it".into(),
                detail: format!(
                    "{} stands in line {}, and each statement runs for itself.",
                    statement.text, statement.line
                ),
                hint: "Write SET name = value.".into(),
            });
        }
        let outside = needs_top_level(statement);
        let kind = match outside {
            true => StepKind::Outside,
            false => StepKind::Direct,
        };
        let mut draft = Draft::new(kind, Phase::Validate, named(statement), &statement.text)
            .lock(plain.locks.first().map_or("", |l| l.mode.as_str()))
            .reasons(plain.reasons.clone());
        draft.estimate = plain.estimate;
        if outside {
            draft = draft.outside();
            draft.revert_sql = dropped(&statement.kind);
        }
        let mut step = planned(plain.number, &plain.facts, draft);
        step.step.operations.clone_from(&plain.operations);
        step.step.locks.clone_from(&plain.locks);
        step.step.settings.clone_from(&settings);
        steps.push(step);
    }
    Ok(steps)
}

/// What takes away an index that was built.
fn dropped(kind: &Kind) -> Option<String> {
    let Kind::Maintenance(Maintenance::CreateIndex(create)) = kind else {
        return None;
    };
    let name = create.name.as_deref()?;
    let index = match &create.table.schema {
        Some(schema) => QualifiedName::new(schema, name).to_string(),
        None => quote_ident(name),
    };
    Some(format!("DROP INDEX CONCURRENTLY IF EXISTS {index}"))
}

/// The step that takes back what one step of a migration did.
pub fn back(number: i32, target: &str, sql: &str, kind: StepKind) -> super::Planned {
    let mut draft = Draft::new(kind, Phase::Contract, target, sql)
        .lock(match kind {
            StepKind::Outside => Mode::ShareUpdateExclusive.as_str(),
            _ => Mode::AccessExclusive.as_str(),
        })
        .reasons([Reason::BreaksOldClients]);
    if kind == StepKind::Outside {
        draft = draft.outside();
    }
    let mut planned = planned(number, &Facts::default(), draft);
    planned.step.step = number;
    planned
}
