//! What depends on what: order, groups that can run side by side, cycles. Names may be needed that no node has (yet).

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};

/// Nodes in the order in which they were registered, each with the names of those it needs.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    names: Vec<String>,
    index: HashMap<String, usize>,
    /// What each node names, in its own order.
    named: Vec<Vec<String>>,
    /// Nodes that each node needs; names without a node are left out.
    needs: Vec<Vec<usize>>,
    /// Nodes that need each node.
    needed_by: Vec<Vec<usize>>,
}

/// Nodes that need each other, in a ring: each needs the next one, the last is the first.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join(" → "))]
pub struct Cycle(pub Vec<String>);

/// A node on the way from another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reached {
    pub name: String,
    /// 1: directly; else by so many steps, at least.
    pub distance: usize,
    /// Whether there is a node of this name.
    pub known: bool,
}

impl Graph {
    pub fn new(nodes: impl IntoIterator<Item = (String, Vec<String>)>) -> Graph {
        let mut graph = Graph::default();
        for (name, named) in nodes {
            graph.index.insert(name.clone(), graph.names.len());
            graph.names.push(name);
            graph.named.push(named);
        }
        graph.needed_by = vec![Vec::new(); graph.names.len()];
        for (node, named) in graph.named.iter().enumerate() {
            let mut needs = Vec::new();
            for name in named {
                match graph.index.get(name) {
                    Some(other) if !needs.contains(other) => {
                        needs.push(*other);
                        graph.needed_by[*other].push(node);
                    }
                    _ => {}
                }
            }
            graph.needs.push(needs);
        }
        graph
    }

    /// Every node after all that it needs, otherwise in the order of registration.
    ///
    /// # Errors
    /// A cycle.
    pub fn order(&self) -> Result<Vec<&str>, Cycle> {
        let mut missing: Vec<usize> = self.needs.iter().map(Vec::len).collect();
        let free = |m: &Vec<usize>| -> Vec<Reverse<usize>> {
            (0..m.len()).filter(|n| m[*n] == 0).map(Reverse).collect()
        };
        let mut ready = BinaryHeap::from(free(&missing));
        let mut order = Vec::with_capacity(self.names.len());
        while let Some(Reverse(node)) = ready.pop() {
            order.push(self.names[node].as_str());
            for other in &self.needed_by[node] {
                missing[*other] -= 1;
                if missing[*other] == 0 {
                    ready.push(Reverse(*other));
                }
            }
        }
        match order.len() == self.names.len() {
            true => Ok(order),
            false => Err(self.cycle().unwrap_or(Cycle(Vec::new()))),
        }
    }

    /// Groups of nodes that do not need each other: each group needs only what is in the groups before it, each node is in
    /// the first group that is possible.
    ///
    /// # Errors
    /// A cycle.
    pub fn groups(&self) -> Result<Vec<Vec<&str>>, Cycle> {
        let mut level = vec![0; self.names.len()];
        let mut groups: Vec<Vec<usize>> = Vec::new();
        for name in self.order()? {
            let node = self.index[name];
            level[node] = self.needs[node]
                .iter()
                .map(|other| level[*other] + 1)
                .max()
                .unwrap_or(0);
            if groups.len() <= level[node] {
                groups.push(Vec::new());
            }
            groups[level[node]].push(node);
        }
        for group in &mut groups {
            group.sort_unstable();
        }
        let names = |group: Vec<usize>| group.iter().map(|n| self.names[*n].as_str()).collect();
        Ok(groups.into_iter().map(names).collect())
    }

    /// One cycle, if there is any.
    pub fn cycle(&self) -> Option<Cycle> {
        // Depth first: `done` led to no cycle, `path` is where we are.
        let mut done = vec![false; self.names.len()];
        for start in 0..self.names.len() {
            let mut path: Vec<(usize, usize)> = vec![(start, 0)];
            let mut on_path = HashSet::from([start]);
            while let Some((node, next)) = path.last_mut() {
                if done[*node] {
                    on_path.remove(node);
                    path.pop();
                    continue;
                }
                let Some(other) = self.needs[*node].get(*next).copied() else {
                    done[*node] = true;
                    continue;
                };
                *next += 1;
                if on_path.contains(&other) {
                    let from = path.iter().position(|(n, _)| *n == other).unwrap_or(0);
                    let mut ring: Vec<String> = path[from..]
                        .iter()
                        .map(|(n, _)| self.names[*n].clone())
                        .collect();
                    ring.push(self.names[other].clone());
                    return Some(Cycle(ring));
                }
                if !done[other] {
                    on_path.insert(other);
                    path.push((other, 0));
                }
            }
        }
        None
    }

    /// Everything that a node needs, nearest first.
    pub fn dependencies(&self, name: &str) -> Vec<Reached> {
        let named = |node: &str| match self.index.get(node) {
            Some(node) => self.named[*node].clone(),
            None => Vec::new(),
        };
        self.walk(name, named)
    }

