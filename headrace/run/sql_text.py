"""Where one SQL statement ends: at a semicolon that stands in no text, no quoted name and no remark."""

from __future__ import annotations

import re

_TOKEN = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|--[^\n]*|/\*.*?\*/|;|'|\"|/\*", re.DOTALL)


def split_statements(text: str) -> tuple[list[str], str]:
    """The finished statements, without their semicolons, and what is begun and not finished."""
    statements: list[str] = []
    start = 0
    for token in _TOKEN.finditer(text):
        if token[0] in ("'", '"', "/*"):
            # It is opened and not closed yet: more lines may come.
            break
        if token[0] == ";":
            statements.append(text[start : token.start()].strip())
            start = token.end()
    return [statement for statement in statements if statement], text[start:]
