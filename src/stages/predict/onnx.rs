//! A portable model as an ONNX graph: from the bytes of decoded images to probabilities and a label.
//!
//! `images` (uint8, or uint16 for images of 16 bits; `[batch, height, width, channels]`) goes through each member's transforms and
//! projections, its layers as they are when predicting, and a softmax; the members' probabilities through the ensemble's
//! rules. All arithmetic is in single precision. `probabilities` is `[batch, classes]`, float32, and `label`, int64, is
//! the first of the most probable classes.
//!
//! Nodes and numbers are called after what they are of in the portable file: `members.0.network.1.conv`,
//! `members.0.network.1.conv.weights`. Images lie as ONNX wants them (NCHW) from the first layer on that needs it, and as
//! everywhere else here (NHWC) before and wherever they become rows.

use super::{Answering, Described, Step, describe};
use crate::artifact::onnx::{About, Attribute, Graph, Port, Type};
use crate::artifact::portable::{Member, Portable};
use crate::data::augment::Views;
use crate::data::decode::{Alpha, Channels, Exif};
use crate::data::pixels::Depth;
use crate::data::transform::{Fitted, fuse};
use crate::nn::layer::{Activation, Inference, Windows};
use crate::nn::network::NamedTensor;
use crate::stages::StageError;
use crate::stages::ensemble::Combine;
use crate::tensor::{ImageShape, SampleShape};

/// Bytes of numbers in one file at most: no reader takes protocol buffers of 2 GiB.
const MOST: usize = 2_000_000_000;

/// What goes in.
const IMAGES: &str = "images";
/// What comes out.
const PROBABILITIES: &str = "probabilities";
/// The most probable class.
const LABEL: &str = "label";

/// The model's file, the same bytes for the same model. `licence` is that of its data, where it is known.
///
/// # Errors
/// If its parts are damaged, do not fit one another, or do not fit into one file.
pub fn to_bytes(model: &Portable, licence: Option<&str>) -> Result<Vec<u8>, StageError> {
    within(model, licence, MOST)
}

fn within(model: &Portable, licence: Option<&str>, most: usize) -> Result<Vec<u8>, StageError> {
    // All of them: a part of a model that no node repeats must not be forgotten.
    let Portable { classes, shape: image, depth, decode: _, members, answer, abstain: _ } = model;
    let (image, n_classes) = (*image, classes.len());
    let answer = Answering::new(answer, members.len())?;
    let mut builder = Builder { graph: Graph::new() };
    let pixels = builder.node("Cast", "pixels", &[IMAGES], &[("to", Attribute::Int(Type::Float as i64))]);
    let mut said = Vec::with_capacity(members.len());
    for (i, member) in members.iter().enumerate() {
        let at = |error: StageError| StageError::new(format!("member {}: {error}", i + 1));
        let Member { chain: _, network: _, views } = member;
        let described = describe(member, model).map_err(at)?;
        let start = Value { name: pixels.clone(), shape: SampleShape::Image(image), is_nchw: false };
        said.push(builder.member(&format!("members.{i}"), start, &described, views).map_err(at)?);
        if builder.graph.len() > most {
            let message = format!("its {} networks are more than the 2 GB that an ONNX file may have", said.len());
            let help = "export a member alone with `--stage`, or all of them with `convoy export safetensors`";
            return Err(StageError::new(message).help(help));
        }
    }
    let said = builder.answer("answer", &answer, &said, n_classes);
    let probabilities = builder.node("Identity", PROBABILITIES, &[&said], &[]);
    let axis = [("axis", Attribute::Int(1)), ("keepdims", Attribute::Int(0))];
    builder.node("ArgMax", LABEL, &[&probabilities], &axis);
    let kind = match depth {
        Depth::U8 => Type::Uint8,
        Depth::U16 => Type::Uint16,
    };
    let input = Port { name: IMAGES, kind, axes: vec![image.height, image.width, image.channels] };
    let outputs = [
        Port { name: PROBABILITIES, kind: Type::Float, axes: vec![n_classes] },
        Port { name: LABEL, kind: Type::Int64, axes: Vec::new() },
    ];
    Ok(builder.graph.finish(&input, &outputs, &about(model, licence)?))
}

