//! Windows that slide over an image: kernel size, stride, padding, dilation, and what they make of a shape.

use crate::config::{Form, Section, Value, quote};
use crate::engine::{ConvShape, PoolShape};
use crate::nn::layer::{Build, Reach, ShapeError, Windows, image};
use crate::tensor::{ImageShape, SampleShape};

/// The largest kernel, stride, dilation or padding that a manifest may ask for.
const LARGEST: u64 = 1024;

/// How the border is handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Padding {
    /// The output has `ceil(input / stride)` rows; what is odd goes to the bottom and the right.
    Same,
    /// No padding.
    Valid,
    /// So many rows and columns of zeros on every side.
    Pixels(usize),
}

/// A window as a manifest describes it; pairs are `(height, width)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    pub size: (usize, usize),
    pub stride: (usize, usize),
    pub dilation: (usize, usize),
    pub padding: Padding,
}

/// A window laid over an image of known size, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Placed {
    pub height_out: usize,
    pub width_out: usize,
    pub pad_top: usize,
    pub pad_bottom: usize,
    pub pad_left: usize,
    pub pad_right: usize,
}

impl Window {
    /// Reads `size_key`, `stride` (default: as given, `None` = the size), `padding`, and `dilation` where it applies.
    pub fn read(
        section: &mut Section<'_>,
        size_key: (&'static str, &'static str),
        size: u64,
        stride: Option<u64>,
        padding: Padding,
        dilated: bool,
    ) -> Window {
        let size = pair(section, size_key, (size, size));
        let stride_key = match stride {
            Some(_) => ("stride", "Pixels from one place of the window to the next, down and to the right."),
            None => ("stride", "Pixels from one place of the window to the next; absent: the window's size."),
        };
        let stride = pair(section, stride_key, stride.map_or((size.0 as u64, size.1 as u64), |s| (s, s)));
        let padding = read_padding(section, padding);
        let dilation_key = ("dilation", "Pixels from one value of the kernel to the next.");
        let dilation = if dilated { pair(section, dilation_key, (1, 1)) } else { (1, 1) };
        Window { size, stride, dilation, padding }
    }

    /// Rows and columns that the window covers, holes included.
    pub fn extent(&self) -> (usize, usize) {
        ((self.size.0 - 1) * self.dilation.0 + 1, (self.size.1 - 1) * self.dilation.1 + 1)
    }

    pub fn reach(&self) -> Reach {
        Reach::Window { extent: self.extent(), stride: self.stride }
    }

    /// Lays the window over `input`.
    pub fn place(&self, word: &str, input: ImageShape) -> Result<Placed, ShapeError> {
        let extent = self.extent();
        let rows = self.axis(input.height, extent.0, self.stride.0);
        let columns = self.axis(input.width, extent.1, self.stride.1);
        match (rows, columns) {
            (Some((height_out, pad_top, pad_bottom)), Some((width_out, pad_left, pad_right))) => {
                Ok(Placed { height_out, width_out, pad_top, pad_bottom, pad_left, pad_right })
            }
            _ => {
                let error = ShapeError::new(format!(
                    "the {}×{} window of `{word}` is larger than its {}×{} input (width × height)",
                    extent.1, extent.0, input.width, input.height
                ));
                Err(match self.padding {
                    Padding::Same => error,
                    _ => error.help("use a smaller window, fewer `pool` layers above, or `padding = \"same\"`"),
                })
            }
        }
    }

    /// The window as it is laid over `input`, for who writes a network down.
    pub fn windows(&self, word: &str, input: SampleShape) -> Result<Windows, ShapeError> {
        let placed = self.place(word, image(word, input)?)?;
        let Window { size, stride, dilation, .. } = *self;
        let (before, after) = ((placed.pad_top, placed.pad_left), (placed.pad_bottom, placed.pad_right));
        Ok(Windows { size, stride, dilation, before, after })
    }

    fn placed(&self, build: &Build<'_>) -> (ImageShape, Placed) {
        let input = build.input.image().expect("`output_shape` accepted an image");
        let placed = self.place("layer", input).expect("`output_shape` placed the window");
        (input, placed)
    }

    /// The engine's name for a convolution with this window, as a layer is built.
    pub fn built_shape(&self, build: &Build<'_>, filters: usize, groups: usize) -> ConvShape {
        let (input, placed) = self.placed(build);
        self.conv_shape(build.batch, input, placed, filters, groups)
    }

    /// The engine's name for a convolution with this window over `input`.
    pub fn conv_shape(
        &self,
        batch: usize,
        input: ImageShape,
        placed: Placed,
        filters: usize,
        groups: usize,
    ) -> ConvShape {
        ConvShape {
            batch,
            height: input.height,
            width: input.width,
            channels_in: input.channels,
            filters,
            kernel_h: self.size.0,
            kernel_w: self.size.1,
            stride_h: self.stride.0,
            stride_w: self.stride.1,
            pad_top: placed.pad_top,
            pad_bottom: placed.pad_bottom,
            pad_left: placed.pad_left,
            pad_right: placed.pad_right,
            dilation_h: self.dilation.0,
            dilation_w: self.dilation.1,
            groups,
        }
    }

    /// The engine's name for pooling with this window.
    pub fn pool_shape(&self, build: &Build<'_>) -> PoolShape {
        let (input, placed) = self.placed(build);
        PoolShape {
            height: input.height,
            width: input.width,
            channels: input.channels,
            size_h: self.size.0,
            size_w: self.size.1,
            stride_h: self.stride.0,
            stride_w: self.stride.1,
            pad_top: placed.pad_top,
            pad_left: placed.pad_left,
            height_out: placed.height_out,
            width_out: placed.width_out,
        }
    }

