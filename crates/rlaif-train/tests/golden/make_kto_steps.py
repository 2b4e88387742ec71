"""Five optimizer steps of TRL's KTO trainer on single responses to different prompts, four a step, of the tiny llama; texts and
settings of make_training_steps.py. usage: make_kto_steps.py MODEL_FOLDER OUT.json"""
import json, os, sys, tempfile, torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from torch.utils.data import SequentialSampler
from trl import KTOTrainer, KTOConfig

torch.set_num_threads(1)
M, OUT = sys.argv[1:]
golden = json.load(open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "training_steps.json")))
tok = AutoTokenizer.from_pretrained(M)
# The prompt of a row, and whether its response is the desirable one: a step of either kind alike, three that lean, and one that has one kind only.
ROWS = [[(0, True), (1, False), (2, True), (3, False)], [(4, True), (5, True), (6, True), (7, False)],
        [(8, False), (9, False), (0, False), (1, False)], [(2, False), (3, True), (4, False), (5, False)],
        [(6, False), (7, True), (8, True), (9, True)]]
rows = [dict(prompt=golden["pairs"][i][0], completion=golden["pairs"][i][1 if label else 2], label=label)
        for step in ROWS for i, label in step]
common = {**{k: v for k, v in golden["settings"].items() if k != "output_dir"}, "per_device_train_batch_size": 4}
WEIGHTS = dict(beta=0.1, desirable_weight=1.2, undesirable_weight=0.8)

class Rec(TrainerCallback):
    def __init__(self): self.rows = []
    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" in logs: self.rows.append({k: float(v) for k, v in logs.items() if k in KEPT})
KEPT = ("loss", "grad_norm", "rewards/chosen", "rewards/rejected", "rewards/margins", "logps/chosen", "logps/rejected", "kl")

class T(KTOTrainer):
    def _get_train_sampler(self, *a, **k): return SequentialSampler(self.train_dataset)

def run(loss_type):
    rec = Rec()
    model = AutoModelForCausalLM.from_pretrained(M, dtype=torch.float32)
    config = KTOConfig(**common, **WEIGHTS, output_dir=tempfile.mkdtemp(), max_length=64, loss_type=loss_type,
                       train_sampling_strategy="sequential")
    T(model=model, args=config, train_dataset=Dataset.from_list(rows), processing_class=tok, callbacks=[rec]).train()
    return rec.rows

out = {name: run(name) for name in ["kto", "apo_zero_unpaired"]}
import trl, transformers
json.dump(dict(rows=ROWS, **WEIGHTS, trl=trl.__version__, torch=torch.__version__, transformers=transformers.__version__, log=out),
          open(OUT, "w"), indent=1)
for name, log in out.items(): print(name, [(round(r["loss"], 6), round(r["kl"], 4)) for r in log])
