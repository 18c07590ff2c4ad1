//! Walks as text, JSON and Mermaid.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use serde_json::{Value, json};

use super::graph::is_indirect;
use super::{Dataset, Direction, Effect, Hop, Node, Trace, Transformation};

/// How a piece of text is to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ink {
    /// As it is.
    Plain,
    /// What was asked for.
    Strong,
    /// What only influences.
    Dim,
}

/// What a node leads to: the next nodes, each with its ways, direct ones first.
fn next<'t>(hops: &'t [Hop], direction: Direction) -> BTreeMap<&'t Node, Vec<(bool, &'t Node, BTreeSet<Effect>)>> {
    let mut grouped: BTreeMap<&Node, BTreeMap<&Node, BTreeSet<Effect>>> = BTreeMap::new();
    for hop in hops {
        let (from, to) = match direction {
            Direction::Up => (&hop.edge.output, &hop.edge.input),
            Direction::Down => (&hop.edge.input, &hop.edge.output),
        };
        grouped.entry(from).or_default().entry(to).or_default().insert(hop.edge.how);
    }
    let sorted = |ways: BTreeMap<&'t Node, BTreeSet<Effect>>| {
        let mut ways: Vec<_> =
            ways.into_iter().map(|(to, ways)| (ways.iter().all(|way| is_indirect(*way)), to, ways)).collect();
        ways.sort();
        ways
    };
    grouped.into_iter().map(|(from, ways)| (from, sorted(ways))).collect()
}

fn words(ways: &BTreeSet<Effect>) -> String {
    let words = ways.iter().filter_map(|way| way.map(|way| way.subtype.as_str()));
    let words: Vec<&str> = words.collect();
    if words.is_empty() { "ROWS".to_owned() } else { words.join(", ") }
}

struct Tree<'t> {
    next: BTreeMap<&'t Node, Vec<(bool, &'t Node, BTreeSet<Effect>)>>,
    expanded: BTreeSet<&'t Node>,
    text: String,
}

