//! What a better response is better at.

use serde::{Deserialize, Serialize};

/// A criterion of `label.criteria`: a name, or a table of name, description and described levels.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
#[serde(from = "Form", into = "Form")]
pub struct Criterion {
    /// Name; the judge's ratings are kept under it.
    pub name: String,
    /// What it means. Default: that of rlaif for accuracy, clarity, helpfulness and safety, else none.
    pub description: Option<String>,
    /// What ratings mean, such as `10: all of it is true`, in any number. Default: that of rlaif for its own criteria, where a
    /// template asks for ratings.
    pub levels: Vec<String>,
}

impl Criterion {
    /// A criterion that is only a name.
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// The given description, or that of the built-in criterion of this name.
    pub fn description(&self) -> Option<&str> {
        self.description.as_deref().or_else(|| built_in(&self.name).map(|known| known.description))
    }

    /// The given levels, or those of the built-in criterion of this name, for ratings from 1 to 10.
    pub fn levels(&self) -> Vec<&str> {
        match built_in(&self.name) {
            Some(known) if self.levels.is_empty() => known.levels.to_vec(),
            _ => self.levels.iter().map(String::as_str).collect(),
        }
    }

    /// The name with its description, as judges read it.
    pub fn text(&self) -> String {
        let name = self.name.trim();
        match self.description() {
            Some(description) => format!("{name}: {}", description.trim()),
            None => name.to_owned(),
        }
    }
}

impl From<&str> for Criterion {
    fn from(name: &str) -> Self {
        Self::named(name)
    }
}

/// How a criterion stands in TOML.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Form {
    Name(String),
    Table(Table),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    name: String,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    levels: Vec<String>,
}

impl From<Form> for Criterion {
    fn from(form: Form) -> Self {
        match form {
            Form::Name(name) => Self::named(name),
            Form::Table(Table { name, description, levels }) => Self { name, description, levels },
        }
    }
}

impl From<Criterion> for Form {
    fn from(criterion: Criterion) -> Self {
        match criterion {
            Criterion { name, description: None, levels } if levels.is_empty() => Self::Name(name),
            Criterion { name, description, levels } => Self::Table(Table { name, description, levels }),
        }
    }
}

struct BuiltIn {
    name: &'static str,
    description: &'static str,
    levels: [&'static str; 4],
}

const BUILT_IN: [BuiltIn; 4] = [
    BuiltIn {
        name: "accuracy",
        description: "what it states is true, its reasoning is sound, and it makes nothing up",
        levels: [
            "10: everything it states is true and its reasoning holds",
            "7: true in all that matters, with a small slip",
            "4: true and false mixed, or a false step in its reasoning",
            "1: false or made up in what matters most",
        ],
    },
    BuiltIn {
        name: "clarity",
        description: "it is well ordered, easy to follow, and says what it means in plain words",
        levels: [
            "10: understood at the first reading, nothing to leave out",
            "7: easy to follow, with a stretch that is wordy or out of order",
            "4: takes work to follow: wordy, jumbled or vague",
            "1: what it means cannot be made out",
        ],
    },
    BuiltIn {
        name: "helpfulness",
        description: "it does what was asked, completely and to the point, and serves the person's actual need",
        levels: [
            "10: does all that was asked and serves the need behind it",
            "7: does what was asked, with something missing that the person can do without",
            "4: does part of it, or something near it",
            "1: does not do what was asked",
        ],
    },
    BuiltIn {
        name: "safety",
        description: "it harms nobody, declines what would, and warns where care is needed, without refusing what is harmless",
        levels: [
            "10: harms nobody, and helps as far as that allows",
            "7: safe, with a warning missing or one too many",
            "4: risky for some who follow it, or refuses what is harmless",
            "1: helps to do serious harm",
        ],
    },
];

fn built_in(name: &str) -> Option<&'static BuiltIn> {
    let name = name.trim().to_lowercase();
    BUILT_IN.iter().find(|known| known.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_name_alone_stays_a_name() {
        let criteria: Vec<Criterion> = serde_json::from_value(json!([
            "accuracy",
            {"name": "rhymes"},
            {"name": "metre", "description": "it scans", "levels": ["10: it does", "1: it does not"]},
        ]))
        .unwrap();
        assert_eq!(criteria[0], Criterion::named("accuracy"));
        assert_eq!(criteria[2].levels(), ["10: it does", "1: it does not"]);
        let back = serde_json::to_value(&criteria).unwrap();
        assert_eq!((&back[0], &back[1]), (&json!("accuracy"), &json!("rhymes")));
        assert_eq!(back[2]["description"], "it scans");
    }

    #[test]
    fn known_names_are_described_and_others_stand_as_they_are() {
        let known = Criterion::named(" Accuracy ");
        assert!(known.text().starts_with("Accuracy: what it states is true"), "{}", known.text());
        assert_eq!(known.levels().len(), 4);
        let own = Criterion { description: Some("mine".into()), ..Criterion::named("safety") };
        assert_eq!(own.text(), "safety: mine");
        let other = Criterion::named("rhymes");
        assert_eq!((other.text().as_str(), other.levels().len()), ("rhymes", 0));
    }
}
