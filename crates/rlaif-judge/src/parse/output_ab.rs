//! LLMBar's styles: "Output (a) is better.", as the first sentence, the last, or the whole answer.

use super::Parsed;
use super::text::{head, own_lines, regex, retracts, sentences, tail};
use regex::Regex;
use rlaif_core::records::Choice;
use std::sync::LazyLock;

/// How an output is named. Without parentheses the letter is a capital, so that "output a list" is none.
const NAME: &str = r#"(?i:outputs?|responses?|answers?)\s*(?:\(\s*(?P<p>[abAB])\s*\)|["']?(?P<c>[AB])\b)"#;

/// The same where "is better" follows: there, a small letter or the letter alone in parentheses is a name too.
const SUBJECT: &str = r#"(?:(?i:outputs?|responses?|answers?)\s*)?\(\s*(?P<p>[abAB])\s*\)|(?i:output|response|answer)\s*["']?(?P<c>[abAB])\b"#;

/// "Output (a) is clearly better", also "… is the better one".
static IS_BETTER: LazyLock<Regex> = LazyLock::new(|| {
    let adverbs =
        r"(?:(?:the|a|an|much|far|also|still|overall|thus|therefore|then|indeed|by\s+far|[a-z]+ly)\s+){0,4}";
    let better = r"(?:better|best|superior|preferable|preferred|winner)\b";
    regex(&format!(
        r#"(?:{SUBJECT})["']?,?\s+(?i:(?:is|was|would\s+be|seems|seems\s+to\s+be|appears\s+to\s+be)\s+(?P<how>{adverbs}){better}(?:\s+(?:output|response|answer|one|choice|option))?|wins\b)"#
    ))
});

/// "The better output is Output (a)", "I prefer Output (a)", "Verdict: Output (a)", "Winner: (b)".
static BETTER_IS: LazyLock<Regex> = LazyLock::new(|| {
    regex(&format!(
        r#"(?:(?i:\b(?:better|best|superior|preferred|winning)(?:\s+(?:output|response|answer|one|choice|option))?\s*(?:is|:|would\s+be)\s*:?\s*|\bi(?:'d|'ll)?\s+(?:would\s+|will\s+)?(?:prefer|choose|select|pick|favou?r|go\s+with)\s+|\b(?:verdict|decision|judge?ment|choice|winner|conclusion)\s*(?:is\s*)?:?\s*|\banswer\s*(?:is\s*:?|:)\s*)["'(\[]*(?:not\s+(?:output|response|answer)?\s*\(?[abAB]\)?,?\s+but\s+)?{NAME}|(?i:\b(?:verdict|decision|judge?ment|choice|winner|preferred|answer)\s*(?:is\s*:?|:)\s*)["'\[]*(?:\((?P<q>[abAB])\)|(?P<d>[AB])\b))"#
    ))
});

/// What a text without it cannot say in this style.
static NAMED: LazyLock<Regex> = LazyLock::new(|| {
    regex(
        r"(?i)output|response|answer|verdict|decision|judge?ment|choice|winner|preferred|\(\s*[ab]\s*\)|^\W*[ab]\W*$",
    )
});

/// The name alone.
static ONLY_NAME: LazyLock<Regex> = LazyLock::new(|| {
    regex(
        r#"^["'(\[]*(?:(?i:outputs?|responses?|answers?)\s*\(?\s*(?P<p>[abAB])\s*\)?|\((?P<c>[abAB])\))["')\]]*[.!]?$"#,
    )
});

