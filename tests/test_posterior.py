"""Questions to a posterior, with answers worked out by hand."""

from __future__ import annotations

import io
import json
import math
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from ppl import SMC, Importance, Key, Posterior, ZeroEvidence, condition, factor, infer, program, sample, uniform
from ppl.inference.population import NoEvidence, Population, Step
from ppl.models.text import Text, Tokenizer
from ppl.runs import log_evidence_se


def _posterior(pairs: Sequence[tuple[Any, float]], killed: Counter[str] | None = None) -> Posterior[Any]:
    """From (value, weight) pairs, weights not logs."""
    log_weights = tuple(math.log(w) if w else -math.inf for _, w in pairs)
    return Posterior(Population(tuple(v if w else None for v, w in pairs), log_weights, killed=killed))


def _chain(values: Sequence[Any], **diagnostics: Any) -> Posterior[Any]:
    """Draws of a Markov chain, weights known up to a constant."""
    return Posterior(Population(tuple(values), (7.0,) * len(values), diagnostics=diagnostics or None, normalised=True))


# Weights sum to 10: a has 4, b has 5, c has 1; most particles are a; the heaviest single particle is b.
ABC = _posterior([("a", 1), ("b", 5), ("a", 1), ("dead", 0), ("a", 2), ("c", 1)])


def test_table_adds_up_equal_values_most_probable_first() -> None:
    assert list(ABC.table()) == ["b", "a", "c"]
    assert ABC.table() == pytest.approx({"a": 0.4, "b": 0.5, "c": 0.1}, rel=1e-12)


def test_items_are_the_living_particles_in_order() -> None:
    assert [value for value, _ in ABC.items()] == ["a", "b", "a", "a", "c"]
    assert math.fsum(p for _, p in ABC.items()) == pytest.approx(1.0, abs=1e-12)


def test_mode_prob_and_expect() -> None:
    assert ABC.mode() == "b"
    assert ABC.prob(lambda v: v != "b") == pytest.approx(0.5, rel=1e-12)
    assert ABC.expect(ord) == pytest.approx(0.4 * 97 + 0.5 * 98 + 0.1 * 99, rel=1e-12)


def test_evidence_and_ess_count_the_dead() -> None:
    assert ABC.log_evidence == pytest.approx(math.log(10 / 6), rel=1e-12)
    assert ABC.ess == pytest.approx(10**2 / (1 + 25 + 1 + 4 + 1), rel=1e-12)


def test_three_votes_can_give_three_answers() -> None:
    split = _posterior([("many", 1), ("many", 1), ("many", 1), ("heavy", 5), ("sum", 3.5), ("sum", 3.5)])
    assert (split.vote("majority"), split.vote("argmax"), split.vote("weighted")) == ("many", "heavy", "sum")
    assert split.vote() == "sum"
    with pytest.raises(ValueError, match="choose weighted, majority or argmax"):
        split.vote("median")  # pyright: ignore[reportCallIssue, reportArgumentType]


def test_first_seen_wins_ties() -> None:
    for pairs in ([("a", 1), ("b", 1)], [("b", 1), ("a", 1)]):
        tied = _posterior(pairs)
        first = pairs[0][0]
        assert (tied.mode(), tied.vote("majority"), tied.vote("argmax")) == (first, first, first)


def test_the_dead_do_not_vote() -> None:
    assert _posterior([("a", 0), ("a", 0), ("b", 1)]).vote("majority") == "b"


def test_map_keeps_weights_and_skips_the_dead() -> None:
    vowels = ABC.map(lambda v: v in "aeiou")  # would raise on the dead particle's None
    assert vowels.table() == pytest.approx({True: 0.4, False: 0.6}, rel=1e-12)
    assert vowels.log_evidence == ABC.log_evidence
    assert len(vowels.population.values) == 6


def test_head_is_the_posterior_of_the_first_particles() -> None:
    assert ABC.head(3).table() == pytest.approx({"a": 2 / 7, "b": 5 / 7}, rel=1e-12)
    assert ABC.head(6).table() == ABC.table()
    assert ABC.head(4).log_evidence == pytest.approx(math.log(7 / 4), rel=1e-12)
    for count in (0, 7):
        with pytest.raises(ValueError, match="there are 6 particles"):
            ABC.head(count)


