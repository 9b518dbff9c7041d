"""Write an inference algorithm, and prove it right over every outcome of its own randomness.

An algorithm takes a program and gives a program over weighted particles. This one flips a coin between two others:
silly, and right. Change 0.5 in one place, or drop the weights, and the check says which value's mass is wrong.
"""

from typing import TypeVar

from hypothesis import given, settings

import ppl
from ppl import Population, Program, program, sample
from ppl.testing import Draw, Score, Tiny, assert_proper, programs

T = TypeVar("T")


@program
async def either(target: Program[T]) -> Population[T]:
    if await sample("which", ppl.Bernoulli(0.5)):
        return await ppl.SMC(2, ppl.Systematic)(target)
    return await ppl.Importance(2)(target)


@program
async def wrong(target: Program[T]) -> Population[T]:
    """Drops the weights of its particles."""
    population = await ppl.Importance(2)(target)
    return Population(population.values, (0.0, 0.0))


@settings(deadline=None, max_examples=25)
@given(programs(max_paths=4))
def test_either(tiny: Tiny) -> None:
    assert_proper(either, tiny.program())


if __name__ == "__main__":
    test_either()  # pytest would find it by its name
    print("either: right on 25 random programs, whatever its coin, its draws and its resampling do")
    world = Tiny((Draw(((1, 3),)), Score((1, 2)), Draw(((2, 1), (1, 1))))).program()
    try:
        assert_proper(wrong, world)
    except AssertionError as error:
        print(f"wrong: {error}")
