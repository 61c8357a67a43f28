//! How is each kind of question made? One file a kind; each makes a document and its cases from
//! random numbers alone.

pub mod kv;
pub mod needle;
pub mod noise;
pub mod prose;
pub mod qa;
pub mod tracking;
pub mod words;
