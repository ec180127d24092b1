from pathlib import Path

import pytest
from pydantic import ValidationError

from schemas.errors import ConfigError
from schemas.settings import ConnectionSettings, explain_settings, local_endpoints


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("HOME", "PROJECT", "KAFKA_BOOTSTRAP", "KAFKA_OPTIONS", "REDIS_URL", "REGISTRY_URL"):
        monkeypatch.delenv(f"HEADRACE_{name}", raising=False)


def test_the_environment_goes_before_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "headrace.toml").write_text('project = "from_file"\nkafka_bootstrap = "file:9092"\n')
    assert ConnectionSettings().project == "from_file"
    monkeypatch.setenv("HEADRACE_PROJECT", "from_env")
    settings = ConnectionSettings()
    assert (settings.project, settings.kafka_bootstrap) == ("from_env", "file:9092")
    assert settings.rejects_topic == "from_env.rejects"


def test_local_services_stand_in_where_nothing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path))
    with pytest.raises(ConfigError, match="no Kafka is known.*headrace up"):
        ConnectionSettings().kafka_config()
    with pytest.raises(ConfigError, match="no Redis is known.*headrace up"):
        ConnectionSettings().redis_address()
    (tmp_path / "local.json").write_text('{"kafka": "127.0.0.1:9", "redis": "redis://127.0.0.1:8/0", "more": 1}')
    assert ConnectionSettings().kafka_config() == {"bootstrap.servers": "127.0.0.1:9"}
    assert ConnectionSettings().redis_address() == "redis://127.0.0.1:8/0"
    monkeypatch.setenv("HEADRACE_REDIS_URL", "rediss://elsewhere/1")
    assert ConnectionSettings().redis_address() == "rediss://elsewhere/1"


def test_secrets_are_in_no_repr(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_REDIS_URL", "redis://:hunter2@host/0")
    monkeypatch.setenv("HEADRACE_KAFKA_BOOTSTRAP", "broker:9092")
    monkeypatch.setenv("HEADRACE_KAFKA_OPTIONS", '{"sasl.password": "hunter2"}')
    settings = ConnectionSettings()
    assert "hunter2" not in repr(settings) + str(settings) + settings.model_dump_json()
    assert settings.kafka_config() == {"bootstrap.servers": "broker:9092", "sasl.password": "hunter2"}


def test_a_bad_setting_is_named_and_its_value_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_PROJECT", "No Spaces hunter2")
    with pytest.raises(ValidationError) as refused:
        ConnectionSettings()
    explained = str(explain_settings(refused.value))
    assert explained.startswith("HEADRACE_PROJECT: a setting can't be taken")
    assert "hunter2" not in explained


def test_a_damaged_local_file_says_so(tmp_path: Path) -> None:
    (tmp_path / "local.json").write_text("{")
    with pytest.raises(ConfigError, match=r"local.json is damaged.*headrace down"):
        local_endpoints(tmp_path)
