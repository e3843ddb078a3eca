"""A lock in words: the lines that `lock show` prints."""

from collections.abc import Iterator, Sequence

from comfypin.addresses import hide_credentials
from comfypin.lock.codec import lock_digest
from comfypin.lock.errors import Finding
from comfypin.lock.model import Lock, ModelPin, NodePin, RepoPin


def lines(lock: Lock) -> Iterator[str]:
    """The release for people: what it pins, in the order in which one asks."""
    yield f"release   {lock.version_name}"
    yield f"digest    {lock_digest(lock)}"
    yield f"schema    {lock.read_from_schema}"
    arguments = f" {' '.join(lock.engine.args)}" if lock.engine.args else ""
    yield f"engine    {lock.engine.kind}{arguments}{f' at {lock.engine.url}' if lock.engine.url else ''}"
    for name, value in sorted(lock.engine.env.items()):
        yield f"          {name}={value}"
    yield f"comfyui   {_repo(lock.comfyui) if lock.comfyui else 'none'}"
    hashed = sum(1 for package in lock.python.packages if package.sha256)
    targets = ", ".join(lock.python.targets) or "any target"
    yield (
        f"python    {lock.python.version or 'any version'}, {len(lock.python.packages)} packages "
        f"({hashed} with sha256), {targets}"
    )
    if lock.system_packages:
        yield f"system    {', '.join(lock.system_packages)}"
    yield from _table("custom nodes", [_node(node) for node in lock.custom_nodes])
    yield from _table("models", [_model(model) for model in lock.models])


def finding_lines(findings: Sequence[Finding], *, at_most: int = 3) -> Iterator[str]:
    """Findings for people: those of one rule and one answer together, the first few with their paths."""
    groups: dict[tuple[str, str, str], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.severity, finding.rule, finding.allowed), []).append(finding)
    for (severity, rule, _), group in sorted(groups.items(), key=lambda item: item[0][0]):
        yield from (f"{severity:7}  {rule}  {finding}" for finding in group[:at_most])
        if len(group) > at_most:
            yield f"{severity:7}  {rule}  and {len(group) - at_most} more like this (--json lists all)"


def _repo(pin: RepoPin | NodePin) -> str:
    ref = f" ({pin.ref})" if pin.ref else ""
    changed = " with a patch" if pin.patch else ""
    return f"{hide_credentials(pin.repo) if pin.repo else 'no repository'} @ {pin.commit or 'no commit'}{ref}{changed}"


def _node(node: NodePin) -> tuple[str, str]:
    source = node.archive or _repo(node)
    script = ", runs install.py" if node.install_script == "run" else ""
    return node.folder, f"{source}{script}"


def _model(model: ModelPin) -> tuple[str, str]:
    size = "size unknown" if model.size_bytes is None else f"{model.size_bytes:,} bytes"
    digest = "no checksum" if model.sha256 is None else str(model.sha256)[:19]
    return model.target_path, f"{size}, {digest}, {model.sources[0] if model.sources else 'no source'}"


def _table(title: str, rows: Sequence[tuple[str, str]]) -> Iterator[str]:
    if rows:
        yield f"{title} ({len(rows)})"
        width = max(len(name) for name, _ in rows)
        yield from (f"  {name:{width}}  {text}" for name, text in rows)
