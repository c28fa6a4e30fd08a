//! Axes: from a value to its place, and where the ticks stand.

use std::f64::consts::LOG10_2;

use crate::elementary::log10;

/// How an axis spreads its values.
#[derive(Clone, Debug, PartialEq)]
pub enum Scale {
    /// Equal steps.
    Linear,
    /// Equal factors; values that are not above 0 have no place.
    Log,
    /// Names, at 0, 1, 2, …
    Categories(Vec<String>),
}

/// An axis.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    /// What it shows, with its unit.
    pub label: String,
    /// How it spreads its values.
    pub scale: Scale,
    /// From where to where; `None`: as the values need it, with some room.
    pub range: Option<(f64, f64)>,
    /// Whether values between whole numbers make no sense (epochs, units).
    pub is_whole: bool,
}

impl Axis {
    /// A linear axis.
    pub fn linear(label: impl Into<String>) -> Axis {
        Axis { label: label.into(), scale: Scale::Linear, range: None, is_whole: false }
    }

    /// A linear axis of whole numbers.
    pub fn whole(label: impl Into<String>) -> Axis {
        Axis { is_whole: true, ..Axis::linear(label) }
    }

    /// A logarithmic axis.
    pub fn log(label: impl Into<String>) -> Axis {
        Axis { scale: Scale::Log, ..Axis::linear(label) }
    }

    /// An axis of names.
    pub fn categories(label: impl Into<String>, names: Vec<String>) -> Axis {
        Axis { scale: Scale::Categories(names), ..Axis::linear(label) }
    }

    /// The same axis from `low` to `high`.
    pub fn within(mut self, low: f64, high: f64) -> Axis {
        self.range = Some((low, high));
        self
    }

    /// The axis with its range decided, for these values.
    pub(super) fn fit(&self, values: impl Iterator<Item = f64>) -> Fitted {
        let is_log = self.scale == Scale::Log;
        let to = |x: f64| if is_log { log10(x) } else { x };
        let (low, high) = match (&self.scale, self.range) {
            (Scale::Categories(names), _) => (-0.5, names.len().max(1) as f64 - 0.5),
            (_, Some((low, high))) if low < high && (!is_log || low > 0.0) => (to(low), to(high)),
            _ => {
                let shown = values.filter(|x| x.is_finite() && (!is_log || *x > 0.0)).map(to);
                let (low, high) =
                    shown.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)));
                let room = match (low <= high, is_log) {
                    (false, false) => return self.with_ends(0.0, 1.0),
                    (false, true) => return self.with_ends(-1.0, 1.0),
                    (true, true) if high - low < 0.1 => 0.5,
                    // One value stands in the middle, with a margin of its own size.
                    (true, false) if high - low <= 1e-9 * low.abs().max(high.abs()) => match low.abs() {
                        0.0 => 0.5,
                        size if self.is_whole => size.min(0.5),
                        size => 0.5 * size,
                    },
                    (true, _) => 0.05 * (high - low),
                };
                (low - room, high + room)
            }
        };
        self.with_ends(low, high)
    }

    fn with_ends(&self, low: f64, high: f64) -> Fitted {
        Fitted { scale: self.scale.clone(), is_whole: self.is_whole, low, high }
    }
}

/// An axis whose ends are known.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Fitted {
    scale: Scale,
    is_whole: bool,
    /// Of a logarithmic axis: the decimal logarithm.
    low: f64,
    high: f64,
}

/// A tick: where along the axis, from 0 to 1, and what it says.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tick {
    pub at: f64,
    pub text: String,
}

impl Fitted {
    /// Where `x` stands along the axis: 0 at its low end, 1 at its high one; `None` where it has no place.
    pub fn at(&self, x: f64) -> Option<f64> {
        let x = match self.scale {
            Scale::Log if x > 0.0 => log10(x),
            Scale::Log => return None,
            Scale::Linear | Scale::Categories(_) => x,
        };
        x.is_finite().then(|| (x - self.low) / (self.high - self.low))
    }

