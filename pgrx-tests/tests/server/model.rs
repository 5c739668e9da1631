//! Random sequences of calls, with crashes between and under them, against a model that knows nothing but the rules: what a
//! call answers, where the migration may be afterwards, and that the trail is whole.

use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use transmute_tests::{Cluster, Database, Session, StopMode};

use super::scene::{assert_log_is_clean, reconnect};

/// What people, time and accidents do.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Act {
    Apply,
    Pause,
    Resume,
    Approve,
    Revoke,
    Rollback,
    /// Rows that an invariant complains about, and their repair.
    Break,
    Mend,
    /// So many transactions of a driver.
    Drive(u8),
    /// A driver until it stops by itself.
    DriveOn,
    /// A driver that is killed on its way, with the whole server.
    DriveAndCrash(u8),
    Crash,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => Just(Act::Apply),
        1 => Just(Act::Pause),
        2 => Just(Act::Resume),
        1 => Just(Act::Approve),
        1 => Just(Act::Revoke),
        1 => Just(Act::Rollback),
        1 => Just(Act::Break),
        2 => Just(Act::Mend),
        4 => (1..12u8).prop_map(Act::Drive),
        3 => Just(Act::DriveOn),
        2 => (0..60u8).prop_map(Act::DriveAndCrash),
        1 => Just(Act::Crash),
    ]
}

/// The states in the order in which a driver comes by.
const FORWARD: [&str; 6] = [
    "UNINITIALIZED",
    "INITIALIZING",
    "RUNNING",
    "AWAITING_FINALIZATION",
    "FINISHING",
    "FINISHED",
];

/// What the rules say of the one migration there is. Where several things may have happened the next look decides.
#[derive(Clone, Debug)]
struct Model {
    state: String,
    queued: bool,
    paused: bool,
    failed: bool,
    approved: bool,
    back: bool,
    broken: bool,
}

impl Model {
    fn new() -> Model {
        Model {
            state: "UNINITIALIZED".into(),
            queued: false,
            paused: false,
            failed: false,
            approved: false,
            back: false,
            broken: false,
        }
    }

    fn is(&self, states: &[&str]) -> bool {
        states.contains(&self.state.as_str())
    }

    /// Whether a call is allowed; what it changes is done.
    fn call(&mut self, act: Act) -> bool {
        let over = self.is(&["FINISHING", "FINISHED"]);
        match act {
            Act::Apply if self.state == "FINISHED" => return false,
            Act::Apply if !self.queued => {
                self.queued = true;
                self.failed = false;
            }
            Act::Apply => {}
            Act::Pause if !self.queued || self.back || self.state == "ROLLING_BACK" => {
                return false
            }
            Act::Pause => {
                self.paused = true;
                self.failed &= self.state == "AWAITING_ACTION";
            }
            Act::Resume => {
                let waits = self.paused || self.failed || self.state == "AWAITING_ACTION";
                if !self.queued || !waits {
                    return false;
                }
                (self.paused, self.failed) = (false, false);
                if self.state == "AWAITING_ACTION" {
                    self.state = "RUNNING".into();
                }
            }
            Act::Approve if over || self.state == "ROLLING_BACK" => return false,
            Act::Approve => self.approved = true,
            Act::Revoke if over => return false,
            Act::Revoke => self.approved = false,
            Act::Rollback => {
                let begun = self.is(&[
                    "INITIALIZING",
                    "RUNNING",
                    "AWAITING_ACTION",
                    "AWAITING_FINALIZATION",
                ]);
                let waits = self.state == "UNINITIALIZED" && self.queued;
                if !begun && !waits {
                    return false;
                }
                (self.back, self.paused, self.failed, self.queued) = (true, false, false, true);
            }
            _ => unreachable!("{act:?} is no call"),
        }
        true
    }

