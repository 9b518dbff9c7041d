"""Tests of the tests: broken algorithms and kernels must be rejected.

Each mutant is a mistake that someone could make. One that survives means that the programs must grow.
"""

from __future__ import annotations

import pytest

from ppl import Multinomial, Systematic, collapse
from ppl.inference.resampling import Adaptive
from ppl.testing import assert_same_measure
from tests.mutants import kernels, moves, smc
from tests.mutants.pool import rejected

MUTANTS = smc.MUTANTS | kernels.KERNELS | moves.MOVES
HONEST = {
    "smc": smc._properly(smc.smc()),
    "adaptive smc": smc._properly(smc.smc(resample=Adaptive(Multinomial, 0.75))),
    "systematic smc": smc._properly(smc.smc(resample=Systematic)),
    "resampled at the end": smc._properly(smc.smc(resample_at_end=True)),  # wasteful, but proper
    "importance": smc._properly(smc.importance()),
    "collapse": lambda program: assert_same_measure(collapse(smc.smc()(program)), program),
}


def test_the_unbroken_pass() -> None:
    """Without this, a pool on which everything fails would count as a perfect score."""
    honest = HONEST | kernels.RIGHT | moves.RIGHT
    assert not [name for name, check in honest.items() if rejected(check)]


def test_every_mutant_is_rejected(capsys: pytest.CaptureFixture[str]) -> None:
    survivors = [name for name, check in MUTANTS.items() if not rejected(check)]
    with capsys.disabled():
        print(f"\n{len(MUTANTS) - len(survivors)}/{len(MUTANTS)} mutants killed")
    assert not survivors
