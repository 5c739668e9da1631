//! What names mean at a place in the script: the catalog, changed by the statements before.

use super::Planner;
use crate::catalog::relation::Relation;
use crate::error::{Error, Result};
use crate::model::effects::{Effects, Object, Space};
use crate::model::ident::QualifiedName;
use crate::pg::relation as pg_relation;
use crate::pg::{spi, Oid};
use std::collections::{HashMap, HashSet};

/// What a relation's name means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// A relation of the catalog, perhaps under another name there.
    Existing(Oid),
    /// Made by this script: empty.
    New,
    Nothing,
}

/// Names that the script changed so far.
#[derive(Debug, Default)]
pub(super) struct Names {
    relations: HashMap<QualifiedName, Target>,
    types: HashMap<QualifiedName, bool>,
    /// Functions and whatever else the script makes under a name that is new.
    others: HashSet<QualifiedName>,
    /// Schemas that the script makes (true) or takes away (false).
    schemas: HashMap<String, bool>,
    /// Tables of the catalog that have another name now.
    renamed: HashMap<Oid, QualifiedName>,
}

impl Planner<'_> {
    /// What a relation's name means to the statement that is planned.
    pub(super) fn lookup(&self, schema: Option<&str>, name: &str) -> Result<Target> {
        if let Some(schema) = schema {
            return self.lookup_in(schema, name);
        }
        if self.names.relations.is_empty() && self.names.schemas.is_empty() {
            return self.in_catalog(None, name);
        }
        for schema in self.path()? {
            let found = self.lookup_in(&schema, name)?;
            if found != Target::Nothing {
                return Ok(found);
            }
        }
        Ok(Target::Nothing)
    }

    /// The table of the catalog that a name means.
    pub(super) fn existing(&self, schema: Option<&str>, name: &str) -> Result<Option<Oid>> {
        Ok(match self.lookup(schema, name)? {
            Target::Existing(oid) => Some(oid),
            Target::New | Target::Nothing => None,
        })
    }

    fn lookup_in(&self, schema: &str, name: &str) -> Result<Target> {
        if let Some(target) = self.names.relations.get(&QualifiedName::new(schema, name)) {
            return Ok(*target);
        }
        match self.names.schemas.contains_key(schema) {
            true => Ok(Target::Nothing),
            false => self.in_catalog(Some(schema), name),
        }
    }

    fn in_catalog(&self, schema: Option<&str>, name: &str) -> Result<Target> {
        let found = self.as_caller(|| pg_relation::resolve(schema, name))?;
        Ok(found.map_or(Target::Nothing, Target::Existing))
    }

    /// The schemas of the search_path that are there at this place of the script.
    fn path(&self) -> Result<Vec<String>> {
        let written = path_of(&self.caller.session.search_path);
        let mut path = Vec::new();
        for schema in written {
            let schema = match schema.as_str() {
                "$user" => crate::catalog::relation::role_name(self.caller.role)?,
                _ => schema,
            };
            let there = match self.names.schemas.get(&schema) {
                Some(made) => *made,
                None => crate::catalog::relation::schema_oid(&schema)?.is_some(),
            };
            if there {
                path.push(schema);
            }
        }
        Ok(path)
    }

    /// The schema that a new object of this name is made in.
    pub(super) fn creation_schema(&self, schema: Option<&str>, name: &str) -> Result<String> {
        match schema {
            Some(schema) if self.names.schemas.get(schema) == Some(&true) => Ok(schema.to_string()),
            None if !self.names.schemas.is_empty() => {
                self.path()?.into_iter().next().ok_or(Error::Prerequisite {
                    problem: "no schema has been selected to create in".into(),
                    detail: format!(
                        "The search_path is \"{}\".",
                        self.caller.session.search_path
                    ),
                    hint: "Qualify the name.".into(),
                })
            }
            _ => self.as_caller(|| pg_relation::creation_schema(schema, name)),
        }
    }

    /// Whether everything that a statement changes was made by this script.
    pub(super) fn changes_only_new(&self, effects: &Effects) -> Result<bool> {
        if effects.alters.is_empty() || effects.unknown || !effects.drops.is_empty() {
            return Ok(false);
        }
        for object in &effects.alters {
            let schema = object.schema.as_deref();
            let new = match object.space {
                Space::Relation => self.lookup(schema, &object.name)? == Target::New,
                Space::Type => self.is_new_type(object)?,
                Space::Schema => self.names.schemas.get(&object.name) == Some(&true),
                // A function of the same name that was there before may be meant as well.
                Space::Other => effects.light && self.is_new_other(object)?,
            };
            if !new {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn is_new_other(&self, object: &Object) -> Result<bool> {
        let schemas = match &object.schema {
            Some(schema) => vec![schema.clone()],
            None => self.path()?,
        };
        Ok(schemas.iter().any(|s| {
            self.names
                .others
                .contains(&QualifiedName::new(s, &object.name))
        }))
    }

    /// Whether the catalog has no function of this name, whatever its arguments.
    fn has_no_function(schema: &str, name: &str) -> Result<bool> {
        Ok(spi::value_kept::<bool>(
            "SELECT NOT EXISTS (SELECT FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace \
             WHERE n.nspname = $1 AND p.proname = $2)",
            &[schema.into(), name.into()],
        )? == Some(true))
    }

    fn is_new_type(&self, object: &Object) -> Result<bool> {
        if self.names.types.is_empty() {
            return Ok(false);
        }
        let schemas = match &object.schema {
            Some(schema) => vec![schema.clone()],
            None => self.path()?,
        };
        Ok(schemas
            .iter()
            .any(|s| self.names.types.get(&QualifiedName::new(s, &object.name)) == Some(&true)))
    }

    /// Notes what a statement did to names, after it was planned.
    pub(super) fn note_names(&mut self, effects: &Effects) -> Result<()> {
        let renamed = match &effects.renames {
            Some((old, _)) => self.lookup(old.schema.as_deref(), &old.name)?,
            None => Target::New,
        };
        for object in &effects.drops {
            let schema = object.schema.as_deref();
            match object.space {
                Space::Schema => {
                    self.names.schemas.insert(object.name.clone(), false);
                }
                Space::Relation => {
                    if let Some(name) = self.place_of(schema, &object.name)? {
                        self.names.relations.insert(name, Target::Nothing);
                    }
                }
                Space::Type => self
                    .names
                    .types
                    .retain(|n, _| n.name != object.name || schema.is_some_and(|s| s != n.schema)),
                Space::Other => {}
            }
        }
        for object in &effects.makes {
            let schema = object.schema.as_deref();
            match object.space {
                Space::Schema => {
                    self.names.schemas.insert(object.name.clone(), true);
                }
                // A renamed relation stays in its schema.
                Space::Relation => {
                    let schema = match (&effects.renames, schema) {
                        (Some((old, _)), None) => self.renamed_in(old)?,
                        _ => self.creation_schema(schema, &object.name)?,
                    };
                    let name = QualifiedName::new(schema, &object.name);
                    // IF NOT EXISTS and OR REPLACE may have found it.
                    let known = effects.renames.is_none()
                        && self.lookup_in(&name.schema, &name.name)? != Target::Nothing;
                    if !known {
                        if let Target::Existing(oid) = renamed {
                            self.names.renamed.insert(oid, name.clone());
                        }
                        self.names.relations.insert(name, renamed);
                    }
                }
                Space::Type => {
                    let schema = self.creation_schema(schema, &object.name)?;
                    self.names
                        .types
                        .insert(QualifiedName::new(schema, &object.name), true);
                }
                // A language or a publication has no schema.
                Space::Other if schema.is_none() && self.path()?.is_empty() => {}
                Space::Other => {
                    let schema = self.creation_schema(schema, &object.name)?;
                    if Self::has_no_function(&schema, &object.name)? {
                        self.names
                            .others
                            .insert(QualifiedName::new(schema, &object.name));
                    }
                }
            }
        }
        Ok(())
    }

    /// The name that a table of the catalog has at this place of the script.
    pub(super) fn name_now(&self, table: &Relation) -> QualifiedName {
        let renamed = self.names.renamed.get(&table.oid);
        renamed.unwrap_or(&table.name).clone()
    }

    /// The full name of a relation that is there at this place of the script.
    pub(super) fn qualified(&self, object: &Object) -> Result<QualifiedName> {
        self.place_of(object.schema.as_deref(), &object.name)?
            .ok_or_else(|| self.undefined(object.schema.as_deref(), &object.name))
    }

    /// Where a relation's name is found.
    pub(super) fn place_of(
        &self,
        schema: Option<&str>,
        name: &str,
    ) -> Result<Option<QualifiedName>> {
        let schemas = match schema {
            Some(schema) => vec![schema.to_string()],
            None => self.path()?,
        };
        for schema in schemas {
            if self.lookup_in(&schema, name)? != Target::Nothing {
                return Ok(Some(QualifiedName::new(schema, name)));
            }
        }
        Ok(None)
    }

    /// The schema that the old name was just taken away in.
    fn renamed_in(&self, old: &Object) -> Result<String> {
        let path = self.path()?;
        path.iter()
            .find(|s| {
                self.names.relations.get(&QualifiedName::new(*s, &old.name))
                    == Some(&Target::Nothing)
            })
            .or(path.first())
            .cloned()
            .ok_or_else(|| Error::Bug("a renamed relation without a schema".into()))
    }
}

/// The names of a search_path, as the server splits it.
fn path_of(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut chars = text.chars().peekable();
    let (mut name, mut quoted, mut any) = (String::new(), false, false);
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                name.push('"');
                chars.next();
            }
            '"' => {
                quoted = !quoted;
                any = true;
            }
            ',' if !quoted => {
                if any {
                    names.push(std::mem::take(&mut name));
                }
                any = false;
            }
            c if !quoted && c.is_whitespace() => {}
            c => {
                any = true;
                name.push(if quoted { c } else { c.to_ascii_lowercase() });
            }
        }
    }
    if any {
        names.push(name);
    }
    names.retain(|n| !n.is_empty());
    names
}
