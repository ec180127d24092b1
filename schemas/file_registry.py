"""A schema registry in a folder, for use on one machine: file:///folder.

    registry.json    {"schemas": [schema, …], "subjects": {subject: [schema id, …]}}

A schema's id is its place, from 1 on; a version of a subject is the place of its id, from 1 on. The file is replaced as
a whole under a lock, so that producers in several processes may register at once and a reader never sees half of it.
It has no rules of compatibility: what a message may be, the event's class says.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from confluent_kafka.schema_registry import RegisteredSchema, Schema, SchemaReference, SchemaRegistryClient
from confluent_kafka.schema_registry.error import SchemaRegistryError

FILE = "registry.json"
SCHEMAS_MAX = 10_000
"""The file is read and written as a whole."""
NOT_FOUND, SUBJECT_NOT_FOUND, SCHEMA_NOT_FOUND = 404, 40401, 40403


class _Stored(msgspec.Struct, frozen=True, rename="camel"):
    schema: str
    schema_type: str = "AVRO"
    references: tuple[tuple[str, str, int], ...] = ()


class _Contents(msgspec.Struct):
    schemas: list[_Stored] = []
    subjects: dict[str, list[int]] = {}


class FileRegistryClient(SchemaRegistryClient):
    """What confluent-kafka's serializers and deserializers ask of a registry, from a file."""

    def __init__(self, folder: Path) -> None:
        # The parent's client is for HTTP; of it only the caches are used.
        super().__init__({"url": "mock://file"})
        self._folder = folder

    def register_schema(self, subject_name: str, schema: Schema, normalize_schemas: bool = False) -> int:
        """The schema's number, a new one where the registry has not had it."""
        return int(self.register_schema_full_response(subject_name, schema, normalize_schemas).schema_id or 0)

    def register_schema_full_response(
        self, subject_name: str, schema: Schema, normalize_schemas: bool = False
    ) -> RegisteredSchema:
        """As `register_schema`, with the version in the subject."""
        stored = _stored(schema)
        with self._changed() as contents:
            if stored not in contents.schemas:
                if len(contents.schemas) == SCHEMAS_MAX:
                    raise SchemaRegistryError(422, 42201, f"the folder {self._folder} holds {SCHEMAS_MAX} schemas")
                contents.schemas.append(stored)
            schema_id = contents.schemas.index(stored) + 1
            versions = contents.subjects.setdefault(subject_name, [])
            if schema_id not in versions:
                versions.append(schema_id)
            return _registered(contents, subject_name, versions.index(schema_id) + 1)

    def get_schema(
        self,
        schema_id: int,
        subject_name: str | None = None,
        fmt: str | None = None,
        reference_format: str | None = None,
    ) -> Schema:
        """The schema of this number."""
        contents = self._read()
        if not 1 <= schema_id <= len(contents.schemas):
            raise SchemaRegistryError(NOT_FOUND, SCHEMA_NOT_FOUND, "Schema not found")
        return _schema(contents.schemas[schema_id - 1])

    def lookup_schema(
        self,
        subject_name: str,
        schema: Schema,
        normalize_schemas: bool = False,
        fmt: str | None = None,
        deleted: bool = False,
    ) -> RegisteredSchema:
        """Where this schema stands in the subject."""
        contents, stored = self._read(), _stored(schema)
        for version, schema_id in enumerate(contents.subjects.get(subject_name, []), 1):
            if contents.schemas[schema_id - 1] == stored:
                return _registered(contents, subject_name, version)
        raise SchemaRegistryError(NOT_FOUND, SCHEMA_NOT_FOUND, "Schema not found")

    def get_subjects(self, *_: Any, **__: Any) -> list[str]:
        """All subjects."""
        return sorted(self._read().subjects)

    def get_versions(self, subject_name: str, *_: Any, **__: Any) -> list[int]:
        """The versions of a subject."""
        return list(range(1, len(self._versions(self._read(), subject_name)) + 1))

    def get_version(
        self, subject_name: str, version: int | str = "latest", deleted: bool = False, fmt: str | None = None
    ) -> RegisteredSchema:
        """One version of a subject."""
        contents = self._read()
        last = len(self._versions(contents, subject_name))
        number = last if version == "latest" else int(version)
        if not 1 <= number <= last:
            raise SchemaRegistryError(NOT_FOUND, SUBJECT_NOT_FOUND, f"Version {version} not found")
        return _registered(contents, subject_name, number)

    def get_latest_version(self, subject_name: str, fmt: str | None = None) -> RegisteredSchema:
        """The newest version of a subject."""
        return self.get_version(subject_name)

    def _versions(self, contents: _Contents, subject: str) -> list[int]:
        if subject not in contents.subjects:
            raise SchemaRegistryError(NOT_FOUND, SUBJECT_NOT_FOUND, f"Subject {subject} not found")
        return contents.subjects[subject]

    def _read(self) -> _Contents:
        try:
            return msgspec.json.decode((self._folder / FILE).read_bytes(), type=_Contents)
        except FileNotFoundError:
            return _Contents()
        except msgspec.MsgspecError as error:
            raise SchemaRegistryError(500, 50001, f"{self._folder / FILE} is damaged: {error}") from error

    @contextmanager
    def _changed(self) -> Iterator[_Contents]:
        """The contents to change; written when the block is left, unless by an exception."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            contents = self._read()
            yield contents
            with tempfile.NamedTemporaryFile(dir=self._folder, delete=False) as file:
                file.write(msgspec.json.format(msgspec.json.encode(contents)))
                file.flush()
                os.fsync(file.fileno())
            Path(file.name).replace(self._folder / FILE)


def _stored(schema: Schema) -> _Stored:
    references = tuple((str(each.name), str(each.subject), int(each.version or 0)) for each in schema.references or ())
    return _Stored(schema.schema_str or "", schema.schema_type or "AVRO", references)


def _schema(stored: _Stored) -> Schema:
    references = [SchemaReference(*each) for each in stored.references]
    return Schema(stored.schema, stored.schema_type, references)


def _registered(contents: _Contents, subject: str, version: int) -> RegisteredSchema:
    schema_id = contents.subjects[subject][version - 1]
    return RegisteredSchema(
        schema_id=schema_id,
        guid=None,
        subject=subject,
        version=version,
        schema=_schema(contents.schemas[schema_id - 1]),
    )
