//! What depends on what, among all migrations.

use super::sight;
use crate::error::{Error, Result};
use crate::model::graph::{Cycle, Graph, Reached};
use crate::model::nearest::nearest;
use crate::pg::identity::Caller;
use crate::store::dependency::{self, Node};
use crate::store::migration;

/// A migration in the graph.
pub struct Placed {
    /// From 1: place in the order, or number of the group.
    pub number: i32,
    pub id: String,
    pub state: String,
    pub depends_on: Vec<String>,
}

fn load() -> Result<(Vec<Node>, Graph)> {
    let nodes = dependency::nodes()?;
    let graph = Graph::new(nodes.iter().map(|n| (n.id.clone(), n.depends_on.clone())));
    Ok((nodes, graph))
}

fn placed(nodes: &[Node], number: usize, id: &str) -> Option<Placed> {
    let node = nodes.iter().find(|n| n.id == id)?;
    Some(Placed {
        number: number as i32 + 1,
        id: node.id.clone(),
        state: node.state.clone(),
        depends_on: node.depends_on.clone(),
    })
}

/// Two registrations at the same time can close a cycle that neither of them saw.
fn of_cycle(cycle: &Cycle) -> Error {
    Error::Prerequisite {
        problem: "the dependencies form a cycle".into(),
        detail: format!("{cycle}."),
        hint: "None of these can start: register one of them without it, under another id.".into(),
    }
}

/// Every migration behind those it depends on.
pub fn execution_order() -> Result<Vec<Placed>> {
    let (nodes, graph) = load()?;
    let order = graph.order().map_err(|c| of_cycle(&c))?;
    let placed = order.into_iter().enumerate();
    Ok(placed
        .filter_map(|(i, id)| self::placed(&nodes, i, id))
        .collect())
}

/// Migrations that do not depend on each other, group by group.
pub fn parallel_groups() -> Result<Vec<Placed>> {
    let (nodes, graph) = load()?;
    let groups = graph.groups().map_err(|c| of_cycle(&c))?;
    let members = groups
        .into_iter()
        .enumerate()
        .flat_map(|(i, group)| group.into_iter().map(move |id| (i, id)));
    Ok(members
        .filter_map(|(i, id)| placed(&nodes, i, id))
        .collect())
}

/// Which way from a migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Dependencies,
    Dependents,
}

/// What a migration depends on, or what depends on it, with its state where it is registered.
pub fn reached(id: &str, way: Way) -> Result<Vec<(Reached, Option<String>)>> {
    let (nodes, graph) = load()?;
    if !nodes.iter().any(|n| n.id == id) {
        return Err(Error::UnknownMigration { id: id.into() });
    }
    let reached = match way {
        Way::Dependencies => graph.dependencies(id),
        Way::Dependents => graph.dependents(id),
    };
    let state = |name: &str| nodes.iter().find(|n| n.id == name).map(|n| n.state.clone());
    Ok(reached
        .into_iter()
        .map(|r| {
            let state = state(&r.name);
            (r, state)
        })
        .collect())
}

/// The graph as a drawing.
pub fn draw(format: &str) -> Result<String> {
    let (nodes, graph) = load()?;
    let label = |name: &str| match nodes.iter().find(|n| n.id == name) {
        Some(node) => Some(node.state.clone()),
        None => Some("not registered".into()),
    };
    match format {
        "mermaid" => Ok(graph.mermaid(label)),
        "dot" => Ok(graph.dot(label)),
        _ => Err(Error::InvalidArgument {
            problem: "unknown format".into(),
            detail: format!("format is {format}."),
            hint: "The formats are 'mermaid' and 'dot'.".into(),
        }),
    }
}

/// Ids that can be applied, each behind those it depends on.
pub fn pending() -> Result<Vec<String>> {
    let (_, graph) = load()?;
    let pending = migration::pending()?;
    let order = graph.order().map_err(|c| of_cycle(&c))?;
    Ok(order
        .into_iter()
        .filter(|id| pending.iter().any(|p| p == id))
        .map(str::to_string)
        .collect())
}

/// Refuses dependencies of a new migration that would close a cycle; says, to whom may know, which of them nobody has registered yet.
pub fn check_new(id: &str, depends_on: &[String], caller: &Caller) -> Result<()> {
    if depends_on.is_empty() {
        return Ok(());
    }
    let nodes = dependency::nodes()?;
    let graph = Graph::new(
        nodes
            .iter()
            .map(|n| (n.id.clone(), n.depends_on.clone()))
            .chain(std::iter::once((id.to_string(), depends_on.to_vec()))),
    );
    if let Some(cycle) = graph.cycle() {
        if cycle.0.iter().any(|name| name == id) {
            return Err(Error::InvalidArgument {
                problem: "the dependencies form a cycle".into(),
                detail: format!("meta.depends_on: {cycle}."),
                hint: "A migration can only depend on what does not depend on it.".into(),
            });
        }
    }
    if !sight::reads_all(caller)? {
        return Ok(());
    }
    for needed in depends_on {
        if !nodes.iter().any(|n| n.id == *needed) {
            let meant = match nearest(needed, nodes.iter().map(|n| n.id.as_str())) {
                Some(known) => format!("; perhaps you meant \"{known}\""),
                None => String::new(),
            };
            crate::log::warning(&format!(
                "migration \"{id}\" depends on \"{needed}\", which is not registered yet{meant}"
            ));
        }
    }
    Ok(())
}
