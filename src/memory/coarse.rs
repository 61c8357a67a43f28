//! Which units does the coarse stage of a lookup vote for? The index of all units' representatives,
//! behind one trait. The exact index is scanned whole; a clustered one, above a size, in parts:
//! spans of units are clustered into lists, of which those with the nearest centroids are scanned,
//! exactly (as in RetroInfer, arXiv 2505.02922, which has no graph over the centroids).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use memory_store::{InMemoryStore, StoreError, UnitStore};

use super::best::Best;
use super::blocks::{BlockLayout, UNITS};
use super::config::MemoryConfig;
use super::exact::ExactIndex;
use super::graph::Graph;
use super::lists::dot;
use super::span::{Centroids, Span, SpanBlocks};
use super::unit_index::{Unit, UnitIndex};
use crate::backend::{
    Backend, CoarseVotes, List, ListedSegments, LookupQueries, NamedBlocks, PageLayout, SegmentRun,
    emptied,
};

/// What an index is made of: the full blocks of representatives, and the one being filled with the
/// units that it has.
pub struct Blocks<'a> {
    /// Records of [`BlockLayout::block_bytes`].
    pub full: Box<dyn UnitStore>,
    /// The bytes of the open one; irrelevant when it has no unit.
    pub open: (&'a [u8], usize),
}

/// How the representatives that `config` wishes are laid out.
pub fn block_layout(layout: PageLayout, config: &MemoryConfig) -> BlockLayout {
    BlockLayout::new(layout, config.representatives(), config.representatives_per_unit())
}

/// Empty blocks in host memory.
///
/// # Errors
/// Never, for layouts that have heads.
pub fn no_blocks(layout: PageLayout, config: &MemoryConfig) -> Result<Blocks<'static>, StoreError> {
    let full = Box::new(InMemoryStore::new(block_layout(layout, config).block_bytes())?);
    Ok(Blocks { full, open: (&[], 0) })
}

/// An index over `blocks`, as `config` wishes.
///
/// # Errors
/// When there is no memory for a block.
pub fn index<B: Backend>(
    layout: PageLayout,
    config: &MemoryConfig,
    blocks: Blocks<'_>,
) -> Result<Box<dyn UnitIndex<B>>, StoreError> {
    let exact = ExactIndex::new(block_layout(layout, config), blocks.full, blocks.open)?;
    Ok(match Sizes::of(config) {
        Some(sizes) => Box::new(ClusteredIndex::new(exact, sizes)),
        None => Box::new(exact),
    })
}

/// Sizes of a clustered index.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    from_units: usize,
    span_units: usize,
    /// Lists of a span.
    n_lists: usize,
    probes: usize,
    graph_from_lists: usize,
    /// Bytes of spans and graphs.
    max_bytes: usize,
}

impl Sizes {
    /// None where nothing is to be clustered.
    fn of(config: &MemoryConfig) -> Option<Self> {
        let span_units = config.cluster_span_units;
        let span_segments = span_units * config.representatives_per_unit();
        config.clusters().then(|| Self {
            from_units: span_units.max(config.cluster_from_tokens / config.unit_tokens),
            span_units,
            n_lists: span_segments.div_ceil(config.list_segments).max(1),
            probes: config.probed_lists,
            graph_from_lists: config.graph_from_lists,
            max_bytes: config.cluster_bytes,
        })
    }

    /// Whether `n_lists` want graphs, or larger ones than those of `in_graphs`: a quarter is in none.
    fn wants_graphs(&self, n_lists: usize, in_graphs: usize) -> bool {
        n_lists >= self.graph_from_lists && 4 * (n_lists - in_graphs) > n_lists
    }
}

/// The graphs over the centroids of the first spans.
struct Graphs {
    n_lists: usize, // of a layer and KV head
    heads: Vec<Graph>,
}

/// What the background made.
#[derive(Clone)]
struct Made {
    span: Arc<Span>,
    /// Larger ones, where it was time for them.
    graphs: Option<Arc<Graphs>>,
    /// Of lists that are then in no graph.
    later: Arc<Centroids>,
}

/// What the background is to make; `None` when it panicked. Forks wait for the same.
type Making = Arc<OnceLock<Option<Result<Made, StoreError>>>>;

