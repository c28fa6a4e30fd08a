//! What a model said about the images of one split: class probabilities by sample index.
//!
//! `train` writes one file per split that its model was not fitted on ([`VALIDATION`] and [`TEST`]); `ensemble` and
//! `evaluate` combine the tables, so no network runs twice. On disk: safetensors with `rows` (u32, `[n]`) and
//! `probabilities` (f32, `[n, n_classes]`).
//!
//! A task may hand on several models (snapshots of one training run, the best of a search): those of the first, which
//! is the stage's own answer, have the plain names, those of the m-th are called `test-m.safetensors` ([`file_of`]).

use std::borrow::Borrow;
use std::io;
use std::ops::Deref;

use ndarray::{Array2, ArrayView2};

use super::tensors::{Tensors, TensorsWriter};
use super::{Error, Files, Sink};
use crate::data::metrics::arg_max;

/// The file with a task's out-of-fold predictions; absent where a model has no validation rows.
pub const VALIDATION: &str = "validation.safetensors";

/// Takes the place of [`VALIDATION`] where those rows chose the model (its best epoch, its learning rate on a plateau):
/// what they say about it is then too good, and is reported as such.
pub const VALIDATION_SELECTED: &str = "validation_selected.safetensors";

/// The file with a task's predictions on the test split; absent where nothing is held out.
pub const TEST: &str = "test.safetensors";

/// The file with what the `model`-th (from 1) of a task's models says, where that of the first is called `name`:
/// `test.safetensors`, `test-2.safetensors`, ….
///
/// # Panics
/// If `model` is 0.
pub fn file_of(name: &str, model: u32) -> String {
    assert!(model > 0, "models of a task are counted from 1");
    match (model, name.rsplit_once('.')) {
        (1, _) | (_, None) => name.to_owned(),
        (_, Some((stem, ending))) => format!("{stem}-{model}.{ending}"),
    }
}

/// How many models a task handed on predictions of; 1 where it has none at all.
pub fn n_models(files: &Files) -> u32 {
    let has = |model: u32| {
        let names = [VALIDATION, VALIDATION_SELECTED, TEST];
        names.iter().any(|name| files.0.contains_key(&file_of(name, model)))
    };
    (2..).find(|&model| !has(model)).map_or(1, |absent| absent - 1)
}

/// Class probabilities of some samples, ascending by sample index.
#[derive(Clone, Debug, PartialEq)]
pub struct Predictions {
    rows: Vec<u32>,
    /// In standard layout.
    probabilities: Array2<f32>,
}

impl Predictions {
    /// Predictions for the samples `rows` (indices into the data set, ascending).
    ///
    /// # Shapes
    /// - `probabilities`: `[rows.len(), n_classes]`, each row summing to about 1
    ///
    /// # Panics
    /// If the shapes disagree, or `rows` is not strictly ascending.
    pub fn new(rows: Vec<u32>, n_classes: usize, probabilities: Vec<f32>) -> Predictions {
        assert!(rows.is_sorted_by(|a, b| a < b), "rows of predictions must ascend");
        let (n, len) = (rows.len(), probabilities.len());
        let probabilities = Array2::from_shape_vec((n, n_classes), probabilities)
            .unwrap_or_else(|_| panic!("{len} probabilities of {n} rows and {n_classes} classes"));
        Predictions { rows, probabilities }
    }

    /// Sample indices, ascending.
    pub fn rows(&self) -> &[u32] {
        &self.rows
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Number of classes.
    pub fn n_classes(&self) -> usize {
        self.probabilities.ncols()
    }

    /// All probabilities, `[n, n_classes]`, in standard layout.
    pub fn probabilities(&self) -> ArrayView2<'_, f32> {
        self.probabilities.view()
    }

    fn values(&self) -> &[f32] {
        self.probabilities.as_slice().expect("standard layout, as it was made")
    }

