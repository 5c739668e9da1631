//! Random sequences of calls, with crashes between and under them, against a model that knows nothing but the rules: what a
//! call answers, where the migration may be afterwards, and that the trail is whole.

use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use transmute_tests::tools::project_root;
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
    /// All migrations of the database.
    Stop,
    ResumeAll,
    Tune,
    /// Nothing is to be done outside of the database.
    Acknowledge,
    /// Of rows that are set aside, of which there are none.
    Retry,
    Discard,
    Purge,
    /// Looks at the rows once more, before it is applied.
    Preflight,
    Undo,
    ReleaseOld,
    SkipSoak,
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
        1 => Just(Act::Stop),
        2 => Just(Act::ResumeAll),
        1 => Just(Act::Tune),
        1 => Just(Act::Acknowledge),
        1 => Just(Act::Retry),
        1 => Just(Act::Discard),
        1 => Just(Act::Purge),
        1 => Just(Act::Preflight),
        1 => Just(Act::Undo),
        1 => Just(Act::ReleaseOld),
        1 => Just(Act::SkipSoak),
        1 => Just(Act::Break),
        2 => Just(Act::Mend),
        4 => (1..12u8).prop_map(Act::Drive),
        3 => Just(Act::DriveOn),
        2 => (0..60u8).prop_map(Act::DriveAndCrash),
        1 => Just(Act::Crash),
    ]
}

/// What people call, as text.
const CALLS: [(Act, &str); 17] = [
    (Act::Apply, "apply('m')"),
    (Act::Pause, "pause('m', 'x')"),
    (Act::Resume, "resume('m', 'x')"),
    (Act::Approve, "approve('m', 'x')"),
    (Act::Revoke, "revoke_approval('m', 'x')"),
    (Act::Rollback, "rollback('m', 'x')"),
    (Act::Stop, "emergency_stop('x')"),
    (Act::ResumeAll, "resume_all('x')"),
    (Act::Tune, "tune('m', 'x', batch_target_ms => 2)"),
    (Act::Acknowledge, "acknowledge('m', 'x')"),
    (Act::Retry, "replay_dead_letters('m')"),
    (Act::Discard, "discard_dead_letters('m', NULL, 'x')"),
    (Act::Purge, "purge_dead_letters('m', 'discarded')"),
    (Act::Preflight, "preflight('m')"),
    (Act::Undo, "undo('m', 'x')"),
    (Act::ReleaseOld, "release_old('m', 'x')"),
    (Act::SkipSoak, "skip_soak('m', 'x')"),
];

/// Calls about one migration that the model does not make.
const LEFT_OUT: [(&str, &str); 2] = [
    (
        "amend",
        "another plan, of which no approval counts: e2e/amend.rs, amend_crash.rs",
    ),
    (
        "down",
        "another migration, of the same table: e2e/down.rs, verbs_crash.rs",
    ),
];

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
    stopped: bool,
    /// The old rows are kept current behind the end.
    keeps_old: bool,
    undo: bool,
    undone: bool,
    /// A driver was at work since the undo was asked for: it may have begun, and is not withdrawn then.
    undo_driven: bool,
    released: bool,
}

impl Model {
    fn new(keeps_old: bool) -> Model {
        Model {
            state: "UNINITIALIZED".into(),
            queued: false,
            paused: false,
            failed: false,
            approved: false,
            back: false,
            broken: false,
            stopped: false,
            keeps_old,
            undo: false,
            undone: false,
            undo_driven: false,
            released: false,
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
            Act::Stop if self.stopped => return false,
            Act::Stop => self.stopped = true,
            Act::ResumeAll if !self.stopped => return false,
            Act::ResumeAll => self.stopped = false,
            Act::Tune => return self.state != "FINISHED" || self.queued,
            Act::Acknowledge => return false,
            Act::Retry | Act::Discard => {
                return self.is(&[
                    "RUNNING",
                    "AWAITING_ACTION",
                    "AWAITING_FINALIZATION",
                    "FINISHING",
                ])
            }
            Act::Purge => return self.is(&["UNINITIALIZED", "FINISHED"]),
            Act::Preflight => return self.state == "UNINITIALIZED" && !self.queued,
            Act::Undo => {
                let may =
                    self.state == "FINISHED" && self.keeps_old && !self.undo && !self.released;
                self.undo |= may;
                return may;
            }
            Act::ReleaseOld => {
                let may = self.state == "FINISHED" && self.keeps_old && !self.undone;
                if may {
                    (self.released, self.undo) = (true, false);
                }
                return may;
            }
            Act::SkipSoak => {
                return self.state == "AWAITING_FINALIZATION"
                    || self.state == "UNINITIALIZED" && self.queued
            }
            _ => unreachable!("{act:?} is no call"),
        }
        true
    }

