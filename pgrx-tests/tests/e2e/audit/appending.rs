//! Many sessions that append at once.

use transmute_tests::{Database, DbError};

use super::{independent_verdict, verdict};

#[test]
fn sixteen_sessions_append_one_chain_under_every_isolation_level() {
    const SESSIONS: usize = 16;
    const ACTS: usize = 10;
    let database = Database::shared();
    let levels = ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"];
    let threads: Vec<_> = (0..SESSIONS)
        .map(|number| {
            let mut session = database.connect();
            std::thread::spawn(move || {
                let mut retries = 0;
                for act in 0..ACTS {
                    let register = |what: &str| {
                        format!("SELECT transmute.register('{what}-{number}-{act}', 'COMMENT ON SCHEMA public IS NULL')")
                    };
                    // A snapshot from before the act, an act that is taken back, one that is kept.
                    let statements = [
                        format!("BEGIN ISOLATION LEVEL {}", levels[number % levels.len()]),
                        "SELECT count(*) FROM transmute.audit_events".to_string(),
                        "SAVEPOINT s".to_string(),
                        register("undone"),
                        "ROLLBACK TO SAVEPOINT s".to_string(),
                        register("kept"),
                        if act % 3 == 2 { "ROLLBACK" } else { "COMMIT" }.to_string(),
                    ];
                    while let Err(error) = statements.iter().try_for_each(|sql| session.try_exec(sql)) {
                        assert_serialization(&error);
                        session.exec("ROLLBACK");
                        retries += 1;
                    }
                }
                retries
            })
        })
        .collect();
    let retries: usize = threads
        .into_iter()
        .map(|thread| thread.join().expect("a session"))
        .sum();
    println!("{retries} serialization failures");
    let mut session = database.connect();
    let kept = SESSIONS * (0..ACTS).filter(|act| act % 3 != 2).count();
    assert_eq!(
        session.lines(
            "SELECT count(*), count(DISTINCT id), max(seq) - min(seq) + 1 = count(*) FROM transmute.audit_events WHERE event = 'registered'"
        ),
        [format!("{kept}|{kept}|t")]
    );
    assert_eq!(
        session.lines("SELECT count(*) FROM transmute.status"),
        [kept.to_string()]
    );
    assert_eq!(verdict(&mut session, ""), "ok");
    assert_eq!(independent_verdict(&mut session, None), "ok");
}

fn assert_serialization(error: &DbError) {
    assert_eq!(error.sqlstate, "40001", "{error}");
}
