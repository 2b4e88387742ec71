"""How much of a run's labels can be learned? Reads a run folder, trains nothing of rlaif's.

    pip install numpy scikit-learn vaderSentiment gguf tokenizers
    python docs/quickstart/label_ceiling.py runs/quickstart models/SmolLM2-135M-Instruct.Q4_1.gguf

Prints how the judge's scores spread, how well simple features rank the pairs, and how well a linear reward on the frozen
baseline's last hidden states does over 20 splits by prompt. The Llama below is plain numpy; it first checks itself against the
log-probs that the run stored.
"""

import itertools
import json
import sqlite3
import sys
import tomllib
from pathlib import Path

import numpy as np
from gguf import GGUFReader, dequantize
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupShuffleSplit
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

SPLITS = 20


class Llama:
    """The baseline, as llama.cpp lays it out: q and k are permuted for rotary pairs that stand side by side."""

    def __init__(self, path):
        reader = GGUFReader(path)
        self.field = lambda name: reader.fields[name].contents()
        self.weights = {t.name: dequantize(t.data, t.tensor_type).astype(np.float32) for t in reader.tensors}
        self.layers = self.field("llama.block_count")
        self.heads = self.field("llama.attention.head_count")
        self.kv_heads = self.field("llama.attention.head_count_kv")
        self.size = self.field("llama.embedding_length")
        self.epsilon = self.field("llama.attention.layer_norm_rms_epsilon")
        head = self.size // self.heads
        self.frequencies = 1 / self.field("llama.rope.freq_base") ** (np.arange(0, head, 2) / head)

    def norm(self, x, weight):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + self.epsilon) * self.weights[weight]

    def rope(self, x):
        angles = np.arange(len(x))[:, None] * self.frequencies
        cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
        out = np.empty_like(x)
        out[..., 0::2] = x[..., 0::2] * cos - x[..., 1::2] * sin
        out[..., 1::2] = x[..., 0::2] * sin + x[..., 1::2] * cos
        return out

    def hidden(self, sequences):
        """Final hidden states of each sequence, `[T, H]`."""
        ends = np.cumsum([0] + [len(s) for s in sequences])
        x = self.weights["token_embd.weight"][np.concatenate(sequences)]
        for layer in range(self.layers):
            w = lambda name: self.weights[f"blk.{layer}.{name}.weight"].T
            h = self.norm(x, f"blk.{layer}.attn_norm.weight")
            q = (h @ w("attn_q")).reshape(len(h), self.heads, -1)
            k, v = ((h @ w(name)).reshape(len(h), self.kv_heads, -1) for name in ("attn_k", "attn_v"))
            out = np.empty_like(q)
            for start, end in itertools.pairwise(ends):
                share = lambda y: np.repeat(y, self.heads // self.kv_heads, 1)
                scores = np.einsum("thd,shd->hts", self.rope(q[start:end]), share(self.rope(k[start:end])))
                scores = np.where(np.tril(np.ones(scores.shape[1:])) > 0, scores / np.sqrt(q.shape[-1]), -1e9)
                scores = np.exp(scores - scores.max(-1, keepdims=True))
                scores /= scores.sum(-1, keepdims=True)
                out[start:end] = np.einsum("hts,shd->thd", scores, share(v[start:end]))
            x = x + out.reshape(len(h), -1) @ w("attn_output")
            h = self.norm(x, f"blk.{layer}.ffn_norm.weight")
            gate = h @ w("ffn_gate")
            x = x + (gate / (1 + np.exp(-gate)) * (h @ w("ffn_up"))) @ w("ffn_down")
        x = self.norm(x, "output_norm.weight")
        return [x[start:end] for start, end in itertools.pairwise(ends)]

    def tokenizer(self):
        tokens = self.field("tokenizer.ggml.tokens")
        merges = [tuple(merge.split(" ")) for merge in self.field("tokenizer.ggml.merges")]
        tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
        digits, bytes_ = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, bytes_])
        tokenizer.add_special_tokens([AddedToken(t, special=True) for t in ("<|im_start|>", "<|im_end|>")])
        return tokenizer


def chat(system, prompt):
    turns = [("system", system), ("user", prompt)]
    return "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in turns) + "<|im_start|>assistant\n"


