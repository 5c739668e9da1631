//! What takes a client more than one request.

use std::io::Write;

use transmute_tests::session::DbError;
use transmute_tests::Session;

use super::shape::Shape;

/// COPY of one row.
pub fn copy(session: &mut Session, shape: Shape, id: i64, value: i64) -> Result<(), DbError> {
    let copied = session
        .client()
        .copy_in(&shape.copy())
        .and_then(|mut copy| {
            // What cannot be sent fails in finish(), where the server says why.
            let _ = copy.write_all(format!("{id}\t{}\n", shape.written(value)).as_bytes());
            copy.finish()
        });
    copied.map(drop).map_err(|error| DbError::from(&error))
}

/// In the place of a SQLSTATE: a row that is there was not found.
pub const MISSED: &str = "missed";

/// An UPDATE; its row must be there if the ledger has it.
pub fn exactly(session: &mut Session, update: &str, found: bool) -> Result<(), DbError> {
    let rows = session.try_rows(&format!("{update} RETURNING 1"))?;
    if found && rows.len() != 1 {
        return Err(DbError {
            sqlstate: MISSED.to_string(),
            message: format!("I1, {update} found {} rows", rows.len()),
            detail: None,
            hint: None,
            context: None,
        });
    }
    Ok(())
}

/// Statements of one transaction, whose number is asked for before it ends. `found`: what it changes is there.
pub fn transaction(
    session: &mut Session,
    statements: &[&str],
    found: bool,
    xid: &mut Option<i64>,
) -> Result<(), DbError> {
    let (end, statements) = statements.split_last().expect("statements");
    for sql in statements {
        match sql.starts_with("UPDATE") {
            true => exactly(session, sql, found)?,
            false => session.try_exec(sql)?,
        }
    }
    let rows = session.try_rows("SELECT pg_current_xact_id()")?;
    *xid = rows[0][0].as_ref().and_then(|text| text.parse().ok());
    session.try_exec(end)
}
