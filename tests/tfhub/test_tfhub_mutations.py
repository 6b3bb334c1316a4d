"""Each check of `topwork.tfhub` fails when its promise is broken: the package's source is changed to break it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import keras
import pytest

import tfhub_promises
import topwork.tfhub
from tfhub_mutations import MUTATIONS, mutant

tfhub_promises.load_all()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tfhub")


@pytest.fixture(autouse=True)
def registry() -> Iterator[None]:
    """Each mutant enters its layer in Keras' register of classes; afterwards the real one is there again."""
    yield
    keras.saving.get_custom_objects()["topwork>KerasLayer"] = topwork.tfhub.KerasLayer


def test_every_promise_can_be_broken() -> None:
    assert set(MUTATIONS) == set(tfhub_promises.PROMISES)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", sorted(MUTATIONS))
def test_the_check_fails_when_its_promise_is_broken(
    name: str, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    broken = mutant(name, tmp_path)
    assert broken.KerasLayer is not topwork.tfhub.KerasLayer
    with pytest.raises(Exception) as caught:
        tfhub_promises.PROMISES[name].check(broken, shared)
    assert not isinstance(caught.value, NameError | SyntaxError)  # the change itself is sound Python
