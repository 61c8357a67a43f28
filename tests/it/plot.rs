//! Do pictures of an evaluation show what they should: every policy, every cell, in files that
//! others can read?

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use mneme::eval::{Label, PlotError, PlotFolder, Record, Task};

use crate::fixtures::ScratchFolder;

/// A cell where everything was found: the last colour of viridis.
const ALL_FOUND: [u8; 3] = [253, 231, 37];

/// Names that are trouble for those who write XML.
const ODD_NAMES: [&str; 3] = ["a <b> & \"c\"", "it's &amp; <!--", "bell\u{7}"];

fn record(policy: &str, task: Task, (length, depth): (usize, Option<f32>)) -> Record {
    Record {
        policy: policy.to_owned(),
        fingerprint: policy.to_owned(),
        label: Label { task, haystack: None, length, depth, sample: 0 },
        case: 0,
        case_depth: depth,
        prompt_tokens: length,
        answer_tokens: 10,
        right_tokens: 10,
        found: true,
        log_probability: -1.5,
        sought: Some(true),
        answer: None,
        f1: (task == Task::Qa).then_some(0.5),
        read_seconds: 1.0,
        answer_seconds: 1.0,
        attended_tokens_max: 1600,
    }
}

/// A case of each policy at each length and depth; every third is not found.
fn needles(policies: &[&str], lengths: &[usize]) -> Vec<Record> {
    let places = lengths.iter().flat_map(|length| [0.1, 0.5, 0.9].map(|d| (*length, Some(d))));
    let records = policies
        .iter()
        .flat_map(|policy| places.clone().map(|place| record(policy, Task::Needle, place)));
    let found = |(i, record)| Record { found: i % 3 > 0, ..record };
    records.enumerate().map(found).collect()
}

/// The pictures by the names of their files.
fn draw(records: &[Record]) -> BTreeMap<String, Vec<u8>> {
    let scratch = ScratchFolder::new();
    let path = scratch.path().join("not/yet/there");
    let written = PlotFolder::open(&path).unwrap().write(records).unwrap();
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    let files = std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path());
    let files: BTreeSet<_> = files.collect();
    assert_eq!(files, written.into_iter().collect(), "it says what it wrote");
    files.iter().map(|path| (name(path), std::fs::read(path).unwrap())).collect()
}

/// An element of an SVG.
#[derive(Debug)]
struct Element {
    name: String,
    attributes: BTreeMap<String, String>,
    text: String,
}

impl Element {
    fn number(&self, attribute: &str) -> f64 {
        self.attributes[attribute].parse().unwrap()
    }
}

fn unescaped(text: &str) -> String {
    let names = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&amp;", "&")];
    let is_allowed = |c: char| c == '\n' || !c.is_control();
    assert!(!text.contains('<') && text.chars().all(is_allowed), "{text:?} is no text");
    let references = text.split('&').skip(1).map(|rest| format!("&{rest}"));
    for reference in references {
        let is_known = names.iter().any(|(name, _)| reference.starts_with(name));
        assert!(is_known, "{reference:?} is no reference");
    }
    names.iter().fold(text.to_owned(), |text, (name, letter)| text.replace(name, letter))
}

/// The elements of an SVG, in the order of their beginnings; fails where it is no XML.
fn elements(svg: &[u8]) -> Vec<Element> {
    let svg = std::str::from_utf8(svg).unwrap().trim();
    let (mut elements, mut open) = (Vec::<Element>::new(), Vec::new());
    assert!(svg.starts_with("<svg "));
    for part in svg.split('<').skip(1) {
        let (tag, text) = part.split_once('>').expect("a tag ends");
        if let Some(name) = tag.strip_prefix('/') {
            let begun: usize = open.pop().expect("what ends has begun");
            assert_eq!(elements[begun].name, name);
        } else {
            assert!(elements.is_empty() || !open.is_empty(), "one root");
            let is_empty = tag.ends_with('/');
            let (name, mut rest) = tag.trim_end_matches('/').split_once(' ').unwrap();
            let mut attributes = BTreeMap::new();
            while let Some((key, after)) = rest.trim_start().split_once("=\"") {
                let (value, after) = after.split_once('"').expect("a value ends");
                let before = attributes.insert(key.to_owned(), unescaped(value));
                assert_eq!(before, None, "{key} is given once");
                rest = after;
            }
            assert_eq!(rest.trim(), "");
            elements.push(Element { name: name.to_owned(), attributes, text: String::new() });
            if !is_empty {
                open.push(elements.len() - 1);
            }
        }
        let text = unescaped(text);
        match open.last() {
            Some(element) => elements[*element].text += text.trim(),
            None => assert_eq!(text.trim(), ""),
        }
    }
    assert_eq!(open, Vec::<usize>::new(), "what has begun ends");
    elements
}

