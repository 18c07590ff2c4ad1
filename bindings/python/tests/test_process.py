"""What a process does meanwhile: other threads go on, signals are heard, and a fork leaves parent and child a mesh."""

import contextlib
import getpass
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import traceback

import pyarrow as pa
import pytest

from conftest import OFFER, ROWS, TRANSACTIONS, write
from data_mesh_framework import AccessDenied, Data, Interrupted, InvalidArgument, Mesh, Quality, _core

SQL = "SELECT id FROM sales.daily_transactions.transactions ORDER BY id"


@pytest.fixture
def unhurried():
    """Only who waits, with the interpreter released, lets another thread go on."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(3600)
    yield
    sys.setswitchinterval(before)


HOLD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
"""


class Lock:
    """Another process that writes to the registry: nobody else can. What one process locks, that process is not kept from."""

    def __init__(self, mesh):
        code = [sys.executable, "-c", HOLD, str(mesh.root / ".datamesh" / "registry.db")]
        self._process = subprocess.Popen(code, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout.readline() == "held\n"

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.let_go()
        self._process.wait()
        self._process.stdout.close()

    def let_go(self):
        self._process.stdin.close()


@contextlib.contextmanager
def beside(work):
    """Does it in another thread."""
    failures = []

    def caught():
        try:
            work()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=caught)
    thread.start()
    try:
        yield
    finally:
        thread.join()
    assert failures == []


@contextlib.contextmanager
def seen_interrupts():
    """Ctrl-C as always, and an event that tells when it was heard."""
    seen = threading.Event()

    def handle(number, frame):
        seen.set()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield seen
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.fixture
def published(shop, rows):
    shop.publish("sales/daily_transactions", rows)
    return shop


# Threads and signals.


@pytest.mark.parametrize("use", [len, list, Data.to_arrow, Data.to_polars, Data.collect], ids=lambda use: use.__name__)
def test_other_threads_go_on_while_a_stream_is_read(published, unhurried, use):
    data = published.query(SQL)
    reading = threading.Event()
    with Lock(published) as lock:

        def let_go():
            # It runs when the reader below has released the interpreter, and waits for the lock.
            reading.wait()
            lock.let_go()

        with beside(let_go):
            reading.set()
            use(data)
    assert data.to_pylist() == [{"id": 1}, {"id": 2}]


def test_ctrl_c_is_heard_behind_the_first_batch(published, unhurried):
    data, stream = published.query(SQL), _core.Session(str(published.root)).query(SQL)
    reading = threading.Event()
    with Lock(published):

        def interrupt():
            reading.wait()
            os.kill(os.getpid(), signal.SIGINT)

        with beside(interrupt), pytest.raises(KeyboardInterrupt):
            reading.set()
            len(data)
        reading.clear()
        assert stream.next_batch().num_rows == 2
        with beside(interrupt), pytest.raises(Interrupted):
            reading.set()
            stream.next_batch()
    assert data.to_pylist() == [{"id": 1}, {"id": 2}], "it is read again"
    assert stream.next_batch() is None, "and this goes on"


def test_a_stream_is_read_on_where_it_was_stopped(published):
    stream = _core.Session(str(published.root)).query(SQL)
    stop = _core.Stop()
    assert pa.record_batch(stream.next_batch()).num_rows == 2
    with Lock(published):
        stop.stop()
        with pytest.raises(Interrupted):
            stream.next_batch(stop=stop)
    assert stream.next_batch() is None
    for again in (stream.next_batch, stream.__arrow_c_stream__):
        with pytest.raises(InvalidArgument, match="read before"):
            again()


def test_a_stream_that_was_begun_or_closed_is_nobody_elses(published):
    session = _core.Session(str(published.root))
    begun, closed = session.query(SQL), session.query(SQL)
    begun.next_batch()
    closed.close()
    for stream in (begun, closed):
        with pytest.raises(InvalidArgument, match="read before"):
            pa.table(stream)
    with pytest.raises(InvalidArgument, match="read before"):
        closed.next_batch()


def test_a_request_for_access_is_made_whatever_comes_in_between(root, rows, unhurried):
    write(root, "domains/sales/products/daily_transactions/product.yaml", TRANSACTIONS + OFFER)
    write(root, "mesh.yaml", f"name: shop\nroles: [analyst]\nprincipals:\n  - {{user: {getpass.getuser()}, roles: [analyst]}}\n")
    published, asking = Mesh(), threading.Event()
    published.apply()
    published.publish("sales/daily_transactions", rows)
    with Lock(published) as lock, seen_interrupts() as seen:

        def interrupt():
            asking.wait()
            os.kill(os.getpid(), signal.SIGINT)
            seen.wait()
            lock.let_go()

        with beside(interrupt), pytest.raises(Interrupted, match="done before it could be stopped") as stopped:
            asking.set()
            published.access.request("sales/daily_transactions", role="analyst", reason="to see", duration="1d")
    listed = published.access.list()["requests"]
    assert [request["reason"] for request in listed] == ["to see"]
    assert stopped.value.report["request"]["number"] == listed[0]["number"]


def test_what_is_stopped_before_it_begins_is_not_done(published):
    stop = _core.Stop()
    stop.stop()
    with pytest.raises(Interrupted, match="nothing was done"):
        _core.Session(str(published.root)).command(["outbox", "forget", "nobody"], stop=stop)


