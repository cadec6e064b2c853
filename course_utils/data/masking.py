"""Masked language modelling as data: some tokens are hidden, and the model is to say which."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from itertools import islice

import datasets
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset
from transformers import PreTrainedTokenizerBase

from course_utils.data.blocks import as_array, check_ids
from course_utils.data.encoding import PadBatch
from course_utils.errors import DataError, ModelError

SHARE = 0.15
SMOOTHING = 0.7  # a token's chance is divided by its frequency to this power
ROWS_AT_ONCE = 2**16


def mask_tokens(
    input_ids: Tensor,
    *,
    special: Collection[int],
    mask_id: int,
    vocab_size: int,
    share: float = SHARE,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """New `input_ids` with tokens hidden, and `labels`: the hidden tokens, -100 elsewhere.

    Both have the shape of `input_ids`, which stays as it is. Each token is chosen by itself with
    probability `share`; of the chosen, 80 % become `mask_id`, 10 % a random token, 10 % stay, and
    all of them have a label. Tokens in `special` (padding is one of them) and `mask_id` are neither
    chosen nor drawn; all others are drawn equally often, so that at times the token that was there
    comes back. Devlin et al. 2019, section 3.1, who chose an exact share of every text instead.
    Raises `DataError` for a share outside 0 to 1, for ids that are not in the vocabulary, and where
    every token is special.
    """
    _check(input_ids, {mask_id, *special}, vocab_size, share)
    is_ordinary = torch.ones(vocab_size, dtype=torch.bool)
    is_ordinary[[mask_id, *special]] = False
    ordinary = is_ordinary.nonzero()[:, 0]  # (V',)
    if not len(ordinary):
        raise DataError("Every token of the vocabulary is special: there is none to draw.")
    shape = input_ids.shape
    chosen = (torch.rand(shape, generator=generator) < share) & is_ordinary[input_ids]
    fate = torch.rand(shape, generator=generator)  # below 0.8 [MASK], below 0.9 random
    drawn = ordinary[torch.randint(len(ordinary), shape, generator=generator)]
    labels = torch.where(chosen, input_ids, -100)
    masked = torch.where(chosen & (fate < 0.9), drawn, input_ids)
    return torch.where(chosen & (fate < 0.8), mask_id, masked), labels


class MaskBatch:
    """A collator: texts are padded as by `PadBatch` and masked anew each time they are read.

    Special are all of the tokenizer's special tokens. Equal seeds give equal masks for equal
    batches in an equal order.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, share: float = SHARE, seed: int = 0):
        _need_mask(tokenizer)
        self.pad = PadBatch(tokenizer.pad_token_id)
        self.generator = torch.Generator().manual_seed(seed)
        self.settings = {
            "special": tokenizer.all_special_ids,
            "mask_id": tokenizer.mask_token_id,
            "vocab_size": len(tokenizer),
            "share": share,
        }

    def __call__(self, items: list[dict]) -> dict[str, Tensor]:
        batch = self.pad(items)
        batch["input_ids"], batch["labels"] = mask_tokens(
            batch["input_ids"], **self.settings, generator=self.generator
        )
        return batch


class Masking:
    """How tokens are hidden: a function of ids (B, S) and one random key for each row.

    Chance and fate of a token are those of `mask_tokens`. With `whole_words` a piece that begins
    with ## goes with the pieces before it. `frequencies` (V,), how often each token stands in the
    corpus (`token_frequencies`), makes rare tokens likelier: a token's chance is proportional to
    frequency^-0.7, at most 1, and `share` is the mean over the corpus. So did the DistilBERT
    authors' code, with an exact share of every batch. Raises `DataError` for whole words together
    with frequencies, which say nothing about words, and for a share outside 0 to 1; `ModelError`
    for a tokenizer without [MASK].
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        share: float = SHARE,
        whole_words: bool = False,
        frequencies: Sequence[int] | np.ndarray | None = None,
    ):
        _need_mask(tokenizer)
        if whole_words and frequencies is not None:
            raise DataError(
                "Whole words cannot be chosen by the frequency of tokens.",
                do="Take one of the two.",
            )
        self.mask_id = tokenizer.mask_token_id
        _check(torch.zeros(0, dtype=torch.int64), {self.mask_id}, len(tokenizer), share)
        is_ordinary = np.ones(len(tokenizer), bool)
        is_ordinary[[self.mask_id, *tokenizer.all_special_ids]] = False
        self.ordinary = is_ordinary.nonzero()[0]  # (V',)
        self.chances = is_ordinary * share  # (V,)
        if frequencies is not None:
            self.chances = _smoothed(is_ordinary, share, frequencies)
        self.begins = _begins_word(tokenizer) if whole_words else None  # (V,)

    def __call__(self, ids: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Masked ids and labels, (B, S) int64; equal ids and keys (B,) uint64 give equal results.

        Raises `DataError` for an id that is not in the vocabulary.
        """
        check_ids(ids, len(self.chances))
        ids = ids.astype(np.int64)
        length = ids.shape[1]
        place = np.arange(length)
        chance, draw = self.chances[ids], _uniform(keys[:, None], place)  # (B, S)
        if self.begins is not None:
            first = self._first_pieces(ids)
            chance, draw = (np.take_along_axis(each, first, 1) for each in (chance, draw))
        row, column = chosen = (draw < chance).nonzero()  # (N,) each
        fate = _uniform(keys[row], column + length)  # below 0.8 [MASK], below 0.9 random
        drawn = _uniform(keys[row], column + 2 * length) * len(self.ordinary)
        drawn = self.ordinary[drawn.astype(np.int64)]
        labels, masked = np.full_like(ids, -100), ids.copy()
        labels[chosen] = ids[chosen]
        masked[chosen] = np.select([fate < 0.8, fate < 0.9], [self.mask_id, drawn], ids[chosen])
        return masked, labels

    def _first_pieces(self, ids: np.ndarray) -> np.ndarray:
        """For each position that of its word's first piece in this block, (B, S)."""
        begins = self.begins[ids]
        # A block may begin inside a word: a special token goes with no other.
        begins[:, 1:] |= self.chances[ids[:, :-1]] == 0
        begins[:, :1] = True
        return np.maximum.accumulate(np.where(begins, np.arange(ids.shape[1]), 0), axis=1)


