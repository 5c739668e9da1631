//! `meta.keep_old`: how the tables that a script rewrites get back to the old shape, given as `down` or derived, and what
//! such a script may not do.

use super::names::Target;
use super::rewrite::PartOf;
use super::{Planned, Planner};
use crate::catalog::column::{self, Column};
use crate::catalog::index;
use crate::catalog::partition::Member;
use crate::catalog::relation::Relation;
use crate::error::{Error, Result};
use crate::model::ident::{quote_ident, QualifiedName};
use crate::model::phase::Phase;
use crate::pg::maintenance::Maintenance;
use crate::pg::parser::{self, Action, Command, ConstraintKind, Kind, Statement};
use crate::pg::pieces::{self, Piece};
use crate::pg::xact::{self, End};
use crate::pg::{identity, spi, utility, Oid};
use crate::rewrite::{keep, probe, shadow};
use crate::store::version;

/// Whole numbers: a narrower one refuses what it does not hold.
const INTEGERS: [u32; 3] = [21, 23, 20]; // int2, int4, int8

/// The statements of a way back, by the table of the catalog that they are about.
#[derive(Debug, Default)]
pub(super) struct Down {
    by_table: Vec<(Oid, Vec<String>)>,
}

impl Planner<'_> {
    /// Reads the way back that was given: statements on tables of the catalog.
    pub(super) fn read_down(&mut self, down: &str) -> Result<()> {
        let statements = xact::subtransaction(End::Keep, || parser::parse(down))
            .map_err(|e| super::place::of_syntax_error(e, down))?;
        for statement in statements {
            let table = match self.table_of_down(&statement) {
                // What else it does is a matter of the way back as a migration of its own.
                Err(_) if self.meta.keep_old.is_none() => continue,
                table => table?,
            };
            match self.down.by_table.iter_mut().find(|(t, _)| *t == table) {
                Some((_, texts)) => texts.push(statement.text),
                None => self.down.by_table.push((table, vec![statement.text])),
            }
        }
        Ok(())
    }

    fn table_of_down(&self, statement: &Statement) -> Result<Oid> {
        let found = match &statement.kind {
            Kind::AlterTable(alter) => self.lookup(alter.schema.as_deref(), &alter.name)?,
            Kind::Maintenance(Maintenance::CreateIndex(create)) => {
                self.lookup(create.table.schema.as_deref(), &create.table.name)?
            }
            // Of an index that the script makes.
            Kind::Maintenance(Maintenance::DropIndex(drop)) if drop.names.len() == 1 => {
                let made = self.statements.iter().find_map(|s| match &s.kind {
                    Kind::Maintenance(Maintenance::CreateIndex(create))
                        if create.name.as_ref() == drop.names.first().map(|n| &n.name) =>
                    {
                        Some(&create.table)
                    }
                    _ => None,
                });
                match made {
                    Some(table) => self.lookup(table.schema.as_deref(), &table.name)?,
                    None => return Err(not_about_a_table(statement)),
                }
            }
            _ => return Err(not_about_a_table(statement)),
        };
        match found {
            Target::Existing(oid) => Ok(oid),
            _ => Err(not_about_a_table(statement)),
        }
    }

    /// The statements that lead a table back to the shape before `script`, which begins at `index`; `None`: the old rows
    /// are not kept current. They are tried on copies.
    pub(super) fn way_back(
        &self,
        index: usize,
        table: &Relation,
        script: &str,
    ) -> Result<Option<String>> {
        if self.meta.keep_old.is_none() && !self.has_versions(table)? {
            return Ok(None);
        }
        let changed = self.on_copies(index, table, script, |_, new| {
            self.versions_behind(table, &column::list(shadow::oid_of(new)?)?)
        })?;
        if self.meta.keep_old.is_none() && !self.makes_versions() && !changed {
            return Ok(None);
        }
        self.proved_back(index, table, script, self.given(table))
            .map(Some)
    }

    /// The same for a partitioned table: its partitions are emptied, and it takes them along.
    pub(super) fn way_back_of_tree(
        &self,
        index: usize,
        table: &Relation,
        script: &str,
    ) -> Result<Option<String>> {
        let Some(back) = self.way_back(index, table, script)? else {
            return Ok(None);
        };
        for statement in parser::parse(&back)? {
            let is_about_columns = match &statement.kind {
                Kind::AlterTable(alter) => alter.commands.iter().all(|c| {
                    // A CHECK has one name in the whole tree; an index, and the key on it, has not.
                    c.action != Action::DropConstraint || self.adds_check(script, c)
                }),
                _ => false,
            };
            if !is_about_columns {
                return Err(Error::Unsupported {
                    problem: "an index or a key is made by the statement that rewrites a partitioned table, whose old rows are kept, or shown in versions"
                        .into(),
                    detail: format!(
                        "On {}, the way back: {}. It has another name on each partition.",
                        table.name, statement.text
                    ),
                    hint: "Make it in a migration of its own, or leave meta.keep_old and meta.versioned_views out.".into(),
                });
            }
        }
        Ok(Some(back))
    }

    /// And of one of its partitions, which may differ from it: the same statements must lead that back, too.
    pub(super) fn way_back_of_part(
        &self,
        part_of: &PartOf,
        leaf: &Relation,
        script: &str,
    ) -> Result<Option<String>> {
        let Some(back) = &part_of.back else {
            return Ok(None);
        };
        self.proved_back(part_of.index, leaf, script, Some(back.clone()))
            .map(Some)
    }

    /// Whether the constraint that a command drops is a CHECK that `script` adds.
    fn adds_check(&self, script: &str, dropped: &Command) -> bool {
        let Ok(commands) = crate::rewrite::commands(script) else {
            return false;
        };
        let added = commands
            .iter()
            .filter(|c| c.action == Action::AddConstraint)
            .all(|c| c.constraint == Some(ConstraintKind::Check));
        added && dropped.column.is_some()
    }

    fn given(&self, table: &Relation) -> Option<String> {
        self.down
            .by_table
            .iter()
            .find(|(t, _)| *t == table.oid)
            .map(|(_, texts)| texts.join(";\n"))
    }

    /// The statements that were given, or derived ones, proved on copies of the table.
    fn proved_back(
        &self,
        index: usize,
        table: &Relation,
        script: &str,
        given: Option<String>,
    ) -> Result<String> {
        let session = &self.caller.session;
        self.on_copies(index, table, script, |old, new| {
            let back = match given {
                Some(down) => down,
                None => {
                    let before = column::list(shadow::oid_of(old)?)?;
                    let after = column::list(shadow::oid_of(new)?)?;
                    derived(&table.name, script, &before, &after)?
                }
            };
            keep::prove(table, old, new, script, &back, session)?;
            // Rows are found in the partitions.
            if self.meta.keep_old.is_some() && table.kind != 'p' {
                keep::require_key(table, old, new, &back, session)?;
            }
            Ok(back)
        })
    }

    /// On empty copies of the table before and after the script.
    fn on_copies<T>(
        &self,
        index: usize,
        table: &Relation,
        script: &str,
        f: impl FnOnce(&QualifiedName, &QualifiedName) -> Result<T>,
    ) -> Result<T> {
        let members = match self.bundle_of(index) {
            Some(bundle) => self.bundles[bundle].members.clone(),
            None => vec![index],
        };
        let first = members.iter().copied().min().unwrap_or(0);
        let earlier = self.earlier(table.oid, first, &members);
        let needed = self.made_for(&members);
        let session = &self.caller.session;
        let before = || {
            for i in needed {
                let text = &self.statements[i].text;
                identity::as_role(self.caller.role, session, || utility::run(text))?;
            }
            Ok(())
        };
        keep::with_copies(table, script, &earlier, session, before, f)
    }

    /// Refuses what versions of a partitioned table cannot be written through, and versions of a partition by itself, which its table's
    /// statement would change under them.
    pub(super) fn require_versions_of_tree(
        &self,
        table: &Relation,
        members: &[Member],
        outcome: &probe::Outcome,
    ) -> Result<()> {
        for member in members.iter().filter(|m| m.oid != table.oid) {
            if let Some(view) = version::on(member.oid)?.first() {
                return Err(Error::Unsupported {
                    problem: "a partition of the table is shown in a version by itself".into(),
                    detail: format!("{} shows {}.", view.name(), member.name),
                    hint: "transmute.release_version(version, reason) of that version, when its application is gone.".into(),
                });
            }
        }
        let converts = !outcome.types.is_empty() && self.has_versions(table)?;
        if converts && index::keys(table.oid, &[])?.is_empty() {
            return Err(Error::Unsupported {
                problem: "a version of a table without a key cannot be written".into(),
                detail: format!("The statement converts columns of {}.", table.name),
                hint: "Give the table a primary key, or leave meta.versioned_views out.".into(),
            });
        }
        Ok(())
    }

    /// Refuses a way back of what is not copied, and a plan with `meta.keep_old` that could not be undone as a whole.
    pub(super) fn require_undoable(&self, steps: &[Planned]) -> Result<()> {
        if self.meta.keep_old.is_none() {
            return Ok(());
        }
        for planned in steps {
            let step = &planned.step;
            let undoable = match step.kind.as_str() {
                "execute" | "change" | "outside" => step.reversible,
                "data" | "batch" => step.phase != Phase::Contract,
                "version_before" | "version_after" => true,
                "alias_make" | "alias_drop" | "relax_column" | "hide_column" => true,
                kind => ["rewrite_", "rule_", "rename_"]
                    .iter()
                    .any(|k| kind.starts_with(k)),
            };
            if step.kind == "hide_table" {
                return Err(Error::Unsupported {
                    problem: "a table that is dropped has no undo: nothing is in its place that writes could be followed from"
                        .into(),
                    detail: format!("meta.keep_old is given, and step {}: {}.", step.step, step.sql),
                    hint: "Drop it in a migration of its own, without meta.keep_old: transmute.down(id, reason) gives it back with its \
                        rows for as long as meta.keep_artifacts says."
                        .into(),
                });
            }
            if !undoable {
                return Err(Error::Unsupported {
                    problem: "a statement cannot be undone after the end".into(),
                    detail: format!(
                        "meta.keep_old is given, and step {} has no way back: {}.",
                        step.step, step.sql
                    ),
                    hint:
                        "Leave meta.keep_old out, or put the statement into a migration of its own."
                            .into(),
                });
            }
        }
        let unused = self
            .down
            .by_table
            .iter()
            .find(|(table, _)| !self.rewritten.contains(&table.to_u32()));
        if let Some((_, texts)) = unused {
            return Err(Error::Unsupported {
                problem: "down says of a table that is not copied how it gets back".into(),
                detail: texts.join("; "),
                hint: "Leave it out: what is done without a copy is taken back by itself.".into(),
            });
        }
        let keeps = |p: &Planned| {
            ["hide_column", "rule_end", "rename_finish", "alias_drop"]
                .contains(&p.step.kind.as_str())
        };
        let shown = |p: &Planned| p.step.kind.starts_with("version_");
        if steps.iter().any(keeps) && steps.iter().any(shown) {
            return Err(Error::Unsupported {
                problem: "columns and names are not kept where versions show the tables".into(),
                detail: "meta.keep_old is given, and the script renames or drops columns of a table with versions.".into(),
                hint: "Leave meta.keep_old out: the versions keep the old shape.".into(),
            });
        }
        if self.rewritten.is_empty() && !steps.iter().any(keeps) {
            return Err(Error::Unsupported {
                problem:
                    "nothing is kept: the script copies no table, and takes no column or name away"
                        .into(),
                detail: "meta.keep_old is about old rows, columns and names.".into(),
                hint: "Leave meta.keep_old out.".into(),
            });
        }
        Ok(())
    }
}

