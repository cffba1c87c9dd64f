"""The web application: its addresses, and how each kind of trouble is answered."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import tempfile
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import ValidationError
from starlette.requests import ClientDisconnect

from vidadapt.console import printable
from vidadapt.serving.server.answers import Answer, Health, Known, OnDisk, Problem
from vidadapt.serving.server.service import Forbidden, Service
from vidadapt.video import ReadError

TURNED_AWAY = "as many videos as this server takes at once are in hand; try again in a second"
PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "the video cannot be read"},
    403: {"model": Problem, "description": "the path may not be opened"},
    404: {"model": Problem, "description": "no such adapter or file"},
    408: {"model": Problem, "description": "the request did not arrive in time"},
    413: {"model": Problem, "description": "the request is too large"},
    422: {"model": Problem, "description": "a part of the request is not as it should be"},
    429: {"model": Problem, "description": "too many requests at once"},
    500: {"model": Problem, "description": "a fault of the server"},
}
A_VIDEO = {
    "requestBody": {
        "required": True,
        "description": "the file's bytes, as they are",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}
A_PATH = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": OnDisk.model_json_schema()}},
    }
}
MOST_OF_A_PATH = 100_000  # bytes of a request that names a video
# The page and what it asks for come from here, and videos that it shows from the visitor's disk.
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "connect-src 'self'; media-src blob:; img-src data:; frame-ancestors 'none'"
)

Names = Annotated[
    list[str],
    Query(
        alias="adapter",
        default_factory=list,
        description="may be given several times; none: all",
    ),
]
Top = Annotated[int, Query(ge=1, description="how many labels")]


def make_app(service: Service, page: str) -> FastAPI:
    """Make the application.

    Args:
        service: what it offers; closed when the application ends.
        page: the web page, HTML.
    """

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.close)

    app = FastAPI(
        title="vidadapt",
        description="Say what trained adapters see in videos.",
        version=version("vidadapt"),
        lifespan=lifespan,
        docs_url=None,  # these pages load scripts from other servers
        redoc_url=None,
    )

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def show_page() -> HTMLResponse:
        return HTMLResponse(page, headers={"Content-Security-Policy": POLICY})

    @app.get("/health")
    async def tell_health() -> Health:
        """Say whether requests are taken."""
        busy = service.in_hand >= service.limits.requests
        return Health(
            status="busy" if busy else "ok",
            adapters=service.predictor.names,
            in_hand=service.in_hand,
            limit=service.limits.requests,
        )

    @app.get("/metrics", include_in_schema=False)
    async def tell_figures() -> Response:
        return Response(service.figures.text(), media_type="text/plain; version=0.0.4")

    @app.get("/adapters")
    async def list_adapters() -> list[Known]:
        """Describe the adapters that are served."""
        return service.known()

    @app.post("/predict", responses=PROBLEMS, openapi_extra=A_VIDEO)
    async def predict(request: Request, adapters: Names, top: Top = 5) -> Answer:
        """Say what adapters see in the video that the body holds."""
        return await _answered(
            service, request, lambda: _of_upload(service, request, adapters, top)
        )

    @app.post("/predict/path", responses=PROBLEMS, openapi_extra=A_PATH)
    async def predict_path(request: Request) -> Answer:
        """Say what adapters see in a video below the server's root."""
        return await _answered(service, request, lambda: _of_path(service, request))

    @app.exception_handler(RequestValidationError)
    async def refuse(_: Request, error: RequestValidationError) -> JSONResponse:
        service.figures.requests.labels("refused").inc()
        return JSONResponse({"detail": _in_words(error.errors())}, 422)

    return app


