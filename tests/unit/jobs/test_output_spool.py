"""Outputs on this machine, measured: in order, each with its own digest, whatever their number and size."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from comfypin.digest import Digest
from comfypin.engine.interface import EngineOutput
from comfypin.jobs.output_spool import Spool, WantedOutput, collect_outputs
from comfypin.outputs.errors import OutputUnreadable
from tests.support.payloads import noise

MIB = 1 << 20


def wanted_of(path: Path, *, by_http: bool = False) -> WantedOutput:
    async def read() -> AsyncIterator[bytes]:
        yield path.read_bytes()

    found = EngineOutput(
        node_id="9",
        key="images",
        filename=path.name,
        subfolder="",
        folder="output",
        read=read,
        path=None if by_http else path,
    )
    return WantedOutput(engine_output=found, filename=path.name, subfolder="")


@pytest.mark.parametrize("sizes", [[0], [5], [5 * MIB], [9 * MIB + 1], [4 * MIB], [100] * 70, [3, 2 * MIB, 1, 0] * 10])
async def test_every_output_has_its_own_digest_in_order(tmp_path: Path, sizes: list[int]) -> None:
    paths = [tmp_path / f"{number:03}.bin" for number in range(len(sizes))]
    for number, (path, size) in enumerate(zip(paths, sizes, strict=True)):
        path.write_bytes(noise(size, seed=number) if size < MIB else bytes([number]) * size)
    # Every third one comes from an engine elsewhere.
    wanted = [wanted_of(path, by_http=number % 3 == 2) for number, path in enumerate(paths)]
    spool = Spool(tmp_path)
    outputs = await collect_outputs(wanted, spool)
    assert [output.sha256 for output in outputs] == [Digest.of_file(path) for path in paths]
    assert [(output.index, output.size_bytes) for output in outputs] == list(enumerate(sizes))
    spool.remove_files()


@pytest.mark.parametrize("count", [1, 40])
async def test_an_output_that_is_gone_is_named(tmp_path: Path, count: int) -> None:
    paths = [tmp_path / f"{number:03}.png" for number in range(count)]
    for path in paths[:-1]:
        path.write_bytes(b"x")
    with pytest.raises(OutputUnreadable, match=paths[-1].name):
        await collect_outputs([wanted_of(path) for path in paths], Spool(tmp_path))


async def test_nothing_wanted_is_nothing_brought(tmp_path: Path) -> None:
    assert await collect_outputs([], Spool(tmp_path)) == ()
