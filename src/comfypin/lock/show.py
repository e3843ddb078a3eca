"""Describes a lock in words: the lines that `lock show` prints."""

from collections.abc import Iterator, Sequence

from comfypin.addresses import hide_credentials
from comfypin.lock.codec import lock_digest
from comfypin.lock.errors import LockFinding
from comfypin.lock.model import Lock, ModelPin, NodePin, RepoPin
from comfypin.plurals import format_count, format_size


def describe_lock(lock: Lock) -> Iterator[str]:
    """Yield the release for people: what it pins, in the order in which one asks."""
    yield f"release   {lock.version_name}"
    yield f"digest    {lock_digest(lock)}"
    yield f"schema    {lock.read_from_schema}"
    arguments = f" {' '.join(lock.engine.args)}" if lock.engine.args else ""
    yield f"engine    {lock.engine.kind}{arguments}{f' at {lock.engine.url}' if lock.engine.url else ''}"
    for row_name, value in sorted(lock.engine.env.items()):
        yield f"          {row_name}={value}"
    if lock.engine.warmup:
        size = "" if lock.engine.warmup_size == "smallest" else " in full size"
        yield f"warm-up   its own workflow{size}"
    yield f"comfyui   {_describe_repo(lock.comfyui) if lock.comfyui else 'none'}"
    # A package without sha256 is what keeps most old locks from being realized.
    hashed = sum(1 for package_pin in lock.python.packages if package_pin.sha256)
    targets = ", ".join(lock.python.targets) or "any target"
    yield (
        f"python    {lock.python.version or 'any version'}, {format_count(len(lock.python.packages), 'package')} "
        f"({hashed} with sha256), {targets}"
    )
    if lock.system_packages:
        yield f"system    {', '.join(lock.system_packages)}"
    yield from _format_table("custom nodes", [_describe_node(node_pin) for node_pin in lock.custom_nodes])
    yield from _format_table("models", [_describe_model(model_pin) for model_pin in lock.models])


def finding_lines(findings: Sequence[LockFinding], *, at_most: int = 3) -> Iterator[str]:
    """Yield findings for people: those with the same rule and advice together, the first few with their paths."""
    groups: dict[tuple[str, str, str], list[LockFinding]] = {}
    for finding in findings:
        groups.setdefault((finding.severity, finding.rule, finding.allowed), []).append(finding)
    for (severity, rule_name, _), group_findings in sorted(groups.items(), key=lambda item: item[0][0]):
        yield from (f"{severity:7}  {rule_name}  {finding}" for finding in group_findings[:at_most])
        if len(group_findings) > at_most:
            yield f"{severity:7}  {rule_name}  and {len(group_findings) - at_most} more like this (--json lists all)"


def _describe_repo(repo_pin: RepoPin | NodePin) -> str:
    shown_ref = f" ({repo_pin.ref})" if repo_pin.ref else ""
    changed = " with a patch" if repo_pin.patch else ""
    repository = hide_credentials(repo_pin.repo) if repo_pin.repo else "no repository"
    return f"{repository} @ {repo_pin.commit or 'no commit'}{shown_ref}{changed}"


def _describe_node(node_pin: NodePin) -> tuple[str, str]:
    source = node_pin.archive or _describe_repo(node_pin)
    script = ", runs install.py" if node_pin.install_script == "run" else ""
    return node_pin.folder, f"{source}{script}"


def _describe_model(model_pin: ModelPin) -> tuple[str, str]:
    shown_size = "size unknown" if model_pin.size_bytes is None else format_size(model_pin.size_bytes)
    shown_digest = "no checksum" if model_pin.sha256 is None else str(model_pin.sha256)[:19]
    return (
        model_pin.target_path,
        f"{shown_size}, {shown_digest}, {model_pin.sources[0] if model_pin.sources else 'no source'}",
    )


def _format_table(title: str, rows: Sequence[tuple[str, str]]) -> Iterator[str]:
    if rows:
        yield f"{title} ({len(rows)})"
        width = max(len(row_name) for row_name, _ in rows)
        yield from (f"  {row_name:{width}}  {row_text}" for row_name, row_text in rows)
