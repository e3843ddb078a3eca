"""The fraction of a prompt: it follows the heavy nodes, and never goes back."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from comfypin.engine.interface import EngineEvent, NodeFinished, NodeProgress, NodeStarted, Queued, Started
from comfypin.engine.progress import PromptProgress, estimate_weight
from tests.support.graphs import graph, node

SCENE = graph(
    node("1", "CheckpointLoaderSimple", ckpt_name="x"),
    node("2", "CLIPTextEncode", text="x"),
    node("3", "KSampler", steps=20),
    node("4", "VAEDecode"),
    node("5", "SaveImage"),
)
IDS = st.sampled_from([*SCENE.nodes, "unknown"])
EVENTS = st.one_of(
    st.builds(NodeStarted, node_id=IDS, at_s=st.just(0.0)),
    st.builds(NodeFinished, node_id=IDS, at_s=st.just(0.0)),
    st.builds(NodeProgress, node_id=IDS, value=st.floats(-1, 60), maximum=st.floats(-1, 50)),
    st.builds(Started, cached=st.frozensets(IDS)),
    st.builds(Queued, ahead=st.integers(0, 3)),
)


@given(st.lists(EVENTS, max_size=60))
def test_it_never_goes_back_and_stays_between_0_and_1(events: list[EngineEvent]) -> None:
    progress = PromptProgress(SCENE)
    fractions = [progress.apply_event(event) for event in events]
    assert all(earlier <= later for earlier, later in itertools.pairwise(fractions))
    assert all(0 <= fraction < 1 for fraction in fractions)


def test_a_sampler_weighs_more_than_all_the_light_nodes() -> None:
    weights = {each.class_type: estimate_weight(each) for each in SCENE.nodes.values()}
    assert weights["KSampler"] > sum(weights.values()) / 2


def test_more_steps_weigh_more() -> None:
    assert estimate_weight(node("1", "KSampler", steps=40)) == 2 * estimate_weight(node("1", "KSampler", steps=20))


def test_choosing_a_sampler_costs_nothing() -> None:
    assert estimate_weight(node("1", "KSamplerSelect")) == estimate_weight(node("2", "SaveImage"))


def test_half_the_steps_are_about_half_of_the_sampler() -> None:
    alone = PromptProgress(graph(node("3", "KSampler", steps=20)))
    assert alone.apply_event(NodeProgress(node_id="3", value=10, maximum=20)) == 0.5


def test_cached_nodes_do_not_count() -> None:
    progress = PromptProgress(SCENE)
    progress.apply_event(Started(cached=frozenset({"1", "2", "3", "4"})))
    assert progress.apply_event(NodeStarted(node_id="5", at_s=0.0)) == 0.0
    assert progress.apply_event(NodeFinished(node_id="5", at_s=0.0)) == 0.99


def test_only_the_end_is_the_whole() -> None:
    progress = PromptProgress(SCENE)
    for node_id in SCENE.nodes:
        progress.apply_event(NodeFinished(node_id=node_id, at_s=0.0))
    assert progress.fraction == 0.99
    assert progress.mark_finished() == 1.0
