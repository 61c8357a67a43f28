//! How is a GGUF file read? The header is parsed and checked; tensors stay where they are, in the
//! mapped file, and so does the metadata until it is asked for. Little-endian, versions 2 and 3.
//! Format: `docs/gguf.md` of the ggml project. What the keys and tensors mean is not known here.

mod cursor;
mod error;
mod header;
mod value;

use std::path::Path;
use std::sync::Arc;

pub use error::{GgufError, GgufFault};
pub use header::Header;

use super::Tensor;
use super::mapped::{MappedBytes, MappedFile};
use value::{Kind, Value};

/// An open GGUF file.
#[derive(Clone, Debug)]
pub struct GgufFile {
    file: Arc<MappedFile>,
    /// Sorted by key.
    metadata: Vec<(String, Value)>,
    /// Sorted by name.
    tensors: Vec<Tensor>,
}

impl GgufFile {
    /// Maps the file and reads its header.
    ///
    /// # Errors
    /// When it cannot be opened, or its header is not one that can be trusted.
    pub fn open(path: &Path) -> Result<Self, GgufError> {
        let file = MappedFile::open(path)
            .map_err(|error| GgufError { path: path.to_owned(), fault: error.into() })?;
        Self::from_mapped(&file)
    }

    /// Reads the header of a file that is mapped already.
    ///
    /// # Errors
    /// When the header is not one that can be trusted.
    pub fn from_mapped(file: &Arc<MappedFile>) -> Result<Self, GgufError> {
        let header = Header::parse(file.bytes())
            .map_err(|fault| GgufError { path: file.path().to_owned(), fault })?;
        let tensors = header.tensors.into_iter().map(|tensor| Tensor {
            name: tensor.name.to_owned(),
            dtype: tensor.dtype,
            shape: tensor.shape,
            bytes: MappedBytes::new(file, tensor.place)
                .expect("because the header's tensors were checked to lie inside the file"),
        });
        let metadata = header.metadata.into_iter().map(|(key, value)| (key.to_owned(), value));
        Ok(Self {
            file: Arc::clone(file),
            tensors: tensors.collect(),
            metadata: metadata.collect(),
        })
    }

    /// Where the file lies.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// All tensors, sorted by name.
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// The tensor of this name.
    pub fn tensor(&self, name: &str) -> Option<&Tensor> {
        let idx = self.tensors.binary_search_by(|tensor| tensor.name.as_str().cmp(name)).ok()?;
        Some(&self.tensors[idx])
    }

    /// All metadata keys, sorted.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.metadata.iter().map(|(key, _)| key.as_str())
    }

    /// The number of elements of an array; `None` also when the value is none.
    pub fn array_len(&self, key: &str) -> Option<usize> {
        self.value(key)?.array_len
    }

    fn value(&self, key: &str) -> Option<&Value> {
        let idx = self.metadata.binary_search_by(|(found, _)| found.as_str().cmp(key)).ok()?;
        Some(&self.metadata[idx].1)
    }

    fn wrong_type(&self, key: &str, value: &Value, expected: &'static str) -> GgufError {
        let found = value.describe(self.file.bytes());
        self.error(GgufFault::WrongType { key: key.to_owned(), found, expected })
    }

    fn error(&self, fault: GgufFault) -> GgufError {
        GgufError { path: self.path().to_owned(), fault }
    }
}