class MaskedBlocks(Dataset):
    """Blocks masked anew in every epoch; how depends on seed, epoch and the block's number alone.

    A row of `blocks` has `input_ids` (S,), as `to_blocks` makes them; an item has `input_ids` and
    `labels`, both (S,) int64. So an item is the same in any order, batch, worker and process, and
    after a resume. Call `set_epoch` before each epoch. `options` are those of `Masking`. Raises
    `DataError` for blocks that are none, or of different lengths, and ids outside the vocabulary.
    """

    def __init__(
        self,
        blocks: datasets.Dataset,
        tokenizer: PreTrainedTokenizerBase,
        *,
        seed: int = 0,
        **options,
    ):
        self.masking, self.seed = Masking(tokenizer, **options), seed
        if "input_ids" not in blocks.column_names:
            raise DataError(
                "These are no blocks: there is no column `input_ids`.",
                do="Make them with to_blocks.",
            )
        self.rows = blocks.select_columns("input_ids").with_format("arrow")
        self.length = self._check_rows()
        # In shared memory, so that workers which outlive an epoch see the next one.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """From now on items are masked as in this epoch.

        accelerate's loader calls it, but not where it shares batches between processes or skips
        some after a resume: its `set_epoch` then stops at the sampler, so a trainer calls both.
        """
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        return self.__getitems__([range(len(self))[number]])[0]

    def __getitems__(self, numbers: list[int]) -> list[dict[str, Tensor]]:
        """The items of a batch at once, many times faster than one by one."""
        keys = _keys(self.seed, int(self._epoch), np.array(numbers))
        return _items(*self.masking(as_array(self.rows[numbers]), keys))

    def need_room(self, positions: int) -> None:
        """Nothing; raises `DataError` when the blocks are longer than a model's positions."""
        if self.length > positions:
            raise DataError(
                f"The blocks have {self.length} tokens; the model reads {positions}.",
                do=f"Make them again: to_blocks(…, length={positions}).",
            )

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that change with any id, the blocks' order and any mask."""
        masking = self.masking
        rules = repr((self.seed, masking.mask_id, masking.begins is not None, self.length))
        digest = hashlib.sha256(rules.encode() + masking.chances.tobytes())
        for rows in self.rows.iter(batch_size=ROWS_AT_ONCE):
            digest.update(as_array(rows).tobytes())
        return digest.hexdigest()[:16]

    def _check_rows(self) -> int:
        """The length that all blocks have."""
        lengths: set[int] = set()
        for rows in self.rows.iter(batch_size=ROWS_AT_ONCE):
            column = rows["input_ids"].combine_chunks()
            lengths.update(column.value_lengths().unique().to_pylist())
            check_ids(column.flatten().to_numpy(), len(self.masking.chances))
        if len(lengths) != 1:
            raise DataError(
                f"Blocks have one length; these have {sorted(lengths) or 'none, there are none'}.",
                do="Make them with to_blocks.",
            )
        return lengths.pop()


