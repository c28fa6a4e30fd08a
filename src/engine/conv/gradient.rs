//! The gradient with respect to weights and bias: sums of outer products over pixels.
//!
//! Each register tile holds some input channels of one tap times some filters, and walks over the pixels where that tap
//! lies inside the image. The first layers' few channels would leave tiles half empty: there (up to 4)
//! tiles run over taps and channels alike, on a copy of the images with a halo of zeros. What the halo adds, a product
//! with `+0.0`, is part of the definition of those layers.

use std::ops::Range;

use crate::engine::Engine;
use crate::engine::ahead::{Ahead, Fetch, prefetch};
use crate::engine::buffer::Buffer;
use crate::engine::fused::{Prepare, Source};
use crate::engine::kernel::{Kernels, OuterTile, SpreadRow, Sweep};
use crate::engine::panels::{Panel, panels};
use crate::engine::reference::shape::{Axis, ConvShape, has_halo};
use crate::engine::threads::{Shares, part};

/// Values of a row of an image with its halo.
fn halo_row(s: &ConvShape) -> usize {
    (s.width + s.pad_left + s.pad_right) * s.channels_in
}

/// Rows of the weights that stand in one register tile.
#[derive(Debug)]
struct Rows {
    /// The tap of all of them; 0 if there is a halo, where `first` counts over taps and channels.
    tap: usize,
    /// First channel of the group.
    first: usize,
    count: usize,
    /// With a halo, what each row reads for the first output pixel, and at the end where the ones are.
    halo_at: Vec<isize>,
}

/// Rows of a dense layer's weights whose inputs are fetched ahead of their turn: two tiles of AVX-512. Within a step
/// of net M, 3136 -> 128 of 64 samples took 0.57 ms panel by panel, 0.42 row by row and fetched ahead.
const PREFETCHED_ROWS: usize = 28;

/// What a weight gradient sums products of.
pub(in crate::engine) struct Summands<'a> {
    /// Images.
    pub(in crate::engine) n: usize,
    pub(in crate::engine) input: &'a [f32],
    /// With `taps`, that of the largest values of 2x2 windows.
    pub(in crate::engine) grad_output: Source<'a>,
    pub(in crate::engine) taps: Option<&'a [u8]>,
}

impl Summands<'_> {
    /// Where the output gradient starts.
    ///
    /// # Panics
    /// If an operand, or what is to be written, is too short, or `n` is above the shape's batch.
    pub(super) fn checked(&self, s: &ConvShape, grad_weights: &[f32], grad_bias: Option<&[f32]>) -> Shares<f32> {
        let n = self.n;
        assert!(n <= s.batch, "{n} images for a batch of {}", s.batch);
        assert!(self.input.len() >= n * s.input_len(), "the input is too short for {n} images");
        let output_len = if self.taps.is_some() { n * s.output_len() / 4 } else { n * s.output_len() };
        assert!(self.taps.is_none_or(|taps| taps.len() >= output_len), "too few taps for {n} images");
        assert!(grad_weights.len() >= s.weights_len(), "the weight gradient is too short");
        assert!(grad_bias.is_none_or(|b| b.len() >= s.filters), "the bias gradient is too short");
        self.grad_output.start(output_len)
    }
}

/// How many threads share out chunks, as far as those go round, and how many the parts of each.
pub(super) fn shared_out(threads: usize, n_chunks: usize) -> (usize, usize) {
    let by_chunk = (1..=threads.min(n_chunks)).rev().find(|t| threads.is_multiple_of(*t)).unwrap_or(1);
    (by_chunk, threads / by_chunk)
}

/// Merges a range of the sums of all chunks into the first's, as [`merge_tree`] does.
///
/// # Safety
/// The range lies within each chunk's sums, and nobody else touches it.
///
/// [`merge_tree`]: crate::engine::reference::merge_tree
pub(super) unsafe fn merge(kernels: &Kernels, n_chunks: usize, sums: &dyn Fn(usize) -> *mut f32, range: Range<usize>) {
    let mut step = 1;
    while step < n_chunks {
        for left in (0..n_chunks - step).step_by(2 * step) {
            let (to, from) = (sums(left), sums(left + step));
            // SAFETY: by this function's contract.
            unsafe { (kernels.add)(to.wrapping_add(range.start), from.wrapping_add(range.start), range.len()) };
        }
        step *= 2;
    }
}

