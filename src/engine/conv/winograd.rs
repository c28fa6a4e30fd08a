//! Convolutions of 3x3 by Winograd's F(2x2, 3x3): products over channels for each of 16 points of transformed tiles.
//!
//! Four outputs take 16 multiply-adds a channel instead of 36 (Lavin & Gray 2016). It is a definition of its own,
//! [`reference::winograd_forward`] and its neighbours, and the default for the shapes that [`applies`] names. Each
//! point's sum is one chain, over channels going forward and over tiles for the weights, so bits depend on neither
//! threads nor instruction set here either.
//!
//! [`reference::winograd_forward`]: crate::engine::reference::winograd_forward

use std::ops::Range;

use super::gradient::{Summands, merge, shared_out};
use super::product::{Image, Operands, Piece, Pooled, Side, Stage};

use crate::engine::Engine;
use crate::engine::ahead::Ahead;
use crate::engine::buffer::Buffer;
use crate::engine::fused::{Prepare, Watch};
use crate::engine::kernel::{
    CHUNK, Finish, GradientRow, ImageRow, Kernels, OuterTile, OutputRow, PointTile, Points, PooledRow, SIDE, Sweep,
    TILE, UNROLL,
};
use crate::engine::panels::{Panel, panels};
use crate::engine::reference::ConvShape;
use crate::engine::reference::winograd::chunk_images;
use crate::engine::threads::{Shares, part};

/// Tiles of a block going from image to image, where weights stay in the L2 cache: one register tile, whose sums of all
/// points then stay in the L1 cache. (Steps of M in images/s with 14, 28 and 42, medians of 4: 2,178, 2,141, 2,097.)
const PRODUCT_TILES: usize = 14;

/// Tiles of a block of a weight gradient, whose sums are visited once for each. (Medians of 5 rounds in turns with 28,
/// 42, 56, 84 and 112: steps of M 2,203, 2,195, 2,214, 2,236, 2,232 images/s; 14x14x64 -> 64 3.83, 3.65, 3.61, 3.50,
/// 3.56 ms.)
const GRADIENT_TILES: usize = 84;

/// Points of a tile.
const POINTS: usize = SIDE * SIDE;

/// Points of sums lie so many values further apart than they must, so that a tile's 16 do not share a cache set.
const APART: usize = 16;

/// Rows that lie outside an image.
fn zeros(image: &Image) -> Buffer {
    Buffer::zeros(image.row())
}

/// A row of an image, or zeros where it has none.
fn row_of(image: &Image, start: *const f32, row: isize, zeros: &Buffer) -> *const f32 {
    if row < 0 || row >= image.height as isize {
        zeros.as_ptr()
    } else {
        start.wrapping_add(row as usize * image.row())
    }
}

/// How a pass is cut: into pieces that stay in the L2 cache, those into blocks whose rows of points stay in the L1
/// cache.
#[derive(Clone, Copy)]
struct Cut {
    /// Target rows of a piece, even; all, where it is whole images.
    rows: usize,
    /// Images of a piece.
    images: usize,
    /// Rows of tiles of a block.
    block: usize,
}

impl Cut {
    /// For blocks of so many tiles over `image`; more where each block visits weights (or their sums) that do not stay
    /// in the L2 cache, if tiles of so many values in a row of points do.
    fn new(
        engine: &Engine,
        batch: usize,
        image: &Image,
        piece_bytes: usize,
        tiles: usize,
        weights: (usize, usize),
    ) -> Cut {
        let (choice, caches) = (engine.choice(), engine.caches());
        let (across, down) = (image.width.div_ceil(2), image.height.div_ceil(2));
        // Too few images for the threads.
        let n_parts = if batch < 2 * engine.capacity() { 2 * engine.capacity() } else { 1 };
        let most = (caches.l2 / 4 * down / piece_bytes).max(1);
        let rows = choice.rows.map_or(most.min(down.div_ceil(n_parts)), |rows| rows.div_ceil(2)).clamp(1, down);
        let images = if rows < down { 1 } else { choice.images.unwrap_or(most / down).clamp(1, batch) };
        let (weights, values) = weights;
        let tiles = if weights > caches.l2 / 2 { (caches.l2 / 2 / (4 * SIDE * values)).max(tiles) } else { tiles };
        let block = choice.images.unwrap_or(tiles / across).clamp(1, images * rows);
        Cut { rows: 2 * rows, images, block }
    }
}

