//! The four pictures of the report, drawn by `plotters` as SVG that takes its colours from the page.
//!
//! `plotters` writes whole pixels and fixed colours. So charts are drawn [`SCALE`] times too large and shown through the
//! view box, and each ink is a placeholder colour that becomes a CSS class: light, dark and print are then the page's affair.

use super::data::Estimate;
use super::format::Unit;
use anyhow::{Result, anyhow};
use askama::filters::{Html, escape};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use rlaif_core::stats::{calibration::Bin, interval};

/// Drawn pixels to one pixel on the page.
const SCALE: i32 = 10;
/// Width of every chart on the page; small enough to be legible, unscaled, on a phone.
const WIDTH: i32 = 340;
/// `plotters` divides font sizes by this when it writes SVG.
const FONT_DIVISOR: f64 = 1.24;
const FONT_SIZE: f64 = 11.0;

const INK: RGBColor = RGBColor(1, 0, 1);
const MUTED: RGBColor = RGBColor(1, 0, 2);
const GRID: RGBColor = RGBColor(1, 0, 3);
const ACCENT: RGBColor = RGBColor(1, 0, 4);
const SECOND: RGBColor = RGBColor(1, 0, 5);
const INKS: [(RGBColor, &str); 5] =
    [(INK, "ink"), (MUTED, "muted"), (GRID, "grid"), (ACCENT, "accent"), (SECOND, "second")];

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Places of a curve that show their values under the pointer; where there are more points, the last of every few does.
const MOST_HITS: usize = 120;

/// A place that shows words under the pointer: `<title>`, which takes no script.
struct Hit {
    /// Left, top, right, bottom, in units of the view box.
    place: [i32; 4],
    words: String,
}

/// One curve.
pub struct Line {
    /// What it shows.
    pub label: String,
    /// (step, value); points that are not finite are left out.
    pub points: Vec<(f64, f64)>,
}

/// Curves over training steps: the first in the accent colour, the second in grey.
pub fn lines(title: &str, lines: &[Line], reference: Option<f64>) -> Result<String> {
    let curves: Vec<Vec<(f64, f64)>> = lines
        .iter()
        .map(|line| line.points.iter().copied().filter(|(x, y)| x.is_finite() && y.is_finite()).collect())
        .collect();
    let all = || curves.iter().flatten();
    let (x_low, x_high) = span(all().map(|p| p.0));
    let (y_low, y_high) = padded(span(all().map(|p| p.1).chain(reference)));

    svg(title, 190, |area| {
        let mut chart = ChartBuilder::on(area)
            .margin_top(8 * SCALE)
            .margin_right(10 * SCALE)
            .x_label_area_size(22 * SCALE)
            .y_label_area_size(40 * SCALE)
            .build_cartesian_2d(x_low..x_high, y_low..y_high)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(stroke(GRID, 1.0))
            .axis_style(TRANSPARENT)
            .set_all_tick_mark_size(4 * SCALE)
            .y_labels(5)
            .x_labels(5)
            .x_label_formatter(&|x| axis_number(*x))
            .y_label_formatter(&|y| axis_number(*y))
            .label_style(text(MUTED))
            .draw()?;
        if let Some(reference) = reference {
            chart.draw_series(dashed((x_low, reference), (x_high, reference)))?;
        }
        // The main curve is drawn last, so that it lies on top.
        for (index, points) in curves.iter().enumerate().rev() {
            let ink = if index == 0 { ACCENT } else { SECOND };
            chart.draw_series(std::iter::once(PathElement::new(points.clone(), stroke(ink, 1.8))))?;
            if points.len() <= 30 {
                let radius = if points.len() <= 5 { 4 * SCALE } else { 2 * SCALE };
                chart.draw_series(points.iter().map(|p| Circle::new(*p, radius, ink.filled())))?;
            }
        }
        let (across, down) = chart.plotting_area().get_pixel_range();
        let at = |x: f64| chart.backend_coord(&(x, y_low)).0;
        Ok(columns(lines, &curves, at, across.start, across.end, down.start, down.end))
    })
}