def test_zero_evidence_names_the_sites_that_killed_most_first() -> None:
    dead = _posterior([("a", 0), ("b", 0), ("c", 0)], Counter({"p/parse": 1, "p/grammar": 2}))
    assert dead.log_evidence == -math.inf
    assert dead.ess == 0.0
    assert "all of weight zero" in repr(dead)
    for ask in (dead.items, dead.table, dead.mode, dead.vote, lambda: dead.prob(bool), lambda: dead.expect(float)):
        with pytest.raises(
            ZeroEvidence, match=r"all 3 particles have weight zero; killed at: p/grammar \(2 of 3\), p/parse \(1 of 3\)"
        ):
            ask()


def test_kills_are_shares_of_all_kills_since_resampling_replaces_the_dead() -> None:
    with pytest.raises(ZeroEvidence, match=r"all 2 particles .* p/x \(4 of 6\), p/y \(2 of 6\)"):
        _posterior([("a", 0), ("a", 0)], Counter({"p/y": 2, "p/x": 4})).items()


@pytest.mark.parametrize("algorithm", [Importance(5), SMC(5)])
def test_sites_that_kill_are_named_by_inference(algorithm: Any) -> None:
    @program
    async def doomed() -> int:
        x = await sample("x", uniform([0, 1]))
        await factor("score", -1.0)
        await condition("wall", x > 1)
        return x

    with pytest.raises(ZeroEvidence, match=r"killed at: doomed/wall \(5 of 5\)"):
        infer(doomed(), algorithm, seed=0).mode()


def test_repr_shows_count_evidence_and_ess() -> None:
    assert repr(_posterior([("a", 1), ("b", 1)])) == "Posterior(2 particles, log_evidence=0.0000, ess=2.0)"


def test_expectations_of_arrays() -> None:
    def one_hot(v: str) -> np.ndarray:
        return np.eye(3, dtype=np.float32)["abc".index(v)]

    assert ABC.expect(one_hot) == pytest.approx([0.4, 0.5, 0.1], rel=1e-12)
    assert ABC.expect(lambda v: jnp.asarray(one_hot(v), "bfloat16")[None]).shape == (1, 3)
    assert ABC.expect(lambda v: [v == "a", 2]) == pytest.approx([0.4, 2.0], rel=1e-12)
    number: Any
    for number in (True, np.float32(0.5), jnp.float32(0.5), np.array(0.5)):
        mean = ABC.expect(lambda v, x=number: x)
        assert type(mean) is float and mean == pytest.approx(float(number), rel=1e-12)
    assert ABC.expect(lambda v: 1j) == pytest.approx(1j)  # pyright: ignore[reportCallIssue, reportArgumentType]
    with pytest.raises(ValueError, match="arrays of different shapes"):
        ABC.expect(lambda v: np.zeros(ord(v) - 96))


def test_samples_are_drawn_by_weight_and_fixed_by_the_seed() -> None:
    assert ABC.sample(20, seed=3) == ABC.sample(20, seed=3) == ABC.sample(20, Key.of(3)) != ABC.sample(20, seed=4)
    assert ABC.sample(5, seed=3) == ABC.sample(20, seed=3)[:5]
    assert ABC.sample(0) == []
    assert set(_posterior([("dead", 0), ("only", 1e-300)]).sample(9)) == {"only"}
    with pytest.raises(ValueError, match="cannot draw -1"):
        ABC.sample(-1)
    n = 10_000
    counts = Counter(ABC.sample(n))
    # Chi-square with 2 degrees of freedom exceeds 13.8 with probability 1e-3 (once, the seed is fixed).
    assert sum((counts[v] - n * p) ** 2 / (n * p) for v, p in {"a": 0.4, "b": 0.5, "c": 0.1}.items()) < 13.8


def test_probabilities_sum_to_one_and_count_the_dead() -> None:
    assert ABC.probabilities == pytest.approx([0.1, 0.5, 0.1, 0, 0.2, 0.1], rel=1e-12)


