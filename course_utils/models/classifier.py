"""A classifier that PyTorch runs: from a folder, or from a model in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from course_utils.errors import ModelError
from course_utils.models import compact_bert  # noqa: F401 - so that pruned models load, too
from course_utils.models.protocol import Classifier, labels_of, need_files

FILES = ("config.json", "model.safetensors", "tokenizer.json")


class TorchClassifier(Classifier):
    """A classifier folder, loaded and put in eval mode, on the CPU unless its model is moved.

    Texts are cut to the tokenizer's `model_max_length`, at most the model's positions. Raises
    `ModelError` when the folder lacks a file, or its weights do not fit its configuration.
    """

    def __init__(
        self, folder: str | Path, *, name: str | None = None, dtype: torch.dtype = torch.float32
    ):
        folder = need_files(folder, FILES)
        self._hold(_load(folder, dtype), _tokenizer(folder), name or folder.name)

    @classmethod
    def of(
        cls, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, name: str
    ) -> TorchClassifier:
        """A classifier around a model in memory, which it puts in eval mode and does not copy."""
        self = cls.__new__(cls)
        self._hold(model, tokenizer, name)
        return self

    def _hold(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str) -> None:
        self.model, self.tokenizer, self.name = model.eval(), tokenizer, name
        self.labels = labels_of(model.config.id2label)
        self.max_length = min(tokenizer.model_max_length, model.config.max_position_embeddings)
        self.pad_token_id = tokenizer.pad_token_id

    @property
    def threads(self) -> int:
        return torch.get_num_threads()

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        cut = {"truncation": True, "max_length": self.max_length}
        return self.tokenizer(list(texts), **cut, return_attention_mask=False)["input_ids"]

    @torch.inference_mode()
    def logits(self, encoded: Mapping[str, np.ndarray]) -> np.ndarray:
        if self.model.training:  # someone went on training; dropout has no place here
            self.model.eval()
        tensors = {k: torch.from_numpy(v).to(self.model.device) for k, v in encoded.items()}
        return self.model(**tensors).logits.float().cpu().numpy()


def as_stored(folder: str | Path, *, name: str | None = None) -> TorchClassifier:
    """A classifier folder in the numbers its weights are stored in: a bfloat16 file stays one."""
    config = AutoConfig.from_pretrained(need_files(folder, FILES))
    return TorchClassifier(folder, name=name, dtype=config.dtype or torch.float32)


def _load(folder: Path, dtype: torch.dtype) -> PreTrainedModel:
    try:
        model, loaded = AutoModelForSequenceClassification.from_pretrained(
            folder,
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            ignore_mismatched_sizes=True,  # reported below, in our words
            output_loading_info=True,
        )
    except (SafetensorError, ValueError, OSError) as error:
        raise _unusable("classifier", folder, error) from error
    if wrong := sorted({*loaded["missing_keys"], *(key for key, *_ in loaded["mismatched_keys"])}):
        raise ModelError(
            f"The weights of this classifier do not fit its configuration: {', '.join(wrong[:4])}"
            f"{f' and {len(wrong) - 4} more' if len(wrong) > 4 else ''}.",
            where=folder,
            do="An encoder without a trained head is no classifier: train it first.",
        )
    return model


def _tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    try:
        return AutoTokenizer.from_pretrained(folder)
    except Exception as error:  # neither transformers nor tokenizers has a class of its own for it
        raise _unusable("tokenizer", folder, error) from error


def _unusable(what: str, folder: Path, error: Exception) -> ModelError:
    return ModelError(
        f"This {what} cannot be loaded: {str(error).splitlines()[0]}",
        where=folder,
        do="Its files may be cut short or belong to another model: make the folder again.",
    )
