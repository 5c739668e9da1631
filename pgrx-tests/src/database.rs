//! A database per test, named after it.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::wait::{wait_until_seen, PATIENCE};
use crate::{Cluster, Session};

/// PostgreSQL cuts names at 63 bytes; the rest is for a number.
const NAME_BYTES: usize = 55;

#[derive(Debug)]
pub struct Database<'c> {
    cluster: &'c Cluster,
    name: String,
}

impl Database<'static> {
    /// A database with the extension, in the cluster that all tests share.
    #[track_caller]
    pub fn shared() -> Database<'static> {
        Database::create(Cluster::shared())
    }
}

impl<'c> Database<'c> {
    /// A database with the extension.
    #[track_caller]
    pub fn create(cluster: &'c Cluster) -> Database<'c> {
        let database = Database::bare(cluster);
        database.connect().exec("CREATE EXTENSION transmute");
        database
    }

    /// A database without the extension.
    #[track_caller]
    pub fn bare(cluster: &'c Cluster) -> Database<'c> {
        let name = unused_name();
        cluster.connect().exec(&format!("CREATE DATABASE {name}"));
        Database { cluster, name }
    }

    /// A copy of database `template`, with everything in it, under a name.
    #[track_caller]
    pub fn named_copy_of(cluster: &'c Cluster, template: &str, name: &str) -> Database<'c> {
        cluster.connect().exec(&format!(
            "CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy"
        ));
        Database::existing(cluster, name)
    }

    /// One that came into the cluster by other means.
    pub fn existing(cluster: &'c Cluster, name: &str) -> Database<'c> {
        Database {
            cluster,
            name: name.to_string(),
        }
    }

    /// A copy of a database that nobody is connected to.
    #[track_caller]
    pub fn copy_of(other: &Database<'c>) -> Database<'c> {
        Database::named_copy_of(other.cluster, &other.name, &unused_name())
    }

    pub fn cluster(&self) -> &'c Cluster {
        self.cluster
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn config(&self) -> postgres::Config {
        let mut config = self.cluster.config();
        config.dbname(&self.name);
        config
    }

    #[track_caller]
    pub fn connect(&self) -> Session {
        Session::open(self.config())
    }

    /// A connection as another role, which must have LOGIN.
    #[track_caller]
    pub fn connect_as(&self, role: &str) -> Session {
        let mut config = self.config();
        config.user(role);
        Session::open(config)
    }

    /// A client program of the server, addressed at this database: `psql`, `pg_dump`, …
    pub fn command(&self, program: &str) -> Command {
        self.cluster.command(program, &self.name)
    }
}

impl Drop for Database<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- database {} is left as it was", self.name);
            self.cluster.keep_and_explain();
            return;
        }
        if self.cluster.postmaster_pid().is_none() {
            return; // a test that ends with its server down
        }
        // A worker may come back between the eviction of its predecessor and the look at who is connected.
        let drop_it = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        wait_until_seen(
            "the test's database to be dropped",
            PATIENCE,
            || match Session::try_open(self.cluster.config()) {
                Ok(mut session) => session
                    .try_exec(&drop_it)
                    .map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            },
        );
    }
}

/// libtest names a test's thread after the test.
fn unused_name() -> String {
    static COUNTER: AtomicU32 = AtomicU32::new(1);
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    let thread = std::thread::current();
    let test = thread
        .name()
        .unwrap_or("unnamed")
        .replace(|c: char| !c.is_ascii_alphanumeric(), "_")
        .to_lowercase();
    let test = &test[..test.len().min(NAME_BYTES)];
    format!("t_{test}_{number}")
}
