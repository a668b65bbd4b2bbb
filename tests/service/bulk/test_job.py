"""The command `score`, with models in this process and with a service."""

import asyncio
import csv
import io
import json
import os
import shlex
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import obstore
import pytest
from autoencoder_client import AsyncClient
from PIL import Image
from starlette.testclient import TestClient

from bundle.stores import open_store
from bundle.terminal import name_python
from service import cli
from service.app import build_services, create_app
from service.bulk import journal, remote_files, remote_scorer
from service.bulk.job import Request, ScoringModel, Shard
from service.bulk.remote_files import ObjectRefused, RemoteFile
from service.keys import Right
from service.settings import Settings
from tests.bundles import write_bundle
from tests.service.api.helpers import entries
from tests.stores import store_url
from tests.terminals import TerminalText, list_undescribed, run_into_closed_pipe

__all__ = ["store_url"]

HEADER = ["path", "score", "p_value", "threshold", "is_anomaly", "heatmap", "overlay", "error"]


@contextmanager
def interruption(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Interrupt the command once all files are scored."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("service.bulk.tables.write", interrupt)
        yield


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Seven images of one brightness each, a damaged image, and a text file."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(7):
        Image.new("L", (6, 4), 30 * index).save(folder / f"{index}.png")
    (folder / "damaged.png").write_bytes(b"none")
    (folder / "notes.txt").write_text("no image")
    return folder


@pytest.fixture
def score(models: Path, photos: Path, tmp_path: Path) -> Callable[..., int]:
    def command(
        *options: str, output: str = "scores.csv", sources: tuple[str, ...] = (str(photos),)
    ) -> int:
        where = ["--models", str(models), "--device", "cpu"]
        return cli.main(
            [
                "score",
                *sources,
                "--model",
                "tiny",
                "--output",
                str(tmp_path / output),
                *where,
                *options,
            ]
        )

    return command


@pytest.fixture
def few(tmp_path: Path) -> Path:
    """`tiny` with 31 calibration scores, and `embedder`, which can only encode."""
    directory = tmp_path / "few"
    write_bundle(directory, "tiny", calibration_size=31)
    write_bundle(directory, "embedder", graphs=("encoder",))
    return directory


@pytest.fixture
def remote_few(few: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Connect the command to an application with these models, without a key."""
    for _ in serving(few, monkeypatch, {}):
        yield


@pytest.fixture
def service(models: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[httpx2.Request]]:
    """Connect the command to an application in this process. Yields the requests that it made."""
    yield from serving(models, monkeypatch, {"secret": ("*",)})


def serving(
    models: Path, monkeypatch: pytest.MonkeyPatch, keys: dict[str, tuple[Right, ...]]
) -> Iterator[list[httpx2.Request]]:
    limits: dict[str, Any] = {"max_images": 4, "max_queued_images": 64}
    settings = Settings(models=models, device="cpu", api_keys=entries(keys), **limits)
    services = build_services(settings)
    app = create_app(services)
    requests: list[httpx2.Request] = []

    class Recorded(httpx2.ASGITransport):
        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            requests.append(request)
            return await super().handle_async_request(request)

    connected = partial(AsyncClient, transport=Recorded(app))
    monkeypatch.setattr(remote_scorer, "AsyncClient", connected)
    yield requests
    services.executor.close()


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        reader = csv.DictReader(stream)
        assert reader.fieldnames == HEADER
        return [*reader]


def score_by_service(models: Path, photos: Path) -> list[dict[str, Any]]:
    """Results of a service for the images, one request each."""
    services = build_services(Settings(models=models, device="cpu"))
    with TestClient(create_app(services)) as client:
        return [
            client.post(
                "/v1/models/tiny/anomaly-score?false_positive_rate=0.2",
                content=path.read_bytes(),
                headers={"Content-Type": "image/png"},
            ).json()["results"][0]
            for path in sorted(photos.glob("[0-9].png"))
        ]


def test_the_table_has_the_results_of_the_service(
    score: Callable[..., int],
    models: Path,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert score("--false-positive-rate", "0.2") == 0
    rows = table(tmp_path / "scores.csv")
    assert [Path(row["path"]).name for row in rows] == [
        *(f"{index}.png" for index in range(7)),
        "damaged.png",
    ]
    found = [
        {
            "score": float(row["score"]),
            "p_value": float(row["p_value"]),
            "threshold": float(row["threshold"]),
            "is_anomaly": row["is_anomaly"] == "true",
        }
        for row in rows[:7]
    ]
    assert found == score_by_service(models, photos)
    assert {row["is_anomaly"] for row in rows[:7]} == {"true", "false"}
    assert rows[7]["error"] == "the bytes are not an image, or its header is damaged"
    assert rows[7]["score"] == ""
    printed = capsys.readouterr()
    anomalous = sum(row["is_anomaly"] == "true" for row in rows)
    assert f"scores.csv: 8 images, {anomalous} anomalous, 1 that cannot be scored;" in printed.out
    assert not (tmp_path / "scores.csv.partial").exists()
    assert "%|" not in printed.err
    assert f"read the table: less {tmp_path / 'scores.csv'}\n" in printed.err


def test_the_summary_is_printed_as_json(
    score: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    heatmaps, output = tmp_path / "maps", tmp_path / "scores.parquet"
    options = ("--false-positive-rate", "0.2", "--json", "--heatmaps", str(heatmaps))
    assert score(*options, output=output.name) == 0
    printed = capsys.readouterr()
    document = json.loads(printed.out)
    assert list_undescribed(document, "operations.md") == []
    assert document.pop("images_per_second") > 0
    assert 0 < document.pop("anomalous") < 7
    assert 0 < document.pop("minimum_false_positive_rate") < 0.2
    assert document == {
        "output": str(output),
        "was_complete": False,
        "model": "tiny",
        "version": "2",
        "images": 8,
        "errors": 1,
        "false_positive_rate": 0.2,
    }
    pictures, command = printed.err.splitlines()
    assert pictures == f"heatmaps: {heatmaps}"
    runner, *words = shlex.split(command.removeprefix("read the table: "))
    assert runner == name_python()
    shown = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=True)
    assert "p_value: double" in shown.stdout


def test_a_closed_pipe_ends_the_command_silently_after_its_table(
    models: Path, photos: Path, tmp_path: Path
) -> None:
    output = tmp_path / "scores.jsonl"
    words = ["--model", "tiny", "--models", str(models), "--device", "cpu", "--json"]
    command = ["score", str(photos / "*.png"), *words, "--output", str(output)]
    assert run_into_closed_pipe("service", *command) == (141, "")
    assert len(output.read_text(encoding="utf-8").splitlines()) == 8


def test_json_without_verdicts_counts_no_anomalies(
    score: Callable[..., int], few: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert score("--models", str(few), "--false-positive-rate", "0.01", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["anomalous"] is None
    assert document["minimum_false_positive_rate"] == 0.032


def test_a_terminal_shows_the_progress(
    score: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = TerminalText()
    monkeypatch.setattr("sys.stderr", screen)
    assert score() == 0
    assert "scoring with tiny" in screen.getvalue()
    assert "8/8" in screen.getvalue()


def test_a_service_gives_the_same_table_and_is_sent_no_more_than_it_takes(
    score: Callable[..., int],
    service: list[httpx2.Request],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("AE_API_KEY", "secret")
    folders = ("--heatmaps", str(tmp_path / "heat"), "--overlays", str(tmp_path / "over"))
    assert score("--url", "http://service", *folders) == 0
    pictures = [*(tmp_path / "heat").rglob("*.png"), *(tmp_path / "over").rglob("*.png")]
    written = {path: path.read_bytes() for path in pictures}
    assert len(written) == 2 * 7
    assert score(*folders, output="local.csv") == 0
    assert table(tmp_path / "scores.csv") == table(tmp_path / "local.csv")
    assert written == {path: path.read_bytes() for path in written}
    assert {request.url.path for request in service} == {
        "/v1/models",  # for the limits of a request
        "/v1/models/tiny",
        "/v1/models/tiny/versions/2/anomaly-score",
    }


def test_a_service_that_refuses_is_quoted(
    score: Callable[..., int], service: list[httpx2.Request], capsys: pytest.CaptureFixture[str]
) -> None:
    assert score("--url", "http://service") == 1
    assert "responded 401: " in capsys.readouterr().err
    assert len(service) == 1


def test_heatmaps_have_the_size_of_their_images(
    score: Callable[..., int], photos: Path, tmp_path: Path
) -> None:
    Image.new("L", (60, 40), 200).save(photos / "large.png")
    assert score("--heatmaps", str(tmp_path / "heat")) == 0
    rows = {Path(row["path"]).name: row["heatmap"] for row in table(tmp_path / "scores.csv")}
    assert rows["damaged.png"] == ""
    shapes = {
        name: np.asarray(Image.open(io.BytesIO(Path(path).read_bytes()))).shape
        for name, path in rows.items()
        if path
    }
    assert shapes == {**{f"{index}.png": (4, 6, 3) for index in range(7)}, "large.png": (40, 60, 3)}


@pytest.mark.usefixtures("service")
@pytest.mark.parametrize("where", [(), ("--url", "http://service")])
def test_overlays_show_the_image_where_it_is_normal(
    score: Callable[..., int],
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    where: tuple[str, ...],
) -> None:
    monkeypatch.setenv("AE_API_KEY", "secret")
    pixels = np.zeros((40, 60), np.uint8)
    pixels[:10, :40] = 90  # which the model reconstructs
    pixels[30:, 50:] = 255
    Image.fromarray(pixels).save(photos / "large.png")
    assert score("--overlays", str(tmp_path / "over"), *where) == 0
    rows = {Path(row["path"]).name: row for row in table(tmp_path / "scores.csv")}
    assert rows["damaged.png"]["overlay"] == ""
    assert {row["heatmap"] for row in rows.values()} == {""}
    overlay = np.asarray(Image.open(rows["large.png"]["overlay"]))
    assert overlay.shape == (40, 60, 3)
    assert overlay[5, 5].tolist() == [90] * 3
    red, _, blue = overlay[35, 55].tolist()
    assert red > blue + 50


@pytest.mark.usefixtures("remote_few")
@pytest.mark.parametrize("where", [(), ("--url", "http://service")])
def test_without_a_rate_the_lowest_is_taken_that_the_calibration_allows(
    score: Callable[..., int],
    few: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    where: tuple[str, ...],
) -> None:
    assert score("--models", str(few), *where) == 0
    rows = [row for row in table(tmp_path / "scores.csv") if not row["error"]]
    assert {row["is_anomaly"] for row in rows} == {"true", "false"}
    assert "false positive rate 0.05" in capsys.readouterr().out


@pytest.mark.usefixtures("remote_few")
@pytest.mark.parametrize("where", [(), ("--url", "http://service")])
def test_a_rate_that_is_too_low_ends_without_verdicts_and_names_the_minimum(
    score: Callable[..., int],
    few: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    where: tuple[str, ...],
) -> None:
    assert score("--models", str(few), "--false-positive-rate", "0.01", *where) == 0
    assert {row["is_anomaly"] for row in table(tmp_path / "scores.csv")} == {""}
    printed = capsys.readouterr().out
    assert ", no verdict: the minimum false_positive_rate is 0.032, 1 that cannot be" in printed
    assert "0 anomalous" not in printed
    least = ("--models", str(few), "--false-positive-rate", "0.032", *where)
    assert score(*least, output="again.csv") == 0
    assert "anomalous" in capsys.readouterr().out


def test_a_resumed_run_keeps_its_default_rate(
    score: Callable[..., int],
    few: Path,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = ("--models", str(few), "--overlays", str(tmp_path / "over"))
    with interruption(monkeypatch):
        assert score(*options) == 130
    assert journal.read_run(tmp_path / "scores.csv.partial")["false-positive-rate"] == 0.05
    write_bundle(few, "tiny", 2)  # whose default would be 0.01
    assert score(*options, "--false-positive-rate", "0.1") == 1
    assert "with another false-positive-rate" in capsys.readouterr().err
    assert score(*options[:2]) == 1
    assert "overlays" in capsys.readouterr().err
    (photos / "8.png").write_bytes((photos / "3.png").read_bytes())
    assert score(*options) == 0
    rows = [row for row in table(tmp_path / "scores.csv") if not row["error"]]
    assert len(rows) == 8
    assert len({row["threshold"] for row in rows}) == 1
    assert all(Path(row["overlay"]).is_file() for row in rows)


def test_a_journal_of_an_earlier_version_ends_in_a_clear_error(
    score: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with sqlite3.connect(tmp_path / "scores.csv.partial") as rows:
        rows.execute("CREATE TABLE run (text TEXT NOT NULL)")
        rows.execute("CREATE TABLE rows (position INTEGER, path BLOB, score REAL, error TEXT)")
        rows.execute("INSERT INTO run VALUES ('{}')")
    rows.close()
    assert score() == 1
    assert "of an unfinished run of another version of this program" in capsys.readouterr().err


@pytest.mark.usefixtures("remote_few")
@pytest.mark.parametrize("where", [(), ("--url", "http://service")])
def test_a_model_that_cannot_score_names_its_operations(
    score: Callable[..., int],
    few: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    where: tuple[str, ...],
) -> None:
    assert score("--models", str(few), "--model", "embedder", *where) == 1
    printed = capsys.readouterr().err
    assert "error: embedder was not trained to anomaly-score; it can: encode\n" in printed
    assert not [*tmp_path.glob("scores*")]


def test_a_list_is_read_from_a_file_and_from_standard_input(
    score: Callable[..., int], photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = f"{photos / '3.png'}\n{photos / 'gone.png'}\n"
    (tmp_path / "list.txt").write_text(lines)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(lines.encode())))
    assert score("--list", str(tmp_path / "list.txt"), output="a.csv", sources=()) == 0
    assert score("--list", "-", output="b.csv", sources=()) == 0
    assert table(tmp_path / "a.csv") == table(tmp_path / "b.csv")
    assert [row["error"] for row in table(tmp_path / "a.csv")] == [
        "",
        "the file cannot be read: No such file or directory",
    ]


def test_an_interrupted_run_is_resumed(
    score: Callable[..., int], photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with interruption(monkeypatch):
        assert score(output="scores.jsonl") == 130
    with sqlite3.connect(tmp_path / "scores.jsonl.partial") as rows:
        # A mark that a second scoring would overwrite.
        rows.execute("UPDATE rows SET score = 7 WHERE path = ?", [os.fsencode(photos / "3.png")])
    rows.close()
    (photos / "8.png").write_bytes((photos / "3.png").read_bytes())
    assert score(output="scores.jsonl") == 0
    lines = [json.loads(line) for line in (tmp_path / "scores.jsonl").read_text().splitlines()]
    assert sorted(Path(line["path"]).name for line in lines) == [
        *(f"{index}.png" for index in (*range(7), 8)),
        "damaged.png",
    ]
    scores = {Path(line["path"]).name: line["score"] for line in lines}
    assert scores["3.png"] == 7
    assert scores["8.png"] != 7


def test_a_resumed_run_keeps_its_version(
    score: Callable[..., int],
    photos: Path,
    models: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = tmp_path / "models"
    shutil.copytree(models / "tiny" / "1", own / "tiny" / "1")

    with interruption(monkeypatch):
        assert score("--models", str(own)) == 130
    shutil.copytree(models / "tiny" / "2", own / "tiny" / "2")
    (photos / "8.png").write_bytes((photos / "3.png").read_bytes())
    assert score("--models", str(own)) == 0
    assert len(table(tmp_path / "scores.csv")) == 9


def test_an_interrupted_run_of_other_files_is_left_alone(
    score: Callable[..., int],
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with interruption(monkeypatch):
        assert score() == 130
    assert "rerun to resume from" in capsys.readouterr().err
    assert score(sources=(str(photos / "3.png"),)) == 1
    assert "of an unfinished run with another paths" in capsys.readouterr().err
    monkeypatch.chdir(photos)
    assert score() == 1
    assert "another working directory" in capsys.readouterr().err
    assert not (tmp_path / "scores.csv").exists()


@pytest.mark.parametrize("count", [1, 3, 20])
def test_the_shards_have_every_row_once(
    score: Callable[..., int], photos: Path, tmp_path: Path, count: int
) -> None:
    (photos / "list.txt").write_text(f"{photos}/notes.txt\n{photos}/gone.png\n")
    options = "--list", str(photos / "list.txt")
    assert score(*options) == 0
    for index in range(count):
        assert score(*options, "--shard", f"{index}/{count}") == 0
    names = [f"scores-{index:05}-of-{count:05}.csv" for index in range(count)]
    joined = [row for name in names for row in table(tmp_path / name)]
    whole = table(tmp_path / "scores.csv")
    assert sorted(row["path"] for row in joined) == sorted(row["path"] for row in whole)
    found = {row["path"]: row for row in joined}
    for row in whole:
        assert found[row["path"]]["error"] == row["error"]
        if row["score"]:
            assert float(found[row["path"]]["score"]) == pytest.approx(float(row["score"]))


def test_a_shard_depends_on_the_path_alone() -> None:
    shards = [Shard(index, 7) for index in range(7)]
    paths = [Path(f"photos/{index}.png") for index in range(700)]
    sizes = [sum(map(shard.has, paths)) for shard in shards]
    assert sum(sizes) == len(paths)
    assert min(sizes) > 70
    assert [shard.index for shard in shards if shard.has("s3://bucket/photos/3.png")] == [5]


def test_an_interrupted_shard_is_resumed(
    score: Callable[..., int], photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with interruption(monkeypatch):
        assert score("--shard", "1/2") == 130
    for image in photos.glob("?.png"):
        image.write_bytes(b"")  # a file with a row is not read again
    assert score("--shard", "1/2") == 0
    rows = table(tmp_path / "scores-00001-of-00002.csv")
    assert {row["error"] for row in rows if "damaged" not in row["path"]} == {""}
    assert not [*tmp_path.glob("*.partial")]


def test_a_complete_shard_that_is_started_again_succeeds(
    score: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert score("--shard", "1/2") == 0
    table = tmp_path / "scores-00001-of-00002.csv"
    written = table.stat().st_mtime_ns
    assert score("--shard", "1/2") == 0
    assert f"{table}: complete, so nothing is scored" in capsys.readouterr().out
    assert score("--shard", "1/2", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"output": str(table), "was_complete": True}
    assert table.stat().st_mtime_ns == written


def test_of_a_damaged_version_the_older_one_scores(
    score: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own"
    write_bundle(own, "embedder", graphs=("encoder",))  # which is smaller
    write_bundle(own, "tiny")
    damaged = write_bundle(own, "tiny", 2)
    (damaged / "decoder.onnx").write_bytes(bytes(2**20))
    with interruption(monkeypatch):
        assert score("--models", str(own)) == 130
    assert journal.read_run(tmp_path / "scores.csv.partial")["version"] == "1"


@pytest.mark.parametrize(
    ("paths", "listed", "has_directory"),
    [
        (["s3://bucket/photos", "/photos"], None, False),
        (["s3://bucket/photos", "photos"], None, True),
        ([], "/list.txt", True),  # of relative paths, perhaps
    ],
)
def test_the_working_directory_is_a_fact_of_relative_paths(
    paths: list[str], listed: str | None, has_directory: bool
) -> None:
    request = Request(paths, listed, "tiny", None)
    facts = request.describe_run(ScoringModel("/models", "1", 100, 0.01))
    assert ("working directory" in facts) == has_directory


@pytest.mark.parametrize("shard", ["2/2", "1", "a/b", "-1/2", "1/2/3", "0/0"])
def test_a_shard_is_below_their_number(
    score: Callable[..., int], shard: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        score(f"--shard={shard}")
    assert f"{shard} is no shard; write I/N, such as 0/16" in capsys.readouterr().err


def test_the_images_of_a_store_have_the_scores_of_files(
    score: Callable[..., int], photos: Path, tmp_path: Path, store_url: str
) -> None:
    store = open_store(store_url, create=True)
    for path in photos.iterdir():
        obstore.put(store, f"photos/{path.name}", path.read_bytes())
    obstore.put(store, "photos/.hidden/1.png", b"none")
    assert score() == 0
    heatmaps = tmp_path / "heatmaps"
    url = f"{store_url}/photos"
    options = "--heatmaps", str(heatmaps)
    assert score(*options, output="remote.csv", sources=(url,)) == 0
    local = {Path(row.pop("path")).name: row for row in table(tmp_path / "scores.csv")}
    remote = {row.pop("path"): row for row in table(tmp_path / "remote.csv")}
    assert {*remote} == {f"{url}/{name}" for name in local}
    for name, row in local.items():
        found = remote[f"{url}/{name}"]
        heatmap = found.pop("heatmap")
        assert found == {key: value for key, value in row.items() if key != "heatmap"}
        assert bool(heatmap) == Path(heatmap).is_file() == bool(row["score"])
        if heatmap:
            assert Path(heatmap).is_relative_to(heatmaps)


def test_a_store_that_refuses_an_object_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    async def get(*_: object) -> None:
        raise obstore.exceptions.PermissionDeniedError("403 Forbidden")

    monkeypatch.setattr(obstore, "get_async", get)
    with pytest.raises(ObjectRefused, match=r"file:///photos/1\.png: 403 Forbidden"):
        asyncio.run(remote_files.read(RemoteFile("file:///photos/1.png", 3), 3))


def test_a_file_of_a_store_that_has_gone_is_an_error_row(tmp_path: Path) -> None:
    gone = RemoteFile(f"file://{tmp_path}/gone.png", 3)
    (tmp_path / "large.png").write_bytes(b"1234")
    large = RemoteFile(f"file://{tmp_path}/large.png", 3)
    assert asyncio.run(remote_files.read(gone, 3)) == "the file cannot be read: it does not exist"
    assert asyncio.run(remote_files.read(large, 3)) == "the file has 4 bytes; the maximum is 3"


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"sources": ("ftp://store/photos",)}, "ftp://store/ is no store"),
        ({"sources": ()}, "there is nothing to score"),
        ({"sources": ("/gone",)}, "/gone does not exist"),
        (
            {"output": "scores.txt"},
            "scores.txt has another suffix; choose one of .csv, .jsonl, .parquet",
        ),
        ({"options": ("--list", "/gone")}, "--list /gone cannot be read"),
        ({"options": ("--heatmaps", "/dev/null")}, "--heatmaps /dev/null cannot be made a folder"),
        ({"options": ("--overlays", "/dev/null")}, "--overlays /dev/null cannot be made a folder"),
        ({"options": ("--overlays", "/tmp", "--heatmaps", "/tmp/.")}, "are both /tmp"),
        ({"options": ("--model", "gone")}, "there is no model 'gone'"),
        ({"options": ("--model", "tiny-vae")}, "tiny-vae was not trained to anomaly-score"),
    ],
)
def test_an_impossible_command_is_refused_at_once(
    score: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: Any,
    complaint: str,
) -> None:
    assert score(*options.pop("options", ()), **options) == 1
    error = capsys.readouterr().err
    assert "error: " in error
    assert complaint in error
    assert not [*tmp_path.glob("scores*")]


@pytest.mark.parametrize("option", ["--url", "--shard", "--heatmaps", "--overlays"])
def test_options_of_the_local_engine_are_refused_on_ray(
    score: Callable[..., int], option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert score("--engine", "ray", option, "0/2") == 1
    assert f"error: {option} is not for --engine ray; omit one" in capsys.readouterr().err
    assert score("--actors", "2") == 1
    assert "error: --actors needs --engine ray" in capsys.readouterr().err


@pytest.mark.parametrize("actors", ["0", "-1", "many"])
def test_there_is_at_least_one_actor(
    score: Callable[..., int], actors: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        score("--engine", "ray", f"--actors={actors}")
    assert f"{actors} is not a number of at least 1" in capsys.readouterr().err


def test_a_missing_extra_of_the_engine_is_named(
    score: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "service.bulk.ray_engine", raising=False)
    assert score("--engine", "ray") == 1
    assert "needs Ray: run pip install '.[ray]' in the checkout" in capsys.readouterr().err


def test_a_folder_without_images_is_an_error(
    score: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert score(sources=(str(tmp_path / "empty"),)) == 1
    assert "error: there are no images in" in capsys.readouterr().err
    assert score(sources=(f"file://{tmp_path}/empty",)) == 1
    assert "/empty holds no image; name a folder of a store" in capsys.readouterr().err


@pytest.mark.parametrize("rate", ["0", "1", "many"])
def test_a_rate_is_between_0_and_1(
    score: Callable[..., int], rate: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        score("--false-positive-rate", rate)
    assert "--false-positive-rate" in capsys.readouterr().err


def test_scores_are_the_same_however_many_images_there_are(
    score: Callable[..., int], photos: Path, tmp_path: Path
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (150, 4, 6), dtype=np.uint8)
    for index, image in enumerate(images):
        Image.fromarray(image).save(photos / f"random{index:03d}.png")
    assert score() == 0
    assert score(output="few.csv", sources=(str(photos / "random14*.png"),)) == 0
    all_rows = {row["path"]: row for row in table(tmp_path / "scores.csv")}
    few = table(tmp_path / "few.csv")
    assert len(few) == 10
    assert len(all_rows) == 158
    for row in few:
        assert float(row["score"]) == pytest.approx(float(all_rows[row["path"]]["score"]))
