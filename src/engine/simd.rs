//! The shim between kernels and instruction sets: the dozen vector operations that kernels are written in.
//!
//! A kernel is one generic function over [`Simd`], always inlined into an entry point that enables the instruction set
//! (see `kernel`). A method must not be called anywhere else, hence `unsafe`.

/// Vectors of f32. Every operation is lane by lane and rounds once, so that the number of lanes never shows in a
/// result.
///
/// # Safety
/// To call any method the processor must have the instruction set, and pointers must be good for all lanes, or for the
/// first `n` where a method takes a mask.
pub(super) trait Simd: Copy {
    /// Lanes of a vector.
    const LANES: usize;
    /// A vector.
    type V: Copy;
    /// Which lanes of a partial vector count.
    type Mask: Copy;

    unsafe fn zero() -> Self::V;
    unsafe fn splat(x: f32) -> Self::V;
    unsafe fn load(p: *const f32) -> Self::V;
    unsafe fn store(p: *mut f32, v: Self::V);
    /// The mask of the first `n` lanes, `n` at most `LANES`.
    unsafe fn first(n: usize) -> Self::Mask;
    /// Lanes outside the mask read as 0 and their memory is not touched.
    unsafe fn load_masked(p: *const f32, mask: Self::Mask) -> Self::V;
    unsafe fn store_masked(p: *mut f32, mask: Self::Mask, v: Self::V);
    /// `a * b + c`, fused.
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V;
    /// 0 where `v` is below 0, else `v`: NaN and -0 stay.
    unsafe fn relu(v: Self::V) -> Self::V;
    /// 0 where `mask` is at most 0, else `v`.
    unsafe fn zero_where_clipped(v: Self::V, mask: Self::V) -> Self::V;
    /// `other` where `mask` is at most 0, else `v`.
    unsafe fn replace_where_clipped(v: Self::V, other: Self::V, mask: Self::V) -> Self::V;
    /// `x` where its first part is larger than that of `best`, or is NaN where that is not; else `best`.
    unsafe fn larger(best: (Self::V, Self::V), x: (Self::V, Self::V)) -> (Self::V, Self::V);
    /// `v` where `a` equals `b`, else 0.
    unsafe fn where_equal(v: Self::V, a: Self::V, b: Self::V) -> Self::V;
    /// Stores the first `n` lanes, whole numbers below 256, as bytes.
    unsafe fn store_bytes(p: *mut u8, n: usize, v: Self::V);
    /// `n` bytes as numbers; lanes from `n` on are 0.
    unsafe fn load_bytes(p: *const u8, n: usize) -> Self::V;
    /// Transposes a square of `LANES` by `LANES`: row `i` of the target is column `i` of the source.
    unsafe fn transpose(from: *const f32, from_row: usize, to: *mut f32, to_row: usize);
}

/// 16 lanes of AVX-512F.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(super) struct Avx512;

/// 8 lanes of AVX2 and FMA.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(super) struct Avx2;

