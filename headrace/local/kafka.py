"""Apache Kafka itself on this machine: one JVM, broker and controller in one (KRaft), bound to the loopback."""

from __future__ import annotations

import base64
import subprocess
import uuid
from dataclasses import dataclass
from pathlib import Path

from headrace.local.jars import JarsError, class_path
from headrace.local.java import java
from headrace.local.ports import LOOPBACK, listens
from headrace.local.process import Service, tail
from schemas.errors import ConfigError

PORTS = 2
"""One for clients, one for the controller."""
START_TIMEOUT_S = 180
"""3 s on an idle machine; on a busy one a JVM's start takes its time."""
STOP_TIMEOUT_S = 30
FORMAT_TIMEOUT_S = 120
PROBE_TIMEOUT_S = 1.0

# 512 MB hold the demo's topics ten times over; the serial collector saves 100 MB and its threads.
JVM_OPTIONS = ("-Xms128m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:+ExitOnOutOfMemoryError", "-Djava.awt.headless=true")

PROPERTIES = """\
process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller_port}
advertised.listeners=PLAINTEXT://{host}:{port}
controller.quorum.voters=1@{host}:{controller_port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={data}
# A misspelt topic is an error, not a new topic.
auto.create.topics.enable=false
num.partitions=4
# One broker: every internal topic has one replica.
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
# Nobody else joins within the first seconds here.
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
num.network.threads=2
num.io.threads=4
num.recovery.threads.per.data.dir=2
log.cleaner.dedupe.buffer.size=16777216
"""

LOGGING = """\
log4j.rootLogger=WARN, file
log4j.logger.kafka.server.KafkaRaftServer=INFO
log4j.logger.org.apache.kafka.common.utils.AppInfoParser=ERROR
log4j.appender.file=org.apache.log4j.RollingFileAppender
log4j.appender.file.File={log}
log4j.appender.file.MaxFileSize=10MB
log4j.appender.file.MaxBackupIndex=2
log4j.appender.file.layout=org.apache.log4j.PatternLayout
log4j.appender.file.layout.ConversionPattern=%d %p %c{{1}}: %m%n
"""


@dataclass(frozen=True)
class LocalKafka:
    """A Kafka in a folder."""

    folder: Path
    ports_needed = PORTS
    start_timeout_s = START_TIMEOUT_S
    stop_timeout_s = STOP_TIMEOUT_S

    @property
    def service(self) -> Service:
        """Its process."""
        return Service("Kafka", self.folder)

    @property
    def server_log(self) -> Path:
        """What the broker logs."""
        return self.folder / "server.log"

    def address(self, ports: list[int]) -> str:
        """The bootstrap servers."""
        return f"{LOOPBACK}:{ports[0]}"

    def start(self, ports: list[int]) -> None:
        """Start it on these ports, its storage formatted on the first start. Raises ConfigError."""
        data = self.folder / "data"
        properties = self.folder / "server.properties"
        logging = self.folder / "log4j.properties"
        properties.write_text(
            PROPERTIES.format(host=LOOPBACK, port=ports[0], controller_port=ports[1], data=_escaped(data))
        )
        logging.write_text(LOGGING.format(log=_escaped(self.server_log)))
        command = self._java_command(logging)
        if not (data / "meta.properties").exists():
            self._format(command, properties)
        self.service.start([*command, "kafka.Kafka", str(properties)])

    def is_healthy(self, ports: list[int]) -> bool:
        """True if the broker on the port answers and is the one of this folder, not a stranger's."""
        if not listens(ports[0]):
            return False
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import AdminClient

        # librdkafka would print each refused connection while the broker is starting.
        client = AdminClient({"bootstrap.servers": self.address(ports), "log_level": 0, "socket.timeout.ms": 2000})
        try:
            return bool(client.list_topics(timeout=PROBE_TIMEOUT_S).cluster_id == self._cluster_id())
        except KafkaException:
            return False

    def log_tail(self) -> str:
        """The last lines of what it printed and logged."""
        return "\n".join(filter(None, (tail(self.service.log), tail(self.server_log))))

    def _java_command(self, logging: Path) -> list[str]:
        try:
            jars = ":".join(map(str, class_path()))
        except JarsError as error:
            raise ConfigError(
                "Kafka's jars are not in place",
                got=str(error),
                hint="run `python -m headrace.local.jars`, or name an existing Kafka in HEADRACE_KAFKA_BOOTSTRAP",
            ) from None
        return [java(), *JVM_OPTIONS, f"-Dlog4j.configuration=file:{logging}", "-cp", jars]

    def _cluster_id(self) -> str:
        """Made up once a folder."""
        file = self.folder / "cluster-id"
        if not file.exists():
            scratch = file.with_suffix(".new")
            scratch.write_text(base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("="))
            scratch.replace(file)
        return file.read_text()

    def _format(self, command: list[str], properties: Path) -> None:
        """A crash in the middle leaves no meta.properties, so the next start formats again."""
        # With an equals sign: an id may begin with a dash.
        options = [f"--cluster-id={self._cluster_id()}", f"--config={properties}"]
        # It runs for a second: nothing in it is worth optimising.
        java, *jvm = command
        run = subprocess.run(
            [java, "-XX:TieredStopAtLevel=1", *jvm, "kafka.tools.StorageTool", "format", *options],
            capture_output=True,
            text=True,
            timeout=FORMAT_TIMEOUT_S,
            check=False,
        )
        if run.returncode != 0:
            raise ConfigError("Kafka's storage can't be formatted", got=(run.stderr or run.stdout).strip()[-800:])


def _escaped(path: Path) -> str:
    """A path as a value of a Java properties file."""
    return str(path).replace("\\", "\\\\")
