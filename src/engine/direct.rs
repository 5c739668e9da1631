//! A script as it was written: all of it in this transaction, as the migration's owner. What takes it back is found on the
//! way, statement by statement: facts of what it changes before and after, and what it made.

use super::change::{self, Before};
use super::enum_back;
use super::execute::owner_role;
use super::links_back::{self, Tied};
use crate::catalog::fact;
use crate::error::{Error, Result};
use crate::guc;
use crate::model::operation::Operation;
use crate::pg::affected::{self, Address, Subject, Way};
use crate::pg::error::catch;
use crate::pg::identity::{self, Session};
use crate::pg::parser::{self, Action, Data, Kind, Statement};
use crate::pg::{relation as pg_relation, utility, waitpoint, xact, Oid};
use crate::recipe;
use crate::store::migration::{self, Migration};
use crate::store::step::{self, Step};
use std::cell::Cell;
use std::collections::HashSet;

/// Runs the script and keeps what takes it back.
pub fn run(migration: &Migration, step: &Step) -> Result<()> {
    let mut way = run_script(owner_role(migration)?, &migration.session, &step.sql)?;
    if migration.meta.is_one_by_one() {
        // Lines are those of the script, of which this is one statement.
        let script = parser::parse(&migration::script(&migration.id)?)?;
        let place = usize::try_from(step.statement - 1).unwrap_or_default();
        if let Some(statement) = script.get(place) {
            way.lost
                .iter_mut()
                .for_each(|one| one.line += statement.line - 1);
        }
    }
    let lost: Vec<String> = way.lost.iter().map(Lost::to_string).collect();
    step::set_revert(&migration.id, step.step, Some(&way.sql))?;
    step::set_lost(&migration.id, step.step, &lost)?;
    waitpoint::reach("direct_before_commit")
}

/// What takes a script back, and what of it nothing does.
pub struct WayBack {
    pub sql: String,
    pub lost: Vec<Lost>,
}

/// What nothing takes back, and why.
pub struct Lost {
    tag: String,
    line: usize,
    why: String,
}

impl std::fmt::Display for Lost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of line {}: {}", self.tag, self.line, self.why)
    }
}

/// Runs a script in this transaction; an error says in which statement of it.
pub fn run_script(owner: Oid, session: &Session, script: &str) -> Result<WayBack> {
    let statements = parser::parse(script)?;
    let at = Cell::new(0);
    identity::set_for_transaction("lock_timeout", &guc::lock_timeout_ms().to_string())?;
    let mut run = Run::of(owner);
    let result = catch(|| {
        identity::as_role(owner, session, || {
            // Nothing may be left for the commit in a restricted context; the statement's end is the commit here.
            utility::run("SET CONSTRAINTS ALL IMMEDIATE")?;
            for (i, statement) in statements.iter().enumerate() {
                at.set(i);
                xact::check_for_interrupts();
                run.statement(statement)?;
            }
            Ok(())
        })
    });
    // Whoever called us undoes the (sub)transaction.
    result
        .unwrap_or_else(|error| Err(Error::Server(error)))
        .map_err(|error| match statements.get(at.get()) {
            Some(statement) => recipe::of_error(error, script, statement, statements.len() > 1),
            None => error,
        })?;
    run.way_back()
}

/// What takes back one statement.
enum Piece {
    Sql(Vec<String>),
    /// It made these, the oldest first.
    Made(Vec<(Oid, Oid)>),
}

struct Run {
    owner: Oid,
    /// Everything there was before the first statement that makes something.
    there: Option<HashSet<(Oid, Oid)>>,
    made: HashSet<(Oid, Oid)>,
    pieces: Vec<Piece>,
    lost: Vec<Lost>,
}

impl Run {
    fn of(owner: Oid) -> Run {
        Run {
            owner,
            there: None,
            made: HashSet::new(),
            pieces: Vec::new(),
            lost: Vec::new(),
        }
    }

    /// Runs one statement; as its owner, inside of his context.
    fn statement(&mut self, statement: &Statement) -> Result<()> {
        if leaves_nothing(statement) {
            return utility::run(&statement.text);
        }
        if let Kind::Data(data) = &statement.kind {
            self.rows(statement, data)?;
            return utility::run(&statement.text);
        }
        let Some(subject) = affected::of(&statement.text)? else {
            self.lose(statement, "nothing is known of what it does");
            return utility::run(&statement.text);
        };
        let beyond = self.is_beyond_facts(statement, &subject)?;
        // What this script made goes as a whole.
        let mine = |address: &Address| {
            self.made.contains(&(address.class, address.object))
                || address
                    .relation
                    .is_some_and(|table| self.made.contains(&(affected::RELATIONS, table)))
        };
        let others: Vec<Address> = subject
            .objects
            .iter()
            .copied()
            .filter(|a| !mine(a))
            .collect();
        let all_mine = others.is_empty() && !subject.objects.is_empty();
        if let Some(why) = beyond.filter(|_| !all_mine) {
            self.lose(statement, why);
        }
        let subject = Subject {
            objects: others,
            ..subject
        };
        if subject.creates && self.there.is_none() {
            self.there = Some(identity::as_extension(fact::objects)?);
        }
        if let Some(tied) = self.tied(statement)? {
            utility::run(&statement.text)?;
            xact::command_counter_increment();
            match identity::as_extension(|| tied.way_back())? {
                Ok(sql) => self.pieces.push(Piece::Sql(sql)),
                Err(what) => self.lose(statement, &format!("nothing makes this again: {what}")),
            }
            return Ok(());
        }
        if let Some(added) = identity::as_extension(|| enum_back::by(&subject))? {
            utility::run(&statement.text)?;
            xact::command_counter_increment();
            match identity::as_extension(|| added.way_back(self.owner, true))? {
                Ok(sql) => self.pieces.push(Piece::Sql(sql)),
                Err(why) => self.lose(statement, &why),
            }
            return Ok(());
        }
        let before = identity::as_extension(|| Before::of_changed(&subject))?;
        utility::run(&statement.text)?;
        xact::command_counter_increment();
        identity::as_extension(|| self.look_back(statement, &subject, &before))
    }

