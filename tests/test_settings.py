"""Settings from TOML: values of every type, and words for each mistake."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import pytest

from course_utils.errors import DataError
from course_utils.pretraining import Pretraining
from course_utils.settings import read_settings


@dataclass(frozen=True)
class Inner:
    rate: float = 0.5
    pair: tuple[float, float] = (0.0, 1.0)
    kind: Literal["a", "b"] = "a"

    def __post_init__(self):
        if self.rate < 0:
            raise DataError(f"rate is {self.rate}.", do="Take 0 or more.")


@dataclass(frozen=True)
class Outer:
    name: str | tuple[str, ...] = "x"
    depth: int | tuple[int, ...] | None = None
    on: bool = False
    inner: Inner = field(default_factory=Inner)


def read(tmp_path, text: str | bytes, kind: type = Outer):
    file = tmp_path / "some.toml"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_settings(file, kind)


def test_values_of_every_type_and_defaults(tmp_path):
    assert read(tmp_path, "") == Outer()
    text = 'name = ["é", "y"]\ndepth = 3\non = true\n[inner]\nrate = 2\npair = [1, 0.5]\nkind = "b"'
    assert read(tmp_path, text) == Outer(("é", "y"), 3, True, Inner(2, (1, 0.5), "b"))
    assert read(tmp_path, "depth = [2, 0]").depth == (2, 0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nam = 1", ["no setting `nam`", "name, depth, on, inner"]),
        ("[inner]\nrat = 1", ["no setting `inner.rat`", "inner.rate"]),
        ("name = 1", ["`name` is 1", "a text in quotes, or a list, each a text in quotes"]),
        ("name = []", ["`name` is []"]),
        ('name = ["a", 1]', ["`name` is ['a', 1]"]),
        ("depth = 1.0", ["`depth` is 1.0", "a whole number, or a list, each a whole number"]),
        ("depth = true", ["`depth` is True"]),
        ("on = 1", ["`on` is 1", "true or false"]),
        ("inner = 1", ["`inner` is 1", "a table"]),
        ("[inner]\nrate = false", ["`inner.rate` is False", "a number"]),
        ("[inner]\npair = [1]", ["`inner.pair` is [1]", "a list of 2, each a number"]),
        ('[inner]\nkind = "c"', ["`inner.kind` is 'c'", '"a" or "b"']),
        ("[inner]\nrate = -1", ["rate is -1", "table [inner]", "Take 0 or more"]),
        ("name = \ndepth = 1", ["not TOML", "line 1"]),
        ("name = 'a'\nname = 'b'", ["not TOML"]),
        (b"name = '\xff'", ["not TOML", "utf-8"]),
    ],
)
def test_a_mistake_is_named_with_its_file(tmp_path, text, said):
    with pytest.raises(DataError) as error:
        read(tmp_path, text)
    assert all(words in str(error.value) for words in ["some.toml", *said])


@pytest.mark.parametrize("name", ["missing.toml", "."])
def test_a_file_that_is_not_there(tmp_path, name):
    with pytest.raises(DataError, match="cannot be read") as error:
        read_settings(tmp_path / name, Outer)
    assert "Give the path of a TOML file" in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('out = ""', "`out` is empty"),
        ('corpus = ["pydocs", " "]', "`corpus` is empty"),
        ('teacher = ""', "`teacher` is empty"),
        ("held_out_blocks = 0", "held_out_blocks is 0"),
        ("whole_words = true\nsmoothing = true", "exclude each other"),
        ('report_to = "nobody"', "report_to names nobody"),
        ("[recipe]\nsteps = 0", "`steps` is 0"),
        ('[recipe]\nsteps = "many"', "`recipe.steps` is 'many'"),
        ("[recipe]\nbatch_size = 2.5", "`recipe.batch_size` is 2.5"),
        ("[recipe]\nepochs = inf", "`epochs` is inf"),
        ("[recipe]\nlearning_rate = 0", "`learning_rate` is 0"),
        ("[recipe]\nlearning_rate = nan", "`learning_rate` is nan"),
        ("[recipe]\nepsilon = 0.0", "`epsilon` is 0.0"),
        ("[recipe]\nweight_decay = -0.1", "`weight_decay` is -0.1"),
        ("[recipe]\nmax_grad_norm = -1", "`max_grad_norm` is -1"),
        ("[recipe]\nwarmup = 1", "`warmup` is 1"),
        ("[recipe]\ndropout = 1", "`dropout` is 1"),
        ("[recipe]\nbetas = [0.9, 1.0]", "`betas` is (0.9, 1.0)"),
        ("[recipe]\nlog_every = 0", "`log_every` is 0"),
        ("[recipe]\nlog_every = 2.5", "`log_every` is 2.5"),
        ("[recipe]\nsave_every = inf", "`save_every` is inf"),
        ("[recipe]\nseed = -1", "`seed` is -1"),
        ("[recipe]\ntemperature = 0", "The temperature is 0"),
        ('[recipe]\nkl_positions = "some"', "`recipe.kl_positions` is 'some'"),
    ],
)
def test_what_a_distillation_cannot_mean_is_refused(tmp_path, text, said):
    with pytest.raises(DataError) as error:
        read(tmp_path, text, Pretraining)
    assert said in str(error.value)
    assert "some.toml" in str(error.value)
    assert "what to do" in str(error.value)
