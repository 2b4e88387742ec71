//! Numbers as people read them: a true minus sign, as many digits as the size deserves, units beside the number.

use super::data::Estimate;

/// `71.2 %` with a narrow no-break space; not finite is a dash.
pub fn percent(share: f64) -> String {
    if share.is_finite() { format!("{}\u{202f}%", decimals(100.0 * share, 1)) } else { "–".into() }
}

/// Two or three significant digits from 0.001 to 1000, with a true minus sign.
pub fn number(value: f64) -> String {
    match value.abs() {
        _ if !value.is_finite() => "–".into(),
        0.0 => "0".into(),
        size if size < 0.0005 => format!("{value:.1e}").replace('-', "−"),
        size => decimals(value, places(size)),
    }
}

/// Decimals that a number of this size deserves.
fn places(size: f64) -> usize {
    match size {
        _ if size < 0.0995 => 3,
        _ if size < 9.995 => 2,
        _ if size < 999.5 => 1,
        _ => 0,
    }
}

/// [`number`] with its sign always shown, for differences.
pub fn signed(value: f64) -> String {
    let text = number(value);
    if value > 0.0 { format!("+{text}") } else { text }
}

/// `12 345`: groups of three behind a narrow no-break space.
pub fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() * 2);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// `1 pair`, `2 pairs`.
pub fn plural(value: u64, noun: &str) -> String {
    if value == 1 { format!("1 {noun}") } else { format!("{} {noun}s", count(value)) }
}

/// Micro-dollars without rounding: `$0.0123`, at least two decimals.
pub fn dollars(micro_usd: i64) -> String {
    let size = micro_usd.unsigned_abs();
    let mut fraction = format!("{:06}", size % 1_000_000);
    while fraction.len() > 2 && fraction.ends_with('0') {
        fraction.pop();
    }
    format!("{}${}.{fraction}", if micro_usd < 0 { "−" } else { "" }, size / 1_000_000)
}

/// `8 s`, `4 min 12 s`, `2 h 5 min`.
pub fn duration(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return "–".into();
    }
    if seconds < 9.95 {
        return format!("{seconds:.1} s");
    }
    let whole = seconds.round() as u64;
    match (whole / 3600, whole / 60 % 60, whole % 60) {
        (0, 0, s) => format!("{s} s"),
        (0, m, s) => format!("{m} min {s} s"),
        (h, m, _) => format!("{h} h {m} min"),
    }
}

/// `2026-11-23 13:05 UTC` of seconds since 1970.
pub fn utc(seconds: u64) -> String {
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    // Hinnant's civil_from_days, for days after 1970: years that begin in March put the leap day last.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02} {:02}:{:02} UTC", of_day / 3600, of_day / 60 % 60)
}

/// How an estimate is written: as it is, as a difference with its sign, or as a share in percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// A plain number.
    Plain,
    /// A difference; its sign is always shown.
    Difference,
    /// A share in [0, 1], shown in percent.
    Share,
    /// A difference of shares, shown in percentage points with its sign.
    Points,
}

impl Unit {
    /// The number alone, with as many decimals as its interval.
    pub fn value(self, estimate: &Estimate) -> String {
        match self {
            Self::Share => percent(estimate.value),
            Self::Points => format!("{}\u{202f}pp", points(estimate.value)),
            Self::Plain | Self::Difference => self.like(estimate.value, estimate),
        }
    }

    /// `0.31 to 0.53`, in the words of the unit; percent is written once.
    pub fn interval(self, estimate: &Estimate) -> Option<String> {
        let (low, high) = estimate.interval()?;
        Some(match self {
            Self::Share => format!("{} to {}", decimals(100.0 * low, 1), percent(high)),
            Self::Points => format!("{} to {}\u{202f}pp", points(low), points(high)),
            Self::Plain | Self::Difference => {
                format!("{} to {}", self.like(low, estimate), self.like(high, estimate))
            }
        })
    }

