"""Publishes a large CSV file, and measures time, memory and bytes read. See README.md.

usage: publish_csv.py [--rows N] [--runs 3] [--keep] [--skip-peers]
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

import duckdb
import pyarrow

from measure import DATA, MIB, Cost, binary, machine, measure, median, print_table

# What must hold: the greatest peak of memory, and the greatest share of the CPU seconds of a plain copy.
PEAK_LIMIT_MIB = 1024
PROMISE = 1.5
# Part of the file's name: raise it when the rows change.
GENERATION = 1

COUNTRIES = "AT BE CH CZ DE DK ES FI FR GB IE IT JP NL NO PL PT SE US ZA".split()
EMAIL = r"^[^@\s]+@[^@\s]+\.[a-z]+$"

MANIFEST = f"""\
dataProduct:
  name: sales
  version: 1.0.0
  owner: bench-team
  schema:
    - name: orders
      write: replace
      columns:
        - {{name: id, type: long, primaryKey: true}}
        - {{name: customer, type: string, required: true}}
        - {{name: country, type: string, required: true, enum: [{", ".join(f"'{code}'" for code in COUNTRIES)}]}}
        - {{name: amount, type: 'decimal(10,2)', required: true, minimum: 0}}
        - {{name: created, type: timestamp, required: true}}
        - {{name: email, type: string, pattern: '{EMAIL}'}}
        - {{name: flag, type: boolean}}
        - {{name: score, type: double, minimum: 0, maximum: 100}}
