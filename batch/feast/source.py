"""An Iceberg table as Feast's data source, as the place of a saved dataset, and as the destination of Feast's logs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from feast import ValueType
from feast.data_source import DataSource
from feast.errors import DataSourceNotFoundException
from feast.feature_logging import LoggingDestination
from feast.protos.feast.core.DataSource_pb2 import DataSource as DataSourceProto
from feast.protos.feast.core.FeatureService_pb2 import LoggingConfig as LoggingConfigProto
from feast.protos.feast.core.SavedDataset_pb2 import SavedDatasetStorage as SavedDatasetStorageProto
from feast.repo_config import RepoConfig
from feast.saved_dataset import CUSTOM_STORAGE_CLASS_KEY, SavedDatasetStorage
from feast.type_map import pa_to_feast_value_type
from pyiceberg.io.pyarrow import schema_to_pyarrow

from batch.catalog import Identifier, find, open_catalog
from batch.settings import BatchSettings

EVENTS = "events"
"""The namespace of the event log."""
FEAST = "feast"
"""The namespace of tables that Feast itself writes: plain views' sources, saved datasets, logs."""


class HeadraceSource(DataSource):
    """An Iceberg table of the project's catalog: the events of a topic, or with `namespace="feast"` plain data."""

    def __init__(
        self,
        *,
        table: str,
        name: str | None = None,
        namespace: str = EVENTS,
        timestamp_field: str | None = None,
        created_timestamp_column: str | None = None,
        field_mapping: dict[str, str] | None = None,
        description: str | None = "",
        tags: dict[str, str] | None = None,
        owner: str | None = "",
    ) -> None:
        super().__init__(
            name=name or f"{namespace}.{table}",
            timestamp_field=timestamp_field,
            created_timestamp_column=created_timestamp_column,
            field_mapping=field_mapping,
            description=description,
            tags=tags,
            owner=owner,
        )
        self.table = table
        self.namespace = namespace

    @property
    def identifier(self) -> Identifier:
        """The table in the catalog."""
        return (self.namespace, self.table)

    def source_type(self) -> Any:
        """Feast's word for a source that it does not know."""
        return DataSourceProto.CUSTOM_SOURCE

    def __eq__(self, other: object) -> bool:
        same = isinstance(other, HeadraceSource) and self.identifier == other.identifier
        return same and bool(super().__eq__(other))  # type: ignore[no-untyped-call]

    def __hash__(self) -> int:
        return hash((self.name, self.identifier))

    @staticmethod
    def from_proto(data_source: DataSourceProto) -> HeadraceSource:
        """The source that `to_proto` wrote."""
        options = json.loads(data_source.custom_options.configuration)
        return HeadraceSource(
            name=data_source.name,
            table=options["table"],
            namespace=options["namespace"],
            timestamp_field=data_source.timestamp_field,
            created_timestamp_column=data_source.created_timestamp_column,
            field_mapping=dict(data_source.field_mapping),
            description=data_source.description,
            tags=dict(data_source.tags),
            owner=data_source.owner,
        )

    def _to_proto_impl(self) -> DataSourceProto:
        return DataSourceProto(
            name=self.name,
            type=DataSourceProto.CUSTOM_SOURCE,
            data_source_class_type=f"{HeadraceSource.__module__}.{HeadraceSource.__qualname__}",
            field_mapping=self.field_mapping,
            custom_options=_options(self.namespace, self.table),
            timestamp_field=self.timestamp_field,
            created_timestamp_column=self.created_timestamp_column,
            description=self.description,
            tags=self.tags,
            owner=self.owner,
        )

    def validate(self, config: RepoConfig) -> None:
        """Raises Feast's DataSourceNotFoundException where there is no such table."""
        if find(open_catalog(settings_of(config)), self.identifier) is None:
            raise DataSourceNotFoundException(self.get_table_query_string())  # type: ignore[no-untyped-call]

    @staticmethod
    def source_datatype_to_feast_value_type() -> Callable[[str], ValueType]:
        """Arrow's word for a type -> Feast's."""
        return _value_type

    def get_table_column_names_and_types(self, config: RepoConfig) -> Iterable[tuple[str, str]]:
        """The table's columns with Arrow's words for their types; none where there is no table yet."""
        table = find(open_catalog(settings_of(config)), self.identifier)
        if table is None:
            return []
        return [(field.name, _word(str(field.type))) for field in schema_to_pyarrow(table.schema())]

    def get_table_query_string(self) -> str:
        """The table as `headrace sql` names it."""
        return f'"{self.namespace}"."{self.table}"'


class HeadraceStorage(SavedDatasetStorage):
    """A saved dataset in an Iceberg table of the namespace `feast`."""

    _proto_attr_name = "custom_storage"

    def __init__(self, table: str) -> None:
        self.table = table

    @staticmethod
    def from_proto(storage_proto: SavedDatasetStorageProto) -> HeadraceStorage:
        """The storage that `to_proto` wrote."""
        return HeadraceStorage(json.loads(storage_proto.custom_storage.configuration)["table"])

    def to_proto(self) -> SavedDatasetStorageProto:
        """As Feast's registry keeps it."""
        path = f"{HeadraceStorage.__module__}.{HeadraceStorage.__qualname__}"
        return SavedDatasetStorageProto(custom_storage=_options(FEAST, self.table, {CUSTOM_STORAGE_CLASS_KEY: path}))

    def to_data_source(self) -> HeadraceSource:
        """The source to read the dataset from."""
        return HeadraceSource(table=self.table, namespace=FEAST)


class HeadraceLoggingDestination(LoggingDestination):
    """Feast's own logs of served features, in an Iceberg table of the namespace `feast`."""

    _proto_kind = "headrace"

    def __init__(self, table: str) -> None:
        self.table = table

    @classmethod
    def from_proto(cls, config_proto: LoggingConfigProto) -> HeadraceLoggingDestination:
        """The destination that `to_proto` wrote."""
        return cls(config_proto.custom_destination.config["table"])

    def to_proto(self) -> LoggingConfigProto:
        """As Feast's registry keeps it."""
        destination = LoggingConfigProto.CustomDestination(kind=self._proto_kind, config={"table": self.table})
        return LoggingConfigProto(custom_destination=destination)

    def to_data_source(self) -> HeadraceSource:
        """The source to read the logs from."""
        return HeadraceSource(table=self.table, namespace=FEAST)


def settings_of(config: RepoConfig) -> BatchSettings:
    """The settings of a Feast repository: HEADRACE_HOME is the offline store's `home:`, or the repository's folder."""
    home = getattr(config.offline_store, "home", None) or config.repo_path
    return BatchSettings(home=home, project=config.project)


def _options(namespace: str, table: str, more: dict[str, str] | None = None) -> DataSourceProto.CustomSourceOptions:
    configuration = {"namespace": namespace, "table": table} | (more or {})
    return DataSourceProto.CustomSourceOptions(configuration=json.dumps(configuration, sort_keys=True).encode())


def _word(arrow: str) -> str:
    """Feast's table of Arrow types knows neither large variants nor the names of lists' elements."""
    return arrow.replace("large_", "").replace("element:", "item:").replace(" not null", "")


def _value_type(arrow: str) -> ValueType:
    return ValueType(pa_to_feast_value_type(_word(arrow)))
