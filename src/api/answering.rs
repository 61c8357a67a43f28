//! How does a question become an answer? What it begins with is looked for among contexts and among
//! what was said lately; the rest is given to the server, and what comes of it is told piece by piece.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc::{Receiver, channel};

use super::error::ApiError;
use super::keys::Tenant;
use super::state::{Changing, Service};
use super::wire::completions::{Evidence, PromptTokensDetails, Usage};
use crate::engine::serve::{About, Answers, Ended, Event, Place, Saving, Stage, Task, Work};
use crate::engine::{ChatPrompt, Conversation, DocumentPrompt, Session, TokenLogprob, said};
use crate::ids::{ByteSpan, TokenId};
use crate::memory::MemoryConfig;

/// Passages told with an answer.
const N_PASSAGES: usize = 8;

/// Events that wait for a slow listener, before its answer waits as well.
const N_WAITING: usize = 64;

/// A question, ready to be asked.
pub struct Question {
    work: Work,
    stages: Vec<Stage>,
    prompt_tokens: usize,
    cached_tokens: usize,
    after: After,
}

/// What becomes of the session when the answer is over.
enum After {
    /// Nothing.
    Drop,
    /// It is kept for what may follow; passages are of this text.
    Keep(Arc<ChatPrompt>),
    /// It is a context's, whose turn ends.
    EndTurn {
        /// As it is with the turn.
        conversation: Box<Conversation>,
        /// Given back once the turn is kept.
        _changing: Changing,
    },
}

/// What comes of a question.
#[derive(Debug)]
pub enum Told {
    /// Tokens of the prompt that were read, of all.
    Progress(usize, usize),
    /// A piece of answer `choice`.
    Piece {
        /// Which answer.
        choice: usize,
        /// Its text.
        text: String,
        /// How likely its token was, where that was asked for.
        logprob: Option<(TokenId, TokenLogprob)>,
    },
    /// Answer `choice` is over.
    Over {
        /// Which answer.
        choice: usize,
        /// Why.
        finish_reason: &'static str,
        /// What it was read from.
        evidence: Vec<Evidence>,
    },
    /// All answers are over.
    Done(Usage),
}

impl Question {
    /// A prompt, of which as much is reused as anybody of the tenant's has read. Runs long: not for
    /// the threads that serve connections.
    ///
    /// # Errors
    /// When the store cannot be read or there is no memory for it.
    pub fn of_prompt(
        service: &Service,
        tenant: &Tenant,
        prompt: ChatPrompt,
    ) -> Result<Self, ApiError> {
        let read = &prompt.ids[..prompt.question_at];
        let memory = service.memory();
        let recent = service.recent().longest_prefix(&tenant.0, read, memory)?;
        let n_recent = recent.as_ref().map_or(0, |(_, n)| *n);
        let stored = stored_prefix(service, tenant, (read, n_recent));
        // Whatever is wrong with the store: it would only have saved time.
        let stored = stored.unwrap_or_else(|error| {
            tracing::warn!(message = error.body.message, "what was read before is not used");
            None
        });
        let (session, cached_tokens) = match stored.or(recent) {
            Some(found) => found,
            None => (service.engine().session(memory)?, 0),
        };
        let rest = read[cached_tokens..].to_vec();
        let question = prompt.ids[prompt.question_at..].to_vec();
        let about = prompt.document_at.map_or(About::Conversation, About::DocumentAt);
        let prompt_tokens = prompt.ids.len();
        Ok(Self {
            work: Work::Session(Box::new(session)),
            stages: vec![Stage::Tokens(rest), Stage::Question { ids: question, about }],
            prompt_tokens,
            cached_tokens,
            after: After::Keep(Arc::new(prompt)),
        })
    }

    /// A question about a context, which stays as it is.
    ///
    /// # Errors
    /// When there is none or it is a conversation.
    pub fn of_context(
        service: &Service,
        tenant: &Tenant,
        (name, question): (&str, &str),
    ) -> Result<Self, ApiError> {
        let context = service.contexts(tenant).open(name)?;
        let config = context.session().memory().config().clone();
        let session = context.to_ask(&config)?;
        let ids = service.engine().question_ids(question)?;
        Ok(Self {
            prompt_tokens: session.n_tokens() + ids.len(),
            cached_tokens: session.n_tokens(),
            work: Work::Session(Box::new(session)),
            stages: stages(&ids, About::Document, &config),
            after: After::Drop,
        })
    }