/// Plan and scratch of one direction: the forward pass, or the gradient with respect to the input, which is the same
/// with source and target exchanged and kernels turned round.
pub(super) struct Winograd {
    shape: ConvShape,
    is_forward: bool,
    source: Image,
    target: Image,
    /// Rows and columns of nothing before the source.
    before: (isize, isize),
    panels: Vec<Panel>,
    /// Columns of the widest panel.
    wide: usize,
    /// Going backward, transformed kernels, `[point][channels_in][filters]`; then these in panels.
    transformed: Buffer,
    packed: Buffer,
    cut: Cut,
    zeros: Buffer,
    /// Values of a chunk of channels of a row of points of a block's source tiles; of a point, and of all, of a panel's
    /// sums.
    chunk_len: usize,
    point_len: usize,
    /// Where a pooled source is spread out.
    stage_len: usize,
    worker_len: usize,
    scratch: Buffer,
}

impl Winograd {
    pub(super) fn new(engine: &Engine, shape: &ConvShape, is_forward: bool, is_pooled: bool) -> Winograd {
        let s = *shape;
        let (input, output) = Image::of(&s);
        let (source, target) = if is_forward { (input, output) } else { (output, input) };
        let pads = (s.pad_top as isize, s.pad_left as isize);
        let before = if is_forward { pads } else { (2 - pads.0, 2 - pads.1) };
        let kernels = engine.kernels();
        let panels = panels(1, target.channels, kernels.lanes, engine.choice().nr.min(kernels.mr.len()));
        let wide = panels.iter().map(|p| p.nr).max().unwrap_or(1) * kernels.lanes;
        let packed_len = panels.len() * POINTS * source.channels * wide;
        let weights = (4 * packed_len, source.channels + SIDE * panels.len() * wide);
        let cut = Cut::new(engine, s.batch, &target, 4 * (source.len() + target.len()), PRODUCT_TILES, weights);
        let n_tiles = cut.block * target.width.div_ceil(2);
        let (chunk_len, point_len) = (n_tiles * TILE, n_tiles * wide + APART);
        let stage_rows = (cut.rows + 4).next_multiple_of(2).min(source.height.next_multiple_of(2));
        let stage_len = if is_pooled && !is_forward { cut.images * stage_rows * source.row() } else { 0 };
        let stage_len = stage_len.next_multiple_of(16);
        let worker_len = source.channels.div_ceil(CHUNK) * chunk_len + panels.len() * POINTS * point_len + stage_len;
        Winograd {
            shape: s,
            is_forward,
            source,
            target,
            before,
            wide,
            transformed: Buffer::zeros(if is_forward { 0 } else { POINTS * s.channels_in * s.filters }),
            packed: Buffer::zeros(packed_len),
            panels,
            cut,
            zeros: zeros(&source),
            chunk_len,
            point_len,
            stage_len,
            worker_len,
            scratch: Buffer::zeros(worker_len * engine.capacity()),
        }
    }

    /// Values of its scratch.
    pub(super) fn len(&self) -> usize {
        self.transformed.len() + self.packed.len() + self.scratch.len() + self.zeros.len()
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
        let source = operands.source.start(source_len);
        assert!(target.len() >= target_len, "the target is too short for {n} images");
        assert!(operands.weights.len() >= self.shape.weights_len(), "too few weights");
        let is_staged = matches!(side, Side::Source(_));
        assert!(!is_staged || self.stage_len > 0, "planned without pooling");
        let engine = &engine.sized(n as u64 * self.shape.multiply_adds());
        let kernels = engine.kernels();
        self.pack(engine, operands.weights);
        let scratch = Shares(self.scratch.as_mut_ptr());
        let (this, target) = (&*self, Shares(target.as_mut_ptr()));
        let Cut { rows, images, .. } = this.cut;
        let blocks = this.target.height.div_ceil(rows);
        if blocks > 1 || !matches!(side, Side::Whole) {
            operands.source.make(engine, n);
        }
        let watch = operands.watch.filter(|_| !matches!(side, Side::Target(..)));
        engine.parallel_for(n * blocks, |units, worker| {
            let scratch = scratch.get().wrapping_add(worker * this.worker_len);
            let call = Call { plan: this, kernels, source, target, finish: operands.finish, side, scratch };
            let first = this.target.pixels(units.start / blocks, units.start % blocks * rows);
            let mut done = first;
            let mut pieces = this.target.pieces(units, blocks, rows, images).peekable();
            while let Some(piece) = pieces.next() {
                let mut ahead = call.ahead(pieces.peek(), &piece, operands.source.by, watch);
                // SAFETY: units are disjoint parts of the target, each worker has a scratch of its own; all lengths
                // were checked above. Pieces are whole images where the source is made.
                unsafe {
                    if let Some(by) = operands.source.by {
                        by.prepare(piece.images.clone(), source.get(), worker);
                    }
                    call.piece(&piece, &mut ahead);
                    if let Some(watch) = watch {
                        let end = this.target.pixels(piece.images.end - 1, piece.rows.end);
                        let c = this.target.channels;
                        watch.completed(first, end - done, target.slice(first * c, (end - first) * c), worker);
                        done = end;
                    }
                }
            }
        });
    }

