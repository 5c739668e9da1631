//! A copy that takes the place of its table, which becomes partitioned so: the rows are copied beside the application, and the
//! statements that give the copy the table's name run in the swap.

use super::draft::Draft;
use super::names::Target;
use super::why::Seen;
use super::Planner;
use crate::catalog::relation::{self, Relation};
use crate::error::{Error, Result};
use crate::model::effects::Tie;
use crate::model::ident::QualifiedName;
use crate::model::lock::Mode;
use crate::model::phase::Phase;
use crate::model::plan::Estimate;
use crate::model::reason::Reason;
use crate::pg::maintenance::Maintenance;
use crate::pg::parser::{Action, Command, ConstraintKind, Kind, NewPlace, Statement};
use crate::pg::xact::{self, End};
use crate::pg::{relation as pg_relation, spi, utility, Oid};
use crate::rewrite::successor::{self, Fitting};
use crate::store::step::Kind as StepKind;
use std::collections::BTreeSet;

/// A table of the catalog and the copy that takes its place.
#[derive(Debug, Clone)]
pub(super) struct Succession {
    pub table: Oid,
    /// The statement that copies the rows.
    pub insert: usize,
    /// The statements behind it that are done in the swap.
    pub swap: Vec<usize>,
    /// The statements that make the copy, in the order in which they are tried; those behind the INSERT run before it.
    pub makers: Vec<usize>,
    /// Statements behind it that are done when the rows are there: indexes.
    pub builds: Vec<usize>,
    /// Sequences of the table that the swap gives to another one before it drops the table.
    pub given_away: Vec<Oid>,
}

/// What runs in the swap, in a moment, beside what gives the tables their names.
const LIGHT: [&str; 6] = [
    "ALTER INDEX",
    "ALTER SEQUENCE",
    "ALTER TABLE",
    "COMMENT",
    "GRANT",
    "REVOKE",
];

/// A constraint that a table can have before it has rows; a foreign key it must not have.
fn adds_constraint(command: &Command) -> bool {
    command.action == Action::AddConstraint && command.constraint != Some(ConstraintKind::Foreign)
}

/// Whether it is this table, or an index or sequence of it.
fn is_part(relation: Oid, table: Oid) -> Result<bool> {
    let part: Option<bool> = spi::value_kept(
        include_str!("../../sql/query/part_of_table.sql"),
        &[relation.into(), table.into()],
    )?;
    Ok(part == Some(true))
}

