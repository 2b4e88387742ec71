//! The card of an exported file.

use super::facts::{Facts, hash_of, plain};
use super::judges;
use super::markdown::{Card, code, text, yaml};
use crate::cli::ExportWhat;
use crate::people;
use anyhow::Result;
use rlaif_core::Config;
use rlaif_core::config::Stage;
use rlaif_core::people::HUMAN;
use rlaif_core::records::Fate;
use rlaif_store::Store;
use rlaif_store::store::{Spend, TRAIN_PAIRS};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;

/// What was exported, from the run and from the ledger.
pub struct Exported<'a> {
    /// What it is.
    pub what: ExportWhat,
    /// Its rows, as written.
    pub lines: &'a [Value],
    /// The file's name; `None` for stdout.
    pub file: Option<&'a Path>,
    /// The config and its overrides, as a shell reads them.
    pub config_as_typed: &'a str,
    /// Where paths of the config begin.
    pub base: &'a Path,
}

/// What of the ledger a card tells.
struct Ledger {
    fates: BTreeMap<Fate, u64>,
    by_people: usize,
    reviewers: usize,
    verdicts: usize,
    dropped: usize,
    set_aside: usize,
    spend: BTreeMap<String, Spend>,
}

impl Ledger {
    async fn read(store: &Store, config: &Config) -> Result<Self> {
        let mut fates = BTreeMap::new();
        for count in store.label_counts(TRAIN_PAIRS).await? {
            *fates.entry(count.fate).or_default() += count.count;
        }
        let said = store.human_verdicts().await?;
        let reviewers: BTreeSet<&str> =
            people::labels(&said).map(|verdict| verdict.reviewer.as_str()).collect();
        Ok(Self {
            fates,
            by_people: people::preferences(store, config).await?.len(),
            reviewers: reviewers.len(),
            verdicts: people::labels(&said).count(),
            dropped: store.dropped_pairs().await?.len(),
            set_aside: store.prompts_set_aside().await?.len(),
            spend: store.spend_by_judge().await?,
        })
    }
}

/// The card.
///
/// # Errors
/// If the ledger cannot be read.
pub async fn data_card(
    facts: &Facts,
    store: &Store,
    config: &Config,
    exported: &Exported<'_>,
) -> Result<String> {
    let ledger = Ledger::read(store, config).await?;
    let mut card = Card(front_matter(facts, exported));
    let title = match exported.what {
        ExportWhat::Preferences => "Preferences",
        ExportWhat::Responses => "Responses",
        ExportWhat::HumanVerdicts => "Verdicts of people",
        ExportWhat::Model => "Model",
    };
    card.0 += &format!("\n# {title} of the run {}\n\n", text(&facts.name));
    what_it_is(&mut card, exported, &ledger);
    facts.warn_unfinished(&mut card, Stage::Label);
    responses(&mut card, facts);
    if exported.what == ExportWhat::Preferences {
        labels(&mut card, facts, config, exported, &ledger);
        left_out(&mut card, &ledger, exported.lines.len());
    }
    numbers(&mut card, exported);
    if exported.what == ExportWhat::Preferences {
        facts.audited(
            &mut card,
            exported.config_as_typed,
            &["judges", "preferences", "bias", "repeat", "robustness"],
        );
    }
    sources(&mut card, facts, config, exported);
    cost(&mut card, &ledger);
    facts.made_with(&mut card, &commands(exported));
    use_and_limits(&mut card, exported, &ledger);
    Ok(card.finished())
}

fn front_matter(facts: &Facts, exported: &Exported<'_>) -> String {
    let size = match exported.lines.len() {
        0..1_000 => "n<1K",
        1_000..10_000 => "1K<n<10K",
        10_000..100_000 => "10K<n<100K",
        100_000..1_000_000 => "100K<n<1M",
        _ => "1M<n<10M",
    };
    let what = what_name(exported.what);
    let tags = match exported.what {
        ExportWhat::Preferences => "- rlaif\n- preference\n- synthetic\n",
        _ => "- rlaif\n- synthetic\n",
    };
    let mut front = format!(
        "---\npretty_name: {}\nlicense: unknown\ntags:\n{tags}size_categories:\n- {size}\n",
        yaml(&format!("{}: {what}", facts.name))
    );
    if let Some(name) = exported.file.and_then(Path::file_name) {
        let name = yaml(&name.to_string_lossy());
        front +=
            &format!("configs:\n- config_name: default\n  data_files:\n  - split: train\n    path: {name}\n");
    }
    front + "---\n"
}

fn what_name(what: ExportWhat) -> &'static str {
    match what {
        ExportWhat::Preferences => "preferences",
        ExportWhat::Responses => "responses",
        ExportWhat::HumanVerdicts => "human-verdicts",
        ExportWhat::Model => "model",
    }
}

