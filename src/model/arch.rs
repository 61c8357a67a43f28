//! Which architectures are there, and how do their files name things? One table: an architecture
//! of this kind (pre-norm, rotary, SwiGLU) is added by one entry here and nothing elsewhere.

use super::rope::RopeLayout;

/// A family of models.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// Llama, and everything that calls itself so.
    Llama,
    /// Mistral.
    Mistral,
    /// Qwen 2 and 2.5: biases on query, key and value.
    Qwen2,
    /// Qwen 3: norms on query and key heads.
    Qwen3,
}

/// What is particular to an architecture.
#[derive(Debug)]
pub(super) struct ArchitectureEntry {
    /// Whose entry this is.
    pub architecture: Architecture,
    /// As people write it.
    pub name: &'static str,
    /// Its GGUF files; `None` where they go under another architecture's name.
    pub gguf: Option<GgufConvention>,
    /// `model_type` in a folder's config.json.
    pub model_type: &'static str,
    /// `architectures` in a folder's config.json.
    pub classes: &'static [&'static str],
    /// Biases on query, key and value.
    pub attention_biases: Presence,
    /// Norms on each query and key head.
    pub head_norms: Presence,
    /// What `sliding_window` in config.json means.
    pub folder_window: WindowRule,
    /// Names of the tensors in GGUF files.
    pub gguf_tensors: &'static TensorNames,
    /// Names of the tensors in folders.
    pub folder_tensors: &'static TensorNames,
}

/// How GGUF files of an architecture are written.
#[derive(Clone, Copy, Debug)]
pub(super) struct GgufConvention {
    /// `general.architecture`, and the prefix of its keys.
    pub name: &'static str,
    /// Pairs of the rotary embedding (the converter reorders rows of query and key for the first).
    pub rope: RopeLayout,
}

/// Whether an architecture has some tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    /// Every file has it.
    Required,
    /// Used where a file has it.
    Optional,
    /// A file that has it is not of this architecture.
    Absent,
}

/// What `sliding_window` in a config.json means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WindowRule {
    /// It is never used.
    Never,
    /// It is used wherever it is given.
    WhereGiven,
    /// It is used where `use_sliding_window` says so, in layers from `max_window_layers` on.
    WhereSwitchedOn,
}

/// The names that a container gives to tensors. Those of a layer follow `layer` and its number.
#[derive(Debug)]
pub(super) struct TensorNames {
    /// `[vocab][hidden]`
    pub embedding: &'static str,
    /// `[hidden]`
    pub output_norm: &'static str,
    /// `[vocab][hidden]`; missing where it is the embedding.
    pub output: &'static str,
    /// One divisor of the frequency per rotated pair.
    pub rope_divisors: Option<&'static str>,
    /// What stands before a layer's number.
    pub layer: &'static str,
    /// `[hidden]`
    pub attention_norm: &'static str,
    /// Weight `[n_heads * head_dim][hidden]`
    pub query: Projection,
    /// Weight `[n_kv_heads * head_dim][hidden]`
    pub key: Projection,
    /// Weight `[n_kv_heads * head_dim][hidden]`
    pub value: Projection,
    /// `[head_dim]`
    pub query_norm: &'static str,
    /// `[head_dim]`
    pub key_norm: &'static str,
    /// `[hidden][n_heads * head_dim]`
    pub attention_output: &'static str,
    /// `[hidden]`
    pub feed_forward_norm: &'static str,
    /// `[intermediate][hidden]`
    pub gate: &'static str,
    /// `[intermediate][hidden]`
    pub up: &'static str,
    /// `[hidden][intermediate]`
    pub down: &'static str,
    /// Ends of the names of tensors that hold nothing the forward pass needs.
    pub ignored: &'static [&'static str],
}

/// A product with a bias that may be there.
#[derive(Debug)]
pub(super) struct Projection {
    /// The matrix.
    pub weight: &'static str,
    /// One per row of the matrix.
    pub bias: &'static str,
}

