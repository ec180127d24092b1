"""One training set by one engine in a process of its own: `python train_engine.py ENGINE HOME` prints JSON."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from batch.settings import BatchSettings
from batch.training import training_set
from tests.bench.batch_work import definitions


def digest(table: pa.Table) -> str:
    """Of every feature's bits and nulls."""
    found = hashlib.sha256()
    for name in table.column_names:
        if name.startswith("payments__"):
            column = table[name].combine_chunks()
            found.update(name.encode())
            found.update(pc.is_null(column).to_numpy(zero_copy_only=False).tobytes())
            found.update(pc.fill_null(column, 0).to_numpy(zero_copy_only=False).tobytes())
    return found.hexdigest()


def main(engine: str, home: str) -> None:
    settings = BatchSettings(home=Path(home))
    rows = settings.home / "rows.parquet"
    start = time.perf_counter()
    if engine == "local":
        begun = start
        table = training_set(definitions(), "risk", rows, settings)
    else:
        from batch.spark import spark_training_set
        from schemas.spark import session

        spark = session(settings)
        begun = time.perf_counter()
        table = spark_training_set(spark, definitions(), "risk", rows, settings)
    end = time.perf_counter()
    print(json.dumps({"start_s": begun - start, "seconds": end - begun, "digest": digest(table), "rows": len(table)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
