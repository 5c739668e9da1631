//! Views of versioned schemas: a table as one release knows it, whatever it is now. Where the types are the table's own the server
//! writes through the view; where they are not, the view converts, and an INSTEAD OF trigger converts back.

use super::swap::Tree;
use super::Work;
use crate::catalog::column::{self, Column};
use crate::catalog::index;
use crate::catalog::relation::{self, Relation};
use crate::error::{Error, Result};
use crate::model::ident::{quote_ident, quote_literal, QualifiedName};
use crate::model::token;
use crate::pg::identity::{self, Session};
use crate::pg::naming::HIDDEN;
use crate::pg::parser::{self, Action, Kind};
use crate::pg::pieces;
use crate::pg::{spi, utility, xact, Oid};
use crate::store::step;
use crate::store::version::{self, Shape, View};

/// What leads from the table as it is to the view's shape, and back.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ways<'a> {
    pub read: Option<&'a str>,
    pub write: Option<&'a str>,
}

/// The columns of a table that applications know.
pub fn shape(table: Oid) -> Result<Vec<Shape>> {
    Ok(column::list(table)?
        .into_iter()
        .filter(|c| !c.dropped && !c.name.starts_with(HIDDEN))
        .map(|c| Shape {
            number: c.number,
            name: c.name,
            type_name: c.type_name,
        })
        .collect())
}

/// One column of a view.
struct Part {
    shape: Shape,
    /// The table's column; `None`: it comes with the swap.
    base: Option<Column>,
    /// As the view reads it.
    read: String,
    /// As it is stored, from a row of the view's shape under the table's names; `None`: as it is.
    write: Option<String>,
}

impl Part {
    fn is_plain(&self) -> bool {
        self.base.is_some() && self.write.is_none()
    }

    fn name(&self) -> String {
        quote_ident(&self.shape.name)
    }

    fn is_identity(&self) -> bool {
        self.base.as_ref().is_some_and(|b| !b.identity.is_empty())
    }

    /// The table's name of it, if it is stored and may be given.
    fn stored(&self) -> Option<String> {
        self.base
            .as_ref()
            .filter(|b| b.generated.is_empty())
            .map(|b| quote_ident(&b.name))
    }
}

fn parts(view: &View, table: Oid, ways: Ways<'_>) -> Result<Vec<Part>> {
    let columns = column::list(table)?;
    let mut parts = Vec::new();
    for shape in &view.columns {
        let base = columns
            .iter()
            .find(|c| c.number == shape.number && !c.dropped)
            .cloned();
        let (read, write) = match &base {
            None => (format!("NULL::{}", shape.type_name), None),
            Some(base) if base.type_name == shape.type_name => (quote_ident(&base.name), None),
            Some(base) => {
                let name = quote_ident(&base.name);
                let there = using(ways.read, &base.name)?.unwrap_or_else(|| name.clone());
                let back = using(ways.write, &base.name)?.unwrap_or(name);
                (
                    format!("({there})::{}", shape.type_name),
                    Some(format!("({back})::{}", base.type_name)),
                )
            }
        };
        parts.push(Part {
            shape: shape.clone(),
            base,
            read,
            write,
        });
    }
    Ok(parts)
}

/// The expression behind USING by which a script converts a column.
fn using(script: Option<&str>, column: &str) -> Result<Option<String>> {
    for statement in parser::parse(script.unwrap_or_default())? {
        let Kind::AlterTable(alter) = &statement.kind else {
            continue;
        };
        let pieces = pieces::of(&statement.text)?.list;
        for (command, piece) in alter.commands.iter().zip(&pieces) {
            if command.action == Action::AlterType
                && command.has_expression
                && command.column.as_deref() == Some(column)
            {
                return Ok(behind_using(&piece.text));
            }
        }
    }
    Ok(None)
}

fn behind_using(piece: &str) -> Option<String> {
    let mut depth = 0;
    for token in token::tokens(piece) {
        match token.kind {
            token::Kind::Sign(b'(' | b'[') => depth += 1,
            token::Kind::Sign(b')' | b']') => depth -= 1,
            token::Kind::Word
                if depth == 0 && piece[token.start..token.end].eq_ignore_ascii_case("using") =>
            {
                return Some(piece[token.end..].trim().to_string());
            }
            _ => {}
        }
    }
    None
}

