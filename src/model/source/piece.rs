//! A migration of a text, of which all directives are read.

use super::{end_section, fault, Draft, Fault, Part, Piece, Span, MAX_ID_BYTES};
use crate::model::place::Place;

/// The migration between its first byte and `end`.
pub fn finish(
    text: &str,
    words: &[Span],
    draft: &mut Draft<'_>,
    end: usize,
) -> Result<Piece, Fault> {
    end_section(Some(draft), end);
    let within = |span: Span| {
        words
            .iter()
            .filter(move |w| w.start >= span.start && w.start < span.end)
    };
    let head = Span {
        start: draft.start,
        end: draft.sections.first().map_or(end, |s| s.span.start),
    };
    if let Some(word) = within(head).next() {
        return Err(fault(
            text,
            word.start,
            "a statement stands in no section",
            format!("It begins with \"{}\".", &text[word.start..word.end]),
            "Put \"-- migrate: up\" on a line before it.",
        ));
    }
    let Some(id) = draft.id.map(|(id, _)| id).or(draft.name) else {
        return Err(fault(
            text,
            draft.start,
            "the migration has no id",
            "There is neither \"-- id:\" nor \"-- migration:\".".into(),
            "transmute.create(name) makes the head of a migration.",
        ));
    };
    if id.len() > MAX_ID_BYTES || id.chars().any(char::is_control) {
        return Err(fault(
            text,
            draft.start,
            "the id is not one",
            format!(
                "The name, which is the id, has {} bytes, or a control character.",
                id.len()
            ),
            "Add \"-- id:\"; transmute.create(name) makes one.",
        ));
    }
    let mut parts: Vec<(&str, Option<Part>)> = Vec::new();
    for section in &draft.sections {
        let span = section.span;
        let empty = within(span).all(|w| &text[w.start..w.end] == ";");
        // What starts a section stands before it; the fault is there.
        let marker = text[..span.start]
            .trim_end_matches(['\n', '\r'])
            .rfind("--")
            .unwrap_or(span.start);
        if empty && section.kind != "down" {
            return Err(fault(
                text,
                marker,
                "a section holds no statement",
                format!(
                    "\"-- migrate: {}\" has nothing but blanks and comments.",
                    section.kind
                ),
                "Write the statements, or leave the section out.",
            ));
        }
        let inside: Vec<Span> = within(span).copied().collect();
        if let Some(at) = transaction_control(text, &inside) {
            return Err(fault(text, at.start, "the section begins or ends a transaction", format!("It has {}.", text[at.start..at.end].to_uppercase()), "Leave it out: every migration has its transaction; \"-- migrate: no-transaction\" if it must have none."));
        }
        let part = Part {
            sql: text[span.start..span.end].to_string(),
            line: text[..span.start].matches('\n').count() + 1,
        };
        parts.push((section.kind, (!empty).then_some(part)));
    }
    let mut take = |kind: &str| {
        parts
            .iter_mut()
            .find(|p| p.0 == kind)
            .and_then(|p| p.1.take())
    };
    let piece = Piece {
        text: text[draft.start..end].to_string(),
        id: id.to_string(),
        name: draft.name.map(str::to_string),
        depends_on: draft
            .depends
            .map(|d| d.split(',').map(|id| id.trim().to_string()).collect())
            .unwrap_or_default(),
        version: draft.version.map(|(a, b)| (a.to_string(), b.to_string())),
        soak: draft.soak.map(|(soak, at)| {
            let place = Place::of(text, text[..at].chars().count());
            (soak.to_string(), place)
        }),
        no_transaction: draft.no_transaction,
        up: take("up"),
        down: take("down"),
        expand: take("expand"),
        backfill: take("backfill"),
        contract: take("contract"),
    };
    let phases = piece.expand.is_some() || piece.backfill.is_some() || piece.contract.is_some();
    if phases && piece.backfill.is_none() {
        return Err(fault(
            text,
            draft.start,
            "there is no backfill section",
            "Hand-written phases have a batch.".into(),
            "Add \"-- migrate: backfill\"; or use \"-- migrate: up\".",
        ));
    }
    if phases && piece.no_transaction {
        return Err(fault(
            text,
            draft.start,
            "phases run in transactions",
            "The migration has phases and \"-- migrate: no-transaction\".".into(),
            "Leave one of them out.",
        ));
    }
    if !phases && piece.up.is_none() {
        return Err(fault(
            text,
            draft.start,
            "there is no up section",
            format!("Migration \"{id}\" does nothing."),
            "Put \"-- migrate: up\" on a line before its statements.",
        ));
    }
    Ok(piece)
}

/// The first word of the first statement that begins or ends a transaction; bodies of BEGIN ATOMIC hold none.
fn transaction_control(text: &str, words: &[Span]) -> Option<Span> {
    let word = |i: usize| {
        words
            .get(i)
            .map_or(String::new(), |w| text[w.start..w.end].to_ascii_lowercase())
    };
    let mut depth = 0usize;
    let mut first = true;
    for (i, span) in words.iter().enumerate() {
        let this = word(i);
        match this.as_str() {
            ";" => {
                first = depth == 0;
                continue;
            }
            "begin" if word(i + 1) == "atomic" => depth += 1,
            "case" if depth > 0 => depth += 1,
            "end" if depth > 0 => depth -= 1,
            "begin" | "commit" | "rollback" | "abort" | "end" | "savepoint" if first => {
                return Some(*span)
            }
            "start" | "prepare" if first && word(i + 1) == "transaction" => return Some(*span),
            "release" if first => return Some(*span),
            _ => {}
        }
        first = false;
    }
    None
}
