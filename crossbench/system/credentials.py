"""Credentials are replaced by `***` before anything is written: files, logs, MLflow, the terminal.

A credential is the user and password of a URI, the value of a key like `token`, `password` or
`X-Amz-Signature`, and what follows `Authorization:` or `Bearer`. A reference to the environment
(`${oc.env:TOKEN}`) is none. Of several readings of an ambiguous text, the one that hides more is
taken: `://u:a/b@db` may be a password with a slash, or a path with an at sign.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote, unquote

HIDDEN = "***"
_SHORTEST = 4  # characters of a secret that is searched for in any text
# A whole name, or its end behind a separator (not `cache_tokens`) or as in `authToken`
_WORD = (
    r"(?:token|pwd|api[_-]?key|access[_-]?key(?:[_-]?id)?|(?:private|secret)[_-]?key|authorization"
    r"|auth|credentials?|signature|sig)"
)
_SPECIAL_TOKENS = r"(?<!pad_)(?<!cls_)(?<!sep_)(?<!unk_)(?<!mask_)(?<!bos_)(?<!eos_)"
_KEY = (
    rf"(?:(?<![^\W_]){_SPECIAL_TOKENS}{_WORD}|(?-i:(?<=[a-z])(?:Token|ApiKey))"
    r"|(?:password|passwd|passphrase|secret|accesskeyid))"
)
_SECRET_KEY = re.compile(rf"(?i).*?{_KEY}", re.DOTALL)
_REFERENCE = re.compile(r"\$\{oc\.env:\w+\}|\$\{[\w.]+\}")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_BEFORE_QUOTE = re.compile(r"(\\+)(?=[\"'])")  # Hydra's only escapes
_ONE_URI = re.compile(r"\s*[\"']?[A-Za-z][\w+.-]*://")
_OVERRIDE = re.compile(r"([-+~]{0,2}[\w.@/-]+)=(.*)", re.DOTALL)
_USER = re.compile(r"(?<=://)\S*(?=@)")
_USER_OF_ONE_URI = re.compile(r"(?<=://).*(?=@)", re.DOTALL)
_USER_WITHOUT_SCHEME = re.compile(r"(?<![\w/@:.{])[\w.%+-]+:(?!/)[^\s@]+(?=@[\w\[])")
_PAIR = re.compile(
    rf"(?i)(?P<before>{_KEY}\s*=\s*)"
    r"(?P<value>\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'|\$\{[^\s}]*\}|[^\s&#]+?"
    r"(?=[\"')\]}]*(?:[\s&#]|$)))"
)
_ENTRY = re.compile(
    rf"(?i)(?P<before>(?P<q>[\"'])[\w.-]*?{_KEY}(?P=q)\s*:\s*)"
    r"(?P<value>\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'|[^\s,}]+)"
)
_HEADER = re.compile(
    r"(?i)(?P<before>\b(?:proxy-)?authorization\s*[:=]\s*(?:(?:bearer|basic|token|digest)\s+)?"
    r"|\bbearer\s+(?=\S{8}))(?P<value>[^\s,;\"']+)"
)


def is_secret_key(key: str) -> bool:
    """Return whether the values of a (dotted) key are secret: `server.token`, `X-Amz-Signature`."""
    return _SECRET_KEY.fullmatch(key.rsplit(".", 1)[-1]) is not None


def hide(text: str, *given: str) -> str:
    """Return `text` without the credentials that it shows by their form.

    Those of the texts in `given`, such as a URI from which `text` is made, are replaced wherever
    they are.
    """
    text = _hide_named(_without(text, _literals(given)))
    text = _USER.sub(_hidden_user, text)
    text = _USER_WITHOUT_SCHEME.sub(HIDDEN, text)
    return _hide_named(text)


def _hide_named(text: str) -> str:
    """Hide values by the names before them.

    Users are hidden between two calls: a password in a query may begin with the @ that ends a user,
    and a user may have the name of a key.
    """
    for pattern in (_HEADER, _PAIR, _ENTRY):
        text = pattern.sub(_hidden_value, text)
    return text


def hide_argument(argument: str) -> str:
    """Return an argument of a command (`KEY=VALUE`, or one value) without its credentials."""
    found = _OVERRIDE.fullmatch(argument)
    if found is None:
        return _hide_value(argument)
    key, value = found[1], found[2]
    if is_secret_key(key.lstrip("-+~")):
        return argument if _is_harmless(value) else f"{key}={HIDDEN}"
    return f"{key}={_hide_value(value)}"


def hide_config(node: Any, key: str = "", given: Iterable[str] = ()) -> Any:
    """Return a config (mappings, lists, values) without the credentials in it.

    `key` is that of the node. Values of secret keys are replaced as a whole, and the credentials of
    the texts in `given` wherever they are.
    """
    return _hidden_node(node, key, _literals(given))


def _hidden_node(node: Any, key: str, literals: Sequence[str]) -> Any:
    if isinstance(node, Mapping):
        return {name: _hidden_node(value, str(name), literals) for name, value in node.items()}
    if isinstance(node, list | tuple):
        return [_hidden_node(item, key, literals) for item in node]
    if is_secret_key(key) and not (node is None or _is_harmless(str(node))):
        return HIDDEN
    return hide_argument(_without(node, literals)) if isinstance(node, str) else node


def texts_with_credentials(node: Any, key: str = "") -> list[str]:
    """Return the values of a config that hold credentials, for `hide` and `hide_config`."""
    if isinstance(node, Mapping):
        items = [texts_with_credentials(value, str(name)) for name, value in node.items()]
    elif isinstance(node, list | tuple):
        items = [texts_with_credentials(item, key) for item in node]
    elif node == hide_config(node, key):
        return []
    else:
        return [f"{key.rsplit('.', 1)[-1]}={node}" if is_secret_key(key) else str(node)]
    return [text for item in items for text in item]


def _without(text: str, literals: Iterable[str]) -> str:
    for secret in literals:
        text = text.replace(secret, HIDDEN)
    return text


def _hide_value(value: str) -> str:
    """Hide in a value that may be a URI; its password may then have any character."""
    if _ONE_URI.match(value):
        value = _USER_OF_ONE_URI.sub(_hidden_user, _hide_named(value))
    return hide(value)


def _is_harmless(value: str) -> bool:
    """Whether a value is no secret itself: nothing, a boolean, hidden already, or a reference."""
    value = value.strip().strip("\"'")
    return value in ("", "null", "true", "false", "True", "False", HIDDEN) or bool(
        _REFERENCE.fullmatch(value)
    )


def _hidden_user(found: re.Match[str]) -> str:
    _, colon, password = found[0].partition(":")
    return found[0] if colon and _REFERENCE.fullmatch(password) else HIDDEN


def _hidden_value(found: re.Match[str]) -> str:
    return found[0] if _is_harmless(found["value"]) else f"{found['before']}{HIDDEN}"


def _literals(given: Iterable[str]) -> list[str]:
    """The secrets in these texts, in every spelling in which a program may show them."""
    spellings: set[str] = set()
    for text in given:
        by_hydra = _BEFORE_QUOTE.sub(lambda found: found[1][: len(found[1]) // 2], text)
        texts = (text, _ESCAPE.sub(r"\1", text), by_hydra)
        for secret in {secret for reading in texts for secret in _secrets(reading)}:
            for form in (secret, unquote(secret)):
                spellings |= {
                    form, quote(form, safe=""), quote(form), json.dumps(form)[1:-1],
                    json.dumps(form, ensure_ascii=False)[1:-1], repr(form)[1:-1],
                    shlex.quote(form).strip("'"), form.replace('"', '\\"'),
                }  # fmt: skip
    return sorted((item for item in spellings if len(item) >= _SHORTEST), key=len, reverse=True)


def _secrets(text: str) -> Iterator[str]:
    found = _OVERRIDE.fullmatch(text)
    value = found[2] if found else text
    if found and is_secret_key(found[1].lstrip("-+~")) and not _is_harmless(value):
        yield _unquoted(value)
    rest = _hide_named(value)
    users = [match[0] for match in _USER_WITHOUT_SCHEME.finditer(rest)]
    pattern = _USER_OF_ONE_URI if _ONE_URI.match(rest) else _USER
    users += [match[0] for match in pattern.finditer(rest)]
    for user in users:
        name, colon, password = user.partition(":")
        secret = password if colon else name
        if not _is_harmless(secret):
            yield secret
    for pattern in (_HEADER, _PAIR, _ENTRY):
        for match in pattern.finditer(value):
            if not _is_harmless(match["value"]):
                yield _unquoted(match["value"])


def _unquoted(value: str) -> str:
    is_quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"
    return value[1:-1] if is_quoted else value
