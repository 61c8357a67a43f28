//! What do pictures show? Results put together: by policy, depth and length for heat maps, by policy
//! and length for curves. Nothing is drawn here.

use std::collections::{BTreeMap, BTreeSet};

use crate::eval::record::Record;
use crate::eval::summary::{Line, policies, summarize};
use crate::eval::task::Task;

/// How a task went at each depth and length.
#[derive(Clone, Debug, PartialEq)]
pub struct HeatMaps {
    /// The task.
    pub task: Task,
    /// Lengths of prompts, ascending.
    pub lengths: Vec<usize>,
    /// Where answers lie, from 0 to 1, ascending.
    pub depths: Vec<f64>,
    /// A map a policy, in the order in which policies first come.
    pub maps: Vec<HeatMap>,
}

/// How a task went under one policy.
#[derive(Clone, Debug, PartialEq)]
pub struct HeatMap {
    /// The policy's name.
    pub policy: String,
    /// What there is of each place.
    pub cells: Vec<Option<Cell>>, // [depth][length]
}

/// What the cases of a policy, depth and length came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cell {
    /// Cases.
    pub n_cases: usize,
    /// Share of them that were found.
    pub found: f64,
    /// Mean log-probability of the right answer, in nats.
    pub log_probability: f64,
}

/// How a task went over length.
#[derive(Clone, Debug, PartialEq)]
pub struct Curves {
    /// The task.
    pub task: Task,
    /// What is shown of it.
    pub quantity: Quantity,
    /// A curve a policy, in the order in which policies first come.
    pub curves: Vec<Curve>,
}

/// How a task went over length under one policy.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// The policy's name.
    pub policy: String,
    /// Its place among the policies of all tasks, which its colour goes by.
    pub place: usize,
    /// By length, ascending.
    pub points: Vec<Point>,
    /// Where the document was nothing but what holds the answer (length 0).
    pub alone: Option<Point>,
}

/// What the cases of a policy and length came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Tokens of prompts, about.
    pub length: usize,
    /// The quantity.
    pub value: f64,
    /// Cases.
    pub n_cases: usize,
}

/// What curves show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantity {
    /// Share of cases found, from 0 to 1.
    Found,
    /// Mean F1, from 0 to 1.
    F1,
    /// Perplexity, from 1 on; the lower the better.
    Perplexity,
}

/// A depth in ten-thousandths, which is as finely as results are told apart.
type DepthKey = u32;

impl HeatMaps {
    /// Of the results of `task` that have a depth, if there are any.
    pub fn of(records: &[Record], task: Task) -> Option<Self> {
        let mut groups: BTreeMap<(&str, DepthKey, usize), Vec<&Record>> = BTreeMap::new();
        for record in records.iter().filter(|record| record.label.task == task) {
            let Some(depth) = record.label.depth else { continue };
            let key = (record.policy.as_str(), depth_key(depth), record.label.length);
            groups.entry(key).or_default().push(record);
        }
        let cells: BTreeMap<_, Cell> =
            groups.iter().map(|(key, group)| (*key, Cell::of(group))).collect();
        let depths: BTreeSet<DepthKey> = cells.keys().map(|(_, depth, _)| *depth).collect();
        let lengths: BTreeSet<usize> = cells.keys().map(|(_, _, length)| *length).collect();
        let places = || depths.iter().flat_map(|d| lengths.iter().map(|length| (*d, *length)));
        let map = |policy: &str| HeatMap {
            policy: policy.to_owned(),
            cells: places().map(|(d, length)| cells.get(&(policy, d, length)).copied()).collect(),
        };
        let has_cells = |map: &HeatMap| map.cells.iter().any(Option::is_some);
        (!cells.is_empty()).then(|| Self {
            task,
            maps: policies(records).into_iter().map(map).filter(has_cells).collect(),
            depths: depths.iter().map(|depth| f64::from(*depth) / 10_000.0).collect(),
            lengths: lengths.iter().copied().collect(),
        })
    }

    /// The fewest and the most cases of a cell that has any.
    pub fn n_cases(&self) -> (usize, usize) {
        let cells = self.maps.iter().flat_map(|map| map.cells.iter().flatten());
        least_and_most(cells.map(|cell| cell.n_cases))
    }
}

impl Cell {
    fn of(group: &[&Record]) -> Self {
        let n = group.len() as f64;
        let n_found = group.iter().filter(|record| record.found).count();
        let log_probability: f64 = group.iter().map(|record| record.log_probability).sum();
        Self {
            n_cases: group.len(),
            found: n_found as f64 / n,
            log_probability: log_probability / n,
        }
    }
}

impl Curves {
    /// Of the results of `task`, if there are any.
    pub fn of(records: &[Record], task: Task) -> Option<Self> {
        let quantity = Quantity::of(task);
        let lines: Vec<Line> =
            summarize(records).into_iter().filter(|line| line.task == task).collect();
        let curve = |(place, policy): (usize, &str)| {
            let points = lines.iter().filter(|line| line.policy == policy).filter_map(|line| {
                let value = quantity.value(line).filter(|value| value.is_finite())?;
                Some(Point { length: line.length, value, n_cases: line.n_cases })
            });
            let (alone, points): (Vec<Point>, _) = points.partition(|point| point.length == 0);
            Curve { policy: policy.to_owned(), place, points, alone: alone.first().copied() }
        };
        let has_points = |curve: &Curve| curve.alone.is_some() || !curve.points.is_empty();
        let curves: Vec<Curve> =
            policies(records).into_iter().enumerate().map(curve).filter(has_points).collect();
        (!curves.is_empty()).then_some(Self { task, quantity, curves })
    }

