"""Jobs over HTTP: the RunPod endpoint API, workflows as endpoints, auth and the page."""
