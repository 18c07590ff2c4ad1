"""Tables and queries of a real PostgreSQL and of SQLite."""

import datetime as dt
import json
import sqlite3
import sys
import threading
import time
from decimal import Decimal
from pathlib import Path

import pytest
import yaml

from postgres import PASSWORD, USER
from sources import FOLDER, PRODUCT, command, counts, define, failure, quarantined, rows

sys.path.append(str(Path(__file__).parents[2] / "bench"))
from measure import measure  # noqa: E402

pg = pytest.mark.postgres


@pytest.fixture
def database(postgres, request, monkeypatch):
    """A database of the test's own; `CRM_URL` names it."""
    name = f"d{abs(hash(request.node.nodeid))}"
    postgres.sql(f'CREATE DATABASE "{name}"')
    monkeypatch.setenv("CRM_URL", postgres.url(name))

    class Database:
        server = postgres

        @staticmethod
        def sql(text: str) -> str:
            return postgres.sql(text, name)

        @staticmethod
        def url(**arguments) -> str:
            return postgres.url(name, **arguments)

    return Database


def source(rest: str, database: str = "${env:CRM_URL}") -> str:
    return f'{{database: "{database}", {rest}}}'


PLAIN = """
{name: id, type: long, primaryKey: true}
{name: name, type: string}
"""

TYPES = """
{name: id, type: int, primaryKey: true}
{name: small, type: int}
{name: big, type: long}
{name: amount, type: 'decimal(38,10)'}
{name: share, type: double}
{name: narrow, type: float}
{name: ok, type: boolean}
{name: word, type: string}
{name: padded, type: string}
{name: mood, type: string, enum: [sad, happy]}
{name: positive, type: int}
{name: day, type: date}
{name: clock, type: time}
{name: at, type: timestamp}
{name: local, type: timestamp_ntz}
{name: uid, type: uuid}
{name: document, type: json}
{name: place, type: struct, columns: [{name: city, type: string}, {name: zip, type: int}]}
{name: bytes, type: binary}
{name: tags, type: array<string>}
{name: numbers, type: 'array<decimal(10,2)>'}
"""


@pg
def test_every_type_comes_exactly(mesh, database):
    database.sql("""
        CREATE TYPE mood AS ENUM ('sad', 'happy');
        CREATE DOMAIN positive AS int CHECK (VALUE > 0);
        CREATE TYPE place AS (city text, zip int);
        CREATE TABLE t (id int PRIMARY KEY, small smallint, big bigint, amount numeric, share float8, narrow float4,
            ok boolean, word text, padded char(5), mood mood, positive positive, day date, clock time, at timestamptz,
            local timestamp, uid uuid, document jsonb, place place, bytes bytea, tags text[], numbers numeric[], other text);
        SET timezone = 'Europe/Zurich';
        INSERT INTO t VALUES (1, -32768, 9223372036854775807, 1234567890123456789012345678.0123456789, 0.1, 0.1, true,
            E'a\\tb "q" ö', 'ab', 'happy', 7, '2024-02-29', '23:59:59.999999', '2024-07-01 12:00:00.123456+02',
            '1969-12-31 23:59:59', 'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11', '{"a": [1, 2.50]}', ('Bern', 3000),
            decode(repeat('00ff10', 60), 'hex'), ARRAY['x', NULL, 'a,"b'], ARRAY[1.10, NULL], 'z');
        INSERT INTO t (id) VALUES (2);
    """)
    define(mesh, source("table: public.t"), TYPES)
    report = mesh.publish(PRODUCT)
    assert counts(report) == (2, 2, 0)
    assert report["tables"][0]["ignoredColumns"] == ["other"]
    first, second = mesh.query("SELECT * FROM lab.pull.rows ORDER BY id").to_pylist()
    assert {key: value for key, value in second.items() if value is not None} == {"id": 2}
    assert first["big"] == 9223372036854775807 and first["small"] == -32768
    assert first["amount"] == Decimal("1234567890123456789012345678.0123456789")
    assert first["share"] == 0.1 and abs(first["narrow"] - 0.1) < 1e-8 and first["ok"] is True
    assert first["word"] == 'a\tb "q" ö' and first["padded"].strip() == "ab" and first["mood"] == "happy"
    assert first["day"] == dt.date(2024, 2, 29) and first["clock"] == dt.time(23, 59, 59, 999999)
    assert first["at"].astimezone(dt.timezone.utc) == dt.datetime(2024, 7, 1, 10, 0, 0, 123456, tzinfo=dt.timezone.utc)
    assert first["local"] == dt.datetime(1969, 12, 31, 23, 59, 59)
    assert first["uid"] == "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"
    assert first["document"] == '{"a": [1, 2.50]}' and first["place"] == {"city": "Bern", "zip": 3000}
    assert first["bytes"] == bytes.fromhex("00ff10") * 60
    assert first["tags"] == ["x", None, 'a,"b'] and first["numbers"] == [Decimal("1.10"), None]


