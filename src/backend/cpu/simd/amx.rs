//! Intel's tile unit (AMX, Xeon since Sapphire Rapids): sixteen rows by sixteen columns of sums of
//! sixteen quads of bytes in sixteen cycles, eight times what VNNI does ("Intel 64 and IA-32
//! Architectures Software Developer's Manual", volume 1, chapter 18).
//!
//! Its intrinsics are not stable in Rust; the instructions are written out. No other code touches
//! tile registers, and threads own theirs between `begin` and `end`, so that a thread that is
//! switched has no tiles to be saved most of the time.

use std::arch::asm;
use std::arch::x86_64::{__cpuid_count, _xgetbv};
use std::sync::OnceLock;

use super::panel::PANEL_ROWS;
use super::tiles::{TILE_WEIGHTS, TileDots, TileInputs, TileUnit};

/// The unit.
pub struct Amx;

/// Whether the processor has the unit and the system lets this process use it.
pub fn is_usable() -> bool {
    static USABLE: OnceLock<bool> = OnceLock::new();
    *USABLE.get_or_init(|| has_unit() && is_permitted())
}

fn has_unit() -> bool {
    const OSXSAVE: u32 = 1 << 27; // leaf 1, ecx
    const TILE_AND_INT8: u32 = 3 << 24; // leaf 7, edx
    const TILE_STATE: u64 = 3 << 17;
    if !is_x86_feature_detected!("xsave") || __cpuid_count(1, 0).ecx & OSXSAVE == 0 {
        return false;
    }
    // SAFETY: the system has switched `xgetbv` on, as just seen.
    let saved = unsafe { enabled_states() };
    saved & TILE_STATE == TILE_STATE && __cpuid_count(7, 0).edx & TILE_AND_INT8 == TILE_AND_INT8
}

#[target_feature(enable = "xsave")]
fn enabled_states() -> u64 {
    // SAFETY: register 0 is always there.
    unsafe { _xgetbv(0) }
}

/// Asks Linux for the state's room, which a process has to do once ("x86/xstate: dynamically enabled
/// features", Documentation/arch/x86/xstate.rst).
fn is_permitted() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const ARCH_REQ_XCOMP_PERM: i64 = 0x1023;
    const XFEATURE_XTILEDATA: i64 = 18;
    let mut result = ARCH_PRCTL;
    // SAFETY: a system call that touches no memory of this process.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") result,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") XFEATURE_XTILEDATA,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result == 0
}

/// Shapes of the tiles: palette, then bytes of a row and rows of each.
#[derive(Default)]
#[repr(C, align(64))]
struct Shapes {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// Bytes from quad to quad of a panel.
const QUAD_BYTES: usize = 4 * PANEL_ROWS;

/// Bytes from row to row of a tile of sums.
const SUMS_ROW_BYTES: usize = 4 * TILE_WEIGHTS;

/// One block: a tile of sums, of activations and of weights.
macro_rules! block_of_tiles {
    ($inputs:expr, $out:expr, $sums:literal, $x:literal, $weights:literal) => {
        asm!(
            concat!("tileloadd ", $weights, ", [{w} + {w_stride}]"),
            concat!("tileloadd ", $x, ", [{x} + {x_stride}]"),
            concat!("tilezero ", $sums),
            concat!("tdpbsud ", $sums, ", ", $x, ", ", $weights),
            concat!("tilestored [{out} + {out_stride}], ", $sums),
            w = in(reg) $inputs.weights,
            w_stride = in(reg) QUAD_BYTES,
            x = in(reg) $inputs.x,
            x_stride = in(reg) $inputs.x_stride,
            out = in(reg) $out,
            out_stride = in(reg) SUMS_ROW_BYTES,
            options(nostack, preserves_flags),
        )
    };
}

/// Tiles in use: two each of sums, activations and weights.
const N_TILES: usize = 6;

impl TileUnit for Amx {
    #[inline(always)]
    unsafe fn begin(n_tokens: usize, depth: usize) {
        let mut shapes = Shapes { palette: 1, ..Shapes::default() };
        for tile in 0..N_TILES {
            (shapes.row_bytes[tile], shapes.rows[tile]) = match tile {
                0 | 1 => (SUMS_ROW_BYTES as u16, n_tokens as u8),
                2 | 3 => (depth as u16, n_tokens as u8),
                _ => (4 * TILE_WEIGHTS as u16, (depth / 4) as u8),
            };
        }
        // SAFETY: the unit is present, by the caller's word; the shapes are within its bounds.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &raw const shapes, options(nostack, preserves_flags));
        }
    }

    #[inline(always)]
    unsafe fn dots<const ODD: bool>(inputs: &TileInputs, out: &mut TileDots) {
        let out = out.0.as_mut_ptr();
        // SAFETY: by the caller's word; a tile's rows lie inside what the pointers are for.
        unsafe {
            if ODD {
                block_of_tiles!(inputs, out, "tmm1", "tmm3", "tmm5");
            } else {
                block_of_tiles!(inputs, out, "tmm0", "tmm2", "tmm4");
            }
        }
    }

    #[inline(always)]
    unsafe fn end() {
        // SAFETY: the unit is present, by the caller's word.
        unsafe { asm!("tilerelease", options(nomem, nostack, preserves_flags)) }
    }
}
