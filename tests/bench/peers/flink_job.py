"""The bench's work on PyFlink: `python flink_job.py JSON`, run by an environment of Flink's own (docs/speed.md).

Tiles by user, four aggregates, written to Redis as absolute values from a vectorised UDF, one group-by a tile size
(`hops_ms`). Nothing in Redis says which offsets they hold.
"""

import json
import struct
import sys
import time

import pandas as pd
from pyflink.table import DataTypes, EnvironmentSettings, TableEnvironment
from pyflink.table.udf import ScalarFunction, udf

FRESH = {
    "table.exec.mini-batch.enabled": "false",
    "python.fn-execution.bundle.time": "10",
    "python.fn-execution.bundle.size": "1000",
    "execution.buffer-timeout.interval": "1 ms",
}
FULL = {
    "table.exec.mini-batch.enabled": "true",
    "table.exec.mini-batch.allow-latency": "500 ms",
    "table.exec.mini-batch.size": "50000",
    "python.fn-execution.bundle.time": "1000",
    "python.fn-execution.bundle.size": "50000",
    "python.fn-execution.arrow.batch.size": "10000",
}


class Write(ScalarFunction):
    """Sets `{prefix}:{user}`'s field of the tile; says when the first and the last write were."""

    def __init__(self, host: str, port: int, prefix: str) -> None:
        self._host, self._port, self._prefix = host, port, prefix
        self._redis = None

    def eval(self, user, tile, count, total, least, greatest):
        if self._redis is None:
            import redis

            self._redis = redis.Redis(self._host, self._port)
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.setnx(f"{self._prefix}:first", time.time())
        for row in zip(user, tile, count, total, least, greatest, strict=True):
            pipeline.hset(f"{self._prefix}:{row[0]}", str(row[1]), struct.pack("<qddd", *row[2:]))
        pipeline.set(f"{self._prefix}:last", time.time())
        pipeline.execute()
        return pd.Series([1] * len(user))


def main(what: dict) -> None:
    tables = TableEnvironment.create(EnvironmentSettings.in_streaming_mode())
    options = {
        "pipeline.jars": ";".join(f"file://{jar}" for jar in what["jars"]),
        "parallelism.default": str(what["parallelism"]),
        "python.execution-mode": what["mode"],
        "python.executable": sys.executable,
        "python.client.executable": sys.executable,
        "rest.port": "0",
        **(FULL if what["bounded"] else FRESH),
    }
    for name, value in options.items():
        tables.get_config().set(name, value)
    bounds = "'scan.bounded.mode' = 'latest-offset'," if what["bounded"] else ""
    start = "earliest-offset" if what["bounded"] else "latest-offset"
    tables.execute_sql(
        f"""CREATE TABLE clicks (`at` BIGINT, `user` STRING, amount DOUBLE, n BIGINT) WITH (
            'connector' = 'kafka', 'topic' = '{what["topic"]}', 'properties.bootstrap.servers' = '{what["kafka"]}',
            'properties.group.id' = '{what["prefix"]}', 'scan.startup.mode' = '{start}', {bounds}
            'properties.fetch.max.wait.ms' = '100', 'format' = 'json')"""
    )
    tables.execute_sql("CREATE TABLE nowhere (done BIGINT) WITH ('connector' = 'blackhole')")
    write = udf(Write(*what["redis"], what["prefix"]), result_type=DataTypes.BIGINT(), func_type="pandas")
    tables.create_temporary_system_function("write_row", write)
    statements = tables.create_statement_set()
    for hop_ms in what["hops_ms"]:
        statements.add_insert_sql(
            f"""INSERT INTO nowhere
                SELECT write_row(`user`, CONCAT('{hop_ms}:', CAST(tile AS STRING)), c, s, a, b) FROM (
                SELECT `user`, `at` / {hop_ms} AS tile,
                    COUNT(*) AS c, SUM(amount) AS s, MIN(amount) AS a, MAX(amount) AS b
                FROM clicks GROUP BY `user`, `at` / {hop_ms})"""
        )
    statements.execute().wait()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
