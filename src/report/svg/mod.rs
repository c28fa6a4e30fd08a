//! Pictures of numbers as SVG: charts with linear, logarithmic and categorical axes, and parallel axes.
//!
//! Start at [`Figure`]: a title and some [`Chart`]s in a grid, rendered by [`Figure::to_svg`]. A chart holds
//! [`Series`] of points, drawn as lines or dots, or, in [`Parallel`], lines across several axes. The same figure gives
//! the same bytes everywhere: coordinates are rounded to hundredths, and nothing depends on fonts, time or machine.
//! Colours are those of Okabe and Ito (2008), which readers with any colour vision can tell apart, and for ordered
//! values viridis.

mod axis;
mod draw;

pub use axis::{Axis, Scale};

/// A colour as SVG has it, `#rrggbb`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Colour(pub [u8; 3]);

/// What has nothing to be told apart from.
pub const GREY: Colour = Colour([0x8c, 0x8c, 0x8c]);

/// Colours for things without an order (Okabe and Ito 2008, without black and their yellow, which is pale on white).
pub const PALETTE: [Colour; 6] = [
    Colour([0x00, 0x72, 0xb2]),
    Colour([0xd5, 0x5e, 0x00]),
    Colour([0x00, 0x9e, 0x73]),
    Colour([0xcc, 0x79, 0xa7]),
    Colour([0xe6, 0x9f, 0x00]),
    Colour([0x56, 0xb4, 0xe9]),
];

/// Nine points of viridis, up to where it becomes too pale for lines on white.
const VIRIDIS: [[u8; 3]; 9] = [
    [68, 1, 84],
    [71, 39, 119],
    [62, 73, 137],
    [48, 103, 141],
    [37, 130, 142],
    [30, 157, 136],
    [53, 183, 120],
    [109, 205, 88],
    [165, 214, 40],
];

/// The colour of the `i`-th thing, around again after the last one.
pub fn categorical(i: usize) -> Colour {
    PALETTE[i % PALETTE.len()]
}

/// The colour of an ordered value: `t` in `[0, 1]`, dark for low, bright for high. What is not a number is grey.
pub fn sequential(t: f64) -> Colour {
    if t.is_nan() {
        return GREY;
    }
    let at = t.clamp(0.0, 1.0) * (VIRIDIS.len() - 1) as f64;
    let i = (at as usize).min(VIRIDIS.len() - 2);
    let part = at - i as f64;
    let mix = |c: usize| {
        let (low, high) = (f64::from(VIRIDIS[i][c]), f64::from(VIRIDIS[i + 1][c]));
        (low + (high - low) * part).round() as u8
    };
    Colour([mix(0), mix(1), mix(2)])
}

impl Colour {
    fn hex(self) -> String {
        let [r, g, b] = self.0;
        format!("#{r:02x}{g:02x}{b:02x}")
    }
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

/// One of a figure's charts.
#[derive(Clone, Debug, PartialEq)]
pub enum Chart {
    /// Points over two axes.
    Plot(Plot),
    /// Lines across parallel axes; as wide as the figure.
    Parallel(Parallel),
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
}

impl Figure {
    /// A figure with two charts in a row.
    pub fn new(title: impl Into<String>, subtitle: impl Into<String>) -> Figure {
        Figure { title: title.into(), subtitle: subtitle.into(), charts: Vec::new(), columns: 2 }
    }

    /// The picture, a whole SVG file.
    pub fn to_svg(&self) -> Vec<u8> {
        draw::figure(self).into_bytes()
    }
}
