//! Does the store keep what it promises, whatever happens to its disk? One binary, by subject.

mod contexts;
mod damage;
mod formats;
mod io_errors;
mod kill;
mod limits;
mod moving;
mod power;
mod scratch;
mod script;
