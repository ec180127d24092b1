"""Training sets beside the window query that a careful person would write by hand, in one run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from batch.settings import BatchSettings
from tests.bench import batch_work, feast_join

EVENTS, ROWS = 10_000_000, 1_000_000
RATIO_MAX = 0.25
BYTES_MAX = 4 << 30


def run_script(script: str, work: str, home: Path) -> dict[str, Any]:
    """One piece of work in its own process."""
    root = Path(batch_work.__file__).parents[2]
    command = [sys.executable, script, work, str(home)]
    environment = os.environ | {"PYTHONPATH": str(root)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def run(work: str, home: Path) -> dict[str, Any]:
    return run_script(batch_work.__file__, work, home)


@pytest.mark.bench
@pytest.mark.timeout(1800)
def test_ten_million_events_a_million_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = BatchSettings(home=tmp_path / "home")
    batch_work.make(settings, EVENTS, ROWS)
    by_hand = run("by_hand", settings.home)
    ours = min((run("ours", settings.home) for _ in range(2)), key=lambda result: float(result["seconds"]))
    with capsys.disabled():
        print(f"\n10 M events, 1 M rows, 18 features, {os.cpu_count()} cores")
        for name, result in (("headrace", ours), ("window query by hand", by_hand)):
            print(
                f"  {name:22} {result['seconds']:6.1f} s  {result['cpu']:6.1f} CPU s  {result['bytes'] / 2**30:.1f} GiB"
            )
        print(f"  ratio {ours['seconds'] / by_hand['seconds']:.2f}")
    for name, value in by_hand["digest"].items():
        assert ours["digest"][name] == pytest.approx(value, rel=1e-9), name
    assert ours["bytes"] <= BYTES_MAX
    assert ours["seconds"] <= RATIO_MAX * by_hand["seconds"]


@pytest.mark.bench
@pytest.mark.timeout(900)
def test_latest_values_beside_feasts_duckdb_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = tmp_path / "home"
    feast_join.make(home, 2_000_000, 200_000)
    theirs, ours = (
        min(
            (run_script(feast_join.__file__, work, home) for _ in range(2)), key=lambda result: float(result["seconds"])
        )
        for work in ("feast", "ours")
    )
    with capsys.disabled():
        print(f"\n200,000 rows over 2 M facts of 10 columns, {os.cpu_count()} cores")
        for name, result in (("headrace", ours), ("Feast's DuckDB store", theirs)):
            print(f"  {name:22} {result['seconds']:6.2f} s")
        print(f"  {theirs['seconds'] / ours['seconds']:.1f} times as fast")
    assert ours["nulls"] == theirs["nulls"]
    assert ours["sums"] == pytest.approx(theirs["sums"], abs=1e-6)
    assert theirs["seconds"] >= 4 * ours["seconds"]
