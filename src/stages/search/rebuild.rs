//! A search again from what one of its tasks recorded: a round knows its trials, and nothing of the rounds after it.

use std::collections::BTreeMap;

use super::{Dimension, PlacedRound, Placement, Range, Round, Search, Setting, Trial};
use crate::config::{self, Span, Value, as_number};
use crate::data::metrics;
use crate::stages::Part;

/// The keys of a record, with their values as TOML.
struct Recorded<'r>(BTreeMap<&'r str, &'r str>);

impl Recorded<'_> {
    fn value(&self, key: &str) -> Result<Value, String> {
        let text = self.0.get(key).ok_or_else(|| format!("`{key}` is missing"))?;
        config::parse(text).ok_or_else(|| format!("`{key}` is not TOML"))
    }

    fn text(&self, key: &str) -> Result<String, String> {
        match self.value(key)? {
            Value::Text { text, .. } => Ok(text),
            _ => Err(format!("`{key}` is not a string")),
        }
    }

    fn whole(&self, key: &str) -> Result<u32, String> {
        match self.value(key)? {
            Value::Integer(i) => u32::try_from(i).map_err(|_| format!("`{key}` is out of range")),
            _ => Err(format!("`{key}` is not a whole number")),
        }
    }

    fn range(&self, key: &str) -> Result<Range, String> {
        let text = self.0.get(key).ok_or_else(|| format!("`{key}` is missing"))?;
        Range::parse(text).ok_or_else(|| format!("`{key}` is not a range"))
    }
}

/// The search of which the task of `part` recorded `keys`: what that task needs of it, and no more.
///
/// # Errors
/// What is missing or makes no sense, in one sentence.
pub fn rebuild(part: Part, keys: &[(String, String)]) -> Result<Search, String> {
    let recorded = Recorded(keys.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect());
    let mut search = Search {
        space: Vec::new(),
        rounds: Vec::new(),
        metric: metrics::METRICS[0].name,
        keep: 1,
        time_limit: None,
        is_limit_accepted: false,
        seed: None,
        rank: 1,
        placement: Placement::default(),
    };
    // The other tasks hand a trial on, whatever the search was.
    let Part::Round(number) = part else { return Ok(search) };
    let metric = recorded.text("metric")?;
    search.metric = metrics::find(&metric).ok_or_else(|| format!("metric `{metric}`"))?.name;
    let mut placed = PlacedRound { ranges: Vec::new(), trials: Vec::new(), epochs: 0 };
    let of_round = format!("ranges[r{number}]");
    if !recorded.0.contains_key(format!("{of_round}.order").as_str()) {
        // The time limit came before any trial had finished: so the round says.
        search.rounds =
            vec![Round { trials: 0, epochs: None, data_fraction: 1.0, folds: None, keep: 1 }; number as usize];
        search.placement.rounds = vec![placed; number as usize];
        return Ok(search);
    }
    let Value::List(order) = recorded.value(&format!("{of_round}.order"))? else {
        return Err(format!("`{of_round}.order` is not a list"));
    };
    for item in order {
        let Value::Text { text: key, .. } = item.value else { return Err(format!("`{of_round}.order`")) };
        let path = config::path(&key).ok_or_else(|| format!("`{key}` is not a dotted key"))?;
        placed.ranges.push(recorded.range(&format!("{of_round}.{key}"))?);
        search.space.push(Dimension {
            key: path.join("."),
            path: path.into_iter().map(|name| (name, Span::default())).collect(),
            range: recorded.range(&format!("space.{key}"))?,
            span: Span::default(),
            ends: [Span::default(); 2],
        });
    }
    placed.epochs = recorded.whole(&format!("{of_round}.epochs"))?;
    placed.trials = trials(number, &search.space, &recorded)?;
    let own = format!("rounds[{}]", number.saturating_sub(1));
    // The last round keeps what the search hands on.
    let is_last = recorded.0.contains_key("keep");
    let keep = recorded.whole(&if is_last { "keep".to_owned() } else { format!("{own}.keep") })?;
    let data_fraction = recorded.value(&format!("{own}.data_fraction"))?;
    let data_fraction = as_number(&data_fraction).ok_or_else(|| format!("`{own}.data_fraction` is not a number"))?;
    if is_last {
        search.keep = keep;
    }
    // Those around it are there to be counted.
    let n_rounds = number as usize + usize::from(!is_last);
    search.rounds = vec![Round { trials: 0, epochs: None, data_fraction, folds: None, keep }; n_rounds];
    let other = PlacedRound { ranges: Vec::new(), trials: Vec::new(), epochs: 0 };
    search.placement.tuned = recorded.text(&format!("{of_round}.tune"))?;
    search.placement.rounds = vec![other; number as usize - 1];
    search.placement.rounds.push(placed);
    Ok(search)
}

/// The trials of a round, in their order: those that were kept, then those that were drawn.
fn trials(round: u32, space: &[Dimension], recorded: &Recorded<'_>) -> Result<Vec<(Trial, Option<usize>)>, String> {
    let mut numbers: Vec<(bool, u32, &str)> = Vec::new();
    for key in recorded.0.keys() {
        let Some((id, _)) = key.strip_prefix("trials[").and_then(|rest| rest.split_once(']')) else { continue };
        let wrong = || format!("`{key}` is of no trial of round {round}");
        let number = id.strip_prefix(&format!("r{round}")).ok_or_else(wrong)?;
        let is_drawn = number.starts_with('t');
        let number: u32 = number.strip_prefix(['t', 'k']).and_then(|number| number.parse().ok()).ok_or_else(wrong)?;
        if numbers.last().is_none_or(|(_, _, last)| *last != id) {
            numbers.push((is_drawn, number, id));
        }
    }
    numbers.sort_unstable();
    let trials = numbers.into_iter().map(|(is_drawn, number, id)| {
        let setting = |dimension: &Dimension| {
            let key = format!("trials[{id}].{}", dimension.recorded_key());
            let text = recorded.0.get(key.as_str()).ok_or_else(|| format!("`{key}` is missing"))?;
            dimension.parse(text).ok_or_else(|| format!("`{key}` is not in its range"))
        };
        let settings = space.iter().map(setting).collect::<Result<Vec<Setting>, String>>()?;
        let origin = if is_drawn { None } else { Some(recorded.text(&format!("trials[{id}].origin"))?) };
        let is_trained = !recorded.0.contains_key(format!("trials[{id}].trained").as_str());
        Ok((Trial { round, number, origin, settings }, is_trained.then_some(0)))
    });
    trials.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stages::Places;
    use crate::stages::testing::{TestContext, run};

    #[test]
    fn a_round_whose_time_was_over_before_it_began_says_so() {
        let keys = [("metric".to_owned(), "\"accuracy\"".to_owned()), ("keep".to_owned(), "2".to_owned())];
        for round in 1..3 {
            let search = rebuild(Part::Round(round), &keys).expect("it is a record of this program");
            let failed = run(&search, Part::Round(round), Vec::new(), &Places::default(), &TestContext::default());
            assert_eq!(
                failed.expect_err("there is nothing to rank").message,
                "no trial finished within the time limit"
            );
        }
    }
}
