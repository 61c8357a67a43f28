//! What does the header of a GGUF file say? Metadata, and where each tensor lies. Works on bytes
//! alone, so that anything can be thrown at it; trusts no number before it is checked, and
//! allocates in proportion to the bytes it has seen, never to a count that it read.
//!
//! ```text
//! "GGUF" version:u32 n_tensors:u64 n_keys:u64
//!   n_keys    x (key:string type:u32 value)
//!   n_tensors x (name:string n_axes:u32 axis:u64 x n_axes type:u32 offset:u64)
//! padding to the alignment, then the tensors; offsets count from here
//! ```

use std::ops::Range;

use super::cursor::Cursor;
use super::error::GgufFault;
use super::value::{Kind, Value};
use crate::tensor::dtype::DType;

const ALIGNMENT_KEY: &str = "general.alignment";
const DEFAULT_ALIGNMENT: u64 = 32;
/// The format's limit.
const KEY_BYTES_MAX: u64 = (1 << 16) - 1;
/// GGML's own limit is 64; builds that double or quadruple it exist.
const TENSOR_NAME_BYTES_MAX: u64 = 255;
/// Length of the key, type, one byte.
const KEY_LEAST_BYTES: usize = 8 + 4 + 1;
/// Length of the name, axis count, one axis, type, offset.
const TENSOR_LEAST_BYTES: usize = 8 + 4 + 8 + 4 + 8;

/// What a header says; borrows keys and names from the file's bytes.
#[derive(Debug)]
pub struct Header<'a> {
    /// Sorted by key.
    pub(super) metadata: Vec<(&'a str, Value)>,
    /// Sorted by name.
    pub(super) tensors: Vec<TensorPlace<'a>>,
}

/// A tensor as the header describes it, checked.
#[derive(Debug)]
pub(super) struct TensorPlace<'a> {
    pub(super) name: &'a str,
    pub(super) dtype: DType,
    /// Outermost first.
    pub(super) shape: Vec<usize>,
    /// In the file.
    pub(super) place: Range<usize>,
}

impl<'a> Header<'a> {
    /// Reads and checks the header of a GGUF file of which `bytes` are all the bytes.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, GgufFault> {
        let mut cursor = Cursor::new(bytes);
        check_preamble(&mut cursor)?;
        let n_tensors = cursor.count(TENSOR_LEAST_BYTES, format_args!("tensor count"))?;
        let n_keys = cursor.count(KEY_LEAST_BYTES, format_args!("metadata key count"))?;
        let metadata = parse_metadata(&mut cursor, bytes, n_keys)?;
        let alignment = alignment(&metadata, bytes)?;
        let mut tensors = Vec::new();
        for tensor_idx in 0..n_tensors {
            tensors.push(parse_tensor(&mut cursor, tensor_idx, alignment)?);
        }
        let start = (cursor.position() as u64).next_multiple_of(alignment);
        place_tensors(&mut tensors, start, bytes.len() as u64)?;
        let tensors = sort_by_name(tensors.into_iter().map(|(tensor, _)| tensor).collect())?;
        Ok(Self { metadata, tensors })
    }

    /// Number of metadata keys.
    pub fn n_keys(&self) -> usize {
        self.metadata.len()
    }

    /// Number of tensors.
    pub fn n_tensors(&self) -> usize {
        self.tensors.len()
    }
}

fn check_preamble(cursor: &mut Cursor<'_>) -> Result<(), GgufFault> {
    let magic = cursor.magic()?;
    if &magic != b"GGUF" {
        return Err(GgufFault::NotGguf { found: magic.escape_ascii().to_string() });
    }
    match cursor.u32(format_args!("version"))? {
        2 | 3 => Ok(()),
        found if (1..=0xffff).contains(&found.swap_bytes()) => {
            Err(GgufFault::BigEndian { version: found.swap_bytes() })
        }
        found => Err(GgufFault::Version { found }),
    }
}

fn parse_metadata<'a>(
    cursor: &mut Cursor<'a>,
    bytes: &[u8],
    n_keys: usize,
) -> Result<Vec<(&'a str, Value)>, GgufFault> {
    let mut metadata = Vec::new();
    for key_idx in 0..n_keys {
        let key = cursor.name(KEY_BYTES_MAX, format_args!("metadata key {key_idx}"))?;
        metadata.push((key, Value::parse(cursor, bytes, key)?));
    }
    metadata.sort_unstable_by_key(|&(key, _)| key);
    match metadata.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        Some(pair) => Err(GgufFault::DuplicateKey { key: pair[0].0.to_owned() }),
        None => Ok(metadata),
    }
}

