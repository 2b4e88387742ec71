"""What `rlaif export` writes, opened by those for whom it is: transformers, llama.cpp's `gguf`, llama.cpp itself, PEFT.

usage: pip install torch transformers gguf peft xllamacpp
       python scripts/check_exports.py RLAIF MODEL [ADAPTED BASE]

RLAIF is the program, MODEL a language model that it opens; ADAPTED is a model of a run that was trained with `lora`, BASE what
it was trained from, as a folder that transformers opens. xllamacpp brings llama.cpp; without it that check is left out and says so.
"""
import json, subprocess, sys, tempfile, urllib.request
from pathlib import Path
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

RLAIF, MODEL = sys.argv[1:3]
TEXTS = ["The capital of France is Paris, and 1234567 people know it.", "def f(x):\n    return x  # naïve ☕ 中文\n\n"]
failed = []


def rlaif(*arguments, stdin=None):
    run = subprocess.run([RLAIF, *map(str, arguments)], input=stdin, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout


def our_logprobs(model, sequences):
    lines = "".join(json.dumps({"ids": ids}) + "\n" for ids in sequences)
    return [json.loads(line)["logprobs"] for line in rlaif("logprobs", model, stdin=lines).splitlines()]


@torch.no_grad()
def their_logprobs(model, sequences):
    out = []
    for ids in sequences:
        logits = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
        out.append(logits[:-1].gather(-1, torch.tensor(ids[1:])[:, None])[:, 0].tolist())
    return out


def off(a, b):
    return max(abs(x - y) for a, b in zip(a, b) for x, y in zip(a, b))


def check(what, value, limit):
    good = value <= limit
    print(f"{'ok  ' if good else 'FAIL'} {what}: off by {value:.2e} (at most {limit:g})", flush=True)
    failed.extend([] if good else [what])


class LlamaCpp:
    """llama.cpp's server with one model, on the CPU, its cache in float32."""

    def __init__(self, path):
        import xllamacpp
        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_ctx, params.n_parallel, params.n_gpu_layers, params.verbosity = 256, 1, 0, -1
        params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        self.server = xllamacpp.Server(params)

    def ask(self, what, question):
        request = urllib.request.Request(f"{self.server.listening_address}/{what}", json.dumps(question).encode(),
                                         {"Content-Type": "application/json"})
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)

    def greedy(self, ids, tokens):
        return self.ask("completion", {"prompt": ids, "n_predict": tokens, "temperature": 0.0, "top_k": 1, "ignore_eos": True,
                                       "return_tokens": True, "cache_prompt": False, "samplers": ["top_k"]})["tokens"]

    def tokens(self, text):
        return self.ask("tokenize", {"content": text, "add_special": False})["tokens"]


