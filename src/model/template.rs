//! Plain DDL from its parts: what the templates register. The parts are checked before: names are quoted here, types and
//! expressions are what the server's parser takes for one.

use serde_json::Value;

use super::ident::{self, quote_ident, QualifiedName, MAX_IDENTIFIER_BYTES};
use super::meta::{wrong_kind, Kind, MetaError};
use super::nearest::nearest;

/// A column to be made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    pub data_type: String,
    /// An expression.
    pub default: Option<String>,
    pub not_null: bool,
    pub primary_key: bool,
}

/// A script and its way back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ddl {
    pub up: String,
    pub down: Option<String>,
}

/// A comment to the end of the line must not swallow what follows.
fn closed(text: &str) -> String {
    let text = text.trim();
    match text.contains("--") {
        true => format!("{text}\n"),
        false => text.to_owned(),
    }
}

fn column(column: &Column) -> String {
    let mut text = format!(
        "{} {}",
        quote_ident(&column.name),
        closed(&column.data_type)
    );
    if let Some(default) = &column.default {
        text.push_str(&format!(" DEFAULT ({})", closed(default)));
    }
    if column.not_null {
        text.push_str(" NOT NULL");
    }
    text
}

pub fn add_column(table: &str, new: &Column) -> Ddl {
    Ddl {
        up: format!("ALTER TABLE {table} ADD COLUMN {}", column(new)),
        down: Some(format!(
            "ALTER TABLE {table} DROP COLUMN {}",
            quote_ident(&new.name)
        )),
    }
}

pub fn add_table(table: &str, columns: &[Column]) -> Ddl {
    let mut parts: Vec<String> = columns.iter().map(column).collect();
    let key: Vec<String> = columns
        .iter()
        .filter(|c| c.primary_key)
        .map(|c| quote_ident(&c.name))
        .collect();
    if !key.is_empty() {
        parts.push(format!("PRIMARY KEY ({})", key.join(", ")));
    }
    Ddl {
        up: format!("CREATE TABLE {table} ({})", parts.join(", ")),
        down: Some(format!("DROP TABLE {table}")),
    }
}

pub fn drop_column(table: &str, name: &str) -> Ddl {
    Ddl {
        up: format!("ALTER TABLE {table} DROP COLUMN {}", quote_ident(name)),
        down: None,
    }
}

pub fn rename_column(table: &str, name: &str, new: &str) -> Ddl {
    let rename = |from: &str, to: &str| ident::rename_column(table, from, to);
    Ddl {
        up: rename(name, new),
        down: Some(rename(new, name)),
    }
}

pub fn transform_column(table: &str, name: &str, data_type: &str, using: Option<&str>) -> Ddl {
    let using = using.map_or(String::new(), |e| format!(" USING ({})", closed(e)));
    Ddl {
        up: format!(
            "ALTER TABLE {table} ALTER COLUMN {} TYPE {}{using}",
            quote_ident(name),
            closed(data_type)
        ),
        down: None,
    }
}

/// A table's name from its one or two parts, quoted.
pub fn table(parts: &[String]) -> Option<String> {
    match parts {
        [name] => Some(quote_ident(name)),
        [schema, name] => Some(QualifiedName::new(schema, name).to_string()),
        _ => None,
    }
}

/// What is wrong with a name that something shall have; `None`: nothing.
pub fn fault_of_name(name: &str) -> Option<String> {
    if name.is_empty() {
        return Some("is empty".into());
    }
    (name.len() > MAX_IDENTIFIER_BYTES)
        .then(|| format!("has {} bytes, more than {MAX_IDENTIFIER_BYTES}", name.len()))
}

/// Keys of a column in JSON, with what they hold.
const KEYS: [(&str, Kind); 5] = [
    ("name", Kind::Text),
    ("type", Kind::Text),
    ("default", Kind::Text),
    ("not_null", Kind::Flag),
    ("primary_key", Kind::Flag),
];

