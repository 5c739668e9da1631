//! Every point × F1–F6.

use super::cell::{Cell, OTHERS, REWRITES};
use super::fault::Fault;
use super::field;

/// `FAULT=f3,f5`: these. `FAULT=each`: every fault by itself, with all invariants after each. Else all faults one after the other, in one set-up.
fn rounds() -> Vec<Vec<Fault>> {
    let wanted = std::env::var("FAULT").unwrap_or_default();
    match wanted.as_str() {
        "" => vec![Fault::ALL.to_vec()],
        "each" => Fault::ALL.iter().map(|fault| vec![*fault]).collect(),
        numbers => numbers
            .split(',')
            .filter_map(|number| Fault::ALL.into_iter().find(|f| f.number() == number))
            .map(|fault| vec![fault])
            .collect(),
    }
}

fn strike(cells: &[Cell]) {
    let wanted = std::env::var("CELL").unwrap_or_default();
    let cells: Vec<Cell> = cells
        .iter()
        .filter(|cell| cell.name().contains(&wanted))
        .copied()
        .collect();
    if cells.is_empty() {
        return;
    }
    for faults in rounds() {
        let (figures, found) = field::run(&cells, &faults);
        figures.report(&format!("{faults:?}"));
        assert!(found.is_empty(), "{found:#?}");
    }
}

#[test]
fn whatever_dies_costs_a_rewrite_one_transaction() {
    strike(&REWRITES[..16]);
}

#[test]
fn whatever_dies_costs_a_way_back_one_transaction() {
    strike(&REWRITES[16..36]);
}

#[test]
fn whatever_dies_costs_a_copy_that_takes_its_tables_place_one_transaction() {
    strike(&REWRITES[36..]);
}

#[test]
fn whatever_dies_costs_a_rule_or_a_wait_one_transaction() {
    strike(&OTHERS[..24]);
}

#[test]
fn whatever_dies_costs_any_other_recipe_one_transaction() {
    strike(&OTHERS[24..]);
}

/// Points that another test holds, and where: one try of a dead letter, which is made again; the way back of one script of many; a look
/// that writes nothing.
const ELSEWHERE: [(&str, &str); 4] = [
    (
        "rule_letter_before_resolve",
        "tests/e2e/dual_write/set_aside.rs",
    ),
    ("way_back_before_commit", "tests/server/verbs_crash.rs"),
    ("recover_before_commit", "tests/server/verbs_crash.rs"),
    ("watches_locked", "tests/server/removal.rs"),
];

/// A commit that somebody adds has a cell, or this fails.
#[test]
fn every_waitpoint_of_the_code_has_a_cell() {
    let mut points: Vec<String> = ["rewrite_copy", "rewrite_index", "rewrite_check"]
        .iter()
        .map(|kind| format!("{kind}_done_before_commit"))
        .collect();
    let mut folders = vec![transmute_tests::tools::project_root().join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder of the source") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).expect("a source file");
            for call in ["waitpoint::reach(\"", "stop_at(\""] {
                points.extend(
                    text.split(call)
                        .skip(1)
                        .filter_map(|rest| rest.split('"').next())
                        .map(str::to_string),
                );
            }
        }
    }
    assert!(points.len() > 50, "{points:?}");
    for (point, file) in ELSEWHERE {
        let path = transmute_tests::tools::project_root()
            .join("pgrx-tests")
            .join(file);
        let text = std::fs::read_to_string(path).expect(file);
        assert!(text.contains(point), "{file} holds {point}");
        points.retain(|p| p != point);
    }
    points.retain(|point| !REWRITES.iter().chain(&OTHERS).any(|c| c.point == point));
    assert_eq!(points, Vec::<String>::new());
}
