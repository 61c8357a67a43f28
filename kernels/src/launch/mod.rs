//! How are kernels launched? One file beside each file of kernels: it says in which geometry, and makes sure
//! that nothing is touched outside of the arrays given. That is what each launch's safety rests on.

pub mod rows;
