//! How far is each hot loop from what this machine can do? Measures the ceilings (f32 products by
//! the `gemm` crate, reads of the mapped weights) and the loops in turn, best of several runs:
//! ```text
//! cargo bench --bench limits -- [--threads N]
//! ```
//! Uses the default model, which is pulled when missing.

use std::hint::black_box;
use std::time::{Duration, Instant};

use mneme::backend::cpu::{CpuBackend, HostBytes};
use mneme::backend::{
    AttendStep, Backend, HeadShape, KvType, PageLayout, PageSource, PageTarget, PlacedPage,
    Placement, Precision, Projection, Write,
};
use mneme::hub::{DEFAULT_MODEL, resolve};
use mneme::model::{LayerWeights, Model, Weights};
use mneme::tensor::Matrix;

/// Runs of each measurement, and how long they take together; the best counts, since everything
/// else a machine does only slows.
const MIN_ROUNDS: usize = 7;
const AT_LEAST: Duration = Duration::from_secs(1);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip_while(|argument| argument != "--threads").skip(1);
    let available = std::thread::available_parallelism().map_or(1, usize::from);
    let n_threads = arguments.next().map_or(Ok(available), |n| n.parse())?;
    let path = resolve(DEFAULT_MODEL, &mut |_| std::ops::ControlFlow::Continue(()))?;
    let model = Model::open(&path)?;
    let products = Products::of(&model.weights);
    let matrices: Vec<&Matrix> = products.0.iter().flatten().copied().collect();
    let weight_bytes: usize = matrices.iter().map(|matrix| matrix.bytes.len()).sum();

    let peak = gemm_flops(n_threads);
    let bandwidth = read_bandwidth(&matrices, n_threads);
    println!("threads {n_threads}");
    println!("f32 product (gemm crate), {n_threads} at once: {:.0} GFLOP/s", peak / 1e9);
    println!(
        "reading the mapped weights, {:.0} MB: {:.1} GB/s",
        weight_bytes as f64 / 1e6,
        bandwidth / 1e9
    );
    attention(n_threads, (peak, bandwidth));
    for precision in [Precision::Int16, Precision::Int8, Precision::F32] {
        let backend = CpuBackend::new(n_threads, precision);
        println!("{}, {precision:?}", backend.description());
        for n_tokens in [1, 2, 4, 8, 16, 512] {
            let seconds = best(|| products.run(&backend, n_tokens));
            let flops = products.multiplications(n_tokens) as f64 * 2.0 / seconds;
            let bytes = weight_bytes as f64 / seconds;
            println!(
                "  all products of a forward pass, {n_tokens:>3} tokens: {:7.2} ms  {:4.0} GFLOP/s ({:3.0} % of \
                 the f32 product)  {:5.1} GB/s ({:3.0} % of reading)",
                seconds * 1e3,
                flops / 1e9,
                100.0 * flops / peak,
                bytes / 1e9,
                100.0 * bytes / bandwidth,
            );
        }
    }
    Ok(())
}

/// Attention of the default model's 30 layers to 1,600 keys: by one token, where keys and values
/// are read from memory, and by a chunk of 256, where each is used many times.
fn attention(n_threads: usize, (peak, bandwidth): (f64, f64)) {
    for (kv_type, precision) in [
        (KvType::F16, Precision::F32),
        (KvType::F16, Precision::Int16),
        (KvType::Int8, Precision::Int16),
    ] {
        let backend = CpuBackend::new(n_threads, precision);
        let text = Text::new(&backend, kv_type);
        for n_tokens in [1, 256] {
            let seconds = best(|| text.attend(&backend, n_tokens));
            let bytes = text.pages.iter().map(|page| page.len()).sum::<usize>() as f64 / seconds;
            let HeadShape { n_heads, head_dim, .. } = Text::HEADS;
            let products = Text::N_LAYERS * n_heads * head_dim * Text::N_KEYS * n_tokens;
            let flops = 4.0 * products as f64 / seconds;
            println!(
                "  attention, {kv_type:?} keys, {precision:?}, {n_tokens:>3} tokens: {:7.2} ms  \
                 {:4.0} GFLOP/s ({:3.0} % of the f32 product)  {:5.1} GB/s ({:3.0} % of reading)",
                seconds * 1e3,
                flops / 1e9,
                100.0 * flops / peak,
                bytes / 1e9,
                100.0 * bytes / bandwidth,
            );
        }
    }
}

