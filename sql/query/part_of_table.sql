-- Is a relation ($1) this table ($2), an index of it, or a sequence that one of its columns owns?
SELECT $1 = $2
  OR EXISTS (SELECT FROM pg_index i WHERE i.indexrelid = $1 AND i.indrelid = $2)
  OR EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = $1
    AND d.refclassid = 'pg_class'::regclass AND d.refobjid = $2 AND d.deptype IN ('a', 'i'))
