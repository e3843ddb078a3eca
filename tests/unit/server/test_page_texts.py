"""The page's texts: each in both languages, and the description of the API in Russian, too."""

import re
from pathlib import Path

from comfypin.server.page_files import load_page_files
from tests.support.comfy_api import local_api

_PLURALS = {"zero", "one", "two", "few", "many", "other"}
_KEY = re.compile(r'[{,]\s*(?:"([^"]+)"|([A-Za-z_]\w*)): ?["{]')
# What is said to users by the server in English; pages of other languages say it themselves.
_OF_SERVER = ("remedy ", "error ", "http ", "finding ", "cause ", "family failed ")


def keys_of(file: str) -> set[str]:
    text = load_page_files()[file].body.decode()
    return {quoted or plain for quoted, plain in _KEY.findall(text)}


def test_each_text_is_there_in_both_languages() -> None:
    english, russian = keys_of("lang-en.js"), keys_of("lang-ru.js")
    assert len(english) > 150
    assert {key for key in russian - english if not key.startswith(_OF_SERVER)} - _PLURALS == set()
    assert english - russian - _PLURALS == set()


def test_each_text_that_a_view_asks_for_is_there() -> None:
    english = keys_of("lang-en.js")
    asked = {
        key
        for name, file in load_page_files().items()
        if name.endswith(".js") and "/" not in name and not name.startswith("lang-")
        for key in re.findall(r'\bt\("([^"]+)"', file.body.decode())
    }
    assert len(asked) > 100
    assert asked - english == set()


def test_each_path_of_the_api_is_described_in_russian(tmp_path: Path) -> None:
    described = keys_of("docs-ru.js")
    with local_api(tmp_path) as local:
        document = local.client.get("/openapi.json").json()
    told = [tag["description"] for tag in document["tags"]] + [
        operation["summary"]
        for path, item in document["paths"].items()
        if not path.startswith("/workflows/")
        for operation in item.values()
    ]
    assert [text for text in told if text not in described] == []


def test_the_first_view_asks_for_all_its_modules_at_once() -> None:
    files = {name: file.body.decode() for name, file in load_page_files().items() if name.endswith((".js", ".html"))}
    needed: set[str] = set()
    unread = ["app.js"]
    while unread:
        for module in re.findall(r'^import [^(]*?from "\./([^"]+)"', files[unread.pop()], re.MULTILINE):
            if module not in needed:
                needed.add(module)
                unread.append(module)
    assert needed == set(re.findall(r'"modulepreload" href="page/([^"]+)"', files["index.html"]))