    /// Whether what a call answers depends on how far drivers got.
    fn is_open(&self, act: Act) -> bool {
        act == Act::ReleaseOld && (self.released || self.undo && self.undo_driven)
    }

    /// Whether a driver may have brought it from here to `state`.
    fn may_reach(&self, state: &str) -> bool {
        if self.state == state {
            return true;
        }
        if !self.queued || self.paused || self.stopped {
            return false;
        }
        if self.back || self.state == "ROLLING_BACK" {
            return ["ROLLING_BACK", "UNINITIALIZED"].contains(&state);
        }
        if self.failed {
            return false;
        }
        if state == "AWAITING_ACTION" {
            let last_look = self.state == "AWAITING_FINALIZATION" && self.approved;
            let on_the_way = self.is(&["UNINITIALIZED", "INITIALIZING", "RUNNING"]);
            return self.broken && (on_the_way || last_look);
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
        if !self.queued || self.paused || self.failed || self.stopped {
            return &self.state;
        }
        if self.back || self.state == "ROLLING_BACK" {
            return "UNINITIALIZED";
        }
        match self.state.as_str() {
            "FINISHING" => "FINISHED",
            "AWAITING_ACTION" | "FINISHED" => &self.state,
            "AWAITING_FINALIZATION" if !self.approved => &self.state,
            _ if self.broken => "AWAITING_ACTION",
            _ if self.approved => "FINISHED",
            _ => "AWAITING_FINALIZATION",
        }
    }

    /// Takes over what is seen after a driver was at work.
    fn see(&mut self, seen: &[String]) {
        let [state, queued, paused, failed, back, undone] = seen else {
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
        assert!(
            undone == "f" || self.undo && (self.undone || !self.stopped),
            "undone: {self:?}"
        );
        self.undone = undone == "t";
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
    next_attempt_at IS NOT DISTINCT FROM 'infinity', rollback_reason IS NOT NULL, undone_at IS NOT NULL FROM _transmute.migrations WHERE id = 'm'";

fn look(session: &mut Session) -> Vec<String> {
    session.lines(SEEN)[0]
        .split('|')
        .map(str::to_string)
        .collect()
}

fn sequence(cluster: &Cluster, acts: &[Act], keeps_old: bool) {
    let database = Database::create(cluster);
    let mut session = database.connect();
    let keep = if keeps_old {
        r#""keep_old": "1 day", "#
    } else {
        ""
    };
    session.exec(&
        r#"CREATE TABLE t (id int PRIMARY KEY, a int NOT NULL) WITH (fillfactor = 10);
           INSERT INTO t SELECT i, i FROM generate_series(1, 300) AS i;
           SELECT transmute.register('m', 'ALTER TABLE t ALTER COLUMN a TYPE bigint', meta => '{KEEP"required_approvals": 1, "invariants": [
             {"name": "during", "phase": "DURING_RUN", "sql": "SELECT id FROM t WHERE a < 0"},
             {"name": "before", "phase": "PRE_FINALIZATION", "sql": "SELECT id FROM t WHERE a < 0"}]}')"#.replace("KEEP", keep),
    );
    let fingerprint = "SELECT _transmute.fingerprint('t'::regclass)";
    let before: String = session.scalar(fingerprint);
    let mut model = Model::new(keeps_old);
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
                let goes_back = model.undo && !model.stopped;
                assert_eq!(seen[5] == "t", goes_back || model.undone, "{done:?}");
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
                let (open, before) = (model.is_open(call), model.clone());
                let allowed = model.call(call);
                let (_, sql) = CALLS.iter().find(|(act, _)| *act == call).expect("a call");
                match session.try_exec(&format!("SELECT transmute.{sql}")) {
                    Ok(()) => assert!(allowed, "{sql} was answered: {model:?}, {done:?}"),
                    Err(error) => {
                        assert!(!allowed || open, "{sql}: {error}: {model:?}, {done:?}");
                        assert_eq!(error.sqlstate, "55000", "{error}");
                        if allowed {
                            model = before;
                        }
                    }
                }
            }
        }
        let seen = look(&mut session);
        model.see(&seen);
        let drives = matches!(act, Act::Drive(_) | Act::DriveOn | Act::DriveAndCrash(_));
        model.undo_driven = model.undo && (model.undo_driven || drives);
        assert_eq!(
            session.lines("SELECT ok FROM transmute.audit_verify()"),
            ["t"],
            "{done:?}"
        );
        let to_bigint = session.lines("SELECT atttypid = 'bigint'::regtype FROM pg_attribute WHERE attrelid = 't'::regclass AND attname = 'a'");
        assert_eq!(
            to_bigint == ["t"],
            model.is(&["FINISHING", "FINISHED"]) && !model.undone,
            "{done:?}"
        );
        if model.state == "UNINITIALIZED" || model.undone {
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
fn every_call_about_one_migration_is_in_the_model_or_left_out_for_a_reason() {
    let page = std::fs::read_to_string(project_root().join("docs/calls.md")).unwrap();
    let header = page.lines().find(|line| line.starts_with('|')).unwrap();
    let made = CALLS.iter().map(|(_, sql)| sql.split('(').next().unwrap());
    let known: Vec<&str> = made
        .chain(LEFT_OUT.iter().map(|(call, reason)| {
            assert!(!reason.is_empty());
            *call
        }))
        .collect();
    for call in header.trim_matches('|').split('|').skip(1) {
        let call = call.trim();
        assert!(known.contains(&call), "the model knows nothing of {call}");
    }
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
            sequence(&cluster, &acts, false);
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
            Act::Stop,
            Act::DriveAndCrash(6),
            Act::DriveOn,
            Act::Tune,
            Act::ResumeAll,
            Act::DriveAndCrash(20),
            Act::DriveOn,
            Act::Stop,
            Act::Undo,
            Act::DriveOn,
            Act::Crash,
            Act::Undo,
            Act::ResumeAll,
            Act::DriveAndCrash(4),
            Act::DriveOn,
            Act::Undo,
            Act::ReleaseOld,
            Act::Tune,
        ],
        true,
    );
    // An invariant that breaks behind the soak: stopped by the last look, with crashes on either side of it.
    sequence(
        &cluster,
        &[
            Act::Preflight,
            Act::Apply,
            Act::DriveOn,
            Act::Break,
            Act::DriveOn,
            Act::Approve,
            Act::DriveAndCrash(8),
            Act::DriveOn,
            Act::Resume,
            Act::DriveOn,
            Act::Crash,
            Act::Mend,
            Act::Resume,
            Act::DriveAndCrash(10),
            Act::DriveOn,
            Act::Purge,
        ],
        false,
    );
    sequence(
        &cluster,
        &[
            Act::Apply,
            Act::DriveOn,
            Act::Break,
            Act::Approve,
            Act::DriveOn,
            Act::Pause,
            Act::Resume,
            Act::DriveOn,
            Act::Rollback,
            Act::DriveAndCrash(9),
            Act::DriveOn,
        ],
        false,
    );
    // An undo that is withdrawn before it has begun, and old rows that go.
    sequence(
        &cluster,
        &[
            Act::ReleaseOld,
            Act::Apply,
            Act::SkipSoak,
            Act::Approve,
            Act::DriveOn,
            Act::SkipSoak,
            Act::Undo,
            Act::ReleaseOld,
            Act::Undo,
            Act::DriveAndCrash(6),
            Act::DriveOn,
            Act::ReleaseOld,
            Act::Undo,
            Act::Rollback,
        ],
        true,
    );
    assert_log_is_clean(&cluster);
}
