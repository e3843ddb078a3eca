"""Requirement files of strangers: no option, local path or file of this machine gets into what is resolved."""

import pytest

from comfypin.lock.requirements import read_requirements

IGNORED = (
    "--index-url http://127.0.0.1:1/simple", "--index-url=http://127.0.0.1:1/simple", "-i http://127.0.0.1:1/simple",
    "-ihttp://127.0.0.1:1/simple", "--extra-index-url http://127.0.0.1:1", "--extra-index-url=http://127.0.0.1:1",
    "--find-links /tmp", "--find-links=file:///tmp", "-f /tmp", "-f/tmp", "--no-index", "--trusted-host 127.0.0.1",
    "--pre", "--no-binary :all:", "--only-binary=:none:", "--prefer-binary", "--require-hashes", "--use-feature=x",
    "--config-settings=--build-option=x", "--global-option=build_ext", "--no-build-isolation", "--cert /etc/passwd",
    "--client-cert=/etc/passwd", "--proxy http://127.0.0.1:1", "--hash=sha256:" + "0" * 64, "-", "--", "-q", "-h",
    "---", "-r",
)  # fmt: skip
UNUSABLE = (
    "-e .", "-e ./x", "--editable=.", "-e.", "./local", "../x", "/etc/passwd", ".",
    "..",
    "~/x", "file:///etc/passwd", "x @ file:///etc/passwd", "x@file:///etc", "x @ ./local", "x @ /etc/passwd",
    "-r ../../etc/passwd", "-r /etc/passwd", "-r file:///etc/passwd", "-r http://127.0.0.1:1/x", "-r ~/x",
    "-c /etc/passwd",
    "-c ../../x", "--requirement=../../x", "--constraint ../../x", "-r../../x", "-r nowhere.txt", "git+file:///x",
    "git+ext::sh -c touch%20x", "x @ git+ext::sh", "git+-x", "git+ssh:x", "hg+http://x/y", "svn+http://x/y",
    "bzr+http://x/y",
    "x @ git+file:///x", "ftp://x/y.whl", "${HOME}/x.whl", "$(touch x)", "`touch x`", "x; import os", "x\x00y",
    "x @ data:text/plain,x", "x @ javascript:x", "x @ -x", "\u202ex",
    "x ; python_version == __import__('os')", "x -r other.txt", "x[", "==1.0", "x==1.0 -e .",
    "x @ git+https://example.org/x --upload-pack=touch", "https://example.org/x.whl --upload-pack=touch",
    "x --index-url -r", "-e git+https://example.org/x --upload-pack=touch", "-e git+file:///x", "-e hg+http://x/y",
)  # fmt: skip
READ_OVER = {
    "x --index-url http://127.0.0.1:1": "x",
    "x==1 --extra-index-url=https://example.org/simple --pre": "x==1",
    "x --find-links=/tmp": "x",
    "x -f /tmp --hash=sha256:00": "x",
    "https://example.org/x.whl --extra-index-url=http://x": "https://example.org/x.whl",
}
TAKEN = {
    "x --hash=sha256:" + "0" * 64: "x",
    "x==1 --config-settings=--build-option=touch": "x==1",
    "x==1 --config-setting editable=1": "x==1",
    "x==1 --global-option='build_ext'": "x==1",
    "x==1 --install-option=--prefix=/": "x==1",
    "x==1 \\\n    --hash=sha256:" + "0" * 64: "x==1",
    "x==1  # --index-url http://127.0.0.1:1": "x==1",
}


def needs_of(text: str, asked: list[str]) -> tuple[list[str], int, int]:
    def read(path: str) -> str | None:
        asked.append(path)
        return text if path == "requirements.txt" else None

    needs = read_requirements("requirements.txt", origin="a node", read=read)
    texts = [need.text for need in (*needs.requirements, *needs.constraints)]
    return texts, len(needs.ignored), len(needs.unusable)


@pytest.mark.parametrize("line", IGNORED)
def test_an_option_is_reported_and_not_obeyed(line: str) -> None:
    assert needs_of(line, []) == ([], 1, 0)


@pytest.mark.parametrize("line", UNUSABLE)
def test_what_is_of_this_machine_or_no_requirement_is_refused(line: str) -> None:
    assert needs_of(line, []) == ([], 0, 1)


@pytest.mark.parametrize(("line", "text"), TAKEN.items())
def test_options_of_one_requirement_are_left_out(line: str, text: str) -> None:
    assert needs_of(line, [])[0] == [text]


@pytest.mark.parametrize(("line", "text"), READ_OVER.items())
def test_an_index_on_a_requirements_own_line_is_said_and_not_obeyed(line: str, text: str) -> None:
    assert needs_of(line, []) == ([text], 1, 0)


@pytest.mark.parametrize("mark", ["\r", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029"])
def test_no_mark_that_ends_a_line_elsewhere_hides_an_option(mark: str) -> None:
    texts, _, _ = needs_of(f"x==1{mark}--index-url http://127.0.0.1:1{mark}y==2", [])
    assert all("index-url" not in text and mark not in text for text in texts)


def test_only_names_of_the_repository_are_read() -> None:
    asked: list[str] = []
    needs_of("\n".join([*UNUSABLE, *IGNORED]), asked)
    assert [path for path in asked if path.startswith("/") or ".." in path.split("/")] == []


def test_files_that_include_each_other_are_read_once() -> None:
    asked: list[str] = []
    texts, _, _ = needs_of("-r requirements.txt\n-c requirements.txt\n-r ./requirements.txt\nx", asked)
    assert (texts, asked) == (["x"], ["requirements.txt"])
