"""The interface: predictions and explanations over HTTP, the page that uses it, and what a supervisor asks.

    POST /predict?bundle=&shown=&partial=              probabilities, decision, windows of recordings
    POST /explain?bundle=&target=&window=&numbers=     the map of one class over the picture or along the trace
    GET  /version  /health  /ready  /metrics  /openapi.json
    GET  /examples/BUNDLE/NAME                         an example of the study that travels with the bundle
    GET  /  /page.css  /page.js                        the page

The body of a POST is multipart/form-data with files, JSON {"items": [{"name", "data": base64}]}, or one file as it is (`?name=`
says what it is called). An error is {"error": one sentence}.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import asdict
from importlib import resources
from typing import Annotated, Any, TypeVar

import numpy as np
import torch
from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

import phoropter
from phoropter.core.cpu_count import count_usable_cores
from phoropter.core.errors import PhoropterError, join_words
from phoropter.deploy.explain.explain import ExplainOptions, explain_dataset
from phoropter.deploy.explain.explanation import Explanation
from phoropter.deploy.predictions import BundlePredictions
from phoropter.deploy.serve import answers
from phoropter.deploy.serve.batching import MicroBatcher
from phoropter.deploy.serve.guard import PAGE_PATHS
from phoropter.deploy.serve.limits import DecodedLedger, DecodedShare, RequestRefused, ServeLimits
from phoropter.deploy.serve.meters import ServeMeters
from phoropter.deploy.serve.prepare import PreparedInput, prepare_inputs, show_upload_name
from phoropter.deploy.serve.served_bundle import ServedBundle, describe_served_bundle
from phoropter.deploy.serve.uploads import KINDS_OF_BODY, read_uploads

Answer = TypeVar("Answer")
_PAGE_FILES = dict(
    zip(PAGE_PATHS, (("page.html", "text/html"), ("page.css", "text/css"), ("page.js", "text/javascript")), strict=True)
)
_REFUSALS = {400: "an unsound body", 401: "no token", 403: "another host or origin", 404: "nothing there", 408: "too slow"}
_REFUSALS |= {
    413: "too large",
    415: "another kind of body",
    422: "files that cannot be used",
    429: "too many requests",
    503: "too long",
}
_BundleName = Annotated[str | None, Query(description="A bundle by its name, where several are served", max_length=200)]


class ServeService:
    """The bundles, the thread that computes them, and the limits. device: where the bundles are"""

    def __init__(self, bundles: Sequence[ServedBundle], limits: ServeLimits, device: torch.device) -> None:
        self.bundles = {bundle.name: bundle for bundle in bundles}
        self.limits, self.device, self.meters = limits, device, ServeMeters()
        self.batcher = MicroBatcher(limits.batch_rows, limits.batch_wait_ms / 1000, self.meters.count_batch)
        self.decoded = DecodedLedger(limits)
        self._threads = ThreadPoolExecutor(count_usable_cores(), thread_name_prefix="prepare")

    def find_bundle(self, name: str | None) -> ServedBundle:
        """Raises RequestRefused for an unknown name, and for none where there are several."""
        if name is None and len(self.bundles) == 1:
            return next(iter(self.bundles.values()))
        if name is None:
            raise RequestRefused(422, f"several bundles are served; say ?bundle={join_words(self.bundles)}")
        if name not in self.bundles:
            raise RequestRefused(404, f"there is no bundle of this name; expected {join_words(self.bundles)}")
        return self.bundles[name]

    async def run_prepared(self, function: Callable[[], Answer]) -> Answer:
        """In a thread: as many at once as there are cores. A request that is given up leaves one that has begun to its end."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, function)

    def start_threads(self) -> None:
        """Begins to compute."""
        self.batcher.start_thread()

    def stop_threads(self) -> None:
        """Ends after what is computed now."""
        self.batcher.stop_thread()
        self._threads.shutdown(wait=True, cancel_futures=True)

    async def prepare_request(
        self, request: Request, bundle: ServedBundle, partial: bool, share: DecodedShare
    ) -> list[PreparedInput]:
        """The files of a request, decoded. Raises RequestRefused where none can be used, unless `partial`."""
        with self.batcher.expect_squares():
            uploads = await read_uploads(request, self.limits)
            request.scope["phoropter.names"] = [show_upload_name(upload) for upload in uploads]
            prepared = await self.run_prepared(functools.partial(prepare_inputs, bundle, uploads, self.limits, share))
        request.scope["phoropter.names"] = [given.name for given in prepared]
        if not partial and not any(given.squares is not None for given in prepared):
            first = prepared[0].error
            raise RequestRefused(
                422, first if len(prepared) == 1 else f"none of the {len(prepared)} files can be used; the first: {first}"
            )
        return prepared

    async def predict_prepared(self, bundle: ServedBundle, given: PreparedInput) -> BundlePredictions | None:
        """None for an input that could not be used."""
        if given.squares is None:
            return None
        logits = await self.batcher.predict_squares(bundle.predict_squares, given.squares)
        return answers.collect_predictions(bundle, given, logits)

    async def explain_prepared(
        self, bundle: ServedBundle, given: PreparedInput, target: str | None, window: int | None, numbers: bool
    ) -> dict[str, Any]:
        """An ExplainedAnswer. Raises RequestRefused for a class or a window that is not there."""
        predictions = await self.predict_prepared(bundle, given)
        if predictions is None or given.dataset is None:
            return {"name": given.name, "error": given.error}
        row = answers.choose_window(predictions) if window is None else window
        if not 0 <= row < len(given.dataset):
            raise RequestRefused(422, f"window is {row}, and {given.name} has {len(given.dataset)}, counted from 0")
        options = ExplainOptions(target=target or int(answers.answer_all(predictions).argmax()), device=str(self.device))
        chosen = given.dataset.select_rows(np.array([row], dtype=np.int64))
        explained = await self.batcher.run_alone(lambda: next(explain_dataset(bundle.predictor, chosen, options)))
        assert isinstance(explained, Explanation), explained
        at = row if bundle.takes_recordings else None
        return await self.run_prepared(lambda: answers.describe_explanation(given.name, explained, at, numbers))


