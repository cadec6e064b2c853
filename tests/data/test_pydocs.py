"""Prose out of docstrings, the corpus made of it, and the task made of the corpus."""

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from datasets import Dataset

from course_utils.data import docstrings as reader
from course_utils.data import pydocs
from course_utils.data.docstrings import docstrings, is_prose, paragraphs_in, paragraphs_of
from course_utils.data.tasks import load_task

SPLITS = ("train", "dev", "test")
LIBRARIES = re.compile(
    r"numpy|scipy|scikit|sklearn|pandas|torch|matplotlib|pyplot|transformers|hugging.?face|python"
    r"|stdlib|(?<![a-z])(?:np|pd|plt|mpl)(?![a-z])",
    re.IGNORECASE,
)
PROSE = "Return the sum of all values along the given axis of the array."


def only(docstring: str) -> str:
    (text,) = paragraphs_of(docstring)
    return text


# --- paragraphs ---


def test_paragraphs_are_plain_lines():
    docstring = f"""{PROSE}

        The result has the same shape
        as the input, with one   axis less,
        and a wider type.

    Short one.
    """
    assert list(paragraphs_of(docstring)) == [
        PROSE,
        "The result has the same shape as the input, with one axis less, and a wider type.",
    ]


@pytest.mark.parametrize(
    "block",
    [
        ">>> total = sum(values) and this is a long line of code to read.",
        "First we say what it does.\n>>> total = sum(values) of many words here.",
        "In [1]: this is a session that someone has copied into the text here.",
        ".. note:: This is a directive and what it says is not in the text at all.",
        ".. code-block:: text\n   this is what the block holds, and it is long enough.",
        "Parameters of this function\n----------\nx : the value that is to be added to the others.",
        "=====  =====\nThis is the head of a table in the text here.\n=====  =====",
        "| name | what it is for and what it does to us |\n|---|---|\n| a | the first of all. |",
        "+------+\n| This is a table with a frame around it, in many words. |\n+------+",
        "$ pip install this one and then that one and wait for it to end.",
        "%timeit is the name of this and the rest of the words does not matter.",
        "# A comment that was left in the text of this docstring by someone.",
        "@decorator is what stands here before the rest of the words of it.",
        "x = [a[i] + b[j] for i in range(n) for j in range(m) if i != j]; y = f(x)",
        "A heading without an end to it that goes on for quite some words",
        "Too short to be of use.",
        "word " * 100 + "end.",
        "Cette méthode rend la somme de toutes les valeurs le long d'un axe.",
        "返回数组沿给定轴的总和 and some words so that it is long enough to be read.",
        "",
    ],
)
def test_what_is_not_prose_is_left_out(block):
    assert list(paragraphs_of(block)) == []
    assert list(paragraphs_of(f"{PROSE}\n\n{block}\n\n{PROSE}")) == [PROSE, PROSE]


@pytest.mark.parametrize("words", [reader.MIN_WORDS, reader.MAX_WORDS])
def test_the_limits_of_length(words):
    text = "word " * (words - 1) + "end."
    assert only(text) == text
    beyond = words - 1 if words == reader.MIN_WORDS else words + 1
    assert not is_prose("word " * (beyond - 1) + "end.")


@pytest.mark.parametrize(
    ("markup", "plain"),
    [
        (":func:`sum`", "sum"),
        (":class:`~collections.abc.Mapping`", "collections.abc.Mapping"),
        (":py:meth:`.Figure.draw`", "Figure.draw"),
        (":ref:`the guide <user-guide>`", "the guide"),
        ("``values``", "values"),
        ("`values`", "values"),
        ("*every* **single**", "every single"),
        ("`the paper <https://example.org/a_(b)>`_", "the paper"),
        ("`the paper <https://example.org>`__", "the paper"),
        ("[the paper](https://example.org)", "the paper"),
        ("the paper [1]_", "the paper"),
        ("the page (https://example.org/x?y=1)", "the page ("),
        ("the page www.example.org today", "the page today"),
        (r"f\_name", "f_name"),
        ("|name|", "name"),
    ],
)
def test_markup_becomes_its_words(markup, plain):
    text = f"What this one returns depends on {markup} and on how it is called here."
    assert only(text) == f"What this one returns depends on {plain} and on how it is called here."


