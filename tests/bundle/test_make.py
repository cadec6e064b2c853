"""A bundle holds all it promises, goes on where it was stopped, and says why it cannot be made."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
from collections import namedtuple
from types import SimpleNamespace

import pytest

from course_utils.bundle import contents, install, make, pip, plan
from course_utils.bundle.plan import Pins
from course_utils.bundle.platforms import PLATFORMS, this_python
from course_utils.data import pydocs
from course_utils.distill.lock import RunLock
from course_utils.errors import CourseError, OutputError

LINUX, WINDOWS = PLATFORMS["linux-x86_64"], PLATFORMS["windows-x86_64"]


def again(bundle, checkout, said=None, **options):
    return make.make(
        bundle, root=checkout, say=(said if said is not None else []).append, **options
    )


def never(*words):
    raise AssertionError(f"pip was called: {words}")


def failing(text):
    return lambda *words: SimpleNamespace(returncode=1, stdout="", stderr=text)


def test_it_holds_what_a_class_needs_and_nothing_of_the_authors(made):
    files = {p.relative_to(made).as_posix() for p in made.rglob("*") if p.is_file()}
    visible = {name for name in files if not name.startswith(".")}
    wheels = {name for name in visible if name.startswith("wheels/")}
    assert {name.split("-")[0] for name in wheels} == {
        f"wheels/{name}" for name in ("alpha", "beta", "gt_weights", "pip", "shrinking_bert")
    }
    assert visible - wheels == {
        "README.txt",
        "SHA256SUMS",
        "bundle.json",
        "install.py",
        "install.sh",
        "install.bat",
        "course/notebooks/00_start_here.ipynb",
        "course/data/probes/probes.tsv",
        "course/README.md",
        "course/LICENSE",
        "cache/prepared/teacher/weights",
        "cache/prepared/run.json",
    }
    assert (made / "README.txt").read_text().count("\n") == 3
    assert "@PYTHON@" not in (made / "install.sh").read_text()
    assert b"\r\n" in (made / "install.bat").read_bytes()


def test_the_sums_are_those_of_sha256sum(made):
    if not shutil.which("sha256sum"):
        pytest.skip("there is no sha256sum here")
    done = subprocess.run(
        ["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=made, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, b"")
    make.check(made, say=lambda line: None)


def test_a_second_run_asks_pip_for_nothing(bundle, checkout, monkeypatch):
    before = (bundle / "SHA256SUMS").read_text()
    monkeypatch.setattr(pip, "_pip", never)
    again(bundle, checkout)
    assert (bundle / "SHA256SUMS").read_text() == before


def test_a_bundle_that_is_renewed_stays_for_the_same_machines(bundle, checkout):
    again(bundle, checkout, platforms="linux-x86_64,windows-x86_64")
    again(bundle, checkout)
    assert list(install.read_manifest(bundle)["platforms"]) == ["linux-x86_64", "windows-x86_64"]
    assert list((bundle / "wheels").glob("gamma-*"))
    again(bundle, checkout, platforms="linux-x86_64")
    assert not list((bundle / "wheels").glob("gamma-*"))
    make.check(bundle, say=lambda line: None)


def test_a_bundle_that_is_renewed_keeps_its_index_of_pytorch(bundle, checkout, monkeypatch):
    asked, plan = [], make.wheels_for

    def planned(*args, torch_index, say):
        asked.append(torch_index)
        return plan(*args, torch_index=None, say=say)

    monkeypatch.setattr(make, "wheels_for", planned)
    again(bundle, checkout, torch_index="URL")
    again(bundle, checkout, platforms="linux-x86_64,windows-x86_64")
    assert asked == ["URL", "URL"]


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{",
        "null",
        '{"platforms": null}',
        '{"platforms": 5}',
        pytest.param("[" * 100_000, id="deep"),
    ],
)
def test_what_the_maker_noted_may_be_damaged(bundle, checkout, text):
    before = (bundle / "SHA256SUMS").read_text()
    for name in (".plan.json", "bundle.json"):
        (bundle / name).write_text(text)
    again(bundle, checkout)
    assert (bundle / "SHA256SUMS").read_text() == before
    make.check(bundle, say=lambda line: None)


def test_a_changed_source_is_built_again_and_what_is_of_no_use_goes(bundle, checkout, tmp_path):
    root = shutil.copytree(checkout, tmp_path / "checkout")
    (root / "course_utils" / "__init__.py").write_text("changed = True")
    (root / "notebooks" / "01_next.ipynb").write_text("{}")
    (bundle / "course" / "notebooks" / "99_gone.ipynb").write_text("{}")
    held = json.loads((bundle / ".plan.json").read_text())["course"]["sources"]
    again(bundle, root)
    assert json.loads((bundle / ".plan.json").read_text())["course"]["sources"] != held
    assert (bundle / "course" / "notebooks" / "01_next.ipynb").exists()
    assert not (bundle / "course" / "notebooks" / "99_gone.ipynb").exists()
    make.check(bundle, say=lambda line: None)


@pytest.mark.parametrize("fault", ["missing", "damaged"])
def test_a_wheel_that_is_missing_or_damaged_is_named_and_only_it_is_brought(
    bundle, checkout, fault, monkeypatch
):
    wheel = next((bundle / "wheels").glob("alpha-*"))
    wheel.unlink() if fault == "missing" else wheel.write_bytes(b"torn")
    with pytest.raises(CourseError, match=rf"1 of \d+ files .*alpha-1.0.*{fault}"):
        make.check(bundle)
    calls = []
    bring = pip.bring
    monkeypatch.setattr(
        pip,
        "bring",
        lambda some, *words, **named: (calls.append(some), bring(some, *words, **named)),
    )
    again(bundle, checkout)
    assert [wheel.name for some in calls for wheel in some] == ["alpha"]
    make.check(bundle, say=lambda line: None)


def test_a_bundle_that_was_stopped_is_none_and_goes_on(made, checkout, tmp_path, monkeypatch):
    bundle = shutil.copytree(made, tmp_path / "bundle")
    for wheel in (bundle / "wheels").glob("[abg]*"):
        wheel.unlink()
    monkeypatch.setattr(make, "AT_ONCE", 1)
    bring, left = pip.bring, [1]

    def stopped(*words, **named):
        if not left.pop():
            raise KeyboardInterrupt
        left.append(0)
        bring(*words, **named)

    monkeypatch.setattr(pip, "bring", stopped)
    with pytest.raises(KeyboardInterrupt):
        again(bundle, checkout)
    assert len(list((bundle / "wheels").glob("[abg]*"))) == 1
    assert not list(bundle.glob(".parts*"))
    with pytest.raises(CourseError, match="not a whole bundle: SHA256SUMS is missing"):
        make.check(bundle)
    said = []
    monkeypatch.setattr(pip, "bring", bring)
    again(bundle, checkout, said)
    assert "5 wheels, 3 of them there already" not in said
    assert any("wheels, 2 of them there already" in line for line in said)
    make.check(bundle, say=lambda line: None)


@pytest.mark.parametrize("held", ["a folder", "a file"])
def test_what_is_something_else_is_left_alone(session, checkout, tmp_path, held):
    out = tmp_path / "thesis"
    if held == "a file":
        out.write_text("chapter 1")
    else:
        out.mkdir()
        (out / "thesis.tex").write_text("chapter 1")
    with pytest.raises(OutputError, match="not empty and no bundle"):
        again(out, checkout)
    files = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert [p.read_text() for p in files] == ["chapter 1"]


def test_two_at_once(bundle, checkout):
    with RunLock(bundle), pytest.raises(OutputError, match="Another run writes into this folder"):
        again(bundle, checkout)
    make.check(bundle, say=lambda line: None)


def test_a_stick_too_small_is_told_before_anything_changes(bundle, checkout, monkeypatch):
    next((bundle / "wheels").glob("alpha-*")).unlink()
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage(10, 10, 0))
    monkeypatch.setattr(pip, "sizes", lambda wheels: [3_000_000_000 for _ in wheels])
    with pytest.raises(OutputError, match=r"needs 3.00 GB more here .* 3.00 GB are missing"):
        again(bundle, checkout)
    assert (bundle / "SHA256SUMS").exists()


def test_a_stick_that_fills_up_meanwhile(bundle, checkout, monkeypatch):
    next((bundle / "wheels").glob("alpha-*")).unlink()
    monkeypatch.setattr(pip, "_pip", failing("OSError: [Errno 28] No space left on device"))
    with pytest.raises(OutputError, match="The disk is full"):
        again(bundle, checkout)
    assert list((bundle / "wheels").glob("beta-*"))


def test_a_wheel_that_does_not_come_is_named(bundle, checkout, monkeypatch):
    for name in ("alpha", "beta"):
        next((bundle / "wheels").glob(f"{name}-*")).unlink()
    asked = pip._pip
    monkeypatch.setattr(
        pip,
        "_pip",
        lambda *words: failing("ERROR: 404")() if "beta==2.0" in words else asked(*words),
    )
    with pytest.raises(CourseError, match=r"beta-2.0-py3-none-any.whl could not be .*ERROR: 404"):
        again(bundle, checkout)


def test_a_wheel_that_is_not_what_the_index_announced(tmp_path, session):
    wheels, _ = pip.find(["alpha==1.0"], LINUX, this_python())
    changed = pip.Wheel(**{**vars(wheels[0]), "sha256": "0" * 64})
    with pytest.raises(CourseError, match=r"alpha-1\.0-py3-none-any\.whl is not the file"):
        pip.bring([changed], LINUX, this_python(), tmp_path)


def test_no_network(bundle, checkout, monkeypatch):
    monkeypatch.setattr(
        pip,
        "_pip",
        failing(
            "WARNING: Retrying (Retry(total=1))\nERROR: No matching distribution found for alpha"
        ),
    )
    with pytest.raises(CourseError, match="could not ask the package index"):
        again(bundle, checkout, platforms="macos-arm64")
    assert (bundle / "SHA256SUMS").exists()


def test_no_pip(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(CourseError, match="This Python has no pip"):
        pip.find(["alpha"], LINUX, this_python())


def test_no_such_platform_and_no_checkout(tmp_path):
    with pytest.raises(CourseError, match="No bundle can be made for 'amiga'"):
        make.make(tmp_path / "out", platforms="linux-x86_64,amiga")
    with pytest.raises(CourseError, match="in a checkout of the course"):
        make.make(tmp_path / "out", root=tmp_path)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("names", [",", " ", " , "])
def test_a_comma_alone_names_no_platform(bundle, checkout, names):
    with pytest.raises(CourseError, match="No bundle can be made for") as error:
        again(bundle, checkout, platforms=names)
    assert all(name in error.value.do for name in PLATFORMS)
    make.check(bundle, say=lambda line: None)


@pytest.mark.parametrize("fault", ["empty", "one line", "without bundle.json"])
def test_a_list_that_says_too_little_is_no_whole_bundle(bundle, fault):
    lines = (bundle / "SHA256SUMS").read_text().splitlines(keepends=True)
    if fault == "without bundle.json":
        lines = [line for line in lines if "bundle.json" not in line]
    else:
        lines = lines[:-1] if fault == "one line" else []
    (bundle / "SHA256SUMS").write_text("".join(lines))
    with pytest.raises(CourseError, match=r"is damaged|lacks wheels/shrinking_bert"):
        make.check(bundle)


def test_what_one_platform_needs_beyond_the_pins_is_found(session):
    pins = Pins(("alpha==1.0",), (), ())
    names = {
        target.name: {wheel.name for wheel in plan.wheels_for(target, pins, this_python())}
        for target in (LINUX, WINDOWS)
    }
    assert names == {"linux-x86_64": {"alpha", "pip"}, "windows-x86_64": {"alpha", "gamma", "pip"}}


def test_a_wheel_that_cannot_be_had_stops_it_if_something_needs_it(monkeypatch):
    there = {name: pip.Wheel(f"{name}.whl", "", "", name, "1.0") for name in ("alpha", "pip")}

    def find(lines, *words, index=None):
        names = [line.partition("==")[0] for line in lines]
        return [there[n] for n in names if n in there], [n for n in names if n not in there]

    monkeypatch.setattr(pip, "find", find)
    tested, said = ("alpha==1.0", "only-elsewhere==1.0", "nor-this==2.0"), []
    with pytest.raises(CourseError, match="There is no wheel of nor-this for linux-x86_64"):
        plan.wheels_for(LINUX, Pins(tested, (), ("nor-this",)), this_python(), say=said.append)
    wheels = plan.wheels_for(LINUX, Pins(tested, (), ("alpha",)), this_python(), say=said.append)
    assert {wheel.name for wheel in wheels} == {"alpha", "pip"}
    assert said == ["linux-x86_64: no wheel of nor-this, only-elsewhere, which nothing needs there"]


def test_the_least_python_is_what_every_wheel_accepts(tmp_path, session):
    wheels = [
        pip.Wheel("f", "s", "u", "n", "1", requires_python=r) for r in ("", ">=3.11.4,!=3.11.5")
    ]
    assert plan.least_python(wheels, "3.11.9") == "3.11.4"


def test_pytorch_with_cuda_is_told_of(bundle, checkout, monkeypatch):
    monkeypatch.setattr(make, "is_cuda", lambda wheels: True)
    said = []
    again(bundle, checkout, said)
    assert any("several gigabytes" in line and "--torch-index" in line for line in said)


def test_torch_alone_comes_from_its_own_index(monkeypatch):
    calls = []

    def find(lines, *words, index=None):
        calls.append((list(lines), index))
        return [], []

    monkeypatch.setattr(pip, "find", find)
    pins = Pins(("alpha==1.0", "torch==2.0"), ("weights==1.0",), ())
    plan.wheels_for(LINUX, pins, this_python(), torch_index="URL")
    assert calls == [(["alpha==1.0", "weights==1.0", "pip"], None), (["torch==2.0"], "URL")]


def test_caches_are_left_out_where_they_would_be_made_again(session, monkeypatch):
    monkeypatch.setattr(pydocs, "versions", lambda: {"stdlib": "3.11.7", "numpy": "2.5"})
    wheel = pip.Wheel("numpy", "", "", "numpy", "2.4")
    said = []
    assert contents.of_cache({"linux-x86_64": [wheel]}, said.append) == {}
    assert said == ["Without caches, which each machine then builds: numpy 2.5 here, 2.4 there"]
    torch = pip.Wheel("torch", "", "", "torch", "2.5+cpu")
    monkeypatch.setattr(pydocs, "versions", lambda: {"stdlib": "3.11.7", "torch": "2.5"})
    assert "cache/prepared/run.json" in contents.of_cache({"linux-x86_64": [torch]}, said.append)


def test_slides_travel_if_there_are_some(checkout, tmp_path):
    said = []
    assert not any("slides" in name for name in contents.of_checkout(checkout, said.append))
    assert "make slides" in said[0]
    root = shutil.copytree(checkout, tmp_path / "checkout")
    (root / "build" / "slides").mkdir(parents=True)
    (root / "build" / "slides" / "00.html").write_text("slides")
    assert "course/slides/00.html" in contents.of_checkout(root, said.append)


def test_the_names_of_the_installer_and_of_the_maker_are_one():
    assert install.this_platform().split("-")[0] in {"linux", "macos", "windows"}
    assert {name for name in PLATFORMS if "-" in name} == set(PLATFORMS)