/// Whether `role` may add to a version, or take it away: its schema comes first where applications of its owner look for names.
pub fn require_owner(version: &str, role: Oid) -> Result<()> {
    let Some(owner) = version::owner_of(version)? else {
        return Ok(()); // it is not there yet
    };
    // One whose owner was dropped is left to superusers.
    let may = match relation::role_oid(&owner)? {
        Some(owner) => identity::has_privs_of(role, owner),
        None => identity::is_superuser(role),
    };
    match may {
        true => Ok(()),
        false => Err(Error::Privilege {
            problem: "must be a member of the version's owner".into(),
            detail: format!("Version \"{version}\" belongs to \"{owner}\"."),
            hint: "SET ROLE to it, or ask its owner.".into(),
        }),
    }
}

/// Runs `f` while the owner of a table may make something in the schema of a version, and not longer.
fn lent<T>(version: &str, role: Oid, f: impl FnOnce() -> Result<T>) -> Result<T> {
    let words = spi::first(
        "SELECT format('GRANT CREATE ON SCHEMA %I TO %I', $2::text, rolname), format('REVOKE CREATE ON SCHEMA %I FROM %I', $2::text, rolname) \
         FROM pg_roles WHERE oid = $1 AND NOT has_schema_privilege($1, $2, 'CREATE')",
        &[role.into(), version.into()],
        |row| Ok((row.need::<String>(1)?, row.need::<String>(2)?)),
    )?;
    let Some((grant, revoke)) = words else {
        return f();
    };
    utility::run(&grant)?;
    xact::command_counter_increment();
    let result = f()?;
    utility::run(&revoke)?;
    Ok(result)
}

/// Makes the view, as the table's owner, with the names of `session`.
pub fn make(view: &View, table: &Relation, ways: Ways<'_>, session: &Session) -> Result<()> {
    let parts = parts(view, table.oid, ways)?;
    let name = view.name();
    let list: Vec<String> = parts
        .iter()
        .map(|p| format!("{} AS {}", p.read, p.name()))
        .collect();
    let mut statements = vec![format!(
        "CREATE VIEW {name} WITH (security_invoker = true) AS SELECT {} FROM {}",
        list.join(", "),
        table.name
    )];
    let converts = !parts.iter().all(Part::is_plain);
    let mut rows = Vec::new();
    if converts {
        statements.extend(defaults(&name, &parts));
        rows = rows_shown(table, &parts)?;
        statements.push(rows_view(view, table, &rows));
        statements.push(function(view, table, &parts)?);
        statements.push(format!(
            "CREATE TRIGGER {TRIGGER} INSTEAD OF INSERT OR UPDATE OR DELETE ON {name} \
             FOR EACH ROW EXECUTE FUNCTION {}()",
            view.function()
        ));
    }
    statements.extend(grants(table, &name, &view.columns)?);
    if converts {
        statements.extend(grants(table, &view.rows(), &rows)?);
    }
    lent(&view.version, table.owner, || {
        identity::as_role(table.owner, session, || {
            statements.iter().try_for_each(|sql| utility::run(sql))
        })
    })?;
    let oid = super::shadow::oid_of(&name)?;
    let rows = match converts {
        true => Some(super::shadow::oid_of(&view.rows())?),
        false => None,
    };
    let ways = if converts { ways } else { Ways::default() };
    version::set_made(view.id, oid, rows, ways.read, ways.write)
}

/// The privileges of the table, for a view of these columns.
fn grants(table: &Relation, view: &QualifiedName, columns: &[Shape]) -> Result<Vec<String>> {
    spi::query(
        include_str!("../../sql/query/version_grants.sql"),
        &[
            table.oid.into(),
            view.to_string().into(),
            serde_json::to_string(columns)?.into(),
        ],
        |row| row.need(1),
    )
}

/// What the trigger function reads and writes: the table under the names that it has now. A function is a text, which no RENAME
/// reaches; this view follows.
fn rows_view(view: &View, table: &Relation, shown: &[Shape]) -> String {
    let columns: Vec<String> = shown.iter().map(|c| quote_ident(&c.name)).collect();
    format!(
        "CREATE VIEW {} WITH (security_invoker = true) AS SELECT {} FROM {}",
        view.rows(),
        columns.join(", "),
        table.name
    )
}

