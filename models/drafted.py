"""Two language models: a small one writes, and the large one says what it is worth, or writes again."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ppl.effects import Effect
from ppl.language import Stepwise, sample
from ppl.models.language_model import LanguageModel
from ppl.models.text import Text
from ppl.program import Program
from ppl.weighted import Proposed


class _Pair:
    """To a program it is the large model, `lm`, but for what is written."""

    def __init__(self, lm: LanguageModel, draft: LanguageModel) -> None:
        if lm.tokenizer.fingerprint != draft.tokenizer.fingerprint:
            raise ValueError(f"{draft.name} cannot draft for {lm.name}: they have different tokenizers")
        self.lm = lm
        self.draft = draft

    @property
    def tokens(self) -> int:
        """Sampled through this handle, from either."""
        return self.draft.tokens + self.lm.tokens

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.lm, name)

    def __repr__(self) -> str:
        return f"<{self.lm.name}, drafted by {self.draft.name}>"


class Drafted(_Pair):
    """A language model whose blocks are drawn from another one, and weighed: p(block) / q(block).

    To a program it is the large model, `lm`: any algorithm that weighs properly targets its texts, with the tokens of
    `draft`. It is the exact counterpart of methods that let a large model accept or write again what a small one wrote
    (Pan et al. 2025, "SpecReason: fast and accurate inference-time compute via speculative reasoning"). Scoring a block
    is one pass over it; drawing it is one for each token.

    Raises:
        ValueError: the two have different tokenizers.
    """

    def handle(self) -> Drafted:
        """Another handle, with its own count of tokens."""
        return Drafted(self.lm.handle(), self.draft.handle())

    def extend(self, text: Text, *, temperature: float = 1.0, **options: Any) -> Proposed[Text]:
        """As `LanguageModel.extend`; `temperature` is that of the draft alone, which the weights make up for."""
        return Proposed(self.lm.extend(text, **options), self.draft.extend(text, temperature=temperature, **options))  # pyright: ignore[reportArgumentType]


class Speculative(_Pair):
    """A language model whose blocks another one drafts; those that a judge finds poor are written again.

    Pan et al. 2025, "SpecReason: fast and accurate inference-time compute via speculative reasoning". `judge(text)` is
    an effect whose answer is a log probability; a draft stays if that is at least `threshold`, nats. The blocks have
    the distribution q(b) 1[good] + (1 - Q(good)) p(b), which is neither model's: `Drafted` is the exact counterpart.

    Raises:
        ValueError: the two have different tokenizers; a threshold that is not the log of a probability.
    """

    def __init__(
        self, lm: LanguageModel, draft: LanguageModel, judge: Callable[[Text], Effect[float]],
        threshold: float = math.log(0.7),
    ) -> None:  # fmt: skip
        super().__init__(lm, draft)
        if not threshold <= 0:
            raise ValueError(f"Speculative: threshold={threshold!r} is a log probability, like math.log(0.7)")
        self.judge = judge
        self.threshold = threshold

    def handle(self) -> Speculative:
        """Another handle, with its own count of tokens."""
        return Speculative(self.lm.handle(), self.draft.handle(), self.judge, self.threshold)

    def extend(self, text: Text, **options: Any) -> Stepwise[Text]:
        """As `LanguageModel.extend`, of both models."""
        return _Speculated(self, text, options)


class _Speculated(Stepwise[Text]):
    def __init__(self, pair: Speculative, text: Text, options: dict[str, Any]) -> None:
        self.pair = pair
        self.blocks = pair.draft.extend(text, **options), pair.lm.extend(text, **options)

    def written(self, name: str, proposal: Any = None) -> Program[Text]:
        if proposal is not None:
            raise TypeError(f"sample({name!r}, ...): a speculative block takes no proposal: it has one, the draft")
        return Program(name, _speculate, (self.pair, *self.blocks), {})


async def _speculate(pair: Speculative, draft: Any, block: Any) -> Text:
    text = await sample("draft", draft)
    if await pair.judge(text) >= pair.threshold:
        return text
    return await sample("again", block)
