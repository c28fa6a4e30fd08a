//! Products of bytes, summed over samples: what covariances of stored images are made of, exact.
//!
//! Whole numbers have no rounding, so that any order of summing gives the same sums: each instruction set multiplies as
//! it likes. With VNNI (AVX-512) one instruction adds up four samples of sixteen features, four times as many as in
//! single precision.

use super::Engine;
use super::buffer::Buffer;
use super::isa::Isa;
use super::threads::Shares;
use super::versions::versions;

/// Features of a panel, and rows and columns of a tile: two vectors of 16 whole numbers.
const WIDE: usize = 32;
/// Samples that lie side by side for each feature.
const GROUP: usize = 4;
/// Groups of a block: 256 bytes add up to at most 65,280, which fits 16 bits.
const GROUPS: usize = 64;
const BLOCK: usize = GROUP * GROUPS;
/// Bytes of a panel of a block.
const PANEL: usize = BLOCK * WIDE;
/// Blocks between two visits of a tile. 784 features of 2,048 samples are 1.6 MB, which fits a second-level cache.
const BLOCKS: usize = 8;
/// Samples whose products add up to less than 2^32, and to less than 2^31 where 128 is taken off one of the factors.
const MOST: usize = 1 << 16;

/// Sums over samples of bytes and of their products, while they are added up.
pub struct ByteProducts {
    engine: Engine,
    kernel: Kernel,
    n_features: usize,
    /// Tiles of the upper triangle: panel of the rows, panel of the columns.
    tiles: Vec<(usize, usize)>,
    /// Some blocks: `[BLOCKS][panel][GROUPS][WIDE][GROUP]` bytes.
    packed: Buffer,
    /// Sums of bytes of each block, `[BLOCKS][n_panels * WIDE]`.
    block_sums: Vec<u16>,
    /// Sums of at most `MOST` samples: of products, tile by tile, and of bytes.
    tile_sums: Vec<u32>,
    byte_sums: Vec<u32>,
    n_pending: usize,
    total: ByteMoments,
}

/// Exact sums over samples of bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ByteMoments {
    /// How many samples.
    pub n: u64,
    /// `[n_features]`
    pub sums: Vec<u64>,
    /// `[n_features, n_features]`, symmetric.
    pub products: Vec<u64>,
}

impl ByteProducts {
    /// No samples yet.
    ///
    /// # Panics
    /// If there is no feature.
    pub fn new(engine: &Engine, n_features: usize) -> ByteProducts {
        ByteProducts::with_kernel(engine, n_features, Kernel::of(engine.isa()))
    }

    fn with_kernel(engine: &Engine, n_features: usize, kernel: Kernel) -> ByteProducts {
        assert!(n_features > 0, "samples of no features");
        let n_panels = n_features.div_ceil(WIDE);
        let tiles: Vec<_> = (0..n_panels).flat_map(|column| (0..=column).map(move |row| (row, column))).collect();
        ByteProducts {
            engine: engine.clone(),
            kernel,
            n_features,
            packed: Buffer::zeros(BLOCKS * n_panels * PANEL / size_of::<f32>()),
            block_sums: vec![0; BLOCKS * n_panels * WIDE],
            tile_sums: vec![0; tiles.len() * WIDE * WIDE],
            byte_sums: vec![0; n_panels * WIDE],
            tiles,
            n_pending: 0,
            total: ByteMoments { n: 0, sums: vec![0; n_features], products: vec![0; n_features * n_features] },
        }
    }