/// 16 lanes of plain Rust.
#[derive(Clone, Copy)]
pub(super) struct Portable;

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Avx2, Avx512, Simd};

    impl Simd for Avx512 {
        const LANES: usize = 16;
        type V = __m512;
        type Mask = __mmask16;

        #[inline(always)]
        unsafe fn zero() -> __m512 {
            // SAFETY: by the trait's contract AVX-512F is there.
            unsafe { _mm512_setzero_ps() }
        }
        #[inline(always)]
        unsafe fn splat(x: f32) -> __m512 {
            // SAFETY: by the trait's contract AVX-512F is there.
            unsafe { _mm512_set1_ps(x) }
        }
        #[inline(always)]
        unsafe fn load(p: *const f32) -> __m512 {
            // SAFETY: by the trait's contract AVX-512F is there and `p` is readable for all lanes.
            unsafe { _mm512_loadu_ps(p) }
        }
        #[inline(always)]
        unsafe fn store(p: *mut f32, v: __m512) {
            // SAFETY: by the trait's contract AVX-512F is there and `p` is writable for all lanes.
            unsafe { _mm512_storeu_ps(p, v) }
        }
        #[inline(always)]
        unsafe fn first(n: usize) -> __mmask16 {
            ((1u32 << n) - 1) as __mmask16
        }
        #[inline(always)]
        unsafe fn load_masked(p: *const f32, mask: __mmask16) -> __m512 {
            // SAFETY: by the trait's contract AVX-512F is there and lanes inside the mask are readable.
            unsafe { _mm512_maskz_loadu_ps(mask, p) }
        }
        #[inline(always)]
        unsafe fn store_masked(p: *mut f32, mask: __mmask16, v: __m512) {
            // SAFETY: by the trait's contract AVX-512F is there and lanes inside the mask are writable.
            unsafe { _mm512_mask_storeu_ps(p, mask, v) }
        }
        #[inline(always)]
        unsafe fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
            // SAFETY: by the trait's contract AVX-512F is there.
            unsafe { _mm512_fmadd_ps(a, b, c) }
        }
        #[inline(always)]
        unsafe fn add(a: __m512, b: __m512) -> __m512 {
            // SAFETY: by the trait's contract AVX-512F is there.
            unsafe { _mm512_add_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn sub(a: __m512, b: __m512) -> __m512 {
            // SAFETY: by the trait's contract AVX-512F is there.
            unsafe { _mm512_sub_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn relu(v: __m512) -> __m512 {
            // The second operand comes out when either is NaN or both are zeros.
            // SAFETY: by the trait's contract AVX-512F is there.
            unsafe { _mm512_max_ps(_mm512_setzero_ps(), v) }
        }
        #[inline(always)]
        unsafe fn zero_where_clipped(v: __m512, mask: __m512) -> __m512 {
            // SAFETY: by the trait's contract AVX-512F is there.
            unsafe {
                let keep = _mm512_cmp_ps_mask::<_CMP_NLE_UQ>(mask, _mm512_setzero_ps());
                _mm512_maskz_mov_ps(keep, v)
            }
        }
        #[inline(always)]
        unsafe fn replace_where_clipped(v: __m512, other: __m512, mask: __m512) -> __m512 {
            // SAFETY: by the trait's contract AVX-512F is there.
            unsafe {
                let keep = _mm512_cmp_ps_mask::<_CMP_NLE_UQ>(mask, _mm512_setzero_ps());
                _mm512_mask_mov_ps(other, keep, v)
            }
        }
        #[inline(always)]
        unsafe fn larger(best: (__m512, __m512), x: (__m512, __m512)) -> (__m512, __m512) {
            // SAFETY: by the trait's contract AVX-512F is there.
            unsafe {
                let is_number = _mm512_cmp_ps_mask::<_CMP_ORD_Q>(best.0, best.0);
                let wins = _mm512_mask_cmp_ps_mask::<_CMP_NLE_UQ>(is_number, x.0, best.0);
                (_mm512_mask_mov_ps(best.0, wins, x.0), _mm512_mask_mov_ps(best.1, wins, x.1))
            }
        }
        #[inline(always)]
        unsafe fn where_equal(v: __m512, a: __m512, b: __m512) -> __m512 {
            // SAFETY: by the trait's contract AVX-512F is there.
            unsafe { _mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_EQ_OQ>(a, b), v) }
        }
        #[inline(always)]
        unsafe fn store_bytes(p: *mut u8, n: usize, v: __m512) {
            // SAFETY: by the trait's contract AVX-512F is there and `p` is writable for `n` bytes.
            unsafe {
                let bytes = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(v));
                if n == 16 {
                    _mm_storeu_si128(p.cast(), bytes);
                } else {
                    let mut all = [0u8; 16];
                    _mm_storeu_si128(all.as_mut_ptr().cast(), bytes);
                    std::ptr::copy_nonoverlapping(all.as_ptr(), p, n);
                }
            }
        }
        #[inline(always)]
        unsafe fn load_bytes(p: *const u8, n: usize) -> __m512 {
            // SAFETY: by the trait's contract AVX-512F is there and `p` is readable for `n` bytes.
            unsafe {
                let mut all = [0u8; 16];
                let bytes = if n == 16 {
                    _mm_loadu_si128(p.cast())
                } else {
                    std::ptr::copy_nonoverlapping(p, all.as_mut_ptr(), n);
                    _mm_loadu_si128(all.as_ptr().cast())
                };
                _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes))
            }
        }
        #[inline(always)]
        unsafe fn transpose(from: *const f32, from_row: usize, to: *mut f32, to_row: usize) {
            // SAFETY: by the trait's contract AVX-512F is there and both squares lie in memory that is the caller's.
            unsafe {
                let mut a = [_mm512_setzero_ps(); 16];
                for i in 0..16 {
                    a[i] = _mm512_loadu_ps(from.add(i * from_row));
                }
                // Pairs, then fours within 128-bit quarters; then the quarters move.
                let mut b = a;
                for i in 0..8 {
                    b[2 * i] = _mm512_unpacklo_ps(a[2 * i], a[2 * i + 1]);
                    b[2 * i + 1] = _mm512_unpackhi_ps(a[2 * i], a[2 * i + 1]);
                }
                for i in 0..4 {
                    let (r0, r1, r2, r3) = (b[4 * i], b[4 * i + 1], b[4 * i + 2], b[4 * i + 3]);
                    a[4 * i] = _mm512_shuffle_ps::<0x44>(r0, r2);
                    a[4 * i + 1] = _mm512_shuffle_ps::<0xee>(r0, r2);
                    a[4 * i + 2] = _mm512_shuffle_ps::<0x44>(r1, r3);
                    a[4 * i + 3] = _mm512_shuffle_ps::<0xee>(r1, r3);
                }
                for i in 0..4 {
                    let low = _mm512_shuffle_f32x4::<0x88>(a[i], a[4 + i]);
                    let high = _mm512_shuffle_f32x4::<0xdd>(a[i], a[4 + i]);
                    let low2 = _mm512_shuffle_f32x4::<0x88>(a[8 + i], a[12 + i]);
                    let high2 = _mm512_shuffle_f32x4::<0xdd>(a[8 + i], a[12 + i]);
                    _mm512_storeu_ps(to.add(i * to_row), _mm512_shuffle_f32x4::<0x88>(low, low2));
                    _mm512_storeu_ps(to.add((8 + i) * to_row), _mm512_shuffle_f32x4::<0xdd>(low, low2));
                    _mm512_storeu_ps(to.add((4 + i) * to_row), _mm512_shuffle_f32x4::<0x88>(high, high2));
                    _mm512_storeu_ps(to.add((12 + i) * to_row), _mm512_shuffle_f32x4::<0xdd>(high, high2));
                }
            }
        }
    }

    impl Simd for Avx2 {
        const LANES: usize = 8;
        type V = __m256;
        type Mask = __m256i;

        #[inline(always)]
        unsafe fn zero() -> __m256 {
            // SAFETY: by the trait's contract AVX2 and FMA are there.
            unsafe { _mm256_setzero_ps() }
        }
        #[inline(always)]
        unsafe fn splat(x: f32) -> __m256 {
            // SAFETY: by the trait's contract AVX2 and FMA are there.
            unsafe { _mm256_set1_ps(x) }
        }
        #[inline(always)]
        unsafe fn load(p: *const f32) -> __m256 {
            // SAFETY: by the trait's contract AVX2 and FMA are there and `p` is readable for all lanes.
            unsafe { _mm256_loadu_ps(p) }
        }
        #[inline(always)]
        unsafe fn store(p: *mut f32, v: __m256) {
            // SAFETY: by the trait's contract AVX2 and FMA are there and `p` is writable for all lanes.
            unsafe { _mm256_storeu_ps(p, v) }
        }
        #[inline(always)]
        unsafe fn first(n: usize) -> __m256i {
            // SAFETY: by the trait's contract AVX2 and FMA are there.
            unsafe { _mm256_cmpgt_epi32(_mm256_set1_epi32(n as i32), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)) }
        }
        #[inline(always)]
        unsafe fn load_masked(p: *const f32, mask: __m256i) -> __m256 {
            // SAFETY: by the trait's contract AVX2 and FMA are there and lanes inside the mask are readable.
            unsafe { _mm256_maskload_ps(p, mask) }
        }
        #[inline(always)]
        unsafe fn store_masked(p: *mut f32, mask: __m256i, v: __m256) {
            // SAFETY: by the trait's contract AVX2 and FMA are there and lanes inside the mask are writable.
            unsafe { _mm256_maskstore_ps(p, mask, v) }
        }
        #[inline(always)]
        unsafe fn fma(a: __m256, b: __m256, c: __m256) -> __m256 {
            // SAFETY: by the trait's contract AVX2 and FMA are there.
            unsafe { _mm256_fmadd_ps(a, b, c) }
        }
        #[inline(always)]
        unsafe fn add(a: __m256, b: __m256) -> __m256 {
            // SAFETY: by the trait's contract AVX2 and FMA are there.
            unsafe { _mm256_add_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn sub(a: __m256, b: __m256) -> __m256 {
            // SAFETY: by the trait's contract AVX2 and FMA are there.
            unsafe { _mm256_sub_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn relu(v: __m256) -> __m256 {
            // SAFETY: by the trait's contract AVX2 and FMA are there.
            unsafe { _mm256_max_ps(_mm256_setzero_ps(), v) }
        }
        #[inline(always)]
        unsafe fn zero_where_clipped(v: __m256, mask: __m256) -> __m256 {
            // SAFETY: by the trait's contract AVX2 and FMA are there.
            unsafe { _mm256_and_ps(v, _mm256_cmp_ps::<_CMP_NLE_UQ>(mask, _mm256_setzero_ps())) }
        }
        #[inline(always)]
        unsafe fn replace_where_clipped(v: __m256, other: __m256, mask: __m256) -> __m256 {
            // SAFETY: by the trait's contract AVX2 and FMA are there.
            unsafe { _mm256_blendv_ps(other, v, _mm256_cmp_ps::<_CMP_NLE_UQ>(mask, _mm256_setzero_ps())) }
        }
        #[inline(always)]
        unsafe fn larger(best: (__m256, __m256), x: (__m256, __m256)) -> (__m256, __m256) {
            // SAFETY: by the trait's contract AVX2 and FMA are there.
            unsafe {
                let is_number = _mm256_cmp_ps::<_CMP_ORD_Q>(best.0, best.0);
                let wins = _mm256_and_ps(is_number, _mm256_cmp_ps::<_CMP_NLE_UQ>(x.0, best.0));
                (_mm256_blendv_ps(best.0, x.0, wins), _mm256_blendv_ps(best.1, x.1, wins))
            }
        }
        #[inline(always)]
        unsafe fn where_equal(v: __m256, a: __m256, b: __m256) -> __m256 {
            // SAFETY: by the trait's contract AVX2 and FMA are there.
            unsafe { _mm256_and_ps(v, _mm256_cmp_ps::<_CMP_EQ_OQ>(a, b)) }
        }
        #[inline(always)]
        unsafe fn store_bytes(p: *mut u8, n: usize, v: __m256) {
            // SAFETY: by the trait's contract AVX2 and FMA are there and `p` is writable for `n` bytes.
            unsafe {
                let whole = _mm256_cvtps_epi32(v);
                let words = _mm_packus_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256::<1>(whole));
                let bytes = _mm_packus_epi16(words, words);
                if n == 8 {
                    _mm_storel_epi64(p.cast(), bytes);
                } else {
                    let mut all = [0u8; 16];
                    _mm_storeu_si128(all.as_mut_ptr().cast(), bytes);
                    std::ptr::copy_nonoverlapping(all.as_ptr(), p, n);
                }
            }
        }
        #[inline(always)]
        unsafe fn load_bytes(p: *const u8, n: usize) -> __m256 {
            // SAFETY: by the trait's contract AVX2 and FMA are there and `p` is readable for `n` bytes.
            unsafe {
                let mut all = [0u8; 8];
                let bytes = if n == 8 {
                    _mm_loadl_epi64(p.cast())
                } else {
                    std::ptr::copy_nonoverlapping(p, all.as_mut_ptr(), n);
                    _mm_loadl_epi64(all.as_ptr().cast())
                };
                _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes))
            }
        }
        #[inline(always)]
        unsafe fn transpose(from: *const f32, from_row: usize, to: *mut f32, to_row: usize) {
            // SAFETY: by the trait's contract AVX2 and FMA are there and both squares lie in memory that is the
            // caller's.
            unsafe {
                let mut a = [_mm256_setzero_ps(); 8];
                for i in 0..8 {
                    a[i] = _mm256_loadu_ps(from.add(i * from_row));
                }
                let mut b = a;
                for i in 0..4 {
                    b[2 * i] = _mm256_unpacklo_ps(a[2 * i], a[2 * i + 1]);
                    b[2 * i + 1] = _mm256_unpackhi_ps(a[2 * i], a[2 * i + 1]);
                }
                for i in 0..2 {
                    let (r0, r1, r2, r3) = (b[4 * i], b[4 * i + 1], b[4 * i + 2], b[4 * i + 3]);
                    a[4 * i] = _mm256_shuffle_ps::<0x44>(r0, r2);
                    a[4 * i + 1] = _mm256_shuffle_ps::<0xee>(r0, r2);
                    a[4 * i + 2] = _mm256_shuffle_ps::<0x44>(r1, r3);
                    a[4 * i + 3] = _mm256_shuffle_ps::<0xee>(r1, r3);
                }
                for i in 0..4 {
                    _mm256_storeu_ps(to.add(i * to_row), _mm256_permute2f128_ps::<0x20>(a[i], a[4 + i]));
                    _mm256_storeu_ps(to.add((4 + i) * to_row), _mm256_permute2f128_ps::<0x31>(a[i], a[4 + i]));
                }
            }
        }
    }
}

