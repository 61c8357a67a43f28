//! Where does what a heat map says stand? One map a policy, side by side and in rows: names above,
//! depths at the left of a row, lengths below each map, one scale of colours below all.

use super::cells::{Cell, HeatMap, HeatMaps};
use super::picture::{Picture, Place};
use super::style::{
    CELL, CELL_GAP, GAP, GRID, LABEL_GAP, LEAST_WIDTH, MARGIN, NAME_WIDTH, PAPER, ROW_WIDTH, SCALE,
    SMALL, TEXT, heat_colour, readable_on,
};
use super::{labels, letters};

/// What depths and lengths are headed by.
const HEADS: [&str; 2] = ["depth", "tokens"];

/// Colours that the scale is drawn with.
const N_COLOURS: usize = 96;

/// What is written on the scale.
const SHARES: [f64; 5] = [0.0, 0.25, 0.5, 0.75, 1.0];

/// Sizes that follow from what is shown.
struct Layout {
    columns: usize,
    head_width: f64,
    cell_width: f64,
    map: Place, // width, height; cells alone
}

/// The heat maps of a task.
pub fn draw(maps: &HeatMaps) -> Picture {
    let layout = Layout::of(maps);
    let title = format!("{}: what was found, by depth and length", maps.task);
    let notes = format!(
        "Each cell: the share of cases found and, below it, the mean log-probability of the right \
         answer. Depth 0 % is the beginning of the document. {} a cell.",
        labels::cases(maps.n_cases())
    );
    let rows = maps.maps.len().div_ceil(layout.columns);
    let (mut picture, below_notes) = Picture::new(layout.width(), &title, &notes);
    for (i, map) in maps.maps.iter().enumerate() {
        let (row, column) = (i / layout.columns, i % layout.columns);
        let top = below_notes + GAP + row as f64 * layout.row_height();
        let left = MARGIN + layout.head_width + column as f64 * (layout.map.0 + GAP);
        let corner = (left, top + TEXT.line_height());
        if column == 0 {
            draw_heads(&mut picture, maps, &layout, corner);
        }
        draw_map(&mut picture, maps, &layout, (map, corner));
    }
    let bottom = below_notes + GAP + rows as f64 * layout.row_height();
    let has_blanks = maps.maps.iter().any(|map| map.cells.contains(&None));
    draw_scale(&mut picture, (MARGIN + layout.head_width, bottom), has_blanks);
    picture.size.1 = bottom + SCALE.1 + SMALL.line_height() + MARGIN;
    picture
}

impl Layout {
    fn of(maps: &HeatMaps) -> Self {
        let widest = |texts: Vec<String>| {
            texts.iter().map(|text| letters::width(text, TEXT.size)).fold(0.0, f64::max)
        };
        let names = widest(maps.maps.iter().map(|map| map.policy.clone()).collect());
        let lengths = widest(maps.lengths.iter().map(|length| labels::tokens(*length)).collect());
        let depths = widest(maps.depths.iter().map(|depth| labels::percent(*depth)).collect());
        let heads = HEADS.map(|head| letters::width(head, SMALL.size));
        let head_width = heads.into_iter().fold(depths, f64::max) + LABEL_GAP;
        let n_lengths = maps.lengths.len() as f64;
        let for_name = names.min(NAME_WIDTH) / n_lengths;
        let cell_width = CELL.0.max(lengths + LABEL_GAP).max(for_name).ceil();
        let map_width = cell_width * n_lengths;
        let room = ROW_WIDTH - 2.0 * MARGIN - head_width + GAP;
        let most = ((room / (map_width + GAP)) as usize).max(1);
        let n_rows = maps.maps.len().div_ceil(most);
        Self {
            // As many in each row as in the others, where it comes out even.
            columns: maps.maps.len().div_ceil(n_rows),
            head_width,
            cell_width,
            map: (map_width, CELL.1 * maps.depths.len() as f64),
        }
    }

