"""Five steps of transformers' Adafactor and its learning-rate schedules.

usage: pip install torch transformers; python make_optimizers.py > optimizers.json

Adafactor as TRL's users have it (`optim="adafactor"`): a given learning rate, no scaling by the parameter, no relative step.
"""
import json, sys
import torch, transformers
from transformers.optimization import (Adafactor, get_cosine_schedule_with_warmup,
                                       get_cosine_with_min_lr_schedule_with_warmup, get_linear_schedule_with_warmup)

torch.manual_seed(20261127)
STEPS = 5
cases = {}
for name, shape, weight_decay, size in [
    ("matrix", [3, 4], 0.0, 1.0), ("tall", [7, 2], 0.1, 1e-3), ("vector", [5], 0.0, 1.0), ("row", [1, 6], 0.1, 10.0),
]:
    theta = torch.nn.Parameter(torch.randn(shape))
    start = theta.detach().flatten().tolist()
    gradients = [torch.randn(shape) * size for _ in range(STEPS)]
    gradients[2].mul_(30.0)  # an outlier, which the clipping of the update's root mean square meets
    optimizer = Adafactor([theta], lr=1e-2, weight_decay=weight_decay, scale_parameter=False, relative_step=False,
                          warmup_init=False)
    after = []
    for gradient in gradients:
        theta.grad = gradient.clone()
        optimizer.step()
        after.append(theta.detach().flatten().tolist())
    cases[name] = {"shape": shape, "weight_decay": weight_decay, "start": start, "after": after,
                   "gradients": [gradient.flatten().tolist() for gradient in gradients]}

TOTAL, WARMUP = 17, 4
schedules = {}
for name, make in [
    ("linear", get_linear_schedule_with_warmup),
    ("cosine", get_cosine_schedule_with_warmup),
    ("cosine_min_0.1", lambda o, w, t: get_cosine_with_min_lr_schedule_with_warmup(o, w, t, min_lr_rate=0.1)),
]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = make(optimizer, WARMUP, TOTAL)
    rates = []
    for _ in range(TOTAL):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    schedules[name] = rates

json.dump({"made_by": f"transformers {transformers.__version__}, torch {torch.__version__}", "learning_rate": 1e-2,
           "adafactor": cases, "total": TOTAL, "warmup": WARMUP, "schedules": schedules}, sys.stdout)
print()