impl<'t> Tree<'t> {
    fn branches(&mut self, node: &'t Node, skip_rows_of: Option<&Dataset>, ink: &dyn Fn(&str, Ink) -> String) {
        // A stack instead of recursion: a chain of products may be long.
        let mut stack: Vec<(&'t Node, String, bool, bool, BTreeSet<Effect>, bool)> = Vec::new();
        self.push(&mut stack, node, "", false, skip_rows_of);
        self.expanded.insert(node);
        while let Some((node, prefix, last, indirect, ways, dim)) = stack.pop() {
            let dim = dim || indirect;
            let known = self.expanded.contains(node) && self.next.contains_key(node);
            let again = if known { " (see above)" } else { "" };
            let how = if indirect { format!("({})", words(&ways)) } else { words(&ways) };
            let line = format!("{node}  {how}{again}");
            let line = ink(&line, if dim { Ink::Dim } else { Ink::Plain });
            let _ = writeln!(self.text, "{prefix}{} {line}", if last { "└─" } else { "├─" });
            if !known {
                self.expanded.insert(node);
                let prefix = format!("{prefix}{}", if last { "   " } else { "│  " });
                self.push(&mut stack, node, &prefix, dim, None);
            }
        }
    }

    fn push(
        &self,
        stack: &mut Vec<(&'t Node, String, bool, bool, BTreeSet<Effect>, bool)>,
        node: &Node,
        prefix: &str,
        dim: bool,
        skip_rows_of: Option<&Dataset>,
    ) {
        let Some(all) = self.next.get(node) else { return };
        let rows = skip_rows_of
            .and_then(|dataset| self.next.get(&Node { dataset: dataset.clone(), field: None }))
            .filter(|_| node.field.is_some());
        // What decides the rows is listed once for the table; it is an input of each of its columns all the same.
        let own: Vec<_> = all
            .iter()
            .filter_map(|(_, to, ways)| {
                let ways: BTreeSet<Effect> = match rows.and_then(|rows| rows.iter().find(|(_, row, _)| row == to)) {
                    Some((_, _, shared)) => ways.difference(shared).copied().collect(),
                    None => ways.clone(),
                };
                (!ways.is_empty()).then(|| (ways.iter().all(|way| is_indirect(*way)), *to, ways))
            })
            .collect();
        let count = own.len();
        for (index, (indirect, to, ways)) in own.into_iter().enumerate().rev() {
            stack.push((to, prefix.to_owned(), index + 1 == count, indirect, ways, dim));
        }
    }
}

/// A walk as a tree below each root, in the roots' order. What only influences is in brackets, and dimmed by `ink`.
pub fn tree(roots: &[Node], direction: Direction, trace: &Trace, ink: &dyn Fn(&str, Ink) -> String) -> String {
    let mut tree = Tree { next: next(&trace.hops, direction), expanded: BTreeSet::new(), text: String::new() };
    let whole: BTreeSet<&Dataset> =
        roots.iter().filter(|root| root.field.is_none()).map(|root| &root.dataset).collect();
    for root in roots {
        if root.field.is_none() && !tree.next.contains_key(root) {
            continue;
        }
        let _ = writeln!(tree.text, "{}", ink(&root.to_string(), Ink::Strong));
        let Some(root) = tree.next.keys().find(|known| **known == root).copied() else { continue };
        let skip = whole.get(&root.dataset).copied().filter(|_| direction == Direction::Up);
        tree.branches(root, skip, ink);
    }
    tree.text
}

fn node_json(node: &Node) -> Value {
    json!({
        "namespace": node.dataset.namespace(),
        "name": node.dataset.name(),
        "field": node.field.as_ref().map(ToString::to_string),
    })
}

fn effect_json(effect: Effect) -> Value {
    let word = |word: fn(Transformation) -> &'static str| effect.map(word);
    json!({
        "type": word(|effect| effect.kind().as_str()).unwrap_or("INDIRECT"),
        "subtype": word(|effect| effect.subtype.as_str()),
        "masking": effect.is_some_and(|effect| effect.masking),
    })
}

/// A walk as JSON: its steps, nearest first, and what was reached with its ways, each in the order of their names.
pub fn to_json(direction: Direction, trace: &Trace) -> Value {
    let edges = trace.hops.iter().map(|hop| {
        let mut edge = effect_json(hop.edge.how);
        if let Some(edge) = edge.as_object_mut() {
            edge.insert("distance".into(), hop.distance.into());
            edge.insert("output".into(), node_json(&hop.edge.output));
            edge.insert("input".into(), node_json(&hop.edge.input));
        }
        edge
    });
    let reached = trace.effects.iter().map(|(node, effects)| {
        let mut value = node_json(node);
        if let Some(value) = value.as_object_mut() {
            value.insert("transformations".into(), effects.iter().map(|effect| effect_json(*effect)).collect());
        }
        value
    });
    json!({
        "direction": direction.as_str(),
        "edges": edges.collect::<Vec<_>>(),
        "reached": reached.collect::<Vec<_>>(),
    })
}

/// Walks as one Mermaid flow chart, inputs at the left. Solid arrows carry values, dotted ones only influence.
pub fn mermaid(roots: &[Node], traces: &[&Trace]) -> String {
    let mut nodes: BTreeSet<&Node> = roots.iter().collect();
    let mut edges: BTreeMap<(&Node, &Node), BTreeSet<Effect>> = BTreeMap::new();
    for hop in traces.iter().flat_map(|trace| &trace.hops) {
        let (input, output) = (&hop.edge.input, &hop.edge.output);
        nodes.extend([input, output]);
        edges.entry((input, output)).or_default().insert(hop.edge.how);
    }
    // A root that has no edge and is no column says nothing.
    nodes.retain(|node| node.field.is_some() || edges.keys().any(|(input, output)| input == node || output == node));
    let numbers: BTreeMap<&Node, usize> = nodes.iter().enumerate().map(|(number, node)| (*node, number)).collect();
    let mut datasets: BTreeMap<&Dataset, Vec<&Node>> = BTreeMap::new();
    for node in &nodes {
        datasets.entry(&node.dataset).or_default().push(node);
    }
    // Mermaid reads `#` as the start of a character's code, and a quote as the end of the text.
    let text = |text: &str| text.replace('#', "#35;").replace('"', "#quot;").replace(['\n', '\r'], " ");
    let mut chart = String::from("flowchart LR\n");
    for (number, (dataset, nodes)) in datasets.iter().enumerate() {
        let _ = writeln!(chart, "  subgraph d{number}[\"{}\"]", text(&dataset.to_string()));
        for node in nodes {
            let label = node.field.as_ref().map_or_else(|| "(rows)".to_owned(), ToString::to_string);
            let _ = writeln!(chart, "    n{}[\"{}\"]", numbers[*node], text(&label));
        }
        chart.push_str("  end\n");
    }
    for ((input, output), ways) in &edges {
        let indirect = ways.iter().all(|way| is_indirect(*way));
        let arrow = if indirect { "-.->" } else { "-->" };
        let _ = writeln!(chart, "  n{} {arrow}|\"{}\"| n{}", numbers[*input], words(ways), numbers[*output]);
    }
    chart
}
