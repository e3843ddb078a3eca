"""Requirement files as pip reads them, and what of them a lock obeys."""

import pytest

from comfypin.lock.requirements import (
    RequirementSet,
    apply_overrides,
    decode_requirements,
    parse_requirement,
    read_requirements,
)


def needs(text: str, dropped: frozenset[str] = frozenset(), **files: str) -> RequirementSet:
    read = {"requirements.txt": text, **{name.replace("_", "/") + ".txt": body for name, body in files.items()}}.get
    return read_requirements("requirements.txt", origin="the node N", read=read, dropped=dropped)


def test_lines_comments_markers_and_continuations() -> None:
    text = "# c\nidna>=3  # why\n\nrequests[socks] \\\n  >=2 ; python_version > '3'\nA.B_c==1 --hash=sha256:00\n"
    assert [(need.name, need.text) for need in needs(text).requirements] == [
        ("idna", "idna>=3"),
        ("requests", 'requests[socks]>=2; python_version > "3"'),
        ("a-b-c", "A.B_c==1"),
    ]


def test_included_files_and_constraints_are_read_relative_to_their_file() -> None:
    found = needs(
        "-r sub/more.txt\n--constraint=sub/held.txt\n", sub_more="-r deep.txt\nx\n", sub_deep="y\n", sub_held="z<2\n"
    )
    assert [need.text for need in found.requirements] == ["y", "x"]
    assert [need.text for need in found.constraints] == ["z<2"]


def test_files_that_include_each_other_end() -> None:
    assert [need.text for need in needs("-r requirements.txt\nidna\n").requirements] == ["idna"]


@pytest.mark.parametrize(
    "line",
    [
        "-e .",
        "./local.whl",
        "/abs/x.whl",
        "x @ file:///tmp/x.whl",
        "not a requirement",
        "-r ../../up.txt",
        "-r absent.txt",
    ],
)
def test_what_another_machine_could_not_install_is_unusable(line: str) -> None:
    found = needs(f"{line}\nidna\n")
    assert len(found.unusable) == 1
    assert "the node N" in found.unusable[0]


def test_indexes_and_options_of_a_node_are_not_obeyed_but_said() -> None:
    found = needs("--extra-index-url https://x.org\n--pre\nidna\n")
    assert found.unusable == ()
    assert [line.rpartition(": ")[2] for line in found.ignored] == ["--extra-index-url https://x.org", "--pre"]


def test_requirements_can_be_dropped_by_name_or_line() -> None:
    found = needs("torch>2\n./local.whl\nidna\n", frozenset({"torch", "./local.whl"}))
    assert [need.text for need in found.requirements] == ["idna"]
    assert len(found.ignored) == 2


@pytest.mark.parametrize(
    "line",
    [
        "https://x.org/a-1-py3-none-any.whl ; sys_platform == 'win32'",
        "git+https://x.org/a.git ; python_version < '3.9'",
        "git+https://x.org/a.git@v1",
        "https://x.org/a-1-py3-none-any.whl",
        "a @ git+https://x.org/a",
    ],
)
def test_urls_are_requirements(line: str) -> None:
    assert parse_requirement(line, "x") is not None


def test_a_package_is_dropped_however_its_name_is_written() -> None:
    assert needs("pillow>9\nA.B_c\n", frozenset({"Pillow", "a-b.C"})).requirements == ()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_byte_order_mark_says_how_a_file_is_written(encoding: str) -> None:
    text = "six>=1  # Größe\r\nidna\r\n"
    assert [need.text for need in needs(decode_requirements(text.encode(encoding))).requirements] == ["six>=1", "idna"]


@pytest.mark.parametrize(
    ("line", "text"),
    [
        # pip: a space after the semicolon of a URL is enough. uv: there must be one before it.
        ("https://x.org/a-1-py3-none-any.whl; os_name == 'nt'", "https://x.org/a-1-py3-none-any.whl ; os_name == 'nt'"),
        ("-e git+https://x.org/a.git#egg=a", "git+https://x.org/a.git#egg=a"),
        ("--editable=git+https://x.org/a.git@v1", "git+https://x.org/a.git@v1"),
        ("a==1.\\\n0", "a==1.0"),
    ],
)
def test_lines_are_read_as_pip_reads_them(line: str, text: str) -> None:
    found = needs(f"{line}\n")
    assert ([need.text for need in found.requirements], found.unusable) == ([text], ())


def test_a_wheels_file_says_its_package() -> None:
    (need,) = needs("https://x.org/A_b-1-py3-none-any.whl?download=true\n").requirements
    assert need.name == "a-b"


@pytest.mark.parametrize(
    "line",
    [
        "git+https://github.com/o/cstr",
        "git+https://user@github.com/o/CStr.git@feature/x",
        "git+ssh://git@github.com/o/cstr.git@v1#subdirectory=python",
        "-e git+https://github.com/o/cstr",
    ],
)
def test_a_git_requirement_without_a_name_is_dropped_by_its_projects_name(line: str) -> None:
    found = needs(f"{line}\nidna\n", frozenset({"cstr"}))
    assert ([need.text for need in found.requirements], found.unusable) == (["idna"], ())


def test_a_git_requirement_with_a_name_is_not_dropped_by_its_repositorys() -> None:
    assert len(needs("a @ git+https://github.com/o/cstr\n", frozenset({"cstr"})).requirements) == 1


def test_an_override_stands_in_the_place_of_an_address_without_a_name() -> None:
    asked = needs("git+https://x.org/o/A_b.git@main ; python_version > '3'\ngit+https://x.org/o/c\nidna\n")
    overridden = apply_overrides(asked, ["a.b==1.2", "idna==3"])
    assert [(need.name, need.text) for need in overridden.requirements] == [
        ("a-b", "a-b ; python_version > '3'"),
        (None, "git+https://x.org/o/c"),
        ("idna", "idna"),
    ]


def test_versions_without_a_comma_are_read_and_said() -> None:
    found = needs("numpy<1.24>=1.18\nscipy[x] >=1 !=1.5 ; python_version > '3'\n")
    assert [need.text for need in found.requirements] == [
        "numpy<1.24,>=1.18",
        'scipy[x]!=1.5,>=1; python_version > "3"',
    ]
    assert found.mended[0].endswith("numpy<1.24>=1.18 lacks a comma, so it is read as numpy<1.24,>=1.18")
    assert needs("numpy<1.24>=1.18", frozenset({"numpy"})).ignored == (
        "the node N (requirements.txt, line 1): numpy<1.24,>=1.18",
    )
    assert needs("<<<<<<< HEAD\n=======\nx>=\n").unusable != ()