@pg
def test_values_that_have_no_counterpart_are_faults(mesh, database):
    database.sql("""
        CREATE TABLE t (id bigint, amount numeric, day date, at timestamptz);
        INSERT INTO t VALUES (1, 'NaN', '2024-01-01', now()), (2, 1.005, 'infinity', now()), (3, 1, '2024-01-01', '-infinity'),
            (4, 1, '0044-03-15 BC', now()), (5, 1.50, '2024-01-01', now()), (6, 100000000, '2024-01-01', now());
    """)
    define(mesh, source("table: t"), """
        {name: id, type: long, primaryKey: true}
        {name: amount, type: 'decimal(10,2)'}
        {name: day, type: date}
        {name: at, type: timestamp}
    """, more="quarantine: {limit: 100%}")
    report = mesh.publish(PRODUCT)
    assert counts(report) == (6, 1, 5)
    reasons = {rule: found["rows"] for rule, found in report["tables"][0]["reasons"].items()}
    assert reasons == {"type:amount": 3, "type:day": 2, "type:at": 1}
    values = {sample["value"] for found in report["tables"][0]["reasons"].values() for sample in found["samples"]}
    assert {"NaN", "1.005", "infinity", "-infinity"} <= values


@pg
@pytest.mark.parametrize("type_, contract", [
    ("interval", "string"), ("int", "string"), ("timestamp", "timestamp"), ("timestamptz", "timestamp_ntz"),
    ("money", "decimal(10,2)"), ("boolean", "int"), ("int4range", "string"), ("bytea", "string"), ("timetz", "time"),
    ("int[]", "string"), ("point", "string"), ("bytea[]", "array<string>"), ("held", "struct<b: binary>"), ("held[]", "array<struct<b: binary>>"),
])
def test_a_type_that_means_something_else_is_refused(mesh, database, type_, contract):
    database.sql(f"CREATE TYPE held AS (a int, b bytea); CREATE TABLE t (id bigint, x {type_})")
    define(mesh, source("table: t"), f"{{name: id, type: long}}\n{{name: x, type: '{contract}'}}")
    said = failure(mesh, "publish", PRODUCT)
    assert "`x`" in said and contract.split("(")[0] in said and "query" in said, said
    assert PASSWORD not in said


@pg
def test_arrays_of_bytes_come_as_bytes(mesh, database):
    database.sql("""
        CREATE TYPE held AS (a int, b bytea);
        CREATE TABLE t (id bigint, x bytea[], held held);
        INSERT INTO t VALUES (1, ARRAY[decode('00ff', 'hex'), NULL, decode(repeat('7f', 100), 'hex'), ''::bytea], (7, 'x')), (2, NULL, NULL),
            (3, '{}', NULL), (4, ARRAY[ARRAY['a'::bytea], ARRAY['b'::bytea]], NULL);
    """)
    columns = "{name: id, type: long}\n{name: x, type: array<binary>}\n{name: held, type: 'struct<a: int>'}"
    define(mesh, source("table: t"), columns, more="quarantine: {limit: 100%}")
    report = mesh.publish(PRODUCT)
    assert counts(report) == (4, 3, 1), "an array of arrays is no array of bytes"
    found = mesh.query("SELECT * FROM lab.pull.rows ORDER BY id").to_pylist()
    assert [row["x"] for row in found] == [[b"\x00\xff", None, b"\x7f" * 100, b""], None, []]
    assert found[0]["held"] == {"a": 7}


