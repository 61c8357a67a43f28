//! Draws of tokens: the token that holds the point, among those that are left.

use kernels::naive::{Draw, kept};
use kernels::{Array, DrawKernels, LogitEdit};

use crate::devices::{numbers, on_devices};

/// Tokens drawn from rows of logits.
fn drawn(logits: &[f32], vocab: usize, draws: &[(usize, Draw)]) -> Vec<u32> {
    on_devices(|device| {
        let mut kernels = DrawKernels::default();
        let logits = Array::of(device, logits).unwrap();
        let mut tokens = Vec::new();
        kernels.draw(device, (&logits, vocab), draws, &mut tokens).unwrap();
        tokens
    })
}

const PLAIN: Draw = Draw { temperature: 1.0, min_p: 0.0, top_k: 0, top_p: 1.0, random: 0 };

/// The token is one that is left, and its share holds the point, but for rounding at its ends.
fn assert_holds(logits: &[f32], draw: &Draw, token: u32) {
    let kept = kept(logits, draw);
    let sum: f64 = kept.iter().map(|(_, share)| share).sum();
    let point = f64::from(draw.random) / 4_294_967_296.0 * sum;
    let before = kept.iter().filter(|(other, _)| *other < token as usize);
    let before: f64 = before.map(|(_, share)| share).sum();
    let share = kept.iter().find(|(other, _)| *other == token as usize);
    let share = share.unwrap_or_else(|| panic!("{token} is not left by {draw:?}")).1;
    let slack = 1e-4 * sum;
    assert!(
        before - slack <= point && point <= before + share + slack,
        "{token} has {before} and {share} more, the point of {draw:?} is {point}"
    );
}

#[test]
fn the_token_whose_share_holds_the_point_is_drawn() {
    for vocab in [1, 2, 31, 512, 513, 3000] {
        let logits: Vec<f32> = numbers(11, 3 * vocab).iter().map(|x| 9.0 * x).collect();
        let mut draws = Vec::new();
        for (i, random) in [0, 1 << 30, 0x9000_0000, 0xe123_4567, u32::MAX].into_iter().enumerate()
        {
            let draw = Draw { random, temperature: [0.6, 1.0, 1.7][i % 3], ..PLAIN };
            draws.push((i % 3, draw));
            draws.push((2, Draw { top_k: 7, ..draw }));
            draws.push((1, Draw { top_p: 0.8, ..draw }));
            draws.push((0, Draw { min_p: 0.07, ..draw }));
            draws.push((i % 3, Draw { top_k: 50, top_p: 0.9, min_p: 0.01, ..draw }));
            draws.push((1, Draw { temperature: 0.0, ..draw }));
        }
        for ((row, draw), token) in draws.iter().zip(drawn(&logits, vocab, &draws)) {
            assert_holds(&logits[row * vocab..][..vocab], draw, token);
        }
    }
}

#[test]
fn all_that_is_left_comes_as_often_as_it_is_likely_and_nothing_else() {
    // 0.07, 0.31, 0.51, 0.07; neither what cannot come nor what is no number.
    let logits = [0.0, 1.5, 2.0, 0.0, f32::NEG_INFINITY, f32::NAN];
    let n = 64u32;
    let cases = [
        (PLAIN, 4),
        (Draw { top_k: 3, ..PLAIN }, 3),
        (Draw { top_p: 0.5, ..PLAIN }, 1),
        (Draw { top_p: 0.6, ..PLAIN }, 2),
        (Draw { top_p: 0.9, ..PLAIN }, 3), // of the equals the first
        (Draw { min_p: 0.5, ..PLAIN }, 2),
        (Draw { top_k: 2, top_p: 0.62, ..PLAIN }, 1),
        (Draw { top_k: 4, top_p: 0.0, ..PLAIN }, 1),
        (Draw { top_k: 60, ..PLAIN }, 4),
    ];
    for (draw, n_left) in cases {
        let draws = (0..n).map(|i| (0, Draw { random: i << 26 | 1 << 25, ..draw }));
        let tokens = drawn(&logits, logits.len(), &draws.collect::<Vec<_>>());
        let kept = kept(&logits, &draw);
        assert_eq!(kept.len(), n_left, "{draw:?}");
        let sum: f64 = kept.iter().map(|(_, share)| share).sum();
        let counted: usize = kept
            .iter()
            .map(|(token, share)| {
                let count = tokens.iter().filter(|drawn| **drawn as usize == *token).count();
                let expected = share / sum * f64::from(n);
                assert!((count as f64 - expected).abs() <= 1.5, "{token} of {draw:?}: {count}");
                count
            })
            .sum();
        assert_eq!(counted, tokens.len(), "{draw:?}: {tokens:?}");
    }
}

