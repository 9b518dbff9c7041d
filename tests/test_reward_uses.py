"""What a program with a reward means, for each use of its scores, by brute force over all texts."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest

import ppl
from ppl import Program, call, collapse, infer, measure, program, sample
from ppl.models import TableLM
from ppl.rewards import Reward, Verdicts
from ppl.testing import assert_proper

LM = TableLM("ab", lambda text: {"a": 0.6, "b": 0.4})
STEPS = 3


def right(text: str) -> float:
    """Of a step: P(it is right), by what is written so far."""
    return 0.2 + 0.7 * (text.count("b") + len(text) % 2) / (len(text) + 1)


def model(text: Any) -> Any:
    return call(score, str(text))


def score(text: str) -> float:
    return math.log(right(text))


@program
async def write(reward: Reward) -> str:
    text, judged = LM.text(""), reward.begin()
    for _ in range(STEPS):
        text = await sample("step", LM.extend(text, max_tokens=1))
        judged = await judged.step(text)
    await judged.end(text)
    return str(text)


def texts() -> Iterator[tuple[str, float, list[float]]]:
    """Every text, its probability, and r_t of each step."""
    for letters in product("ab", repeat=STEPS):
        one = "".join(letters)
        yield one, math.prod(0.6 if x == "a" else 0.4 for x in one), [right(one[: t + 1]) for t in range(STEPS)]


def odds(p: float) -> float:
    return p / (1 - p)


TARGETS: dict[tuple[Any, Any], Any] = {
    ("step_likelihood", "prod"): math.prod,
    ("step_likelihood", "min"): min,
    ("step_likelihood", "mean"): lambda r: sum(r) / STEPS,
    ("step_likelihood", "last"): lambda r: r[-1],
    ("value", "prod"): lambda r: r[-1],
    ("outcome", "prod"): lambda r: r[-1],
    ("none", "prod"): lambda r: 1.0,
    ("odds_each_step", "prod"): lambda r: math.prod(odds(math.prod(r[: t + 1])) for t in range(STEPS)),
    ("odds_each_step", "last"): lambda r: math.prod(map(odds, r)),
    ("odds_each_step", "min"): lambda r: math.prod(odds(min(r[: t + 1])) for t in range(STEPS)),
}


@pytest.mark.parametrize("beta", [1.0, 0.5, 4.0])
@pytest.mark.parametrize(("use", "aggregate"), TARGETS)
def test_the_target(use: Any, aggregate: Any, beta: float) -> None:
    found = measure(write(Reward(model, use, aggregate, beta)))
    for text, p, r in texts():
        assert found[text] == pytest.approx(p * TARGETS[use, aggregate](r) ** beta, rel=1e-12)


@pytest.mark.parametrize(("use", "aggregate"), TARGETS)
def test_filters_are_proper(use: Any, aggregate: Any) -> None:
    """SMC weighs every use right. Fails if a twist is left standing, or a factor comes twice."""
    assert_proper(ppl.SMC(2), write(Reward(model, use, aggregate)))
    assert measure(collapse(ppl.SMC(2)(write(Reward(model, use, aggregate))))) == measure(
        write(Reward(model, use, aggregate))
    )


def test_how_often_a_model_is_asked() -> None:
    asked: list[str] = []

    def counted(text: Any) -> Any:
        return call(lambda one: asked.append(one) or score(one), str(text))

    for use, times in (
        ("step_likelihood", STEPS),
        ("value", STEPS),
        ("outcome", 1),
        ("none", 0),
        ("odds_each_step", STEPS),
    ):
        asked.clear()
        infer(write(Reward(counted, use)), ppl.Importance(1), seed=0)  # pyright: ignore[reportArgumentType]
        assert len(asked) == times


def test_a_score_of_nothing_kills_and_no_step_is_no_error() -> None:
    """-inf is a score like others; a text without steps weighs 1 where there is no outcome to ask for."""

    @program
    async def none(reward: Reward) -> int:
        await reward.begin().end(LM.text(""))
        return 1

    for use, aggregate in TARGETS:
        impossible = Reward(lambda text: call(lambda: -math.inf), use, aggregate)
        assert infer(write(impossible), ppl.SMC(4), seed=0).is_empty == (use != "none")
        if use != "outcome":
            assert measure(none(Reward(model, use, aggregate)))[1] == 1.0


def test_the_kind_of_a_model_says_its_use() -> None:
    class Kind:
        def __init__(self, kind: str) -> None:
            self.kind = kind

        def __call__(self, text: Any) -> Any:
            return model(text)

    uses = {kind: Reward(Kind(kind)).use for kind in ("step", "prefix", "value", "outcome")}
    assert uses == {"step": "step_likelihood", "prefix": "value", "value": "value", "outcome": "outcome"}


def test_a_question_is_passed_on() -> None:
    seen: list[Any] = []

    def asks(text: Any, question: str) -> Any:
        seen.append(question)
        return call(score, str(text))

    @program
    async def one() -> None:
        judged = await Reward(asks, "step_likelihood").begin("why?").step(LM.text("b"))
        await judged.end(LM.text("b"))

    infer(one(), ppl.Importance(1), seed=0)
    assert seen == ["why?"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Reward(model), r"does not say .* \(kind: step, prefix, value, outcome\): give use='step_likelihood'"),
        (lambda: Reward(model, "good"), "use='good': choose step_likelihood, value"),  # pyright: ignore[reportArgumentType]
        (lambda: Reward(model, "value", "max"), "aggregate='max': choose prod, min"),  # pyright: ignore[reportArgumentType]
        (lambda: Reward(model, "value", "min"), "use='value' has no more than one score that counts"),
        (lambda: Reward(model, "outcome", beta=0.0), "beta must be positive and finite, not 0.0"),
    ],
)
def test_bad_input(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_programs_are_typed() -> None:
    one: Program[str] = write(Reward(model, "value"))
    assert one.name == "write"


@pytest.mark.parametrize("count", [1, 2, 3])
def test_verdicts_leave_the_target_as_it_is(count: int) -> None:
    """However few: the share of them is unbiased. Two drawn steps and all their verdicts, enumerated."""

    @program
    async def short(reward: Reward) -> str:
        text, judged = LM.text(""), reward.begin()
        for _ in range(2):
            text = await sample("step", LM.extend(text, max_tokens=1))
            judged = await judged.step(text)
        return str(text)

    @program
    async def thinks(text: Any) -> bool:
        return await sample("verdict", ppl.Bernoulli(right(str(text))))

    target = measure(short(Reward(model, "step_likelihood")))
    for verdict in (model, thinks):
        found = measure(short(Reward(Verdicts(verdict, count))))
        for text in ("aa", "ab", "ba", "bb"):
            assert found[text] == pytest.approx(target[text], rel=1e-12)


def test_an_algorithm_on_verdicts_is_proper() -> None:
    @program
    async def one(reward: Reward) -> str:
        text = await sample("step", LM.extend(LM.text(""), max_tokens=1))
        await reward.begin().step(text)
        return str(text)

    assert_proper(ppl.SMC(2, ppl.Systematic), one(Reward(Verdicts(model, 2))))
    for count in (0, 2.5):
        with pytest.raises(ValueError, match="count must be an integer of at least 1"):
            Verdicts(model, count)  # pyright: ignore[reportArgumentType]

    @program
    async def unsure(text: Any) -> float:
        return await sample("p", ppl.uniform([-0.1, -0.2]))

    with pytest.raises(TypeError, match=r"unsure returned -0\.[12]: a verdict is True or False"):
        infer(one(Reward(Verdicts(unsure, 2))), ppl.Importance(1), 0)  # pyright: ignore[reportArgumentType]


def test_verdicts_mean_what_the_model_means() -> None:
    class Value:
        kind = "value"

        def __call__(self, text: Any) -> Any:
            return model(text)

    assert Reward(Verdicts(Value())).use == "value" and Reward(Verdicts(model)).use == "step_likelihood"
