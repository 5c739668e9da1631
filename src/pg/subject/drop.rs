//! DROP of whatever: what goes is looked up by `catalog::lock`.

use super::{mention, nodes, words, Reach, Subject};
use crate::model::lock::Mode;
use crate::model::operation::Operation;
use pgrx::pg_sys;

/// # Safety
/// `stmt` is a DropStmt of the raw parser.
pub(super) unsafe fn of(stmt: *mut pg_sys::DropStmt, tag: &str) -> Subject {
    use pg_sys::ObjectType::*;
    let mut subject = Subject::is(Operation::of_tag(tag));
    // SAFETY: names of relations are lists of String nodes; the cast follows the tag.
    unsafe {
        subject.cascade = (*stmt).behavior == pg_sys::DropBehavior::DROP_CASCADE;
        subject.outside_transaction = (*stmt).concurrent;
        for object in nodes((*stmt).objects) {
            if (*object).type_ != pg_sys::NodeTag::T_List {
                continue;
            }
            let parts = words(object.cast());
            let whole = Reach::Dropped {
                column: None,
                constraint: None,
                cascade: subject.cascade,
            };
            let lock = Mode::AccessExclusive;
            subject.mentions.extend(match (*stmt).removeType {
                OBJECT_INDEX if (*stmt).concurrent => {
                    let weak = Mode::ShareUpdateExclusive;
                    mention(&parts, 0, weak, Reach::IndexOf(weak))
                }
                OBJECT_INDEX => mention(&parts, 0, lock, Reach::IndexOf(lock)),
                OBJECT_TABLE | OBJECT_VIEW | OBJECT_MATVIEW | OBJECT_SEQUENCE
                | OBJECT_FOREIGN_TABLE => mention(&parts, 0, lock, whole),
                OBJECT_TRIGGER | OBJECT_RULE | OBJECT_POLICY => {
                    mention(&parts, 1, lock, Reach::Itself)
                }
                OBJECT_STATISTIC_EXT => {
                    mention(&parts, 0, Mode::ShareUpdateExclusive, Reach::Statistics)
                }
                _ => None,
            });
        }
    }
    subject
}
