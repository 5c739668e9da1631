//! When the steps of a statement may run: not before what the statement builds on is there.

use super::composable::is_part_of_a_copy;
use super::{Planned, Planner};
use crate::error::{Error, Result};
use crate::model::effects::Tie;
use crate::model::phase::Phase;
use crate::model::reason::Reason;
use crate::model::risk::{self, Facts};
use crate::pg::maintenance::Maintenance;
use crate::pg::parser::{Action, ConstraintKind, Kind, Statement, Verb};
use crate::store::step::Kind as StepKind;
use std::collections::BTreeSet;
use std::rc::Rc;

/// A statement that was planned.
#[derive(Debug)]
pub(super) struct Placed {
    /// Its place in the script, from 0.
    index: usize,
    /// The phase in which its last step runs; of a rule, that from which on every row is right.
    end: Phase,
    /// It is a rule, which ends in contract.
    rule: bool,
    /// The same without the step that makes an index of a partitioned table take over those of its partitions.
    before_attach: Phase,
}

/// The earliest phase of a statement, and the statement that decides it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Floor {
    pub phase: Phase,
    after: Option<(usize, Tie)>,
}

impl Planner<'_> {
    /// The phase before which the statement at `index` must not begin.
    pub(super) fn floor(&self, index: usize) -> Floor {
        let statement = &self.statements[index];
        let together = self.together_at(index);
        let mut floor = Floor {
            phase: match self.removes(index) || self.copied_late.contains(&index) {
                true => Phase::Contract,
                false => Phase::Expand,
            },
            after: None,
        };
        let tied = self.all_tied_to(&together);
        for placed in self.late.iter().rev().filter(|p| tied.contains(&p.index)) {
            let earlier = &self.statements[placed.index];
            if placed.rule && joins_a_rule(statement) {
                continue;
            }
            let end = match needs_no_index(statement, earlier) {
                _ if placed.rule && waits_for_the_end_of_a_rule(statement) => Phase::Contract,
                true => placed.before_attach,
                false => placed.end,
            };
            if end > floor.phase && !both_rename(statement, earlier) {
                if let Some(tie) = self.tie(&together, placed.index) {
                    floor.phase = end;
                    floor.after = Some((placed.index, tie));
                    if floor.phase == Phase::Contract {
                        break;
                    }
                }
            }
        }
        floor
    }

    /// Whether the statement is among those that a person has put behind the point of no return.
    pub(super) fn removes(&self, index: usize) -> bool {
        self.drops_from.is_some_and(|from| index >= from)
    }

    /// The statement and those that are one copy with it.
    fn together_at(&self, index: usize) -> Vec<usize> {
        match self.bundle_of(index) {
            Some(bundle) => self.bundles[bundle].members.clone(),
            None => vec![index],
        }
    }

    /// Statements that this one may be tied to, before and behind it.
    pub(super) fn tied_to(&self, index: usize) -> Rc<BTreeSet<usize>> {
        let known = self.tied.borrow().get(&index).cloned();
        known.unwrap_or_else(|| {
            let found = Rc::new(self.ties.candidates(&self.statements[index].effects));
            self.tied.borrow_mut().insert(index, found.clone());
            found
        })
    }

    fn all_tied_to(&self, together: &[usize]) -> Rc<BTreeSet<usize>> {
        match together {
            [one] => self.tied_to(*one),
            several => {
                let sets = several.iter().map(|i| self.tied_to(*i));
                Rc::new(
                    sets.flat_map(|set| set.iter().copied().collect::<Vec<_>>())
                        .collect(),
                )
            }
        }
    }

    /// What ties the first of these that is tied to an earlier statement.
    fn tie(&self, together: &[usize], earlier: usize) -> Option<Tie> {
        together.iter().find_map(|i| self.tie_of(*i, earlier))
    }

    /// What ties a statement to an earlier one.
    pub(super) fn tie_of(&self, later: usize, earlier: usize) -> Option<Tie> {
        let (later, earlier) = (&self.statements[later], &self.statements[earlier]);
        let tie = later.effects.tie_to(&earlier.effects)?;
        // Columns named like another table: an ALTER of one table without a foreign key knows nothing of the other one.
        let apart = tie == Tie::Shape
            && is_part_of_a_copy(later)
            && is_part_of_a_copy(earlier)
            && later.effects.alters.first().map(|o| &o.name)
                != earlier.effects.alters.first().map(|o| &o.name);
        (!apart).then_some(tie)
    }

    /// Moves the steps of the statement at `index`, those from `first` on, behind the floor, and notes where they end.
    pub(super) fn place(&mut self, index: usize, first: usize, floor: Floor) -> Result<()> {
        let (mut end, mut before_attach) = (Phase::Expand, Phase::Expand);
        let drops = self.removes(index);
        let mut rule = false;
        let fixed = self.steps[first..].iter().any(is_fixed);
        if fixed {
            self.require_movable(index, floor)?;
        }
        for planned in &mut self.steps[first..] {
            // What writers who do not know a column may leave out, they may leave out from the start.
            let relaxes = drops && planned.step.kind == StepKind::RelaxColumn.name();
            if !fixed && !relaxes && planned.step.phase < floor.phase {
                put_off(planned, floor.phase);
            }
            if planned.step.kind == StepKind::RuleEnd.name() {
                rule = true;
                continue;
            }
            end = end.max(planned.step.phase);
            if planned.step.kind != StepKind::LeafAttach.name()
                && planned.step.kind != StepKind::LeafKeysAttach.name()
            {
                before_attach = before_attach.max(planned.step.phase);
            }
        }
        if end > Phase::Expand {
            let together = self.together_at(index);
            self.late.extend(together.into_iter().map(|index| Placed {
                index,
                end,
                rule,
                before_attach,
            }));
        }
        Ok(())
    }

    /// A rewrite has steps in every phase and cannot be put off. It may run before an earlier statement that ends later, where
    /// the result is the same.
    fn require_movable(&self, index: usize, floor: Floor) -> Result<()> {
        let statement = &self.statements[index];
        if floor.after.is_none() {
            return Ok(());
        }
        let together = self.together_at(index);
        let tied = self.all_tied_to(&together);
        for placed in self.late.iter().filter(|p| tied.contains(&p.index)) {
            let earlier = &self.statements[placed.index];
            let Some(tie) = self.tie(&together, placed.index) else {
                continue;
            };
            // Tables that are copied are swapped together, and what they use of each other follows.
            let together = tie == Tie::Shape && self.is_bundled(placed.index);
            if !together && (placed.rule || !commutes(earlier, placed.end, tie)) {
                return Err(Error::Unsupported {
                    problem: "a statement of the script has to begin before one that it builds on has ended"
                        .into(),
                    detail: format!(
                        "{} in line {} is copied beside the running application from the first phase on; {} in line {} ends in phase {}.",
                        statement.tag, statement.line, earlier.tag, earlier.line, placed.end
                    ),
                    hint: "Make two migrations of it, or change the order of the statements.".into(),
                });
            }
        }
        Ok(())
    }
}

