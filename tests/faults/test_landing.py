"""Faults of the lander: what stands in Iceberg is each event once, up to the offsets that its snapshot names."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from batch.catalog import load, open_catalog
from batch.land import run_lander
from batch.offsets import offsets_of
from batch.settings import BatchSettings
from batch.tables import events_table
from tests.contract.batch.test_land import Log

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

FULL_KIB = 400
PLENTY_KIB = 100_000


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of FULL_KIB for the tables' files; `mount -o remount,size=` makes it larger."""
    folder = tmp_path / "home" / "warehouse"
    folder.mkdir(parents=True)
    mounted = _mount("-t", "tmpfs", "-o", f"size={FULL_KIB}k", "none", str(folder))
    if mounted.returncode != 0:
        pytest.skip(f"no disk of its own for this test without the right to mount one: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_the_disk_is_full_while_landing(
    kafka: str, unique: Callable[[str], str], tmp_path: Path, small_disk: Path
) -> None:
    """Each time it fills up the lander ends; what it committed stands, and the next one goes on from there."""
    log = Log(kafka, unique("readings"), tmp_path / "home")
    log.produce(100_000)
    for size_kib in (FULL_KIB, 2 * FULL_KIB, PLENTY_KIB):
        assert _mount("-o", f"remount,size={size_kib}k", str(small_disk)).returncode == 0
        # Many small commits: the disk is full in the middle of one.
        full = pytest.raises(OSError, match="No space left") if size_kib < PLENTY_KIB else nullcontext()
        with full:
            log.land(land_rows_max=4_000)
        _check_consistent(log)
    log.check(100_000)
    log.admin.delete_topics([log.topic])


def test_two_landers_race(kafka: str, unique: Callable[[str], str], tmp_path: Path) -> None:
    """Both read everything; each commit that comes second drops what is landed."""
    log = Log(kafka, unique("readings"), tmp_path / "home")
    log.produce(5_000, broken=20)
    errors: list[BaseException] = []

    def land() -> None:
        try:
            run_lander(
                log.definitions,
                log.events,
                log.settings(land_rows_max=300),
                until_caught_up=True,
                stop=threading.Event(),
            )
        except BaseException as error:
            errors.append(error)

    racing = [threading.Thread(target=land) for _ in range(2)]
    for each in racing:
        each.start()
    for each in racing:
        each.join()
    # Who finds the other far ahead may give up, and says so; nothing is lost or doubled.
    log.land()
    log.check(5_000, 20)
    assert len(errors) < 2, errors
    log.admin.delete_topics([log.topic])


def _check_consistent(log: Log) -> None:
    """The rows are exactly the events below the snapshot's offsets."""
    settings: BatchSettings = log.settings()
    offsets = offsets_of(load(open_catalog(settings), events_table(log.topic))).of(log.topic)
    places = [(row["kafka_partition"], row["kafka_offset"]) for row in log.rows()]
    assert sorted(places) == sorted((p, offset) for p, end in offsets.items() for offset in range(end))


def _mount(*arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        return subprocess.CompletedProcess(["mount"], 127, "", str(error))