    /// All points, also those of length 0.
    pub fn points(&self) -> impl Iterator<Item = &Point> {
        self.curves.iter().flat_map(|curve| curve.points.iter().chain(&curve.alone))
    }

    /// All lengths but 0, ascending.
    pub fn lengths(&self) -> Vec<usize> {
        let lengths: BTreeSet<usize> = self.points().map(|point| point.length).collect();
        lengths.into_iter().filter(|length| *length > 0).collect()
    }

    /// The fewest and the most cases of a point.
    pub fn n_cases(&self) -> (usize, usize) {
        least_and_most(self.points().map(|point| point.n_cases))
    }
}

impl Quantity {
    fn of(task: Task) -> Self {
        match task {
            Task::Qa => Self::F1,
            Task::Perplexity => Self::Perplexity,
            _ => Self::Found,
        }
    }

    fn value(self, line: &Line) -> Option<f64> {
        match self {
            Self::Found => Some(line.found),
            Self::F1 => line.f1,
            Self::Perplexity => Some((-line.log_probability).exp()),
        }
    }
}

fn depth_key(depth: f32) -> DepthKey {
    (f64::from(depth) * 10_000.0).round() as DepthKey
}

fn least_and_most(counts: impl Iterator<Item = usize>) -> (usize, usize) {
    let (least, most) = counts.fold((usize::MAX, 0), |(a, b), n| (a.min(n), b.max(n)));
    (least.min(most), most)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::case::Label;

    fn record(policy: &str, task: Task, (length, depth): (usize, Option<f32>)) -> Record {
        Record {
            policy: policy.to_owned(),
            fingerprint: policy.to_owned(),
            label: Label { task, haystack: None, length, depth, sample: 0 },
            case: 0,
            case_depth: depth,
            prompt_tokens: length,
            answer_tokens: 4,
            right_tokens: 0,
            found: false,
            log_probability: -8.0,
            sought: None,
            answer: None,
            f1: None,
            read_seconds: 1.0,
            answer_seconds: 1.0,
            attended_tokens_max: 1600,
        }
    }

    fn needle(policy: &str, place: (usize, f32), found: bool) -> Record {
        let log_probability = if found { -1.0 } else { -4.0 };
        let place = (place.0, Some(place.1));
        Record { found, log_probability, ..record(policy, Task::Needle, place) }
    }

    #[test]
    fn cells_hold_the_cases_of_their_policy_depth_and_length_alone() {
        let records = [
            needle("b", (16384, 0.9), true),
            needle("b", (8192, 0.1), true),
            needle("b", (8192, 0.1), false),
            needle("a", (8192, 0.9), false),
            record("c", Task::MultiNeedle, (8192, None)),
        ];
        let maps = HeatMaps::of(&records, Task::Needle).unwrap();
        assert_eq!(
            (maps.lengths.as_slice(), maps.depths.as_slice()),
            (&[8192, 16384][..], &[0.1, 0.9][..])
        );
        let policies: Vec<&str> = maps.maps.iter().map(|map| map.policy.as_str()).collect();
        assert_eq!(policies, ["b", "a"], "as they first come, and those with cells alone");
        let cell = |n_cases, found, log_probability| Some(Cell { n_cases, found, log_probability });
        assert_eq!(maps.maps[0].cells, [cell(2, 0.5, -2.5), None, None, cell(1, 1.0, -1.0)]);
        assert_eq!(maps.maps[1].cells, [None, None, cell(1, 0.0, -4.0), None]);
        assert_eq!(maps.n_cases(), (1, 2));
        assert_eq!(HeatMaps::of(&records, Task::MultiNeedle), None, "it has no depths");
        assert_eq!(HeatMaps::of(&records, Task::Kv), None, "it was not run");
    }

    #[test]
    fn curves_show_what_their_task_measures() {
        let of = |length| (length, None);
        let f1 =
            |policy, length, f1| Record { f1: Some(f1), ..record(policy, Task::Qa, of(length)) };
        let records = [
            record("none", Task::Perplexity, of(8192)),
            Record { found: true, ..record("b", Task::Passkey, of(8192)) },
            record("b", Task::Passkey, of(8192)),
            f1("a", 16384, 0.5),
            f1("a", 8192, 0.25),
            f1("a", 8192, 0.75),
            f1("a", 0, 1.0),
        ];
        let point = |length, value, n_cases| Point { length, value, n_cases };
        let curves = |task| Curves::of(&records, task).unwrap();
        let passkey = curves(Task::Passkey);
        assert_eq!((passkey.quantity, passkey.curves.len()), (Quantity::Found, 1));
        assert_eq!(passkey.curves[0].points, [point(8192, 0.5, 2)]);
        assert_eq!(passkey.curves[0].place, 1, "among the policies of all tasks");
        let qa = curves(Task::Qa);
        assert_eq!(qa.quantity, Quantity::F1);
        assert_eq!(qa.curves[0].points, [point(8192, 0.5, 2), point(16384, 0.5, 1)]);
        assert_eq!(qa.curves[0].alone, Some(point(0, 1.0, 1)));
        assert_eq!((qa.lengths(), qa.n_cases()), (vec![8192, 16384], (1, 2)));
        let perplexity = curves(Task::Perplexity);
        assert_eq!(perplexity.curves[0].points, [point(8192, 2f64.exp(), 1)], "of a token");
        assert_eq!(Curves::of(&records, Task::Kv), None, "it was not run");
    }
}
