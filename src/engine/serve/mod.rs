//! How are many texts served by one model? Each is a [`Task`] given to the [`Server`]'s thread, which
//! runs one step after another: whose turn it is decides the schedule, their chunks go through the
//! model together, and what comes of it is sent to whoever waits for it.
//!
//! ```text
//! caller --Task--> Server thread: plan -> forward pass -> draw, save, send --Event--> caller
//! ```
//!
//! Not here: what a request is, who may make it, and where its text comes from.

mod place;
mod recent;
mod schedule;
mod sequence;
mod trace;
mod worker;

pub use place::Place;
pub use recent::RecentSessions;
pub use schedule::{Demand, Schedule, ScheduleConfig, SchedulePolicy, SequenceId, TOKEN_COST};
pub use sequence::{About, Answers, Ended, Event, Saving, Stage, Task, Work};
pub use worker::{Server, ServerLimits, ServerMeasures};
