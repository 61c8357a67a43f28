//! What can go wrong with pictures?

use std::path::PathBuf;

/// A picture could not be made.
#[derive(Debug, thiserror::Error)]
pub enum PlotError {
    /// The folder is not there and cannot be made.
    #[error("{}: cannot be made a folder of pictures: {source}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file cannot be written.
    #[error("{}: the picture cannot be written: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A picture cannot be drawn.
    #[error("{}: the picture cannot be drawn: {cause}", path.display())]
    Draw {
        /// The file that it was meant for.
        path: PathBuf,
        /// Why, as what draws puts it.
        cause: String,
    },
}
