//! The fault matrix: what happens to a migration, whatever dies, wherever it stands. docs/faults.md explains it.

mod cell;
mod client;
mod clients;
mod fault;
mod field;
mod figures;
mod ledger;
mod matrix;
mod people;
mod place;
mod promotion;
mod sample;
mod scenario;
mod shape;
mod statements;
mod storm;
mod weather;