    /// What is said now in a context that is a conversation, and is kept.
    ///
    /// # Errors
    /// When there is none, or somebody else is changing it.
    pub fn of_conversation(
        service: &Service,
        tenant: &Tenant,
        (name, said): (&str, &str),
    ) -> Result<Self, ApiError> {
        let changing = service.change(tenant, name)?;
        let mut context = service.contexts(tenant).open(name)?;
        let mut conversation = context.conversation(None);
        let ids = conversation.turn_ids(service.engine(), said)?;
        let about = match conversation.asks_about_document() {
            true => About::Document,
            false => About::Conversation,
        };
        conversation.has_asked();
        let cached_tokens = context.session().n_tokens();
        let config = context.session().memory().config().clone();
        Ok(Self {
            work: Work::Context(Box::new(context)),
            prompt_tokens: cached_tokens + ids.len(),
            cached_tokens,
            stages: stages(&ids, about, &config),
            after: After::EndTurn { conversation: Box::new(conversation), _changing: changing },
        })
    }

    /// Gives it to the server.
    pub fn ask(
        self,
        service: &Service,
        tenant: &Tenant,
        answers: Answers,
        place: Place,
    ) -> Telling {
        let (events, received) = channel(N_WAITING);
        let n_answers = answers.n;
        let usage = Usage {
            prompt_tokens: self.prompt_tokens,
            prompt_tokens_details: PromptTokensDetails { cached_tokens: self.cached_tokens },
            ..Usage::default()
        };
        service.measures().count_prompt(tenant, self.prompt_tokens, self.cached_tokens);
        let answers = Some(answers);
        let (work, stages) = (self.work, self.stages);
        let span = tracing::Span::current();
        let task = Task { work, stages, answers, events, held: None, span };
        service.server().submit(task, place);
        Telling {
            service: service.clone(),
            tenant: tenant.clone(),
            received,
            after: self.after,
            usage,
            n_open: n_answers,
            said: vec![Vec::new(); n_answers],
            told_at: Instant::now(),
            has_told: false,
            waiting: VecDeque::new(),
        }
    }
}

/// A session of a context that has read more than `n_known` of the tokens that `ids` begin with.
fn stored_prefix(
    service: &Service,
    tenant: &Tenant,
    (ids, n_known): (&[TokenId], usize),
) -> Result<Option<(Session, usize)>, ApiError> {
    let known = service.contexts(tenant).longest_prefix(service.memory(), ids)?;
    let more = known.filter(|context| context.session().n_tokens() > n_known);
    let Some(context) = more else { return Ok(None) };
    let n_tokens = context.session().n_tokens();
    Ok(Some((context.session().fork(service.memory())?, n_tokens)))
}

/// What is said, so that it fits the window.
fn stages(ids: &[TokenId], about: About, memory: &MemoryConfig) -> Vec<Stage> {
    let (read, ids) = said(ids, memory);
    vec![Stage::Tokens(read), Stage::Question { ids, about }]
}

/// What comes of a question, as it comes. Who drops it is heard no more within a chunk.
pub struct Telling {
    service: Service,
    tenant: Tenant,
    received: Receiver<Event>,
    after: After,
    usage: Usage,
    n_open: usize,
    said: Vec<Vec<TokenId>>, // [choice]
    told_at: Instant,
    has_told: bool,
    waiting: VecDeque<Told>,
}

impl Telling {
    /// What comes next; `None` after the last.
    ///
    /// # Errors
    /// When the server fails; nothing comes after that.
    pub async fn next(&mut self) -> Result<Option<Told>, ApiError> {
        if let Some(told) = self.waiting.pop_front() {
            return Ok(Some(told));
        }
        if self.n_open == 0 {
            return Ok(None);
        }
        match self.received.recv().await {
            Some(Event::Progress { done_tokens, total_tokens }) => {
                Ok(Some(Told::Progress(done_tokens, total_tokens)))
            }
            Some(Event::Piece(choice, piece)) => {
                self.time();
                self.said[choice].push(piece.token);
                let logprob = piece.logprob.map(|logprob| (piece.token, logprob));
                Ok(Some(Told::Piece { choice, text: piece.text, logprob }))
            }
            Some(Event::Ended(choice, ended)) => self.end(choice, *ended).await.map(Some),
            Some(Event::Failed(error)) => {
                self.n_open = 0;
                Err(error.into())
            }
            None => {
                self.n_open = 0;
                Err(ApiError::internal(
                    "The model's server has given the request up: it was not listened to for a minute, \
                     or the service is ending.",
                ))
            }
        }
    }

