//! Directories of the server: loaded in order, with what is new, changed and missing.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use transmute_tests::{tools, Cluster, Database, Session};

use super::{settle, statuses};

/// A directory that the server can read.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new(database: &Database<'_>, name: &str) -> Folder {
        let path = database
            .cluster()
            .dir()
            .join(format!("{}-{name}", database.name()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("the file system");
        tools::give_to_server_user(&path);
        Folder(path)
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> &Folder {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().expect("a file in a folder")).expect("the file system");
        fs::write(path, content).expect("the file system");
        self
    }

    pub fn remove(&self, name: &str) -> &Folder {
        fs::remove_file(self.0.join(name)).expect("the file system");
        self
    }

    pub fn path(&self) -> String {
        self.0.to_str().unwrap().to_string()
    }

    fn load(&self, session: &mut Session) -> Vec<String> {
        session.lines(&format!(
            "SELECT file, line, id, what, shape, detail FROM transmute.load_dir('{}', '{{\"mode\": \"direct\"}}')",
            self.path()
        ))
    }
}

/// Files, and what is told: SQLSTATE, message, the beginning of DETAIL.
type Case = (
    Vec<(&'static str, Vec<u8>)>,
    &'static str,
    &'static str,
    String,
);

fn own(name: &str, id: &str, body: &str) -> String {
    format!("-- migration: {name}\n-- id: {id}\n-- migrate: up\n{body}\n")
}

#[test]
fn a_directory_says_what_is_new_changed_and_missing() {
    let database = Database::shared();
    let mut session = database.connect();
    let folder = Folder::new(&database, "own");
    let first = "\u{feff}".to_string()
        + &own("a", "A", "CREATE TABLE a (t text DEFAULT '\u{2028}\x0c');").replace('\n', "\r\n")
        + &own("b", "B", "CREATE TABLE b ();");
    folder
        .write("10_d.sql", own("d", "D", "CREATE TABLE d ();"))
        .write("1_a.sql", &first)
        .write("2_c.sql", own("c", "C", "CREATE TABLE c ();"))
        .write("README.md", "")
        .write(".hidden.sql", "");
    assert_eq!(
        folder.load(&mut session),
        [
            "1_a.sql|1|A|new|directives|∅",
            "1_a.sql|5|B|new|directives|∅",
            "2_c.sql|1|C|new|directives|∅",
            "10_d.sql|1|D|new|directives|∅"
        ]
    );
    let whole: String =
        session.scalar("SELECT transmute.export_sql('A') || transmute.export_sql('B')");
    assert_eq!(whole, first);
    session.exec("SELECT transmute.apply()");
    settle(&mut session);
    // Other line ends are no change. What comes late is told, and held back.
    folder
        .write("1_a.sql", first.replace("\r\n", "\n"))
        .write("2_c.sql", own("c", "C", "CREATE TABLE c (id int);"))
        .write("3_late.sql", own("late", "L", "CREATE TABLE late ();"))
        .write("4_later.sql", own("later", "M", "CREATE TABLE later ();"))
        .remove("10_d.sql")
        .write("11_d.sql", own("d", "D", "CREATE TABLE d ();"));
    let late = "it comes before \"D\", which was applied already: transmute.apply refuses it without allow_out_of_order";
    assert_eq!(
        folder.load(&mut session),
        [
            "1_a.sql|1|A|unchanged|directives|∅".to_string(),
            "1_a.sql|5|B|unchanged|directives|∅".to_string(),
            "2_c.sql|1|C|changed|directives|file \"2_c.sql\", line 4, column 17: \"CREATE TABLE c ();\" became \"CREATE TABLE c (id int);\"".to_string(),
            format!("3_late.sql|1|L|new|directives|{late}"),
            format!("4_later.sql|1|M|new|directives|{late}"),
            "11_d.sql|1|D|unchanged|directives|∅".to_string(),
        ]
    );
    assert!(session
        .error("SELECT transmute.apply()")
        .detail
        .expect("a DETAIL")
        .starts_with("OUT_OF_ORDER"));
    assert_eq!(
        statuses(&mut session),
        [
            "A|applied",
            "B|applied",
            "C|applied",
            "L|pending",
            "M|pending",
            "D|applied"
        ]
    );
    session.exec("SELECT transmute.apply(allow_out_of_order => true)");
    settle(&mut session);
    assert_eq!(statuses(&mut session).len(), 6);
    assert_eq!(
        session.lines("SELECT to_regclass('late'), to_regclass('later')"),
        ["late|later"]
    );
    // Gone, from a directory that has moved, too: the one of before is known by what it holds.
    folder.remove("3_late.sql");
    let moved = Folder::new(&database, "moved");
    fs::remove_dir_all(&moved.0).expect("the file system");
    fs::rename(&folder.0, &moved.0).expect("the file system");
    for _ in 0..2 {
        assert_eq!(
            moved.load(&mut session).last().unwrap(),
            "3_late.sql|1|L|missing|directives|it was loaded from there, and is there no more"
        );
    }
    let verified = session.lines(&format!(
        "SELECT id, result, file, line, stored = found FROM transmute.verify_dir('{}')",
        moved.path()
    ));
    assert_eq!(
        verified,
        [
            "A|ok|1_a.sql|1|t",
            "B|ok|1_a.sql|5|t",
            "C|changed|2_c.sql|1|f",
            "M|ok|4_later.sql|1|t",
            "D|ok|11_d.sql|1|t",
            "L|missing|3_late.sql|1|∅"
        ]
    );
    // Another directory's are none of this one's.
    let other = Folder::new(&database, "other");
    other.write("x.sql", own("x", "X", "CREATE TABLE x ();"));
    assert_eq!(other.load(&mut session), ["x.sql|1|X|new|directives|∅"]);
}

#[test]
fn plain_directories_of_each_shape_are_read() {
    let cluster = Cluster::shared();
    for (shape, files, ids) in [
        (
            "NNN_name.up.sql",
            &[
                ("10_c.up.sql", "CREATE TABLE c ()"),
                ("2_b.up.sql", "\u{feff}-- any words\nCREATE TABLE b ();\n"),
                ("2_b.down.sql", "DROP TABLE b"),
                ("1_a.up.sql", "CREATE TABLE a (id int);\r\n"),
                ("1_a.down.sql", "-- Release: 1\r\nDROP TABLE a;\r\n"),
            ][..],
            ["1_a", "2_b", "10_c"],
        ),
        (
            "VNN__name.sql",
            &[
                ("V1.10__c.sql", "CREATE TABLE c ();"),
                ("V1.9__b.sql", "CREATE TABLE b ();"),
                ("U1.9__back.sql", "DROP TABLE b;"),
                ("V1__a.sql", "CREATE TABLE a (id int);"),
                ("U1.0__a.sql", "DROP TABLE a;"),
            ],
            ["V1__a", "V1.9__b", "V1.10__c"],
        ),
        (
            "name/up.sql",
            &[
                ("2024-10-1_c/up.sql", "CREATE TABLE c ();"),
                ("2024-9-1_b/up.sql", "CREATE TABLE b ();"),
                ("2024-9-1_b/down.sql", "DROP TABLE b;"),
                ("0_a/up.sql", "CREATE TABLE a (id int);"),
                ("0_a/down.sql", "DROP TABLE a;"),
                (".git/x.sql", ""),
                ("diesel.toml", ""),
            ],
            ["0_a", "2024-9-1_b", "2024-10-1_c"],
        ),
    ] {
        let database = Database::create(cluster);
        let mut session = database.connect();
        let folder = Folder::new(&database, "plain");
        for (name, content) in files {
            folder.write(name, content);
        }
        let rows = folder.load(&mut session);
        let found: Vec<&str> = rows.iter().map(|r| r.split('|').nth(2).unwrap()).collect();
        assert_eq!(found, ids, "{rows:?}");
        assert!(
            rows.iter().all(|r| r.contains(&format!("|new|{shape}|"))),
            "{rows:?}"
        );
        assert!(folder
            .load(&mut session)
            .iter()
            .all(|r| r.contains("|unchanged|")));
        session.exec("SELECT transmute.apply()");
        settle(&mut session);
        session.exec("SELECT transmute.rollback(3, confirm => current_database())");
        settle(&mut session);
        let left = session.lines("SELECT to_regclass('a'), to_regclass('b'), to_regclass('c')");
        assert_eq!(left, ["∅|∅|∅"], "{shape}");
        // The files are one text with our directives, which is the same migration.
        assert_eq!(
            session.lines("SELECT l.what FROM _transmute.sources s, transmute.load(transmute.export_sql(s.migration_id)) l"),
            ["unchanged"; 3]
        );
        folder.write(files[4].0, "DROP TABLE IF EXISTS a;");
        let changed = &folder.load(&mut session)[0];
        assert!(
            changed.contains(&format!(
                "|changed|{shape}|file \"{}\", line 1, column",
                files[4].0
            )),
            "{changed}"
        );
    }
}

#[test]
fn what_is_wrong_with_a_directory_is_told_with_file_and_place() {
    let database = Database::shared();
    let mut session = database.connect();
    let a = own("a", "A", "CREATE TABLE a ();");
    let long = "x".repeat(251);
    let cases: Vec<Case> = vec![
        (vec![], "22023", "there are no migration files in the directory", "Directory \"".into()),
        (vec![("a.md", b"".to_vec())], "22023", "there are no migration files in the directory", "Directory \"".into()),
        (
            vec![("1.sql", a.clone().into()), ("2.sql", b"-- id: B\n-- migrate: up\nSELECT '\xff'".to_vec())],
            "22023", "the file is not encoded in UTF-8", "file \"2.sql\", line 3, column 9: The byte there is 0xff.".into(),
        ),
        (
            vec![("1.sql", b"-- id: B\n-- migrate: up\nSELECT 1\0".to_vec())],
            "22023", "the file holds a zero byte", "file \"1.sql\", line 3, column 9: ".into(),
        ),
        (
            vec![("1.sql", a.clone().into()), ("2.sql", a.clone().into())],
            "22023", "two migrations have the same id", "file \"2.sql\", line 1, column 1: \"A\" is the id of file \"1.sql\", line 1, column 1, too.".into(),
        ),
        (vec![("1.sql", b"".to_vec())], "22023", "the migration has no id", "file \"1.sql\", line 1, column 1: ".into()),
        (
            vec![("1.sql", b"-- id: A\n-- migrate: up\n\n -- migrate: dowm\n".to_vec())],
            "22023", "unknown section", "file \"1.sql\", line 4, column 2: ".into(),
        ),
        (vec![("1.sql", format!("-- id: {long}\n").into())], "22023", "the id is too long", "file \"1.sql\", line 1, column 1: ".into()),
        (vec![("1.sql", a.clone().into()), ("1_b.up.sql", b"SELECT 1".to_vec())], "22023", "the files of the directory have different shapes", "Directory \"".into()),
        (vec![("1_b.down.sql", b"SELECT 1".to_vec())], "22023", "a way back has no migration that it takes back", "Directory \"".into()),
        (vec![("V1__a.sql", b"SELECT 1".to_vec()), ("R__v.sql", b"SELECT 1".to_vec())], "0A000", "repeatable migrations are not loaded from a directory", "Directory \"".into()),
        (
            // One closes what the other has opened.
            vec![("1_b.up.sql", b"SELECT 1;\nSELECT $$".to_vec()), ("1_b.down.sql", b"$$".to_vec())],
            "22023", "the text cannot be read as SQL", "file \"1_b.up.sql\", line 2, column 8: unterminated dollar-quoted string".into(),
        ),
        (
            vec![("1_b.up.sql", b"SELECT 1".to_vec()), ("1_b.down.sql", b"SELECT 1;\n  COMMIT".to_vec())],
            "22023", "the section begins or ends a transaction", "file \"1_b.down.sql\", line 2, column 3: ".into(),
        ),
        (vec![("1_b.up.sql", a.clone().into())], "22023", "the file has the name of one shape and the text of another", "file \"1_b.up.sql\", line 3, column 1: ".into()),
        (vec![("a/up.sql", b"-- nothing".to_vec())], "22023", "a section holds no statement", "file \"a/up.sql\", line 1, column 1: ".into()),
        (
            vec![("1_b.up.sql", b"CREATE TABLE b ();".to_vec()), ("2_c.up.sql", b"\n\nCREATE TABEL c ();".to_vec())],
            "42601", "syntax error at or near \"TABEL\"",
            "Migration \"2_c\", whose statements begin in line 1 of file \"2_c.up.sql\": In line 3, column 8 of the script.".into(),
        ),
        (
            vec![("1.sql", format!("{a}{}", own("b", "B", "ALTER SYSTEM SET x = 1;")).into())],
            "0A000", "", "Migration \"B\", whose statements begin in line 8 of file \"1.sql\": ".into(),
        ),
    ];
    for (i, (files, state, message, detail)) in cases.iter().enumerate() {
        let folder = Folder::new(&database, &format!("bad{i}"));
        for (name, content) in files {
            folder.write(name, content);
        }
        let error = session.error(&format!(
            "SELECT transmute.load_dir('{}', '{{\"mode\": \"direct\"}}')",
            folder.path()
        ));
        assert_eq!(error.sqlstate, *state, "{error}");
        assert!(message.is_empty() || error.message == *message, "{error}");
        assert!(
            error
                .detail
                .as_deref()
                .unwrap_or_default()
                .starts_with(detail),
            "{error}"
        );
        assert!(
            error.hint.as_deref().is_some_and(|h| !h.is_empty()),
            "{error}"
        );
    }
    let folder = Folder::new(&database, "unreadable");
    folder.write("1.sql", &a);
    fs::set_permissions(folder.0.join("1.sql"), fs::Permissions::from_mode(0o0))
        .expect("the file system");
    let path = folder.path();
    for (call, state, message) in [
        (format!("load_dir('{path}')"), "42501", "Permission denied"),
        (
            format!("load_dir('{path}/1.sql')"),
            "42809",
            "Not a directory",
        ),
        (
            format!("verify_dir('{path}/none')"),
            "58P01",
            "No such file or directory",
        ),
        (
            "load_dir('migrations')".into(),
            "22023",
            "the path is not an absolute one",
        ),
        (
            format!("load_dir('{path}/../x')"),
            "22023",
            "the path is not an absolute one",
        ),
        ("load_dir(NULL)".into(), "22023", "path is NULL"),
        (
            "load_files('', '{}', '{}')".into(),
            "22023",
            "the directory has no name",
        ),
        (
            "load_files('d', '{../a.sql}', '{x}')".into(),
            "22023",
            "a name is none of a file in the directory",
        ),
        (
            "load_files('d', '{/a.sql}', '{x}')".into(),
            "22023",
            "a name is none of a file in the directory",
        ),
        (
            "load_files('d', '{a.sql}', '{}')".into(),
            "22023",
            "not of the same length",
        ),
        (
            "load_files('d', '{NULL}', '{x}')".into(),
            "22023",
            "a name is NULL",
        ),
        (
            "load_files('d', '{a.sql}', '{NULL}')".into(),
            "22023",
            "the content of a file is NULL",
        ),
        (
            "load_files('d', '{a.sql,a.sql}', '{x,x}')".into(),
            "22023",
            "two files have the same name",
        ),
    ] {
        let error = session.error(&format!("SELECT transmute.{call}"));
        assert!(error.message.contains(message), "{call}: {error}");
        assert!(
            error.sqlstate == state || message == "Not a directory",
            "{call}: {error}"
        );
        assert!(
            error.detail.is_some() && error.hint.is_some(),
            "{call}: {error}"
        );
    }
    assert_eq!(
        session.lines("SELECT id FROM _transmute.migrations"),
        Vec::<String>::new()
    );
}

#[test]
fn files_of_the_server_are_for_those_who_may_read_them() {
    let database = Database::shared();
    let mut session = database.connect();
    let folder = Folder::new(&database, "guarded");
    folder.write("1.sql", own("a", "A", "CREATE SCHEMA a;"));
    let role = format!("{}_runner", database.name());
    session.exec(&format!(
        "CREATE ROLE {role} LOGIN IN ROLE transmute_operator; GRANT CREATE ON DATABASE {} TO {role}",
        database.name()
    ));
    let mut runner = database.connect_as(&role);
    for call in ["load_dir", "verify_dir"] {
        let error = runner.error(&format!("SELECT transmute.{call}('{}')", folder.path()));
        assert_eq!(error.sqlstate, "42501");
        assert!(error.hint.expect("a HINT").contains("pg_read_server_files"));
    }
    session.exec(&format!("GRANT pg_read_server_files TO {role}"));
    assert_eq!(folder.load(&mut runner), ["1.sql|1|A|new|directives|∅"]);
    // Looking is for readers, and writes nothing.
    session.exec(&format!(
        "REVOKE transmute_operator FROM {role}; GRANT transmute_reader TO {role}"
    ));
    runner.exec("SET default_transaction_read_only = on");
    assert_eq!(
        runner.lines(&format!(
            "SELECT id, result FROM transmute.verify_dir('{}')",
            folder.path()
        )),
        ["A|ok"]
    );
    assert_eq!(
        runner.lines("SELECT id, result, file FROM transmute.verify_files('x', '{b.sql}', ARRAY[convert_to(E'-- id: B\\n-- migrate: up\\nSELECT 1', 'UTF8')])"),
        ["B|extra|b.sql"]
    );
    assert_eq!(
        runner.lines("SELECT id, result, file, line FROM transmute.verify_checksums('{}')"),
        ["A|missing|1.sql|1"]
    );
    drop(runner);
    session.exec(&format!("DROP OWNED BY {role}; REVOKE CREATE ON DATABASE {} FROM {role}; UPDATE _transmute.migrations SET owner_name = current_user; DROP ROLE {role}", database.name()));
}

#[test]
fn a_file_that_is_mended_as_the_script_was_amended_is_the_same_again() {
    let database = Database::shared();
    let mut session = database.connect();
    let folder = Folder::new(&database, "amended");
    folder
        .write("1_a.up.sql", "CREATE TABLE a ();\nSELECT 1 / (SELECT 0);\n")
        .write("1_a.down.sql", "DROP TABLE a;\n");
    folder.load(&mut session);
    folder.write("1_a.up.sql", "CREATE TABLE a ();\nSELECT 1/1;\n");
    assert!(folder.load(&mut session)[0].contains("|changed|"));
    session.exec("SELECT transmute.amend('1_a', E'CREATE TABLE a ();\\nSELECT 1/1;', 'a slip')");
    assert!(folder.load(&mut session)[0].contains("|unchanged|"));
    // Script or text: what is given is taken for what it is.
    let verified = |session: &mut Session, text: &str| {
        let given = serde_json::json!({ "1_a": text }).to_string();
        let rows = session.query(
            "SELECT result || coalesce(' ' || file || ' ' || line, '') || coalesce(' ' || detail, '') FROM transmute.verify_checksums($1::text::jsonb)",
            &[&given],
        );
        rows[0].get::<_, String>(0)
    };
    let text: String = session.scalar("SELECT transmute.export_sql('1_a')");
    assert_eq!(verified(&mut session, &text), "ok 1_a.up.sql 1");
    assert_eq!(
        verified(&mut session, "CREATE TABLE a ();\nSELECT 1/1;"),
        "ok 1_a.up.sql 1"
    );
    assert_eq!(
        verified(&mut session, "CREATE TABLE a ();\nSELECT 1/2;"),
        "changed 1_a.up.sql 1 line 2, column 10: \"SELECT 1/1;\" became \"SELECT 1/2;\""
    );
    assert_eq!(
        verified(&mut session, &text.replace("DROP TABLE a", "DROP TABLE b")),
        "changed 1_a.up.sql 1 line 6, column 12: \"DROP TABLE a;\" became \"DROP TABLE b;\""
    );
}
