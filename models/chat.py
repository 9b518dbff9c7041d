"""Chat templates: the jinja2 programs by which checkpoints lay out a conversation, run in a sandbox.

A template comes with a checkpoint, so from anyone: it sees plain data only, and cannot change it, read files or the
clock. Its environment is that of transformers (`trim_blocks`, `lstrip_blocks`, loop controls, `raise_exception`,
`tojson`, `strftime_now`, `{% generation %}`), so that it lays out here what it does there.

Special tokens that the *template* writes are tokens. The same characters in a *message* are text, so a user who types
<|im_end|><|im_start|>system is quoted and not obeyed; transformers does this when told `sanitize_control_tokens`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from jinja2 import Template as Compiled
from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

if TYPE_CHECKING:
    from ppl.models.tokenizer import Tokenizer

TODAY = date(2024, 7, 26)
"""What templates are told, since programs are deterministic: the day that Llama 3.1's assumes if it has no clock."""

Message = Mapping[str, Any]


@dataclass(frozen=True)
class Template:
    """The chat template of a checkpoint.

    `tokens` are the names it can use (`bos_token`, ...), `special` the texts that are special tokens.
    """

    source: str
    tokens: Mapping[str, str] = field(default_factory=dict)
    special: Sequence[str] = ()

    def render(
        self, messages: Sequence[Message], continue_final: bool, options: Mapping[str, Any], answered: bool = False
    ) -> list[str]:
        """The conversation, up to where the answer begins, goes on (`continue_final`), or ends (`answered`).

        Every other part, from the second on, is a special token's name that stood in a message: text to write verbatim.

        Raises:
            ValueError: the template refuses the messages, fails, or is none; or changes the message to continue.
        """
        data = _plain(messages, options)
        marks = [mark for mark in map(chr, range(0xFDD0, 0xFDF0)) if mark not in data and mark not in self.source]
        if len(marks) < 3:
            raise ValueError("chat: the messages hold nearly all of U+FDD0..U+FDEF, which are no characters")
        begin, end, here = marks[:3]
        names = "|".join(map(re.escape, sorted(self.special, key=len, reverse=True))) or "(?!)"
        said, told = _each_string(json.loads(data), lambda s: re.sub(names, rf"{begin}\g<0>{end}", s))
        begun = str(said[-1].get("content"))
        if continue_final:
            said[-1]["content"] += f"{here} "
        try:
            out = _compiled(self.source).render(
                **{"tools": None, "documents": None, **self.tokens, **told}, messages=said,
                add_generation_prompt=not (continue_final or answered),
            )  # fmt: skip
        except TemplateError as error:
            raise ValueError(f"chat: the model's template refuses the messages: {error.message}") from error
        except Exception as error:  # a foreign program: it can fail in any way
            raise ValueError(f"chat: the model's template fails on the messages: {error}") from error
        if continue_final:
            if here not in out or begun.strip() not in out:
                raise ValueError("chat: the model's template does not repeat the last message word for word, so it "
                                 "cannot be continued: append to lm.chat(...) of the others instead")  # fmt: skip
            out, behind = out[: out.rindex(here)], out[out.rindex(here) + 1 :]
            out = out if behind.startswith(" ") else out.rstrip()  # the template strips messages
        return [part or "" for part in re.split(f"{begin}({names}){end}|[{begin}{end}]", out)]


def conversation(question: str | Sequence[Message], system: str | None, continue_final: bool) -> list[Message]:
    """The messages of a question, or of a conversation, with what the system is told in front.

    Raises:
        TypeError: a message is not a dictionary with a role and a content.
        ValueError: there is none, there are two of the system, or none to continue.
    """
    messages: list[Message] = [{"role": "user", "content": question}] if isinstance(question, str) else [*question]
    for message in messages:
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise TypeError(f'chat: a message is like {{"role": "user", "content": "Hello"}}, not {message!r}')
    if not messages:
        raise ValueError("chat: there is no message")
    if system is not None:
        if messages[0]["role"] == "system":
            raise ValueError("chat: the messages begin with one of the system already; leave out system=")
        messages.insert(0, {"role": "system", "content": system})
    if continue_final and not isinstance(messages[-1].get("content"), str):
        raise ValueError(f"chat: the last message has no text to continue: {messages[-1]!r}")
    return messages


def tokens(
    tokenizer: Tokenizer,
    messages: Sequence[Message],
    continue_final: bool = False,
    options: Mapping[str, Any] | None = None,
    *,
    answered: bool = False,
) -> bytes:
    """The tokens of a conversation laid out by the tokenizer's template, int32 as bytes; up to where, see `render`.

    Raises:
        TypeError, ValueError: as `Template.render`; the vocabulary cannot write it.
    """
    assert tokenizer.template is not None
    first, *parts = tokenizer.template.render(messages, continue_final, options or {}, answered)
    data = tokenizer.encode(first)
    for i, part in enumerate(parts):
        data += tokenizer.follow(part) if i % 2 else tokenizer.verbatim(part)
    return data


def _plain(messages: Sequence[Message], options: Mapping[str, Any]) -> str:
    try:
        said = [{name: value for name, value in message.items() if value is not None} for message in messages]
        return json.dumps([said, dict(options)], ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise TypeError(f"chat: messages and options are strings, numbers, lists and dictionaries ({error})") from None


def _each_string(data: Any, change: Any) -> Any:
    """The data with its strings changed; keys stay."""
    if isinstance(data, str):
        return change(data)
    if isinstance(data, list):
        return [_each_string(item, change) for item in data]
    if isinstance(data, dict):
        return {key: _each_string(item, change) for key, item in data.items()}
    return data


class _Generation(Extension):
    """`{% generation %}` marks what the assistant says, for training; here it changes nothing."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


@lru_cache(16)
def _compiled(source: str) -> Compiled:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )

    def refuse(message: str) -> None:
        raise TemplateError(message)

    def tojson(
        x: Any, ensure_ascii: bool = False, indent: int | None = None, separators: Any = None, sort_keys: bool = False
    ) -> str:
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    environment.filters["tojson"] = tojson  # jinja2's own escapes for HTML
    environment.globals |= {"raise_exception": refuse, "strftime_now": TODAY.strftime}
    return environment.from_string(source)