    /// Adds `n_samples` samples; `sample(i)` is the `i`-th. Returns false, and unfinished sums, if it was stopped
    /// before the end.
    ///
    /// # Panics
    /// If a sample has another number of features.
    pub fn add<'a>(
        &mut self,
        n_samples: usize,
        sample: impl Fn(usize) -> &'a [u8] + Sync,
        is_stopped: &dyn Fn() -> bool,
    ) -> bool {
        for first in (0..n_samples).step_by(BLOCKS * BLOCK) {
            let n = (n_samples - first).min(BLOCKS * BLOCK);
            if self.n_pending + n > MOST {
                self.flush();
            }
            if !self.add_blocks(n, |i| sample(first + i), is_stopped) {
                return false;
            }
        }
        true
    }

    /// Adds at most [`BLOCKS`] blocks; false if it was stopped before the end.
    fn add_blocks<'a>(
        &mut self,
        n: usize,
        sample: impl Fn(usize) -> &'a [u8] + Sync,
        is_stopped: &dyn Fn() -> bool,
    ) -> bool {
        let (isa, n_features) = (self.engine.isa(), self.n_features);
        let n_columns = self.byte_sums.len();
        let (n_blocks, block_len) = (n.div_ceil(BLOCK), n_columns / WIDE * PANEL);
        let packed = Shares(self.packed.as_mut_ptr().cast::<u8>());
        let nothing = vec![0u8; n_features];
        self.engine.for_each_chunk(&mut self.block_sums[..n_blocks * n_columns], n_columns, |block, sums| {
            let mut samples = [&nothing[..]; BLOCK];
            for (i, slot) in samples.iter_mut().take(n - block * BLOCK).enumerate() {
                *slot = sample(block * BLOCK + i);
                assert_eq!(slot.len(), n_features, "features of a sample");
            }
            // SAFETY: block `block` of the buffer, which is visited once.
            let packed = unsafe { packed.slice(block * block_len, block_len) };
            pack(isa, &samples, packed, sums);
        });
        for sums in self.block_sums[..n_blocks * n_columns].chunks_exact(n_columns) {
            self.byte_sums.iter_mut().zip(sums).for_each(|(total, sum)| *total += u32::from(*sum));
        }
        let (tiles, kernel) = (&self.tiles, self.kernel);
        let work = (n_blocks * BLOCK * WIDE * WIDE) as u64;
        let add = |at: usize, sums: &mut [u32]| {
            let panel = |panel: usize| packed.get().wrapping_add(panel * PANEL).cast_const();
            let (rows, columns) = (panel(tiles[at].0), panel(tiles[at].1));
            // SAFETY: the processor has this kernel; `n_blocks` panels of both lie `block_len` apart in the buffer, and
            // a tile's sums are `WIDE` rows of `WIDE`.
            unsafe { kernel.add(rows, columns, n_blocks, block_len, sums) };
        };
        self.n_pending += n;
        self.engine.for_each_chunk_until(&mut self.tile_sums, WIDE * WIDE, work, is_stopped, add)
    }

    /// Moves the sums so far to where there is room for more.
    fn flush(&mut self) {
        let (n, total) = (self.n_features, &mut self.total);
        // A kernel may take 128 off the factor of the column: what is missing then is that times the sum of the row.
        let missing = self.kernel.taken_off();
        for (sums, &(row_panel, column_panel)) in self.tile_sums.chunks_exact_mut(WIDE * WIDE).zip(&self.tiles) {
            let (first_row, first_column) = (row_panel * WIDE, column_panel * WIDE);
            let n_columns = WIDE.min(n - first_column);
            for (row, sums) in (first_row..n.min(first_row + WIDE)).zip(sums.chunks_exact(WIDE)) {
                let missing = self.byte_sums[row].wrapping_mul(missing);
                let totals = &mut total.products[row * n + first_column..][..n_columns];
                for (total, sum) in totals.iter_mut().zip(sums) {
                    *total += u64::from(sum.wrapping_add(missing));
                }
            }
            sums.fill(0);
        }
        total.sums.iter_mut().zip(&self.byte_sums).for_each(|(total, sum)| *total += u64::from(*sum));
        self.byte_sums.fill(0);
        total.n += self.n_pending as u64;
        self.n_pending = 0;
    }

    /// The sums over all samples that were added.
    pub fn finish(mut self) -> ByteMoments {
        self.flush();
        let n = self.n_features;
        for i in 0..n {
            for j in 0..i {
                self.total.products[i * n + j] = self.total.products[j * n + i];
            }
        }
        self.total
    }
}

