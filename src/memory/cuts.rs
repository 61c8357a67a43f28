//! Where does a unit end? After as many tokens as a page holds; or earlier, by up to a quarter, at
//! the strongest border there is: the end of a sentence, or before a token that surprises (EM-LLM,
//! arXiv 2407.09450). How strong borders are is known after a chunk has passed, when its keys are
//! written: keys and values of the page that is open are kept as they came, to be written again.

use super::error::MemoryError;
use crate::attention::Qkv;
use crate::backend::{Backend, BackendError};
use crate::bytes::{ByteReader, ByteWriter};

/// Tokens whose page may still be cut, from its first token on.
pub(super) struct OpenTokens<B: Backend> {
    /// Index in the text of the first.
    pub first: usize,
    pub keys: Vec<B::Buffer>,   // [layer], each [token][kv_head][head_dim]
    pub values: Vec<B::Buffer>, // likewise
    borders: Vec<f32>,          // [token]: how strong the border before it is
}

impl<B: Backend> OpenTokens<B> {
    /// Room for `most` tokens, of which the first will have index `first`.
    ///
    /// # Errors
    /// When there is no such room.
    pub fn new(
        backend: &B,
        (n_layers, width): (usize, usize),
        (first, most): (usize, usize),
    ) -> Result<Self, BackendError> {
        let buffers =
            || (0..n_layers).map(|_| backend.buffer(most * width)).collect::<Result<_, _>>();
        Ok(Self { first, keys: buffers()?, values: buffers()?, borders: Vec::new() })
    }

    /// A copy; sizes as of [`new`](Self::new).
    ///
    /// # Errors
    /// When there is no room for it.
    pub fn fork(
        &self,
        backend: &B,
        (n_layers, width): (usize, usize),
        most: usize,
    ) -> Result<Self, BackendError> {
        let mut fork = Self::new(backend, (n_layers, width), (self.first, most))?;
        let rows = 0..self.borders.len();
        for (to, from) in [(&mut fork.keys, &self.keys), (&mut fork.values, &self.values)] {
            for (to, from) in to.iter_mut().zip(from) {
                backend.copy_rows((from, rows.clone()), (to, 0), width);
            }
        }
        fork.borders.clone_from(&self.borders);
        Ok(fork)
    }

    /// Writes the tokens that there are.
    pub fn write(&self, backend: &B, (n_layers, width): (usize, usize), out: &mut ByteWriter) {
        out.len(self.first);
        out.f32s(&self.borders);
        let mut rows = vec![0.0; self.borders.len() * width];
        for layer in 0..n_layers {
            for buffer in [&self.keys[layer], &self.values[layer]] {
                backend.download((buffer, 0), &mut rows);
                out.f32s(&rows);
            }
        }
    }

    /// Reads what was written; sizes as of [`new`](Self::new).
    ///
    /// # Errors
    /// When it is not what was written.
    pub fn read(
        backend: &B,
        (most, (n_layers, width)): (usize, (usize, usize)),
        from: &mut ByteReader<'_>,
    ) -> Result<Self, MemoryError> {
        let first = from.len("open tokens")?;
        let mut open = Self::new(backend, (n_layers, width), (first, most))?;
        open.borders = from.f32s("borders of open tokens")?;
        let n = open.borders.len();
        if n > most {
            return Err(from.malformed("borders of open tokens").into());
        }
        for layer in 0..n_layers {
            for buffer in [&mut open.keys[layer], &mut open.values[layer]] {
                let rows = from.f32s("keys and values of open tokens")?;
                if rows.len() != n * width {
                    return Err(from.malformed("keys and values of open tokens").into());
                }
                backend.copy_rows((&backend.upload(&rows)?, 0..n), (buffer, 0), width);
            }
        }
        Ok(open)
    }

    /// Tokens that there are.
    pub fn n_tokens(&self) -> usize {
        self.borders.len()
    }

    /// Keeps what a layer's chunk, whose first token has index `index`, brings.
    pub fn keep(
        &mut self,
        backend: &B,
        (layer, index): (usize, usize),
        chunk: &Qkv<'_, B>,
        width: usize,
    ) {
        let skipped = self.first.saturating_sub(index).min(chunk.n_tokens());
        let at = (index + skipped).saturating_sub(self.first);
        let rows = chunk.rows.start + skipped..chunk.rows.end;
        backend.copy_rows((chunk.keys, rows.clone()), (&mut self.keys[layer], at), width);
        backend.copy_rows((chunk.values, rows), (&mut self.values[layer], at), width);
    }

    /// Takes note of the borders, if there are any, before `n_tokens` tokens from `index` on.
    pub fn note(&mut self, index: usize, (n_tokens, borders): (usize, Option<&[f32]>)) {
        let skipped = self.first.saturating_sub(index).min(n_tokens);
        match borders {
            Some(borders) => self.borders.extend_from_slice(&borders[skipped..]),
            None => self.borders.resize(self.borders.len() + n_tokens - skipped, 0.0),
        }
    }

    /// The lengths of the pages that are complete, when they hold at most `page_len` tokens.
    pub fn cut(&self, page_len: usize) -> Vec<usize> {
        let (mut at, mut lengths) = (0, Vec::new());
        while self.borders.len() - at > page_len {
            let borders = &self.borders[at..];
            let least = page_len - page_len / 4;
            let stronger = |best: usize, len| if borders[len] > borders[best] { len } else { best };
            let length = (least..page_len).rev().fold(page_len, stronger);
            lengths.push(length);
            at += length;
        }
        lengths
    }

    /// Forgets the first `n` tokens.
    pub fn forget(&mut self, backend: &B, n: usize, width: usize) {
        self.first += n;
        let rows = n..self.borders.len();
        self.borders.drain(..n);
        for buffer in self.keys.iter_mut().chain(&mut self.values) {
            backend.keep_rows(buffer, rows.clone(), width);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Precision;
    use crate::backend::cpu::CpuBackend;

    fn lengths(n_tokens: usize, borders: &[(usize, f32)]) -> Vec<usize> {
        let backend = CpuBackend::new(1, Precision::F32);
        let mut open = OpenTokens::new(&backend, (0, 1), (0, 0)).unwrap();
        open.borders.resize(n_tokens, 0.0);
        borders.iter().for_each(|(at, strength)| open.borders[*at] = *strength);
        open.cut(16)
    }

    #[test]
    fn pages_end_at_their_strongest_border_and_the_last_may_still_grow() {
        assert_eq!(lengths(16, &[]), [0; 0], "the token after it decides as well");
        assert_eq!(lengths(40, &[]), [16, 16]);
        assert_eq!(lengths(40, &[(13, 1.0)]), [13, 16]);
        assert_eq!(lengths(40, &[(11, 9.0), (13, 1.0), (15, 2.0), (30, 1.0)]), [15, 15]);
        assert_eq!(lengths(17, &[(12, 1.0), (14, 1.0)]), [14], "of equals the later");
        assert_eq!(lengths(17, &[(12, 1.0), (16, 1.0)]), [16]);
    }
}
