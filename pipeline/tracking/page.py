"""MLflow's page, opened as a table of training runs: an app for `mlflow ui --app-name unfreeze`.

MLflow remembers in the browser whether it shows tools for language models or for trained models, and begins with the
former and an open assistant. Its server has no setting for that, so the page sets it before MLflow's own script runs,
unless the user has chosen already.
"""

import json
from pathlib import Path
from typing import Any

import mlflow.server
from fastapi.responses import HTMLResponse
from mlflow.server.fastapi_app import app
from starlette.requests import Request
from starlette.routing import Route

CHOICES = {
    "mlflow.workflowType_v1": "machine_learning",
    "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": True,
    "mlflow.settings.telemetry.enabled_v1": False,
    "mlflow.telemetry.info.alert.dismissed_v1": True,
}
"""What MLflow 3.17 keeps in the browser: its mode, that the assistant has been shown, and no word to its makers."""

_SCRIPT = """<script>
for (const [key, value] of Object.entries(%s)) localStorage.getItem(key) ?? localStorage.setItem(key, value);
</script>
<style>[data-assistant-ui] { display: none !important; }</style>"""


def create_app() -> Any:
    """Return MLflow's app, an ASGI app, with a changed first page."""
    index = Path(mlflow.server.__file__).parent / "js" / "build" / "index.html"
    html = open_as_table(index.read_text(encoding="utf-8"))

    async def first_page(_: Request) -> HTMLResponse:
        return HTMLResponse(html, headers={"Cache-Control": "no-cache"})

    app.router.routes.insert(0, Route("/", first_page))
    return app


def open_as_table(html: str) -> str:
    """Insert what makes MLflow's page open as a table of training runs. Raises ValueError where it has no `<head>`."""
    if "<head>" not in html:
        raise ValueError("MLflow's page has no <head>: this version of MLflow is not supported")
    script = _SCRIPT % json.dumps({key: json.dumps(value) for key, value in CHOICES.items()})
    return html.replace("<head>", f"<head>{script}", 1)
