//! Queries with owned results. Every query text here and above is fully qualified or runs under the
//! pinned search_path of `identity`.

use crate::error::{Error, Result};
use pgrx::datum::DatumWithOid;
use pgrx::prelude::*;
use pgrx::spi::SpiHeapTupleData;

/// One row of a result, columns from 1.
pub struct Row<'a>(SpiHeapTupleData<'a>);

impl Row<'_> {
    pub fn get<T: FromDatum + IntoDatum>(&self, column: usize) -> Result<Option<T>> {
        Ok(self.0.get::<T>(column)?)
    }

    /// A column that cannot be NULL.
    pub fn need<T: FromDatum + IntoDatum>(&self, column: usize) -> Result<T> {
        self.get(column)?
            .ok_or_else(|| Error::Bug(format!("column {column} of a catalog query is NULL")))
    }
}

/// Runs `sql` and maps each row.
pub fn query<T>(
    sql: &str,
    args: &[DatumWithOid<'_>],
    mut each: impl FnMut(&Row<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    Spi::connect_mut(|client| {
        let table = client.update(sql, None, args)?;
        let mut rows = Vec::with_capacity(table.len());
        for tuple in table {
            rows.push(each(&Row(tuple))?);
        }
        Ok(rows)
    })
}

/// The first row, if there is one.
pub fn first<T>(
    sql: &str,
    args: &[DatumWithOid<'_>],
    each: impl FnMut(&Row<'_>) -> Result<T>,
) -> Result<Option<T>> {
    Ok(query(sql, args, each)?.into_iter().next())
}

/// The one value of a query that always gives a row; NULL is `None`.
pub fn value<T: FromDatum + IntoDatum>(sql: &str, args: &[DatumWithOid<'_>]) -> Result<Option<T>> {
    Ok(first(sql, args, |row| row.get::<T>(1))?.flatten())
}

/// Runs a statement; the number of rows it touched.
pub fn execute(sql: &str, args: &[DatumWithOid<'_>]) -> Result<usize> {
    Spi::connect_mut(|client| Ok(client.update(sql, None, args)?.len()))
}