fn what_it_is(card: &mut Card, exported: &Exported<'_>, ledger: &Ledger) {
    let n = exported.lines.len();
    let fields = exported
        .lines
        .first()
        .and_then(Value::as_object)
        .map(|row| row.keys().map(|field| code(field)).collect::<Vec<_>>().join(", "));
    let is = match exported.what {
        ExportWhat::Preferences => {
            let prompts: HashSet<&str> =
                exported.lines.iter().filter_map(|line| line["prompt_id"].as_str()).collect();
            format!(
                "{n} preferences on {} prompts: for each, which of two responses is better. `p` is the probability that `chosen` beats \
                 `rejected`, unrounded. {} come from people, {} from AI judges.",
                prompts.len(),
                by_people(exported.lines),
                n - by_people(exported.lines)
            )
        }
        ExportWhat::Responses => {
            format!("{n} responses of language models to prompts, with token ids and log-probabilities.")
        }
        _ => format!(
            "{n} verdicts on pairs of responses, by {} people, among them those that were skipped or taken back (`undone_ms`).",
            ledger.reviewers
        ),
    };
    card.say(&is);
    card.say(&format!("One JSON object a line, with {}.", fields.unwrap_or_default()));
}

/// Rows that people labelled.
fn by_people(lines: &[Value]) -> usize {
    let human = |line: &&Value| {
        line["judges"].as_array().is_some_and(|judges| judges.iter().any(|judge| judge == HUMAN))
    };
    lines.iter().filter(human).count()
}

fn responses(card: &mut Card, facts: &Facts) {
    card.section("How the responses were made");
    card.item(&format!("The baseline: {}", facts.policy()));
    if facts.stage(Stage::Sft).is_some() {
        card.item("It was fine-tuned in the run (stage `sft`) before it was sampled from.");
    }
    for key in ["n", "temperature", "top_p", "top_k", "max_new_tokens"] {
        if let Some(value) = facts.setting(Stage::Generate, "generate", key) {
            card.item(&format!("`generate.{key}`: {}", plain(value)));
        }
    }
    let systems = facts.setting(Stage::Generate, "generate", "systems").and_then(Value::as_array);
    if let Some(systems) = systems.filter(|systems| !systems.is_empty()) {
        card.item(&format!("Sampled in turn under {} system prompts.", systems.len()));
    }
    facts.warn_unfinished(card, Stage::Generate);
}

fn labels(card: &mut Card, facts: &Facts, config: &Config, exported: &Exported<'_>, ledger: &Ledger) {
    card.section("How the labels were made");
    match facts.stage(Stage::Label) {
        None => card.item("No judge was asked in this run."),
        Some(_) => judges::tell(card, facts, Stage::Label),
    }
    for (key, means) in [
        ("position_check_rate", "share of the pairs that order-sensitive judges saw in both orders"),
        ("aggregation", "how several judges come to one p"),
        ("tie_margin", "a p nearer to one half than this is a tie"),
        ("keep_inconsistent", "whether pairs stay on which a judge changed its mind when they were swapped"),
        ("keep_ties", "whether ties stay"),
        ("rules", "whether rules decide what needs no judge"),
    ] {
        if let Some(value) = facts.setting(Stage::Label, "label", key) {
            card.item(&format!("`label.{key}`: {} ({means})", plain(value)));
        }
    }
    match ledger.verdicts {
        0 => card.item("People labelled nothing."),
        n => card.item(&format!(
            "{} people gave {n} labels, blind to model and judge; {} of the rows are theirs, which come before the judges' and count {} \
             times in training. Whoever they were is not in the file of preferences.",
            ledger.reviewers,
            by_people(exported.lines),
            config.review.weight
        )),
    }
}

fn left_out(card: &mut Card, ledger: &Ledger, rows: usize) {
    card.section("What was left out, and why");
    card.item(&format!("{} pairs of responses were too near each other to be judged.", ledger.dropped));
    card.item(&format!("{} prompts were set aside.", ledger.set_aside));
    for (fate, n) in &ledger.fates {
        let what = match fate {
            Fate::Kept => "the judges' preference was kept",
            Fate::Inconsistent => "left out: a judge changed its mind when the two were swapped",
            Fate::Tie => "left out: a tie",
            Fate::NoVerdict => "left out: no reply could be read",
            Fate::Failed => "left out: a request failed for good",
            Fate::SetAside => "left out: a rule set the pair aside before any judge was asked",
        };
        card.item(&format!("{n} pairs, {what}."));
    }
    if ledger.by_people > 0 {
        card.item(&format!(
            "People's labels took the judges' place on {} pairs; with them {rows} rows are in the file.",
            ledger.by_people
        ));
    }
}

