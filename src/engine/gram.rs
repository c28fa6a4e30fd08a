//! Gram matrices: what covariances are made of.

use super::Engine;
use super::ahead::Fetch;
use super::buffer::Buffer;
use super::kernel::{Kernels, OuterTile, Sweep};
use super::reference::GRAM_CHUNK;
use super::threads::{Shares, part};

/// The Gram matrix `g = (x - centre)ᵀ (x - centre)` over samples: a covariance matrix but for the division.
///
/// Chains of f32 inside chunks of 512 samples; the chunks' sums are added up in f64, in order.
///
/// # Shapes
/// - `x`: `[n_samples, n_features]`
/// - `centre`: `[n_features]`, subtracted from each sample with one rounding to f32
/// - `g`: `[n_features, n_features]`, symmetric, overwritten
///
/// Returns false, and unfinished sums, if it was stopped before the end.
///
/// # Panics
/// If a slice is too short.
pub fn gram(
    engine: &Engine,
    (n_samples, n_features): (usize, usize),
    x: &[f32],
    centre: Option<&[f32]>,
    is_stopped: &dyn Fn() -> bool,
    g: &mut [f64],
) -> bool {
    assert!(x.len() >= n_samples * n_features && g.len() >= n_features * n_features, "an operand is too short");
    assert!(centre.is_none_or(|c| c.len() >= n_features), "the centre is too short");
    g[..n_features * n_features].fill(0.0);
    let kernels = engine.kernels();
    let wide = engine.choice().nr.min(kernels.mr.len()) * kernels.lanes;
    let (n_panels, panel_len) = (n_features.div_ceil(wide), GRAM_CHUNK * wide);
    let mut packed = Buffer::zeros(n_panels * panel_len);
    let tiles = tiles(n_features, wide);
    let sums = Shares(g.as_mut_ptr());
    for first in (0..n_samples).step_by(GRAM_CHUNK) {
        let n = GRAM_CHUNK.min(n_samples - first);
        engine.for_each_chunk(&mut packed, panel_len, |i, panel| {
            let columns = wide.min(n_features - i * wide);
            let from = x[first * n_features + i * wide..].as_ptr();
            // SAFETY: `n` rows of `columns` values lie within `x`, and fit the panel.
            unsafe {
                match centre {
                    Some(c) => {
                        let centre = c[i * wide..].as_ptr();
                        (kernels.pack_centred)(from, n_features, n, columns, centre, panel.as_mut_ptr(), wide);
                    }
                    None => (kernels.pack)(from, n_features, n, columns, panel.as_mut_ptr(), wide),
                }
            }
        });
        let packed = &packed[..];
        for tiles in tiles.chunks(engine.chunks_between_looks((wide * wide * n) as u64)) {
            if is_stopped() {
                return false;
            }
            engine.parallel_for(tiles.len(), |range, _| {
                for tile in &tiles[range] {
                    // SAFETY: each tile of the upper triangle belongs to one worker.
                    unsafe { tile.add(kernels, &Samples { packed, panel_len, wide, n }, n_features, sums.get()) };
                }
            });
        }
    }
    for i in 0..n_features {
        for j in 0..i {
            g[i * n_features + j] = g[j * n_features + i];
        }
    }
    true
}

/// Columns of the widest panel, over all instruction sets.
const MAX_WIDE: usize = 32;

/// A chunk of `n` samples in panels of `wide` features.
struct Samples<'a> {
    packed: &'a [f32],
    panel_len: usize,
    wide: usize,
    n: usize,
}

/// The rows of one panel and the columns of another of the matrix, on or above its diagonal.
struct Tile {
    first: usize,
    rows: usize,
    panel: usize,
}

fn tiles(n_features: usize, wide: usize) -> Vec<Tile> {
    let n_panels = n_features.div_ceil(wide);
    // Rows below a panel's last column are the mirror of others.
    let pairs = (0..n_panels).flat_map(|panel| (0..=panel).map(move |rows| (rows * wide, panel)));
    pairs.map(|(first, panel)| Tile { first, rows: wide.min(n_features - first), panel }).collect()
}

impl Tile {
    /// Adds the sums of a chunk of samples.
    ///
    /// # Safety
    /// The tile's part of the matrix, of `n_features` rows and columns, is nobody else's.
    unsafe fn add(
        &self,
        kernels: &Kernels,
        &Samples { packed, panel_len, wide, n }: &Samples<'_>,
        n_features: usize,
        sums: *mut f64,
    ) {
        let columns = wide.min(n_features - self.panel * wide);
        let nr = columns.div_ceil(kernels.lanes);
        let mut chunk = [[0.0f32; MAX_WIDE]; MAX_WIDE];
        // A tile of two vectors is lower where there are fewer registers; one vector may stand in a tall one.
        let n_parts = self.rows.div_ceil(kernels.mr[nr - 1]);
        for i in 0..n_parts {
            let own = part(self.rows, n_parts, i);
            let tile = OuterTile {
                sweep: Sweep { count: [1, 1, n], x: [0, 0, wide], g: [0, 0, wide] },
                fetch: Fetch::NOTHING,
                g: packed[self.panel * panel_len..].as_ptr(),
                columns,
                resumes: false,
                x: packed[self.first / wide * panel_len + own.start..].as_ptr(),
                x_rows: std::ptr::null(),
                sum: chunk[own.start].as_mut_ptr(),
                sum_row: MAX_WIDE,
                last_sum: std::ptr::null_mut(),
            };
            // SAFETY: panels hold `n` rows of `wide` values; the target has room for as many columns.
            unsafe { kernels.outer[nr - 1][own.len() - 1](&tile) };
        }
        for (j, row) in chunk[..self.rows].iter().enumerate() {
            let at = (self.first + j) * n_features + self.panel * wide;
            for (i, &sum) in row[..columns].iter().enumerate() {
                // SAFETY: within the matrix, and this worker's own by this function's contract.
                unsafe { *sums.add(at + i) += f64::from(sum) };
            }
        }
    }
}