/// What who runs the file must know: how images are decoded, and what the classes are called.
fn about(model: &Portable, licence: Option<&str>) -> Result<About, StageError> {
    let policy = &model.decode;
    let json = |value: Result<String, serde_json::Error>| {
        value.map_err(|cause| StageError::new(format!("its description cannot be written ({cause})")))
    };
    let channels = match (policy.channels, model.shape.channels) {
        (Channels::Gray, _) => "gray",
        (Channels::Rgb, _) => "rgb",
        (Channels::Keep, _) => "keep",
    };
    let alpha = match policy.alpha {
        Alpha::Drop => "drop",
        Alpha::Black => "black",
        Alpha::White => "white",
    };
    let exif = match policy.exif {
        Exif::Apply => "apply",
        Exif::Ignore => "ignore",
    };
    let resize = json(serde_json::to_string(&policy.resize))?;
    let mut metadata = vec![
        ("classes", json(serde_json::to_string(&model.classes))?),
        ("channels", channels.to_owned()),
        ("alpha", alpha.to_owned()),
        ("exif", exif.to_owned()),
        ("depth", model.depth.bits().to_string()),
        ("resize", resize),
        ("digest", model.content()?.digest),
    ];
    if let Some(abstain) = model.abstain {
        // Not a node: who does not want to abstain reads on.
        metadata.push(("abstain", json(serde_json::to_string(&abstain))?));
    }
    metadata.extend(licence.map(|licence| ("data_licence", licence.to_owned())));
    let text = format!(
        "{IMAGES}: decoded images, values as stored, [batch, height, width, channels]. {PROBABILITIES}: by class, in the \
         order of `classes`. {LABEL}: the first of the most probable classes. The metadata says how images are decoded."
    );
    let metadata = metadata.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    Ok(About { text, version: env!("CARGO_PKG_VERSION"), metadata })
}

/// Samples on their way through the graph.
#[derive(Clone, Debug)]
struct Value {
    name: String,
    shape: SampleShape,
    /// Whether an image has its channels outermost.
    is_nchw: bool,
}

struct Builder {
    graph: Graph,
}

/// The weights of a layer.
struct Weights<'a> {
    all: &'a [NamedTensor],
    /// `2.conv`.
    layer: String,
}

impl Weights<'_> {
    /// The tensor, which must be there.
    fn get(&self, tensor: &str) -> Result<&NamedTensor, StageError> {
        let name = format!("{}.{tensor}", self.layer);
        let found = self.all.iter().find(|tensor| tensor.name == name);
        found.ok_or_else(|| StageError::new(format!("it has no tensor `{name}`")))
    }
}

impl Builder {
    fn node(&mut self, operator: &str, name: &str, inputs: &[&str], attributes: &[(&str, Attribute)]) -> String {
        self.graph.node(operator, name, inputs, attributes)
    }

    /// From decoded images to the probabilities of one network.
    fn member(
        &mut self,
        name: &str,
        mut value: Value,
        described: &Described,
        views: &Views,
    ) -> Result<String, StageError> {
        let Described { steps, plan, weights } = described;
        let mut fitted: Vec<Fitted> = Vec::new();
        for (k, step) in steps.iter().enumerate() {
            match step {
                Step::Transforms(own) => fitted.extend(own.iter().cloned()),
                Step::Projection(projection) => {
                    let name = format!("{name}.chain.{k}");
                    fitted.extend(projection.centring());
                    value = self.transforms(&name, value, &std::mem::take(&mut fitted));
                    value = self.rows(&name, value);
                    let axes = [projection.input.len(), projection.output.len()];
                    let by = self.graph.floats(&format!("{name}.weights"), &axes, &projection.weights);
                    value.name = self.node("MatMul", &format!("{name}.projection"), &[&value.name, &by], &[]);
                    value.shape = SampleShape::Flat(projection.output.len());
                    if let SampleShape::Image(shape) = projection.output {
                        let axes = [0, shape.height as i64, shape.width as i64, shape.channels as i64];
                        value.name = self.reshape(&format!("{name}.image"), &value.name, &axes);
                        value.shape = projection.output;
                    }
                }
            }
        }
        value = self.views(&format!("{name}.views"), value, views);
        value = self.transforms(&format!("{name}.chain.{}", steps.len()), value, &fitted);
        for (i, layer) in plan.layers.iter().enumerate() {
            let own = format!("{i}.{}", layer.config.word());
            let inference = layer.config.inference(layer.input).map_err(|error| StageError::new(error.message))?;
            let named = format!("{name}.network.{own}");
            value = self.layer(&named, value, inference, &Weights { all: weights, layer: own }, layer.output)?;
        }
        let said = self.softmax(&format!("{name}.network"), &value.name);
        if views.is_empty() {
            return Ok(said);
        }
        let axes = [views.n() as i64, -1, plan.n_classes as i64];
        let apart = self.reshape(&format!("{name}.views.said"), &said, &axes);
        let axes = [("axes", Attribute::Ints(vec![0])), ("keepdims", Attribute::Int(0))];
        Ok(self.node("ReduceMean", &format!("{name}.views.mean"), &[&apart], &axes))
    }

