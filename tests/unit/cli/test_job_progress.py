"""How far a job that runs elsewhere is, in words."""

from comfypin.cli.job_progress import describe_progress
from comfypin.client.interface import RemoteProgress


def test_a_node_has_no_percent_as_long_as_nothing_is_done_that_counts() -> None:
    assert describe_progress(RemoteProgress(fraction=0.0, node_title="EmptyImage")) == "EmptyImage"
    sampler = RemoteProgress(fraction=0.5, node_title="KSampler", step=10, steps=20)
    assert describe_progress(sampler).strip() == "50%  KSampler 10/20"
    assert describe_progress(RemoteProgress(fraction=0.0)) == ""
