//! What a person has written to be run: a script, phases, or what is to be copied; as JSON, and read back with places of faults.

use serde_json::{json, Map, Value};

use super::digest::Canonical;
use super::meta::{wrong_kind, MetaError};
use super::nearest::nearest;

/// What a migration was registered with, beside its id and metadata.
#[derive(Clone, Debug, PartialEq)]
pub enum Written {
    Script { up: String, down: Option<String> },
    Phases(Phases),
    Copy(Copy),
}

/// Hand-written phases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Phases {
    pub schema_additions: String,
    pub migrate_batch: String,
    pub schema_drops: String,
    pub rollback: Option<String>,
}

/// What is copied where.
#[derive(Clone, Debug, PartialEq)]
pub struct Copy {
    pub source: String,
    pub target: String,
    pub key: Vec<String>,
    pub transform: Option<String>,
    pub pipeline: Option<Value>,
    pub rollback: Option<String>,
}

const PHASES: [&str; 4] = [
    "schema_additions",
    "migrate_batch",
    "schema_drops",
    "rollback",
];
const COPY: [&str; 6] = [
    "source",
    "target",
    "key",
    "transform",
    "pipeline",
    "rollback",
];

impl Phases {
    pub fn to_json(&self) -> Value {
        json!({
            "schema_additions": self.schema_additions, "migrate_batch": self.migrate_batch,
            "schema_drops": self.schema_drops, "rollback": self.rollback,
        })
    }

    /// Reads them; `path` is where they stand.
    ///
    /// # Errors
    /// The first place that is wrong.
    pub fn from_json(json: &Value, path: &str) -> Result<Phases, MetaError> {
        let of = Fields::new(json, path, &PHASES)?;
        Ok(Phases {
            schema_additions: of.text("schema_additions")?,
            migrate_batch: of.text("migrate_batch")?,
            schema_drops: of.text("schema_drops")?,
            rollback: of.optional("rollback")?,
        })
    }
}

impl Copy {
    pub fn to_json(&self) -> Value {
        json!({
            "source": self.source, "target": self.target, "key": self.key, "transform": self.transform,
            "pipeline": self.pipeline, "rollback": self.rollback,
        })
    }

    /// Reads one; `path` is where it stands.
    ///
    /// # Errors
    /// The first place that is wrong.
    pub fn from_json(json: &Value, path: &str) -> Result<Copy, MetaError> {
        let of = Fields::new(json, path, &COPY)?;
        Ok(Copy {
            source: of.text("source")?,
            target: of.text("target")?,
            key: of.texts("key")?,
            transform: of.optional("transform")?,
            pipeline: of.object.get("pipeline").filter(|p| !p.is_null()).cloned(),
            rollback: of.optional("rollback")?,
        })
    }
}

impl Written {
    /// The key of each in a document. A script has its parts there.
    pub fn to_json(&self, document: &mut Map<String, Value>) {
        match self {
            Self::Script { up, down } => {
                document.insert("up".into(), json!(up));
                document.insert("down".into(), json!(down));
            }
            Self::Phases(phases) => {
                document.insert("phases".into(), phases.to_json());
            }
            Self::Copy(copy) => {
                document.insert("copy".into(), copy.to_json());
            }
        }
    }

    /// Reads what a document holds of it: one of the three.
    ///
    /// # Errors
    /// The first place that is wrong.
    pub fn from_json(document: &Map<String, Value>, path: &str) -> Result<Written, MetaError> {
        let given: Vec<&str> = ["up", "phases", "copy"]
            .into_iter()
            .filter(|key| document.contains_key(*key))
            .collect();
        if let [first, second, ..] = given[..] {
            return Err(MetaError {
                path: format!("{path}.{second}"),
                message: format!("stands beside {first}"),
                hint: "Leave one of them out.".into(),
            });
        }
        let other = (given.first().copied()).filter(|key| *key != "up");
        if let (Some(other), true) = (other, document.contains_key("down")) {
            return Err(MetaError {
                path: format!("{path}.down"),
                message: format!("stands beside {other}"),
                hint: "Leave it out; rollback is the way back.".into(),
            });
        }
        let of = Fields {
            object: document,
            path,
        };
        match other {
            Some("phases") => {
                Phases::from_json(&document["phases"], &format!("{path}.phases")).map(Self::Phases)
            }
            Some(_) => Copy::from_json(&document["copy"], &format!("{path}.copy")).map(Self::Copy),
            None => Ok(Self::Script {
                up: of.text("up")?,
                down: of.optional("down")?,
            }),
        }
    }

    /// Goes on with a digest over all of it. A script's is as it was when there was nothing else.
    pub fn digest(&self, form: Canonical) -> Canonical {
        match self {
            Self::Script { up, down } => form.text(up).optional(down.as_deref()),
            Self::Phases(phases) => form
                .null()
                .text("phases")
                .text(&phases.to_json().to_string()),
            Self::Copy(copy) => form.null().text("copy").text(&copy.to_json().to_string()),
        }
    }
}

