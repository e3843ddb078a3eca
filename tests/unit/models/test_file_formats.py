"""Formats: a safetensors file is checked by its header and size; a pickle is found under any name."""

import io
import json
import os
import pickle
import tarfile
import zipfile
from pathlib import Path

import pytest

from comfypin.models.errors import NotSafetensors, PickleRefused
from comfypin.models.file_formats import format_problem, pickle_by_name, safetensors_problem
from tests.support.models import pin_of, safetensors


def written(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "file"
    path.write_bytes(data)
    return path


def torch_zip() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"a": 1}))
        archive.writestr("archive/data/0", b"0" * 100)
    return file.getvalue()


def torch_tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        entry = tarfile.TarInfo("pickle")
        entry.size = 3
        archive.addfile(entry, io.BytesIO(b"abc"))
    return file.getvalue()


def header_of(value: object, data: bytes = b"") -> bytes:
    header = json.dumps(value).encode()
    return len(header).to_bytes(8, "little") + header + data


def test_a_good_file_has_no_problem(tmp_path: Path) -> None:
    assert format_problem(written(tmp_path, safetensors(b"abc")), pin_of(b"")) is None


def test_metadata_is_no_tensor(tmp_path: Path) -> None:
    assert safetensors_problem(written(tmp_path, header_of({"__metadata__": {"a": "b"}}))) is None


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "only 0 bytes"),
        (b"<!doctype html><html>log in</html>", "web page"),
        (safetensors(b"abcdef")[:-1], "its header says"),
        (safetensors(b"abcdef") + b"x", "its header says"),
        ((200_000_000).to_bytes(8, "little") + b"{}", "header would be"),
        ((4).to_bytes(8, "little") + b"nope", "not JSON"),
        ((100_000).to_bytes(8, "little") + b"[" * 100_000, "not JSON"),
        ((2).to_bytes(8, "little") + b"[]", "not an object"),
        (header_of({"t": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, b"0000"), "do not fit its shape"),
        (header_of({"t": {"dtype": "U8", "shape": [-1], "data_offsets": [0, 1]}}, b"0"), "shape of 't'"),
        (header_of({"t": {"dtype": "U8", "shape": [1] * 65, "data_offsets": [0, 1]}}, b"0"), "shape of 't'"),
        (header_of({"t": {"dtype": "U8", "shape": [1], "data_offsets": [1, 2]}}, b"00"), "not contiguous"),
        (header_of({"t": 1}), "describes 't' wrongly"),
    ],
)
def test_what_is_wrong_with_a_safetensors_file_is_said(tmp_path: Path, data: bytes, says: str) -> None:
    problem = format_problem(written(tmp_path, data), pin_of(data))
    assert isinstance(problem, NotSafetensors)
    assert says in problem.message


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_pickle_in_disguise_is_refused(tmp_path: Path, protocol: int) -> None:
    path = written(tmp_path, pickle.dumps({"state_dict": [1, 2, 3]}, protocol=protocol))
    assert isinstance(format_problem(path, pin_of(b"")), PickleRefused)


@pytest.mark.parametrize("data", [torch_zip(), torch_tar()], ids=["zip", "tar"])
@pytest.mark.parametrize("name", ["x.safetensors", "x.gguf", "x"])
def test_an_archive_around_a_pickle_is_refused(tmp_path: Path, data: bytes, name: str) -> None:
    pin = pin_of(data, target=f"$MODELS_DIR/vae/{name}")
    assert isinstance(format_problem(written(tmp_path, data), pin), PickleRefused)


class Calls:
    def __reduce__(self) -> tuple[object, ...]:
        return print, ("run",)


@pytest.mark.parametrize("protocol", [0, 1])
@pytest.mark.parametrize("value", [Calls(), {"a": Calls()}, [1.5, None, {"state_dict": list(range(2000))}]])
@pytest.mark.parametrize("name", ["x.safetensors", "x.gguf", "x"])
def test_old_protocols_have_no_mark_and_are_found_too(tmp_path: Path, protocol: int, value: object, name: str) -> None:
    path = written(tmp_path, pickle.dumps(value, protocol=protocol))
    assert isinstance(format_problem(path, pin_of(b"", target=f"$MODELS_DIR/vae/{name}")), PickleRefused)


@pytest.mark.parametrize(
    "data",
    [b"N0cos\nsystem\n(S'id'\ntR.", b"]0}0)0(1cposix\nsystem\n(Vid\ntR.", b"(S'id'\nios\nsystem\n.",
     b"(cos\nsystem\nS'id'\no."],
)  # fmt: skip
def test_a_pickle_that_begins_harmlessly_is_found(tmp_path: Path, data: bytes) -> None:
    path = written(tmp_path, data + bytes(5000))
    assert isinstance(format_problem(path, pin_of(b"", target="$MODELS_DIR/vae/x.gguf")), PickleRefused)


