//! How do pictures look? Names of files, sizes, letters and colours, all in one place. Sizes are in
//! pixels of an SVG, which are those of a PNG as well.

use plotters::prelude::RGBColor;
use plotters::style::text_anchor::HPos;

/// How names of files with heat maps end.
pub const HEAT: &str = "heat";
/// How names of files with curves end.
pub const CURVES: &str = "length";

/// Families of letters; PNGs have the first.
pub const FAMILY: &str = "DejaVu Sans, Verdana, sans-serif";

/// Pixels of a PNG's sides are drawn from so many.
pub const SUPERSAMPLING: u32 = 2;

/// Around a picture.
pub const MARGIN: f64 = 32.0;
/// Between what stands side by side.
pub const GAP: f64 = 36.0;
/// Between labels and what they are of.
pub const LABEL_GAP: f64 = 14.0;
/// The least width: titles need room.
pub const LEAST_WIDTH: f64 = 752.0;
/// Small multiples go on in another row beyond this width.
pub const ROW_WIDTH: f64 = 1760.0;
/// The widest that a name may be; longer ones are cut in their middle.
pub const NAME_WIDTH: f64 = 560.0;

/// A cell of a heat map.
pub const CELL: (f64, f64) = (100.0, 72.0);
/// Between cells.
pub const CELL_GAP: f64 = 3.0;
/// The scale of colours.
pub const SCALE: (f64, f64) = (384.0, 24.0);

/// The area of curves; few lengths make it narrower, many wider.
pub const AREA: (f64, f64) = (780.0, 460.0);
/// The area's width for a single length.
pub const LEAST_AREA_WIDTH: f64 = 390.0;
/// The least width for each length.
pub const LENGTH_WIDTH: f64 = 64.0;
/// Between the area's edge and what is drawn in it.
pub const AREA_PADDING: f64 = 18.0;
/// A curve.
pub const CURVE_WIDTH: f64 = 3.0;
/// Half of a marker.
pub const MARKER_RADIUS: f64 = 8.0;
/// Between markers that stand side by side, at most.
pub const SIDE_STEP: f64 = 15.0;
/// A dash.
pub const DASH: f64 = 10.0;
/// What of a curve is shown in the legend.
pub const KEY_WIDTH: f64 = 48.0;

/// How letters stand.
#[derive(Clone, Copy)]
pub struct Letters {
    /// Their em.
    pub size: f64,
    /// Their colour.
    pub colour: RGBColor,
    /// Which part of a line stands where it is put.
    pub align: HPos,
}

/// Of titles.
pub const TITLE: Letters = Letters { size: 28.0, colour: INK, align: HPos::Left };
/// Of names and numbers.
pub const TEXT: Letters = Letters { size: 22.0, colour: INK, align: HPos::Left };
/// Of explanations.
pub const SMALL: Letters = Letters { size: 18.0, colour: GREY, align: HPos::Left };

/// Paper.
pub const PAPER: RGBColor = RGBColor(255, 255, 255);
/// What is read first.
pub const INK: RGBColor = RGBColor(0x1a, 0x1a, 0x1a);
/// What is read second.
pub const GREY: RGBColor = RGBColor(0x55, 0x55, 0x55);
/// What leads the eye.
pub const GRID: RGBColor = RGBColor(0xd8, 0xd8, 0xd8);

/// Okabe and Ito's colours, which colour-blind readers tell apart; without yellow, which is too
/// light for paper.
const CURVE_COLOURS: [RGBColor; 7] = [
    RGBColor(0x00, 0x72, 0xb2), // blue
    RGBColor(0xd5, 0x5e, 0x00), // vermilion
    RGBColor(0x00, 0x9e, 0x73), // green
    RGBColor(0xcc, 0x79, 0xa7), // purple
    RGBColor(0xe6, 0x9f, 0x00), // orange
    RGBColor(0x56, 0xb4, 0xe9), // sky
    RGBColor(0x00, 0x00, 0x00), // black
];

/// The scale viridis, evenly from 0 to 1.
const VIRIDIS: [[u8; 3]; 9] = [
    [68, 1, 84],
    [71, 44, 122],
    [59, 81, 139],
    [44, 113, 142],
    [33, 144, 141],
    [39, 173, 129],
    [92, 200, 99],
    [170, 220, 50],
    [253, 231, 37],
];

impl Letters {
    /// Their middle stands where they are put.
    pub const fn centred(self) -> Self {
        Self { align: HPos::Center, ..self }
    }

    /// They end where they are put.
    pub const fn right(self) -> Self {
        Self { align: HPos::Right, ..self }
    }

    /// In this colour.
    pub const fn coloured(self, colour: RGBColor) -> Self {
        Self { colour, ..self }
    }

    /// From a line to the next.
    pub fn line_height(self) -> f64 {
        (1.4 * self.size).round()
    }
}

/// Of the curve at a place among the policies. With the marker, thirty-five can be told apart.
pub fn curve_colour(place: usize) -> RGBColor {
    CURVE_COLOURS[place % CURVE_COLOURS.len()]
}

/// Of a share from 0 to 1, on the scale viridis.
pub fn heat_colour(share: f64) -> RGBColor {
    let at = share.clamp(0.0, 1.0) * (VIRIDIS.len() - 1) as f64;
    let below = (at as usize).min(VIRIDIS.len() - 2);
    let between = |i: usize| {
        let [from, to] = [below, below + 1].map(|at| f64::from(VIRIDIS[at][i]));
        (from + (at - below as f64) * (to - from)).round() as u8
    };
    RGBColor(between(0), between(1), between(2))
}

/// Black or white, whichever is easier to read on `ground`.
pub fn readable_on(ground: RGBColor) -> RGBColor {
    let linear = |channel: u8| (f64::from(channel) / 255.0).powf(2.2);
    let luminance =
        0.2126 * linear(ground.0) + 0.7152 * linear(ground.1) + 0.0722 * linear(ground.2);
    // Where the contrast with either is the same (WCAG).
    if luminance > 0.179 { INK } else { PAPER }
}
