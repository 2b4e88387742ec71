//! The page from a whole run, from half a run, and from hostile text.

pub mod fixture;
mod hostile;
mod numbers;

use super::comparison::Finding;
use super::data::*;
use super::evidence::Measure;
use super::{render, worse};
use fixture::{evaluation, sample};
use rlaif_core::stats::position;

fn page(data: &ReportData) -> String {
    render(data).unwrap()
}

/// A page for people to look at, where `RLAIF_SCREENSHOTS` names a folder.
pub fn leave(name: &str, html: &str) {
    if let Some(folder) = std::env::var_os("RLAIF_SCREENSHOTS") {
        std::fs::write(std::path::Path::new(&folder).join(name), html).unwrap();
    }
}

/// The text of the `<h1>`, without its tags.
fn result(html: &str) -> String {
    let (_, rest) = html.split_once("<h1").unwrap();
    let (_, rest) = rest.split_once('>').unwrap();
    let (heading, _) = rest.split_once("</h1>").unwrap();
    heading.replace("<strong>", "").replace("</strong>", "").replace('\u{202f}', " ")
}

/// The part of the page with this anchor.
fn section<'a>(html: &'a str, id: &str) -> &'a str {
    let (_, rest) =
        html.split_once(&format!("<section id=\"{id}\">")).unwrap_or_else(|| panic!("no section `{id}`"));
    rest.split_once("</section>").unwrap().0
}

#[test]
fn a_whole_run_shows_every_section() {
    let html = page(&sample());
    leave("report.html", &html);
    assert_eq!(
        result(&html),
        "The PPO policy’s answers to 24 held-out prompts were preferred to the baseline’s 71.9 % of the time (95 % CI 61.5 to 81.2 %)."
    );
    for id in ["cost", "trust", "worse", "evaluation", "training", "samples", "disagreements", "reproduce"] {
        assert!(html.contains(&format!("<section id=\"{id}\">")), "no section `{id}`");
        assert!(html.contains(&format!("href=\"#{id}\"")), "nothing leads to `{id}`");
    }
    // 3 of the result, 1 of fates, 1 of the ranking, 3 + 1 of the reward model, 8 of PPO, 4 of DPO; a title in each.
    assert_eq!(html.matches("<svg ").count(), 21);
    assert_eq!(html.matches("<svg ").count(), html.matches("role=\"img\" aria-label=\"").count());
    assert!(!html.contains("class=\"missing\""));
    for words in
        ["within the budget of 8", "also made the training labels", "$0.00", "9 candidate pairs were dropped"]
    {
        assert!(html.contains(words), "`{words}` is missing");
    }
    assert_eq!(section(&html, "samples").matches("<details").count(), 24, "every held-out prompt is there");
    assert_eq!(section(&html, "samples").matches(" open><summary>").count(), 3);
    assert_eq!(section(&html, "samples").matches("<details class=\"printed\"").count(), 12);
}

#[test]
fn every_block_names_the_command_that_makes_it() {
    let html = page(&sample());
    for id in ["cost", "trust", "worse", "evaluation", "training", "samples", "disagreements"] {
        let text = section(&html, id);
        let headings = text.matches("<h3>").count().max(1);
        let hows = text.matches("<p class=\"how\">how: <code>rlaif ").count();
        assert!(hows >= headings, "{id}: {hows} commands for {headings} blocks");
    }
    assert!(section(&html, "trust").contains("rlaif audit examples/quickstart/rlaif.toml --robustness"));
}

#[test]
fn labels_are_counted_by_whose_they_are() {
    let html = page(&sample()).replace('\u{202f}', " ");
    let trust = section(&html, "trust");
    for words in [
        "took the place of the judges’ on 32 pairs, and turned the preference round on 7",
        "a pair that people labelled counts 2.00",
        ">human</span>",
        ">judges and people</span>",
    ] {
        assert!(trust.contains(words), "`{words}` is missing");
    }
    let mut data = sample();
    data.labels.as_mut().unwrap().reviewers.clear();
    assert!(page(&data).contains("No person has labelled anything"));
}

#[test]
fn an_audit_shows_what_fails_first() {
    let html = page(&sample());
    let audit = section(&html, "trust");
    let places: Vec<usize> =
        [">fail</span>", ">not measured</span>", ">too few to tell</span>", ">pass</span>"]
            .iter()
            .map(|word| audit.find(word).unwrap_or_else(|| panic!("no {word}")))
            .collect();
    assert!(places.is_sorted(), "{places:?}");
    assert!(html.contains("1 of 4 bounds fail; 1 with too few observations to tell, 1 not measured."));
    let mut data = sample();
    data.audit = None;
    assert!(page(&data).contains("No audit of this run has been made."));
}

