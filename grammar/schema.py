"""JSON schemas (draft 2020-12) as regular languages, from the schema itself: what is written is always valid.

The texts are those that `json.dumps(value, ensure_ascii=False)` writes, with the properties of an object in the order
of the schema; and numbers like 1.50, but none with an exponent, nor 1.0 where only whole ones are allowed, unless the
schema itself writes it. Where a schema names properties and does not say what others may be, there are none, unless
`closed=False`. Where it asks for any value at all, arrays and objects are nested to `depth`. So some valid texts are
left out, by choice; no invalid one is let in: what cannot be said exactly is refused (`UnsupportedSchemaError`) with
its JSON pointer.

A schema that holds itself, and any value at all with `depth=None`, is no regular language: it becomes a `Nested` one.

A schema is worked out as a set of values for each type, in `Values`: conjunctions of arrays and of objects are merged
part by part, before anything is written as text.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from functools import reduce
from itertools import product
from typing import Any, Literal

from ppl.grammar import json_text
from ppl.grammar.dfa import DFA
from ppl.grammar.errors import EmptyLanguageError, GrammarError, RegexError, TooLargeError, UnsupportedSchemaError
from ppl.grammar.formats import FORMATS
from ppl.grammar.nested import CALL, Nested, call
from ppl.grammar.nfa import NFA, Part
from ppl.grammar.regular import MAX_STATES, Regular, choice, everything, regex
from ppl.grammar.values import NONE, Array, Object, Values, anything, both, constant, searched

TYPES = ("null", "boolean", "number", "string", "array", "object")
SAYS_NOTHING = {
    "title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly", "$comment", "$schema", "$id",
    "$defs", "definitions", "$anchor", "contentMediaType", "contentEncoding",
}  # fmt: skip
WHOLE = regex("0|-?[1-9][0-9]*")  # how they are written where no others are allowed
WORDS = {"null": choice(["null"]), "boolean": choice(["true", "false"])}


def json_schema(
    schema: Any, *, closed: bool = True, on_unsupported: Literal["error", "superset"] = "error",
    depth: int | None = 2, max_states: int = MAX_STATES,
) -> Regular | Nested:  # fmt: skip
    """The texts of the values that a JSON schema allows: see the module for how they are written.

    `schema` is a dictionary, its JSON, true or false; or a type: a pydantic model, dataclass, TypedDict, Enum, Literal,
    `list[int]`, ... `closed` and `depth`: see the module. `pattern`
    is as `re.search` finds it; `format` is a constraint. With `on_unsupported="superset"`
    what is not implemented is left out, and every text that is written is checked by `jsonschema` at its end: one that
    is not valid has weight 0. A recursive schema, or one of any value to any depth (`depth=None`), is a language for
    the host: it is checked while it is written, as a `cfg` is.

    Raises:
        UnsupportedSchemaError: it says what is not implemented; it has the JSON pointer.
        EmptyLanguageError: no value is valid.
        TooLargeError: the automaton would have more than `max_states` states.
        TypeError: not a schema.
    """
    schema = _as_schema(schema)
    reader = _Reader(schema, on_unsupported == "superset", closed)
    values = reader.read(schema, "")
    writer = _Writer(depth, max_states, closed)
    language, about = writer.text(values), schema.get("title", "JSON schema") if isinstance(schema, dict) else "JSON"
    bodies = writer.bodies(reader.definition)
    try:
        if language.empty:
            raise EmptyLanguageError("no value is valid")
        out: Regular | Nested = Regular(language.dfa, str(about), max_states)
        if bodies:
            out = Nested([language.dfa, *bodies], writer.called, str(about))
    except EmptyLanguageError as error:
        raise EmptyLanguageError(f"{error}, by the schema {json.dumps(schema)[:100]}") from None
    if reader.left_out:
        out.check = _checker(schema)
    return out


def _as_schema(schema: Any) -> Any:
    if isinstance(schema, str):
        try:
            schema = json.loads(schema)
        except ValueError as error:
            raise TypeError(f"json_schema({schema[:60]!r}): not JSON ({error})") from None
    if isinstance(schema, bool | dict):
        return schema
    from pydantic import TypeAdapter
    from pydantic.errors import PydanticUserError

    try:
        return TypeAdapter(schema).json_schema()
    except (PydanticUserError, TypeError) as error:
        raise TypeError(f"json_schema({schema!r}): neither a schema nor a type that has one ({error})") from None


def _checker(schema: Any) -> Callable[[str], bool]:
    import jsonschema

    validator = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())

    def check(text: str) -> bool:
        try:
            return validator.is_valid(json.loads(text))
        except ValueError:
            return False

    return check


class _Reader:
    """From schemas to values."""

    def __init__(self, root: Any, superset: bool, closed: bool) -> None:
        self.root = root
        self.closed = closed
        self.superset = superset
        self.left_out: list[str] = []
        self.open: list[str] = []
        self._recursive: dict[str, bool] = {}

    def refuse(self, at: str, what: str) -> Values:
        """What stands for a keyword that is not implemented."""
        if not self.superset:
            raise UnsupportedSchemaError(f"{at or '/'}: {what}; on_unsupported='superset' leaves it to a check of "
                                         "finished texts", at)  # fmt: skip
        self.left_out.append(at)
        return anything()

    def read(self, schema: Any, at: str) -> Values:
        if isinstance(schema, bool):
            return anything() if schema else Values()
        if not isinstance(schema, dict):
            raise TypeError(f"{at or '/'}: {schema!r} is no schema: an object, true or false is")
        out = self._types(schema, at)
        for key in schema:
            part = getattr(self, "_" + key.strip("$"), None) if key in _KEYWORDS else None
            if part is not None:
                out = self._met(out, part(schema[key], f"{at}/{_escaped(key)}", schema), at)
            elif key not in SAYS_NOTHING and key not in _WITH_TYPES:
                self.refuse(f"{at}/{_escaped(key)}", f"{key!r} is not implemented")
        return out

    def _met(self, a: Values, b: Values, at: str) -> Values:
        try:
            for one, other in ((a, b), (b, a)):  # what is asked of a definition beside it: once more by what it says
                if len(one.calls) == 1 and not one.words and one.calls.isdisjoint(self.open) and (
                    other not in (one, anything(), Values())
                ):  # fmt: skip
                    return self._met(self.definition(*one.calls), other, at)
            return a & b
        except UnsupportedSchemaError:
            raise
        except GrammarError as error:
            return self.refuse(at, str(error))

    def _types(self, schema: Mapping[str, Any], at: str) -> Values:
        """What `type` says, and the keywords that go with types."""
        given = schema.get("type", list(TYPES))
        names = [given] if isinstance(given, str) else given
        if not isinstance(names, list) or not set(names) <= {*TYPES, "integer"}:
            known = ", ".join((*TYPES, "integer"))
            raise UnsupportedSchemaError(f"{at}/type: {given!r} is none of {known}", f"{at}/type")
        out = Values()
        for name in names:
            match name:
                case "null":
                    out |= Values(frozenset(["null"]))
                case "boolean":
                    out |= Values(frozenset(["true", "false"]))
                case "number" | "integer":
                    whole = name == "integer" and "number" not in names
                    every = json_text.integers() if whole else json_text.numbers()
                    out |= Values(number=self._number(schema, every, at))
                case "string":
                    out |= Values(string=self._string(schema, at))
                case "array":
                    out |= Values(array=(self._array(schema, at),))
                case "object":
                    out |= Values(object=self._objects(schema, at))
        return out

    def _number(self, schema: Mapping[str, Any], out: Regular, at: str) -> Regular:
        for key, make in _BOUNDS.items():
            if key in schema:
                out &= make(self._decimal(schema[key], f"{at}/{key}"))
        if "multipleOf" in schema:
            step = self._decimal(schema["multipleOf"], f"{at}/multipleOf")
            if step != step.to_integral_value() or not 0 < step <= 10_000:
                self.refuse(f"{at}/multipleOf", f"only whole numbers up to 10,000 are implemented, not {step}")
            else:
                out &= json_text.multiples(int(step))
        return out

    def _decimal(self, value: Any, at: str) -> Decimal:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UnsupportedSchemaError(f"{at}: {value!r} is no number", at)
        return Decimal(str(value))

    def _string(self, schema: Mapping[str, Any], at: str) -> Regular:
        out = everything()
        least, most = self._count(schema, "minLength", at) or 0, self._count(schema, "maxLength", at)
        if least or most is not None:
            out = regex(f"(?s:.){{{least},{'' if most is None else most}}}") if most is None or least <= most else NONE
        if "pattern" in schema:
            out &= self._pattern(schema["pattern"], f"{at}/pattern")
        if "format" in schema:
            if schema["format"] in FORMATS:
                out &= FORMATS[schema["format"]]()
            else:
                self.refuse(f"{at}/format", f"format {schema['format']!r} is none of {', '.join(FORMATS)}")
        return out

    def _pattern(self, pattern: str, at: str) -> Regular:
        try:
            return searched(pattern)
        except RegexError as error:
            self.refuse(at, f"the pattern {pattern!r}: {error}")
            return everything()

    def _count(self, schema: Mapping[str, Any], key: str, at: str) -> int | None:
        value = schema.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or value != int(value) or value < 0:
            raise UnsupportedSchemaError(f"{at}/{key}: {value!r} is no count", f"{at}/{key}")
        return int(value)

    def _array(self, schema: Mapping[str, Any], at: str) -> Array:
        first = tuple(self.read(one, f"{at}/prefixItems/{i}") for i, one in enumerate(schema.get("prefixItems", ())))
        rest = self.read(schema["items"], f"{at}/items") if "items" in schema else None
        some = (self.read(schema["contains"], f"{at}/contains"),) if "contains" in schema else ()
        for key in ("minContains", "maxContains"):
            if some and schema.get(key, 1 if key == "minContains" else None) != (1 if key == "minContains" else None):
                self.refuse(f"{at}/{key}", f"{key!r} is not implemented")
                some = ()
        if schema.get("uniqueItems"):
            self.refuse(f"{at}/uniqueItems", "'uniqueItems' is not implemented")
        return Array(first, rest, self._count(schema, "minItems", at) or 0, self._count(schema, "maxItems", at), some)

    def _objects(self, schema: Mapping[str, Any], at: str) -> tuple[Object, ...]:
        named = {key: self.read(one, f"{at}/properties/{_escaped(key)}")
                 for key, one in schema.get("properties", {}).items()}  # fmt: skip
        patterns = tuple((pattern, self.read(one, f"{at}/patternProperties/{_escaped(pattern)}"))
                         for pattern, one in schema.get("patternProperties", {}).items()
                         if self._pattern(pattern, f"{at}/patternProperties/{_escaped(pattern)}"))  # fmt: skip
        others = schema.get("additionalProperties")
        others = None if others is None else self.read(others, f"{at}/additionalProperties")
        names = schema.get("propertyNames")
        names = None if names is None else self.read(names, f"{at}/propertyNames").string
        least, most = self._count(schema, "minProperties", at) or 0, self._count(schema, "maxProperties", at)
        if (least > 1 or most is not None) and (
            patterns or others not in (None, Values()) or not named or (others is None and not self.closed)
        ):  # fmt: skip
            self.refuse(f"{at}/{'maxProperties' if least <= 1 else 'minProperties'}", "counting properties that are "
                        "not named is not implemented (a name could come twice)")  # fmt: skip
            least, most = min(least, 1), None
        plain = Object({}, tuple(dict.fromkeys(schema.get("required", ()))), others, patterns, names, least, most)
        beside = replace(plain, others=None)
        out = (replace(plain, named={key: both(values, beside.value(key)) for key, values in named.items()}),)
        for key, needs in schema.get("dependentRequired", {}).items():
            either = Object({key: Values()}), Object({}, tuple(dict.fromkeys([*needs, key])))
            out = tuple(a & b for a in out for b in either)
        return out

    def _enum(self, values: Sequence[Any], at: str, schema: Any) -> Values:
        return reduce(Values.__or__, map(constant, values), Values())

    def _const(self, value: Any, at: str, schema: Any) -> Values:
        return constant(value)

    def _allOf(self, schemas: Sequence[Any], at: str, schema: Any) -> Values:  # noqa: N802
        out = anything()
        for i, one in enumerate(schemas):
            out = self._met(out, self.read(one, f"{at}/{i}"), at)
        return out

    def _anyOf(self, schemas: Sequence[Any], at: str, schema: Any) -> Values:  # noqa: N802
        return reduce(Values.__or__, [self.read(one, f"{at}/{i}") for i, one in enumerate(schemas)], Values())

    def _oneOf(self, schemas: Sequence[Any], at: str, schema: Any) -> Values:  # noqa: N802
        branches, out = [self.read(one, f"{at}/{i}") for i, one in enumerate(schemas)], Values()
        for i, one in enumerate(branches):
            for j, other in enumerate(branches):
                if i == j:
                    continue
                apart = _apart(one, other) and self._called_apart(one, other)
                left = _scalars(one).without(_scalars(other))
                assert left is not None
                one = replace(left, array=one.array, object=one.object, calls=one.calls)
                if not apart:
                    self.refuse(at, f"branches {i} and {j} can both hold of one array or object, as far as one can "
                                    "see: say anyOf, or give each a property with a const of its own")  # fmt: skip
            out |= one
        return out

    def _not(self, schema: Any, at: str, _: Any) -> Values:
        left = anything().without(self.read(schema, at))
        return self.refuse(at, "'not' of some arrays or objects is not implemented") if left is None else left

    def _if(self, schema: Any, at: str, whole: Mapping[str, Any]) -> Values:
        above = at.rpartition("/")[0]
        condition = self.read(schema, at)
        otherwise = anything().without(condition)
        if otherwise is None:
            return self.refuse(at, "'if' about arrays or objects is not implemented")
        then, els = (self.read(whole.get(key, True), f"{above}/{key}") for key in ("then", "else"))
        return self._met(condition, then, at) | self._met(otherwise, els, at)

    def _ref(self, ref: str, at: str, schema: Any) -> Values:
        if not ref.startswith("#") or "$" in ref.replace("$defs", ""):
            return self.refuse(at, f"only references within the schema are implemented, not {ref!r}")
        if any(isinstance(one.get("$id"), str) for one in _parts(self.root) if one is not self.root):
            return self.refuse(at, f"what {ref!r} refers to where a part of the schema has an $id is not implemented")
        if self._target(ref) is None:
            raise UnsupportedSchemaError(f"{at}: {ref!r} leads nowhere", at)
        return Values(calls=frozenset([ref])) if self._is_recursive(ref) else self.definition(ref)

    def definition(self, ref: str) -> Values:
        """What a reference within the schema means; "" is any value."""
        if not ref:
            return anything()
        self.open.append(ref)
        out = self.read(self._target(ref), ref.removeprefix("#"))
        self.open.pop()
        return out

    def _target(self, ref: str) -> Any:
        target, (anchor, *path) = self.root, ref.removeprefix("#").split("/")
        if anchor:
            named = [one for one in _parts(self.root) if anchor in (one.get("$anchor"), one.get("$dynamicAnchor"))]
            target = named[0] if len(named) == 1 else None
        for part in path:
            part = part.replace("~1", "/").replace("~0", "~")
            if isinstance(target, list):
                target = target[int(part)] if part.isdigit() and int(part) < len(target) else None
            else:
                target = target.get(part) if isinstance(target, dict) else None
        return target

    def _is_recursive(self, ref: str) -> bool:
        """Whether a definition holds itself."""
        if ref not in self._recursive:
            seen, todo = set[str](), _references(self._target(ref))
            while todo:
                if (one := todo.pop()) not in seen:
                    seen.add(one)
                    todo += _references(self._target(one))
            self._recursive[ref] = ref in seen
        return self._recursive[ref]

    def _called_apart(self, a: Values, b: Values) -> bool:
        """Whether no value is in both for what they call, as far as their types say."""
        return all(
            self._kinds(replace(Values(), calls=one.calls)).isdisjoint(self._kinds(other))
            for one, other in ((a, b), (b, a))
        )

    def _kinds(self, values: Values) -> set[str]:
        """Types that values may have."""
        there = {"array": values.array, "object": values.object, "number": not values.number.empty,
                 "string": not values.string.empty, "null": values.words - {"true", "false"},
                 "boolean": values.words - {"null"}}  # fmt: skip
        out = {kind for kind, some in there.items() if some}
        for ref in values.calls:
            target = self._target(ref)
            given = target.get("type", list(TYPES)) if isinstance(target, dict) else list(TYPES)
            out |= {"number" if kind == "integer" else kind for kind in ([given] if isinstance(given, str) else given)}
        return out


def _scalars(values: Values) -> Values:
    return replace(values, array=(), object=(), calls=frozenset())


def _references(schema: Any) -> list[str]:
    """All that a schema refers to within the document."""
    parts = _parts(schema, ("$defs", "definitions"))
    return [ref for one in parts if isinstance(ref := one.get("$ref"), str) and ref.startswith("#")]


def _parts(schema: Any, without: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    """All objects in a schema, values that are compared with left out."""
    todo = [schema]
    while todo:
        one = todo.pop()
        if isinstance(one, dict):
            yield one
            todo += [part for key, part in one.items() if key not in ("const", "enum", *without)]
        elif isinstance(one, list):
            todo += one


_BOUNDS: dict[str, Callable[[Decimal], Regular]] = {
    "minimum": json_text.at_least,
    "maximum": json_text.at_most,
    "exclusiveMinimum": lambda bound: json_text.at_least(bound, True),
    "exclusiveMaximum": lambda bound: json_text.at_most(bound, True),
}
_KEYWORDS = {"enum", "const", "allOf", "anyOf", "oneOf", "not", "if", "$ref"}
_WITH_TYPES = {
    "type", *_BOUNDS, "multipleOf", "minLength", "maxLength", "pattern", "format", "prefixItems", "items", "contains",
    "minContains", "maxContains", "uniqueItems", "minItems", "maxItems", "properties", "patternProperties", "required",
    "additionalProperties", "propertyNames", "minProperties", "maxProperties", "dependentRequired", "then", "else",
}  # fmt: skip


def _escaped(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")


def _apart(a: Values, b: Values) -> bool:
    """Whether no array or object is in both, as far as one can see."""
    if a.array and b.array:
        return False
    return all(any(_distinct(x.named[key], y.named[key]) for key in _certain(x) & _certain(y))
               for x, y in product(a.object, b.object))  # fmt: skip


def _certain(one: Object) -> frozenset[str]:
    """Properties that are there and of which something is said."""
    return frozenset(one.required) & one.named.keys()


def _distinct(a: Values, b: Values) -> bool:
    if not (a.scalar and b.scalar):
        return False
    both = a & b
    return not both.words and both.number.empty and both.string.empty


class _Writer:
    """From values to texts."""

    def __init__(self, depth: int | None, max_states: int, closed: bool) -> None:
        self.depth = depth
        self.closed = closed
        self.max_states = max_states
        self._known: dict[tuple[int, int], tuple[Values, Regular]] = {}
        self.called: list[str] = []

    def bodies(self, definition: Callable[[str], Values]) -> list[DFA]:
        """What has been called, and what that calls in turn: automata in the order of their numbers, from 1 on."""
        out: list[DFA] = []
        for ref in self.called:  # which grows meanwhile
            out.append(self._text(definition(ref), 0).dfa)
        return out

    def _call(self, ref: str) -> bytes:
        if ref not in self.called:
            self.called.append(ref)
        if len(self.called) >= CALL:
            raise TooLargeError(f"more than {CALL - 1} definitions that hold themselves")
        return call(1 + self.called.index(ref))

    def text(self, values: Values, level: int = 0) -> Regular:
        """The texts of some values, `level` levels within what may be anything."""
        if self.depth is None and values is anything():
            values = Values(calls=frozenset([""]))
        key = id(values), level
        if key not in self._known:
            self._known[key] = values, self._text(values, level)
        return self._known[key][1]

    def _text(self, values: Values, level: int) -> Regular:
        nfa = NFA(self.max_states)
        parts = [nfa.literal(word.encode()) for word in sorted(values.words)]
        whole = (values.number - json_text.integers()).empty
        number = values.number & (WHOLE | choice(sorted(values.spelled)) if values.spelled else WHOLE)
        parts.append(nfa.embedded((number if whole else values.number).dfa))
        parts.append(nfa.embedded(json_text.string(values.string).dfa))
        parts += [nfa.literal(self._call(ref)) for ref in sorted(values.calls)]
        below = level + 1 if values is anything() else 0
        if self.depth is None or below <= self.depth:
            parts += [self.array(nfa, one, below) for one in values.array]
            parts += [self.object(nfa, one, below) for one in values.object]
        return Regular(nfa.determined(nfa.either(parts)), "JSON", self.max_states)

    def array(self, nfa: NFA, array: Array, level: int) -> Part:
        """Item behind item; which of the `some` have been there is part of the state, in both ways to see it."""
        some = array.some
        if len(some) > 3:
            raise UnsupportedSchemaError("more than three `contains` at once are not implemented", "/")
        whole = nfa.nothing()
        begin, end = nfa.literal(b"["), nfa.literal(b"]")
        nfa.link(whole.first, begin.first)
        nfa.link(end.last, whole.last)
        most = array.most
        steps = max(len(array.first), array.least, 0 if most is None else most) + (1 if most is None else 0)
        met = 1 << len(some)
        # places[i][seen]: i items are written; the last place loops where any number may follow.
        places = [[nfa.state() for _ in range(met)] for _ in range(steps + 1)]
        nfa.link(begin.last, places[0][0])
        texts: dict[tuple[int, int], Regular] = {}

        def item(i: int, mask: int) -> Regular:
            """Items that are among the `some` of the mask."""
            i = min(i, len(array.first))
            if (i, mask) not in texts:
                values = both(array.item(i), None)
                for bit, one in enumerate(some):
                    if mask >> bit & 1:
                        values &= one
                texts[i, mask] = self.text(anything() if array.item(i) is None and not mask else values, level)
            return texts[i, mask]

        for i in range(steps + 1):
            for seen in range(met):
                if i >= array.least and seen == met - 1:
                    nfa.link(places[i][seen], end.first)
                if i == steps and most is not None:
                    continue
                to = min(i + 1, steps)
                for new in range(met):
                    if new & seen:
                        continue
                    one = nfa.embedded(item(i, new).dfa)
                    before = nfa.literal(b", ") if i else nfa.empty()
                    nfa.link(places[i][seen], before.first)
                    nfa.link(before.last, one.first)
                    nfa.link(one.last, places[to][seen | new])
        return whole

    def object(self, nfa: NFA, obj: Object, level: int) -> Part:
        """Property behind property, those that are named in their order; how many there are is part of the state."""
        whole = nfa.nothing()
        begin, end = nfa.literal(b"{"), nfa.literal(b"}")
        nfa.link(whole.first, begin.first)
        nfa.link(end.last, whole.last)
        keys = list(dict.fromkeys([*obj.named, *obj.required]))
        extras = self._extras(obj, keys)
        top = max(1, obj.least, 0 if obj.most is None else obj.most + 1)  # this many, or more
        places = [[nfa.state() for _ in range(top + 1)] for _ in range(len(keys) + 1)]
        nfa.link(begin.last, places[0][0])

        def written(count: int, name: Regular, values: Values | None, first: int, last: int) -> None:
            text = self.text(anything() if values is None else values, level)
            if text.empty or name.empty:
                return
            comma = nfa.literal(b", ") if count else nfa.empty()
            part = nfa.joined([comma, nfa.embedded(name.dfa), nfa.literal(b": "), nfa.embedded(text.dfa)])
            nfa.link(first, part.first)
            nfa.link(part.last, last)

        for i, key in enumerate(keys):
            allowed, name, values = obj.names is None or key in obj.names, json_text.scalar(key), obj.value(key)
            for count in range(top + 1):
                if allowed:
                    written(count, name, values, places[i][count], places[i + 1][min(count + 1, top)])
                if key not in obj.required:
                    nfa.link(places[i][count], places[i + 1][count])
        for count in range(top + 1):
            for names, values in extras:
                written(count, names, values, places[-1][count], places[-1][min(count + 1, top)])
            if obj.least <= count and (obj.most is None or count <= obj.most):
                nfa.link(places[-1][count], end.first)
        return whole

    def _extras(self, obj: Object, keys: Sequence[str]) -> list[tuple[Regular, Values | None]]:
        """Names and values of properties that are not named: they may come behind the others."""
        silent = obj.others is None and self.closed
        if silent and not obj.patterns and obj.named:
            return []
        if len(obj.patterns) > 4:
            raise UnsupportedSchemaError("more than four patternProperties are not implemented", "/")
        rest = everything() - choice(list(keys)) if keys else everything()
        if obj.names is not None:
            rest &= obj.names
        out: list[tuple[Regular, Values | None]] = []
        for chosen in product([True, False], repeat=len(obj.patterns)):
            names, values = rest, list[Values]()
            for (pattern, value), inside in zip(obj.patterns, chosen, strict=True):
                names = names & searched(pattern) if inside else names - searched(pattern)
                values += [value] if inside else []
            if values:
                out.append((json_text.string(names), reduce(Values.__and__, values)))
            elif not silent or not obj.patterns:
                out.append((json_text.string(names), obj.others))
        if (obj.least > 1 or obj.most is not None) and out:
            raise UnsupportedSchemaError("counting properties that are not named is not implemented", "/")
        return out
