//! What people say of pairs. It was bought with their time: nothing here is ever deleted, and a verdict that is taken back stays as
//! one that was.

use super::{Store, from_json, from_word, to_json, transaction, word};
use crate::{Result, StoreError};
use rlaif_core::people::{HumanChoice, PairKey, Votes};
use rlaif_core::records::{Pair, PromptText};
use sqlx::FromRow;
use std::collections::{BTreeMap, HashMap};

/// Pairs that are read at once, with their texts.
const PAGE: i64 = 1000;

/// A verdict that a person has just given. Which text is `first` follows from [`PairKey`].
#[derive(Debug, Clone, PartialEq)]
pub struct NewHumanVerdict<'a> {
    /// What was asked.
    pub prompt: &'a PromptText,
    /// Response a.
    pub a: &'a str,
    /// Response b.
    pub b: &'a str,
    /// Who says so.
    pub reviewer: &'a str,
    /// The queue in which they met the pair.
    pub queue: &'a str,
    /// Whether a stood on the left.
    pub a_left: bool,
    /// What was said, of a (first) and b (second).
    pub choice: HumanChoice,
    /// The same for single criteria, where the person said something.
    pub criteria: &'a BTreeMap<String, HumanChoice>,
    /// In the person's own words.
    pub note: Option<&'a str>,
    /// When the pair was first on the screen; ms since 1970.
    pub shown_ms: i64,
    /// When it was judged.
    pub judged_ms: i64,
}

/// A verdict of a person, about the two texts in the order of bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct HumanVerdict {
    /// Its number: later ones are larger.
    pub id: i64,
    /// The pair's [`PairKey`].
    pub pair_key: String,
    /// Who said so.
    pub reviewer: String,
    /// The queue in which they met the pair.
    pub queue: String,
    /// Whether the first text stood on the left.
    pub first_left: bool,
    /// What was said.
    pub choice: HumanChoice,
    /// The same for single criteria.
    pub criteria: BTreeMap<String, HumanChoice>,
    /// In the person's own words.
    pub note: Option<String>,
    /// When the pair was on the screen; ms since 1970.
    pub shown_ms: i64,
    /// When it was judged.
    pub judged_ms: i64,
    /// When it was taken back, or replaced by another of the same person.
    pub undone_ms: Option<i64>,
}

/// What people were shown.
#[derive(Debug, Clone, PartialEq)]
pub struct ReviewedPair {
    /// What was asked.
    pub prompt: PromptText,
    /// The text that comes first.
    pub first: String,
    /// The other.
    pub second: String,
}

/// A pair that people can be shown.
#[derive(Debug, Clone, PartialEq)]
pub struct ReviewPair {
    /// The pair.
    pub pair: Pair,
    /// Its name among people.
    pub key: PairKey,
    /// The tags of its prompt.
    pub tags: Vec<String>,
}

impl Store {
    /// Stores a verdict; an earlier one of the same person on the same pair no longer stands. Returns its number.
    ///
    /// # Errors
    /// If it cannot be written.
    pub async fn put_human_verdict(&self, new: &NewHumanVerdict<'_>) -> Result<i64> {
        const DOING: &str = "storing a person's verdict";
        let key = PairKey::of(new.prompt, new.a, new.b);
        let turned = |choice: HumanChoice| if key.a_first { choice } else { choice.swapped() };
        let (first, second) = if key.a_first { (new.a, new.b) } else { (new.b, new.a) };
        let criteria: BTreeMap<&String, HumanChoice> =
            new.criteria.iter().map(|(name, choice)| (name, turned(*choice))).collect();
        let id = transaction!(self, DOING, |tx| {
            sqlx::query("INSERT INTO reviewed_pairs VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING")
                .bind(&key.hash)
                .bind(to_json("reviewed_pairs", new.prompt)?)
                .bind(first)
                .bind(second)
                .execute(&mut *tx)
                .await
                .map_err(|e| self.fail(DOING, e))?;
            sqlx::query(
                "UPDATE human_verdicts SET undone_ms = ? WHERE pair_key = ? AND reviewer = ? AND undone_ms IS NULL",
            )
            .bind(new.judged_ms)
            .bind(&key.hash)
            .bind(new.reviewer)
            .execute(&mut *tx)
            .await
            .map_err(|e| self.fail(DOING, e))?;
            sqlx::query_scalar(
                "INSERT INTO human_verdicts (pair_key, reviewer, queue, on_left, choice, criteria, note, shown_ms, judged_ms)
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING id",
            )
            .bind(&key.hash)
            .bind(new.reviewer)
            .bind(new.queue)
            .bind(if new.a_left == key.a_first { "first" } else { "second" })
            .bind(word("human_verdicts", &turned(new.choice))?)
            .bind(to_json("human_verdicts", &criteria)?)
            .bind(new.note)
            .bind(new.shown_ms)
            .bind(new.judged_ms)
            .fetch_one(&mut *tx)
            .await
            .map_err(|e| self.fail(DOING, e))?
        });
        Ok(id)
    }

