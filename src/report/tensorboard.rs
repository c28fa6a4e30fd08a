//! The scalars of trainings as event files for TensorBoard: loss, accuracy, learning rate and the norms of layers, a step an
//! epoch.
//!
//! A run of TensorBoard is a folder: `STAGE/fold-1/train` and `STAGE/fold-1/validation` (`STAGE/all/…` where a model was refitted
//! on all rows; trials have theirs in between), so that training and validation share a chart. Event files are records:
//! length, masked CRC-32C of it, an event of `event.proto`, masked CRC-32C of that. No event has a time, so that the bytes
//! follow from the trainings.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::Finished;
use super::curves::{CURVES, Columns};
use crate::artifact::protobuf::{CRC32C, Message};
use crate::stages::Part;

/// The name of each event file: the format wants `tfevents` in it.
pub const EVENTS: &str = "events.out.tfevents.0.convoy";

/// The tables that the scalars are from.
pub const READS: [&str; 2] = CURVES;

/// What an event file begins with.
const VERSION: &str = "brain.Event:2";

/// Columns that count and are no scalars.
const COUNTS: [&str; 3] = ["epoch", "step", "layer"];

/// Scalars of one run, by epoch: tag and value.
type Scalars = BTreeMap<i64, Vec<(String, f32)>>;

/// The event files of these tasks, by path within the log directory. Tasks that trained nothing have none.
pub fn event_files(finished: &[Finished<'_>]) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for task in finished {
        let table = |name: &str| task.files.0.get(name).and_then(|bytes| Columns::parse(bytes));
        let mut runs: BTreeMap<&str, Scalars> = BTreeMap::new();
        for (name, columns) in READS.iter().filter_map(|name| Some((*name, table(name)?))) {
            let epochs = columns.numbers("epoch");
            let layers = columns.texts("layer");
            for column in columns.names().filter(|column| !COUNTS.contains(column)) {
                let (run, tag) = match column.split_once('_') {
                    Some(("train", rest)) => ("train", rest),
                    Some(("valid", rest)) => ("validation", rest),
                    _ => ("train", column),
                };
                for (i, (epoch, value)) in epochs.iter().zip(columns.numbers(column)).enumerate() {
                    // An empty cell: there is no validation, or nothing was measured.
                    if value.is_nan() {
                        continue;
                    }
                    let tag = match layers.get(i).filter(|_| name != CURVES[0]) {
                        Some(layer) => format!("{tag}/{layer}"),
                        None => tag.to_owned(),
                    };
                    runs.entry(run).or_default().entry(*epoch as i64).or_default().push((tag, value as f32));
                }
            }
        }
        for (run, scalars) in runs {
            files.insert(folder(task).join(run).join(EVENTS), events(&scalars));
        }
    }
    files
}

/// Where the runs of a task are: `cnn/fold-1`; the settings of a variant behind its stage.
fn folder(task: &Finished<'_>) -> PathBuf {
    let part = match task.part {
        Part::Fold(fold) => format!("fold-{fold}"),
        other => other.to_string().replace(' ', "-"),
    };
    let trial = task.trial.as_ref().map(|trial| trial.replace(' ', "-"));
    let names = task.stage.split(' ').map(str::to_owned).chain(trial).chain([part]);
    names.fold(PathBuf::new(), |path, name| Path::new(&path).join(name))
}

fn events(scalars: &Scalars) -> Vec<u8> {
    let mut out = record(&Message::new().double(1, 0.0).text(3, VERSION).into_bytes());
    for (epoch, values) in scalars {
        let value = |(tag, value): &(String, f32)| Message::new().text(1, tag).single(2, *value);
        let summary = Message::new().messages(1, &values.iter().map(value).collect::<Vec<_>>());
        out.extend(record(&Message::new().double(1, 0.0).whole(2, *epoch).message(5, &summary).into_bytes()));
    }
    out
}

fn record(event: &[u8]) -> Vec<u8> {
    let masked = |bytes: &[u8]| CRC32C.of(&[bytes]).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes();
    let length = (event.len() as u64).to_le_bytes();
    [&length[..], &masked(&length), event, &masked(event)].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::{Bytes, Files};

    #[test]
    fn runs_of_a_training_have_its_scalars_and_their_bytes_are_the_same() {
        let of = |name: &str, text: &str| (name.to_owned(), Bytes::new(text.as_bytes().to_vec()));
        let epochs = "epoch,step,learning_rate,train_loss,valid_loss\n1,10,0.5,2.0,\n2,20,0.25,1.0,1.5\n";
        let layers = "epoch,step,layer,weight_norm\n1,10,1.conv,3.0\n";
        let files = Files([of("epochs.csv", epochs), of("layers.csv", layers)].into_iter().collect());
        let none = Files([of("metrics.csv", "a\n1\n")].into_iter().collect());
        let finished = [
            Finished {
                stage: "cnn l2=0",
                kind: "train",
                part: Part::Fold(2),
                trial: Some("r1t7".into()),
                files: &files,
            },
            Finished { stage: "evaluate", kind: "evaluate", part: Part::Whole, trial: None, files: &none },
        ];
        let written = event_files(&finished);
        let names: Vec<String> = written.keys().map(|path| path.display().to_string()).collect();
        let at = |run: &str| format!("cnn/l2=0/r1t7/fold-2/{run}/{EVENTS}");
        assert_eq!(names, [at("train"), at("validation")]);
        let tags = |run: &str| {
            let mut rest = &written[Path::new(&at(run))][..];
            let mut tags = Vec::new();
            while !rest.is_empty() {
                let len = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
                tags.push(String::from_utf8_lossy(&rest[12..12 + len]).into_owned());
                rest = &rest[16 + len..];
            }
            tags
        };
        let train = tags("train");
        assert_eq!(train.len(), 3);
        assert!(train[0].ends_with(VERSION), "{train:?}");
        for tag in ["loss", "learning_rate", "weight_norm/1.conv"] {
            assert!(train[1].contains(tag) && train[2].contains(tag) != tag.contains('/'), "{tag}: {train:?}");
        }
        // The epoch without a value has no event.
        let validation = tags("validation");
        assert!(validation.len() == 2 && validation[1].contains("loss") && !validation[1].contains("rate"));
        assert_eq!(event_files(&finished), written);
    }
}
