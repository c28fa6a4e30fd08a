//! A model that needs nothing else: all that lies between an image file and its probabilities, in one safetensors file.
//!
//! The file's metadata has one key, `convoy`, with JSON as its value:
//!
//! | key | what |
//! |---|---|
//! | `digest` | BLAKE3 of `model` and of every tensor: an edited or damaged file is found |
//! | `model.classes` | names, by label |
//! | `model.image`, `model.depth` | axes and bits per value of an image after decoding |
//! | `model.decode` | how images are decoded: channels, alpha, EXIF, resize |
//! | `model.members` | each network (its `model.json`), the transforms and projections before it, in order, and under `predict` the views of an image over which its probabilities are averaged; absent: the image alone |
//! | `model.answer` | how the members' probabilities become one |
//! | `model.abstain` | `error`, the wanted error among answered images, and `threshold`, the highest probability from which on an image is answered (absent: none is); absent: all are |
//!
//! Tensors are named `members.0.chain.1.mean`, `members.0.network.1.conv.weights`, after the artifact that they are
//! from.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::tensors::{Tensors, TensorsWriter};
use super::{Bytes, Error, Files, features, model, transform};
use crate::data::augment::Views;
use crate::data::decode::DecodePolicy;
use crate::data::pixels::Depth;
use crate::data::reader::classes::MAX_CLASSES;
use crate::tensor::ImageShape;

/// The key of the metadata.
const KEY: &str = "convoy";
/// What errors call the file, which has no name of its own.
const FILE: &str = "model";
/// The version of the description. In 1, convolutions were computed the direct way unless they said otherwise, and a
/// stacked ensemble read logarithms of probabilities.
const FORMAT: u32 = 2;
/// The version of one that has views, a temperature or a threshold. A program that knows none of them would give other
/// probabilities, or answers where there are none; one without them keeps the older version and its bytes.
const FORMAT_WITH_CALIBRATION: u32 = 3;
/// Tensors of a projection that only people need.
const FOR_PEOPLE: [&str; 3] = ["components", "explained_variance", "total_variance"];

/// A model with its preprocessing.
#[derive(Clone, Debug)]
pub struct Portable {
    /// Their names, by label.
    pub classes: Vec<String>,
    /// The shape of an image after decoding.
    pub shape: ImageShape,
    /// Its bits per value.
    pub depth: Depth,
    /// How images are decoded.
    pub decode: DecodePolicy,
    /// The networks.
    pub members: Vec<Member>,
    /// What is made of what they say.
    pub answer: Answer,
    /// Where it abstains; `None`: nowhere.
    pub abstain: Option<Abstain>,
}

/// Which images a model does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Abstain {
    /// The error that was wanted among answered images.
    pub error: f64,
    /// The highest probability from which on an image is answered; `None`: no image is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f32>,
}

impl Abstain {
    /// Whether an image is answered whose highest probability is this.
    pub fn answers(&self, confidence: f32) -> bool {
        self.threshold.is_some_and(|threshold| confidence >= threshold)
    }
}

/// A network and what its images go through before.
#[derive(Clone, Debug)]
pub struct Member {
    /// The artifacts of the fitted stages above it, in order: transforms and projections.
    pub chain: Vec<Files>,
    /// The network's own artifact.
    pub network: Files,
    /// The views of an image over which its probabilities are averaged, in double precision and in their order.
    pub views: Views,
}

/// How probabilities of members become one answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// That of one member, by index.
    Member(usize),
    /// Several answers together.
    Combined {
        /// The rule, with all that was fitted for it: `"mean-probability"`, `"vote"`, ….
        combine: Value,
        /// In the order in which they are summed.
        of: Vec<Answer>,
    },
    /// Another answer at a temperature: `softmax(ln(p) / temperature)`.
    Tempered {
        /// Above 0.
        temperature: f64,
        /// What is tempered.
        of: Box<Answer>,
    },
}

