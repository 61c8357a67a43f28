//! Where do kernels come from? From `cuda/*.cu` and `*.cuh`, which travel in the program and are
//! compiled when they are first needed, each with the sizes that it is wanted for.

use std::fmt::Write;

/// Files by their names.
const FILES: [(&str, &str); 14] = [
    ("draw.cu", include_str!("../cuda/draw.cu")),
    ("few_rows.cuh", include_str!("../cuda/few_rows.cuh")),
    ("dense_many.cu", include_str!("../cuda/dense_many.cu")),
    ("dense.cu", include_str!("../cuda/dense.cu")),
    ("attend_many.cu", include_str!("../cuda/attend_many.cu")),
    ("attention.cuh", include_str!("../cuda/attention.cuh")),
    ("products.cu", include_str!("../cuda/products.cu")),
    ("lookup.cu", include_str!("../cuda/lookup.cu")),
    ("tiles.cuh", include_str!("../cuda/tiles.cuh")),
    ("write_pages.cu", include_str!("../cuda/write_pages.cu")),
    ("attend_few.cu", include_str!("../cuda/attend_few.cu")),
    ("pages.cuh", include_str!("../cuda/pages.cuh")),
    ("platform.cuh", include_str!("../cuda/platform.cuh")),
    ("rows.cu", include_str!("../cuda/rows.cu")),
];

/// A file of kernels and the sizes to compile it for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ProgramSource {
    file: &'static str,
    content: &'static str,
    defines: Vec<(&'static str, usize)>,
}

impl ProgramSource {
    /// A file of `cuda/`, with what its macros stand for.
    ///
    /// # Panics
    /// When there is no such file.
    pub fn new(file: &'static str, defines: &[(&'static str, usize)]) -> Self {
        Self { file, content: content_of(file), defines: defines.to_vec() }
    }

    /// A file of kernels that is not in `cuda/`, which may include those that are.
    pub fn of_text(file: &'static str, content: &'static str) -> Self {
        Self { file, content, defines: Vec::new() }
    }

    /// The file's name.
    pub fn file(&self) -> &'static str {
        self.file
    }

    /// The name in messages: the file and its sizes.
    pub fn name(&self) -> String {
        let mut name = self.file.to_owned();
        for (what, size) in &self.defines {
            let _ = write!(name, " {what}={size}");
        }
        name
    }

    /// One text without includes of ours: `#line` tells where each part is from.
    ///
    /// # Panics
    /// When a file is not among those above, which is a mistake of whoever wrote the kernel.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (what, size) in &self.defines {
            let _ = writeln!(text, "#define {what} {size}");
        }
        include((self.file, self.content), &mut Vec::new(), &mut text);
        text
    }
}

fn content_of(file: &str) -> &'static str {
    let found = FILES.iter().find(|(name, _)| *name == file);
    found.expect("because a kernel's file is in the list").1
}

/// Appends a file, and where it includes others those that are not there yet.
fn include((file, content): (&str, &str), included: &mut Vec<String>, text: &mut String) {
    let _ = writeln!(text, "#line 1 \"{file}\"");
    for (i, line) in content.lines().enumerate() {
        let name = line.strip_prefix("#include \"").and_then(|rest| rest.strip_suffix('"'));
        match name.filter(|name| name.ends_with(".cuh")) {
            Some(name) if included.iter().any(|known| known == name) => text.push('\n'),
            Some(name) => {
                included.push(name.to_owned());
                include((name, content_of(name)), included, text);
                let _ = writeln!(text, "#line {} \"{file}\"", i + 2);
            }
            None if line == "#pragma once" => text.push('\n'),
            None => {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
}