/// Reads a list of columns: `[{"name": "id", "type": "bigint", "primary_key": true}, …]`.
///
/// # Errors
/// The first thing that is wrong, with its path: `columns[1].type`.
pub fn columns(json: &Value) -> Result<Vec<Column>, MetaError> {
    let wanted =
        "a list of columns, for example [{\"name\": \"id\", \"type\": \"bigint\", \"primary_key\": true}]";
    let list = json
        .as_array()
        .ok_or_else(|| wrong_kind("columns".into(), json, wanted))?;
    let mut columns: Vec<Column> = Vec::new();
    for (i, item) in list.iter().enumerate() {
        let path = format!("columns[{i}]");
        let object = item.as_object().ok_or_else(|| {
            wrong_kind(
                path.clone(),
                item,
                "an object, for example {\"name\": \"id\", \"type\": \"bigint\"}",
            )
        })?;
        for (key, value) in object.iter().filter(|(_, v)| !v.is_null()) {
            let path = format!("{path}.{key}");
            match KEYS.iter().find(|known| known.0 == key) {
                Some((_, kind)) => kind.check(&path, value)?,
                None => return Err(unknown(path, key)),
            }
        }
        let text = |key: &str| object.get(key).and_then(Value::as_str).map(str::to_owned);
        let flag = |key: &str| object.get(key).and_then(Value::as_bool).unwrap_or(false);
        let need = |key: &str| {
            text(key).ok_or_else(|| MetaError {
                path: format!("{path}.{key}"),
                message: "is missing".into(),
                hint: "Every column has a name and a type.".into(),
            })
        };
        let column = Column {
            name: need("name")?,
            data_type: need("type")?,
            default: text("default"),
            not_null: flag("not_null"),
            primary_key: flag("primary_key"),
        };
        let fault = fault_of_name(&column.name).or_else(|| {
            let twice = columns.iter().any(|c| c.name == column.name);
            twice.then(|| "is named twice".into())
        });
        if let Some(message) = fault {
            return Err(MetaError {
                path: format!("{path}.name"),
                message,
                hint: "Give every column a name of its own, of at most 63 bytes.".into(),
            });
        }
        columns.push(column);
    }
    Ok(columns)
}

fn unknown(path: String, key: &str) -> MetaError {
    let known = || KEYS.iter().map(|known| known.0);
    MetaError {
        path,
        message: "is not a known key".into(),
        hint: match nearest(key, known()) {
            Some(meant) => format!("Perhaps you meant \"{meant}\"."),
            None => format!("Known keys: {}.", known().collect::<Vec<_>>().join(", ")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_statements_are_what_one_would_write() {
        let column = Column {
            name: "Total; --".into(),
            data_type: "numeric(10,2)".into(),
            default: Some("0".into()),
            not_null: true,
            primary_key: false,
        };
        assert_eq!(
            add_column("public.t", &column),
            Ddl {
                up: "ALTER TABLE public.t ADD COLUMN \"Total; --\" numeric(10,2) DEFAULT (0) NOT NULL".into(),
                down: Some("ALTER TABLE public.t DROP COLUMN \"Total; --\"".into()),
            }
        );
        assert_eq!(
            rename_column("t", "a", "b\"c").up,
            "ALTER TABLE t RENAME COLUMN a TO \"b\"\"c\""
        );
        assert_eq!(
            transform_column("t", "a", "bigint", Some("a * 2 -- twice")).up,
            "ALTER TABLE t ALTER COLUMN a TYPE bigint USING (a * 2 -- twice\n)"
        );
        assert_eq!(drop_column("t", "a").up, "ALTER TABLE t DROP COLUMN a");
        let columns = columns(&json!([
            {"name": "id", "type": "bigint", "primary_key": true}, {"name": "select", "type": "text", "not_null": true}
        ]))
        .unwrap();
        assert_eq!(
            add_table("t", &columns),
            Ddl {
                up: "CREATE TABLE t (id bigint, \"select\" text NOT NULL, PRIMARY KEY (id))".into(),
                down: Some("DROP TABLE t".into()),
            }
        );
    }

    #[test]
    fn columns_are_checked_with_their_place() {
        let long = "x".repeat(64);
        for (json, place) in [
            (json!({}), "columns"),
            (json!(["id"]), "columns[0]"),
            (
                json!([{"name": "a", "type": "int"}, {"name": "b"}]),
                "columns[1].type",
            ),
            (json!([{"type": "int"}]), "columns[0].name"),
            (json!([{"name": 1, "type": "int"}]), "columns[0].name"),
            (
                json!([{"name": "a", "type": "int", "not_null": "yes"}]),
                "columns[0].not_null",
            ),
            (
                json!([{"name": "a", "type": "int", "typ": "x"}]),
                "columns[0].typ",
            ),
            (json!([{"name": "a", "type": " "}]), "columns[0].type"),
            (
                json!([{"name": "a", "type": "int"}, {"name": "a", "type": "int"}]),
                "columns[1].name",
            ),
            (json!([{"name": long, "type": "int"}]), "columns[0].name"),
        ] {
            assert_eq!(columns(&json).unwrap_err().path, place, "{json}");
        }
        assert_eq!(columns(&json!([])).unwrap(), []);
    }

    #[test]
    fn a_table_has_one_or_two_parts() {
        let parts =
            |list: &[&str]| table(&list.iter().map(|p| (*p).to_string()).collect::<Vec<_>>());
        assert_eq!(parts(&["t"]).unwrap(), "t");
        assert_eq!(parts(&["My s", "T"]).unwrap(), "\"My s\".\"T\"");
        assert_eq!(parts(&["a", "b", "c"]), None);
        assert_eq!(parts(&[]), None);
    }
}
