//! How the names of one table come out.

use super::part::Change;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naming {
    Plain,
    /// Needs quoting, and quoting of the quotes.
    Quoted,
    Unicode,
    /// As long as names may be.
    Long,
    /// The same, where the last bytes are no whole characters: what the server derives is cut in the middle of one.
    LongUnicode,
}

/// The column that the change is about.
pub const SUBJECT: &str = "subject";

/// NAMEDATALEN - 1.
const MAX_BYTES: usize = 63;

impl Naming {
    pub fn name(self, word: &str) -> String {
        match self {
            Naming::Plain => word.to_string(),
            Naming::Quoted => format!("{word} \"Q\" '\\ %1$s"),
            Naming::Unicode => format!("Ünï {word} 表 ☃"),
            Naming::Long => padded(word, "x"),
            Naming::LongUnicode => padded(word, "表"),
        }
    }

    pub fn quoted(self, word: &str) -> String {
        format!("\"{}\"", self.name(word).replace('"', "\"\""))
    }

    pub fn schema(self) -> String {
        self.quoted("app")
    }

    pub fn table(self) -> String {
        format!("{}.{}", self.schema(), self.quoted("item"))
    }

    pub fn subject(self) -> String {
        self.quoted(SUBJECT)
    }

    /// Fills in the places of a template.
    pub fn fill_in(self, template: &str, change: &Change, rows: u32) -> String {
        let sql = template
            .replace("{pred}", change.pred)
            .replace("{expr}", change.expr)
            .replace("{t}", &self.table())
            .replace("{s}", &self.schema())
            .replace("{c}", &self.subject())
            .replace("{rows}", &rows.to_string());
        self.fill_in_names(&sql)
    }

    /// Every «word» as the name that it is here, quoted.
    pub fn fill_in_names(self, sql: &str) -> String {
        let mut out = String::new();
        let mut rest = sql;
        while let Some((before, after)) = rest.split_once('«') {
            let (word, tail) = after.split_once('»').expect("a name ends");
            out.push_str(before);
            out.push_str(&self.quoted(word));
            rest = tail;
        }
        out + rest
    }
}

fn padded(word: &str, with: &str) -> String {
    let mut name = format!("{word}_");
    while name.len() + with.len() <= MAX_BYTES {
        name.push_str(with);
    }
    while name.len() < MAX_BYTES {
        name.push('_');
    }
    name
}

pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
