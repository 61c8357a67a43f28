//! Which tensor goes where? Takes a container's tensors by the names of the architecture's table,
//! checks each shape against the configuration, and leaves none unused that would matter.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use crate::model::arch::{Presence, Projection, TensorNames};
use crate::model::config::ModelConfig;
use crate::model::error::ModelError;
use crate::model::weights::{LayerWeights, Weights};
use crate::tensor::{Matrix, Tensor};

/// The tensors of a container, and which of them have been asked for.
pub(super) struct TensorShelf<'a> {
    path: &'a Path,
    names: &'static TensorNames,
    tensors: HashMap<&'a str, &'a Tensor>,
    taken: HashSet<&'a str>,
}

/// Whether the output matrix is the embedding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tying {
    /// It is, whatever else the file holds.
    Tied,
    /// It is where the file has no output matrix.
    TiedWhereMissing,
    /// It is a matrix of its own.
    Separate,
}

impl<'a> TensorShelf<'a> {
    pub(super) fn new(
        path: &'a Path,
        names: &'static TensorNames,
        tensors: impl Iterator<Item = &'a Tensor>,
    ) -> Self {
        let tensors = tensors.map(|tensor| (tensor.name.as_str(), tensor)).collect();
        Self { path, names, tensors, taken: HashSet::new() }
    }

    /// The tensor of this name, if there is one; from now on it counts as used.
    pub(super) fn find(&mut self, name: &str) -> Option<&'a Tensor> {
        let (&name, &tensor) = self.tensors.get_key_value(name)?;
        self.taken.insert(name);
        Some(tensor)
    }

    pub(super) fn require(&mut self, name: &str) -> Result<&'a Tensor, ModelError> {
        self.find(name).ok_or_else(|| ModelError::MissingTensor {
            path: self.path.to_owned(),
            tensor: name.to_owned(),
        })
    }

    /// Takes all weights of a model of this shape.
    pub(super) fn weights(
        mut self,
        config: &ModelConfig,
        tying: Tying,
    ) -> Result<Weights, ModelError> {
        let names = self.names;
        let vocabulary = [config.vocab_size, config.hidden_size];
        let embedding = self.matrix(names.embedding, vocabulary)?;
        let output_norm = self.vector(names.output_norm, config.hidden_size)?;
        let mut layers = Vec::new();
        for layer_idx in 0..config.n_layers {
            layers.push(self.layer(layer_idx, config)?);
        }
        let has_output = self.find(names.output).is_some();
        let output = match tying {
            Tying::Tied => embedding.clone(),
            Tying::TiedWhereMissing if !has_output => embedding.clone(),
            Tying::TiedWhereMissing | Tying::Separate => self.matrix(names.output, vocabulary)?,
        };
        self.check_unused(config)?;
        Ok(Weights { embedding, layers, output_norm, output })
    }

    fn layer(
        &mut self,
        layer_idx: usize,
        config: &ModelConfig,
    ) -> Result<LayerWeights, ModelError> {
        let names = self.names;
        let entry = config.architecture.entry();
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let query_width = config.n_heads * config.head_dim;
        let kv_width = config.n_kv_heads * config.head_dim;
        let name = |suffix: &str| format!("{}{layer_idx}{suffix}", names.layer);
        let mut project = |projection: &Projection, rows: usize| {
            let weight = self.matrix(&name(projection.weight), [rows, hidden])?;
            let bias = self.maybe(&name(projection.bias), rows, entry.attention_biases)?;
            Ok::<_, ModelError>((weight, bias))
        };
        let (query, query_bias) = project(&names.query, query_width)?;
        let (key, key_bias) = project(&names.key, kv_width)?;
        let (value, value_bias) = project(&names.value, kv_width)?;
        Ok(LayerWeights {
            attention_norm: self.vector(&name(names.attention_norm), hidden)?,
            query,
            key,
            value,
            query_bias,
            key_bias,
            value_bias,
            query_norm: self.maybe(&name(names.query_norm), config.head_dim, entry.head_norms)?,
            key_norm: self.maybe(&name(names.key_norm), config.head_dim, entry.head_norms)?,
            attention_output: self.matrix(&name(names.attention_output), [hidden, query_width])?,
            feed_forward_norm: self.vector(&name(names.feed_forward_norm), hidden)?,
            gate: self.matrix(&name(names.gate), [inner, hidden])?,
            up: self.matrix(&name(names.up), [inner, hidden])?,
            down: self.matrix(&name(names.down), [hidden, inner])?,
        })
    }

    fn matrix(&mut self, name: &str, expected: [usize; 2]) -> Result<Matrix, ModelError> {
        let tensor = self.require(name)?;
        tensor
            .matrix()
            .filter(|matrix| [matrix.rows, matrix.cols] == expected)
            .ok_or_else(|| Self::wrong_shape(tensor, &expected))
    }

    fn vector(&mut self, name: &str, expected: usize) -> Result<Vec<f32>, ModelError> {
        let tensor = self.require(name)?;
        if tensor.shape != [expected] {
            return Err(Self::wrong_shape(tensor, &[expected]));
        }
        Ok(tensor.to_f32())
    }

    fn maybe(
        &mut self,
        name: &str,
        expected: usize,
        presence: Presence,
    ) -> Result<Option<Vec<f32>>, ModelError> {
        match presence {
            Presence::Absent => Ok(None),
            Presence::Optional if !self.tensors.contains_key(name) => Ok(None),
            Presence::Optional | Presence::Required => self.vector(name, expected).map(Some),
        }
    }

    fn wrong_shape(tensor: &Tensor, expected: &[usize]) -> ModelError {
        ModelError::WrongShape {
            path: tensor.bytes.path().to_owned(),
            tensor: tensor.name.clone(),
            found: tensor.shape.clone(),
            expected: expected.to_vec(),
        }
    }

    fn check_unused(&self, config: &ModelConfig) -> Result<(), ModelError> {
        let ignored = |name: &str| self.names.ignored.iter().any(|end| name.ends_with(end));
        let unused =
            self.tensors.keys().filter(|&&name| !self.taken.contains(name) && !ignored(name));
        let n_tensors = unused.clone().count();
        match unused.min() {
            None => Ok(()),
            Some(&example) => Err(ModelError::UnusedTensors {
                path: self.tensors[example].bytes.path().to_owned(),
                architecture: config.architecture,
                n_tensors,
                example: example.to_owned(),
            }),
        }
    }
}
