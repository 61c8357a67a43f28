//! Where do curves stand? One a policy over the length of prompts; names at the right of the area, so
//! that they hide nothing. Where lines of several policies coincide, their dashes take turns.

use plotters::prelude::RGBColor;

use super::axes::{Axes, ticks};
use super::cells::{Curve, Curves, Point, Quantity};
use super::picture::{Picture, Place};
use super::spread;
use super::style::{
    AREA, CURVE_WIDTH, DASH, GAP, KEY_WIDTH, LABEL_GAP, LEAST_AREA_WIDTH, LEAST_WIDTH,
    LENGTH_WIDTH, MARGIN, MARKER_RADIUS, NAME_WIDTH, PAPER, SMALL, TEXT, curve_colour,
};
use super::{labels, letters};

/// Which of so many dashes is one's own.
#[derive(Clone, Copy)]
struct Turn {
    i: usize,
    n: usize,
}

/// The curves of a task.
pub fn draw(curves: &Curves) -> Picture {
    let (lengths, ticks) = (curves.lengths(), ticks_of(curves));
    let label = |tick: &f64| match curves.quantity {
        Quantity::Found | Quantity::F1 => labels::whole_percent(*tick),
        Quantity::Perplexity => labels::stepped(*tick, ticks[1] - ticks[0]),
    };
    let tick_labels: Vec<String> = ticks.iter().map(label).collect();
    let names = names(curves, lengths.len());
    let left = MARGIN + widest(&tick_labels) + LABEL_GAP;
    let right = left + area_width(lengths.len());
    let width = (right + GAP + KEY_WIDTH + LABEL_GAP + widest(&names)).max(LEAST_WIDTH) + MARGIN;
    let (mut picture, below_notes) = Picture::new(width, &title(curves), &notes(curves));
    let top = below_notes + GAP;
    let axes = Axes { corners: [(left, top), (right, top + AREA.1)], lengths, ticks };
    axes.draw(&mut picture, &tick_labels);
    let places = spread::places(&axes, &curves.curves);
    for (curve, places) in curves.curves.iter().zip(&places) {
        draw_alone(&mut picture, &axes, &curves.curves, curve);
        draw_curve(&mut picture, &axes, &curves.curves, (curve, places));
    }
    for (curve, places) in curves.curves.iter().zip(&places) {
        places.iter().for_each(|place| draw_marker(&mut picture, *place, curve.place));
    }
    let legend_bottom = draw_legend(&mut picture, curves, &names, (right + GAP, top));
    let bottom = top + AREA.1 + LABEL_GAP + TEXT.line_height() + SMALL.line_height();
    picture.size.1 = bottom.max(legend_bottom) + MARGIN / 2.0;
    picture
}

/// How wide the widest of several texts is.
fn widest(texts: &[String]) -> f64 {
    texts.iter().map(|text| letters::width(text, TEXT.size)).fold(0.0, f64::max)
}

fn area_width(n_lengths: usize) -> f64 {
    let n = n_lengths as f64;
    (LEAST_AREA_WIDTH * n).clamp(LEAST_AREA_WIDTH, AREA.0).max(LENGTH_WIDTH * n)
}

/// As the legend has them: with the value, where there is but one.
fn names(curves: &Curves, n_lengths: usize) -> Vec<String> {
    let name = |curve: &Curve| {
        let name = letters::fitted(&curve.policy, TEXT.size, NAME_WIDTH);
        match &curve.points[..] {
            [point] if n_lengths == 1 => {
                format!("{name}: {}", value_label(curves.quantity, point.value))
            }
            _ => name,
        }
    };
    curves.curves.iter().map(name).collect()
}

fn title(curves: &Curves) -> String {
    match curves.quantity {
        Quantity::Found => format!("{}: share of cases found, by length", curves.task),
        Quantity::F1 => format!("{}: F1 of the answers' words, by length", curves.task),
        Quantity::Perplexity => "perplexity, by length (lower is better)".to_owned(),
    }
}

fn notes(curves: &Curves) -> String {
    let alone = match curves.curves.iter().any(|curve| curve.alone.is_some()) {
        true => " Dashed, without points: the paragraph alone.",
        false => "",
    };
    format!("{} a point.{alone}", labels::cases(curves.n_cases()))
}

fn ticks_of(curves: &Curves) -> Vec<f64> {
    match curves.quantity {
        Quantity::Found | Quantity::F1 => ticks(0.0, 1.0),
        Quantity::Perplexity => {
            let values = || curves.points().map(|point| point.value);
            let least = values().fold(f64::INFINITY, f64::min);
            ticks(least, values().fold(f64::NEG_INFINITY, f64::max))
        }
    }
}