    /// All views of images, one batch after the other.
    fn views(&mut self, name: &str, value: Value, views: &Views) -> Value {
        let (SampleShape::Image(image), false) = (value.shape, views.is_empty()) else { return value };
        let value = self.nhwc(name, value);
        let n_pixels = image.height * image.width;
        let pixels = [0, n_pixels as i64, image.channels as i64];
        let pixels = self.reshape(&format!("{name}.pixels"), &value.name, &pixels);
        let mut all = vec![pixels.clone()];
        for view in 1..views.n() {
            let name = format!("{name}.{view}");
            let sources = views.sources(view, image);
            let from: Vec<i64> = sources.iter().map(|source| source.unwrap_or(0) as i64).collect();
            let from = self.graph.wholes(&format!("{name}.from"), &[n_pixels], &from);
            let mut moved =
                self.node("Gather", &format!("{name}.moved"), &[&pixels, &from], &[("axis", Attribute::Int(1))]);
            if sources.contains(&None) {
                let seen: Vec<f32> = sources.iter().map(|source| f32::from(u8::from(source.is_some()))).collect();
                let seen = self.graph.floats(&format!("{name}.seen"), &[n_pixels, 1], &seen);
                moved = self.node("Mul", &format!("{name}.black"), &[&moved, &seen], &[]);
            }
            all.push(moved);
        }
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        let joined = self.node("Concat", &format!("{name}.joined"), &all, &[("axis", Attribute::Int(0))]);
        let axes = [0, image.height as i64, image.width as i64, image.channels as i64];
        Value { name: self.reshape(name, &joined, &axes), ..value }
    }

    fn softmax(&mut self, name: &str, scores: &str) -> String {
        self.node("Softmax", &format!("{name}.softmax"), &[scores], &[("axis", Attribute::Int(1))])
    }

    fn reshape(&mut self, name: &str, value: &str, axes: &[i64]) -> String {
        let axes = self.graph.wholes(&format!("{name}.axes"), &[axes.len()], axes);
        self.node("Reshape", name, &[value, &axes], &[])
    }

    fn transpose(&mut self, name: &str, value: &str, axes: &[i64]) -> String {
        self.node("Transpose", name, &[value], &[("perm", Attribute::Ints(axes.to_vec()))])
    }

    fn nchw(&mut self, name: &str, mut value: Value) -> Value {
        if !value.is_nchw {
            value.name = self.transpose(&format!("{name}.nchw"), &value.name, &[0, 3, 1, 2]);
            value.is_nchw = true;
        }
        value
    }

    fn nhwc(&mut self, name: &str, mut value: Value) -> Value {
        if value.is_nchw {
            value.name = self.transpose(&format!("{name}.nhwc"), &value.name, &[0, 2, 3, 1]);
            value.is_nchw = false;
        }
        value
    }

    /// Each sample as a row, channels innermost.
    fn rows(&mut self, name: &str, value: Value) -> Value {
        if value.shape.image().is_none() {
            return value;
        }
        let shape = SampleShape::Flat(value.shape.len());
        let value = self.nhwc(name, value);
        let axis = [("axis", Attribute::Int(1))];
        Value { name: self.node("Flatten", &format!("{name}.rows"), &[&value.name], &axis), shape, is_nchw: false }
    }

