"""Regression tests of bugs found in the inference library; each fails before its fix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import ppl
from ppl import (
    MCMC,
    SMC,
    Bernoulli,
    Block,
    Importance,
    Islands,
    Multinomial,
    ParallelTempering,
    Posterior,
    SingleSite,
    Suffix,
    Systematic,
    TreeWalk,
    annealed,
    condition,
    factor,
    infer,
    parallel,
    program,
    sample,
    uniform,
)
from ppl.testing import assert_invariant, assert_proper
from ppl.weighted import Proposed


@program
async def slow() -> bool:
    await sample("first", Bernoulli(1.0))
    second = await sample("second", Bernoulli(0.6))
    await factor("f", -1.5 * second)
    return second


@program
async def quick() -> bool:
    drawn = await sample("drawn", Bernoulli(0.4))
    if drawn:
        await factor("f", -1.3)
    return drawn


@program
async def uneven() -> tuple[bool, ...]:
    """Which draws the first step contains depends on a branch that stands later in the log."""
    drawn = tuple(await parallel(slow(), quick()))
    await factor("end", -0.7 * drawn[1])
    return drawn


def test_suffix_is_invariant_on_suspended_forks() -> None:
    assert_invariant(Suffix(), uneven(), steps=1)


def test_resample_move_with_suffix_is_proper_on_forks() -> None:
    assert_proper(SMC(1, Systematic, rejuvenate=Suffix()), uneven())


@program
async def late(weight: float) -> None:
    for _ in range(4):
        await sample("x", Bernoulli(0.5))
    await factor("f", weight)


@program
async def early(a: float, b: float) -> None:
    await sample("x", Bernoulli(0.5))
    await factor("f", a)
    await factor("g", b)


@program
async def both() -> None:
    await parallel(late(-0.74), early(-0.49, -0.6))


def test_annealed_replays_where_branches_weigh() -> None:
    """The held back sum depended on the order in which branches went on, which a replay does not keep."""
    infer(both(), SMC(8, Multinomial, temper=(0.5, 1.0)), seed=1)
    ppl.trace(annealed(both(), (0.5, 1.0)), seed=1)


@program
async def coin() -> bool:
    x = await sample("x", Bernoulli(0.5))
    await factor("f", -0.5 * x)
    return x


ANY_CHAINS = [MCMC(Suffix(), 4, chains=2), ParallelTempering(Suffix(), (1.0, 0.5), 4, chains=2)]


@pytest.mark.parametrize("algorithm", ANY_CHAINS, ids=["mcmc", "tempering"])
def test_chains_with_a_journal(algorithm: Any, tmp_path: Path) -> None:
    first = infer(coin(), algorithm, 0, journal=tmp_path / "run")
    assert infer(coin(), algorithm, 0, journal=tmp_path / "run").items() == first.items()


@program
async def rare() -> bool:
    x = await sample("x", Bernoulli(0.02))
    await ppl.language.condition("c", x)
    return await sample("y", Bernoulli(0.5))


def test_merge_where_some_tempered_chains_have_no_start() -> None:
    algorithm = ParallelTempering(Suffix(), (1.0, 0.5), 4, chains=1, start=Importance(40))
    runs = [infer(rare(), algorithm, seed) for seed in range(8)]
    assert {run.is_empty for run in runs} == {True, False}
    assert Posterior.merge(runs).prob(lambda y: y is not None) == pytest.approx(1.0)
    infer(rare(), Islands(8, algorithm), seed=1)


def test_equal_where_a_diagnostic_is_nan(tmp_path: Path) -> None:
    """r-hat of a constant is."""

    @program
    async def constant() -> bool:
        return await sample("x", Bernoulli(1.0))

    first = infer(constant(), MCMC(Suffix(), 5), 0)
    assert first == infer(constant(), MCMC(Suffix(), 5), 0)
    first.save(tmp_path / "posterior.json")
    assert Posterior.load(tmp_path / "posterior.json") == first


def test_start_of_a_chain_draws_from_its_proposals() -> None:
    asked: list[Any] = []

    def proposal(dist: Any) -> Any:
        asked.append(dist)
        return dist

    infer(coin(), MCMC(Suffix(), 2, chains=1, start=Importance(2, {"coin/x": proposal})))
    assert asked


@program
async def hopeless() -> None:
    await sample("x", Bernoulli(0.5))
    await factor("no", float("-inf"))


def test_the_site_that_killed_all_starts_has_its_own_address() -> None:
    with pytest.raises(ppl.ZeroEvidence, match="hopeless/no"):
        infer(hopeless(), MCMC(Suffix(), 2)).mode()


def test_a_kernel_proposal_must_not_be_weighted() -> None:
    """Its weight would be lost: this chain tended to (0.5, 0.5)."""

    @program
    async def skewed() -> int:
        return await sample("x", ppl.Categorical.of({0: 0.99, 1: 0.01}))

    def weighted(_: Any, dist: Any) -> Any:
        return Proposed(dist, uniform([0, 1]))

    with pytest.raises(TypeError, match="weight"):
        infer(skewed(), MCMC(SingleSite(proposals={"**": weighted}), 100), 0)


def test_addresses_of_a_power_where_a_site_has_that_name() -> None:
    @program
    async def clash() -> None:
        await sample("power", Bernoulli(0.5))
        await sample("power", Bernoulli(0.5))

    assert [*ppl.trace(ppl.power(clash(), 2.0))] == [*ppl.trace(clash())]
    assert ppl.measure(condition(ppl.power(clash(), 2.0), {"clash/power:1": True})).evidence > 0


def test_mapped_chains_in_arviz() -> None:
    pytest.importorskip("arviz")
    posterior = infer(coin(), MCMC(Suffix(), 12, chains=2), 0).map(lambda x: 10.0 + x)
    assert float(next(iter(posterior.to_arviz().posterior.data_vars.values())).min()) >= 10.0


def test_merged_chains_in_arviz_where_sites_differ() -> None:
    pytest.importorskip("arviz")

    @program
    async def branches() -> bool:
        x = await sample("x", Bernoulli(0.9))
        if x:
            await sample("y", uniform([0, 1, 2]))
        await factor("f", 0.0)
        return x

    runs = [infer(branches(), MCMC(Suffix(), 12, chains=1), seed) for seed in range(12)]
    Posterior.merge(sorted(runs, key=lambda run: -len(run.diagnostics["draws"]))).to_arviz()


async def _nothing(*_: Any) -> None:
    return None


def nothing(program: Any, trace: Any) -> Any:
    """No kernel: it gives no trace."""
    return ppl.Program("nothing", _nothing, (program, trace), {})


def complete(_: Any, trace: Any) -> Any:
    """No kernel: where the run is suspended, it gives a trace of one that has returned."""

    async def give(_: Any) -> Any:
        return ppl.trace(coin(), seed=3)

    return ppl.Program("complete", give, (trace,), {})


def test_a_kernel_must_stay_where_the_run_is_suspended() -> None:
    @program
    async def two() -> bool:
        first = await sample("first", Bernoulli(0.5))
        await factor("f", 0.0)
        return first and await sample("second", Bernoulli(0.5))

    with pytest.raises(ValueError, match="the trace was of 1 steps, and the kernel returned one of None"):
        infer(two(), SMC(4, rejuvenate=complete))


@pytest.mark.parametrize("kernel", [nothing, SMC(2), Suffix, SingleSite, TreeWalk])
@pytest.mark.parametrize("algorithm", [lambda k: SMC(4, rejuvenate=k), lambda k: MCMC(k, 2)], ids=["smc", "mcmc"])
def test_what_is_no_kernel(algorithm: Any, kernel: Any) -> None:
    with pytest.raises(TypeError, match="kernel"):
        infer(coin(), algorithm(kernel))


@pytest.mark.parametrize(
    "make",
    [
        lambda: infer(coin(), Suffix()),  # pyright: ignore
        lambda: infer(coin(), MCMC(Suffix(), start=64)),  # pyright: ignore
        lambda: ppl.mixture(Suffix(), SingleSite(), weights=(-1.0, 2.0)),
        lambda: ppl.mixture(Suffix(), SingleSite(), weights=(0.0, 0.0)),
        lambda: ppl.repeat(Suffix(), 2.5),  # pyright: ignore
        lambda: ppl.ParticleGibbs(2, 3),  # pyright: ignore
        lambda: SingleSite(3),  # pyright: ignore
        lambda: SingleSite(proposals={"**": Bernoulli(0.5)}),  # pyright: ignore
        lambda: Importance(2, [1]),  # pyright: ignore
        lambda: Block(None),  # pyright: ignore
        lambda: SMC(4, temper=1.0),  # pyright: ignore
        lambda: ParallelTempering(Suffix(), 1.0),  # pyright: ignore
        lambda: ppl.tempered(coin(), "2"),  # pyright: ignore
        lambda: ppl.power(coin, 2.0),  # pyright: ignore
        lambda: ppl.run(ppl.stepwise(Importance(2), coin()), 0),  # pyright: ignore
    ],
)
def test_bad_arguments_are_named(make: Any) -> None:
    words = "infer|MCMC|mixture|repeat|ParticleGibbs|SingleSite|Importance|Block|SMC|ParallelTempering|tempered|power"
    with pytest.raises((TypeError, ValueError), match=rf"^({words}|regenerate|stepwise)[ :(].*(like|must|needs)"):
        make()


def test_the_tree_walk_does_not_rebuild_every_prefix() -> None:
    """Four moves look at a few prefixes, however long the text is; each starts the program anew."""
    starts = 0

    @program
    async def chain(n: int) -> None:
        nonlocal starts
        starts += 1
        for _ in range(n):
            await sample("x", Bernoulli(0.5))
            await factor("f", -0.1)

    trace = ppl.trace(chain(100))
    starts = 0
    ppl.run(TreeWalk(4)(trace.program, trace), 0)
    assert starts <= 12


@program
async def silent(carry: int, x: int) -> tuple[int, int]:
    return carry + x, x


@pytest.mark.parametrize("steps", [0, 2])
def test_replay_past_a_scan_that_asks_nothing_to_a_parallel(steps: int) -> None:
    @program
    async def scanned() -> tuple[Any, ...]:
        await sample("a", Bernoulli(0.5))
        await ppl.scan(silent, 0, range(steps))
        drawn = await parallel(sample("b", Bernoulli(0.5)), sample("c", Bernoulli(0.5)))
        await factor("f", -0.1)
        return tuple(drawn)

    trace = ppl.trace(scanned(), seed=0)
    assert ppl.replay(scanned(), trace) == trace
    assert_proper(SMC(2, Multinomial), scanned())
    assert_invariant(Suffix(), scanned())
