import duckdb
import pyarrow as pa
import pytest

from schemas.types import TypeNotSupported, arrow_type, duckdb_type, from_annotation, from_arrow, from_duckdb

NAMES = [
    "bool", "int64", "float64", "string", "bytes", "timestamp", "date", "decimal(12,2)",
    "list<float64>", "list<list<string>>", "map<string,int64>", "map<string,list<float64>>", "list<decimal(38,4)>",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_every_type_survives_every_system(name: str) -> None:
    assert from_arrow(arrow_type(name)) == name
    assert from_duckdb(duckdb_type(name)) == name
    table = pa.table({"x": pa.array([], arrow_type(name))})
    described = duckdb.from_arrow(table).query("t", "DESCRIBE SELECT x FROM t").fetchall()
    assert from_duckdb(described[0][1]) == name
    assert duckdb.from_arrow(table).to_arrow_table().schema.field("x").type == arrow_type(name)


def test_a_type_that_is_not_kept_names_those_that_are() -> None:
    with pytest.raises(TypeNotSupported, match="none of: bool, int64"):
        from_annotation(complex)
    with pytest.raises(TypeNotSupported):
        from_annotation(int | str)
    with pytest.raises(TypeNotSupported):
        arrow_type("int32")
