-- The life of a migration as a DBA drives it.
\set SHOW_CONTEXT never
\pset null (null)
CREATE SCHEMA lifecycle;
SET search_path = lifecycle, public;
CREATE TABLE accounts (id integer PRIMARY KEY, balance integer NOT NULL DEFAULT 0, owner text);
INSERT INTO accounts SELECT i, 10 * i, 'owner ' || i FROM generate_series(1, 500) AS i;
ANALYZE accounts;
CALL flush_counters();
CALL forget_writes('accounts');

-- Registered: planned, nothing runs.
SELECT transmute.register('lifecycle bigint', 'ALTER TABLE accounts ALTER COLUMN balance TYPE bigint',
  meta => '{"name": "balances outgrow integer", "required_approvals": 1, "keep_artifacts": "1 day"}');
SELECT step, phase, kind, target, lock_mode, rewrites, transactional, risk_level, risk_score, reasons, reversible, revert_sql, sql
FROM transmute.plan('lifecycle bigint') ORDER BY step;
\x on
SELECT id, state, outcome, step, progress, waiting_for, approvals, required_approvals, last_error, dead_letters, queued, owner_name,
  meta ->> 'name' AS name, applied_at, started_at, finished_at
FROM transmute.status WHERE id = 'lifecycle bigint';
\x off
SELECT transmute.state('lifecycle bigint'), transmute.is_finished('lifecycle bigint');

-- Applied: workers take it, up to the gate.
SELECT * FROM transmute.apply('lifecycle bigint');
CALL transmute.wait('lifecycle bigint', 'AWAITING_FINALIZATION');
CALL wait_until($$waiting_for = '1 approval missing' FROM transmute.status WHERE id = 'lifecycle bigint'$$);
\x on
SELECT state, outcome, step, round(progress::numeric, 2) AS progress, rows_done, rows_total, lag, waiting_for, approvals, required_approvals,
  started_at > applied_at AS started, finished_at
FROM transmute.status WHERE id = 'lifecycle bigint';
SELECT relation, blocks_done = blocks_total AS copied, rows_done, rows_total, indexes_built, indexes_total, lag, check_rounds, rows_checked,
  rows_repaired, checked_at IS NOT NULL AS checked, swapped_at IS NOT NULL AS swapped
FROM transmute.progress WHERE id = 'lifecycle bigint';
\x off
SELECT regexp_replace(transmute.progress_line('lifecycle bigint'), '[0-9,]+ rows/s', 'N rows/s') AS progress_line;
SELECT * FROM work_objects('lifecycle');

-- The application sees the old shape, and whatever it writes arrives in the new one.
SELECT * FROM columns_of('accounts');
UPDATE accounts SET balance = -1 WHERE id = 1;
DELETE FROM accounts WHERE id = 2;
INSERT INTO accounts VALUES (501, 2147483647, 'the last one');
CALL wait_until($$drained_keys = 3 FROM transmute.progress WHERE id = 'lifecycle bigint'$$);

-- Approved by mistake, revoked, approved again: it goes to its end.
SELECT transmute.pause('lifecycle bigint', 'month end');
SELECT transmute.approve('lifecycle bigint', 'looks right');
SELECT transmute.revoke_approval('lifecycle bigint', 'read it again');
SELECT transmute.approve('lifecycle bigint', 'it is right', '1 hour');
CALL wait_until($$waiting_for LIKE '%paused%' FROM transmute.status WHERE id = 'lifecycle bigint'$$);
SELECT state, outcome, waiting_for, paused_reason, approvals FROM transmute.status WHERE id = 'lifecycle bigint';
SELECT transmute.resume('lifecycle bigint', 'month end is over');
CALL transmute.wait('lifecycle bigint');
SELECT actor, reason, round(extract(epoch FROM expires_at - approved_at)) AS ttl_seconds, revoked_by, revoke_reason FROM transmute.approvals WHERE id = 'lifecycle bigint' ORDER BY approval;

-- Finished.
SELECT * FROM columns_of('accounts');
SELECT count(*), sum(balance), max(balance) FROM accounts;
UPDATE accounts SET balance = balance + 1 WHERE id = 501 RETURNING *;
\x on
SELECT state, outcome, step, progress, rows_done, rows_total, waiting_for, last_error, queued, finished_at > started_at AS ended,
  duration = finished_at - started_at AS duration