def main(run, model):
    run = Path(run)
    config = tomllib.loads((run / "rlaif.toml").read_text())
    database = sqlite3.connect(f"file:{run / 'rlaif.db'}?mode=ro", uri=True)
    rows = database.execute(
        """SELECT r.id, r.prompt_id, r.idx, r.text, r.token_ids, r.logprobs, r.finish_reason, s.score, p.prompt
           FROM responses r JOIN prompts p ON p.id = r.prompt_id JOIN scores s ON s.response_id = r.id
           WHERE r.policy = 'baseline' AND p.split = 'train' AND s.judge = ?""",
        (config["label"]["judges"][0]["name"],),
    ).fetchall()
    place = {row[0]: i for i, row in enumerate(rows)}
    prompt_of = np.array([row[1] for row in rows])
    tokens = [np.frombuffer(row[4], "<u4").astype(np.int64) for row in rows]
    length = np.array([len(t) for t in tokens])
    score = np.array([row[7] for row in rows])
    within = score - np.array([score[prompt_of == p].mean() for p in prompt_of])
    print(f"{len(rows)} responses, {length.mean():.0f} tokens; scores differ within a prompt by {within.std():.3f} (sd)")
    for low, high in [(1, 12), (12, 20), (20, 30), (30, 10**6)]:
        at = (length >= low) & (length < high)
        print(f"  {low} to {min(high - 1, length.max())} tokens: sd {within[at].std():.3f} of {at.sum()}")
    systems = config["generate"].get("systems") or ["prompts.system"]
    for turn, system in enumerate(systems):
        at = np.array([row[2] % len(systems) == turn for row in rows])
        print(f"  under {system[:40]!r}: mean score {score[at].mean():+.3f}, sd {score[at].std():.3f}")

    of_probe = {}
    for prompt, value in database.execute(
        """SELECT r.prompt_id, s.score FROM responses r JOIN scores s ON s.response_id = r.id
           WHERE r.policy = 'probe' AND s.judge = ?""",
        (config["label"]["judges"][0]["name"],),
    ):
        of_probe.setdefault(prompt, []).append(value)
    apart = [abs(two[0] - two[1]) for two in of_probe.values() if len(two) == 2]
    if apart:
        print(f"probe pairs differ by {np.median(apart):.3f} (median of {len(apart)})")

    pairs = [
        (place[a], place[b], p, prompt)
        for a, b, p, prompt in database.execute(
            """SELECT p.a, p.b, f.p, p.prompt_id FROM pairs p JOIN preferences f ON f.pair_id = p.id
               WHERE p.pair_set = 'train' AND f.fate = 'kept'"""
        )
    ]
    a, b = (np.array([pair[i] for pair in pairs]) for i in (0, 1))
    first = np.array([pair[2] for pair in pairs]) > 0.5
    groups = np.array([pair[3] for pair in pairs])
    print(f"{len(pairs)} preferences of {len(set(groups))} prompts")

    lexicon = SentimentIntensityAnalyzer()
    simple = {
        "VADER": np.array([lexicon.polarity_scores(row[3])["compound"] for row in rows]),
        "shorter": -length.astype(float),
        "ends its turn": np.array([float(row[6] == "stop") for row in rows]),
    }
    for name, value in simple.items():
        difference = value[a] - value[b]
        right = np.where(difference == 0, 0.5, (difference > 0) == first)
        print(f"  {name} ranks {100 * right.mean():.0f} %")

    llama = Llama(model)
    tokenizer = llama.tokenizer()
    system = config["prompts"]["system"]
    encode = lambda system, row: tokenizer.encode(chat(system, json.loads(row[8])), add_special_tokens=False).ids
    # The first response was sampled under the first system prompt.
    under = systems[0] if config["generate"].get("systems") else system
    check = np.array(encode(under, rows[0]))
    hidden = llama.hidden([np.concatenate([check, tokens[0]])])[0][len(check) - 1 : -1]
    logits = hidden @ llama.weights["token_embd.weight"].T / config["generate"]["temperature"]
    logits -= logits.max(-1, keepdims=True)
    logprobs = (logits - np.log(np.exp(logits).sum(-1, keepdims=True)))[np.arange(len(tokens[0])), tokens[0]]
    off = np.abs(logprobs - np.frombuffer(rows[0][5], "<f4")).max()
    assert off < 1e-3, f"log-probs differ from the run's by {off}"

    prompts = [np.array(encode(system, row)) for row in rows]
    last, mean = [], []
    for start in range(0, len(rows), 16):
        batch = range(start, min(start + 16, len(rows)))
        states = llama.hidden([np.concatenate([prompts[i], tokens[i]]) for i in batch])
        for i, state in zip(batch, states):
            last.append(state[-1])
            mean.append(state[len(prompts[i]) :].mean(0))
    for name, features in [("last token", last), ("mean of the response", mean)]:
        features = np.array(features, dtype=np.float64)
        features = (features - features.mean(0)) / (features.std(0) + 1e-6)
        difference = features[a] - features[b]
        for strength in (1e-4, 1e-3):
            train, held_out = [], []
            splits = GroupShuffleSplit(SPLITS, test_size=0.2, random_state=0).split(difference, first, groups)
            for learn, test in splits:
                fit = LogisticRegression(C=strength, fit_intercept=False, max_iter=300)
                fit.fit(difference[learn], first[learn])
                train.append(fit.score(difference[learn], first[learn]))
                held_out.append(fit.score(difference[test], first[test]))
            print(
                f"  linear reward on the {name} (C = {strength:g}): train {100 * np.mean(train):.0f} %, "
                f"held out {100 * np.mean(held_out):.1f} %, sd over splits {100 * np.std(held_out):.1f}"
            )


if __name__ == "__main__":
    main(*sys.argv[1:])
