"""Tokenizers of checkpoints against those of transformers, and texts that are cut inside characters."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppl.models.finished import is_canonical
from ppl.models.stops import stop_table
from ppl.models.text import Text, Tokenizer
from ppl.models.tokenizer_files import load_tokenizer
from tests.models.vocabularies import CORPUS, KINDS, save

TEXTS = [
    *CORPUS, "", " ", "Hello", " Hello", "  two spaces", "world\n", "\n\n", "a  b\t c",
    "x▁y", "Zürich ☃ 日本", "e\u0301",
    "<s>Hello</s> world", "<|im_start|>user\nHello<|im_end|>", "a<think>b</think> c", "<|eot_id|> x",
]  # fmt: skip


@cache
def both(kind: str) -> tuple[Tokenizer, Any]:
    """Ours and that of transformers, from one folder."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        fast = save(kind, Path(folder))
        return load_tokenizer(Path(folder), {}, 1000), fast


def ids(data: bytes) -> list[int]:
    return np.frombuffer(data, "<i4").tolist()


def data(ids: list[int]) -> bytes:
    return np.array(ids, "<i4").tobytes()


@pytest.mark.parametrize("kind", KINDS)
def test_prompts_are_the_tokens_of_transformers(kind: str) -> None:
    ours, fast = both(kind)
    for text in TEXTS:
        assert ids(ours.prefix + ours.encode(text)) == fast(text).input_ids, text
        assert ours.decode(ours.prefix + ours.encode(text)) == fast.decode(
            fast(text).input_ids, skip_special_tokens=True
        )
    assert len(ids(ours.encode(CORPUS[1]))) < 0.6 * len(CORPUS[1])  # there is something to merge


@pytest.mark.parametrize("kind", KINDS)
def test_any_tokens_read_as_in_transformers(kind: str) -> None:
    """But for the bytes of a character at the end, which are not shown before it is whole."""
    ours, fast = both(kind)
    tokens = [token for token, piece in enumerate(ours.token_bytes()) if piece]
    if kind in ("llama 2", "mistral"):  # of bytes that are no character, each is one U+FFFD there
        tokens = [token for token in tokens if token >= 259]
    rng = np.random.default_rng(0)
    for _ in range(100):
        some = rng.choice(tokens, size=rng.integers(1, 12)).tolist()
        theirs, mine = fast.decode(some, skip_special_tokens=True), ours.decode(data(some))
        assert theirs.startswith(mine) and theirs[len(mine) :] in ("", "\ufffd"), some


@given(
    st.sampled_from(sorted(KINDS)), st.lists(st.integers(0, 370), max_size=12), st.lists(st.integers(0, 12), max_size=4)
)
def test_what_blocks_show_is_what_the_text_shows(kind: str, some: list[int], cuts: list[int]) -> None:
    tokenizer = both(kind)[0]
    text = parts = None
    for end in [*sorted(min(cut, len(some)) for cut in cuts), len(some)]:
        text = Text(tokenizer, data(some[:end]), text)
        parts = (parts or "") + text.last
        assert str(text) == parts


def test_a_character_shows_when_it_is_whole_and_a_special_token_cuts_it_off() -> None:
    tokenizer = both("qwen")[0]
    first, second, third = [bytes([byte]) for byte in "☃".encode()]
    token = {piece: i for i, piece in enumerate(tokenizer.token_bytes())}
    text = Text.of(tokenizer, "a")
    seen = []
    for piece in (first, second, third):
        text = Text(tokenizer, text.data + data([token[piece]]), text)
        seen.append((str(text), text.last))
    assert seen == [("a", ""), ("a", ""), ("a☃", "☃")]
    end = tokenizer.encode("<|im_end|>")
    assert len(end) == 4 and tokenizer.decode(end) == "" and tokenizer.ends(end)
    cut = Text(tokenizer, data([token[first]]))
    assert (str(cut), str(Text(tokenizer, cut.data + end, cut)), Text(tokenizer, cut.data + end, cut).last) == (
        "", "\ufffd", "\ufffd",
    )  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_what_follows_gets_no_space_in_front(kind: str) -> None:
    tokenizer = both(kind)[0]
    for start, more in [("Hello", "again"), ("Hello", " world"), ("Step", "s\n"), ("", "Hello"), ("a", "</s>b")]:
        text = Text.of(tokenizer, start) + more
        shown = (start + more).replace("</s>", "") if kind in ("llama 2", "mistral") else start + more
        assert str(text).removeprefix(" " if kind == "gpt 2" else "") == shown
    text = Text.of(tokenizer, "Hello")
    assert [(text + more).last for more in (" world", "  b", "")] == [" world", "  b", ""]
    assert (Text.of(tokenizer, "") + "Hello") == Text.of(tokenizer, "Hello")
    assert not tokenizer.follow("Hello").startswith(tokenizer.prefix or b"-")


