"""What an install.py downloads, found by reading it."""

import pytest

from comfypin.locking.script_downloads import ScriptDownload, find_downloads


@pytest.mark.parametrize(
    ("script", "call"),
    [
        ("import urllib.request\nurllib.request.urlretrieve(URL, 'x')", "urllib.request.urlretrieve"),
        ("from urllib.request import urlopen\nurlopen(URL)", "urlopen"),
        ("import requests\nrequests.get(URL)", "requests.get"),
        ("from huggingface_hub import hf_hub_download as get\nhf_hub_download('a', 'b')", "hf_hub_download"),
        ("import git\ngit.Repo.clone_from(URL, 'x')", "git.Repo.clone_from"),
        ("from torchvision.datasets.utils import download_url\ndownload_url(URL, 'x')", "download_url"),
        ("import os\nos.system('wget ' + URL)", "wget"),
        ("import subprocess\nsubprocess.check_call(['git', 'clone', URL])", "git clone"),
        ("import subprocess\nsubprocess.run(f'curl -L {URL}', shell=True)", "curl"),
    ],
)
def test_a_download_is_found_by_its_call(script: str, call: str) -> None:
    assert find_downloads(script.encode()) == (ScriptDownload(line=2, call=call),)


def test_the_address_is_said_if_it_stands_there() -> None:
    (found,) = find_downloads(b"fetch.download('https://example.org/face.pt', 'models')\n")
    assert str(found) == "line 1: fetch.download of https://example.org/face.pt"


@pytest.mark.parametrize(
    "script",
    [
        "import subprocess, sys\nsubprocess.check_call([sys.executable, '-m', 'pip', 'install', 'x'])",
        "settings.get('a')",
        "print('run wget https://x.org yourself')",
        "def download(): ...",
        "",
    ],
)
def test_what_realize_holds_to_the_lock_or_does_not_run_is_none(script: str) -> None:
    assert find_downloads(script.encode()) == ()


def test_a_script_of_another_python_is_read_as_text() -> None:
    (found,) = find_downloads(b"print 'installing'\nurlretrieve('https://example.org/a.pt')  # here\n")
    assert (found.line, found.call, found.address) == (2, "urlretrieve", "https://example.org/a.pt")
