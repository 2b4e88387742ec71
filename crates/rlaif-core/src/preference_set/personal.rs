//! Personal data and secrets, by patterns with a checksum or a clear shape. Names and streets have neither and are not looked for.
//!
//! What is found is never given out: only its kind and a form in which letters and digits are hidden. Placeholders are passed over: the
//! domains of RFC 2606, telephone numbers with 555-01 (NANPA), addresses of documentation and of private networks (RFC 1918, 5737, 3849).

use regex::Regex;
use std::net::{Ipv4Addr, Ipv6Addr};

/// What a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// An e-mail address.
    Email,
    /// A telephone number, international or North American.
    Phone,
    /// An account number, ISO 13616: length by country and mod 97.
    Iban,
    /// A payment card: the issuer's range and Luhn's digit, ISO/IEC 7812.
    Card,
    /// A public IP address.
    Ip,
    /// A key or token of a well-known service, or a private key.
    Secret,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 6] = [Self::Email, Self::Phone, Self::Iban, Self::Card, Self::Ip, Self::Secret];

    /// The measure's name in an audit.
    pub fn measure(self) -> &'static str {
        match self {
            Self::Email => "personal_email",
            Self::Phone => "personal_phone",
            Self::Iban => "personal_iban",
            Self::Card => "personal_card",
            Self::Ip => "personal_ip",
            Self::Secret => "secrets",
        }
    }
}

/// Something found, without the thing itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// What it is.
    pub kind: Kind,
    /// Its shape, such as `j•••@e••••••.org`.
    pub masked: String,
}

/// The patterns, compiled once. Matching takes time in proportion to a text's length.
pub struct Patterns {
    email: Regex,
    phone: Regex,
    iban: Regex,
    card: Regex,
    ipv4: Regex,
    ipv6: Regex,
    secret: Regex,
}

impl Patterns {
    /// Compiles them.
    ///
    /// # Panics
    /// Never: the patterns are constants, and a test compiles them.
    pub fn new() -> Self {
        let compiled = |pattern: &str| Regex::new(pattern).expect("a constant pattern that a test compiles");
        Self {
            email: compiled(
                r"(?i)\b[a-z0-9][a-z0-9._%+-]{0,63}@(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.){1,8}[a-z]{2,24}\b",
            ),
            phone: compiled(
                r"(?:\+[1-9][0-9 ().\-/]{6,22}[0-9])|(?:\(?\b[2-9][0-9]{2}\)?[ .\-][2-9][0-9]{2}[.\-][0-9]{4}\b)",
            ),
            iban: compiled(r"\b[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]){11,30}\b"),
            card: compiled(r"\b[2-6](?:[ \-]?[0-9]){12,18}\b"),
            ipv4: compiled(r"\b(?:[0-9]{1,3}\.){3}[0-9]{1,3}\b"),
            ipv6: compiled(r"(?i)\b[0-9a-f]{1,4}(?::{1,2}[0-9a-f]{1,4}){3,7}(?:::)?"),
            secret: compiled(concat!(
                r"\b(?:sk-(?:ant-|proj-|or-v1-)?[A-Za-z0-9_\-]{20,200}",
                r"|(?:AKIA|ASIA)[0-9A-Z]{16}\b",
                r"|gh[pousr]_[A-Za-z0-9]{36,255}",
                r"|github_pat_[A-Za-z0-9_]{60,255}",
                r"|glpat-[A-Za-z0-9_\-]{20,64}",
                r"|hf_[A-Za-z0-9]{30,64}",
                r"|AIza[0-9A-Za-z_\-]{35}",
                r"|xox[abeoprs]-[A-Za-z0-9\-]{20,255}",
                r"|[rs]k_live_[A-Za-z0-9]{20,255}",
                r"|eyJ[A-Za-z0-9_\-]{10,2000}\.eyJ[A-Za-z0-9_\-]{10,4000}\.[A-Za-z0-9_\-]{20,1000})",
                r"|-----BEGIN (?:[A-Z]+ ){0,2}PRIVATE KEY-----",
            )),
        }
    }

