//! Golden files: runs pg_regress over `regress/` and pg_isolation_regress over `isolation/`.

use std::fs;
use std::path::{Path, PathBuf};

use crate::tools;
use crate::{Build, Cluster, Session};

/// The database all tests of a suite run in, one after the other.
const DATABASE: &str = "golden";
/// A step of a spec that stands for so long is cancelled; the tester's own default is six minutes.
const STEP_TIMEOUT_SECONDS: u32 = 60;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    /// One session, on the library as it ships: what a DBA reads.
    Regress,
    /// Several sessions, on the library with waitpoints: races.
    Isolation,
}

impl Suite {
    fn folder(self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join(match self {
            Suite::Regress => "regress",
            Suite::Isolation => "isolation",
        })
    }

    /// Folder and ending of the inputs.
    fn inputs(self) -> (&'static str, &'static str) {
        match self {
            Suite::Regress => ("sql", "sql"),
            Suite::Isolation => ("specs", "spec"),
        }
    }

    fn program(self) -> &'static str {
        match self {
            Suite::Regress => "regress/pg_regress",
            Suite::Isolation => "isolation/pg_isolation_regress",
        }
    }

    fn build(self) -> Build {
        match self {
            Suite::Regress => Build::Shipped,
            Suite::Isolation => Build::Waitpoints,
        }
    }

    /// The tests of the suite, by name: each a topic of its own, so their order is the alphabet's.
    pub fn tests(self) -> Vec<String> {
        let (folder, ending) = self.inputs();
        let entries = fs::read_dir(self.folder().join(folder))
            .into_iter()
            .flatten()
            .flatten();
        let paths = entries
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|e| e == ending));
        let mut names: Vec<String> = paths
            .filter_map(|path| Some(path.file_stem()?.to_string_lossy().into_owned()))
            .collect();
        names.sort();
        names
    }
}

/// Runs the suite on a cluster of its own. `TEST=a,b` picks tests by name; `ACCEPT=1` makes what came out the expected output.
#[track_caller]
pub fn run(suite: Suite) {
    let chosen = std::env::var("TEST").unwrap_or_default();
    let chosen: Vec<&str> = chosen.split(',').filter(|name| !name.is_empty()).collect();
    let mut tests = suite.tests();
    if tests.iter().any(|test| chosen.contains(&test.as_str())) {
        tests.retain(|test| chosen.contains(&test.as_str()));
    }
    if tests.is_empty() {
        eprintln!("no tests in {}", suite.folder().display());
        return;
    }

    let cluster = match suite {
        Suite::Regress => Cluster::builder(),
        // The specs drive migrations step by step with transmute.run; a worker would go ahead of them.
        Suite::Isolation => Cluster::builder().without_preload(),
    };
    let cluster = cluster.build(suite.build()).start();
    prepare_database(suite, &cluster);
    // A copy that the server's user can read, wherever the project lies, and the folder pg_regress runs in: up to 15 it
    // looks for expected outputs beside the inputs, from 16 on where it stands.
    let work = cluster.dir().join("golden");
    tools::output_of(
        std::process::Command::new("cp")
            .arg("-r")
            .args([suite.folder(), work.clone()]),
    );
    tools::output_of(
        std::process::Command::new("chmod")
            .args(["-R", "a+rX"])
            .arg(&work),
    );
    for entry in [work.clone(), work.join("results")] {
        fs::create_dir_all(&entry).expect("a folder");
        tools::give_to_server_user(&entry);
    }

    // A test without expected output differs from nothing; pg_regress would give up the whole run.
    fs::create_dir_all(work.join("expected")).expect("a folder");
    for test in &tests {
        let expected = work.join("expected").join(format!("{test}.out"));
        fs::File::options()
            .create(true)
            .append(true)
            .open(expected)
            .expect("the expected output");
    }

    let mut command = cluster.tree().test_command(suite.program());
    cluster.address(&mut command);
    command
        .env("PGISOLATIONTIMEOUT", STEP_TIMEOUT_SECONDS.to_string())
        .current_dir(&work)
        .arg(format!("--inputdir={}", work.display()))
        .arg(format!("--outputdir={}", work.display()))
        .arg(format!("--bindir={}", cluster.tree().bin().display()))
        .arg(format!("--host={}", cluster.dir().display()))
        .args(["--port=5432", "--user=postgres", "--use-existing"])
        .arg(format!("--dbname={DATABASE}"))
        .args(&tests);
    let output = tools::run(&mut command);
    print!("{}", String::from_utf8_lossy(&output.stdout));

    if std::env::var_os("ACCEPT").is_some() {
        accept(&tests, &work, &suite.folder());
        return;
    }
    let diffs = fs::read_to_string(work.join("regression.diffs")).unwrap_or_default();
    assert!(
        output.status.success(),
        "{}\n{diffs}\nIf this is what it should be: ACCEPT=1",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Makes the database, with the extension and what the tests of the suite share: specs cannot include one another.
#[track_caller]
fn prepare_database(suite: Suite, cluster: &Cluster) {
    cluster
        .connect()
        .exec(&format!("CREATE DATABASE {DATABASE}"));
    let mut config = cluster.config();
    config.dbname(DATABASE);
    let mut session = Session::open(config);
    session.exec("CREATE EXTENSION transmute");
    let support = suite.folder().join("support.sql");
    session.exec(
        &fs::read_to_string(&support).unwrap_or_else(|e| panic!("{}: {e}", support.display())),
    );
}

fn accept(tests: &[String], work: &Path, suite: &Path) {
    fs::create_dir_all(suite.join("expected")).expect("a folder");
    for test in tests {
        let file = format!("{test}.out");
        let result = work.join("results").join(&file);
        fs::copy(&result, suite.join("expected").join(&file))
            .unwrap_or_else(|e| panic!("{}: {e}", result.display()));
    }
}
