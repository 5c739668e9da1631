//! What a person says about a migration when registering it. Every key is acted on or shown; an unknown one is an error,
//! because a misspelt `required_approvals` must not mean "none".

use super::invariant::{self, Invariant};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Metadata of a migration. Absent keys and JSON nulls are the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Meta {
    /// A title for people; the id is shown where it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Version of the schema that the migration starts from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_version: Option<String>,
    /// Version of the schema that it leads to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_version: Option<String>,
    /// Ids of migrations that must be finished first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<String>,
    /// Whether a person has to call `resume` before the migration is ready to be finalized.
    #[serde(skip_serializing_if = "is_false")]
    pub requires_external_action: bool,
    /// An interval in the server's syntax, shown next to the server's own estimate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub estimated_duration: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner_team: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub primary_owner: Option<String>,
    /// Where the runbook is; shown with every error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runbook_ref: Option<String>,
    /// Whom to call when the runbook does not help.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub escalation_ref: Option<String>,
    /// An interval in the server's syntax; instead of the setting `transmute.pre_execution_soak`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pre_execution_soak: Option<String>,
    /// An interval in the server's syntax; instead of the setting `transmute.pre_finalization_soak`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pre_finalization_soak: Option<String>,
    /// An interval: the soak ends when the old shape has been unused for so long, not before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub soak_until_unused: Option<String>,
    /// Instead of the setting `transmute.required_approvals`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub required_approvals: Option<u32>,
    /// An interval in the server's syntax; instead of the setting `transmute.keep_artifacts`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_artifacts: Option<String>,
    /// An interval in the server's syntax: that long after the end the old rows follow the new ones, and `undo` goes back
    /// to them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_old: Option<String>,
    /// Who writes which shape between RUNNING and FINISHING, for applications that ask `transmute.routing`; `BOTH` where it
    /// is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write_strategy: Option<String>,
    /// What `CUSTOM` means, in words that the application knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write_rule: Option<String>,
    /// The schema in which the release that comes with the migration finds its views.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub versioned_views: Option<String>,
    /// The schema in which the release before it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub versioned_views_before: Option<String>,
    /// Versions whose views are dropped at the end.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub drop_versions: Vec<String>,
    /// Whether columns of other tables that refer to a key that is retyped are retyped with it; yes where it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub include_referencing: Option<bool>,
    /// `both` (the default): old and new name work side by side until the end; `in_place`: the plain rename.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rename: Option<String>,
    /// `soft_drop` (the default): hidden, and dropped after `keep_artifacts`; `drop`: dropped at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drop_policy: Option<String>,
    /// Rows of one hand-written batch; 1000 where it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_size: Option<u32>,
    /// What becomes of a row of a copy that the target has already: `error`, it is refused; `skip`, it is left out. Absent:
    /// `skip` where the target is a foreign table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_conflict: Option<String>,
    /// Hand-written phases are run twice when they are registered, and undone: `strict`: the second time must change nothing;
    /// `best_effort` (the default): what it changes is a warning; `manual_exception`: they are not tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idempotency_mode: Option<String>,
    /// Instead of the setting `transmute.max_dead_letters`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_dead_letters: Option<u32>,
    /// How data statements run: `batched` where they can (as without it), or `single`, each in one transaction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// What keeps old and new columns equal: `rule` (the server), `trigger`, or `none`: new columns are filled once. Where it
    /// is absent the recipe chooses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dual_write: Option<String>,
    /// What an old column is, from the new ones: its name, or `table.column`, and an expression.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub reverse: BTreeMap<String, String>,
    /// What becomes of a statement of the application that writes a row which the rule fails on: `fail` (the default), or
    /// `dead_letter`: it goes on, and the row is set aside.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_write_error: Option<String>,
    /// ADD EXCLUDE: `refuse` (as without it), or `rewrite`, by a copy of the table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exclude: Option<String>,
    /// What must hold on the way.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub invariants: Vec<Invariant>,
}

