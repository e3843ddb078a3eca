"""Which certificates a store's server is believed by."""

import ssl
from pathlib import Path

from comfypin.http.sockets import BoundedTlsSocket
from comfypin.storage.errors import CertificatesUnusable


def trusting(ca_bundle: str | None) -> ssl.SSLContext:
    """Return TLS settings that trust a file or folder of certificates; None: the system's.

    Raises `CertificatesUnusable`.
    """
    folder = ca_bundle if ca_bundle and Path(ca_bundle).is_dir() else None
    try:
        context = ssl.create_default_context(cafile=None if folder else ca_bundle, capath=folder)
    except OSError as exc:
        raise CertificatesUnusable(path=str(ca_bundle)) from exc
    context.set_alpn_protocols(["http/1.1"])
    context.sslsocket_class = BoundedTlsSocket
    return context
