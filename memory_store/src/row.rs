//! What does the store know of a context? Its row: who and what it is, and where its records lie,
//! as runs of slots of segments. A row grows with segments, not with records.
//!
//! The same bytes stand in a row's file and in the catalogue (docs/store-format.md).

use std::collections::BTreeSet;

use crate::codec::{Decoder, Encoder};

/// The newest version of rows known here.
pub(crate) const VERSION: u32 = 1;

/// Bytes that a tenant or a name may have.
pub(crate) const MAX_NAME_BYTES: usize = 1024;

const MAGIC: &[u8; 8] = b"MNEMEROW";

/// How the records of a stream look: all of one length, divided into sections of one length, of
/// which the last may be shorter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamShape {
    /// Bytes of a record.
    pub record_bytes: usize,
    /// Bytes of a section: what is verified, and may be relied on, at once.
    pub section_bytes: usize,
}

/// A digest of everything that decides what the bytes mean. Two that differ must not be mixed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(pub [u8; 32]);

/// A digest of what a context was made from, to find contexts that begin alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PrefixKey(pub [u8; 32]);

/// Whether a context may be removed to make room for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pinned {
    /// Never.
    Yes,
    /// When it was not used for longest.
    No,
}

/// What there is to know of a context without reading its records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContextSummary {
    /// Whose it is.
    pub tenant: String,
    /// Its name, one of a tenant's.
    pub name: String,
    /// What its bytes mean.
    pub fingerprint: Fingerprint,
    /// What it was made from.
    pub prefix_key: PrefixKey,
    /// Its length, in the caller's units.
    pub length: u64,
    /// The caller's own bytes.
    pub meta: Vec<u8>,
    /// Records of each stream.
    pub records: Vec<u64>,
    /// The streams.
    pub shapes: Vec<StreamShape>,
    /// Bytes of the segments it refers to.
    pub disk_bytes: u64,
    /// Bytes of those that nobody else refers to.
    pub own_bytes: u64,
    /// When it was made: seconds since 1970.
    pub created: u64,
    /// When it was last opened or changed: seconds since 1970.
    pub used: u64,
    /// When it is to be removed: seconds since 1970.
    pub expires: Option<u64>,
    /// Whether it may be removed to make room.
    pub pinned: Pinned,
    /// The context that it was forked from.
    pub parent: Option<String>,
    /// Commits so far.
    pub generation: u64,
}

/// A context of a tenant. Nothing is ever looked up without the tenant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    pub(crate) tenant: String,
    pub(crate) name: String,
}

impl Key {
    pub(crate) fn new(tenant: &str, name: &str) -> Self {
        Self { tenant: tenant.to_owned(), name: name.to_owned() }
    }

    /// The key of the catalogue: no two contexts have the same bytes.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut key = Encoder::default();
        key.run(self.tenant.as_bytes()).raw(self.name.as_bytes());
        key.finish()
    }
}

/// Slots `first..first + n` of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) segment: u64,
    pub(crate) first: u32,
    pub(crate) n: u32,
}

/// The records of a stream, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StreamRow {
    pub(crate) shape: StreamShape,
    pub(crate) records: u64,
    pub(crate) extents: Vec<Extent>,
}

impl StreamRow {
    pub(crate) fn new(shape: StreamShape) -> Self {
        Self { shape, records: 0, extents: Vec::new() }
    }

    /// Adds slots, as a part of the last extent when they follow it.
    pub(crate) fn push(&mut self, extent: Extent) {
        self.records += u64::from(extent.n);
        if let Some(last) = self.extents.last_mut()
            && last.segment == extent.segment
            && last.first.checked_add(last.n) == Some(extent.first)
            && let Some(n) = last.n.checked_add(extent.n)
        {
            last.n = n;
            return;
        }
        self.extents.push(extent);
    }
}

/// Where a context's tail lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TailPlace {
    pub(crate) segment: u64,
    pub(crate) slot: u32,
    pub(crate) bytes: u64,
}

/// All that is kept of a context beside its records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// Names the row's file; of two rows of a context the one with the greater number is newer.
    pub(crate) id: u64,
    pub(crate) key: Key,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) prefix_key: PrefixKey,
    pub(crate) length: u64,
    pub(crate) generation: u64,
    pub(crate) created: u64,
    pub(crate) expires: Option<u64>,
    pub(crate) pinned: Pinned,
    pub(crate) parent: Option<String>,
    pub(crate) meta: Vec<u8>,
    pub(crate) streams: Vec<StreamRow>,
    pub(crate) tail: Option<TailPlace>,
}