impl std::fmt::Debug for ByteProducts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ByteProducts").field("n_features", &self.n_features).finish_non_exhaustive()
    }
}

/// How tiles are multiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kernel {
    /// AVX-512 with `vpdpbusd`: unsigned by signed bytes, four at a time.
    #[cfg(target_arch = "x86_64")]
    Vnni,
    /// AVX2 with `vpmaddwd`: 16-bit numbers, two at a time.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Portable,
}

impl Kernel {
    fn of(isa: Isa) -> Kernel {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 if is_x86_feature_detected!("avx512vnni") => Kernel::Vnni,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 | Isa::Avx2 => Kernel::Avx2,
            _ => Kernel::Portable,
        }
    }

    /// What is taken off each byte of the columns before it is multiplied.
    fn taken_off(self) -> u32 {
        match self {
            #[cfg(target_arch = "x86_64")]
            Kernel::Vnni => 128,
            _ => 0,
        }
    }

    /// Adds to `sums` (`[WIDE, WIDE]`, modulo 2^32) the products of two panels over some blocks.
    ///
    /// # Safety
    /// The processor has the instructions; `rows` and `columns` point to panels, of which `n_blocks` lie `block_len`
    /// bytes apart.
    unsafe fn add(self, rows: *const u8, columns: *const u8, n_blocks: usize, block_len: usize, sums: &mut [u32]) {
        assert_eq!(sums.len(), WIDE * WIDE, "sums of a tile");
        // SAFETY: by this function's contract.
        unsafe {
            match self {
                #[cfg(target_arch = "x86_64")]
                Kernel::Vnni => x86::vnni(rows, columns, n_blocks, block_len, sums.as_mut_ptr()),
                #[cfg(target_arch = "x86_64")]
                Kernel::Avx2 => x86::avx2(rows, columns, n_blocks, block_len, sums.as_mut_ptr()),
                Kernel::Portable => portable(rows, columns, n_blocks, block_len, sums),
            }
        }
    }
}

