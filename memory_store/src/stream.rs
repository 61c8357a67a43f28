//! How are the records of a context read and appended? Each lies in one of three places:
//!
//! ```text
//! record 0 ........ disk_len ............. first of the open group ...... len
//!        | on disk: mapped | in host memory: sealed groups | the open group |
//! ```
//!
//! What is appended goes into a group (one large record, or several small ones) and, by way of the
//! [`Backlog`], to the writer. Once its segment is durable, [`UnitStore::catch_up`] moves the
//! border and lets go of the memory. Records keep their numbers; only where they lie changes.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::backlog::{Backlog, PlacedExtent};
use crate::measures::Measures;
use crate::segment::Wanted;
use crate::{AlignedBytes, Record, RecordId, StoreError, UnitStore};

/// Records in host memory that follow each other.
#[derive(Clone)]
struct MemoryExtent {
    first: u64,
    n: usize,
    bytes: Arc<AlignedBytes>,
}

/// The group that the next record goes to; this stream's own.
struct OpenGroup {
    first: u64,
    n: usize,
    bytes: AlignedBytes,
}

/// The records of one stream of a context.
pub(crate) struct Stream {
    measures: Measures,
    len: u64,
    /// Records `0..disk_len`, in order.
    disk: Vec<PlacedExtent>,
    disk_len: u64,
    /// What follows them and is being written.
    awaited: VecDeque<PlacedExtent>,
    memory: VecDeque<MemoryExtent>,
    open: Option<OpenGroup>,
    /// Where what is appended goes; nowhere from a fork.
    backlog: Option<Arc<Backlog>>,
}

impl Stream {
    /// A stream of the records that are on disk or on their way.
    pub(crate) fn new(
        measures: Measures,
        placed: Vec<PlacedExtent>,
        backlog: Option<Arc<Backlog>>,
    ) -> Self {
        let n_durable = placed.iter().take_while(|extent| extent.cell.is_durable()).count();
        let disk: Vec<_> = placed.into_iter().take(n_durable).collect();
        let disk_len = disk.last().map_or(0, PlacedExtent::end);
        let (awaited, memory) = (VecDeque::new(), VecDeque::new());
        Self { measures, len: disk_len, disk, disk_len, awaited, memory, open: None, backlog }
    }

    #[inline]
    fn read_disk(&self, number: u64, section: usize) -> Result<Record<'_>, StoreError> {
        let (extent, wanted) = self.on_disk(number);
        Ok(Record::new(extent.cell.segment()?.read(&wanted, section)?))
    }

    fn on_disk(&self, number: u64) -> (&PlacedExtent, Wanted) {
        let idx = self.disk.partition_point(|extent| extent.end() <= number);
        let extent = &self.disk[idx];
        let wanted = Wanted {
            slot: extent.slot + (number - extent.first) as u32,
            stream: self.measures.stream,
            number,
            bytes: self.measures.shape.record_bytes as u64,
            section_bytes: self.measures.shape.section_bytes as u64,
        };
        (extent, wanted)
    }

    fn read_memory(&self, number: u64) -> Record<'_> {
        let open = self.open.as_ref().filter(|open| open.first <= number);
        let (first, bytes) = open.map_or_else(
            || {
                let end = |extent: &MemoryExtent| extent.first + extent.n as u64;
                let idx = self.memory.partition_point(|extent| end(extent) <= number);
                (self.memory[idx].first, &*self.memory[idx].bytes)
            },
            |open| (open.first, &open.bytes),
        );
        let at = (number - first) as usize * self.measures.stride;
        Record::new(&bytes[at..at + self.measures.shape.record_bytes])
    }

    /// The open group with room for a record.
    fn room(&mut self) -> Result<&mut OpenGroup, StoreError> {
        if self.open.as_ref().is_none_or(|open| open.n == self.measures.group_records) {
            self.seal();
            self.catch_up();
            let bytes = self.measures.stride.saturating_mul(self.measures.group_records);
            let bytes = AlignedBytes::zeroed(bytes)?;
            self.open = Some(OpenGroup { first: self.len, n: 0, bytes });
        }
        Ok(self.open.as_mut().expect("because it was just made sure of"))
    }

    /// The open group takes no more.
    fn seal(&mut self) -> Option<&MemoryExtent> {
        let OpenGroup { first, n, bytes } = self.open.take()?;
        if n == 0 {
            return None;
        }
        self.memory.push_back(MemoryExtent { first, n, bytes: Arc::new(bytes) });
        self.memory.back()
    }

    /// Moves the border between disk and memory over what is durable meanwhile.
    fn move_border(&mut self) {
        let n_durable = self.awaited.iter().take_while(|next| next.cell.is_durable()).count();
        for next in self.awaited.drain(..n_durable) {
            self.disk_len = next.end();
            self.disk.push(next);
        }
        let border = self.disk_len;
        let is_behind = |extent: &&MemoryExtent| extent.first + extent.n as u64 <= border;
        let n_behind = self.memory.iter().take_while(is_behind).count();
        self.memory.drain(..n_behind);
    }
}