/// Pages full of keys and values.
struct Text {
    layout: PageLayout,
    pages: Vec<HostBytes>,
}

impl Text {
    const HEADS: HeadShape = HeadShape { n_heads: 9, n_kv_heads: 3, head_dim: 64, n_pairs: 32 };
    const N_LAYERS: usize = 30;
    const PAGE_LEN: usize = 64;
    const N_KEYS: usize = 1600;

    fn new(backend: &CpuBackend, kv_type: KvType) -> Self {
        let layout = PageLayout {
            heads: Self::HEADS,
            n_layers: Self::N_LAYERS,
            page_len: Self::PAGE_LEN,
            kv_type,
        };
        let wave = |len: usize, step: f32| (0..len).map(|i| (i as f32 * step).sin()).collect();
        let keys: Vec<f32> = wave(Self::PAGE_LEN * 3 * 64, 0.37);
        let values: Vec<f32> = wave(Self::PAGE_LEN * 3 * 64, 0.11);
        let slot_angles = [[1.0; 32], [0.0; 32]].concat().repeat(Self::PAGE_LEN);
        let page = |_| {
            let mut page = HostBytes::zeroed(layout.page_bytes()).expect("memory");
            for layer in 0..Self::N_LAYERS {
                let slot_angles = &slot_angles;
                let (page, rows) = (&mut page, 0..Self::PAGE_LEN);
                let target = PageTarget { layout, layer, page, first_slot: 0, rows, slot_angles };
                backend.write_pages(&mut [target], &keys, &values);
            }
            page
        };
        Self { layout, pages: (0..Self::N_KEYS / Self::PAGE_LEN).map(page).collect() }
    }

    fn attend(&self, backend: &CpuBackend, n_tokens: usize) {
        let angles = [[0.8; 32], [0.6; 32]].concat();
        let placed: Vec<PlacedPage<'_, HostBytes>> = (0..)
            .zip(&self.pages)
            .map(|(i, page)| PlacedPage {
                page: PageSource::Fast(page),
                kv_type: self.layout.kv_type,
                n_keys: Self::PAGE_LEN,
                first_index: i * Self::PAGE_LEN,
                placement: Placement::At(&angles),
            })
            .collect();
        let queries: Vec<f32> = (0..n_tokens * 9 * 64).map(|i| (i as f32 * 0.73).cos()).collect();
        let mut out = backend.buffer(queries.len()).expect("memory");
        for layer in 0..Self::N_LAYERS {
            let mut step = AttendStep {
                layout: self.layout,
                layer,
                pages: placed.clone(),
                n_sets: 1,
                n_tokens,
                first_row: 0,
                first_index: Self::N_KEYS,
                near_angles: &angles.repeat(n_tokens),
                far_angles: &angles,
                offset_angles: &[],
                scale: 0.125,
                page_masses: None,
                key_masses: None,
            };
            backend.attend(std::slice::from_mut(&mut step), &queries, &mut out);
        }
        black_box(&out);
    }
}

/// The products of a forward pass, group by group as the transformer runs them: each layer's, and
/// the output head's, which only the last token takes.
struct Products<'a>(Vec<Vec<&'a Matrix>>);