    /// What is applied to samples while they are loaded; images are NHWC.
    fn transforms(&mut self, name: &str, mut value: Value, fitted: &[Fitted]) -> Value {
        for (i, step) in fuse(value.shape, fitted).iter().enumerate() {
            let name = format!("{name}.transform.{i}");
            match step {
                Fitted::Affine(affine) => {
                    let axes = match value.shape {
                        SampleShape::Image(image) if affine.subtract.len() == image.len() => {
                            vec![image.height, image.width, image.channels]
                        }
                        _ => vec![affine.subtract.len()],
                    };
                    let passes = [
                        ("Sub", "subtract", &affine.subtract),
                        ("Mul", "multiply", &affine.multiply),
                        ("Add", "add", &affine.add),
                    ];
                    for (operator, word, numbers) in passes {
                        let nothing = f64::from(operator == "Mul");
                        if numbers.iter().any(|x| *x != nothing) {
                            // Rounded as the loaded samples' own are.
                            let numbers: Vec<f32> = numbers.iter().map(|x| *x as f32).collect();
                            let by = self.graph.floats(&format!("{name}.{word}.by"), &axes, &numbers);
                            value.name = self.node(operator, &format!("{name}.{word}"), &[&value.name, &by], &[]);
                        }
                    }
                }
                Fitted::StandardizeImage => {
                    let axes = if value.shape.image().is_some() { vec![1, 2, 3] } else { vec![1] };
                    let axes = [("axes", Attribute::Ints(axes)), ("keepdims", Attribute::Int(1))];
                    let of = |what: &str| format!("{name}.{what}");
                    let mean = self.node("ReduceMean", &of("mean"), &[&value.name], &axes);
                    let centred = self.node("Sub", &of("centred"), &[&value.name, &mean], &[]);
                    let squared = self.node("Mul", &of("squared"), &[&centred, &centred], &[]);
                    let variance = self.node("ReduceMean", &of("variance"), &[&squared], &axes);
                    let deviation = self.node("Sqrt", &of("deviation"), &[&variance], &[]);
                    // An image of one colour has none.
                    let least = 1.0 / (value.shape.len() as f64).sqrt();
                    let least = self.graph.floats(&of("least"), &[1], &[least as f32]);
                    let divisor = self.node("Max", &of("divisor"), &[&deviation, &least], &[]);
                    value.name = self.node("Div", &of("standardised"), &[&centred, &divisor], &[]);
                }
            }
        }
        value
    }

