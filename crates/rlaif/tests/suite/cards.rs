//! Cards of exports: they say what is in the run, whatever it is called, and stand where nothing else stood.

use crate::common::Lab;
use pulldown_cmark::{Event, Parser, Tag};

/// The card without its front matter, which must be there.
fn body(card: &str) -> &str {
    let rest = card.strip_prefix("---\n").unwrap_or_else(|| panic!("no front matter: {card}"));
    rest.split_once("\n---\n").unwrap().1
}

/// The numbers of pairs that a card tells behind `What was left out`.
fn fates(card: &str) -> usize {
    let section = card.split("## What was left out").nth(1).unwrap().split("\n## ").next().unwrap();
    let number = |line: &str| line.strip_prefix("- ")?.split_once(" pairs, ")?.0.parse::<usize>().ok();
    section.lines().filter_map(number).sum()
}

#[test]
fn exported_preferences_have_a_card_of_what_they_are() {
    let lab = Lab::new();
    lab.edit("Be kind.", "Be kind.<b>![x](y)`");
    lab.done(&["run", "rlaif.toml", "--until", "label"]);
    lab.done(&["export", "rlaif.toml", "-o", "prefs.jsonl"]);
    let rows = lab.read("prefs.jsonl").lines().count();
    let card = lab.read("prefs.card.md");
    for said in [
        format!("# Preferences of the run tiny\n\n{rows} preferences on "),
        format!("{rows} from AI judges"),
        "license: unknown".into(),
        "n<1K".into(),
        "path: \"prefs.jsonl\"".into(),
        "Judge `tone`: kind `local`, protocol `contrastive`".into(),
        "People labelled nothing.".into(),
        "No person has checked a label.".into(),
        "- Seed: 7".into(),
        "No endpoint was asked.".into(),
        "12 prompts to train on, 4 to evaluate on".into(),
        "It was not audited.".into(),
        "`generate.temperature`: `1.0`".into(),
        "rlaif run rlaif.toml --until label".into(),
        "rlaif export rlaif.toml --what preferences -o prefs.jsonl".into(),
        format!("rlaif {}", env!("CARGO_PKG_VERSION")),
    ] {
        assert!(card.contains(&said), "{said} is not in\n{card}");
    }
    let manifest: serde_json::Value = serde_json::from_str(&lab.read("runs/tiny/manifest.json")).unwrap();
    for stage in ["generate", "label"] {
        assert!(card.contains(manifest["stages"][stage]["fingerprint"].as_str().unwrap()), "{stage}: {card}");
    }
    assert!(card.contains(manifest["policy_fingerprint"].as_str().unwrap()));
    let judged = manifest["stages"]["label"]["numbers"]["pairs"].as_u64();
    assert!(fates(&card) >= rows && judged.is_none_or(|pairs| fates(&card) == pairs as usize), "{card}");
    assert!(card.contains(&format!("- {rows} pairs, the judges' preference was kept.")), "{card}");
    let markup = Parser::new(body(&card)).find(|event| {
        matches!(
            event,
            Event::Html(_)
                | Event::InlineHtml(_)
                | Event::Start(Tag::Link { .. } | Tag::Image { .. } | Tag::HtmlBlock)
        )
    });
    assert_eq!(markup, None, "what others wrote is text");
    assert!(body(&card).contains("<b>![x](y)"), "and is there to be read");

    // What an audit measured is in the next card.
    lab.done(&["audit", "rlaif.toml", "--preferences"]);
    lab.done(&["export", "rlaif.toml", "-o", "prefs.jsonl"]);
    let card = lab.read("prefs.card.md");
    assert!(
        card.contains("Measured by `rlaif audit rlaif.toml --preferences`")
            && !card.contains("It was not audited")
    );
    assert!(card.contains("preferences, two responses preferred both ways: 0, n "), "{card}");
}

#[test]
fn a_card_goes_where_it_is_told_and_never_to_a_stream() {
    let lab = Lab::new();
    lab.done(&["run", "rlaif.toml", "--until", "label"]);
    let before = std::fs::read_dir(lab.path(".")).unwrap().count();
    let (stdout, _) = lab.done(&["export", "rlaif.toml"]);
    lab.done(&["export", "rlaif.toml", "-o", "/dev/null"]);
    assert!(stdout.lines().all(|line| line.starts_with('{')));
    assert_eq!(std::fs::read_dir(lab.path(".")).unwrap().count(), before, "no card of a stream");
    lab.done(&["export", "rlaif.toml", "--card", "README.md"]);
    assert!(lab.read("README.md").contains("# Preferences of the run tiny"));
    lab.done(&["export", "rlaif.toml", "--what", "responses", "-o", "all.responses.jsonl"]);
    let card = lab.read("all.responses.card.md");
    let rows = lab.read("all.responses.jsonl").lines().count();
    assert!(card.contains(&format!("{rows} responses of language models")), "{card}");
    assert!(card.contains("Characters of `text`"), "{card}");
    assert!(!card.contains("How the labels were made"), "{card}");
}

#[test]
fn exported_models_have_a_card_with_their_numbers() {
    let lab = Lab::new();
    lab.edit("[evaluate]", "[dpo.lora]\nrank = 4\nalpha = 8.0\ntargets = [\"q_proj\"]\n\n[evaluate]");
    lab.done(&["run", "rlaif.toml"]);
    lab.done(&["export", "rlaif.toml", "--stage", "dpo", "-o", "whole"]);
    let evaluation: serde_json::Value = serde_json::from_str(&lab.read("runs/tiny/evaluation.json")).unwrap();
    let policies = evaluation["policies"].as_array().unwrap();
    let won =
        policies.iter().find(|row| row["policy"] == "dpo").unwrap()["win_rate"]["value"].as_f64().unwrap();
    let card = lab.read("whole/README.md");
    for said in [
        "library_name: transformers".to_string(),
        "# Tuned policy of the run tiny".into(),
        "A language model, tuned directly on preferences.".into(),
        format!("`win_rate`: {won:.3} (95 % interval "),
        "Judge `tone`".into(),
        "The judges of the evaluation are those that made the labels".into(),
        "`dpo.loss`: `sigmoid`".into(),
        "rlaif export rlaif.toml --stage dpo --format safetensors -o whole".into(),
    ] {
        assert!(card.contains(&said), "{said} is not in\n{card}");
    }
    lab.done(&["export", "rlaif.toml", "--stage", "dpo", "--format", "peft", "-o", "adapter"]);
    assert!(lab.read("adapter/README.md").contains("library_name: peft"));
    lab.done(&["export", "rlaif.toml", "--stage", "dpo", "--format", "gguf", "-o", "model.gguf"]);
    assert!(lab.read("model.card.md").contains("Written by rlaif"));
    lab.done(&["export", "rlaif.toml", "--stage", "reward", "-o", "scorer"]);
    let card = lab.read("scorer/README.md");
    assert!(card.contains("- reward-model") && card.contains("On held-out pairs, `accuracy`: "), "{card}");
    lab.done(&["export", "--model", "whole", "-o", "other"]);
    assert!(!lab.path("other/README.md").exists(), "nothing is known of a model outside a run");
}
