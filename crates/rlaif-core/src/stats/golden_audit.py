"""Golden values of golden_audit.rs: agreement of many raters, corrected rates, length control, equivalence, ranking, sample size.

    python golden_audit.py > golden_audit.rs && rustfmt golden_audit.rs

Made with numpy 1.26.4, scipy 1.12.0, statsmodels 0.15.0, scikit-learn 1.9.1, krippendorff 0.9.0, irrCAC 0.4.4, ppi-python 0.2.3,
choix 0.4.1.
"""
import warnings

import choix
import krippendorff
import numpy as np
import pandas as pd
from irrCAC.raw import CAC
from ppi_py import ppi_mean_ci, ppi_mean_pointestimate
from scipy import optimize, stats
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats.inter_rater import aggregate_raters, fleiss_kappa
from statsmodels.stats.power import normal_sample_size_one_tail
from statsmodels.stats.proportion import binom_tost, confint_proportions_2indep, tost_proportions_2indep
from statsmodels.stats.weightstats import ttost_paired

warnings.simplefilter("ignore")


def lit(x):
    if isinstance(x, tuple):
        return "(" + ", ".join(lit(v) for v in x) + ")"
    if isinstance(x, (list, np.ndarray)):
        return "[" + ", ".join(lit(v) for v in x) + "]"
    if isinstance(x, (int, np.integer)):
        return str(int(x))
    return repr(float(x))


def put(name, kind, value):
    kind = kind.replace("#", str(len(value)) if hasattr(value, "__len__") else "")
    print(f"pub(super) const {name}: {kind} = {lit(value)};")


def logistic(x):
    return 1 / (1 + np.exp(-x))


print("//! Written by golden_audit.py; do not edit.\n")
print("#![allow(clippy::excessive_precision, clippy::unreadable_literal, clippy::approx_constant, clippy::type_complexity)]\n")
rng = np.random.default_rng(20261127)

# The normal distribution, in both tails.
put("NORMAL_CDF", "[(f64, f64); #]", [(x, stats.norm.cdf(x)) for x in [-30.0, -8.0, -3.2, -1.0, -0.1, 0.0, 0.5, 1.96, 2.9, 5.0]])
put("NORMAL_QUANTILE", "[(f64, f64); #]",
    [(p, stats.norm.ppf(p)) for p in [1e-12, 0.001, 0.025, 0.2, 0.4999, 0.8, 0.9, 0.975, 0.9999]])
put("BINOMIAL_AT_LEAST", "[(u64, u64, f64, f64); #]",
    [(k, n, p, stats.binom.sf(k - 1, n, p)) for k, n, p in
     [(0, 5, 0.3), (5, 5, 0.3), (3, 10, 0.45), (60, 100, 0.45), (480, 1000, 0.55), (7, 7, 0.999), (1, 40, 0.01)]])

# 40 items, five raters, three ordered categories; -1 is missing. Some items have one rating, one has none.
truth = rng.integers(0, 3, 40)
ratings = np.array([[t if rng.random() < 0.6 else rng.integers(0, 3) for _ in range(5)] for t in truth])
complete = ratings.copy()
ratings[rng.random(ratings.shape) < 0.25] = -1
ratings[3, 1:], ratings[7], ratings[11, :4] = -1, -1, -1
ratings[3, 0], ratings[11, 4] = 2, 0
put("COMPLETE", "[[i8; 5]; #]", complete)
put("MISSING", "[[i8; 5]; #]", ratings)
put("FLEISS_COMPLETE", "f64", fleiss_kappa(aggregate_raters(complete, n_cat=3)[0], method="fleiss"))


def irr(table, name):
    frame = pd.DataFrame(table).astype(float).replace(-1.0, np.nan)
    return getattr(CAC(frame, categories=[0.0, 1.0, 2.0], digits=17), name)()["est"]


