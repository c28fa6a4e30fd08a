//! Ensembles and evaluations of made-up predictions: what is combined, what is reported, and what is refused.

use super::*;
use crate::artifact::dataset::Names;
use crate::artifact::ensemble::{Ensemble, Stacking, WEIGHTS, validation_name};
use crate::artifact::evaluation::GateResult;
use crate::artifact::predictions::{TEST, VALIDATION, VALIDATION_SELECTED, file_of};
use crate::artifact::splits::Splits;
use crate::artifact::{Bytes, Files};
use crate::config::{self, Entry, Table};
use crate::data::fit_set::{Fit, Partition, Place};
use crate::stages::ensemble::Combine;
use crate::stages::testing::{self, MemorySink, TestContext};
use crate::stages::{Delivered, Node};
use crate::tensor::ImageShape;

/// Stands for a stage whose artifacts a test makes up.
#[derive(Debug)]
struct Fake;

impl Stage for Fake {
    fn kind(&self) -> &'static str {
        "fake"
    }
    fn rooms(&self, _: Part, _: &Upstream<'_>) -> Vec<&'static str> {
        Vec::new()
    }
    fn accepts(&self) -> &'static [Output] {
        &[]
    }
    fn check(&self, _: &[Flow], _: Span, _: &mut Log) -> Flow {
        unreachable!("a stand-in is not checked")
    }
    fn parts(&self, _: &Flow) -> Vec<Part> {
        Vec::new()
    }
    fn needs(&self, _: Part, _: &Upstream<'_>) -> Vec<Need> {
        Vec::new()
    }
    fn learns(&self, _part: Part) -> Option<Learns> {
        None
    }

    fn run(&self, _: &Task, _: &Places, _: &dyn Context, _: &mut dyn Sink) -> Result<(), StageError> {
        unreachable!("a stand-in is not run")
    }
}

fn flow(output: Output, folds: u32, has_test: bool) -> Flow {
    Flow {
        output,
        shape: None,
        n_classes: Some(3),
        n_samples: None,
        given: None,
        folds,
        has_test,
        refit: false,
        models: 1,
        has_views: false,
        has_temperature: false,
        abstains: false,
    }
}

fn text(text: &str) -> Value {
    Value::Text { text: text.to_owned(), inner: None }
}

fn table(keys: &[(&str, Value)]) -> Table {
    let entry = |(key, value): &(&str, Value)| Entry {
        key: (*key).to_owned(),
        key_span: Span::default(),
        node: config::Node { value: value.clone(), span: Span::default() },
    };
    Table { entries: keys.iter().map(entry).collect() }
}

fn list(items: &[&str]) -> Value {
    Value::List(items.iter().map(|item| config::Node { value: text(item), span: Span::default() }).collect())
}

/// 12 samples of 3 classes: sample `i` is of class `i % 3`; every fourth is held out if `has_test`, the rest goes round
/// the folds.
fn places(folds: u32, has_test: bool) -> Vec<Place> {
    let place = |i: u32| match (has_test && i % 4 == 3, folds) {
        (true, _) => Place::Test,
        (false, 1) if i >= 6 => Place::Train,
        _ => Place::Fold(i % folds + 1),
    };
    (0..12).map(place).collect()
}

/// Sure of class `(row + shift) % 3`, so right if `shift` is 0.
fn said(rows: &[u32], shift: u32, p: f32) -> Predictions {
    let of = |row: u32| (0..3).map(move |class| if class == (row + shift) % 3 { p } else { (1.0 - p) / 2.0 });
    Predictions::new(rows.to_vec(), 3, rows.iter().flat_map(|&row| of(row)).collect())
}

/// A graph and the artifacts of its stages.
struct Graph {
    nodes: Vec<Node>,
    artifacts: Vec<((usize, Part), Files)>,
    partition: Partition,
}

impl Graph {
    /// A data set (0) and its splits (1).
    fn new(folds: u32, has_test: bool) -> Graph {
        let labels: Vec<u32> = (0..12).map(|i| i % 3).collect();
        let shape = ImageShape { height: 1, width: 1, channels: 1 };
        let (files, dataset) = testing::dataset(shape, &labels, &(0..12).collect::<Vec<u8>>());
        let partition = Partition::new(places(folds, has_test), folds).unwrap();
        let mut sink = MemorySink::default();
        Splits::new(partition.clone(), &dataset).write(&dataset, &Names::read(&files).unwrap(), &mut sink).unwrap();
        let mut graph = Graph { nodes: Vec::new(), artifacts: Vec::new(), partition };
        graph.add("ingest", flow(Output::Dataset, 0, false), &[], Box::new(Fake), vec![(Part::Whole, files)]);
        graph.add(
            "split",
            flow(Output::Splits, folds, has_test),
            &[0],
            Box::new(Fake),
            vec![(Part::Whole, sink.files())],
        );
        graph
    }

    fn add(
        &mut self,
        name: &str,
        flow: Flow,
        inputs: &[usize],
        stage: Box<dyn Stage>,
        artifacts: Vec<(Part, Files)>,
    ) -> usize {
        let index = self.nodes.len();
        self.nodes.push(Node { name: name.to_owned(), flow, inputs: inputs.to_vec(), stage: stage.into() });
        self.artifacts.extend(artifacts.into_iter().map(|(part, files)| ((index, part), files)));
        index
    }

    /// A model whose folds say `shifts` with probability `p`; with `refit`, one more fit that is always right.
    fn model(&mut self, name: &str, shifts: &[u32], p: f32, refit: bool, validation: &str) -> usize {
        let test = self.partition.test_rows().indices();
        let files = |written: Vec<(&str, Predictions)>| {
            let mut sink = MemorySink::default();
            for (name, predictions) in written.iter().filter(|(_, predictions)| !predictions.is_empty()) {
                predictions.write(&mut sink, name).unwrap();
            }
            sink.files()
        };
        let mut artifacts = Vec::new();
        for (fold, &shift) in (1..).zip(shifts) {
            let own = said(&self.partition.fit_set(Fit::Fold(fold)).validation().indices(), shift, p);
            artifacts.push((Part::Fold(fold), files(vec![(validation, own), (TEST, said(&test, shift, p))])));
        }
        if refit {
            artifacts.push((Part::All, files(vec![(TEST, said(&test, 0, p))])));
        }
        let flow = Flow { refit, ..flow(Output::Model, shifts.len() as u32, !test.is_empty()) };
        self.add(name, flow, &[1], Box::new(Fake), artifacts)
    }

    /// What a runner would deliver: the files that are asked for.
    fn deliver(&self, needs: Vec<Need>) -> Vec<Delivered> {
        let deliver = |need: Need| {
            let artifact = self.artifacts.iter().find(|(known, _)| *known == (need.stage, need.part));
            let files = artifact.unwrap().1.0.iter().filter(|(name, _)| need.files.covers(name));
            Delivered {
                from: need.stage,
                part: need.part,
                stage_name: self.nodes[need.stage].name.clone(),
                output: self.nodes[need.stage].flow.output,
                files: Files(files.map(|(name, bytes)| (name.clone(), bytes.clone())).collect()),
            }
        };
        needs.into_iter().map(deliver).collect()
    }