class MaskedStream(IterableDataset):
    """A stream of blocks masked anew in every epoch; how depends on seed, epoch and block alone.

    A stream has no numbers that hold for any number of workers, so the block's own ids take their
    place. Items and `options` are those of `MaskedBlocks`.
    """

    def __init__(
        self,
        blocks: datasets.IterableDataset,
        tokenizer: PreTrainedTokenizerBase,
        *,
        seed: int = 0,
        **options,
    ):
        self.masking, self.seed, self.blocks = Masking(tokenizer, **options), seed, blocks
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """From now on items are masked, and the stream is shuffled if it is, as in this epoch."""
        self._epoch.fill_(epoch)
        self.blocks.set_epoch(epoch)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        rows = iter(self.blocks)
        while some := list(islice(rows, 64)):
            ids = np.array([row["input_ids"] for row in some], np.int32)
            hashes = [hashlib.sha256(row.tobytes()).digest()[:8] for row in ids]
            keys = _keys(self.seed, int(self._epoch), np.frombuffer(b"".join(hashes), np.uint64))
            yield from _items(*self.masking(ids, keys))


def _items(masked: np.ndarray, labels: np.ndarray) -> list[dict[str, Tensor]]:
    rows = zip(torch.from_numpy(masked), torch.from_numpy(labels), strict=True)
    return [{"input_ids": ids, "labels": labels} for ids, labels in rows]


def _keys(seed: int, epoch: int, numbers: np.ndarray) -> np.ndarray:
    """One random key for each number, (B,) uint64."""
    keys = np.zeros(len(numbers), np.uint64)
    for part in (np.uint64(seed % 2**64), np.uint64(epoch), numbers.astype(np.uint64)):
        keys = _random_bits(keys ^ part, np.uint64(0))
    return keys


def _uniform(keys: np.ndarray, counters: np.ndarray) -> np.ndarray:
    """Random numbers from 0 up to 1, one for each pair of key and counter."""
    return (_random_bits(keys, counters.astype(np.uint64)) >> np.uint64(11)) * 2.0**-53


def _random_bits(keys: np.ndarray, counters: np.ndarray) -> np.ndarray:
    """64 random bits for each pair of key and counter, with no state: all are computed at once.

    The generator SplitMix64: Steele, Lea and Flood 2014, "Fast splittable pseudorandom number
    generators", with the constants of its later versions.
    """
    bits = keys + (counters + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)  # modulo 2^64
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


def _smoothed(is_ordinary: np.ndarray, share: float, frequencies) -> np.ndarray:
    """The chance of each token, (V,): its weight times the factor that makes the mean `share`."""
    counts = np.asarray(frequencies, np.float64)
    if counts.shape != is_ordinary.shape or not (counts >= 0).all() or not counts @ is_ordinary:
        raise DataError(
            f"Frequencies are {len(is_ordinary)} counts, one per token, and not all are 0.",
            do="Take token_frequencies(blocks, len(tokenizer)).",
        )
    counts = counts * is_ordinary
    least = counts[counts > 0].min()  # a token that was never seen counts like the rarest
    weights = is_ordinary * (np.maximum(counts, least) / least) ** -SMOOTHING
    low, high = 0.0, (counts.max() / least) ** SMOOTHING  # with the highest, all chances are 1
    for _ in range(64):
        factor = (low + high) / 2
        mean = np.minimum(1, factor * weights) @ counts / counts.sum()
        low, high = (factor, high) if mean < share else (low, factor)
    return np.minimum(1, high * weights)


def _begins_word(tokenizer: PreTrainedTokenizerBase) -> np.ndarray:
    """Whether a token begins a word, (V,) bool; the pieces after it begin with ##."""
    tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    return np.array([not token.startswith("##") for token in tokens])


def _need_mask(tokenizer: PreTrainedTokenizerBase) -> None:
    if tokenizer.mask_token_id is None or tokenizer.pad_token_id is None:
        raise ModelError(
            "This tokenizer has no [MASK] or no [PAD].", do="Take the tokenizer of a BERT."
        )


def _check(input_ids: Tensor, special: set[int], vocab_size: int, share: float) -> None:
    if not 0 <= share <= 1:
        raise DataError(
            f"A share of {share:g} of the tokens cannot be masked.",
            do="Take 0 to 1, usually 0.15.",
        )
    if not isinstance(input_ids, Tensor) or input_ids.dtype not in (torch.int64, torch.int32):
        kind = getattr(input_ids, "dtype", type(input_ids).__name__)
        raise DataError(f"Token ids are a tensor of whole numbers, these are {kind}.")
    for ids, what in ((torch.tensor(sorted(special)), "special id"), (input_ids, "id")):
        if len(wrong := ids[(ids < 0) | (ids >= vocab_size)]):
            raise DataError(
                f"The {what} {int(wrong[0])} is not in a vocabulary of {vocab_size}.",
                do="Take ids, special ids and vocab_size, len(tokenizer), from one tokenizer.",
            )
