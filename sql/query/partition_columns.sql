-- Columns by which a table ($1), or a partition of it, is divided, where they are columns and no expressions.
SELECT DISTINCT a.attname::text
FROM pg_partition_tree($1) t
JOIN pg_partitioned_table p ON p.partrelid = t.relid
CROSS JOIN unnest(p.partattrs::int2[]) k(attnum)
JOIN pg_attribute a ON a.attrelid = t.relid AND a.attnum = k.attnum
WHERE k.attnum > 0
ORDER BY 1
