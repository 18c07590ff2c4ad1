//! A layered drawing of a directed graph, left to right, in whole pixels: the same graph is always drawn the same.
//!
//! The steps are those of Sugiyama, Tagawa and Toda (1981): links that close a circle are turned, boxes get ranks by the
//! longest path, long links get a place in every rank that they cross, ranks are ordered by barycentres, and places are
//! moved towards their neighbours as far as the order allows.

use std::collections::BTreeSet;

/// Space between two boxes of one rank.
const BOX_GAP: i64 = 28;
/// Space that a link takes where it crosses a rank.
const LANE: i64 = 16;
/// Space between two links at one side of a box.
const PORT: i64 = 18;
/// Space above the first and below the last link of a side.
const PORT_MARGIN: i64 = 16;
/// Space between two ranks: the marks at both ends of a link must fit.
const RANK_GAP: i64 = 210;
/// Most places that long links may take; beyond it they are drawn straight across.
const MAX_LANES: usize = 20_000;
/// How often ranks are ordered anew.
const SWEEPS: usize = 16;
/// How often places are moved towards their neighbours.
const MOVES: usize = 12;
/// Width that boxes without a link are wrapped at, where the graph is not wider.
const WRAP: i64 = 1000;

/// A link between two boxes, by index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// What stands left, where circles allow.
    pub from: usize,
    /// What stands right of it.
    pub to: usize,
    /// Whether it says which of the two stands left; where not, the other links decide.
    pub directed: bool,
}

/// A rectangle: left, top, width and height.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Area {
    /// Left side.
    pub x: i64,
    /// Upper side.
    pub y: i64,
    /// Width.
    pub width: i64,
    /// Height.
    pub height: i64,
}

/// How a link is drawn.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drawn {
    /// The points that it goes through, from the box `from` to the box `to`, horizontally at each.
    pub points: Vec<(i64, i64)>,
    /// Whether it runs right to left.
    pub turned: bool,
}

/// Where everything is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// Width of the whole.
    pub width: i64,
    /// Height of the whole.
    pub height: i64,
    /// The boxes, in the order of their sizes.
    pub boxes: Vec<Area>,
    /// The links, in their order. A link of a box to itself has no points.
    pub links: Vec<Drawn>,
}

/// A place in a rank: a box, or where a long link crosses it.
struct Place {
    rank: usize,
    height: i64,
    /// Places in the rank before that lead here, and in the next one that this leads to.
    before: Vec<usize>,
    after: Vec<usize>,
    /// The middle.
    y: i64,
    is_lane: bool,
}

/// Lays out boxes of these sizes (width, height). A box grows in height where its links need that.
///
/// Links that name no box are left without points.
pub fn layout(sizes: &[(i64, i64)], links: &[Link]) -> Layout {
    let count = sizes.len();
    let is_real = |link: &&Link| link.from < count && link.to < count && link.from != link.to;
    let real: Vec<&Link> = links.iter().filter(is_real).collect();
    let order = order(count, &real);
    let turned = |link: &Link| order[link.from] > order[link.to];
    let ends = |link: &Link| if turned(link) { (link.to, link.from) } else { (link.from, link.to) };
    let ranks = ranks(count, &order, &real.iter().map(|link| ends(link)).collect::<Vec<_>>());

    let mut sides = vec![(0i64, 0i64); count];
    for link in &real {
        let (left, right) = ends(link);
        sides[left].1 += 1;
        sides[right].0 += 1;
    }
    let mut boxes: Vec<Area> = sizes
        .iter()
        .zip(&sides)
        .map(|((width, height), (left, right))| {
            let needed = 2 * PORT_MARGIN + PORT * (left.max(right) - 1);
            Area { x: 0, y: 0, width: *width, height: (*height).max(needed) }
        })
        .collect();

    // Places: the linked boxes first, by index, then the lanes of long links.
    let linked: Vec<bool> = sides.iter().map(|(left, right)| left + right > 0).collect();
    let mut places: Vec<Place> = boxes
        .iter()
        .zip(&ranks)
        .map(|(area, rank)| Place {
            rank: *rank,
            height: area.height,
            before: Vec::new(),
            after: Vec::new(),
            y: 0,
            is_lane: false,
        })
        .collect();
    let crossed: usize = real.iter().map(|link| ends(link)).map(|(left, right)| ranks[right] - ranks[left] - 1).sum();
    let mut routes: Vec<Vec<usize>> = Vec::with_capacity(links.len());
    for link in links {
        if !is_real(&link) {
            routes.push(Vec::new());
            continue;
        }
        let (left, right) = ends(link);
        let mut route = vec![left];
        if crossed <= MAX_LANES {
            for rank in ranks[left] + 1..ranks[right] {
                route.push(places.len());
                let lane = Place { rank, height: LANE, before: Vec::new(), after: Vec::new(), y: 0, is_lane: true };
                places.push(lane);
            }
        }
        route.push(right);
        for step in route.windows(2) {
            places[step[0]].after.push(step[1]);
            places[step[1]].before.push(step[0]);
        }
        routes.push(route);
    }

    let height = place(&mut places, &linked);
    let columns = columns(&places, &linked, &boxes);
    for (index, area) in boxes.iter_mut().enumerate().filter(|(index, _)| linked[*index]) {
        (area.x, area.y) = (columns[places[index].rank].0, places[index].y - area.height / 2);
    }
    let graph_width = columns.last().map_or(0, |(x, width)| x + width);
    let (width, height) = place_alone(&mut boxes, &linked, graph_width, height);
    let links = draw(&routes, &places, &boxes, &columns, links, &turned);
    Layout { width, height, boxes, links }
}

