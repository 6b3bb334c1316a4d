"""Asking an https server: redirects that stay on https, certificates that hold, and what each refusal means."""

from __future__ import annotations

import http.client
import os
import socket
import ssl
import urllib.request
from collections.abc import Mapping
from contextlib import closing
from http import HTTPStatus
from typing import Any, NoReturn
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from topwork.errors import InputError, TopworkError

_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}


class Broken(Exception):
    """An attempt failed in a way that another may not; caught by who asked. `wait_s`: as the server wishes."""

    def __init__(self, reason: str, wait_s: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class WrongRange(Broken):
    """The server has no such piece of the file, or sends another: the next attempt must begin at the beginning."""


def ask(url: str, headers: Mapping[str, str], *, shown: str, timeout_s: float) -> http.client.HTTPResponse:
    """The server's answer to GET, once all redirects are followed; its status is one that isn't an error.

    Certificates are checked against those of the system, or of `SSL_CERT_FILE`. The proxy that the environment
    names (`https_proxy`, `no_proxy`) is used.

    Raises:
        Broken: it may go better a second time.
        InputError: no such file, not allowed, or a redirect away from https.
        TopworkError: any other refusal; no such host; no TLS; a certificate that can't be trusted.
    """
    request = urllib.request.Request(url, headers={**headers, "Accept-Encoding": "identity"})
    try:
        answer: http.client.HTTPResponse = _opener().open(request, timeout=timeout_s)
    except HTTPError as error:
        with closing(error):
            _raise_for_status(error, shown)
    except URLError as error:
        _raise_for_network(error.reason, shown)
    except (OSError, http.client.HTTPException) as error:
        _raise_for_network(error, shown)
    except InputError:
        raise
    except ValueError as error:  # a redirect to what is no address
        raise TopworkError(f"{shown}: expected an address that can be asked; {error}") from error
    return answer


def reason_of(error: object) -> str:
    """Why the network failed, in words."""
    if isinstance(error, TimeoutError):
        return "the server did not answer in time"
    if isinstance(error, ssl.SSLError):
        return "the connection broke off"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return str(error) or type(error).__name__


class _OnlyHttps(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: str) -> Any:
        if urlsplit(newurl).scheme != "https":
            fp.close()
            raise InputError(
                f"{req.full_url} redirects to {newurl}: expected https all the way, for on any other way the file "
                "could be exchanged. Ask for the https address of the file"
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    """Opens https addresses and no others: it has no handler for http, ftp or file."""
    from importlib.metadata import version

    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPSHandler(context=ssl.create_default_context()),
        urllib.request.UnknownHandler(),
        _OnlyHttps(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    opener.addheaders = [("User-Agent", f"topwork/{version('topwork')}")]
    return opener


def _raise_for_status(error: HTTPError, shown: str) -> NoReturn:
    code, said = error.code, " ".join(str(error.reason).split())
    if code in _TRANSIENT:
        wait = error.headers.get("Retry-After", "").strip()
        raise Broken(f"the server answered {code} {said}", float(wait) if wait.isdecimal() else 0.0)
    if code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        raise WrongRange("the server has no such piece of the file")
    if code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        raise InputError(
            f"{shown}: the server refuses it ({code} {said}). If it asks for an account, fetch the file by hand and "
            "give its path, or use a handle that signs in (kaggle:…, hf:…)"
        )
    if code in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
        raise InputError(f"{shown}: there is no such file ({code} {said}); check the address and its version")
    if 300 <= code < 400:
        raise TopworkError(f"{shown}: expected a redirect that leads somewhere; got {code}: {said}")
    raise TopworkError(f"{shown}: expected the file; the server answered {code} {said}")


def _raise_for_network(reason: object, shown: str) -> NoReturn:
    host = urlsplit(shown).hostname
    if isinstance(reason, ssl.SSLCertVerificationError):
        raise TopworkError(
            f"{shown}: the certificate of {host} can't be trusted ({reason.verify_message}). Behind a company's "
            "proxy, or where Python finds no certificates, set SSL_CERT_FILE to a file that holds them"
        )
    if isinstance(reason, ssl.SSLError) and not isinstance(reason, ssl.SSLEOFError):
        raise TopworkError(f"{shown}: expected a server that speaks TLS; {reason.reason or reason}")
    if isinstance(reason, socket.gaierror):
        raise TopworkError(
            f"{shown}: can't find {host} ({reason.strerror}). Is this computer online? A module that was fetched "
            "before needs no network"
        )
    raise Broken(reason_of(reason))
