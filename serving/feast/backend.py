"""Feast's own store behind the HTTP routes for plain Feast views. Importing this takes seconds."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
from feast import FeatureStore
from feast.data_source import PushMode
from feast.errors import FeastError, FeastObjectNotFoundException
from feast.feature_server_utils import convert_response_to_dict
from feast.protos.feast.serving.ServingService_pb2 import GetOnlineFeaturesResponse

from features.plan import Definitions
from schemas.errors import ConfigError, HeadraceError, NotFound, RequestError
from serving.entities import instant_us
from serving.feast.online import refuse_own_view

PUSH_MODES = {
    "online": PushMode.ONLINE,
    "offline": PushMode.OFFLINE,
    "online_and_offline": PushMode.ONLINE_AND_OFFLINE,
}
_EPOCH = datetime.fromtimestamp(0, UTC)


class Backend:
    """The Feast store of a HEADRACE_HOME. Raises RequestError and its kin for whatever Feast does not take."""

    def __init__(self, home: Path) -> None:
        try:
            self._store = FeatureStore(repo_path=str(home))
        except (OSError, ValueError, FeastError) as error:
            raise ConfigError("the Feast store can't be opened", where=str(home), got=str(error)) from error

    def read(
        self, what: str | Any, entities: dict[str, list[Any]], full_feature_names: bool, versions: bool
    ) -> GetOnlineFeaturesResponse:
        """Feast's own answer."""
        try:
            try:
                return self._read(what, entities, full_feature_names, versions)
            except FeastObjectNotFoundException:
                # It may have been applied since the registry was last read.
                self._store.refresh_registry()  # type: ignore[no-untyped-call]
                return self._read(what, entities, full_feature_names, versions)
        except HeadraceError:
            raise
        except Exception as error:
            raise _refused(error) from error

    def read_dict(
        self, what: str | Any, entities: dict[str, list[Any]], full_feature_names: bool, versions: bool
    ) -> dict[str, Any]:
        """The same as Feast's HTTP server writes it."""
        answer: dict[str, Any] = convert_response_to_dict(self.read(what, entities, full_feature_names, versions))
        return answer

    def _read(
        self, what: str | Any, entities: dict[str, list[Any]], full_feature_names: bool, versions: bool
    ) -> GetOnlineFeaturesResponse:
        features = self._store.get_feature_service(what, allow_cache=True) if isinstance(what, str) else list(what)
        return self._store.get_online_features(
            features=features,
            entity_rows=entities,
            full_feature_names=full_feature_names,
            include_feature_view_version_metadata=versions,
        ).proto

    def write(
        self, path: str, request: dict[str, Any], query: dict[str, str], definitions: Definitions | None
    ) -> dict[str, Any]:
        """One of the routes that write; answers what was done."""
        try:
            return ROUTES[path](self, request, definitions)
        except HeadraceError:
            raise
        except Exception as error:
            # For a request that it can't take Feast raises whatever it meets: KeyError, AssertionError, pandas' errors.
            raise _refused(error) from error

    def _push(self, request: dict[str, Any], definitions: Definitions | None) -> dict[str, Any]:
        name = _text(request, "push_source_name")
        to = request.get("to", "online")
        if to not in PUSH_MODES:
            raise RequestError(f'"to" is one of {", ".join(PUSH_MODES)}', got=repr(to), hint="leave it out for online")
        frame = _frame(request)
        cached = request.get("allow_registry_cache", True) is not False
        views = [*self._store.list_feature_views(cached), *self._store.list_stream_feature_views(cached)]
        if not any(view.stream_source is not None and view.stream_source.name == name for view in views):
            raise NotFound("no feature view has that push source", got=repr(name), hint="see `feast data-sources list`")
        self._store.push(
            push_source_name=name,
            df=frame,
            allow_registry_cache=cached,
            to=PUSH_MODES[to],
            transform_on_write=request.get("transform_on_write", True) is not False,
        )
        return {"rows": len(frame)}

    def _write(self, request: dict[str, Any], definitions: Definitions | None) -> dict[str, Any]:
        view = _text(request, "feature_view_name")
        if definitions is not None:
            refuse_own_view(definitions, view)
        cached = request.get("allow_registry_cache", True) is not False
        frame = self._renamed(view, _frame(request), cached)
        self._store.write_to_online_store(
            feature_view_name=view,
            df=frame,
            allow_registry_cache=cached,
            transform_on_write=request.get("transform_on_write", True) is not False,
        )
        return {"rows": len(frame)}

    def _renamed(self, view: str, frame: pd.DataFrame, cached: bool) -> pd.DataFrame:
        """The frame with the source's own names for the instants, which Feast's remote client does not know."""
        views = [*self._store.list_feature_views(cached), *self._store.list_stream_feature_views(cached)]
        source = next((each.batch_source for each in views if each.name == view), None)
        if source is None:
            return frame
        names = {"event_timestamp": source.timestamp_field, "created": source.created_timestamp_column}
        wanted = {theirs: own for theirs, own in names.items() if own and theirs in frame and own not in frame}
        return frame.rename(columns=wanted)

    def _materialize(self, request: dict[str, Any], definitions: Definitions | None) -> dict[str, Any]:
        if request.get("disable_event_timestamp"):
            start, end = _EPOCH, datetime.now(UTC)
        else:
            start, end = _instant(request, "start_ts"), _instant(request, "end_ts")
        if start >= end:
            raise RequestError('"start_ts" is before "end_ts"', got=f"{start} and {end}", hint="swap them")
        views = self._views(request, definitions)
        if views:
            self._store.materialize(
                start, end, views, disable_event_timestamp=bool(request.get("disable_event_timestamp"))
            )
        return {"feature_views": views}

    def _materialize_incremental(self, request: dict[str, Any], definitions: Definitions | None) -> dict[str, Any]:
        end = _instant(request, "end_ts")
        views = self._views(request, definitions)
        if views:
            self._store.materialize_incremental(end, views)
        return {"feature_views": views}

    def _views(self, request: dict[str, Any], definitions: Definitions | None) -> list[str]:
        """The plain views that a request names, or all of them: headrace's own are always as fresh as their topics."""
        named = request.get("feature_views")
        if named is not None:
            if not isinstance(named, list) or not all(isinstance(name, str) for name in named):
                raise RequestError('"feature_views" is a list of names', got=repr(named)[:80], hint="or leave it out")
            for name in named if definitions is not None else ():
                assert definitions is not None
                refuse_own_view(definitions, name)
            for name in named:
                self._store.get_feature_view(name)
            return named
        own = set() if definitions is None else {*definitions.views, *definitions.derived}
        return [view.name for view in self._store.list_feature_views() if view.online and view.name not in own]


