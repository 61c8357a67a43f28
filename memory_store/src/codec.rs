//! How are numbers and strings laid out in our files? Little-endian and length-first, and read
//! back without ever believing a length: a reader that runs out of bytes says `None`.

use xxhash_rust::xxh3::xxh3_64;

/// The checksum of everything in the store: XXH3, 64 bits, seed 0.
#[inline]
pub(crate) fn checksum(bytes: &[u8]) -> u64 {
    xxh3_64(bytes)
}

/// Bytes being written.
#[derive(Default)]
pub(crate) struct Encoder {
    bytes: Vec<u8>,
}

impl Encoder {
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    pub(crate) fn u8(&mut self, value: u8) -> &mut Self {
        self.raw(&[value])
    }

    pub(crate) fn u32(&mut self, value: u32) -> &mut Self {
        self.raw(&value.to_le_bytes())
    }

    pub(crate) fn u64(&mut self, value: u64) -> &mut Self {
        self.raw(&value.to_le_bytes())
    }

    /// A length of 8 bytes, then the bytes.
    pub(crate) fn run(&mut self, bytes: &[u8]) -> &mut Self {
        self.u64(bytes.len() as u64).raw(bytes)
    }

    /// A byte that says whether there is a number, then the number or zero.
    pub(crate) fn maybe_u64(&mut self, value: Option<u64>) -> &mut Self {
        self.u8(u8::from(value.is_some())).u64(value.unwrap_or(0))
    }

    /// What was written, followed by its checksum.
    pub(crate) fn sealed(mut self) -> Vec<u8> {
        let sum = checksum(&self.bytes);
        self.u64(sum);
        self.bytes
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

/// Bytes being read, from the front.
#[derive(Clone, Copy)]
pub(crate) struct Decoder<'a> {
    bytes: &'a [u8],
}

impl<'a> Decoder<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// The bytes before a trailing checksum, when it is theirs.
    pub(crate) fn unsealed(bytes: &'a [u8]) -> Option<Self> {
        let (body, sum) = bytes.split_last_chunk::<8>()?;
        (checksum(body) == u64::from_le_bytes(*sum)).then(|| Self::new(body))
    }

    pub(crate) fn raw(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.bytes.split_at_checked(len)?;
        self.bytes = rest;
        Some(head)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.bytes.split_first_chunk::<N>()?;
        self.bytes = rest;
        Some(*head)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn run(&mut self) -> Option<&'a [u8]> {
        let len = self.u64()?;
        self.raw(usize::try_from(len).ok()?)
    }

    pub(crate) fn string(&mut self) -> Option<String> {
        String::from_utf8(self.run()?.to_vec()).ok()
    }

    pub(crate) fn maybe_u64(&mut self) -> Option<Option<u64>> {
        match (self.u8()?, self.u64()?) {
            (0, 0) => Some(None),
            (1, value) => Some(Some(value)),
            _ => None,
        }
    }

    /// How many things of at least `each` bytes follow: never more than there are bytes for, so
    /// that room can be made for them.
    pub(crate) fn count(&mut self, each: usize) -> Option<usize> {
        let n = usize::try_from(self.u32()?).ok()?;
        (n <= self.bytes.len() / each.max(1)).then_some(n)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}
