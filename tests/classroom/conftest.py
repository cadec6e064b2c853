"""What the tests of the classroom share."""

import pytest
from IPython.core.displaypub import CapturingDisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from looks import alike_but_for_colour
from matplotlib.figure import Figure


@pytest.fixture
def displayed(tmp_path, monkeypatch):
    """The outputs a notebook would show, as a running IPython sends them."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    shell = InteractiveShell.instance()
    monkeypatch.setattr(shell, "display_pub", CapturingDisplayPublisher())
    yield shell.display_pub.outputs
    InteractiveShell.clear_instance()


@pytest.fixture(autouse=True)
def no_information_by_colour_alone(monkeypatch):
    """After each test, every figure that it drew is looked at with eyes that see no hue."""
    figures, begin = [], Figure.__init__

    def remember(self, *args, **kwargs):
        begin(self, *args, **kwargs)
        figures.append(self)

    monkeypatch.setattr(Figure, "__init__", remember)
    yield
    assert [pair for figure in figures for pair in alike_but_for_colour(figure)] == []
