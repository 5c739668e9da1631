//! What a key of the metadata holds, and whether a value is that.

use serde_json::Value;

use super::MetaError;
use crate::model::version;

/// What a key holds.
#[derive(Clone, Copy)]
pub enum Kind {
    /// A text that is not empty.
    Text,
    /// A text that the server will read as an interval; not empty.
    Interval,
    /// A semantic version.
    Version,
    /// A list of different texts, none of them empty.
    Texts,
    /// Texts, each under a name; none of them empty.
    TextByName,
    Flag,
    /// A whole number from 0 to this.
    Count(u32),
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Whatever this function lets pass. It is given the path for its errors; beside it a value that it lets pass, as JSON.
    Own(fn(&str, &Value) -> Result<(), MetaError>, &'static str),
}

impl Kind {
    /// Refuses a value that is not of this kind.
    pub fn check(self, path: &str, value: &Value) -> Result<(), MetaError> {
        match (self, value) {
            (Kind::Own(check, _), _) => check(path, value),
            (Kind::Text | Kind::Interval, Value::String(text)) if text.trim().is_empty() => {
                Err(MetaError {
                    path: path.to_owned(),
                    message: "must not be empty".into(),
                    hint: "Leave the key out where there is nothing to say.".into(),
                })
            }
            (Kind::Text | Kind::Interval, Value::String(_)) | (Kind::Flag, Value::Bool(_)) => {
                Ok(())
            }
            (Kind::Version, Value::String(text)) => match version::parse(text) {
                Ok(_) => Ok(()),
                Err(error) => Err(MetaError {
                    path: path.to_owned(),
                    message: format!("\"{text}\" is not a semantic version: {}", error.why),
                    hint: version::HINT.into(),
                }),
            },
            (Kind::Texts, Value::Array(items)) => check_items(path, items),
            (Kind::TextByName, Value::Object(texts)) => texts
                .iter()
                .try_for_each(|(name, text)| Kind::Text.check(&format!("{path}.{name}"), text)),
            (Kind::Count(most), Value::Number(number)) if number.as_u64().is_some() => {
                match number.as_u64() <= Some(u64::from(most)) {
                    true => Ok(()),
                    false => Err(MetaError {
                        path: path.to_owned(),
                        message: format!("is more than {most}"),
                        hint: format!("Give a whole number, at most {most}."),
                    }),
                }
            }
            (Kind::Choice(words), Value::String(text)) => match words.contains(&text.as_str()) {
                true => Ok(()),
                false => Err(MetaError {
                    path: path.to_owned(),
                    message: format!("\"{text}\" is not one of the choices"),
                    hint: format!("Give one of: {}.", words.join(", ")),
                }),
            },
            _ => Err(wrong_kind(path.to_owned(), value, &self.wanted())),
        }
    }

    fn wanted(self) -> String {
        match self {
            Kind::Text => "a text".into(),
            Kind::Interval => "an interval as a text, for example \"4 days\"".into(),
            Kind::Version => "a semantic version as a text, for example \"1.4.0\"".into(),
            Kind::Texts => "a list of texts, for example [\"another-migration\"]".into(),
            Kind::TextByName => {
                "texts by the names of columns, for example {\"name\": \"first || ' ' || last\"}"
                    .into()
            }
            Kind::Flag => "true or false".into(),
            Kind::Count(_) => "a whole number, 0 or more".into(),
            Kind::Choice(words) => format!("one of: {}", words.join(", ")),
            Kind::Own(_, sample) => format!("something like {sample}"),
        }
    }

    /// A value of this kind.
    #[cfg(test)]
    pub fn sample(self) -> Value {
        match self {
            Kind::Text => "text".into(),
            Kind::Interval => "2 hours".into(),
            Kind::Version => "1.4.0-rc.1".into(),
            Kind::Texts => vec!["a", "b"].into(),
            Kind::TextByName => serde_json::json!({"name": "first || last"}),
            Kind::Flag => true.into(),
            Kind::Count(most) => most.into(),
            Kind::Choice(words) => words[words.len() - 1].into(),
            Kind::Own(_, sample) => serde_json::from_str(sample).expect("a sample is JSON"),
        }
    }
}

fn check_items(path: &str, items: &[Value]) -> Result<(), MetaError> {
    for (index, item) in items.iter().enumerate() {
        let path = format!("{path}[{index}]");
        Kind::Text.check(&path, item)?;
        if items[..index].contains(item) {
            return Err(MetaError {
                path,
                message: format!("{item} is named twice"),
                hint: "Name each one once.".into(),
            });
        }
    }
    Ok(())
}

/// A value is of another kind than what is wanted.
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