/// Of most units only the lists with the nearest centroids are scanned; the last units, which are not
/// clustered yet, are scanned whole.
///
/// Spans and graphs never change and are shared by forks. Graphs are made anew for a quarter more
/// lists; until then the later centroids are compared one by one.
struct ClusteredIndex {
    sizes: Sizes,
    spans: Vec<Arc<Span>>,
    graphs: Option<Arc<Graphs>>,
    later: Arc<Centroids>, // of lists that are in no graph
    rest: ExactIndex,
    making: Option<Making>,
    gave_up: bool, // a block cannot be read: what is scanned whole says which
    searches: Vec<Mutex<Search>>, // [kv_head][row]
    centroid_scores: Vec<f32>,
    is_chosen: Vec<bool>,           // [kv_head][list]
    runs: Vec<SegmentRun<'static>>, // empty between lookups: an allocation to use again
    lists: Vec<List<'static>>,      // likewise
    ends: Vec<usize>,               // [span][kv_head]
}

/// A row's search for its best lists.
#[derive(Debug, Default)]
struct Search {
    best: Best,
    query: Vec<f32>,
    scaled: Vec<f32>,
}

impl ClusteredIndex {
    fn new(rest: ExactIndex, sizes: Sizes) -> Self {
        Self {
            sizes,
            spans: Vec::new(),
            graphs: None,
            later: Arc::default(),
            rest,
            making: None,
            gave_up: false,
            searches: Vec::new(),
            centroid_scores: Vec::new(),
            is_chosen: Vec::new(),
            runs: Vec::new(),
            lists: Vec::new(),
            ends: Vec::new(),
        }
    }

    /// Bytes of spans and graphs.
    fn cluster_bytes(&self) -> usize {
        let spans = self.spans.iter().map(|span| span.bytes());
        let graphs = self.graphs.iter().flat_map(|graphs| &graphs.heads).map(Graph::bytes);
        spans.chain(graphs).sum::<usize>() + self.later.bytes()
    }

    /// Whether there is room for one more span, and for the larger graphs and centroids that come with it,
    /// beside those that they replace.
    fn has_room(&self) -> bool {
        let one = match self.spans.last() {
            Some(span) => span.bytes(),
            None => Span::most_bytes(self.rest.layout, self.sizes.span_units, self.sizes.n_lists),
        };
        let layout = self.rest.layout;
        let n_lists = (self.spans.len() + 1) * self.sizes.n_lists;
        let in_graphs = self.graphs.as_ref().map_or(0, |graphs| graphs.n_lists);
        let graphs = match self.sizes.wants_graphs(n_lists, in_graphs) {
            true => {
                layout.n_layers * layout.n_kv_heads * Graph::most_bytes(layout.width(), n_lists)
            }
            false => 0,
        };
        let later = Centroids::bytes_of(layout, self.later_spans().len() + 1, self.sizes.n_lists);
        self.cluster_bytes() + one + graphs + later <= self.sizes.max_bytes
    }

    fn take_over(&mut self, made: Option<Result<Made, StoreError>>) {
        let Ok(made) = made.expect("the thread that clusters units has said why not") else {
            self.gave_up = true;
            return;
        };
        self.spans.push(made.span);
        self.graphs = made.graphs.or(self.graphs.take());
        self.later = made.later;
        self.rest.first_block += self.sizes.span_units / UNITS;
        self.rest.blocks.release(self.rest.first_block);
    }

    /// Has the oldest units clustered, when it is time.
    fn cluster_more(&mut self) {
        let from = if self.spans.is_empty() { self.sizes.from_units } else { 0 };
        let sizes = self.sizes;
        let is_time = self.rest.n_units() >= from.max(sizes.span_units);
        if self.making.is_some() || self.gave_up || !is_time || !self.has_room() {
            return;
        }
        // Where blocks cannot be shared the next chunk tries again.
        let Ok(blocks) = self.rest.blocks.fork() else { return };
        let first = self.rest.first_block;
        let here = first..first + sizes.span_units / UNITS;
        let units = SpanBlocks { layout: self.rest.layout, blocks, here };
        let spans = self.spans.clone();
        let in_graphs = self.graphs.as_ref().map_or(0, |graphs| graphs.n_lists);
        let making = Making::default();
        let made = making.clone();
        let make = move || {
            let make = AssertUnwindSafe(|| make(&units, &spans, in_graphs, sizes));
            let _ = made.set(catch_unwind(make).ok()); // nobody else sets it
        };
        let thread = std::thread::Builder::new().name("mneme index".to_owned()).spawn(make);
        // Without a thread all is scanned, which finds no less; the next chunk tries again.
        self.making = thread.is_ok().then_some(making);
    }

