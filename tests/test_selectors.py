"""Selectors, against counting by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from ppl import Population, Posterior
from ppl.selectors import MBR, RPC, Abstain, BestOfMajority, Majority, _log_density, _weibull


def posterior(**weights: float | list[float]) -> Posterior[str]:
    """Particles of these values: one for each weight."""
    pairs = [(value, w) for value, ws in weights.items() for w in (ws if isinstance(ws, list) else [ws])]
    return Posterior(Population(tuple(v for v, _ in pairs), tuple(math.log(w) for _, w in pairs)))


def test_ties_of_a_majority() -> None:
    two = posterior(a=[1.0, 1.0], b=[2.0, 2.0], c=[5.0])
    assert two.vote(Majority()) == "a" == two.vote("majority")
    assert two.vote(Majority("weight")) == "b" and two.vote(Majority("none")) is None
    assert posterior(a=[1.0], b=[1.0, 1.0]).vote(Majority("none")) == "b"
    with pytest.raises(ValueError, match="ties='last': choose first, weight or none"):
        Majority("last")  # pyright: ignore[reportArgumentType]


def test_best_of_majority() -> None:
    """A rare answer of a high score does not count; of the frequent ones the best do."""
    some = posterior(rare=[9.0], often=[1.0] * 5, best=[0.5, 0.5, 3.0], third=[2.0, 0.1])
    assert some.vote("argmax") == "rare" and some.vote("majority") == "often"
    assert some.vote(BestOfMajority(1, share=2 / 11)) == ("best",)
    assert some.vote(BestOfMajority(2, share=2 / 11)) == ("best", "third")
    assert some.vote(BestOfMajority(3, share=0.0)) == ("rare", "best", "third")
    assert some.vote(BestOfMajority(3, share=1.0)) == ("often",)  # nothing is that frequent: the most frequent
    for bad in ({"k": 0}, {"share": 1.5}):
        with pytest.raises(ValueError, match="k is at least 1"):
            BestOfMajority(**bad)  # pyright: ignore[reportArgumentType]


def test_minimum_bayes_risk() -> None:
    numbers = posterior(**{"1": 0.4, "5": 0.3, "6": 0.3})
    assert numbers.vote(MBR(lambda one, truth: float(one == truth))) == numbers.vote() == "1"
    assert numbers.vote(MBR(lambda one, truth: -abs(int(one) - int(truth)))) == "5"  # the median
    assert numbers.vote(MBR(lambda one, truth: -((int(one) - int(truth)) ** 2))) == "5"


def test_abstaining() -> None:
    two = posterior(a=[3.0], b=[2.0])
    assert two.vote(Abstain(0.6)) == "a" and two.vote(Abstain(0.61)) is None
    assert two.vote(Abstain(0.5, "majority")) == "a"
    assert posterior(a=[1.0], b=[1.0]).vote(Abstain(0.1, Majority("none"))) is None
    with pytest.raises(ValueError, match="below is a probability"):
        Abstain(2.0)


PATHS = {"x1": 0.30, "x2": 0.01, "y1": 0.2, "y2": 0.15, "y3": 0.002}


def rpc(**options: Any) -> RPC:
    return RPC(lambda path: math.log(PATHS[path]), lambda path: path[0], **options)


def test_perplexity_consistency_sums_over_distinct_paths() -> None:
    """However often a path was drawn it counts its probability once, and weights do not matter."""
    drawn = posterior(x1=[1.0] * 9, x2=1.0, y1=0.1, y2=0.1, y3=0.1)
    assert drawn.map(lambda path: path[0]).vote("majority") == "x"
    assert drawn.vote(rpc(prune=False)) == "y"  # 0.352 against 0.31


def test_improbable_paths_are_pruned() -> None:
    """Many improbable paths to one answer do not outvote two probable ones."""
    p = {**{f"n{i}": 0.004 for i in range(300)}, "x1": 0.3, "x2": 0.28, "x3": 0.2}
    many = Posterior(Population(tuple(p), (0.0,) * len(p)))
    by: dict[str, Any] = {"log_prob": lambda path: math.log(p[path]), "answer": lambda path: path[0]}
    assert many.vote(RPC(**by, prune=False)) == "n" and many.vote(RPC(**by)) == "x"


def test_the_fit_of_a_weibull_law() -> None:
    from scipy import stats

    for shape, scale in ((0.7, 0.1), (2.0, 3.0), (10.0, 0.5)):
        law: Any = stats.weibull_min(shape, scale=scale)
        x = law.rvs(20_000, random_state=0)
        k, s = _weibull(x, np.ones(len(x)))
        assert k == pytest.approx(shape, rel=0.03) and s == pytest.approx(scale, rel=0.03)
        assert np.allclose(_log_density(x[:9], shape, scale), law.logpdf(x[:9]))


def test_any_function_votes_and_unknown_names_are_told() -> None:
    assert posterior(a=1.0, b=3.0).vote(lambda answers: len(answers.items())) == 2
    with pytest.raises(ValueError, match=r"or a selector of ppl\.selectors"):
        posterior(a=1.0).vote("best")  # pyright: ignore[reportCallIssue, reportArgumentType]


@pytest.mark.filterwarnings("error")
def test_any_probabilities_can_be_pruned() -> None:
    """Nothing overflows, whatever they are, and the largest is never left out."""
    rng = np.random.default_rng(0)
    for n in (1, 2, 4, 5, 30):
        for spread in (0.0, 1e-9, 1.0, 50.0, 700.0):
            logs = {f"x{i}": -abs(x) for i, x in enumerate(rng.normal(size=n) * spread)}
            some = Posterior(Population(tuple(logs), (0.0,) * n))
            assert some.vote(RPC(lambda path, logs=logs: logs[path])) == max(logs, key=lambda path: logs[path])
