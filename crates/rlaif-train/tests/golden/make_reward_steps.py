"""Five optimizer steps of TRL's reward trainer with a `margin` column on the tiny llama, with and without centering, and with a loss
that TRL has not: soft labels, label smoothing and weights in torch. Pairs, settings and the head of make_training_steps.py.
usage: make_reward_steps.py MODEL_FOLDER OUT.json"""
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

labels = [0.9, 1.0, 0.7, 0.55, 1.0, 0.8, 0.95, 0.6, 0.75, 0.5]
weights = [1.0, 3.0, 0.5, 2.0, 1.5, 1.0, 4.0, 0.25, 1.0, 2.5]
SMOOTHING = 0.1

class Weighted(T):
    """sum w (-p' log s(d) - (1 - p') log s(-d) + c (r_c + r_r)^2) / sum w, d = r_c - r_r - m, p' = p (1 - e) + (1 - p) e"""
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        super().compute_loss(model, dict(inputs))  # for its metrics
        row = slice(2 * self.state.global_step, 2 * self.state.global_step + 2)
        m, p, w = inputs["margin"], torch.tensor(labels[row]), torch.tensor(weights[row])
        assert torch.equal(m, torch.tensor(margins[row]))
        inputs = {k: v for k, v in inputs.items() if k != "margin"}
        chosen, rejected = torch.chunk(model(**inputs).logits.squeeze(-1), chunks=2)
        smoothed = p * (1 - SMOOTHING) + (1 - p) * SMOOTHING
        loss = torch.nn.functional.binary_cross_entropy_with_logits(chosen - rejected - m, smoothed, reduction="none")
        loss = loss + self.args.center_rewards_coefficient * (chosen + rejected) ** 2
        return (w * loss).sum() / w.sum()

out = {}
for name, center, trainer in [("margin", None, T), ("margin_centered", 0.01, T), ("weighted_smoothed", 0.01, Weighted)]:
    model = AutoModelForSequenceClassification.from_pretrained(M, num_labels=1, dtype=torch.float32)
    model.score.weight.data = torch.tensor(golden["reward"]["score_weight_init"])
    rec = Rec()
    config = RewardConfig(**common, output_dir=tempfile.mkdtemp(), max_length=64, center_rewards_coefficient=center)
    trainer(model=model, args=config, train_dataset=ds, processing_class=tok, callbacks=[rec]).train()
    out[name] = rec.rows
import trl, transformers
json.dump(dict(margins=margins, labels=labels, weights=weights, label_smoothing=SMOOTHING, trl=trl.__version__, torch=torch.__version__, transformers=transformers.__version__, log=out),
          open(OUT, "w"), indent=1)
for name, log in out.items(): print(name, [round(r["loss"], 6) for r in log])
