//! What a statement asks of the rows that exist, found out on an empty copy of the table, and a look at whether they can: no
//! row is written, the table is only read.

use super::{halving, shadow};
use crate::catalog::relation::Relation;
use crate::error::Result;
use crate::model::ident::{quote_ident, QualifiedName};
use crate::pg::identity::{self, Session};
use crate::pg::parser::{Action, AlterTable};
use crate::pg::relation::{LockMode, Table};
use crate::pg::row::RowMapper;
use crate::pg::xact::{self, End};
use crate::pg::{activity, heap, spi, utility, Oid};

/// Blocks that are converted to see whether the rows can be; evenly spread over a larger table. 32 MB.
const SAMPLE_BLOCKS: i64 = 4096;
/// Rows that are named.
const EXAMPLES: usize = 3;

/// Something that the new shape asks of each row.
#[derive(Debug, Clone)]
pub struct Demand {
    /// `unique`, `not_null` or `check`.
    pub kind: String,
    pub name: String,
    pub expressions: Vec<String>,
    /// Of a partial index; empty: none.
    pub predicate: String,
    pub nulls_equal: bool,
}

/// What the conversion of some rows showed.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    pub blocks: i64,
    pub of_blocks: i64,
    pub refused: i64,
    pub examples: Vec<String>,
}

#[derive(Debug, Clone, Default)]
pub struct Preview {
    pub demands: Vec<Demand>,
    /// `None`: no value is converted.
    pub sample: Option<Sample>,
}

/// Looks at one statement on `table`; `alter` is `None` for a CREATE INDEX.
pub fn of(
    table: &Relation,
    text: &str,
    alter: Option<&AlterTable>,
    session: &Session,
) -> Result<Preview> {
    let schema = format!("_transmute_probe_{}", activity::pid());
    xact::subtransaction(End::Undo, || {
        spi::execute(
            &format!(
                "CREATE SCHEMA {} AUTHORIZATION {}",
                quote_ident(&schema),
                quote_ident(&table.owner_name)
            ),
            &[],
        )?;
        let copy = shadow::create_like(table, &schema)?;
        let name = QualifiedName::new(&schema, &table.name.name);
        match alter {
            Some(_) => {
                shadow::alter(table, text, &name, &[], session)?;
            }
            None => identity::as_role(table.owner, session, || utility::run_on(text, &name))?,
        }
        let demands = spi::query(
            include_str!("../../sql/query/new_demands.sql"),
            &[table.oid.into(), copy.into()],
            |row| {
                Ok(Demand {
                    kind: row.need(1)?,
                    name: row.need(2)?,
                    expressions: row.need(3)?,
                    predicate: row.need(4)?,
                    nulls_equal: row.need(5)?,
                })
            },
        )?;
        let converts = |a: &AlterTable| a.commands.iter().any(|c| c.action == Action::AlterType);
        let sample = match alter {
            Some(alter) if converts(alter) => Some(convert(table, copy, text, session)?),
            _ => None,
        };
        Ok(Preview { demands, sample })
    })
}

/// Converts rows of the table as the copy will, and throws the result away.
fn convert(table: &Relation, copy: Oid, alter: &str, session: &Session) -> Result<Sample> {
    let of_blocks = Table::open(table.oid, LockMode::AccessShare).blocks();
    let step = (of_blocks / SAMPLE_BLOCKS).max(1);
    let blocks: Vec<i64> = (0..of_blocks).step_by(step as usize).collect();
    let mut sample = Sample {
        blocks: blocks.len() as i64,
        of_blocks,
        ..Sample::default()
    };
    let as_owner = |f: &mut dyn FnMut(&mut RowMapper) -> Result<()>| {
        identity::as_role(table.owner, session, || {
            f(&mut RowMapper::new(table.oid, copy, alter, false)?)
        })
    };
    xact::with_latest_snapshot(|snapshot| {
        let mut refused = Vec::new();
        halving::run(
            &blocks,
            &mut |part| {
                as_owner(&mut |mapper| {
                    for block in part {
                        xact::check_for_interrupts();
                        let rows = heap::addresses(mapper, *block, block + 1, snapshot)?;
                        map(mapper, &rows, snapshot);
                    }
                    Ok(())
                })
            },
            &mut |block, _| {
                refused.push(*block);
                Ok(())
            },
        )?;
        for block in refused {
            let mut rows = Vec::new();
            as_owner(&mut |mapper| {
                rows = heap::addresses(mapper, block, block + 1, snapshot)?;
                Ok(())
            })?;
            halving::run(
                &rows,
                &mut |part| {
                    as_owner(&mut |mapper| {
                        map(mapper, part, snapshot);
                        Ok(())
                    })
                },
                &mut |tid, error| {
                    sample.refused += 1;
                    if sample.examples.len() < EXAMPLES {
                        sample
                            .examples
                            .push(format!("({},{}): {error}", tid.block, tid.offset));
                    }
                    Ok(())
                },
            )?;
        }
        Ok(())
    })?;
    Ok(sample)
}

/// A row that cannot be converted raises its ERROR.
fn map(mapper: &mut RowMapper, rows: &[heap::Tid], snapshot: heap::Snapshot) {
    for tid in rows {
        if heap::fetch(mapper, *tid, snapshot) {
            mapper.map();
            mapper.reset();
        }
    }
}
