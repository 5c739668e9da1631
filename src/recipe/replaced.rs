//! Tables whose rows a script copies, and which it takes away then. What the application writes after the copy would be in
//! the old table only.

use super::names::Target;
use super::Planner;
use crate::catalog::relation;
use crate::error::{Error, Result};
use crate::model::effects::{Effects, Space};
use crate::model::ident::QualifiedName;
use crate::pg::parser::{Kind, Verb};
use crate::pg::Oid;
use std::collections::{BTreeSet, HashSet};

/// A statement that puts rows of tables of the catalog into another table.
struct Copied {
    statement: usize,
    from: Vec<(Oid, QualifiedName)>,
    /// Its target, under the name that it has at this place of the script.
    into: QualifiedName,
    /// The script has made that.
    is_new: bool,
}

/// A table that is taken away from its copy: which of the copies, and what is wrong with it where there is no recipe.
struct Fault {
    copy: usize,
    error: Error,
}

impl Planner<'_> {
    /// Finds the table that a script copies and drops, or whose name it gives to the copy, and refuses what there is no recipe for.
    /// What copies rows that the script deletes later waits for the end, where they are deleted: until then they change.
    pub(super) fn find_replaced(&mut self) -> Result<()> {
        let statements = self.statements.clone();
        if statements.iter().all(|s| s.effects.copies.is_empty()) {
            return Ok(());
        }
        let mut copied: Vec<Copied> = Vec::new();
        let (mut faults, mut only_new) = (Vec::new(), BTreeSet::new());
        let mut touched: Vec<(usize, Target)> = Vec::new();
        for (i, statement) in statements.iter().enumerate() {
            let effects = &statement.effects;
            if self.changes_only_new(effects)? {
                only_new.insert(i);
            }
            let changed = effects.alters.iter().chain(&effects.drops);
            for object in changed.filter(|o| !effects.light && o.space == Space::Relation) {
                touched.push((i, self.lookup(object.schema.as_deref(), &object.name)?));
            }
            let fault = self
                .follow_copies(i, &mut copied)
                .map_err(|e| self.placed(e, i))?;
            faults.extend(fault.map(|fault| (i, fault)));
            for (n, copy) in copied.iter().enumerate() {
                for (oid, name) in &copy.from {
                    let taken = copy.into == *name && {
                        let now = self.lookup(Some(&name.schema), &name.name)?;
                        now != Target::Existing(*oid)
                    };
                    if taken {
                        let what = format!(
                            "{} in line {} gives its name to the copy",
                            statement.tag, statement.line
                        );
                        let error = self.loses_writes(copy, name, &what);
                        faults.push((i, Fault { copy: n, error }));
                    }
                }
            }
        }
        self.names = super::names::Names::default();
        let mut places: Vec<usize> = faults.iter().map(|(_, f)| f.copy).collect();
        places.dedup();
        let Some((at, first)) = faults.into_iter().next() else {
            return Ok(());
        };
        let copy = &copied[first.copy];
        // One INSERT into a table of the script's own, which ends under the name of the table that it is a copy of.
        let is_one = matches!(&statements[copy.statement].kind, Kind::Data(data) if data.verb == Verb::Insert)
            && copy.is_new
            && places.len() == 1
            && at > copy.statement
            && copied
                .iter()
                .filter(|c| c.from.iter().any(|f| copy.from.contains(f)))
                .count()
                == 1;
        match copy.from.as_slice() {
            [(table, name)] if is_one && copy.into == *name => {
                let found = self.find_succession(*table, copy.statement, &only_new, &touched)?;
                self.successions.push(found);
                Ok(())
            }
            _ => Err(first.error),
        }
    }

    /// Takes in the next statement.
    fn follow_copies(&mut self, index: usize, copied: &mut Vec<Copied>) -> Result<Option<Fault>> {
        let statement = self.statements[index].clone();
        let effects = &statement.effects;
        let mut fault = None;
        if effects.renames.is_none() {
            for object in effects.drops.iter().filter(|o| o.space == Space::Relation) {
                let Some(oid) = self.existing(object.schema.as_deref(), &object.name)? else {
                    continue;
                };
                for (n, copy) in copied.iter().enumerate() {
                    if let Some((_, name)) = copy.from.iter().find(|(from, _)| *from == oid) {
                        let what =
                            format!("{} in line {} takes it away", statement.tag, statement.line);
                        let error = self.loses_writes(copy, name, &what);
                        fault = fault.or(Some(Fault { copy: n, error }));
                    }
                }
            }
        }
        if let Kind::Data(data) = &statement.kind {
            if matches!(data.verb, Verb::Delete | Verb::Truncate) {
                for (schema, name) in &data.targets {
                    let Some(oid) = self.existing(schema.as_deref(), name)? else {
                        continue;
                    };
                    let of_it = copied
                        .iter()
                        .filter(|c| c.from.iter().any(|(f, _)| *f == oid));
                    self.copied_late.extend(of_it.map(|c| c.statement));
                }
            }
        }
        let from = self.tables_read(effects)?;
        let moved = match &effects.renames {
            Some((old, _)) => self.place_of(old.schema.as_deref(), &old.name)?,
            None => None,
        };
        self.note_names(effects)?;
        if let (Some(old), Some((_, new))) = (moved, &effects.renames) {
            let schema = new.schema.clone().unwrap_or(old.schema.clone());
            let name = QualifiedName::new(schema, &new.name);
            for copy in copied.iter_mut().filter(|c| c.into == old) {
                copy.into = name.clone();
            }
        }
        if from.is_empty() {
            return Ok(fault);
        }
        let into = match &statement.kind {
            Kind::Data(data) => data.targets.first().cloned(),
            _ => effects
                .makes
                .first()
                .map(|o| (o.schema.clone(), o.name.clone())),
        };
        if let Some((schema, name)) = into {
            if let Some(into) = self.place_of(schema.as_deref(), &name)? {
                let is_new = self.lookup(Some(&into.schema), &into.name)? == Target::New;
                copied.push(Copied {
                    statement: index,
                    from,
                    into,
                    is_new,
                });
            }
        }
        Ok(fault)
    }

    /// The tables of the catalog that a statement copies rows of.
    fn tables_read(&self, effects: &Effects) -> Result<Vec<(Oid, QualifiedName)>> {
        let mut tables = Vec::new();
        let mut seen = HashSet::new();
        for object in &effects.copies {
            if let Some(oid) = self.existing(object.schema.as_deref(), &object.name)? {
                let table = relation::get(oid)?;
                if matches!(table.kind, 'r' | 'p') && seen.insert(oid) {
                    tables.push((oid, table.name));
                }
            }
        }
        Ok(tables)
    }

    fn loses_writes(&self, copy: &Copied, table: &QualifiedName, what: &str) -> Error {
        let statement = &self.statements[copy.statement];
        Error::Unsupported {
            problem: "the rows of a table are copied, and then the table is taken away".into(),
            detail: format!(
                "{} in line {} copies rows of {table}, and {what}. What the application writes in between would be lost.",
                statement.tag, statement.line
            ),
            hint: format!(
                "ALTER TABLE changes a table in its place, online, and a table that the script makes and fills by one INSERT INTO new SELECT * FROM old can take its place. As written, in one transaction that nobody writes beside: meta.mode \"direct\", and LOCK TABLE {table} first."
            ),
        }
    }
}