    /// `71.2 % (95 % CI 61.4 to 80.1 %)`, or the number alone.
    pub fn with_interval(self, estimate: &Estimate) -> String {
        match self.interval(estimate) {
            Some(interval) => format!("{} (95\u{202f}% CI {interval})", self.value(estimate)),
            None => self.value(estimate),
        }
    }

    /// One of the estimate's numbers, with decimals by the largest of them.
    fn like(self, value: f64, estimate: &Estimate) -> String {
        let Some((low, high)) = estimate.interval() else {
            return if self == Self::Difference { signed(value) } else { number(value) };
        };
        let size = estimate.value.abs().max(low.abs()).max(high.abs());
        if !size.is_finite() || size < 0.0005 {
            return number(value);
        }
        let text = decimals(value, places(size));
        if self == Self::Difference && value > 0.0 { format!("+{text}") } else { text }
    }
}

/// `+12.3`: a share times a hundred, with its sign.
fn points(share: f64) -> String {
    let text = decimals(100.0 * share, 1);
    if share > 0.0 { format!("+{text}") } else { text }
}

fn decimals(value: f64, places: usize) -> String {
    let text = format!("{value:.places$}");
    // A number that rounds to nothing has no sign.
    match text.strip_prefix('-') {
        Some(size) if size.chars().all(|c| c == '0' || c == '.') => size.to_string(),
        Some(size) => format!("−{size}"),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(percent(0.7123), "71.2\u{202f}%");
        assert_eq!(percent(f64::NAN), "–");
        assert_eq!(
            [0.0, -0.0432, 1.234, 12.34, 4321.0, 0.00001].map(number),
            ["0", "−0.043", "1.23", "12.3", "4321", "1.0e−5"]
        );
        assert_eq!([0.25, -0.25, 0.0].map(signed), ["+0.25", "−0.25", "0"]);
        assert_eq!(count(1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!([1, 2].map(|n| plural(n, "pair")), ["1 pair", "2 pairs"]);
    }

    #[test]
    fn money_is_never_rounded() {
        assert_eq!([0, 12_345, 1_500_000, -20_000].map(dollars), ["$0.00", "$0.012345", "$1.50", "−$0.02"]);
    }

    #[test]
    fn durations_have_two_units_at_most() {
        assert_eq!(
            [1.25, 59.6, 252.0, 7500.0].map(duration),
            ["1.2 s", "1 min 0 s", "4 min 12 s", "2 h 5 min"]
        );
    }

    #[test]
    fn dates_are_of_the_calendar() {
        let want =
            ["1970-01-01 00:00 UTC", "2000-02-29 12:00 UTC", "2024-12-31 23:59 UTC", "2026-11-23 13:05 UTC"];
        assert_eq!([0, 951_825_600, 1_735_689_599, 1_795_439_100].map(utc), want);
    }

    #[test]
    fn intervals_name_their_unit_once() {
        let share = Estimate::new(0.712, 0.614, 0.801, 24);
        assert_eq!(Unit::Share.with_interval(&share), "71.2\u{202f}% (95\u{202f}% CI 61.4 to 80.1\u{202f}%)");
        let difference = Estimate::new(0.5, -0.1, 1.1, 24);
        assert_eq!(Unit::Difference.with_interval(&difference), "+0.50 (95\u{202f}% CI −0.10 to +1.10)");
        let small = Estimate::new(0.18, 0.061, 0.291, 24);
        assert_eq!(Unit::Difference.with_interval(&small), "+0.18 (95\u{202f}% CI +0.06 to +0.29)");
        assert_eq!(Unit::Plain.with_interval(&Estimate::point(2.0)), "2.00");
        let points = Estimate::new(-0.125, -0.25, 0.011, 24);
        assert_eq!(
            Unit::Points.with_interval(&points),
            "−12.5\u{202f}pp (95\u{202f}% CI −25.0 to +1.1\u{202f}pp)"
        );
    }
}
