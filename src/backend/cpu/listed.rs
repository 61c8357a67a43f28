//! Which units matter to some queries, where not all are scanned? As `lookup`, over segments in lists.
//!
//! Parts of units (a span, or some of those that are in no list) of one KV head are tasks of their own: each
//! has a table of its units' best scores, `[unit][row]`. Softmax goes over all parts of a KV head; the
//! votes of a part's units are then summed over KV heads.

use std::sync::Mutex;

use super::crew::Crew;
use super::pool::lock;
use super::simd::listed::{ExpOfRows, MostOfRows, RaiseListed, RowQueries, SumOfBest};
use super::simd::segments::UNITS;
use crate::backend::{CoarseVotes, List, ListedSegments, LookupQueries, Vote, set_of};

/// Units of a part that are in no list.
const REST_UNITS: usize = 256;

/// Buffers of one lookup.
#[derive(Debug, Default)]
pub struct ListedBuffers {
    queries: Vec<RowQueries>,     // [kv_head]
    tables: Vec<Mutex<Table>>,    // [part][kv_head]
    votes: Vec<Mutex<PartVotes>>, // [part]
    most: Vec<f32>,               // [kv_head][row]
    factors: Vec<f32>,            // [kv_head][row]
}

/// Scores of a part's units, of one KV head.
#[derive(Debug, Default)]
struct Table {
    units: Vec<u32>,    // of the part, those that any list names
    place_of: Vec<u32>, // [unit of the part]: where among those
    places: Vec<u32>,   // [segment of a list]
    scores: Vec<f32>,   // [unit of `units`][row]
    most: Vec<f32>,     // [row]
    sums: Vec<f32>,     // [row]
}

/// Votes for a part's units.
#[derive(Debug, Default)]
struct PartVotes {
    n_named: Vec<u32>,  // [unit]: by how many KV heads
    votes: Vec<f32>,    // [set][unit]
    of_table: Vec<f32>, // [unit of a table]
    named: Vec<u32>,    // units that any KV head named, counted through the text
    cast: Vec<f32>,     // [set][unit of those]
}

/// Units of a part: the first is unit `first`.
#[derive(Clone, Copy, Debug)]
struct Part {
    first: usize,
    n_units: usize,
}

/// See [`crate::backend::Backend::vote_by_lists`].
pub fn vote_by_lists(
    crew: &Crew,
    buffers: &mut ListedBuffers,
    queries: &LookupQueries,
    lists: ListedSegments<'_>,
    out: &mut CoarseVotes,
) {
    let n_kv_heads = queries.scales.len() / queries.n_rows;
    let n_spans = lists.ends.len() / n_kv_heads;
    let n_parts = n_spans + lists.n_rest.div_ceil(REST_UNITS);
    buffers.prepare(queries, n_parts);
    let ListedBuffers { queries: packed, tables, votes, most, factors } = buffers;
    let tables = &tables[..n_parts * n_kv_heads];
    let n_rows = packed[0].n_rows();
    let part = |part: usize| part_of(lists, n_spans, part);
    crew.pool.run(tables.len(), &|_, task| {
        let (of, kv_head) = (task / n_kv_heads, task % n_kv_heads);
        let mut table = lock(&tables[task]);
        if of < n_spans {
            let start = task.checked_sub(1).map_or(0, |before| lists.ends[before]);
            let here = &lists.lists[start..lists.ends[task]];
            table.raise_listed(crew, &packed[kv_head], (here, lists.span_units));
        } else {
            let first = (of - n_spans) * REST_UNITS;
            table.raise_rest(crew, &packed[kv_head], (lists, kv_head), first);
        }
        table.finish(crew, n_rows);
    });
    combine(tables, (n_kv_heads, n_rows), most, |table| &table.most, f32::max);
    if queries.vote == Vote::Soft {
        crew.pool.run(tables.len(), &|_, task| {
            let most = &most[task % n_kv_heads * n_rows..][..n_rows];
            let Table { scores, sums, .. } = &mut *lock(&tables[task]);
            crew.isa.run(ExpOfRows { table: scores, most, sums });
        });
        combine(tables, (n_kv_heads, n_rows), factors, |table| &table.sums, |a, b| a + b);
        factors.iter_mut().for_each(|sum| *sum = 1.0 / *sum);
    } else {
        factors.clear();
        factors.resize(n_kv_heads * n_rows, 1.0);
    }
    let votes = &votes[..n_parts];
    crew.pool.run(n_parts, &|_, of| {
        let tables = &tables[of * n_kv_heads..][..n_kv_heads];
        lock(&votes[of]).cast(crew, queries, tables, (factors, part(of)));
    });
    gather(queries.n_sets, votes, out);
}

