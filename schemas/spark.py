"""A Spark session as headrace's queries and training sets want it. Needs the extra `spark`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from pyspark.sql import SparkSession

from schemas.errors import ConfigError
from schemas.settings import ConnectionSettings

JARS = Path(sys.prefix) / "share" / "headrace" / "spark-4.0"
"""Where `make spark` puts Spark's connector to Kafka."""
LOOPBACK = "127.0.0.1"


def session(settings: ConnectionSettings) -> SparkSession:
    """The session that is there, or one on this machine's cores. Raises ConfigError where the connector is missing.

    A cluster is named as Spark wants it: `spark-submit`, or SPARK_CONF_DIR's spark-defaults.conf.
    """
    builder = SparkSession.builder.appName(f"{settings.project}.headrace")
    if "SPARK_CONF_DIR" not in os.environ and SparkSession.getActiveSession() is None:
        jars = sorted(JARS.glob("*.jar"))
        if not jars:
            raise ConfigError(
                "Spark's connector to Kafka is not installed", got=f"no jars in {JARS}", hint="run `make spark`"
            )
        # Tasks import what this process can import.
        os.environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        os.environ["PYSPARK_PYTHON"] = sys.executable
        builder = (
            builder.master("local[*]")
            .config("spark.jars", ",".join(map(str, jars)))
            .config("spark.driver.bindAddress", LOOPBACK)
            .config("spark.driver.host", LOOPBACK)
            .config("spark.ui.enabled", "false")
            .config("spark.ui.showConsoleProgress", "false")
            .config("spark.driver.memory", "1g")
        )
    # The default of 10,000 rows a batch of Arrow would make three calls of one.
    builder = builder.config("spark.sql.execution.arrow.maxRecordsPerBatch", "32768")
    return builder.config("spark.sql.session.timeZone", "UTC").getOrCreate()