@pytest.mark.parametrize("data", [b"N.N." * 4, b"N.cos\nsystem\n(S'id'\ntR.", b"\x80\x02N."])
def test_pickles_in_a_row_are_found(tmp_path: Path, data: bytes) -> None:
    path = written(tmp_path, data + bytes(5000))
    assert isinstance(format_problem(path, pin_of(b"", target="$MODELS_DIR/vae/x.gguf")), PickleRefused)


def test_a_file_that_is_nothing_but_a_pickle_is_one_however_short(tmp_path: Path) -> None:
    path = written(tmp_path, b"N.")
    assert isinstance(format_problem(path, pin_of(b"", target="$MODELS_DIR/vae/x.gguf")), PickleRefused)


@pytest.mark.parametrize("data", [b"N.", b"GGUF\x9c\x1d\x07\xe5\x42.", b"K\x01.", b"J/`\x11\x99."])
def test_what_is_a_few_opcodes_by_chance_is_no_pickle(tmp_path: Path, data: bytes) -> None:
    path = written(tmp_path, data + b"\xff" * 5000)
    assert format_problem(path, pin_of(b"", target="$MODELS_DIR/vae/x.gguf")) is None


class _Runs:
    def __reduce__(self) -> tuple[object, ...]:
        return os.getpid, ()


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("harmless", ["x" * 10_000, b"x" * 1_000_000, 2**200_000], ids=["text", "bytes", "number"])
def test_a_pickle_behind_something_long_is_found(tmp_path: Path, harmless: object, protocol: int) -> None:
    path = written(tmp_path, pickle.dumps([harmless, _Runs()], protocol))
    assert isinstance(format_problem(path, pin_of(b"", target="$MODELS_DIR/vae/x.gguf")), PickleRefused)


def test_a_pickle_at_the_end_of_an_archive_is_found(tmp_path: Path) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data/0", b"0" * 100_000)
        archive.writestr("archive/data.pkl", pickle.dumps({"a": 1}))
    path = written(tmp_path, file.getvalue())
    assert isinstance(format_problem(path, pin_of(b"", target="$MODELS_DIR/vae/x.gguf")), PickleRefused)


@pytest.mark.parametrize("length", [640, 896, 1152, 1408, 66_176])
def test_a_header_whose_length_looks_like_the_start_of_a_pickle_is_no_pickle(tmp_path: Path, length: int) -> None:
    tensor = {"t": {"dtype": "U8", "shape": [3], "data_offsets": [0, 3]}}
    header = json.dumps(tensor).encode().ljust(length)
    path = written(tmp_path, length.to_bytes(8, "little") + header + b"abc")
    assert format_problem(path, pin_of(b"")) is None
    assert format_problem(path, pin_of(b"", target="$MODELS_DIR/vae/x.sft2")) is None


@pytest.mark.parametrize(
    "data",
    [b"GGUF\x03\x00\x00\x00" + bytes(100), b"\x08\x07\x12\x07pytorch", b"(c) 2024 Somebody\nAll rights reserved\n",
     b"None\n", b'{"a": 1}', b"I am text\n", b"RIFF\x00\x00\x00\x00", b"\x89HDF\r\n\x1a\n", b"", b"."],
)  # fmt: skip
def test_other_files_are_no_pickles(tmp_path: Path, data: bytes) -> None:
    assert format_problem(written(tmp_path, data), pin_of(b"", target="$MODELS_DIR/vae/x.dat")) is None


@pytest.mark.parametrize("suffix", ["ckpt", "pt", "pth", "bin", "PTH"])
def test_a_pickle_is_refused_by_its_name_before_it_is_fetched(suffix: str) -> None:
    refusal = pickle_by_name(pin_of(b"", target=f"$MODELS_DIR/a/x.{suffix}"))
    assert refusal is not None
    assert "allow_pickle" in refusal.message


def test_a_pin_may_allow_its_pickle(tmp_path: Path) -> None:
    pin = pin_of(b"", target="$MODELS_DIR/a/x.pth", allow_pickle=True)
    assert format_problem(written(tmp_path, torch_zip()), pin) is None


def test_allowing_a_pickle_does_not_make_it_a_safetensors_file(tmp_path: Path) -> None:
    assert isinstance(format_problem(written(tmp_path, torch_zip()), pin_of(b"", allow_pickle=True)), NotSafetensors)
