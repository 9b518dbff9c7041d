"""Language models and rewards: `load` a checkpoint, `StepReward` to judge steps, `sloppy` for the default model."""

from ppl.models.language_model import LanguageModel, StepReward, load
from ppl.models.table_lm import TableLM
from ppl.models.text import Text, Tokenizer

__all__ = ["LanguageModel", "StepReward", "TableLM", "Text", "Tokenizer", "load"]
