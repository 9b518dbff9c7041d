"""The codec: everything comes back equal and of the same types, the JSON is strict, and files run no code."""

from __future__ import annotations

import gc
import json
import math
import subprocess
import sys
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, Flag, IntEnum
from functools import cached_property, partial
from typing import Any, Generic, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ppl.codec import decode, encode, register, sketch
from ppl.models.text import Text, Tokenizer

T = TypeVar("T")
log: list[str] = []


@dataclass(frozen=True)
class Point(Generic[T]):
    x: T
    y: Any = 0

    def __post_init__(self) -> None:
        log.append("post_init")

    @cached_property
    def norm(self) -> float:
        return 1.0


@dataclass(frozen=True, slots=True)
class Slotted:
    x: Any
    n: int = field(init=False, default=3)


class Pair(NamedTuple):
    left: Any
    right: Any = None


class Color(Enum):
    RED = "r"
    ROUGE = "r"  # noqa: PIE796
    BLUE = Point(1, 2)


class Level(IntEnum):
    LOW = 1


class Access(Flag):
    READ = 1
    WRITE = 2


class Outer:
    @dataclass(frozen=True)
    class Inner:
        x: Any


class Registered:
    def __init__(self, x: Any) -> None:
        self.x = x

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Registered) and self.x == other.x

    def __hash__(self) -> int:
        return hash(self.x)


register(Registered, "registered", lambda value: (value.x,), lambda body: Registered(*body))


def through_json(value: Any) -> Any:
    """What a file would give back."""
    return decode(json.loads(json.dumps(encode(value), allow_nan=False).encode()))


def same(a: Any, b: Any) -> bool:
    """Equal, with equal types all the way down; nan equals nan, 0.0 does not equal -0.0, order of dicts counts."""
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray | np.generic):
        nans = a.dtype.kind in "fcmM" and a.dtype.type.__module__ != "ml_dtypes"
        return a.dtype == b.dtype and a.dtype.str == b.dtype.str and np.array_equal(a, b, equal_nan=nans)
    if isinstance(a, complex):
        return same(a.real, b.real) and same(a.imag, b.imag)
    if isinstance(a, float):
        return a.hex() == b.hex()
    if isinstance(a, set | frozenset):
        return len(a) == len(b) and all(any(same(x, y) for y in b) for x in a)
    if isinstance(a, dict):
        return len(a) == len(b) and all(map(same, a, b)) and all(map(same, a.values(), b.values()))
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, Point | Slotted | Outer.Inner | Registered):
        names = ("x", "y", "n")
        return all(same(getattr(a, name, None), getattr(b, name, None)) for name in names)
    return a == b


ANY_CHARACTER = st.characters(codec=None, categories=None)  # lone surrogates too
TEXT = st.text(ANY_CHARACTER) | st.text("\ud83d\ude00a$\\", max_size=4)
ATOMS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.complex_numbers()
    | TEXT
    | st.binary()
    | st.sampled_from([Color.RED, Color.BLUE, Level.LOW, Access.READ, Access.READ | Access.WRITE, Access(0)])
    | st.sampled_from(["bool", "i1", "u8", "f2", "f4", "f8", "c8", "c16", "M8[ns]", "m8[s]", "U3", "S2"]).flatmap(
        lambda dtype: (
            hnp.from_dtype(np.dtype(dtype)).map(np.dtype(dtype).type)
            if dtype[0] not in "Mm"
            else hnp.arrays(dtype, ()).map(lambda a: a[()])
        )
    )
)
ARRAYS = hnp.arrays(
    st.sampled_from(["bool", "<i4", ">i4", "<f4", ">f8", "c16", "<M8[D]", "<U2", ">U2", "S3"]),
    hnp.array_shapes(min_dims=0, min_side=0, max_dims=3, max_side=3),
)
HASHABLE = st.deferred(
    lambda: (
        ATOMS
        | st.tuples(HASHABLE, HASHABLE)
        | st.frozensets(HASHABLE, max_size=3)
        | st.builds(Pair, HASHABLE, HASHABLE)
    )
)


def containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    keys = st.sampled_from(["$tuple", "$dict", "$", "x", "", "\ud800"]) | TEXT
    return (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.sets(HASHABLE, max_size=3)
        | st.frozensets(HASHABLE, max_size=3)
        | st.dictionaries(keys, inner, max_size=3)
        | st.dictionaries(HASHABLE, inner, max_size=3)
        | st.builds(Point, inner, inner)
        | st.builds(Slotted, inner)
        | st.builds(Outer.Inner, inner)
        | st.builds(Pair, inner, inner)
        | st.builds(Registered, inner)
    )


VALUES = st.deferred(lambda: ATOMS | ARRAYS | containers(VALUES))


@given(VALUES)
def test_values_come_back_equal_and_of_the_same_types(value: Any) -> None:
    assert same(through_json(value), value)


@given(VALUES)
def test_writing_is_deterministic_and_reading_writes_the_same(value: Any) -> None:
    assert encode(through_json(value)) == encode(value)
    assert sketch(value) == sketch(through_json(value))
    assert len(sketch(value)) <= 200


def test_what_json_can_say_stays_plain() -> None:
    plain = [1, 2.5, -0.0, "a", None, True, {"x": [], "$y": {}, "z": "é"}, 10**300]
    assert encode(plain) == plain
    assert encode((1, (2,))) == {"$tuple": [1, {"$tuple": [2]}]}
    assert encode({2, 1, 10}) == {"$set": [1, 10, 2]}
    assert encode(Pair(1)) == {"$object": [f"{__name__}:Pair", {"left": 1, "right": None}]}
    assert encode(np.float32(0.5)) == {"$scalar": ["<f4", 0.5]}
    assert encode(np.array([1, 2], ">i2")) == {"$array": [">i2", [2], "AQACAA=="]}


