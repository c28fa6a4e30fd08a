//! `man`: the manual page, one for the whole program, from the same declarations as `--help`.
//!
//! Written here, and not by a crate: those make a page per verb, which a single file cannot install.

use std::fmt::Write as _;

use clap::{Arg, Command};

use super::arguments::{EXIT_CODES, command};

/// The page, in the `man` macros of roff.
pub fn page() -> String {
    let mut command = command();
    command.build();
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let mut page = String::new();
    let version = env!("CARGO_PKG_VERSION");
    let _ =
        writeln!(page, ".TH CONVOY 1 \"\" \"Convoy {version}\" \"Convoy\"\n.SH NAME\nconvoy \\- {}", escaped(&about));
    let _ = writeln!(page, ".SH SYNOPSIS\n.B convoy\n.I verb\n[\\fIoptions\\fR] [\\fIarguments\\fR]\n.SH DESCRIPTION");
    for line in DESCRIPTION {
        let _ = writeln!(page, "{}", escaped(line));
    }
    let _ = writeln!(page, ".SH OPTIONS\nOf every verb:");
    command.get_arguments().filter(|arg| is_told(arg)).for_each(|arg| option(&mut page, arg));
    let _ = writeln!(page, ".SH VERBS");
    verbs(&mut page, &command);
    for block in EXIT_CODES.split("\n\n") {
        let Some((title, lines)) = block.split_once('\n').filter(|(title, _)| title.ends_with(':')) else {
            let _ = writeln!(page, ".SH JSON\n{}", escaped(block));
            continue;
        };
        let title = title.trim_end_matches(':').split(" (").next().unwrap_or(title);
        let title = title.replace("codes", "status").to_uppercase();
        let _ = writeln!(page, ".SH {title}\n.nf\n{}\n.fi", escaped(lines));
    }
    let _ = writeln!(page, ".SH FILES");
    for (file, meaning) in FILES {
        let _ = writeln!(page, ".TP\n.I {}\n{}", escaped(file), escaped(meaning));
    }
    page
}

const DESCRIPTION: [&str; 3] = [
    "Convoy reads a manifest (TOML) that describes a pipeline: images, splits, preprocessing, networks, ensembles, evaluation.",
    "It computes what is stale, keeps every result in a store, and writes reports; the same manifest and images give the same bytes.",
    "Where a verb takes a manifest and none is named, the only one in the folder is meant.",
];

const FILES: [(&str, &str); 3] = [
    ("NAME.lock", "What the manifest came to: keys, digests, metrics. To be committed beside it."),
    ("out/NAME/", "The reports of the last run, report.html first."),
    (".convoy/", "The store. It may be deleted: what it held is computed again when it is needed."),
];

/// Each verb with its usage and its options; those of a family one by one.
fn verbs(page: &mut String, above: &Command) {
    for verb in above.get_subcommands().filter(|verb| !verb.is_hide_set() && verb.get_name() != "help") {
        if verb.has_subcommands() && verb.is_subcommand_required_set() {
            verbs(page, verb);
            continue;
        }
        let usage = verb.clone().render_usage().to_string();
        let usage = usage.trim_start_matches("Usage: ").lines().next().unwrap_or_default().trim().to_owned();
        let about = verb.get_long_about().or(verb.get_about()).map(ToString::to_string).unwrap_or_default();
        let _ = writeln!(page, ".SS {}\n{}", escaped(&usage), escaped(&about));
        verb.get_arguments().filter(|arg| is_told(arg) && !arg.is_global_set()).for_each(|arg| option(page, arg));
        verbs(page, verb);
    }
}

fn is_told(arg: &Arg) -> bool {
    !arg.is_hide_set() && !matches!(arg.get_id().as_str(), "help" | "version")
}

fn option(page: &mut String, arg: &Arg) {
    let values = || arg.get_value_names().unwrap_or_default().iter().map(|name| name.as_str());
    let mut names: Vec<String> = arg.get_short().map(|short| format!("\\fB\\-{short}\\fR")).into_iter().collect();
    names.extend(arg.get_long().map(|long| format!("\\fB\\-\\-{}\\fR", escaped(long))));
    let mut title = names.join(", ");
    if names.is_empty() {
        title = values().map(|name| format!("\\fI{}\\fR", escaped(name))).collect::<Vec<_>>().join(" ");
    } else if arg.get_action().takes_values() {
        values().for_each(|name| title.push_str(&format!(" \\fI{}\\fR", escaped(name))));
    }
    let help = arg.get_long_help().or(arg.get_help()).map(ToString::to_string).unwrap_or_default();
    let words: Vec<String> = match arg.is_hide_possible_values_set() || !arg.get_action().takes_values() {
        true => Vec::new(),
        false => arg.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect(),
    };
    let words = if words.is_empty() { String::new() } else { format!(" [{}]", words.join(", ")) };
    let _ = writeln!(page, ".TP\n{title}\n{}", escaped(&format!("{help}{words}")));
}

/// Text that roff takes for text: no escapes, no dash that turns into another, no line that is a request, ASCII alone.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-").replace("\n\n", "\n.PP\n");
    let text: String =
        text.chars().map(|c| if c.is_ascii() { c.to_string() } else { format!("\\[u{:04X}]", u32::from(c)) }).collect();
    let guarded = |line: &str| match line.starts_with(['\'', '.']) && line != ".PP" {
        true => format!("\\&{line}"),
        false => line.to_owned(),
    };
    text.lines().map(guarded).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_text() {
        assert_eq!(escaped("a-b \\ c\n.x\n'y\n\nz…"), "a\\-b \\e c\n\\&.x\n\\&'y\n.PP\nz\\[u2026]");
    }

    #[test]
    fn every_verb_and_every_option_is_on_the_page() {
        fn check(page: &str, command: &Command) {
            for arg in command.get_arguments().filter(|arg| is_told(arg)) {
                let long = arg.get_long().map(|long| format!("\\-\\-{}\\fR", escaped(long)));
                assert!(long.is_none_or(|long| page.contains(&long)), "{} {arg}", command.get_name());
            }
            for verb in command.get_subcommands().filter(|verb| verb.get_name() != "help" && !verb.is_hide_set()) {
                let name = verb.get_name();
                assert!(page.lines().any(|line| line.starts_with(".SS") && line.contains(name)), "{name}");
                check(page, verb);
            }
        }
        let page = page();
        assert!(
            page.starts_with(".TH CONVOY 1 ")
                && page.contains("\n.SH EXIT STATUS\n")
                && page.contains("\n.SH ENVIRONMENT\n")
        );
        let mut command = command();
        command.build();
        check(&page, &command);
    }
}