/// One tap of the kernel.
struct Tap {
    /// Output rows, and columns, where it lies inside the image.
    down: Range<usize>,
    across: Range<usize>,
    /// The input value it reads for the first output pixel, from the image's start.
    at: isize,
}

/// Pixels that a tile walks over.
#[derive(Clone, Copy)]
struct Stretch<'a> {
    images: &'a Range<usize>,
    /// Of the output.
    rows: &'a Range<usize>,
    /// Their gradient, in a panel.
    g: *const f32,
    /// Whether sums go on from what is there.
    resumes: bool,
}

/// Plan and scratch.
pub(in crate::engine) struct Gradient {
    shape: ConvShape,
    rows_axis: Axis,
    columns_axis: Axis,
    taps: Vec<Tap>,
    has_halo: bool,
    is_depthwise: bool,
    /// Whether an image is one pixel.
    is_dense: bool,
    /// Input channels and filters of a group, groups: (1, channels, 1) for a depthwise one, where lanes stand for
    /// groups.
    depth: usize,
    columns: usize,
    groups: usize,
    tiles: Vec<Rows>,
    panels: Vec<Panel>,
    /// Most images, and output rows, that are swept at once.
    images: usize,
    rows: usize,
    /// Pixels that all tiles of a panel walk over before they go on, so that these stay in the L1 cache.
    stretch: usize,
    /// The tile that sums the bias as well, by a row of ones; `None` where that takes a pass of its own.
    with_bias: Option<usize>,
    /// One worker's scratch: output gradients in panels, images with a halo, ones.
    worker_len: usize,
    packed_len: usize,
    halo_len: usize,
    scratch: Buffer,
    /// Sums of all chunks but the first: weights, then bias.
    partial: Buffer,
}

