//! ADD CHECK: NOT VALID under a moment of ACCESS EXCLUSIVE, the rows proved afterwards.

use super::draft::Draft;
use super::in_place::{New, Plan};
use super::Planner;
use crate::catalog::constraint;
use crate::error::{Error, Result};
use crate::model::ident::quote_ident;
use crate::model::reason::Reason;
use crate::pg::pieces::Constraint;
use crate::store::step::Kind;

impl Planner<'_> {
    /// `tried`: the constraints that the server made of the statement's CHECKs on the copy, in order.
    pub(super) fn check<'c>(
        &mut self,
        plan: &Plan<'_>,
        found: &Constraint,
        tried: &mut impl Iterator<Item = &'c constraint::Constraint>,
    ) -> Result<New> {
        let made = tried
            .next()
            .ok_or_else(|| Error::Bug(format!("no constraint was made of {}", found.body)))?;
        // Named after its column where there is exactly one.
        let column = match made.columns.as_slice() {
            [one] => Some(one.as_str()),
            _ => None,
        };
        let name = self.constraint_name(plan.table, found.name.as_deref(), column, "check")?;
        let validate = !found.not_valid && found.enforced;
        Ok(New {
            clause: format!(
                "ADD CONSTRAINT {} {}{}",
                quote_ident(&name),
                found.body,
                if validate { " NOT VALID" } else { "" }
            ),
            name,
            validate,
        })
    }

    pub(super) fn add_checks(&mut self, plan: &Plan<'_>, checks: &[New]) {
        if checks.is_empty() {
            return;
        }
        let clauses: Vec<&str> = checks.iter().map(|c| c.clause.as_str()).collect();
        let reads = checks.iter().any(|c| c.validate);
        let mut naive_reasons = vec![Reason::LockAccessExclusive];
        if reads {
            naive_reasons.extend([Reason::FullScanUnderLock, Reason::ConstraintMayFail]);
        }
        let draft = Draft::new(
            Kind::Execute,
            plan.adding,
            plan.table.name.to_string(),
            format!("{} {}", plan.head, clauses.join(", ")),
        )
        .lock("ACCESS EXCLUSIVE")
        .reasons([Reason::LockAccessExclusive])
        .naive(
            match reads {
                true => "reads every row under ACCESS EXCLUSIVE",
                false => "runs as it stands",
            },
            &naive_reasons,
        )
        .revert(Some(plan.drops(checks.iter().map(|c| c.name.as_str()))));
        self.push(plan.number, &plan.table.facts(), draft);
    }
}
