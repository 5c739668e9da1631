//! Names and literals as SQL text: quoting, PostgreSQL's length limit, derived names.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::digest;

/// Longest identifier in bytes: `NAMEDATALEN - 1`. The server cuts longer ones silently, so names are made to fit here.
pub const MAX_IDENTIFIER_BYTES: usize = 63;

/// Hex digits of the hash that ends a shortened name.
const HASH_DIGITS: usize = 8;

/// Every keyword of PostgreSQL 15 to 18 that is not unreserved, sorted. `quote_identifier()` of the server quotes exactly
/// these; taken from `src/include/parser/kwlist.h` of the four versions.
#[rustfmt::skip]
const KEYWORDS: &[&str] = &[
    "all", "analyse", "analyze", "and", "any", "array", "as", "asc", "asymmetric", "authorization", "between",
    "bigint", "binary", "bit", "boolean", "both", "case", "cast", "char", "character", "check", "coalesce",
    "collate", "collation", "column", "concurrently", "constraint", "create", "cross", "current_catalog",
    "current_date", "current_role", "current_schema", "current_time", "current_timestamp", "current_user", "dec",
    "decimal", "default", "deferrable", "desc", "distinct", "do", "else", "end", "except", "exists", "extract",
    "false", "fetch", "float", "for", "foreign", "freeze", "from", "full", "grant", "greatest", "group", "grouping",
    "having", "ilike", "in", "initially", "inner", "inout", "int", "integer", "intersect", "interval", "into", "is",
    "isnull", "join", "json", "json_array", "json_arrayagg", "json_exists", "json_object", "json_objectagg",
    "json_query", "json_scalar", "json_serialize", "json_table", "json_value", "lateral", "leading", "least",
    "left", "like", "limit", "localtime", "localtimestamp", "merge_action", "national", "natural", "nchar", "none",
    "normalize", "not", "notnull", "null", "nullif", "numeric", "offset", "on", "only", "or", "order", "out",
    "outer", "overlaps", "overlay", "placing", "position", "precision", "primary", "real", "references",
    "returning", "right", "row", "select", "session_user", "setof", "similar", "smallint", "some", "substring",
    "symmetric", "system_user", "table", "tablesample", "then", "time", "timestamp", "to", "trailing", "treat",
    "trim", "true", "union", "unique", "user", "using", "values", "varchar", "variadic", "verbose", "when", "where",
    "window", "with", "xmlattributes", "xmlconcat", "xmlelement", "xmlexists", "xmlforest", "xmlnamespaces",
    "xmlparse", "xmlpi", "xmlroot", "xmlserialize", "xmltable",
];

/// Quotes an identifier as `quote_ident()` does: bare when it is `[a-z_][a-z0-9_]*` and no keyword, else in double quotes.
/// The text must not contain a NUL character, which PostgreSQL has no form for.
pub fn quote_ident(s: &str) -> String {
    if is_bare(s) {
        s.to_owned()
    } else {
        format!("\"{}\"", s.replace('"', "\"\""))
    }
}

/// The statement that renames a column of a table whose name is quoted already.
pub fn rename_column(table: impl fmt::Display, from: &str, to: &str) -> String {
    let (from, to) = (quote_ident(from), quote_ident(to));
    format!("ALTER TABLE {table} RENAME COLUMN {from} TO {to}")
}

fn is_bare(s: &str) -> bool {
    let mut bytes = s.bytes();
    let starts = bytes
        .next()
        .is_some_and(|b| b.is_ascii_lowercase() || b == b'_');
    starts
        && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        && KEYWORDS.binary_search(&s).is_err()
}

/// Quotes a string literal as `quote_literal()` does: with backslashes it takes the `E''` form, so that its meaning does
/// not depend on `standard_conforming_strings`.
pub fn quote_literal(s: &str) -> String {
    let doubled = s.replace('\'', "''");
    if doubled.contains('\\') {
        format!("E'{}'", doubled.replace('\\', "\\\\"))
    } else {
        format!("'{doubled}'")
    }
}

/// A relation, function or type with its schema, as the catalog spells them (not quoted).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct QualifiedName {
    pub schema: String,
    pub name: String,
}

impl QualifiedName {
    pub fn new(schema: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            schema: schema.into(),
            name: name.into(),
        }
    }
}

/// `schema.name`, each quoted where needed: ready for SQL text.
impl fmt::Display for QualifiedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}.{}",
            quote_ident(&self.schema),
            quote_ident(&self.name)
        )
    }
}

