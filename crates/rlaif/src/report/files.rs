//! Training curves as SVG files that stand alone, for documentation and slides: those of the report, with title, legend and colours of
//! their own.

use super::block::Figure;
use super::curves;
use super::data::ReportData;
use anyhow::{Context as _, Result, anyhow};
use askama::filters::{Html, escape};
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Stages that have curves.
const STAGES: [&str; 4] = ["sft", "reward", "ppo", "dpo"];

/// Units of the charts' view boxes, which are ten to a pixel: the room above a chart, and what the words in it measure.
const HEAD: i32 = 520;
const TEXT: i32 = 120;

/// The colours of the page on white.
const STYLE: &str = "text{font-family:system-ui,sans-serif}polyline{stroke-linejoin:round}\
.fill-ink{fill:#1c2024}.fill-muted{fill:#5f676e}.fill-grid{fill:#e2e4e1}.fill-accent{fill:#0b6e69}.fill-second{fill:#9aa3a8}\
.stroke-ink{stroke:#1c2024}.stroke-muted{stroke:#5f676e}.stroke-grid{stroke:#e2e4e1}.stroke-accent{stroke:#0b6e69}.stroke-second{stroke:#9aa3a8}";

/// Writes every curve of the run to `folder`, as `STAGE-TITLE.svg`; says which.
///
/// # Errors
/// If a chart cannot be drawn or the folder not be written.
pub fn write_curves(data: &ReportData, folder: &Path) -> Result<Vec<PathBuf>> {
    std::fs::create_dir_all(folder).with_context(|| format!("making the folder `{}`", folder.display()))?;
    let mut written = Vec::new();
    for stage in STAGES {
        for figure in curves::figures(stage, data)? {
            let path = folder.join(format!("{stage}-{}.svg", file_name(&figure.title)));
            std::fs::write(&path, alone(&figure, stage)?)
                .with_context(|| format!("writing `{}`", path.display()))?;
            written.push(path);
        }
    }
    Ok(written)
}

/// `Loss, nats a token` as `loss-nats-a-token`.
fn file_name(title: &str) -> String {
    let words = title.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_ascii_lowercase).collect::<Vec<_>>().join("-")
}

/// The chart with what the page has around it.
fn alone(figure: &Figure, stage: &str) -> Result<String> {
    let view = figure.svg.strip_prefix("<svg viewBox=\"0 0 ").and_then(|rest| {
        let (size, body) = rest.split_once('"')?;
        let (width, height) = size.split_once(' ')?;
        Some((width.parse::<i32>().ok()?, height.parse::<i32>().ok()?, body))
    });
    let (width, height, body) = view.ok_or_else(|| anyhow!("the chart `{}` has no size", figure.title))?;
    let body = body.strip_suffix("</svg>").or_else(|| body.trim_end().strip_suffix("</svg>")).unwrap_or(body);
    let text =
        |words: &str| escape(words, Html).map(|text| text.to_string()).map_err(|error| anyhow!("{error}"));
    let mut head = String::new();
    let title = text(&format!("{stage}: {}", figure.title))?;
    let _ = write!(
        head,
        "<text x=\"60\" y=\"-340\" font-size=\"{}\" font-weight=\"600\" class=\"fill-ink\">{title}</text>",
        TEXT + 20
    );
    let mut x = 60;
    for entry in &figure.legend {
        let class = if entry.class == "dashed" { "muted" } else { entry.class };
        let _ = write!(
            head,
            "<rect x=\"{x}\" y=\"-160\" width=\"160\" height=\"30\" class=\"fill-{class}\"/><text x=\"{}\" y=\"-100\" font-size=\"{TEXT}\" class=\"fill-muted\">{}</text>",
            x + 210,
            text(&entry.label)?
        );
        x += 330 + TEXT * 6 / 10 * entry.label.chars().count() as i32;
    }
    Ok(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"{}\" viewBox=\"0 -{HEAD} {width} {}\"{body}{head}<style>{STYLE}</style></svg>\n",
        width / 5,
        (height + HEAD) / 5,
        height + HEAD
    )
    .replacen("<title>", &format!("<rect x=\"0\" y=\"-{HEAD}\" width=\"{width}\" height=\"{}\" fill=\"#fff\"/><title>", height + HEAD), 1))
}
