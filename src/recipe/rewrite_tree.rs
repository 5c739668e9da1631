//! The rewrite of a partitioned table: each partition is copied by the rewrite strategy, all are swapped together, and the
//! statement runs on their table while they are empty.

use super::draft::Draft;
use super::rewrite::{PartOf, What};
use super::Planner;
use crate::catalog::constraint;
use crate::catalog::partition::{self, Member};
use crate::catalog::relation::{self, Relation};
use crate::error::{Error, Result};
use crate::model::lock::{strongest, Lock, Mode};
use crate::model::phase::Phase;
use crate::model::reason::Reason;
use crate::pg::parser::{self, Action};
use crate::pg::pieces;
use crate::rewrite::dependents::{self, Dependent};
use crate::rewrite::{adds_foreign_keys, probe};
use crate::store::step::Kind as StepKind;
use std::rc::Rc;

impl Planner<'_> {
    pub(super) fn rewrite_tree(
        &mut self,
        index: usize,
        what: What<'_>,
        table: &Relation,
        outcome: &probe::Outcome,
        found: &[Dependent],
    ) -> Result<()> {
        let members = partition::tree(table.oid)?;
        self.require_rewritable_commands(what.commands, table)?;
        require_rewritable_tree(table, &members, &what, found)?;
        if outcome.makes_sequence {
            return Err(Error::Unsupported {
                problem: "a serial or identity column is added to a partitioned table that is rewritten".into(),
                detail: format!("Each copy of a partition of {} would count by itself.", table.name),
                hint: "CREATE SEQUENCE, then ADD COLUMN … DEFAULT nextval('…'): one sequence for all partitions.".into(),
            });
        }
        dependents::require_supported(table, found)?;
        self.require_comparable(table, outcome)?;
        self.require_one_copy(index, table)?;
        let name = self.name_now(table).to_string();
        self.require_versions_of_tree(table, &members, outcome)?;
        let part_of = PartOf {
            name: name.clone(),
            index,
            back: self.way_back_of_tree(index, table, what.script)?,
        };
        let root = self.locks_behind(table, what.script, found)?;
        let first = self.steps.len();
        for leaf in members.iter().filter(|m| m.kind == 'r') {
            let leaf = relation::get(leaf.oid)?;
            self.require_alterable(&leaf)?;
            self.require_free(&leaf)?;
            let outcome = self.probe(&leaf, what.script, &[index])?;
            let part = self.part(index, &what, &leaf)?;
            let what = What {
                script: what.script,
                commands: what.commands,
                added_for: what.added_for,
                part_of: Some(&part_of),
            };
            self.rewrite(part, what, &leaf, &outcome, &outcome.dependents)?;
        }
        let proof = self.steps[first..]
            .iter_mut()
            .find(|p| p.step.kind == StepKind::RewriteValidate.name());
        if let Some(proof) = proof {
            // Those of the partitioned table, and with them those of its partitions, are proved behind the first.
            let own = table.name.to_string();
            let below = members.iter().skip(1).map(|m| m.name.clone());
            let of_own = root.validate.iter().find(|l| l.relation == own);
            let below: Vec<Lock> = of_own.map_or(Vec::new(), |lock| {
                below
                    .map(|relation| Lock {
                        mode: lock.mode,
                        relation,
                    })
                    .collect()
            });
            proof.step.locks = strongest(root.validate.into_iter().chain(below));
            proof.step.lock_mode = proof
                .step
                .locks
                .first()
                .map(|l| l.mode.to_string())
                .unwrap_or_default();
        }
        let number = index as i32 + 1;
        let facts = table.facts();
        let mut reasons = vec![Reason::LockAccessExclusive];
        reasons.extend((!found.is_empty()).then_some(Reason::DependentObjects));
        let mut draft = Draft::new(StepKind::RewriteTree, Phase::Contract, name, what.script)
            .lock("ACCESS EXCLUSIVE")
            .reasons(reasons)
            .naive(
                "rewrites every partition under ACCESS EXCLUSIVE",
                &[Reason::LockAccessExclusive, Reason::TableRewrite],
            );
        for member in members.iter().skip(1).filter(|m| m.kind == 'p') {
            draft = draft.also(Mode::AccessExclusive, member.name.clone());
        }
        draft = draft.also_all(Mode::AccessExclusive, root.swap);
        if part_of.back.is_some() {
            draft = draft.revert(part_of.back);
        }
        self.push(number, &facts, draft);
        self.widen_sequences(number, table, outcome)
    }

    /// The statement once more for a partition: what explain shows its steps under.
    fn part(&mut self, index: usize, what: &What<'_>, leaf: &Relation) -> Result<usize> {
        let root = Rc::clone(&self.statements[index]);
        let clauses: Vec<String> = match pieces::of(&root.text) {
            Ok(pieces) => pieces.list.into_iter().map(|p| p.text).collect(),
            Err(_) => vec![what.script.to_string()],
        };
        let text = format!("ALTER TABLE {} {}", leaf.name, clauses.join(", "));
        let mut statement = parser::parse(&text)?
            .into_iter()
            .next()
            .ok_or_else(|| Error::Bug("a statement of a partition that is none".into()))?;
        statement.line = root.line;
        statement.column = root.column;
        statement.offset = root.offset;
        let mut statements = self.statements.to_vec();
        statements.push(Rc::new(statement));
        self.statements = statements.into();
        Ok(self.statements.len() - 1)
    }
}

/// Refuses by name what the rewrite of a partitioned table does not do.
fn require_rewritable_tree(
    table: &Relation,
    members: &[Member],
    what: &What<'_>,
    found: &[Dependent],
) -> Result<()> {
    let unsupported = |problem: &str, detail: String, hint: &str| {
        Err(Error::Unsupported {
            problem: problem.into(),
            detail,
            hint: hint.into(),
        })
    };
    if let Some(member) = members.iter().find(|m| m.kind == 'f' || m.detaching) {
        return unsupported(
            "a partitioned table with a foreign partition, or one that is being detached, cannot be rewritten online",
            format!("{}, of {}.", member.name, table.name),
            "Detach it first.",
        );
    }
    if let Some(view) = found.iter().find(|d| d.kind == "matview") {
        return unsupported(
            "a materialized view uses the changed columns of a partitioned table",
            format!("{}, of {}.", view.identity, table.name),
            "Drop it before the migration and make it again after it.",
        );
    }
    for statement in parser::parse(what.script)? {
        if adds_foreign_keys(&statement) {
            return unsupported(
                "a foreign key is added to a partitioned table that is rewritten",
                format!("On {}.", table.name),
                "Add it in a migration of its own.",
            );
        }
    }
    let constraints = constraint::list(table.oid)?;
    let dropped = what.commands.iter().find(|c| {
        c.action == Action::DropConstraint
            && constraints
                .iter()
                .any(|k| Some(&k.name) == c.column.as_ref() && k.kind != 'c' && k.kind != 'n')
    });
    if let Some(name) = dropped.and_then(|c| c.column.as_ref()) {
        return unsupported(
            "a key of a partitioned table is dropped by the statement that rewrites it",
            format!(
                "Constraint \"{name}\" of {}: it has another name on each partition.",
                table.name
            ),
            "Drop it in a migration of its own.",
        );
    }
    Ok(())
}
