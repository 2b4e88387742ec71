"""Five optimizer steps of TRL's reward trainer with a `margin` column on the tiny llama, with and without centering; pairs, settings
and the head of make_training_steps.py. usage: make_reward_steps.py MODEL_FOLDER OUT.json"""
import json, os, sys, tempfile, torch
from datasets import Dataset
from transformers import AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback
from torch.utils.data import SequentialSampler
from trl import RewardTrainer, RewardConfig

torch.set_num_threads(1)
M, OUT = sys.argv[1:]
golden = json.load(open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "training_steps.json")))
margins = [0.0, 0.5, 1.0, 2.0, 0.25, 0.75, 3.0, 0.1, 1.5, 0.4]
tok = AutoTokenizer.from_pretrained(M)
ds = Dataset.from_list([dict(prompt=p, chosen=c, rejected=r, margin=m) for (p, c, r), m in zip(golden["pairs"], margins)])
common = {k: v for k, v in golden["settings"].items() if k != "output_dir"}

class Rec(TrainerCallback):
    def __init__(self): self.rows = []
    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" in logs: self.rows.append({k: float(v) for k, v in logs.items() if k in KEPT})
KEPT = ("loss", "grad_norm", "accuracy", "margin", "min_reward", "mean_reward", "max_reward")

class T(RewardTrainer):
    def _get_train_sampler(self, *a, **k): return SequentialSampler(self.train_dataset)

out = {}
for name, center in [("margin", None), ("margin_centered", 0.01)]:
    model = AutoModelForSequenceClassification.from_pretrained(M, num_labels=1, dtype=torch.float32)
    model.score.weight.data = torch.tensor(golden["reward"]["score_weight_init"])
    rec = Rec()
    config = RewardConfig(**common, output_dir=tempfile.mkdtemp(), max_length=64, center_rewards_coefficient=center)
    T(model=model, args=config, train_dataset=ds, processing_class=tok, callbacks=[rec]).train()
    out[name] = rec.rows
import trl, transformers
json.dump(dict(margins=margins, trl=trl.__version__, torch=torch.__version__, transformers=transformers.__version__, log=out),
          open(OUT, "w"), indent=1)
for name, log in out.items(): print(name, [round(r["loss"], 6) for r in log])
