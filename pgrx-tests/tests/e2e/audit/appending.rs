//! Many sessions that append at once.

use transmute_tests::{Database, DbError};

use super::{independent_verdict, verdict};

#[test]
fn thirty_two_sessions_append_one_chain_under_every_isolation_level() {
    const SESSIONS: usize = 32;
    const ACTS: usize = 5;
    /// So often a session is cut off while it waits for its turn; then it waits as long as it takes.
    const CUT_OFF: usize = 3;
    let database = Database::shared();
    let levels = ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"];
    let threads: Vec<_> = (0..SESSIONS)
        .map(|number| {
            let mut session = database.connect();
            std::thread::spawn(move || {
                let mut retries = 0;
                for act in 0..ACTS {
                    let limit = match number % 4 {
                        1 => "SET LOCAL lock_timeout = '5ms'",
                        3 => "SET LOCAL statement_timeout = '10ms'",
                        _ => "SELECT",
                    };
                    let register = |what: &str| {
                        format!("SELECT transmute.register('{what}-{number}-{act}', 'COMMENT ON SCHEMA public IS NULL')")
                    };
                    // A snapshot from before the act, an act that is taken back, one that is kept.
                    let statements = |retries: usize| [
                        format!("BEGIN ISOLATION LEVEL {}", levels[number % levels.len()]),
                        "SELECT count(*) FROM transmute.audit_events".to_string(),
                        "SAVEPOINT s".to_string(),
                        if retries < CUT_OFF { limit } else { "SELECT" }.to_string(),
                        register("undone"),
                        "ROLLBACK TO SAVEPOINT s".to_string(),
                        register("kept"),
                        if act % 3 == 2 { "ROLLBACK" } else { "COMMIT" }.to_string(),
                    ];
                    while let Err(error) = statements(retries).iter().try_for_each(|sql| session.try_exec(sql)) {
                        assert_ends_a_try(&error, limit != "SELECT");
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
    println!("{retries} tries more");
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

fn assert_ends_a_try(error: &DbError, has_limit: bool) {
    let expected: &[&str] = match has_limit {
        true => &["40001", "55P03", "57014"],
        false => &["40001"],
    };
    assert!(expected.contains(&error.sqlstate.as_str()), "{error}");
}
