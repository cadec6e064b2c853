"""Masking: what is exact, and what holds on average over many tokens."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from accelerate.data_loader import prepare_data_loader, skip_first_batches
from datasets import Dataset
from torch.utils.data import DataLoader
from transformers import AutoTokenizer

from course_utils.data.blocks import token_frequencies
from course_utils.data.encoding import encode
from course_utils.data.masking import MaskBatch, MaskedBlocks, MaskedStream, Masking, mask_tokens
from course_utils.errors import DataError, ModelError

PAD, UNK, CLS, SEP, MASK = range(5)
SPECIAL, VOCABULARY = (PAD, UNK, CLS, SEP, MASK), 25
SETTINGS = {"special": SPECIAL, "mask_id": MASK, "vocab_size": VOCABULARY}


def ids(n: int = 400, length: int = 500) -> torch.Tensor:
    """(n, length) of all ids, special ones among them."""
    return torch.randint(VOCABULARY, (n, length), generator=seeded(1))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# Exact


@pytest.mark.parametrize("share", [0.0, 0.15, 0.7, 1.0])
@pytest.mark.parametrize("shape", [(3, 7), (50,), (0,), (2, 0), (2, 3, 40)])
def test_labels_are_the_original_ids_and_nothing_else_changes(shape, share):
    before = torch.randint(VOCABULARY, shape, generator=seeded(2))
    kept = before.clone()
    after, labels = mask_tokens(before, **SETTINGS, share=share, generator=seeded(0))
    assert torch.equal(before, kept)
    assert after.shape == labels.shape == before.shape
    assert after.dtype == labels.dtype == torch.int64
    chosen = labels != -100
    assert torch.equal(labels[chosen], before[chosen])
    assert torch.equal(after[~chosen], before[~chosen])


def test_special_tokens_are_neither_chosen_nor_drawn():
    before = ids()
    special = before < len(SPECIAL)
    after, labels = mask_tokens(before, **SETTINGS, share=1.0, generator=seeded(0))
    assert torch.equal(labels != -100, ~special)
    assert torch.equal(after[special], before[special])
    assert set(after[~special].tolist()) == {MASK, *range(5, VOCABULARY)}


def test_the_mask_is_special_without_being_named():
    before = torch.full((100,), MASK)
    after, labels = mask_tokens(before, special=(), mask_id=MASK, vocab_size=VOCABULARY, share=1.0)
    assert torch.equal(after, before)
    assert (labels == -100).all()


def test_nothing_and_everything():
    ordinary = ids().clamp(min=5)
    after, labels = mask_tokens(ordinary, **SETTINGS, share=0.0)
    assert torch.equal(after, ordinary)
    assert (labels == -100).all()
    assert torch.equal(mask_tokens(ordinary, **SETTINGS, share=1.0)[1], ordinary)


def test_equal_seeds_give_equal_masks():
    before, torch_state = ids(4, 50), torch.get_rng_state()
    first = mask_tokens(before, **SETTINGS, generator=seeded(3))
    again = mask_tokens(before, **SETTINGS, generator=seeded(3))
    other = mask_tokens(before, **SETTINGS, generator=seeded(4))
    assert all(map(torch.equal, first, again))
    assert not torch.equal(first[1], other[1])
    assert torch.equal(torch.get_rng_state(), torch_state)


# On average


def within(share: float, expected: float, n: int) -> bool:
    """Whether a share of n independent trials is at most 5 standard deviations off."""
    return abs(share - expected) < 5 * (expected * (1 - expected) / n) ** 0.5


@pytest.mark.parametrize("share", [0.15, 0.4])
def test_shares(share):
    before = ids()
    after, labels = mask_tokens(before, **SETTINGS, share=share, generator=seeded(0))
    eligible = before >= len(SPECIAL)
    chosen = labels != -100
    n, n_chosen = int(eligible.sum()), int(chosen.sum())
    assert within(n_chosen / n, share, n)
    is_mask, is_same = after[chosen] == MASK, after[chosen] == before[chosen]
    assert within(is_mask.float().mean().item(), 0.8, n_chosen)
    # A random token is the same token one time in 20, the number of ordinary tokens.
    assert within(is_same.float().mean().item(), 0.1 + 0.1 / 20, n_chosen)
    drawn = after[chosen][~is_mask & ~is_same]
    counts = torch.bincount(drawn, minlength=VOCABULARY)
    assert counts[: len(SPECIAL)].sum() == 0
    assert all(within(c / len(drawn), 1 / 20, len(drawn)) for c in counts[5:].tolist())


def test_every_position_and_every_row_is_chosen_as_often():
    before = ids().clamp(min=5)
    chosen = mask_tokens(before, **SETTINGS, generator=seeded(0))[1] != -100
    assert all(within(share, 0.15, len(before)) for share in chosen.float().mean(0).tolist())
    assert all(within(share, 0.15, before.shape[1]) for share in chosen.float().mean(1).tolist())
    # Neighbours are chosen independently: both of two in 0.15² of the cases.
    both = (chosen[:, 1:] & chosen[:, :-1]).float().mean().item()
    assert within(both, 0.15**2, chosen.numel())


# Refused


@pytest.mark.parametrize("share", [-0.01, 1.01, 15, float("nan")])
def test_a_share_that_is_none(share):
    with pytest.raises(DataError, match="share of"):
        mask_tokens(ids(2, 3), **SETTINGS, share=share)


@pytest.mark.parametrize("junk", [-100, -1, VOCABULARY])
def test_ids_outside_the_vocabulary(junk):
    with pytest.raises(DataError, match=f"The id {junk} is not in a vocabulary of 25"):
        mask_tokens(torch.tensor([[5, junk]]), **SETTINGS)
    with pytest.raises(DataError, match=f"The special id {junk} is not"):
        mask_tokens(ids(2, 3), **SETTINGS | {"special": (PAD, junk)})
    with pytest.raises(DataError, match=f"The special id {junk} is not"):
        mask_tokens(ids(2, 3), **SETTINGS | {"mask_id": junk})


@pytest.mark.parametrize("junk", [[5, 6], torch.tensor([5.0]), torch.tensor([True])])
def test_what_is_no_tensor_of_ids(junk):
    with pytest.raises(DataError, match=r"whole numbers, these are (list|torch\.float32|torch\.b)"):
        mask_tokens(junk, **SETTINGS)


def test_a_vocabulary_of_special_tokens():
    with pytest.raises(DataError, match="none to draw"):
        mask_tokens(torch.tensor([0]), **SETTINGS | {"vocab_size": 5})


# The collator


@pytest.fixture(scope="module")
def tokenizer(tiny_teacher_folder):
    return AutoTokenizer.from_pretrained(tiny_teacher_folder)


def test_a_batch_is_padded_then_masked_and_differs_each_time(tokenizer, some_texts):
    texts = encode(tokenizer, some_texts)
    items = [texts[i] for i in range(len(texts))]
    collate = MaskBatch(tokenizer, share=0.5, seed=0)
    first, second = collate(items), collate(items)
    plain = collate.pad(items)
    for batch in (first, second):
        chosen = batch["labels"] != -100
        assert batch["labels"].shape == batch["input_ids"].shape
        assert torch.equal(batch["labels"][chosen], plain["input_ids"][chosen])
        assert torch.equal(batch["attention_mask"], plain["attention_mask"])
        special = torch.isin(plain["input_ids"], torch.tensor(tokenizer.all_special_ids))
        assert (~special).sum() > 300
        assert not (chosen & special).any()
        assert 0.4 < chosen.sum() / (~special).sum() < 0.6
    assert not torch.equal(first["labels"], second["labels"])
    again = MaskBatch(tokenizer, share=0.5, seed=0)(items)
    assert all(torch.equal(first[name], again[name]) for name in first)
    other = MaskBatch(tokenizer, share=0.5, seed=1)(items)
    assert not torch.equal(first["labels"], other["labels"])


def test_a_tokenizer_without_a_mask(tiny_teacher_folder):
    tokenizer = AutoTokenizer.from_pretrained(tiny_teacher_folder)
    tokenizer.mask_token = None
    with pytest.raises(ModelError, match=r"no \[MASK\]"):
        MaskBatch(tokenizer)


# Blocks


def blocks(n: int = 40, length: int = 32, *, low: int = 0) -> Dataset:
    """Blocks of random ids, special ones among them unless `low` is 5."""
    rows = torch.randint(low, 40, (n, length), generator=seeded(6))
    return Dataset.from_dict({"input_ids": rows.tolist(), "source": list(range(n))})


def same_blocks(n: int, ids: list[int]) -> Dataset:
    return Dataset.from_dict({"input_ids": [ids] * n})


def read(dataset, rows=None) -> tuple[torch.Tensor, torch.Tensor]:
    """The masked ids and the labels of some rows (all), (N, S) each."""
    items = dataset.__getitems__(list(range(len(dataset)) if rows is None else rows))
    return tuple(torch.stack([item[name] for item in items]) for name in ("input_ids", "labels"))


def original(some: Dataset) -> torch.Tensor:
    return torch.tensor(some["input_ids"][:])


def test_labels_of_a_block_are_its_ids_and_nothing_else_changes(tokenizer):
    some = blocks()
    after, labels = read(MaskedBlocks(some, tokenizer))
    before, chosen = original(some), labels != -100
    assert after.dtype == labels.dtype == torch.int64
    assert chosen.any()
    assert torch.equal(labels[chosen], before[chosen])
    assert torch.equal(after[~chosen], before[~chosen])


@pytest.mark.parametrize("options", [{}, {"whole_words": True}, {"frequencies": [1] * 120}])
def test_special_tokens_of_a_block_are_neither_chosen_nor_drawn(options, tokenizer):
    some = blocks(1000)
    before = original(some)
    special = before < len(SPECIAL)
    after, labels = read(MaskedBlocks(some, tokenizer, share=1.0, **options))
    assert torch.equal(labels != -100, ~special)
    assert torch.equal(after[special], before[special])
    assert set(after[~special].tolist()) == {MASK, *range(5, len(tokenizer))}


def test_shares_of_blocks(tokenizer):
    some = blocks(2000, 64)
    before = original(some)
    after, labels = read(MaskedBlocks(some, tokenizer))
    eligible, chosen = before >= len(SPECIAL), labels != -100
    n, n_chosen = int(eligible.sum()), int(chosen.sum())
    assert within(n_chosen / n, 0.15, n)
    is_mask, is_same = after[chosen] == MASK, after[chosen] == before[chosen]
    assert within(is_mask.float().mean().item(), 0.8, n_chosen)
    n_ordinary = len(tokenizer) - len(SPECIAL)
    assert within(is_same.float().mean().item(), 0.1 + 0.1 / n_ordinary, n_chosen)
    drawn = after[chosen][~is_mask & ~is_same]
    counts = torch.bincount(drawn, minlength=len(tokenizer))[5:]
    assert all(within(c / len(drawn), 1 / n_ordinary, len(drawn)) for c in counts.tolist())


def test_every_position_and_block_is_chosen_as_often_and_by_itself(tokenizer):
    dataset = MaskedBlocks(blocks(2000, 64, low=5), tokenizer)
    chosen = read(dataset)[1] != -100
    dataset.set_epoch(1)
    later = read(dataset)[1] != -100
    assert all(within(share, 0.15, len(chosen)) for share in chosen.float().mean(0).tolist())
    assert all(within(share, 0.15, 64) for share in chosen.float().mean(1).tolist())
    # Neighbours in a block, the same place in two blocks, and in two epochs: chosen independently.
    pairs = [(chosen[:, 1:], chosen[:, :-1]), (chosen[1:], chosen[:-1]), (chosen, later)]
    for one, other in pairs:
        assert within((one & other).float().mean().item(), 0.15**2, one.numel())


def test_the_fate_of_a_token_does_not_follow_from_its_place(tokenizer):
    after, labels = read(MaskedBlocks(same_blocks(4000, [7, 8, 9, 10]), tokenizer, share=1.0))
    assert (labels != -100).all()
    is_mask = after == MASK
    assert all(within(share, 0.8, len(after)) for share in is_mask.float().mean(0).tolist())
    both = (is_mask[:, 1:] & is_mask[:, :-1]).float().mean().item()
    assert within(both, 0.8**2, is_mask[:, 1:].numel())


# Blocks: seed, epoch and number, and nothing else


def test_seed_epoch_and_number_decide(tokenizer):
    some = same_blocks(50, list(range(5, 37)))
    dataset, again = (MaskedBlocks(some, tokenizer, seed=3) for _ in range(2))
    first = read(dataset)
    assert all(map(torch.equal, first, read(dataset)))
    assert all(map(torch.equal, first, read(again)))
    assert len({str(labels) for labels in first[1].tolist()}) == 50
    dataset.set_epoch(1)
    second = read(dataset)
    assert not (first[1] == second[1]).all(1).any()
    dataset.set_epoch(0)
    assert all(map(torch.equal, first, read(dataset)))
    other = read(MaskedBlocks(some, tokenizer, seed=4))
    assert not (first[1] == other[1]).all(1).any()
    # Neither the sum of seed and epoch nor any other mixture of the two.
    other_way = MaskedBlocks(some, tokenizer, seed=0)
    other_way.set_epoch(3)
    assert not (first[1] == read(other_way)[1]).all(1).any()


@pytest.mark.parametrize("seed", [-1, 2**63, 2**70])
def test_any_whole_number_is_a_seed(seed, tokenizer):
    one, other = (MaskedBlocks(blocks(5), tokenizer, seed=s) for s in (seed, seed + 1))
    assert not torch.equal(read(one)[1], read(other)[1])


def test_torchs_own_random_numbers_play_no_part(tokenizer):
    dataset = MaskedBlocks(blocks(), tokenizer)
    state, numpys = torch.get_rng_state(), np.random.get_state()[1]
    first = read(dataset)
    assert torch.equal(torch.get_rng_state(), state)
    assert (np.random.get_state()[1] == numpys).all()
    torch.manual_seed(5)
    np.random.seed(5)
    assert all(map(torch.equal, first, read(dataset)))


def test_an_item_is_the_same_alone_and_in_any_batch(tokenizer):
    dataset = MaskedBlocks(blocks(), tokenizer)
    everything = read(dataset)
    order = torch.randperm(40, generator=seeded(7)).tolist()
    for rows in (order, order[:7], [39], [3, 3, 0]):
        assert all(
            torch.equal(a, b[rows]) for a, b in zip(read(dataset, rows), everything, strict=True)
        )
    for row in (0, 17, 39, -1):
        item = dataset[row]
        assert list(item) == ["input_ids", "labels"]
        assert torch.equal(item["input_ids"], everything[0][row])
        assert torch.equal(item["labels"], everything[1][row])
    with pytest.raises(IndexError):
        dataset[40]


def loader(dataset, *, batch_size: int, workers: int = 0, keep: bool = False, **options):
    """accelerate's own loader over shuffled batches, as a `Trainer` makes it."""
    order = torch.utils.data.RandomSampler(dataset, generator=seeded(8))
    plain = DataLoader(
        dataset, batch_size, sampler=order, num_workers=workers, persistent_workers=keep
    )
    return prepare_data_loader(plain, put_on_device=False, use_seedable_sampler=True, **options)