    /// Scores the centroids of the lists that are in no graph, block by block, of all KV heads.
    /// Returns the bytes read.
    fn score_centroids<B: Backend>(
        &mut self,
        backend: &B,
        queries: &LookupQueries,
        layer: usize,
    ) -> u64 {
        let n_kv_heads = self.rest.layout.n_kv_heads;
        let mut runs = emptied(std::mem::take(&mut self.runs));
        let mut scores = std::mem::take(&mut self.centroid_scores);
        let later = self.later.clone();
        runs.extend((0..n_kv_heads).map(|kv_head| {
            let (means, scales) = later.of_head(layer * n_kv_heads + kv_head);
            SegmentRun { kv_head, means, scales }
        }));
        backend.score_segments(queries, &runs, &mut scores);
        let bytes = runs.iter().map(|run| run.means.len() + size_of_val(run.scales));
        let bytes = bytes.sum::<usize>() as u64;
        self.runs = emptied(runs);
        self.centroid_scores = scores;
        bytes
    }

    /// Lists that are in graphs.
    fn n_in_graphs(&self) -> usize {
        self.graphs.as_ref().map_or(0, |graphs| graphs.n_lists)
    }

    /// Spans whose lists are in no graph.
    fn later_spans(&self) -> &[Arc<Span>] {
        &self.spans[self.n_in_graphs() / self.sizes.n_lists..]
    }

    /// Which lists of each KV head any query row scores among its best, into `is_chosen`.
    fn choose_lists<B: Backend>(&mut self, backend: &B, queries: &LookupQueries, layer: usize) {
        let n_kv_heads = self.rest.layout.n_kv_heads;
        let n = n_kv_heads * queries.n_rows;
        self.searches.resize_with(n.max(self.searches.len()), Mutex::default);
        let search = |i: usize| {
            let (kv_head, row) = (i / queries.n_rows, i % queries.n_rows);
            self.search(queries, (layer, kv_head, row), &mut lock(&self.searches[i]));
        };
        backend.share_out(n, &search);
        let n_lists = self.spans.len() * self.sizes.n_lists;
        self.is_chosen.clear();
        self.is_chosen.resize(n_kv_heads * n_lists, false);
        for (i, search) in self.searches[..n].iter().enumerate() {
            let is_chosen = &mut self.is_chosen[i / queries.n_rows * n_lists..][..n_lists];
            lock(search).best.lists().for_each(|list| is_chosen[list as usize] = true);
        }
    }

    /// The lists that a row scores best.
    fn search(
        &self,
        queries: &LookupQueries,
        (layer, kv_head, row): (usize, usize, usize),
        search: &mut Search,
    ) {
        let width = queries.bytes.len() / queries.scales.len();
        let (n_lists, n_rows) = (self.sizes.n_lists, queries.n_rows);
        let (in_graph, n_later) = (self.n_in_graphs(), self.later_spans().len());
        let Search { best, query, scaled } = search;
        let block_floats = queries.block_floats();
        let span_floats = n_lists.div_ceil(UNITS) * block_floats;
        let scores = &self.centroid_scores[kv_head * n_later * span_floats..];
        best.clear(self.sizes.probes);
        for (span, scores) in scores.chunks_exact(span_floats).take(n_later).enumerate() {
            let first = (in_graph + span * n_lists) as u32;
            for (block, scores) in scores.chunks_exact(block_floats).enumerate() {
                if best.is_beyond(scores[n_rows * UNITS + row]) {
                    continue; // as most
                }
                let there = (n_lists - block * UNITS).min(UNITS);
                best.offer(first + (block * UNITS) as u32, &scores[row * UNITS..][..there]);
            }
        }
        if let Some(graphs) = &self.graphs {
            let head = layer * self.rest.layout.n_kv_heads + kv_head;
            let q = &queries.bytes[(kv_head * n_rows + row) * width..][..width];
            let scale = queries.scales[kv_head * n_rows + row];
            query.clear();
            query.extend(q.iter().map(|q| f32::from(*q) * scale));
            // The search scales the query; its products are compared with those of before.
            scaled.clone_from(query);
            graphs.heads[head].search(scaled, self.sizes.probes, |list| {
                let centroids = self.spans[list / n_lists].centroids(head);
                let centroid = &centroids[list % n_lists * width..][..width];
                best.offer(list as u32, &[dot(query, centroid)]);
            });
        }
    }
}

