"""A data product with every type, partitioned in every way, and its rows: made from a seed, edge cases first.

Columns `v_…` hold the extremes of their types. Columns `k_…` have few distinct values, null among them, and are what
tables are partitioned by.
"""

import base64
import json
import math
import random
import struct
import uuid
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq

PRODUCT = "lab/types"
ROWS = 150
UTC = timezone.utc

COLUMNS = """\
        - {name: id, type: long, primaryKey: true}
        - {name: v_string, type: string}
        - {name: v_uuid, type: uuid}
        - {name: v_json, type: json}
        - {name: v_boolean, type: boolean}
        - {name: v_int, type: int}
        - {name: v_long, type: long}
        - {name: v_float, type: float}
        - {name: v_double, type: double}
        - {name: v_small, type: 'decimal(9,2)'}
        - {name: v_decimal, type: 'decimal(18,6)'}
        - {name: v_large, type: 'decimal(38,10)'}
        - {name: v_date, type: date}
        - {name: v_time, type: time}
        - {name: v_timestamp, type: timestamp}
        - {name: v_timestamp_ntz, type: timestamp_ntz}
        - {name: v_binary, type: binary}
        - {name: v_array, type: array<string>}
        - {name: v_arrays, type: 'array<array<long>>'}
        - name: v_items
          type: array<struct>
          columns:
            - {name: sku, type: string}
            - {name: price, type: 'decimal(9,2)'}
            - {name: at, type: timestamp}
        - {name: v_map, type: 'map<string,long>'}
        - {name: v_maps, type: 'map<int,struct<a: string, b: array<double>>>'}
        - name: v_struct
          type: struct
          columns:
            - {name: city, type: string}
            - {name: score, type: double}
            - {name: at, type: timestamp_ntz}
            - name: inner
              type: struct
              columns:
                - {name: flag, type: boolean}
                - {name: tags, type: array<string>}
        - {name: k_string, type: string}
        - {name: k_uuid, type: uuid}
        - {name: k_boolean, type: boolean}
        - {name: k_int, type: int}
        - {name: k_long, type: long}
        - {name: k_decimal, type: 'decimal(9,2)'}
        - {name: k_large, type: 'decimal(38,10)'}
        - {name: k_date, type: date}
        - {name: k_time, type: time}
        - {name: k_timestamp, type: timestamp}
        - {name: k_timestamp_ntz, type: timestamp_ntz}
        - {name: k_binary, type: binary}
"""

INSTANT, LOCAL = pa.timestamp("us", "UTC"), pa.timestamp("us")
ITEM = pa.struct([("sku", pa.string()), ("price", pa.decimal128(9, 2)), ("at", INSTANT)])
INNER = pa.struct([("flag", pa.bool_()), ("tags", pa.list_(pa.string()))])
STRUCT = pa.struct([("city", pa.string()), ("score", pa.float64()), ("at", LOCAL), ("inner", INNER)])
SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("v_string", pa.string()),
        ("v_uuid", pa.string()),
        ("v_json", pa.string()),
        ("v_boolean", pa.bool_()),
        ("v_int", pa.int32()),
        ("v_long", pa.int64()),
        ("v_float", pa.float32()),
        ("v_double", pa.float64()),
        ("v_small", pa.decimal128(9, 2)),
        ("v_decimal", pa.decimal128(18, 6)),
        ("v_large", pa.decimal128(38, 10)),
        ("v_date", pa.date32()),
        ("v_time", pa.time64("us")),
        ("v_timestamp", INSTANT),
        ("v_timestamp_ntz", LOCAL),
        ("v_binary", pa.binary()),
        ("v_array", pa.list_(pa.string())),
        ("v_arrays", pa.list_(pa.list_(pa.int64()))),
        ("v_items", pa.list_(ITEM)),
        ("v_map", pa.map_(pa.string(), pa.int64())),
        ("v_maps", pa.map_(pa.int32(), pa.struct([("a", pa.string()), ("b", pa.list_(pa.float64()))]))),
        ("v_struct", STRUCT),
        ("k_string", pa.string()),
        ("k_uuid", pa.string()),
        ("k_boolean", pa.bool_()),
        ("k_int", pa.int32()),
        ("k_long", pa.int64()),
        ("k_decimal", pa.decimal128(9, 2)),
        ("k_large", pa.decimal128(38, 10)),
        ("k_date", pa.date32()),
        ("k_time", pa.time64("us")),
        ("k_timestamp", INSTANT),
        ("k_timestamp_ntz", LOCAL),
        ("k_binary", pa.binary()),
    ]
)

