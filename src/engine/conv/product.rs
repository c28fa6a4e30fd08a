//! The forward pass and the gradient with respect to the input: one driver, since the second is the first with source
//! and target exchanged.

use std::ops::Range;

use super::classes::{self, Class};

use crate::engine::Engine;
use crate::engine::ahead::{Ahead, Fetch};
use crate::engine::buffer::Buffer;
use crate::engine::fused::{Prepare, Source, Watch};
use crate::engine::kernel::{Finish, Kernels, MAX_MR, ProductTile, SpreadRow, Strip, UNROLL};
use crate::engine::panels::{Panel, panels};
use crate::engine::reference::ConvShape;
use crate::engine::threads::{Shares, part};

/// An image as the driver sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Image {
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) channels: usize,
}

impl Image {
    /// Input and output of a convolution.
    pub(super) fn of(s: &ConvShape) -> (Image, Image) {
        let input = Image { height: s.height, width: s.width, channels: s.channels_in };
        (input, Image { height: s.height_out(), width: s.width_out(), channels: s.filters })
    }

    pub(super) fn row(&self) -> usize {
        self.width * self.channels
    }

    pub(super) fn len(&self) -> usize {
        self.height * self.row()
    }

    /// Pixels before a row of an image.
    pub(super) fn pixels(&self, image: usize, row: usize) -> usize {
        (image * self.height + row) * self.width
    }

    /// Cuts units (blocks of `rows` rows of images, in order) into pieces that are swept at once.
    pub(super) fn pieces(
        self,
        units: Range<usize>,
        blocks: usize,
        rows: usize,
        images: usize,
    ) -> impl Iterator<Item = Piece> {
        let (mut at, end) = (units.start, units.end);
        std::iter::from_fn(move || {
            if at >= end {
                return None;
            }
            let (image, block) = (at / blocks, at % blocks);
            let n_images = if blocks == 1 { images.min(end - at) } else { 1 };
            at += n_images;
            let first = block * rows;
            Some(Piece { images: image..image + n_images, rows: first..(first + rows).min(self.height) })
        })
    }

    /// The values of a piece's images, from its first row on to its last; about enough at the edges where the rows are
    /// those of another side of the convolution, `height` high.
    fn part(&self, piece: &Piece, height: usize) -> Range<usize> {
        let (start, end) = (self.len() * piece.rows.start / height, self.len() * piece.rows.end / height);
        piece.images.start * self.len() + start..(piece.images.end - 1) * self.len() + end
    }
}

/// Plan and scratch of one direction.
pub(super) struct Product {
    shape: ConvShape,
    is_forward: bool,
    /// Whether each channel is a group of its own.
    is_depthwise: bool,
    source: Image,
    target: Image,
    /// Source channels of a group.
    depth: usize,
    /// Target channels of a group.
    columns: usize,
    classes: Vec<Class>,
    panels: Vec<Panel>,
    /// Values of one packed panel.
    panel_len: usize,
    /// Whether all panels are packed before the images are touched, or one at a time as it is needed.
    packs_first: bool,
    packed: Buffer,
    /// Target rows of a unit of work, when an image is cut into several.
    rows: usize,
    /// Images that are swept together, by one panel after the other.
    images: usize,
    /// Where the larger side of a pooled pass lives, piece by piece: values for each worker, 0 if it is not pooled.
    stage_len: usize,
    stage: Buffer,
}

