//! Do the kernels compute what their twins say, on every device that is there?

mod attention;
mod compiled;
mod dense;
mod devices;
mod draw;
mod faults;
mod lookup;
mod pages;
mod products;
mod rows;