/// The name `prefix` + `base`, made to fit into [`MAX_IDENTIFIER_BYTES`]. A text that is too long is cut at a character
/// boundary and ends in `_` and eight hex digits of the SHA-256 of the whole text, so that two long names that share their
/// beginning stay apart. Deterministic: the same input gives the same name on every server.
pub fn derived(prefix: &str, base: &str) -> String {
    let full = format!("{prefix}{base}");
    if full.len() <= MAX_IDENTIFIER_BYTES {
        return full;
    }
    let mut cut = MAX_IDENTIFIER_BYTES - HASH_DIGITS - 1;
    while !full.is_char_boundary(cut) {
        cut -= 1;
    }
    let hash = digest::sha256_hex(full.as_bytes());
    format!("{}_{}", &full[..cut], &hash[..HASH_DIGITS])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Reads a quoted identifier back as the server's scanner does.
    fn unquote_ident(s: &str) -> String {
        match s.strip_prefix('"').and_then(|s| s.strip_suffix('"')) {
            Some(inner) => inner.replace("\"\"", "\""),
            None => s.to_lowercase(),
        }
    }

    /// Reads a literal back as the server's scanner does, for either setting of `standard_conforming_strings`.
    fn unquote_literal(s: &str) -> String {
        let escaped = s.starts_with('E');
        let inner = &s[if escaped { 2 } else { 1 }..s.len() - 1];
        let single = inner.replace("''", "'");
        if escaped {
            single.replace("\\\\", "\\")
        } else {
            single
        }
    }

    #[test]
    fn keywords_are_sorted_and_unique() {
        assert!(KEYWORDS.windows(2).all(|pair| pair[0] < pair[1]));
    }

    #[test]
    fn identifiers_are_quoted_like_the_server_does() {
        for (plain, quoted) in [
            ("accounts", "accounts"),
            ("_a1", "_a1"),
            ("1a", "\"1a\""),
            ("Accounts", "\"Accounts\""),
            ("a b", "\"a b\""),
            ("a\"b", "\"a\"\"b\""),
            ("", "\"\""),
            ("ünï", "\"ünï\""),
            ("a$", "\"a$\""),
            ("select", "\"select\""),
            ("user", "\"user\""),
            ("merge_action", "\"merge_action\""),
            ("begin", "begin"),
        ] {
            assert_eq!(quote_ident(plain), quoted);
        }
    }

    #[test]
    fn literals_with_backslashes_take_the_escape_form() {
        assert_eq!(quote_literal("it's"), "'it''s'");
        assert_eq!(quote_literal(""), "''");
        assert_eq!(quote_literal("a\\'b"), "E'a\\\\''b'");
    }

    #[test]
    fn a_qualified_name_prints_as_sql() {
        assert_eq!(
            QualifiedName::new("public", "Order").to_string(),
            "public.\"Order\""
        );
    }

    #[test]
    fn short_names_are_kept_and_long_ones_end_in_a_hash() {
        assert_eq!(derived("_transmute_", "accounts"), "_transmute_accounts");
        let exact = "x".repeat(MAX_IDENTIFIER_BYTES);
        assert_eq!(derived("", &exact), exact);
        let long = derived("_transmute_", &exact);
        assert_eq!(long.len(), MAX_IDENTIFIER_BYTES);
        assert_eq!(long.as_bytes()[54], b'_');
    }

    proptest! {
        #[test]
        fn quoted_identifiers_read_back(s in "[^\0]*") {
            prop_assert_eq!(unquote_ident(&quote_ident(&s)), s);
        }

        #[test]
        fn quoted_literals_read_back(s in "[^\0]*") {
            prop_assert_eq!(unquote_literal(&quote_literal(&s)), s);
        }

        #[test]
        fn derived_names_fit_and_differ(base in "\\PC{0,80}", other in "\\PC{0,80}") {
            let name = derived("_transmute_", &base);
            prop_assert!(name.len() <= MAX_IDENTIFIER_BYTES);
            prop_assert_eq!(name == derived("_transmute_", &other), base == other);
        }

        #[test]
        fn names_that_share_a_long_beginning_differ(tail in "[a-z]{1,20}", other in "[a-z]{1,20}") {
            let head = "é".repeat(40);
            let (a, b) = (derived(&head, &tail), derived(&head, &other));
            prop_assert_eq!(a == b, tail == other);
        }
    }
}
