use super::*;
use crate::records::{Message, NoVerdict};
use Destination::{Both, Judges, People};
use rand::RngExt;

fn prompt(text: &str, tags: &[&str]) -> Prompt {
    let tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
    Prompt { id: "p".into(), prompt: PromptText::Text(text.into()), tags, reference: None }
}

fn key(i: usize) -> PairKey {
    PairKey::of(&PromptText::Text("p".into()), &format!("a {i}"), "b")
}

fn rule(to: Destination, narrow: impl FnOnce(&mut RouteRule)) -> RouteRule {
    let mut rule = RouteRule::to(to);
    narrow(&mut rule);
    rule
}

fn tagged(to: Destination, tag: &str) -> RouteRule {
    rule(to, |rule| rule.tags = vec![tag.into()])
}

fn worded(to: Destination, words: &[&str]) -> RouteRule {
    rule(to, |rule| rule.words = words.iter().map(|word| (*word).to_owned()).collect())
}

fn unsure(to: Destination) -> RouteRule {
    rule(to, |rule| rule.margin_below = Some(0.1))
}

fn config(rules: Vec<RouteRule>) -> RouteConfig {
    RouteConfig { rules, ..RouteConfig::default() }
}

fn heard(p: f64) -> Heard {
    Heard { p: Some(p), ..Heard::default() }
}

/// Where a pair goes once judges said p, and whether they had to be asked.
fn goes(config: &RouteConfig, prompt: &Prompt, p: f64) -> (Destination, Why, bool) {
    let router = Router::new(config, 7, config.random_share);
    let spared = router.spares_judges(prompt, &key(0));
    let heard = if spared.is_some() { Heard::default() } else { heard(p) };
    let route = router.route(prompt, &key(0), &heard);
    if let Some(spared) = &spared {
        assert_eq!(*spared, route, "what was known before is what is said after");
        assert!(route.needs_people);
    }
    (route.to, route.why, spared.is_none())
}

#[test]
fn the_first_rule_that_matches_wins_and_none_means_judges() {
    let config =
        config(vec![tagged(Judges, "math"), worded(People, &["dose"]), tagged(Both, "chat"), unsure(People)]);
    let table = [
        ("What dose?", &["math"][..], 0.5, (Judges, Why::Rule(0), true)),
        ("What dose?", &[], 0.9, (People, Why::Rule(1), false)),
        ("What dose?", &["chat"], 0.9, (People, Why::Rule(1), false)),
        ("What?", &["chat"], 0.5, (Both, Why::Rule(2), true)),
        ("What?", &[], 0.55, (People, Why::Rule(3), true)),
        ("What?", &[], 0.9, (Judges, Why::Default, true)),
    ];
    for (text, tags, p, want) in table {
        assert_eq!(goes(&config, &prompt(text, tags), p), want, "{text} {tags:?} {p}");
    }
    assert_eq!(goes(&RouteConfig::default(), &prompt("What?", &[]), 0.5), (Judges, Why::Default, true));
}

#[test]
fn everything_that_a_rule_gives_must_hold() {
    let both = rule(People, |rule| {
        rule.tags = vec!["law".into(), "medical".into()];
        rule.words = vec!["dose".into(), "court".into()];
    });
    let config = config(vec![both]);
    let to = |text: &str, tags: &[&str]| goes(&config, &prompt(text, tags), 0.9).0;
    assert_eq!(to("Which court?", &["medical"]), People, "one of the tags and one of the words");
    assert_eq!(to("Which court?", &["chat"]), Judges);
    assert_eq!(to("Which?", &["medical"]), Judges);
}