    /// At most about `most` ticks, at round values, from the low end to the high one.
    pub fn ticks(&self, most: usize) -> Vec<Tick> {
        let most = most.max(2);
        let place = |x: f64| (x - self.low) / (self.high - self.low);
        match &self.scale {
            Scale::Categories(names) => {
                names.iter().enumerate().map(|(i, name)| Tick { at: place(i as f64), text: name.clone() }).collect()
            }
            Scale::Log if self.high - self.low >= 1.0 => {
                let (first, last) = ((self.low - 1e-9).ceil() as i32, (self.high + 1e-9).floor() as i32);
                let decades = usize::try_from(last - first + 1).unwrap_or(0);
                let every = decades.div_ceil(most).max(1);
                // Between few decades there is room for 2 and 5.
                let digits: &[(f64, f64)] = match decades * 3 <= most {
                    true => &[(1.0, 0.0), (2.0, LOG10_2), (5.0, 1.0 - LOG10_2)],
                    false => &[(1.0, 0.0)],
                };
                let is_plain = self.low >= -3.5 && self.high <= 4.5;
                let mut ticks = Vec::new();
                for decade in (first - 1..=last).filter(|decade| decade.rem_euclid(every as i32) == 0) {
                    for (digit, log) in digits {
                        let at = place(f64::from(decade) + log);
                        if !(-1e-9..=1.0 + 1e-9).contains(&at) {
                            continue;
                        }
                        let text = match is_plain {
                            true => plain(digit * ten_to(decade), decade),
                            false if *digit == 1.0 => format!("10{}", superscript(decade)),
                            false => format!("{digit}·10{}", superscript(decade)),
                        };
                        ticks.push(Tick { at, text });
                    }
                }
                ticks
            }
            Scale::Log => {
                // Within one decade values are nearly even: round steps of the values themselves.
                let (low, high) = (ten_to_real(self.low), ten_to_real(self.high));
                let steps = round_steps(low, high, most, self.is_whole);
                steps
                    .into_iter()
                    .filter(|(x, _)| *x > 0.0)
                    .map(|(x, text)| Tick { at: place(log10(x)), text })
                    .collect()
            }
            Scale::Linear => round_steps(self.low, self.high, most, self.is_whole)
                .into_iter()
                .map(|(x, text)| Tick { at: place(x), text })
                .collect(),
        }
    }
}

/// Multiples of 1, 2 or 5 times a power of ten between `low` and `high`, at most about `most`, with their texts.
fn round_steps(low: f64, high: f64, most: usize, is_whole: bool) -> Vec<(f64, String)> {
    let least = (high - low) / most as f64;
    let mut decade = log10(least).floor() as i32;
    let mut step = [1.0, 2.0, 5.0].into_iter().map(|digit| digit * ten_to(decade)).find(|step| *step >= least);
    if step.is_none() {
        decade += 1;
        step = Some(ten_to(decade));
    }
    let (step, decade) = match step {
        Some(step) if !(is_whole && step < 1.0) => (step, decade),
        _ => (1.0, 0),
    };
    let (first, last) = ((low / step - 1e-9).ceil() as i64, (high / step + 1e-9).floor() as i64);
    let is_long = low.abs().max(high.abs()) >= 1e6 || (decade < -4);
    (first..=last)
        .map(|i| {
            // A product with a whole number, or a quotient by one: 0.3 and not 0.30000000000000004.
            let x = if decade < 0 {
                i as f64 * (step * ten_to(-decade)).round() / ten_to(-decade)
            } else {
                i as f64 * step
            };
            let text = match (is_long, x == 0.0) {
                (true, true) => "0".to_owned(),
                (true, false) => scientific(x),
                (false, _) => plain(x, decade),
            };
            (x, text)
        })
        .collect()
}

/// `10^n`, correctly rounded.
fn ten_to(n: i32) -> f64 {
    // What is written like this is always a number.
    format!("1e{n}").parse().unwrap_or(f64::NAN)
}

fn ten_to_real(x: f64) -> f64 {
    crate::elementary::pow(10.0, x)
}

/// With as many digits after the point as a step of `10^decade` needs.
fn plain(x: f64, decade: i32) -> String {
    let text = format!("{x:.*}", usize::try_from(-decade).unwrap_or(0));
    minus(&text)
}

