//! The rooms of what follows a training: views, temperatures, thresholds, and what is said of them.

use super::{Made, delivered, inputs, model, run, stage};
use crate::stages::{self, Delivered, Output, Part, Places};

/// What is fitted to the model of the tests that is called by this number.
fn calibration(number: usize, keys: &str) -> Delivered {
    let train = stage(&stages::train::KIND, &format!("architecture = \"INPUT - FC\"\n{keys}"));
    let inputs = [inputs().into_iter().take(1).collect(), model(number)].concat();
    let files = run(&*train, Part::Calibration, inputs, &Places::default());
    delivered(number, Part::Calibration, Output::Model, files)
}

/// What the room called `name` makes of a tiny input.
pub(super) fn made(made: &mut Made, name: &str) {
    let places = Places::default();
    match name {
        "temperature" | "abstain" => {
            let key = if name == "abstain" { "abstain = { error = 0.4 }" } else { "calibrate = \"temperature\"" };
            let stage = stage(&stages::ensemble::KIND, key);
            made.files(&run(&*stage, Part::Whole, [inputs(), model(2), model(3)].concat(), &places));
            made.files(&calibration(2, key).files);
        }
        "trust" => {
            let stage = stage(&stages::evaluate::KIND, "");
            let keys = "calibrate = \"temperature\"\nabstain = { error = 0.3 }";
            let inputs = [inputs(), model(2), vec![calibration(2, keys)], model(3)].concat();
            let files = run(&*stage, Part::Whole, inputs, &places);
            let tables = ["calibration.csv", "coverage.csv", "temperatures.csv"];
            tables.into_iter().for_each(|name| made.bytes(&files.0[name]));
        }
        _ => {
            let keys = "architecture = \"INPUT - FC\"\nepochs = 1\npredict = [\"flip\", { shift = 2 }]";
            let stage = stage(&stages::train::KIND, keys);
            let trained = run(&*stage, Part::Fold(1), inputs(), &places);
            let fold = delivered(2, Part::Fold(1), Output::Model, trained);
            made.files(&run(&*stage, Part::Predict(1), [inputs(), vec![fold]].concat(), &places));
        }
    }
}
