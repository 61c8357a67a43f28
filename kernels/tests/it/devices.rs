//! On which devices does a test run? In the host emulation, with its threads in two orders;
//! with `MNEME_TEST_DEVICE=cuda` on a GPU, which fails where there is none.

use std::path::Path;

use kernels::{AnyDevice, Cuda, Device, DeviceError, Emulated, ThreadOrder};

/// Runs `body` on the device; what it returns must be the same bits in every order of threads.
pub fn on_devices<R: PartialEq + std::fmt::Debug>(body: impl Fn(&AnyDevice) -> R) -> R {
    if std::env::var_os("MNEME_TEST_DEVICE").is_some_and(|device| device == "cuda") {
        let device = AnyDevice::from(Cuda::find(0, None).unwrap());
        let first = body(&device);
        assert!(body(&device) == first, "the result depends on the order of threads");
        return first;
    }
    on_emulated(body)
}

/// The same, in the emulation alone.
pub fn on_emulated<R: PartialEq + std::fmt::Debug>(body: impl Fn(&AnyDevice) -> R) -> R {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("emulation");
    let device = AnyDevice::from(Emulated::start(&folder).unwrap());
    let first = body(&device);
    let emulated = device.emulation().expect("because it was made above");
    emulated.set_order(ThreadOrder::Shuffled(7)); // and blocks backwards
    assert!(body(&device) == first, "the result depends on the order of threads");
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

#[test]
fn where_there_is_no_gpu_it_is_told_and_nothing_panics() {
    match Cuda::find(99, None) {
        Ok(_) => panic!("nobody has a hundred GPUs"),
        Err(error @ (DeviceError::NoDevice(_) | DeviceError::Driver { .. })) => {
            let told = error.to_string();
            assert!(told.contains("driver"), "{told}");
        }
        Err(error) => panic!("another error: {error}"),
    }
}

#[test]
fn buffers_keep_to_the_budget_and_give_it_back() {
    on_devices(|device| {
        let before = device.taken_bytes();
        device.set_budget(before + 3000);
        let first = device.allocate(2000).unwrap();
        assert_eq!((device.taken_bytes(), device.free_bytes()), (before + 2000, Some(1000)));
        let refused = device.allocate(1001).map(|_| ()).unwrap_err();
        assert!(matches!(refused, DeviceError::OutOfMemory { free_bytes: 1000, .. }), "{refused}");
        drop(first);
        device.allocate(3000).unwrap();
        assert_eq!(device.taken_bytes(), before);
    });
}
