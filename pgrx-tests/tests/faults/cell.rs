//! Where a migration stands when the fault comes: every waitpoint, and every state in which it rests.

use super::fault::Fault;

/// Where the migration must be once it has gone on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Finished,
    RolledBack,
    Undone,
    /// FINISHED, and the old rows are let go.
    LetGo,
}

#[derive(Clone, Copy, Debug)]
pub struct Cell {
    pub scenario: &'static str,
    /// The waitpoint; empty: it rests.
    pub point: &'static str,
    /// Calls on the way there: each when the query before it gives true.
    pub way: &'static [(&'static str, &'static str)],
    /// The last call of the way is itself what stands at the point, so that the fault takes it along.
    pub is_call: bool,
    /// What stands there has done its work, and does not come there again.
    pub once: bool,
    /// The documented calls after the fault: each when the query before it gives true.
    pub after: &'static [(&'static str, &'static str)],
    pub end: End,
}

impl Cell {
    /// Whether the fault finds somebody there.
    pub fn is_met_by(&self, fault: Fault) -> bool {
        // A worker's own.
        self.point != "after_commit" || fault.has_workers()
    }

    pub fn name(&self) -> String {
        let place = if self.point.is_empty() {
            self.way.first().map_or("queued", |(state, _)| state)
        } else {
            self.point
        };
        let place: String = place
            .chars()
            .map(|c| {
                if c.is_ascii_alphanumeric() {
                    c.to_ascii_lowercase()
                } else {
                    '_'
                }
            })
            .collect();
        let end = match self.end {
            End::Finished => "",
            End::RolledBack => "_back",
            End::Undone => "_undo",
            End::LetGo => "_let_go",
        };
        format!("{}_{}{end}", self.scenario, &place[..place.len().min(34)])
    }
}

const READY: &str = "transmute.state('m') = 'AWAITING_FINALIZATION'";
const FINISHED: &str = "transmute.state('m') = 'FINISHED'";
const ROLLBACK: &str = "SELECT transmute.rollback('m', 'the matrix')";
const UNDO: &str = "SELECT transmute.undo('m', 'the matrix')";
const APPLY: &str = "SELECT transmute.apply('m')";
const AMEND: &str = "SELECT transmute.amend('m', $$ALTER TABLE t ALTER COLUMN v DROP DEFAULT, ALTER COLUMN v TYPE int USING CASE WHEN v ~ '^[0-9]+$' THEN v::int END$$, 'the matrix')";
const LATE: &str =
    "(SELECT count(*) FROM transmute.status WHERE id = 'm' AND state = 'AWAITING_ACTION') = 1";
const ACKNOWLEDGE: (&str, &str) = (LATE, "SELECT transmute.acknowledge('m', 'done'); SELECT transmute.resume('m', 'done') WHERE transmute.state('m') = 'AWAITING_ACTION'");
const APPROVE: (&str, &str) = (
    READY,
    "SELECT transmute.approve('m', 'seen'); SELECT transmute.skip_soak('m', 'the matrix')",
);

/// F19: rows that the migration fails on are there, and a person mends them.
const POISON: &str = "(SELECT dead_letters > 0 FROM transmute.status WHERE id = 'm')";
const MEND: &str = "UPDATE t SET v = id::text WHERE v = 'bad'";
/// Too many of them to go on.
const MEND_ALL: (&str, &str) = (LATE, "UPDATE t SET v = id::text WHERE v = 'bad'; SELECT transmute.resume('m', 'mended') WHERE transmute.state('m') = 'AWAITING_ACTION'");
const POISON_LATE: &str = "INSERT INTO t (id, a, v) VALUES (9990, 1, 'bad')";

/// Every way that a migration here can go from its beginning to its end, once.
pub fn journeys() -> Vec<Cell> {
    let mut all: Vec<Cell> = Vec::new();
    for cell in REWRITES.iter().chain(&OTHERS).filter(|cell| !cell.is_call) {
        let is_known = all.iter().any(|known| {
            (known.scenario, known.end) == (cell.scenario, cell.end)
                && (known.way, known.after) == (cell.way, cell.after)
        });
        if !is_known {
            all.push(Cell {
                point: "",
                once: false,
                ..*cell
            });
        }
    }
    all
}

/// On the way to the end.
const fn at(scenario: &'static str, point: &'static str) -> Cell {
    Cell {
        scenario,
        point,
        way: &[],
        is_call: false,
        once: false,
        after: &[],
        end: End::Finished,
    }
}

