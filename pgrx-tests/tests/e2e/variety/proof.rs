//! What is compared between the two sides, and what must hold on each.

use transmute_tests::Session;

use super::naming::literal;

/// What failed, for people.
pub type Outcome<T> = Result<T, String>;

/// Everything that hangs on everything, the extension's own things and the artifacts aside. The server puts oids into some names.
const DEPENDENCIES: &str = r"
    SELECT DISTINCT regexp_replace(line, '(pg_toast_|ConstraintTrigger_(?:[ac]_)?)\d+', '\1N', 'g')
    FROM (
      SELECT pg_describe_object(classid, objid, objsubid) || ' → ' || pg_describe_object(refclassid, refobjid, refobjsubid) || ' ' || deptype::text
      FROM pg_depend AS d WHERE deptype <> 'e' AND (objid >= 16384 OR refobjid >= 16384)
        AND NOT EXISTS (SELECT FROM pg_depend AS e WHERE e.classid = d.classid AND e.objid = d.objid AND e.deptype = 'e')
      UNION ALL
      SELECT pg_describe_object(classid, objid, objsubid) || ' → ' || pg_describe_object(refclassid, refobjid, 0) || ' ' || deptype::text
      FROM pg_shdepend WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
    ) AS lines (line)
    WHERE line NOT LIKE '%transmute%'
      -- The server notes these of a foreign key that a partition had before its table, and of no other.
      AND line !~ '^trigger RI_ConstraintTrigger_.* [PS]$' ORDER BY 1";

/// How rows are laid out, where they are, and what their TOAST table is called. Not `indcheckxmin`: whether an index was built
/// beside broken HOT chains depends on when pages were pruned, in the plain database, too.
fn layout(table: &str) -> String {
    format!(
        "SELECT attnum || ' ' || attname || ' ' || concat_ws(' ', attlen, attalign, attbyval, attstorage, attisdropped, attnotnull, atthasdef)
           FROM pg_attribute WHERE attrelid = {0}::regclass
         UNION ALL
         SELECT concat_ws(' ', 'table', c.relnatts, c.relchecks, c.relhasindex, c.relrewrite, c.relam, c.relreplident,
             t.relname = 'pg_toast_' || c.oid, i.relname = 'pg_toast_' || c.oid || '_index',
             t.reltablespace = c.reltablespace, i.reltablespace = c.reltablespace, t.relpersistence = c.relpersistence,
             i.relpersistence = c.relpersistence, t.relowner = c.relowner, t.relnamespace = 99)
           FROM pg_class AS c LEFT JOIN pg_class AS t ON t.oid = c.reltoastrelid
           LEFT JOIN pg_index AS x ON x.indrelid = t.oid LEFT JOIN pg_class AS i ON i.oid = x.indexrelid
          WHERE c.oid = {0}::regclass
         UNION ALL
         SELECT concat_ws(' ', 'index', c.relname, c.reltablespace, c.relpersistence, x.indislive) FROM pg_index AS x JOIN pg_class AS c ON c.oid = x.indexrelid
          WHERE x.indrelid = {0}::regclass
         ORDER BY 1",
        literal(table)
    )
}

/// Pages, TOAST values and visibility of the table; a line a fault.
fn heap_faults(table: &str) -> String {
    format!(
        "WITH heap AS (SELECT c.oid, c.reltoastrelid FROM pg_class AS c WHERE c.oid = {}::regclass)
         SELECT v.msg FROM heap, public.verify_heapam(heap.oid, check_toast => true) AS v
         UNION ALL SELECT v.msg FROM heap, public.verify_heapam(heap.reltoastrelid) AS v WHERE heap.reltoastrelid <> 0",
        literal(table)
    )
}

/// An error unless every index of the method holds every row of the table, and of its TOAST table.
fn check_indexes(table: &str, method: &str, check: &str) -> String {
    format!(
        "SELECT public.{check} FROM pg_class AS c JOIN pg_index AS x ON x.indrelid IN (c.oid, c.reltoastrelid)
           JOIN pg_class AS i ON i.oid = x.indexrelid JOIN pg_am AS am ON am.oid = i.relam
          WHERE c.oid = {}::regclass AND am.amname = '{method}'",
        literal(table)
    )
}

