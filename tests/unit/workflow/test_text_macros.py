"""The page's texts in file names."""

from datetime import datetime

import pytest

from comfypin.workflow.parse import parse_graph
from comfypin.workflow.text_macros import expand_texts, format_date, javascript_text

NOW = datetime(2025, 3, 4, 5, 6, 7)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("yyyy-MM-dd", "2025-03-04"),
        ("yy/M/d", "25/3/4"),
        ("hhmmss", "050607"),
        ("h:m:s", "5:6:7"),
        ("yyy", "yyy"),
        ("y", "y"),
        ("", ""),
    ],
)
def test_dates_are_the_pages(pattern: str, text: str) -> None:
    assert format_date(pattern, NOW) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (8.0, "8"), (True, "true"), (None, ""), (1e-7, "1e-7"), (1.5e-5, "0.000015"), (1e21, "1e+21"),
        (0.1, "0.1"), ([1, "a"], "1,a"), ({"a": 1}, "[object Object]"), (-2.0, "-2"),
    ],
)  # fmt: skip
def test_values_become_texts_as_in_javascript(value: object, text: str) -> None:
    assert javascript_text(value) == text  # type: ignore[arg-type]


def prefix(text: str, class_type: str = "SaveImage") -> object:
    graph = parse_graph(
        {
            "1": {"class_type": "KSampler", "inputs": {"seed": 7, "model": ["3", 0]}, "_meta": {"title": "Main"}},
            "3": {"class_type": "X", "inputs": {"name": "a/b:c"}, "_meta": {"title": "KSampler"}},
            "2": {"class_type": class_type, "inputs": {"filename_prefix": text}},
        }
    )
    return expand_texts(graph, NOW, classes={"SaveImage"}).nodes["2"].inputs["filename_prefix"]


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("a_%date:yyyy-MM-dd%", "a_2025-03-04"),
        ("%date:yyyy/MM%/x", "2025/03/x"),
        ("%KSampler.seed%", "7"),
        ("%Main.seed%", "7"),
        ("%X.name%", "a_b_c"),
        ("%KSampler.model%", "%KSampler.model%"),
        ("%Nobody.seed%", "%Nobody.seed%"),
        ("%KSampler.nothing%", "%KSampler.nothing%"),
        ("%width%x%year%", "%width%x%year%"),
        ("%date:dd.MM%", "%date:dd.MM%"),
        ("100%", "100%"),
    ],
)
def test_prefixes_are_expanded_as_on_the_page(text: str, expanded: str) -> None:
    assert prefix(text) == expanded


def test_only_the_pages_classes_are_expanded() -> None:
    assert prefix("%date:yyyy%", "SaveVideo") == "%date:yyyy%"
