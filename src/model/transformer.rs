//! How do tokens become logits? One forward pass, read from top to bottom: a decoder-only
//! transformer with pre-norm attention and SwiGLU. Attention itself is behind the seam.

use std::sync::Arc;

use super::{LayerWeights, Model, ModelConfig, RopeLayout};
use crate::attention::{Attention, AttentionError, Qkv, Rotary};
use crate::backend::{
    AttendStep, Backend, BackendError, HeadShape, Norm, PageTarget, Projection, RowDraw, StepDone,
    Write, emptied,
};
use crate::ids::{LayerIdx, TokenId};

/// A model, ready to run on a device.
pub struct Transformer<B: Backend> {
    backend: Arc<B>,
    config: ModelConfig,
    embedding: B::Weight, // [vocab][hidden]
    layers: Vec<Layer<B>>,
    output_norm: B::Buffer, // [hidden]
    output: B::Weight,      // [vocab][hidden]
}

struct Layer<B: Backend> {
    attention_norm: B::Buffer, // [hidden]
    query: Head<B>,
    key: Head<B>,
    value: Head<B>,
    attention_output: B::Weight,  // [hidden][n_heads * head_dim]
    feed_forward_norm: B::Buffer, // [hidden]
    gate: B::Weight,              // [intermediate][hidden]
    up: B::Weight,                // [intermediate][hidden]
    down: B::Weight,              // [hidden][intermediate]
}

/// The projection to queries, keys or values, with what some families add to it.
struct Head<B: Backend> {
    weight: B::Weight,       // [heads * head_dim][hidden]
    bias: Option<B::Buffer>, // [heads * head_dim]
    norm: Option<B::Buffer>, // [head_dim]
}

/// Consecutive tokens of one text, and what they attend to.
pub struct Part<'a, B: Backend> {
    /// The tokens.
    pub tokens: &'a [TokenId],
    /// What the text remembers.
    pub attention: &'a mut dyn Attention<B>,
}

/// Part `part` of a pass could not attend.
#[derive(Debug)]
pub struct FailedPart {
    /// Which one, counted from the first.
    pub part: usize,
    /// Why.
    pub error: AttentionError,
}

/// The buffers of a forward pass of up to `max_tokens` tokens, made once.
pub struct Workspace<B: Backend> {
    max_tokens: usize,
    tokens: Vec<TokenId>,
    hidden: B::Buffer,   // [token][hidden]: the residual stream
    normed: B::Buffer,   // [token][hidden]
    queries: B::Buffer,  // [token][n_heads * head_dim]
    keys: B::Buffer,     // [token][n_kv_heads * head_dim]
    values: B::Buffer,   // [token][n_kv_heads * head_dim]
    attended: B::Buffer, // [token][n_heads * head_dim]
    gate: B::Buffer,     // [token][intermediate]
    up: B::Buffer,       // [token][intermediate]
    logits: B::Buffer,   // [up to LOGIT_ROWS][vocab]
    steps: StepLists<B>,
}

/// Lists of a layer's steps; empty between layers: allocations to use again.
struct StepLists<B: Backend> {
    targets: Vec<PageTarget<'static, B::Page>>,
    steps: Vec<AttendStep<'static, B::Page>>,
    have_steps: Vec<bool>, // [part]
    done: Vec<StepDone<B::Page>>,
}

/// Rows of logits computed at once: they are wide (49,152 floats for the default model).
pub const LOGIT_ROWS: usize = 32;

impl<B: Backend> Transformer<B> {
    /// Makes a model's weights ready on `backend`.
    ///
    /// # Errors
    /// When the device has no room for them.
    pub fn new(backend: Arc<B>, model: &Model) -> Result<Self, BackendError> {
        let weights = &model.weights;
        let layer = |layer| Layer::new(&*backend, layer);
        let layers = weights.layers.iter().map(layer).collect::<Result<_, _>>()?;
        Ok(Self {
            config: model.config.clone(),
            embedding: backend.prepare(&weights.embedding)?,
            layers,
            output_norm: backend.upload(&weights.output_norm)?,
            output: backend.prepare(&weights.output)?,
            backend,
        })
    }

    /// The model's shape.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The device it runs on.
    pub fn backend(&self) -> &Arc<B> {
        &self.backend
    }

    /// Sizes of the attention heads.
    pub fn heads(&self) -> HeadShape {
        self.config.heads()
    }

