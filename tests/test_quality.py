"""What is bad about a posterior is said in plain words, and only then."""

from __future__ import annotations

import math
import re
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ppl import (
    MCMC,
    SMC,
    Bernoulli,
    Block,
    Importance,
    InferenceWarning,
    Islands,
    Population,
    Posterior,
    Program,
    SingleSite,
    Suffix,
    Systematic,
    factor,
    infer,
    infer_many,
    program,
    sample,
)
from ppl.inference.population import Step


def _posterior(**fields: Any) -> Posterior[int]:
    fields = {"values": (0,) * 16, "log_weights": (0.0,) * 16} | fields
    return Posterior(Population(**fields))


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"diagnostics": {"chains": 4, "divergences": 3}, "normalised": True}, "3 transitions of NUTS diverged"),
        (
            {"diagnostics": {"chains": 4, "r_hat": {"a": 1.1, "b": 1.3, "c": math.nan}}},
            r"r-hat is 1\.30 at b",
        ),
        (
            {"diagnostics": {"chains": 4, "n_eff": {"a": 900.0, "b": 12.0}}},
            "as much as 12 independent ones .n_eff at b",
        ),
        (
            {"diagnostics": {"chains": 1, "acceptance": {"p/x": 0.001, "p/y": 0.5}, "tried": {"p/x": 1000, "p/y": 9}}},
            r"moves at p/x are hardly ever accepted \(0\.1% of 1000\)",
        ),
        ({"log_weights": (0.0, *(-9.0,) * 15)}, "16 particles say as much as 1.0"),
        ({"log_weights": tuple(float(i**2) for i in range(16)), "values": tuple(range(16))}, "16 particles say as"),
        (
            {"steps": (Step(16.0, 0.0, 16, True), Step(1.1, 0.0, 8, True), Step(9.0, 0.0, 4, False))},
            "at step 1 of 3, 16 particles said as much as 1.1",
        ),
        ({"steps": (Step(16.0, 0.0, 16, True), Step(9.0, 0.0, 1, False))}, "all 16 particles descend from one"),
        ({"diagnostics": {"islands": [{"chains": 2, "r_hat": {"a": 1.4}}]}}, r"in island 0, .*r-hat is 1\.40 at a"),
        (
            {
                "diagnostics": {
                    "islands": [{"steps": (Step(8.0, 0.0, 8, True),)}, {"steps": (Step(1.0, 0.0, 1, True),)}]
                }
            },
            "in island 1, at step 0 of 1, 8 particles said as much as 1.0",
        ),
        ({"diagnostics": {"chains": 2, "idle": True, "tried": {}, "acceptance": {}}}, "no site was drawn again"),
        ({"diagnostics": {"island_log_evidence": [0.0, -9.0, -9.0]}}, "the runs disagree about the evidence"),
    ],
)
def test_bad_diagnostics_are_said(fields: dict[str, Any], text: str) -> None:
    posterior = _posterior(**fields)
    assert re.search(text, posterior.warnings[0]), posterior.warnings
    assert posterior.warnings[0].split()[0] in posterior._repr_html_()


def test_heavy_tails_are_said() -> None:
    heavy = _posterior(values=(0,) * 500, log_weights=tuple(-1.2 * math.log((i + 0.5) / 500) for i in range(500)))
    light = _posterior(values=(0,) * 500, log_weights=tuple(-0.2 * math.log((i + 0.5) / 500) for i in range(500)))
    assert heavy.pareto_k is not None and heavy.pareto_k > 0.7
    assert [text for text in heavy.warnings if "Pareto k" in text]
    assert not light.warnings


def test_nothing_is_said_of_good_and_of_dead_ones() -> None:
    assert not _posterior().warnings
    assert not _posterior(log_weights=(-math.inf,) * 16).warnings
    good = {"chains": 4, "r_hat": {"a": 1.01}, "n_eff": {"a": 500.0}, "acceptance": {"a": 0.3}, "tried": {"a": 999}}
    assert not _posterior(diagnostics=good).warnings


@program
async def lottery() -> int:
    hits = 0
    for _ in range(3):
        hits += await sample("hit", Bernoulli(0.05))
        await factor("score", 8.0 * hits)
    return hits


def test_infer_warns_and_infer_many_does_not() -> None:
    with pytest.warns(
        InferenceWarning, match="lottery: 1000 particles say as much as|lottery: the tail of the weights"
    ):
        infer(lottery(), Importance(1000), seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        posterior = infer_many([lottery()], Importance(1000), [0])[0]
    assert posterior.warnings


def test_diagnostics_of_moves_chains_and_islands(tmp_path: Path) -> None:
    chains = infer_many([lottery()], MCMC(SingleSite(), samples=50, chains=2), [0])[0]
    assert chains.diagnostics["acceptance"].keys() == {"lottery/hit"}
    assert chains.diagnostics["tried"] == {"lottery/hit": 100}
    assert chains.diagnostics["draws"]["lottery/hit:2"].shape == (2, 50)
    assert {*chains.diagnostics["r_hat"]} == {"lottery/hit", "lottery/hit:1", "lottery/hit:2", "log_joint"}
    moved = infer_many([lottery()], SMC(4, Systematic, rejuvenate=Block("**")), [0])[0]
    (site,) = moved.diagnostics["tried"]
    assert moved.diagnostics["tried"][site] == 4 * 3  # behind two factors, and at the end
    islands = infer_many([lottery()], Islands(8, SMC(16)), [0])[0]
    assert len(islands.diagnostics["island_log_evidence"]) == 8
    assert islands.log_evidence_se is not None and 0 < islands.log_evidence_se < math.inf
    assert [len(island["steps"]) for island in islands.diagnostics["islands"]] == [3] * 8
    islands.save(tmp_path / "islands.json")
    assert Posterior.load(tmp_path / "islands.json").diagnostics == islands.diagnostics


@pytest.mark.parametrize("kernel", [Block("lotery/*"), SingleSite("lotery/*")])
def test_sites_that_match_nothing_are_said(kernel: Any) -> None:
    for algorithm in (MCMC(kernel, samples=20, chains=2), SMC(8, rejuvenate=kernel)):
        posterior = infer_many([lottery()], algorithm, [0])[0]
        assert posterior.diagnostics["tried"] == {}
        assert any("`sites` match no address" in sentence for sentence in posterior.warnings)


def test_kernels_that_do_not_say_what_they_try_are_not_idle() -> None:
    def silent(program: Any, trace: Any) -> Any:
        return Program("silent", _silent, (program, trace), {})

    async def _silent(program: Any, trace: Any) -> Any:
        return replace(await Suffix()(program, trace), moves=())

    for algorithm in (MCMC(silent, samples=50, chains=2), SMC(8, rejuvenate=silent)):
        posterior = infer_many([lottery()], algorithm, [0])[0]
        assert posterior.diagnostics["tried"] == {} and "idle" not in posterior.diagnostics
