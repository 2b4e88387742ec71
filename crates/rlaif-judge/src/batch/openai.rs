//! OpenAI's batches: a file of lines, a batch over it, one file of results and one of errors. `vllm run-batch` reads and writes the
//! same lines.

use super::{BatchItem, Found, ItemOutcome, ItemResult, RemoteBatch, odd, read_json, unix};
use crate::chat::CallError;
use crate::http::{Endpoint, Lines};
use crate::json_mend;
use crate::usage::mark_batch;
use serde_json::{Value, json};
use std::time::SystemTime;

/// Where the lines of a batch would be sent one by one.
const URL: &str = "/v1/chat/completions";

/// The key of the metadata that holds the name of the intent.
const INTENT: &str = "rlaif_intent";

/// Pages of 100 batches that are looked through for an intent.
const MOST_PAGES: usize = 50;

/// A provider's clock may be behind ours.
const SKEW_SECONDS: u64 = 3600;

/// The lines of a batch file, as OpenAI and `vllm run-batch` read them.
pub fn export_lines<'a>(items: impl IntoIterator<Item = &'a BatchItem>) -> String {
    let mut lines = String::new();
    for item in items {
        // The body is JSON already, and goes in as it is.
        let id = Value::from(item.custom_id.as_str());
        lines.push_str(&format!(
            "{{\"custom_id\":{id},\"method\":\"POST\",\"url\":\"{URL}\",\"body\":{}}}\n",
            item.body
        ));
    }
    lines
}

pub(super) async fn upload(
    endpoint: &Endpoint,
    name: &str,
    items: &[BatchItem],
) -> Result<String, CallError> {
    let url = endpoint.path("files");
    let lines = export_lines(items);
    // The name is a hash of what is sent, so that it is in none of the lines.
    let boundary = format!("rlaif-{name}");
    let body = format!(
        "--{boundary}\r\ncontent-disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n\
         --{boundary}\r\ncontent-disposition: form-data; name=\"file\"; filename=\"{name}.jsonl\"\r\n\
         content-type: application/jsonl\r\n\r\n{lines}\r\n--{boundary}--\r\n"
    );
    let content_type = format!("multipart/form-data; boundary={boundary}");
    let reply = endpoint.upload(&url, &content_type, body.into_bytes()).await?;
    text_at(&reply.body, "/id").ok_or_else(|| odd(endpoint, "an upload", &reply.body))
}

pub(super) async fn create(endpoint: &Endpoint, name: &str, file: &str) -> Result<RemoteBatch, CallError> {
    let body = json!({
        "input_file_id": file, "endpoint": URL, "completion_window": "24h", "metadata": {INTENT: name},
    });
    let reply = endpoint.post(&endpoint.path("batches"), body.to_string()).await?;
    batch_of(endpoint, &read_json(endpoint, "a batch", &reply.body)?)
}

pub(super) async fn find(endpoint: &Endpoint, name: &str, intended: SystemTime) -> Result<Found, CallError> {
    let mut after: Option<String> = None;
    for _ in 0..MOST_PAGES {
        let mut url = endpoint.path("batches");
        url.query_pairs_mut().append_pair("limit", "100");
        if let Some(after) = &after {
            url.query_pairs_mut().append_pair("after", after);
        }
        let reply = endpoint.get(&url).await?;
        let page = read_json(endpoint, "its list of batches", &reply.body)?;
        let batches = page["data"].as_array().map(Vec::as_slice).unwrap_or_default();
        for batch in batches {
            if batch["metadata"][INTENT] == name {
                return Ok(Found::Batch(batch_of(endpoint, batch)?));
            }
        }
        let oldest = batches.iter().filter_map(|batch| batch["created_at"].as_u64()).min();
        let older = oldest.is_some_and(|oldest| oldest + SKEW_SECONDS < unix(intended));
        after = batches.last().and_then(|batch| batch["id"].as_str()).map(String::from);
        if older || after.is_none() || page["has_more"] != true {
            return Ok(Found::Nothing);
        }
    }
    Ok(Found::Nothing)
}

