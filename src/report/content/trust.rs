//! Whether probabilities can be trusted: what temperatures do, and what is answered.

use crate::artifact::evaluation::Evaluation;
use crate::report::document::{Block, Column, Table, cell, name, plain};
use crate::report::trust::percent;

/// Nothing of models that have neither a temperature nor a threshold.
pub(super) fn blocks(evaluation: &Evaluation) -> Vec<Block> {
    let mut blocks = temperatures(evaluation);
    blocks.extend(answers(evaluation));
    blocks
}

fn temperatures(evaluation: &Evaluation) -> Vec<Block> {
    if evaluation.calibrated.is_empty() {
        return Vec::new();
    }
    let mut table = Table::new(&[
        ("model", Column::Left),
        ("split", Column::Left),
        ("temperature", Column::Right),
        ("calibration error before", Column::Right),
        ("after", Column::Right),
        ("log loss before", Column::Right),
        ("after", Column::Right),
        ("images", Column::Right),
    ]);
    let number = |x: Option<f64>| cell(x.map_or_else(String::new, |x| format!("{x:.4}")));
    for own in &evaluation.calibrated {
        table.rows.push(vec![
            vec![name(&own.model)],
            cell(own.split.replace('_', " ")),
            cell(format!("{:.4}", own.temperature)),
            number(own.calibration_error.0),
            number(own.calibration_error.1),
            number(own.log_loss.0),
            number(own.log_loss.1),
            cell(own.n.to_string()),
        ]);
    }
    let about = "Fitted on predictions out of fold, each fold's without it; above 1 it makes a model less sure. All bins are in ";
    vec![
        Block::Title(cell("What the temperature does")),
        Block::Table(table),
        Block::Text(vec![plain(about), name("calibration.csv"), plain(".")]),
    ]
}

fn answers(evaluation: &Evaluation) -> Vec<Block> {
    if evaluation.abstained.is_empty() {
        return Vec::new();
    }
    let mut table = Table::new(&[
        ("model", Column::Left),
        ("split", Column::Left),
        ("answers from a confidence of", Column::Right),
        ("answered", Column::Right),
        ("wrong among them", Column::Right),
        ("95 % interval", Column::Left),
        ("wanted", Column::Right),
        ("images", Column::Right),
    ]);
    let share = |share: Option<f64>| cell(share.map_or_else(String::new, percent));
    for own in &evaluation.abstained {
        let threshold = own.threshold.map_or_else(|| "nothing".to_owned(), |threshold| format!("{threshold:.4}"));
        let interval =
            own.error_interval.map_or_else(String::new, |(low, high)| format!("[{}, {}]", percent(low), percent(high)));
        table.rows.push(vec![
            vec![name(&own.model)],
            cell(own.split.replace('_', " ")),
            cell(threshold),
            share(own.coverage()),
            share(own.error_found()),
            cell(interval),
            cell(percent(own.error)),
            cell(own.n.to_string()),
        ]);
    }
    let mut about = vec![plain("The threshold is chosen on predictions out of fold; other thresholds are in ")];
    about.extend([name("coverage.csv"), plain(".")]);
    if evaluation.abstained.iter().any(|own| own.threshold.is_none()) {
        about.push(plain(" Where it answers nothing, no confidence keeps the error as low as it is wanted."));
    }
    vec![Block::Title(cell("What is answered")), Block::Table(table), Block::Text(about)]
}
