"""What was published when: SQL versions and `--as-of`, over several tables and products."""

import sqlite3
import time

import pytest

MANIFEST = """\
dataProduct:
  name: {name}
  version: 1.0.0
  owner: lab-team
  schema:
    - name: Item-List
      write: {write}
      columns:
        - {{name: id, type: long, primaryKey: true}}
        - {{name: note, type: string}}
{more}
    - name: total
      write: replace
      columns:
        - {{name: sum, type: long}}
      quality:
        - sum >= 0
"""


def manifest(name: str, write: str = "append", more: str = "") -> str:
    text = MANIFEST.format(name=name, write=write, more=more)
    text = text.replace("      quality:\n        - sum >= 0\n", "      quality:\n        - rowCount > 0\n")
    return "\n".join(line for line in text.splitlines() if line) + "\n"


class Lab:
    def __init__(self, mesh):
        self.mesh = mesh
        self.numbers: dict[str, int] = {}

    def publish(self, label: str, product: str, expect: int = 0, **tables: str) -> int:
        arguments = []
        for table, text in tables.items():
            file = self.mesh.write(f"data/{label}-{table}.csv", text)
            name = "Item-List" if table == "items" else table
            arguments.append(f"{name}={file}")
        report = self.mesh.publish(f"lab/{product}", *arguments, expect=expect)
        self.numbers[label] = report["publication"]
        time.sleep(0.01)
        return report["publication"]

    def at(self, label: str) -> str:
        with sqlite3.connect(self.mesh.root / ".datamesh" / "registry.db") as registry:
            return registry.execute("SELECT at FROM publications WHERE number = ?", (self.numbers[label],)).fetchone()[0]


@pytest.fixture(scope="module")
def lab(binary, tmp_path_factory):
    from mesh import Mesh

    mesh = Mesh(binary, tmp_path_factory.mktemp("travel") / "mesh")
    mesh.write("mesh.yaml", "name: interop\n")
    mesh.write("domains/lab/domain.yaml", "name: lab\nowner: lab-team\n")
    for name in ("shop", "other"):
        mesh.write(f"domains/lab/products/{name}/product.yaml", manifest(name))
    lab = Lab(mesh)
    lab.publish("first", "shop", items="id,note\n1,a\n2,b\n", total="sum\n3\n")
    lab.publish("other", "other", items="id,note\n9,z\n", total="sum\n9\n")
    lab.publish("items", "shop", items="id,note\n3,c\n")
    lab.publish("rejected", "shop", expect=3, total="sum\n")
    lab.publish("total", "shop", total="sum\n6\n")
    mesh.write("domains/lab/products/shop/product.yaml", manifest("shop", more="        - {name: added, type: int}").replace("1.0.0", "1.1.0"))
    lab.publish("grown", "shop", items="id,note,added\n4,d,40\n")
    return lab


BOTH = "SELECT (SELECT count(*) FROM lab.shop.item_list{0}) AS items, (SELECT sum FROM lab.shop.total{0}) AS total"


@pytest.mark.parametrize(
    ("label", "items", "total"),
    [("first", 2, 3), ("items", 3, 3), ("total", 3, 6), ("grown", 4, 6)],
)
def test_all_tables_of_a_product_agree(lab, label, items, total):
    wanted = [{"items": items, "total": total}]
    number, at = lab.numbers[label], lab.at(label)
    assert lab.mesh.query_json(BOTH.format(f" FOR VERSION AS OF {number}")) == wanted
    assert lab.mesh.query_json(BOTH.format(f" FOR TIMESTAMP AS OF '{at}'")) == wanted
    assert lab.mesh.query_json(BOTH.format(f" FOR SYSTEM_TIME AS OF TIMESTAMP '{at}'")) == wanted
    assert lab.mesh.json("query", "--as-of", str(number), BOTH.format("")) == wanted
    assert lab.mesh.json("query", "--as-of", at, BOTH.format("")) == wanted


def test_a_rejected_attempt_changes_nothing(lab):
    wanted = [{"items": 3, "total": 3}]
    assert lab.mesh.query_json(BOTH.format(f" FOR TIMESTAMP AS OF '{lab.at('rejected')}'")) == wanted
    number = lab.numbers["rejected"]
    for arguments in ([BOTH.format(f" FOR VERSION AS OF {number}")], ["--as-of", str(number), BOTH.format("")]):
        answer = lab.mesh.json("query", *arguments, expect=6)
        assert "was rejected" in answer["error"]["message"]