    /// Adds a stage, checks it, runs it with exactly what it says it needs.
    fn run(&mut self, name: &str, kind: &Kind, keys: &[(&str, Value)], inputs: &[usize]) -> Result<Files, StageError> {
        let (stage, mut log) = testing::read(kind.read, &table(keys));
        let flows: Vec<Flow> = inputs.iter().map(|&input| self.nodes[input].flow.clone()).collect();
        let flow = stage.check(&flows, Span::default(), &mut log);
        let own = self.add(name, flow, inputs, stage, Vec::new());
        let upstream = Upstream { own, nodes: &self.nodes };
        self.nodes[own].stage.check_graph(&upstream, &mut log);
        assert_eq!(log.problems.iter().filter(|p| p.severity == config::Severity::Error).count(), 0, "{log:?}");
        let inputs = self.deliver(self.nodes[own].stage.needs(Part::Whole, &upstream));
        let stage = self.nodes[own].stage.as_ref();
        let files = testing::run(stage, Part::Whole, inputs, &Places::default(), &TestContext::default())?;
        self.artifacts.push(((own, Part::Whole), files.clone()));
        Ok(files)
    }

    /// What checking these keys says.
    fn problems(&mut self, kind: &Kind, keys: &[(&str, Value)], inputs: &[usize]) -> Vec<String> {
        let (stage, mut log) = testing::read(kind.read, &table(keys));
        let flows: Vec<Flow> = inputs.iter().map(|&input| self.nodes[input].flow.clone()).collect();
        let flow = stage.check(&flows, Span::default(), &mut log);
        let own = self.add("checked", flow, inputs, stage, Vec::new());
        self.nodes[own].stage.check_graph(&Upstream { own, nodes: &self.nodes }, &mut log);
        self.nodes.pop();
        log.problems.into_iter().map(|problem| problem.message).collect()
    }
}

const ENSEMBLE: Kind = crate::stages::ensemble::KIND;

fn lines(files: &Files, name: &str) -> Vec<String> {
    String::from_utf8(files.get(name).unwrap().to_vec()).unwrap().lines().map(str::to_owned).collect()
}

/// The cells `split, fold, value` of a metric of a model.
fn values(files: &Files, model: &str, metric: &str) -> Vec<String> {
    let rows = lines(files, METRICS_TABLE).into_iter().map(|line| line.split(',').map(str::to_owned).collect());
    rows.filter(|row: &Vec<String>| row[0] == model && row[4] == metric && row[3].is_empty())
        .map(|row| format!("{} {} {}", row[1], row[2], row[5]))
        .collect()
}

#[test]
fn folds_become_one_model_by_mean_and_by_vote() {
    let mut graph = Graph::new(3, true);
    // One fold is right and sure, two are wrong in different ways.
    let model = graph.model("cnn", &[0, 1, 2], 0.9, false, VALIDATION);
    let unsure = graph.model("unsure", &[0, 1, 1], 0.4, false, VALIDATION);
    let files = graph.run("mean", &ENSEMBLE, &[], &[model]).unwrap();
    let mean = Predictions::read(&files, TEST).unwrap();
    assert_eq!(mean.rows(), [3, 7, 11]);
    assert!(mean.probabilities().iter().all(|p| (p - 1.0 / 3.0).abs() < 1e-6), "{mean:?}");
    let members = Ensemble::read(&files).unwrap();
    assert_eq!(members.members.len(), 3);
    assert!(!members.is_scored_out_of_fold);

    let files = graph.run("vote", &ENSEMBLE, &[("combine", text("vote"))], &[unsure]).unwrap();
    let vote = Predictions::read(&files, TEST).unwrap();
    for (i, &row) in vote.rows().iter().enumerate() {
        assert_eq!(vote.class(i), (row as usize + 1) % 3, "two votes beat one");
        let sum = vote.row(i).iter().fold(0.0, |sum, p| sum + p);
        assert!((sum - 1.0).abs() < 1e-6);
    }
}

#[test]
fn equal_votes_go_to_the_higher_mean_probability() {
    let say = |p: [f32; 3]| Predictions::new(vec![0], 3, p.to_vec());
    let vote = |members: &[Predictions]| Combine::Vote.apply(members).unwrap().class(0);
    assert_eq!(vote(&[say([0.6, 0.4, 0.0]), say([0.1, 0.9, 0.0])]), 1);
    assert_eq!(vote(&[say([0.6, 0.4, 0.0]), say([0.4, 0.6, 0.0])]), 0);
    // One sure voice never outvotes two.
    assert_eq!(vote(&[say([0.0, 0.0, 1.0]), say([0.4, 0.3, 0.3]), say([0.4, 0.3, 0.3])]), 0);
}

#[test]
fn several_models_meet_fold_by_fold() {
    let mut graph = Graph::new(3, true);
    let cnn = graph.model("cnn", &[0, 0, 1], 0.8, false, VALIDATION);
    let dense = graph.model("dense", &[1, 0, 0], 0.6, true, VALIDATION);
    let both = graph.run("both", &ENSEMBLE, &[], &[cnn, dense]).unwrap();
    let members = Ensemble::read(&both).unwrap();
    assert!(members.is_scored_out_of_fold);
    assert_eq!(members.members[0].parts, ["fold 1", "fold 2", "fold 3"]);
    assert_eq!(members.members[1].parts, ["all"]);
    for fold in 1..=3 {
        let got = Predictions::read(&both, &validation_name(fold, false)).unwrap();
        assert_eq!(got.rows(), graph.partition.fit_set(Fit::Fold(fold)).validation().indices());
        let (a, b) = [[(0, 0.8), (1, 0.6)], [(0, 0.8), (0, 0.6)], [(1, 0.8), (0, 0.6)]][fold as usize - 1].into();
        let [a, b] = [a, b].map(|(shift, p)| said(got.rows(), shift, p));
        for ((got, a), b) in got.probabilities().iter().zip(a.probabilities()).zip(b.probabilities()) {
            assert!((got - (a + b) / 2.0).abs() < 1e-6);
        }
    }
    // The test split: the mean of the folds' mean and the refitted model, which is always right.
    let test = Predictions::read(&both, TEST).unwrap();
    let expected = ((0.8 + 0.8 + 0.1) / 3.0 + 0.6) / 2.0;
    assert!((test.row(0)[0] - expected).abs() < 1e-6, "{test:?}");

    // Evaluating it tells about it and its members, and nests.
    let own = graph.nodes.len() - 1;
    let nested = graph.run("nested", &ENSEMBLE, &[], &[own, cnn]).unwrap();
    assert!(Ensemble::read(&nested).unwrap().is_scored_out_of_fold);
    let nested = graph.nodes.len() - 1;
    let keys = [("metrics", list(&["accuracy"]))];
    let files = graph.run("evaluate", &KIND, &keys, &[nested]).unwrap();
    assert_eq!(values(&files, "nested", "accuracy")[0].split(' ').next(), Some("out_of_fold"));
    assert_eq!(
        values(&files, "cnn", "accuracy"),
        [
            "out_of_fold  0.6666666666666666",
            "out_of_fold 1 1.0",
            "out_of_fold 2 1.0",
            "out_of_fold 3 0.0",
            "test  1.0",
            "test 1 1.0",
            "test 2 1.0",
            "test 3 0.0"
        ]
    );
    assert_eq!(values(&files, "dense", "accuracy")[4..5], ["test  1.0"]);
    let evaluation = Evaluation::read(&files).unwrap();
    assert_eq!(evaluation.model, "nested");
    let models: Vec<&str> = evaluation.scores.iter().map(|score| score.model.as_str()).collect();
    assert_eq!(models, ["nested", "nested", "both", "both", "cnn", "cnn", "dense", "dense"]);
    assert_eq!(evaluation.report.unwrap().split, "test");
}