    /// `(outputs, padding before, padding after)` along one axis, `None` where the window does not fit.
    fn axis(&self, input: usize, extent: usize, stride: usize) -> Option<(usize, usize, usize)> {
        let (before, after) = match self.padding {
            Padding::Valid => (0, 0),
            Padding::Pixels(p) => (p, p),
            Padding::Same => {
                let total = ((input.div_ceil(stride).max(1) - 1) * stride + extent).saturating_sub(input);
                (total / 2, total - total / 2)
            }
        };
        // A window that lies wholly in the padding would see nothing.
        let fits = input > 0 && input + before + after >= extent && before < extent && after < extent;
        fits.then(|| ((input + before + after - extent) / stride + 1, before, after))
    }
}

/// A whole number or `[height, width]`, each at least 1.
fn pair(
    section: &mut Section<'_>,
    (key, meaning): (&'static str, &'static str),
    default: (u64, u64),
) -> (usize, usize) {
    let show = |(h, w): (u64, u64)| if h == w { h.to_string() } else { format!("[{h}, {w}]") };
    let form = || {
        let side = Form::Whole(1..=LARGEST);
        Form::Either(vec![side.clone(), Form::List(Box::new(side), 2..=2)])
    };
    let Some(node) = section.key(key, meaning, "[3, 2]").form(Some(&show(default)), form) else {
        section.record(key, show(default), None);
        return (default.0 as usize, default.1 as usize);
    };
    let whole = |value: &Value| match *value {
        Value::Integer(i) => u64::try_from(i).ok().filter(|u| (1..=LARGEST).contains(u)),
        _ => None,
    };
    let read = match &node.value {
        Value::List(items) => match &items[..] {
            [h, w] => whole(&h.value).zip(whole(&w.value)),
            _ => None,
        },
        value => whole(value).map(|u| (u, u)),
    };
    match read {
        Some(read) => {
            section.record(key, show(read), Some(node.span));
            (read.0 as usize, read.1 as usize)
        }
        None => {
            section.expected(key, node, format_args!("a whole number from 1 to {LARGEST}, or `[height, width]`"));
            (default.0 as usize, default.1 as usize)
        }
    }
}

/// The words for what is done at the border.
const PADDINGS: [(&str, &str, Padding); 2] =
    [("same", "As much as gives `ceil(input / stride)` outputs.", Padding::Same), ("valid", "None.", Padding::Valid)];

fn read_padding(section: &mut Section<'_>, default: Padding) -> Padding {
    let show = |padding: Padding| match padding {
        Padding::Same => quote("same"),
        Padding::Valid => quote("valid"),
        Padding::Pixels(p) => p.to_string(),
    };
    let form = || {
        let words = PADDINGS.iter().map(|(word, meaning, _)| ((*word).to_owned(), *meaning)).collect();
        Form::Either(vec![Form::Words(words), Form::Whole(0..=LARGEST)])
    };
    let key = section.key("padding", "Zeros around the image: a word, or so many pixels on every side.", "\"valid\"");
    let Some(node) = key.form(Some(&show(default)), form) else {
        section.record("padding", show(default), None);
        return default;
    };
    let padding = match &node.value {
        Value::Text { text, .. } => PADDINGS.iter().find(|(word, ..)| word == text).map(|(.., padding)| *padding),
        Value::Integer(i) => u64::try_from(*i).ok().filter(|p| *p <= LARGEST).map(|p| Padding::Pixels(p as usize)),
        _ => None,
    };
    match padding {
        Some(padding) => {
            section.record("padding", show(padding), Some(node.span));
            padding
        }
        None => {
            section.expected("padding", node, "`same`, `valid` or a whole number of pixels");
            default
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn case(padding: Padding, size: usize, stride: usize, dilation: usize, input: usize, want: (usize, usize, usize)) {
        let window = Window { size: (size, 1), stride: (stride, 1), dilation: (dilation, 1), padding };
        let placed = window.place("conv", ImageShape { height: input, width: 4, channels: 1 }).unwrap();
        assert_eq!((placed.height_out, placed.pad_top, placed.pad_bottom), want);
        assert_eq!(placed.width_out, if let Padding::Pixels(_) = padding { placed.width_out } else { 4 });
    }

    #[test]
    fn windows_are_placed_as_keras_places_them() {
        case(Padding::Same, 3, 1, 1, 7, (7, 1, 1));
        case(Padding::Same, 3, 2, 1, 8, (4, 0, 1));
        case(Padding::Same, 2, 2, 1, 7, (4, 0, 1));
        case(Padding::Same, 5, 1, 2, 9, (9, 4, 4));
        case(Padding::Same, 1, 3, 1, 7, (3, 0, 0));
        case(Padding::Valid, 2, 2, 1, 7, (3, 0, 0));
        case(Padding::Valid, 3, 1, 2, 5, (1, 0, 0));
        let window = Window { size: (3, 3), stride: (1, 1), dilation: (1, 1), padding: Padding::Valid };
        let error = window.place("pool", ImageShape { height: 2, width: 9, channels: 1 }).unwrap_err();
        assert_eq!(error.message, "the 3×3 window of `pool` is larger than its 9×2 input (width × height)");
    }
}
