//! The column strategy: old and new name side by side while old and new application run.

pub mod alias;
