//! What depends on what.

use super::{look, need};
use crate::engine::order::{self, Placed, Way};
use crate::pg::identity;
use crate::pg::ErrorReport;
use pgrx::prelude::*;

#[allow(clippy::type_complexity, reason = "a row type of pgrx")]
#[pg_extern(stable, parallel_unsafe)]
fn execution_order() -> std::result::Result<
    TableIterator<
        'static,
        (
            name!(position, i32),
            name!(id, String),
            name!(state, String),
            name!(depends_on, Vec<String>),
        ),
    >,
    ErrorReport,
> {
    let placed = look(&identity::caller(), |_| order::execution_order())?;
    Ok(TableIterator::new(placed.into_iter().map(row)))
}

#[allow(clippy::type_complexity, reason = "a row type of pgrx")]
#[pg_extern(stable, parallel_unsafe)]
fn parallel_groups() -> std::result::Result<
    TableIterator<
        'static,
        (
            name!(parallel_group, i32),
            name!(id, String),
            name!(state, String),
            name!(depends_on, Vec<String>),
        ),
    >,
    ErrorReport,
> {
    let placed = look(&identity::caller(), |_| order::parallel_groups())?;
    Ok(TableIterator::new(placed.into_iter().map(row)))
}

fn row(placed: Placed) -> (i32, String, String, Vec<String>) {
    (placed.number, placed.id, placed.state, placed.depends_on)
}

#[allow(clippy::type_complexity, reason = "a row type of pgrx")]
#[pg_extern(stable, parallel_unsafe)]
fn dependencies(
    id: Option<&str>,
) -> std::result::Result<
    TableIterator<
        'static,
        (
            name!(id, String),
            name!(distance, i32),
            name!(state, Option<String>),
        ),
    >,
    ErrorReport,
> {
    reached(id, Way::Dependencies)
}

#[allow(clippy::type_complexity, reason = "a row type of pgrx")]
#[pg_extern(stable, parallel_unsafe)]
fn dependents(
    id: Option<&str>,
) -> std::result::Result<
    TableIterator<
        'static,
        (
            name!(id, String),
            name!(distance, i32),
            name!(state, Option<String>),
        ),
    >,
    ErrorReport,
> {
    reached(id, Way::Dependents)
}

#[allow(clippy::type_complexity, reason = "a row type of pgrx")]
fn reached(
    id: Option<&str>,
    way: Way,
) -> std::result::Result<
    TableIterator<
        'static,
        (
            name!(id, String),
            name!(distance, i32),
            name!(state, Option<String>),
        ),
    >,
    ErrorReport,
> {
    let found = look(&identity::caller(), |_| {
        order::reached(need("id", id)?, way)
    })?;
    Ok(TableIterator::new(
        found
            .into_iter()
            .map(|(r, state)| (r.name, r.distance as i32, state)),
    ))
}

#[pg_extern(stable, parallel_unsafe)]
fn graph(format: default!(Option<&str>, "'mermaid'")) -> std::result::Result<String, ErrorReport> {
    look(&identity::caller(), |_| {
        order::draw(need("format", format)?)
    })
}
