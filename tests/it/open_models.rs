//! Do good files open, and say the same in both containers?

use mneme::model::{Architecture, ChatTemplate, Model, RopeLayout};
use mneme::tensor::{DType, Matrix, dequantize_row};

use crate::fixtures::{ScratchFolder, TinyModel, TinyRope, Value};

const ARCHITECTURES: [Architecture; 4] =
    [Architecture::Llama, Architecture::Mistral, Architecture::Qwen2, Architecture::Qwen3];

fn values(matrix: &Matrix) -> Vec<f32> {
    let mut out = vec![0.0; matrix.rows * matrix.cols];
    dequantize_row(matrix.dtype, &matrix.bytes, &mut out);
    out
}

fn models() -> Vec<TinyModel> {
    let mut models: Vec<_> = ARCHITECTURES.map(TinyModel::new).to_vec();
    let base = || TinyModel::default();
    for dtype in DType::ALL {
        // K-quants need rows of 256.
        let (hidden_size, intermediate_size) =
            if dtype.block_len() == 256 { (256, 256) } else { (64, 96) };
        let head_dim = hidden_size / 4;
        models.push(TinyModel { dtype, hidden_size, intermediate_size, head_dim, ..base() });
    }
    models.push(TinyModel { tied: false, n_heads: 3, n_kv_heads: 1, head_dim: 32, ..base() });
    models.push(TinyModel { n_kv_heads: 4, seed: 9, ..TinyModel::new(Architecture::Qwen2) });
    models.push(TinyModel { sliding_window: Some(64), ..TinyModel::new(Architecture::Mistral) });
    models
}

/// Opens both ways of writing `tiny`, and holds both against the weights it was made of.
fn check_both(tiny: &TinyModel, n_shards: usize) {
    let scratch = ScratchFolder::new();
    let file = Model::open(&tiny.write_gguf(&scratch.path().join("tiny.gguf"))).unwrap();
    let folder = scratch.path().join("folder");
    tiny.write_folder(&folder, n_shards);
    let folder = Model::open(&folder).unwrap();

    assert_eq!(folder.config.architecture, tiny.architecture);
    let mut same = folder.config.clone();
    same.name = file.config.name.clone();
    same.rope.layout = tiny.gguf_layout();
    same.architecture = file.config.architecture; // GGUF files of Mistral say llama
    assert_eq!(file.config, same, "{tiny:?}");
    assert_eq!(folder.config.rope.layout, RopeLayout::Half);
    assert_eq!(file.config.sliding_window, tiny.sliding_window);

    let expected = tiny.weights();
    for model in [&file, &folder] {
        assert_eq!(values(&model.weights.embedding), expected.embedding.values);
        assert_eq!(model.weights.output_norm, expected.output_norm);
        let output = expected.output.as_ref().unwrap_or(&expected.embedding);
        assert_eq!(values(&model.weights.output), output.values);
        assert_eq!(model.weights.layers.len(), tiny.n_layers);
        for (layer, expected) in model.weights.layers.iter().zip(&expected.layers) {
            assert_eq!(layer.attention_norm, expected.attention_norm);
            assert_eq!(layer.value_bias, expected.value_bias);
            assert_eq!(layer.query_norm, expected.query_norm);
            assert_eq!(layer.key_norm, expected.key_norm);
            assert_eq!(values(&layer.value), expected.value.values);
            assert_eq!(values(&layer.attention_output), expected.attention_output.values);
            assert_eq!(values(&layer.gate), expected.gate.values);
            assert_eq!(values(&layer.up), expected.up.values);
            assert_eq!(values(&layer.down), expected.down.values);
        }
    }
    check_rotated_rows(tiny, &file, &folder);
}

/// Rows of query and key, and their biases, lie as each container's rotation wants them.
fn check_rotated_rows(tiny: &TinyModel, file: &Model, folder: &Model) {
    for (idx, expected) in tiny.weights().layers.iter().enumerate() {
        let (file, folder) = (&file.weights.layers[idx], &folder.weights.layers[idx]);
        for (stored, plain, expected) in
            [(&file.query, &folder.query, &expected.query), (&file.key, &folder.key, &expected.key)]
        {
            assert_eq!(values(plain), expected.values);
            let stored = values(stored);
            for (row, stored) in stored.chunks(tiny.hidden_size).enumerate() {
                let at = tiny.gguf_row(row) * tiny.hidden_size;
                assert_eq!(stored, &expected.values[at..at + tiny.hidden_size]);
            }
        }
        assert_eq!(folder.query_bias, expected.query_bias);
        assert_eq!(file.query_bias.is_some(), tiny.has_biases());
        assert_eq!(folder.key_bias, expected.key_bias);
    }
}

#[test]
fn both_containers_give_the_weights_that_were_written() {
    for (idx, tiny) in models().iter().enumerate() {
        check_both(tiny, 1 + idx % 3);
    }
}

#[test]
fn both_containers_give_the_same_rotation() {
    let scalings = [
        TinyRope::Plain,
        TinyRope::Linear { factor: 4.0 },
        TinyRope::Llama3 { factor: 8.0, original_tokens: 64 },
        TinyRope::Yarn { factor: 4.0, original_tokens: 64 },
    ];
    let scratch = ScratchFolder::new();
    for rope in scalings {
        let tiny = TinyModel { rope, ..TinyModel::default() };
        let file = Model::open(&tiny.write_gguf(&scratch.path().join("tiny.gguf"))).unwrap();
        tiny.write_folder(scratch.path(), 1);
        let folder = Model::open(scratch.path()).unwrap();
        let (file, folder) = (file.config.rope, folder.config.rope);
        let pairs = file.inverse_frequencies.iter().zip(&folder.inverse_frequencies);
        for (file, folder) in pairs {
            assert!((file / folder - 1.0).abs() < 1e-6, "{rope:?}: {file} {folder}");
        }
        assert_eq!(file.magnitude, folder.magnitude, "{rope:?}");
        assert_eq!(file.magnitude > 1.0, matches!(rope, TinyRope::Yarn { .. }));
    }
}

