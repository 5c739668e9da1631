//! The way back of a finished migration to which none was given: what its steps kept when they ran, the last one first. Tables
//! that were copied are copied back by the planner, from plain statements; the rest is taken back as it was kept.

use super::back_text;
use super::planning::{self, Plan};
use super::rule_back;
use super::step_back::{Piece, StepsBack};
use crate::catalog::relation;
use crate::error::{Error, Result};
use crate::model::meta::Meta;
use crate::model::phase::Phase;
use crate::pg::identity::Caller;
use crate::recipe::{self, Planned, Script};
use crate::store::step::{self, Kind};
use crate::store::version;

/// What takes a migration back.
pub struct Derived {
    /// Plain statements that go to the planner, before the steps.
    pub planned: Option<String>,
    pub steps: Vec<Planned>,
    /// Those that take views of versions away before, or with, what changes their tables.
    versions: Vec<Planned>,
    /// All of it as text, for people.
    pub sql: String,
    /// What it leaves as it is.
    pub lost: Vec<String>,
}

/// Derives the way back of a run of a migration, which belongs to `owner`.
pub fn of(run: &str, owner: &str) -> Result<Derived> {
    let ran = step::ran(run)?;
    let mut pieces: Vec<(Kind, String, Piece)> = Vec::new();
    let mut back = StepsBack::of(run, &ran)?;
    for one in &ran {
        for piece in back.step(one)? {
            pieces.push((one.step.kind, one.step.target.clone(), piece));
        }
    }
    let mut lost = back.lost;
    let sql: Vec<&str> = pieces
        .iter()
        .map(|(_, _, piece)| match piece {
            Piece::Kept(sql) | Piece::Plain(sql) => sql.as_str(),
            Piece::Step(planned) | Piece::Version(planned, _) => planned.step.sql.as_str(),
            Piece::Rule(sql, _) => sql.as_str(),
        })
        .collect();
    let mut derived = Derived {
        planned: None,
        sql: sql.join(";\n"),
        steps: Vec::new(),
        versions: Vec::new(),
        lost: Vec::new(),
    };
    let mut last_versions = Vec::new();
    // What was done behind a copy is taken back before it.
    let last = pieces
        .iter()
        .rposition(|(_, _, piece)| matches!(piece, Piece::Plain(_)));
    let mut plain = Vec::new();
    // Rules are made before anything else; what drops columns of their tables goes with their end.
    let mut rules: Vec<Vec<Planned>> = Vec::new();
    for (i, (kind, target, piece)) in pieces.into_iter().enumerate() {
        let of_rule = rules.iter_mut().flatten().find(|p| p.step.target == target);
        match piece {
            Piece::Rule(_, rule) => {
                let (before, end) = rule_back::steps(&target, *rule)?;
                rules.push(before);
                derived.push(end);
            }
            Piece::Kept(sql) if of_rule.is_some() && rule_back::drops_columns(&sql)? => {
                if let Some(make) = of_rule {
                    rule_back::unmake_too(make, sql);
                }
            }
            Piece::Kept(sql) if last.is_some_and(|last| i < last) => {
                plain.extend(back_text::plain(&sql, owner, &mut lost)?);
            }
            Piece::Plain(sql) => plain.extend(back_text::plain(&sql, owner, &mut lost)?),
            Piece::Kept(sql) if kind == Kind::Outside || !back_text::makes_index(&sql)? => {
                let kind = match kind {
                    Kind::Outside if back_text::is_outside(&sql)? => Kind::Outside,
                    _ => Kind::Back,
                };
                derived.push(recipe::back(0, &target, &sql, kind));
            }
            Piece::Kept(sql) => {
                for planned in back_text::steps(&target, &sql)? {
                    derived.push(planned);
                }
            }
            Piece::Step(planned) => derived.push(*planned),
            Piece::Version(planned, true) => derived.versions.push(*planned),
            Piece::Version(planned, false) => last_versions.push(*planned),
        }
    }
    if !rules.is_empty() {
        let behind = std::mem::take(&mut derived.steps);
        let steps = rules.into_iter().flatten().chain(behind);
        steps.for_each(|planned| derived.push(planned));
    }
    // With the old shape there again, whoever looks for its version finds the table itself.
    last_versions
        .into_iter()
        .for_each(|planned| derived.push(planned));
    derived.planned = (!plain.is_empty()).then(|| plain.join(";\n"));
    derived.lost = lost;
    Ok(derived)
}