    /// What a text holds, each shape once.
    pub fn find(&self, text: &str) -> Vec<Finding> {
        let mut found = Vec::new();
        let mut put = |kind, masked| found.push(Finding { kind, masked });
        self.email
            .find_iter(text)
            .filter(|it| is_email(it.as_str()))
            .for_each(|it| put(Kind::Email, hidden(it.as_str())));
        for it in self.phone.find_iter(text) {
            let apart =
                !text[..it.start()].ends_with(|c: char| c.is_ascii_alphanumeric() || "+.-/".contains(c));
            let ends = !text[it.end()..].starts_with(|c: char| c.is_ascii_digit());
            if apart && ends && is_phone(it.as_str()) {
                put(Kind::Phone, hidden(it.as_str()));
            }
        }
        for it in self.iban.find_iter(text) {
            if let Some(iban) = iban(it.as_str()) {
                put(Kind::Iban, hidden(&iban));
            }
        }
        for it in self.card.find_iter(text).filter(|it| is_card(it.as_str())) {
            let part = |c: char| c.is_ascii_digit() || ".-+/".contains(c);
            if !text[..it.start()].ends_with(part) {
                put(Kind::Card, hidden(it.as_str()));
            }
        }
        for it in self.ipv4.find_iter(text) {
            let before = text[..it.start()].trim_end_matches(' ');
            let numbered = [".", "-", "§"].iter().any(|sign| before.ends_with(sign))
                || ["version", "v", "section"].iter().any(|word| before.to_ascii_lowercase().ends_with(word));
            let goes_on = text[it.end()..].starts_with('-')
                || text[it.end()..]
                    .strip_prefix('.')
                    .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
            if !numbered && !goes_on && it.as_str().parse().is_ok_and(is_public_v4) {
                put(Kind::Ip, hidden(it.as_str()));
            }
        }
        self.ipv6
            .find_iter(text)
            .filter(|it| it.as_str().parse().is_ok_and(is_public_v6))
            .for_each(|it| put(Kind::Ip, hidden(it.as_str())));
        self.secret
            .find_iter(text)
            .filter(|it| is_secret(it.as_str()))
            .for_each(|it| put(Kind::Secret, hidden(it.as_str())));
        found.sort();
        found.dedup();
        found
    }
}

impl Default for Patterns {
    fn default() -> Self {
        Self::new()
    }
}

/// The shape: the first character, what is neither letter nor digit, the last part of a domain; never more than 32 characters.
fn hidden(text: &str) -> String {
    let domain = text.contains('@').then(|| text.rfind('.')).flatten().unwrap_or(usize::MAX);
    let shape: String = text
        .char_indices()
        .take(32)
        .map(|(at, c)| if c.is_alphanumeric() && at > 0 && at < domain { '•' } else { c })
        .collect();
    if text.chars().count() > 32 { format!("{shape}…") } else { shape }
}

fn is_email(address: &str) -> bool {
    const RESERVED: [&str; 4] = [".example", ".test", ".invalid", ".localhost"];
    let domain = address.rsplit('@').next().unwrap_or_default().to_ascii_lowercase();
    let second = ["example.com", "example.org", "example.net"];
    let reserved = second.iter().any(|name| domain == *name || domain.ends_with(&format!(".{name}")))
        || RESERVED.iter().any(|name| domain.ends_with(name));
    !reserved
}

fn digits(text: &str) -> Vec<u32> {
    text.chars().filter_map(|c| c.to_digit(10)).collect()
}

/// E.164: up to 15 digits behind a `+`, at least 8; or the ten digits of North America. No 555-01xx.
fn is_phone(number: &str) -> bool {
    let digits = digits(number);
    let fictional = digits.windows(5).rev().nth(2).is_some_and(|it| it == [5, 5, 5, 0, 1]);
    let long_enough =
        if number.starts_with('+') { (8..=15).contains(&digits.len()) } else { digits.len() == 10 };
    long_enough && !fictional
}