put("FLEISS_MISSING", "f64", irr(ratings, "fleiss")["coefficient_value"])
put("AGREEMENT_MISSING", "f64", irr(ratings, "fleiss")["pa"])
put("AC1_COMPLETE", "f64", irr(complete, "gwet")["coefficient_value"])
put("AC1_MISSING", "f64", irr(ratings, "gwet")["coefficient_value"])


def alpha(table, level):
    data = np.where(table < 0, np.nan, table.astype(float)).T
    return krippendorff.alpha(data, value_domain=[0.0, 1.0, 2.0], level_of_measurement=level)


put("ALPHA_COMPLETE", "(f64, f64, f64)", tuple(alpha(complete, l) for l in ["nominal", "ordinal", "interval"]))
put("ALPHA_MISSING", "(f64, f64, f64)", tuple(alpha(ratings, l) for l in ["nominal", "ordinal", "interval"]))
put("WEIGHTED_KAPPA", "(f64, f64, f64)",
    tuple(cohen_kappa_score(complete[:, 0], complete[:, 1], weights=w) for w in [None, "linear", "quadratic"]))

# A judge that likes one side: people on 60 pairs, the judge on these and on 300 more.
human = rng.choice([0.0, 0.5, 1.0], 360, p=[0.4, 0.1, 0.5])
judge = np.where(rng.random(360) < 0.7, human, rng.choice([0.0, 1.0], 360, p=[0.3, 0.7]))
judge = np.round(0.05 + 0.9 * judge, 3)
put("HUMAN", "[f64; #]", human[:60])
put("JUDGE", "[f64; #]", judge[:60])
put("JUDGE_ALONE", "[f64; #]", judge[60:])


def ppi(y, yhat, rest, lam):
    low, high = ppi_mean_ci(y, yhat, rest, alpha=0.05, lam=lam)
    return (ppi_mean_pointestimate(y, yhat, rest, lam=lam).item(), low.item(), high.item())


put("PPI", "(f64, f64, f64)", ppi(human[:60], judge[:60], judge[60:], 1))
put("PPI_TUNED", "(f64, f64, f64)", ppi(human[:60], judge[:60], judge[60:], None))
# A judge that is wrong about everything: lambda is cut off at 0.
assert 0.3 < (ppi(human[:60], judge[:60], judge[60:], None)[0] - human[:60].mean()) / (judge[60:].mean() - judge[:60].mean()) < 0.9
put("PPI_USELESS", "(f64, f64, f64)", ppi(human[:60], 1 - judge[:60], 1 - judge[60:], None))


def rogan_gladen(k, n, k_se, n_se, k_sp, n_sp):
    """Lang & Reiczigel 2014, eq. 4, 6, 7, 16, 17."""
    z2 = stats.norm.ppf(0.975) ** 2
    theta = lambda ap, se, sp: (ap + sp - 1) / (se + sp - 1)
    ap, se, sp = (k + z2 / 2) / (n + z2), (k_se + 1) / (n_se + 2), (k_sp + 1) / (n_sp + 2)
    centre = theta(ap, se, sp)
    v_se, v_sp = se * (1 - se) / (n_se + 2), sp * (1 - sp) / (n_sp + 2)
    variance = (ap * (1 - ap) / (n + z2) + centre**2 * v_se + (1 - centre) ** 2 * v_sp) / (se + sp - 1) ** 2
    middle = centre + 2 * z2 * (centre * v_se - (1 - centre) * v_sp)
    half = np.sqrt(z2 * variance)
    return tuple(float(np.clip(v, 0, 1)) for v in (theta(k / n, k_se / n_se, k_sp / n_sp), middle - half, middle + half))


cases = [(130, 200, 40, 50, 45, 60), (620, 1000, 30, 30, 20, 30), (5, 100, 18, 20, 25, 30), (98, 100, 80, 100, 70, 100)]
put("ROGAN_GLADEN", "[((u64, u64), (u64, u64), (u64, u64), (f64, f64, f64)); #]",
    [((c[0], c[1]), (c[2], c[3]), (c[4], c[5]), rogan_gladen(*c)) for c in cases])