    /// What the table was tied to that the statement ties to another one, or takes from it; `None`: it does nothing else, or the
    /// script has made the table.
    fn tied(&self, statement: &Statement) -> Result<Option<Tied>> {
        let Kind::AlterTable(alter) = &statement.kind else {
            return Ok(None);
        };
        if alter.commands.len() != 1 {
            return Ok(None);
        }
        let table = links_back::subject(alter)?
            .filter(|oid| !self.made.contains(&(affected::RELATIONS, *oid)));
        table
            .map(|oid| identity::as_extension(|| Tied::look(oid)))
            .transpose()
    }

    fn look_back(
        &mut self,
        statement: &Statement,
        subject: &Subject,
        before: &Before,
    ) -> Result<()> {
        if subject.way != Way::Never {
            match change::of_changed(subject, before) {
                Ok(sql) => self.pieces.push(Piece::Sql(sql)),
                Err(what) => self.lose(statement, &format!("nothing makes this again: {what}")),
            }
        }
        if let (true, Some(there)) = (subject.creates, &self.there) {
            let mut new = fact::written_now()?;
            new.retain(|o| !there.contains(o) && !self.made.contains(o));
            self.made.extend(new.iter().copied());
            self.pieces.push(Piece::Made(new));
        }
        Ok(())
    }

    /// Rows of tables that this script made go with them.
    fn rows(&mut self, statement: &Statement, data: &Data) -> Result<()> {
        for (schema, name) in &data.targets {
            let table = pg_relation::resolve(schema.as_deref(), name)?;
            let mine = table.is_some_and(|oid| self.made.contains(&(affected::RELATIONS, oid)));
            if !mine {
                self.lose(statement, "the rows that it changes");
                break;
            }
        }
        Ok(())
    }

    /// Why facts do not tell all that the statement does.
    fn is_beyond_facts(
        &self,
        statement: &Statement,
        subject: &Subject,
    ) -> Result<Option<&'static str>> {
        if subject.way == Way::Never {
            return Ok(Some("it cannot be derived from the catalogs"));
        }
        let Kind::AlterTable(alter) = &statement.kind else {
            return Ok(None);
        };
        let ties = alter
            .commands
            .iter()
            .any(|c| c.action == Action::AttachOrInherit);
        if ties && alter.commands.len() > 1 {
            return Ok(Some(
                "what a table inherits is derived of a statement of its own",
            ));
        }
        let moves = statement
            .subject
            .operations
            .iter()
            .any(|o| matches!(o, Operation::SetAccessMethod));
        Ok(moves.then_some("how a table is stored is not derived"))
    }

    fn lose(&mut self, statement: &Statement, why: &str) {
        self.lost.push(Lost {
            tag: statement.tag.to_string(),
            line: statement.line,
            why: why.into(),
        });
    }

    /// The pieces, the last statement's first; what is not there any more needs nothing.
    fn way_back(self) -> Result<WayBack> {
        let mut back = Vec::new();
        for piece in self.pieces.into_iter().rev() {
            match piece {
                Piece::Sql(sql) => back.extend(sql),
                Piece::Made(objects) => {
                    for (class, object) in objects.into_iter().rev() {
                        let address = Address {
                            class,
                            object,
                            part: 0,
                            relation: None,
                        };
                        let facts = fact::list(&address)?;
                        let it = facts.into_iter().find(|f| f.rank == 10);
                        back.extend(it.and_then(|f| f.unmake));
                    }
                }
            }
        }
        Ok(WayBack {
            sql: back.join(";\n"),
            lost: self.lost,
        })
    }
}

/// Nothing of it is in the catalogs that would have to be taken back.
fn leaves_nothing(statement: &Statement) -> bool {
    matches!(statement.kind, Kind::Set(_))
        || [
            "SET",
            "RESET",
            "SHOW",
            "NOTIFY",
            "ANALYZE",
            "VACUUM",
            "REINDEX",
            "REFRESH MATERIALIZED VIEW",
            "LOCK TABLE",
            "SET CONSTRAINTS",
            "EXPLAIN",
            "CHECKPOINT",
        ]
        .contains(&statement.tag.as_str())
}
