//! Trust: the audit trail.

use super::look;
use crate::engine::untold;
use crate::error::{Error, Result};
use crate::model::audit::{self, Head, Verifier};
use crate::pg::identity;
use crate::pg::ErrorReport;
use crate::store::audit_event;
use pgrx::prelude::*;

/// Events read at a time: memory stays flat however long the trail is.
const PAGE: i64 = 1000;

struct Verified {
    ok: bool,
    head: Head,
    fault_seq: Option<i64>,
    fault: Option<String>,
    detail: String,
}

fn verify(from_seq: Option<i64>, expected: Option<&str>) -> Result<Verified> {
    let mut verifier = match from_seq {
        Some(seq) if seq > 1 => {
            let before = audit_event::head_at(seq - 1)?.ok_or_else(|| Error::UndefinedObject {
                problem: "there is no such audit event".into(),
                detail: format!("No event has seq {}.", seq - 1),
                hint: "SELECT min(seq), max(seq) FROM transmute.audit_events.".into(),
            })?;
            Verifier::after(before)
        }
        _ => Verifier::new(),
    };
    if let Some(text) = expected {
        let head: Head = text
            .parse()
            .map_err(|e: audit::NotAHead| Error::InvalidArgument {
                problem: "the expected head is not one".into(),
                detail: format!("{e}."),
                hint:
                    "Give it as SELECT transmute.audit_head() or the server log print it: SEQ:HEX."
                        .into(),
            })?;
        verifier = verifier.expecting(head);
    }
    let mut at = from_seq.map_or(0, |s| s.saturating_sub(1).max(0));
    loop {
        let page = audit_event::page(at, PAGE)?;
        for (record, prev, hash) in &page {
            crate::pg::xact::check_for_interrupts();
            at = record.seq;
            if let Err(fault) = verifier.push(record, prev, hash) {
                return failed(fault);
            }
        }
        if page.len() < PAGE as usize {
            break;
        }
    }
    if expected.is_some() {
        return match verifier.finish_expected() {
            Ok(head) => compared(passed(
                head,
                "verified up to the head, and the expected head is in it",
            )),
            Err(fault) => failed(fault),
        };
    }
    compared(passed(
        verifier.finish(),
        &format!(
            "verified up to this head; only a head kept elsewhere shows whether later events were removed{}",
            audit_event::origin()?.unwrap_or_default()
        ),
    ))
}

/// A whole chain, beside our tables: what was written into them by hand is nowhere in it.
fn compared(whole: Verified) -> Result<Verified> {
    Ok(match untold::first()? {
        None => whole,
        Some(found) => Verified {
            ok: false,
            fault: Some("tables_differ".into()),
            detail: format!(
                "the chain is whole, and does not tell what _transmute.{} holds: {}: {}",
                found.relation, found.row, found.problem
            ),
            ..whole
        },
    })
}

fn passed(head: Head, detail: &str) -> Verified {
    Verified {
        ok: true,
        head,
        fault_seq: None,
        fault: None,
        detail: detail.into(),
    }
}

fn failed(fault: audit::Fault) -> Result<Verified> {
    Ok(Verified {
        ok: false,
        head: audit_event::head()?.unwrap_or(Head::EMPTY),
        fault_seq: Some(fault.seq),
        fault: Some(fault.kind.to_string()),
        detail: fault.text,
    })
}

#[allow(clippy::type_complexity, reason = "a row type of pgrx")]
#[pg_extern(stable, parallel_unsafe)]
fn audit_verify(
    from_seq: default!(Option<i64>, "NULL"),
    expected_head: default!(Option<&str>, "NULL"),
) -> std::result::Result<
    TableIterator<
        'static,
        (
            name!(ok, bool),
            name!(events, i64),
            name!(head, String),
            name!(fault_seq, Option<i64>),
            name!(fault, Option<String>),
            name!(detail, String),
        ),
    >,
    ErrorReport,
> {
    let result = look(&identity::caller(), |_| verify(from_seq, expected_head))?;
    Ok(TableIterator::once((
        result.ok,
        result.head.seq,
        result.head.to_string(),
        result.fault_seq,
        result.fault,
        result.detail,
    )))
}

#[pg_extern(stable, parallel_unsafe)]
fn audit_head() -> std::result::Result<Option<String>, ErrorReport> {
    look(&identity::caller(), |_| {
        Ok(audit_event::head()?.map(|h| h.to_string()))
    })
}

#[pg_extern(stable, parallel_unsafe)]
fn audit_export(
    format: default!(Option<&str>, "'jsonl'"),
) -> std::result::Result<SetOfIterator<'static, String>, ErrorReport> {
    let lines = look(&identity::caller(), |_| {
        if format != Some("jsonl") {
            return Err(Error::InvalidArgument {
                problem: "unknown export format".into(),
                detail: format!("format is {}.", format.unwrap_or("NULL")),
                hint: "The format is 'jsonl': one JSON object a line.".into(),
            });
        }
        let mut lines = Vec::new();
        let mut at = 0;
        loop {
            let page = audit_event::page(at, PAGE)?;
            for (record, prev, hash) in &page {
                at = record.seq;
                lines.push(audit::export_line(record, prev, hash)?);
            }
            if page.len() < PAGE as usize {
                return Ok(lines);
            }
        }
    })?;
    Ok(SetOfIterator::new(lines))
}