# Length control. The judge likes length; some verdicts are soft.
n = 97
a_chars, b_chars = rng.integers(100, 2000, n), rng.integers(80, 1500, n)
gap = (a_chars - b_chars).astype(float)
p = np.round(logistic(0.4 + 1.5 * np.tanh(gap / gap.std(ddof=1)) + rng.normal(0, 0.7, n)), 2)
p = np.where(rng.random(n) < 0.6, (rng.random(n) < p).astype(float), p)
put("LC_LENGTHS", "[(u64, u64); #]", [(int(a), int(b)) for a, b in zip(a_chars, b_chars)])
put("LC_P", "[f64; #]", p)


def lasso(x, y, c):
    """min C * sum of log loss + |w|_1 as AlpacaEval's liblinear has it, to full precision: w = u - v with u, v >= 0, then Newton's method
    on the coefficients that are not 0."""
    def loss(w):
        z = x @ w
        return c * np.sum(y * np.logaddexp(0, -z) + (1 - y) * np.logaddexp(0, z))

    def slope(w):
        return c * x.T @ (logistic(x @ w) - y)

    k = x.shape[1]
    best = optimize.minimize(lambda t: loss(t[:k] - t[k:]) + t.sum(), np.full(2 * k, 0.01), bounds=[(0, None)] * (2 * k),
                             jac=lambda t: np.concatenate([slope(t[:k] - t[k:]) + 1, 1 - slope(t[:k] - t[k:])]),
                             method="L-BFGS-B", options={"ftol": 1e-15, "gtol": 1e-9, "maxiter": 10000}).x
    w = best[:k] - best[k:]
    w[np.abs(w) < 1e-6] = 0
    on = w != 0
    for _ in range(50):
        if not on.any():
            break
        q = logistic(x @ w)
        hessian = c * (x[:, on] * (q * (1 - q))[:, None]).T @ x[:, on]
        w[on] -= np.linalg.solve(hessian, slope(w)[on] + np.sign(w[on]))
    assert np.all(np.abs(slope(w)[~on]) <= 1 + 1e-9) and np.all(np.abs(slope(w)[on] + np.sign(w[on])) < 1e-8)
    # liblinear, to its own tolerance.
    both = LogisticRegression(penalty="l1", solver="liblinear", C=c, fit_intercept=False, tol=1e-10, max_iter=100000)
    both.fit(np.concatenate([x, x]), np.repeat([1, 0], len(y)), sample_weight=np.concatenate([y, 1 - y]))
    assert np.allclose(both.coef_[0], w, atol=1e-4), (both.coef_, w)
    return w


x = np.stack([np.tanh(gap / gap.std(ddof=1)), np.ones(n)], axis=1)
put("LC_FITS", "[(f64, f64, f64); #]", [(c, *lasso(x, p, c)) for c in [1e-4, 0.02, 0.2, 1.0, 1e4]])
grid, fold = np.logspace(-4, 4, 10), np.arange(n) % 5
scores = []
for c in grid:
    score = []
    for f in range(5):
        q = np.clip(logistic(x[fold == f] @ lasso(x[fold != f], p[fold != f], c)), 1e-15, 1 - 1e-15)
        score.append(np.mean(p[fold == f] * np.log(q) + (1 - p[fold == f]) * np.log(1 - q)))
    scores.append(np.mean(score))
c = grid[int(np.argmax(scores))]
w = lasso(x, p, c)
put("LC_WIN_RATE", "(f64, f64, f64, f64)", (c, *w, logistic(w[1])))

# Equivalence.
put("TOST_SHARE", "[(u64, u64, f64, f64, f64, f64, f64); #]",
    [(k, n_, lo, hi, *binom_tost(k, n_, lo, hi)) for k, n_, lo, hi in
     [(52, 100, 0.4, 0.6), (500, 1000, 0.45, 0.55), (30, 40, 0.45, 0.55), (0, 20, 0.0, 0.1)]])
