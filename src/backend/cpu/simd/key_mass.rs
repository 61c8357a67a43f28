//! How much attention did each key of a page receive? A second look at scores whose softmax is
//! known by now, for policies that choose keys by it.

use super::attend::{Queries, Scratch};
use super::page;
use super::page_step::Sight;
use super::softmax::RowState;
use super::tile::{Product, Start};
use super::vector::{Kernel, Simd, TILE_ROWS, exp};
use crate::backend::cpu::host::HostPage;
use crate::backend::{PageLayout, Placement};

/// Adds to `masses` the share of each row's softmax that each key of a page has. In f32, whatever
/// attention itself was computed in.
#[derive(Debug)]
pub struct AddKeyMasses<'a> {
    /// Sizes.
    pub layout: PageLayout,
    /// Layer and KV head.
    pub head: (usize, usize),
    /// The rows.
    pub queries: Queries<'a>,
    /// The rows' softmax over all that they attended to.
    pub totals: &'a [RowState],
    /// The page, of all layers and heads.
    pub page: HostPage<'a>,
    /// Angles of the offsets in a page: cosines `[n_pairs][page_len]`, then sines.
    pub offset_angles: &'a [f32],
    /// Reused between calls.
    pub scratch: &'a mut Scratch,
    /// `[page_len]`
    pub masses: &'a mut [f32],
}

impl Kernel for AddKeyMasses<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { layout, page, totals, .. } = self;
        let (head_dim, page_len) = (layout.heads.head_dim, layout.page_len);
        assert!(self.masses.len() == page_len && page_len.is_multiple_of(16), "a mass a key");
        let sight = Sight::of((self.queries.first_index, self.queries.group), &page);
        let rows = match page.placement {
            Placement::At(_) => self.queries.near,
            Placement::Far => self.queries.far,
        };
        let Scratch { keys, scores, .. } = self.scratch;
        let layout = layout.of_type(page.kv_type);
        let view = layout.view(page.bytes(), self.head.0, self.head.1);
        // SAFETY: the caller vouches for the instruction set; the product checks lengths, and rows
        // of scores and masses are `page_len` long.
        unsafe {
            page::place_keys::<S>(layout, view, page.placement, self.offset_angles, keys);
            for (tile, queries) in rows.chunks(TILE_ROWS * head_dim).enumerate() {
                let n_tile = queries.len() / head_dim;
                S::call(Product {
                    n_rows: n_tile,
                    depth: head_dim,
                    n_cols: page_len,
                    a: queries,
                    a_stride: head_dim,
                    b: keys,
                    b_stride: page_len,
                    c: scores,
                    c_stride: page_len,
                    start: Start::Zero,
                    next: &[],
                });
                for (i, scores) in scores.chunks_exact_mut(page_len).enumerate().take(n_tile) {
                    let row = tile * TILE_ROWS + i;
                    scores[sight.keys_of(row)..].fill(f32::NEG_INFINITY);
                    let (max, share) = (S::splat(totals[row].max), S::splat(1.0 / totals[row].sum));
                    for i in (0..page_len).step_by(S::LANES) {
                        let e = exp::<S>(S::sub(S::load(scores.as_ptr().add(i)), max));
                        let mass = self.masses.as_mut_ptr().add(i);
                        S::store(mass, S::add(S::load(mass), S::mul(e, share)));
                    }
                }
            }
        }
    }
}