    fn time(&mut self) {
        let since = std::mem::replace(&mut self.told_at, Instant::now()).elapsed();
        match std::mem::replace(&mut self.has_told, true) {
            true => self.service.measures().time_between(since),
            false => self.service.measures().time_first(since),
        }
    }

    async fn end(&mut self, choice: usize, ended: Ended) -> Result<Told, ApiError> {
        self.n_open -= 1;
        self.usage.completion_tokens += ended.n_tokens;
        self.usage.total_tokens = self.usage.prompt_tokens + self.usage.completion_tokens;
        self.service.measures().count_answer(&self.tenant, ended.n_tokens);
        let finish_reason = ended.finish.map_or("stop", crate::engine::FinishReason::as_str);
        let is_last = self.n_open == 0;
        let after = match is_last {
            true => std::mem::replace(&mut self.after, After::Drop),
            false => match &self.after {
                After::Keep(prompt) => After::Keep(Arc::clone(prompt)),
                _ => After::Drop,
            },
        };
        let said = std::mem::take(&mut self.said[choice]);
        let (service, tenant, mut work) = (self.service.clone(), self.tenant.clone(), ended.work);
        let evidence = blocking(move || {
            let evidence = evidence(work.session_mut(), &after)?;
            keep(&service, &tenant, (work, said), after)?;
            Ok(evidence)
        })
        .await?;
        self.waiting.push_back(Told::Over { choice, finish_reason, evidence });
        if is_last {
            self.waiting.push_back(Told::Done(self.usage));
        }
        Ok(Told::Piece { choice, text: ended.rest, logprob: None })
    }
}

/// What an answer was read from.
fn evidence(session: &mut Session, after: &After) -> Result<Vec<Evidence>, ApiError> {
    let After::Keep(prompt) = after else {
        let passages = session.take_evidence(N_PASSAGES)?;
        let told = passages.iter().map(|passage| {
            let (span, text) = session.text(passage.span)?;
            Ok(Evidence { start: span.start, end: span.end, text, weight: passage.weight })
        });
        return told.collect();
    };
    let mut told = Vec::new();
    for (tokens, weight) in session.take_attended() {
        // Units of answers of before are no part of this prompt's text.
        let spans = prompt.spans.get(tokens).unwrap_or_default();
        let first = spans.iter().find(|span| span.start < span.end);
        let last = spans.iter().rfind(|span| span.start < span.end);
        if let (Some(ByteSpan { start, .. }), Some(ByteSpan { end, .. })) = (first, last) {
            let text = prompt.text[*start..*end].to_owned();
            told.push(Evidence { start: *start, end: *end, text, weight });
        }
        if told.len() == N_PASSAGES {
            break;
        }
    }
    Ok(told)
}

/// Keeps what is to be kept of a session.
fn keep(
    service: &Service,
    tenant: &Tenant,
    (work, said): (Work, Vec<TokenId>),
    after: After,
) -> Result<(), ApiError> {
    match (work, after) {
        (Work::Session(session), After::Keep(prompt)) => {
            let ids = prompt.ids.iter().copied().chain(said).collect();
            service.recent().keep(&tenant.0, ids, *session);
        }
        (Work::Context(mut context), After::EndTurn { conversation, .. }) => {
            context.end_turn(&conversation)?;
        }
        _ => {}
    }
    Ok(())
}

/// Reading of a document, as a stage.
pub fn reading(document: &Arc<DocumentPrompt>, n_read: usize, saving: Saving) -> Stage {
    let tokens = n_read..document.ids().len();
    Stage::Document { document: Arc::clone(document), tokens, saving }
}

/// Runs what takes long on a thread that may wait.
///
/// # Errors
/// Those of `task`, and when it panics.
pub async fn blocking<T: Send + 'static>(
    task: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let span = tracing::Span::current();
    match tokio::task::spawn_blocking(move || span.in_scope(task)).await {
        Ok(done) => done,
        Err(error) => Err(ApiError::internal(format!("A task of the service failed: {error}."))),
    }
}
