//! Files of the client: what transmute_load.psql reads, sends, shows and applies.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Output;

use transmute_tests::{tools, Database};

use super::files::Folder;
use super::{settle, statuses};

/// The script as it is installed.
pub fn script(database: &Database<'_>) -> String {
    let share = tools::output_of(
        database
            .cluster()
            .tree()
            .command("pg_config")
            .arg("--sharedir"),
    );
    format!("{}/extension/transmute_load.psql", share.trim())
}

fn run(database: &Database<'_>, variables: &[&str]) -> (i32, String) {
    let mut command = database.command("psql");
    command.args(["-X", "-A", "-t", "-v", "meta={\"mode\": \"direct\"}"]);
    for variable in variables {
        command.args(["-v", variable]);
    }
    let Output {
        status,
        stdout,
        stderr,
    } = tools::run(command.args(["-f", &script(database)]));
    let text = String::from_utf8_lossy(&stdout) + String::from_utf8_lossy(&stderr);
    let lines = text.lines().filter(|line| !line.contains("NOTICE:"));
    (
        status.code().unwrap_or(-1),
        lines.collect::<Vec<_>>().join("\n"),
    )
}

#[test]
fn files_of_the_client_are_loaded_and_applied_whatever_their_names_hold() {
    let database = Database::shared();
    let mut session = database.connect();
    let folder = Folder::new(
        &database,
        "it's a \"client\" $(touch pwned) `touch pwned` \\ :'x' -n",
    );
    let names = [
        "-n 1.sql",
        "1; touch pwned.sql",
        "2 $(touch pwned) `touch pwned`.sql",
        "3 '\" \\x41 %s {} | * é\u{2028}.sql",
    ];
    let body = |i: usize| {
        format!("\u{feff}-- migration: m\r\n-- id: M{i}\r\n-- migrate: up\r\nCREATE TABLE m{i} (t text DEFAULT '\\x \u{2028}\u{c}é''\r\n');\n-- migrate: down\nDROP TABLE m{i};")
    };
    for (i, name) in names.iter().enumerate() {
        folder.write(name, body(i));
    }
    folder.write("not sql", "").write("below/README", "");
    let directory = format!("directory={}", folder.path());
    let (status, shown) = run(&database, &[&directory, "verify=on"]);
    assert_eq!(
        (status, shown.matches("|extra|").count()),
        (0, 4),
        "{shown}"
    );
    assert_eq!(statuses(&mut session), Vec::<String>::new());
    let (status, shown) = run(&database, &[&directory]);
    assert_eq!(status, 0, "{shown}");
    for (i, name) in names.iter().enumerate() {
        assert!(shown.contains(&format!("{name}|M{i}|new|")), "{shown}");
        assert!(
            shown.contains(&format!("M{i}|queued|")) && shown.contains(&format!("M{i}|applied")),
            "{shown}"
        );
        let text: String = session.scalar(&format!("SELECT transmute.export_sql('M{i}')"));
        assert_eq!(text, body(i));
        assert_eq!(session.lines(&format!("SELECT octet_length(pg_get_expr(adbin, adrelid)) > 5 FROM pg_attrdef WHERE adrelid = 'm{i}'::regclass")), ["t"]);
    }
    let here = fs::read_dir(&folder.0).expect("the file system").flatten();
    assert!(here
        .chain(fs::read_dir("/").expect("the file system").flatten())
        .all(|f| !f.file_name().to_string_lossy().starts_with("pwned")));
    // Again: nothing to do. Gone: it is shown. Changed: nothing is applied, and psql says so to whoever called it.
    let (status, shown) = run(&database, &[&directory]);
    assert_eq!(
        (status, shown.matches("|unchanged|").count()),
        (0, 4),
        "{shown}"
    );
    folder
        .remove(names[0])
        .write("9.sql", "-- id: M9\n-- migrate: up\nCREATE TABLE m9 ();");
    let (status, shown) = run(&database, &[&directory, "apply=off"]);
    assert_eq!(status, 0);
    assert!(
        shown.contains("9.sql|M9|new|")
            && shown.contains(&format!("{}|M0|missing|directives|it was loaded", names[0])),
        "{shown}"
    );
    folder.write(names[1], body(1).replace("DROP", "-- DROP"));
    let (status, shown) = run(&database, &[&directory]);
    assert_eq!(status, 3, "{shown}");
    assert!(
        shown.contains("|M1|changed|directives|file")
            && shown.contains("nothing is applied: files of loaded migrations have changed"),
        "{shown}"
    );
    assert_eq!(statuses(&mut session).last().unwrap(), "M9|pending");
    // Relative to where psql is; a faulty script ends it with the error.
    folder.write(names[1], body(1)).write(
        "9b.sql",
        "-- id: M10\n-- migrate: up\nSELECT 1 / (SELECT 0);",
    );
    let mut command = database.command("psql");
    let name = folder.0.file_name().unwrap().to_str().unwrap();
    command.current_dir(folder.0.parent().unwrap()).args([
        "-X",
        "-v",
        "meta={\"mode\": \"direct\"}",
        "-v",
        &format!("directory={name}"),
        "-f",
        &script(&database),
    ]);
    let output = tools::run(&mut command);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{error}");
    assert!(error.contains("division by zero"), "{error}");
    assert_eq!(statuses(&mut session)[4..], ["M9|applied", "M10|failed"]);
    // So it does while that has not been mended, and once more when it has.
    for wait in ["on", "true", "1"] {
        let (status, shown) = run(&database, &[&directory, &format!("wait={wait}")]);
        assert_eq!(status, 3, "{shown}");
        assert!(
            shown.contains("the migration needs a person") && shown.contains("division by zero"),
            "{shown}"
        );
    }
    assert_eq!(run(&database, &[&directory, "wait=off"]).0, 0);
    session.exec("SELECT transmute.rollback('M10', 'it cannot be')");
    settle(&mut session);
    folder.remove("9b.sql");
    session.exec("SELECT transmute.baseline('M10', 'it is done with')");
    assert_eq!(run(&database, &[&directory]).0, 0);
}

