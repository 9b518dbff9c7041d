"""What `LanguageModel` and `TableLM` have in common: the distributions of blocks behind a text."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Generic, Literal, TypeVar, overload

import numpy as np

from ppl.grammar.language import Language
from ppl.grammar.of import of
from ppl.grammar.regular import Regular
from ppl.grammar.vocabulary import Vocabulary
from ppl.models.draw import PLAIN, Options
from ppl.models.guide import Guide
from ppl.models.reader import Reader, check_mode
from ppl.models.stops import Until, stops_of
from ppl.models.text import Text
from ppl.models.tokenizer import Tokenizer

E = TypeVar("E")


class Blocks(ABC, Generic[E]):
    """Extends texts by blocks, under grammars or free; each grammar is made ready for its tokens once."""

    tokenizer: Tokenizer

    def __init__(self) -> None:
        self._guides: dict[Any, Any] = {}  # by grammar, until, finish, canonical; and what they need of the model

    def extend(
        self,
        text: Text,
        *,
        until: Until = None,
        max_tokens: int = 256,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        bias: Mapping[int, float] | None = None,
        grammar: Any = None,
        mode: Literal["exact", "local"] = "exact",
        finish: bool = False,
        canonical: bool = False,
    ) -> E:
        """The distribution of `text` with one more block behind it.

        The block ends with the token that completes `until` (a string or the name of a special token; one of them, if
        these are several), with an end-of-text token, at `max_tokens`, or at the end of the context. The other options
        are those of `ppl.models.draw.Options`; with any of them this *is* the changed model, and no weight corrects for
        it. To draw from it and weigh by the model as it is, make it a proposal (not one that cuts tokens off: no weight
        brings these back). It costs nothing more: both probabilities come from one pass.

            sample("step", lm.extend(text), proposal=lm.extend(text, temperature=0.7))

        With a `grammar` it is the measure p(block) * 1[the block is in its language]: draws come with their exact
        weight, and the evidence is the probability that the model writes such a block. The block is what is written, an
        end-of-text token left out; it may end with one (which is weighed), by `until`, at `max_tokens`, and as soon as
        it is complete: in the language, where no longer text begins with it. With `finish` an end-of-text token is
        asked for there too. `canonical` leaves out blocks whose tokens are not those that the tokenizer has for their
        text. A type will do for a grammar: see `ppl.grammar.of`. `mode="local"` is the distribution that
        masks each token: normalised, and another one. A regular language steers the decode loop on the device; what is
        not regular, a `cfg` or any `ppl.grammar.Language`, is checked on the host: see `Checked`.

        Raises:
            TypeError: `text` is not a `Text`.
            ValueError: `max_tokens` < 1, `until` empty or impossible to write, `text` has no room left, or an option
                that makes no sense.
            GrammarError: nothing can be written: there is no text in the language, or no tokens for one, or it takes
                more than `max_tokens`.
        """
        until = stops_of(until)
        self._check_stops(until)
        asked = temperature != 1 or top_k is not None or top_p is not None or min_p is not None or bias
        options = Options.of(temperature, top_k, top_p, min_p, bias) if asked else PLAIN
        if grammar is None and canonical:
            raise ValueError("canonical=True needs a grammar: ppl.grammar.everything() allows all texts")
        guide = None if grammar is None else self.guide(of(grammar), until, finish, canonical)
        if guide is not None:
            guide.check(max_tokens)
            check_mode(mode, guide)
        return self._blocks((self, text, until, max_tokens, options), guide, mode == "local")

    @overload
    def guide(
        self, grammar: Regular, until: tuple[str, ...] = (), finish: bool = False, canonical: bool = False
    ) -> Guide: ...
    @overload
    def guide(
        self, grammar: Language, until: tuple[str, ...] = (), finish: bool = False, canonical: bool = False
    ) -> Guide | Reader: ...
    def guide(
        self, grammar: Regular | Language, until: tuple[str, ...] = (), finish: bool = False, canonical: bool = False
    ) -> Guide | Reader:
        """A grammar over the tokens of this model; made once. What is not regular is read on the host.

        Raises:
            GrammarError: nothing can be written.
        """
        key = grammar, until, finish, canonical
        if key not in self._guides:
            stops = self._stop_table(until)
            if isinstance(grammar, Regular):
                guide = self._guide(grammar, stops, finish)
            else:
                guide = Reader(grammar, self._vocabulary, stops, finish)
            self._guides[key] = guide.only_canonical() if canonical else guide
        return self._guides[key]

    @property
    def _vocabulary(self) -> Vocabulary:
        """What the tokens write."""
        if "vocabulary" not in self._guides:
            tokenizer = self.tokenizer
            self._guides["vocabulary"] = Vocabulary(tokenizer.token_bytes(), tokenizer.eos, self._vocab_size)
        return self._guides["vocabulary"]

    @property
    @abstractmethod
    def _vocab_size(self) -> int: ...

    @abstractmethod
    def _check_stops(self, until: tuple[str, ...]) -> None:
        """Raise `ValueError` for a stop that cannot be written."""

    @abstractmethod
    def _stop_table(self, until: tuple[str, ...]) -> np.ndarray:
        """As `stops.stop_table`."""

    @abstractmethod
    def _guide(self, grammar: Regular, stops: np.ndarray, finish: bool) -> Guide:
        """Of a regular language, with what is known of the model."""

    @abstractmethod
    def _blocks(self, parts: tuple[Any, ...], guide: Guide | Reader | None, local: bool) -> Any:
        """The distribution: `parts` are the model, the text, until, max_tokens and options."""
