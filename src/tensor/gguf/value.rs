//! What does a metadata value look like? A type and a place in the file: it was checked when the
//! header was read, and is decoded when it is asked for.

use std::ops::Range;

use super::cursor::Cursor;
use super::error::GgufFault;

/// The types of single values (`enum gguf_type`; 9, the array, holds values of one of these).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    String,
    U64,
    I64,
    F64,
}

const ARRAY_ID: u32 = 9;

impl Kind {
    fn from_id(id: u32) -> Option<Self> {
        Some(match id {
            0 => Self::U8,
            1 => Self::I8,
            2 => Self::U16,
            3 => Self::I16,
            4 => Self::U32,
            5 => Self::I32,
            6 => Self::F32,
            7 => Self::Bool,
            8 => Self::String,
            10 => Self::U64,
            11 => Self::I64,
            12 => Self::F64,
            _ => return None,
        })
    }

    /// Bytes of a value; of a string, those of its length.
    pub(super) fn least_bytes(self) -> usize {
        match self {
            Self::U8 | Self::I8 | Self::Bool => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 | Self::String => 8,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::U8 => "u8",
            Self::I8 => "i8",
            Self::U16 => "u16",
            Self::I16 => "i16",
            Self::U32 => "u32",
            Self::I32 => "i32",
            Self::F32 => "f32",
            Self::Bool => "bool",
            Self::String => "string",
            Self::U64 => "u64",
            Self::I64 => "i64",
            Self::F64 => "f64",
        }
    }
}

/// Where a value lies and how to read it.
#[derive(Clone, Debug)]
pub(super) struct Value {
    pub(super) kind: Kind,
    /// `None` for a single value, else the number of elements.
    pub(super) array_len: Option<usize>,
    /// The value itself: of a string its bytes without the length, of an array its elements.
    pub(super) place: Range<usize>,
}

impl Value {
    /// Reads the type and finds the end of the value that follows.
    pub(super) fn parse(
        cursor: &mut Cursor<'_>,
        bytes: &[u8],
        key: &str,
    ) -> Result<Self, GgufFault> {
        let id = cursor.u32(format_args!("value type of the metadata key {key:?}"))?;
        if id == ARRAY_ID {
            return Self::parse_array(cursor, bytes, key);
        }
        let kind = Kind::from_id(id)
            .ok_or_else(|| GgufFault::UnknownValueType { key: key.to_owned(), id })?;
        let field = format_args!("value of the metadata key {key:?}");
        let place = match kind {
            Kind::String => cursor.string(field)?,
            _ => cursor.skip(kind.least_bytes() as u64, field)?,
        };
        let value = Self { kind, array_len: None, place };
        value.check(bytes, key)?;
        Ok(value)
    }

    fn parse_array(cursor: &mut Cursor<'_>, bytes: &[u8], key: &str) -> Result<Self, GgufFault> {
        let id = cursor.u32(format_args!("element type of the metadata key {key:?}"))?;
        if id == ARRAY_ID {
            return Err(GgufFault::NestedArray { key: key.to_owned() });
        }
        let kind = Kind::from_id(id)
            .ok_or_else(|| GgufFault::UnknownValueType { key: key.to_owned(), id })?;
        let field = format_args!("element count of the metadata key {key:?}");
        let n_elements = cursor.count(kind.least_bytes(), field)?;
        let start = cursor.position();
        if kind == Kind::String {
            for element_idx in 0..n_elements {
                cursor.string(format_args!("string {element_idx} of the metadata key {key:?}"))?;
            }
        } else {
            let length = n_elements as u64 * kind.least_bytes() as u64; // count() bounds it
            cursor.skip(length, format_args!("elements of the metadata key {key:?}"))?;
        }
        let place = start..cursor.position();
        let value = Self { kind, array_len: Some(n_elements), place };
        value.check(bytes, key)?;
        Ok(value)
    }

    /// Booleans are 0 or 1; text is UTF-8 (arrays of text are checked when asked for).
    fn check(&self, bytes: &[u8], key: &str) -> Result<(), GgufFault> {
        let raw = &bytes[self.place.clone()];
        if self.kind == Kind::Bool
            && let Some(&found) = raw.iter().find(|&&byte| byte > 1)
        {
            return Err(GgufFault::Boolean { key: key.to_owned(), found });
        }
        if self.kind == Kind::String
            && self.array_len.is_none()
            && std::str::from_utf8(raw).is_err()
        {
            let field = format!("value of the metadata key {key:?}");
            return Err(GgufFault::NotUtf8 { field, offset: self.place.start });
        }
        Ok(())
    }

    /// What it is, for messages.
    pub(super) fn describe(&self, bytes: &[u8]) -> String {
        match (self.array_len, self.integer(bytes), self.float(bytes)) {
            (Some(n), ..) => format!("an array of {n} of type {}", self.kind.name()),
            (None, Some(integer), _) => format!("the {} {integer}", self.kind.name()),
            (None, None, Some(float)) => format!("the {} {float}", self.kind.name()),
            (None, None, None) => format!("a {}", self.kind.name()),
        }
    }

    /// The value of a single integer of whatever width.
    pub(super) fn integer(&self, bytes: &[u8]) -> Option<i128> {
        if self.array_len.is_some() {
            return None;
        }
        integer(self.kind, &bytes[self.place.clone()])
    }

    /// The value of a single floating-point number of either width.
    pub(super) fn float(&self, bytes: &[u8]) -> Option<f64> {
        if self.array_len.is_some() {
            return None;
        }
        float(self.kind, &bytes[self.place.clone()])
    }

    /// The elements of an array of numbers, one slice of bytes each.
    pub(super) fn elements<'a>(&self, bytes: &'a [u8]) -> std::slice::ChunksExact<'a, u8> {
        bytes[self.place.clone()].chunks_exact(self.kind.least_bytes())
    }
}

/// An integer of type `kind`; `None` for other types.
pub(super) fn integer(kind: Kind, raw: &[u8]) -> Option<i128> {
    Some(match kind {
        Kind::U8 => i128::from(*raw.first()?),
        Kind::I8 => i128::from(i8::from_le_bytes(raw.try_into().ok()?)),
        Kind::U16 => i128::from(u16::from_le_bytes(raw.try_into().ok()?)),
        Kind::I16 => i128::from(i16::from_le_bytes(raw.try_into().ok()?)),
        Kind::U32 => i128::from(u32::from_le_bytes(raw.try_into().ok()?)),
        Kind::I32 => i128::from(i32::from_le_bytes(raw.try_into().ok()?)),
        Kind::U64 => i128::from(u64::from_le_bytes(raw.try_into().ok()?)),
        Kind::I64 => i128::from(i64::from_le_bytes(raw.try_into().ok()?)),
        Kind::F32 | Kind::F64 | Kind::Bool | Kind::String => return None,
    })
}

/// A floating-point number of type `kind`; `None` for other types.
pub(super) fn float(kind: Kind, raw: &[u8]) -> Option<f64> {
    match kind {
        Kind::F32 => Some(f64::from(f32::from_le_bytes(raw.try_into().ok()?))),
        Kind::F64 => Some(f64::from_le_bytes(raw.try_into().ok()?)),
        _ => None,
    }
}
