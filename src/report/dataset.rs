//! The line that ends `ingest`: what came in, in numbers that a person can check.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::text::{counted, grouped};
use crate::artifact::dataset::Summary;
use crate::data::reader::GivenSplit;
use crate::data::resize::Fit;
use crate::stages::Glance;

/// As many classes are all named.
const FEW: usize = 3;

/// `3,781 images, 10 classes (t-shirt 928 … skirt 136), 314 sizes stretched to 64x64x3, own splits 3,068 / 341 / 372, 2 files
/// left
/// out`; what does not apply is not mentioned. Names of classes are as they are: whoever prints it makes them safe.
pub fn line(summary: &Summary) -> String {
    let n = summary.n_samples();
    let mut parts = vec![counted(n, "image", "images"), classes(&summary.classes), sizes(summary)];
    parts.extend(splits(&summary.splits, n));
    parts.extend(left_out(summary.n_left_out));
    parts.join(", ")
}

/// The same of a data set that was only glanced at: of sizes nothing is known but what they come to.
pub fn glance_line(glance: &Glance) -> String {
    let mut counts: Vec<(String, u64)> = glance.classes.iter().map(|class| (class.clone(), 0)).collect();
    for label in &glance.labels {
        counts[*label as usize].1 += 1;
    }
    let mut own = BTreeMap::new();
    glance.given.iter().flatten().for_each(|split| *own.entry(*split).or_default() += 1);
    let n = glance.labels.len() as u64;
    let mut parts = vec![counted(n, "image", "images"), classes(&counts)];
    parts.extend(glance.shape.map(|shape| format!("all {shape}")));
    parts.extend(splits(&own, n));
    parts.extend(left_out(glance.n_left_out as u64));
    parts.join(", ")
}

fn left_out(n: u64) -> Option<String> {
    (n > 0).then(|| format!("{} left out", counted(n, "file", "files")))
}

/// The largest first; of many only the largest and the smallest.
fn classes(counts: &[(String, u64)]) -> String {
    let mut classes: Vec<&(String, u64)> = counts.iter().collect();
    classes.sort_by_key(|(_, n)| Reverse(*n));
    let named = |(class, n): &(String, u64)| format!("{class} {}", grouped(*n));
    let names = match &classes[..] {
        [first, .., last] if classes.len() > FEW => format!("{} … {}", named(first), named(last)),
        few => few.iter().map(|class| named(class)).collect::<Vec<_>>().join(", "),
    };
    format!("{} ({names})", counted(classes.len() as u64, "class", "classes"))
}

fn sizes(summary: &Summary) -> String {
    let shape = summary.shape;
    let is_one = |(width, height): &(u32, u32)| (*width as usize, *height as usize) == (shape.width, shape.height);
    let done = match summary.fit {
        Some(fit) if !summary.sizes.iter().all(is_one) => fit,
        _ => return format!("all {shape}"),
    };
    let done = match done {
        Fit::Stretch => "stretched to",
        Fit::Cover => "cut to",
        Fit::Contain => "fitted into",
    };
    let sizes = match summary.sizes.first() {
        Some((width, height)) if summary.sizes.len() == 1 => format!("{width}x{height}"),
        _ => format!("{} sizes", grouped(summary.sizes.len() as u64)),
    };
    format!("{sizes} {done} {shape}")
}

/// Training, validation, test; where one is missing, which ones there are.
fn splits(own: &BTreeMap<GivenSplit, u64>, n_samples: u64) -> Option<String> {
    let order = [GivenSplit::Train, GivenSplit::Validation, GivenSplit::Test];
    let counts: Vec<(GivenSplit, u64)> =
        order.into_iter().filter_map(|split| Some((split, *own.get(&split)?))).collect();
    if counts.is_empty() {
        return None;
    }
    let is_whole = counts.len() == order.len();
    let shown = counts.iter().map(|(split, n)| match is_whole {
        true => grouped(*n),
        false => format!("{} {}", grouped(*n), split.name()),
    });
    let mut text = format!("own splits {}", shown.collect::<Vec<_>>().join(" / "));
    let n_without = n_samples - counts.iter().map(|(_, n)| n).sum::<u64>();
    if n_without > 0 {
        text.push_str(&format!(" and {} in none", grouped(n_without)));
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::ImageShape;

    fn summary(counts: &[(&str, u64)]) -> Summary {
        Summary {
            classes: counts.iter().map(|(class, n)| ((*class).to_owned(), *n)).collect(),
            sizes: [(240, 320), (320, 240)].into(),
            fit: Some(Fit::Stretch),
            shape: ImageShape { height: 64, width: 64, channels: 3 },
            splits: [(GivenSplit::Train, 3068), (GivenSplit::Validation, 341), (GivenSplit::Test, 372)].into(),
            n_left_out: 2,
            left_out: Vec::new(),
        }
    }

    #[test]
    fn what_came_in_is_one_line() {
        let photos = summary(&[("dress", 500), ("skirt", 136), ("hat", 2217), ("t-shirt", 928)]);
        assert_eq!(
            line(&photos),
            "3,781 images, 4 classes (hat 2,217 … skirt 136), 2 sizes stretched to 64x64x3, own splits 3,068 / 341 / 372, \
             2 files left out"
        );
    }

    #[test]
    fn what_does_not_apply_is_not_mentioned() {
        let plain = Summary {
            sizes: [(28, 28)].into(),
            fit: None,
            shape: ImageShape { height: 28, width: 28, channels: 1 },
            splits: [].into(),
            n_left_out: 0,
            ..summary(&[("a", 1), ("b", 0)])
        };
        assert_eq!(line(&plain), "1 image, 2 classes (a 1, b 0), all 28x28x1");
        let cut = Summary {
            sizes: [(30, 20)].into(),
            fit: Some(Fit::Cover),
            splits: [(GivenSplit::Train, 6), (GivenSplit::Test, 3)].into(),
            n_left_out: 1,
            ..summary(&[("b", 6), ("a", 6)])
        };
        assert_eq!(
            line(&cut),
            "12 images, 2 classes (b 6, a 6), 30x20 cut to 64x64x3, own splits 6 train / 3 test and 3 in none, 1 file left out"
        );
        let glance = Glance {
            classes: vec!["a".to_owned(), "b".to_owned()],
            labels: vec![1, 0, 1],
            given: vec![Some(GivenSplit::Train), Some(GivenSplit::Test), None],
            n_left_out: 2,
            ..Glance::default()
        };
        let expected = "3 images, 2 classes (b 2, a 1), own splits 1 train / 1 test and 1 in none, 2 files left out";
        assert_eq!(glance_line(&glance), expected);
        let all = Summary { sizes: [(64, 64)].into(), ..cut };
        assert!(line(&all).contains("all 64x64x3"), "{}", line(&all));
    }
}
