//! VALIDATE CONSTRAINT: reads every row under SHARE UPDATE EXCLUSIVE, which nobody who reads or writes notices.

use super::draft::Draft;
use super::in_place::{ForeignKey, New, Plan};
use super::set_not_null::Proof;
use super::Planner;
use crate::error::Result;
use crate::model::ident::quote_ident;
use crate::model::lock::Mode;
use crate::model::phase::Phase;
use crate::model::plan::Estimate;
use crate::model::reason::Reason;
use crate::pg::spi;
use crate::store::step::Kind;

/// Rows a second that a server of this kind proves, for estimates (docs/benchmarks.md).
const ROWS_PER_SECOND: f64 = 6_000_000.0;

impl Planner<'_> {
    /// Proves what was added NOT VALID: CHECK and NOT NULL in one pass over the table, foreign keys one by one.
    pub(super) fn validate_added(
        &mut self,
        plan: &Plan<'_>,
        checks: &[New],
        foreign_keys: &[ForeignKey],
        proofs: &[Proof],
    ) {
        let names: Vec<&str> = checks
            .iter()
            .filter(|c| c.validate)
            .map(|c| c.name.as_str())
            .chain(proofs.iter().filter_map(Proof::to_validate))
            .collect();
        if !names.is_empty() {
            self.validate_step(plan, &names, None, None);
        }
        for key in foreign_keys.iter().filter(|k| k.new.validate) {
            let referenced = key.referenced.clone();
            self.validate_step(plan, &[&key.new.name], None, referenced);
        }
    }

    /// VALIDATE CONSTRAINT as the script has it.
    pub(super) fn validate(&mut self, plan: &Plan<'_>, names: &[String]) -> Result<()> {
        for name in names {
            let not_valid = not_valid_again(plan, name)?;
            self.validate_step(plan, &[name], not_valid, None);
        }
        Ok(())
    }

    fn validate_step(
        &mut self,
        plan: &Plan<'_>,
        names: &[&str],
        revert: Option<String>,
        referenced: Option<String>,
    ) {
        let clauses: Vec<String> = names
            .iter()
            .map(|name| format!("VALIDATE CONSTRAINT {}", quote_ident(name)))
            .collect();
        let facts = plan.table.facts();
        let mut draft = Draft::new(
            Kind::Execute,
            Phase::Validate,
            plan.table.name.to_string(),
            format!("{} {}", plan.head, clauses.join(", ")),
        )
        .lock("SHARE UPDATE EXCLUSIVE")
        .also_all(Mode::RowShare, referenced)
        .reasons([Reason::ConstraintMayFail])
        .estimate(Estimate {
            rows: facts.rows,
            bytes: plan.table.table_bytes,
            seconds: facts.rows as f64 / ROWS_PER_SECOND,
        });
        draft.revert_sql = revert;
        self.push(plan.number, &facts, draft);
    }
}

/// What makes a constraint NOT VALID again, if it is that now: nothing else takes its mark back.
fn not_valid_again(plan: &Plan<'_>, name: &str) -> Result<Option<String>> {
    spi::first(
        "SELECT format('%s DROP CONSTRAINT %I, ADD CONSTRAINT %I %s', $3::text, conname, conname, pg_get_constraintdef(oid)) \
           || coalesce(format('; COMMENT ON CONSTRAINT %I ON %s IS %L', conname, $4::text, obj_description(oid, 'pg_constraint')), '') \
         FROM pg_constraint WHERE conrelid = $1 AND conname = $2::name AND NOT convalidated",
        &[
            plan.table.oid.into(),
            name.into(),
            plan.head.as_str().into(),
            plan.table.name.to_string().into(),
        ],
        |row| row.need(1),
    )
}