/// The texts of an SVG, after a check that none is cut off.
fn texts(svg: &[u8]) -> Vec<String> {
    let elements = elements(svg);
    let size = (elements[0].number("width"), elements[0].number("height"));
    let texts: Vec<&Element> = elements.iter().filter(|each| each.name == "text").collect();
    for text in &texts {
        let letters = text.number("font-size");
        let (x, y) = (text.number("x"), text.number("y"));
        let width = 0.5 * letters * text.text.chars().count() as f64; // at least, about
        let left = match text.attributes["text-anchor"].as_str() {
            "start" => x,
            "middle" => x - width / 2.0,
            _ => x - width,
        };
        assert!(left >= 0.0 && left + width <= size.0, "{text:?} is cut off");
        assert!(y >= letters / 2.0 && y <= size.1 - letters / 2.0, "{text:?} is cut off");
        assert!(letters >= 18.0, "{text:?} is too small to be read at half its size");
    }
    texts.into_iter().map(|text| text.text.clone()).collect()
}

/// Width, height and the number of pixels of each colour.
fn colours(png: &[u8]) -> ((u32, u32), BTreeMap<[u8; 3], usize>) {
    let mut reader = png::Decoder::new(std::io::Cursor::new(png)).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let frame = reader.next_frame(&mut pixels).unwrap();
    assert_eq!((frame.color_type, frame.bit_depth), (png::ColorType::Rgb, png::BitDepth::Eight));
    let mut colours = BTreeMap::new();
    for pixel in pixels.chunks_exact(3) {
        *colours.entry([pixel[0], pixel[1], pixel[2]]).or_default() += 1;
    }
    ((frame.width, frame.height), colours)
}

fn count(texts: &[String], holds: impl Fn(&str) -> bool) -> usize {
    texts.iter().filter(|text| holds(text)).count()
}

#[test]
fn each_task_has_the_pictures_that_suit_it() {
    let mut records = needles(&["two-stage"], &[8192]);
    records.push(record("two-stage", Task::MultiNeedle, (8192, None)));
    records.push(record("two-stage", Task::Perplexity, (8192, None)));
    records.push(record("two-stage", Task::Qa, (8192, Some(0.5))));
    let names = draw(&records).into_keys().collect::<Vec<_>>();
    let expected = [
        "multi-needle-length",
        "needle-heat",
        "needle-length",
        "perplexity-length",
        "qa-heat",
        "qa-length",
    ];
    let expected = expected.map(|name| [format!("{name}.png"), format!("{name}.svg")]);
    assert_eq!(names, expected.as_flattened());
    assert_eq!(draw(&[]).len(), 0);
}

#[test]
fn heat_maps_show_every_policy_and_every_cell_that_has_cases() {
    let names = ["two-stage", "exact", ODD_NAMES[0], ODD_NAMES[1], ODD_NAMES[2], "f", "g", "h"];
    let lengths = [8192, 16384, 131_072, 1_048_576];
    let mut records = needles(&names, &lengths);
    records.retain(|record| record.policy != "exact" || record.label.length < 131_072);
    let texts = texts(&draw(&records)["needle-heat.svg"]);
    for name in names {
        let shown = name.replace('\u{7}', "\u{FFFD}");
        assert_eq!(count(&texts, |text| text == shown), 1, "{name:?} in {texts:?}");
    }
    for length in ["8K", "16K", "128K", "1M"] {
        assert_eq!(count(&texts, |text| text == length), names.len(), "below each map");
    }
    // A number below each share; other shares are those of depths and of the scale.
    let n_cells = names.len() * lengths.len() * 3 - 6;
    assert_eq!(count(&texts, |text| text == "\u{2212}1.50"), n_cells);
    let n_found = records.iter().filter(|record| record.found).count();
    assert_eq!(count(&texts, |text| text == "100 %"), n_found + 1);
    assert_eq!(count(&texts, |text| text == "0 %"), n_cells - n_found + 1);
    assert_eq!(count(&texts, |text| text == "no cases"), 1);
    let whole = draw(&needles(&["a"], &lengths));
    let whole = self::texts(&whole["needle-heat.svg"]);
    assert_eq!(count(&whole, |text| text == "no cases"), 0, "every cell has cases");
}