/// A rule on judges in front of others: they are spared only where it does not matter what they would say.
#[test]
fn judges_are_spared_only_where_their_word_moves_nothing() {
    let table = [
        (vec![unsure(People), worded(People, &["dose"])], false),
        (vec![unsure(Both), worded(People, &["dose"])], true),
        (vec![unsure(Judges), worded(People, &["dose"])], true),
        (vec![unsure(People), worded(Both, &["dose"])], true),
        (vec![unsure(People)], true),
        (vec![worded(People, &["dose"]), unsure(Judges)], false),
    ];
    for (rules, asked) in table {
        let config = config(rules);
        assert_eq!(goes(&config, &prompt("What dose?", &[]), 0.9).2, asked, "{config:?}");
    }
    let expert = RouteConfig { expert_tags: vec!["medical".into()], ..config(vec![unsure(Judges)]) };
    assert!(!goes(&expert, &prompt("What?", &["medical"]), 0.9).2, "whatever they say, people label it");
}

#[test]
fn an_expert_tag_never_leaves_a_pair_to_judges_alone() {
    let every = [
        vec![],
        vec![tagged(Judges, "medical")],
        vec![tagged(Both, "medical")],
        vec![tagged(People, "medical")],
        vec![unsure(Judges)],
        vec![unsure(Both)],
    ];
    for rules in every {
        for random_share in [0.0, 1.0] {
            let expert_tags = vec!["medical".into()];
            let config = RouteConfig { expert_tags, random_share, ..config(rules.clone()) };
            let router = Router::new(&config, 7, random_share);
            for heard in [heard(0.5), heard(0.99), Heard::default()] {
                let route = router.route(&prompt("What?", &["chat", "medical"]), &key(0), &heard);
                assert!(route.needs_people && route.to != Judges, "{config:?} {route:?}");
            }
        }
    }
    let config = RouteConfig { expert_tags: vec!["medical".into()], ..config(vec![tagged(Both, "medical")]) };
    let (to, why, asked) = goes(&config, &prompt("What?", &["medical"]), 0.9);
    assert_eq!((to, why, asked), (Both, Why::Expert("medical".into()), true), "to measure judges by");
    assert_eq!(goes(&config, &prompt("What?", &[]), 0.9).0, Judges);
}

#[test]
fn words_are_whole_and_in_any_case_and_script() {
    let table = [
        ("dose", "What DOSE is safe?", true),
        ("dose", "Overdose, doses, dosed", false),
        ("chest pain", "I have chest  pain.", true),
        ("chest pain", "pain in the chest", false),
        ("covid-19", "Is Covid 19 over?", true),
        ("19", "covid19", false),
        ("ÄRZTE", "die ärzte sagen", true),
        ("don't", "I don't know", true),
        ("薬", "この薬は安全ですか", true),
        ("the system", "the\nsystem", true),
    ];
    for (word, text, want) in table {
        let config = config(vec![worded(People, &[word])]);
        let got = goes(&config, &prompt(text, &[]), 0.9).0 == People;
        assert_eq!(got, want, "{word} in {text}");
    }
    let turns = vec![Message::system("Answer."), Message::user("Hi")];
    let chat = Prompt { prompt: PromptText::Messages(turns), ..prompt("", &[]) };
    let to = |word: &str| goes(&config(vec![worded(People, &[word])]), &chat, 0.9).0;
    assert_eq!((to("answer"), to("hi"), to("user"), to("system")), (People, People, Judges, Judges));
}

