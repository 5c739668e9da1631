//! A long trail, made by what the documentation says of the format, with times that run backwards.

use std::time::{Duration, Instant};

use transmute_tests::Database;

use super::verdict;

/// Appends events, each a second before the one before it: in one statement, because each needs the hash of the last.
const EXTEND: &str = r"
CREATE FUNCTION pg_temp.said(t text) RETURNS bytea LANGUAGE sql IMMUTABLE AS
  $$ SELECT CASE WHEN t IS NULL THEN '\x00'::bytea ELSE '\x01'::bytea || int8send(octet_length(convert_to(t, 'UTF8'))) || convert_to(t, 'UTF8') END $$;
WITH RECURSIVE last AS MATERIALIZED (
  SELECT *, (extract(epoch FROM at) * 1000000)::bigint AS us, '\x02'::bytea || int8send(encoding_version) || '\x02' AS version,
    pg_temp.said(xid) || pg_temp.said(session_user_name) || pg_temp.said(current_user_name) || pg_temp.said(application_name)
      || pg_temp.said(client_addr) || pg_temp.said('m') || pg_temp.said('paused') || pg_temp.said(NULL) || pg_temp.said(NULL) || pg_temp.said(NULL) AS said
  FROM _transmute.audit_events ORDER BY seq DESC LIMIT 1
), chain (n, prev, hash) AS (
  SELECT 0::bigint, prev_hash, hash FROM last
  UNION ALL
  SELECT n + 1, c.hash, sha256('transmute-audit-v1'::bytea || '\x00'::bytea || c.hash || '\x02' || int8send(l.seq + n + 1) || l.version
    || int8send(l.us - 1000000 * (n + 1)) || '\x02' || int8send(l.us - 1000000 * (n + 1)) || l.said)
  FROM chain c, last l WHERE n < EVENTS
)
INSERT INTO _transmute.audit_events (seq, encoding_version, at, transaction_at, xid, session_user_name, current_user_name,
  application_name, client_addr, migration_id, event, prev_hash, hash)
SELECT l.seq + n, encoding_version, at - n * interval '1 s', at - n * interval '1 s', xid, session_user_name, current_user_name,
  application_name, client_addr, 'm', 'paused', prev, c.hash FROM chain c, last l WHERE n > 0";

/// `EVENTS=1000000` looks at a million, for which a minute must suffice.
const EVENTS: u32 = 100_000;
const LIMIT_OF_A_MILLION: Duration = Duration::from_secs(60);
/// Two cores that others use, too.
const BUSY: u32 = 3;
/// The trail has more, from the number that is the default on.
const MOST_MEMORY_KB: u64 = 20_000;

/// What a process has for itself.
fn memory_kb(pid: i32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("RssAnon:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[test]
fn a_long_trail_verifies_at_a_million_a_minute_in_little_memory_and_can_be_interrupted() {
    let database = Database::shared();
    let mut session = database.connect();
    session.exec("SELECT transmute.register('m', 'COMMENT ON SCHEMA public IS NULL')");
    let events = std::env::var("EVENTS").map_or(EVENTS, |text| text.parse().expect("a number"));
    session.exec(&EXTEND.replace("EVENTS", &events.to_string()));
    let mut verifier = database.connect();
    let pid = verifier.pid();
    let begun = Instant::now();
    let verifying = verifier.in_background(&format!(
        "DO $$ BEGIN ASSERT (SELECT ok AND events > {events} FROM transmute.audit_verify()); END $$"
    ));
    let mut most = 0;
    while !verifying.is_finished() {
        most = most.max(memory_kb(pid).unwrap_or_default());
        std::thread::sleep(Duration::from_millis(20));
    }
    let took = begun.elapsed();
    verifying.join().1.expect("it verifies");
    println!("{events} events verified in {took:?}, {most} kB");
    let limit = LIMIT_OF_A_MILLION.mul_f64(f64::from(events) / 1e6) * BUSY;
    assert!(took < limit, "{took:?}");
    assert!(most < MOST_MEMORY_KB, "{most} kB");
    let error =
        session.error("SET statement_timeout = '20ms'; SELECT * FROM transmute.audit_verify()");
    assert_eq!(error.sqlstate, "57014", "{error}");
    session.exec("SET statement_timeout = 0");
    // Appending costs what it did.
    let begun = Instant::now();
    session.exec("SELECT transmute.register('n', 'COMMENT ON SCHEMA public IS NULL')");
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(
        verdict(&mut session, &format!("from_seq => {events}")),
        "ok"
    );
    let order = session.lines("SELECT event FROM transmute.audit_events ORDER BY seq DESC LIMIT 1");
    assert_eq!(order, ["registered"]);
}