#[test]
fn tables_hold_what_was_said() {
    let mut graph = Graph::new(2, true);
    let model = graph.model("cnn", &[0, 1], 0.5, false, VALIDATION);
    let keys = [("metrics", list(&["log-loss", "accuracy"]))];
    let files = graph.run("evaluate", &KIND, &keys, &[model]).unwrap();
    let metrics = lines(&files, METRICS_TABLE);
    assert_eq!(metrics[0], "model,split,fold,class,metric,value,ci_low,ci_high,n");
    let oof: Vec<&String> = metrics.iter().filter(|line| line.starts_with("cnn,out_of_fold,,,")).collect();
    assert_eq!(oof.len(), 6, "{oof:?}");
    assert!(oof[0].starts_with("cnn,out_of_fold,,,log-loss,") && oof[0].ends_with(",,,9"), "{oof:?}");
    let mean = oof.iter().find(|line| line.contains("accuracy-mean")).unwrap();
    assert_eq!(*mean, "cnn,out_of_fold,,,accuracy-mean,0.5,,,2");
    let accuracy = oof.iter().find(|line| line.contains(",accuracy,")).unwrap();
    assert!(accuracy.starts_with("cnn,out_of_fold,,,accuracy,0.6666666666666666,0.35") && accuracy.ends_with(",9"));
    assert!(metrics.iter().any(|line| line == "cnn,out_of_fold,,a,support,3,,,3"));

    let predictions = lines(&files, PREDICTIONS);
    assert_eq!(predictions[0], "id,path,split,fold,model,actual,predicted,correct,confidence,loss,p_a,p_b,p_c");
    assert_eq!(predictions.len(), 1 + 12);
    assert_eq!(predictions[1], "0,0.png,out_of_fold,1,cnn,a,a,true,0.5,0.6931471805599453,0.5,0.25,0.25");
    assert!(predictions[4].starts_with("3,3.png,test,,cnn,a,a,true,0.375,"), "{}", predictions[4]);

    let confusion = lines(&files, CONFUSION);
    assert_eq!(confusion.len(), 1 + 2 * 9);
    assert!(confusion.contains(&"cnn,out_of_fold,a,b,1".to_owned()), "{confusion:?}");
}

#[test]
fn what_may_be_reported_depends_on_what_was_held_out() {
    let headlines = |folds: &[u32], has_test: bool, validation: &str| {
        let mut graph = Graph::new(folds.len() as u32, has_test);
        let model = graph.model("cnn", folds, 0.9, false, validation);
        let files = graph.run("evaluate", &KIND, &[], &[model]).unwrap();
        let scores = Evaluation::read(&files).unwrap().scores;
        scores.into_iter().map(|score| score.split).collect::<Vec<_>>()
    };
    assert_eq!(headlines(&[0, 0], true, VALIDATION), ["test", "out_of_fold"]);
    assert_eq!(headlines(&[0, 0], false, VALIDATION), ["out_of_fold"]);
    assert_eq!(headlines(&[0], true, VALIDATION), ["test", "validation"]);
    assert_eq!(headlines(&[0], false, VALIDATION_SELECTED), ["validation_selected"]);
    assert_eq!(headlines(&[0, 1], true, VALIDATION_SELECTED), ["test", "validation_selected"]);

    // An ensemble of folds has no score of its own out of fold; with nothing held out, its member's is reported.
    let mut graph = Graph::new(2, false);
    let model = graph.model("cnn", &[0, 1], 0.9, false, VALIDATION);
    graph.run("folds", &ENSEMBLE, &[], &[model]).unwrap();
    let files = graph.run("evaluate", &KIND, &[], &[model + 1]).unwrap();
    let evaluation = Evaluation::read(&files).unwrap();
    assert!(evaluation.scores.iter().all(|score| score.model != evaluation.model));
    assert_eq!(evaluation.scores.len(), 1);
    assert_eq!(evaluation.report.unwrap().model, "cnn");

    // One selected member makes the ensemble's validation rows selected.
    let mut graph = Graph::new(2, true);
    let a = graph.model("a", &[0, 1], 0.9, false, VALIDATION);
    let b = graph.model("b", &[0, 1], 0.9, false, VALIDATION_SELECTED);
    let files = graph.run("both", &ENSEMBLE, &[], &[a, b]).unwrap();
    assert!(files.0.contains_key("validation_selected_fold_1.safetensors"));
    let files = graph.run("evaluate", &KIND, &[], &[b + 1]).unwrap();
    let evaluation = Evaluation::read(&files).unwrap();
    assert_eq!(evaluation.scores[1].split, "validation_selected");
}

#[test]
fn gates_are_checked_and_recorded() {
    let mut graph = Graph::new(2, true);
    let model = graph.model("cnn", &[0, 1], 0.9, false, VALIDATION);
    let gate = |keys: &[(&str, &str)]| {
        let keys: Vec<(&str, Value)> = keys.iter().map(|(key, value)| (*key, text(value))).collect();
        Value::Table(table(&keys))
    };
    let named = Value::Table(table(&[
        ("accuracy", text(">= 0.4")),
        ("log-loss", text("< 0.1")),
        ("cnn", gate(&[("accuracy", ">=0.9"), ("roc-auc", "> 0.5")])),
    ]));
    let files = graph.run("evaluate", &KIND, &[("gates", named)], &[model]).unwrap();
    let evaluation = Evaluation::read(&files).unwrap();
    let passed: Vec<bool> = evaluation.gates.iter().map(|gate| gate.is_passed).collect();
    // The two folds agree on nothing; of equal means the first class wins, which is right for two test samples of
    // three.
    let expected = GateResult {
        model: "cnn".to_owned(),
        split: "test".to_owned(),
        metric: "accuracy".to_owned(),
        expected: ">= 0.4".to_owned(),
        value: Some(2.0 / 3.0),
        is_passed: true,
        ..GateResult::default()
    };
    assert_eq!(evaluation.gates[0], expected);
    assert_eq!(passed[1..], [false, false, true]);
    assert!(evaluation.gates.iter().any(|gate| !gate.is_passed));

    let problems = graph.problems(&KIND, &[("gates", gate(&[("acuracy", ">= 0.9")]))], &[model]);
    assert_eq!(problems, ["unknown metric `acuracy`"]);
    let problems = graph.problems(&KIND, &[("gates", gate(&[("accuracy", "0.9")]))], &[model]);
    let expected = "`gates.accuracy` expects a comparison with a number, such as \">= 0.97\", or a table with `baseline`, \
                    got the string `0.9`";
    assert_eq!(problems, [expected]);
    let problems = graph.problems(&KIND, &[("gates", gate(&[("accuracy", "<= 0.9")]))], &[model]);
    assert_eq!(problems, ["the gate `<= 0.9` on `accuracy` asks for worse: higher is better"]);
    let problems =
        graph.problems(&KIND, &[("gates", Value::Table(table(&[("cn", gate(&[("accuracy", "> 0")]))])))], &[model]);
    assert_eq!(problems, ["no model `cn` is evaluated here"]);
    let problems = graph.problems(&KIND, &[("metrics", list(&["accuracy", "f2"]))], &[model]);
    assert_eq!(problems, ["unknown metric `f2`"]);
}