/// The keys of an object at a place.
struct Fields<'a> {
    object: &'a Map<String, Value>,
    path: &'a str,
}

impl<'a> Fields<'a> {
    fn new(json: &'a Value, path: &'a str, known: &[&'static str]) -> Result<Self, MetaError> {
        let object = json
            .as_object()
            .ok_or_else(|| wrong_kind(path.into(), json, "an object"))?;
        if let Some(key) = object.keys().find(|k| !known.contains(&k.as_str())) {
            return Err(MetaError {
                path: format!("{path}.{key}"),
                message: "is not a known key".into(),
                hint: match nearest(key, known.iter().copied()) {
                    Some(meant) => format!("Perhaps you meant \"{meant}\"."),
                    None => format!("Its keys are {}.", known.join(", ")),
                },
            });
        }
        Ok(Self { object, path })
    }

    fn wrong(&self, key: &str, wanted: &str) -> MetaError {
        let path = format!("{}.{key}", self.path);
        match self.object.get(key) {
            None => MetaError {
                path,
                message: "is missing".into(),
                hint: format!("Give {wanted}."),
            },
            Some(value) => wrong_kind(path, value, wanted),
        }
    }

    fn text(&self, key: &str) -> Result<String, MetaError> {
        match self.object.get(key) {
            Some(Value::String(text)) => Ok(text.clone()),
            _ => Err(self.wrong(key, "a text")),
        }
    }

    fn optional(&self, key: &str) -> Result<Option<String>, MetaError> {
        match self.object.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(_) => self.text(key).map(Some),
        }
    }

    fn texts(&self, key: &str) -> Result<Vec<String>, MetaError> {
        let list = self.object.get(key).and_then(Value::as_array);
        list.and_then(|list| {
            list.iter()
                .map(|v| v.as_str().map(str::to_string))
                .collect()
        })
        .ok_or_else(|| self.wrong(key, "a list of texts"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::option;
    use proptest::prelude::*;

    fn written() -> impl Strategy<Value = Written> {
        let text = || ".{0,12}";
        prop_oneof![
            (text(), option::of(text())).prop_map(|(up, down)| Written::Script { up, down }),
            (text(), text(), text(), option::of(text())).prop_map(|(a, b, c, rollback)| {
                Written::Phases(Phases {
                    schema_additions: a,
                    migrate_batch: b,
                    schema_drops: c,
                    rollback,
                })
            }),
            (
                text(),
                text(),
                proptest::collection::vec(text(), 0..3),
                option::of(text()),
                any::<bool>()
            )
                .prop_map(|(source, target, key, transform, with)| {
                    Written::Copy(Copy {
                        source,
                        target,
                        key,
                        rollback: transform.clone(),
                        transform,
                        pipeline: with.then(|| json!([{"rename": {"a": "b"}}])),
                    })
                }),
        ]
    }

    fn of(written: &Written) -> Map<String, Value> {
        let mut document = Map::new();
        written.to_json(&mut document);
        document
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(it in written()) {
            prop_assert_eq!(Written::from_json(&of(&it), "document"), Ok(it));
        }

        #[test]
        fn two_that_differ_have_two_digests(one in written(), other in written()) {
            let digest = |w: &Written| w.digest(Canonical::new("x")).finish_hex();
            prop_assert_eq!(one == other, digest(&one) == digest(&other));
        }
    }

    #[test]
    fn a_fault_is_told_with_its_place() {
        for (json, place) in [
            (json!({}), "d.up"),
            (json!({"up": 1}), "d.up"),
            (json!({"up": "x", "phases": {}}), "d.phases"),
            (json!({"phases": {}, "copy": {}}), "d.copy"),
            (json!({"phases": {}, "down": null}), "d.down"),
            (json!({"phases": []}), "d.phases"),
            (
                json!({"phases": {"schema_drop": ""}}),
                "d.phases.schema_drop",
            ),
            (json!({"phases": {}}), "d.phases.schema_additions"),
            (json!({"copy": null}), "d.copy"),
            (
                json!({"copy": {"source": "a", "target": "b", "key": "id"}}),
                "d.copy.key",
            ),
            (
                json!({"copy": {"source": "a", "target": "b", "key": [1]}}),
                "d.copy.key",
            ),
            (
                json!({"copy": {"source": "a", "target": "b", "key": [], "transform": 1}}),
                "d.copy.transform",
            ),
        ] {
            let object = json.as_object().expect("an object");
            let error = Written::from_json(object, "d").expect_err("a fault");
            assert_eq!(error.path, place, "{json}");
            assert!(error.hint.ends_with('.'), "{error:?}");
        }
    }
}