    /// Where a panel's point is packed, `[depth][wide]`, in values from the start.
    fn packed_at(&self, panel: usize, point: usize, wide: usize) -> usize {
        self.source.channels * (POINTS * self.wide * panel + wide * point)
    }

    /// Transforms the kernels, and packs them into panels.
    fn pack(&mut self, engine: &Engine, weights: &[f32]) {
        let (s, kernels) = (&self.shape, engine.kernels());
        let (transformed, packed) = (Shares(self.transformed.as_mut_ptr()), Shares(self.packed.as_mut_ptr()));
        let plane = s.channels_in * s.filters;
        let this = &*self;
        // Going forward a channel's filters are a row of the panel; going backward they are a column.
        let rows = |range: Range<usize>| {
            for i in range {
                let (panel, channel) = (i / s.channels_in, i % s.channels_in);
                let Panel { column, columns, nr, .. } = this.panels[panel];
                let wide = nr * kernels.lanes;
                let to = packed.get().wrapping_add(this.packed_at(panel, 0, wide) + channel * wide);
                let to_point = this.packed_at(0, 1, wide);
                // SAFETY: the channel's filters lie within each tap's plane; each row of a panel is visited once.
                unsafe {
                    let from = weights.as_ptr().add(channel * s.filters + column);
                    (kernels.winograd_weights)(from, plane, columns, to, to_point);
                }
            }
        };
        let transform = |range: Range<usize>| {
            let (from, to) = (weights.as_ptr().wrapping_add(range.start), transformed.get().wrapping_add(range.start));
            // SAFETY: the range lies within each tap's and each point's plane, and is nobody else's.
            unsafe { (kernels.winograd_weights)(from, plane, range.len(), to, plane) };
        };
        let columns = |range: Range<usize>| {
            for i in range {
                let (panel, point) = (i / POINTS, i % POINTS);
                let Panel { column, columns, nr, .. } = this.panels[panel];
                let wide = nr * kernels.lanes;
                let at = this.packed_at(panel, point, wide);
                // Turned round, a kernel has its first and last points exchanged.
                let turned = [3, 1, 2, 0];
                let point = SIDE * turned[point / SIDE] + turned[point % SIDE];
                // SAFETY: the block lies within the point's plane, and each panel's point has columns of its own.
                unsafe {
                    let from = transformed.get().add(point * plane + column * s.filters);
                    (kernels.transpose)(from, s.filters, columns, s.filters, packed.get().add(at), wide);
                }
            }
        };
        let n_rows = this.panels.len() * s.channels_in;
        // Below 64 KiB waking the others costs more than they save.
        match (self.is_forward, POINTS * plane >= 1 << 14) {
            (true, true) => engine.parallel_for(n_rows, |range, _| rows(range)),
            (true, false) => rows(0..n_rows),
            (false, true) => {
                engine.parallel_for(plane, |range, _| transform(range));
                engine.parallel_for(this.panels.len() * POINTS, |range, _| columns(range));
            }
            (false, false) => {
                transform(0..plane);
                columns(0..this.panels.len() * POINTS);
            }
        }
    }
}

/// What one worker needs of a call.
struct Call<'a> {
    plan: &'a Winograd,
    kernels: &'static Kernels,
    /// Only read.
    source: Shares<f32>,
    target: Shares<f32>,
    finish: Finish,
    side: Side,
    scratch: *mut f32,
}

