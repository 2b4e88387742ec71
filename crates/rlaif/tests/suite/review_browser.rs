//! `rlaif review` in real headless Chromium; skipped with a printed line where there is none.

use crate::chromium::Browser;
use crate::review_lab::{Server, lab_of, verdicts};
use rlaif_core::people::HumanChoice;
use std::collections::BTreeSet;

/// Opens the printed address and says who sits there.
fn sign_in(browser: &mut Browser, server: &Server, name: &str) {
    browser.open(&format!("http://{}{}", server.host, server.start));
    browser.until("location.pathname === '/name'");
    browser.until("document.getElementById('name') !== null");
    browser.value(&format!(
        "document.getElementById('name').value = '{name}'; document.querySelector('button.main').click()"
    ));
    browser.until("location.pathname === '/' && document.querySelector('.queues') !== null");
}

fn open_queue(browser: &mut Browser, server: &Server, queue: &str) {
    browser.open(&format!("http://{}/pair?queue={queue}", server.host));
    browser.until("document.querySelector('[name=pair]') !== null && document.readyState === 'complete'");
}

/// Presses a key and waits for the next page.
fn judge(browser: &mut Browser, key: &str) {
    browser.value("window.here = true");
    browser.press(key);
    browser.until("window.here === undefined && document.readyState === 'complete'");
}

/// Every request that the browser made for a page, but to the server.
fn strangers(browser: &Browser, server: &Server) -> Vec<String> {
    let own = format!("http://{}/", server.host);
    let sent = browser.events.iter().filter(|event| event["method"] == "Network.requestWillBeSent");
    let urls = sent.filter_map(|event| event["params"]["request"]["url"].as_str().map(String::from));
    urls.filter(|url| !url.starts_with(&own) && url != "about:blank").collect()
}

#[test]
fn a_session_is_held_by_keyboard_alone() {
    let Some(mut browser) = Browser::start() else { return };
    let texts: Vec<(String, String)> = (0..6)
        .map(|i| {
            (
                format!("Answer *a{i}*\n\n1. one\n2. two\n\n`x = {i}`"),
                format!("Reply **b{i}**, longer than the other one\n\n> quoted"),
            )
        })
        .collect();
    let texts: Vec<(&str, &str)> = texts.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    let lab = lab_of(&texts);
    let server = Server::of(&lab, &[]);
    sign_in(&mut browser, &server, "ada");
    open_queue(&mut browser, &server, "all");
    browser.shots("review");
    browser.press("d");
    browser.until(
        "document.querySelector('details.diff').open && document.querySelectorAll('.diff mark').length > 0",
    );
    judge(&mut browser, "ArrowLeft");
    browser.press("n");
    browser.press("t"); // into the note, and no verdict
    browser.until("document.querySelector('textarea').value === 't'");
    browser.press("Escape");
    for key in ["ArrowRight", "t", "s", "u", "t"] {
        judge(&mut browser, key);
    }
    let said = verdicts(&lab);
    let left = |verdict: &rlaif_store::store::HumanVerdict| match verdict.choice {
        HumanChoice::First => {
            if verdict.first_left {
                "left"
            } else {
                "right"
            }
        }
        HumanChoice::Second => {
            if verdict.first_left {
                "right"
            } else {
                "left"
            }
        }
        HumanChoice::Tie => "tie",
        HumanChoice::Skip => "skip",
    };
    let words: Vec<(&str, bool)> = said.iter().map(|v| (left(v), v.undone_ms.is_none())).collect();
    assert_eq!(words, [("left", true), ("right", true), ("tie", true), ("skip", false), ("tie", true)]);
    assert_eq!(said[1].note.as_deref(), Some("t"));
    assert_eq!(strangers(&browser, &server), Vec::<String>::new());
}