fn is_false(flag: &bool) -> bool {
    !flag
}

/// What is wrong with metadata, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct MetaError {
    /// The place, from the root: `meta.depends_on[1]`.
    pub path: String,
    pub message: String,
    /// What would be right.
    pub hint: String,
}

/// What a key holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A text that is not empty.
    Text,
    /// A text that the server will read as an interval; not empty.
    Interval,
    /// A list of different texts, none of them empty.
    Texts,
    Flag,
    /// A whole number from 0 to 2^32 - 1.
    Count,
    /// Texts, each under a name; none of them empty.
    TextByName,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A list of objects, as `invariant::check` says.
    Invariants,
}

/// Every key of [`Meta`], in its order.
const KEYS: &[(&str, Kind)] = &[
    ("name", Kind::Text),
    ("description", Kind::Text),
    ("source_version", Kind::Text),
    ("target_version", Kind::Text),
    ("depends_on", Kind::Texts),
    ("requires_external_action", Kind::Flag),
    ("estimated_duration", Kind::Interval),
    ("owner_team", Kind::Text),
    ("primary_owner", Kind::Text),
    ("runbook_ref", Kind::Text),
    ("escalation_ref", Kind::Text),
    ("pre_execution_soak", Kind::Interval),
    ("pre_finalization_soak", Kind::Interval),
    ("soak_until_unused", Kind::Interval),
    ("required_approvals", Kind::Count),
    ("keep_artifacts", Kind::Interval),
    ("keep_old", Kind::Interval),
    (
        "write_strategy",
        Kind::Choice(&["BOTH", "OLD_ONLY", "NEW_ONLY", "CUSTOM"]),
    ),
    ("write_rule", Kind::Text),
    ("versioned_views", Kind::Text),
    ("versioned_views_before", Kind::Text),
    ("drop_versions", Kind::Texts),
    ("include_referencing", Kind::Flag),
    ("rename", Kind::Choice(&["both", "in_place"])),
    ("drop_policy", Kind::Choice(&["soft_drop", "drop"])),
    ("batch_size", Kind::Count),
    ("on_conflict", Kind::Choice(&["error", "skip"])),
    (
        "idempotency_mode",
        Kind::Choice(&["strict", "best_effort", "manual_exception"]),
    ),
    ("max_dead_letters", Kind::Count),
    ("data", Kind::Choice(&["batched", "single"])),
    ("dual_write", Kind::Choice(&["rule", "trigger", "none"])),
    ("reverse", Kind::TextByName),
    ("on_write_error", Kind::Choice(&["fail", "dead_letter"])),
    ("exclude", Kind::Choice(&["refuse", "rewrite"])),
    ("invariants", Kind::Invariants),
];

/// Reads metadata.
///
/// # Errors
/// The first thing that is wrong, with its path: not an object, an unknown key, a value of the wrong kind, an empty text,
/// a dependency named twice.
pub fn parse(json: &Value) -> Result<Meta, MetaError> {
    let object = json.as_object().ok_or_else(|| {
        wrong_kind(
            "meta".into(),
            json,
            "an object, for example {\"name\": \"a title\"}",
        )
    })?;
    let mut given = Map::new();
    for (key, value) in object.iter().filter(|(_, value)| !value.is_null()) {
        let kind = kind_of(key).ok_or_else(|| unknown_key(key))?;
        check(&format!("meta.{key}"), kind, value)?;
        given.insert(key.clone(), value.clone());
    }
    let meta: Meta = serde_json::from_value(Value::Object(given)).map_err(|error| MetaError {
        path: "meta".into(),
        message: error.to_string(),
        hint: String::new(),
    })?;
    check_routing(&meta)?;
    Ok(meta)
}

