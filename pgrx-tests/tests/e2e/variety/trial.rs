//! One case on two databases: the plain ALTER in the one, the migration in the other.

use transmute_tests::wait::PATIENCE;
use transmute_tests::{Cluster, Database, Session};

use super::case::{Case, AT_THE_END, META};
use super::naming::literal;
use super::proof::{exec, lines, require, require_sound, rows, Outcome, Picture};

/// Feature not supported: what ALTER TABLE says of a view, a policy or a trigger in its way.
const IN_ITS_WAY: &str = "0A000";

pub struct Trial {
    pub reference: Session,
    pub migrated: Session,
    number: u32,
    _databases: [Database<'static>; 2],
}

impl Trial {
    pub fn new(cluster: &'static Cluster) -> Trial {
        let databases = [Database::create(cluster), Database::create(cluster)];
        let [reference, migrated] = &databases;
        let open = |database: &Database<'static>| {
            let mut session = database.connect();
            session.exec("CREATE EXTENSION amcheck; CREATE EXTENSION btree_gist; SET search_path = pg_catalog; SET client_min_messages = warning");
            session.exec("GRANT EXECUTE ON ALL ROUTINES IN SCHEMA transmute TO variety_owner");
            session
        };
        Trial {
            reference: open(reference),
            migrated: open(migrated),
            number: 0,
            _databases: databases,
        }
    }

    /// Both sides go through `setup` and a `way`; whatever happens, nothing of the case is left.
    pub fn run(&mut self, case: &Case, way: fn(&mut Trial, &Case) -> Outcome<()>) -> Outcome<()> {
        for sql in case.setup() {
            self.on_both(&sql)?;
        }
        self.pictures(case, &[], "before")?;
        way(self, case)?;
        self.clean(case)
    }

    fn clean(&mut self, case: &Case) -> Outcome<()> {
        self.drop_artifacts()?;
        for session in [&mut self.reference, &mut self.migrated] {
            let publications = "SELECT format('DROP PUBLICATION %I', pubname) FROM pg_publication";
            for sql in lines(session, publications)? {
                exec(session, &sql)?;
            }
            exec(session, &case.fill_in("DROP SCHEMA {s} CASCADE"))?;
        }
        Ok(())
    }

    /// Both databases say the same of the table.
    fn pictures(&mut self, case: &Case, volatile: &[String], what: &str) -> Outcome<()> {
        let (table, queries) = (case.table(), case.queries());
        let reference = Picture::take(&mut self.reference, &table, volatile, &queries)?;
        Picture::take(&mut self.migrated, &table, volatile, &queries)?
            .require_equal(&reference, what)
    }

    /// What fails on the reference is the fault of the case.
    pub fn on_both(&mut self, sql: &str) -> Outcome<()> {
        exec(&mut self.reference, sql).map_err(|error| format!("plain: {error}"))?;
        exec(&mut self.migrated, sql)
    }

    /// Starts a migration as whoever does so in this case; its id, when it waits for its approval.
    fn start(&mut self, case: &Case, alter: &str) -> Outcome<String> {
        let id = self.next_id();
        let session = &mut self.migrated;
        exec(
            session,
            &format!("SET SESSION AUTHORIZATION {}", case.actor()),
        )?;
        exec(
            session,
            &format!(
                "SELECT transmute.migrate({}, '{id}', '{META}')",
                literal(&format!("{alter}{AT_THE_END}"))
            ),
        )?;
        exec(session, "RESET SESSION AUTHORIZATION")?;
        self.wait(&id, "AWAITING_FINALIZATION")?;
        Ok(id)
    }

    pub fn next_id(&mut self) -> String {
        self.number += 1;
        format!("case-{}", self.number)
    }

    pub fn finish(&mut self, id: &str) -> Outcome<()> {
        exec(
            &mut self.migrated,
            &format!("SELECT transmute.approve('{id}', 'as agreed')"),
        )?;
        self.wait(id, "FINISHED")
    }

