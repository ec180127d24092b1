"""librdkafka's options in the words of Kafka's Java client, which Spark reads with."""

from __future__ import annotations

from schemas.errors import ConfigError
from schemas.settings import ConnectionSettings


def kafka_options(settings: ConnectionSettings) -> dict[str, str]:
    """The connection as options of Spark's Kafka source. Raises ConfigError for one that it has no word for."""
    config = settings.kafka_config()
    options = {
        "kafka.bootstrap.servers": config.pop("bootstrap.servers"),
        "kafka.isolation.level": "read_committed",
    }
    if (protocol := config.pop("security.protocol", None)) is not None:
        options["kafka.security.protocol"] = protocol.upper()
    if (authority := config.pop("ssl.ca.location", None)) is not None:
        options |= {"kafka.ssl.truststore.type": "PEM", "kafka.ssl.truststore.location": authority}
    mechanism = config.pop("sasl.mechanism", config.pop("sasl.mechanisms", None))
    username, password = config.pop("sasl.username", None), config.pop("sasl.password", None)
    if username is not None:
        module = "scram.Scram" if mechanism and mechanism.startswith("SCRAM") else "plain.Plain"
        quoted = [value.replace("\\", "\\\\").replace('"', '\\"') for value in (username, password or "")]
        options["kafka.sasl.mechanism"] = mechanism or "PLAIN"
        options["kafka.sasl.jaas.config"] = (
            f"org.apache.kafka.common.security.{module}LoginModule required"
            f' username="{quoted[0]}" password="{quoted[1]}";'
        )
    if config:
        raise ConfigError(
            "the Spark runner has no word for these options of Kafka's client",
            where="HEADRACE_KAFKA_OPTIONS",
            got=", ".join(sorted(config)),
            hint="leave them out, or run the worker with --runner confluent",
        )
    return options