async def _answered(
    service: Service, request: Request, work: Callable[[], Awaitable[Answer]]
) -> Answer:
    """Do the work of a request, unless too many are in hand; count how it ends.

    Raises:
        HTTPException: it cannot be answered.
    """
    began, figures = time.monotonic(), service.figures
    outcome = "failed"
    try:
        if service.in_hand >= service.limits.requests:
            outcome = "turned_away"
            await _pass_over(service, request)
            raise HTTPException(429, TURNED_AWAY, {"Retry-After": "1"})
        service.in_hand += 1
        try:
            answer = await work()
        finally:
            service.in_hand -= 1
        outcome = "answered"
        answer.seconds = time.monotonic() - began
        figures.seconds.observe(answer.seconds)
        return answer
    except ClientDisconnect:
        outcome = "given_up"
        raise HTTPException(400, "the connection ended before the video") from None
    except ReadError as error:
        outcome = "unreadable"
        raise HTTPException(400, str(error)) from None
    except HTTPException as error:
        outcome = "turned_away" if error.status_code == 429 else "refused"
        raise
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        raise HTTPException(500, f"{type(error).__name__}; the server's log says more") from None
    finally:
        figures.requests.labels(outcome).inc()


async def _of_path(service: Service, request: Request) -> Answer:
    body = bytearray()
    await _receive(service, request, MOST_OF_A_PATH, body.extend)
    try:
        wanted = OnDisk.model_validate(json.loads(body))
    except ValidationError as error:
        raise HTTPException(422, _in_words(error.errors())) from None
    except (ValueError, RecursionError):
        raise HTTPException(422, "the body: no JSON") from None
    names = _named(service, wanted.adapters)
    try:
        file = service.below_root(wanted.path)
    except Forbidden as error:
        raise HTTPException(403, str(error)) from None
    except FileNotFoundError as error:
        raise HTTPException(404, str(error)) from None
    seen, remarks = await service.recognise(file, names, wanted.top)
    return Answer(predictions=seen, warnings=remarks, seconds=0.0)


async def _of_upload(service: Service, request: Request, adapters: list[str], top: int) -> Answer:
    names = _named(service, adapters)
    if request.headers.get("content-type", "").startswith("multipart/"):
        raise HTTPException(400, "a form; send the video's bytes alone, e.g. curl --data-binary")
    with _scratch_file() as file:
        with file.open("wb") as out:
            await _receive(service, request, service.limits.upload, out.write)
        seen, remarks = await service.recognise(str(file), names, top)
    return Answer(predictions=seen, warnings=remarks, seconds=0.0)


def _named(service: Service, names: list[str]) -> list[str]:
    try:
        return service.named(names)
    except KeyError as error:
        raise HTTPException(404, str(error.args[0])) from None


@contextlib.contextmanager
def _scratch_file() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="vidadapt_serve_") as folder:
        yield Path(folder) / "video"


async def _receive(
    service: Service, request: Request, most: int, keep: Callable[[bytes], object]
) -> None:
    """Read the body of a request, at most so many bytes.

    Raises:
        HTTPException: it is too large, or does not come in time.
        ClientDisconnect: it does not come to its end.
    """
    size = 0
    too_large = HTTPException(
        413, f"the request has more than {most:,} bytes, which this server takes"
    )
    told = request.headers.get("content-length", "")
    if told.isdigit() and int(told) > most:
        raise too_large
    try:
        async with asyncio.timeout(service.limits.seconds):
            async for chunk in request.stream():
                size += len(chunk)
                if size > most:
                    raise too_large
                keep(chunk)
    except TimeoutError:
        said = f"the request did not arrive within {service.limits.seconds:g} s"
        raise HTTPException(408, said) from None


def _in_words(errors: Sequence[Any]) -> str:
    """Say what is wrong with parts of a request; what they hold is not repeated."""
    said = (f"{'.'.join(map(str, one['loc'])) or 'the body'}: {one['msg']}" for one in errors)
    return printable("; ".join(said))


async def _pass_over(service: Service, request: Request) -> None:
    """Read a body that nobody wants: a client that is still sending would miss the answer."""
    left = service.limits.upload
    with contextlib.suppress(TimeoutError, ClientDisconnect):
        async with asyncio.timeout(service.limits.seconds):
            async for chunk in request.stream():
                left -= len(chunk)
                if left < 0:
                    return