def test_merged_runs_of_one_size_are_their_particles_together() -> None:
    runs = [_posterior([("a", 1), ("b", 3)]), _posterior([("a", 2), ("dead", 0)]), _posterior([("b", 3), ("c", 3)])]
    merged = Posterior.merge(runs)  # evidences 2, 1, 3
    assert merged.log_evidence == pytest.approx(math.log(2), rel=1e-12)
    assert merged.table() == pytest.approx({"b": 6 / 12, "a": 3 / 12, "c": 3 / 12}, rel=1e-12)
    assert merged.log_evidence_se == pytest.approx(1 / (math.sqrt(3) * 2), rel=1e-12)  # sd 1
    assert merged.runs == tuple(runs)
    assert merged.ess == pytest.approx(144 / (1 + 9 + 4 + 9 + 9), rel=1e-12)
    assert (merged.steps, merged.diagnostics) == ((), {})
    assert repr(merged) == "Posterior(6 particles of 3 runs, log_evidence=0.6931±0.2887, ess=4.5)"


def test_merged_runs_count_alike_whatever_their_size() -> None:
    merged = Posterior.merge([_posterior([("a", 1)]), _posterior([("b", 3), ("b", 1), ("a", 2)])])  # evidences 1, 2
    assert merged.log_evidence == pytest.approx(math.log(1.5), rel=1e-12)
    assert merged.table() == pytest.approx({"a": (1 + 2 / 3) / 3, "b": (4 / 3) / 3}, rel=1e-12)


def test_merging_is_flat_and_one_run_stays_itself() -> None:
    a, b, c = (_posterior([(v, w)]) for v, w in [("a", 1), ("b", 2), ("c", 3)])
    assert Posterior.merge([Posterior.merge([a, b]), c]) == Posterior.merge(iter([a, b, c]))
    assert Posterior.merge([a]) is a
    assert a.runs == (a,)
    assert a.log_evidence_se is None
    with pytest.raises(ValueError, match="at least one run"):
        Posterior.merge([])


def test_mapping_merged_runs_keeps_them() -> None:
    merged = Posterior.merge([_posterior([("a", 1), ("dead", 0)]), _posterior([("b", 3)])])
    seen: list[str] = []
    mapped = merged.map(lambda v: seen.append(v) or v.upper())
    assert seen == ["a", "b"]
    assert mapped.log_evidence_se == merged.log_evidence_se
    assert mapped.table() == {v.upper(): p for v, p in merged.table().items()}
    assert len(mapped.runs) == 2


def test_standard_errors_neither_overflow_nor_fail() -> None:
    for shift in (-1e5, 0.0, 1e5):
        logs = [shift + math.log(z) for z in (1, 2, 3)]
        assert log_evidence_se(logs) == pytest.approx(1 / (math.sqrt(3) * 2), rel=1e-9)
    assert log_evidence_se([0.0, -math.inf]) == pytest.approx(1.0, rel=1e-12)  # mean 1/2, sd sqrt(1/2)
    assert log_evidence_se([0.0, 0.0]) == 0.0
    assert log_evidence_se([-math.inf, -math.inf]) is None
    dead = Posterior.merge([_posterior([("a", 0)], Counter({"p/x": 1})), _posterior([("a", 0)], Counter({"p/x": 1}))])
    assert dead.log_evidence == -math.inf and dead.log_evidence_se is None
    with pytest.raises(ZeroEvidence, match=r"all 2 particles .* p/x \(2 of 2\)"):
        dead.mode()


def test_standard_error_of_real_runs_is_that_of_their_evidence() -> None:
    """The exact standard deviation of the mean of 200 evidences; the estimate is within 20 % (4 sigma of chi)."""

    @program
    async def coin() -> int:
        x = await sample("x", uniform([0, 1]))
        await factor("score", math.log(1 + 2 * x))  # Z = 2, variance of one weight 1
        return x

    merged = Posterior.merge(infer(coin(), Importance(16), seed=seed) for seed in range(200))
    exact = math.sqrt(1 / 16 / 200) / 2
    assert merged.log_evidence_se == pytest.approx(exact, rel=0.2)
    assert merged.log_evidence == pytest.approx(math.log(2), abs=4 * exact)  # false alarm 6e-5


def test_chains_answer_without_evidence() -> None:
    chain = _chain(["a", "b", "b", "a", "b"], rhat={"x": 1.01})
    assert chain.table() == pytest.approx({"b": 0.6, "a": 0.4}, rel=1e-12)
    assert chain.mode() == "b" and chain.vote() == "b" and chain.expect(ord) == pytest.approx(97.6)
    assert chain.diagnostics == {"rhat": {"x": 1.01}} and ABC.diagnostics == {}
    assert chain.map(str.upper).diagnostics == chain.diagnostics
    assert chain.head(2).diagnostics == {}  # they were of the whole chain
    assert repr(chain) == "Posterior(5 draws, ess=5.0)"
    for posterior in (chain, chain.map(str.upper), chain.head(2), Posterior.merge([chain, chain])):
        for ask in (lambda p: p.log_evidence, lambda p: p.log_evidence_se):
            with pytest.raises(NoEvidence, match="Markov chain"):
                ask(posterior)


