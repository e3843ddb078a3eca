"""The benches still run: a few jobs each, whatever figures come out."""

import pytest

from bench.__main__ import BENCHES, Bench, BenchRun, describe_machine, render_page, run_bench

# What each must have printed, so that a bench that measures nothing is found.
WORDS = {
    "overhead": ["child process: one job", "by URL: one job", "comfypin --help"],
    "worker": ["pipelined / sequential", "the engine alone"],
    "coldstart": ["ours, cold: takes", "ours, warm: engine", "ours, warm: first job"],
    "api_overhead": ["bare engine", "/runsync", "/workflows/NAME", "/api/v2"],
    "followers": ["followers"],
    "fleet": ["1 workers", "idle workers", "waiting: NATS", "fleet status", "cancel of all"],
    "delivery": ["s3-many", "gcs-many", "comfypin"],
    "models": ["comfypin models pull", "curl"],
    "sync": ["close to confirmed", "ratio", "idle"],
    "realize": ["uv pip sync", "comfypin realize", "without starting ComfyUI"],
}


def _marks(bench: Bench) -> list[pytest.MarkDecorator]:
    return [pytest.mark.network] if bench.needs_network else []


@pytest.mark.parametrize("bench", [pytest.param(one, marks=_marks(one), id=one.name) for one in BENCHES])
@pytest.mark.timeout(400)
def test_a_bench_prints_its_figures(bench: Bench) -> None:
    ran = run_bench(bench, is_smoke=True)
    assert ran.worked, ran.printed[-3000:]
    assert [word for word in WORDS[bench.name] if word not in ran.printed] == [], ran.printed
    # A short run leaves cases out, never all of them: a row whose pattern has gone stale would be empty for ever.
    found = [row.what for row in bench.rows if row.figures(ran.printed)[0] is not None]
    assert len(found) >= min(len(bench.rows), 1), ran.printed


def test_a_row_of_the_table_holds_both_figures_and_their_ratio() -> None:
    printed = "child process: one job: bare 18.00 ms, comfypin 27.00 ms"
    run = BenchRun(bench=BENCHES[0], printed=printed, exit_code=0, load=99)
    english, russian = (render_page([run], "a machine", "2026-01-02", is_russian=one) for one in (False, True))
    assert "| 27 ms | the barest client | 18 ms | 1.50 | `bench.overhead` |" in english
    assert "| 27 мс | простейший клиент | 18 мс | 1.50 | `bench.overhead` |" in russian
    assert "load up to 99" in english


def test_the_page_holds_the_machine_the_command_and_the_figures_of_each_bench() -> None:
    run = BenchRun(bench=BENCHES[0], printed="a job 3.2 ms", exit_code=0, load=0.4)
    for is_russian in (False, True):
        page = render_page([run], describe_machine(), "2026-01-02", is_russian=is_russian)
        assert "2026-01-02" in page
        assert "comfypin 0." in page
        assert "`python -m bench.overhead`" in page
        assert "a job 3.2 ms" in page