/// Whether the convolution's output is there, or only the largest value of each 2x2 window of it.
pub(super) enum Pooled<'a> {
    /// All of it.
    No,
    /// Going forward, the target is pooled; `taps` gets the place of the largest values.
    Target { relu_mask: bool, taps: Option<&'a mut [u8]> },
    /// Going backward, the source is the gradient of pooled values, that came from these places.
    Source { taps: &'a [u8] },
}

/// [`Pooled`] as threads share it.
#[derive(Clone, Copy)]
pub(super) enum Side {
    Whole,
    Target(bool, Option<Shares<u8>>),
    Source(Shares<u8>),
}

impl Pooled<'_> {
    /// This as threads share it, and the lengths of source and target, which are given as those of whole ones.
    ///
    /// # Panics
    /// If there are too few taps.
    pub(super) fn shared(self, source_len: usize, target_len: usize) -> (Side, usize, usize) {
        match self {
            Pooled::No => (Side::Whole, source_len, target_len),
            Pooled::Target { relu_mask, taps } => {
                let taps = taps.map(|taps| Shares(taps[..target_len / 4].as_mut_ptr()));
                (Side::Target(relu_mask, taps), source_len, target_len / 4)
            }
            Pooled::Source { taps } => {
                (Side::Source(Shares(taps[..source_len / 4].as_ptr().cast_mut())), source_len / 4, target_len)
            }
        }
    }
}

impl Side {
    /// The values of source and target that a piece touches.
    pub(super) fn parts(self, source: &Image, target: &Image, piece: &Piece) -> (Range<usize>, Range<usize>) {
        let quarter = |part: Range<usize>| part.start / 4..part.end / 4;
        let (from, to) = (source.part(piece, target.height), target.part(piece, target.height));
        match self {
            Side::Whole => (from, to),
            Side::Target(..) => (from, quarter(to)),
            Side::Source(..) => (quarter(from), to),
        }
    }
}

/// Images, and rows of the target, that are swept together.
pub(super) struct Piece {
    pub(super) images: Range<usize>,
    pub(super) rows: Range<usize>,
}

impl Piece {
    /// Rows of tiles of 2x2 pixels.
    pub(super) fn n_tile_rows(&self) -> usize {
        self.images.len() * self.rows.len().div_ceil(2)
    }

    /// Image and first row of pixels of a row of tiles.
    pub(super) fn tile_row(&self, i: usize) -> (usize, usize) {
        let n = self.rows.len().div_ceil(2);
        (self.images.start + i / n, self.rows.start + 2 * (i % n))
    }
}

/// Where a piece of a pooled side is while it is worked on.
pub(super) struct Stage {
    pub(super) start: *mut f32,
    pub(super) len: usize,
}

impl Stage {
    /// Spreads out some rows (in whole windows) of some images of a pooled source. Returns where the source would start
    /// if all of it were there.
    ///
    /// # Panics
    /// If they do not fit.
    ///
    /// # Safety
    /// The stage is nobody else's, and source and taps are long enough.
    pub(super) unsafe fn spread(
        &self,
        kernels: &Kernels,
        image: &Image,
        (source, taps): (Shares<f32>, Shares<u8>),
        images: &Range<usize>,
        rows: &Range<usize>,
    ) -> Shares<f32> {
        let start = images.start * image.len() + rows.start * image.row();
        let used = (images.len() - 1) * image.len() + rows.len() * image.row();
        assert!(used <= self.len, "the stage is too short for {rows:?}");
        for i in images.clone() {
            for row in rows.clone().step_by(2) {
                let from = (i * image.height + row) / 2 * (image.row() / 2);
                let upper = self.start.wrapping_add(i * image.len() + row * image.row() - start);
                // SAFETY: the row lies in the pooled source, by this function's contract, and on the stage.
                unsafe {
                    (kernels.spread_row)(&SpreadRow {
                        grad: source.get().add(from),
                        taps: taps.get().add(from),
                        from_pixel: image.channels,
                        pixels: image.width / 2,
                        columns: image.channels,
                        to: [upper, upper.add(image.row())],
                        to_pixel: image.channels,
                    });
                }
            }
        }
        Shares(self.start.wrapping_sub(start))
    }
}

/// Operands of one call.
#[derive(Clone, Copy)]
pub(super) struct Operands<'a> {
    pub(super) source: Source<'a>,
    pub(super) weights: &'a [f32],
    pub(super) finish: Finish,
    /// Who is told of complete pixels of the target, unless that is pooled or finished panel by panel.
    pub(super) watch: Option<&'a dyn Watch>,
}