/// The letter as the whole answer.
static ONLY_LETTER: LazyLock<Regex> = LazyLock::new(|| regex(r#"^["'(\[]*(?P<p>[abAB])["')\]]*[.!]?$"#));

/// What makes a clause no statement: "neither Output (a) nor …", "whether Output (a) is better", "it is not true that …", "the
/// response claims that …".
static UNSTATED: LazyLock<Regex> = LazyLock::new(|| {
    regex(
        r"(?i)\b(?:neither|nor|whether|if|unless|not|never|cannot|hard|difficult|unclear|either|false|incorrect|wrong|untrue|mistaken|disagree|nobody|might|initially|seemingly|claims?|says?|states?|asks?|tells?|told|instructs?|instructed|supposed|pretends?)\b|n't\b|\bat first\b|\b(?:one|some|you|people) (?:could|may|would)\b",
    )
});

/// A sentence that tells of a first impression.
static IMPRESSION: LazyLock<Regex> = LazyLock::new(|| {
    regex(r"(?i)^\W*(?:at first|at a glance|initially|on the surface|superficially|my first impression)\b")
});

/// Where a clause begins.
static CLAUSE: LazyLock<Regex> = LazyLock::new(|| {
    regex(r"(?i)[,;:\u{2014}\u{2013}]|\s-\s|\b(?:but|and|so|whereas|because|therefore|thus|hence)\b")
});

/// "While Output (a) is better …": conceded, not concluded.
static CONCEDED: LazyLock<Regex> =
    LazyLock::new(|| regex(r"(?i)\b(?:while|although|though|even if|despite)\b"));

/// "In terms of accuracy, Output (a) is better": in one respect, said before.
static RESPECT: LazyLock<Regex> = LazyLock::new(|| {
    regex(
        r"(?i)\b(?:in terms of|with (?:respect|regard) to|regarding|as for|when it comes to|from an? [\w ]{1,30} (?:perspective|standpoint|point of view))\b",
    )
});

/// "… is better at rhyming", "… in terms of detail": better in one respect.
static IN_ONE_RESPECT: LazyLock<Regex> = LazyLock::new(|| {
    regex(
        r"(?i)^\s+(?:at|in|for|on|with (?:respect|regard)|regarding|suited|structured|written|formatted|organi[sz]ed)\b",
    )
});

/// What sounds like one respect and is the whole task.
static IN_ALL: LazyLock<Regex> = LazyLock::new(|| {
    regex(
        r"(?i)^\s+(?:in (?:this (?:case|instance|scenario|situation)|my (?:opinion|view)|general|every|all)\b|for (?:this|the|the given|the user's) (?:instruction|task|prompt|question|request|query|case)\b|at (?:following|executing|fulfilling|answering|addressing) the (?:given )?(?:instruction|task|prompt|question|request|query))",
    )
});

/// "… is better if it is shortened": only then.
static CONDITIONAL: LazyLock<Regex> =
    LazyLock::new(|| regex(r"(?i)^,?\s+(?:if|when|unless|provided|had (?:it|the))\b"));

/// The other output that the better one is compared with.
static THAN: LazyLock<Regex> = LazyLock::new(|| {
    regex(r"(?i)^\s+than\s+(?:the\s+other(?:\s+(?:one|output))?|(?:output|response|answer)?\s*\(?[ab]\)?)")
});

/// How conclusions begin.
static CONCLUDES: LazyLock<Regex> = LazyLock::new(|| {
    regex(
        r"(?i)^\W*(?:therefore|thus|hence|so\b|overall|in conclusion|in summary|to conclude|to summari[sz]e|ultimately|as a result|consequently|accordingly|all in all|final|based on|considering|given|taking)|\b(?:final verdict|therefore)\b",
    )
});

/// A conclusion that neither is better; the style has no tie.
static EQUAL: LazyLock<Regex> = LazyLock::new(|| {
    regex(
        r"(?i)\bequally\s+(?:good|well|valid|strong|capable|effective|matched|bad|poor)|\bequal(?:ly)? in quality|\b(?:a|it's|is)\s+(?:tie|draw)\b|\bneither\b.{0,40}\bbetter\b|\bno\s+(?:clear\s+)?(?:winner|preference)\b|\bcannot\s+(?:decide|determine|choose)\b|\bdoesn't\s+matter\s+which\b",
    )
});

/// One statement that an output is better.
struct Statement {
    choice: Choice,
    /// In one respect only, or conceded.
    partial: bool,
    /// In a sentence that concludes.
    concludes: bool,
    /// Between quotation marks.
    quoted: bool,
    /// The sentence of the text it stands in.
    sentence: usize,
}

/// What opens or closes the text as the verdict, and every conclusion, must agree; without any, all statements must; those in
/// one respect count where there are no others. The style has no tie: "both are equally good" is no verdict.
pub(super) fn parse(text: &str) -> Parsed {
    if !NAMED.is_match(text) {
        return Parsed::unparsable("neither output is called better");
    }
    // A backtick quotes here, because names in backticks are what instructions are made of.
    let lines = own_lines(&text.replace('`', "\""));
    if let [line] = lines.as_slice()
        && let Some(found) = ONLY_LETTER.captures(line)
    {
        return found_for(named(&found), "as the whole answer");
    }
    let said: Vec<Vec<&str>> = lines.iter().map(|line| sentences(line)).collect();
    let opening = said.first().and_then(|line| line.first()).copied();
    let closing = said.last().and_then(|line| line.last()).copied();
    let mut named: Vec<Choice> = [opening, closing].into_iter().flatten().filter_map(only_name).collect();
    let said: Vec<&str> = said.into_iter().flatten().collect();
    let mut statements: Vec<Statement> =
        said.iter().enumerate().flat_map(|(at, sentence)| statements(sentence, at)).collect();
    if statements.iter().any(|s| !s.quoted) {
        statements.retain(|s| !s.quoted);
    }
    // What a later conclusion follows on, "Wait, …" takes back.
    if let Some(at) = said.iter().rposition(|sentence| retracts(sentence))
        && statements.iter().any(|s| s.sentence >= at && s.concludes && !s.partial)
    {
        statements.retain(|s| s.sentence >= at);
        named = closing.into_iter().filter_map(only_name).collect();
    }
    // An opening statement stands beside a conclusion; without one it is a statement like the others.
    let concluded = statements.iter().any(|s| s.concludes && !s.partial);
    let mut decided = pick(&statements, |s| concluded && !s.partial && (s.concludes || s.sentence == 0));
    let equal = said.iter().rposition(|sentence| CONCLUDES.is_match(sentence) && EQUAL.is_match(sentence));
    if let Some(at) = equal
        && named.is_empty()
        && !statements.iter().any(|s| s.sentence >= at && !s.partial)
    {
        return Parsed::unparsable("the conclusion calls both outputs equal, and the style has no tie");
    }
    let any = |partial| pick(&statements, |s| s.partial == partial);
    let is_named = !named.is_empty();
    if is_named {
        decided.extend(any(false));
    }
    let tiers = [
        (if is_named { "as the whole line" } else { "in the conclusion" }, [named, decided].concat()),
        ("stated", any(false)),
        ("in the conclusion, in one respect", pick(&statements, |s| s.concludes && s.partial)),
        ("stated, in one respect", any(true)),
    ];
    for (how, choices) in &tiers {
        let Some(first) = choices.first() else { continue };
        if choices.iter().any(|choice| choice != first) {
            return Parsed::ambiguous(format!("both outputs are called better, {how}"));
        }
        return found_for(*first, how);
    }
    Parsed::unparsable("neither output is called better")
}

fn found_for(choice: Choice, how: &str) -> Parsed {
    let name = if choice == Choice::First { "(a)" } else { "(b)" };
    Parsed::found(choice, format!("Output {name} is better, {how}"))
}

fn pick(statements: &[Statement], test: impl Fn(&Statement) -> bool) -> Vec<Choice> {
    statements.iter().filter(|s| test(s)).map(|s| s.choice).collect()
}

fn only_name(sentence: &str) -> Option<Choice> {
    ONLY_NAME.captures(sentence.trim()).map(|found| named(&found))
}

fn named(found: &regex::Captures<'_>) -> Choice {
    let letter = ["p", "c", "q", "d"].iter().find_map(|name| found.name(name)).map_or("", |m| m.as_str());
    if letter.eq_ignore_ascii_case("a") { Choice::First } else { Choice::Second }
}

fn statements(sentence: &str, at: usize) -> Vec<Statement> {
    let mut found = Vec::new();
    if sentence.trim_end().trim_end_matches(['"', ')']).ends_with('?') || IMPRESSION.is_match(sentence) {
        return found;
    }
    let concludes = CONCLUDES.is_match(sentence);
    let last_quote = sentence.rfind('"').unwrap_or(0);
    for pattern in [&*IS_BETTER, &*BETTER_IS] {
        let mut quotes = 0;
        let mut end = 0;
        for captures in pattern.captures_iter(sentence) {
            let Some(whole) = captures.get(0) else { continue };
            quotes += sentence[end..whole.start()].matches('"').count();
            let inside = sentence[whole.start()..whole.end()].matches('"').count();
            let quoted = quotes % 2 == 1 && last_quote >= whole.end();
            quotes += inside;
            end = whole.end();
            let before = tail(&sentence[..whole.start()]);
            let clause = CLAUSE.find_iter(before).last().map_or(before, |split| &before[split.end()..]);
            let after = head(&sentence[whole.end()..]);
            let after = THAN.find(after).map_or(after, |than| &after[than.end()..]);
            let hardly = captures.name("how").is_some_and(|how| {
                let how = how.as_str().to_lowercase();
                ["hardly", "scarcely", "supposedly", "allegedly"].iter().any(|word| how.contains(word))
            });
            if hardly || UNSTATED.is_match(clause) || CONDITIONAL.is_match(after) || after.starts_with("'s") {
                continue;
            }
            let one_respect = IN_ONE_RESPECT.is_match(after) && !IN_ALL.is_match(after);
            let said_before = before.trim_end().strip_suffix(',').is_some_and(|before| {
                let start = before.rfind([',', ';']).map_or(0, |at| at + 1);
                RESPECT.is_match(&before[start..])
            });
            let partial = one_respect || said_before || CONCEDED.is_match(clause) || RESPECT.is_match(clause);
            found.push(Statement { choice: named(&captures), partial, concludes, quoted, sentence: at });
        }
    }
    found
}