@pg
def test_a_query_casts_what_a_table_cannot(mesh, database):
    database.sql("CREATE TABLE t (id bigint, x interval); INSERT INTO t VALUES (1, '1 day'), (2, '2 hours')")
    define(mesh, source("query: \"SELECT id, x::text AS x FROM t -- all\""), "{name: id, type: long}\n{name: x, type: string}")
    mesh.publish(PRODUCT)
    assert rows(mesh) == [{"id": 1, "x": "1 day"}, {"id": 2, "x": "02:00:00"}]


@pg
def test_conditions_and_columns_go_to_the_server(mesh, database, monkeypatch):
    """The server's own statistics say which statement ran."""
    database.sql("CREATE TABLE t (id bigint, name text, secret text, region text); "
                 "INSERT INTO t SELECT i, 'n' || i, repeat('s', 100), CASE WHEN i % 2 = 0 THEN 'EU' ELSE 'US' END FROM generate_series(1, 100) i")
    log = database.server.folder / "log"
    database.server.sql("ALTER SYSTEM SET log_statement = 'all'")
    database.server.sql("SELECT pg_reload_conf()")
    time.sleep(0.5)
    try:
        monkeypatch.setenv("REGION", "EU' OR '1'='1")
        define(mesh, source('table: public.t, where: "region = ${env:REGION} AND id > 10"'), PLAIN)
        assert counts(mesh.publish(PRODUCT)) == (0, 0, 0)
        monkeypatch.setenv("REGION", "EU")
        assert counts(mesh.publish(PRODUCT))[0] == 45
    finally:
        database.server.sql("ALTER SYSTEM RESET log_statement")
        database.server.sql("SELECT pg_reload_conf()")
    statements = [line for line in log.read_text().splitlines() if 'FROM "public"."t"' in line and "::text" in line]
    assert statements and all("secret" not in line for line in statements), statements
    text = log.read_text()
    assert "region = $1 AND id > 10" in text and "REPEATABLE READ READ ONLY" in text
    assert [row["id"] for row in rows(mesh)] == list(range(12, 101, 2))


def check_streamed(mesh) -> None:
    """Publishes 400,000 rows of 640 characters, 256 MB of text, in less memory than these take."""
    mesh.keep_up()
    cost = measure([str(mesh.binary), "--mesh", str(mesh.root), "publish", PRODUCT, "--format", "json"], mesh.root)
    assert counts(json.loads(cost.stdout)) == (400_000, 400_000, 0)
    assert cost.peak_mib < 240, cost


@pg
def test_a_large_table_is_streamed(mesh, database):
    database.sql("CREATE TABLE t AS SELECT i::bigint AS id, repeat(md5(i::text), 20) AS name FROM generate_series(1, 400000) i")
    define(mesh, source("table: t"), PLAIN)
    check_streamed(mesh)


