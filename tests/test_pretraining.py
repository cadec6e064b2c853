"""A whole distillation from its settings: alone, by torchrun, after a kill, and what it refuses."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from rich.console import Console
from safetensors.torch import load_file
from tiny import TEXTS, write_tokenizer
from transformers import (
    AutoModelForMaskedLM,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    BertTokenizerFast,
)

from course_utils.data import held_out, hub, sources
from course_utils.data.masking import MaskedBlocks
from course_utils.distill.checkpoints import find_trouble
from course_utils.distill.lock import RunLock
from course_utils.distill.mlm_trainer import DistillationTrainer
from course_utils.distill.pretrain import PretrainRecipe
from course_utils.errors import DataError, ModelError, OutputError
from course_utils.files import sha256
from course_utils.measure.guessing import guess, score_guesses
from course_utils.models.mlm import load_masked_lm
from course_utils.pretraining import Pretraining, as_table, run
from course_utils.settings import read_settings
from data import fake_hub

CONFIGS = Path(__file__).parents[1] / "configs"
LENGTH, STEPS = 16, 4
PARTS = ("loss", "total", "soft", "masked_lm", "cosine", "grad_norm", "learning_rate")


def write_teacher(folder: Path, **changes) -> Path:
    """The folder, with a random BERT of 4 layers that guesses words, and a tokenizer."""
    config = {
        "vocab_size": 120,
        "hidden_size": 16,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 32,
        "initializer_range": 0.4,
    } | changes
    torch.manual_seed(0)
    BertForMaskedLM(BertConfig(**config)).save_pretrained(folder)
    write_tokenizer(folder, 120)
    return folder


def write_corpus(folder: Path, n: int = 200) -> Path:
    """The folder, with some 100 blocks to train on and 20 that are held out."""
    folder.mkdir(parents=True)
    texts = [f"{TEXTS[k % 8]} {TEXTS[k * 3 % 7]}" for k in range(n)]
    (folder / "train.txt").write_text("\n\n".join(texts), encoding="utf-8")
    (folder / "dev.txt").write_text("\n\n".join(reversed(texts[: n // 5])), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a teacher, a corpus and a cache."""
    folder = tmp_path_factory.mktemp("pretraining")
    write_teacher(folder / "teacher")
    write_corpus(folder / "corpus")
    return folder


