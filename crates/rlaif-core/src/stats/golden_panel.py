"""Golden values of golden_panel.rs: the data of Dawid & Skene 1979, table 1, fitted by an implementation in another language
that shares nothing with ours, and a two-parameter model fitted by scipy's BFGS on Gauss-Hermite nodes.

    python golden_panel.py > golden_panel.rs && rustfmt golden_panel.rs

Made with numpy 2.4.6, scipy 1.17.1.
"""
import math

import numpy as np
from scipy.optimize import minimize

# Five anaesthetists, 45 patients, classes 1 to 4; the first saw each form three times.
TABLE_1 = """
111 1 1 1 1|333 4 3 3 4|112 2 1 2 2|222 3 1 2 1|222 3 2 2 2|222 3 3 2 2|122 2 1 1 1|333 3 4 3 3|222 2 2 2 3
232 2 2 2 3|444 4 4 4 4|222 3 3 4 3|111 1 1 1 1|222 3 2 1 2|121 1 1 1 1|111 2 1 1 1|111 1 1 1 1|111 1 1 1 1
222 2 2 2 1|222 1 3 2 2|222 2 2 2 2|222 2 2 2 1|222 3 2 2 2|221 2 2 2 2|111 1 1 1 1|111 1 1 1 1|232 2 2 2 2
111 1 1 1 1|111 1 1 1 1|112 1 1 2 1|111 1 1 1 1|333 3 2 3 3|111 1 1 1 1|222 2 2 2 2|222 3 2 3 2|433 4 3 4 3
221 2 2 3 2|232 3 2 3 3|333 3 4 3 2|111 1 1 1 1|111 1 1 1 1|121 2 1 1 1|232 2 2 2 2|121 1 1 1 1|222 2 2 2 2
"""
patients = [[list(map(int, judge)) for judge in row.split()] for row in TABLE_1.replace("\n", "|").split("|") if row]
assert len(patients) == 45


def dawid_skene(patients, judges, classes, rounds=20000):
    said = [[[judge.count(c + 1) for c in range(classes)] for judge in patient] for patient in patients]
    truth = []
    for patient in said:
        votes = [sum(judge[c] for judge in patient) for c in range(classes)]
        truth.append([v / sum(votes) for v in votes])
    last = None
    for _ in range(rounds):
        share = [math.fsum(t[k] for t in truth) / len(truth) for k in range(classes)]
        errors = []
        for j in range(judges):
            rows = []
            for k in range(classes):
                counts = [math.fsum(t[k] * p[j][c] for t, p in zip(truth, said)) for c in range(classes)]
                rows.append([c / math.fsum(counts) for c in counts])
            errors.append(rows)
        likelihood, truth = 0.0, []
        for patient in said:
            weights = []
            for k in range(classes):
                weight = share[k]
                for j in range(judges):
                    for c in range(classes):
                        weight *= errors[j][k][c] ** patient[j][c]
                weights.append(weight)
            likelihood += math.log(sum(weights))
            truth.append([w / sum(weights) for w in weights])
        if last is not None and abs(likelihood - last) < 1e-14 * abs(likelihood):
            break
        last = likelihood
    return share, errors, truth, likelihood


def rows(values):
    return "[" + ", ".join(rows(v) if isinstance(v, (list, tuple, np.ndarray)) else repr(v) for v in values) + "]"


share, errors, truth, likelihood = dawid_skene(patients, 5, 4)
print("//! Written by golden_panel.py; do not edit.\n")
print("#![allow(clippy::excessive_precision, clippy::unreadable_literal)]\n")
print("/// Patients, and for each the classes that the five said; the first saw each form three times.")
joined = "|".join(" ".join("".join(map(str, judge)) for judge in patient) for patient in patients)
print(f'pub(super) const TABLE_1: &str = "{joined}";')
print(f"pub(super) const SHARE: [f64; 4] = {rows(share)};")
print(f"pub(super) const ERRORS: [[[f64; 4]; 4]; 5] = {rows(errors)};")
print(f"pub(super) const TRUTH: [[f64; 4]; 45] = {rows(truth)};")
print(f"pub(super) const LIKELIHOOD: f64 = {likelihood!r};")

# Two-parameter model: 60 pairs, three judges in both orders, some verdicts missing.
rng = np.random.default_rng(20261124)
strength, bias, n = [2.0, 1.0, 0.5], [0.5, -1.0, 0.0], 60
theta = rng.normal(size=n)
ballots = []
for i in range(n):
    for j in range(3):
        for mirrored in (False, True):
            if rng.random() < 0.15:
                continue
            x = strength[j] * theta[i] * (-1 if mirrored else 1) + bias[j]
            ballots.append((i, j, float(rng.random() < 1 / (1 + math.exp(-x))), mirrored))
nodes, weights = np.polynomial.hermite_e.hermegauss(121)
weights = weights / weights.sum()
keep = weights > 1e-300
nodes, weights = nodes[keep], weights[keep]


def log_posteriors(parameters):
    s, b = parameters[:3], parameters[3:]
    logs = np.tile(np.log(weights), (n, 1))
    for i, j, y, mirrored in ballots:
        x = s[j] * nodes * (-1 if mirrored else 1) + b[j]
        logs[i] += -np.logaddexp(0, -x) if y else -np.logaddexp(0, x)
    return logs


def objective(parameters):
    logs = log_posteriors(parameters)
    ridge = ((parameters[:3] - 1) ** 2).sum() / 8 + (parameters[3:] ** 2).sum() / 8
    return -np.logaddexp.reduce(logs, axis=1).sum() + ridge


best = minimize(objective, np.array([1.0] * 3 + [0.0] * 3), method="BFGS", options={"gtol": 1e-9})
print("/// Pairs, and for each the verdicts: judge, place chosen (f, s), order (a or b stood first).")
joined = "|".join(" ".join(f"{j}{'f' if y else 's'}{'b' if m else 'a'}" for i, j, y, m in ballots if i == at) for at in range(n))
print(f'pub(super) const BALLOTS: &str = "{joined}";')
print(f"pub(super) const STRENGTH: [f64; 3] = {rows([float(x) for x in best.x[:3]])};")
print(f"pub(super) const BIAS: [f64; 3] = {rows([float(x) for x in best.x[3:]])};")
print(f"pub(super) const BALLOTS_LIKELIHOOD: f64 = {float(np.logaddexp.reduce(log_posteriors(best.x), axis=1).sum())!r};")