/// A list of gates.
fn gate_list(items: &[&[(&str, Value)]]) -> Value {
    let item = |keys: &&[(&str, Value)]| config::Node { value: Value::Table(table(keys)), span: Span::default() };
    Value::List(items.iter().map(item).collect())
}

#[test]
fn listed_gates_look_at_models_splits_and_classes() {
    let mut graph = Graph::new(2, true);
    let model = graph.model("cnn", &[0, 1], 0.9, false, VALIDATION);
    let float = Value::Float;
    // Out of fold the first fold is right about its 5 or 4 rows, the second about none.
    let items: &[&[(&str, Value)]] = &[
        &[("metric", text("accuracy")), ("at_least", float(0.6)), ("at_most", float(0.7))],
        &[("metric", text("accuracy")), ("split", text("out_of_fold")), ("at_least", float(0.7))],
        &[("metric", text("recall")), ("class", text("c")), ("model", text("cnn")), ("at_least", float(0.1))],
        &[("metric", text("precision")), ("class", text("a")), ("at_least", float(0.1))],
        &[("metric", text("f1")), ("class", text("a")), ("split", text("out_of_fold")), ("at_most", float(0.9))],
        &[("metric", text("roc-auc")), ("split", text("validation_selected")), ("at_least", float(0.1))],
        &[("metric", text("log-loss")), ("baseline", float(0.2)), ("max_drop", float(9.0))],
    ];
    let keys = [("gates", gate_list(items)), ("metrics", list(&["accuracy"]))];
    let files = graph.run("evaluate", &KIND, &keys, &[model]).unwrap();
    let evaluation = Evaluation::read(&files).unwrap();
    let shown: Vec<String> = evaluation
        .gates
        .iter()
        .map(|gate| {
            format!(
                "{} {} on {}: {} {}",
                gate.measured(),
                gate.expected,
                gate.split,
                gate.shown_value(),
                gate.is_passed
            )
        })
        .collect();
    let expected = [
        "accuracy >= 0.6 and <= 0.7 on test: 0.6667 true",
        "accuracy >= 0.7 on out_of_fold: 0.6667 false",
        "recall of class c >= 0.1 on test: 0.0000 false",
        "precision of class a >= 0.1 on test: 0.5000 true",
        "f1 of class a <= 0.9 on out_of_fold: 0.6667 true",
        "roc-auc >= 0.1 on validation_selected: no value false",
    ];
    assert_eq!(shown[..6], expected);
    assert!(shown[6].starts_with("log-loss at most 9.0 worse than 0.2 on test: ") && shown[6].ends_with(" true"));
    // The same numbers as in the tables.
    let of_class = |line: &&String| line.starts_with("cnn,test,,c,recall,");
    assert!(lines(&files, METRICS_TABLE).iter().find(of_class).unwrap().starts_with("cnn,test,,c,recall,0.0,"));
}

#[test]
fn listed_gates_compare_with_models_and_tables_within_noise() {
    let mut graph = Graph::new(2, true);
    let strong = graph.model("strong", &[0, 0], 0.9, false, VALIDATION);
    let weak = graph.model("weak", &[0, 1], 0.9, false, VALIDATION);
    graph.run("both", &ENSEMBLE, &[], &[strong, weak]).unwrap();
    let both = graph.nodes.len() - 1;
    let gate = |metric: &str, baseline: Value, noise: bool| {
        let keys = [
            ("metric", text(metric)),
            ("model", text("weak")),
            ("split", text("out_of_fold")),
            ("baseline", baseline),
            ("within_noise", Value::Boolean(noise)),
        ];
        config::Node { value: Value::Table(table(&keys)), span: Span::default() }
    };
    let temp = tempfile::tempdir().unwrap();
    let baseline = temp.path().join("old.csv");
    let text_of = |path: &std::path::Path| text(path.to_str().unwrap());
    let table = "model,split,fold,class,metric,value,ci_low,ci_high,n\nweak,out_of_fold,,,accuracy,0.7,0.4,0.9,9\n";
    std::fs::write(&baseline, table).unwrap();
    let gates = Value::List(vec![
        gate("accuracy", text("strong"), false),
        gate("accuracy", text("strong"), true),
        gate("log-loss", text("strong"), true),
        gate("accuracy", text_of(&baseline), false),
        gate("accuracy", text_of(&baseline), true),
        gate("accuracy", Value::Float(0.99), true),
    ]);
    let files = graph.run("evaluate", &KIND, &[("gates", gates)], &[both]).unwrap();
    let gates = Evaluation::read(&files).unwrap().gates;
    let told = |i: usize| (gates[i].is_passed, gates[i].judged.as_deref().unwrap_or_default());
    // Three of nine images are lost: p = 0.25.
    assert_eq!(told(0), (false, "within noise (McNemar p 0.250, 9 images)"));
    assert_eq!(told(1), (true, "within noise (McNemar p 0.250, 9 images)"));
    assert!(gates[2].judged.as_ref().unwrap().contains("noise ([+"), "{:?}", gates[2]);
    assert!(!told(3).0 && told(4).0 && told(4).1.starts_with("within noise (["), "{:?}", gates[4]);
    assert!(!told(5).0 && told(5).1.starts_with("beyond noise"), "{:?}", gates[5]);
    assert_eq!(gates[4].expected, "at most 0.0 worse than the baseline file (0.7), or worse within noise");
}

