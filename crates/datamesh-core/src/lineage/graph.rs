//! The lineage of a whole mesh, walked up to the sources and down to the consumers.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

use super::{Dataset, FieldPath, Kind, Subtype, Transformation};

/// A field of a dataset, or its rows as such.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node {
    /// The dataset.
    pub dataset: Dataset,
    /// The field; `None` for what concerns which rows there are.
    pub field: Option<FieldPath>,
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.dataset, &self.field) {
            (dataset @ Dataset::External { .. }, Some(field)) => write!(f, "{dataset} {field}"),
            (dataset, Some(field)) => write!(f, "{dataset}.{field}"),
            (dataset, None) => write!(f, "{dataset} (rows)"),
        }
    }
}

/// One recorded dependency.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Edge {
    /// What depends; without a field it is all columns, by the rows.
    pub output: Node,
    /// What it depends on.
    pub input: Node,
    /// How; `None` where a dataset is read, but none of its columns matters.
    pub how: Option<Transformation>,
}

/// What a walk follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From outputs to their inputs.
    Up,
    /// From inputs to what is made of them.
    Down,
}

impl Direction {
    /// The direction's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// How something far away reaches what was asked for; `None` where only the number of its rows does.
pub type Effect = Option<Transformation>;

/// One step of a walk: an edge, narrowed to the field that was asked for where a whole struct was passed on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hop {
    /// Steps from what was asked for, from 1.
    pub distance: usize,
    /// The edge.
    pub edge: Edge,
}

/// What a walk found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// Every step once, nearest first.
    pub hops: Vec<Hop>,
    /// Everything reached, with each way it reaches what was asked for.
    pub effects: BTreeMap<Node, BTreeSet<Effect>>,
}

/// Whether an edge only influences.
pub(crate) fn is_indirect(how: Option<Transformation>) -> bool {
    how.is_none_or(|how| how.kind() == Kind::Indirect)
}

/// Edges, found from both ends.
#[derive(Clone, Debug, Default)]
pub struct LineageGraph {
    edges: Vec<Edge>,
    by_output: BTreeMap<Dataset, Vec<usize>>,
    by_input: BTreeMap<Dataset, Vec<usize>>,
}

impl LineageGraph {
    /// A graph of these edges.
    pub fn new(edges: impl IntoIterator<Item = Edge>) -> Self {
        let edges: BTreeSet<Edge> = edges.into_iter().collect();
        let mut graph = Self { edges: edges.into_iter().collect(), ..Self::default() };
        for (index, edge) in graph.edges.iter().enumerate() {
            graph.by_output.entry(edge.output.dataset.clone()).or_default().push(index);
            graph.by_input.entry(edge.input.dataset.clone()).or_default().push(index);
        }
        graph
    }

    /// The edges, sorted.
    pub fn edges(&self) -> &[Edge] {
        &self.edges
    }

    /// Walks from `roots` as far as `depth` steps, or to the ends. A cycle is walked once.
    pub fn walk(&self, roots: &[Node], direction: Direction, depth: Option<usize>, direct_only: bool) -> Trace {
        let start: Effect = Some(Subtype::Identity.into());
        let mut seen: BTreeSet<(Node, Effect)> = roots.iter().map(|root| (root.clone(), start)).collect();
        let mut queue: VecDeque<(Node, Effect, usize)> = roots.iter().map(|root| (root.clone(), start, 0)).collect();
        let mut walked: BTreeMap<Edge, usize> = BTreeMap::new();
        let mut trace = Trace::default();
        while let Some((node, effect, distance)) = queue.pop_front() {
            if depth.is_some_and(|depth| distance >= depth) {
                continue;
            }
            for edge in self.step(&node, direction) {
                if direct_only && is_indirect(edge.how) {
                    continue;
                }
                let next = match direction {
                    Direction::Up => edge.input.clone(),
                    Direction::Down => edge.output.clone(),
                };
                let reached = match (direction, effect, edge.how) {
                    (Direction::Up, Some(effect), Some(how)) => Some(effect.then(how)),
                    (Direction::Down, Some(effect), Some(how)) => Some(how.then(effect)),
                    _ => None,
                };
                walked.entry(edge).or_insert(distance + 1);
                trace.effects.entry(next.clone()).or_default().insert(reached);
                if seen.insert((next.clone(), reached)) {
                    queue.push_back((next, reached, distance + 1));
                }
            }
        }
        trace.hops = walked.into_iter().map(|(edge, distance)| Hop { distance, edge }).collect();
        trace.hops.sort();
        trace
    }

    /// The edges that lead on from a node, narrowed to its field.
    fn step(&self, node: &Node, direction: Direction) -> Vec<Edge> {
        let index = match direction {
            Direction::Up => &self.by_output,
            Direction::Down => &self.by_input,
        };
        let edges = index.get(&node.dataset).into_iter().flatten().map(|index| &self.edges[*index]);
        match direction {
            Direction::Up => edges.filter_map(|edge| up(edge, node)).collect(),
            Direction::Down => edges.filter_map(|edge| down(edge, node)).collect(),
        }
    }
}

/// Structs are never nested deeper. Without a limit a column made of its own field would have no end.
const MAX_DEPTH: usize = 64;

/// What is below a field travels along where the field is passed on as it is.
fn narrow(how: Option<Transformation>, field: Option<&FieldPath>, rest: &[String]) -> Option<FieldPath> {
    let identity = how.is_some_and(|how| how.subtype == Subtype::Identity);
    let fits = |field: &FieldPath| field.parts().len() + rest.len() <= MAX_DEPTH;
    field.map(|field| if identity && fits(field) { field.join(rest) } else { field.clone() })
}

/// `edge` as a step from `node` to an input. What decides the rows is an input of every column.
fn up(edge: &Edge, node: &Node) -> Option<Edge> {
    match (&edge.output.field, &node.field) {
        (None, _) => Some(edge.clone()),
        (Some(_), None) => None,
        (Some(output), Some(field)) => {
            if let Some(rest) = output.rest_of(field) {
                let input = Node { field: narrow(edge.how, edge.input.field.as_ref(), rest), ..edge.input.clone() };
                Some(Edge { output: node.clone(), input, how: edge.how })
            } else {
                field.rest_of(output).map(|_| edge.clone())
            }
        }
    }
}

/// `edge` as a step from `node` to an output. Whatever decides a table's rows has an influence on all that reads it.
fn down(edge: &Edge, node: &Node) -> Option<Edge> {
    match (&edge.input.field, &node.field) {
        (_, None) => Some(edge.clone()),
        (None, Some(_)) => None,
        (Some(input), Some(field)) => {
            if let Some(rest) = input.rest_of(field) {
                let output = Node { field: narrow(edge.how, edge.output.field.as_ref(), rest), ..edge.output.clone() };
                Some(Edge { output, input: node.clone(), how: edge.how })
            } else {
                field.rest_of(input).map(|_| edge.clone())
            }
        }
    }
}
