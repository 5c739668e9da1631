//! Statements of a way back as they were kept, and what becomes of them: steps that run them in order, or plain statements
//! for the planner.

use crate::catalog::relation;
use crate::error::Result;
use crate::model::ident::{quote_ident, QualifiedName};
use crate::pg::identity::Session;
use crate::pg::maintenance::{CreateIndex, Maintenance};
use crate::pg::parser::{
    self, Action, AlterTable, ConstraintKind, Kind as Parsed, PartChange, Statement,
};
use crate::pg::relation as pg_relation;
use crate::recipe::{self, Planned};
use crate::rewrite::probe;
use crate::store::step::Kind;

/// The CHECK that proves a NOT NULL (`sql/objects/reverse.sql`).
const PROOF: &str = "_transmute_not_null";
const NOT_VALID: &str = " NOT VALID";

fn index_of(statement: &Statement) -> Option<&CreateIndex> {
    match &statement.kind {
        Parsed::Maintenance(Maintenance::CreateIndex(create)) if !create.only => Some(create),
        _ => None,
    }
}

/// A key that is added to a table by its columns, not by an index: only that of a partitioned one is kept like this.
fn key_of(statement: &Statement) -> Option<&AlterTable> {
    let Parsed::AlterTable(alter) = &statement.kind else {
        return None;
    };
    let [command] = alter.commands.as_slice() else {
        return None;
    };
    let is_key = matches!(
        command.constraint,
        Some(ConstraintKind::Primary | ConstraintKind::Unique)
    );
    (command.action == Action::AddConstraint && is_key).then_some(alter)
}

/// Whether an index is built.
pub fn makes_index(sql: &str) -> Result<bool> {
    let statements = parser::parse(sql)?;
    Ok(statements
        .iter()
        .any(|s| index_of(s).is_some() || key_of(s).is_some()))
}

/// Whether it is one statement that no transaction may hold.
pub fn is_outside(sql: &str) -> Result<bool> {
    let statements = parser::parse(sql)?;
    let [one] = statements.as_slice() else {
        return Ok(false);
    };
    Ok(match &one.kind {
        Parsed::Maintenance(Maintenance::CreateIndex(create)) => create.concurrent,
        Parsed::Maintenance(Maintenance::DropIndex(drop)) => drop.concurrent,
        Parsed::AlterTable(alter) => changes_partition(alter, PartChange::DetachConcurrently),
        _ => false,
    })
}

/// Whether a partition is attached.
pub fn attaches(sql: &str) -> Result<bool> {
    Ok(parser::parse(sql)?.iter().any(|s| match &s.kind {
        Parsed::AlterTable(alter) => changes_partition(alter, PartChange::Attach),
        _ => false,
    }))
}

/// Whether an enum has got a value by it.
pub fn adds_value(sql: &str) -> Result<bool> {
    Ok(parser::parse(sql)?
        .iter()
        .any(|s| matches!(s.kind, Parsed::Maintenance(Maintenance::AddEnumValue))))
}

fn changes_partition(alter: &AlterTable, change: PartChange) -> bool {
    let parts = alter.commands.iter().filter_map(|c| c.part.as_ref());
    parts.into_iter().any(|part| part.change == change)
}

/// Steps that run the statements in order: indexes are built concurrently.
pub fn steps(target: &str, sql: &str) -> Result<Vec<Planned>> {
    let mut steps = Vec::new();
    let mut others: Vec<String> = Vec::new();
    let flush = |others: &mut Vec<String>, steps: &mut Vec<Planned>| {
        if !others.is_empty() {
            let sql = std::mem::take(others).join("; ");
            steps.push(recipe::back(0, target, &sql, Kind::Back));
        }
    };
    for statement in parser::parse(sql)? {
        if let Some(alter) = key_of(&statement) {
            flush(&mut others, &mut steps);
            steps.extend(keyed(alter, &statement.text)?);
            continue;
        }
        let Some(create) = index_of(&statement) else {
            others.push(statement.text);
            continue;
        };
        flush(&mut others, &mut steps);
        steps.extend(built(create, &statement.text)?);
    }
    flush(&mut others, &mut steps);
    Ok(steps)
}

