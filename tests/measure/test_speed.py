"""Who is timed when, and what the figures mean, with a clock that the test turns."""

from __future__ import annotations

import gc
from types import SimpleNamespace

import numpy as np
import pytest

from course_utils.errors import DataError, ModelError
from course_utils.measure import speed as module
from course_utils.measure.speed import speed
from course_utils.models.protocol import Classifier


class Clock:
    """Seconds pass only when someone says so."""

    def __init__(self):
        self.now, self.calls = 0.0, []

    def perf_counter(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds
        self.calls.append(("pause", 0))


class Fake(Classifier):
    """A text of n characters has n tokens; a call takes 1 ms for each, times `slowness`."""

    labels, max_length, pad_token_id, threads = ("a", "b"), 64, 0, 2

    def __init__(self, name, slowness, clock):
        self.name, self.slowness, self.clock = name, slowness, clock

    def token_ids(self, texts):
        self.clock.now += 1000  # must not be in the figures
        return [[1] * len(text) for text in texts]

    def logits(self, encoded):
        assert not gc.isenabled()
        self.clock.now += self.slowness * encoded["input_ids"].size / 1000
        self.clock.calls.append((self.name, len(encoded["input_ids"])))
        return np.zeros((len(encoded["input_ids"]), 2), np.float32)


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(
        module, "time", SimpleNamespace(perf_counter=clock.perf_counter, sleep=clock.sleep)
    )
    return clock


@pytest.fixture
def texts():
    return ["x" * length for length in range(1, 101)]


def test_figures_of_a_known_clock(clock, texts):
    slow, fast = speed([Fake("slow", 4, clock), Fake("fast", 1, clock)], texts, rounds=3)
    assert fast["name"] == "fast"
    assert fast["latency_ms_p50"] == pytest.approx(50.5)
    assert fast["latency_ms_p95"] == pytest.approx(95.05, abs=0.5)
    # 96 texts in three batches, each padded to its longest: 32, 64 and 96 tokens.
    assert fast["throughput_32"] == pytest.approx(96 / (32 * (32 + 64 + 96) / 1000))
    assert fast["tokens_per_text"] == pytest.approx(50.5)
    assert fast["threads"] == 2
    assert slow["latency_ms_p50"] == pytest.approx(4 * fast["latency_ms_p50"])
    assert slow["throughput_32"] == pytest.approx(fast["throughput_32"] / 4)


def test_blocks_alternate_and_begin_with_a_pause_and_a_warm_up(clock, texts):
    speed([Fake("a", 1, clock), Fake("b", 1, clock)], texts, rounds=2)
    blocks = []
    for name, size in clock.calls:
        if name == "pause":
            blocks.append([])
        else:
            blocks[-1].append((name, size))
    kinds = [block[0] for block in blocks]
    assert all(set(block) == {kind} for block, kind in zip(blocks, kinds, strict=True))
    a1, a32, b1, b32 = ("a", 1), ("a", 32), ("b", 1), ("b", 32)
    assert kinds == [a1, a32, b1, b32, b1, b32, a1, a32]  # the second round begins with b
    assert [len(block) for block in blocks[:2]] == [3 + 100, 3 + 3]


@pytest.mark.parametrize("was_on", [True, False])
def test_the_garbage_collector_is_as_before(clock, texts, was_on, monkeypatch):
    (gc.enable if was_on else gc.disable)()
    try:
        speed([Fake("a", 1, clock)], texts, rounds=1)
        assert gc.isenabled() == was_on
        monkeypatch.setattr(Fake, "logits", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            speed([Fake("a", 1, clock)], texts, rounds=1)
        assert gc.isenabled() == was_on
    finally:
        gc.enable()


def test_few_texts_are_repeated_to_fill_a_batch(clock):
    (row,) = speed([Fake("a", 1, clock)], ["xx", "xxxx"], rounds=1)
    assert row["latency_ms_p50"] == pytest.approx(3)
    assert row["throughput_32"] == pytest.approx(32 / (32 * 4 / 1000))
    assert {size for _, size in clock.calls} == {0, 1, 32}


def test_no_text(clock):
    with pytest.raises(DataError, match="no text"):
        speed([Fake("a", 1, clock)], [])


def test_different_threads_are_not_compared(clock, texts):
    one, other = Fake("one", 1, clock), Fake("other", 1, clock)
    other.threads = 1
    with pytest.raises(ModelError, match="one has 2, other has 1"):
        speed([one, other], texts)
