"""`train` by its two engines: time, memory, and the same bits. HEADRACE_TEST_BENCH_TRAINING has other sizes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from batch.settings import BatchSettings
from tests.bench import batch_work, train_engine
from tests.bench.processes import peak_mb
from tests.contract.stream.runners import MARKS

SIZES = [int(each) for each in os.environ.get("HEADRACE_TEST_BENCH_TRAINING", "1000000,10000000").split(",")]
ROWS_MAX = 1_000_000
pytestmark = [pytest.mark.bench, pytest.mark.timeout(3_600), *MARKS["spark"][-1:]]


@pytest.mark.parametrize("events", SIZES)
def test_the_engines_beside_each_other(events: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = BatchSettings(home=tmp_path / "home")
    rows = min(events // 10, ROWS_MAX)
    batch_work.make(settings, events, rows)
    found = {}
    for engine in ("local", "spark"):
        result = found[engine] = run(engine, settings.home)
        with capsys.disabled():
            print(
                f"\n{events / 1e6:5.0f} M events, {rows:,} rows, {engine:5}: {result['seconds']:6.1f} s"
                f" (and {result['start_s']:.1f} s to start), {result['peak_mb']:6,.0f} MB",
                end="",
            )
    assert found["local"]["rows"] == rows
    assert found["spark"]["digest"] == found["local"]["digest"]


def run(engine: str, home: Path) -> dict[str, Any]:
    root = Path(train_engine.__file__).parents[2]
    with (home / f"{engine}.log").open("w+") as log:
        process = subprocess.Popen(
            [sys.executable, train_engine.__file__, engine, str(home)],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=root,
            env=os.environ | {"PYTHONPATH": str(root)},
        )
        peak = peak_mb(process)
        assert process.stdout is not None
        output = process.stdout.read()
        log.seek(0)
        assert process.returncode == 0, log.read()[-3_000:]
    result: dict[str, Any] = json.loads(output.splitlines()[-1])
    return result | {"peak_mb": peak}
