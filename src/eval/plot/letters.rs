//! How wide is a text, and where do its letters stand? The same for the layout of both kinds of
//! pictures, so that they differ in nothing but how they are kept.

use std::sync::OnceLock;

use ab_glyph::{Font, FontRef, OutlinedGlyph, PxScale, ScaleFont, point};

/// What stands for the middle of a name that is cut.
const ELLIPSIS: char = '…';

/// The letters of DejaVu Sans.
fn font() -> &'static FontRef<'static> {
    static FONT: OnceLock<FontRef<'static>> = OnceLock::new();
    let read = || FontRef::try_from_slice(dejavu::sans::regular());
    FONT.get_or_init(|| read().expect("because the font is part of the program"))
}

/// Calls `stand` with each letter of `text` and where it begins; returns where the text ends.
fn walk(text: &str, size: f64, mut stand: impl FnMut(ab_glyph::Glyph)) -> f64 {
    let units = font().units_per_em().unwrap_or(1000.0);
    let scale = PxScale::from(size as f32 * font().height_unscaled() / units);
    let scaled = font().as_scaled(scale);
    let (mut x, mut previous) = (0.0, None);
    for letter in text.chars() {
        let id = scaled.glyph_id(letter);
        x += previous.map_or(0.0, |previous| scaled.kern(previous, id));
        stand(id.with_scale_and_position(scale, point(x, 0.0)));
        x += scaled.h_advance(id);
        previous = Some(id);
    }
    f64::from(x)
}

/// The letters' outlines on a base line at 0, and where the text ends; `size` is their em.
pub fn outlines(text: &str, size: f64) -> (Vec<OutlinedGlyph>, f64) {
    let mut outlines = Vec::new();
    let end = walk(text, size, |glyph| outlines.extend(font().outline_glyph(glyph)));
    (outlines, end)
}

/// How wide a text is.
pub fn width(text: &str, size: f64) -> f64 {
    walk(text, size, |_| {})
}

/// The text, cut in its middle where it is wider than `most`: names differ at their ends.
pub fn fitted(text: &str, size: f64, most: f64) -> String {
    let letters: Vec<char> = text.chars().collect();
    let cut = |n_kept: usize| -> String {
        let (head, tail) = (n_kept.div_ceil(2), n_kept / 2);
        let ends = [&letters[..head], &[ELLIPSIS], &letters[letters.len() - tail..]];
        ends.concat().into_iter().collect()
    };
    if width(text, size) <= most {
        return text.to_owned();
    }
    let fits = |shown: &String| width(shown, size) <= most;
    (0..letters.len()).rev().map(cut).find(fits).unwrap_or_else(|| cut(0))
}

/// The text in lines, none of more than one word wider than `most`.
pub fn wrapped(text: &str, size: f64, most: f64) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if width(&format!("{line} {word}"), size) <= most => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_fit_where_they_are_put() {
        assert!(width("wide", 20.0) > width("will", 20.0));
        assert!((width("AV", 40.0) - 2.0 * width("AV", 20.0)).abs() < 0.01);
        assert_eq!(fitted("two-stage", 20.0, 200.0), "two-stage");
        let names = ["retrieved-units-of-each-layer-8", "retrieved-units-of-each-layer-16"];
        let cut = names.map(|name| fitted(name, 20.0, 200.0));
        assert!(cut.iter().all(|name| width(name, 20.0) <= 200.0 && name.contains(ELLIPSIS)));
        assert!(cut[0] != cut[1] && cut[1].ends_with("-16"), "{cut:?}");
        let text = "a text of several words that is wrapped";
        let lines = wrapped(text, 20.0, 120.0);
        assert!(
            lines.len() > 2 && lines.iter().all(|line| width(line, 20.0) <= 120.0),
            "{lines:?}"
        );
        assert_eq!(lines.join(" "), text);
    }
}
