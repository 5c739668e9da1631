//! Sequences of serial columns, which count in the type that the column had.

use super::draft::Draft;
use super::Planner;
use crate::catalog::relation::Relation;
use crate::error::Result;
use crate::model::phase::Phase;
use crate::model::reason::Reason;
use crate::model::risk::Facts;
use crate::pg::spi;
use crate::rewrite::probe;
use crate::store::step::Kind as StepKind;

impl Planner<'_> {
    /// A column that becomes wider takes its sequence along; that of an identity column follows by itself.
    pub(super) fn widen_sequences(
        &mut self,
        number: i32,
        table: &Relation,
        outcome: &probe::Outcome,
    ) -> Result<()> {
        for change in &outcome.types {
            let narrow = spi::query(
                "SELECT format('%I.%I', n.nspname, s.relname), format_type($3, NULL), format_type(q.seqtypid, NULL) \
                 FROM pg_depend d JOIN pg_sequence q ON q.seqrelid = d.objid \
                 JOIN pg_class s ON s.oid = d.objid JOIN pg_namespace n ON n.oid = s.relnamespace \
                 JOIN pg_type o ON o.oid = q.seqtypid JOIN pg_type w ON w.oid = $3 \
                 WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass \
                   AND d.refobjid = $1 AND d.refobjsubid = $2 AND d.deptype = 'a' \
                   AND w.oid IN ('int4'::regtype, 'int8'::regtype) AND w.typlen > o.typlen ORDER BY 1",
                &[
                    table.oid.into(),
                    change.number.into(),
                    change.new_type.into(),
                ],
                |row| Ok((row.need::<String>(1)?, row.need::<String>(2)?, row.need::<String>(3)?)),
            )?;
            for (sequence, wide, narrow) in narrow {
                let sql = format!("ALTER SEQUENCE {sequence} AS {wide}");
                let back = format!("ALTER SEQUENCE {sequence} AS {narrow}");
                let keeps_old = self.meta.keep_old.is_some();
                let draft = Draft::new(StepKind::Execute, Phase::Contract, sequence, sql)
                    .lock("SHARE ROW EXCLUSIVE")
                    .reasons([Reason::LockShareRowExclusive])
                    .revert(keeps_old.then_some(back));
                self.push(number, &Facts::default(), draft);
            }
        }
        Ok(())
    }
}
