"""Hostile jobs: addresses of inputs, webhooks and buckets that lead inside, redirects, names that lead out."""

import base64
from collections.abc import Iterator

from tests.support.hostile.request import Hostile, job, plain

# Every way to write loopback. No other private address: a guard that fails must hurt nobody but this machine.
LOOPBACK = (
    "127.0.0.1", "localhost", "LOCALHOST", "localhost.", "127.1", "127.0.1", "127.255.255.254", "0.0.0.0", "0",
    "2130706433", "0x7f000001", "0x7f.1", "0x7f.0x0.0x0.0x1", "0177.0.0.1", "0177.1", "017700000001", "127.0.0.1.",
    "[::1]", "[::]", "[0:0:0:0:0:0:0:1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]", "[64:ff9b::7f00:1]",
    "[2002:7f00:1::]", "[2001:0:5db8:d822::80ff:fffe]", "[fe80::5efe:7f00:1]", "[::ffff:0:127.0.0.1]", "[::1%25lo]",
    "127。0。0。1", "１２７.０.０.１", "①②⑦.⓪.⓪.①", "ｌｏｃａｌｈｏｓｔ", "loc\u00adalhost", "127.0.0.1%00.example",
    "127.0.0.1%2eexample", "localhost%2e", "127.0.0.1\u3002", "%31%32%37.0.0.1",
)  # fmt: skip
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()
# An address of IPv6 that nobody was ever given, so public and nowhere; the test's own proxy answers for it.
AWAY = "http://[2d00::1]"


def addresses() -> Iterator[Hostile]:
    """Inputs that are to be fetched from this machine, or from its files."""
    for host in LOOPBACK:
        yield _fetching(f"http://{host}:@TRAP@/x.png")
    for url in (
        "https://127.0.0.1:@TRAP@/", "https://localhost:@TRAP@/", "http://public.example@127.0.0.1:@TRAP@/",
        "http://127.0.0.1:@TRAP@#@public.example/", "http://127.0.0.1:@TRAP@\\@public.example/",
        "http://public.example\\@127.0.0.1:@TRAP@/", "http://127.0.0.1:@TRAP@\t/x", "http:///127.0.0.1:@TRAP@/",
        "http://a:b@localhost:@TRAP@/", "HTTP://127.0.0.1:@TRAP@/", "http://127.0.0.1:@TRAP@/?x=http://public.example",
        "http://127.0.0.1\n:@TRAP@/", "http://127.0.0.1 :@TRAP@/", "http://user@[::1]:@TRAP@/", "http://:@TRAP@/",
        "http://[::1]x:@TRAP@/", "http://127.0.0.1:+@TRAP@/", "http://127.0.0.1:０@TRAP@/", "http://", "http://[",
        "http://:0/",
        "http:/127.0.0.1:@TRAP@/", "http:127.0.0.1:@TRAP@/", "//127.0.0.1:@TRAP@/", "file:///etc/passwd",
        "FILE:///etc/passwd", "file://127.0.0.1/etc/passwd", "gopher://127.0.0.1:@TRAP@/_GET%20/",
        "ftp://127.0.0.1:@TRAP@/",
        "dict://127.0.0.1:@TRAP@/info", "ldap://127.0.0.1:@TRAP@/", "jar:http://127.0.0.1:@TRAP@!/",
        "unix:///var/run/x.sock",
        "http+unix://%2fvar%2frun%2fdocker.sock/", "netdoc:///etc/passwd", "data:text/plain,x", "/etc/passwd",
        "s3://bucket/../../x", "s3:///x", "gs://\x00/x", "az://127.0.0.1:@TRAP@/x",
        "http://127.0.0.1:@TRAP@/" + "a" * 9000,
    ):  # fmt: skip
        yield _fetching(url)
    for field in ("image", "data"):
        wish = {"workflow": {}}
        url = "http://127.0.0.1:@TRAP@/x.png"
        media = (
            {"images": [{"name": "a.png", "image": url}]}
            if field == "image"
            else {"inputs": [{"name": "a", "data": url}]}
        )
        yield job("address", f"an address as {field}", "FAILED", wish | media)


def _fetching(url: str) -> Hostile:
    name = url if len(url) < 90 else f"{url[:40]}... of {len(url)}"
    return job(
        "address",
        name.encode("ascii", "backslashreplace").decode(),
        "FAILED",
        {"workflow": {}, "inputs": [{"name": "a.png", "url": url}]},
    )


