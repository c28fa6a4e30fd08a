//! Pictures of numbers as SVG: charts with linear, logarithmic and categorical axes, and parallel axes.
//!
//! Start at [`Figure`]: a title and some [`Chart`]s in a grid, rendered by [`Figure::to_svg`]. A chart holds
//! [`Series`] of points, drawn as lines or dots; [`Bars`] with intervals, a [`Matrix`] of shares, or, in [`Parallel`],
//! lines across several axes. The same figure gives the same bytes everywhere: coordinates are rounded to hundredths, and
//! nothing depends on fonts, time or machine. Colours are those of Okabe and Ito (2008), which readers with any colour
//! vision can tell apart, and for ordered values viridis; they are classes ([`style`]), so that a picture suits light and
//! dark screens, alone and in a page.

mod axis;
mod canvas;
mod draw;
mod table;

pub use axis::{Axis, Scale};

/// A colour, by what it stands for: each has a value for light paper and one for dark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// Of things without an order: the `i`-th of [`PALETTE`].
    Category(usize),
    /// Of an ordered value: the `i`-th of [`LEVELS`] steps, the lowest first.
    Level(usize),
    /// What has nothing to be told apart from.
    Grey,
}

/// Colours for things without an order (Okabe and Ito 2008, without black and their yellow, which is pale on white), on
/// light paper and on dark.
const PALETTE: [(&str, &str); 6] = [
    ("#0072b2", "#4aa8e0"),
    ("#d55e00", "#f2853d"),
    ("#009e73", "#2fc49a"),
    ("#cc79a7", "#dd93bb"),
    ("#e69f00", "#f0b429"),
    ("#56b4e9", "#8fd0f5"),
];

/// Viridis in nine points and the brightest one. Light paper ends before it becomes too pale, dark paper begins where it is
/// no longer too dark.
const VIRIDIS: [[u8; 3]; 11] = [
    [68, 1, 84],
    [71, 39, 119],
    [62, 73, 137],
    [48, 103, 141],
    [37, 130, 142],
    [30, 157, 136],
    [53, 183, 120],
    [109, 205, 88],
    [165, 214, 40],
    [210, 226, 27],
    [253, 231, 37],
];

/// Steps of an ordered colour.
pub const LEVELS: usize = 16;

/// The colour of the `i`-th thing, around again after the last one.
pub fn categorical(i: usize) -> Colour {
    Colour::Category(i % PALETTE.len())
}

/// The colour of an ordered value: `t` in `[0, 1]`, from low to high. What is not a number is grey.
pub fn sequential(t: f64) -> Colour {
    if t.is_nan() {
        return Colour::Grey;
    }
    Colour::Level(((t.clamp(0.0, 1.0) * LEVELS as f64) as usize).min(LEVELS - 1))
}

impl Colour {
    /// The class of elements that have it.
    fn class(self) -> String {
        match self {
            Colour::Category(i) => format!("c{}", i % PALETTE.len()),
            Colour::Level(i) => format!("s{}", i.min(LEVELS - 1)),
            Colour::Grey => "g".to_owned(),
        }
    }
}

/// Viridis between two of its points: `t` in `[0, 1]`.
fn viridis(t: f64, first: usize, last: usize) -> String {
    let at = first as f64 + t * (last - first) as f64;
    let i = (at as usize).min(last - 1);
    let part = at - i as f64;
    let mix = |c: usize| {
        let (low, high) = (f64::from(VIRIDIS[i][c]), f64::from(VIRIDIS[i + 1][c]));
        (low + (high - low) * part).round() as u8
    };
    format!("#{:02x}{:02x}{:02x}", mix(0), mix(1), mix(2))
}

/// The colours of every picture as CSS, by class: on light paper, and on dark where a screen asks for it. A page that shows
/// several pictures needs it once.
pub fn style() -> String {
    // Ink, faint, frame, muted, paper, grey.
    let named = [
        ("", "#222222", "#dcdcdc"),
        (".f", "#e4e4e4", "#3a3d40"),
        (".r", "#9a9a9a", "#6f7377"),
        (".m", "#555555", "#a9aeb3"),
        (".p", "#ffffff", "#1b1d1f"),
        (".g", "#8c8c8c", "#85898d"),
    ];
    let mut rules: Vec<(String, String, String)> = named
        .iter()
        .map(|(class, light, dark)| ((*class).to_owned(), (*light).to_owned(), (*dark).to_owned()))
        .collect();
    rules.extend(
        PALETTE
            .iter()
            .enumerate()
            .map(|(i, (light, dark))| (format!(".c{i}"), (*light).to_owned(), (*dark).to_owned())),
    );
    rules.extend((0..LEVELS).map(|i| {
        let t = i as f64 / (LEVELS - 1) as f64;
        (format!(".s{i}"), viridis(t, 0, 8), viridis(t, 2, 10))
    }));
    let of = |class: &str, colour: &str| match class {
        "" => format!(".figure{{color:{colour}}}"),
        class => format!(".figure {class}{{color:{colour}}}"),
    };
    let light: String = rules.iter().map(|(class, light, _)| of(class, light)).collect();
    let dark: String = rules.iter().map(|(class, _, dark)| of(class, dark)).collect();
    // The edge of texts that stand over lines.
    format!(
        "{light}.figure .e{{stroke:#ffffff}}@media screen and (prefers-color-scheme:dark){{{dark}.figure .e{{stroke:#1b1d1f}}}}"
    )
}