impl Call<'_> {
    /// What the next piece reads and writes, to be fetched while this one is worked on.
    fn ahead(
        &self,
        next: Option<&Piece>,
        now: &Piece,
        by: Option<&dyn Prepare>,
        watch: Option<&dyn Watch>,
    ) -> Ahead<5> {
        let plan = self.plan;
        let none = (std::ptr::null(), 0);
        let Some(next) = next else { return Ahead::new([none; 5], 1) };
        let (source, target) = self.side.parts(&plan.source, &plan.target, next);
        let y = self.target.get().cast_const().wrapping_add(target.start);
        let clip = self.finish.clip.map_or(none, |clip| (y.wrapping_offset(clip), target.len()));
        let x = self.source.get().cast_const().wrapping_add(source.start);
        let made = by.map_or(none, |by| by.reads(next.images.clone()));
        let mr = self.kernels.mr[plan.panels[0].nr - 1];
        let groups = (plan.cut.block * plan.target.width.div_ceil(2)).div_ceil(mr);
        let steps = now.n_tile_rows().div_ceil(plan.cut.block) * groups * POINTS * plan.panels.len();
        let watched = watch.map_or(none, |watch| watch.reads(target.clone()));
        Ahead::new([made, (x, source.len()), (y, target.len()), clip, watched], steps)
    }

    /// Computes all columns of some rows of some images.
    ///
    /// # Safety
    /// Nobody else touches those, nor the scratch; source and target are long enough.
    unsafe fn piece(&self, piece: &Piece, ahead: &mut Ahead<5>) {
        let plan = self.plan;
        let from = &plan.source;
        let stage = self.scratch.wrapping_add(plan.worker_len - plan.stage_len);
        // SAFETY: of all blocks: by this function's contract, and as planned.
        unsafe {
            let source = match self.side {
                Side::Source(taps) => {
                    let first = piece.rows.start as isize - plan.before.0;
                    let end = first + piece.rows.len().next_multiple_of(2) as isize + 2;
                    let inside = |row: isize| row.clamp(0, from.height as isize) as usize;
                    let rows = inside(first) / 2 * 2..inside(end).next_multiple_of(2);
                    let stage = Stage { start: stage, len: plan.stage_len };
                    stage.spread(self.kernels, from, (self.source, taps), &piece.images, &rows).get()
                }
                _ => self.source.get(),
            };
            for first in (0..piece.n_tile_rows()).step_by(plan.cut.block) {
                let block = first..(first + plan.cut.block).min(piece.n_tile_rows());
                for row in 0..SIDE {
                    self.points(row, piece, block.clone(), source, ahead);
                }
                self.store(piece, block);
            }
        }
    }

    /// A row of points of a block: transforms the source, and multiplies.
    ///
    /// # Safety
    /// As for [`Call::piece`].
    unsafe fn points(&self, row: usize, piece: &Piece, block: Range<usize>, source: *const f32, ahead: &mut Ahead<5>) {
        let (plan, kernels) = (self.plan, self.kernels);
        let (from, across) = (&plan.source, plan.target.width.div_ceil(2));
        let tiles = self.scratch;
        // SAFETY: by this function's contract.
        unsafe {
            for (i, tile_row) in block.clone().enumerate() {
                let (image, first) = piece.tile_row(tile_row);
                let start = source.wrapping_add(image * from.len());
                let before = first as isize - plan.before.0;
                (kernels.winograd_image)(&ImageRow {
                    rows: ImageRow::SOURCES[row].map(|i| row_of(from, start, before + i as isize, &plan.zeros)),
                    adds: row == ImageRow::SUM,
                    width: from.width,
                    left: plan.before.1,
                    n_tiles: across,
                    pixel: from.channels,
                    channels: [0, from.channels],
                    to: Points { start: tiles.add(i * across * TILE), tile: TILE, point: CHUNK },
                    chunk: plan.chunk_len,
                });
            }
            let (n_tiles, rounds) = (block.len() * across, from.channels / UNROLL);
            for (i, panel) in plan.panels.iter().enumerate() {
                let wide = panel.nr * kernels.lanes;
                let n_groups = n_tiles.div_ceil(kernels.mr[panel.nr - 1]);
                for column in 0..SIDE {
                    let point = row * SIDE + column;
                    let panel_at = plan.packed.as_ptr().add(plan.packed_at(i, point, wide));
                    let mut x = tiles.wrapping_add(column * CHUNK).cast_const();
                    let mut y = self.sums(i).wrapping_add(point * plan.point_len);
                    for group in 0..n_groups {
                        let height = part(n_tiles, n_groups, group).len();
                        kernels.winograd_product[panel.nr - 1][height - 1](&PointTile {
                            x,
                            chunk: plan.chunk_len,
                            depth: from.channels,
                            panel: panel_at,
                            y,
                            fetch: ahead.next(1, rounds),
                        });
                        x = x.wrapping_add(height * TILE);
                        y = y.wrapping_add(height * wide);
                    }
                }
            }
        }
    }

    /// Where a panel's sums are, `[point][tile][wide]`.
    fn sums(&self, panel: usize) -> *mut f32 {
        let plan = self.plan;
        let tiles_len = plan.source.channels.div_ceil(CHUNK) * plan.chunk_len;
        self.scratch.wrapping_add(tiles_len + panel * POINTS * plan.point_len)
    }

    /// Writes the pixels of a block.
    ///
    /// # Safety
    /// As for [`Call::piece`]; all rows of points are done.
    unsafe fn store(&self, piece: &Piece, block: Range<usize>) {
        let (plan, to) = (self.plan, &self.plan.target);
        let across = to.width.div_ceil(2);
        for (panel_idx, panel) in plan.panels.iter().enumerate() {
            let wide = panel.nr * self.kernels.lanes;
            let mut finish = self.finish;
            if !finish.bias.is_null() {
                finish.bias = finish.bias.wrapping_add(panel.column);
            }
            for (i, tile_row) in block.clone().enumerate() {
                let (image, row) = piece.tile_row(tile_row);
                let (rows, pooled) = match self.side {
                    Side::Target(relu_mask, taps) => {
                        let at = (image * to.height + row) / 2 * (to.row() / 2) + panel.column;
                        let taps = taps.map_or(std::ptr::null_mut(), |taps| taps.get().wrapping_add(at));
                        let row = self.target.get().wrapping_add(at);
                        ([row, std::ptr::null_mut()], Some(PooledRow { taps, relu_mask }))
                    }
                    _ => {
                        let upper = self.target.get().wrapping_add(image * to.len() + row * to.row() + panel.column);
                        let has_lower = row + 1 < to.height;
                        let lower = if has_lower { upper.wrapping_add(to.row()) } else { std::ptr::null_mut() };
                        ([upper, lower], None)
                    }
                };
                let row = OutputRow {
                    sums: self.sums(panel_idx).wrapping_add(i * across * wide),
                    point: plan.point_len,
                    wide,
                    n_tiles: across,
                    columns: panel.columns,
                    rows,
                    width: to.width,
                    pixel: to.channels,
                    finish,
                    pooled,
                };
                // SAFETY: by this function's contract.
                unsafe { (self.kernels.winograd_output)(&row) };
            }
        }
    }
}