    /// Everything that needs a node, nearest first. It need not be there yet.
    pub fn dependents(&self, name: &str) -> Vec<Reached> {
        let mut by_name: HashMap<&str, Vec<String>> = HashMap::new();
        for (node, named) in self.named.iter().enumerate() {
            for needed in named {
                by_name
                    .entry(needed)
                    .or_default()
                    .push(self.names[node].clone());
            }
        }
        self.walk(name, |node| by_name.get(node).cloned().unwrap_or_default())
    }

    fn walk(&self, from: &str, next: impl Fn(&str) -> Vec<String>) -> Vec<Reached> {
        let mut seen = HashSet::from([from.to_owned()]);
        let mut reached: Vec<Reached> = Vec::new();
        let mut edge = vec![from.to_owned()];
        let mut distance = 0;
        while !edge.is_empty() {
            distance += 1;
            let mut further = Vec::new();
            for node in edge {
                for name in next(&node) {
                    if seen.insert(name.clone()) {
                        reached.push(Reached {
                            known: self.index.contains_key(&name),
                            distance,
                            name: name.clone(),
                        });
                        further.push(name);
                    }
                }
            }
            edge = further;
        }
        reached
    }

    /// A flowchart for Mermaid; `label` says more of a node. An arrow leads from what is needed to what needs it.
    pub fn mermaid(&self, label: impl Fn(&str) -> Option<String>) -> String {
        let mut text = String::from("flowchart TD\n");
        self.draw(label, |n, lines| {
            let lines: Vec<String> = lines.iter().map(|l| mermaid_text(l)).collect();
            text.push_str(&format!("  n{n}[\"{}\"]\n", lines.join("<br/>")));
        });
        for (from, to) in self.edges() {
            text.push_str(&format!("  n{from} --> n{to}\n"));
        }
        text
    }

    /// A graph for Graphviz, likewise.
    pub fn dot(&self, label: impl Fn(&str) -> Option<String>) -> String {
        let mut text = String::from("digraph migrations {\n  node [shape=box];\n");
        self.draw(label, |n, lines| {
            let lines: Vec<String> = lines.iter().map(|l| dot_text(l)).collect();
            text.push_str(&format!("  n{n} [label=\"{}\"];\n", lines.join("\\n")));
        });
        for (from, to) in self.edges() {
            text.push_str(&format!("  n{from} -> n{to};\n"));
        }
        text.push_str("}\n");
        text
    }

    /// Nodes, then names without a node, each with its number and lines of text.
    fn draw(&self, label: impl Fn(&str) -> Option<String>, mut each: impl FnMut(usize, &[String])) {
        for (n, name) in self.names.iter().chain(&self.unknown()).enumerate() {
            let lines: Vec<String> = std::iter::once(name.clone()).chain(label(name)).collect();
            each(n, &lines);
        }
    }

    fn unknown(&self) -> Vec<String> {
        let mut unknown: Vec<String> = Vec::new();
        for name in self.named.iter().flatten() {
            if !self.index.contains_key(name) && !unknown.contains(name) {
                unknown.push(name.clone());
            }
        }
        unknown
    }

    /// From what is needed to what needs it, by number.
    fn edges(&self) -> Vec<(usize, usize)> {
        let unknown = self.unknown();
        let number = |name: &String| {
            self.index.get(name).copied().or_else(|| {
                let place = unknown.iter().position(|u| u == name)?;
                Some(self.names.len() + place)
            })
        };
        let mut edges = Vec::new();
        for (node, named) in self.named.iter().enumerate() {
            edges.extend(named.iter().filter_map(|name| Some((number(name)?, node))));
        }
        edges
    }
}

/// Mermaid knows HTML's entities by `#`, and nothing else in a quoted text.
fn mermaid_text(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '"' | '#' | '&' | '<' | '>' | '\\' | '`' | ';' => {
                out.push_str(&format!("#{};", c as u32))
            }
            c => out.push(c),
        }
    }
    out
}