@pytest.mark.parametrize(
    "value",
    [
        10**5000, -(2**1024), math.inf, -math.inf, math.nan, complex(math.nan, -0.0), "\ud83d\ude00", "😀\udc00",
        {"$tuple": [1]}, {"$dict": {"$dict": 1}}, {"$": 1}, {"\ud800": 1}, {1: 2, True + 1: 3}, {(1, "a"): {}},
        {math.nan: 1}, {None: 1, "None": 2}, {np.str_("a"): 1}, {Color.RED: 1}, Color.ROUGE, frozenset([frozenset()]),
        np.zeros((0, 3)), np.array(7), np.zeros((2, 0, 2), "U5"), np.float64(1.5), np.str_("a"), np.bytes_(b"\0a"),
        np.longdouble(1) / 3, np.datetime64("NaT"), np.timedelta64(3, "ns"), np.array([1.5, -2], ml_dtypes.bfloat16),
        ml_dtypes.bfloat16(1.5), np.array([1, -2], "int4"), np.asfortranarray(np.arange(6).reshape(2, 3)),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_edges(value: Any) -> None:
    assert same(through_json(value), value)
    assert same(through_json([value, {"x": value}]), [value, {"x": value}])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32", "bool", "complex64"])
def test_jax_arrays_come_back_as_numpy(dtype: str) -> None:
    array = jnp.arange(4).astype(dtype).reshape(2, 2)
    assert same(through_json(array), np.asarray(array))
    assert through_json(array).flags.writeable


def test_objects_are_filled_without_running_their_code() -> None:
    point = Point(1, 2)
    assert point.norm == 1.0  # a cached property is no state
    data = encode(point)
    log.clear()
    assert decode(data) == point
    assert not log


@dataclass
class Hidden:
    x: int


@dataclass
class DictLike(dict[str, int]):
    x: int


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (DictLike(1), r"^value is a .*DictLike, which has no JSON form"),
        ([0, 1, Point(object())], r"^value\[2\]\.x is a builtins:object, .*register\(object, \.\.\.\).*\.map\("),
        ({"a": (1, {2: len})}, r"^value\['a'\]\[1\]\[2\] is a builtins:builtin_function"),
        ({(1, len): 2}, r"^value\.keys\(\)\[0\]\[1\] is a builtins"),
        ({len}, r"^value\{\.\.\.\} is a builtins"),
        (Registered(len), r"^value\[0\] is a builtins"),
        (Counter("a"), r"^value is a collections:Counter"),
        (OrderedDict(a=1), r"^value is a collections:OrderedDict"),
        ([range(3)], r"^value\[0\] is a builtins:range"),
        ([np.array([None])], r"^value\[0\] \(a numpy:ndarray\) has dtype object.*tolist"),
        (np.zeros(1, "i4,f4"), r"^value \(a numpy:ndarray\) has dtype"),
        ([np.ma.array([1])], r"^value\[0\] is a numpy.ma.*MaskedArray"),
        ([jax.random.key(0)], r"^value\[0\] \(a .*key_data"),
        (int, r"^value is a builtins:type"),
        (Point, r"^value is a builtins:type"),
    ],
    ids=lambda x: x if isinstance(x, str) else type(x).__name__,
)
def test_what_has_no_json_form_is_named_with_its_place(value: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        encode(value)


def test_objects_that_are_more_than_their_fields_are_refused() -> None:
    more = Hidden(1)
    more.cache = 3  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(TypeError, match=r"value \(a .*Hidden\) is more than its fields \(cache\)"):
        encode(more)

    class Local(NamedTuple):
        x: int

    with pytest.raises(TypeError, match=r"value\[1\] \(a .*Local\) has a class that cannot be found .* top level"):
        encode([0, Local(1)])


def test_values_that_contain_themselves_are_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(TypeError, match="contains itself"):
        encode(loop)


def test_jit_tracers_are_refused() -> None:
    @jax.jit
    def traced(x: jax.Array) -> jax.Array:
        with pytest.raises(TypeError, match=r"^value\[0\] "):
            encode([x])
        return x

    traced(jnp.ones(2))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"$nothing": 1}, r"unknown tag '\$nothing'"),
        ({"$object": ["os:system", {"command": "true"}]}, "no class os:system"),
        ({"$object": ["subprocess:Popen", {"args": "true"}]}, "neither a NamedTuple nor a dataclass"),
        ({"$object": ["not.imported:A", {}]}, "import not.imported first"),
        ({"$object": [f"{__name__}:Point.x.__class__", {}]}, "no class"),
        ({"$object": [f"{__name__}:Point", {"x": 1}]}, "has the fields x, y, the file x"),
        ({"$object": [f"{__name__}:Pair", {"left": 1, "right": 2, "z": 3}]}, "has the fields left, right"),
        ({"$enum": ["builtins:int", "real"]}, "no member"),
        ({"$enum": [f"{__name__}:Color", "GREEN"]}, "no member 'GREEN'"),
        ({"$enum": [f"{__name__}:Color", "__class__"]}, "no member"),
        ({"$array": ["O", [1], "AAAAAAAAAAA="]}, "dtype object"),
        ({"$array": ["<f4", [3], "AAAA"]}, "buffer size"),
        ({"$array": ["<f4", [3], "AAAAAAAAAAA="]}, "reshape"),
        ({"$array": ["<f4", [3], "?"]}, "base64"),
        ({"$array": [["f4", "f4"], [1], "AAAA"]}, "array"),
        ({"$scalar": ["<f4", [1]]}, "broken scalar"),
        ({"$scalar": ["<f4", "AAAAAAAAAAA="]}, "reshape"),
        ({"$set": [[1]]}, "broken set.*unhashable"),
        ({"$tuple": 3}, "broken tuple"),
        ({"$dict": [[1]]}, "unpack"),
        ({"$bytes": 3}, "broken bytes"),
        ({"$int": "zz"}, "zz"),
        ({"$float": {}}, "broken float"),
    ],
)  # fmt: skip
def test_what_was_not_written_by_encode_is_a_value_error(data: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decode([0, data])


def test_reading_imports_nothing() -> None:
    code = """if True:
        import sys
        from ppl.codec import decode
        try:
            decode({"$object": ["antigravity:x", {}]})
        except ValueError as error:
            assert "import antigravity first" in str(error), error
        assert "antigravity" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", code], check=True)


def test_register_gives_a_class_one_tag() -> None:
    class Other:
        pass

    register(Registered, "registered", lambda value: (value.x,), lambda body: Registered(*body))  # a reload
    for tag in ("registered", "tuple"):
        with pytest.raises(ValueError, match=f"the tag '{tag}' belongs to"):
            register(Other, tag, lambda _: None, lambda _: Other())


class Sketched:
    def sketch(self) -> str:
        return "mine"


class Callable_:  # noqa: N801
    def __call__(self) -> None: ...


SKETCHES: list[tuple[Any, str]] = [
    ([1, (2, "é")], '[1,{"$tuple":[2,"é"]}]'),
    (Sketched(), "mine"),
    (Sketched, f"{__name__}:Sketched"),
    (len, "builtins:len"),
    (same, f"{__name__}:same"),
    (Outer.Inner, f"{__name__}:Outer.Inner"),
    (Sketched().sketch, f"{__name__}:Sketched.sketch"),
    (Callable_(), f"{__name__}:Callable_"),
    (partial(len), "functools:partial"),
    ([object()], "builtins:list"),
    (object(), "builtins:object"),
    ("a" * 198, '"' + "a" * 198 + '"'),
    # CRC-32 of a quote, 300 a and a quote, by zlib's command line
    ("a" * 300, '"' + "a" * 59 + "...crc32:"),
]


@pytest.mark.parametrize(("value", "text"), SKETCHES, ids=[text[:30] for _, text in SKETCHES])
def test_sketch(value: Any, text: str) -> None:
    assert sketch(value).startswith(text) if text.endswith("crc32:") else sketch(value) == text


def test_long_sketches_still_tell_values_apart() -> None:
    assert sketch("a" * 300) != sketch("a" * 301) != sketch("a" * 299 + "b")
    assert len(sketch("\ud800" * 300)) <= 200


def test_sketch_is_the_same_in_every_process() -> None:
    code = "from ppl.codec import sketch; print(sketch([{'b', 'a', 'c'}, frozenset('xyz'), {('k', 1): 2}]))"
    out = {
        subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, env={"PYTHONHASHSEED": seed}
        ).stdout
        for seed in "12"
    }
    assert len(out) == 1


def test_no_memory_address_in_a_sketch() -> None:
    def inner() -> Callable[[], int]:
        return lambda: 3

    for value in (inner(), inner, object(), [inner], Registered(inner), jax.random.key(0)):
        assert "0x" not in sketch(value)


def chain(text: Text | None) -> list[Any]:
    """What a text and its ancestors hold, the youngest first."""
    return [] if text is None else [(text.data, text.log_prob, text.full), *chain(text.parent)]


def test_texts_come_back_with_their_ancestors_and_tokenizer() -> None:
    tokenizer = Tokenizer.of_characters("abc=")
    prompt = Text.of(tokenizer, "ab=")
    drawn = Text(tokenizer, prompt.data + tokenizer.encode("cc"), prompt, -1.25)
    last = Text(tokenizer, drawn.data, drawn + "a", -math.inf, True)
    data = encode([prompt, drawn])
    assert data[0] == {"$text": {"tokens": [0, 1, 3], "chain": [[3, None, False]], "tokenizer": tokenizer.fingerprint}}
    assert data[1]["$text"]["chain"] == [[3, None, False], [5, -1.25, False]]
    back = through_json({"text": [drawn]})["text"][0]
    assert chain(back) == chain(drawn)
    assert back == drawn and hash(back) == hash(drawn) and str(back) == "ab=cc" and back.last == "cc"
    assert back.tokenizer.fingerprint == tokenizer.fingerprint
    with pytest.raises(TypeError, match=r"^value\[0\] \(a .*:Text\) extends a text"):
        encode([last])  # tampered with: shorter than its parent
    with pytest.raises(TypeError, match="one of another tokenizer"):
        encode(Text(Tokenizer.of_characters("ab"), prompt.data, prompt))
    full = Text(tokenizer, drawn.data, drawn, -math.inf, True)
    assert chain(through_json(full)) == chain(full)
    assert through_json(full).links == full.links  # what a model's cache goes by


def test_fingerprints_tell_tokenizers_apart() -> None:
    plain = Tokenizer.of_characters("abc")
    assert plain.fingerprint == Tokenizer.of_characters("abc").fingerprint
    others = [Tokenizer.of_characters("acb"), Tokenizer(plain.backend, [2]), Tokenizer(plain.backend, [1, 2])]
    assert len({t.fingerprint for t in (plain, *others)}) == 4
    assert Tokenizer(plain.backend, [2, 1]).fingerprint == others[2].fingerprint


def test_a_text_needs_its_model() -> None:
    data = encode(Text.of(Tokenizer.of_characters("xyzw"), "wx"))
    gc.collect()  # nobody holds that tokenizer
    with pytest.raises(ValueError, match="load the model of the text first"):
        decode([data])
    alive = Tokenizer.of_characters("xyzw")
    assert decode(data).tokenizer is alive
