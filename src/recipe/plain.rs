//! What the plain statement is and would do: its operations, locks, work and risk. Beside the plan it shows what was gained.

use super::draft::Planned;
use super::why::Seen;
use crate::catalog::lock as locks;
use crate::catalog::lock::{Table, Trial};
use crate::error::{if_accepted, Result};
use crate::model::lock::{self, Lock, Mode};
use crate::model::operation::Operation;
use crate::model::plan::Estimate;
use crate::model::rate::Rates;
use crate::model::reason::Reason;
use crate::model::risk::{self, Facts, Level};
use crate::pg::identity::{self, Caller};
use crate::pg::parser::{self, Kind, Statement};
use crate::pg::relation as pg_relation;
use crate::pg::subject::{Mention, Reach, Subject};
use crate::pg::xact::{self, End};
use crate::pg::Oid;
use std::collections::HashMap;

/// A statement of the script as the server would run it.
#[derive(Debug, Clone)]
pub struct Plain {
    pub number: i32,
    pub line: usize,
    pub text: String,
    pub operations: Vec<Operation>,
    /// The first table it names that exists, or what it makes; may be empty.
    pub target: String,
    /// Of the target; 0 where it is new or no table.
    pub facts: Facts,
    pub locks: Vec<Lock>,
    pub rewrites: bool,
    pub scans: bool,
    pub transactional: bool,
    pub reasons: Vec<Reason>,
    pub score: i32,
    pub estimate: Estimate,
    /// What it would do, in a few words.
    pub words: String,
    /// Why a fast path is taken, or is not possible.
    pub notes: Vec<String>,
    /// The statement whose steps do it, too.
    pub with: Option<i32>,
}

impl Plain {
    pub fn level(&self) -> Level {
        Level::of_score(self.score)
    }
}

/// A relation that exists, with the way it is named.
struct Named<'a> {
    oid: Oid,
    mention: &'a Mention,
}

/// Looks at statements one after the other; what it found out of a table it keeps, so that a long script asks once.
pub(super) struct Observer<'a> {
    caller: &'a Caller,
    rates: &'a Rates,
    resolved: HashMap<(Option<String>, String), Option<Oid>>,
    tables: HashMap<u32, Option<Table>>,
}

impl<'a> Observer<'a> {
    pub fn new(caller: &'a Caller, rates: &'a Rates) -> Self {
        Observer {
            caller,
            rates,
            resolved: HashMap::new(),
            tables: HashMap::new(),
        }
    }

    /// What `statement` would do by itself; `seen` is what its probe saw, `steps` what its recipe made of it.
    pub fn plain(
        &mut self,
        number: i32,
        statement: &Statement,
        seen: &Seen,
        steps: &[Planned],
    ) -> Result<Plain> {
        let subject = &statement.subject;
        let named = match seen.new {
            true => Vec::new(),
            false => self.named(subject)?,
        };
        let table = match seen.copies {
            Some(oid) => self.table(oid)?,
            None => self.main_table(&named)?,
        };
        let facts = table.as_ref().map(|t| t.facts).unwrap_or_default();
        let mut locks = self.locks(statement, &named)?;
        if let (Some(_), Some(table)) = (seen.copies, &table) {
            locks.push(Lock {
                mode: Mode::AccessShare,
                relation: table.name.clone(),
            });
            locks = lock::strongest(locks);
        }
        let exists = table.is_some();
        let rewrites = exists && (seen.rewrites || rewrites(&subject.operations));
        let scans = exists
            && !rewrites
            && (seen.scans || seen.copies.is_some() || subject.scans && !seen.proven);
        let mut plain = Plain {
            number,
            line: statement.line,
            text: statement.text.clone(),
            operations: subject.operations.clone(),
            target: target(statement, table.as_ref(), steps),
            facts,
            words: String::new(),
            rewrites,
            scans,
            transactional: !subject.outside_transaction,
            reasons: Vec::new(),
            score: 0,
            estimate: Estimate::default(),
            notes: seen.notes.clone(),
            with: seen.with,
            locks,
        };
        plain.estimate = self.estimate(&plain);
        plain.words = words(&plain);
        plain.reasons = reasons(subject, &plain, table.as_ref(), seen);
        // A rewrite was tried: what was seen counts, not what its recipe supposes.
        let recipes = steps
            .iter()
            .filter(|p| !p.step.kind.starts_with("rewrite_"));
        for reason in recipes.flat_map(|p| &p.naive_reasons) {
            if !plain.reasons.contains(reason) {
                plain.reasons.push(*reason);
            }
        }
        plain.reasons.sort();
        plain.score = risk::score(&plain.reasons, &facts);
        Ok(plain)
    }