impl Gradient {
    pub(in crate::engine) fn new(engine: &Engine, shape: &ConvShape, is_pooled: bool) -> Gradient {
        let s = *shape;
        let (kernels, choice, caches) = (engine.kernels(), engine.choice(), engine.caches());
        let (rows_axis, columns_axis) = (Axis::rows(&s), Axis::columns(&s));
        let has_halo = has_halo(&s);
        let is_depthwise = s.groups > 1 && s.group_in() == 1 && s.group_out() == 1;
        let (groups, depth, columns) =
            if is_depthwise { (1, 1, s.filters) } else { (s.groups, s.group_in(), s.group_out()) };
        let nr = if is_depthwise { 1 } else { choice.nr.min(kernels.mr.len()) };
        let panels = panels(groups, columns, kernels.lanes, nr);
        let n_taps = s.kernel_h * s.kernel_w;
        let mr = kernels.mr[panels.iter().map(|p| p.nr).max().unwrap_or(1) - 1];
        let (taps, height) = if has_halo { (1, n_taps * depth) } else { (n_taps, depth) };
        // All taps of some channels follow each other: they read the same values.
        // As many for each thread, where taps do not see to it (14x14x256 -> 256 k1 on 2 threads: 19 parts 269 GFLOP/s,
        // 20 parts 284).
        let n_heights = height.div_ceil(mr);
        let is_evened = taps == 1 && !has_halo && height >= 8 * mr && engine.capacity() <= n_heights;
        let n_heights = n_heights.next_multiple_of(if is_evened { engine.capacity() } else { 1 }).min(height);
        let mut tiles: Vec<Rows> = (0..n_heights)
            .map(|i| part(height, n_heights, i))
            .flat_map(|part| {
                (0..taps).map(move |tap| Rows { tap, first: part.start, count: part.len(), halo_at: Vec::new() })
            })
            .collect();
        let pixels = rows_axis.len_out * columns_axis.len_out;
        let image_bytes = 4 * (s.input_len() + s.output_len());
        // Weights that do not stay in the cache are visited once a block, sums loaded and stored: then this many pixels
        // at least make a block, though they may leave the cache as well (they are read once for each panel of
        // columns). Zen 5 (1 MiB), 1 thread, ms with blocks of half of the cache and stretches as of smaller weights,
        // with blocks of 512 pixels, and with longer stretches as well: 4x4x512 -> 512 of 128 images 40, 35, 31;
        // 2x2x512 7.9, 6.1, 5.2; of VGG-16 at 224x224, 8 images, 28x28x512 -> 512 165, 157, 131; 56x56x256 -> 256 125,
        // 127, 120.
        let is_large = !has_halo && pixels > 1 && 4 * s.weights_len() > caches.l2 / 2;
        let least_pixels: usize = if is_large { 512 } else { 1 };
        // An image larger than the cache is cut into rows; smaller ones are taken several at a time. A dense layer's
        // "image" is one pixel: its weights are larger than its samples, so they are visited once, for all samples.
        let rows = choice.rows.unwrap_or(if image_bytes > caches.l2 {
            let least = least_pixels.div_ceil(columns_axis.len_out).max(4);
            (rows_axis.len_out * (caches.l2 / 2) / image_bytes).max(least)
        } else {
            rows_axis.len_out
        });
        let rows = rows.clamp(1, rows_axis.len_out);
        // Pooled windows of two rows stay together.
        let rows = if is_pooled { rows.next_multiple_of(2).min(rows_axis.len_out) } else { rows };
        let images = if rows < rows_axis.len_out {
            1
        } else if pixels == 1 {
            choice.images.unwrap_or(s.batch)
        } else {
            // Beside a block lie its packed gradient, the weights' sums and the next block. Only where the weights are
            // too large to be visited often, or so few that a block is soon done, is a larger block better. Measured on
            // Sapphire Rapids (2 MiB), 1 thread, whole steps of M, M32 and MBN in ms with a quarter, an eighth and a
            // sixteenth of the cache: 45.7, 45.1, 44.6; 61.8, 61.3, 60.6; 52.0, 51.1, 50.3. (8x8x256 -> 256 k3 had 158
            // GFLOP/s with half of the cache and 124 with one image, 28x28x1 -> 32 k3 91 and 65.)
            let share = if has_halo || is_large { caches.l2 / 2 } else { caches.l2 / 16 };
            choice.images.unwrap_or((share / image_bytes).max(least_pixels.div_ceil(pixels)))
        };
        let images = images.clamp(1, s.batch);
        // A tile touches one or two cache lines of a pixel's channels. Weight gradients of 32x32x32 -> 32 k3 and
        // 14x14x64 -> 64 k3 in ms, with so many hundredths of the first level (48 KiB), Sapphire Rapids: 35: 8.1, 5.8;
        // 50: 7.8, 5.75; 66: 7.7, 5.55; 100: 7.9, 5.65; 200: 8.6, 5.9; without stretches 8.6, 6.1. Zen 5, 32x32x32 ->
        // 32 and 16x16x64 -> 64: 67: 5.11, 4.88; 170: 4.93, 4.65; 400: 4.88, 4.67; 1000: 4.81, 4.68.
        // A 1x1 kernel's tiles read other channels each, so that only the gradient need stay (14x14x256 -> 256: 142
        // GFLOP/s with stretches for both, 149 with these).
        let x_bytes = if n_taps > 1 { (4 * depth).min(128) } else { 0 };
        let pixel_bytes = 4 * kernels.lanes * nr + x_bytes;
        let is_whole = has_halo || tiles.len() == 1 || pixels == 1;
        let near = if is_large { 2 * caches.near } else { caches.near };
        let stretch = if is_whole { usize::MAX } else { near / pixel_bytes };
        let row_len = panels.iter().map(|p| p.nr * kernels.lanes).sum::<usize>();
        let packed_len = images * rows * columns_axis.len_out * row_len;
        let halo_len = if has_halo {
            // A block of rows reaches over as many rows of the input, and the kernel's.
            let high = (rows - 1) * s.stride_h + (s.kernel_h - 1) * s.dilation_h + 1;
            images * high * halo_row(&s)
        } else {
            0
        };
        let worker_len = (packed_len + 2 * halo_len).next_multiple_of(16);
        // A row of ones is one more row of a tile, and spares the bias a walk over the gradient that waits for each of
        // its own additions.
        let with_bias = if has_halo { tiles.iter().position(|tile| tile.count < mr) } else { None };
        let mut scratch = Buffer::zeros(worker_len * engine.capacity());
        for worker in scratch.chunks_mut(worker_len) {
            worker[packed_len + halo_len..][..halo_len].fill(1.0);
        }
        let n_chunks = (1..=s.batch).map(|n| n.div_ceil(s.chunk_images(n))).max().unwrap_or(1);
        let tap = |kh: usize, kw: usize| {
            let top = (kh * s.dilation_h) as isize - s.pad_top as isize;
            let left = (kw * s.dilation_w) as isize - s.pad_left as isize;
            let at = (top * s.width as isize + left) * s.channels_in as isize;
            Tap { down: rows_axis.outputs(kh), across: columns_axis.outputs(kw), at }
        };
        let taps = (0..s.kernel_h).flat_map(|kh| (0..s.kernel_w).map(move |kw| (kh, kw)));
        let wide = halo_row(&s);
        if has_halo {
            let at = |row: usize| {
                let (tap, c) = (row / s.channels_in, row % s.channels_in);
                let (kh, kw) = (tap / s.kernel_w, tap % s.kernel_w);
                (kh * s.dilation_h * wide + kw * s.dilation_w * s.channels_in + c) as isize
            };
            for tile in &mut tiles {
                tile.halo_at = (tile.first..tile.first + tile.count).map(at).chain([halo_len as isize]).collect();
            }
        }
        Gradient {
            shape: s,
            rows_axis,
            columns_axis,
            taps: taps.map(|(kh, kw)| tap(kh, kw)).collect(),
            has_halo,
            is_depthwise,
            is_dense: groups == 1 && !is_depthwise && !is_pooled && s.height * s.width == 1 && n_taps == 1,
            depth,
            columns,
            groups,
            tiles,
            panels,
            images,
            rows,
            stretch,
            with_bias,
            worker_len,
            packed_len,
            halo_len,
            scratch,
            partial: Buffer::zeros((n_chunks - 1) * (s.weights_len() + s.filters)),
        }
    }

