//! What a migration touches: two that touch the same object are never under way together.

use crate::catalog::relation as catalog;
use crate::error::Result;
use crate::model::effects::{self, Space};
use crate::model::ident::{quote_ident, QualifiedName};
use crate::model::lock::Mode;
use crate::pg::identity::{self, Caller};
use crate::pg::parser::{self, Statement};
use crate::pg::{relation as pg_relation, spi, Oid};
use crate::recipe::Script;
use crate::store::object::Object;
use crate::store::step::Kind;
use std::collections::BTreeMap;

type Found = BTreeMap<(&'static str, String), (Option<Oid>, bool)>;

/// Everything a planned script touches, found with the names as `caller` sees them.
pub fn of(text: &str, script: &Script, caller: &Caller) -> Result<Vec<Object>> {
    let mut found = Found::new();
    // What it locks, as the catalogs say.
    let locks = script.plain.iter().flat_map(|p| &p.locks);
    for lock in locks.chain(script.steps.iter().flat_map(|p| &p.step.locks)) {
        relation_named(&mut found, &lock.relation, lock.mode == Mode::AccessShare)?;
    }
    let rewritten = script.steps.iter().filter(|p| {
        [Kind::RewriteExpand, Kind::RewriteInto]
            .iter()
            .any(|k| p.step.kind == k.name())
    });
    let mut tables = Vec::new();
    for planned in rewritten {
        relation_named(&mut found, &planned.step.target, false)?;
        tables.extend(catalog::named(&planned.step.target)?);
    }
    if !tables.is_empty() {
        beside(&mut found, tables)?;
    }
    // What it names.
    for statement in parser::parse(text)? {
        names(&mut found, &statement, caller)?;
    }
    Ok(found
        .into_iter()
        .map(|((class, name), (oid, reads))| Object {
            class,
            name,
            oid,
            reads,
        })
        .collect())
}

fn add(found: &mut Found, class: &'static str, name: String, oid: Option<Oid>, reads: bool) {
    let entry = found.entry((class, name)).or_insert((oid, reads));
    entry.0 = entry.0.or(oid);
    entry.1 &= reads;
}

fn relation_named(found: &mut Found, name: &str, reads: bool) -> Result<()> {
    let oid = catalog::named(name)?;
    add(found, "relation", name.to_string(), oid, reads);
    Ok(())
}

fn relation(found: &mut Found, oid: Oid) -> Result<()> {
    let name: Option<String> = spi::value(
        "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.oid = $1",
        &[oid.into()],
    )?;
    if let Some(name) = name {
        add(found, "relation", name, Some(oid), false);
    }
    Ok(())
}

fn beside(found: &mut Found, tables: Vec<Oid>) -> Result<()> {
    let others = spi::query(
        include_str!("../../sql/query/beside.sql"),
        &[tables.into()],
        |row| row.need::<Oid>(1),
    )?;
    others.into_iter().try_for_each(|oid| relation(found, oid))
}

fn names(found: &mut Found, statement: &Statement, caller: &Caller) -> Result<()> {
    let effects = &statement.effects;
    for made in &effects.makes {
        let schema = match (&effects.renames, &made.schema) {
            (_, Some(schema)) => Some(schema.clone()),
            (Some((old, _)), None) => schema_of(old, caller)?,
            (None, None) => None,
        };
        let name = new_name(made, schema.as_deref(), caller)?;
        add(found, class_of(made.space), name, None, false);
    }
    for object in effects.alters.iter().chain(&effects.drops) {
        existing(found, object, caller)?;
    }
    if effects.unknown {
        mentioned(found, statement)?;
    }
    Ok(())
}

fn class_of(space: Space) -> &'static str {
    match space {
        Space::Relation => "relation",
        Space::Type => "type",
        Space::Schema => "schema",
        Space::Other => "other",
    }
}

fn as_caller<T>(caller: &Caller, f: impl FnOnce() -> Result<T>) -> Result<T> {
    identity::as_role(caller.role, &caller.session, f)
}

fn schema_of(object: &effects::Object, caller: &Caller) -> Result<Option<String>> {
    let schema = object.schema.as_deref();
    match as_caller(caller, || pg_relation::resolve(schema, &object.name))? {
        Some(oid) => spi::value(
            "SELECT n.nspname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1",
            &[oid.into()],
        ),
        None => Ok(None),
    }
}

/// The name that something will have. What has no schema, or a schema that the script makes, stands for itself.
fn new_name(object: &effects::Object, schema: Option<&str>, caller: &Caller) -> Result<String> {
    match (object.space, schema) {
        (Space::Schema | Space::Other, _) => Ok(quote_ident(&object.name)),
        (_, Some(schema)) => Ok(QualifiedName::new(schema, &object.name).to_string()),
        (_, None) => {
            let schema: Option<String> = as_caller(caller, || {
                spi::value("SELECT pg_catalog.current_schema()::pg_catalog.text", &[])
            })?;
            Ok(match schema {
                Some(schema) => QualifiedName::new(schema, &object.name).to_string(),
                None => quote_ident(&object.name),
            })
        }
    }
}

fn existing(found: &mut Found, object: &effects::Object, caller: &Caller) -> Result<()> {
    let schema = object.schema.as_deref();
    match object.space {
        Space::Relation => {
            match as_caller(caller, || pg_relation::resolve(schema, &object.name))? {
                Some(oid) => relation(found, oid)?,
                None => add(
                    found,
                    "relation",
                    new_name(object, schema, caller)?,
                    None,
                    false,
                ),
            }
        }
        Space::Type => {
            let written = match schema {
                Some(schema) => QualifiedName::new(schema, &object.name).to_string(),
                None => quote_ident(&object.name),
            };
            let oid: Option<Oid> = as_caller(caller, || {
                spi::value(
                    "SELECT pg_catalog.to_regtype($1)::pg_catalog.oid",
                    &[written.as_str().into()],
                )
            })?;
            let name = match oid {
                Some(oid) => spi::value("SELECT format_type($1, NULL)", &[oid.into()])?,
                None => None,
            };
            add(found, "type", name.unwrap_or(written), oid, false);
        }
        Space::Schema => {
            let oid = catalog::schema_oid(&object.name)?;
            add(found, "schema", quote_ident(&object.name), oid, false);
        }
        Space::Other => add(found, "other", quote_ident(&object.name), None, false),
    }
    Ok(())
}

/// A statement that may do anything: every relation whose name its text mentions.
fn mentioned(found: &mut Found, statement: &Statement) -> Result<()> {
    let mentions = &statement.effects.mentions;
    let words: Vec<String> = mentions.words().map(str::to_string).collect();
    let relations = spi::query(
        "SELECT c.oid, n.nspname::text, c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.relname = ANY ($1::name[]) AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') \
           AND n.nspname NOT IN ('pg_catalog', 'information_schema')",
        &[words.into()],
        |row| Ok((row.need::<Oid>(1)?, row.need::<String>(2)?, row.need::<String>(3)?)),
    )?;
    for (oid, schema, name) in relations {
        if mentions.has(Some(&schema), &name) {
            relation(found, oid)?;
        }
    }
    Ok(())
}
