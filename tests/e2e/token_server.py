"""A token server as real registries use them (distribution-spec, "Token Authentication"): it signs
JSON Web Tokens, and docker-registry itself checks their signature, scope and age.

    tokens = TokenServer(directory, users={"reader": ("secret", {"pull"})})
    registry = make_registry(token_server=tokens)     # refuses what no token of it allows
    tokens.lifetime_s = 2                             # of those given out from now on

Nouns: a *user* has a password and the actions allowed on every repository; *anonymous* is what
those without a password may do; "tests" is the user that registry.push() of conftest.py works as; a
*grant* is the record of a token given out. GET /token takes Basic credentials, POST /token a form
(OAuth2) with a password or a refresh token. Requests are recorded as those of a FaultRegistry, so
that tests can tell which credentials came.
"""

import base64
import dataclasses
import json
import os
import subprocess
import time
import urllib.parse

from fault_registry import FaultRegistry, _basic, _errors, _Handler

# docker-registry takes tokens that are this much too old (registry/auth/token: Leeway).
LEEWAY_S = 60


@dataclasses.dataclass
class Grant:
    user: str  # None: anonymous
    scopes: list
    access: list
    token: str


class TokenServer(FaultRegistry):
    """Faults can be told as to a FaultRegistry: fault("/token", Fault(status=503), method="*")."""

    service = "tests"
    issuer = "tests-issuer"

    def __init__(self, directory, users=None, anonymous=(), **options):
        self.directory = directory
        self.users = {"tests": (os.urandom(8).hex(), {"pull", "push"}), **(users or {})}
        self.anonymous = set(anonymous)
        self.lifetime_s = 300
        self.told_lifetime_s = None  # what expires_in says, where it is to be a lie
        self.grants = []
        self.refresh_tokens = {}  # token -> user
        self._make_key()
        super().__init__(handler=_TokenHandler, **options)

    @property
    def realm(self):
        return self.url + "/token"

    @property
    def certificate(self):
        return f"{self.directory}/token.crt"

    def _make_key(self):
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout",
                        "token.key", "-out", "token.crt", "-days", "2", "-subj", "/CN=tokens"],
                       cwd=self.directory, check=True, capture_output=True)
        with open(self.certificate) as handle:
            self.chain = ["".join(handle.read().split("-----")[2].split())]

    def registry_config(self):
        """What the registry's configuration has under auth.token."""
        return {"realm": self.realm, "service": self.service, "issuer": self.issuer,
                "rootcertbundle": self.certificate}

    def sign(self, user, access):
        now = time.time()
        head = {"typ": "JWT", "alg": "RS256", "x5c": self.chain}
        claims = {"iss": self.issuer, "sub": user or "", "aud": self.service, "access": access,
                  "iat": int(now), "nbf": int(now) - 2 * LEEWAY_S, "jti": os.urandom(8).hex(),
                  "exp": int(now + self.lifetime_s) - LEEWAY_S}
        text = b".".join(_encode(json.dumps(part).encode()) for part in (head, claims))
        signature = subprocess.run(
            ["openssl", "dgst", "-sha256", "-sign", f"{self.directory}/token.key"], input=text,
            stdout=subprocess.PIPE, check=True).stdout
        return (text + b"." + _encode(signature)).decode()

    def grant(self, user, scopes):
        """A token for what of the scopes the user is allowed."""
        allowed = self.users[user][1] if user else self.anonymous
        access = []
        for scope in scopes:
            kind, _, rest = scope.partition(":")
            name, _, actions = rest.rpartition(":")
            granted = [one for one in actions.split(",") if one in allowed]
            if granted:
                access.append({"type": kind, "name": name, "actions": granted})
        grant = Grant(user, scopes, access, self.sign(user, access))
        with self.lock:
            self.grants.append(grant)
            self.changed.notify_all()
        return grant

    def authorization(self, user, repository, actions="pull,push"):
        """The header that lets a test push past the registry's guard."""
        return "Bearer " + self.grant(user, [f"repository:{repository}:{actions}"]).token


class _TokenHandler(_Handler):

    def _genuine(self, request, _fault):
        server = self.registry
        path, _, query = self.path.partition("?")
        if path != "/token":
            return 404, {}, _errors("UNSUPPORTED", "no such page")
        form = urllib.parse.parse_qs(request.body.decode() if request.method == "POST" else query)
        if form.get("service") != [server.service]:
            return 400, {}, _errors("UNSUPPORTED", "another service")
        user = self._user(request, form)
        if user is False:
            return 401, {}, _errors("UNAUTHORIZED", "incorrect username or password")
        scopes = [one for text in form.get("scope", []) for one in text.split()]
        told = server.told_lifetime_s
        answer = {"expires_in": server.lifetime_s if told is None else told}
        token = server.grant(user, scopes).token
        answer["access_token" if request.method == "POST" else "token"] = token
        if user and (form.get("offline_token") == ["true"] or request.method == "POST"):
            refresh = os.urandom(16).hex()
            server.refresh_tokens[refresh] = user
            answer["refresh_token"] = refresh
        return 200, {"Content-Type": "application/json"}, json.dumps(answer).encode()

    def _user(self, request, form):
        """Who asks: a name, None for nobody in particular, False for a wrong password."""
        if request.method == "POST":
            if form.get("grant_type") == ["refresh_token"]:
                return self.registry.refresh_tokens.get(form.get("refresh_token", [""])[0], False)
            name, password = form.get("username", [""])[0], form.get("password", [""])[0]
        elif request.authorization is None:
            return None
        else:
            name, password = _basic(request) or ("", "")
        return name if self.registry.users.get(name, (None,))[0] == password else False


def _encode(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=")


