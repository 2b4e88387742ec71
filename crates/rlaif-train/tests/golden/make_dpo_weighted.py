"""Five optimizer steps of DPO with soft labels and weights on the tiny llama, and of KTO without a reference point on the same pairs, whose
two responses weigh what the pair does: TRL's DPO trainer with the loss written out in torch, since TRL has no weights. Pairs and
settings of make_training_steps.py. usage: make_dpo_weighted.py MODEL_FOLDER OUT.json"""
import json, os, sys, tempfile, torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from torch.utils.data import SequentialSampler
from trl import DPOTrainer, DPOConfig

torch.set_num_threads(1)
M, OUT = sys.argv[1:]
golden = json.load(open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "training_steps.json")))
tok = AutoTokenizer.from_pretrained(M)
ds = Dataset.from_list([dict(prompt=p, chosen=c, rejected=r) for p, c, r in golden["pairs"]])
common = {k: v for k, v in golden["settings"].items() if k != "output_dir"}
labels = [0.9, 1.0, 0.7, 0.55, 1.0, 0.8, 0.95, 0.6, 0.75, 0.5]
weights = [1.0, 3.0, 0.5, 2.0, 1.5, 1.0, 4.0, 0.25, 1.0, 2.5]
BETA = 0.1
reference = AutoModelForCausalLM.from_pretrained(M, dtype=torch.float32).eval()
S, L = torch.sigmoid, torch.nn.functional.logsigmoid

def sigmoid(a, b, p):
    return -p * L(BETA * (a - b)) - (1 - p) * L(-BETA * (a - b))

def apo_zero_unpaired(a, b, p):
    good, bad = lambda x: 1 - S(BETA * x), lambda x: S(BETA * x)
    return (p * (good(a) + bad(b)) + (1 - p) * (good(b) + bad(a))) / 2

def logps(model, inputs):
    logits = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits[:, :-1]
    each = torch.gather(torch.log_softmax(logits, -1), 2, inputs["input_ids"][:, 1:, None]).squeeze(2)
    return (each * inputs["completion_mask"][:, 1:]).sum(1)

class Rec(TrainerCallback):
    def __init__(self): self.rows = []
    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" in logs: self.rows.append({k: float(logs[k]) for k in ("loss", "grad_norm")})

out = {}
for loss_of in (sigmoid, apo_zero_unpaired):
    class T(DPOTrainer):
        def _get_train_sampler(self, *a, **k): return SequentialSampler(self.train_dataset)
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            row = slice(2 * self.state.global_step, 2 * self.state.global_step + 2)
            p, w = torch.tensor(labels[row]), torch.tensor(weights[row])
            with torch.no_grad(): ref = logps(reference, inputs)
            a, b = torch.chunk(logps(model, inputs) - ref, 2)  # chosen, chosen, rejected, rejected
            return (w * loss_of(a, b, p)).sum() / w.sum()
    rec = Rec()
    model = AutoModelForCausalLM.from_pretrained(M, dtype=torch.float32)
    config = DPOConfig(**common, output_dir=tempfile.mkdtemp(), max_length=64, beta=BETA)
    T(model=model, args=config, train_dataset=ds, processing_class=tok, callbacks=[rec]).train()
    out[loss_of.__name__] = rec.rows
import trl, transformers
json.dump(dict(labels=labels, weights=weights, beta=BETA, trl=trl.__version__, torch=torch.__version__, transformers=transformers.__version__, log=out),
          open(OUT, "w"), indent=1)
for name, log in out.items(): print(name, [round(r["loss"], 6) for r in log])
