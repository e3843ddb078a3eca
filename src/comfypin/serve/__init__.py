"""Jobs over RunPod Serverless and over HTTP."""
