//! Attention to paged keys and values: sizes, types, places, sets, several texts at once.

use kernels::naive::{self, Attention, HeadShape, PageFormat, PageType, PairLayout, Rotary};
use kernels::{
    AnyDevice, Array, AttendFewKernels, AttendManyKernels, AttendStep, AttentionSizes, Device,
    DeviceBuffer, PageRef, PagedSequence,
};

use crate::devices::{assert_close, numbers, on_devices};

/// A text's keys, in pages of which each stands somewhere.
struct Text {
    n_tokens: usize,
    first_index: usize,
    position: usize, // of the first query
    n_sets: usize,
    pages: Vec<Page>, // [set][page]
}

struct Page {
    n_keys: usize,
    first_index: usize,
    position: usize,
    kv_type: PageType,
}

struct Case {
    heads: HeadShape,
    n_pairs: usize,
    page_len: usize,
    texts: Vec<Text>,
}

/// Which of the two kernels of attention.
#[derive(Clone, Copy, Debug)]
enum Kernel {
    Few,
    Many,
}

/// Bytes of a page, and what its bytes stand for: keys at their positions and values,
/// `[slot][kv_head][dim]`.
struct Made {
    bytes: Vec<u8>,
    keys: Vec<f32>,
    values: Vec<f32>,
}

fn angles(frequencies: &[f64], position: usize) -> Vec<f32> {
    let angle = |f: &f64| position as f64 * f;
    let cosines = frequencies.iter().map(|f| angle(f).cos() as f32);
    cosines.chain(frequencies.iter().map(|f| angle(f).sin() as f32)).collect()
}

impl Case {
    fn frequencies(&self) -> Vec<f64> {
        (0..self.n_pairs).map(|i| 100f64.powf(-(i as f64) / self.n_pairs as f64)).collect()
    }

    fn make(&self, page: &Page, seed: u64) -> Made {
        let HeadShape { n_kv_heads, head_dim, .. } = self.heads;
        let format = PageFormat { kv_type: page.kv_type, head_dim, page_len: self.page_len };
        let frequencies = self.frequencies();
        let rotary =
            Rotary { inverse_frequencies: &frequencies, magnitude: 1.0, layout: PairLayout::Half };
        let mut made = Made {
            bytes: Vec::new(),
            keys: vec![0.0; page.n_keys * n_kv_heads * head_dim],
            values: vec![0.0; page.n_keys * n_kv_heads * head_dim],
        };
        for kv_head in 0..n_kv_heads {
            let seed = seed * 64 + kv_head as u64;
            let keys: Vec<f32> =
                numbers(seed, page.n_keys * head_dim).iter().map(|x| x * 2.0).collect();
            let values = numbers(seed ^ 0xffff, page.n_keys * head_dim);
            // 0xff in what is not filled: NaNs as halves and floats.
            let bytes = format.pack(&keys, &values, 0xff);
            let (keys, values) = format.unpack(&bytes, page.n_keys);
            made.bytes.extend(bytes);
            for slot in 0..page.n_keys {
                let at = (slot * n_kv_heads + kv_head) * head_dim;
                let key = &keys[slot * head_dim..][..head_dim];
                made.keys[at..at + head_dim].copy_from_slice(&rotary.rotate(key, page.position));
                made.values[at..at + head_dim]
                    .copy_from_slice(&values[slot * head_dim..][..head_dim]);
            }
        }
        made
    }

    fn queries(&self) -> Vec<f32> {
        let n_rows: usize = self.texts.iter().map(|text| text.n_tokens).sum();
        let scale = 3.0; // so that some keys count for more than others
        let len = n_rows * self.heads.n_heads * self.heads.head_dim;
        numbers(99, len).iter().map(|x| x * scale).collect()
    }

    fn made(&self) -> Vec<Vec<Made>> {
        let of_text = |(i, text): (usize, &Text)| {
            let of_page = |(j, page)| self.make(page, (i * 1000 + j + 1) as u64);
            text.pages.iter().enumerate().map(of_page).collect()
        };
        self.texts.iter().enumerate().map(of_text).collect()
    }