#[test]
fn impossible_gates_are_refused() {
    let mut graph = Graph::new(2, true);
    let model = graph.model("cnn", &[0, 1], 0.9, false, VALIDATION);
    let float = Value::Float;
    let metric = |name: &str| ("metric", text(name));
    let least = |x: f64| ("at_least", float(x));
    let mut told =
        |keys: &[(&str, Value)]| graph.problems(&KIND, &[("gates", gate_list(&[keys]))], &[model]).join("; ");
    for (keys, message) in [
        (&[least(0.9)][..], "missing key `metric`"),
        (&[metric("acuracy"), least(0.9)], "unknown metric `acuracy`"),
        (&[metric("recall"), least(0.9)], "`recall` is of a class, and the gate names none"),
        (&[metric("accuracy"), ("class", text("a")), least(0.9)], "`accuracy` is no metric of a class"),
        (&[metric("accuracy")], "a gate expects `at_least`, `at_most` or `baseline`"),
        (&[metric("accuracy"), least(0.5), ("baseline", float(0.5))], "a gate has bounds or a baseline, not both"),
        (
            &[metric("accuracy"), least(0.5), ("max_drop", float(0.1))],
            "`max_drop` and `within_noise` are about a `baseline`",
        ),
        (
            &[metric("accuracy"), least(97.0)],
            "the gate `>= 97` on `accuracy` can never be passed: `accuracy` is from 0 to 1",
        ),
        (&[metric("accuracy"), least(0.8), ("at_most", float(0.7))], "no value is at least 0.8 and at most 0.7"),
        (&[metric("accuracy"), ("split", text("train")), least(0.9)], "there is no split `train`"),
        (
            &[metric("accuracy"), ("split", text("validation")), least(0.9)],
            "no score is of `validation`: there are folds",
        ),
        (&[metric("accuracy"), ("model", text("dnn")), least(0.9)], "no model `dnn` is evaluated here"),
        (&[metric("accuracy"), ("baseline", text("dnn"))], "no model `dnn` is evaluated here"),
        (&[metric("accuracy"), ("baseline", text("git:"))], "`git:` names no Git revision"),
        (
            &[metric("accuracy"), ("group", text("g")), ("baseline", text("a.lock"))],
            "neither a lock file nor a table of metrics says anything of groups",
        ),
        (
            &[metric("recall"), ("class", text("a")), ("baseline", text("git:main"))],
            "a lock file says nothing of classes",
        ),
        (
            &[metric("roc-auc"), ("baseline", text("a.lock"))],
            "`roc-auc` is not among the stage's `metrics`, so no lock file has it",
        ),
        (&[metric("accuracy"), least(0.9), ("at", text("x"))], "unknown key `at`"),
    ] {
        assert_eq!(told(keys), message);
    }
    let mut plain = Graph::new(1, false);
    let model = plain.model("cnn", &[0], 0.9, false, VALIDATION);
    for (split, message) in [
        ("test", "no score is of `test`: there is no test split: `test = 0` holds out nothing"),
        ("out_of_fold", "no score is of `out_of_fold`: there is one split and no folds"),
    ] {
        let gates = gate_list(&[&[metric("accuracy"), ("split", text(split)), least(0.9)]]);
        assert_eq!(plain.problems(&KIND, &[("gates", gates)], &[model]), [message]);
    }
    // Where classes are known before a run.
    let keys = gate_list(&[
        &[metric("recall"), ("class", text("pneumonai")), least(0.9)],
        &[metric("accuracy"), ("group", text("x")), least(0.9)],
    ]);
    let (stage, _) = testing::read(KIND.read, &table(&[("gates", keys)]));
    let classes =
        |names: &[&str]| Glance { classes: names.iter().map(|name| (*name).to_owned()).collect(), ..Glance::default() };
    let error = stage.try_on(None, Some(&classes(&["healthy", "pneumonia"])), 0).unwrap_err();
    assert_eq!(
        (error.message.as_str(), error.key.as_deref()),
        ("there is no class `pneumonai`", Some("gates[0].class"))
    );
    assert_eq!(error.help.as_deref(), Some("did you mean `pneumonia`?"));
    let error = stage.try_on(None, Some(&classes(&["pneumonai"])), 0).unwrap_err();
    assert_eq!(error.message, "there is no group `x`: the images have no groups");
    assert!(stage.try_on(None, None, 0).is_ok());
}

#[test]
fn gates_of_lock_files_are_in_no_record_and_lists_read_back() {
    let float = Value::Float;
    let gates = gate_list(&[
        &[("metric", text("accuracy")), ("baseline", text("git:main")), ("max_drop", float(0.1))],
        &[("metric", text("recall")), ("class", text("a")), ("split", text("test")), ("at_least", float(0.5))],
        &[("metric", text("accuracy")), ("baseline", text("../a.lock"))],
        &[("metric", text("accuracy")), ("baseline", text("old.csv")), ("within_noise", Value::Boolean(true))],
    ]);
    let (stage, log) = testing::read(KIND.read, &table(&[("gates", gates)]));
    assert_eq!(log.problems, []);
    assert_eq!(stage.listed_gates().iter().map(Listed::is_of_lock).collect::<Vec<_>>(), [true, false, true, false]);
    let own = |resolved: &[config::Resolved]| -> Vec<(String, String)> {
        let of_gates = resolved.iter().filter(|key| key.key.starts_with("gates"));
        of_gates.map(|key| (key.key.clone(), key.value.clone())).collect()
    };
    let keys: Vec<String> = own(&log.resolved).into_iter().map(|(key, value)| format!("{key} = {value}")).collect();
    assert_eq!(
        keys,
        [
            "gates[0].at_least = 0.5",
            "gates[0].within_noise = false",
            "gates[0].metric = \"recall\"",
            "gates[0].split = \"test\"",
            "gates[0].class = \"a\"",
            "gates[1].within_noise = true",
            "gates[1].metric = \"accuracy\"",
        ]
    );
    assert_eq!(own(&log.places), [("gates[1].baseline".to_owned(), "\"old.csv\"".to_owned())]);
    let pairs = |resolved: &[config::Resolved]| -> Vec<(String, String)> {
        resolved.iter().map(|key| (key.key.clone(), key.value.clone())).collect()
    };
    let again = config::rebuild(&pairs(&log.resolved), &pairs(&log.places)).unwrap();
    let (again, read) = testing::read(KIND.read, &again);
    assert_eq!((own(&read.resolved), again.listed_gates().len()), (own(&log.resolved), 2), "{:?}", read.problems);
}

#[test]
fn without_a_test_split_a_gate_must_name_a_model_with_a_score() {
    let mut graph = Graph::new(2, false);
    let model = graph.model("cnn", &[0, 1], 0.9, false, VALIDATION);
    let accuracy = || Value::Table(table(&[("accuracy", text(">= 0.4"))]));
    let problems = graph.problems(&KIND, &[("gates", accuracy())], &[model]);
    assert_eq!(problems, ["a gate on `accuracy` means the test split, but `test = 0` holds out nothing"]);
    let named = |name| [("gates", Value::Table(table(&[(name, accuracy())])))];
    assert_eq!(graph.problems(&KIND, &named("cnn"), &[model]), [] as [&str; 0]);
    graph.run("folds", &ENSEMBLE, &[], &[model]).unwrap();
    let problems = graph.problems(&KIND, &named("folds"), &[model + 1]);
    assert_eq!(problems.len(), 1);
    assert!(problems[0].starts_with("`folds` has no score: "), "{problems:?}");
    let files = graph.run("evaluate", &KIND, &named("cnn"), &[model + 1]).unwrap();
    let gates = Evaluation::read(&files).unwrap().gates;
    assert_eq!((gates[0].split.as_str(), gates[0].is_passed), ("out_of_fold", true));
}

/// A model stage whose folds hand on several models: of model m, fold f says `shifts[m][f]`.
fn snapshots(graph: &mut Graph, name: &str, shifts: &[&[u32]], p: f32) -> usize {
    let index = graph.model(name, shifts[0], p, false, VALIDATION);
    graph.nodes[index].flow.models = shifts.len() as u32;
    let test = graph.partition.test_rows().indices();
    for (model, shifts) in (2..).zip(&shifts[1..]) {
        for (fold, &shift) in (1..).zip(*shifts) {
            let mut sink = MemorySink::default();
            said(&graph.partition.fit_set(Fit::Fold(fold)).validation().indices(), shift, p)
                .write(&mut sink, &file_of(VALIDATION, model))
                .unwrap();
            said(&test, shift, p).write(&mut sink, &file_of(TEST, model)).unwrap();
            let need = (index, Part::Fold(fold));
            let files = &mut graph.artifacts.iter_mut().find(|(known, _)| *known == need).unwrap().1;
            files.0.extend(sink.files().0);
        }
    }
    index
}