@pg
def test_one_pull_sees_one_moment(mesh, database):
    """Transfers go on while the table is read: the sum is that of any one moment."""
    database.sql("CREATE TABLE t AS SELECT i::bigint AS id, 100::bigint AS amount, repeat('x', 500) AS filler FROM generate_series(1, 60000) i")
    stop = threading.Event()

    def transfer():
        while not stop.is_set():
            database.sql("UPDATE t SET amount = amount - 1 WHERE id = 1; UPDATE t SET amount = amount + 1 WHERE id = 60000;"
                         .join(["BEGIN;", "COMMIT;"]))

    worker = threading.Thread(target=transfer)
    worker.start()
    try:
        define(mesh, source("table: t"), "{name: id, type: long}\n{name: amount, type: long}\n{name: filler, type: string}", write="replace")
        for _ in range(3):
            mesh.publish(PRODUCT, "--again")
            assert rows(mesh, "sum(amount) AS s") == [{"s": 6_000_000}]
    finally:
        stop.set()
        worker.join()


@pg
def test_tls_is_what_the_url_says(mesh, database, monkeypatch):
    database.sql("CREATE TABLE t (id bigint, name text); INSERT INTO t VALUES (1, 'a')")
    define(mesh, source("table: t"), PLAIN)
    if not (database.server.folder / "server.crt").exists():
        pytest.skip("openssl is not on this machine")
    for options, works in [
        ("?sslmode=disable", True), ("?sslmode=require", True),
        (f"?sslmode=verify-full&sslrootcert={database.server.folder / 'server.crt'}", True),
        ("?sslmode=verify-full", False),
    ]:
        monkeypatch.setenv("CRM_URL", database.url(options=options).replace("127.0.0.1", "localhost"))
        if works:
            mesh.publish(PRODUCT)
        else:
            assert "certificate" in failure(mesh, "publish", PRODUCT).lower()


@pg
@pytest.mark.parametrize("problem", ["password", "database", "table", "column", "port", "url", "unset", "role"])
def test_failures_say_what_to_do_and_no_password(mesh, database, monkeypatch, problem):
    database.sql("CREATE TABLE t (id bigint, name text)")
    url, table, expected = database.url(), "table: t", ""
    match problem:
        case "password":
            url, expected = database.url(password="wr0ng-Pa55"), "password"
        case "database":
            url, expected = database.url().rsplit("/", 1)[0] + "/missing", "missing"
        case "table":
            table, expected = "table: nowhere", "nowhere"
        case "column":
            table, expected = 'table: t, where: "missing > 1"', "missing"
        case "port":
            url, expected = database.url().replace(f":{database.server.port}/", ":1/"), "host and port"
        case "url":
            url, expected = database.url().replace("/", "//", 1) + "%zz?sslmode=sometimes", "URL"
        case "unset":
            expected = "CRM_URL"
        case "role":
            url, expected = database.url(user="stranger"), "password"
    if problem == "unset":
        monkeypatch.delenv("CRM_URL")
    else:
        monkeypatch.setenv("CRM_URL", url)
    define(mesh, source(table), PLAIN)
    for form in ((), ("--format", "json")):
        done = command(mesh, "publish", PRODUCT, *form)
        assert done.returncode not in (0, 101), (done.stdout, done.stderr)
        said = done.stdout + done.stderr
        assert expected in said and "help" in said, said
        for secret in (PASSWORD, "s3cret", "Pa55", "wr0ng", url.split("@")[0]):
            assert secret not in said, said


@pg
def test_a_missing_required_column_rejects(mesh, database):
    database.sql("CREATE TABLE t (id bigint)")
    define(mesh, source("table: t"), "{name: id, type: long}\n{name: name, type: string, required: true}")
    report = mesh.publish(PRODUCT, expect=3)
    assert report["tables"][0]["missingRequired"] == ["name"]