    /// The rotation of the heads.
    pub fn rotary(&self) -> Rotary {
        Rotary::new(&self.config.rope.inverse_frequencies, self.config.rope.magnitude)
    }

    /// Buffers for chunks of up to `max_tokens` tokens.
    ///
    /// # Errors
    /// When the device has no room for them.
    pub fn workspace(&self, max_tokens: usize) -> Result<Workspace<B>, BackendError> {
        let config = &self.config;
        let buffer = |width: usize| self.backend.buffer(max_tokens * width);
        Ok(Workspace {
            max_tokens,
            tokens: Vec::with_capacity(max_tokens),
            hidden: buffer(config.hidden_size)?,
            normed: buffer(config.hidden_size)?,
            queries: buffer(config.n_heads * config.head_dim)?,
            keys: buffer(config.n_kv_heads * config.head_dim)?,
            values: buffer(config.n_kv_heads * config.head_dim)?,
            attended: buffer(config.n_heads * config.head_dim)?,
            gate: buffer(config.intermediate_size)?,
            up: buffer(config.intermediate_size)?,
            logits: self.backend.buffer(LOGIT_ROWS.min(max_tokens) * config.vocab_size)?,
            steps: StepLists {
                targets: Vec::new(),
                steps: Vec::new(),
                have_steps: Vec::new(),
                done: Vec::new(),
            },
        })
    }

    /// Runs a chunk of consecutive tokens through all layers; the residual stream stays in
    /// `workspace` for [`logits`](Self::logits).
    ///
    /// # Errors
    /// When attention cannot read what it remembers.
    ///
    /// # Panics
    /// When the chunk is longer than the workspace, or a token is not of the vocabulary.
    pub fn forward(
        &self,
        tokens: &[TokenId],
        attention: &mut dyn Attention<B>,
        workspace: &mut Workspace<B>,
    ) -> Result<(), AttentionError> {
        let passed = self.forward_parts(&mut [Part { tokens, attention }], workspace);
        passed.map_err(|failed| failed.error)
    }