    /// By the twin: outputs and squares of pages' masses.
    fn expected(&self, made: &[Vec<Made>]) -> (Vec<f32>, Vec<f32>) {
        let HeadShape { n_heads, n_kv_heads, head_dim } = self.heads;
        let frequencies = self.frequencies();
        let rotary =
            Rotary { inverse_frequencies: &frequencies, magnitude: 1.0, layout: PairLayout::Half };
        let queries = self.queries();
        let group = n_heads / n_kv_heads;
        let (mut out, mut masses) = (vec![0.0; queries.len()], Vec::new());
        let mut first_row = 0;
        for (text, made) in self.texts.iter().zip(made) {
            let n_pages = made.len() / text.n_sets;
            let mut of_text = vec![0.0f64; made.len()];
            for (token, head) in (0..text.n_tokens).flat_map(|t| (0..n_heads).map(move |h| (t, h)))
            {
                let at = ((first_row + token) * n_heads + head) * head_dim;
                let query = rotary.rotate(&queries[at..at + head_dim], text.position + token);
                let kv_head = head / group;
                let set = if text.n_sets == 1 { 0 } else { kv_head };
                let (mut keys, mut values, mut of_page) = (Vec::new(), Vec::new(), Vec::new());
                let pages = text.pages.iter().zip(made).enumerate();
                for (i, (page, made)) in pages.skip(set * n_pages).take(n_pages) {
                    let is_seen =
                        |slot: &usize| page.first_index + slot <= text.first_index + token;
                    for slot in (0..page.n_keys).filter(is_seen) {
                        let at = (slot * n_kv_heads + kv_head) * head_dim;
                        keys.extend(&made.keys[at..at + head_dim]);
                        values.extend(&made.values[at..at + head_dim]);
                        of_page.push(i);
                    }
                }
                let shape = HeadShape { n_heads: 1, n_kv_heads: 1, head_dim };
                let attention = Attention {
                    shape,
                    queries: &query,
                    query_positions: &[0],
                    keys: &keys,
                    values: &values,
                    key_positions: &vec![0; of_page.len()],
                    rotary: None,
                };
                out[at..at + head_dim].copy_from_slice(&naive::attend(&attention));
                let scale = 1.0 / (head_dim as f64).sqrt();
                let score = |key: &[f32]| naive::dot(&query, key) * scale;
                let scores: Vec<f64> = keys.chunks(head_dim).map(score).collect();
                let mut shares = vec![0.0f64; made.len()];
                for (weight, page) in naive::softmax(&scores).iter().zip(&of_page) {
                    shares[*page] += weight;
                }
                shares.iter().zip(&mut of_text).for_each(|(share, sum)| *sum += share * share);
            }
            masses.extend(of_text.iter().map(|mass| *mass as f32));
            first_row += text.n_tokens;
        }
        (out, masses)
    }

    fn sizes(&self) -> AttentionSizes {
        let mut kv_types: Vec<PageType> =
            self.texts.iter().flat_map(|text| &text.pages).map(|page| page.kv_type).collect();
        kv_types.sort();
        kv_types.dedup();
        AttentionSizes {
            heads: self.heads,
            n_pairs: self.n_pairs,
            page_len: self.page_len,
            kv_types,
        }
    }

    /// Angles of the queries' places and of the pages'.
    fn angles(&self) -> (Vec<f32>, Vec<f32>) {
        let frequencies = self.frequencies();
        let of = |position| angles(&frequencies, position);
        let near = |text: &Text| {
            let (position, n_tokens) = (text.position, text.n_tokens);
            (position..position + n_tokens).flat_map(of).collect::<Vec<_>>()
        };
        let pages = self.texts.iter().flat_map(|text| &text.pages);
        (
            self.texts.iter().flat_map(near).collect(),
            pages.flat_map(|page| of(page.position)).collect(),
        )
    }

