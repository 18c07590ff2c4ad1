"""What the command line can, in its words."""

import asyncio
import json
import os
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest

from conftest import ROWS, TRANSACTIONS, write
from data_mesh_framework import (
    AccessDenied,
    InvalidArgument,
    InvalidQuery,
    Mesh,
    NotApplied,
    NotFound,
    PlanRefused,
)

COUNT = "SELECT count(*) AS n FROM weather.observations.hourly"


@pytest.fixture
def mesh(flights) -> Mesh:
    return Mesh(flights)


def python(code: str, folder: Path, **environment: str) -> subprocess.CompletedProcess:
    """Runs code in a process of its own, in a folder."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_query(mesh):
    data = mesh.query("SELECT origin, count(*) AS n FROM weather.observations.hourly GROUP BY origin ORDER BY origin")
    assert data.columns == ["origin", "n"]
    assert [row["origin"] for row in data] == ["EWR", "JFK", "LGA"]
    assert data.to_polars()["n"].sum() == data.to_pandas()["n"].sum() == 26108
    assert data.to_duckdb().aggregate("sum(n)").fetchone() == (26108,)
    assert pa.table(data).num_rows == 3, "kept"
    streamed = mesh.query(COUNT)
    assert pa.table(streamed).num_rows == pa.table(streamed).num_rows == 1, "asked again"
    assert mesh.query(COUNT, as_of=1).to_pylist() == [{"n": 26108}]


def test_errors_have_a_kind_and_say_what_to_do(mesh):
    with pytest.raises(InvalidQuery, match="a table is named domain.product.table") as raised:
        mesh.query("SELECT * FROM nowhere.at.all")
    assert (raised.value.code, raised.value.exit_code) == ("invalid-query", 9)
    with pytest.raises(NotFound, match="no product `weather/forecast`"):
        mesh.read("weather/forecast")
    with pytest.raises(NotFound):
        mesh.read("weather/observations", "daily")
    with pytest.raises(NotFound):
        mesh.read("weather/observations", columns=["temp", "colour"])
    with pytest.raises(InvalidArgument):
        mesh.command("publis")
    with pytest.raises(InvalidArgument, match="there are 2 tables: aircraft, airlines"):
        mesh.read("fleet/registry")


def test_read_some_columns(mesh):
    assert mesh.read("fleet/registry", "airlines", columns=["name", "carrier"]).columns == ["name", "carrier"]


def test_show_publications_and_lineage(mesh):
    assert {product["product"] for product in mesh.show()} >= {"weather/observations", "fleet/registry"}
    assert mesh.show("weather/observations")["owner"] == "weather-team"
    assert mesh.publications("fleet/registry")[0]["status"] == "published"
    graph = mesh.lineage("weather/observations.hourly.temp", up=True, direct=True, depth=1)
    assert [edge["input"]["field"] for edge in graph["up"]["edges"]] == ["temp"]
    assert mesh.lineage(sql=COUNT)["roots"][0]["field"] == "n"
    assert mesh.lineage("fleet/registry", format="mermaid").startswith(("flowchart", "graph"))


def test_files_are_published_as_files(shop, root):
    write(root, "a.csv", "id,store,amount,note\n1,Kiel,1.5,\n")
    write(root, "b.csv", "id,store,amount,note\n2,Kiel,2.5,x\n")
    assert shop.publish("sales/daily_transactions", root / "a.csv").published == 1
    assert shop.publish("sales/daily_transactions", {"transactions": [root / "a.csv", root / "b.csv"]}).published == 2
    with pytest.raises(InvalidArgument, match="some tables are given as files and some as rows"):
        shop.publish("sales/daily_transactions", {"transactions": "a.csv", "more": ROWS})


def test_publishing_what_the_manifest_names(flights, mesh):
    assert mesh.publish("weather/observations").status == "repeat"


def test_plan_and_apply(shop, root, rows):
    plan = shop.plan()
    assert plan["changes"] is True
    assert shop.apply(dry_run=True) and shop.plan()["changes"] is True
    assert shop.apply()["changed"] is True
    assert shop.plan()["changes"] is False
    shop.publish("sales/daily_transactions", rows)

    narrower = TRANSACTIONS.replace("        - {name: note, type: string}\n", "").replace("1.0.0", "1.1.0")
    write(root, "domains/sales/products/daily_transactions/product.yaml", narrower)
    with pytest.raises(NotApplied):
        shop.publish("sales/daily_transactions", [{key: row[key] for key in ("id", "store", "amount")} for row in rows])
    with pytest.raises(PlanRefused) as raised:
        shop.apply()
    assert "2.0.0" in str(raised.value)
    wider = TRANSACTIONS.replace("{name: note, type: string}", "{name: note, type: string, description: Said at the till}")
    write(root, "domains/sales/products/daily_transactions/product.yaml", wider.replace("1.0.0", "1.0.1"))
    shop.plan(out=root / "week.plan")
    assert shop.apply(root / "week.plan")["changed"] is True


def test_access_is_asked_for_granted_and_ended(mesh, flights):
    question = "SELECT count(*) AS n FROM customer.customer_360.customer_profile"
    amira, support = Mesh(flights, act_as="user:amira"), Mesh(flights, act_as="user:mokafor")
    with pytest.raises(AccessDenied, match="datamesh access request"):
        amira.query(question)
    assert {offer["role"] for offer in mesh.access.show("customer/customer-360")["offers"]} == {"analyst", "crm-support"}
    asked = amira.access.request("customer/customer-360", role="analyst", reason="-- churn", duration="30d")
    number = asked["request"]["number"]
    assert mesh.access.list("customer-360", state="pending")["requests"][0]["reason"] == "-- churn"
    granted = support.access.approve(number, note="go ahead")
    assert amira.query(question).to_pylist()[0]["n"] > 0
    contract = amira.contract("customer/customer-360")
    assert [(grant["role"], grant["number"]) for grant in contract.grants] == [("analyst", granted["grant"]["number"])]
    assert mesh.contract("customer/customer-360").grants == [], "it is amira's"
    support.access.revoke(granted["grant"]["number"], reason="done")
    assert amira.contract("customer/customer-360").grants == []
    with pytest.raises(AccessDenied):
        amira.query(question)
    refused = amira.access.request("customer/customer-360", role="analyst", reason="mail")["request"]["number"]
    support.access.deny(refused, reason="no")
    assert mesh.access.show(refused)["request"]["state"] == "denied"
    third = amira.access.request("customer/customer-360", role="analyst", reason="again")["request"]["number"]
    assert amira.access.withdraw(third)["request"]["state"] == "withdrawn"


def test_run(tmp_path):
    root = tmp_path / "lab"
    write(root, "mesh.yaml", "name: lab\n")
    write(root, "domains/lab/domain.yaml", "name: lab\nowner: lab-team\n")
    write(
        root,
        "domains/lab/products/numbers/product.yaml",
        """\
        dataProduct:
          name: numbers
          version: 1.0.0
          owner: lab-team
          schema: [{name: numbers, columns: [{name: n, type: long, primaryKey: true}]}]
        """,
    )
    write(
        root,
        "domains/lab/products/squares/product.yaml",
        """\
        dataProduct:
          name: squares
          version: 1.0.0
          owner: lab-team
          inputs: [lab/numbers@^1]
          schema:
            - name: squares
              transform: squares.sql
              columns: [{name: n, type: long, primaryKey: true}, {name: square, type: long}]
        """,
    )
    write(root, "domains/lab/products/squares/squares.sql", "SELECT n, n * n AS square FROM lab.numbers.numbers\n")
    mesh = Mesh(root)
    mesh.publish("lab/numbers", [{"n": n} for n in range(5)])
    (ran,) = mesh.run("lab/squares")
    assert (ran.product, ran.status, ran.published) == ("lab/squares", "published", 5)
    assert [one.status for one in mesh.run("lab/squares", upstream=True)][-1] == "repeat"
    assert mesh.read("lab/squares", columns=["square"]).to_polars()["square"].sum() == 30


def test_progress_is_told(shop, rows):
    events = []
    shop.publish("sales/daily_transactions", rows, progress=events.append)
    assert events and all(isinstance(event, dict) for event in events)

    def stop(event):
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        shop.publish("sales/daily_transactions", rows[:1], progress=stop, again=True)


def test_progress_on_a_terminal(shop, rows, capsys):
    shop.publish("sales/daily_transactions", rows)
    assert capsys.readouterr().err == "", "nobody looks"
    shop.publish("sales/daily_transactions", rows[:2], progress=True)
    assert "transactions" in capsys.readouterr().err


def test_closing(flights):
    with Mesh(flights) as mesh:
        assert mesh.query(COUNT).to_pylist()
    mesh.close()
    with pytest.raises(InvalidArgument, match="was closed"):
        mesh.query(COUNT)


def test_asyncio(mesh, flights):
    async def work():
        beats = 0

        async def beat():
            nonlocal beats
            while True:
                beats += 1
                await asyncio.sleep(0)

        heart = asyncio.create_task(beat())
        answers = await asyncio.gather(*(mesh.aquery(COUNT) for _ in range(4)))
        shown = await mesh.ashow("weather/observations")
        read = await mesh.aread("fleet/registry", "airlines")
        plan = await mesh.aplan()
        graph = await mesh.alineage("fleet/registry")
        repeated = await mesh.apublish("weather/observations")
        heart.cancel()
        assert beats > 100, "the loop went on"
        assert [answer.to_pylist() for answer in answers] == [[{"n": 26108}]] * 4
        return shown["product"], len(read), plan["format"] > 0, bool(graph["roots"]), repeated.status

    assert asyncio.run(work()) == ("weather/observations", 16, True, True, "repeat")


ENDLESS = pa.schema([("id", pa.int64()), ("store", pa.string()), ("amount", pa.float64()), ("note", pa.string())])


def endless(started):
    """Rows without an end; tells when the first are taken."""

    def batches():
        at = 0
        while True:
            ids = range(at, at + 1000)
            yield pa.record_batch([pa.array(ids), ["x"] * 1000, [1.0] * 1000, [""] * 1000], schema=ENDLESS)
            at += 1000
            if at == 5000:
                started()

    return pa.RecordBatchReader.from_batches(ENDLESS, batches())


def test_cancelling_a_task_stops_its_work(shop):
    async def work():
        loop, started = asyncio.get_running_loop(), asyncio.Event()
        data = endless(lambda: loop.call_soon_threadsafe(started.set))
        task = asyncio.create_task(shop.apublish("sales/daily_transactions", data))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(work())
    assert shop.contract("sales/daily_transactions").serving is None
    assert shop.publish("sales/daily_transactions", ROWS).published == 2


def test_threads_share_a_mesh(mesh):
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: mesh.query(COUNT).to_pylist(), range(24)))
    assert answers == [[{"n": 26108}]] * 24


def test_python_goes_on_while_rust_works(mesh):
    slow = "SELECT count(*) AS n FROM weather.observations.hourly a JOIN weather.observations.hourly b ON a.month = b.month AND a.temp < b.temp - 60"
    done = threading.Event()
    found = []

    def ask():
        found.append(mesh.query(slow).to_pylist())
        done.set()

    thread = threading.Thread(target=ask)
    thread.start()
    turns = 0
    while not done.is_set():
        turns += 1
    thread.join()
    assert found[0][0]["n"] >= 0
    assert turns > 1000


def test_a_fork_uses_the_mesh_that_its_parent_uses(mesh, flights):
    code = """
        import os, warnings
        warnings.simplefilter("error")
        from data_mesh_framework import Mesh
        mesh = Mesh()
        count = lambda: mesh.query("SELECT count(*) AS n FROM weather.observations.hourly").to_pylist()[0]["n"]
        before = count()
        child = os.fork()
        if child == 0:
            print("child", count(), flush=True)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        print("parent", before, count())
    """
    done = python(code, flights)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["child", "26108", "parent", "26108", "26108"]


def test_multiprocessing(mesh, flights):
    code = """
        import multiprocessing, warnings
        warnings.simplefilter("ignore")
        from data_mesh_framework import Mesh
        mesh = Mesh()
        def count(mesh):
            return mesh.query("SELECT count(*) AS n FROM fleet.registry.airlines").to_pylist()[0]["n"]
        if __name__ == "__main__":
            with multiprocessing.get_context("fork").Pool(2) as pool:
                print(pool.map(count, [mesh] * 4))
    """
    done = python(code, flights)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [16] * 4


def test_ctrl_c_stops_a_publication_and_nothing_is_published(shop, root):
    code = f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from test_mesh import endless
        from data_mesh_framework import Mesh
        try:
            Mesh().publish("sales/daily_transactions", endless(lambda: print("started", flush=True)))
        except Exception as error:
            print("an exception", repr(error))
        except KeyboardInterrupt as error:
            print("interrupted", type(error).__name__)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "started\n", process.stderr.read()
    process.send_signal(2)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert out.split() == ["interrupted", "Interrupted"]
    assert shop.contract("sales/daily_transactions").serving is None
    assert not list((root / "warehouse").rglob("*.metadata.json"))
    assert shop.publish("sales/daily_transactions", ROWS).published == 2


def test_memory_grows_no_faster_than_the_data(shop, root):
    """Peak memory of a check and a publication, from one size of data to another three times as large."""
    code = """
        import resource, sys
        import pyarrow as pa
        from data_mesh_framework import Mesh, Quality
        rows = int(sys.argv[1])
        note = "x" * 200
        batches = [
            pa.record_batch({
                "id": pa.array(range(at, at + 10_000), pa.int64()),
                "store": [f"store {n % 50}" for n in range(10_000)],
                "amount": [float(n) for n in range(10_000)][::-1],
                "note": [note] * 10_000,
            })
            for at in range(0, rows, 10_000)
        ]
        table = pa.Table.from_batches(batches)
        mesh = Mesh(memory_mib=64)
        report = Quality.check(table, mesh.contract("sales/daily_transactions").quality_rules)
        assert report.passed == rows, report
        published = mesh.publish("sales/daily_transactions", table, progress=False)
        assert published.published == rows
        print(table.nbytes, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    """
    write(root, "measure.py", code)

    def measure(rows: int) -> tuple[int, int]:
        done = subprocess.run([sys.executable, "measure.py", str(rows)], cwd=root, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        size, peak = map(int, done.stdout.split())
        return size, peak

    (small, low), (large, high) = measure(200_000), measure(600_000)
    ratio = (high - low) / (large - small)
    print(f"Arrow {small:,} -> {large:,} bytes, peak {low:,} -> {high:,} bytes: {ratio:.2f} bytes a byte")
    assert ratio < 2