    fn layer(
        &mut self,
        name: &str,
        value: Value,
        inference: Inference,
        weights: &Weights<'_>,
        output: SampleShape,
    ) -> Result<Value, StageError> {
        let image = value.shape.image();
        Ok(match inference {
            Inference::Identity => value,
            Inference::Flatten => self.rows(name, value),
            Inference::Activate(activation) => {
                let (operator, alpha) = match activation {
                    Activation::Relu => ("Relu", None),
                    Activation::Leaky { slope } => ("LeakyRelu", Some(slope)),
                    Activation::Elu { alpha } => ("Elu", Some(alpha)),
                };
                let alpha: Vec<_> = alpha.map(|alpha| ("alpha", Attribute::Float(alpha))).into_iter().collect();
                Value { name: self.node(operator, name, &[&value.name], &alpha), ..value }
            }
            Inference::Conv { windows, groups } => {
                let value = self.nchw(name, value);
                let mut inputs = vec![value.name, self.kernel(name, weights.get("weights")?)?];
                if let Ok(bias) = weights.get("bias") {
                    inputs.push(self.graph.floats(&format!("{name}.bias"), &bias.shape, &bias.values));
                }
                let mut attributes = places(windows);
                attributes.push(("dilations", pair(windows.dilation)));
                attributes.push(("group", Attribute::Int(groups as i64)));
                let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
                Value { name: self.node("Conv", name, &inputs, &attributes), shape: output, is_nchw: true }
            }
            Inference::Local(windows) => {
                let Some(image) = image else { return Err(misfit(name)) };
                let value = self.nhwc(name, value);
                let name = self.local(name, &value.name, (image, windows), weights)?;
                Value { name, shape: output, is_nchw: false }
            }
            Inference::MaxPool(windows) => {
                let value = self.nchw(name, value);
                Value { name: self.node("MaxPool", name, &[&value.name], &places(windows)), shape: output, ..value }
            }
            Inference::AveragePool(windows) => {
                let value = self.nchw(name, value);
                let mut attributes = places(windows);
                attributes.push(("count_include_pad", Attribute::Int(0)));
                Value { name: self.node("AveragePool", name, &[&value.name], &attributes), shape: output, ..value }
            }
            Inference::GlobalAverage => {
                let value = self.nchw(name, value);
                let mean = self.node("GlobalAveragePool", name, &[&value.name], &[]);
                let rows = self.node("Flatten", &format!("{name}.rows"), &[&mean], &[("axis", Attribute::Int(1))]);
                Value { name: rows, shape: output, is_nchw: false }
            }
            Inference::Norm { epsilon } => {
                let value = if image.is_some() { self.nchw(name, value) } else { value };
                let mut inputs = vec![value.name];
                for word in ["scale", "shift", "running_mean", "running_variance"] {
                    let NamedTensor { shape, values, .. } = weights.get(word)?;
                    inputs.push(self.graph.floats(&format!("{name}.{word}"), shape, values));
                }
                let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
                let epsilon = [("epsilon", Attribute::Float(epsilon))];
                Value { name: self.node("BatchNormalization", name, &inputs, &epsilon), ..value }
            }
            Inference::Dense => {
                let value = self.rows(name, value);
                let NamedTensor { shape, values, .. } = weights.get("weights")?;
                let mut inputs = vec![value.name, self.graph.floats(&format!("{name}.weights"), shape, values)];
                if let Ok(bias) = weights.get("bias") {
                    inputs.push(self.graph.floats(&format!("{name}.bias"), &bias.shape, &bias.values));
                }
                let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
                Value { name: self.node("Gemm", name, &inputs, &[]), shape: output, is_nchw: false }
            }
        })
    }

    /// `[kernel_h, kernel_w, channels_in, filters]` as `[filters, channels_in, kernel_h, kernel_w]`.
    fn kernel(&mut self, name: &str, weights: &NamedTensor) -> Result<String, StageError> {
        let [h, w, channels, filters] = weights.shape[..] else { return Err(misfit(name)) };
        let mut values = Vec::with_capacity(weights.values.len());
        for (filter, channel) in (0..filters).flat_map(|filter| (0..channels).map(move |channel| (filter, channel))) {
            values.extend((0..h * w).map(|tap| weights.values[(tap * channels + channel) * filters + filter]));
        }
        Ok(self.graph.floats(&format!("{name}.weights"), &[filters, channels, h, w], &values))
    }

