//! The sessions that README.md shows, as they stand there.

use std::fs;
use std::path::Path;
use std::process::Command;

use transmute_tests::{tools, Database};

use super::files::Folder;

/// The block with a session under a heading.
fn session(heading: &str) -> String {
    let readme =
        fs::read_to_string(tools::project_root().join("README.md")).expect("the file system");
    let (_, chapter) = readme
        .split_once(&format!("\n## {heading}\n"))
        .unwrap_or_else(|| panic!("README.md has no chapter {heading:?}"));
    let (_, block) = chapter.split_once("\n```\n").expect("a session");
    block.split_once("```").expect("its end").0.to_string()
}

const PSQL: &str = "=# ";

/// What is typed at a prompt, and the lines that are shown for it.
fn entries(session: &str, prompt: &str) -> Vec<(String, Vec<String>)> {
    let mut entries: Vec<(String, Vec<String>)> = Vec::new();
    for line in session.lines() {
        match (line.strip_prefix(prompt), entries.last_mut()) {
            (Some(typed), _) => entries.push((typed.to_string(), Vec::new())),
            // A statement goes on until its semicolon.
            (None, Some((typed, shown)))
                if prompt == PSQL
                    && shown.is_empty()
                    && !typed.starts_with('\\')
                    && !typed.ends_with(';') =>
            {
                typed.push('\n');
                typed.push_str(line);
            }
            (None, Some((_, shown))) => shown.push(line.trim_end().to_string()),
            (None, None) => panic!("the session begins with {line:?}"),
        }
    }
    for (_, shown) in &mut entries {
        while shown.last().is_some_and(String::is_empty) {
            shown.pop();
        }
    }
    entries
}

/// Does what the shell's part says: `cat` shows a file, which is made here.
fn shell(database: &Database<'_>, folder: &Path, entries: &[(String, Vec<String>)]) {
    for (typed, shown) in entries {
        match typed.strip_prefix("cat ") {
            Some(file) => {
                fs::write(folder.join(file), shown.join("\n") + "\n").expect("the file system")
            }
            None => {
                let bin = database.cluster().tree().bin().display().to_string();
                let path = std::env::var("PATH").unwrap_or_default();
                let mut sh = Command::new("sh");
                let run = sh.args(["-ec", typed]).current_dir(folder);
                tools::output_of(run.env("PATH", format!("{bin}:{path}")));
            }
        }
    }
}

/// What psql shows for each command.
fn psql(database: &Database<'_>, folder: &Path, commands: &[String]) -> Vec<Vec<String>> {
    let mut input = String::new();
    for command in commands {
        input += &format!("{command}\n\\echo @@\n");
    }
    fs::write(folder.join("input"), input).expect("the file system");
    // One file for both, so that errors stand where they come.
    let out = fs::File::create(folder.join("output")).unwrap();
    let mut psql = database.command("psql");
    psql.arg("-X")
        .current_dir(folder)
        .stdin(fs::File::open(folder.join("input")).unwrap())
        .stderr(out.try_clone().unwrap())
        .stdout(out);
    assert!(psql.status().unwrap().success());
    let text = fs::read_to_string(folder.join("output")).expect("the file system");
    let mut shown: Vec<Vec<String>> = vec![Vec::new()];
    for line in text.lines() {
        match line {
            "@@" => shown.push(Vec::new()),
            _ if line.contains("NOTICE: ") => {}
            _ => shown.last_mut().unwrap().push(line.trim_end().to_string()),
        }
    }
    for lines in &mut shown {
        while lines.last().is_some_and(String::is_empty) {
            lines.pop();
        }
    }
    shown
}

/// Each command with what README shows for it, and what psql does.
fn played(
    database: &Database<'_>,
    folder: &Path,
    typed: Vec<(String, Vec<String>)>,
) -> Vec<(String, Vec<String>, Vec<String>)> {
    let commands: Vec<String> = typed.iter().map(|(typed, _)| typed.clone()).collect();
    let shown = psql(database, folder, &commands);
    assert_eq!(shown.len(), typed.len() + 1, "{shown:#?}");
    let pairs = typed.into_iter().zip(shown);
    pairs
        .map(|((typed, expected), shown)| (typed, expected, shown))
        .collect()
}

#[test]
fn a_directory_of_migrations_is_what_readme_shows() {
    let database = Database::shared();
    let folder = Folder::new(&database, "readme");
    let session = session("A directory of migrations");
    let (before, psql_part) = session.split_once("$ psql shop\n").expect("psql");
    shell(&database, &folder.0, &entries(before, "$ "));
    // psql writes files, too.
    tools::output_of(Command::new("chmod").args(["-R", "a+rwX"]).arg(&folder.0));
    let typed = entries(psql_part, PSQL);
    assert!(typed.len() > 8);
    for (command, expected, shown) in played(&database, &folder.0, typed) {
        assert_eq!(shown, expected, "{command}\n{}", shown.join("\n"));
    }
}

/// Numbers, times and what they do to the width of a column are another thing every time.
fn likeness(lines: &[String]) -> Vec<String> {
    let mut alike = Vec::new();
    let told = |l: &&String| !(l.contains("NOTICE: ") || l.starts_with('(') && l.ends_with(')'));
    for line in lines.iter().filter(told) {
        // Transactions of the server's own (an ANALYZE of a catalog) come and go.
        let line = match line.find("; 1 transaction began before the new shape") {
            Some(at) => &line[..at],
            None => line,
        };
        let mut short = String::new();
        for c in line.chars() {
            let c = if c.is_ascii_digit() { '#' } else { c };
            if !("# -".contains(c) && short.ends_with(c)) {
                short.push(c);
            }
        }
        alike.push(short);
    }
    alike
}

#[test]
fn the_first_session_is_what_readme_shows() {
    let database = Database::shared();
    let folder = Folder::new(&database, "session");
    let mut session = database.connect();
    session.batch(&[
        // An automatic ANALYZE at that moment would be one more thing that is waited for.
        "CREATE TABLE orders (id bigint PRIMARY KEY, customer int, cents int) WITH (autovacuum_enabled = off)",
        "INSERT INTO orders SELECT g, g % 1000, g FROM generate_series(1, 300000) g",
        "CREATE INDEX ON orders (customer, cents)",
        "CREATE VIEW of_customers AS SELECT customer, sum(cents) FROM orders GROUP BY customer",
        "ANALYZE orders",
    ]);
    // The risk counts what was written lately, once the statistics have it: here always nothing.
    session.exec("SELECT pg_stat_force_next_flush()");
    session.exec("SELECT pg_stat_reset_single_table_counters('orders'::regclass)");
    let typed = entries(&self::session("A session"), PSQL);
    assert!(typed.len() > 8);
    for (command, expected, shown) in played(&database, &folder.0, typed) {
        // What is not shown is not compared.
        let (expected, found) = (likeness(&expected), likeness(&shown));
        if !expected.is_empty() {
            assert_eq!(found, expected, "{command}\n{}", shown.join("\n"));
        }
    }
}