impl Planner<'_> {
    /// Reads the script around the copy in the statement at `insert`; `only_new` are statements that change nothing but
    /// what the script has made, `touched` what each of them changes or renames.
    pub(super) fn find_succession(
        &self,
        table: Oid,
        insert: usize,
        only_new: &BTreeSet<usize>,
        touched: &[(usize, Target)],
    ) -> Result<Succession> {
        let unsupported = |index: usize, what: &str| {
            let statement = &self.statements[index];
            Err(Error::Unsupported {
                problem: "a script in which a copy takes the place of its table does something else with one of them".into(),
                detail: format!("{} in line {} {what}.", statement.tag, statement.line),
                hint: "Put it into a migration of its own: INSERT INTO new SELECT * FROM old is followed by what gives the new table its name, and nothing else.".into(),
            })
        };
        let mut of_table: BTreeSet<usize> = BTreeSet::new();
        for (index, target) in touched {
            let of_it = match target {
                Target::Existing(oid) => is_part(*oid, table)?,
                // An index or sequence that the server has named when it made the copy.
                Target::Nothing => ["ALTER INDEX", "ALTER SEQUENCE"]
                    .contains(&self.statements[*index].tag.as_str()),
                Target::New => false,
            };
            if of_it && *index < insert {
                return unsupported(*index, "changes the table that is copied");
            }
            of_table.extend(of_it.then_some(*index));
        }
        let (mut swap, mut builds, mut adds) = (Vec::new(), Vec::new(), Vec::new());
        for index in insert + 1..self.statements.len() {
            let ties = |earlier: &usize| self.tie_of(index, *earlier).is_some();
            if !of_table.contains(&index) && !ties(&insert) && !swap.iter().any(ties) {
                continue;
            }
            let statement = &self.statements[index];
            if only_new.contains(&index) && swap.is_empty() {
                match &statement.kind {
                    Kind::Maintenance(Maintenance::CreateIndex(_) | Maintenance::Vacuum(_)) => {
                        builds.push(index);
                        continue;
                    }
                    Kind::AlterTable(alter) if alter.commands.iter().all(adds_constraint) => {
                        adds.push(index);
                        continue;
                    }
                    _ => {}
                }
            }
            let in_swap = match &statement.kind {
                Kind::RenameTable(_) => true,
                Kind::DropTable(drop) => {
                    drop.tables.len() == 1 && touched.contains(&(index, Target::Existing(table)))
                }
                Kind::Other => LIGHT.contains(&statement.tag.as_str()),
                _ => false,
            };
            if !in_swap {
                return unsupported(index, "follows the copy");
            }
            swap.push(index);
        }
        let needed = self.made_for(&[insert]);
        let mut makers: BTreeSet<usize> = needed.into_iter().collect();
        for index in only_new.range(..insert) {
            let statement = &self.statements[*index];
            let ties = makers.iter().chain([&insert]).any(|other| {
                let tie = self.tie_of(*index.max(other), *index.min(other));
                tie.is_some_and(|tie| tie != Tie::Unknown)
            });
            if !ties || matches!(statement.kind, Kind::Data(_)) {
                continue;
            }
            if let Kind::AlterTable(alter) = &statement.kind {
                let foreign = Some(ConstraintKind::Foreign);
                if alter.commands.iter().any(|c| c.constraint == foreign) {
                    return unsupported(
                        *index,
                        "gives the copy a foreign key, which its rows would not follow",
                    );
                }
            }
            makers.insert(*index);
        }
        makers.extend(adds);
        let given_away = self.given_away(table, &swap, touched)?;
        Ok(Succession {
            table,
            insert,
            swap,
            makers: makers.into_iter().collect(),
            builds,
            given_away,
        })
    }

    /// What ALTER SEQUENCE … OWNED BY another table does in these statements, up to the one that drops the table.
    fn given_away(
        &self,
        table: Oid,
        statements: &[usize],
        touched: &[(usize, Target)],
    ) -> Result<Vec<Oid>> {
        let mut given = Vec::new();
        for index in statements {
            let statement = &self.statements[*index];
            if matches!(statement.kind, Kind::DropTable(_)) {
                break;
            }
            let ("ALTER SEQUENCE", [_, owner]) = (
                statement.tag.as_str(),
                statement.subject.mentions.as_slice(),
            ) else {
                continue;
            };
            if self.existing(owner.schema.as_deref(), &owner.name)? != Some(table) {
                given.extend(touched.iter().filter_map(|(at, target)| match target {
                    Target::Existing(sequence) if at == index => Some(*sequence),
                    _ => None,
                }));
            }
        }
        Ok(given)
    }

    /// The copy that takes a table's place, where that is what the statement does.
    pub(super) fn succession_at(&self, index: usize) -> Option<Succession> {
        self.successions.iter().find(|s| s.insert == index).cloned()
    }

    /// The copy with which, or before which, a statement behind it is done.
    pub(super) fn succession_around(&self, index: usize) -> Option<usize> {
        self.successions
            .iter()
            .find(|s| s.swap.contains(&index) || index > s.insert && s.makers.contains(&index))
            .map(|s| s.insert)
    }

    /// Whether it is done when the rows are copied.
    pub(super) fn builds_on_a_copy(&self, index: usize) -> bool {
        self.successions.iter().any(|s| s.builds.contains(&index))
    }

    pub(super) fn succeed(&mut self, statement: &Statement, of: &Succession) -> Result<()> {
        let table = relation::get(of.table)?;
        let name = self.name_now(&table);
        self.require_alterable(&table)?;
        self.require_free(&table)?;
        self.require_one_copy(of.insert, &table)?;
        if self.meta.keep_old.is_some() || self.has_versions(&table)? {
            return Err(Error::Unsupported {
                problem: "a table that another one has taken the place of is not kept current, nor shown in versions".into(),
                detail: format!("{name}, with meta.keep_old or meta.versioned_views."),
                hint: "Leave that out.".into(),
            });
        }
        let (into, drops) = self.require_names(of, &table)?;
        self.try_succession(statement, of, &table, drops)?;
        self.seen.insert(
            of.insert as i32 + 1,
            Seen {
                copies: Some(table.oid),
                reasons: vec![Reason::DataLoss],
                notes: vec![
                    "what the application writes between the INSERT and the new name is lost where the script runs as it is written".into(),
                ],
                ..Seen::default()
            },
        );
        // Constraints behind the INSERT: the copy has them before it has rows.
        for index in of.makers.iter().filter(|i| **i > of.insert) {
            let maker = self.statements[*index].clone();
            self.on_new(*index as i32 + 1, &maker, Phase::Expand);
        }
        let swap: Vec<String> = of
            .swap
            .iter()
            .map(|i| self.statements[*i].text.clone())
            .collect();
        let facts = table.facts();
        let estimate = Estimate {
            rows: facts.rows,
            bytes: facts.bytes,
            seconds: 0.0,
        };
        let mut others = vec![into.to_string()];
        if drops {
            let partners: Vec<Oid> = crate::recover::table::foreign_keys(table.oid)?
                .iter()
                .map(|key| key.partner)
                .collect();
            others.extend(relation::names(&partners)?);
        }
        let clean_up = match drops {
            true => "drop the work tables, keep the old rows as an artifact",
            false => "drop the work tables",
        };
        let copying = vec![Reason::DiskSpace, Reason::ReplicationImpact];
        let steps: [(StepKind, Phase, &'static str, String, Vec<Reason>); 6] = [
            (
                StepKind::RewriteInto,
                Phase::Expand,
                "SHARE ROW EXCLUSIVE",
                format!("make the key log and the capture triggers; the rows go into {into}"),
                vec![Reason::LockShareRowExclusive],
            ),
            (
                StepKind::RewriteCopy,
                Phase::Backfill,
                "ACCESS SHARE",
                statement.text.clone(),
                copying,
            ),
            (
                StepKind::RewriteIndex,
                Phase::Validate,
                "ACCESS SHARE",
                format!("bring {into} up to date"),
                vec![],
            ),
            (
                StepKind::RewriteCheck,
                Phase::Validate,
                "ACCESS SHARE",
                format!("compare every row with its row in {into}"),
                vec![],
            ),
            (
                StepKind::RewriteSwap,
                Phase::Contract,
                "ACCESS EXCLUSIVE",
                swap.join(";\n"),
                vec![Reason::LockAccessExclusive, Reason::Irreversible],
            ),
            (
                StepKind::RewriteValidate,
                Phase::Contract,
                "",
                clean_up.into(),
                vec![],
            ),
        ];
        for (kind, phase, lock, sql, reasons) in steps {
            let mut draft = Draft::new(kind, phase, name.to_string(), sql)
                .lock(lock)
                .reasons(reasons);
            match kind {
                StepKind::RewriteCopy => {
                    draft = draft
                        .also(Mode::RowExclusive, into.to_string())
                        .estimate(estimate)
                        .naive("copies all rows in one transaction", &[]);
                }
                StepKind::RewriteIndex => {
                    draft = draft.also(Mode::ShareUpdateExclusive, into.to_string());
                }
                StepKind::RewriteCheck => draft = draft.estimate(estimate),
                StepKind::RewriteSwap => {
                    draft = draft.also_all(Mode::AccessExclusive, others.clone());
                    draft.reversible = false;
                }
                _ => {}
            }
            self.push(of.insert as i32 + 1, &facts, draft);
        }
        Ok(())
    }

    /// The copy, by the name that it has when it is filled, and whether the table is dropped; new names have to be free.
    fn require_names(
        &mut self,
        of: &Succession,
        table: &Relation,
    ) -> Result<(QualifiedName, bool)> {
        let insert = self.statements[of.insert].clone();
        let into = match &insert.kind {
            Kind::Data(data) => data.targets.first().cloned(),
            _ => None,
        };
        let (schema, name) = into.ok_or_else(|| Error::Bug("a copy into nothing".into()))?;
        let undefined = self.undefined(schema.as_deref(), &name);
        let into = self.place_of(schema.as_deref(), &name)?.ok_or(undefined)?;
        let mut taken: Vec<QualifiedName> = Vec::new();
        let mut left = vec![];
        let mut drops = false;
        for index in &of.swap {
            match &self.statements[*index].kind {
                Kind::DropTable(_) => {
                    drops = true;
                    left.push(table.name.clone());
                }
                Kind::RenameTable(rename) => {
                    let old = self.place_of(rename.table.schema.as_deref(), &rename.table.name)?;
                    let schema = old.map_or(table.name.schema.clone(), |old| old.schema);
                    let (from, to) = match &rename.to {
                        NewPlace::Name(new) => {
                            (&rename.table.name, QualifiedName::new(&schema, new))
                        }
                        NewPlace::Schema(new) => (
                            &rename.table.name,
                            QualifiedName::new(new, &rename.table.name),
                        ),
                    };
                    let known = pg_relation::resolve(Some(&to.schema), &to.name)?;
                    if known.is_some() && !left.contains(&to) || taken.contains(&to) {
                        return Err(Error::DuplicateTable {
                            name: to.to_string(),
                        });
                    }
                    left.push(QualifiedName::new(schema, from));
                    taken.push(to);
                }
                _ => {}
            }
        }
        Ok((into, drops))
    }

    /// Makes the copy, empty, and looks at it; all of that is undone.
    fn try_succession(
        &self,
        statement: &Statement,
        of: &Succession,
        table: &Relation,
        drops: bool,
    ) -> Result<Fitting> {
        let copy = successor::read(&statement.text)?;
        xact::subtransaction(End::Undo, || {
            let new = self.as_caller(|| {
                for maker in &of.makers {
                    utility::run(&self.statements[*maker].text)?;
                }
                // What the server itself has to say of it.
                spi::execute(&format!("EXPLAIN {}", statement.text), &[])?;
                pg_relation::resolve(copy.into.0.as_deref(), &copy.into.1)
            })?;
            let new = new.ok_or_else(|| self.undefined(copy.into.0.as_deref(), &copy.into.1))?;
            let fitting = successor::fit(table, new, &copy)?;
            if drops {
                successor::require_droppable(table, &of.given_away)?;
            }
            Ok(fitting)
        })
    }

    /// The swap of such a table is not that of the others.
    pub(super) fn require_one_swap(&self) -> Result<()> {
        let has = |kind: StepKind| self.steps.iter().any(|p| p.step.kind == kind.name());
        if !has(StepKind::RewriteInto) || !has(StepKind::RewriteExpand) {
            return Ok(());
        }
        Err(Error::Unsupported {
            problem: "a script rewrites one table, and has another one take the place of a second"
                .into(),
            detail: "Each is swapped in its own way.".into(),
            hint: "Make two migrations of it.".into(),
        })
    }
}