    /// The case's change; the application writes to both tables while it waits.
    fn start_and_write(&mut self, case: &Case) -> Outcome<String> {
        let id = self.start(case, &case.alter())?;
        for sql in case.writes() {
            self.on_both(&sql)?;
        }
        Ok(id)
    }

    pub fn wait(&mut self, id: &str, state: &str) -> Outcome<()> {
        let result = exec(
            &mut self.migrated,
            &format!("CALL transmute.wait('{id}', '{state}', '60 s')"),
        );
        result.or_else(|error| {
            let seen = lines(
                &mut self.migrated,
                &format!(
                    "SELECT state, step, waiting_for, last_error, dead_letters FROM transmute.status WHERE id = '{id}'
                     UNION ALL SELECT key, sqlstate, message, detail, NULL FROM transmute.dead_letters WHERE id = '{id}'"
                ),
            )?;
            Err(format!("{error}\n  status: {seen:#?}"))
        })
    }

    /// Gone like an artifact whose time is over; the table must not miss it.
    pub fn drop_artifacts(&mut self) -> Outcome<()> {
        let schemas = "SELECT format('DROP SCHEMA %I CASCADE', nspname) FROM pg_namespace WHERE nspname LIKE '\\_transmute\\_%'";
        for sql in lines(&mut self.migrated, schemas)? {
            exec(&mut self.migrated, &sql)?;
        }
        Ok(())
    }

    /// Hidden columns are dropped, as when their time is over.
    pub fn expire_columns(&mut self) -> Outcome<()> {
        let due =
            "SELECT count(*) FROM transmute.artifacts WHERE kind = 'column' AND dropped_at IS NULL";
        if lines(&mut self.migrated, due)? == ["0"] {
            return Ok(());
        }
        exec(
            &mut self.migrated,
            "UPDATE _transmute.artifacts SET expires_at = now() WHERE kind = 'column'",
        )?;
        let id = self.next_id();
        exec(
            &mut self.migrated,
            &format!("SELECT transmute.register('{id}', 'DO $$BEGIN END$$'); SELECT transmute.apply('{id}')"),
        )?;
        self.migrated.wait_for(due, "0", PATIENCE);
        Ok(())
    }

    /// The plain ALTER, with what it refuses to work around dropped and made again by hand.
    fn alter_reference(&mut self, case: &Case, alter: String) -> Outcome<()> {
        match self.reference.try_exec(&alter) {
            Ok(()) => {}
            Err(error) if error.sqlstate == IN_ITS_WAY => {
                let all = case.unmake().into_iter().chain([alter]).chain(case.make());
                for sql in all {
                    exec(&mut self.reference, &sql).map_err(|error| format!("plain: {error}"))?;
                }
            }
            Err(error) => return Err(format!("plain: {error}\n  in: {alter}")),
        }
        // A migration widens the sequence of a serial column with its column; plain ALTER leaves it to run out.
        let narrow = format!(
            "SELECT format('ALTER SEQUENCE %s AS bigint', q.seqrelid::regclass)
             FROM pg_depend AS d JOIN pg_sequence AS q ON q.seqrelid = d.objid
             JOIN pg_attribute AS a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
             WHERE d.classid = 'pg_class'::regclass AND d.refobjid = {}::regclass AND d.deptype = 'a'
               AND a.atttypid = 'bigint'::regtype AND q.seqtypid = 'integer'::regtype",
            literal(&case.table())
        );
        for sql in lines(&mut self.reference, &narrow)? {
            exec(&mut self.reference, &sql)?;
        }
        Ok(())
    }

    /// Nothing is left in the catalogs that the application would meet.
    fn require_no_traces(&mut self, case: &Case, schemas: &[&str]) -> Outcome<()> {
        let triggers = format!(
            "SELECT tgname FROM pg_trigger WHERE tgrelid = {}::regclass AND tgname LIKE '\\_transmute%'",
            literal(&case.table())
        );
        let found = lines(&mut self.migrated, &triggers)?;
        require(
            found.is_empty(),
            &format!("capture triggers left: {found:?}"),
        )?;
        let found = lines(
            &mut self.migrated,
            "SELECT nspname FROM pg_namespace WHERE nspname LIKE '\\_transmute\\_%' ORDER BY 1",
        )?;
        require(
            found == schemas,
            &format!("schemas left: {found:?}, expected {schemas:?}"),
        )
    }
}