impl UnitStore for Stream {
    fn append(&mut self, record: &[u8]) -> Result<RecordId, StoreError> {
        let Measures { shape, stride, group_records, .. } = self.measures;
        if record.len() != shape.record_bytes {
            let (expected, actual) = (shape.record_bytes, record.len());
            return Err(StoreError::WrongLength { expected, actual });
        }
        let full = StoreError::Full { n_records: self.len as usize };
        let id = RecordId(u32::try_from(self.len).map_err(|_| full)?);
        if let Some(backlog) = &self.backlog {
            backlog.check()?;
        }
        let open = self.room()?;
        let at = open.n * stride;
        open.bytes[at..at + record.len()].copy_from_slice(record);
        open.n += 1;
        self.len += 1;
        let backlog = self.backlog.clone();
        if group_records > 1 {
            if let Some(backlog) = backlog {
                backlog.push_record(u64::from(id.0), record)?;
            }
        } else {
            let bytes = self.seal().map(|sealed| Arc::clone(&sealed.bytes));
            if let (Some(backlog), Some(bytes)) = (backlog, bytes) {
                backlog.push_group(u64::from(id.0), 1, bytes)?;
            }
        }
        Ok(id)
    }

    #[inline]
    fn read(&self, id: RecordId, section: usize) -> Result<Record<'_>, StoreError> {
        let number = u64::from(id.0);
        if number < self.disk_len {
            return self.read_disk(number, section);
        }
        if number >= self.len {
            return Err(StoreError::UnknownRecord { id, n_records: self.len as usize });
        }
        Ok(self.read_memory(number))
    }

    fn expect(&self, ids: &mut dyn Iterator<Item = RecordId>, section: usize) {
        for number in ids.map(|id| u64::from(id.0)).filter(|number| *number < self.disk_len) {
            let (extent, wanted) = self.on_disk(number);
            // What is wrong with a segment is said when it is read.
            if let Ok(segment) = extent.cell.segment() {
                segment.expect(&wanted, section);
            }
        }
    }

    fn fork(&self) -> Result<Box<dyn UnitStore>, StoreError> {
        let mut fork = Self {
            measures: self.measures,
            len: self.len,
            disk: self.disk.clone(),
            disk_len: self.disk_len,
            awaited: self.awaited.clone(),
            memory: self.memory.clone(),
            open: None,
            backlog: None,
        };
        if let Some(open) = &self.open {
            let (first, n, bytes) = (open.first, open.n, open.bytes.try_clone()?);
            fork.open = Some(OpenGroup { first, n, bytes });
        }
        Ok(Box::new(fork))
    }

    fn truncate(&mut self, n_records: usize) {
        let len = n_records as u64;
        if len >= self.len {
            return;
        }
        self.len = len;
        PlacedExtent::cut(&mut self.disk, len);
        self.disk_len = self.disk_len.min(len);
        let mut awaited: Vec<_> = std::mem::take(&mut self.awaited).into();
        PlacedExtent::cut(&mut awaited, len);
        self.awaited = awaited.into();
        self.memory.retain_mut(|extent| {
            extent.n = extent.n.min(len.saturating_sub(extent.first) as usize);
            extent.n > 0
        });
        self.open = self
            .open
            .take()
            .filter(|open| open.first < len)
            .map(|open| OpenGroup { n: (len - open.first) as usize, ..open });
        if let Some(backlog) = &self.backlog {
            backlog.truncate(len);
        }
    }

    fn catch_up(&mut self) {
        if let Some(backlog) = &self.backlog {
            let known = self.disk.len() + self.awaited.len();
            backlog.new_since(known, &mut self.awaited);
        }
        self.move_border();
    }

    #[inline]
    fn len(&self) -> usize {
        self.len as usize
    }

    #[inline]
    fn record_bytes(&self) -> usize {
        self.measures.shape.record_bytes
    }

    fn resident_bytes(&self) -> usize {
        let n: usize = self.memory.iter().map(|extent| extent.n).sum();
        let n_open = self.open.as_ref().map_or(0, |open| open.n);
        (n + n_open) * self.measures.stride
    }
}
