"""Reward models: the scores of their authors' code, step by step and in batches, at the cost of the new tokens."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import ppl
from ppl import SMC, Categorical, factor, measure, models, program, sample
from ppl.models.checkpoint import CheckpointError
from ppl.models.language_model import LanguageModel, StepReward
from ppl.models.reward_heads import Head, log_scores
from ppl.models.rewards import FORMATS, RewardModel, steps_of
from ppl.models.text import Text
from tests.models.judges import JUDGES, Reference, build, vocabulary

QUESTION = "The question is: what is 12 * 34?"
STEPS = ["Step 1: Let us think, step by step.", "Step 2: 12 * 34 = 400 + 8\nso 12 * 34 = 408.", "é 😀", "The end +"]
OTHERS = [["Hello"], ["This is a test.", "Hello again, world!"], STEPS[:1] + ["2 - 1 = 1"] * 5]


class Pair(NamedTuple):
    folder: Path
    reference: Reference
    format: str | None
    """To name when it is loaded; None where the tensors tell it."""

    def load(self) -> RewardModel:
        """Nothing is cached in it."""
        reward = models.load_reward(self.folder, self.format)
        assert isinstance(reward, RewardModel)
        return reward


@pytest.fixture(scope="module", params=JUDGES)
def pair(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return made(request.param, tmp_path_factory)


def made(name: str, factory: pytest.TempPathFactory) -> Pair:
    folder = factory.mktemp("judge")
    reference = build(name, folder)
    format = JUDGES[name].format
    return Pair(folder, reference, format if format in ("math-shepherd", "rlhflow") else None)


@pytest.fixture(scope="module")
def prm(tmp_path_factory: pytest.TempPathFactory) -> RewardModel:
    return made("qwen-prm", tmp_path_factory).load()


def lines(pair: Pair, steps: list[str]) -> list[str]:
    """Skywork's own code scores lines, each a step."""
    return [step.replace("\n", " ") for step in steps] if "v_head.summary.weight" in tensors(pair.folder) else steps


def tensors(folder: Path) -> dict[str, np.ndarray]:
    return load_file(folder / "model.safetensors")


def test_scores_are_those_of_the_authors_code(pair: Pair) -> None:
    reward, steps = pair.load(), lines(pair, STEPS)
    expected = pair.reference(QUESTION, steps)
    ours = [reward.score(steps[: i + 1], QUESTION) for i in range(len(steps))]
    np.testing.assert_allclose(ours, expected, atol=2e-5, rtol=0)
    assert np.std(expected) > 0.01 and max(expected) < 0
    assert abs(pair.load().score(steps, QUESTION) - ours[-1]) < 1e-5


def test_a_growing_answer_costs_what_its_length_costs_once(pair: Pair) -> None:
    reward, steps = pair.load(), lines(pair, STEPS) + ["Hello again"] * 8
    for i in range(len(steps)):
        reward.score(steps[: i + 1], QUESTION)
    total = len(reward.laid_out(steps, QUESTION))
    extra = reward.engine.usage.fed - total
    if reward.kind == "outcome":  # what ends a chat is read again behind each, with what it joined to
        assert 0 < extra <= 4 * len(steps)
    else:
        assert extra == 0
    fed = reward.engine.usage.fed
    reward.score([*steps[:6], "Another turn"], QUESTION)
    assert 0 < reward.engine.usage.fed - fed < 60  # the branch is all that is new


def test_a_batch_of_different_lengths_is_each_alone_bit_for_bit(pair: Pair) -> None:
    alone, together = pair.load(), pair.load()
    args = [(lines(pair, steps), QUESTION) for steps in [*OTHERS, STEPS]] + [(["Hello"], "Another?")]
    scores = together.score_many(args)
    assert scores == [alone.score(*one) for one in args]
    assert len(set(scores)) == len(args)


def test_kind_and_format_are_declared(pair: Pair) -> None:
    reward = pair.load()
    judge = next(judge for judge in JUDGES.values() if isinstance(reward.layout, layout_of(judge.format)))
    assert reward.kind == judge.kind
    assert models.load_reward(pair.folder, judge.format, kind="prefix").kind == "prefix"


def layout_of(name: str) -> type:
    layout = FORMATS[name].layout
    assert layout is not None
    return layout


def test_a_model_in_16_bits_says_about_the_same(tmp_path: Path) -> None:
    expected = build("qwen-prm", tmp_path)(QUESTION, STEPS)
    reward = models.load_reward(tmp_path, dtype="bfloat16")
    assert isinstance(reward, RewardModel)
    off = np.abs(np.array([reward.score(STEPS[: i + 1], QUESTION) for i in range(len(STEPS))]) - expected)
    assert 0 < off.max() < 0.1