#[test]
fn what_judges_did_not_say_matches_nothing() {
    let nothing = Heard::default();
    let with = |narrow: fn(&mut RouteRule)| rule(People, narrow);
    let mut rated = Heard::default();
    rated.lowest_rating.insert("guard".into(), 4.0);
    let divided = Heard { for_a: true, for_b: true, spread: Some(0.3), ..Heard::default() };
    let one_sided = Heard { for_a: true, spread: Some(0.2), ..Heard::default() };
    type Case<'a> = (fn(&mut RouteRule), &'a Heard, &'a Heard);
    let table: [Case<'_>; 5] = [
        (|rule| rule.unsafe_by = Some("guard".into()), &rated, &divided),
        (|rule| rule.disagree = true, &divided, &one_sided),
        (|rule| rule.spread_above = Some(0.2), &divided, &one_sided),
        (|rule| rule.margin_below = Some(0.1), &heard(0.45), &heard(0.39)),
        (|rule| (rule.unsafe_by, rule.unsafe_below) = (Some("guard".into()), Some(4.5)), &rated, &divided),
    ];
    for (narrow, yes, no) in table {
        let config = config(vec![with(narrow)]);
        let router = Router::new(&config, 7, 0.0);
        let to = |heard: &Heard| router.route(&prompt("What?", &[]), &key(0), heard).to;
        assert_eq!((to(yes), to(no), to(&nothing)), (People, Judges, Judges), "{:?}", config.rules);
    }
    let config = config(vec![rule(People, |rule| {
        (rule.unsafe_by, rule.unsafe_below) = (Some("guard".into()), Some(4.0));
    })]);
    let to = Router::new(&config, 7, 0.0).route(&prompt("What?", &[]), &key(0), &rated).to;
    assert_eq!(to, Judges, "4 is not below 4");
}

#[test]
fn what_is_heard_is_turned_to_the_responses() {
    let mut heard = Heard::default();
    heard.hear("one", true, Order::Ba, &Verdict::choice(Choice::First));
    assert!(heard.for_b && !heard.for_a, "b stood first");
    heard.hear("one", true, Order::Ab, &Verdict::choice(Choice::Tie));
    heard.hear("one", true, Order::Ab, &Verdict::none(NoVerdict::Refused));
    let rated =
        Verdict { scores: BTreeMap::from([("rating".into(), (8.0, 3.0))]), ..Verdict::choice(Choice::First) };
    heard.hear("guard", false, Order::Ab, &rated);
    assert!(!heard.for_a, "a judge that does not vote contradicts nobody");
    assert_eq!(heard.lowest_rating["guard"], 3.0);
}

#[test]
fn a_random_share_is_stable_and_a_larger_one_holds_it() {
    let drawn = |seed, share: f64| -> Vec<usize> {
        let config = RouteConfig { random_share: share, ..RouteConfig::default() };
        let router = Router::new(&config, seed, share);
        let is_drawn =
            |i: &usize| router.route(&prompt("What?", &[]), &key(*i), &Heard::default()).to == Both;
        (0..4000).filter(is_drawn).collect()
    };
    let (tenth, fifth) = (drawn(7, 0.1), drawn(7, 0.2));
    assert!((330..470).contains(&tenth.len()), "{}", tenth.len());
    assert!(tenth.iter().all(|i| fifth.contains(i)) && fifth.len() > tenth.len());
    assert_eq!(drawn(7, 0.1), tenth);
    assert_ne!(drawn(8, 0.1), tenth);
    assert_eq!((drawn(7, 0.0).len(), drawn(7, 1.0).len()), (0, 4000));

    // The share of a rule is another draw, and spares judges where it sends to people.
    let config = config(vec![rule(People, |rule| rule.random_share = Some(0.1))]);
    let router = Router::new(&config, 7, 0.0);
    let spared: Vec<usize> =
        (0..4000).filter(|i| router.spares_judges(&prompt("What?", &[]), &key(*i)).is_some()).collect();
    assert!((330..470).contains(&spared.len()) && spared != tenth, "{}", spared.len());
}

