//! Bad input gets a clear error, and nothing is lost.

use crate::common::{Lab, tiny_llama};
use std::fs;

/// Asserts that the output has every piece.
fn has(stderr: &str, pieces: &[&str]) {
    for piece in pieces {
        assert!(stderr.contains(piece), "no `{piece}` in:\n{stderr}");
    }
}

#[test]
fn a_missing_config_says_where_to_start() {
    let (_, stderr) = Lab::new().ends_with(1, &["run", "nothing.toml"]);
    has(&stderr, &["error: there is no config file `nothing.toml`", "hint: "]);
}

#[test]
fn an_unknown_key_names_the_nearest_known_one_and_all_problems_come_at_once() {
    let lab = Lab::new();
    lab.edit("[dpo]\nepochs = 1", "[dpo]\nepochs = 1\nbetta = 0.2");
    lab.edit("n = 4", "n = -4");
    let (_, stderr) = lab.ends_with(1, &["run", "rlaif.toml"]);
    has(&stderr, &["`dpo.betta`", "beta", "generate.n"]);
    assert!(!lab.run_folder().exists(), "nothing was started");
}

#[test]
fn impossible_values_are_told_together_in_the_words_of_the_file() {
    let lab = Lab::new();
    let (_, stderr) =
        lab.ends_with(1, &["run", "rlaif.toml", "--set", "dpo.beta=-0.1", "--set", "ppo.lambda=1.5"]);
    has(&stderr, &["`dpo.beta`", "-0.1", "`ppo.lambda`", "1.5"]);
}

#[test]
fn a_missing_prompt_file_and_an_empty_one_are_told_apart() {
    let lab = Lab::new();
    fs::remove_file(lab.path("prompts.jsonl")).unwrap();
    let (_, stderr) = lab.ends_with(1, &["run", "rlaif.toml"]);
    has(&stderr, &["there is no file `prompts.jsonl`, which `prompts.train` names", "hint: "]);
    lab.write("prompts.jsonl", "\n");
    let (_, stderr) = lab.ends_with(1, &["run", "rlaif.toml"]);
    has(&stderr, &["prompts.jsonl", "no usable row"]);
}

#[test]
fn a_malformed_row_is_kept_aside_and_the_run_goes_on_to_exit_code_1() {
    let lab = Lab::new();
    let mut prompts = lab.read("prompts.jsonl");
    prompts.push_str("{\"prompt\": \n{\"id\": \"long\", \"prompt\": \"");
    prompts.push_str(&"very long ".repeat(50));
    prompts.push_str("\"}\n");
    lab.write("prompts.jsonl", &prompts);
    let (_, stderr) = lab.ends_with(1, &["run", "rlaif.toml", "--until", "generate"]);
    has(&stderr, &["line 13", "prompts.jsonl.rejected.jsonl", "generate: 48 responses to 12 prompts"]);
    let rejected = lab.read("runs/tiny/prompts.jsonl.rejected.jsonl");
    has(&rejected, &["\"line\":13", "long", "tokens"]);
    assert_eq!(rejected.lines().count(), 2);
}

#[test]
fn a_missing_model_says_which_setting_names_it() {
    let lab = Lab::new();
    let (_, stderr) = lab.ends_with(1, &["run", "rlaif.toml", "--set", "policy.model=models/nowhere.gguf"]);
    has(&stderr, &["models/nowhere.gguf", "policy.model"]);
}

#[test]
fn a_truncated_model_is_refused() {
    let lab = Lab::new();
    fs::create_dir(lab.path("broken")).unwrap();
    for file in ["config.json", "tokenizer.json", "tokenizer_config.json"] {
        fs::copy(tiny_llama().join(file), lab.path("broken").join(file)).unwrap();
    }
    let weights = fs::read(tiny_llama().join("model.safetensors")).unwrap();
    fs::write(lab.path("broken/model.safetensors"), &weights[..weights.len() / 2]).unwrap();
    let (_, stderr) = lab.ends_with(1, &["run", "rlaif.toml", "--set", "policy.model=broken"]);
    has(&stderr, &["broken", "safetensors"]);
}

