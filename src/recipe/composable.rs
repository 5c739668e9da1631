//! Which statements of one table can be done together: on its copy, and on the table itself while it is empty.

use crate::pg::parser::{Action, Command, ConstraintKind, Kind, Statement};

/// Whether a statement can be done on the shadow and on the empty table alike.
pub(super) fn is_part_of_a_copy(statement: &Statement) -> bool {
    match &statement.kind {
        _ if !matches!(statement.tag.as_str(), "ALTER TABLE" | "CREATE INDEX") => false,
        Kind::AlterTable(alter) => !alter.commands.iter().any(|c| {
            c.constraint == Some(ConstraintKind::Foreign)
                || matches!(
                    c.action,
                    Action::AttachOrInherit
                        | Action::ValidateConstraint
                        | Action::AddIndexConstraint
                )
        }),
        _ if statement.tag == "ALTER TABLE" => false,
        // An index that IF NOT EXISTS finds on the table is not on the shadow.
        _ => {
            let mentions = &statement.effects.mentions;
            !(mentions.has(None, "if") && mentions.has(None, "exists"))
        }
    }
}

/// Whether the conversion of a row is that of the first statements and then this one's. What they make of a column that is there
/// can be put in its place; a column that they add is given its value once, from its default.
pub(super) fn is_composable(earlier: &[&Statement], next: &Statement) -> bool {
    let added: Vec<&str> = earlier
        .iter()
        .flat_map(|s| commands(s))
        .filter(|c| c.action == Action::AddColumn)
        .filter_map(|c| c.column.as_deref())
        .collect();
    commands(next).iter().all(|command| {
        let column = command.column.as_deref().unwrap_or_default();
        match command.action {
            Action::AlterType => {
                let reads = |c: &&str| next.effects.mentions.has(None, c);
                !(added.contains(&column) || command.has_expression && added.iter().any(reads))
            }
            // Rows that are there get the value of ADD COLUMN, not the later one.
            Action::ColumnValue | Action::AddColumn => !added.contains(&column),
            _ => true,
        }
    })
}

pub(super) fn commands(statement: &Statement) -> &[Command] {
    match &statement.kind {
        Kind::AlterTable(alter) => &alter.commands,
        _ => &[],
    }
}
