"""Hostile requests at the level of HTTP: smuggling, paths, content, bodies, tokens, origins, ids."""

import base64
import gzip
import json
import zlib
from collections.abc import Iterator

from tests.support.hostile.request import Hostile, plain, raw

JOB = b'{"input": {"workflow": {}}}'
HOST = b"Host: 127.0.0.1:@PORT@\r\nAuthorization: Bearer @TOKEN@\r\n"
CLOSE = b"Connection: close\r\n"
# A request that is hidden in another one's body; it must never be answered.
HIDDEN = b"GET /health HTTP/1.1\r\n" + HOST + b"\r\n"


def smuggling() -> Iterator[Hostile]:
    """Requests whose end two parsers would see in two places. Each is answered once at most, or refused."""
    post = b"POST /run HTTP/1.1\r\n" + HOST
    chunked = b"Transfer-Encoding: chunked\r\n"
    empty = b"0\r\n\r\n"
    for name, right, head, body in (
        ("a length and chunks", "400 closed", b"Content-Length: 4\r\n" + chunked, empty + HIDDEN),
        ("chunks and a length", "400 closed", chunked + b"Content-Length: 4\r\n", empty + HIDDEN),
        ("two lengths", "400 closed", b"Content-Length: 0\r\nContent-Length: 60\r\n", HIDDEN),
        ("two lengths in one", "400 closed", b"Content-Length: 0, 60\r\n", HIDDEN),
        ("a length with a sign", "400 closed", b"Content-Length: +5\r\n", HIDDEN),
        ("a length below nothing", "400 closed", b"Content-Length: -1\r\n", HIDDEN),
        ("a length in hexadecimal", "400 closed", b"Content-Length: 0x1b\r\n", HIDDEN),
        ("a length with an underscore", "400 closed", b"Content-Length: 1_0\r\n", HIDDEN),
        ("a length with a comma", "400 closed", b"Content-Length: 5,5,\r\n", HIDDEN),
        ("a length of other digits", "400 closed", "Content-Length: ５\r\n".encode(), HIDDEN),
        ("a length of letters", "400 closed", b"Content-Length: all\r\n", HIDDEN),
        ("a length without a number", "400 closed", b"Content-Length: \r\n", HIDDEN),
        ("a length with a space before its colon", "400 closed", b"Content-Length : 5\r\n", HIDDEN),
        ("a length with a tab before its colon", "400 closed", b"Content-Length\t: 5\r\n", HIDDEN),
        ("a length of twenty digits", "400 413 closed", b"Content-Length: 99999999999999999999\r\n", b""),
        ("a length of a thousand digits", "400 413 closed", b"Content-Length: " + b"9" * 1000 + b"\r\n", b""),
        ("a coding nobody knows", "400 501 closed", b"Transfer-Encoding: xchunked\r\n", empty + HIDDEN),
        ("chunks twice", "400 501 closed", chunked + chunked, empty + HIDDEN),
        ("chunks and identity", "400 501 closed", b"Transfer-Encoding: chunked, identity\r\n", empty + HIDDEN),
        ("identity before chunks", "400 501 closed", b"Transfer-Encoding: identity, chunked\r\n", empty + HIDDEN),
        ("gzip before chunks", "400 501 closed", b"Transfer-Encoding: gzip, chunked\r\n", empty + HIDDEN),
        ("a coding with a space before its colon", "400 closed", b"Transfer-Encoding : chunked\r\n", empty + HIDDEN),
        ("a coding with a vertical tab", "400 501 closed", b"Transfer-Encoding: \x0bchunked\r\n", empty + HIDDEN),
        ("a coding with a NUL", "400 501 closed", b"Transfer-Encoding: chunked\x00\r\n", empty + HIDDEN),
        ("a chunk of a size with a sign", "400 closed", chunked, b"+1\r\nx\r\n" + empty + HIDDEN),
        ("a chunk of a size in 0x", "400 closed", chunked, b"0x1\r\nx\r\n" + empty + HIDDEN),
        ("a chunk of a size with an underscore", "400 closed", chunked, b"1_0\r\n" + b"x" * 16 + b"\r\n" + empty),
        ("a chunk of a negative size", "400 closed", chunked, b"-1\r\nx\r\n" + empty + HIDDEN),
        ("a chunk of no size", "400 closed", chunked, b"\r\nx\r\n" + empty + HIDDEN),
        ("a chunk of a thousand digits", "400 closed", chunked, b"f" * 1000 + b"\r\n"),
        ("a chunk longer than its size", "400 closed", chunked, b"1\r\nxx\r\n" + empty + HIDDEN),
        ("a chunk that ends without a carriage return", "400 closed", chunked, b"1\r\nx\n" + empty + HIDDEN),
        ("a chunk whose extension never ends", "400 closed waits", chunked, b"1;" + b"x" * 70_000),
        ("a header without a colon", "400 closed", b"Content-Length\r\n", HIDDEN),
        ("a header without a name", "400 closed", b": 5\r\n", HIDDEN),
        ("a header with a NUL", "400 closed", b"X: a\x00b\r\n", HIDDEN),
        ("a header with a bare carriage return", "400 closed", b"X: a\rContent-Length: 5\r\n", HIDDEN),
    ):
        yield raw("smuggling", name, right, post + head + b"\r\n" + body)
    # Unfolded, as RFC 9112 lets a server do (5.2): what comes after the body is another request.
    folded = b"Content-Length:\r\n 5\r\n" + CLOSE
    yield raw("smuggling", "a folded length", "400", post + folded + b"\r\n" + b" " * 5 + HIDDEN)
    folded = b"Transfer-Encoding:\r\n chunked\r\n" + CLOSE
    yield raw("smuggling", "a folded coding", "400", post + folded + b"\r\n" + empty + HIDDEN)
    yield raw("smuggling", "a body after GET", "200", b"GET /health HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n" + HIDDEN)
    yield raw("smuggling", "HTTP/0.9", "400 closed", b"GET /health\r\n\r\n" + HIDDEN)
    yield raw("smuggling", "HTTP/1.0 with chunks", "400", b"POST /run HTTP/1.0\r\n" + HOST + chunked + b"\r\n")
    yield raw("smuggling", "HTTP/9.9", "400", b"GET /health HTTP/9.9\r\n" + HOST + b"\r\n")
    yield raw("smuggling", "HTTP/2 by its preface", "400", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    yield raw(
        "smuggling", "HTTP/2 by an upgrade", "200", b"GET /health HTTP/1.1\r\n" + HOST + CLOSE + b"Upgrade: h2c\r\n\r\n"
    )
    yield raw("smuggling", "TLS", "400 closed waits", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 500)
    yield raw("smuggling", "two spaces in its first line", "400 closed", b"GET  /health HTTP/1.1\r\n" + HOST + b"\r\n")
    yield raw("smuggling", "an endless first line", "400 414 431 closed", b"GET /" + b"a" * 200_000)
    yield raw(
        "smuggling", "an endless header", "400 431 closed", b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"a" * 200_000
    )
    lines = b"".join(b"X-%d: y\r\n" % number for number in range(20_000))
    yield raw("smuggling", "twenty thousand headers", "400 431 closed", b"GET / HTTP/1.1\r\n" + HOST + lines + b"\r\n")


def paths() -> Iterator[Hostile]:
    """Paths that would leave the folder of outputs, the image's workflows, or the routes."""
    for escape in (
        "../state/token", "..%2fstate%2ftoken", "%2e%2e/state/token", "%2e%2e%2fstate%2ftoken",
        "%252e%252e/state/token",
        "..\\state\\token", "..%5cstate%5ctoken", "....//state/token", "..;/state/token", "%c0%ae%c0%ae/state/token",
        "%c0%ae%c0%ae%c0%afstate", "%uff0e%uff0e/state/token", "．．/state/token", "..%00/state/token", "/etc/passwd",
        "%2fetc%2fpasswd", "//etc/passwd", "file:///etc/passwd", "a/../../state/token", "./../state/token",
        "%2e", "%00", "a%00.png", ".", "", ".token", ".hidden/x", "x/.hidden", "~/token", "%7e/token", "C:/windows",
        "x" * 5000, "x/" * 3000, "%ff%fe", "%", "%zz", "a%0d%0aSet-Cookie:%20x=1", "a%0aX:%20y", "?../state/token",
        "proc/self/environ", "..%2f..%2f..%2f..%2fproc%2fself%2fenviron", "link-out/token", "link-to-passwd",
    ):  # fmt: skip
        shown = escape if len(escape) < 60 else f"{escape[:20]}... of {len(escape)}"
        yield plain("path", f"/outputs/{shown}", "400 404", "GET", f"/outputs/{escape}")
    for name in (
        "../demo", "%2e%2e%2fdemo", "..%2f..%2f..%2fetc%2fpasswd", "demo%00", "demo.json%00.txt", "%2fetc%2fpasswd",
        ".hidden", "demo%2f..%2fdemo", "x" * 3000, "demo%0d%0a", "%ff", "con", "demo;ls", "$(id)", "{{7*7}}",
        "${jndi:x}",
    ):  # fmt: skip
        yield plain("path", f"/workflows/{name[:40]}", "400 404 405 422", "POST", f"/workflows/{name}", body=b"{}")
    for target in ("http://127.0.0.1:@TRAP@/", "//127.0.0.1:@TRAP@/health", "/v2/../../health", "/v2/x/../../../run"):
        yield plain("path", f"GET {target}", "400 404", "GET", target)
    yield plain("path", "CONNECT", "400 404 405", "CONNECT", "127.0.0.1:@TRAP@")
    yield plain("path", "OPTIONS *", "400 404 405", "OPTIONS", "*")
    for method in ("TRACE", "PUT", "DELETE", "PATCH", "PROPFIND", "DEBUG", "get"):
        yield plain("path", f"{method} /health", "400 404 405", method, "/health")


def content() -> Iterator[Hostile]:
    """Bodies in types, character sets and codings other than the JSON in UTF-8 that is taken."""
    form = b"input=%7B%22workflow%22%3A%7B%7D%7D"
    parts = b'--x\r\nContent-Disposition: form-data; name="input"\r\n\r\n{}\r\n--x--\r\n'
    xml = b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "http://127.0.0.1:@TRAP@/">]><a>&b;</a>'
    laughs = b'<!DOCTYPE a [<!ENTITY a "' + b"ha" * 99 + b'"><!ENTITY b "' + b"&a;" * 99 + b'">]><a>&b;</a>'
    pickle = b"cos\nsystem\n(S'touch /tmp/hostile-pickle'\ntR."
    yaml = b'!!python/object/apply:os.system ["touch /tmp/hostile-yaml"]'
    for name, kind, body in (
        ("a form", "application/x-www-form-urlencoded", form),
        ("a form of parts", "multipart/form-data; boundary=x", parts),
        ("a form of parts without a boundary", "multipart/form-data", parts),
        ("a form of parts with an endless boundary", "multipart/form-data; boundary=" + "x" * 9000, parts),
        ("an entity of XML", "application/xml", xml),
        ("a bomb of XML", "text/xml", laughs),
        ("a pickle", "application/octet-stream", pickle),
        ("a tag of YAML", "application/yaml", yaml),
        ("MessagePack", "application/msgpack", b"\x81\xa5input\x81\xa8workflow\x80"),
        ("CBOR", "application/cbor", b"\xa1einput\xa1hworkflow\xa0"),
        ("UTF-16 without a mark", "application/json; charset=utf-16be", JOB.decode().encode("utf-16-be")[:-1]),
        ("UTF-7", "application/json; charset=utf-7", b"+AHs-+ACI-input+ACI-:1+AH0-"),
        ("bytes that are no text", "application/json", b"\xff\xfe\xfa" + JOB),
        ("overlong UTF-8", "application/json", b'{"input": "\xc0\xaf"}'),
        ("half a surrogate in UTF-8", "application/json", b'{"input": \xed\xa0\x80}'),
        ("a NUL before JSON", "application/json", b"\x00" + JOB),
        ("JSON twice", "application/json", JOB + JOB),
        ("lines of JSON", "application/x-ndjson", JOB + b"\n" + JOB),
        ("JSON with a comment", "application/json", b"/* x */" + JOB),
        ("JSON in a guard", "application/json", b")]}',\n" + JOB),
        ("a request of SOAP", "application/soap+xml", b"<soap:Envelope/>"),
        ("GraphQL", "application/graphql", b"query { __schema { types { name } } }"),
    ):
        yield plain("content", name, "400 415", "POST", "/run", body=body, headers=[("Content-Type", kind)])
    zipped = gzip.compress(JOB)
    for name, coding, body in (
        ("gzip", "gzip", zipped),
        ("gzip twice", "gzip, gzip", gzip.compress(zipped)),
        ("deflate", "deflate", zlib.compress(JOB)),
        ("a bomb of gzip", "gzip", gzip.compress(b" " * 30_000_000)),
        ("a coding that the body is not in", "br", b"\x1b\x03"),
        ("a coding nobody knows", "zip, " * 200 + "zip", b"PK\x03\x04"),
    ):
        yield plain("content", name, "400 415", "POST", "/run", body=body, headers=[("Content-Encoding", coding)])
    for name, accept in (
        ("of everything", "*/*;q=" + "9" * 5000),
        ("of a bomb", "a/b;" * 5000),
        ("of letters", "é\x01"),
    ):
        yield plain("content", f"accepts {name}", "200 400 406", "GET", "/metrics", headers=[("Accept", accept)])


