"""Keeps secrets out of the logs of the libraries that we call: some URLs that they log are capabilities."""

import logging
import re

# Signatures of presigned URLs, the id of an upload session (whoever has it may write the object), tokens.
_SECRETS = re.compile(
    r"(?i)\b(upload_id|uploadId|X-(?:Amz|Goog)-[A-Za-z-]+|Signature|GoogleAccessId|access_token|assertion|token|sig|AccountKey)"
    r"=[^&\s\"']+"
)
_BEARER = re.compile(r"(?i)\b(Bearer|AWS4-HMAC-SHA256)\s+[^\s\"',]+")
_LOGGERS = ("urllib3.connectionpool", "google.auth", "google.auth.transport.requests")


def redact_secrets(text: str) -> str:
    """Return the text without signatures, session ids and tokens."""
    return _BEARER.sub(r"\1 ***", _SECRETS.sub(r"\1=***", text))


class RedactingFilter(logging.Filter):
    """Rewrites log records that hold a secret; drops none."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Replace the record's text if redaction changes it."""
        log_message = record.getMessage()
        clean = redact_secrets(log_message)
        if clean != log_message:
            record.msg, record.args = clean, ()
        return True


_FILTER = RedactingFilter()


def redact_library_logs() -> None:
    """Install the filter on the loggers of the libraries under our stores; may be called any number of times."""
    for logger_name in _LOGGERS:
        logging.getLogger(logger_name).addFilter(_FILTER)
    # At DEBUG it logs all that it signs, the session token too, from many loggers; filters are not inherited.
    logging.getLogger("botocore").setLevel(logging.WARNING)