    fn width(&self) -> f64 {
        let maps = self.columns as f64 * (self.map.0 + GAP) - GAP;
        (MARGIN + self.head_width + maps).max(LEAST_WIDTH) + MARGIN
    }

    fn row_height(&self) -> f64 {
        self.map.1 + 2.0 * TEXT.line_height() + GAP
    }
}

/// Depths at the left of a row of maps, and what they and the lengths are.
fn draw_heads(picture: &mut Picture, maps: &HeatMaps, layout: &Layout, (left, top): Place) {
    let right = left - LABEL_GAP;
    let half = TEXT.line_height() / 2.0;
    let (above, below) = (top - half, top + layout.map.1 + half);
    for (head, y) in HEADS.into_iter().zip([above, below]) {
        picture.words((right, y), head, SMALL.right());
    }
    for (i, depth) in maps.depths.iter().enumerate() {
        let y = top + (i as f64 + 0.5) * CELL.1;
        picture.words((right, y), labels::percent(*depth), TEXT.right());
    }
}

fn draw_map(
    picture: &mut Picture,
    maps: &HeatMaps,
    layout: &Layout,
    (map, (left, top)): (&HeatMap, Place),
) {
    let half = TEXT.line_height() / 2.0;
    let name = letters::fitted(&map.policy, TEXT.size, layout.map.0);
    picture.words((left + layout.map.0 / 2.0, top - half), name, TEXT.centred());
    let n_lengths = maps.lengths.len();
    for (i, cell) in map.cells.iter().enumerate() {
        let (row, column) = ((i / n_lengths) as f64, (i % n_lengths) as f64);
        let corner = (left + column * layout.cell_width, top + row * CELL.1);
        draw_cell(picture, *cell, corner, layout.cell_width);
    }
    for (i, length) in maps.lengths.iter().enumerate() {
        let x = left + (i as f64 + 0.5) * layout.cell_width;
        picture.words((x, top + layout.map.1 + half), labels::tokens(*length), TEXT.centred());
    }
}

fn draw_cell(picture: &mut Picture, cell: Option<Cell>, (left, top): Place, width: f64) {
    let inset = CELL_GAP / 2.0;
    let from = (left + inset, top + inset);
    let to = (left + width - inset, top + CELL.1 - inset);
    let Some(cell) = cell else { return draw_blank(picture, from, to) };
    let ground = heat_colour(cell.found);
    picture.area([from, to], ground);
    let ink = readable_on(ground);
    let (x, middle) = (left + width / 2.0, top + CELL.1 / 2.0);
    let apart = CELL.1 / 6.0;
    let lines = [
        (middle - apart, labels::whole_percent(cell.found), TEXT),
        (middle + apart, labels::number(cell.log_probability), SMALL),
    ];
    for (y, text, letters) in lines {
        picture.words((x, y), text, letters.centred().coloured(ink));
    }
}

/// A frame with nothing in it.
fn draw_blank(picture: &mut Picture, from: Place, to: Place) {
    picture.area([from, to], GRID);
    picture.area([(from.0 + 1.0, from.1 + 1.0), (to.0 - 1.0, to.1 - 1.0)], PAPER);
}

fn draw_scale(picture: &mut Picture, (left, top): Place, has_blanks: bool) {
    let (width, height) = SCALE;
    let step = width / N_COLOURS as f64;
    for i in 0..N_COLOURS {
        let x = left + i as f64 * step;
        let share = i as f64 / (N_COLOURS - 1) as f64;
        picture.area([(x, top), (x + step, top + height)], heat_colour(share));
    }
    let middle = top + height / 2.0;
    picture.words((left - LABEL_GAP, middle), "found", SMALL.right());
    for share in SHARES {
        let x = left + share * width;
        let label = labels::whole_percent(share);
        picture.words((x, top + height + LABEL_GAP), label, SMALL.centred());
    }
    if has_blanks {
        let left = left + width + GAP + LABEL_GAP;
        draw_blank(picture, (left, top), (left + 2.0 * height, top + height));
        picture.words((left + 2.0 * height + LABEL_GAP, middle), "no cases", SMALL);
    }
}