/// Lengths of IBANs by country, from the registry of SWIFT (ISO 13616), release 98.
const IBAN_LENGTHS: &[(&str, usize)] = &[
    ("AD", 24),
    ("AE", 23),
    ("AL", 28),
    ("AT", 20),
    ("AZ", 28),
    ("BA", 20),
    ("BE", 16),
    ("BG", 22),
    ("BH", 22),
    ("BR", 29),
    ("BY", 28),
    ("CH", 21),
    ("CR", 22),
    ("CY", 28),
    ("CZ", 24),
    ("DE", 22),
    ("DK", 18),
    ("DO", 28),
    ("EE", 20),
    ("EG", 29),
    ("ES", 24),
    ("FI", 18),
    ("FO", 18),
    ("FR", 27),
    ("GB", 22),
    ("GE", 22),
    ("GI", 23),
    ("GL", 18),
    ("GR", 27),
    ("GT", 28),
    ("HR", 21),
    ("HU", 28),
    ("IE", 22),
    ("IL", 23),
    ("IQ", 23),
    ("IS", 26),
    ("IT", 27),
    ("JO", 30),
    ("KW", 30),
    ("KZ", 20),
    ("LB", 28),
    ("LC", 32),
    ("LI", 21),
    ("LT", 20),
    ("LU", 20),
    ("LV", 21),
    ("LY", 25),
    ("MC", 27),
    ("MD", 24),
    ("ME", 22),
    ("MK", 19),
    ("MR", 27),
    ("MT", 31),
    ("MU", 30),
    ("NL", 18),
    ("NO", 15),
    ("PK", 24),
    ("PL", 28),
    ("PS", 29),
    ("PT", 25),
    ("QA", 29),
    ("RO", 24),
    ("RS", 22),
    ("SA", 24),
    ("SC", 31),
    ("SE", 24),
    ("SI", 19),
    ("SK", 24),
    ("SM", 27),
    ("ST", 25),
    ("SV", 28),
    ("TL", 23),
    ("TN", 24),
    ("TR", 26),
    ("UA", 29),
    ("VA", 22),
    ("VG", 24),
    ("XK", 20),
];

/// The account number with which a match begins: what follows it in capitals is not part of it.
fn iban(text: &str) -> Option<String> {
    let (_, length) = IBAN_LENGTHS.iter().find(|(country, _)| text.starts_with(country))?;
    let mut rest = text.char_indices().filter(|(_, c)| *c != ' ').skip(length - 1);
    let (last, _) = rest.next()?;
    // An account number ends where a word does.
    if text[last + 1..].starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return None;
    }
    let compact: String = text[..=last].chars().filter(|c| *c != ' ').collect();
    let turned = compact[4..].chars().chain(compact[..4].chars());
    let remainder = turned.filter_map(|c| c.to_digit(36)).fold(0, |remainder, value| match value {
        0..=9 => (remainder * 10 + value) % 97,
        _ => (remainder * 100 + value) % 97,
    });
    (remainder == 1).then(|| text[..=last].to_string())
}

/// 13 to 19 digits in a range of Visa, Mastercard, American Express, Discover, JCB, Diners Club, Maestro or UnionPay, and Luhn's check.
fn is_card(number: &str) -> bool {
    let digits = digits(number);
    let first = |n: usize| digits[..n].iter().fold(0, |sum, digit| sum * 10 + digit);
    let n = digits.len();
    if !(13..=19).contains(&n) || digits.iter().all(|digit| *digit == digits[0]) {
        return false;
    }
    let issued = match first(2) {
        40..=49 => [13, 16, 19].contains(&n),
        51..=55 | 22..=27 => n == 16 && (first(2) > 50 || (2221..=2720).contains(&first(4))),
        34 | 37 => n == 15,
        36 | 38 | 39 => n == 14,
        30 => (14..=19).contains(&n) && (300..=305).contains(&first(3)),
        35 => n >= 16 && (3528..=3589).contains(&first(4)),
        60 | 62 | 64 | 65 => n >= 16,
        50 | 56..=59 | 61 | 63 | 66..=69 => n == 16,
        _ => false,
    };
    issued && luhn(&digits)
}

/// Luhn's check, US patent 2950048: every second digit from the right doubled, its digits added, the sum a multiple of ten.
fn luhn(digits: &[u32]) -> bool {
    let value = |(place, digit): (usize, &u32)| match (place % 2, digit * 2) {
        (0, _) => *digit,
        (_, doubled) if doubled > 9 => doubled - 9,
        (_, doubled) => doubled,
    };
    digits.iter().rev().enumerate().map(value).sum::<u32>() % 10 == 0
}

/// Nobody's own: private, documentation, special use, and the public resolvers that every text on networks names.
fn is_public_v4(address: Ipv4Addr) -> bool {
    let octets = address.octets();
    let special = address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || address.is_multicast()
        || octets[0] == 0
        || octets[0] >= 240
        || (octets[0] == 100 && (64..128).contains(&octets[1]))
        || (octets[0] == 198 && (18..20).contains(&octets[1]));
    let resolvers = [[1, 1, 1, 1], [1, 0, 0, 1], [8, 8, 8, 8], [8, 8, 4, 4], [9, 9, 9, 9], [1, 2, 3, 4]];
    // Outlines and versions: 1.1.2.1, 2.0.0.1.
    !special && !resolvers.contains(&octets) && octets.iter().any(|octet| *octet > 31)
}

