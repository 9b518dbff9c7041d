"""Two language models: a small one writes, and the large one says what it is worth."""

from __future__ import annotations

from typing import Any

from ppl.models.language_model import LanguageModel
from ppl.models.text import Text
from ppl.weighted import Proposed


class Drafted:
    """A language model whose blocks are drawn from another one, and weighed: p(block) / q(block).

    To a program it is the large model, `lm`: any algorithm that weighs properly targets its texts, with the tokens of
    `draft`. It is the exact counterpart of methods that let a large model accept or write again what a small one wrote
    (Pan et al. 2025, "SpecReason: fast and accurate inference-time compute via speculative reasoning"). Scoring a block
    is one pass over it; drawing it is one for each token.

    Raises:
        ValueError: the two have different tokenizers.
    """

    def __init__(self, lm: LanguageModel, draft: LanguageModel) -> None:
        if lm.tokenizer.fingerprint != draft.tokenizer.fingerprint:
            raise ValueError(f"{draft.name} cannot draft for {lm.name}: they have different tokenizers")
        self.lm = lm
        self.draft = draft

    @property
    def tokens(self) -> int:
        """Sampled through this handle, from the draft."""
        return self.draft.tokens

    def handle(self) -> Drafted:
        """Another handle, with its own count of tokens."""
        return Drafted(self.lm.handle(), self.draft.handle())

    def extend(self, text: Text, *, temperature: float = 1.0, **options: Any) -> Proposed[Text]:
        """As `LanguageModel.extend`; `temperature` is that of the draft alone, which the weights make up for."""
        return Proposed(self.lm.extend(text, **options), self.draft.extend(text, temperature=temperature, **options))  # pyright: ignore[reportArgumentType]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.lm, name)

    def __repr__(self) -> str:
        return f"<{self.lm.name}, drafted by {self.draft.name}>"
