"""What `plan` says of a change, and what `apply` refuses."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from features import Count, DerivedView, Entity, FeatureService, FeatureView, Mean, Request
from features.plan import Definitions
from features.planner import compile_definitions
from headrace.definitions.diff import Action, compare, refuse_new_meanings
from schemas import Event
from schemas.errors import ChangedMeaning, DefinitionError


class Ride(Event, topic="rides", time="at", key=["rider"]):
    """A ride."""

    at: datetime
    rider: str
    fare: float


def declared(
    features: dict[str, Any] | None = None, owner: str = "me", ratio: str = "rides.fare / base", log: float = 0.0
) -> Definitions:
    rider = Entity("rider", join_key="rider")
    rides = FeatureView(
        "rides",
        entity=rider,
        source=Ride,
        owner=owner,
        features=features or {"n": Count(over="1h"), "fare": Mean("fare", over="1h")},
    )
    derived = DerivedView("ratios", inputs=[rides, Request(base=float)], features={"ratio": ratio})
    return compile_definitions("shop", [rides, derived, FeatureService("model", [rides, derived], log=log)])


def test_everything_is_added_to_nothing_and_nothing_differs_from_itself() -> None:
    diff = compare(None, declared())
    assert [(change.action, change.kind, change.name) for change in diff.changes] == [
        (Action.ADD, "event", "Ride"),
        (Action.ADD, "entity", "rider"),
        (Action.ADD, "view", "rides"),
        (Action.ADD, "derived view", "ratios"),
        (Action.ADD, "service", "model"),
    ]
    assert not compare(declared(), declared())
    refuse_new_meanings(diff)


def test_an_owner_and_a_service_may_change() -> None:
    diff = compare(declared(), declared(owner="you", log=0.5))
    assert {change.name: change.details for change in diff.changes} == {
        "rides": ("owner: 'me' -> 'you'",),
        "model": ("log: 0.0 -> 0.5",),
    }
    refuse_new_meanings(diff)


def test_a_changed_meaning_is_refused_and_says_what_changed() -> None:
    changed = {"n": Count(over="1h"), "fare": Mean("fare", over="2h")}
    diff = compare(declared(), declared(changed))
    with pytest.raises(ChangedMeaning) as caught:
        refuse_new_meanings(diff)
    assert "view 'rides'" in str(caught.value)
    assert "feature fare: Mean('fare', over='1h'): float64 -> Mean('fare', over='2h'): float64" in str(caught.value)
    assert "--replace rides" in str(caught.value)


def test_replace_lets_a_view_change_and_its_derived_views_follow() -> None:
    changed = {"n": Count(over="1h"), "fare": Mean("fare", over="2h")}
    diff = compare(declared(), declared(changed), replace=["rides"])
    refuse_new_meanings(diff)
    assert diff.replaced_views == ("rides",)
    (follower,) = [change for change in diff.changes if change.name == "ratios"]
    assert (follower.action, follower.new_meaning, follower.details) == (Action.CHANGE, False, ("its inputs change",))


def test_a_derived_views_own_words_are_its_meaning() -> None:
    diff = compare(declared(), declared(ratio="rides.fare - base"))
    with pytest.raises(ChangedMeaning, match="--replace ratios"):
        refuse_new_meanings(diff)
    refuse_new_meanings(compare(declared(), declared(ratio="rides.fare - base"), replace=["ratios"]))


def test_what_is_gone_is_removed() -> None:
    less = compile_definitions("shop", [Ride])
    diff = compare(declared(), less)
    assert {(change.action, change.name) for change in diff.changes} == {
        (Action.REMOVE, name) for name in ("rider", "rides", "ratios", "model")
    }
    refuse_new_meanings(diff)


def test_replacing_an_unknown_view_names_the_known() -> None:
    with pytest.raises(DefinitionError, match="there are: rides, ratios"):
        compare(declared(), declared(), replace=["ride"])
