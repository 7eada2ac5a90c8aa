"""S3-compatible object stores, by obstore (extra `s3`): the client of an address, and what a store's errors mean to a user.

Address and keys are those of every S3 client: AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from phoropter.core.errors import DiskError, MissingExtraError, cut_message

RETRY_S = 180.0  # how long a store may not answer until a command gives up


def open_object_store(url: str, what: str) -> Any:
    """obstore's client of `s3://BUCKET/PREFIX`; the store is not asked yet. what: needs it.

    Raises MissingExtraError, and DiskError for an address of a server that is none.
    """
    try:
        from obstore.store import S3Store
    except ImportError:
        raise MissingExtraError("obstore", "s3", what) from None
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    if endpoint and not endpoint.startswith(("http://", "https://")):
        raise DiskError(f"AWS_ENDPOINT_URL is '{endpoint}', expected http://HOST:PORT or https://HOST")
    options: Any = {"allow_http": endpoint.startswith("http://"), "timeout": timedelta(seconds=60)}
    address: Any = {"endpoint": endpoint} if endpoint else {}
    retries: Any = {"max_retries": 20, "retry_timeout": timedelta(seconds=RETRY_S)}
    return S3Store(bucket, prefix=prefix or None, client_options=options, retry_config=retries, **address)


@contextmanager
def explain_store_errors(url: str, advice: str) -> Iterator[None]:
    """Raises DiskError for what a store answers, or for its silence; FileNotFoundError passes. advice: ends the sentence"""
    from obstore.exceptions import BaseError, NotFoundError

    try:
        yield
    except NotFoundError as error:
        raise FileNotFoundError(cut_message(error, most=300)) from None
    except (BaseError, PermissionError) as error:
        raise DiskError(f"{url} cannot be used ({cut_message(error, most=300)}): {advice}") from None
