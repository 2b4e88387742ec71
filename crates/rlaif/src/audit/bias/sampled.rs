//! What a policy writes about either group in its own words: how kind it is, how long, and whether it writes at all.

use super::findings::{self, Probed};
use super::scored::encode;
use crate::context::Context;
use crate::interrupt;
use crate::progress::Progress;
use anyhow::{Context as _, Result};
use rlaif_core::audit::Measurement;
use rlaif_core::seed;
use rlaif_judge::bias::{self, Open};
use rlaif_judge::parse::is_refusal;
use rlaif_model::{Decoder, GenerateRequest, Generator, Sample, SamplingConfig};

/// What is measured of an answer; the length is divided by the mean length of all.
const MEASURES: [&str; 3] = ["bias_policy_sentiment", "bias_policy_length", "bias_policy_refusal"];

/// For each prompt, the mean over its samples about the reference group less that about the other.
pub struct Answers {
    prompts: Vec<Open>,
    /// In the order of [`MEASURES`].
    values: Vec<[Option<f64>; 3]>,
}

impl Answers {
    /// The same with another's values taken away.
    pub fn less(&self, other: &Self) -> Self {
        let less = |(one, other): (&[Option<f64>; 3], &[Option<f64>; 3])| {
            [0, 1, 2].map(|place| Some(one[place]? - other[place]?))
        };
        Self {
            prompts: self.prompts.clone(),
            values: self.values.iter().zip(&other.values).map(less).collect(),
        }
    }

    /// Each measure, held against the margin.
    pub fn measurements(&self, subject: &str, margin: f64) -> Vec<Measurement> {
        let of = |(place, measure): (usize, &&str)| {
            let probed: Vec<Probed> = self
                .prompts
                .iter()
                .zip(&self.values)
                .map(|(open, values)| Probed {
                    axis: open.axis,
                    contrast: Some(open.contrast),
                    template: open.template,
                    people: open.people,
                    value: values[place],
                })
                .collect();
            findings::measurements(subject, measure, margin, &probed)
        };
        MEASURES.iter().enumerate().flat_map(of).collect()
    }
}

/// Samples the answers; `None` where `audit.bias_samples` is 0. Both prompts of an item, and all policies, get the same seeds, so that what
/// differs is the prompt.
///
/// # Errors
/// If the policy cannot be sampled.
pub fn answers(context: &Context, policy: &str, decoder: &Decoder) -> Result<Option<Answers>> {
    let audit = &context.config.audit;
    if audit.bias_samples == 0 {
        return Ok(None);
    }
    let how = SamplingConfig {
        temperature: context.config.evaluate.temperature,
        top_p: 1.0,
        top_k: 0,
        max_new_tokens: audit.bias_max_new_tokens,
        stop_ids: context.tokenizer().eos_ids().to_vec(),
        batch_size: context.config.generate.batch_size,
    };
    let prompts = bias::open(audit.bias_per_contrast);
    let longest = decoder.config().max_position_embeddings;
    let mut fits = Vec::new();
    let mut requests = Vec::new();
    for (number, open) in prompts.iter().enumerate() {
        let ids = [encode(context, &open.prompts[0])?, encode(context, &open.prompts[1])?];
        // No answer may be cut by the context on one side and not on the other.
        fits.push(ids.iter().all(|ids| ids.len() + audit.bias_max_new_tokens <= longest));
        let seed = seed::derive(context.config.run.seed, "audit/bias", number as u64);
        if fits[number] {
            requests.extend(ids.map(|prompt_ids| GenerateRequest {
                prompt_ids,
                n: audit.bias_samples,
                seed,
            }));
        }
    }
    let a_unit = (how.batch_size / audit.bias_samples).max(1);
    let mut progress = Progress::new("audit", "prompts", 0, requests.len() as u64);
    let mut samples: Vec<Vec<Sample>> = Vec::new();
    let generator = Generator::new(decoder);
    for unit in requests.chunks(a_unit) {
        interrupt::check("audit")?;
        samples.extend(
            generator
                .generate(unit, &how, &mut |_| {})
                .with_context(|| format!("sampling answers of `{policy}`"))?,
        );
        progress.set(samples.len() as u64, requests.len() as u64, policy);
    }
    progress.finish();
    let lexicon = vader_sentimental::SentimentIntensityAnalyzer::new();
    let measured = samples.iter().map(|samples| {
        let of = |sample: &Sample| {
            let text = context.tokenizer().decode(&sample.ids, true);
            let sentiment = lexicon.polarity_scores(&text).compound;
            [sentiment, sample.ids.len() as f64, f64::from(u8::from(is_refusal(&text)))]
        };
        mean(&samples.iter().map(of).collect::<Vec<_>>())
    });
    let values = differences(&fits, &measured.collect::<Vec<_>>());
    Ok(Some(Answers { prompts, values }))
}

/// The means of both sides of each prompt that fits, in turn, to differences; lengths as shares of their mean.
fn differences(fits: &[bool], measured: &[[f64; 3]]) -> Vec<[Option<f64>; 3]> {
    let length = mean(measured)[1].max(1.0);
    let mut sides = measured.chunks_exact(2);
    let of = |fits: &bool| match (fits, if *fits { sides.next() } else { None }) {
        (true, Some([reference, group])) => {
            let less = [0, 1, 2].map(|place| reference[place] - group[place]);
            [Some(less[0]), Some(less[1] / length), Some(less[2])]
        }
        _ => [None; 3],
    };
    fits.iter().map(of).collect()
}

fn mean(rows: &[[f64; 3]]) -> [f64; 3] {
    [0, 1, 2].map(|place| rows.iter().map(|row| row[place]).sum::<f64>() / rows.len().max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_of_the_reference_less_the_group_and_lengths_are_shares() {
        let got = differences(
            &[true, false, true],
            &[[0.5, 30.0, 0.0], [0.1, 10.0, 1.0], [0.0, 20.0, 0.0], [0.0, 20.0, 0.0]],
        );
        assert_eq!(got[0], [Some(0.4), Some(1.0), Some(-1.0)]);
        assert_eq!(got[1], [None; 3]);
        assert_eq!(got[2], [Some(0.0); 3]);
    }
}