    fn run<D: Device>(
        &self,
        device: &D,
        (made, kernel): (&[Vec<Made>], Kernel),
    ) -> (Vec<f32>, Vec<f32>) {
        let sizes = self.sizes();
        let buffers: Vec<Vec<D::Buffer>> = made
            .iter()
            .map(|pages| {
                let upload = |page: &Made| {
                    let mut buffer = device.allocate(page.bytes.len()).unwrap();
                    device.write(&mut buffer, 0, &page.bytes).unwrap();
                    assert_eq!(buffer.n_bytes(), page.bytes.len());
                    buffer
                };
                pages.iter().map(upload).collect()
            })
            .collect();
        let (near, placements) = self.angles();
        let mut sequences = Vec::new();
        let mut n_placed = 0;
        let mut first_row = 0;
        let mut refs = Vec::new();
        for (text, buffers) in self.texts.iter().zip(&buffers) {
            let mut of_text = Vec::new();
            for (page, buffer) in text.pages.iter().zip(buffers) {
                let Page { n_keys, first_index, kv_type, .. } = *page;
                let placement = n_placed;
                n_placed += 1;
                of_text.push(PageRef {
                    buffer,
                    offset: 0,
                    n_keys,
                    first_index,
                    placement,
                    kv_type,
                });
            }
            refs.push((first_row, of_text));
            first_row += text.n_tokens;
        }
        for (text, (first_row, pages)) in self.texts.iter().zip(&refs) {
            let Text { n_tokens, first_index, n_sets, .. } = *text;
            let first_row = *first_row;
            sequences.push(PagedSequence { first_row, n_tokens, first_index, pages, n_sets });
        }
        let queries = self.queries();
        let mut out = Array::of(device, &vec![f32::NAN; queries.len()]).unwrap();
        let mut masses = Array::of(device, &vec![f32::NAN; n_placed]).unwrap();
        let step = AttendStep {
            queries: &Array::of(device, &queries).unwrap(),
            near: &Array::of(device, &near).unwrap(),
            placements: &Array::of(device, &placements).unwrap(),
            sequences: &sequences,
            scale: 1.0 / (self.heads.head_dim as f32).sqrt(),
            out: &mut out,
            page_masses: Some(&mut masses),
        };
        match kernel {
            Kernel::Few => AttendFewKernels::new(device, sizes).unwrap().attend(device, step),
            Kernel::Many => AttendManyKernels::new(device, sizes).unwrap().attend(device, step),
        }
        .unwrap();
        (out.to_vec(device).unwrap(), masses.to_vec(device).unwrap())
    }

    fn check(&self) {
        let made = self.made();
        let (expected, expected_masses) = self.expected(&made);
        for kernel in [Kernel::Few, Kernel::Many] {
            let (out, masses) = on_devices(|device| self.run(device, (&made, kernel)));
            // Queries, keys and weights are rounded to halves, eleven bits each.
            assert_close(&out, &expected, 4e-3);
            assert_close(&masses, &expected_masses, 1e-2);
        }
        assert!(expected.iter().any(|x| x.abs() > 0.1), "not all is near zero");
    }
}

fn heads(n_heads: usize, n_kv_heads: usize, head_dim: usize) -> HeadShape {
    HeadShape { n_heads, n_kv_heads, head_dim }
}

/// Full pages at contiguous positions and one that is not full, seen by the last of its tokens.
fn reading(n_pages: usize, kv_type: PageType, n_tokens: usize, page_len: usize) -> Text {
    let page = |i: usize| Page {
        n_keys: if i + 1 == n_pages { page_len / 2 + 3 } else { page_len },
        first_index: i * page_len,
        position: i * page_len,
        kv_type,
    };
    let last = (n_pages - 1) * page_len + page_len / 2 + 2;
    let first_index = last + 1 - n_tokens;
    let pages = (0..n_pages).map(page).collect();
    Text { n_tokens, first_index, position: first_index, n_sets: 1, pages }
}

#[test]
fn every_head_size_and_type_attends_as_its_twin() {
    for head_dim in [64, 80, 96, 128, 256] {
        for kv_type in [PageType::F16, PageType::Int8, PageType::Int4] {
            let texts = vec![reading(3, kv_type, 2, 64)];
            let heads = heads(3, 1, head_dim);
            Case { heads, n_pairs: head_dim / 2, page_len: 64, texts }.check();
        }
    }
}

#[test]
fn grouped_multi_query_and_multi_head_attention_of_many_rows_and_splits() {
    for (n_heads, n_kv_heads, n_tokens) in [(9, 3, 1), (4, 4, 3), (20, 1, 2), (8, 2, 9)] {
        let texts = vec![reading(11, PageType::Int8, n_tokens, 64)];
        Case { heads: heads(n_heads, n_kv_heads, 64), n_pairs: 32, page_len: 64, texts }.check();
    }
}