@pg
def test_secrets_are_kept_nowhere(mesh, database, monkeypatch, tmp_path):
    database.sql("CREATE TABLE t (id bigint, name text, region text); INSERT INTO t VALUES (1, 'a', 'EU'), (2, NULL, 'EU'), (NULL, 'c', 'EU')")
    secret = tmp_path / "password"
    from urllib.parse import quote

    secret.write_text(quote(PASSWORD, safe="") + "\n")
    monkeypatch.setenv("REGION", "EU")
    define(mesh, source('table: t, where: "region = ${env:REGION}"',
                        f"postgres://{USER}:${{file:{secret}}}@127.0.0.1:{database.server.port}/" + database.url().rsplit("/", 1)[1]),
           PLAIN, more="quarantine: {limit: 100%}")
    done = command(mesh, "publish", PRODUCT, "--format", "json")
    assert done.returncode == 0, done.stderr
    output = done.stdout + done.stderr + mesh.run("show", PRODUCT) + mesh.run("publications", PRODUCT) + mesh.run("quarantine", PRODUCT)
    kept = output.encode() + b"".join(path.read_bytes() for path in mesh.root.rglob("*") if path.is_file())
    assert b"${file:" in kept
    for value in (PASSWORD, quote(PASSWORD, safe=""), "s3cret"):
        assert value.encode() not in kept


def test_check_refuses_a_password_in_a_manifest(mesh):
    define(mesh, source("table: t", "postgres://anna:hunter2@db/crm"), PLAIN)
    found = mesh.json("check", expect=4)
    assert [problem["id"] for problem in found["diagnostics"]] == ["literal-secret"]
    problem = found["diagnostics"][0]
    assert problem["location"]["line"] == 8 and "${env:NAME}" in problem["help"]
    assert "hunter2" not in problem["message"] + problem["help"]


# SQLite


def sqlite(mesh, script: str, name: str = "crm.db") -> sqlite3.Connection:
    path = mesh.root / FOLDER / name
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path)
    connection.executescript(script)
    connection.commit()
    return connection


def test_sqlite(mesh):
    connection = sqlite(mesh, """
        CREATE TABLE "odd.name" (id INTEGER PRIMARY KEY, name TEXT, amount NUMERIC, share REAL, ok BOOLEAN, day TEXT, at TEXT,
            document TEXT, bytes BLOB, other TEXT);
    """)
    connection.execute('INSERT INTO "odd.name" VALUES (1, ?, ?, 0.1, 1, ?, ?, ?, ?, NULL)',
                       ("ö 'q'", "12.50", "2024-02-29", "2024-02-29 12:00:00Z", '{"a":1}', b"\x00\xff"))
    connection.execute('INSERT INTO "odd.name" (id) VALUES (9223372036854775807)')
    connection.commit()
    define(mesh, """{database: "sqlite:crm.db", table: '"odd.name"'}""", """
        {name: id, type: long, primaryKey: true}
        {name: name, type: string}
        {name: amount, type: 'decimal(10,2)'}
        {name: share, type: double}
        {name: ok, type: boolean}
        {name: day, type: date}
        {name: at, type: timestamp}
        {name: document, type: json}
        {name: bytes, type: binary}
    """)
    report = mesh.publish(PRODUCT)
    assert counts(report) == (2, 2, 0) and report["tables"][0]["ignoredColumns"] == ["other"]
    first, second = mesh.query("SELECT * FROM lab.pull.rows ORDER BY id").to_pylist()
    assert first | {"at": None} == {"id": 1, "name": "ö 'q'", "amount": Decimal("12.50"), "share": 0.1, "ok": True,
                                    "day": dt.date(2024, 2, 29), "at": None, "document": '{"a":1}', "bytes": b"\x00\xff"}
    assert second["id"] == 9223372036854775807


def test_sqlite_cells_that_do_not_fit_are_faults(mesh):
    sqlite(mesh, """
        CREATE TABLE t (id, x, y);
        INSERT INTO t VALUES (1, 5, 'ok'), (2, 'five', 'ok'), (3, 5.5, 'ok'), (4, x'00', 'ok'), (5, 5.0, 'ok'),
            (6, '6', 'ok'), (7, 7, 7), (8, 8, 8.5), (9, NULL, x'41'), (10, 9223372036854775807, NULL), (11, 1e300, 'ok');
    """)
    define(mesh, '{database: "sqlite:crm.db", table: t}', """
        {name: id, type: int, primaryKey: true}
        {name: x, type: long}
        {name: y, type: string}
    """, more="quarantine: {limit: 100%}")
    report = mesh.publish(PRODUCT)
    assert [row["id"] for row in rows(mesh)] == [1, 5, 6, 10]
    reasons = {rule: found["rows"] for rule, found in report["tables"][0]["reasons"].items()}
    assert reasons == {"type:x": 4, "type:y": 3}
    assert any("five" in str(row) for row in quarantined(mesh))


