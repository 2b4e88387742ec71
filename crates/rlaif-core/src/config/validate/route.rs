//! What `[route]` must hold.

use super::{Checks, Ends, check_files};
use crate::config::{Config, Protocol, RouteRule};
use crate::routing::words_of;
use std::collections::BTreeSet;

impl Config {
    pub(super) fn check_route(&self, check: &mut Checks) {
        let route = &self.route;
        check.share("route.random_share", route.random_share, Ends::Both);
        check.share("route.max_share", route.max_share, Ends::Both);
        if route.random_share > route.max_share {
            let (share, most) = (route.random_share, route.max_share);
            check.add(
                "route.max_share",
                format!("must be at least `route.random_share` = {share}, got {most}"),
            );
        }
        check_files(check, "route.human_data", &route.human_data);
        if route.bootstrap > 0 && route.human_data.is_empty() {
            let message = "draws from `route.human_data`, which names no file".into();
            check.add("route.bootstrap", message);
        }
        if let Some(bound) = route.min_agreement {
            check.share("route.min_agreement", bound, Ends::Both);
            if route.random_share == 0.0 && !route.measures() {
                let message = "is measured on randomly drawn pairs: give `route.random_share`, or `route.human_data` and `route.bootstrap`";
                check.add("route.min_agreement", message.into());
            }
        }
        if route.expert_tags.iter().any(|tag| tag.trim().is_empty()) {
            check.add("route.expert_tags", "must not hold an empty tag".into());
        }
        let mut names = BTreeSet::new();
        for (place, rule) in route.rules.iter().enumerate() {
            if !names.insert(rule.label(place)) {
                check.add(
                    &format!("route.rules[{place}].name"),
                    format!("must differ from those of other rules, got {:?} twice", rule.label(place)),
                );
            }
            self.check_rule(check, &format!("route.rules[{place}]"), rule);
        }
    }

    fn check_rule(&self, check: &mut Checks, section: &str, rule: &RouteRule) {
        let key = |name: &str| format!("{section}.{name}");
        if rule.name.as_ref().is_some_and(|name| name.trim().is_empty()) {
            check.add(&key("name"), "must not be empty".into());
        }
        if rule.tags.iter().any(|tag| tag.trim().is_empty()) {
            check.add(&key("tags"), "must not hold an empty tag".into());
        }
        if let Some(word) = rule.words.iter().find(|word| words_of(word).is_empty()) {
            check.add(&key("words"), format!("must hold letters or digits, got {word:?}"));
        }
        if let Some(share) = rule.random_share {
            check.share(&key("random_share"), share, Ends::Both);
        }
        if let Some(above) = rule.spread_above {
            // p lies in [0, 1], so its standard deviation is at most ½.
            in_half(check, &key("spread_above"), above);
        }
        if let Some(below) = rule.margin_below {
            in_half(check, &key("margin_below"), below);
        }
        match &rule.unsafe_by {
            None if rule.unsafe_below.is_some() => {
                check.add(&key("unsafe_below"), "is read only with `unsafe_by`".into());
            }
            None => {}
            Some(name) => {
                let judge = self.label.judges.iter().find(|judge| judge.name == *name);
                match judge {
                    None => {
                        let message = format!("must name a judge of `label.judges`, got {name:?}");
                        check.add(&key("unsafe_by"), message);
                    }
                    Some(judge) if judge.protocol != Protocol::Rating => {
                        let message = format!("must name a judge with `protocol` = \"rating\", got {name:?}");
                        check.add(&key("unsafe_by"), message);
                    }
                    Some(_) => {}
                }
                if !(1.0..=10.0).contains(&rule.unsafe_below()) {
                    let got = rule.unsafe_below();
                    check.add(&key("unsafe_below"), format!("must be a rating from 1 to 10, got {got}"));
                }
            }
        }
        let narrowed = rule.hears_judges()
            || !rule.tags.is_empty()
            || !rule.words.is_empty()
            || rule.random_share.is_some();
        if !narrowed {
            let message = "must say which pairs it is for: `tags`, `words`, `random_share`, `unsafe_by`, `disagree`, \
                           `spread_above` or `margin_below`";
            check.add(section, message.into());
        }
    }
}

fn in_half(check: &mut Checks, key: &str, value: f64) {
    if !(0.0..=0.5).contains(&value) {
        check.add(key, format!("must be 0 to 0.5, got {value}"));
    }
}