/// The same, where a person has to say the last word.
const fn said(
    scenario: &'static str,
    point: &'static str,
    after: &'static [(&'static str, &'static str)],
) -> Cell {
    Cell {
        after,
        ..at(scenario, point)
    }
}

/// On the way that a call leads to.
const fn then(
    scenario: &'static str,
    point: &'static str,
    way: &'static [(&'static str, &'static str)],
    end: End,
) -> Cell {
    Cell {
        scenario,
        point,
        way,
        is_call: false,
        once: false,
        after: &[],
        end,
    }
}

/// Every point of a rewrite, and where it rests.
pub const REWRITES: [Cell; 43] = [
    at("rewrite", "start_locked"),
    at("rewrite", "signals_before_commit"),
    at("rewrite", "expand_before_lock"),
    at("rewrite", "expand_before_commit"),
    at("rewrite", "copy_before_commit"),
    at("rewrite", "rewrite_copy_done_before_commit"),
    at("rewrite", "step_before_commit"),
    at("rewrite", "index_before_commit"),
    at("rewrite", "drain_before_commit"),
    at("rewrite", "rewrite_index_done_before_commit"),
    at("rewrite", "check_before_commit"),
    at("rewrite", "rewrite_check_done_before_commit"),
    at("rewrite", "views_before_commit"),
    at("rewrite", "invariant_before_commit"),
    at("rewrite", "hook_before_commit"),
    at("rewrite", "swap_before_lock"),
    at("rewrite", "swap_before_commit"),
    at("rewrite", "after_commit"),
    at("anew", "copy_before_commit"),
    at("anew", "index_before_commit"),
    at("anew", "drain_before_commit"),
    at("anew", "swap_before_commit"),
    at("tree", "expand_before_commit"),
    at("tree", "copy_before_commit"),
    at("tree", "swap_before_commit"),
    at("versions", "version_before_commit"),
    at("versions", "swap_before_commit"),
    then(
        "soaking",
        "rollback_before_commit",
        &[(READY, ROLLBACK)],
        End::RolledBack,
    ),
    Cell {
        is_call: true,
        after: &[("true", AMEND)],
        ..then(
            "amended",
            "amend_before_commit",
            &[(READY, AMEND)],
            End::Finished,
        )
    },
    then(
        "keep_old",
        "let_go_before_commit",
        &[(FINISHED, "SELECT transmute.release_old('m', 'the matrix')")],
        End::LetGo,
    ),
    then(
        "keep_old",
        "drain_before_commit",
        &[(FINISHED, UNDO)],
        End::Undone,
    ),
    then(
        "keep_old",
        "swap_before_commit",
        &[(FINISHED, UNDO)],
        End::Undone,
    ),
    then(
        "keep_old",
        "undo_before_commit",
        &[(FINISHED, UNDO)],
        End::Undone,
    ),
    then(
        "keep_old",
        "undo_validated_before_commit",
        &[(FINISHED, UNDO)],
        End::Undone,
    ),
    then(
        "keep_old",
        "undo_cleaned_before_commit",
        &[(FINISHED, UNDO)],
        End::Undone,
    ),
    // AWAITING_FINALIZATION, with a soak and an approval to come.
    Cell {
        after: &[APPROVE],
        ..then("soaking", "", &[(READY, "SELECT 1")], End::Finished)
    },
    at("successor", "expand_before_lock"),
    at("successor", "copy_before_commit"),
    at("successor", "drain_before_commit"),
    at("successor", "check_before_commit"),
    at("successor", "swap_before_lock"),
    at("successor", "swap_before_commit"),
    then(
        "successor_soaking",
        "rollback_before_commit",
        &[(READY, ROLLBACK)],
        End::RolledBack,
    ),
];

