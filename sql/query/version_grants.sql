-- Statements that give a view $2 of the table $1 the privileges of the table; $3 are its columns, by attribute number.
WITH granted (item, target) AS (
  SELECT c.relacl, '' FROM pg_class c WHERE c.oid = $1 AND c.relacl IS NOT NULL
  UNION ALL
  SELECT a.attacl, format(' (%I)', s.name)
  FROM jsonb_to_recordset($3::text::jsonb) AS s (number int2, name text)
  JOIN pg_attribute a ON a.attrelid = $1 AND a.attnum = s.number AND NOT a.attisdropped AND a.attacl IS NOT NULL
)
SELECT format('GRANT %s ON TABLE %s TO %s%s', string_agg(e.privilege_type || g.target, ', ' ORDER BY e.privilege_type COLLATE "C"), $2::text,
  _transmute.role_name(e.grantee), CASE WHEN e.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
FROM granted g
CROSS JOIN aclexplode(g.item) e
JOIN pg_class c ON c.oid = $1
WHERE e.grantee <> c.relowner AND e.privilege_type IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE')
GROUP BY g.target, e.grantee, e.is_grantable
ORDER BY 1
