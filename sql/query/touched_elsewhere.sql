-- Which migrations under way touch what a migration touches? $1 its id. An object is the same by its oid, also where one of them
-- has made it meanwhile under the name that it planned, or by its name. Who only reads disturbs nobody who only reads.
WITH touched AS (
  SELECT o.*, coalesce(o.object, CASE WHEN o.class = 'relation' THEN _transmute.relation_named(o.name) END) AS now
  FROM _transmute.objects o
  WHERE o.migration_id = $1 OR o.migration_id IN (
    SELECT u.id FROM _transmute.migrations u WHERE u.queued AND u.state NOT IN ('UNINITIALIZED', 'FINISHED')))
SELECT DISTINCT ON (m.seq) m.id, other.name
FROM touched own
JOIN touched other ON (own.class = other.class AND own.now = other.now OR own.name = other.name)
  AND NOT (own.reads AND other.reads)
JOIN _transmute.migrations m ON m.id = other.migration_id
WHERE own.migration_id = $1 AND m.id <> $1 AND m.state NOT IN ('UNINITIALIZED', 'FINISHED')
ORDER BY m.seq, own.class, other.name;