impl Simd for Portable {
    const LANES: usize = 16;
    type V = [f32; 16];
    type Mask = usize;

    #[inline(always)]
    unsafe fn zero() -> [f32; 16] {
        [0.0; 16]
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> [f32; 16] {
        [x; 16]
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> [f32; 16] {
        // SAFETY: by the trait's contract `p` is readable for all lanes.
        unsafe { p.cast::<[f32; 16]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: [f32; 16]) {
        // SAFETY: by the trait's contract `p` is writable for all lanes.
        unsafe { p.cast::<[f32; 16]>().write_unaligned(v) }
    }
    #[inline(always)]
    unsafe fn first(n: usize) -> usize {
        n
    }
    #[inline(always)]
    unsafe fn load_masked(p: *const f32, n: usize) -> [f32; 16] {
        let mut v = [0.0; 16];
        for (i, lane) in v.iter_mut().enumerate().take(n) {
            // SAFETY: by the trait's contract lanes inside the mask are readable.
            *lane = unsafe { *p.add(i) };
        }
        v
    }
    #[inline(always)]
    unsafe fn store_masked(p: *mut f32, n: usize, v: [f32; 16]) {
        for (i, lane) in v.iter().enumerate().take(n) {
            // SAFETY: by the trait's contract lanes inside the mask are writable.
            unsafe { *p.add(i) = *lane };
        }
    }
    #[inline(always)]
    unsafe fn fma(a: [f32; 16], b: [f32; 16], mut c: [f32; 16]) -> [f32; 16] {
        for i in 0..16 {
            c[i] = fused(a[i], b[i], c[i]);
        }
        c
    }
    #[inline(always)]
    unsafe fn add(mut a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        for i in 0..16 {
            a[i] += b[i];
        }
        a
    }
    #[inline(always)]
    unsafe fn sub(mut a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        for i in 0..16 {
            a[i] -= b[i];
        }
        a
    }
    #[inline(always)]
    unsafe fn relu(mut v: [f32; 16]) -> [f32; 16] {
        for x in &mut v {
            *x = if *x < 0.0 { 0.0 } else { *x };
        }
        v
    }
    #[inline(always)]
    unsafe fn zero_where_clipped(mut v: [f32; 16], mask: [f32; 16]) -> [f32; 16] {
        for i in 0..16 {
            v[i] = if mask[i] <= 0.0 { 0.0 } else { v[i] };
        }
        v
    }
    #[inline(always)]
    unsafe fn replace_where_clipped(mut v: [f32; 16], other: [f32; 16], mask: [f32; 16]) -> [f32; 16] {
        for i in 0..16 {
            v[i] = if mask[i] <= 0.0 { other[i] } else { v[i] };
        }
        v
    }
    #[inline(always)]
    unsafe fn larger(mut best: ([f32; 16], [f32; 16]), x: ([f32; 16], [f32; 16])) -> ([f32; 16], [f32; 16]) {
        for i in 0..16 {
            let wins = (x.0[i] > best.0[i]) | (x.0[i].is_nan() & !best.0[i].is_nan());
            best.0[i] = if wins { x.0[i] } else { best.0[i] };
            best.1[i] = if wins { x.1[i] } else { best.1[i] };
        }
        best
    }
    #[inline(always)]
    unsafe fn where_equal(mut v: [f32; 16], a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        for i in 0..16 {
            v[i] = if a[i] == b[i] { v[i] } else { 0.0 };
        }
        v
    }
    #[inline(always)]
    unsafe fn store_bytes(p: *mut u8, n: usize, v: [f32; 16]) {
        for (i, lane) in v.iter().enumerate().take(n) {
            // SAFETY: by the trait's contract `p` is writable for `n` bytes.
            unsafe { *p.add(i) = *lane as u8 };
        }
    }
    #[inline(always)]
    unsafe fn load_bytes(p: *const u8, n: usize) -> [f32; 16] {
        let mut v = [0.0; 16];
        for (i, lane) in v.iter_mut().enumerate().take(n) {
            // SAFETY: by the trait's contract `p` is readable for `n` bytes.
            *lane = f32::from(unsafe { *p.add(i) });
        }
        v
    }
    #[inline(always)]
    unsafe fn transpose(from: *const f32, from_row: usize, to: *mut f32, to_row: usize) {
        for i in 0..16 {
            for j in 0..16 {
                // SAFETY: by the trait's contract both squares lie in memory that is the caller's.
                unsafe { *to.add(j * to_row + i) = *from.add(i * from_row + j) };
            }
        }
    }
}

/// `a * b + c` with one rounding, wherever this is compiled.
#[inline(always)]
fn fused(a: f32, b: f32, c: f32) -> f32 {
    if cfg!(any(not(target_arch = "x86_64"), target_feature = "fma")) {
        a.mul_add(b, c)
    } else {
        fused_exactly(a, b, c)
    }
}

/// The same without an instruction for it: `mul_add` would be a library call per value. The product is exact in f64;
/// the sum is rounded to odd (Boldo and Melquiond, 2008), after which rounding to f32 is as if from the exact value.
#[inline(always)]
fn fused_exactly(a: f32, b: f32, c: f32) -> f32 {
    let (product, c) = (f64::from(a) * f64::from(b), f64::from(c));
    let sum = product + c;
    let back = sum - product;
    let error = (product - (sum - back)) + (c - back);
    let bits = sum.to_bits();
    // False for NaN, so infinities pass as they are.
    let is_inexact = error.abs() > 0.0;
    let away = (error > 0.0) == (sum > 0.0);
    let odd = if away { bits.wrapping_add(1) } else { bits.wrapping_sub(1) };
    f64::from_bits(if is_inexact && bits & 1 == 0 { odd } else { bits }) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exact_fused_operation_is_the_fused_operation() {
        let mut state = 1u64;
        let mut next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let bits = (state >> 32) as u32;
            match state >> 20 & 7 {
                // Near each other, so that sums cancel; tiny, so that they are denormal; anything at all.
                0..=3 => f32::from_bits(0x3f80_0000 | (bits & 0x807f_ffff)),
                4 => f32::from_bits(bits & 0x81ff_ffff),
                5 => f32::from_bits((bits & 0x803f_ffff) | 0x1f80_0000),
                _ => f32::from_bits(bits),
            }
        };
        for _ in 0..300_000 {
            let (a, b, c) = (next(), next(), next());
            for c in [c, -a * b, 0.0, -0.0] {
                let (ours, theirs) = (fused_exactly(a, b, c), a.mul_add(b, c));
                let same = ours.to_bits() == theirs.to_bits() || ours.is_nan() && theirs.is_nan();
                assert!(same, "{a:e} * {b:e} + {c:e}: {ours:e}, not {theirs:e}");
            }
        }
    }
}
