//! A report as one file of HTML: no script, nothing that is loaded, light and dark.
//!
//! Every text passes [`escaped`]; what is not text is ours. A policy in the head forbids a reader's browser to load or run
//! anything, whatever a picture holds.

use std::fmt::Write as _;

use super::document::{Block, Card, Column, Document, Picture, Span, Table, Text};
use super::svg;
use crate::escape::on_line;

/// The layout.
const STYLE: &str = include_str!("style.css");
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:";

/// The whole file.
pub fn html(document: &Document) -> String {
    let mut out = String::new();
    let title = escaped(&document.title);
    let _ = write!(
        out,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n<style>\n{STYLE}{}\n</style>\n</head>\n\
         <body>\n<main>\n<h1>{title}</h1>\n",
        svg::style()
    );
    out.push_str("<nav aria-label=\"Contents\"><ul>");
    for section in document.sections() {
        let _ = write!(out, "<li><a href=\"#{}\">{}</a></li>", section.id, escaped(section.title));
    }
    out.push_str("</ul></nav>\n");
    for section in document.sections() {
        let _ = writeln!(out, "<section id=\"{}\">\n<h2>{}</h2>", section.id, escaped(section.title));
        section.blocks.iter().for_each(|block| write_block(&mut out, block));
        out.push_str("</section>\n");
    }
    out.push_str("</main>\n</body>\n</html>\n");
    out
}

/// Text for between tags and for attributes, on one line.
fn escaped(text: &str) -> String {
    entities(&on_line(text))
}

