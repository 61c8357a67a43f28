//! Does the emulation notice what would be wrong on a GPU?

use std::path::Path;

use bytemuck::bytes_of;
use kernels::{Device, DeviceBuffer, DeviceError, Emulated, Geometry, ProgramSource, ThreadOrder};

/// What a kernel of `faults.cu` leaves in 64 floats that were 0, 1, 2, ...
fn run(kernel: &'static str, order: ThreadOrder) -> Result<Vec<f32>, DeviceError> {
    let device = Emulated::start(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("emulation"))?;
    device.set_order(order);
    let program =
        device.program(&ProgramSource::of_text("faults.cu", include_str!("faults.cu")))?;
    let mut buffer = device.allocate(256)?;
    let numbers: Vec<f32> = (0..64u8).map(f32::from).collect();
    device.write(&mut buffer, 0, bytemuck::cast_slice(&numbers))?;
    let geometry = Geometry { grid: [1, 1, 1], block: [64, 1, 1], shared_bytes: 252 };
    // SAFETY: the emulation stops at whatever these kernels do that is not allowed.
    unsafe { device.launch(&program, kernel, geometry, bytes_of(&buffer.pointer()))? };
    let mut out = vec![0.0; 64];
    device.read(&buffer, 0, bytemuck::cast_slice_mut(&mut out))?;
    Ok(out)
}

#[test]
fn what_a_kernel_must_not_do_stops_it_and_is_told() {
    for (kernel, told) in [
        ("beyond_the_buffer", "heap-buffer-overflow"),
        ("beyond_shared_memory", "heap-buffer-overflow"),
        ("not_aligned", "misaligned address"),
        ("barrier_for_some", "barrier_for_some is stuck: threads wait for some that do not come"),
        ("different_barriers", "threads of a block are at different barriers, lines "),
        ("exchange_without_some_lanes", "thread 0,0 waits for its warp at line "),
        ("no_such_kernel", "no kernel no_such_kernel in its module"),
    ] {
        let error = run(kernel, ThreadOrder::Forward).expect_err(kernel).to_string();
        assert!(error.contains(told), "{kernel}: {error}");
    }
}

#[test]
fn a_missing_barrier_makes_the_result_depend_on_the_order_of_threads() {
    let [forward, backward] = [ThreadOrder::Forward, ThreadOrder::Backward]
        .map(|order| run("no_barrier", order).unwrap());
    assert!(forward != backward);
}

#[test]
fn what_is_copied_asynchronously_is_not_there_before_it_is_waited_for() {
    let copied = run("copy_not_awaited", ThreadOrder::Forward).unwrap();
    assert!(copied.iter().all(|x| x.is_nan()), "{copied:?}");
}

#[test]
fn a_kernel_that_does_nothing_wrong_runs_the_same_in_every_order() {
    let expected: Vec<f32> = (0..64u8).rev().map(|x| f32::from(x) + 32.0).collect();
    let orders = [ThreadOrder::Forward, ThreadOrder::Backward, ThreadOrder::Shuffled(3)];
    for order in orders {
        assert_eq!(run("harmless", order).unwrap(), expected, "{order:?}");
    }
}