    /// Runs chunks of several texts through all layers at once, without padding: weights are read
    /// once for all of them, and each attends to its own past. The residual stream has the parts'
    /// rows one after another.
    ///
    /// # Errors
    /// When the attention of a part cannot read what it remembers: which part. The pass is not at
    /// its end then for any of them.
    ///
    /// # Panics
    /// When the chunks together are longer than the workspace, or a token is not of the vocabulary.
    pub fn forward_parts(
        &self,
        parts: &mut [Part<'_, B>],
        workspace: &mut Workspace<B>,
    ) -> Result<(), FailedPart> {
        let mut tokens = std::mem::take(&mut workspace.tokens);
        tokens.clear();
        parts.iter().for_each(|part| tokens.extend(part.tokens));
        assert!(tokens.len() <= workspace.max_tokens, "a chunk longer than its workspace");
        let (vocab, n_tokens) = (self.config.vocab_size, tokens.len());
        assert!(tokens.iter().all(|token| (token.0 as usize) < vocab), "a token out of range");
        self.backend.begin_pass();
        self.backend.embed(&self.embedding, &tokens, &mut workspace.hidden);
        workspace.tokens = tokens;
        for (i, layer) in self.layers.iter().enumerate() {
            self.backend.expect(&layer.attention_output);
            self.project_heads(layer, n_tokens, workspace);
            attend(&*self.backend, parts, LayerIdx(i), workspace)?;
            self.backend.expect(&layer.gate);
            self.add_projection(
                &layer.attention_output,
                &workspace.attended,
                n_tokens,
                &mut workspace.hidden,
            );
            let next = self.layers.get(i + 1);
            let next = next.map_or(&self.output, |layer| &layer.query.weight);
            self.feed_forward(layer, next, n_tokens, workspace);
        }
        Ok(())
    }

    /// Logits of tokens `rows` of the last chunk (at most [`LOGIT_ROWS`]), `[row][vocab]`.
    ///
    /// # Errors
    /// When the device has failed, in this or before.
    ///
    /// # Panics
    /// When `out` is not `rows * vocab` long or the rows are too many.
    pub fn logits(
        &self,
        rows: std::ops::Range<usize>,
        workspace: &mut Workspace<B>,
        out: &mut [f32],
    ) -> Result<(), BackendError> {
        assert_eq!(out.len(), rows.len() * self.config.vocab_size, "a logit for each token");
        self.project_logits(rows, workspace);
        self.backend.download((&workspace.logits, 0), out);
        self.backend.check()
    }

    /// `logits = output(norm(hidden))` of some rows.
    fn project_logits(&self, rows: std::ops::Range<usize>, workspace: &mut Workspace<B>) {
        let n_rows = rows.len();
        let norm = self.norm(&self.output_norm, rows);
        self.backend.rms_norm(&workspace.hidden, norm, &mut workspace.normed);
        if let Some(layer) = self.layers.first() {
            self.backend.expect(&layer.query.weight); // of the next token
        }
        self.backend.project(
            &workspace.normed,
            n_rows,
            &mut [Projection { weight: &self.output, out: &mut workspace.logits }],
            Write::Set,
        );
    }

    /// Computes the logits of any tokens of the last chunk, in their order (at most [`LOGIT_ROWS`]), for
    /// [`draw`](Self::draw) and [`read_logits`](Self::read_logits). Their residual stream moves to the
    /// front of `workspace`: rows before the last of them cannot be had after.
    ///
    /// # Panics
    /// When `rows` do not ascend, or are too many.
    pub fn compute_logits(&self, rows: &[usize], workspace: &mut Workspace<B>) {
        assert!(rows.is_sorted_by(|a, b| a < b), "rows in their order");
        let Workspace { hidden, normed, .. } = workspace;
        let width = self.config.hidden_size;
        for (i, row) in rows.iter().enumerate().filter(|(i, row)| i != *row) {
            self.backend.copy_rows((hidden, *row..row + 1), (normed, 0), width);
            self.backend.copy_rows((normed, 0..1), (hidden, i), width);
        }
        self.project_logits(0..rows.len(), workspace);
    }

    /// Tokens drawn from rows of the logits computed last, which edits change, where the device draws.
    ///
    /// # Errors
    /// When the device has failed, in this or before.
    pub fn draw(
        &self,
        draws: &[RowDraw<'_>],
        workspace: &mut Workspace<B>,
    ) -> Result<Option<Vec<TokenId>>, BackendError> {
        if draws.is_empty() {
            return Ok(None);
        }
        let mut tokens = Vec::new();
        let logits = (&mut workspace.logits, self.config.vocab_size);
        let was_done = self.backend.draw(logits, draws, &mut tokens);
        self.backend.check()?;
        Ok(was_done.then_some(tokens))
    }

    /// Copies row `row`, `[vocab]`, of the logits computed last. Whether that was done,
    /// [`Backend::check`] says.
    pub fn read_logits(&self, row: usize, workspace: &Workspace<B>, out: &mut [f32]) {
        self.backend.download((&workspace.logits, row * self.config.vocab_size), out);
    }

    /// `queries, keys, values = heads(norm(hidden))`
    fn project_heads(&self, layer: &Layer<B>, n_tokens: usize, workspace: &mut Workspace<B>) {
        let norm = self.norm(&layer.attention_norm, 0..n_tokens);
        self.backend.rms_norm(&workspace.hidden, norm, &mut workspace.normed);
        self.backend.project(
            &workspace.normed,
            n_tokens,
            &mut [
                Projection { weight: &layer.query.weight, out: &mut workspace.queries },
                Projection { weight: &layer.key.weight, out: &mut workspace.keys },
                Projection { weight: &layer.value.weight, out: &mut workspace.values },
            ],
            Write::Set,
        );
        let (n_heads, n_kv_heads) = (self.config.n_heads, self.config.n_kv_heads);
        self.finish_heads(&layer.query, &mut workspace.queries, n_tokens * n_heads, n_tokens);
        self.finish_heads(&layer.key, &mut workspace.keys, n_tokens * n_kv_heads, n_tokens);
        if let Some(bias) = &layer.value.bias {
            self.backend.add_bias(&mut workspace.values, bias, n_tokens);
        }
    }

    /// Bias, norm and order of pairs, where the family has them.
    fn finish_heads(&self, head: &Head<B>, x: &mut B::Buffer, n_heads: usize, n_tokens: usize) {
        if let Some(bias) = &head.bias {
            self.backend.add_bias(x, bias, n_tokens);
        }
        if let Some(gain) = &head.norm {
            self.backend.norm_heads(x, self.norm(gain, 0..n_heads));
        }
        if self.config.rope.layout == RopeLayout::Interleaved {
            self.backend.split_pairs(x, n_heads, self.heads());
        }
    }

    /// `hidden += down(silu(gate(norm(hidden))) * up(norm(hidden)))`
    fn feed_forward(
        &self,
        layer: &Layer<B>,
        next: &B::Weight,
        n_tokens: usize,
        workspace: &mut Workspace<B>,
    ) {
        self.backend.expect(&layer.down);
        let norm = self.norm(&layer.feed_forward_norm, 0..n_tokens);
        self.backend.rms_norm(&workspace.hidden, norm, &mut workspace.normed);
        self.backend.project(
            &workspace.normed,
            n_tokens,
            &mut [
                Projection { weight: &layer.gate, out: &mut workspace.gate },
                Projection { weight: &layer.up, out: &mut workspace.up },
            ],
            Write::Set,
        );
        let len = n_tokens * self.config.intermediate_size;
        self.backend.swiglu(&mut workspace.gate, &workspace.up, len);
        self.backend.expect(next);
        self.add_projection(&layer.down, &workspace.gate, n_tokens, &mut workspace.hidden);
    }

    fn add_projection(
        &self,
        weight: &B::Weight,
        input: &B::Buffer,
        n_tokens: usize,
        out: &mut B::Buffer,
    ) {
        self.backend.project(input, n_tokens, &mut [Projection { weight, out }], Write::Add);
    }

    fn norm<'a>(&self, gain: &'a B::Buffer, rows: std::ops::Range<usize>) -> Norm<'a, B> {
        Norm { gain, epsilon: self.config.rms_epsilon, rows }
    }
}