FROM transmute.status WHERE id = 'lifecycle bigint';
\x off
SELECT transmute.state('lifecycle bigint'), transmute.is_finished('lifecycle bigint');
SELECT step, phase, kind, status, finished_at >= started_at AS ended FROM transmute.steps WHERE id = 'lifecycle bigint' ORDER BY step;
SELECT event, from_state, to_state, actor, detail::jsonb ->> 'reason' AS reason FROM transmute.history WHERE id = 'lifecycle bigint' ORDER BY seq;

-- What it left behind on purpose: the old rows.
SELECT kind, source, regexp_replace(physical, '\d+', 'N') AS physical, row_estimate, bytes > 0 AS has_size,
  extract(epoch FROM expires_at - created_at)::integer AS kept_seconds, dropped_at
FROM transmute.artifacts WHERE id = 'lifecycle bigint';
SELECT * FROM work_objects('lifecycle');
SELECT format('SELECT count(*), sum(balance), pg_typeof(max(balance)) FROM %s', physical) FROM transmute.artifacts WHERE id = 'lifecycle bigint' \gexec

-- register and apply in one call; a script of several statements; a soak that a person ends.
SELECT transmute.migrate($$
  CREATE TABLE branches (id integer PRIMARY KEY, name text);
  ALTER TABLE accounts ADD COLUMN branch integer DEFAULT 1;
  ALTER TABLE accounts ALTER COLUMN owner TYPE varchar(40)
$$, 'lifecycle script', '{"pre_finalization_soak": "1 day"}');
CALL wait_until($$waiting_for = 'the soak, until soak_until; skip_soak ends it now' FROM transmute.status WHERE id = 'lifecycle script'$$);
SELECT state, outcome, queued FROM transmute.status WHERE id = 'lifecycle script';
SELECT * FROM transmute.apply('lifecycle script') \gset applied_
SELECT :'applied_id' AS id, :'applied_state' AS state, :'applied_action' AS action;
SELECT transmute.skip_soak('lifecycle script', 'nobody works today');
CALL transmute.wait('lifecycle script');
SELECT step, phase, kind, status, revert_sql FROM transmute.steps WHERE id = 'lifecycle script' ORDER BY step;
SELECT * FROM columns_of('accounts');
SELECT count(*) FROM branches;

-- Rows that the new shape refuses are named; the rest goes on, and waits for them.
SELECT transmute.migrate('ALTER TABLE accounts ALTER COLUMN balance TYPE integer, ADD CHECK (owner <> ''owner 7'')', 'lifecycle narrow');
CALL wait_until($$waiting_for LIKE '%dead letter%' AND waiting_for NOT LIKE '%transaction%' FROM transmute.status WHERE id = 'lifecycle narrow'$$);
SELECT state, outcome, dead_letters, waiting_for FROM transmute.status WHERE id = 'lifecycle narrow';
SELECT key, sqlstate, message, resolved_at FROM transmute.dead_letters WHERE id = 'lifecycle narrow' ORDER BY key;
UPDATE accounts SET balance = 0 WHERE balance > 2147483647;
UPDATE accounts SET owner = 'owner seven' WHERE id = 7;
CALL transmute.wait('lifecycle narrow');
SELECT key, resolved_at IS NOT NULL AS resolved FROM transmute.dead_letters WHERE id = 'lifecycle narrow' ORDER BY key;
SELECT * FROM columns_of('accounts');
SELECT id, balance, owner, branch FROM accounts WHERE id IN (1, 7, 501) ORDER BY id;

-- A name is made up for a migration without one.
SELECT transmute.migrate('COMMENT ON TABLE accounts IS ''one row an account''') AS made_up \gset
CALL transmute.wait(:'made_up');
SELECT :'made_up' ~ '^m-\d+-[0-9a-f]{8}$' AS has_a_name, obj_description('accounts'::regclass, 'pg_class');

-- All that are pending, in the order of their registration.
SELECT transmute.register('lifecycle b', 'ALTER TABLE branches ADD COLUMN b text');
SELECT transmute.register('lifecycle a', 'ALTER TABLE branches ADD COLUMN a text');
SELECT id, state, action, detail FROM transmute.apply();
CALL transmute.wait('lifecycle b');
CALL transmute.wait('lifecycle a');
SELECT * FROM columns_of('branches');
DROP SCHEMA lifecycle CASCADE;
