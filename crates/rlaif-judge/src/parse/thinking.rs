//! Thinking: what a judge writes before its answer, between marks.

use super::text::regex;
use regex::Regex;
use std::sync::LazyLock;

/// Opening and closing marks: DeepSeek, Qwen and most others; Mistral; Kimi; Seed; the channels of gpt-oss.
static MARKS: LazyLock<Regex> = LazyLock::new(|| {
    const NAMES: &str = "(?:think|thinking|thought|thoughts|reasoning|scratchpad|seed:think)";
    regex(&format!(
        r"(?i)(?P<open>(?:<|&lt;)\s*{NAMES}\s*(?:>|&gt;)|\[THINK\]|◁think▷|<\|channel\|>\s*(?:analysis|commentary)\s*<\|message\|>)|(?P<close>(?:<|&lt;)\s*/\s*{NAMES}\s*(?:>|&gt;)|\[/THINK\]|◁/think▷|<\|channel\|>\s*final\s*<\|message\|>)"
    ))
});

/// Removes thinking, and says whether the text ends inside it. A block ends at the next closing mark; a closing mark without an
/// opening one ends thinking that began before the text did (templates often put the opening mark into the prompt); an opening
/// one without a closing one never ends. Outside thinking a mark in backticks is only talked about.
pub(super) fn without(text: &str) -> (String, bool) {
    let mut kept = String::with_capacity(text.len());
    let mut at = 0;
    let mut thinking = false;
    for mark in MARKS.captures_iter(text) {
        let Some(whole) = mark.get(0) else { continue };
        let talked_about = text[..whole.start()].ends_with('`') && text[whole.end()..].starts_with('`');
        match (thinking, mark.name("open").is_some()) {
            (false, _) if talked_about => continue,
            (false, true) => {
                kept.push_str(&text[at..whole.start()]);
                kept.push('\n');
                thinking = true;
            }
            (false, false) => kept.clear(),
            (true, true) => {}
            (true, false) => thinking = false,
        }
        at = whole.end();
    }
    if !thinking {
        kept.push_str(&text[at..]);
    }
    (kept, thinking)
}
