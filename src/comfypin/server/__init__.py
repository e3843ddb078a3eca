"""Jobs over HTTP: the Runpod endpoint API, workflows as endpoints, auth and the page."""
