//! A migration in each of its states, one database each: what happens to it from outside must not depend on where it is.

use transmute_tests::wait::PATIENCE;
use transmute_tests::waitpoint::Waitpoints;
use transmute_tests::{Cluster, Database, Session};

use super::scene::{apply, create_table, wait_state, ID};

const RETYPE: &str = "ALTER TABLE t ALTER COLUMN a TYPE bigint";
const PLAIN: &str = "{}";
const SOAK: &str = r#"{"required_approvals": 1}"#;

/// Where a migration stands, and how it is brought there.
pub struct Stage {
    pub name: &'static str,
    pub state: &'static str,
    script: &'static str,
    meta: &'static str,
    /// It stands at this waitpoint, in a transaction that is not committed.
    at: Option<&'static str>,
    /// What brings it there once it waits for its approval.
    then: Option<&'static str>,
}

const fn stage(name: &'static str, state: &'static str, script: &'static str) -> Stage {
    Stage {
        name,
        state,
        script,
        meta: SOAK,
        at: None,
        then: None,
    }
}

impl Stage {
    const fn at(self, waitpoint: &'static str) -> Stage {
        Stage {
            at: Some(waitpoint),
            ..self
        }
    }

    const fn meta(self, meta: &'static str) -> Stage {
        Stage { meta, ..self }
    }

    const fn then(self, call: &'static str) -> Stage {
        Stage {
            then: Some(call),
            ..self
        }
    }

    /// Whether something of ours hangs on the table, or may at any moment.
    pub fn is_under_way(&self) -> bool {
        !matches!(self.state, "UNINITIALIZED" | "FINISHED") || self.name == "kept"
    }
}

/// In the order of a life.
pub const STAGES: &[Stage] = &[
    stage("registered", "UNINITIALIZED", RETYPE).meta("unapplied"),
    stage("queued", "UNINITIALIZED", RETYPE).meta(r#"{"pre_execution_soak": "1 hour"}"#),
    stage("expanding", "INITIALIZING", RETYPE).at("expand_before_commit"),
    stage("copying", "RUNNING", RETYPE).at("rewrite_copy_done_before_commit"),
    stage("indexing", "RUNNING", "CREATE INDEX late ON t (note)").at("outside_done_before_commit"),
    stage("checking", "RUNNING", RETYPE).at("check_before_commit"),
    stage("waiting for a person", "AWAITING_ACTION", RETYPE)
        .meta(r#"{"requires_external_action": true}"#),
    stage("soaking", "AWAITING_FINALIZATION", RETYPE),
    stage(
        "two names",
        "AWAITING_FINALIZATION",
        "ALTER TABLE t RENAME COLUMN a TO b",
    ),
    stage(
        "two columns",
        "AWAITING_FINALIZATION",
        "ALTER TABLE t ADD COLUMN b bigint; UPDATE t SET b = a * 2; ALTER TABLE t DROP COLUMN a",
    )
    .meta(r#"{"required_approvals": 1, "dual_write": "trigger", "reverse": {"a": "b / 2"}}"#),
    stage("changing rows", "FINISHING", "UPDATE t SET a = a + 1")
        .meta(PLAIN)
        .at("batch_before_commit"),
    stage("finished", "FINISHED", RETYPE).meta(PLAIN),
    stage("kept", "FINISHED", RETYPE).meta(r#"{"keep_old": "1 day"}"#),
    stage("rolling back", "ROLLING_BACK", RETYPE)
        .then("SELECT transmute.rollback('m', 'a test')")
        .at("rollback_before_commit"),
];

/// A database in which a migration has come to a stage; it stays there while this lives, or until `let_go`.
pub struct Held<'c> {
    pub stage: &'static Stage,
    pub database: Database<'c>,
    waitpoints: Option<Waitpoints>,
}

impl<'c> Held<'c> {
    /// All stages of `chosen`, side by side.
    pub fn all(cluster: &'c Cluster, rows: i32, chosen: impl Fn(&Stage) -> bool) -> Vec<Held<'c>> {
        Held::all_of(cluster, rows, None, chosen)
    }

    /// The same with the table of one role and the migration of another.
    pub fn all_of(
        cluster: &'c Cluster,
        rows: i32,
        roles: Option<(&str, &str)>,
        chosen: impl Fn(&Stage) -> bool,
    ) -> Vec<Held<'c>> {
        let template = Database::create(cluster);
        let mut session = template.connect();
        create_table(&mut session, rows);
        if let Some((owner, migrator)) = roles {
            session.exec(&format!(
                "ALTER TABLE t OWNER TO {owner}; GRANT CREATE ON SCHEMA public TO {owner};
                 GRANT transmute_operator TO {migrator}"
            ));
        }
        drop(session);
        let begun: Vec<Held<'c>> = STAGES
            .iter()
            .filter(|stage| chosen(stage))
            .map(|stage| Held::begin(&template, stage, roles.map(|(_, migrator)| migrator)))
            .collect();
        begun.into_iter().map(Held::arrive).collect()
    }

    fn begin(template: &Database<'c>, stage: &'static Stage, role: Option<&str>) -> Held<'c> {
        let database = Database::copy_of(template);
        let mut session = database.connect_as(role.unwrap_or("postgres"));
        let waitpoints = stage.at.map(|point| {
            let mut waitpoints = Waitpoints::of(&database);
            waitpoints.hold(point);
            waitpoints
        });
        match stage.meta {
            "unapplied" => session.exec(&format!("SELECT transmute.register('{ID}', '{RETYPE}')")),
            meta => apply(&mut session, stage.script, meta),
        }
        Held {
            stage,
            database,
            waitpoints,
        }
    }

    fn arrive(mut self) -> Held<'c> {
        let mut session = self.database.connect();
        if let Some(call) = self.stage.then {
            wait_state(&mut session, "AWAITING_FINALIZATION");
            session.exec(call);
        }
        if let (Some(waitpoints), Some(point)) = (&mut self.waitpoints, self.stage.at) {
            waitpoints.wait_reached(point, PATIENCE);
        }
        wait_state(&mut session, self.stage.state);
        self
    }

    pub fn connect(&self) -> Session {
        self.database.connect()
    }

    pub fn is_at_waitpoint(&self) -> bool {
        self.waitpoints.is_some()
    }

    /// What stood at a waitpoint goes on.
    pub fn let_go(&mut self) {
        self.waitpoints = None;
    }

    /// Takes it to an end from wherever it is: back where that is possible, else on.
    pub fn end(&mut self, session: &mut Session) {
        self.let_go();
        let name = self.stage.name;
        match self.stage.state {
            "FINISHED" if name == "kept" => {
                session.exec(&format!("SELECT transmute.release_old('{ID}', 'a test')"));
                session.wait_for(
                    "SELECT bool_or(queued) FROM _transmute.migrations",
                    "f",
                    PATIENCE,
                );
            }
            "FINISHED" | "UNINITIALIZED" => {}
            "FINISHING" => wait_state(session, "FINISHED"),
            state => {
                if state != "ROLLING_BACK" {
                    let back =
                        session.try_exec(&format!("SELECT transmute.rollback('{ID}', 'a test')"));
                    // What only adds may have come to its end meanwhile.
                    if back.is_err() {
                        return wait_state(session, "FINISHED");
                    }
                }
                super::scene::wait_rolled_back(session);
            }
        }
    }
}
