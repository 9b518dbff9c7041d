"""Every algorithm on every model that it applies to, against the exact answer.

False-alarm rate: at most 1e-3 over seeds for the whole matrix (`cells.FALSE_ALARMS`); the seeds are fixed. What it can
detect: `test_matrix_rejects.py`.
"""

from __future__ import annotations

from typing import Any

import pytest

from .algorithms import Row
from .cells import CELLS, check, table
from .known import Known


def _cell(row: Row, model: Known) -> Any:
    return pytest.param(row, model, id=f"{row.name}-{model.name}", marks=[pytest.mark.slow] if row.slow else [])


@pytest.mark.parametrize(("row", "model"), [_cell(row, model) for row, model in CELLS])
def test_cell(row: Row, model: Known) -> None:
    lines = check(row, model)
    assert all(line.ok for line in lines), table(lines)
