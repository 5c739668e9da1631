//! End to end: real workers and concurrent load, in one shared cluster with a database per test.

mod architecture;
mod dependents;
mod harness;
mod variety;