/// Its columns: those of the version, and what their conversions read.
fn rows_shown(table: &Relation, parts: &[Part]) -> Result<Vec<Shape>> {
    let read: Vec<&str> = parts
        .iter()
        .filter(|p| p.write.is_some())
        .flat_map(|p| {
            let tokens = token::tokens(&p.read).into_iter();
            tokens.map(|t| &p.read[t.start..t.end])
        })
        .collect();
    let mut columns = column::list(table.oid)?;
    columns.retain(|c| {
        let own = |p: &Part| p.base.as_ref().is_some_and(|b| b.number == c.number);
        let word = |t: &&str| **t == quote_ident(&c.name) || t.to_lowercase() == c.name;
        !c.dropped && (parts.iter().any(own) || read.iter().any(word))
    });
    Ok(columns
        .into_iter()
        .map(|c| Shape {
            number: c.number,
            name: c.name,
            type_name: c.type_name,
        })
        .collect())
}

const TRIGGER: &str = "_transmute_write";
/// Bytes, not a type's idea of equality, which not every type has.
const SAME: &str = "pg_catalog.record_image_eq";

/// Of a view with a trigger the server asks the view itself for defaults.
fn defaults(name: &QualifiedName, parts: &[Part]) -> Vec<String> {
    parts
        .iter()
        .filter(|p| p.is_plain())
        .filter_map(|p| {
            let base = p.base.as_ref()?;
            let is_default = base.generated.is_empty() && !base.expression.is_empty();
            is_default.then(|| {
                format!(
                    "ALTER VIEW {name} ALTER COLUMN {} SET DEFAULT {}",
                    p.name(),
                    base.expression
                )
            })
        })
        .collect()
}

