//! ATTACH and DETACH PARTITION, INHERIT, OF and the like in scripts as written: what a table is tied to before and after, and
//! what it has got only because of that.

use crate::catalog::fact;
use crate::catalog::partition::{self, TreePart};
use crate::error::Result;
use crate::model::reverse::{self, Fact, Irreversible};
use crate::pg::parser::{Action, AlterTable};
use crate::pg::{relation as pg_relation, Oid};

/// What a table that is attached, detached and the like was before.
pub(super) struct Tied {
    table: Oid,
    links: Vec<Fact>,
    parts: Vec<TreePart>,
}

/// The table that the statement ties to another one, or takes from it; `None`: it does no such thing.
pub(super) fn subject(alter: &AlterTable) -> Result<Option<Oid>> {
    let mut commands = alter.commands.iter();
    let Some(tie) = commands.find(|c| c.action == Action::AttachOrInherit) else {
        return Ok(None);
    };
    match &tie.part {
        Some(part) => pg_relation::resolve(part.schema.as_deref(), &part.name),
        None => pg_relation::resolve(alter.schema.as_deref(), &alter.name),
    }
}

impl Tied {
    pub fn look(table: Oid) -> Result<Tied> {
        Ok(Tied {
            table,
            links: fact::links(table)?,
            parts: partition::tree_parts(table)?,
        })
    }

    /// What makes it so again; the inner error says what nothing does.
    pub fn way_back(&self) -> Result<std::result::Result<Vec<String>, Irreversible>> {
        let now = Tied::look(self.table)?;
        let mut back = match reverse::statements(&self.links, &now.links) {
            Ok(back) => back,
            Err(what) => return Ok(Err(what)),
        };
        let was_there = |oid: Oid| self.parts.iter().any(|part| part.oid == oid);
        for part in now.parts.iter().filter(|part| !was_there(part.oid)) {
            let Some(drop) = &part.drop else {
                continue;
            };
            // An index of a partition that it has taken over would go with it.
            let taken = |other: &&TreePart| other.root == Some(part.oid) && was_there(other.oid);
            if now.parts.iter().any(|other| taken(&other)) {
                return Ok(Err(Irreversible(
                    "what partitions of the partition had before".into(),
                )));
            }
            back.push(drop.clone());
        }
        Ok(Ok(back))
    }
}
