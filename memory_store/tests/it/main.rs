//! Does the store keep what it promises, whatever happens to its disk? One binary, by subject.

mod contexts;
mod damage;
mod io_errors;
mod power;
mod scratch;
mod script;
