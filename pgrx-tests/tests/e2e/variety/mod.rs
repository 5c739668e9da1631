//! A generated variety of tables and changes: after a migration everything is as after the plain ALTER, and after a rollback
//! as if there had been no migration.
//!
//! A table is made of pieces ([`part`]), a random choice of them for every change ([`conversion`], [`alteration`]); when something fails, proptest
//! leaves pieces out until only those remain that matter, and prints the case as SQL.
//!
//!     TRANSMUTE_CASES=500      cases of each test; by default every change once
//!     TRANSMUTE_SEED=7         other tables
//!     TRANSMUTE_CHANGE=text    only changes with this in their name

mod alteration;
mod case;
mod conversion;
mod dependent;
mod directed;
mod key;
mod naming;
mod neighbour;
mod part;
mod piece;
mod proof;
mod trial;

use std::cell::RefCell;
use std::sync::OnceLock;

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use transmute_tests::Cluster;

use case::{cases, changes, with_all, Case, NAMINGS};
use dependent::DEPENDENTS;
use part::Change;
use proof::Outcome;
use trial::Trial;

/// Tries to make a failing case smaller; each takes about a second.
const SHRINKS: u32 = 120;

#[test]
fn after_a_migration_the_catalog_and_the_rows_are_those_of_the_plain_alter() {
    check(trial::forward);
}

#[test]
fn after_a_rollback_the_catalog_and_the_rows_are_those_of_before() {
    check(trial::back);
}

#[test]
fn everything_that_a_plain_alter_refuses_to_work_around_comes_along_at_once() {
    let mut trial = Trial::new(cluster());
    for naming in NAMINGS {
        let case = with_all(DEPENDENTS, *naming);
        for way in [trial::forward, trial::back] {
            if let Err(fault) = trial.run(&case, way) {
                panic!("{}\n{fault}", case.script());
            }
        }
    }
}

/// Tablespaces without a folder of their own, and roles: things of a cluster, so it is not the shared one.
pub(super) fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        let cluster = Cluster::builder()
            .conf("allow_in_place_tablespaces = on")
            .conf("log_checkpoints = off")
            .start();
        cluster.connect().batch(&[
            "CREATE TABLESPACE variety_space LOCATION ''",
            "CREATE TABLESPACE variety_target LOCATION ''",
            "CREATE ROLE variety_owner",
            "CREATE ROLE variety_reader",
            "CREATE ROLE variety_writer",
            // Of the one it is enough that the table is there already; to the other it moves as its owner.
            "GRANT CREATE ON TABLESPACE variety_target TO variety_owner",
        ]);
        cluster
    })
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{variable} is a number, not {text}"))
    })
}

fn check(way: fn(&mut Trial, &Case) -> Outcome<()>) {
    let seed = number("TRANSMUTE_SEED", 1);
    let wanted = std::env::var("TRANSMUTE_CHANGE").unwrap_or_default();
    let changes: Vec<&'static Change> = changes()
        .filter(|change| change.name.contains(&wanted))
        .collect();
    let cases = number("TRANSMUTE_CASES", changes.len() as u64);
    println!("{cases} cases, TRANSMUTE_SEED={seed}");
    let trial = RefCell::new(Trial::new(cluster()));
    let mut failed = 0;
    for (number, change) in changes.iter().cycle().take(cases as usize).enumerate() {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        bytes[8..16].copy_from_slice(&number.to_le_bytes());
        if let Some(failure) = failure(change, bytes, &trial, way) {
            eprintln!("--- case {number}: {failure}\n");
            failed += 1;
        }
    }
    assert_eq!(failed, 0, "of {cases} cases so many failed; see above");
}

/// What is wrong with a table for this change, with the smallest table of which it is true.
fn failure(
    change: &'static Change,
    seed: [u8; 32],
    trial: &RefCell<Trial>,
    way: fn(&mut Trial, &Case) -> Outcome<()>,
) -> Option<String> {
    let config = Config {
        cases: 1,
        max_shrink_iters: SHRINKS,
        failure_persistence: None,
        ..Config::default()
    };
    let mut runner =
        TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
    let result = runner.run(&cases(change), |case| {
        let outcome = trial.borrow_mut().run(&case, way);
        outcome.map_err(|fault| {
            // Whatever state it is in now, the next attempt does not see it.
            trial.replace(Trial::new(cluster()));
            TestCaseError::fail(fault)
        })
    });
    match result {
        Ok(()) => None,
        Err(TestError::Fail(fault, case)) => {
            Some(format!("{case:#?}\n\n{}\n{fault}", case.script()))
        }
        Err(TestError::Abort(reason)) => Some(reason.to_string()),
    }
}