/// Plan and scratch of the gradient with respect to weights and bias.
pub(super) struct WinogradGradient {
    shape: ConvShape,
    input: Image,
    output: Image,
    panels: Vec<Panel>,
    cut: Cut,
    input_zeros: Buffer,
    output_zeros: Buffer,
    /// Columns of the widest panel.
    wide: usize,
    /// Tiles of a block.
    n_tiles: usize,
    /// Values of a row of points of a block: of a chunk of channels of the input, `[4][tile][CHUNK]`, and of a panel of
    /// the output gradient, `[4][tile][wide]`.
    chunk_len: usize,
    panel_len: usize,
    worker_len: usize,
    scratch: Buffer,
    /// Sums of each chunk: points, then bias.
    sums: Buffer,
}

impl WinogradGradient {
    pub(super) fn new(engine: &Engine, shape: &ConvShape) -> WinogradGradient {
        let s = *shape;
        let (input, output) = Image::of(&s);
        let kernels = engine.kernels();
        let panels = panels(1, s.filters, kernels.lanes, engine.choice().nr.min(kernels.mr.len()));
        let wide = panels.iter().map(|p| p.nr).max().unwrap_or(1) * kernels.lanes;
        let plane = s.channels_in * s.filters;
        let sums = (4 * POINTS * plane, s.channels_in + panels.len() * wide);
        let cut = Cut::new(engine, s.batch, &output, 4 * (input.len() + output.len()), GRADIENT_TILES, sums);
        let n_tiles = cut.block * output.width.div_ceil(2);
        let (chunk_len, panel_len) = (n_tiles * TILE, n_tiles * SIDE * wide);
        let worker_len = s.channels_in.div_ceil(CHUNK) * chunk_len + panels.len() * panel_len;
        let n_chunks = (1..=s.batch).map(|n| n.div_ceil(chunk_images(&s, n))).max().unwrap_or(1);
        let sums_len = POINTS * plane + s.filters;
        WinogradGradient {
            shape: s,
            input,
            output,
            panels,
            cut,
            input_zeros: zeros(&input),
            output_zeros: zeros(&output),
            wide,
            n_tiles,
            chunk_len,
            panel_len,
            worker_len,
            scratch: Buffer::zeros(worker_len * engine.capacity()),
            sums: Buffer::zeros(n_chunks * sums_len),
        }
    }

