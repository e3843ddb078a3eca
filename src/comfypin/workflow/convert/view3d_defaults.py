"""What the page sends for a 3D view: the camera of the file, or else the one that every view starts with."""

from collections.abc import Mapping

from comfypin.digest import JsonValue
from comfypin.workflow.convert.ui_graph import UiNode

VIEWPORT = "viewport_state"

# The page's camera before anybody moved it, as page 1.49.6 reports it.
_CAMERA: Mapping[str, JsonValue] = {
    "position": {"x": 10, "y": 10, "z": 10.000000000000002},
    "target": {"x": 0, "y": 0, "z": 0},
    "zoom": 1,
    "cameraType": "perspective",
    "quaternion": {
        "x": -0.2798481423331213,
        "y": 0.3647051996310008,
        "z": 0.11591689595929511,
        "w": 0.8804762392171493,
    },
    "fov": 35,
    "aspect": 1,
    "near": 0.01,
    "far": 10000,
    "frustum": {"left": -5, "right": 5, "top": 5, "bottom": -5},
}


def viewport_state(ui_node: UiNode) -> JsonValue:
    """Return the state of a node's 3D view. Only a browser that loads the model could tell more about it."""
    camera_config = ui_node.properties.get("Camera Config")
    camera_state = camera_config.get("state") if isinstance(camera_config, Mapping) else None
    camera: JsonValue = dict(camera_state) if isinstance(camera_state, Mapping) else dict(_CAMERA)
    if ui_node.type == "Load3DAdvanced":
        return {"camera_info": camera, "model_3d_info": []}
    return {"image": "", "mask": "", "normal": "", "camera_info": camera, "recording": "", "model_3d_info": []}