@pytest.fixture
def config(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pretraining:
    """A run of 4 steps in this process."""
    monkeypatch.setenv("COURSE_CACHE", str(place / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return Pretraining(
        corpus=str(place / "corpus"),
        teacher=str(place / "teacher"),
        length=LENGTH,
        held_out_blocks=8,
        out=str(tmp_path / "out"),
        recipe=PretrainRecipe(
            steps=STEPS, batch_size=4, learning_rate=1e-3, log_every=1, save_every=1
        ),
    )


def quietly(config: Pretraining, **options) -> dict:
    return run(config, say=str, **options)


# --- the command, in processes of its own: in float32, and as a test wants it to be ended ---

COMMAND = """
import json, os, runpy, signal, sys
from pathlib import Path
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel
from course_utils import machine
from course_utils.distill.mlm_trainer import DistillationTrainer

machine.FAST_BFLOAT16, machine._accelerator = set(), lambda: None
sent, make, step = [], DistributedDataParallel.__init__, DistillationTrainer.training_step

def counting(self, *args, **kwargs):
    make(self, *args, **kwargs)
    self.register_comm_hook(None, count)

def count(state, bucket):
    sent.append(bucket)
    return allreduce_hook(state, bucket)

def dying(self, *args, **kwargs):
    if self.state.global_step == int(os.environ.get("DIE_AFTER", -1)):
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, *args, **kwargs)

DistributedDataParallel.__init__, DistillationTrainer.training_step = counting, dying
try:
    runpy.run_module("course_utils.cli", run_name="__main__", alter_sys=True)
finally:
    Path(os.environ["COUNTS"], os.environ.get("RANK", "0")).write_text(str(len(sent)))
"""


class Command:
    """`course distill-mlm` with the module's teacher and corpus, into a folder below `place`."""

    def __init__(self, place: Path):
        self.place, self.script = place, place / "course.py"
        self.script.write_text(COMMAND, encoding="utf-8")

    def __call__(
        self, name: str, *, n: int = 1, batch_size: int = 4, **environment: str
    ) -> subprocess.CompletedProcess:
        out = self.place / name
        out.mkdir(exist_ok=True)
        (out / "run.toml").write_text(
            f"""
            corpus = {json.dumps(str(self.place / "corpus"))}
            teacher = {json.dumps(str(self.place / "teacher"))}
            length = {LENGTH}
            out = {json.dumps(str(out))}
            [recipe]
            steps = {STEPS}
            batch_size = {batch_size}
            accumulation = 4
            learning_rate = 1e-3
            log_every = 1
            save_every = 1
            """,
            encoding="utf-8",
        )
        launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={n}"]
        words = [*(launch if n > 1 else []), self.script, "distill-mlm"]
        return subprocess.run(
            [sys.executable, *map(str, words), "--config", str(out / "run.toml")],
            env=os.environ
            | {"COURSE_CACHE": str(self.place / "cache"), "COUNTS": str(out)}
            | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
            | environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def results(self, name: str) -> dict:
        return json.loads((self.place / name / "results.json").read_text(encoding="utf-8"))

    def weights(self, name: str) -> Path:
        return self.place / name / "student" / "model.safetensors"


@pytest.fixture(scope="module")
def command(place: Path) -> Command:
    return Command(place)


@pytest.fixture(scope="module")
def alone(command: Command) -> subprocess.CompletedProcess:
    return command("alone")


@pytest.fixture(scope="module")
def together(command: Command) -> subprocess.CompletedProcess:
    return command("together", n=2, batch_size=2)


def test_two_processes_train_as_one(command, alone, together):
    """Batches of 2 in two processes and of 4 in one; float32, sums in another order.

    Each line of the log agrees to a relative 1e-4, each weight to 1e-4 of its size, but for the
    biases of keys: their gradient is rounding, see `test_pretrain`.
    """
    for done in (alone, together):
        assert done.returncode == 0, done.stderr[-3000:]
    one, two = command.results("alone"), command.results("together")
    assert (one["processes"], two["processes"]) == (1, 2)
    assert len(one["log"]) == len(two["log"]) == STEPS
    for line, same in zip(one["log"], two["log"], strict=True):
        for part in PARTS:
            assert line[part] == pytest.approx(same[part], rel=1e-4)
    ours, theirs = load_file(command.weights("alone")), load_file(command.weights("together"))
    assert set(ours) == set(theirs)
    for name in ours:
        if not name.endswith("key.bias"):
            torch.testing.assert_close(ours[name], theirs[name], rtol=1e-4, atol=1e-5)


def test_gradients_are_sent_once_a_step(place, together):
    """Of 4 batches to a step the last alone; all of so small a model goes in one piece."""
    assert [int((place / "together" / rank).read_text()) for rank in "01"] == [STEPS, STEPS]


def test_one_process_speaks(together):
    said = together.stdout
    assert said.count(f"blocks of {LENGTH} tokens hold") == 2  # to train on, and held out
    assert said.count("Student: ") == said.count("perplexity") == 1


def test_a_killed_run_goes_on_and_gives_the_same_student(command, alone):
    """Bit for bit; a third start only reports."""
    killed = command("killed", DIE_AFTER="2")
    assert killed.returncode == -9
    assert not command.weights("killed").exists()
    assert command("killed").returncode == 0
    assert sha256(command.weights("killed")) == sha256(command.weights("alone"))
    ours, theirs = command.results("killed"), command.results("alone")
    assert ours["models"] == theirs["models"]
    assert [line["total"] for line in ours["log"]] == [line["total"] for line in theirs["log"]]
    written = (command.place / "killed" / "results.json").stat().st_mtime_ns
    again = command("killed", DIE_AFTER="0")
    assert again.returncode == 0
    assert "This run has ended" in again.stdout
    assert (command.place / "killed" / "results.json").stat().st_mtime_ns == written


def test_a_second_run_into_one_folder_is_refused(command):
    (command.place / "taken").mkdir()
    with RunLock(command.place / "taken"):
        done = command("taken")
    assert done.returncode == 2
    assert f"Another run writes into this folder: process {os.getpid()}" in done.stderr
    assert "Traceback" not in done.stderr


# --- what a run leaves ---


def test_student_and_scores_are_those_of_the_run(config, place):
    results = quietly(config)
    assert results == json.loads(Path(config.out, "results.json").read_text())
    student = load_masked_lm(Path(config.out, "student"))
    assert student.config.num_hidden_layers == 2
    tokenizer = AutoTokenizer.from_pretrained(Path(config.out, "student"))
    _, dev = held_out.split_blocks([config.corpus], tokenizer, length=LENGTH, say=str)
    blocks = MaskedBlocks(dev.select(range(8)), tokenizer)
    teacher = guess(load_masked_lm(place / "teacher"), blocks)
    scores = {row["name"]: row for row in results["models"]}
    assert [*scores] == ["teacher", "student", "before training"]
    expected = score_guesses(guess(student, blocks), teacher=teacher)
    assert {name: scores["student"][name] for name in expected} == pytest.approx(expected, rel=1e-3)
    assert scores["teacher"]["agreement"] == 1
    assert scores["before training"]["perplexity"] != scores["student"]["perplexity"]
    assert scores["teacher"]["layers"] == 2 * scores["student"]["layers"] == 4


def test_the_table_has_a_row_for_each_model(config):
    console = Console(width=100, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(as_table(quietly(config)))
    text = console.export_text()
    assert all(name in text for name in ("teacher", "student", "before training", "perplexity"))
    assert re.search(r"100\.0 \(100\.0–100\.0\)", text)


def test_checkpoints_that_were_removed_are_not_missed_at_the_end(config):
    first = quietly(config)
    shutil.rmtree(Path(config.out, "checkpoints"))
    lines = []
    assert run(config, say=lines.append) == first
    assert "has ended" in lines[-1]


def test_a_damaged_student_is_written_again(config):
    quietly(config)
    weights = Path(config.out, "student", "model.safetensors")
    before = weights.read_bytes()
    weights.write_bytes(before[:-1])
    quietly(config)
    assert weights.read_bytes() == before


def test_settings_reach_the_student_and_the_masks(config):
    other = replace(config, layers=(3, 0, 1), keep_token_types=False, smoothing=True)
    results = quietly(other)
    student = AutoModelForMaskedLM.from_pretrained(Path(config.out, "student"))
    assert student.config.model_type == "distilbert"
    assert student.config.num_hidden_layers == 3
    assert results["inputs"]["layers"] == [3, 0, 1]
    changes = ({"smoothing": False}, {"smoothing": False, "whole_words": True})
    prints = {
        quietly(replace(other, out=f"{config.out}-{k}", **change))["inputs"]["blocks"]
        for k, change in enumerate(changes)
    }
    assert len({results["inputs"]["blocks"], *prints}) == 3


def test_a_stream_is_trained_on_for_the_steps_asked_for(config, monkeypatch):
    texts = Dataset.from_dict({"text": TEXTS * 300})
    monkeypatch.setattr(held_out, "read_corpus", lambda *_, **__: texts.to_iterable_dataset())
    results = quietly(replace(config, corpus=("one", "two")))
    assert results["inputs"]["blocks"] == "a stream"
    assert [line["step"] for line in results["log"]] == [1, 2, 3, 4]
    with pytest.raises(DataError, match="stream"):
        quietly(replace(config, smoothing=True))
    with pytest.raises(DataError, match="stream"):
        quietly(replace(config, recipe=replace(config.recipe, steps=None)))


# --- what is refused ---


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"corpus": "missing.txt"}, DataError, "no such file"),
        ({"corpus": "no/such"}, DataError, "No corpus 'no/such': HF_HUB_OFFLINE is set"),
        ({"teacher": "./missing"}, ModelError, "no such folder"),
        ({"length": 33}, DataError, "`length` is 33; the teacher reads 32"),
        ({"length": 2}, DataError, "Blocks of 2 tokens"),
        ({"layers": 5}, ModelError, "5"),
        ({"layers": (0, 4)}, ModelError, "4"),
    ],
)
def test_what_cannot_be_used_is_named(config, changes, error, said):
    with pytest.raises(error, match=re.escape(said)):
        quietly(replace(config, **changes))
    assert not any(Path(config.out).glob("[!.]*"))


def test_a_teacher_without_weights(config, place, tmp_path):
    folder = shutil.copytree(place / "teacher", tmp_path / "teacher")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"model\.safetensors missing"):
        quietly(replace(config, teacher=str(folder)))


