//! Device kernels and their naive twins.
