//! Where in an area is a length, and where a value? Lengths by their logarithm, from left to right;
//! values evenly, from the bottom up.

use super::cells::Point;
use super::labels;
use super::letters;
use super::picture::{Picture, Place};
use super::style::{AREA_PADDING, GREY, GRID, LABEL_GAP, SMALL, TEXT};

/// About how many values are labelled.
const N_TICKS: f64 = 5.0;

/// The least span of values, as a share of the greatest: what is less looks the same.
const LEAST_SPAN: f64 = 0.05;

/// An area with what its sides stand for.
pub struct Axes {
    /// Upper left, lower right.
    pub corners: [Place; 2],
    /// Lengths that there are, ascending.
    pub lengths: Vec<usize>,
    /// Values that are labelled, ascending, from the bottom to the top.
    pub ticks: Vec<f64>,
}

/// Round values about all from `least` to `greatest`.
pub fn ticks(least: f64, greatest: f64) -> Vec<f64> {
    let span = (greatest - least).max(LEAST_SPAN * greatest.abs()).max(f64::MIN_POSITIVE);
    let padding = (span - (greatest - least)) / 2.0;
    let power = 10f64.powf((span / N_TICKS).log10().floor());
    let steps = [1.0, 2.0, 5.0].map(|step| step * power);
    let step = steps.into_iter().find(|step| span / step <= N_TICKS).unwrap_or(10.0 * power);
    let first = ((least - padding) / step).floor();
    let last = ((greatest + padding) / step).ceil();
    (0..=(last - first) as usize).map(|i| (first + i as f64) * step).collect()
}

impl Axes {
    /// Where a length is.
    pub fn x(&self, length: usize) -> f64 {
        let [(left, _), (right, _)] = self.corners;
        let [least, greatest] = [self.lengths.first(), self.lengths.last()]
            .map(|length| length.map_or(0.0, |length| (*length as f64).log2()));
        if least == greatest {
            return (left + right) / 2.0;
        }
        let share = ((length as f64).log2() - least) / (greatest - least);
        // Half a length's width is left at either side.
        let side = (right - left) / (2.0 * self.lengths.len() as f64);
        left + side + share * (right - left - 2.0 * side)
    }

    /// Where a value is.
    pub fn y(&self, value: f64) -> f64 {
        let [(_, top), (_, bottom)] = self.corners;
        let (least, greatest) = (self.ticks[0], self.ticks[self.ticks.len() - 1]);
        let share = (value - least) / (greatest - least);
        bottom - AREA_PADDING - share * (bottom - top - 2.0 * AREA_PADDING)
    }

    /// Where a point is.
    pub fn place(&self, point: &Point) -> Place {
        (self.x(point.length), self.y(point.value))
    }

    /// The way from a length to its nearest neighbour.
    pub fn room(&self, length: usize) -> f64 {
        let [(left, _), (right, _)] = self.corners;
        let others = self.lengths.iter().filter(|other| **other != length);
        let ways = others.map(|other| (self.x(*other) - self.x(length)).abs());
        ways.fold(right - left, f64::min)
    }

    /// Lines for values and lengths, and what they are: `labels` say it of the ticks.
    pub fn draw(&self, picture: &mut Picture, labels: &[String]) {
        let [(left, top), (right, bottom)] = self.corners;
        for (tick, label) in self.ticks.iter().zip(labels) {
            let y = self.y(*tick);
            picture.line([(left, y), (right, y)], 1.0, GRID);
            picture.words((left - LABEL_GAP, y), label, TEXT.right());
        }
        for length in &self.lengths {
            let x = self.x(*length);
            picture.line([(x, top), (x, bottom)], 1.0, GRID);
        }
        picture.line([(left, bottom), (right, bottom)], 2.0, GREY);
        picture.line([(left, top), (left, bottom)], 2.0, GREY);
        self.draw_lengths(picture);
    }

    /// Lengths below the area, but for those that have no room.
    fn draw_lengths(&self, picture: &mut Picture) {
        let [(left, _), (right, bottom)] = self.corners;
        let y = bottom + LABEL_GAP / 2.0 + TEXT.line_height() / 2.0;
        let mut taken = f64::NEG_INFINITY;
        for length in &self.lengths {
            let (x, label) = (self.x(*length), labels::tokens(*length));
            let half = letters::width(&label, TEXT.size) / 2.0;
            picture.line([(x, bottom), (x, bottom + LABEL_GAP / 2.0)], 2.0, GREY);
            if x - half > taken {
                taken = x + half + LABEL_GAP;
                picture.words((x, y), label, TEXT.centred());
            }
        }
        let y = y + TEXT.line_height() / 2.0 + SMALL.line_height() / 2.0;
        picture.words(((left + right) / 2.0, y), "tokens of the prompt", SMALL.centred());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_hold_all_values() {
        let check = |(least, greatest): (f64, f64), expected: &[f64]| {
            let ticks = ticks(least, greatest);
            let alike = ticks.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-9);
            assert!(alike && ticks.len() == expected.len(), "{ticks:?}");
        };
        check((0.0, 1.0), &[0.0, 0.2, 0.4, 0.6, 0.8, 1.0]);
        check((11.2, 19.5), &[10.0, 12.0, 14.0, 16.0, 18.0, 20.0]);
        check((20.0, 20.0), &[19.4, 19.6, 19.8, 20.0, 20.2, 20.4, 20.6]);
        check((180.0, 2300.0), &[0.0, 500.0, 1000.0, 1500.0, 2000.0, 2500.0]);
    }

    #[test]
    fn twice_the_length_is_always_as_far() {
        let lengths = vec![8192, 16384, 32768];
        let axes = Axes { corners: [(100.0, 0.0), (400.0, 200.0)], lengths, ticks: vec![0.0, 1.0] };
        let [a, b, c] = [8192, 16384, 32768].map(|length| axes.x(length));
        assert!((b - a - (c - b)).abs() < 1e-9 && b > a);
        assert!(axes.y(1.0) < axes.y(0.0));
        assert!((axes.room(8192) - (b - a)).abs() < 1e-9);
        let one = Axes { lengths: vec![8192], ..axes };
        assert_eq!(one.x(8192), 250.0, "a single length is in the middle");
    }
}
