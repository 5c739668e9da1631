//! Use cases; each function is one transaction's worth of work. `advance` is the only caller of the state machine.

pub mod admission;
pub mod advance;
pub mod artifact;
pub mod call;
pub mod change;
pub mod data;
pub mod document;
pub mod down;
pub mod evidence;
pub mod execute;
pub mod failure;
pub mod finalize;
pub mod naming;
pub mod objects;
pub mod order;
pub mod outside;
pub mod preflight;
pub mod register;
mod rehearsal;
pub mod release;
pub mod rewriting;
pub mod rollback;
pub mod start;
pub mod template;
pub mod tick;
pub mod work;