def test_columns_are_those_of_then(lab):
    then = lab.mesh.query_json(f"SELECT * FROM lab.shop.item_list FOR VERSION AS OF {lab.numbers['first']} ORDER BY id")
    assert then == [{"id": 1, "note": "a"}, {"id": 2, "note": "b"}]
    now = lab.mesh.query_json("SELECT * FROM lab.shop.item_list WHERE id = 1")
    assert now == [{"id": 1, "note": "a", "added": None}]
    answer = lab.mesh.json("query", f"SELECT added FROM lab.shop.item_list FOR VERSION AS OF {lab.numbers['first']}", expect=9)
    assert "added" in answer["error"]["message"]


@pytest.mark.parametrize(
    ("sql", "wanted"),
    [
        # Now and then.
        ("SELECT n.id FROM lab.shop.item_list n LEFT JOIN lab.shop.item_list FOR VERSION AS OF {first} t ON n.id = t.id WHERE t.id IS NULL ORDER BY 1", [3, 4]),
        ("SELECT n.id FROM lab.shop.item_list FOR VERSION AS OF {items} AS n JOIN lab.shop.item_list FOR VERSION AS OF {first} AS t ON n.id = t.id ORDER BY 1", [1, 2]),
        # CTEs, subqueries, set operations.
        ("WITH old AS (SELECT * FROM lab.shop.item_list FOR VERSION AS OF {first}) SELECT id FROM old ORDER BY 1", [1, 2]),
        ("SELECT id FROM lab.shop.item_list WHERE id NOT IN (SELECT id FROM lab.shop.item_list FOR VERSION AS OF {items}) ORDER BY 1", [4]),
        ("SELECT id FROM (SELECT id FROM lab.shop.item_list FOR VERSION AS OF {first}) AS s ORDER BY 1", [1, 2]),
        ("SELECT id FROM lab.shop.item_list EXCEPT SELECT id FROM lab.shop.item_list FOR VERSION AS OF {first} ORDER BY 1", [3, 4]),
        # Names: quoted, of a major version, in capitals, as a qualifier.
        ('SELECT id FROM "lab"."shop_v1"."item_list" FOR VERSION AS OF {first} ORDER BY 1', [1, 2]),
        ("select ID from LAB.Shop.Item_List for version as of {first} order by 1", [1, 2]),
        ("SELECT item_list.id FROM lab.shop.item_list FOR VERSION AS OF {first} ORDER BY item_list.id", [1, 2]),
        ("SELECT lab.shop.item_list.id FROM lab.shop.item_list FOR VERSION AS OF {first} WHERE lab.shop.item_list.id > 1 ORDER BY lab.shop.item_list.id", [2]),
        ("SELECT lab.shop.item_list.* FROM lab.shop.item_list FOR VERSION AS OF {first} ORDER BY shop.item_list.id", [1, 2]),
        # Values: text, arithmetic.
        ("SELECT id FROM lab.shop.item_list FOR VERSION AS OF '{first}' ORDER BY 1", [1, 2]),
        ("SELECT id FROM lab.shop.item_list FOR TIMESTAMP AS OF now() ORDER BY 1", [1, 2, 3, 4]),
        ("SELECT id FROM lab.shop.item_list FOR TIMESTAMP AS OF now() + INTERVAL '1 day' ORDER BY 1", [1, 2, 3, 4]),
        # A text that only looks like a version.
        ("SELECT id FROM lab.shop.item_list WHERE note <> 'FOR VERSION AS OF 1' -- FOR VERSION AS OF 1\nORDER BY 1", [1, 2, 3, 4]),
    ],
)
def test_versions_stand_wherever_tables_do(lab, sql, wanted):
    answer = lab.mesh.query_json(sql.format(**lab.numbers))
    assert [row["id"] for row in answer] == wanted


def test_results_are_called_as_they_are_now(lab):
    for version in ("", f" FOR VERSION AS OF {lab.numbers['grown']}", " FOR TIMESTAMP AS OF now()"):
        answer = lab.mesh.query_json(f"SELECT sum(id), max(item_list.id) FROM lab.shop.item_list{version}")
        assert answer == [{"sum(lab.shop.item_list.id)": 10, "max(lab.shop.item_list.id)": 4}]


def test_a_snapshot_of_iceberg_is_a_version_too(lab):
    from readers import iceberg_table

    snapshots = iceberg_table(lab.mesh.metadata_locations("lab/shop")["Item-List"]).metadata.snapshots
    for snapshot, count in zip(snapshots, (2, 3, 4), strict=True):
        answer = lab.mesh.query_json(f"SELECT count(*) AS n FROM lab.shop.item_list FOR VERSION AS OF {snapshot.snapshot_id}")
        assert answer == [{"n": count}]


