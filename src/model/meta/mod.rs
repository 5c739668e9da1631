//! What a person says about a migration when registering it. Every key is acted on or shown; an unknown one is an error,
//! because a misspelt `required_approvals` must not mean "none".
//!
//! A new key is one line of [`keys!`], with what it holds ([`Kind`]), and one row of `docs/settings.md`.

mod kind;

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::invariant::{self, Invariant};
use super::nearest::nearest;
use super::version;
pub use kind::wrong_kind;
pub use kind::Kind;

/// Makes the struct and the list of its keys: `name: type = kind;`. The default of the type means that the key was not given.
macro_rules! keys {
    ($($(#[$doc:meta])* $key:ident: $type:ty = $kind:expr;)*) => {
        /// Metadata of a migration. Absent keys and JSON nulls are the same.
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct Meta {
            $($(#[$doc])* #[serde(skip_serializing_if = "is_absent")] pub $key: $type,)*
        }

        /// Every key of [`Meta`], in its order.
        const KEYS: &[(&str, Kind)] = &[$((stringify!($key), $kind)),*];
    };
}

keys! {
    /// A title for people; the id is shown where it is absent.
    name: Option<String> = Kind::Text;
    description: Option<String> = Kind::Text;
    /// Version of the schema as the owner's own tools count it.
    schema_version: Option<String> = Kind::Version;
    /// Release that the migration starts from.
    source_version: Option<String> = Kind::Version;
    /// Release that it leads to.
    target_version: Option<String> = Kind::Version;
    /// `online` (the default): the planner chooses the steps; `direct`: the script as written.
    mode: Option<String> = Kind::Choice(&["online", "direct"]);
    /// A script as written: `one` transaction (the default), or `none`: its statements one by one.
    transaction: Option<String> = Kind::Choice(&["one", "none"]);
    /// Ids of migrations that must be finished first.
    depends_on: Vec<String> = Kind::Texts;
    /// Whether a person has to confirm something outside of the database before the migration is ready to be finalized.
    requires_external_action: bool = Kind::Flag;
    /// Shown next to the server's own estimate.
    estimated_duration: Option<String> = Kind::Interval;
    owner_team: Option<String> = Kind::Text;
    primary_owner: Option<String> = Kind::Text;
    /// Where the runbook is.
    runbook_ref: Option<String> = Kind::Text;
    /// Whom to call when the runbook does not help.
    escalation_ref: Option<String> = Kind::Text;
    /// Instead of the setting `transmute.pre_execution_soak`.
    pre_execution_soak: Option<String> = Kind::Interval;
    /// Instead of the setting `transmute.pre_finalization_soak`.
    pre_finalization_soak: Option<String> = Kind::Interval;
    /// The soak ends when the old shape has been unused for so long, not before.
    soak_until_unused: Option<String> = Kind::Interval;
    /// Instead of the setting `transmute.required_approvals`.
    required_approvals: Option<u32> = Kind::Count(MAX_APPROVALS);
    /// Instead of the setting `transmute.keep_artifacts`.
    keep_artifacts: Option<String> = Kind::Interval;
    /// That long after the end the old rows follow the new ones, and `undo` goes back to them.
    keep_old: Option<String> = Kind::Interval;
    /// Who writes which shape between RUNNING and FINISHING, for applications that ask `transmute.routing`; `BOTH` where it
    /// is absent.
    write_strategy: Option<String> = Kind::Choice(&["BOTH", "OLD_ONLY", "CUSTOM", "NEW_ONLY"]);
    /// What `CUSTOM` means, in words that the application knows.
    write_rule: Option<String> = Kind::Text;
    /// The schema in which the release that comes with the migration finds its views.
    versioned_views: Option<String> = Kind::Text;
    /// The schema in which the release before it does.
    versioned_views_before: Option<String> = Kind::Text;
    /// Versions whose views are dropped at the end.
    drop_versions: Vec<String> = Kind::Texts;
    /// Whether columns of other tables that refer to a key that is retyped are retyped with it; yes where it is absent.
    include_referencing: Option<bool> = Kind::Flag;
    /// `both` (the default): old and new name work side by side until the end; `in_place`: the plain rename.
    rename: Option<String> = Kind::Choice(&["both", "in_place"]);
    /// `soft_drop` (the default): hidden, and dropped after `keep_artifacts`; `drop`: dropped at once.
    drop_policy: Option<String> = Kind::Choice(&["soft_drop", "drop"]);
    /// How data statements run: `batched` where they can (as without it), or `single`, each in one transaction.
    data: Option<String> = Kind::Choice(&["batched", "single"]);
    /// Rows of one hand-written batch; 1000 where it is absent.
    batch_size: Option<u32> = Kind::Count(u32::MAX);
    /// What becomes of a row of a copy that the target has already: `error`, it is refused; `skip`, it is left out. Absent:
    /// `skip` where the target is a foreign table.
    on_conflict: Option<String> = Kind::Choice(&["error", "skip"]);
    /// Hand-written phases are run twice when they are registered, and undone: `strict`: the second time must change nothing;
    /// `best_effort` (the default): what it changes is a warning; `manual_exception`: they are not tried.
    idempotency_mode: Option<String> = Kind::Choice(&["strict", "best_effort", "manual_exception"]);
    /// Instead of the setting `transmute.max_dead_letters`.
    max_dead_letters: Option<u32> = Kind::Count(u32::MAX);
    /// ADD EXCLUDE: `refuse` (as without it), or `rewrite`, by a copy of the table.
    exclude: Option<String> = Kind::Choice(&["refuse", "rewrite"]);
    /// What keeps old and new columns equal: `rule` (the server), `trigger`, or `none`: new columns are filled once. Where it
    /// is absent the recipe chooses.
    dual_write: Option<String> = Kind::Choice(&["rule", "trigger", "none"]);
    /// What an old column is, from the new ones: its name, or `table.column`, and an expression.
    reverse: BTreeMap<String, String> = Kind::TextByName;
    /// What becomes of a statement of the application that writes a row which the rule fails on: `fail` (the default), or
    /// `dead_letter`: it goes on, and the row is set aside.
    on_write_error: Option<String> = Kind::Choice(&["fail", "dead_letter"]);
    /// What must hold on the way.
    invariants: Vec<Invariant> = Kind::Own(
        invariant::check,
        r#"[{"name": "n", "phase": "PRE_RUN", "sql": "SELECT true", "timeout": "5 s"}]"#,
    );
}

impl Meta {
    /// Whether the script runs as it is written, instead of by the steps that the planner chooses.
    pub fn is_direct(&self) -> bool {
        self.mode.as_deref() == Some("direct") || self.is_one_by_one()
    }

    /// Whether its statements run one by one, each for itself.
    pub fn is_one_by_one(&self) -> bool {
        self.transaction.as_deref() == Some("none")
    }
}

/// As transmute.required_approvals.
const MAX_APPROVALS: u32 = 100;

fn is_absent<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
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

/// Reads metadata.
///
/// # Errors
/// The first thing that is wrong, with its path: not an object, an unknown key, a value of the wrong kind, an empty text,
/// a dependency named twice, a version that leads to no higher one.
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
        kind.check(&format!("meta.{key}"), value)?;
        given.insert(key.clone(), value.clone());
    }
    let meta: Meta = serde_json::from_value(Value::Object(given)).map_err(|error| MetaError {
        path: "meta".into(),
        message: error.to_string(),
        hint: String::new(),
    })?;
    check_versions(&meta)?;
    Ok(meta)
}

/// A migration leads from one release to a higher one.
fn check_versions(meta: &Meta) -> Result<(), MetaError> {
    let (Some(source), Some(target)) = (&meta.source_version, &meta.target_version) else {
        return Ok(());
    };
    match (version::parse(source), version::parse(target)) {
        (Ok(from), Ok(to)) if version::order(&from, &to) != Ordering::Less => Err(MetaError {
            path: "meta.target_version".into(),
            message: format!("{target} is not higher than meta.source_version, {source}"),
            hint: "Give the release that the migration leads to.".into(),
        }),
        _ => Ok(()),
    }
}

/// `CUSTOM` and its rule go together.
///
/// # Errors
/// One is there without the other.
pub fn check_routing(meta: &Meta) -> Result<(), MetaError> {
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

/// Path and text of every interval in metadata that was read: only the server knows what they mean.
pub fn intervals(meta: &Meta) -> Vec<(String, String)> {
    let json = serde_json::to_value(meta).unwrap_or_default();
    KEYS.iter()
        .filter(|(_, kind)| matches!(kind, Kind::Interval))
        .filter_map(|(key, _)| Some((format!("meta.{key}"), json.get(*key)?.as_str()?.to_owned())))
        .collect()
}

fn kind_of(key: &str) -> Option<Kind> {
    KEYS.iter()
        .find(|known| known.0 == key)
        .map(|known| known.1)
}

fn unknown_key(key: &str) -> MetaError {
    let known = || KEYS.iter().map(|known| known.0);
    let hint = match nearest(key, known()) {
        Some(known) => format!("Perhaps you meant \"{known}\"."),
        None => format!("Known keys: {}.", known().collect::<Vec<_>>().join(", ")),
    };
    MetaError {
        path: format!("meta.{key}"),
        message: "is not a known key".into(),
        hint,
    }
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

    #[test]
    fn every_key_takes_a_value_of_its_kind_and_writes_it_back() {
        for (key, kind) in KEYS {
            let given = json!({ *key: kind.sample() });
            let meta = parse(&given).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(serde_json::to_value(&meta).unwrap(), given);
            assert_ne!(meta, Meta::default());
        }
        assert_eq!(
            parse(&json!({"depends_on": ["a", "b"]}))
                .unwrap()
                .depends_on,
            ["a", "b"]
        );
    }

    #[test]
    fn every_key_is_documented() {
        let documented = include_str!("../../../docs/settings.md");
        let (_, keys) = documented.split_once("## Metadata").unwrap();
        for (key, _) in KEYS {
            assert!(keys.contains(&format!("`{key}`")), "{key}");
        }
    }

    #[test]
    fn nothing_said_is_the_default_and_null_says_nothing() {
        assert_eq!(parse(&json!({})).unwrap(), Meta::default());
        for (key, _) in KEYS {
            assert_eq!(parse(&json!({ *key: null })).unwrap(), Meta::default());
        }
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
            (json!({"dual_write": "both"}), "meta.dual_write"),
            (json!({"reverse": "first"}), "meta.reverse"),
            (json!({"reverse": {"name": 1}}), "meta.reverse.name"),
            (json!({"reverse": {"name": " "}}), "meta.reverse.name"),
            (json!({"on_write_error": "stop"}), "meta.on_write_error"),
            (json!({"required_approvals": -1}), "meta.required_approvals"),
            (
                json!({"required_approvals": 1.5}),
                "meta.required_approvals",
            ),
            (
                json!({"required_approvals": 101}),
                "meta.required_approvals",
            ),
            (
                json!({"required_approvals": 4_294_967_296_u64}),
                "meta.required_approvals",
            ),
            (json!({"source_version": "1.0"}), "meta.source_version"),
            (json!({"schema_version": "v1.0.0"}), "meta.schema_version"),
            (json!({"target_version": 1.0}), "meta.target_version"),
            (
                json!({"source_version": "1.0.0", "target_version": "1.0.0"}),
                "meta.target_version",
            ),
            (
                json!({"source_version": "1.10.0", "target_version": "1.9.0"}),
                "meta.target_version",
            ),
            (json!({"depends_on": "a"}), "meta.depends_on"),
            (json!({"data": "often"}), "meta.data"),
            (json!({"data": true}), "meta.data"),
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

    #[test]
    fn intervals_are_found_with_their_paths() {
        let meta = parse(&json!({"estimated_duration": "2 h", "name": "n"})).unwrap();
        assert_eq!(
            intervals(&meta),
            [("meta.estimated_duration".to_string(), "2 h".to_string())]
        );
    }

    fn key() -> impl Strategy<Value = &'static str> {
        (0..KEYS.len()).prop_map(|i| KEYS[i].0)
    }

    proptest! {
        #[test]
        fn what_the_check_accepts_serde_accepts(key in key(), value in prop_oneof![
            Just(json!(null)), any::<bool>().prop_map(Value::from), any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from), "\\PC{0,3}".prop_map(Value::from),
            proptest::collection::vec("[ab]{0,2}", 0..3).prop_map(Value::from),
        ]) {
            if let Err(error) = parse(&json!({ key: value })) {
                prop_assert!(error.path.starts_with(&format!("meta.{key}")), "{}", error);
            }
        }
    }
}