    /// Values of its scratch.
    pub(in crate::engine) fn len(&self) -> usize {
        self.scratch.len() + self.partial.len()
    }

    /// Sums the gradients; overwrites both.
    pub(in crate::engine) fn run(
        &mut self,
        engine: &Engine,
        summands: Summands<'_>,
        grad_weights: &mut [f32],
        grad_bias: Option<&mut [f32]>,
    ) {
        let s = self.shape;
        let (len, filters) = (s.weights_len(), s.filters);
        let grad = summands.checked(&s, grad_weights, grad_bias.as_deref());
        let Summands { n, input, mut grad_output, taps } = summands;
        let per_chunk = s.chunk_images(n);
        let n_chunks = n.div_ceil(per_chunk).max(1);
        let engine = &engine.sized(n as u64 * s.multiply_adds());
        let kernels = engine.kernels();
        let partial = Shares(self.partial.as_mut_ptr());
        let scratch = Shares(self.scratch.as_mut_ptr());
        let weights = Shares(grad_weights.as_mut_ptr());
        let bias = grad_bias.map(|b| Shares(b.as_mut_ptr()));
        let this = &*self;
        // Where a chunk's sums are: the first chunk's in place.
        let sums_of = |chunk: usize| match chunk {
            0 => (weights.get(), bias.map(|b| b.get())),
            _ => {
                let at = partial.get().wrapping_add((chunk - 1) * (len + filters));
                (at, bias.map(|_| at.wrapping_add(len)))
            }
        };
        // Threads share out chunks as far as those go round, then the tiles of each: rows of the weights, which are
        // apart in memory (columns are not: each thread fetched lines that the other was writing; on two threads the
        // gradient of 16x16x128 -> 128 k3 took 20 ms of the 30 on one), or panels where these go round better.
        let threads = engine.threads();
        let (by_chunk, by_tile) = shared_out(threads, n_chunks);
        let by_row = this.tiles.len() >= by_tile.min(this.panels.len());
        // Each image is made by the one worker that reads it.
        if by_tile > 1 || this.rows < this.rows_axis.len_out {
            grad_output.make(engine, n);
        }
        engine.run(threads, |worker| {
            let (all, own) = ((0..this.panels.len(), 0..this.tiles.len()), worker % by_tile);
            let (panels, tiles) = match by_row {
                true => (all.0, part(this.tiles.len(), by_tile, own)),
                false => (part(this.panels.len(), by_tile, own), all.1),
            };
            for chunk in part(n_chunks, by_chunk, worker / by_tile) {
                let (weights, bias) = sums_of(chunk);
                let images = chunk * per_chunk..((chunk + 1) * per_chunk).min(n);
                let scratch = scratch.get().wrapping_add(worker * this.worker_len);
                let (grad_output, by) = (grad.get().cast_const(), grad_output.by);
                let job = Job { plan: this, kernels, input, grad_output, by, taps, scratch, weights, bias, worker };
                // SAFETY: a chunk's tile has one owner, the scratch is the worker's own, lengths were checked above.
                unsafe { job.chunk(images, &panels, &tiles) };
            }
        });
        if n_chunks > 1 {
            // SAFETY: ranges are disjoint between threads, and within the sums.
            let merge = |sums: &dyn Fn(usize) -> *mut f32, range| unsafe { merge(kernels, n_chunks, sums, range) };
            // Below 64 KiB in all, waking the others costs more than they save.
            if n_chunks * len >= 1 << 14 {
                engine.parallel_for(len, |range, _| merge(&|chunk| sums_of(chunk).0, range));
            } else {
                merge(&|chunk| sums_of(chunk).0, 0..len);
            }
            if bias.is_some() {
                merge(&|chunk| sums_of(chunk).1.unwrap_or(std::ptr::null_mut()), 0..filters);
            }
        }
    }

