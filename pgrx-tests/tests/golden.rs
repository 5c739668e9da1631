//! What a DBA reads (pg_regress, on the library as it ships) and races (pg_isolation_regress, with waitpoints).

use transmute_tests::regress::{run, Suite};

#[test]
fn regress() {
    run(Suite::Regress);
}

#[test]
fn isolation() {
    run(Suite::Isolation);
}
