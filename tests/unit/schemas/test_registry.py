"""A registry that has no such schema says something of the message; one that can't be asked says nothing."""

import json
import multiprocessing
import struct
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from confluent_kafka.schema_registry import Schema, SchemaReference
from confluent_kafka.schema_registry.error import SchemaRegistryError

from schemas import registry as registry_module
from schemas.decode import Batch, Decoder
from schemas.errors import ConfigError, NotReady
from schemas.file_registry import FileRegistryClient
from schemas.registry import CACHED_MAX, Reference, RegisteredSchema, Registry
from schemas.rejection import Reason
from schemas.settings import ConnectionSettings
from tests.unit.schemas.test_decode import FakeMessage
from tests.unit.schemas.test_formats import GOOD, PLAIN, Avro
from tests.unit.schemas.writers import avro


class FakeServer:
    """Answers as a Schema Registry does over HTTP: `answer` is the status and the body of the next answers."""

    def __init__(self) -> None:
        self.answer: tuple[int, bytes] = (200, b"{}")
        self.asked: list[str] = []
        self.credentials: set[str | None] = set()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                fake.asked.append(self.path)
                fake.credentials.add(self.headers["Authorization"])
                status, body = fake.answer
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServer]:
    waits = {"retries.wait.ms": 1, "retries.max.wait.ms": 1}
    monkeypatch.setattr(registry_module, "CLIENT_DEFAULTS", registry_module.CLIENT_DEFAULTS | waits)
    server = FakeServer()
    yield server
    server.close()


def answer(code: int, message: str = "no") -> bytes:
    return json.dumps({"error_code": code, "message": message}).encode()


SCHEMA = json.dumps({"schema": '"string"', "references": [{"name": "a", "subject": "b", "version": 2}]}).encode()


def test_a_schema_is_asked_for_once(server: FakeServer) -> None:
    registry = Registry(server.url)
    server.answer = (200, SCHEMA)
    for _ in range(3):
        assert registry.schema(7, "avro") == RegisteredSchema("avro", '"string"', (Reference("a", "b", 2),))
    assert registry.schema(8, "protobuf") is not None
    assert server.asked == ["/schemas/ids/7", "/schemas/ids/8?format=serialized"]


