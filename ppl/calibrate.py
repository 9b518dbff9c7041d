"""Rewards whose likelihoods are honest: scores fitted to what they turned out to be worth, on a small labelled set.

    labelled = [(score, was_right), ...]             # log probabilities as the model gives them, and the truth
    honest = calibrated(prm, labelled)               # again a reward model, to be called as `prm`
    print(honest.before.ece, honest.after.ece)

The law is P(success | score) = sigmoid(a + b * log_odds(score)), b > 0 (Platt 1999), with priors a ~ Normal(0, 2) and
b ~ LogNormal(0, 1); its posterior is drawn by NUTS, and the new score is log of the posterior mean: what is not known
from few labels makes it less sure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ppl.distributions import log_odds
from ppl.effects import Call

FAR = 700.0  # log odds beyond which a probability is 0 or 1


@dataclass(frozen=True)
class Reliability:
    """How often what was given a probability came true, by bins of equal width that are not empty."""

    predicted: np.ndarray
    """Mean probability [bins]."""
    observed: np.ndarray
    """Share that came true [bins]."""
    counts: np.ndarray
    log_loss: float
    """Mean of -log P(what happened), nats; inf if something impossible did."""

    @property
    def ece(self) -> float:
        """Expected calibration error: the mean distance of the two, by counts (Guo et al. 2017)."""
        return float((self.counts * np.abs(self.predicted - self.observed)).sum() / self.counts.sum())


def reliability(log_probs: Sequence[float], outcomes: Sequence[bool], bins: int = 10) -> Reliability:
    """Of log probabilities, nats, and what came true.

    Raises:
        ValueError: there are none, or not as many of both; or a log probability above 0 or nan.
    """
    logs, truth = _checked(log_probs, outcomes)
    p = np.exp(logs)
    at = np.minimum((p * bins).astype(int), bins - 1)
    counts = np.bincount(at, minlength=bins)
    some = counts > 0
    predicted = np.bincount(at, p, bins)[some] / counts[some]
    observed = np.bincount(at, truth, bins)[some] / counts[some]
    with np.errstate(divide="ignore"):
        loss = -np.where(truth, logs, np.log1p(-p)).mean()
    return Reliability(predicted, observed, counts[some], float(loss))


@dataclass(frozen=True, eq=False)
class Calibrated:
    """A reward model of honest scores: it is called as the one that it was made of."""

    model: Callable[..., Any]
    intercepts: np.ndarray
    """Draws of a from the posterior."""
    slopes: np.ndarray
    """Draws of b."""
    before: Reliability
    """Of the labelled set."""
    after: Reliability

    @property
    def kind(self) -> str | None:
        """That of the model."""
        return getattr(self.model, "kind", None)

    def __call__(self, *args: Any) -> Call[float]:
        inner = self.model(*args)
        if not isinstance(inner, Call):
            raise TypeError(f"{self.model!r} gave {inner!r}: a reward model gives a call, like ppl.call(fn, text)")
        return inner.mapped(self.of, self)

    def of(self, score: float) -> float:
        """The honest log probability of a score, nats."""
        odds = log_odds(score) if score > -math.inf else -FAR
        z = self.intercepts + self.slopes * min(max(odds, -FAR), FAR)
        return min(float(np.logaddexp.reduce(-np.logaddexp(0.0, -z)) - math.log(len(z))), 0.0)

    def plot(self, path: Path | str) -> None:
        """The reliability diagram before and after, as a picture."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(5.2, 5), layout="constrained")
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color="#bbbbbb", linewidth=1)
        for one, colour, name in ((self.before, "#d98c2b", "before"), (self.after, "#3a78b8", "after")):
            size = 20 + 180 * one.counts / one.counts.max()
            axes.plot(one.predicted, one.observed, color=colour, linewidth=1)
            axes.scatter(one.predicted, one.observed, s=size, color=colour, label=f"{name}: ECE {one.ece:.3f}")
        axes.set(xlabel="probability that was given", ylabel="share that came true", xlim=(0, 1), ylim=(0, 1))
        axes.grid(alpha=0.25)
        axes.legend(frameon=False, loc="upper left")
        figure.savefig(path, dpi=130)


def calibrated(model: Callable[..., Any], labelled: Sequence[tuple[float, bool]], seed: int = 0) -> Calibrated:
    """`model`, with scores that are as probable as they say on a set of (score, whether it came true).

    Raises:
        ValueError: there are no labels, or a score above 0 or nan.
    """
    scores, truth = _checked([score for score, _ in labelled], [right for _, right in labelled])
    odds = np.clip([log_odds(x) if x > -math.inf else -FAR for x in scores.tolist()], -FAR, FAR)
    intercepts, slopes = _posterior(odds, truth, seed)
    before = reliability(scores.tolist(), truth.tolist())
    made = Calibrated(model, intercepts, slopes, before, before)
    after = reliability([made.of(score) for score in scores.tolist()], truth.tolist())
    return Calibrated(model, intercepts, slopes, before, after)


def _posterior(odds: np.ndarray, truth: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    import jax
    import numpyro
    import numpyro.distributions as dist
    from numpyro.infer import MCMC, NUTS

    def law(odds: Any, truth: Any) -> None:
        a = numpyro.sample("a", dist.Normal(0.0, 2.0))
        b = numpyro.sample("b", dist.LogNormal(0.0, 1.0))
        numpyro.sample("right", dist.Bernoulli(logits=a + b * odds), obs=truth)

    mcmc = MCMC(NUTS(law), num_warmup=500, num_samples=500, progress_bar=False)
    mcmc.run(jax.random.key(seed), odds.astype(np.float32), truth.astype(np.float32))
    draws = mcmc.get_samples()
    return np.asarray(draws["a"], float), np.asarray(draws["b"], float)


def _checked(log_probs: Sequence[float], outcomes: Sequence[bool]) -> tuple[np.ndarray, np.ndarray]:
    logs, truth = np.asarray(log_probs, float), np.asarray(outcomes, bool)
    if not len(logs) or logs.shape != truth.shape:
        raise ValueError(f"{len(logs)} scores and {len(truth)} outcomes: one or more, and as many of both")
    if not (logs <= 0).all():
        raise ValueError(f"a score is a log probability, at most 0, not {logs[~(logs <= 0)][0]}")
    return logs, truth