pub(super) async fn poll(endpoint: &Endpoint, id: &str) -> Result<RemoteBatch, CallError> {
    let reply = endpoint.get(&endpoint.path(&format!("batches/{id}"))).await?;
    batch_of(endpoint, &read_json(endpoint, "a batch", &reply.body)?)
}

pub(super) async fn results(endpoint: &Endpoint, file: &str) -> Result<Lines, CallError> {
    endpoint.lines(&endpoint.path(&format!("files/{file}/content"))).await
}

/// A line of a result or error file; `None` if it is none.
pub fn read_line(line: &[u8]) -> Option<ItemResult> {
    let line = json_mend::parse(line).ok()?;
    let custom_id = line["custom_id"].as_str()?.to_owned();
    let response = &line["response"];
    let status = response["status_code"].as_u64();
    // `vllm run-batch` leaves the body out and says beside it what is wrong, as an error or as a text.
    let words = |value: &Value| {
        let word = value.as_str().or_else(|| value["message"].as_str()).or_else(|| value["code"].as_str());
        word.map(str::to_owned)
    };
    let said = || {
        let body = &response["body"];
        let found =
            words(&body["error"]).or_else(|| words(&body["message"])).or_else(|| words(&line["error"]));
        found.unwrap_or_else(|| "no explanation".into())
    };
    let outcome = match status {
        Some(200) if response["body"].is_object() => {
            ItemOutcome::Replied(mark_batch(response["body"].clone()))
        }
        None | Some(200 | 408 | 409 | 429 | 500..) => ItemOutcome::NotDone(said()),
        Some(_) => ItemOutcome::Refused(said()),
    };
    Some(ItemResult { custom_id, outcome })
}

fn batch_of(endpoint: &Endpoint, batch: &Value) -> Result<RemoteBatch, CallError> {
    let text = |name: &str| batch[name].as_str().filter(|text| !text.is_empty()).map(String::from);
    let (Some(id), Some(word)) = (text("id"), text("status")) else {
        return Err(odd(endpoint, "a batch", batch.to_string().as_bytes()));
    };
    let ended = matches!(word.as_str(), "completed" | "failed" | "expired" | "cancelled");
    let problem = batch["errors"]["data"][0]["message"].as_str().map(|text| endpoint.scrub(text));
    // A batch that ended in any way may have both files, one, or none.
    let results = [text("output_file_id"), text("error_file_id")].into_iter().flatten().collect();
    Ok(RemoteBatch { id, word, ended, results, problem })
}

fn text_at(body: &[u8], path: &str) -> Option<String> {
    json_mend::parse(body).ok()?.pointer(path)?.as_str().map(String::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_openai_and_of_vllm() {
        let outcome = |response: Value, error: Value| {
            let line =
                json!({"id": "x", "custom_id": "a-1", "response": response, "error": error}).to_string();
            read_line(line.as_bytes()).expect("a line").outcome
        };
        let reply = outcome(json!({"status_code": 200, "body": {"choices": []}}), Value::Null);
        assert!(matches!(reply, ItemOutcome::Replied(body) if body.starts_with(b"{\"choices\"")));
        let not_done = |text: &str| ItemOutcome::NotDone(text.into());
        let refused = |text: &str| ItemOutcome::Refused(text.into());
        for (response, error, wanted) in [
            (Value::Null, json!({"code": "batch_expired", "message": "too late"}), not_done("too late")),
            (json!({"status_code": 200, "body": null}), json!({"message": "it died"}), not_done("it died")),
            (json!({"status_code": 500}), json!("no memory"), not_done("no memory")),
            (json!({"status_code": 400}), json!("too long"), refused("too long")),
            (json!({"status_code": 400, "body": {"error": {"message": "odd"}}}), Value::Null, refused("odd")),
            (json!({"status_code": 404}), Value::Null, refused("no explanation")),
        ] {
            assert_eq!(outcome(response, error), wanted);
        }
        for none in ["", "{", "[]", "{\"custom_id\": 3}", "null"] {
            assert_eq!(read_line(none.as_bytes()), None, "{none}");
        }
    }
}