def by_content(batches) -> dict[tuple, list[int]]:
    """The labels of each block, found by what they and the ids show of it."""
    found = {}
    for batch in batches:
        for ids, labels in zip(batch["input_ids"], batch["labels"], strict=True):
            found[tuple(torch.where(labels == -100, ids, labels).tolist())] = labels.tolist()
    return found


def rows_of(some: Dataset, masked: MaskedBlocks) -> dict[tuple, list[int]]:
    """The labels of each block, read without a loader."""
    return dict(zip(map(tuple, original(some).tolist()), read(masked)[1].tolist(), strict=True))


@pytest.mark.parametrize(
    ("workers", "keep", "batch_size"), [(0, False, 4), (0, False, 7), (2, False, 4), (2, True, 5)]
)
def test_batches_and_workers_change_nothing(workers, keep, batch_size, tokenizer):
    some = blocks()
    batches = loader(
        MaskedBlocks(some, tokenizer, seed=2), batch_size=batch_size, workers=workers, keep=keep
    )
    expected = MaskedBlocks(some, tokenizer, seed=2)
    orders = []
    for epoch in (0, 1, 5):
        batches.set_epoch(epoch)
        expected.set_epoch(epoch)
        found = by_content(batches)
        assert found == rows_of(some, expected)
        orders.append(list(found))
    assert orders[0] != orders[1]