/// A column of the picture for each step, with what every curve is there.
fn columns(
    lines: &[Line],
    curves: &[Vec<(f64, f64)>],
    at: impl Fn(f64) -> i32,
    left: i32,
    right: i32,
    top: i32,
    bottom: i32,
) -> Vec<Hit> {
    let mut steps: Vec<f64> = curves.iter().flatten().map(|(step, _)| *step).collect();
    steps.sort_by(f64::total_cmp);
    steps.dedup();
    let every = steps.len().div_ceil(MOST_HITS).max(1);
    let shown: Vec<f64> = steps.iter().rev().step_by(every).rev().copied().collect();
    let middle = |one: f64, other: f64| (at(one) + at(other)) / 2;
    let hit = |(i, step): (usize, &f64)| {
        let values = lines.iter().zip(curves).filter_map(|(line, points)| {
            let (_, value) = points.iter().find(|(x, _)| x == step)?;
            Some(format!("{} {}", line.label, super::format::number(*value)))
        });
        let words = std::iter::once(format!("step {}", axis_number(*step))).chain(values);
        let from = if i == 0 { left } else { middle(shown[i - 1], *step) };
        let to = if i + 1 == shown.len() { right } else { middle(*step, shown[i + 1]) };
        Hit { place: [from, top, to, bottom], words: words.collect::<Vec<_>>().join(" · ") }
    };
    shown.iter().enumerate().map(hit).collect()
}

/// Estimates as dots with their 95 % intervals as whiskers, one row each, about the value of "no difference".
pub fn intervals(title: &str, rows: &[(String, Estimate)], reference: f64, unit: Unit) -> Result<String> {
    let ends = rows.iter().flat_map(|(_, e)| [Some(e.value), e.low, e.high]).flatten().chain([reference]);
    let (low, high) = padded(span(ends.filter(|v| v.is_finite())));
    let height = 34 + 46 * rows.len() as i32;

    svg(title, height, |area| {
        let mut chart = ChartBuilder::on(area)
            .margin_top(4 * SCALE)
            .margin_right(14 * SCALE)
            .x_label_area_size(22 * SCALE)
            .y_label_area_size(58 * SCALE)
            .build_cartesian_2d(low..high, (rows.len() as f64)..0.0)?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(stroke(GRID, 1.0))
            .axis_style(TRANSPARENT)
            .set_all_tick_mark_size(4 * SCALE)
            .x_labels(5)
            .y_labels(0)
            .x_label_formatter(&|x| {
                if unit == Unit::Share { format!("{:.0} %", 100.0 * x) } else { axis_number(*x) }
            })
            .label_style(text(MUTED))
            .draw()?;
        chart.draw_series(std::iter::once(PathElement::new(
            vec![(reference, 0.0), (reference, rows.len() as f64)],
            stroke(INK, 1.2),
        )))?;
        let mut hits = Vec::new();
        for (index, (label, estimate)) in rows.iter().enumerate() {
            let y = index as f64 + 0.62;
            if let Some((low, high)) = estimate.interval() {
                chart.draw_series(std::iter::once(PathElement::new(
                    vec![(low, y), (high, y)],
                    stroke(ACCENT, 3.0),
                )))?;
            }
            chart.draw_series(std::iter::once(Circle::new(
                (estimate.value, y),
                5 * SCALE,
                ACCENT.filled(),
            )))?;
            let (x, y) = chart.backend_coord(&(estimate.value, y));
            // The label stays inside the picture even if the dot is at its edge.
            let x = x.clamp(80 * SCALE, (WIDTH - 30) * SCALE);
            area.draw_text(
                &unit.value(estimate),
                &anchored(INK, HPos::Center, VPos::Bottom),
                (x, y - 9 * SCALE),
            )?;
            area.draw_text(&short(label, 9), &anchored(INK, HPos::Left, VPos::Center), (0, y))?;
            let rests_on = estimate.n.map_or(String::new(), |n| format!(", n {}", super::format::count(n)));
            hits.push(Hit {
                place: [0, y - 28 * SCALE, WIDTH * SCALE, y + 14 * SCALE],
                words: format!("{label}: {}{rests_on}", unit.with_interval(estimate)),
            });
        }
        Ok(hits)
    })
}

