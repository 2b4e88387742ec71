//! A tokenizer as a GGUF's metadata: `tokenizer.ggml.*`, the other way of [`super::to_tokenizer`].

use serde_json::{Map, Value};

use super::to_tokenizer::{CONTROL, PRE_TOKENIZERS, UNUSED, USER_DEFINED, normalizer, pre_tokenizers};
use super::writer::Entry;
use crate::error::{ModelError, Result};
use crate::tokenizer::Tokenizer;

/// Ordinary tokens (`llama_token_type`).
const NORMAL: i64 = 1;
/// Roles of the tokens that end a generation: of a text, of a turn, of a message before a tool is called.
const ENDS: [&str; 3] = ["eos", "eot", "eom"];

/// The metadata of a tokenizer for an embedding of `rows` rows.
///
/// # Errors
/// If it is not a byte-level BPE that cuts text in one of the ways that llama.cpp has a name for and we know.
pub(super) fn tokenizer_metadata(tokenizer: &Tokenizer, rows: usize) -> Result<Vec<(String, Entry)>> {
    let json = tokenizer.json()?;
    let model = &json["model"];
    let pre = pre_name(&json)?;
    let (tokens, token_types) = tokens(&json, rows)?;
    let key = |name: &str| format!("tokenizer.ggml.{name}");
    let mut metadata = vec![
        (key("model"), Entry::Text("gpt2".into())),
        (key("pre"), Entry::Text(pre.into())),
        (key("tokens"), Entry::Texts(tokens)),
        (key("token_type"), Entry::I32s(token_types)),
        (key("merges"), Entry::Texts(merges(model)?)),
    ];
    let ends = ENDS.into_iter().zip(tokenizer.eos_ids().iter().copied());
    let roles = [("bos", tokenizer.bos()), ("unknown", tokenizer.unk()), ("padding", tokenizer.pad())];
    let named = roles.into_iter().filter_map(|(role, id)| Some((role, id?)));
    for (role, id) in ends.chain(named) {
        metadata.push((key(&format!("{role}_token_id")), Entry::U32(id)));
    }
    // llama.cpp has defaults of its own for each pre-tokenizer, so both are always said.
    let added = tokenizer.added_around_text()?;
    let starts = added.first().is_some_and(|first| Some(*first) == tokenizer.bos());
    let ends = added.last().is_some_and(|last| tokenizer.eos_ids().contains(last));
    metadata.push((key("add_bos_token"), Entry::Bool(starts)));
    metadata.push((key("add_eos_token"), Entry::Bool(ends && added.len() > usize::from(starts))));
    if let Some(template) = tokenizer.chat_template() {
        metadata.push(("tokenizer.chat_template".into(), Entry::Text(template.source().into())));
    }
    Ok(metadata)
}

/// llama.cpp's name for how a `tokenizer.json` cuts text.
fn pre_name(json: &Value) -> Result<&'static str> {
    let model = &json["model"];
    let flag = |name: &str| model.get(name).and_then(Value::as_bool).unwrap_or(false);
    if model["type"] != "BPE" || flag("byte_fallback") {
        let kind = model["type"].as_str().unwrap_or("(none)");
        let what = match flag("byte_fallback") {
            true => format!("a GGUF with a SentencePiece tokenizer (`{kind}` with `byte_fallback`)"),
            false => format!("a GGUF with a tokenizer of type `{kind}`"),
        };
        return Err(ModelError::unsupported(what, "byte-level BPE (SmolLM, Llama 3, Qwen, GPT-2)"));
    }
    let steps = canonical(&json["pre_tokenizer"]);
    let same = |pre: &&str| {
        let known = pre_tokenizers(pre).unwrap_or_default().iter().flat_map(canonical).collect::<Vec<_>>();
        known == steps
            && normalizer(pre) == json["normalizer"]
            && flag("ignore_merges") == (*pre == "llama-bpe")
    };
    PRE_TOKENIZERS.into_iter().find(same).ok_or_else(|| {
        let kinds: Vec<&str> = steps.iter().filter_map(|step| step["type"].as_str()).collect();
        let what = format!("a GGUF with a tokenizer that cuts text by [{}] in its own way", kinds.join(", "));
        let known = PRE_TOKENIZERS.map(|name| format!("`{name}`")).join(", ");
        ModelError::unsupported(what, format!("the ways that llama.cpp calls {known}"))
    })
}

/// The steps of a pre-tokenizer, without what does not move a token's borders.
fn canonical(step: &Value) -> Vec<Value> {
    match step {
        Value::Object(fields) if fields.get("type").is_some_and(|kind| kind == "Sequence") => {
            let steps = fields.get("pretokenizers").and_then(Value::as_array);
            steps.into_iter().flatten().flat_map(canonical).collect()
        }
        Value::Object(fields) => {
            let mut fields: Map<String, Value> = fields.clone();
            fields.remove("trim_offsets");
            if fields.get("type").is_some_and(|kind| kind == "ByteLevel") {
                fields.entry("use_regex").or_insert(Value::Bool(true));
            }
            vec![Value::Object(fields)]
        }
        _ => Vec::new(),
    }
}

/// The text and the type of every row of the embedding; one without a token is `[PAD17]`, as in llama.cpp's converter.
fn tokens(json: &Value, rows: usize) -> Result<(Vec<String>, Vec<i32>)> {
    let mut tokens: Vec<String> = (0..rows).map(|id| format!("[PAD{id}]")).collect();
    let mut types = vec![UNUSED as i32; rows];
    let mut set = |id: Option<u64>, token: &str, kind: i64| {
        let place = id.and_then(|id| usize::try_from(id).ok()).filter(|id| *id < rows).ok_or_else(|| {
            ModelError::tokenizer(format!("the token `{token}` is not one of the model's {rows}"))
        })?;
        tokens[place] = token.to_string();
        types[place] = kind as i32;
        Ok::<(), ModelError>(())
    };
    for (token, id) in json["model"]["vocab"].as_object().into_iter().flatten() {
        set(id.as_u64(), token, NORMAL)?;
    }
    for added in json["added_tokens"].as_array().into_iter().flatten() {
        let kind = if added["special"] == true { CONTROL } else { USER_DEFINED };
        set(added["id"].as_u64(), added["content"].as_str().unwrap_or_default(), kind)?;
    }
    Ok((tokens, types))
}

/// Merges as "left right", from either way that a `tokenizer.json` writes them.
fn merges(model: &Value) -> Result<Vec<String>> {
    let one = |merge: &Value| match merge {
        Value::String(text) => Some(text.clone()),
        Value::Array(pair) => match pair.as_slice() {
            [left, right] => Some(format!("{} {}", left.as_str()?, right.as_str()?)),
            _ => None,
        },
        _ => None,
    };
    let merges = model["merges"].as_array().into_iter().flatten();
    let merges: Option<Vec<String>> = merges.map(one).collect();
    merges.ok_or_else(|| ModelError::tokenizer("`merges` in tokenizer.json has one that is not two tokens"))
}