def create_application(service: ServeService) -> FastAPI:
    """The interface without its guard (guard.py)."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.start_threads()
        yield
        service.stop_threads()

    app = FastAPI(
        title="phoropter",
        summary="Predictions and explanations of a trained classifier.",
        version=phoropter.__version__,
        docs_url=None,  # both load scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
        separate_input_output_schemas=False,
    )
    _add_computing_routes(app, service)
    _add_state_routes(app, service)
    _add_page_routes(app, service)
    app.add_exception_handler(RequestRefused, _answer_refusal)
    app.add_exception_handler(PhoropterError, _answer_user_error)
    app.add_exception_handler(RequestValidationError, _answer_validation)
    app.add_exception_handler(HTTPException, _answer_http_error)
    app.add_exception_handler(Exception, _answer_fault)
    return app


def _add_computing_routes(app: FastAPI, service: ServeService) -> None:
    body = {"requestBody": {"required": True, "content": _describe_bodies()}}
    refusals: dict[int | str, dict[str, Any]] = {
        status: {"model": answers.ErrorAnswer, "description": words} for status, words in _REFUSALS.items()
    }

    @app.post("/predict", response_model=answers.PredictAnswer, responses=refusals, openapi_extra=body)
    async def predict_files(request: Request, bundle: _BundleName = None, shown: bool = False, partial: bool = False) -> Response:
        """The probabilities of each class, for pictures or recordings. shown: also what the network is shown, as PNG.

        partial: 200 with the errors of its items also where no file can be used, in place of 422
        """
        chosen = service.find_bundle(bundle)
        items: list[dict[str, Any]] = []
        notes: dict[str, None] = {}
        details: dict[str, None] = {}
        with service.decoded.open_share() as share:
            for given in await service.prepare_request(request, chosen, partial, share):
                predictions = await service.predict_prepared(chosen, given)
                items.append(answers.describe_item(chosen, given, predictions, shown))
                if predictions is not None:
                    details |= dict.fromkeys(predictions.dataset.notes)
                    notes |= dict.fromkeys(note for note in predictions.notes if note not in details)
        return JSONResponse({"bundle": chosen.name, "items": items, "notes": list(notes), "details": list(details)})

    @app.post("/explain", response_model=answers.ExplainAnswer, responses=refusals, openapi_extra=body)
    async def explain_files(
        request: Request,
        bundle: _BundleName = None,
        target: Annotated[str | None, Query(description="The class to explain; default: the likeliest", max_length=200)] = None,
        window: Annotated[
            int | None, Query(description="Of a recording; default: the one that speaks most for the class")
        ] = None,
        numbers: bool = False,
        partial: bool = False,
    ) -> Response:
        """Where the evidence for a class lies, for pictures or recordings. numbers: the map also as numbers from 0 to 1."""
        chosen = service.find_bundle(bundle)
        if target is not None and target not in chosen.predictor.classes:
            raise RequestRefused(422, f"target is no class of the bundle; expected {join_words(chosen.predictor.classes)}")
        with service.decoded.open_share() as share:
            prepared = await service.prepare_request(request, chosen, partial, share)
            items = [await service.explain_prepared(chosen, given, target, window, numbers) for given in prepared]
        return JSONResponse({"bundle": chosen.name, "items": items})


def _describe_bodies() -> dict[str, Any]:
    item = {"type": "object", "required": ["data"], "additionalProperties": False}
    item |= {"properties": {"name": {"type": "string"}, "data": {"type": "string", "contentEncoding": "base64"}}}
    shapes: dict[str, Any] = {
        "multipart/form-data": {
            "type": "object",
            "required": ["files"],
            "properties": {"files": {"type": "array", "minItems": 1, "items": {"type": "string", "format": "binary"}}},
        },
        "application/json": {
            "type": "object",
            "required": ["items"],
            "additionalProperties": False,
            "properties": {"items": {"type": "array", "minItems": 1, "items": item}},
        },
    }
    return {kind: {"schema": shapes.get(kind, {"type": "string", "format": "binary"})} for kind in KINDS_OF_BODY}


def _add_state_routes(app: FastAPI, service: ServeService) -> None:
    @app.get("/version", response_model=answers.VersionAnswer)
    async def tell_version() -> Response:
        """The version, the bundles with what their studies say of them, and the limits of requests."""
        bundles = [describe_served_bundle(bundle) for bundle in service.bundles.values()]
        return JSONResponse({"phoropter": phoropter.__version__, "bundles": bundles, "limits": asdict(service.limits)})

    @app.get("/health", response_model=answers.StateAnswer)
    async def tell_health() -> Response:
        """200 while the process answers."""
        return JSONResponse({"ready": service.batcher.is_running})

    @app.get("/ready", response_model=answers.StateAnswer, responses={503: {"model": answers.StateAnswer}})
    async def tell_ready() -> Response:
        """200 while requests are computed, else 503."""
        ready = service.batcher.is_running
        return JSONResponse({"ready": ready}, 200 if ready else 503)

    @app.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}})
    async def tell_metrics() -> Response:
        """Counters in the format of Prometheus."""
        return Response(service.meters.render_text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get(
        "/examples/{bundle}/{name}",
        response_class=Response,
        responses={
            200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}},
            404: {"model": answers.ErrorAnswer},
        },
    )
    async def send_example(bundle: str, name: str) -> Response:
        """An example of the study, as it lies in the bundle."""
        example = service.find_bundle(bundle).examples.get(name)
        if example is None:
            raise RequestRefused(404, "the bundle has no example of this name; /version lists them")
        return Response(await service.run_prepared(example.file.read_bytes), media_type="application/octet-stream")


def _add_page_routes(app: FastAPI, service: ServeService) -> None:
    for path, (name, kind) in _PAGE_FILES.items():
        content = resources.files("phoropter.deploy.serve").joinpath("page").joinpath(name).read_bytes()
        answer = functools.partial(Response, content, media_type=f"{kind}; charset=utf-8")
        app.add_api_route(path, _make_endpoint(answer), methods=["GET"], include_in_schema=False)


def _make_endpoint(answer: Callable[[], Response]) -> Callable[[], Any]:
    async def send_page_file() -> Response:
        return answer()

    return send_page_file


async def _answer_refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestRefused)
    return JSONResponse({"error": error.sentence}, error.status, error.headers)


async def _answer_user_error(request: Request, error: Exception) -> Response:
    """What a bundle cannot do (a SpecError) or a file that fails late; both are the request's."""
    return JSONResponse({"error": str(error)}, 422)


async def _answer_validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"][1:]) or "the request"
    return JSONResponse({"error": f"{where}: {first['msg'][:1].lower()}{first['msg'][1:]}"}, 422)


async def _answer_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    words = {404: "there is nothing at this address; /openapi.json lists what there is", 405: "this address takes another method"}
    return JSONResponse(
        {"error": words.get(error.status_code, "the request cannot be answered")}, error.status_code, error.headers
    )


async def _answer_fault(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": "a fault of the server; its log has the place"}, 500)
