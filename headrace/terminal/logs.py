"""The log of a process that runs on: on standard error, a line a person reads in a terminal, JSON everywhere else."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

OURS = ("stream", "batch", "headrace")
FOR_PEOPLE = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class JsonLines(logging.Formatter):
    """One object a line: time (UTC), level, logger, message; the traceback as `error` where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """See the class."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def log_to_stderr() -> None:
    """Our packages from INFO on, others from WARNING on. Called again it changes nothing."""
    root = logging.getLogger()
    if root.handlers:
        return
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(FOR_PEOPLE) if sys.stderr.isatty() else JsonLines())
    root.addHandler(handler)
    for name in OURS:
        logging.getLogger(name).setLevel(logging.INFO)
