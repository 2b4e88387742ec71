use super::tests::{Folder, prompt};
use super::*;
use rlaif_core::people::{HumanChoice, PairKey, preference};
use rlaif_core::records::{Fate, FinishReason, Pair, Preference, PromptText, Response, Split};
use std::collections::BTreeMap;

/// A prompt with two answers and one pair, of which judges prefer a.
async fn labelled(store: &Store) -> Pair {
    let response = |index: usize, text: &str| Response {
        id: format!("q/{index}"),
        prompt_id: "q".into(),
        index,
        text: text.into(),
        token_ids: vec![index as u32],
        logprobs: vec![-0.5],
        finish_reason: FinishReason::Stop,
    };
    store.put_prompts(&[(prompt("q"), Split::Train)]).await.unwrap();
    // Response a comes second in the order of bytes, so that a turn that is forgotten shows.
    store.put_responses(BASELINE, &[response(0, "zebra"), response(1, "ape")]).await.unwrap();
    let pair = Pair { id: "q/0-1".into(), prompt_id: "q".into(), a: "q/0".into(), b: "q/1".into() };
    store.put_pairs(TRAIN_PAIRS, std::slice::from_ref(&pair)).await.unwrap();
    let judged = Preference {
        pair_id: pair.id.clone(),
        prompt_id: "q".into(),
        p: Some(0.9),
        spread: None,
        fate: Fate::Kept,
        judges: vec!["judge".into()],
        explanation: None,
    };
    store.put_preferences(&[judged]).await.unwrap();
    pair
}

async fn say(store: &Store, reviewer: &str, choice: HumanChoice, at: i64) -> i64 {
    let criteria = BTreeMap::from([("clarity".to_string(), choice)]);
    let new = NewHumanVerdict {
        prompt: &PromptText::Text("What is q?".into()),
        a: "zebra",
        b: "ape",
        reviewer,
        queue: "audit",
        a_left: true,
        choice,
        criteria: &criteria,
        note: Some("stripes"),
        shown_ms: at - 5,
        judged_ms: at,
    };
    store.put_human_verdict(&new).await.unwrap()
}

#[tokio::test]
async fn people_come_before_judges_and_judges_stay() {
    let folder = Folder::new();
    let store = folder.open().await;
    let pair = labelled(&store).await;
    let (review, label) = Default::default();
    let over = |votes: BTreeMap<String, (Pair, rlaif_core::people::Votes)>| -> BTreeMap<String, Preference> {
        let of = |(id, (pair, votes))| Some((id, preference(&pair, &votes, &review, &label)?));
        votes.into_iter().filter_map(of).collect()
    };
    assert_eq!(store.human_votes(TRAIN_PAIRS).await.unwrap(), BTreeMap::new());

    say(&store, "ada", HumanChoice::Second, 10).await; // b: the ape
    let people = over(store.human_votes(TRAIN_PAIRS).await.unwrap());
    assert_eq!(people[&pair.id].p, Some(0.0));
    let pairs = store.preferred_pairs_over(TRAIN_PAIRS, &people).await.unwrap();
    assert_eq!((pairs[0].row.chosen.as_str(), pairs[0].row.p), ("ape", 1.0));
    assert_eq!(pairs[0].row.judges, ["human"]);
    assert_eq!(pairs[0].row.explanation.as_deref(), Some("stripes"));
    assert_eq!(store.preferred_pairs(TRAIN_PAIRS).await.unwrap()[0].row.chosen, "zebra");

    say(&store, "bob", HumanChoice::First, 20).await; // they disagree: a tie, which is no preference
    let people = over(store.human_votes(TRAIN_PAIRS).await.unwrap());
    assert_eq!(store.preferred_pairs_over(TRAIN_PAIRS, &people).await.unwrap(), []);
}

#[tokio::test]
async fn what_people_said_outlives_the_pair_and_comes_back_with_it() {
    let folder = Folder::new();
    let store = folder.open().await;
    let pair = labelled(&store).await;
    say(&store, "ada", HumanChoice::First, 10).await;
    store.clear_prompts().await.unwrap();
    assert_eq!(store.human_votes(TRAIN_PAIRS).await.unwrap(), BTreeMap::new());
    let (_copy, store) = folder.after_kill().await;
    let shown = store.reviewed_pairs().await.unwrap();
    let key = PairKey::of(&PromptText::Text("What is q?".into()), "zebra", "ape");
    assert_eq!((shown[&key.hash].first.as_str(), shown[&key.hash].second.as_str()), ("ape", "zebra"));
    labelled(&store).await;
    let votes = store.human_votes(TRAIN_PAIRS).await.unwrap();
    assert_eq!((votes[&pair.id].1.a, votes[&pair.id].1.n()), (1, 1));
}

#[tokio::test]
async fn undo_takes_the_newest_back_and_keeps_it() {
    let folder = Folder::new();
    let store = folder.open().await;
    labelled(&store).await;
    let first = say(&store, "ada", HumanChoice::First, 10).await;
    say(&store, "bob", HumanChoice::Tie, 15).await;
    let second = say(&store, "ada", HumanChoice::Second, 20).await; // takes the place of her first
    let undone = store.undo_human_verdict("ada", 30).await.unwrap().unwrap();
    assert_eq!((undone.id, undone.undone_ms, undone.choice), (second, Some(30), HumanChoice::First));
    assert!(!undone.first_left, "the ape stood on the right");
    assert_eq!(undone.criteria["clarity"], HumanChoice::First);
    assert_eq!(store.undo_human_verdict("ada", 40).await.unwrap(), None);
    let all = store.human_verdicts().await.unwrap();
    let undone: Vec<_> = all.iter().map(|v| (v.reviewer.as_str(), v.undone_ms)).collect();
    assert_eq!(undone, [("ada", Some(20)), ("bob", None), ("ada", Some(30))]);
    assert_eq!(all[0].id, first);
}