    /// A block in stretches that follow each other: images, rows, and the first pixel counted from the block's.
    fn stretches(
        &self,
        images: &Range<usize>,
        rows: &Range<usize>,
    ) -> impl Iterator<Item = (Range<usize>, Range<usize>, usize)> + use<> {
        let (width, image) = (self.columns_axis.len_out, rows.len() * self.columns_axis.len_out);
        let (images, rows) = (images.clone(), rows.clone());
        // Some whole images, or some rows of one.
        let together = (self.stretch / image.max(1)).clamp(1, images.len().max(1));
        let n_parts = if together > 1 { 1 } else { image.div_ceil(self.stretch).clamp(1, rows.len().max(1)) };
        // Of no image at all, one: that sums start at zero.
        let n = images.len().div_ceil(together).max(1) * n_parts;
        (0..n).map(move |i| {
            let (first, part) = (images.start + i / n_parts * together, part(rows.len(), n_parts, i % n_parts));
            let start = (first - images.start) * image + part.start * width;
            (first..(first + together).min(images.end), rows.start + part.start..rows.start + part.end, start)
        })
    }
}

/// One worker's part of a call.
struct Job<'a> {
    plan: &'a Gradient,
    kernels: &'static Kernels,
    input: &'a [f32],
    grad_output: *const f32,
    /// Who makes it.
    by: Option<&'a dyn Prepare>,
    taps: Option<&'a [u8]>,
    scratch: *mut f32,
    weights: *mut f32,
    bias: Option<*mut f32>,
    worker: usize,
}

