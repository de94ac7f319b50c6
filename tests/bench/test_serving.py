"""What answers cost over HTTP and from files: through real processes, and as text from given numbers."""

import pytest

from stages import paths
from stages.bench import serving


def one_round(http_ms, files):
    return {
        "forward_ms": 10.0,
        "forward_images_per_second": 1000.0,
        "http_ms": http_ms,
        "few_memory_mb": 900.0,
        "files_images_per_second": files,
        "files_memory_mb": 910.0,
    }


def test_the_report_compares_within_each_round():
    text = serving.render(
        {
            "hardware": {"cpu": "Some CPU", "cores": 2, "memory_gb": 16.0},
            "pictures": 10_000,
            "few_pictures": 1000,
            "requests": 100,
            "minutes": 4.0,
            "models": {"net": [one_round(14, 950.0), one_round(13, 920.0), one_round(19, 940.0)]},
        }
    )
    assert (
        "| net | 10.0 ms | 14.0 ms | **4.0 ms** (3.0 to 9.0) | 1,000 | 940 | **94%** (92% to 95%) | 900 MiB | 910 MiB |"
        in text.splitlines()
    )
    assert "Medians of 3 rounds" in text
    assert "10,000 PNG pictures" in text


@pytest.mark.slow
def test_a_model_is_packaged_served_and_asked_through_real_processes(tiny_params, tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "SCRATCH", tmp_path / "scratch")
    monkeypatch.setattr(paths, "PREPARED", tmp_path / "none")
    monkeypatch.setattr(serving, "SECONDS", 0.1)
    found = serving.measure(tiny_params, ["vit_scratch"], rounds=1, count=100)
    (measured,) = found["models"]["vit_scratch"]
    assert measured.keys() == one_round(1, 1).keys()
    assert min(measured.values()) > 0
    assert "| vit_scratch |" in serving.render(found)
    assert list((tmp_path / "scratch").iterdir()) == []
