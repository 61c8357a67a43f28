//! How is a folder of safetensors files read? The headers by the `safetensors` crate; tensors stay
//! where they are, in the mapped files: one `model.safetensors`, or the shards that
//! `model.safetensors.index.json` lists. What the tensors mean is not known here.

mod error;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use safetensors::tensor::{Dtype, Metadata};

pub use error::{SafetensorsError, SafetensorsFault};

use super::Tensor;
use super::dtype::DType;
use super::mapped::{MappedBytes, MappedFile};

const SINGLE_FILE: &str = "model.safetensors";
const INDEX_FILE: &str = "model.safetensors.index.json";
/// Length of the header's length.
const PREFIX_BYTES: usize = 8;
/// Room for some 35,000 tensors a file, and a bound on what parsing the JSON can allocate.
const HEADER_BYTES_MAX: u64 = 4 << 20;
/// As much for all shards together.
const INDEX_BYTES_MAX: u64 = 64 << 20;

/// The open safetensors files of a folder.
#[derive(Clone, Debug)]
pub struct SafetensorsFolder {
    path: PathBuf,
    /// Sorted by name.
    tensors: Vec<Tensor>,
}

impl SafetensorsFolder {
    /// Maps the folder's files and reads their headers.
    ///
    /// # Errors
    /// When a file is missing or broken, a tensor is missing from its shard or occurs twice, or a
    /// tensor has a type that is not supported.
    pub fn open(folder: &Path) -> Result<Self, SafetensorsError> {
        let single = folder.join(SINGLE_FILE);
        let tensors = if single.exists() {
            let mut tensors = BTreeMap::new();
            add_file(&single, &mut tensors)?;
            tensors
        } else {
            open_shards(&folder.join(INDEX_FILE))?
        };
        Ok(Self { path: folder.to_owned(), tensors: tensors.into_values().collect() })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All tensors, sorted by name.
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }
}

/// Opens every shard that the index names, and checks that each tensor is where it says.
fn open_shards(index: &Path) -> Result<BTreeMap<String, Tensor>, SafetensorsError> {
    let folder = index.parent().unwrap_or(Path::new("."));
    let map = read_index(index).map_err(|fault| fault.in_file(index))?;
    let shards: BTreeSet<&String> = map.values().collect();
    let mut tensors = BTreeMap::new();
    for shard in shards {
        add_file(&folder.join(shard), &mut tensors)?;
    }
    for (tensor, shard) in &map {
        let found = tensors.get(tensor).map(|tensor: &Tensor| tensor.bytes.path());
        if found != Some(folder.join(shard).as_path()) {
            let fault = SafetensorsFault::NotInShard { tensor: tensor.clone() };
            return Err(fault.in_file(&folder.join(shard)));
        }
    }
    Ok(tensors)
}

/// Which tensor lies in which shard.
fn read_index(index: &Path) -> Result<BTreeMap<String, String>, SafetensorsFault> {
    let length = match std::fs::metadata(index) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(SafetensorsFault::NoWeights);
        }
        metadata => metadata?.len(),
    };
    if length > INDEX_BYTES_MAX {
        return Err(SafetensorsFault::TooLong { found: length, most: INDEX_BYTES_MAX });
    }
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(index)?)
        .map_err(|error| SafetensorsFault::Index(error.to_string()))?;
    let map = json
        .get("weight_map")
        .and_then(serde_json::Value::as_object)
        .ok_or_else(|| SafetensorsFault::Index("weight_map is not an object".to_owned()))?;
    map.iter()
        .map(|(tensor, shard)| match shard.as_str() {
            Some(shard) if is_file_name(shard) => Ok((tensor.clone(), shard.to_owned())),
            _ => {
                let fault = format!("weight_map gives {shard} for {tensor:?}, not a file's name");
                Err(SafetensorsFault::Index(fault))
            }
        })
        .collect()
}

/// A name that stays inside the folder.
fn is_file_name(name: &str) -> bool {
    let mut components = Path::new(name).components();
    matches!((components.next(), components.next()), (Some(Component::Normal(_)), None))
}

fn add_file(path: &Path, into: &mut BTreeMap<String, Tensor>) -> Result<(), SafetensorsError> {
    let file =
        MappedFile::open(path).map_err(|error| SafetensorsFault::from(error).in_file(path))?;
    let places = parse_header(file.bytes()).map_err(|fault| fault.in_file(path))?;
    for place in places {
        let name = place.name;
        let bytes = MappedBytes::new(&file, place.start..place.end)
            .expect("because the header's tensors were checked to fill the file");
        let tensor = Tensor { name: name.clone(), dtype: place.dtype, shape: place.shape, bytes };
        if let Some(first) = into.insert(name, tensor) {
            let fault = SafetensorsFault::DuplicateTensor {
                tensor: first.name.clone(),
                first: first.bytes.path().to_owned(),
            };
            return Err(fault.in_file(path));
        }
    }
    Ok(())
}

/// A tensor as a header describes it, checked.
#[derive(Debug)]
struct TensorPlace {
    name: String,
    dtype: DType,
    shape: Vec<usize>,
    start: usize,
    end: usize,
}

/// Reads and checks the header of a safetensors file of which `bytes` are all the bytes; returns
/// the number of its tensors. For whoever wants to throw anything at it.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn check(bytes: &[u8]) -> Result<usize, SafetensorsFault> {
    parse_header(bytes).map(|tensors| tensors.len())
}

fn parse_header(bytes: &[u8]) -> Result<Vec<TensorPlace>, SafetensorsFault> {
    let truncated = |needed| SafetensorsFault::Truncated { needed, found: bytes.len() as u64 };
    let (length, rest) = bytes.split_first_chunk().ok_or_else(|| truncated(PREFIX_BYTES as u64))?;
    let length = u64::from_le_bytes(*length);
    if length > HEADER_BYTES_MAX {
        return Err(SafetensorsFault::TooLong { found: length, most: HEADER_BYTES_MAX });
    }
    let (header, contents) = rest
        .split_at_checked(length as usize)
        .ok_or_else(|| truncated(PREFIX_BYTES as u64 + length))?;
    let text =
        std::str::from_utf8(header).map_err(|error| SafetensorsFault::Header(error.to_string()))?;
    // The crate checks that the tensors follow each other without gaps and have the bytes that
    // their shapes demand; that they fill the file is left to us (its sum can overflow).
    let metadata: Metadata =
        serde_json::from_str(text).map_err(|error| SafetensorsFault::Header(error.to_string()))?;
    if metadata.data_len() != contents.len() {
        return Err(SafetensorsFault::Length {
            expected: metadata.data_len() as u64,
            found: contents.len() as u64,
        });
    }
    let start = bytes.len() - contents.len();
    let mut places = Vec::new();
    for (name, tensor) in metadata.tensors() {
        let (from, to) = tensor.data_offsets;
        let dtype = dtype(tensor.dtype).ok_or_else(|| SafetensorsFault::UnsupportedType {
            tensor: name.clone(),
            found: format!("{:?}", tensor.dtype),
        })?;
        let shape = tensor.shape.clone();
        places.push(TensorPlace { name, dtype, shape, start: start + from, end: start + to });
    }
    places.sort_unstable_by(|a, b| a.name.cmp(&b.name)); // the crate's order is random
    Ok(places)
}

fn dtype(dtype: Dtype) -> Option<DType> {
    match dtype {
        Dtype::F32 => Some(DType::F32),
        Dtype::F16 => Some(DType::F16),
        Dtype::BF16 => Some(DType::BF16),
        _ => None,
    }
}
