//! Which units matter to some queries? The vote of a lookup, shared out over threads.
//!
//! Each query row (a token or the mean of a few, of one head) gives every unit a score; where votes
//! are soft, a softmax over units turns scores into shares; a unit's vote is, for each head, its
//! best share over the rows, and these are summed over heads (DESIGN.md, section 2). Softmax within
//! a head first keeps heads with large logits from drowning the others (as in TokenSelect, arXiv
//! 2411.02886).

use super::crew::Crew;
use super::pool::Grid;
use super::simd::best_key::BestKey;
use super::simd::pairs::{BYTES_PARTNER_LARGEST, RoundRows, ShortRows};
use super::simd::rows::{ExpShifted, MaxScaled, QuantizeRow, RotateRows};
use super::simd::segments::{ScoreSegments, UNITS};
use crate::backend::{
    BlocksView, Candidates, HeadShape, LookupQueries, LookupStep, Representatives, SegmentRun,
    Vote, set_of,
};

/// Units of a coarse task: some 130 KB of means at eight segments of 64 dimensions.
const UNITS_A_TASK: usize = 256;

/// Blocks of lists of a coarse task.
const BLOCKS_A_TASK: usize = 16;

/// Scores and votes of one lookup.
#[derive(Debug, Default)]
pub struct VoteBuffers {
    scores: Vec<f32>, // coarse: [kv_head][row][unit]; fine: [kv_head][candidate][row]
    head_votes: Vec<f32>, // [head][unit]
    run_ends: Vec<usize>, // [run], in blocks
    first_blocks: Vec<usize>, // [kv_head + 1]
}

/// See [`crate::backend::Backend::prepare_lookup`].
pub fn prepare(crew: &Crew, step: LookupStep<'_>, queries: &[f32], out: &mut LookupQueries) {
    let HeadShape { n_heads, n_kv_heads, head_dim, .. } = step.heads;
    let width = step.heads.group() * head_dim;
    out.n_token_groups = step.n_tokens.div_ceil(step.group_len);
    out.n_rows = out.n_token_groups * step.heads.group();
    let n_rows = n_kv_heads * out.n_rows;
    out.rows.resize(n_rows * head_dim, 0.0);
    let byte_width = step.representatives.width(head_dim);
    out.bytes.resize(n_rows * byte_width, 0);
    out.vote = step.vote;
    out.n_sets = step.n_sets;
    out.scales.resize(n_rows, 0.0);
    out.sums.resize(n_rows, 0);
    out.shorts.resize(n_rows * head_dim, 0);
    out.short_scales.resize(n_rows, 0.0);
    out.mean.resize(width, 0.0);
    out.turned.resize(width + byte_width, 0.0);
    for kv_head in 0..n_kv_heads {
        for group in 0..out.n_token_groups {
            let first = group * step.group_len;
            let tokens = first..(first + step.group_len).min(step.n_tokens);
            out.mean.fill(0.0);
            for token in tokens.clone() {
                let x = &queries[token * n_heads * head_dim + kv_head * width..][..width];
                out.mean.iter_mut().zip(x).for_each(|(mean, x)| *mean += x);
            }
            // The far rotation is the same for all tokens: mean first, then one rotation.
            let scale = step.scale / tokens.len() as f32;
            let first_row = kv_head * out.n_rows + group * step.heads.group();
            let rows = &mut out.rows[first_row * head_dim..][..width];
            let (x, angles) = (&out.mean, step.key_angles);
            crew.isa.run(RotateRows { x, head_dim, angles, scale, out: rows });
            let angles = step.segment_angles;
            let (turned, halves) = out.turned.split_at_mut(width);
            crew.isa.run(RotateRows { x, head_dim, angles, scale, out: turned });
            let bytes = out.bytes[first_row * byte_width..].chunks_exact_mut(byte_width);
            for (i, (x, q)) in turned.chunks_exact(head_dim).zip(bytes).enumerate() {
                let x = match step.representatives {
                    Representatives::Keys => x,
                    Representatives::Bounds => split_signs(x, halves),
                };
                let (scale, sum) = crew.isa.run(QuantizeRow { x, q });
                out.scales[first_row + i] = scale * step.sharpness;
                out.sums[first_row + i] = sum;
            }
        }
    }
    crew.isa.run(RoundRows {
        x: &out.rows,
        width: head_dim,
        largest: BYTES_PARTNER_LARGEST,
        q: &mut out.shorts,
        scales: &mut out.short_scales,
    });
}

