"""Programs made from programs keep the meaning that they promise; traces replay; regeneration leaves pi invariant."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, reject, settings

from ppl import (
    SMC,
    Bernoulli,
    Categorical,
    Enumerate,
    Importance,
    Multinomial,
    Program,
    ReplayError,
    call,
    collapse,
    condition,
    factor,
    infer,
    intervene,
    measure,
    observe,
    parallel,
    program,
    propose,
    recorded,
    regenerate,
    run,
    sample,
    scan,
    select,
    trace,
    twist,
    uniform,
)
from ppl.distributions import Distribution, table
from ppl.measure import paths
from ppl.regenerate import Regenerated
from ppl.run import Run
from ppl.testing import Guide, Tiny, assert_proper, assert_same_measure, programs
from ppl.trace import Trace, replay, trace_of

COIN = uniform([0, 1])
LAWS = settings(max_examples=80, deadline=None, database=None)


def flattened(dist: Distribution[Any]) -> Categorical[Any]:
    """A proposal that is wrong everywhere, and can draw everything."""
    values = [value for value, _ in table(dist)]
    return Categorical(values, [0.1 * i for i in range(len(values))])


@program
async def wrapped(inner: Program[Any]) -> Any:
    return await inner


@program
async def in_parallel(inner: Program[Any]) -> Any:
    return (await parallel(inner, sample("beside", COIN)))[0]


@LAWS
@given(programs())
def test_wrapping_in_a_sub_program_or_a_parallel_changes_nothing(tiny: Tiny) -> None:
    assert_same_measure(wrapped(tiny.program()), tiny.program())
    assert_same_measure(in_parallel(tiny.program()), tiny.program())


@program
async def together(a: Program[Any], b: Program[Any]) -> Any:
    return tuple(await parallel(a, b))


@program
async def in_turn(a: Program[Any], b: Program[Any]) -> Any:
    return await a, await b


@LAWS
@given(programs(max_paths=8), programs(max_paths=8))
def test_in_parallel_is_in_sequence(a: Tiny, b: Tiny) -> None:
    assert_same_measure(together(a.program(), b.program()), in_turn(a.program(), b.program()))


@LAWS
@given(programs())
def test_a_proposal_changes_nothing(tiny: Tiny) -> None:
    """Catches weights upside down, forgotten, or counted for another particle."""
    proposed = propose(tiny.program(), {"**": flattened})
    assert_same_measure(proposed, tiny.program())
    assert_proper(SMC(2), proposed)


@LAWS
@given(programs())
def test_any_twist_changes_nothing(tiny: Tiny) -> None:
    plain = Tiny(tuple(node for node in tiny.body if not isinstance(node, Guide)))
    if all(w > 0 for node in tiny.body if isinstance(node, Guide) for w in node.weights):
        assert_same_measure(tiny.program(), plain.program())


@LAWS
@given(programs())
def test_conditioning_is_restriction(tiny: Tiny) -> None:
    """Over the values of a site that is always drawn, the conditioned measures add up to the whole."""
    first = next(iter(next(iter(paths(tiny.program())), _Empty()).choices), None)
    if first is None:
        reject()
    values = {path.choices[first] for path in paths(tiny.program())}
    parts = [measure(condition(tiny.program(), {first: value})) for value in values]
    whole = measure(tiny.program())
    for value in whole:
        assert math.fsum(part[value] for part in parts) == pytest.approx(whole[value], rel=1e-12)


class _Empty:
    choices: dict[str, Any] = {}  # noqa: RUF012


@LAWS
@given(programs())
def test_replaying_a_trace_gives_it_again(tiny: Tiny) -> None:
    for seed in range(3):
        one = trace(tiny.program(), seed)
        assert replay(tiny.program(), one) == one
        assert Trace.from_json(one.to_json(), tiny.program()) == one


@LAWS
@given(programs())
def test_traces_of_all_paths_have_the_joint_probabilities(tiny: Tiny) -> None:
    posterior = measure(recorded_values(tiny.program()))
    assert posterior.distance(measure(tiny.program())) < 1e-12
    probability = Counter[Any]()  # a draw among equal values, as `collapse` makes it, is a path for each
    for path in paths(recorded(tiny.program())):
        probability[(*path.choices.items(),)] += path.probability  # pyright: ignore[reportArgumentType]
    for path in paths(recorded(tiny.program())):
        joint = math.log(probability[(*path.choices.items(),)]) + path.log_weight
        assert path.value.log_joint == pytest.approx(joint, abs=1e-9)


@program
async def recorded_values(inner: Program[Any]) -> Any:
    return (await recorded(inner)).value


SELECTIONS = (select("**"), select("tiny/x:*"), select("**:1"), select("**/times:*", "tiny/sub/**"))


@program
async def metropolis(target: Program[Any], forget: bool = False) -> Any:
    """Invariant for the target, if regenerate is right; with `forget`, a mutant that leaves out the ratio."""
    now = await recorded(target)
    proposed = await regenerate(now, await sample("which", uniform(SELECTIONS)))
    return await accepted(now, proposed, forget)


@program
async def accepted(now: Trace[Any], proposed: Regenerated[Any], forget: bool) -> Any:
    ratio = 0.0 if forget and proposed.trace else proposed.log_ratio
    accept = await sample("accept", Bernoulli(math.exp(min(0.0, ratio))))
    return proposed.trace.value if accept and proposed.trace else now.value


@settings(max_examples=100, deadline=None, database=None)
@given(programs(max_paths=10))
def test_regenerate_leaves_the_posterior_invariant(tiny: Tiny) -> None:
    """Catches a wrong weight of kept, fresh, dropped or re-scored sites, also with proposals."""
    assert_same_measure(metropolis(tiny.program()), tiny.program())
    assert_same_measure(metropolis(propose(tiny.program(), {"tiny/x:*": flattened})), tiny.program())


def test_a_kernel_without_its_ratio_is_caught() -> None:
    @program
    async def two() -> tuple[int, ...]:
        first = await sample("x", COIN)
        await factor("f", -1.5 * first)
        return first, *[await sample("x", Categorical.of({0: 1.0, 1: 2.0 + first})) for _ in range(first)]

    assert measure(metropolis(two())) == measure(two())
    assert measure(metropolis(two(), True)).distance(measure(two())) > 1e-2


@program
async def step(total: int, x: int) -> tuple[int, int]:
    y = await sample("y", COIN)
    await twist("v", 0.2 * (x == 1))  # stands in step 1 alone, or once for all steps: the same here
    await factor("f", -0.3 * y * x)
    await twist("v", 0.0)
    return total + y, y


@program
async def scanned(n: int) -> tuple[int, ...]:
    total, ys = await scan(step, 0, range(n))
    return total, *ys


@program
async def looped(n: int) -> tuple[int, ...]:
    total, ys = 0, list[int]()
    for x in range(n):
        total, y = await step(total, x)
        ys.append(y)
    return total, *ys


def test_a_scan_is_its_loop() -> None:
    assert measure(scanned(4)) == measure(looped(4))
    assert {a.split("/", 1)[1] for a in trace(scanned(4))} == {a.split("/", 1)[1] for a in trace(looped(4))}
    assert_proper(SMC(2), scanned(3))
    a, b = infer(scanned(9), SMC(8), 1), infer(looped(9), SMC(8), 1)
    assert [value for value, _ in a.items()] == [value for value, _ in b.items()]
    assert [p for _, p in a.items()] == pytest.approx([p for _, p in b.items()], rel=1e-12)


@pytest.mark.parametrize("make", [scanned, looped])
def test_transforms_go_into_loops(make: Any) -> None:
    site = f"{make.__name__}/step:1/y"

    @program
    async def observed() -> tuple[int, ...]:
        ys = [await sample("y", COIN)]
        await factor("f", 0.0)
        await observe("y", COIN, 1)
        await factor("f", -0.3)
        ys += [1, await sample("y", COIN)]
        await factor("f", -0.6 * ys[-1])
        return sum(ys), *ys

    given_ = condition(make(3), {site: 1})
    assert_same_measure(given_, observed())
    assert_proper(SMC(2), given_)
    done = intervene(make(3), {site: 1})
    assert measure(done).evidence == pytest.approx(2 * measure(observed()).evidence, rel=1e-12)
    assert trace(given_)[f"{make.__name__}/step:2/y"] in (0, 1)
    assert_same_measure(propose(make(3), {"**/y": Categorical.of({0: 0.1, 1: 0.9})}), make(3))


def test_the_second_scan_of_a_program_has_its_own_addresses() -> None:
    @program
    async def twice() -> tuple[int, ...]:
        _, first = await scan(step, 0, range(2))
        _, second = await scan(step, 0, range(2))
        return *first, *second, (await step(0, 0))[1]

    assert {value[3] for value in measure(condition(twice(), {"twice/step:3/y": 1}))} == {1}
    assert {value[4] for value in measure(condition(twice(), {"twice/step:4/y": 1}))} == {1}


@program
async def flip(carry: int, _: int) -> tuple[int, bool]:
    y = await sample("y", Bernoulli(0.5))
    return carry + y, y


@pytest.mark.parametrize("site", ["flip", "flip:1"])
@pytest.mark.parametrize("transform", [condition, intervene])
def test_edits_behind_a_finished_scan_survive_cloning(transform: Any, site: str) -> None:
    """A clone does not make the steps of a finished scan again; what follows must keep its addresses all the same."""

    @program
    async def quiet() -> tuple[int, int]:
        a, _ = await scan(flip, 0, range(1))
        await factor("f", -1.0 * a)
        b, _ = await scan(flip, 0, range(1))
        return a, b

    @program
    async def mixed() -> tuple[int, int]:
        a, _ = await scan(flip, 0, range(1))
        await factor("f", -1.0 * a)
        b, _ = await flip(0, 0)
        return a, b

    for make in (quiet, mixed):
        assert_proper(SMC(2, Multinomial), transform(make(), {f"{make.__name__}/{site}/y": True}))


def test_keys_that_cannot_be_addresses_are_refused() -> None:
    for key in ("y", "looped/step:*/y", "scanned/step/y"):
        with pytest.raises(ValueError, match=r"is no address of looped: write whole addresses like 'looped/x:1'"):
            condition(looped(1), {key: 1})
        with pytest.raises(ValueError, match=r"is no address of looped"):
            intervene(looped(1), {key: 1})


def test_regenerate_refuses_a_killed_trace() -> None:
    @program
    async def doomed() -> None:
        await factor("wall", -math.inf)

    with pytest.raises(ValueError, match="killed at doomed/wall"):
        run(regenerate(trace(doomed()), select("**")), 0)


@pytest.mark.parametrize("make", [scanned, looped])
def test_conditioning_on_a_site_that_never_comes_kills_and_says_so(make: Any) -> None:
    result = infer(condition(make(3), {f"{make.__name__}/step:1/typo": 1}), Importance(4))
    with pytest.raises(ValueError, match=r"never asked for .* step 1 typo \(4 of 4\)|never asked for .* typo \(4\)"):
        result.mode()


def test_conditioning_keeps_addresses_in_a_parallel() -> None:
    @program
    async def pair() -> tuple[int, ...]:
        a, b, c = await parallel(sample("x", COIN), sample("x", COIN), sample("x", COIN))
        return a, b, c, await sample("x", COIN)

    fixed = condition(pair(), {"pair/x:1": 1})
    assert [*trace(fixed)] == ["pair/x", "pair/x:2", "pair/x:3"]
    assert [*trace(intervene(pair(), {"pair/x:1": 1}))] == ["pair/x", "pair/x:2", "pair/x:3"]
    assert {value[1] for value in measure(fixed)} == {1}
    assert measure(fixed).evidence == 0.5


def test_a_proposal_that_cannot_draw_everything_is_refused() -> None:
    @program
    async def one() -> int:
        return await sample("x", COIN, Categorical.of({0: 1.0}))

    with pytest.raises(ValueError, match=r"cannot draw 1, of probability 0.5"):
        measure(one())


def test_enumerate_is_exact_and_asks_the_driver_for_calls() -> None:
    asked: list[int] = []

    def tool(x: int) -> int:
        asked.append(x)
        return x + 1

    @program
    async def uses_tool() -> int:
        y = await call(tool, await sample("x", COIN))
        await factor("f", -1.0 * y)
        return y

    posterior = infer(uses_tool(), Enumerate())
    assert posterior.table() == pytest.approx({1: 1 / (1 + math.exp(-1)), 2: 1 / (1 + math.exp(1))})
    assert math.exp(posterior.log_evidence) == pytest.approx(measure(uses_tool()).evidence, rel=1e-12)
    assert asked[:2] == [0, 1]
    assert_same_measure(collapse(Enumerate()(uses_tool())), uses_tool())


def test_a_killed_trace_ends_where_it_was_killed() -> None:
    @program
    async def doomed() -> int:
        x = await sample("x", COIN)
        await factor("wall", -math.inf)
        return x

    one = trace(doomed())
    assert (one.killed, one.value, one.log_joint, [*one]) == ("doomed/wall", None, -math.inf, ["doomed/x"])
    assert replay(doomed(), one) == one
    assert Trace.from_json(one.to_json(), doomed()) == one


def test_replay_names_what_does_not_fit() -> None:
    one = trace(looped(2))
    with pytest.raises(ReplayError, match=r"looped/step:2/y: the program asks for"):
        replay(looped(3), one)
    with pytest.raises(ReplayError, match=r"looped/step:1/y: the trace holds this site"):
        replay(looped(1), one)
    with pytest.raises(ReplayError, match="of the program 'looped'"):
        Trace.from_json(one.to_json(), scanned(2))
    with pytest.raises(ValueError, match="not the JSON of a trace"):
        Trace.from_json("{}", looped(2))


def test_a_trace_of_a_scan_that_was_cloned_holds_all_its_steps() -> None:
    run = Run(scanned(3))
    while not run.done:
        for request in run.requests():
            request.answer(1 if request.effect.name == "y" else None)
        run = run.clone()
    one = trace_of(run)
    assert dict(one) == {"scanned/step/y": 1, "scanned/step:1/y": 1, "scanned/step:2/y": 1}
    assert one.value == (3, 1, 1, 1)
    assert [*one.factors] == ["scanned/step/f", "scanned/step:1/f", "scanned/step:2/f"]


def test_a_trace_shows_itself() -> None:
    from rich.console import Console

    one = trace(looped(1), 2)
    console = Console(record=True, width=100, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(one)
    assert "looped/step/y" in console.export_text()
    assert "<td>looped/step/y</td>" in one._repr_html_()


def test_selections() -> None:
    assert select("a/b:*").matches("a/b") and select("a/b:*").matches("a/b:12")
    assert not select("a/b:*").matches("a/bc") and not select("a/b").matches("a/b:1")
    assert select("**/y").matches("a/b/y") and not select("*/y").matches("a/b/y")
    assert "a/x" in select("a/*") - select("a/y") and "a/y" not in select("a/*") - select("a/y")
    assert "q" in select(lambda address: address == "q") | select("z") and "w" in ~select("q")
    with pytest.raises(TypeError, match="a pattern is an address"):
        select(3)  # pyright: ignore[reportArgumentType]
