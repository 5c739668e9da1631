-- What the owner of one of these views may not read of what it shows: view, owner, relation. Views that read as their
-- caller are left out.
SELECT _transmute.relation_name(v.oid), pg_get_userbyid(v.relowner)::text, _transmute.relation_name(used.oid)
FROM pg_class AS v
JOIN pg_rewrite AS r ON r.ev_class = v.oid AND r.rulename = '_RETURN'
JOIN pg_depend AS d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid AND d.refclassid = 'pg_class'::regclass
JOIN pg_class AS used ON used.oid = d.refobjid AND used.oid <> v.oid AND used.relkind IN ('r', 'p', 'v', 'm', 'f')
WHERE v.oid = ANY ($1)
  AND NOT EXISTS (SELECT FROM pg_options_to_table(v.reloptions) AS o WHERE o.option_name = 'security_invoker' AND o.option_value::boolean)
  AND NOT has_any_column_privilege(v.relowner, used.oid, 'SELECT')
ORDER BY 1, 3
LIMIT 1
