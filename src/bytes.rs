//! How are numbers written into bytes that outlive the process? One after the other, little-endian,
//! lengths first; what is read back is checked against what there is, and nothing is allocated that
//! the bytes do not hold.

/// Writes numbers and bytes.
#[derive(Clone, Debug, Default)]
pub struct ByteWriter {
    bytes: Vec<u8>,
}

/// Bytes that are not what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} is not what was written there (byte {at})")]
pub struct Malformed {
    /// What was being read.
    pub what: &'static str,
    /// Where.
    pub at: usize,
}

impl ByteWriter {
    /// Nothing written yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A byte.
    pub fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    /// A 32-bit number.
    pub fn u32(&mut self, value: u32) {
        self.bytes.extend(value.to_le_bytes());
    }

    /// A number of things.
    pub fn len(&mut self, value: usize) {
        self.bytes.extend((value as u64).to_le_bytes());
    }

    /// A number of things that may be absent.
    pub fn optional_len(&mut self, value: Option<usize>) {
        self.u8(u8::from(value.is_some()));
        self.len(value.unwrap_or(0));
    }

    /// Bytes, their number first.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.len(bytes.len());
        self.bytes.extend_from_slice(bytes);
    }

    /// Numbers, how many first.
    pub fn u32s(&mut self, values: &[u32]) {
        self.len(values.len());
        values.iter().for_each(|value| self.u32(*value));
    }

    /// Floats, how many first.
    pub fn f32s(&mut self, values: &[f32]) {
        self.len(values.len());
        values.iter().for_each(|value| self.bytes.extend(value.to_le_bytes()));
    }

    /// All that was written.
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

/// Reads what a [`ByteWriter`] wrote.
#[derive(Clone, Debug)]
pub struct ByteReader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> ByteReader<'a> {
    /// Whether there is nothing more.
    pub fn is_at_end(&self) -> bool {
        self.at == self.bytes.len()
    }

    /// From the first byte on.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The error that `what` is not what was written.
    pub fn malformed(&self, what: &'static str) -> Malformed {
        Malformed { what, at: self.at }
    }

    fn take(&mut self, n: usize, what: &'static str) -> Result<&'a [u8], Malformed> {
        let taken = self.bytes[self.at..].get(..n).ok_or(self.malformed(what))?;
        self.at += n;
        Ok(taken)
    }

    /// A byte.
    ///
    /// # Errors
    /// When nothing is left.
    pub fn u8(&mut self, what: &'static str) -> Result<u8, Malformed> {
        self.take(1, what).map(|byte| byte[0])
    }

    /// A 32-bit number.
    ///
    /// # Errors
    /// When too little is left.
    pub fn u32(&mut self, what: &'static str) -> Result<u32, Malformed> {
        let bytes = self.take(4, what)?;
        Ok(u32::from_le_bytes(bytes.try_into().expect("because it is four bytes")))
    }

    /// A number of things.
    ///
    /// # Errors
    /// When too little is left, or this machine cannot count so far.
    pub fn len(&mut self, what: &'static str) -> Result<usize, Malformed> {
        let malformed = self.malformed(what);
        let bytes = self.take(8, what)?;
        let value = u64::from_le_bytes(bytes.try_into().expect("because it is eight bytes"));
        usize::try_from(value).map_err(|_| malformed)
    }

    /// A number of things that may be absent.
    ///
    /// # Errors
    /// As [`len`](Self::len).
    pub fn optional_len(&mut self, what: &'static str) -> Result<Option<usize>, Malformed> {
        let is_there = self.u8(what)? != 0;
        let value = self.len(what)?;
        Ok(is_there.then_some(value))
    }

    /// Bytes.
    ///
    /// # Errors
    /// When there are fewer than was written.
    pub fn bytes(&mut self, what: &'static str) -> Result<&'a [u8], Malformed> {
        let n = self.len(what)?;
        self.take(n, what)
    }

    /// A text.
    ///
    /// # Errors
    /// When there is less than was written, or it is no text.
    pub fn string(&mut self, what: &'static str) -> Result<String, Malformed> {
        let malformed = self.malformed(what);
        String::from_utf8(self.bytes(what)?.to_vec()).map_err(|_| malformed)
    }

    /// Numbers.
    ///
    /// # Errors
    /// As [`bytes`](Self::bytes).
    pub fn u32s(&mut self, what: &'static str) -> Result<Vec<u32>, Malformed> {
        let quarters = self.quarters(what)?;
        Ok(quarters.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect())
    }

    /// Floats.
    ///
    /// # Errors
    /// As [`bytes`](Self::bytes).
    pub fn f32s(&mut self, what: &'static str) -> Result<Vec<f32>, Malformed> {
        let quarters = self.quarters(what)?;
        Ok(quarters.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
    }

    fn quarters(&mut self, what: &'static str) -> Result<&'a [[u8; 4]], Malformed> {
        let n = self.len(what)?;
        let n_bytes = n.checked_mul(4).ok_or(self.malformed(what))?;
        Ok(self.take(n_bytes, what)?.as_chunks().0)
    }

    /// Makes sure that nothing is left.
    ///
    /// # Errors
    /// When something is.
    pub fn finish(self, what: &'static str) -> Result<(), Malformed> {
        if self.at == self.bytes.len() { Ok(()) } else { Err(self.malformed(what)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written() -> Vec<u8> {
        let mut writer = ByteWriter::new();
        writer.u8(7);
        writer.u32(1 << 31);
        writer.len(1 << 40);
        writer.optional_len(None);
        writer.optional_len(Some(3));
        writer.bytes(b"abc");
        writer.u32s(&[1, 2, 3]);
        writer.f32s(&[0.5, f32::NEG_INFINITY]);
        writer.finish()
    }

    fn read(bytes: &[u8]) -> Result<(), Malformed> {
        let mut reader = ByteReader::new(bytes);
        reader.u8("a")?;
        reader.u32("b")?;
        reader.len("c")?;
        reader.optional_len("d")?;
        reader.optional_len("e")?;
        reader.bytes("f")?;
        reader.u32s("g")?;
        reader.f32s("h")?;
        reader.finish("end")
    }

    #[test]
    fn what_was_written_reads_back() {
        let bytes = written();
        let mut reader = ByteReader::new(&bytes);
        assert_eq!(reader.u8(""), Ok(7));
        assert_eq!(reader.u32(""), Ok(1 << 31));
        assert_eq!(reader.len(""), Ok(1 << 40));
        assert_eq!(reader.optional_len(""), Ok(None));
        assert_eq!(reader.optional_len(""), Ok(Some(3)));
        assert_eq!(reader.bytes(""), Ok(&b"abc"[..]));
        assert_eq!(reader.u32s(""), Ok(vec![1, 2, 3]));
        assert_eq!(reader.f32s(""), Ok(vec![0.5, f32::NEG_INFINITY]));
        assert_eq!(reader.finish(""), Ok(()));
    }

    #[test]
    fn bytes_cut_off_or_left_over_are_an_error_and_no_length_is_believed() {
        let bytes = written();
        for n in 0..bytes.len() {
            assert!(read(&bytes[..n]).is_err(), "{n} bytes");
        }
        assert!(read(&[&bytes[..], &[0]].concat()).is_err());
        let lengths = u64::MAX.to_le_bytes();
        assert!(ByteReader::new(&lengths).bytes("").is_err());
        assert!(ByteReader::new(&lengths).f32s("").is_err());
    }
}
