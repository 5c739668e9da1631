//! The decisions, and nothing but the decisions: no server, no I/O, no clock, no randomness of its own. What a function
//! needs to know it is told, so that every rule here is tested in milliseconds and by properties.
//!
//! The words of the project, used with these meanings everywhere (code, SQL, documents):
//!
//! - *migration*: metadata and an ordered list of steps, known by a text id; it has one [`state::State`].
//! - *step*: one statement, or one piece of data work, of a migration, with its own revert; belongs to a [`phase::Phase`].
//! - *phase*: `expand`, `backfill`, `validate` or `contract`.
//! - *batch*: what one transaction of the copy does; a *range* of heap blocks that is committed with the copy's position.
//! - *rule*: the expression that computes the new shape of a row from the old one.
//! - *artifact*: what a migration leaves behind on purpose (old rows, a hidden column), to be restored or purged.
//! - *gate*: a condition that must hold before a state is left; it says what would let it pass.
//! - *soak*: a time that must go by before a state is left, kept as an absolute deadline.
//! - *dead letter*: a row that the new shape refuses, put aside so that the others go on.
//! - *checkpoint*: a named version of the schema.
//! - *node*: a server process group that can drive migrations; its *conductor* advances states, its *hands* copy.
//!
//! Times are `i64` microseconds since the Unix epoch, UTC; durations are `i64` microseconds or `f64` milliseconds, as
//! the name says (`_us`, `_ms`).

pub mod address;
pub mod admission;
pub mod amount;
pub mod approval;
pub mod audit;
pub mod digest;
pub mod document;
pub mod effects;
pub mod gate;
pub mod graph;
pub mod growth;
pub mod ident;
pub mod invariant;
pub mod lock;
pub mod mentions;
pub mod meta;
pub mod nearest;
pub mod operation;
pub mod phase;
pub mod place;
pub mod plan;
pub mod pressure;
pub mod rate;
pub mod reason;
pub mod release;
pub mod retry;
pub mod reverse;
pub mod risk;
pub mod rule;
pub mod soak;
pub mod source;
pub mod start;
pub mod state;
pub mod stored;
pub mod template;
pub mod throttle;
pub mod ties;
pub mod token;
pub mod verifier;
pub mod version;
pub mod written;
pub mod xid;
