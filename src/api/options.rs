//! How does a client say what answer it wants? In the fields that all completions share, each checked.

use std::collections::BTreeMap;

use super::config::ServeConfig;
use super::error::ApiError;
use super::wire::completions::{ChatRequest, CompletionRequest, OneOrMany, ResponseFormat};
use crate::engine::serve::Answers;
use crate::engine::{AnswerForm, Engine, GenerateOptions, Sampling};
use crate::ids::TokenId;

/// The fields that all completions share.
#[derive(Debug, Default)]
pub struct Wishes {
    temperature: Option<f32>,
    top_p: Option<f32>,
    top_k: Option<usize>,
    min_p: Option<f32>,
    frequency_penalty: Option<f32>,
    presence_penalty: Option<f32>,
    logit_bias: Option<BTreeMap<String, f32>>,
    seed: Option<i64>,
    stop: Option<OneOrMany>,
    n: Option<usize>,
    max_tokens: Option<(&'static str, usize)>,
    logprobs: Option<(&'static str, usize)>,
    form: AnswerForm,
}

/// Log-probabilities told with a token at most.
const MAX_LOGPROBS: usize = 20;

/// Stop strings at most, and bytes of one.
const MAX_STOPS: usize = 4;
const MAX_STOP_BYTES: usize = 1000;

/// Tokens of a completion where nobody says, as OpenAI has it.
const DEFAULT_COMPLETION_TOKENS: usize = 16;

impl Wishes {
    /// Those of a chat completion.
    ///
    /// # Errors
    /// When fields contradict each other.
    pub fn of_chat(request: &mut ChatRequest) -> Result<Self, ApiError> {
        let max_tokens = match (request.max_completion_tokens, request.max_tokens) {
            (Some(a), Some(b)) if a != b => {
                let message = "`max_tokens` and `max_completion_tokens` differ; send one of them.";
                return Err(ApiError::invalid("max_completion_tokens", message));
            }
            (Some(n), _) => Some(("max_completion_tokens", n)),
            (None, n) => n.map(|n| ("max_tokens", n)),
        };
        let n_top = request.top_logprobs.unwrap_or(0);
        let logprobs = match request.logprobs {
            Some(true) => Some(("top_logprobs", n_top)),
            _ if request.top_logprobs.is_some() => {
                let message = "`top_logprobs` needs `logprobs` to be true.";
                return Err(ApiError::invalid("top_logprobs", message));
            }
            _ => None,
        };
        let form = match request.response_format.take() {
            None | Some(ResponseFormat::Text) => AnswerForm::Text,
            Some(ResponseFormat::JsonObject) => AnswerForm::JsonObject,
            Some(ResponseFormat::JsonSchema { json_schema }) => {
                AnswerForm::JsonSchema(json_schema.schema)
            }
        };
        Ok(Self {
            temperature: request.temperature,
            top_p: request.top_p,
            top_k: request.top_k,
            min_p: request.min_p,
            frequency_penalty: request.frequency_penalty,
            presence_penalty: request.presence_penalty,
            logit_bias: request.logit_bias.take(),
            seed: request.seed,
            stop: request.stop.take(),
            n: request.n,
            max_tokens,
            logprobs,
            form,
        })
    }

    /// Those of a completion of a text.
    pub fn of_completion(request: &mut CompletionRequest) -> Self {
        Self {
            temperature: request.temperature,
            top_p: request.top_p,
            top_k: request.top_k,
            min_p: request.min_p,
            frequency_penalty: request.frequency_penalty,
            presence_penalty: request.presence_penalty,
            logit_bias: request.logit_bias.take(),
            seed: request.seed,
            stop: request.stop.take(),
            n: request.n,
            max_tokens: Some((
                "max_tokens",
                request.max_tokens.unwrap_or(DEFAULT_COMPLETION_TOKENS),
            )),
            logprobs: request.logprobs.map(|n| ("logprobs", n)),
            form: AnswerForm::Text,
        }
    }

    /// What the server is told, every field checked.
    ///
    /// # Errors
    /// The first field that is wrong.
    pub fn answers(self, engine: &Engine, config: &ServeConfig) -> Result<Answers, ApiError> {
        let n = within("n", self.n.unwrap_or(1), 1, config.max_choices)?;
        let (field, max_tokens) =
            self.max_tokens.unwrap_or(("max_tokens", config.max_answer_tokens));
        let max_tokens = within(field, max_tokens, 1, config.max_answer_tokens)?;
        let logprobs = match self.logprobs {
            Some((field, n)) => Some(within(field, n, 0, MAX_LOGPROBS)?),
            None => None,
        };
        let sampling = Sampling {
            temperature: between("temperature", self.temperature, 1.0, (0.0, 2.0))?,
            top_p: between("top_p", self.top_p, 1.0, (0.0, 1.0))?.max(f32::MIN_POSITIVE),
            top_k: self.top_k.unwrap_or(0),
            min_p: between("min_p", self.min_p, 0.0, (0.0, 1.0))?,
            frequency_penalty: between(
                "frequency_penalty",
                self.frequency_penalty,
                0.0,
                (-2.0, 2.0),
            )?,
            presence_penalty: between("presence_penalty", self.presence_penalty, 0.0, (-2.0, 2.0))?,
            logit_bias: biases(
                self.logit_bias.unwrap_or_default(),
                engine.tokenizer().vocab_size(),
            )?,
            seed: self.seed.map_or_else(|| fastrand::u64(..), |seed| seed as u64),
        };
        let stop = self.stop.map_or(Vec::new(), OneOrMany::into_vec);
        if stop.len() > MAX_STOPS || stop.iter().any(|stop| stop.len() > MAX_STOP_BYTES) {
            let message =
                format!("At most {MAX_STOPS} stop strings, of {MAX_STOP_BYTES} bytes each.");
            return Err(ApiError::invalid("stop", message));
        }
        let options = GenerateOptions {
            max_tokens,
            sampling,
            stop,
            form: self.form,
            logprobs,
            ..GenerateOptions::default()
        };
        Ok(Answers { options, n })
    }
}

fn within(field: &str, value: usize, least: usize, most: usize) -> Result<usize, ApiError> {
    match (least..=most).contains(&value) {
        true => Ok(value),
        false => {
            let message = format!("`{field}` must be {least} to {most} here, not {value}.");
            Err(ApiError::invalid(field, message))
        }
    }
}

fn between(
    field: &str,
    value: Option<f32>,
    default: f32,
    (least, most): (f32, f32),
) -> Result<f32, ApiError> {
    let value = value.unwrap_or(default);
    match (least..=most).contains(&value) {
        true => Ok(value),
        false => {
            let message = format!("`{field}` must be between {least} and {most}, not {value}.");
            Err(ApiError::invalid(field, message))
        }
    }
}

fn biases(biases: BTreeMap<String, f32>, n_tokens: usize) -> Result<Vec<(TokenId, f32)>, ApiError> {
    let wrong = |message: String| ApiError::invalid("logit_bias", message);
    let bias = |(token, bias): (String, f32)| {
        let id = token.parse::<u32>().ok().filter(|id| (*id as usize) < n_tokens);
        let no_token =
            || wrong(format!("{token:?} is no token; there are {n_tokens}. See /tokenize."));
        let id = id.ok_or_else(no_token)?;
        match (-100.0..=100.0).contains(&bias) {
            true => Ok((TokenId(id), bias)),
            false => Err(wrong(format!("The bias of token {id} must be between -100 and 100."))),
        }
    };
    biases.into_iter().map(bias).collect()
}
