"""Grammars: languages of texts, and how they weigh and constrain what language models write."""

from ppl.grammar.cfg import CFG, cfg
from ppl.grammar.errors import (
    EmptyLanguageError,
    GrammarError,
    RegexError,
    TooLargeError,
    UnreachableByTokensError,
    UnsupportedSchemaError,
)
from ppl.grammar.language import Language
from ppl.grammar.of import of
from ppl.grammar.pcfg import PCFG, pcfg
from ppl.grammar.potential import Potential, potential
from ppl.grammar.regular import Regular, choice, everything, regex
from ppl.grammar.schema import json_schema
from ppl.grammar.trees import Rule, Tree

__all__ = [
    "CFG", "EmptyLanguageError", "GrammarError", "Language", "PCFG", "Potential", "Regular", "RegexError", "Rule",
    "TooLargeError", "Tree", "UnreachableByTokensError", "UnsupportedSchemaError", "cfg", "choice", "everything",
    "json_schema", "of", "pcfg", "potential", "regex",
]  # fmt: skip