#[test]
fn what_got_worse_is_told_and_what_did_not_is_not_called_worse() {
    let found = worse::findings(&sample());
    let bad: Vec<&str> = found.iter().filter(|it| it.mark == "worse").map(|it| it.words.as_str()).collect();
    assert_eq!(bad.len(), 4, "{bad:?}");
    for (words, start) in bad.iter().zip([
        "PPO loses to baseline on prompts tagged “returns”",
        "DPO loses to baseline on prompts tagged “returns”",
        "PPO fails 4 checks of the regression set",
        "Answers of PPO repeat themselves more",
    ]) {
        assert!(words.starts_with(start), "{words}");
    }
    assert!(found.is_sorted_by_key(|it| it.tone), "the worst first");

    let mut calm = sample();
    calm.changes.retain(|it| it.measure != Measure::Repeated4);
    let evaluation = calm.evaluation.as_mut().unwrap();
    evaluation.regression = None;
    evaluation.comparisons.clear();
    let found = worse::findings(&calm);
    assert!(found.iter().all(|it| it.mark != "worse"));
    assert_eq!(worse::sentence(&calm).mark, "look", "DPO’s reward rose, and its win rate did not");
    calm.evaluation.as_mut().unwrap().policies[2].win_rate = Some(Estimate::new(0.6, 0.52, 0.68, 48));
    assert_eq!(worse::sentence(&calm).mark, "none found");
}

#[test]
fn a_reward_that_judges_do_not_see_is_an_alarm() {
    let mut data = sample();
    let evaluation = data.evaluation.as_mut().unwrap();
    evaluation.policies[1].win_rate = Some(Estimate::new(0.52, 0.41, 0.63, 48));
    let says = |data: &ReportData, mark: &str, words: &str| {
        worse::findings(data).iter().any(|it| it.mark == mark && it.words.contains(words))
    };
    assert!(says(&data, "look", "PPO’s reward rose") && !says(&data, "worse", "PPO’s reward rose"));
    data.evaluation.as_mut().unwrap().policies[1].win_rate = Some(Estimate::new(0.32, 0.21, 0.43, 48));
    assert!(says(&data, "worse", "That is how a reward model is gamed"));
    let budget = data.ppo.as_mut().unwrap();
    budget.kl_budget = Some(4.0);
    assert!(says(&data, "worse", "further from its reference than allowed"));
}

#[test]
fn pairs_that_divide_judges_and_people_show_both_and_who_said_what() {
    let html = page(&sample()).replace('\u{202f}', " ");
    let text = section(&html, "disagreements");
    for words in [
        "differently on 9 of 32 pairs",
        "The first 2 are here",
        "judges 93.1 % for A; people 2 votes for B",
        "<small>chosen by judges</small>",
        "<small>chosen by people</small>",
        "ada: B · A does not answer",
        "bob: tie",
        "Judge: The first answer is warmer.",
        "<mark>",
    ] {
        assert!(text.contains(words), "`{words}` is missing");
    }
}

#[test]
fn stages_that_did_not_run_are_named_with_the_next_command() {
    let mut data = sample();
    data.ppo = None;
    data.metrics.remove("ppo");
    data.evaluation = None;
    data.changes.clear();
    let html = page(&data);
    assert_eq!(
        result(&html),
        "So far 231 of 279 pairs became preferences, and the reward model and DPO policy were trained; no policy has been \
         compared with the baseline yet."
    );
    for command in
        ["rlaif ppo examples/quickstart/rlaif.toml", "rlaif evaluate examples/quickstart/rlaif.toml"]
    {
        assert!(html.contains(&format!("Next: <code>{command}</code>")), "`{command}` is missing");
    }
    assert!(!html.contains("Next: <code>rlaif dpo "));
}

#[test]
fn an_empty_run_still_is_a_page() {
    let html = page(&ReportData::default());
    assert!(result(&html).starts_with("Nothing was sampled yet"));
    // People, the audit, labels, what got worse, the evaluation, three stages of training, the samples.
    assert_eq!(html.matches("class=\"missing\"").count(), 9);
}