@pytest.mark.parametrize("mark", ["-", "*", "+", "1.", "2)", "(3)", "•"])
def test_the_mark_of_a_list_goes(mark):
    assert only(f"{mark} {PROSE}") == PROSE


@pytest.mark.parametrize(
    ("name", "hidden"),
    [
        ("numpy", "the library"),
        ("NumPy", "the library"),
        ("the NumPy", "the library"),
        ("The SciPy", "the library"),
        ("a Pandas", "the library"),
        ("the\n    NumPy", "the library"),
        ("np.array", "library.array"),
        ("NP.array", "library.array"),
        ("the np.array", "library.array"),
        ("``numpy.ndarray``", "library.ndarray"),
        (":class:`numpy.ndarray`", "library.ndarray"),
        (":func:`~torch.nn.functional.relu`", "library.nn.functional.relu"),
        ("pd.DataFrame", "library.DataFrame"),
        ("plt.plot", "library.plot"),
        ("mpl.rcParams", "library.rcParams"),
        ("scikit-learn", "the library"),
        ("Scikit-Learn", "the library"),
        ("scikit-\n    learn", "the library"),
        ("scikit learn", "the library"),
        ("sklearn.svm", "library.svm"),
        ("PyTorch", "the library"),
        ("torch", "the library"),
        ("matplotlib.pyplot", "library.the library"),
        ("Hugging Face", "the library"),
        ("Hugging\n    Face", "the library"),
        ("huggingface_hub", "the library"),
        ("transformers", "the library"),
        ("Python 3", "the library 3"),
        ("Python3.11", "the library"),
        ("CPython", "the library"),
        ("IPython", "the library"),
        ("stdlib", "the library"),
        ("NumPy's", "the library's"),
        ("NumPy-like", "the library-like"),
        ("numpy/scipy", "the library/the library"),
        ("to_numpy", "the library"),
        ("np_array", "the library"),
        ("my_np", "the library"),
        ("TorchScript", "the library"),
        ("__torch_function__", "the library"),
        ("(numpy)", "(the library)"),
        ("numpydoc", "the library"),
        ("pandas.", "the library."),
    ],
)
def test_no_library_is_named(name, hidden):
    text = only(f"What this one returns depends on {name} and on how it is called here.")
    assert text == f"What this one returns depends on {hidden} and on how it is called here."
    assert not LIBRARIES.search(text)


@pytest.mark.parametrize(
    "word", ["input", "unplug", "snp", "expand", "pdf", "transformer", "amplify"]
)
def test_other_words_stay(word):
    text = f"What this one returns depends on {word} and on how it is called here."
    assert only(text) == text


# --- files ---

MODULE = '''
"""The module says what it holds, in a sentence that is long enough."""
raise SystemExit("imported")

TEXT = """This is a string and not a docstring, however long it may well be."""

class Shape:
    """A shape that has some sides and an area that can be asked for."""

    def area(self):
        """The area of this shape, in the unit of its sides, but squared."""
        def helper():
            """A function in a function has something to say as well, in words."""

    async def wait(self):
        """Wait until somebody has drawn this shape on the screen again."""

if TEXT:
    def on_linux():
        """Only one system has this one, and it says so in this sentence."""
else:
    try:
        def elsewhere():
            """Everywhere else this one is here instead of the one above it."""
    except ImportError:
        def nowhere():
            """And this one is here when all the others could not be had."""
'''


def test_every_docstring_of_a_module_is_found():
    assert sorted(text.split()[0] for text in docstrings(MODULE)) == sorted(
        ["The", "A", "The", "A", "Wait", "Only", "Everywhere", "And"]
    )


