"""Golden values of golden.rs, from scipy, statsmodels and scikit-learn.

    python golden.py > golden.rs && rustfmt golden.rs

Made with scipy 1.17.1, statsmodels 0.15.0, scikit-learn 1.9.1, numpy 2.4.6.
"""
import numpy as np
from scipy import stats
from sklearn.metrics import brier_score_loss, cohen_kappa_score, log_loss, roc_auc_score
from statsmodels.stats.proportion import proportion_confint


def lit(x):
    if isinstance(x, (tuple, list, np.ndarray)):
        return "(" + ", ".join(lit(v) for v in x) + ")"
    if isinstance(x, (int, np.integer)):
        return str(int(x))
    return repr(float(x))


def array(name, kind, values):
    print(f"pub(super) const {name}: [{kind}; {len(values)}] = [{', '.join(lit(v) for v in values)}];")


def scalar(name, value):
    print(f"pub(super) const {name}: f64 = {lit(value)};")


def triple(name, value):
    print(f"pub(super) const {name}: (f64, f64, f64) = {lit(value)};")


print("//! Written by golden.py; do not edit.\n")
print("#![allow(clippy::excessive_precision, clippy::unreadable_literal)]\n")

cases = [(0, 10), (10, 10), (1, 2), (56, 120), (125, 125), (980, 1000), (3, 100000)]
array("WILSON", "(u64, u64, (f64, f64, f64))",
      [(k, n, (k / n, *proportion_confint(k, n, method="wilson"))) for k, n in cases])

array("STUDENT_T", "(f64, f64)", [(float(df), stats.t.ppf(0.975, df)) for df in [1, 2, 3, 5, 13, 30, 199, 10000]])
array("BINOMIAL", "(u64, u64, f64)",
      [(k, n, stats.binomtest(k, n).pvalue) for k, n in [(0, 1), (1, 10), (9, 10), (40, 100), (5, 10), (480, 1000), (49, 49)]])

rng = np.random.default_rng(20260101)
before = np.round(rng.normal(0.05, 0.1, 14), 4)
after = np.round(before + rng.normal(0.1, 0.06, 14), 4)
array("BEFORE", "f64", before)
array("AFTER", "f64", after)
mean = after.mean()
triple("MEAN_AFTER", (mean, *stats.t.interval(0.95, len(after) - 1, loc=mean, scale=stats.sem(after))))
paired = stats.ttest_rel(after, before)
ci = paired.confidence_interval(0.95)
triple("PAIRED", ((after - before).mean(), ci.low, ci.high))
scalar("PAIRED_P", paired.pvalue)

a = rng.integers(0, 3, 60)
b = np.where(rng.random(60) < 0.6, a, rng.integers(0, 3, 60))
array("RATER_A", "u8", a)
array("RATER_B", "u8", b)
scalar("KAPPA", cohen_kappa_score(a, b))

# Two decimals, so that there are ties; 43 does not divide by 5 bins.
p = np.round(rng.uniform(0.02, 0.98, 43), 2)
y = (rng.random(43) < p).astype(float)
array("PREDICTIONS", "f64", p)
array("LABELS", "f64", y)
scalar("BRIER", brier_score_loss(y, p))
scalar("NLL", log_loss(y, p))
scalar("AUC", roc_auc_score(y, p))
order = np.argsort(p, kind="stable")
scalar("ECE_5", sum(len(c) / len(p) * abs(y[c].mean() - p[c].mean()) for c in np.array_split(order, 5)))