/// Why bytes are no row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RowFault {
    /// Written by a newer version.
    Newer(u32),
    /// Not what was written.
    Damaged,
}

impl Row {
    /// The segments it refers to, each once.
    pub(crate) fn segments(&self) -> BTreeSet<u64> {
        let extents = self.streams.iter().flat_map(|stream| &stream.extents);
        extents.map(|extent| extent.segment).chain(self.tail.map(|tail| tail.segment)).collect()
    }

    pub(crate) fn is_expired(&self, now: u64) -> bool {
        self.expires.is_some_and(|at| at <= now)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut to = Encoder::default();
        to.raw(MAGIC).u32(VERSION).u64(self.id);
        to.run(self.key.tenant.as_bytes()).run(self.key.name.as_bytes());
        to.raw(&self.fingerprint.0).raw(&self.prefix_key.0);
        to.u64(self.length).u64(self.generation).u64(self.created);
        to.maybe_u64(self.expires).u8(u8::from(self.pinned == Pinned::Yes));
        to.u8(u8::from(self.parent.is_some()));
        to.run(self.parent.as_deref().unwrap_or("").as_bytes()).run(&self.meta);
        to.u32(self.streams.len() as u32);
        for stream in &self.streams {
            to.u64(stream.shape.record_bytes as u64).u64(stream.shape.section_bytes as u64);
            to.u64(stream.records).u32(stream.extents.len() as u32);
            for extent in &stream.extents {
                to.u64(extent.segment).u32(extent.first).u32(extent.n);
            }
        }
        to.u8(u8::from(self.tail.is_some()));
        let tail = self.tail.unwrap_or(TailPlace { segment: 0, slot: 0, bytes: 0 });
        to.u64(tail.segment).u32(tail.slot).u64(tail.bytes);
        to.sealed()
    }

    /// Reads what [`encode`](Self::encode) wrote.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, RowFault> {
        let mut from = Decoder::unsealed(bytes).ok_or(RowFault::Damaged)?;
        if from.raw(MAGIC.len()) != Some(MAGIC) {
            return Err(RowFault::Damaged);
        }
        match from.u32() {
            Some(VERSION) => {}
            Some(newer) if newer > VERSION => return Err(RowFault::Newer(newer)),
            _ => return Err(RowFault::Damaged),
        }
        Self::decode_body(&mut from).filter(|_| from.is_empty()).ok_or(RowFault::Damaged)
    }

    fn decode_body(from: &mut Decoder<'_>) -> Option<Self> {
        let id = from.u64()?;
        let key = Key { tenant: from.string()?, name: from.string()? };
        let (fingerprint, prefix_key) = (Fingerprint(from.array()?), PrefixKey(from.array()?));
        let (length, generation, created) = (from.u64()?, from.u64()?, from.u64()?);
        let expires = from.maybe_u64()?;
        let pinned = if from.u8()? == 1 { Pinned::Yes } else { Pinned::No };
        let (has_parent, parent) = (from.u8()? == 1, from.string()?);
        let parent = has_parent.then_some(parent);
        let meta = from.run()?.to_vec();
        let n_streams = from.count(28)?;
        let streams = (0..n_streams).map(|_| decode_stream(from)).collect::<Option<_>>()?;
        let has_tail = from.u8()? == 1;
        let tail = TailPlace { segment: from.u64()?, slot: from.u32()?, bytes: from.u64()? };
        let tail = has_tail.then_some(tail);
        let row = Self {
            id,
            key,
            fingerprint,
            prefix_key,
            length,
            generation,
            created,
            expires,
            pinned,
            parent,
            meta,
            streams,
            tail,
        };
        Some(row)
    }
}

fn decode_stream(from: &mut Decoder<'_>) -> Option<StreamRow> {
    let record_bytes = usize::try_from(from.u64()?).ok()?;
    let section_bytes = usize::try_from(from.u64()?).ok()?;
    let records = from.u64()?;
    let n_extents = from.count(16)?;
    let mut extents = Vec::with_capacity(n_extents);
    for _ in 0..n_extents {
        extents.push(Extent { segment: from.u64()?, first: from.u32()?, n: from.u32()? });
    }
    let counted: u64 = extents.iter().map(|extent| u64::from(extent.n)).sum();
    let is_sound = counted == records && record_bytes > 0 && section_bytes > 0;
    let shape = StreamShape { record_bytes, section_bytes };
    is_sound.then_some(StreamRow { shape, records, extents })
}