/// How a series is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mark {
    /// A line from point to point, broken where a value is missing (not a number).
    Line {
        /// In pixels; 1 for one of many, 2 for what is to be read.
        width: f64,
        /// Dashes instead of an unbroken line.
        is_dashed: bool,
    },
    /// A dot at each point.
    Dots {
        /// In pixels.
        radius: f64,
    },
}

/// Points of one colour.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// In the legend; without a name it is drawn and not listed.
    pub name: Option<String>,
    /// `(x, y)`, in the axes' own units; the index where an axis has categories.
    pub points: Vec<(f64, f64)>,
    /// Line or dots.
    pub mark: Mark,
    /// Its colour.
    pub colour: Colour,
    /// From 0 (invisible) to 1.
    pub opacity: f64,
    /// Shown when the mouse rests on it; one per point for dots, else the first one counts. May be empty.
    pub notes: Vec<String>,
}

impl Series {
    /// A line to be read, in the legend under `name`.
    pub fn line(name: impl Into<String>, colour: Colour, points: Vec<(f64, f64)>) -> Series {
        let mark = Mark::Line { width: 2.0, is_dashed: false };
        Series { name: Some(name.into()), points, mark, colour, opacity: 1.0, notes: Vec::new() }
    }

    /// Dots, in the legend under `name`.
    pub fn dots(name: impl Into<String>, colour: Colour, points: Vec<(f64, f64)>) -> Series {
        let mark = Mark::Dots { radius: 3.5 };
        Series { name: Some(name.into()), points, mark, colour, opacity: 0.75, notes: Vec::new() }
    }

    /// One of many: thin, pale and not in the legend.
    pub fn thin(mut self) -> Series {
        self.name = None;
        self.opacity = 0.35;
        match &mut self.mark {
            Mark::Line { width, .. } => *width = 1.0,
            Mark::Dots { radius } => *radius = 2.5,
        }
        self
    }

    /// Drawn in dashes.
    pub fn dashed(mut self) -> Series {
        if let Mark::Line { is_dashed, .. } = &mut self.mark {
            *is_dashed = true;
        }
        self
    }
}

/// A horizontal band behind the points, such as a healthy range.
#[derive(Clone, Debug, PartialEq)]
pub struct Band {
    /// Its lower end on the y axis.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
    /// In the legend.
    pub name: String,
}

/// A vertical line, such as the best epoch.
#[derive(Clone, Debug, PartialEq)]
pub struct Guide {
    /// Where, on the x axis.
    pub at: f64,
    /// In the legend.
    pub name: String,
}

/// Points over two axes.
#[derive(Clone, Debug, PartialEq)]
pub struct Plot {
    /// Above the chart.
    pub title: String,
    /// The horizontal axis.
    pub x: Axis,
    /// The vertical axis.
    pub y: Axis,
    /// Drawn in order, later ones on top.
    pub series: Vec<Series>,
    /// Behind everything.
    pub bands: Vec<Band>,
    /// Behind the points.
    pub guides: Vec<Guide>,
}

impl Plot {
    /// An empty plot.
    pub fn new(title: impl Into<String>, x: Axis, y: Axis) -> Plot {
        Plot { title: title.into(), x, y, series: Vec::new(), bands: Vec::new(), guides: Vec::new() }
    }
}

/// A line across parallel axes.
#[derive(Clone, Debug, PartialEq)]
pub struct ParallelLine {
    /// One value per axis, in its own units (an index for categories); `None` leaves a gap.
    pub values: Vec<Option<f64>>,
    /// Its colour.
    pub colour: Colour,
    /// In pixels.
    pub width: f64,
    /// From 0 to 1.
    pub opacity: f64,
    /// Shown when the mouse rests on it.
    pub note: String,
}

/// What the colours of [`sequential`] mean.
#[derive(Clone, Debug, PartialEq)]
pub struct ColourBar {
    /// Such as `mean validation accuracy`.
    pub label: String,
    /// The value of `sequential(0.0)`.
    pub low: f64,
    /// The value of `sequential(1.0)`.
    pub high: f64,
}

/// Parallel coordinates (Inselberg 1985): one vertical axis a variable, one line a sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Parallel {
    /// Above the chart.
    pub title: String,
    /// From left to right.
    pub axes: Vec<Axis>,
    /// Drawn in order, later ones on top.
    pub lines: Vec<ParallelLine>,
    /// At the right, if the colours mean something.
    pub colour_bar: Option<ColourBar>,
}