fn value_label(quantity: Quantity, value: f64) -> String {
    match quantity {
        Quantity::Found | Quantity::F1 => labels::whole_percent(value),
        Quantity::Perplexity => labels::number(value),
    }
}

/// Lines from point to point. Those that several curves share go to the middle of their points.
fn draw_curve(
    picture: &mut Picture,
    axes: &Axes,
    all: &[Curve],
    (curve, places): (&Curve, &[Place]),
) {
    let colour = curve_colour(curve.place);
    for (points, ends) in curve.points.windows(2).zip(places.windows(2)) {
        let goes_along = |other: &Curve| {
            let alike = |(a, b): (&Point, &Point)| a.length == b.length && a.value == b.value;
            other.points.windows(2).any(|others| others.iter().zip(points).all(alike))
        };
        match turn(curve, all, goes_along) {
            Turn { n: 1, .. } => picture.line([ends[0], ends[1]], CURVE_WIDTH, colour),
            turn => draw_dashes(picture, [0, 1].map(|i| axes.place(&points[i])), turn, colour),
        }
    }
}

/// A dashed line where the document held nothing else.
fn draw_alone(picture: &mut Picture, axes: &Axes, all: &[Curve], curve: &Curve) {
    let Some(alone) = curve.alone else { return };
    let ([(left, _), (right, _)], y) = (axes.corners, axes.y(alone.value));
    let is_as_high = |other: &Curve| other.alone.is_some_and(|other| other.value == alone.value);
    let Turn { i, n } = turn(curve, all, is_as_high);
    let turn = Turn { i, n: n.max(2) };
    draw_dashes(picture, [(left, y), (right, y)], turn, curve_colour(curve.place));
}

/// The turn of a curve among those of which `is_there` holds, as it does of the curve.
fn turn(curve: &Curve, all: &[Curve], is_there: impl Fn(&Curve) -> bool) -> Turn {
    let is_before = |other: &&Curve| other.place < curve.place;
    let there = || all.iter().filter(|other| is_there(other));
    Turn { i: there().filter(is_before).count(), n: there().count() }
}

fn draw_dashes(picture: &mut Picture, [from, to]: [Place; 2], turn: Turn, colour: RGBColor) {
    let (dx, dy) = (to.0 - from.0, to.1 - from.1);
    let n_dashes = (dx.hypot(dy) / DASH).ceil();
    let place = |dash: f64| {
        let share = (dash / n_dashes).min(1.0);
        (from.0 + share * dx, from.1 + share * dy)
    };
    for dash in (turn.i..n_dashes as usize).step_by(turn.n) {
        let dash = dash as f64;
        picture.line([place(dash), place(dash + 1.0)], CURVE_WIDTH, colour);
    }
}

/// A marker of one of five forms, with a rim that sets it apart from what it is drawn on.
fn draw_marker(picture: &mut Picture, (x, y): Place, place: usize) {
    for (r, colour) in [(MARKER_RADIUS + 1.5, PAPER), (MARKER_RADIUS, curve_colour(place))] {
        let corners: &[Place] = match place % 5 {
            0 => {
                picture.disc((x, y), r, colour);
                continue;
            }
            1 => &[(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
            2 => &[(0.0, -1.2), (1.1, 0.8), (-1.1, 0.8)],
            3 => &[(0.0, -1.25), (1.25, 0.0), (0.0, 1.25), (-1.25, 0.0)],
            _ => &[(0.0, 1.2), (1.1, -0.8), (-1.1, -0.8)],
        };
        let corners = corners.iter().map(|(dx, dy)| (x + dx * r, y + dy * r));
        picture.shape(corners.collect(), colour);
    }
}

/// Names with their colours and markers; how far down it goes is returned.
fn draw_legend(
    picture: &mut Picture,
    curves: &Curves,
    names: &[String],
    (left, top): Place,
) -> f64 {
    let line_height = 1.1 * TEXT.line_height();
    for (i, (curve, name)) in curves.curves.iter().zip(names).enumerate() {
        let y = top + (i as f64 + 0.5) * line_height;
        let ends = [(left, y), (left + KEY_WIDTH, y)];
        picture.line(ends, CURVE_WIDTH, curve_colour(curve.place));
        draw_marker(picture, (left + KEY_WIDTH / 2.0, y), curve.place);
        picture.words((left + KEY_WIDTH + LABEL_GAP, y), name, TEXT);
    }
    top + names.len() as f64 * line_height
}
