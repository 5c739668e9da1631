// SPDX-License-Identifier: Apache-2.0
//! What goes into the server's log: text for people, or one JSON object a line (`transmute.log_format`).

use crate::guc;
use serde_json::{json, Value};

/// Something that happened: its name and facts for programs, the same as text for people.
pub fn event(name: &str, facts: Value, text: impl FnOnce() -> String) {
    if !guc::logs_json() {
        pgrx::log!("transmute: {}", text());
        return;
    }
    let mut line = json!({ "source": "transmute", "event": name });
    if let (Some(line), Value::Object(facts)) = (line.as_object_mut(), facts) {
        line.extend(facts.into_iter().filter(|(_, value)| !value.is_null()));
    }
    pgrx::log!("{line}");
}

/// A remark, with no more to it than its text.
pub fn message(text: String) {
    event("message", json!({ "message": text }), || text.clone());
}

/// What an event of the audit trail, which is a line of the JSON log by itself, says to people.
pub fn in_words(text: impl FnOnce() -> String) {
    if !guc::logs_json() {
        pgrx::log!("transmute: {}", text());
    }
}

/// What whoever sits here should hear of, and, from a process of ours, whoever reads the log.
pub fn warning(text: &str) {
    match guc::logs_json() {
        false => pgrx::warning!("{text}"),
        true => pgrx::notice!("{text}"),
    }
}
