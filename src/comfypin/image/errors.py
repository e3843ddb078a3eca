"""Failures of building and pushing images."""

from collections.abc import Sequence

from comfypin.errors import ConfigError, ImageError, UsageError, declare
from comfypin.plurals import format_size


@declare
class NoBuilder(ImageError):
    """Neither docker nor buildah nor podman can build here."""

    template = (
        "No program here can build an image ({listed}). Install Docker (https://docs.docker.com/engine/install), "
        "buildah or podman (Debian: apt-get install buildah), or let CI build it: docs/images.md has a workflow."
    )
    tried: Sequence[str]

    @property
    def listed(self) -> str:
        return "; ".join(self.tried)


@declare
class BuildFailed(ImageError):
    """A builder failed; `_log` holds the last lines of its output."""

    template = "{builder} could not build {tag}; its last lines:\n{_log}\nRun again with --verbose to see all of them."
    builder: str
    tag: str
    _log: str


@declare
class NoSuchImage(ImageError):
    """An image is not on this machine."""

    template = "{builder} has no image {tag}; build it first: comfypin image build --tag {tag}."
    tag: str
    builder: str


@declare
class LoginRefused(ConfigError):
    """A registry refuses a credential, or wants one; `source` names the variable or file that it came from, if any.

    `said` are the registry's own words, `advice` what to set for it.
    """

    template = "The registry {registry} {refusal}; docs/images.md has a line for every registry."
    registry: str
    source: str | None
    advice: str
    said: str = ""

    @property
    def refusal(self) -> str:
        """Return what it refuses, and what to do."""
        words = f" ({self.said})" if self.said else ""
        if self.source is None:
            return f"asks for a login{words}: {self.advice}"
        return f"refuses the login with {self.source}{words}. Check that it is current and may write packages there"


@declare
class LoginUnreadable(ConfigError):
    """A variable holds no credential for a registry, nor the name of a file that does. What it holds is not shown."""

    template = (
        "{held} {reason}. A registry takes the key of a service account, as a file or as its JSON, or a token in "
        "GOOGLE_OAUTH_ACCESS_TOKEN (gcloud auth print-access-token)."
    )
    variable: str
    reason: str
    path: str | None = None

    @property
    def held(self) -> str:
        if self.path is None:
            return f"What {self.variable} holds (not shown)"
        return f"{self.variable} names {self.path}, which"


@declare
class PushFailed(ImageError):
    """A push failed after all tries."""

    template = "{reference} could not be pushed ({counted}): {reason}. {advice}"
    reference: str
    reason: str
    tries: int
    advice: str = "Push again; layers that arrived are not sent twice."

    @property
    def counted(self) -> str:
        return "1 try" if self.tries == 1 else f"{self.tries} tries"


@declare
class AttachFailed(ImageError):
    """An image is pushed, but a document that belongs to it could not be attached."""

    template = (
        "{reference} is pushed, but its list of contents (SBOM) could not be attached: {reason}. Push again; layers "
        "that arrived are not sent twice."
    )
    reference: str
    reason: str


@declare
class ContentsMissing(ImageError):
    """An image does not hold the list of its contents that a build of comfypin ends with."""

    template = (
        "{tag} holds no list of its contents ({path}); it was built by an older comfypin or by something else. Build "
        "it again: comfypin image build --tag {tag}."
    )
    tag: str
    path: str


@declare
class VariableRefused(UsageError):
    """A variable cannot become a part of an image."""

    template = "--env {name} cannot be a part of the image: {reason}."
    name: str
    reason: str


@declare
class ReleaseUnfitForImage(ImageError):
    """A lock cannot become the requested image."""

    template = "The release {release} cannot become this image: {reason}; {remedy}."
    release: str
    reason: str
    remedy: str


@declare
class TagInvalid(UsageError):
    """A tag is not a valid image name."""

    template = "{tag!r} is not an image name; give one such as ghcr.io/you/wan22:1.0 (lower case, no spaces)."
    tag: str


@declare
class NoRoomToBuild(ImageError):
    """The disk cannot hold what the build will need."""

    template = (
        "The build needs about {needed}, and {builder} has {free} free. Free some space ({builder} system prune), "
        "bake less (--bake nothing), or build elsewhere."
    )
    builder: str
    need_bytes: int
    free_bytes: int

    @property
    def needed(self) -> str:
        return format_size(self.need_bytes)

    @property
    def free(self) -> str:
        return format_size(self.free_bytes)


@declare
class OwnFilesMissing(ImageError):
    """comfypin does not find its own Dockerfile, or cannot pack itself."""

    template = "comfypin cannot provide {what} for the build: {reason}. Install comfypin again."
    what: str
    reason: str


@declare
class NotThisRelease(ImageError):
    """An image was built from another lock than the one its digest would be written beside."""

    template = "The image was built {origin}, not from {lock}. Name its lock with --release, or build it again."
    lock: str
    said: str | None

    @property
    def origin(self) -> str:
        return f"from the lock {self.said}" if self.said else "by something other than comfypin image build"


@declare
class ScanFailed(ImageError):
    """A scanner found serious vulnerabilities in an image."""

    template = "trivy found serious vulnerabilities in {tag}, so it was not pushed:\n{_log}"
    tag: str
    _log: str


@declare
class SignFailed(ImageError):
    """An image was pushed but could not be signed."""

    template = "{reference} was pushed, but cosign could not sign it: {reason}. Sign it later: cosign sign {reference}"
    reference: str
    reason: str


@declare
class SupplyToolMissing(ImageError):
    """A requested scanner or signer is not installed."""

    template = "{flag} needs {tool}, which is not installed here. Install it ({address}), or push without {flag}."
    flag: str
    tool: str
    address: str
