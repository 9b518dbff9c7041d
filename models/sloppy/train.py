"""Train the default model: `python -m ppl.models.sloppy.train --preset default --out DIR`.

One trunk, two heads, one pass: the language-model head learns the student's text (cross-entropy on
the solution), the score head, read at each newline, learns whether *this step is right given the line before it*
(first-error labels; labels of the outcome or of the whole prefix teach the difficulty of the problem instead).
Every batch is freshly written by the student; problems of the held-out set are skipped. Needs the
`train` extra (optax).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ppl.models import checkpoint, sloppy
from ppl.models.sloppy import task
from ppl.models.sloppy.evaluate import evaluate
from ppl.models.text import Tokenizer
from ppl.models.transformer import Config, Params, advance, init_params, logits, score

GATE = 0.9  # a lower within-problem AUC on hard steps means that the head judges problems, not steps


def config_of(preset: task.Preset) -> Config:
    """The shipped size: 0.56 M parameters; the context is one problem of the preset's length."""
    return Config(
        vocab_size=len(task.ALPHABET), hidden_size=128, intermediate_size=352, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=2, head_dim=32, max_position_embeddings=4 + 5 * preset.steps,
        tie_word_embeddings=True,
        rope_theta=100.0,  # every frequency turns within the short context
    )  # fmt: skip


def batch(
    preset: task.Preset, size: int, shorter: float, rng: np.random.Generator, held_out: frozenset[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokens, next-token mask (solution only) and step labels (1 right, 0 wrong, -1 no step ends here).

    A share `shorter` of the problems has fewer operations than the preset's, from 1 on.
    """
    width = 4 + 5 * preset.steps
    tokens = np.full((size, width), task.TOKEN["\n"], np.int32)
    mask, labels = np.zeros((size, width), np.float32), np.full((size, width), -1, np.int32)
    for row in range(size):
        steps = int(rng.integers(1, preset.steps)) if rng.random() < shorter else preset.steps
        problem = task.random_problem(preset, rng, steps)
        while problem in held_out:
            problem = task.random_problem(preset, rng, steps)
        attempt = task.attempt(preset, problem, rng)
        text = task.prompt(problem) + attempt.text
        start = len(text) - 3 * steps
        tokens[row, : len(text)] = [task.TOKEN[c] for c in text]
        mask[row, start : len(text)] = 1
        labels[row, start + 2 : len(text) : 3] = attempt.right
    return tokens, mask, labels


def losses(params: Params, config: Config, tokens: jax.Array, mask: jax.Array, labels: jax.Array) -> Any:
    """Nats per solution token, and binary cross-entropy (nats) per step of the score head."""
    hidden, _ = advance(params, config, tokens)
    log_p = jax.nn.log_softmax(logits(params, hidden[:, :-1]))
    token_loss = -jnp.take_along_axis(log_p, tokens[:, 1:, None], -1)[..., 0]
    z = score(params, hidden)
    step_loss = optax.sigmoid_binary_cross_entropy(z, labels.astype(jnp.float32))
    return (
        jnp.sum(token_loss * mask[:, 1:]) / jnp.sum(mask[:, 1:]),
        jnp.sum(jnp.where(labels >= 0, step_loss, 0)) / jnp.sum(labels >= 0),
    )


def random_params(config: Config, seed: int) -> Params:
    """Random parameters with a score head of zeros."""
    head = {"score.weight": jnp.zeros((1, config.hidden_size)), "score.bias": jnp.zeros((1,))}
    return init_params(config, jax.random.key(seed)) | head


@dataclass(frozen=True)
class Recipe:
    """How to train: steps of `size` solutions, a peak learning rate, the share of shorter problems, the seed."""

    steps: int
    size: int
    rate: float
    shorter: float
    seed: int


def train(params: Params, preset: task.Preset, recipe: Recipe, held_out: frozenset[str]) -> Params:
    """The trained parameters; the same arguments give the same parameters on the same machine."""
    config, steps, rate = config_of(preset), recipe.steps, recipe.rate
    schedule = optax.warmup_cosine_decay_schedule(0.0, rate, min(100, steps // 4), steps, rate * 0.01)
    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, b2=0.98, weight_decay=0.05))

    def objective(params: Params, *data: jax.Array) -> Any:
        token_loss, step_loss = losses(params, config, *data)
        return token_loss + step_loss, (token_loss, step_loss)

    @partial(jax.jit, donate_argnums=(0, 1))
    def update(params: Params, state: Any, *data: jax.Array) -> Any:
        gradient, parts = jax.grad(objective, has_aux=True)(params, *data)
        change, state = optimiser.update(gradient, state, params)
        return optax.apply_updates(params, change), state, parts

    state, rng = optimiser.init(params), np.random.default_rng(recipe.seed)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
               TimeRemainingColumn())  # fmt: skip
    with Progress(*columns) as progress:
        bar = progress.add_task("training", total=steps)
        for step in range(steps):
            params, state, parts = update(params, state, *batch(preset, recipe.size, recipe.shorter, rng, held_out))
            if step % 50 == 49 or step == steps - 1:
                nats, bce = (float(x) for x in parts)
                text = f"{preset.name}: {nats:.4f} nats/token, {bce:.4f} nats/step"
                progress.update(bar, description=text)
                if not progress.console.is_terminal and step % 250 == 249:
                    progress.console.print(f"step {step + 1}: {text}")
            progress.advance(bar)
    return params


def main(
    preset: Annotated[str, typer.Option(help="default or hard")] = "default",
    out: Annotated[Path, typer.Option(help="folder for the checkpoint")] = Path("sloppy"),
    steps: int = 6000,
    size: Annotated[int, typer.Option(help="solutions per batch")] = 64,
    rate: Annotated[float, typer.Option(help="peak learning rate")] = 3e-3,
    shorter: Annotated[float, typer.Option(help="share of problems shorter than the preset's")] = 0.4,
    seed: int = 0,
    start: Annotated[Path | None, typer.Option(help="checkpoint to start from; random parameters without it")] = None,
) -> None:
    """Train a preset, save the checkpoint, print the figures of the model card; exit 1 below the gate."""
    begin = time.perf_counter()
    which, problems = task.PRESETS[preset], sloppy.held_out(preset)
    config = config_of(which)
    params = random_params(config, seed) if start is None else checkpoint.load(start)[0]
    recipe = Recipe(steps, size, rate, shorter, seed)
    params = train(params, which, recipe, frozenset(p.problem for p in problems))
    checkpoint.save(out, params, config, Tokenizer.of_characters(task.ALPHABET))
    typer.echo(f"wrote {out} after {time.perf_counter() - begin:.0f} s; evaluating what was written")
    figures = evaluate(sloppy.load_model(preset, out), which, problems)
    for name, value in figures.items():
        typer.echo(f"{name:40} {value if isinstance(value, list) else format(value, '.4f')}")
    if figures["auc_hard_steps_within_problem"] < GATE:
        typer.echo(f"the score head is below the gate: within-problem AUC on hard steps must be {GATE}", err=True)
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