#[test]
fn the_sentence_claims_no_more_than_the_interval() {
    let with = |value, low, high, prompts| {
        let mut data = sample();
        let evaluation = data.evaluation.as_mut().unwrap();
        evaluation.prompts = prompts;
        evaluation.comparisons.clear();
        evaluation.policies[1].win_rate = Some(Estimate { value, low, high, n: Some(24) });
        result(&page(&data))
    };
    let few = with(0.55, Some(0.46), Some(0.64), 24);
    assert!(few.starts_with("Not enough prompts to tell"), "{few}");
    assert!(few.contains("46.0 to 64.0 %, includes the 50 %"), "{few}");
    let many = with(0.51, Some(0.48), Some(0.54), 2000);
    assert!(many.starts_with("No difference was shown"), "{many}");
    assert!(many.contains("would have been seen with 80.0 % probability"), "{many}");
    let none = with(0.5, Some(0.1), Some(0.9), 2);
    assert!(none.ends_with("So few prompts can show no difference at all."), "{none}");
    let worse = with(0.31, Some(0.2), Some(0.42), 24);
    assert!(worse.starts_with("The PPO policy got worse"), "{worse}");
    let bare = with(0.6, None, None, 24);
    assert!(bare.ends_with("60.0 % of the time; with no interval, take it as a hint."), "{bare}");

    let mut data = sample();
    let evaluation = data.evaluation.as_mut().unwrap();
    evaluation.policies[1].win_rate = Some(Estimate::new(0.51, 0.48, 0.54, 2000));
    evaluation.comparisons[0].conclusion.finding = Finding::Same;
    let same = result(&page(&data));
    assert!(same.starts_with("No difference that would matter") && same.contains("within 5.0 %"), "{same}");
}

#[test]
fn nothing_is_loaded_from_anywhere() {
    let html = page(&sample());
    assert!(html.contains("default-src 'none'") && !html.contains("unsafe-inline"));
    assert!(!html.contains("src=") && !html.contains("url(") && !html.contains("@import"));
    for target in html.match_indices("href=\"").map(|(at, _)| html[at + 6..].split_once('"').unwrap().0) {
        assert!(target.starts_with('#') || target == "data:,", "`{target}` leaves the page");
    }
    assert!(!html.contains("http://") && !html.contains("https://"));
}

#[test]
fn the_nonce_hangs_on_every_text_of_the_page() {
    let nonce = |data: &ReportData| {
        let html = page(data);
        let (_, rest) = html.split_once("'nonce-").unwrap();
        let nonce = rest.split_once('\'').unwrap().0.to_string();
        assert_eq!(html.matches(&nonce).count(), 4, "twice in the policy, at the style and at the script");
        nonce
    };
    let mut data = sample();
    let first = nonce(&data);
    assert_eq!(nonce(&data), first, "the same run makes the same page");
    data.evaluation.as_mut().unwrap().samples[0].responses[0].text.push('!');
    assert_ne!(nonce(&data), first);
}

#[test]
fn a_judge_that_looks_at_the_place_is_shown_for_what_it_is() {
    use rlaif_core::records::Choice::{First, Second};
    let mut data = sample();
    let choices: Vec<_> = (0..50).map(|i| if i == 0 { (First, Second) } else { (First, First) }).collect();
    let judge = &mut data.judges[0];
    judge.protocol = "pairwise".into();
    judge.position = position::position_report(&choices);
    judge.probe = Some(Estimate::new(0.56, 0.47, 0.65, 120));
    data.agreement = None;
    let html = page(&data).replace('\u{202f}', " ");
    assert!(html.contains("98.0 %</div>"), "the share of pairs with the same position");
    assert!(html.contains("0 % without bias") && html.contains("McNemar p = "));
    assert!(html.contains("No person has checked the judges here"));
    assert!(html.contains("not shown to be better than chance"));
}

#[test]
fn an_interval_of_the_statistics_is_read_as_an_estimate() {
    let read: Estimate = serde_json::from_str(r#"{"estimate":0.5,"low":0.4,"high":0.6}"#).unwrap();
    assert_eq!(read, Estimate { value: 0.5, low: Some(0.4), high: Some(0.6), n: None });
}

#[test]
fn data_survives_json() {
    let evaluation = evaluation();
    let json = serde_json::to_string(&evaluation).unwrap();
    assert_eq!(serde_json::from_str::<Evaluation>(&json).unwrap(), evaluation);
    assert_eq!(serde_json::from_str::<Evaluation>("{}").unwrap(), Evaluation::default());
}
