//! `report.html` in real headless Chromium; skipped with a printed line where there is none.

use crate::chromium::Browser;
use crate::common::Lab;
use crate::report::people_contradict;
use crate::review_browser::payloads;
use crate::review_lab::lab_of;
use serde_json::{Value, json};

fn open(browser: &mut Browser, lab: &Lab, file: &str) {
    browser.events.clear();
    browser.open(&format!("file://{}", lab.path(file).display()));
    browser.until("document.querySelector('footer') !== null");
}

/// Everything that the browser was asked to fetch but the page itself, and what its policy stopped.
fn strangers(browser: &Browser, file: &str) -> Vec<String> {
    let of = |method: &'static str| browser.events.iter().filter(move |event| event["method"] == method);
    let sent = of("Network.requestWillBeSent").filter_map(|event| event["params"]["request"]["url"].as_str());
    let stopped = of("Log.entryAdded").filter_map(|event| event["params"]["entry"]["text"].as_str());
    let own = |url: &&str| !url.ends_with(file) && *url != "data:," && *url != "about:blank";
    let dialogs = of("Page.javascriptDialogOpening").map(|_| "a dialog");
    sent.filter(own).chain(stopped).chain(dialogs).map(String::from).collect()
}

#[test]
fn texts_of_models_and_people_run_nothing_and_load_nothing() {
    let Some(mut browser) = Browser::start() else { return };
    let payloads = payloads();
    let pairs: Vec<(&str, &str)> = payloads.chunks(2).map(|two| (two[0].as_str(), two[1].as_str())).collect();
    let lab = lab_of(&pairs);
    let all = payloads.concat();
    let divided = people_contradict(&lab.run_folder(), &all, pairs.len());
    assert_eq!(divided, pairs.len());
    let samples: Vec<Value> = payloads
        .iter()
        .map(|text| {
            let said = |policy: &str| json!({ "policy": policy, "text": text, "ended": true, "p_beats_baseline": 0.7 });
            json!({ "prompt_id": text, "prompt": text, "responses": [said("baseline"), said(text)] })
        })
        .collect();
    let rate = json!({ "value": 0.7, "low": 0.6, "high": 0.8, "n": 24 });
    let evaluation = json!({
        "prompts": 24, "samples_per_prompt": 1, "judges": payloads, "samples": samples,
        "policies": payloads.iter().map(|text| json!({ "policy": text, "win_rate": rate })).collect::<Vec<_>>(),
        "comparisons": payloads.iter().map(|text| json!({
            "policy": text, "other": text, "conclusion": { "finding": "better", "sentence": text },
            "by_tag": [{ "name": text, "win_rate": rate }], "by_judge": [{ "judge": text, "win_rate": rate }],
        })).collect::<Vec<_>>(),
    });
    lab.write("runs/tiny/evaluation.json", &evaluation.to_string());
    lab.done(&["report", "rlaif.toml"]);
    open(&mut browser, &lab, "runs/tiny/report.html");
    for look in [
        "window.pwned === undefined && document.body.pwned === undefined",
        "document.scripts.length === 1 && document.querySelectorAll('style').length === 1",
        "document.querySelectorAll('#samples .answer').length === 300",
        "document.querySelectorAll('#disagreements .answer').length === 150",
        "document.querySelectorAll('img, iframe, object, embed, video, base, math, body link, body meta, body style, form[action]').length === 0",
        "Array.from(document.querySelectorAll('a')).every((a) => a.getAttribute('href').startsWith('#'))",
        "Array.from(document.querySelectorAll('*')).every((one) => one.getAttributeNames().every((name) => !name.startsWith('on')))",
        "document.querySelectorAll('svg script, svg foreignObject, svg image, svg a').length === 0",
    ] {
        assert_eq!(browser.value(look), true, "{look}");
    }
    browser.value("document.querySelectorAll('details').forEach((one) => { one.open = true; })");
    browser.value("document.querySelectorAll('.hit').forEach((one) => one.dispatchEvent(new PointerEvent('pointerover', { bubbles: true })))");
    assert_eq!(browser.value("window.pwned === undefined && document.body.pwned === undefined"), true);
    assert_eq!(strangers(&browser, "report.html"), Vec::<String>::new());
}

#[test]
fn a_run_is_read_by_pointer_filter_phone_and_paper() {
    let Some(mut browser) = Browser::start() else { return };
    let lab = Lab::new();
    lab.done(&["run", "rlaif.toml", "--until", "label"]);
    people_contradict(&lab.run_folder(), "not so", 6);
    lab.done(&["run", "rlaif.toml"]);
    lab.done(&["run", "rlaif.toml", "--set", "run.name=other", "--set", "dpo.beta=0.3"]);
    lab.done(&["report", "rlaif.toml", "--compare", "runs/other"]);
    open(&mut browser, &lab, "runs/tiny/report.html");
    browser.shots("report");

    // Values under the pointer: a title that takes no script, and the line below the picture.
    assert_eq!(browser.value("document.querySelectorAll('#training .hit > title').length > 10"), true);
    browser.value(
        "window.figure = Array.from(document.querySelectorAll('#training figure')).at(-1); \
         figure.querySelector('.hit').dispatchEvent(new PointerEvent('pointerover', { bubbles: true }))",
    );
    browser.until("figure.querySelector('.source').textContent.startsWith('step 1 · ')");
    browser.value("figure.dispatchEvent(new PointerEvent('pointerleave'))");
    browser.until("figure.querySelector('.source').textContent.endsWith('.jsonl')");

    // The list narrows by outcome, and by words.
    let shown = "document.querySelectorAll('#samples .list > details:not([hidden])').length";
    assert_eq!(
        browser.value(&format!("{shown} === 4 && !document.querySelector('#samples .filters').hidden")),
        true
    );
    browser.value(
        "window.field = document.querySelector('#samples [name=words]'); field.value = 'Tell 3'; \
         field.dispatchEvent(new InputEvent('input', { bubbles: true }))",
    );
    browser.until(&format!(
        "{shown} === 1 && document.querySelector('#samples output').textContent === '1 of 4'"
    ));

    for file in ["runs/tiny/report.html", "runs/tiny/compare.html"] {
        open(&mut browser, &lab, file);
        // A phone: nothing is wider than the screen but what scrolls by itself.
        let phone = json!({ "width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": true });
        browser.call("Emulation.setDeviceMetricsOverride", phone);
        browser.until("document.documentElement.scrollWidth <= 390");
        browser.call("Emulation.clearDeviceMetricsOverride", json!({}));
        // Paper: what prints is open, and the config is not there.
        let pdf = browser.call("Page.printToPDF", json!({ "printBackground": true }));
        assert!(pdf["data"].as_str().unwrap().len() > 20_000, "{file}");
        if let Some(folder) = std::env::var_os("RLAIF_SCREENSHOTS") {
            let name = file.rsplit('/').next().unwrap().replace(".html", ".pdf.base64");
            std::fs::write(std::path::Path::new(&folder).join(name), pdf["data"].as_str().unwrap()).unwrap();
        }
        assert_eq!(strangers(&browser, file.rsplit('/').next().unwrap()), Vec::<String>::new());
    }
    browser.shots("compare");

    // Without scripts nothing is missing but the filters.
    browser.call("Emulation.setScriptExecutionDisabled", json!({ "value": true }));
    open(&mut browser, &lab, "runs/tiny/report.html");
    assert_eq!(
        browser.value(&format!("{shown} === 4 && document.querySelector('#samples .filters').hidden")),
        true
    );
}