#[test]
fn snapshots_of_one_stage_are_members_fold_by_fold() {
    let mut graph = Graph::new(2, true);
    let model = snapshots(&mut graph, "cnn", &[&[0, 0], &[0, 1], &[1, 0]], 0.8);
    let files = graph.run("folds", &ENSEMBLE, &[], &[model]).unwrap();
    let ensemble = Ensemble::read(&files).unwrap();
    assert!(ensemble.is_scored_out_of_fold);
    let members: Vec<(&str, u32, usize)> =
        ensemble.members.iter().map(|m| (m.stage.as_str(), m.model, m.parts.len())).collect();
    assert_eq!(members, [("cnn", 1, 2), ("cnn", 2, 2), ("cnn", 3, 2)]);
    // Fold 2: two of three say the truth with 0.8, one with 0.1.
    let fold = Predictions::read(&files, &validation_name(2, false)).unwrap();
    let truth = fold.rows()[0] as usize % 3;
    assert!((fold.row(0)[truth] - 1.7 / 3.0).abs() < 1e-6, "{fold:?}");

    let keys = [("metrics", list(&["accuracy"]))];
    let files = graph.run("evaluate", &KIND, &keys, &[model + 1]).unwrap();
    assert_eq!(values(&files, "folds", "accuracy").first().map(String::as_str), Some("out_of_fold  1.0"));
    assert_eq!(values(&files, "cnn.2", "accuracy")[0], "out_of_fold  0.6666666666666666");
    // Beside another stage they are members like it.
    let other = graph.model("dense", &[0, 1], 0.6, false, VALIDATION);
    let files = graph.run("both", &ENSEMBLE, &[("combine", text("vote"))], &[other, model]).unwrap();
    assert_eq!(Ensemble::read(&files).unwrap().members.len(), 4);
}

#[test]
fn weights_are_fitted_out_of_fold_and_cross_fitted() {
    let mut graph = Graph::new(3, true);
    // `good` is right in all folds, `bad` in two of three, where it is surer.
    let good = graph.model("good", &[0, 0, 0], 0.6, false, VALIDATION);
    let bad = graph.model("bad", &[1, 0, 0], 0.9, false, VALIDATION);
    let files = graph.run("both", &ENSEMBLE, &[("combine", text("weighted"))], &[good, bad]).unwrap();
    let ensemble = Ensemble::read(&files).unwrap();
    assert!(ensemble.is_scored_out_of_fold);
    let weights: Vec<f64> = ensemble.members.iter().map(|member| member.weight.unwrap()).collect();
    assert!((weights[0] + weights[1] - 1.0).abs() < 1e-12 && weights[0] > 0.0 && weights[1] > 0.0, "{weights:?}");
    let table = lines(&files, WEIGHTS);
    assert_eq!(table[..2], ["without_fold,member,weight".to_owned(), format!(",good,{:?}", weights[0])]);
    assert_eq!(table.len(), 1 + 2 * 4);
    // Each fold is combined by weights that did not see it: without fold 1, `bad` is always better.
    assert_eq!(table[3..7], ["1,good,0.0", "1,bad,1.0", "2,good,1.0", "2,bad,0.0"]);
    let fold = |fold| Predictions::read(&files, &validation_name(fold, false)).unwrap();
    assert_eq!(fold(1), said(fold(1).rows(), 1, 0.9));
    assert_eq!(fold(2), said(fold(2).rows(), 0, 0.6));

    // Truths of a fold do not reach what is said of it: other labels there, the same predictions.
    let before = graph.run("stacked", &ENSEMBLE, &[("combine", text("stacking"))], &[good, bad]).unwrap();
    let rows = graph.partition.fit_set(Fit::Fold(3)).validation().indices();
    let labels: Vec<u32> = (0..12).map(|i| if rows.contains(&i) { (i + 1) % 3 } else { i % 3 }).collect();
    let shape = ImageShape { height: 1, width: 1, channels: 1 };
    graph.artifacts[0].1 = testing::dataset(shape, &labels, &(0..12).collect::<Vec<u8>>()).0;
    let after = graph.run("again", &ENSEMBLE, &[("combine", text("stacking"))], &[good, bad]).unwrap();
    let of = |files: &Files, fold| Predictions::read(files, &validation_name(fold, false)).unwrap();
    assert_eq!(of(&before, 3), of(&after, 3));
    assert_ne!(of(&before, 1), of(&after, 1));
    assert_ne!(Stacking::read(&before).unwrap(), Stacking::read(&after).unwrap());
}

#[test]
fn stacking_learns_whom_to_believe_and_is_read_back() {
    let mut graph = Graph::new(3, true);
    // Always wrong in the same way is as good as right.
    let wrong = graph.model("wrong", &[1, 1, 1], 0.7, false, VALIDATION);
    let noise = graph.model("noise", &[2, 0, 1], 0.5, false, VALIDATION);
    let table = Value::Table(table(&[("stacking", Value::Table(table(&[("l2", Value::Float(0.01))])))]));
    let files = graph.run("both", &ENSEMBLE, &[("combine", table)], &[wrong, noise]).unwrap();
    let test = Predictions::read(&files, TEST).unwrap();
    for (i, &row) in test.rows().iter().enumerate() {
        assert_eq!(test.class(i), row as usize % 3, "{test:?}");
    }
    let ensemble = Ensemble::read(&files).unwrap();
    assert!(ensemble.members.iter().all(|member| member.weight.is_none()));
    let combine = Combine::read(&files).unwrap();
    let Combine::Stacking(stacking) = &combine else { panic!("{combine:?}") };
    assert_eq!((stacking.n_members, stacking.n_classes, stacking.coefficients.len()), (2, 3, 18));
    // Every number is in the table, too: with all folds, then without each of three.
    let table = lines(&files, WEIGHTS);
    assert_eq!(table[0], "without_fold,member,said,scored,weight");
    assert_eq!(table.len(), 1 + 4 * (18 + 3));
    assert_eq!(table[6], format!(",wrong,1,2,{:?}", stacking.coefficients[5]));
    assert_eq!(table[10], format!(",noise,0,0,{:?}", stacking.coefficients[9]));
    assert_eq!(table[20], format!(",,,1,{:?}", stacking.intercepts[1]));
    assert!(table[22].starts_with("1,wrong,0,0,") && table[84].starts_with("3,,,2,"), "{table:?}");
    // What was read back says the same of the same.
    let members = [said(test.rows(), 1, 0.7), {
        let of = |shift| said(test.rows(), shift, 0.5);
        Combine::MeanProbability.apply(&[of(2), of(0), of(1)]).unwrap()
    }];
    assert_eq!(combine.apply(&members).unwrap(), test);
    let error = combine.apply(&members[..1]).unwrap_err();
    assert_eq!(error.message, "an ensemble fitted for 2 members and 3 classes cannot combine 1 and 3");
    let survived: Combine = serde_json::from_str(&serde_json::to_string(&combine).unwrap()).unwrap();
    assert_eq!(survived, combine);
}