def bodies() -> Iterator[Hostile]:
    """Bodies too large, too deep or too many; the server takes 8 MB."""
    million = b"[" + b"[]," * 400_000 + b"[]]"
    for name, right, body in (
        ("of nothing but brackets", "400 413", b"[" * 100_000),
        ("of open objects", "400 413", b'{"a":' * 50_000),
        ("a thousand levels", "400 413", b'{"input": ' + b"[" * 1000 + b"]" * 1000 + b"}"),
        ("a hundred thousand levels", "400 413", b'{"input": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
        ("four hundred thousand lists", "413", million),
        ("a million numbers", "413", b'{"input": [' + b"1," * 1_000_000 + b"1]}"),
        ("a million keys", "413", b'{"input": {' + b'"a":1,' * 999_999 + b'"a":1}}'),
        ("millions of escapes", "413", b'{"input": "' + b"\\n" * 3_000_000 + b'"}'),
        ("over the limit by a byte", "413", b" " * 8_000_001),
        ("over the limit by far", "413", b" " * 20_000_000),
        ("of spaces", "400", b" " * 7_000_000),
        ("a number of a megabyte", "400", b'{"input": ' + b"9" * 1_000_000 + b"}"),
        ("a fraction of a megabyte", "400 200", b'{"input": 0.' + b"9" * 1_000_000 + b"}"),
        ("an exponent beyond floats", "400", b'{"input": 1e400}'),
        ("an exponent of a thousand digits", "400", b'{"input": 1e' + b"9" * 1000 + b"}"),
        ("not a number", "400", b'{"input": NaN}'),
        ("infinity", "400", b'{"input": -Infinity}'),
        ("an input that is text of JSON, deep", "400", json.dumps({"input": "[" * 5000 + "]" * 5000}).encode()),
        ("a policy that is deep", "400 413", b'{"input": {}, "policy": ' + b"[" * 200 + b"]" * 200 + b"}"),
        ("no object", "400", b"[]"),
        ("null", "400", b"null"),
        ("a text", "400", b'"x"'),
        ("no input", "400", b"{}"),
        ("an input of null", "400", b'{"input": null}'),
        ("cut off", "400", b'{"input": {"workflow'),
    ):
        yield plain("body", name, right, "POST", "/run", body=body)
    huge = b"1000000\r\n" + b" " * 0x1000000 + b"\r\n0\r\n\r\n"
    head = b"POST /run HTTP/1.1\r\n" + HOST + CLOSE
    yield raw("body", "too large, in chunks", "413 closed", head + b"Transfer-Encoding: chunked\r\n\r\n" + huge)
    tiny = b"".join(b"1\r\n \r\n" for _ in range(50_000)) + b"0\r\n\r\n"
    yield raw("body", "fifty thousand chunks of a byte", "400", head + b"Transfer-Encoding: chunked\r\n\r\n" + tiny)
    yield raw("body", "that never comes", "waits", head + b"Content-Length: 100\r\n\r\n")
    yield raw(
        "body", "that is asked for first", "413", head + b"Expect: 100-continue\r\nContent-Length: 90000000\r\n\r\n"
    )
    yield raw("body", "of a claimed exabyte", "413", head + b"Content-Length: 1000000000000000000\r\n\r\n")


def tokens() -> Iterator[Hostile]:
    """Requests that show no token, or not the server's, and ask for what needs one."""
    basic = base64.b64encode(b"any:wrong").decode()
    for name, shown in (
        ("a wrong one", "Bearer wrong"), ("an empty one", "Bearer "), ("spaces", "Bearer      "), ("null",
        "Bearer null"),
        ("undefined", "Bearer undefined"), ("true", "Bearer true"), ("a beginning", "Bearer @TOKE"), ("none", ""),
        ("one more letter", "Bearer @TOKEN@x"), ("a list", "Bearer x, Bearer y"), ("twice", "Bearer Bearer @TOKEN@"),
        ("a wildcard", "Bearer *"), ("SQL", "Bearer ' OR '1'='1"), ("a template", "Bearer {{token}}"),
        ("unsigned", "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZG1pbiJ9."), ("an NTLM", "NTLM TlRMTVNTUAABAAAA"),
        ("a digest", 'Digest username="x", realm="comfypin"'), ("negotiation", "Negotiate YII="),
        ("a password", f"Basic {basic}"), ("a password that is no base64", "Basic !!!"), ("no password", "Basic Og=="),
        ("bytes", "Bearer \udcff\udcfe"), ("of 60 kB", "Bearer " + "x" * 60_000), ("a name alone", "Bearer"),
        ("other letters", "Bearer t\u200best-token"), ("full width", "Bearer ｔｅｓｔ－ｔｏｋｅｎ"),
    ):  # fmt: skip
        right = "401 431" if len(shown) > 50_000 else "401"
        yield plain("token", name, right, "GET", "/health", headers=[("Authorization", shown)])
    for target in (
        "/ping/", "/ping/../health", "/PING", "/ping%2f..%2fhealth", "//ping", "/ping;/health", "/ping%00", "/ping/x",
        "/.ping", "/v2/ping", "/health?token=@TOKEN@", "/health?access_token=@TOKEN@", "/health#/ping", "/%70ing/",
        "/health;/ping", "/outputs/../ping/x",
    ):  # fmt: skip
        yield plain("token", f"none, for {target}", "400 401 404", "GET", target, without=["Authorization"])
    for header in (
        "Cookie",
        "X-API-Key",
        "X-Authorization",
        "Proxy-Authorization",
        "X-Forwarded-User",
        "X-Original-URL",
    ):
        value = "/ping" if header == "X-Original-URL" else "Bearer @TOKEN@"
        yield plain(
            "token", f"in {header}", "401", "GET", "/health", headers=[(header, value)], without=["Authorization"]
        )
    yield plain(
        "token", "a password of a browser that posts", "401", "POST", "/run",
        body=JOB, headers=[("Authorization", "Basic " + base64.b64encode(b"any:test-token").decode())],
    )  # fmt: skip
    twice = [("Authorization", "Bearer wrong"), ("Authorization", "Bearer wrong-too")]
    yield plain("token", "two wrong ones", "400 401", "GET", "/health", headers=twice)


def origins() -> Iterator[Hostile]:
    """Pages of other sites, and hosts that the server is not."""
    for origin in (
        "https://evil.example", "null", "http://127.0.0.1", "http://127.0.0.1:@TRAP@",
        "http://127.0.0.1:@PORT@.evil.example",
        "http://127.0.0.1:@PORT@@evil.example", "http://evil.example#127.0.0.1:@PORT@", "file://", "", "*",
        "http://localhost:@PORT@", "http://[::1]:@PORT@", "http://127.0.0.1:0@PORT@", "http://2130706433:@PORT@",
        "chrome-extension://abc", "http://127.0.0.1:@PORT@, https://evil.example", "data:text/html,x", "http://\udcff",
        "http://[", "http://127.0.0.1:@PORT@:80", "https://" + "a" * 9000,
    ):  # fmt: skip
        yield plain(
            "origin",
            origin[:60].encode("ascii", "replace").decode(),
            "400 403",
            "POST",
            "/run",
            body=JOB,
            headers=[("Origin", origin)],
        )
    two = [("Origin", "http://127.0.0.1:@PORT@"), ("Origin", "https://evil.example")]
    yield plain("origin", "two of them", "400 403", "POST", "/run", body=JOB, headers=two)
    preflight = [("Origin", "https://evil.example"), ("Access-Control-Request-Method", "POST")]
    yield plain(
        "origin", "a question first", "401 403 405", "OPTIONS", "/run", headers=preflight, without=["Authorization"]
    )
    yield plain("origin", "no host", "400", "GET", "/health", without=["Host"])
    hosts = [("Host", "127.0.0.1:@PORT@"), ("Host", "evil.example")]
    yield plain("origin", "two hosts", "400", "GET", "/health", headers=hosts)
    for name, host in (
        ("with a path", "127.0.0.1:@PORT@/../x"), ("with a login", "a@127.0.0.1:@PORT@"), ("with a space", "a b"),
        ("of brackets", "["), ("of brackets, closed", "[]"), ("with a port of letters", "127.0.0.1:x"), ("empty", ""),
        ("with a port beyond", "127.0.0.1:99999999"), ("of 9 kB", "a" * 9000), ("with a NUL", "a\x00b"),
        ("with bytes", "\udcff"), ("with a quote", "a'\"><script>"), ("of the trap", "127.0.0.1:@TRAP@"),
    ):  # fmt: skip
        # A token was shown, so that the host's name is nobody's concern; an answer must not break on it.
        yield plain(
            "origin", f"a host {name}", "200 400 403", "POST", "/runsync?wait=0", body=JOB, headers=[("Host", host)]
        )
        yield plain("origin", f"a page of a host {name}", "200 400 403", "GET", "/docs", headers=[("Host", host)])
    for header in (
        "X-Forwarded-Host",
        "X-Forwarded-For",
        "X-Forwarded-Proto",
        "X-Real-IP",
        "Forwarded",
        "X-Rewrite-URL",
    ):
        more = [(header, "127.0.0.1:@TRAP@")]
        yield plain("origin", f"by {header}", "401", "GET", "/health", headers=more, without=["Authorization"])


def ids() -> Iterator[Hostile]:
    """Ids of jobs that are none, keys of idempotency, waits and policies that are none."""
    for job_id in (
        "x", "..", "%2e%2e", "%00", "a%00b", "' OR 1=1--", "1;DROP TABLE jobs", "%27%20OR%20%271%27=%271", "*",
        "%25", "_",
        "00000000-0000-0000-0000-000000000000", "-1", "9" * 400, "x" * 4000, "%ff%fe", "%ed%a0%80", "{id}", "[]",
        "a%0d%0ab",
        "../../health", "..%2f..%2fhealth", "NULL", "undefined", "%F0%9F%92%A9", "\u202e", "job_id=x&id=y",
    ):  # fmt: skip
        target = "/status/" + job_id.replace(" ", "%20")
        yield plain("id", f"{target[:50]}", "400 404", "GET", target)
    for verb in ("cancel", "retry", "stream", "status"):
        yield plain("id", f"{verb} of none", "404", "POST", f"/{verb}/%27%20OR%201=1--", body=b"{}")
    for wait in ("-1", "x", "1e9", "99999999999999999999", "NaN", "0x10", "1.5", "", "1&wait=x", "٣", "true", "1_0"):
        right = "200 422 400"
        yield plain("id", f"wait={wait}", right, "POST", f"/runsync?wait={wait}", body=JOB)
    for policy in (
        {"ttl": -1}, {"ttl": 0}, {"ttl": "x"}, {"ttl": True}, {"ttl": 10**30}, {"ttl": [1]}, {"executionTimeout": -5},
        {"executionTimeout": {}}, {"executionTimeout": 1e300}, {"executionTimeout": 0.0}, [], "x", 1, True,
    ):  # fmt: skip
        body = json.dumps({"input": {"workflow": {}}, "policy": policy}).encode()
        yield plain("id", f"policy {json.dumps(policy)[:30]}", "400", "POST", "/run", body=body)
    for key in ("", "x" * 9000, "../../x", "\udcff", "' OR 1=1--", "a, b", "\x01"):
        header = [("Idempotency-Key", key)]
        shown = key[:20].encode("ascii", "replace").decode()
        yield plain(
            "id", f"Idempotency-Key {shown!r}", "200 400 431", "POST", "/runsync?wait=0", body=JOB, headers=header
        )
