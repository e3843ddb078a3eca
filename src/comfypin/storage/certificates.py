"""The TLS settings of stores: which certificates are trusted."""

import ssl
from pathlib import Path

from comfypin.http.sockets import BoundedTlsSocket
from comfypin.storage.errors import CertificatesUnusable


def make_tls_context(ca_bundle: str | None) -> ssl.SSLContext:
    """Return TLS settings that trust a file or folder of certificates; None: the system's.

    Raises `CertificatesUnusable`.
    """
    authorities_folder = ca_bundle if ca_bundle and Path(ca_bundle).is_dir() else None
    try:
        tls_context = ssl.create_default_context(
            cafile=None if authorities_folder else ca_bundle, capath=authorities_folder
        )
    except OSError as exception:
        raise CertificatesUnusable(path=str(ca_bundle)) from exception
    # urllib3 speaks HTTP/1.1 only.
    tls_context.set_alpn_protocols(["http/1.1"])
    tls_context.sslsocket_class = BoundedTlsSocket
    return tls_context
