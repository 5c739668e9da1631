//! Tables like another one, attribute number for attribute number.

use super::generated;
use crate::catalog::column::{self, Column};
use crate::catalog::relation::Relation;
use crate::catalog::{index, partition};
use crate::error::{Error, Result};
use crate::model::address;
use crate::model::ident::{quote_ident, QualifiedName};
use crate::pg::identity::{self, Session};
use crate::pg::parser::{self, Kind};
use crate::pg::Oid;
use crate::pg::{relation, spi, utility};
use crate::store::rewrite::Deferred;

/// Makes an empty table like `table`, of the same name, in `schema`: columns under the same attribute numbers
/// (dropped ones too), defaults, generation, identity, storage, constraints and indexes under their own names.
/// Everything is made by the table's owner; foreign keys, triggers, rules, policies and privileges are left out.
pub fn create_like(table: &Relation, schema: &str) -> Result<Oid> {
    let target = QualifiedName::new(schema, &table.name.name);
    let oid = create_columns(table, schema)?;
    if !table.tablespace.is_empty() {
        // The owner may use what the table is in already, without CREATE on the tablespace.
        utility::run(&format!(
            "ALTER TABLE {target} SET TABLESPACE {}",
            quote_ident(&table.tablespace)
        ))?;
    }
    copy_dropped_layout(table.oid, oid)?;
    for definition in definitions(table.oid, &['n', 'c', 'p', 'u', 'x'], true)? {
        build(table.owner, &definition, &target)?;
    }
    Ok(oid)
}

/// As `create_like`, but nothing that could hold a row: the columns alone, as a partitioned table, which needs no file. It has a
/// column more, by which it would be divided. Identity, whose sequences are files, is left out where `identity` is false.
pub fn create_outline(table: &Relation, schema: &str, identity: bool) -> Result<Oid> {
    let target = QualifiedName::new(schema, &table.name.name);
    let mut columns = column::list(table.oid)?;
    for column in columns.iter_mut().filter(|_| !identity) {
        column.identity.clear();
    }
    let mut list: Vec<String> = columns.iter().map(column_definition).collect();
    list.push(format!("{OUTLINE} int4"));
    let dropped: Vec<String> = columns
        .iter()
        .filter(|c| c.dropped)
        .map(|c| format!("DROP COLUMN {}", quote_ident(&placeholder(c.number))))
        .collect();
    identity::as_role(table.owner, &Session::own(), || {
        utility::run(&format!(
            "CREATE TABLE {target} ({}) PARTITION BY LIST ({OUTLINE})",
            list.join(", ")
        ))?;
        match dropped.is_empty() {
            true => Ok(()),
            false => utility::run(&format!("ALTER TABLE {target} {}", dropped.join(", "))),
        }
    })?;
    oid_of(&target)
}

/// The column by which an outline is divided.
const OUTLINE: &str = "_transmute_outline";

/// As `create_like`, without constraints and indexes.
fn create_columns(table: &Relation, schema: &str) -> Result<Oid> {
    let target = QualifiedName::new(schema, &table.name.name);
    let columns = column::list(table.oid)?;
    let mut changes: Vec<String> = columns
        .iter()
        .filter(|c| c.dropped)
        .map(|c| format!("DROP COLUMN {}", quote_ident(&placeholder(c.number))))
        .collect();
    for column in columns.iter().filter(|c| !c.dropped) {
        let name = quote_ident(&column.name);
        let clauses = storage_clauses(column).into_iter();
        changes.extend(clauses.map(|clause| format!("ALTER COLUMN {name} SET {clause}")));
    }
    identity::as_role(table.owner, &Session::own(), || {
        utility::run(&create_statement(table, &target, &columns))?;
        match changes.is_empty() {
            true => Ok(()),
            false => utility::run(&format!("ALTER TABLE {target} {}", changes.join(", "))),
        }
    })?;
    oid_of(&target)
}

/// Makes an empty partitioned table like a partitioned one, with one partition for everything: what the server does to
/// partitions is to be seen on that. Attribute numbers and options are not the table's.
pub fn create_partitioned_like(table: &Relation, schema: &str) -> Result<Oid> {
    let target = QualifiedName::new(schema, &table.name.name);
    let key = partition::key(table.oid)?;
    let mut columns = column::list(table.oid)?;
    columns.retain(|c| !c.dropped);
    let plain = Relation {
        access_method: String::new(),
        options: String::new(),
        toast_options: String::new(),
        ..table.clone()
    };
    identity::as_role(table.owner, &Session::own(), || {
        let create = create_statement(&plain, &target, &columns);
        utility::run(&format!("{create} PARTITION BY {key}"))
    })?;
    for definition in definitions(table.oid, &['n', 'c', 'p', 'u', 'x'], true)? {
        build(table.owner, &definition, &target)?;
    }
    let leaf = QualifiedName::new(schema, "_transmute_leaf");
    let bound = match key.starts_with("HASH") {
        true => "FOR VALUES WITH (MODULUS 1, REMAINDER 0)",
        false => "DEFAULT",
    };
    identity::as_role(table.owner, &Session::own(), || {
        utility::run(&format!(
            "CREATE TABLE {leaf} PARTITION OF {target} {bound}"
        ))
    })?;
    oid_of(&leaf)
}