    /// The probabilities of the `i`-th of the rows.
    pub fn row(&self, i: usize) -> &[f32] {
        &self.values()[i * self.n_classes()..(i + 1) * self.n_classes()]
    }

    /// The class predicted for the `i`-th of the rows: the most probable one, the first of equals.
    pub fn class(&self, i: usize) -> usize {
        arg_max(self.row(i))
    }

    /// Writes the file called `name`.
    ///
    /// # Errors
    /// Those of the sink.
    pub fn write(&self, sink: &mut dyn Sink, name: &str) -> io::Result<()> {
        let mut tensors = TensorsWriter::new();
        tensors.u32("rows", &[self.rows.len()], &self.rows);
        tensors.f32("probabilities", &[self.rows.len(), self.n_classes()], self.values());
        tensors.write(sink, name)
    }

    /// Reads the file called `name`.
    ///
    /// # Errors
    /// If it is absent or not a table of predictions.
    pub fn read(files: &Files, name: &str) -> Result<Predictions, Error> {
        let tensors = Tensors::open(files, name)?;
        let (_, rows) = tensors.u32("rows", 1)?;
        let (shape, probabilities) = tensors.f32("probabilities", 2)?;
        if shape[0] != rows.len() || !rows.is_sorted_by(|a, b| a < b) {
            let message = format!("has {} rows of probabilities for {} ascending rows", shape[0], rows.len());
            return Err(Error { file: name.to_owned(), message });
        }
        Ok(Predictions::new(rows, shape[1], probabilities))
    }

    /// Reads the file called `name` if the artifact has it.
    ///
    /// # Errors
    /// If it is there but not a table of predictions.
    pub fn read_optional(files: &Files, name: &str) -> Result<Option<Predictions>, Error> {
        if files.0.contains_key(name) { Predictions::read(files, name).map(Some) } else { Ok(None) }
    }
}

/// What a model said of rows that were held out of its training and are not the test split's: what the rule of an
/// ensemble may be fitted on, and trials ranked by. Only read from the files of such rows:
///
/// ```
/// use convoy::artifact::Files;
/// use convoy::artifact::predictions::OutOfFold;
///
/// let said: Option<OutOfFold> = OutOfFold::read(&Files::default(), 1).unwrap();
/// assert!(said.is_none());
/// ```
///
/// What is said of test rows, or of any other, cannot stand in its place:
///
/// ```compile_fail
/// use convoy::artifact::Files;
/// use convoy::artifact::predictions::{OutOfFold, Predictions, TEST};
///
/// let said: Option<OutOfFold> = Predictions::read_optional(&Files::default(), TEST).unwrap();
/// ```
///
/// ```compile_fail
/// use convoy::artifact::predictions::{OutOfFold, Predictions};
///
/// let said = OutOfFold { predictions: Predictions::new(vec![], 2, vec![]), is_selected: false };
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct OutOfFold {
    predictions: Predictions,
    is_selected: bool,
}

impl OutOfFold {
    /// What the `model`-th (from 1) of a task's models says of its validation rows, if it has any.
    ///
    /// # Errors
    /// If the file is there but not a table of predictions.
    pub fn read(files: &Files, model: u32) -> Result<Option<OutOfFold>, Error> {
        OutOfFold::read_either(files, |is_selected| {
            file_of(if is_selected { VALIDATION_SELECTED } else { VALIDATION }, model)
        })
    }

    /// From the file whose name `name` gives for rows that did not choose the model, or for those that did.
    pub(super) fn read_either(files: &Files, name: impl Fn(bool) -> String) -> Result<Option<OutOfFold>, Error> {
        for is_selected in [false, true] {
            if let Some(predictions) = Predictions::read_optional(files, &name(is_selected))? {
                return Ok(Some(OutOfFold { predictions, is_selected }));
            }
        }
        Ok(None)
    }

    /// Whether those rows chose the model, or a member of it.
    pub fn is_selected(&self) -> bool {
        self.is_selected
    }