@pytest.mark.parametrize(
    "source",
    [
        "def broken(:",
        "print 'two'",
        "x = '\0'",
        "(" * 5000,
        "\tif\n  x",
        "x = " + "-" * 100_000 + "1",
    ],
)
def test_a_file_that_is_not_python_has_none(source):
    assert list(docstrings(f'"""{PROSE}"""\n{source}')) == []


def test_a_warning_of_the_parser_stays_unseen(recwarn):
    assert list(docstrings('"""A \\d doc."""\nx = "\\d" is 1')) == ["A \\d doc."]
    assert not recwarn.list


def test_files_of_every_kind_are_survived(tmp_path):
    (tmp_path / "latin.py").write_bytes(f'"""{PROSE}"""\nx = "é"'.encode("latin-1"))
    (tmp_path / "bytes.py").write_bytes(bytes(range(256)))
    (tmp_path / "empty.py").write_bytes(b"")
    (tmp_path / "bom.py").write_bytes(b"\xef\xbb\xbf" + f'"""{PROSE}"""'.encode())
    (tmp_path / "link.py").symlink_to(tmp_path / "nowhere.py")
    (tmp_path / "folder.py").mkdir()
    found = {name: paragraphs_in(tmp_path / f"{name}.py") for name in ("latin", "bytes", "empty")}
    assert found == {"latin": [PROSE], "bytes": [], "empty": []}
    assert paragraphs_in(tmp_path / "link.py") == paragraphs_in(tmp_path / "folder.py") == []
    assert paragraphs_in(tmp_path / "bom.py") == [PROSE]


# --- the corpus, of packages made for this ---

WORDS = ["amber", "birch", "cedar", "dunes", "ember", "fjord", "grove", "hazel", "inlet", "juniper"]


def sentences(package: str, n: int) -> list[str]:
    """n sentences with different letters; np. stands in every one of them."""
    words = [f"{WORDS[i // 10 % 10]} and {WORDS[i % 10]}" for i in range(n)]
    return [f"In {package} the np.array of {pair} is what comes back here." for pair in words]


def write_package(site: Path, name: str, texts: list[str]) -> None:
    folder = site / name
    (folder / "sub").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise SystemExit('imported')")
    (folder / "broken.py").write_text(f'"""{PROSE}"""\ndef (')
    for k, text in enumerate(texts):
        inner = folder / "sub" if k % 2 else folder
        (inner / f"m{k}.py").write_text(f'"""{text}"""\nraise SystemExit("imported")')
    for hidden in ("tests/test_a.py", "_vendor/other.py", "modular_a.py", "notes.txt"):
        (folder / hidden).parent.mkdir(exist_ok=True)
        (folder / hidden).write_text(
            f'"""This text of {name} in {hidden[:5]} must not be read by us."""'
        )


class Calls:
    """What `_read` was asked for, and an error at one of the calls if wanted."""

    def __init__(self, read):
        self.read, self.files, self.count = read, [], 0
        self.error, self.at = None, 0

    def __call__(self, sources):
        self.count += 1
        self.files += [file for _, file in sources]
        if self.error and self.count == self.at:
            raise self.error
        return self.read(sources)


@pytest.fixture
def calls(tmp_path, monkeypatch) -> Calls:
    """Two labelled packages and another, none of which can be imported; an empty cache."""
    site = tmp_path / "site"
    write_package(
        site,
        "alpha",
        [
            *sentences("alpha", 100),
            "This text stands in two packages, word for word, and counts in none.",
        ],
    )
    write_package(
        site,
        "beta",
        [
            *sentences("beta", 80),
            "This text stands in two packages, word for word, and counts in none.",
        ],
    )
    write_package(site, "gamma", sentences("gamma", 10))
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setattr(pydocs, "LABELS", ("alpha", "beta"))
    monkeypatch.setattr(pydocs, "OTHERS", ("gamma", "not_installed"))
    monkeypatch.setattr(pydocs, "FILES_AT_ONCE", 40)
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "cache"))
    calls = Calls(pydocs._read)
    monkeypatch.setattr(pydocs, "_read", calls)
    return calls


