"""Runs each job on both sides in turn, and says the ratio of each pair of runs; scripts/bench-peer calls it.

The peer is timed by its own loop, in which nothing is loaded or saved. A reward model of ours, and ppo, are timed over their steps after the
first, by the wall times of TensorBoard's events; so is the peer's ppo. DPO is timed over the whole stage, since the reference's log-probabilities
come before its first step: loading the model and saving it and the checkpoint are in it. Decoding is timed over the stage, less the time of a
stage that samples one token of one prompt: that is, of loading. Peak memory is that of the process as the system accounts it. Our products are
exact next to the peer's float32 and rounded (`float32_matmul_precision = "medium"`) next to its bfloat16. Ratios above 1 mean that ours is faster,
or takes less.
"""

import argparse
import ast
import json
import os
import platform
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROWS, BATCH, MICRO_BATCH, NEW_TOKENS = 64, 8, 4, 64
RUN = """
[run]
name = "{job}"
dir = "{folder}"
stages = ["{job}"]
seed = {seed}
float32_matmul_precision = "{precision}"
[policy]
model = "{model}"
"""
TRAIN = RUN + """
max_length = 512
[{job}]
data = ["{data}"]
epochs = {epochs}
batch_size = {batch}
micro_batch_size = {micro}
holdout_fraction = 0.0
save_steps = 1000000
[{job}.optim]
learning_rate = 1e-5
schedule = "constant"
warmup_ratio = 0.0
{dtype}
{lora}
"""
PROMPTS = RUN + """
[prompts]
train = "{data}"
eval_fraction = 0.0
[generate]
batch_size = {batch}
"""
DECODE = PROMPTS + """
n = {samples}
temperature = 1.0
max_new_tokens = {new}
"""
PPO = PROMPTS + """
[ppo]
steps = {steps}
prompts_per_step = {prompts}
samples_per_prompt = {samples}
max_new_tokens = {new}
epochs = {epochs}
micro_batch_size = {micro}
critic_warmup_steps = 0
save_steps = 1000000
{dtype}
[[ppo.rewards]]
kind = "length"
min_tokens = {score_tokens}
max_tokens = 1000
"""
PPO_STEPS = {"steps": 2, "prompts": 4, "samples": 4, "new": NEW_TOKENS, "epochs": 2, "micro": 16, "score_tokens": 48}
PEER_PPO = {"steps": "--steps", "prompts": "--prompts-per-step", "samples": "--samples", "new": "--new-tokens", "epochs": "--epochs",
            "score_tokens": "--score-tokens"}
CURVE_STEPS = 2
OFFLINE = {**os.environ, "HF_HUB_OFFLINE": "1"}
PEER_MICRO_BATCH = 8  # faster than 4, and takes 11 GB; ours is of the whole rollout
# stage of ours, the peer's job; rows, samples of each and new tokens of ours, and of the peer, which decodes up to 32 together whatever it is told
JOBS = {
    "reward": ("reward", "reward", (ROWS, 0, 0), (ROWS, 0, 0), BATCH),
    "dpo": ("dpo", "dpo", (ROWS, 0, 0), (ROWS, 0, 0), BATCH),
    "reward-lora": ("reward", "reward", (ROWS, 0, 0), (ROWS, 0, 0), BATCH),
    "dpo-lora": ("dpo", "dpo", (ROWS, 0, 0), (ROWS, 0, 0), BATCH),
    "ppo": ("ppo", "ppo", (ROWS, 4, NEW_TOKENS), (ROWS, 4, NEW_TOKENS), 32),
    "decode": ("generate", "generate", (64, 4, NEW_TOKENS), (16, 4, NEW_TOKENS), 32),
    "decode-1": ("generate", "generate", (16, 1, 4 * NEW_TOKENS), (1, 1, 4 * NEW_TOKENS), 1),
}


