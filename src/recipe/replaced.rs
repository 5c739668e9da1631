//! Tables whose rows a script copies, and which it takes away then. What the application writes after the copy would be in
//! the old table only.

use super::Planner;
use crate::catalog::relation;
use crate::error::{Error, Result};
use crate::model::effects::{Effects, Space};
use crate::model::ident::QualifiedName;
use crate::pg::parser::{Kind, Verb};
use crate::pg::Oid;
use std::collections::HashSet;

/// A statement that puts rows of tables of the catalog into another table.
struct Copied {
    statement: usize,
    from: Vec<(Oid, QualifiedName)>,
    /// Its target, under the name that it has at this place of the script.
    into: QualifiedName,
}

impl Planner<'_> {
    /// Refuses a script that copies a table's rows and drops it, or gives its name to the copy. What copies rows that the script
    /// deletes later waits for the end, where they are deleted: until then they change.
    pub(super) fn find_replaced(&mut self) -> Result<()> {
        let statements = self.statements.clone();
        if statements.iter().all(|s| s.effects.copies.is_empty()) {
            return Ok(());
        }
        let mut copied: Vec<Copied> = Vec::new();
        for (i, statement) in statements.iter().enumerate() {
            self.follow_copies(i, &mut copied)
                .map_err(|e| self.placed(e, i))?;
            for copy in &copied {
                for (oid, name) in &copy.from {
                    let taken = copy.into == *name && {
                        let now = self.lookup(Some(&name.schema), &name.name)?;
                        now != super::names::Target::Existing(*oid)
                    };
                    if taken {
                        let what = format!(
                            "{} in line {} gives its name to the copy",
                            statement.tag, statement.line
                        );
                        return Err(self.loses_writes(copy, name, &what));
                    }
                }
            }
        }
        self.names = super::names::Names::default();
        Ok(())
    }

    /// Takes in the next statement.
    fn follow_copies(&mut self, index: usize, copied: &mut Vec<Copied>) -> Result<()> {
        let statement = self.statements[index].clone();
        let effects = &statement.effects;
        if effects.renames.is_none() {
            for object in effects.drops.iter().filter(|o| o.space == Space::Relation) {
                let Some(oid) = self.existing(object.schema.as_deref(), &object.name)? else {
                    continue;
                };
                for copy in copied.iter() {
                    if let Some((_, name)) = copy.from.iter().find(|(from, _)| *from == oid) {
                        let what =
                            format!("{} in line {} takes it away", statement.tag, statement.line);
                        return Err(self.loses_writes(copy, name, &what));
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
            return Ok(());
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
                copied.push(Copied {
                    statement: index,
                    from,
                    into,
                });
            }
        }
        Ok(())
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
                "ALTER TABLE changes a table in its place, online. As written, in one transaction that nobody writes beside: meta.mode \"direct\", and LOCK TABLE {table} first."
            ),
        }
    }
}