def test_a_teacher_that_has_not_learned_to_guess(config, tiny_teacher_folder):
    with pytest.raises(ModelError, match="no head for it"):
        quietly(replace(config, teacher=str(tiny_teacher_folder)))


@pytest.mark.parametrize(("split", "where"), [("train", "None"), ("dev", "what is held out")])
def test_a_corpus_shorter_than_a_block(config, place, tmp_path, split, where):
    folder = shutil.copytree(place / "corpus", tmp_path / "corpus")
    (folder / f"{split}.txt").write_text("The array.")
    with pytest.raises(DataError, match="do not fill one block") as error:
        quietly(replace(config, corpus=str(folder)))
    assert str(error.value.where) == where


def test_a_folder_of_another_run(config):
    quietly(config)
    with pytest.raises(OutputError, match=r"another run: recipe\.temperature 2\.0 there, 3 now"):
        quietly(replace(config, recipe=replace(config.recipe, temperature=3)))
    shutil.rmtree(Path(config.out, "student"))
    Path(config.out, "results.json").unlink()  # as if it had been killed before it wrote them
    with pytest.raises(OutputError, match=r"recipe\.temperature"):
        quietly(replace(config, recipe=replace(config.recipe, temperature=3)))
    with pytest.raises(OutputError, match="up to step 4"):
        quietly(config, resume=False)


