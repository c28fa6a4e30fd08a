//! The micro-kernels, and one table of them per instruction set.
//!
//! A kernel is written once, generic over `Simd`, and compiled for each instruction set behind an entry point that
//! enables it. Drivers see [`Kernels`], a table of plain function pointers, and never a vector.

mod outer;
mod pack;
mod pool;
mod product;
mod winograd;

pub(super) use outer::{OuterTile, Sweep};
pub(super) use pool::SpreadRow;
pub(super) use product::{Finish, MAX_MR, ProductTile, Run, Strip, UNROLL};
pub(super) use winograd::{CHUNK, GradientRow, ImageRow, OutputRow, PointTile, Points, PooledRow, SIDE, TILE};

use super::isa::Isa;

/// The most vectors across a register tile.
pub(super) const MAX_NR: usize = 2;

/// The kernels of one instruction set.
pub(super) struct Kernels {
    /// Lanes of a vector.
    pub(super) lanes: usize,
    /// Rows of the tallest tile that is `nr` vectors across, at `nr - 1`.
    pub(super) mr: [usize; MAX_NR],
    /// Computes a tile of a product; at `[nr - 1][mr - 1]`.
    pub(super) product: [[unsafe fn(&ProductTile); MAX_MR]; MAX_NR],
    /// Computes strips of tiles of grey and of RGB images.
    pub(super) strips: [Strips; 2],
    /// Computes a tile of a sum of outer products; at `[nr - 1][mr - 1]`.
    pub(super) outer: [[unsafe fn(&OuterTile); MAX_MR]; MAX_NR],
    /// A tile one vector across whose every lane has an input of its own; at `[mr - 1]`.
    pub(super) each_product: [unsafe fn(&ProductTile); MAX_MR],
    /// Likewise for sums of products lane by lane.
    pub(super) each_outer: [unsafe fn(&OuterTile); MAX_MR],
    /// `pack(from, from_row, rows, columns, to, to_row)` copies a block, filling up each row of the target with zeros.
    pub(super) pack: unsafe fn(*const f32, usize, usize, usize, *mut f32, usize),
    /// `pack_panels(from, from_row, rows, columns, to, wide, panel_len)` copies a block into several panels at once.
    pub(super) pack_panels: unsafe fn(*const f32, usize, usize, usize, *mut f32, usize, usize),
    /// `transpose(from, from_row, rows, columns, to, to_row)`: the source is `rows` x `columns`.
    pub(super) transpose: unsafe fn(*const f32, usize, usize, usize, *mut f32, usize),
    /// `add_rows(from, from_row, rows, columns, sums)` adds each row to `sums`, in order.
    pub(super) add_rows: unsafe fn(*const f32, usize, usize, usize, *mut f32),
    /// `add(to, from, n)`: `to[i] += from[i]`.
    pub(super) add: unsafe fn(*mut f32, *const f32, usize),
    /// `clip(to, mask, n)`: `to[i] = 0` where `mask[i]` is at most 0.
    pub(super) clip: unsafe fn(*mut f32, *const f32, usize),
    /// `pack_centred(from, from_row, rows, columns, centre, to, to_row)`: `pack`, less a row.
    pub(super) pack_centred: unsafe fn(*const f32, usize, usize, usize, *const f32, *mut f32, usize),
    /// `pool_row(upper, lower, pixels, channels, relu_mask, out, taps)`: 2x2 windows of two rows, the largest of each.
    pub(super) pool_row: unsafe fn(*const f32, *const f32, usize, usize, bool, *mut f32, *mut u8),
    /// Its gradient.
    pub(super) spread_row: unsafe fn(&SpreadRow),
    /// Computes a register tile of Winograd's products; at `[nr - 1][mr - 1]`.
    pub(super) winograd_product: [[unsafe fn(&PointTile); MAX_MR]; MAX_NR],
    /// Winograd's transforms of a row of tiles: of an image, of output gradients (a row of points each), into pixels.
    pub(super) winograd_image: unsafe fn(&ImageRow),
    pub(super) winograd_gradient: unsafe fn(&GradientRow),
    pub(super) winograd_output: unsafe fn(&OutputRow),
    /// `winograd_weights(from, plane, n, to, to_point)` transforms `n` kernels.
    pub(super) winograd_weights: unsafe fn(*const f32, usize, usize, *mut f32, usize),
    /// `winograd_grad_weights(from, plane, n, to, to_plane)` brings sums back.
    pub(super) winograd_grad_weights: unsafe fn(*const f32, usize, usize, *mut f32, usize),
    /// Registers-only multiply-adds, for the share of peak: `(rounds)` of 64 vectors, returns flops done.
    pub(super) probe: unsafe fn(usize) -> f64,
}

