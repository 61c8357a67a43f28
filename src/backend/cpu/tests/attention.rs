//! Attention to placed pages, against its definition: loops in f64 over the keys that each query
//! may see.

use fastrand::Rng;
use kernels::naive;

use super::{ROUNDING, backends, floats};
use crate::backend::cpu::{CpuBackend, HostBytes};
use crate::backend::{
    AttendStep, Backend, HeadPage, HeadShape, KeyMasses, KvType, PageLayout, PageSource,
    PageTarget, PlacedPage, Placement, Precision,
};

/// A page of a made-up text.
#[derive(Clone, Copy, Debug)]
pub(super) struct PageSpec {
    pub first_index: usize,
    pub n_keys: usize,
    /// Position of the first key; `None`: far.
    position: Option<usize>,
}

/// A layer's attention to be computed.
pub(super) struct Case {
    pub layout: PageLayout,
    pub layer: usize,
    n_tokens: usize,
    /// Index in the text of the first query, which is also its position less `shift`.
    first_index: usize,
    pub pages: Vec<PageSpec>,
    pub queries: Vec<f32>, // [token][head][head_dim]
    pub keys: Vec<f32>,    // [token of the text][kv_head][head_dim]
    pub values: Vec<f32>,  // [token of the text][kv_head][head_dim]
}