static TABLE: [ArchitectureEntry; 4] = [
    ArchitectureEntry {
        architecture: Architecture::Llama,
        name: "llama",
        gguf: Some(GgufConvention { name: "llama", rope: RopeLayout::Interleaved }),
        model_type: "llama",
        classes: &["LlamaForCausalLM"],
        attention_biases: Presence::Optional,
        head_norms: Presence::Absent,
        folder_window: WindowRule::Never,
        gguf_tensors: &GGUF_TENSORS,
        folder_tensors: &FOLDER_TENSORS,
    },
    ArchitectureEntry {
        architecture: Architecture::Mistral,
        name: "mistral",
        gguf: None, // converted as llama
        model_type: "mistral",
        classes: &["MistralForCausalLM"],
        attention_biases: Presence::Optional,
        head_norms: Presence::Absent,
        folder_window: WindowRule::WhereGiven,
        gguf_tensors: &GGUF_TENSORS,
        folder_tensors: &FOLDER_TENSORS,
    },
    ArchitectureEntry {
        architecture: Architecture::Qwen2,
        name: "qwen2",
        gguf: Some(GgufConvention { name: "qwen2", rope: RopeLayout::Half }),
        model_type: "qwen2",
        classes: &["Qwen2ForCausalLM"],
        attention_biases: Presence::Required,
        head_norms: Presence::Absent,
        folder_window: WindowRule::WhereSwitchedOn,
        gguf_tensors: &GGUF_TENSORS,
        folder_tensors: &FOLDER_TENSORS,
    },
    ArchitectureEntry {
        architecture: Architecture::Qwen3,
        name: "qwen3",
        gguf: Some(GgufConvention { name: "qwen3", rope: RopeLayout::Half }),
        model_type: "qwen3",
        classes: &["Qwen3ForCausalLM"],
        attention_biases: Presence::Optional,
        head_norms: Presence::Required,
        folder_window: WindowRule::WhereSwitchedOn,
        gguf_tensors: &GGUF_TENSORS,
        folder_tensors: &FOLDER_TENSORS,
    },
];

static GGUF_TENSORS: TensorNames = TensorNames {
    embedding: "token_embd.weight",
    output_norm: "output_norm.weight",
    output: "output.weight",
    rope_divisors: Some("rope_freqs.weight"),
    layer: "blk.",
    attention_norm: ".attn_norm.weight",
    query: Projection { weight: ".attn_q.weight", bias: ".attn_q.bias" },
    key: Projection { weight: ".attn_k.weight", bias: ".attn_k.bias" },
    value: Projection { weight: ".attn_v.weight", bias: ".attn_v.bias" },
    query_norm: ".attn_q_norm.weight",
    key_norm: ".attn_k_norm.weight",
    attention_output: ".attn_output.weight",
    feed_forward_norm: ".ffn_norm.weight",
    gate: ".ffn_gate.weight",
    up: ".ffn_up.weight",
    down: ".ffn_down.weight",
    ignored: &[".attn_rot_embd", ".attn_rot_embd.weight"],
};

static FOLDER_TENSORS: TensorNames = TensorNames {
    embedding: "model.embed_tokens.weight",
    output_norm: "model.norm.weight",
    output: "lm_head.weight",
    rope_divisors: None,
    layer: "model.layers.",
    attention_norm: ".input_layernorm.weight",
    query: Projection { weight: ".self_attn.q_proj.weight", bias: ".self_attn.q_proj.bias" },
    key: Projection { weight: ".self_attn.k_proj.weight", bias: ".self_attn.k_proj.bias" },
    value: Projection { weight: ".self_attn.v_proj.weight", bias: ".self_attn.v_proj.bias" },
    query_norm: ".self_attn.q_norm.weight",
    key_norm: ".self_attn.k_norm.weight",
    attention_output: ".self_attn.o_proj.weight",
    feed_forward_norm: ".post_attention_layernorm.weight",
    gate: ".mlp.gate_proj.weight",
    up: ".mlp.up_proj.weight",
    down: ".mlp.down_proj.weight",
    ignored: &["rotary_emb.inv_freq"],
};

impl Architecture {
    /// Every architecture.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|entry| entry.architecture)
    }

    /// Its entry of the table.
    ///
    /// # Panics
    /// Never: a test looks up each one.
    pub(super) fn entry(self) -> &'static ArchitectureEntry {
        TABLE
            .iter()
            .find(|entry| entry.architecture == self)
            .expect("because a test finds every architecture in the table")
    }

    /// The architecture whose GGUF files say `name`.
    pub(super) fn from_gguf(name: &str) -> Option<(Self, GgufConvention)> {
        TABLE.iter().find_map(|entry| {
            let gguf = entry.gguf.filter(|gguf| gguf.name == name)?;
            Some((entry.architecture, gguf))
        })
    }

    /// The architecture of a config.json with this `model_type`, or else one of these classes.
    pub(super) fn from_folder(model_type: Option<&str>, classes: &[&str]) -> Option<Self> {
        TABLE
            .iter()
            .find(|entry| match model_type {
                Some(model_type) => entry.model_type == model_type,
                None => entry.classes.iter().any(|class| classes.contains(class)),
            })
            .map(|entry| entry.architecture)
    }

    /// All names, for messages.
    pub fn supported() -> String {
        let names: Vec<_> = TABLE.iter().map(|entry| entry.name).collect();
        names.join(", ")
    }
}

impl std::fmt::Display for Architecture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.entry().name)
    }
}

#[cfg(test)]
mod tests {
    use super::Architecture;

    #[test]
    fn every_architecture_is_in_the_table() {
        for architecture in
            [Architecture::Llama, Architecture::Mistral, Architecture::Qwen2, Architecture::Qwen3]
        {
            let entry = architecture.entry();
            assert_eq!(Architecture::from_folder(Some(entry.model_type), &[]), Some(architecture));
            assert_eq!(Architecture::from_folder(None, entry.classes), Some(architecture));
        }
    }
}
