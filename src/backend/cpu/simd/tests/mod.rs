//! Does every instruction set mean the same by each word of the vocabulary, and do the small loops
//! written in it do what they say? On every set, against plain arithmetic.

mod loops;
mod turning;
mod vocabulary;