KEYS: dict[str, list] = {
    "k_string": ["", "a", "abcdefgh", "abcdefgi", "äöüß", "\N{MUSICAL SYMBOL G CLEF}clef", "a/b=c %d&?#'\"", "null"],
    "k_uuid": [str(uuid.UUID(int=n)) for n in (0, 1, 2**127, 2**128 - 1)],
    "k_boolean": [True, False],
    "k_int": [-11, -10, -1, 0, 1, 9, 10, 25],
    "k_long": [-(10**15), -1001, -1, 0, 999, 1000, 10**15],
    "k_decimal": [Decimal(text) for text in ("-10.65", "-0.01", "0.00", "0.49", "10.65", "9999999.99")],
    "k_large": [Decimal(text) for text in ("-1234567890123456789012345678.0000000001", "0.0000000000", "1.5000000000")],
    "k_date": [date(1899, 12, 31), date(1969, 12, 31), date(1970, 1, 1), date(2000, 2, 29), date(2024, 12, 31)],
    "k_time": [time(0), time(0, 0, 0, 1), time(12, 34, 56), time(23, 59, 59, 999999)],
    "k_timestamp": [
        datetime(1969, 12, 31, 23, 59, 59, 999999, UTC),
        datetime(1970, 1, 1, tzinfo=UTC),
        datetime(1970, 1, 1, 1, tzinfo=UTC),
        datetime(2024, 2, 29, 12, 34, 56, 789012, UTC),
        datetime(2024, 2, 29, 13, 0, 0, 1, UTC),
        datetime(2262, 4, 12, tzinfo=UTC),
    ],
    "k_timestamp_ntz": [
        datetime(1582, 10, 15, 0, 0, 0, 1),
        datetime(1969, 12, 31, 23, 0),
        datetime(1970, 1, 1),
        datetime(2024, 3, 10, 2, 30),
        datetime(2024, 3, 10, 3, 30),
    ],
    "k_binary": [b"", b"\x00", b"\xff\xfe", b"a longer one than sixteen bytes"],
}

TRANSFORMS: dict[str, list[str]] = {
    "identity": list(KEYS),
    "year": ["k_date", "k_timestamp", "k_timestamp_ntz"],
    "month": ["k_date", "k_timestamp", "k_timestamp_ntz"],
    "day": ["k_date", "k_timestamp", "k_timestamp_ntz"],
    "hour": ["k_timestamp", "k_timestamp_ntz"],
    "bucket": [name for name in KEYS if name != "k_boolean"],
    "truncate": ["k_string", "k_int", "k_long", "k_decimal", "k_large"],
}
ARGUMENT = {"bucket": 3, ("truncate", "k_string"): 3, ("truncate", "k_int"): 10, ("truncate", "k_long"): 1000}
ARGUMENT |= {("truncate", "k_decimal"): 50, ("truncate", "k_large"): 7}


def _tables() -> dict[str, list[str]]:
    """Partition fields by table."""
    tables = {"plain": []}
    for transform, columns in TRANSFORMS.items():
        for column in columns:
            argument = ARGUMENT.get(transform, ARGUMENT.get((transform, column)))
            field = column if transform == "identity" else f"{transform}({column})"
            if argument is not None:
                field = f"{transform}({argument}, {column})"
            tables[f"{transform}_{column.removeprefix('k_')}"] = [field]
    tables["several"] = ["month(k_timestamp)", "bucket(2, k_int)", "k_boolean"]
    return tables


TABLES = _tables()
SORT = ["k_string", "id desc"]


