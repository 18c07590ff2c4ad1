//! A context map as a drawing that stands by itself: no fonts, scripts or style sheets from elsewhere, readable on light
//! and dark ground.

use std::fmt::Write;

use super::{Area, ContextMap, Drawn, Layout, Link, LinkState, MapDomain, MapLink, layout};
use crate::domain::RelationshipKind;

/// Space around everything.
const MARGIN: i64 = 24;
/// Height of a line of text.
const LINE: i64 = 18;
/// Inner space of a box, left and right.
const PADDING: i64 = 12;
/// Longest text in a box, in characters.
const MAX_TEXT: usize = 34;
/// Height of the heading.
const HEADING: i64 = 40;

/// What is the same on every ground.
const SHAPES: &str = "text { font-family: system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif; font-size: 12px; }
.heading { font-size: 16px; font-weight: 600; }
.name { font-size: 13px; font-weight: 600; }
.dim { font-size: 11px; }
.mark { font-size: 10px; font-weight: 600; stroke-width: 3px; paint-order: stroke; }
.count { font-size: 10px; font-weight: 700; }
.link { fill: none; stroke-width: 1.5; }
.box.undeclared { stroke-dasharray: 5 3; }
.undeclared .link, .crossed .link { stroke-dasharray: 7 4; }
.unsupported .link { stroke-dasharray: 3 3; }
.apart .link { stroke-dasharray: 1 5; }
.cyclic .link { stroke-width: 3.5; }
";

/// The colours of a ground.
struct Colours {
    ground: &'static str,
    text: &'static str,
    dim: &'static str,
    domain: &'static str,
    border: &'static str,
    agreed: &'static str,
    bad: &'static str,
    doubt: &'static str,
    cycle: &'static str,
}

const LIGHT: Colours = Colours {
    ground: "#ffffff",
    text: "#1b1f24",
    dim: "#57606a",
    domain: "#f6f8fa",
    border: "#57606a",
    agreed: "#0969da",
    bad: "#cf222e",
    doubt: "#6e7781",
    cycle: "#9a6700",
};

const DARK: Colours = Colours {
    ground: "#0d1117",
    text: "#e6edf3",
    dim: "#9ea7b3",
    domain: "#161b22",
    border: "#8b949e",
    agreed: "#58a6ff",
    bad: "#ff7b72",
    doubt: "#8b949e",
    cycle: "#e3b341",
};

/// The style sheet. Colours are written out: not every viewer knows custom properties or asks for the ground.
fn style() -> String {
    let colours = |colours: &Colours| {
        let Colours { ground, text, dim, domain, border, agreed, bad, doubt, cycle } = colours;
        format!(
            ".ground {{ fill: {ground}; }}
text {{ fill: {text}; }}
.dim {{ fill: {dim}; }}
.box {{ fill: {domain}; stroke: {border}; }}
.mark {{ stroke: {ground}; }}
.link {{ stroke: {agreed}; }}
.head {{ fill: {agreed}; }}
.agreed.cyclic .link {{ stroke: {cycle}; }}
.agreed.cyclic .head {{ fill: {cycle}; }}
.undeclared .link, .crossed .link {{ stroke: {bad}; }}
.undeclared .head, .crossed .head, .undeclared .mark, .crossed .mark, .badge {{ fill: {bad}; }}
.unsupported .link, .apart .link {{ stroke: {doubt}; }}
.unsupported .head {{ fill: {doubt}; }}
.count {{ fill: {ground}; }}
"
        )
    };
    format!("{SHAPES}{}@media (prefers-color-scheme: dark) {{\n{}}}\n", colours(&LIGHT), colours(&DARK))
}

/// A text with what XML reserves written as references, and what it forbids as the replacement character
/// (XML 1.0, production 2).
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\t' | '\n' | '\r' => out.push(' '),
            '\u{0}'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            other => out.push(other),
        }
    }
    out
}

/// A text that fits a box.
fn short(text: &str) -> String {
    if text.chars().count() <= MAX_TEXT {
        return text.to_owned();
    }
    let kept: String = text.chars().take(MAX_TEXT - 1).collect();
    format!("{kept}…")
}

/// About how wide a text is, with a letter of the given width in tenths of a pixel. Letters beyond Latin count double.
fn text_width(text: &str, letter: i64) -> i64 {
    let letters: i64 = text.chars().map(|character| if u32::from(character) < 0x2e80 { 1 } else { 2 }).sum();
    letters * letter / 10
}

fn counted(count: usize, word: &str) -> String {
    format!("{count} {word}{}", if count == 1 { "" } else { "s" })
}

/// The lines of a domain's box: its name, its owner and what it has.
fn lines(domain: &MapDomain) -> [String; 3] {
    let owner = domain.owner.as_deref().map_or_else(|| "no owner known".to_owned(), short);
    let mut has = format!("{}, {}", counted(domain.products.len(), "product"), counted(domain.tables, "table"));
    if !domain.declared {
        has = if domain.products.is_empty() { "not in this mesh".to_owned() } else { format!("{has}, not declared") };
    }
    [short(&domain.name), owner, has]
}

