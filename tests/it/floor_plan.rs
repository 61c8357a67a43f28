//! Does the house stand as ARCHITECTURE.md draws it? Reads the sources and fails when
//! - a floor imports upwards, or from a neighbour on its own floor;
//! - a crate is used by others than the floor it is for;
//! - modules import from each other in a ring, at any depth;
//! - `unsafe` stands anywhere but in its few places;
//! - a file is longer than one sitting.
//!
//! ```text
//! 7 cli      6 api | agent      5 engine      4 model | memory | tokenizer | hub
//! 3 attention      2 backend      1 tensor      0 ids
//! ```

mod modules;
mod words;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use modules::{Import, Modules, Target, rings, show};
use words::{Word, without_tests, words};

/// The floors, lowest first.
const FLOORS: [&[&str]; 8] = [
    &["ids", "bytes"],
    &["tensor"],
    &["backend"],
    &["attention"],
    &["model", "memory", "tokenizer", "hub"],
    &["engine"],
    &["api", "agent", "eval"],
    &["cli"],
];

/// Who may use the workspace's crates: a module and all below it.
const CRATE_USERS: [(&str, &[&str]); 2] =
    [("kernels", &["backend", "cuda"]), ("memory_store", &["memory"])];

/// Where `unsafe` may stand: files, and beginnings of paths.
const UNSAFE_PLACES: [&str; 5] = [
    "src/backend/cpu/simd",
    "src/backend/cpu/pool.rs",
    "src/tensor/mapped.rs",
    "memory_store/src/mapped.rs",
    "kernels/",
];

/// Lines of a file without its tests.
const MOST_LINES: usize = 500;

fn floor(module: &str) -> Option<usize> {
    FLOORS.iter().position(|rooms| rooms.contains(&module))
}

/// What is wrong with one import, if anything.
fn import_fault(import: &Import) -> Option<String> {
    let from = import.from.first()?; // the root may name everything
    let name = show(&import.from);
    let Some(from_floor) = floor(from) else {
        return Some(format!("{name}: the module {from} has no floor; give it one in FLOORS"));
    };
    match &import.to {
        Target::Crate(used) => {
            let (_, user) = CRATE_USERS.iter().find(|(of, _)| of == used)?;
            let may = import.from.iter().take(user.len()).eq(user.iter());
            (!may)
                .then(|| format!("{name} uses the crate {used}, which is for {}", user.join("::")))
        }
        Target::Module(to) => {
            let Some(room) = to.first() else {
                return Some(format!("{name} imports from the crate's root, which is above it"));
            };
            let to_floor = floor(room)?; // its own imports say that it has none
            let is_allowed = to_floor < from_floor || room == from;
            let direction = if to_floor == from_floor { "its neighbour" } else { "upwards from" };
            (!is_allowed).then(|| format!("{name} imports {direction} {}", show(to)))
        }
    }
}

/// Everything that is wrong with the root crate's imports.
fn house_faults(source: &dyn Fn(&str) -> Option<String>) -> Vec<String> {
    let modules = match Modules::read(source) {
        Ok(modules) => modules,
        Err(fault) => return vec![fault],
    };
    let imports = modules.imports();
    let mut faults: Vec<String> = imports.iter().filter_map(import_fault).collect();
    let rooms = modules.all().filter(|module| module.len() == 1);
    let homeless = rooms.filter(|module| floor(&module[0]).is_none());
    faults.extend(homeless.map(|module| format!("{} has no floor", show(module))));
    faults.extend(ring_faults(&imports));
    faults
}

/// Everything that is wrong with a library crate's imports: it may use no other of the workspace.
fn library_faults(source: &dyn Fn(&str) -> Option<String>) -> Vec<String> {
    let imports = match Modules::read(source) {
        Ok(modules) => modules.imports(),
        Err(fault) => return vec![fault],
    };
    let outside = imports.iter().filter_map(|import| match &import.to {
        Target::Crate(used) => Some(format!("{} uses the crate {used}", show(&import.from))),
        Target::Module(_) => None,
    });
    outside.chain(ring_faults(&imports)).collect()
}

fn ring_faults(imports: &BTreeSet<Import>) -> Vec<String> {
    let show_all = |ring: Vec<_>| {
        let edges: Vec<String> =
            ring.into_iter().map(|(from, to)| format!("{} -> {}", show(from), show(to))).collect();
        format!("a ring of imports: {}", edges.join(", "))
    };
    rings(imports).into_iter().map(show_all).collect()
}