def run(command, meanwhile=None, **options):
    """The output of a command and its peak memory in GB; `meanwhile` is told its process again and again."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(command, stdout=out, stderr=err, **options)
        while True:
            ended, status, usage = os.wait4(process.pid, os.WNOHANG if meanwhile else 0)
            if ended:
                break
            meanwhile(process.pid)
            time.sleep(0.02)
        out.seek(0), err.seek(0)
        if os.waitstatus_to_exitcode(status) != 0:
            sys.exit(f"{' '.join(map(str, command))} failed:\n{err.read().decode()[-4000:]}")
        return out.read().decode(), usage.ru_maxrss / 1e6


def steps(folder):
    """Wall times of a stage's optimizer steps: TensorBoard's events are records (length, checksum, Event, checksum), and an Event begins with
    its wall time and its step."""
    times = {}
    for file in folder.glob("tensorboard/**/*tfevents*"):
        data, at = file.read_bytes(), 0
        while at < len(data):
            length, = struct.unpack_from("<Q", data, at)
            event, at = data[at + 12:at + 12 + length], at + 16 + length
            if event[0] == 0x09 and event[9] == 0x10 and event[10] > 0:
                times.setdefault(event[10], struct.unpack_from("<d", event, 1)[0])
    return [times[step] for step in sorted(times)]


def metric(folder, stage, name):
    """A metric of a stage, step by step."""
    with open(folder / stage / "metrics" / f"{stage}.jsonl") as file:
        return [json.loads(line)[name] for line in file]


def stage_of_ours(args, job, folder, precision, shape, meanwhile=None, **others):
    """The manifest's record of a stage that ran, and its peak memory; `others` are values of the config's template."""
    stage, _, _, _, batch = JOBS[job]
    rows, samples, new = shape
    shutil.rmtree(folder / stage, ignore_errors=True)
    data, config = folder / "rows.jsonl", folder / "rlaif.toml"
    with open(args.preferences) as source:
        lines = [json.loads(line) for line in list(source)[:rows]]
    if stage in ("generate", "ppo"):
        lines = [{"id": f"{i}", "prompt": row["prompt"]} for i, row in enumerate(lines)]
    data.write_text("".join(json.dumps(row) + "\n" for row in lines))
    values = {"job": stage, "folder": folder, "model": Path(args.model).resolve(), "data": data, "batch": batch, "micro": MICRO_BATCH,
              "samples": samples, "new": new, "dtype": args.ours_optim, "precision": precision, "seed": 0, "epochs": 1,
              "lora": f"[{stage}.lora]" if job.endswith("-lora") else ""}
    values |= (PPO_STEPS if stage == "ppo" else {}) | others
    config.write_text({"generate": DECODE, "ppo": PPO}.get(stage, TRAIN).format(**values))
    _, memory = run([args.rlaif, "run", config], meanwhile)
    return json.loads((folder / stage / "manifest.json").read_text())["stages"][stage], memory


def ours(args, job, folder, precision):
    stage, _, shape, _, _ = JOBS[job]
    record, memory = stage_of_ours(args, job, folder, precision, shape)
    if stage == "reward":
        times = steps(folder / stage)
        return BATCH * (len(times) - 1) / (times[-1] - times[0]), memory
    if stage == "ppo":
        times = steps(folder / stage)
        tokens = sum(metric(folder, stage, "objective/length")[1:]) * PPO_STEPS["prompts"] * PPO_STEPS["samples"]
        return tokens / (times[-1] - times[0]), memory
    if stage == "dpo":
        return shape[0] / record["wall_seconds"], memory
    loading, _ = stage_of_ours(args, job, folder, precision, (1, 1, 1))
    return record["numbers"]["tokens"] / (record["wall_seconds"] - loading["wall_seconds"]), memory


def peer(args, job, folder, bf16):
    _, name, _, (rows, samples, new), batch = JOBS[job]
    if name == "ppo":
        command = [sys.executable, Path(__file__).with_name("peer_ppo.py"), folder / "hf", args.preferences]
        command += [part for key, flag in PEER_PPO.items() for part in (flag, str(PPO_STEPS[key]))]
        command += ["--micro-batch", str(PEER_MICRO_BATCH)]
    else:
        lora = ["--lora"] if job.endswith("-lora") else []
        command = trl(args, lora, folder / "hf", name, rows, batch)
        command += ["--new-tokens", str(new), "--samples", str(samples)]
    out, memory = run([*command, *(["--bf16"] if bf16 else [])], env=OFFLINE)
    told = json.loads(out.strip().splitlines()[-1])
    return told.get("pairs_per_s", told.get("tokens_per_s")), memory


def trl(args, options, model, name, rows, batch):
    """The peer's script on the first rows, with options that it does not have itself."""
    script = args.shared / "peer" / "trl_bench.py"
    options = [Path(__file__).with_name("peer_trl.py"), *options] if options else []
    return [sys.executable, *options, script, model, args.preferences, name, "--n", str(rows), "--batch", str(batch)]


