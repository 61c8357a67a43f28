//! Key/value pairs: a JSON object of UUIDs, and one key to look up, as in "Lost in the Middle"
//! (arXiv 2307.03172).

use serde::Deserialize;

use crate::eval::case::{Case, Measure, Scene};
use crate::ids::ByteSpan;

/// A case as that paper's files have it.
#[derive(Clone, Debug, Deserialize)]
pub struct KvCase {
    /// In order.
    pub ordered_kv_records: Vec<(String, String)>,
    /// The key asked for.
    pub key: String,
    /// Its value.
    pub value: String,
}

/// As many pairs as `n_tokens` hold by `count`, the one asked for at `depth`.
pub fn scene(
    (n_tokens, depth): (usize, f32),
    rng: &mut fastrand::Rng,
    count: &dyn Fn(&str) -> usize,
) -> Scene {
    // Digits and letters make more or fewer tokens: by the mean of some pairs.
    let sample: String = (0..16).map(|_| line(&uuid(rng), &uuid(rng))).collect();
    let n_pairs = (n_tokens * 16 / count(&sample)).max(1);
    let pairs: Vec<(String, String)> = (0..n_pairs).map(|_| (uuid(rng), uuid(rng))).collect();
    let asked = ((n_pairs as f32 * depth) as usize).min(n_pairs - 1);
    let (key, value) = pairs[asked].clone();
    of_file(&KvCase { ordered_kv_records: pairs, key, value })
}

/// The scene of a given case.
pub fn of_file(case: &KvCase) -> Scene {
    let KvCase { ordered_kv_records: pairs, key, value } = case;
    let mut document = "Below is a JSON object of keys and values.\n\n{".to_owned();
    let mut evidence = Vec::new();
    let mut depth = None;
    for (i, (each_key, each_value)) in pairs.iter().enumerate() {
        let start = document.len();
        document += &line(each_key, each_value);
        if each_key == key {
            evidence.push(ByteSpan { start, end: document.len() });
            depth = Some(i as f32 / (pairs.len() - 1).max(1) as f32);
        }
    }
    document.truncate(document.trim_end_matches([',', '\n', ' ']).len());
    document.push('}');
    let case = Case {
        depth,
        question: format!("What is the value of the key \"{key}\" in the JSON object above?"),
        answer_start: format!("The value of the key \"{key}\" is \""),
        answers: vec![value.clone()],
        evidence,
        measure: Measure::Forced,
    };
    Scene { document, cases: vec![case] }
}

fn line(key: &str, value: &str) -> String {
    format!("\"{key}\": \"{value}\",\n ")
}

/// A random (version 4) UUID.
fn uuid(rng: &mut fastrand::Rng) -> String {
    let bits = (rng.u128(..) & !(0xf << 76)) | (4 << 76);
    let bits = (bits & !(0b11 << 62)) | (0b10 << 62);
    let hex = format!("{bits:032x}");
    let parts = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
    parts.join("-")
}
