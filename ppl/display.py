"""A posterior at a glance: one line, a table in a notebook, a table in a terminal."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Group

    from ppl.posterior import Posterior

ROWS = 10
WIDTH = 80  # characters of a value


def line(posterior: Posterior[Any]) -> str:
    """What `repr` shows."""
    return f"Posterior({', '.join(summary(posterior))})"


def summary(posterior: Posterior[Any]) -> list[str]:
    """The size, the evidence if there is one, and the effective sample size."""
    population, runs = posterior.population, len(posterior.runs)
    out = [f"{len(population.values)} {'draws' if population.normalised else 'particles'}"]
    if runs > 1:
        out[0] += f" of {runs} runs"
    if posterior.is_empty:
        return [*out, "all of weight zero"]
    if not population.normalised:
        se = posterior.log_evidence_se
        out.append(f"log_evidence={posterior.log_evidence:.4f}" + (f"±{se:.4f}" if se is not None else ""))
    return [*out, f"ess={posterior.ess:.1f}"]


def top(posterior: Posterior[Any]) -> tuple[list[tuple[str, float]], int]:
    """(value as text, probability) of the most probable, and how many more there are; none if all have weight zero."""
    if posterior.is_empty:
        return [], 0
    try:
        table = [(repr(value), p) for value, p in posterior.table().items()]
    except TypeError:  # values that cannot be hashed
        table = list(posterior.map(repr).table().items())
    return [(_short(text), p) for text, p in table[:ROWS]], max(len(table) - ROWS, 0)


def html_table(posterior: Posterior[Any]) -> str:
    """The most probable values with bars; the longest bar is the first."""
    rows, more = top(posterior)
    cell = "text-align:left;padding:2px 8px"
    body = "".join(
        f'<tr><td style="{cell};font-family:monospace;white-space:pre-wrap">{escape(text)}</td>'
        f'<td style="{cell}">{p:.4f}</td><td style="{cell}">'
        f'<div style="background:#4c78a8;height:10px;width:{160 * p / rows[0][1]:.1f}px"></div></td></tr>'
        for text, p in rows
    )
    if more:
        body += f'<tr><td style="{cell}" colspan="3">and {more} more</td></tr>'
    notes = "".join(f'<p style="color:#b45309">{escape(sentence)}</p>' for sentence in posterior.warnings)
    head = f'<tr><th style="{cell}">value</th><th style="{cell}" colspan="2">probability</th></tr>' if rows else ""
    return f"<table><caption>{escape(line(posterior))}</caption>{head}{body}</table>{notes}"


def rich_table(posterior: Posterior[Any]) -> Group:
    """The same for a terminal."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    rows, more = top(posterior)
    table = Table()
    table.add_column("value", overflow="fold")
    table.add_column("probability")
    table.add_column()
    for text, p in rows:
        table.add_row(Text(text), f"{p:.4f}", Text("█" * max(round(20 * p / rows[0][1]), 1), style="blue"))
    last: list[Any] = [f"and {more} more"] if more else []
    last += [Text(sentence, style="yellow") for sentence in posterior.warnings]
    return Group(Text(line(posterior)), *([table] if rows else []), *last)


def _short(text: str) -> str:
    """The ends of a long one: texts of one prompt differ in their last words."""
    return text if len(text) <= WIDTH else f"{text[: WIDTH // 4]} … {text[WIDTH // 4 + 3 - WIDTH :]}"
