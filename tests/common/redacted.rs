//! What a transcript cannot hold, since it differs from run to run and from machine to machine, as placeholders.

/// Names of runs, dates and commits as placeholders.
pub fn without_identity(mut text: String) -> String {
    let is_hex = |text: &str| text.len() == 8 && text.bytes().all(|b| b.is_ascii_hexdigit());
    for (before, behind, shown) in [("run-", "", "[RUN]"), ("(", ")", "([COMMIT])"), (", at ", "", ", at [COMMIT]")] {
        let mut from = 0;
        while let Some(at) = text[from..].find(before).map(|at| from + at) {
            let start = at + before.len();
            from = start;
            let end = start + 8;
            if text.get(start..end).is_some_and(is_hex) && text[end..].starts_with(behind) {
                text.replace_range(at..end + behind.len(), shown);
            }
        }
    }
    while let Some(at) = text.find(" UTC").filter(|at| *at >= 19) {
        text.replace_range(at - 19..at + 4, "[DATE]");
    }
    text
}

/// These fields of a line of JSON as placeholders.
pub fn without_fields(text: &str, names: &[&str]) -> String {
    let mut out = text.to_owned();
    for name in names {
        let field = format!("\"{name}\":");
        let mut from = 0;
        while let Some(at) = out[from..].find(&field).map(|at| from + at + field.len()) {
            let end = out[at..].find([',', '}']).map_or(out.len(), |end| at + end);
            out.replace_range(at..end, "[REDACTED]");
            from = at;
        }
    }
    out
}

/// Times, versions, colours and the memory of a training, which packs its operands as the processor's kernels want them,
/// as placeholders.
pub fn redacted(text: &str) -> String {
    let training = [("training takes ", " at batch"), ("\"training_bytes\":", "}")];
    let text = training.iter().fold(text.to_owned(), |text, (before, after)| {
        let mut parts = text.split(before);
        let first = parts.next().unwrap_or_default().to_owned();
        parts.fold(first, |out, part| match part.find(after) {
            Some(end) => out + before + "[MEMORY]" + &part[end..],
            None => out + before + part,
        })
    });
    let text = text.replace(concat!(" ", env!("CARGO_PKG_VERSION")), " [VERSION]").replace('\x1b', "␛");
    let text = without_identity(text);
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let mut words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let is_number = |word: &str| {
            let digits = word.trim_start_matches('(');
            !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit() || c == '.')
        };
        let is_second = |word: &str| word.trim_end_matches(['\n', ',', ';', ')']) == "s";
        let mut i = 0;
        while i + 1 < words.len() {
            if is_number(&words[i]) && is_second(&words[i + 1]) {
                let bracket = if words[i].starts_with('(') { "(" } else { "" };
                words[i] = format!("{bracket}[TIME]{}", &words[i + 1][1..]);
                words.remove(i + 1);
            }
            i += 1;
        }
        out.push_str(&words.join(" "));
    }
    out
}