before = np.round(rng.normal(0.5, 0.2, 25), 3)
after = np.round(before + rng.normal(0.01, 0.08, 25), 3)
put("TOST_BEFORE", "[f64; #]", before)
put("TOST_AFTER", "[f64; #]", after)
overall, low, high = ttost_paired(after, before, -0.05, 0.06)
put("TOST_PAIRED", "(f64, f64, f64, f64, f64)", (-0.05, 0.06, overall, low[1], high[1]))
rows = []
for k1, n1, k2, n2, lo, hi in [(52, 100, 49, 90, -0.1, 0.1), (480, 1000, 470, 1000, -0.05, 0.05), (9, 10, 2, 12, -0.2, 0.2)]:
    res = tost_proportions_2indep(k1, n1, k2, n2, lo, hi, method="agresti-caffo")
    rows.append((k1, n1, k2, n2, lo, hi, res.pvalue))
put("TOST_SHARES", "[(u64, u64, u64, u64, f64, f64, f64); #]", rows)
put("NEWCOMBE", "[(u64, u64, u64, u64, f64, f64, f64); #]",
    [(a, b, c_, d, a / b - c_ / d, *confint_proportions_2indep(a, b, c_, d, method="newcomb", alpha=0.05))
     for a, b, c_, d in [(56, 70, 48, 80), (9, 10, 3, 10), (0, 10, 0, 20), (10, 10, 0, 20), (480, 1000, 470, 990)]])

# Ranking: four models, some pairs never met, ties as half a win each way.
models, strength, games = 4, [0.0, 0.6, -0.4, 1.1], []
for i, j in [(0, 1), (0, 2), (1, 3), (2, 3), (1, 2)]:
    for _ in range(12):
        u = rng.random()
        won = logistic(strength[i] - strength[j])
        games.append((i, j, 0.5 if u < 0.2 else float((u - 0.2) / 0.8 < won)))
put("GAMES", "[(usize, usize, f64); #]", games)
data = [pair for i, j, s in games for pair in {1.0: [(i, j)] * 2, 0.0: [(j, i)] * 2, 0.5: [(i, j), (j, i)]}[s]]
mat = np.zeros((models, models))
for i, j in data:
    mat[i, j] += 0.5


def centred(v):
    return v - np.mean(v)


ilsr = centred(choix.ilsr_pairwise_dense(mat, alpha=0.0, tol=1e-13, max_iter=10000))
put("STRENGTHS", "[f64; 4]", ilsr)
# Every game counts twice in `data`, so a ridge of 0.3 a game is a penalty of 0.3 on it: choix has alpha * sum of squares.
ridge = choix.opt_pairwise(models, data, alpha=0.3, method="BFGS", tol=1e-12)
fcts = choix.opt.PairwiseFcts(data, 0.3)
for _ in range(20):
    ridge = ridge - np.linalg.solve(fcts.hessian(ridge), fcts.gradient(ridge))
put("STRENGTHS_RIDGE", "[f64; 4]", ridge)

# Sample size. Points of a prompt are 0, 1/4, 1/2, 3/4 or 1: the standard deviation is spelt out from their shares.
rows = []
for rate, ties, half_ties, power in [(0.55, 0.0, 0.0, 0.8), (0.6, 0.3, 0.0, 0.9), (0.55, 0.3, 0.1, 0.8), (0.3, 0.0, 0.2, 0.8)]:
    def std(mean):
        # Half ties lean to the winner's side as wins do; any split of them has the same spread.
        points = np.array([1, 0.75, 0.5, 0.25, 0])
        shares = np.array([mean - ties / 2 - half_ties / 2, half_ties / 2, ties, half_ties / 2, 0])
        shares[4] = 1 - shares.sum()
        assert shares.min() >= 0 and abs(shares @ points - mean) < 1e-12
        return np.sqrt(shares @ points**2 - mean**2)

    size = normal_sample_size_one_tail(rate - 0.5, power, 0.025, std_null=std(0.5), std_alternative=std(rate))
    rows.append((rate, ties, half_ties, power, size))
put("SAMPLE_SIZE", "[(f64, f64, f64, f64, f64); #]", rows)
