"""A table in a folder of Parquet files, on a disk or in a store.

A Parquet file ends with its index, so a file is complete or unreadable. The files are therefore the
checkpoint: a file with a row is done.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pyarrow
from pyarrow import dataset, fs, parquet

from bundle.errors import InvalidParameter
from service.bulk import tables
from service.bulk.journal import Row
from service.bulk.remote_files import is_url
from service.bulk.tables import OutputError

# Readers of Parquet skip names that begin with `_`.
RUN, SUCCESS = "_run.json", "_SUCCESS"
SUFFIX = ".parquet"


class Done(NamedTuple):
    """Paths that have a row, and the names of the files with these rows."""

    paths: set[str]
    files: set[str]


class TableFolder:
    """The folder of a table, which other processes may hold too."""

    def __init__(self, output: str) -> None:
        """Open the folder. Raises InvalidParameter if it cannot be opened, or has other files."""
        self.output = output
        try:
            self._store, self._path = fs.FileSystem.from_uri(
                output if is_url(output) else str(Path(output).resolve())
            )
            names = self._list()
        except (OSError, ValueError) as error:
            raise InvalidParameter(
                f"--output {output} cannot be opened: {error}; name a folder, or a URL such as "
                "s3://bucket/scores"
            ) from None
        if SUCCESS in names or (names and RUN not in names):
            raise InvalidParameter(f"--output {output} exists; remove it, or choose another output")

    def read_run(self) -> dict[str, object]:
        """Read the facts that all rows of an interrupted run share; empty without a run."""
        with suppress(OSError, ValueError), self._store.open_input_stream(self._name(RUN)) as file:
            run = json.loads(file.read())
            return run if isinstance(run, dict) else {}
        return {}

    def begin(self, run: Mapping[str, object]) -> Done:
        """Begin a run, or resume it. Returns what is done; incomplete files are removed.

        Raises OutputError if an interrupted run has other facts.
        """
        earlier = self.read_run()
        if others := sorted(key for key in earlier if earlier[key] != run.get(key)):
            raise OutputError(
                f"{self.output} is of an unfinished run with another {', '.join(others)}; rerun "
                "its command to resume, remove the folder, or choose another output"
            )
        self._store.create_dir(self._path, recursive=True)
        with self._store.open_output_stream(self._name(RUN)) as file:
            file.write(json.dumps(run).encode())
        return self._find_done()

    def write(self, name: str, rows: Sequence[Row]) -> None:
        """Write a file of the table."""
        batch = tables.build_batch(map(tables.escape_paths, rows))
        parquet.write_table(batch, self._name(name), filesystem=self._store)

    def complete(self, run: str, done: Done, images: int) -> tuple[int, int, int]:
        """Mark the table as complete. Returns its rows, anomalous images and errors.

        Of an interrupted run, files that were written after its end are removed. Raises OutputError
        unless there is a row for each of the images.
        """
        for name in self._list_tables():
            if name not in done.files and not name.startswith(run):
                self._store.delete_file(self._name(name))
        files = [self._name(name) for name in self._list_tables()]
        table = dataset.dataset(files, filesystem=self._store, format="parquet")
        rows = table.count_rows()
        if rows != images:
            raise OutputError(
                f"{self.output} has {rows} rows for {images} files; let no other run write it, and "
                "rerun"
            )
        anomalous = table.count_rows(filter=dataset.field("is_anomaly"))
        errors = table.count_rows(filter=dataset.field("error").is_valid())
        self._store.open_output_stream(self._name(SUCCESS)).close()
        return rows, anomalous, errors

    def _find_done(self) -> Done:
        done = Done(set(), set())
        for name in self._list_tables():
            try:
                table = parquet.read_table(
                    self._name(name), columns=["path"], filesystem=self._store
                )
            except pyarrow.ArrowInvalid:  # a kill left it incomplete
                self._store.delete_file(self._name(name))
            else:
                done.paths.update(table["path"].to_pylist())
                done.files.add(name)
        return done

    def _list(self) -> list[str]:
        found = self._store.get_file_info(fs.FileSelector(self._path, allow_not_found=True))
        return sorted(each.base_name for each in found)

    def _list_tables(self) -> list[str]:
        return [name for name in self._list() if name.endswith(SUFFIX)]

    def _name(self, name: str) -> str:
        return f"{self._path}/{name}"
