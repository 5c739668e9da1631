//! The rules of the source tree that no compiler checks. Each failure names file and line.
//! Folders that are not there yet pass.

use std::fs;
use std::path::{Path, PathBuf};

use transmute_tests::tools::project_root;

/// More than this is two subjects.
const MAX_LINES: usize = 600;

/// The layers, from the top: each may call those after it, and everybody may call `pg`.
const LAYERS: [&[&str]; 5] = [
    &["api", "worker"],
    &["engine"],
    &[
        "recipe",
        "rewrite",
        "backfill",
        "dualwrite",
        "recover",
        "report",
    ],
    &["parse", "store", "catalog"],
    &["model"],
];

struct Source {
    /// Relative to the project, such as `src/engine/advance.rs`.
    path: String,
    text: String,
}

impl Source {
    /// Numbered lines without comments; a string that holds `//` loses its end, which no rule here minds.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate();
        lines.map(|(i, line)| (i + 1, line.split("//").next().unwrap_or_default()))
    }

    /// The code that ships: without the module of unit tests, which ends the file.
    fn shipped(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code()
            .take_while(|(_, line)| line.trim() != "#[cfg(test)]")
    }

    fn is_in(&self, folder: &str) -> bool {
        self.path.starts_with(&format!("src/{folder}/")) || self.path == format!("src/{folder}.rs")
    }

    fn layer(&self) -> Option<usize> {
        LAYERS
            .iter()
            .position(|folders| folders.iter().any(|folder| self.is_in(folder)))
    }

    fn at(&self, line: usize, what: &str) -> String {
        format!("{}:{line}: {what}", self.path)
    }
}

fn sources(folder: &str, ending: &str) -> Vec<Source> {
    let mut paths = Vec::new();
    collect(&project_root().join(folder), ending, &mut paths);
    paths.sort();
    let read = |path: PathBuf| Source {
        path: path
            .strip_prefix(project_root())
            .expect("inside the project")
            .to_string_lossy()
            .into_owned(),
        text: fs::read_to_string(&path).expect("a source file"),
    };
    paths.into_iter().map(read).collect()
}

fn collect(folder: &Path, ending: &str, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, ending, into);
        } else if path
            .extension()
            .is_some_and(|extension| extension == ending)
        {
            into.push(path);
        }
    }
}

/// Whether `word` stands in `line` by itself, not as a part of a longer name.
fn has_word(line: &str, word: &str) -> bool {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(start, _)| {
        let before = line[..start].chars().next_back();
        let after = line[start + word.len()..].chars().next();
        !before.is_some_and(is_name) && !after.is_some_and(is_name)
    })
}

#[track_caller]
fn none(violations: Vec<String>) {
    assert!(violations.is_empty(), "\n{}\n", violations.join("\n"));
}

#[test]
fn unsafe_and_pg_sys_appear_only_in_pg() {
    let mut violations = Vec::new();
    for source in sources("src", "rs")
        .iter()
        .filter(|source| !source.is_in("pg"))
    {
        for (number, line) in source.code() {
            // A C symbol for the server to find is no unsafe code.
            let line = line.replace("#[unsafe(no_mangle)]", "");
            for word in ["unsafe", "pg_sys"] {
                if has_word(&line, word) {
                    violations.push(source.at(number, word));
                }
            }
        }
    }
    none(violations);
}

#[test]
fn layers_import_downward_only() {
    let mut violations = Vec::new();
    for source in sources("src", "rs") {
        let Some(own) = source.layer() else { continue };
        for (number, line) in source.shipped() {
            for folder in LAYERS[..own].iter().flat_map(|folders| folders.iter()) {
                if has_word(line, &format!("crate::{folder}")) {
                    violations
                        .push(source.at(number, &format!("uses {folder}, which lies above it")));
                }
            }
        }
    }
    none(violations);
}

#[test]
fn pg_knows_no_layer_but_the_model() {
    let mut violations = Vec::new();
    for source in sources("src/pg", "rs") {
        for (number, line) in source.shipped() {
            for folder in LAYERS[..LAYERS.len() - 1]
                .iter()
                .flat_map(|folders| folders.iter())
            {
                if has_word(line, &format!("crate::{folder}")) {
                    violations.push(source.at(number, &format!("pg uses {folder}")));
                }
            }
        }
    }
    none(violations);
}

