//! Launchers of `cuda/draw.cu`: tokens are drawn where their logits are.

use bytemuck::{Pod, Zeroable};

use crate::device::{Array, Device, DevicePointer, grid_size};
use crate::error::DeviceError;
use crate::launch::{Kernel, fill, launch, room, size};
use crate::naive::Draw;
use crate::source::ProgramSource;

const THREADS: usize = 512;
const EDIT_THREADS: usize = 256;

/// Shares of as many tokens are added up in 32 bits.
const MOST_TOKENS: usize = 500_000;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct DrawSettings {
    factor: f32,
    min_p: f32,
    top_k: u32,
    top_p: u32,
    random: u32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct DrawParams {
    logits: DevicePointer,
    settings: DevicePointer,
    rows: DevicePointer,
    tokens: DevicePointer,
    vocab: u32,
    padding: u32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct EditParams {
    logits: DevicePointer,
    edits: DevicePointer,
    n: u64,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct EditOfPlace {
    at: u64,
    by: f32,
    padding: u32,
}

/// What is added to one logit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LogitEdit {
    /// Row of the logits.
    pub row: usize,
    /// Token of the row.
    pub token: usize,
    /// What is added.
    pub by: f32,
}

/// The kernels that draw, compiled when they are first used, and their buffers.
pub struct DrawKernels<D: Device> {
    program: Option<D::Program>,
    settings: Option<Array<D, DrawSettings>>,
    rows: Option<Array<D, u32>>,
    tokens: Option<Array<D, u32>>,
    edits: Option<Array<D, EditOfPlace>>,
}

impl<D: Device> Default for DrawKernels<D> {
    fn default() -> Self {
        Self { program: None, settings: None, rows: None, tokens: None, edits: None }
    }
}

impl<D: Device> DrawKernels<D> {
    /// Whether tokens of so large a vocabulary can be drawn.
    pub fn can_draw(vocab: usize) -> bool {
        vocab <= MOST_TOKENS
    }

    /// Adds to some of the logits `[row][vocab]`.
    ///
    /// # Errors
    /// When edits are not in the order of their places, or one is of a place that there is not, or the
    /// device fails.
    pub fn edit(
        &mut self,
        device: &D,
        (logits, vocab): (&mut Array<D, f32>, usize),
        edits: &[LogitEdit],
    ) -> Result<(), DeviceError> {
        let places = edits.iter().map(|edit| {
            let at = (edit.row * vocab + edit.token) as u64;
            EditOfPlace { at, by: edit.by, padding: 0 }
        });
        let places: Vec<_> = places.collect();
        let stray = edits.iter().find(|edit| edit.token >= vocab).map(|edit| edit.token);
        let twice = places.windows(2).find(|two| two[0].at >= two[1].at);
        if let Some(size) = stray.or(twice.map(|two| two[1].at as usize)) {
            let supported = "tokens of the vocabulary, each once and in its order";
            return Err(DeviceError::Unsupported { what: "edits of logits", size, supported });
        }
        let len = places.last().map_or(0, |last| last.at as usize + 1);
        let params = EditParams {
            logits: logits.first(len, "logits to edit")?,
            edits: fill(device, &mut self.edits, &places)?,
            n: places.len() as u64,
        };
        let grid = [grid_size(places.len().div_ceil(EDIT_THREADS))?, 1, 1];
        let kernel = Kernel::new("edit_logits", grid, EDIT_THREADS);
        // SAFETY: the structure above is the kernel's, field by field; edits were just written, each is
        // within the logits, whose length was asked for, and no two are of one place.
        unsafe { launch(device, self.program(device)?, kernel, &params) }
    }

    /// Draws a token from each of some rows of `logits [row][vocab]`, see
    /// [`kept`](crate::naive::kept).
    ///
    /// # Errors
    /// When there is no such row, the vocabulary is too large, or the device fails.
    pub fn draw(
        &mut self,
        device: &D,
        (logits, vocab): (&Array<D, f32>, usize),
        draws: &[(usize, Draw)],
        tokens: &mut Vec<u32>,
    ) -> Result<(), DeviceError> {
        if !Self::can_draw(vocab) {
            let supported = "up to 500,000 tokens";
            return Err(DeviceError::Unsupported { what: "a vocabulary", size: vocab, supported });
        }
        let rows = draws.iter().map(|(row, _)| size("rows of logits", *row));
        let rows = rows.collect::<Result<Vec<_>, _>>()?;
        let n_rows = draws.iter().map(|(row, _)| row + 1).max().unwrap_or(0);
        let settings: Vec<_> = draws.iter().map(|(_, draw)| settings(draw)).collect();
        let params = DrawParams {
            logits: logits.first(n_rows * vocab, "logits")?,
            settings: fill(device, &mut self.settings, &settings)?,
            rows: fill(device, &mut self.rows, &rows)?,
            tokens: room(device, &mut self.tokens, draws.len())?,
            vocab: size("a vocabulary", vocab)?,
            padding: 0,
        };
        let kernel = Kernel::new("draw_tokens", [grid_size(draws.len())?, 1, 1], THREADS);
        // SAFETY: the structures above are those of the kernel, field by field; settings and rows were
        // just written, there is room for a token a block, and logits were asked for up to the last row.
        unsafe { launch(device, self.program(device)?, kernel, &params) }?;
        tokens.clear();
        tokens.resize(draws.len(), 0);
        match &self.tokens {
            Some(drawn) => drawn.read(device, 0, tokens),
            None => Ok(()),
        }
    }

    fn program(&mut self, device: &D) -> Result<&D::Program, DeviceError> {
        let program = match self.program.take() {
            Some(program) => program,
            None => device.program(&ProgramSource::new("draw.cu", &[]))?,
        };
        Ok(self.program.insert(program))
    }
}

fn settings(draw: &Draw) -> DrawSettings {
    const WHOLE: f64 = 4_294_967_296.0; // 2^32
    let factor = std::f32::consts::LOG2_E / draw.temperature;
    let top_k = u32::try_from(draw.top_k).unwrap_or(0); // more than there are: all
    // At least one unit, since 0 is for all: the likeliest stays in any case.
    let top_p = (f64::from(draw.top_p) * WHOLE).clamp(1.0, WHOLE - 1.0) as u32;
    DrawSettings {
        factor: if draw.temperature > 0.0 { factor } else { 0.0 },
        min_p: draw.min_p,
        top_k,
        top_p: if draw.top_p < 1.0 { top_p } else { 0 },
        random: draw.random,
    }
}
