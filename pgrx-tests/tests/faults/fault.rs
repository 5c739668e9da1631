//! What befalls a server.

use std::time::Duration;

use transmute_tests::{Cluster, StopMode};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// F1: SIGKILL for whoever stands at the points.
    Worker,
    /// F2: SIGKILL for the sessions that drive, on a server without our workers, or that make the call.
    Caller,
    /// F3: SIGKILL for the postmaster and all its children.
    Postmaster,
    /// F4
    ImmediateStop,
    /// F5
    FastStop,
    /// F6: `pg_terminate_backend` for whoever stands at the points.
    Terminate,
}

/// The promise of docs/operations.md: an orderly stop does not wait for a migration.
const FAST: Duration = Duration::from_secs(10);

impl Fault {
    /// In an order in which one set-up serves all: first without our workers.
    pub const ALL: [Fault; 6] = [
        Fault::Caller,
        Fault::Worker,
        Fault::Terminate,
        Fault::FastStop,
        Fault::Postmaster,
        Fault::ImmediateStop,
    ];

    pub fn number(self) -> &'static str {
        match self {
            Fault::Worker => "f1",
            Fault::Caller => "f2",
            Fault::Postmaster => "f3",
            Fault::ImmediateStop => "f4",
            Fault::FastStop => "f5",
            Fault::Terminate => "f6",
        }
    }

    /// Whether our workers drive; else sessions do.
    pub fn has_workers(self) -> bool {
        self != Fault::Caller
    }

    /// Strikes; the server takes connections again when this returns, or is about to.
    pub fn strike(self, cluster: &Cluster, victims: &[i32]) {
        match self {
            Fault::Worker | Fault::Caller => cluster.kill9_all(victims),
            Fault::Postmaster => {
                cluster.kill9();
                cluster.start();
            }
            Fault::ImmediateStop => cluster.restart(StopMode::Immediate),
            Fault::FastStop => {
                let took = cluster.stop(StopMode::Fast);
                assert!(took < FAST, "a fast stop took {took:?}");
                cluster.start();
            }
            Fault::Terminate => {
                let mut session = cluster.connect();
                for pid in victims {
                    session.exec(&format!("SELECT pg_terminate_backend({pid})"));
                }
            }
        }
    }
}
