"""Mean losses of four pairs in float64, each formula written out once more. usage: make_dpo_losses.py OUT.json

Of TRL 1.16 unless said: DPOTrainer._compute_loss (hinge to discopop), KTOTrainer._compute_loss, ORPOTrainer.odds_ratio_loss, CPOTrainer.cpo_loss."""
import json, math, sys

# lp_chosen, lp_rejected, lr_chosen, lr_rejected, |chosen|, |rejected|
PAIRS = [(-12.0, -15.0, -13.0, -14.5, 8, 10), (-9.0, -8.5, -7.0, -9.5, 5, 6), (-20.0, -30.0, -21.0, -24.0, 12, 9), (-6.0, -4.0, -5.5, -5.0, 3, 4)]
BETA, E, GAMMA, TAU, KL, WD, WU, P = 0.3, 0.1, 0.5, 0.05, 0.7, 1.2, 0.8, 0.8

def S(x): return 1 / (1 + math.exp(-x))
def L(x): return math.log(S(x))
def mean(xs): return sum(xs) / len(xs)

rows = []
for lc, lr, rc, rr, nc, nr in PAIRS:
    rows.append(dict(a=lc - rc, b=lr - rr, mc=lc / nc, mr=lr / nr, an=(lc - rc) / nc, bn=(lr - rr) / nr))

def orpo(mc, mr):  # Hong et al. 2024, eq. 6: -log P(chosen) of mean log-probs + lambda * odds ratio
    odds = lambda m: math.exp(m) / (1 - math.exp(m))
    return -mc - BETA * L(math.log(odds(mc) / odds(mr)))

def discopop(x):
    m = S(x / TAU)
    return -L(x) * (1 - m) + math.exp(-x) * m

def exo(x, w=1 - E):
    return S(x) * (L(x) - math.log(w)) + S(-x) * (L(-x) - math.log(1 - w))

B = BETA
HARD = {
    "sigmoid": lambda a, b, **_: -L(B * (a - b)),
    "cdpo": lambda a, b, **_: -(1 - E) * L(B * (a - b)) - E * L(-B * (a - b)),
    "robust": lambda a, b, **_: (-(1 - E) * L(B * (a - b)) + E * L(-B * (a - b))) / (1 - 2 * E),
    "hinge": lambda a, b, **_: max(0.0, 1 - B * (a - b)),
    "ipo_mean": lambda an, bn, **_: (an - bn - 1 / (2 * B)) ** 2,
    "ipo_sum": lambda a, b, **_: (a - b - 1 / (2 * B)) ** 2,  # OpenRLHF, DPOLoss
    "sigmoid_norm": lambda an, bn, **_: -L(B * (an - bn)),
    "simpo": lambda mc, mr, **_: -L(B * (mc - mr) - GAMMA),
    "orpo": lambda mc, mr, **_: orpo(mc, mr),
    "kto": lambda a, b, **_: (WD * (1 - S(B * (a - KL))) + WU * (1 - S(B * (KL - b)))) / 2,
    "exo_pair": lambda a, b, **_: exo(B * (a - b)),
    "nca_pair": lambda a, b, **_: -L(B * a) - 0.5 * L(-B * a) - 0.5 * L(-B * b),
    "bco_pair": lambda a, b, **_: -L(B * a) - L(-B * b),
    "sppo_hard": lambda a, b, **_: (a - 0.5 / B) ** 2 + (b + 0.5 / B) ** 2,
    "apo_zero": lambda a, b, **_: 1 - S(B * a) + S(B * b),
    "apo_zero_unpaired": lambda a, b, **_: (WD * (1 - S(B * a)) + WU * S(B * b)) / 2,
    "apo_down": lambda a, b, **_: S(B * a) + 1 - S(B * (a - b)),
    "discopop": lambda a, b, **_: discopop(B * (a - b)),
}

def sorted_loss(deltas): return mean([-(1 - E) * L(B * d) - E * L(-B * d) for d in deltas])

out = {name: {"hard": mean([f(**r) for r in rows])} for name, f in HARD.items()}
for name, f in HARD.items():
    other = lambda r: dict(a=r["b"], b=r["a"], an=r["bn"], bn=r["an"], mc=r["mr"], mr=r["mc"])
    out[name]["soft"] = mean([P * f(**r) + (1 - P) * f(**other(r)) for r in rows])
out["exo_pair"]["soft"] = mean([exo(B * (r["a"] - r["b"]), P * (1 - E) + (1 - P) * E) for r in rows])
policy, reference = sorted(p[0] - p[1] for p in PAIRS), sorted(p[2] - p[3] for p in PAIRS)
out["aot"] = {"hard": sorted_loss([x - y for x, y in zip(policy, reference)])}
out["aot_unpaired"] = {"hard": sorted_loss([x - y for x, y in zip(sorted(r["a"] for r in rows), sorted(r["b"] for r in rows))])}
json.dump(dict(pairs=PAIRS, beta=BETA, label_smoothing=E, simpo_gamma=GAMMA, discopop_tau=TAU, kl=KL, desirable_weight=WD,
               undesirable_weight=WU, p=P, losses=out), open(sys.argv[1], "w"), indent=1)