def curves_beside_the_peer(args, folder):
    """Losses of DPO, of us and of the peer: all pairs are in each batch, so that their order does not matter. A model without a chat template
    is asked the prompts as they stand, by both."""
    plain = folder / "hf-plain"
    shutil.copytree(folder / "hf", plain, ignore=shutil.ignore_patterns("chat_template*"))
    losses = {}
    for side, bf16 in (("TRL, float32", []), ("TRL, bfloat16", ["--bf16"])):
        out, _ = run(trl(args, ["--epochs", str(CURVE_STEPS)], plain, "dpo", BATCH, BATCH) + bf16, env=OFFLINE)
        told = [ast.literal_eval(line) for line in out.splitlines() if line.startswith("{'loss'")]
        losses[side] = [float(step["loss"]) for step in told]
    for side, precision in (("ours, exact", "highest"), ("ours, rounded", "medium")):
        stage_of_ours(args, "dpo", folder, precision, (BATCH, 0, 0), epochs=CURVE_STEPS, model=plain)
        losses[side] = metric(folder, "dpo", "loss")
    print(f"\n| DPO of the same {BATCH} pairs: step | " + " | ".join(losses) + " |\n|" + "---|" * (1 + len(losses)))
    for step in range(CURVE_STEPS):
        print(f"| {step + 1} | " + " | ".join(f"{of_side[step]:.4f}" for of_side in losses.values()) + " |", flush=True)


def curves(args, folder):
    """Losses of our own training, step by step: exact and rounded products, three seeds each."""
    for job in ("reward", "dpo"):
        losses = {}
        for precision in ("highest", "medium"):
            for seed in range(3):
                stage_of_ours(args, job, folder, precision, JOBS[job][2], seed=seed)
                losses[precision, seed] = metric(folder, job, "loss")
        print(f"\n| {job}: step | exact, by seed | rounded, by seed | rounded less exact, the largest |\n|---|---|---|---|")
        for step in range(len(losses["highest", 0])):
            exact, rounded = ([losses[precision, seed][step] for seed in range(3)] for precision in ("highest", "medium"))
            told = [", ".join(f"{loss:.4f}" for loss in side) for side in (exact, rounded)]
            print(f"| {step + 1} | {told[0]} | {told[1]} | {max((b - a for a, b in zip(exact, rounded)), key=abs):+.5f} |", flush=True)


def faults(args, folder):
    """Page faults of our own training from one optimizer step to the next, as /proc counts them: steps that only use memory they have used
    before cause none."""
    def count(pid):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        if fields[0] != "Z":
            counted.append((time.time(), int(fields[7]), int(fields[21]) * os.sysconf("SC_PAGESIZE") / 1e9))

    for job, more in (("dpo", {"epochs": 3}), ("ppo", {"steps": 6})):
        counted = []
        stage_of_ours(args, job, folder, "medium", JOBS[job][2], count, **more)
        at = [min(counted, key=lambda sample: abs(sample[0] - step)) for step in steps(folder / JOBS[job][0])]
        by_step = [now - before for (_, now, _), (_, before, _) in zip(at, [(0, 0, 0), *at])]
        print(f"{job}: page faults step by step: {', '.join(map(str, by_step))}; memory {at[0][2]:.2f} to {at[-1][2]:.2f} GB", flush=True)