fn entities(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

fn write_block(out: &mut String, block: &Block) {
    match block {
        Block::Title(title) => {
            let _ = writeln!(out, "<h3>{}</h3>", text(title));
        }
        Block::Text(words) => {
            let _ = writeln!(out, "<p>{}</p>", text(words));
        }
        Block::List(items) => {
            out.push_str("<ul>\n");
            items.iter().for_each(|item| {
                let _ = writeln!(out, "<li>{}</li>", text(item));
            });
            out.push_str("</ul>\n");
        }
        Block::Figures(figures) => {
            out.push_str("<dl class=\"figures\">\n");
            for figure in figures {
                let note = match figure.note.is_empty() {
                    true => String::new(),
                    false => format!("<dd class=\"note\">{}</dd>", escaped(&figure.note)),
                };
                let (name, value) = (escaped(&figure.name), escaped(&figure.value));
                let _ = writeln!(out, "<div><dt>{name}</dt><dd class=\"value\">{value}</dd>{note}</div>");
            }
            out.push_str("</dl>\n");
        }
        Block::Table(table) => write_table(out, table),
        Block::Picture(picture) => write_picture(out, picture),
        Block::Cards { cards, .. } => {
            out.push_str("<div class=\"cards\">\n");
            cards.iter().for_each(|card| write_card(out, card));
            out.push_str("</div>\n");
        }
        Block::Code(code) => {
            let lines: Vec<String> = code.lines().map(escaped).collect();
            let _ = writeln!(out, "<pre tabindex=\"0\">{}</pre>", lines.join("\n"));
        }
        Block::Folded { title, blocks } => {
            let _ = writeln!(out, "<details>\n<summary>{}</summary>", escaped(title));
            blocks.iter().for_each(|block| write_block(out, block));
            out.push_str("</details>\n");
        }
    }
}

fn text(words: &Text) -> String {
    let of = |span: &Span| match span {
        Span::Plain(text) => escaped(text),
        Span::Name(text) => format!("<span class=\"name\">{}</span>", escaped(text)),
        Span::Code(text) => format!("<code>{}</code>", escaped(text)),
        Span::Strong(text) => format!("<strong>{}</strong>", escaped(text)),
        Span::Good(text) => format!("<strong class=\"good\">{}</strong>", escaped(text)),
        Span::Bad(text) => format!("<strong class=\"bad\">{}</strong>", escaped(text)),
    };
    words.iter().map(of).collect()
}

fn write_table(out: &mut String, table: &Table) {
    let class = |i: usize| match table.head.get(i).map(|(_, column)| column) {
        Some(Column::Right) => " class=\"number\"",
        _ => "",
    };
    out.push_str("<div class=\"table\" tabindex=\"0\"><table>\n<thead><tr>");
    for (i, (name, _)) in table.head.iter().enumerate() {
        let _ = write!(out, "<th scope=\"col\"{}>{}</th>", class(i), escaped(name));
    }
    out.push_str("</tr></thead>\n<tbody>\n");
    for row in &table.rows {
        out.push_str("<tr>");
        for (i, words) in row.iter().enumerate() {
            let _ = write!(out, "<td{}>{}</td>", class(i), text(words));
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody>\n</table></div>\n");
}

fn write_picture(out: &mut String, picture: &Picture) {
    let alt = escaped(&picture.alt);
    let is_svg = picture.path.extension().is_some_and(|ending| ending == "svg");
    out.push_str("<figure>\n");
    match std::str::from_utf8(&picture.bytes).ok().filter(|_| is_svg) {
        Some(drawn) => {
            // Its colours are in the page's head already.
            let drawn = match (drawn.find("<style>"), drawn.find("</style>")) {
                (Some(start), Some(end)) if start < end => {
                    [&drawn[..start], &drawn[end + "</style>\n".len()..]].concat()
                }
                _ => drawn.to_owned(),
            };
            // And a page's pictures need no name space.
            let drawn = drawn.replacen(" xmlns=\"http://www.w3.org/2000/svg\"", "", 1);
            let drawn = drawn.replacen("<svg ", &format!("<svg aria-label=\"{alt}\" "), 1);
            let _ = writeln!(out, "<div class=\"drawn\" tabindex=\"0\">{}</div>", drawn.trim_end());
        }
        None => {
            let _ = writeln!(
                out,
                "<div class=\"drawn\" tabindex=\"0\"><img alt=\"{alt}\" src=\"{}\"></div>",
                svg::png_uri(&picture.bytes)
            );
        }
    }
    if !picture.caption.is_empty() {
        let _ = writeln!(out, "<figcaption>{}</figcaption>", text(&picture.caption));
    }
    out.push_str("</figure>\n");
}

fn write_card(out: &mut String, card: &Card) {
    let _ = write!(
        out,
        "<figure class=\"card\"><img alt=\"{}\" src=\"{}\"><figcaption>",
        escaped(&card.alt),
        svg::png_uri(&card.png)
    );
    let lines: Vec<String> = card.lines.iter().map(text).collect();
    let _ = writeln!(out, "{}</figcaption></figure>", lines.join("<br>"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::document::{Section, cell, name, plain};

    #[test]
    fn foreign_text_is_text_wherever_it_stands() {
        let evil = "<script>alert(\"1\")</script> & 'x' \u{202e}\n</style>";
        let picture = |path: &str| Picture {
            path: path.into(),
            alt: evil.to_owned(),
            caption: vec![name(evil)],
            bytes: b"<svg xmlns=\"x\"><style>.a{}</style>\n<g/></svg>\n".to_vec(),
        };
        let table = Table { head: vec![(evil.to_owned(), Column::Right)], rows: vec![vec![vec![name(evil)]]] };
        let card = Card { png: b"png".to_vec(), alt: evil.to_owned(), lines: vec![vec![Span::Code(evil.to_owned())]] };
        let blocks = vec![
            Block::Title(vec![Span::Bad(evil.to_owned())]),
            Block::Text(vec![plain(evil), Span::Good(evil.to_owned())]),
            Block::List(vec![cell(evil)]),
            Block::Table(table),
            Block::Picture(picture("a.svg")),
            Block::Picture(picture("a.png")),
            Block::Cards { cards: vec![card], sheet: picture("b.png") },
            Block::Code(evil.to_owned()),
            Block::Folded { title: evil.to_owned(), blocks: vec![Block::Text(vec![Span::Strong(evil.to_owned())])] },
        ];
        let document = Document {
            title: evil.to_owned(),
            sections: vec![
                Section { id: "a", title: "A", blocks },
                Section { id: "nothing", title: "Nothing", blocks: Vec::new() },
            ],
        };
        let page = html(&document);
        assert!(!page.contains("<script") && !page.contains("alert(\"1\")") && !page.contains('\u{202e}'), "{page}");
        assert_eq!(page.matches("</style>").count(), 1, "{page}");
        assert!(page.contains("&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt; &amp; &#39;x&#39;"));
        assert!(!page.contains("nothing"), "a section of nothing is left out");
        assert!(!page.contains("http:") && !page.contains("https:"), "{page}");
    }
}