/// All other recipes.
pub const OTHERS: [Cell; 47] = [
    said("late", "plan_before_commit", &[ACKNOWLEDGE]),
    said("late", "start_locked", &[ACKNOWLEDGE]),
    // AWAITING_ACTION; and paused.
    Cell {
        after: &[ACKNOWLEDGE],
        ..then("late", "", &[(LATE, "SELECT 1")], End::Finished)
    },
    Cell {
        after: &[
            ("true", "SELECT transmute.resume('m', 'the matrix')"),
            APPROVE,
        ],
        ..then(
            "soaking",
            "",
            &[(
                "transmute.state('m') IN ('RUNNING', 'AWAITING_FINALIZATION')",
                "SELECT transmute.pause('m', 'the matrix')",
            )],
            End::Finished,
        )
    },
    Cell {
        is_call: true,
        after: &[("true", APPLY), APPROVE],
        ..then(
            "soaking",
            "rehearsal_before_undo",
            &[("true", "SELECT transmute.apply('m', dry_run => true)")],
            End::Finished,
        )
    },
    said(
        "poisoned",
        "copy_before_commit",
        &[
            (POISON, MEND),
            (READY, "SELECT transmute.approve('m', 'seen')"),
        ],
    ),
    Cell {
        after: &[
            (POISON, MEND),
            (READY, "SELECT transmute.approve('m', 'seen')"),
        ],
        ..then(
            "poisoned",
            "drain_before_commit",
            &[(READY, POISON_LATE)],
            End::Finished,
        )
    },
    said("all_poison", "copy_before_commit", &[MEND_ALL]),
    said("rule_poison", "rule_fill_before_commit", &[(POISON, MEND)]),
    said("data_poison", "batch_before_commit", &[(POISON, MEND)]),
    at("rule", "rule_make_before_commit"),
    at("rule", "rule_fill_before_commit"),
    at("rule", "rule_filled_before_commit"),
    at("rule", "rule_check_before_commit"),
    at("rule", "rule_end_before_commit"),
    Cell {
        after: &[APPROVE],
        ..at("generated", "rule_make_before_commit")
    },
    Cell {
        after: &[APPROVE],
        ..at("generated", "rule_fill_before_commit")
    },
    then(
        "generated",
        "rule_undo_before_commit",
        &[(READY, ROLLBACK)],
        End::RolledBack,
    ),
    then(
        "kept_columns",
        "let_go_columns_before_commit",
        &[(FINISHED, "SELECT transmute.release_old('m', 'the matrix')")],
        End::LetGo,
    ),
    then(
        "kept_columns",
        "show_before_commit",
        &[(FINISHED, UNDO)],
        End::Undone,
    ),
    then(
        "kept_columns",
        "rule_reopened_before_commit",
        &[(FINISHED, UNDO)],
        End::Undone,
    ),
    then(
        "kept_columns",
        "rule_undo_before_lock",
        &[(FINISHED, UNDO)],
        End::Undone,
    ),
    at("names", "second_name_before_commit"),
    at("names", "alias_before_commit"),
    at("names", "hide_before_commit"),
    at("data", "batch_list_before_commit"),
    at("data", "batch_before_commit"),
    at("data", "batch_done_before_commit"),
    at("data", "data_before_commit"),
    at("by_hand", "hand_batch_before_commit"),
    at("copy", "copy_rows_before_commit"),
    at("copy", "copy_rows_done_before_commit"),
    at("index", "outside_intent_before_commit"),
    at("index", "outside_asked_before_commit"),
    at("index", "outside_taken_before_commit"),
    at("index", "outside_before_statement"),
    Cell {
        once: true,
        ..at("index", "outside_after_statement")
    },
    Cell {
        once: true,
        ..at("index", "outside_report_before_commit")
    },
    at("index", "outside_done_before_commit"),
    at("written", "direct_before_commit"),
    then(
        "stands",
        "back_before_commit",
        &[(FINISHED, "SELECT transmute.down('m', 'the matrix')")],
        End::Undone,
    ),
    said("partitioned", "leaf_built_before_commit", &[APPROVE]),
    then(
        "partitioned",
        "leaf_key_added_before_commit",
        &[(READY, "SELECT transmute.skip_soak('m', 'the matrix')")],
        End::Finished,
    ),
    then(
        "partitioned",
        "leaf_key_proved_before_commit",
        &[(READY, "SELECT transmute.skip_soak('m', 'the matrix')")],
        End::Finished,
    ),
    then(
        "partitioned",
        "leaf_attached_before_commit",
        &[(READY, "SELECT transmute.skip_soak('m', 'the matrix')")],
        End::Finished,
    ),
    then(
        "partitioned",
        "leaf_dropped_before_commit",
        &[(READY, ROLLBACK)],
        End::RolledBack,
    ),
    then(
        "generated",
        "rollback_before_commit",
        &[(READY, ROLLBACK)],
        End::RolledBack,
    ),
];