fn not_about_a_table(statement: &Statement) -> Error {
    Error::Unsupported {
        problem: "a statement of down is not about a table that the script rewrites".into(),
        detail: format!("{} in line {} of down.", statement.tag, statement.line),
        hint: "Give ALTER TABLE, and CREATE or DROP INDEX, of the tables that are copied; anything else is taken back by itself."
            .into(),
    }
}

/// The way back of statements, where there is only one.
fn derived(
    table: &QualifiedName,
    script: &str,
    before: &[Column],
    after: &[Column],
) -> Result<String> {
    let (mut indexes, mut clauses) = (Vec::new(), Vec::new());
    for statement in parser::parse(script)?.iter().rev() {
        match &statement.kind {
            Kind::AlterTable(alter) => {
                let pieces = pieces::of(&statement.text)?.list;
                for (command, piece) in alter.commands.iter().zip(&pieces).rev() {
                    let clause = clause(command, piece, before, after)?;
                    let clause = clause.ok_or_else(|| underivable(table, &piece.text))?;
                    // A column that is converted twice comes back once.
                    for one in clause {
                        if !clauses.contains(&one) {
                            clauses.push(one);
                        }
                    }
                }
            }
            Kind::Maintenance(Maintenance::CreateIndex(create)) => match &create.name {
                Some(name) => indexes.push(format!(
                    "DROP INDEX {}",
                    QualifiedName::new(&table.schema, name)
                )),
                None => return Err(underivable(table, &statement.text)),
            },
            _ => return Err(underivable(table, &statement.text)),
        }
    }
    if !clauses.is_empty() {
        indexes.push(format!("ALTER TABLE {table} {}", clauses.join(", ")));
    }
    Ok(indexes.join(";\n"))
}