unsafe fn portable(rows: *const u8, columns: *const u8, n_blocks: usize, block_len: usize, sums: &mut [u32]) {
    for block in 0..n_blocks {
        // SAFETY: panels of this block, by the caller's contract.
        let [rows, columns] =
            [rows, columns].map(|panel| unsafe { std::slice::from_raw_parts(panel.add(block * block_len), PANEL) });
        let groups = rows.as_chunks::<{ WIDE * GROUP }>().0.iter().zip(columns.as_chunks::<{ WIDE * GROUP }>().0);
        for (rows, columns) in groups {
            let columns = columns.as_chunks::<GROUP>().0;
            for (sums, row) in sums.chunks_exact_mut(WIDE).zip(rows.as_chunks::<GROUP>().0) {
                let [a, b, c, d] = row.map(u32::from);
                for (sum, column) in sums.iter_mut().zip(columns) {
                    let [e, f, g, h] = column.map(u32::from);
                    *sum = sum.wrapping_add((a * e + b * f) + (c * g + d * h));
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    //! Tiles of registers. Pointers are as [`super::Kernel::add`] promises.

    use std::arch::x86_64::*;

    use super::{GROUP, GROUPS, WIDE};

    /// Bytes from one group to the next.
    const STEP: usize = WIDE * GROUP;

    /// Rows of a tile of registers: 16 sums, enough to hide the latency of 5 at two instructions a cycle.
    const VNNI_ROWS: usize = 8;

    #[target_feature(enable = "avx512f,avx512vnni")]
    pub(super) unsafe fn vnni(rows: *const u8, columns: *const u8, n_blocks: usize, block_len: usize, sums: *mut u32) {
        let sign = _mm512_set1_epi8(-128);
        for first in (0..WIDE).step_by(VNNI_ROWS) {
            let mut acc = [[_mm512_setzero_si512(); 2]; VNNI_ROWS];
            for block in 0..n_blocks {
                for group in 0..GROUPS {
                    let at = block * block_len + group * STEP;
                    // SAFETY: a group of a panel is `STEP` bytes, two vectors.
                    unsafe {
                        let (row, column) = (rows.add(at + first * GROUP).cast::<i32>(), columns.add(at));
                        // Less 128: with its upper bit turned, an unsigned byte is a signed one.
                        let y = [0, 64].map(|i| _mm512_xor_si512(_mm512_loadu_si512(column.add(i).cast()), sign));
                        for (j, acc) in acc.iter_mut().enumerate() {
                            let x = _mm512_set1_epi32(row.add(j).read_unaligned());
                            acc[0] = _mm512_dpbusd_epi32(acc[0], x, y[0]);
                            acc[1] = _mm512_dpbusd_epi32(acc[1], x, y[1]);
                        }
                    }
                }
            }
            for (j, acc) in acc.iter().enumerate() {
                for (i, acc) in acc.iter().enumerate() {
                    // SAFETY: within `WIDE` rows of `WIDE` sums.
                    unsafe {
                        let to = sums.add((first + j) * WIDE + i * 16);
                        let sum = _mm512_add_epi32(_mm512_loadu_si512(to.cast()), *acc);
                        _mm512_storeu_si512(to.cast(), sum);
                    }
                }
            }
        }
    }

    /// Rows of a tile of registers: 8 sums, 4 vectors of columns, 2 of a row, one mask.
    const AVX2_ROWS: usize = 4;

    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn avx2(rows: *const u8, columns: *const u8, n_blocks: usize, block_len: usize, sums: *mut u32) {
        let low = _mm256_set1_epi16(0x00ff);
        for (first, half) in (0..WIDE).step_by(AVX2_ROWS).flat_map(|first| [(first, 0), (first, WIDE / 2)]) {
            let mut acc = [[_mm256_setzero_si256(); 2]; AVX2_ROWS];
            for block in 0..n_blocks {
                for group in 0..GROUPS {
                    let at = block * block_len + group * STEP;
                    // SAFETY: a group of a panel is `STEP` bytes, four vectors.
                    unsafe {
                        let row = rows.add(at + first * GROUP).cast::<i32>();
                        let column = columns.add(at + half * GROUP);
                        let y = [0, 32].map(|i| _mm256_loadu_si256(column.add(i).cast()));
                        // The first and third sample, and the second and fourth, as 16-bit numbers.
                        let y = y.map(|y| (_mm256_and_si256(y, low), _mm256_srli_epi16::<8>(y)));
                        for (j, acc) in acc.iter_mut().enumerate() {
                            let x = _mm256_set1_epi32(row.add(j).read_unaligned());
                            let (even, odd) = (_mm256_and_si256(x, low), _mm256_srli_epi16::<8>(x));
                            for (acc, y) in acc.iter_mut().zip(&y) {
                                *acc = _mm256_add_epi32(*acc, _mm256_madd_epi16(even, y.0));
                                *acc = _mm256_add_epi32(*acc, _mm256_madd_epi16(odd, y.1));
                            }
                        }
                    }
                }
            }
            for (j, acc) in acc.iter().enumerate() {
                for (i, acc) in acc.iter().enumerate() {
                    // SAFETY: within `WIDE` rows of `WIDE` sums.
                    unsafe {
                        let to = sums.add((first + j) * WIDE + half + i * 8).cast::<__m256i>();
                        _mm256_storeu_si256(to, _mm256_add_epi32(_mm256_loadu_si256(to), *acc));
                    }
                }
            }
        }
    }
}

versions! {
    /// Lays [`BLOCK`] samples out for the tiles (`out`, `[panel][GROUPS][WIDE][GROUP]`) and adds each feature up.
    fn pack(samples: &[&[u8]; BLOCK], out: &mut [u8], sums: &mut [u16]) {
        sums.fill(0);
        for (group, four) in samples.as_chunks::<GROUP>().0.iter().enumerate() {
            let panels = out.chunks_exact_mut(PANEL).zip(sums.as_chunks_mut::<WIDE>().0);
            for (panel, (out, sums)) in panels.enumerate() {
                let out = &mut out[group * WIDE * GROUP..][..WIDE * GROUP];
                let first = panel * WIDE;
                let mut values = [[0u8; WIDE]; GROUP];
                for (values, sample) in values.iter_mut().zip(four) {
                    let from = &sample[first..sample.len().min(first + WIDE)];
                    match from.first_chunk::<WIDE>() {
                        Some(whole) => *values = *whole,
                        None => values[..from.len()].copy_from_slice(from),
                    }
                }
                let [a, b, c, d] = &values;
                for (i, (out, sum)) in out.as_chunks_mut::<GROUP>().0.iter_mut().zip(sums).enumerate() {
                    *out = [a[i], b[i], c[i], d[i]];
                    *sum += u16::from(a[i]) + u16::from(b[i]) + u16::from(c[i]) + u16::from(d[i]);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Stream;

    fn kernels() -> Vec<(Isa, Kernel)> {
        let mut kernels: Vec<(Isa, Kernel)> = Isa::available().into_iter().map(|isa| (isa, Kernel::of(isa))).collect();
        #[cfg(target_arch = "x86_64")]
        if Isa::Avx512.is_available() {
            // What an AVX-512 processor without VNNI has.
            kernels.push((Isa::Avx512, Kernel::Avx2));
        }
        kernels
    }

    fn expected(samples: &[Vec<u8>], n: usize) -> ByteMoments {
        let sum = |f: &dyn Fn(&Vec<u8>) -> u64| samples.iter().map(f).sum::<u64>();
        ByteMoments {
            n: samples.len() as u64,
            sums: (0..n).map(|i| sum(&|x| x[i].into())).collect(),
            products: (0..n * n).map(|at| sum(&|x| u64::from(x[at / n]) * u64::from(x[at % n]))).collect(),
        }
    }

    #[test]
    fn sums_are_exact_on_every_instruction_set_and_any_number_of_threads() {
        for (n_samples, n_features) in [(1, 1), (3, 31), (255, 33), (256, 64), (1000, 7), (2050, 70), (5000, 20)] {
            let mut words = vec![0; n_samples * n_features];
            Stream::new(3, "bytes", &[]).words(0, &mut words);
            let samples: Vec<Vec<u8>> =
                words.chunks(n_features).map(|row| row.iter().map(|x| (x >> 24) as u8).collect()).collect();
            let expected = expected(&samples, n_features);
            for (isa, kernel) in kernels() {
                for threads in [1, 2, 3, 7] {
                    let engine = Engine::with_isa(threads, isa);
                    let mut products = ByteProducts::with_kernel(&engine, n_features, kernel);
                    let half = n_samples / 2;
                    assert!(products.add(half, |i| &samples[i], &|| false));
                    assert!(products.add(n_samples - half, |i| &samples[half + i], &|| false));
                    let got = products.finish();
                    assert!(got == expected, "{kernel:?}, {threads} threads, {n_samples} x {n_features}");
                }
            }
        }
    }

    #[test]
    fn the_largest_bytes_of_more_samples_than_32_bits_hold_do_not_overflow() {
        let n_samples = 2 * MOST + 300;
        let samples = [[255u8, 255, 0], [255, 0, 255]];
        let n = n_samples as u64;
        for (isa, kernel) in kernels() {
            let mut products = ByteProducts::with_kernel(&Engine::with_isa(2, isa), 3, kernel);
            assert!(products.add(n_samples, |i| &samples[usize::from(i >= MOST)], &|| false));
            let got = products.finish();
            let (first, rest) = (MOST as u64 * 255 * 255, (n - MOST as u64) * 255 * 255);
            assert_eq!(got.sums, [255 * n, first / 255, rest / 255], "{kernel:?}");
            assert_eq!(got.products, [first + rest, first, rest, first, first, 0, rest, 0, rest], "{kernel:?}");
        }
    }
}
