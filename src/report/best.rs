//! The best settings that a search found, as lines to paste.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::text::width;
use crate::artifact::search::Round;

/// The best settings that a search found.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Best {
    /// The stage.
    pub search: String,
    /// The trial.
    pub trial: String,
    /// By what it is the best.
    pub metric: String,
    /// Mean over its folds.
    pub value: Option<f64>,
    /// Sample deviation over its folds.
    pub deviation: Option<f64>,
    /// Dotted keys and their values as TOML, in the order of the space.
    #[serde(serialize_with = "as_map")]
    pub settings: Vec<(String, String)>,
}

fn as_map<S: serde::Serializer>(settings: &[(String, String)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(settings.iter().map(|(key, value)| (key, value)))
}

impl Best {
    /// Of the last round of a search; `None` if no trial has a score.
    pub fn of(search: &str, round: &Round) -> Option<Best> {
        let best = round.trials.iter().find(|trial| trial.rank == 1 && trial.value.is_some())?;
        let keys = round.space.iter().map(|searched| searched.key.clone());
        Some(Best {
            search: search.to_owned(),
            trial: best.trial.clone(),
            metric: round.metric.clone(),
            value: best.value.map(|(value, _)| value),
            deviation: best.value.and_then(|(_, deviation)| deviation),
            settings: keys.zip(best.settings.iter().cloned()).collect(),
        })
    }

    /// `accuracy 0.9812 ± 0.0042`.
    pub fn score(&self) -> String {
        let value = self.value.map_or_else(String::new, |value| format!("{} {value:.4}", self.metric));
        let deviation = self.deviation.map_or_else(String::new, |deviation| format!(" ± {deviation:.4}"));
        format!("{value}{deviation}")
    }

    /// The settings as lines of a manifest, stage by stage.
    pub fn lines(&self) -> String {
        let mut text = String::new();
        let split = |key: &str| -> (String, String) {
            let rest = key.strip_prefix("stages.").unwrap_or(key);
            rest.split_once('.').map_or((String::new(), rest.to_owned()), |(a, b)| (a.to_owned(), b.to_owned()))
        };
        let mut told = BTreeSet::new();
        for (key, _) in &self.settings {
            let (stage, _) = split(key);
            if !told.insert(stage.clone()) {
                continue;
            }
            let own: Vec<(String, &String)> = self
                .settings
                .iter()
                .map(|(key, value)| (split(key), value))
                .filter(|((of, _), _)| *of == stage)
                .map(|((_, key), value)| (key, value))
                .collect();
            // TOML has no keys for items of lists; a profile and the command line do.
            let (items, own): (Vec<_>, Vec<_>) = own.into_iter().partition(|(key, _)| key.contains('['));
            let longest = own.iter().map(|(key, _)| width(key)).max().unwrap_or(0);
            if !own.is_empty() {
                let _ = writeln!(text, "[stages.{stage}]");
            }
            for (key, value) in own {
                let _ = writeln!(text, "{key}{} = {value}", " ".repeat(longest - width(&key)));
            }
            for (key, value) in items {
                let _ = writeln!(text, "# --set 'stages.{stage}.{key}={value}'");
            }
        }
        text
    }
}