impl Product {
    pub(super) fn new(engine: &Engine, shape: &ConvShape, is_forward: bool, is_pooled: bool) -> Product {
        let s = *shape;
        let (input, output) = Image::of(&s);
        let (source, target) = if is_forward { (input, output) } else { (output, input) };
        let is_depthwise = s.groups > 1 && s.group_in() == 1 && s.group_out() == 1;
        let (groups, depth, columns) = if is_depthwise {
            (1, 1, s.channels_in)
        } else {
            (s.groups, source.channels / s.groups, target.channels / s.groups)
        };
        let kernels = engine.kernels();
        let (choice, l2) = (engine.choice(), engine.caches().l2);
        let nr = if is_depthwise { 1 } else { choice.nr.min(kernels.mr.len()) };
        let panels = panels(groups, columns, kernels.lanes, nr);
        let widest = panels.iter().map(|p| p.nr).max().unwrap_or(1);
        let panel_len = s.kernel_h * s.kernel_w * depth * widest * kernels.lanes;
        let all_bytes = panels.len() * panel_len * 4;
        let packs_first = choice.packs_first.unwrap_or(is_depthwise || all_bytes <= l2 / 2);
        let n_packed = if packs_first { panels.len() } else { engine.capacity() };
        let image_bytes = 4 * (source.len() + target.len());
        // An image too large for the cache is cut into rows. What a 1x1 kernel reads it reads once, so its blocks may
        // be small, and then the next one fits the cache beside it (14x14x256 -> 256: 14 rows 180, 5 rows 207 GFLOP/s);
        // larger kernels read some rows twice (56x56x64 -> 64 k3: 4 rows 197, 7 rows 224, 14 rows 217).
        let (most, block) = if s.kernel_h == 1 { (l2 / 3, l2 / 6) } else { (l2, l2 / 4) };
        let rows = match choice.rows {
            Some(rows) => rows,
            None if image_bytes > most => target.height.div_ceil(image_bytes.div_ceil(block)),
            // Too few images for the threads.
            None if s.batch < 2 * engine.capacity() => target.height.div_ceil(2 * engine.capacity()).max(2),
            None => target.height,
        };
        let rows = rows.clamp(1, target.height);
        // Windows of two rows stay together.
        let rows = if is_pooled { rows.next_multiple_of(2).min(target.height) } else { rows };
        // Enough pixels for the tiles of the smallest class, while source, target and the next piece stay in the L2
        // cache; more where the weights are large, so that they are visited less often. With a sixteenth and a quarter
        // of the cache (2 MiB, Sapphire Rapids): 28x28x1 -> 32 k3 forward 0.33 and 0.38 ms, steps of M 43.4 and 43.8,
        // of MBN 47.3 and 47.8; 8x8x256 -> 256 k3 186 and 202 GFLOP/s, 16x16x128 -> 128 k3 179 and 181.
        let share = if all_bytes > l2 / 8 { l2 / 4 } else { l2 / 16 };
        let images = choice.images.unwrap_or((share / image_bytes).clamp(1, 32)).min(s.batch);
        let stage_rows = match (is_forward, rows < target.height) {
            (true, _) => rows,
            (false, false) => source.height,
            // What `source_rows` gives, at most.
            (false, true) => (rows / s.stride_h + s.kernel_h * s.dilation_h + 4).min(source.height),
        };
        let row_len = if is_forward { target.row() } else { source.row() };
        let stage_len = if is_pooled && packs_first { images * stage_rows * row_len } else { 0 };
        let stage_len = stage_len.next_multiple_of(16);
        Product {
            shape: s,
            is_forward,
            is_depthwise,
            source,
            target,
            depth,
            columns,
            classes: classes::all(&s, is_forward, depth),
            panels,
            panel_len,
            packs_first,
            packed: Buffer::zeros(n_packed * panel_len),
            rows,
            images,
            stage_len,
            stage: Buffer::zeros(stage_len * engine.capacity()),
        }
    }

