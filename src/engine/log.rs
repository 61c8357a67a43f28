//! How is a text of any length remembered byte for byte, when most of it is never looked at again?
//! In records of a store; only what does not fill one yet lies here.

use std::ops::Range;

use crate::memory::{RecordId, StoreError, UnitStore};

use crate::bytes::{ByteReader, ByteWriter, Malformed};

/// Bytes that only grow, but for a [`truncate`](Self::truncate).
pub(super) struct ByteLog {
    records: Box<dyn UnitStore>, // of one section
    open: Vec<u8>,               // less than a record
}

impl ByteLog {
    /// The bytes of `records`.
    pub fn new(records: Box<dyn UnitStore>) -> Self {
        Self { records, open: Vec::new() }
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.records.len() * self.records.record_bytes() + self.open.len()
    }

    /// Full records.
    pub fn n_records(&self) -> usize {
        self.records.len()
    }

    /// Adds `bytes`.
    ///
    /// # Errors
    /// When the store refuses a record; nothing is added then.
    pub fn append(&mut self, mut bytes: &[u8]) -> Result<(), StoreError> {
        self.records.catch_up();
        let record_bytes = self.records.record_bytes();
        while self.open.len() + bytes.len() >= record_bytes {
            let (now, later) = bytes.split_at(record_bytes - self.open.len());
            self.open.extend_from_slice(now);
            self.records.append(&self.open)?;
            self.open.clear();
            bytes = later;
        }
        self.open.extend_from_slice(bytes);
        Ok(())
    }

    /// Appends the bytes of `range` to `out`.
    ///
    /// # Errors
    /// When a record cannot be read.
    ///
    /// # Panics
    /// When there are fewer bytes.
    pub fn read(&self, range: Range<usize>, out: &mut Vec<u8>) -> Result<(), StoreError> {
        let record_bytes = self.records.record_bytes();
        let in_records = self.records.len() * record_bytes;
        let mut at = range.start;
        while at < range.end.min(in_records) {
            let record = self.records.read(RecordId((at / record_bytes) as u32), 0)?;
            let here = at % record_bytes..record_bytes.min(at % record_bytes + range.end - at);
            out.extend_from_slice(&record[here.clone()]);
            at += here.len();
        }
        if at < range.end {
            out.extend_from_slice(&self.open[at - in_records..range.end - in_records]);
        }
        Ok(())
    }

    /// Forgets all bytes but the first `len`.
    ///
    /// # Errors
    /// When a record cannot be read.
    pub fn truncate(&mut self, len: usize) -> Result<(), StoreError> {
        if len >= self.len() {
            return Ok(());
        }
        let n_records = len / self.records.record_bytes();
        let mut open = Vec::new();
        self.read(n_records * self.records.record_bytes()..len, &mut open)?;
        self.records.truncate(n_records);
        self.open = open;
        Ok(())
    }

    /// The same bytes, which go their own way.
    ///
    /// # Errors
    /// When the store cannot be shared.
    pub fn fork(&self) -> Result<Self, StoreError> {
        Ok(Self { records: self.records.fork()?, open: self.open.clone() })
    }

    /// Writes what is not in records.
    pub fn write(&self, out: &mut ByteWriter) {
        out.bytes(&self.open);
    }

    /// Takes up what was written, beside `records`.
    ///
    /// # Errors
    /// When it is not what was written.
    pub fn resume(
        records: Box<dyn UnitStore>,
        from: &mut ByteReader<'_>,
    ) -> Result<Self, Malformed> {
        let open = from.bytes("bytes of a log")?;
        if open.len() >= records.record_bytes() {
            return Err(from.malformed("bytes of a log"));
        }
        Ok(Self { records, open: open.to_vec() })
    }
}

#[cfg(test)]
mod tests {
    use crate::memory::InMemoryStore;

    use super::*;

    fn byte(at: usize) -> u8 {
        (at * 7 % 251) as u8
    }

    #[test]
    fn any_range_reads_back_whatever_the_records() {
        let mut log = ByteLog::new(Box::new(InMemoryStore::new(10).unwrap()));
        let mut at = 0;
        for n in [0, 3, 7, 1, 25, 0, 9, 10, 4] {
            let bytes: Vec<u8> = (at..at + n).map(byte).collect();
            log.append(&bytes).unwrap();
            at += n;
        }
        assert_eq!((log.len(), log.n_records()), (59, 5));
        for start in 0..=59 {
            for end in start..=59 {
                let mut read = vec![1];
                log.read(start..end, &mut read).unwrap();
                assert!(read[1..].iter().copied().eq((start..end).map(byte)), "{start}..{end}");
            }
        }
        for len in [59, 55, 50, 41, 3, 0] {
            log.truncate(len).unwrap();
            let mut read = Vec::new();
            log.read(0..len, &mut read).unwrap();
            assert!(log.len() == len && read.iter().copied().eq((0..len).map(byte)), "{len}");
        }
    }
}
