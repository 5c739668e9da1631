//! End to end: real workers and concurrent load, in one shared cluster with a database per test.

mod approvals;
mod architecture;
mod audit;
mod blockers;
mod check;
mod constraints;
mod dead_letters;
mod dependents;
mod harness;
mod hostile;
mod index;
mod interference;
mod lifecycle;
mod load;
mod migration;
mod passthrough;
mod prepared;
mod privileges;
mod rename_table;
mod reverse;
mod script;
mod soak;
mod soft_drop;
mod surface;
mod variety;