    /// ONNX knows no convolution without shared weights: the values of each window are gathered, and each position has a
    /// product of its own.
    fn local(
        &mut self,
        name: &str,
        value: &str,
        (image, windows): (ImageShape, Windows),
        weights: &Weights<'_>,
    ) -> Result<String, StageError> {
        let own = weights.get("weights")?;
        let [rows, columns, kernel_h, kernel_w, channels, filters] = own.shape[..] else { return Err(misfit(name)) };
        let of = |what: &str| format!("{name}.{what}");
        let mut padded = value.to_owned();
        let ((top, left), (bottom, right)) = (windows.before, windows.after);
        if top + left + bottom + right > 0 {
            let pads = [0, top, left, 0, 0, bottom, right, 0].map(|n| n as i64);
            let pads = self.graph.wholes(&of("padding"), &[8], &pads);
            padded = self.node("Pad", &of("padded"), &[&padded, &pads], &[]);
        }
        let (height, width) = (image.height + top + bottom, image.width + left + right);
        let pixels = self.reshape(&of("pixels"), &padded, &[0, (height * width) as i64, channels as i64]);
        let mut taps = Vec::with_capacity(rows * columns * kernel_h * kernel_w);
        for (row, column) in (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column))) {
            for (down, along) in (0..kernel_h).flat_map(|down| (0..kernel_w).map(move |along| (down, along))) {
                let (y, x) = (row * windows.stride.0 + down, column * windows.stride.1 + along);
                taps.push((y * width + x) as i64);
            }
        }
        let taps = self.graph.wholes(&of("taps"), &[taps.len()], &taps);
        let gathered = self.node("Gather", &of("gathered"), &[&pixels, &taps], &[("axis", Attribute::Int(1))]);
        let values = kernel_h * kernel_w * channels;
        let axes = [0, rows as i64, columns as i64, values as i64];
        let gathered = self.reshape(&of("windows"), &gathered, &axes);
        // Positions outermost: a product each.
        let gathered = self.transpose(&of("positions"), &gathered, &[1, 2, 0, 3]);
        let by = self.graph.floats(&of("weights"), &[rows, columns, values, filters], &own.values);
        let product = self.node("MatMul", &of("products"), &[&gathered, &by], &[]);
        let mut out = self.transpose(name, &product, &[2, 0, 1, 3]);
        if let Ok(bias) = weights.get("bias") {
            let by = self.graph.floats(&of("bias"), &bias.shape, &bias.values);
            out = self.node("Add", &of("biased"), &[&out, &by], &[]);
        }
        Ok(out)
    }

    /// The ensemble's answer, of what the members said.
    fn answer(&mut self, name: &str, answer: &Answering, said: &[String], n_classes: usize) -> String {
        let (rule, of) = match answer {
            Answering::Member(i) => return said[*i].clone(),
            Answering::Combined(rule, of) => (rule, of),
            Answering::Tempered(temperature, of) => {
                let said = self.answer(&format!("{name}.of"), of, said, n_classes);
                // As where it was fitted: 0 has a logarithm.
                let least = self.graph.floats(&format!("{name}.least"), &[1], &[f32::MIN_POSITIVE]);
                let said = self.node("Max", &format!("{name}.positive"), &[&said, &least], &[]);
                let logs = self.node("Log", &format!("{name}.logs"), &[&said], &[]);
                let by = self.graph.floats(&format!("{name}.temperature"), &[1], &[*temperature as f32]);
                let logs = self.node("Div", &format!("{name}.tempered"), &[&logs, &by], &[]);
                return self.softmax(name, &logs);
            }
        };
        let inner =
            of.iter().enumerate().map(|(i, answer)| self.answer(&format!("{name}.{i}"), answer, said, n_classes));
        let of: Vec<String> = inner.collect();
        let n = of.len();
        match rule {
            Combine::MeanProbability => {
                let sum = self.sum(&format!("{name}.sum"), &of);
                self.divided(&format!("{name}.mean"), &sum, n)
            }
            Combine::Vote => {
                let sum = self.sum(&format!("{name}.sum"), &of);
                // The mean is one more vote, divided.
                let mut votes = vec![self.divided(&format!("{name}.mean"), &sum, n)];
                let classes: Vec<i64> = (0..n_classes as i64).collect();
                let classes = self.graph.wholes(&format!("{name}.classes"), &[n_classes], &classes);
                for (i, said) in of.iter().enumerate() {
                    let axis = [("axis", Attribute::Int(1)), ("keepdims", Attribute::Int(1))];
                    let best = self.node("ArgMax", &format!("{name}.{i}.best"), &[said], &axis);
                    let is_best = self.node("Equal", &format!("{name}.{i}.is_best"), &[&best, &classes], &[]);
                    let float = [("to", Attribute::Int(Type::Float as i64))];
                    votes.push(self.node("Cast", &format!("{name}.{i}.vote"), &[&is_best], &float));
                }
                let votes = self.sum(&format!("{name}.votes"), &votes);
                self.divided(&format!("{name}.shares"), &votes, n + 1)
            }
            Combine::Weighted(weights) => {
                let mut weighted = Vec::with_capacity(n);
                for (i, (said, weight)) in of.iter().zip(weights).enumerate() {
                    let by = self.graph.floats(&format!("{name}.{i}.weight"), &[1], &[*weight as f32]);
                    weighted.push(self.node("Mul", &format!("{name}.{i}.weighted"), &[said, &by], &[]));
                }
                self.sum(&format!("{name}.sum"), &weighted)
            }
            Combine::Stacking(stacking) => {
                let said: Vec<&str> = of.iter().map(String::as_str).collect();
                let said = self.node("Concat", &format!("{name}.said"), &said, &[("axis", Attribute::Int(1))]);
                let rounded = |numbers: &[f64]| numbers.iter().map(|x| *x as f32).collect::<Vec<f32>>();
                let axes = [stacking.n_members * stacking.n_classes, stacking.n_classes];
                let by = self.graph.floats(&format!("{name}.coefficients"), &axes, &rounded(&stacking.coefficients));
                let intercepts = rounded(&stacking.intercepts);
                let plus = self.graph.floats(&format!("{name}.intercepts"), &[intercepts.len()], &intercepts);
                let scores = self.node("Gemm", &format!("{name}.scores"), &[&said, &by, &plus], &[]);
                self.softmax(name, &scores)
            }
        }
    }

    fn sum(&mut self, name: &str, of: &[String]) -> String {
        let of: Vec<&str> = of.iter().map(String::as_str).collect();
        self.node("Sum", name, &of, &[])
    }

    fn divided(&mut self, name: &str, value: &str, n: usize) -> String {
        let by = self.graph.floats(&format!("{name}.of"), &[1], &[n as f32]);
        self.node("Div", name, &[value, &by], &[])
    }
}