@pytest.mark.parametrize("kind", KINDS)
def test_names_of_special_tokens_can_be_text(kind: str) -> None:
    tokenizer = both(kind)[0]
    for token in sorted(tokenizer.special)[:3]:
        name = tokenizer.backend.id_to_token(token) or ""
        assert token in ids(tokenizer.follow(name)) and token not in ids(tokenizer.verbatim(name))
        before = tokenizer.encode("x")
        assert tokenizer.decode(tokenizer.verbatim(name), before) == name and tokenizer.decode(data([token])) == ""


def test_bytes_of_tokens() -> None:
    for kind in KINDS:
        tokenizer = both(kind)[0]
        pieces = tokenizer.token_bytes()
        assert len(pieces) == tokenizer.size == len(both(kind)[1]) and not any(pieces[t] for t in tokenizer.special)
        assert {bytes([byte]) for byte in range(256)} <= {*pieces}
    assert b"<think>" in both("qwen")[0].token_bytes() and b" world" in both("mistral")[0].token_bytes()


@pytest.mark.parametrize("kind", ["qwen", "llama 2"])
@pytest.mark.parametrize("until", ["\n\n", "☃", "ep 1", "aab", "<think>", "\ufffd"])
def test_a_stop_is_found_across_tokens_and_inside_characters(kind: str, until: str) -> None:
    tokenizer = both(kind)[0]
    table, pieces, rng = stop_table(tokenizer, (until,)), tokenizer.token_bytes(), np.random.default_rng(1)
    goal = until.encode()
    useful = [token for token, piece in enumerate(pieces) if set(piece) & set(goal)]
    hits = 0
    for _ in range(300):
        state, seen, ended = 0, b"", False
        for token in rng.choice(useful if rng.random() < 0.9 else len(pieces), size=12).tolist():
            state = table[state, token]
            seen = b"" if token in tokenizer.special else seen + pieces[token]
            ended = ended or goal in seen or token in tokenizer.eos
            assert (state == len(table) - 1) == ended
        hits += ended
    whole = tokenizer.follow("x" + until)
    state = 0
    for token in ids(whole):
        state = table[state, token]
    assert state == len(table) - 1
    assert hits < 300


def test_special_tokens_break_a_stop() -> None:
    tokenizer = both("qwen")[0]
    table = stop_table(tokenizer, ("ab",))
    a, b = (tokenizer.token_bytes().index(piece) for piece in (b"a", b"b"))
    (start,) = ids(tokenizer.encode("<|im_start|>"))
    assert table[table[0, a], b] == 2 and table[table[table[0, a], start], b] == 0


def test_a_special_token_can_be_the_stop() -> None:
    tokenizer = both("qwen")[0]
    (start,) = ids(tokenizer.encode("<|im_start|>"))
    table = stop_table(tokenizer, ("<|im_start|>",), tokenizer.size + 3)
    assert table.shape[1] == tokenizer.size + 3 and not table[0, tokenizer.size :].any()
    assert [token for token in range(tokenizer.size) if table[0, token] == len(table) - 1] == [start, *tokenizer.eos]
    with pytest.raises(ValueError, match=r"until='x<\|im_start\|>' is text with <\|im_start\|> in it"):
        stop_table(tokenizer, ("x<|im_start|>",))


@pytest.mark.parametrize("kind", KINDS)
def test_canonical_tokens(kind: str) -> None:
    """What the tokenizer writes behind a text is canonical; the same text in smaller tokens is not."""
    tokenizer = both(kind)[0]
    words = tokenizer.token_bytes()
    of_byte = {word: i for i, word in enumerate(words) if len(word) == 1}
    prompt, cut = Text.of(tokenizer, "Hello"), 0
    for more in (" world", "\n\n", "Zürich", " a  b", "2024"):
        text = prompt + more
        assert is_canonical(text, len(prompt)), more
        pieces = [of_byte.get(bytes([byte])) for byte in b"".join(words[i] for i in text.tokens[len(prompt) :])]
        if None not in pieces and len(pieces) > len(text) - len(prompt):
            cut += 1
            assert not is_canonical(
                Text(tokenizer, prompt.data + data([i for i in pieces if i is not None])), len(prompt)
            )
    assert cut or kind in ("llama2", "mistral")
    end = next(iter(tokenizer.eos), None)
    if end is not None:
        assert is_canonical(Text(tokenizer, (prompt + " world").data + data([end])), len(prompt))
    half = Text(tokenizer, prompt.data + data([of_byte["é".encode()[:1]]])) if "é".encode()[:1] in of_byte else None
    assert half is None or not is_canonical(half, len(prompt))