    /// Whether a driver may have brought it from here to `state`.
    fn may_reach(&self, state: &str) -> bool {
        if self.state == state {
            return true;
        }
        if !self.queued || self.paused {
            return false;
        }
        if self.back || self.state == "ROLLING_BACK" {
            return ["ROLLING_BACK", "UNINITIALIZED"].contains(&state);
        }
        if self.failed {
            return false;
        }
        if state == "AWAITING_ACTION" {
            return self.broken && self.is(&["UNINITIALIZED", "INITIALIZING", "RUNNING"]);
        }
        let place = |s: &str| FORWARD.iter().position(|f| *f == s);
        let (Some(from), Some(to)) = (place(&self.state), place(state)) else {
            return false;
        };
        // Rows that break the invariant are met in RUNNING, and an approval is needed behind AWAITING_FINALIZATION.
        let end = match (self.broken, self.approved) {
            _ if from >= 4 => 5,
            (true, _) if from <= 2 => 2,
            (_, false) => 3,
            (true, true) => 3,
            (false, true) => 5,
        };
        (from..=end).contains(&to)
    }

    /// Where a driver that is not disturbed leaves it.
    fn rest(&self) -> &str {
        if !self.queued || self.paused || self.failed {
            return &self.state;
        }
        if self.back || self.state == "ROLLING_BACK" {
            return "UNINITIALIZED";
        }
        match self.state.as_str() {
            "FINISHING" => "FINISHED",
            "AWAITING_ACTION" | "FINISHED" => &self.state,
            "AWAITING_FINALIZATION" if self.broken || !self.approved => &self.state,
            _ if self.broken && self.state != "AWAITING_FINALIZATION" => "AWAITING_ACTION",
            _ if self.approved => "FINISHED",
            _ => "AWAITING_FINALIZATION",
        }
    }

    /// Takes over what is seen after a driver was at work.
    fn see(&mut self, seen: &[String]) {
        let [state, queued, paused, failed, back] = seen else {
            panic!("{seen:?}")
        };
        assert!(
            self.may_reach(state),
            "{state} cannot be reached from {self:?}"
        );
        assert_eq!(
            *paused == "t",
            self.paused && *state == self.state,
            "paused: {self:?}"
        );
        self.state = state.clone();
        self.queued = queued == "t";
        let had_failed = self.failed;
        self.failed = failed == "t";
        self.back = back == "t";
        let rests = ["FINISHED", "UNINITIALIZED"].contains(&state.as_str());
        assert!(self.queued || rests, "{self:?}");
        let reason = self.broken || had_failed;
        assert!(!self.failed || reason, "failed without a reason: {self:?}");
    }
}

const SEEN: &str = "SELECT state, queued, paused_reason IS NOT NULL,
    next_attempt_at IS NOT DISTINCT FROM 'infinity', rollback_reason IS NOT NULL FROM _transmute.migrations WHERE id = 'm'";

fn look(session: &mut Session) -> Vec<String> {
    session.lines(SEEN)[0]
        .split('|')
        .map(str::to_string)
        .collect()
}

