"""The variables that describe buckets: names and prefixes; each mistake names its variable."""

import re

from comfypin.settings.errors import SettingInvalid
from comfypin.settings.variables import Variables
from comfypin.storage.errors import KeyInvalid
from comfypin.storage.interface import DEFAULT_PREFIX
from comfypin.storage.object_keys import clean_prefix
from comfypin.storage.registry import SCHEMES

_LONGEST_PREFIX_BYTES = 512  # of the 1024 of a key: job and name need the rest


class BucketVariables(Variables):
    """Reads the environment's variables for the settings of a store."""

    __slots__ = ()

    def read_bucket(self, *variable_names: str, scheme: str) -> str | None:
        """Return the name of a bucket, written as a name or an address. Raises `SettingInvalid`."""
        variable_name = self.first_set_name(*variable_names)
        raw_value = self.read_text(variable_name)
        return None if raw_value is None else parse_bucket_name(raw_value, variable=variable_name, scheme=scheme)

    def read_prefix(self, variable_name: str) -> str:
        """Return a prefix for keys; `/` alone means none. Raises `SettingInvalid`."""
        raw_value = self.read_text(variable_name) or DEFAULT_PREFIX
        try:
            prefix = clean_prefix(raw_value)
            if len(prefix.encode()) > _LONGEST_PREFIX_BYTES:
                raise KeyInvalid(key=prefix, reason="it leaves no room for names")
            return prefix
        except KeyInvalid as exception:
            raise SettingInvalid(
                variable=variable_name, value=raw_value, expected="a prefix for keys, like a/b"
            ) from exception


def parse_bucket_name(bucket_text: str, *, variable: str, scheme: str) -> str:
    """Return a bucket's name from itself or its address, `s3://name`. Raises `SettingInvalid`."""
    bucket_name = bucket_text.removeprefix(f"{scheme}://").rstrip("/")
    # Ceph's buckets may be called tenant:bucket.
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._:-]{0,253}[A-Za-z0-9])?", bucket_name):
        expected = f"the name of a bucket alone (what keys begin with is {SCHEMES[scheme].name.upper()}_PREFIX)"
        raise SettingInvalid(variable=variable, value=None if "@" in bucket_text else bucket_text, expected=expected)
    return bucket_name