    /// Values of its scratch.
    pub(super) fn len(&self) -> usize {
        self.scratch.len() + self.sums.len() + self.input_zeros.len() + self.output_zeros.len()
    }

    /// Sums the gradients; overwrites both.
    pub(super) fn run(
        &mut self,
        engine: &Engine,
        summands: Summands<'_>,
        grad_weights: &mut [f32],
        grad_bias: Option<&mut [f32]>,
    ) {
        let s = self.shape;
        let grad = summands.checked(&s, grad_weights, grad_bias.as_deref());
        let Summands { n, input, mut grad_output, taps } = summands;
        let engine = &engine.sized(n as u64 * s.multiply_adds());
        let kernels = engine.kernels();
        let per_chunk = chunk_images(&s, n);
        let n_chunks = n.div_ceil(per_chunk).max(1);
        let plane = s.channels_in * s.filters;
        let sums_len = POINTS * plane + s.filters;
        let (scratch, sums) = (Shares(self.scratch.as_mut_ptr()), Shares(self.sums.as_mut_ptr()));
        let this = &*self;
        // Threads share out chunks as far as those go round, then the channels of each: a worker transforms its own.
        let threads = engine.threads();
        let (by_chunk, by_channel) = shared_out(threads, n_chunks);
        // Each image is made by the one worker that reads it.
        if by_channel > 1 || this.cut.rows < this.output.height {
            grad_output.make(engine, n);
        }
        engine.run(threads, |worker| {
            // Whole vectors, where there are enough of them.
            let vectors = s.channels_in.div_ceil(kernels.lanes);
            let own = part(vectors, by_channel, worker % by_channel);
            let channels = own.start * kernels.lanes..(own.end * kernels.lanes).min(s.channels_in);
            if channels.is_empty() {
                return;
            }
            for chunk in part(n_chunks, by_chunk, worker / by_channel) {
                let job = Job {
                    plan: this,
                    kernels,
                    input: input.as_ptr(),
                    grad_output: grad.get(),
                    by: grad_output.by,
                    taps: taps.map_or(std::ptr::null(), <[u8]>::as_ptr),
                    channels: channels.clone(),
                    scratch: scratch.get().wrapping_add(worker * this.worker_len),
                    sums: sums.get().wrapping_add(chunk * sums_len),
                    worker,
                };
                let images = chunk * per_chunk..((chunk + 1) * per_chunk).min(n);
                // SAFETY: a chunk's channels have one owner, the scratch is the worker's own, lengths were checked
                // above.
                unsafe { job.chunk(images) };
            }
        });
        // SAFETY: ranges are disjoint between threads, and within a chunk's sums.
        let merge = |range| unsafe { merge(kernels, n_chunks, &|i| sums.get().wrapping_add(i * sums_len), range) };
        let weights = Shares(grad_weights.as_mut_ptr());
        let finish = |range: Range<usize>| {
            for point in 0..POINTS {
                merge(point * plane + range.start..point * plane + range.end);
            }
            // SAFETY: the range lies within each point's and each tap's plane, and is nobody else's.
            unsafe {
                let (from, to) = (sums.get().add(range.start), weights.get().add(range.start));
                (kernels.winograd_grad_weights)(from, plane, range.len(), to, plane);
            }
        };
        // Below 64 KiB in all, waking the others costs more than they save.
        if n_chunks * POINTS * plane >= 1 << 14 {
            engine.parallel_for(plane, |range, _| finish(range));
        } else {
            finish(0..plane);
        }
        if let Some(bias) = grad_bias {
            merge(POINTS * plane..sums_len);
            // SAFETY: all workers are done.
            bias[..s.filters].copy_from_slice(unsafe { sums.slice(POINTS * plane, s.filters) });
        }
    }
}

