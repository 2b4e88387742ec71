//! Long work shows how far it is: bars with rate and time left on a terminal, a plain line every ten seconds elsewhere.

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// Between two plain lines.
const PLAIN_INTERVAL: Duration = Duration::from_secs(10);

/// All bars, so that a line can be said between them. Drawn on stderr.
static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// How far one stage is.
pub struct Progress {
    stage: String,
    unit: &'static str,
    total: u64,
    /// Done before this process started, which says nothing about the rate.
    before: u64,
    started: Instant,
    last_line: Instant,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Starts at `before` of `total` units.
    pub fn new(stage: &str, unit: &'static str, before: u64, total: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = BARS.add(ProgressBar::new(total));
            let style = ProgressStyle::with_template(
                "{prefix:>9} {bar:28} {pos}/{len} {msg}  {elapsed} so far, {eta} left",
            );
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.set_prefix(stage.to_string());
            bar.set_position(before);
            bar.reset_eta();
            bar.enable_steady_tick(Duration::from_millis(500));
            bar
        });
        let now = Instant::now();
        Self { stage: stage.to_string(), unit, total, before, started: now, last_line: now, bar }
    }

    /// Says that `done` units are finished, with a word on how it goes.
    pub fn set(&mut self, done: u64, total: u64, note: &str) {
        self.total = total;
        let elapsed = self.started.elapsed();
        let rate = done.saturating_sub(self.before) as f64 / elapsed.as_secs_f64().max(1e-9);
        if let Some(bar) = &self.bar {
            bar.set_length(total);
            bar.set_position(done);
            bar.set_message(format!("{} ({}) {note}", self.unit, rate_text(rate, self.unit)));
        } else if self.last_line.elapsed() >= PLAIN_INTERVAL {
            self.last_line = Instant::now();
            let left = match rate > 0.0 {
                true => duration_text(Duration::from_secs_f64(total.saturating_sub(done) as f64 / rate)),
                false => "?".into(),
            };
            let note = if note.is_empty() { String::new() } else { format!(", {note}") };
            eprintln!(
                "{}: {done}/{total} {} ({}), {} so far, {left} left{note}",
                self.stage,
                self.unit,
                rate_text(rate, self.unit),
                duration_text(elapsed)
            );
        }
    }

    /// Takes the bar off the screen.
    pub fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Prints a line without tearing a bar apart.
pub fn say(line: &str) {
    BARS.suspend(|| eprintln!("{line}"));
}

fn rate_text(rate: f64, unit: &str) -> String {
    let unit = unit.trim_end_matches('s');
    match rate {
        r if r >= 1.0 => format!("{r:.1} {unit}s/s"),
        r if r > 0.0 => format!("{:.1} s/{unit}", 1.0 / r),
        _ => "starting".into(),
    }
}

/// `42s`, `3m05s`, `2h10m`.
pub fn duration_text(duration: Duration) -> String {
    let seconds = duration.as_secs_f64().round() as u64;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_rates_read_well() {
        assert_eq!(duration_text(Duration::from_secs(42)), "42s");
        assert_eq!(duration_text(Duration::from_secs(185)), "3m05s");
        assert_eq!(duration_text(Duration::from_secs(7800)), "2h10m");
        assert_eq!(rate_text(2.0, "prompts"), "2.0 prompts/s");
        assert_eq!(rate_text(0.25, "steps"), "4.0 s/step");
    }
}
