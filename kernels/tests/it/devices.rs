//! On which devices does a test run? The host emulation, with its threads in several orders.

use std::path::Path;

use kernels::{Device, Emulated, ThreadOrder};

/// Runs `body` on each device; what it returns must be the same bits in every order of threads.
pub fn on_devices<R: PartialEq + std::fmt::Debug>(body: impl Fn(&Emulated) -> R) -> R {
    let device =
        Emulated::start(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("emulation")).unwrap();
    let first = body(&device);
    for order in [ThreadOrder::Backward, ThreadOrder::Shuffled(7)] {
        device.set_order(order);
        assert!(body(&device) == first, "the result depends on the order of threads: {order:?}");
    }
    assert!(device.description().contains("emulation"));
    first
}

/// Reproducible numbers between -1 and 1.
pub fn numbers(seed: u64, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    std::iter::repeat_with(next).take(len).collect()
}

pub fn assert_close(actual: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(actual.len(), expected.len());
    for (i, (a, e)) in actual.iter().zip(expected).enumerate() {
        let bound = tolerance * e.abs().max(1.0);
        assert!((a - e).abs() <= bound, "element {i}: {a} is not {e} within {bound}");
    }
}
