//! Whoever is asked: one type for all providers.

use crate::anthropic::Anthropic;
use crate::capability::Capabilities;
use crate::chat::{CallError, ChatModel, ChatRequest, RawReply};
use crate::http::{Endpoint, SetupError};
use crate::openai::OpenAi;
use rlaif_core::config::{JudgeConfig, JudgeKind};

/// A remote judge of any kind. `Debug` shows no key.
#[derive(Debug, Clone)]
pub enum Provider {
    /// An OpenAI-compatible endpoint.
    OpenAi(OpenAi),
    /// A deployment in Azure OpenAI: the same dialect at another address.
    Azure(OpenAi),
    /// Anthropic's messages API.
    Anthropic(Anthropic),
}

impl Provider {
    /// The client for a judge's config. `env` reads environment variables; keys come from nowhere else.
    ///
    /// # Errors
    /// See [`SetupError`].
    pub fn from_config(
        judge: &JudgeConfig,
        env: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, SetupError> {
        match judge.kind {
            JudgeKind::Local => Err(SetupError::Local),
            JudgeKind::Openai => OpenAi::from_config(judge, env).map(Self::OpenAi),
            JudgeKind::Azure => OpenAi::azure(judge, env).map(Self::Azure),
            JudgeKind::Anthropic => Anthropic::from_config(judge, env).map(Self::Anthropic),
        }
    }

    /// Where calls go, for messages.
    pub fn url(&self) -> &str {
        match self {
            Self::OpenAi(model) | Self::Azure(model) => model.url(),
            Self::Anthropic(model) => model.url(),
        }
    }

    /// Who pays: a hash of endpoint and key, which tells neither.
    pub fn account(&self) -> String {
        self.endpoint().account()
    }

    /// What the endpoint is known to hold answers to.
    pub fn capabilities(&self) -> Capabilities {
        match self {
            Self::OpenAi(model) | Self::Azure(model) => model.capabilities,
            Self::Anthropic(model) => model.capabilities,
        }
    }

    /// The same endpoint, asked as its capabilities allow.
    #[must_use]
    pub fn with_capabilities(mut self, capabilities: Capabilities) -> Self {
        match &mut self {
            Self::OpenAi(model) | Self::Azure(model) => model.capabilities = capabilities,
            Self::Anthropic(model) => model.capabilities = capabilities,
        }
        self
    }

    pub(crate) fn endpoint(&self) -> &Endpoint {
        match self {
            Self::OpenAi(model) | Self::Azure(model) => &model.endpoint,
            Self::Anthropic(model) => &model.endpoint,
        }
    }
}

impl ChatModel for Provider {
    fn body(&self, request: &ChatRequest) -> String {
        match self {
            Self::OpenAi(model) | Self::Azure(model) => model.body(request),
            Self::Anthropic(model) => model.body(request),
        }
    }

    async fn send(&self, body: &str) -> Result<RawReply, CallError> {
        match self {
            Self::OpenAi(model) | Self::Azure(model) => model.send(body).await,
            Self::Anthropic(model) => model.send(body).await,
        }
    }
}
