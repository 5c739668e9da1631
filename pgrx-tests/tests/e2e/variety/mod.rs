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
mod tree;
mod trial;

use std::cell::RefCell;
use std::fmt::Debug;
use std::sync::OnceLock;

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use transmute_tests::Cluster;

use case::{cases, changes, with_all, Case, NAMINGS};
use dependent::DEPENDENTS;
use part::Change;
use proof::Outcome;
use tree::{trees, Tree, TREE_CHANGES};
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

#[test]
fn after_a_migration_a_generated_partition_tree_is_that_of_the_plain_statement() {
    check_with(
        TREE_CHANGES,
        |change| change.name,
        trees,
        Tree::script,
        tree::run,
    );
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
    static CHANGES: OnceLock<Vec<&'static Change>> = OnceLock::new();
    let changes = CHANGES.get_or_init(|| changes().collect());
    let run = |trial: &mut Trial, case: &Case| trial.run(case, way);
    check_with(changes, |c| c.name, |c| cases(c), Case::script, run);
}

/// Each change once, or as often as is asked for, of a case that is made for it.
fn check_with<C, T, S>(
    changes: &'static [C],
    name: impl Fn(&C) -> &'static str,
    cases: impl Fn(&'static C) -> S,
    script: impl Fn(&T) -> String,
    run: impl Fn(&mut Trial, &T) -> Outcome<()>,
) where
    S: Strategy<Value = T>,
    T: Clone + Debug,
{
    let seed = number("TRANSMUTE_SEED", 1);
    let wanted = std::env::var("TRANSMUTE_CHANGE").unwrap_or_default();
    let changes: Vec<&'static C> = changes
        .iter()
        .filter(|change| name(change).contains(&wanted))
        .collect();
    let count = number("TRANSMUTE_CASES", changes.len() as u64);
    println!("{count} cases, TRANSMUTE_SEED={seed}");
    let trial = RefCell::new(Trial::new(cluster()));
    let mut failed = 0;
    for (number, change) in changes.iter().cycle().take(count as usize).enumerate() {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        bytes[8..16].copy_from_slice(&number.to_le_bytes());
        if let Some(failure) = failure(&cases(change), bytes, &trial, &script, &run) {
            eprintln!("--- case {number}, {}: {failure}\n", name(change));
            failed += 1;
        }
    }
    assert_eq!(failed, 0, "of {count} cases so many failed; see above");
}

/// What is wrong with a case, with the smallest one of which it is true.
fn failure<T: Clone + Debug>(
    cases: &impl Strategy<Value = T>,
    seed: [u8; 32],
    trial: &RefCell<Trial>,
    script: &impl Fn(&T) -> String,
    run: &impl Fn(&mut Trial, &T) -> Outcome<()>,
) -> Option<String> {
    let config = Config {
        cases: 1,
        max_shrink_iters: SHRINKS,
        failure_persistence: None,
        ..Config::default()
    };
    let mut runner =
        TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
    let result = runner.run(cases, |case| {
        let outcome = run(&mut trial.borrow_mut(), &case);
        outcome.map_err(|fault| {
            // Whatever state it is in now, the next attempt does not see it.
            trial.replace(Trial::new(cluster()));
            TestCaseError::fail(fault)
        })
    });
    match result {
        Ok(()) => None,
        Err(TestError::Fail(fault, case)) => {
            Some(format!("{case:#?}\n\n{}\n{fault}", script(&case)))
        }
        Err(TestError::Abort(reason)) => Some(reason.to_string()),
    }
}