/// 150 ways in which a response could run or load something: every carrier with every way out.
pub fn payloads() -> Vec<String> {
    let run = [
        "window.pwned=1",
        "alert(1)",
        "top['pwned']=1",
        "fetch('http://198.51.100.9/x')",
        "document.body.pwned=window.pwned=1",
    ];
    let carriers = [
        "<script>RUN</script>",
        "<ScRiPt >RUN</sCrIpT>",
        "</div></article><script>RUN</script>",
        "<img src=x onerror=\"RUN\">",
        "<img src=http://198.51.100.9/i.png onload=\"RUN\">",
        "<svg onload=\"RUN\">",
        "<svg><script>RUN</script></svg>",
        "<iframe srcdoc=\"<script>parent.RUN</script>\"></iframe>",
        "<iframe src=\"javascript:RUN\"></iframe>",
        "<body onload=\"RUN\">",
        "<input autofocus onfocus=\"RUN\">",
        "<details open ontoggle=\"RUN\"><summary>x</summary></details>",
        "<video><source onerror=\"RUN\"></video>",
        "<object data=\"javascript:RUN\"></object>",
        "<embed src=\"javascript:RUN\">",
        "<meta http-equiv=refresh content=\"0; url=javascript:RUN\">",
        "<base href=\"http://198.51.100.9/\"><a href=x>RUN</a>",
        "<link rel=stylesheet href=\"http://198.51.100.9/s.css\" onload=\"RUN\">",
        "<style>@import 'http://198.51.100.9/s.css';</style>RUN",
        "<form action=\"javascript:RUN\"><button autofocus>x</button></form>",
        "<math><mtext><table><mglyph><style><img src=x onerror=\"RUN\">",
        "[x](javascript:RUN)",
        "![x](http://198.51.100.9/i.png \"\\\" onerror=\\\"RUN\")",
        "![x\" onerror=\"RUN](x)",
        "<http://198.51.100.9/x>\n\n```html\n</code></pre><script>RUN</script>\n```",
        "`</code><script>RUN</script>`",
        "| a |\n|---|\n| <img src=x onerror=RUN> |",
        "<!--><script>RUN</script>-->",
        "\u{202e}<script>RUN</script>\u{0}",
        "</textarea></title></style></script><script>RUN</script>",
    ];
    carriers.iter().flat_map(|carrier| run.map(|run| carrier.replace("RUN", run))).collect()
}

#[test]
fn responses_run_nothing_and_load_nothing() {
    let Some(mut browser) = Browser::start() else { return };
    let payloads = payloads();
    assert_eq!(payloads.iter().collect::<BTreeSet<_>>().len(), 150);
    // Two payloads a pair, one on each side.
    let pairs: Vec<(&str, &str)> = payloads.chunks(2).map(|two| (two[0].as_str(), two[1].as_str())).collect();
    let lab = lab_of(&pairs);
    let server = Server::of(&lab, &[]);
    sign_in(&mut browser, &server, "ada");
    open_queue(&mut browser, &server, "all");
    for seen in 0..pairs.len() {
        browser.press("d");
        let clean = "window.pwned === undefined && document.body.pwned === undefined && \
            document.querySelectorAll('article *, .diff *, .prompt *').length > 0 && \
            document.querySelectorAll('article script, article img, article iframe, article svg, article a, article [onerror], \
                .diff script, .diff img, .diff [onload], main base, main meta, main link, main style').length === 0 && \
            document.scripts.length === 1";
        assert_eq!(
            browser.value(clean),
            true,
            "pair {seen}: {}",
            browser.value("document.querySelector('.sides').innerHTML")
        );
        judge(&mut browser, "t");
    }
    browser.until("document.body.innerText.includes('Nothing left for you here')");
    assert_eq!(verdicts(&lab).len(), pairs.len());
    assert_eq!(strangers(&browser, &server), Vec::<String>::new());
    let told = |method: &str| browser.events.iter().filter(|event| event["method"] == method).count();
    assert_eq!(told("Page.javascriptDialogOpening"), 0);
    let reports = browser.events.iter().filter(|event| {
        event["params"]["request"]["url"].as_str().is_some_and(|url| url.ends_with("/csp-report"))
    });
    assert_eq!(reports.count(), 0, "the policy had nothing to stop");
}