#[test]
fn reasons_tell_nothing_of_what_judges_said() {
    let divided = rule(Both, |rule| {
        (rule.name, rule.disagree, rule.tags) = (Some("a beats b".into()), true, vec!["chat".into()]);
    });
    let config = RouteConfig {
        expert_tags: vec!["medical".into()],
        ..config(vec![divided, worded(People, &["what  dose"]), unsure(Both)])
    };
    let router = Router::new(&config, 7, 0.0);
    let prompt = prompt("What dose?", &["chat", "medical"]);
    let reason = |why| router.reason(&why, &prompt);
    assert_eq!(reason(Why::Rule(0)), "tag “chat”, a rule on what judges said, which is not shown");
    assert_eq!(reason(Why::Rule(1)), "“what  dose” in the prompt");
    assert_eq!(reason(Why::Rule(2)), "a rule on what judges said, which is not shown");
    assert_eq!(reason(Why::Expert("medical".into())), "tag “medical”");
    assert_eq!(reason(Why::Random), "drawn at random");
    let names = [Why::Rule(0), Why::Rule(1), Why::Random].map(|why| router.name(&why));
    assert_eq!(names, ["a beats b", "rule 2", "random share"]);
}

/// A judge that is exactly good enough is rarely met with more people, one that is a coin mostly on the first look.
#[test]
fn a_rise_takes_evidence() {
    let raised = |agreement: f64, size: usize| -> usize {
        let of = |experiment: &u64| {
            let mut random = seed::stream(*experiment, "test", 0);
            let prompts: Vec<String> = (0..size).map(|i| i.to_string()).collect();
            let agrees: Vec<(&str, bool)> =
                prompts.iter().map(|prompt| (prompt.as_str(), random.random::<f64>() < agreement)).collect();
            look(&agrees, 0.8, *experiment).is_some_and(|look| look.below)
        };
        (0..300).filter(of).count()
    };
    let (first, second) = (raised(0.8, FIRST_LOOK), raised(0.8, 2 * FIRST_LOOK));
    assert!(first <= 15 && second <= 15, "{first} and {second} of 300, which is more than 5 %");
    let coin = raised(0.5, FIRST_LOOK);
    assert!(coin >= 200, "{coin} of 300");
}

/// So many pairs, each of a prompt of its own, of which every `one_in`-th is one on which people and judges differ.
fn agreeing(prompts: &[String], one_in: usize) -> Vec<(&str, bool)> {
    prompts.iter().enumerate().map(|(i, prompt)| (prompt.as_str(), i % one_in != 0)).collect()
}

#[test]
fn the_share_doubles_for_each_look_below_the_bound_and_never_falls() {
    let prompts: Vec<String> = (0..200).map(|i| format!("p{i:03}")).collect();
    let config = RouteConfig { random_share: 0.1, max_share: 0.5, ..RouteConfig::default() };
    let share_of = |agrees: &[(&str, bool)]| share(&config, &looks(agrees, 0.8, 7));
    let (bad, good) = (agreeing(&prompts, 2), agreeing(&prompts, 20));
    assert_eq!(share_of(&bad[..19]), 0.1, "too few to look");
    assert_eq!(share_of(&bad[..20]), 0.2);
    assert_eq!(share_of(&bad[..79]), 0.4);
    assert_eq!(share_of(&bad[..80]), 0.5, "no more than `route.max_share`");
    assert_eq!(share_of(&good), 0.1);
    let sizes: Vec<usize> = looks(&good, 0.8, 7).iter().map(|look| look.n).collect();
    assert_eq!(sizes, [20, 40, 80, 160]);

    // Better and better agreement takes nothing back.
    let mixed = [&bad[..20], &good[20..]].concat();
    let shares: Vec<f64> = (0..=mixed.len()).map(|n| share_of(&mixed[..n])).collect();
    assert!(shares.is_sorted() && *shares.last().unwrap() == 0.2, "{shares:?}");
    assert!(!looks(&mixed, 0.8, 7)[3].below);

    // 15 of 20 is below 0.8 and might be chance: the upper end is what counts.
    let chance = agreeing(&prompts, 4);
    let first = looks(&chance, 0.8, 7)[0];
    assert_eq!(first.agreement.estimate, 0.75);
    assert!(first.agreement.high > 0.8 && !first.below);
    let one_prompt: Vec<(&str, bool)> = (0..20).map(|_| ("p", false)).collect();
    assert_eq!(looks(&one_prompt, 0.8, 7), [], "one prompt says nothing of others");
}