/// Typed metadata. Each returns `None` when the key is missing.
impl GgufFile {
    /// An integer of whatever width that fits in `T`.
    fn integer<T: TryFrom<i128>>(
        &self,
        key: &str,
        expected: &'static str,
    ) -> Result<Option<T>, GgufError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        value
            .integer(self.file.bytes())
            .and_then(|integer| T::try_from(integer).ok())
            .map(Some)
            .ok_or_else(|| self.wrong_type(key, value, expected))
    }

    /// An integer of any width that fits in 32 bits without a sign.
    ///
    /// # Errors
    /// When the value is of another type or does not fit.
    pub fn u32(&self, key: &str) -> Result<Option<u32>, GgufError> {
        self.integer(key, "an integer from 0 to 4294967295")
    }

    /// An integer of any width that fits in 64 bits without a sign.
    ///
    /// # Errors
    /// When the value is of another type or negative.
    pub fn u64(&self, key: &str) -> Result<Option<u64>, GgufError> {
        self.integer(key, "a non-negative integer")
    }

    /// An integer of any width that fits in 64 bits with a sign.
    ///
    /// # Errors
    /// When the value is of another type or does not fit.
    pub fn i64(&self, key: &str) -> Result<Option<i64>, GgufError> {
        self.integer(key, "an integer of 64 bits")
    }

    /// A floating-point number of either width, rounded to `f32`.
    ///
    /// # Errors
    /// When the value is of another type.
    pub fn f32(&self, key: &str) -> Result<Option<f32>, GgufError> {
        Ok(self.f64(key)?.map(|float| float as f32))
    }

    /// A floating-point number of either width.
    ///
    /// # Errors
    /// When the value is of another type.
    pub fn f64(&self, key: &str) -> Result<Option<f64>, GgufError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let float = value.float(self.file.bytes());
        float.map(Some).ok_or_else(|| self.wrong_type(key, value, "a floating-point number"))
    }

    /// A boolean.
    ///
    /// # Errors
    /// When the value is of another type.
    pub fn boolean(&self, key: &str) -> Result<Option<bool>, GgufError> {
        match self.value(key) {
            None => Ok(None),
            Some(value) if value.kind == Kind::Bool && value.array_len.is_none() => {
                Ok(Some(self.file.bytes()[value.place.start] != 0))
            }
            Some(value) => Err(self.wrong_type(key, value, "a boolean")),
        }
    }

    /// A text, where it lies in the file.
    ///
    /// # Errors
    /// When the value is of another type.
    pub fn string(&self, key: &str) -> Result<Option<&str>, GgufError> {
        match self.value(key) {
            None => Ok(None),
            Some(value) if value.kind == Kind::String && value.array_len.is_none() => {
                let text = &self.file.bytes()[value.place.clone()];
                let offset = value.place.start;
                utf8(text, offset, || format!("value of the metadata key {key:?}"))
                    .map(Some)
                    .map_err(|fault| self.error(fault))
            }
            Some(value) => Err(self.wrong_type(key, value, "a string")),
        }
    }

    /// An array of texts, where they lie in the file.
    ///
    /// # Errors
    /// When the value is of another type, or one of the texts is not UTF-8.
    pub fn strings(&self, key: &str) -> Result<Option<Vec<&str>>, GgufError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let (Kind::String, Some(n_strings)) = (value.kind, value.array_len) else {
            return Err(self.wrong_type(key, value, "an array of strings"));
        };
        let mut strings = Vec::with_capacity(n_strings); // 8 bytes or more of the file each
        let bytes = self.file.bytes();
        let mut at = value.place.start;
        while at < value.place.end {
            // The lengths were checked when the header was read.
            let (length, rest) = bytes[at..].split_first_chunk().expect("because it was checked");
            let length = u64::from_le_bytes(*length) as usize;
            let text = utf8(&rest[..length], at + 8, || {
                format!("string {} of the metadata key {key:?}", strings.len())
            });
            strings.push(text.map_err(|fault| self.error(fault))?);
            at += 8 + length;
        }
        Ok(Some(strings))
    }

    /// An array of integers of any width that fit in `i32`.
    ///
    /// # Errors
    /// When the value is of another type, or one of the integers does not fit.
    pub fn i32s(&self, key: &str) -> Result<Option<Vec<i32>>, GgufError> {
        self.numbers(key, "an array of integers of 32 bits", |kind, raw| {
            i32::try_from(value::integer(kind, raw)?).ok()
        })
    }

    /// An array of integers of any width that fit in `u32`.
    ///
    /// # Errors
    /// When the value is of another type, or one of the integers does not fit.
    pub fn u32s(&self, key: &str) -> Result<Option<Vec<u32>>, GgufError> {
        self.numbers(key, "an array of non-negative integers of 32 bits", |kind, raw| {
            u32::try_from(value::integer(kind, raw)?).ok()
        })
    }

    /// An array of floating-point numbers, rounded to `f32`.
    ///
    /// # Errors
    /// When the value is of another type.
    pub fn f32s(&self, key: &str) -> Result<Option<Vec<f32>>, GgufError> {
        self.numbers(key, "an array of floating-point numbers", |kind, raw| {
            Some(value::float(kind, raw)? as f32)
        })
    }

    fn numbers<T>(
        &self,
        key: &str,
        expected: &'static str,
        decode: impl Fn(Kind, &[u8]) -> Option<T>,
    ) -> Result<Option<Vec<T>>, GgufError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        if value.array_len.is_none() || value.kind == Kind::String {
            return Err(self.wrong_type(key, value, expected));
        }
        let elements = value.elements(self.file.bytes());
        let numbers: Option<Vec<T>> = elements.map(|raw| decode(value.kind, raw)).collect();
        numbers.map(Some).ok_or_else(|| self.wrong_type(key, value, expected))
    }
}

fn utf8(raw: &[u8], offset: usize, field: impl Fn() -> String) -> Result<&str, GgufFault> {
    std::str::from_utf8(raw).map_err(|_| GgufFault::NotUtf8 { field: field(), offset })
}
