//! Which module imports from which? Read from the sources: every path that begins with `crate`,
//! `self`, `super`, a child module or one of the workspace's crates counts, in `use` lines and
//! anywhere else. A name that a module only passes on (`pub use`) belongs to where it comes from.

use std::collections::{BTreeMap, BTreeSet};

use super::words::{Word, without_tests, words};

/// A module's path from its crate's root; the root's is empty.
pub type Module = Vec<String>;

/// One module that imports from another, or from another crate.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Import {
    pub from: Module,
    pub to: Target,
    /// Whether it only passes names on, and uses none of them itself.
    pub is_passed_on: bool,
}

/// Where something is imported from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    Module(Module),
    Crate(String),
}

/// Crates of the workspace: those whose use is a matter of floors.
const CRATES: [&str; 3] = ["kernels", "memory_store", "mneme"];

/// The modules of one crate.
pub struct Modules {
    parsed: BTreeMap<Module, Parsed>,
}

/// What one file says.
#[derive(Default)]
struct Parsed {
    children: BTreeSet<String>,
    paths: Vec<Path>,
}

/// A path as it is written.
struct Path {
    segments: Vec<String>,
    /// The name under which a `pub use` passes it on.
    passed_on_as: Option<String>,
    /// Whether that name occurs elsewhere in the file.
    is_used_here: bool,
    /// Modules within the file that the path stands in.
    inline: Vec<String>,
}

impl Modules {
    /// Reads a crate, beginning at its root. `source` gives a file's text by its path below `src`,
    /// if there is such a file.
    pub fn read(source: &dyn Fn(&str) -> Option<String>) -> Result<Self, String> {
        let mut parsed = BTreeMap::new();
        let mut open: Vec<Module> = vec![Vec::new()];
        while let Some(module) = open.pop() {
            let text = files_of(&module).iter().find_map(|file| source(file));
            let text = text.ok_or_else(|| format!("no file for the module {}", show(&module)))?;
            let file = parse(&without_tests(&words(&text)));
            open.extend(file.children.iter().map(|child| joined(&module, child)));
            parsed.insert(module, file);
        }
        Ok(Self { parsed })
    }

    /// All modules.
    pub fn all(&self) -> impl Iterator<Item = &Module> {
        self.parsed.keys()
    }

    /// Every import, once.
    pub fn imports(&self) -> BTreeSet<Import> {
        let mut imports = BTreeSet::new();
        for (from, file) in &self.parsed {
            for path in &file.paths {
                let Some(to) = self.target(from, path) else { continue };
                let is_passed_on = path.passed_on_as.is_some() && !path.is_used_here;
                if to != Target::Module(from.clone()) {
                    imports.insert(Import { from: from.clone(), to, is_passed_on });
                }
            }
        }
        imports
    }

    /// Where a path leads, if it stays in the workspace.
    fn target(&self, from: &Module, path: &Path) -> Option<Target> {
        let head = path.segments[0].as_str();
        if CRATES.contains(&head) && !self.parsed[from].children.contains(head) {
            return Some(Target::Crate(head.to_owned()));
        }
        let absolute = self.absolute(from, path)?;
        Some(Target::Module(self.home(&absolute, 0)))
    }

    /// The path from the crate's root.
    fn absolute(&self, from: &Module, path: &Path) -> Option<Module> {
        let mut here = from.clone();
        here.extend(path.inline.iter().cloned());
        let mut rest = path.segments.as_slice();
        match rest[0].as_str() {
            "crate" => (here, rest) = (Vec::new(), &rest[1..]),
            "self" => rest = &rest[1..],
            "super" => {
                while rest.first().is_some_and(|segment| segment == "super") {
                    here.pop()?;
                    rest = &rest[1..];
                }
            }
            child if self.parsed[from].children.contains(child) => here = from.clone(),
            _ => return None,
        }
        here.extend(rest.iter().cloned());
        Some(here)
    }

    /// The module that what `path` names is written in, followed through modules that pass it on.
    fn home(&self, path: &Module, depth: usize) -> Module {
        let mut module = Vec::new();
        for (idx, segment) in path.iter().enumerate() {
            let inner = joined(&module, segment);
            if self.parsed.contains_key(&inner) {
                module = inner;
                continue;
            }
            let passed_on = self.parsed[&module]
                .paths
                .iter()
                .find(|path| path.passed_on_as.as_ref() == Some(segment));
            let further = passed_on.and_then(|path| self.absolute(&module, path));
            return match further {
                Some(mut further) if depth < 20 => {
                    further.extend_from_slice(&path[idx + 1..]);
                    self.home(&further, depth + 1)
                }
                _ => module,
            };
        }
        module
    }
}

/// The rings of modules that import from each other: of each, all the imports within it. Passing
/// a child's names on is no import: a child may use its parent's items as long as the parent does
/// not use the child's.
pub fn rings(imports: &BTreeSet<Import>) -> Vec<Vec<(&Module, &Module)>> {
    let counted = imports.iter().filter(|import| !import.is_passed_on);
    let edges: Vec<(&Module, &Module)> = counted
        .filter_map(|import| match &import.to {
            Target::Module(to) => Some((&import.from, to)),
            Target::Crate(_) => None,
        })
        .collect();
    let mut rings: Vec<Vec<(&Module, &Module)>> = Vec::new();
    for &(from, to) in &edges {
        let is_in_ring = reached(to, &edges).contains(from);
        if !is_in_ring || rings.iter().any(|ring| ring.contains(&(from, to))) {
            continue;
        }
        let reached_from = reached(from, &edges);
        let in_ring =
            |module| reached_from.contains(module) && reached(module, &edges).contains(from);
        rings.push(edges.iter().copied().filter(|(a, b)| in_ring(a) && in_ring(b)).collect());
    }
    rings
}