/// Positions in which every directed link that closes no circle leads forward, by box.
fn order(count: usize, links: &[&Link]) -> Vec<usize> {
    let mut next: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); count];
    for link in links.iter().filter(|link| link.directed) {
        next[link.from].insert(link.to);
    }
    // Boxes without an incoming link come first, so that circles are entered where the graph enters them.
    let mut has_incoming = vec![false; count];
    next.iter().flatten().for_each(|to| has_incoming[*to] = true);
    let mut roots: Vec<usize> = (0..count).collect();
    roots.sort_by_key(|index| (has_incoming[*index], *index));
    let mut seen = vec![false; count];
    let mut finished = Vec::with_capacity(count);
    for root in roots {
        if std::mem::replace(&mut seen[root], true) {
            continue;
        }
        let mut walk = vec![(root, next[root].iter())];
        while let Some((at, rest)) = walk.last_mut() {
            match rest.next() {
                Some(&to) if !std::mem::replace(&mut seen[to], true) => walk.push((to, next[to].iter())),
                Some(_) => {}
                None => {
                    finished.push(*at);
                    walk.pop();
                }
            }
        }
    }
    let mut order = vec![0; count];
    finished.iter().rev().enumerate().for_each(|(position, index)| order[*index] = position);
    order
}

/// The rank of each box: the longest path to it; what nothing leads to stands just before what it leads to.
fn ranks(count: usize, order: &[usize], links: &[(usize, usize)]) -> Vec<usize> {
    let mut next: Vec<Vec<usize>> = vec![Vec::new(); count];
    let mut has_incoming = vec![false; count];
    for (from, to) in links {
        next[*from].push(*to);
        has_incoming[*to] = true;
    }
    let mut sorted: Vec<usize> = (0..count).collect();
    sorted.sort_by_key(|index| order[*index]);
    let mut ranks = vec![0; count];
    for &at in &sorted {
        for &to in &next[at] {
            ranks[to] = ranks[to].max(ranks[at] + 1);
        }
    }
    for &at in &sorted {
        let nearest = next[at].iter().map(|to| ranks[*to]).min();
        if let Some(nearest) = nearest.filter(|_| !has_incoming[at]) {
            ranks[at] = nearest - 1;
        }
    }
    ranks
}

