//! Locally-connected (unshared) convolution: a convolution whose every output pixel has weights of its own.
//!
//! For one pixel it is a product of matrices, images times weights; pixels are shared out between the threads.

use super::ahead::Fetch;
use super::buffer::Buffer;
use super::kernel::{Finish, Kernels, MAX_MR, OuterTile, ProductTile, Run, Sweep};
use super::panels::{Panel, panels};
use super::reference::shape::Axis;
use super::threads::{Shares, part};
use super::{Activation, ConvShape, Engine};

/// A locally-connected layer of one shape. Weights:
/// `[height_out, width_out, kernel_h, kernel_w, channels_in, filters]`; bias: `[height_out, width_out, filters]`.
pub struct LocalConv {
    engine: Engine,
    shape: ConvShape,
    /// Taps of each output pixel and of each input pixel.
    forward: Vec<Pixel>,
    backward: Vec<Pixel>,
    scratch: Buffer,
}

/// The images that a pixel is swept over, and the values from one to the next.
struct Images {
    n: usize,
    from: *const f32,
    from_len: usize,
    to: *mut f32,
    to_len: usize,
}

/// What one pixel's chains go over.
struct Pixel {
    runs: Vec<Run>,
    /// Where the weights of each tap begin, and where in the image on the other side it lies (values from the image's
    /// start), in the order of the chain.
    taps: Vec<(usize, usize)>,
}

impl LocalConv {
    /// Plans the layer.
    ///
    /// # Panics
    /// If an axis is zero, the kernel does not fit, or there are groups.
    pub fn new(engine: &Engine, shape: ConvShape) -> LocalConv {
        shape.check();
        assert_eq!(shape.groups, 1, "a locally-connected layer has no groups");
        let s = &shape;
        let (rows, columns) = (Axis::rows(s), Axis::columns(s));
        let (per_tap, per_pixel) = (s.channels_in * s.filters, s.weights_len());
        let mut forward: Vec<Pixel> = Vec::new();
        let mut backward: Vec<Vec<(usize, usize)>> = (0..s.height * s.width).map(|_| Vec::new()).collect();
        for position in 0..rows.len_out * columns.len_out {
            let (oh, ow) = (position / columns.len_out, position % columns.len_out);
            let mut taps = Vec::new();
            for tap in 0..s.kernel_h * s.kernel_w {
                let (ih, iw) = (rows.input(oh, tap / s.kernel_w), columns.input(ow, tap % s.kernel_w));
                if let (Some(ih), Some(iw)) = (ih, iw) {
                    let weights = position * per_pixel + tap * per_tap;
                    taps.push((weights, (ih * s.width + iw) * s.channels_in));
                    backward[ih * s.width + iw].push((weights, position * s.filters));
                }
            }
            forward.push(Pixel::new(taps, s.channels_in));
        }
        // Output pixels came in order, which is the order of an input pixel's chains.
        let backward: Vec<Pixel> = backward.into_iter().map(|taps| Pixel::new(taps, s.filters)).collect();
        let most = forward.iter().map(|p| p.taps.len() * s.channels_in).max().unwrap_or(0);
        let most = most.max(backward.iter().map(|p| p.taps.len() * s.filters).max().unwrap_or(0)).max(s.batch);
        let kernels = engine.kernels();
        let scratch = Buffer::zeros(engine.capacity() * most * kernels.mr.len() * kernels.lanes);
        LocalConv { engine: engine.clone(), shape, forward, backward, scratch }
    }

    /// Values of the weights.
    pub fn weights_len(&self) -> usize {
        self.shape.height_out() * self.shape.width_out() * self.shape.weights_len()
    }

    fn check(&self, n: usize, lengths: [(usize, usize); 3]) {
        assert!(n <= self.shape.batch, "{n} images for a batch of {}", self.shape.batch);
        for (i, (len, needed)) in lengths.into_iter().enumerate() {
            assert!(len >= needed, "operand {i} has {len} values, expected {needed}");
        }
    }

