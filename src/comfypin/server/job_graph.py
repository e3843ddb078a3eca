"""The workflow of a job as a file that ComfyUI's own page opens: with what the job set in it and what was drawn."""

from urllib.parse import quote

from fastapi import APIRouter
from starlette.responses import Response

from comfypin.server.ran_workflow import read_ran_workflow
from comfypin.server.responses import JsonResponse, failure_response
from comfypin.server.server_state import Site


def job_graph_routes(site: Site) -> APIRouter:
    """Return the route."""
    routes = APIRouter(tags=["jobs"])

    @routes.get("/jobs/{job_id}/workflow", summary="The workflow that a job ran, for ComfyUI's page to open")
    async def workflow(job_id: str) -> Response:
        graph = await read_ran_workflow(site, job_id)
        if graph is None:
            return failure_response(404, "The workflow was not kept: it is large, or came with secrets.")
        file_name = f"workflow-{job_id[:8]}.json"
        return JsonResponse(
            dict(graph), headers={"Content-Disposition": f"attachment; filename*=UTF-8''{quote(file_name, safe='')}"}
        )

    return routes