/// The steps that build an index: of a table one, of a partitioned one those that give each partition one and take them over.
fn built(create: &CreateIndex, text: &str) -> Result<Vec<Planned>> {
    let schema = create.table.schema.clone().unwrap_or_default();
    let name = create.name.clone().unwrap_or_default();
    let index = QualifiedName::new(&schema, &name);
    let (on, definition) = create.parts(text)?;
    let concurrently = format!(
        "CREATE {}INDEX CONCURRENTLY {} ON {on}{definition}",
        if create.unique { "UNIQUE " } else { "" },
        quote_ident(&name),
    );
    let table = pg_relation::resolve(create.table.schema.as_deref(), &create.table.name)?;
    let parted = match table {
        Some(table) => crate::catalog::relation::get(table)?.kind == 'p',
        None => false,
    };
    if parted {
        let target = index.to_string();
        return Ok(vec![
            recipe::back(0, &target, &concurrently, Kind::LeafIndexes),
            recipe::back(0, &target, text, Kind::LeafAttach),
        ]);
    }
    let mut build = recipe::back(0, &index.to_string(), &concurrently, Kind::Outside);
    build.step.revert_sql = Some(format!("DROP INDEX CONCURRENTLY IF EXISTS {index}"));
    Ok(vec![build])
}

/// The steps that give each partition the index of a key, and let the key of their table take them over.
fn keyed(alter: &AlterTable, text: &str) -> Result<Vec<Planned>> {
    let as_it_stands = |name: &str| Ok(vec![recipe::back(0, name, text, Kind::Back)]);
    let Some(oid) = pg_relation::resolve(alter.schema.as_deref(), &alter.name)? else {
        return as_it_stands(&alter.name);
    };
    let table = relation::get(oid)?;
    let outcome = probe::run(&table, text, &Session::own())?;
    let Some((key, definition)) = outcome.keys.first().filter(|_| table.kind == 'p') else {
        return as_it_stands(&table.name.to_string());
    };
    let target = QualifiedName::new(&table.name.schema, &key.name).to_string();
    let concurrently = format!(
        "CREATE UNIQUE INDEX CONCURRENTLY {} ON {} {definition}",
        quote_ident(&key.name),
        table.name
    );
    Ok(vec![
        recipe::back(0, &target, &concurrently, Kind::LeafIndexes),
        recipe::back(0, &target, text, Kind::LeafAttach),
    ])
}

/// The same for the planner, which knows itself how to prove what was proved, and as whom it runs. What it cannot be told is lost.
pub fn plain(sql: &str, owner: &str, lost: &mut Vec<String>) -> Result<Vec<String>> {
    let statements = parser::parse(sql)?;
    let mut texts: Vec<String> = Vec::new();
    let mut role: Option<String> = None;
    for statement in &statements {
        let text = &statement.text;
        if let Some(name) = text.strip_prefix("SET LOCAL ROLE ") {
            let mine = name == "NONE" || name == quote_ident(owner);
            role = (!mine).then(|| name.to_string());
            continue;
        }
        if let Some(role) = &role {
            lost.push(format!("as role {role}: {text}"));
            continue;
        }
        if matches!(statement.kind, Parsed::Transaction) {
            continue;
        }
        if text.contains(&format!("CONSTRAINT {PROOF}")) {
            continue; // the planner proves it in its own way
        }
        if let Some((table, name)) = validated(statement) {
            // It was added right before, not valid for the sake of this.
            let added = format!("ALTER TABLE {table} ADD CONSTRAINT {} ", quote_ident(&name));
            let before = texts.iter_mut().rev().find(|t| t.starts_with(&added));
            if let Some(before) = before {
                if before.ends_with(NOT_VALID) {
                    before.truncate(before.len() - NOT_VALID.len());
                    continue;
                }
            }
        }
        texts.push(text.clone());
    }
    Ok(texts)
}

/// VALIDATE CONSTRAINT: of which table, and its name.
fn validated(statement: &Statement) -> Option<(String, String)> {
    let Parsed::AlterTable(alter) = &statement.kind else {
        return None;
    };
    let [command] = alter.commands.as_slice() else {
        return None;
    };
    if command.action != parser::Action::ValidateConstraint {
        return None;
    }
    let table = match &alter.schema {
        Some(schema) => QualifiedName::new(schema, &alter.name).to_string(),
        None => quote_ident(&alter.name),
    };
    Some((table, command.column.clone()?))
}
