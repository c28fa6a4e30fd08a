//! What is wrong with a manifest, said to a person: file, line, column, snippet, caret, at most one help line.

use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

use crate::config::{Problem, Severity, Span};
use crate::escape::on_line;

/// So many problems are shown in full; the closing line still counts all of them.
const SHOWN: usize = 50;

/// Lines of a manifest are cut to so many columns.
const WIDTH: usize = 100;

/// One of the texts that make up a manifest.
#[derive(Clone, Debug, PartialEq)]
pub struct Text {
    /// What stands before `:line:column`: the file's path relative to the working directory, or `--set`.
    pub name: String,
    /// Its content, without a byte-order mark.
    pub content: String,
}

/// All texts of a manifest: number 0 is the file, the others are the `--set` arguments in the order given.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Texts {
    /// By [`Span::source`].
    pub texts: Vec<Text>,
}

/// A place in a text as a person names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// The text's name.
    pub name: String,
    /// Counted from 1.
    pub line: usize,
    /// In characters, counted from 1.
    pub column: usize,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.name, self.line, self.column)
    }
}

impl Texts {
    /// The text that `span` is in.
    pub fn text(&self, span: Span) -> Option<&Text> {
        self.texts.get(usize::from(span.source))
    }

    /// What stands at `span`; empty if there is nothing.
    pub fn slice(&self, span: Span) -> &str {
        self.text(span).and_then(|text| text.content.get(span.start as usize..span.end as usize)).unwrap_or_default()
    }

    /// Where `span` begins; `None` for a text that could not be read.
    pub fn location(&self, span: Span) -> Option<Location> {
        let text = self.text(span).filter(|text| !text.content.is_empty())?;
        let line = line_at(&text.content, span.start as usize);
        let column = line.content[..line.clamp(span.start as usize)].chars().count() + 1;
        Some(Location { name: text.name.clone(), line: line.number, column })
    }

    /// One problem with its snippet, ending in a newline. `colour` adds terminal escapes.
    pub fn render(&self, problem: &Problem, colour: bool) -> String {
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() }.term_width(WIDTH);
        let level = match problem.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let mut group =
            annotate_snippets::Group::with_title(level.primary_title(on_line(&problem.message).into_owned()));
        if let Some(text) = self.text(problem.span) {
            if text.content.is_empty() {
                group = group.element(annotate_snippets::Origin::path(text.name.as_str()));
            } else {
                // Only the line where the span begins: a caret under twenty lines says less than one under the first.
                let line = line_at(&text.content, problem.span.start as usize);
                let start = line.clamp(problem.span.start as usize);
                let end = line.clamp(problem.span.end as usize).max(start);
                group = group.element(
                    Snippet::source(line.content)
                        .line_start(line.number)
                        .path(text.name.as_str())
                        .annotation(AnnotationKind::Primary.span(start..end)),
                );
            }
        }
        if let Some(help) = &problem.help {
            group = group.element(Level::HELP.message(on_line(help).into_owned()));
        }
        let mut out = renderer.render(&[group]);
        out.push('\n');
        out
    }
}

struct Line<'t> {
    number: usize,
    start: usize,
    content: &'t str,
}

impl Line<'_> {
    /// `at`, a byte of the text, as a byte of this line that starts a character.
    fn clamp(&self, at: usize) -> usize {
        let mut at = at.saturating_sub(self.start).min(self.content.len());
        while !self.content.is_char_boundary(at) {
            at -= 1;
        }
        at
    }
}

/// The line that byte `at` is in (the last one, when it is behind the end).
fn line_at(text: &str, at: usize) -> Line<'_> {
    let before = &text.as_bytes()[..at.min(text.len())];
    let start = before.iter().rposition(|&b| b == b'\n').map_or(0, |i| i + 1);
    let number = before.iter().filter(|&&b| b == b'\n').count() + 1;
    // Both cuts stand next to an ASCII newline, so they are character boundaries.
    let content = text[start..].split('\n').next().unwrap_or_default();
    Line { number, start, content: content.strip_suffix('\r').unwrap_or(content) }
}

/// Everything found wrong with one manifest, in file order, with the texts that it is in.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Diagnostics {
    /// Errors and warnings, in file order.
    pub problems: Vec<Problem>,
    /// What their spans point into.
    pub texts: Texts,
}

impl Diagnostics {
    /// Sorts `problems` into file order. Of several that blame the same value only the first is kept: the others follow
    /// from the stand-in that took its place. (A table's header may be blamed for several things.)
    pub fn new(mut problems: Vec<Problem>, texts: Texts) -> Diagnostics {
        problems.sort_by_key(|problem| (problem.span.source, problem.span.start));
        let mut kept: Vec<Problem> = Vec::new();
        for mut problem in problems {
            // The user's own words may have newlines and terminal escapes in them.
            problem.message = on_line(&problem.message).into_owned();
            problem.help = problem.help.map(|help| on_line(&help).into_owned());
            let is_told = kept.iter().rev().take_while(|other| other.span.start == problem.span.start).any(|other| {
                let same_value = other.span == problem.span && !texts.slice(problem.span).starts_with('[');
                *other == problem
                    || (same_value && problem.span.end > problem.span.start && other.severity <= problem.severity)
            });
            if !is_told {
                kept.push(problem);
            }
        }
        Diagnostics { problems: kept, texts }
    }

    /// How many of the problems stop the run.
    pub fn n_errors(&self) -> usize {
        self.problems.iter().filter(|problem| problem.severity == Severity::Error).count()
    }

    /// How many of the problems do not stop the run.
    pub fn n_warnings(&self) -> usize {
        self.problems.len() - self.n_errors()
    }

    /// The whole page: problems separated by blank lines, then `2 errors, 1 warning`. Empty if there are none.
    pub fn render(&self, colour: bool) -> String {
        let mut out = String::new();
        for problem in self.problems.iter().take(SHOWN) {
            out.push_str(&self.texts.render(problem, colour));
            out.push('\n');
        }
        if self.problems.len() > SHOWN {
            let _ = writeln!(out, "… and {} more\n", self.problems.len() - SHOWN);
        }
        let count = |n: usize, noun: &str| match n {
            0 => None,
            1 => Some(format!("1 {noun}")),
            n => Some(format!("{n} {noun}s")),
        };
        let counts: Vec<String> =
            [count(self.n_errors(), "error"), count(self.n_warnings(), "warning")].into_iter().flatten().collect();
        if !counts.is_empty() {
            let _ = writeln!(out, "{}", counts.join(", "));
        }
        out
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Diagnostics {}

/// `path` as people see it: relative to the working directory when it lies below it.
pub fn shown_path(path: &Path) -> String {
    let below = if path.is_absolute() {
        std::env::current_dir().ok().and_then(|dir| path.strip_prefix(dir).ok().map(Path::to_path_buf))
    } else {
        Some(path.components().filter(|part| !matches!(part, std::path::Component::CurDir)).collect::<PathBuf>())
    };
    below.as_deref().filter(|path| !path.as_os_str().is_empty()).unwrap_or(path).display().to_string()
}