def test_after_a_resume_in_an_epoch_the_batches_go_on(tokenizer):
    some = blocks()
    whole = loader(MaskedBlocks(some, tokenizer, seed=2), batch_size=4)
    whole.set_epoch(3)
    expected = list(whole)
    fresh = loader(MaskedBlocks(some, tokenizer, seed=2), batch_size=4)
    rest = skip_first_batches(fresh, 6)
    rest.set_epoch(3)  # reaches the sampler alone
    rest.dataset.set_epoch(3)
    found = list(rest)
    assert len(found) == len(expected) - 6
    for one, other in zip(found, expected[6:], strict=True):
        assert all(torch.equal(one[name], other[name]) for name in ("input_ids", "labels"))


def test_two_processes_share_out_the_blocks_of_one(tokenizer):
    some = blocks()
    parts = []
    for process in range(2):
        dataset = MaskedBlocks(some, tokenizer)
        dataset.set_epoch(1)
        part = loader(dataset, batch_size=4, num_processes=2, process_index=process)
        parts.append(by_content(part))
    expected = MaskedBlocks(some, tokenizer)
    expected.set_epoch(1)
    assert parts[0] | parts[1] == rows_of(some, expected)
    assert len(parts[0]) == len(parts[1]) == 20


def test_blocks_travel_to_a_process_that_starts_anew(tokenizer):
    dataset = MaskedBlocks(blocks(), tokenizer)
    dataset.set_epoch(2)
    there = pickle.loads(pickle.dumps(dataset))
    assert all(map(torch.equal, read(there), read(dataset)))


