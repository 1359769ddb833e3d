"""Signing in and out of the console."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qs

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from millpond.access.store import SESSION_LIFE, AccessStore
from millpond.console.rendering import page
from millpond.server.guard import is_own_page

_NOT_VALID = "This address has been used already, or is older than ten minutes."


@dataclass(frozen=True)
class Login:
    """The login page. A one-time code in its address, or an access token typed in, opens a browser session.

    Attributes:
        access: Codes, tokens and sessions.
        cookie: Name of the session cookie.
    """

    access: AccessStore
    cookie: str

    def routes(self) -> list[Route]:
        return [
            Route("/login", self.show, methods=["GET"], name="login"),
            Route("/login", self.sign_in, methods=["POST"], name="sign_in"),
            Route("/logout", self.sign_out, methods=["POST"], name="sign_out"),
        ]

    async def show(self, request: Request) -> Response:
        """The page; or, for an address with a code that the user opened, straight on to the console."""
        code, onward = request.query_params.get("code", ""), local_path(request.query_params.get("next", "/"))
        if not code:
            return page(request, "login.html", next=onward)
        if "prefetch" in request.headers.get("sec-purpose", "") + request.headers.get("purpose", ""):
            return Response(status_code=204)
        if request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            return page(request, "login.html", next=onward, code=code)  # a link from elsewhere: the user decides
        return await self._redeem(request, code, onward)

    async def sign_in(self, request: Request) -> Response:
        form = parse_qs((await request.body()).decode("utf-8", "replace"))
        onward = local_path(form.get("next", ["/"])[0])
        if not is_own_page(request.scope):
            problem = "The form was sent from another site's page."
            return page(request, "login.html", 403, next=onward, problem=problem)
        if code := form.get("code", [""])[0].strip():
            return await self._redeem(request, code, onward)
        token = form.get("token", [""])[0].strip()
        identity = await run_in_threadpool(self.access.authenticate_token, token) if token else None
        if identity is None:
            problem = "This access token is not valid." if token else "Enter an access token."
            return page(request, "login.html", 401, next=onward, problem=problem)
        session = await run_in_threadpool(self.access.open_session, identity.name)
        return await self._enter(request, identity.name, session, onward, "access token")

    async def sign_out(self, request: Request) -> Response:
        session = request.cookies.get(self.cookie)
        if session:
            await run_in_threadpool(self.access.revoke_session, session)
        response = RedirectResponse("/login", status_code=303)
        response.delete_cookie(self.cookie, path="/")
        return response

    async def _redeem(self, request: Request, code: str, onward: str) -> Response:
        redeemed = await run_in_threadpool(self.access.redeem_login_code, code)
        if redeemed is None:
            return page(request, "login.html", 401, next=onward, problem=_NOT_VALID)
        identity, session = redeemed
        return await self._enter(request, identity.name, session, onward, "one-time address")

    async def _enter(self, request: Request, name: str, session: str, onward: str, means: str) -> Response:
        await run_in_threadpool(self.access.audit.append, name, "sign in", name, "", {"with": means})
        response = RedirectResponse(onward, status_code=303)
        seconds = int(SESSION_LIFE.total_seconds())
        secure = request.url.scheme == "https"
        response.set_cookie(self.cookie, session, seconds, path="/", secure=secure, httponly=True, samesite="lax")
        return response


def local_path(text: str) -> str:
    """`text` where it is a path of this server, else "/"."""
    safe = text.startswith("/") and not text.startswith(("//", "/\\")) and text.isprintable()
    return text if safe else "/"
