//! Which kernels run: the instruction set is detected once, and may be forced for tests and bug reports.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

static FORCED: OnceLock<Isa> = OnceLock::new();

/// An instruction set that the kernels are compiled for. It changes the speed and never a bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// 16 lanes, 32 registers, fused multiply-add (AVX-512F).
    Avx512,
    /// 8 lanes, 16 registers, fused multiply-add (AVX2 and FMA).
    Avx2,
    /// Plain Rust, which the compiler vectorises as far as the target allows.
    Portable,
}

impl Isa {
    /// Every instruction set, the fastest first.
    pub const ALL: [Isa; 3] = [Isa::Avx512, Isa::Avx2, Isa::Portable];

    /// The one that was forced ([`Isa::force`]), else the fastest one that this processor has.
    pub fn detect() -> Isa {
        FORCED.get().copied().unwrap_or_else(|| {
            // Asked for with each sample that is loaded, so that nothing is allocated.
            Isa::ALL.into_iter().find(|isa| isa.is_available()).unwrap_or(Isa::Portable)
        })
    }

    /// Makes [`Isa::detect`] choose this one from now on: for the switch of a bug report. Only the first call counts.
    pub fn force(self) {
        let _ = FORCED.set(self);
    }

    /// All that this processor has, the fastest first; [`Isa::Portable`] is always among them.
    pub fn available() -> Vec<Isa> {
        Isa::ALL.into_iter().filter(|isa| isa.is_available()).collect()
    }

    /// Whether this processor has it.
    #[cfg(target_arch = "x86_64")]
    pub fn is_available(self) -> bool {
        match self {
            Isa::Avx512 => {
                is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
            }
            Isa::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            Isa::Portable => true,
        }
    }

    /// Whether this processor has it.
    #[cfg(not(target_arch = "x86_64"))]
    pub fn is_available(self) -> bool {
        self == Isa::Portable
    }

    /// Its name, as `CONVOY_ISA` has it.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Avx512 => "avx512",
            Isa::Avx2 => "avx2",
            Isa::Portable => "portable",
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Isa {
    type Err = String;

    /// Reads `avx512`, `avx2` or `portable`.
    ///
    /// # Errors
    /// For any other word, and for an instruction set that this processor lacks.
    fn from_str(text: &str) -> Result<Isa, String> {
        let isa = Isa::ALL.into_iter().find(|isa| isa.name() == text);
        let isa = isa
            .ok_or_else(|| format!("unknown instruction set `{text}`, expected one of `avx512`, `avx2`, `portable`"))?;
        if isa.is_available() { Ok(isa) } else { Err(format!("this processor has no `{text}`")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_portable_is_always_there() {
        for isa in Isa::available() {
            assert_eq!(isa.name().parse(), Ok(isa));
        }
        assert!(Isa::available().contains(&Isa::Portable));
        assert!("sse9".parse::<Isa>().is_err());
    }
}