/// Orders the places of each rank and gives them heights from the top; the height of the whole.
fn place(places: &mut [Place], linked: &[bool]) -> i64 {
    let counts = |index: usize| linked.get(index).copied().unwrap_or(true);
    let last = (0..places.len()).filter(|index| counts(*index)).map(|index| places[index].rank).max();
    let Some(last) = last else { return 0 };
    let mut ranks: Vec<Vec<usize>> = vec![Vec::new(); last + 1];
    for index in (0..places.len()).filter(|index| counts(*index)) {
        ranks[places[index].rank].push(index);
    }
    let mut position = vec![0usize; places.len()];
    let number = |ranks: &[Vec<usize>], position: &mut [usize]| {
        for rank in ranks {
            rank.iter().enumerate().for_each(|(at, index)| position[*index] = at);
        }
    };
    number(&ranks, &mut position);
    let mut best = (crossings(&ranks, places, &position), ranks.clone());
    for sweep in 0..SWEEPS {
        let down = sweep % 2 == 0;
        let turn: Vec<usize> = if down { (0..ranks.len()).collect() } else { (0..ranks.len()).rev().collect() };
        for rank in turn {
            let centre = |index: &usize| {
                let place = &places[*index];
                let neighbours = if down { &place.before } else { &place.after };
                // A fraction as whole numbers, so that equal centres are equal.
                let sum: usize = neighbours.iter().map(|other| position[*other]).sum();
                match neighbours.len() {
                    0 => position[*index] << 20,
                    count => (sum << 20) / count,
                }
            };
            let mut keyed: Vec<(usize, usize, usize)> =
                ranks[rank].iter().map(|index| (centre(index), position[*index], *index)).collect();
            keyed.sort_unstable();
            ranks[rank] = keyed.into_iter().map(|(_, _, index)| index).collect();
            ranks[rank].iter().enumerate().for_each(|(at, index)| position[*index] = at);
        }
        let found = crossings(&ranks, places, &position);
        if found < best.0 {
            best = (found, ranks.clone());
        }
    }
    let ranks = best.1;
    for rank in &ranks {
        let mut top = 0;
        for (at, index) in rank.iter().enumerate() {
            if at > 0 {
                top += gap(&places[rank[at - 1]], &places[*index]);
            }
            places[*index].y = top + places[*index].height / 2;
            top += places[*index].height;
        }
    }
    for turn in 0..MOVES {
        let sequence: Vec<usize> =
            if turn % 2 == 0 { (0..ranks.len()).collect() } else { (0..ranks.len()).rev().collect() };
        for rank in sequence {
            settle(places, &ranks[rank]);
        }
    }
    let top = ranks.iter().flatten().map(|index| places[*index].y - places[*index].height / 2).min().unwrap_or(0);
    places.iter_mut().for_each(|place| place.y -= top);
    ranks
        .iter()
        .flatten()
        .map(|index| places[*index].y - places[*index].height / 2 + places[*index].height)
        .max()
        .unwrap_or(0)
}

fn gap(above: &Place, below: &Place) -> i64 {
    if above.is_lane && below.is_lane { 2 } else { BOX_GAP }
}

/// How many pairs of links cross between neighbouring ranks.
fn crossings(ranks: &[Vec<usize>], places: &[Place], position: &[usize]) -> u64 {
    let mut crossings = 0;
    for pair in ranks.windows(2) {
        // A Fenwick tree counts the ends that lie below, link by link from the top.
        let mut tree = vec![0u64; pair[1].len() + 1];
        let mut added = 0;
        for index in &pair[0] {
            let mut ends: Vec<usize> = places[*index]
                .after
                .iter()
                .filter(|to| places[**to].rank == places[*index].rank + 1)
                .map(|to| position[*to])
                .collect();
            ends.sort_unstable();
            for end in &ends {
                let (mut at, mut not_below) = (end + 1, 0);
                while at > 0 {
                    not_below += tree[at];
                    at &= at - 1;
                }
                crossings += added - not_below;
            }
            for end in ends {
                let mut at = end + 1;
                while at < tree.len() {
                    tree[at] += 1;
                    at += at & at.wrapping_neg();
                }
                added += 1;
            }
        }
    }
    crossings
}

/// Moves the places of one rank as near to their neighbours' heights as their order and the gaps allow: least squares
/// under a monotone constraint, by pooling adjacent violators.
fn settle(places: &mut [Place], rank: &[usize]) {
    let mut offset = 0;
    let mut offsets = Vec::with_capacity(rank.len());
    // Groups of places that touch: the sum of what they want, and how many they are.
    let mut groups: Vec<(i64, i64)> = Vec::with_capacity(rank.len());
    for (at, index) in rank.iter().enumerate() {
        let place = &places[*index];
        if at > 0 {
            let above = &places[rank[at - 1]];
            offset += above.height - above.height / 2 + gap(above, place) + place.height / 2;
        }
        offsets.push(offset);
        let neighbours = || place.before.iter().chain(&place.after).map(|other| places[*other].y);
        let wanted = match neighbours().count() as i64 {
            0 => place.y,
            count => neighbours().sum::<i64>().div_euclid(count),
        };
        groups.push((wanted - offset, 1));
        while let [.., (above, above_count), (below, below_count)] = groups.as_mut_slice() {
            if *above * *below_count <= *below * *above_count {
                break;
            }
            *above += *below;
            *above_count += *below_count;
            groups.pop();
        }
    }
    let mut at = 0;
    for (sum, count) in groups {
        for _ in 0..count {
            // One rounding for the whole group, and a monotone one: gaps stay whole.
            places[rank[at]].y = sum.div_euclid(count) + offsets[at];
            at += 1;
        }
    }
}