fn box_size(domain: &MapDomain) -> (i64, i64) {
    let [name, owner, has] = lines(domain);
    let width = text_width(&name, 80).max(text_width(&owner, 65)).max(text_width(&has, 65));
    ((width + 2 * PADDING + 10).max(130), 3 * LINE + 16)
}

/// Draws a context map as SVG, upstream left. The same map is always the same text.
pub fn svg(map: &ContextMap, title: &str) -> String {
    let sizes: Vec<(i64, i64)> = map.domains.iter().map(box_size).collect();
    let links: Vec<Link> = map
        .links
        .iter()
        .map(|link| Link { from: link.upstream, to: link.downstream, directed: !link.symmetric })
        .collect();
    let layout = layout(&sizes, &links);
    let legend = legend(map);
    let legend_width = legend.iter().map(|(_, text)| 60 + text_width(text, 62)).max().unwrap_or(0);
    let heading = format!("Context map of {title}");
    let width = layout.width.max(legend_width).max(text_width(&short(&heading), 100)) + 2 * MARGIN;
    let height = HEADING + layout.height + 2 * MARGIN + MARGIN + LINE * legend.len() as i64;
    let mut out = String::new();
    let _ = writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" role=\"img\" aria-labelledby=\"title description\">"
    );
    let _ = writeln!(out, "<title id=\"title\">{}</title>", escaped(&heading));
    let _ = writeln!(
        out,
        "<desc id=\"description\">{}, {}, {}</desc>",
        counted(map.domains.len(), "domain"),
        counted(map.links.len(), "link"),
        counted(map.findings.len(), "finding")
    );
    let _ = writeln!(out, "<style>\n{}</style>", style());
    let _ = writeln!(out, "<rect class=\"ground\" width=\"{width}\" height=\"{height}\"/>");
    let _ = writeln!(
        out,
        "<text class=\"heading\" x=\"{MARGIN}\" y=\"{}\">{}</text>",
        MARGIN + 6,
        escaped(&short(&heading))
    );
    let _ = writeln!(out, "<g transform=\"translate({MARGIN} {})\">", HEADING + MARGIN / 2);
    for (link, drawn) in map.links.iter().zip(&layout.links) {
        draw_link(&mut out, map, link, drawn);
    }
    for (domain, area) in map.domains.iter().zip(&layout.boxes) {
        draw_domain(&mut out, map, domain, *area);
    }
    out.push_str("</g>\n");
    draw_legend(&mut out, &legend, &layout);
    out.push_str("</svg>\n");
    out
}

fn classes(link: &MapLink) -> String {
    format!("{}{}", link.state.as_str(), if link.cyclic { " cyclic" } else { "" })
}

fn draw_link(out: &mut String, map: &ContextMap, link: &MapLink, drawn: &Drawn) {
    let ([start, ..], [.., end]) = (drawn.points.as_slice(), drawn.points.as_slice()) else { return };
    let _ = writeln!(out, "<g class=\"{}\">", classes(link));
    let _ = writeln!(out, "<title>{}</title>", escaped(&about(map, link)));
    let mut path = format!("M{} {}", start.0, start.1);
    for step in drawn.points.windows(2) {
        let ((x1, y1), (x2, y2)) = (step[0], step[1]);
        if y1 == y2 {
            let _ = write!(path, " L{x2} {y2}");
        } else {
            let middle = i64::midpoint(x1, x2);
            let _ = write!(path, " C{middle} {y1} {middle} {y2} {x2} {y2}");
        }
    }
    let _ = writeln!(out, "<path class=\"link\" d=\"{path}\"/>");
    let way = if drawn.turned { -1 } else { 1 };
    if !link.symmetric {
        let (x, y) = *end;
        let _ = writeln!(out, "<path class=\"head\" d=\"M{x} {y} l{} -4 v8 z\"/>", -8 * way);
    }
    let (upstream, downstream) = ends(link);
    // A mark stands above its end of the line, away from the box.
    for ((x, y), text, way) in [(*start, upstream, way), (*end, downstream, -way)] {
        let anchor = if way > 0 { "start" } else { "end" };
        let offset = if link.symmetric { 4 } else { 10 };
        let _ = writeln!(
            out,
            "<text class=\"mark\" x=\"{}\" y=\"{}\" text-anchor=\"{anchor}\">{}</text>",
            x + way * offset,
            y - 4,
            escaped(&text)
        );
    }
    out.push_str("</g>\n");
}

