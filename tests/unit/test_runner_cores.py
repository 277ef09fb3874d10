"""Where the C runner keeps the threads of a measurement."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from targets._shared.runner import Job
from tests.runners import job_for, records, small_onnx, start


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return job_for("onnxruntime", small_onnx(tmp_path / "a.onnx"), threads=2)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"threads": 1, "core": 1000}, "core 1000 cannot be used"),
        ({"cores": (0, 1000)}, "cores 0,1000 cannot be used"),
        ({"cores": (10**6,)}, "'1000000' is no list of cores"),
        ({"cores": (-1,)}, "'-1' is no list of cores"),
    ],
)
def test_cores_that_are_not_there_are_refused(job: Job, asked: dict, said: str, tmp_path: Path) -> None:
    done = start(replace(job, **asked), tmp_path)
    assert done.returncode == 2
    assert said in done.stderr


@pytest.mark.parametrize("cores", ["", "1,", ",1", "1;2", "a"])
def test_what_is_no_list_of_cores_is_refused(job: Job, cores: str, tmp_path: Path) -> None:
    done = start(job.text() + f"cores {cores}\n", tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: job: '")


def test_threads_are_kept_where_the_job_says(job: Job, tmp_path: Path) -> None:
    there = sorted(os.sched_getaffinity(0))

    def kept(asked: Job) -> list[int]:
        return records(start(asked, tmp_path).stdout)[0]["affinity"]

    assert kept(job) == there
    assert kept(replace(job, cores=(there[0],))) == there[:1]
    assert kept(replace(job, cores=tuple(reversed(there)))) == there
    assert kept(replace(job, threads=1, cores=tuple(there))) == there[-1:]
    assert kept(replace(job, threads=1, core=there[0])) == there[:1]