    /// The locks of a step that runs a statement of its own; `None` where its text is no statement or names nothing that
    /// exists yet.
    pub fn locks_of_sql(&mut self, sql: &str) -> Result<Option<Vec<Lock>>> {
        let Ok(statements) = xact::subtransaction(End::Keep, || parser::parse(sql)) else {
            return Ok(None);
        };
        let [statement] = statements.as_slice() else {
            return Ok(None);
        };
        let named = self.named(&statement.subject)?;
        if named.len() < statement.subject.mentions.len() || named.is_empty() {
            return Ok(None);
        }
        Ok(Some(self.locks(statement, &named)?))
    }

    /// The mentions that mean a relation which exists before the script runs.
    fn named<'s>(&mut self, subject: &'s Subject) -> Result<Vec<Named<'s>>> {
        let mut named = Vec::new();
        for mention in &subject.mentions {
            if let Some(oid) = self.resolve(mention)? {
                named.push(Named { oid, mention });
            }
        }
        Ok(named)
    }

    fn resolve(&mut self, mention: &Mention) -> Result<Option<Oid>> {
        let statistics = mention.reach == Reach::Statistics;
        let name = match statistics {
            true => format!("statistics {}", mention.name),
            false => mention.name.clone(),
        };
        let key = (mention.schema.clone(), name);
        if let Some(known) = self.resolved.get(&key) {
            return Ok(*known);
        }
        let caller = self.caller;
        // A schema that the script makes, or that the caller may not use, is an error of the server's.
        let tried = xact::subtransaction(End::Keep, || {
            identity::as_role(caller.role, &caller.session, || match statistics {
                true => locks::statistics_table(mention.schema.as_deref(), &mention.name),
                false => pg_relation::resolve(mention.schema.as_deref(), &mention.name),
            })
        });
        let oid = if_accepted(tried)?.flatten();
        self.resolved.insert(key, oid);
        Ok(oid)
    }

    fn main_table(&mut self, named: &[Named<'_>]) -> Result<Option<Table>> {
        for named in named {
            let known = self.table(named.oid)?;
            if known.is_some() {
                return Ok(known);
            }
        }
        Ok(None)
    }

    fn table(&mut self, oid: Oid) -> Result<Option<Table>> {
        if let Some(known) = self.tables.get(&oid.to_u32()) {
            return Ok(known.clone());
        }
        let found = locks::table(oid)?;
        self.tables.insert(oid.to_u32(), found.clone());
        Ok(found)
    }

    fn locks(&self, statement: &Statement, named: &[Named<'_>]) -> Result<Vec<Lock>> {
        let subject = &statement.subject;
        let mentions: Vec<(Oid, Mention)> =
            named.iter().map(|n| (n.oid, n.mention.clone())).collect();
        let mut found = locks::reached(&mentions, subject.cascade)?;
        if subject.query {
            let view = matches!(
                subject.operations[..],
                [Operation::CreateView | Operation::ReplaceView]
            );
            let trial = match view {
                true => Trial::View,
                false => Trial::Explain,
            };
            let schema = match &statement.kind {
                Kind::Create { schema, name, .. } if view => self.creation_schema(schema, name),
                _ => self.creation_schema(&None, "x"),
            };
            let caller = self.caller;
            found.extend(
                schema
                    .and_then(|schema| {
                        locks::of_query(
                            &statement.text,
                            trial,
                            caller.role,
                            &caller.session,
                            &schema,
                        )
                    })
                    .unwrap_or_default(),
            );
        }
        Ok(lock::strongest(found))
    }

    fn creation_schema(&self, schema: &Option<String>, name: &str) -> Option<String> {
        let caller = self.caller;
        xact::subtransaction(End::Keep, || {
            identity::as_role(caller.role, &caller.session, || {
                pg_relation::creation_schema(schema.as_deref(), name)
            })
        })
        .ok()
    }

    fn estimate(&self, plain: &Plain) -> Estimate {
        let work = if plain.rewrites {
            "rewrite_copy"
        } else if plain.operations.contains(&Operation::CreateIndex)
            || plain.operations.contains(&Operation::Reindex)
        {
            "rewrite_index"
        } else if plain.scans {
            "rewrite_check"
        } else if moves_rows(&plain.operations) {
            "update"
        } else {
            return Estimate::default();
        };
        Estimate {
            rows: plain.facts.rows,
            bytes: plain.facts.bytes,
            seconds: self.rates.seconds(work, plain.facts.rows),
        }
    }
}

/// The table, or what the recipe says; empty where that is no more than the command.
fn target(statement: &Statement, table: Option<&Table>, steps: &[Planned]) -> String {
    let made = || steps.first().map(|p| p.step.target.clone());
    table
        .map(|t| t.name.clone())
        .or_else(made)
        .filter(|t| *t != statement.tag)
        .unwrap_or_default()
}

/// What rewrites whatever the table looks like; ALTER TYPE and ADD COLUMN are tried instead.
fn rewrites(operations: &[Operation]) -> bool {
    operations.iter().any(|o| {
        matches!(
            o,
            Operation::Cluster
                | Operation::SetTablespace
                | Operation::SetLogged
                | Operation::SetAccessMethod
                | Operation::RefreshMaterializedView
        )
    })
}

fn moves_rows(operations: &[Operation]) -> bool {
    operations
        .iter()
        .any(|o| matches!(o, Operation::Update | Operation::Delete | Operation::Merge))
}

fn words(plain: &Plain) -> String {
    let under = match plain.locks.first() {
        Some(lock) => format!("under {}", lock.mode),
        None => "without a lock on a table".into(),
    };
    if plain.rewrites {
        format!("rewrites the table {under}")
    } else if plain.operations.contains(&Operation::CreateIndex) && plain.scans {
        format!("builds the index {under}")
    } else if plain.scans && plain.operations.contains(&Operation::Insert) {
        format!("copies every row in one transaction {under}")
    } else if plain.scans {
        format!("reads every row {under}")
    } else if moves_rows(&plain.operations) {
        format!("changes rows in one transaction {under}")
    } else if plain.locks.is_empty() {
        "writes the catalog, no lock on a table".into()
    } else {
        format!("a moment {under}")
    }
}

fn reasons(subject: &Subject, plain: &Plain, table: Option<&Table>, seen: &Seen) -> Vec<Reason> {
    use Operation as O;
    let has = |wanted: &[O]| plain.operations.iter().any(|o| wanted.contains(o));
    let mut reasons = seen.reasons.clone();
    let mut when = |holds: bool, reason: Reason| {
        if holds && !reasons.contains(&reason) {
            reasons.push(reason);
        }
    };
    let strongest = plain.locks.first().map(|l| l.mode);
    when(
        strongest == Some(Mode::AccessExclusive),
        Reason::LockAccessExclusive,
    );
    when(
        matches!(strongest, Some(Mode::ShareRowExclusive | Mode::Exclusive)),
        Reason::LockShareRowExclusive,
    );
    when(strongest == Some(Mode::Share), Reason::LockShare);
    let works = plain.rewrites || plain.scans || moves_rows(&plain.operations);
    when(plain.rewrites, Reason::TableRewrite);
    when(plain.rewrites, Reason::DiskSpace);
    when(
        plain.scans && strongest.is_some_and(Mode::stops_writers),
        Reason::FullScanUnderLock,
    );
    when(works && plain.facts.is_large(), Reason::LargeTable);
    when(
        strongest.is_some_and(Mode::stops_writers) && plain.facts.is_hot(),
        Reason::HotTable,
    );
    when(
        plain.estimate.seconds >= risk::LONG_TRANSACTION_SECONDS,
        Reason::LongTransaction,
    );
    let writes_much = plain.rewrites || moves_rows(&plain.operations);
    let published = table.is_some_and(|t| t.published);
    when(
        writes_much && (published || plain.facts.is_large()),
        Reason::ReplicationImpact,
    );
    when(
        published
            && has(&[
                O::DropColumn,
                O::AlterType,
                O::RenameColumn,
                O::DropTable,
                O::Truncate,
                O::RenameTable,
                O::ReplicaIdentity,
            ]),
        Reason::ReplicationImpact,
    );
    when(has(&[O::Replication]), Reason::ReplicationImpact);
    when(
        writes_much && table.is_some_and(|t| !t.has_key && t.kind == 'r'),
        Reason::NoKey,
    );
    let loses = [
        O::DropColumn,
        O::DropTable,
        O::Truncate,
        O::Delete,
        O::DropSchema,
        O::DropSequence,
    ];
    when(has(&loses), Reason::DataLoss);
    when(
        has(&loses) || has(&[O::AddEnumValue, O::Execute, O::Unknown]),
        Reason::Irreversible,
    );
    when(
        has(&[
            O::DropColumn,
            O::RenameColumn,
            O::DropTable,
            O::RenameTable,
            O::SetSchema,
            O::DropView,
            O::DropSchema,
            O::DropFunction,
            O::RenameEnumValue,
        ]),
        Reason::BreaksOldClients,
    );
    when(!plain.transactional, Reason::NotTransactional);
    when(subject.proves, Reason::ConstraintMayFail);
    when(subject.cascade, Reason::Cascade);
    when(
        has(&[
            O::Grant,
            O::Revoke,
            O::ChangeOwner,
            O::RowSecurity,
            O::CreatePolicy,
            O::AlterPolicy,
            O::DropPolicy,
        ]),
        Reason::PrivilegeChange,
    );
    when(has(&[O::Unknown, O::Execute]), Reason::UnknownStatement);
    reasons
}