/// The first so many characters of a name, which may be anything, in one line.
fn short(name: &str, most: usize) -> String {
    let mut text: String = name.chars().take(most).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if name.chars().nth(most).is_some() {
        text.push('…');
    }
    text
}

/// One horizontal bar a row with its count and share; the first in the accent colour.
pub fn bars(title: &str, rows: &[(String, u64)]) -> Result<String> {
    const ROW: i32 = 30;
    let total: u64 = rows.iter().map(|r| r.1).sum::<u64>().max(1);
    let most = rows.iter().map(|r| r.1).max().unwrap_or(0).max(1);
    let (left, right) = (92, 92);

    svg(title, ROW * rows.len() as i32 + 6, |area| {
        let mut hits = Vec::new();
        for (index, (label, count)) in rows.iter().enumerate() {
            let middle = ROW * index as i32 + ROW / 2 + 3;
            let length = (f64::from(WIDTH - left - right) * *count as f64 / most as f64).ceil() as i32;
            let ink = if index == 0 { ACCENT } else { SECOND };
            area.draw_text(&short(label, 14), &anchored(INK, HPos::Left, VPos::Center), (0, middle * SCALE))?;
            if *count > 0 {
                let corners =
                    [((left) * SCALE, (middle - 8) * SCALE), ((left + length) * SCALE, (middle + 8) * SCALE)];
                area.draw(&Rectangle::new(corners, ink.filled()))?;
            }
            let share = super::format::percent(*count as f64 / total as f64);
            let position = ((left + length + 8) * SCALE, middle * SCALE);
            let words = format!("{} · {share}", super::format::count(*count));
            area.draw_text(&words, &anchored(MUTED, HPos::Left, VPos::Center), position)?;
            hits.push(Hit {
                place: [0, (middle - ROW / 2) * SCALE, WIDTH * SCALE, (middle + ROW / 2) * SCALE],
                words: format!("{label}: {words} of all"),
            });
        }
        Ok(hits)
    })
}

/// Reliability diagram: what the reward model predicted against how the labels fell; on the diagonal, it means what it says.
pub fn calibration(title: &str, bins: &[Bin]) -> Result<String> {
    svg(title, 270, |area| {
        let mut chart = ChartBuilder::on(area)
            .margin_top(8 * SCALE)
            .margin_right(12 * SCALE)
            .x_label_area_size(38 * SCALE)
            .y_label_area_size(44 * SCALE)
            .build_cartesian_2d(0.0..1.0, 0.0..1.0)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(stroke(GRID, 1.0))
            .axis_style(TRANSPARENT)
            .set_all_tick_mark_size(4 * SCALE)
            .x_labels(6)
            .y_labels(6)
            .x_label_formatter(&|x| format!("{:.0} %", 100.0 * x))
            .y_label_formatter(&|y| format!("{:.0} %", 100.0 * y))
            .x_desc("predicted")
            .label_style(text(MUTED))
            .axis_desc_style(text(MUTED))
            .draw()?;
        chart.draw_series(dashed((0.0, 0.0), (1.0, 1.0)))?;
        for bin in bins {
            // Of soft labels the interval is wider than it need be, never narrower.
            let ones = (bin.observed * bin.n as f64).round() as u64;
            if let Some(whisker) = interval::wilson(ones, bin.n as u64) {
                let ends = vec![(bin.predicted, whisker.low), (bin.predicted, whisker.high)];
                chart.draw_series(std::iter::once(PathElement::new(ends, stroke(SECOND, 1.8))))?;
            }
        }
        let dots =
            bins.iter().map(|bin| Circle::new((bin.predicted, bin.observed), 4 * SCALE, ACCENT.filled()));
        chart.draw_series(dots)?;
        let hit = |bin: &Bin| {
            let (x, y) = chart.backend_coord(&(bin.predicted, bin.observed));
            let (predicted, observed) =
                (super::format::percent(bin.predicted), super::format::percent(bin.observed));
            Hit {
                place: [x - 9 * SCALE, y - 9 * SCALE, x + 9 * SCALE, y + 9 * SCALE],
                words: format!("predicted {predicted}, observed {observed}, n {}", bin.n),
            }
        };
        Ok(bins.iter().map(hit).collect())
    })
}