/// Angles that a case's step borrows.
pub(super) struct CaseAngles {
    pages: Vec<Option<Vec<f32>>>,
    near: Vec<f32>,
    far: Vec<f32>,
    offsets: Vec<f32>,
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
    pub fn random(layout: PageLayout, n_tokens: usize, rng: &mut Rng) -> Self {
        let PageLayout { heads, page_len, .. } = layout;
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
            layout,
            layer: rng.usize(0..layout.n_layers),
            n_tokens,
            first_index,
            pages,
            queries: floats(n_tokens * heads.n_heads * heads.head_dim, rng),
            keys: floats(end * kv_width, rng).iter().map(|x| 2.0 * x).collect(),
            values: floats(end * kv_width, rng),
        }
    }

    pub fn frequencies(&self) -> Vec<f64> {
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

    /// Full pages are packed, where the type has it.
    pub fn type_of(&self, spec: &PageSpec) -> KvType {
        match spec.n_keys == self.layout.page_len {
            true => self.layout.kv_type,
            false => self.layout.kv_type.near(),
        }
    }

    /// Pages as the backend wants them, written by it, with rubbish where no key is.
    pub fn write_pages(&self, backend: &CpuBackend, rng: &mut Rng) -> Vec<HostBytes> {
        let slot_angles: Vec<f32> =
            (0..self.layout.page_len).flat_map(|slot| self.angles(&[slot])).collect();
        let near = self.layout.of_type(self.layout.kv_type.near());
        let write = |spec: &PageSpec| {
            let mut page = HostBytes::zeroed(near.page_bytes()).unwrap();
            page.iter_mut().for_each(|byte| *byte = rng.u8(..));
            // In two parts, as a page that fills up over several chunks.
            let middle = spec.n_keys / 3;
            for slots in [0..middle, middle..spec.n_keys] {
                let target = PageTarget {
                    layout: near,
                    layer: self.layer,
                    page: &mut page,
                    first_slot: slots.start,
                    rows: spec.first_index + slots.start..spec.first_index + slots.end,
                    slot_angles: &slot_angles,
                };
                backend.write_pages(&mut [target], &self.keys, &self.values);
            }
            let kv_type = self.type_of(spec);
            if kv_type == near.kv_type {
                return page;
            }
            let mut packed = HostBytes::zeroed(near.of_type(kv_type).page_bytes()).unwrap();
            backend.pack_page(near, &page, kv_type, &mut packed);
            packed
        };
        self.pages.iter().map(write).collect()
    }

    /// The angles of everything in the case.
    pub fn all_angles(&self) -> CaseAngles {
        CaseAngles {
            pages: self.pages.iter().map(|page| Some(self.angles(&[page.position?]))).collect(),
            near: (0..self.n_tokens).flat_map(|i| self.angles(&[QUERY_POSITION + i])).collect(),
            far: self.angles(&[FAR]),
            offsets: self.angles(&(0..self.layout.page_len).collect::<Vec<_>>()),
        }
    }

    /// The case as a step whose rows begin at `first_row`; masses where `masses` has them.
    pub fn step<'a>(
        &self,
        angles: &'a CaseAngles,
        pages: &'a [HostBytes],
        first_row: usize,
        masses: Option<(&[f32], &[f32])>,
    ) -> AttendStep<'a, HostBytes> {
        let placed = self.pages.iter().zip(pages).zip(&angles.pages);
        let placed = placed.map(|((spec, page), angles)| PlacedPage {
            page: PageSource::Fast(page),
            kv_type: self.type_of(spec),
            n_keys: spec.n_keys,
            first_index: spec.first_index,
            placement: angles.as_deref().map_or(Placement::Far, Placement::At),
        });
        AttendStep {
            layout: self.layout,
            layer: self.layer,
            pages: placed.collect(),
            n_sets: 1,
            n_tokens: self.n_tokens,
            first_row,
            first_index: self.first_index,
            near_angles: &angles.near,
            far_angles: &angles.far,
            offset_angles: &angles.offsets,
            scale: SCALE / (self.layout.heads.head_dim as f32).sqrt(),
            page_masses: masses.map(|(of_pages, _)| of_pages.to_vec()),
            key_masses: masses
                .map(|(_, of_keys)| KeyMasses { first_page: 1, masses: of_keys.to_vec() }),
        }
    }

    fn run(
        &self,
        backend: &CpuBackend,
        pages: &[HostBytes],
        masses: Option<(&mut Vec<f32>, &mut Vec<f32>)>,
    ) -> Vec<f32> {
        let angles = self.all_angles();
        let given = masses.as_ref().map(|(pages, keys)| (&pages[..], &keys[..]));
        let mut step = self.step(&angles, pages, 0, given);
        let mut out = vec![f32::NAN; self.queries.len()];
        backend.attend(std::slice::from_mut(&mut step), &self.queries, &mut out);
        if let Some((page_masses, key_masses)) = masses {
            *page_masses = step.page_masses.expect("the masses asked for");
            *key_masses = step.key_masses.expect("the masses asked for").masses;
        }
        out
    }

    /// What the pages hold, as `[page][kv_head]` of keys `[key][head_dim]`, rotated by their
    /// offsets, and values `[key][head_dim]`.
    pub fn kept(&self, pages: &[HostBytes]) -> Vec<Vec<[Vec<f32>; 2]>> {
        let of_page = |(page, spec): (&HostBytes, &PageSpec)| {
            let layout = self.layout.of_type(self.type_of(spec));
            let heads = 0..layout.heads.n_kv_heads;
            heads.map(|head| read_back(layout, layout.view(page, self.layer, head))).collect()
        };
        pages.iter().zip(&self.pages).map(of_page).collect()
    }

    fn expected(&self, pages: &[HostBytes]) -> Expected {
        let HeadShape { n_heads, head_dim, .. } = self.layout.heads;
        let kept = self.kept(pages);
        let mut expected = Expected {
            out: Vec::new(),
            masses: vec![0.0; self.pages.len()],
            key_masses: vec![
                vec![vec![0.0; self.layout.page_len]; self.pages.len()];
                self.layout.heads.n_kv_heads
            ],
            score_error: 0.0,
            relative_error: 0.0,
            n_keys: 0,
        };
        for row in 0..self.n_tokens * n_heads {
            let (token, head) = (row / n_heads, row % n_heads);
            let query = &self.queries[row * head_dim..][..head_dim];
            let kv_head = head / self.layout.heads.group();
            let kept: Vec<&[Vec<f32>; 2]> = kept.iter().map(|page| &page[kv_head]).collect();
            expected.add_row(self, query, (token, kv_head), &kept);
        }
        expected
    }
}

/// What the definition gives.
struct Expected {
    out: Vec<f64>,                  // [token][head][head_dim]
    key_masses: Vec<Vec<Vec<f64>>>, // [kv_head][page][slot], shares, summed over tokens and heads
    masses: Vec<f64>,               // [page], squares of shares, summed over tokens and heads
    /// The most by which f32 can be off in a score.
    score_error: f64,
    /// The most by which 16-bit numbers can be off in a score.
    relative_error: f64,
    /// Most keys that a row sees.
    n_keys: usize,
}

