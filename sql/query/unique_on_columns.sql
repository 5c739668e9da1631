-- Is one of the columns $2 of table $1, or a generated column of it, part of what a unique index or an exclusion constraint
-- compares? Then rows may collide on the way that do not collide in the end.
SELECT EXISTS (
  SELECT FROM pg_index i
  JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum > 0 AND (a.attnum = ANY ($2) OR a.attgenerated <> '')
  WHERE i.indrelid = $1 AND (i.indisunique OR i.indisexclusion)
    AND (a.attnum = ANY (i.indkey::int2[])
      OR EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = i.indexrelid
        AND d.refclassid = 'pg_class'::regclass AND d.refobjid = i.indrelid AND d.refobjsubid = a.attnum)))
