//! Attention to placed pages, against its definition: loops in f64 over the keys that each query
//! may see.

use fastrand::Rng;
use kernels::naive;

use super::{ROUNDING, backends, floats, halved};
use crate::backend::cpu::CpuBackend;
use crate::backend::{
    AttendStep, Backend, HeadShape, PageLayout, PageTarget, PlacedPage, Placement, Precision,
};

/// A page of a made-up text.
#[derive(Clone, Copy, Debug)]
struct PageSpec {
    first_index: usize,
    n_keys: usize,
    /// Position of the first key; `None`: far.
    position: Option<usize>,
}

/// A layer's attention to be computed.
struct Case {
    layout: PageLayout,
    layer: usize,
    n_tokens: usize,
    /// Index in the text of the first query, which is also its position less `shift`.
    first_index: usize,
    pages: Vec<PageSpec>,
    queries: Vec<f32>, // [token][head][head_dim]
    keys: Vec<f32>,    // [token of the text][kv_head][head_dim]
    values: Vec<f32>,  // [token of the text][kv_head][head_dim]
}

/// Where the case's queries stand: beyond all positions of pages, in steps of one.
const QUERY_POSITION: usize = 1000;
/// A factor on scores, as YaRN has one.
const SCALE: f32 = 1.25;
/// The far distance.
const FAR: usize = 37;

impl Case {
    /// Sinks in a partly filled page, a gap, units placed elsewhere than they stand, then a window
    /// that ends in the chunk itself.
    fn random(heads: HeadShape, page_len: usize, n_tokens: usize, rng: &mut Rng) -> Self {
        let n_sinks = rng.usize(1..=page_len);
        let mut pages = vec![PageSpec { first_index: 0, n_keys: n_sinks, position: Some(0) }];
        let mut index = n_sinks;
        for unit in 0..rng.usize(0..7) {
            index += page_len * rng.usize(0..3);
            let position = rng.bool().then_some(100 + unit * page_len);
            pages.push(PageSpec { first_index: index, n_keys: page_len, position });
            index += page_len;
        }
        let first_index = index + rng.usize(0..3 * page_len);
        let end = first_index + n_tokens;
        while index < end {
            let n_keys = page_len.min(end - index);
            let position = Some(QUERY_POSITION + index - first_index);
            pages.push(PageSpec { first_index: index, n_keys, position });
            index += n_keys;
        }
        let kv_width = heads.n_kv_heads * heads.head_dim;
        Self {
            layout: PageLayout { heads, n_layers: 3, page_len },
            layer: rng.usize(0..3),
            n_tokens,
            first_index,
            pages,
            queries: floats(n_tokens * heads.n_heads * heads.head_dim, rng),
            keys: floats(end * kv_width, rng).iter().map(|x| 2.0 * x).collect(),
            values: floats(end * kv_width, rng),
        }
    }

    fn frequencies(&self) -> Vec<f64> {
        (0..self.layout.heads.n_pairs).map(|pair| 0.6f64.powi(pair as i32)).collect()
    }

    /// Cosines of all pairs at the positions, then sines: `[pair][position]`.
    fn angles(&self, positions: &[usize]) -> Vec<f32> {
        let frequencies = self.frequencies();
        let all = |f: fn(f64) -> f64| {
            let of_pair = move |w: &f64| {
                let w = *w;
                positions.iter().map(move |p| f(*p as f64 * w) as f32)
            };
            frequencies.iter().flat_map(of_pair).collect::<Vec<_>>()
        };
        [all(f64::cos), all(f64::sin)].concat()
    }

    /// Pages as the backend wants them, written by it, with rubbish where no key is.
    fn write_pages(&self, backend: &CpuBackend, rng: &mut Rng) -> Vec<Vec<u16>> {
        let slot_angles: Vec<f32> =
            (0..self.layout.page_len).flat_map(|slot| self.angles(&[slot])).collect();
        let write = |spec: &PageSpec| {
            let rubbish = || half::f16::from_f32(rng.f32() * 9.0).to_bits();
            let mut page: Vec<u16> =
                std::iter::repeat_with(rubbish).take(self.layout.page_elements()).collect();
            // In two parts, as a page that fills up over several chunks.
            let middle = spec.n_keys / 3;
            for slots in [0..middle, middle..spec.n_keys] {
                let target = PageTarget {
                    layout: self.layout,
                    layer: self.layer,
                    page: &mut page,
                    first_slot: slots.start,
                    slot_angles: &slot_angles,
                };
                let tokens = spec.first_index + slots.start..spec.first_index + slots.end;
                backend.write_page(target, &self.keys, &self.values, tokens);
            }
            page
        };
        self.pages.iter().map(write).collect()
    }