# --- the settings that come with the course ---


def test_every_settings_file_can_be_read():
    configs = {file.stem: read_settings(file, Pretraining) for file in CONFIGS.glob("*.toml")}
    assert {"pydocs", "distilbert"} <= set(configs)
    authors = PretrainRecipe()
    recipe = configs["distilbert"].recipe
    for name in ("temperature", "soft", "hard", "cosine", "betas", "max_grad_norm", "warmup"):
        assert getattr(recipe, name) == getattr(authors, name)
    assert configs["distilbert"].corpus == ("wikipedia", "bookcorpus")


# --- the gpu profile's own path: a Hub id, 12 layers to 6, full width, accumulation, a resume ---

BERT = "google-bert/bert-base-uncased"


class Weights(bytes):
    """Large bytes; their repr, of which the local Hub makes a commit, is short."""

    def __repr__(self) -> str:
        return str(len(self))


def bert_base(folder: Path) -> dict[str, bytes]:
    """The files of a random BERT of the real one's size, in float16, and with as many words."""
    torch.manual_seed(0)
    BertForMaskedLM(BertConfig()).half().save_pretrained(folder)
    words = sorted({word.strip(".,?").lower() for text in TEXTS for word in text.split()})
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", ",", "?", *words]
    words += [f"[unused{k}]" for k in range(BertConfig().vocab_size - len(words))]
    (folder / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=512).save_pretrained(folder)
    return {file.name: Weights(file.read_bytes()) for file in folder.iterdir()}


@pytest.fixture
def bert_on_the_hub(tmp_path, monkeypatch):
    """The local Hub, with BERT under its own name, at the commit and with the hash we know."""
    files = bert_base(tmp_path / "bert")
    digest = hashlib.sha256(files["model.safetensors"]).hexdigest()
    monkeypatch.setitem(sources.KNOWN, BERT, sources.Known(fake_hub.commit(files), digest))
    monkeypatch.setattr(fake_hub, "etag", lru_cache(fake_hub.etag))
    for limit in ("START_S", "ANSWER_S", "STALL_S"):  # on a busy machine 220 MB take their time
        monkeypatch.setattr(hub, limit, 300.0)
    with fake_hub.FakeHub({("model", BERT): files}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        for name in ("COURSE_MIRROR", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_CACHE"):
            monkeypatch.delenv(name, raising=False)
        yield server


def stop_before(step: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of the steps whose batches were read, until the run is stopped."""
    train, read = DistillationTrainer.training_step, []

    def training_step(self, *args, **kwargs):
        if self.state.global_step + 1 == step:
            raise KeyboardInterrupt
        read.append(self.state.global_step + 1)
        return train(self, *args, **kwargs)

    monkeypatch.setattr(DistillationTrainer, "training_step", training_step)
    return read


def test_distilbert_from_the_hub_with_a_stop_and_a_resume(
    config, place, bert_on_the_hub, monkeypatch
):
    """The settings of configs/distilbert.toml; text, length and number of steps are this test's."""
    ours = read_settings(CONFIGS / "distilbert.toml", Pretraining)
    assert ours.recipe.accumulation == 2
    ours = replace(
        ours,
        corpus=config.corpus,
        length=32,
        held_out_blocks=4,
        out=config.out,
        recipe=replace(ours.recipe, steps=3, batch_size=2, log_every=1, save_every=2),
    )
    with monkeypatch.context() as patch:
        stop_before(3, patch)
        with pytest.raises(KeyboardInterrupt):
            run(ours)
    checkpoint = Path(ours.out, "checkpoints", "checkpoint-2")
    assert find_trouble(checkpoint) is None
    assert any("/resolve/" in request for request in bert_on_the_hub.requests)
    bert_on_the_hub.requests.clear()
    read = stop_before(4, monkeypatch)
    results = run(ours)
    assert read == [3, 3]
    assert bert_on_the_hub.requests == []  # it is in the cache
    assert [line["step"] for line in results["log"]] == [1, 2, 3]
    assert all(
        torch.tensor([line[part] for part in PARTS]).isfinite().all() for line in results["log"]
    )
    student = AutoModelForMaskedLM.from_pretrained(Path(ours.out, "student"))
    assert (student.config.num_hidden_layers, student.config.hidden_size) == (6, 768)
    assert student.config.model_type == "distilbert"
    sizes = {row["name"]: row["params"] for row in results["models"]}
    assert sizes == {"teacher": 109_514_298, "student": 66_985_530, "before training": 66_985_530}