/// Horizontal bars: a row a name, a panel a number.
#[derive(Clone, Debug, PartialEq)]
pub struct Bars {
    /// Above the chart; may be empty.
    pub title: String,
    /// From top to bottom.
    pub names: Vec<String>,
    /// From left to right.
    pub panels: Vec<Panel>,
}

/// One number of every row of [`Bars`].
#[derive(Clone, Debug, PartialEq)]
pub struct Panel {
    /// What it is, with its unit.
    pub axis: Axis,
    /// Its colour.
    pub colour: Colour,
    /// By row: the number and its interval; `None`: there is none.
    pub values: Vec<Option<Bar>>,
}

/// A bar.
#[derive(Clone, Debug, PartialEq)]
pub struct Bar {
    /// How long.
    pub value: f64,
    /// The ends of its interval.
    pub interval: Option<(f64, f64)>,
    /// The number, as it is written beside it.
    pub text: String,
}

/// A table of shares as colours, with texts where there is room: a confusion matrix.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix {
    /// From top to bottom.
    pub rows: Vec<String>,
    /// From left to right.
    pub columns: Vec<String>,
    /// What rows are.
    pub row_label: String,
    /// What columns are.
    pub column_label: String,
    /// Row by row: a share in `[0, 1]`, and what is written into the cell.
    pub cells: Vec<(f64, String)>,
}

/// Pictures of pixels in a row, on the next one where there is no more room.
#[derive(Clone, Debug, PartialEq)]
pub struct Images {
    /// Each with what it is; a whole PNG.
    pub images: Vec<(String, Vec<u8>)>,
}

/// Width and height of a PNG in pixels; `None` if it is none.
pub fn png_size(png: &[u8]) -> Option<(u32, u32)> {
    let is_png = png.starts_with(b"\x89PNG\r\n\x1a\n") && png.get(12..16)? == b"IHDR";
    let number = |at: usize| Some(u32::from_be_bytes(png.get(at..at + 4)?.try_into().ok()?));
    is_png.then_some((number(16)?, number(20)?))
}

/// A PNG as the address of itself.
pub fn png_uri(png: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(png.len() / 3 * 4 + 32);
    out.push_str("data:image/png;base64,");
    for three in png.chunks(3) {
        let bits = three.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for i in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * i) & 63) as usize];
            out.push(if i <= three.len() { char::from(letter) } else { '=' });
        }
    }
    out
}

/// One of a figure's charts.
#[derive(Clone, Debug, PartialEq)]
pub enum Chart {
    /// Points over two axes.
    Plot(Plot),
    /// Lines across parallel axes; as wide as the figure.
    Parallel(Parallel),
    /// Bars; as wide as the figure.
    Bars(Bars),
    /// A table of shares; as wide as the figure.
    Matrix(Matrix),
    /// Pictures; as wide as the figure.
    Images(Images),
}

/// Charts in a grid, under a title.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// At the top.
    pub title: String,
    /// Below the title, smaller; may be empty.
    pub subtitle: String,
    /// Row by row.
    pub charts: Vec<Chart>,
    /// Charts in a row, at least 1.
    pub columns: usize,
    /// What a reader who does not see it is told beside the title; may be empty.
    pub description: String,
}

impl Figure {
    /// A figure with two charts in a row.
    pub fn new(title: impl Into<String>, subtitle: impl Into<String>) -> Figure {
        Figure {
            title: title.into(),
            subtitle: subtitle.into(),
            charts: Vec::new(),
            columns: 2,
            description: String::new(),
        }
    }

    /// The picture, a whole SVG file.
    pub fn to_svg(&self) -> Vec<u8> {
        draw::figure(self).into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_base64() {
        let ends = [("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")];
        for (bytes, expected) in ends {
            assert_eq!(png_uri(bytes.as_bytes()), format!("data:image/png;base64,{expected}"));
        }
        assert!(png_uri(&[255, 254, 253]).ends_with("//79"));
        assert_eq!(png_size(b"no picture at all, but long enough"), None);
        let png = crate::artifact::sheet::rows(&[vec![vec![7; 12]]], 2).unwrap();
        assert_eq!(png_size(&png), Some((6, 6)));
    }

    #[test]
    fn every_colour_has_a_value_on_light_and_on_dark_paper() {
        let style = style();
        let (light, dark) = style.split_once("@media").unwrap();
        let colours = (0..6).map(categorical).chain((0..=20).map(|i| sequential(f64::from(i) / 20.0)));
        for colour in colours.chain([Colour::Grey]) {
            let rule = format!(".figure .{}{{color:#", colour.class());
            assert!(light.contains(&rule) && dark.contains(&rule), "{colour:?}");
        }
        assert_eq!(sequential(f64::NAN), Colour::Grey);
        assert_eq!([sequential(-1.0), sequential(2.0)], [Colour::Level(0), Colour::Level(LEVELS - 1)]);
    }
}
