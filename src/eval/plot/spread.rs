//! Where do points stand that would hide one another? Those of one length and about one value stand
//! side by side; all others stand where they belong.

use super::axes::Axes;
use super::cells::Curve;
use super::picture::Place;
use super::style::{MARKER_RADIUS, SIDE_STEP};

/// What share of the way to the next length may be taken.
const ROOM: f64 = 0.7;

/// A point's curve, its turn on the curve, and its height.
type Marker = (usize, usize, f64);

/// Where the points of each curve stand.
pub fn places(axes: &Axes, curves: &[Curve]) -> Vec<Vec<Place>> {
    let own = |curve: &Curve| curve.points.iter().map(|point| axes.place(point)).collect();
    let mut places: Vec<Vec<Place>> = curves.iter().map(own).collect();
    for length in &axes.lengths {
        let points = curves.iter().enumerate().filter_map(|(i, curve)| {
            let at = curve.points.iter().position(|point| point.length == *length)?;
            Some((i, at, axes.y(curve.points[at].value)))
        });
        for group in groups(points.collect()) {
            let room = ROOM * axes.room(*length) / group.len() as f64;
            let middle = (group.len() - 1) as f64 / 2.0;
            for (turn, (curve, at, _)) in group.iter().enumerate() {
                places[*curve][*at].0 += (turn as f64 - middle) * SIDE_STEP.min(room);
            }
        }
    }
    places
}

/// Markers that touch, from one to the next; in the order of their curves.
fn groups(mut points: Vec<Marker>) -> Vec<Vec<Marker>> {
    points.sort_by(|a, b| a.2.total_cmp(&b.2));
    let touch = |a: &Marker, b: &Marker| b.2 - a.2 < 2.4 * MARKER_RADIUS;
    let mut groups: Vec<Vec<Marker>> = points.chunk_by(touch).map(<[Marker]>::to_vec).collect();
    groups.iter_mut().for_each(|group| group.sort_by_key(|point| point.0));
    groups
}

#[cfg(test)]
mod tests {
    use super::super::cells;
    use super::*;

    #[test]
    fn points_stand_side_by_side_only_where_they_would_hide_one_another() {
        let axes = Axes {
            corners: [(0.0, 0.0), (600.0, 400.0)],
            lengths: vec![8192, 16384],
            ticks: vec![0.0, 1.0],
        };
        let curve = |values: [f64; 2]| {
            let point = |(length, value)| cells::Point { length, value, n_cases: 1 };
            let points = axes.lengths.iter().copied().zip(values).map(point).collect();
            Curve { policy: String::new(), place: 0, points, alone: None }
        };
        let places = places(&axes, &[curve([1.0, 1.0]), curve([0.5, 0.0]), curve([1.0, 0.99])]);
        let x = |curve: usize, at: usize| places[curve][at].0;
        assert_eq!([x(1, 0), x(1, 1)], [8192, 16384].map(|length| axes.x(length)));
        for at in 0..2 {
            let length = axes.lengths[at];
            assert!((x(2, at) - x(0, at) - SIDE_STEP).abs() < 1e-9, "as far as a marker is wide");
            assert!((x(2, at) + x(0, at) - 2.0 * axes.x(length)).abs() < 1e-9, "about the length");
        }
    }
}
