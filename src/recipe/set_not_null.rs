//! SET NOT NULL without reading a row under a strong lock: a constraint that is NOT VALID, proved under a lock that lets
//! everybody work, then the mark on the column, which the server takes from the proof.

use super::draft::Draft;
use super::in_place::{NotNull, Plan};
use super::Planner;
use crate::error::Result;
use crate::model::ident::quote_ident;
use crate::model::phase::Phase;
use crate::model::reason::Reason;
use crate::pg::constraint::NOT_NULL_IS_A_CONSTRAINT;
use crate::store::step::Kind;

/// How a column gets NOT NULL.
pub(super) enum Proof {
    /// Nothing has to be read: constraints prove it, or it is NOT NULL already.
    Given {
        column: String,
        name: Option<String>,
    },
    /// The server's own NOT NULL constraint (18) of this name, validated.
    Constraint { name: String },
    /// A CHECK of this name, which goes when the column is marked.
    Check { column: String, name: String },
}

impl Proof {
    /// The constraint to validate.
    pub(super) fn to_validate(&self) -> Option<&str> {
        match self {
            Proof::Given { .. } => None,
            Proof::Constraint { name } | Proof::Check { name, .. } => Some(name),
        }
    }
}

impl Planner<'_> {
    /// Adds the constraints that are to prove the columns.
    pub(super) fn prove_not_null(
        &mut self,
        plan: &Plan<'_>,
        columns: &[NotNull],
    ) -> Result<Vec<Proof>> {
        let mut proofs = Vec::new();
        let (mut adds, mut drops) = (Vec::new(), Vec::new());
        for NotNull { column, name } in columns {
            if plan.outcome.not_null.contains(column) {
                proofs.push(Proof::Given {
                    column: column.clone(),
                    name: name.clone(),
                });
                continue;
            }
            let quoted = quote_ident(column);
            if NOT_NULL_IS_A_CONSTRAINT {
                let name =
                    self.constraint_name(plan.table, name.as_deref(), Some(column), "not_null")?;
                adds.push(format!(
                    "ADD CONSTRAINT {} NOT NULL {quoted} NOT VALID",
                    quote_ident(&name)
                ));
                drops.push(format!("DROP CONSTRAINT {}", quote_ident(&name)));
                proofs.push(Proof::Constraint { name });
            } else {
                let name =
                    self.constraint_name(plan.table, None, Some(column), "transmute_not_null")?;
                adds.push(format!(
                    "ADD CONSTRAINT {} CHECK ({quoted} IS NOT NULL){} NOT VALID",
                    quote_ident(&name),
                    if plan.only { " NO INHERIT" } else { "" }
                ));
                // The last step drops it.
                drops.push(format!("DROP CONSTRAINT IF EXISTS {}", quote_ident(&name)));
                proofs.push(Proof::Check {
                    column: column.clone(),
                    name,
                });
            }
        }
        if !adds.is_empty() {
            let draft = Draft::new(
                Kind::Execute,
                plan.adding,
                plan.table.name.to_string(),
                format!("{} {}", plan.head, adds.join(", ")),
            )
            .lock("ACCESS EXCLUSIVE")
            .reasons([Reason::LockAccessExclusive])
            .naive(
                "reads every row under ACCESS EXCLUSIVE",
                &[
                    Reason::LockAccessExclusive,
                    Reason::FullScanUnderLock,
                    Reason::ConstraintMayFail,
                ],
            )
            .revert(Some(format!("{} {}", plan.head, drops.join(", "))));
            self.push(plan.number, &plan.table.facts(), draft);
        }
        Ok(proofs)
    }

    /// Marks the columns whose proof is no constraint of the server's own.
    pub(super) fn set_not_null(&mut self, plan: &Plan<'_>, proofs: &[Proof]) {
        let (mut sets, mut drops, mut undo) = (Vec::new(), Vec::new(), Vec::new());
        let mut given = true;
        for proof in proofs {
            let (column, name) = match proof {
                Proof::Constraint { .. } => continue,
                Proof::Given { column, name } => (column, name.as_deref()),
                Proof::Check { column, name } => {
                    given = false;
                    drops.push(format!("DROP CONSTRAINT {}", quote_ident(name)));
                    (column, None)
                }
            };
            let column = quote_ident(column);
            sets.push(match name {
                Some(name) => format!("ADD CONSTRAINT {} NOT NULL {column}", quote_ident(name)),
                None => format!("ALTER COLUMN {column} SET NOT NULL"),
            });
            let marked =
                matches!(proof, Proof::Given { column, .. } if plan.marked.contains(column));
            if !marked {
                undo.push(format!("ALTER COLUMN {column} DROP NOT NULL"));
            }
        }
        if sets.is_empty() {
            return;
        }
        let mut sql = format!("{} {}", plan.head, sets.join(", "));
        if !drops.is_empty() {
            // Not in one ALTER TABLE: it drops before it looks for the proof, and reads every row then.
            sql.push_str(&format!("; {} {}", plan.head, drops.join(", ")));
        }
        let phase = match given {
            true => plan.adding,
            false => Phase::Validate,
        };
        let mut draft = Draft::new(Kind::Execute, phase, plan.table.name.to_string(), sql)
            .lock("ACCESS EXCLUSIVE")
            .reasons([Reason::LockAccessExclusive]);
        if given {
            draft = draft.naive("reads no row: it is proved", &[Reason::LockAccessExclusive]);
        }
        if !undo.is_empty() {
            draft = draft.revert(Some(format!("{} {}", plan.head, undo.join(", "))));
        }
        self.push(plan.number, &plan.table.facts(), draft);
    }
}