def test_the_fingerprint_changes_with_whatever_changes_an_item(tokenizer):
    some = blocks()
    changed = original(some)
    changed[3, 4] = 41
    other = {"input_ids": changed.tolist()}
    made = [
        MaskedBlocks(some, tokenizer),
        MaskedBlocks(some.select(range(39, -1, -1)), tokenizer),
        MaskedBlocks(Dataset.from_dict(other), tokenizer),
        MaskedBlocks(some, tokenizer, seed=1),
        MaskedBlocks(some, tokenizer, share=0.2),
        MaskedBlocks(some, tokenizer, whole_words=True),
        MaskedBlocks(some, tokenizer, frequencies=range(120)),
    ]
    prints = [dataset.fingerprint for dataset in made]
    assert len(set(prints)) == len(made)
    assert prints[0] == MaskedBlocks(some, tokenizer).fingerprint
    assert all(len(each) == 16 for each in prints)


# Blocks: whole words


def words_of(row: list[int], tokenizer) -> list[list[int]]:
    """The positions of each word of a block, special tokens left out."""
    words: list[list[int]] = []
    open_word = False
    for place, token in enumerate(tokenizer.convert_ids_to_tokens(row)):
        if token in tokenizer.all_special_tokens:
            open_word = False
        elif token.startswith("##") and open_word:
            words[-1].append(place)
        else:
            words.append([place])
            open_word = True
    return words


