"""Golden values of pandalm.rs, from the 500 pairs of data/pairs/pandalm.jsonl in the folder that RLAIF_SHARED names.

    RLAIF_SHARED=… python golden_pandalm.py > golden_pandalm.rs && rustfmt golden_pandalm.rs

Made with the versions of src/stats/golden_audit.py, whose own fit of the length-controlled win rate is used.
"""
import contextlib
import io
import json
import os
import pathlib
import runpy

import choix
import krippendorff
import numpy as np
import pandas as pd
from irrCAC.raw import CAC
from ppi_py import ppi_mean_ci, ppi_mean_pointestimate
from sklearn.metrics import accuracy_score, cohen_kappa_score
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.inter_rater import aggregate_raters, fleiss_kappa
from statsmodels.stats.proportion import binom_tost, confint_proportions_2indep, proportion_confint
from statsmodels.stats.weightstats import ttost_paired

here = pathlib.Path(__file__).parent
with contextlib.redirect_stdout(io.StringIO()):
    own = runpy.run_path(str(here / "../../src/stats/golden_audit.py"))
lit, lasso, logistic, rogan_gladen = own["lit"], own["lasso"], own["logistic"], own["rogan_gladen"]


def put(name, kind, value):
    print(f"pub const {name}: {kind.replace('#', str(len(value)) if hasattr(value, '__len__') else '')} = {lit(value)};")


print("//! Written by golden_pandalm.py; do not edit.\n")
print("#![allow(clippy::excessive_precision, clippy::unreadable_literal, clippy::approx_constant, clippy::type_complexity)]\n")
path = pathlib.Path(os.environ["RLAIF_SHARED"]) / "data/pairs/pandalm.jsonl"
rows = [json.loads(line) for line in path.open()]
# Ordered: b, tie, a.
said = np.array([[{"b": 0, "tie": 1, "a": 2}[a] for a in row["annotators"]] for row in rows])
put("PAIRS", "usize", len(rows))
pairs = [(0, 1), (0, 2), (1, 2)]
put("KAPPA", "[(f64, f64, f64); #]",
    [tuple(cohen_kappa_score(said[:, i], said[:, j], weights=w) for w in [None, "linear", "quadratic"]) for i, j in pairs])
put("ACCURACY", "[(f64, f64, f64); #]",
    [(accuracy_score(said[:, i], said[:, j]), *proportion_confint(int((said[:, i] == said[:, j]).sum()), len(said), method="wilson"))
     for i, j in pairs])
put("FLEISS", "f64", fleiss_kappa(aggregate_raters(said, n_cat=3)[0]))
put("AC1", "f64", CAC(pd.DataFrame(said).astype(float), categories=[0.0, 1.0, 2.0], digits=17).gwet()["est"]["coefficient_value"])
levels = ["nominal", "ordinal", "interval"]
put("ALPHA", "[f64; 3]", [krippendorff.alpha(said.T, value_domain=[0, 1, 2], level_of_measurement=l) for l in levels])
# As if the second annotator had come for every third pair only, and the third had left after 300.
part = said.astype(float)
part[np.arange(len(part)) % 3 != 0, 1] = np.nan
part[300:, 2] = np.nan
cac = lambda: CAC(pd.DataFrame(part), categories=[0.0, 1.0, 2.0], digits=17)
put("FLEISS_PART", "f64", cac().fleiss()["est"]["coefficient_value"])
put("AC1_PART", "f64", cac().gwet()["est"]["coefficient_value"])
put("ALPHA_PART", "[f64; 3]", [krippendorff.alpha(part.T, value_domain=[0, 1, 2], level_of_measurement=l) for l in levels])

# The first annotator as the judge of all, the third as people on the first 100.
p = said / 2
low, high = ppi_mean_ci(p[:100, 2], p[:100, 0], p[100:, 0], alpha=0.05)
put("PPI", "(f64, f64, f64)", (ppi_mean_pointestimate(p[:100, 2], p[:100, 0], p[100:, 0]).item(), low.item(), high.item()))
sure = said[(said[:, 0] != 1) & (said[:, 2] != 1)]
people, judge = sure[:100, 2] == 2, sure[:100, 0] == 2
put("ROGAN_GLADEN", "(f64, f64, f64)",
    rogan_gladen(int((sure[100:, 0] == 2).sum()), len(sure) - 100, int((people & judge).sum()), int(people.sum()),
                 int((~people & ~judge).sum()), int((~people).sum())))

# Length, by the mean p of the three.
mean_p = p.mean(1)
# Some responses are not strings in the file.
chars = lambda response: len(response if isinstance(response, str) else json.dumps(response))
gap = np.array([chars(row["response_a"]) - chars(row["response_b"]) for row in rows], float)
put("LONGER_WINS", "f64", np.where(gap > 0, mean_p, 1 - mean_p)[gap != 0].mean())
x = np.stack([np.tanh(gap / gap.std(ddof=1)), np.ones(len(gap))], axis=1)
fold = np.arange(len(gap)) % 5
scores = []
for c in np.logspace(-4, 4, 10):
    score = []
    for f in range(5):
        q = logistic(x[fold == f] @ lasso(x[fold != f], mean_p[fold != f], c))
        score.append(np.mean(mean_p[fold == f] * np.log(q) + (1 - mean_p[fold == f]) * np.log(1 - q)))
    scores.append(np.mean(score))
c = np.logspace(-4, 4, 10)[int(np.argmax(scores))]
w = lasso(x, mean_p, c)
put("LENGTH_CONTROLLED", "(f64, f64, f64)", (c, w[0], logistic(w[1])))

# The first annotator picks the first response of decisive pairs: half of the time, within 5 points?
first = int((said[:, 0] == 2).sum()), int((said[:, 0] != 1).sum())
put("TOST_SHARE", "f64", binom_tost(*first, 0.45, 0.55)[0])
put("TOST_PAIRED", "f64", ttost_paired(p[:, 2], p[:, 0], -0.05, 0.05)[0])
put("MCNEMAR", "f64", mcnemar([[0, int(((said[:, 0] == 2) & (said[:, 1] == 0)).sum())],
                               [int(((said[:, 0] == 0) & (said[:, 1] == 2)).sum()), 0]], exact=True).pvalue)
halves = [(int((h[:, 0] == h[:, 1]).sum()), len(h)) for h in (said[:250], said[250:])]
d = halves[0][0] / 250 - halves[1][0] / 250
put("NEWCOMBE", "(f64, f64, f64)", (d, *confint_proportions_2indep(*halves[0], *halves[1], method="newcomb", alpha=0.05)))

# A table of four "models": pair k is model k mod 4 against model (k // 4) mod 4, where they differ.
mat = np.zeros((4, 4))
for k, value in enumerate(mean_p):
    i, j = k % 4, (k // 4) % 4
    if i != j:
        mat[i, j] += value
        mat[j, i] += 1 - value
theta = choix.ilsr_pairwise_dense(mat, alpha=0.0, tol=1e-13, max_iter=10000)
put("STRENGTHS", "[f64; 4]", theta - theta.mean())
