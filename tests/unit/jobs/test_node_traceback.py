"""Where a node failed: frames as its author knows them, and nothing of the machine."""

from comfypin.engine.errors import NodeFailed
from comfypin.jobs.node_traceback import show_traceback
from comfypin.jobs.result_json import failure_to_json

FRAMES = (
    '  File "/opt/comfy/envs/3f/ComfyUI/execution.py", line 510, in execute\n    output = await get()\n',
    '  File "/srv/x/ComfyUI/custom_nodes/pack/nodes.py", line 3, in run\n    open("/home/u/secret/model.bin")',
    '  File "/opt/v/lib/python3.12/site-packages/torch/nn/modules/module.py", line 9, in f\n',
    '  File "C:\\ComfyUI\\nodes.py", line 1, in g\n',
    '  File "/usr/lib/python3.12/json/decoder.py", line 2, in h\n',
)


def test_frames_keep_what_their_author_knows_and_no_folder_of_the_machine() -> None:
    shown = show_traceback(FRAMES)
    for part in ("ComfyUI/execution.py", "custom_nodes/pack/nodes.py", "torch/nn/modules/module.py", '"decoder.py"'):
        assert part in shown
    for part in ("/opt", "/srv", "/home", "C:", "/usr"):
        assert part not in shown
    assert shown.count("\n") == 7
    assert "line 510, in execute" in shown


def test_of_a_long_traceback_the_end_is_kept() -> None:
    shown = show_traceback([*("x" * 1000 for _ in range(100)), "the failure"])
    assert len(shown) <= 16_000
    assert shown.endswith("the failure\n")


def test_a_result_has_it_only_if_the_engine_told_it() -> None:
    told = NodeFailed(node_id="1", class_type="A", exception_type="E", message="m", traceback=FRAMES)
    assert "execution.py" in str(failure_to_json(told)["error_traceback"])
    untold = NodeFailed(node_id="1", class_type="A", exception_type="E", message="m")
    assert "error_traceback" not in failure_to_json(untold)


def test_what_a_node_says_names_no_folder_of_the_machine() -> None:
    said = (
        "[Errno 36] File name too long: '/tmp/engine-x/output/a.png' "
        "(see /opt/ComfyUI/models/vae/b.pt and 16/9, https://a/b/c)"
    )
    failure = NodeFailed(node_id="1", class_type="A", exception_type="OSError", message=said)
    document = failure_to_json(failure)
    shown = (
        "Node 1 (A) failed: OSError: [Errno 36] File name too long: 'a.png' "
        "(see ComfyUI/models/vae/b.pt and 16/9, https://a/b/c)"
    )
    assert (document["error"], document["errors"], document["details"]) == (shown, [shown], [shown])
    # Commands run on the user's own machine, and say all of it.
    assert "/tmp/engine-x/output" in failure.message