/// `1.5·10⁶`.
fn scientific(x: f64) -> String {
    let text = format!("{x:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let power = superscript(exponent.parse().unwrap_or(0));
    match digits {
        "1" => format!("10{power}"),
        "-1" => format!("\u{2212}10{power}"),
        // Sums of steps leave digits that nobody meant.
        digits => minus(&format!("{}·10{power}", &digits[..digits.len().min(5)])),
    }
}

/// A real minus sign.
fn minus(text: &str) -> String {
    text.replace('-', "\u{2212}")
}

fn superscript(n: i32) -> String {
    n.to_string()
        .chars()
        .map(|c| match c {
            '0' => '⁰',
            '1' => '¹',
            '2' => '²',
            '3' => '³',
            '4' => '⁴',
            '5' => '⁵',
            '6' => '⁶',
            '7' => '⁷',
            '8' => '⁸',
            '9' => '⁹',
            _ => '⁻',
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(axis: Axis, values: &[f64], most: usize, expected: &[&str]) {
        let fitted = axis.fit(values.iter().copied());
        let ticks = fitted.ticks(most);
        assert_eq!(ticks.iter().map(|tick| &tick.text[..]).collect::<Vec<_>>(), expected);
        for tick in ticks {
            assert!((-1e-6..=1.0 + 1e-6).contains(&tick.at), "{tick:?}");
        }
    }

    #[test]
    fn ticks_stand_at_round_values() {
        check(Axis::linear(""), &[0.0, 1.0], 6, &["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        check(Axis::linear("").within(0.0, 0.3), &[], 4, &["0.0", "0.1", "0.2", "0.3"]);
        check(Axis::linear(""), &[-40.0, 60.0], 6, &["−40", "−20", "0", "20", "40", "60"]);
        check(Axis::whole("").within(1.0, 3.0), &[], 10, &["1", "2", "3"]);
        check(Axis::linear("").within(0.0, 4e6), &[], 4, &["0", "10⁶", "2·10⁶", "3·10⁶", "4·10⁶"]);
        check(Axis::linear("").within(0.0, 3e-7), &[], 3, &["0", "10⁻⁷", "2·10⁻⁷", "3·10⁻⁷"]);
        check(Axis::categories("", vec!["adam".into(), "sgd".into()]), &[], 1, &["adam", "sgd"]);
    }

    #[test]
    fn logarithmic_ticks_stand_at_powers_and_between_few_of_them_at_2_and_5() {
        check(Axis::log(""), &[1e-5, 1e-1], 6, &["10⁻⁵", "10⁻⁴", "10⁻³", "10⁻²", "10⁻¹"]);
        check(Axis::log("").within(1e-9, 1e-1), &[], 5, &["10⁻⁸", "10⁻⁶", "10⁻⁴", "10⁻²"]);
        check(Axis::log("").within(0.1, 10.0), &[], 10, &["0.1", "0.2", "0.5", "1", "2", "5", "10"]);
        check(Axis::log("").within(2.0, 4.0), &[], 4, &["2.0", "2.5", "3.0", "3.5", "4.0"]);
    }

    #[test]
    fn one_value_has_a_margin_of_its_own_size() {
        for value in [0.001, 1e-12, -40.0, 3e5] {
            let fitted = Axis::linear("").fit([value, value].into_iter());
            assert!((fitted.at(value).unwrap() - 0.5).abs() < 1e-9, "{value}");
            assert!(fitted.high - fitted.low <= 1.01 * f64::abs(value), "{value}: {fitted:?}");
        }
        let epoch = Axis::whole("").fit([7.0].into_iter());
        assert_eq!((epoch.low, epoch.high), (6.5, 7.5));
    }

    #[test]
    fn one_value_none_and_those_without_a_place_still_make_an_axis() {
        for axis in [Axis::linear(""), Axis::log(""), Axis::whole("")] {
            for values in [&[][..], &[1.0], &[0.0, 0.0], &[-3.0, f64::NAN], &[1e-30], &[f64::INFINITY, 7.0]] {
                let fitted = axis.fit(values.iter().copied());
                assert!(fitted.low < fitted.high, "{axis:?} {values:?}");
                let n = fitted.ticks(5).len();
                assert!((1..=8).contains(&n), "{n} ticks: {axis:?} {values:?}");
            }
        }
        let log = Axis::log("").within(0.1, 10.0).fit([].into_iter());
        assert!((log.at(1.0).unwrap() - 0.5).abs() < 1e-9);
        assert_eq!([log.at(0.0), log.at(-1.0), log.at(f64::NAN)], [None, None, None]);
    }
}
