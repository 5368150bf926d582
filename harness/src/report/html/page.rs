//! The frame around every page, and pages that are one text in a fixed font.

use super::escaped;

const STYLE: &str = include_str!("style.css");

/// `body` is html.
pub fn page(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>{body}</main>\n</body>\n</html>\n",
        escaped(title)
    )
}

/// A page for findings whose markdown is their best form.
pub fn prose(title: &str, text: &str) -> String {
    let body = format!(
        "<header><h1>{}</h1></header><section class=\"card\"><div class=\"scroll\"><pre style=\"white-space:pre\">{}</pre></div></section>",
        escaped(title),
        escaped(text)
    );
    page(title, &body)
}