def cached(tmp_path: Path) -> list[str]:
    folder = tmp_path / "cache" / "pydocs"
    return sorted(os.listdir(folder)) if folder.exists() else []


def test_the_corpus_holds_each_text_of_one_package(calls):
    corpus = pydocs.corpus(progress=False)
    assert corpus.column_names == ["text", "package", "split"]
    assert Counter(corpus["package"]) == {"alpha": 100, "beta": 80, "gamma": 10}
    texts = list(corpus["text"])
    assert len(set(texts)) == len(texts) == 190
    assert "In beta the library.array of amber and cedar is what comes back here." not in texts
    assert "In beta library.array of amber and cedar is what comes back here." in texts
    assert not [text for text in texts if LIBRARIES.search(text)]
    assert not [text for text in texts if "two packages" in text or "must not" in text]
    assert list(corpus["split"]) == [pydocs.split_of(text) for text in texts]


def test_nothing_is_imported(calls):
    before = set(sys.modules)
    pydocs.corpus(progress=False)
    assert not {"alpha", "beta", "gamma"} & (set(sys.modules) - before)


def test_the_corpus_does_not_depend_on_the_order_of_files(calls, monkeypatch, tmp_path):
    first = pydocs.corpus(progress=False).to_list()
    files_of = pydocs._files_of
    monkeypatch.setattr(pydocs, "_files_of", lambda package: files_of(package)[::-1])
    monkeypatch.setattr(pydocs, "FILES_AT_ONCE", 7)
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "other"))
    assert pydocs.corpus(progress=False).to_list() == first


def test_the_corpus_is_built_once(calls, tmp_path):
    first = pydocs.corpus(progress=False)
    count = calls.count
    assert count > 1
    assert len(cached(tmp_path)) == 1
    assert pydocs.corpus(progress=False).to_list() == first.to_list()
    assert calls.count == count


def test_another_version_is_another_corpus(calls, tmp_path, monkeypatch):
    versions = pydocs.versions()
    pydocs.corpus(progress=False)
    count = calls.count
    monkeypatch.setattr(pydocs, "versions", lambda: versions | {"alpha": "2.0"})
    (tmp_path / "site" / "alpha" / "new.py").write_text(f'"""{PROSE}"""')
    assert PROSE in pydocs.corpus(progress=False)["text"]
    assert calls.count > count
    monkeypatch.setattr(pydocs, "versions", lambda: versions)
    count = calls.count
    assert PROSE not in pydocs.corpus(progress=False)["text"]
    assert calls.count == count


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), MemoryError(), subprocess.CalledProcessError(1, "")]
)
def test_an_interrupted_build_leaves_nothing_and_does_not_go_on(
    calls, tmp_path, monkeypatch, error
):
    monkeypatch.setattr(pydocs, "FILES_AT_ONCE", 1)
    calls.error, calls.at = error, 3
    with pytest.raises(type(error)):
        pydocs.corpus(progress=False)
    assert cached(tmp_path) == []
    assert calls.count < 60  # of some 200 files
    calls.error = None
    monkeypatch.setattr(pydocs, "FILES_AT_ONCE", 40)
    assert len(pydocs.corpus(progress=False)) == 190


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:1000])


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("*.arrow", cut),
        ("*.arrow", Path.unlink),
        ("state.json", cut),
        ("dataset_info.json", Path.unlink),
        ("state.json", lambda file: file.write_text("")),
    ],
)
def test_a_damaged_corpus_is_built_again(calls, tmp_path, name, damage):
    first = pydocs.corpus(progress=False).to_list()
    (folder,) = (tmp_path / "cache" / "pydocs").iterdir()
    damage(next(folder.glob(name)))
    assert pydocs.corpus(progress=False).to_list() == first
    assert len(cached(tmp_path)) == 1