def test_merged_chains_have_equal_shares() -> None:
    other = Posterior(Population(("c",), (-3.0,), normalised=True))
    merged = Posterior.merge([_chain(["a", "a", "b", "b"]), other])
    assert merged.table() == pytest.approx({"a": 0.25, "b": 0.25, "c": 0.5}, rel=1e-12)
    with pytest.raises(ValueError, match="cannot merge"):
        Posterior.merge([other, ABC])


class Move(NamedTuple):
    x: int
    why: str


@dataclass(frozen=True)
class Answer:
    value: Any
    probability: float = 0.5


FULL = Posterior(
    Population(
        (Move(1, "é\ud800"), None, Answer((1.5, {"k": math.inf})), Move(2, "")),
        (-0.1, -math.inf, 700.25, -1e300),
        (Step(3.5, -math.inf, 2, False), Step(1.0, 0.1, 1, True)),
        Counter({"p/wall": 3}),
        {"draws": {"x": np.arange(4.0).reshape(2, 2)}, "acceptance": 0.25},
    )
)


@pytest.mark.parametrize(
    "posterior",
    [ABC, FULL, Posterior.merge([ABC, FULL, ABC]), _chain([1, 2]), _posterior([("a", 0)]), ABC.map(lambda v: {v})],
    ids=["abc", "full", "merged", "chain", "dead", "sets"],
)
def test_saved_posteriors_come_back_equal(posterior: Posterior[Any], tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    posterior.save(path)
    back = Posterior.load(str(path))
    assert back == posterior
    assert [type(v) for v in back.population.values] == [type(v) for v in posterior.population.values]
    assert back.population.log_weights == posterior.population.log_weights
    assert (back.steps, back.population.killed) == (posterior.steps, posterior.population.killed)
    assert len(back.runs) == len(posterior.runs)
    assert repr(back) == repr(posterior)
    assert os.listdir(tmp_path) == ["p.json"]
    json.loads(path.read_text(), parse_constant=lambda constant: pytest.fail(constant))


def test_posteriors_of_texts_come_back(tmp_path: Path) -> None:
    tokenizer = Tokenizer.of_characters("ab")
    text = Text(tokenizer, tokenizer.encode("ab"), Text.of(tokenizer, "a"), -0.5)
    _posterior([(text, 1)]).save(tmp_path / "p.json")
    back = Posterior.load(tmp_path / "p.json").mode()
    assert (str(back), back.last, back.log_prob) == ("ab", "b", -0.5)


def test_equality_is_of_all_that_a_run_left() -> None:
    def arrays(x: float) -> Posterior[Any]:
        return Posterior(Population((np.array([1.0, x]),), (0.0,)))

    assert arrays(2) == arrays(2) != arrays(3)
    assert _posterior([("a", 1)]) != _posterior([("a", 2)]) != _posterior([("b", 2)])
    assert _posterior([("a", 1)]) != Posterior(Population(("a",), (0.0,), normalised=True))
    assert Posterior.merge([ABC, ABC]) != Posterior(Posterior.merge([ABC, ABC]).population)
    assert ABC != "ABC"


def test_what_cannot_be_saved_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    ABC.save(path)
    with pytest.raises(TypeError, match=r"value\[1\]\[0\] is a builtins:object.*register.*\.map"):
        _posterior([("a", 1), ((object(),), 1)]).save(path)
    assert Posterior.load(path) == ABC
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        ABC.save(tmp_path / "folder")
    assert sorted(os.listdir(tmp_path)) == ["folder", "p.json"]


def _edited(change: Callable[[dict[str, Any]], object]) -> str:
    data: dict[str, Any] = {
        "format": "ppl posterior", "version": 1,
        "runs": [{"normalised": False, "log_weights": [0.0], "killed": None, "steps": [], "diagnostics": None,
                  "values": [1]}],
    }  # fmt: skip
    change(data)
    return json.dumps(data)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Expecting value"),
        (_edited(lambda d: 0)[:-20], "Expecting|Unterminated"),
        ("[1]", "not a ppl posterior"),
        ('{"a": 1}', "not a ppl posterior"),
        (_edited(lambda d: d.update(version=2)), "version 2, and this ppl reads version 1"),
        (_edited(lambda d: d.pop("runs")), "it lacks 'runs'"),
        (_edited(lambda d: d.update(runs=[])), "no runs"),
        (_edited(lambda d: d["runs"][0].pop("values")), "it lacks 'values'"),
        (_edited(lambda d: d["runs"][0].update(values=[1, 2])), "2 values for 1 log weights"),
        (_edited(lambda d: d["runs"][0].update(log_weights=["a"])), "log weights must be numbers"),
        (_edited(lambda d: d["runs"][0].update(log_weights=[math.nan])), "NaN is not JSON"),
        (_edited(lambda d: d["runs"][0].update(log_weights=[{"$float": "nan"}])), "log weights must be numbers"),
        (_edited(lambda d: d["runs"][0].update(killed=[1])), "killed"),
        (_edited(lambda d: d["runs"][0].update(steps=[{"ess": 1}])), "Step"),
        (_edited(lambda d: d["runs"][0].update(values=[{"$object": ["not_there:C", {}]}])), "import not_there first"),
        ("[" * 100_000, "recursion"),
    ],
)
def test_other_files_are_refused_by_path_and_reason(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"cannot load a posterior from .*broken\.json: .*({message})"):
        Posterior.load(path)


