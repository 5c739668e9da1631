//! A migration as a document that another database can take in: what was registered, with the settings that decide what it means.

use serde_json::{json, Map, Value};

use super::digest::Canonical;
use super::meta::wrong_kind;
use super::nearest::nearest;
use super::written::Written;

/// What stands in `format`: another layout gets another number.
pub const FORMAT: &str = "transmute-migration-v1";
const KEYS: [&str; 11] = [
    "format",
    "id",
    "up",
    "down",
    "phases",
    "copy",
    "meta",
    "search_path",
    "settings",
    "checksum",
    "seal",
];

/// What a document says.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    pub id: String,
    pub written: Written,
    pub meta: Value,
    pub search_path: String,
    /// Name and value.
    pub settings: Vec<(String, String)>,
    /// Checksum of the migration where it was exported.
    pub checksum: String,
}

/// Why a document is not taken in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is no document: the place, what is wrong there, what would be right.
    Form {
        path: String,
        message: String,
        hint: String,
    },
    /// It was changed after it was exported.
    Seal,
}

impl Document {
    /// SHA-256 over all of it.
    fn seal(&self) -> String {
        let mut form = self
            .written
            .digest(Canonical::new(FORMAT).text(&self.id))
            .text(&self.meta.to_string())
            .text(&self.search_path)
            .integer(self.settings.len() as i64);
        for (name, value) in &self.settings {
            form = form.text(name).text(value);
        }
        form.text(&self.checksum).finish_hex()
    }

    pub fn to_json(&self) -> Value {
        let settings: Vec<Value> = self.settings.iter().map(|(n, v)| json!([n, v])).collect();
        let mut json = Map::new();
        self.written.to_json(&mut json);
        for (key, value) in [
            ("format", json!(FORMAT)),
            ("id", json!(self.id)),
            ("meta", self.meta.clone()),
            ("search_path", json!(self.search_path)),
            ("settings", json!(settings)),
            ("checksum", json!(self.checksum)),
            ("seal", json!(self.seal())),
        ] {
            json.insert(key.into(), value);
        }
        Value::Object(json)
    }

    /// Reads a document; `known` are the settings that one may hold.
    ///
    /// # Errors
    /// The first thing that is wrong with its form, then a seal that is not that of its contents.
    pub fn from_json(json: &Value, known: &[String]) -> Result<Document, Fault> {
        let object = json.as_object().ok_or_else(|| {
            form(wrong_kind(
                "document".into(),
                json,
                "what transmute.export(id) gives",
            ))
        })?;
        if let Some(key) = object.keys().find(|k| !KEYS.contains(&k.as_str())) {
            let hint = match nearest(key, KEYS) {
                Some(meant) => format!("Perhaps you meant \"{meant}\"."),
                None => format!("Its keys are {}.", KEYS.join(", ")),
            };
            return Err(fault(
                &format!("document.{key}"),
                "is not a known key",
                hint,
            ));
        }
        let format = text(object, "format")?;
        if format != FORMAT {
            return Err(fault(
                "document.format",
                &format!("\"{format}\" is not known here"),
                format!("This version reads \"{FORMAT}\"."),
            ));
        }
        let document = Document {
            id: text(object, "id")?,
            written: Written::from_json(object, "document").map_err(form)?,
            meta: object
                .get("meta")
                .filter(|m| m.is_object())
                .cloned()
                .ok_or_else(|| wrong(object, "meta", "the metadata as an object"))?,
            search_path: text(object, "search_path")?,
            settings: settings(object, known)?,
            checksum: text(object, "checksum")?,
        };
        match text(object, "seal")? == document.seal() {
            true => Ok(document),
            false => Err(Fault::Seal),
        }
    }
}

fn fault(path: &str, message: &str, hint: String) -> Fault {
    Fault::Form {
        path: path.into(),
        message: message.into(),
        hint,
    }
}

fn form(error: super::meta::MetaError) -> Fault {
    fault(&error.path, &error.message, error.hint)
}

fn wrong(object: &Map<String, Value>, key: &str, wanted: &str) -> Fault {
    let path = format!("document.{key}");
    match object.get(key) {
        None => fault(&path, "is missing", format!("Give {wanted}.")),
        Some(value) => form(wrong_kind(path, value, wanted)),
    }
}

fn text(object: &Map<String, Value>, key: &str) -> Result<String, Fault> {
    match object.get(key) {
        Some(Value::String(text)) => Ok(text.clone()),
        _ => Err(wrong(object, key, "a text")),
    }
}

