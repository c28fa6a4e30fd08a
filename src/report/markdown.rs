//! A report as Markdown, its pictures as files beside it.

use std::fmt::Write as _;
use std::path::Path;

use super::document::{Block, Card, Column, Document, Picture, Span, Table, Text};
use crate::escape::on_line;

/// At most so much of a foreign text is shown in a table or a list, in characters.
const MOST_CHARACTERS: usize = 300;

/// The whole file.
pub fn markdown(document: &Document) -> String {
    let mut out = format!("# {}\n", words(&document.title));
    for section in document.sections() {
        let _ = writeln!(out, "\n## {}", section.title);
        section.blocks.iter().for_each(|block| write_block(&mut out, block));
    }
    out
}

/// Foreign text in a table or a list: on one line, as code, so that nothing in it is obeyed.
pub fn code(text: &str) -> String {
    let mut text = on_line(text).into_owned();
    if let Some((at, _)) = text.char_indices().nth(MOST_CHARACTERS) {
        text.truncate(at);
        text.push('…');
    }
    let text = text.replace('|', "\\|");
    // A fence is longer than any run of backticks in it.
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest + 1);
    let space = if text.starts_with('`') || text.ends_with('`') { " " } else { "" };
    format!("{fence}{space}{text}{space}{fence}")
}

/// Words in a paragraph, none of them obeyed.
fn words(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in on_line(text).chars() {
        if matches!(c, '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '|' | '#' | '~' | '!' | '&') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

fn text(spans: &Text) -> String {
    let of = |span: &Span| match span {
        Span::Plain(text) => words(text),
        Span::Name(text) | Span::Code(text) => code(text),
        Span::Strong(text) | Span::Good(text) | Span::Bad(text) => format!("**{}**", words(text)),
    };
    spans.iter().map(of).collect()
}

fn write_block(out: &mut String, block: &Block) {
    out.push('\n');
    match block {
        Block::Title(title) => {
            let _ = writeln!(out, "### {}", text(title));
        }
        Block::Text(words) => {
            let _ = writeln!(out, "{}", text(words));
        }
        Block::List(items) => {
            for item in items {
                let _ = writeln!(out, "- {}", text(item));
            }
        }
        Block::Figures(figures) => {
            for figure in figures {
                let note = if figure.note.is_empty() { String::new() } else { format!(" ({})", words(&figure.note)) };
                let _ = writeln!(out, "- {}: **{}**{note}", words(&figure.name), words(&figure.value));
            }
        }
        Block::Table(table) => write_table(out, table),
        Block::Picture(picture) => write_picture(out, picture),
        Block::Cards { cards, sheet } => {
            write_picture(out, sheet);
            out.push('\n');
            cards.iter().enumerate().for_each(|(i, card)| write_card(out, i + 1, card));
        }
        Block::Code(code) => {
            let lines: Vec<String> = code.lines().map(|line| on_line(line).into_owned()).collect();
            let text = lines.join("\n");
            let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
            let fence = "`".repeat(longest.max(2) + 1);
            let _ = writeln!(out, "{fence}\n{text}\n{fence}");
        }
        Block::Folded { title, blocks } => {
            let _ = writeln!(out, "**{}**", words(title));
            blocks.iter().for_each(|block| write_block(out, block));
        }
    }
}

fn write_table(out: &mut String, table: &Table) {
    let names: Vec<String> = table.head.iter().map(|(name, _)| words(name)).collect();
    let rules: Vec<&str> =
        table.head.iter().map(|(_, column)| if *column == Column::Right { "---:" } else { "---" }).collect();
    let _ = writeln!(out, "| {} |\n| {} |", names.join(" | "), rules.join(" | "));
    for row in &table.rows {
        let cells: Vec<String> = row.iter().map(text).collect();
        let _ = writeln!(out, "| {} |", cells.join(" | "));
    }
}

fn write_picture(out: &mut String, picture: &Picture) {
    let _ = writeln!(out, "![{}](<{}>)", words(&picture.alt), link(&picture.path));
    if !picture.caption.is_empty() {
        let _ = writeln!(out, "\n{}", text(&picture.caption));
    }
}

fn write_card(out: &mut String, number: usize, card: &Card) {
    let lines: Vec<String> = card.lines.iter().map(text).collect();
    let _ = writeln!(out, "{number}. {}", lines.join(", "));
}

/// A relative path, `/` between its names, with nothing that would end the link.
fn link(path: &Path) -> String {
    let names: Vec<String> = path.iter().map(|name| name.to_string_lossy().into_owned()).collect();
    let mut out = String::new();
    for c in names.join("/").chars() {
        match c {
            '<' | '>' | '\\' | '\n' | '\r' | '%' | '"' => {
                let mut bytes = [0; 4];
                for byte in c.encode_utf8(&mut bytes).bytes() {
                    let _ = write!(out, "%{byte:02X}");
                }
            }
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::document::{Section, cell, name};

    #[test]
    fn foreign_text_stays_in_its_cell() {
        let evil = "a|b `c` <script> [x](y) *z*\n# h";
        let table = Table {
            head: vec![("class".into(), Column::Left), ("n".into(), Column::Right)],
            rows: vec![vec![vec![name(evil)], cell("1")]],
        };
        let picture =
            Picture { path: "a <b>/c.svg".into(), alt: evil.into(), caption: vec![name(evil)], bytes: Vec::new() };
        let blocks = vec![Block::Table(table), Block::Picture(picture), Block::Code("```\nx".into())];
        let document = Document { title: evil.into(), sections: vec![Section { id: "a", title: "A", blocks }] };
        let page = markdown(&document);
        let row = "| ``a\\|b `c` <script> [x](y) *z*\\n# h`` | 1 |";
        assert!(page.contains(row), "{page}");
        assert!(page.starts_with("# a\\|b \\`c\\` \\<script\\>"), "{page}");
        assert!(page.contains("(<a %3Cb%3E/c.svg>)") && page.contains("````\n```\nx\n````"), "{page}");
    }
}
