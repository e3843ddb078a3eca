"""Where a user set what an S3 bucket needs, so that a failure names their own variables, or fields of their job."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class S3SettingNames:
    """Names the variable, or the field of a job, that each part of the settings comes from."""

    bucket: str = "S3_BUCKET"
    endpoint: str = "S3_ENDPOINT_URL"
    access_key_id: str = "AWS_ACCESS_KEY_ID"
    secret_access_key: str = "AWS_SECRET_ACCESS_KEY"  # noqa: S105  # a name, not a secret