#[test]
fn many_equal_tokens_are_told_apart_by_their_order() {
    // More of them than a warp's part has, at the border of the cut.
    let vocab = 2100;
    let mut logits = vec![0.0; vocab];
    (logits[1000], logits[2050]) = (1.0, 1.0);
    for (top_k, last) in [(1, 1000), (2, 2050), (700, 2050), (2050, 2050)] {
        let draw = Draw { top_k, random: u32::MAX, ..PLAIN };
        let token = drawn(&logits, vocab, &[(0, draw)])[0] as usize;
        let kept = kept(&logits, &draw);
        assert_eq!((token, kept.len()), (last, top_k));
        assert_eq!(kept.last().unwrap().0, last);
        let draw = Draw { random: 1 << 31, ..draw };
        assert_holds(&logits, &draw, drawn(&logits, vocab, &[(0, draw)])[0]);
    }
    let draw = Draw { top_p: 0.25, random: u32::MAX, ..PLAIN };
    assert_holds(&logits, &draw, drawn(&logits, vocab, &[(0, draw)])[0]);
}

#[test]
fn the_likeliest_is_the_first_of_equals_also_where_nothing_is_a_number() {
    let vocab = 600;
    let mut rows = vec![f32::NAN; 4 * vocab];
    rows[vocab..2 * vocab].fill(f32::NEG_INFINITY);
    (rows[2 * vocab + 77], rows[2 * vocab + 500]) = (f32::INFINITY, f32::INFINITY);
    (rows[3 * vocab + 599], rows[3 * vocab + 598]) = (-3.0, -3.0);
    for temperature in [0.0, 1.0] {
        let draws: Vec<_> = (0..4).map(|row| (row, Draw { temperature, ..PLAIN })).collect();
        assert_eq!(drawn(&rows, vocab, &draws), [0, 0, 77, 598]);
    }
}

#[test]
fn edits_are_added_to_their_logits_and_to_no_others() {
    let (vocab, logits) = (40, numbers(3, 120));
    let edit = |row, token, by| LogitEdit { row, token, by };
    on_devices(|device| {
        let mut kernels = DrawKernels::default();
        let mut array = Array::of(device, &logits).unwrap();
        let mut run = |edits: &[LogitEdit]| kernels.edit(device, (&mut array, vocab), edits);
        run(&[edit(0, 3, 1.5), edit(0, 39, -1.0), edit(2, 0, 0.25)]).unwrap();
        run(&[]).unwrap();
        for refused in [
            [edit(0, 40, 1.0), edit(1, 1, 1.0)],
            [edit(1, 1, 1.0), edit(1, 1, 1.0)],
            [edit(1, 1, 1.0), edit(0, 1, 1.0)],
        ] {
            let told = run(&refused).unwrap_err().to_string();
            assert!(told.contains("edits of logits"), "{told}");
        }
        assert!(run(&[edit(3, 0, 1.0)]).unwrap_err().to_string().contains("logits to edit"));
        let mut expected = logits.clone();
        (expected[3], expected[39], expected[80]) =
            (logits[3] + 1.5, logits[39] - 1.0, logits[80] + 0.25);
        assert_eq!(array.to_vec(device).unwrap(), expected);
    });
}
