"""What `json_schema` makes of the JSON-Schema-Test-Suite: python benchmarks/schema_suite.py tests/draft2020-12

The suite is not ours: it is in the source distribution of `jsonschema` (folder json/tests). A *false accept* is an
invalid value whose text is in the language; there must be none. A *false refusal* is a valid value whose text, as
`json.dumps` writes it, is not. With `llguidance` installed, it is counted on the same schemas.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ppl.grammar import EmptyLanguageError, GrammarError, UnsupportedSchemaError, json_schema

Accepts = Callable[[str], bool]


def ours(schema: Any) -> Accepts | None:
    try:
        language = json_schema(schema, closed=False, depth=3)
    except EmptyLanguageError:
        return lambda _: False
    except (UnsupportedSchemaError, GrammarError):
        return None
    return language.__contains__


def theirs() -> Callable[[Any], Accepts | None] | None:
    try:
        import llguidance  # pyright: ignore[reportMissingImports]
    except ImportError:
        return None
    words = llguidance.LLTokenizer("byte")

    def make(schema: Any) -> Accepts | None:
        grammar = llguidance.LLMatcher.grammar_from_json_schema(schema)
        if llguidance.LLMatcher(words, grammar).is_error():
            return None

        def accepts(text: str) -> bool:
            matcher = llguidance.LLMatcher(words, grammar)
            return matcher.try_consume_tokens(words.tokenize_str(text)) == len(words.tokenize_str(text)) and (
                matcher.is_accepting()
            )

        return accepts

    return make


def main(folder: Path) -> None:
    other = theirs()
    counts: Counter[str] = Counter()
    shown: list[str] = []
    for path in sorted(folder.glob("*.json")):
        for group in json.loads(path.read_text()):
            makers = {"ours": ours(group["schema"]), "llguidance": other(group["schema"]) if other else None}
            for who, accepts in makers.items():
                counts[f"{who}: schemas {'refused' if accepts is None else 'taken'}"] += 1
            both = all(accepts is not None for accepts in makers.values())
            for test in group["tests"]:
                text = json.dumps(test["data"], ensure_ascii=False)
                for who, accepts in makers.items():
                    if accepts is None:
                        continue
                    found = accepts(text)
                    if found != test["valid"]:
                        what = "FALSE ACCEPT" if found else "false refusal"
                        counts[f"{who}: {what}"] += 1
                        counts[f"{who}: {what}, schemas that both take"] += both
                        shown.append(
                            f"{who}: {what}: {path.name}: {group['description']}: {test['description']}: {text}"
                        )
                    else:
                        counts[f"{who}: {'accepted' if found else 'refused'}, rightly"] += 1
    if "-v" in sys.argv:
        print("\n".join(shown))
    print(json.dumps(counts, indent=1, sort_keys=True))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
