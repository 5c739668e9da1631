//! DROP TABLE and DROP COLUMN: hidden at the end, dropped when the artifact expires.

use super::draft::Draft;
use super::Planner;
use crate::catalog::column::{self, Column};
use crate::catalog::partition;
use crate::catalog::relation::{self, Relation};
use crate::error::{Error, Result};
use crate::model::ident::quote_ident;
use crate::model::lock::Mode;
use crate::model::phase::Phase;
use crate::model::reason::Reason;
use crate::pg::parser::{DropTable, Statement};
use crate::pg::{identity, spi, Oid};
use crate::recover::{self, column::Place};
use crate::rewrite::require_free;
use crate::store::step::Kind as StepKind;

impl Planner<'_> {
    pub(super) fn drop_table(
        &mut self,
        number: i32,
        statement: &Statement,
        drop: &DropTable,
    ) -> Result<()> {
        let mut tables = Vec::new();
        let mut missing = None;
        for named in &drop.tables {
            match self.table_named(named)? {
                Some(table) => tables.push(table),
                None if drop.missing_ok => missing = Some(named),
                None => return self.missing_table(number, statement, named, false),
            }
        }
        if let (true, Some(named)) = (tables.is_empty(), missing) {
            return self.missing_table(number, statement, named, true);
        }
        for table in &tables {
            self.require_alterable(table)?;
            require_free(table, "")?;
            let in_partitions = table.kind == 'p' || table.is_partition;
            if table.has_inheritance && !in_partitions {
                return Err(Error::Unsupported {
                    problem: "a table with heirs, or an heir, is not dropped online".into(),
                    detail: format!("{} is part of an inheritance tree.", table.name),
                    hint: "NO INHERIT first; then it is a table like others.".into(),
                });
            }
            if !self.drops_at_once() {
                self.require_hidable(table)?;
            }
        }
        let oids: Vec<_> = tables.iter().map(|t| t.oid).collect();
        let names: Vec<String> = tables.iter().map(|t| t.name.to_string()).collect();
        recover::require_unused(&oids, &[], &names.join(", "))?;
        let plain = [
            Reason::LockAccessExclusive,
            Reason::DataLoss,
            Reason::BreaksOldClients,
        ];
        for table in &tables {
            let sql = format!("DROP TABLE {}", table.name);
            let draft = match self.drops_at_once() {
                true => Draft::new(
                    StepKind::Execute,
                    Phase::Contract,
                    table.name.to_string(),
                    sql,
                )
                .reasons(plain)
                .reasons([Reason::Irreversible]),
                false => Draft::new(
                    StepKind::HideTable,
                    Phase::Contract,
                    table.name.to_string(),
                    sql,
                )
                .reasons([Reason::LockAccessExclusive, Reason::BreaksOldClients]),
            };
            let mut others = Vec::new();
            for member in partition::tree(table.oid)? {
                others.extend(relation::owned_sequences(member.oid)?);
                others.extend((member.oid != table.oid).then_some(member.oid));
                let keys = recover::table::foreign_keys(member.oid)?;
                others.extend(keys.iter().map(|key| key.partner));
            }
            let draft = draft
                .also_all(Mode::AccessExclusive, relation::names(&others)?)
                .lock("ACCESS EXCLUSIVE")
                .naive("drops the table and its rows at once", &plain);
            self.push(number, &table.facts(), draft);
        }
        Ok(())
    }

    /// A partitioned table is hidden with its partitions; a partition by itself would have to leave its table first.
    fn require_hidable(&self, table: &Relation) -> Result<()> {
        if table.is_partition {
            return Err(Error::Unsupported {
                problem: "a partition is not hidden before it is dropped".into(),
                detail: format!("{} is part of a partition tree.", table.name),
                hint: "meta => '{\"drop_policy\": \"drop\"}' drops it, and its rows, at the end; DETACH PARTITION first makes it a table like others.".into(),
            });
        }
        if table.kind != 'p' {
            return Ok(());
        }
        let members: Vec<Oid> = self.whole_tree(table)?;
        match recover::table::name_taken_twice(&members)? {
            None => Ok(()),
            Some(name) => Err(Error::Unsupported {
                problem: "the partitions of a table cannot be hidden in one schema".into(),
                detail: format!("Two tables or indexes of {} are named {name}.", table.name),
                hint:
                    "meta => '{\"drop_policy\": \"drop\"}' drops them, and their rows, at the end."
                        .into(),
            }),
        }
    }

    /// The tables of a partition tree, all of which the owner of the first one may change.
    fn whole_tree(&self, table: &Relation) -> Result<Vec<Oid>> {
        let mut oids = vec![table.oid];
        for member in partition::tree(table.oid)?.iter().skip(1) {
            let own = relation::get(member.oid)?;
            self.require_alterable(&own)?;
            require_free(&own, "")?;
            if !identity::has_privs_of(table.owner, own.owner) {
                return Err(Error::Privilege {
                    problem: "must be owner of the partition".into(),
                    detail: format!(
                        "{} belongs to \"{}\", {} to \"{}\".",
                        own.name, own.owner_name, table.name, table.owner_name
                    ),
                    hint: "Give the partition to the owner of its table.".into(),
                });
            }
            oids.push(member.oid);
        }
        Ok(oids)
    }

    /// ALTER TABLE that drops columns and does nothing else.
    pub(super) fn drop_columns(
        &mut self,
        number: i32,
        table: &Relation,
        dropped: &[i16],
    ) -> Result<()> {
        require_free(table, "")?;
        recover::require_unused(&[table.oid], dropped, &table.name.to_string())?;
        let tree = self.whole_tree(table)?;
        let below = relation::names(&tree[1..])?;
        let plain = [
            Reason::LockAccessExclusive,
            Reason::DataLoss,
            Reason::BreaksOldClients,
        ];
        let facts = table.facts();
        for column in column::list(table.oid)?
            .iter()
            .filter(|c| dropped.contains(&c.number))
        {
            let name = quote_ident(&column.name);
            if table.kind == 'p' {
                recover::column::require_droppable(&recover::column::places(table, &column.name)?)?;
            }
            // What follows new columns that were not given is NULL, whatever the default is.
            let follows = self.follows(table, column);
            let defaults = !column.expression.is_empty() || !column.identity.is_empty();
            let must_be_given =
                column.not_null && column.generated.is_empty() && (follows || !defaults);
            if self.meta.keep_old.is_some() && !follows {
                for place in recover::column::places(table, &column.name)? {
                    require_back(&place, column, must_be_given)?;
                }
            }
            let mut reasons = vec![Reason::LockAccessExclusive, Reason::BreaksOldClients];
            if must_be_given {
                match not_null_again(table, &tree, &column.name)? {
                    Some(back) => self.push(
                        number,
                        &facts,
                        Draft::new(
                            StepKind::RelaxColumn,
                            Phase::Expand,
                            table.name.to_string(),
                            format!(
                                "ALTER TABLE {} ALTER COLUMN {name} DROP NOT NULL",
                                table.name
                            ),
                        )
                        .lock("ACCESS EXCLUSIVE")
                        .also_all(Mode::AccessExclusive, below.clone())
                        .reasons([Reason::LockAccessExclusive])
                        .revert(Some(back)),
                    ),
                    // Part of a primary key, or partitions have names of their own for it: until it goes nobody writes rows without it.
                    None => reasons.push(Reason::BreaksNewClients),
                }
            }
            let draft = Draft::new(
                StepKind::HideColumn,
                Phase::Contract,
                table.name.to_string(),
                format!("ALTER TABLE {} DROP COLUMN {name}", table.name),
            )
            .lock("ACCESS EXCLUSIVE")
            .also_all(Mode::AccessExclusive, below.clone())
            .naive("drops the column and its values at once", &plain)
            .reasons(reasons);
            self.push(number, &facts, draft);
        }
        Ok(())
    }

    /// Whether a rule keeps the column current when it is hidden.
    fn follows(&self, table: &Relation, column: &Column) -> bool {
        let ruled = self.ruled.get(&table.oid.to_u32());
        let rule = ruled.and_then(|r| self.steps[r.make].step.rule.as_ref());
        let after = rule.and_then(|r| r.after.as_ref());
        after.is_some_and(|a| a.forth.iter().any(|f| f.column == column.name))
    }

    pub(super) fn drops_at_once(&self) -> bool {
        self.meta.drop_policy.as_deref() == Some("drop")
    }
}