def manifest(write: str) -> str:
    lines = ["dataProduct:", "  name: types", "  version: 1.0.0", "  owner: lab-team", "  schema:"]
    for name, partition in TABLES.items():
        lines += [f"    - name: {name}", f"      write: {write}", f"      sortBy: {json.dumps(SORT)}"]
        lines += [f"      partitionBy: {json.dumps(partition)}"] if partition else []
        lines += ["      columns:", COLUMNS.rstrip("\n")]
    return "\n".join(lines) + "\n"


def _single(value: float) -> float:
    return struct.unpack("f", struct.pack("f", value))[0]


def _json(value) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


EDGES: list[dict] = [
    {
        "v_string": "", "v_uuid": str(uuid.UUID(int=0)), "v_json": "{}", "v_boolean": False, "v_int": -(2**31),
        "v_long": -(2**63), "v_float": -0.0, "v_double": -0.0, "v_small": Decimal("-9999999.99"),
        "v_decimal": Decimal("-999999999999.999999"), "v_large": Decimal("-" + "9" * 28 + "." + "9" * 10),
        "v_date": date(1, 1, 1), "v_time": time(0), "v_timestamp": datetime(1, 1, 1, tzinfo=UTC),
        "v_timestamp_ntz": datetime(1, 1, 1), "v_binary": b"", "v_array": [], "v_arrays": [], "v_items": [], "v_map": [],
        "v_maps": [], "v_struct": {"city": None, "score": None, "at": None, "inner": None},
    },
    {
        "v_string": "\N{MUSICAL SYMBOL G CLEF}" * 20, "v_uuid": str(uuid.UUID(int=2**128 - 1)), "v_json": _json([None, 1.5, "ü", {"a": []}]),
        "v_boolean": True, "v_int": 2**31 - 1, "v_long": 2**63 - 1, "v_float": _single(3.4028234663852886e38),
        "v_double": 1.7976931348623157e308, "v_small": Decimal("9999999.99"), "v_decimal": Decimal("999999999999.999999"),
        "v_large": Decimal("9" * 28 + "." + "9" * 10), "v_date": date(9999, 12, 31), "v_time": time(23, 59, 59, 999999),
        "v_timestamp": datetime(9999, 12, 31, 23, 59, 59, 999999, UTC), "v_timestamp_ntz": datetime(9999, 12, 31, 23, 59, 59, 999999),
        "v_binary": b"\xff" * 40, "v_array": ["", None, "ü"], "v_arrays": [[], None, [1, None, -(2**63)]],
        "v_items": [{"sku": "a", "price": Decimal("0.01"), "at": datetime(2024, 1, 1, tzinfo=UTC)}, None, {"sku": None, "price": None, "at": None}],
        "v_map": [("", 0), ("ü", None)], "v_maps": [(-1, None), (2, {"a": None, "b": [0.1, None]})],
        "v_struct": {"city": "Zürich", "score": 5e-324, "at": datetime(1969, 12, 31, 23, 59, 59, 999999), "inner": {"flag": None, "tags": [None]}},
    },
    {},
]