/// `CUSTOM` and its rule go together.
fn check_routing(meta: &Meta) -> Result<(), MetaError> {
    let custom = meta.write_strategy.as_deref() == Some("CUSTOM");
    match (custom, meta.write_rule.is_some()) {
        (true, false) => Err(MetaError {
            path: "meta.write_rule".into(),
            message: "is missing, and meta.write_strategy is \"CUSTOM\"".into(),
            hint: "Say in words that the application knows what it writes where.".into(),
        }),
        (false, true) => Err(MetaError {
            path: "meta.write_rule".into(),
            message: "is about meta.write_strategy \"CUSTOM\" only".into(),
            hint: "Leave it out, or give \"write_strategy\": \"CUSTOM\".".into(),
        }),
        _ => Ok(()),
    }
}

fn kind_of(key: &str) -> Option<Kind> {
    KEYS.iter()
        .find(|known| known.0 == key)
        .map(|known| known.1)
}

fn check(path: &str, kind: Kind, value: &Value) -> Result<(), MetaError> {
    let wrong = |wanted: &str| Err(wrong_kind(path.to_owned(), value, wanted));
    match (kind, value) {
        (Kind::Text | Kind::Interval, Value::String(text)) if text.trim().is_empty() => {
            Err(MetaError {
                path: path.to_owned(),
                message: "must not be empty".into(),
                hint: "Leave the key out where there is nothing to say.".into(),
            })
        }
        (Kind::Text | Kind::Interval, Value::String(_)) | (Kind::Flag, Value::Bool(_)) => Ok(()),
        (Kind::Texts, Value::Array(items)) => check_items(path, items),
        (Kind::Invariants, value) => invariant::check(path, value),
        (Kind::Count, Value::Number(number))
            if number.as_u64().is_some_and(|n| u32::try_from(n).is_ok()) =>
        {
            Ok(())
        }
        (Kind::TextByName, Value::Object(texts)) => texts
            .iter()
            .try_for_each(|(name, text)| check(&format!("{path}.{name}"), Kind::Text, text)),
        (Kind::Choice(words), Value::String(text)) => match words.contains(&text.as_str()) {
            true => Ok(()),
            false => Err(MetaError {
                path: path.to_owned(),
                message: format!("\"{text}\" is not one of the choices"),
                hint: format!("Give one of: {}.", words.join(", ")),
            }),
        },
        (Kind::Choice(words), _) => wrong(&format!("one of: {}", words.join(", "))),
        (Kind::Text, _) => wrong("a text"),
        (Kind::Interval, _) => wrong("an interval as a text, for example \"4 days\""),
        (Kind::Texts, _) => wrong("a list of texts, for example [\"another-migration\"]"),
        (Kind::TextByName, _) => {
            wrong("texts by the names of columns, for example {\"name\": \"first || ' ' || last\"}")
        }
        (Kind::Flag, _) => wrong("true or false"),
        (Kind::Count, _) => wrong("a whole number, 0 or more"),
    }
}

fn check_items(path: &str, items: &[Value]) -> Result<(), MetaError> {
    for (index, item) in items.iter().enumerate() {
        let path = format!("{path}[{index}]");
        check(&path, Kind::Text, item)?;
        if items[..index].contains(item) {
            return Err(MetaError {
                path,
                message: format!("{item} is named twice"),
                hint: "Name each migration once.".into(),
            });
        }
    }
    Ok(())
}

pub fn wrong_kind(path: String, value: &Value, wanted: &str) -> MetaError {
    let found = match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(number) if number.is_f64() => "a number with a fraction",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    };
    MetaError {
        path,
        message: format!("{found} is not what is expected here"),
        hint: format!("Give {wanted}."),
    }
}

fn unknown_key(key: &str) -> MetaError {
    let hint = match nearest(key) {
        Some(known) => format!("Perhaps you meant \"{known}\"."),
        None => format!("Known keys: {}.", known_keys()),
    };
    MetaError {
        path: format!("meta.{key}"),
        message: "is not a known key".into(),
        hint,
    }
}

fn known_keys() -> String {
    KEYS.iter()
        .map(|known| known.0)
        .collect::<Vec<_>>()
        .join(", ")
}

