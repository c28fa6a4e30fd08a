//! One source, three builds: kernels that the compiler vectorises, for each instruction set.
//!
//! Elementwise kernels are plain loops of separate roundings (no fused operation unless written as `mul_add`), so that
//! each build gives the same bits; only the width of the vectors differs.

/// Defines `fn name(isa: Isa, arguments…) -> T`, compiled once for each [`Isa`](super::Isa) and chosen by the first
/// argument.
macro_rules! versions {
    ($($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $result:ty)? $body:block)*) => {$(
        $(#[$meta])*
        $vis fn $name(isa: $crate::engine::Isa, $($arg: $type),*) $(-> $result)? {
            #[inline(always)]
            fn body($($arg: $type),*) $(-> $result)? $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx2,fma")]
            fn avx512($($arg: $type),*) $(-> $result)? {
                body($($arg),*)
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2($($arg: $type),*) $(-> $result)? {
                body($($arg),*)
            }

            match isa {
                // SAFETY: an engine is only made on an instruction set that `Isa::is_available`.
                #[cfg(target_arch = "x86_64")]
                $crate::engine::Isa::Avx512 => unsafe { avx512($($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                $crate::engine::Isa::Avx2 => unsafe { avx2($($arg),*) },
                _ => body($($arg),*),
            }
        }
    )*};
}

pub(super) use versions;

/// Values of one piece of elementwise work: 64 KiB of f32, so that small tensors are not worth waking a thread for.
pub(super) const PIECE: usize = 1 << 14;