def test_a_word_is_chosen_as_a_whole_and_its_pieces_have_each_their_fate(tokenizer):
    some = blocks(700, 40)  # half of these ids are pieces that go on with a word
    after, labels = read(MaskedBlocks(some, tokenizer, whole_words=True))
    n_words = n_chosen = n_long = n_mixed = 0
    for row, ids, marks in zip(original(some).tolist(), after, labels != -100, strict=True):
        for word in words_of(row, tokenizer):
            assert len(set(marks[word].tolist())) == 1
            n_words += 1
            if marks[word[0]]:
                n_chosen += 1
                n_long += len(word) > 1
                n_mixed += len(set((ids[word] == MASK).tolist())) == 2
    assert n_long > 100
    assert n_mixed > 20
    assert within(n_chosen / n_words, 0.15, n_words)


def test_without_the_option_pieces_are_chosen_by_themselves(tokenizer):
    some = blocks(300, 40)
    chosen = read(MaskedBlocks(some, tokenizer))[1] != -100
    torn = [
        len(set(marks[word].tolist())) > 1
        for row, marks in zip(original(some).tolist(), chosen, strict=True)
        for word in words_of(row, tokenizer)
    ]
    assert any(torn)


# Blocks: rare tokens


def zipf(n: int, tokenizer) -> tuple[Dataset, np.ndarray]:
    """Blocks in which token k stands about 1/k as often, and how often each does."""
    weights = torch.zeros(len(tokenizer))
    weights[5:] = 1 / torch.arange(1, len(tokenizer) - 4) ** 1.5
    rows = torch.multinomial(weights, n * 64, replacement=True, generator=seeded(9)).view(n, 64)
    rows[:, 0], rows[:, -1] = CLS, SEP
    some = Dataset.from_dict({"input_ids": rows.tolist()})
    return some, token_frequencies(some, len(tokenizer))