/// What of `x` is positive, then what is negative: against maxima, then minima, their product is
/// the most that `x` can score.
fn split_signs<'a>(x: &[f32], halves: &'a mut [f32]) -> &'a [f32] {
    let (positive, negative) = halves.split_at_mut(x.len());
    for ((x, positive), negative) in x.iter().zip(positive).zip(negative) {
        (*positive, *negative) = (x.max(0.0), x.min(0.0));
    }
    halves
}

/// See [`crate::backend::Backend::vote_by_segments`].
pub fn vote_by_segments(
    crew: &Crew,
    buffers: &mut VoteBuffers,
    queries: &LookupQueries,
    index: BlocksView<'_>,
    votes: &mut [f32],
) {
    let n_units = votes.len() / queries.n_sets;
    let padded = score_units(crew, &mut buffers.scores, queries, (index, n_units));
    let (scores, n_rows) = (&buffers.scores, queries.n_rows);
    cast_votes(crew, queries, &mut buffers.head_votes, votes, &|kv_head, row, out| {
        out.copy_from_slice(&scores[(kv_head * n_rows + row) * padded..][..out.len()]);
    });
}

/// Scores `[kv_head][row][unit]` of `n_units` units by their best segments; returns the length of a
/// row of `scores`, which is only as long as it has to be.
fn score_units(
    crew: &Crew,
    scores: &mut Vec<f32>,
    queries: &LookupQueries,
    (index, n_units): (BlocksView<'_>, usize),
) -> usize {
    let n_rows = queries.n_rows;
    let n_kv_heads = queries.scales.len() / n_rows;
    let width = queries.bytes.len() / queries.scales.len();
    let padded = n_units.next_multiple_of(UNITS);
    if padded == 0 {
        return 0;
    }
    let needed = n_kv_heads * n_rows * padded;
    if scores.len() < needed {
        scores.resize(needed, 0.0);
    }
    let cells = &mut scores[..needed];
    let mut grids = [Grid { cells, cols: padded, row_step: n_rows, col_step: UNITS_A_TASK }];
    crew.pool.run_blocks(&mut grids, &|worker, mut block| {
        let mut scratch = crew.scratch(worker);
        let kv_head = block.rows.start / n_rows;
        let mean_bytes = index.n_segments * UNITS * width;
        let head_bytes = mean_bytes + index.n_segments * UNITS * size_of::<f32>();
        let n_units = block.cols.len();
        let best = &mut scratch.lookup.scores;
        if best.len() < n_rows * n_units {
            best.resize(n_rows * n_units, 0.0);
        }
        let best = &mut best[..n_rows * n_units];
        let blocks = &index.blocks[block.cols.start / UNITS..block.cols.end / UNITS];
        for (i, all_heads) in blocks.iter().enumerate() {
            let head = &all_heads[kv_head * head_bytes..][..head_bytes];
            let (means, scales) = head.split_at(mean_bytes);
            let segments = (kv_head, index.n_segments, means, bytemuck::cast_slice(scales));
            score(crew, queries, segments, (&mut best[i * UNITS..], n_units));
        }
        for (row, scores) in block.rows.clone().zip(best.chunks_exact(n_units)) {
            block.row_mut(row).copy_from_slice(scores);
        }
    });
    padded
}

/// Scores `[row][stride]` of the units of some blocks for the rows of a KV head.
fn score(
    crew: &Crew,
    queries: &LookupQueries,
    (kv_head, n_segments, means, scales): (usize, usize, &[u8], &[f32]),
    (best, best_stride): (&mut [f32], usize),
) {
    let n_rows = queries.n_rows;
    let width = queries.bytes.len() / queries.scales.len();
    let rows = kv_head * n_rows..(kv_head + 1) * n_rows;
    crew.isa.run(ScoreSegments {
        head_dim: width,
        n_segments,
        means,
        scales,
        queries: &queries.bytes[rows.start * width..rows.end * width],
        query_scales: &queries.scales[rows.clone()],
        query_sums: &queries.sums[rows],
        best_stride,
        best,
    });
}

/// The largest of a block's scores.
fn largest(scores: &[f32]) -> f32 {
    let larger = |a: f32, b: &f32| if *b > a { *b } else { a };
    let mut of_lanes = [f32::NEG_INFINITY; 4];
    for four in scores.as_chunks::<4>().0 {
        of_lanes.iter_mut().zip(four).for_each(|(most, score)| *most = larger(*most, score));
    }
    of_lanes.iter().fold(f32::NEG_INFINITY, larger)
}

/// See [`crate::backend::Backend::score_segments`].
pub fn score_segments(
    crew: &Crew,
    buffers: &mut VoteBuffers,
    queries: &LookupQueries,
    (runs, scores): (&[SegmentRun<'_>], &mut Vec<f32>),
) {
    let VoteBuffers { run_ends, first_blocks, .. } = buffers;
    score_runs(crew, scores, queries, (runs, run_ends, first_blocks));
}

/// Scores of each block of all runs, as [`LookupQueries::block_floats`] says; `ends` becomes the end of
/// each run in blocks, and `first_blocks` the first block of each KV head, and of none.
fn score_runs(
    crew: &Crew,
    scores: &mut Vec<f32>,
    queries: &LookupQueries,
    (runs, ends, first_blocks): (&[SegmentRun<'_>], &mut Vec<usize>, &mut Vec<usize>),
) {
    let n_rows = queries.n_rows;
    let n_kv_heads = queries.scales.len() / n_rows;
    first_blocks.clear();
    first_blocks.resize(n_kv_heads + 1, 0);
    ends.clear();
    let mut n_blocks = 0;
    for run in runs {
        n_blocks += run.scales.len() / UNITS;
        ends.push(n_blocks);
        first_blocks[run.kv_head + 1..].fill(n_blocks);
    }
    let cols = queries.block_floats();
    if scores.len() < n_blocks * cols {
        scores.resize(n_blocks * cols, 0.0);
    }
    let cells = &mut scores[..n_blocks * cols];
    let mut grids = [Grid { cells, cols, row_step: BLOCKS_A_TASK, col_step: cols }];
    let ends = &ends[..];
    crew.pool.run_blocks(&mut grids, &|worker, mut cells| {
        let mut scratch = crew.scratch(worker);
        let best = &mut scratch.lookup.scores;
        let mut block = cells.rows.start;
        while block < cells.rows.end {
            let i = ends.partition_point(|end| *end <= block);
            let run = runs[i];
            let first = ends[i] - run.scales.len() / UNITS;
            let here = block - first..ends[i].min(cells.rows.end) - first;
            let n_segments = here.len() * UNITS;
            best.resize(best.len().max(n_rows * n_segments), 0.0);
            let best = &mut best[..n_rows * n_segments];
            let width = run.means.len() / run.scales.len();
            let segments = here.start * UNITS..here.end * UNITS;
            let means = &run.means[segments.start * width..segments.end * width];
            let segments = (run.kv_head, 1, means, &run.scales[segments]);
            score(crew, queries, segments, (&mut *best, n_segments));
            for (n, block) in (first + here.start..first + here.end).enumerate() {
                let (out, most) = cells.row_mut(block).split_at_mut(n_rows * UNITS);
                let rows = out.chunks_exact_mut(UNITS).zip(most);
                for ((out, most), scores) in rows.zip(best.chunks_exact(n_segments)) {
                    out.copy_from_slice(&scores[n * UNITS..][..UNITS]);
                    *most = largest(out);
                }
            }
            block = first + here.end;
        }
    });
}

/// See [`crate::backend::Backend::vote_by_keys`].
pub fn vote_by_keys(
    crew: &Crew,
    buffers: &mut VoteBuffers,
    queries: &LookupQueries,
    candidates: Candidates<'_>,
    votes: &mut [f32],
) {
    let Candidates { layout, layer, pages: candidates, .. } = candidates;
    let (n_rows, n_kv_heads) = (queries.n_rows, layout.heads.n_kv_heads);
    let n_candidates = candidates.len() / queries.n_sets;
    let needed = n_kv_heads * n_candidates * n_rows;
    if buffers.scores.len() < needed {
        buffers.scores.resize(needed, 0.0);
    }
    let cells = &mut buffers.scores[..needed];
    let mut grids = [Grid { cells, cols: n_rows, row_step: 4, col_step: n_rows }];
    crew.pool.run_blocks(&mut grids, &|worker, mut block| {
        let mut scratch = crew.scratch(worker);
        for row in block.rows.clone() {
            let (kv_head, candidate) = (row / n_candidates, row % n_candidates);
            let width = n_rows * layout.heads.head_dim;
            let rows = kv_head * width..(kv_head + 1) * width;
            let candidates = &candidates[set_of(kv_head, queries.n_sets) * n_candidates..];
            let next = candidates[..n_candidates].get(candidate + 1);
            crew.isa.run(BestKey {
                layout,
                arithmetic: crew.arithmetic,
                page: layout.view(candidates[candidate], layer, kv_head),
                next: next.map_or(&[], |next| &next[layout.keys(layer, kv_head)]),
                queries: &queries.rows[rows.clone()],
                shorts: ShortRows {
                    q: &queries.shorts[rows],
                    scales: &queries.short_scales[kv_head * n_rows..][..n_rows],
                },
                scratch: scratch.lookup.page.of(layout),
                best: block.row_mut(row),
            });
        }
    });
    let scores = &buffers.scores[..needed];
    cast_votes(crew, queries, &mut buffers.head_votes, votes, &|kv_head, row, out| {
        for (candidate, score) in out.iter_mut().enumerate() {
            *score = scores[(kv_head * n_candidates + candidate) * n_rows + row];
        }
    });
}

/// `votes[set][unit]` from the rows that `scores_of(kv_head, row, out)` writes.
fn cast_votes(
    crew: &Crew,
    queries: &LookupQueries,
    head_votes: &mut Vec<f32>,
    votes: &mut [f32],
    scores_of: &(dyn Fn(usize, usize, &mut [f32]) + Sync),
) {
    let n_units = votes.len() / queries.n_sets;
    let group = queries.n_rows / queries.n_token_groups;
    let n_kv_heads = queries.scales.len() / queries.n_rows;
    let n_heads = n_kv_heads * group;
    head_votes.resize(n_heads * n_units, 0.0);
    let mut grids = [Grid { cells: head_votes, cols: n_units, row_step: 1, col_step: n_units }];
    crew.pool.run_blocks(&mut grids, &|worker, mut block| {
        let mut scratch = crew.scratch(worker);
        let scores = &mut scratch.lookup.scores;
        if scores.len() < n_units {
            scores.resize(n_units, 0.0);
        }
        let scores = &mut scores[..n_units];
        let head = block.rows.start;
        let votes = block.row_mut(head);
        votes.fill(f32::NEG_INFINITY);
        for token_group in 0..queries.n_token_groups {
            scores_of(head / group, token_group * group + head % group, scores);
            let factor = match queries.vote {
                Vote::Soft => 1.0 / crew.isa.run(ExpShifted { x: scores }).1,
                Vote::Raw => 1.0,
            };
            crew.isa.run(MaxScaled { out: votes, x: scores, factor });
        }
    });
    votes.fill(0.0);
    for (head, head_votes) in head_votes.chunks_exact(n_units).enumerate() {
        let votes = &mut votes[set_of(head / group, queries.n_sets) * n_units..][..n_units];
        votes.iter_mut().zip(head_votes).for_each(|(vote, share)| *vote += share);
    }
}
