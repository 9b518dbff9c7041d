"""Formats of strings, as languages: every text is of the format; some texts of it may be left out."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from ppl.grammar.regular import Regular, regex


@lru_cache(1)
def date() -> Regular:
    """RFC 3339, of the Gregorian calendar from the year 1 on."""
    year = regex("[0-9]{4}") - "0000"
    leap = regex("[0-9]{2}(0[48]|[2468][048]|[13579][26])|([02468][048]|[13579][26])00") & year
    long, short = "(0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])", "(0[469]|11)-(0[1-9]|[12][0-9]|30)"
    days = regex(f"-({long}|{short}|02-(0[1-9]|1[0-9]|2[0-8]))")
    return year + days | leap + "-02-29"


@lru_cache(1)
def time() -> Regular:
    """RFC 3339, without leap seconds; up to microseconds."""
    return regex(r"([01][0-9]|2[0-3])(:[0-5][0-9]){2}(\.[0-9]{1,6})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])")


def date_time() -> Regular:
    """RFC 3339."""
    return date() + "T" + time()


def uuid() -> Regular:
    """RFC 4122, in lower case."""
    return regex("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def ipv4() -> Regular:
    """Four numbers without leading zeros."""
    return regex(r"(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])(\.(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])){3}")


def ipv6() -> Regular:
    """Eight groups, none left out."""
    return regex("[0-9a-f]{1,4}(:[0-9a-f]{1,4}){7}")


def hostname() -> Regular:
    """Labels of letters, digits and hyphens within."""
    label = "[A-Za-z0-9]([A-Za-z0-9-]{0,30}[A-Za-z0-9])?"
    return regex(rf"{label}(\.{label}){{0,3}}")


def email() -> Regular:
    """A plain name at a host."""
    return regex(r"[A-Za-z0-9_+-]+(\.[A-Za-z0-9_+-]+)*@[A-Za-z0-9]+(-[A-Za-z0-9]+)*(\.[A-Za-z0-9]+(-[A-Za-z0-9]+)*)+")


def uri() -> Regular:
    """Of http and https, in ASCII."""
    path = r"[A-Za-z0-9._~!$&'()*+,;=:@-]"
    host = r"[A-Za-z0-9]+(-[A-Za-z0-9]+)*(\.[A-Za-z0-9]+(-[A-Za-z0-9]+)*)*(:[0-9]{1,4})?"
    return regex(rf"https?://{host}(/{path}*)*(\?({path}|/)*)?(#({path}|/)*)?")


FORMATS: dict[str, Callable[[], Regular]] = {
    "date": date, "time": time, "date-time": date_time, "uuid": uuid, "ipv4": ipv4, "ipv6": ipv6, "hostname": hostname,
    "email": email, "uri": uri,
}  # fmt: skip