/// The trigger function: what is written in the view's shape, in the table's.
fn function(view: &View, table: &Relation, parts: &[Part]) -> Result<String> {
    let key = index::keys(table.oid, &[])?
        .into_iter()
        .find(|k| {
            k.columns.iter().all(|n| {
                parts
                    .iter()
                    .any(|p| p.shape.number == *n && p.stored().is_some())
            })
        })
        .ok_or_else(|| Error::Unsupported {
            problem: "a version of a table without a key cannot be written".into(),
            detail: format!("{} converts columns of {}.", view.name(), table.name),
            hint: "Give the table a primary key, or leave meta.versioned_views out.".into(),
        })?;
    let alias = quote_ident(&table.name.name);
    let stored: Vec<(&Part, String)> = parts
        .iter()
        .filter_map(|p| p.stored().map(|name| (p, name)))
        .collect();
    // A row of the view's shape under the table's names.
    let row = |record: &str| {
        let list: Vec<String> = parts
            .iter()
            .filter_map(|p| {
                let base = p.base.as_ref()?;
                Some(format!(
                    "{record}.{} AS {}",
                    p.name(),
                    quote_ident(&base.name)
                ))
            })
            .collect();
        format!("(SELECT {}) AS {alias}", list.join(", "))
    };
    let written = |p: &Part, name: &str| p.write.clone().unwrap_or_else(|| name.to_string());
    let matches: Vec<String> = stored
        .iter()
        .filter(|(p, _)| key.columns.contains(&p.shape.number))
        .map(|(p, name)| {
            format!(
                "{alias}.{name} = (SELECT {} FROM {})",
                written(p, name),
                row("OLD")
            )
        })
        .collect();
    let matches = matches.join(" AND ");
    let reads: Vec<String> = parts
        .iter()
        .map(|p| format!("{} AS {}", p.read, p.name()))
        .collect();
    let reads = reads.join(", ");
    let mut before = String::new();
    for part in parts {
        let name = part.name();
        if part.base.is_none() {
            before.push_str(&format!(
                "  IF NEW.{name} IS NOT NULL THEN\n    RAISE EXCEPTION USING ERRCODE = 'feature_not_supported', \
                 MESSAGE = 'the column is stored from the end of the migration on',\n      DETAIL = {}, \
                 HINT = 'Leave it out, or NULL, until transmute.state says FINISHED.';\n  END IF;\n",
                quote_literal(&format!("Column {name} of {}.", view.name()))
            ));
        }
    }
    let inserted: Vec<String> = stored
        .iter()
        .map(|(p, name)| {
            let default = p
                .base
                .as_ref()
                .filter(|b| p.write.is_some() && !b.expression.is_empty());
            match default {
                Some(base) => format!(
                    "CASE WHEN {alias}.{name} IS NULL THEN {} ELSE {} END",
                    base.expression,
                    written(p, name)
                ),
                None => written(p, name),
            }
        })
        .collect();
    let insert = |with_identity: bool| {
        let given: Vec<(&str, &str)> = stored
            .iter()
            .zip(&inserted)
            .filter(|((p, _), _)| with_identity || !p.is_identity())
            .map(|((_, name), value)| (name.as_str(), value.as_str()))
            .collect();
        let (names, values): (Vec<&str>, Vec<&str>) = given.into_iter().unzip();
        format!(
            "INSERT INTO {} AS {alias} ({}) SELECT {} FROM {} RETURNING {reads} INTO NEW;",
            view.rows(),
            names.join(", "),
            values.join(", "),
            row("NEW")
        )
    };
    // Without it the server gives it, for which nobody needs rights on its sequence.
    let identity: Vec<String> = parts
        .iter()
        .filter(|p| p.is_identity())
        .map(|p| format!("NEW.{} IS NULL", p.name()))
        .collect();
    let insert = match identity.is_empty() {
        true => insert(true),
        false => format!(
            "IF {} THEN\n      {}\n    ELSE\n      {}\n    END IF;",
            identity.join(" AND "),
            insert(false),
            insert(true)
        ),
    };
    let conflicts: Vec<String> = stored
        .iter()
        .map(|(p, _)| {
            let name = p.name();
            format!(
                "NOT {SAME}(ROW(NEW.{name}), ROW(OLD.{name})) AND NOT {SAME}(ROW(stored_row.{name}), ROW(OLD.{name}))"
            )
        })
        .collect();
    let values: Vec<String> = stored
        .iter()
        .enumerate()
        .map(|(i, (p, name))| format!("{} AS _transmute_{i}", written(p, name)))
        .collect();
    let sets: Vec<String> = stored
        .iter()
        .enumerate()
        .map(|(i, (p, name))| {
            format!(
                "{name} = CASE WHEN {SAME}(ROW(NEW.{0}), ROW(OLD.{0})) THEN {alias}.{name} ELSE n._transmute_{i} END",
                p.name()
            )
        })
        .collect();
    let body = format!(
        "#variable_conflict use_column
DECLARE
  stored_row record;
BEGIN
  IF TG_OP = 'DELETE' THEN
    DELETE FROM {base} AS {alias} WHERE {matches};
    IF NOT FOUND THEN
      RETURN NULL;
    END IF;
    RETURN OLD;
  END IF;
{before}  IF TG_OP = 'INSERT' THEN
    {insert}
    RETURN NEW;
  END IF;
  SELECT {reads} INTO stored_row FROM {base} AS {alias} WHERE {matches} FOR UPDATE;
  IF NOT FOUND THEN
    RETURN NULL;
  END IF;
  IF {conflicts} THEN
    RAISE EXCEPTION USING ERRCODE = 'serialization_failure', MESSAGE = 'could not serialize access due to concurrent update',
      DETAIL = {said}, HINT = 'Try the transaction again.';
  END IF;
  UPDATE {base} AS {alias} SET {sets} FROM (SELECT {values} FROM {new}) AS n WHERE {matches}
    RETURNING {reads} INTO NEW;
  RETURN NEW;
END",
        base = view.rows(),
        new = row("NEW"),
        conflicts = conflicts.join("\n    OR "),
        said = quote_literal(&format!("Another transaction changed the row of {} under a view that converts it.", table.name)),
        sets = sets.join(",\n    "),
        values = values.join(", "),
    );
    Ok(format!(
        "CREATE FUNCTION {}() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS {}",
        view.function(),
        quote_literal(&body)
    ))
}

/// Takes the view away, with its function. The caller has locked it.
pub fn unmake(view: &View) -> Result<()> {
    utility::run(&format!("DROP VIEW IF EXISTS {}", view.name()))?;
    utility::run(&format!("DROP FUNCTION IF EXISTS {}()", view.function()))?;
    utility::run(&format!("DROP VIEW IF EXISTS {}", view.rows()))
}