/// One worker's part of a gradient.
struct Job<'a> {
    plan: &'a WinogradGradient,
    kernels: &'static Kernels,
    input: *const f32,
    grad_output: *mut f32,
    /// Who makes it.
    by: Option<&'a dyn Prepare>,
    /// Null if the output is not pooled.
    taps: *const u8,
    /// The worker's own.
    channels: Range<usize>,
    scratch: *mut f32,
    sums: *mut f32,
    worker: usize,
}

impl Job<'_> {
    /// Sums the own channels over the images of one chunk.
    ///
    /// # Safety
    /// Nobody else touches those of the sums, nor the scratch.
    unsafe fn chunk(&self, images: Range<usize>) {
        let plan = self.plan;
        let Cut { rows, images: most, block } = plan.cut;
        let blocks = plan.output.height.div_ceil(rows);
        let mut pieces = plan.output.pieces(images.start * blocks..images.end * blocks, blocks, rows, most);
        let mut piece = pieces.next().unwrap_or(Piece { images: 0..0, rows: 0..0 });
        let mut resumes = false;
        loop {
            let next = pieces.next();
            let mut ahead = self.ahead(next.as_ref(), &piece);
            // SAFETY: by this function's contract; the scratch has room for all tiles of a block.
            unsafe {
                if let Some(by) = self.by {
                    by.prepare(piece.images.clone(), self.grad_output, self.worker);
                }
                // Of no image at all, one block: that sums start at zero.
                for first in (0..piece.n_tile_rows().max(1)).step_by(block) {
                    let block = first..(first + block).min(piece.n_tile_rows());
                    for row in 0..SIDE {
                        self.points(row, &piece, block.clone(), resumes, &mut ahead);
                    }
                    resumes = true;
                }
            }
            match next {
                Some(next) => piece = next,
                None => break,
            }
        }
    }

    /// A row of points of a block: transforms input and gradient, and adds their products.
    ///
    /// # Safety
    /// As for [`Job::chunk`].
    unsafe fn points(&self, row: usize, piece: &Piece, block: Range<usize>, resumes: bool, ahead: &mut Ahead<3>) {
        let (plan, s) = (self.plan, &self.plan.shape);
        let n_tiles = block.len() * plan.output.width.div_ceil(2);
        // SAFETY: by this function's contract.
        unsafe {
            self.transform(row, piece, block);
            for (i, panel) in plan.panels.iter().enumerate() {
                let g = self.gradients(i).cast_const();
                if row == 1 && self.channels.start == 0 {
                    // The sum of a tile's four gradients is its point (1, 1).
                    let bias = self.sums.add(POINTS * s.channels_in * s.filters + panel.column);
                    if !resumes {
                        std::slice::from_raw_parts_mut(bias, panel.columns).fill(0.0);
                    }
                    (self.kernels.add_rows)(g.add(plan.n_tiles * plan.wide), plan.wide, n_tiles, panel.columns, bias);
                }
                self.multiply(row, panel, n_tiles, g, resumes, ahead);
            }
        }
    }

    /// Where a panel's transformed gradients are, `[4][tile][wide]`.
    fn gradients(&self, panel: usize) -> *mut f32 {
        let plan = self.plan;
        let tiles_len = plan.shape.channels_in.div_ceil(CHUNK) * plan.chunk_len;
        self.scratch.wrapping_add(tiles_len + panel * plan.panel_len)
    }

    /// What the next piece reads, to be fetched while this one is worked on.
    fn ahead(&self, next: Option<&Piece>, now: &Piece) -> Ahead<3> {
        let plan = self.plan;
        let none = (std::ptr::null(), 0);
        let Some(next) = next else { return Ahead::new([none; 3], 1) };
        let side = if self.taps.is_null() { Side::Whole } else { Side::Target(false, None) };
        let (x, g) = side.parts(&plan.input, &plan.output, next);
        let made = self.by.map_or(none, |by| by.reads(next.images.clone()));
        let heights = self.channels.len().div_ceil(self.kernels.mr[plan.panels[0].nr - 1]);
        let pieces = [
            made,
            (self.input.wrapping_add(x.start), x.len()),
            (self.grad_output.cast_const().wrapping_add(g.start), g.len()),
        ];
        let blocks = now.n_tile_rows().div_ceil(plan.cut.block);
        Ahead::new(pieces, blocks * POINTS * plan.panels.len() * heights)
    }

    /// Transforms a row of points of a block's tiles: the own channels of the input, all of the gradient.
    ///
    /// # Safety
    /// As for [`Job::chunk`].
    unsafe fn transform(&self, points: usize, piece: &Piece, block: Range<usize>) {
        let (plan, kernels, s) = (self.plan, self.kernels, &self.plan.shape);
        let (input, output) = (&plan.input, &plan.output);
        let across = output.width.div_ceil(2);
        // SAFETY: of all blocks: by this function's contract.
        unsafe {
            for (i, tile_row) in block.enumerate() {
                let (image, row) = piece.tile_row(tile_row);
                let start = self.input.wrapping_add(image * input.len());
                let above = row as isize - s.pad_top as isize;
                (kernels.winograd_image)(&ImageRow {
                    rows: ImageRow::SOURCES[points]
                        .map(|i| row_of(input, start, above + i as isize, &plan.input_zeros)),
                    adds: points == ImageRow::SUM,
                    width: input.width,
                    left: s.pad_left as isize,
                    n_tiles: across,
                    pixel: input.channels,
                    channels: [self.channels.start, self.channels.end],
                    to: Points {
                        start: self.scratch.add(i * across * CHUNK),
                        tile: CHUNK,
                        point: plan.n_tiles * CHUNK,
                    },
                    chunk: plan.chunk_len,
                });
                for (panel_idx, panel) in plan.panels.iter().enumerate() {
                    let start = self.grad_output.cast_const().wrapping_add(panel.column);
                    let (rows, taps) = if self.taps.is_null() {
                        let start = start.wrapping_add(image * output.len());
                        let at = |row: usize| row_of(output, start, row as isize, &plan.output_zeros);
                        ([at(row), at(row + 1)], std::ptr::null())
                    } else {
                        let at = (image * output.height + row) / 2 * (output.row() / 2);
                        ([start.wrapping_add(at); 2], self.taps.wrapping_add(at + panel.column))
                    };
                    (kernels.winograd_gradient)(&GradientRow {
                        row: points,
                        rows,
                        taps,
                        width: output.width,
                        n_tiles: across,
                        pixel: output.channels,
                        columns: panel.columns,
                        to: Points {
                            start: self.gradients(panel_idx).add(i * across * plan.wide),
                            tile: plan.wide,
                            point: plan.n_tiles * plan.wide,
                        },
                    });
                }
            }
        }
    }

    /// Adds a row of points of a panel's columns: sums over tiles.
    ///
    /// # Safety
    /// As for [`Job::chunk`].
    unsafe fn multiply(
        &self,
        row: usize,
        panel: &Panel,
        n_tiles: usize,
        g: *const f32,
        resumes: bool,
        ahead: &mut Ahead<3>,
    ) {
        let (plan, kernels, s) = (self.plan, self.kernels, &self.plan.shape);
        let mr = kernels.mr[panel.nr - 1];
        for point in 0..SIDE {
            let mut first = self.channels.start;
            while first < self.channels.end {
                // Those that lie together.
                let together = first..(first / CHUNK * CHUNK + CHUNK).min(self.channels.end);
                let n_heights = together.len().div_ceil(mr);
                for i in 0..n_heights {
                    let rows = part(together.len(), n_heights, i);
                    let channel = first + rows.start;
                    let at = ((row * SIDE + point) * s.channels_in + channel) * s.filters + panel.column;
                    let x = channel / CHUNK * plan.chunk_len + point * plan.n_tiles * CHUNK + channel % CHUNK;
                    let tile = OuterTile {
                        sweep: Sweep { count: [1, 1, n_tiles], x: [0, 0, CHUNK], g: [0, 0, plan.wide] },
                        fetch: ahead.next(1, n_tiles),
                        g: g.wrapping_add(point * plan.n_tiles * plan.wide),
                        columns: panel.columns,
                        resumes,
                        x: self.scratch.wrapping_add(x),
                        x_rows: std::ptr::null(),
                        sum: self.sums.wrapping_add(at),
                        sum_row: s.filters,
                        last_sum: std::ptr::null_mut(),
                    };
                    // SAFETY: by this function's contract.
                    unsafe { kernels.outer[panel.nr - 1][rows.len() - 1](&tile) };
                }
                first = together.end;
            }
        }
    }
}
