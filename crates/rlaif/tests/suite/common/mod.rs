//! A run small enough for tests: the golden Llama (48 wide, 2 layers, byte tokenizer), 12 prompts, a contrastive judge.

use assert_cmd::Command;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tempfile::TempDir;

/// A folder with `rlaif.toml` and prompts, in which commands run.
pub struct Lab {
    folder: TempDir,
}

/// The text that a judge is shown under a label.
pub fn shown_response<'a>(shown: &'a str, label: &str) -> &'a str {
    let from = &shown[shown.find(&format!("<response_{label}_")).unwrap()..];
    from[from.find('>').unwrap() + 1..from.find("</response").unwrap()].trim()
}

/// The golden model's folder.
pub fn tiny_llama() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../rlaif-model/tests/golden/models/llama")
        .canonicalize()
        .unwrap()
}

impl Lab {
    /// A complete lab.
    pub fn new() -> Self {
        let lab = Self { folder: tempfile::tempdir().unwrap() };
        let prompts: Vec<String> =
            (1..=12).map(|i| format!("{{\"id\": \"train-{i:02}\", \"prompt\": \"Say {i}\"}}\n")).collect();
        lab.write("prompts.jsonl", &prompts.concat());
        let prompts: Vec<String> =
            (1..=4).map(|i| format!("{{\"id\": \"eval-{i}\", \"prompt\": \"Tell {i}\"}}\n")).collect();
        lab.write("eval.jsonl", &prompts.concat());
        let probe: Vec<String> = (1..=4)
            .map(|i| {
                format!(
                    "{{\"prompt\": \"Ask {i}\", \"better\": \"Yes, gladly\", \"worse\": \"No, go away\"}}\n"
                )
            })
            .collect();
        lab.write("probe.jsonl", &probe.concat());
        lab.write("rlaif.toml", &config());
        lab
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn run_folder(&self) -> PathBuf {
        self.path("runs/tiny")
    }

    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// Replaces a piece of the config.
    pub fn edit(&self, from: &str, to: &str) {
        let text = self.read("rlaif.toml");
        assert!(text.contains(from), "the config has no `{from}`");
        self.write("rlaif.toml", &text.replace(from, to));
    }

    /// Puts other `[[label.judges]]` in place of the config's, and these lines of `[label]` in place of its probe.
    pub fn judged_by(&self, judges: &str, label: &str) {
        let text = self.read("rlaif.toml");
        let (before, rest) = text.split_once("[[label.judges]]").unwrap();
        let (_, after) = rest.split_once("[reward]").unwrap();
        let before = before.replace("probe = \"probe.jsonl\"\n", label);
        self.write("rlaif.toml", &format!("{before}{judges}\n[reward]{after}"));
    }

    /// The program, in this folder.
    pub fn rlaif(&self, args: &[&str]) -> Command {
        let mut command = Command::cargo_bin("rlaif").unwrap();
        command
            .current_dir(self.folder.path())
            .args(args)
            .env_remove("RUST_LOG")
            .env("RAYON_NUM_THREADS", "2");
        command
    }

    /// The program as a plain process that can be killed.
    pub fn process(&self, args: &[&str]) -> std::process::Command {
        let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin("rlaif"));
        command.current_dir(self.folder.path()).args(args).env("RAYON_NUM_THREADS", "2");
        command
    }

    /// Starts a command again and again and ends it with kill -9, each time after one `parts`-th of `whole` more, until it ends by itself;
    /// returns how often it was killed.
    pub fn killed_until_done(&self, args: &[&str], whole: Duration, parts: u32) -> usize {
        for (kills, patience) in (1..=60).map(|n| whole * n / parts).enumerate() {
            let mut child = self.process(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            std::thread::sleep(patience.min(Duration::from_secs(20)));
            if let Some(status) = child.try_wait().unwrap() {
                assert!(status.success(), "the resumed run failed after {kills} kills: {status}");
                return kills;
            }
            child.kill().unwrap();
            child.wait().unwrap();
        }
        panic!("the run makes no progress between kills");
    }

    /// Runs a command that must succeed; returns stdout and stderr.
    pub fn done(&self, args: &[&str]) -> (String, String) {
        let output = self.rlaif(args).output().unwrap();
        let (stdout, stderr) = texts(&output);
        assert_eq!(output.status.code(), Some(0), "`rlaif {}`:\n{stderr}", args.join(" "));
        (stdout, stderr)
    }

    /// Runs a command that must end with this code; returns stdout and stderr.
    pub fn ends_with(&self, code: i32, args: &[&str]) -> (String, String) {
        let output = self.rlaif(args).output().unwrap();
        let (stdout, stderr) = texts(&output);
        assert_eq!(output.status.code(), Some(code), "`rlaif {}`:\n{stderr}", args.join(" "));
        (stdout, stderr)
    }

    /// The final weights of a model of the run.
    pub fn weights(&self, model: &str) -> Vec<u8> {
        fs::read(self.run_folder().join("models").join(model).join("model.safetensors"))
            .unwrap_or_else(|error| panic!("{model}: {error}"))
    }
}

fn texts(output: &std::process::Output) -> (String, String) {
    (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

/// Every stage in a second or two. The tiny model's judgements are noise, so nothing may be called a tie.
fn config() -> String {
    format!(
        r#"
[run]
name = "tiny"
seed = 7

[policy]
model = "{model}"
max_length = 96

[prompts]
train = "prompts.jsonl"
eval = "eval.jsonl"

[generate]
n = 4
max_new_tokens = 12
min_distance = 0.05
batch_size = 8

[label]
pairs_per_prompt = 3
tie_margin = 0.0
probe = "probe.jsonl"

[[label.judges]]
name = "tone"
kind = "local"
protocol = "contrastive"
model = "policy"
principle = "Be kind."
opposite = "Be rude."
temperature = 0.01

[reward]
epochs = 1
batch_size = 4
micro_batch_size = 2
save_steps = 2
[reward.optim]
learning_rate = 1e-3

[ppo]
steps = 3
prompts_per_step = 3
samples_per_prompt = 2
epochs = 2
micro_batch_size = 3
save_steps = 1
[ppo.optim]
learning_rate = 1e-4

[dpo]
epochs = 1
batch_size = 4
micro_batch_size = 2
save_steps = 2
[dpo.optim]
learning_rate = 1e-4

[evaluate]
samples_per_prompt = 2
sentiment = true
bootstrap = 200
"#,
        model = tiny_llama().display()
    )
}