/// Lengths in characters, and how sure labels are.
fn numbers(card: &mut Card, exported: &Exported<'_>) {
    card.section("Numbers");
    let lengths =
        |field: &str| -> Vec<f64> { exported.lines.iter().filter_map(|line| length(&line[field])).collect() };
    for field in ["prompt", "chosen", "rejected", "text", "left", "right"] {
        let mut lengths = lengths(field);
        lengths.sort_by(f64::total_cmp);
        let n = lengths.len();
        if n > 0 {
            let at = |share: f64| lengths[((n - 1) as f64 * share).round() as usize];
            card.item(&format!(
                "Characters of `{field}`: mean {:.1}, median {:.0}, 95 % at most {:.0}, longest {:.0}",
                lengths.iter().sum::<f64>() / n as f64,
                at(0.5),
                at(0.95),
                at(1.0)
            ));
        }
    }
    if exported.what != ExportWhat::Preferences {
        return;
    }
    let longer =
        exported.lines.iter().filter(|line| length(&line["chosen"]) > length(&line["rejected"])).count();
    let n = exported.lines.len();
    card.item(&format!("`chosen` is the longer of the two in {longer} of {n} rows."));
    let bins = [(0.5, 0.6), (0.6, 0.7), (0.7, 0.8), (0.8, 0.9), (0.9, 1.01)];
    let ps: Vec<f64> = exported.lines.iter().filter_map(|line| line["p"].as_f64()).collect();
    let told = bins.map(|(low, high)| {
        let n = ps.iter().filter(|p| (low..high).contains(*p)).count();
        format!("{n} from {low}")
    });
    card.item(&format!("Rows by `p`: {}.", told.join(", ")));
}

/// Characters of a text, or of the texts of messages.
fn length(value: &Value) -> Option<f64> {
    match value {
        Value::String(text) => Some(text.chars().count() as f64),
        Value::Array(turns) => turns.iter().map(|turn| length(&turn["content"])).sum(),
        _ => None,
    }
}

fn sources(card: &mut Card, facts: &Facts, config: &Config, exported: &Exported<'_>) {
    card.section("Sources");
    let counts = &facts.manifest.prompts;
    card.item(&format!(
        "{} prompts to train on, {} to evaluate on, {} rows set aside",
        counts.train, counts.eval, counts.rejected
    ));
    if let Some(hash) = facts.input(Stage::Generate, "prompts") {
        card.item(&format!("Fingerprint of the prompts that were sampled for: {}", code(hash)));
    }
    for file in std::iter::once(&config.prompts.train).chain(&config.prompts.eval) {
        let hash = hash_of(&exported.base.join(file));
        let hash = hash.map_or_else(
            || "it is not there any more".into(),
            |hash| format!("BLAKE3 {} as it is now", code(&hash)),
        );
        card.item(&format!("{}: {hash}", code(&file.to_string_lossy())));
    }
    card.0.push('\n');
    card.say("Whose the prompts are and under what terms, the program was not told: `license` is therefore `unknown`.");
}

fn cost(card: &mut Card, ledger: &Ledger) {
    card.section("Cost");
    if ledger.spend.is_empty() {
        card.item("No endpoint was asked.");
    }
    for (judge, spend) in &ledger.spend {
        let mut told = format!("{} calls, {}", spend.calls, spend.known);
        let mut also = |n: u64, what: &str| {
            if n > 0 {
                told += &format!(", {n} {what}");
            }
        };
        also(spend.unknown_calls, "calls of unknown price that are not in the sum");
        also(spend.possibly_billed, "sends without an answer, possibly billed");
        also(spend.reused, "replies taken from other runs");
        card.item(&format!("{}: {told}", code(judge)));
    }
}

fn commands(exported: &Exported<'_>) -> Vec<String> {
    let output = exported.file.map(|file| format!(" -o {}", file.to_string_lossy())).unwrap_or_default();
    let config = exported.config_as_typed;
    let mut commands = vec![format!("rlaif run {config} --until label")];
    if exported.what == ExportWhat::HumanVerdicts {
        commands.push(format!("rlaif review {config}"));
    }
    commands.push(format!("rlaif export {config} --what {}{output}", what_name(exported.what)));
    commands
}

fn use_and_limits(card: &mut Card, exported: &Exported<'_>, ledger: &Ledger) {
    card.section("Intended use");
    card.say(match exported.what {
        ExportWhat::Preferences => {
            "Training reward models and policies (`rlaif`, TRL's `RewardTrainer` and `DPOTrainer`), and studying the judges that made it. It is \
             no benchmark: the labels are not the truth."
        }
        ExportWhat::Responses => "Studying what policies say, and labelling it anew.",
        _ => "Measuring how far judges agree with people, and people with each other.",
    });
    card.section("Limits and risks");
    if exported.what == ExportWhat::Preferences {
        card.item("An AI judge's label is its opinion: its preferences for length, form, place and its own style are in the data as far as the audit above did not rule them out.");
        card.item("What was left out is not missing at random: pairs on which judges were unsure or changed their minds are not in the file.");
        if ledger.verdicts == 0 {
            card.item("No person has checked a label.");
        }
    }
    card.item("Responses are samples of a model: they may be false, offensive or dangerous, also the preferred ones.");
    card.item("Nobody was asked whether the texts hold personal data; the audit looks for patterns with a checksum or a clear shape only, and not for names.");
    if exported.what == ExportWhat::HumanVerdicts {
        card.item("**The file names the reviewers (`reviewer`) and what each of them said and when: that is personal data.** Replace the names before it goes to others.");
    }
    card.item("The language, the people and the domains that the prompts speak for are those of the prompt files, which say nothing of them.");
}