def webhooks() -> Iterator[Hostile]:
    """Webhooks on this machine: taken or refused, and never told."""
    for host in LOOPBACK:
        yield _webhook(f"http://{host}:@TRAP@/hook")
    for url in (
        "https://127.0.0.1:@TRAP@/", "http://a:b@127.0.0.1:@TRAP@/", "http://public.example@127.0.0.1:@TRAP@/",
        "http://127.0.0.1:@TRAP@\\@public.example/", "http://127.0.0.1:@TRAP@#@public.example", "file:///etc/passwd",
        "gopher://127.0.0.1:@TRAP@/", "javascript:alert(1)", "//127.0.0.1:@TRAP@/", "http://", "http://:@TRAP@/",
        "http://[",
        "http://127.0.0.1:99999/", "http://127.0.0.1:-1/", "http://127.0.0.1:@TRAP@/\r\nX: y",
        "http://127.0.0.1:@TRAP@/\x00",
        "http://" + "a" * 3000 + "/", " http://127.0.0.1:@TRAP@/",
    ):  # fmt: skip
        yield _webhook(url)
    for value in (1, True, [], {}, ["http://127.0.0.1:@TRAP@/"], {"url": "http://127.0.0.1:@TRAP@/"}, ""):
        yield job("webhook", f"{value!r}"[:60], "400", {"workflow": {}}, webhook=value)
    for path in ("to-trap", "to-file", "to-trap-308", "loop"):
        yield job("webhook", f"that redirects: {path}", "COMPLETED", {"workflow": {}}, webhook=f"{AWAY}/{path}")


def _webhook(url: str) -> Hostile:
    name = url[:90].encode("ascii", "backslashreplace").decode()
    return job("webhook", name, "400 COMPLETED", {"workflow": {}}, webhook=url)


def buckets() -> Iterator[Hostile]:
    """Buckets of a job's own that are on this machine."""
    keys = {"accessId": "id", "accessSecret": "secret", "bucketName": "bucket"}
    urls = [f"http://{host}:@TRAP@" for host in LOOPBACK[:30]]
    urls += [
        "https://127.0.0.1:@TRAP@",
        "file:///tmp",
        "http://x@127.0.0.1:@TRAP@",
        "127.0.0.1:@TRAP@",
        "http://",
        "http://[",
        "",
        "\x00",
    ]
    for url in urls:
        shown = url.encode("ascii", "backslashreplace").decode()
        yield job("bucket", shown or "nothing", "FAILED", {"workflow": {}}, s3Config={**keys, "endpointUrl": url})
    for name in (
        "../x",
        "a/../../b",
        "",
        ".",
        "..",
        "a b",
        "a\x00",
        "a\r\nX: y",
        "x" * 3000,
        "127.0.0.1:@TRAP@/",
        "a?x",
        "a#x",
    ):
        config = {**keys, "bucketName": name, "endpointUrl": "http://127.0.0.1:@TRAP@"}
        yield job("bucket", f"named {name[:30]!r}", "FAILED", {"workflow": {}}, s3Config=config)
    for config in (
        [],
        "x",
        1,
        {"endpointUrl": "http://127.0.0.1:@TRAP@"},
        {**keys, "endpointUrl": ["http://127.0.0.1:@TRAP@"]},
    ):
        yield job("bucket", f"config {config!r}"[:50], "FAILED", {"workflow": {}}, s3Config=config)


REDIRECTS = {
    "to-trap": "http://127.0.0.1:@TRAP@/", "to-trap-301": "http://127.0.0.1:@TRAP@/",
    "to-trap-303": "http://127.0.0.1:@TRAP@/",
    "to-trap-307": "http://127.0.0.1:@TRAP@/", "to-trap-308": "http://127.0.0.1:@TRAP@/",
    "to-localhost": "http://localhost:@TRAP@/",
    "to-number": "http://2130706433:@TRAP@/", "to-hex": "http://0x7f.1:@TRAP@/",
    "to-octal": "http://0177.0.0.1:@TRAP@/",
    "to-any": "http://0.0.0.0:@TRAP@/", "to-v6": "http://[::1]:@TRAP@/",
    "to-mapped": "http://[::ffff:127.0.0.1]:@TRAP@/",
    "to-any-v6": "http://[::]:@TRAP@/", "to-login": "http://[2d00::1]@127.0.0.1:@TRAP@/",
    "to-file": "file:///etc/passwd",
    "to-s3": "s3://bucket/key", "to-gopher": "gopher://127.0.0.1:@TRAP@/", "to-relative-host": "//127.0.0.1:@TRAP@/",
    "to-backslash": "\\\\127.0.0.1:@TRAP@/", "to-backslash-at": "http://127.0.0.1:@TRAP@\\@[2d00::1]/",
    "to-control": "http://127.0.0.1:@TRAP@/\tx",
    "to-nothing": "", "to-no-host": "http:///x", "to-data": "data:text/plain,x", "to-tls": "https://127.0.0.1:@TRAP@/",
    "to-far": "/" + "a" * 60_000, "loop": "/loop", "to-two": "/to-trap", "to-letters": "http://１２７.0.0.1:@TRAP@/",
    "to-nat64": "http://[64:ff9b::7f00:1]:@TRAP@/",
}  # fmt: skip