fn underivable(table: &QualifiedName, text: &str) -> Error {
    Error::Unsupported {
        problem: "the way back of a statement cannot be derived".into(),
        detail: format!("On {table}: {text}."),
        hint: "Give it: transmute.register(id, up, down => 'ALTER TABLE …', meta => '{\"keep_old\": …}'), or leave meta.keep_old out."
            .into(),
    }
}

/// What takes one subcommand back; an empty one: nothing has to. `None`: it is not known.
fn clause(
    command: &Command,
    piece: &Piece,
    before: &[Column],
    after: &[Column],
) -> Result<Option<Vec<String>>> {
    let named = |columns: &[Column]| {
        columns
            .iter()
            .find(|c| !c.dropped && Some(&c.name) == command.column.as_ref())
            .cloned()
    };
    let (old, new) = (named(before), named(after));
    let name = quote_ident(command.column.as_deref().unwrap_or_default());
    Ok(match (command.action, old, new) {
        (Action::AlterType, Some(old), Some(new)) if !command.has_expression => retype(&old, &new)?,
        (Action::AddColumn, None, Some(_)) => Some(vec![format!("DROP COLUMN {name}")]),
        (Action::SetNotNull, Some(old), _) if old.not_null => Some(Vec::new()),
        (Action::SetNotNull, Some(_), _) => {
            Some(vec![format!("ALTER COLUMN {name} DROP NOT NULL")])
        }
        (Action::ColumnValue, Some(old), Some(new))
            if [&old, &new]
                .iter()
                .all(|c| c.identity.is_empty() && c.generated.is_empty()) =>
        {
            Some(vec![match old.expression.as_str() {
                "" => format!("ALTER COLUMN {name} DROP DEFAULT"),
                expression => format!("ALTER COLUMN {name} SET DEFAULT {expression}"),
            }])
        }
        (Action::AddConstraint, ..) if command.constraint != Some(ConstraintKind::Primary) => piece
            .constraints
            .first()
            .and_then(|c| c.name.as_ref())
            .map(|name| vec![format!("DROP CONSTRAINT {}", quote_ident(name))]),
        _ => None,
    })
}

/// A change of type that loses nothing, and whose way back refuses what the old type does not hold.
fn retype(old: &Column, new: &Column) -> Result<Option<Vec<String>>> {
    let name = quote_ident(&old.name);
    let is_integer = |c: &Column| INTEGERS.contains(&c.type_oid.to_u32());
    if is_integer(old) && is_integer(new) {
        return Ok(Some(vec![format!(
            "ALTER COLUMN {name} TYPE {}",
            old.type_name
        )]));
    }
    let labels: Option<bool> = spi::value(
        "SELECT o.typtype = 'e' AND n.oid = 'text'::regtype FROM pg_type o, pg_type n WHERE o.oid = $1 AND n.oid = $2",
        &[old.type_oid.into(), new.type_oid.into()],
    )?;
    Ok((labels == Some(true)).then(|| {
        vec![format!(
            "ALTER COLUMN {name} TYPE {0} USING {name}::{0}",
            old.type_name
        )]
    }))
}
