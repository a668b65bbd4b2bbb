"""A table in a folder of Parquet files, on a disk or in a store.

A Parquet file ends with its index, so a file is complete or unreadable. The files are therefore the
checkpoint: a file with a row is done.
"""

import json
import re
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
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
RUN, WRITER, SUCCESS = "_run.json", "_writer", "_SUCCESS"
SUFFIX = ".parquet"
_KEY = re.compile("[^@]*:[^@]*@")  # after the scheme; a lone name may be a container of Azure


class Done(NamedTuple):
    """Paths that have a row, and the names of the files with these rows."""

    paths: set[str]
    files: set[str]


class TableFolder:
    """The folder of a table, which other processes may hold too.

    The last run that began is its only writer. All methods raise OutputError if the folder cannot
    be read or written.
    """

    def __init__(self, output: str) -> None:
        """Open the folder. Raises InvalidParameter if it cannot be opened, or has other files."""
        if is_url(output) and _KEY.match(output.partition("://")[2]):
            raise InvalidParameter(
                "the URL of --output holds a key; variables such as AWS_SECRET_ACCESS_KEY hold keys"
            )
        self.output, self._run = output, uuid.uuid4().hex
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
        """Read the facts that all rows of an interrupted run share; empty without a run.

        Raises OutputError if there are rows, and their facts are unreadable.
        """
        with self._translate():
            run = _parse(self._read(RUN))
            if run or not self._list_tables():  # a kill can leave the facts incomplete
                return run
        raise OutputError(
            f"{self._name(RUN)} is damaged, so {self.output} cannot be resumed; remove the folder, "
            "or choose another output"
        )

    def begin(self, run: Mapping[str, object]) -> Done:
        """Begin a run, or resume it. Returns what is done; incomplete files are removed.

        Raises OutputError if an interrupted run has other facts, or has completed the table.
        """
        earlier = self.read_run()
        if others := sorted(key for key in earlier if earlier[key] != run.get(key)):
            raise OutputError(
                f"{self.output} is of an unfinished run with another {', '.join(others)}; rerun "
                "its command to resume, remove the folder, or choose another output"
            )
        with self._translate():
            self._store.create_dir(self._path, recursive=True)
            if not earlier:
                self._put(RUN, json.dumps(run))
            self._put(WRITER, self._run)
            self._check_writer(self._list())
            return self._find_done()

    def write(self, number: int, rows: Sequence[Row]) -> None:
        """Write a file of the table. Raises OutputError if another run has begun."""
        batch = tables.build_batch(map(tables.escape_paths, rows))
        name = f"{self._run}-{number:06}{SUFFIX}"
        with self._translate():
            self._check_writer()
            parquet.write_table(batch, self._name(name), filesystem=self._store)

    def complete(self, done: Done, images: int) -> tuple[int, int, int]:
        """Mark the table as complete. Returns its rows, anomalous images and errors.

        Of an interrupted run, files that were written after its end are removed. Raises OutputError
        if another run has begun or completed the table, or unless each of the images has a row.
        """
        with self._translate():
            self._remove_late(done.files)
            files = [self._name(name) for name in self._list_tables()]
            table = dataset.dataset(files, filesystem=self._store, format="parquet")
            rows = table.count_rows()
            if rows != images:
                fix = "rerun" if rows < images else "remove the folder"
                raise OutputError(
                    f"{self.output} has {rows} rows for {images} files; let no other run write it, "
                    f"and {fix}"
                )
            anomalous = table.count_rows(filter=dataset.field("is_anomaly"))
            errors = table.count_rows(filter=dataset.field("error").is_valid())
            self._put(SUCCESS, "")
        return rows, anomalous, errors

    def _remove_late(self, done: Collection[str]) -> None:
        """Remove files that are neither of this run nor were read at its start."""
        names = self._list()  # first, because a run that begins now writes only later
        self._check_writer(names)
        for name in names:
            if name.endswith(SUFFIX) and name not in done and not name.startswith(self._run):
                self._store.delete_file(self._name(name))

    def _check_writer(self, names: Collection[str] = ()) -> None:
        """Raise OutputError if another run has begun, or if `names` are of a complete table."""
        if SUCCESS in names or self._read(WRITER) != self._run:
            raise OutputError(
                f"another run writes {self.output}, or has completed it; wait for that run, or "
                "choose another output"
            )

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

    def _read(self, name: str) -> str:
        """Return the text of a file; empty if it does not exist."""
        try:
            with self._store.open_input_stream(self._name(name)) as file:
                return bytes(file.read()).decode(errors="replace")
        except FileNotFoundError:
            return ""

    def _put(self, name: str, text: str) -> None:
        with self._store.open_output_stream(self._name(name)) as file:
            file.write(text.encode())

    def _name(self, name: str) -> str:
        return f"{self._path}/{name}"

    @contextmanager
    def _translate(self) -> Iterator[None]:
        try:
            yield
        except (OSError, pyarrow.ArrowException) as error:
            raise OutputError(
                f"{self.output} cannot be read or written: {error}; rerun to resume"
            ) from None


def _parse(text: str) -> dict[str, object]:
    """Return the object of a JSON text; empty if it is none."""
    with suppress(ValueError):
        run = json.loads(text)
        return run if isinstance(run, dict) else {}
    return {}
