"""What a type checker knows of a program: checked by pyright in CI, and run here."""

from __future__ import annotations

from typing import Any, assert_type

from ppl import (
    SMC,
    Bernoulli,
    Categorical,
    Importance,
    Posterior,
    Program,
    call,
    dist,
    infer,
    parallel,
    program,
    run,
    sample,
    scan,
    trace,
    uniform,
)
from ppl.models import TableLM, Text
from ppl.trace import Trace

LM = TableLM("ab", lambda text: {"a": 0.5, "b": 0.5})


@program
async def step(total: int, x: int) -> tuple[int, str]:
    return total + x, str(x)


@program
async def typed(n: int) -> str:
    text = await sample("text", LM.extend(LM.text("a"), max_tokens=n))
    assert_type(text, Text)
    assert_type(await sample("coin", Bernoulli(0.5)), bool)
    assert_type(await sample("letter", Categorical.of({"a": 1.0})), str)
    assert_type(await sample("proposed", uniform([1, 2]), uniform([1, 2])), int)
    assert_type(await call(len, "ab"), int)
    assert_type(await scan(step, 0, range(3)), tuple[int, list[str]])
    assert_type(await parallel(step(1, 2)), list[Any])
    assert_type(await step(1, 2), tuple[int, str])
    await sample("normal", dist.Normal(0.0, 1.0))
    return str(text)


def test_types() -> None:
    described = typed(2)
    assert_type(described, Program[str])
    assert_type(infer(described, SMC(2)), Posterior[str])
    posterior = infer(described, Importance(2))
    assert_type(posterior.mode(), str)
    assert_type(trace(described), Trace[str])
    assert_type(run(described, 0).value, str | None)
    assert run(described, 0).value is not None
