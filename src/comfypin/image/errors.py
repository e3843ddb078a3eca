"""Failures of building and pushing images."""

from collections.abc import Sequence

from comfypin.errors import ConfigError, ImageError, UsageError


class NoBuilder(ImageError):
    """Neither docker nor buildah nor podman can build here."""

    def __init__(self, *, tried: Sequence[str]) -> None:
        super().__init__(
            f"Nothing here can build an image ({'; '.join(tried)}). Install Docker "
            "(https://docs.docker.com/engine/install), buildah or podman (Debian: apt-get install buildah), or let CI "
            "build it: docs/images.md has a workflow.",
            tried=list(tried),
        )


class BuildFailed(ImageError):
    """A builder gave up; `log` are the last lines of what it said."""

    def __init__(self, *, builder: str, tag: str, log: str) -> None:
        super().__init__(
            f"{builder} could not build {tag}; the last it said:\n{log}\nRun again with --verbose to see all of it.",
            builder=builder,
            tag=tag,
        )


class NoSuchImage(ImageError):
    """An image that is to be pushed is not on this machine."""

    def __init__(self, *, tag: str, builder: str) -> None:
        super().__init__(f"{builder} has no image {tag}; build it first: comfypin image build --tag {tag}.", tag=tag)


class LoginRefused(ConfigError):
    """A registry does not take the credential; `source` says which variable or file it came from."""

    def __init__(self, *, registry: str, source: str) -> None:
        super().__init__(
            f"The registry {registry} refuses the credential from {source}. Check that it is current and may write "
            "packages; docs/images.md has a line for every registry.",
            registry=registry,
            source=source,
        )


class LoginUnreadable(ConfigError):
    """A variable holds no credential for a registry, nor the name of a file that does. What it holds is not shown."""

    def __init__(self, *, variable: str, reason: str, path: str | None = None) -> None:
        held = f"What {variable} holds (not shown)" if path is None else f"{variable} names {path}, which"
        super().__init__(
            f"{held} {reason}; a registry takes the key of a service account, as a file or as its JSON, or a token in "
            "GOOGLE_OAUTH_ACCESS_TOKEN (gcloud auth print-access-token).",
            variable=variable,
            path=path,
        )


class PushFailed(ImageError):
    """A push did not come through, after all tries."""

    def __init__(self, *, reference: str, reason: str, tries: int) -> None:
        super().__init__(
            f"{reference} could not be pushed ({tries} tries): {reason}. Try again; layers that arrived stay there.",
            reference=reference,
            tries=tries,
        )
        self.reason = reason


class AttachFailed(ImageError):
    """An image is pushed, and what belongs beside it is not."""

    def __init__(self, *, reference: str, reason: str) -> None:
        super().__init__(
            f"{reference} is pushed, but its list of contents (SBOM) could not be attached: {reason}. Push again; what "
            "has arrived is not sent twice.",
            reference=reference,
        )


class ReleaseUnfitForImage(ImageError):
    """A lock cannot become an image as it was asked for."""

    def __init__(self, *, release: str, reason: str, remedy: str) -> None:
        super().__init__(f"The release {release} cannot become this image: {reason}; {remedy}.", release=release)


class TagInvalid(UsageError):
    """A tag is not an image's name."""

    def __init__(self, *, tag: str) -> None:
        super().__init__(
            f"{tag!r} is not an image's name; give one such as ghcr.io/you/wan22:1.0 (lower case, no blanks).", tag=tag
        )


class NoRoomToBuild(ImageError):
    """The disk cannot hold what the build will need."""

    def __init__(self, *, builder: str, need_bytes: int, free_bytes: int) -> None:
        super().__init__(
            f"The build needs about {need_bytes / 1e9:.1f} GB and {builder} has {free_bytes / 1e9:.1f} GB free; free "
            f"some space ({builder} system prune), bake less (--bake nothing), or build elsewhere.",
            need_bytes=need_bytes,
            free_bytes=free_bytes,
        )


class OwnFilesMissing(ImageError):
    """comfypin does not find its own Dockerfile, or cannot pack itself."""

    def __init__(self, *, what: str, reason: str) -> None:
        super().__init__(f"comfypin cannot provide {what} for the build: {reason}. Install it anew.", what=what)


class NotThisRelease(ImageError):
    """An image was built from another lock than the one its digest would be written beside."""

    def __init__(self, *, lock: str, said: str | None) -> None:
        of = f"from the lock {said}" if said else "by something else than comfypin image build"
        super().__init__(
            f"The image was built {of}, and {lock} is another one; name its lock with --release, or build it again.",
            lock=lock,
        )


class ScanFailed(ImageError):
    """A scanner found grave holes in an image."""

    def __init__(self, *, tag: str, log: str) -> None:
        super().__init__(f"trivy found grave holes in {tag}, and it was not pushed:\n{log}", tag=tag)


class SignFailed(ImageError):
    """An image was pushed and could not be signed."""

    def __init__(self, *, reference: str, reason: str) -> None:
        super().__init__(
            f"{reference} was pushed, and cosign could not sign it: {reason}. Sign it later: cosign sign {reference}",
            reference=reference,
        )


class SupplyToolMissing(ImageError):
    """A scanner or signer that was asked for is not installed."""

    def __init__(self, *, flag: str, tool: str, address: str) -> None:
        super().__init__(
            f"{flag} needs {tool}, which is not installed here ({address}); install it, or push without {flag}.",
            tool=tool,
        )
