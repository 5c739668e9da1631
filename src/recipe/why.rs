//! Why the server's fast path is taken, or is not possible, in words a DBA can check.

use crate::model::reason::Reason;
use crate::pg::parser::{Action, AlterTable};
use crate::pg::Oid;
use crate::rewrite::probe::{Outcome, Retyping};

/// What was found out about a statement by trying it.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    /// It works on what the script itself makes.
    pub new: bool,
    pub rewrites: bool,
    pub scans: bool,
    /// What the statement would prove is proven already.
    pub proven: bool,
    pub reasons: Vec<Reason>,
    pub notes: Vec<String>,
    /// The table whose rows it copies into what the script makes.
    pub copies: Option<Oid>,
    /// The statement whose steps do it, too.
    pub with: Option<i32>,
}

impl Seen {
    pub fn of_new() -> Seen {
        Seen {
            new: true,
            notes: vec![
                "works on what the script makes: it is empty, and nobody uses it yet".into(),
            ],
            ..Seen::default()
        }
    }
}

/// What an ALTER TABLE did to an empty copy of its table.
pub(super) fn seen(alter: &AlterTable, outcome: &Outcome, has_dependents: bool) -> Seen {
    let mut seen = Seen {
        rewrites: outcome.changed.iter().any(|c| c == "table"),
        scans: outcome.rewrites,
        ..Seen::default()
    };
    for retyping in &outcome.retypings {
        seen.notes.push(of_type(retyping, &outcome.changed));
        if outcome.rewrites && retyping.narrows {
            seen.reasons.push(Reason::NarrowingCast);
        }
    }
    let adds = |generated: bool| {
        alter
            .commands
            .iter()
            .find(|c| c.action == Action::AddColumn && c.has_expression == generated)
    };
    if let Some(column) = adds(true).and_then(|c| c.column.as_ref()) {
        if seen.rewrites && outcome.retypings.is_empty() {
            seen.reasons.push(Reason::VolatileDefault);
            seen.notes.push(format!(
                "the value of {column} is computed for each row, so every row is written again"
            ));
        } else if !seen.rewrites {
            seen.notes.push(format!(
                "the default of {column} is a constant: it is kept in the catalog, no row is touched"
            ));
        }
    }
    if has_dependents {
        seen.reasons.push(Reason::DependentObjects);
        seen.notes.push(
            "plain ALTER refuses while views or the like use the column; the swap takes them away and puts them back"
                .into(),
        );
    }
    seen
}

fn of_type(retyping: &Retyping, changed: &[String]) -> String {
    let Retyping {
        column,
        from,
        to,
        cast,
        has_using,
        narrows,
    } = retyping;
    let what = format!("{column}: {from} → {to}");
    if changed.is_empty() {
        return match from == to {
            true => format!("{what} changes nothing that is stored"),
            false => format!("{what} is stored the same way, no row is read"),
        };
    }
    if !changed.iter().any(|c| c == "table") {
        return format!(
            "{what} leaves the rows alone, but {} must be built or checked again",
            changed.join(", ")
        );
    }
    match cast.as_str() {
        _ if *has_using => format!("{what}: USING is not a plain cast, so every row is computed"),
        "same" if *narrows => format!("{what} must check every row, and writes it again"),
        "same" => format!("{what} stores every value anew"),
        "io" => format!("{what} goes through text, row by row"),
        "binary" => format!("{what} is stored the same way, but a constraint or domain must be checked on every row"),
        _ => format!("{what} is stored differently, so every row is written again"),
    }
}
