//! Do the kernels compute what their twins say, on every device that is there?

mod compiled;
mod devices;
mod faults;
mod rows;
