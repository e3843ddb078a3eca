"""Known vulnerabilities of pinned packages, by advisories of a file."""

import json
import zipfile
from pathlib import Path

import pytest

from comfypin.errors import ConfigError
from comfypin.lock.advisories import find_vulnerabilities
from comfypin.lock.model import PackagePin


def an_advisory(name: str = "Pillow", **changes: object) -> dict[str, object]:
    return {
        "id": "GHSA-1",
        "aliases": ["CVE-2026-1"],
        "summary": "Bytes may overflow",
        "affected": [
            {
                "package": {"name": name, "ecosystem": "PyPI"},
                "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "9.0"}, {"fixed": "10.2.0"}]}],
            }
        ],
        **changes,
    }


def found(tmp_path: Path, version: str, advisory: object) -> list[str]:
    path = tmp_path / "osv.json"
    path.write_text(json.dumps(advisory))
    pins = (PackagePin(name="pillow", version=version), PackagePin(name="idna", version="1"))
    return [str(item) for item in find_vulnerabilities(pins, path)]


SAID = "pillow 9.5.0: GHSA-1 (CVE-2026-1), mended in 10.2.0. Bytes may overflow"


@pytest.mark.parametrize("version", ["9.0", "9.5.0", "10.1.9", "9.5.0+cpu"])
def test_a_version_in_a_range_is_vulnerable(version: str, tmp_path: Path) -> None:
    assert found(tmp_path, version, an_advisory()) == [SAID.replace("9.5.0", version, 1)]


@pytest.mark.parametrize("version", ["8.9", "10.2.0", "11"])
def test_a_version_outside_of_the_range_is_not(version: str, tmp_path: Path) -> None:
    assert found(tmp_path, version, an_advisory()) == []


def test_versions_that_are_listed_and_ranges_without_an_end_count(tmp_path: Path) -> None:
    package = {"name": "pillow", "ecosystem": "PyPI"}
    listed = an_advisory(affected=[{"package": package, "versions": ["9.5.0"]}])
    last = {"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"last_affected": "9.5.0"}]}
    unmended = an_advisory(affected=[{"package": package, "ranges": [last]}])
    assert "no version mends it" in found(tmp_path, "9.5.0", listed)[0]
    assert "no version mends it" in found(tmp_path, "9.5.0", unmended)[0]
    assert found(tmp_path, "9.5.1", unmended) == []


def test_what_was_withdrawn_or_is_of_another_ecosystem_does_not_count(tmp_path: Path) -> None:
    assert found(tmp_path, "9.5.0", an_advisory(withdrawn="2026-01-01T00:00:00Z")) == []
    npm = an_advisory(affected=[{"package": {"name": "pillow", "ecosystem": "npm"}, "versions": ["9.5.0"]}])
    assert found(tmp_path, "9.5.0", npm) == []


@pytest.mark.parametrize("form", ["list", "vulns", "zip", "folder", "yaml"])
def test_advisories_come_in_many_forms(form: str, tmp_path: Path) -> None:
    text = json.dumps(an_advisory())
    path = tmp_path / "osv"
    if form == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("GHSA-1.json", text)
    elif form in ("folder", "yaml"):
        (path / "vulns" / "pillow").mkdir(parents=True)
        (path / "vulns" / "pillow" / f"a.{'json' if form == 'folder' else 'yaml'}").write_text(text)
    else:
        path.write_text(f"[{text}]" if form == "list" else f'{{"vulns": [{text}]}}')
    pins = (PackagePin(name="Pillow", version="9.5.0"),)
    assert [item.advisory for item in find_vulnerabilities(pins, path)] == ["GHSA-1"]


@pytest.mark.parametrize("text", ["{", "a: b", "\x00"])
def test_advisories_that_cannot_be_read_are_said(text: str, tmp_path: Path) -> None:
    path = tmp_path / "osv.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match="advisories"):
        find_vulnerabilities((), path)
    with pytest.raises(ConfigError, match="advisories"):
        find_vulnerabilities((), tmp_path / "absent.json")