    /// Values of its scratch.
    pub(super) fn len(&self) -> usize {
        self.packed.len() + self.stage.len()
    }

    /// Whether [`Product::run`] takes pooled sides: if all weights are packed, so that an image is done with when the
    /// next one is begun.
    pub(super) fn can_pool(&self) -> bool {
        self.packs_first
    }

    /// Runs the pass over `n` images. A pooled side is a quarter as long.
    pub(super) fn run(
        &mut self,
        engine: &Engine,
        n: usize,
        mut operands: Operands<'_>,
        target: &mut [f32],
        pooled: Pooled<'_>,
    ) {
        assert!(n <= self.shape.batch, "{n} images for a batch of {}", self.shape.batch);
        let (source_len, target_len) = (n * self.source.len(), n * self.target.len());
        let (side, source_len, target_len) = pooled.shared(source_len, target_len);
        let can_pool = self.packs_first && self.stage_len > 0;
        let is_planned = match side {
            Side::Whole => true,
            Side::Target(..) => self.is_forward && can_pool,
            Side::Source(..) => !self.is_forward && can_pool,
        };
        assert!(is_planned, "planned without pooling");
        let source = operands.source.start(source_len);
        assert!(target.len() >= target_len, "the target is too short for {n} images");
        assert!(operands.weights.len() >= self.shape.weights_len(), "too few weights");
        let engine = &engine.sized(n as u64 * self.shape.multiply_adds());
        let kernels = engine.kernels();
        let packed = Shares(self.packed.as_mut_ptr());
        let stage = Shares(self.stage.as_mut_ptr());
        let this = &*self;
        let call =
            Call { plan: this, kernels, source, finish: operands.finish, target: Shares(target.as_mut_ptr()), side };
        let blocks = this.target.height.div_ceil(this.rows);
        if !this.packs_first || blocks > 1 || !matches!(side, Side::Whole) {
            operands.source.make(engine, n);
        }
        let panel_at = |slot: usize| packed.get().wrapping_add(slot * this.panel_len);

        if this.packs_first {
            let (n_panels, slices) = (this.panels.len(), this.shape.kernel_h * this.shape.kernel_w);
            let pack = |range: Range<usize>| {
                for i in range {
                    let (panel, tap) = (i / slices, i % slices);
                    // SAFETY: each tap of each panel is a slot of its own in `packed`, visited once.
                    unsafe { this.pack(kernels, panel, tap..tap + 1, operands.weights, panel_at(panel)) };
                }
            };
            // Below 64 KiB waking the others costs more than they save.
            if this.packed.len() >= 1 << 14 {
                engine.parallel_for(n_panels * slices, |range, _| pack(range));
            } else {
                pack(0..n_panels * slices);
            }
            let watch = operands.watch.filter(|_| !matches!(side, Side::Target(..)));
            engine.parallel_for(n * blocks, |units, worker| {
                let stage = stage.get().wrapping_add(worker * this.stage_len);
                let first = this.target.pixels(units.start / blocks, units.start % blocks * this.rows);
                let mut done = first;
                let mut pieces = this.target.pieces(units, blocks, this.rows, this.images).peekable();
                while let Some(piece) = pieces.next() {
                    let mut ahead = call.ahead(pieces.peek(), &piece, n_panels, operands.source.by, watch);
                    // SAFETY: units are disjoint parts of the target, each worker has a stage of its own; all lengths
                    // were checked above. Pieces are whole images where the source is made.
                    unsafe {
                        if let Some(by) = operands.source.by {
                            by.prepare(piece.images.clone(), source.get(), worker);
                        }
                        let staged = call.staged(&piece, stage);
                        for i in 0..n_panels {
                            staged.sweep(i, panel_at(i), &piece, &mut ahead);
                        }
                        call.pool(&piece, stage);
                        if let Some(watch) = watch {
                            let end = this.target.pixels(piece.images.end - 1, piece.rows.end);
                            let c = this.target.channels;
                            watch.completed(first, end - done, call.target.slice(first * c, (end - first) * c), worker);
                            done = end;
                        }
                    }
                }
            });
            return;
        }
        // Panels are dealt out, each packed once, unless there are too few of them to go round.
        let (threads, n_panels) = (engine.threads(), this.panels.len());
        let by_panel = n_panels.is_multiple_of(threads) || n_panels >= 4 * threads;
        engine.run(threads, |worker| {
            let all = (0..n_panels, 0..n * blocks);
            let (panels, units) = if by_panel {
                (part(n_panels, threads, worker), all.1)
            } else {
                (all.0, part(n * blocks, threads, worker))
            };
            if units.is_empty() {
                return;
            }
            for i in panels {
                // SAFETY: each worker has a slot of its own.
                unsafe {
                    this.pack(
                        kernels,
                        i,
                        0..this.shape.kernel_h * this.shape.kernel_w,
                        operands.weights,
                        panel_at(worker),
                    );
                }
                let mut pieces = this.target.pieces(units.clone(), blocks, this.rows, this.images).peekable();
                while let Some(piece) = pieces.next() {
                    let mut ahead = call.ahead(pieces.peek(), &piece, 1, None, None);
                    // SAFETY: panels and units are disjoint parts of the target; all lengths were checked above.
                    unsafe { call.sweep(i, panel_at(worker), &piece, &mut ahead) };
                }
            }
        });
    }

