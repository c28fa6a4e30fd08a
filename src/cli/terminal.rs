//! What a person sees: results on stdout, everything else on stderr, colour only where it is wanted.
//!
//! A closed pipe ends quietly (`| head`). A result that cannot be written for another reason (a full disk behind a redirect)
//! makes the command fail at its end ([`Terminal::failure`]); what stderr does not take is dropped. What is written goes through [`escape`](crate::escape): names of files and classes are foreign.

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};

use crate::escape::{on_line, on_lines};

/// Why results could not be written: the first error of stdout that was not a closed pipe.
static FAILURE: Mutex<Option<io::Error>> = Mutex::new(None);

/// The two streams and what they can show.
#[derive(Clone, Copy, Debug)]
pub struct Terminal {
    /// Whether stderr may be coloured.
    pub has_colour: bool,
    /// Whether stderr is a terminal that bars can be drawn on.
    pub is_interactive: bool,
}

impl Terminal {
    /// Looks at the streams and at `NO_COLOR`, `CLICOLOR_FORCE` and `TERM`.
    pub fn new() -> Terminal {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let is_interactive = io::stderr().is_terminal() && !is_dumb;
        Terminal { has_colour: !set("NO_COLOR") && (is_interactive || set("CLICOLOR_FORCE")), is_interactive }
    }

    /// A result: one or more lines on stdout, with their line feeds.
    pub fn result(&self, text: &str) {
        let mut out = io::stdout().lock();
        self.keep(out.write_all(on_lines(text, self.has_colour).as_bytes()).and_then(|()| out.flush()));
    }

    /// Keeps an error of writing results until the command ends; a closed pipe is none.
    pub fn keep(&self, written: io::Result<()>) {
        if let Err(error) = written
            && error.kind() != io::ErrorKind::BrokenPipe
        {
            FAILURE.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        }
    }

    /// Why results could not be written, if they could not: the command has failed then, whatever else it came to.
    pub fn failure(&self) -> Option<io::Error> {
        FAILURE.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Part of a result that is long in coming, or that a program will read, on stdout: the bytes as they are, unless
    /// stdout is a terminal, which would obey them.
    ///
    /// # Errors
    /// Those of stdout: whoever computes for it can stop then.
    pub fn part(&self, bytes: &[u8]) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if out.is_terminal() {
            out.write_all(on_lines(&String::from_utf8_lossy(bytes), false).as_bytes())?;
        } else {
            out.write_all(bytes)?;
        }
        out.flush()
    }

    /// A line on stderr, or a few.
    pub fn note(&self, text: &str) {
        let _ = writeln!(io::stderr().lock(), "{}", on_lines(text, self.has_colour));
    }

    /// A rendered page of diagnostics on stderr.
    pub fn page(&self, text: &str) {
        let _ = io::stderr().lock().write_all(on_lines(text, self.has_colour).as_bytes());
    }

    /// `error: …`, with the action that helps on a line of its own.
    pub fn fault(&self, message: &str, help: Option<&str>) {
        self.note(&format!("{} {}", self.paint("error:", RED), on_line(message)));
        if let Some(help) = help {
            self.note(&format!("  help: {}", on_line(help)));
        }
    }

    /// `error: …`, with its chain of causes, one line each.
    pub fn error(&self, error: &anyhow::Error) {
        let mut chain = error.chain();
        if let Some(first) = chain.next() {
            self.note(&format!("{} {}", self.paint("error:", RED), on_line(&first.to_string())));
        }
        for cause in chain {
            self.note(&format!("  caused by: {}", on_line(&cause.to_string())));
        }
    }

    /// `warning: …`.
    pub fn warning(&self, text: &str) {
        self.note(&format!("{} {}", self.paint("warning:", YELLOW), on_line(text)));
    }

    /// `text` in a style, where colour is wanted.
    pub fn paint(&self, text: &str, style: &str) -> String {
        if self.has_colour { format!("\x1b[{style}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Errors.
pub const RED: &str = "1;31";
/// Warnings.
pub const YELLOW: &str = "1;33";
/// Good news.
pub const GREEN: &str = "32";
/// Less important.
pub const DIM: &str = "2";