/// What `start` imports from, and what that does, and so on; itself if it comes back to it.
fn reached<'a>(start: &Module, edges: &[(&'a Module, &'a Module)]) -> BTreeSet<&'a Module> {
    let mut found = BTreeSet::new();
    let mut open = vec![start.clone()];
    while let Some(module) = open.pop() {
        for &(_, to) in edges.iter().filter(|(from, _)| **from == module) {
            if found.insert(to) {
                open.push(to.clone());
            }
        }
    }
    found
}

/// A module's path as people write it.
pub fn show(module: &Module) -> String {
    if module.is_empty() { "the crate's root".to_owned() } else { module.join("::") }
}

/// The files that a module may be in, below `src`.
fn files_of(module: &Module) -> [String; 2] {
    let path = module.join("/");
    if module.is_empty() {
        ["lib.rs".to_owned(), "lib.rs".to_owned()]
    } else {
        [format!("{path}.rs"), format!("{path}/mod.rs")]
    }
}

fn joined(module: &Module, child: &str) -> Module {
    let mut path = module.clone();
    path.push(child.to_owned());
    path
}

fn parse(words: &[Word]) -> Parsed {
    let mut parsed = Parsed { children: children(words), paths: Vec::new() };
    let mut inline: Vec<(String, usize)> = Vec::new();
    let (mut depth, mut at) = (0_usize, 0);
    while at < words.len() {
        match &words[at] {
            Word::Mark('{') => depth += 1,
            Word::Mark('}') => {
                depth = depth.saturating_sub(1);
                inline.retain(|(_, opened)| *opened < depth + 1);
            }
            Word::Name(name) if name == "mod" => {
                if let [Word::Name(module), Word::Mark('{'), ..] = &words[at + 1..] {
                    inline.push((module.clone(), depth + 1));
                }
            }
            Word::Name(name) if begins_path(words, at, name, &parsed.children) => {
                let mut leaves = Vec::new();
                let end = read_tree(words, at, &[], &mut leaves);
                let is_passed_on = is_in_pub_use(words, at);
                for (segments, name) in leaves {
                    let outside = words[..at].iter().chain(&words[end..]);
                    let is_used_here = outside.clone().any(|word| word.is_name(&name));
                    let inline = inline.iter().map(|(module, _)| module.clone()).collect();
                    let passed_on_as = is_passed_on.then_some(name);
                    parsed.paths.push(Path { segments, passed_on_as, is_used_here, inline });
                }
                at = end;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    parsed
}

/// Modules that are declared to be in files of their own.
fn children(words: &[Word]) -> BTreeSet<String> {
    let declared = words.windows(3).filter_map(|three| match three {
        [keyword, Word::Name(child), end] if keyword.is_name("mod") && end.is(';') => Some(child),
        _ => None,
    });
    declared.cloned().collect()
}

fn begins_path(words: &[Word], at: usize, name: &str, children: &BTreeSet<String>) -> bool {
    let is_head = ["crate", "self", "super"].contains(&name)
        || CRATES.contains(&name)
        || children.contains(name);
    let follows_step = at > 0 && words[at - 1] == Word::PathStep;
    is_head && !follows_step && words.get(at + 1) == Some(&Word::PathStep)
}

/// Reads a path, or a tree of paths as in `a::{b, c::d as e}`, into its leaves with the names that
/// they get; one past its end.
fn read_tree(
    words: &[Word],
    mut at: usize,
    prefix: &[String],
    leaves: &mut Vec<(Vec<String>, String)>,
) -> usize {
    let mut segments = prefix.to_vec();
    loop {
        match words.get(at) {
            Some(Word::Name(name)) => {
                segments.push(name.clone());
                at += 1;
                if words.get(at) == Some(&Word::PathStep) {
                    at += 1;
                    continue;
                }
            }
            Some(Word::Mark('{')) => {
                at += 1;
                while words.get(at).is_some_and(|word| !word.is('}')) {
                    at = read_tree(words, at, &segments, leaves);
                    at += usize::from(words.get(at).is_some_and(|word| word.is(',')));
                }
                return at + 1;
            }
            Some(Word::Mark('*')) => at += 1,
            // `::<`, or a macro's own syntax: the path ends here.
            _ => at += usize::from(segments.len() == prefix.len()),
        }
        break;
    }
    let mut name = segments.last().cloned().unwrap_or_default();
    if let [Word::Name(keyword), Word::Name(alias), ..] = &words[at.min(words.len())..]
        && keyword == "as"
        && prefix.len() < segments.len()
    {
        name.clone_from(alias);
        at += 2;
    }
    leaves.push((segments, name));
    at
}

/// Whether the path at `at` is what a `pub use` (or `pub(super) use`) names.
fn is_in_pub_use(words: &[Word], at: usize) -> bool {
    let before = &words[..at];
    let [.., last] = before else { return false };
    if !last.is_name("use") {
        return false;
    }
    match &before[..before.len() - 1] {
        [.., word] if word.is_name("pub") => true,
        [.., keyword, open, _, close] => keyword.is_name("pub") && open.is('(') && close.is(')'),
        _ => false,
    }
}