/// The views of all versions on the tables of a swap.
pub fn of(works: &[Work], trees: &[Tree]) -> Result<Vec<View>> {
    let mut views = Vec::new();
    let copied = works.iter().map(|w| w.rewrite.relation);
    for table in copied.chain(trees.iter().map(|t| t.table.oid)) {
        views.extend(version::on(table)?);
    }
    Ok(views)
}

/// What changes the table of a view in this swap: its statements, those that lead back, and what names mean to them.
type Change<'a> = (&'a str, Option<&'a str>, &'a Session);

fn change<'a>(view: &View, works: &'a [Work], trees: &'a [Tree]) -> Option<Change<'a>> {
    let tree = trees.iter().find(|t| t.table.oid == view.relation);
    let work = works.iter().find(|w| w.rewrite.relation == view.relation);
    tree.map(|t| (t.alter.as_str(), t.other.as_deref(), &t.session))
        .or_else(|| work.map(|w| (w.alter.as_str(), w.other.as_deref(), &w.session)))
}

/// What uses a view, but for those that go with it.
fn users(view: &View) -> Result<Vec<String>> {
    spi::query(
        "SELECT DISTINCT _transmute.identity_text('pg_class'::regclass, r.ev_class, 0) FROM pg_depend d JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass \
           AND r.oid = d.objid \
         WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = $1 AND r.ev_class <> $1 ORDER BY 1",
        &[view.view.into()],
        |row| row.need(1),
    )
}

/// Whether a view shows columns as they are in a table, none of them converted.
pub fn is_plain(view: &View, columns: &[Column]) -> bool {
    view.columns.iter().all(|shown| {
        columns
            .iter()
            .any(|c| !c.dropped && c.number == shown.number && c.type_name == shown.type_name)
    })
}

/// The views that the migration of a swap takes back.
fn going(works: &[Work]) -> Result<Vec<String>> {
    let Some(work) = works.first() else {
        return Ok(Vec::new());
    };
    let steps = step::pending(&work.rewrite.migration_id, step::Kind::VersionBack)?;
    Ok(steps.into_iter().map(|s| s.target).collect())
}

/// Nothing may use a view that is about to go: it could not be made again.
pub fn require_unused(views: &[View], works: &[Work]) -> Result<()> {
    if views.is_empty() {
        return Ok(());
    }
    let going = going(works)?;
    for view in views {
        if going.contains(&view.name().to_string()) {
            refuse_users(view)?;
        }
    }
    Ok(())
}

/// Refuses to take a view away that something uses.
pub fn refuse_users(view: &View) -> Result<()> {
    let users = users(view)?;
    if users.is_empty() {
        return Ok(());
    }
    Err(Error::DependentObjects {
        problem: "something uses a version that is to be taken back".into(),
        detail: format!("On {}: {}.", view.name(), users.join(", ")),
        hint: "Drop it first.".into(),
    })
}

/// After a swap: every view shows what it showed, of the table as it is now; those that the migration takes back are gone.
pub fn make_again(views: &[View], works: &[Work], trees: &[Tree]) -> Result<()> {
    let going = match views {
        [] => Vec::new(),
        _ => going(works)?,
    };
    for view in views {
        let Some((alter, other, session)) = change(view, works, trees) else {
            continue;
        };
        if going.contains(&view.name().to_string()) {
            version::delete(view.id)?;
            continue;
        }
        let table = relation::get(view.relation)?;
        let is_plain = parts(view, table.oid, Ways::default())?
            .iter()
            .all(Part::is_plain);
        if !is_plain && (view.converts || other.is_none()) {
            return Err(two_behind(view));
        }
        let ways = Ways {
            read: other,
            write: Some(alter),
        };
        make(view, &table, ways, session)?;
    }
    Ok(())
}

/// Two conversions, one behind the other, are not made.
pub fn two_behind(view: &View) -> Error {
    Error::Unsupported {
        problem: "a version of the table is behind already".into(),
        detail: format!("{} converts what a migration before has changed.", view.name()),
        hint: "transmute.release_version(version, reason) of that version, when its application is gone.".into(),
    }
}
