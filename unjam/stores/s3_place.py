"""S3Place: what ``RAG_STORAGE_URL=s3://…`` names, and the client to it.

``s3://bucket/prefix?endpoint=https://host:9000&region=eu-central-1&ca=/etc/ca.pem``. Credentials
never stand in the URL: they come from the standard ``AWS_*`` variables (also a web identity token
or the machine's own role), as do an endpoint and a region that the URL leaves open.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

from unjam.core.errors import SetupError

if TYPE_CHECKING:
    from obstore.store import ClientConfig, S3Config, S3Store

SCHEME = "s3://"
CONNECT_S = 3.0
ANSWER_S = 10.0
"""A question: a page of a listing, facts of an object, a removal."""
REQUEST_S = 60.0
"""A transfer, body included. The largest body is a part: 1.1 Mbit/s suffice for 8 MiB. No time-out
for silence: the client in use counts it from the first byte *sent*."""
RETRIES = 2
RETRY_S = 5.0
"""No retry begins later than this after the first try: whoever uploads shall hear soon that the
store is away (503 with Retry-After), and documents wait at no cost."""

_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")
_OPTIONS = frozenset({"endpoint", "region", "ca", "virtual_hosted", "checksum"})


@dataclass(frozen=True, slots=True)
class S3Place:
    """*prefix* without slashes at its ends; *endpoint* "" is Amazon's own of the region."""

    bucket: str
    prefix: str
    endpoint: str
    region: str
    ca_file: str
    virtual_hosted: bool
    checksum: str

    @staticmethod
    def parse(url: str, environ: Mapping[str, str] | None = None) -> S3Place:
        """Raises SetupError: no bucket, an unknown option, or credentials inside the URL."""
        env = os.environ if environ is None else environ
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        unknown = sorted(options.keys() - _OPTIONS)
        if parts.scheme != "s3" or not parts.hostname or unknown or "@" in parts.netloc:
            said = f"unknown option {unknown[0]}" if unknown else "it must be s3://bucket/prefix"
            raise SetupError(
                f"RAG_STORAGE_URL cannot be used: {said}",
                hint="s3://bucket/prefix?endpoint=https://host:9000; credentials go into "
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, never into the URL.",
            )
        return S3Place(
            bucket=parts.netloc,
            prefix=parts.path.strip("/"),
            endpoint=options.get("endpoint") or _first(env, _ENDPOINTS),
            region=options.get("region") or _first(env, _REGIONS) or "us-east-1",
            ca_file=options.get("ca") or env.get("AWS_CA_BUNDLE", ""),
            virtual_hosted=options.get("virtual_hosted", "") in ("1", "true", "yes"),
            checksum=options.get("checksum", "SHA256"),
        )

    def __str__(self) -> str:
        return f"{SCHEME}{self.bucket}/{self.prefix}".rstrip("/")

    def open(self, request_s: float = REQUEST_S) -> S3Store:
        """The client, each of whose requests ends within *request_s*; nothing is asked yet.

        Raises:
            SetupError: the extra is not installed, or the CA file cannot be read.
        """
        try:
            from obstore.store import S3Store
        except ImportError:
            raise SetupError(
                "originals in S3 need one more package",
                hint="Install it with: pip install 'unjam[s3]'",
            ) from None
        config: S3Config = {
            "region": self.region,
            "virtual_hosted_style_request": self.virtual_hosted,
            # One DELETE per object: the bulk call is missing in several compatible servers.
            "disable_bulk_delete": True,
        }
        if self.endpoint:
            config["endpoint"] = self.endpoint
        if self.checksum.lower() != "none":
            config["checksum_algorithm"] = self.checksum
        return S3Store(
            self.bucket,
            prefix=self.prefix or None,
            config=config,
            client_options=self._client(request_s),
            retry_config={"max_retries": RETRIES, "retry_timeout": timedelta(seconds=RETRY_S)},
        )

    def _client(self, request_s: float) -> ClientConfig:
        options: ClientConfig = {
            "allow_http": self.endpoint.startswith("http://"),
            "connect_timeout": timedelta(seconds=CONNECT_S),
            "timeout": timedelta(seconds=request_s),
        }
        if self.ca_file:
            try:
                options["root_certificate"] = Path(self.ca_file).read_bytes()
            except OSError as error:
                raise SetupError(
                    f"the certificates in {self.ca_file} cannot be read: {error.strerror}",
                    hint="Name a PEM file in ?ca= of RAG_STORAGE_URL, or in AWS_CA_BUNDLE.",
                ) from error
        return options


def _first(env: Mapping[str, str], names: tuple[str, ...]) -> str:
    return next((env[name] for name in names if env.get(name)), "")
