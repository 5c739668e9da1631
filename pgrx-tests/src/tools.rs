//! Where the servers under test are, and how their programs are run.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use nix::unistd::{chown, geteuid, Gid, Uid};

/// `nobody` and `nogroup`: there on every Debian, and the owner of nothing.
const NOBODY: u32 = 65534;

/// Which of a version's two server trees: `make` puts the extension into both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Build {
    /// The library as it ships.
    Shipped,
    /// Compiled with feature `waitpoints`: what tests run that stop or kill the code at a named point.
    #[default]
    Waitpoints,
}

/// An installation of PostgreSQL.
#[derive(Clone, Debug)]
pub struct Tree {
    pg_config: PathBuf,
    bin: PathBuf,
}

impl Tree {
    /// The server under test: of version `PG` in folder `TRANSMUTE_SERVERS`, as the Makefile sets them – or, for `make
    /// installcheck`, the one of `TRANSMUTE_PG_CONFIG`, whatever library it has.
    pub fn under_test(build: Build) -> Tree {
        if let Some(pg_config) = std::env::var_os("TRANSMUTE_PG_CONFIG") {
            return Tree::of(pg_config.into());
        }
        let version = version_under_test();
        let name = match build {
            Build::Shipped => version.to_string(),
            Build::Waitpoints => format!("{version}-waitpoints"),
        };
        Tree::of(servers_dir().join(name).join("bin/pg_config"))
    }

    /// Another version, with waitpoints; `None`: it, or the extension in it, is not here.
    pub fn of_version(version: u32) -> Option<Tree> {
        let pg_config = servers_dir().join(format!("{version}-waitpoints/bin/pg_config"));
        let tree = pg_config.exists().then(|| Tree::of(pg_config))?;
        tree.has_extension().then_some(tree)
    }

    fn of(pg_config: PathBuf) -> Tree {
        let version = version_under_test();
        assert!(
            pg_config.exists(),
            "no {}: run `make servers PG={version}`",
            pg_config.display()
        );
        let bin = ask(&pg_config, "--bindir").into();
        Tree { pg_config, bin }
    }

    pub fn bin(&self) -> &Path {
        &self.bin
    }

    pub fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }

    /// A command that runs one of the test tools that come with the server's build system (`pg_config --pgxs` lies beside them).
    pub fn test_command(&self, relative: &str) -> Command {
        // …/pgxs/src/makefiles/pgxs.mk → …/pgxs/src/test/…
        let makefile = ask(&self.pg_config, "--pgxs");
        let sources = Path::new(&makefile)
            .ancestors()
            .nth(2)
            .expect("pg_config --pgxs names a file three levels deep");
        self.run(&sources.join("test").join(relative))
    }

    /// A command that runs one of the server's programs as the server's user, away from the caller's settings.
    pub fn command(&self, name: &str) -> Command {
        self.run(&self.program(name))
    }

    fn run(&self, program: &Path) -> Command {
        let mut command = as_server_user(Command::new(program));
        // The programs find their libpq by themselves; the server's modules (walreceiver, postgres_fdw) and the test tools
        // would take the system's.
        command.env("LD_LIBRARY_PATH", ask(&self.pg_config, "--libdir"));
        command
    }

    /// Such as `PostgreSQL 18.6`; distributions add their own words.
    pub fn full_version(&self) -> String {
        ask(&self.pg_config, "--version")
    }

    /// The major version.
    pub fn version(&self) -> u32 {
        let text = self.full_version();
        let digits = text.trim_start_matches(|c: char| !c.is_ascii_digit());
        let end = digits
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(digits.len());
        digits[..end]
            .parse()
            .unwrap_or_else(|_| panic!("no version in {text:?}"))
    }

    /// Whether the extension is installed here.
    pub fn has_extension(&self) -> bool {
        Path::new(&ask(&self.pg_config, "--pkglibdir"))
            .join("transmute.so")
            .exists()
    }
}

fn ask(pg_config: &Path, what: &str) -> String {
    output_of(Command::new(pg_config).arg(what))
        .trim()
        .to_string()
}

pub fn version_under_test() -> u32 {
    std::env::var("PG").map_or(18, |text| {
        text.parse().expect("PG is a major version, such as 18")
    })
}

pub fn servers_dir() -> PathBuf {
    match std::env::var_os("TRANSMUTE_SERVERS") {
        Some(dir) => dir.into(),
        None => project_root().join("target/servers"),
    }
}

/// A file of a Debian package that `tools/setup` has unpacked; `None` where the machine's archive has no such package.
pub fn debian(package: &str, file: &str) -> Option<PathBuf> {
    let path = servers_dir().join(".debian").join(package).join(file);
    path.exists().then_some(path)
}

/// The folder of the workspace.
pub fn project_root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the tests are a member of a workspace")
}

/// PostgreSQL refuses to run as root, so root's servers belong to nobody; anyone else's to himself.
pub fn server_user() -> Option<(Uid, Gid)> {
    geteuid()
        .is_root()
        .then(|| (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY)))
}

pub fn as_server_user(mut command: Command) -> Command {
    // Whatever PGHOST, PGOPTIONS or a psqlrc the caller has, tests see the same world.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PG") {
            command.env_remove(name);
        }
    }
    command
        .env("HOME", "/nonexistent")
        .env("LC_ALL", "C")
        .current_dir("/");
    if let Some((uid, gid)) = server_user() {
        command.uid(uid.as_raw()).gid(gid.as_raw());
    }
    command
}

pub fn give_to_server_user(path: &Path) {
    if let Some((uid, gid)) = server_user() {
        chown(path, Some(uid), Some(gid))
            .unwrap_or_else(|e| panic!("chown {}: {e}", path.display()));
    }
}

/// Runs a command that must succeed; its standard output.
#[track_caller]
pub fn output_of(command: &mut Command) -> String {
    let output = run(command);
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[track_caller]
pub fn run(command: &mut Command) -> Output {
    command
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"))
}

/// The last lines of a file, for messages; nothing when it is not there.
pub fn tail(path: &Path, lines: usize) -> String {
    let text = String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
