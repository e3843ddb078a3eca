"""The lock as RunPod templates, endpoints, pods and volumes."""