    /// Rows of the source that some rows of the target of a backward pass see, in whole windows of two.
    fn source_rows(&self, rows: &Range<usize>) -> Range<usize> {
        let s = &self.shape;
        let reach = (s.kernel_h - 1) * s.dilation_h;
        let end = ((rows.end - 1 + s.pad_top) / s.stride_h + 1).min(self.source.height).next_multiple_of(2);
        let start = (rows.start + s.pad_top).saturating_sub(reach) / s.stride_h;
        (start - start % 2).min(end)..end
    }

    /// Packs some taps (in the panel's own order) of a panel's weights.
    ///
    /// # Safety
    /// `to` has room for a panel, and nobody else touches those taps of it.
    unsafe fn pack(&self, kernels: &Kernels, panel: usize, taps: Range<usize>, weights: &[f32], to: *mut f32) {
        let s = &self.shape;
        let Panel { group, column, columns, nr } = self.panels[panel];
        let (row, n_taps) = (nr * kernels.lanes, s.kernel_h * s.kernel_w);
        for tap in taps {
            let to = to.wrapping_add(tap * self.depth * row);
            // SAFETY: blocks lie within the weights by their shape, and within the panel by this function's contract.
            unsafe {
                if self.is_depthwise {
                    let tap = if self.is_forward { tap } else { n_taps - 1 - tap };
                    (kernels.pack)(weights.as_ptr().add(tap * s.filters + column), 0, 1, columns, to, row);
                } else if self.is_forward {
                    let from = tap * self.depth * s.filters + group * self.columns + column;
                    (kernels.pack)(weights.as_ptr().add(from), s.filters, self.depth, columns, to, row);
                } else {
                    let from = ((n_taps - 1 - tap) * self.columns + column) * s.filters + group * self.depth;
                    (kernels.transpose)(weights.as_ptr().add(from), s.filters, columns, self.depth, to, row);
                }
            }
        }
    }
}

/// What all tiles of one call share.
#[derive(Clone, Copy)]
struct Call<'a> {
    plan: &'a Product,
    kernels: &'static Kernels,
    /// Only read.
    source: Shares<f32>,
    finish: Finish,
    target: Shares<f32>,
    side: Side,
}