def test_conditions_and_columns_go_to_sqlite(mesh):
    """A column that nobody may compute is not asked for, and rows that are not wanted are not read."""
    sqlite(mesh, """
        CREATE TABLE t (id INTEGER, name TEXT);
        INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c');
        CREATE VIEW v AS SELECT id, name, abs(-9223372036854775808) AS broken FROM t;""")
    define(mesh, '{database: "sqlite:crm.db", table: v, where: "id > 1"}', PLAIN)
    assert counts(mesh.publish(PRODUCT)) == (2, 2, 0)
    assert [row["id"] for row in rows(mesh)] == [2, 3]


def test_a_watermark_goes_to_sqlite(mesh):
    connection = sqlite(mesh, "CREATE TABLE t (id INTEGER, name TEXT); INSERT INTO t VALUES (1, 'a'), (2, 'b');")
    define(mesh, '{database: "sqlite:crm.db", table: t}', PLAIN, "watermark: id")
    assert counts(mesh.publish(PRODUCT)) == (2, 2, 0)
    connection.execute("INSERT INTO t VALUES (3, 'c')")
    connection.commit()
    report = mesh.publish(PRODUCT)
    assert counts(report) == (1, 1, 0) and report["tables"][0]["watermark"].get("skipped", 0) == 0


def test_a_large_table_of_sqlite_is_streamed(mesh):
    sqlite(mesh, """
        CREATE TABLE t (id INTEGER, name TEXT);
        INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 400000) SELECT i, printf('%0640d', i) FROM n;""")
    define(mesh, '{database: "sqlite:crm.db", table: t}', PLAIN)
    check_streamed(mesh)


def test_sqlite_while_it_is_written(mesh):
    connection = sqlite(mesh, "PRAGMA journal_mode = WAL; CREATE TABLE t (id INTEGER, name TEXT); INSERT INTO t VALUES (1, 'a');")
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("INSERT INTO t VALUES (2, 'b')")
    define(mesh, '{database: "sqlite:crm.db", query: "SELECT * FROM t", where: "id < 100"}', PLAIN)
    assert counts(mesh.publish(PRODUCT)) == (1, 1, 0)
    connection.commit()
    assert mesh.publish(PRODUCT, "--again", expect=3)["status"] == "rejected"


@pytest.mark.parametrize("database, table, said", [
    ("sqlite:missing.db", "table: t", "no such file"),
    ("sqlite:crm.db", "table: nowhere", "nowhere"),
    ("sqlite:crm.db", 'table: t, where: "missing = 1"', "missing"),
    ("sqlite:product.yaml", "table: t", "not a database"),
])
def test_sqlite_failures_are_clear(mesh, database, table, said):
    sqlite(mesh, "CREATE TABLE t (id INTEGER, name TEXT);")
    define(mesh, f'{{database: "{database}", {table}}}', PLAIN)
    assert said in failure(mesh, "publish", PRODUCT)


def drafted(mesh, address: str, expect: int = 0) -> dict:
    """What `new` drafts of a table: the manifest's only table. The product can be published then."""
    mesh.run("new", "lab/drafted", "--from", address)
    path = mesh.root / "domains/lab/products/drafted/product.yaml"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("owner: TODO", "owner: lab-team"), encoding="utf-8")
    assert PASSWORD not in text
    [table] = yaml.safe_load(text)["dataProduct"]["schema"]
    return table


def types(table: dict) -> dict[str, str]:
    return {column["name"]: column["type"] for column in table["columns"]}


