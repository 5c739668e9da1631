//! The life of a server: tests that own their clusters, stop and kill them.

mod amend_crash;
mod bit;
mod copy_crash;
mod crash;
mod dag_crash;
mod data_crash;
mod decoding;
mod dump;
mod harness;
mod ledger;
mod minimal;
mod model;
mod names;
mod outside;
mod partitions;
mod rule_crash;
mod scene;
mod shutdown;
mod signals;
mod snapshots;
mod standby;
mod undo_crash;
mod version_crash;
mod workers;