ROUTES = {
    "/push": Backend._push,
    "/write-to-online-store": Backend._write,
    "/materialize": Backend._materialize,
    "/materialize-incremental": Backend._materialize_incremental,
}


def _text(request: dict[str, Any], name: str) -> str:
    value = request.get(name)
    if not isinstance(value, str) or not value:
        raise RequestError(f'a request has "{name}"', got=repr(value)[:80], hint="send text")
    return value


def _frame(request: dict[str, Any]) -> pd.DataFrame:
    columns = request.get("df")
    if not isinstance(columns, dict) or not all(isinstance(values, list) for values in columns.values()):
        raise RequestError('"df" is an object of lists, a list a column', got=repr(columns)[:80], hint='{"id": [1]}')
    if len({len(values) for values in columns.values()}) > 1:
        raise RequestError('the columns of "df" have one length', got=f"{ {n: len(v) for n, v in columns.items()} }")
    return pd.DataFrame(columns)


def _instant(request: dict[str, Any], name: str) -> datetime:
    value = request.get(name)
    if value is None:
        raise RequestError(f'a request has "{name}"', got="none", hint="write ISO 8601")
    return datetime.fromtimestamp(instant_us(value, f'"{name}"') / 1e6, UTC)


def _refused(error: Exception) -> HeadraceError:
    """What Feast raised, as a 404 where something isn't there and as a 422 otherwise."""
    missing = isinstance(error, FeastError) and error.http_status_code() == 404
    kind = NotFound if missing else RequestError
    return kind("Feast does not take the request", got=f"{type(error).__name__}: {error}"[:500], hint="see its message")
