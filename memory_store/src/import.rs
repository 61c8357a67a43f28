//! How does a context enter the store from a file? Its records go into segments that no row refers
//! to; only when the file's digest is right is the row written. Lengths that the file claims are
//! not believed: no more memory is taken than there are bytes.

use std::io::Read;

use crate::export::{MAGIC, VERSION};
use crate::row::{Row, RowFault, StreamRow};
use crate::{Commit, ContextSummary, Store, StoreError};

/// What it is called in messages.
const FILE: &str = "the export";

/// A row longer than this is none of ours.
const MAX_ROW_BYTES: u64 = 1 << 30;

impl Store {
    /// Reads a context that [`export`](Self::export) wrote, and keeps it as `name`, or as what it
    /// was called.
    ///
    /// # Errors
    /// When the file is not whole and unchanged, a newer program wrote it, the name is taken, or
    /// the store cannot be written; nothing is then visible.
    pub fn import(
        &self,
        tenant: &str,
        name: Option<&str>,
        input: &mut dyn Read,
    ) -> Result<ContextSummary, StoreError> {
        let mut input = Digesting { input, hasher: blake3::Hasher::new() };
        let row = read_header(&mut input)?;
        let name = name.unwrap_or(&row.key.name);
        if self.row(tenant, name).is_ok() {
            return Err(StoreError::NameTaken { name: name.to_owned() });
        }
        let shapes: Vec<_> = row.streams.iter().map(|stream| stream.shape).collect();
        let mut context = self.create(&shapes);
        for (i, stream) in row.streams.iter().enumerate() {
            let mut to = context.stream(i);
            for _ in 0..stream.records {
                to.append(&input.read(stream.shape.record_bytes as u64)?)?;
            }
        }
        let tail = input.read(row.tail.map_or(0, |tail| tail.bytes))?;
        check_digest(&mut input)?;
        context.commit(Commit {
            tenant: tenant.to_owned(),
            name: name.to_owned(),
            fingerprint: row.fingerprint,
            prefix_key: row.prefix_key,
            length: row.length,
            meta: row.meta,
            records: row.streams.iter().map(|stream: &StreamRow| stream.records).collect(),
            tail,
        })?;
        context.sync()?;
        Ok(context.summary().expect("because it was committed").clone())
    }
}

fn read_header(input: &mut Digesting<'_>) -> Result<Row, StoreError> {
    if input.read(MAGIC.len() as u64)? != MAGIC {
        return Err(StoreError::damaged(FILE, "it does not begin like an export"));
    }
    let version = u32::from_le_bytes(input.array()?);
    if version > VERSION {
        let (file, supported) = (FILE.to_owned(), VERSION);
        return Err(StoreError::NewerFormat { file, found: version, supported });
    }
    let row_bytes = u64::from_le_bytes(input.array()?);
    if row_bytes > MAX_ROW_BYTES {
        return Err(StoreError::damaged(FILE, "its row is longer than any"));
    }
    let row = Row::decode(&input.read(row_bytes)?);
    row.map_err(|fault| match fault {
        RowFault::Newer(found) => {
            let (file, supported) = (FILE.to_owned(), crate::row::VERSION);
            StoreError::NewerFormat { file, found, supported }
        }
        RowFault::Damaged => StoreError::damaged(FILE, "its row is not what was written"),
    })
}

/// The digest must be right, and the last of the file.
fn check_digest(input: &mut Digesting<'_>) -> Result<(), StoreError> {
    let digest = input.hasher.finalize();
    if input.array::<32>()? != *digest.as_bytes() {
        return Err(StoreError::damaged(FILE, "its digest is wrong"));
    }
    let mut more = [0];
    match input.input.read(&mut more) {
        Ok(0) => Ok(()),
        Ok(_) => Err(StoreError::damaged(FILE, "bytes follow its digest")),
        Err(error) => Err(StoreError::io("read", FILE, &error)),
    }
}

struct Digesting<'a> {
    input: &'a mut dyn Read,
    hasher: blake3::Hasher,
}

impl Digesting<'_> {
    /// The next `len` bytes; room for them is made as they come.
    fn read(&mut self, len: u64) -> Result<Vec<u8>, StoreError> {
        let mut bytes = Vec::new();
        let read = self.input.take(len).read_to_end(&mut bytes);
        read.map_err(|error| StoreError::io("read", FILE, &error))?;
        if (bytes.len() as u64) < len {
            return Err(StoreError::damaged(FILE, "it ends too early"));
        }
        self.hasher.update(&bytes);
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], StoreError> {
        let bytes = self.read(N as u64)?;
        Ok(*bytes.first_chunk().expect("because so many were read"))
    }
}
