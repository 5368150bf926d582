//! The little markdown that this program writes, as a page: tables, headings, paragraphs, code and bold.

use super::{escaped, page};

/// A drawing above the text; `svg` may be several. One that is `half` as wide as the page stands beside its neighbour.
pub struct Drawing {
    pub title: String,
    pub note: &'static str,
    pub svg: String,
    pub half: bool,
}

/// `drawings` stand above the text, in their order.
pub fn prose(title: &str, text: &str, drawings: &[Drawing]) -> String {
    let card = |drawing: &Drawing| {
        let note = if drawing.note.is_empty() { String::new() } else { format!("<p>{}</p>", inline(drawing.note)) };
        format!("<section class=\"card\"><h2>{}</h2>{note}<div class=\"scroll\">{}</div></section>", inline(&drawing.title), drawing.svg)
    };
    let group = |group: &[Drawing]| {
        let cards: String = group.iter().map(card).collect();
        if group[0].half { format!("<div class=\"pair\">{cards}</div>") } else { cards }
    };
    let cards: String = drawings.chunk_by(|a, b| a.half == b.half).map(group).collect();
    let body = format!("<header><h1>{}</h1></header><div style=\"height:16px\"></div>{cards}<section class=\"card\"><div class=\"scroll prose\">{}</div></section>", escaped(title), blocks(text));
    page(title, &body)
}

fn blocks(text: &str) -> String {
    let mut html = String::new();
    for block in text.split("\n\n").map(str::trim).filter(|block| !block.is_empty()) {
        // a table may follow a line of text without an empty line between
        let (before, table): (Vec<&str>, Vec<&str>) = block.lines().partition(|line| !line.starts_with('|'));
        if let Some(title) = before.first().and_then(|line| line.strip_prefix("## ").or(line.strip_prefix("# "))) {
            html += &format!("<h2>{}</h2>", inline(title));
        } else if before.iter().all(|line| line.starts_with("* ")) {
            html += &before.iter().map(|line| format!("<p>{}</p>", inline(&line[2..]))).collect::<String>();
        } else if !before.is_empty() {
            html += &format!("<p>{}</p>", inline(&before.join(" ")));
        }
        if !table.is_empty() {
            html += &rows(&table);
        }
    }
    html
}

fn rows(lines: &[&str]) -> String {
    let cells = |line: &str, tag: &str| {
        let inside = line.trim().trim_start_matches('|').trim_end_matches('|');
        let parts = inside.split('|').map(|cell| format!("<{tag}>{}</{tag}>", inline(cell.trim())));
        format!("<tr>{}</tr>", parts.collect::<String>())
    };
    let is_rule = |line: &&str| line.chars().all(|c| "|-: ".contains(c));
    let head = cells(lines[0], "th");
    let body: String = lines[1..].iter().filter(|line| !is_rule(line)).map(|line| cells(line, "td")).collect();
    format!("<table><thead>{head}</thead><tbody>{body}</tbody></table>")
}

fn inline(text: &str) -> String {
    let paired = |text: String, mark: &str, tag: &str| {
        let parts: Vec<&str> = text.split(mark).collect();
        let inside = |(i, part): (usize, &&str)| if i % 2 == 1 { format!("<{tag}>{part}</{tag}>") } else { part.to_string() };
        parts.iter().enumerate().map(inside).collect::<String>()
    };
    paired(paired(escaped(text), "**", "strong"), "`", "code")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markdown_becomes_html() {
        let html = blocks("## A & B\n\nSome **bold** `x < y`.\n\n| a | b |\n|---|--:|\n| k - 3 | 2 |\n");
        for part in ["<h2>A &amp; B</h2>", "<p>Some <strong>bold</strong> <code>x &lt; y</code>.</p>", "<tr><th>a</th><th>b</th></tr>", "<td>k - 3</td><td>2</td>"] {
            assert!(html.contains(part), "{part} is not in {html}");
        }
        assert!(!html.contains("---"));
    }
}