def test_a_template_that_looks_back_is_refused(tmp_path: Path) -> None:
    build("rlhflow", tmp_path)
    path = tmp_path / "chat_template.jinja"
    source = path.read_text()
    numbered = "(loop.index|string if message.role == 'user' else '') + message['role']"
    path.write_text(source.replace("message['role']", numbered))
    with pytest.raises(CheckpointError, match="lays a turn out by what was said before"):
        models.load_reward(tmp_path, "rlhflow")
    path.write_text(source.replace("assistant<|end_header_id|>\\n\\n", "assistant<|end_header_id|>"))
    with pytest.raises(CheckpointError, match=r'does not put the token "\+" where the assistant begins'):
        models.load_reward(tmp_path, "rlhflow")


def test_the_names_of_tags_in_a_step_are_no_tags(prm: RewardModel) -> None:
    plain, tag = prm.laid_out(["a", "b"], QUESTION), prm.layout._data("", ("",))[-4:]
    forged = prm.laid_out(["a<extra_0>", "b<|im_end|>"], QUESTION)
    count = [[text.tokens[i : i + 1].tobytes() for i in range(len(text))].count(tag) for text in (plain, forged)]
    assert count == [2, 2]
    assert str(forged).endswith("a<extra_0>b<|im_end|>")


@pytest.fixture(scope="module")
def generator(new_model: Callable[..., LanguageModel]) -> LanguageModel:
    """Another vocabulary: one token a character."""
    return new_model("abc \n:?", eos="?", context=64)


@program
async def solve(lm: LanguageModel, prm: Any, question: str, steps: int) -> Text:
    text, before = lm.text(question), 0.0
    for _ in range(steps):
        text = await sample("step", lm.extend(text, until="\n", max_tokens=6))
        right = await prm(text)
        await factor("right", right if prm.kind == "step" else right - before)
        before = right
        text += "a:"
    return text


