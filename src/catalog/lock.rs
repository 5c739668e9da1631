//! The locks a plain statement takes, beyond what it names.

use crate::error::Result;
use crate::model::ident::QualifiedName;
use crate::model::lock::{self, Lock, Mode};
use crate::pg::identity::{self, Session};
use crate::pg::spi::{self, Row};
use crate::pg::subject::{Mention, Reach, Written};
use crate::pg::utility;
use crate::pg::xact::{self, End};
use crate::pg::{activity, Oid};

fn from_row(row: &Row<'_>) -> Result<Option<Lock>> {
    let name = QualifiedName::new(row.need::<String>(1)?, row.need::<String>(2)?);
    Ok(Mode::of_number(row.need(3)?).map(|mode| Lock {
        mode,
        relation: name.to_string(),
    }))
}

/// What this session has locked: the server's own list.
pub fn held() -> Result<Vec<Lock>> {
    let locks = spi::query_kept(
        include_str!("../../sql/query/held_locks.sql"),
        &[],
        from_row,
    )?;
    Ok(locks.into_iter().flatten().collect())
}

/// What mentions of relations that exist amount to, looked up in the catalogs.
pub fn reached(mentions: &[(Oid, Mention)], cascade: bool) -> Result<Vec<Lock>> {
    if mentions.is_empty() {
        return Ok(Vec::new());
    }
    let number = |mode: Mode| mode as i32 + 1;
    let by_name = |m: &Mention| matches!(m.reach, Reach::Itself | Reach::Tree);
    if !cascade && mentions.iter().all(|(_, m)| by_name(m)) {
        let oids: Vec<Oid> = mentions.iter().map(|(oid, _)| *oid).collect();
        let modes: Vec<i32> = mentions.iter().map(|(_, m)| number(m.lock)).collect();
        let down: Vec<bool> = mentions
            .iter()
            .map(|(_, m)| matches!(m.reach, Reach::Tree))
            .collect();
        let locks = spi::query_kept(
            include_str!("../../sql/query/reached_by_name.sql"),
            &[oids.into(), modes.into(), down.into()],
            from_row,
        )?;
        return Ok(locks.into_iter().flatten().collect());
    }
    let (mut oids, mut modes, mut reaches) = (Vec::new(), Vec::new(), Vec::new());
    let (mut arguments, mut others) = (Vec::new(), Vec::new());
    for (oid, mention) in mentions {
        let mut written_to = None;
        let (reach, argument, other) = match &mention.reach {
            Reach::Itself => ("itself", None, None),
            Reach::Tree => ("tree", None, None),
            Reach::IndexOf(table) => ("index", None, Some(*table)),
            Reach::Indexes(table) => ("indexes", None, Some(*table)),
            Reach::Owned => ("owned", None, None),
            Reach::SequenceOf(column) => ("sequence", Some(column), None),
            Reach::Dropped {
                column: Some(column),
                ..
            } => ("column", Some(column), None),
            Reach::Dropped {
                constraint: Some(constraint),
                ..
            } => ("constraint", Some(constraint), None),
            Reach::Dropped { .. } => ("dropped", None, None),
            Reach::Partners(column) => ("partners", column.as_ref(), None),
            Reach::Referenced(constraint) => ("referenced", Some(constraint), None),
            Reach::DefaultPartition => ("default", None, None),
            Reach::Referencing => ("referencing", None, None),
            Reach::Sources => ("sources", None, None),
            Reach::Rows(written, columns) => {
                let columns = serde_json::to_string(columns)?;
                (
                    written_word(*written),
                    Some(&*written_to.insert(columns)),
                    None,
                )
            }
            Reach::Attached => ("attached", None, None),
            Reach::Statistics => ("itself", None, None),
        };
        oids.push(*oid);
        modes.push(number(mention.lock));
        reaches.push(reach.to_string());
        arguments.push(argument.cloned().unwrap_or_default());
        others.push(other.map_or(0, number));
    }
    let locks = spi::query_kept(
        include_str!("../../sql/query/reached_locks.sql"),
        &[
            oids.into(),
            modes.into(),
            reaches.into(),
            arguments.into(),
            others.into(),
            cascade.into(),
        ],
        from_row,
    )?;
    Ok(locks.into_iter().flatten().collect())
}

fn written_word(written: Written) -> &'static str {
    match written {
        Written::Insert => "insert",
        Written::Update => "update",
        Written::Delete => "delete",
        Written::Any => "any",
    }
}

/// The table of extended statistics, looked up as the current role sees them.
pub fn statistics_table(schema: Option<&str>, name: &str) -> Result<Option<Oid>> {
    spi::value_kept::<Oid>(
        "SELECT s.stxrelid FROM pg_statistic_ext s JOIN pg_namespace n ON n.oid = s.stxnamespace \
         WHERE s.stxname = $2::name AND CASE WHEN $1 IS NULL THEN pg_statistics_obj_is_visible(s.oid) ELSE n.nspname = $1::name END",
        &[schema.into(), name.into()],
    )
}

/// How a query is tried without running it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trial {
    /// Planned by EXPLAIN, which locks what the query locks.
    Explain,
    /// A view of another name is made and taken back: it locks what the view reads.
    View,
}

/// The locks of a query, read off the server after it has planned it as `role`. `None`: it cannot be planned now, for
/// example because an earlier statement of the script makes what it reads.
pub fn of_query(
    text: &str,
    trial: Trial,
    role: Oid,
    session: &Session,
    schema: &str,
) -> Option<Vec<Lock>> {
    let tried = xact::subtransaction(End::Undo, || {
        let before = held()?;
        identity::as_role(role, session, || match trial {
            Trial::Explain => spi::execute(&format!("EXPLAIN {text}"), &[]).map(drop),
            Trial::View => {
                let name = format!("_transmute_probe_{}", activity::pid());
                utility::run_on(text, &QualifiedName::new(schema, name))
            }
        })?;
        let probe = format!("._transmute_probe_{}", activity::pid());
        let after = held()?.into_iter();
        let new = after.filter(|lock| !before.contains(lock) && !lock.relation.ends_with(&probe));
        Ok(lock::strongest(new))
    });
    tried.ok()
}

/// What of a table decides how much a statement on it hurts.
#[derive(Debug, Clone)]
pub struct Table {
    pub name: String,
    pub kind: char,
    pub facts: crate::model::risk::Facts,
    pub published: bool,
    pub has_key: bool,
}

pub fn table(oid: Oid) -> Result<Option<Table>> {
    spi::first_kept(
        include_str!("../../sql/query/table_facts.sql"),
        &[oid.into()],
        |row| {
            let name = QualifiedName::new(row.need::<String>(1)?, row.need::<String>(2)?);
            Ok(Table {
                name: name.to_string(),
                kind: row.need::<String>(3)?.chars().next().unwrap_or('?'),
                facts: crate::model::risk::Facts {
                    rows: row.need(4)?,
                    bytes: row.need(5)?,
                    writes_per_second: row.need(6)?,
                },
                published: row.need(7)?,
                has_key: row.need(8)?,
            })
        },
    )
}
