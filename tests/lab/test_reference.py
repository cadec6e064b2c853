"""The committed runs keep the contract, can be read again, and hold what the course promises."""

import pytest

from course_utils.errors import DataError
from course_utils.lab.operations import parse, written
from course_utils.lab.reference import reference
from course_utils.lab.run import PIPELINES
from course_utils.measure.report import validate


@pytest.fixture(params=["pydocs", "sst2"])
def results(request):
    return reference(request.param)


def test_it_keeps_the_contract_and_names_versions_and_machine(results):
    validate(results)
    assert {"torch", "transformers", "onnxruntime", "shrinking-bert"} <= set(
        results["extra"]["versions"]
    )
    assert results["machine"]["cpu"]
    teacher, *rows = results["rows"]
    assert teacher["name"] == "teacher"
    assert all(written(parse(row["name"])) == row["name"] for row in rows)
    against = [d["name"] for d in results["differences"] if d["than"] == "teacher"]
    assert against == [row["name"] for row in rows]


def test_all_default_pipelines_are_in_the_reference_for_the_course_s_own_task():
    assert [row["name"] for row in reference("pydocs")["rows"]] == ["teacher", *PIPELINES]


def test_ten_and_twenty_times_smaller_as_promised(results):
    def there_is_one(smaller, faster, kept):
        return [
            row
            for row in results["rows"]
            if row["size_ratio"] >= smaller
            and min(row["speedup_batch1"], row["speedup_batch32"]) >= faster
            and row["retention"] >= kept
        ]

    assert there_is_one(10, 6, 0.97)
    assert there_is_one(20, 1, 0.94)


def test_another_set_is_refused_in_words():
    with pytest.raises(DataError, match="no reference run of 'reviews'"):
        reference("reviews")
