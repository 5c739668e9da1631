//! REFRESH MATERIALIZED VIEW: concurrently, so that readers go on.

use super::draft::Draft;
use super::names::Target;
use super::Planner;
use crate::catalog::{index, relation};
use crate::error::{Error, Result};
use crate::model::phase::Phase;
use crate::model::reason::Reason;
use crate::pg::maintenance::Refresh;
use crate::store::step::Kind as StepKind;

impl Planner<'_> {
    pub(super) fn refresh(&mut self, number: i32, refresh: &Refresh) -> Result<()> {
        let (schema, name) = (refresh.name.schema.as_deref(), &refresh.name.name);
        let oid = match self.lookup(schema, name)? {
            Target::Existing(oid) => oid,
            Target::New | Target::Nothing => return Err(self.undefined(schema, name)),
        };
        let view = relation::get(oid)?;
        if view.kind != 'm' {
            return Err(Error::WrongObject {
                problem: "the relation is not a materialized view".into(),
                detail: format!("REFRESH MATERIALIZED VIEW {}.", view.name),
                hint: "Name a materialized view.".into(),
            });
        }
        self.require_owned(&view)?;
        let (by_key, populated) = index::refreshable(oid)?;
        if !refresh.with_data || populated && !by_key {
            return Err(Error::Unsupported {
                problem: "nobody could read the materialized view meanwhile".into(),
                detail: match refresh.with_data {
                    true => format!(
                        "{} has no unique index on plain columns over all rows.",
                        view.name
                    ),
                    false => format!("WITH NO DATA empties {}.", view.name),
                },
                hint: "CREATE UNIQUE INDEX on it, then REFRESH with data.".into(),
            });
        }
        let (concurrently, lock) = match populated {
            true => ("CONCURRENTLY ", "EXCLUSIVE"),
            false => ("", "ACCESS EXCLUSIVE"), // there is nothing in it that could be read
        };
        let target = view.name.to_string();
        let sql = format!("REFRESH MATERIALIZED VIEW {concurrently}{target}");
        let draft = Draft::new(StepKind::Outside, Phase::Contract, target, sql)
            .lock(lock)
            .outside()
            .reasons([Reason::Irreversible]);
        self.push(number, &view.facts(), draft);
        Ok(())
    }
}