/// What is wrong with one file on its own.
fn file_faults(path: &str, source: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let may_be_unsafe = UNSAFE_PLACES.iter().any(|place| path.starts_with(place));
    let is_unsafe = |word: &Word| word.is_name("unsafe");
    if !may_be_unsafe && without_tests(&words(source)).iter().any(is_unsafe) {
        faults.push(format!("{path}: unsafe outside of {}", UNSAFE_PLACES.join(", ")));
    }
    let n_lines = source.lines().take_while(|line| line.trim_end() != "#[cfg(test)]").count();
    if n_lines > MOST_LINES {
        faults.push(format!("{path}: {n_lines} lines without tests; at most {MOST_LINES}"));
    }
    faults
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All Rust files below `folder`.
fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files = entries.flat_map(|path| if path.is_dir() { rust_files(&path) } else { vec![path] });
    files.filter(|path| path.extension().is_some_and(|ending| ending == "rs")).collect()
}

#[test]
fn floors_import_downwards_only_and_never_in_a_ring() {
    let source = |file: &str| std::fs::read_to_string(root().join("src").join(file)).ok();
    assert_eq!(house_faults(&source), Vec::<String>::new());
}

#[test]
fn library_crates_stand_alone() {
    for library in ["kernels", "memory_store"] {
        let folder = root().join(library).join("src");
        let source = |file: &str| std::fs::read_to_string(folder.join(file)).ok();
        assert_eq!(library_faults(&source), Vec::<String>::new(), "{library}");
    }
}

#[test]
fn unsafe_stands_in_its_few_places_and_files_are_short() {
    let mut n_files = 0;
    let mut faults = Vec::new();
    for folder in ["src", "kernels", "memory_store"] {
        for path in rust_files(&root().join(folder)) {
            let name = path.strip_prefix(root()).unwrap().to_str().unwrap().replace('\\', "/");
            faults.extend(file_faults(&name, &std::fs::read_to_string(&path).unwrap()));
            n_files += 1;
        }
    }
    assert_eq!(faults, Vec::<String>::new());
    assert!(n_files > 20, "the sources were not found");
}

/// The faults of a made-up house: files with their texts; `lib.rs` is made from their names.
fn made_up(files: &[(&str, &str)]) -> Vec<String> {
    let rooms = files.iter().filter_map(|(file, _)| {
        let room = file.strip_suffix("/mod.rs").or(file.strip_suffix(".rs"))?;
        (!room.contains('/')).then(|| format!("pub mod {room};"))
    });
    let lib: String = rooms.collect();
    house_faults(&|file| {
        if file == "lib.rs" {
            return Some(lib.clone());
        }
        files.iter().find(|(name, _)| *name == file).map(|(_, text)| (*text).to_owned())
    })
}

fn check_house(files: &[(&str, &str)], expected: &[&str]) {
    let faults = made_up(files);
    assert_eq!(faults.len(), expected.len(), "{faults:?} in {files:?}");
    for (fault, words) in faults.iter().zip(expected) {
        assert!(fault.contains(words), "{fault:?} does not say {words:?}");
    }
}

#[test]
fn the_checker_sees_imports_upwards_however_they_are_written() {
    let engine = ("engine.rs", "pub struct Engine;");
    let ways = [
        "use crate::engine::Engine;",
        "use crate::{ids::A, engine::{Engine as E}};",
        "pub use crate::engine::*;",
        "use super::engine;",
        "fn f() -> crate::engine::Engine { todo!() }",
        "fn f() { say!(crate::engine::Engine) }",
        "mod inner { use super::super::engine::Engine; }",
        "impl From<super::engine::Engine> for X {}",
    ];
    for way in ways {
        let room = ("tensor.rs", way);
        check_house(&[("ids.rs", ""), engine, room], &["tensor imports upwards from engine"]);
    }
    // Deep down it is seen as well, and named.
    let deep = [("tensor/mod.rs", "mod a;"), ("tensor/a.rs", "use super::super::engine::Engine;")];
    check_house(&[deep[0], deep[1], engine], &["tensor::a imports upwards from engine"]);
}

#[test]
fn the_checker_sees_neighbours_strangers_and_the_root() {
    let (model, memory) = (("model.rs", "use crate::memory::M;"), ("memory.rs", ""));
    check_house(&[model, memory], &["model imports its neighbour memory"]);
    check_house(&[("tokenizer.rs", "use crate::hub::H;"), ("hub.rs", "")], &["its neighbour hub"]);
    check_house(&[("helpers.rs", "")], &["helpers has no floor"]);
    check_house(&[("model.rs", "use crate::Engine;")], &["from the crate's root"]);
    check_house(&[("model.rs", "mod gone;")], &["no file for the module model::gone"]);
}