def test_versions_are_those_of_this_environment():
    versions = pydocs.versions()
    assert set(pydocs.LABELS) <= set(versions)
    assert versions["stdlib"] == ".".join(map(str, sys.version_info[:3]))
    assert versions["numpy"] == __import__("numpy").__version__


@pytest.mark.parametrize("package", pydocs.LABELS)
def test_every_labelled_package_has_files_here(package):
    files = pydocs._files_of(package)
    assert len(files) > 100
    assert not [file for file in files if file.suffix != ".py" or "tests" in file.parts[-4:-1]]


def test_a_script_without_a_main_guard_may_build_it(calls, tmp_path):
    """Neither that script nor a module in the current folder is run again by the readers."""
    script = tmp_path / "mine" / "script.py"
    script.parent.mkdir()
    script.write_text(
        "print('once')\n"
        "from course_utils.data import pydocs\n"
        "pydocs.LABELS, pydocs.OTHERS = ('alpha', 'beta'), ()\n"
        "print(len(pydocs.corpus(progress=False)))\n"
    )
    here = tmp_path / "here"
    here.mkdir()
    for name in ("json.py", "ast.py", "re.py"):
        (here / name).write_text("raise SystemExit('the wrong module')")
    environment = os.environ | {
        "PYTHONPATH": str(tmp_path / "site"),
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    }
    for command, text in (([script], None), (["-"], script.read_text())):
        folder = here if text is None else tmp_path
        done = subprocess.run(
            [sys.executable, *command],
            cwd=folder,
            env=environment
            | {"COURSE_CACHE": str(tmp_path / f"cache of {command[0]}".replace("/", "_"))},
            input=text,
            capture_output=True,
            text=True,
        )
        assert (done.stdout, done.returncode) == ("once\n180\n", 0), done.stderr


# --- splits and the task ---


@pytest.mark.parametrize(
    ("text", "split"),
    [
        (PROSE, "train"),
        ("Draw the figure again when something in it has changed.", "train"),
        ("Compute the inverse of a matrix.", "dev"),
        ("Wait for an answer.", "test"),
        ("", "train"),
        # the first and the last of every split: numbers 0, 74, 75, 82, 83 and 99
        ("amber amber dunes", "train"),
        ("amber ember juniper", "train"),
        ("birch amber cedar", "dev"),
        ("amber birch juniper", "dev"),
        ("amber dunes cedar", "test"),
        ("amber ember cedar", "test"),
    ],
)
def test_the_split_of_a_text_never_changes(text, split):
    assert pydocs.split_of(text) == split


def test_texts_with_the_same_letters_are_in_the_same_split():
    assert len({pydocs.split_of(t) for t in ("Version 1.2 adds it.", "version 3, adds IT!")}) == 1


def test_the_shares_of_the_splits():
    counts = Counter(pydocs.split_of(f"{a} {b} {c}") for a in WORDS for b in WORDS for c in WORDS)
    assert abs(counts["train"] - 750) < 50
    assert abs(counts["dev"] - 80) < 30
    assert abs(counts["test"] - 170) < 40


@pytest.fixture
def small(calls, monkeypatch):
    for name, n in (
        ("TRAIN_PER_CLASS", 40),
        ("DEV_PER_CLASS", 3),
        ("TEST_PER_CLASS", 8),
        ("UNLABELLED", 30),
    ):
        monkeypatch.setattr(pydocs, name, n)
    return calls