def test_files_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\xff\x00\xfe")
    with pytest.raises(ValueError, match="cannot load a posterior from"):
        Posterior.load(tmp_path / "x")
    with pytest.raises(FileNotFoundError):
        Posterior.load(tmp_path / "nothing")


def test_pandas_has_a_row_for_each_living_particle() -> None:
    frame = ABC.to_pandas()
    assert list(frame.columns) == ["value", "log_weight", "probability"]
    assert frame["value"].tolist() == ["a", "b", "a", "a", "c"]
    assert frame["probability"].tolist() == pytest.approx([0.1, 0.5, 0.1, 0.2, 0.1], rel=1e-12)
    assert frame["log_weight"].tolist() == pytest.approx([0, math.log(5), 0, math.log(2), 0])
    with pytest.raises(ZeroEvidence):
        _posterior([("a", 0)]).to_pandas()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([{"x": 1, "y": "a"}, {"x": 2, "y": "b"}], {"x": [1, 2], "y": ["a", "b"]}),
        ([{"x": 1}, {"y": 2}], {"value": [{"x": 1}, {"y": 2}]}),
        ([{1: 1}, {1: 2}], {"value": [{1: 1}, {1: 2}]}),
        ([Move(1, "a"), Move(2, "b")], {"x": [1, 2], "why": ["a", "b"]}),
        ([Answer(3), Answer(4)], {"value": [3, 4], "value_probability": [0.5, 0.5]}),
        ([(1, 2.5), (3, 4.5)], {"value_0": [1, 3], "value_1": [2.5, 4.5]}),
        ([(1,), (2, 3)], {"value": [(1,), (2, 3)]}),
        ([(), ()], {"value": [(), ()]}),
        ([Move(1, "a"), (1, "a")], {"value": [Move(1, "a"), (1, "a")]}),
        ([[1, 2], [3, 4]], {"value": [[1, 2], [3, 4]]}),
        ([jnp.float32(1.5), np.array(2)], {"value": [1.5, 2.0]}),
    ],
)
def test_pandas_columns_of_structured_values(values: list[Any], expected: dict[str, list[Any]]) -> None:
    frame = _posterior([(value, 1) for value in values]).to_pandas()
    assert frame.drop(columns=["log_weight", "probability"]).to_dict("list") == expected


def test_pandas_keeps_arrays_whole() -> None:
    frame = _posterior([(np.eye(2), 1), (np.ones((2, 2)), 1)]).to_pandas()
    assert np.array_equal(frame["value"][0], np.eye(2))


