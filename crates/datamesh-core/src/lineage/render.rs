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

/// Text with its control characters written out: a terminal acts on them.
fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    shown
}

/// The steps of a walk, by where they start.
fn next(hops: &[Hop], direction: Direction) -> BTreeMap<&Node, BTreeMap<&Node, BTreeSet<Effect>>> {
    let mut grouped: BTreeMap<&Node, BTreeMap<&Node, BTreeSet<Effect>>> = BTreeMap::new();
    for hop in hops {
        let (from, to) = match direction {
            Direction::Up => (&hop.edge.output, &hop.edge.input),
            Direction::Down => (&hop.edge.input, &hop.edge.output),
        };
        grouped.entry(from).or_default().entry(to).or_default().insert(hop.edge.how);
    }
    grouped
}

fn words(ways: &BTreeSet<Effect>) -> String {
    let words = ways.iter().filter_map(|way| way.map(|way| way.subtype.as_str()));
    let words: Vec<&str> = words.collect();
    if words.is_empty() { "ROWS".to_owned() } else { words.join(", ") }
}

/// A node that a tree leads to: whether it only influences, what it is, and how it got there.
type Branch<'t> = (bool, &'t Node, BTreeSet<Effect>);

struct Tree<'t> {
    direction: Direction,
    next: BTreeMap<&'t Node, BTreeMap<&'t Node, BTreeSet<Effect>>>,
    expanded: BTreeSet<&'t Node>,
    text: String,
}

/// A line that is still to be written.
struct Pending<'t> {
    branch: Branch<'t>,
    prefix: String,
    last: bool,
    dim: bool,
}

impl<'t> Tree<'t> {
    /// What a node leads to, direct ones first. What decides a table's rows leads to and from all its columns; for a
    /// table that was asked for as a whole it is told once.
    fn branches(&self, node: &Node, whole: bool) -> Vec<Branch<'t>> {
        let leads = |from: &Node| match (&node.field, &from.field) {
            (ours, theirs) if ours == theirs => true,
            (Some(ours), Some(theirs)) => ours.rest_of(theirs).is_some(),
            (Some(_), None) => self.direction == Direction::Up && !whole,
            (None, _) => self.direction == Direction::Down && !whole,
        };
        let mut all: BTreeMap<&'t Node, BTreeSet<Effect>> = BTreeMap::new();
        for (_, ways) in self.next.iter().filter(|(from, _)| from.dataset == node.dataset && leads(from)) {
            for (to, ways) in ways {
                all.entry(to).or_default().extend(ways);
            }
        }
        let mut branches: Vec<Branch<'t>> =
            all.into_iter().map(|(to, ways)| (ways.iter().all(|way| is_indirect(*way)), to, ways)).collect();
        branches.sort();
        branches
    }

    fn write(&mut self, root: &'t Node, whole: bool, ink: &dyn Fn(&str, Ink) -> String) {
        // A stack instead of recursion: a chain of products may be long.
        let mut stack = Vec::new();
        push(&mut stack, self.branches(root, whole), "", false);
        self.expanded.insert(root);
        while let Some(Pending { branch: (indirect, node, ways), prefix, last, dim }) = stack.pop() {
            let dim = dim || indirect;
            let branches = self.branches(node, false);
            let known = !branches.is_empty() && !self.expanded.insert(node);
            let again = if known { " (see above)" } else { "" };
            let how = if indirect { format!("({})", words(&ways)) } else { words(&ways) };
            let line =
                ink(&format!("{}  {how}{again}", visible(&node.to_string())), if dim { Ink::Dim } else { Ink::Plain });
            let _ = writeln!(self.text, "{prefix}{} {line}", if last { "└─" } else { "├─" });
            if !known {
                push(&mut stack, branches, &format!("{prefix}{}", if last { "   " } else { "│  " }), dim);
            }
        }
    }
}

fn push<'t>(stack: &mut Vec<Pending<'t>>, branches: Vec<Branch<'t>>, prefix: &str, dim: bool) {
    let count = branches.len();
    for (index, branch) in branches.into_iter().enumerate().rev() {
        stack.push(Pending { branch, prefix: prefix.to_owned(), last: index + 1 == count, dim });
    }
}

/// A walk as a tree below each root, in the roots' order. What only influences is in brackets, and dimmed by `ink`.
pub fn tree<'t>(
    roots: &'t [Node],
    direction: Direction,
    trace: &'t Trace,
    ink: &dyn Fn(&str, Ink) -> String,
) -> String {
    let next = next(&trace.hops, direction);
    let mut tree = Tree { direction, next, expanded: BTreeSet::new(), text: String::new() };
    let whole: BTreeSet<&Dataset> =
        roots.iter().filter(|root| root.field.is_none()).map(|root| &root.dataset).collect();
    for root in roots {
        let whole = whole.contains(&root.dataset);
        if root.field.is_none() && tree.branches(root, whole).is_empty() {
            continue;
        }
        let _ = writeln!(tree.text, "{}", ink(&visible(&root.to_string()), Ink::Strong));
        tree.write(root, whole, ink);
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
    // Mermaid reads `#` as the start of a character's code, a quote as the end of the text, and the rest as HTML.
    let text = |text: &str| {
        let text = visible(&text.replace(['\n', '\r'], " ")).replace('#', "#35;").replace('"', "#quot;");
        text.replace('&', "#amp;").replace('<', "#lt;").replace('>', "#gt;")
    };
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