fn alignment(metadata: &[(&str, Value)], bytes: &[u8]) -> Result<u64, GgufFault> {
    let Ok(idx) = metadata.binary_search_by_key(&ALIGNMENT_KEY, |&(key, _)| key) else {
        return Ok(DEFAULT_ALIGNMENT);
    };
    let value = &metadata[idx].1;
    let found = match (value.kind, value.integer(bytes)) {
        (Kind::U32 | Kind::U64, Some(found)) => found as u64, // both fit
        _ => {
            return Err(GgufFault::WrongType {
                key: ALIGNMENT_KEY.to_owned(),
                found: value.describe(bytes),
                expected: "a u32",
            });
        }
    };
    if !found.is_power_of_two() || found > u64::from(u32::MAX) {
        return Err(GgufFault::Alignment { found });
    }
    Ok(found)
}

/// A tensor whose `place` still counts from the start of the tensor data, and its offset there.
type Unplaced<'a> = (TensorPlace<'a>, Extent);

struct Extent {
    offset: u64,
    bytes: u64,
}

fn parse_tensor<'a>(
    cursor: &mut Cursor<'a>,
    tensor_idx: usize,
    alignment: u64,
) -> Result<Unplaced<'a>, GgufFault> {
    let name = cursor.name(TENSOR_NAME_BYTES_MAX, format_args!("name of tensor {tensor_idx}"))?;
    let n_axes = cursor.u32(format_args!("axis count of the tensor {name:?}"))?;
    if !(1..=4).contains(&n_axes) {
        return Err(GgufFault::AxisCount { tensor: name.to_owned(), found: n_axes });
    }
    let mut axes = [0; 4];
    let axes = &mut axes[..n_axes as usize];
    for axis in axes.iter_mut() {
        *axis = cursor.u64(format_args!("shape of the tensor {name:?}"))?;
    }
    let id = cursor.u32(format_args!("element type of the tensor {name:?}"))?;
    let offset = cursor.u64(format_args!("offset of the tensor {name:?}"))?;
    let dtype = DType::from_ggml_id(id)
        .ok_or_else(|| GgufFault::UnknownTensorType { tensor: name.to_owned(), id })?;
    let bytes = tensor_bytes(name, dtype, axes)?;
    if !offset.is_multiple_of(alignment) {
        return Err(GgufFault::Misaligned { tensor: name.to_owned(), offset, alignment });
    }
    let shape = axes.iter().rev().map(|&axis| axis as usize).collect();
    Ok((TensorPlace { name, dtype, shape, place: 0..0 }, Extent { offset, bytes }))
}

/// Bytes of a tensor with these axes, innermost first.
fn tensor_bytes(name: &str, dtype: DType, axes: &[u64]) -> Result<u64, GgufFault> {
    let tensor = || name.to_owned();
    if axes.contains(&0) {
        return Err(GgufFault::EmptyAxis { tensor: tensor(), shape: axes.to_vec() });
    }
    let cols = axes[0];
    if !cols.is_multiple_of(dtype.block_len() as u64) {
        return Err(GgufFault::PartialBlock { tensor: tensor(), cols, dtype });
    }
    // The elements of a tensor must be countable too, not only its bytes.
    axes.iter()
        .try_fold(1u64, |product, &axis| product.checked_mul(axis))
        .filter(|&n_elements| n_elements <= isize::MAX as u64)
        .map(|n_elements| n_elements / dtype.block_len() as u64)
        .and_then(|n_blocks| n_blocks.checked_mul(dtype.block_bytes() as u64))
        .ok_or_else(|| GgufFault::ShapeOverflow { tensor: tensor(), shape: axes.to_vec() })
}

/// Finds each tensor's place in the file of `file_len` bytes whose tensors start at `start`;
/// leaves them in the order of their places.
fn place_tensors(tensors: &mut [Unplaced<'_>], start: u64, file_len: u64) -> Result<(), GgufFault> {
    let available = file_len.saturating_sub(start);
    for (tensor, Extent { offset, bytes }) in tensors.iter_mut() {
        let end = offset.checked_add(*bytes).filter(|&end| end <= available);
        let end = end.ok_or_else(|| GgufFault::OutsideFile {
            tensor: tensor.name.to_owned(),
            offset: *offset,
            bytes: *bytes,
            available,
        })?;
        // Both lie inside the file, so they fit in usize.
        tensor.place = (start + *offset) as usize..(start + end) as usize;
    }
    tensors.sort_unstable_by_key(|(tensor, _)| tensor.place.start);
    let overlap = tensors.windows(2).find(|pair| pair[1].0.place.start < pair[0].0.place.end);
    match overlap {
        Some(pair) if pair[0].0.name != pair[1].0.name => Err(GgufFault::Overlap {
            first: pair[0].0.name.to_owned(),
            second: pair[1].0.name.to_owned(),
        }),
        _ => Ok(()), // twice the same name: said by `sort_by_name`
    }
}

fn sort_by_name(mut tensors: Vec<TensorPlace<'_>>) -> Result<Vec<TensorPlace<'_>>, GgufFault> {
    tensors.sort_unstable_by_key(|tensor| tensor.name);
    match tensors.windows(2).find(|pair| pair[0].name == pair[1].name) {
        Some(pair) => Err(GgufFault::DuplicateTensor { tensor: pair[0].name.to_owned() }),
        None => Ok(tensors),
    }
}
