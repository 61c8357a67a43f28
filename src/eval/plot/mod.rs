//! How does a memory fare, at a glance? Pictures of an evaluation's results, as SVG and as PNG.
//!
//! ```text
//! records ── cells (what is shown) ── heat, curves (where it stands) ── picture (marks on a page)
//!                                                                        └ svg, canvas: marks drawn
//! ```
//!
//! Invariant: the same records make the same SVG, byte for byte.

mod axes;
mod canvas;
mod cells;
mod curves;
mod error;
mod heat;
mod labels;
mod letters;
mod picture;
mod spread;
mod style;

use std::path::{Path, PathBuf};

pub use error::PlotError;

use super::record::Record;
use super::task::Task;
use cells::{Curves, HeatMaps};
use picture::Picture;

/// A folder that pictures are written to.
#[derive(Debug)]
pub struct PlotFolder(PathBuf);

impl PlotFolder {
    /// The folder at `path`, made if it is missing.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(path: &Path) -> Result<Self, PlotError> {
        std::fs::create_dir_all(path)
            .map_err(|source| PlotError::Folder { path: path.to_owned(), source })?;
        Ok(Self(path.to_owned()))
    }

    /// Writes the pictures of each task that `records` has results of: `<task>-heat` where answers
    /// lie at depths, and `<task>-length`. What was written is returned.
    ///
    /// # Errors
    /// When a picture cannot be drawn, or a file not be written; those before it are there.
    pub fn write(&self, records: &[Record]) -> Result<Vec<PathBuf>, PlotError> {
        let mut written = Vec::new();
        for task in Task::ALL {
            let heat = HeatMaps::of(records, task).map(|maps| heat::draw(&maps));
            let curves = Curves::of(records, task).map(|curves| curves::draw(&curves));
            for (kind, picture) in [(style::HEAT, heat), (style::CURVES, curves)] {
                let Some(picture) = picture else { continue };
                self.write_picture(&format!("{task}-{kind}"), &picture, &mut written)?;
            }
        }
        Ok(written)
    }

    fn write_picture(
        &self,
        name: &str,
        picture: &Picture,
        written: &mut Vec<PathBuf>,
    ) -> Result<(), PlotError> {
        for (ending, drawn) in [("svg", picture.svg()), ("png", picture.png())] {
            let path = self.0.join(format!("{name}.{ending}"));
            let bytes = drawn.map_err(|cause| PlotError::Draw { path: path.clone(), cause })?;
            std::fs::write(&path, bytes)
                .map_err(|source| PlotError::Write { path: path.clone(), source })?;
            written.push(path);
        }
        Ok(())
    }
}