/// The same without a partition, and only with the constraints that a partition has to have: for trying what is attached.
pub fn create_empty_parent(table: &Relation, schema: &str) -> Result<QualifiedName> {
    let target = QualifiedName::new(schema, &table.name.name);
    let key = partition::key(table.oid)?;
    let mut columns = column::list(table.oid)?;
    columns.retain(|c| !c.dropped);
    let plain = Relation {
        access_method: String::new(),
        options: String::new(),
        toast_options: String::new(),
        ..table.clone()
    };
    identity::as_role(table.owner, &Session::own(), || {
        let create = create_statement(&plain, &target, &columns);
        utility::run(&format!("{create} PARTITION BY {key}"))
    })?;
    for definition in definitions(table.oid, &['n', 'c'], false)? {
        build(table.owner, &definition, &target)?;
    }
    let mut taken = vec![table.name.name.clone()];
    for (name, bound) in partition::bounds(table.oid)? {
        // Under its own name, which an error tells; another schema may have one of the same.
        let name = match taken.contains(&name) {
            true => format!("_transmute_{}", taken.len()),
            false => name,
        };
        taken.push(name.clone());
        let sibling = QualifiedName::new(schema, name);
        identity::as_role(table.owner, &Session::own(), || {
            utility::run(&format!(
                "CREATE TABLE {sibling} PARTITION OF {target} {bound}"
            ))
        })?;
    }
    Ok(target)
}

/// Runs the DBA's statements on a copy of `table`, as the table's owner and with the names resolved as in `session`.
/// `added` are foreign keys that the script has added before. Returns the generated columns that are computed anew because
/// they use a column that is retyped.
pub fn alter(
    table: &Relation,
    script: &str,
    copy: &QualifiedName,
    added: &[String],
    session: &Session,
) -> Result<Vec<i16>> {
    // Asked before the switch: our own queries never see a search_path of a user's.
    let mut foreign_keys: Vec<String> = spi::query_kept(
        "SELECT conname::text FROM pg_constraint WHERE conrelid = $1 AND contype = 'f'",
        &[table.oid.into()],
        |row| row.need(1),
    )?;
    foreign_keys.extend(added.iter().cloned());
    let mut generated = Vec::new();
    for statement in parser::parse(script)? {
        match &statement.kind {
            Kind::AlterTable(alter) => {
                let run = || {
                    identity::as_role(table.owner, session, || {
                        utility::alter_copy(&statement.text, copy, &foreign_keys)
                    })
                };
                generated.extend(generated::around(
                    oid_of(copy)?,
                    table.owner,
                    &alter.commands,
                    run,
                )?);
            }
            _ => identity::as_role(table.owner, session, || {
                utility::run_on(&statement.text, copy)
            })?,
        }
    }
    generated.sort_unstable();
    generated.dedup();
    Ok(generated)
}

/// Gives a shadow the column by which its rows are found where the table has no key; the index on it, for later.
pub fn add_address(owner: Oid, shadow: &QualifiedName) -> Result<Deferred> {
    let name = address::COLUMN;
    identity::as_role(owner, &Session::own(), || {
        utility::run(&format!("ALTER TABLE {shadow} ADD COLUMN {name} tid"))
    })?;
    Ok(Deferred {
        name: name.into(),
        sql: format!("CREATE UNIQUE INDEX {name} ON {shadow} ({name})"),
        // Two rows of one address are our error, and none of the DBA's.
        unique_columns: Vec::new(),
        in_tablespace: false,
    })
}