impl Expected {
    fn add_row(
        &mut self,
        case: &Case,
        query: &[f32],
        (token, kv_head): (usize, usize),
        kept: &[&[Vec<f32>; 2]],
    ) {
        let head_dim = case.layout.heads.head_dim;
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
        let (mut scores, mut seen) = (Vec::new(), Vec::new());
        for (page_idx, page) in case.pages.iter().enumerate() {
            for slot in 0..page.n_keys {
                let index = page.first_index + slot;
                if index > case.first_index + token {
                    continue;
                }
                // Turned by its place in the page.
                let key = &kept[page_idx][0][slot * head_dim..][..head_dim];
                let (query, key) = match page.position {
                    Some(position) => (&near, rotary.rotate(key, position)),
                    None => (&far, back.rotate(key, slot)),
                };
                let scale = f64::from(SCALE) / (head_dim as f64).sqrt();
                scores.push(naive::dot(query, &key) * scale);
                seen.push((page_idx, slot));
                let size: f64 = query.iter().zip(&key).map(|(q, k)| f64::from((q * k).abs())).sum();
                let roundings = (head_dim + 16) as f64; // of the sum, the rotations, the scale
                self.score_error = self.score_error.max(roundings * ROUNDING * 2.0 * size * scale);
                // Half a step of either's largest, the other's size: sums of absolute values.
                let largest = |x: &[f32]| f64::from(x.iter().fold(0.0f32, |m, x| m.max(x.abs())));
                let sum = |x: &[f32]| x.iter().map(|x| f64::from(x.abs())).sum::<f64>();
                let error = (largest(query) * sum(&key) + largest(&key) * sum(query)) * 1.1;
                self.relative_error = self.relative_error.max(error * scale / (2.0 * 5792.0));
            }
        }
        let mut out = vec![0.0; head_dim];
        let mut shares = vec![0.0; case.pages.len()];
        for (weight, (page_idx, slot)) in naive::softmax(&scores).into_iter().zip(&seen) {
            shares[*page_idx] += weight;
            self.key_masses[kv_head][*page_idx][*slot] += weight;
            let value = &kept[*page_idx][1][slot * head_dim..][..head_dim];
            for (out, x) in out.iter_mut().zip(value) {
                *out += weight * f64::from(*x);
            }
        }
        self.masses.iter_mut().zip(shares).for_each(|(mass, share)| *mass += share * share);
        self.out.extend(out);
        self.n_keys = self.n_keys.max(seen.len());
    }

    /// The relative error of a weight: that of its score, of its exponential, of the sums.
    fn weight_error(&self, precision: Precision) -> f64 {
        let floats = 2.0 * (self.score_error + 4e-7 + self.n_keys as f64 * ROUNDING);
        match precision {
            Precision::F32 => floats,
            _ => floats + 2.0 * self.relative_error,
        }
    }

    /// The error of an element of the output; values are at most 1.
    fn out_error(&self, case: &Case, precision: Precision) -> f64 {
        let rounding = match precision {
            Precision::F32 => 0.0,
            // Half a step of each weight of a page, half a step of each value.
            _ => 0.5 / 8191.0 * case.layout.page_len as f64 + 0.5 / 4095.0,
        };
        self.weight_error(precision) + rounding
    }

    fn check(&self, case: &Case, backend: &CpuBackend, pages: &[HostBytes]) {
        let precision = backend.precision;
        let (layout, weight_error) = (case.layout, self.weight_error(precision));
        let name = format!("{layout:?}, {} tokens, {precision:?}, {backend:?}", case.n_tokens);
        let mut masses = vec![f32::NAN; case.pages.len() + 1];
        let out = case.run(backend, pages, None);
        // The masses of the first page's keys are not asked for; the others add to what is there.
        let n_keys = (case.pages.len() - 1) * layout.page_len;
        let mut key_masses = vec![0.5; layout.heads.n_kv_heads * n_keys];
        let out_with_masses = case.run(backend, pages, Some((&mut masses, &mut key_masses)));
        for out in [out, out_with_masses] {
            for (i, (found, expected)) in out.iter().zip(&self.out).enumerate() {
                let error = (f64::from(*found) - expected).abs();
                let bound = self.out_error(case, precision);
                assert!(error <= bound, "{name}, element {i}: {found} {expected} {bound}");
            }
        }
        let heads = layout.heads;
        let rows = (case.n_tokens * heads.n_heads) as f64;
        for (page, (found, expected)) in masses.iter().zip(&self.masses).enumerate() {
            let error = (f64::from(*found) - expected).abs();
            assert!(error <= 2.0 * rows * weight_error, "{name}, page {page}: {found} {expected}");
        }
        let of_head = |pages: &Vec<Vec<f64>>| pages[1..].concat();
        let expected: Vec<f64> = self.key_masses.iter().flat_map(of_head).collect();
        assert_eq!(key_masses.len(), expected.len());
        for (key, (found, expected)) in key_masses.iter().zip(&expected).enumerate() {
            let error = (f64::from(*found) - 0.5 - expected).abs();
            let bound = case.n_tokens as f64 * heads.group() as f64 * weight_error + 1e-6;
            assert!(error <= bound, "{name}, key {key}: {found} {expected} {bound}");
        }
        let total: f64 = masses[..case.pages.len()].iter().map(|mass| f64::from(*mass)).sum();
        assert!(total <= rows * (1.0 + 1e-5), "{name}: squares of shares sum to {total}");
    }
}