def test_a_version_in_sql_counts_before_as_of(lab):
    sql = f"SELECT (SELECT count(*) FROM lab.shop.item_list) AS a, (SELECT count(*) FROM lab.shop.item_list FOR VERSION AS OF {lab.numbers['grown']}) AS b"
    assert lab.mesh.json("query", "--as-of", str(lab.numbers["items"]), sql) == [{"a": 3, "b": 4}]


def test_numbers_order_the_publications_of_all_products(lab):
    sql = "SELECT (SELECT count(*) FROM lab.shop.item_list) AS shop, (SELECT count(*) FROM lab.other.item_list) AS other"
    assert lab.mesh.json("query", "--as-of", str(lab.numbers["other"]), sql) == [{"shop": 2, "other": 1}]
    answer = lab.mesh.json("query", "--as-of", str(lab.numbers["first"]), sql, expect=6)
    assert "lab.other_v1" in answer["error"]["message"]


@pytest.mark.parametrize(
    ("sql", "code", "part"),
    [
        ("SELECT 1 FROM lab.shop.item_list FOR VERSION AS OF 999", 6, "no publication 999"),
        ("SELECT 1 FROM lab.shop.item_list FOR VERSION AS OF {other}", 6, "no publication"),
        ("SELECT 1 FROM lab.shop.item_list FOR VERSION AS OF -1", 6, "-1"),
        ("SELECT 1 FROM lab.shop.item_list FOR TIMESTAMP AS OF '2001-01-01'", 6, "not published yet"),
        ("SELECT 1 FROM lab.shop.item_list FOR TIMESTAMP AS OF 'yesterday'", 9, "no time"),
        ("SELECT 1 FROM lab.shop.item_list FOR TIMESTAMP AS OF 5", 9, "no time"),
        ("SELECT 1 FROM lab.shop.item_list FOR VERSION AS OF NULL", 9, "null"),
        ("SELECT 1 FROM lab.shop.item_list FOR VERSION AS OF 1.5", 9, "a version is"),
        ("SELECT 1 FROM lab.shop.item_list FOR VERSION AS OF", 9, "must be followed"),
        ("SELECT 1 FROM lab.shop.item_list AS i FOR VERSION AS OF {first}", 9, "no table that has versions"),
        ("WITH c AS (SELECT 1) SELECT * FROM c FOR VERSION AS OF {first}", 9, "no table that has versions"),
        ("SELECT 1 FROM shop.item_list FOR VERSION AS OF {first}", 9, "does not follow"),
        ("SELECT 1 FROM (SELECT 1) FOR VERSION AS OF {first}", 9, "does not follow"),
        ("SELECT 1 FROM lab.none.item_list FOR VERSION AS OF {first}", 9, "no product"),
        ("SELECT 1 FROM lab.shop.none FOR VERSION AS OF {first}", 9, "not found"),
        ("SELECT 1 FROM lab.shop.item_list VERSION AS OF {first}", 9, ""),
        ("SELECT 1 FROM lab.shop.item_list TABLESAMPLE (10 PERCENT)", 9, "`TABLESAMPLE` is not supported"),
        ("SELECT id FROM lab.shop.item_list FULL JOIN lab.other.item_list USING (id)", 9, "`FULL JOIN … USING` is not supported"),
        ("SELECT rank() OVER (v ORDER BY id) FROM lab.shop.item_list WINDOW w AS (PARTITION BY note)", 9, "there is no window `v`"),
        ("SELECT 1 FROM lab.shop.item_list AT (VERSION => 1)", 9, ""),
        ("CREATE VIEW v AS SELECT * FROM lab.shop.item_list FOR VERSION AS OF {first}", 9, ""),
        ("DELETE FROM lab.shop.item_list FOR VERSION AS OF {first}", 9, ""),
    ],
)
def test_what_cannot_be_resolved_is_an_error(lab, sql, code, part):
    answer = lab.mesh.json("query", sql.format(**lab.numbers), expect=code)
    assert part in answer["error"]["message"], answer


@pytest.mark.parametrize(("as_of", "code"), [("999", 6), ("2001-01-01", 6), ("yesterday", 2)])
def test_what_as_of_cannot_mean_is_an_error(lab, as_of, code):
    lab.mesh.run("query", "--as-of", as_of, "SELECT 1 FROM lab.shop.item_list", expect=code)


def test_reads_of_then_are_recorded(lab):
    number = lab.numbers["first"]
    lab.mesh.run("query", f"SELECT * FROM lab.shop.item_list FOR VERSION AS OF {number}")
    with sqlite3.connect(lab.mesh.root / ".datamesh" / "registry.db") as registry:
        (resource,) = registry.execute("SELECT resource FROM decisions ORDER BY number DESC LIMIT 1").fetchone()
    assert resource == f"lab.shop_v1.item_list as of publication {number}"