/// Left side and width of each rank.
fn columns(places: &[Place], linked: &[bool], boxes: &[Area]) -> Vec<(i64, i64)> {
    let count = places.iter().enumerate().filter(|(index, _)| linked.get(*index).copied().unwrap_or(true));
    let Some(last) = count.map(|(_, place)| place.rank).max() else { return Vec::new() };
    let mut columns = vec![(0, 0); last + 1];
    for (index, area) in boxes.iter().enumerate().filter(|(index, _)| linked[*index]) {
        let width = &mut columns[places[index].rank].1;
        *width = (*width).max(area.width);
    }
    let mut x = 0;
    for column in &mut columns {
        column.0 = x;
        x += column.1 + RANK_GAP;
    }
    columns
}

/// Puts boxes without a link in rows below the graph; the size of the whole.
fn place_alone(boxes: &mut [Area], linked: &[bool], graph_width: i64, graph_height: i64) -> (i64, i64) {
    let wrap = graph_width.max(WRAP);
    let (mut width, mut height) = (graph_width, graph_height);
    let (mut x, mut y, mut row) = (0, if graph_height > 0 { graph_height + 2 * BOX_GAP } else { 0 }, 0);
    for area in boxes.iter_mut().zip(linked).filter(|(_, linked)| !**linked).map(|(area, _)| area) {
        if x > 0 && x + area.width > wrap {
            (x, y, row) = (0, y + row + BOX_GAP, 0);
        }
        (area.x, area.y) = (x, y);
        x += area.width + BOX_GAP;
        row = row.max(area.height);
        width = width.max(area.x + area.width);
        height = height.max(area.y + area.height);
    }
    (width, height)
}

/// The points of every link. At a box's side links are ordered by where they lead, so that they do not cross at once.
fn draw(
    routes: &[Vec<usize>],
    places: &[Place],
    boxes: &[Area],
    columns: &[(i64, i64)],
    links: &[Link],
    turned: &dyn Fn(&Link) -> bool,
) -> Vec<Drawn> {
    let mut right: Vec<Vec<(i64, usize)>> = vec![Vec::new(); boxes.len()];
    let mut left: Vec<Vec<(i64, usize)>> = vec![Vec::new(); boxes.len()];
    for (number, route) in routes.iter().enumerate() {
        if let ([first, second, ..], [.., before_last, last]) = (route.as_slice(), route.as_slice()) {
            right[*first].push((places[*second].y, number));
            left[*last].push((places[*before_last].y, number));
        }
    }
    let mut ends = vec![(0, 0); routes.len()];
    for (index, area) in boxes.iter().enumerate() {
        for (side, is_right) in [(&mut right[index], true), (&mut left[index], false)] {
            side.sort_unstable();
            let first = area.y + area.height / 2 - PORT * (side.len() as i64 - 1) / 2;
            for (at, (_, number)) in side.iter().enumerate() {
                let y = first + PORT * at as i64;
                if is_right { ends[*number].0 = y } else { ends[*number].1 = y }
            }
        }
    }
    let drawn = |(number, route): (usize, &Vec<usize>)| {
        let ([first, .., last], link) = (route.as_slice(), &links[number]) else { return Drawn::default() };
        let mut points = vec![(boxes[*first].x + boxes[*first].width, ends[number].0)];
        // A box may be narrower than its rank: the link leaves the rank before it turns.
        let (x, width) = columns[places[*first].rank];
        if x + width > points[0].0 {
            points.push((x + width, ends[number].0));
        }
        for lane in &route[1..route.len() - 1] {
            let (x, width) = columns[places[*lane].rank];
            points.extend([(x, places[*lane].y), (x + width, places[*lane].y)]);
        }
        points.push((boxes[*last].x, ends[number].1));
        let turned = turned(link);
        if turned {
            points.reverse();
        }
        Drawn { points, turned }
    };
    routes.iter().enumerate().map(drawn).collect()
}