def test_that_there_is_none_is_believed_for_a_while(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry(server.url)
    server.answer = (404, answer(40403))
    assert [registry.schema(7, "avro") for _ in range(3)] == [None] * 3
    assert len(server.asked) == 1
    later = registry_module.monotonic() + registry_module.UNKNOWN_FOR_S + 1
    monkeypatch.setattr(registry_module, "monotonic", lambda: later)
    server.answer = (200, SCHEMA)
    assert registry.schema(7, "avro") is not None


@pytest.mark.parametrize(
    ("status", "body", "error", "message"),
    [
        (503, b"", NotReady, "can't be reached"),
        (500, answer(50001), NotReady, "can't be reached"),
        (429, answer(42901), NotReady, "can't be reached"),
        (200, b"<html>please log in</html>", NotReady, "can't be reached"),
        (200, b"[]", NotReady, "can't be reached"),
        (404, b"<html>nothing here</html>", ConfigError, "refuses to answer; got HTTP 404"),
        (401, answer(40101), ConfigError, "refuses to answer; got HTTP 401: no.*HEADRACE_SCHEMA_REGISTRY_OPTIONS"),
        (403, b"", ConfigError, "refuses to answer; got HTTP 403"),
    ],
)
def test_what_says_nothing_of_a_schema_is_no_rejection(
    server: FakeServer, status: int, body: bytes, error: type[Exception], message: str
) -> None:
    server.answer = (status, body)
    decoder = Decoder(Avro, Registry(server.url))
    batch = Batch.of("readings", [FakeMessage(b"\x00\x00\x00\x00\x07abc")])
    for _ in range(2):
        with pytest.raises(error, match=message):
            decoder.decode(batch)
    server.answer = (404, answer(40403))
    assert [rejection.reason for rejection in decoder.decode(batch).rejections] == [Reason.UNKNOWN_SCHEMA]


def test_a_registry_that_is_down_is_waited_for(server: FakeServer, unique: Callable[[str], str]) -> None:
    """The batch that couldn't be decoded is decoded later, whole: nothing is lost."""
    elsewhere = Registry(f"mock://{unique('registry')}")
    message = avro(elsewhere, PLAIN, GOOD)
    (schema_id,) = struct.unpack(">I", message[1:5])
    schema = elsewhere.schema(schema_id, "avro")
    assert schema is not None
    decoder = Decoder(Avro, Registry(server.url))
    batch = Batch.of("readings", [FakeMessage(b"junk"), FakeMessage(message, 1)])
    server.answer = (503, b"")
    with pytest.raises(NotReady, match="nothing is skipped meanwhile"):
        decoder.decode(batch)
    server.answer = (200, json.dumps({"schema": schema.text}).encode())
    decoded = decoder.decode(batch)
    assert (decoded.table["sensor"].to_pylist(), len(decoded.rejections)) == (["a"], 1)


def test_nobody_listens() -> None:
    closed = FakeServer()
    closed.close()
    with pytest.raises(NotReady, match=f"{closed.url}: the schema registry can't be reached.*ConnectError"):
        Registry(closed.url, {"max.retries": "0"}).schema(1, "avro")


def test_credentials_go_to_the_registry_and_into_no_message(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_SCHEMA_REGISTRY_URL", server.url.replace("//", "//user:hunter2@"))
    settings = ConnectionSettings()
    assert "hunter2" not in repr(settings) + str(settings) + settings.model_dump_json()
    assert settings.schema_registry is not None
    server.answer = (401, answer(40101))
    with pytest.raises(ConfigError) as refused:
        settings.schema_registry.schema(1, "avro")
    assert "hunter2" not in str(refused.value)
    monkeypatch.setenv("HEADRACE_SCHEMA_REGISTRY_URL", server.url)
    monkeypatch.setenv("HEADRACE_SCHEMA_REGISTRY_OPTIONS", '{"basic.auth.user.info": "user:hunter2", "timeout": "5"}')
    settings = ConnectionSettings()
    assert "hunter2" not in repr(settings) + str(settings) + settings.model_dump_json()
    assert settings.schema_registry is not None
    server.answer = (200, SCHEMA)
    assert settings.schema_registry.schema(1, "avro") is not None
    assert server.credentials == {"Basic dXNlcjpodW50ZXIy"}


@pytest.mark.parametrize(
    ("url", "options", "message"),
    [
        ("ftp://somewhere", {}, r"https://…, file:///folder or, in tests, mock://name; got ftp://…"),
        ("somewhere", {}, "got no scheme"),
        ("file://host/folder", {}, "got file://…"),
        ("https://somewhere", {"no.such.option": "1"}, "refuses its settings; got .*no.such.option"),
        ("https://somewhere", {"ssl.ca.location": "/no/such/file"}, "refuses its settings; got .*No such file"),
    ],
)
def test_a_setting_that_cant_be_taken(url: str, options: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Registry(url, options).schema(1, "avro")


def test_no_url_no_registry() -> None:
    assert ConnectionSettings().schema_registry is None


def test_what_is_remembered_is_bounded(server: FakeServer) -> None:
    registry = Registry(server.url)
    server.answer = (404, answer(40403))
    for schema_id in range(CACHED_MAX + 10):
        registry.schema(schema_id, "avro")
    assert len(registry._cache) == CACHED_MAX


def test_the_local_registry_keeps_what_confluents_does(tmp_path: Path) -> None:
    client = FileRegistryClient(tmp_path / "registry")
    assert client.get_subjects() == []
    text, other = Schema('"string"', "AVRO"), Schema('"long"', "AVRO", [SchemaReference("x", "text", 1)])
    assert client.register_schema("text", text) == client.register_schema("text", text) == 1
    assert client.register_schema("text", other) == 2
    assert client.register_schema("elsewhere", other) == 2
    assert (client.get_subjects(), client.get_versions("text")) == (["elsewhere", "text"], [1, 2])
    assert client.get_schema(2).references == [SchemaReference("x", "text", 1)]
    assert client.get_latest_version("text").schema_id == 2
    assert client.get_version("elsewhere", 1).schema_id == 2
    assert client.lookup_schema("text", text).version == 1
    registry = Registry(f"file://{tmp_path}/registry")
    assert registry.schema(2, "avro") == RegisteredSchema("avro", '"long"', (Reference("x", "text", 1),))
    assert registry.schema(3, "avro") is None
    assert registry.version(Reference("", "nowhere", 1), "avro") is None
    assert registry.version(Reference("", "text", 3), "avro") is None
    with pytest.raises(SchemaRegistryError, match="not found"):
        client.lookup_schema("elsewhere", text)
    with pytest.raises(SchemaRegistryError, match="not found"):
        client.get_latest_version("nowhere")


def test_a_damaged_local_registry_loses_nothing(tmp_path: Path) -> None:
    (tmp_path / "registry.json").write_text("{")
    with pytest.raises(NotReady, match="registry.json is damaged"):
        Registry(f"file://{tmp_path}").schema(1, "avro")
    with pytest.raises(SchemaRegistryError, match="damaged"):
        FileRegistryClient(tmp_path).register_schema("s", Schema('"string"', "AVRO"))
    assert (tmp_path / "registry.json").read_text() == "{"


def _register(folder: Path, worker: int) -> list[int]:
    client = FileRegistryClient(folder)
    return [client.register_schema(f"subject {n % 3}", Schema(f'"shared {n}"', "AVRO")) for n in range(20)] + [
        client.register_schema("own", Schema(f'"own {worker} {n}"', "AVRO")) for n in range(5)
    ]


def test_processes_that_register_at_once_get_one_number_for_one_schema(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        answers = pool.starmap(_register, [(tmp_path, worker) for worker in range(3)])
    assert answers[0][:20] == answers[1][:20] == answers[2][:20]
    ids = {schema_id for each in answers for schema_id in each}
    assert ids == set(range(1, 20 + 3 * 5 + 1))
    assert list(tmp_path.glob("tmp*")) == []
