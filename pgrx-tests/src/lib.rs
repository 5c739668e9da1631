//! The harness of the end-to-end tests and benchmarks: it owns real clusters and drives the installed extension through
//! real clients. Nothing here links the extension.
//!
//! Start with [`Cluster`] and [`Database`]; a test that needs no server of its own takes [`Database::shared`].

pub mod cluster;
pub mod database;
pub mod disk;
pub mod invariants;
pub mod lockwatch;
pub mod pgbench;
pub mod regress;
pub mod report;
pub mod session;
pub mod tools;
pub mod wait;
pub mod waitpoint;
pub mod workload;

pub mod process;
mod template;
mod watchdog;

pub use cluster::{Cluster, StopMode};
pub use database::Database;
pub use disk::Disk;
pub use session::{DbError, Session};
pub use tools::{Build, Tree};
pub use wait::wait_until;
