"""Texts are values: equal by their tokens, linked to what they extend."""

from __future__ import annotations

import numpy as np
import pytest
import tokenizers

from ppl.models.text import Text, Tokenizer

AB = Tokenizer.of_characters("ab\n")


def test_a_text_is_its_tokens() -> None:
    whole, pieces = Text.of(AB, "abba\n"), Text.of(AB, "ab") + "b" + "a\n"
    assert whole == pieces and hash(whole) == hash(pieces) and len({whole, pieces}) == 1
    assert whole != Text.of(AB, "abba") and whole != "abba\n" and whole != Text.of(AB, "abab\n")
    assert len(whole) == 5 and str(whole) == "abba\n" and repr(whole) == r"Text('abba\n')"
    assert whole.tokens.tolist() == [0, 1, 1, 0, 2] and whole.tokens.dtype == np.int32


def test_plus_extends_and_leaves_the_old_text_alone() -> None:
    old = Text.of(AB, "ab")
    new = old + "a\n"
    assert (str(old), len(old), old.parent) == ("ab", 2, None)
    assert new.parent is old and str(new) == "aba\n" and new.last == "a\n" and new.log_prob is None
    assert (new + "").last == "" and (new + "") == new


def test_last_of_a_text_without_parent_is_all_of_it() -> None:
    assert Text.of(AB, "abb").last == "abb"
    assert Text.of(AB, "").last == "" and len(Text.of(AB, "")) == 0


def test_last_behind_an_empty_parent_is_all_of_it() -> None:
    assert (Text.of(AB, "") + "ab").last == "ab"


@pytest.mark.parametrize(("text", "lost"), [("abxa", "'x'"), ("é", "'é'"), ("ab c", "' '")])
def test_a_character_outside_the_vocabulary_is_named(text: str, lost: str) -> None:
    for write in (lambda: Text.of(AB, text), lambda: Text.of(AB, "a") + text):
        with pytest.raises(ValueError, match="cannot write") as caught:
            write()
        assert lost in str(caught.value) and repr(text) in str(caught.value)


def test_finished_is_an_end_of_text_token_at_the_end() -> None:
    tokenizer = Tokenizer(AB.backend, [2])
    assert Text.of(tokenizer, "ab\n").finished
    assert not Text.of(tokenizer, "a\nb").finished and not Text.of(tokenizer, "").finished
    assert not Text.of(AB, "ab\n").finished


def test_tokens_are_numbered_in_the_order_of_the_alphabet() -> None:
    alphabet = "0123456789+-*:\n> "
    tokenizer = Tokenizer.of_characters(alphabet)
    assert tokenizer.size == len(alphabet) and tokenizer.pieces() == list(alphabet)
    assert np.frombuffer(tokenizer.encode(alphabet), np.int32).tolist() == list(range(len(alphabet)))
    assert tokenizer.decode(tokenizer.encode(alphabet)) == alphabet


def test_pieces_are_what_tokens_write() -> None:
    """Byte-level vocabularies (GPT-2, Llama 3, Qwen) store a space as Ġ and a newline as Ċ."""
    byte_level = tokenizers.pre_tokenizers.ByteLevel
    vocabulary = {piece: i for i, piece in enumerate(sorted(byte_level.alphabet()))}
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, [], unk_token=None))
    backend.pre_tokenizer = byte_level(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    tokenizer = Tokenizer(backend)
    (newline,) = np.frombuffer(tokenizer.encode("\n"), np.int32).tolist()
    assert tokenizer.decode(tokenizer.encode("a b\n")) == "a b\n"
    assert tokenizer.pieces()[newline] == "\n"


def test_links_are_what_was_written_at_once() -> None:
    ab = Text.of(AB, "ab")
    drawn, given = Text(AB, ab.data + AB.encode("ba"), ab, -1.0), ab + "ba"
    assert drawn.sampled and not given.sampled and not ab.sampled
    assert drawn == given and len({ab.key, drawn.key, given.key, (ab + "b" + "a").key, Text.of(AB, "abba").key}) == 5
    assert (ab + "" + "ba").key == (Text.of(AB, "") + "ab" + "ba" + "").key == given.key
    assert (drawn + "a").key != (given + "a").key and (drawn.start, ab.start) == (2, 0)
    assert list((drawn + "" + "a").chain()) == [Text.of(AB, "abbaa"), drawn, ab]
    assert list((drawn + "a").chain(until={drawn.key})) == [Text.of(AB, "abbaa")]


def test_fingerprints_are_of_what_the_tokenizer_does() -> None:
    same = [Tokenizer.of_characters("ab\n"), Tokenizer(AB.backend, []), AB]
    assert len({tokenizer.fingerprint for tokenizer in same}) == 1
    others = [Tokenizer.of_characters("ba\n"), Tokenizer.of_characters("ab"), Tokenizer(AB.backend, [2])]
    others += [Tokenizer(AB.backend, [0, 1])]
    assert len({tokenizer.fingerprint for tokenizer in [AB, *others]}) == 5
    assert Tokenizer(AB.backend, [1, 0]).fingerprint == others[-1].fingerprint
    assert int(AB.fingerprint, 16) >= 0
