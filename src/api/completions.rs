//! `POST /v1/chat/completions` and `POST /v1/completions`: answers whole, or as they come.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use futures_util::stream::{BoxStream, Stream, StreamExt, select_all, unfold};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use super::answering::{Question, Telling, Told, blocking};
use super::error::{ApiError, ErrorReply};
use super::keys::Tenant;
use super::options::Wishes;
use super::shape::{Kind, Shape, Whole};
use super::state::Service;
use super::wire::completions::{
    ChatRequest, CompletionRequest, ContextMode, StreamOptions, Usage, WireMessage, WireRole,
};
use super::wire::{Nulls, parse};
use crate::engine::serve::{Answers, Place};
use crate::tokenizer::{Message, Role};

/// Comments that keep a quiet stream open.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Answers a conversation, or asks a context.
#[utoipa::path(
    post, path = "/v1/chat/completions", tag = "completions",
    request_body = ChatRequest,
    responses(
        (status = 200, description = "The answer: an object, or a stream of chunks", body = Value),
        (status = "4XX", description = "What is wrong with the request", body = ErrorReply),
        (status = "5XX", description = "What went wrong", body = ErrorReply),
    )
)]
pub async fn chat(
    State(service): State<Service>,
    Extension(tenant): Extension<Tenant>,
    body: Bytes,
) -> Result<Response, ApiError> {
    let mut request: ChatRequest = parse(&body, Nulls::AreAbsent)?;
    drop(body);
    tracing::debug!(user = request.user, "asked");
    check_model(&service, request.model.as_deref())?;
    let answers = Wishes::of_chat(&mut request)?.answers(service.engine(), service.config())?;
    if request.messages.is_empty() {
        return Err(ApiError::invalid("messages", "`messages` must have at least one message."));
    }
    let style = Style {
        stream: Streaming::of(request.stream, request.stream_options)?,
        with_evidence: request.include_evidence == Some(true),
        shape: Shape::new(&service, Kind::Chat, (answers.n, answers.options.logprobs)),
    };
    let messages = messages(std::mem::take(&mut request.messages))?;
    let place = service.reserve()?;
    let (for_question, of) = (service.clone(), tenant.clone());
    let n = answers.n;
    let question =
        blocking(move || chat_question(&for_question, &of, (request, messages), n)).await?;
    reply(&service, &tenant, vec![(question, answers, place)], style).await
}

fn chat_question(
    service: &Service,
    tenant: &Tenant,
    (request, messages): (ChatRequest, Vec<Message>),
    n: usize,
) -> Result<Question, ApiError> {
    let mode = request.context_mode;
    let Some(context) = request.context else {
        if mode.is_some() {
            let message = "`context_mode` needs a `context`.";
            return Err(ApiError::invalid("context_mode", message));
        }
        return match service.engine().tokenizer().chat_template() {
            Some(_) => Question::of_prompt(
                service,
                tenant,
                service.engine().chat_prompt(&messages, service.memory())?,
            ),
            None => {
                let texts: Vec<_> = messages.iter().map(|m| m.content.as_str()).collect();
                let prompt = service.engine().text_prompt(&texts.join("\n\n"), service.memory())?;
                Question::of_prompt(service, tenant, prompt)
            }
        };
    };
    let [Message { role: Role::User, content }] = &messages[..] else {
        let message =
            "With `context`, `messages` must be one message of the user's: what is said now.";
        return Err(ApiError::invalid("messages", message));
    };
    if service.reading(tenant, &context).is_some_and(|it| it.progress().status.is_under_way()) {
        return Err(ApiError::busy(&context).at("context"));
    }
    match mode.unwrap_or_default() {
        ContextMode::Ask => Question::of_context(service, tenant, (&context, content)),
        ContextMode::Append if n > 1 => {
            Err(ApiError::invalid("n", "A conversation goes on with one answer: `n` must be 1."))
        }
        ContextMode::Append => Question::of_conversation(service, tenant, (&context, content)),
    }
}

/// Goes on from a text.
#[utoipa::path(
    post, path = "/v1/completions", tag = "completions",
    request_body = CompletionRequest,
    responses(
        (status = 200, description = "The answer: an object, or a stream of chunks", body = Value),
        (status = "4XX", description = "What is wrong with the request", body = ErrorReply),
        (status = "5XX", description = "What went wrong", body = ErrorReply),
    )
)]
pub async fn complete(
    State(service): State<Service>,
    Extension(tenant): Extension<Tenant>,
    body: Bytes,
) -> Result<Response, ApiError> {
    let mut request: CompletionRequest = parse(&body, Nulls::AreAbsent)?;
    drop(body);
    tracing::debug!(user = request.user, "asked");
    check_model(&service, request.model.as_deref())?;
    let answers =
        Wishes::of_completion(&mut request).answers(service.engine(), service.config())?;
    let prompts = request.prompt.into_vec();
    let n_choices = prompts.len() * answers.n;
    if prompts.is_empty() || prompts.iter().any(String::is_empty) {
        return Err(ApiError::invalid(
            "prompt",
            "`prompt` must be a text, or texts, that are not empty.",
        ));
    }
    if n_choices > service.config().max_choices {
        let most = service.config().max_choices;
        let message =
            format!("{n_choices} answers were asked for; at most {most} are given at once.");
        return Err(ApiError::invalid("prompt", message));
    }
    let style = Style {
        stream: Streaming::of(request.stream, request.stream_options)?,
        with_evidence: request.include_evidence == Some(true),
        shape: Shape::new(&service, Kind::Text, (n_choices, answers.options.logprobs)),
    };
    let places = prompts.iter().map(|_| service.reserve()).collect::<Result<Vec<_>, _>>()?;
    let (for_questions, of) = (service.clone(), tenant.clone());
    let questions = blocking(move || {
        let prompt = |text: &String| {
            let prompt = for_questions.engine().text_prompt(text, for_questions.memory())?;
            Question::of_prompt(&for_questions, &of, prompt)
        };
        prompts.iter().map(prompt).collect::<Result<Vec<_>, ApiError>>()
    })
    .await?;
    let asked = questions.into_iter().zip(places);
    let asked = asked.map(|(question, place)| (question, answers.clone(), place)).collect();
    reply(&service, &tenant, asked, style).await
}

