"""A folder of definitions is loaded file by file, and a mistake names its file, line, view, feature and next step."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.definitions.load import load, load_definitions
from schemas.errors import ConfigError, DefinitionError

EVENTS = """\
from datetime import datetime
from schemas import Event

class Trip(Event, topic="trips", time="at", key=["rider"]):
    at: datetime
    rider: str
    fare: float
"""
VIEWS = """\
from features import Count, Entity, FeatureService, FeatureView, Mean
from events import Trip

rider = Entity("rider", join_key="rider")
rides = FeatureView(
    "rides", entity=rider, source=Trip, features={"n": Count(over="1h"), "fare": Mean("fare", over="1h")}
)
"""


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder / "defs"


@pytest.mark.parametrize("module", ["events", ".events", "defs.events"])
def test_files_import_each_other_by_every_name(tmp_path: Path, module: str) -> None:
    views = VIEWS.replace("from events", f"from {module}")
    service = 'from views import rides\nfrom features import FeatureService\nmodel = FeatureService("model", [rides])'
    folder = write(tmp_path, {"defs/events.py": EVENTS, "defs/views.py": views, "defs/model.py": service})

    loaded, definitions = load_definitions(folder, "shop")

    assert list(definitions.views) == ["rides"]
    assert list(definitions.services) == ["model"]
    assert list(loaded.events) == ["Trip"]
    assert definitions.project == "shop"


def test_a_projects_own_schemas_stand_beside_headraces(tmp_path: Path) -> None:
    views = VIEWS.replace("from events", "from schemas.own_trips")
    folder = write(tmp_path, {"schemas/own_trips.py": EVENTS, "defs/views.py": views})
    assert list(load(folder).events) == ["Trip"]


def test_headraces_own_example_loads() -> None:
    _, definitions = load_definitions(Path(__file__).parents[3] / "features" / "views", "headrace")
    assert "late_arrival" in definitions.services


def test_another_folder_with_the_same_file_names_is_loaded_anew(tmp_path: Path) -> None:
    load(write(tmp_path / "one", {"defs/events.py": EVENTS, "defs/views.py": VIEWS}))
    other = write(tmp_path / "two", {"defs/events.py": EVENTS, "defs/views.py": VIEWS.replace('"rides"', '"trips"')})
    _, definitions = load_definitions(other, "shop")
    assert list(definitions.views) == ["trips"]


@pytest.mark.parametrize(
    ("views", "parts"),
    [
        (VIEWS.replace('Mean("fare"', 'Mean("fares"'), ["views.py:5", "'rides'", "'fare'", "'fares'", "did you mean"]),
        (VIEWS + "x = (\n", ["views.py:8", "isn't Python", "never closed"]),
        (VIEWS.replace("from events", "from eventz"), ["views.py:2", "'eventz'", "beside this one"]),
        (VIEWS + "from features import Meen\n", ["views.py:8", "Meen", "did you mean 'Mean'?"]),
        (VIEWS + "Meen('x')\n", ["views.py:8", "'Meen'", "did you mean 'Mean'?"]),
        (VIEWS + "1 / 0\n", ["views.py:8", "ZeroDivisionError"]),
        (VIEWS + "import sys\nsys.exit(3)\n", ["views.py:9", "SystemExit"]),
    ],
)
def test_a_broken_file_names_itself(tmp_path: Path, views: str, parts: list[str]) -> None:
    folder = write(tmp_path, {"defs/events.py": EVENTS, "defs/views.py": views})
    with pytest.raises(DefinitionError) as caught:
        load(folder)
    for part in parts:
        assert part in str(caught.value)


def test_all_broken_files_are_named_and_each_mistake_once(tmp_path: Path) -> None:
    events = EVENTS.replace('time="at"', 'time="att"')
    folder = write(tmp_path, {"defs/events.py": events, "defs/views.py": VIEWS, "defs/zoo.py": "x = ("})
    with pytest.raises(DefinitionError, match="2 mistakes") as caught:
        load(folder)
    assert str(caught.value).count("'att'") == 1
    assert "events.py:4" in str(caught.value)
    assert "zoo.py:1" in str(caught.value)


def test_two_declarations_of_one_name_name_both_places(tmp_path: Path) -> None:
    folder = write(tmp_path, {"defs/events.py": EVENTS, "defs/views.py": VIEWS, "defs/copy.py": VIEWS})
    with pytest.raises(DefinitionError, match=r"copy\.py:4 and .*views\.py:4"):
        load(folder)


def test_a_missing_or_empty_folder_says_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="HEADRACE_DEFINITIONS"):
        load(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="no Python file"):
        load(tmp_path)
    with pytest.raises(DefinitionError, match="nothing is declared"):
        load(write(tmp_path, {"defs/a.py": "x = 1"}))
