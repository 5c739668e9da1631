-- On a server that says it is production, soaks and approvals are the default; elsewhere they are asked for.
\set SHOW_CONTEXT never
\pset null (null)
CREATE SCHEMA production;
SET search_path = production, public;
CREATE TABLE accounts (id integer PRIMARY KEY, balance integer NOT NULL DEFAULT 0);
INSERT INTO accounts SELECT i, 10 * i FROM generate_series(1, 10) AS i;
CREATE ROLE production_approvers;
CREATE ROLE production_ann LOGIN IN ROLE production_approvers;
CREATE ROLE production_ben LOGIN IN ROLE production_approvers;
CREATE ROLE production_eve LOGIN;
GRANT EXECUTE ON FUNCTION transmute.approve, transmute.revoke_approval TO production_approvers, production_eve;
\set alter 'ALTER TABLE accounts ALTER COLUMN balance TYPE bigint'
-- What it waits for, and how long it still soaks.
CREATE FUNCTION gates(of text) RETURNS TABLE (state text, required_approvals integer, approvals bigint, waiting_for text, soak_hours numeric) LANGUAGE sql AS $$
  SELECT state, required_approvals, approvals, regexp_replace(waiting_for, '\d+ s left', 'N s left', 'g'),
    round(extract(epoch FROM greatest(soak_until - clock_timestamp(), '0')) / 3600)
  FROM transmute.status WHERE id = gates.of
$$;

-- Not in production.
SHOW transmute.environment;
SELECT transmute.register('production not', :'alter');
SELECT * FROM gates('production not');

-- In production: four days before the start, four days before the end, and one approval.
SET transmute.environment = 'Production';
SELECT transmute.register('production', :'alter');
SELECT * FROM gates('production');
-- The database has to be named: nobody applies to production by mistake.
SELECT state, action FROM transmute.apply('production');
SELECT state, action FROM transmute.apply('production', confirm => current_database());
CALL wait_until($$waiting_for LIKE 'the soak before the start%' FROM transmute.status WHERE id = 'production'$$);
SELECT * FROM gates('production');
SELECT transmute.skip_soak('production', 'it is urgent');
CALL transmute.wait('production', 'AWAITING_FINALIZATION');
CALL wait_until($$waiting_for LIKE '%missing' FROM transmute.status WHERE id = 'production'$$);
SELECT * FROM gates('production');
SELECT transmute.rollback('production', 'not today', confirm => current_database());
CALL transmute.wait('production', 'UNINITIALIZED');

-- Settings and metadata decide otherwise, metadata last.
SET transmute.pre_execution_soak = '0';
SET transmute.pre_finalization_soak = '1 hour';
SET transmute.required_approvals = 0;
SELECT transmute.register('production settings', :'alter');
SELECT * FROM gates('production settings');
SELECT transmute.migrate(:'alter', 'production two', '{"required_approvals": 2, "pre_finalization_soak": "2 hours"}', confirm => current_database());
CALL transmute.wait('production two', 'AWAITING_FINALIZATION');
CALL wait_until($$waiting_for LIKE '%missing' FROM transmute.status WHERE id = 'production two'$$);
SELECT * FROM gates('production two');
SELECT transmute.skip_soak('production two', 'soaked long enough');

-- Two people: the same one twice is one, somebody who may not is none, a revoked or an expired approval is none.
SET transmute.approver_role = 'production_approvers';
SET SESSION AUTHORIZATION production_eve;
SELECT transmute.approve('production two', 'I may call it, but I am not an approver');
SET SESSION AUTHORIZATION production_ann;
SELECT transmute.approve('production two', 'read it');
SELECT transmute.approve('production two', 'read it again');
RESET SESSION AUTHORIZATION;
CALL wait_until($$waiting_for LIKE '1 approval missing%' FROM transmute.status WHERE id = 'production two'$$);
SELECT * FROM gates('production two');
SET SESSION AUTHORIZATION production_ben;
SELECT transmute.approve('production two', 'in a hurry', '1 microsecond');
SELECT transmute.revoke_approval('production two', 'all of them');
RESET SESSION AUTHORIZATION;
CALL wait_until($$waiting_for LIKE '2 approvals missing%' FROM transmute.status WHERE id = 'production two'$$);
SELECT * FROM gates('production two');
SELECT actor, reason, round(extract(epoch FROM expires_at - approved_at)) AS ttl_seconds, revoked_by, revoke_reason FROM transmute.approvals WHERE id = 'production two' ORDER BY approval;
SET SESSION AUTHORIZATION production_ann;
SELECT transmute.approve('production two', 'for the third time');
SET SESSION AUTHORIZATION production_ben;
SELECT transmute.approve('production two', 'read it this time');
RESET SESSION AUTHORIZATION;
CALL transmute.wait('production two');
SELECT event, actor, current_user_name, detail::jsonb ->> 'reason' AS reason FROM transmute.audit_events WHERE id = 'production two' ORDER BY seq;

DROP SCHEMA production CASCADE;
DROP OWNED BY production_approvers, production_eve;
DROP ROLE production_ann, production_ben, production_eve, production_approvers;
