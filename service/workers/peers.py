"""Questions among workers, by a Unix socket of each in their directory."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import orjson

from service.workers.worker import Worker

ASK_SECONDS = 1.0  # within which a worker answers that is not overloaded

Answer = Callable[[Any], Awaitable[Any]]  # from an argument to what JSON can hold


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
        self, question: str, argument: Any = None, timeout: float | None = ASK_SECONDS
    ) -> dict[int, Any]:
        """Return the answers of all workers by their numbers, without workers that do not answer.

        Raises what this worker's own answer raises.
        """
        own, *others = await asyncio.gather(
            self._answers[question](argument),
            *(self._ask(number, question, argument, timeout) for number in self.worker.others),
        )
        found = {self.worker.number: own}
        for each in others:
            found |= each
        return found

    async def _ask(
        self, number: int, question: str, argument: Any, timeout: float | None
    ) -> dict[int, Any]:
        try:
            async with asyncio.timeout(timeout):
                reader, writer = await asyncio.open_unix_connection(self._locate(number))
                try:
                    writer.write(orjson.dumps([question, argument]) + b"\n")
                    return {number: orjson.loads(await reader.read())}
                finally:
                    writer.close()
        except (OSError, orjson.JSONDecodeError):  # it has not started, has ended, or is too slow
            return {}

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            question, argument = orjson.loads(await reader.readline())
            writer.write(orjson.dumps(await self._answers[question](argument)))
        finally:
            writer.close()

    def _locate(self, number: int) -> Path:
        return self.worker.directory / f"{number}.sock"
