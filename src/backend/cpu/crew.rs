//! Who computes, and with what? The pool, the instruction set, and scratch for each worker: made
//! once and grown as needed, so that a step allocates nothing.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::pool::{ThreadPool, Worker};
use super::simd::Isa;
use super::simd::attend::{Arithmetic, Scratch};
use super::simd::multiply::MultiplyScratch;
use super::simd::softmax::RowState;
use crate::backend::PageLayout;

/// The threads and what they work with.
pub struct Crew {
    /// Instruction set.
    pub isa: Isa,
    /// Numbers that attention is computed in.
    pub arithmetic: Arithmetic,
    /// Threads.
    pub pool: ThreadPool,
    scratch: Vec<Mutex<WorkerScratch>>, // one a worker
}

impl Crew {
    /// A crew of `n_threads`, the caller's included.
    pub fn new(isa: Isa, arithmetic: Arithmetic, n_threads: usize) -> Self {
        let pool = ThreadPool::new(n_threads);
        let scratch = (0..pool.n_threads()).map(|_| Mutex::default()).collect();
        Self { isa, arithmetic, pool, scratch }
    }

    /// The scratch of `worker`; uncontended, since no two tasks at a time have the same worker.
    pub fn scratch(&self, worker: Worker) -> MutexGuard<'_, WorkerScratch> {
        self.scratch[worker.0].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one thread needs while it works on a task.
#[derive(Debug, Default)]
pub struct WorkerScratch {
    /// For products.
    pub project: ProjectScratch,
    /// For attention.
    pub attention: AttentionScratch,
    /// For lookups.
    pub lookup: LookupScratch,
}

/// What a worker needs beside inputs and outputs.
#[derive(Debug, Default)]
pub struct ProjectScratch {
    pub multiply: MultiplyScratch,
    pub row: Vec<f32>,        // [cols]
    pub wide_panel: Vec<f32>, // [cols][WIDE_PANEL_ROWS]
    pub out: Vec<f32>,        // [token][rows of the task]
}

/// What a worker needs for attention.
#[derive(Debug, Default)]
pub struct AttentionScratch {
    pub page: PageScratch,
    pub near: Vec<f32>,        // [row][head_dim]
    pub far: Vec<f32>,         // [row][head_dim]
    pub out: Vec<f32>,         // [row][head_dim]
    pub states: Vec<RowState>, // [row]
}

/// What a worker needs for lookup.
#[derive(Debug, Default)]
pub struct LookupScratch {
    pub page: PageScratch,
    pub scores: Vec<f32>, // [row][unit of the task], or [unit]
}

/// Widened pages, made anew only when the layout changes.
#[derive(Debug, Default)]
pub struct PageScratch(Option<(PageLayout, Scratch)>);

impl PageScratch {
    /// Scratch for pages of `layout`.
    pub fn of(&mut self, layout: PageLayout) -> &mut Scratch {
        if self.0.as_ref().is_none_or(|(made_for, _)| *made_for != layout) {
            self.0 = Some((layout, Scratch::new(layout)));
        }
        &mut self.0.as_mut().expect("because it was made above").1
    }
}
