from datetime import datetime
from pathlib import Path

import msgspec
import pytest
import sqlalchemy as sa

from features import Count, Entity, FeatureService, FeatureView
from features.applied import applied_version, load_applied, save_applied
from features.errors import ConfigError, DataError
from features.plan import Definitions
from features.planner import compile_definitions
from schemas.event import Event


class Click(Event, topic="clicks", time="at", key=["user"]):
    at: datetime
    user: str


def definitions(over: str = "1h", project: str = "shop") -> Definitions:
    view = FeatureView("clicks", entity=Entity("user"), source=Click, features={"n": Count(over=over)})
    return compile_definitions(project, [view, FeatureService("ranking", [view])])


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'registry.db'}"


def test_what_is_saved_is_what_is_loaded(url: str, tmp_path: Path) -> None:
    assert load_applied(url, "shop") is None
    assert applied_version(url, "shop") == 0
    assert not list(tmp_path.iterdir()), "looking makes no database"
    assert save_applied(url, definitions()) == 1
    assert load_applied(url, "shop") == definitions()


def test_the_version_rises_with_each_change_and_only_then(url: str) -> None:
    versions = [save_applied(url, definitions(over)) for over in ("1h", "1h", "6h", "1h")]
    assert versions == [1, 1, 2, 3]
    assert applied_version(url, "shop") == 3


def test_projects_do_not_see_each_other(url: str) -> None:
    save_applied(url, definitions(project="shop"))
    assert load_applied(url, "myshop") is None


def test_a_document_of_another_version_says_what_to_do(url: str) -> None:
    save_applied(url, definitions())
    with sa.create_engine(url).begin() as connection:
        connection.execute(sa.text("UPDATE headrace_definitions SET document = X'7B7D'"))
    with pytest.raises(DataError, match="can't be read.*headrace apply"):
        load_applied(url, "shop")


def test_an_unreachable_database_hides_its_password() -> None:
    with pytest.raises(ConfigError) as refused:
        load_applied("sqlite:////dev/null/registry.db?x=hunter2", "shop") or save_applied(
            "sqlite:////dev/null/registry.db", definitions()
        )
    assert "the registry's database can't be used" in str(refused.value)


def test_definitions_of_another_meaning_are_refused(url: str) -> None:
    """As after an upgrade of headrace that folds or finishes something otherwise."""
    applied = definitions()
    other = {name: msgspec.structs.replace(view, fingerprint="0" * 32) for name, view in applied.views.items()}
    save_applied(url, msgspec.structs.replace(applied, views=other))
    with pytest.raises(DataError, match="understands them otherwise"):
        load_applied(url, applied.project)
    assert load_applied(url, applied.project, of_any_version=True) is not None
