//! Who is evaluated: the baseline, what the run tuned, and `evaluate.models`; and who meets whom.

use super::measured::ended;
use super::regression;
use crate::context::Context;
use crate::error::UserError;
use anyhow::{Context as _, Result};
use rlaif_core::Config;
use rlaif_core::config::{Against, Stage};
use rlaif_core::records::Response;
use rlaif_model::{ModelFiles, Tokenizer};
use rlaif_store::store::{BASELINE, ORIGIN};
use std::borrow::Cow;

/// A policy that is evaluated.
pub struct Player {
    /// Its name in the store and in reports.
    pub name: String,
    /// Its files, of one of `evaluate.models`; the others are the run's own.
    pub files: Option<ModelFiles>,
}

impl Player {
    /// A policy of the run.
    pub fn of_run(name: &str) -> Self {
        Self { name: name.into(), files: None }
    }

    /// What its prompts and responses are put in tokens by.
    pub fn tokenizer<'a>(&'a self, context: &'a Context) -> &'a Tokenizer {
        self.files.as_ref().map_or(context.tokenizer(), |files| &files.tokenizer)
    }

    /// Its responses in the tokens of the run's models: as they were sampled, or put in tokens anew where its own may be others.
    pub fn in_tokens_of_the_run<'r>(
        &self,
        context: &Context,
        responses: &'r [Response],
    ) -> Result<Vec<Cow<'r, [u32]>>> {
        if self.files.is_none() {
            return Ok(responses
                .iter()
                .map(|response| Cow::Borrowed(response.token_ids.as_slice()))
                .collect());
        }
        let tokenizer = context.tokenizer();
        let anew = |response: &Response| {
            let mut ids = tokenizer.encode(&response.text)?;
            ids.extend(tokenizer.eos_ids().first().filter(|_| ended(response) || ids.is_empty()));
            Ok(Cow::Owned(ids))
        };
        responses.iter().map(anew).collect()
    }
}

/// The baseline, these tuned policies, then `evaluate.models`.
///
/// # Errors
/// If a model cannot be opened, or its context is too short for the run's longest prompt.
pub fn players(context: &Context, tuned: &[&str], set: Option<&regression::Set>) -> Result<Vec<Player>> {
    let own = std::iter::once(BASELINE).chain(tuned.iter().copied()).map(Player::of_run);
    let mut players: Vec<Player> = own.collect();
    for model in &context.config.evaluate.models {
        let files = ModelFiles::open(&model.model)
            .with_context(|| format!("opening the model `{}` of `evaluate.models`", model.name))?;
        refuse_short(context, &model.name, &files, set)?;
        players.push(Player { name: model.name.clone(), files: Some(files) });
    }
    Ok(players)
}

fn refuse_short(
    context: &Context,
    name: &str,
    files: &ModelFiles,
    set: Option<&regression::Set>,
) -> Result<()> {
    let config = &context.config;
    let room = config.evaluate.max_new_tokens.unwrap_or(config.generate.max_new_tokens);
    let longest = files.config.max_position_embeddings;
    for prompt in context.prompts.eval.iter().chain(set.iter().flat_map(|set| &set.prompts)) {
        let tokens = files.tokenizer.encode_chat(&context.conversation(prompt), true)?.len();
        if tokens + room > longest {
            return Err(UserError::new(format!(
                "the model `{name}` of `evaluate.models` has a context of {longest} tokens, and prompt `{}` with its response needs {}",
                prompt.id,
                tokens + room
            ))
            .hint("Take the prompt out of the evaluation, or lower `evaluate.max_new_tokens`")
            .into());
        }
    }
    Ok(())
}

/// Two players that meet, by their places in the list of players.
pub struct Meeting {
    /// The set of their pairs in the store.
    pub set: String,
    /// Whose wins are counted.
    pub policy: usize,
    /// Whom it meets; always an earlier one.
    pub other: usize,
}

/// Who meets whom: everyone the baseline, then, with `evaluate.against = "all"`, everyone those before.
pub fn meetings<N: AsRef<str>>(players: &[N], against: Against) -> Vec<Meeting> {
    let name = |place: usize| players[place].as_ref();
    let mut meetings: Vec<Meeting> =
        (1..players.len()).map(|policy| Meeting { set: name(policy).into(), policy, other: 0 }).collect();
    if against == Against::All {
        let pairs = (2..players.len()).flat_map(|policy| (1..policy).map(move |other| (policy, other)));
        meetings.extend(pairs.map(|(policy, other)| Meeting {
            set: format!("{}/{}", name(other), name(policy)),
            policy,
            other,
        }));
    }
    meetings
}

impl AsRef<str> for Player {
    fn as_ref(&self) -> &str {
        &self.name
    }
}

/// The names of a run's players before it has run, the baseline first.
pub fn names(config: &Config) -> Vec<String> {
    let tuned = config.run.stages.iter().filter(|stage| matches!(stage, Stage::Ppo | Stage::Dpo));
    let tuned = tuned.map(|stage| stage.name().to_string());
    let models = config.evaluate.models.iter().map(|model| model.name.clone());
    std::iter::once(BASELINE.to_string()).chain(tuned).chain(models).collect()
}

/// The sets of pairs that an evaluation of this run has, comparisons with the origin among them.
pub fn sets(config: &Config) -> Vec<String> {
    let names = names(config);
    let met = meetings(&names, config.evaluate.against).into_iter().map(|meeting| meeting.set);
    let over_origin = names[1..].iter().map(|name| over_origin(name));
    met.chain(over_origin.filter(|_| config.policy.origin.is_some())).collect()
}

/// The set of pairs of a policy and `policy.origin`.
pub fn over_origin(policy: &str) -> String {
    format!("{ORIGIN}/{policy}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everyone_meets_the_baseline_first_and_with_all_everyone_once() {
        let players = ["baseline", "ppo", "dpo", "other"];
        let met = |against| -> Vec<(String, String, String)> {
            let name = |place: usize| players[place].to_string();
            meetings(&players, against)
                .into_iter()
                .map(|meeting| (meeting.set, name(meeting.policy), name(meeting.other)))
                .collect()
        };
        let three = |set: &str, policy: &str, other: &str| (set.into(), policy.into(), other.into());
        let over_baseline = [
            three("ppo", "ppo", "baseline"),
            three("dpo", "dpo", "baseline"),
            three("other", "other", "baseline"),
        ];
        assert_eq!(met(Against::Baseline), over_baseline);
        let all = met(Against::All);
        assert_eq!(all[..3], over_baseline);
        let rest = [
            three("ppo/dpo", "dpo", "ppo"),
            three("ppo/other", "other", "ppo"),
            three("dpo/other", "other", "dpo"),
        ];
        assert_eq!(all[3..], rest);
    }
}