@pg
def test_a_contract_is_drafted_from_a_table(mesh, database):
    database.sql("""
        CREATE TYPE mood AS ENUM ('sad', 'happy');
        CREATE DOMAIN money2 AS numeric(9,2);
        CREATE TYPE place AS (city text, about jsonb);
        CREATE TYPE sealed AS (name text, body bytea);
        CREATE TABLE t (id int PRIMARY KEY, small smallint, big bigint, price numeric(10,2), cents money2, free numeric,
            share float8, narrow float4, ok boolean, word text, mood mood, day date, clock time, at timestamptz,
            local timestamp, uid uuid, document jsonb, nothing jsonb, place place, bytes bytea, tags text[], email text,
            documents jsonb[], none numeric, numbers numeric[], span interval, sealed sealed);
        INSERT INTO t SELECT n, n % 7, n * 1000000000000, n / 4.0, n / 100.0, (n / 1000.0)::numeric(20,3), n / 3.0, n / 8.0, n % 2 = 0,
            'word ' || n, CASE WHEN n % 3 = 0 THEN 'sad' ELSE 'happy' END::mood, DATE '2024-01-01' + n, '12:00',
            '2024-01-01 00:00:00Z'::timestamptz + n * interval '1 hour', '2024-01-01', gen_random_uuid(), '{"a": 1}', NULL,
            ('Bern', '{"b": 2}')::place, 'x', ARRAY['x'], 'user' || n || '@example.org', ARRAY['{"c": 3}'::jsonb], NULL,
            ARRAY[1.5], interval '1 day', ('x', 'y')::sealed
            FROM generate_series(1, 500) n;
    """)
    table = drafted(mesh, "${env:CRM_URL}#public.t")
    assert table["name"] == "t" and table["write"] == "replace"
    assert table["source"] == {"database": "${env:CRM_URL}", "table": "public.t"}
    found = types(table)
    assert (found.pop("place"), found.pop("tags"), found.pop("documents")) == ("struct", "array<string>", "array<json>")
    assert found == {
        "id": "int", "small": "int", "big": "long", "price": "decimal(10,2)", "cents": "decimal(9,2)",
        "free": "decimal(38,3)", "share": "double", "narrow": "float", "ok": "boolean", "word": "string", "mood": "string",
        "day": "date", "clock": "time", "at": "timestamp", "local": "timestamp_ntz", "uid": "uuid", "document": "json",
        "nothing": "json", "bytes": "binary", "email": "string", "none": "decimal(38,9)",
    }
    columns = {column["name"]: column for column in table["columns"]}
    assert columns["id"]["primaryKey"] is True and columns["mood"]["enum"] == ["happy", "sad"]
    assert columns["email"]["pii"] is True
    assert {column["name"]: column["type"] for column in columns["place"]["columns"]} == {"city": "string", "about": "json"}
    text = (mesh.root / "domains/lab/products/drafted/product.yaml").read_text(encoding="utf-8")
    assert "numbers" in text and "a numeric does not tell its digits" in text
    assert "span" in text and "no contract type holds interval" in text
    assert "sealed" in text and "bytes are read as a column or an array of their own" in text
    assert "numeric without digits of its own in the database" in text or "numeric in the database without digits" in text
    mesh.run("check")
    [rehearsed] = mesh.json("explain", "lab/drafted")["tables"]
    assert rehearsed["reasons"] == {}
    assert counts(mesh.publish("lab/drafted")) == (500, 500, 0)
    profile = mesh.json("profile", "${env:CRM_URL}#t")
    assert profile["rows"] == 500 and [column["name"] for column in profile["columns"]][:2] == ["id", "small"]


