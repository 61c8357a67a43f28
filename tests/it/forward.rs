//! Does a model compute what its definition says? Tiny models of every family, from both
//! containers, against plain loops in f64.

use mneme::backend::Precision;
use mneme::model::{Architecture, Model};
use mneme::tensor::DType;

use crate::fixtures::{
    NaiveModel, Runner, ScratchFolder, TinyModel, TinyRope, all_before, gguf_model,
    largest_difference, random_tokens,
};

const N_TOKENS: usize = 40;
/// A chunk of many tokens, one of one, one of a few, and the rest.
const CHUNKS: [usize; 3] = [17, 1, 4];
/// As a share of the largest logit.
const TOLERANCE: f64 = 1e-4;

fn folder_model(tiny: &TinyModel) -> Model {
    let scratch = ScratchFolder::new();
    tiny.write_folder(scratch.path(), 2);
    Model::open(scratch.path()).unwrap()
}

/// Both containers against the definition, and against each other.
fn check(tiny: &TinyModel) {
    let tokens = random_tokens(N_TOKENS, tiny.vocab_size, 7);
    let expected = NaiveModel::new(tiny).logits(&tokens, &all_before).concat();
    let largest = expected.iter().fold(0.0f64, |max, x| max.max(x.abs()));
    assert!(largest > 0.1, "a model that says something: {largest}");
    let [gguf, folder] = [gguf_model(tiny), folder_model(tiny)].map(|model| {
        let logits = Runner::new(&model, 2, Precision::F32).full(&tokens, &CHUNKS);
        let difference = largest_difference(&logits, &expected);
        assert!(difference < TOLERANCE * largest, "{tiny:?}: {difference:e} of {largest}");
        logits
    });
    let difference = largest_difference(&gguf, &folder);
    assert!(difference < TOLERANCE * largest, "{tiny:?}: containers differ by {difference:e}");
}

#[test]
fn every_architecture_computes_its_definition_from_both_containers() {
    for architecture in
        [Architecture::Llama, Architecture::Mistral, Architecture::Qwen2, Architecture::Qwen3]
    {
        for (tied, seed) in [(true, 3), (false, 4)] {
            check(&TinyModel { tied, seed, ..TinyModel::new(architecture) });
        }
    }
}

#[test]
fn grouped_multi_query_and_multi_head_attention_compute_their_definition() {
    for architecture in [Architecture::Llama, Architecture::Qwen2, Architecture::Qwen3] {
        for (n_heads, n_kv_heads, head_dim) in [(4, 4, 16), (5, 1, 32), (6, 3, 48), (3, 1, 64)] {
            let tiny = TinyModel::new(architecture);
            check(&TinyModel { n_heads, n_kv_heads, head_dim, ..tiny });
        }
    }
}

#[test]
fn every_rotary_scaling_computes_its_definition() {
    let scalings = [
        TinyRope::Linear { factor: 4.0 },
        TinyRope::Llama3 { factor: 8.0, original_tokens: 64 },
        TinyRope::Yarn { factor: 4.0, original_tokens: 64 },
        TinyRope::Yarn { factor: 16.0, original_tokens: 512 },
    ];
    for rope in scalings {
        for architecture in [Architecture::Llama, Architecture::Qwen3] {
            // Wide heads, so that some pairs are stretched, some are not, and some in part.
            check(&TinyModel { rope, head_dim: 64, ..TinyModel::new(architecture) });
        }
    }
}

#[test]
fn weights_of_every_type_compute_their_definition() {
    for dtype in DType::ALL {
        let is_k_quant = dtype.block_len() == 256;
        let (hidden_size, intermediate_size) = if is_k_quant { (256, 256) } else { (64, 96) };
        let head_dim = hidden_size / 4;
        let sizes = TinyModel { hidden_size, intermediate_size, head_dim, ..TinyModel::default() };
        check(&TinyModel { dtype, ..sizes });
    }
}