#[test]
fn the_checker_sees_crates_used_by_others_than_their_floor() {
    check_house(&[("engine.rs", "use memory_store::Record;")], &["which is for memory"]);
    check_house(&[("model.rs", "fn f() { kernels::naive::dot() }")], &["for backend::cuda"]);
    let backend =
        [("backend/mod.rs", "mod cpu; mod cuda;"), ("backend/cuda.rs", "use kernels::A;")];
    check_house(&[backend[0], backend[1], ("backend/cpu.rs", "")], &[]);
    check_house(
        &[backend[0], ("backend/cuda.rs", ""), ("backend/cpu.rs", "use kernels::A;")],
        &["backend::cpu uses"],
    );
    check_house(&[("memory.rs", "use memory_store::Record;")], &[]);
    check_house(&[("model.rs", "#[cfg(test)] mod tests { use kernels::naive; }")], &[]);
    let lib = |text: &'static str| {
        library_faults(&move |file| (file == "lib.rs").then(|| text.to_owned()))
    };
    assert_eq!(lib("use mneme::Engine;").len(), 1);
    assert_eq!(lib("use std::fmt;"), Vec::<String>::new());
}

#[test]
fn the_checker_sees_rings_also_through_names_passed_on() {
    let ring = |files: &[(&str, &str)]| check_house(files, &["a ring of imports"]);
    // Two siblings, and three.
    let memory = ("memory/mod.rs", "mod a; mod b; mod c;");
    let (a, c) = (("memory/a.rs", "use super::b::B;"), ("memory/c.rs", ""));
    ring(&[memory, a, ("memory/b.rs", "use super::a::A;"), c]);
    ring(&[
        memory,
        a,
        ("memory/b.rs", "use super::c::C;"),
        ("memory/c.rs", "fn f() { super::a::g() }"),
    ]);
    // Through their parent, which passes both on.
    let passing = ("memory/mod.rs", "mod a; mod b; pub use a::A; pub use b::{B as Bee};");
    ring(&[passing, ("memory/a.rs", "use super::Bee;"), ("memory/b.rs", "use crate::memory::A;")]);
    // A child that uses its parent's item, while the parent uses the child's.
    let child = ("memory/a.rs", "use super::Shape;");
    ring(&[("memory/mod.rs", "mod a; pub struct Shape; fn f() { a::go() }"), child]);
    ring(&[("memory/mod.rs", "mod a; use a::A; pub struct Shape;"), child]);
    ring(&[("memory/mod.rs", "mod a; pub use a::A; pub struct Shape(A);"), child]);
}

#[test]
fn the_checker_leaves_honest_houses_alone() {
    // A child may use its parent's items when the parent only passes its names on.
    let child = ("memory/a.rs", "use super::Shape;");
    check_house(&[("memory/mod.rs", "mod a; pub use a::A; pub struct Shape;"), child], &[]);
    // Names passed on belong to where they come from: b uses a, not the parent that uses both.
    let parent = ("memory/mod.rs", "mod a; mod b; pub use a::A; use b::B; fn f(a: A, b: B) {}");
    check_house(&[parent, ("memory/a.rs", ""), ("memory/b.rs", "use super::A;")], &[]);
    // Words in comments, strings and tests are no imports; neither are other crates' modules.
    let silent = "// use crate::cli;\n const A: &str = \"crate::cli\"; use std::path::Path; \
                  #[cfg(test)] mod tests { use crate::engine::Engine; use super::*; }";
    check_house(&[("ids.rs", silent), ("cli.rs", ""), ("engine.rs", "")], &[]);
    // Downwards is fine, and so is a module within a file that uses the file's own items.
    let simd = "mod avx2 { use super::Lane; } pub struct Lane; use crate::tensor::T;";
    check_house(&[("backend.rs", simd), ("tensor.rs", "")], &[]);
}

#[test]
fn the_checker_sees_unsafe_and_long_files() {
    let source = "fn f() { unsafe { g() } }";
    for path in ["src/model/forward.rs", "src/tensor/gguf.rs", "memory_store/src/lib.rs"] {
        assert_eq!(file_faults(path, source).len(), 1, "{path}");
        assert!(file_faults(path, "// unsafe\n#[cfg(test)]\nmod t { unsafe {} }").is_empty());
    }
    for path in ["src/backend/cpu/simd/avx2.rs", "src/backend/cpu/pool.rs", "kernels/src/a.rs"] {
        assert!(file_faults(path, source).is_empty(), "{path}");
    }
    assert_eq!(file_faults("src/a.rs", &"\n".repeat(501)).len(), 1);
    let tests = format!("{}#[cfg(test)]\n{}", "\n".repeat(500), "\n".repeat(500));
    assert!(file_faults("src/a.rs", &tests).is_empty());
}