def test_a_tokens_chance_falls_with_its_frequency_and_the_mean_share_stays(tokenizer):
    some, frequencies = zipf(3000, tokenizer)
    before = original(some)
    chosen = read(MaskedBlocks(some, tokenizer, frequencies=frequencies))[1] != -100
    n = int((before >= len(SPECIAL)).sum())
    assert within(chosen.sum().item() / n, 0.15, n)
    # An independent look at the factor: that of the commonest token, whose chance is not cut.
    commonest = int(frequencies[5:].argmax()) + 5
    rate = chosen[before == commonest].float().mean().item()
    checked = 0
    for token in range(5, 60):
        expected = min(1.0, rate * (frequencies[token] / frequencies[commonest]) ** -0.7)
        n_here = int(frequencies[token])
        is_chosen = chosen[before == token].float().mean().item()
        if expected == 1:
            assert is_chosen == 1
        else:  # the rate is itself measured, so some room is left
            assert abs(is_chosen - expected) < 6 * (expected / n_here) ** 0.5
            checked += 1
    assert checked > 10


@pytest.mark.parametrize("share", [0.0, 0.15, 0.6, 1.0])
def test_the_mean_chance_over_the_corpus_is_the_share(share, tokenizer):
    _, frequencies = zipf(300, tokenizer)
    chances = Masking(tokenizer, share=share, frequencies=frequencies).chances
    ordinary = frequencies[5:]
    assert chances[5:] @ ordinary / ordinary.sum() == pytest.approx(share, abs=1e-12)
    assert (chances[:5] == 0).all()
    assert ((chances >= 0) & (chances <= 1)).all()