/// How a reply is given.
struct Style {
    stream: Streaming,
    with_evidence: bool,
    shape: Shape,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Streaming {
    No,
    Yes,
    WithUsage,
}

impl Streaming {
    fn of(stream: Option<bool>, options: Option<StreamOptions>) -> Result<Self, ApiError> {
        let with_usage = options.and_then(|options| options.include_usage) == Some(true);
        match (stream == Some(true), options.is_some()) {
            (false, true) => {
                let message = "`stream_options` needs `stream` to be true.";
                Err(ApiError::invalid("stream_options", message))
            }
            (false, false) => Ok(Self::No),
            (true, _) if with_usage => Ok(Self::WithUsage),
            (true, _) => Ok(Self::Yes),
        }
    }
}

async fn reply(
    service: &Service,
    tenant: &Tenant,
    asked: Vec<(Question, Answers, Place)>,
    style: Style,
) -> Result<Response, ApiError> {
    let seconds = service.config().request_seconds;
    let deadline = (Instant::now() + Duration::from_secs(seconds), seconds);
    let n = asked.first().map_or(1, |(_, answers, _)| answers.n);
    let tellings = asked.into_iter().enumerate().map(|(i, (question, answers, place))| {
        told(question.ask(service, tenant, answers, place), i * n, deadline)
    });
    let told = select_all(tellings);
    match style.stream {
        Streaming::No => whole(told, style).await,
        _ => Ok(stream(told, style)),
    }
}

type AllTold = BoxStream<'static, Result<Told, ApiError>>;

/// What comes of one question; its answers are numbered from `first` on.
fn told(telling: Telling, first: usize, (deadline, seconds): (Instant, u64)) -> AllTold {
    let next = move |telling: Option<Telling>| async move {
        let mut telling = telling?;
        match timeout_at(deadline, telling.next()).await {
            Err(_) => Some((Err(ApiError::timed_out(seconds)), None)),
            Ok(Err(error)) => Some((Err(error), None)),
            Ok(Ok(None)) => None,
            Ok(Ok(Some(told))) => Some((Ok(told.numbered_from(first)), Some(telling))),
        }
    };
    unfold(Some(telling), next).boxed()
}

async fn whole(
    mut told: impl Stream<Item = Result<Told, ApiError>> + Unpin,
    style: Style,
) -> Result<Response, ApiError> {
    let mut whole = Whole::default();
    while let Some(told) = told.next().await {
        whole.add(told?);
    }
    Ok(Json(style.shape.whole(whole, style.with_evidence)).into_response())
}

fn stream(
    told: impl Stream<Item = Result<Told, ApiError>> + Send + 'static,
    style: Style,
) -> Response {
    let Style { stream, with_evidence, mut shape } = style;
    let first: Vec<_> = shape.opening().iter().map(event).collect();
    let mut usage = Usage::default();
    let mut has_failed = false;
    let chunks = told.map(Some).chain(futures_util::stream::iter([None]));
    let events = chunks.flat_map(move |told| {
        let events: Vec<Event> = match told {
            _ if has_failed => Vec::new(),
            Some(Err(error)) => {
                has_failed = true;
                vec![event(&json!({ "error": error.body })), done()]
            }
            Some(Ok(Told::Progress(tokens, of))) => {
                vec![Event::default().comment(format!("reading {tokens}/{of}"))]
            }
            Some(Ok(Told::Done(of_one))) => {
                usage.add(of_one);
                Vec::new()
            }
            Some(Ok(told)) => shape.chunk(told, with_evidence).iter().map(event).collect(),
            None => {
                let usage = (stream == Streaming::WithUsage).then(|| event(&shape.usage(usage)));
                usage.into_iter().chain([done()]).collect()
            }
        };
        futures_util::stream::iter(events)
    });
    let all = futures_util::stream::iter(first).chain(events).map(Ok::<_, Infallible>);
    Sse::new(all).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response()
}

fn event(chunk: &Value) -> Event {
    Event::default().data(chunk.to_string())
}

fn done() -> Event {
    Event::default().data("[DONE]")
}

/// Refuses a model that is not the service's.
///
/// # Errors
/// When it is another.
pub fn check_model(service: &Service, model: Option<&str>) -> Result<(), ApiError> {
    match model {
        Some(other) if other != service.model() => {
            let message = format!(
                "There is no model {other:?} here; this service has {:?}.",
                service.model()
            );
            Err(ApiError::not_found("model_not_found", message).at("model"))
        }
        _ => Ok(()),
    }
}

/// Messages as templates know them.
///
/// # Errors
/// When one says nothing.
pub fn messages(messages: Vec<WireMessage>) -> Result<Vec<Message>, ApiError> {
    let messages = messages.into_iter().enumerate().map(|(i, WireMessage { role, content })| {
        let role = match role {
            WireRole::System | WireRole::Developer => Role::System,
            WireRole::User => Role::User,
            WireRole::Assistant => Role::Assistant,
        };
        let missing = || {
            let field = format!("messages[{i}].content");
            ApiError::invalid(&field, format!("`{field}` is required."))
        };
        Ok(Message::new(role, content.ok_or_else(missing)?.into_text()))
    });
    messages.collect()
}