impl<'a> Products<'a> {
    fn of(weights: &'a Weights) -> Self {
        let groups_of = |layer: &'a LayerWeights| {
            let LayerWeights { query, key, value, attention_output, gate, up, down, .. } = layer;
            [vec![query, key, value], vec![attention_output], vec![gate, up], vec![down]]
        };
        let layers = weights.layers.iter().flat_map(groups_of);
        Self(layers.chain([vec![&weights.output]]).collect())
    }

    fn n_rows(&self, group: usize, n_tokens: usize) -> usize {
        if group + 1 == self.0.len() { 1 } else { n_tokens }
    }

    fn multiplications(&self, n_tokens: usize) -> usize {
        let of_group = |(i, group): (usize, &Vec<&Matrix>)| {
            group.iter().map(|m| m.rows * m.cols * self.n_rows(i, n_tokens)).sum::<usize>()
        };
        self.0.iter().enumerate().map(of_group).sum()
    }

    fn run(&self, backend: &CpuBackend, n_tokens: usize) {
        let size_of = |side: fn(&Matrix) -> usize| {
            let sizes = self.0.iter().enumerate();
            let sizes = sizes.flat_map(|(i, group)| {
                group.iter().map(move |matrix| side(matrix) * self.n_rows(i, n_tokens))
            });
            sizes.max().unwrap_or(0)
        };
        let wave: Vec<f32> = (0..size_of(|m| m.cols)).map(|i| (i as f32 * 0.37).sin()).collect();
        let input = backend.upload(&wave).expect("memory");
        let mut out = [(); 3].map(|()| backend.buffer(size_of(|m| m.rows)).expect("memory"));
        for (i, group) in self.0.iter().enumerate() {
            backend.expect(self.0[(i + 1) % self.0.len()][0]);
            let outputs = group.iter().zip(&mut out);
            let mut outputs: Vec<_> =
                outputs.map(|(weight, out)| Projection { weight: *weight, out }).collect();
            backend.project(&input, self.n_rows(i, n_tokens), &mut outputs, Write::Set);
        }
        black_box(&out);
    }
}

/// Seconds of the fastest of some runs.
fn best(mut run: impl FnMut()) -> f64 {
    run(); // warms up
    let begun = Instant::now();
    let mut best = f64::INFINITY;
    let mut round = 0;
    while round < MIN_ROUNDS || begun.elapsed() < AT_LEAST {
        let started = Instant::now();
        run();
        best = best.min(started.elapsed().as_secs_f64());
        round += 1;
    }
    best
}

/// FLOP/s of f32 products of the model's shape, one problem a thread.
fn gemm_flops(n_threads: usize) -> f64 {
    const M: usize = 512;
    const N: usize = 1536;
    const K: usize = 576;
    const REPEATS: usize = 8;
    let seconds = best(|| {
        std::thread::scope(|scope| {
            for _ in 0..n_threads {
                scope.spawn(|| {
                    let (a, b) = (vec![0.5f32; M * K], vec![0.25f32; K * N]);
                    let mut c = vec![0.0f32; M * N];
                    for _ in 0..REPEATS {
                        multiply(&mut c, &a, &b, (M, N, K));
                    }
                    black_box(&c);
                });
            }
        });
    });
    (2 * M * N * K * REPEATS * n_threads) as f64 / seconds
}

/// `c = a b`, all row-major.
fn multiply(c: &mut [f32], a: &[f32], b: &[f32], (m, n, k): (usize, usize, usize)) {
    assert!(c.len() == m * n && a.len() == m * k && b.len() == k * n);
    let parallelism = gemm::Parallelism::None;
    // SAFETY: the strides are those of row-major matrices whose lengths are checked above.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c.as_mut_ptr(),
            1,
            n as isize,
            false,
            a.as_ptr(),
            1,
            k as isize,
            b.as_ptr(),
            1,
            n as isize,
            0.0,
            1.0,
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// Bytes a second at which threads can read the weights, doing nothing with them.
fn read_bandwidth(matrices: &[&Matrix], n_threads: usize) -> f64 {
    let bytes: usize = matrices.iter().map(|matrix| matrix.bytes.len()).sum();
    let seconds = best(|| {
        std::thread::scope(|scope| {
            for thread in 0..n_threads {
                scope.spawn(move || {
                    for matrix in matrices {
                        let share = matrix.bytes.len().div_ceil(n_threads);
                        let start = (thread * share).min(matrix.bytes.len());
                        let end = (start + share).min(matrix.bytes.len());
                        black_box(sum_words(&matrix.bytes[start..end]));
                    }
                });
            }
        });
    });
    bytes as f64 / seconds
}

/// A sum that the compiler turns into vector loads.
fn sum_words(bytes: &[u8]) -> u64 {
    let (chunks, _) = bytes.as_chunks::<64>();
    let mut sums = [0u64; 8];
    for chunk in chunks {
        let (words, _) = chunk.as_chunks::<8>();
        for (sum, word) in sums.iter_mut().zip(words) {
            *sum = sum.wrapping_add(u64::from_ne_bytes(*word));
        }
    }
    sums.iter().fold(0, |total, sum| total.wrapping_add(*sum))
}