/// Whether an earlier statement means the same when it runs behind the rewrite that follows it in the script.
fn commutes(earlier: &Statement, end: Phase, tie: Tie) -> bool {
    // Rows that change while they are copied are brought over again.
    let data = matches!(
        earlier.tag.as_str(),
        "UPDATE" | "DELETE" | "INSERT" | "MERGE"
    );
    if data {
        return tie == Tie::Shape && end < Phase::Contract;
    }
    match tie {
        // The server tried the rewrite without it.
        Tie::Unknown => matches!(
            earlier.tag.as_str(),
            "CREATE EXTENSION" | "ALTER DEFAULT PRIVILEGES"
        ),
        Tie::Shape => matches!(
            earlier.tag.as_str(),
            "CREATE TRIGGER"
                | "CREATE RULE"
                | "CREATE POLICY"
                | "ALTER POLICY"
                | "CREATE TABLE"
                | "CREATE VIEW"
                | "CREATE FUNCTION"
                | "CREATE PROCEDURE"
        ),
        // The table has its new name from expand on; what follows then is the old name's end.
        Tie::Name => matches!(earlier.kind, Kind::RenameTable(_)),
    }
}

/// Statements that add plain columns, or fill them: they may belong to the rule of their table, and nothing of it has to be
/// over before.
fn joins_a_rule(statement: &Statement) -> bool {
    match &statement.kind {
        Kind::AlterTable(alter) => alter
            .commands
            .iter()
            .all(|c| c.action == Action::AddColumn && c.constraint.is_none() && !c.has_expression),
        Kind::Data(data) => data.verb == Verb::Update,
        _ => false,
    }
}

/// Statements that say what a column is, or that it has another name or type: of one that is kept equal to others only when
/// it no longer is. Indexes and constraints are added while it is.
fn waits_for_the_end_of_a_rule(statement: &Statement) -> bool {
    match &statement.kind {
        Kind::RenameColumn(_) | Kind::RenameTable(_) | Kind::DropTable(_) => true,
        Kind::AlterTable(alter) => alter
            .commands
            .iter()
            .any(|c| matches!(c.action, Action::ColumnValue | Action::AlterType)),
        _ => false,
    }
}

/// Renames of columns do not wait for each other: all have two names until the end, where they are renamed at once.
fn both_rename(one: &Statement, other: &Statement) -> bool {
    matches!(
        (&one.kind, &other.kind),
        (Kind::RenameColumn(_), Kind::RenameColumn(_))
    )
}

/// Whether a statement means the same before an index or key of an earlier one is there: it adds to the table and does not name it.
fn needs_no_index(statement: &Statement, earlier: &Statement) -> bool {
    let names_it = earlier
        .effects
        .makes
        .iter()
        .any(|o| statement.effects.mentions.has(o.schema.as_deref(), &o.name));
    let adds = match &statement.kind {
        Kind::Maintenance(Maintenance::CreateIndex(_)) => true,
        Kind::AlterTable(alter) => alter.commands.iter().all(|c| match c.action {
            Action::AddConstraint => c.constraint != Some(ConstraintKind::Foreign),
            Action::AddColumn | Action::SetNotNull | Action::ColumnValue => true,
            _ => false,
        }),
        _ => false,
    };
    adds && !names_it
}

/// Whether the steps belong to a recipe that counts on its phases.
fn is_fixed(planned: &Planned) -> bool {
    [StepKind::RewriteExpand, StepKind::RewriteInto]
        .iter()
        .any(|kind| planned.step.kind == kind.name())
}

fn put_off(planned: &mut Planned, phase: Phase) {
    planned.step.phase = phase;
    if phase != Phase::Contract || !planned.step.reversible {
        return;
    }
    // Behind the point of no return nothing is taken back.
    planned.step.reversible = false;
    if !planned.step.reasons.contains(&Reason::Irreversible) {
        planned.step.reasons.push(Reason::Irreversible);
        let score = risk::score(&planned.step.reasons, &Facts::default());
        planned.step.risk_score = planned.step.risk_score.max(score);
        planned.step.risk_level = risk::Level::of_score(planned.step.risk_score);
    }
}
