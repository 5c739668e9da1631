-- What a DBA is told when a call is wrong: the message, the value at fault, the next call, and a SQLSTATE that can be relied on.
\set SHOW_CONTEXT never
\pset null (null)
CREATE SCHEMA errors;
SET search_path = errors, public;
CREATE TABLE accounts (id integer PRIMARY KEY, balance integer NOT NULL DEFAULT 0);
\set alter 'ALTER TABLE accounts ALTER COLUMN balance TYPE bigint'

-- register: the id.
SELECT transmute.register(NULL, :'alter');
\echo :LAST_ERROR_SQLSTATE
SELECT transmute.register('', :'alter');
\echo :LAST_ERROR_SQLSTATE
SELECT transmute.register(repeat('x', 256), :'alter');
SELECT transmute.register(E'two\nlines', :'alter');
SELECT transmute.register('errors', :'alter', meta => '{"required_approvals": 1}');
SELECT transmute.register('errors', :'alter');
\echo :LAST_ERROR_SQLSTATE
SELECT transmute.migrate(:'alter', 'errors');

-- register: the metadata.
SELECT transmute.register('errors meta', :'alter', meta => '[]');
\echo :LAST_ERROR_SQLSTATE
SELECT transmute.register('errors meta', :'alter', meta => '{"keep_artefacts": "1 day"}');
SELECT transmute.register('errors meta', :'alter', meta => '{"required_approvals": "two"}');
SELECT transmute.register('errors meta', :'alter', meta => '{"pre_finalization_soak": "soon"}');
\echo :LAST_ERROR_SQLSTATE
SELECT transmute.register('errors meta', :'alter', meta => '{"pre_finalization_soak": "-1 day"}');
SELECT transmute.register('errors meta', :'alter', meta => '{"depends_on": ["errors meta"]}');
\echo :LAST_ERROR_SQLSTATE
SELECT transmute.register('errors meta', :'alter', 'ALTER TABLE accounts ALTER COLUMN balance TYPE integer; COMMIT');

-- Nothing of it is there.
SELECT id, state FROM transmute.status WHERE id LIKE 'errors%' ORDER BY id;

-- A migration that there is not; what applications ask is no error.
SELECT * FROM transmute.plan('eros');
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM transmute.rollback_plan('eros');
SELECT * FROM transmute.apply('eros');
SELECT transmute.pause('eros', 'why');
SELECT transmute.resume('eros', 'why');
SELECT transmute.approve('eros', 'why');
SELECT transmute.revoke_approval('eros', 'why');
SELECT transmute.skip_soak('eros', 'why');
SELECT transmute.rollback('eros', 'why');
CALL transmute.wait('eros');
CALL transmute.run('eros');
SELECT transmute.state('eros'), transmute.is_finished('eros');

-- A call that its state does not allow.
SELECT transmute.pause('errors', 'why');
\echo :LAST_ERROR_SQLSTATE
SELECT transmute.resume('errors', 'why');
SELECT transmute.skip_soak('errors', 'why');
SELECT transmute.rollback('errors', 'why');
CALL transmute.wait('errors');
\echo :LAST_ERROR_SQLSTATE

-- Arguments.
SELECT transmute.approve('errors', ' ');
\echo :LAST_ERROR_SQLSTATE
SELECT transmute.approve('errors', NULL);
SELECT transmute.approve('errors', 'why', '-1 hour');
CALL transmute.wait('errors', 'DONE');
\echo :LAST_ERROR_SQLSTATE
CALL transmute.wait('errors', timeout => '-1 hour');
CALL transmute.run('errors', 0);
\echo :LAST_ERROR_SQLSTATE
SELECT transmute.audit_verify(1000000);
\echo :LAST_ERROR_SQLSTATE
SELECT transmute.audit_verify(expected_head => '7:cafe');
\echo :LAST_ERROR_SQLSTATE
SELECT transmute.audit_export('csv');

-- Settings.
SET transmute.lok_timeout = '1s';
\echo :LAST_ERROR_SQLSTATE
\set VERBOSITY sqlstate
SET transmute.lock_timeout = 0;
SET transmute.required_approvals = 'some';
\set VERBOSITY default
SET transmute.pre_finalization_soak = 'soon';
SELECT transmute.register('errors setting', :'alter');
\echo :LAST_ERROR_SQLSTATE
RESET transmute.pre_finalization_soak;