/// Takes the column away again, when the shadow's files are about to become those of `table`: it stays in the rows as a dropped
/// one, which `table`, empty now, gets too. Written into the catalog, as the server lets nobody add a column to a partition.
pub fn drop_address(owner: Oid, shadow: Oid, name: &QualifiedName, table: Oid) -> Result<()> {
    let column = column::list(shadow)?
        .into_iter()
        .find(|c| !c.dropped && c.name == address::COLUMN)
        .ok_or_else(|| Error::Bug("a shadow without addresses".into()))?;
    identity::as_role(owner, &Session::own(), || {
        utility::run(&format!("ALTER TABLE {name} DROP COLUMN {}", column.name))
    })?;
    let fields: Option<String> = spi::value(
        "SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute \
         WHERE attrelid = 'pg_attribute'::regclass AND attnum > 0 AND NOT attisdropped AND attname <> 'attrelid'",
        &[],
    )?;
    let fields = fields.unwrap_or_default();
    spi::execute(
        &format!(
            "INSERT INTO pg_attribute (attrelid, {fields}) SELECT $1, {fields} FROM pg_attribute \
             WHERE attrelid = $2 AND attnum = $3 AND attisdropped"
        ),
        &[table.into(), shadow.into(), column.number.into()],
    )?;
    spi::execute(
        "UPDATE pg_class SET relnatts = $2 WHERE oid = $1 AND relnatts = $2 - 1",
        &[table.into(), column.number.into()],
    )?;
    crate::pg::xact::command_counter_increment();
    Ok(())
}

pub fn oid_of(name: &QualifiedName) -> Result<Oid> {
    relation::resolve(Some(&name.schema), &name.name)?
        .ok_or_else(|| Error::Bug(format!("{name} was not made")))
}

pub(super) fn placeholder(number: i16) -> String {
    format!("_transmute_dropped_{number}")
}

fn create_statement(table: &Relation, target: &QualifiedName, columns: &[Column]) -> String {
    let list: Vec<String> = columns.iter().map(column_definition).collect();
    let unlogged = if table.persistence == 'u' {
        "UNLOGGED "
    } else {
        ""
    };
    let mut sql = format!("CREATE {unlogged}TABLE {target} ({})", list.join(", "));
    if !table.access_method.is_empty() {
        sql.push_str(&format!(" USING {}", quote_ident(&table.access_method)));
    }
    let options: Vec<&str> = [table.options.as_str(), table.toast_options.as_str()]
        .into_iter()
        .filter(|o| !o.is_empty())
        .collect();
    if !options.is_empty() {
        sql.push_str(&format!(" WITH ({})", options.join(", ")));
    }
    sql
}

fn column_definition(column: &Column) -> String {
    if column.dropped {
        // Any type will do: its layout is set to the dropped column's afterwards.
        return format!("{} int4", quote_ident(&placeholder(column.number)));
    }
    let mut sql = format!("{} {}", quote_ident(&column.name), column.type_name);
    if !column.collation.is_empty() {
        sql.push_str(&format!(" COLLATE {}", column.collation));
    }
    match (column.generated.as_str(), column.identity.as_str()) {
        ("s", _) => sql.push_str(&format!(
            " GENERATED ALWAYS AS ({}) STORED",
            column.expression
        )),
        ("v", _) => sql.push_str(&format!(
            " GENERATED ALWAYS AS ({}) VIRTUAL",
            column.expression
        )),
        (_, "a") => sql.push_str(" GENERATED ALWAYS AS IDENTITY"),
        (_, "d") => sql.push_str(" GENERATED BY DEFAULT AS IDENTITY"),
        _ if !column.expression.is_empty() => {
            sql.push_str(&format!(" DEFAULT {}", column.expression));
        }
        _ => {}
    }
    // From 18 on NOT NULL is a constraint with a name, made with the others; identity implies it.
    if column.not_null && !cfg!(feature = "pg18") {
        sql.push_str(" NOT NULL");
    }
    sql
}

fn storage_clauses(column: &Column) -> Vec<String> {
    let mut clauses = Vec::new();
    let storage = match column.storage.as_str() {
        "p" => Some("PLAIN"),
        "e" => Some("EXTERNAL"),
        "m" => Some("MAIN"),
        "x" => Some("EXTENDED"),
        _ => None,
    };
    clauses.extend(storage.map(|s| format!("STORAGE {s}")));
    let compression = match column.compression.as_str() {
        "p" => Some("pglz"),
        "l" => Some("lz4"),
        _ => None,
    };
    clauses.extend(compression.map(|c| format!("COMPRESSION {c}")));
    clauses
}

/// Makes one constraint or index on a copy: as the owner, but in a tablespace of its own as the extension (the server
/// itself switches to the table's owner while it evaluates expressions of an index).
pub fn build(owner: Oid, definition: &Deferred, on: &QualifiedName) -> Result<()> {
    if definition.in_tablespace {
        return utility::run_on(&definition.sql, on);
    }
    identity::as_role(owner, &Session::own(), || {
        utility::run_on(&definition.sql, on)
    })
}