impl ListedBuffers {
    fn prepare(&mut self, queries: &LookupQueries, n_parts: usize) {
        let n_kv_heads = queries.scales.len() / queries.n_rows;
        let width = queries.bytes.len() / queries.scales.len();
        self.queries.resize_with(n_kv_heads, RowQueries::default);
        for (kv_head, packed) in self.queries.iter_mut().enumerate() {
            let rows = kv_head * queries.n_rows..(kv_head + 1) * queries.n_rows;
            let bytes = &queries.bytes[rows.start * width..rows.end * width];
            packed.pack((bytes, &queries.scales[rows.clone()], &queries.sums[rows]));
        }
        let n_tables = self.tables.len().max(n_parts * n_kv_heads);
        self.tables.resize_with(n_tables, Mutex::default);
        self.votes.resize_with(self.votes.len().max(n_parts), Mutex::default);
    }
}

/// Part `part`: a span, or units after them.
fn part_of(lists: ListedSegments<'_>, n_spans: usize, part: usize) -> Part {
    match part.checked_sub(n_spans) {
        None => Part { first: part * lists.span_units, n_units: lists.span_units },
        Some(of_rest) => {
            let first = of_rest * REST_UNITS;
            let n_units = (lists.n_rest - first).min(REST_UNITS);
            Part { first: n_spans * lists.span_units + first, n_units }
        }
    }
}

