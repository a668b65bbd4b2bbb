"""Files of object stores, listed and read by their URLs."""

from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from bundle.errors import InvalidParameter
from service.errors import BulkError

if TYPE_CHECKING:  # because it is an extra
    from obstore.store import ObjectStore


class StoreError(BulkError):
    """A store of images cannot be reached, or refuses its use."""


class ObjectRefused(StoreError):
    """A store refuses to send an object, such as an archived one."""


class RemoteFile(NamedTuple):
    """A file of a store, and its bytes when it was listed."""

    url: str
    size: int

    def __str__(self) -> str:
        return self.url


def is_url(source: str) -> bool:
    """Return True for a URL, and False for a path."""
    return "://" in source


def list_files(folder: str) -> Iterator[RemoteFile]:
    """List the files below a folder of a store by its URL, in the order of the store.

    Raises InvalidParameter for a URL that is no store, StoreError if it fails.
    """
    root, path = _divide(folder)
    store = _open(root)
    import obstore

    try:
        for batch in obstore.list(store, path.rstrip("/")):
            for found in batch:
                yield RemoteFile(f"{root}{found['path']}", found["size"])
    except (obstore.exceptions.BaseError, OSError) as error:
        raise _build_error(folder, error) from None


async def read(file: RemoteFile, max_bytes: int) -> bytes | str:
    """Return the bytes of a file, or the reason for none.

    Raises StoreError if its store fails, ObjectRefused if it refuses.
    """
    root, path = _divide(file.url)
    store = _open(root)
    import obstore
    from obstore import exceptions

    try:
        found = await obstore.get_async(store, path)
        if (size := found.meta["size"]) > max_bytes:
            return f"the file has {size} bytes; the maximum is {max_bytes}"
        return bytes(await found.bytes_async())
    except (exceptions.NotFoundError, FileNotFoundError):
        return "the file cannot be read: it does not exist"
    except exceptions.PermissionDeniedError as error:
        raise ObjectRefused(_describe(file.url, error)) from None
    except (exceptions.BaseError, OSError) as error:
        raise _build_error(file.url, error) from None


def _divide(url: str) -> tuple[str, str]:
    """Return the URL of the bucket, and the path in it."""
    scheme, _, place = url.partition("://")
    bucket, _, path = place.partition("/")
    return f"{scheme}://{bucket}/", path


@cache
def _open(root: str) -> "ObjectStore":
    try:
        from bundle.stores import open_store
    except ImportError:
        raise InvalidParameter(
            f"{root} needs obstore: run pip install '.[stores]' in the checkout"
        ) from None
    return open_store(root)


def _build_error(url: str, error: Exception) -> StoreError:
    return StoreError(f"{_describe(url, error)}; rerun to resume")


def _describe(url: str, error: Exception) -> str:
    from bundle.stores import summarise

    return f"{url}: {summarise(error)}"