def pairs(args, folder):
    """Each job on both sides in turn: the table, and every measurement where `--json` says."""
    measured = []
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, {args.pairs} paired runs, medians (least to most)\n")
    print("| job | the peer's precision | peer | ours | ratio of speed | peer's memory | ours | ratio of memory |\n|---|---|---|---|---|---|---|---|")
    for job in args.jobs.split(","):
        unit = "pairs/s" if JOBS[job][0] in ("reward", "dpo") else "tokens/s"
        for precision in args.precisions.split(","):
            rows = []
            for turn in range(args.pairs):
                rounded = precision == "bf16"
                sides = [lambda: peer(args, job, folder, rounded),
                         lambda: ours(args, job, folder, "medium" if rounded else "highest")]
                results = [side() for side in (sides if turn % 2 == 0 else sides[::-1])]
                (theirs, their_memory), (mine, memory) = results if turn % 2 == 0 else results[::-1]
                rows.append({"job": job, "precision": precision, "peer": theirs, "ours": mine, "ratio": mine / theirs,
                             "peer_gb": their_memory, "ours_gb": memory, "memory_ratio": their_memory / memory})
                told = ", ".join(f"{name} {value:.3g}" for name, value in rows[-1].items() if isinstance(value, float))
                print(f"{job}, {precision}, pair {turn + 1}: {told}", file=sys.stderr, flush=True)
            measured += rows
            middle = lambda name: statistics.median(row[name] for row in rows)
            spread = lambda name: f"{middle(name):.2f} ({min(row[name] for row in rows):.2f} to {max(row[name] for row in rows):.2f})"
            print(f"| {job} | {precision} | {middle('peer'):.2f} {unit} | {middle('ours'):.2f} {unit} | {spread('ratio')} "
                  f"| {middle('peer_gb'):.1f} GB | {middle('ours_gb'):.1f} GB | {spread('memory_ratio')} |", flush=True)
    if args.json:
        args.json.write_text(json.dumps(measured, indent=1) + "\n")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rlaif", type=Path, required=True)
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--jobs", default=",".join(JOBS))
    parser.add_argument("--rows", type=int, default=ROWS, help="preferences of the jobs that train on them")
    parser.add_argument("--pairs", type=int, default=5, help="paired runs of each job and precision")
    parser.add_argument("--precisions", default="float32,bf16", help="of the peer")
    parser.add_argument("--ours-optim", default="", help="a line for our [….optim]")
    parser.add_argument("--json", type=Path)
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--curves", action="store_true", help="instead: losses step by step, beside the peer's, and of seeds")
    instead.add_argument("--faults", action="store_true", help="instead: page faults of our own training, step by step")
    args = parser.parse_args()
    for name, (stage, theirs, _, _, batch) in JOBS.items():
        if stage in ("reward", "dpo"):
            JOBS[name] = (stage, theirs, (args.rows, 0, 0), (args.rows, 0, 0), batch)
    folder = Path(tempfile.mkdtemp(prefix="bench-peer-"))
    # Two of the first rows have an empty side, which we refuse: neither side gets them.
    args.preferences = folder / "preferences.jsonl"
    with open(args.shared / "data" / "preferences" / "pandalm.jsonl") as source:
        rows = [line for line in source if all(json.loads(line)[side].strip() for side in ("chosen", "rejected"))]
    args.preferences.write_text("".join(rows))
    source = Path(args.model).resolve().parent
    run([sys.executable, args.shared / "peer" / "smollm2_to_hf.py", source, folder / "hf"])
    if args.curves:
        curves_beside_the_peer(args, folder)
        curves(args, folder)
    elif args.faults:
        faults(args, folder)
    else:
        pairs(args, folder)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
