"""The workflow for GitHub runs what the README tells people to run, on Pythons that we accept."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parents[1]
WORKFLOW = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text(encoding="utf-8"))
JOBS = WORKFLOW["jobs"]
ON = WORKFLOW[True]  # YAML 1.1 reads the word "on" so


def pythons(job):
    written = job.get("strategy", {}).get("matrix", {}).get("python")
    return written or [step["with"]["python-version"] for step in job["steps"] if "with" in step]


def commands(job):
    return [step["run"] for step in job["steps"] if "run" in step]


def test_two_pythons_are_tested_and_all_are_accepted():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    accepted = SpecifierSet(project["requires-python"])
    assert len(set(pythons(JOBS["tested"]))) >= 2
    assert all(accepted.contains(version) for job in JOBS.values() for version in pythons(job))


def test_it_runs_on_changes_and_every_week():
    assert {"push", "pull_request", "schedule"} <= ON.keys()
    assert re.fullmatch(r"\d+ \d+ \* \* [0-6]", ON["schedule"][0]["cron"])
    assert "!= 'schedule'" in JOBS["tested"]["if"]
    assert "== 'schedule'" in JOBS["latest"]["if"]


def test_the_tested_versions_are_those_of_make_test():
    assert commands(JOBS["tested"]) == ["make test"]


@pytest.mark.parametrize(
    "command", [c for job in JOBS.values() for c in commands(job) if c.startswith("make ")]
)
def test_make_knows_its_targets(command):
    dry = subprocess.run(
        [*command.split(), "--dry-run", "VENV=no-such-folder"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert dry.returncode == 0, dry.stderr
    constraints = re.search(r"CONSTRAINTS=(\S+)", command)
    assert (
        f"--constraint {constraints[1] if constraints else 'constraints/tested.txt'}" in dry.stdout
    )


def test_the_newest_versions_have_no_pins():
    lines = (ROOT / "constraints/latest.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if not line.startswith("#")] == []


def test_nobody_may_write_from_it():
    assert WORKFLOW["permissions"] == {"contents": "read"}