/// Tokens around the borders between the ways of sharing out.
const TOKENS: [usize; 5] = [1, 4, 16, 17, 70];

fn check(heads: HeadShape, page_len: usize, seed: u64) {
    let mut rng = Rng::with_seed(seed);
    for kv_type in KvType::ALL {
        for n_tokens in TOKENS {
            let layout = PageLayout { heads, n_layers: 3, page_len, kv_type };
            let case = Case::random(layout, n_tokens, &mut rng);
            for precision in [Precision::F32, Precision::Int16] {
                for backend in backends(precision) {
                    let pages = case.write_pages(&backend, &mut Rng::with_seed(5));
                    case.expected(&pages).check(&case, &backend, &pages);
                }
            }
        }
    }
}

/// Keys and values of a page, `[key][head_dim]` each, element by element.
fn read_back(layout: PageLayout, page: HeadPage<'_>) -> [Vec<f32>; 2] {
    let (head_dim, page_len) = (layout.heads.head_dim, layout.page_len);
    let half = |bits: u16| half::f16::from_bits(bits).to_f32();
    let element = |key: usize, dim: usize| match page {
        HeadPage::F16 { keys, values } => {
            [half(keys[dim * page_len + key]), half(values[key * head_dim + dim])]
        }
        HeadPage::Int8 { keys, key_scales, values, value_scales } => {
            let scale = half(key_scales[dim / 16 * page_len + key]);
            let byte = keys[(dim / 2 * page_len + key) * 2 + dim % 2];
            let value = values[(key / 2 * head_dim + dim) * 2 + key % 2];
            [f32::from(byte) * scale, f32::from(value) * value_scales[key]]
        }
        HeadPage::Int4 { keys, key_steps, key_middles, values, value_steps } => {
            let of_pair = |byte: u8, second: bool| {
                f32::from(if second { byte / 16 } else { byte % 16 }) * 2.0 - 15.0
            };
            let key_whole = of_pair(keys[dim / 2 * page_len + key], dim % 2 == 1);
            let value = of_pair(values[key / 2 * head_dim + dim], key % 2 == 1);
            [half(key_middles[dim]) + half(key_steps[dim]) * key_whole, value_steps[key] * value]
        }
    };
    let all = |which: usize| {
        let elements = (0..page_len).flat_map(|key| (0..head_dim).map(move |dim| (key, dim)));
        elements.map(|(key, dim)| element(key, dim)[which]).collect()
    };
    [all(0), all(1)]
}

pub(super) fn heads(n_heads: usize, n_kv_heads: usize, head_dim: usize) -> HeadShape {
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
    let layout =
        PageLayout { heads: heads(2, 1, 16), n_layers: 3, page_len: 16, kv_type: KvType::F16 };
    for backend in backends(Precision::F32) {
        let mut rng = Rng::with_seed(11);
        for n_tokens in [1, 20] {
            let mut case = Case::random(layout, n_tokens, &mut rng);
            case.queries.iter_mut().for_each(|x| *x *= 200.0);
            let pages = case.write_pages(&backend, &mut Rng::with_seed(5));
            let out = case.run(&backend, &pages, None);
            let expected = case.expected(&pages);
            for (found, expected) in out.iter().zip(&expected.out) {
                // Scores of hundreds: an error of 1e-3 in a score is one of 1e-3 in a weight.
                assert!((f64::from(*found) - expected).abs() < 5e-3, "{found} {expected}");
            }
        }
    }
}