    /// The same rows, of which something else is said; `is_selected`: which those rows chose.
    ///
    /// # Panics
    /// If it is said of other rows.
    pub(crate) fn changed(self, is_selected: bool, change: impl FnOnce(Predictions) -> Predictions) -> OutOfFold {
        let rows = self.predictions.rows.clone();
        let predictions = change(self.predictions);
        assert_eq!(predictions.rows, rows, "what is said out of fold is of the same rows");
        OutOfFold { predictions, is_selected: self.is_selected || is_selected }
    }

    /// What is said, where nothing is learned from it.
    pub fn into_predictions(self) -> Predictions {
        self.predictions
    }
}

impl Deref for OutOfFold {
    type Target = Predictions;

    fn deref(&self) -> &Predictions {
        &self.predictions
    }
}

impl Borrow<Predictions> for OutOfFold {
    fn borrow(&self) -> &Predictions {
        &self.predictions
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;
    use crate::artifact::Bytes;

    /// Keeps what was `put`.
    #[derive(Default)]
    struct Memory(Files);

    impl Sink for Memory {
        fn create(&mut self, _name: &str) -> io::Result<File> {
            tempfile::tempfile()
        }

        fn put(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
            self.0.0.insert(name.to_owned(), Bytes::new(bytes.to_vec()));
            Ok(())
        }
    }

    fn written() -> (Predictions, Files) {
        let predictions = Predictions::new(vec![2, 5], 3, vec![0.1, 0.7, 0.2, 0.4, 0.2, 0.4]);
        let mut memory = Memory::default();
        predictions.write(&mut memory, TEST).unwrap();
        (predictions, memory.0)
    }

    #[test]
    fn predictions_survive_the_disk() {
        let (predictions, files) = written();
        assert_eq!(Predictions::read(&files, TEST).unwrap(), predictions);
        assert_eq!(Predictions::read_optional(&files, VALIDATION).unwrap(), None);
        assert_eq!((predictions.class(0), predictions.class(1)), (1, 0));
    }

    #[test]
    fn what_is_said_out_of_fold_comes_from_the_files_of_such_rows_only() {
        let (predictions, mut files) = written();
        assert_eq!(OutOfFold::read(&files, 1).unwrap(), None, "there are test rows only");
        let bytes = files.0[TEST].clone();
        files.0.insert(VALIDATION_SELECTED.to_owned(), bytes.clone());
        let said = OutOfFold::read(&files, 1).unwrap().unwrap();
        assert!(said.is_selected() && *said == predictions);
        files.0.insert(file_of(VALIDATION, 2), bytes);
        assert!(!OutOfFold::read(&files, 2).unwrap().unwrap().is_selected());
    }

    #[test]
    fn models_of_one_task_are_counted() {
        let (predictions, files) = written();
        assert_eq!(n_models(&files), 1);
        assert_eq!(n_models(&Files::default()), 1);
        let mut memory = Memory(files);
        predictions.write(&mut memory, &file_of(TEST, 2)).unwrap();
        predictions.write(&mut memory, &file_of(VALIDATION, 3)).unwrap();
        assert_eq!(n_models(&memory.0), 3);
        assert_eq!(file_of(VALIDATION_SELECTED, 1), VALIDATION_SELECTED);
        assert_eq!(file_of(TEST, 12), "test-12.safetensors");
    }

    #[test]
    fn a_truncated_or_edited_file_is_an_error() {
        let (_, files) = written();
        let whole = files.get(TEST).unwrap().to_vec();
        for length in 0..whole.len() {
            let cut = Bytes::new(whole[..length].to_vec());
            let files = Files([(TEST.to_owned(), cut)].into());
            assert!(Predictions::read(&files, TEST).is_err(), "cut at {length}");
        }
        for at in 0..whole.len() {
            let mut edited = whole.clone();
            edited[at] ^= 0x10;
            // Any answer but a panic.
            let _ = Predictions::read(&Files([(TEST.to_owned(), Bytes::new(edited))].into()), TEST);
        }
    }
}