/// The known key that is most like `key` where one is like it at all: at most a third of its letters differ, whatever the
/// case and the separators.
fn nearest(key: &str) -> Option<&'static str> {
    let wanted = letters(key);
    KEYS.iter()
        .map(|known| (distance(&wanted, &letters(known.0)), known.0))
        .min()
        .filter(|(distance, known)| *distance * 3 <= known.len())
        .map(|(_, known)| known)
}

fn letters(key: &str) -> Vec<char> {
    key.chars()
        .filter(|c| c.is_alphanumeric())
        .flat_map(char::to_lowercase)
        .collect()
}

/// Levenshtein distance, by the two-row form of Wagner and Fischer's algorithm (1974).
fn distance(a: &[char], b: &[char]) -> usize {
    let mut previous: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut current = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let replaced = previous[j] + usize::from(x != y);
            current.push(replaced.min(previous[j + 1] + 1).min(current[j] + 1));
        }
        previous = current;
    }
    previous[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn error(value: Value) -> (String, String, String) {
        let error = parse(&value).unwrap_err();
        (error.path, error.message, error.hint)
    }

    fn full() -> Value {
        json!({
            "name": "ids to bigint", "description": "d", "source_version": "1.0.0", "target_version": "1.1.0",
            "depends_on": ["a", "b"], "requires_external_action": true, "estimated_duration": "2 hours",
            "owner_team": "payments", "primary_owner": "ann", "runbook_ref": "r", "escalation_ref": "e",
            "pre_execution_soak": "1 day", "pre_finalization_soak": "0", "required_approvals": 2,
            "keep_artifacts": "30 days", "keep_old": "2 days", "write_strategy": "CUSTOM", "write_rule": "by tenant",
            "versioned_views": "v2", "versioned_views_before": "v1", "drop_versions": ["v0"], "rename": "in_place", "drop_policy": "drop",
            "batch_size": 50, "on_conflict": "skip", "idempotency_mode": "strict", "max_dead_letters": 7, "data": "single", "include_referencing": false, "exclude": "rewrite", "soak_until_unused": "1 day",
            "invariants": [{"name": "n", "phase": "PRE_RUN", "sql": "SELECT true", "timeout": "5 s"}],
            "dual_write": "trigger", "reverse": {"name": "first || last"}, "on_write_error": "dead_letter"
        })
    }

    #[test]
    fn every_key_is_read_and_written_back() {
        let meta = parse(&full()).unwrap();
        assert_eq!(serde_json::to_value(&meta).unwrap(), full());
        assert_eq!(meta.depends_on, ["a", "b"]);
        assert_eq!(meta.required_approvals, Some(2));
    }

    #[test]
    fn the_key_list_is_that_of_the_struct() {
        let written = full();
        let mut known: Vec<_> = KEYS.iter().map(|known| known.0).collect();
        known.sort_unstable();
        let mut keys: Vec<_> = written
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        keys.sort_unstable();
        assert_eq!(known, keys);
    }

    #[test]
    fn nothing_said_is_the_default_and_null_says_nothing() {
        assert_eq!(parse(&json!({})).unwrap(), Meta::default());
        assert_eq!(
            parse(&json!({"name": null, "depends_on": null})).unwrap(),
            Meta::default()
        );
        assert_eq!(serde_json::to_value(Meta::default()).unwrap(), json!({}));
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_nearest_known_one() {
        for (key, known) in [
            ("dependsOn", "depends_on"),
            ("depend_on", "depends_on"),
            ("required-approvals", "required_approvals"),
            ("required_aprovals", "required_approvals"),
            ("soak_pre_finalization", ""),
            ("Name", "name"),
            ("xyz", ""),
        ] {
            let (path, message, hint) = error(json!({ key: 1 }));
            assert_eq!(
                (path, message.as_str()),
                (format!("meta.{key}"), "is not a known key")
            );
            if known.is_empty() {
                assert!(hint.starts_with("Known keys: name, description,"), "{hint}");
            } else {
                assert_eq!(hint, format!("Perhaps you meant \"{known}\"."));
            }
        }
    }

    #[test]
    fn values_of_the_wrong_kind_are_refused_with_their_place() {
        let cases = [
            (json!([]), "meta"),
            (json!("x"), "meta"),
            (json!({"name": 5}), "meta.name"),
            (json!({"name": " "}), "meta.name"),
            (json!({"pre_execution_soak": 4}), "meta.pre_execution_soak"),
            (
                json!({"requires_external_action": "yes"}),
                "meta.requires_external_action",
            ),
            (json!({"rename": "sideways"}), "meta.rename"),
            (json!({"drop_policy": true}), "meta.drop_policy"),
            (json!({"required_approvals": -1}), "meta.required_approvals"),
            (
                json!({"required_approvals": 1.5}),
                "meta.required_approvals",
            ),
            (
                json!({"required_approvals": 4_294_967_296_u64}),
                "meta.required_approvals",
            ),
            (json!({"dual_write": "both"}), "meta.dual_write"),
            (json!({"reverse": "first"}), "meta.reverse"),
            (json!({"reverse": {"name": 1}}), "meta.reverse.name"),
            (json!({"reverse": {"name": " "}}), "meta.reverse.name"),
            (json!({"on_write_error": "stop"}), "meta.on_write_error"),
            (json!({"depends_on": "a"}), "meta.depends_on"),
            (json!({"data": "often"}), "meta.data"),
            (json!({"data": true}), "meta.data"),
            (json!({"write_strategy": "both"}), "meta.write_strategy"),
            (json!({"write_strategy": 1}), "meta.write_strategy"),
            (json!({"write_strategy": "CUSTOM"}), "meta.write_rule"),
            (json!({"write_rule": "x"}), "meta.write_rule"),
            (
                json!({"write_strategy": "CUSTOM", "write_rule": ""}),
                "meta.write_rule",
            ),
            (json!({"versioned_views": ["v2"]}), "meta.versioned_views"),
            (
                json!({"drop_versions": ["a", "a"]}),
                "meta.drop_versions[1]",
            ),
            (json!({"depends_on": ["a", 2]}), "meta.depends_on[1]"),
            (json!({"depends_on": ["a", null]}), "meta.depends_on[1]"),
            (json!({"depends_on": ["a", "b", "a"]}), "meta.depends_on[2]"),
        ];
        for (value, place) in cases {
            let (path, _, hint) = error(value.clone());
            assert_eq!(path, place, "{value}");
            assert!(hint.ends_with('.'), "{value}: {hint}");
        }
        assert_eq!(
            parse(&json!({"depends_on": ["a", 2]}))
                .unwrap_err()
                .to_string(),
            "meta.depends_on[1]: a number is not what is expected here"
        );
    }

    proptest! {
        #[test]
        fn what_the_check_accepts_serde_accepts(key in proptest::sample::select(KEYS), value in prop_oneof![
            Just(json!(null)), any::<bool>().prop_map(Value::from), any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from), "\\PC{0,3}".prop_map(Value::from),
            proptest::collection::vec("[ab]{0,2}", 0..3).prop_map(Value::from),
        ]) {
            if let Err(error) = parse(&json!({ key.0: value })) {
                prop_assert!(error.path.starts_with(&format!("meta.{}", key.0)), "{}", error);
            }
        }

        #[test]
        fn distance_is_a_metric(a in "[ab]{0,6}", b in "[ab]{0,6}", c in "[ab]{0,6}") {
            let d = |x: &str, y: &str| distance(&letters(x), &letters(y));
            prop_assert_eq!(d(&a, &b), d(&b, &a));
            prop_assert_eq!(d(&a, &b) == 0, a == b);
            prop_assert!(d(&a, &c) <= d(&a, &b) + d(&b, &c));
        }
    }
}