#[test]
fn fitted_rules_need_several_members_and_folds() {
    let mut graph = Graph::new(3, true);
    let model = graph.model("cnn", &[0, 0, 0], 0.6, false, VALIDATION);
    let problems = graph.problems(&ENSEMBLE, &[("combine", text("weighted"))], &[model]);
    let expected = "`weighted` is fitted on out-of-fold predictions of several members, not on the folds of one model, \
                    which have none in common";
    assert_eq!(problems, [expected]);
    let mut graph = Graph::new(1, true);
    let a = graph.model("a", &[0], 0.6, false, VALIDATION);
    let b = graph.model("b", &[1], 0.6, false, VALIDATION);
    let problems = graph.problems(&ENSEMBLE, &[("combine", text("stacking"))], &[a, b]);
    let expected = "with `folds = 1`, `stacking` is fitted on the validation images, about which it is then \
                    `validation_selected`";
    assert_eq!(problems, [expected]);
    let files = graph.run("both", &ENSEMBLE, &[("combine", text("weighted"))], &[a, b]).unwrap();
    assert!(files.0.contains_key("validation_selected_fold_1.safetensors"), "{files:?}");
    assert!(!files.0.contains_key("validation_fold_1.safetensors"));
}

#[test]
fn lone_and_paired_voters_are_warned_about() {
    let mut graph = Graph::new(2, true);
    let model = graph.model("cnn", &[0, 1], 0.9, false, VALIDATION);
    assert_eq!(graph.problems(&ENSEMBLE, &[], &[model]), [] as [&str; 0]);
    let problems = graph.problems(&ENSEMBLE, &[("combine", text("vote"))], &[model]);
    assert_eq!(problems, ["with two voters every disagreement is a tie, and the mean probability decides"]);
    let mut graph = Graph::new(1, true);
    let model = graph.model("cnn", &[0], 0.9, false, VALIDATION);
    assert_eq!(graph.problems(&ENSEMBLE, &[], &[model]), ["an ensemble of one model says what its member says"]);
}

#[test]
fn members_that_disagree_about_the_samples_are_an_error() {
    let mut graph = Graph::new(2, true);
    let model = graph.model("cnn", &[0, 1], 0.9, false, VALIDATION);
    let mut sink = MemorySink::default();
    said(&[0, 1], 0, 0.9).write(&mut sink, TEST).unwrap();
    said(&graph.partition.fit_set(Fit::Fold(2)).validation().indices(), 0, 0.9).write(&mut sink, VALIDATION).unwrap();
    let need = (model, Part::Fold(2));
    graph.artifacts.iter_mut().find(|(known, _)| *known == need).unwrap().1 = sink.files();
    let error = graph.run("folds", &ENSEMBLE, &[], &[model]).unwrap_err();
    assert_eq!(error.message, "members of an ensemble predict different things: 3 samples of 3 classes, and 2 of 3");
    // A damaged file is an error, too.
    let mut files = graph.artifacts[2].1.clone();
    files.0.insert(TEST.to_owned(), Bytes::new(vec![1, 2, 3]));
    graph.artifacts.iter_mut().find(|(known, _)| *known == need).unwrap().1 = files;
    assert!(graph.run("again", &KIND, &[], &[model]).unwrap_err().message.starts_with("`test.safetensors` is not"));
}

#[test]
fn gains_over_members_are_told() {
    let mut graph = Graph::new(3, true);
    let good = graph.model("good", &[0, 0, 0], 0.6, false, VALIDATION);
    let bad = graph.model("bad", &[1, 0, 1], 0.5, false, VALIDATION_SELECTED);
    graph.run("both", &ENSEMBLE, &[], &[good, bad]).unwrap();
    let keys = [("metrics", list(&["macro-f1"]))];
    let files = graph.run("evaluate", &KIND, &keys, &[bad + 1]).unwrap();
    let gains = lines(&files, GAINS);
    assert_eq!(
        gains[0],
        "model,split,metric,value,n_members,best_member,best_value,mean_value,gain_over_best,gain_over_mean"
    );
    // Accuracy, macro F1 and log loss on both splits; one selected member makes the rows selected.
    assert_eq!(gains.len(), 1 + 2 * 3);
    let of = |split: &str, metric: &str| {
        let found = Evaluation::read(&files).unwrap().gains;
        found.into_iter().find(|gain| gain.split == split && gain.metric == metric).unwrap()
    };
    let accuracy = of("validation_selected", "accuracy");
    assert_eq!((accuracy.value, accuracy.best_member.as_str(), accuracy.best_value), (1.0, "good", 1.0));
    assert!((accuracy.mean_value - 2.0 / 3.0).abs() < 1e-12 && accuracy.gain_over_best == 0.0, "{accuracy:?}");
    assert!((accuracy.gain_over_mean - 1.0 / 3.0).abs() < 1e-12);
    // A loss gains by being lower; the mean of a sure and an unsure voice is less sure.
    let loss = of("test", "log-loss");
    assert!(loss.gain_over_best < 0.0 && loss.best_value < loss.value && loss.value < loss.mean_value, "{loss:?}");
    assert!((loss.gain_over_mean - (loss.mean_value - loss.value)).abs() < 1e-15);

    // Folds are members of an ensemble of one model: on the test split only.
    let mut graph = Graph::new(3, true);
    let model = graph.model("cnn", &[0, 1, 0], 0.9, false, VALIDATION);
    graph.run("folds", &ENSEMBLE, &[], &[model]).unwrap();
    let files = graph.run("evaluate", &KIND, &[("metrics", list(&["accuracy"]))], &[model + 1]).unwrap();
    let gains = Evaluation::read(&files).unwrap().gains;
    assert_eq!(gains.len(), 2);
    assert_eq!((gains[0].n_members, gains[0].best_member.as_str()), (3, "cnn fold 1"));
    assert!((gains[0].gain_over_mean - 1.0 / 3.0).abs() < 1e-12, "{gains:?}");
}

#[test]
fn models_are_compared_pair_by_pair() {
    let mut graph = Graph::new(3, true);
    let a = graph.model("a", &[0, 0, 0], 0.6, false, VALIDATION);
    let b = graph.model("b", &[1, 0, 1], 0.9, false, VALIDATION);
    graph.run("both", &ENSEMBLE, &[], &[a, b]).unwrap();
    let files = graph.run("evaluate", &KIND, &[], &[b + 1]).unwrap();
    let table = lines(&files, COMPARISONS);
    assert_eq!(table.len(), 1 + 2 * 3);
    // Out of fold, `b` is wrong about folds 1 and 3: six of nine. 2 / 2^6 = 0.03125, times three comparisons.
    assert_eq!(table[1], "out_of_fold,a,b,9,3,6,0,0,exact-binomial,0.0,0.03125,0.09375");
    assert!(table[4].starts_with("test,a,b,3,"), "{table:?}");
    let evaluation = Evaluation::read(&files).unwrap();
    assert_eq!(evaluation.comparisons[0].test.only_a_correct, 6);
}