def test_arviz_of_particles_is_resampled_by_weight() -> None:
    posterior = _posterior(
        [({"p/x": 1.0, "k": 2}, 1), ({"p/x": 2.0, "k": 3}, 3), ({"p/x": 9.0, "k": 9}, 0), ({"p/x": 4.0, "k": 5}, 8)]
    )
    data = posterior.to_arviz()
    # Systematic resampling of weights 1/12, 3/12, 0, 8/12: bounds 1/3, 4/3, 4/3, 4, so x = 4 twice or three times.
    draws = data.posterior["p.x"].values
    assert draws.shape == (1, 4) and np.isin(draws, [1, 2, 4]).all() and (draws == 4).sum() in (2, 3)
    assert (data.posterior["k"].values == draws + 1).all()
    weights = {1.0: 0.0, 2.0: math.log(3), 4.0: math.log(8)}
    assert data.sample_stats["log_weight"].values[0] == pytest.approx([weights[x] for x in draws[0]])
    assert (posterior.to_arviz().posterior["p.x"].values == draws).all()
    means = [posterior.to_arviz(seed).posterior["p.x"].values.mean() for seed in range(400)]
    # exact mean (1 + 6 + 32) / 12; a mean of 4 draws is off by less than 1, four standard errors are below 0.2
    assert np.mean(means) == pytest.approx(39 / 12, abs=0.2)


def test_arviz_of_arrays_and_what_has_no_array() -> None:
    data = _posterior([(np.arange(3), 1), (np.arange(3) + 1, 1)]).to_arviz()
    assert data.posterior["value"].shape == (1, 2, 3)
    for values in ([None, 1], [[1], [1, 2]], [{1}, {2}]):
        with pytest.raises(TypeError, match=r"value, like .* turn it into numbers first, with \.map"):
            _posterior([(value, 1) for value in values]).to_arviz()


def test_arviz_of_chains_has_their_draws() -> None:
    x, bad = np.arange(20.0).reshape(2, 5, 2), np.eye(2, 5, dtype=bool)
    chain = _chain([0] * 10, draws={"solve/x": x}, divergences=bad)
    data = chain.to_arviz()
    assert np.array_equal(data.posterior["solve.x"].values, x)
    assert np.array_equal(data.sample_stats["diverging"].values, bad)
    merged = Posterior.merge([chain, chain]).to_arviz()
    assert merged.posterior["solve.x"].shape == (4, 5, 2) and merged.sample_stats["diverging"].shape == (4, 5)
    plain = _chain([1.0, 2.0, 3.0]).to_arviz()  # a chain that kept its values alone
    assert plain.posterior["value"].values.tolist() == [[1.0, 2.0, 3.0]]


@pytest.mark.parametrize("name", ["pandas", "arviz"])
def test_missing_extras_are_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=rf"to_{name} needs .*pip install 'ppl\[{name}\]'"):
        getattr(ABC, f"to_{name}")()


def test_the_language_imports_neither_pandas_nor_arviz() -> None:
    code = "import sys, ppl; assert not {'pandas', 'arviz', 'xarray'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_html_is_escaped_and_short() -> None:
    nasty = "<script>alert('x')</script>&"
    html = _posterior([(nasty, 3), ("x" * 500 + "end", 1)])._repr_html_()
    assert "<script" not in html and "&lt;script&gt;" in html and "&amp;" in html
    assert "x" * 100 not in html and "end&#x27;" in html
    assert "0.7500" in html and "0.2500" in html and "log_evidence=0.6931" in html
    assert "width:160.0px" in html and "width:53.3px" in html


def _printed(posterior: Posterior[Any]) -> str:
    console = Console(width=120, file=io.StringIO())
    console.print(posterior)
    return console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]


def test_tables_show_the_ten_most_probable() -> None:
    many = _posterior([(f"v{i}", 13 - i) for i in range(12)])
    for shown in (many._repr_html_(), _printed(many)):
        assert "v9" in shown and "v10" not in shown and "and 2 more" in shown
        assert "0.1444" in shown  # 13 / 90
        assert "Posterior(12 particles" in shown
    arrays = _posterior([([1], 1), ([1], 1), (["[red]x"], 2)])  # cannot be hashed: one row for each repr
    assert _printed(arrays).count("0.5000") == 2 and "[red]x" in _printed(arrays)
    for dead in (_posterior([("a", 0)])._repr_html_(), _printed(_posterior([("a", 0)]))):
        assert "all of weight zero" in dead
    assert "3 draws" in _printed(_chain([1, 2, 2])) and "5 draws" not in _chain([1, 2])._repr_html_()