/// Draws, then turns what `plotters` wrote into an inline, titled, themed `<svg>`.
fn svg<F>(title: &str, height: i32, draw: F) -> Result<String>
where
    F: for<'a> FnOnce(&Area<'a>) -> Result<Vec<Hit>, Box<dyn std::error::Error>>,
{
    let mut drawn = String::new();
    let size = ((WIDTH * SCALE) as u32, (height * SCALE) as u32);
    let area = SVGBackend::with_string(&mut drawn, size).into_drawing_area();
    let hits = draw(&area)
        .and_then(|hits| {
            area.present()?;
            Ok(hits)
        })
        .map_err(|e| anyhow!("{e}").context(format!("drawing the chart `{title}`")))?;
    drop(area);

    let (_, body) = drawn.split_once('>').ok_or_else(|| anyhow!("`plotters` wrote no SVG for `{title}`"))?;
    let mut body = body.replace(" font-family=\"sans-serif\"", "").replace(" opacity=\"1\"", "");
    for (colour, name) in INKS {
        let hex = format!("#{:02X}{:02X}{:02X}", colour.0, colour.1, colour.2);
        body = body
            .replace(&format!("fill=\"{hex}\""), &format!("class=\"fill-{name}\""))
            .replace(&format!("stroke=\"{hex}\""), &format!("class=\"stroke-{name}\""));
    }
    let body = body.trim_end().strip_suffix("</svg>").unwrap_or(&body).to_string() + &hits_of(&hits)?;
    let title = escape(title, Html).map_err(|e| anyhow!("{e}"))?;
    let (width, height) = size;
    Ok(format!(
        "<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{title}\"><title>{title}</title>{body}</svg>\n"
    ))
}

fn hits_of(hits: &[Hit]) -> Result<String> {
    let mut text = String::new();
    for Hit { place: [left, top, right, bottom], words } in hits {
        let (width, height) = ((right - left).max(1), (bottom - top).max(1));
        let words = escape(words, Html).map_err(|e| anyhow!("{e}"))?;
        text += &format!(
            "<rect class=\"hit\" x=\"{left}\" y=\"{top}\" width=\"{width}\" height=\"{height}\" fill-opacity=\"0\"><title>{words}</title></rect>\n"
        );
    }
    Ok(text)
}

fn stroke(ink: RGBColor, width: f64) -> ShapeStyle {
    ShapeStyle { color: ink.to_rgba(), filled: false, stroke_width: (width * f64::from(SCALE)) as u32 }
}

fn text(ink: RGBColor) -> TextStyle<'static> {
    ("sans-serif", FONT_SIZE * f64::from(SCALE) * FONT_DIVISOR).into_font().color(&ink)
}

fn anchored(ink: RGBColor, horizontal: HPos, vertical: VPos) -> TextStyle<'static> {
    text(ink).pos(Pos::new(horizontal, vertical))
}

/// A dashed line as its dashes: SVG's own dashes are not in `plotters`' reach.
fn dashed(from: (f64, f64), to: (f64, f64)) -> impl Iterator<Item = PathElement<(f64, f64)>> {
    const DASHES: usize = 40;
    let at = move |t: f64| (from.0 + t * (to.0 - from.0), from.1 + t * (to.1 - from.1));
    (0..DASHES).map(move |i| {
        let start = i as f64 / DASHES as f64;
        PathElement::new(vec![at(start), at(start + 0.5 / DASHES as f64)], stroke(MUTED, 1.2))
    })
}

/// Least and greatest value; (0, 1) of nothing.
fn span(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
    match (low.is_finite() && high.is_finite(), low < high) {
        (false, _) => (0.0, 1.0),
        (true, true) => (low, high),
        (true, false) => (low - 0.5, high + 0.5),
    }
}

/// A tenth more on both sides, so that nothing touches the frame.
fn padded((low, high): (f64, f64)) -> (f64, f64) {
    let margin = 0.1 * (high - low);
    (low - margin, high + margin)
}