#[test]
fn yarn_extends_the_trained_length() {
    let rope = TinyRope::Yarn { factor: 4.0, original_tokens: 256 };
    let tiny = TinyModel { rope, ..TinyModel::default() };
    let scratch = ScratchFolder::new();
    let file = Model::open(&tiny.write_gguf(&scratch.path().join("tiny.gguf"))).unwrap();
    assert_eq!(file.config.trained_tokens, 1024);
}

#[test]
fn part_of_a_head_can_turn() {
    let scratch = ScratchFolder::new();
    let mut writer = TinyModel::new(Architecture::Qwen2).gguf();
    writer.set("qwen2.rope.dimension_count", Value::U32(8));
    let model = Model::open(&scratch.file("tiny.gguf", &writer.bytes())).unwrap();
    assert_eq!(model.config.rope.inverse_frequencies.len(), 4);
    assert_eq!(model.config.head_dim, 16);
}

#[test]
fn versions_two_and_three_and_any_alignment_open() {
    let scratch = ScratchFolder::new();
    for version in [2, 3] {
        for alignment in [1, 8, 64, 4096] {
            let mut writer = TinyModel::default().gguf();
            writer.version = version;
            writer.alignment = alignment;
            writer.set("general.alignment", Value::U32(alignment as u32));
            let model = Model::open(&scratch.file("tiny.gguf", &writer.bytes())).unwrap();
            let expected = TinyModel::default().weights().embedding.values;
            assert_eq!(values(&model.weights.embedding), expected);
        }
    }
}

#[test]
fn biases_of_a_llama_are_used_where_the_file_has_them() {
    let scratch = ScratchFolder::new();
    let mut writer = TinyModel::default().gguf();
    let biased = TinyModel { seed: 5, ..TinyModel::new(Architecture::Qwen2) }.gguf();
    let biases = biased.tensors.into_iter().filter(|tensor| tensor.name.ends_with(".bias"));
    writer.tensors.extend(biases);
    let model = Model::open(&scratch.file("tiny.gguf", &writer.bytes())).unwrap();
    assert!(model.weights.layers.iter().all(|layer| layer.key_bias.is_some()));
}

#[test]
fn the_window_of_a_qwen_counts_only_where_it_is_switched_on() {
    let scratch = ScratchFolder::new();
    let tiny = TinyModel { sliding_window: Some(64), ..TinyModel::new(Architecture::Qwen2) };
    for (switch, first, expected) in [(true, 0, Some(64)), (true, 2, None), (false, 0, None)] {
        tiny.write_folder(scratch.path(), 1);
        let mut config = tiny.config_json();
        config["use_sliding_window"] = switch.into();
        config["max_window_layers"] = first.into();
        scratch.file("config.json", config.to_string().as_bytes());
        let model = Model::open(scratch.path()).unwrap();
        assert_eq!(model.config.sliding_window, expected);
    }
}

#[test]
fn rotation_is_read_where_transformers_5_writes_it() {
    let scratch = ScratchFolder::new();
    let tiny = TinyModel::default();
    tiny.write_folder(scratch.path(), 1);
    let mut config = tiny.config_json();
    let fields = config.as_object_mut().unwrap();
    fields.remove("rope_theta");
    fields.remove("rope_scaling");
    config["rope_parameters"] =
        serde_json::json!({"rope_type": "linear", "factor": 2.0, "rope_theta": 100.0});
    scratch.file("config.json", config.to_string().as_bytes());
    let model = Model::open(scratch.path()).unwrap();
    assert!((model.config.rope.inverse_frequencies[4] - 0.05).abs() < 1e-12);
}

#[test]
fn a_summary_counts_what_the_files_hold() {
    let scratch = ScratchFolder::new();
    let tiny = TinyModel { dtype: DType::Q8_0, ..TinyModel::default() };
    let path = tiny.write_gguf(&scratch.path().join("tiny.gguf"));
    let summary = Model::open(&path).unwrap().summary().unwrap();
    let layer = 2 * 64 * 64 + 2 * 32 * 64 + 3 * 96 * 64;
    let matrices = 288 * 64 + 2 * layer;
    let vectors = 5 * 64;
    assert_eq!(summary.n_parameters, matrices + vectors);
    assert_eq!(summary.weight_bytes, matrices / 32 * 34 + vectors * 4);
    assert_eq!(summary.types[0].dtype, DType::Q8_0);
    assert_eq!((summary.types[0].n_tensors, summary.types[1].n_tensors), (15, 5));
    assert_eq!((summary.container, summary.chat_template), ("GGUF", ChatTemplate::Present));

    tiny.write_folder(scratch.path(), 2);
    let summary = Model::open(scratch.path()).unwrap().summary().unwrap();
    assert_eq!((summary.container, summary.chat_template), ("safetensors", ChatTemplate::Present));
    assert_eq!(summary.n_parameters, matrices + vectors);
    std::fs::remove_file(scratch.path().join("tokenizer_config.json")).unwrap();
    let summary = Model::open(scratch.path()).unwrap().summary().unwrap();
    assert_eq!(summary.chat_template, ChatTemplate::Missing);
}