#[test]
fn curves_show_every_policy_also_where_there_is_one_length() {
    let names = [&ODD_NAMES[..2], &["a", "b", "c", "d", "e", "f"]].concat();
    let n_markers = |svg: &[u8]| {
        let is_marker = |element: &&Element| match element.name.as_str() {
            "circle" | "polygon" => element.attributes["fill"] != "#FFFFFF",
            _ => false,
        };
        elements(svg).iter().filter(is_marker).count()
    };
    for lengths in [&[8192][..], &[8192, 16384, 65536]] {
        let svg = draw(&needles(&names, lengths)).remove("needle-length.svg").unwrap();
        let texts = texts(&svg);
        for name in &names {
            let with_value = format!("{name}: 67 %");
            let shown = if lengths.len() == 1 { &with_value } else { *name };
            assert_eq!(count(&texts, |text| text == shown), 1, "{shown:?} in {texts:?}");
        }
        assert_eq!(count(&texts, |text| text == "8K"), 1);
        assert_eq!(n_markers(&svg), names.len() * (lengths.len() + 1), "and in the legend");
    }
}

#[test]
fn a_paragraph_alone_is_a_line_and_no_length() {
    let alone = [record("a", Task::Qa, (0, None)), record("b", Task::Qa, (0, None))];
    let with_length = [&alone[..], &[record("a", Task::Qa, (8192, Some(0.5)))]].concat();
    for (records, n_lengths) in [(&alone[..], 0), (&with_length, 1)] {
        let texts = texts(&draw(records)["qa-length.svg"]);
        assert_eq!(count(&texts, |text| text.contains("the paragraph alone")), 1);
        assert_eq!(count(&texts, |text| text == "8K"), n_lengths, "{texts:?}");
        assert_eq!(count(&texts, |text| text == "0"), 0, "{texts:?}");
    }
}

#[test]
fn pngs_have_the_size_of_their_svgs_and_its_colours() {
    let found = needles(&["two-stage", "exact"], &[8192, 16384]);
    let lost: Vec<Record> =
        found.iter().map(|record| Record { found: false, ..record.clone() }).collect();
    for (records, has_found) in [(&found, true), (&lost, false)] {
        let pictures = draw(records);
        for name in ["needle-heat", "needle-length"] {
            let svg = &elements(&pictures[&format!("{name}.svg")])[0];
            let (size, colours) = colours(&pictures[&format!("{name}.png")]);
            let expected = (svg.number("width") as u32, svg.number("height") as u32);
            assert_eq!(size, expected, "{name}");
            assert!(colours.len() > 50, "{name}: {} colours", colours.len());
            let n_white = colours[&[255; 3]];
            let n_all = (size.0 * size.1) as usize;
            assert!((n_all / 4..n_all).contains(&n_white), "{name}: {n_white} of {n_all} white");
        }
        let (_, colours) = colours(&pictures["needle-heat.png"]);
        let n_yellow = colours.get(&ALL_FOUND).copied().unwrap_or(0);
        // Eight cells, or the end of the scale alone.
        assert_eq!(n_yellow > 8 * 3000, has_found, "{n_yellow} pixels");
    }
}

#[test]
fn the_same_records_make_the_same_pictures() {
    let records = needles(&["b", "a", ODD_NAMES[0]], &[8192, 16384]);
    let (first, second) = (draw(&records), draw(&records));
    for (name, bytes) in &first {
        assert!(second[name] == *bytes, "{name} differs");
    }
}

#[test]
fn what_cannot_be_written_is_said() {
    let folder = ScratchFolder::new();
    let file = folder.file("file", b"no folder");
    let path = file.join("pictures");
    let error = PlotFolder::open(&path).unwrap_err();
    assert!(matches!(&error, PlotError::Folder { path: named, .. } if *named == path));
    assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    let taken = folder.path().join("needle-heat.png");
    std::fs::create_dir(&taken).unwrap();
    let error = PlotFolder::open(folder.path()).unwrap().write(&needles(&["a"], &[8192]));
    let error = error.unwrap_err();
    assert!(matches!(&error, PlotError::Write { path: named, .. } if *named == taken));
    assert!(error.to_string().contains(&taken.display().to_string()), "{error}");
    assert!(folder.path().join("needle-heat.svg").exists(), "what came before is there");
}
