"""Five steps with bfloat16 weights and float32 masters in plain PyTorch, on the tiny llama and the pairs of make_training_steps.py: the
model computes in float32 with weights that are rounded to bfloat16; AdamW updates float32 copies, which are rounded again.
usage: make_bfloat16_steps.py MODEL_FOLDER OUT.json"""
import json, os, sys, torch, transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

torch.set_num_threads(1)
M, OUT = sys.argv[1:]
HERE = os.path.dirname(os.path.abspath(__file__))
pairs = json.load(open(os.path.join(HERE, "training_steps.json")))["pairs"]
tok = AutoTokenizer.from_pretrained(M)
LEARNING_RATE, WEIGHT_DECAY, BETA = 1e-3, 0.1, 0.1
KEPT = "model.layers.1.self_attn.o_proj.weight"

def rounded(t): return t.detach().to(torch.bfloat16).to(torch.float32)

def encode(text): return tok(text, add_special_tokens=False)["input_ids"]

def logprobs(model, prompt, completion):
    """Of the completion's tokens and the end."""
    p, c = encode(prompt), encode(completion) + [tok.eos_token_id]
    logits = model(torch.tensor([p + c])).logits[0].log_softmax(-1)
    at = torch.arange(len(p) - 1, len(p) + len(c) - 1)
    return logits[at, torch.tensor(c)]

def sft(model, batch, _):
    lps = [logprobs(model, p, c) for p, c, _ in batch]
    return -torch.cat(lps).mean()

def dpo(model, batch, reference):
    losses = []
    for p, c, r in batch:
        ratio = [logprobs(model, p, x).sum() - reference[p, x] for x in (c, r)]
        losses.append(-torch.nn.functional.logsigmoid(BETA * (ratio[0] - ratio[1])))
    return torch.stack(losses).mean()

def run(loss_of, bfloat16):
    cast = rounded if bfloat16 else lambda t: t.detach().clone()
    model = AutoModelForCausalLM.from_pretrained(M, dtype=torch.float32).eval()
    parameters = dict(model.named_parameters())
    masters = {n: p.detach().clone().requires_grad_() for n, p in parameters.items()}
    for n, p in parameters.items(): p.data = cast(masters[n])
    spared = lambda n: "norm" in n or n.endswith("bias")
    optimizer = torch.optim.AdamW([dict(params=[m for n, m in masters.items() if spared(n)], weight_decay=0.0),
                                   dict(params=[m for n, m in masters.items() if not spared(n)], weight_decay=WEIGHT_DECAY)],
                                  lr=LEARNING_RATE, betas=(0.9, 0.999), eps=1e-8)
    with torch.no_grad():  # of the rounded model
        reference = {(p, x): logprobs(model, p, x).sum() for p, c, r in pairs for x in (c, r)}
    steps = []
    for i in range(0, len(pairs), 2):
        loss = loss_of(model, pairs[i:i + 2], reference)
        model.zero_grad(); loss.backward()
        for n, p in parameters.items(): masters[n].grad = p.grad.clone()
        norm = torch.nn.utils.clip_grad_norm_(masters.values(), 1.0)
        optimizer.step()
        for n, p in parameters.items(): p.data = cast(masters[n])
        steps.append(dict(loss=loss.item(), grad_norm=norm.item()))
    return dict(steps=steps, master=masters[KEPT].T.flatten()[:96].tolist())  # [in, out], as here in memory

out = dict(torch=torch.__version__, transformers=transformers.__version__, learning_rate=LEARNING_RATE, weight_decay=WEIGHT_DECAY,
           beta=BETA, kept=KEPT, **{f.__name__: run(f, True) for f in (sft, dpo)},
           float32={f.__name__: run(f, False)["steps"] for f in (sft, dpo)})
json.dump(out, open(OUT, "w"), indent=1)
for name in ("sft", "dpo"):
    print(name, [s["loss"] for s in out[name]["steps"]]); print("  float32", [s["loss"] for s in out["float32"][name]])