fn misfit(name: &str) -> StageError {
    StageError::new(format!("its `{name}` does not fit its input"))
}

fn pair((a, b): (usize, usize)) -> Attribute {
    Attribute::Ints(vec![a as i64, b as i64])
}

/// Where windows lie, as attributes.
fn places(windows: Windows) -> Vec<(&'static str, Attribute)> {
    let ((top, left), (bottom, right)) = (windows.before, windows.after);
    let pads = [top, left, bottom, right].map(|n| n as i64);
    vec![
        ("kernel_shape", pair(windows.size)),
        ("strides", pair(windows.stride)),
        ("pads", Attribute::Ints(pads.to_vec())),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::model::{self, Description, FORMAT};
    use crate::artifact::portable::Answer;
    use crate::data::decode::DecodePolicy;
    use crate::stages::testing::MemorySink;

    #[test]
    fn what_does_not_fit_into_one_file_is_refused_with_a_remedy() {
        let shape = ImageShape { height: 2, width: 3, channels: 1 };
        let description = Description {
            format: FORMAT,
            architecture: "INPUT - FC".to_owned(),
            input: vec![2, 3, 1],
            n_classes: 2,
            n_parameters: 14,
            epochs: 1,
            best_epoch: 1,
            is_selected: false,
            n_training: 1,
            snapshots: Vec::new(),
        };
        let tensor = |name: &str, shape: Vec<usize>| {
            let values = vec![0.5; shape.iter().product()];
            NamedTensor { name: name.to_owned(), shape, values }
        };
        let weights = [tensor("1.fc.weights", vec![6, 2]), tensor("1.fc.bias", vec![2])];
        let mut sink = MemorySink::default();
        model::write(&description, &weights, &mut sink).unwrap();
        let model = Portable {
            classes: vec!["a".to_owned(), "b".to_owned()],
            shape,
            depth: Depth::U8,
            decode: DecodePolicy::default(),
            members: vec![Member { chain: Vec::new(), network: sink.files(), views: Views::default() }],
            answer: Answer::Member(0),
            abstain: None,
        };
        assert!(within(&model, None, 56).is_ok());
        let refused = within(&model, None, 55).unwrap_err();
        assert!(refused.to_string().contains("more than the 2 GB that an ONNX file may have"), "{refused}");
        assert!(refused.help.is_some_and(|help| help.contains("convoy export safetensors")));
        let licensed = to_bytes(&model, Some("CC-BY-4.0")).unwrap();
        assert!(licensed.windows(9).any(|window| window == b"CC-BY-4.0"));
        assert_eq!(to_bytes(&model, Some("CC-BY-4.0")).unwrap(), licensed);
    }
}