    /// Takes back the newest standing verdict of a person, and returns it; `None` if none stands.
    ///
    /// # Errors
    /// If it cannot be written.
    pub async fn undo_human_verdict(&self, reviewer: &str, undone_ms: i64) -> Result<Option<HumanVerdict>> {
        let mut connection = self.lock().await;
        let row: Option<VerdictRow> = sqlx::query_as(
            "UPDATE human_verdicts SET undone_ms = ?1 WHERE id = (
                 SELECT max(id) FROM human_verdicts WHERE reviewer = ?2 AND undone_ms IS NULL)
             RETURNING *",
        )
        .bind(undone_ms)
        .bind(reviewer)
        .fetch_optional(&mut *connection)
        .await
        .map_err(|e| self.fail("taking a person's verdict back", e))?;
        row.map(HumanVerdict::try_from).transpose()
    }

    /// All verdicts of people in the order in which they were given, also those that were taken back.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn human_verdicts(&self) -> Result<Vec<HumanVerdict>> {
        if !self.has_people().await? {
            return Ok(Vec::new());
        }
        let mut connection = self.lock().await;
        let rows: Vec<VerdictRow> = sqlx::query_as("SELECT * FROM human_verdicts ORDER BY id")
            .fetch_all(&mut *connection)
            .await
            .map_err(|e| self.fail("reading people's verdicts", e))?;
        rows.into_iter().map(HumanVerdict::try_from).collect()
    }

    /// What people were shown, by [`PairKey`].
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn reviewed_pairs(&self) -> Result<HashMap<String, ReviewedPair>> {
        if !self.has_people().await? {
            return Ok(HashMap::new());
        }
        let mut connection = self.lock().await;
        let rows: Vec<(String, String, String, String)> =
            sqlx::query_as("SELECT pair_key, prompt, first, second FROM reviewed_pairs")
                .fetch_all(&mut *connection)
                .await
                .map_err(|e| self.fail("reading reviewed pairs", e))?;
        rows.into_iter()
            .map(|(key, prompt, first, second)| {
                Ok((key, ReviewedPair { prompt: from_json("reviewed_pairs", &prompt)?, first, second }))
            })
            .collect()
    }

    /// How people voted on the pairs of a set, by pair; pairs without votes are not in it.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn human_votes(&self, set: &str) -> Result<BTreeMap<String, (Pair, Votes)>> {
        let mut standing: HashMap<String, Vec<HumanVerdict>> = HashMap::new();
        for verdict in self.human_verdicts().await? {
            if verdict.undone_ms.is_none() && verdict.choice != HumanChoice::Skip {
                standing.entry(verdict.pair_key.clone()).or_default().push(verdict);
            }
        }
        if standing.is_empty() {
            return Ok(BTreeMap::new());
        }
        let mut votes = BTreeMap::new();
        for ReviewPair { pair, key, .. } in self.review_pairs(set).await? {
            let Some(verdicts) = standing.get(&key.hash) else { continue };
            let mut of_pair = Votes::default();
            for verdict in verdicts {
                of_pair.add(if key.a_first { verdict.choice } else { verdict.choice.swapped() });
                of_pair.note = of_pair.note.or_else(|| verdict.note.clone());
            }
            votes.insert(pair.id.clone(), (pair, of_pair));
        }
        Ok(votes)
    }

    /// The pairs of a set as people can be shown them, in the order of prompts, then of storing. Their texts are read and not kept.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn review_pairs(&self, set: &str) -> Result<Vec<ReviewPair>> {
        let mut pairs = Vec::new();
        let mut after = (-1_i64, -1_i64);
        loop {
            let mut connection = self.lock().await;
            let rows: Vec<TextsRow> = sqlx::query_as(
                "SELECT p.seq AS prompt_seq, r.seq AS pair_seq, r.id, r.prompt_id, r.a, r.b, p.prompt, p.tags,
                        sa.text AS a_text, sb.text AS b_text
                 FROM pairs r JOIN prompts p ON p.id = r.prompt_id
                 JOIN responses sa ON sa.id = r.a JOIN responses sb ON sb.id = r.b
                 WHERE r.pair_set = ?1 AND (p.seq, r.seq) > (?2, ?3) ORDER BY p.seq, r.seq LIMIT ?4",
            )
            .bind(set)
            .bind(after.0)
            .bind(after.1)
            .bind(PAGE)
            .fetch_all(&mut *connection)
            .await
            .map_err(|e| self.fail("reading pairs", e))?;
            drop(connection);
            let Some(last) = rows.last() else { return Ok(pairs) };
            after = (last.prompt_seq, last.pair_seq);
            for row in rows {
                let prompt: PromptText = from_json("prompts", &row.prompt)?;
                pairs.push(ReviewPair {
                    key: PairKey::of(&prompt, &row.a_text, &row.b_text),
                    tags: from_json("prompts", &row.tags)?,
                    pair: Pair { id: row.id, prompt_id: row.prompt_id, a: row.a, b: row.b },
                });
            }
        }
    }

    /// The prompt of a pair and its texts a and b; `None` if there is no such pair.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn pair_texts(&self, pair_id: &str) -> Result<Option<(PromptText, String, String)>> {
        let mut connection = self.lock().await;
        let row: Option<(String, String, String)> = sqlx::query_as(
            "SELECT p.prompt, sa.text, sb.text FROM pairs r JOIN prompts p ON p.id = r.prompt_id
             JOIN responses sa ON sa.id = r.a JOIN responses sb ON sb.id = r.b WHERE r.id = ?",
        )
        .bind(pair_id)
        .fetch_optional(&mut *connection)
        .await
        .map_err(|e| self.fail("reading a pair", e))?;
        row.map(|(prompt, a, b)| Ok((from_json("prompts", &prompt)?, a, b))).transpose()
    }

    /// The names of the sets of pairs.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn pair_sets(&self) -> Result<Vec<String>> {
        let mut connection = self.lock().await;
        sqlx::query_scalar("SELECT DISTINCT pair_set FROM pairs ORDER BY 1")
            .fetch_all(&mut *connection)
            .await
            .map_err(|e| self.fail("reading pairs", e))
    }

    /// Whether the ledger has the tables of people: one of an older layout that is only read has not.
    async fn has_people(&self) -> Result<bool> {
        let mut connection = self.lock().await;
        let tables: i64 =
            sqlx::query_scalar("SELECT count(*) FROM sqlite_schema WHERE name = 'human_verdicts'")
                .fetch_one(&mut *connection)
                .await
                .map_err(|e| self.fail("reading people's verdicts", e))?;
        Ok(tables > 0)
    }
}

#[derive(FromRow)]
struct TextsRow {
    prompt_seq: i64,
    pair_seq: i64,
    id: String,
    prompt_id: String,
    a: String,
    b: String,
    prompt: String,
    tags: String,
    a_text: String,
    b_text: String,
}

#[derive(FromRow)]
struct VerdictRow {
    id: i64,
    pair_key: String,
    reviewer: String,
    queue: String,
    on_left: String,
    choice: String,
    criteria: String,
    note: Option<String>,
    shown_ms: i64,
    judged_ms: i64,
    undone_ms: Option<i64>,
}

impl TryFrom<VerdictRow> for HumanVerdict {
    type Error = StoreError;

    fn try_from(row: VerdictRow) -> Result<Self> {
        let VerdictRow { id, pair_key, reviewer, queue, note, shown_ms, judged_ms, undone_ms, .. } = row;
        let choice = from_word("human_verdicts", row.choice)?;
        let criteria = from_json("human_verdicts", &row.criteria)?;
        let first_left = row.on_left == "first";
        Ok(Self {
            id,
            pair_key,
            reviewer,
            queue,
            first_left,
            choice,
            criteria,
            note,
            shown_ms,
            judged_ms,
            undone_ms,
        })
    }
}
