//! What is wrong with a manifest, for the pages of CI: annotations of GitHub Actions, GitLab's code-quality report.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use crate::escape::on_line;
use crate::manifest::Location;

/// The command that annotates a line of a file, where this runs in GitHub Actions.
pub fn github(severity: &str, at: Option<&Location>, message: &str, help: Option<&str>) -> Option<String> {
    let is_there = std::env::var_os("GITHUB_ACTIONS").is_some_and(|value| value == "true");
    is_there.then(|| {
        command(severity, at.map(|at| (path_from("GITHUB_WORKSPACE", &at.name), at.line, at.column)), message, help)
    })
}

/// Escaped as GitHub's toolkit does: `%`, carriage return and line feed everywhere, `:` and `,` in properties, too.
fn command(severity: &str, at: Option<(String, usize, usize)>, message: &str, help: Option<&str>) -> String {
    let data = |text: &str| text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A");
    let property = |text: &str| data(&on_line(text)).replace(':', "%3A").replace(',', "%2C");
    let place = at.map(|(file, line, column)| format!(" file={},line={line},col={column}", property(&file)));
    let help = help.map(|help| format!("\nhelp: {}", on_line(help))).unwrap_or_default();
    format!("::{severity}{}::{}", place.unwrap_or_default(), data(&format!("{}{help}", on_line(message))))
}

/// A path as the repository has it, whose root a variable of the environment names; else as it is.
fn path_from(variable: &str, name: &str) -> String {
    let root = std::env::var_os(variable).filter(|root| !root.is_empty());
    let absolute = std::path::absolute(name).ok();
    let below = root.zip(absolute).and_then(|(root, path)| path.strip_prefix(root).ok().map(Path::to_path_buf));
    below.map_or_else(|| name.to_owned(), |path| path.to_string_lossy().replace('\\', "/"))
}

/// GitLab's code-quality report of errors and warnings as a document of JSON has them; `file` is the manifest, for those
/// without a place.
pub fn code_quality(told: &[Value], file: &str) -> Vec<u8> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let issue = |told: &Value| {
        let text = |name: &str| told[name].as_str().unwrap_or_default();
        let help = told["help"].as_str().map(|help| format!(" (help: {help})")).unwrap_or_default();
        let path = path_from("CI_PROJECT_DIR", told["span"]["file"].as_str().unwrap_or(file));
        // The same finding keeps its name when lines above it come or go.
        let own = format!("{path}\n{}\n{}", text("severity"), text("reason"));
        let n = seen.entry(own.clone()).or_default();
        *n += 1;
        json!({
            "description": on_line(&format!("{}{help}", text("reason"))),
            "check_name": "convoy-manifest",
            "fingerprint": &blake3::hash(format!("{own}\n{n}").as_bytes()).to_hex()[..32],
            "severity": if text("severity") == "error" { "major" } else { "minor" },
            "location": { "path": path, "lines": { "begin": told["span"]["line"].as_u64().unwrap_or(1) } },
        })
    };
    let issues: Vec<Value> = told.iter().map(issue).collect();
    let mut bytes = serde_json::to_vec_pretty(&issues).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_escaped_as_the_toolkit_does() {
        let at = Some(("a:b,c%.toml".to_owned(), 3, 7));
        assert_eq!(
            command("error", at, "100% of `x, y`: no\nway", Some("write `1`")),
            "::error file=a%3Ab%2Cc%25.toml,line=3,col=7::100%25 of `x, y`: no\\nway%0Ahelp: write `1`"
        );
        assert_eq!(command("warning", None, "a\r::error::b", None), "::warning::a\\r::error::b");
    }

    #[test]
    fn the_report_has_what_gitlab_asks_for_and_names_stay() {
        let told = |line: u64, reason: &str| json!({ "severity": "error", "reason": reason, "help": "do", "span": { "file": "a.toml", "line": line, "column": 1 } });
        let report = |told: &[Value]| -> Vec<Value> { serde_json::from_slice(&code_quality(told, "m.toml")).unwrap() };
        assert_eq!(report(&[]), Vec::<Value>::new());
        let first =
            report(&[told(3, "bad"), told(9, "bad"), json!({ "severity": "warning", "reason": "odd", "span": null })]);
        let moved = report(&[told(4, "bad")]);
        assert_eq!(first[0]["fingerprint"], moved[0]["fingerprint"]);
        assert_ne!(first[0]["fingerprint"], first[1]["fingerprint"]);
        assert_eq!(first[0]["location"], json!({ "path": "a.toml", "lines": { "begin": 3 } }));
        assert_eq!((&first[2]["severity"], &first[2]["location"]["path"]), (&json!("minor"), &json!("m.toml")));
        assert_eq!(first[0]["description"], "bad (help: do)");
    }
}