/// The statement that makes the column NOT NULL again, under the same constraint name where it has one, in the whole tree; `None`:
/// it cannot be anything else.
fn not_null_again(table: &Relation, tree: &[Oid], column: &str) -> Result<Option<String>> {
    let in_key: Option<bool> = spi::value(
        "SELECT EXISTS (SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey::int2[]) \
           WHERE i.indrelid = ANY ($1) AND i.indisprimary AND a.attname = $2::name)",
        &[tree.to_vec().into(), column.into()],
    )?;
    if in_key == Some(true) {
        return Ok(None);
    }
    let constraints: Vec<String> = spi::query(
        "SELECT DISTINCT c.conname::text FROM pg_constraint c JOIN pg_attribute a ON a.attrelid = c.conrelid AND c.conkey = ARRAY[a.attnum] \
         WHERE c.conrelid = ANY ($1) AND c.contype = 'n' AND a.attname = $2::name",
        &[tree.to_vec().into(), column.into()],
        |row| row.need(1),
    )?;
    let name = quote_ident(column);
    Ok(match constraints.as_slice() {
        [] => Some(format!(
            "ALTER TABLE {} ALTER COLUMN {name} SET NOT NULL",
            table.name
        )),
        [constraint] => Some(format!(
            "ALTER TABLE {} ADD CONSTRAINT {} NOT NULL {name}",
            table.name,
            quote_ident(constraint)
        )),
        _ => None,
    })
}

/// With `meta.keep_old` a dropped column that nothing keeps current can come back if rows can be written without it.
fn require_back(place: &Place, column: &Column, must_be_given: bool) -> Result<()> {
    let binding = recover::column::binding(place.oid, place.number)?;
    // A partition may ask for more than its table.
    let own = column::list(place.oid)?;
    let own = own.iter().find(|c| c.number == place.number);
    let must_be_given = must_be_given
        || own.is_some_and(|own| {
            let given = |c: &Column| !c.expression.is_empty() || !c.identity.is_empty();
            own.not_null && own.generated.is_empty() && !(given(own) && given(column))
        });
    let why = match (must_be_given, binding.first()) {
        (true, _) => "it is NOT NULL, and has no default".to_string(),
        (_, Some(sql)) => format!("{} binds it", sql.rsplit(' ').next().unwrap_or_default()),
        _ => return Ok(()),
    };
    Err(Error::Unsupported {
        problem: "a dropped column could not come back after the end".into(),
        detail: format!(
            "Column {} of {}: {why}, and nothing says which value it has in rows that are written meanwhile.",
            quote_ident(&column.name), place.name
        ),
        hint: "Make it of the new columns, by UPDATE … SET new = expression over it and meta.reverse, or leave meta.keep_old out."
            .into(),
    })
}
