"""Questions among workers, by a Unix socket of each in their directory."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import orjson

from service.workers.worker import Worker

ASK_SECONDS = 1.0  # within which a worker answers that is not overloaded
SILENT = object()  # in place of the answer of a worker that runs

Answer = Callable[[Any], Awaitable[Any]]  # from an argument to what JSON can hold


class WorkerSilent(Exception):
    """A worker runs, but did not answer."""


class Peers:
    """All workers: each answers the questions of the others, and its own.

    Any worker can so respond for all of them. A single worker asks only itself.
    """

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self._answers: dict[str, Answer] = {}
        self._server: asyncio.Server | None = None

    def answers(self, question: str) -> Callable[[Answer], Answer]:
        """Return the decorator of the function that answers a question."""

        def add(answer: Answer) -> Answer:
            self._answers[question] = answer
            return answer

        return add

    async def start(self) -> None:
        """Answer the other workers from now on."""
        if self.worker.others:
            path = self._locate(self.worker.number)
            self._server = await asyncio.start_unix_server(self._serve, path)

    def stop(self) -> None:
        """Answer no more."""
        if self._server:
            self._server.close()

    async def ask(
        self, question: str, argument: Any = None, timeout: float = ASK_SECONDS
    ) -> dict[int, Any]:
        """Return the answers of all workers by their numbers, without workers that do not answer.

        Raises what this worker's own answer raises.
        """
        found = await self._ask_all(question, argument, timeout)
        return {number: answer for number, answer in found.items() if answer is not SILENT}

    async def ask_running(self, question: str, argument: Any, timeout: float) -> dict[int, Any]:
        """Return the answers of all workers that run, by their numbers.

        Raises WorkerSilent if one of them does not answer, and what the own answer raises.
        """
        found = await self._ask_all(question, argument, timeout)
        for number, answer in found.items():
            if answer is SILENT:
                raise WorkerSilent(f"worker {number} did not respond; the log says why")
        return found

    async def _ask_all(self, question: str, argument: Any, timeout: float) -> dict[int, Any]:
        own, *others = await asyncio.gather(
            self._answers[question](argument),
            *(self._ask(number, question, argument, timeout) for number in self.worker.others),
        )
        found = {self.worker.number: own}
        for each in others:
            found |= each
        return found

    async def _ask(
        self, number: int, question: str, argument: Any, timeout: float
    ) -> dict[int, Any]:
        try:
            async with asyncio.timeout(timeout):
                reader, writer = await asyncio.open_unix_connection(self._locate(number))
                try:
                    writer.write(orjson.dumps([question, argument]) + b"\n")
                    return {number: orjson.loads(await reader.read())}
                finally:
                    writer.close()
        except (FileNotFoundError, ConnectionRefusedError):  # it has not started, or has ended
            return {}
        except (OSError, orjson.JSONDecodeError):  # it is too slow, has failed, or has just ended
            return {number: SILENT}

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            question, argument = orjson.loads(await reader.readline())
            writer.write(orjson.dumps(await self._answers[question](argument)))
        finally:
            writer.close()

    def _locate(self, number: int) -> Path:
        return self.worker.directory / f"{number}.sock"
