"""Journals: a run that was killed goes on as if nothing had happened, and asks nothing twice."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppl import (
    SMC,
    Categorical,
    Importance,
    JournalError,
    Key,
    Multinomial,
    call,
    factor,
    infer,
    infer_many,
    parallel,
    program,
    run,
    run_many,
    sample,
    scan,
    uniform,
)
from ppl.models import StepReward, TableLM, sloppy
from ppl.testing import Tiny, programs


class Model:
    """A number; counts how often it is asked."""

    family = "model"
    asked: ClassVar[Counter[str]] = Counter()

    def sample(self, key: Key) -> float:
        return key.uniform()

    def log_prob(self, value: Any) -> float:
        return 0.0

    @staticmethod
    def draw_many(keys: Sequence[Key], dists: Sequence[Model]) -> list[float]:
        Model.asked["model"] += len(keys)
        return [key.uniform() for key in keys]

    def sketch(self) -> str:
        return "Model"


def reward(x: float) -> float:
    Model.asked["reward"] += 1
    return -x


@program
async def side(x: float) -> float:
    y = await sample("y", Model())
    await factor("side", -y * x)
    return y


@program
async def one_step(total: float, x: int) -> tuple[float, float]:
    y = await sample("x", Model(), Model())
    await factor("right", await call(reward, y * x))
    return total + y, y


@program
async def everything(steps: int = 3) -> tuple[Any, ...]:
    a, b = await parallel(side(0.5), side(2.0))
    total, ys = await scan(one_step, a + b, range(steps))
    pick = await sample("pick", Categorical.of({"a": 1.0, None: 2.0, (1, 2.5): 0.5}))
    return total, pick, *ys


ALGORITHM = SMC(6, Multinomial)


def _same_lines(a: bytes, b: bytes) -> bool:
    """Nothing lost, doubled or changed. Within a round, the order of the families is that of the open questions."""
    return sorted(a.splitlines()) == sorted(b.splitlines())


def _whole(path: Path) -> tuple[Any, bytes, Counter[str]]:
    Model.asked.clear()
    posterior = infer(everything(), ALGORITHM, 3, journal=path)
    return posterior.population, path.read_bytes(), Counter(Model.asked)


def test_a_journal_changes_nothing(tmp_path: Path) -> None:
    population, _, asked = _whole(tmp_path / "run.jsonl")
    assert population == infer(everything(), ALGORITHM, 3).population
    assert asked["reward"] == 18
    Model.asked.clear()
    assert infer(everything(), ALGORITHM, 3, journal=tmp_path / "run.jsonl").population == population
    assert not Model.asked


@settings(max_examples=100, deadline=None, database=None)
@given(st.randoms(use_true_random=False))
def test_killed_at_any_byte_it_goes_on_as_if_nothing_had_happened(random: Any) -> None:
    """The file of a killed process is a prefix of the whole one. Catches answers lost, doubled, or asked for again."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "run.jsonl")
        population, whole, asked = _whole(path)
        cut = random.randrange(len(whole))
        path.write_bytes(whole[:cut])
        kept = [json.loads(line.split(b" ", 1)[1]) for line in whole[:cut].split(b"\n")[:-1]][1:]
        again, bytes_again, asked_again = _whole(path)
        assert again == population
        assert _same_lines(bytes_again, whole)
        rewarded, drawn = sum("reward" in line[2] for line in kept), sum("Model" in line[2] for line in kept)
        assert asked_again["reward"] == asked["reward"] - rewarded
        assert asked_again["model"] == asked["model"] - drawn


def test_a_torn_line_is_dropped_whole(tmp_path: Path) -> None:
    """Also one that is longer than all that is still to come."""
    population, whole, _ = _whole(tmp_path / "j")
    lines = whole.splitlines(keepends=True)
    (tmp_path / "j").write_bytes(b"".join(lines[:-1]) + b'12345678 [0,"torn' + b"x" * 500)
    again, bytes_again, _ = _whole(tmp_path / "j")
    assert again == population and _same_lines(bytes_again, whole)