impl Derived {
    fn push(&mut self, mut planned: Planned) {
        let number = self.steps.len() as i32 + 1;
        planned.statement = number;
        planned.step.step = number;
        self.steps.push(planned);
    }

    /// What is left to do for nobody.
    pub fn is_empty(&self) -> bool {
        self.planned.is_none() && self.steps.is_empty() && self.versions.is_empty()
    }

    /// The steps of the planner, and the others behind them.
    pub fn plan(&self, caller: &Caller, meta: &Meta) -> Result<Plan> {
        let mut script = match &self.planned {
            Some(text) => recipe::make_back(text, caller, meta, &self.going()?)?,
            None => Script {
                plain: Vec::new(),
                steps: Vec::new(),
            },
        };
        let mut own = self.steps.clone();
        recipe::observe_back(&mut own, caller)?;
        let (before, statements) = (
            script.steps.len() as i32,
            script.steps.iter().map(|p| p.statement).max().unwrap_or(0),
        );
        for mut planned in own {
            planned.step.step += before;
            planned.statement += statements;
            script.steps.push(planned);
        }
        self.take_versions(&mut script.steps, caller)?;
        planning::of_script(self.planned.as_deref().unwrap_or(""), script, caller)
    }
}

impl Derived {
    /// The views of versions that are taken away.
    fn going(&self) -> Result<Vec<i64>> {
        let own = self.versions.iter().chain(&self.steps);
        let targets: Vec<&str> = own
            .filter(|p| p.step.kind == Kind::VersionBack.name())
            .map(|p| p.step.target.as_str())
            .collect();
        let mut views = version::all()?;
        views.retain(|v| targets.contains(&v.name().to_string().as_str()));
        Ok(views.iter().map(|v| v.id).collect())
    }

    /// Puts the steps of versions behind the swaps, which take those of their tables along, and before whatever else changes tables.
    fn take_versions(&self, steps: &mut Vec<Planned>, caller: &Caller) -> Result<()> {
        let mut own = self.versions.clone();
        recipe::observe_back(&mut own, caller)?;
        let statements = steps.iter().map(|p| p.statement).max().unwrap_or(0);
        for (planned, statement) in own.iter_mut().zip(statements + 1..) {
            planned.statement = statement;
        }
        let is_swap = |p: &Planned| p.step.kind.starts_with("rewrite_");
        let ends = |p: &Planned| p.step.phase == Phase::Contract;
        let at = steps
            .iter()
            .rposition(|p| is_swap(p) && ends(p))
            .map(|last| last + 1)
            .or_else(|| steps.iter().position(ends))
            .unwrap_or(steps.len());
        steps.splice(at..at, own);
        // A swap has taken them along.
        let swapped: Vec<String> = steps
            .iter()
            .filter(|p| is_swap(p) && ends(p))
            .map(|p| p.step.target.clone())
            .collect();
        for view in version::all()? {
            let name = view.name().to_string();
            let gone = relation::names(&[view.relation])?
                .iter()
                .any(|table| swapped.contains(table));
            for planned in steps.iter_mut().filter(|p| gone && p.step.target == name) {
                planned.step.locks.clear();
                planned.step.lock_mode.clear();
            }
        }
        for (planned, number) in steps.iter_mut().zip(1..) {
            planned.step.step = number;
        }
        Ok(())
    }
}

/// Refuses a way back that leaves something as it is, unless somebody has said that this is right.
pub fn require_whole(id: &str, lost: &[String], allow_missing: bool) -> Result<()> {
    /// So many are named.
    const NAMED: usize = 3;
    if lost.is_empty() || allow_missing {
        return Ok(());
    }
    let more = match lost.len() {
        n if n > NAMED => format!("; and {} more", n - NAMED),
        _ => String::new(),
    };
    let named: Vec<&str> = lost.iter().take(NAMED).map(String::as_str).collect();
    Err(Error::Prerequisite {
        problem: "not all of the migration can be taken back".into(),
        detail: format!("Migration \"{id}\": {}{more}.", named.join("; ")),
        hint: "Give a way back of your own (down), or allow_missing_down => true with a reason: the rest is taken back, and this stays."
            .into(),
    })
}
