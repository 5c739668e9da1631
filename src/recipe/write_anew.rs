//! VACUUM FULL and CLUSTER: the table is copied beside the application, without its dead rows, and in the order of an index.

use super::names::Target;
use super::rewrite::What;
use super::Planner;
use crate::catalog::{index, relation};
use crate::error::{Error, Result};
use crate::model::ident::quote_ident;
use crate::pg::maintenance::Name;
use crate::pg::parser::Statement;
use crate::rewrite;

/// Options that a copy has no use for, or does anyway.
const OPTIONS: [&str; 4] = ["full", "verbose", "analyze", "freeze"];

/// In which order the rows come to lie.
pub(super) enum Order<'a> {
    AsTheyAre,
    /// Of the index by which the table was clustered last.
    AsBefore,
    By(&'a str),
}

impl Planner<'_> {
    pub(super) fn write_anew(
        &mut self,
        number: i32,
        statement: &Statement,
        name: &Name,
        order: &Order<'_>,
        options: &[String],
    ) -> Result<()> {
        if let Some(option) = options.iter().find(|o| !OPTIONS.contains(&o.as_str())) {
            return Err(Error::Unsupported {
                problem: format!("the option {option} is not supported where a table is copied"),
                detail: format!("{} stands in line {}.", statement.tag, statement.line),
                hint: "Leave it out.".into(),
            });
        }
        let schema = name.schema.as_deref();
        let oid = match self.lookup(schema, &name.name)? {
            Target::Existing(oid) => oid,
            Target::New | Target::Nothing => return Err(self.undefined(schema, &name.name)),
        };
        let mut table = relation::get(oid)?;
        table.name = self.name_now(&table);
        self.require_alterable(&table)?;
        if table.kind == 'p' {
            return Err(Error::Unsupported {
                problem: format!("{} of a partitioned table is not supported", statement.tag),
                detail: format!("{} stands in line {}.", table.name, statement.line),
                hint: "Write one statement for each partition.".into(),
            });
        }
        self.require_free(&table)?;
        let marked = index::clustered(oid)?;
        // What the table, empty by then, is told in the swap: which index it is clustered by.
        let change = match (order, marked) {
            (Order::By(index), _) => format!("CLUSTER ON {}", quote_ident(index)),
            (Order::AsBefore, Some(index)) => format!("CLUSTER ON {}", quote_ident(&index)),
            (Order::AsBefore, None) => {
                return Err(Error::Prerequisite {
                    problem: "there is no index by which the table was clustered before".into(),
                    detail: format!("{} stands in line {}.", table.name, statement.line),
                    hint: "CLUSTER table USING index.".into(),
                })
            }
            (Order::AsTheyAre, Some(index)) => {
                format!("SET WITHOUT CLUSTER, CLUSTER ON {}", quote_ident(&index))
            }
            (Order::AsTheyAre, None) => "SET WITHOUT CLUSTER".into(),
        };
        let script = format!("ALTER TABLE {} {change}", table.name);
        let index = (number - 1) as usize;
        let outcome = self.probe(&table, &script, &[index])?;
        let what = What {
            script: &script,
            commands: &rewrite::commands(&script)?,
            added_for: None,
            part_of: None,
        };
        self.rewrite(index, what, &table, &outcome, &outcome.dependents)
    }
}