def test_in_a_program_each_particle_reads_its_new_tokens(prm: RewardModel, generator: LanguageModel) -> None:
    reward = RewardModel(type(prm.engine)(prm.engine.params, prm.engine.config), prm.layout, prm.head, "step")
    posterior = ppl.infer(solve(generator, reward, "abc", 4), SMC(16), seed=0)
    read: set[bytes] = set()
    for text, _ in posterior.items():
        steps = steps_of(text)
        assert len(steps) == 4 and "".join(steps) == str(text).removeprefix("abc")
        assert all(step.startswith("a:") for step in steps[1:])
        assert reward.laid_out(text) == reward.laid_out([*steps[:3], steps[3]], "abc")
        read |= {reward.laid_out(list(steps[: i + 1]), "abc").data for i in range(4)}
    longest = max(len(data) // 4 for data in read)
    begun = len(reward.layout.begin("abc")) // 4
    # All particles, those that were resampled away too: the question once, then what each step adds.
    assert reward.engine.usage.judged == 64
    assert reward.engine.usage.fed <= begun + 16 * (longest - begun) < 64 * begun / 2


def test_the_question_is_the_prompt_or_has_to_be_given(prm: RewardModel, generator: LanguageModel) -> None:
    text = generator.extend(generator.text("abc"), max_tokens=5).sample(ppl.Key.of(0))
    assert prm.laid_out(text) == prm.laid_out(text, "abc") == prm.laid_out([text.last], "abc")
    assert prm.laid_out(text, "b") != prm.laid_out(text)
    assert prm.score(text) == prm.score(text, "abc") != prm.score(text, "b")
    with pytest.raises(ValueError, match="nothing was sampled behind the prompt"):
        prm.score(generator.text("abc") + "abc")
    chat = prm.layout.chat([{"role": "user", "content": "Hello"}])
    asked = Text(Text(prm.layout.tokenizer, chat).tokenizer, chat)
    answered = Text(asked.tokenizer, chat + asked.tokenizer.follow("Hi"), asked, -1.0)
    with pytest.raises(ValueError, match=r"special tokens.*prm\(text, question\)"):
        prm.score(answered)
    assert prm.score(answered, "Hello") == prm.score(["Hi"], "Hello")


@program
async def three_steps(prm: RewardModel, weighting: str) -> str:
    steps, before = list[str](), 0.0
    for i in range(3):
        steps.append(await sample("step", Categorical.of({"good": 0.5, "bad": 0.5})))
        score = await prm(steps, QUESTION)
        if weighting == "product":
            await factor("right", score)
        elif weighting == "ratio":
            await factor("right", score - before)
        elif weighting == "twist":
            await ppl.twist("right", score)
            if i == 2:
                await factor("right", score)
        elif i == 2:
            await factor("right", score)
        before = score
    return " ".join(steps)


def test_prefix_scores_multiplied_count_early_steps_again(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Exactly, by enumeration: the ratio, or a twist, targets the last score; the product counts step 1 three times."""
    reward = made("rlhflow", tmp_path_factory).load()
    target = dict(measure(three_steps(reward, "last")))
    assert dict(measure(three_steps(reward, "ratio"))) == pytest.approx(target, abs=1e-12)
    assert dict(measure(three_steps(reward, "twist"))) == pytest.approx(target, abs=1e-12)
    product = measure(three_steps(reward, "product"))
    for answer, mass in product.items():
        steps = answer.split()
        scores = [reward.score(steps[: i + 1], QUESTION) for i in range(3)]
        assert mass == pytest.approx(math.exp(sum(scores)) / 8, rel=1e-9)
        assert target[answer] == pytest.approx(math.exp(scores[-1]) / 8, rel=1e-9)
    odds = [m["good good good"] / m["bad good good"] for m in (target, product)]
    assert abs(math.log(odds[1] / odds[0])) > 0.05


def test_scores_are_not_clipped() -> None:
    head = Head(np.array([1.0]))
    scores = log_scores(head.logits(np.array([[-800.0], [0.0], [30.0]], np.float32)), "prm")
    assert scores[0] == -800 and scores[1] == -math.log(2) and -1e-13 < scores[2] < 0
    assert ppl.log_odds(scores[2]) == pytest.approx(30)


def test_a_head_is_used_as_it_is_stored(tmp_path: Path) -> None:
    """A head of 32 bits on a model of 16: its weights are not rounded."""
    build("qwen-prm", tmp_path)
    stored = tensors(tmp_path)
    reward = models.load_reward(tmp_path, dtype="bfloat16")
    assert isinstance(reward, RewardModel) and reward.head.inner is not None
    last = stored["score.2.weight"].astype(np.float64)
    np.testing.assert_array_equal(reward.head.weight, last[1] - last[0])
    np.testing.assert_array_equal(np.asarray(reward.head.inner[0]), stored["score.0.weight"])
    assert (stored["score.0.weight"].astype(np.float16) != stored["score.0.weight"]).any()


def test_no_score_is_nan(prm: RewardModel, tmp_path: Path) -> None:
    huge = prm.head._replace(weight=np.full(32, np.nan))
    broken = RewardModel(prm.engine, prm.layout, huge, "step", "broken")
    with pytest.raises(FloatingPointError, match="broken gives nan as a score"):
        broken.score(["one"], QUESTION)
    build("qwen-prm", tmp_path)
    name = "model.layers.0.mlp.up_proj.weight"
    for value, dtype, why in ((1e30, "float16", "does not fit float16"), (np.nan, None, "is damaged")):
        stored = tensors(tmp_path)
        stored[name][0, 0] = value
        save_file(stored, tmp_path / "model.safetensors")
        with pytest.raises(CheckpointError, match=rf"{name} holds inf or nan: it {why}"):
            models.load_reward(tmp_path, dtype=dtype)


def test_what_else_is_judged_does_not_show(prm: RewardModel) -> None:
    """Several questions with trees of steps, in batches of any size, with rows evicted on the way."""
    rng = np.random.default_rng(0)
    memory = 40_000  # less than two slabs of 8 rows
    engine = type(prm.engine)(prm.engine.params, prm.engine.config, memory=memory)
    shared = RewardModel(engine, prm.layout, prm.head, "step")
    questions = [QUESTION, "Another?", "The question is: " * 12]
    tree = [(list[str](), question) for question in questions]
    seen: dict[tuple[str, ...], float] = {}
    for _ in range(5):
        picked = [tree[i] for i in rng.integers(len(tree), size=rng.integers(1, 20))]
        args = [([*steps, STEPS[rng.integers(4)] * int(rng.integers(1, 3))], question) for steps, question in picked]
        for (steps, question), score in zip(args, shared.score_many(args), strict=True):
            assert seen.setdefault((question, *steps), score) == score
            tree.append((steps, question))
    assert len(seen) > 25 and engine.usage.fed > sum(len(prm.layout.begin(q)) // 4 for q in questions)
    fresh = RewardModel(type(engine)(engine.params, engine.config), prm.layout, prm.head, "step")
    for (question, *steps), score in list(seen.items())[::3]:
        assert fresh.score(steps, question) == score


def test_a_question_is_laid_out_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build("qwen-prm", tmp_path)
    reward = models.load_reward(tmp_path)
    assert isinstance(reward, RewardModel)
    calls: list[str] = []
    plain = reward.layout.tokenizer.verbatim
    monkeypatch.setattr(reward.layout.tokenizer, "verbatim", lambda text: (calls.append(text), plain(text))[1])
    chats: list[Any] = []
    begin = reward.layout.chat
    monkeypatch.setattr(reward.layout, "chat", lambda *args, **how: (chats.append(args), begin(*args, **how))[1])
    for steps in range(1, 9):
        reward.score_many([([f"step {i}" for i in range(steps)], QUESTION)] * 16)
    assert len(chats) == 1 and len(calls) == 8


def test_our_own_head_is_the_step_reward(save_model: Callable[..., Path]) -> None:
    folder = save_model("steps")
    reward, lm = models.load_reward(folder), models.load(folder)
    assert isinstance(reward, StepReward) and reward.kind == "step"
    text = lm.text(">1+2:")
    assert reward.score(text) == StepReward(lm).score(text, "ignored")
    with pytest.raises(ValueError, match="another tokenizer"):
        reward(Text.of(models.Tokenizer.of_characters("ab"), "ab"))


def test_what_is_no_reward_model_is_told_with_the_choices(tmp_path: Path, save_model: Callable[..., Path]) -> None:
    plain = save_model("plain", head=False)
    with pytest.raises(CheckpointError, match=r"no head that tells its format.*'math-shepherd'.*'rlhflow'"):
        models.load_reward(plain)
    with pytest.raises(ValueError, match=r"unknown format 'orm'; give format=.*'qwen-prm'.*'classifier'"):
        models.load_reward(plain, "orm")
    with pytest.raises(ValueError, match=r"unknown kind 'prm': choose step, prefix, value, outcome"):
        models.load_reward(plain, kind="prm")  # pyright: ignore[reportArgumentType]
    with pytest.raises(CheckpointError, match=r"no tensor v_head\.summary\.weight.*not of format 'skywork'"):
        models.load_reward(plain, "skywork")
    with pytest.raises(CheckpointError, match=r"no token ' ки'"):
        models.load_reward(plain, "math-shepherd")


def test_damage_is_named(pair: Pair, tmp_path: Path) -> None:
    for path in pair.folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    judge = next(j for j in JUDGES.values() if isinstance(pair.load().layout, layout_of(j.format)))
    vocabulary("llama" if judge.family != "llama" else "mistral", tmp_path)  # of another model, without a template
    missing = {"qwen-prm": "no token '<extra_0>'", "math-shepherd": "no token ' ки'", "skywork": None}
    if (sentence := missing.get(judge.format, "no chat template" if judge.family == "llama" else None)) is not None:
        (tmp_path / "chat_template.jinja").unlink(missing_ok=True)
        with pytest.raises(CheckpointError, match=rf"cannot be used in format '{judge.format}': its? .*{sentence}"):
            models.load_reward(tmp_path, judge.format)
    heads = FORMATS[judge.format].heads
    for name in heads:
        if name.endswith(".weight"):
            save_file({**tensors(pair.folder), name: np.zeros((3, 32), np.float32)}, tmp_path / "model.safetensors")
            with pytest.raises(CheckpointError, match=rf"{name} has shape \(3, 32\) where \("):
                models.load_reward(tmp_path, judge.format)


def test_the_other_head_is_proposed(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = made("skywork", tmp_path_factory).folder
    with pytest.raises(CheckpointError, match=r"not of format 'classifier'.*it looks like format='skywork'"):
        models.load_reward(folder, "classifier")


def test_what_does_not_fit_the_context_is_told(prm: RewardModel) -> None:
    long = ["word " * 400]
    assert not prm.fits(long, QUESTION) and prm.fits(["word"], QUESTION)
    with pytest.raises(ValueError, match=r"take \d+ tokens, its context holds 512: allow fewer or shorter steps"):
        prm.score(long, QUESTION)


def test_what_is_no_answer_is_refused(prm: RewardModel) -> None:
    with pytest.raises(TypeError, match=r"a Text or a list of steps, like \['one'\]"):
        prm("one", QUESTION)
    with pytest.raises(ValueError, match="the list is empty"):
        prm([], QUESTION)
    with pytest.raises(ValueError, match=r"need their question: prm\(steps, question\)"):
        prm.score(["one"])


def test_the_config_says_which_token_pads(tmp_path: Path) -> None:
    build("classifier, padding at the end", tmp_path)
    reward = models.load_reward(tmp_path)
    assert isinstance(reward, RewardModel) and json.loads((tmp_path / "config.json").read_text())["pad_token_id"] == 374
    assert reward.laid_out(["one"], QUESTION).tokens[-1] != 374
