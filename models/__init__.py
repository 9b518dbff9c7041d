"""Language models and rewards: `load` a checkpoint, `load_reward` a judge, `sloppy` for the default model."""

from ppl.models.drafted import Drafted, Speculative
from ppl.models.language_model import LanguageModel, StepReward, load
from ppl.models.rewards import RewardModel, load_reward
from ppl.models.table_lm import TableLM
from ppl.models.text import Text, Tokenizer

__all__ = [
    "Drafted", "LanguageModel", "RewardModel", "Speculative", "StepReward", "TableLM", "Text", "Tokenizer", "load",
    "load_reward",
]  # fmt: skip
