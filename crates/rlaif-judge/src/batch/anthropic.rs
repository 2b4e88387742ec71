//! Anthropic's message batches: all requests in one body, results at a URL of their own. A batch has no name of ours, so that one
//! whose making was not recorded is found by when it was made and how many requests it has, and known by their ids once it has ended.

use super::{BatchItem, Found, ItemOutcome, ItemResult, OpenBatch, RemoteBatch, odd, read_json, unix};
use crate::chat::{CallError, CallErrorKind, CallFate};
use crate::http::{Endpoint, Lines};
use crate::json_mend;
use crate::usage::mark_batch;
use serde_json::Value;

/// How far the provider's clock may be from ours.
const SKEW_SECONDS: u64 = 300;

/// Pages of 100 batches that are looked through for an intent.
const MOST_PAGES: usize = 50;

pub(super) async fn create(endpoint: &Endpoint, items: &[BatchItem]) -> Result<RemoteBatch, CallError> {
    let mut body = String::from("{\"requests\":[");
    for (index, item) in items.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        let id = Value::from(item.custom_id.as_str());
        body.push_str(&format!("{comma}{{\"custom_id\":{id},\"params\":{}}}", item.body));
    }
    body.push_str("]}");
    let reply = endpoint.post(&endpoint.path("messages/batches"), body).await?;
    batch_of(endpoint, &read_json(endpoint, "a batch", &reply.body)?)
}

pub(super) async fn find(endpoint: &Endpoint, open: &OpenBatch) -> Result<Found, CallError> {
    let since = unix(open.intended).saturating_sub(SKEW_SECONDS);
    let mut perhaps = Vec::new();
    let mut after: Option<String> = None;
    for _ in 0..MOST_PAGES {
        let mut url = endpoint.path("messages/batches");
        url.query_pairs_mut().append_pair("limit", "100");
        if let Some(after) = &after {
            url.query_pairs_mut().append_pair("after_id", after);
        }
        let reply = endpoint.get(&url).await?;
        let page = read_json(endpoint, "its list of batches", &reply.body)?;
        let batches = page["data"].as_array().map(Vec::as_slice).unwrap_or_default();
        let mut older = false;
        for batch in batches {
            let created = batch["created_at"].as_str().and_then(seconds);
            older |= created.is_some_and(|created| created < since);
            let counts = batch["request_counts"].as_object();
            let total: u64 = counts.map_or(0, |counts| counts.values().filter_map(Value::as_u64).sum());
            // A time that cannot be read may be any.
            if created.is_none_or(|created| created >= since) && total == open.items as u64 {
                perhaps.push(batch_of(endpoint, batch)?);
            }
        }
        after = page["last_id"].as_str().map(String::from);
        if older || after.is_none() || page["has_more"] != true {
            break;
        }
    }
    perhaps.retain(|batch| !open.others.contains(&batch.id));
    Ok(if perhaps.is_empty() { Found::Nothing } else { Found::Perhaps(perhaps) })
}

pub(super) async fn poll(endpoint: &Endpoint, id: &str) -> Result<RemoteBatch, CallError> {
    let reply = endpoint.get(&endpoint.path(&format!("messages/batches/{id}"))).await?;
    batch_of(endpoint, &read_json(endpoint, "a batch", &reply.body)?)
}

pub(super) async fn results(endpoint: &Endpoint, place: &str) -> Result<Lines, CallError> {
    let Some(url) = endpoint.same_host(place) else {
        let message = format!(
            "`{}` keeps its results at another host, `{}`; the key is not sent there",
            endpoint.path(""),
            endpoint.scrub(place)
        );
        return Err(CallError::new(CallErrorKind::Redirect, CallFate::Rejected, message));
    };
    endpoint.lines(&url).await
}

pub(super) fn read_line(line: &[u8]) -> Option<ItemResult> {
    let line = json_mend::parse(line).ok()?;
    let custom_id = line["custom_id"].as_str()?.to_owned();
    let result = &line["result"];
    let error = &result["error"]["error"];
    let said = || error["message"].as_str().unwrap_or("no explanation").to_owned();
    let outcome = match result["type"].as_str()? {
        "succeeded" => ItemOutcome::Replied(mark_batch(result["message"].clone())),
        "errored" if error["type"] == "invalid_request_error" => ItemOutcome::Refused(said()),
        "errored" => ItemOutcome::NotDone(said()),
        word => ItemOutcome::NotDone(word.to_owned()),
    };
    Some(ItemResult { custom_id, outcome })
}

fn batch_of(endpoint: &Endpoint, batch: &Value) -> Result<RemoteBatch, CallError> {
    let text = |name: &str| batch[name].as_str().filter(|text| !text.is_empty()).map(String::from);
    let (Some(id), Some(word)) = (text("id"), text("processing_status")) else {
        return Err(odd(endpoint, "a batch", batch.to_string().as_bytes()));
    };
    let ended = word == "ended";
    Ok(RemoteBatch { id, word, ended, results: text("results_url").into_iter().collect(), problem: None })
}

/// Seconds since 1970 of `2026-02-25T20:02:37Z`, with or without a fraction.
fn seconds(time: &str) -> Option<u64> {
    let (date, clock) = time.split_once('T')?;
    let mut date = date.split('-').map(|part| part.parse::<u64>().ok());
    let mut clock =
        clock.trim_end_matches('Z').split(':').map(|part| part.split(['.', '+']).next()?.parse::<u64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || year < 1970 {
        return None;
    }
    // Days since 1970, by years that begin in March: Howard Hinnant's `days_from_civil`.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (era, year_of_era) = (year / 400, year % 400);
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = (era * 146_097 + day_of_era).checked_sub(719_468)?;
    Some(days * 86_400 + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_the_list() {
        assert_eq!(seconds("2026-02-25T20:02:37Z"), Some(1_772_049_757));
        assert_eq!(seconds("2024-08-20T18:37:24.100435Z"), Some(1_724_179_044));
        for bad in ["", "2026", "2026-13-01T00:00:00Z", "2026-01-01T", "yesterday"] {
            assert_eq!(seconds(bad), None, "{bad}");
        }
    }
}