    /// As [`super::Conv::forward`], with weights and bias per output pixel.
    ///
    /// # Panics
    /// If a slice is too short, or `n` is above the shape's batch.
    pub fn forward(
        &mut self,
        n: usize,
        input: &[f32],
        weights: &[f32],
        bias: Option<&[f32]>,
        activation: Activation,
        output: &mut [f32],
    ) {
        let (s, kernels) = (self.shape, self.engine.kernels());
        let (from_len, to_len) = (s.input_len(), s.output_len());
        self.check(n, [(input.len(), n * from_len), (weights.len(), self.weights_len()), (output.len(), n * to_len)]);
        assert!(bias.is_none_or(|b| b.len() >= to_len), "too few values in the bias");
        let (scratch, target) = (Shares(self.scratch.as_mut_ptr()), Shares(output.as_mut_ptr()));
        let (len, panels) = (self.scratch.len() / self.engine.capacity(), panels(1, s.filters, kernels.lanes, 2));
        let pixels = &self.forward;
        self.engine.sized(n as u64 * s.multiply_adds()).parallel_for(pixels.len(), |range, worker| {
            let packed = scratch.get().wrapping_add(worker * len);
            for i in range {
                for panel in &panels {
                    let row = panel.nr * kernels.lanes;
                    for (place, &(weights_at, _)) in pixels[i].taps.iter().enumerate() {
                        let from = weights[weights_at + panel.column..].as_ptr();
                        let to = packed.wrapping_add(place * s.channels_in * row);
                        // SAFETY: a tap's weights are `channels_in` rows of `filters`; the scratch holds any panel.
                        unsafe { (kernels.pack)(from, s.filters, s.channels_in, panel.columns, to, row) };
                    }
                    let at = i * s.filters + panel.column;
                    let finish = Finish::new(bias.map(|bias| &bias[at..]), activation);
                    // SAFETY: this pixel of all images is this worker's.
                    unsafe {
                        let to = target.get().add(at);
                        let images = Images { n, from: input.as_ptr(), from_len, to, to_len };
                        pixels[i].sweep(kernels, panel, packed, finish, &images);
                    }
                }
            }
        });
    }

    /// As [`super::Conv::backward_data`].
    ///
    /// # Panics
    /// If a slice is too short, or `n` is above the shape's batch.
    pub fn backward_data(
        &mut self,
        n: usize,
        grad_output: &[f32],
        weights: &[f32],
        relu_mask: Option<&[f32]>,
        grad_input: &mut [f32],
    ) {
        let (s, kernels) = (self.shape, self.engine.kernels());
        let (from_len, to_len) = (s.output_len(), s.input_len());
        let lengths = [(grad_output.len(), n * from_len), (weights.len(), self.weights_len())];
        self.check(n, [lengths[0], lengths[1], (grad_input.len(), n * to_len)]);
        assert!(relu_mask.is_none_or(|m| m.len() >= n * to_len), "the mask is too short");
        let finish = Finish::clipped(grad_input.as_ptr(), relu_mask);
        let (scratch, target) = (Shares(self.scratch.as_mut_ptr()), Shares(grad_input.as_mut_ptr()));
        let (len, panels) = (self.scratch.len() / self.engine.capacity(), panels(1, s.channels_in, kernels.lanes, 2));
        let pixels = &self.backward;
        self.engine.sized(n as u64 * s.multiply_adds()).parallel_for(pixels.len(), |range, worker| {
            let packed = scratch.get().wrapping_add(worker * len);
            for i in range {
                for panel in &panels {
                    let row = panel.nr * kernels.lanes;
                    for (place, &(weights_at, _)) in pixels[i].taps.iter().enumerate() {
                        let from = weights[weights_at + panel.column * s.filters..].as_ptr();
                        let to = packed.wrapping_add(place * s.filters * row);
                        // SAFETY: as in `forward`; rows of weights become columns of the panel.
                        unsafe { (kernels.transpose)(from, s.filters, panel.columns, s.filters, to, row) };
                    }
                    // SAFETY: this pixel of all images is this worker's.
                    unsafe {
                        let to = target.get().add(i * s.channels_in + panel.column);
                        let images = Images { n, from: grad_output.as_ptr(), from_len, to, to_len };
                        pixels[i].sweep(kernels, panel, packed, finish, &images);
                    }
                }
            }
        });
    }