fn dot_text(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn graph(nodes: &[(&str, &[&str])]) -> Graph {
        Graph::new(nodes.iter().map(|(name, needs)| {
            let needs = needs.iter().map(|n| (*n).to_string()).collect();
            ((*name).to_string(), needs)
        }))
    }

    #[test]
    fn what_is_needed_comes_first_and_otherwise_the_older() {
        let g = graph(&[("c", &["a", "b"]), ("a", &[]), ("d", &[]), ("b", &["a"])]);
        assert_eq!(g.order().unwrap(), ["a", "d", "b", "c"]);
        assert_eq!(g.groups().unwrap(), [vec!["a", "d"], vec!["b"], vec!["c"]]);
    }

    #[test]
    fn a_cycle_is_told_as_a_ring() {
        let g = graph(&[("x", &["b"]), ("a", &["b"]), ("b", &["c"]), ("c", &["a"])]);
        assert_eq!(g.cycle().unwrap().to_string(), "b → c → a → b");
        assert_eq!(g.order(), Err(g.cycle().unwrap()));
        assert_eq!(
            graph(&[("a", &["a"])]).cycle().unwrap().to_string(),
            "a → a"
        );
    }

    #[test]
    fn what_is_not_there_is_needed_all_the_same() {
        let g = graph(&[("a", &["ghost"]), ("b", &["a"])]);
        assert_eq!(g.order().unwrap(), ["a", "b"]);
        let names = |reached: Vec<Reached>| -> Vec<(String, usize, bool)> {
            reached
                .into_iter()
                .map(|r| (r.name, r.distance, r.known))
                .collect()
        };
        assert_eq!(
            names(g.dependencies("b")),
            [("a".to_string(), 1, true), ("ghost".to_string(), 2, false)]
        );
        assert_eq!(
            names(g.dependents("ghost")),
            [("a".to_string(), 1, true), ("b".to_string(), 2, true)]
        );
    }

    #[test]
    fn drawings_hold_every_node_once_and_quote_its_name() {
        let g = graph(&[("a\"b\\", &["ghost"]), ("c", &["a\"b\\"])]);
        let label = |name: &str| (name == "c").then(|| "RUNNING".to_string());
        assert_eq!(
            g.mermaid(label),
            "flowchart TD\n  n0[\"a#34;b#92;\"]\n  n1[\"c<br/>RUNNING\"]\n  n2[\"ghost\"]\n  n2 --> n0\n  n0 --> n1\n"
        );
        assert_eq!(
            g.dot(label),
            "digraph migrations {\n  node [shape=box];\n  n0 [label=\"a\\\"b\\\\\"];\n  n1 [label=\"c\\nRUNNING\"];\n  \
             n2 [label=\"ghost\"];\n  n2 -> n0;\n  n0 -> n1;\n}\n"
        );
    }

    /// Any graph of up to nine nodes, with names that no node has among the needed ones.
    fn any_graph() -> impl Strategy<Value = Vec<(String, Vec<String>)>> {
        proptest::collection::vec(proptest::collection::vec(0..11usize, 0..4), 0..10).prop_map(
            |needs| {
                let named = |list: Vec<usize>| list.into_iter().map(|n| format!("m{n}")).collect();
                needs
                    .into_iter()
                    .enumerate()
                    .map(|(i, list)| (format!("m{i}"), named(list)))
                    .collect()
            },
        )
    }

    /// The same without cycles: each needs older ones only, then all are shuffled.
    fn acyclic() -> impl Strategy<Value = Vec<(String, Vec<String>)>> {
        any_graph()
            .prop_map(|mut nodes| {
                for (i, (_, needs)) in nodes.iter_mut().enumerate() {
                    needs.retain(|n| n[1..].parse::<usize>().unwrap() < i);
                }
                nodes
            })
            .prop_shuffle()
    }

    proptest! {
        #[test]
        fn the_order_is_a_linear_extension(nodes in acyclic()) {
            let g = Graph::new(nodes.clone());
            prop_assert_eq!(g.cycle(), None);
            let order = g.order().unwrap();
            prop_assert_eq!(order.len(), nodes.len());
            let place = |name: &str| order.iter().position(|n| *n == name).unwrap();
            for (name, needs) in &nodes {
                for need in needs {
                    prop_assert!(place(need) < place(name), "{} before {}", need, name);
                }
            }
        }

        #[test]
        fn groups_are_antichains_that_are_as_early_as_can_be(nodes in acyclic()) {
            let g = Graph::new(nodes.clone());
            let groups = g.groups().unwrap();
            prop_assert_eq!(groups.iter().map(Vec::len).sum::<usize>(), nodes.len());
            let group = |name: &str| groups.iter().position(|g| g.contains(&name)).unwrap();
            for (name, needs) in &nodes {
                for reached in g.dependencies(name) {
                    prop_assert!(group(&reached.name) < group(name));
                }
                let earliest = needs.iter().map(|n| group(n) + 1).max().unwrap_or(0);
                prop_assert_eq!(group(name), earliest);
            }
        }

        #[test]
        fn there_is_an_order_or_a_real_cycle(nodes in any_graph()) {
            let g = Graph::new(nodes.clone());
            match g.order() {
                Ok(order) => prop_assert_eq!(order.len(), nodes.len()),
                Err(Cycle(ring)) => {
                    prop_assert!(ring.len() >= 2 && ring.first() == ring.last());
                    for pair in ring.windows(2) {
                        let needs = &nodes.iter().find(|n| n.0 == pair[0]).unwrap().1;
                        prop_assert!(needs.contains(&pair[1]), "{:?}", ring);
                    }
                }
            }
        }

        #[test]
        fn dependencies_and_dependents_are_each_others_mirror(nodes in any_graph()) {
            let g = Graph::new(nodes.clone());
            for (a, _) in &nodes {
                for b in g.dependencies(a) {
                    if b.name != *a {
                        prop_assert!(g.dependents(&b.name).iter().any(|d| d.name == *a && d.distance == b.distance));
                    }
                }
            }
        }

        #[test]
        fn drawings_never_break_out_of_their_quotes(name in "\\PC{0,20}") {
            let g = Graph::new([(name.clone(), vec![])]);
            let line = g.mermaid(|_| None).lines().nth(1).unwrap().to_string();
            prop_assert_eq!(line.matches('"').count(), 2, "{}", line);
        }
    }
}