impl Answer {
    fn is_tempered(&self) -> bool {
        match self {
            Answer::Member(_) => false,
            Answer::Combined { of, .. } => of.iter().any(Answer::is_tempered),
            Answer::Tempered { .. } => true,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Envelope {
    digest: String,
    model: Value,
}

#[derive(Serialize, Deserialize)]
struct Description {
    format: u32,
    classes: Vec<String>,
    image: [usize; 3],
    depth: u32,
    decode: DecodePolicy,
    members: Vec<MemberDescription>,
    answer: Answer,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    abstain: Option<Abstain>,
}

#[derive(Serialize, Deserialize)]
struct MemberDescription {
    chain: Vec<Link>,
    network: Value,
    #[serde(default, skip_serializing_if = "Views::is_empty")]
    predict: Views,
}

/// What a fitted stage says of itself.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Link {
    Transform(Value),
    Projection(Value),
}

/// What a model comes to, whatever the form of its file.
pub struct Content {
    /// All but the numbers: what the key `model` of the metadata holds.
    pub model: Value,
    /// The numbers, by name.
    pub tensors: TensorsWriter,
    /// BLAKE3 of both, hexadecimal.
    pub digest: String,
}

fn unwritable(cause: serde_json::Error) -> Error {
    error(format!("cannot be written ({cause})"))
}

fn error(message: impl Into<String>) -> Error {
    Error { file: FILE.to_owned(), message: message.into() }
}

/// Whether a file that begins with these bytes may be a portable model, and is not a manifest.
pub fn is_likely(head: &[u8]) -> bool {
    // The length of the header, little-endian, then the header, which is JSON: no text begins with that.
    matches!(head, [_, _, _, _, 0, 0, 0, 0, b'{', ..])
}

impl Portable {
    /// The file's bytes: the same for the same model.
    ///
    /// # Errors
    /// If an artifact is damaged.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        let Content { model, tensors, digest } = self.content()?;
        let envelope = serde_json::to_string(&Envelope { digest, model }).map_err(unwritable)?;
        tensors.to_bytes(Some((KEY, envelope))).map_err(|cause| error(format!("cannot be written ({cause})")))
    }

    /// Its description, numbers and digest.
    ///
    /// # Errors
    /// If an artifact is damaged.
    pub fn content(&self) -> Result<Content, Error> {
        let mut tensors = TensorsWriter::new();
        let mut members = Vec::with_capacity(self.members.len());
        for (i, member) in self.members.iter().enumerate() {
            let mut chain = Vec::with_capacity(member.chain.len());
            for (k, files) in member.chain.iter().enumerate() {
                let (link, numbers) = match files.0.contains_key(transform::STEPS) {
                    true => (Link::Transform(files.document(transform::STEPS, None)?), transform::NUMBERS),
                    false => (Link::Projection(files.document(features::DESCRIPTION, None)?), features::NUMBERS),
                };
                let wants = |name: &str| !FOR_PEOPLE.contains(&name);
                tensors.copy(&Tensors::open(files, numbers)?, wants, |name| format!("members.{i}.chain.{k}.{name}"));
                chain.push(link);
            }
            let weights = Tensors::open(&member.network, model::WEIGHTS)?;
            tensors.copy(&weights, |_| true, |name| format!("members.{i}.network.{name}"));
            let (network, predict) = (member.network.document(model::MODEL, None)?, member.views.clone());
            members.push(MemberDescription { chain, network, predict });
        }
        let is_plain = self.abstain.is_none()
            && !self.answer.is_tempered()
            && self.members.iter().all(|member| member.views.is_empty());
        let description = Description {
            format: if is_plain { FORMAT } else { FORMAT_WITH_CALIBRATION },
            classes: self.classes.clone(),
            image: [self.shape.height, self.shape.width, self.shape.channels],
            depth: self.depth.bits(),
            decode: self.decode.clone(),
            members,
            answer: self.answer.clone(),
            abstain: self.abstain,
        };
        let model = serde_json::to_value(&description).map_err(unwritable)?;
        let digest = digest(&model, tensors.iter());
        Ok(Content { model, tensors, digest })
    }

    /// Reads a model.
    ///
    /// # Errors
    /// If the bytes are not a model, were damaged, or are of a newer form.
    pub fn from_bytes(bytes: Bytes) -> Result<Portable, Error> {
        let file = Files(BTreeMap::from([(FILE.to_owned(), bytes)]));
        let metadata = Tensors::metadata(&file, FILE)?;
        let envelope =
            metadata.get(KEY).ok_or_else(|| error("is a safetensors file, but not one that `convoy export` wrote"))?;
        let unreadable = |cause: serde_json::Error| error(format!("has an unreadable description ({cause})"));
        let envelope: Envelope = serde_json::from_str(envelope).map_err(unreadable)?;
        let is_known = |format: &Value| *format == FORMAT || *format == FORMAT_WITH_CALIBRATION;
        if let Some(format) = envelope.model.get("format").filter(|format| !is_known(format)) {
            let is_older = format.as_u64().is_some_and(|format| format < FORMAT.into());
            let advice = if is_older {
                "an older version of Convoy wrote it, export it again"
            } else {
                "a newer version of Convoy wrote it"
            };
            return Err(error(format!(
                "has format {format}, expected {FORMAT} or {FORMAT_WITH_CALIBRATION}: {advice}"
            )));
        }
        let tensors = Tensors::open(&file, FILE)?;
        if digest(&envelope.model, tensors.iter()) != envelope.digest {
            return Err(error("is damaged: its content is not what its digest says"));
        }
        let description: Description = serde_json::from_value(envelope.model).map_err(unreadable)?;
        check(&description)?;
        for (name, values) in tensors.floats() {
            if !values.iter().all(|value| value.is_finite()) {
                return Err(error(format!("has the tensor `{name}` with values that are not finite numbers")));
            }
        }
        let depth = match description.depth {
            8 => Depth::U8,
            16 => Depth::U16,
            other => return Err(error(format!("has images of {other} bits per value"))),
        };
        let artifact = |json_name: &str, json: &Value, numbers: &str, prefix: &str| -> Result<Files, Error> {
            let mut own = TensorsWriter::new();
            own.copy(&tensors, |name| name.starts_with(prefix), |name| name[prefix.len()..].to_owned());
            let numbers_bytes = own.to_bytes(None).map_err(|cause| error(format!("is not readable ({cause})")))?;
            Ok(Files(BTreeMap::from([
                (json_name.to_owned(), Bytes::new(json.to_string().into_bytes())),
                (numbers.to_owned(), Bytes::new(numbers_bytes)),
            ])))
        };
        let mut members = Vec::with_capacity(description.members.len());
        for (i, member) in description.members.iter().enumerate() {
            let mut chain = Vec::with_capacity(member.chain.len());
            for (k, link) in member.chain.iter().enumerate() {
                let prefix = format!("members.{i}.chain.{k}.");
                chain.push(match link {
                    Link::Transform(json) => artifact(transform::STEPS, json, transform::NUMBERS, &prefix)?,
                    Link::Projection(json) => artifact(features::DESCRIPTION, json, features::NUMBERS, &prefix)?,
                });
            }
            let prefix = format!("members.{i}.network.");
            let network = artifact(model::MODEL, &member.network, model::WEIGHTS, &prefix)?;
            members.push(Member { chain, network, views: member.predict.clone() });
        }
        let [height, width, channels] = description.image;
        Ok(Portable {
            classes: description.classes,
            shape: ImageShape { height, width, channels },
            depth,
            decode: description.decode,
            members,
            answer: description.answer,
            abstain: description.abstain,
        })
    }
}

/// Whether a manifest could have said so: a file from elsewhere may say anything.
fn check(model: &Description) -> Result<(), Error> {
    let [height, width, channels] = model.image;
    let is_image = height > 0 && width > 0 && (1..=4).contains(&channels);
    let wrong = |what: String| Err(error(format!("has an impossible description: {what}")));
    if !model.decode.limits.is_in_range() {
        return wrong(format!("`max_pixels` and `max_bytes` are {:?}", model.decode.limits));
    }
    let shape = ImageShape { height, width, channels };
    if !is_image || model.decode.limits.check_decoded(shape, Depth::U8).is_err() {
        return wrong(format!("images of {width}x{height}x{channels}"));
    }
    if let Some(resize) = model.decode.resize.filter(|resize| (resize.height, resize.width) != (height, width)) {
        return wrong(format!("`resize` to {}x{} gives images of {width}x{height}", resize.width, resize.height));
    }
    if model.classes.is_empty() || model.classes.len() > MAX_CLASSES {
        return wrong(format!("{} classes", model.classes.len()));
    }
    Ok(())
}

/// Of the description and of every tensor, in the order of their names.
fn digest<'a>(model: &Value, tensors: impl Iterator<Item = (&'a str, Vec<usize>, &'a [u8])>) -> String {
    let mut hasher = blake3::Hasher::new();
    // Keys are sorted, and numbers come back with the same bits, so that the text is the same after reading.
    hasher.update(model.to_string().as_bytes());
    let mut tensors: Vec<_> = tensors.collect();
    tensors.sort_unstable_by_key(|(name, ..)| *name);
    for (name, shape, bytes) in tensors {
        let shape: Vec<String> = shape.iter().map(usize::to_string).collect();
        hasher.update(format!("\n{name} [{}]\n", shape.join(", ")).as_bytes());
        hasher.update(bytes);
    }
    hasher.finalize().to_hex().to_string()
}
