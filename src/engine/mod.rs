//! Use cases; each function is one transaction's worth of work. `advance` is the only caller of the state machine.

pub mod admission;
pub mod advance;
pub mod artifact;
pub mod call;
pub mod change;
pub mod data;
pub mod dual_writing;
pub mod evidence;
pub mod execute;
pub mod failure;
pub mod finalize;
pub mod hooks;
pub mod invariants;
mod leaves;
pub mod naming;
pub mod outside;
pub mod preflight;
pub mod register;
mod rehearsal;
pub mod rewriting;
pub mod rollback;
pub mod signals;
pub mod tick;
pub mod undo;
pub mod usage;
pub mod versioning;
pub mod work;
