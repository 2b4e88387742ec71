//! The tokenizer that a GGUF carries, as the contents of a `tokenizer.json`.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use super::reader::{Gguf, GgufValue};
use crate::error::{ModelError, Result};

/// A GGUF's tokenizer in the words of transformers.
pub(crate) struct GgufTokenizer {
    /// What a `tokenizer.json` would hold.
    pub json: Value,
    /// Token of each role, where the file names one.
    pub bos: Option<u32>,
    pub eos: Vec<u32>,
    pub pad: Option<u32>,
    pub unk: Option<u32>,
    /// Jinja source.
    pub chat_template: Option<String>,
}

/// `token_type` values (`llama_token_type`): control tokens are special; user-defined ones are matched whole; unused ones are rows
/// of the embedding without a token.
pub(super) const CONTROL: i64 = 3;
pub(super) const USER_DEFINED: i64 = 4;
pub(super) const UNUSED: i64 = 5;

/// Splits on letters, digits and the rest: GPT-2's expression.
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
/// Llama 3's, with digits in threes.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Qwen 2's, with digits one by one.
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Reads `tokenizer.ggml.*`.
///
/// # Errors
/// If the tokenizer is not a byte-level BPE with a pre-tokenizer we know, or its lists contradict each other.
pub(crate) fn tokenizer_from_gguf(gguf: &Gguf) -> Result<GgufTokenizer> {
    match gguf.get("tokenizer.ggml.model").and_then(GgufValue::as_str) {
        Some("gpt2") => {}
        other => {
            let what = format!("tokenizer `{}` (`tokenizer.ggml.model`)", other.unwrap_or("(none)"));
            return Err(ModelError::unsupported(what, "`gpt2` (byte-level BPE)"));
        }
    }
    let pre = gguf.get("tokenizer.ggml.pre").and_then(GgufValue::as_str).unwrap_or("default");
    let Some(pre_tokenizers) = pre_tokenizers(pre) else {
        let known = PRE_TOKENIZERS.map(|name| format!("`{name}`")).join(", ");
        return Err(ModelError::unsupported(format!("pre-tokenizer `{pre}` (`tokenizer.ggml.pre`)"), known));
    };

    let tokens = strings(gguf, "tokenizer.ggml.tokens")?;
    let merges = strings(gguf, "tokenizer.ggml.merges")?;
    let merges = merges.iter().map(|merge| split_merge(merge)).collect::<Result<Vec<Value>>>()?;
    let unique: HashSet<&str> = tokens.iter().copied().collect();
    if unique.len() != tokens.len() {
        return Err(ModelError::tokenizer("`tokenizer.ggml.tokens` has a token twice"));
    }
    let types = token_types(gguf, tokens.len())?;
    let used = |id: &usize| types.is_none_or(|types| types[*id] != GgufValue::Signed(UNUSED));
    let vocab: Map<String, Value> = (0..tokens.len())
        .filter(used) // a row without a token is called `[PAD17]`, which no text may become
        .map(|id| (tokens[id].to_string(), json!(id)))
        .collect();

    let json = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added_tokens(types.unwrap_or_default(), &tokens)?,
        "normalizer": normalizer(pre),
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": pre_tokenizers},
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": null,
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": false,
            "byte_fallback": false,
            "ignore_merges": pre == "llama-bpe",
            "vocab": vocab,
            "merges": merges,
        },
    });
    let id = |role: &str| token_id(gguf, role, tokens.len());
    let mut eos: Vec<u32> = Vec::new();
    for role in ["eos", "eot", "eom"] {
        eos.extend(id(role)?.filter(|found| !eos.contains(found)));
    }
    let chat_template = gguf.get("tokenizer.chat_template").and_then(GgufValue::as_str).map(String::from);
    Ok(GgufTokenizer { json, bos: id("bos")?, eos, pad: id("padding")?, unk: id("unknown")?, chat_template })
}

