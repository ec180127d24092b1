"""What every process is told about its surroundings: from HEADRACE_… in the environment, or from headrace.toml."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import msgspec
from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from schemas.errors import ConfigError
from schemas.registry import Registry

LOCAL_FILE = "local.json"
"""Below `home`: where the local Kafka and Redis listen, written by `headrace up`."""


class Endpoints(msgspec.Struct, frozen=True, forbid_unknown_fields=False):
    """Where the local Kafka and Redis listen; empty where there is none."""

    kafka: str = ""
    redis: str = ""


class ConnectionSettings(BaseSettings):
    """Home, project and connections. The environment goes before headrace.toml; each package adds its own knobs.

    `kafka_options` are librdkafka's (JSON in the environment), for SASL and TLS; `redis_url` takes rediss:// too.
    `schema_registry_url` is https://… or file:///folder, `schema_registry_options` are confluent-kafka's client's.
    """

    model_config = SettingsConfigDict(env_prefix="HEADRACE_", toml_file="headrace.toml", frozen=True, extra="ignore")

    home: Path = Path(".headrace")
    project: str = Field(default="headrace", pattern=r"^[a-z][a-z0-9_]{0,62}$")
    definitions: Path = Path("features/views")
    kafka_bootstrap: str | None = None
    kafka_options: dict[str, SecretStr] = {}
    redis_url: SecretStr | None = None
    registry_url: SecretStr | None = None
    schema_registry_url: SecretStr | None = None
    schema_registry_options: dict[str, SecretStr] = {}

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)

    @cached_property
    def endpoints(self) -> Endpoints:
        """The local services of this home, as they stood when this was first asked."""
        return local_endpoints(self.home)

    def kafka_config(self) -> dict[str, str]:
        """The connection part of a confluent-kafka configuration. Raises ConfigError where no Kafka is known."""
        bootstrap = self.kafka_bootstrap or self.endpoints.kafka
        if not bootstrap:
            raise ConfigError(
                "no Kafka is known",
                got=f"neither HEADRACE_KAFKA_BOOTSTRAP nor a running local one in {self.home}",
                hint="run `headrace up`, or name the bootstrap servers",
            )
        options = {name: value.get_secret_value() for name, value in self.kafka_options.items()}
        return {"bootstrap.servers": bootstrap} | options

    def redis_address(self) -> str:
        """The URL of Redis, password included: not for logs. Raises ConfigError where no Redis is known."""
        url = self.redis_url.get_secret_value() if self.redis_url else self.endpoints.redis
        if not url:
            raise ConfigError(
                "no Redis is known",
                got=f"neither HEADRACE_REDIS_URL nor a running local one in {self.home}",
                hint="run `headrace up`, or name the URL",
            )
        return url

    def registry_address(self) -> str:
        """SQLAlchemy's URL of the registry's database: SQLite in `home` unless a setting says otherwise."""
        if self.registry_url:
            return self.registry_url.get_secret_value()
        return f"sqlite:///{(self.home / 'registry.db').absolute()}"

    @cached_property
    def schema_registry(self) -> Registry | None:
        """Where the schemas of Avro and Protobuf messages stand; None where none is named: JSON needs none."""
        if self.schema_registry_url is None:
            return None
        options = {name: value.get_secret_value() for name, value in self.schema_registry_options.items()}
        return Registry(self.schema_registry_url.get_secret_value(), options)

    @property
    def rejects_topic(self) -> str:
        """Where the worker puts what it had to reject."""
        return f"{self.project}.rejects"


def local_endpoints(home: Path) -> Endpoints:
    """What `headrace up` wrote; nothing where it never ran. Raises ConfigError for a damaged file."""
    path = home / LOCAL_FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=Endpoints)
    except FileNotFoundError:
        return Endpoints()
    except msgspec.MsgspecError as error:
        raise ConfigError(
            f"{path} is damaged", got=str(error), hint="run `headrace down`, then `headrace up`"
        ) from None


def explain_settings(error: ValidationError) -> ConfigError:
    """A setting that can't be taken, by the name under which it is set. The value is left out: it may be a secret."""
    first = error.errors(include_input=False, include_url=False)[0]
    name = "HEADRACE_" + "_".join(str(part) for part in first["loc"]).upper()
    return ConfigError(
        "a setting can't be taken", where=name, got=first["msg"], hint="see the environment and headrace.toml"
    )