def _value(random_: random.Random, name: str):
    if name in KEYS:
        return random_.choice(KEYS[name])
    instant = datetime(1960, 1, 1) + timedelta(microseconds=random_.randrange(3 * 10**15))
    word = lambda: "".join(random_.choice("abcäöü \n\t\"\\,€🙂") for _ in range(random_.randrange(24)))
    make = {
        "v_string": word,
        "v_uuid": lambda: str(uuid.UUID(int=random_.getrandbits(128))),
        "v_json": lambda: _json({"n": random_.randrange(10), "t": [word(), None, True]}),
        "v_boolean": lambda: random_.random() < 0.5,
        "v_int": lambda: random_.randrange(-(2**31), 2**31),
        "v_long": lambda: random_.randrange(-(2**63), 2**63),
        "v_float": lambda: _single(random_.gauss(0, 1e6)),
        "v_double": lambda: random_.gauss(0, 1e100),
        "v_small": lambda: Decimal(random_.randrange(-(10**9) + 1, 10**9)).scaleb(-2),
        "v_decimal": lambda: Decimal(random_.randrange(-(10**18) + 1, 10**18)).scaleb(-6),
        "v_large": lambda: Decimal(f"{random_.randrange(-(10**28) + 1, 10**28)}.{random_.randrange(10**10):010}"),
        "v_date": lambda: instant.date(),
        "v_time": lambda: instant.time(),
        "v_timestamp": lambda: instant.replace(tzinfo=UTC),
        "v_timestamp_ntz": lambda: instant,
        "v_binary": lambda: random_.randbytes(random_.randrange(24)),
        "v_array": lambda: [random_.choice([word(), None]) for _ in range(random_.randrange(4))],
        "v_arrays": lambda: [[random_.getrandbits(60) for _ in range(random_.randrange(3))] for _ in range(random_.randrange(3))],
        "v_items": lambda: [
            {"sku": word(), "price": Decimal(random_.randrange(10**6)).scaleb(-2), "at": instant.replace(tzinfo=UTC)}
            for _ in range(random_.randrange(3))
        ],
        "v_map": lambda: [(f"key {n}", random_.choice([None, n])) for n in range(random_.randrange(4))],
        "v_maps": lambda: [(n, {"a": word(), "b": [random_.random()]}) for n in range(random_.randrange(3))],
        "v_struct": lambda: {
            "city": word(),
            "score": random_.gauss(0, 1),
            "at": instant,
            "inner": random_.choice([None, {"flag": True, "tags": [word()]}]),
        },
    }
    return make[name]()


def rows(batch: int, not_a_number: bool) -> list[dict]:
    """One batch: ids that no other batch has, every key value, every edge."""
    random_ = random.Random(batch)
    made = []
    for number in range(ROWS):
        row = {"id": batch * 1_000_000 + number}
        for name in SCHEMA.names[1:]:
            row[name] = None if random_.random() < 0.1 else _value(random_, name)
        made.append(row)
    for row, edge in zip(made, EDGES):
        row |= {name: edge.get(name) for name in SCHEMA.names if name.startswith("v_")}
    for name in KEYS:
        made[2][name] = None
    for at, values in enumerate(zip(*[(values * 10)[:10] for values in KEYS.values()])):
        made[3 + at] |= dict(zip(KEYS, values))
    if not_a_number:
        for at, value in enumerate([math.nan, math.inf, -math.inf, -math.nan]):
            made[20 + at] |= {"v_float": value, "v_double": value}
            made[20 + at]["v_struct"] = {"city": "NaN", "score": value, "at": None, "inner": None}
    return made


def table(made: list[dict]) -> pa.Table:
    return pa.Table.from_pylist(made, schema=SCHEMA)


def write_parquet(path, made: list[dict]) -> None:
    pq.write_table(table(made), path, row_group_size=40)


def write_ndjson(path, made: list[dict]) -> None:
    with open(path, "w", encoding="utf-8", newline="\n") as out:
        for row in made:
            cells = ",".join(f"{json.dumps(name)}:{_cell(row[name], SCHEMA.field(name).type, name)}" for name in row)
            out.write("{" + cells + "}\n")


def _cell(value, kind: pa.DataType, name: str = "") -> str:
    if value is None:
        return "null"
    if name == "v_json":
        return value
    if pa.types.is_struct(kind):
        return "{" + ",".join(f"{json.dumps(field.name)}:{_cell(value[field.name], field.type)}" for field in kind) + "}"
    if pa.types.is_map(kind):
        return "{" + ",".join(f"{_json(str(key))}:{_cell(item, kind.item_type)}" for key, item in value) + "}"
    if pa.types.is_list(kind):
        return "[" + ",".join(_cell(item, kind.value_type) for item in value) + "]"
    if isinstance(value, datetime):
        return _json(value.isoformat().replace("+00:00", "Z"))
    if isinstance(value, (date, time)):
        return _json(value.isoformat())
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, bytes):
        return _json(base64.b64encode(value).decode())
    return _json(value)