/// Apply, let the application write, finish: everything is as after the plain ALTER, and the old rows are kept. Then another
/// change of the same table.
pub fn forward(trial: &mut Trial, case: &Case) -> Outcome<()> {
    let table = case.table();
    let mut volatile = case.volatile();
    let id = trial.start_and_write(case)?;
    let old_rows = rows(&mut trial.reference, &table, &[])?;
    trial.finish(&id)?;
    trial.alter_reference(case, case.alter())?;

    trial.pictures(case, &volatile, "after the change")?;
    require_sound(&mut trial.migrated, &table)?;
    require_artifact(trial, case, &id, &old_rows)?;
    trial.drop_artifacts()?;
    trial.on_both(&case.later_rows())?;
    for word in case.change.distinct {
        let sql = case.fill_in(&format!(
            "SELECT count(*) = count(DISTINCT «{word}») FROM {{t}}"
        ));
        let answer = lines(&mut trial.migrated, &sql)?;
        require(answer == ["t"], &format!("values of {word} repeat"))?;
    }

    let again = case.fill_in(
        "ALTER TABLE {t} ALTER «m» TYPE bigint, ADD «again» timestamptz DEFAULT clock_timestamp()",
    );
    volatile.push(case.naming.name("again"));
    let id = trial.start(case, &again)?;
    trial.finish(&id)?;
    trial.alter_reference(case, again)?;
    trial.pictures(case, &volatile, "after another change")?;
    trial.on_both(&format!("VACUUM (FULL) {table}"))?;
    trial.on_both(&format!("REINDEX TABLE {table}"))?;
    trial.pictures(case, &volatile, "after VACUUM FULL and REINDEX")?;
    require_sound(&mut trial.migrated, &table)
}

/// The artifact holds the rows as they were, and is all that is left.
fn require_artifact(trial: &mut Trial, case: &Case, id: &str, old_rows: &[String]) -> Outcome<()> {
    let artifacts = lines(
        &mut trial.migrated,
        &format!("SELECT physical FROM transmute.artifacts WHERE id = '{id}'"),
    )?;
    match artifacts.as_slice() {
        [artifact] => {
            let kept = rows(&mut trial.migrated, artifact, &[])?;
            require(kept == old_rows, "the artifact does not hold the old rows")?;
            require_sound(&mut trial.migrated, artifact)?;
            let schema = artifact.split('.').next().unwrap_or_default();
            trial.require_no_traces(case, &[schema])
        }
        [] if case.change.may_stay => trial.require_no_traces(case, &[]),
        _ => Err(format!("artifacts: {artifacts:?}")),
    }
}

/// Apply, let the application write, roll back: the table never knew. Then the same migration once more, to its end.
pub fn back(trial: &mut Trial, case: &Case) -> Outcome<()> {
    let table = case.table();
    let id = trial.start_and_write(case)?;
    exec(
        &mut trial.migrated,
        &format!("SELECT transmute.rollback('{id}', 'changed our mind')"),
    )?;
    trial.wait(&id, "UNINITIALIZED")?;
    trial.pictures(case, &[], "after the rollback")?;
    trial.require_no_traces(case, &[])?;
    require_sound(&mut trial.migrated, &table)?;
    trial.on_both(&format!("VACUUM (FULL) {table}"))?;
    trial.pictures(case, &[], "after the rollback and VACUUM FULL")?;

    exec(
        &mut trial.migrated,
        &format!("SELECT FROM transmute.apply('{id}')"),
    )?;
    trial.wait(&id, "AWAITING_FINALIZATION")?;
    trial.finish(&id)?;
    trial.alter_reference(case, case.alter())?;
    trial.pictures(case, &case.volatile(), "after the second attempt")?;
    require_sound(&mut trial.migrated, &table)
}
