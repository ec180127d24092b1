"""Long-running work turns to what is applied while it runs, and ends when it is told to."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from features.applied import save_applied
from headrace.definitions.follow import run_following
from headrace.definitions.load import load_definitions
from headrace.wiring import Project
from schemas.errors import ConfigError, NotReady
from schemas.settings import ConnectionSettings

DEFINITIONS = """\
from datetime import datetime
from features import Count, Entity, FeatureView
from schemas import Event

class Trip(Event, topic="trips", time="at", key=["rider"]):
    at: datetime
    rider: str

rider = Entity("rider", join_key="rider")
rides = FeatureView("rides", entity=rider, source=Trip, owner="OWNER", features={"n": Count(over="WINDOW")})
"""


@pytest.fixture
def settings(tmp_path: Path) -> ConnectionSettings:
    (tmp_path / "defs").mkdir()
    made = ConnectionSettings(home=tmp_path, project="shop", definitions=tmp_path / "defs")
    apply(made)
    return made


def apply(settings: ConnectionSettings, window: str = "1h", owner: str = "me") -> None:
    text = DEFINITIONS.replace("WINDOW", window).replace("OWNER", owner)
    (settings.definitions / "shop.py").write_text(text)
    save_applied(settings.registry_address(), load_definitions(settings.definitions, "shop")[1])


def following(settings: ConnectionSettings, during: Callable[[int], None]) -> list[str]:
    """The windows that each run saw; `during` is called in each run with its number."""
    stop = threading.Event()

    def run(project: Project, end: threading.Event) -> str:
        number = len(seen)
        seen.append(project.definitions.views["rides"].features[0].declared)
        during(number)
        if not end.wait(4):
            stop.set()
            end.wait(4)
        return seen[-1]

    seen: list[str] = []
    assert run_following(settings, stop, run) == seen
    return seen


def test_another_meaning_begins_another_run(settings: ConnectionSettings) -> None:
    def during(number: int) -> None:
        if number == 0:
            apply(settings, "2h")

    assert following(settings, during) == ["Count(over='1h')", "Count(over='2h')"]


def test_an_owner_changes_no_work(settings: ConnectionSettings) -> None:
    assert following(settings, lambda number: apply(settings, owner="you")) == ["Count(over='1h')"]


def test_work_that_ends_by_itself_is_not_begun_again(settings: ConnectionSettings) -> None:
    assert run_following(settings, threading.Event(), lambda project, end: "done") == ["done"]


def test_a_signal_ends_the_work_soon(settings: ConnectionSettings) -> None:
    stop = threading.Event()
    threading.Timer(0.2, stop.set).start()
    started = time.monotonic()
    run_following(settings, stop, lambda project, end: end.wait(30))
    assert time.monotonic() - started < 10


def test_what_is_declared_otherwise_than_applied_is_refused(settings: ConnectionSettings) -> None:
    text = DEFINITIONS.replace("rider: str", "rider: str\n    fare: float").replace("WINDOW", "1h")
    (settings.definitions / "shop.py").write_text(text)
    with pytest.raises(ConfigError, match="'Trip' is declared otherwise"):
        run_following(settings, threading.Event(), lambda project, end: None)


def test_nothing_applied_says_so(settings: ConnectionSettings) -> None:
    other = settings.model_copy(update={"project": "other"})
    with pytest.raises(NotReady, match="headrace apply"):
        run_following(other, threading.Event(), lambda project, end: None)