/// The pre-tokenizers that we know, by llama.cpp's names.
pub(super) const PRE_TOKENIZERS: [&str; 5] = ["default", "gpt-2", "smollm", "llama-bpe", "qwen2"];

/// How text is cut before merges, in the words of `tokenizer.json`.
pub(super) fn pre_tokenizers(pre: &str) -> Option<Vec<Value>> {
    let split = |pattern: &str| json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
    let bytes = |use_regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex});
    Some(match pre {
        // llama.cpp cuts what is left of one expression by the next.
        "default" => vec![
            split(r"[\p{P}\$\+<=>\^~\|]+"),
            split(GPT2.strip_suffix(r"|\s+").unwrap_or(GPT2)),
            split(r"\p{N}+"),
            split("[0-9][0-9][0-9]"),
            bytes(false),
        ],
        "gpt-2" => vec![bytes(true)],
        "smollm" => vec![json!({"type": "Digits", "individual_digits": true}), bytes(true)],
        "llama-bpe" => vec![split(LLAMA3), bytes(false)],
        "qwen2" => vec![split(QWEN2), bytes(false)],
        _ => return None,
    })
}

/// What becomes of text before it is cut.
pub(super) fn normalizer(pre: &str) -> Value {
    if pre == "qwen2" { json!({"type": "NFC"}) } else { Value::Null }
}

/// The type of each token, where the file has them.
fn token_types(gguf: &Gguf, tokens: usize) -> Result<Option<&[GgufValue]>> {
    let Some(types) = gguf.get("tokenizer.ggml.token_type") else {
        return Ok(None);
    };
    let types = types.as_array().filter(|types| types.len() == tokens);
    types.map(Some).ok_or_else(|| {
        ModelError::tokenizer(
            "`tokenizer.ggml.token_type` must be an array as long as `tokenizer.ggml.tokens`",
        )
    })
}

fn added_tokens(types: &[GgufValue], tokens: &[&str]) -> Result<Vec<Value>> {
    let mut added = Vec::new();
    for (id, (token, kind)) in tokens.iter().zip(types).enumerate() {
        let special = match kind {
            GgufValue::Signed(CONTROL) => true,
            GgufValue::Signed(USER_DEFINED) => false,
            _ => continue,
        };
        if token.is_empty() {
            return Err(ModelError::tokenizer(format!("the control token {id} is empty")));
        }
        added.push(json!({
            "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": special,
        }));
    }
    Ok(added)
}

/// "left right" as a pair; a merge's parts hold no spaces, which byte-level BPE writes as `Ġ`.
fn split_merge(merge: &str) -> Result<Value> {
    match merge.split_once(' ') {
        Some((left, right)) if !left.is_empty() && !right.is_empty() && !right.contains(' ') => {
            Ok(json!([left, right]))
        }
        _ => Err(ModelError::tokenizer(format!(
            "`tokenizer.ggml.merges` has `{merge}`, which is not two tokens"
        ))),
    }
}

fn strings<'a>(gguf: &'a Gguf, key: &str) -> Result<Vec<&'a str>> {
    let values = gguf.get(key).and_then(GgufValue::as_array);
    let strings: Option<Vec<&str>> = values.and_then(|values| values.iter().map(GgufValue::as_str).collect());
    strings.ok_or_else(|| ModelError::tokenizer(format!("`{key}` must be an array of strings")))
}

fn token_id(gguf: &Gguf, role: &str, num_tokens: usize) -> Result<Option<u32>> {
    let key = format!("tokenizer.ggml.{role}_token_id");
    match gguf.get(&key).map(GgufValue::as_u64) {
        None => Ok(None),
        Some(Some(id)) if id == u64::from(u32::MAX) => Ok(None), // how some converters write -1
        Some(Some(id)) if id < num_tokens as u64 => Ok(Some(id as u32)),
        Some(_) => Err(ModelError::tokenizer(format!("`{key}` is not one of the {num_tokens} tokens"))),
    }
}