-- Rights.
CREATE ROLE errors_dba LOGIN;
CREATE ROLE errors_nobody;
GRANT USAGE, CREATE ON SCHEMA errors TO errors_dba;
GRANT EXECUTE ON ALL ROUTINES IN SCHEMA transmute TO errors_dba;
SET ROLE errors_nobody;
SELECT transmute.register('errors rights', :'alter');
\echo :LAST_ERROR_SQLSTATE
SELECT count(*) FROM transmute.status;
SELECT count(*) FROM _transmute.migrations;
SELECT transmute.state('errors'), transmute.is_finished('errors');
SET transmute.required_approvals = 0;
\echo :LAST_ERROR_SQLSTATE
SET ROLE errors_dba;
SELECT transmute.register('errors rights', :'alter');
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM transmute.apply('errors');
SELECT transmute.rollback('errors', 'why');
RESET ROLE;

-- Our tables against everybody: states change along the transition table only, the audit trail only grows.
UPDATE _transmute.migrations SET state = 'FINISHED' WHERE id = 'errors';
\echo :LAST_ERROR_SQLSTATE
UPDATE _transmute.audit_events SET event = 'nothing happened';
\echo :LAST_ERROR_SQLSTATE
DELETE FROM _transmute.audit_events;
TRUNCATE _transmute.audit_events;

-- While it is under way: one migration a table, and what cannot be asked for any more.
SELECT state, action, detail FROM transmute.apply('errors');
CALL transmute.wait('errors', 'AWAITING_FINALIZATION');
SELECT transmute.register('errors second', 'ALTER TABLE accounts ALTER COLUMN id TYPE bigint');
\echo :LAST_ERROR_SQLSTATE
BEGIN;
CALL transmute.run('errors');
\echo :LAST_ERROR_SQLSTATE
ROLLBACK;
CALL transmute.wait('errors', 'FINISHED', '0');
\echo :LAST_ERROR_SQLSTATE
SET transmute.four_eyes = on;
SELECT transmute.approve('errors', 'my own work');
\echo :LAST_ERROR_SQLSTATE
RESET transmute.four_eyes;
SET transmute.approver_role = 'errors_dba';
GRANT EXECUTE ON FUNCTION transmute.approve TO errors_nobody;
SET SESSION AUTHORIZATION errors_nobody;
SELECT transmute.approve('errors', 'I may call it, but I am not an approver');
\echo :LAST_ERROR_SQLSTATE
RESET SESSION AUTHORIZATION;
RESET transmute.approver_role;
SELECT transmute.approve('errors', 'right');
CALL transmute.wait('errors');
SELECT * FROM transmute.apply('errors');
\echo :LAST_ERROR_SQLSTATE
SELECT transmute.pause('errors', 'why');
SELECT transmute.approve('errors', 'why');
SELECT transmute.revoke_approval('errors', 'why');
SELECT transmute.rollback('errors', 'why');

-- A migration that stops says who must do what.
CREATE FUNCTION half(integer) RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT $1 / 2';
SELECT transmute.register('errors stops', 'ALTER TABLE accounts ADD COLUMN half integer GENERATED ALWAYS AS (errors.half(id)) STORED');
DROP FUNCTION half;
SELECT state, action FROM transmute.apply('errors stops');
CALL transmute.wait('errors stops');
\echo :LAST_ERROR_SQLSTATE
\x on
SELECT state, outcome, step, waiting_for, last_error, last_error_sqlstate, last_error_hint FROM transmute.status WHERE id = 'errors stops';
\x off
SELECT transmute.rollback('errors stops', 'the function is gone');
CALL transmute.wait('errors stops', 'UNINITIALIZED');
SELECT state, outcome, last_error, queued FROM transmute.status WHERE id = 'errors stops';

DROP SCHEMA errors CASCADE;
DROP OWNED BY errors_dba, errors_nobody;
DROP ROLE errors_dba, errors_nobody;