/// One database's picture of the table.
#[derive(PartialEq)]
pub struct Picture {
    parts: Vec<(&'static str, Vec<String>)>,
}

impl Picture {
    /// `volatile` columns are left out of the rows.
    pub fn take(
        session: &mut Session,
        table: &str,
        volatile: &[String],
        queries: &[String],
    ) -> Outcome<Picture> {
        let fingerprint = format!(
            "SELECT regexp_split_to_table(_transmute.fingerprint({}::regclass), E'\\n')",
            literal(table)
        );
        let mut parts = vec![
            ("fingerprint", lines(session, &fingerprint)?),
            ("dependencies", lines(session, DEPENDENCIES)?),
            ("layout", lines(session, &layout(table))?),
            ("rows", rows(session, table, volatile)?),
        ];
        // The answers must come from the indexes, or a broken one would not show.
        exec(session, "SET enable_seqscan = off")?;
        for query in queries {
            parts.push(("query", lines(session, query)?));
        }
        exec(session, "RESET enable_seqscan")?;
        Ok(Picture { parts })
    }

    pub fn require_equal(&self, other: &Picture, what: &str) -> Outcome<()> {
        for ((part, ours), (_, theirs)) in self.parts.iter().zip(&other.parts) {
            let missing: Vec<&String> = theirs.iter().filter(|l| !ours.contains(l)).collect();
            let added: Vec<&String> = ours.iter().filter(|l| !theirs.contains(l)).collect();
            if ours != theirs {
                return Err(format!(
                    "{what}: {part} differs\n  missing: {:#?}\n  added: {:#?}",
                    first(&missing),
                    first(&added)
                ));
            }
        }
        Ok(())
    }
}

fn first<T: Clone>(lines: &[T]) -> Vec<T> {
    lines.iter().take(12).cloned().collect()
}

/// Every row as text, long ones as their beginning and a digest of all.
pub fn rows(session: &mut Session, table: &str, without: &[String]) -> Outcome<Vec<String>> {
    let leave_out: Vec<String> = without.iter().map(|name| literal(name)).collect();
    let columns = lines(
        session,
        &format!(
            "SELECT quote_ident(attname) FROM pg_attribute
              WHERE attrelid = {}::regclass AND attnum > 0 AND NOT attisdropped AND attname <> ALL (ARRAY[{}]::text[])
              ORDER BY attnum",
            literal(table),
            leave_out.join(", ")
        ),
    )?;
    lines(
        session,
        &format!(
            "SELECT left(r, 300) || ' ' || md5(r) FROM (SELECT ROW({})::text FROM {table}) AS rows (r) ORDER BY 1",
            columns.join(", ")
        ),
    )
}

pub fn require_sound(session: &mut Session, table: &str) -> Outcome<()> {
    let faults = lines(session, &heap_faults(table))?;
    require(
        faults.is_empty(),
        &format!("amcheck of {table}: {faults:#?}"),
    )?;
    let btree = "bt_index_parent_check(x.indexrelid, true, true)";
    lines(session, &check_indexes(table, "btree", btree))?;
    let gin = "SELECT FROM pg_proc WHERE proname = 'gin_index_check'";
    if !lines(session, gin)?.is_empty() {
        lines(
            session,
            &check_indexes(table, "gin", "gin_index_check(x.indexrelid)"),
        )?;
    }
    Ok(())
}

pub fn require(holds: bool, what: &str) -> Outcome<()> {
    if holds {
        Ok(())
    } else {
        Err(what.to_string())
    }
}

pub fn exec(session: &mut Session, sql: &str) -> Outcome<()> {
    session
        .try_exec(sql)
        .map_err(|error| format!("{error}\n  in: {sql}"))
}

/// As [`Session::lines`], with an error instead of a panic.
pub fn lines(session: &mut Session, sql: &str) -> Outcome<Vec<String>> {
    let rows = session
        .try_rows(sql)
        .map_err(|error| format!("{error}\n  in: {sql}"))?;
    let line = |row: Vec<Option<String>>| {
        row.into_iter()
            .map(|value| value.unwrap_or_else(|| "∅".to_string()))
            .collect::<Vec<_>>()
            .join("|")
    };
    Ok(rows.into_iter().map(line).collect())
}
