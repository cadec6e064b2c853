"""The instructor's guide: its minutes were measured, and its plans add up."""

import json
import re
import shutil
import sys
from pathlib import Path

import pytest

from course_utils.classroom.checks import exercises
from course_utils.errors import CourseError

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import lessons  # noqa: E402 - it lives in tools/, which is no package
import timings  # noqa: E402
import update_guide  # noqa: E402

PAGE = (ROOT / update_guide.GUIDE).read_text(encoding="utf-8")
NUMBERS = [path.stem[:2] for path in sorted((ROOT / "notebooks" / "source").glob("[0-9]*.py"))]
PLANS = ("90-minutes", "half-day", "one-day", "term")
ROW = re.compile(r"^\| (\d+):(\d\d) \| (.*) \| (\d+) \|$", re.MULTILINE)


def wrong_sums(page):
    """What does not add up in the plans of a page, read from its tables alone."""
    found = []
    for table in re.findall(r"^\| at \| what .*?(?=\n\n|\n<!--)", page, re.DOTALL | re.MULTILINE):
        now, rows = (
            0,
            [(int(h) * 60 + int(m), what, int(n)) for h, m, what, n in ROW.findall(table)],
        )
        *steps, (end, last, total) = rows
        for at, what, minutes in steps:
            if at != now:
                found.append(f"{what} begins at {at}, not {now}")
            now += minutes
        limit = int(re.fullmatch(r"the end, of (\d+) minutes", last)[1])
        if not now == end == total <= limit:
            found.append(f"{steps[0][1]}: {now}, {end}, {total}, {limit}")
    return found


def test_the_tables_are_those_that_the_tool_writes():
    assert update_guide.guide(ROOT) == PAGE


def test_the_minutes_of_every_plan_add_up():
    assert len(re.findall(r"^\| at \| what ", PAGE, re.MULTILINE)) >= 14
    assert wrong_sums(PAGE) == []


@pytest.mark.parametrize("plan", PLANS)
def test_a_wrong_sum_would_be_seen(plan):
    block = re.search(rf"<!-- plan {plan} -->.*?<!-- /plan {plan} -->", PAGE, re.DOTALL)[0]
    for hours, minutes, what, n in ROW.findall(block):
        row = f"| {hours}:{minutes} | {what} | {n} |"
        longer = f"| {hours}:{minutes} | {what} | {int(n) + 1} |"
        assert wrong_sums(PAGE.replace(block, block.replace(row, longer, 1))), row


def test_every_notebook_was_measured_in_both_profiles():
    results = json.loads((ROOT / timings.FILE).read_text(encoding="utf-8"))
    assert sorted(name[:2] for name in results) == NUMBERS
    for runs in results.values():
        assert {"smoke", "cpu"} <= runs.keys()
        assert all(run["seconds"] > 0 and run["peak_mb"] > 100 for run in runs.values())


def test_every_chapter_has_its_minutes_a_goal_and_a_place_in_a_plan():
    known = lessons.chapters(ROOT)
    assert list(known) == NUMBERS
    for chapter in known.values():
        assert min(chapter.talk, chapter.read, chapter.compute) >= 1
        assert set(chapter.exercises) <= exercises().keys()
        assert all(exercises()[name].notebook == chapter.number for name in chapter.exercises)
    assert len(known["03"].exercises) == 7
    named = "\n".join(step.what for s in lessons.sessions(ROOT) for step in (*s.steps, *s.home))
    assert [n for n, chapter in known.items() if f"{n} {chapter.title}" not in named] == []


IN_WORDS = "one two three four five six seven eight nine ten".split()


@pytest.mark.parametrize("number", NUMBERS)
def test_the_readme_and_the_notebook_give_the_minutes_of_the_guide(number):
    chapter = lessons.chapters(ROOT)[number]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    [(study, compute)] = re.findall(
        rf"^\| \[{number}\]\(.* \| (\d+) \| (\d+) minutes? \|$", readme, flags=re.MULTILINE
    )
    assert int(compute) == chapter.compute
    # The column is a round number; it may promise more time than the parts add up to, not less.
    assert int(study) + 3 > chapter.read + chapter.compute + sum(chapter.exercises.values())
    [source] = (ROOT / "notebooks" / "source").glob(f"{number}_*.py")
    head = " ".join(source.read_text(encoding="utf-8").partition("# > **About ")[2][:300].split("\n# >"))
    assert head.startswith(f"{study} minutes**")
    assert re.search(r"works for about +(\w+)", head)[1] == IN_WORDS[chapter.compute - 1]


def test_what_is_left_for_home_is_what_was_not_done_in_the_room():
    chapter = lessons.Chapter("03", "Loss", 30, 20, 2, {"soften": 8, "soft_loss": 12, "fault": 20})
    left = lessons._at_home(chapter, {"soften"})
    assert left.minutes == 20 + 2 + 12 + 20
    assert "2 exercises" in left.what


class TestRefusals:
    @pytest.fixture
    def course(self, tmp_path):
        for name in ("notebooks/source", "slides"):
            shutil.copytree(ROOT / name, tmp_path / name)
        (tmp_path / timings.FILE).parent.mkdir(parents=True)
        shutil.copy(ROOT / timings.FILE, tmp_path / timings.FILE)
        return tmp_path

    def write(self, course, old, new):
        file = course / "slides" / "plans.toml"
        text = file.read_text(encoding="utf-8")
        assert old in text
        file.write_text(text.replace(old, new, 1), encoding="utf-8")

    def test_a_session_that_is_too_long(self, course, capsys):
        self.write(course, "minutes = 90", "minutes = 30")
        assert update_guide.main(course) == 1
        assert "minutes do not go into 30" in capsys.readouterr().err
        assert (course / update_guide.GUIDE).read_text(encoding="utf-8") == PAGE

    @pytest.mark.parametrize(
        "step",
        ["talk 07", "exercise unknown", "pause", "pause long", "discuss 10", "sing 03", ""],
    )
    def test_a_step_that_is_not_understood(self, step):
        with pytest.raises(CourseError, match="is not understood"):
            lessons._step(step, lessons.chapters(ROOT))

    def test_an_exercise_that_no_slide_sets(self):
        with pytest.raises(CourseError, match="No slide sets the exercise soften") as refused:
            lessons._step("exercise soften", lessons.chapters(ROOT))
        assert "soft_loss, spot_the_fault" in str(refused.value)

    def test_a_notebook_that_was_not_measured(self, course):
        (course / timings.FILE).write_text("{}", encoding="utf-8")
        with pytest.raises(CourseError, match="00_start_here was not measured"):
            lessons.chapters(course)