#[test]
fn a_chunk_of_a_document_sees_what_is_before_each_of_its_tokens() {
    for kv_type in [PageType::Int8, PageType::Int4] {
        let texts = vec![reading(4, kv_type, 100, 64), reading(2, kv_type, 45, 64)];
        Case { heads: heads(6, 2, 64), n_pairs: 32, page_len: 64, texts }.check();
    }
}

#[test]
fn longer_pages_and_heads_that_are_rotated_in_part() {
    for kv_type in [PageType::Int8, PageType::F16, PageType::Int4] {
        let texts = vec![reading(3, kv_type, 2, 192)];
        Case { heads: heads(2, 1, 96), n_pairs: 24, page_len: 192, texts }.check();
    }
}

#[test]
fn several_texts_of_several_sets_and_types_in_one_step() {
    let page =
        |n_keys, first_index, position, kv_type| Page { n_keys, first_index, position, kv_type };
    let (int4, int8) = (PageType::Int4, PageType::Int8);
    // Units are far away in the text and near by position; each KV head has others.
    let of_sets = Text {
        n_tokens: 2,
        first_index: 5000,
        position: 300,
        n_sets: 2,
        pages: vec![
            page(64, 0, 0, int8),
            page(64, 640, 64, int4),
            page(40, 4962, 262, int8),
            page(64, 0, 0, int8),
            page(64, 1920, 64, int4),
            page(40, 4962, 262, int8),
        ],
    };
    // A page without keys, and a text without pages: nothing is seen.
    let empty = Text {
        n_tokens: 1,
        first_index: 0,
        position: 0,
        n_sets: 1,
        pages: vec![page(0, 0, 0, int8), page(1, 0, 0, int8)],
    };
    let nothing =
        |position| Text { n_tokens: 2, first_index: 9, position, n_sets: 1, pages: Vec::new() };
    let texts = vec![of_sets, reading(2, int8, 5, 64), nothing(4), empty];
    Case { heads: heads(6, 2, 64), n_pairs: 32, page_len: 64, texts }.check();
}

/// One query of a text with these pages.
fn one_query<'a>(pages: &'a [PageRef<'a, AnyDevice>]) -> PagedSequence<'a, AnyDevice> {
    PagedSequence { first_row: 0, n_tokens: 1, first_index: 0, pages, n_sets: 1 }
}

#[test]
fn what_no_kernel_is_made_for_is_refused() {
    on_devices(|device| {
        let sizes = |head_dim, page_len| AttentionSizes {
            heads: heads(2, 1, head_dim),
            n_pairs: 16,
            page_len,
            kv_types: vec![PageType::Int8],
        };
        for (head_dim, page_len, told) in
            [(72, 64, "a head's width of 72"), (64, 48, "a page of 48"), (272, 64, "of 272")]
        {
            let refused = AttendFewKernels::new(device, sizes(head_dim, page_len)).err().unwrap();
            assert!(refused.to_string().contains(told), "{refused}");
        }
        let mut kernels = AttendFewKernels::new(device, sizes(64, 64)).unwrap();
        let buffer = device.allocate(100).unwrap();
        let floats = |len: usize| Array::of(device, &vec![0.0f32; len]).unwrap();
        let (queries, angles, mut out) = (floats(128), floats(32), floats(128));
        let mut attend = |sequences: &[PagedSequence<'_, AnyDevice>]| {
            let step = AttendStep {
                queries: &queries,
                near: &angles,
                placements: &angles,
                sequences,
                scale: 1.0,
                out: &mut out,
                page_masses: None,
            };
            kernels.attend(device, step).unwrap_err().to_string()
        };
        for (kv_type, offset, told) in [
            (PageType::F16, 0, "a page's type"),
            (PageType::Int8, 8, "multiples of 16 bytes"),
            (PageType::Int8, 0, "the buffer has 100"),
        ] {
            let (buffer, n_keys, first_index, placement) = (&buffer, 1, 0, 0);
            let page = PageRef { buffer, offset, n_keys, first_index, placement, kv_type };
            let refused = attend(&[one_query(&[page])]);
            assert!(refused.contains(told), "{refused}");
        }
        assert!(
            attend(&[one_query(&[]), one_query(&[])])
                .contains("rows that are one sequence's alone")
        );
    });
}