#[test]
fn what_cannot_be_read_is_told_and_nothing_is_loaded() {
    let database = Database::shared();
    let mut session = database.connect();
    let folder = Folder::new(&database, "unreadable client");
    folder
        .write("1.sql", "-- id: A\n-- migrate: up\nSELECT 1;")
        .write("2 b.sql", "");
    fs::set_permissions(folder.0.join("2 b.sql"), fs::Permissions::from_mode(0o0))
        .expect("the file system");
    let directory = format!("directory={}", folder.path());
    let empty = format!("directory={}", Folder::new(&database, "empty").path());
    for (variables, told) in [
        (vec![], "no directory is given"),
        (vec!["directory=/nowhere"], "the directory cannot be read"),
        (vec!["directory=-"], "the directory cannot be read"),
        (vec![directory.as_str()], "it cannot be read: 2 b.sql"),
        (
            vec![empty.as_str(), "verify=on"],
            "there are no migration files in the directory",
        ),
    ] {
        let (status, shown) = run(&database, &variables);
        assert_eq!(status, 3, "{shown}");
        assert!(shown.contains(told), "{shown}");
    }
    assert_eq!(statuses(&mut session), Vec::<String>::new());
    // In production what is not confirmed is not applied.
    folder.remove("2 b.sql");
    session.exec(&format!(
        "ALTER DATABASE {} SET transmute.environment = 'Production'",
        database.name()
    ));
    let (status, shown) = run(&database, &[&directory]);
    assert!(status == 3 && shown.contains("CONFIRMATION"), "{shown}");
    let confirm = format!("confirm={}", database.name());
    let (_, shown) = run(&database, &[&directory, &confirm]);
    assert!(shown.contains("A|unchanged|"), "{shown}");
    assert_eq!(session.lines("SELECT queued FROM transmute.status"), ["t"]);
}
