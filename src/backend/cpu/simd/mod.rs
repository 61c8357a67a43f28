//! Which instructions does this machine have, and how is a loop written once for all of them?
//!
//! `Simd` is the small vocabulary the inner loops are written in; one file an instruction set
//! implements it. A loop is a `Kernel`: a struct of its arguments with a generic `run`, which
//! [`Isa::run`] compiles once per instruction set and picks at run time, so that one binary is
//! fast everywhere. Only this folder (and the thread pool) of the CPU backend has `unsafe`.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(any(target_arch = "aarch64", test))]
mod neon;
#[cfg(all(test, not(target_arch = "aarch64")))]
mod neon_emulated;
mod portable;

pub mod attend;
pub mod best_key;
mod dot;
mod fill;
pub mod key_mass;
pub mod listed;
pub mod multiply;
mod page;
mod page_step;
pub mod pairs;
mod panel;
pub mod quantize;
pub mod rows;
pub mod segments;
pub mod softmax;
#[cfg(test)]
mod tests;
pub mod tile;
pub mod tiles;
#[cfg(test)]
mod tiles_emulated;
mod turn;
pub mod unpack;
mod vector;
pub mod write;

use tiles::Tiles;
pub use vector::Kernel;
use vector::Simd;

/// An instruction set that is present on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Isa(Set);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Set {
    /// AVX-512, and tiles beside it.
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    Amx,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// In tests on other machines: emulated.
    #[cfg(any(target_arch = "aarch64", test))]
    Neon,
    Portable,
    /// In tests: with tiles beside it.
    #[cfg(test)]
    PortableTiles,
}

impl Isa {
    /// The best set present.
    pub fn detect() -> Self {
        Self::present()[0]
    }

    /// All sets present, best first; the last is the portable twin.
    pub fn present() -> Vec<Self> {
        let mut sets = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::is_x86_feature_detected as has;
            let avx2 = has!("avx2") && has!("fma") && has!("f16c");
            let avx512 = has!("avx512f") && has!("avx512bw") && has!("avx512vl");
            if avx2 && avx512 && has!("avx512dq") && has!("avx512vnni") {
                #[cfg(target_os = "linux")]
                if amx::is_usable() {
                    sets.push(Self(Set::Amx));
                }
                sets.push(Self(Set::Avx512));
            }
            if avx2 {
                sets.push(Self(Set::Avx2));
            }
        }
        #[cfg(target_arch = "aarch64")]
        sets.push(Self(Set::Neon)); // every such target has it
        sets.push(Self(Set::Portable));
        sets
    }

    /// What tests run on: all sets present, and NEON and tiles wherever they run.
    #[cfg(test)]
    pub fn under_test() -> Vec<Self> {
        let mut sets = Self::present();
        if !sets.contains(&Self(Set::Neon)) {
            sets.push(Self(Set::Neon));
        }
        sets.push(Self(Set::PortableTiles));
        sets
    }

    /// Name for reports.
    pub fn name(self) -> &'static str {
        match self.0 {
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Set::Amx => "amx-int8",
            #[cfg(target_arch = "x86_64")]
            Set::Avx512 => "avx512-vnni",
            #[cfg(target_arch = "x86_64")]
            Set::Avx2 => "avx2",
            #[cfg(any(target_arch = "aarch64", test))]
            Set::Neon => "neon",
            Set::Portable => "portable",
            #[cfg(test)]
            Set::PortableTiles => "portable, tiles",
        }
    }

    /// Floats in a vector.
    pub fn lanes(self) -> usize {
        match self.0 {
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Set::Amx => avx512::Avx512::LANES,
            #[cfg(target_arch = "x86_64")]
            Set::Avx512 => avx512::Avx512::LANES,
            #[cfg(target_arch = "x86_64")]
            Set::Avx2 => avx2::Avx2::LANES,
            #[cfg(any(target_arch = "aarch64", test))]
            Set::Neon => neon::Neon::LANES,
            Set::Portable => portable::Portable::LANES,
            #[cfg(test)]
            Set::PortableTiles => portable::Portable::LANES,
        }
    }

    /// The tile unit beside the vectors.
    pub fn tiles(self) -> Tiles {
        match self.0 {
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Set::Amx => Tiles::Amx,
            #[cfg(test)]
            Set::PortableTiles => Tiles::Emulated,
            _ => Tiles::Absent,
        }
    }

    /// Runs `kernel` compiled for this set.
    #[inline]
    pub fn run<K: Kernel>(self, kernel: K) -> K::Output {
        // SAFETY: a value of `Isa` exists only for a set that `present` has detected.
        unsafe {
            match self.0 {
                #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
                Set::Amx => avx512::run(kernel),
                #[cfg(target_arch = "x86_64")]
                Set::Avx512 => avx512::run(kernel),
                #[cfg(target_arch = "x86_64")]
                Set::Avx2 => avx2::run(kernel),
                #[cfg(any(target_arch = "aarch64", test))]
                Set::Neon => kernel.run::<neon::Neon>(),
                Set::Portable => kernel.run::<portable::Portable>(),
                #[cfg(test)]
                Set::PortableTiles => kernel.run::<portable::Portable>(),
            }
        }
    }
}