"""

# The rows that are at fault, by the rule that finds them. The divisors are primes, so that every mixture occurs.
FAULTS = {
    "type:amount": "i % 10007 = 1",
    "enum:country": "i % 10009 = 2",
    "pattern:email": "i % 10037 = 3",
    "type:created": "i % 10039 = 4",
    "type:flag": "i % 10061 = 5",
    "maximum:score": "i % 10067 = 6",
    "required:customer": "i % 10069 = 7",
    "record": "i % 10091 = 9",
}
# A row with the id of the one before it.
DOUBLED = "i % 10079 = 8"


def spread(factor: int, modulus: int) -> str:
    """A deterministic number below `modulus` that looks like chance."""
    return f"((i * {factor} + 12345) % 2147483647 % {modulus})"


def line_sql() -> str:
    fault = FAULTS
    customer = f"'Customer ' || {spread(48271, 2_000_000)}"
    country = f"{COUNTRIES!r}[1 + {spread(69621, len(COUNTRIES))}]"
    amount = f"{spread(16807, 100_000)} || '.' || lpad({spread(39373, 100)}::VARCHAR, 2, '0')"
    created = f"strftime(TIMESTAMP '2020-01-01' + INTERVAL 1 SECOND * {spread(62089911, 150_000_000)}, '%Y-%m-%dT%H:%M:%SZ')"
    cells = [
        f"CASE WHEN {DOUBLED} THEN i - 1 ELSE i END",
        f"CASE WHEN {fault['required:customer']} THEN '' WHEN i % 50 = 0 THEN '\"Smith & Sons, No. ' || i || '\"' ELSE {customer} END",
        f"CASE WHEN {fault['enum:country']} THEN 'XX' ELSE {country} END",
        f"CASE WHEN {fault['type:amount']} THEN '12.345' ELSE {amount} END",
        f"CASE WHEN {fault['type:created']} THEN '2024-13-01T00:00:00Z' ELSE {created} END",
        f"CASE WHEN {fault['pattern:email']} THEN 'nobody' WHEN i % 20 = 0 THEN '' ELSE 'user' || {spread(48271, 2_000_000)} || '@example.com' END",
        f"CASE WHEN {fault['type:flag']} THEN 'maybe' WHEN i % 3 = 0 THEN 'true' ELSE 'false' END",
        f"CASE WHEN {fault['maximum:score']} THEN '100.5' ELSE ({spread(630360016, 1_000_000)} / 10000.0)::VARCHAR END",
    ]
    whole = " || ',' || ".join(f"({cell})" for cell in cells)
    return f"CASE WHEN {fault['record']} THEN i || ',too few fields' ELSE {whole} END"


def generate(rows: int) -> Path:
    """The file, made once."""
    DATA.mkdir(exist_ok=True)
    path = DATA / f"orders-{rows}-v{GENERATION}.csv"
    if path.exists():
        return path
    part = path.with_suffix(".part")
    with duckdb.connect() as connection, open(part, "w", encoding="utf-8", newline="\n") as out:
        out.write("id,customer,country,amount,created,email,flag,score\n")
        connection.execute(f"SELECT {line_sql()} FROM range({rows}) AS numbers(i)")
        while lines := connection.fetchmany(100_000):
            out.write("\n".join(line for (line,) in lines) + "\n")
    part.rename(path)
    return path


def expected(rows: int) -> dict:
    """What the audit must find, from the rules that made the rows."""
    ragged = FAULTS["record"]
    before, after = ((expression.replace("i %", f"(i {step}) %")) for expression, step in ((ragged, "- 1"), (ragged, "+ 1")))
    doubled_next = DOUBLED.replace("i %", "(i + 1) %")
    # A row without a key doubles nothing.
    doubled = f"NOT ({ragged}) AND (({DOUBLED} AND i > 0 AND NOT ({before})) OR ({doubled_next} AND i + 1 < {rows} AND NOT ({after})))"
    broken = {name: rule if name == "record" else f"({rule}) AND NOT ({ragged})" for name, rule in FAULTS.items()}
    broken["primaryKey:id"] = doubled
    counts = ", ".join(f"count(*) FILTER ({rule})" for rule in broken.values())
    any_ = " OR ".join(f"({rule})" for rule in broken.values())
    with duckdb.connect() as connection:
        found = connection.execute(f"SELECT count(*) FILTER ({any_}), {counts} FROM range({rows}) AS numbers(i)").fetchone()
    return {"quarantined": found[0], "reasons": {name: count for name, count in zip(broken, found[1:]) if count}}


def publish(path: Path) -> tuple[Cost, dict]:
    root = DATA / "mesh"
    shutil.rmtree(root, ignore_errors=True)
    product = root / "domains" / "bench" / "products" / "sales"
    product.mkdir(parents=True)
    (root / "mesh.yaml").write_text("name: bench\n")
    (root / "domains" / "bench" / "domain.yaml").write_text("name: bench\nowner: bench-team\n")
    (product / "product.yaml").write_text(MANIFEST)
    cost = measure([str(binary()), "--mesh", str(root), "publish", "bench/sales", f"orders={path}", "--format", "json"], DATA)
    return cost, json.loads(cost.stdout)


# The peers. Each runs in a process of its own, on as many threads as there are cores.

COLUMNS = {
    "id": "BIGINT",
    "customer": "VARCHAR",
    "country": "VARCHAR",
    "amount": "DECIMAL(10,2)",
    "created": "TIMESTAMPTZ",
    "email": "VARCHAR",
    "flag": "BOOLEAN",
    "score": "DOUBLE",
}


def copy_sql(path: Path, out: Path) -> str:
    """Reads, types and writes, and drops without a word what does not fit: no rule is checked."""
    columns = ", ".join(f"'{name}': '{kind}'" for name, kind in COLUMNS.items())
    return f"""COPY (SELECT * FROM read_csv('{path}', header = true, delim = ',', quote = '"', auto_detect = false, columns = {{{columns}}}, ignore_errors = true))
        TO '{out}' (FORMAT parquet, COMPRESSION zstd)"""


def audit_sql(path: Path, out: Path) -> str:
    """The same rules by hand: what is good in one file, what is bad in another, without reasons and raw text of broken records."""
    columns = ", ".join(f"'{name}': 'VARCHAR'" for name in COLUMNS)
    typed = ", ".join(f"TRY_CAST({name} AS {kind}) AS {name}" for name, kind in COLUMNS.items())
    countries = ", ".join(f"'{code}'" for code in COUNTRIES)
    bad_type = " OR ".join(f"(raw.{name} IS NOT NULL AND typed.{name} IS NULL)" for name in ("id", "created", "flag", "score"))
    good = f"""NOT ({bad_type.replace("raw.", "r_").replace("typed.", "")})
        AND id IS NOT NULL AND customer IS NOT NULL AND country IN ({countries})
        AND coalesce(regexp_full_match(r_amount, '[0-9]+(\\.[0-9]{{1,2}}0*)?'), false) AND amount >= 0 AND created IS NOT NULL
        AND (email IS NULL OR regexp_matches(email, '{EMAIL}')) AND (score IS NULL OR score BETWEEN 0 AND 100)
        AND id NOT IN (SELECT id FROM doubled)"""
    raw = ", ".join(f"{name} AS r_{name}" for name in ("id", "amount", "created", "flag", "score"))
    names = ", ".join(COLUMNS)
    return f"""
        CREATE TEMP VIEW source AS SELECT * FROM read_csv('{path}', header = true, delim = ',', quote = '"', auto_detect = false, columns = {{{columns}}}, ignore_errors = true);
        CREATE TEMP TABLE doubled AS SELECT TRY_CAST(id AS BIGINT) AS id FROM source WHERE TRY_CAST(id AS BIGINT) IS NOT NULL GROUP BY 1 HAVING count(*) > 1;
        CREATE TEMP VIEW typed AS SELECT {raw}, {typed} FROM source;
        COPY (SELECT {names} FROM typed WHERE coalesce({good}, false)) TO '{out}' (FORMAT parquet, COMPRESSION zstd);
        COPY (SELECT * FROM typed WHERE NOT coalesce({good}, false)) TO '{out}.bad' (FORMAT parquet, COMPRESSION zstd)"""


COPY = "DuckDB COPY, no audit"
PEERS = {COPY: copy_sql, "DuckDB, audit by hand": audit_sql}


def run_peer(make_sql, path: Path) -> tuple[Cost, int]:
    out = DATA / "peer.parquet"
    program = "import duckdb, sys; c = duckdb.connect(); c.execute(\"SET TimeZone = 'UTC'\"); c.execute(sys.argv[1])"
    cost = measure([sys.executable, "-c", program, make_sql(path, out)], DATA)
    with duckdb.connect() as connection:
        [written] = connection.execute(f"SELECT count(*) FROM '{out}'").fetchone()
    for file in DATA.glob("peer.parquet*"):
        file.unlink()
    return cost, written


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--runs", type=int, default=3, help="runs of each; the median counts")
    parser.add_argument("--keep", action="store_true", help="keep the published mesh")
    parser.add_argument("--skip-peers", action="store_true")
    arguments = parser.parse_args()

    path = generate(arguments.rows)
    size, wanted = path.stat().st_size, expected(arguments.rows)
    contenders = {} if arguments.skip_peers else PEERS
    costs: dict[str, list[Cost]] = {name: [] for name in ("datamesh", *contenders)}
    amounts: dict[str, int] = {}
    for _ in range(arguments.runs):
        # Side by side, so that a slow minute of the machine meets all of them.
        cost, report = publish(path)
        costs["datamesh"].append(cost)
        for name, make_sql in contenders.items():
            peer, amounts[name] = run_peer(make_sql, path)
            costs[name].append(peer)
    [table] = report["tables"]
    cost, *peers = (median(runs) for runs in costs.values())
    version = measure([str(binary()), "--version"], DATA).stdout.strip()
    result = {
        "machine": machine(),
        "versions": {"datamesh": version, "duckdb": duckdb.__version__, "pyarrow": pyarrow.__version__},
        "rows": arguments.rows,
        "file_mib": round(size / MIB, 3),
        "datamesh": cost.as_json() | {key: table[key] for key in ("in", "published", "quarantined", "bytesRead")},
    }
    lines = [[version, cost.wall_seconds, cost.cpu_seconds, cost.peak_mib, cost.read_mib, arguments.rows / cost.wall_seconds / 1e6, table["published"]]]
    for name, peer in zip(contenders, peers):
        written = amounts[name]
        result[name] = peer.as_json() | {"written": written, "cpu_ratio": round(cost.cpu_seconds / peer.cpu_seconds, 3)}
        lines.append([name, peer.wall_seconds, peer.cpu_seconds, peer.peak_mib, peer.read_mib, arguments.rows / peer.wall_seconds / 1e6, written])
    if not arguments.keep:
        shutil.rmtree(DATA / "mesh")

    print_table(["", "wall s", "CPU s", "peak MiB", "read MiB", "million rows/s", "rows written"], lines)
    for name in PEERS:
        if name in result:
            print(f"CPU seconds, datamesh / {name}: {result[name]['cpu_ratio']:.2f}")
    print(json.dumps(result, indent=2))

    found = {"quarantined": table["quarantined"], "reasons": {rule: count["rows"] for rule, count in table["reasons"].items()}}
    checks = {
        f"published {report['status']}": report["status"] == "published",
        f"in {table['in']:,} = published {table['published']:,} + quarantined {table['quarantined']:,}": table["in"]
        == arguments.rows
        == table["published"] + table["quarantined"],
        f"found {found}, expected {wanted}": found == wanted,
        f"bytesRead {table['bytesRead']:,} = file size {size:,}": table["bytesRead"] == size,
        f"peak memory {cost.peak_mib:,.0f} MiB < {PEAK_LIMIT_MIB} MiB": cost.peak_mib < PEAK_LIMIT_MIB,
    }
    if COPY in result:
        ratio = result[COPY]["cpu_ratio"]
        checks[f"{ratio:.2f} of the CPU seconds of {COPY}, at most {PROMISE}"] = ratio <= PROMISE
    for name, passed in checks.items():
        print(f"{'ok    ' if passed else 'FAILED'} {name}")
    sys.exit(0 if all(checks.values()) else 1)


if __name__ == "__main__":
    main()