def redirects() -> Iterator[Hostile]:
    """Public addresses that redirect to this machine."""
    for path in REDIRECTS:
        yield job("redirect", path, "FAILED", {"workflow": {}, "inputs": [{"name": "a.png", "url": f"{AWAY}/{path}"}]})


def names() -> Iterator[Hostile]:
    """Names of inputs, prefixes of outputs, templates of keys and views that lead out of their folders."""
    escapes = (
        "../x.png", "../../../../tmp/hostile-name.png", "/tmp/hostile-name.png", "a/../../x.png", "..", ".", "", "\x00",
        "a\x00.png", "..\\x.png", "C:\\x.png", "\\\\host\\x", "a\nb", "x" * 300, "./../x", "a/" * 90 + "x", "//tmp/x",
    )  # fmt: skip
    for name in escapes:
        right = "COMPLETED" if name.startswith("a/a/") else "FAILED"
        yield job("name", f"input {name[:40]!r}", right, {"workflow": {}, "inputs": [{"name": name, "data": PNG}]})
        yield job("name", f"image {name[:40]!r}", right, {"workflow": {}, "images": [{"name": name, "image": PNG}]})
    for prefix in (
        "../../hostile", "/tmp/hostile-prefix", "a/../../../hostile", "..", "%2e%2e/x", "\x00", "a\x00b", "~/x",
        "..\\..\\x",
        "x" * 5000, "a\nb", "$(id)", "%date:yyyy%/../../x", "C:\\x", "\u202egnp.exe", "CON", "-rf",
    ):  # fmt: skip
        graph = {
            "1": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": 0}},
            "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": prefix}},
        }
        yield job("name", f"prefix {prefix[:40]!r}", "FAILED COMPLETED", {"workflow": graph})
    for image in (
        "../../../../etc/passwd",
        "/etc/passwd",
        "..\\x",
        "x [output]/../../..",
        "a\x00",
        "[temp]",
        "../../x [temp]",
    ):
        graph = {
            "1": {"class_type": "LoadImage", "inputs": {"image": image}},
            "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
        }
        yield job("name", f"loads {image!r}", "FAILED", {"workflow": graph})
    for template in (
        "../{job_id}", "/{job_id}/../..", "{job_id.__class__}", "{job_id!r}", "{0}", "{}", "{job_id:>999999999}",
        "{", "x",
        "{job_id}/../../x", "{job_id[0]}", "{counter:0999999}{job_id}", "{prefix}/../{job_id}", "{job_id}" * 60,
        ["{job_id}"],
    ):  # fmt: skip
        wish = {"workflow": {}, "output": {"mode": "base64", "template": template}}
        right = "FAILED COMPLETED" if template == "{job_id}" * 60 else "FAILED"
        yield job("name", f"template {str(template)[:40]!r}", right, wish)
    for workflow_name in ("../demo", "/etc/passwd", "..", "demo/../../x", "demo\x00", "", ".hidden", "x" * 200):
        yield job("name", f"workflow {workflow_name[:40]!r}", "FAILED", {"workflow_name": workflow_name})
    for mode in ("ftp", "../x", "file\x00", 1, ["file"]):
        yield job("name", f"mode {mode!r}", "FAILED", {"workflow": {}, "output": {"mode": mode}})
    yield plain(
        "name",
        "a suffix of an address that leads out",
        "422 400 FAILED 404",
        "POST",
        "/workflows/demo?wait=9000",
        body=b'{"image": "http://127.0.0.1:@TRAP@/x.png/../../y"}',
    )
