//! Conversations in this process.

use std::ops::ControlFlow;

use super::{Agent, AgentError, Heard, Listen, Said, Say, Talk};
use crate::engine::{
    Context, Contexts, Conversation, EngineError, FinishReason, GenerateOptions, Sampling,
    no_progress,
};
use crate::memory::MemoryConfig;

/// Passages told with a reply.
const N_PASSAGES: usize = 4;

/// Converses in this process.
#[derive(Clone)]
pub struct LocalAgent {
    contexts: Contexts,
    memory: MemoryConfig,
}

struct LocalTalk {
    agent: LocalAgent,
    context: Context,
    conversation: Conversation,
}

impl LocalAgent {
    /// An agent whose conversations are `contexts`, new ones remembered as `memory` says.
    pub fn new(contexts: Contexts, memory: MemoryConfig) -> Self {
        Self { contexts, memory }
    }

    fn talk(&self, mut context: Context, system: Option<&str>) -> Box<dyn Talk> {
        let conversation = context.conversation(system.map(str::to_owned));
        Box::new(LocalTalk { agent: self.clone(), context, conversation })
    }
}

impl Agent for LocalAgent {
    fn open(&self, name: &str, system: Option<&str>) -> Result<Box<dyn Talk>, AgentError> {
        let tenant = self.contexts.tenant();
        let is_known = self.contexts.store().show(tenant, name).map_err(EngineError::from)?;
        let context = match is_known {
            Some(_) => self.contexts.open(name)?,
            None => self.contexts.create(name, &self.memory, "an agent")?,
        };
        Ok(self.talk(context, system))
    }
}

impl LocalTalk {
    fn reply(&mut self, say: &Say, listen: &mut Listen<'_>) -> Result<Said, AgentError> {
        let session = self.context.session_mut();
        self.conversation.say(session, &say.text)?;
        let sampling =
            Sampling { temperature: say.temperature, seed: say.seed, ..Sampling::default() };
        let options = GenerateOptions {
            max_tokens: say.max_tokens,
            sampling,
            form: say.form.clone(),
            ..GenerateOptions::default()
        };
        let mut pieces = session.generate(options);
        let mut text = String::new();
        let mut hear =
            |piece: &str| match piece.is_empty() || listen(Heard::Text(piece)).is_continue() {
                true => Ok(()),
                false => Err(AgentError::Interrupted),
            };
        for piece in pieces.by_ref() {
            let piece = piece?;
            text += &piece.text;
            hear(&piece.text)?;
        }
        let rest = pieces.rest();
        text += &rest;
        hear(&rest)?;
        let finish_reason =
            pieces.finish_reason().unwrap_or(FinishReason::Stop).as_str().to_owned();
        let completion_tokens = pieces.n_tokens();
        for passage in session.take_evidence(N_PASSAGES)? {
            let (start, end) = (passage.span.start, passage.span.end);
            // The reply is over: there is nothing left to interrupt.
            let _: ControlFlow<()> = listen(Heard::Evidence { start, end, weight: passage.weight });
        }
        Ok(Said { text, finish_reason, completion_tokens })
    }
}

impl Talk for LocalTalk {
    fn say(&mut self, say: &Say, listen: &mut Listen<'_>) -> Result<Said, AgentError> {
        let n_turns = self.conversation.n_turns();
        let n_tokens = self.context.session().n_tokens();
        let said = self.reply(say, listen);
        if said.is_ok() {
            self.context.end_turn(&self.conversation)?;
        } else {
            self.conversation = self.conversation.rewound(n_turns);
            self.context.session_mut().rewind_or_read_again(n_tokens, &mut no_progress)?;
        }
        said
    }

    fn fork(&mut self, name: &str) -> Result<Box<dyn Talk>, AgentError> {
        let contexts = &self.agent.contexts;
        let forked = contexts.store().fork(contexts.tenant(), self.context.name(), name);
        forked.map_err(EngineError::from)?;
        Ok(self.agent.talk(contexts.open(name)?, None))
    }

    fn n_turns(&self) -> usize {
        self.conversation.n_turns()
    }
}