@pytest.mark.parametrize("given", ["rows", "files"])
def test_a_publication_is_told_though_its_progress_failed(shop, rows, tmp_path, given):
    def fail(event):
        if event.get("step") == "committed":
            raise ArithmeticError("no more")

    (tmp_path / "rows.json").write_text(json.dumps(rows))
    what = rows if given == "rows" else tmp_path / "rows.json"
    with pytest.raises(ArithmeticError, match="no more") as failed:
        shop.publish("sales/daily_transactions", what, progress=fail)
    assert failed.value.published.number == 1 and failed.value.published.published == 2
    assert "done before it could be stopped" in "".join(traceback.format_exception(failed.value))
    assert shop.publications("sales/daily_transactions")[0]["number"] == 1


# Forks.


def in_child(work):
    """What a forked child's work gives, as JSON."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.write(writing, json.dumps(work()).encode())
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as answer:
        text = answer.read()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    return json.loads(text)


def row(number):
    return {**ROWS[0], "id": number}


def ids(mesh):
    return [row["id"] for row in mesh.query(SQL).to_pylist()]


@pytest.fixture
def growing(root):
    write(root, "domains/sales/products/daily_transactions/product.yaml", TRANSACTIONS.replace("write: replace", "write: append"))
    mesh = Mesh()
    mesh.publish("sales/daily_transactions", [row(1)])
    return mesh


def test_parent_and_child_use_the_same_mesh(growing):
    assert ids(growing) == [1]

    def work():
        seen = ids(growing)
        number = growing.publish("sales/daily_transactions", [row(2)]).number
        return seen, number, ids(growing)

    assert in_child(work) == [[1], 2, [1, 2]]
    assert growing.publish("sales/daily_transactions", [row(3)]).number == 3
    assert ids(growing) == [1, 2, 3]
    # And so on.
    assert in_child(lambda: in_child(lambda: ids(growing))) == [1, 2, 3]
    assert _core.Session(str(growing.root)).command(["audit", "verify"])[0] == 0


def publish_one(number):
    return Mesh().publish("sales/daily_transactions", [row(number)]).number


def test_a_pool_of_forked_processes_publishes(growing):
    with multiprocessing.get_context("fork").Pool(3) as pool:
        numbers = pool.map(publish_one, [2, 3, 4], chunksize=1)
    assert sorted(numbers) == [2, 3, 4]
    assert ids(growing) == [1, 2, 3, 4]


def test_what_was_not_read_yet_is_read_in_parent_and_child(growing):
    unread = growing.read("sales/daily_transactions", columns=["id"])
    assert in_child(unread.to_pylist) == [{"id": 1}]
    assert unread.to_pylist() == [{"id": 1}]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_that_was_forked_during_a_call_is_refused(growing):
    began, stop = threading.Event(), _core.Stop()
    session = _core.Session(str(growing.root))
    batch = Data([row(2)]).to_arrow().to_batches()[0]

    def endless():
        yield batch
        began.set()
        while True:
            yield batch

    def publish():
        reader = pa.RecordBatchReader.from_batches(batch.schema, endless())
        with pytest.raises(Interrupted):
            session.publish("sales/daily_transactions", {"transactions": reader}, {}, stop=stop)

    def work():
        told = []
        for use in (lambda: ids(growing), lambda: publish_one(3), lambda: growing.show()):
            with pytest.raises(InvalidArgument, match="forked while another thread used a mesh") as refused:
                use()
            told.append("spawn" in refused.value.help)
        # What needs no mesh is not refused.
        code, text = _core.command(["schema"])
        told.append(code == 0 and "dataProduct" in text)
        told.append(bool(Quality.check([{"id": 1}], ["rowCount > 0"])))
        return told

    with beside(publish):
        began.wait()
        assert in_child(work) == [True] * 5
        stop.stop()
    assert ids(growing) == [1]
    assert in_child(lambda: ids(growing)) == [1], "nothing runs any more"


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_forked_from_within_a_call_is_refused(growing):
    told = []

    def fork(event):
        if not told:
            told.append(in_child(lambda: refused(growing)))

    growing.publish("sales/daily_transactions", [row(2)], progress=fork)
    assert told == [True] and ids(growing) == [1, 2]


def refused(mesh):
    with pytest.raises(InvalidArgument, match="forked while"):
        mesh.show()
    return True


def test_who_acts_is_not_changed_by_a_name(published):
    stranger = Mesh(act_as="user:nobody")
    # `--as=…` as a product, a path or a subject is a name that nobody has.
    for use in (
        lambda name: published.show(name),
        lambda name: published.publications(name),
        lambda name: published.lineage(name),
        lambda name: published.run(name),
        lambda name: published.publish(name, "rows.csv", table="transactions"),
        lambda name: published.access.list(name),
        lambda name: published.access.show(name),
        lambda name: stranger.access.request(name, role="analyst", reason="curious"),
    ):
        for name in ("--as=user:root", "--as", "--help", "-h"):
            with pytest.raises(_core.DataMeshError) as refused:
                use(name)
            assert not isinstance(refused.value, AccessDenied) and refused.value.code in ("not-found", "invalid-argument"), name
            assert "unexpected argument" not in str(refused.value) and "a value is required" not in str(refused.value)
