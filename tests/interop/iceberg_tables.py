"""Iceberg tables that PyIceberg writes, with the delete files that it cannot write."""

import uuid
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.manifest import (
    DataFile,
    DataFileContent,
    FileFormat,
    ManifestContent,
    ManifestEntry,
    ManifestEntryStatus,
    ManifestFile,
    ManifestWriterV2,
)
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation
from pyiceberg.table.update.snapshot import _FastAppendFiles
from pyiceberg.typedef import Record

FILE_PATH, POSITION = 2147483546, 2147483545


def catalog(folder: Path) -> SqlCatalog:
    folder.mkdir(parents=True, exist_ok=True)
    catalog = SqlCatalog("tests", uri=f"sqlite:///{folder}/catalog.db", warehouse=f"file://{folder}")
    catalog.create_namespace("db")
    return catalog


def add_data_file(table: Table, rows: pa.Table, partition: Record | None = None, **options) -> Path:
    """Adds a Parquet file as it is, in a partition: as a migration of a Hive table does."""
    path = Path(table.location().removeprefix("file://")) / "data" / f"given-{uuid.uuid4()}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(rows, path, **options)
    file = DataFile.from_args(
        content=DataFileContent.DATA,
        file_path=f"file://{path}",
        file_format=FileFormat.PARQUET,
        partition=partition or Record(),
        record_count=rows.num_rows,
        file_size_in_bytes=path.stat().st_size,
    )
    file.spec_id = table.spec().spec_id
    with table.transaction() as transaction:
        with transaction.update_snapshot().fast_append() as append:
            append.append_data_file(file)
    table.refresh()
    return path


class _DeleteManifest(ManifestWriterV2):
    def content(self) -> ManifestContent:
        return ManifestContent.DELETES

    @property
    def _meta(self) -> dict[str, str]:
        return {**super()._meta, "content": "deletes"}


class _AddDeletes(_FastAppendFiles):
    """A snapshot that adds delete files, and nothing else."""

    deletes: list[DataFile] = []

    def _manifests(self) -> list[ManifestFile]:
        manifests = self._existing_manifests()
        for spec_id in sorted({file.spec_id for file in self.deletes}):
            metadata = self._transaction.table_metadata
            writer = _DeleteManifest(metadata.specs()[spec_id], metadata.schema(), self.new_manifest_output(), self._snapshot_id, self._compression)
            with writer:
                for file in self.deletes:
                    if file.spec_id == spec_id:
                        writer.add(ManifestEntry.from_args(status=ManifestEntryStatus.ADDED, snapshot_id=self._snapshot_id, sequence_number=None, file_sequence_number=None, data_file=file))
            manifests.append(writer.to_manifest_file())
        return manifests


def add_deletes(table: Table, files: list[DataFile]) -> None:
    with table.transaction() as transaction:
        producer = _AddDeletes(operation=Operation.OVERWRITE, transaction=transaction, io=table.io)
        producer.deletes = files
        producer.commit()
    table.refresh()


def _delete_file(table: Table, rows: pa.Table, content: DataFileContent, partition: Record, spec_id: int, ids: list[int] | None) -> DataFile:
    path = Path(table.location().removeprefix("file://")) / "data" / f"deletes-{uuid.uuid4()}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(rows, path)
    file = DataFile.from_args(
        content=content,
        file_path=f"file://{path}",
        file_format=FileFormat.PARQUET,
        partition=partition,
        record_count=rows.num_rows,
        file_size_in_bytes=path.stat().st_size,
        equality_ids=ids,
    )
    file.spec_id = spec_id
    return file


def position_deletes(table: Table, wanted, prefix: str = "file://") -> list[DataFile]:
    """Delete files for the rows of which `wanted` is true: one for each partition. `prefix` begins the URLs in them."""
    by_partition: dict = {}
    for manifest in table.current_snapshot().manifests(table.io) if table.current_snapshot() else []:
        if manifest.content != ManifestContent.DATA:
            continue
        for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=True):
            file = entry.data_file
            rows = pq.read_table(file.file_path.removeprefix("file://")).to_pylist()
            # A row that was deleted before may be deleted again.
            hits = [at for at, row in enumerate(rows) if wanted(row)]
            if hits:
                key = (manifest.partition_spec_id, tuple(file.partition[at] for at in range(len(file.partition))))
                by_partition.setdefault(key, (file.partition, []))[1].extend((prefix + file.file_path.removeprefix("file://"), at) for at in hits)
    field = lambda name, kind, id_: pa.field(name, kind, nullable=False, metadata={"PARQUET:field_id": str(id_)})
    schema = pa.schema([field("file_path", pa.string(), FILE_PATH), field("pos", pa.int64(), POSITION)])
    files = []
    for (spec_id, _), (partition, hits) in by_partition.items():
        rows = pa.table([[path for path, _ in sorted(hits)], [at for _, at in sorted(hits)]], schema=schema)
        files.append(_delete_file(table, rows, DataFileContent.POSITION_DELETES, partition, spec_id, None))
    return files


def equality_delete(table: Table, rows: pa.Table, partition: Record | None = None, spec_id: int = 0) -> DataFile:
    """A delete file for all rows that are equal to one of `rows` in its columns, which are those of the current schema."""
    ids = [table.schema().find_field(name).field_id for name in rows.column_names]
    fields = [field.with_metadata({"PARQUET:field_id": str(id_)}) for field, id_ in zip(rows.schema, ids)]
    return _delete_file(table, rows.cast(pa.schema(fields)), DataFileContent.EQUALITY_DELETES, partition or Record(), spec_id, ids)