#[test]
fn bootstrap_intervals_stand_beside_every_metric_and_draw_by_seed() {
    let mut graph = Graph::new(3, true);
    let model = graph.model("cnn", &[0, 0, 1], 0.6, false, VALIDATION);
    let keys =
        [("metrics", list(&["accuracy", "macro-f1", "log-loss", "roc-auc"])), ("bootstrap", Value::Integer(200))];
    let files = graph.run("evaluate", &KIND, &keys, &[model]).unwrap();
    let rows: Vec<Vec<String>> =
        lines(&files, METRICS_TABLE).iter().map(|line| line.split(',').map(str::to_owned).collect()).collect();
    let mut n_intervals = 0;
    for row in &rows[1..] {
        let is_about_folds = row[4].ends_with("-mean") || row[4].ends_with("-std");
        let number = |i: usize| row[i].parse::<f64>().ok();
        if let (Some(value), Some(low), Some(high)) = (number(5), number(6), number(7)) {
            assert!(low <= value + 1e-12 && value <= high + 1e-12 && !is_about_folds, "{row:?}");
            n_intervals += 1;
        } else {
            // Nothing but means over folds, supports, and areas of folds with a single class.
            assert!(is_about_folds || row[4] == "support" || number(5).is_none(), "{row:?}");
        }
    }
    assert!(n_intervals > 20, "{n_intervals}");
    let without = graph.run("plain", &KIND, &keys[..1], &[model]).unwrap();
    let values = |files: &Files| -> Vec<String> {
        lines(files, METRICS_TABLE).iter().map(|line| line.split(',').take(6).collect::<Vec<_>>().join(",")).collect()
    };
    assert_eq!(values(&files), values(&without), "intervals change no value");
    let again = graph.run("again", &KIND, &keys, &[model]).unwrap();
    assert_eq!(lines(&files, METRICS_TABLE), lines(&again, METRICS_TABLE));
    let score = &Evaluation::read(&files).unwrap().scores[0];
    assert!(score.intervals.contains_key("log-loss"), "{score:?}");
    let problems = graph.problems(&KIND, &[("bootstrap", Value::Integer(10))], &[model]);
    assert_eq!(problems, ["`bootstrap` expects a whole number from 100 to 1000000, got `10`"]);
}

#[test]
fn a_gate_may_compare_with_a_baseline() {
    let mut graph = Graph::new(2, true);
    let strong = graph.model("strong", &[0, 0], 0.9, false, VALIDATION);
    let weak = graph.model("weak", &[0, 1], 0.5, false, VALIDATION);
    graph.run("both", &ENSEMBLE, &[], &[strong, weak]).unwrap();
    let drop = |baseline: Value, max_drop: f64| {
        Value::Table(table(&[("baseline", baseline), ("max_drop", Value::Float(max_drop))]))
    };
    let gates =
        |accuracy: Value, loss: Value| [("gates", Value::Table(table(&[("accuracy", accuracy), ("log-loss", loss)])))];
    let keys = gates(drop(text("strong"), 0.0), drop(text("strong"), 0.1));
    let files = graph.run("evaluate", &KIND, &keys, &[weak + 1]).unwrap();
    let results = Evaluation::read(&files).unwrap().gates;
    assert_eq!((results[0].expected.as_str(), results[0].is_passed), ("at most 0.0 worse than strong (1.0)", true));
    assert!(!results[1].is_passed && results[1].expected.starts_with("at most 0.1 worse than strong (0.10536"));
    let keys = gates(drop(Value::Float(1.0), 0.02), drop(Value::Integer(0), 0.1));
    let files = graph.run("numbers", &KIND, &keys, &[weak + 1]).unwrap();
    let results = Evaluation::read(&files).unwrap().gates;
    assert_eq!((results[0].expected.as_str(), results[0].is_passed), ("at most 0.02 worse than 1.0", true));
    assert!(!results[1].is_passed);

    // The table of another run, relative to the manifest.
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("good.csv"), files.get(METRICS_TABLE).unwrap().to_vec()).unwrap();
    let places = Places { manifest_dir: folder.path().to_owned(), ..Places::default() };
    let keys = Value::Table(table(&[("accuracy", drop(text("good.csv"), 0.0))]));
    let (stage, log) = testing::read(KIND.read, &table(&[("gates", keys)]));
    assert_eq!(log.problems, []);
    assert!(matches!(&stage.sources(&places).unwrap()[..], [Source::File { .. }]));
    let run = |places: &Places| {
        let upstream = Upstream { own: weak + 2, nodes: &graph.nodes };
        let inputs = graph.deliver(stage.needs(Part::Whole, &upstream));
        testing::run(stage.as_ref(), Part::Whole, inputs, places, &TestContext::default())
    };
    let results = Evaluation::read(&run(&places).unwrap()).unwrap().gates;
    assert_eq!(
        (results[0].expected.as_str(), results[0].is_passed),
        ("at most 0.0 worse than the baseline file (1.0)", true)
    );
    std::fs::write(folder.path().join("good.csv"), "model,split,fold,class,metric,value\nother,test,,,accuracy,0.9\n")
        .unwrap();
    let error = run(&places).unwrap_err();
    assert_eq!(error.message, "the baseline `good.csv` has no row for `accuracy` of `both` on test");
    std::fs::write(folder.path().join("good.csv"), "nothing\n").unwrap();
    assert_eq!(run(&places).unwrap_err().message, "the baseline `good.csv` has no column `model`");
    let error = stage.sources(&Places::default()).unwrap_err();
    assert_eq!(error.message, "there is no file `good.csv` to compare `accuracy` with");
}

#[test]
fn a_test_score_far_below_the_held_out_one_is_told() {
    let score = |model: &str, split: &str, accuracy: f64, interval: (f64, f64)| Score {
        model: model.to_owned(),
        split: split.to_owned(),
        n: 100,
        n_correct: (100.0 * accuracy) as u64,
        accuracy_interval: Some(interval),
        intervals: BTreeMap::new(),
        metrics: BTreeMap::from([("accuracy".to_owned(), Some(accuracy))]),
        over_folds: BTreeMap::new(),
    };
    let far = [score("cnn", "test", 0.6, (0.5, 0.7)), score("cnn", "out_of_fold", 0.9, (0.85, 0.95))];
    let told = gap(&far).unwrap();
    let expected = "`cnn` recognises far fewer test images than it did out of fold: accuracy 0.6000 [0.5000, 0.7000] against \
                    0.9000 [0.8500, 0.9500]";
    assert!(told.starts_with(expected) && !told.contains('\n'), "{told}");
    let near = [score("cnn", "test", 0.8, (0.7, 0.86)), score("cnn", "out_of_fold", 0.9, (0.85, 0.95))];
    assert_eq!(gap(&near), None);
    // Another model's score, a better one on the test split, and rows that chose the model tell nothing.
    let others = [
        score("mlp", "test", 0.1, (0.05, 0.2)),
        score("cnn", "out_of_fold", 0.9, (0.85, 0.95)),
        score("cnn", "test", 0.99, (0.97, 1.0)),
        score("mlp", "validation_selected", 0.9, (0.85, 0.95)),
    ];
    assert_eq!(gap(&others), None);
    let single = [far[0].clone(), score("cnn", "validation", 0.9, (0.85, 0.95))];
    assert!(gap(&single).unwrap().contains("than it did on validation images"));
}