    /// As [`super::Conv::backward_weights`]; the sum over the images is one chain.
    ///
    /// # Panics
    /// If a slice is too short, or `n` is above the shape's batch.
    pub fn backward_weights(
        &mut self,
        n: usize,
        input: &[f32],
        grad_output: &[f32],
        grad_weights: &mut [f32],
        grad_bias: Option<&mut [f32]>,
    ) {
        let (s, kernels) = (self.shape, self.engine.kernels());
        let (x_len, g_len, per_pixel) = (s.input_len(), s.output_len(), s.weights_len());
        let lengths = [(input.len(), n * x_len), (grad_output.len(), n * g_len)];
        self.check(n, [lengths[0], lengths[1], (grad_weights.len(), self.weights_len())]);
        let (scratch, len) = (Shares(self.scratch.as_mut_ptr()), self.scratch.len() / self.engine.capacity());
        let (pixels, panels) = (&self.forward, panels(1, s.filters, kernels.lanes, 2));
        let used = pixels.len() * per_pixel;
        let engine = self.engine.sized(n as u64 * s.multiply_adds());
        let weights = Shares(grad_weights[..used].as_mut_ptr());
        engine.parallel_for(pixels.len(), |range, worker| {
            for i in range {
                // SAFETY: this pixel's weights are this worker's.
                let sums = unsafe { weights.slice(i * per_pixel, per_pixel) };
                sums.fill(0.0);
                let packed = scratch.get().wrapping_add(worker * len);
                for panel in &panels {
                    let row = panel.nr * kernels.lanes;
                    let from = grad_output[i * s.filters + panel.column..].as_ptr();
                    // SAFETY: this pixel's gradients lie `g_len` apart; the scratch has room for a batch of them.
                    unsafe { (kernels.pack)(from, g_len, n, panel.columns, packed, row) };
                    for &(weights_at, x_at) in &pixels[i].taps {
                        let n_tiles = s.channels_in.div_ceil(kernels.mr[panel.nr - 1]);
                        for t in 0..n_tiles {
                            let own = part(s.channels_in, n_tiles, t);
                            let at = weights_at - i * per_pixel + own.start * s.filters + panel.column;
                            let tile = OuterTile {
                                sweep: Sweep { count: [1, 1, n], x: [0, 0, x_len], g: [0, 0, row] },
                                fetch: Fetch::NOTHING,
                                g: packed,
                                columns: panel.columns,
                                resumes: false,
                                x: input[x_at + own.start..].as_ptr(),
                                x_rows: std::ptr::null(),
                                sum: sums[at..].as_mut_ptr(),
                                sum_row: s.filters,
                                last_sum: std::ptr::null_mut(),
                            };
                            // SAFETY: the tap lies inside every image; the sums are this pixel's own.
                            unsafe { kernels.outer[panel.nr - 1][own.len() - 1](&tile) };
                        }
                    }
                }
            }
        });
        if let Some(grad_bias) = grad_bias {
            let sums = &mut grad_bias[..g_len];
            sums.fill(0.0);
            // SAFETY: `n` rows of `g_len` values are added to as many sums.
            unsafe { (kernels.add_rows)(grad_output.as_ptr(), g_len, n, g_len, sums.as_mut_ptr()) };
        }
    }
}

impl Pixel {
    fn new(taps: Vec<(usize, usize)>, depth: usize) -> Pixel {
        let mut runs: Vec<Run> = Vec::new();
        for (place, &(_, at)) in taps.iter().enumerate() {
            let run = Run { x: at as isize, row: place * depth, len: depth };
            match runs.last_mut() {
                Some(last) if last.x + last.len as isize == run.x => last.len += depth,
                _ => runs.push(run),
            }
        }
        Pixel { runs, taps }
    }

    /// One panel's columns of this pixel.
    ///
    /// # Safety
    /// The operands hold all images, and nobody else touches the target's columns.
    unsafe fn sweep(
        &self,
        kernels: &Kernels,
        panel: &Panel,
        packed: *const f32,
        finish: Finish,
        &Images { n, from, from_len, to, to_len }: &Images,
    ) {
        let mut tile = ProductTile {
            runs: self.runs.as_ptr(),
            n_runs: self.runs.len(),
            panel: packed,
            panel_row: panel.nr * kernels.lanes,
            columns: panel.columns,
            resumes: false,
            finish: Some(finish),
            fetch: Fetch::NOTHING,
            x: [std::ptr::null(); MAX_MR],
            y: [std::ptr::null_mut(); MAX_MR],
        };
        let n_tiles = n.div_ceil(kernels.mr[panel.nr - 1]);
        for t in 0..n_tiles {
            let own = part(n, n_tiles, t);
            for (j, image) in own.clone().enumerate() {
                tile.x[j] = from.wrapping_add(image * from_len);
                tile.y[j] = to.wrapping_add(image * to_len);
            }
            // SAFETY: by this function's contract; the runs lie inside an image.
            unsafe { kernels.product[panel.nr - 1][own.len() - 1](&tile) };
        }
    }
}
