//! Statements that run as they stand.

use super::as_it_stands::DROPS_WHAT_IT_MADE;
use super::draft::Draft;
use super::names::Target;
use super::Planner;
use crate::error::Result;
use crate::model::effects::Space;
use crate::model::ident::{quote_ident, QualifiedName};
use crate::model::phase::Phase;
use crate::model::reason::Reason;
use crate::model::risk::Facts;
use crate::pg::parser::Statement;
use crate::store::step::Kind as StepKind;

/// A statement and the lock that it takes.
pub(super) struct Text<'a> {
    pub sql: &'a str,
    pub lock: &'static str,
}

/// Something that a statement makes.
pub(super) struct New<'a> {
    pub object: &'static str,
    pub schema: Option<&'a str>,
    pub name: &'a str,
    pub if_not_exists: bool,
}

impl Planner<'_> {
    pub(super) fn create(
        &mut self,
        number: i32,
        statement: &Statement,
        new: &New<'_>,
    ) -> Result<()> {
        let target = match new.object {
            "SCHEMA" => quote_ident(new.name),
            _ => {
                let schema = self.creation_schema(new.schema, new.name)?;
                QualifiedName::new(schema, new.name).to_string()
            }
        };
        if new.if_not_exists {
            // What it finds is not ours to drop: whether it made something shows when it runs.
            self.change(number, statement, target, DROPS_WHAT_IT_MADE, vec![]);
            return Ok(());
        }
        let revert = Some(format!("DROP {} {target}", new.object));
        self.execute(number, statement, target, revert, Facts::default(), vec![]);
        Ok(())
    }

    /// What this script made is empty: whatever changes it runs as it stands, and is undone with it.
    pub(super) fn on_new(&mut self, number: i32, statement: &Statement, phase: Phase) {
        let target = match statement.effects.alters.first() {
            Some(object) => match &object.schema {
                Some(schema) => QualifiedName::new(schema, &object.name).to_string(),
                None => quote_ident(&object.name),
            },
            None => statement.tag.clone(),
        };
        let mut draft = Draft::new(StepKind::Execute, phase, target, &statement.text)
            .naive("runs as it stands", &[]);
        draft.reversible = phase != Phase::Contract;
        self.push(number, &Facts::default(), draft);
    }

    /// Another name for what this script made, or its end; false: it is about something else.
    pub(super) fn name_of_new(
        &mut self,
        number: i32,
        statement: &Statement,
        phase: Phase,
    ) -> Result<bool> {
        let effects = &statement.effects;
        for object in &effects.drops {
            let schema = object.schema.as_deref();
            if object.space != Space::Relation || self.lookup(schema, &object.name)? != Target::New
            {
                return Ok(false);
            }
        }
        let Some(dropped) = effects.drops.first() else {
            return Ok(false);
        };
        let Some((old, new)) = &effects.renames else {
            let name = dropped.name.clone();
            self.execute(number, statement, name, None, Facts::default(), vec![]);
            return Ok(true);
        };
        let old = self.qualified(old)?;
        let (now, change) = match &new.schema {
            Some(schema) if *schema != old.schema => (
                QualifiedName::new(schema, &old.name),
                format!("SET SCHEMA {}", quote_ident(&old.schema)),
            ),
            _ => (
                QualifiedName::new(&old.schema, &new.name),
                format!("RENAME TO {}", quote_ident(&old.name)),
            ),
        };
        let revert = format!("{} {now} {change}", statement.tag);
        let draft = Draft::new(StepKind::Execute, phase, old.to_string(), &statement.text)
            .naive("runs as it stands", &[])
            .revert(Some(revert));
        self.push(number, &Facts::default(), draft);
        Ok(true)
    }

    /// A statement that runs as it stands: in expand where it can be taken back, else behind the point of no return.
    pub(super) fn execute(
        &mut self,
        number: i32,
        statement: &Statement,
        target: String,
        revert_sql: Option<String>,
        facts: Facts,
        reasons: Vec<Reason>,
    ) {
        let exclusive = facts.rows > 0 || reasons.contains(&Reason::LockAccessExclusive);
        let text = Text {
            sql: &statement.text,
            lock: if exclusive { "ACCESS EXCLUSIVE" } else { "" },
        };
        self.execute_text(number, text, target, revert_sql, facts, reasons);
    }

    /// As `execute`, with a text of our own.
    pub(super) fn execute_text(
        &mut self,
        number: i32,
        text: Text<'_>,
        target: String,
        revert_sql: Option<String>,
        facts: Facts,
        mut reasons: Vec<Reason>,
    ) {
        let reversible = revert_sql.is_some();
        if !reversible {
            reasons.push(Reason::Irreversible);
        }
        let phase = match reversible {
            true => Phase::Expand,
            false => Phase::Contract,
        };
        let mut draft = Draft::new(StepKind::Execute, phase, target, text.sql)
            .lock(text.lock)
            .naive("runs as it stands", &reasons)
            .reasons(reasons)
            .revert(revert_sql);
        // Nothing was done that would have to be taken back.
        draft.revert_sql.take_if(|sql| sql.is_empty());
        self.push(number, &facts, draft);
    }
}
