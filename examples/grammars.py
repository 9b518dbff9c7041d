"""Four things that a grammar is for: a typed call, a range of dates, a query, and what a model believes of a record.

The model is one that anybody can check: it knows which letter follows which in the few lines below, and no more. With
a checkpoint of your own, python examples/grammars.py path/to/folder, the same programs ask that.
"""

import dataclasses
import json
import sys
from typing import Any, Literal

import ppl
from ppl.grammar import cfg, json_schema, regex
from ppl.models import bigram, load

LINES = """
book a table for two at eight
book(guests=2, hour=20)
select name from guests where age > 30
select age from guests where name = 'Ada'
{"guests": 2, "mood": "happy"} {"guests": 4, "mood": "happy"} {"guests": 2, "mood": "sad"}
2024-02-28 2024-02-29 2024-03-01 2024-03-02
"""

BOOK = "book(guests=" + regex("[1-9]") + ", hour=" + regex("1[0-9]|2[0-3]") + ")"
DATES = regex("2024-02-2[5-9]|2024-03-0[1-9]")  # from the 25th of February to the 9th of March
QUERY = cfg(r"""
    start: "select " NAME (", " NAME)* " from " NAME [" where " condition] ";"
    ?condition: test (" and " test)*
    ?test: NAME (" = " | " > ") VALUE | "(" condition ")"
    NAME: "name" | "age" | "guests"
    VALUE: /[1-9][0-9]?/ | /'[A-Z][a-z]{1,5}'/
""")


@dataclasses.dataclass
class Record:
    guests: Literal[2, 3, 4]
    mood: Literal["happy", "sad"]


@ppl.program
async def write(lm: Any, prompt: str, grammar: Any, max_tokens: int) -> str:
    dist = lm.extend(lm.text(prompt), grammar=grammar, max_tokens=max_tokens)
    return (await ppl.sample("text", dist.resample_every(8))).last


@ppl.program
async def believe(lm: Any, prompt: str) -> tuple[int, str]:
    """A record whose fields are values of the program: what the posterior is over."""
    text = await ppl.sample("record", lm.extend(lm.text(prompt), grammar=json_schema(Record), max_tokens=40))
    record = json.loads(text.last)
    await ppl.condition("not three", record["guests"] != 3)
    return record["guests"], record["mood"]


def main(path: str | None = None) -> None:
    lm = load(path) if path else bigram.bigram(LINES)[0]
    for name, prompt, grammar, most in [
        ("call", "book a table for two at eight\n", BOOK, 30),
        ("date", "2024-02-28 ", DATES, 12),
        ("query", "\n", QUERY, 60),
    ]:
        posterior = ppl.infer(write(lm, prompt, grammar, most), ppl.SMC(32), seed=0)
        print(f"{name}: {posterior.mode()}   (log evidence {posterior.log_evidence:.2f})")
    posterior = ppl.infer(believe(lm, "\n"), ppl.SMC(32), seed=0)
    shares: dict[tuple[int, str], float] = {}
    for value, p in posterior.items():
        shares[value] = shares.get(value, 0.0) + p
    print("record:", ", ".join(f"{guests} {mood}: {p:.2f}" for (guests, mood), p in shares.items()))


if __name__ == "__main__":
    main(*sys.argv[1:2])