/// Uncontended: each row has its own.
fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Clusters `units`, and makes larger graphs where it is time.
fn make(
    units: &SpanBlocks,
    spans: &[Arc<Span>],
    in_graphs: usize,
    sizes: Sizes,
) -> Result<Made, StoreError> {
    let span = units.cluster(sizes.n_lists)?;
    let n_lists = (spans.len() + 1) * sizes.n_lists;
    let width = units.layout.width();
    let graphs = sizes.wants_graphs(n_lists, in_graphs).then(|| {
        let graph = |head: usize| {
            let all = spans.iter().map(|span| &**span).chain([&span]);
            Graph::new(width, all.flat_map(|span| span.centroids(head).chunks_exact(width)))
        };
        Graphs { n_lists, heads: (0..span.n_heads()).map(graph).collect() }
    });
    let all: Vec<Arc<Span>> = spans.iter().cloned().chain([Arc::new(span)]).collect();
    let in_graphs = graphs.as_ref().map_or(in_graphs, |graphs| graphs.n_lists);
    let later = Arc::new(Centroids::of(&all[in_graphs / sizes.n_lists..]));
    let span = all.last().cloned().expect("because it was put there");
    Ok(Made { span, graphs: graphs.map(Arc::new), later })
}

impl<B: Backend> UnitIndex<B> for ClusteredIndex {
    fn push(&mut self, unit: Unit<'_>, scratch: (&[f32], &mut [f32])) -> Result<(), StoreError> {
        self.rest.add(unit, scratch)
    }

    fn catch_up(&mut self) {
        self.rest.blocks.catch_up();
        if let Some(made) = self.making.as_ref().and_then(|making| making.get()).cloned() {
            self.making = None;
            self.take_over(made);
        }
    }

    fn make_more(&mut self) {
        self.cluster_more();
    }

    fn settle(&mut self) {
        self.cluster_more();
        while let Some(making) = self.making.take() {
            self.take_over(making.wait().clone());
            self.cluster_more();
        }
    }

    fn vote(
        &mut self,
        backend: &B,
        queries: &LookupQueries,
        layer: usize,
        votes: &mut CoarseVotes,
    ) -> Result<u64, StoreError> {
        if self.spans.is_empty() {
            return self.rest.vote(backend, queries, layer, votes);
        }
        let n_kv_heads = self.rest.layout.n_kv_heads;
        let mut bytes = self.score_centroids(backend, queries, layer);
        self.choose_lists(backend, queries, layer);
        let spans = self.spans.clone();
        let mut lists = emptied(std::mem::take(&mut self.lists));
        self.ends.clear();
        let n_lists = self.sizes.n_lists;
        for (i, span) in spans.iter().enumerate() {
            for kv_head in 0..n_kv_heads {
                let of_head = span.lists(layer * n_kv_heads + kv_head);
                let is_chosen = &self.is_chosen[(kv_head * spans.len() + i) * n_lists..][..n_lists];
                let chosen = is_chosen.iter().enumerate().filter(|(_, chosen)| **chosen);
                lists.extend(chosen.map(|(list, _)| of_head.list(list)));
                self.ends.push(lists.len());
            }
        }
        let size = |list: &List<'_>| {
            list.means.len() + size_of_val(list.scales) + size_of_val(list.owners)
        };
        bytes += lists.iter().map(size).sum::<usize>() as u64;
        let (n_rest, span_units) = (self.rest.n_units(), self.sizes.span_units);
        let (lists_now, ends) = (&lists[..], &self.ends[..]);
        bytes += self.rest.view(layer, |rest| {
            let listed = ListedSegments { lists: lists_now, ends, span_units, rest, n_rest };
            backend.vote_by_lists(queries, listed, votes);
        })?;
        self.lists = emptied(lists);
        Ok(bytes)
    }

    fn with_named(
        &mut self,
        of: (usize, PageLayout),
        run: &mut dyn FnMut(NamedBlocks<'_>),
    ) -> Result<bool, StoreError> {
        match self.spans.is_empty() {
            true => UnitIndex::<B>::with_named(&mut self.rest, of, run),
            false => Ok(false),
        }
    }

    fn bytes(&self) -> usize {
        self.cluster_bytes() + self.rest.size()
    }

    fn open_block(&self) -> (&[u8], usize) {
        self.rest.open()
    }

    fn n_blocks(&self) -> usize {
        self.rest.blocks.len()
    }

    fn share_blocks(&self) -> Result<Box<dyn UnitStore>, StoreError> {
        self.rest.blocks.fork()
    }

    fn into_blocks(self: Box<Self>) -> Box<dyn UnitStore> {
        self.rest.blocks
    }

    fn fork(&self) -> Result<Box<dyn UnitIndex<B>>, StoreError> {
        Ok(Box::new(Self {
            spans: self.spans.clone(),
            graphs: self.graphs.clone(),
            later: self.later.clone(),
            making: self.making.clone(),
            gave_up: self.gave_up,
            ..Self::new(self.rest.try_clone()?, self.sizes)
        }))
    }
}