impl Table {
    /// Scores the units that `lists` name, of a span of `n_units`.
    fn raise_listed(
        &mut self,
        crew: &Crew,
        queries: &RowQueries,
        (lists, n_units): (&[List<'_>], usize),
    ) {
        const UNNAMED: u32 = u32::MAX;
        self.places.clear();
        self.place_of.clear();
        self.place_of.resize(n_units, UNNAMED);
        self.units.clear();
        self.units.resize(n_units + 1, 0);
        let mut n = 0;
        // Whether a unit was named before cannot be foreseen: it is written each time, and counted once.
        for list in lists {
            let Self { place_of, units, places, .. } = self;
            places.extend(list.owners.iter().map(|owner| {
                let place = &mut place_of[*owner as usize];
                let is_new = *place == UNNAMED;
                *place = if is_new { n as u32 } else { *place };
                units[n] = *owner;
                n += usize::from(is_new);
                *place
            }));
        }
        self.units.truncate(n);
        self.clear_scores(self.units.len() * queries.n_rows());
        let mut places = &self.places[..];
        for (i, List { means, scales, .. }) in lists.iter().enumerate() {
            let (here, after) = places.split_at(scales.len());
            places = after;
            let (table, next) =
                (&mut self.scores[..], lists.get(i + 1).map_or(&[][..], |l| l.means));
            crew.isa.run(RaiseListed { queries, means, scales, places: here, table, next });
        }
    }

    /// Scores units that are in no list, from `first` of those on.
    fn raise_rest(
        &mut self,
        crew: &Crew,
        queries: &RowQueries,
        (lists, kv_head): (ListedSegments<'_>, usize),
        first: usize,
    ) {
        let n_units = (lists.n_rest - first).min(REST_UNITS);
        self.units.clear();
        self.units.extend(0..n_units as u32);
        // Units that the last block has no more: their scores count for nobody.
        self.places.clear();
        self.places.extend(0..n_units.next_multiple_of(UNITS) as u32);
        self.clear_scores(self.places.len() * queries.n_rows());
        let n_segments = lists.rest.n_segments;
        let width = queries.bytes.len() / queries.n_rows();
        let mean_bytes = n_segments * UNITS * width;
        let head_bytes = mean_bytes + n_segments * UNITS * size_of::<f32>();
        let blocks = lists.rest.blocks[first / UNITS..].iter();
        for (block, places) in blocks.zip(self.places.chunks_exact(UNITS)) {
            let head = &block[kv_head * head_bytes..][..head_bytes];
            let (means, scales) = head.split_at(mean_bytes);
            let scales: &[f32] = bytemuck::cast_slice(scales);
            let segments = means.chunks_exact(UNITS * width).zip(scales.chunks_exact(UNITS));
            for (means, scales) in segments {
                let (table, next) = (&mut self.scores[..], &[][..]);
                crew.isa.run(RaiseListed { queries, means, scales, places, table, next });
            }
        }
        self.scores.truncate(n_units * queries.n_rows());
    }

    fn clear_scores(&mut self, n: usize) {
        self.scores.clear();
        self.scores.resize(n, f32::NEG_INFINITY);
    }

    /// Finds the best of each row.
    fn finish(&mut self, crew: &Crew, n_rows: usize) {
        self.most.clear();
        self.most.resize(n_rows, f32::NEG_INFINITY);
        crew.isa.run(MostOfRows { table: &self.scores, most: &mut self.most });
        self.sums.resize(n_rows, 0.0);
    }
}

/// Combines what all parts have of each row, `[kv_head][row]`.
fn combine(
    tables: &[Mutex<Table>],
    (n_kv_heads, n_rows): (usize, usize),
    out: &mut Vec<f32>,
    of: impl Fn(&Table) -> &Vec<f32>,
    with: impl Fn(f32, f32) -> f32,
) {
    out.clear();
    out.resize(n_kv_heads * n_rows, 0.0);
    for (task, table) in tables.iter().enumerate() {
        let out = &mut out[task % n_kv_heads * n_rows..][..n_rows];
        let table = lock(table);
        for (out, x) in out.iter_mut().zip(of(&table)) {
            *out = if task < n_kv_heads { *x } else { with(*out, *x) };
        }
    }
}

impl PartVotes {
    /// Adds up a part's votes: of each head the best share that a unit has of any row, in `tables`,
    /// `[kv_head]`. Who does not name a unit scores it below all.
    fn cast(
        &mut self,
        crew: &Crew,
        queries: &LookupQueries,
        tables: &[Mutex<Table>],
        (factors, part): (&[f32], Part),
    ) {
        let group = queries.n_rows / queries.n_token_groups;
        let n_rows = factors.len() / tables.len();
        let Self { n_named, votes, of_table, named, cast } = self;
        n_named.clear();
        n_named.resize(part.n_units, 0);
        votes.clear();
        votes.resize(queries.n_sets * part.n_units, 0.0);
        for (kv_head, table) in tables.iter().enumerate() {
            let Table { units, scores, .. } = &*lock(table);
            let votes = &mut votes[set_of(kv_head, queries.n_sets) * part.n_units..];
            let factors = &factors[kv_head * n_rows..][..n_rows];
            of_table.resize(units.len(), 0.0);
            let (table, n_groups) = (&scores[..], queries.n_token_groups);
            crew.isa.run(SumOfBest { table, factors, n_groups, group, out: of_table });
            for (unit, vote) in units.iter().zip(&*of_table) {
                votes[*unit as usize] += vote;
                n_named[*unit as usize] += 1;
            }
        }
        let first = part.first as u32;
        named.clear();
        named.extend((first..).zip(&*n_named).filter(|(_, n)| **n > 0).map(|(unit, _)| unit));
        let heads_of_set = (tables.len() / queries.n_sets) as u32;
        cast.clear();
        for votes in votes.chunks_exact(part.n_units) {
            cast.extend(named.iter().map(|unit| {
                let unit = (*unit - first) as usize;
                match queries.vote {
                    Vote::Raw if n_named[unit] < heads_of_set => f32::NEG_INFINITY,
                    _ => votes[unit],
                }
            }));
        }
    }
}

/// Puts together what all parts have voted for.
fn gather(n_sets: usize, parts: &[Mutex<PartVotes>], out: &mut CoarseVotes) {
    out.units.clear();
    out.votes.clear();
    parts.iter().for_each(|part| out.units.extend_from_slice(&lock(part).named));
    for set in 0..n_sets {
        for part in parts {
            let PartVotes { named, cast, .. } = &*lock(part);
            out.votes.extend_from_slice(&cast[set * named.len()..][..named.len()]);
        }
    }
}