fn sequence(cluster: &Cluster, acts: &[Act]) {
    let database = Database::create(cluster);
    let mut session = database.connect();
    session.exec(
        r#"CREATE TABLE t (id int PRIMARY KEY, a int NOT NULL) WITH (fillfactor = 10);
           INSERT INTO t SELECT i, i FROM generate_series(1, 300) AS i;
           SELECT transmute.register('m', 'ALTER TABLE t ALTER COLUMN a TYPE bigint', meta => '{"required_approvals": 1, "invariants": [
             {"name": "during", "phase": "DURING_RUN", "sql": "SELECT id FROM t WHERE a < 0"},
             {"name": "before", "phase": "PRE_FINALIZATION", "sql": "SELECT id FROM t WHERE a < 0"}]}')"#,
    );
    let fingerprint = "SELECT _transmute.fingerprint('t'::regclass)";
    let before: String = session.scalar(fingerprint);
    let mut model = Model::new();
    for (i, act) in acts.iter().copied().enumerate() {
        let done = &acts[..=i];
        match act {
            Act::Break | Act::Mend => {
                let sign = if act == Act::Break { "-" } else { "" };
                session.exec(&format!("UPDATE t SET a = {sign}abs(a) WHERE id = 7"));
                // As if that had been long after the last look.
                session.exec("UPDATE _transmute.invariants SET checked_at = checked_at - interval '1 minute'");
                model.broken = act == Act::Break;
            }
            Act::Crash => {
                drop(session);
                cluster.kill9();
                cluster.start();
                session = reconnect(&database);
            }
            Act::Drive(steps) => {
                session.exec(&format!("CALL transmute.run('m', max_steps => {steps})"))
            }
            Act::DriveOn => {
                session.exec("SET statement_timeout = '60 s'");
                session.exec("CALL transmute.run('m')");
                let seen = look(&mut session);
                assert_eq!(seen[0], model.rest(), "{done:?}");
            }
            Act::DriveAndCrash(ms) => {
                let driver = session.in_background("CALL transmute.run('m')");
                std::thread::sleep(Duration::from_millis(ms.into()));
                if ms % 2 == 0 {
                    cluster.kill9();
                    cluster.start();
                } else {
                    cluster.restart(StopMode::Immediate);
                }
                let _ = driver.join();
                session = reconnect(&database);
            }
            call => {
                let allowed = model.call(call);
                let sql = match call {
                    Act::Apply => "apply('m')",
                    Act::Pause => "pause('m', 'x')",
                    Act::Resume => "resume('m', 'x')",
                    Act::Approve => "approve('m', 'x')",
                    Act::Revoke => "revoke_approval('m', 'x')",
                    _ => "rollback('m', 'x')",
                };
                match session.try_exec(&format!("SELECT transmute.{sql}")) {
                    Ok(()) => assert!(allowed, "{sql} was answered: {model:?}, {done:?}"),
                    Err(error) => {
                        assert!(!allowed, "{sql}: {error}: {model:?}, {done:?}");
                        assert_eq!(error.sqlstate, "55000", "{error}");
                    }
                }
            }
        }
        let seen = look(&mut session);
        model.see(&seen);
        assert_eq!(
            session.lines("SELECT ok FROM transmute.audit_verify()"),
            ["t"],
            "{done:?}"
        );
        let to_bigint = session.lines("SELECT atttypid = 'bigint'::regtype FROM pg_attribute WHERE attrelid = 't'::regclass AND attname = 'a'");
        assert_eq!(
            to_bigint == ["t"],
            model.is(&["FINISHING", "FINISHED"]),
            "{done:?}"
        );
        if model.state == "UNINITIALIZED" {
            assert_eq!(session.scalar::<String>(fingerprint), before, "{done:?}");
        }
    }
    // The trail tells the same story as the row.
    assert_eq!(
        session.lines("SELECT coalesce((SELECT to_state FROM transmute.history WHERE to_state IS NOT NULL ORDER BY seq DESC LIMIT 1), 'UNINITIALIZED') = transmute.state('m')"),
        ["t"]
    );
    let broken_chain = session.lines(
        "SELECT from_state, to_state FROM (SELECT seq, from_state, to_state, lag(to_state, 1, 'UNINITIALIZED') OVER (ORDER BY seq) AS before
           FROM transmute.history WHERE to_state IS NOT NULL) AS h WHERE before <> from_state",
    );
    assert_eq!(broken_chain, [""; 0]);
    assert_eq!(
        session.lines("SELECT count(*) FROM t WHERE abs(a) <> id"),
        ["0"]
    );
}

#[test]
fn random_sequences_of_calls_and_crashes_go_as_the_model_says() {
    let cluster = Cluster::builder()
        .without_preload()
        .conf("transmute.batch_target_ms = 1")
        .start();
    let mut runner = TestRunner::new(Config {
        cases: 12,
        max_shrink_iters: 0,
        failure_persistence: None,
        ..Config::default()
    });
    runner
        .run(&proptest::collection::vec(act(), 8..20), |acts| {
            sequence(&cluster, &acts);
            Ok(())
        })
        .unwrap();
    // The straight way, which random ones may miss.
    sequence(
        &cluster,
        &[
            Act::Apply,
            Act::DriveAndCrash(5),
            Act::DriveOn,
            Act::Break,
            Act::Approve,
            Act::DriveOn,
            Act::Mend,
            Act::Resume,
            Act::DriveAndCrash(20),
            Act::DriveOn,
        ],
    );
    assert_log_is_clean(&cluster);
}
