//! Our tables, one file each: typed rows, no policy. The only writer of `_transmute`.

pub mod approval;
pub mod artifact;
pub mod audit_event;
pub mod backfill;
pub mod checkpoint;
pub mod dead_letter;
pub mod dependency;
pub mod driver;
pub mod hand_batch;
pub mod hook;
pub mod invariant;
pub mod leaf_index;
pub mod migration;
pub mod mirror;
pub mod node;
pub mod object;
pub mod outside;
pub mod preflight;
pub mod progress;
pub mod rate;
pub mod rewrite;
pub mod rule;
pub mod signal;
pub mod step;
pub mod usage;
pub mod version;