fn settings(object: &Map<String, Value>, known: &[String]) -> Result<Vec<(String, String)>, Fault> {
    let wanted = "a list of pairs of texts, name and value";
    let list = object
        .get("settings")
        .and_then(Value::as_array)
        .ok_or_else(|| wrong(object, "settings", wanted))?;
    let mut settings = Vec::new();
    for (i, pair) in list.iter().enumerate() {
        let path = format!("document.settings[{i}]");
        let [Value::String(name), Value::String(value)] = pair.as_array().map_or(&[][..], |p| p)
        else {
            return Err(form(wrong_kind(path, pair, wanted)));
        };
        if !known.contains(name) {
            return Err(fault(
                &path,
                &format!("\"{name}\" is not a setting that a migration keeps"),
                format!("These are {}.", known.join(", ")),
            ));
        }
        settings.push((name.clone(), value.clone()));
    }
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::super::written::{Copy, Phases};
    use super::*;
    use proptest::prelude::*;

    fn known() -> Vec<String> {
        vec!["TimeZone".into(), "DateStyle".into()]
    }

    fn script(up: &str, down: Option<&str>) -> Written {
        Written::Script {
            up: up.into(),
            down: down.map(str::to_string),
        }
    }

    fn document() -> Document {
        Document {
            id: "m".into(),
            written: script("ALTER TABLE t ADD a int", Some("ALTER TABLE t DROP a")),
            meta: json!({"name": "n", "depends_on": ["x"]}),
            search_path: "public".into(),
            settings: vec![("TimeZone".into(), "UTC".into())],
            checksum: "c".into(),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let mut d = document();
        assert_eq!(Document::from_json(&d.to_json(), &known()), Ok(d.clone()));
        d.written = script("x", None);
        assert_eq!(Document::from_json(&d.to_json(), &known()), Ok(d));
    }

    #[test]
    fn phases_and_copies_are_sealed_too() {
        let phases = Phases {
            schema_additions: "a".into(),
            migrate_batch: "b".into(),
            schema_drops: "c".into(),
            rollback: None,
        };
        let copy = Copy {
            source: "a".into(),
            target: "b".into(),
            key: vec!["c".into()],
            transform: None,
            pipeline: Some(json!([{}])),
            rollback: None,
        };
        for (written, key) in [
            (Written::Phases(phases), "phases"),
            (Written::Copy(copy), "copy"),
        ] {
            let json = Document {
                written,
                ..document()
            }
            .to_json();
            for field in json[key].as_object().expect("its parts").keys() {
                let mut changed = json.clone();
                changed[key][field] = match field.as_str() {
                    "key" => json!(["x"]),
                    _ => json!("x"),
                };
                let read = Document::from_json(&changed, &known());
                assert_eq!(read, Err(Fault::Seal), "{key}.{field}");
            }
        }
    }

    #[test]
    fn any_change_of_a_value_is_found() {
        let json = document().to_json();
        for (key, value) in [
            ("id", json!("n")),
            ("up", json!("DROP TABLE t")),
            ("down", json!(null)),
            ("meta", json!({})),
            ("search_path", json!("evil, public")),
            ("settings", json!([])),
            ("settings", json!([["TimeZone", "PST"]])),
            ("checksum", json!("d")),
            ("seal", json!("0")),
        ] {
            let mut changed = json.clone();
            changed[key] = value;
            assert_eq!(
                Document::from_json(&changed, &known()),
                Err(Fault::Seal),
                "{key}"
            );
        }
    }

    #[test]
    fn a_wrong_form_is_told_with_its_place() {
        let path = |json: Value| match Document::from_json(&json, &known()) {
            Err(Fault::Form { path, hint, .. }) => {
                assert!(hint.ends_with('.'), "{hint}");
                path
            }
            other => panic!("{other:?}"),
        };
        for json in [json!(null), json!([]), json!("x"), json!(1)] {
            assert_eq!(path(json), "document");
        }
        let good = document().to_json();
        let other = ["down", "phases", "copy"];
        for key in KEYS.iter().filter(|k| !other.contains(k)) {
            let mut changed = good.clone();
            changed[*key] = json!(7);
            assert_eq!(path(changed), format!("document.{key}"));
            let mut changed = good.clone();
            changed.as_object_mut().unwrap().remove(*key);
            assert_eq!(path(changed), format!("document.{key}"));
        }
        for (key, value, place) in [
            ("phases", json!({}), "document.phases"),
            ("idd", json!("m"), "document.idd"),
            ("format", json!("transmute-migration-v2"), "document.format"),
            ("down", json!({}), "document.down"),
            ("settings", json!([["TimeZone"]]), "document.settings[0]"),
            (
                "settings",
                json!([["TimeZone", "UTC"], ["role", "boss"]]),
                "document.settings[1]",
            ),
        ] {
            let mut changed = good.clone();
            changed[key] = value;
            assert_eq!(path(changed), place);
        }
    }

    proptest! {
        #[test]
        fn any_texts_come_back(id in ".{0,8}", up in ".{0,20}", down in proptest::option::of(".{0,20}"), path in ".{0,8}") {
            let d = Document { id, written: Written::Script { up, down }, search_path: path, ..document() };
            prop_assert_eq!(Document::from_json(&d.to_json(), &known()), Ok(d));
        }
    }
}
