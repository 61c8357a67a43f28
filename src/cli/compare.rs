//! What is compared with what? Settings under the names of their files, and texts likewise.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::failure::Failure;
use super::input::{NotText, Source};
use super::run_flags::RunFlags;
use super::settings::Settings;
use crate::eval::Policy;

/// The settings of flags and `--config`, or those of each file compared.
pub(super) fn policies(
    compare: &[PathBuf],
    flags: &RunFlags,
    settings: &Settings,
) -> Result<Vec<Policy>, Failure> {
    if compare.is_empty() {
        let name = "default".to_owned();
        return Ok(vec![Policy { name, memory: settings.memory.clone() }]);
    }
    let policy = |path: &PathBuf| {
        let mut of_file = Settings::from_file(path)?;
        let memory_alone = Settings { memory: of_file.memory.clone(), ..Settings::default() };
        if of_file != memory_alone {
            return Err(Failure::usage(format!(
                "{}: files of --compare set the memory alone, and this one sets more; give the model \
                 and the like by flags or --config",
                path.display()
            )));
        }
        flags.change_memory(&mut of_file.memory);
        Ok(Policy { name: stem(path), memory: of_file.memory })
    };
    let policies: Vec<Policy> = compare.iter().map(policy).collect::<Result<_, Failure>>()?;
    if let Some(name) = twice(policies.iter().map(|policy| &policy.name)) {
        return Err(Failure::usage(format!("--compare names {name} twice; rename a file")));
    }
    Ok(policies)
}

/// The first name that came before: results are told apart by names.
pub(super) fn twice<'a>(mut names: impl Iterator<Item = &'a String>) -> Option<&'a String> {
    let mut seen = HashSet::new();
    names.find(|name| !seen.insert(*name))
}

fn stem(path: &Path) -> String {
    path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned())
}

/// A text, by the name of its file.
pub(super) fn read(path: &Path) -> Result<(String, String), Failure> {
    Ok((stem(path), Source::File(path.to_owned()).read(NotText::Refuse)?))
}