def test_frequencies_may_be_shares(tokenizer):
    _, frequencies = zipf(300, tokenizer)
    counted, shares = (
        Masking(tokenizer, frequencies=each).chances
        for each in (frequencies, frequencies / frequencies.sum())
    )
    assert shares == pytest.approx(counted)


# Blocks: refused


@pytest.mark.parametrize("junk", [-1, 120])
def test_a_block_with_an_id_outside_the_vocabulary(junk, tokenizer):
    some = Dataset.from_dict({"input_ids": [[5, 6], [7, junk]]})
    with pytest.raises(DataError, match=f"The id {junk} is not in a vocabulary of 120"):
        MaskedBlocks(some, tokenizer)


def test_what_are_no_blocks(tokenizer):
    for rows, said in (([], "there are none"), ([[5], [6, 7]], r"these have \[1, 2\]")):
        with pytest.raises(DataError, match=said):
            MaskedBlocks(Dataset.from_dict({"input_ids": rows}), tokenizer)
    with pytest.raises(DataError, match="no column `input_ids`"):
        MaskedBlocks(Dataset.from_dict({"text": ["the line"]}), tokenizer)


def test_blocks_longer_than_the_models_positions(tokenizer):
    dataset = MaskedBlocks(blocks(4, 32), tokenizer)
    dataset.need_room(32)
    with pytest.raises(DataError, match="have 32 tokens; the model reads 31"):
        dataset.need_room(31)


@pytest.mark.parametrize("share", [-0.01, 1.01, float("nan")])
def test_a_share_of_blocks_that_is_none(share, tokenizer):
    with pytest.raises(DataError, match="share of"):
        MaskedBlocks(blocks(2), tokenizer, share=share)


@pytest.mark.parametrize(
    "frequencies", [[], [1] * 119, [0] * 120, [-1] * 120, [1] * 5 + [0] * 115, [float("nan")] * 120]
)
def test_frequencies_that_are_none(frequencies, tokenizer):
    with pytest.raises(DataError, match="120 counts, one per token"):
        MaskedBlocks(blocks(2), tokenizer, frequencies=frequencies)


def test_whole_words_have_no_frequencies(tokenizer):
    with pytest.raises(DataError, match="Take one of the two"):
        MaskedBlocks(blocks(2), tokenizer, whole_words=True, frequencies=[1] * 120)


def test_blocks_need_a_mask(tiny_teacher_folder):
    tokenizer = AutoTokenizer.from_pretrained(tiny_teacher_folder)
    tokenizer.mask_token = None
    with pytest.raises(ModelError, match=r"no \[MASK\]"):
        MaskedBlocks(blocks(2), tokenizer)


# A stream of blocks


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_is_masked_by_content_whatever_the_workers(workers, tokenizer):
    some = blocks(150)
    in_two = some.to_iterable_dataset(num_shards=2)
    dataset = MaskedStream(in_two, tokenizer, seed=1)
    expected = MaskedStream(some.to_iterable_dataset(), tokenizer, seed=1)
    epochs = []
    for epoch in (0, 1):
        dataset.set_epoch(epoch)
        expected.set_epoch(epoch)
        found = by_content(DataLoader(dataset, 8, num_workers=workers))
        assert found == by_content(DataLoader(expected, 8))
        assert set(found) == set(map(tuple, original(some).tolist()))
        epochs.append(found)
    assert all(epochs[0][block] != epochs[1][block] for block in epochs[0])
    share = np.mean([label != -100 for labels in epochs[0].values() for label in labels])
    assert 0.1 < share < 0.15  # one id in eight is special


def test_a_stream_of_ids_outside_the_vocabulary(tokenizer):
    stream = Dataset.from_dict({"input_ids": [[5, 120]]}).to_iterable_dataset()
    with pytest.raises(DataError, match="The id 120 is not"):
        list(MaskedStream(stream, tokenizer))
