//! What does each operation compute, and where does it run? Today: the naive twins, plain loops
//! that define every operation and against which faster ones are tested. Device kernels, their
//! launchers and their run-time compilation come beside them.
//!
//! Invariant: nothing here knows of models, memories or files; slices in, vectors out.

pub mod naive;
