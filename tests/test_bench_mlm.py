"""`course bench mlm`: both ways train on the same texts, with the same loss."""

from __future__ import annotations

import json
import math

import pytest
import torch

from course_utils import bench
from course_utils.bench import mlm
from course_utils.distill.losses import triple_loss

KEYS = [
    "name",
    "work",
    "tokens_per_s",
    "ratio",
    "peak_memory_mb",
    "memory_ratio",
    "loss_difference",
]
PARTS = ["soft", "masked_lm", "cosine"]
SIZE = mlm.Size(8, 24, 64, 4, 2, 300)


def parts(*, masked_lm: float = 10.0) -> dict[str, float]:
    return {"soft": 2.0, "masked_lm": masked_lm, "cosine": 0.5}


def test_the_three_ways_are_measured_and_have_one_loss(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("COURSE_PROFILE", "smoke")
    rows = bench.bench("mlm", json_file=tmp_path / "bench.json")
    assert [list(row) for row in rows] == [KEYS] * 3
    assert [row["name"] for row in rows] == ["baseline", "all", "masked"]
    assert {row["work"] for row in rows} == {"2 -> 1 layers of 64, batch 4 x 32"}
    baseline, everywhere, masked = rows
    assert baseline["ratio"] == baseline["memory_ratio"] == 1
    assert baseline["loss_difference"] == 0
    assert max(everywhere["loss_difference"], masked["loss_difference"]) < 1e-3
    assert min(row["tokens_per_s"] for row in rows) > 0
    assert masked["memory_ratio"] < everywhere["memory_ratio"] < 1
    assert json.loads((tmp_path / "bench.json").read_text()) == rows
    said = capfd.readouterr()
    assert "measuring: masked" in said.out
    assert "Warning" not in said.err


def test_rows_are_ratios_to_the_baseline_and_the_worst_part_of_the_loss(monkeypatch):
    monkeypatch.setenv("COURSE_PROFILE", "gpu")
    in_both = {"all": parts(), "masked": parts(masked_lm=20.0)}
    measured = {
        "baseline": {"tokens_per_s": 200.4, "peak_memory_mb": 2000.0, "losses": in_both},
        "all": {
            "tokens_per_s": 700.0,
            "peak_memory_mb": 500.4,
            "losses": {"all": parts(masked_lm=9.9)},
        },
        "masked": {
            "tokens_per_s": 1402.8,
            "peak_memory_mb": 250.0,
            "losses": {"masked": parts(masked_lm=20.0)},
        },
    }
    work = "12 -> 6 layers of 768, batch 32 x 128"
    assert [list(row.values()) for row in mlm.rows(measured)] == [
        ["baseline", work, 200, 1.0, 2000, 1.0, 0.0],
        ["all", work, 700, 3.49, 500, 0.25, 0.01],
        ["masked", work, 1403, 7.0, 250, 0.12, 0.0],
    ]


@pytest.mark.parametrize("positions", ["all", "masked"])
def test_our_loss_is_that_of_the_authors_way(positions):
    batch = mlm.batches(SIZE, positions)[0]
    ours = mlm.our_losses(*mlm.models(SIZE), batch, positions)
    theirs = mlm.baseline_losses(*mlm.models(SIZE), batch, positions)
    assert sorted(ours) == sorted(PARTS)
    assert ours == pytest.approx(theirs, rel=1e-4)
    other = {"all": "masked", "masked": "all"}[positions]
    assert theirs["soft"] != pytest.approx(
        mlm.baseline_losses(*mlm.models(SIZE), batch, other)["soft"], rel=1e-3
    )


def test_the_authors_way_counts_no_padding():
    batch = next(b for b in mlm.batches(SIZE, "baseline") if (b["attention_mask"] == 0).any())
    teacher, student = mlm.models(SIZE)
    texts = {name: batch[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        ours, theirs = (m(**texts, output_hidden_states=True) for m in (student, teacher))
    expected = triple_loss(
        ours.logits,
        theirs.logits,
        batch["labels"],
        ours.hidden_states[-1],
        theirs.hidden_states[-1],
        batch["attention_mask"],
    )._asdict()
    found = mlm.baseline_losses(teacher, student, batch, "all")
    assert found == pytest.approx({name: expected[name].item() for name in PARTS}, rel=1e-4)


@pytest.mark.parametrize("way", mlm.WAYS)
def test_every_way_trains_the_student_and_nothing_else(way, monkeypatch):
    monkeypatch.setattr(mlm, "STEPS", 2)
    teacher, student = mlm.models(SIZE)
    before = {name: w.clone() for name, w in teacher.state_dict().items()}
    trained = {name: w.clone() for name, w in student.named_parameters()}
    train = mlm.baseline if way == "baseline" else mlm.ours
    ends = train(teacher, student, mlm.batches(SIZE, way), way)
    assert len(ends) == 3
    assert ends == sorted(ends)
    assert all(torch.equal(before[name], w) for name, w in teacher.state_dict().items())
    for name, weight in student.named_parameters():
        assert not torch.equal(trained[name], weight), name


def test_padded_batches_hold_texts_of_one_bin_and_packed_ones_no_padding():
    padded, packed = mlm.batches(SIZE, "baseline"), mlm.batches(SIZE, "masked")
    assert len(padded) == len(packed) == mlm.STEPS + 1
    for batch in padded:
        lengths = batch["attention_mask"].sum(1)  # (B,)
        assert len((lengths // mlm.BIN).unique()) == 1
        n, longest = batch["input_ids"].shape
        assert longest == lengths.max()
        assert n * longest <= SIZE.blocks * SIZE.length < (n + 1) * longest
        is_padding = batch["attention_mask"] == 0
        assert (batch["input_ids"][is_padding] == mlm.PAD).all()
        assert (batch["labels"][is_padding] == -100).all()
    assert len({batch["input_ids"].shape[1] // mlm.BIN for batch in padded}) > 1
    for batch in packed:
        assert batch["input_ids"].shape == (SIZE.blocks, SIZE.length)
        assert batch["attention_mask"].all()
        assert (batch["input_ids"][:, 0] == mlm.CLS).all()
        assert (batch["input_ids"][:, -1] == mlm.SEP).all()


def test_both_ways_read_the_same_texts_with_as_many_words_hidden():
    def texts(way: str) -> set[tuple[int, ...]]:
        generator = torch.Generator().manual_seed(0)
        drawn = mlm._texts(SIZE, generator)
        rows = {"baseline": mlm._padded, "masked": mlm._packed}[way](drawn, SIZE, generator)
        # In blocks a text can go on in the next one: [CLS] and [SEP] of a block's ends are dropped.
        ids = [row[1:-1] if way == "masked" else row for batch in rows for row in batch]
        words, found = [], set()
        for token in torch.cat(ids).tolist():
            if token in mlm.SPECIAL:
                found.add(tuple(words))
                words = []
            else:
                words.append(token)
        return found - {()}

    padded, packed = texts("baseline"), texts("masked")
    assert padded <= packed
    assert len(padded) > 0.9 * len(packed)
    for way in ("baseline", "masked"):
        batches = mlm.batches(mlm.SIZES["cpu"], way)
        labelled = sum((batch["labels"] != -100).sum() for batch in batches)
        attended = sum(batch["attention_mask"].sum() for batch in batches)
        assert labelled / attended == pytest.approx(0.15, abs=0.02)


def test_texts_are_as_long_as_those_of_pydocs():
    size = mlm.SIZES["cpu"]
    texts = mlm._texts(size, torch.Generator().manual_seed(0))
    lengths = torch.tensor([len(text) for text in texts]) - 1.0  # without [SEP]
    assert lengths.median() == pytest.approx(mlm.MEDIAN_LENGTH, abs=1)
    assert lengths.log().std() == pytest.approx(mlm.SPREAD, abs=0.05)
    assert lengths.max() == size.length - 2
    assert math.isclose(len(texts), 100 * (mlm.STEPS + 1) * size.blocks)