#[test]
fn the_model_is_pure() {
    let forbidden = [
        "pgrx",
        "pgrx_pg_sys",
        "pg_sys",
        "crate::pg",
        "crate::guc",
        "std::fs",
        "std::net",
        "SystemTime",
        "Instant",
    ];
    let mut violations = Vec::new();
    for source in sources("src/model", "rs") {
        for (number, line) in source.shipped() {
            for word in forbidden.iter().filter(|word| has_word(line, word)) {
                violations.push(source.at(number, word));
            }
        }
    }
    none(violations);
}

#[test]
fn the_store_is_the_only_writer_of_our_tables() {
    let writes = [
        "insert into _transmute.",
        "update _transmute.",
        "update only _transmute.",
        "delete from _transmute.",
    ];
    let mut violations = Vec::new();
    let files = sources("src", "rs")
        .into_iter()
        .chain(sources("sql/query", "sql"));
    for source in files.filter(|source| !source.is_in("store")) {
        // Over line ends: a statement in a string may break anywhere.
        let text: String = source
            .shipped()
            .map(|(_, line)| format!("{line} "))
            .collect();
        let text = text
            .to_lowercase()
            .replace('\\', " ")
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ");
        for write in writes.iter().filter(|write| text.contains(*write)) {
            violations.push(format!("{}: {write}", source.path));
        }
    }
    none(violations);
}

#[test]
fn only_advance_changes_a_state() {
    let allowed = ["src/engine/advance.rs", "src/model/state.rs"];
    let mut violations = Vec::new();
    for source in sources("src", "rs")
        .iter()
        .filter(|source| !allowed.contains(&source.path.as_str()))
    {
        for (number, line) in source.shipped() {
            if has_word(line, "transition")
                && (line.contains("transition(") || line.contains("::transition"))
            {
                violations.push(source.at(number, "state transitions belong to engine/advance.rs"));
            }
        }
    }
    none(violations);
}

#[test]
fn only_txn_opens_transactions_of_workers() {
    let openers = [
        "StartTransactionCommand",
        "CommitTransactionCommand",
        "BackgroundWorker::transaction",
    ];
    let mut violations = Vec::new();
    let files = sources("src", "rs");
    for source in files
        .iter()
        .filter(|source| source.path != "src/worker/txn.rs" && !source.is_in("pg"))
    {
        for (number, line) in source.shipped() {
            for opener in openers.iter().filter(|opener| line.contains(*opener)) {
                violations.push(source.at(number, opener));
            }
        }
    }
    none(violations);
}

#[test]
fn no_file_is_longer_than_a_subject() {
    let files = ["src", "pgrx-tests"]
        .into_iter()
        .flat_map(|folder| sources(folder, "rs"));
    let long = files.filter(|source| source.text.lines().count() > MAX_LINES);
    none(
        long.map(|source| {
            format!(
                "{}: {} lines, {MAX_LINES} is the limit",
                source.path,
                source.text.lines().count()
            )
        })
        .collect(),
    );
}

#[test]
fn sql_files_have_no_tabs_and_the_stateful_ones_replace_nothing() {
    let mut violations = Vec::new();
    for source in sources("sql", "sql") {
        for (number, line) in source.text.lines().enumerate() {
            if line.contains('\t') {
                violations.push(source.at(number + 1, "a tab"));
            }
            let statement = line.split("--").next().unwrap_or_default();
            if source.path.starts_with("sql/schema/")
                && statement.to_uppercase().contains("OR REPLACE")
            {
                violations.push(source.at(number + 1, "OR REPLACE in a stateful file"));
            }
        }
    }
    none(violations);
}

#[test]
fn every_allow_says_why() {
    let mut violations = Vec::new();
    for source in sources("src", "rs")
        .into_iter()
        .chain(sources("pgrx-tests", "rs"))
    {
        // Attributes may span lines, and rustfmt breaks the long ones.
        let code: String = source
            .code()
            .map(|(_, line)| format!("{}\n", line.trim()))
            .collect();
        // Written so that this line is not one of them.
        let [outer, inner] = [concat!("#[", "allow("), concat!("#![", "allow(")];
        for (start, _) in code.match_indices(outer).chain(code.match_indices(inner)) {
            let attribute = code[start..].split(")]").next().unwrap_or_default();
            if !attribute.contains("reason") {
                violations.push(source.at(code[..start].lines().count(), attribute));
            }
        }
    }
    none(violations);
}