@settings(max_examples=60, deadline=None, database=None)
@given(programs(), st.randoms(use_true_random=False))
def test_any_program_goes_on(tiny: Tiny, random: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "run.jsonl")

        def play() -> Any:
            return [p.population for p in infer_many([tiny.program()] * 2, SMC(4), [1, 2], journal=path)]

        whole = play()
        text = path.read_bytes()
        path.write_bytes(text[: random.randrange(len(text))])
        assert play() == whole == [infer(tiny.program(), SMC(4), seed).population for seed in (1, 2)]
        assert _same_lines(path.read_bytes(), text)


SCRIPT = """
import os, signal, sys
sys.path.insert(0, {tests!r})
import test_journal as t
count = 0
def deadly(x):
    global count
    count += 1
    if count == {kill}: os.kill(os.getpid(), signal.SIGKILL)
    return -x
deadly.__module__, deadly.__qualname__, deadly.__name__ = t.reward.__module__, "reward", "reward"
t.reward = deadly
t.infer(t.everything(), t.ALGORITHM, 3, journal={path!r})
"""


def test_kill_minus_9(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    population = infer(everything(), ALGORITHM, 3).population
    for kill in (9, 4):  # in the second step, then, resumed, in the third
        code = SCRIPT.format(tests=str(Path(__file__).parent), path=str(path), kill=kill)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == -signal.SIGKILL, done.stderr
    Model.asked.clear()
    assert infer(everything(), ALGORITHM, 3, journal=path).population == population
    assert 0 < Model.asked["reward"] <= 12


def test_a_call_that_fails_loses_nothing_that_the_others_gave(tmp_path: Path) -> None:
    asked, fails = list[int](), [True]

    def tool(x: int) -> int:
        asked.append(x)
        if x == 2 and fails:
            fails.clear()
            raise ConnectionError("no network")
        return x

    @program
    async def tools() -> list[int]:
        return await parallel(*[call(tool, x) for x in range(5)])

    with pytest.raises(ConnectionError, match="no network"):
        run(tools(), 0, journal=tmp_path / "j")
    before = len(asked)
    again = run(tools(), 0, journal=tmp_path / "j")
    assert again.value == [0, 1, 2, 3, 4]
    assert {*asked[before:]} == {*range(5)} - {*asked[:before]} | {2}


@program
async def draws(names: tuple[str, ...], extra: int = 0, values: int = 3) -> list[Any]:
    return [await sample(name, uniform(range(values))) for name in names]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda p: run(draws(("a", "b")), 1, journal=p), r"seeds\[0\] is .* in the journal and .* in this run"),
        (lambda p: run(draws(("a", "b"), 5), 0, journal=p), r"programs\[0\] is draws\(.*\) in the journal and draws"),
        (lambda p: run(side(1.0), 0, journal=p), r"programs\[0\] is draws\(.*\) in the journal and side\(1.0\)"),
        (lambda p: run_many([draws(("a", "b"))] * 2, [0, 0], journal=p), r"is of 1 programs, this run has 2"),
    ],
)
def test_the_journal_of_another_run_is_refused(tmp_path: Path, other: Any, message: str) -> None:
    run(draws(("a", "b")), 0, journal=tmp_path / "j")
    with pytest.raises(JournalError, match=message):
        other(tmp_path / "j")


def _edited(path: Path, change: Any) -> None:
    """Rewrite the content of each line, as another version of the program would have."""
    import zlib

    lines = [change(json.loads(line.split(b" ", 1)[1])) for line in path.read_bytes().splitlines()]
    texts = [json.dumps(line, separators=(",", ":")).encode() for line in lines if line is not None]
    path.write_bytes(b"".join(b"%08x %b\n" % (zlib.crc32(text), text) for text in texts))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: {**x, "version": "0.0.7"} if isinstance(x, dict) else x, r"version is 0.0.7 in the journal"),
        (
            lambda x: [x[0], "draws/z", *x[2:]] if isinstance(x, list) and x[1] == "draws/a" else x,
            r"asks for draws/a where the journal holds an answer for draws/z",
        ),
        (
            lambda x: [*x[:2], "Poisson", x[3]] if isinstance(x, list) and x[1] == "draws/b" else x,
            r"at draws/b the program asks for .*, the journal holds the answer to Poisson",
        ),
        (
            lambda x: [x[0], "draws/c", *x[2:]] if isinstance(x, list) and x[1] == "draws/b" else x,
            r"asks for draws/b where the journal holds an answer for draws/c",
        ),
    ],
)
def test_a_journal_of_a_program_that_has_changed_is_refused(tmp_path: Path, change: Any, message: str) -> None:
    path = tmp_path / "j"
    run(draws(("a", "b")), 0, journal=path)
    _edited(path, change)
    before = path.read_bytes()
    with pytest.raises(JournalError, match=message):
        run(draws(("a", "b")), 0, journal=path)
    assert path.read_bytes() == before


