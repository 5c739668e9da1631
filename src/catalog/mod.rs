//! Read-only pictures of pg_catalog. Queries longer than a few lines live in `sql/query/`.

pub mod blocker;
pub mod column;
pub mod constraint;
pub mod fact;
pub mod growth;
pub mod index;
pub mod lock;
pub mod partition;
pub mod pressure;
pub mod relation;