#[test]
fn a_tokenizer_that_does_not_fit_the_model_is_refused() {
    let lab = Lab::new();
    fs::create_dir(lab.path("odd")).unwrap();
    for file in ["config.json", "tokenizer_config.json", "model.safetensors"] {
        fs::copy(tiny_llama().join(file), lab.path("odd").join(file)).unwrap();
    }
    // A token beyond the 320 rows of the model's embedding.
    let tokenizer = fs::read_to_string(tiny_llama().join("tokenizer.json")).unwrap();
    let with_more = tokenizer.replace("\"\u{143}\": 259", "\"\u{143}\": 259, \"zz\": 400");
    assert_ne!(tokenizer, with_more);
    fs::write(lab.path("odd/tokenizer.json"), with_more).unwrap();
    let (_, stderr) = lab.ends_with(1, &["run", "rlaif.toml", "--set", "policy.model=odd"]);
    has(&stderr, &["tokenizer", "320"]);
}

#[test]
fn a_stage_without_what_it_reads_says_what_to_run_first() {
    let lab = Lab::new();
    let (_, stderr) = lab.ends_with(1, &["label", "rlaif.toml"]);
    has(&stderr, &["stage `label` needs `generate`, which has not run", "hint: Run `rlaif generate CONFIG`"]);
    lab.done(&["generate", "rlaif.toml"]);
    let (_, stderr) = lab.ends_with(1, &["run", "rlaif.toml", "--from", "ppo"]);
    has(&stderr, &["needs `reward`, which has not run"]);
    let (_, stderr) = lab.ends_with(1, &["label", "rlaif.toml", "--set", "generate.temperature=0.7"]);
    has(&stderr, &["was run with other settings"]);
}

#[test]
fn two_processes_never_share_a_run() {
    let lab = Lab::new();
    fs::create_dir_all(lab.run_folder()).unwrap();
    let lock = fs::File::create(lab.run_folder().join(".lock")).unwrap();
    lock.lock().unwrap();
    let (_, stderr) = lab.ends_with(1, &["run", "rlaif.toml"]);
    has(&stderr, &["is in use by another rlaif", "hint: "]);
}

#[test]
fn a_run_folder_that_cannot_be_written_is_an_error_with_its_path() {
    let lab = Lab::new();
    lab.write("runs", "a file where the folder should be");
    let (_, stderr) = lab.ends_with(1, &["run", "rlaif.toml"]);
    has(&stderr, &["runs/tiny"]);
}

/// `/dev/full` answers every write with "no space left on device".
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_told_and_what_is_finished_is_kept() {
    let lab = Lab::new();
    lab.done(&["run", "rlaif.toml", "--until", "label"]);
    let output = lab.rlaif(&["export", "rlaif.toml", "-o", "/dev/full"]).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    has(&stderr, &["/dev/full"]);
    let (preferences, _) = lab.done(&["export", "rlaif.toml"]);
    assert!(!preferences.is_empty());
}

/// Training all weights of a real model takes more than 1.5 GB of addresses, which is all that it gets.
#[cfg(target_os = "linux")]
#[test]
fn where_memory_ends_the_setting_to_lower_is_told() {
    let kept = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/SmolLM2-135M-Instruct.Q4_1.gguf");
    let model = std::env::var("RLAIF_MODEL").unwrap_or_else(|_| kept.into());
    if !std::path::Path::new(&model).is_file() {
        println!("skipped: no model at {model}; scripts/quickstart fetches it, or set RLAIF_MODEL");
        return;
    }
    let lab = Lab::new();
    lab.write("sft.jsonl", "{\"prompt\": \"Say hello.\", \"completion\": \"Hello.\"}\n");
    let model = format!("policy.model={model}");
    let program = assert_cmd::cargo::cargo_bin("rlaif");
    let set = ["--set", &model, "--set", "sft.data=[\"sft.jsonl\"]", "--set", "sft.holdout_fraction=0"];
    let output = std::process::Command::new("sh")
        .args(["-c", "ulimit -v 1500000; exec \"$@\"", "sh"])
        .arg(program)
        .args(["sft", "rlaif.toml"])
        .args(set)
        .env("RAYON_NUM_THREADS", "2")
        .current_dir(lab.path("."))
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    has(
        &stderr,
        &["out of memory", "`sft.micro_batch_size`", "[sft.lora]", "goes on from the last checkpoint"],
    );
}

#[test]
fn a_wrong_command_line_is_exit_code_1_and_help_is_0() {
    let lab = Lab::new();
    lab.ends_with(1, &["run"]);
    lab.ends_with(1, &["frobnicate"]);
    let (stdout, _) = lab.done(&["--help"]);
    assert!(stdout.contains("Run the whole pipeline"), "{stdout}");
}