def test_answers_that_nobody_asks_for_are_an_error(tmp_path: Path) -> None:
    path = tmp_path / "j"
    run(draws(("a", "b")), 0, journal=path)
    text = path.read_text()
    path.write_text(text + text.splitlines(keepends=True)[-1].replace("draws/b", "draws/b"))
    _edited(path, lambda x: [x[0], "draws/c", *x[2:]] if isinstance(x, list) and x[1] == "draws/b" else x)
    with pytest.raises(JournalError):
        run(draws(("a", "b")), 0, journal=path)


def test_a_file_that_is_no_journal_is_left_alone(tmp_path: Path) -> None:
    for content in (b"hello\n", b"{}\n{}\n", b"\x00\xff", b"00000000 {}\n"):
        path = tmp_path / "notes.txt"
        path.write_bytes(content)
        with pytest.raises(JournalError, match=r"notes\.txt"):
            run(side(1.0), 0, journal=path)
        assert path.read_bytes() == content


def test_damage_in_the_middle_is_told_and_not_dropped(tmp_path: Path) -> None:
    path = tmp_path / "j"
    run(draws(("a", "b")), 0, journal=path)
    text = path.read_bytes().replace(b"draws/a", b"draws/q")
    path.write_bytes(text)
    with pytest.raises(JournalError, match="line 2 is damaged"):
        run(draws(("a", "b")), 0, journal=path)
    assert path.read_bytes() == text


def test_an_answer_that_json_cannot_hold_names_the_site(tmp_path: Path) -> None:
    @program
    async def odd() -> Any:
        return await sample("x", uniform([object()]))

    with pytest.raises(TypeError, match=r"odd/x: the journal cannot hold this answer"):
        run(odd(), 0, journal=tmp_path / "j")


def test_texts_of_a_language_model_come_back(tmp_path: Path) -> None:
    lm = TableLM("ab.", lambda text: {"a": 0.5, "b": 0.3, ".": 0.2}, eos=".")

    @program
    async def writes() -> str:
        text = lm.text("a")
        while not text.finished and len(text) < 6:
            text = await sample("block", lm.extend(text, until="b", max_tokens=2))
            await factor("short", -0.3 * len(text.last))
        return str(text)

    path = tmp_path / "j"
    whole = infer(writes(), Importance(5), 1, journal=path).population
    text = path.read_bytes()
    path.write_bytes(text[: len(text) // 2])
    assert infer(writes(), Importance(5), 1, journal=path).population == whole


def test_a_particle_filter_over_a_transformer_goes_on_bit_for_bit(tmp_path: Path) -> None:
    """With a fresh engine, as in a fresh process: its rows are rebuilt from the texts in the journal."""

    def solve(journal: Path | None) -> tuple[Any, int]:
        lm = sloppy.load_model()
        program = sloppy.solve(lm, StepReward(lm), "37+5*7-4*8+6")
        return infer(program, SMC(6), 2, journal=journal).population, lm.tokens

    path = tmp_path / "j"
    whole, tokens = solve(None)
    assert solve(path) == (whole, tokens)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[: len(lines) * 2 // 3]) + lines[-1][:20])
    again, more = solve(path)
    assert again == whole
    assert 0 < more < tokens / 2
    assert [text.log_prob for text in again.values] == [text.log_prob for text in whole.values]
    assert solve(path) == (whole, 0)
