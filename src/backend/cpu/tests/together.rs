//! Attention of several texts in one call.

use fastrand::Rng;

use super::attention::{Case, heads};
use super::{backends, floats};
use crate::backend::cpu::{CpuBackend, HostBytes};
use crate::backend::{Backend, KeyMasses, KvType, PageLayout, PageTarget, Precision};

/// Whoever else attends, and in however many loops and tasks that is done: no sum comes in another
/// order, and no row between the steps is touched.
#[test]
fn texts_that_attend_together_get_the_same_bits_as_alone() {
    let layout =
        PageLayout { heads: heads(6, 2, 64), n_layers: 3, page_len: 64, kv_type: KvType::Int8 };
    let width = layout.heads.n_heads * layout.heads.head_dim;
    for backend in backends(Precision::Int16).into_iter().chain([many_threads()]) {
        let mut rng = Rng::with_seed(21);
        let cases: Vec<_> =
            [1, 3, 1, 70, 16, 17, 1, 1].map(|n| Case::random(layout, n, &mut rng)).into();
        let pages: Vec<_> =
            cases.iter().map(|case| case.write_pages(&backend, &mut Rng::with_seed(5))).collect();
        let angles: Vec<_> = cases.iter().map(Case::all_angles).collect();
        // A row of nobody's before each; some want to know what pages received, some of keys too.
        let (mut steps, mut queries) = (Vec::new(), Vec::new());
        let mut alone = Vec::new();
        for (i, case) in cases.iter().enumerate() {
            queries.extend(floats(width, &mut rng));
            let first_row = queries.len() / width;
            let mut step = case.step(&angles[i], &pages[i], first_row, None);
            step.page_masses = (i % 3 > 0).then(|| vec![0.0; case.pages.len()]);
            let n_keys = layout.heads.n_kv_heads * (case.pages.len() - 1) * layout.page_len;
            let wanted = || KeyMasses { first_page: 1, masses: vec![0.0; n_keys] };
            step.key_masses = (i % 3 == 2).then(wanted);
            let mut single = case.step(&angles[i], &pages[i], 0, None);
            (single.page_masses, single.key_masses) =
                (step.page_masses.clone(), step.key_masses.clone());
            let mut out = vec![f32::NAN; case.queries.len()];
            backend.attend(std::slice::from_mut(&mut single), &case.queries, &mut out);
            alone.push((out, single.page_masses, single.key_masses.map(|keys| keys.masses)));
            steps.push(step);
            queries.extend(&case.queries);
        }
        let mut out = vec![f32::NAN; queries.len()];
        backend.attend(&mut steps, &queries, &mut out);
        let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        for (i, (step, (expected, page_masses, key_masses))) in steps.iter().zip(alone).enumerate()
        {
            let rows = step.rows();
            let before = &out[(rows.start - 1) * width..rows.start * width];
            assert!(before.iter().all(|x| x.is_nan()), "step {i}: a row of nobody's was written");
            let found = &out[rows.start * width..rows.end * width];
            assert_eq!(bits(found), bits(&expected), "step {i}, {}", backend.description());
            assert_eq!(step.page_masses, page_masses, "step {i}");
            let found = step.key_masses.as_ref().map(|keys| keys.masses.clone());
            assert_eq!(found, key_masses, "step {i}");
        }
    }
}

/// However many targets there are, and however many rows in all, each gets its own rows.
#[test]
fn what_is_written_together_is_what_is_written_alone() {
    for kv_type in [KvType::F16, KvType::Int8] {
        let layout = PageLayout { heads: heads(4, 2, 32), n_layers: 2, page_len: 32, kv_type };
        let mut rng = Rng::with_seed(22);
        let slot_angles = &floats(layout.page_len * 2 * layout.heads.n_pairs, &mut rng)[..];
        let width = layout.heads.n_kv_heads * layout.heads.head_dim;
        for backend in backends(Precision::Int16).into_iter().chain([many_threads()]) {
            for lengths in [&[1][..], &[20], &[1, 2], &[1; 8], &[3, 1, 30, 1, 2, 1]] {
                let n_rows = lengths.iter().sum::<usize>() + lengths.len();
                let [keys, values] = [0, 1].map(|_| floats(n_rows * width, &mut rng));
                let page = |_: &usize| HostBytes::zeroed(layout.page_bytes()).unwrap();
                let [mut together, mut alone]: [Vec<_>; 2] =
                    [0, 1].map(|_| lengths.iter().map(page).collect());
                let mut next_row = 0;
                let mut targets: Vec<_> = (together.iter_mut().zip(lengths).enumerate())
                    .map(|(i, (page, n))| {
                        let (first_slot, rows) = (i % 3, next_row + 1..next_row + 1 + n); // a gap
                        next_row = rows.end;
                        PageTarget { layout, layer: 1, page, first_slot, rows, slot_angles }
                    })
                    .collect();
                for (page, target) in alone.iter_mut().zip(&targets) {
                    for (i, row) in target.rows.clone().enumerate() {
                        let (first_slot, rows) = (target.first_slot + i, row..row + 1);
                        let one =
                            PageTarget { layout, layer: 1, page, first_slot, rows, slot_angles };
                        backend.write_pages(&mut [one], &keys, &values);
                    }
                }
                backend.write_pages(&mut targets, &keys, &values);
                assert!(together.iter().zip(&alone).all(|(a, b)| a[..] == b[..]), "{lengths:?}");
                assert!(together.iter().all(|page| page.iter().any(|byte| *byte != 0)));
            }
        }
    }
}

fn many_threads() -> CpuBackend {
    CpuBackend::new(3, Precision::Int16)
}