impl Job<'_> {
    /// Sums some tiles of some panels over the images of one chunk.
    ///
    /// # Safety
    /// Nobody else touches those tiles of the sums, nor the scratch.
    unsafe fn chunk(&self, images: Range<usize>, used: &Range<usize>, tiles: &Range<usize>) {
        let plan = self.plan;
        if tiles.is_empty() || used.is_empty() {
            return;
        }
        let mut resumes = false;
        let mut first = images.start;
        while first < images.end || !resumes {
            let block = first..(first + plan.images).min(images.end);
            first = block.end.max(first + 1);
            for top in (0..plan.rows_axis.len_out).step_by(plan.rows) {
                let rows = top..(top + plan.rows).min(plan.rows_axis.len_out);
                // SAFETY: by this function's contract.
                unsafe {
                    if let Some(by) = self.by {
                        by.prepare(block.clone(), self.grad_output.cast_mut(), self.worker);
                    }
                    if plan.has_halo {
                        self.fill_halo(&block, &rows);
                    }
                    self.pack(used, &block, &rows);
                    if plan.is_dense {
                        self.by_row(tiles, used, &block, resumes);
                        resumes = true;
                        continue;
                    }
                    let n_sweeps = tiles.len() * used.len() * plan.stretches(&block, &rows).count();
                    let mut ahead = self.ahead(&block, &images, &rows, n_sweeps);
                    let mut offset = 0;
                    for (i, panel) in plan.panels.iter().enumerate() {
                        if !used.contains(&i) {
                            continue;
                        }
                        let row = panel.nr * self.kernels.lanes;
                        let packed = self.scratch.wrapping_add(offset).cast_const();
                        let g = self.is_panel(panel, &block, &rows).unwrap_or(packed);
                        offset += block.len() * rows.len() * plan.columns_axis.len_out * row;
                        if let Some(bias) = self.bias
                            && plan.with_bias.is_none()
                            && tiles.start == 0
                        {
                            self.sum_bias(panel, Stretch { images: &block, rows: &rows, g, resumes }, bias);
                        }
                        let mut goes_on = resumes;
                        for (images, rows, first_pixel) in plan.stretches(&block, &rows) {
                            let g = g.wrapping_add(first_pixel * row);
                            let stretch = Stretch { images: &images, rows: &rows, g, resumes: goes_on };
                            for tile in tiles.clone() {
                                let bias = if plan.with_bias == Some(tile) { self.bias } else { None };
                                self.tile(panel, &plan.tiles[tile], stretch, bias, Some(&mut ahead));
                            }
                            goes_on = true;
                        }
                    }
                }
                resumes = true;
            }
        }
    }

    /// Sums the tiles of a dense layer over some samples: all columns of some rows of the weights, then the next rows.
    /// The gradient's panels stay in the L1 cache, and values and sums are visited once.
    ///
    /// # Safety
    /// As for [`Job::chunk`]; the samples' gradient is packed.
    unsafe fn by_row(&self, tiles: &Range<usize>, used: &Range<usize>, samples: &Range<usize>, resumes: bool) {
        let plan = self.plan;
        let (inputs, rows) = (plan.depth, 0..1);
        let wide = plan.panels[used.start].nr * self.kernels.lanes;
        let panels = plan.panels[used.clone()].iter().zip(used.clone());
        let panels = panels.map(|(panel, i)| {
            let packed = self.scratch.wrapping_add((i - used.start) * samples.len() * wide).cast_const();
            (panel, self.is_panel(panel, samples, &rows).unwrap_or(packed))
        });
        // SAFETY: by this function's contract.
        unsafe {
            if let Some(bias) = self.bias
                && tiles.start == 0
            {
                for (panel, g) in panels.clone() {
                    self.sum_bias(panel, Stretch { images: samples, rows: &rows, g, resumes }, bias);
                }
            }
            for own in &plan.tiles[tiles.clone()] {
                // Samples lie too far apart for the processor to guess what comes next.
                let ahead = (own.first + PREFETCHED_ROWS).min(inputs);
                for sample in samples.clone() {
                    let next = self.input.as_ptr().wrapping_add(sample * inputs + ahead);
                    prefetch(next, own.count.min(inputs - ahead));
                }
                for (panel, g) in panels.clone() {
                    self.tile(panel, own, Stretch { images: samples, rows: &rows, g, resumes }, None, None);
                }
            }
        }
    }

    /// The output gradient of a block, if its columns already make this panel where they are.
    fn is_panel(&self, panel: &Panel, images: &Range<usize>, rows: &Range<usize>) -> Option<*const f32> {
        let (plan, s) = (self.plan, &self.plan.shape);
        let row = panel.nr * self.kernels.lanes;
        let is_whole = images.len() <= 1 || rows.len() == plan.rows_axis.len_out;
        let at = images.start * s.output_len() + rows.start * plan.columns_axis.len_out * s.filters;
        (self.taps.is_none() && panel.columns == row && s.filters == row && is_whole)
            .then(|| self.grad_output.wrapping_add(at))
    }

    /// Copies a block of the output gradient into panels: pixel by pixel, so that memory is read in order.
    unsafe fn pack(&self, used: &Range<usize>, images: &Range<usize>, rows: &Range<usize>) {
        let panels = &self.plan.panels[used.clone()];
        let [first, .., last] = panels else {
            let panel = &panels[0];
            if self.is_panel(panel, images, rows).is_none() {
                // SAFETY: as below.
                unsafe { self.pack_panels(panel, panel, images, rows) };
            }
            return;
        };
        // SAFETY: the scratch has room for all panels of a block.
        unsafe { self.pack_panels(first, last, images, rows) };
    }

    unsafe fn pack_panels(&self, first: &Panel, last: &Panel, images: &Range<usize>, rows: &Range<usize>) {
        let (plan, s) = (self.plan, &self.plan.shape);
        // Several images are taken whole, so that their pixels follow each other.
        let pixels = images.len() * rows.len() * plan.columns_axis.len_out;
        let column = |panel: &Panel| panel.group * plan.columns + panel.column;
        if let Some(taps) = self.taps {
            let (width, mut to) = (plan.columns_axis.len_out, self.scratch);
            for panel in &plan.panels {
                if column(panel) < column(first) || column(panel) > column(last) {
                    continue;
                }
                let row = panel.nr * self.kernels.lanes;
                for image in images.clone() {
                    for oh in rows.clone().step_by(2) {
                        let from = (image * plan.rows_axis.len_out + oh) / 2 * (width / 2) * s.filters + column(panel);
                        // SAFETY: the scratch has room for all panels of a block; the pixels lie within the pooled
                        // gradient and the taps, whose lengths were checked.
                        unsafe {
                            (self.kernels.spread_row)(&SpreadRow {
                                grad: self.grad_output.add(from),
                                taps: taps.as_ptr().add(from),
                                from_pixel: s.filters,
                                pixels: width / 2,
                                columns: panel.columns,
                                to: [to, to.add(width * row)],
                                to_pixel: row,
                            });
                        }
                        to = to.wrapping_add(2 * width * row);
                    }
                }
            }
            return;
        }
        let start = images.start * s.output_len() + rows.start * plan.columns_axis.len_out * s.filters;
        let from = |panel| self.grad_output.wrapping_add(start + column(panel));
        if plan.groups == 1 {
            let wide = first.nr.max(last.nr) * self.kernels.lanes;
            let columns = column(last) + last.columns - column(first);
            // SAFETY: the scratch has room for all panels of a block; the pixels lie within the output gradient.
            unsafe {
                (self.kernels.pack_panels)(from(first), s.filters, pixels, columns, self.scratch, wide, pixels * wide);
            }
            return;
        }
        let mut to = self.scratch;
        for panel in &plan.panels {
            if column(panel) < column(first) || column(panel) > column(last) {
                continue;
            }
            let row = panel.nr * self.kernels.lanes;
            // SAFETY: as above.
            unsafe { (self.kernels.pack)(from(panel), s.filters, pixels, panel.columns, to, row) };
            to = to.wrapping_add(pixels * row);
        }
    }

    /// What the next block reads, to be fetched while this one is worked on, a part with each tile.
    fn ahead(&self, block: &Range<usize>, images: &Range<usize>, rows: &Range<usize>, tiles: usize) -> Ahead<3> {
        let (plan, s) = (self.plan, &self.plan.shape);
        let height = plan.rows_axis.len_out;
        let none = (std::ptr::null(), 0);
        let output_len = if self.taps.is_some() { s.output_len() / 4 } else { s.output_len() };
        if rows.end < height {
            // The next rows of the same images: a fraction of each image.
            let share = |len: usize, from: usize| (len * from / height, len * plan.rows / height);
            let (x, x_len) = share(s.input_len(), rows.end);
            let (g, g_len) = share(output_len, rows.end);
            let x = self.input.as_ptr().wrapping_add(block.start * s.input_len() + x);
            let g = self.grad_output.wrapping_add(block.start * output_len + g);
            return Ahead::new([(x, x_len), (g, g_len), none], tiles);
        }
        let n = plan.images.min(images.end - block.end);
        let x = self.input.as_ptr().wrapping_add(block.end * s.input_len());
        let g = self.grad_output.wrapping_add(block.end * output_len);
        if plan.rows < height {
            let n = n.min(1);
            return Ahead::new(
                [(x, n * s.input_len() * plan.rows / height), (g, n * output_len * plan.rows / height), none],
                tiles,
            );
        }
        let made = self.by.map_or(none, |by| by.reads(block.end..block.end + n));
        Ahead::new([made, (x, n * s.input_len()), (g, n * output_len)], tiles)
    }

    /// Adds a panel's columns of the bias gradient.
    ///
    /// # Safety
    /// As for [`Job::chunk`]; the stretch's gradient is packed.
    unsafe fn sum_bias(&self, panel: &Panel, Stretch { images, rows, g, resumes }: Stretch<'_>, bias: *mut f32) {
        let plan = self.plan;
        let bias = bias.wrapping_add(panel.group * plan.columns + panel.column);
        if !resumes {
            // SAFETY: the panel's columns of the bias are ours.
            unsafe { std::slice::from_raw_parts_mut(bias, panel.columns) }.fill(0.0);
        }
        let pixels = images.len() * rows.len() * plan.columns_axis.len_out;
        // SAFETY: as above, and the block's pixels follow each other in the panel.
        unsafe { (self.kernels.add_rows)(g, panel.nr * self.kernels.lanes, pixels, panel.columns, bias) };
    }

    /// Rows of the input, halo included, that a block of output rows reaches over.
    fn halo_rows(&self, rows: &Range<usize>) -> usize {
        let s = &self.plan.shape;
        (rows.len() - 1) * s.stride_h + (s.kernel_h - 1) * s.dilation_h + 1
    }

    /// Copies the input that a block reaches over into the scratch, with zeros around it.
    unsafe fn fill_halo(&self, images: &Range<usize>, rows: &Range<usize>) {
        let (plan, s) = (self.plan, &self.plan.shape);
        let (row, wide) = (s.width * s.channels_in, halo_row(s));
        let left = s.pad_left * s.channels_in;
        let halo_rows = self.halo_rows(rows);
        // SAFETY: the scratch holds `halo_len` values after the packed panels, enough for any block.
        let halo = unsafe { std::slice::from_raw_parts_mut(self.scratch.wrapping_add(plan.packed_len), plan.halo_len) };
        for (i, image) in images.clone().enumerate() {
            for r in 0..halo_rows {
                let to = &mut halo[(i * halo_rows + r) * wide..][..wide];
                let inside = (rows.start * s.stride_h + r).checked_sub(s.pad_top).filter(|&ih| ih < s.height);
                let Some(ih) = inside else {
                    to.fill(0.0);
                    continue;
                };
                to[..left].fill(0.0);
                to[left..left + row].copy_from_slice(&self.input[image * s.input_len() + ih * row..][..row]);
                to[left + row..].fill(0.0);
            }
        }
    }

    /// Sums one tile over a stretch.
    ///
    /// # Safety
    /// As for [`Job::chunk`]; the stretch's gradient is packed, and its halo is filled.
    unsafe fn tile(
        &self,
        panel: &Panel,
        tile: &Rows,
        Stretch { images, rows, g, resumes }: Stretch<'_>,
        bias: Option<*mut f32>,
        ahead: Option<&mut Ahead<3>>,
    ) {
        let (plan, s) = (self.plan, &self.plan.shape);
        let g_row = panel.nr * self.kernels.lanes;
        let (width, pixels) = (plan.columns_axis.len_out, rows.len() * plan.columns_axis.len_out);
        let mut count = tile.count;
        let (x, x_rows, sweep, g) = if plan.has_halo {
            let wide = halo_row(s);
            let halo = self.scratch.wrapping_add(plan.packed_len).cast_const();
            let sweep = Sweep {
                count: [images.len(), rows.len(), width],
                x: [self.halo_rows(rows) * wide, s.stride_h * wide, s.stride_w * s.channels_in],
                g: [pixels * g_row, width * g_row, g_row],
            };
            (halo, tile.halo_at.as_ptr(), sweep, g)
        } else {
            let Tap { down, across, at } = &plan.taps[tile.tap];
            let start = down.start.max(rows.start);
            let (n_rows, oh, ow) = (down.end.min(rows.end).saturating_sub(start), start, across.start);
            let channel = if plan.is_depthwise { panel.column } else { panel.group * plan.depth + tile.first };
            let x_row = s.stride_h * s.width * s.channels_in;
            let from = images.start * s.input_len() + oh * x_row + ow * s.stride_w * s.channels_in + channel;
            let x = self.input.as_ptr().wrapping_add(from).wrapping_offset(*at);
            let sweep = Sweep {
                count: [images.len(), n_rows, across.len()],
                x: [s.input_len(), x_row, s.stride_w * s.channels_in],
                g: [pixels * g_row, width * g_row, g_row],
            };
            let first_pixel = oh.wrapping_sub(rows.start).wrapping_mul(width).wrapping_add(ow);
            (x, std::ptr::null(), sweep, g.wrapping_add(first_pixel.wrapping_mul(g_row)))
        };
        let column = panel.group * plan.columns + panel.column;
        let sum = self.weights.wrapping_add((tile.tap * plan.depth + tile.first) * s.filters + column);
        let mut last_sum = std::ptr::null_mut();
        if let Some(bias) = bias {
            last_sum = bias.wrapping_add(column);
            count += 1;
        }
        let kernels = if plan.is_depthwise { &self.kernels.each_outer } else { &self.kernels.outer[panel.nr - 1] };
        let n_pixels = sweep.count.iter().product();
        let job = OuterTile {
            sweep: sweep.collapse(),
            fetch: ahead.map_or(Fetch::NOTHING, |ahead| ahead.next(1, n_pixels)),
            g,
            columns: panel.columns,
            resumes,
            x,
            x_rows,
            sum,
            sum_row: s.filters,
            last_sum,
        };
        // SAFETY: the sweep visits pixels whose tap lies inside the image (or the halo); the tile of the sums is ours.
        unsafe { kernels[count - 1](&job) };
    }
}
