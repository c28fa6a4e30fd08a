//! Sizes of the caches that blocking is chosen by. They change the speed and never a bit.

/// Cache sizes of one core, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caches {
    /// First level, data.
    pub l1: usize,
    /// Second level.
    pub l2: usize,
    /// Third level, shared between cores; 0 if there is none or it is not known.
    pub l3: usize,
    /// What a register tile may walk over once for each of its neighbours without waiting for it: two thirds of the
    /// first level; four times that level on AMD's processors, where what comes from the second level keeps two vectors
    /// of multiply-adds a cycle busy.
    pub near: usize,
}

impl Caches {
    /// What the processor says, or modest sizes where it does not say.
    pub fn detect() -> Caches {
        let mut found = Caches { l1: 32 << 10, l2: 512 << 10, l3: 0, near: 0 };
        let is_amd = speaks_amd();
        for (level, bytes) in leaves(is_amd) {
            match level {
                1 => found.l1 = bytes,
                2 => found.l2 = bytes,
                3 => found.l3 = bytes,
                _ => {}
            }
        }
        found.near = if is_amd { 4 * found.l1 } else { found.l1 * 2 / 3 };
        found
    }
}

/// Whether the processor describes its caches as AMD's do.
fn speaks_amd() -> bool {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        use std::arch::x86_64::__cpuid;
        __cpuid(0x8000_0000).eax >= 0x8000_001d && __cpuid(0x8000_0001).ecx & 1 << 22 != 0
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    false
}

/// Level and size of each data or unified cache, by CPUID: leaf 4 (Intel), or leaf 0x8000001d (AMD), in the same
/// format.
#[cfg(all(target_arch = "x86_64", not(miri)))]
fn leaves(is_amd: bool) -> Vec<(u32, usize)> {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    let leaf = if is_amd { 0x8000_001d } else { 4 };
    if !is_amd && __cpuid(0).eax < 4 {
        return Vec::new();
    }
    let mut found = Vec::new();
    for i in 0..16 {
        let r = __cpuid_count(leaf, i);
        let kind = r.eax & 31;
        if kind == 0 {
            break;
        }
        let field = |low: u32, bits: u32| ((r.ebx >> low & ((1 << bits) - 1)) + 1) as usize;
        if kind != 2 {
            found.push((r.eax >> 5 & 7, field(22, 10) * field(12, 10) * field(0, 12) * (r.ecx as usize + 1)));
        }
    }
    found
}

#[cfg(not(all(target_arch = "x86_64", not(miri))))]
fn leaves(_: bool) -> Vec<(u32, usize)> {
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detected_sizes_are_plausible() {
        let Caches { l1, l2, l3, .. } = Caches::detect();
        assert!((8 << 10..1 << 20).contains(&l1) && (l1..1 << 27).contains(&l2) && l3 < 1 << 32, "{l1} {l2} {l3}");
    }
}