with tempfile.TemporaryDirectory() as work:
    work = Path(work)
    rlaif("export", "--model", MODEL, "-o", work / "f32")
    tokenizer = AutoTokenizer.from_pretrained(work / "f32")
    sequences = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in TEXTS]
    exact = our_logprobs(MODEL, sequences)
    model = AutoModelForCausalLM.from_pretrained(work / "f32", dtype=torch.float32)
    check("transformers, safetensors f32", off(their_logprobs(model, sequences), exact), 1e-3)
    greedy = []
    with torch.no_grad():
        for ids in sequences:
            made = model.generate(torch.tensor([ids]), max_new_tokens=32, min_new_tokens=32, do_sample=False,
                                  eos_token_id=None, pad_token_id=0)
            greedy.append(made[0, len(ids):].tolist())
    for dtype in ["f16", "bf16"]:
        rlaif("export", "--model", MODEL, "--dtype", dtype, "-o", work / dtype)
        stored = AutoModelForCausalLM.from_pretrained(work / dtype, dtype="auto")
        assert str(stored.dtype) == {"f16": "torch.float16", "bf16": "torch.bfloat16"}[dtype], stored.dtype
        check(f"transformers, safetensors {dtype}", off(their_logprobs(stored.float(), sequences), our_logprobs(work / dtype, sequences)), 1e-3)

    import gguf
    for dtype in ["f32", "f16", "bf16", "q8_0"]:
        path = work / f"{dtype}.gguf"
        rlaif("export", "--model", MODEL, "--format", "gguf", "--dtype", dtype, "-o", path)
        reader = gguf.GGUFReader(path)
        kinds = {}
        for tensor in reader.tensors:
            kinds[tensor.tensor_type.name] = kinds.get(tensor.tensor_type.name, 0) + 1
        print(f"     gguf reads {path.name}: {reader.fields['general.architecture'].contents()}, {len(reader.fields)} fields, {kinds}")
        ours = our_logprobs(path, sequences)
        check(f"{path.name} against the model", off(ours, exact), {"f32": 1e-4, "f16": 0.05, "bf16": 0.5, "q8_0": 0.5}[dtype])
        if model.config.model_type == "qwen3" and model.config.head_dim != 128:
            print("     transformers does not read the size of heads from a GGUF of qwen3, and takes 128: left out")
        else:
            loaded = AutoModelForCausalLM.from_pretrained(work, gguf_file=path.name, dtype=torch.float32)
            check(f"transformers, {path.name}", off(their_logprobs(loaded, sequences), ours), 1e-3)
        theirs = AutoTokenizer.from_pretrained(work, gguf_file=path.name)
        for text, ids in zip(TEXTS, sequences):
            check(f"transformers' tokens of {path.name}", float(theirs(text, add_special_tokens=False)["input_ids"] != ids), 0)
        assert (theirs.chat_template or None) == (tokenizer.chat_template or None)
        try:
            server = LlamaCpp(path)
        except ImportError:
            print("     llama.cpp: left out, there is no xllamacpp")
            continue
        for text, ids, expected in zip(TEXTS, sequences, greedy):
            tokens = server.greedy(ids, 32)
            same = next((i for i, (a, b) in enumerate(zip(tokens, expected)) if a != b), len(expected))
            margin = 0.0
            if same < len(expected):  # how much less likely than the best token llama.cpp's first other one is
                with torch.no_grad():
                    last = model(torch.tensor([ids + expected[:same]])).logits[0, -1].double().log_softmax(-1)
                margin = (last[expected[same]] - last[tokens[same]]).item()
            check(f"llama.cpp {path.name}: {same} of {len(expected)} greedy tokens the same, then a tie", margin,
                  {"f32": 0.01, "f16": 0.02, "bf16": 0.2, "q8_0": 0.2}[dtype])
            check(f"llama.cpp {path.name}: tokens of a text", float(server.tokens(text) != ids), 0)

    if len(sys.argv) > 4:
        from peft import PeftModel
        adapted, base = Path(sys.argv[3]), sys.argv[4]
        rlaif("export", "--model", adapted, "--format", "peft", "--base-model", base, "-o", work / "adapter")
        config = json.loads((work / "adapter" / "adapter_config.json").read_text())
        reward = config["task_type"] == "SEQ_CLS"
        kind = AutoModelForSequenceClassification if reward else AutoModelForCausalLM
        extra = {"num_labels": 1} if reward else {}
        model = PeftModel.from_pretrained(kind.from_pretrained(base, dtype=torch.float32, **extra), work / "adapter").eval()
        if reward:
            merged = kind.from_pretrained(adapted, dtype=torch.float32).eval()
            # One sequence at a time and no padding: the score is read at the last token.
            model.config.pad_token_id = merged.config.pad_token_id
            with torch.no_grad():
                scores = [[m(torch.tensor([ids])).logits.item() for ids in sequences] for m in (model, merged)]
            check("PEFT on its base, reward", off([scores[0]], [scores[1]]), 1e-3)
        else:
            before = their_logprobs(kind.from_pretrained(base, dtype=torch.float32), sequences)
            ours = our_logprobs(adapted, sequences)
            print(f"     the adapter moves log-probs by up to {off(before, ours):.2e}")
            check("PEFT on its base", off(their_logprobs(model, sequences), ours), 1e-3)

print("all as it should be" if not failed else f"{len(failed)} failed: {failed}")
sys.exit(bool(failed))