    fn run(&self, backend: &CpuBackend, masses: Option<&mut [f32]>) -> Vec<f32> {
        let pages = self.write_pages(backend, &mut Rng::with_seed(5));
        let page_angles: Vec<Option<Vec<f32>>> =
            self.pages.iter().map(|page| Some(self.angles(&[page.position?]))).collect();
        let placed: Vec<PlacedPage<'_>> = self
            .pages
            .iter()
            .zip(&pages)
            .zip(&page_angles)
            .map(|((spec, page), angles)| PlacedPage {
                page,
                n_keys: spec.n_keys,
                first_index: spec.first_index,
                placement: angles.as_deref().map_or(Placement::Far, Placement::At),
            })
            .collect();
        let near_angles: Vec<f32> =
            (0..self.n_tokens).flat_map(|token| self.angles(&[QUERY_POSITION + token])).collect();
        let step = AttendStep {
            layout: self.layout,
            layer: self.layer,
            pages: &placed,
            n_tokens: self.n_tokens,
            first_index: self.first_index,
            near_angles: &near_angles,
            far_angles: &self.angles(&[FAR]),
            offset_angles: &self.angles(&(0..self.layout.page_len).collect::<Vec<_>>()),
            scale: SCALE / (self.layout.heads.head_dim as f32).sqrt(),
            page_masses: masses,
        };
        let mut out = vec![f32::NAN; self.queries.len()];
        backend.attend(step, &self.queries, &mut out);
        out
    }

    fn expected(&self) -> Expected {
        let HeadShape { n_heads, head_dim, .. } = self.layout.heads;
        let mut expected = Expected {
            out: Vec::new(),
            masses: vec![0.0; self.pages.len()],
            score_error: 0.0,
            n_keys: 0,
        };
        for row in 0..self.n_tokens * n_heads {
            let (token, head) = (row / n_heads, row % n_heads);
            let query = &self.queries[row * head_dim..][..head_dim];
            expected.add_row(self, query, token, head / self.layout.heads.group());
        }
        expected
    }
}

/// What the definition gives.
struct Expected {
    out: Vec<f64>,    // [token][head][head_dim]
    masses: Vec<f64>, // [page], squares of shares, summed over tokens and heads
    /// The most by which f32 can be off in a score.
    score_error: f64,
    /// Most keys that a row sees.
    n_keys: usize,
}

impl Expected {
    fn add_row(&mut self, case: &Case, query: &[f32], token: usize, kv_head: usize) {
        let HeadShape { n_kv_heads, head_dim, .. } = case.layout.heads;
        let frequencies = case.frequencies();
        let rotary = naive::Rotary {
            inverse_frequencies: &frequencies,
            magnitude: 1.0,
            layout: naive::PairLayout::Half,
        };
        let backwards: Vec<f64> = frequencies.iter().map(|x| -x).collect();
        let back = naive::Rotary { inverse_frequencies: &backwards, ..rotary };
        let near = rotary.rotate(query, QUERY_POSITION + token);
        let far = rotary.rotate(query, FAR);
        let at = |index: usize| (index * n_kv_heads + kv_head) * head_dim;
        let (mut scores, mut seen) = (Vec::new(), Vec::new());
        for (page_idx, page) in case.pages.iter().enumerate() {
            for slot in 0..page.n_keys {
                let index = page.first_index + slot;
                if index > case.first_index + token {
                    continue;
                }
                // Kept as f16, turned by its place in the page.
                let key = rotary.rotate(&case.keys[at(index)..][..head_dim], slot);
                let key: Vec<f32> = key.into_iter().map(halved).collect();
                let (query, key) = match page.position {
                    Some(position) => (&near, rotary.rotate(&key, position)),
                    None => (&far, back.rotate(&key, slot)),
                };
                let scale = f64::from(SCALE) / (head_dim as f64).sqrt();
                scores.push(naive::dot(query, &key) * scale);
                seen.push((page_idx, index));
                let size: f64 = query.iter().zip(&key).map(|(q, k)| f64::from((q * k).abs())).sum();
                let roundings = (head_dim + 16) as f64; // of the sum, the rotations, the scale
                self.score_error = self.score_error.max(roundings * ROUNDING * 2.0 * size * scale);
            }
        }
        let mut out = vec![0.0; head_dim];
        let mut shares = vec![0.0; case.pages.len()];
        for (weight, (page_idx, index)) in naive::softmax(&scores).into_iter().zip(&seen) {
            shares[*page_idx] += weight;
            for (out, x) in out.iter_mut().zip(&case.values[at(*index)..][..head_dim]) {
                *out += weight * f64::from(halved(*x));
            }
        }
        self.masses.iter_mut().zip(shares).for_each(|(mass, share)| *mass += share * share);
        self.out.extend(out);
        self.n_keys = self.n_keys.max(seen.len());
    }

