//! How is a model made that nobody has trained? Any shape that a config.json describes, with random
//! weights: for measuring speed, which does not depend on what weights say.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::ops::ControlFlow;
use std::path::Path;

use fastrand::Rng;
use half::bf16;
use serde_json::{Map, Value, json};

use super::arch::Presence;
use super::config::ModelConfig;
use super::error::ModelError;
use super::load::hugging_face::{self, CONFIG_FILE};

/// Weights drawn at once, and said to be done.
const PIECE: usize = 1 << 20;

/// Says how many bytes are written of how many, and whether to go on.
pub type RandomProgressFn<'a> = dyn FnMut(u64, u64) -> ControlFlow<()> + 'a;

/// A tensor to be written.
struct Drawn {
    name: String,
    shape: Vec<usize>,
}

impl Drawn {
    fn n_elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// Writes a folder as Hugging Face does, of the shape that the file `config` describes: config.json
/// and model.safetensors, weights as bf16, the same for the same shape. A layer passes on what
/// comes in at about its size, as a trained one does.
///
/// # Errors
/// When the configuration is not one of a model, the folder cannot be written, or `progress` says
/// to stop ([`ModelError::Stopped`]).
pub fn write_random(
    config: &Path,
    folder: &Path,
    progress: &mut RandomProgressFn<'_>,
) -> Result<ModelConfig, ModelError> {
    let (shape, is_tied) = hugging_face::read_config(config)?;
    let written = |source| ModelError::Write { path: folder.to_owned(), source };
    fs::create_dir_all(folder).map_err(written)?;
    fs::copy(config, folder.join(CONFIG_FILE)).map_err(written)?;
    let file = File::create(folder.join("model.safetensors")).map_err(written)?;
    let done = write_tensors(file, &tensors(&shape, is_tied), progress).map_err(written)?;
    match done {
        ControlFlow::Continue(()) => Ok(shape),
        ControlFlow::Break(()) => Err(ModelError::Stopped { path: folder.to_owned() }),
    }
}

/// The tensors of a model of this shape, in the order in which they are used.
fn tensors(shape: &ModelConfig, is_tied: bool) -> Vec<Drawn> {
    let entry = shape.architecture.entry();
    let names = entry.folder_tensors;
    let (hidden, intermediate) = (shape.hidden_size, shape.intermediate_size);
    let (queries, keys) = (shape.n_heads * shape.head_dim, shape.n_kv_heads * shape.head_dim);
    let mut drawn = Vec::new();
    let mut add = |name: String, shape: &[usize]| {
        drawn.push(Drawn { name, shape: shape.to_vec() });
    };
    add(names.embedding.to_owned(), &[shape.vocab_size, hidden]);
    for layer in 0..shape.n_layers {
        let name = |name: &str| format!("{}{layer}{name}", names.layer);
        add(name(names.attention_norm), &[hidden]);
        let heads = [(&names.query, queries), (&names.key, keys), (&names.value, keys)];
        for (projection, rows) in heads {
            add(name(projection.weight), &[rows, hidden]);
            if entry.attention_biases == Presence::Required {
                add(name(projection.bias), &[rows]);
            }
        }
        if entry.head_norms == Presence::Required {
            add(name(names.query_norm), &[shape.head_dim]);
            add(name(names.key_norm), &[shape.head_dim]);
        }
        add(name(names.attention_output), &[hidden, queries]);
        add(name(names.feed_forward_norm), &[hidden]);
        add(name(names.gate), &[intermediate, hidden]);
        add(name(names.up), &[intermediate, hidden]);
        add(name(names.down), &[hidden, intermediate]);
    }
    add(names.output_norm.to_owned(), &[hidden]);
    if !is_tied {
        add(names.output.to_owned(), &[shape.vocab_size, hidden]);
    }
    drawn
}

fn write_tensors(
    file: File,
    tensors: &[Drawn],
    progress: &mut RandomProgressFn<'_>,
) -> io::Result<ControlFlow<()>> {
    let mut out = BufWriter::with_capacity(1 << 20, file);
    let total = tensors.iter().map(Drawn::n_elements).sum::<usize>() * 2;
    let header = header(tensors).to_string();
    let padded = header.len().next_multiple_of(8);
    out.write_all(&(padded as u64).to_le_bytes())?;
    out.write_all(format!("{header:padded$}").as_bytes())?;
    let mut rng = Rng::with_seed(1);
    let (mut done, mut piece) = (0, Vec::with_capacity(2 * PIECE));
    for tensor in tensors {
        let values = values(tensor);
        let mut left = tensor.n_elements();
        while left > 0 {
            let n = left.min(PIECE);
            piece.clear();
            while piece.len() < 2 * n {
                for byte in rng.u64(..).to_le_bytes() {
                    piece.extend_from_slice(&values[usize::from(byte)]);
                }
            }
            out.write_all(&piece[..2 * n])?;
            left -= n;
            done += 2 * n;
            if progress(done as u64, total as u64).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
    }
    out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    Ok(ControlFlow::Continue(()))
}

/// The 256 values that a tensor's elements have, as bytes: ones for norms; for a matrix evenly
/// spread around 0, so that rows of it have length 1 (biases likewise).
fn values(tensor: &Drawn) -> [[u8; 2]; 256] {
    let is_norm = tensor.shape.len() == 1 && !tensor.name.ends_with("bias");
    let largest = (3.0 / tensor.shape[tensor.shape.len() - 1] as f32).sqrt();
    std::array::from_fn(|i| {
        let spread = largest * ((i as f32 + 0.5) / 128.0 - 1.0);
        bf16::from_f32(if is_norm { 1.0 } else { spread }).to_le_bytes()
    })
}

/// What a safetensors file begins with.
fn header(tensors: &[Drawn]) -> Value {
    let mut header = Map::new();
    let mut at = 0;
    for tensor in tensors {
        let end = at + 2 * tensor.n_elements();
        let place = json!({ "dtype": "BF16", "shape": tensor.shape, "data_offsets": [at, end] });
        header.insert(tensor.name.clone(), place);
        at = end;
    }
    Value::Object(header)
}
