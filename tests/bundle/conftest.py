"""A made-up checkout, an index of wheels of some hundred bytes, and a bundle made of both."""

from __future__ import annotations

import base64
import ensurepip
import hashlib
import json
import os
import shutil
import zipfile
from pathlib import Path

import pytest

from course_utils.bundle import make, pip

DOCTOR = "import sys; print('the doctor was here:', *sys.argv[1:])"


def write_wheel(
    folder: Path, name: str, version: str, *, requires=(), files=None, python=">=3.8"
) -> Path:
    """A wheel that pip accepts: a module of one line, and what it says it requires."""
    info = f"{name}-{version}.dist-info"
    asked = "".join(f"Requires-Dist: {line}\n" for line in requires)
    content = {
        **(files or {f"{name}.py": f"version = {version!r}\n"}),
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        f"Requires-Python: {python}\n{asked}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\n"
        "Tag: py3-none-any\n",
    }
    record = ""
    for path, text in content.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=")
        record += f"{path},sha256={digest.decode()},{len(text.encode())}\n"
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in content.items():
            archive.writestr(zipfile.ZipInfo(path), text)
        archive.writestr(zipfile.ZipInfo(f"{info}/RECORD"), f"{record}{info}/RECORD,,\n")
    return wheel


@pytest.fixture(scope="session")
def checkout(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("checkout")
    texts = {
        "pyproject.toml": '[project]\nname = "shrinking-bert"\ndependencies = ["alpha>=1"]\n',
        "constraints/tested.txt": "# tested\nalpha==1.0\nbeta==2.0\n",
        "constraints/weights.txt": "gt_weights==0.1\n",
        "notebooks/00_start_here.ipynb": json.dumps({"cells": []}),
        "notebooks/source/00_start_here.py": "# not for learners",
        "data/probes/probes.tsv": "text\tlabel\n",
        "README.md": "# A course\n",
        "LICENSE": "free\n",
        "course_utils/__init__.py": "",
    }
    for name, text in texts.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.fixture(scope="session")
def index(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("index")
    write_wheel(folder, "alpha", "1.0", requires=['gamma>=3; sys_platform == "win32"'])
    write_wheel(folder, "beta", "2.0", requires=["alpha"])
    write_wheel(folder, "gamma", "3.1")
    write_wheel(folder, "gt_weights", "0.1", requires=["never-there"])
    for wheel in Path(ensurepip.__file__).with_name("_bundled").glob("pip-*.whl"):
        shutil.copy(wheel, folder)
    return folder


@pytest.fixture(scope="module")
def session(checkout, index, tmp_path_factory):
    """What every test of a bundle needs: pip asks only the index, and no wheel is built."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("PIP_")]:
            patch.delenv(name)
        patch.setenv("PIP_CONFIG_FILE", os.devnull)
        patch.setenv("PIP_NO_INDEX", "1")
        patch.setenv("PIP_FIND_LINKS", str(index))
        cache = tmp_path_factory.mktemp("cache")
        patch.setenv("COURSE_CACHE", str(cache))
        (cache / "prepared" / "teacher").mkdir(parents=True)
        (cache / "prepared" / "teacher" / "weights").write_text("weights")
        (cache / "prepared" / "run.json").write_text("{}")
        (cache / "progress.json").write_text("somebody's own")
        parts = [cache / "prepared" / name for name in ("teacher", "run.json")]
        patch.setattr("course_utils.fetch.fetch", lambda say: parts)
        patch.setattr(
            pip,
            "build",
            lambda root, folder: write_wheel(
                folder,
                "shrinking_bert",
                "0.1.0",
                files={"course_utils/__init__.py": "", "course_utils/__main__.py": DOCTOR},
            ),
        )
        yield


@pytest.fixture(scope="module")
def made(session, checkout, tmp_path_factory) -> Path:
    """A bundle for this machine; copy it before you change it."""
    return make.make(tmp_path_factory.mktemp("made") / "bundle", root=checkout, say=lambda _: None)


@pytest.fixture
def bundle(made, tmp_path) -> Path:
    """A bundle of this test's own."""
    return Path(shutil.copytree(made, tmp_path / "bundle"))
