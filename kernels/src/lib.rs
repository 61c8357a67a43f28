//! What does each operation compute, and where does it run? The naive twins are plain loops that
//! define every operation; the kernels (`cuda/`) are what a GPU runs, each with a typed launcher;
//! and a device is either a GPU or the host emulation of one.
//!
//! Invariant: nothing here knows of models, memories or files of theirs; slices in, arrays out.

mod any;
mod budget;
mod compile;
mod cublas;
mod cuda;
mod device;
mod emulated;
mod error;
mod files;
mod launch;
pub mod naive;
mod source;

pub use any::{AnyBuffer, AnyDevice, AnyProgram};
pub use compile::{Capability, Compiled, Compiler, KernelUse, Target, kernel_uses};
pub use cuda::{Cuda, CudaBuffer, CudaProgram, Gpu};
pub use device::{Array, Device, DeviceBuffer, DevicePointer, Geometry, HalfProduct, WeightFormat};
pub use emulated::{Emulated, EmulatedBuffer, EmulatedLibrary, EmulatedProgram, ThreadOrder};
pub use error::DeviceError;
pub use launch::ask::{Ask, BlockRef, LookUp, SegmentIndex, UnitTable, VoteKind};
pub use launch::attend_few::AttendFewKernels;
pub use launch::attend_many::AttendManyKernels;
pub use launch::dense::{DenseKernels, DenseMatrix, DenseView, Library, MANY_ROWS};
pub use launch::draw::{DrawKernels, LogitEdit};
pub use launch::few_rows::OutputMode;
pub use launch::lookup::LookupKernels;
pub use launch::paged::{AttendStep, AttentionSizes, PageRef, PagedSequence};
pub use launch::pages::{PageKernels, PageSlot};
pub use launch::products::{ProductKernels, QuantizedMatrix, WeightBits};
pub use launch::rows::{Norm, RowKernels};
pub use source::ProgramSource;