impl Call<'_> {
    /// This call with the stage in place of its pooled side, on which a pooled source is spread out.
    ///
    /// # Safety
    /// The stage has room for the piece and is nobody else's.
    unsafe fn staged(&self, piece: &Piece, stage: *mut f32) -> Self {
        let plan = self.plan;
        match self.side {
            Side::Whole => *self,
            Side::Target(..) => {
                let start = piece.images.start * plan.target.len() + piece.rows.start * plan.target.row();
                Call { target: Shares(stage.wrapping_sub(start)), ..*self }
            }
            Side::Source(taps) => {
                let stage = Stage { start: stage, len: plan.stage_len };
                let (pooled, rows) = ((self.source, taps), plan.source_rows(&piece.rows));
                // SAFETY: by this function's contract, and lengths were checked.
                let source = unsafe { stage.spread(self.kernels, &plan.source, pooled, &piece.images, &rows) };
                Call { source, ..*self }
            }
        }
    }

    /// Pools what a piece has left on the stage, if the target is pooled.
    ///
    /// # Safety
    /// The piece is on the stage, and nobody else touches its part of the target.
    unsafe fn pool(&self, piece: &Piece, stage: *const f32) {
        let Side::Target(relu_mask, taps) = self.side else { return };
        let image = self.plan.target;
        let start = piece.images.start * image.len() + piece.rows.start * image.row();
        for i in piece.images.clone() {
            for row in piece.rows.clone().step_by(2) {
                let to = (i * image.height + row) / 2 * (image.row() / 2);
                let upper = stage.wrapping_add(i * image.len() + row * image.row() - start);
                let taps = taps.map_or(std::ptr::null_mut(), |taps| taps.get().wrapping_add(to));
                // SAFETY: by this function's contract.
                unsafe {
                    let (lower, out) = (upper.add(image.row()), self.target.get().add(to));
                    (self.kernels.pool_row)(upper, lower, image.width / 2, image.channels, relu_mask, out, taps);
                }
            }
        }
    }

    /// What the next piece reads and writes, to be fetched while so many panels of this one are swept.
    fn ahead(
        &self,
        next: Option<&Piece>,
        now: &Piece,
        n_panels: usize,
        by: Option<&dyn Prepare>,
        watch: Option<&dyn Watch>,
    ) -> Ahead<5> {
        let (from, to) = (&self.plan.source, &self.plan.target);
        let none = (std::ptr::null(), 0);
        let Some(next) = next else { return Ahead::new([none; 5], 1) };
        let tiles =
            now.images.len() * now.rows.len() * to.width * n_panels / self.kernels.mr[self.plan.panels[0].nr - 1];
        let (source, target) = self.side.parts(from, to, next);
        let y = self.target.get().cast_const().wrapping_add(target.start);
        let clip = self.finish.clip.map_or(none, |clip| (y.wrapping_offset(clip), target.len()));
        let x = self.source.get().cast_const().wrapping_add(source.start);
        let made = by.map_or(none, |by| by.reads(next.images.clone()));
        let watched = watch.map_or(none, |watch| watch.reads(target.clone()));
        Ahead::new([made, (x, source.len()), (y, target.len()), clip, watched], tiles)
    }

    /// Computes one panel's columns of some rows of some images.
    ///
    /// # Safety
    /// Nobody else touches those, and source and target are long enough.
    unsafe fn sweep(&self, panel: usize, packed: *const f32, piece: &Piece, ahead: &mut Ahead<5>) {
        let Piece { images, rows } = piece;
        let plan = self.plan;
        let Panel { group, column, columns, nr } = plan.panels[panel];
        let (from, to) = (&plan.source, &plan.target);
        let first_column = group * plan.columns + column;
        let source_column = if plan.is_depthwise { column } else { group * plan.depth };
        let (mr, tiles) = if plan.is_depthwise {
            (self.kernels.mr[0], &self.kernels.each_product)
        } else {
            (self.kernels.mr[nr - 1], &self.kernels.product[nr - 1])
        };
        let mut finish = self.finish;
        if !finish.bias.is_null() {
            finish.bias = finish.bias.wrapping_add(first_column);
        }
        let mut tile = ProductTile {
            runs: std::ptr::null(),
            n_runs: 0,
            panel: packed,
            panel_row: nr * self.kernels.lanes,
            columns,
            resumes: false,
            finish: Some(finish),
            fetch: Fetch::NOTHING,
            x: [std::ptr::null(); MAX_MR],
            y: [std::ptr::null_mut(); MAX_MR],
        };
        for class in &plan.classes {
            let members = class.rows.members(rows);
            let (n_rows, n_columns) = (members.len(), class.columns.count);
            let n_pixels = images.len() * n_rows * n_columns;
            if n_pixels == 0 {
                continue;
            }
            (tile.runs, tile.n_runs) = (class.runs.as_ptr(), class.runs.len());
            let rounds = class.runs.iter().map(|run| run.len / UNROLL).sum();
            let source_row = class.rows.source + (members.start * class.rows.source_step) as isize;
            let target_row = class.rows.target + members.start * class.rows.target_step;
            // Pointers walk by columns, then rows, then images.
            let mut x = self
                .source
                .get()
                .cast_const()
                .wrapping_add(images.start * from.len() + source_column)
                .wrapping_offset(source_row * from.row() as isize + class.columns.source * from.channels as isize);
            let mut y = self.target.get().wrapping_add(
                images.start * to.len() + target_row * to.row() + class.columns.target * to.channels + first_column,
            );
            let (x_column, y_column) =
                (class.columns.source_step * from.channels, class.columns.target_step * to.channels);
            let (x_row, y_row) = (class.rows.source_step * from.row(), class.rows.target_step * to.row());
            // First layers: chains are so short that setting up a tile would take as long.
            let strips = self.kernels.strips.iter().find(|strips| strips.x_pixel == x_column);
            if let Some(strips) = strips.filter(|_| !plan.is_depthwise && 2 * n_columns >= mr && finish.clip.is_none())
            {
                let n_tiles = n_columns.div_ceil(mr);
                for _ in images.clone() {
                    for i in 0..n_tiles {
                        let columns = part(n_columns, n_tiles, i);
                        let strip = Strip {
                            runs: tile.runs,
                            n_runs: tile.n_runs,
                            panel: packed,
                            columns: tile.columns,
                            finish,
                            fetch: ahead.next(n_rows, n_rows * tile.n_runs),
                            x: x.wrapping_add(columns.start * x_column),
                            y: y.wrapping_add(columns.start * y_column),
                            y_pixel: y_column,
                            n_rows,
                            x_row,
                            y_row,
                        };
                        // SAFETY: as below, of each row.
                        unsafe { strips.tiles[nr - 1][columns.len() - 1](&strip) };
                    }
                    (x, y) = (x.wrapping_add(from.len()), y.wrapping_add(to.len()));
                }
                continue;
            }
            let (mut c, mut r) = (0, 0);
            let n_tiles = n_pixels.div_ceil(mr);
            for i in 0..n_tiles {
                let height = part(n_pixels, n_tiles, i).len();
                for j in 0..height {
                    (tile.x[j], tile.y[j]) = (x, y);
                    c += 1;
                    (x, y) = (x.wrapping_add(x_column), y.wrapping_add(y_column));
                    if c == n_columns {
                        c = 0;
                        r += 1;
                        x = x.wrapping_sub(n_columns * x_column).wrapping_add(x_row);
                        y = y.wrapping_sub(n_columns * y_column).wrapping_add(y_row);
                        if r == n_rows {
                            r = 0;
                            x = x.wrapping_sub(n_rows * x_row).wrapping_add(from.len());
                            y = y.wrapping_sub(n_rows * y_row).wrapping_add(to.len());
                        }
                    }
                }
                tile.fetch = ahead.next(1, rounds);
                // SAFETY: every tap of the class lies inside the source for every pixel of the class; the target's
                // pixels are ours by this function's contract.
                unsafe { tiles[height - 1](&tile) };
            }
        }
    }
}
