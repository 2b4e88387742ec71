//! `rlaif export` of models: what is written opens again as the same model, wrong wishes are refused by name, and nothing is
//! overwritten or left half done.

use crate::common::{Lab, tiny_llama};
use serde_json::Value;
use std::fs;

/// Log-probs that the program gives for a model.
fn logprobs(lab: &Lab, model: &str) -> Vec<f64> {
    let ids = "{\"ids\": [5, 6, 7, 90, 33, 61]}\n";
    let output = lab.rlaif(&["logprobs", model]).write_stdin(ids).output().unwrap();
    let row: Value = serde_json::from_slice(&output.stdout).unwrap();
    row["logprobs"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

fn largest_difference(a: &[f64], b: &[f64]) -> f64 {
    assert!(a.len() == b.len() && !a.is_empty());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

fn names(lab: &Lab) -> Vec<String> {
    let entries = fs::read_dir(lab.path(".")).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn trained_models_go_to_transformers_peft_and_llama_cpp() {
    let lab = Lab::new();
    let lora =
        "[dpo.lora]\nrank = 4\nalpha = 8.0\nuse_rslora = true\ntargets = [\"q_proj\", \"down_proj\"]\n";
    lab.edit("[evaluate]", &format!("{lora}\n[evaluate]"));
    lab.done(&["run", "rlaif.toml", "--until", "dpo"]);
    let kept = "runs/tiny/models/dpo";
    let exact = logprobs(&lab, kept);

    for (arguments, output, tolerance) in [
        (vec![], "whole", 0.0),
        (vec!["--dtype", "bf16"], "bf16", 5e-2),
        (vec!["--dtype", "f16"], "f16", 5e-3),
        (vec!["--format", "gguf", "--dtype", "f32"], "f32.gguf", 1e-6),
        (vec!["--format", "gguf"], "f16.gguf", 5e-3),
        (vec!["--format", "gguf", "--dtype", "q8_0"], "q8_0.gguf", 5e-2),
    ] {
        let command =
            [&["export", "rlaif.toml", "--stage", "dpo", "-o", output], arguments.as_slice()].concat();
        let (stdout, stderr) = lab.done(&command);
        assert_eq!(stdout, "");
        assert!(stderr.contains(&format!("`{output}` is written")), "{stderr}");
        let off = largest_difference(&logprobs(&lab, output), &exact);
        assert!(off <= tolerance, "{output}: off by {off}");
        assert_eq!(off == 0.0, tolerance == 0.0 || output == "f32.gguf", "{output}: off by {off}");
    }
    assert_eq!(fs::read(lab.path("whole/model.safetensors")).unwrap(), lab.weights("dpo"));

    // The adapter, for the base that the config names.
    lab.done(&["export", "rlaif.toml", "--stage", "dpo", "--format", "peft", "-o", "adapter"]);
    let config: Value = serde_json::from_str(&lab.read("adapter/adapter_config.json")).unwrap();
    assert_eq!(config["base_model_name_or_path"], tiny_llama().to_str().unwrap());
    assert_eq!(
        (config["r"].as_u64(), &config["use_rslora"], &config["task_type"]),
        (Some(4), &Value::Bool(true), &Value::from("CAUSAL_LM"))
    );
    assert!(lab.path("adapter/adapter_model.safetensors").is_file());
    let base = ["--base-model", "owner/name@main"];
    let command = ["export", "--model", kept, "--format", "peft", "-o", "named"];
    lab.done(&[command.as_slice(), &base].concat());
    let config: Value = serde_json::from_str(&lab.read("named/adapter_config.json")).unwrap();
    assert_eq!(
        (config["base_model_name_or_path"].as_str(), config["revision"].as_str()),
        (Some("owner/name"), Some("main"))
    );

    // A model outside a run, and back.
    lab.done(&["export", "--model", "f16.gguf", "-o", "back"]);
    assert_eq!(largest_difference(&logprobs(&lab, "back"), &logprobs(&lab, "f16.gguf")), 0.0);

    let before = names(&lab);
    let whole = fs::read(lab.path("whole/model.safetensors")).unwrap();
    for (arguments, expected) in [
        ("--stage dpo", "a model is not written to stdout"),
        ("--what model -o x", "which model of the run?"),
        ("--stage label -o x", "the stage `label` makes no model"),
        ("--stage dpo -o whole", "`whole` is there already"),
        ("--stage dpo --format gguf -o f16.gguf", "`f16.gguf` is there already"),
        ("--stage dpo --dtype q8_0 -o x", "`--dtype q8_0` is for a GGUF"),
        ("--stage reward --format gguf -o x", "a GGUF of a reward model (`score.weight`) is not supported"),
        ("--stage reward --format peft -o x", "has no adapter: it was trained in full"),
        ("--stage dpo -o missing/x", "writing `missing/x`"),
        ("--stage dpo --format gguf -o missing/x.gguf", "writing `missing/x.gguf`"),
    ] {
        let command: Vec<&str> = ["export", "rlaif.toml"].into_iter().chain(arguments.split(' ')).collect();
        let (_, stderr) = lab.ends_with(1, &command);
        assert!(stderr.contains(expected), "`{arguments}` should say `{expected}`:\n{stderr}");
    }
    assert_eq!(names(&lab), before);
    assert_eq!(fs::read(lab.path("whole/model.safetensors")).unwrap(), whole);

    // A run that has not come so far, and a base that only this program opens.
    fs::remove_file(lab.path("runs/tiny/models/dpo/model.safetensors")).unwrap();
    let (_, stderr) = lab.ends_with(1, &["export", "rlaif.toml", "--stage", "dpo", "-o", "x"]);
    assert!(
        stderr.contains("no finished model of the stage `dpo`") && stderr.contains("--until dpo"),
        "{stderr}"
    );
    let path = lab.path("runs/tiny/models/dpo/adapter/adapter_config.json");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace(tiny_llama().to_str().unwrap(), "models/x.gguf")).unwrap();
    let (_, stderr) = lab.ends_with(1, &["export", "--model", kept, "--format", "peft", "-o", "x"]);
    assert!(
        stderr.contains("PEFT cannot open `models/x.gguf`") && stderr.contains("--base-model"),
        "{stderr}"
    );
}

#[test]
fn a_full_disk_leaves_nothing_behind() {
    let lab = Lab::new();
    let model = tiny_llama();
    let model = model.to_str().unwrap();
    // A limit on the size of files is the closest thing to a full disk that a test may have.
    for (format, output) in [("safetensors", "folder"), ("gguf", "file.gguf")] {
        let program = assert_cmd::cargo::cargo_bin("rlaif");
        let script = format!(
            "trap '' XFSZ; ulimit -f 100; exec '{}' export --model '{model}' --format {format} --dtype f32 -o {output}",
            program.display()
        );
        let before = names(&lab);
        let run =
            std::process::Command::new("bash").current_dir(lab.path(".")).args(["-c", &script]).output();
        let run = run.unwrap();
        let stderr = String::from_utf8_lossy(&run.stderr);
        assert!(!run.status.success() && stderr.contains(&format!("writing `{output}`")), "{stderr}");
        assert_eq!(names(&lab), before);
    }
}
