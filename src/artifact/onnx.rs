//! ONNX models as files: a graph of nodes and numbers in the protocol buffers of `onnx.proto`. What is computed is the
//! graph's own.
//!
//! Operators are those of opset 13 in the IR of version 7, which ONNX Runtime reads since 1.6 (December 2020), and newer
//! runtimes as well: later sets change what is used here in nothing but the form.

use super::protobuf::Message;

/// The version of the operators.
const OPSET: i64 = 13;
/// The version of the file's form.
const IR_VERSION: i64 = 7;

/// The type of a tensor's values, by its number in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// Single precision.
    Float = 1,
    /// Bytes.
    Uint8 = 2,
    /// Whole numbers of 16 bits.
    Uint16 = 4,
    /// Whole numbers of 64 bits.
    Int64 = 7,
}

/// The value of an attribute of a node.
#[derive(Clone, Debug, PartialEq)]
pub enum Attribute {
    /// A number.
    Float(f32),
    /// A whole number.
    Int(i64),
    /// Whole numbers.
    Ints(Vec<i64>),
}

/// A graph that grows from its input on. A value is called as the node that gives it.
#[derive(Debug, Default)]
pub struct Graph {
    nodes: Vec<Message>,
    initializers: Vec<Message>,
    len: usize,
}

/// A tensor that goes in or comes out: its axes beside the batch.
#[derive(Clone, Debug)]
pub struct Port {
    /// Its name.
    pub name: &'static str,
    /// The type of its values.
    pub kind: Type,
    /// `[batch, ...axes]`.
    pub axes: Vec<usize>,
}

/// What a file says beside its graph.
#[derive(Clone, Debug)]
pub struct About {
    /// For people.
    pub text: String,
    /// The version of the program.
    pub version: &'static str,
    /// Keys and values, for programs.
    pub metadata: Vec<(String, String)>,
}

impl Graph {
    /// A graph of nothing.
    pub fn new() -> Graph {
        Graph::default()
    }

    /// Bytes of the numbers so far.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Adds a node that applies `operator`; returns its value, which is called as the node.
    pub fn node(&mut self, operator: &str, name: &str, inputs: &[&str], attributes: &[(&str, Attribute)]) -> String {
        let node = inputs.iter().fold(Message::new(), |node, input| node.text(1, input));
        let node = node.text(2, name).text(3, name).text(4, operator);
        let attribute = |(name, value): &(&str, Attribute)| {
            let attribute = Message::new().text(1, name);
            match value {
                Attribute::Float(x) => attribute.single(2, *x).whole(20, 1),
                Attribute::Int(i) => attribute.whole(3, *i).whole(20, 2),
                Attribute::Ints(all) => all.iter().fold(attribute, |out, i| out.whole(8, *i)).whole(20, 7),
            }
        };
        self.nodes.push(node.messages(5, &attributes.iter().map(attribute).collect::<Vec<_>>()));
        name.to_owned()
    }

    fn numbers(&mut self, name: &str, shape: &[usize], kind: Type, bytes: &[u8]) -> String {
        let tensor = shape.iter().fold(Message::new(), |tensor, &axis| tensor.whole(1, axis as i64));
        self.initializers.push(tensor.whole(2, kind as i64).text(8, name).bytes(9, bytes));
        self.len += bytes.len();
        name.to_owned()
    }

    /// Adds numbers of single precision, which are called `name`.
    pub fn floats(&mut self, name: &str, shape: &[usize], values: &[f32]) -> String {
        let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.numbers(name, shape, Type::Float, &bytes)
    }

    /// Adds whole numbers, which are called `name`.
    pub fn wholes(&mut self, name: &str, shape: &[usize], values: &[i64]) -> String {
        let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.numbers(name, shape, Type::Int64, &bytes)
    }

    /// The file's bytes.
    pub fn finish(self, input: &Port, outputs: &[Port], about: &About) -> Vec<u8> {
        let port = |port: &Port| {
            let batch = Message::new().text(2, "batch");
            let axes = port.axes.iter().map(|&axis| Message::new().whole(1, axis as i64));
            let shape = Message::new().messages(1, &std::iter::once(batch).chain(axes).collect::<Vec<_>>());
            let tensor = Message::new().whole(1, port.kind as i64).message(2, &shape);
            Message::new().text(1, port.name).message(2, &Message::new().message(1, &tensor))
        };
        let graph = Message::new().messages(1, &self.nodes).text(2, "convoy").messages(5, &self.initializers);
        let graph = graph.message(11, &port(input)).messages(12, &outputs.iter().map(port).collect::<Vec<_>>());
        let entry = |(key, value): &(String, String)| Message::new().text(1, key).text(2, value);
        Message::new()
            .whole(1, IR_VERSION)
            .text(2, "convoy")
            .text(3, about.version)
            .text(6, &about.text)
            .message(7, &graph)
            .message(8, &Message::new().text(1, "").whole(2, OPSET))
            .messages(14, &about.metadata.iter().map(entry).collect::<Vec<_>>())
            .into_bytes()
    }
}
