"""`apn serve`."""

from typing import Annotated

import typer

from apn.commands.options import BackendOption, CalibrationOption, DeviceOption, Weights


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 chooses a free one.")] = 8000,
    token: Annotated[
        str | None, typer.Option(envvar="APN_TOKEN", help="Bearer token that requests must carry.")
    ] = None,
    insecure: Annotated[bool, typer.Option(help="Allow other machines without a token.")] = False,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="limit=value, see docs/server.md; repeatable.")
    ] = None,
    weights: Weights = "apn-mini",
    backend: BackendOption = "auto",
    device: DeviceOption = "cpu",
    calibration: CalibrationOption = None,
) -> None:
    """Serve detection over REST, with a web page at /."""
    from apn.backends import find_weights
    from apn.config import apply_overrides, validate
    from apn.detector import load
    from apn.server import ServerSettings
    from apn.server import serve as run
    from apn.server.explainer import LazyExplainer, missing_for_explanations

    values = apply_overrides({"host": host, "port": port, "token": token, "insecure": insecure}, overrides or ())
    settings = validate(ServerSettings, values, "server settings")
    detector, folder = load(weights, backend=backend, device=device, calibration=calibration), find_weights(weights)
    run(detector, settings, missing_for_explanations(folder) or LazyExplainer(folder, detector))
