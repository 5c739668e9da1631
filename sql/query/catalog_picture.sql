-- What do the catalogs say, as one digest: another one after a statement that changed something?
SELECT md5(string_agg(part, '' ORDER BY part)) FROM (
  SELECT md5(string_agg(concat_ws(' ', oid, relname, relnamespace, relkind, relowner, relacl, reloptions, relpersistence, relrowsecurity), ',' ORDER BY oid)) FROM pg_class
  UNION ALL SELECT md5(string_agg(concat_ws(' ', attrelid, attnum, attname, atttypid, atttypmod, attnotnull, attisdropped, attcollation, attacl, attoptions), ',' ORDER BY attrelid, attnum)) FROM pg_attribute
  UNION ALL SELECT md5(string_agg(concat_ws(' ', adrelid, adnum, adbin), ',' ORDER BY adrelid, adnum)) FROM pg_attrdef
  UNION ALL SELECT md5(string_agg(concat_ws(' ', oid, conname, conrelid, convalidated, conbin), ',' ORDER BY oid)) FROM pg_constraint
  UNION ALL SELECT md5(string_agg(concat_ws(' ', oid, proname, pronamespace, proowner, prosrc, proargtypes, proacl, proconfig), ',' ORDER BY oid)) FROM pg_proc
  UNION ALL SELECT md5(string_agg(concat_ws(' ', oid, tgrelid, tgname, tgfoid, tgenabled, tgtype), ',' ORDER BY oid)) FROM pg_trigger
  UNION ALL SELECT md5(string_agg(concat_ws(' ', oid, ev_class, rulename, ev_action), ',' ORDER BY oid)) FROM pg_rewrite
  UNION ALL SELECT md5(string_agg(concat_ws(' ', oid, nspname, nspowner, nspacl), ',' ORDER BY oid)) FROM pg_namespace
  UNION ALL SELECT md5(string_agg(concat_ws(' ', oid, typname, typnamespace, typowner, typnotnull), ',' ORDER BY oid)) FROM pg_type
  UNION ALL SELECT md5(string_agg(concat_ws(' ', enumtypid, enumlabel, enumsortorder), ',' ORDER BY oid)) FROM pg_enum
  UNION ALL SELECT md5(string_agg(concat_ws(' ', classoid, objoid, objsubid, description), ',' ORDER BY classoid, objoid, objsubid)) FROM pg_description
  UNION ALL SELECT md5(string_agg(concat_ws(' ', seqrelid, seqstart, seqincrement, seqmax, seqmin), ',' ORDER BY seqrelid)) FROM pg_sequence
  UNION ALL SELECT md5(string_agg(concat_ws(' ', oid, polrelid, polname, polqual, polwithcheck), ',' ORDER BY oid)) FROM pg_policy
) AS parts (part)