/// Global unicast, 2000::/3, without 2001:db8::/32 of documentation.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    (0x2000..0x4000).contains(&segments[0]) && segments[..2] != [0x2001, 0x0db8]
}

/// Drawn and not written: letters and digits, or the head of a private key; `sk-your-api-key-goes-here-please` is none.
fn is_secret(text: &str) -> bool {
    let body = text.rsplit(['_', '-']).next().unwrap_or(text);
    let drawn = |part: &str| {
        let count = |kind: fn(&char) -> bool| part.chars().filter(kind).count();
        count(char::is_ascii_digit) >= 2 && count(char::is_ascii_alphabetic) >= 4
    };
    let distinct: std::collections::BTreeSet<char> = text.chars().collect();
    text.starts_with("-----") || (distinct.len() >= 12 && (drawn(body) || drawn(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &str) -> Vec<Kind> {
        Patterns::new().find(text).into_iter().map(|found| found.kind).collect()
    }

    #[test]
    fn each_kind_is_found() {
        for (text, kind) in [
            ("write to Jane.Doe+x@mail.acme-corp.co.uk.", Kind::Email),
            ("call +49 (0)30 9018-20 today", Kind::Phone),
            ("call (212) 736-5000 today", Kind::Phone),
            ("IBAN DE89 3704 0044 0532 0130 00 PLEASE", Kind::Iban),
            ("GB82WEST12345698765432", Kind::Iban),
            ("NO93 8601 1117 947", Kind::Iban),
            ("card 4111 1111 1111 1111, thanks", Kind::Card),
            ("378282246310005", Kind::Card),
            ("from 91.198.174.192 at noon", Kind::Ip),
            ("from 2a02:8071:b685:1a00:51d:9fbb:1e9c:77aa", Kind::Ip),
            (concat!("key s", "k-proj-Ab3xY7kL9mNpQ2rS5tUvW8zR"), Kind::Secret),
            (concat!("AK", "IAIOSFODNN7EXAMPL9"), Kind::Secret),
            ("-----BEGIN OPENSSH PRIVATE KEY-----", Kind::Secret),
        ] {
            assert_eq!(kinds(text), [kind], "{text}");
        }
    }

    #[test]
    fn what_only_looks_like_it_is_passed_over() {
        for text in [
            "me@example.com, you@sub.example.org, they@host.test",
            "@handle and a@b",
            "call 555-0123 or +1 212 555 0123",
            "on 2024-01-15 and 12-31-1999",
            "DE89 3704 0044 0532 0130 01",
            "DE89 3704 0044 0532 0130",
            "ZZ89370400440532013000",
            "4111 1111 1111 1112",
            "0000 0000 0000 0000 and 1234567890123456",
            "10.0.0.1, 192.168.1.7, 127.0.0.1, 203.0.113.9, 8.8.8.8, 999.1.1.1",
            "version 91.198.174.192, section 1.2.3.4",
            "2001:db8:0:0:0:0:0:1 and 12:30:45:10",
            "sk-your-api-key-goes-here-please",
            "task-force-of-the-united-nations-2024-report",
            "pi is 3.14159265358979323846",
        ] {
            assert_eq!(kinds(text), [], "{text}");
        }
    }

    #[test]
    fn nothing_found_is_given_out() {
        for text in [
            "jane.doe@acme.org",
            "+49 30 901820",
            "DE89370400440532013000",
            "4111111111111111",
            "91.198.174.192",
            concat!("gh", "p_16C7e42F292c6912E7710c838347Ae178B4a"),
        ] {
            let found = Patterns::new().find(text);
            assert_eq!(found.len(), 1, "{text}");
            let masked = &found[0].masked;
            let kept = masked.chars().filter(|c| c.is_alphanumeric()).count();
            assert!(kept <= 4 && !masked.contains(&text[1..4]), "{masked}");
        }
        assert_eq!(Patterns::new().find("jane.doe@acme.org")[0].masked, "j•••.•••@••••.org");
        assert_eq!(Patterns::new().find("a@b.io, a@b.io").len(), 1, "each once");
    }
}
