"""Five optimizer steps of TRL's DPO trainer (and KTO, and SimPO of its CPO trainer) on the tiny llama, one run a loss; pairs and
settings of make_training_steps.py. usage: make_dpo_steps.py MODEL_FOLDER OUT.json"""
import json, os, sys, tempfile, torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from torch.utils.data import SequentialSampler
from trl import DPOTrainer, DPOConfig, KTOTrainer, KTOConfig
from trl.experimental.cpo import CPOTrainer, CPOConfig

torch.set_num_threads(1)
M, OUT = sys.argv[1:]
golden = json.load(open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "training_steps.json")))
pairs = golden["pairs"]
tok = AutoTokenizer.from_pretrained(M)
ds = Dataset.from_list([dict(prompt=p, chosen=c, rejected=r) for p, c, r in pairs])
# Rows of two pairs: chosen, chosen, rejected, rejected. Rotated by one, each prompt meets both answers to the other.
rows = []
for i in range(0, len(pairs), 2):
    rows += [dict(prompt=p, completion=c, label=True) for p, c, r in pairs[i:i + 2]]
    rows += [dict(prompt=p, completion=r, label=False) for p, c, r in pairs[i:i + 2]]
common = {k: v for k, v in golden["settings"].items() if k != "output_dir"}

class Rec(TrainerCallback):
    def __init__(self): self.rows = []
    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" in logs: self.rows.append({k: float(v) for k, v in logs.items() if k in KEPT})
KEPT = ("loss", "grad_norm", "rewards/chosen", "rewards/rejected", "rewards/accuracies", "logps/chosen", "logps/rejected", "kl")

def run(cls, config, data):
    class T(cls):
        def _get_train_sampler(self, *a, **k): return SequentialSampler(self.train_dataset)
    rec = Rec()
    model = AutoModelForCausalLM.from_pretrained(M, dtype=torch.float32)
    T(model=model, args=config, train_dataset=data, processing_class=tok, callbacks=[rec]).train()
    return rec.rows

out = {}
def dpo(name, **k): out[name] = run(DPOTrainer, DPOConfig(**common, output_dir=tempfile.mkdtemp(), max_length=64, **k), ds)
for name in ["hinge", "nca_pair", "bco_pair", "sppo_hard", "aot", "aot_unpaired", "apo_zero", "apo_down", "discopop"]:
    dpo(name, loss_type=[name], beta=0.1)
dpo("ipo_mean", loss_type=["ipo"], beta=0.1)
dpo("sigmoid_norm", loss_type=["sigmoid_norm"], beta=2.0)
dpo("robust", loss_type=["robust"], beta=0.1, label_smoothing=0.1)
dpo("exo_pair", loss_type=["exo_pair"], beta=0.1, label_smoothing=0.01)
kto = {**common, "per_device_train_batch_size": 4}
out["kto"] = run(KTOTrainer, KTOConfig(**kto, output_dir=tempfile.mkdtemp(), max_length=64, beta=0.1, desirable_weight=1.0,
                                       undesirable_weight=0.8, train_sampling_strategy="sequential"), Dataset.from_list(rows))
try:
    out["simpo"] = run(CPOTrainer, CPOConfig(**common, output_dir=tempfile.mkdtemp(), max_length=64, loss_type="simpo", beta=2.0,
                                             simpo_gamma=0.5, cpo_alpha=0.0), ds)
except Exception as error: print("simpo", repr(error))
import trl, transformers
json.dump(dict(trl=trl.__version__, torch=torch.__version__, transformers=transformers.__version__, log=out), open(OUT, "w"), indent=1)
for name, log in out.items(): print(name, [round(r["loss"], 6) for r in log])