    /// The relative error of a weight: that of its score, of its exponential, of the sums.
    fn weight_error(&self) -> f64 {
        2.0 * (self.score_error + 4e-7 + self.n_keys as f64 * ROUNDING)
    }

    fn check(&self, case: &Case, backend: &CpuBackend) {
        let heads = case.layout.heads;
        let name = format!("{heads:?}, {} tokens, {backend:?}", case.n_tokens);
        let mut masses = vec![f32::NAN; case.pages.len() + 1];
        let out = case.run(backend, None);
        let out_with_masses = case.run(backend, Some(&mut masses));
        for out in [out, out_with_masses] {
            for (i, (found, expected)) in out.iter().zip(&self.out).enumerate() {
                let error = (f64::from(*found) - expected).abs();
                // Values are at most 1.
                assert!(error <= self.weight_error(), "{name}, element {i}: {found} {expected}");
            }
        }
        let rows = (case.n_tokens * heads.n_heads) as f64;
        for (page, (found, expected)) in masses.iter().zip(&self.masses).enumerate() {
            let error = (f64::from(*found) - expected).abs();
            assert!(
                error <= 2.0 * rows * self.weight_error(),
                "{name}, page {page}: {found} {expected}"
            );
        }
        let total: f64 = masses[..case.pages.len()].iter().map(|mass| f64::from(*mass)).sum();
        assert!(total <= rows * (1.0 + 1e-5), "{name}: squares of shares sum to {total}");
    }
}

/// Tokens around the borders between the ways of sharing out.
const TOKENS: [usize; 5] = [1, 4, 16, 17, 70];

fn check(heads: HeadShape, page_len: usize, seed: u64) {
    let mut rng = Rng::with_seed(seed);
    for n_tokens in TOKENS {
        let case = Case::random(heads, page_len, n_tokens, &mut rng);
        let expected = case.expected();
        for backend in backends(Precision::F32) {
            expected.check(&case, &backend);
        }
    }
}

fn heads(n_heads: usize, n_kv_heads: usize, head_dim: usize) -> HeadShape {
    HeadShape { n_heads, n_kv_heads, head_dim, n_pairs: head_dim / 2 }
}

#[test]
fn attention_with_grouped_heads_is_its_definition() {
    check(heads(6, 2, 64), 64, 1);
    check(heads(9, 3, 16), 16, 2);
    check(heads(4, 2, 128), 32, 3);
}

#[test]
fn attention_with_one_key_head_or_as_many_as_query_heads_is_its_definition() {
    check(heads(5, 1, 80), 16, 4);
    check(heads(3, 3, 96), 48, 5);
    check(heads(1, 1, 256), 16, 6);
    check(heads(20, 1, 16), 64, 7);
}

#[test]
fn attention_where_part_of_a_head_turns_is_its_definition() {
    check(HeadShape { n_heads: 4, n_kv_heads: 2, head_dim: 64, n_pairs: 8 }, 16, 8);
    check(HeadShape { n_heads: 4, n_kv_heads: 2, head_dim: 80, n_pairs: 10 }, 32, 9);
    check(HeadShape { n_heads: 2, n_kv_heads: 1, head_dim: 16, n_pairs: 0 }, 16, 10);
}

#[test]
fn large_scores_neither_overflow_nor_drown_what_came_before() {
    for backend in backends(Precision::F32) {
        let mut rng = Rng::with_seed(11);
        for n_tokens in [1, 20] {
            let mut case = Case::random(heads(2, 1, 16), 16, n_tokens, &mut rng);
            case.queries.iter_mut().for_each(|x| *x *= 200.0);
            let out = case.run(&backend, None);
            let expected = case.expected();
            for (found, expected) in out.iter().zip(&expected.out) {
                // Scores of hundreds: an error of 1e-3 in a score is one of 1e-3 in a weight.
                assert!((f64::from(*found) - expected).abs() < 5e-3, "{found} {expected}");
            }
        }
    }
}