/// Each part attends to its own past, all of them at once.
fn attend<B: Backend>(
    backend: &B,
    parts: &mut [Part<'_, B>],
    layer: LayerIdx,
    workspace: &mut Workspace<B>,
) -> Result<(), FailedPart> {
    let Workspace { queries, keys, values, attended, steps: lists, .. } = workspace;
    let (queries, keys, values) = (&*queries, &*keys, &*values);
    let chunk = |first: usize, tokens: &[TokenId]| Qkv {
        queries,
        keys,
        values,
        rows: first..first + tokens.len(),
    };
    let StepLists { targets, steps: room, have_steps, done } = lists;
    let mut written = emptied(std::mem::take(targets));
    let mut first = 0;
    for Part { tokens, attention } in parts.iter_mut() {
        attention.targets(layer, &chunk(first, tokens), &mut written);
        first += tokens.len();
    }
    backend.write_pages(&mut written, keys, values);
    *targets = emptied(written);
    let mut steps = emptied(std::mem::take(room));
    have_steps.clear();
    let mut first = 0;
    for (part, Part { tokens, attention }) in parts.iter_mut().enumerate() {
        let begun = attention.begin_layer(layer, &chunk(first, tokens), attended);
        let step = begun.map_err(|error| FailedPart { part, error })?;
        have_steps.push(step.is_some());
        steps.extend(step);
        first += tokens.len();
    }
    backend.attend(&mut steps, queries, attended);
    done.extend(steps.drain(..).map(AttendStep::done));
    *room = emptied(steps);
    let mut done = done.drain(..);
    let mut first = 0;
    for (part, (Part { tokens, attention }, has_step)) in
        parts.iter_mut().zip(&*have_steps).enumerate()
    {
        let done = has_step.then(|| done.next()).flatten();
        let ended = attention.end_layer(layer, &chunk(first, tokens), done);
        ended.map_err(|error| FailedPart { part, error })?;
        first += tokens.len();
    }
    Ok(())
}

impl<B: Backend> Layer<B> {
    fn new(backend: &B, weights: &LayerWeights) -> Result<Self, BackendError> {
        let vector = |x: &Option<Vec<f32>>| x.as_deref().map(|x| backend.upload(x)).transpose();
        Ok(Self {
            attention_norm: backend.upload(&weights.attention_norm)?,
            query: Head {
                weight: backend.prepare(&weights.query)?,
                bias: vector(&weights.query_bias)?,
                norm: vector(&weights.query_norm)?,
            },
            key: Head {
                weight: backend.prepare(&weights.key)?,
                bias: vector(&weights.key_bias)?,
                norm: vector(&weights.key_norm)?,
            },
            value: Head {
                weight: backend.prepare(&weights.value)?,
                bias: vector(&weights.value_bias)?,
                norm: None,
            },
            attention_output: backend.prepare(&weights.attention_output)?,
            feed_forward_norm: backend.upload(&weights.feed_forward_norm)?,
            gate: backend.prepare(&weights.gate)?,
            up: backend.prepare(&weights.up)?,
            down: backend.prepare(&weights.down)?,
        })
    }
}