@pg
@pytest.mark.parametrize("value", ["'NaN'", "'Infinity'", "123456789012345678901234567890.1234567890123"])
def test_numerics_without_digits_of_their_own(mesh, database, value):
    database.sql(f"CREATE TABLE t (id int, n numeric); INSERT INTO t VALUES (1, 1.25), (2, {value})")
    profile = mesh.json("profile", "${env:CRM_URL}#t")
    if value.startswith("'"):
        # It is a value of numeric, and of no decimal.
        [number] = [column for column in profile["columns"] if column["name"] == "n"]
        assert number["type"] == "decimal(38,2)"
        assert (profile["rows"], profile["faults"]) == (1, [{"why": "`n` is no decimal(38,2)", "rows": 1, "first": 2}])
    else:
        assert [name for name, why in profile["leftOut"]] == ["n"]


def test_a_contract_is_drafted_from_a_table_of_sqlite(mesh):
    connection = sqlite(mesh, """
        CREATE TABLE customers (id INTEGER PRIMARY KEY, name VARCHAR(20), price DECIMAL(10,2), ok BOOLEAN, born DATE,
            seen DATETIME, photo BLOB, mixed, empty INT);
    """)
    connection.executemany(
        "INSERT INTO customers VALUES (?, ?, ?, ?, ?, ?, ?, ?, NULL)",
        [(n, f"name {n}", n / 4, n % 2, f"2000-01-{n % 28 + 1:02}", f"2024-01-01 10:{n % 60:02}:00", b"x", n if n % 60 == 0 else "x")
         for n in range(1, 301)],
    )
    connection.execute("INSERT INTO customers VALUES (999, 'late', 1.5, 1, 'unknown', NULL, NULL, 'x', NULL)")
    connection.commit()
    place = mesh.root / "domains/lab/products/pull/crm.db"
    table = drafted(mesh, f"sqlite:{place}#customers")
    assert table["source"] == {"database": "sqlite:../pull/crm.db", "table": "customers"}
    assert types(table) == {
        "id": "long", "name": "string", "price": "decimal(10,2)", "ok": "boolean", "born": "date", "seen": "timestamp_ntz",
        "photo": "binary", "mixed": "string", "empty": "long",
    }
    text = (mesh.root / "domains/lab/products/drafted/product.yaml").read_text(encoding="utf-8")
    # The whole numbers among the texts, and the date that is none: evidence.
    assert "5 records cannot be read: `mixed` is no string" in text
    assert "date in the database, texts" in text and "295 of 296 values fit" in text
    report = mesh.publish("lab/drafted")
    assert counts(report) == (301, 295, 6)


def test_a_place_that_a_reference_names_is_drafted_as_it_is_written(mesh, monkeypatch):
    sqlite(mesh, "CREATE TABLE customers (id INTEGER); INSERT INTO customers VALUES (1), (2);")
    monkeypatch.setenv("CRM_FOLDER", str(mesh.root / FOLDER))
    table = drafted(mesh, "sqlite:${env:CRM_FOLDER}/crm.db#customers")
    assert table["source"] == {"database": "sqlite:${env:CRM_FOLDER}/crm.db", "table": "customers"}
    assert counts(mesh.publish("lab/drafted")) == (2, 2, 0)


@pytest.mark.parametrize(("address", "said"), [
    ("postgres://anna:secret@localhost/crm#t", "a password must not stand in a command or a manifest"),
    ("sqlite:crm.db", "an address alone does not say which table"),
    ("sqlite:none.db#t", "there is no such file"),
    ("sqlite:domains/lab/products/pull/crm.db#none", "no such table: none"),
    ("${env:NOT_SET_AT_ALL}#t", "NOT_SET_AT_ALL"),
])
def test_what_no_contract_is_drafted_from(mesh, address, said):
    sqlite(mesh, "CREATE TABLE customers (id INTEGER)")
    for command in (("new", "lab/drafted", "--from"), ("profile",)):
        done = mesh._run(*command, address)
        assert done.returncode not in (0, 1) and said in done.stderr, done.stderr
        assert "secret" not in done.stderr
    assert not (mesh.root / "domains/lab/products/drafted").exists()
