"""The programs we call: processes, git, uv."""
