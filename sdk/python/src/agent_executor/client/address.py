"""Where a server is, and what it is shown."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Address:
    """A socket in the file system, or a host and a port."""

    path: str = ""
    host: str = ""
    port: int = 0
    tls: bool = False

    @property
    def authority(self) -> str:
        """What the ``Host`` header says."""
        if self.path:
            return "localhost"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read ``http://HOST:PORT``, ``https://HOST:PORT``, ``unix:PATH`` or a path.

        Raises:
            ValueError: It names no server.
        """
        if text.startswith(("http://", "https://")):
            parts = urlsplit(text)
            if parts.path not in {"", "/"} or parts.query or parts.fragment or parts.username:
                raise ValueError(f"{text!r} has more than a host and a port")
            if not parts.hostname:
                raise ValueError(f"{text!r} has no host")
            tls = parts.scheme == "https"
            return cls(host=parts.hostname, port=parts.port or (443 if tls else 80), tls=tls)
        if "://" in text and not text.startswith("unix:"):
            raise ValueError(f"{text!r} does not name a server")
        path = text.removeprefix("unix:").removeprefix("//")
        if not path:
            raise ValueError("the path of the socket is empty")
        return cls(path=path)


@dataclass(frozen=True)
class Credentials:
    """What a server is shown, and what it is known by.

    Attributes:
        token: An API key, a share token or a JWT; empty if there is none.
        authorities: A file of certificates (PEM) that vouch for the server, instead of the
            system's.
        certificate: The client's own certificates and key (PEM files), if the server asks for them.
    """

    token: str = field(default="", repr=False)
    authorities: str | None = None
    certificate: tuple[str, str] | None = None

    @classmethod
    def of_environment(cls) -> Credentials:
        """Read ``AX_TOKEN``, ``AX_CA``, ``AX_CERT`` and ``AX_KEY``, as the command line does."""
        chain, key = os.environ.get("AX_CERT"), os.environ.get("AX_KEY")
        return cls(
            os.environ.get("AX_TOKEN", ""),
            os.environ.get("AX_CA") or None,
            (chain, key) if chain and key else None,
        )

    def context(self) -> ssl.SSLContext:
        """Return what TLS connections are made with."""
        context = ssl.create_default_context(cafile=self.authorities)
        if self.certificate:
            context.load_cert_chain(*self.certificate)
        return context
