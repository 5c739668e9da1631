-- The audit trail: what is in it, that it can be checked, and that what was done to it shows.
\set SHOW_CONTEXT never
\pset null (null)
CREATE SCHEMA audit;
SET search_path = audit, public;
SET application_name = 'a golden file';
CREATE TABLE accounts (id integer PRIMARY KEY, balance integer);
INSERT INTO accounts SELECT i, i FROM generate_series(1, 10) AS i;
CREATE ROLE audit_dba;
GRANT USAGE ON SCHEMA transmute, audit TO audit_dba;
GRANT EXECUTE ON ALL ROUTINES IN SCHEMA transmute TO audit_dba;
ALTER TABLE accounts OWNER TO audit_dba;

-- One migration, and who did what.
SET ROLE audit_dba;
SELECT transmute.register('audit', 'ALTER TABLE accounts ALTER COLUMN balance TYPE bigint', meta => '{"required_approvals": 1}');
SELECT state, action FROM transmute.apply('audit');
RESET ROLE;
CALL transmute.wait('audit', 'AWAITING_FINALIZATION');
SELECT transmute.approve('audit', 'a reason with "quotes", Umlauten äöü and
a line feed');
CALL transmute.wait('audit');
SELECT event, from_state, to_state, actor, current_user_name, application_name, client_addr,
  ARRAY(SELECT jsonb_object_keys(detail::jsonb) ORDER BY 1) AS detail_keys
FROM transmute.audit_events WHERE id = 'audit' ORDER BY seq;
SELECT detail::jsonb ->> 'reason' AS reason FROM transmute.audit_events WHERE id = 'audit' AND event = 'approved';

-- The first event says which database the trail belongs to; the numbers have no gap; times follow each other.
SELECT seq, id, event, detail::jsonb - 'system_identifier' - 'database_oid' AS detail FROM transmute.audit_events ORDER BY seq LIMIT 1;
SELECT count(*) = max(seq) AND min(seq) = 1 AS no_gap FROM transmute.audit_events;
SELECT bool_and(before <= at) AS in_order FROM (SELECT at, lag(at) OVER (ORDER BY seq) AS before FROM transmute.audit_events) AS e;

-- It verifies: as it stands, from an event on, and against a head that was kept elsewhere.
SELECT transmute.audit_head() AS head, max(seq) AS last, max(seq) - 3 AS earlier FROM transmute.audit_events \gset
SELECT seq || ':' || hash AS earlier_head FROM transmute.audit_events WHERE seq = :earlier \gset
SELECT :'head' ~ '^\d+:[0-9a-f]{64}$' AS is_a_head, :'head' = :last || ':' || (SELECT hash FROM transmute.audit_events WHERE seq = :last) AS of_the_last_event;
SELECT ok, events = :last AS all_events, head = :'head' AS same_head, fault_seq, fault, detail FROM transmute.audit_verify();
SELECT ok, events = :last AS all_events, head = :'head' AS same_head, fault_seq, fault, detail FROM transmute.audit_verify(:earlier);
SELECT ok, head = :'head' AS same_head, fault_seq, fault, detail FROM transmute.audit_verify(expected_head => :'head');
SELECT ok, head = :'head' AS same_head, fault_seq, fault, detail FROM transmute.audit_verify(expected_head => :'earlier_head');

-- A head that is not in it.
SELECT ok, fault_seq = :last AS at_the_last, fault FROM transmute.audit_verify(expected_head => :last || ':' || repeat('0', 64));
SELECT ok, fault_seq = :last + 1 AS behind_the_last, fault FROM transmute.audit_verify(expected_head => :last + 1 || ':' || repeat('0', 64));

-- A superuser can change it, and it shows. Every change is taken back.
\set VERBOSITY terse
\set check 'SELECT ok, fault_seq - :last AS fault_from_last, fault FROM transmute.audit_verify(); ROLLBACK;'
\set tamper 'BEGIN; ALTER TABLE _transmute.audit_events DISABLE TRIGGER guard_audit;'
:tamper UPDATE _transmute.audit_events SET detail = '{"reason": "nobody was against it"}' WHERE seq = :earlier; :check
:tamper UPDATE _transmute.audit_events SET session_user_name = 'somebody_else' WHERE seq = :last; :check
:tamper UPDATE _transmute.audit_events SET at = at + interval '1 microsecond' WHERE seq = :earlier; :check
:tamper UPDATE _transmute.audit_events SET to_state = NULL WHERE seq = :last; :check
:tamper DELETE FROM _transmute.audit_events WHERE seq = :earlier; :check
:tamper UPDATE _transmute.audit_events SET hash = prev_hash WHERE seq = :last; :check
-- Cut off at the end it is a whole chain, which does not lead to what our tables hold; the head that was kept tells, too.
:tamper DELETE FROM _transmute.audit_events WHERE seq = :last; SELECT ok FROM transmute.audit_verify(); SELECT ok, fault FROM transmute.audit_verify(expected_head => :'head'); ROLLBACK;
\set VERBOSITY default
SELECT ok FROM transmute.audit_verify(expected_head => :'head');

-- Exported: one JSON object a line, each with everything that is hashed.
SELECT count(*) = :last AS all_events FROM transmute.audit_export();
SELECT key, jsonb_typeof(value) AS type, count(*) FILTER (WHERE line::jsonb ->> 'migration_id' = 'audit') AS lines
FROM transmute.audit_export() AS line, jsonb_each(line::jsonb)
WHERE line::jsonb ->> 'migration_id' = 'audit'
GROUP BY key, type ORDER BY key COLLATE "C", type;
SELECT bool_and(line !~ '\n') AS one_line_each FROM transmute.audit_export() AS line;
SELECT bool_and((line::jsonb ->> 'seq')::bigint = e.seq AND line::jsonb ->> 'hash' = e.hash AND (line::jsonb ->> 'event') = e.event) AS same_as_the_view
FROM transmute.audit_export() WITH ORDINALITY AS x (line, place) FULL JOIN transmute.audit_events e ON e.seq = x.place;

DROP SCHEMA audit CASCADE;
DROP OWNED BY audit_dba;
DROP ROLE audit_dba;