/// What stands at both ends of a link.
pub(super) fn ends(link: &MapLink) -> (String, String) {
    let end = |role: &str, marks: Vec<&str>| {
        let role = if link.symmetric { None } else { Some(role) };
        role.into_iter().chain(marks).collect::<Vec<_>>().join(" ")
    };
    let (mut upstream, downstream) = (end("U", link.upstream_marks()), end("D", link.downstream_marks()));
    if matches!(link.state, LinkState::Undeclared) {
        upstream.push_str(if link.declared.is_empty() { " undeclared" } else { " in part" });
    }
    (upstream, downstream)
}

/// A link in words.
fn about(map: &ContextMap, link: &MapLink) -> String {
    let name = |index: usize| map.domains[index].name.as_str();
    let arrow = if link.symmetric { "and" } else { "→" };
    let mut texts = vec![format!("{} {arrow} {}: {}", name(link.upstream), name(link.downstream), link.state.as_str())];
    for declared in &link.declared {
        let about = declared.relationship.description.as_ref().map_or_else(String::new, |text| format!(" ({text})"));
        texts.push(format!("{} declares {}{about}", name(declared.by), declared.relationship.kind));
    }
    texts.extend(link.dependencies.iter().map(|found| format!("{} reads {}", found.consumer, found.supplier)));
    if link.cyclic {
        texts.push("part of a cycle".to_owned());
    }
    texts.join("; ")
}

fn draw_domain(out: &mut String, map: &ContextMap, domain: &MapDomain, area: Area) {
    let Area { x, y, width, height } = area;
    let findings: Vec<&str> = map
        .findings
        .iter()
        .filter(|finding| finding.domains.contains(&domain.name))
        .map(|finding| finding.message.as_str())
        .collect();
    let mut about = vec![domain.name.clone()];
    about.extend(domain.purpose.clone());
    about.extend(domain.responsibilities.iter().map(|text| format!("answers for: {text}")));
    about.extend(domain.products.iter().map(|product| format!("product {product}")));
    about.extend(findings.iter().map(|text| format!("finding: {text}")));
    let _ = writeln!(out, "<g>");
    let _ = writeln!(out, "<title>{}</title>", escaped(&about.join("; ")));
    let class = if domain.declared { "box" } else { "box undeclared" };
    let _ =
        writeln!(out, "<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" rx=\"6\"/>");
    let top = y + (height - 3 * LINE) / 2 + 13;
    for (number, (text, class)) in lines(domain).iter().zip(["name", "dim", "dim"]).enumerate() {
        let _ = writeln!(
            out,
            "<text class=\"{class}\" x=\"{}\" y=\"{}\">{}</text>",
            x + PADDING,
            top + LINE * number as i64,
            escaped(text)
        );
    }
    if !findings.is_empty() {
        let _ = writeln!(out, "<circle class=\"badge\" cx=\"{}\" cy=\"{y}\" r=\"8\"/>", x + width - 6);
        let _ = writeln!(
            out,
            "<text class=\"count\" x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            x + width - 6,
            y + 4,
            findings.len()
        );
    }
    out.push_str("</g>\n");
}

/// The lines of the legend: the class of the line that is explained, where it is one, and the text.
fn legend(map: &ContextMap) -> Vec<(Option<String>, String)> {
    let mut legend = Vec::new();
    let has = |state: LinkState| map.links.iter().any(|link| link.state == state);
    for (state, text) in [
        (LinkState::Agreed, "declared, and products read each other accordingly"),
        (LinkState::Undeclared, "a product reads what no relationship declares"),
        (LinkState::Unsupported, "declared, but nothing is read"),
        (LinkState::Apart, "separate ways"),
        (LinkState::Crossed, "separate ways, and yet a product reads the other's"),
    ] {
        if has(state) {
            legend.push((Some(state.as_str().to_owned()), text.to_owned()));
        }
    }
    if map.links.iter().any(|link| link.cyclic) {
        legend.push((Some("agreed cyclic".to_owned()), "part of a cycle of domains".to_owned()));
    }
    if !map.links.is_empty() {
        let kinds = RelationshipKind::ALL.map(|kind| format!("{} {}", kind.mark(), kind.as_str().replace('-', " ")));
        legend.push((None, format!("U upstream, D downstream, {}", kinds[..4].join(", "))));
        legend.push((None, kinds[4..].join(", ")));
    }
    if !map.findings.is_empty() {
        legend.push((None, "A number on a domain counts what disagrees there.".to_owned()));
    }
    legend
}

fn draw_legend(out: &mut String, legend: &[(Option<String>, String)], layout: &Layout) {
    let top = HEADING + layout.height + 2 * MARGIN + LINE;
    for (number, (class, text)) in legend.iter().enumerate() {
        let y = top + LINE * number as i64;
        let mut x = MARGIN;
        if let Some(class) = class {
            let _ = writeln!(out, "<g class=\"{class}\"><path class=\"link\" d=\"M{x} {} h40\"/></g>", y - 4);
            x += 52;
        }
        let _ = writeln!(out, "<text class=\"dim\" x=\"{x}\" y=\"{y}\">{}</text>", escaped(text));
    }
}