/// Short and without noise of binary fractions, as axes need it.
fn axis_number(value: f64) -> String {
    let text = match value.abs() {
        size if size < 1e-12 => return "0".into(),
        size if size < 1e-4 => format!("{value:.1e}").replace(".0e", "e"),
        _ => format!("{value:.6}").trim_end_matches('0').trim_end_matches('.').to_string(),
    };
    text.replace('-', "−")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_chart_is_titled_and_takes_its_colours_from_the_page() {
        let line = Line { label: "loss".into(), points: vec![(1.0, 0.7), (2.0, 0.6), (3.0, f64::NAN)] };
        let estimate = Estimate::new(0.7, 0.6, 0.8, 24);
        let bin = Bin { n: 24, predicted: 0.7, observed: 0.75 };
        let drawn = [
            lines("a <b>", &[line], Some(0.5)),
            intervals("a <b>", &[("PPO".into(), estimate)], 0.5, Unit::Share),
            bars("a <b>", &[("kept".into(), 3), ("tie".into(), 0)]),
            calibration("a <b>", &[bin]),
        ];
        for svg in drawn {
            let svg = svg.unwrap();
            assert!(svg.starts_with("<svg viewBox="), "{svg}");
            assert!(svg.trim_end().ends_with("</svg>"), "{svg}");
            assert!(svg.contains("<title>a &#60;b&#62;</title>"), "{svg}");
            assert!(svg.contains("-accent\""), "{svg}");
            assert!(!svg.contains("#0100") && !svg.contains("http") && !svg.contains("NaN"), "{svg}");
        }
    }

    /// What stands under the pointer, from left to right.
    fn hovers(svg: &str) -> Vec<&str> {
        let titles = svg.split("<title>").skip(2);
        titles.map(|rest| rest.split_once("</title>").unwrap().0).collect()
    }

    #[test]
    fn curves_tell_their_values_at_every_step() {
        let loss = Line { label: "loss".into(), points: vec![(1.0, 0.7), (2.0, 0.6), (3.0, f64::NAN)] };
        let held_out = Line { label: "eval_loss".into(), points: vec![(2.0, 0.65)] };
        let svg = lines("Loss", &[held_out, loss], None).unwrap();
        assert_eq!(hovers(&svg), ["step 1 · loss 0.70", "step 2 · eval_loss 0.65 · loss 0.60"]);
        let long = Line { label: "loss".into(), points: (1..=1000).map(|i| (f64::from(i), 1.0)).collect() };
        let svg = lines("Loss", &[long], None).unwrap();
        let told = hovers(&svg);
        assert!(told.len() <= MOST_HITS && told.len() > MOST_HITS / 2, "{}", told.len());
        assert_eq!(told.last(), Some(&"step 1000 · loss 1.00"), "the last step is always told");
    }

    #[test]
    fn places_under_the_pointer_fill_the_picture_without_gaps() {
        let line = Line { label: "loss".into(), points: vec![(1.0, 0.7), (2.0, 0.6), (9.0, 0.5)] };
        let svg = lines("Loss", &[line], None).unwrap();
        let number = |hit: &str, name: &str| -> i32 {
            let (_, rest) = hit.split_once(&format!(" {name}=\"")).unwrap();
            rest.split_once('"').unwrap().0.parse().unwrap()
        };
        let hits: Vec<&str> = svg.split("<rect class=\"hit\"").skip(1).collect();
        assert_eq!(hits.len(), 3);
        for two in hits.windows(2) {
            assert_eq!(number(two[0], "x") + number(two[0], "width"), number(two[1], "x"));
        }
    }

    #[test]
    fn nothing_to_draw_is_still_a_chart() {
        assert!(lines("empty", &[], None).is_ok());
        assert!(lines("one point", &[Line { label: "x".into(), points: vec![(1.0, 1.0)] }], None).is_ok());
        assert!(intervals("none", &[], 0.0, Unit::Plain).is_ok());
        assert!(bars("zero", &[("kept".into(), 0)]).is_ok());
        assert!(calibration("no bins", &[]).is_ok());
    }

    #[test]
    fn axis_numbers_are_short() {
        assert_eq!(
            [0.1 + 0.2, -0.5, 1e-17, 20.0, 0.00002].map(axis_number),
            ["0.3", "−0.5", "0", "20", "2e−5"]
        );
    }
}