/// Kernels of strips of tiles.
pub(super) struct Strips {
    /// Values from one pixel of the source to the next.
    pub(super) x_pixel: usize,
    /// At `[nr - 1][mr - 1]`.
    pub(super) tiles: [[unsafe fn(&Strip); MAX_MR]; MAX_NR],
}

impl Kernels {
    /// The table of an instruction set.
    pub(super) fn of(isa: Isa) -> &'static Kernels {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => &AVX512,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => &AVX2,
            _ => &PORTABLE,
        }
    }
}

/// Makes the entry points and the table of one instruction set. `$tall` rows for a tile of one vector, `$wide` for two.
macro_rules! table {
    ($(#[$cfg:meta])? $table:ident, $module:ident, $simd:ident, $($feature:literal)?, $tall:literal, $wide:literal) => {
        $(#[$cfg])?
        mod $module {
            use crate::engine::simd::{Simd, $simd};
            use super::{
                GradientRow, ImageRow, OuterTile, OutputRow, PointTile, ProductTile, SpreadRow, Strip, outer, pack, pool, product, winograd,
            };

            // The table is handed out for a processor that has the instruction set only (`Engine::with_isa` checks).
            $(#[target_feature(enable = $feature)])?
            pub(super) unsafe fn product_tile<const MR: usize, const NR: usize, const EACH: bool>(tile: &ProductTile) {
                // SAFETY: the instruction set is enabled here; the arguments are the caller's to answer for.
                unsafe { product::tile::<$simd, MR, NR, EACH>(tile) }
            }
            $(#[target_feature(enable = $feature)])?
            pub(super) unsafe fn strip<const MR: usize, const NR: usize, const X_PIXEL: usize>(strip: &Strip) {
                // SAFETY: the instruction set is enabled here; the arguments are the caller's to answer for.
                unsafe { product::strip::<$simd, MR, NR, X_PIXEL>(strip) }
            }
            $(#[target_feature(enable = $feature)])?
            pub(super) unsafe fn outer_tile<const MR: usize, const NR: usize, const EACH: bool>(tile: &OuterTile) {
                // SAFETY: the instruction set is enabled here; the arguments are the caller's to answer for.
                unsafe { outer::tile::<$simd, MR, NR, EACH>(tile) }
            }
            $(#[target_feature(enable = $feature)])?
            pub(super) unsafe fn pack_rows(
                from: *const f32, from_row: usize, rows: usize, columns: usize, to: *mut f32, to_row: usize,
            ) {
                // SAFETY: the instruction set is enabled here; the arguments are the caller's to answer for.
                unsafe { pack::rows::<$simd>(from, from_row, rows, columns, to, to_row) }
            }
            $(#[target_feature(enable = $feature)])?
            pub(super) unsafe fn pack_panels(
                from: *const f32, from_row: usize, rows: usize, columns: usize, to: *mut f32, wide: usize,
                panel_len: usize,
            ) {
                // SAFETY: the instruction set is enabled here; the arguments are the caller's to answer for.
                unsafe { pack::panels::<$simd>(from, from_row, rows, columns, to, wide, panel_len) }
            }
            $(#[target_feature(enable = $feature)])?
            pub(super) unsafe fn transpose(
                from: *const f32, from_row: usize, rows: usize, columns: usize, to: *mut f32, to_row: usize,
            ) {
                // SAFETY: the instruction set is enabled here; the arguments are the caller's to answer for.
                unsafe { pack::transposed::<$simd>(from, from_row, rows, columns, to, to_row) }
            }
            $(#[target_feature(enable = $feature)])?
            pub(super) unsafe fn add_rows(
                from: *const f32, from_row: usize, rows: usize, columns: usize, sums: *mut f32,
            ) {
                // SAFETY: the instruction set is enabled here; the arguments are the caller's to answer for.
                unsafe { pack::add_rows::<$simd>(from, from_row, rows, columns, sums) }
            }
            $(#[target_feature(enable = $feature)])?
            pub(super) unsafe fn add(to: *mut f32, from: *const f32, n: usize) {
                // SAFETY: the instruction set is enabled here; the arguments are the caller's to answer for.
                unsafe { pack::add::<$simd>(to, from, n) }
            }
            $(#[target_feature(enable = $feature)])?
            pub(super) unsafe fn clip(to: *mut f32, mask: *const f32, n: usize) {
                // SAFETY: the instruction set is enabled here; the arguments are the caller's to answer for.
                unsafe { pack::clip::<$simd>(to, mask, n) }
            }
            $(#[target_feature(enable = $feature)])?
            pub(super) unsafe fn pack_centred(
                from: *const f32, from_row: usize, rows: usize, columns: usize, centre: *const f32, to: *mut f32,
                to_row: usize,
            ) {
                // SAFETY: the instruction set is enabled here; the arguments are the caller's to answer for.
                unsafe { pack::centred::<$simd>(from, from_row, rows, columns, centre, to, to_row) }
            }
            $(#[target_feature(enable = $feature)])?
            pub(super) unsafe fn pool_row(
                upper: *const f32, lower: *const f32, pixels: usize, channels: usize, relu_mask: bool, out: *mut f32,
                taps: *mut u8,
            ) {
                // SAFETY: the instruction set is enabled here; the arguments are the caller's to answer for.
                unsafe { pool::pool_row::<$simd>(upper, lower, pixels, channels, relu_mask, out, taps) }
            }
            $(#[target_feature(enable = $feature)])?
            pub(super) unsafe fn spread_row(row: &SpreadRow) {
                // SAFETY: the instruction set is enabled here; the arguments are the caller's to answer for.
                unsafe { pool::spread_row::<$simd>(row) }
            }
            $(#[target_feature(enable = $feature)])?
            pub(super) unsafe fn winograd_product<const MR: usize, const NR: usize>(tile: &PointTile) {
                // SAFETY: the instruction set is enabled here; the arguments are the caller's to answer for.
                unsafe { winograd::product::<$simd, MR, NR>(tile) }
            }
            $(#[target_feature(enable = $feature)])?
            pub(super) unsafe fn winograd_image(row: &ImageRow) {
                // SAFETY: the instruction set is enabled here; the arguments are the caller's to answer for.
                unsafe { winograd::image::<$simd>(row) }
            }
            $(#[target_feature(enable = $feature)])?
            pub(super) unsafe fn winograd_gradient(row: &GradientRow) {
                // SAFETY: the instruction set is enabled here; the arguments are the caller's to answer for.
                unsafe { winograd::gradient::<$simd>(row) }
            }
            $(#[target_feature(enable = $feature)])?
            pub(super) unsafe fn winograd_output(row: &OutputRow) {
                // SAFETY: the instruction set is enabled here; the arguments are the caller's to answer for.
                unsafe { winograd::output::<$simd>(row) }
            }
            $(#[target_feature(enable = $feature)])?
            pub(super) unsafe fn winograd_weights(
                from: *const f32, plane: usize, n: usize, to: *mut f32, to_point: usize,
            ) {
                // SAFETY: the instruction set is enabled here; the arguments are the caller's to answer for.
                unsafe { winograd::weights::<$simd>(from, plane, n, to, to_point) }
            }
            $(#[target_feature(enable = $feature)])?
            pub(super) unsafe fn winograd_grad_weights(
                from: *const f32, plane: usize, n: usize, to: *mut f32, to_plane: usize,
            ) {
                // SAFETY: the instruction set is enabled here; the arguments are the caller's to answer for.
                unsafe { winograd::grad_weights::<$simd>(from, plane, n, to, to_plane) }
            }
            $(#[target_feature(enable = $feature)])?
            pub(super) unsafe fn probe(rounds: usize) -> f64 {
                // SAFETY: the instruction set is enabled here; the arguments are the caller's to answer for.
                unsafe { pack::probe::<$simd>(rounds) }
            }
            pub(super) const LANES: usize = <$simd as Simd>::LANES;
        }

        $(#[$cfg])?
        static $table: Kernels = {
            use $module::*;
            const T: usize = $tall;
            const W: usize = $wide;
            const fn low(i: usize, most: usize) -> usize {
                if i < most { i } else { most }
            }
            Kernels {
                lanes: LANES,
                mr: [T, W],
                product: [
                    rows!(product_tile, T, low, 1, false),
                    rows!(product_tile, W, low, 2, false),
                ],
                strips: [
                    Strips { x_pixel: 1, tiles: [rows!(strip, T, low, 1, 1), rows!(strip, W, low, 2, 1)] },
                    Strips { x_pixel: 3, tiles: [rows!(strip, T, low, 1, 3), rows!(strip, W, low, 2, 3)] },
                ],
                each_product: rows!(product_tile, T, low, 1, true),
                outer: [
                    rows!(outer_tile, T, low, 1, false),
                    rows!(outer_tile, W, low, 2, false),
                ],
                each_outer: rows!(outer_tile, T, low, 1, true),
                pack: pack_rows,
                pack_panels,
                transpose,
                add_rows,
                add,
                clip,
                pack_centred,
                pool_row,
                spread_row,
                winograd_product: [
                    rows!(winograd_product, T, low, 1),
                    rows!(winograd_product, W, low, 2),
                ],
                winograd_image,
                winograd_gradient,
                winograd_output,
                winograd_weights,
                winograd_grad_weights,
                probe,
            }
        };
    };
}

/// The tiles of 1 to 14 rows; entries past the tallest repeat it and are never called.
macro_rules! rows {
    ($f:ident, $most:ident, $low:ident, $nr:literal $(, $each:literal)?) => {
        [
            $f::<{ $low(1, $most) }, $nr $(, $each)?>,
            $f::<{ $low(2, $most) }, $nr $(, $each)?>,
            $f::<{ $low(3, $most) }, $nr $(, $each)?>,
            $f::<{ $low(4, $most) }, $nr $(, $each)?>,
            $f::<{ $low(5, $most) }, $nr $(, $each)?>,
            $f::<{ $low(6, $most) }, $nr $(, $each)?>,
            $f::<{ $low(7, $most) }, $nr $(, $each)?>,
            $f::<{ $low(8, $most) }, $nr $(, $each)?>,
            $f::<{ $low(9, $most) }, $nr $(, $each)?>,
            $f::<{ $low(10, $most) }, $nr $(, $each)?>,
            $f::<{ $low(11, $most) }, $nr $(, $each)?>,
            $f::<{ $low(12, $most) }, $nr $(, $each)?>,
            $f::<{ $low(13, $most) }, $nr $(, $each)?>,
            $f::<{ $low(14, $most) }, $nr $(, $each)?>,
        ]
    };
}

// 14 x 2 of 32 registers, 6 x 2 of 16. Measured on a Zen 5 core, 14x14x64 -> 32 k3: 14x2 236, 12x2 234, 9x3 237, 6x4
// 237, 6x2 233, 14x1 200 GFLOP/s of about 237: anything two vectors across will do.
table!(
    #[cfg(target_arch = "x86_64")]
    AVX512,
    avx512,
    Avx512,
    "avx512f,avx2,fma",
    14,
    14
);
table!(
    #[cfg(target_arch = "x86_64")]
    AVX2,
    avx2,
    Avx2,
    "avx2,fma",
    12,
    6
);
// For 32 registers of 4 lanes: a "vector" is four of them.
table!(PORTABLE, portable, Portable, , 6, 2);