/// Gives the dropped columns of `target` the layout of those of `source`: old rows may hold values there.
pub(super) fn copy_dropped_layout(source: Oid, target: Oid) -> Result<()> {
    spi::execute_kept(
        "UPDATE pg_attribute y SET attlen = x.attlen, attalign = x.attalign, attbyval = x.attbyval, \
           attstorage = x.attstorage \
         FROM pg_attribute x WHERE x.attrelid = $1 AND y.attrelid = $2 AND x.attnum = y.attnum \
           AND x.attnum > 0 AND x.attisdropped",
        &[source.into(), target.into()],
    )?;
    crate::pg::xact::command_counter_increment();
    Ok(())
}

/// Gives `target` the missing values of `source`: columns that were added with a constant default are not in
/// the old rows.
pub fn copy_missing_values(source: Oid, target: Oid) -> Result<()> {
    spi::execute_kept(
        "UPDATE pg_attribute y SET atthasmissing = x.atthasmissing, attmissingval = x.attmissingval \
         FROM pg_attribute x WHERE x.attrelid = $1 AND y.attrelid = $2 AND x.attnum = y.attnum \
           AND x.attnum > 0 AND x.atthasmissing",
        &[source.into(), target.into()],
    )?;
    crate::pg::xact::command_counter_increment();
    Ok(())
}

/// Constraints of these kinds, then (if `indexes`) indexes that belong to no constraint, as the server deparses
/// them. Primary keys come before the other indexes.
pub fn definitions(table: Oid, kinds: &[char], indexes: bool) -> Result<Vec<Deferred>> {
    let wanted: Vec<String> = kinds.iter().map(ToString::to_string).collect();
    let constraints = spi::query_kept(
        "SELECT oid, conname::text, conindid FROM pg_constraint WHERE conrelid = $1 AND contype::text = ANY ($2) \
         ORDER BY array_position(ARRAY['n', 'c', 'p', 'u', 'x'], contype::text), conname",
        &[table.into(), wanted.into()],
        |row| Ok((row.need::<Oid>(1)?, row.need::<String>(2)?, row.need::<Oid>(3)?)),
    )?;
    let mut result = Vec::new();
    for (oid, name, index) in constraints {
        result.push(Deferred {
            name,
            sql: relation::constraint_command(oid),
            unique_columns: index::unique_columns(index)?,
            in_tablespace: index::in_tablespace(index)?,
        });
    }
    if indexes {
        let plain = spi::query_kept(
            "SELECT i.indexrelid, c.relname::text FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid \
             WHERE i.indrelid = $1 AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = i.indrelid \
               AND k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x')) ORDER BY c.relname",
            &[table.into()],
            |row| Ok((row.need::<Oid>(1)?, row.need::<String>(2)?)),
        )?;
        for (oid, name) in plain {
            result.push(Deferred {
                name,
                sql: relation::index_command(oid),
                unique_columns: index::unique_columns(oid)?,
                in_tablespace: index::in_tablespace(oid)?,
            });
        }
    }
    Ok(result)
}

/// Removes every index and index constraint of an empty shadow, and constraints that were never validated
/// (plain ALTER does not enforce those on existing rows). Returns what has to be built after the copy, the
/// index `key` first.
pub fn defer_indexes(
    owner: Oid,
    shadow: Oid,
    name: &QualifiedName,
    key: &str,
) -> Result<Vec<Deferred>> {
    let mut deferred = definitions(shadow, &['p', 'u', 'x'], true)?;
    let constraints: Vec<String> = spi::query_kept(
        "SELECT conname::text FROM pg_constraint WHERE conrelid = $1 \
           AND (contype IN ('p', 'u', 'x') OR (contype IN ('c', 'n') AND NOT convalidated))",
        &[shadow.into()],
        |row| row.need(1),
    )?;
    identity::as_role(owner, &Session::own(), || {
        for constraint in &constraints {
            utility::run(&format!(
                "ALTER TABLE {name} DROP CONSTRAINT {}",
                quote_ident(constraint)
            ))?;
        }
        Ok(())
    })?;
    let indexes: Vec<String> = spi::query_kept(
        "SELECT c.relname::text FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE i.indrelid = $1",
        &[shadow.into()],
        |row| row.need(1),
    )?;
    identity::as_role(owner, &Session::own(), || {
        for index in &indexes {
            utility::run(&format!(
                "DROP INDEX {}",
                QualifiedName::new(&name.schema, index)
            ))?;
        }
        Ok(())
    })?;
    deferred.sort_by_key(|d| d.name != key);
    Ok(deferred)
}