def test_the_task_is_balanced_and_its_splits_are_disjoint(small):
    splits, unlabelled = pydocs.task_splits(progress=False)
    counts = {split: Counter(part["label"]) for split, part in splits.items()}
    assert counts == {"train": {0: 40, 1: 40}, "dev": {0: 3, 1: 3}, "test": {0: 8, 1: 8}}
    texts = [text for part in splits.values() for text in part["text"]] + unlabelled
    assert len(set(texts)) == len(texts)
    for split, part in splits.items():
        for text, label in zip(part["text"], part["label"], strict=True):
            assert pydocs.split_of(text) == split
            assert ("alpha", "beta")[label] in text
    assert 0 < len(unlabelled) <= 30
    assert {pydocs.split_of(text) for text in unlabelled} == {"train"}
    labels = list(splits["train"]["label"])
    assert labels != sorted(labels)


def test_the_task_is_the_same_every_time(small):
    splits, unlabelled = pydocs.task_splits(progress=False)
    again, unlabelled_again = pydocs.task_splits(progress=False)
    assert unlabelled == unlabelled_again
    assert {s: part.to_list() for s, part in splits.items()} == {
        s: part.to_list() for s, part in again.items()
    }


def test_long_texts_are_not_in_the_task(small, tmp_path, monkeypatch):
    long = " ".join(["word"] * pydocs.MOST_WORDS) + " end."
    just = " ".join(["term"] * (pydocs.MOST_WORDS - 1)) + " end."
    for name, text in (("long", long), ("just", just)):
        (tmp_path / "site" / "alpha" / f"{name}.py").write_text(f'"""{text}"""')
    for name in ("TRAIN_PER_CLASS", "DEV_PER_CLASS", "TEST_PER_CLASS", "UNLABELLED"):
        monkeypatch.setattr(pydocs, name, 1000)
    assert long in pydocs.corpus(progress=False)["text"]
    splits, unlabelled = pydocs.task_splits(progress=False)
    texts = {text for part in splits.values() for text in part["text"]} | set(unlabelled)
    assert just in texts
    assert long not in texts


def test_load_task_gives_the_pydocs_task(small, monkeypatch):
    monkeypatch.delenv("COURSE_MIRROR", raising=False)
    said = []
    task = load_task(say=said.append, progress=False)
    splits, unlabelled = pydocs.task_splits(progress=False)
    assert (task.name, task.labels) == ("pydocs", ("alpha", "beta"))
    assert [getattr(task, s).to_list() for s in SPLITS] == [splits[s].to_list() for s in SPLITS]
    assert list(task.unlabelled) == unlabelled
    assert said == ["Using pydocs, built in."]
    fingerprint = task.fingerprint
    assert load_task(say=str, progress=False).fingerprint == fingerprint
    monkeypatch.setattr(pydocs, "UNLABELLED", 29)
    assert load_task(say=str, progress=False).fingerprint != fingerprint


def test_the_code_that_decides_the_corpus_is_in_its_key(calls, monkeypatch):
    keys = {pydocs._key()}
    monkeypatch.setattr(pydocs, "_SKIPPED_FOLDERS", {"tests"})
    keys.add(pydocs._key())
    monkeypatch.setattr(pydocs, "OTHERS", ("gamma",))
    keys.add(pydocs._key())
    assert len(keys) == 3


def test_the_real_task(monkeypatch):
    """The one test that reads the real packages; it takes the cache where there is one."""
    monkeypatch.delenv("COURSE_MIRROR", raising=False)
    task = load_task("pydocs", say=str, progress=False)
    assert task.labels == pydocs.LABELS
    assert len(task.labels) == 8
    assert len(task.test) >= 2000
    texts = []
    for split in SPLITS:
        part = getattr(task, split)
        assert isinstance(part, Dataset)
        counts = Counter(part["label"])
        assert set(counts) == set(range(8))
        assert len(set(counts.values())) == 1
        texts.append(set(part["text"]))
        assert len(texts[-1]) == len(part)
        assert {pydocs.split_of(text) for text in part["text"]} == {split}
    everything = [*texts[0], *texts[1], *texts[2], *task.unlabelled]
    assert len(set(everything)) == len(everything)
    assert len(task.unlabelled) >= 5000
    assert not [text for text in everything if LIBRARIES.search(text)]
